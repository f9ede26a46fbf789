//! `on_trouble`: the command that runs when refreshing begins to fail for long, and when it is well again. When it runs, what
//! it is passed, and who runs it of several.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::Command;

use crate::files::{OTHER_USER, by_other_user, open_to_all};
use crate::support::home::{Home, appsecret, wechat_with_accounts};
use crate::support::redis::Redis;
use crate::support::*;

/// A refusal that a person has to end, and that is not remembered: each run asks again.
const FROZEN: &str = "errcode:50004";

/// Appends what it is told to `told`.
const RECORD: &str = r#"cd "$(dirname "$0")"
echo "$WXTOKEN_ACCOUNT${WXTOKEN_TROUBLE_TICKET:+/$WXTOKEN_TROUBLE_TICKET} $WXTOKEN_TROUBLE $WXTOKEN_TROUBLE_ERRCODE" >> told"#;

/// Returns a stand-in that knows account `a0`, and a config with that account, `on_trouble` and `more`.
fn home_with(more: &str) -> (WeChat, Home) {
    let wechat = wechat_with_accounts(1, &[]);
    let home = Home::with_accounts(1, &wechat.url(), &format!("on_trouble = [\"./hook\"]\n{more}"));
    write_script(&home, RECORD);
    (wechat, home)
}

fn write_script(home: &Home, lines: &str) {
    write_program(&home.path("hook"), &format!("#!/bin/sh\n{lines}\n"));
}

/// Returns the lines that the hook has written.
fn told(home: &Home) -> Vec<String> {
    lines(home, "told")
}

fn lines(home: &Home, name: &str) -> Vec<String> {
    let text = fs::read_to_string(home.path(name)).unwrap_or_default();
    text.lines().map(|line| line.trim_end().to_owned()).collect()
}

// When it runs

#[test]
fn trouble_is_told_once_when_it_begins_and_once_when_it_ends_across_runs() {
    let (wechat, home) = home_with("");
    home.run(&["fetch"]).exits(0).silent();
    assert_eq!(told(&home), [""; 0]);
    home.publish("a0", "wx0", "T_DUE", 7000);
    wechat.fault(FROZEN);
    for _ in 0..3 {
        home.run(&["fetch"]).exits(4).says(&["50004"]);
    }
    // Another cause is the same trouble.
    wechat.fault("garbage");
    home.run(&["fetch"]).exits(5);
    assert_eq!(told(&home), ["a0 begin 50004"]);
    let status = |format: &str| home.run(&["status", "--format", format]).exits(0);
    assert!(status("text").stdout.contains("  trouble since 2"), "{}", status("text").stdout);
    assert!(status("json").json()["accounts"][0]["trouble_since"].is_string());
    wechat.fault("none");
    home.run(&["fetch"]).exits(0).silent();
    assert!(!status("text").stdout.contains("trouble"), "{}", status("text").stdout);
    assert!(status("json").json()["accounts"][0]["trouble_since"].is_null());
    home.run(&["fetch"]).exits(0).silent();
    assert_eq!(told(&home), ["a0 begin 50004", "a0 end"]);
    home.publish("a0", "wx0", "T_DUE", 7000);
    wechat.fault(FROZEN);
    home.run(&["fetch"]).exits(4);
    assert_eq!(told(&home), ["a0 begin 50004", "a0 end", "a0 begin 50004"]);
}

#[test]
fn a_refusal_that_is_remembered_is_told_once() {
    let (wechat, home) = home_with("");
    wechat.fault("errcode:40125");
    home.run(&["fetch"]).exits(4);
    home.run(&["fetch"]).exits(4).says(&["earlier answer"]);
    assert_eq!((told(&home), wechat.asked()), (vec!["a0 begin 40125".to_owned()], 1));
}

