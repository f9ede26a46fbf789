//! The one HTTPS client: roots, proxy, bounds, and errors without a URL in them. Knows nothing of tokens,
//! and tries once.

use std::io::Read;
use std::net::IpAddr;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use ureq::http::Uri;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, DefaultConnector};
use zeroize::Zeroizing;

use super::AskError;
use super::gate::Gate;
use crate::report::printable;

/// An answer's body is this long at most; WeChat's are under 1 KiB.
const MAX_BODY: u64 = 64 * 1024;

/// An answer's head is this long at most.
const MAX_HEAD: usize = 16 * 1024;

/// Connecting may take this long, proxy and TLS included, so that a dead address leaves time for another try.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How much later than ureq we give up ourselves, so that its better words come first.
const GRACE: Duration = Duration::from_millis(100);

/// A file of certificates is this long at most; a whole system's bundle has about 220 KiB.
const MAX_CA_FILE: u64 = 4 * 1024 * 1024;

/// A server to talk to.
pub(crate) struct Client {
    base: String,
    tls: TlsConfig,
    proxy: Option<ureq::Proxy>,
    /// Whom it talks to, for messages: the host, and the proxy without its password.
    route: String,
}

/// A whole answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Client {
    /// A client for the server at `base`: `https://HOST[/PREFIX]`, or `http://` on loopback.
    pub(crate) fn new(base: &str, ca_file: Option<&Path>) -> Result<Client> {
        let uri = check_base(base)?;
        let proxy = proxy(&uri)?;
        let host = uri.authority().map_or("", |authority| authority.as_str());
        let route = match &proxy {
            Some(proxy) => format!("{host} through the proxy {}:{}", proxy.host(), proxy.port()),
            None => host.to_owned(),
        };
        Ok(Client { base: base.trim_end_matches('/').to_owned(), tls: tls(ca_file)?, proxy, route })
    }

    /// Sends a GET with these parameters in its query.
    pub(crate) fn get(
        &self,
        path: &str,
        query: &[(&str, &str)],
        timeout: Duration,
    ) -> Result<Answer, AskError> {
        let exchange = self.exchange(timeout);
        let request = exchange.agent.get(format!("{}{path}", self.base));
        let request = request.query_pairs(query.iter().copied());
        self.outcome(exchange, timeout, move || request.call())
    }

    /// Sends a POST with a JSON body, and its Content-Length: WeChat answers 412 to a chunked one.
    pub(crate) fn post_json(
        &self,
        path: &str,
        body: Zeroizing<Vec<u8>>,
        timeout: Duration,
    ) -> Result<Answer, AskError> {
        let exchange = self.exchange(timeout);
        let request = exchange.agent.post(format!("{}{path}", self.base));
        let request = request.header("Content-Type", "application/json");
        self.outcome(exchange, timeout, move || request.send(body.as_slice()))
    }

    /// What comes of it within `timeout`; where there is no answer, with who was to give it, and whether the request can
    /// have arrived.
    fn outcome(
        &self,
        exchange: Exchange,
        timeout: Duration,
        send: impl FnOnce() -> Result<ureq::http::Response<ureq::Body>, ureq::Error> + Send + 'static,
    ) -> Result<Answer, AskError> {
        let outcome = within(timeout, move || finish(send())).map_err(|err| {
            let was_sent = !exchange.gate.shut();
            match err {
                AskError::Unreachable { what, may_pass, .. } => AskError::Unreachable {
                    what: format!("{what} ({})", self.route),
                    may_pass,
                    may_have_arrived: was_sent,
                },
                // What made no sense came from a proxy.
                AskError::Nonsense(what) if !was_sent => AskError::Unreachable {
                    what: format!("{what} ({})", self.route),
                    may_pass: false,
                    may_have_arrived: false,
                },
                err => err,
            }
        });
        // One that is late ends, too, connection and thread: in a server they would add up.
        exchange.agent.shutdown();
        outcome
    }

    fn exchange(&self, timeout: Duration) -> Exchange {
        let gate = Gate::new(self.proxy.is_some());
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(timeout))
            .timeout_connect(Some(CONNECT_TIMEOUT.min(timeout)))
            .max_redirects(0)
            .http_status_as_error(false)
            .max_idle_connections(0)
            .max_response_header_size(MAX_HEAD)
            .user_agent(concat!("wxtoken/", env!("CARGO_PKG_VERSION")))
            .proxy(self.proxy.clone())
            .tls_config(self.tls.clone())
            .build();
        let connector = DefaultConnector::default().chain(gate.clone());
        let agent = ureq::Agent::with_parts(config, connector, DefaultResolver::default());
        Exchange { agent, gate }
    }
}

