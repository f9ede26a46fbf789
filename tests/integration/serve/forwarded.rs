//! `serve --trusted-proxy`: whose request it is that a proxy passes on, through real sockets; and `--allow-file`.

use std::fs;

use crate::support::*;

const TOKEN: &str = "T0KEN_for_clients_behind_proxies_0123456789abcdefghijklmnopqrstuvwxyz";

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::asking("http://127.0.0.1:1");
    sandbox.publish(TOKEN, 7200, 0);
    sandbox
}

/// A request with these headers, each with its line's end.
fn request(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n")
}

/// What comes of a request: `ok`, or the word for programs.
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

/// What somebody at `source` gets for `GET /token` with these headers.
#[track_caller]
fn asked_from(source: &str, server: &Server, headers: &str) -> Response {
    let stream = connect_from(source, server.address());
    exchange_over(stream, request("/token", headers).as_bytes())
}

/// Clients are 10.1.0.0/16, 2001:db8::/32 and 127.0.0.9; the proxies .2, .3 and .4 are none.
const ALLOW: &str = "10.1.0.0/16,2001:db8::/32,127.0.0.9";
const PROXIES: &str = "127.0.0.2,127.0.0.3,::ffff:127.0.0.4";

#[test]
fn the_client_behind_a_trusted_proxy_is_let_in_by_its_own_address() {
    let sandbox = sandbox();
    let server = sandbox.serve(&["--allow", ALLOW, "--trusted-proxy", PROXIES]);
    for (source, headers, expected) in [
        // Without a proxy.
        ("127.0.0.9", "", "ok"),
        ("127.0.0.8", "", "forbidden"),
        // An untrusted one, whoever it speaks for.
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
        // What the client made up stands to the left of its own address.
        ("127.0.0.2", "X-Forwarded-For: 10.1.0.1, 10.2.0.1\r\n", "forbidden"),
        ("127.0.0.2", "X-Forwarded-For: 10.1.0.1, 10.2.0.1, 127.0.0.3\r\n", "forbidden"),
        ("127.0.0.2", "X-Forwarded-For: 10.1.0.1\r\nX-Forwarded-For: 10.2.0.1\r\n", "forbidden"),
        ("127.0.0.2", "X-Forwarded-For: unknown, 10.1.0.1\r\n", "ok"),
        ("127.0.0.2", "X-Forwarded-For: \u{e9},,\", 10.1.0.1\r\n", "ok"),
        ("127.0.0.2", "X-Real-IP: 127.0.0.9\r\nX-Forwarded-For: 10.2.0.1\r\n", "forbidden"),
        // All are proxies: the farthest asks, and is not allowed itself.
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
        let response = asked_from(source, &server, headers);
        assert_eq!(outcome(&response), expected, "{source} {headers:?} {response:?}");
    }
    // A header's name with a blank, or a fold, is no header.
    for headers in ["X-Forwarded-For : 10.1.0.1\r\n", "X-Forwarded-For:\r\n 10.1.0.1\r\n"] {
        assert_eq!(asked_from("127.0.0.2", &server, headers).status, 400, "{headers:?}");
    }
    let many = format!("X-Forwarded-For: {}10.1.0.1\r\n", "10.2.0.1,".repeat(800));
    assert_eq!(outcome(&asked_from("127.0.0.2", &server, &many)), "ok");
}

#[test]
fn whoever_is_refused_behind_a_proxy_reads_its_own_address() {
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
    let told = "wxtoken: serve: refused 203.0.113.9 through 127.0.0.2: not in --allow\n";
    assert!(stderr.starts_with(told), "{stderr}");
}

#[test]
fn the_operator_hears_of_what_an_sdk_behind_a_proxy_is_refused() {
    let sandbox = sandbox();
    let server = sandbox.serve(&["-v", "--allow", "127.0.0.0/8,10.1.0.0/16"]);
    let path = format!("/cgi-bin/token?grant_type=client_credential&appid={APPID}&secret=x");
    server.send(&request(&path, "X-Forwarded-For: 10.1.0.1\r\n"));
    let stderr = server.stop();
    assert!(stderr.contains("serve: refused 127.0.0.1: this request was forwarded"), "{stderr}");
}

