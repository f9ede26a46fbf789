//! Malformed and ambiguous framings: WeChat receives each call once, as the gateway understood it, or not at all.

use super::upstream::{Reply, Upstream};
use crate::support::*;

/// A request that would be a second call if a body were understood in another way.
const HIDDEN: &str = "GET /cgi-bin/hidden HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// Sends these bytes. Returns the status of the first answer, and each call that WeChat received: path and body.
#[track_caller]
fn send(bytes: &str) -> (u16, Vec<(String, String)>) {
    let wechat = WeChat::start();
    let upstream = Upstream::new(&wechat, |_| Reply::Json("{}".to_owned()));
    let sandbox = Sandbox::with_base_url(&upstream.url());
    let server = sandbox.serve_refreshing(&["--gateway"]);
    server.get("/token");
    let mut caller = server.caller();
    let _ = caller.try_send(bytes);
    let status = caller.answer_to_head().status;
    // Before that it would be a client that leaves.
    let _ = caller.stream().shutdown(std::net::Shutdown::Write);
    caller.read_all(&mut Vec::new());
    let calls = upstream.calls();
    for call in &calls {
        let names: Vec<_> = call.head.lines().skip(1).collect();
        let count = |name: &str| names.iter().filter(|it| it.starts_with(name)).count();
        assert!(count("content-length:") <= 1, "{bytes:?}: {}", call.head);
        assert_eq!(count("transfer-encoding:"), 0, "{bytes:?}: {}", call.head);
        assert_eq!(count("host:"), 1, "{bytes:?}: {}", call.head);
        assert!(names.iter().all(|line| !line.starts_with([' ', '\t'])), "{}", call.head);
    }
    let seen = |call: &super::upstream::Call| {
        (call.path().to_owned(), String::from_utf8_lossy(&call.body).into_owned())
    };
    (status, calls.iter().map(seen).collect())
}

/// Returns a POST with these headers and this body, as they are.
fn post(headers: &str, body: &str) -> String {
    format!("POST /cgi-bin/a HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n{body}")
}

#[test]
fn an_ambiguous_length_hides_no_second_call() {
    let one = |body: &str| vec![("/cgi-bin/a".to_owned(), body.to_owned())];
    for (request, expected) in [
        // The chunks count, and the connection ends.
        (
            post("Content-Length: 4\r\nTransfer-Encoding: chunked", &format!("0\r\n\r\n{HIDDEN}")),
            one(""),
        ),
        (
            post("Transfer-Encoding: chunked\r\nContent-Length: 6", &format!("0\r\n\r\n{HIDDEN}")),
            one(""),
        ),
        (post("Content-Length: 3\r\nContent-Length: 3", "abc"), one("abc")),
        // Trailers say nothing of the framing.
        (
            post("Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\nContent-Length: 99\r\n\r\n"),
            one("abc"),
        ),
        // Names of hop-by-hop headers take nothing away that belongs to the call.
        (post("Connection: Content-Length, Host\r\nContent-Length: 3", "abc"), one("abc")),
        (post("X: a\r\nContent-Length: 0003", "abc"), one("abc")),
        // Lines that end with LF alone are understood, and go out well-formed.
        (post("Connection: close\r\nContent-Length: 3", "abc").replace("\r\n", "\n"), one("abc")),
    ] {
        let (status, calls) = send(&request);
        assert_eq!((status, calls), (200, expected), "{request:?}");
    }
}

