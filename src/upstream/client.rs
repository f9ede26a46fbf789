//! The one HTTPS client: roots, proxy, bounds, and errors without a URL in them. Knows nothing of tokens, and sends a
//! request once: to the next server only what surely never reached the one before.

use std::fmt;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, DefaultConnector};
use zeroize::Zeroizing;

use super::UpstreamError;
use super::gate::Gate;
use crate::log::printable;
use crate::model::address::endpoint::{BaseUrl, Proxy};
use crate::model::secret::Secret;
use crate::os::read::{self, MAX_PEM, Protection, ReadError};

/// An answer's body is this long at most; WeChat's are under 1 KiB.
const MAX_BODY: u64 = 64 * 1024;

/// An answer's head is this long at most.
const MAX_HEAD: usize = 16 * 1024;

/// Connecting may take this long, proxy and TLS included, so that a dead address leaves time for another try.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How much later than ureq we give up ourselves, so that its better words come first.
const GRACE: Duration = Duration::from_millis(100);

/// Servers to talk to: all of them are the same, and the next one is for when one cannot be reached.
#[derive(Clone)]
pub(crate) struct Client {
    routes: Vec<Route>,
    trust: TrustedRoots,
    /// What it shows to be let in: `Bearer KEY`.
    authorization: Option<Secret>,
}

/// A server, and the way there.
#[derive(Clone)]
struct Route {
    base: BaseUrl,
    proxy: Option<Proxy>,
}

/// For messages: the host, and the proxy without its password.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.base.authority())?;
        match &self.proxy {
            Some(proxy) => write!(f, " through the proxy {}", proxy.authority()),
            None => Ok(()),
        }
    }
}

/// A whole answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Its `Date`, as it came.
    pub(crate) date: Option<String>,
    pub(crate) body: Vec<u8>,
}

impl Client {
    /// A client for these servers, through this proxy, else through the environment's.
    pub(crate) fn new(
        bases: &[BaseUrl],
        proxy: Option<&Proxy>,
        trust: TrustedRoots,
    ) -> Result<Client> {
        let route = |base: &BaseUrl| {
            let proxy = match proxy {
                Some(given) => Some(given.clone()),
                None => Proxy::of_environment(base)?,
            };
            Ok(Route { base: base.clone(), proxy })
        };
        let routes = bases.iter().map(route).collect::<Result<_>>()?;
        Ok(Client { routes, trust, authorization: None })
    }

    /// The same client, which shows this key with each request.
    pub(crate) fn with_key(self, key: &Secret) -> Client {
        let authorization = Secret::new(format!("Bearer {}", key.expose()));
        Client { authorization: Some(authorization), ..self }
    }

    /// A client for each of the servers alone, and what people call it.
    pub(crate) fn each(&self) -> impl Iterator<Item = (String, Client)> {
        self.routes.iter().map(|route| {
            let (trust, authorization) = (self.trust.clone(), self.authorization.clone());
            (route.to_string(), Client { routes: vec![route.clone()], trust, authorization })
        })
    }

    /// Sends a GET with these parameters in its query.
    pub(crate) fn get(
        &self,
        path: &str,
        query: &[(&str, &str)],
        timeout: Duration,
    ) -> Result<Answer, UpstreamError> {
        self.exchange(timeout, |agent, base| {
            let request = agent.get(base.with(path)).query_pairs(query.iter().copied());
            let request = self.authorized(request);
            move || finish(request.call())
        })
    }

    /// Sends a POST with a JSON body, and its Content-Length: WeChat answers 412 to a chunked one.
    pub(crate) fn post_json(
        &self,
        path: &str,
        body: Zeroizing<Vec<u8>>,
        timeout: Duration,
    ) -> Result<Answer, UpstreamError> {
        self.exchange(timeout, |agent, base| {
            let request = agent.post(base.with(path)).header("Content-Type", "application/json");
            let request = self.authorized(request);
            let body = body.clone();
            move || finish(request.send(body.as_slice()))
        })
    }

