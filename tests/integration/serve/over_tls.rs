//! `wxtoken serve` over HTTPS: which clients connect, what refused ones get, limits on handshakes, and how new certificates
//! are loaded. `serve.rs` tests the answers, which are the same as without TLS.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::tls::{Authority, Identity, TlsClient, TlsStream};
use crate::support::*;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, HandshakeKind};

const REQUEST: &str = "GET /token HTTP/1.1\r\nHost: localhost\r\n\r\n";
const LAST_REQUEST: &str = "GET /token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// Returns an authority, and a sandbox with a live token and a certificate signed by it.
fn sandbox_with_certificate() -> (Authority, Sandbox) {
    let (authority, sandbox) = (Authority::new(), Sandbox::with_base_url("http://127.0.0.1:1"));
    sandbox.publish("T1", 7200, 0);
    authority.sign().write_to(&sandbox);
    (authority, sandbox)
}

fn serve(sandbox: &Sandbox, args: &[&str]) -> Server {
    let flags = Identity::flags(sandbox);
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain(args.iter().copied()).collect();
    sandbox.serve(&flags)
}

#[track_caller]
fn assert_has_token(response: &Response, token: &str) {
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.json()["access_token"], token);
}

/// Returns the alert with which a handshake failed.
#[track_caller]
fn alert(connected: io::Result<TlsStream>) -> AlertDescription {
    let err = connected.map(|_| ()).expect_err("no handshake");
    match err.get_ref().and_then(|err| err.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        _ => panic!("no alert: {err:?}"),
    }
}

/// Returns the alert that comes after the client's own handshake. In TLS 1.3 the server checks the client's certificate only
/// then; a megabyte that the client sends meanwhile must not prevent it from reading the alert.
#[track_caller]
fn alert_after_sending(connected: io::Result<TlsStream>) -> AlertDescription {
    let send = |stream: &mut TlsStream| {
        let mut bytes = Vec::new();
        for _ in 0..100 {
            stream.conn.writer().write_all(&[b'x'; 10_000])?;
            stream.conn.write_tls(&mut bytes)?;
        }
        // Sends everything before it reads, as clients do.
        stream.sock.write_all(&bytes)
    };
    alert(connected.and_then(|mut stream| {
        send(&mut stream).expect("the other side reads");
        stream.read_exact(&mut [0])?;
        Ok(stream)
    }))
}

