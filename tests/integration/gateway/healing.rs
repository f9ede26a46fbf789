//! A dead token is replaced on the way, and the client never sees it.

use std::io::{Read, Write};

use serde_json::json;

use super::upstream::{DEAD, Honours, Reply, Upstream};
use crate::support::*;

#[test]
fn a_call_with_a_dead_token_succeeds_on_each_api() {
    for api in ["stable", "classic", "work"] {
        let wechat = WeChat::start();
        let honours = Honours::of(&wechat);
        // WeCom's word for it.
        let upstream = Upstream::new(&wechat, move |call| {
            Reply::Json(match honours.token(call.token()) {
                true => r#"{"errcode":0,"errmsg":"ok"}"#.to_owned(),
                false => r#"{"errcode":40014,"errmsg":"invalid access_token"}"#.to_owned(),
            })
        });
        let sandbox = Sandbox::with_base_url(&upstream.url()).on(api);
        let server = sandbox.serve_refreshing(&["--gateway"]);
        let post = |token: &str| {
            server.post(&format!("/cgi-bin/message/send?access_token={token}&x=1"), "{\"a\":1}")
        };
        server.get("/token");
        let dead = sandbox.token();
        assert_eq!(post(&dead).json()["errcode"], 0, "{api}");
        wechat.kill_tokens();
        let mints = wechat.mints();
        assert_eq!(post(&dead).json()["errcode"], 0, "{api}");
        assert_eq!(wechat.mints(), mints + 1, "{api}");
        let calls = upstream.calls();
        assert_eq!(calls.len(), 3, "{api}: one call, and one that was repeated");
        assert_eq!(calls[1].token(), dead, "{api}");
        assert_eq!(calls[2].token(), sandbox.token(), "{api}");
        assert!(calls.iter().all(|call| call.body == b"{\"a\":1}"), "{api}");
        // The dead token is replaced before the call is made from now on.
        assert_eq!(post(&dead).json()["errcode"], 0, "{api}");
        assert_eq!(upstream.calls().len(), 4, "{api}");
        assert_eq!(server.get("/cgi-bin/without/a/token").json()["errcode"], 0, "{api}");
        let log = server.stop();
        assert!(log.contains("WeChat honours token") && !log.contains(&dead), "{log}");
    }
}

#[test]
fn fifty_clients_at_once_with_a_dead_token_cost_one_mint_and_two_calls_each() {
    let wechat = WeChat::start();
    let upstream = Upstream::honest(&wechat);
    let sandbox = Sandbox::with_base_url(&upstream.url());
    let server = sandbox.serve_refreshing(&["--gateway"]);
    server.get("/token");
    let token = sandbox.token();
    wechat.kill_tokens();
    let (mints, probes) = (wechat.mints(), wechat.probes());
    let request = post_request(&format!("/cgi-bin/x?access_token={token}"), "{}");
    let mut streams: Vec<_> = (0..50).map(|_| connect(server.address())).collect();
    for stream in &mut streams {
        stream.write_all(request.as_bytes()).unwrap();
    }
    for mut stream in streams {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = Response::parse(&answer);
        assert_eq!(answer.json()["errcode"], 0, "{answer:?}");
    }
    assert_eq!((wechat.mints(), wechat.probes()), (mints + 1, probes + 1));
    assert!(upstream.calls().len() <= 100, "{}", upstream.calls().len());
}

/// A wrong kind of app gets 40014 with any token.
#[test]
fn a_path_that_refuses_good_tokens_causes_no_storm_of_probes_and_its_answer_passes() {
    let wechat = WeChat::start();
    let honours = Honours::of(&wechat);
    let upstream = Upstream::new(&wechat, move |call| {
        let is_refused = call.path() == "/cgi-bin/calendar/get" || !honours.token(call.token());
        Reply::Json(if is_refused { DEAD.to_owned() } else { "{}".to_owned() })
    });
    let sandbox = Sandbox::with_base_url(&upstream.url());
    let server = sandbox.serve_refreshing(&["--gateway"]);
    server.get("/token");
    let (token, mints, probes) = (sandbox.token(), wechat.mints(), wechat.probes());
    for _ in 0..50 {
        let answer = server.get(&format!("/cgi-bin/calendar/get?access_token={token}"));
        assert_eq!(answer.body, DEAD, "as it came");
    }
    assert_eq!(wechat.mints(), mints, "the token lives");
    assert!(wechat.probes() <= probes + 4, "{}", wechat.probes() - probes);
    assert_eq!(sandbox.token(), token);
    // Other paths heal all the same.
    wechat.kill_tokens();
    eventually("another path heals", || {
        server.get(&format!("/cgi-bin/x?access_token={token}")).body == "{}"
    });
}

