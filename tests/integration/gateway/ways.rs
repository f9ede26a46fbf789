//! The ways to WeChat: TLS with roots of one's own, and proxies.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::json;

use super::upstream::{Reply, Upstream};
use crate::support::home::Home;
use crate::support::proxy::detour;
use crate::support::tls::TlsFront;
use crate::support::*;

/// Returns an upstream that answers `{}`, and a TLS server for `localhost` before it.
fn upstream_with_tls(wechat: &WeChat) -> (Upstream, TlsFront) {
    let upstream = Upstream::new(wechat, |_| Reply::Json("{}".to_owned()));
    let front = TlsFront::before(upstream.address, "localhost");
    (upstream, front)
}

/// Returns a home whose account has this base URL and more lines, and a published token.
fn home(base_url: &str, ca_pem: Option<&str>, more: &str) -> Home {
    let ca_file = ca_pem.map_or("", |_| "ca_file = \"ca.pem\"\n");
    let home = Home::new(&format!(
        "[account.shop]\nappid = \"wx1\"\nbase_url = \"{base_url}\"\n{ca_file}{more}\n"
    ));
    if let Some(pem) = ca_pem {
        write_with_mode(&home.path("ca.pem"), pem, 0o644);
    }
    home.publish("shop", "wx1", "T0K3N", 0);
    home
}

#[test]
fn wechat_is_verified_against_the_accounts_ca_file() {
    let wechat = WeChat::start();
    let (upstream, front) = upstream_with_tls(&wechat);
    let url = format!("https://localhost:{}", front.address.port());
    let trusting = home(&url, Some(&front.ca_pem), "");
    let server = trusting.serve(&["--gateway"]);
    assert_eq!(server.get("/cgi-bin/x").body, "{}");
    assert_eq!(upstream.calls()[0].token(), "T0K3N");

    // Neither an unknown CA nor another name will do.
    let by_address = format!("https://127.0.0.1:{}", front.address.port());
    for (url, ca) in [(&url, None), (&by_address, Some(&*front.ca_pem))] {
        let home = home(url, ca, "");
        let server = home.serve_with_log(&["--gateway"]);
        let answer = server.get("/cgi-bin/x");
        assert_eq!((answer.status, &answer.json()["errcode"]), (200, &(-1).into()), "{url}");
        eventually("it is logged", || home.has_logged("certificate"));
    }
    assert_eq!(upstream.calls().len(), 1, "nothing was sent");
}

/// A proxy that connects to `backend` whatever it is asked for. Returns its address, and what it was asked.
fn start_proxy(backend: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let seen = Arc::clone(&asked);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let seen = Arc::clone(&seen);
            thread::spawn(move || serve_proxy(client, backend, &seen));
        }
    });
    (address, asked)
}

/// Speaks HTTP, SOCKS4 and SOCKS5, by the first byte.
fn serve_proxy(
    mut client: TcpStream,
    backend: SocketAddr,
    seen: &Mutex<Vec<Vec<u8>>>,
) -> Option<()> {
    let read = |client: &mut TcpStream| {
        let mut buffer = [0; 4096];
        let read = client.read(&mut buffer).ok()?;
        Some(buffer[..read].to_vec())
    };
    let mut first = read(&mut client)?;
    match first[0] {
        b'C' => client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?,
        4 => client.write_all(&[0, 90, 0, 0, 0, 0, 0, 0]).ok()?,
        _ => {
            if first[2..].contains(&2) {
                client.write_all(&[5, 2]).ok()?;
                first.extend(read(&mut client)?);
                client.write_all(&[1, 0]).ok()?;
            } else {
                client.write_all(&[5, 0]).ok()?;
            }
            first.extend(read(&mut client)?);
            client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).ok()?;
        }
    }
    seen.lock().unwrap().push(first);
    let server = TcpStream::connect(backend).ok()?;
    let (mut from_client, mut to_server) = (client.try_clone().ok()?, server.try_clone().ok()?);
    thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
    let (mut from_server, mut to_client) = (server, client);
    std::io::copy(&mut from_server, &mut to_client).ok()?;
    None
}

