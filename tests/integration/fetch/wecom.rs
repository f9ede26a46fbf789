//! `--api work`: WeCom (企业微信) has one token for each app, which changes only when it expires or is revoked.

use std::fs;

use crate::support::proxy::HoldingProxy;
use crate::support::*;

/// The secret of another app of the same corp.
const OTHER_SECRET: &str = "Aq-other_app-0123456789abcdefghijklmnopqrst";

fn life(sandbox: &Sandbox) -> u64 {
    sandbox.run(&["get"]).exits(0).json()["expires_in"].as_u64().unwrap()
}

/// Returns a sandbox whose account is on the API `work` of `wechat`.
fn work_account(wechat: &WeChat) -> Sandbox {
    Sandbox::new(wechat).on("work")
}

#[test]
fn a_wecom_token_is_fetched_and_served() {
    let wechat = WeChat::start();
    let sandbox = work_account(&wechat);
    sandbox.run(&["fetch"]).exits(0).silent();
    assert!(wechat.is_alive(&sandbox.token()));
    assert!((7100..=7200).contains(&life(&sandbox)));
    let served = sandbox.serve(&[]).get("/token").json();
    assert_eq!(served["access_token"], sandbox.token());
    sandbox.run(&["fetch"]).exits(0).silent();
    assert_eq!((wechat.calls()["gettoken"].as_u64(), wechat.mints()), (Some(1), 1));
}

