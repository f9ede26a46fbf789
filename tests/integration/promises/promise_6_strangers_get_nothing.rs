//! Promise 6: a client that is not allowed gets 403 and learns nothing about accounts. An empty allowlist is an error. A forwarded
//! request is refused unless its proxy is trusted and names the client.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Instant;

use crate::files::{OTHER_USER, by_other_user, open_to_all};
use crate::support::*;

const TOKEN: &str = "T0KEN_that_no_other_client_may_see_0123456789abcdefghijklmnopqrstuvwxyz";

/// The Host of every request here.
const GET_TOKEN: &str = "GET /token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// A sandbox with a live token.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish(TOKEN, 7200, 0);
    sandbox
}

/// What a caller from `source` gets for `GET /token`.
#[track_caller]
fn asked_from(source: &str, server: &Server) -> Response {
    let at = match source.contains(':') {
        true => SocketAddr::new("::1".parse().unwrap(), server.address().port()),
        false => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), server.address().port()),
    };
    exchange_over(connect_from(source, at), GET_TOKEN.as_bytes())
}

/// A 200 with the token, or the 403 that says nothing.
#[track_caller]
fn is_allowed(response: &Response) -> bool {
    match response.status {
        200 => assert_eq!(response.json()["access_token"], TOKEN),
        403 => assert_eq!(response.json()["error"], "forbidden"),
        _ => panic!("{response:?}"),
    }
    response.status == 200
}

#[track_caller]
fn assert_says_nothing(text: &str) {
    for inside in [TOKEN, &TOKEN[..20], APPID, "default", "account", "access_token", "expires_in"] {
        assert!(!text.contains(inside), "{inside:?} is in:\n{text}");
    }
}

#[test]
fn an_address_is_answered_exactly_where_the_allowlist_holds_it() {
    let sandbox = sandbox();
    let everywhere = ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.1.2.3"];
    let matrix: &[(&[&str], &[&str])] = &[
        (&[], &everywhere),
        (&["127.0.0.2"], &["127.0.0.2"]),
        (&["127.0.0.2/32"], &["127.0.0.2"]),
        (&["127.0.0.2/31"], &["127.0.0.2", "127.0.0.3"]),
        (&["127.0.0.0/24"], &["127.0.0.1", "127.0.0.2", "127.0.0.3"]),
        (&["127.1.0.0/16", "127.0.0.3"], &["127.0.0.3", "127.1.2.3"]),
        (&["127.1.0.0/16,127.0.0.3"], &["127.0.0.3", "127.1.2.3"]),
        (&["::ffff:127.0.0.2"], &["127.0.0.2"]),
        (&["::ffff:127.1.0.0/112"], &["127.1.2.3"]),
        (&["0.0.0.0/0"], &everywhere),
        (&["10.0.0.0/8"], &[]),
        (&["::1"], &[]),
        (&["::/0"], &[]),
    ];
    for (allow, friends) in matrix {
        let args: Vec<&str> = allow.iter().flat_map(|entry| ["--allow", *entry]).collect();
        let server = sandbox.serve(&args);
        for source in everywhere {
            let response = asked_from(source, &server);
            assert_eq!(is_allowed(&response), friends.contains(&source), "{allow:?} {source}");
        }
    }
}

#[needs(ipv6)]
#[test]
fn behind_a_dual_stack_socket_an_ipv4_address_is_still_itself() {
    let sandbox = sandbox();
    let matrix: &[(&[&str], &[&str])] = &[
        (&[], &["127.0.0.1", "127.0.0.2", "::1"]),
        (&["127.0.0.2"], &["127.0.0.2"]),
        (&["::ffff:127.0.0.2"], &["127.0.0.2"]),
        (&["::ffff:127.0.0.0/104"], &["127.0.0.1", "127.0.0.2"]),
        (&["::ffff:0:0/96"], &["127.0.0.1", "127.0.0.2"]),
        (&["0.0.0.0/0"], &["127.0.0.1", "127.0.0.2"]),
        (&["::/0"], &["::1"]),
        (&["::1"], &["::1"]),
        (&["::1/128", "127.0.0.1"], &["127.0.0.1", "::1"]),
        (&["2001:db8::/32"], &[]),
    ];
    for (allow, friends) in matrix {
        let mut args = vec!["--listen", "[::]:0"];
        args.extend(allow.iter().flat_map(|entry| ["--allow", *entry]));
        let server = sandbox.serve(&args);
        for source in ["127.0.0.1", "127.0.0.2", "::1"] {
            let response = asked_from(source, &server);
            assert_eq!(is_allowed(&response), friends.contains(&source), "{allow:?} {source}");
        }
    }
}

