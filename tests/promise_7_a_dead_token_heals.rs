//! Promise 7: who was refused with a token can say so; if it is still the current one, it is replaced once.

mod support;

use std::io::Write;
use std::process::Stdio;

use support::*;

/// `fetch --rejected -`, with the token on stdin.
fn fetch_rejected(sandbox: &Sandbox, token: &str) -> Ran {
    let mut command = sandbox.command(&["fetch", "--rejected", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{token}\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { status: output.status, stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

#[test]
fn a_dead_token_is_replaced_by_one_that_lives() {
    for api in ["stable", "classic", "work"] {
        let wechat = WeChat::start();
        let sandbox = Sandbox::against(&wechat).on(api);
        sandbox.run(&["fetch"]).exits(0);
        let dead = sandbox.token();
        wechat.kill_tokens();
        fetch_rejected(&sandbox, &dead).exits(0).silent();
        assert_ne!(sandbox.token(), dead, "{api}");
        assert!(wechat.is_alive(&sandbox.token()), "{api}");

        let (healed, mints) = (sandbox.token(), wechat.mints());
        fetch_rejected(&sandbox, &dead).exits(0).silent();
        assert_eq!(
            (sandbox.token(), wechat.mints()),
            (healed, mints),
            "{api}: it was replaced already"
        );
    }
}

/// Somebody else forced a refresh at WeChat: their token is taken over, and not killed in turn.
#[test]
fn a_token_that_was_replaced_elsewhere_costs_no_forced_refresh() {
    let wechat = WeChat::start();
    let ours = Sandbox::against(&wechat);
    let theirs = Sandbox::against(&wechat);
    ours.run(&["fetch"]).exits(0);
    theirs.run(&["fetch", "--force"]).exits(0);
    let before = wechat.mints();
    fetch_rejected(&ours, &ours.token()).exits(0).silent();
    assert_eq!(ours.token(), theirs.token());
    assert_eq!(wechat.mints(), before);
}

#[test]
fn a_forced_answer_that_is_the_old_token_again_is_reported_as_such() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    sandbox.run(&["fetch", "--force"]).exits(0);
    // Within 30 s of the last forced refresh WeChat does not do another, and does not say so.
    let ran = fetch_rejected(&sandbox, &sandbox.token()).exits(5);
    ran.says(&["the same token again", "30 s", "每天最多 20 次"]);
}

/// WeCom's begin with any of the characters that are in them.
#[test]
fn a_token_may_begin_with_a_dash_and_a_flag_is_not_taken_for_one() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat);
    for token in ["-I_0", "-", "--force"] {
        sandbox.publish(token, 7200, 0);
        fetch_rejected(&sandbox, token).exits(0).silent();
        assert_ne!(sandbox.token(), token);
    }
    sandbox.publish("-I_0", 7200, 0);
    sandbox.run(&["fetch", "--rejected", "-I_0"]).exits(0).silent();
    assert_ne!(sandbox.token(), "-I_0");
    let ran = sandbox.run(&["fetch", "--rejected", "--force"]).exits(2);
    ran.says(&["followed by a flag", "--rejected -"]);
}

#[test]
fn what_is_no_token_is_refused_without_being_repeated() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat);
    for wrong in ["", "two words", &"x".repeat(3000)] {
        let ran = fetch_rejected(&sandbox, wrong).exits(2);
        assert!(wrong.is_empty() || !ran.stderr.contains(wrong));
    }
    sandbox.run(&["fetch", "--rejected", "T", "--force"]).exits(2);
    let both = ["fetch", "--rejected", "-", "--secret-file", "-", "--appid", APPID];
    let mut command = wxtoken();
    command.args(both);
    Ran::of(command).exits(2).says(&["stdin"]);
    assert_eq!(wechat.asked(), 0);
}
