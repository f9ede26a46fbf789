//! `serve --trusted-proxy`: which client a forwarded request is from; and `--allow-file`.

use std::fs;

use crate::support::*;

const TOKEN: &str = "T0KEN_for_clients_behind_proxies_0123456789abcdefghijklmnopqrstuvwxyz";

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish(TOKEN, 7200, 0);
    sandbox
}

/// Returns a request with these headers; each has its line end.
fn request(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n")
}

/// Returns `ok` or the refusal's error code.
#[track_caller]
fn outcome(response: &Response) -> String {
    match response.status {
        200 => {
            assert_eq!(response.json()["access_token"], TOKEN);
            "ok".to_owned()
        }
        _ => {
            assert!(!response.body.contains(&TOKEN[..20]), "{response:?}");
            response.json()["error"].as_str().expect("an error").to_owned()
        }
    }
}

/// Sends `GET /token` with these headers from the address `source`.
#[track_caller]
fn get_from(source: &str, server: &Server, headers: &str) -> Response {
    let stream = connect_from(source, server.address());
    exchange_over(stream, request("/token", headers).as_bytes())
}

/// The allowed clients. None of the proxies is among them.
const ALLOW: &str = "10.1.0.0/16,2001:db8::/32,127.0.0.9";
const PROXIES: &str = "127.0.0.2,127.0.0.3,::ffff:127.0.0.4";

#[test]
fn behind_a_trusted_proxy_the_address_of_the_client_is_checked() {
    let sandbox = sandbox();
    let server = sandbox.serve(&["--allow", ALLOW, "--trusted-proxy", PROXIES]);
    for (source, headers, expected) in [
        // Without a proxy.
        ("127.0.0.9", "", "ok"),
        ("127.0.0.8", "", "forbidden"),
        // Through an untrusted proxy.
        ("127.0.0.9", "X-Forwarded-For: 10.1.0.1\r\n", "forwarded"),
        ("127.0.0.9", "Forwarded: for=10.1.0.1\r\n", "forwarded"),
        ("127.0.0.9", "Via: 1.1 x\r\n", "forwarded"),
        ("127.0.0.8", "X-Forwarded-For: 10.1.0.1\r\n", "forbidden"),
        // One hop.
        ("127.0.0.2", "X-Forwarded-For: 10.1.0.1\r\n", "ok"),
        ("127.0.0.4", "x-forwarded-for: 10.1.0.1:4711\r\n", "ok"),
        ("127.0.0.2", "X-FORWARDED-FOR: ::ffff:10.1.0.1\r\n", "ok"),
        ("127.0.0.2", "X-Forwarded-For: [2001:db8::1]:4711\r\n", "ok"),
        ("127.0.0.2", "X-Forwarded-For: 10.2.0.1\r\n", "forbidden"),
        ("127.0.0.2", "X-Forwarded-For: 2001:db9::1\r\n", "forbidden"),
        // Two hops.
        ("127.0.0.2", "X-Forwarded-For: 10.1.0.1, 127.0.0.3\r\n", "ok"),
        ("127.0.0.2", "X-Forwarded-For: 10.1.0.1\r\nX-Forwarded-For: 127.0.0.4\r\n", "ok"),
        ("127.0.0.2", "X-Forwarded-For: 10.1.0.1, 127.0.0.5\r\n", "forbidden"),
        // Entries forged by the client are left of its own address.
        ("127.0.0.2", "X-Forwarded-For: 10.1.0.1, 10.2.0.1\r\n", "forbidden"),
        ("127.0.0.2", "X-Forwarded-For: 10.1.0.1, 10.2.0.1, 127.0.0.3\r\n", "forbidden"),
        ("127.0.0.2", "X-Forwarded-For: 10.1.0.1\r\nX-Forwarded-For: 10.2.0.1\r\n", "forbidden"),
        ("127.0.0.2", "X-Forwarded-For: unknown, 10.1.0.1\r\n", "ok"),
        ("127.0.0.2", "X-Forwarded-For: \u{e9},,\", 10.1.0.1\r\n", "ok"),
        ("127.0.0.2", "X-Real-IP: 127.0.0.9\r\nX-Forwarded-For: 10.2.0.1\r\n", "forwarded"),
        // If all are proxies, the farthest is the client. It is not allowed.
        ("127.0.0.2", "X-Forwarded-For: 127.0.0.3\r\n", "forbidden"),
        // No address.
        ("127.0.0.2", "X-Forwarded-For: 10.1.0.1, unknown\r\n", "forwarded"),
        ("127.0.0.2", "X-Forwarded-For: 10.1.0.1, unknown, 127.0.0.3\r\n", "forwarded"),
        ("127.0.0.2", "X-Forwarded-For: 10.1.0.1,\r\n", "forwarded"),
        ("127.0.0.2", "X-Forwarded-For:\r\n", "forwarded"),
        ("127.0.0.2", "X-Forwarded-For: 10.1.0.1\r\nX-Forwarded-For:\r\n", "forwarded"),
        ("127.0.0.2", "X-Forwarded-For: fe80::1%eth0\r\n", "forwarded"),
        ("127.0.0.2", "X-Forwarded-For: 10.1.0.1 127.0.0.9\r\n", "forwarded"),
        // RFC 7239.
        ("127.0.0.2", "Forwarded: For=\"10.1.0.1:80\";proto=https, for=127.0.0.3\r\n", "ok"),
        ("127.0.0.2", "forwarded: for=\"[2001:db8::1]\"\r\n", "ok"),
        ("127.0.0.2", "Forwarded: for=10.1.0.1, for=10.2.0.1\r\n", "forbidden"),
        ("127.0.0.2", "Forwarded: for=10.1.0.1, for=_hidden\r\n", "forwarded"),
        ("127.0.0.2", "Forwarded: for=10.1.0.1;x=\", for=10.2.0.1\r\n", "forwarded"),
        // Both: the client can send the one that the proxy does not set.
        ("127.0.0.2", "X-Forwarded-For: 10.1.0.1\r\nForwarded: for=10.1.0.1\r\n", "ok"),
        ("127.0.0.2", "X-Forwarded-For: 10.2.0.1\r\nForwarded: for=10.1.0.1\r\n", "forwarded"),
        ("127.0.0.2", "X-Forwarded-For: 10.1.0.1\r\nForwarded: for=10.2.0.1\r\n", "forwarded"),
        // Neither.
        ("127.0.0.2", "", "forbidden"),
        ("127.0.0.2", "X-Real-IP: 10.1.0.1\r\n", "forwarded"),
        ("127.0.0.2", "CF-Connecting-IP: 10.1.0.1\r\nVia: 1.1 x\r\n", "forwarded"),
        ("127.0.0.2", "X-Forwarded-Proto: https\r\n", "forwarded"),
    ] {
        let response = get_from(source, &server, headers);
        assert_eq!(outcome(&response), expected, "{source} {headers:?} {response:?}");
    }
    // A space after the name, and a folded value, are invalid HTTP.
    for headers in ["X-Forwarded-For : 10.1.0.1\r\n", "X-Forwarded-For:\r\n 10.1.0.1\r\n"] {
        assert_eq!(get_from("127.0.0.2", &server, headers).status, 400, "{headers:?}");
    }
    let many = format!("X-Forwarded-For: {}10.1.0.1\r\n", "10.2.0.1,".repeat(800));
    assert_eq!(outcome(&get_from("127.0.0.2", &server, &many)), "ok");
}