/// WeCom states a whole life each time, also for a token that expires soon.
#[test]
fn a_token_returned_again_keeps_its_first_expiry() {
    let wechat = WeChat::start();
    let sandbox = work_account(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    sandbox.publish(&sandbox.token(), 7200, 7000);
    let ran = sandbox.run(&["fetch", "-v"]).exits(0);
    assert!(ran.stderr.contains("confirmed token "), "{}", ran.stderr);
    assert!((100..=200).contains(&life(&sandbox)));
    assert_eq!((wechat.asked(), wechat.mints()), (2, 1));
}

#[test]
fn force_and_rejected_get_the_same_token_and_a_message_that_says_so() {
    let wechat = WeChat::start();
    let sandbox = work_account(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let (token, left) = (sandbox.token(), sandbox.left());
    let says = ["WeCom gave the same token again", "the right app's", "企业微信返回了原 token"];
    sandbox.run(&["fetch", "--force"]).exits(0).says(&says);
    // Else it is told that the token is honoured.
    wechat.fault("probe/errcode:-1");
    sandbox.run(&["fetch", "--rejected", &token]).exits(5).says(&says);
    assert_eq!((&sandbox.token(), wechat.asked()), (&token, 3));
    assert!(sandbox.left() <= left);

    let mut chinese = sandbox.command(&["fetch", "--rejected", &token]);
    chinese.env("WXTOKEN_LANG", "zh");
    let ran = Run::new(chinese).exits(5).says(&["企业微信返回了原 token"]);
    assert!(!ran.stderr.contains("WeCom"), "{}", ran.stderr);
}

#[test]
fn a_revoked_token_is_replaced_once() {
    let wechat = WeChat::start();
    let sandbox = work_account(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let dead = sandbox.token();
    wechat.kill_tokens();
    for _ in 0..3 {
        sandbox.run(&["fetch", "--rejected", &dead]).exits(0).says(&["token "]);
    }
    assert!(sandbox.token() != dead && wechat.is_alive(&sandbox.token()));
    assert_eq!((wechat.asked(), wechat.mints()), (2, 2));
}

/// WeCom bans an address for an hour after many calls with a wrong secret.
#[test]
fn a_wrong_secret_is_used_once_and_the_error_says_why() {
    let wechat = WeChat::start();
    let sandbox = work_account(&wechat);
    write_with_mode(&sandbox.path("secret"), "wr0ng-secret", 0o600);
    let ran = sandbox.run(&["fetch"]).exits(4);
    assert!(!ran.stderr.contains("wr0ng"), "{}", ran.stderr);
    ran.says(&["(40001)", "Secret is wrong", "banned for an hour", "from ip: 203.0.113.9", "封禁"]);
    assert_eq!(wechat.asked(), 1);

    let mut unknown = wxtoken();
    unknown.args(["fetch", "--api", "work", "--appid", "ww0", "--base-url", &wechat.url()]);
    unknown.arg("--dir").arg(sandbox.path("state")).env("WXTOKEN_SECRET", SECRET);
    Run::new(unknown).exits(4).says(&["(40013)", "CorpID is wrong", "invalid corpid, hint: ["]);
}

#[test]
fn two_apps_of_a_corp_have_a_token_each() {
    let wechat = WeChat::with(&["--account", &format!("{APPID}:{OTHER_SECRET}")]);
    let (one, other) = (work_account(&wechat), work_account(&wechat));
    write_with_mode(&other.path("secret"), &format!("{OTHER_SECRET}\n"), 0o600);
    for sandbox in [&one, &other] {
        sandbox.run(&["fetch"]).exits(0).silent();
        assert!(wechat.is_alive(&sandbox.token()));
    }
    assert_ne!(one.token(), other.token());
    assert!(wechat.mints() >= 2);
}

/// As where two jobs, each with the Secret of an app, have no name for either.
#[test]
fn that_two_apps_of_a_corp_take_turns_in_one_document_is_said_each_time() {
    let wechat = WeChat::with(&["--account", &format!("{APPID}:{OTHER_SECRET}")]);
    let sandbox = work_account(&wechat);
    let own = fs::read_to_string(sandbox.path("secret")).unwrap();
    let fetch = |secret: &str| {
        fs::write(sandbox.path("secret"), secret).unwrap();
        sandbox.run(&["fetch"]).exits(0)
    };
    fetch(&own).silent();
    for secret in [OTHER_SECRET, &own, OTHER_SECRET] {
        fetch(secret).says(&["its own --file", "Secret was reset", "分别指定 --file"]);
        fetch(secret).silent();
    }
    // One that has expired is replaced anyway.
    sandbox.publish(&sandbox.token(), 7200, 7201);
    fetch(&own).silent();
}

/// A call revokes nothing at WeCom.
#[test]
fn a_lost_answer_does_not_shorten_the_published_token() {
    let wechat = WeChat::start();
    let sandbox = work_account(&wechat);
    sandbox.publish("T_LIVE", 7200, 1000);
    let before = sandbox.document();
    for fault in ["lost", "hang", "truncated", "errcode:40001"] {
        wechat.fault(fault);
        let ran = sandbox.run(&["fetch", "--force", "--timeout", "1s"]);
        assert!(matches!(ran.status.code(), Some(4 | 5)), "{fault}: {}", ran.stderr);
        assert!(!ran.stderr.contains("ends at"), "{fault}: {}", ran.stderr);
        assert_eq!(sandbox.document(), before, "{fault}");
    }
}

#[test]
fn the_default_base_url_of_work_is_wecoms() {
    let sandbox = Sandbox::with_base_url("");
    for (api, host) in [("work", "qyapi.weixin.qq.com:443"), ("stable", "api.weixin.qq.com:443")] {
        let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut fetch = wxtoken();
        fetch.args(["fetch", "--appid", APPID, "--api", api, "--timeout", "5s"]);
        fetch.arg("--dir").arg(sandbox.path("state")).env("WXTOKEN_SECRET", SECRET);
        fetch.env("HTTPS_PROXY", format!("http://{}", proxy.local_addr().unwrap()));
        let fetching = std::thread::spawn(move || Run::new(fetch));
        let (client, _) = proxy.accept().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(&client), &mut line).unwrap();
        assert!(line.starts_with(&format!("CONNECT {host} ")), "{api}: {line}");
        drop((client, proxy));
        fetching.join().unwrap().exits(5).says(&[host.trim_end_matches(":443")]);
    }
}

/// The result of the first call applies to all that waited for it, although it is a failure.
#[test]
fn twenty_concurrent_rejections_make_one_call() {
    let wechat = WeChat::start();
    let proxy = HoldingProxy::new(wechat.address());
    let sandbox = Sandbox::with_base_url(&proxy.url()).on("work");
    sandbox.run(&["fetch"]).exits(0);
    sandbox.publish(&sandbox.token(), 7200, 1000);
    wechat.fault("probe/errcode:-1");
    for ran in sandbox.fetch_together(&proxy, 20, &["--rejected", &sandbox.token()]) {
        ran.exits(5);
    }
    assert_eq!(wechat.asked(), 2);
}

/// WeCom returns no new token before the old one has expired, so the server has to wait for that moment.
#[test]
fn a_request_at_the_expiry_of_the_token_waits_for_the_next_one() {
    let wechat = WeChat::with(&["--life", "3s"]);
    let sandbox = work_account(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let first = sandbox.token();
    let secret = sandbox.path("secret").to_str().unwrap().to_owned();
    let server =
        sandbox.serve(&["--refresh", "--secret-file", &secret, "--base-url", &wechat.url()]);
    eventually("the next token is served", || {
        let answer = server.get("/token");
        // On a busy machine the request for the next one takes longer than a client waits.
        let is_waiting = answer.status == 503 && answer.body.contains("not answered yet");
        assert!(answer.status == 200 || is_waiting, "{answer:?}");
        !is_waiting && answer.json()["access_token"] != first
    });
    assert!(wechat.mints() >= 2);
}
