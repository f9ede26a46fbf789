//! Promise 4: a token works for as long as its `expires_in` says. `promise_4_…` in src/refresh/tests.rs tests it for each second
//! of many tokens, in virtual time.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::support::proxy::HoldingProxy;
use crate::support::*;

fn expires_in(ran: Run) -> i64 {
    ran.exits(0).json()["expires_in"].as_i64().unwrap()
}

#[test]
fn time_is_counted_from_before_the_request() {
    let wechat = WeChat::start();
    let proxy = HoldingProxy::new(wechat.address());
    proxy.hold();
    let sandbox = Sandbox::with_base_url(&proxy.url());
    let mut fetch = sandbox.command(&["fetch"]).spawn().unwrap();
    eventually("the call has begun", || wechat.asked() > 0);
    let called_at = time::UtcDateTime::now();
    proxy.release();
    assert!(fetch.wait().unwrap().success());
    let created_at = sandbox.document()["created_at"].as_str().unwrap().to_owned();
    assert!(parse_rfc3339(&created_at).unwrap() <= called_at, "{created_at}");
    assert!(created_at.ends_with('Z'));
}

#[test]
fn what_is_handed_out_is_what_is_left() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 7000);
    let left = expires_in(sandbox.run(&["get"]));
    assert!((100..=200).contains(&left), "{left}");
}

#[test]
fn a_token_with_nothing_left_is_no_token() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 7200);
    for args in [&["get"][..], &["get", "-r"], &["get", "--min-life", "0"]] {
        sandbox.run(args).exits(3).says(&["expired", "wxtoken fetch"]);
    }
    sandbox.run(&["status"]).exits(3);
}

#[test]
fn min_life_is_what_the_caller_needs() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 6600);
    sandbox.run(&["get", "--min-life", "9m"]).exits(0);
    sandbox.run(&["get", "--min-life", "601"]).exits(3).says(&[
        "less than --min-life 10m 1s",
        "Ask for less",
        "not due",
    ]);
    sandbox.run(&["status", "-q", "--min-life", "9m"]).exits(0);
    sandbox.run(&["status", "-q", "--min-life", "601"]).exits(3);
}

#[test]
fn a_classic_token_that_may_be_replaced_early_is_promised_for_the_overlap_only() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1").on("classic");
    sandbox.publish("T1", 7200, 1200);
    let promised = |margin| expires_in(sandbox.run(&["get", "--refresh-before", margin]));
    assert!((5900..=6000).contains(&promised("5m")));
    assert!((2600..=2700).contains(&promised("1h")), "until it is due in 2400 s, and the overlap");
    assert_eq!(promised("2h"), 300, "it is due: only the overlap is sure");
}

/// How far the wall clock is set forward, in seconds.
const CLOCK_STEPS: [i64; 4] = [-86_400, -1800, 1800, 10_800];

#[test]
fn a_token_has_the_same_life_whatever_the_clock_of_its_host_is_set_to() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    let server = sandbox.serve(&[]);
    for step in CLOCK_STEPS {
        let earliest = time::UtcDateTime::now() + time::Duration::seconds(1198);
        sandbox.publish_before_clock_was_set("T1", 1260, step);
        let status: Value = sandbox.run(&["status", "--format", "json"]).exits(0).json();
        let status = &status["accounts"][0];
        for life in [
            expires_in(sandbox.run(&["get"])),
            server.get("/token").json()["expires_in"].as_i64().unwrap(),
            status["expires_in"].as_i64().unwrap(),
        ] {
            assert!((1150..=1200).contains(&life), "{step}: {life}");
        }
        let expires_at = parse_rfc3339(status["expires_at"].as_str().unwrap()).unwrap();
        assert!(
            expires_at >= earliest && expires_at <= earliest + time::Duration::MINUTE,
            "{step}"
        );

        sandbox.publish_before_clock_was_set("T1", 59, step);
        sandbox.run(&["get"]).exits(3).says(&["the token expired at"]);
        sandbox.run(&["status"]).exits(3);
        assert_eq!(server.get("/token").status, 503, "{step}");
    }
}

