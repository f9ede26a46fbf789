//! `--api work`: the tokens of WeCom (企业微信), which are one for each app and change only when they end.

use crate::support::*;

/// The secret of another app of the same corp.
const OTHER_SECRET: &str = "Aq-other_app-0123456789abcdefghijklmnopqrst";

fn promised(sandbox: &Sandbox) -> u64 {
    sandbox.run(&["get"]).exits(0).json()["expires_in"].as_u64().unwrap()
}

/// The sandbox's account at `wechat`, on work.
fn on_work(wechat: &WeChat) -> Sandbox {
    Sandbox::against(wechat).on("work")
}

#[test]
fn a_token_is_fetched_and_handed_out_like_any_other() {
    let wechat = WeChat::start();
    let sandbox = on_work(&wechat);
    sandbox.run(&["fetch"]).exits(0).silent();
    assert!(wechat.is_alive(&sandbox.token()));
    assert!((7190..=7200).contains(&promised(&sandbox)));
    let served = sandbox.serve(&[]).get("/token").json();
    assert_eq!(served["access_token"], sandbox.token());
    sandbox.run(&["fetch"]).exits(0).silent();
    assert_eq!((wechat.calls()["gettoken"].as_u64(), wechat.mints()), (Some(1), 1));
}

/// WeCom states a whole life each time, also for one that is nearly over.
#[test]
fn the_same_token_again_does_not_live_longer_for_it() {
    let wechat = WeChat::start();
    let sandbox = on_work(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    sandbox.publish(&sandbox.token(), 7200, 7000);
    let ran = sandbox.run(&["fetch", "-v"]).exits(0);
    assert!(ran.stderr.contains("confirmed token "), "{}", ran.stderr);
    assert!((190..=200).contains(&promised(&sandbox)));
    assert_eq!((wechat.asked(), wechat.mints()), (2, 1));
}

#[test]
fn nothing_makes_it_give_another_and_that_is_said() {
    let wechat = WeChat::start();
    let sandbox = on_work(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let (token, left) = (sandbox.token(), sandbox.left());
    let says = ["WeCom gave the same token again", "the right app's", "企业微信返回了原 token"];
    sandbox.run(&["fetch", "--force"]).exits(0).says(&says);
    sandbox.run(&["fetch", "--rejected", &token]).exits(5).says(&says);
    assert_eq!((sandbox.token(), wechat.asked()), (token, 3));
    assert!(sandbox.left() <= left);
}

#[test]
fn a_token_that_wecom_revoked_is_replaced_once() {
    let wechat = WeChat::start();
    let sandbox = on_work(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let dead = sandbox.token();
    wechat.kill_tokens();
    for _ in 0..3 {
        sandbox.run(&["fetch", "--rejected", &dead]).exits(0).silent();
    }
    assert!(sandbox.token() != dead && wechat.is_alive(&sandbox.token()));
    assert_eq!((wechat.asked(), wechat.mints()), (2, 2));
}

/// Each call with a wrong secret counts against the address: WeCom bans one that goes on for an hour.
#[test]
fn a_wrong_secret_is_tried_once_and_says_why_no_more() {
    let wechat = WeChat::start();
    let sandbox = on_work(&wechat);
    write_with_mode(&sandbox.path("secret"), "wr0ng-secret", 0o600);
    let ran = sandbox.run(&["fetch"]).exits(4);
    assert!(!ran.stderr.contains("wr0ng"), "{}", ran.stderr);
    ran.says(&["(40001)", "Secret is wrong", "banned for an hour", "from ip: 203.0.113.9", "封禁"]);
    assert_eq!(wechat.asked(), 1);

    let mut stranger = wxtoken();
    stranger.args(["fetch", "--api", "work", "--appid", "ww0", "--base-url", &wechat.url()]);
    stranger.arg("--dir").arg(sandbox.path("state")).env("WXTOKEN_SECRET", SECRET);
    Ran::of(stranger).exits(4).says(&["(40013)", "CorpID is wrong", "invalid corpid, hint: ["]);
}

#[test]
fn two_apps_of_a_corp_have_a_token_each() {
    let wechat = WeChat::with(&["--account", &format!("{APPID}:{OTHER_SECRET}")]);
    let (one, other) = (on_work(&wechat), on_work(&wechat));
    write_with_mode(&other.path("secret"), &format!("{OTHER_SECRET}\n"), 0o600);
    for sandbox in [&one, &other] {
        sandbox.run(&["fetch"]).exits(0).silent();
        assert!(wechat.is_alive(&sandbox.token()));
    }
    assert_ne!(one.token(), other.token());
    assert_eq!(wechat.mints(), 2);
}

/// Asking kills nothing there.
#[test]
fn a_lost_answer_costs_the_published_token_nothing() {
    let wechat = WeChat::start();
    let sandbox = on_work(&wechat);
    sandbox.publish("T_STILL_GOOD", 7200, 1000);
    let before = sandbox.document();
    for fault in ["lost", "hang", "truncated", "errcode:40001"] {
        wechat.fault(fault);
        let ran = sandbox.run(&["fetch", "--force", "--timeout", "1s"]);
        assert!(matches!(ran.status.code(), Some(4 | 5)), "{fault}: {}", ran.stderr);
        assert!(!ran.stderr.contains("ends at"), "{fault}: {}", ran.stderr);
        assert_eq!(sandbox.document(), before, "{fault}");
    }
}

/// The address is another than WeChat's, unless it is given.
#[test]
fn wecom_is_where_wecom_is() {
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let sandbox = Sandbox::asking("");
    for (api, host) in [("work", "qyapi.weixin.qq.com:443"), ("stable", "api.weixin.qq.com:443")] {
        let mut fetch = wxtoken();
        fetch.args(["fetch", "--appid", APPID, "--api", api, "--timeout", "1s"]);
        fetch.arg("--dir").arg(sandbox.path("state")).env("WXTOKEN_SECRET", SECRET);
        fetch.env("HTTPS_PROXY", format!("http://{}", proxy.local_addr().unwrap()));
        let fetching = std::thread::spawn(move || Ran::of(fetch));
        let (client, _) = proxy.accept().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(&client), &mut line).unwrap();
        assert!(line.starts_with(&format!("CONNECT {host} ")), "{api}: {line}");
        drop(client);
        fetching.join().unwrap().exits(5).says(&[host.trim_end_matches(":443")]);
    }
}

/// What WeCom said to the first is the answer for all who waited, although it was no help.
#[test]
fn twenty_rejections_at_once_are_one_call() {
    let wechat = WeChat::start();
    let sandbox = on_work(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    sandbox.publish(&sandbox.token(), 7200, 1000);
    wechat.fault("slow:1");
    let token = sandbox.token();
    let rejections: Vec<_> = (0..20)
        .map(|_| {
            let mut fetch = sandbox.command(&["fetch", "-q", "--rejected", &token]);
            fetch.spawn().unwrap()
        })
        .collect();
    for mut rejection in rejections {
        assert_eq!(rejection.wait().unwrap().code(), Some(5));
    }
    assert_eq!(wechat.asked(), 2);
}

/// WeCom gives no other token before the old one has ended; whoever asks at that moment waits for it, and is not sent
/// away.
#[test]
fn who_asks_when_a_token_has_just_ended_gets_the_next_one() {
    let wechat = WeChat::with(&["--life", "3s"]);
    let sandbox = on_work(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let first = sandbox.token();
    let secret = sandbox.path("secret").to_str().unwrap().to_owned();
    let server =
        sandbox.serve(&["--refresh", "--secret-file", &secret, "--base-url", &wechat.url()]);
    eventually("the next token is handed out", || {
        let answer = server.get("/token");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["access_token"] != first
    });
    assert_eq!(wechat.mints(), 2);
}