/// Returns the certificate that the server sends.
#[track_caller]
fn server_certificate(client: &TlsClient, server: &Server) -> Vec<u8> {
    let stream = client.try_connect(server.address()).expect("a handshake");
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn tcp_listeners_use_https_and_a_unix_socket_does_not() {
    let (authority, sandbox) = sandbox_with_certificate();
    let socket = format!("unix:{}", sandbox.path("socket").display());
    let listen = ["127.0.0.1:0", "[::1]:0", &socket];
    let server = serve(&sandbox, &listen.map(|at| ["--listen", at]).concat());
    let [v4, v6, unix] = &server.addresses[..] else { panic!("{:?}", server.addresses) };
    assert!(v4.starts_with("https://127.0.0.1:") && v6.starts_with("https://[::1]:"), "{v4} {v6}");
    assert_eq!(*unix, socket);
    let client = TlsClient::trusting(&authority);
    for url in [v4, v6] {
        let mut caller = client.caller(url.strip_prefix("https://").unwrap().parse().unwrap());
        for _ in 0..10 {
            assert_has_token(&caller.get("/token"), "T1");
        }
        assert_eq!(caller.get("/nowhere").status, 404);
    }
    assert_has_token(&Caller::new(connect_unix(unix)).get("/token"), "T1");
    assert_eq!(server.stop(), "");
}

#[needs(curl)]
#[test]
fn curl_gets_a_token_with_each_tls_and_http_version() {
    let (authority, sandbox) = sandbox_with_certificate();
    write_with_mode(&sandbox.path("ca.pem"), &authority.pem, 0o644);
    let server = serve(&sandbox, &[]);
    let url = format!("https://localhost:{}/token", server.address().port());
    let versions =
        [&["--tlsv1.3"][..], &["--tls-max", "1.2"], &["--http1.0"], &["--http2"], &["--no-alpn"]];
    for version in versions {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*", &url]).args(version);
        let output = curl.arg("--cacert").arg(sandbox.path("ca.pem")).output().unwrap();
        let (stdout, stderr) = (output.stdout, String::from_utf8_lossy(&output.stderr));
        assert!(stdout.starts_with(br#"{"access_token":"T1","#), "{version:?}: {stderr}");
    }
}

/// Phones and small boards prefer ChaCha20, machines with AES hardware AES-GCM.
#[test]
fn each_key_type_works_with_each_cipher_on_tls_1_2_and_1_3() {
    let (authority, sandbox) = sandbox_with_certificate();
    for kind in
        [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519]
    {
        authority.sign_with(kind).write_to(&sandbox);
        let server = serve(&sandbox, &[]);
        for version in [&TLS12, &TLS13] {
            for cipher in ["CHACHA20", "AES_128_GCM", "AES_256_GCM"] {
                let client =
                    TlsClient::offering(&authority, &[version], |name| name.contains(cipher), None);
                let mut caller = client.caller(server.address());
                let session = &caller.stream().conn;
                assert_eq!(session.protocol_version(), Some(version.version));
                let suite = session.negotiated_cipher_suite().unwrap().suite();
                assert!(format!("{suite:?}").contains(cipher), "{suite:?}");
                assert_has_token(&caller.get("/token"), "T1");
            }
        }
        assert_eq!(server.stop(), "");
    }
}

#[needs(openssl)]
#[test]
fn an_rsa_key_works_in_pkcs8_and_pkcs1() {
    let (_, sandbox) = sandbox_with_certificate();
    let path = |name: &str| sandbox.path(name).display().to_string();
    let openssl = |args: &[&str]| Command::new("openssl").args(args).output().unwrap();
    let made = openssl(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "365",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-keyout",
        &path("key.pem"),
        "-out",
        &path("cert.pem"),
    ]);
    assert!(made.status.success(), "{made:?}");
    for format in ["pkcs8", "traditional"] {
        if format == "traditional" {
            let args = ["rsa", "-traditional", "-in", &path("key.pem"), "-out", &path("old.pem")];
            assert!(openssl(&args).status.success());
            fs::copy(sandbox.path("old.pem"), sandbox.path("key.pem")).unwrap();
            let pem = fs::read_to_string(sandbox.path("key.pem")).unwrap();
            assert!(pem.contains("BEGIN RSA PRIVATE KEY"), "the format differs from the first");
        }
        let server = serve(&sandbox, &[]);
        for version in ["-tls1_2", "-tls1_3"] {
            let mut client = Command::new("openssl")
                .args(["s_client", "-quiet", "-verify_return_error", version, "-CAfile"])
                .args([&path("cert.pem"), "-connect", &server.address().to_string()])
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap();
            client.stdin.as_mut().unwrap().write_all(LAST_REQUEST.as_bytes()).unwrap();
            let mut answer = Vec::new();
            client.stdout.take().unwrap().read_to_end(&mut answer).unwrap();
            drop(client.stdin.take());
            client.wait().unwrap();
            assert_has_token(&Response::parse(&answer), "T1");
        }
        assert_eq!(server.stop(), "");
    }
}

#[test]
fn alpn_selects_http_1_1_and_another_protocol_gets_an_alert() {
    let (authority, sandbox) = sandbox_with_certificate();
    let server = serve(&sandbox, &[]);
    let client = || TlsClient::trusting(&authority);
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some(&b"http/1.1"[..])),
        (&["http/1.0", "http/1.1"], Some(b"http/1.1")),
        (&["http/1.0"], Some(b"http/1.0")),
        (&[], None),
    ] {
        let mut caller = client().with_alpn(offered).caller(server.address());
        assert_eq!(caller.stream().conn.alpn_protocol(), agreed);
        assert_has_token(&caller.get("/token"), "T1");
    }
    let refused = client().with_alpn(&["h2"]).try_connect(server.address());
    assert_eq!(alert(refused), AlertDescription::NoApplicationProtocol);
}

#[test]
fn plain_http_gets_a_400_in_plain_http() {
    let (_, sandbox) = sandbox_with_certificate();
    let server = serve(&sandbox, &["-v"]);
    let megabyte = format!("POST /token HTTP/1.1\r\nHost: x\r\n\r\n{}", "x".repeat(1_000_000));
    for request in [REQUEST, "G", "\r\n", "\u{80}\u{2e}\u{1}", &megabyte] {
        let mut caller = server.caller();
        let (beginning, rest) = request.split_at(request.len().min(20_000));
        caller.send(beginning);
        let response = caller.answer();
        assert_eq!(response.status, 400, "{response:?}");
        assert_eq!(response.header("connection"), Some("close"));
        let message = response.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains("https"), "{message}");
        // A client that sends everything before it reads still gets the answer.
        caller.send(rest);
        assert!(caller.is_closed(), "closed without a reset");
    }
    let stderr = server.stop();
    assert_eq!(stderr.matches("wxtoken: serve: (no request) 400 127.0.0.1").count(), 5, "{stderr}");
}

