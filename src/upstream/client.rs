//! The HTTPS client for upstream: trusted roots, proxy, size and time limits, failover between servers, and errors without URLs. A request
//! goes to the next server only if the one before certainly never received it. Knows nothing of tokens.

mod gate;
#[cfg(test)]
pub(crate) mod model;
mod own_host;
pub(crate) mod reasons;
mod resolver;
mod target;
mod tls;

use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use anyhow::Result;
use ureq::unversioned::transport::{Connector as _, DefaultConnector};
use zeroize::Zeroizing;

use self::gate::Gate;
#[cfg(test)]
pub(crate) use self::own_host::ALL;
use self::own_host::hint_of_own_host;
pub(crate) use self::own_host::{is_wechat, own_host_hint};
use self::resolver::BoundedResolver;
use self::target::Target;
use self::tls::TlsClient;
use super::error::{FailedAttempt, FailedStage, ProxyFailure, TlsFailure, Unreachable};
use super::passed::{self, KnownMirrors};
use super::roots::{TrustedRoots, is_of_other_ca, said_by_rustls};
use super::{SENT_WITHIN, UpstreamError};
use crate::error::{Exit, in_order};
use crate::language::Language;
use crate::log::{self, printable};
use crate::model::address::endpoint::{BaseUrl, Proxy};
use crate::model::location::Location;
use crate::model::secret::Secret;
use crate::os::clock::{Clock, SystemClock};
use crate::os::descriptors::shortage;
use crate::os::thread;

/// Maximum size of a response body; WeChat's are under 1 KiB.
const MAX_BODY: u64 = 64 * 1024;

/// Maximum size of a response head.
const MAX_HEAD: usize = 16 * 1024;

/// Maximum time for connecting, proxy and TLS included, so that a dead address leaves time for another attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How much later than ureq the client itself gives up, so that ureq's more precise error comes first.
const GRACE: Duration = Duration::from_millis(100);

/// A client for one or several equivalent servers. A later one is used only if those before cannot be reached.
#[derive(Clone)]
pub(crate) struct Client {
    targets: Vec<Target>,
    roots: TrustedRoots,
    /// The value of the `Authorization` header: `Bearer KEY`.
    authorization: Option<Secret>,
    /// The value of the `Accept-Language` header.
    language: Option<&'static str>,
    /// For a mirror: the account, and the place of its documents here.
    mirrored: Option<Arc<(String, Location)>>,
    /// The mirrors that have asked this process.
    mirrors: Arc<KnownMirrors>,
}

/// A complete response.
pub(crate) struct HttpResponse {
    pub(crate) status: u16,
    /// The `Date` header, unparsed.
    pub(crate) date: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// Why an exchange with one server brought no response.
#[derive(Debug)]
enum ExchangeError {
    /// No response, or none in time.
    NoResponse { stage: FailedStage, reason: String, may_pass: bool },
    /// Something that is not HTTP, or too large.
    Malformed(String),
}

impl Client {
    /// Returns a client for these servers, through `proxy` or else the environment's proxy.
    pub(crate) fn new(
        bases: &[BaseUrl],
        proxy: Option<&Proxy>,
        roots: TrustedRoots,
    ) -> Result<Client> {
        let target = |base: &BaseUrl| {
            let proxy = match proxy {
                Some(given) => Some(given.clone()),
                None => Proxy::from_environment(base)?,
            };
            Ok(Target { base: base.clone(), proxy })
        };
        let targets = bases.iter().map(target).collect::<Result<_>>()?;
        let mirrors = Arc::default();
        Ok(Client { targets, roots, authorization: None, language: None, mirrored: None, mirrors })
    }

    /// Reads the system's CA store, which only a request needs. Fails if the environment names one that cannot be used.
    pub(crate) fn prepare(&self) -> Result<()> {
        let config = self.roots.client_config();
        config.map(drop).map_err(|err| Exit::Usage.error(in_order(&err)))
    }

    /// Returns the client of a process that these mirrors have asked.
    pub(crate) fn asked_by(self, mirrors: &Arc<KnownMirrors>) -> Client {
        Client { mirrors: Arc::clone(mirrors), ..self }
    }

