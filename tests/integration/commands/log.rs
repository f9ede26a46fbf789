//! `--log-format json`: lines on stderr for programs.

use serde_json::Value;

use crate::support::home::{Home, wechat_with_accounts};
use crate::support::*;

/// Parses each line, and asserts that it has what every line has.
#[track_caller]
fn events(stderr: &str, verb: &str) -> Vec<Value> {
    let parse = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|err| panic!("{err}: {line}"));
        for name in ["time", "level", "event", "message"] {
            assert!(event[name].is_string(), "{name} is not in {line}");
        }
        assert_eq!(event["verb"], verb, "{line}");
        let time = event["time"].as_str().unwrap();
        assert!(parse_rfc3339(time).is_some(), "{time}");
        event
    };
    stderr.lines().map(parse).collect()
}

#[test]
fn each_line_of_fetch_is_an_object_with_its_account() {
    let wechat = wechat_with_accounts(2, &[]);
    let home = Home::with_accounts(2, &wechat.url(), "");
    home.put_secret("a1", "00000000000000000000000000000bad");
    let mut command = home.command(&["fetch", "-v", "--log-format", "json"]);
    command.env("WXTOKEN_LANG", "en");
    let stderr = Run::new(command).exits(4).stderr;
    let events = events(&stderr, "fetch");
    let of = |event: &str| {
        events.iter().find(|it| it["event"] == event).unwrap_or_else(|| panic!("{stderr}"))
    };
    let (published, failed) = (of("token_published"), of("failed"));
    assert_eq!((&published["account"], &published["level"]), (&"a0".into(), &"info".into()));
    assert_eq!((&failed["account"], &failed["exit_status"]), (&"a1".into(), &4.into()));
    assert!(failed["message"].as_str().unwrap().contains("WeChat refused"), "{failed}");
    assert!(!stderr.contains("wxtoken: "), "{stderr}");
}

#[test]
fn a_failure_of_a_verb_that_reads_has_the_account_that_it_is_about() {
    let home = Home::with_accounts(2, "http://127.0.0.1:1", "");
    for (verb, args, accounts) in [
        ("get", &["get", "a1"][..], &["a1"][..]),
        ("sign", &["sign", "https://shop.example/", "a1"], &["a1"]),
        ("status", &["status"], &["a0", "a1"]),
    ] {
        let mut command = home.command(args);
        command.env("WXTOKEN_LOG_FORMAT", "json").env("WXTOKEN_LANG", "en");
        let events = events(&Run::new(command).exits(3).stderr, verb);
        let about: Vec<_> = events.iter().map(|it| it["account"].as_str().unwrap()).collect();
        assert_eq!(about, accounts, "{events:?}");
        // The account has a place of its own.
        let message = events[0]["message"].as_str().unwrap();
        assert!(!message.starts_with(accounts[0]), "{message}");
    }
}

/// An alert on errors would fire when they have ended.
#[test]
fn that_all_is_well_again_is_no_error_and_said_without_more_verbosity() {
    let wechat = wechat_with_accounts(1, &["--fault", "errcode:-1@5"]);
    let home = Home::with_accounts(1, &wechat.url(), "");
    let server = home.serve_with_log(&["--refresh", "--log-format", "json"]);
    eventually("it is said", || home.has_logged(r#""event":"recovered""#));
    server.stop();
    let lines = std::fs::read_to_string(home.path("log")).unwrap();
    let said = events(&lines, "serve").into_iter().find(|it| it["event"] == "recovered").unwrap();
    assert_eq!(said["level"], "info", "{said}");
}

#[test]
fn the_variable_counts_too_and_the_most_verbose_lines_are_objects_as_well() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let mut command = sandbox.command(&["fetch", "-vvv"]);
    command.env("WXTOKEN_LOG_FORMAT", "json");
    let stderr = Run::new(command).exits(0).stderr;
    let events = events(&stderr, "fetch");
    assert!(
        events.iter().any(|it| it["level"] == "network" && it["library"].is_string()),
        "{stderr}"
    );
    assert!(!stderr.contains(SECRET), "{stderr}");
}

#[test]
fn serve_says_of_each_request_what_was_asked_and_how_it_was_answered() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 0);
    let server = sandbox.serve(&["-v", "--log-format", "json", "--allow", "127.0.0.1"]);
    assert_eq!(server.get("/token").status, 200);
    let stderr = server.stop();
    let events = events(&stderr, "serve");
    let request =
        events.iter().find(|it| it["event"] == "request").unwrap_or_else(|| panic!("{stderr}"));
    assert_eq!(
        (&request["path"], &request["status"]),
        (&"/token".into(), &200.into()),
        "{request}"
    );
}