#[test]
fn calls_go_through_the_accounts_proxy() {
    let wechat = WeChat::start();
    let (upstream, front) = upstream_with_tls(&wechat);
    // The proxy alone knows where that is.
    let url = "https://localhost:1";
    for (scheme, expected) in [
        ("http://u:p%40ss@", &b"CONNECT localhost:1 HTTP/1.1\r\n"[..]),
        ("socks5h://u:p@", b"\x05\x02\x02\x00\x01\x01u\x01p\x05\x01\x00\x03\x09localhost\x00\x01"),
        ("socks4a://", b"\x04\x01\x00\x01\x00\x00\x00\x01\x00localhost\x00"),
    ] {
        let (proxy, asked) = start_proxy(front.address);
        let more = format!("proxy = \"{scheme}{proxy}\"");
        let home = home(url, Some(&front.ca_pem), &more);
        let server = home.serve(&["--gateway"]);
        assert_eq!(server.get("/cgi-bin/x").body, "{}", "{scheme}");
        let asked = asked.lock().unwrap();
        assert!(
            asked[0].starts_with(expected),
            "{scheme}: {:?}",
            String::from_utf8_lossy(&asked[0])
        );
        if scheme.starts_with("http") {
            let head = String::from_utf8(asked[0].clone()).unwrap();
            assert!(head.contains("\r\nProxy-Authorization: Basic dTpwQHNz\r\n"), "{head}");
        }
        assert!(asked.iter().all(|it| !String::from_utf8_lossy(it).contains("T0K3N")));
    }
    assert_eq!(upstream.calls().len(), 3);
    assert!(upstream.calls().iter().all(|call| call.header("proxy-authorization").is_none()));
}

#[test]
fn a_proxy_that_refuses_is_told_without_its_password() {
    let wechat = WeChat::start();
    let upstream = Upstream::new(&wechat, |_| Reply::Json("{}".to_owned()));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let _ = client.read(&mut [0; 4096]);
            let _ = client.write_all(b"HTTP/1.1 407 no\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let more = format!("proxy = \"http://user:pa55word@{proxy}\"");
    let home = home("https://localhost:1", None, &more);
    let server = home.serve_with_log(&["--gateway"]);
    assert_eq!(server.get("/cgi-bin/x").json()["errcode"], -1);
    eventually("it is logged", || home.has_logged("user or password"));
    assert!(home.has_logged(&format!("through the proxy {proxy}")) && !home.has_logged("pa55word"));
    assert_eq!(upstream.calls().len(), 0);
}

#[test]
fn the_environments_proxy_is_used_unless_no_proxy_exempts_wechat() {
    let wechat = WeChat::start();
    let (_upstream, front) = upstream_with_tls(&wechat);
    let (proxy, asked) = start_proxy(front.address);
    let home = home("https://wechat.test", Some(&front.ca_pem), "");
    for (no_proxy, count) in [("", 1), ("wechat.test", 1)] {
        let mut command = home.command(&["serve", "--listen", "127.0.0.1:0", "--gateway"]);
        command.env("HTTPS_PROXY", format!("http://{proxy}")).env("NO_PROXY", no_proxy);
        let server = Server::start(command, 1);
        // The certificate is another name's, or there is no such host: neither gets the call.
        assert_eq!(server.get("/cgi-bin/x").json()["errcode"], -1);
        assert_eq!(asked.lock().unwrap().len(), count, "{no_proxy}");
    }
}

