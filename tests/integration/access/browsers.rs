//! Requests that a page makes a browser send: by DNS rebinding, or from another site. And `--server-name`.

use std::net::SocketAddr;

use crate::support::*;

const TOKEN: &str = "T0KEN_that_no_page_may_read_0123456789abcdefghijklmnopqrstuvwxyz";

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish(TOKEN, 7200, 0);
    sandbox
}

/// Returns how a client on this machine reaches a server that listens on all addresses.
fn loopback_of(server: &Server) -> SocketAddr {
    SocketAddr::new("127.0.0.1".parse().unwrap(), server.address().port())
}

/// Sends a request for `target` with these headers, each with its line end. Returns the error word; `ok` for the token.
#[track_caller]
fn ask(address: SocketAddr, target: &str, headers: &str) -> String {
    let request = format!("GET {target} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
    outcome(&exchange(address, request.as_bytes()))
}

#[track_caller]
fn outcome(response: &Response) -> String {
    if response.status == 200 {
        assert_eq!(response.json()["access_token"], TOKEN);
        return "ok".to_owned();
    }
    let text = format!("{}{}", response.head, response.body);
    assert!(!text.contains(&TOKEN[..20]) && !text.contains(APPID), "{text}");
    response.json()["error"].as_str().expect("an error").to_owned()
}

const FOREIGN: [&str; 6] =
    ["evil.example", "evil.example:7200", "localhost.evil.example", "10.0.0.1", "[::2]", ""];

#[test]
fn a_rebound_page_gets_nothing_at_a_loopback_address_whatever_the_listener_is() {
    let sandbox = sandbox();
    for listen in ["127.0.0.1:0", "0.0.0.0:0"] {
        let server = sandbox.serve(&["--listen", listen]);
        let address = loopback_of(&server);
        for host in FOREIGN {
            let host = format!("Host: {host}\r\n");
            assert_eq!(ask(address, "/token", &host), "misdirected", "{listen} {host}");
            let target = "http://localhost/token";
            assert_eq!(ask(address, target, &host), "misdirected", "{listen} {host}");
        }
        let target = "http://evil.example/token";
        assert_eq!(ask(address, target, "Host: localhost\r\n"), "misdirected", "{listen}");
        assert_eq!(ask(address, "/token", "Host: localhost:7200\r\n"), "ok", "{listen}");
        assert_eq!(ask(address, "/token", "Host: 127.0.0.1\r\n"), "ok", "{listen}");
        let stderr = server.stop();
        let expected =
            ": refused 127.0.0.1: it asked for host evil.example, which is not in --server-name";
        assert!(stderr.contains(expected), "{stderr}");
    }
}

#[needs(ipv6)]
#[test]
fn a_rebound_page_gets_nothing_at_a_loopback_address_of_a_dual_stack_listener() {
    let sandbox = sandbox();
    let server = sandbox.serve(&["--listen", "[::]:0"]);
    let [v4, v6] = ["127.0.0.1", "::1"]
        .map(|ip| SocketAddr::new(ip.parse().unwrap(), server.address().port()));
    for address in [v4, v6] {
        assert_eq!(ask(address, "/token", "Host: evil.example\r\n"), "misdirected", "{address}");
        assert_eq!(ask(address, "/token", "Host: [::1]:7200\r\n"), "ok", "{address}");
    }
}

#[test]
fn a_rebound_page_cannot_pass_for_a_trusted_proxy() {
    let sandbox = sandbox();
    let flags = ["--allow", "127.0.0.1,10.1.0.0/16", "--trusted-proxy", "127.0.0.1"];
    for listen in ["127.0.0.1:0", "0.0.0.0:0"] {
        let server = sandbox.serve(&[&["--listen", listen][..], &flags].concat());
        let address = loopback_of(&server);
        for by in ["X-Forwarded-For: 10.1.0.1\r\n", "Forwarded: for=10.1.0.1\r\n", ""] {
            for host in FOREIGN {
                let headers = format!("Host: {host}\r\n{by}");
                assert_eq!(ask(address, "/token", &headers), "misdirected", "{headers}");
            }
            assert_eq!(ask(address, "/token", &format!("Host: localhost\r\n{by}")), "ok", "{by}");
        }
    }
}

#[test]
fn a_server_name_is_a_host_for_direct_and_forwarded_requests() {
    let sandbox = sandbox();
    let flags = [
        "--allow",
        "127.0.0.1,10.1.0.0/16",
        "--trusted-proxy",
        "127.0.0.1",
        "--server-name",
        "token.example.com,10.0.0.5",
        "--server-name",
        "Central",
    ];
    let server = sandbox.serve(&flags);
    for by in ["", "X-Forwarded-For: 10.1.0.1\r\n"] {
        for (host, expected) in [
            ("token.example.com", "ok"),
            ("TOKEN.example.com:8443", "ok"),
            ("central:7200", "ok"),
            ("10.0.0.5", "ok"),
            ("localhost", "ok"),
            ("10.0.0.6", "misdirected"),
            ("example.com", "misdirected"),
            ("a.token.example.com", "misdirected"),
            ("evil.example", "misdirected"),
        ] {
            let headers = format!("Host: {host}\r\n{by}");
            assert_eq!(ask(server.address(), "/token", &headers), expected, "{headers}");
        }
    }
}

#[test]
fn with_server_names_other_addresses_and_proxied_unix_clients_need_one_too() {
    let sandbox = sandbox();
    let socket = format!("unix:{}", sandbox.path("socket").display());
    let flags = ["--listen", &socket, "--allow", "10.1.0.0/16", "--trusted-proxy", "unix"];
    let ask = |server: &Server, host: &str, by: &str| {
        let request =
            format!("GET /token HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{by}\r\n");
        outcome(&exchange_over(connect_unix(&server.addresses[0]), request.as_bytes()))
    };
    let by = "X-Forwarded-For: 10.1.0.1\r\n";
    let server = sandbox.serve(&flags);
    assert_eq!(ask(&server, "evil.example", by), "ok", "no name is given, and none is known");
    drop(server);
    let server = sandbox.serve(&[&flags[..], &["--server-name", "token.example.com"]].concat());
    for (host, expected) in [
        ("token.example.com", "ok"),
        ("localhost", "ok"),
        ("10.0.0.5", "ok"),
        ("evil.example", "misdirected"),
    ] {
        assert_eq!(ask(&server, host, by), expected, "{host}");
    }
    drop(server);
    // A client that opens the socket itself names nothing.
    let direct = ["--listen", &socket, "--server-name", "token.example.com"];
    assert_eq!(ask(&sandbox.serve(&direct), "anything", ""), "ok");
}

#[test]
fn an_invalid_server_name_is_a_usage_error() {
    let sandbox = sandbox();
    let expected = "Write a host name without a port";
    for wrong in ["token.example.com:443", "https://token.example.com", "*.example.com"] {
        sandbox
            .serve_refused(&["--server-name", wrong])
            .says(&[&format!("--server-name: {wrong}: {expected}")]);
    }
    sandbox
        .serve_refused(&["--server-name", ""])
        .says(&["--server-name: an empty entry", expected]);
}

#[test]
fn a_request_that_a_page_of_another_site_causes_is_403_cross_site() {
    let sandbox = sandbox();
    let server = sandbox.serve(&["--listen", "127.0.0.1:0", "--server-name", "token.example.com"]);
    let cross_site = "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n";
    let link = format!("{cross_site}Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n");
    let paths = ["/token", "/token/default", "/ticket/jsapi", "/metrics", "/healthz", "/nowhere"];
    for headers in [cross_site, &link, "Host: localhost\r\nOrigin: https://evil.example\r\n"] {
        for path in paths {
            assert_eq!(ask(server.address(), path, headers), "cross_site", "{path} {headers}");
        }
    }
    assert_eq!(ask(server.address(), "/", cross_site), "cross_site");
    let post = "POST /token HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nConnection: close\r\n\
                Origin: null\r\nContent-Length: 17\r\n\r\n{\"rejected\":\"T1\"}";
    assert_eq!(outcome(&server.send(post)), "cross_site");
    for headers in [
        "Host: localhost\r\nSec-Fetch-Site: none\r\n",
        "Host: localhost\r\nSec-Fetch-Site: same-origin\r\nOrigin: http://localhost\r\n",
        "Host: token.example.com\r\nOrigin: https://token.example.com\r\n",
        "Host: localhost\r\nSec-Fetch-Mode: cors\r\n",
    ] {
        assert_eq!(ask(server.address(), "/token", headers), "ok", "{headers}");
    }
    // The page has no token, and other pages may have a link to it.
    let page = server.send(&format!("GET / HTTP/1.1\r\nConnection: close\r\n{link}\r\n"));
    assert_eq!((page.status, page.body.contains(TOKEN)), (200, false));
    let stderr = server.stop();
    let expected = ": refused 127.0.0.1: a page of another site made a browser ask";
    assert!(stderr.contains(expected), "{stderr}");
}

#[test]
fn an_sdk_route_refuses_a_foreign_host_and_another_site_with_an_errcode() {
    let sandbox = sandbox();
    let server = sandbox.serve(&[]);
    let path = format!("/cgi-bin/token?grant_type=client_credential&appid={APPID}&secret=x");
    for (headers, status, errcode) in [
        ("Host: evil.example\r\n", 421, 40066),
        ("Host: localhost\r\nSec-Fetch-Site: cross-site\r\n", 403, 48001),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
        let response = server.send(&request);
        assert_eq!((response.status, &response.json()["errcode"]), (status, &errcode.into()));
    }
}