#[test]
fn a_client_that_is_not_allowed_gets_an_alert_before_any_handshake() {
    let (authority, sandbox) = sandbox_with_certificate();
    let server = serve(&sandbox, &["--allow", "127.0.0.1"]);
    for version in [&TLS12, &TLS13] {
        let client = TlsClient::offering(&authority, &[version], |_| true, None);
        let mut stream = client.over(connect_from("127.0.0.2", server.address()));
        let refused = stream.conn.complete_io(&mut stream.sock).map(|_| stream);
        assert_eq!(alert(refused), AlertDescription::AccessDenied);
        assert_has_token(&client.caller(server.address()).get("/token"), "T1");
    }
    // A client that sends nothing gets the same alert.
    let mut silent = connect_from("127.0.0.2", server.address());
    let mut all = Vec::new();
    silent.read_to_end(&mut all).unwrap();
    assert_eq!(all, [0x15, 3, 3, 0, 2, 2, 49]);
    let stderr = server.stop();
    assert!(stderr.contains(": refused 127.0.0.2: not in --allow"), "{stderr}");
}

#[test]
fn with_a_client_ca_only_clients_with_its_certificates_connect() {
    let (authority, sandbox) = sandbox_with_certificate();
    let (clients, others) = (Authority::new(), Authority::new());
    let (known, unknown) = (clients.sign_client(), others.sign_client());
    write_with_mode(&sandbox.path("clients.pem"), &clients.pem, 0o644);
    let ca = sandbox.path("clients.pem").display().to_string();
    for version in [&TLS12, &TLS13] {
        let server = serve(&sandbox, &["--tls-client-ca", &ca]);
        let client = |identity| TlsClient::offering(&authority, &[version], |_| true, identity);
        let mut caller = client(Some(&known)).caller(server.address());
        assert_has_token(&caller.get("/token"), "T1");
        let without = alert_after_sending(client(None).try_connect(server.address()));
        assert_eq!(without, AlertDescription::CertificateRequired);
        let stderr = server.stop();
        assert!(stderr.contains("no TLS with 127.0.0.1: it showed no certificate"), "{stderr}");

        let server = serve(&sandbox, &["--tls-client-ca", &ca]);
        let other = alert_after_sending(client(Some(&unknown)).try_connect(server.address()));
        assert_eq!(other, AlertDescription::UnknownCA);
        let stderr = server.stop();
        assert!(stderr.contains("does not hold against --tls-client-ca"), "{stderr}");
    }
}

