//! Compares `wxtoken serve` over HTTPS with nginx serving the same JSON as a static file with the same certificate, one
//! worker each: CPU time per request over kept-alive connections, CPU time of a connection with a single request, with a
//! full handshake and with a resumed one, and memory of 2,000 idle connections.
//!
//! nginx uses Debian's OpenSSL. Both servers follow the client's preferences for cipher suite and key exchange, and issue
//! two session tickets. wrk (OpenSSL) prefers AES-256-GCM. Connections with a single request are made with rustls and
//! X25519; all that the server does for one counts, the request included.
//!
//! RSA is measured for comparison only: `ring`, which wxtoken signs with, is optimized for P-256.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, SupportedProtocolVersion};
use support::idle;
use support::load::{CPU, FIGURES, Load, RATE};
use support::servers::token;
use support::servers::{
    Endpoint, Identity, Running, Site, USUAL_CONNECTIONS, can_hold_connections, get,
};
use support::tls::{Authority, TlsStream, open};
use support::{Rounds, TOKEN, cpu};

/// Kept-alive connections, rounds, and seconds per server and round.
const CONNECTIONS: usize = 64;
const ROUNDS: usize = 15;
const SECS: u64 = 1;

/// Rounds, and connections with a single request in each.
const SINGLE_ROUNDS: usize = 15;
const SINGLE: usize = 200;

/// The number of idle connections, and the limit set on both servers.
const IDLE: usize = 2_000;
const MANY_CONNECTIONS: usize = 3_000;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

fn main() {
    support::only_under_cargo_bench();
    let Some(nginx) = support::find_program("nginx") else { return };
    let Some(wrk) = support::find_program("wrk") else { return };
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
            single_requests(pair, &authority, version);
        }
    }
    if can_hold_connections(IDLE) {
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
        let wxtoken = Running::wxtoken_with_tls("wxtoken", dir, identity, &[]);
        let sites = [Site { name: "static file", directives: "", tls: Some(identity) }];
        Pair { key, wxtoken, nginx: Running::nginx(nginx, &home, USUAL_CONNECTIONS, &sites) }
    }

    fn endpoints(&self) -> [&Endpoint; 2] {
        [&self.wxtoken.endpoints[0], &self.nginx.endpoints[0]]
    }
}

fn kept_alive(wrk: &Path, dir: &Path, pair: &Pair, version: &SupportedProtocolVersion) {
    let openssl_conf = dir.join("openssl.cnf");
    let name = if version.version == TLS12.version { "TLSv1.2" } else { "TLSv1.3" };
    let text = format!(
        "openssl_conf = conf\n[conf]\nssl_conf = ssl\n[ssl]\nsystem_default = tls\n[tls]\nMaxProtocol = {name}\n"
    );
    fs::write(&openssl_conf, text).expect("a file");
    let load = Load::new(wrk, CONNECTIONS, SECS).with_openssl_conf(&openssl_conf);
    let endpoints = pair.endpoints();
    for endpoint in endpoints {
        load.drive(endpoint, "/token"); // Warm-up.
    }
    let driven = Rounds::run(ROUNDS, endpoints.len(), |nth| load.drive(endpoints[nth], "/token"));
    support::print_header(&format!(
        "{name}, connections: {CONNECTIONS}; {ROUNDS} rounds of {SECS} s, by turns"
    ));
    for (which, target) in [(RATE, "target: at least 1"), (CPU, "target: at most 1")] {
        let what = format!("{}, wxtoken : {}", FIGURES[which].0, endpoints[1].name);
        support::print_row(&what, &driven.ratio(0, 1, which), target);
    }
    for which in [RATE, CPU] {
        for (nth, endpoint) in endpoints.iter().enumerate() {
            let what = format!("{}, {}{}", endpoint.name, FIGURES[which].0, FIGURES[which].1);
            support::print_row(&what, &driven.figure(nth, which), "");
        }
    }
}