/// One request and its answer.
struct Exchange {
    agent: ureq::Agent,
    /// What the request passes when it is sent.
    gate: Gate,
}

/// Runs an exchange in a thread of its own, and goes on without it when it is late.
///
/// ureq has its own timeouts and they do nearly all of this, but a proxy that answers CONNECT byte by byte gets round
/// them (3.5.2), and whoever waits here holds the lock.
fn within(
    timeout: Duration,
    exchange: impl FnOnce() -> Result<Answer, AskError> + Send + 'static,
) -> Result<Answer, AskError> {
    let (done, answer) = mpsc::channel();
    thread::Builder::new()
        .name("exchange".to_owned())
        .spawn(move || {
            let _ = done.send(exchange()); // Nobody may be waiting any more.
        })
        .map_err(|err| unreachable(format!("cannot start a thread: {err}"), true))?;
    match answer.recv_timeout(timeout + GRACE) {
        Ok(answer) => answer,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(unreachable("no answer in time", true)),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            Err(unreachable("the HTTP client failed", true))
        }
    }
}

/// No answer; whether the request arrived is told later.
fn unreachable(what: impl Into<String>, may_pass: bool) -> AskError {
    AskError::Unreachable { what: what.into(), may_pass, may_have_arrived: true }
}

fn finish(
    response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<Answer, AskError> {
    let mut response = response.map_err(|err| explain(&err))?;
    let body = response
        .body_mut()
        .with_config()
        .limit(MAX_BODY)
        .read_to_vec()
        .map_err(|err| explain(&err))?;
    Ok(Answer { status: response.status().as_u16(), body })
}

/// What went wrong, in words of ours: some of ureq's errors print the whole URL, and with it the secret.
fn explain(err: &ureq::Error) -> AskError {
    match err {
        ureq::Error::Timeout(_) => unreachable("no answer in time", true),
        ureq::Error::HostNotFound => unreachable("the host name has no address (DNS)", true),
        ureq::Error::ConnectionFailed => unreachable("the connection failed", true),
        // A proxy that wants a password or forbids the host will not change its mind; one that is busy will.
        ureq::Error::ConnectProxyFailed(said) => unreachable(
            format!("the proxy refused: {}", printable(said, 100)),
            !said.contains("responded 4"),
        ),
        ureq::Error::InvalidProxyUrl => unreachable("the proxy's address is not valid", false),
        ureq::Error::Rustls(err) => unreachable(format!("TLS: {err}"), false),
        ureq::Error::Tls(what) => unreachable(format!("TLS: {what}"), false),
        // How an unfit certificate comes: rustls's own error inside. It will not pass, and it may be an attack.
        ureq::Error::Io(err) if err.kind() == std::io::ErrorKind::InvalidData => {
            unreachable(format!("TLS: {}", printable(&err.to_string(), 200)), false)
        }
        ureq::Error::Io(err) => unreachable(printable(&err.to_string(), 200), true),
        ureq::Error::BodyExceedsLimit(_) => {
            AskError::Nonsense(format!("a body of more than {MAX_BODY} bytes"))
        }
        ureq::Error::LargeResponseHeader(..) => {
            AskError::Nonsense(format!("a head of more than {MAX_HEAD} bytes"))
        }
        ureq::Error::Protocol(_) | ureq::Error::Http(_) => {
            AskError::Nonsense("it is not HTTP".to_owned())
        }
        // What is left cannot arise from a base that was checked; its words could hold the URL.
        _ => unreachable("the HTTP client gave up", false),
    }
}

/// Takes `https://HOST[:PORT][/PREFIX]`, and `http://` on loopback. What is refused is not repeated: it may hold a password.
fn check_base(base: &str) -> Result<Uri> {
    let uri: Uri = base.parse().map_err(|_| anyhow!("--base-url is not a URL"))?;
    if has_bad_port(&uri) {
        bail!("--base-url has a port that is none");
    }
    let host = uri
        .host()
        .filter(|host| !host.is_empty())
        .ok_or_else(|| anyhow!("--base-url has no host"))?;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        bail!("--base-url must not hold a user or password");
    }
    // The URI forgets a fragment, and the API's path would land behind it.
    if uri.query().is_some() || base.contains('#') {
        bail!("--base-url must not have a query or a fragment");
    }
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") if is_loopback(host) => Ok(uri),
        Some("http") => bail!(
            "--base-url must be https:// (http:// only to loopback): the AppSecret would cross the network in clear"
        ),
        _ => bail!("--base-url must begin with https://"),
    }
}