#[test]
fn a_client_that_does_not_trust_the_certificate_is_logged_with_the_flag_to_check() {
    let (_, sandbox) = sandbox_with_certificate();
    let server = serve(&sandbox, &[]);
    let client = TlsClient::trusting(&Authority::new());
    client.try_connect(server.address()).map(|_| ()).expect_err("another authority");
    // Connections that are closed before or in their ClientHello, as by port scans, are not logged.
    drop(server.caller());
    let mut half = server.caller();
    half.send([0x16, 3, 1]);
    drop(half);
    let stderr = server.stop();
    assert!(
        stderr.contains("no TLS with 127.0.0.1: it does not trust the certificate in --tls-cert"),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

/// A record can hold many requests, or the end of one and the beginning of the next. Decrypted bytes must not be lost when a
/// connection is parked between two requests.
#[test]
fn requests_are_answered_wherever_tls_records_divide_them() {
    let (authority, sandbox) = sandbox_with_certificate();
    let server = serve(&sandbox, &[]);
    for version in [&TLS12, &TLS13] {
        let client = TlsClient::offering(&authority, &[version], |_| true, None);
        let mut caller = client.caller(server.address());
        let requests = 2000; // 88 KB: more than six records.
        caller.send(REQUEST.repeat(requests));
        for _ in 0..requests {
            assert_has_token(&caller.answer(), "T1");
        }
        let three = REQUEST.repeat(3);
        for cut in 1..three.len() {
            caller.send(&three[..cut]);
            caller.send(&three[cut..]);
            for _ in 0..3 {
                assert_has_token(&caller.answer(), "T1");
            }
        }
        caller.send(format!("{REQUEST}{REQUEST}garbage\r\n\r\n"));
        assert_has_token(&caller.answer(), "T1");
        assert_has_token(&caller.answer(), "T1");
        assert_eq!(caller.answer().status, 400);
        assert!(caller.is_closed());
    }
}

#[test]
fn a_record_can_arrive_byte_by_byte() {
    let (authority, sandbox) = sandbox_with_certificate();
    let server = serve(&sandbox, &[]);
    let client = TlsClient::trusting(&authority);
    let socket = connect(server.address());
    socket.set_nodelay(true).unwrap();
    let mut stream = client.over(socket);
    while stream.conn.is_handshaking() {
        if stream.conn.wants_write() {
            send_bytewise(&mut stream);
        } else {
            stream.conn.read_tls(&mut stream.sock).unwrap();
            stream.conn.process_new_packets().unwrap();
        }
    }
    for _ in 0..3 {
        stream.conn.writer().write_all(REQUEST.as_bytes()).unwrap();
        send_bytewise(&mut stream);
        let mut answer = vec![0; 1000];
        let read = stream.read(&mut answer).unwrap();
        assert_has_token(&Response::parse(&answer[..read]), "T1");
    }
}

/// Sends the pending records one byte a segment.
fn send_bytewise(stream: &mut TlsStream) {
    let mut bytes = Vec::new();
    while stream.conn.wants_write() {
        stream.conn.write_tls(&mut bytes).unwrap();
    }
    bytes.iter().for_each(|byte| stream.sock.write_all(&[*byte]).unwrap());
}

/// Without close_notify, a client cannot tell the end from a truncation attack; `is_closed` fails then.
#[test]
fn every_closed_connection_ends_with_close_notify() {
    let (authority, sandbox) = sandbox_with_certificate();
    for version in [&TLS12, &TLS13] {
        let client = TlsClient::offering(&authority, &[version], |_| true, None);
        let server = serve(&sandbox, &["--max-connections", "2"]);
        let connect = || client.caller(server.address());
        let mut asked_to_close = connect();
        asked_to_close.send(LAST_REQUEST);
        assert_has_token(&asked_to_close.answer(), "T1");
        assert!(asked_to_close.is_closed(), "after the last answer");

        let mut many = connect();
        many.send(REQUEST.repeat(500) + LAST_REQUEST);
        for _ in 0..501 {
            assert_has_token(&many.answer(), "T1");
        }
        assert!(many.is_closed(), "after the last of many");

        let mut rejected = connect();
        rejected.send("garbage\r\n\r\n");
        assert_eq!(rejected.answer().status, 400);
        assert!(rejected.is_closed(), "after what was not HTTP");

        let mut large = connect();
        large.send(format!("GET /{} HTTP/1.1\r\n", "x".repeat(1_000_000)));
        assert_eq!(large.answer().status, 431);
        assert!(large.is_closed(), "after what was too large");

        let mut evicted = connect();
        assert_has_token(&evicted.get("/token"), "T1");
        let (mut second, mut third) = (connect(), connect());
        assert_has_token(&second.get("/token"), "T1");
        assert_has_token(&third.get("/token"), "T1");
        assert!(evicted.is_closed(), "to make room");

        server.signal("TERM");
        assert!(second.is_closed() && third.is_closed(), "at the end");
        assert!(server.end().0.success());
    }
}

#[test]
fn sessions_are_resumed_until_the_certificate_changes() {
    let (authority, sandbox) = sandbox_with_certificate();
    let server = serve(&sandbox, &["-v"]);
    for version in [&TLS12, &TLS13] {
        let client = TlsClient::offering(&authority, &[version], |_| true, None);
        let kind = || {
            let mut caller = client.caller(server.address());
            assert_has_token(&caller.get("/token"), "T1");
            caller.stream().conn.handshake_kind().unwrap()
        };
        assert_eq!(kind(), HandshakeKind::Full);
        for _ in 0..5 {
            assert_eq!(kind(), HandshakeKind::Resumed, "{version:?}");
        }
        // A new certificate ends the sessions of the old one.
        let before =
            server_certificate(&TlsClient::trusting(&authority).without_resumption(), &server);
        authority.sign().write_to(&sandbox);
        server.signal("HUP");
        eventually("the new certificate is used", || {
            server_certificate(&TlsClient::trusting(&authority).without_resumption(), &server)
                != before
        });
        assert_eq!(kind(), HandshakeKind::Full);
        assert_eq!(kind(), HandshakeKind::Resumed);
    }
}

#[test]
fn a_new_certificate_is_loaded_at_sighup_or_by_polling_and_connections_stay_open() {
    let (authority, sandbox) = sandbox_with_certificate();
    let server = serve(&sandbox, &["-v"]);
    let client = TlsClient::trusting(&authority).without_resumption();
    let mut kept = client.caller(server.address());
    for by_sighup in [true, false, false] {
        let before = server_certificate(&client, &server);
        let begun = client.over(connect(server.address())); // Its handshake comes later.
        authority.sign().write_to(&sandbox);
        if by_sighup {
            server.signal("HUP");
        }
        eventually("the new certificate is used", || {
            server_certificate(&client, &server) != before
        });
        assert_has_token(&kept.get("/token"), "T1");
        let mut begun = Caller::new(begun);
        assert_has_token(&begun.get("/token"), "T1");
        assert_ne!(begun.stream().conn.peer_certificates().unwrap()[0].to_vec(), before);
    }
    // certbot replaces symbolic links.
    let before = server_certificate(&client, &server);
    let renewed = authority.sign();
    write_with_mode(&sandbox.path("cert2.pem"), &renewed.cert, 0o644);
    write_with_mode(&sandbox.path("key2.pem"), &renewed.key, 0o640);
    for (name, to) in [("cert.pem", "cert2.pem"), ("key.pem", "key2.pem")] {
        std::os::unix::fs::symlink(to, sandbox.path("link")).unwrap();
        fs::rename(sandbox.path("link"), sandbox.path(name)).unwrap();
    }
    eventually("the new certificate is used", || server_certificate(&client, &server) != before);
    let stderr = server.stop();
    let again = stderr.matches("wxtoken: serve: read certificates again ").count();
    assert_eq!(again, 4, "{stderr}");
}

#[test]
fn an_invalid_certificate_is_logged_once_and_the_last_good_one_kept() {
    let (authority, sandbox) = sandbox_with_certificate();
    let server = serve(&sandbox, &[]);
    let client = TlsClient::trusting(&authority).without_resumption();
    let good = server_certificate(&client, &server);
    // Half of a renewal: the certificate is new, the key is old.
    let renewed = authority.sign();
    write_with_mode(&sandbox.path("cert.pem"), &renewed.cert, 0o644);
    server.signal("HUP");
    let mut caller = client.caller(server.address());
    for _ in 0..3 {
        assert_has_token(&caller.get("/token"), "T1");
        assert_eq!(server_certificate(&client, &server), good);
    }
    // Polling continues, without another line.
    let begun_at = Instant::now();
    eventually("several polls pass", || {
        assert_eq!(server_certificate(&client, &server), good);
        begun_at.elapsed() > Duration::from_secs(4)
    });
    write_with_mode(&sandbox.path("key.pem"), &renewed.key, 0o600);
    eventually("the new certificate is used", || server_certificate(&client, &server) != good);
    let stderr = server.stop();
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for part in ["key.pem", "does not belong to", "cert.pem", "the last good certificates stay"] {
        assert!(stderr.contains(part), "{stderr}");
    }
}

#[test]
fn a_new_client_ca_applies_to_resumed_sessions_and_to_open_connections() {
    let (authority, sandbox) = sandbox_with_certificate();
    let (before, after) = (Authority::new(), Authority::new());
    let identity = before.sign_client();
    write_with_mode(&sandbox.path("clients.pem"), &before.pem, 0o644);
    let ca = sandbox.path("clients.pem").display().to_string();
    let server = serve(&sandbox, &["-v", "--tls-client-ca", &ca]);
    for version in [&TLS12, &TLS13] {
        write_with_mode(&sandbox.path("clients.pem"), &before.pem, 0o644);
        let client = TlsClient::offering(&authority, &[version], |_| true, Some(&identity));
        server.signal("HUP");
        eventually("the client is accepted", || {
            let caller = client.try_connect(server.address()).map(Caller::new);
            caller.is_ok_and(|mut caller| {
                caller.send(LAST_REQUEST);
                let mut answer = Vec::new();
                caller.read_all(&mut answer);
                Response::parse(&answer).status == 200
            })
        });
        let mut kept = client.caller(server.address());
        assert_has_token(&kept.get("/token"), "T1");
        write_with_mode(&sandbox.path("clients.pem"), &after.pem, 0o644);
        server.signal("HUP");
        eventually("the client is refused", || {
            let connected = client.try_connect(server.address());
            connected
                .and_then(|mut stream| {
                    stream.write_all(REQUEST.as_bytes())?;
                    stream.read_exact(&mut [0])
                })
                .is_err()
        });
        let refused = kept.get("/token");
        assert_eq!((refused.status, &refused.json()["error"]), (403, &"certificate".into()));
        assert!(kept.is_closed(), "it cannot become valid");
    }
}

#[test]
fn an_unfinished_handshake_is_closed_after_ten_seconds() {
    let (authority, sandbox) = sandbox_with_certificate();
    let server = serve(&sandbox, &[]);
    let client = TlsClient::trusting(&authority);
    let begun_at = Instant::now();
    let (silent, mut half) = (server.caller(), server.caller());
    half.send([0x16, 3, 1, 2, 0, 1, 0, 1]);
    // One that has sent its ClientHello and never reads.
    let mut not_reading = client.over(connect(server.address()));
    not_reading.conn.write_tls(&mut not_reading.sock).unwrap();
    let after_handshake = client.caller(server.address());
    // Sending a byte now and then does not prolong the limit.
    let mut dripping = connect(server.address());
    dripping.write_all(&[0x16, 3, 1, 2, 0]).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while dripping.write_all(&[1]).is_ok() {
                std::thread::sleep(Duration::from_millis(100));
                assert!(begun_at.elapsed() < PATIENCE, "the connection is not closed");
            }
        });
        for mut late in [silent, half] {
            assert!(late.is_closed(), "without a request there is no answer");
        }
        let mut after_handshake = after_handshake;
        assert!(after_handshake.is_closed(), "nor after the handshake");
    });
    let waited = begun_at.elapsed();
    assert!(waited > Duration::from_secs(9), "{waited:?}");
    drop(not_reading);
    eventually("all connections are closed", || {
        server.descriptors() == descriptors_without_connections(&sandbox)
    });
}

