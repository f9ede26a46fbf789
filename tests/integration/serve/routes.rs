//! `wxtoken serve`: routes, headers, refusals, limits on requests, changes of the document, start and shutdown.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::*;

/// Returns a sandbox with a live token.
fn published(token: &str) -> Sandbox {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish(token, 7200, 0);
    sandbox
}

/// Asserts the headers that every answer has.
#[track_caller]
fn assert_has_common_headers(response: &Response) {
    for (name, value) in [
        ("content-type", "application/json"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(response.header(name), Some(value), "{response:?}");
    }
    assert!(response.header("content-length").is_some(), "{response:?}");
    assert_eq!(response.header("transfer-encoding"), None, "{response:?}");
}

/// Asserts a complete refusal with this status: a JSON object with `error` for programs and `message` for people.
#[track_caller]
fn assert_is_refusal(response: &Response, status: u16, error: &str) {
    assert_eq!(response.status, status, "{response:?}");
    assert_has_common_headers(response);
    assert_eq!(response.header("content-length").unwrap(), response.body.len().to_string());
    let body = response.json();
    assert_eq!(body["error"], error);
    assert!(body["message"].as_str().unwrap().len() > 10, "{body}");
    assert_eq!(body.as_object().unwrap().len(), 2, "{body}");
}

#[track_caller]
fn assert_has_token(response: &Response, token: &str) {
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.json()["access_token"], token);
}

#[test]
fn a_token_is_served_with_its_remaining_life_and_nothing_else() {
    let sandbox = published("T1");
    sandbox.publish("T1", 7200, 1000);
    let server = sandbox.serve(&[]);
    for path in ["/token", "/token/default", "/token?", "/token?grant_type=client_credential"] {
        let response = server.get(path);
        assert_has_token(&response, "T1");
        assert_has_common_headers(&response);
        assert_eq!(response.header("content-length").unwrap(), response.body.len().to_string());
        let body = response.json();
        let left = body["expires_in"].as_u64().unwrap();
        assert!((6100..=6200).contains(&left), "{body}");
        assert_eq!(body.as_object().unwrap().len(), 2, "{body}");
        assert_eq!(response.body, format!(r#"{{"access_token":"T1","expires_in":{left}}}"#));
    }
}

#[test]
fn healthz_is_200_while_the_process_runs_and_readyz_while_a_token_lives() {
    let sandbox = published("T1");
    let server = sandbox.serve(&[]);
    for path in ["/healthz", "/readyz"] {
        let response = server.get(path);
        assert_eq!(
            (response.status, response.body.as_str()),
            (200, r#"{"status":"ok"}"#),
            "{path}"
        );
        assert_has_common_headers(&response);
    }
    fs::remove_file(sandbox.document_path()).unwrap();
    assert_eq!(server.get("/healthz").status, 200);
    let response = server.get("/readyz");
    assert_is_refusal(&response, 503, "not_ready");
    assert!(response.json()["message"].as_str().unwrap().contains("default"), "{response:?}");
    let seconds: u64 = response.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds));
}

#[test]
fn probes_are_answered_at_once_while_wechat_hangs_and_cause_no_call() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    wechat.fault("hang");
    let server = sandbox.serve_refreshing(&[]);
    eventually("a call has begun", || wechat.asked() == 1);
    let asked_at = Instant::now();
    for _ in 0..20 {
        assert_eq!(server.get("/healthz").status, 200);
        assert_is_refusal(&server.get("/readyz"), 503, "not_ready");
    }
    // With a live token the account is ready although WeChat hangs.
    sandbox.publish("T1", 7200, 0);
    for _ in 0..20 {
        for path in ["/healthz", "/readyz", "/metrics", "/"] {
            assert_eq!(server.get(path).status, 200, "{path}");
        }
    }
    // If each request waited for WeChat, they would take many minutes.
    assert!(asked_at.elapsed() < PATIENCE, "{:?}", asked_at.elapsed());
    assert_eq!(wechat.asked(), 1);
}