#[test]
fn a_log_line_names_the_client_and_not_the_proxy() {
    let sandbox = sandbox();
    let server = sandbox.serve(&["-v", "--allow", ALLOW, "--trusted-proxy", PROXIES]);
    asked_from("127.0.0.2", &server, "X-Forwarded-For: 10.1.0.1\r\n");
    asked_from("127.0.0.9", &server, "");
    let stderr = server.stop();
    let lines: Vec<&str> = stderr.lines().collect();
    assert!(lines[0].starts_with("wxtoken: serve: GET /token 200 10.1.0.1 "), "{stderr}");
    assert!(lines[1].starts_with("wxtoken: serve: GET /token 200 127.0.0.9 "), "{stderr}");
}

#[test]
fn a_proxy_that_asks_for_itself_needs_to_be_allowed_itself() {
    let sandbox = sandbox();
    let args = ["--allow", "127.0.0.2,10.1.0.0/16", "--trusted-proxy", "127.0.0.2,127.0.0.3"];
    let server = sandbox.serve(&args);
    assert_eq!(outcome(&asked_from("127.0.0.2", &server, "")), "ok");
    assert_eq!(outcome(&asked_from("127.0.0.3", &server, "")), "forbidden");
    let behind = "X-Forwarded-For: 10.2.0.1\r\n";
    assert_eq!(outcome(&asked_from("127.0.0.2", &server, behind)), "forbidden");
    // All are proxies, and the farthest is allowed.
    let own = "X-Forwarded-For: 127.0.0.2\r\n";
    assert_eq!(outcome(&asked_from("127.0.0.3", &server, own)), "ok");
}