/// Returns the number of descriptors of a server without connections.
fn descriptors_without_connections(sandbox: &Sandbox) -> usize {
    serve(sandbox, &[]).descriptors()
}

#[test]
fn a_client_that_never_reads_is_disconnected_and_its_answers_are_not_buffered() {
    let (authority, sandbox) = sandbox_with_certificate();
    let server = serve(&sandbox, &[]);
    let mut caller = TlsClient::trusting(&authority).try_connect(server.address()).unwrap();
    let memory = server.memory();
    let requests = REQUEST.repeat(1000);
    let begun_at = Instant::now();
    // Writing blocks once the server stops reading, and fails once it has closed the connection.
    while caller.write_all(requests.as_bytes()).is_ok() {
        assert!(begun_at.elapsed() < PATIENCE, "the connection is not closed");
        assert!(server.memory() < memory + 8 * 1024 * 1024, "answers are buffered");
    }
}

#[test]
fn a_connection_in_its_handshake_is_closed_for_a_new_one() {
    let (authority, sandbox) = sandbox_with_certificate();
    let server = serve(&sandbox, &["--max-connections", "2"]);
    let stalled: Vec<TcpStream> = (0..2)
        .map(|_| {
            let mut stream = connect(server.address());
            stream.write_all(&[0x16, 3, 1, 2, 0]).unwrap();
            stream
        })
        .collect();
    let client = TlsClient::trusting(&authority);
    for _ in 0..2 {
        assert_has_token(&client.caller(server.address()).get("/token"), "T1");
    }
    let mut first = &stalled[0];
    assert!(first.read(&mut [0]).is_ok_and(|read| read == 0) || first.write_all(&[0]).is_err());
}