#[test]
fn head_is_get_without_the_body() {
    let sandbox = published("T1");
    let server = sandbox.serve(&[]);
    let mut caller = server.caller();
    let headers = |response: &Response| {
        let without_date = |line: &&str| !line.starts_with("date:") && !line.starts_with("Date:");
        response.head.lines().filter(without_date).map(str::to_owned).collect::<Vec<_>>()
    };
    for (path, status) in
        [("/token", 200), ("/token/default", 200), ("/healthz", 200), ("/readyz", 200), ("/x", 404)]
    {
        // A body after the answer to HEAD would be taken for the next answer.
        loop {
            let get = caller.get(path);
            caller.send(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            let head = caller.answer_to_head();
            let again = caller.get(path);
            if get.body != again.body {
                continue; // A second has passed, and the remaining life differs.
            }
            assert_eq!((get.status, head.status), (status, status));
            assert_eq!(headers(&head), headers(&get), "{path}");
            break;
        }
    }
    fs::remove_file(sandbox.document_path()).unwrap();
    caller.send("HEAD /token HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head = caller.answer_to_head();
    assert_eq!(head.status, 503);
    assert!(head.header("retry-after").is_some());
}

#[test]
fn unknown_paths_and_accounts_are_404() {
    let sandbox = published("T1");
    let server = sandbox.serve(&[]);
    for path in [
        "/tokens",
        "/Token",
        "/healthz2",
        "/%74oken",
        "/token%2Fdefault",
        "/cgi-bin",
        "*",
        "/mock/calls",
    ] {
        assert_is_refusal(&server.get(path), 404, "not_found");
    }
    for path in [
        "/token/other",
        "/token/default/x",
        "/token/DEFAULT",
        "/token/../default",
        "/token/default%00",
    ] {
        assert_is_refusal(&server.get(path), 404, "no_such_account");
    }
}

#[test]
fn methods_other_than_get_and_head_are_405() {
    let sandbox = published("T1");
    let server = sandbox.serve(&[]);
    for path in ["/token", "/token/default", "/healthz", "/readyz"] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", "PROPFIND"] {
            let response = server.send(&format!(
                "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}"
            ));
            assert_is_refusal(&response, 405, "method_not_allowed");
            assert_eq!(response.header("allow"), Some("GET, HEAD"), "{method} {path}");
        }
    }
}