    /// Returns a client that sends this key with each request.
    pub(crate) fn with_key(self, key: &Secret) -> Client {
        let authorization = Secret::new(format!("Bearer {}", key.expose()));
        Client { authorization: Some(authorization), ..self }
    }

    /// Returns a client that asks for errors in this language; in any with `None`.
    pub(crate) fn in_language(self, language: Option<&'static str>) -> Client {
        Client { language, ..self }
    }

    /// Returns a client for the mirror of an account whose documents are at `location`, so that loops are found.
    pub(crate) fn for_mirror_of(self, account: &str, location: &Location) -> Client {
        let mirrored = Some(Arc::new((account.to_owned(), location.clone())));
        Client { mirrored, ..self }
    }

    /// Returns a client for each single server, with the server's name for messages.
    pub(crate) fn each(&self) -> impl Iterator<Item = (String, Client)> {
        self.targets.iter().map(|target| {
            (target.to_string(), Client { targets: vec![target.clone()], ..self.clone() })
        })
    }

    /// Returns the servers with their proxies, in order, as one text.
    pub(crate) fn route(&self) -> String {
        let targets: Vec<_> =
            self.targets.iter().map(|it| format!("{} {it}", it.base.join(""))).collect();
        targets.join("\n")
    }

    /// Sends a GET with these query parameters.
    pub(crate) fn get(
        &self,
        path: &str,
        query: &[(&str, &str)],
        timeout: Duration,
    ) -> Result<HttpResponse, UpstreamError> {
        #[cfg(test)]
        if let Some(simulated) = model::exchange(&self.targets[0].base.join(path), None, timeout) {
            return simulated;
        }
        self.exchange(timeout, |agent, base| {
            let request = agent.get(base.join(path)).query_pairs(query.iter().copied());
            let request = self.named(request);
            move || read_response(request.call())
        })
    }

    /// Sends a POST with a JSON body and its Content-Length: WeChat answers 412 to a chunked one.
    pub(crate) fn post_json(
        &self,
        path: &str,
        body: Zeroizing<Vec<u8>>,
        timeout: Duration,
    ) -> Result<HttpResponse, UpstreamError> {
        #[cfg(test)]
        if let Some(simulated) =
            model::exchange(&self.targets[0].base.join(path), Some(&body), timeout)
        {
            return simulated;
        }
        self.exchange(timeout, |agent, base| {
            let request = agent.post(base.join(path)).header("Content-Type", "application/json");
            let request = self.named(request);
            let body = body.clone();
            move || read_response(request.send(body.as_slice()))
        })
    }

    /// Adds the headers that say who asks, and in which language.
    fn named<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        let request = request.header(passed::HEADER, passed::name());
        let names = self.mirrored.as_ref().map(|mirrored| {
            let (account, location) = &**mirrored;
            self.mirrors.names_of_mirror(account, location, Instant::now())
        });
        let add = |request: ureq::RequestBuilder<B>, name| request.header(passed::HEADER, name);
        let request = names.into_iter().flatten().fold(request, add);
        let request = match &self.authorization {
            Some(value) => request.header("Authorization", value.expose()),
            None => request,
        };
        match self.language {
            Some(language) => request.header("Accept-Language", language),
            None => request,
        }
    }

