//! Client certificates that expire or whose CA is withdrawn: on open connections, and by sessions that are resumed without
//! another look at the certificate.

use std::fs;
use std::time::Duration;

use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use time::OffsetDateTime;

use crate::support::tls::{Authority, Identity, TlsClient, TlsStream};
use crate::support::*;

const REQUEST: &str = "GET /token HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A server that asks for certificates of `clients`.
struct Setup {
    sandbox: Sandbox,
    servers: Authority,
    clients: Authority,
}

impl Setup {
    fn new() -> Setup {
        let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
        sandbox.publish("T1", 7200, 0);
        let (servers, clients) = (Authority::new(), Authority::new());
        servers.sign().write_to(&sandbox);
        let setup = Setup { sandbox, servers, clients };
        setup.put_cas(&setup.clients.pem);
        setup
    }

    /// Replaces the file of the clients' CAs atomically.
    fn put_cas(&self, pem: &str) {
        let new = self.sandbox.path("clients.new");
        write_with_mode(&new, pem, 0o644);
        fs::rename(new, self.sandbox.path("clients.pem")).unwrap();
    }

    fn serve(&self) -> Server {
        let mut flags = Identity::flags(&self.sandbox);
        flags.extend([
            "--tls-client-ca".to_owned(),
            self.sandbox.path("clients.pem").display().to_string(),
        ]);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        self.sandbox.serve(&flags)
    }

    fn client(
        &self,
        version: &'static rustls::SupportedProtocolVersion,
        identity: &Identity,
    ) -> TlsClient {
        TlsClient::offering(&self.servers, &[version], |_| true, Some(identity))
    }
}

#[track_caller]
fn assert_is_refused(response: &Response, why: &str) {
    let body = response.json();
    assert_eq!(
        (response.status, body["error"].as_str()),
        (403, Some("certificate")),
        "{response:?}"
    );
    assert!(body["message"].as_str().unwrap().contains(why), "{response:?}");
    assert!(!response.body.contains("T1"));
}

/// Keeps a connection open, with a session that the client can resume.
fn connect_twice(client: &TlsClient, server: &Server) -> Option<Caller<TlsStream>> {
    let mut first = Caller::new(client.try_connect(server.address()).ok()?);
    first.send(REQUEST);
    // TLS 1.3 sends the ticket after the handshake.
    (first.answer().status == 200).then_some(())?;
    let mut second = Caller::new(client.try_connect(server.address()).ok()?);
    assert_eq!(second.stream().conn.handshake_kind(), Some(HandshakeKind::Resumed));
    second.send(REQUEST);
    (second.answer().status == 200).then_some(second)
}

#[test]
fn an_expired_client_certificate_is_refused_on_open_connections_and_by_resumption() {
    let setup = Setup::new();
    let server = setup.serve();
    // A slow machine needs more time before the certificate expires.
    let connected = [5, 20, 60].into_iter().find_map(|life| {
        let expires_at = OffsetDateTime::now_utc() + Duration::from_secs(life);
        let identity = setup.clients.sign_for(&["client.test"], |params| {
            params.not_after = expires_at;
        });
        let clients = [&TLS12, &TLS13].map(|version| setup.client(version, &identity));
        let callers: Option<Vec<_>> =
            clients.iter().map(|client| connect_twice(client, &server)).collect();
        Some((clients, callers?, expires_at))
    });
    let (clients, callers, expires_at) = connected.expect("the certificate was valid for a minute");
    eventually("the certificate expires", || {
        OffsetDateTime::now_utc() > expires_at + Duration::from_secs(1)
    });
    for (client, mut kept) in clients.iter().zip(callers) {
        // Pipelined requests are judged, too.
        kept.send(REQUEST.repeat(3));
        assert_is_refused(&kept.answer(), "has expired");
        assert!(kept.is_closed(), "the connection is closed after the refusal");
        let mut resumed = client.caller(server.address());
        assert_eq!(resumed.stream().conn.handshake_kind(), Some(HandshakeKind::Resumed));
        resumed.send(REQUEST);
        assert_is_refused(&resumed.answer(), "has expired");
        assert!(resumed.is_closed(), "the connection is closed after the refusal");
    }
    let stderr = server.stop();
    let expected = "wxtoken: serve: Connect again with a new certificate: refused 127.0.0.1: ";
    assert!(stderr.contains(expected), "{stderr}");
}

#[test]
fn a_client_certificate_whose_ca_is_withdrawn_is_refused_on_open_connections() {
    let setup = Setup::new();
    let others = Authority::new();
    let (withdrawn, kept) = (setup.clients.sign_client(), others.sign_client());
    for (version, is_by_hangup) in [(&TLS12, true), (&TLS13, false)] {
        setup.put_cas(&format!("{}{}", setup.clients.pem, others.pem));
        let server = setup.serve();
        let mut first = setup.client(version, &withdrawn).caller(server.address());
        let mut second = setup.client(version, &kept).caller(server.address());
        for caller in [&mut first, &mut second] {
            assert_eq!(caller.get("/token").status, 200);
        }
        setup.put_cas(&others.pem);
        if is_by_hangup {
            server.signal("HUP");
        }
        let mut refusal = None;
        eventually("the change is read", || {
            first.send(REQUEST);
            let answer = first.answer();
            let is_refused = answer.status != 200;
            refusal = Some(answer);
            is_refused
        });
        assert_is_refused(&refusal.unwrap(), "of a CA in serve's --tls-client-ca");
        assert!(first.is_closed());
        assert_eq!(second.get("/token").status, 200, "the other CA stays");
    }
}

#[test]
fn below_cgi_bin_a_refused_certificate_has_an_errcode() {
    let setup = Setup::new();
    let identity = setup.clients.sign_client();
    let server = setup.serve();
    let mut caller = setup.client(&TLS13, &identity).caller(server.address());
    let path = format!("/cgi-bin/token?grant_type=client_credential&appid={APPID}&secret=x");
    assert_eq!(caller.get(&path).json()["access_token"], "T1");
    setup.put_cas(&Authority::new().pem);
    server.signal("HUP");
    let mut errcode = None;
    eventually("the change is read", || {
        errcode = caller.get(&path).json()["errcode"].as_i64();
        errcode.is_some()
    });
    assert_eq!(errcode, Some(48001));
}