#[test]
fn shutdown_does_not_wait_for_a_handshake() {
    let (authority, sandbox) = sandbox_with_certificate();
    let server = serve(&sandbox, &[]);
    let mut stalled = connect(server.address());
    stalled.write_all(&[0x16, 3, 1, 2, 0]).unwrap();
    let _silent = connect(server.address());
    // The server has one thread: when it has answered this, it has accepted the others.
    assert_has_token(&TlsClient::trusting(&authority).caller(server.address()).get("/token"), "T1");
    let signalled_at = Instant::now();
    server.signal("TERM");
    assert!(server.end().0.success());
    let with_handshakes = signalled_at.elapsed();
    // A request is waited for.
    let server = serve(&sandbox, &[]);
    let mut caller = TlsClient::trusting(&authority).caller(server.address());
    assert_has_token(&caller.get("/token"), "T1");
    caller.send("GET /token HTTP/1.1\r\n");
    // When it has answered this, it has read that.
    assert_has_token(&TlsClient::trusting(&authority).caller(server.address()).get("/token"), "T1");
    let signalled_at = Instant::now();
    server.signal("TERM");
    assert!(server.end().0.success());
    let with_request = signalled_at.elapsed();
    assert!(with_handshakes < with_request, "{with_handshakes:?} and {with_request:?}");
}