    /// Sends the request to the first server, and to the next one if no connection could be made: then nothing was sent,
    /// and no request is made twice.
    fn exchange<E>(
        &self,
        timeout: Duration,
        prepare: impl Fn(&ureq::Agent, &BaseUrl) -> E,
    ) -> Result<HttpResponse, UpstreamError>
    where
        E: FnOnce() -> Result<HttpResponse, ExchangeError> + Send + 'static,
    {
        let (begun_at, deadline) = (SystemClock.now(), Instant::now() + timeout);
        let tls = self.roots.client_config();
        let tls = tls.map_err(|err| UpstreamError::unreachable(in_order(&err), false, false))?;
        let mut attempts = Vec::new();
        let mut targets = self.targets.iter();
        while let Some(target) = targets.next() {
            let left = deadline.saturating_duration_since(Instant::now());
            // The time left is shared with the remaining servers.
            let connect_timeout = CONNECT_TIMEOUT.min(left / (targets.len() as u32 + 1));
            let gate = Gate::new(target.proxy.is_some(), begun_at, timeout.min(SENT_WITHIN));
            let agent = agent(target, connect_timeout, TlsClient(tls.clone()), &gate);
            let _waiting = log::waiting_for(|| {
                let name = target.to_string();
                let [english, chinese] =
                    [Language::English, Language::Chinese].map(|it| it.resolve(&name));
                [english.into_owned(), format!(" {chinese}")]
            });
            let result = run_in_thread(left, connect_timeout, &gate, prepare(&agent, &target.base));
            let was_sent = result.is_ok() || !gate.shut();
            // Ends an exchange that is late, its connection and its thread: in a server they would add up.
            agent.shutdown();
            let (stage, reason, may_pass) = match result {
                Ok(response) => return Ok(response),
                Err(ExchangeError::Malformed(reason)) if was_sent => {
                    return Err(UpstreamError::Malformed(reason));
                }
                // Only a proxy can have answered a request that was not sent.
                Err(ExchangeError::Malformed(reason)) => (FailedStage::Connect, reason, false),
                Err(ExchangeError::NoResponse { stage, reason, may_pass }) => {
                    (stage, reason, may_pass)
                }
            };
            // With a proxy, its name is looked up, and the connection is made to it.
            let stage = match stage {
                FailedStage::Dns if target.proxy.is_some() => {
                    FailedStage::Proxy(ProxyFailure::Name)
                }
                FailedStage::Connect if target.proxy.is_some() && !was_sent => {
                    FailedStage::Proxy(ProxyFailure::Unreached)
                }
                stage => stage,
            };
            let reason = match stage {
                FailedStage::Connect | FailedStage::Tls(_) if target.proxy.is_none() => {
                    reason + &hint_of_own_host(&target.base)
                }
                _ => reason,
            };
            attempts.push(FailedAttempt { stage, reason, server: Some(target.to_string()) });
            let tries_next = may_pass && !was_sent && targets.len() > 0;
            if !tries_next {
                let may_have_arrived = was_sent;
                let unreachable = Unreachable { attempts, may_pass, may_have_arrived };
                return Err(UpstreamError::Unreachable(unreachable));
            }
        }
        Err(UpstreamError::unreachable(reasons::NO_SERVER.with([]), false, true))
    }
}

/// Returns a ureq agent for one exchange, whose request has to pass `gate`.
fn agent(target: &Target, connect_timeout: Duration, tls: TlsClient, gate: &Gate) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        // No timeout for the answer: ureq would count the time in which this process was stopped, and not look whether
        // an answer came meanwhile.
        .timeout_connect(Some(connect_timeout))
        // Shorter, so that a failure to resolve is told apart from one to connect.
        .timeout_resolve(Some(connect_timeout * 9 / 10))
        .max_redirects(0)
        .http_status_as_error(false)
        .max_idle_connections(0)
        .max_response_header_size(MAX_HEAD)
        .user_agent(concat!("wxtoken/", env!("CARGO_PKG_VERSION")))
        .proxy(target.proxy.as_ref().map(Proxy::to_ureq))
        .build();
    let connector = DefaultConnector::default().chain(tls).chain(gate.clone());
    ureq::Agent::with_parts(config, connector, BoundedResolver)
}

/// Runs an exchange in a thread of its own and stops waiting when it is late: if nothing has passed `gate` within
/// `connect_timeout`, or there is no response within `timeout`.
///
/// ureq's own timeouts for connecting are more precise and come first, but a proxy that answers CONNECT byte by byte evades
/// them (3.5.2), and the caller may hold the lock of a refresh.
fn run_in_thread(
    timeout: Duration,
    connect_timeout: Duration,
    gate: &Gate,
    exchange: impl FnOnce() -> Result<HttpResponse, ExchangeError> + Send + 'static,
) -> Result<HttpResponse, ExchangeError> {
    let pending = thread::start("exchange", exchange)
        .map_err(|err| failed_at(FailedStage::ThisHost, reasons::NO_THREAD.with([&err]), true))?;
    let mut result = pending.wait(connect_timeout + GRACE);
    if matches!(result, Err(RecvTimeoutError::Timeout)) && !gate.shut() {
        result = pending.wait(timeout - connect_timeout);
    }
    match result {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => {
            Err(no_response(reasons::NO_ANSWER_IN_TIME.with([]), true))
        }
        Err(RecvTimeoutError::Disconnected) => {
            Err(no_response(reasons::CLIENT_FAILED.with([]), true))
        }
    }
}