    fn authorized<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.authorization {
            Some(value) => request.header("Authorization", value.expose()),
            None => request,
        }
    }

    /// Asks the first server, and the next one where no connection could be made: then nothing was sent, and nothing is
    /// asked for twice.
    fn exchange<E>(
        &self,
        timeout: Duration,
        prepare: impl Fn(&ureq::Agent, &BaseUrl) -> E,
    ) -> Result<Answer, UpstreamError>
    where
        E: FnOnce() -> Result<Answer, UpstreamError> + Send + 'static,
    {
        let deadline = Instant::now() + timeout;
        let mut missed = Vec::new();
        let mut routes = self.routes.iter();
        while let Some(route) = routes.next() {
            let left = deadline.saturating_duration_since(Instant::now());
            // What is left is for the others, too.
            let connecting = CONNECT_TIMEOUT.min(left / (routes.len() as u32 + 1));
            let gate = Gate::new(route.proxy.is_some());
            let agent = self.agent(route, left, connecting, &gate);
            let outcome = within(left, connecting, &gate, prepare(&agent, &route.base));
            let outcome = route.told(outcome, &gate);
            // One that is late ends, too, connection and thread: in a server they would add up.
            agent.shutdown();
            match outcome {
                Err(UpstreamError::Unreachable { what, may_pass, may_have_arrived }) => {
                    missed.push(what);
                    let is_next_better = may_pass && !may_have_arrived && routes.len() > 0;
                    if !is_next_better {
                        let what = missed.join("; ");
                        return Err(UpstreamError::Unreachable {
                            what,
                            may_pass,
                            may_have_arrived,
                        });
                    }
                }
                outcome => return outcome,
            }
        }
        Err(unreachable("there is no server to ask", false))
    }

    /// A client for one exchange, whose request passes `gate`.
    fn agent(
        &self,
        route: &Route,
        timeout: Duration,
        connecting: Duration,
        gate: &Gate,
    ) -> ureq::Agent {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .timeout_connect(Some(connecting))
            // Sooner, so that it is known to have been the name.
            .timeout_resolve(Some(connecting * 9 / 10))
            .max_redirects(0)
            .http_status_as_error(false)
            .max_idle_connections(0)
            .max_response_header_size(MAX_HEAD)
            .user_agent(concat!("wxtoken/", env!("CARGO_PKG_VERSION")))
            .proxy(route.proxy.as_ref().map(Proxy::for_client))
            .tls_config(self.trust.0.clone())
            .build();
        let connector = DefaultConnector::default().chain(gate.clone());
        ureq::Agent::with_parts(config, connector, DefaultResolver::default())
    }
}

impl Route {
    /// The same outcome; where there was no answer, with who was to give it, and whether the request can have arrived.
    fn told(
        &self,
        outcome: Result<Answer, UpstreamError>,
        gate: &Gate,
    ) -> Result<Answer, UpstreamError> {
        outcome.map_err(|err| {
            let was_sent = !gate.shut();
            match err {
                UpstreamError::Unreachable { what, may_pass, .. } => UpstreamError::Unreachable {
                    what: format!("{what} ({self})"),
                    may_pass,
                    may_have_arrived: was_sent,
                },
                // What made no sense came from a proxy.
                UpstreamError::Malformed(what) if !was_sent => UpstreamError::Unreachable {
                    what: format!("{what} ({self})"),
                    may_pass: false,
                    may_have_arrived: false,
                },
                err => err,
            }
        })
    }
}

