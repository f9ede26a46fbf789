//! `wxtoken ca`: what it writes and refuses, and what clients accept of a server with its certificates: WeChat's two hosts and
//! nothing else, also if the key that stays is stolen.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use crate::support::proxy::proxy_to;
use crate::support::*;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, RootCertStore};

const HOSTS: [&str; 2] = ["api.weixin.qq.com", "qyapi.weixin.qq.com"];

/// The files of a CA, in the order of their names, with their modes.
const FILES: [(&str, u32); 6] = [
    ("ca.lock", 0o600),
    ("ca.pem", 0o644),
    ("cert.pem", 0o644),
    ("intermediate.key", 0o600),
    ("intermediate.pem", 0o644),
    ("key.pem", 0o600),
];

#[track_caller]
fn ca(args: &[&str]) -> Run {
    let mut command = wxtoken();
    command.arg("ca").args(args);
    Run::new(command)
}

/// A directory with a new CA in it.
struct Ca {
    sandbox: Sandbox,
}

impl Ca {
    fn new(flags: &[&str]) -> Ca {
        let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
        let dir = sandbox.path("ca").display().to_string();
        let ran = ca(&[flags, &[&*dir]].concat()).exits(0);
        assert_eq!(ran.stderr, "");
        Ca { sandbox }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.sandbox.path("ca").join(name)
    }