#[test]
fn a_rejected_token_posted_without_refresh_is_a_405_that_names_the_command_for_it() {
    let sandbox = published("T1");
    let server = sandbox.serve(&[]);
    let body = r#"{"rejected":"T1"}"#;
    let length = body.len();
    let response = server.send(&format!(
        "POST /token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    ));
    assert_is_refusal(&response, 405, "method_not_allowed");
    assert!(response.body.contains("wxtoken fetch --rejected -"), "{}", response.body);
}

#[test]
fn input_that_is_not_http_is_a_400_and_closes_the_connection() {
    let sandbox = published("T1");
    let server = sandbox.serve(&[]);
    for request in [
        "hello\r\n\r\n",
        "GET /token\r\n\r\n",
        "GET /token HTTP/9.9\r\nHost: localhost\r\n\r\n",
        "GET /token HTTP/1.1\r\nHost localhost\r\n\r\n",
        "GET /token HTTP/1.1\r\nHost: localhost\r\nX\u{1}: y\r\n\r\n",
        "GET /token HTTP/1.1\r\nHost: localhost\r\n folded: y\r\n\r\n",
        "GET /token HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        "GET /token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "GET /token HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        "GET /token HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunky\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}",
    ] {
        let response = server.send(request);
        assert_is_refusal(&response, 400, "bad_request");
        assert_eq!(response.header("connection"), Some("close"), "{request:?}");
    }
}

#[test]
fn a_valid_request_is_answered_before_the_invalid_one_behind_it() {
    let sandbox = published("T1");
    let server = sandbox.serve(&[]);
    for bad in ["garbage\r\n\r\n", "GET /x HTTP/1.1\r\nno colon\r\n\r\n", &"x".repeat(50_000)] {
        let mut caller = server.caller();
        caller.send(format!("GET /token HTTP/1.1\r\nHost: localhost\r\n\r\n{bad}"));
        assert_has_token(&caller.answer(), "T1");
        let refusal = caller.answer();
        let (status, error) =
            if bad.len() > 1000 { (431, "head_too_large") } else { (400, "bad_request") };
        assert_is_refusal(&refusal, status, error);
        assert!(caller.is_closed());
    }
}

#[test]
fn a_head_of_more_than_8_kib_is_431() {
    let sandbox = published("T1");
    let server = sandbox.serve(&[]);
    let head_of = |bytes: usize| {
        let start = "GET /token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Filler: ";
        format!("{start}{}\r\n\r\n", "x".repeat(bytes - start.len() - 4))
    };
    for bytes in [100, 2048, 2049, 4096, 8192] {
        assert_has_token(&server.send(&head_of(bytes)), "T1");
    }
    for bytes in [8193, 16 * 1024, 64 * 1024, 1_000_000] {
        let response = server.send(&head_of(bytes));
        assert_is_refusal(&response, 431, "head_too_large");
        assert_eq!(response.header("connection"), Some("close"));
    }
    // Many short header lines, one long line, and a line without an end.
    let many = "a: b\r\n".repeat(2000);
    let long = "x".repeat(20_000);
    for request in [
        format!("GET /token HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"),
        format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("GET /token?{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("GET /token HTTP/1.1\r\nHost: localhost\r\nX: {long}"),
    ] {
        assert_is_refusal(&server.send(&request), 431, "head_too_large");
    }
}

#[test]
fn a_body_of_more_than_16_kib_is_413_without_waiting_for_it() {
    let sandbox = published("T1");
    let server = sandbox.serve(&[]);
    let ask = |method: &str, stated: usize, sent: usize| {
        let head = format!(
            "{method} /token HTTP/1.1\r\nHost: localhost\r\nContent-Length: {stated}\r\n\r\n"
        );
        server.send(&(head + &"x".repeat(sent)))
    };
    assert_has_token(&ask("GET", 16 * 1024, 16 * 1024), "T1");
    assert_is_refusal(&ask("POST", 16 * 1024, 16 * 1024), 405, "method_not_allowed");
    for method in ["GET", "POST"] {
        for (stated, sent) in [(16 * 1024 + 1, 0), (1_000_000, 1_000_000), (usize::MAX >> 1, 100)] {
            let response = ask(method, stated, sent);
            assert_is_refusal(&response, 413, "body_too_large");
            assert_eq!(response.header("connection"), Some("close"));
        }
    }
}

#[test]
fn a_client_that_sends_a_megabyte_can_read_the_refusal() {
    let sandbox = published("T1");
    let server = sandbox.serve(&[]);
    let megabyte = "x".repeat(1_000_000);
    for (headers, status) in [
        (format!("Host: localhost\r\nContent-Length: 1000000\r\n\r\n{megabyte}"), 413),
        (format!("Host: localhost\r\nVia: x\r\nContent-Length: 1000000\r\n\r\n{megabyte}"), 403),
        (format!("Host: localhost\r\nCookie: {megabyte}\r\n\r\n"), 431),
        (format!("no colon\r\n\r\n{megabyte}"), 400),
    ] {
        for _ in 0..10 {
            let mut caller = server.caller();
            let request = format!("POST /token HTTP/1.1\r\n{headers}");
            let (beginning, rest) = request.split_at(20_000);
            caller.send(beginning);
            assert_eq!(caller.answer().status, status);
            // A client that sends everything before it reads still gets the answer.
            caller.send(rest);
            assert!(caller.is_closed(), "closed without a reset: {status}");
        }
    }
}

/// Prevents request smuggling past a reverse proxy.
#[test]
fn a_body_is_never_parsed_as_a_second_request() {
    let sandbox = published("T1");
    let server = sandbox.serve(&[]);
    let inner = "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let length = inner.len();
    for framing in [
        format!("Content-Length: {length}\r\n\r\n{inner}"),
        format!("Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{inner}\r\n0\r\n\r\n"),
        format!("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{inner}"),
    ] {
        let mut caller = server.caller();
        caller.send(format!("GET /token HTTP/1.1\r\nHost: localhost\r\n{framing}"));
        let response = caller.answer();
        assert_eq!(response.header("connection"), Some("close"), "{framing}");
        assert!(matches!(response.status, 200 | 400), "{response:?}");
        assert!(caller.is_closed(), "{framing}");
    }
}

#[test]
fn an_incomplete_request_is_408_after_ten_seconds_and_a_silent_connection_is_closed() {
    let sandbox = published("T1");
    let server = sandbox.serve(&[]);
    let begun_at = Instant::now();
    let (mut half, mut silent, mut kept) = (server.caller(), server.caller(), server.caller());
    half.send("GET /token HTTP/1.1\r\nHost: localhost\r\n");
    kept.send("GET /token HTTP/1.1\r\nHost: localhost\r\n\r\nGET /tok");
    assert_has_token(&kept.answer(), "T1");
    for late in [&mut half, &mut kept] {
        let response = late.answer();
        assert_is_refusal(&response, 408, "request_timeout");
        assert_eq!(response.header("connection"), Some("close"));
        let waited = begun_at.elapsed();
        assert!(waited > Duration::from_secs(9), "{waited:?}");
        assert!(late.is_closed());
    }
    assert!(silent.is_closed(), "without a request there is no answer");
}

#[test]
fn the_limit_on_the_arrival_of_a_request_does_not_include_the_call_to_wechat() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    eventually("a token", || server.get("/readyz").status == 200);
    wechat.fault("hang");
    let body = rejected(&sandbox.token());
    let mut caller = server.caller();
    let length = body.len();
    caller.send(format!(
        "POST /token HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
    ));
    // The delay is what the test is about.
    std::thread::sleep(Duration::from_secs(2));
    caller.send(body);
    let response = caller.answer();
    assert_is_refusal(&response, 503, "no_token");
    assert_eq!(response.header("connection"), None, "the connection is kept");
}

#[test]
fn a_pipelined_request_can_wait_for_wechat() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    eventually("a token", || server.get("/readyz").status == 200);
    let dead = sandbox.token();
    wechat.kill_tokens();
    wechat.fault("slow:1");
    let mut caller = server.caller();
    let second = post_request("/token", &rejected(&dead));
    caller.send(format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n{second}"));
    assert_eq!(caller.answer().status, 200);
    assert_has_token(&caller.answer(), &sandbox.token());
    assert_ne!(sandbox.token(), dead);
}

/// RFC 9110, 10.1.1. curl, .NET and others send the body after the 100.
#[test]
fn expect_100_continue_is_answered_with_100_or_the_refusal() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    eventually("a token", || server.get("/readyz").status == 200);
    let body = rejected("T0");
    let head = |path: &str, length: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let mut caller = server.caller();
    for _ in 0..2 {
        caller.send(head("/token", body.len()));
        assert_eq!(caller.answer_to_head().head.trim_end(), "HTTP/1.1 100 Continue");
        caller.send(&body);
        assert_has_token(&caller.answer(), &sandbox.token());
    }
    for (path, length, status) in [("/token", 16 * 1024 + 1, 413), ("/metrics", 2, 405)] {
        let mut caller = server.caller();
        caller.send(head(path, length));
        assert_eq!(caller.answer().status, status, "{path}");
    }
}