/// Runs an exchange in a thread of its own, and goes on without it when it is late: when nothing has passed `gate` in
/// the time for `connecting`, or there is no answer in all the time there is.
///
/// ureq has its own timeouts and they do nearly all of this, but a proxy that answers CONNECT byte by byte gets round
/// them (3.5.2), and whoever waits here holds the lock.
fn within(
    timeout: Duration,
    connecting: Duration,
    gate: &Gate,
    exchange: impl FnOnce() -> Result<Answer, UpstreamError> + Send + 'static,
) -> Result<Answer, UpstreamError> {
    let (done, answer) = mpsc::channel();
    thread::Builder::new()
        .name("exchange".to_owned())
        .spawn(move || {
            let _ = done.send(exchange()); // Nobody may be waiting any more.
        })
        .map_err(|err| unreachable(format!("cannot start a thread: {err}"), true))?;
    let mut landed = answer.recv_timeout(connecting + GRACE);
    if matches!(landed, Err(RecvTimeoutError::Timeout)) && !gate.shut() {
        landed = answer.recv_timeout(timeout - connecting);
    }
    match landed {
        Ok(answer) => answer,
        Err(RecvTimeoutError::Timeout) => Err(unreachable("no answer in time", true)),
        Err(RecvTimeoutError::Disconnected) => Err(unreachable("the HTTP client failed", true)),
    }
}

/// No answer; whether the request arrived is told later.
fn unreachable(what: impl Into<String>, may_pass: bool) -> UpstreamError {
    UpstreamError::Unreachable { what: what.into(), may_pass, may_have_arrived: true }
}

fn finish(
    response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<Answer, UpstreamError> {
    let mut response = response.map_err(|err| explain(&err))?;
    let body = response
        .body_mut()
        .with_config()
        .limit(MAX_BODY)
        .read_to_vec()
        .map_err(|err| explain(&err))?;
    let date = response.headers().get("date").and_then(|value| value.to_str().ok());
    Ok(Answer { status: response.status().as_u16(), date: date.map(str::to_owned), body })
}

// How what went wrong begins, where it tells how far the request came.
const NO_ADDRESS: &str = "the host name has no address (DNS)";
const PROXY_REFUSED: &str = "the proxy refused";
const TLS: &str = "TLS: ";

/// How far a request came that got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailedStage {
    /// No address is known for the name.
    Name,
    /// No connection was made.
    Connection,
    /// The proxy let it go no further.
    Proxy,
    /// The server is not taken for what it says it is.
    Tls,
    /// It may have arrived.
    Answer,
}

impl FailedStage {
    /// How far the request came of whose failure this is told.
    pub(crate) fn of(what: &str, may_have_arrived: bool) -> FailedStage {
        match what {
            _ if what.starts_with(NO_ADDRESS) => FailedStage::Name,
            _ if what.starts_with(PROXY_REFUSED) => FailedStage::Proxy,
            _ if what.starts_with(TLS) => FailedStage::Tls,
            _ if may_have_arrived => FailedStage::Answer,
            _ => FailedStage::Connection,
        }
    }
}

/// What went wrong, in words of ours: some of ureq's errors print the whole URL, and with it the secret.
fn explain(err: &ureq::Error) -> UpstreamError {
    match err {
        ureq::Error::Timeout(ureq::Timeout::Resolve) => {
            unreachable(format!("{NO_ADDRESS}: no answer in time"), true)
        }
        ureq::Error::Timeout(_) => unreachable("no answer in time", true),
        ureq::Error::HostNotFound => unreachable(NO_ADDRESS, true),
        ureq::Error::ConnectionFailed => unreachable("the connection failed", true),
        // A proxy that wants a password or forbids the host will not change its mind; one that is busy will.
        ureq::Error::ConnectProxyFailed(said) => unreachable(
            format!("{PROXY_REFUSED}: {}", printable(said, 100)),
            !said.contains("responded 4"),
        ),
        ureq::Error::InvalidProxyUrl => unreachable("the proxy's address is not valid", false),
        ureq::Error::Rustls(err) => unreachable(format!("{TLS}{err}"), false),
        ureq::Error::Tls(what) => unreachable(format!("{TLS}{what}"), false),
        // How an unfit certificate comes: rustls's own error inside. It will not pass, and it may be an attack.
        ureq::Error::Io(err) if err.kind() == std::io::ErrorKind::InvalidData => {
            unreachable(format!("{TLS}{}", printable(&err.to_string(), 200)), false)
        }
        ureq::Error::Io(err) => {
            let said = printable(&err.to_string(), 200);
            // std's words for all that the resolver says; they have no kind of their own.
            match said.starts_with("failed to lookup") {
                true => unreachable(format!("{NO_ADDRESS}: {said}"), true),
                false => unreachable(said, true),
            }
        }
        ureq::Error::BodyExceedsLimit(_) => {
            UpstreamError::Malformed(format!("a body of more than {MAX_BODY} bytes"))
        }
        ureq::Error::LargeResponseHeader(..) => {
            UpstreamError::Malformed(format!("a head of more than {MAX_HEAD} bytes"))
        }
        ureq::Error::Protocol(_) | ureq::Error::Http(_) => {
            UpstreamError::Malformed("it is not HTTP".to_owned())
        }
        // What is left cannot arise from a base that was checked; its words could hold the URL.
        _ => unreachable("the HTTP client gave up", false),
    }
}