#[test]
fn a_refusal_behind_a_proxy_names_the_address_of_the_client() {
    let sandbox = sandbox();
    let server = sandbox.serve(&["--allow", ALLOW, "--trusted-proxy", PROXIES]);
    let ask = |path: &str, headers: &str| {
        exchange_over(
            connect_from("127.0.0.2", server.address()),
            request(path, headers).as_bytes(),
        )
    };
    let forbidden = ask("/token", "X-Forwarded-For: 203.0.113.9\r\n");
    assert_eq!(forbidden.status, 403);
    assert!(forbidden.body.contains("your address 203.0.113.9 is not allowed here"));
    assert!(!forbidden.body.contains("127.0.0.2"), "{forbidden:?}");
    let path = format!("/cgi-bin/token?grant_type=client_credential&appid={APPID}&secret=x");
    for (headers, says) in [
        ("X-Forwarded-For: 203.0.113.9\r\n", "invalid ip 203.0.113.9, not in whitelist"),
        ("X-Forwarded-For: unknown\r\n", "invalid ip 127.0.0.2, not in whitelist"),
        ("Via: 1.1 x\r\n", "the proxy did not say for whom it asks"),
    ] {
        let response = ask(&path, headers);
        assert_eq!((response.status, &response.json()["errcode"]), (200, &40164.into()));
        assert!(response.body.contains(says), "{response:?}");
    }
    assert_eq!(ask(&path, "X-Forwarded-For: 10.1.0.1\r\n").json()["access_token"], TOKEN);
    let stderr = server.stop();
    let expected = "wxtoken: serve: Add 203.0.113.9 to --allow, if it may ask: refused 203.0.113.9 through 127.0.0.2: \
                    not in --allow";
    assert!(stderr.starts_with(expected), "{stderr}");
}