    fn dir(&self) -> String {
        self.path("").display().to_string()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Verifies the certificates in this file as rustls does at `at`, a Unix time, for a client that trusts the CA.
    fn verify(&self, chain: &str, host: &str, at: u64) -> Result<(), rustls::Error> {
        let chain: Vec<_> =
            CertificateDer::pem_file_iter(self.path(chain)).unwrap().map(Result::unwrap).collect();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let host = ServerName::try_from(host).unwrap();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
        verifier.verify_server_cert(&chain[0], &chain[1..], &host, &[], at).map(drop)
    }

    /// Signs a certificate for these names (`DNS:NAME` or `IP:ADDRESS`) with the intermediate's key, as its thief would, and
    /// returns the flags of a server that has it.
    fn forge(&self, names: &str) -> Vec<String> {
        let file = |name: &str| self.path(name).display().to_string();
        let extensions = format!(
            "subjectAltName={names}\nextendedKeyUsage=serverAuth\nbasicConstraints=critical,CA:FALSE\n\
             authorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
        );
        fs::write(self.path("extensions"), extensions).unwrap();
        let openssl = |words: &str| {
            let output = Command::new("openssl").args(words.split(' ')).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        openssl(&format!(
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=forged -keyout {} -out {}",
            file("forged.key"),
            file("forged.csr")
        ));
        openssl(&format!(
            "x509 -req -in {} -CA {} -CAkey {} -set_serial 1 -days 30 -extfile {} -out {}",
            file("forged.csr"),
            file("intermediate.pem"),
            file("intermediate.key"),
            file("extensions"),
            file("forged.pem")
        ));
        let chain = self.read("forged.pem") + &self.read("intermediate.pem");
        fs::write(self.path("forged.pem"), chain).unwrap();
        self.flags("forged.pem", "forged.key")
    }

    fn flags(&self, cert: &str, key: &str) -> Vec<String> {
        let path = |name| self.path(name).display().to_string();
        vec!["--tls-cert".into(), path(cert), "--tls-key".into(), path(key)]
    }
}

fn now() -> u64 {
    u64::try_from(time::UtcDateTime::now().unix_timestamp()).unwrap()
}

const DAY: u64 = 24 * 60 * 60;

fn refusal(result: Result<(), rustls::Error>) -> CertificateError {
    match result {
        Err(rustls::Error::InvalidCertificate(err)) => err,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_ca_has_its_files_with_their_modes_and_prints_how_it_is_trusted() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    let dir = sandbox.path("new/ca");
    let shown = dir.display().to_string();
    let ran = ca(&[&shown]).exits(0).prints(&[
        "can sign api.weixin.qq.com qyapi.weixin.qq.com only",
        &format!("{shown}/cert.pem: the server's certificate, until "),
        &format!("wxtoken ca --renew {shown}"),
        "update-ca-certificates",
        "update-ca-trust",
        "SSL_CERT_FILE=",
        "REQUESTS_CA_BUNDLE=",
        "NODE_EXTRA_CA_CERTS=",
        "keytool ",
        "openssl.cafile=",
        "curl.cainfo=",
    ]);
    assert!(ran.stderr.is_empty() && !ran.stdout.contains('@'), "{}", ran.stdout);
    let mut found: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            (entry.file_name().into_string().unwrap(), mode)
        })
        .collect();
    found.sort();
    assert_eq!(found, FILES.map(|(name, mode)| (name.to_owned(), mode)));
    let keys = FILES.map(|(name, _)| fs::read_to_string(dir.join(name)).unwrap());
    let with_key = keys.iter().filter(|text| text.contains("PRIVATE KEY")).count();
    assert_eq!(with_key, 2, "the root's key is nowhere");
    let mut chinese = wxtoken();
    chinese.env("WXTOKEN_LANG", "zh_CN").args(["ca", "--renew", &shown]);
    Run::new(chinese).exits(0).prints(&["服务器证书，有效期至 "]);
}

#[test]
fn the_certificate_is_for_both_hosts_or_the_named_one() {
    for (flags, hosts) in [
        (&[][..], &HOSTS[..]),
        (&["--name", "api.weixin.qq.com"], &HOSTS[..1]),
        (&["--name", "QYAPI.weixin.qq.com"], &HOSTS[1..]),
        (&["--name", "qyapi.weixin.qq.com,api.weixin.qq.com"], &HOSTS[..]),
    ] {
        let ca_ = Ca::new(flags);
        for renewed in [false, true] {
            if renewed {
                ca(&["--renew", &ca_.dir()]).exits(0);
            }
            for host in HOSTS {
                let verified = ca_.verify("cert.pem", host, now());
                assert_eq!(
                    verified.is_ok(),
                    hosts.contains(&host),
                    "{flags:?} {host} {verified:?}"
                );
            }
        }
    }
}

#[test]
fn other_names_and_wildcards_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca").display().to_string();
    for name in [
        "",
        "weixin.qq.com",
        "*.weixin.qq.com",
        "*",
        "sh.api.weixin.qq.com",
        "api.mch.weixin.qq.com",
        "example.com",
        "127.0.0.1",
        "api.weixin.qq.com.",
        "api.weixin.qq.com,example.com",
    ] {
        ca(&["--name", name, &path]).exits(2).says(&["--name", "api.weixin.qq.com and qyapi"]);
    }
    assert!(!Path::new(&path).exists());
    for days in ["0", "826", "-1", "x"] {
        ca(&[&format!("--days={days}"), &path]).exits(2).mentions(&["1 to 825"]);
    }
    ca(&[]).exits(2);
}

#[test]
fn nothing_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let shown = dir.path().display().to_string();
    for (name, _) in &FILES[1..] {
        fs::write(dir.path().join(name), "mine").unwrap();
        ca(&[&shown]).exits(2).says(&[name, "nothing is overwritten", "--renew"]);
        assert_eq!(fs::read_to_string(dir.path().join(name)).unwrap(), "mine");
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    ca(&[&shown]).exits(0);
    let before = fs::read(dir.path().join("ca.pem")).unwrap();
    ca(&[&shown]).exits(2).says(&["ca.pem", "nothing is overwritten"]);
    assert_eq!(fs::read(dir.path().join("ca.pem")).unwrap(), before);
}

