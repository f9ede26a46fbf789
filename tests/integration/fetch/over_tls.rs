//! Connections of `fetch` to WeChat: TLS is always verified, and a configured proxy is never bypassed.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use crate::support::proxy::proxy_to;
use crate::support::tls::{Authority, TlsFront};
use crate::support::*;

/// Returns a stand-in behind TLS, and a sandbox for it that does not trust its authority.
fn behind_tls(name: &str) -> (WeChat, TlsFront, Sandbox) {
    let wechat = WeChat::start();
    let front = TlsFront::before(wechat.address(), name);
    let sandbox = Sandbox::with_base_url(&format!("https://localhost:{}", front.address.port()));
    write_with_mode(&sandbox.path("ca.pem"), &front.ca_pem, 0o644);
    (wechat, front, sandbox)
}

fn ca_file(sandbox: &Sandbox) -> String {
    sandbox.path("ca.pem").to_str().unwrap().to_owned()
}

#[test]
fn a_private_authority_is_trusted_only_with_ca_file() {
    let (wechat, front, sandbox) = behind_tls("localhost");
    for api in ["stable", "classic"] {
        let sandbox =
            Sandbox::with_base_url(&format!("https://localhost:{}", front.address.port())).on(api);
        write_with_mode(&sandbox.path("ca.pem"), &front.ca_pem, 0o644);
        sandbox.run(&["fetch", "--ca-file", &ca_file(&sandbox)]).exits(0).silent();
        assert!(wechat.is_alive(&sandbox.token()), "{api}");
    }
    // Without it there is no retry and no request.
    let asked = wechat.asked();
    sandbox.run(&["fetch"]).exits(5).says(&["TLS", "certificate"]);
    assert_eq!((wechat.asked(), front.handshakes.load(Ordering::Relaxed)), (asked, 2));
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let (wechat, _front, sandbox) = behind_tls("api.example");
    sandbox.run(&["fetch", "--ca-file", &ca_file(&sandbox)]).exits(5).says(&["TLS", "certificate"]);
    assert_eq!(wechat.asked(), 0);
}

/// A request that was not sent cannot have revoked the published token.
#[test]
fn a_failure_before_the_request_is_sent_does_not_shorten_the_published_token() {
    let is_shortened = |sandbox: Sandbox, proxy: Option<SocketAddr>| {
        let sandbox = sandbox.on("classic");
        sandbox.publish("T_STILL_GOOD", 7200, 1000);
        let before = sandbox.document();
        let mut fetch = sandbox.command(&["fetch", "--force", "--timeout", "3s"]);
        fetch.args(["--ca-file", &ca_file(&sandbox)]);
        if let Some(proxy) = proxy {
            fetch.env("HTTPS_PROXY", format!("http://{proxy}"));
        }
        let stderr = Run::new(fetch).exits(5).stderr;
        let shortened = sandbox.document() != before;
        assert_eq!(shortened, stderr.contains("ends at 20"), "{stderr}");
        shortened
    };
    let (_wechat, front, sandbox) = behind_tls("api.example");
    assert!(!is_shortened(sandbox, None), "a certificate for another name");
    let behind_proxy = || {
        let sandbox = Sandbox::with_base_url("https://api.example");
        write_with_mode(&sandbox.path("ca.pem"), &front.ca_pem, 0o644);
        sandbox
    };
    for answer in [
        &b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"[..],
        b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
        b"HTTP/1.1 200 Connection established\r\n\r\nand then no TLS at all, whatever comes",
        b"",
    ] {
        let proxy = server_answering(answer);
        assert!(!is_shortened(behind_proxy(), Some(proxy)), "{}", String::from_utf8_lossy(answer));
    }

    // A failure after the request: the same proxy and server, without an answer.
    let (wechat, front) = {
        let wechat = WeChat::with(&["--fault", "hang"]);
        let front = TlsFront::before(wechat.address(), "api.example");
        (wechat, front)
    };
    let sandbox = Sandbox::with_base_url("https://api.example");
    write_with_mode(&sandbox.path("ca.pem"), &front.ca_pem, 0o644);
    assert!(is_shortened(sandbox, Some(proxy_to(front.address).0)), "the request was sent");
    assert_eq!(wechat.asked(), 1);
}