/// A failure that may pass is trouble once less than half of `refresh_before` is left.
#[test]
fn a_passing_failure_is_told_when_it_threatens_the_tokens_life() {
    let (wechat, home) = home_with("refresh_before = \"1h\"\n");
    wechat.fault("garbage");
    home.publish("a0", "wx0", "T_DUE", 7200 - 3500);
    home.run(&["fetch"]).exits(5);
    home.run(&["fetch"]).exits(5);
    assert_eq!(told(&home), [""; 0]);
    home.publish("a0", "wx0", "T_DUE", 7200 - 1700);
    home.run(&["fetch"]).exits(5);
    home.publish("a0", "wx0", "T_DUE", 7300);
    home.run(&["fetch"]).exits(5);
    assert_eq!(told(&home), ["a0 begin"]);
}

#[test]
fn a_quota_of_a_minute_is_no_trouble_and_one_of_a_day_is() {
    for (fault, expected) in [("errcode:45011", 0), ("errcode:45009", 1)] {
        let (wechat, home) = home_with("refresh_before = \"1h\"\n");
        home.publish("a0", "wx0", "T_DUE", 7200 - 3500);
        wechat.fault(fault);
        home.run(&["fetch"]).exits(4);
        assert_eq!(told(&home).len(), expected, "{fault}");
    }
}

