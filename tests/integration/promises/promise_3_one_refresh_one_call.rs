//! Promise 3: concurrent refreshes make one call.

use std::io::{Read, Write};

use crate::support::proxy::HoldingProxy;
use crate::support::*;

#[test]
fn twenty_fetches_on_an_empty_directory_are_one_call_and_twenty_successes() {
    for api in ["stable", "classic", "work"] {
        let wechat = WeChat::with(&["--fault", "slow:1"]);
        let sandbox = Sandbox::new(&wechat).on(api);
        twenty_at_once(&sandbox);
        assert_eq!((wechat.asked(), wechat.mints()), (1, 1), "{api}");
    }
}

#[test]
fn twenty_fetches_of_a_due_token_are_one_call_and_twenty_successes() {
    let wechat = WeChat::with(&["--fault", "slow:1"]);
    let sandbox = Sandbox::new(&wechat).on("classic");
    sandbox.publish("T_DUE", 7200, 7000);
    twenty_at_once(&sandbox);
    assert_eq!((wechat.asked(), wechat.mints()), (1, 1));
}

/// Twenty programs report the same token.
#[test]
fn twenty_rejections_of_one_token_are_one_mint() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat).on("classic");
    sandbox.run(&["fetch"]).exits(0);
    let dead = sandbox.token();
    wechat.kill_tokens();
    at_once((0..20).map(|_| sandbox.command(&["fetch", "--rejected", &dead])).collect());
    assert_eq!(wechat.mints(), 2, "the first, and the one that replaced it");
    assert!(wechat.is_alive(&sandbox.token()));
}

/// The answer to the first call applies to all that waited for it, even if it does not help them.
#[test]
fn twenty_concurrent_fetches_share_one_answer_even_if_it_does_not_help() {
    // A token that is due from the start.
    let wechat = WeChat::with(&["--life", "5m"]);
    let proxy = HoldingProxy::new(wechat.address());
    let sandbox = Sandbox::with_base_url(&proxy.url()).on("classic");
    sandbox.fetch_together(&proxy, 20, &[]).into_iter().for_each(|ran| drop(ran.exits(0)));
    assert_eq!(wechat.mints(), 1);
    // The same by force.
    sandbox.fetch_together(&proxy, 20, &["--force"]).into_iter().for_each(|ran| drop(ran.exits(0)));
    assert_eq!(wechat.mints(), 2);

    // A rejected token that WeChat gives again, within 30 s of the last forced one.
    let wechat = WeChat::start();
    let proxy = HoldingProxy::new(wechat.address());
    let sandbox = Sandbox::with_base_url(&proxy.url());
    sandbox.run(&["fetch"]).exits(0);
    sandbox.run(&["fetch", "--force"]).exits(0);
    // Documents are stamped with whole seconds: an answer within the second of the one before would not count as newer.
    let lifetime = sandbox.document()["expires_in"].as_f64().unwrap();
    eventually("the next second has begun", || lifetime - sandbox.left() >= 1.0);
    let token = sandbox.token();
    let before = wechat.calls()["forced"].as_u64().unwrap();
    // Else it is told that the token is honoured.
    wechat.fault("probe/errcode:-1");
    for ran in sandbox.fetch_together(&proxy, 20, &["--rejected", &token]) {
        ran.exits(5).says(&["the same token again"]);
    }
    assert_eq!(
        wechat.calls()["forced"].as_u64().unwrap() - before,
        1,
        "of the 20 that there are in a day"
    );
}

/// Half of them are fetches, half are requests to the server.
#[test]
fn concurrent_fetches_and_requests_to_a_refreshing_server_make_one_call() {
    let wechat = WeChat::with(&["--fault", "slow:1"]);
    let sandbox = Sandbox::new(&wechat).on("classic");
    sandbox.publish("T_OLD", 7200, 7200);
    let server = sandbox.serve_refreshing(&[]);
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let mut stream = connect(server.address());
            let request = b"GET /token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            stream.write_all(request).unwrap();
            stream
        })
        .collect();
    twenty_at_once(&sandbox);
    for mut caller in callers {
        let mut answer = Vec::new();
        caller.read_to_end(&mut answer).unwrap();
        assert_eq!(Response::parse(&answer).json()["access_token"], sandbox.token());
    }
    assert_eq!((wechat.asked(), wechat.mints()), (1, 1));
}

#[test]
fn a_second_fetch_of_a_fresh_token_makes_no_call() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    sandbox.run(&["fetch"]).exits(0).silent();
    let before = sandbox.document_bytes();
    sandbox.run(&["fetch"]).exits(0).silent();
    assert_eq!(wechat.asked(), 1);
    assert_eq!(sandbox.document_bytes(), before);
}

#[test]
fn the_same_token_again_is_confirmed_with_the_life_that_wechat_states() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let token = sandbox.token();
    // As if an hour had passed here, and none at WeChat.
    sandbox.publish(&token, 7200, 3600);
    let ran = sandbox.run(&["fetch", "--refresh-before", "2h", "-v"]).exits(0);
    assert!(ran.stderr.contains("confirmed"), "{}", ran.stderr);
    assert_eq!(sandbox.token(), token);
    assert_eq!(wechat.mints(), 1);
    let left = sandbox.run(&["get"]).exits(0).json()["expires_in"].as_u64().unwrap();
    assert!(left > 7000, "the life that WeChat states, not the one we had: {left}");
}

#[test]
fn force_mints_although_the_token_is_not_due() {
    let wechat = WeChat::start();
    for api in ["stable", "classic"] {
        let sandbox = Sandbox::new(&wechat).on(api);
        sandbox.run(&["fetch"]).exits(0);
        let first = sandbox.token();
        sandbox.run(&["fetch", "--force"]).exits(0).silent();
        assert_ne!(sandbox.token(), first, "{api}");
    }
    // WeChat does it every 30 s, and else gives the old one without a word; we have one for it.
    let sandbox = Sandbox::new(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let ran = sandbox.run(&["fetch", "--force"]).exits(0);
    ran.says(&["the same token again", "30 s", "20 times a day", "30 秒"]);
}

#[test]
fn a_lock_held_until_the_deadline_is_exit_status_6_without_a_call() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    std::fs::create_dir_all(sandbox.path("state")).unwrap();
    let lock = std::fs::File::create(sandbox.path("state/default.lock")).unwrap();
    fs2::FileExt::lock_exclusive(&lock).unwrap();
    sandbox.run(&["fetch", "--timeout", "1s"]).exits(6).says(&["lock"]);
    assert_eq!(wechat.asked(), 0);
    fs2::FileExt::unlock(&lock).unwrap();
    sandbox.run(&["fetch"]).exits(0).silent();
}

#[test]
fn a_post_has_a_content_length() {
    // The mock answers 412 to a chunked one, as WeChat does.
    let wechat = WeChat::start();
    Sandbox::new(&wechat).run(&["fetch"]).exits(0).silent();
    assert_eq!(wechat.calls()["stable_token"], 1);
}

fn twenty_at_once(sandbox: &Sandbox) {
    at_once((0..20).map(|_| sandbox.command(&["fetch"])).collect());
    sandbox.run(&["get"]).exits(0);
}

fn at_once(commands: Vec<std::process::Command>) {
    let children: Vec<_> = commands
        .into_iter()
        .map(|mut command| command.stderr(std::process::Stdio::piped()).spawn().unwrap())
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