#[test]
fn malformed_tls_ends_the_connection_and_never_the_server() {
    let (authority, sandbox) = sandbox_with_certificate();
    let server = serve(&sandbox, &[]);
    let client = TlsClient::trusting(&authority);
    let mut hello = Vec::new();
    let mut stream = client.over(connect(server.address()));
    stream.conn.write_tls(&mut hello).unwrap();
    for at in 0..hello.len() {
        let mut broken = hello.clone();
        broken[at] ^= 0x55;
        let mut socket = connect(server.address());
        socket.write_all(&broken).unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = socket.read_to_end(&mut Vec::new()); // How it ends does not matter.
    }
    // Bytes that are no record after a handshake.
    let mut caller = client.caller(server.address());
    assert_has_token(&caller.get("/token"), "T1");
    (&caller.stream().sock).write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(!caller.is_closed(), "an alert is no close_notify");
    assert_has_token(&client.caller(server.address()).get("/token"), "T1");
}

#[test]
fn tls_flags_that_need_another_one_are_a_usage_error_that_names_it() {
    let (_, sandbox) = sandbox_with_certificate();
    let path = |name: &str| sandbox.path(name).display().to_string();
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    for (given, missing) in [
        (&["--tls-cert", &cert][..], "--tls-key"),
        (&["--tls-key", &key], "--tls-cert"),
        (&["--tls-client-ca", &cert], "--tls-cert"),
        (&["--tls-cert", &cert, "--tls-client-ca", &cert], "--tls-key"),
    ] {
        let args = [&["serve", "--listen", "127.0.0.1:0"], given].concat();
        sandbox.run(&args).exits(2).says(&["wxtoken: serve: ", &format!("Give {missing}")]);
    }
    // Empty variables count as unset.
    let mut command = sandbox.command(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("WXTOKEN_TLS_CERT", "").env("WXTOKEN_TLS_KEY", "").env("WXTOKEN_TLS_CLIENT_CA", "");
    let server = Server::start(command, 1);
    assert!(server.addresses[0].starts_with("http://"), "{:?}", server.addresses);
}

#[test]
fn every_invalid_tls_file_is_an_error_with_its_path_and_without_bytes_of_a_key() {
    let (authority, sandbox) = sandbox_with_certificate();
    let Identity { cert, key } = authority.sign();
    let other = authority.sign();
    let cut = |pem: &str| pem[..pem.len() / 2].to_owned();
    let damaged = |pem: &str| {
        let middle = pem.len() / 2;
        format!("{}AAAAAAAA{}", &pem[..middle], &pem[middle + 8..])
    };
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let in_the_middle =
        format!("{cert}-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n");
    let wrong_order = format!("{}{cert}", authority.pem);
    for (cert, key, mode, parts) in [
        (
            "",
            &*key,
            0o600,
            &["--tls-cert", "cert.pem", "has no certificate", "BEGIN CERTIFICATE"][..],
        ),
        ("hello", &key, 0o600, &["cert.pem", "has no certificate"]),
        (&key, &cert, 0o600, &["cert.pem", "has no certificate"]),
        (&cut(&cert), &key, 0o600, &["cert.pem", "cut off"]),
        (&in_the_middle, &key, 0o600, &["cert.pem", "certificate number 2"]),
        (&cert, "", 0o600, &["--tls-key", "key.pem", "has no private key", "BEGIN PRIVATE KEY"]),
        (&cert, &cert, 0o600, &["key.pem", "has no private key"]),
        (&cert, &cut(&key), 0o600, &["key.pem", "has no private key"]),
        (&cert, &damaged(&key), 0o600, &["key.pem", "damaged"]),
        (&cert, encrypted, 0o600, &["key.pem", "encrypted", "openssl pkey"]),
        (&cert, &other.key, 0o600, &["key.pem", "does not belong to", "cert.pem"]),
        (&wrong_order, &key, 0o600, &["does not belong to", "comes first"]),
        (&cert, &key, 0o644, &["key.pem", "mode 0644", "chmod 0640"]),
        (&cert, &key, 0o604, &["key.pem", "mode 0604"]),
        (&cert, &key, 0o660, &["key.pem", "mode 0660"]),
    ] {
        write_with_mode(&sandbox.path("cert.pem"), cert, 0o644);
        write_with_mode(&sandbox.path("key.pem"), key, mode);
        let mut command = sandbox.command(&["serve", "--listen", "127.0.0.1:0", "-vvv"]);
        let ran = Run::new({
            command.args(Identity::flags(&sandbox));
            command
        });
        let bytes = key.lines().chain(cert.lines()).filter(|line| !line.starts_with('-'));
        for line in bytes.filter(|line| line.len() >= 8) {
            let shown = line
                .as_bytes()
                .windows(8)
                .find(|part| ran.stderr.contains(str::from_utf8(part).unwrap()));
            assert_eq!(shown, None, "{}", ran.stderr);
        }
        ran.exits(2).says(parts);
    }
    let run = |flags: &[&str]| {
        let mut command = sandbox.command(&["serve", "--listen", "127.0.0.1:0"]);
        Identity { cert: cert.clone(), key: key.clone() }.write_to(&sandbox);
        command.args(Identity::flags(&sandbox)).args(flags);
        Run::new(command)
    };
    run(&["--tls-client-ca", "/nonexistent.pem"])
        .exits(2)
        .says(&["--tls-client-ca", "/nonexistent.pem"]);
    run(&["--tls-client-ca", "/etc"]).exits(2).says(&["/etc", "not a regular file"]);
    let key_path = sandbox.path("key.pem").display().to_string();
    run(&["--tls-client-ca", &key_path]).exits(2).says(&["key.pem", "has no certificate"]);
    // Opening a pipe would block.
    let pipe = sandbox.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    run(&["--tls-client-ca", pipe.to_str().unwrap()]).exits(2).says(&["not a regular file"]);
}

/// Debian keeps keys as root:ssl-cert with mode 0640.
#[test]
fn a_key_may_be_readable_by_its_group() {
    let (authority, sandbox) = sandbox_with_certificate();
    for mode in [0o400, 0o440, 0o640] {
        write_with_mode(
            &sandbox.path("key.pem"),
            &fs::read_to_string(sandbox.path("key.pem")).unwrap(),
            0o600,
        );
        fs::set_permissions(
            sandbox.path("key.pem"),
            std::os::unix::fs::PermissionsExt::from_mode(mode),
        )
        .unwrap();
        let server = serve(&sandbox, &[]);
        let mut caller = TlsClient::trusting(&authority).caller(server.address());
        assert_has_token(&caller.get("/token"), "T1");
        assert_eq!(server.stop(), "");
    }
}

#[test]
fn an_expired_or_future_certificate_is_used_with_a_warning() {
    let (authority, sandbox) = sandbox_with_certificate();
    let day = time::Duration::days(1);
    let now = time::OffsetDateTime::now_utc();
    for (from, to, parts) in [
        (now - 3 * day, now - day, ["has expired on ", "Renew it"]),
        (now + day, now + 3 * day, ["is not valid before ", "clock"]),
    ] {
        let identity = authority.sign_for(&["localhost"], |params| {
            params.not_before = from;
            params.not_after = to;
        });
        identity.write_to(&sandbox);
        let server = serve(&sandbox, &[]);
        let refused = TlsClient::trusting(&authority).try_connect(server.address());
        assert!(refused.is_err(), "clients refuse it");
        let stderr = server.stop();
        let first = stderr.lines().next().unwrap_or_default();
        for part in parts {
            assert!(first.contains(part) && first.contains("cert.pem"), "{stderr}");
        }
    }
    // A self-signed certificate, or one of an unknown authority, causes no warning.
    for identity in [Authority::new().sign(), authority.sign()] {
        identity.write_to(&sandbox);
        assert_eq!(serve(&sandbox, &[]).stop(), "");
    }
}

#[test]
fn the_end_of_the_certificate_is_in_the_metrics_and_is_reported_when_it_is_near() {
    let (authority, sandbox) = sandbox_with_certificate();
    let now = time::OffsetDateTime::now_utc().replace_nanosecond(0).unwrap();
    let install = |days: i64| {
        let ends = now + time::Duration::days(days);
        let identity = authority.sign_for(&["localhost"], |params| {
            params.not_before = now - time::Duration::days(1);
            params.not_after = ends;
        });
        identity.write_to(&sandbox);
        format!("wxtoken_tls_certificate_expiry_timestamp_seconds {}", ends.unix_timestamp())
    };
    let metric = install(13);
    let server = serve(&sandbox, &[]);
    let has = |metric: &str| {
        let client = TlsClient::trusting(&authority);
        let body = client.caller(server.address()).get("/metrics").body;
        body.lines().any(|line| line == metric)
    };
    assert!(has(&metric));
    let renewed = install(15);
    server.signal("HUP");
    eventually("the renewed certificate counts", || has(&renewed));
    let stderr = server.stop();
    let reported: Vec<_> =
        stderr.lines().filter(|it| it.contains("cert.pem expires on ")).collect();
    assert_eq!(reported.len(), 1, "{stderr}");
    assert!(reported[0].contains("Renew it"), "{stderr}");
}