#[test]
fn a_clock_that_was_set_mints_no_token_and_a_dead_one_is_replaced() {
    for step in CLOCK_STEPS {
        let wechat = WeChat::start();
        let sandbox = Sandbox::new(&wechat).on("classic");
        sandbox.publish_before_clock_was_set("T1", 1260, step);
        sandbox.run(&["fetch"]).exits(0).silent();
        {
            let server = sandbox.serve_refreshing(&[]);
            assert_eq!(server.get("/token").json()["access_token"].as_str(), Some("T1"));
        }
        assert_eq!((wechat.asked(), sandbox.token().as_str()), (0, "T1"), "{step}");

        sandbox.publish_before_clock_was_set("T1", 59, step);
        sandbox.run(&["fetch"]).exits(0).silent();
        assert_eq!(wechat.mints(), 1, "{step}");
        assert!(wechat.is_alive(&sandbox.token()));
        assert!(expires_in(sandbox.run(&["get"])) > 7100, "{step}");
        assert!(sandbox.left() > 7100.0, "{step}");
    }
}

/// A call that mints shortens the published document first: on this host, and for those who go by `created_at`.
#[test]
fn a_lost_answer_leaves_the_overlap_whatever_the_clock_was_set_to() {
    for step in [-86_400, -1800] {
        let wechat = WeChat::start();
        let sandbox = Sandbox::new(&wechat).on("classic");
        sandbox.publish_before_clock_was_set("T1", 7200, step);
        wechat.fault("lost");
        sandbox.run(&["fetch", "--force", "--timeout", "1s"]).exits(5);
        let lives = [expires_in(sandbox.run(&["get"])) as f64, sandbox.left()];
        assert!(lives.iter().all(|life| (240.0..=300.0).contains(life)), "{step}: {lives:?}");
    }
}

#[test]
fn a_token_from_the_future_is_promised_for_the_overlap_and_replaced() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve(&[]);
    sandbox.publish("T1", 7200, -3600);
    assert_eq!(expires_in(sandbox.run(&["get"])), 300);
    assert_eq!(server.get("/token").json()["expires_in"].as_i64(), Some(300));
    // It is at least as old as its file.
    let written = |ago| {
        let at = std::time::SystemTime::now() - Duration::from_secs(ago);
        let file = std::fs::File::options().append(true).open(sandbox.document_path()).unwrap();
        file.set_modified(at).unwrap();
    };
    written(7000);
    assert!((1..=200).contains(&expires_in(sandbox.run(&["get"]))));
    written(7300);
    sandbox.run(&["get"]).exits(3);
    assert_eq!(server.get("/token").status, 503);
    sandbox.run(&["fetch"]).exits(0);
    assert_ne!(sandbox.token(), "T1", "a token from the future is due");
    assert!(expires_in(sandbox.run(&["get"])) > 7100);
}

/// A container may have a boot clock of its own.
#[needs(time_namespace)]
#[test]
fn a_token_has_the_same_life_in_every_time_namespace_of_its_host() {
    let wechat = WeChat::start();
    for offset in ["-50", "5000"] {
        let sandbox = Sandbox::new(&wechat).on("classic");
        let inside = |args: &[&str]| {
            let command = sandbox.command(args);
            let mut unshare = std::process::Command::new("unshare");
            unshare.args(["--time", "--boottime", offset, "--fork"]);
            unshare.arg(command.get_program()).args(command.get_args());
            Run::new(unshare)
        };
        inside(&["fetch"]).exits(0).silent();
        let life = expires_in(sandbox.run(&["get"]));
        assert!((7100..=7200).contains(&life), "{offset}: {life}");
        sandbox.publish_before_clock_was_set("T1", 3660, -1800);
        let life = expires_in(inside(&["get"]));
        assert!((3500..=3600).contains(&life), "{offset}: {life}");
    }
}

