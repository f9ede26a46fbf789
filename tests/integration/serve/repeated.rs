//! Requests that come again byte by byte, which `wxtoken serve` answers without parsing them: answers stay the same and current.

use std::fs;

use crate::support::home::Home;
use crate::support::*;

const GET_TOKEN: &str = "GET /token HTTP/1.1\r\nHost: localhost\r\n\r\n";
const GET_HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn published(token: &str) -> Sandbox {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish(token, 7200, 0);
    sandbox
}

#[track_caller]
fn assert_has_token(response: &Response, token: &str) {
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.json()["access_token"], token);
}

/// Sends a request on a connection of its own.
#[track_caller]
fn ask_once(server: &Server, request: &str) -> Response {
    let mut caller = server.caller();
    caller.send(request);
    caller.answer()
}

/// Returns the head of an answer without the time.
fn head(response: &Response) -> Vec<&str> {
    response.head.lines().filter(|line| !line.starts_with("date: ")).collect()
}

#[test]
fn a_request_that_comes_again_has_the_same_head_in_its_answer_and_the_token_of_now() {
    let sandbox = published("T1");
    let server = sandbox.serve(&[]);
    for last in ["", "Connection: close\r\n"] {
        let request = format!("GET /token HTTP/1.1\r\nHost: localhost\r\n{last}\r\n");
        let first = ask_once(&server, &request);
        assert_has_token(&first, "T1");
        assert!(first.header("date").is_some_and(|date| date.ends_with(" GMT")), "{first:?}");
        let mut caller = server.caller();
        for _ in 0..5 {
            if !last.is_empty() {
                caller = server.caller();
            }
            caller.send(&request);
            let answer = caller.answer();
            assert_eq!(head(&answer), head(&first));
            assert!(answer.header("date").is_some_and(|date| date.len() == 29), "{answer:?}");
            assert_has_token(&answer, "T1");
            assert!(last.is_empty() || caller.is_closed());
        }
    }
    let mut caller = server.caller();
    assert_has_token(&caller.get("/token"), "T1");
    assert_has_token(&caller.get("/token"), "T1");
    sandbox.publish("T2", 7200, 0);
    outlast_look();
    assert_has_token(&caller.get("/token"), "T2");
    fs::remove_file(sandbox.document_path()).unwrap();
    eventually("it is gone", || {
        let answer = caller.get("/token");
        match answer.status {
            503 => {
                assert!(answer.header("retry-after").is_some(), "{answer:?}");
                assert_eq!(answer.json()["error"], "no_token");
                true
            }
            _ => false,
        }
    });
    assert_eq!(caller.get("/healthz").status, 200);
}

#[test]
fn a_key_that_is_withdrawn_is_refused_also_for_a_request_that_comes_again() {
    let (key, other) = (new_key(&["php"]), new_key(&["java"]));
    let home = Home::new("[account.shop]\nappid = 'wx1'\n[serve]\nkeys = 'keys'\n");
    home.publish("shop", "wx1", "T1", 0);
    let put = |lines: &str| {
        write_with_mode(&home.path("keys.new"), lines, 0o644);
        fs::rename(home.path("keys.new"), home.path("keys")).unwrap();
    };
    put(&format!("{}\n{}\n", key.line, other.line));
    let server = home.serve(&[]);
    let request = format!(
        "GET /token HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
        key.key
    );
    let mut caller = server.caller();
    let mut status = || {
        caller.send(&request);
        caller.answer().status
    };
    for _ in 0..3 {
        assert_eq!(status(), 200);
        assert_eq!(ask_once(&server, GET_TOKEN).status, 401, "another connection, without the key");
    }
    put(&format!("{}\n", other.line));
    eventually("the key is refused", || status() == 401);
}

#[test]
fn a_request_is_parsed_that_comes_in_pieces_with_another_or_changed() {
    let sandbox = published("T1");
    let server = sandbox.serve(&[]);
    let mut caller = server.caller();
    for cut in 1..GET_TOKEN.len() {
        for _ in 0..2 {
            assert_has_token(&caller.get("/token"), "T1");
        }
        caller.send(&GET_TOKEN[..cut]);
        caller.send(&GET_TOKEN[cut..]);
        assert_has_token(&caller.answer(), "T1");
        caller.send(format!("{GET_TOKEN}{GET_HEALTH}{GET_TOKEN}"));
        assert_has_token(&caller.answer(), "T1");
        assert_eq!(caller.answer().body, r#"{"status":"ok"}"#);
        assert_has_token(&caller.answer(), "T1");
        if cut % 8 == 0 {
            caller = server.caller();
        }
    }
    caller.send(GET_TOKEN.replace("GET", "HEAD"));
    assert_eq!(caller.answer_to_head().status, 200);
    caller.send(GET_TOKEN.replace("localhost", "elsewhere"));
    assert_eq!(caller.answer().status, 421);
    assert_has_token(&caller.get("/token"), "T1");
}

#[test]
fn the_end_of_one_request_is_not_taken_for_the_request_of_another_connection() {
    let sandbox = published("T1");
    let server = sandbox.serve(&[]);
    let mut observer = server.caller();
    for _ in 0..3 {
        let mut caller = server.caller();
        caller.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ");
        assert_eq!(observer.get("/readyz").status, 200); // By one thread, after what was sent before.
        caller.send("GET /token HTTP/1.1\r\nHost: localhost\r\n\r\n".replacen("Host", "Y", 1));
        assert_eq!(caller.answer().body, r#"{"status":"ok"}"#);
        let answer = ask_once(&server, "GET /token HTTP/1.1\r\nY: localhost\r\n\r\n");
        assert_eq!(answer.status, 400, "it has no Host: {answer:?}");
    }
}
