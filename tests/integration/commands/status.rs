//! `wxtoken status`: its text, JSON and Prometheus output, its exit status, and colours on a terminal.

use crate::support::*;

#[test]
fn status_shows_creation_and_remaining_life_but_not_the_token() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T_SECRET", 7200, 60);
    let document = sandbox.document();
    let ran = sandbox.run(&["status"]).exits(0);
    for part in ["default", "live", "1h 5", "left", document["created_at"].as_str().unwrap(), APPID]
    {
        assert!(ran.stdout.contains(part), "{part} is not in {}", ran.stdout);
    }
    assert!(
        !ran.stdout.contains("T_SECRET")
            && !ran.stdout.contains('\x1b')
            && !ran.stdout.contains('█')
    );
    assert_eq!((ran.stdout.lines().count(), ran.stderr.as_str()), (1, ""));
}

/// The end of its life is counted from now.
#[test]
fn times_are_in_whole_seconds_also_those_of_a_token_from_the_future() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, -3600);
    let text = sandbox.run(&["status"]).exits(0).stdout;
    let json = sandbox.run(&["status", "--format", "json"]).exits(0).json();
    let account = &json["accounts"][0];
    let shown = ["created_at", "expires_at"].map(|key| account[key].as_str().unwrap());
    let times = text.split_whitespace().filter(|word| word.starts_with("20")).chain(shown);
    let lengths: Vec<_> = times.map(str::len).collect();
    assert_eq!(lengths, ["2026-11-29T03:04:05Z".len(); 4], "{text}{json}");
}

#[test]
fn json_has_state_life_appid_and_fingerprint() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    let account = |sandbox: &Sandbox, code| {
        let ran = sandbox.run(&["status", "--format", "json"]).exits(code);
        ran.json()["accounts"][0].clone()
    };
    assert_eq!(account(&sandbox, 3)["state"], "missing");
    sandbox.publish("T1", 7200, 0);
    let live = account(&sandbox, 0);
    assert_eq!(
        (&live["account"], &live["state"], &live["appid"]),
        (&"default".into(), &"live".into(), &APPID.into())
    );
    // echo -n T1 | sha256sum
    assert_eq!(live["token_sha256"], "1f93603d");
    assert!(live["expires_in"].as_i64().unwrap() > 7100);
    sandbox.publish("T1", 7200, 7000);
    assert_eq!(account(&sandbox, 0)["state"], "due");
    sandbox.publish("T1", 7200, 8000);
    assert_eq!(account(&sandbox, 3)["state"], "expired");
    write_with_mode(&sandbox.document_path(), "{", 0o600);
    assert_eq!(account(&sandbox, 3)["state"], "unreadable");
}

#[test]
fn what_wechat_refused_at_the_last_try_is_told_until_a_token_is_published() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    sandbox.publish("T1", 7200, 7000);
    wechat.fault("errcode:40125");
    sandbox.run(&["fetch"]).exits(4);
    let text = sandbox.run(&["status"]).exits(0).stdout;
    assert!(text.contains("  refused 40125 at 2") && text.lines().count() == 1, "{text}");
    let json = sandbox.run(&["status", "--format", "json"]).exits(0).json();
    let refusal = &json["accounts"][0]["refusal"];
    assert_eq!(refusal["errcode"], 40125);
    assert!(refusal["what"].as_str().unwrap().starts_with("Copy the AppSecret again"), "{refusal}");
    assert!(refusal["what_zh"].as_str().unwrap().contains("AppSecret 错误"), "{refusal}");
    wechat.fault("none");
    sandbox.run(&["fetch", "--force"]).exits(0);
    let json = sandbox.run(&["status", "--format", "json"]).exits(0).json();
    assert!(json["accounts"][0].get("refusal").is_none(), "{json}");
    // Also within the second in which the token was published.
    wechat.fault("errcode:40125");
    sandbox.run(&["fetch", "--force"]).exits(4);
    let json = sandbox.run(&["status", "--format", "json"]).exits(0).json();
    assert_eq!(json["accounts"][0]["refusal"]["errcode"], 40125, "{json}");
}