#[test]
fn without_a_live_token_the_answer_is_503_with_retry_after() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    let server = sandbox.serve(&[]);
    let assert_503 = |when: &str| {
        let response = server.get("/token");
        assert_is_refusal(&response, 503, "no_token");
        let seconds: u64 = response.header("retry-after").expect(when).parse().unwrap();
        assert!((1..=60).contains(&seconds), "{when}");
        assert_is_refusal(&server.get("/readyz"), 503, "not_ready");
        assert_eq!(server.get("/healthz").status, 200, "{when}");
    };
    assert_503("no directory");
    sandbox.publish("T1", 7200, 7200);
    assert_503("just expired");
    sandbox.publish("T1", 7200, 100_000);
    assert_503("expired long ago");
    fs::write(sandbox.document_path(), "{").unwrap();
    assert_503("no good document yet");
    let other =
        String::from_utf8(published("T1").document_bytes()).unwrap().replace(APPID, "wx_other");
    fs::write(sandbox.document_path(), other).unwrap();
    assert_503("another account's document");
    sandbox.publish("T1", 7200, 0);
    assert_has_token(&server.get("/token"), "T1");
    fs::remove_file(sandbox.document_path()).unwrap();
    assert_503("removed");
    fs::remove_dir_all(sandbox.path("state")).unwrap();
    assert_503("its directory removed");
}

