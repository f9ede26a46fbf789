//! What an operator reads of refused clients: each address, and how many more there were.

use std::io::Read;

use crate::support::tls::{Authority, Identity, TlsClient};
use crate::support::*;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 0);
    sandbox
}

const STRANGERS: [&str; 3] = ["127.0.0.2", "127.0.0.3", "127.0.0.4"];

/// Has one stranger refused many times, and then each of them.
fn be_refused(server: &Server) {
    for source in ["127.0.0.2"; 50].into_iter().chain(STRANGERS) {
        let mut stream = connect_from(source, server.address());
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

#[test]
fn each_refused_address_has_a_line_whatever_others_do() {
    let sandbox = sandbox();
    let authority = Authority::new();
    authority.sign().write_to(&sandbox);
    let tls = Identity::flags(&sandbox);
    for flags in [Vec::new(), tls] {
        let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        flags.extend(["--allow", "127.0.0.1"]);
        let server = sandbox.serve(&flags);
        be_refused(&server);
        let stderr = server.stop();
        for source in STRANGERS {
            let line = format!(": refused {source}: not in --allow");
            assert!(stderr.contains(&line), "{source}:\n{stderr}");
        }
        // A line per address in ten seconds, and this takes a few.
        assert!(stderr.lines().count() < 15, "{stderr}");
    }
}

#[test]
fn one_kind_of_refusal_does_not_hide_another() {
    let sandbox = sandbox();
    let server = sandbox.serve(&["--allow", "127.0.0.1"]);
    be_refused(&server);
    for _ in 0..50 {
        server.send("GET /token HTTP/1.1\r\nHost: localhost\r\nVia: 1.1 x\r\n\r\n");
    }
    server.send("GET /token HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    let stderr = server.stop();
    for line in [
        "serve: Ask the server directly, without proxy",
        "refused 127.0.0.1: it asked for host evil.example",
        "refused 127.0.0.4: not in --allow",
    ] {
        assert!(stderr.contains(line), "{line}:\n{stderr}");
    }
}

#[test]
fn each_address_whose_handshake_fails_has_a_line() {
    let sandbox = sandbox();
    Authority::new().sign().write_to(&sandbox);
    let flags = Identity::flags(&sandbox);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = sandbox.serve(&flags);
    let distrusting = TlsClient::trusting(&Authority::new());
    for source in ["127.0.0.1"; 20].into_iter().chain(STRANGERS) {
        let mut stream = distrusting.over(connect_from(source, server.address()));
        assert!(stream.conn.complete_io(&mut stream.sock).is_err());
        // The alert is sent, and the other side ends.
        let _ = stream.conn.complete_io(&mut stream.sock);
        let _ = stream.sock.read_to_end(&mut Vec::new());
    }
    let stderr = server.stop();
    for source in STRANGERS.into_iter().chain(["127.0.0.1"]) {
        let line = format!("no TLS with {source}: it does not trust the certificate");
        assert!(stderr.contains(&line), "{source}:\n{stderr}");
    }
}

#[test]
fn each_kind_of_failed_handshake_has_a_line() {
    let sandbox = sandbox();
    let (servers, clients) = (Authority::new(), Authority::new());
    servers.sign().write_to(&sandbox);
    write_with_mode(&sandbox.path("clients.pem"), &clients.pem, 0o644);
    let mut flags = Identity::flags(&sandbox);
    flags.extend(["--tls-client-ca".to_owned(), sandbox.path("clients.pem").display().to_string()]);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = sandbox.serve(&flags);
    let shake_hands = |client: &TlsClient| {
        let mut stream = client.over(connect(server.address()));
        let _ = stream.conn.complete_io(&mut stream.sock);
        let _ = stream.conn.complete_io(&mut stream.sock);
        let _ = stream.sock.read_to_end(&mut Vec::new());
    };
    // A health check that distrusts the certificate, all the time.
    let distrusting = TlsClient::trusting(&Authority::new());
    (0..20).for_each(|_| shake_hands(&distrusting));
    shake_hands(&TlsClient::trusting(&servers));
    let stranger = Authority::new().sign();
    let versions = rustls::ALL_VERSIONS;
    shake_hands(&TlsClient::offering(&servers, versions, |_| true, Some(&stranger)));
    let stderr = server.stop();
    for line in [
        "no TLS with 127.0.0.1: it does not trust the certificate",
        "no TLS with 127.0.0.1: it showed no certificate",
        "no TLS with 127.0.0.1: its certificate does not hold",
    ] {
        assert!(stderr.contains(line), "{line}:\n{stderr}");
    }
}

#[test]
fn one_reason_to_refuse_a_forwarded_request_does_not_hide_another() {
    let sandbox = sandbox();
    let server = sandbox.serve(&["--trusted-proxy", "127.0.0.1", "--allow", "192.0.2.0/24"]);
    let send = |headers: &str| {
        server.send(&format!(
            "GET /token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"
        ))
    };
    for _ in 0..20 {
        assert_eq!(send("X-Forwarded-For: nonsense\r\n").status, 403);
    }
    assert_eq!(send("X-Forwarded-For: 192.0.2.1\r\nX-Real-IP: 192.0.2.2\r\n").status, 403);
    let stderr = server.stop();
    let lines: Vec<_> = stderr.lines().filter(|line| line.contains("refused 127.0.0.1")).collect();
    assert_eq!(lines.len(), 2, "{stderr}");
}

#[test]
fn the_number_of_refusals_is_told_although_no_more_follow() {
    let sandbox = sandbox();
    let serve = sandbox.command(&["serve", "--listen", "127.0.0.1:0", "--allow", "127.0.0.1"]);
    let log = sandbox.path("log");
    let server = Server::start_with_log(&serve, &log);
    for _ in 0..20 {
        let mut stream = connect_from("127.0.0.2", server.address());
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let log = || std::fs::read_to_string(&log).unwrap();
    let line = ": refused 127.0.0.2: not in --allow";
    // One is in the first line, and one in the last.
    eventually("all are told", || {
        let log = log();
        log.contains(&format!("{line} (18 more since the last line)"))
            && log.contains("（此后又有 18 次）")
    });
    let log = log();
    assert!(!log.lines().next().unwrap().contains("more since"), "{log}");
    server.stop();
}