#[test]
fn an_answer_that_only_looks_like_an_error_passes_untouched() {
    let large = format!(r#"{{"errcode":40001,"errmsg":"{}"}}"#, "x".repeat(5000));
    for body in [
        r#"{"news":{"errcode":40001}}"#.to_owned(),
        r#"[{"errcode":40001}]"#.to_owned(),
        r#"{"errcode":"40001"}"#.to_owned(),
        r#"{"errcode":40001"#.to_owned(),
        large,
    ] {
        let wechat = WeChat::start();
        let answer = body.clone();
        let upstream = Upstream::new(&wechat, move |_| Reply::Json(answer.clone()));
        let sandbox = Sandbox::with_base_url(&upstream.url());
        let server = sandbox.serve_refreshing(&["--gateway"]);
        assert_eq!(server.get("/cgi-bin/x").body, body);
        assert_eq!((upstream.calls().len(), wechat.probes()), (1, 0), "{body}");
    }
}

#[test]
fn an_error_is_found_in_a_chunked_answer_of_any_type() {
    let wechat = WeChat::start();
    let honours = Honours::of(&wechat);
    let upstream = Upstream::new(&wechat, move |call| {
        match honours.token(call.token()) {
        true => Reply::Large(10),
        false => Reply::Pieces(vec![
            b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n".to_vec(),
            format!("{:x}\r\n{}\r\n0\r\n\r\n", DEAD.len() - 1, &DEAD[1..]).into_bytes(),
        ]),
    }
    });
    let sandbox = Sandbox::with_base_url(&upstream.url());
    let server = sandbox.serve_refreshing(&["--gateway"]);
    assert_eq!(server.get("/cgi-bin/media/get").body, "xxxxxxxxxx");
    wechat.kill_tokens();
    assert_eq!(server.get("/cgi-bin/media/get").body, "xxxxxxxxxx");
}

/// WeCom says 40001 of a wrong secret only.
#[test]
fn on_wecom_40001_passes() {
    let wechat = WeChat::start();
    let upstream = Upstream::new(&wechat, |_| Reply::Json(DEAD.to_owned()));
    let sandbox = Sandbox::with_base_url(&upstream.url()).on("work");
    let server = sandbox.serve_refreshing(&["--gateway"]);
    assert_eq!(server.get("/cgi-bin/x").body, DEAD);
    assert_eq!((upstream.calls().len(), wechat.probes()), (1, 0));
}

#[test]
fn a_large_upload_with_a_dead_token_gets_an_error_that_no_sdk_repeats_and_the_next_one_is_well() {
    let wechat = WeChat::start();
    let upstream = Upstream::honest(&wechat);
    let sandbox = Sandbox::with_base_url(&upstream.url());
    let server = sandbox.serve_refreshing(&["--gateway"]);
    server.get("/token");
    wechat.kill_tokens();
    let body = "x".repeat(1024 * 1024 + 1);
    let refused = server.post("/cgi-bin/media/upload", &body);
    assert_eq!((refused.status, &refused.json()["errcode"]), (200, &json!(45011)));
    assert_eq!(server.post("/cgi-bin/media/upload", &body).json()["errcode"], 0);
    assert_eq!(upstream.calls().len(), 2);
    assert_eq!(wechat.mints(), 2);
    // One byte less is repeated.
    wechat.kill_tokens();
    eventually("a token may be replaced again", || {
        server.post("/cgi-bin/media/upload", &body[1..]).json()["errcode"] == 0
    });
}

/// Without `--refresh` there is no way to ask.
#[test]
fn a_server_that_does_not_refresh_says_so_and_passes_the_refusal_on() {
    let wechat = WeChat::start();
    let upstream = Upstream::honest(&wechat);
    let sandbox = Sandbox::with_base_url(&upstream.url());
    sandbox.run(&["fetch"]).exits(0);
    let url = upstream.url();
    let server = sandbox.serve(&["--gateway", "--base-url", &url]);
    assert_eq!(server.get("/cgi-bin/x").json()["errcode"], 0);
    let dead = sandbox.token();
    wechat.kill_tokens();
    assert_eq!(server.get("/cgi-bin/x").body, DEAD);
    // Another host replaces it.
    let mut fetch = sandbox.command(&["fetch", "--force"]);
    fetch.env("WXTOKEN_LANG", "en");
    Run::new(fetch).exits(0);
    assert_eq!(server.get(&format!("/cgi-bin/x?access_token={dead}")).json()["errcode"], 0);
    assert!(server.stop().contains("--gateway without --refresh"));
}

#[test]
fn a_replacement_goes_on_when_its_client_leaves() {
    let wechat = WeChat::start();
    let upstream = Upstream::honest(&wechat);
    let sandbox = Sandbox::with_base_url(&upstream.url());
    let server = sandbox.serve_refreshing(&["--gateway"]);
    server.get("/token");
    let (dead, asked) = (sandbox.token(), wechat.asked());
    wechat.kill_tokens();
    wechat.fault("token/slow:1");
    let mut stream = connect(server.address());
    stream.write_all(post_request("/cgi-bin/x", "{}").as_bytes()).unwrap();
    eventually("another token is asked for", || wechat.asked() > asked);
    drop(stream);
    eventually("the token is replaced", || sandbox.token() != dead);
}

#[test]
fn a_token_that_cannot_be_replaced_is_an_error_that_no_sdk_repeats() {
    let wechat = WeChat::start();
    let upstream = Upstream::honest(&wechat);
    let sandbox = Sandbox::with_base_url(&upstream.url());
    let server = sandbox.serve_refreshing(&["--gateway"]);
    server.get("/token");
    wechat.kill_tokens();
    wechat.fault("token/errcode:45009");
    let answer = server.get("/cgi-bin/x");
    assert_eq!((answer.status, &answer.json()["errcode"]), (200, &json!(45011)), "{answer:?}");
    let text = answer.body;
    assert!(text.contains("45009") && !text.contains("40001"), "{text}");
}

/// That WeChat honoured it a moment before says nothing about now.
#[test]
fn a_token_that_dies_right_after_a_probe_heals_with_the_first_call() {
    let wechat = WeChat::start();
    let upstream = Upstream::honest(&wechat);
    let sandbox = Sandbox::with_base_url(&upstream.url());
    let server = sandbox.serve_refreshing(&["--gateway"]);
    server.get("/token");
    let token = sandbox.token();
    let probes = wechat.probes();
    server.report_rejected(&token);
    assert_eq!(wechat.probes(), probes + 1, "WeChat honours it");
    wechat.kill_tokens();
    let answer = server.get(&format!("/cgi-bin/x?access_token={token}"));
    assert_eq!(answer.json()["errcode"], 0, "{answer:?}");
}