/// Starts a server that answers each connection with these bytes and closes it.
fn server_answering(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut buffer = [0; 4096];
            let _ = client.read(&mut buffer);
            let _ = client.write_all(answer);
            let _ = client.shutdown(std::net::Shutdown::Write);
            while client.read(&mut buffer).is_ok_and(|read| read > 0) {}
        }
    });
    address
}

#[test]
fn a_ca_file_without_a_certificate_is_an_error() {
    let (_wechat, _front, sandbox) = behind_tls("localhost");
    for (content, finding) in [
        ("", "no certificate"),
        ("hello", "no certificate"),
        ("-----BEGIN CERTIFICATE-----\n!", "ca.pem"),
    ] {
        write_with_mode(&sandbox.path("ca.pem"), content, 0o644);
        sandbox.run(&["fetch", "--ca-file", &ca_file(&sandbox)]).exits(2).says(&[finding]);
    }
    sandbox.run(&["fetch", "--ca-file", "/nonexistent.pem"]).exits(2).says(&["/nonexistent.pem"]);
}

#[test]
fn a_ca_that_was_made_anew_under_its_name_is_told_as_an_unknown_one() {
    let (_wechat, front, sandbox) = behind_tls("localhost");
    write_with_mode(&sandbox.path("ca.pem"), &front.namesake_pem, 0o644);
    let ca = ca_file(&sandbox);
    let says = [
        "Name the CA with --ca-file",
        "by a CA of this name with another key",
        "BadSignature",
        "请用 --ca-file",
    ];
    sandbox.run(&["fetch", "--ca-file", &ca]).exits(5).says(&says);
}

#[test]
fn a_ca_store_that_the_environment_names_is_trusted_beside_the_ca_file() {
    let (wechat, _front, sandbox) = behind_tls("localhost");
    let sandbox = sandbox.on("classic");
    let run = |args: &[&str], variable: &str, value: &str| {
        let mut command = sandbox.command(args);
        command.env(variable, value);
        Run::new(command)
    };
    let fetch = |variable: &str, value: &str, more: &[&str]| {
        run(&[&["fetch", "--force"], more].concat(), variable, value)
    };
    let (ca, other) = (ca_file(&sandbox), sandbox.path("other.pem").display().to_string());
    write_with_mode(&sandbox.path("other.pem"), &Authority::new().pem, 0o644);
    let certs = sandbox.path("certs");
    fs::create_dir(&certs).unwrap();
    fs::copy(&ca, certs.join("any-name")).unwrap();
    let list = format!("/nowhere:{}", certs.display());
    for (variable, value) in [("SSL_CERT_FILE", &ca), ("SSL_CERT_DIR", &list)] {
        fetch(variable, value, &[]).exits(0).silent();
        fetch(variable, value, &["--ca-file", &other]).exits(0).silent();
        let says = format!("beside the public ones 1 of {variable}={value}");
        run(&["check"], variable, value).prints(&[&says]);
    }
    fetch("SSL_CERT_FILE", &other, &["--ca-file", &ca]).exits(0).silent();
    // Without TLS there is nothing to verify, and the store is not read.
    let plain = WeChat::start();
    for variable in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
        let sandbox = Sandbox::new(&plain);
        let mut command = sandbox.command(&["fetch"]);
        command.env(variable, "/nonexistent");
        Run::new(command).exits(0).silent();
    }
    let asked = wechat.asked();
    fetch("SSL_CERT_FILE", &other, &[]).exits(5).says(&["UnknownIssuer"]);
    fetch("SSL_CERT_FILE", "", &[]).exits(5).says(&["UnknownIssuer"]);
    // A store that cannot be used.
    write_with_mode(&sandbox.path("other.pem"), "nothing", 0o644);
    for (variable, value, finding) in [
        ("SSL_CERT_FILE", "/nonexistent.pem", "No such file"),
        ("SSL_CERT_FILE", &other, "no certificate"),
        ("SSL_CERT_DIR", "/nonexistent", "no certificate"),
    ] {
        fetch(variable, value, &[]).exits(2).says(&[variable, value, finding]);
        run(&["check"], variable, value).exits(2).prints(&["✗", "roots", variable, finding]);
    }
    assert_eq!(wechat.asked(), asked);
}