#[test]
fn a_directory_in_which_any_user_could_replace_the_ca_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (open, sticky) = (dir.path().join("open"), dir.path().join("sticky"));
    for (path, mode) in [(&open, 0o777), (&sticky, 0o1777)] {
        fs::create_dir(path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    ca(&[open.to_str().unwrap()])
        .exits(2)
        .says(&["you alone can write to", "every user can write"]);
    assert_eq!(fs::read_dir(&open).unwrap().count(), 0);
    ca(&[sticky.to_str().unwrap()]).exits(0);
}

/// Returns `wxtoken ca ARGS…`, in which this fault is injected.
fn with_fault(fault: &str, args: &[&str]) -> Run {
    let mut command = wxtoken();
    command.arg("ca").args(args);
    let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", fault];
    Run::new(wrapped(&strace, &command))
}

#[needs(strace)]
#[test]
fn a_ca_whose_making_was_cut_off_at_any_step_is_made_by_the_same_command() {
    let renames = "rename,renameat,renameat2";
    for fault in ["signal=KILL", "error=EIO"] {
        let (mut cut_off, mut complete) = (0, 0);
        for number in 1.. {
            let dir = tempfile::tempdir().unwrap();
            let shown = dir.path().display().to_string();
            let ran = with_fault(&format!("inject={renames}:{fault}:when={number}"), &[&shown]);
            if ran.status.success() {
                break;
            }
            cut_off += 1;
            match dir.path().join("ca.pem").exists() {
                true => complete += 1,
                false => drop(ca(&[&shown]).exits(0)),
            }
            ca(&["--renew", &shown]).exits(0);
            let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
            names.sort_by_key(|it| it.as_ref().unwrap().file_name());
            let names = names.into_iter().map(|it| it.unwrap().file_name().into_string().unwrap());
            assert!(names.eq(FILES.map(|(name, _)| name.to_owned())), "{fault} {number}");
        }
        assert!(cut_off > 5 && complete <= 1, "{fault} {cut_off} {complete}");
    }
}

#[needs(strace)]
#[test]
fn a_disk_that_does_not_answer_is_not_taken_for_one_without_the_file() {
    let ca_ = Ca::new(&[]);
    let before = FILES.map(|(name, _)| ca_.read(name));
    for args in [&[&*ca_.dir()][..], &["--renew", &*ca_.dir()]] {
        for number in 1..20 {
            let ran = with_fault(&format!("inject=statx:error=EIO:when={number}"), args);
            for ((name, _), before) in FILES.iter().zip(&before) {
                let is_new = *name == "cert.pem" && args.len() == 2;
                assert!(is_new || ca_.read(name) == *before, "{args:?} {number} {name} {ran:?}");
            }
        }
    }
}

#[test]
fn a_renewed_certificate_is_another_one_of_the_same_ca_and_key() {
    let ca_ = Ca::new(&["--days", "10"]);
    let before = FILES.map(|(name, _)| ca_.read(name));
    assert!(ca_.verify("cert.pem", HOSTS[0], now() + 9 * DAY).is_ok());
    let over = refusal(ca_.verify("cert.pem", HOSTS[0], now() + 11 * DAY));
    assert!(matches!(over, CertificateError::ExpiredContext { .. }), "{over:?}");
    ca(&["--renew", "--days", "20", &ca_.dir()]).exits(0);
    assert!(ca_.verify("cert.pem", HOSTS[0], now() + 19 * DAY).is_ok());
    for ((name, _), before) in FILES.iter().zip(&before) {
        assert_eq!(ca_.read(name) != *before, *name == "cert.pem", "{name}");
    }
    // A key that is missing is made.
    fs::remove_file(ca_.path("key.pem")).unwrap();
    ca(&["--renew", &ca_.dir()]).exits(0);
    let server = ca_.serve_with(&ca_.flags("cert.pem", "key.pem"));
    drop(server);
}

impl Ca {
    fn serve_with(&self, flags: &[String]) -> Server {
        self.sandbox.publish("T0KEN", 7200, 0);
        self.sandbox.serve(&flags.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

#[test]
fn renewing_says_what_is_wrong_with_a_ca_and_leaves_the_certificate() {
    let ca_ = Ca::new(&[]);
    let other = Ca::new(&[]);
    let renew = || ca(&["--renew", &ca_.dir()]);
    ca(&["--renew", "--name", HOSTS[0], &ca_.dir()]).exits(2).says(&["--renew", "--name"]);
    for missing in ["/nonexistent", other.sandbox.path("").to_str().unwrap()] {
        ca(&["--renew", missing]).exits(2).says(&["there is no CA in", missing]);
    }
    let before = ca_.read("cert.pem");
    for name in ["ca.pem", "intermediate.pem", "intermediate.key"] {
        let good = ca_.read(name);
        let mode = fs::metadata(ca_.path(name)).unwrap().permissions();
        fs::write(ca_.path(name), other.read(name)).unwrap();
        renew().exits(1).says(&["do not belong together"]);
        fs::write(ca_.path(name), "-----BEGIN PRIVATE KEY-----\nS3CR3T\n").unwrap();
        let ran = renew().exits(1).says(&[name]);
        assert!(!ran.stderr.contains("S3CR3T"), "{}", ran.stderr);
        fs::write(ca_.path(name), &good).unwrap();
        fs::set_permissions(ca_.path(name), mode).unwrap();
    }
    fs::set_permissions(ca_.path("intermediate.key"), fs::Permissions::from_mode(0o640)).unwrap();
    renew().exits(1).says(&["intermediate.key", "mode 0640, expected 0600"]);
    assert_eq!(ca_.read("cert.pem"), before);
}

/// What a thief of the key that stays on the server could sign, and the host as which it would be used.
const FORGERIES: [(&str, &str); 3] = [
    ("DNS:evil.example", "evil.example"),
    ("DNS:api.weixin.qq.com,DNS:evil.example", "api.weixin.qq.com"),
    ("IP:127.0.0.1", "127.0.0.1"),
];

/// A client that trusts the CA and asks `host` at the server's port, whose address is 127.0.0.1. Succeeds if it accepts the certificate.
type Client = fn(&Ca, host: &str, port: u16) -> Command;

#[track_caller]
fn accepts_wechats_hosts_only(name: &str, client: Client) {
    let ca_ = Ca::new(&[]);
    let ask = |server: &Server, host: &str| {
        let output = client(&ca_, host, server.address().port()).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let server = ca_.serve_with(&ca_.flags("cert.pem", "key.pem"));
    for host in HOSTS {
        let (is_accepted, stderr) = ask(&server, host);
        assert!(is_accepted, "{name} {host}: {stderr}");
    }
    for (names, host) in FORGERIES {
        let server = ca_.serve_with(&ca_.forge(names));
        let (is_accepted, stderr) = ask(&server, host);
        assert!(!is_accepted, "{name} accepts {names}");
        let is_of_certificate = stderr.to_lowercase().replace([' ', '_'], "");
        assert!(
            ["certificate", "nameconstraints", "permittedsubtree", "excludedsubtree"]
                .iter()
                .any(|word| is_of_certificate.contains(word)),
            "{name} {names}: {stderr}"
        );
    }
}

#[needs(openssl)]
#[test]
fn promise_5_a_stolen_ca_key_passes_for_no_other_host_with_rustls_and_openssl() {
    let ca_ = Ca::new(&[]);
    for (names, host) in FORGERIES {
        ca_.forge(names);
        let err = refusal(ca_.verify("forged.pem", host, now()));
        assert!(format!("{err:?}").contains("NameConstraint"), "{names} {err:?}");
    }
    for (chain, names, is_good) in [("cert.pem", "", true)]
        .into_iter()
        .chain(FORGERIES.map(|(names, _)| ("forged.pem", names, false)))
    {
        if !is_good {
            ca_.forge(names);
        }
        let mut openssl = Command::new("openssl");
        openssl.args(["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile"]);
        openssl.arg(ca_.path("ca.pem")).arg("-untrusted").arg(ca_.path("intermediate.pem"));
        let output = openssl.arg(ca_.path(chain)).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), is_good, "{names} {said}");
        assert!(is_good || said.contains("subtree violation"), "{names} {said}");
    }
}

#[needs(curl, openssl)]
#[test]
fn promise_5_a_stolen_ca_key_passes_for_no_other_host_with_curl() {
    accepts_wechats_hosts_only("curl", |ca, host, port| {
        let mut curl = Command::new("curl");
        curl.env_remove("CURL_CA_BUNDLE")
            .env_remove("SSL_CERT_DIR")
            .env("SSL_CERT_FILE", ca.path("ca.pem"));
        curl.args(["-sS", "-o", "/dev/null", "--noproxy", "*"]);
        curl.args(["--resolve", &format!("{host}:{port}:127.0.0.1")]);
        curl.arg(format!("https://{host}:{port}/healthz"));
        curl
    });
}

/// A hosts file may lead WeChat's hosts to wxtoken on the host of wxtoken itself.
#[test]
fn promise_5_wxtoken_does_not_trust_a_ca_of_its_own() {
    let ca_ = Ca::new(&[]);
    let server = ca_.serve_with(&ca_.flags("cert.pem", "key.pem"));
    // To a proxy the name is what is connected to, as to the hosts file.
    let proxy = proxy_to(server.address()).0;
    let client = Sandbox::with_base_url("https://api.weixin.qq.com");
    let root = ca_.path("ca.pem").display().to_string();
    let fetch = |more: &[&str], variable: &str| {
        let mut command = client.command(&[&["fetch"], more].concat());
        command.env("HTTPS_PROXY", format!("http://{proxy}")).env(variable, &root);
        Run::new(command)
    };
    fetch(&[], "SSL_CERT_FILE").exits(5).says(&["UnknownIssuer"]);
    fetch(&["--ca-file", &root], "X").exits(2).says(&["CA file", "is from `wxtoken ca`"]);
}

const PYTHON: &str = "
import requests, socket, sys
resolve = socket.getaddrinfo
socket.getaddrinfo = lambda host, *more, **named: resolve('127.0.0.1', *more, **named)
requests.get(f'https://{sys.argv[1]}:{sys.argv[2]}/healthz')
";

const NODE: &str = "
const [host, port] = process.argv.slice(1)
const lookup = (name, options, found) =>
  options.all ? found(null, [{ address: '127.0.0.1', family: 4 }]) : found(null, '127.0.0.1', 4)
require('https').get({ host, port, lookup, path: '/healthz' }, answer => answer.resume())
";

#[needs(openssl, sdks)]
#[test]
fn promise_5_a_stolen_ca_key_passes_for_no_other_host_with_python_and_node() {
    accepts_wechats_hosts_only("Python", |ca, host, port| {
        let sdks = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("sdk");
        let mut python = Command::new(sdks.join("venv/bin/python"));
        python.env("REQUESTS_CA_BUNDLE", ca.path("ca.pem")).env("NO_PROXY", "*");
        python.args(["-c", PYTHON, host, &port.to_string()]);
        python
    });
    accepts_wechats_hosts_only("Node.js", |ca, host, port| {
        let mut node = Command::new("node");
        node.env("NODE_EXTRA_CA_CERTS", ca.path("ca.pem"));
        node.args(["-e", NODE, host, &port.to_string()]);
        node
    });
}

const JAVA: &str = "
public class Ask {
    public static void main(String[] args) throws Exception {
        var url = new java.net.URL(\"https://\" + args[0] + \":\" + args[1] + \"/healthz\");
        ((java.net.HttpURLConnection) url.openConnection()).getResponseCode();
    }
}
";

/// Java takes the constraints of an intermediate for binding, and not those of a root.
#[needs(java, openssl)]
#[test]
fn promise_5_a_stolen_ca_key_passes_for_no_other_host_with_java() {
    accepts_wechats_hosts_only("Java", |ca, host, port| {
        let (store, hosts) = (ca.path("store"), ca.path("hosts"));
        if !store.exists() {
            java_import(&ca.path("ca.pem"), &store);
            fs::write(ca.path("Ask.java"), JAVA).unwrap();
            java_compile(&ca.path("Ask.java"), &ca.path(""));
        }
        fs::write(&hosts, format!("127.0.0.1 {host}\n")).unwrap();
        let mut java = java_trusting(&store);
        java.arg(format!("-Djdk.net.hosts.file={}", hosts.display()));
        java.arg("-cp").arg(ca.path("")).args(["Ask", host, &port.to_string()]);
        java
    });
}