#[test]
fn a_new_document_is_served_within_a_millisecond() {
    let sandbox = published("T0");
    let server = sandbox.serve(&[]);
    let mut caller = server.caller();
    for n in 1..=200 {
        // Of the same length as the one before, and possibly with the same mtime.
        let token = format!("T{n:03}");
        sandbox.publish(&token, 7200, 0);
        assert_has_token(&caller.get("/token"), &token);
        assert_has_token(&caller.get("/token/default"), &token);
    }
}

#[test]
fn a_token_that_expires_between_two_requests_is_not_served() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    let server = sandbox.serve(&[]);
    let mut caller = server.caller();
    sandbox.publish("T1", 2, 0);
    let published_at = Instant::now();
    let mut lives = Vec::new();
    eventually("the token runs out", || {
        let asked_at = published_at.elapsed();
        let response = caller.get("/token");
        if response.status == 200 {
            assert!(asked_at < Duration::from_secs(2), "200 after {asked_at:?}");
            lives.push(response.json()["expires_in"].as_u64().unwrap());
        } else {
            assert_is_refusal(&response, 503, "no_token");
            assert_is_refusal(&caller.get("/readyz"), 503, "not_ready");
        }
        response.status == 503
    });
    lives.dedup();
    assert!([2, 1].ends_with(&lives) || lives == [2], "it counts down and is never 0: {lives:?}");
}

#[test]
fn expires_in_counts_down_with_time() {
    let sandbox = published("T1");
    let server = sandbox.serve(&[]);
    let mut caller = server.caller();
    let life = |response: Response| response.json()["expires_in"].as_u64().unwrap();
    let first = life(caller.get("/token"));
    let mut lives = vec![first];
    eventually("two seconds pass", || {
        lives.push(life(caller.get("/token")));
        lives.last() <= Some(&(first - 2))
    });
    assert!(lives.is_sorted_by(|before, after| before >= after), "{lives:?}");
    assert!(lives.len() > 3, "it does not count requests: {lives:?}");
}

