//! What `serve --refresh` remembers beyond its end, together with `fetch`.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::*;

const WRONG_SECRET: &str = "wrong-secret-0123456789abcdefghijklmnopqrst";
/// The secret of another app of the same corp.
const OTHER_SECRET: &str = "Aq-other_app-0123456789abcdefghijklmnopqrst";

fn put_secret(sandbox: &Sandbox, secret: &str) {
    write_with_mode(&sandbox.path("secret"), secret, 0o600);
}

/// Waits for a 503. Returns its message.
#[track_caller]
fn message_of_503(server: &Server) -> String {
    let mut message = String::new();
    eventually("the server answers 503", || {
        let response = server.get("/token");
        message = response.json()["message"].as_str().unwrap_or_default().to_owned();
        response.status == 503
    });
    message
}

/// Changes the record so that another secret got the published token.
fn forget_secret(record: &Path) {
    let mut json: Value = serde_json::from_slice(&fs::read(record).unwrap()).unwrap();
    json["issued"]["secret"] = "0".into();
    write_with_mode(record, &json.to_string(), 0o600);
}

/// A service manager starts a server again and again, and WeCom bans an address for an hour after repeated wrong secrets.
#[test]
fn a_server_that_is_restarted_sends_no_refused_secret_until_sighup() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat).on("work");
    put_secret(&sandbox, WRONG_SECRET);
    for _ in 0..3 {
        let server = sandbox.serve_refreshing(&[]);
        let message = message_of_503(&server);
        assert!(message.contains("WeChat refused (40001)"), "{message}");
        assert_eq!(wechat.asked(), 1);
        let stderr = server.stop();
        assert_eq!(stderr.matches("WeChat refused (40001)").count(), 1, "{stderr}");
    }
    sandbox.run(&["fetch"]).exits(4).says(&["not asked again until "]);
    let server = sandbox.serve_refreshing(&[]);
    let message = message_of_503(&server);
    assert!(message.contains("not asked again until "), "{message}");
    assert_eq!(wechat.asked(), 1);
    server.signal("HUP");
    eventually("SIGHUP asks at once", || wechat.asked() == 2);
    put_secret(&sandbox, SECRET);
    server.signal("HUP");
    eventually("the right secret brings a token", || server.get("/token").status == 200);
    assert_eq!(wechat.asked(), 3);
}

#[test]
fn answers_lost_on_classic_are_rationed_across_fetch_and_a_server() {
    let wechat = WeChat::with(&["--fault", "lost"]);
    let sandbox = Sandbox::new(&wechat).on("classic");
    eventually("requests are rationed", || {
        sandbox.run(&["fetch", "--timeout", "1s"]).exits(5).stderr.contains("were lost")
    });
    // One that did not arrive in time counts, too.
    let mints = wechat.mints();
    assert!(mints <= 20, "{mints}");
    let server = sandbox.serve_refreshing(&[]);
    let response = server.get("/token");
    assert_eq!(response.status, 503, "{response:?}");
    assert!(response.body.contains("20 answers of WeChat were lost"), "{response:?}");
    let retry_after: u64 = response.header("retry-after").unwrap().parse().unwrap();
    assert!((60..=530).contains(&retry_after), "{retry_after}");
    assert_eq!(wechat.mints(), mints);
}

#[test]
fn a_secret_that_was_replaced_is_noticed_at_the_start_and_at_sighup() {
    let wechat = WeChat::with(&["--account", &format!("{APPID}:{OTHER_SECRET}")]);
    let sandbox = Sandbox::new(&wechat).on("work");
    sandbox.run(&["fetch"]).exits(0);
    let first = sandbox.token();
    put_secret(&sandbox, OTHER_SECRET);
    let server = sandbox.serve_refreshing(&[]);
    eventually("another token is published", || sandbox.token() != first);
    let second = sandbox.token();
    put_secret(&sandbox, SECRET);
    server.signal("HUP");
    eventually("the first one is published again", || sandbox.token() == first);
    assert_eq!((wechat.asked(), wechat.mints()), (3, 2));
    // The same secret is read again.
    server.signal("HUP");
    assert_eq!(server.get("/token").json()["access_token"], first);
    server.stop();
    assert_ne!(first, second);
    assert_eq!(wechat.asked(), 3);
}

#[test]
fn on_classic_a_replaced_secret_costs_a_probe_and_a_dead_token_is_not_handed_out() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat).on("classic");
    sandbox.run(&["fetch"]).exits(0);
    let token = sandbox.token();
    let record = sandbox.path("state/default.state");
    forget_secret(&record);
    let server = sandbox.serve_refreshing(&[]);
    eventually("WeChat is asked about the token", || wechat.probes() == 1);
    assert_eq!(server.get("/token").json()["access_token"], token);
    assert_eq!(wechat.mints(), 1);
    eventually("that is remembered", || !fs::read_to_string(&record).unwrap().contains(r#""0""#));

    wechat.kill_tokens();
    wechat.fault("token/errcode:40125");
    forget_secret(&record);
    server.signal("HUP");
    let message = message_of_503(&server);
    assert!(message.contains("40125"), "{message}");
    assert_eq!(sandbox.token(), token, "it stays published");
}