#[test]
fn a_malformed_request_reaches_wechat_not_at_all() {
    let chunked = "Transfer-Encoding: chunked";
    for request in [
        post("Content-Length: 3\r\nContent-Length: 4", "abcd"),
        post("Content-Length: 3, 4", "abcd"),
        post("Content-Length: +3", "abc"),
        post("Content-Length: 0x3", "abc"),
        post("Content-Length: -1", ""),
        post("Content-Length: 99999999999999999999", "abc"),
        post("Content-Length : 3", "abc"),
        post("Transfer-Encoding : chunked", &format!("0\r\n\r\n{HIDDEN}")),
        post("X: a\r\n Content-Length: 3", "abc"),
        post("Transfer-Encoding: gzip, chunked", &format!("0\r\n\r\n{HIDDEN}")),
        post("Transfer-Encoding: chunked, identity", &format!("0\r\n\r\n{HIDDEN}")),
        post("Transfer-Encoding: identity", HIDDEN),
        post("Transfer-Encoding: xchunked", &format!("0\r\n\r\n{HIDDEN}")),
        post(
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
            &format!("0\r\n\r\n{HIDDEN}"),
        ),
        post("Transfer-Encoding:\u{b}chunked", &format!("0\r\n\r\n{HIDDEN}")),
        post(chunked, "0x3\r\nabc\r\n0\r\n\r\n"),
        post(chunked, "-3\r\nabc\r\n0\r\n\r\n"),
        post(chunked, "fffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
        post(chunked, "3\r\nabcd\r\n0\r\n\r\n"),
        post("X: a\rContent-Length: 3", "abc"),
        post("X\0: a", ""),
        post(": a", ""),
        "GET /cgi-bin/a?x=1 y HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "GET  /cgi-bin/a HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "GET /cgi-bin/a HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n".to_owned(),
        "GET /cgi-bin/a HTTP/1.1\r\n\r\n".to_owned(),
        "GET /cgi-bin/a HTTP/3.0\r\nHost: localhost\r\n\r\n".to_owned(),
        "GET /cgi-bin/a\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "GET * HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
    ] {
        let (status, calls) = send(&request);
        assert_eq!(calls, [], "{request:?}");
        assert_ne!(status, 500, "{request:?}");
    }
}

#[test]
fn an_encoded_line_end_stays_encoded_or_is_refused() {
    let (_, calls) = send("GET /cgi-bin/a%0d%0aX:%20y HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(calls, []);
    let wechat = WeChat::start();
    let upstream = Upstream::new(&wechat, |_| Reply::Json("{}".to_owned()));
    let sandbox = Sandbox::with_base_url(&upstream.url());
    let server = sandbox.serve_refreshing(&["--gateway"]);
    assert_eq!(server.get("/cgi-bin/a?x=%0d%0aX:%20y&access_token=").body, "{}");
    let call = upstream.calls().pop().unwrap();
    assert!(call.target().starts_with("/cgi-bin/a?x=%0d%0aX:%20y&access_token="), "{}", call.head);
}

/// What follows an answer belongs to no call.
#[test]
fn bytes_after_an_answer_are_no_answer_to_the_next_call() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 50\r\n\r\n2\r\n{}\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON",
        "HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\nPOISON",
        "HTTP/1.1 304 Not Modified\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON",
    ] {
        let wechat = WeChat::start();
        let upstream = Upstream::new(&wechat, move |call| match call.path() {
            "/cgi-bin/first" => Reply::Bytes(answer.as_bytes().to_vec()),
            _ => Reply::Json(r#"{"own":1}"#.to_owned()),
        });
        let sandbox = Sandbox::with_base_url(&upstream.url());
        let server = sandbox.serve_refreshing(&["--gateway"]);
        server.get("/token");
        for _ in 0..5 {
            let first = server.get("/cgi-bin/first");
            assert!(!first.body.contains("POISON"), "{answer:?}: {first:?}");
            // The rest arrives with the answer, or a moment later, when the connection is idle.
            eventually("its connection is given up, or the next call is its own", || {
                let next = server.get("/cgi-bin/next");
                assert!(!next.body.contains("POISON"), "{answer:?}: {next:?}");
                next.body == r#"{"own":1}"#
            });
        }
    }
}

#[test]
fn an_answer_with_two_lengths_reaches_the_client_with_the_one_that_counts() {
    let large = "x".repeat(5000);
    for body in ["{}", &large] {
        for length in [1, 50, 6000] {
            let wechat = WeChat::start();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: {length}\r\n\r\n\
                 {:x}\r\n{body}\r\n0\r\n\r\n",
                body.len()
            );
            let upstream = Upstream::new(&wechat, move |call| match call.path() {
                "/cgi-bin/first" => Reply::Bytes(answer.as_bytes().to_vec()),
                _ => Reply::Json(r#"{"own":1}"#.to_owned()),
            });
            let sandbox = Sandbox::with_base_url(&upstream.url());
            let server = sandbox.serve_refreshing(&["--gateway"]);
            let mut caller = server.caller();
            let call = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n");
            caller.send(format!("{}\r\n", call("/cgi-bin/first")));
            caller.send(format!("{}Connection: close\r\n\r\n", call("/cgi-bin/next")));
            let mut answers = Vec::new();
            caller.read_all(&mut answers);
            let answers = String::from_utf8(answers).unwrap();
            assert!(!answers.contains(&format!("content-length: {length}\r\n")), "{answers}");
            // In chunks of any size.
            let is_data = |line: &&str| usize::from_str_radix(line, 16).is_err();
            let data: String = answers.lines().filter(is_data).collect();
            assert!(data.contains(body) && data.ends_with(r#"{"own":1}"#), "{answers}");
        }
    }
}