/// Whether a port is given that is not one; the client would take the scheme's own instead.
fn has_bad_port(uri: &Uri) -> bool {
    let after_host = uri
        .authority()
        .map_or("", |authority| authority.as_str().rsplit([']', '@']).next().unwrap_or(""));
    after_host.contains(':') && uri.port_u16().is_none()
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Certificates are always verified: against Mozilla's roots, and those in `ca_file` too.
fn tls(ca_file: Option<&Path>) -> Result<TlsConfig> {
    let Some(path) = ca_file else { return Ok(TlsConfig::builder().build()) };
    let reading = || format!("cannot read --ca-file {}", path.display());
    if !std::fs::metadata(path).with_context(reading)?.is_file() {
        bail!("--ca-file {} is not a regular file", path.display());
    }
    let mut pem = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_CA_FILE).read_to_end(&mut pem))
        .with_context(reading)?;
    let mut roots: Vec<Certificate<'static>> = Vec::new();
    for item in ureq::tls::parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => roots.push(certificate),
            Ok(_) => {}
            Err(_) => bail!("--ca-file {} is not PEM", path.display()),
        }
    }
    if roots.is_empty() {
        bail!("--ca-file {} has no certificate in it", path.display());
    }
    let public = webpki_root_certs::TLS_SERVER_ROOT_CERTS;
    roots.extend(public.iter().map(|certificate| Certificate::from_der(certificate).to_owned()));
    Ok(TlsConfig::builder().root_certs(RootCerts::from(roots)).build())
}

/// The proxy for `target`, from `HTTPS_PROXY` or `ALL_PROXY`, unless `NO_PROXY` exempts it; never for loopback.
///
/// ureq would read them too, but it goes direct when it cannot parse one, takes `HTTP_PROXY` for https, and
/// overlooks `NO_PROXY` entries after a blank.
fn proxy(target: &Uri) -> Result<Option<ureq::Proxy>> {
    let read = |name: &'static str| std::env::var_os(name).filter(|value| !value.is_empty());
    let either = |upper, lower| {
        read(upper).map(|value| (upper, value)).or_else(|| read(lower).map(|value| (lower, value)))
    };
    let host = target.host().unwrap_or_default();
    let Some((name, value)) =
        either("HTTPS_PROXY", "https_proxy").or_else(|| either("ALL_PROXY", "all_proxy"))
    else {
        return Ok(None);
    };
    if is_loopback(host) {
        return Ok(None);
    }
    let exempt =
        either("NO_PROXY", "no_proxy").map(|(_, list)| list.to_string_lossy().into_owned());
    // The value is not repeated: it may hold a password.
    let nonsense = || {
        anyhow!("{name} is not a proxy's address (like http://proxy:3128); refusing to go round it")
    };
    let address = value.to_str().ok_or_else(nonsense)?.trim();
    if address.parse::<Uri>().is_ok_and(|uri| has_bad_port(&uri)) {
        return Err(nonsense());
    }
    let proxy = parse_proxy(address, &exempt.unwrap_or_default()).map_err(|_| nonsense())?;
    Ok((!proxy.is_no_proxy(target)).then_some(proxy))
}