#[test]
fn a_refusal_on_sdk_routes_behind_a_proxy_is_logged() {
    let sandbox = sandbox();
    let server = sandbox.serve(&["-v", "--allow", "127.0.0.0/8,10.1.0.0/16"]);
    let path = format!("/cgi-bin/token?grant_type=client_credential&appid={APPID}&secret=x");
    server.send(&request(&path, "X-Forwarded-For: 10.1.0.1\r\n"));
    let stderr = server.stop();
    assert!(
        stderr.contains("serve: Ask the server directly, without proxy headers")
            && stderr.contains(": refused 127.0.0.1: a proxy that is not trusted here"),
        "{stderr}"
    );
}

#[test]
fn a_log_line_names_the_client_and_not_the_proxy() {
    let sandbox = sandbox();
    let server = sandbox.serve(&["-v", "--allow", ALLOW, "--trusted-proxy", PROXIES]);
    get_from("127.0.0.2", &server, "X-Forwarded-For: 10.1.0.1\r\n");
    get_from("127.0.0.9", &server, "");
    let stderr = server.stop();
    let lines: Vec<&str> = stderr.lines().collect();
    assert!(lines[0].starts_with("wxtoken: serve: GET /token 200 10.1.0.1 "), "{stderr}");
    assert!(lines[1].starts_with("wxtoken: serve: GET /token 200 127.0.0.9 "), "{stderr}");
}

#[test]
fn a_request_of_the_proxy_itself_needs_an_allowed_address() {
    let sandbox = sandbox();
    let args = ["--allow", "127.0.0.2,10.1.0.0/16", "--trusted-proxy", "127.0.0.2,127.0.0.3"];
    let server = sandbox.serve(&args);
    assert_eq!(outcome(&get_from("127.0.0.2", &server, "")), "ok");
    assert_eq!(outcome(&get_from("127.0.0.3", &server, "")), "forbidden");
    let behind = "X-Forwarded-For: 10.2.0.1\r\n";
    assert_eq!(outcome(&get_from("127.0.0.2", &server, behind)), "forbidden");
    // If all are proxies, the farthest is the client. It is allowed.
    let own = "X-Forwarded-For: 127.0.0.2\r\n";
    assert_eq!(outcome(&get_from("127.0.0.3", &server, own)), "ok");
}