#[test]
fn a_fetch_that_has_nothing_to_ask_opens_no_ca_store() {
    let (wechat, _front, sandbox) = behind_tls("localhost");
    let sandbox = sandbox.on("classic");
    let fetch = |store: &str, more: &[&str]| {
        let mut command = sandbox.command(&[&["fetch"], more].concat());
        command.env("SSL_CERT_FILE", store);
        Run::new(command)
    };
    let ca = ca_file(&sandbox);
    fetch(&ca, &[]).exits(0).silent();
    let published = sandbox.document();
    // One that it would fail with.
    for more in [&[][..], &["--ca-file", &ca]] {
        fetch("/nonexistent.pem", more).exits(0).silent();
    }
    // Nothing is done to the published token before the store is known to be good.
    fetch("/nonexistent.pem", &["--force"]).exits(2).says(&["SSL_CERT_FILE", "/nonexistent.pem"]);
    assert_eq!((sandbox.document(), wechat.asked()), (published, 1));
}

#[test]
fn promise_5_a_ca_store_that_another_user_can_write_is_not_trusted() {
    let (wechat, front, sandbox) = behind_tls("localhost");
    let dir = sandbox.path("certs");
    fs::create_dir(&dir).unwrap();
    write_with_mode(&dir.join("ca.pem"), &front.ca_pem, 0o666);
    for (variable, value) in [("SSL_CERT_FILE", dir.join("ca.pem")), ("SSL_CERT_DIR", dir)] {
        let mut command = sandbox.command(&["fetch"]);
        command.env(variable, value);
        Run::new(command).exits(2).says(&[variable, "ca.pem", "mode 0666", "chmod go-w"]);
    }
    assert_eq!(wechat.asked(), 0);
}

#[test]
fn plain_http_is_accepted_for_loopback_only() {
    for url in [
        "http://api.weixin.qq.com",
        "http://10.0.0.1",
        "ftp://127.0.0.1",
        "https://u:S@localhost",
        "localhost",
    ] {
        Sandbox::with_base_url(url).run(&["fetch"]).exits(2).says(&["--base-url"]);
    }
}

#[test]
fn a_proxy_from_the_environment_is_used() {
    let wechat = WeChat::start();
    let front = TlsFront::before(wechat.address(), "wechat.test");
    let (proxy, heads) = proxy_to(front.address);
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"] {
        // A name that only the proxy can resolve.
        let sandbox = Sandbox::with_base_url("https://wechat.test");
        write_with_mode(&sandbox.path("ca.pem"), &front.ca_pem, 0o644);
        let mut fetch = sandbox.command(&["fetch", "--ca-file", &ca_file(&sandbox)]);
        fetch.env(name, format!("http://user:pass@{proxy}"));
        Run::new(fetch).exits(0).silent();
        assert!(wechat.is_alive(&sandbox.token()));
        let head = heads.recv().unwrap();
        assert!(head.starts_with("CONNECT wechat.test:443 "), "{head}");
        assert!(!head.contains(SECRET), "{head}");
    }
}

#[test]
fn loopback_needs_no_proxy_and_an_invalid_proxy_is_an_error() {
    let (wechat, _front, sandbox) = behind_tls("localhost");
    let fetch = |variables: &[(&str, &str)]| {
        let mut fetch = sandbox.command(&["fetch", "--force", "--ca-file", &ca_file(&sandbox)]);
        fetch.envs(variables.iter().copied());
        Run::new(fetch)
    };
    // Loopback never goes through a proxy; this one would not answer.
    fetch(&[("HTTPS_PROXY", "http://127.0.0.1:1")]).exits(0);
    let remote = Sandbox::with_base_url("https://wechat.test");
    let mut invalid = remote.command(&["fetch"]);
    invalid.env("HTTPS_PROXY", "nonsense://S3CR3T@x");
    let ran = Run::new(invalid).exits(2);
    assert!(!ran.stderr.contains("S3CR3T"), "{}", ran.stderr);
    ran.says(&["HTTPS_PROXY", "proxy"]);
    assert_eq!(wechat.asked(), 1);
}