#[test]
fn where_nothing_is_published_the_directory_that_was_looked_at_is_told() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    let dir = sandbox.path("state").display().to_string();
    let looked = format!("; looked in {dir}, and --dir names another directory");
    for verb in ["get", "status"] {
        sandbox.run(&[verb]).exits(3).mentions(&[&looked, "可用 --dir 指定其他目录"]);
    }
}

#[test]
fn prometheus_output_has_timestamps_and_not_ages() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    let missing = sandbox.run(&["status", "--format", "prometheus"]).exits(3).stdout;
    assert!(
        missing.contains("wxtoken_token_expiry_timestamp_seconds{account=\"default\"} 0\n"),
        "{missing}"
    );
    let before = time::UtcDateTime::now().unix_timestamp();
    sandbox.publish("T1", 7200, 0);
    let live = sandbox.run(&["status", "--format", "prometheus"]).exits(0).stdout;
    let value = |name: &str| -> i64 {
        let line = live.lines().find(|line| line.starts_with(&format!("{name}{{"))).expect(name);
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let created = value("wxtoken_token_created_timestamp_seconds");
    assert!((before..=before + 120).contains(&created));
    assert_eq!(value("wxtoken_token_expiry_timestamp_seconds"), created + 7200);
    for line in live.lines() {
        assert!(
            line.starts_with("# HELP wxtoken_")
                || line.starts_with("# TYPE wxtoken_")
                || line.starts_with("wxtoken_")
        );
    }
}

#[test]
fn the_exit_status_says_whether_a_token_lives_and_for_how_long() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.run(&["status"]).exits(3).mentions(&["does not exist"]);
    sandbox.publish("T1", 7200, 7000);
    sandbox.run(&["status", "--min-life", "1m"]).exits(0);
    sandbox.run(&["status", "--min-life", "1h"]).exits(3).mentions(&["less than --min-life 1h"]);
}

/// Runs on a terminal that script(1) provides.
#[needs(script)]
#[test]
fn a_terminal_gets_a_bar_and_colours_unless_no_color_is_set() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 3600);
    let coloured = Run::new(on_terminal(&sandbox.command(&["status"]))).exits(0).stdout;
    assert!(coloured.contains("\x1b[32m██████░░░░░░\x1b[0m"), "{coloured:?}");
    let mut no_color = sandbox.command(&["status"]);
    no_color.env("NO_COLOR", "1");
    let plain = Run::new(on_terminal(&no_color)).exits(0).stdout;
    assert!(plain.contains("██████░░░░░░") && !plain.contains('\x1b'), "{plain:?}");
}

#[needs(script)]
#[test]
fn a_terminal_gets_a_table_that_fits_it_in_local_time() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 3600);
    for (width, language) in [(80, "en"), (80, "zh"), (48, "en"), (48, "zh")] {
        let mut command = sandbox.command(&["status"]);
        command.env("TZ", "CST-8").env("WXTOKEN_LANG", language);
        let table = Run::new(on_terminal_of_width(width, &command)).exits(0).stdout;
        assert_eq!(table.lines().count(), 2, "a heading and a row: {table}");
        assert!(table.lines().all(|line| columns(line) <= width), "{width}: {table}");
        let parts = if language == "zh" {
            ["账号", "有效", "(UTC+8)"]
        } else {
            ["ACCOUNT", "live", "(UTC+8)"]
        };
        assert!(parts.iter().all(|part| table.contains(part)), "{table}");
    }
    // What is wrong is told in local time, too.
    sandbox.publish("T1", 7200, 9000);
    let mut expired = sandbox.command(&["status"]);
    let expired = expired.env("TZ", "CST-8").env("WXTOKEN_LANG", "zh").output().unwrap();
    let stderr = String::from_utf8_lossy(&expired.stderr);
    assert!(stderr.contains("token 已于 ") && stderr.contains("+08:00 到期"), "{stderr}");
}
