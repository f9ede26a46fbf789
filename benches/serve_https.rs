//! `wxtoken serve` over HTTPS against nginx with the same certificate and the same JSON as a static file, one worker
//! each: CPU time per request over kept-alive connections, CPU time of a connection that asks once, with a whole
//! handshake and with a resumed one, and what 2,000 idle connections cost.
//!
//! nginx's OpenSSL is Debian's; both sides take the cipher suite and the key exchange that the client likes best, and
//! give it two tickets to come back with. wrk's likings are OpenSSL's: AES-256-GCM. Whoever asks once is rustls: an
//! X25519 key exchange, and what is counted is all that the server does for it, one request included.
//!
//! An RSA key is there for comparison only: `ring`, which wxtoken signs with, is made for P-256.

mod support;

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_RSA_SHA256,
};
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};
use support::idle;
use support::load::{CPU, FIGURES, Load, RATE};
use support::servers::token;
use support::servers::{Identity, Running, Site, USUAL_CONNECTIONS, Way, ask, can_hold, connect};
use support::{Rounds, TOKEN, cpu};

/// Over kept-alive connections: how many, how many rounds, and of how many seconds each.
const CONNECTIONS: usize = 64;
const ROUNDS: usize = 15;
const SECS: u64 = 1;

/// Of connections that ask once: how many rounds, and how many connections in each.
const ONCE_ROUNDS: usize = 15;
const ONCE: usize = 200;

/// How many idle connections there are, and how many both sides are told to hold then.
const IDLE: usize = 2_000;
const MANY_CONNECTIONS: usize = 3_000;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

fn main() {
    support::only_under_cargo_bench();
    let Some(nginx) = support::peer("nginx") else { return };
    let Some(wrk) = support::peer("wrk") else { return };
    let dir = tempfile::tempdir().expect("a directory");
    support::publish(&dir.path().join("default.json"), 7200);
    let authority = Authority::new();
    let p256 = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let p256 = authority.identity(dir.path(), "P-256", &p256);
    let rsa = rsa_key(dir.path()).map(|key| authority.identity(dir.path(), "RSA-2048", &key));
    let pairs: Vec<Pair> = [("P-256", Some(&p256)), ("RSA-2048", rsa.as_ref())]
        .into_iter()
        .filter_map(|(key, identity)| Some(Pair::start(&nginx, dir.path(), key, identity?)))
        .collect();

    for version in VERSIONS {
        kept_alive(&wrk, dir.path(), &pairs[0], version);
    }
    for pair in &pairs {
        for version in VERSIONS {
            once(pair, &authority, version);
        }
    }
    if can_hold(IDLE) {
        idle(&nginx, dir.path(), &p256, &authority);
    }
}

/// Both servers with the same certificate.
struct Pair {
    key: &'static str,
    wxtoken: Running,
    nginx: Running,
}

impl Pair {
    fn start(nginx: &Path, dir: &Path, key: &'static str, identity: &Identity) -> Pair {
        let home = dir.join(key);
        let wxtoken = Running::wxtoken_with("wxtoken", dir, identity, &[]);
        let sites = [Site { name: "static file", how: "", tls: Some(identity) }];
        Pair { key, wxtoken, nginx: Running::nginx(nginx, &home, USUAL_CONNECTIONS, &sites) }
    }

    fn ways(&self) -> [&Way; 2] {
        [&self.wxtoken.ways[0], &self.nginx.ways[0]]
    }
}

fn kept_alive(wrk: &Path, dir: &Path, pair: &Pair, version: &SupportedProtocolVersion) {
    let no_newer = dir.join("openssl.cnf");
    let name = if version.version == TLS12.version { "TLSv1.2" } else { "TLSv1.3" };
    let text = format!(
        "openssl_conf = conf\n[conf]\nssl_conf = ssl\n[ssl]\nsystem_default = tls\n[tls]\nMaxProtocol = {name}\n"
    );
    fs::write(&no_newer, text).expect("a file");
    let load = Load::of(wrk, CONNECTIONS, SECS).under(&no_newer);
    let ways = pair.ways();
    for way in ways {
        load.drive(way, "/token"); // Warm.
    }
    let driven = Rounds::of(ROUNDS, ways.len(), |nth| load.drive(ways[nth], "/token"));
    support::head(&format!(
        "{name}, connections: {CONNECTIONS}; {ROUNDS} rounds of {SECS} s, taking turns"
    ));
    for (which, target) in [(RATE, "target: at least 1"), (CPU, "target: at most 1")] {
        let what = format!("{}, wxtoken : {}", FIGURES[which].0, ways[1].name);
        support::row(&what, &driven.ratio(0, 1, which), target);
    }
    for which in [RATE, CPU] {
        for (nth, way) in ways.iter().enumerate() {
            let what = format!("{}, {}{}", way.name, FIGURES[which].0, FIGURES[which].1);
            support::row(&what, &driven.figure(nth, which), "");
        }
    }
}