#[test]
fn the_host_is_checked_for_direct_and_forwarded_requests() {
    let sandbox = sandbox();
    let server = sandbox.serve(&[
        "--allow",
        "127.0.0.1,10.1.0.0/16",
        "--trusted-proxy",
        "127.0.0.1",
        "--server-name",
        "token.example.com",
    ]);
    let ask = |headers: &str| {
        let request = format!("GET /token HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
        outcome(&server.send(&request))
    };
    for by in ["X-Forwarded-For: 10.1.0.1\r\n", "X-Forwarded-For: 127.0.0.1\r\n", ""] {
        for (hosts, expected) in [
            ("Host: token.example.com\r\n", "ok"),
            ("Host: localhost\r\n", "ok"),
            ("Host: evil.example\r\n", "misdirected"),
            ("", "bad_request"),
            ("Host: localhost\r\nHost: localhost\r\n", "bad_request"),
        ] {
            assert_eq!(ask(&format!("{hosts}{by}")), expected, "{hosts}{by}");
        }
    }
}

#[test]
fn headers_of_a_trusted_proxy_that_name_different_clients_are_refused() {
    let sandbox = sandbox();
    let server = sandbox.serve(&["--allow", ALLOW, "--trusted-proxy", PROXIES]);
    for other in ["X-Real-IP", "CF-Connecting-IP", "True-Client-IP", "Ali-CDN-Real-IP"] {
        for by in ["X-Forwarded-For: 10.1.0.1", "Forwarded: for=10.1.0.1"] {
            for (named, expected) in [
                ("10.1.0.1", "ok"),
                ("::ffff:10.1.0.1", "ok"),
                // The proxy before this one.
                ("127.0.0.3", "ok"),
                ("10.2.0.1", "forwarded"),
                ("10.1.0.2", "forwarded"),
                ("unknown", "forwarded"),
                ("", "forwarded"),
            ] {
                for headers in [
                    format!("{by}\r\n{other}: {named}\r\n"),
                    format!("{}: {named}\r\n{by}\r\n", other.to_lowercase()),
                ] {
                    let response = get_from("127.0.0.2", &server, &headers);
                    assert_eq!(outcome(&response), expected, "{headers} {response:?}");
                }
            }
        }
    }
    let response = get_from(
        "127.0.0.2",
        &server,
        "X-Forwarded-For: 10.1.0.1\r\nX-Real-IP: 10.1.0.1\r\nCF-Connecting-IP: 10.2.0.1\r\n",
    );
    assert_eq!(outcome(&response), "forwarded");
    assert!(response.body.contains("name different clients"), "{response:?}");
}

#[test]
fn the_unix_socket_is_a_proxy_only_if_it_is_configured_as_one() {
    let sandbox = sandbox();
    let socket = format!("unix:{}", sandbox.path("socket").display());
    let listen = ["--listen", &socket, "--listen", "127.0.0.1:0", "--allow", ALLOW];
    let ask = |server: &Server, headers: &str| {
        let stream = connect_unix(&server.addresses[0]);
        outcome(&exchange_over(stream, request("/token", headers).as_bytes()))
    };
    let server = sandbox.serve(&[&listen[..], &["--trusted-proxy", "127.0.0.2,unix"]].concat());
    assert_eq!(ask(&server, "X-Forwarded-For: 10.1.0.1\r\n"), "ok");
    assert_eq!(ask(&server, "X-Forwarded-For: 10.1.0.1, 127.0.0.2\r\n"), "ok");
    assert_eq!(ask(&server, "X-Forwarded-For: 10.2.0.1\r\n"), "forbidden");
    assert_eq!(ask(&server, "X-Forwarded-For: unix\r\n"), "forwarded");
    assert_eq!(ask(&server, "X-Real-IP: 10.1.0.1\r\n"), "forwarded");
    // Without a forwarding header the client is unknown.
    assert_eq!(ask(&server, ""), "forwarded");
    drop(server);
    let server = sandbox.serve(&[&listen[..], &["--trusted-proxy", "127.0.0.2"]].concat());
    assert_eq!(ask(&server, ""), "ok");
    assert_eq!(ask(&server, "X-Forwarded-For: 10.1.0.1\r\n"), "forwarded");
}

#[test]
fn an_empty_or_invalid_list_of_proxies_is_an_error() {
    let sandbox = sandbox();
    let serve = |proxies: &str| sandbox.serve_refused(&["--trusted-proxy", proxies]);
    serve("").says(&["--trusted-proxy: an empty entry", "Write an address or a network"]);
    serve("127.0.0.1,*").says(&["--trusted-proxy: *: Write"]);
    serve("127.0.0.1/8").says(&["Write 127.0.0.0/8 or 127.0.0.1"]);
    let mut command = sandbox.command(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("WXTOKEN_TRUSTED_PROXY", "127.0.0.1,unix").env("WXTOKEN_ALLOW", "10.1.0.1");
    let server = Server::start(command, 1);
    let through = |ip: &str| get_from("127.0.0.1", &server, &format!("X-Forwarded-For: {ip}\r\n"));
    assert_eq!(outcome(&through("10.1.0.1")), "ok");
    assert_eq!(outcome(&through("10.1.0.2")), "forbidden");
}

#[test]
fn allow_file_adds_to_allow_and_does_not_imply_loopback() {
    let sandbox = sandbox();
    let path = sandbox.path("allow");
    let file = path.to_str().unwrap();
    write_with_mode(&path, "# ours\r\n127.0.0.4, 127.0.0.5\t127.0.1.0/24\r\n", 0o644);
    let is_allowed = |server: &Server, source: &str| get_from(source, server, "").status == 200;
    let server = sandbox.serve(&["--allow-file", file]);
    for (source, expected) in [
        ("127.0.0.1", false),
        ("127.0.0.4", true),
        ("127.0.0.5", true),
        ("127.0.1.255", true),
        ("127.0.2.0", false),
    ] {
        assert_eq!(is_allowed(&server, source), expected, "{source}");
    }
    // The log names the file that this server reads, and a stranger is not told its path.
    let refused = get_from("127.0.2.0", &server, "");
    assert!(refused.body.contains("--allow-file") && !refused.body.contains(file), "{refused:?}");
    let stderr = server.stop();
    let expected =
        format!("Add 127.0.2.0 to {file}, if it may ask: refused 127.0.2.0: not in {file}");
    assert!(stderr.contains(&expected), "{stderr}");
    let server = sandbox.serve(&["--allow-file", file, "--allow", "127.0.0.1"]);
    assert!(is_allowed(&server, "127.0.0.1") && is_allowed(&server, "127.0.0.4"));
    assert!(!is_allowed(&server, "127.0.0.3"));
    drop(server);
    write_with_mode(&path, "# none\n", 0o644);
    let server = sandbox.serve(&["--allow-file", file]);
    assert!(!is_allowed(&server, "127.0.0.1"));
    let stderr = server.stop();
    let expected = format!(
        "wxtoken: serve: Write the clients' addresses into it: allow file {file} holds no address, and no client gets in "
    );
    assert!(stderr.starts_with(&expected), "{stderr}");
}

#[test]
fn a_changed_allow_file_applies_to_open_connections_and_an_invalid_one_is_ignored() {
    let sandbox = sandbox();
    let path = sandbox.path("allow");
    let put = |text: &str, mode: u32| {
        let new = sandbox.path("allow.new");
        write_with_mode(&new, text, mode);
        fs::rename(new, &path).unwrap();
    };
    put("127.0.0.1\n127.0.0.4\n", 0o600);
    let server = sandbox.serve(&["--allow-file", path.to_str().unwrap()]);
    let status = |source: &str| get_from(source, &server, "").status;
    let mut kept = Caller::new(connect_from("127.0.0.4", server.address()));
    assert_eq!((status("127.0.0.4"), kept.get("/token").status), (200, 200));
    put("127.0.0.1\n127.0.0.5\n", 0o600);
    eventually("polling notices the change", || status("127.0.0.5") == 200);
    assert_eq!(status("127.0.0.4"), 403);
    assert_eq!(kept.get("/token").json()["error"], "forbidden");
    put("0.0.0.0/0\n", 0o666);
    server.signal("HUP");
    put("0.0.0.0/0\nnonsense\n", 0o600);
    server.signal("HUP");
    fs::remove_file(&path).unwrap();
    server.signal("HUP");
    assert_eq!(status("127.0.0.4"), 403);
    put("127.0.0.1,127.0.0.6", 0o600);
    server.signal("HUP");
    eventually("the file is read again", || {
        assert_eq!((status("127.0.0.1"), status("127.0.0.4")), (200, 403));
        status("127.0.0.6") == 200
    });
}

#[test]
fn all_errors_of_an_allow_file_are_reported_at_once() {
    let sandbox = sandbox();
    let path = sandbox.path("allow");
    let file = path.to_str().unwrap();
    let serve = || sandbox.serve_refused(&["--allow-file", file]);
    write_with_mode(&path, &format!("10.0.0.0/8\n10.0.0.1/8, host # x\n\n{TOKEN}\n"), 0o600);
    let ran = serve().says(&[
        &format!("wxtoken: serve: allow file {file}: line 2: 10.0.0.1/8: Write 10.0.0.0/8 or 10.0.0.1: bits are set beyond the prefix; "),
        "line 2: host: Write an address",
        "; line 4: […]: Write an address",
    ]);
    assert!(!ran.stderr.contains(&TOKEN[..20]), "{}", ran.stderr);
    write_with_mode(&path, "10.0.0.0/8\n", 0o660);
    serve().says(&[
        &format!("allow file {file}: it can be written by others: mode 0660"),
        "Run chmod go-w",
    ]);
    fs::remove_file(&path).unwrap();
    serve().says(&[&format!("cannot read allow file {file} "), "[No such file"]);
}

#[test]
fn ten_thousand_networks_are_matched_correctly() {
    let sandbox = sandbox();
    let path = sandbox.path("allow");
    let mut text: String =
        (0..10_000).map(|n| format!("10.{}.{}.0/25\n", n / 256, n % 256)).collect();
    text.push_str("127.0.0.9\n");
    write_with_mode(&path, &text, 0o644);
    let file = path.to_str().unwrap();
    let server = sandbox.serve(&["--allow-file", file, "--trusted-proxy", "127.0.0.2"]);
    assert_eq!(outcome(&get_from("127.0.0.9", &server, "")), "ok");
    for (ip, expected) in [
        ("10.0.0.1", "ok"),
        ("10.0.0.128", "forbidden"),
        ("10.39.15.127", "ok"),
        ("10.39.16.1", "forbidden"),
    ] {
        let behind = format!("X-Forwarded-For: {ip}\r\n");
        assert_eq!(outcome(&get_from("127.0.0.2", &server, &behind)), expected, "{ip}");
    }
}