/// Its calls go to WeChat and not to its source, which has the token replaced.
#[test]
fn a_mirror_calls_wechat_itself_and_heals_by_its_source() {
    let wechat = WeChat::start();
    let upstream = Upstream::honest(&wechat);
    let front = TlsFront::before(upstream.address, "api.weixin.qq.com");
    let (proxy, asked) = start_proxy(front.address);
    let sandbox = Sandbox::new(&wechat);
    let central = sandbox.serve_refreshing(&[]);
    central.get("/token");
    let dead = sandbox.token();
    let url = format!("http://{}", central.address());
    let home = Home::new(&format!(
        "[account.default]\nfrom = \"{url}\"\nca_file = \"ca.pem\"\n[serve]\nrefresh = true\ngateway = true\n"
    ));
    write_with_mode(&home.path("ca.pem"), &front.ca_pem, 0o644);
    let mut command = home.command(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("HTTPS_PROXY", format!("http://{proxy}"));
    let server = Server::start(command, 1);
    server.get("/token");
    wechat.kill_tokens();
    let answer = server.get(&format!("/cgi-bin/x?access_token={dead}"));
    assert_eq!(answer.json()["errcode"], 0, "{answer:?}");
    assert_ne!(sandbox.token(), dead, "the source has another one");
    let calls = upstream.calls();
    assert_eq!(calls[0].header("host"), Some("api.weixin.qq.com"));
    assert_eq!((calls[0].token(), calls[1].token()), (&*dead, &*sandbox.token()));
    assert!(asked.lock().unwrap()[0].starts_with(b"CONNECT api.weixin.qq.com:443 "));
}

#[test]
fn a_wrong_ca_file_of_one_account_is_told_and_the_others_are_served() {
    let wechat = WeChat::start();
    let upstream = Upstream::new(&wechat, |_| Reply::Json("{}".to_owned()));
    let url = upstream.url();
    let home = Home::new(&format!(
        "[account.bad]\nappid = \"wx2\"\nbase_url = \"{url}\"\nca_file = \"none.pem\"\n\
         [account.shop]\nappid = \"wx1\"\nbase_url = \"{url}\"\n"
    ));
    home.publish("shop", "wx1", "T1", 0);
    home.publish("bad", "wx2", "T2", 0);
    let server = home.serve_with_log(&["--gateway"]);
    assert_eq!(server.get("/cgi-bin/x?access_token=T1").body, "{}");
    let answer = server.get("/cgi-bin/x?access_token=T2");
    assert_eq!(answer.json()["errcode"], -1, "{answer:?}");
    assert!(home.has_logged("none.pem"));
}

#[test]
fn a_base_url_that_leads_back_to_the_gateway_is_a_loop_and_is_said() {
    let (address, leads_to) = detour();
    let home = home(&format!("http://{address}"), None, "");
    let server = home.serve_with_log(&["--gateway"]);
    leads_to.send(server.address()).unwrap();
    for answer in [server.get("/cgi-bin/x"), server.post("/cgi-bin/x", "{}")] {
        assert_eq!((answer.status, &answer.json()["errcode"]), (508, &json!(-1)), "{answer:?}");
        assert!(answer.body.contains("base_url"), "{answer:?}");
    }
    eventually("it is logged", || home.has_logged(": a call cannot be passed on to WeChat"));
    assert!(home.has_logged("leads back to this gateway") && !home.has_logged("T0K3N"));
    let metrics = server.get("/metrics").body;
    assert!(metrics.contains("result=\"loop\",errcode=\"0\"} 2"), "{metrics}");
}

#[test]
fn a_token_request_that_comes_back_is_a_loop_and_is_said() {
    let (address, leads_to) = detour();
    let sandbox = Sandbox::with_base_url(&format!("http://{address}"));
    let server = sandbox.serve_refreshing(&["--gateway"]);
    leads_to.send(server.address()).unwrap();
    for path in ["/token", "/cgi-bin/x"] {
        eventually("it is said", || server.get(path).body.contains("came back to this wxtoken"));
    }
}

#[test]
fn a_loop_of_two_gateways_is_found_and_a_chain_is_none() {
    let (first_address, leads_to_first) = detour();
    let (second_address, leads_to_second) = detour();
    let homes = [second_address, first_address].map(|it| home(&format!("http://{it}"), None, ""));
    let servers = [&homes[0], &homes[1]].map(|home| home.serve(&["--gateway"]));
    leads_to_first.send(servers[0].address()).unwrap();
    leads_to_second.send(servers[1].address()).unwrap();
    for server in &servers {
        let answer = server.get("/cgi-bin/x");
        assert_eq!((answer.status, &answer.json()["errcode"]), (508, &json!(-1)), "{answer:?}");
    }
    let wechat = WeChat::start();
    let upstream = Upstream::new(&wechat, |_| Reply::Json("{}".to_owned()));
    let last = home(&upstream.url(), None, "");
    let last = last.serve(&["--gateway"]);
    let first = home(&format!("http://{}", last.address()), None, "");
    assert_eq!(first.serve(&["--gateway"]).get("/cgi-bin/x").body, "{}");
}