/// Connections that ask once and are closed.
fn once(pair: &Pair, authority: &Authority, version: &'static SupportedProtocolVersion) {
    let ways = pair.ways();
    support::head(&format!(
        "{:?}, {}, connections that ask once; {ONCE_ROUNDS} rounds of {ONCE}",
        version.version, pair.key
    ));
    for (kind, name) in
        [(HandshakeKind::Full, "whole handshake"), (HandshakeKind::Resumed, "resumed")]
    {
        let clients = ways.map(|_| authority.client(version, kind));
        let round = |nth: usize| [cpu_of_each(ways[nth], &clients[nth], kind)];
        round(0);
        round(1);
        let driven = Rounds::of(ONCE_ROUNDS, ways.len(), round);
        let what = format!("CPU, {name}, wxtoken : {}", ways[1].name);
        support::row(&what, &driven.ratio(0, 1, 0), "target: at most 1");
        for (nth, way) in ways.iter().enumerate() {
            let what = format!("{}, {name}, CPU, us", way.name);
            support::row(&what, &driven.figure(nth, 0), "");
        }
    }
}

/// What a server spends on a connection that asks once, in microseconds of CPU.
fn cpu_of_each(way: &Way, client: &Arc<ClientConfig>, kind: HandshakeKind) -> f64 {
    drop(open_and_ask(way, client)); // The ticket that the next one comes back with.
    let before = cpu(way.worker);
    for _ in 0..ONCE {
        let mut stream = open_and_ask(way, client);
        assert_eq!(stream.conn.handshake_kind(), Some(kind), "{}", way.name);
        stream.conn.send_close_notify();
        let _ = stream.conn.complete_io(&mut stream.sock);
    }
    (cpu(way.worker) - before) * 1e6 / ONCE as f64
}

type TlsStream = StreamOwned<ClientConnection, TcpStream>;

fn open(way: &Way, client: &Arc<ClientConfig>) -> TlsStream {
    let name = "localhost".try_into().expect("a name");
    let session = ClientConnection::new(Arc::clone(client), name).expect("a session");
    let socket = connect(way.at);
    socket.set_nodelay(true).expect("a socket");
    StreamOwned::new(session, socket)
}

fn open_and_ask(way: &Way, client: &Arc<ClientConfig>) -> TlsStream {
    let mut stream = open(way, client);
    assert_eq!(token(&ask(&mut stream, "/token")), TOKEN, "{}", way.name);
    stream
}

fn idle(nginx: &Path, dir: &Path, identity: &Identity, authority: &Authority) {
    let many = MANY_CONNECTIONS.to_string();
    let many = ["--max-connections", &many];
    let wxtoken = || Running::wxtoken_with("wxtoken", dir, identity, &many);
    let sites = [Site { name: "static file", how: "", tls: Some(identity) }];
    let nginx = || Running::nginx(nginx, dir, MANY_CONNECTIONS, &sites);
    let client = authority.client(&TLS13, HandshakeKind::Full);
    let open = |way: &Way| open(way, &client);
    let ask = |stream: &mut TlsStream| assert_eq!(token(&ask(stream, "/token")), TOKEN);
    idle::head(IDLE);
    let ours = idle::memory_of_each(IDLE, wxtoken, open, ask);
    support::row("wxtoken, resident KiB per connection", &ours, "target: no more than nginx");
    let theirs = idle::memory_of_each(IDLE, nginx, open, ask);
    support::row("nginx, static file, resident KiB per connection", &theirs, "");
}

/// Whom the clients trust.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("an authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate").der().clone();
        Authority { issuer: Issuer::new(params, key), certificate }
    }

    /// A certificate for this key, in files.
    fn identity(&self, dir: &Path, name: &str, key: &KeyPair) -> Identity {
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = params.signed_by(key, &self.issuer).expect("a certificate");
        let [cert_file, key_file] = ["cert", "key"].map(|what| dir.join(format!("{name}.{what}")));
        fs::write(&cert_file, certificate.pem()).expect("a file");
        fs::write(&key_file, "").expect("a file");
        // A key that others can read is refused.
        fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).expect("a mode");
        fs::write(&key_file, key.serialize_pem()).expect("a file");
        Identity { cert: cert_file, key: key_file }
    }

    /// A client of this version only, which remembers tickets if it is to come back with them.
    fn client(
        &self,
        version: &'static SupportedProtocolVersion,
        kind: HandshakeKind,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots)
            .with_no_client_auth();
        if kind == HandshakeKind::Full {
            client.resumption = Resumption::disabled();
        }
        Arc::new(client)
    }
}

/// `ring` makes no RSA keys.
fn rsa_key(dir: &Path) -> Option<KeyPair> {
    let openssl = support::peer("openssl")?;
    let file = dir.join("rsa");
    let mut command = Command::new(openssl);
    command.args(["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    let made = command.arg("-out").arg(&file).output().expect("openssl starts");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let pem = fs::read_to_string(file).expect("a key");
    Some(KeyPair::from_pkcs8_pem_and_sign_algo(&pem, &PKCS_RSA_SHA256).expect("a key"))
}