fn parse_proxy(address: &str, exempt: &str) -> Result<ureq::Proxy, ureq::Error> {
    let given = ureq::Proxy::new(address)?;
    let mut proxy = ureq::Proxy::builder(given.protocol())
        .host(given.host())
        .port(given.port())
        .resolve_target(given.resolve_target());
    if let Some(username) = given.username() {
        proxy = proxy.username(username);
    }
    if let Some(password) = given.password() {
        proxy = proxy.password(password);
    }
    for entry in exempt.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        proxy = proxy.no_proxy(entry);
    }
    proxy.build()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_secret_goes_to_https_or_stays_on_this_machine() {
        for fine in [
            "https://api.weixin.qq.com",
            "https://proxy.example:8443/wx/",
            "http://127.0.0.1:7201",
            "http://localhost",
            "http://[::1]:80",
            "http://127.9.9.9",
        ] {
            assert!(check_base(fine).is_ok(), "{fine}");
        }
        for wrong in [
            "",
            "api.weixin.qq.com",
            "/cgi-bin",
            "ftp://api.weixin.qq.com",
            "http://api.weixin.qq.com",
            "http://127.0.0.1.example",
            "http://10.0.0.1",
            "https://",
            "https://user:S3CR3T@api.weixin.qq.com",
            "https://api.weixin.qq.com/?secret=S3CR3T",
            "https://api.weixin.qq.com/#S3CR3T",
            "https://api weixin/S3CR3T",
            "https://api.weixin.qq.com:99999",
            "https://api.weixin.qq.com:",
            "http://[::1]:x",
        ] {
            let err = check_base(wrong).expect_err(wrong).to_string();
            assert!(!err.contains("S3CR3T"), "{err}");
        }
    }

    #[test]
    fn a_ca_file_adds_to_the_public_roots_and_does_not_replace_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&path, params.self_signed(&key).unwrap().pem()).unwrap();
        let config = tls(Some(&path)).unwrap();
        let RootCerts::Specific(roots) = config.root_certs() else { panic!("not a list of roots") };
        assert_eq!(roots.len(), webpki_root_certs::TLS_SERVER_ROOT_CERTS.len() + 1);
        assert!(roots.len() > 100, "the public ones are many");
        assert!(!config.disable_verification() && !tls(None).unwrap().disable_verification());
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
        let client = Client {
            proxy: Some(ureq::Proxy::new(&format!("http://{address}")).unwrap()),
            ..Client::new("https://wechat.test", None).unwrap()
        };
        let outcome = client.get("/", &[], Duration::from_secs(1));
        let Err(AskError::Unreachable { may_have_arrived, .. }) = outcome else {
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

    #[test]
    fn no_proxy_entries_may_have_blanks_around_them() {
        let proxy =
            parse_proxy("http://u:p%40ss@proxy:3128", "a.example, .weixin.qq.com ,,b").unwrap();
        assert!(proxy.is_no_proxy(&"https://api.weixin.qq.com".parse().unwrap()));
        assert!(!proxy.is_no_proxy(&"https://qyapi.example".parse().unwrap()));
        assert_eq!((proxy.host(), proxy.port(), proxy.password()), ("proxy", 3128, Some("p@ss")));
        assert!(parse_proxy("nonsense://x", "").is_err());
    }
}