#[test]
fn the_host_is_asked_of_direct_callers_only() {
    let sandbox = sandbox();
    let server =
        sandbox.serve(&["--allow", "127.0.0.1,10.1.0.0/16", "--trusted-proxy", "127.0.0.1"]);
    let ask = |headers: &str| {
        let request = format!("GET /token HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
        outcome(&server.send(&request))
    };
    assert_eq!(ask("Host: token.example.com\r\nX-Forwarded-For: 10.1.0.1\r\n"), "ok");
    // Even if the client is the proxy's own host.
    assert_eq!(ask("Host: token.example.com\r\nX-Forwarded-For: 127.0.0.1\r\n"), "ok");
    assert_eq!(ask("Host: token.example.com\r\n"), "misdirected");
    assert_eq!(ask("Host: localhost\r\n"), "ok");
    assert_eq!(ask("X-Forwarded-For: 10.1.0.1\r\n"), "bad_request");
    assert_eq!(ask("Host: a\r\nHost: b\r\nX-Forwarded-For: 10.1.0.1\r\n"), "bad_request");
}

#[test]
fn a_proxy_may_come_over_the_unix_socket_if_that_is_said() {
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
    // A proxy that forgets to say for whom it asks must not let everybody in.
    assert_eq!(ask(&server, ""), "forwarded");
    drop(server);
    let server = sandbox.serve(&[&listen[..], &["--trusted-proxy", "127.0.0.2"]].concat());
    assert_eq!(ask(&server, ""), "ok");
    assert_eq!(ask(&server, "X-Forwarded-For: 10.1.0.1\r\n"), "forwarded");
}

#[test]
fn an_empty_list_of_proxies_is_nobodys_and_a_mistaken_one_starts_nothing() {
    let sandbox = sandbox();
    let serve = |proxies: &str| sandbox.serve_refused(&["--trusted-proxy", proxies]);
    serve("").says(&["--trusted-proxy: an empty entry: expected an address or a network"]);
    serve("127.0.0.1,*").says(&["--trusted-proxy: *: expected"]);
    serve("127.0.0.1/8").says(&["write 127.0.0.0/8 or 127.0.0.1"]);
    let mut command = sandbox.command(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("WXTOKEN_TRUSTED_PROXY", "127.0.0.1,unix").env("WXTOKEN_ALLOW", "10.1.0.1");
    let server = Server::start(command, 1);
    let through =
        |ip: &str| asked_from("127.0.0.1", &server, &format!("X-Forwarded-For: {ip}\r\n"));
    assert_eq!(outcome(&through("10.1.0.1")), "ok");
    assert_eq!(outcome(&through("10.1.0.2")), "forbidden");
}

#[test]
fn a_file_of_addresses_adds_to_allow_and_loopback_is_not_implied() {
    let sandbox = sandbox();
    let path = sandbox.path("allow");
    let file = path.to_str().unwrap();
    write_with_mode(&path, "# ours\r\n127.0.0.4, 127.0.0.5\t127.0.1.0/24\r\n", 0o644);
    let gets_in = |server: &Server, source: &str| asked_from(source, server, "").status == 200;
    let server = sandbox.serve(&["--allow-file", file]);
    for (source, expected) in [
        ("127.0.0.1", false),
        ("127.0.0.4", true),
        ("127.0.0.5", true),
        ("127.0.1.255", true),
        ("127.0.2.0", false),
    ] {
        assert_eq!(gets_in(&server, source), expected, "{source}");
    }
    drop(server);
    let server = sandbox.serve(&["--allow-file", file, "--allow", "127.0.0.1"]);
    assert!(gets_in(&server, "127.0.0.1") && gets_in(&server, "127.0.0.4"));
    assert!(!gets_in(&server, "127.0.0.3"));
    drop(server);
    write_with_mode(&path, "# nobody\n", 0o644);
    let server = sandbox.serve(&["--allow-file", file]);
    assert!(!gets_in(&server, "127.0.0.1"));
    let stderr = server.stop();
    let told = format!("wxtoken: serve: allow file {file} holds no address: nobody gets in\n");
    assert!(stderr.starts_with(&told), "{stderr}");
}

#[test]
fn a_change_of_the_file_counts_for_open_connections_too_and_a_broken_one_never() {
    let sandbox = sandbox();
    let path = sandbox.path("allow");
    let put = |text: &str, mode: u32| {
        let new = sandbox.path("allow.new");
        write_with_mode(&new, text, mode);
        fs::rename(new, &path).unwrap();
    };
    put("127.0.0.1\n127.0.0.4\n", 0o600);
    let server = sandbox.serve(&["--allow-file", path.to_str().unwrap()]);
    let status = |source: &str| asked_from(source, &server, "").status;
    let mut kept = Caller::over(connect_from("127.0.0.4", server.address()));
    assert_eq!((status("127.0.0.4"), kept.get("/token").status), (200, 200));
    put("127.0.0.1\n127.0.0.5\n", 0o600);
    eventually("it is read again by itself", || status("127.0.0.5") == 200);
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
    eventually("it is read again", || {
        assert_eq!((status("127.0.0.1"), status("127.0.0.4")), (200, 403));
        status("127.0.0.6") == 200
    });
}

#[test]
fn all_that_is_wrong_with_the_file_is_told_at_once() {
    let sandbox = sandbox();
    let path = sandbox.path("allow");
    let file = path.to_str().unwrap();
    let serve = || sandbox.serve_refused(&["--allow-file", file]);
    write_with_mode(&path, &format!("10.0.0.0/8\n10.0.0.1/8, host # x\n\n{TOKEN}\n"), 0o600);
    let ran = serve().says(&[
        &format!("wxtoken: serve: allow file {file}: line 2: 10.0.0.1/8: bits are set beyond the prefix, "),
        "; line 2: host: expected an address",
        "; line 4: […]: expected an address",
    ]);
    assert!(!ran.stderr.contains(&TOKEN[..20]), "{}", ran.stderr);
    write_with_mode(&path, "10.0.0.0/8\n", 0o660);
    serve()
        .says(&[&format!("allow file {file} can be written by others: mode 0660; run chmod go-w")]);
    fs::remove_file(&path).unwrap();
    serve().says(&[&format!("cannot read allow file {file}: No such file")]);
}

#[test]
fn ten_thousand_networks_are_as_good_as_ten() {
    let sandbox = sandbox();
    let path = sandbox.path("allow");
    let mut text: String =
        (0..10_000).map(|n| format!("10.{}.{}.0/25\n", n / 256, n % 256)).collect();
    text.push_str("127.0.0.9\n");
    write_with_mode(&path, &text, 0o644);
    let file = path.to_str().unwrap();
    let server = sandbox.serve(&["--allow-file", file, "--trusted-proxy", "127.0.0.2"]);
    assert_eq!(outcome(&asked_from("127.0.0.9", &server, "")), "ok");
    for (ip, expected) in [
        ("10.0.0.1", "ok"),
        ("10.0.0.128", "forbidden"),
        ("10.39.15.127", "ok"),
        ("10.39.16.1", "forbidden"),
    ] {
        let behind = format!("X-Forwarded-For: {ip}\r\n");
        assert_eq!(outcome(&asked_from("127.0.0.2", &server, &behind)), expected, "{ip}");
    }
}