/// Connections that are closed after a single request.
fn single_requests(pair: &Pair, authority: &Authority, version: &'static SupportedProtocolVersion) {
    let endpoints = pair.endpoints();
    support::print_header(&format!(
        "{:?}, {}, connections with a single request; {SINGLE_ROUNDS} rounds of {SINGLE}",
        version.version, pair.key
    ));
    for (kind, name) in
        [(HandshakeKind::Full, "full handshake"), (HandshakeKind::Resumed, "resumed")]
    {
        let clients = endpoints.map(|_| authority.client(version, kind));
        let round = |nth: usize| [cpu_per_connection(endpoints[nth], &clients[nth], kind)];
        round(0);
        round(1);
        let driven = Rounds::run(SINGLE_ROUNDS, endpoints.len(), round);
        let what = format!("CPU, {name}, wxtoken : {}", endpoints[1].name);
        support::print_row(&what, &driven.ratio(0, 1, 0), "target: at most 1");
        for (nth, endpoint) in endpoints.iter().enumerate() {
            let what = format!("{}, {name}, CPU, us", endpoint.name);
            support::print_row(&what, &driven.figure(nth, 0), "");
        }
    }
}

/// Returns the server's CPU time for a connection with a single request, in microseconds.
fn cpu_per_connection(endpoint: &Endpoint, client: &Arc<ClientConfig>, kind: HandshakeKind) -> f64 {
    drop(open_and_get(endpoint, client)); // Obtains the ticket for the next connection.
    let before = cpu(endpoint.worker);
    for _ in 0..SINGLE {
        let mut stream = open_and_get(endpoint, client);
        assert_eq!(stream.conn.handshake_kind(), Some(kind), "{}", endpoint.name);
        stream.conn.send_close_notify();
        let _ = stream.conn.complete_io(&mut stream.sock);
    }
    (cpu(endpoint.worker) - before) * 1e6 / SINGLE as f64
}

fn open_and_get(endpoint: &Endpoint, client: &Arc<ClientConfig>) -> TlsStream {
    let mut stream = open(endpoint, client);
    assert_eq!(token(&get(&mut stream, "/token")), TOKEN, "{}", endpoint.name);
    stream
}

fn idle(nginx: &Path, dir: &Path, identity: &Identity, authority: &Authority) {
    let many = MANY_CONNECTIONS.to_string();
    let many = ["--max-connections", &many];
    let wxtoken = || Running::wxtoken_with_tls("wxtoken", dir, identity, &many);
    let sites = [Site { name: "static file", directives: "", tls: Some(identity) }];
    let nginx = || Running::nginx(nginx, dir, MANY_CONNECTIONS, &sites);
    let client = authority.client(&TLS13, HandshakeKind::Full);
    let open = |endpoint: &Endpoint| open(endpoint, &client);
    let ask = |stream: &mut TlsStream| assert_eq!(token(&get(stream, "/token")), TOKEN);
    idle::print_header(IDLE);
    let wxtoken_memory = idle::memory_of_each(IDLE, wxtoken, open, ask);
    support::print_row(
        "wxtoken, resident KiB per connection",
        &wxtoken_memory,
        "target: no more than nginx",
    );
    let nginx_memory = idle::memory_of_each(IDLE, nginx, open, ask);
    support::print_row("nginx, static file, resident KiB per connection", &nginx_memory, "");
}

/// Generates an RSA key with openssl, because `ring` cannot.
fn rsa_key(dir: &Path) -> Option<KeyPair> {
    let openssl = support::find_program("openssl")?;
    let file = dir.join("rsa");
    let mut command = Command::new(openssl);
    command.args(["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
    let output = command.arg("-out").arg(&file).output().expect("openssl starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let pem = fs::read_to_string(file).expect("a key");
    Some(KeyPair::from_pkcs8_pem_and_sign_algo(&pem, &PKCS_RSA_SHA256).expect("a key"))
}