#[test]
fn a_secret_file_that_cannot_be_read_is_trouble_until_it_can() {
    let (_wechat, home) = home_with("");
    home.run(&["fetch"]).exits(0);
    let set_mode = |mode| {
        fs::set_permissions(home.path("a0.secret"), fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode(0o644);
    home.run(&["fetch", "--force"]).exits(2); // Told to its caller only.
    assert_eq!(told(&home), [""; 0]);
    home.run(&["fetch"]).exits(2);
    home.run(&["fetch"]).exits(2);
    assert_eq!(told(&home), ["a0 begin"]);
    set_mode(0o600);
    home.run(&["fetch"]).exits(0).silent(); // Not due.
    assert_eq!(told(&home), ["a0 begin", "a0 end"]);
}

/// It is a mistake of that user: the owner refreshes the documents. An end of the token that comes near is told all the same,
/// as the owner may have lost them by a chown.
#[needs(root)]
#[needs(script)]
#[test]
fn what_another_user_than_the_documents_owner_may_not_do_is_no_trouble_of_the_account() {
    let (_wechat, home) = home_with("");
    let program = open_to_all(&home.path(""));
    write_with_mode(&home.path("told"), "", 0o666);
    let mut fetch = with_environment_of(&home.command(&["fetch"]), &program);
    fetch.args(home.command(&["fetch"]).get_args());
    let typed = || {
        let mut fetch = on_terminal(&fetch);
        fetch.uid(OTHER_USER).gid(OTHER_USER);
        Run::new(fetch)
    };
    let publish_with_life = |life: i64| {
        home.publish("a0", "wx0", "T_OURS", 7200 - life);
        fs::set_permissions(home.document_path("a0"), fs::Permissions::from_mode(0o644)).unwrap();
    };
    let not_read = || Run::new(by_other_user(&program, &fetch)).exits(2).says(&["a0.secret"]);
    publish_with_life(7000);
    not_read();
    typed().exits(2);
    // Due, and the secret can be read: the directory cannot be written.
    publish_with_life(250);
    chown(home.path("a0.secret"), Some(OTHER_USER), None).unwrap();
    Run::new(by_other_user(&program, &fetch)).exits(1).says(&["a0.lock"]);
    chown(home.path("a0.secret"), Some(0), None).unwrap();
    publish_with_life(100);
    typed().exits(2);
    assert_eq!(told(&home), [""; 0]);
    not_read();
    assert_eq!(told(&home), ["a0 begin"]);
    // A directory that several users publish in, as that of a pod's volume.
    publish_with_life(7000);
    fs::set_permissions(home.path("state"), fs::Permissions::from_mode(0o777)).unwrap();
    not_read();
    assert_eq!(told(&home), ["a0 begin", "a0 begin"]);
}

/// A run that has nothing to do does not end it: WeChat was not asked.
#[test]
fn a_rejected_token_that_cannot_be_replaced_is_trouble_until_there_is_another() {
    let (wechat, home) = home_with("");
    home.run(&["fetch"]).exits(0);
    let token = home.token("a0").unwrap();
    wechat.kill_tokens();
    wechat.fault(FROZEN);
    home.run(&["fetch", "--rejected", &token]).exits(4);
    home.run(&["fetch"]).exits(0).silent();
    // A failed --force is told by its own message.
    home.run(&["fetch", "--force", "a0"]).exits(4);
    assert_eq!(told(&home), ["a0 begin 50004"]);
    wechat.fault("none");
    home.run(&["fetch", "--rejected", &token]).exits(0);
    assert_eq!(told(&home), ["a0 begin 50004", "a0 end"]);
}

#[test]
fn the_trouble_of_a_ticket_is_told_by_its_type() {
    let (wechat, home) = home_with("tickets = [\"jsapi\"]\n");
    wechat.fault("ticket/errcode:48001");
    home.run(&["fetch"]).exits(4);
    home.run(&["fetch"]).exits(4);
    wechat.fault("none");
    home.run(&["fetch"]).exits(0);
    assert_eq!(told(&home), ["a0/jsapi begin 48001", "a0/jsapi end"]);
}

#[test]
fn a_mirror_tells_when_it_cannot_reach_the_other_wxtoken() {
    let wechat = wechat_with_accounts(1, &[]);
    let central = Home::with_accounts(1, &wechat.url(), "");
    let server = central.serve(&["--refresh"]);
    let config =
        |from: &str| format!("[account.a0]\nfrom = \"http://{from}\"\non_trouble = [\"./hook\"]\n");
    let mirror = Home::new(&config(&server.address().to_string()));
    write_script(&mirror, RECORD);
    mirror.run(&["fetch"]).exits(0);
    // Not a port of before, which another test's server may have by now.
    mirror.write(&config("127.0.0.1:1"));
    fs::remove_file(mirror.document_path("a0")).unwrap();
    for _ in 0..2 {
        mirror.run(&["fetch", "--timeout", "3s"]).exits(5);
    }
    assert_eq!(told(&mirror), ["a0 begin"]);
}

/// The disk has no room for another record, and the trouble is noted in the one that is there.
#[needs(mount)]
#[test]
fn a_full_disk_is_told_once() {
    let (_wechat, home) = home_with("");
    fs::create_dir(home.path("state")).unwrap();
    let script = r#"
        mount -t tmpfs -o size=64k tmpfs "$STATE_DIRECTORY" && cd "$STATE_DIRECTORY" && "$0" "$@" || exit 9
        echo '{"appid":"wx0","access_token":"T","expires_in":60,"created_at":"2026-01-01T00:00:00Z"}' > a0.json
        dd if=/dev/zero of=filler bs=4k 2>/dev/null
        for run in 1 2 3; do "$0" "$@" && exit 8; done
        rm filler
        "$0" "$@" && "$0" "$@"
    "#;
    let unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script];
    let ran = Run::new(wrapped(&unshare, &home.command(&["fetch"]))).exits(0);
    assert_eq!(ran.stderr.matches("No space left").count(), 3, "{}", ran.stderr);
    assert_eq!(told(&home), ["a0 begin", "a0 end"]);
}

/// Nothing can be noted there, and an alert too many is better than none.
#[needs(mount)]
#[test]
fn a_directory_that_cannot_be_written_is_told_by_each_run() {
    let (_wechat, home) = home_with("");
    home.run(&["fetch"]).exits(0);
    home.publish("a0", "wx0", "T_DUE", 7200);
    let script = r#"
        mount --bind "$STATE_DIRECTORY" "$STATE_DIRECTORY" && mount -o remount,bind,ro "$STATE_DIRECTORY" || exit 9
        for run in 1 2; do "$0" "$@" && exit 8; done
        exit 0
    "#;
    let unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script];
    Run::new(wrapped(&unshare, &home.command(&["fetch"]))).exits(0);
    assert_eq!(told(&home), ["a0 begin", "a0 begin"]);
}