#[test]
fn with_a_damaged_document_the_last_good_token_is_served_and_the_damage_logged_once() {
    let sandbox = published("T1");
    let server = sandbox.serve(&[]);
    let mut caller = server.caller();
    assert_has_token(&caller.get("/token"), "T1");
    for damage in
        ["", "{", "null", r#"{"errcode":40164,"errmsg":"invalid ip"}"#, &" ".repeat(1 << 20)]
    {
        fs::write(sandbox.document_path(), damage).unwrap();
        for _ in 0..3 {
            assert_has_token(&caller.get("/token"), "T1");
        }
        assert_eq!(caller.get("/readyz").status, 200);
    }
    fs::remove_file(sandbox.document_path()).unwrap();
    fs::create_dir(sandbox.document_path()).unwrap();
    assert_eq!(caller.get("/token").status, 200);
    fs::remove_dir(sandbox.document_path()).unwrap();
    sandbox.publish("T2", 7200, 0);
    assert_has_token(&caller.get("/token"), "T2");
    let stderr = server.stop();
    assert_eq!(stderr.lines().count(), 6, "each damage once:\n{stderr}");
    assert!(stderr.lines().all(|line| line.contains("default.json")), "{stderr}");
}

#[test]
fn serve_without_refresh_starts_without_a_document_a_secret_or_wechat() {
    let wechat = TcpListener::bind("127.0.0.1:0").unwrap();
    wechat.set_nonblocking(true).unwrap();
    let sandbox = Sandbox::with_base_url("http://unused");
    let url = format!("http://{}", wechat.local_addr().unwrap());
    // Its mode would be refused if it were read.
    write_with_mode(&sandbox.path("secret"), SECRET, 0o644);
    for secret in ["secret", "missing", "."] {
        let secret = sandbox.path(secret).display().to_string();
        let server = sandbox.serve(&["--secret-file", &secret, "--base-url", &url]);
        assert_eq!(server.get("/token").status, 503);
        sandbox.publish("T1", 7200, 7000);
        assert_has_token(&server.get("/token"), "T1");
        assert_eq!(server.stop(), "");
        fs::remove_file(sandbox.document_path()).unwrap();
    }
    assert!(wechat.accept().is_err(), "no call to WeChat");
}

#[test]
fn connections_are_kept_open_and_pipelined_requests_answered_in_order() {
    let sandbox = published("T1");
    let server = sandbox.serve(&[]);
    let mut caller = server.caller();
    for _ in 0..100 {
        assert_has_token(&caller.get("/token"), "T1");
    }
    let paths = ["/token", "/healthz", "/nowhere", "/token/default"];
    let all: String = (0..100)
        .map(|n| format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", paths[n % 4]))
        .collect();
    caller.send(all);
    for n in 0..100 {
        let response = caller.answer();
        match n % 4 {
            0 | 3 => assert_has_token(&response, "T1"),
            1 => assert_eq!(response.body, r#"{"status":"ok"}"#),
            _ => assert_is_refusal(&response, 404, "not_found"),
        }
    }
    // Requests in two pieces, cut at each byte.
    let request = "HEAD /token HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(3);
    for cut in 1..request.len() {
        caller.send(&request[..cut]);
        caller.send(&request[cut..]);
        for _ in 0..3 {
            assert_eq!(caller.answer_to_head().status, 200);
        }
    }
}

#[test]
fn a_connection_is_closed_after_the_answer_if_the_client_asks_for_it() {
    let sandbox = published("T1");
    let server = sandbox.serve(&[]);
    for request in [
        "GET /token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "GET /token HTTP/1.0\r\nHost: localhost\r\n\r\n",
    ] {
        let mut caller = server.caller();
        caller.send(request);
        assert_has_token(&caller.answer(), "T1");
        assert!(caller.is_closed());
    }
    // A client that shuts down its sending side after the request, like `nc -N`, gets the answer.
    let stream = connect(server.address());
    (&stream).write_all(b"GET /token HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut caller = Caller::new(stream);
    assert_has_token(&caller.answer(), "T1");
    assert!(caller.is_closed());
}

#[test]
fn several_addresses_are_listened_on_and_each_is_printed() {
    let sandbox = published("T1");
    let socket = format!("unix:{}", sandbox.path("socket").display());
    let server = sandbox.serve(&[
        "--listen",
        "127.0.0.1:0",
        "--listen",
        "[::1]:0",
        "--listen",
        &socket,
        "--listen",
        "localhost:0",
    ]);
    let [v4, v6, unix, named] = &server.addresses[..] else { panic!("{:?}", server.addresses) };
    assert!(v4.starts_with("http://127.0.0.1:") && v6.starts_with("http://[::1]:"), "{v4} {v6}");
    assert!(named.starts_with("http://127.0.0.1:") && named != v4, "{named}");
    assert_eq!(*unix, socket);
    for url in [v4, v6, named] {
        let address: SocketAddr = url.strip_prefix("http://").unwrap().parse().unwrap();
        assert_ne!(address.port(), 0);
        assert_has_token(&Caller::new(connect(address)).get("/token"), "T1");
    }
    assert_has_token(&Caller::new(connect_unix(unix)).get("/token"), "T1");
    assert_eq!(server.stop(), "");
    assert!(!sandbox.path("socket").exists(), "its file is removed");
}

#[test]
fn serve_runs_although_stdout_is_closed() {
    let sandbox = published("T1");
    let listen = format!("unix:{}", sandbox.path("socket").display());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut server =
        sandbox.command(&["serve", "--listen", &listen]).stdout(writer).spawn().unwrap();
    eventually("a connection succeeds", || UnixStream::connect(sandbox.path("socket")).is_ok());
    let response = Caller::new(connect_unix(&listen)).get("/token");
    server.kill().unwrap();
    server.wait().unwrap();
    assert_has_token(&response, "T1");
}

#[test]
fn an_address_in_use_is_an_error_that_names_it_and_leaves_no_socket_file() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let sandbox = published("T1");
    let socket = format!("unix:{}", sandbox.path("socket").display());
    sandbox
        .run(&["serve", "--listen", "127.0.0.1:0", "--listen", &socket, "--listen", &taken])
        .exits(1)
        .says(&[&format!("cannot listen on http://{taken}"), "in use", "(pid "]);
    assert!(!sandbox.path("socket").exists());

    let server = sandbox.serve(&["--listen", &socket]);
    sandbox.run(&["serve", "--listen", &socket]).exits(1).says(&[&socket, "in use"]);
    assert_eq!(Caller::new(connect_unix(&server.addresses[0])).get("/token").status, 200);
    drop(server); // By SIGKILL: its socket file stays, and is replaced at the next start.
    assert!(sandbox.path("socket").exists());
    assert_eq!(sandbox.serve(&["--listen", &socket]).stop(), "");

    write_with_mode(&sandbox.path("precious"), "precious", 0o600);
    let precious = format!("unix:{}", sandbox.path("precious").display());
    sandbox.run(&["serve", "--listen", &precious]).exits(1).says(&[&precious, "not a socket"]);
    assert_eq!(fs::read(sandbox.path("precious")).unwrap(), b"precious");

    for bad in ["7200", "localhost", "example.com:80", "unix:", "127.0.0.1:65536", ""] {
        sandbox.run(&["serve", "--listen", bad]).exits(2).says(&["--listen", bad]);
    }
}

#[test]
fn at_the_connection_limit_the_longest_idle_connection_is_closed_for_a_new_one() {
    let sandbox = published("T1");
    let server = sandbox.serve(&["--max-connections", "3"]);
    let (mut first, mut second, mut third) = (server.caller(), server.caller(), server.caller());
    for caller in [&mut first, &mut second, &mut third] {
        assert_has_token(&caller.get("/token"), "T1");
    }
    assert_has_token(&first.get("/token"), "T1");
    let mut fourth = server.caller();
    assert_has_token(&fourth.get("/token"), "T1");
    assert!(second.is_closed(), "the longest idle one");
    for caller in [&mut first, &mut third, &mut fourth] {
        assert_has_token(&caller.get("/token"), "T1");
    }
    let stderr = server.stop();
    assert!(stderr.contains(" 3 ") && stderr.contains("--max-connections"), "{stderr}");
}

/// Sends a part of a request and waits until the server has read it.
#[track_caller]
fn begin_request(server: &Server) -> Caller<TcpStream> {
    let mut caller = server.caller();
    assert_has_token(&caller.get("/token"), "T1");
    caller.send("GET /token HTTP/1.1\r\nHost: localhost\r\n");
    // The server has one thread: when it has answered this, it has read that.
    assert_eq!(server.get("/healthz").status, 200);
    caller
}

#[test]
fn a_signal_closes_idle_connections_and_waits_for_a_pending_request() {
    for signal in ["TERM", "INT"] {
        let sandbox = published("T1");
        let socket = format!("unix:{}", sandbox.path("socket").display());
        let server = sandbox.serve(&["--listen", "127.0.0.1:0", "--listen", &socket]);
        let (mut idle, mut pending) = (server.caller(), begin_request(&server));
        assert_has_token(&idle.get("/token"), "T1");
        server.signal(signal);
        eventually("it stops listening", || TcpStream::connect(server.address()).is_err());
        eventually("its socket file is removed", || !sandbox.path("socket").exists());
        assert!(idle.is_closed(), "idle connections are not waited for");
        pending.send("\r\n");
        let response = pending.answer();
        assert_has_token(&response, "T1");
        assert_eq!(response.header("connection"), Some("close"));
        assert!(pending.is_closed());
        let (status, stderr) = server.end();
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    }
}

#[test]
fn an_unfinished_request_delays_shutdown_by_five_seconds_and_a_second_signal_ends_it_at_once() {
    let sandbox = published("T1");
    let [unfinished, finished, two_signals] = ["", "request", "signal"].map(|end| {
        let server = sandbox.serve(&[]);
        let mut pending = begin_request(&server);
        let signalled_at = Instant::now();
        server.signal("TERM");
        eventually("it stops listening", || TcpStream::connect(server.address()).is_err());
        match end {
            "request" => pending.send("\r\n"),
            "signal" => server.signal("INT"),
            _ => {}
        }
        assert_eq!(server.end().0.code(), Some(0));
        signalled_at.elapsed()
    });
    assert!(unfinished > Duration::from_millis(4500), "{unfinished:?}");
    assert!(finished < unfinished, "{finished:?}, and {unfinished:?} with an unfinished request");
    assert!(two_signals < unfinished, "{two_signals:?}, and {unfinished:?} with one signal");
}

#[test]
fn verbose_logs_a_line_per_request_and_without_it_nothing_is_logged() {
    let sandbox = published("T1");
    let ask = |server: &Server| {
        let mut caller = server.caller();
        for path in ["/token", "/token/default?x=y", "/readyz", "/nowhere"] {
            caller.get(path);
        }
        caller.send("HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        caller.answer_to_head();
        caller.send("nonsense\r\n\r\n");
        caller.answer();
    };
    let silent = sandbox.serve(&[]);
    ask(&silent);
    assert_eq!(silent.stop(), "");

    let server = sandbox.serve(&["-v"]);
    ask(&server);
    let stderr = server.stop();
    let lines: Vec<_> =
        stderr.lines().map(|line| line.rsplit_once("127.0.0.1").unwrap().0).collect();
    let expected = [
        "GET /token 200",
        "GET /token/default 200",
        "GET /readyz 200",
        "GET /nowhere 404",
        "HEAD /healthz 200",
        "(no request) 400",
    ]
    .map(|line| format!("wxtoken: serve: {line} "));
    assert_eq!(lines, expected, "{stderr}");
}

#[test]
fn sighup_does_not_end_serve() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 0);
    let server = sandbox.serve(&[]);
    server.signal("HUP");
    assert_eq!(server.get("/token").status, 200);
    assert_eq!(server.stop(), "");
}

/// Opening a pipe blocks until it has a writer.
#[test]
fn sighup_does_not_block_on_a_secret_that_is_a_pipe() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&["-v"]);
    eventually("a token", || server.get("/readyz").status == 200);
    fs::remove_file(sandbox.path("secret")).unwrap();
    let made = Command::new("mkfifo").args(["-m", "600"]).arg(sandbox.path("secret")).status();
    assert!(made.expect("mkfifo runs").success());
    server.signal("HUP");
    // The reload happens some time after the signal; the replaced token shows that it is over.
    wechat.kill_tokens();
    let response = server.report_rejected(&sandbox.token());
    assert_has_token(&response, &sandbox.token());
    let stderr = server.stop();
    assert!(
        stderr.contains("could be read again")
            && stderr.contains("; the last good AppSecret stays"),
        "{stderr}"
    );
}