#[needs(network)]
#[test]
fn without_allow_even_this_machine_is_a_stranger_by_its_outward_address() {
    let outward = outward_address();
    let sandbox = sandbox();
    let server = sandbox.serve(&["--listen", "0.0.0.0:0"]);
    let at = SocketAddr::new(outward.parse().unwrap(), server.address().port());
    assert!(!is_allowed(&exchange_over(connect_from(&outward, at), GET_TOKEN.as_bytes())));
    assert!(is_allowed(&asked_from("127.0.0.1", &server)));
}

#[test]
fn an_empty_allowlist_and_an_invalid_one_are_errors() {
    let sandbox = sandbox();
    sandbox.run(&["serve", "--listen", "127.0.0.1:0", "--allow", ""]).exits(2).says(&["--allow"]);
    let mut from_environment = sandbox.command(&["serve", "--listen", "127.0.0.1:0"]);
    from_environment.env("WXTOKEN_ALLOW", "127.0.0.2,,");
    Run::new(from_environment).exits(2).says(&["--allow"]);
    // All that is wrong, at once.
    sandbox
        .run(&[
            "serve",
            "--listen",
            "nowhere",
            "--allow",
            "10.0.0.1/8,10.0.0.0/8",
            "--allow",
            "10.0.0.0/33,example.com",
            "--allow",
            "*",
        ])
        .exits(2)
        .mentions(&[
            "nowhere: Write",
            "10.0.0.1/8: Write 10.0.0.0/8 or 10.0.0.1: bits are set beyond the prefix",
            "10.0.0.0/33: Write a prefix length",
            "example.com: Write an address",
            "*: Write an address",
        ]);
}