/// A signal ends the command first; the next run tells it again.
#[test]
fn a_signal_during_on_trouble_leaves_it_to_the_next_run() {
    let (wechat, home) = home_with("");
    write_script(&home, r#"cd "$(dirname "$0")"; echo $$ > new; mv new hook.pid; exec sleep 1000"#);
    wechat.fault(FROZEN);
    let mut fetch = with_default_signals(&home.command(&["fetch"])).spawn().unwrap();
    eventually("the hook has begun", || home.path("hook.pid").exists());
    let kill = Command::new("kill").arg(fetch.id().to_string()).status().unwrap();
    assert!(kill.success());
    assert_eq!(fetch.wait().unwrap().signal(), Some(15));
    let pid = fs::read_to_string(home.path("hook.pid")).unwrap();
    assert!(!Path::new(&format!("/proc/{}", pid.trim())).exists());
    write_script(&home, RECORD);
    home.run(&["fetch"]).exits(4);
    assert_eq!(told(&home), ["a0 begin 50004"]);
}

#[test]
fn a_mirror_tells_that_its_key_is_refused_although_its_token_lives() {
    let wechat = wechat_with_accounts(1, &[]);
    let central = Home::with_accounts(1, &wechat.url(), "");
    let mut key = wxtoken();
    key.args(["key", "branch"]);
    let line = Run::new(key).exits(0);
    let field = |label: &str| {
        let found = line.stdout.lines().find_map(|it| it.strip_prefix(label));
        found.expect("a line of each").trim().to_owned()
    };
    write_with_mode(&central.path("keys"), &field("line:"), 0o600);
    let keys = central.path("keys");
    let server = central.serve(&["--refresh", "--keys", keys.to_str().unwrap()]);
    let mirror = Home::new(&format!(
        "[account.a0]\nfrom = \"http://{}\"\nkey_file = \"key\"\non_trouble = [\"./hook\"]\n",
        server.address()
    ));
    write_script(&mirror, RECORD);
    write_with_mode(&mirror.path("key"), &field("key:").replace("wxk_", "wxk_X")[..47], 0o600);
    // As if the token had been taken over an hour ago.
    mirror.publish("a0", "wx0", "T_LIVE", 3600);
    for _ in 0..2 {
        mirror.run(&["fetch"]).exits(4);
    }
    assert_eq!(told(&mirror), ["a0 begin"]);
    write_with_mode(&mirror.path("key"), &field("key:"), 0o600);
    for _ in 0..2 {
        mirror.run(&["fetch"]).exits(0);
    }
    assert_eq!(told(&mirror), ["a0 begin", "a0 end"]);
}

// What it is passed

#[test]
fn promise_5_on_trouble_gets_what_is_wrong_in_its_environment_and_no_secret() {
    let script = r#"cd "$(dirname "$0")"; env > "env.$WXTOKEN_TROUBLE"; cat /proc/$$/cmdline > argv; cat > stdin"#;
    let (wechat, home) = home_with("");
    write_script(&home, script);
    home.publish("a0", "wx0", "T_DUE", 7200 - 290);
    let token = home.token("a0").unwrap();
    wechat.fault("errcode:40164");
    let mut fetch = home.command(&["fetch"]);
    fetch.env("CREDENTIALS_DIRECTORY", home.path("creds")).env("LANG", "zh_CN.UTF-8");
    Run::new(fetch).exits(4);
    let env = lines(&home, "env.begin");
    let variable = |env: &[String], name: &str| {
        let lead = format!("{name}=");
        env.iter().find_map(|line| line.strip_prefix(&lead)).map(str::to_owned)
    };
    let get = |name: &str| variable(&env, name).unwrap_or_else(|| panic!("{name}: {env:#?}"));
    assert_eq!(get("WXTOKEN_ACCOUNT"), "a0");
    assert_eq!(get("WXTOKEN_FILE"), home.document_path("a0").to_str().unwrap());
    assert_eq!((&*get("WXTOKEN_TROUBLE"), &*get("WXTOKEN_TROUBLE_ERRCODE")), ("begin", "40164"));
    let message = get("WXTOKEN_TROUBLE_MESSAGE");
    assert!(message.contains("IP 白名单") && !message.contains("allowlist"), "{message}");
    let life: u64 = get("WXTOKEN_TROUBLE_LIFE").parse().unwrap();
    assert!((1..=290).contains(&life), "{life}");
    let since = get("WXTOKEN_TROUBLE_SINCE");
    assert!(since.ends_with('Z') && since.contains('T'), "{since}");
    assert_eq!(get("WXTOKEN_TROUBLE_TICKET"), "");
    assert_eq!(get("LANG"), "zh_CN.UTF-8");
    assert_eq!(env.iter().filter(|line| line.starts_with("WXTOKEN_")).count(), 8, "{env:#?}");
    assert_eq!(variable(&env, "CREDENTIALS_DIRECTORY"), None);
    let argv = fs::read_to_string(home.path("argv")).unwrap();
    for secret in [token, appsecret(0)] {
        assert!(!env.concat().contains(&secret) && !argv.contains(&secret));
    }
    assert_eq!(lines(&home, "stdin"), [""; 0]);

    wechat.fault("none");
    home.run(&["fetch", "--force", "a0"]).exits(0);
    let env = lines(&home, "env.end");
    assert_eq!(variable(&env, "WXTOKEN_TROUBLE").as_deref(), Some("end"));
    assert_eq!(variable(&env, "WXTOKEN_TROUBLE_SINCE"), Some(since), "{env:#?}");
    assert!(variable(&env, "WXTOKEN_TROUBLE_MESSAGE").unwrap().contains("恢复正常"));
}

#[test]
fn on_trouble_of_the_top_table_is_that_of_accounts_without_their_own() {
    let wechat = wechat_with_accounts(2, &[]);
    let home = Home::with_accounts(2, &wechat.url(), "on_trouble = \"true\"\n");
    home.write(&format!("on_trouble = [\"./hook\"]\non_trouble_timeout = 20\n{}", home.config()));
    write_script(&home, RECORD);
    wechat.fault(FROZEN);
    home.run(&["fetch"]).exits(4);
    // a1 has its own.
    assert_eq!(told(&home), ["a0 begin 50004"]);
    // The account of the command line.
    let secret = home.path("a0.secret");
    let account = ["fetch", "--appid", "wx0", "--secret-file", secret.to_str().unwrap()];
    let at = ["--base-url", &wechat.url()];
    home.run(&[&account[..], &at].concat()).exits(4);
    assert_eq!(told(&home), ["a0 begin 50004", "default begin 50004"]);
}

#[test]
fn an_invalid_on_trouble_is_a_config_error() {
    for (keys, message) in [
        ("on_trouble = []", "account.a0.on_trouble: Put something in it"),
        ("on_trouble = \"mail -s x\"", "account.a0.on_trouble: Write a list, like"),
        (
            "on_trouble_timeout = 5",
            "account.a0.on_trouble_timeout: Leave it out, or give on_trouble",
        ),
    ] {
        let home = Home::with_accounts(1, "http://127.0.0.1:1", &format!("{keys}\n"));
        home.run(&["fetch"]).exits(2).says(&[message]);
    }
}

// How it can fail

#[test]
fn a_failed_on_trouble_runs_again_and_changes_no_status() {
    let (wechat, home) = home_with("");
    write_script(&home, &format!("{RECORD}; exit 3"));
    wechat.fault(FROZEN);
    let ran = home.run(&["fetch"]).exits(4);
    let failed = ": on_trouble failed: ";
    assert!(ran.stderr.contains(failed) && ran.stderr.contains("/hook exited with status 3"));
    home.run(&["fetch"]).exits(4);
    assert_eq!(told(&home).len(), 2);
    write_script(&home, RECORD);
    home.run(&["fetch"]).exits(4);
    home.run(&["fetch"]).exits(4);
    assert_eq!(told(&home).len(), 3);
    // Its end likewise.
    write_script(&home, &format!("{RECORD}; exit 3"));
    wechat.fault("none");
    let ran = home.run(&["fetch"]).exits(0);
    assert!(ran.stderr.contains(failed), "{}", ran.stderr);
    write_script(&home, RECORD);
    home.run(&["fetch"]).exits(0).silent();
    home.run(&["fetch"]).exits(0).silent();
    assert_eq!(told(&home)[3..], ["a0 end", "a0 end"]);
}

#[test]
fn a_trouble_whose_begin_could_not_be_told_ends_untold() {
    let (wechat, home) = home_with("");
    write_script(&home, "exit 3");
    wechat.fault(FROZEN);
    home.run(&["fetch"]).exits(4);
    write_script(&home, RECORD);
    wechat.fault("none");
    home.run(&["fetch"]).exits(0).silent();
    assert_eq!(told(&home), [""; 0]);
}

#[test]
fn on_trouble_that_takes_too_long_is_killed() {
    let (wechat, home) = home_with("on_trouble_timeout = \"1s\"\n");
    write_script(&home, "exec sleep 1000");
    wechat.fault(FROZEN);
    let ran = home.run(&["fetch"]).exits(4);
    assert!(
        ran.stderr.contains("was killed after 1s") && ran.stderr.contains("on_trouble_timeout"),
        "{}",
        ran.stderr
    );
}

// Several processes

#[test]
fn of_concurrent_fetches_one_tells_on_trouble() {
    let (wechat, home) = home_with("");
    // So that no process waits for the lock for longer than it tries to note the trouble.
    wechat.fault("errcode:40125");
    let fetches: Vec<_> = (0..8).map(|_| home.command(&["fetch"]).spawn().unwrap()).collect();
    for mut fetch in fetches {
        assert_eq!(fetch.wait().unwrap().code(), Some(4));
    }
    home.run(&["fetch"]).exits(4);
    assert_eq!(told(&home), ["a0 begin 40125"]);
}

/// A refresh holds the lock for as long as WeChat does not answer, which may be when the hook ends.
#[test]
fn what_was_told_while_another_process_held_the_lock_is_noted_all_the_same() {
    let (wechat, home) = home_with("");
    write_script(&home, &format!("{RECORD}\nwhile [ ! -e held ]; do sleep 0.02; done"));
    wechat.fault(FROZEN);
    let mut fetch = home.command(&["fetch"]).spawn().unwrap();
    eventually("the hook runs", || told(&home).len() == 1);
    let lock = fs::File::options().write(true).open(home.path("state/a0.lock")).unwrap();
    lock.lock().unwrap();
    fs::write(home.path("held"), "").unwrap();
    // For longer than a change of the record waits.
    std::thread::sleep(std::time::Duration::from_millis(2500));
    drop(lock);
    assert_eq!(fetch.wait().unwrap().code(), Some(4));
    home.run(&["fetch"]).exits(4);
    wechat.fault("none");
    home.run(&["fetch"]).exits(0).silent();
    assert_eq!(told(&home), ["a0 begin 50004", "a0 end"]);
}

#[test]
fn serve_tells_in_the_background_and_what_a_fetch_has_told_is_not_told_again() {
    let (wechat, home) = home_with("");
    wechat.fault(FROZEN);
    home.run(&["fetch"]).exits(4);
    let server = home.serve_with_log(&["--refresh", "-v"]);
    eventually("serve has failed", || home.has_logged("50004"));
    home.run(&["fetch"]).exits(4);
    assert_eq!(told(&home), ["a0 begin 50004"]);
    wechat.fault("none");
    server.signal("HUP");
    eventually("the end is told", || told(&home) == ["a0 begin 50004", "a0 end"]);
    eventually("serve knows it", || home.has_logged("serve: a0: on_trouble has run"));
    home.run(&["fetch"]).exits(0);
    // A dead token that cannot be replaced.
    wechat.fault(&format!("token/{FROZEN}"));
    wechat.kill_tokens();
    assert_eq!(server.report_rejected(&home.token("a0").unwrap()).status, 503);
    eventually("the next trouble is told", || told(&home).len() == 3);
    home.run(&["fetch"]).exits(4); // The token's document has ended, so it asks; it ends nothing, and tells nothing again.
    server.stop();
    let server = home.serve(&["--refresh"]);
    eventually("serve is ready", || server.get("/healthz").status == 200);
    server.stop();
    assert_eq!(told(&home)[2..], ["a0 begin 50004"]);
}

#[test]
fn a_failed_on_trouble_in_serve_is_in_the_metrics_until_it_has_run_well() {
    let (wechat, home) = home_with("");
    write_script(&home, "exit 3");
    wechat.fault(FROZEN);
    let server = home.serve_with_log(&["--refresh"]);
    let failed_at = || {
        let metrics = server.get("/metrics").body;
        let lead = "wxtoken_trouble_hook_last_failure_timestamp_seconds{account=\"a0\"} ";
        let value = metrics.lines().find_map(|line| line.strip_prefix(lead));
        value.expect("the metric is there").parse::<i64>().unwrap()
    };
    eventually("the failure is in the metrics", || failed_at() > 0);
    assert!(server.get("/").body.contains("<dt>on_trouble</dt>"));
    // A success of WeChat's ends the trouble, whose begin was never told: there is nothing to tell.
    write_script(&home, RECORD);
    wechat.fault("none");
    server.signal("HUP");
    eventually("there is nothing left to tell", || failed_at() == 0);
    assert_eq!(told(&home), [""; 0]);
}

/// Also while a trouble lasts.
#[test]
fn serve_takes_up_a_changed_on_trouble() {
    let (wechat, home) = home_with("");
    let with = home.config();
    home.write(&with.replace("on_trouble = [\"./hook\"]\n", ""));
    wechat.fault(FROZEN);
    let server = home.serve_with_log(&["--refresh"]);
    eventually("serve has failed", || home.has_logged("50004"));
    home.write(&with);
    eventually("the trouble is told", || told(&home) == ["a0 begin 50004"]);
    server.stop();
}

/// WeChat bans addresses, so each host has its own trouble.
#[needs(redis)]
#[test]
fn each_host_that_shares_a_redis_tells_its_own_trouble_once() {
    let redis = Redis::start();
    let (wechat, first) = home_with("");
    let second = Home::new(&first.config());
    second.put_secret("a0", &appsecret(0));
    write_script(&second, RECORD);
    let shared = format!("store = \"{}\"\n{}", redis.url(), first.config());
    [&first, &second].into_iter().for_each(|host| host.write(&shared));
    wechat.fault(FROZEN);
    for host in [&first, &second, &first, &second] {
        host.run(&["fetch"]).exits(4);
    }
    wechat.fault("none");
    for host in [&first, &second, &first, &second] {
        host.run(&["fetch"]).exits(0);
    }
    for host in [&first, &second] {
        assert_eq!(told(host), ["a0 begin 50004", "a0 end"]);
    }
}

// check

#[test]
fn check_reports_whether_on_trouble_is_executable() {
    let (_wechat, home) = home_with("");
    home.run(&["fetch"]).exits(0);
    let ran = home.run(&["check"]).exits(0);
    assert!(ran.stdout.contains("on_trouble runs "), "{}", ran.stdout);
    assert_eq!(told(&home), [""; 0]);
    fs::remove_file(home.path("hook")).unwrap();
    let ran = home.run(&["check"]).exits(7);
    assert!(ran.stdout.contains("on_trouble cannot run "), "{}", ran.stdout);
}