fn read_response(
    response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<HttpResponse, ExchangeError> {
    let mut response = response.map_err(|err| explain(&err))?;
    let body = response
        .body_mut()
        .with_config()
        .limit(MAX_BODY)
        .read_to_vec()
        .map_err(|err| explain(&err))?;
    let date = response.headers().get("date").and_then(|value| value.to_str().ok());
    Ok(HttpResponse { status: response.status().as_u16(), date: date.map(str::to_owned), body })
}

fn no_response(reason: impl Into<String>, may_pass: bool) -> ExchangeError {
    failed_at(FailedStage::Connect, reason, may_pass)
}

fn failed_at(stage: FailedStage, reason: impl Into<String>, may_pass: bool) -> ExchangeError {
    ExchangeError::NoResponse { stage, reason: reason.into(), may_pass }
}

fn unresolved(reason: String) -> ExchangeError {
    failed_at(FailedStage::Dns, reason, true)
}

fn short_of_resources(err: &std::io::Error) -> ExchangeError {
    failed_at(FailedStage::ThisHost, printable(&err.to_string(), 200), true)
}

/// Returns what was wrong with the proxy that refused with this message. ureq has no other form of the status.
fn proxy_failure(message: &str) -> ProxyFailure {
    match message.split_once("responded ").map(|(_, status)| status) {
        Some(status) if status.starts_with("407") => ProxyFailure::Password,
        Some(status) if status.starts_with('4') => ProxyFailure::Forbids,
        _ => ProxyFailure::GetsNoFurther,
    }
}

/// A TLS failure does not pass by itself, and may be an attack.
fn tls_failed(failure: TlsFailure, what: &str) -> ExchangeError {
    failed_at(FailedStage::Tls(failure), format!("TLS: {what}"), false)
}

fn tls_failure(err: &rustls::Error) -> TlsFailure {
    use rustls::CertificateError::{
        Expired, ExpiredContext, NotValidYet, NotValidYetContext, Other, UnknownIssuer,
    };
    match err {
        rustls::Error::InvalidCertificate(UnknownIssuer) => TlsFailure::UnknownIssuer,
        err if is_of_other_ca(err) => TlsFailure::UnknownIssuer,
        rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. }) => TlsFailure::Expired,
        rustls::Error::InvalidCertificate(NotValidYet | NotValidYetContext { .. }) => {
            TlsFailure::NotValidYet
        }
        // rustls has no kind of its own for it.
        rustls::Error::InvalidCertificate(Other(why))
            if format!("{why:?}").contains("CaUsedAsEndEntity") =>
        {
            TlsFailure::CaAsServer
        }
        _ => TlsFailure::Other,
    }
}