/// As with curl, and with ports. No name is resolved for it.
#[test]
fn no_proxy_exempts_domains_with_their_subdomains_addresses_networks_and_ports() {
    /// Starts a fetch from `server`, and a proxy for it, of which the listener is returned.
    fn fetch(
        server: &str,
        timeout: &str,
        variables: &[(&str, &str)],
    ) -> (Sandbox, Command, TcpListener) {
        let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
        let sandbox = Sandbox::with_base_url(&format!("https://{server}"));
        let mut fetch = sandbox.command(&["fetch", "--timeout", timeout]);
        fetch.env("HTTPS_PROXY", format!("http://{}", proxy.local_addr().unwrap()));
        fetch.envs(variables.iter().copied());
        (sandbox, fetch, proxy)
    }
    /// No server answers. The addresses of servers are of networks for documentation.
    #[track_caller]
    fn goes_directly(server: &str, variables: &[(&str, &str)]) {
        let (_sandbox, fetch, proxy) = fetch(server, "1s", variables);
        Run::new(fetch).exits(5);
        proxy.set_nonblocking(true).unwrap();
        assert!(proxy.accept().is_err(), "{server} by the proxy: {variables:?}");
    }
    #[track_caller]
    fn goes_by_the_proxy(server: &str, variables: &[(&str, &str)]) {
        let (_sandbox, mut fetch, proxy) = fetch(server, "10m", variables);
        let mut running = fetch.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        proxy.set_nonblocking(true).unwrap();
        eventually("the proxy is asked", || {
            let is_running = running.try_wait().unwrap().is_none();
            let is_asked = proxy.accept().is_ok();
            assert!(is_asked || is_running, "{server} not by the proxy: {variables:?}");
            is_asked
        });
        running.kill().unwrap();
        running.wait().unwrap();
    }
    std::thread::scope(|scope| {
        for (list, exempt, other) in [
            ("wechat.test", "api.wechat.test", "notwechat.test"),
            ("a.example, .wechat.test", "wechat.test", "wechat.test.example"),
            ("*.wechat.test", "api.wechat.test:8443", "test"),
            ("wechat.test:8443", "api.wechat.test:8443", "api.wechat.test"),
            ("192.0.2.0/24", "192.0.2.7", "198.51.100.7"),
            ("192.0.2.7:443", "192.0.2.7", "192.0.2.7:8443"),
        ] {
            scope.spawn(move || goes_directly(exempt, &[("NO_PROXY", list)]));
            scope.spawn(move || goes_by_the_proxy(other, &[("NO_PROXY", list)]));
        }
        scope.spawn(|| goes_directly("wechat.test", &[("no_proxy", "*")]));
        // Of both the one in small letters counts.
        let both = [("no_proxy", "a.example"), ("NO_PROXY", "*")];
        scope.spawn(move || goes_by_the_proxy("wechat.test", &both));
    });
}

/// fetch holds the lock meanwhile, so the timeout has to be respected.
#[test]
fn a_proxy_that_answers_byte_by_byte_delays_by_no_more_than_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut drip = b"HTTP/1.1 200 OK\r\nX: ".iter().chain(std::iter::repeat(&b'x'));
                while drip.next().is_some_and(|byte| client.write_all(&[*byte]).is_ok()) {
                    std::thread::sleep(std::time::Duration::from_millis(50));
                }
            });
        }
    });
    let sandbox = Sandbox::with_base_url("https://wechat.test");
    let mut fetch = sandbox.command(&["fetch", "--timeout", "1s"]);
    fetch.env("HTTPS_PROXY", format!("http://{proxy}"));
    Run::new(fetch).exits(5).says(&["no answer in time"]);
}

#[test]
fn a_proxy_variable_that_is_not_utf8_is_an_error() {
    use std::os::unix::ffi::OsStrExt;
    let sandbox = Sandbox::with_base_url("https://wechat.test");
    for value in [&b"http://u:\xe9@127.0.0.1:1"[..], b"http://127.0.0.1:99999"] {
        let mut fetch = sandbox.command(&["fetch"]);
        fetch.env("HTTPS_PROXY", std::ffi::OsStr::from_bytes(value));
        Run::new(fetch).exits(2).says(&["HTTPS_PROXY", "is not gone round"]);
    }
}