/// Returns the lives that `get`, `serve` and readers of the file are promised.
fn promised(sandbox: &Sandbox, server: &Server) -> [f64; 3] {
    let served = server.get("/token").json()["expires_in"].as_f64().unwrap();
    [expires_in(sandbox.run(&["get"])) as f64, served, sandbox.left()]
}

/// A call that WeChat received may have invalidated the published token.
#[test]
fn after_a_lost_answer_no_more_than_the_overlap_is_promised() {
    // At the same time, since each waits for its timeout.
    let case = |api: &'static str, fault: &str| {
        let wechat = WeChat::start();
        let sandbox = Sandbox::new(&wechat).on(api);
        sandbox.run(&["fetch"]).exits(0);
        let token = sandbox.token();
        let server = sandbox.serve(&[]);
        assert!(promised(&sandbox, &server).iter().all(|life| *life > 7000.0));
        wechat.fault(fault);
        let ran = sandbox.run(&["fetch", "--force", "--timeout", "3s"]).exits(5);
        ran.says(&["the published token", "ends at 20", "the published token lives for 4m"]);
        let lives = promised(&sandbox, &server);
        assert!(
            lives.iter().all(|life| (200.0..=300.0).contains(life)),
            "{api} {fault}: {lives:?}"
        );
        wechat.fault("none");
        assert!(wechat.is_alive(&token) && sandbox.token() == token, "{api} {fault}");

        // The next run finds it due, and heals it: on stable with what was lost, at no further cost.
        let forced = wechat.calls()["forced"].clone();
        sandbox.run(&["fetch"]).exits(0).silent();
        assert!(wechat.is_alive(&sandbox.token()));
        assert!(sandbox.left() > 7000.0, "{api} {fault}");
        assert_eq!(wechat.calls()["forced"], forced);
        assert_eq!(sandbox.token() == token, (api, fault) == ("stable", "hang"), "{api} {fault}");
    };
    std::thread::scope(|scope| {
        for fault in ["lost", "hang", "truncated"] {
            scope.spawn(move || case("classic", fault));
        }
        for fault in ["lost", "hang"] {
            scope.spawn(move || case("stable", fault));
        }
    });
}

#[test]
fn an_answer_that_is_lost_for_a_moment_only_costs_another_try() {
    for api in ["stable", "classic"] {
        let wechat = WeChat::start();
        let sandbox = Sandbox::new(&wechat).on(api);
        sandbox.run(&["fetch"]).exits(0);
        let token = sandbox.token();
        wechat.fault("lost@1");
        sandbox.run(&["fetch", "--force"]).exits(0).silent();
        assert!(sandbox.token() != token && wechat.is_alive(&sandbox.token()), "{api}");
        assert!(sandbox.left() > 7000.0, "{api}");
        let expected = if api == "stable" { (2, 1) } else { (3, 0) };
        assert_eq!((wechat.mints(), wechat.calls()["forced"].as_u64().unwrap()), expected, "{api}");
    }
}

/// A killed process cannot shorten the document any more, so it has to be shortened before the call.
#[test]
fn a_fetch_that_is_killed_while_it_asks_leaves_no_promise_that_does_not_hold() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat).on("classic");
    sandbox.run(&["fetch"]).exits(0);
    let (token, server) = (sandbox.token(), sandbox.serve(&[]));
    wechat.fault("hang");
    let asked = wechat.asked();
    let mut fetch = sandbox.command(&["fetch", "--force"]);
    let mut fetch = fetch.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("WeChat hears it", || wechat.asked() > asked);
    fetch.kill().unwrap();
    fetch.wait().unwrap();
    let lives = promised(&sandbox, &server);
    assert!(lives.iter().all(|life| (200.0..=300.0).contains(life)), "{lives:?}");
    assert_eq!(sandbox.token(), token);

    wechat.fault("none");
    sandbox.run(&["fetch"]).exits(0).silent();
    assert!(sandbox.token() != token && wechat.is_alive(&sandbox.token()));
    assert_eq!(sandbox.published_names(), ["default.json", "default.lock", "default.state"]);
}