/// Converts ureq's errors. The messages are our own: some of ureq's contain the whole URL, and with it the secret.
fn explain(err: &ureq::Error) -> ExchangeError {
    match err {
        ureq::Error::Timeout(ureq::Timeout::Resolve) => {
            unresolved(reasons::NO_ADDRESS_AS.with([&reasons::NO_ANSWER_IN_TIME.with([])]))
        }
        ureq::Error::Timeout(_) => no_response(reasons::NO_ANSWER_IN_TIME.with([]), true),
        ureq::Error::HostNotFound => unresolved(reasons::NO_ADDRESS.with([])),
        ureq::Error::ConnectionFailed => no_response(reasons::CONNECTION_FAILED.with([]), true),
        // A 4xx does not pass: the proxy wants a password or forbids the host. ureq has no other form of the status.
        ureq::Error::ConnectProxyFailed(message) => failed_at(
            FailedStage::Proxy(proxy_failure(message)),
            reasons::PROXY_REFUSED.with([&printable(message, 100)]),
            !message.contains("responded 4"),
        ),
        ureq::Error::InvalidProxyUrl => failed_at(
            FailedStage::Proxy(ProxyFailure::Address),
            reasons::PROXY_ADDRESS.with([]),
            false,
        ),
        ureq::Error::Tls(what) => tls_failed(TlsFailure::Other, what),
        // An untrusted certificate arrives as an I/O error with rustls's error inside.
        ureq::Error::Io(err) if err.kind() == std::io::ErrorKind::InvalidData => {
            match err.get_ref().and_then(|inner| inner.downcast_ref()) {
                Some(inner) => tls_failed(tls_failure(inner), &said_by_rustls(inner)),
                None => tls_failed(TlsFailure::Other, &printable(&err.to_string(), 200)),
            }
        }
        ureq::Error::Io(err) if shortage::is_shortage(err) => short_of_resources(err),
        ureq::Error::Io(err) => {
            let message = printable(&err.to_string(), 200);
            // std's resolver errors have no kind of their own, only this text. Without a descriptor, the resolver says that
            // there is no such name.
            match message.starts_with("failed to lookup") {
                true => match shortage::of_sockets() {
                    Some(err) => short_of_resources(&err),
                    None => {
                        let said = message.split_once(": ").map_or(&*message, |(_, said)| said);
                        unresolved(reasons::NO_ADDRESS_AS.with([&said]))
                    }
                },
                false => no_response(message, true),
            }
        }
        ureq::Error::BodyExceedsLimit(_) => {
            ExchangeError::Malformed(reasons::LARGE_BODY.with([&MAX_BODY]))
        }
        ureq::Error::LargeResponseHeader(..) => {
            ExchangeError::Malformed(reasons::LARGE_HEAD.with([&MAX_HEAD]))
        }
        ureq::Error::Protocol(_) | ureq::Error::Http(_) => {
            ExchangeError::Malformed(reasons::of_malformed(&err.to_string()))
        }
        // The rest cannot arise from a checked base URL, and its message could contain the URL.
        _ => no_response(reasons::CLIENT_GAVE_UP.with([]), false),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn a_proxy_that_refuses_is_told_by_what_it_wants() {
        for (message, failure) in [
            ("proxy server responded 407/407", ProxyFailure::Password),
            ("proxy server responded 403/403", ProxyFailure::Forbids),
            ("proxy server responded 502/502", ProxyFailure::GetsNoFurther),
            ("proxy server did not respond", ProxyFailure::GetsNoFurther),
        ] {
            assert_eq!(proxy_failure(message), failure, "{message}");
        }
    }

    /// A server that accepts one connection, reads the request, reports that on the channel, and then calls `respond`.
    fn server(
        scheme: &str,
        respond: impl FnOnce(&mut TcpStream) + Send + 'static,
    ) -> (BaseUrl, mpsc::Receiver<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("{scheme}://{}", listener.local_addr().unwrap());
        let (sender, requests) = mpsc::channel();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]); // The request is short: one read.
            sender.send(()).unwrap();
            respond(&mut stream);
        });
        (BaseUrl::parse(&base).unwrap(), requests)
    }

    fn answering_server() -> (BaseUrl, mpsc::Receiver<()>) {
        server("http", |stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").unwrap();
        })
    }

    /// A port that was free a moment ago.
    fn closed_port() -> BaseUrl {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        BaseUrl::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap()
    }

    fn get(bases: &[BaseUrl], timeout: Duration) -> Result<HttpResponse, UpstreamError> {
        Client::new(bases, None, TrustedRoots::public()).unwrap().get("/", &[], timeout)
    }

    fn unreachable(result: Result<HttpResponse, UpstreamError>) -> Unreachable {
        match result {
            Err(UpstreamError::Unreachable(unreachable)) => unreachable,
            Err(err) => panic!("{err}"),
            Ok(response) => panic!("HTTP {}", response.status),
        }
    }

    #[test]
    fn the_next_server_is_asked_if_no_connection_can_be_made() {
        // Accepts the connection and never shakes hands.
        let (silent, _requests) = server("https", |stream| {
            let _ = stream.read(&mut [0; 4096]);
        });
        for dead in [closed_port(), silent] {
            let (live, requests) = answering_server();
            assert!(get(&[dead, live], Duration::from_secs(4)).is_ok());
            assert!(requests.try_recv().is_ok());
        }
    }

    #[test]
    fn a_request_that_may_have_arrived_is_not_sent_to_another_server() {
        // Closes without an answer, or stays silent until the client gives up.
        for closes in [true, false] {
            let (mute, requests) = server("http", move |stream| {
                if !closes {
                    let _ = stream.read(&mut [0; 4096]);
                }
            });
            let (next, next_requests) = answering_server();
            assert!(unreachable(get(&[mute, next], Duration::from_secs(1))).may_have_arrived);
            assert!(requests.try_recv().is_ok() && next_requests.try_recv().is_err());
        }
    }

    #[test]
    fn every_server_that_cannot_be_reached_is_named() {
        let (one, other) = (closed_port(), closed_port());
        let err = unreachable(get(&[one.clone(), other.clone()], Duration::from_secs(4)));
        let shown = err.to_string();
        assert!(shown.contains(one.authority()) && shown.contains(other.authority()), "{shown}");
        assert!(!err.reason().contains(one.authority()), "{}", err.reason());
        assert!(!err.may_have_arrived);
    }

    #[test]
    fn an_error_says_at_which_stage_the_request_failed() {
        let stage = |bases: &[BaseUrl]| unreachable(get(bases, Duration::from_secs(4))).stage();
        let nowhere = BaseUrl::parse("https://nowhere.invalid").unwrap();
        assert_eq!(stage(std::slice::from_ref(&nowhere)), FailedStage::Dns);
        assert_eq!(stage(&[closed_port()]), FailedStage::Connect);
        let closing = || server("http", |_| {}).0;
        assert_eq!(stage(&[closing()]), FailedStage::Response);
        assert_eq!(stage(&[closed_port(), closing()]), FailedStage::Response);
        assert_eq!(stage(&[nowhere, closed_port()]), FailedStage::Dns);
    }

    #[test]
    fn an_exchange_that_is_given_up_ends_and_leaves_no_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nX: ").unwrap();
            // One byte at a time evades ureq's timeouts, until the client closes the connection.
            for _ in 0..1000 {
                if stream.write_all(b"x").is_err() {
                    return true;
                }
                thread::sleep(Duration::from_millis(10));
            }
            false
        });
        let base = BaseUrl::parse("https://wechat.test").unwrap();
        let proxy_url = Proxy::parse(&format!("http://{address}")).unwrap();
        let client = Client::new(&[base], Some(&proxy_url), TrustedRoots::public()).unwrap();
        let result = client.get("/", &[], Duration::from_secs(1));
        assert!(!unreachable(result).may_have_arrived && proxy.join().unwrap());
    }

    #[test]
    fn an_answer_with_more_headers_than_are_read_is_said_to_have_them() {
        for (headers, is_read) in [(reasons::MAX_HEADERS, true), (reasons::MAX_HEADERS + 1, false)]
        {
            let (base, _requests) = server("http", move |stream| {
                let head = "HTTP/1.1 204 No Content\r\n".to_owned() + &"x: 1\r\n".repeat(headers);
                stream.write_all((head + "\r\n").as_bytes()).unwrap();
            });
            match get(&[base], Duration::from_secs(60)) {
                Ok(response) => assert!(is_read && response.status == 204),
                Err(err) => assert!(!is_read && err.to_string().contains("128 headers"), "{err}"),
            }
        }
    }

    #[test]
    fn a_host_of_wechats_that_is_this_host_is_explained() {
        let hint = |addresses: &[&str]| {
            own_host_hint("api.weixin.qq.com", addresses.iter().map(|it| it.parse().unwrap()))
        };
        assert_eq!(hint(&["192.0.2.1"]), "");
        assert!(hint(&["192.0.2.1", "127.0.0.1"]).contains("api.weixin.qq.com is 127.0.0.1 here"));
    }

    #[test]
    fn no_error_repeats_the_url() {
        for err in [
            ureq::Error::BadUri("https://x/?secret=S3CR3T".to_owned()),
            ureq::Error::RequireHttpsOnly("http://x/?secret=S3CR3T".to_owned()),
            ureq::Error::Other("https://x/?secret=S3CR3T".into()),
        ] {
            let explained = format!("{:?}", explain(&err));
            assert!(!explained.contains("S3CR3T"), "{explained}");
        }
    }
}