/// Whose certificates are trusted. They are always verified. Cheap to clone.
#[derive(Clone)]
pub(crate) struct TrustedRoots(TlsConfig);

impl TrustedRoots {
    /// Mozilla's roots.
    pub(crate) fn public() -> TrustedRoots {
        TrustedRoots(TlsConfig::builder().build())
    }

    /// Those, and what is in a CA file.
    pub(crate) fn with(path: &Path) -> Result<TrustedRoots> {
        let reading = || format!("cannot read CA file {}", path.display());
        let pem = match read::read(path, Protection::Any, MAX_PEM) {
            Ok(pem) => pem,
            Err(ReadError::NotRegular) => bail!("CA file {} is not a regular file", path.display()),
            Err(err) => return Err(err).with_context(reading),
        };
        let mut roots: Vec<Certificate<'static>> = Vec::new();
        for item in ureq::tls::parse_pem(&pem) {
            match item {
                Ok(PemItem::Certificate(certificate)) => roots.push(certificate),
                Ok(_) => {}
                Err(_) => bail!("CA file {} is not PEM", path.display()),
            }
        }
        if roots.is_empty() {
            bail!("CA file {} has no certificate in it", path.display());
        }
        let public = webpki_root_certs::TLS_SERVER_ROOT_CERTS;
        roots
            .extend(public.iter().map(|certificate| Certificate::from_der(certificate).to_owned()));
        Ok(TrustedRoots(TlsConfig::builder().root_certs(RootCerts::from(roots)).build()))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Somebody who takes one connection, and does this with it once the request has come; how many have come is told.
    fn server(
        scheme: &str,
        act: impl FnOnce(&mut std::net::TcpStream) + Send + 'static,
    ) -> (BaseUrl, mpsc::Receiver<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("{scheme}://{}", listener.local_addr().unwrap());
        let (asked, times) = mpsc::channel();
        thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut head = [0; 4096];
            let _ = client.read(&mut head); // One read: it is short.
            asked.send(()).unwrap();
            act(&mut client);
        });
        (BaseUrl::parse(&base).unwrap(), times)
    }

    fn answering() -> (BaseUrl, mpsc::Receiver<()>) {
        server("http", |client| {
            client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").unwrap();
        })
    }

    /// Nobody: a port that was free a moment ago.
    fn nobody() -> BaseUrl {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        BaseUrl::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap()
    }

    fn ask(bases: &[BaseUrl], timeout: Duration) -> Result<Answer, UpstreamError> {
        Client::new(bases, None, TrustedRoots::public()).unwrap().get("/", &[], timeout)
    }

    #[test]
    fn where_no_connection_can_be_made_the_next_server_is_asked() {
        // It takes the connection, and never shakes hands.
        let (silent, _asked) = server("https", |client| {
            let _ = client.read(&mut [0; 4096]);
        });
        for dead in [nobody(), silent] {
            let (live, asked) = answering();
            assert!(ask(&[dead, live], Duration::from_secs(4)).is_ok());
            assert!(asked.try_recv().is_ok());
        }
    }

    #[test]
    fn what_may_have_arrived_is_not_sent_to_another_server() {
        // Gone without an answer, and silent until we are.
        for leaves in [true, false] {
            let (deaf, asked) = server("http", move |client| {
                if !leaves {
                    let _ = client.read(&mut [0; 4096]);
                }
            });
            let (next, asked_next) = answering();
            let outcome = ask(&[deaf, next], Duration::from_secs(1));
            let Err(UpstreamError::Unreachable { may_have_arrived, .. }) = outcome else {
                panic!("an answer, from whom?")
            };
            assert!(may_have_arrived);
            assert!(asked.try_recv().is_ok() && asked_next.try_recv().is_err());
        }
    }

    #[test]
    fn whom_nobody_could_reach_are_all_named() {
        let (one, other) = (nobody(), nobody());
        let outcome = ask(&[one.clone(), other.clone()], Duration::from_secs(4));
        let Err(UpstreamError::Unreachable { what, may_have_arrived, .. }) = outcome else {
            panic!()
        };
        assert!(what.contains(one.authority()) && what.contains(other.authority()), "{what}");
        assert!(!may_have_arrived);
    }

    #[test]
    fn how_far_a_request_came_is_told() {
        let stage = |outcome| match outcome {
            Err(UpstreamError::Unreachable { what, may_have_arrived, .. }) => {
                FailedStage::of(&what, may_have_arrived)
            }
            _ => panic!("an answer"),
        };
        let nowhere = BaseUrl::parse("https://nowhere.invalid").unwrap();
        assert_eq!(stage(ask(&[nowhere], Duration::from_secs(4))), FailedStage::Name);
        assert_eq!(stage(ask(&[nobody()], Duration::from_secs(4))), FailedStage::Connection);
        let (gone, _asked) = server("http", |_| {});
        assert_eq!(stage(ask(&[gone], Duration::from_secs(4))), FailedStage::Answer);
    }

    #[test]
    fn a_ca_file_adds_to_the_public_roots_and_does_not_replace_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&path, params.self_signed(&key).unwrap().pem()).unwrap();
        let TrustedRoots(config) = TrustedRoots::with(&path).unwrap();
        let RootCerts::Specific(roots) = config.root_certs() else { panic!("not a list of roots") };
        assert_eq!(roots.len(), webpki_root_certs::TLS_SERVER_ROOT_CERTS.len() + 1);
        assert!(roots.len() > 100, "the public ones are many");
        assert!(!config.disable_verification() && !TrustedRoots::public().0.disable_verification());
    }

    #[test]
    fn an_exchange_that_is_given_up_ends_and_leaves_no_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = thread::spawn(move || {
            let (mut caller, _) = listener.accept().unwrap();
            caller.write_all(b"HTTP/1.1 200 OK\r\nX: ").unwrap();
            // A byte at a time gets round ureq's timeouts, until the other side is closed.
            for _ in 0..1000 {
                if caller.write_all(b"x").is_err() {
                    return true;
                }
                thread::sleep(Duration::from_millis(10));
            }
            false
        });
        let base = BaseUrl::parse("https://wechat.test").unwrap();
        let proxy_url = Proxy::parse(&format!("http://{address}")).unwrap();
        let client = Client::new(&[base], Some(&proxy_url), TrustedRoots::public()).unwrap();
        let outcome = client.get("/", &[], Duration::from_secs(1));
        let Err(UpstreamError::Unreachable { may_have_arrived, .. }) = outcome else {
            panic!("an answer")
        };
        assert!(!may_have_arrived && proxy.join().unwrap());
    }

    #[test]
    fn no_client_error_repeats_the_url() {
        for err in [
            ureq::Error::BadUri("https://x/?secret=S3CR3T".to_owned()),
            ureq::Error::RequireHttpsOnly("http://x/?secret=S3CR3T".to_owned()),
            ureq::Error::Other("https://x/?secret=S3CR3T".into()),
        ] {
            let explained = explain(&err);
            assert!(!format!("{explained} {explained:?}").contains("S3CR3T"), "{explained}");
        }
    }
}