#[test]
fn a_list_in_the_environment_is_a_list() {
    let sandbox = sandbox();
    let mut command = sandbox.command(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("WXTOKEN_ALLOW", "127.0.0.2,127.1.0.0/16");
    let server = Server::start(command, 1);
    for (source, allowed) in [("127.0.0.2", true), ("127.1.9.9", true), ("127.0.0.1", false)] {
        assert_eq!(is_allowed(&asked_from(source, &server)), allowed, "{source}");
    }
}

/// What a stranger reads who sends `request`, all of it, and whether the connection was closed rather than broken.
#[track_caller]
fn strangers_answer(server: &Server, request: &[u8]) -> (String, bool) {
    let mut stream = connect_from("127.0.0.3", server.address());
    let sent = stream.write_all(request);
    let mut answer = Vec::new();
    let polite = sent.is_ok() && stream.read_to_end(&mut answer).is_ok();
    (String::from_utf8(answer).unwrap(), polite)
}

#[test]
fn a_stranger_is_refused_before_a_byte_is_parsed_whatever_it_sends() {
    let sandbox = sandbox();
    let server = sandbox.serve(&["--allow", "127.0.0.1"]);
    let (refusal, polite) = strangers_answer(&server, b"");
    let response = Response::parse(refusal.as_bytes());
    assert!(polite && !is_allowed(&response));
    assert_says_nothing(&refusal);
    assert!(response.head.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{refusal}");
    for (name, value) in [
        ("content-type", "application/json"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("connection", "close"),
        ("content-length", &response.body.len().to_string()),
    ] {
        assert_eq!(response.header(name), Some(value), "{refusal}");
    }
    for sends in [
        GET_TOKEN,
        "GET /token HTTP/1.1\r\nHost: loc",
        "GET /nowhere HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-For: 127.0.0.1\r\n\r\n",
        "DELETE /token/default HTTP/1.1\r\n\r\n",
        "HEAD /token HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}",
        "\0",
        "\r\n\r\n\r\n",
        &GET_TOKEN.repeat(100),
    ] {
        assert_eq!(
            strangers_answer(&server, sends.as_bytes()),
            (refusal.clone(), true),
            "{sends:?}"
        );
    }
    // It is the same 403 where there is nothing to hide.
    std::fs::remove_file(sandbox.document_path()).unwrap();
    assert_eq!(strangers_answer(&server, GET_TOKEN.as_bytes()), (refusal, true));
}

#[test]
fn a_stranger_who_sends_a_megabyte_first_still_reads_the_refusal() {
    let sandbox = sandbox();
    let server = sandbox.serve(&["--allow", "127.0.0.1"]);
    let mut request =
        b"POST /token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n".to_vec();
    request.resize(request.len() + 1_000_000, b'x');
    for _ in 0..20 {
        let (answer, polite) = strangers_answer(&server, &request);
        assert!(polite && answer.starts_with("HTTP/1.1 403 "), "{answer}");
    }
}

#[test]
fn a_refused_connection_does_not_stay_open_for_one_who_says_nothing_and_does_not_hang_up() {
    let sandbox = sandbox();
    let server = sandbox.serve(&["--allow", "127.0.0.1"]);
    let before = server.descriptors();
    let mut strangers: Vec<TcpStream> =
        (0..50).map(|_| connect_from("127.0.0.3", server.address())).collect();
    for stranger in &mut strangers {
        let mut refusal = Vec::new();
        stranger.read_to_end(&mut refusal).expect("a polite end");
    }
    eventually("all of them are cut off", || server.descriptors() == before);
    drop(strangers);
}

const FORWARDING: [&str; 17] = [
    "Forwarded",
    "Via",
    "X-Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Proto",
    "X-Forwarded-Server",
    "X-Real-IP",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "True-Client-IP",
    "CF-Connecting-IP",
    "Ali-CDN-Real-IP",
    "EO-Connecting-IP",
    "X-Original-Forwarded-For",
    "X-Forwarded-Of-The-Future",
];

#[test]
fn a_forwarded_request_is_refused_without_a_trusted_proxy() {
    let sandbox = sandbox();
    let socket = format!("unix:{}", sandbox.path("socket").display());
    let server = sandbox.serve(&[
        "--listen",
        "127.0.0.1:0",
        "--listen",
        "0.0.0.0:0",
        "--listen",
        &socket,
        "--allow",
        "127.0.0.0/8",
    ]);
    let anywhere: SocketAddr =
        server.addresses[1].replace("http://0.0.0.0", "127.0.0.1").parse().unwrap();
    for name in FORWARDING {
        for name in [name.to_owned(), name.to_lowercase(), name.to_uppercase()] {
            for value in ["127.0.0.1", "for=127.0.0.1", "1.1 proxy", ""] {
                for path in ["/token", "/healthz", "/readyz", "/nowhere"] {
                    let request = format!(
                        "GET {path} HTTP/1.1\r\nHost: localhost\r\n{name}: {value}\r\n\r\n"
                    );
                    let response = exchange(server.address(), request.as_bytes());
                    assert_eq!(response.status, 403, "{request} {response:?}");
                    assert_eq!(response.json()["error"], "forwarded", "{request}");
                    assert_eq!(response.header("connection"), Some("close"), "{request}");
                    assert_says_nothing(&format!("{}{}", response.head, response.body));
                }
            }
        }
        let request = format!("GET /token HTTP/1.1\r\nHost: localhost\r\n{name}: ::1\r\n\r\n");
        assert_eq!(exchange(anywhere, request.as_bytes()).status, 403, "{name}");
        let over_unix = exchange_over(connect_unix(&server.addresses[2]), request.as_bytes());
        assert_eq!(over_unix.status, 403, "{name}");
        // Before the Host and the path are looked at.
        let request = format!("GET /x HTTP/1.1\r\nHost: evil.example\r\n{name}: 127.0.0.1\r\n\r\n");
        assert_eq!(server.send(&request).json()["error"], "forwarded");
    }
}

#[test]
fn trust_in_one_proxy_is_no_trust_in_another_nor_in_one_that_does_not_say_for_whom() {
    let sandbox = sandbox();
    let server = sandbox.serve(&["--allow", "127.0.0.0/8", "--trusted-proxy", "127.0.0.2"]);
    for name in FORWARDING {
        for value in ["127.0.0.1", "for=127.0.0.1"] {
            let request = format!(
                "GET /token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{name}: {value}\r\n\r\n"
            );
            let ask = |source: &str| {
                exchange_over(connect_from(source, server.address()), request.as_bytes())
            };
            let response = ask("127.0.0.1");
            assert_eq!(response.status, 403, "{name} {response:?}");
            assert_eq!(response.json()["error"], "forwarded", "{name}");
            let says = matches!(
                (name, value),
                ("X-Forwarded-For", "127.0.0.1") | ("Forwarded", "for=127.0.0.1")
            );
            let response = ask("127.0.0.2");
            assert_eq!(response.status, if says { 200 } else { 403 }, "{name} {response:?}");
        }
    }
}

#[test]
fn a_refusal_does_not_depend_on_keys_or_proxies() {
    let sandbox = sandbox();
    let keys = sandbox.path("keys");
    write_with_mode(&keys, "# nobody\n", 0o600);
    let guarded = ["--keys", keys.to_str().unwrap(), "--trusted-proxy", "127.0.0.2,unix"];
    let ask = |args: &[&str], sends: &[u8]| {
        strangers_answer(&sandbox.serve(&[&["--allow", "127.0.0.1"], args].concat()), sends)
    };
    for sends in [
        GET_TOKEN,
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic K\r\nX-Forwarded-For: 127.0.0.1\r\n\r\n",
    ] {
        assert_eq!(ask(&[], sends.as_bytes()), ask(&guarded, sends.as_bytes()));
    }
}

#[test]
fn a_page_in_a_browser_cannot_request_from_a_loopback_listener_by_its_own_name() {
    let sandbox = sandbox();
    let server = sandbox.serve(&["--listen", "127.0.0.1:0", "--listen", "0.0.0.0:0"]);
    let ask = |at: SocketAddr, target: &str, host: &str| {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        exchange(at, request.as_bytes())
    };
    let here = server.address();
    for host in [
        "localhost",
        "LOCALHOST:1",
        "127.0.0.1",
        "127.0.0.1:7200",
        "[::1]",
        "[::1]:7200",
        "127.3.2.1",
    ] {
        assert_eq!(ask(here, "/token", host).status, 200, "{host}");
    }
    for host in [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "10.0.0.1",
        "",
        "[::2]",
        "127.1",
    ] {
        let response = ask(here, "/token", host);
        assert_eq!(
            (response.status, &response.json()["error"]),
            (421, &"misdirected".into()),
            "{host}"
        );
        assert_says_nothing(&response.head);
        assert!(!response.body.contains(TOKEN));
    }
    // Whichever of the two names it.
    assert_eq!(ask(here, "http://evil.example/token", "localhost").status, 421);
    assert_eq!(ask(here, "http://localhost/token", "evil.example").status, 421);
    assert_eq!(ask(here, "http://localhost/token", "localhost").status, 200);
    assert_eq!(ask(here, "http://127.0.0.1:7200/token", "localhost").status, 200);
    // What counts is the address that was connected to, and not the listener's.
    let port = server.addresses[1].rsplit_once(':').unwrap().1.parse().unwrap();
    let loopback = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    assert_eq!(ask(loopback, "/token", "central.example").status, 421);
}

#[needs(network)]
#[test]
fn at_an_address_for_other_hosts_any_name_will_do_until_one_is_given() {
    let sandbox = sandbox();
    for (flags, expected) in
        [(&[][..], [200, 200, 200]), (&["--server-name", "central.example"], [200, 421, 200])]
    {
        let listen = ["--listen", "0.0.0.0:0", "--allow", "0.0.0.0/0"];
        let server = sandbox.serve(&[&listen[..], flags].concat());
        let outward = SocketAddr::new(outward_address().parse().unwrap(), server.address().port());
        let statuses = ["central.example", "evil.example", "10.0.0.5"].map(|host| {
            let request =
                format!("GET /token HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            exchange(outward, request.as_bytes()).status
        });
        assert_eq!(statuses, expected, "{flags:?}");
    }
}

#[test]
fn where_every_address_gets_tokens_without_a_key_serve_says_so() {
    let sandbox = sandbox();
    write_with_mode(&sandbox.path("keys"), &format!("php {}\n", "0".repeat(64)), 0o600);
    let keys = sandbox.path("keys").display().to_string();
    let wide = ["--listen", "0.0.0.0:0", "--allow", "0.0.0.0/0"];
    for (flags, expected) in [
        (wide.to_vec(), true),
        (vec!["--listen", "[::]:0", "--allow", "::/0,10.0.0.1"], true),
        ([&wide[..], &["--keys", &keys]].concat(), false),
        (vec!["--listen", "0.0.0.0:0", "--allow", "10.0.0.0/8"], false),
        (vec!["--allow", "0.0.0.0/0"], false), // On loopback.
    ] {
        let stderr = sandbox.serve(&flags).stop();
        let said = stderr.contains("and hands tokens to every address without a key");
        assert_eq!(said, expected, "{flags:?}: {stderr}");
    }
}

#[test]
fn a_request_says_once_whom_it_is_meant_for() {
    let sandbox = sandbox();
    let server = sandbox.serve(&[]);
    for hosts in
        ["", "Host: localhost\r\nHost: localhost\r\n", "Host: localhost\r\nhost: evil.example\r\n"]
    {
        for target in ["/token", "http://localhost/token"] {
            let response = server.send(&format!("GET {target} HTTP/1.1\r\n{hosts}\r\n"));
            assert_eq!(response.status, 400, "{hosts:?} {target} {response:?}");
            assert_eq!(response.json()["error"], "bad_request");
            assert_says_nothing(&response.body);
        }
    }
    // HTTP/1.0 had no Host.
    assert_eq!(server.send("GET /token HTTP/1.0\r\n\r\n").status, 200);
}

#[test]
fn who_may_open_a_unix_socket_needs_no_address_and_no_name() {
    let sandbox = sandbox();
    let socket = format!("unix:{}", sandbox.path("socket").display());
    let server = sandbox.serve(&["--listen", &socket, "--allow", "10.0.0.0/8"]);
    for host in ["localhost", "wxtoken", ""] {
        let request = format!("GET /token HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let response = exchange_over(connect_unix(&server.addresses[0]), request.as_bytes());
        assert!(is_allowed(&response), "{host}");
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(sandbox.path("socket")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o660);
}

#[test]
fn a_thousand_refusals_are_a_few_lines_that_hold_nothing_of_what_was_asked() {
    let sandbox = sandbox();
    let server = sandbox.serve(&["--allow", "127.0.0.1"]);
    let started = Instant::now();
    for n in 0..1000 {
        let request =
            format!("GET /token?secret=K3Y{n} HTTP/1.1\r\nAuthorization: Bearer K3Y\r\n\r\n");
        match n % 3 {
            0 => assert_eq!(strangers_answer(&server, request.as_bytes()).0.find("403"), Some(9)),
            1 => {
                let forwarded = request.replace(
                    "\r\n\r\n",
                    "\r\nHost: K3Y\r\nVia: K3Y\r\nX-Forwarded-For: K3Y\r\n\r\n",
                );
                assert_eq!(server.send(&forwarded).status, 403);
            }
            _ => {
                let rebound = request
                    .replace("\r\n\r\n", "\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
                assert_eq!(server.send(&rebound).status, 421);
            }
        }
    }
    let stderr = server.stop();
    let expected = "wxtoken: serve: Add 127.0.0.3 to --allow, if it may ask: refused 127.0.0.3: not in --allow";
    assert!(stderr.starts_with(expected), "{stderr}");
    // For each reason one in ten seconds, and one at the end.
    let most = 3 * (started.elapsed().as_secs() as usize / 10 + 2);
    assert!(stderr.lines().count() <= most, "{most}: {stderr}");
    assert!(!stderr.contains("K3Y") && !stderr.contains(TOKEN), "{stderr}");
}

#[test]
fn no_log_holds_a_token_a_key_or_a_query_however_verbose() {
    let sandbox = sandbox();
    for verbose in ["-q", "-v", "-vv", "-vvv"] {
        let server = sandbox.serve(&[verbose]);
        let ask = |line: &str, headers: &str| {
            let request =
                format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
            server.send(&request).status
        };
        assert_eq!(ask("GET /token?secret=K3Y&appid=K3Y", "Authorization: Bearer K3Y\r\n"), 200);
        assert_eq!(ask("GET http://K3Y:K3Y@localhost/token?K3Y#K3Y", ""), 421);
        assert_eq!(
            ask("HEAD /token/default?K3Y", "Authorization: Basic K3Y\r\nCookie: K3Y\r\n"),
            200
        );
        assert_eq!(ask(&format!("GET /token/{TOKEN}"), ""), 404);
        assert_eq!(ask(&format!("GET /{TOKEN}/{TOKEN}?K3Y"), ""), 404);
        assert_eq!(ask("POST /token?K3Y", "Content-Length: 18\r\n\r\n{\"rejected\":\"K3Y\"}"), 405);
        assert_eq!(ask("GET /token?K3Y", "Referer: http://K3Y/\r\nVia: K3Y\r\n"), 403);
        assert_eq!(ask("K3Y /token K3Y", ""), 400);
        assert_eq!(ask("GET /token?K3Y", "K3Y\r\n"), 400);
        assert_eq!(ask("GET /token", &format!("K3Y: {}\r\n", "K3Y".repeat(50_000))), 431);
        // Nothing more of a document that is damaged or belongs to another account.
        std::fs::write(sandbox.document_path(), format!("{{\"access_token\":\"{TOKEN}\",\"K3Y"))
            .unwrap();
        assert_eq!(ask("GET /token?K3Y", ""), 200);
        sandbox.publish(TOKEN, 7200, 0);
        assert_eq!(ask("GET /token?K3Y", ""), 200);
        let (stdout, stderr) = server.stop_with_output();
        assert_eq!(stdout, "", "after the addresses it says nothing there");
        for hidden in ["K3Y", TOKEN, &TOKEN[..16], "Bearer", "access_token"] {
            assert!(!stderr.contains(hidden), "{verbose} {hidden:?}:\n{stderr}");
        }
        assert_eq!(stderr.is_empty(), verbose == "-q", "{verbose}:\n{stderr}");
    }
}

#[test]
fn a_refusal_does_not_wait_for_a_request() {
    let sandbox = sandbox();
    let server = sandbox.serve(&["--allow", "127.0.0.1"]);
    let mut stream = connect_from("127.0.0.3", server.address());
    // A connection on which no request arrives is closed without an answer.
    let mut byte = [0];
    stream.read_exact(&mut byte).expect("the refusal does not wait for a request");
}

/// Whatever a client without a right sends, no call of its is made.
#[test]
fn a_stranger_makes_no_call_through_the_gateway() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let friend = new_key(&["friend"]);
    write_with_mode(&sandbox.path("keys"), &friend.line, 0o644);
    let keys = sandbox.path("keys");
    let flags = ["--gateway", "--allow", "127.0.0.2", "--keys", keys.to_str().unwrap()];
    let server = sandbox.serve_refreshing(&flags);
    let ask = |source: &str, target: &str, headers: &str| {
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"
        );
        exchange_over(connect_from(source, server.address()), request.as_bytes())
    };
    let with_key = format!("Authorization: Bearer {}\r\n", friend.key);
    let call = "/cgi-bin/getcallbackip";
    let answer = ask("127.0.0.2", call, &with_key);
    assert!(answer.json()["ip_list"].is_array(), "{answer:?}");
    let token = sandbox.token();
    let calls = wechat.calls();
    let with_token = format!("{call}?access_token={token}");
    for (target, headers) in [
        (call, ""),
        (call, with_key.as_str()),
        (&with_token, ""),
        (&with_token, &with_key),
        ("/gateway/default/cgi-bin/getcallbackip", &with_key),
        ("/sns/userinfo?access_token=U", ""),
        ("/cgi-bin/none", ""),
    ] {
        // An address that is not allowed, and one that is, without a right.
        let answer = ask("127.0.0.1", target, headers);
        assert_eq!((answer.status, &answer.json()["error"]), (403, &"forbidden".into()));
        assert_eq!(answer.json()["errcode"], 40164, "{answer:?}");
        let stranger = format!("{}{}", answer.head, answer.body);
        for inside in [&token, &token[..20], APPID, "default"] {
            assert!(!stranger.contains(inside), "{inside:?} is in: {stranger}");
        }
        if !headers.contains("Bearer") && !target.contains(&token) {
            let answer = ask("127.0.0.2", target, headers);
            assert_eq!(answer.json()["errcode"], 40125, "{answer:?}");
            assert!(!answer.body.contains(APPID) && !answer.body.contains(&token), "{answer:?}");
        }
    }
    for key in ["wxk_wrong", ""] {
        let answer = ask("127.0.0.2", call, &format!("Authorization: Bearer {key}\r\n"));
        assert_eq!(answer.json()["errcode"], 40125, "{answer:?}");
    }
    assert_eq!(wechat.calls(), calls, "nothing has reached WeChat");
}

/// The config that is found without `-c` has the only rules there are: without it, account `default` would be anyone's on this
/// host.
#[needs(root)]
#[test]
fn promise_6_a_config_that_is_gone_or_closed_for_a_moment_opens_nothing() {
    let sandbox = sandbox();
    let program = open_to_all(&sandbox.path(""));
    let home = sandbox.path("home");
    let config = home.join(".config/wxtoken/wxtoken.toml");
    let dir = config.parent().unwrap();
    std::fs::create_dir_all(dir).unwrap();
    let friend = new_key(&["friend"]);
    write_with_mode(&home.join("keys"), &friend.line, 0o644);
    let state = sandbox.path("state");
    let rules = format!("dir = {state:?}\n[serve]\nkeys = {:?}\n", home.join("keys"));
    let account = format!("[account.default]\nappid = \"{APPID}\"\n");
    write_with_mode(&config, &format!("{rules}{account}"), 0o644);
    // Without the config, the document of account `default` would be found all the same.
    let chowned = std::process::Command::new("chown")
        .arg("-R")
        .arg(OTHER_USER.to_string())
        .args([&home, &state])
        .status();
    assert!(chowned.unwrap().success());
    let command = |words: &[&str]| {
        let mut command = wxtoken();
        command.args(words).env("HOME", &home).env("STATE_DIRECTORY", &state);
        command.env_remove("XDG_CONFIG_HOME");
        by_other_user(&program, &command)
    };
    let log = sandbox.path("log");
    let stderr = std::fs::File::create(&log).unwrap();
    let serve = command(&["serve", "-v", "--listen", "127.0.0.1:0"]);
    let server = Server::start_with_stderr(serve, 1, stderr);
    let said = |text: &str| std::fs::read_to_string(&log).unwrap().matches(text).count();
    let mode = |mode| {
        std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    let stays = "the last good accounts and access rules stay";
    assert_eq!(server.get("/token").status, 401);

    // Replaced in two steps.
    let aside = home.join("aside");
    std::fs::rename(&config, &aside).unwrap();
    eventually("the loss is told", || said(stays) == 1);
    assert_eq!(server.get("/token").status, 401);
    server.signal("HUP");
    eventually("it is told again", || said(stays) == 2);
    assert_eq!(server.get("/token").status, 401);

    // The one that comes back is followed.
    let name = "[account.other]\nappid = \"wxfedcba9876543210\"\n";
    write_with_mode(&aside, &format!("{rules}{account}{name}"), 0o644);
    std::fs::rename(&aside, &config).unwrap();
    eventually("the config is read again", || said("read accounts and access rules again") == 1);
    assert_eq!(server.get("/token").status, 401);

    // Closed to the server, and to all other verbs.
    mode(0o000);
    eventually("it is told", || said(stays) == 3);
    assert_eq!(server.get("/token").status, 401);
    for verb in ["get", "fetch", "status", "check", "serve"] {
        let ran = Run::new(command(&[verb])).exits(2);
        assert!(ran.stderr.contains("wxtoken.toml"), "{verb}: {}", ran.stderr);
        assert!(!ran.stdout.contains(TOKEN), "{verb}");
    }
    mode(0o755);
    eventually("it is read again", || said("read accounts and access rules again") == 2);
    assert_eq!(server.get("/token").status, 401);
}
