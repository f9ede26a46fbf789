//! Promise 2: the published token stays, whatever goes wrong, and a local fault never burns a mint.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::support::*;

/// The faults of the mock that make `fetch` fail, with its exit status.
const FAULTS: &[(&str, i32)] = &[
    ("errcode:-1", 5),
    ("errcode:40001", 4),
    ("errcode:40002", 4),
    ("errcode:40013", 4),
    ("errcode:40125", 4),
    ("errcode:40164", 4),
    ("errcode:40243", 4),
    ("errcode:45009", 4),
    ("errcode:45011", 4),
    ("errcode:50004", 4),
    ("errcode:61024", 4),
    ("errcode:89503", 4),
    ("errcode:77777", 4),
    ("http:301", 5),
    ("http:403", 5),
    ("http:404", 4),
    ("http:412", 4),
    ("http:500", 5),
    ("http:502", 5),
    ("slow:30", 5),
    ("hang", 5),
    ("reset", 5),
    ("close", 5),
    ("lost", 5),
    ("nothttp", 5),
    ("garbage", 5),
    ("html", 5),
    ("empty", 5),
    ("redirect", 5),
    ("echo", 4),
    ("escape", 4),
    ("array", 5),
    ("null", 5),
    ("depth", 5),
    ("huge", 5),
    ("truncated", 5),
    ("half", 5),
    ("drip", 5),
    ("notoken", 5),
    ("emptytoken", 5),
    ("longtoken", 5),
    ("badtoken", 5),
    ("noexpiry", 5),
    ("zero", 5),
    ("negative", 5),
    ("forever", 5),
    ("fraction", 5),
    ("both", 5),
];

/// The faults that are valid answers of an unusual form.
const HARMLESS: &[&str] = &["slow:1", "string", "errzero"];

/// A permanent failure needs no short one, and all of a short one is spent on a transient failure.
fn timeout(exit: i32) -> &'static str {
    if exit == 4 { "60s" } else { "2s" }
}

/// Whether fetch gets an answer, or learns at once that there is none.
fn is_answered(fault: &str) -> bool {
    !["hang", "drip", "slow:30"].contains(&fault)
}

/// The names of the files, without that of what some refusals leave for the next run.
fn names_without_record(sandbox: &Sandbox) -> Vec<String> {
    let mut names = sandbox.published_names();
    names.retain(|name| name != "default.state");
    names
}

#[test]
fn no_fault_of_wechat_touches_the_published_document() {
    // Side by side: most of the time is spent in waiting out a timeout.
    std::thread::scope(|scope| {
        for faults in FAULTS.chunks(FAULTS.len().div_ceil(8)) {
            scope.spawn(move || {
                let wechat = WeChat::start();
                let apis = ["stable", "classic", "work"];
                for (api, (fault, exit)) in
                    faults.iter().flat_map(|fault| apis.map(|api| (api, fault)))
                {
                    let sandbox = Sandbox::new(&wechat).on(api);
                    sandbox.publish("T_STILL_GOOD", 7200, 7100);
                    let before = sandbox.document_bytes();
                    wechat.fault(fault);
                    let ran = sandbox.run(&["fetch", "--timeout", timeout(*exit)]);
                    assert_eq!(ran.status.code(), Some(*exit), "{api} {fault}: {}", ran.stderr);
                    ran.says(&["wxtoken: fetch: default: "]);
                    assert_eq!(sandbox.document_bytes(), before, "{api} {fault}");
                    let names = names_without_record(&sandbox);
                    assert_eq!(names, ["default.json", "default.lock"], "{api} {fault}");
                    assert_eq!(sandbox.run(&["get", "-r"]).exits(0).stdout, "T_STILL_GOOD\n");
                }
            });
        }
    });
}

/// On classic every call that WeChat receives invalidates the published token five minutes later, whether the answer arrives or
/// not. An answer that proves that no token was minted costs nothing.
#[test]
fn no_fault_costs_a_token_that_lives_longer_more_than_an_unheard_call_does() {
    let is_sure = |fault: &str| {
        fault.starts_with("errcode:")
            || ["http:301", "http:403", "http:404", "http:412", "redirect", "echo", "escape"]
                .contains(&fault)
    };
    std::thread::scope(|scope| {
        for faults in FAULTS.chunks(FAULTS.len().div_ceil(8)) {
            scope.spawn(move || {
                let wechat = WeChat::start();
                for (fault, exit) in faults {
                    let sandbox = Sandbox::new(&wechat).on("classic");
                    wechat.fault(fault);
                    let mut before = Value::Null;
                    let mut fetch = || {
                        sandbox.publish("T_STILL_GOOD", 7200, 1000);
                        before = sandbox.document();
                        sandbox.run(&["fetch", "--force", "--timeout", timeout(*exit)])
                    };
                    let ran = if is_answered(fault) {
                        in_time(fetch)
                    } else {
                        let asked = wechat.asked();
                        let mut ran = fetch();
                        eventually("the call is sent within the timeout", || {
                            let is_sent = wechat.asked() > asked;
                            if !is_sent {
                                ran = fetch();
                            }
                            is_sent
                        });
                        ran
                    };
                    let ran = ran.exits(*exit);
                    let left = sandbox.left();
                    assert_eq!(sandbox.token(), "T_STILL_GOOD", "{fault}");
                    if is_sure(fault) {
                        assert_eq!(sandbox.document(), before, "{fault}");
                        assert!(!ran.stderr.contains("ends at"), "{fault}: {}", ran.stderr);
                    } else {
                        assert!((200.0..=300.0).contains(&left), "{fault}: {left} s");
                        ran.says(&["the published token", "ends at 20", "有效期已改为"]);
                    }
                    assert_eq!(names_without_record(&sandbox), ["default.json", "default.lock"]);
                    assert_eq!(sandbox.run(&["get", "-r"]).exits(0).stdout, "T_STILL_GOOD\n");
                }
            });
        }
    });
}

#[test]
fn a_call_that_was_never_sent_costs_nothing() {
    for base_url in ["http://127.0.0.1:1", "https://wechat.invalid", "https://127.0.0.1:1"] {
        let sandbox = Sandbox::with_base_url(base_url).on("classic");
        sandbox.publish("T_STILL_GOOD", 7200, 1000);
        let before = sandbox.document();
        let ran = sandbox.run(&["fetch", "--force", "--timeout", "1s"]).exits(5);
        assert!(!ran.stderr.contains("ends at"), "{base_url}: {}", ran.stderr);
        assert_eq!(sandbox.document(), before, "{base_url}");
    }
}

#[test]
fn a_valid_answer_of_an_unusual_form_is_accepted() {
    let wechat = WeChat::start();
    for fault in HARMLESS {
        let sandbox = Sandbox::new(&wechat);
        wechat.fault(fault);
        sandbox.run(&["fetch"]).exits(0).silent();
        assert!(wechat.is_alive(&sandbox.token()), "{fault}");
    }
}

#[test]
fn every_fault_of_the_mock_is_tested_here() {
    let name = |fault: &str| fault.split(':').next().unwrap_or_default().to_owned();
    let tried: Vec<_> =
        FAULTS.iter().map(|(fault, _)| *fault).chain(HARMLESS.iter().copied()).map(name).collect();
    for fault in WeChat::start().faults() {
        assert!(tried.contains(&name(&fault)), "{fault} is not tried");
    }
}

#[test]
fn without_wechat_fetch_exits_with_5_and_the_token_stays() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T_STILL_GOOD", 7200, 7100);
    sandbox
        .run(&["fetch", "--timeout", "1s"])
        .exits(5)
        .says(&["cannot reach WeChat", "无法连接微信"]);
    assert_eq!(sandbox.token(), "T_STILL_GOOD");
}

#[test]
fn transient_failures_are_retried_and_permanent_ones_are_not() {
    let wechat = WeChat::start();
    for fault in ["errcode:-1@1", "http:503@1", "reset@1", "close@1"] {
        let sandbox = Sandbox::new(&wechat);
        let before = wechat.asked();
        wechat.fault(fault);
        sandbox.run(&["fetch"]).exits(0).silent();
        assert_eq!(wechat.asked() - before, 2, "{fault}");
    }
    for fault in
        ["errcode:40164@1", "errcode:45009@1", "html@1", "empty@1", "http:404@1", "redirect@1"]
    {
        let sandbox = Sandbox::new(&wechat);
        let before = wechat.asked();
        wechat.fault(fault);
        assert_ne!(sandbox.run(&["fetch"]).status.code(), Some(0), "{fault}");
        assert_eq!(wechat.asked() - before, 1, "{fault}");
        wechat.fault("none");
    }
}

#[test]
fn a_damaged_document_is_replaced_since_a_new_token_is_the_cure() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    for damage in ["", "{\"access_token\":\"T", "not json", "{}"] {
        fs::create_dir_all(sandbox.path("state")).unwrap();
        write_with_mode(&sandbox.document_path(), damage, 0o600);
        sandbox.run(&["get"]).exits(3).says(&["default.json is no document"]);
        sandbox.run(&["fetch"]).exits(0).silent();
        assert!(wechat.is_alive(&sandbox.token()));
    }
}

#[test]
fn another_accounts_document_is_left_alone() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let other = r#"{"appid":"wxother","access_token":"T","expires_in":60,"created_at":"2026-01-01T00:00:00Z"}"#;
    fs::create_dir_all(sandbox.path("state")).unwrap();
    write_with_mode(&sandbox.document_path(), other, 0o600);
    let place = format!("{} belongs to wxother", sandbox.document_path().display());
    sandbox.run(&["fetch", "--force"]).exits(2).says(&[&place, "--file", "另行指定"]);
    assert_eq!(sandbox.document_bytes(), other.as_bytes());
    assert_eq!(wechat.asked(), 0);
}

#[test]
fn a_target_that_cannot_be_replaced_costs_no_call() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let directory = sandbox.path("state/default.json");
    fs::create_dir_all(&directory).unwrap();
    sandbox.run(&["fetch"]).exits(1).says(&["default.json"]);
    fs::remove_dir(&directory).unwrap();
    std::os::unix::fs::symlink("elsewhere.json", &directory).unwrap();
    sandbox.run(&["fetch"]).exits(1).says(&["default.json is a symbolic link"]);
    fs::remove_file(&directory).unwrap();

    write_with_mode(&sandbox.path("file"), "", 0o600);
    sandbox
        .run(&["fetch", "--file", sandbox.path("file/x.json").to_str().unwrap()])
        .exits(1)
        .says(&["cannot"]);
    sandbox.run(&["fetch", "--mode", "0400"]).exits(2);
    sandbox.run(&["fetch", "--mode", "999"]).exits(2);
    sandbox.run(&["fetch", "--file", "x.lock"]).exits(2).says(&["x.lock"]);
    sandbox.run(&["fetch", "--file", "x.state"]).exits(2).says(&["x.state"]);
    assert_eq!(wechat.asked(), 0);
}

#[test]
fn a_slash_at_the_end_of_a_file_name_does_no_harm() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let file = format!("{}/", sandbox.path("state/x.json").display());
    sandbox.run(&["fetch", "--file", &file]).exits(0).silent();
    sandbox.run(&["get", "--file", &file]).exits(0);
    assert_eq!(sandbox.published_names(), ["x.json", "x.lock", "x.state"]);
}

#[test]
fn a_fifo_in_place_of_the_document_blocks_no_command() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    fs::create_dir_all(sandbox.path("state")).unwrap();
    assert!(Command::new("mkfifo").arg(sandbox.document_path()).status().unwrap().success());
    sandbox.run(&["get"]).exits(3).says(&["not a regular file"]);
    sandbox.run(&["status"]).exits(3).mentions(&["not a regular file"]);
    sandbox.run(&["fetch"]).exits(1).says(&["not a regular file"]);
    let ca_file = sandbox.document_path();
    sandbox
        .run(&["fetch", "--ca-file", ca_file.to_str().unwrap()])
        .exits(2)
        .says(&["not a regular file"]);
    assert_eq!(wechat.asked(), 0);
}

#[test]
fn a_time_out_of_range_is_a_damaged_document() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    fs::create_dir_all(sandbox.path("state")).unwrap();
    for time in ["9999-12-31T23:59:59-23:59", "0000-01-01T00:00:00+23:59"] {
        let text = format!(
            r#"{{"appid":"{APPID}","access_token":"T","expires_in":7200,"created_at":"{time}"}}"#
        );
        write_with_mode(&sandbox.document_path(), &text, 0o600);
        sandbox.run(&["get"]).exits(3).says(&["created_at"]);
        sandbox.run(&["fetch"]).exits(0).silent();
    }
}

/// Runs a shell script in a mount namespace, where it can make disks full and read-only. `$DIR` is the directory of documents,
/// `$FETCH` the command.
fn run_in_mount_namespace(sandbox: &Sandbox, script: &str) -> Run {
    fs::create_dir_all(sandbox.path("state")).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "bash", "-euc", script]);
    let fetch = sandbox.command(&["fetch"]);
    let words = std::iter::once(fetch.get_program()).chain(fetch.get_args());
    let words: Vec<_> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    command.env("FETCH", words.join(" ")).env("DIR", sandbox.path("state"));
    Run::new(command)
}

#[needs(mount)]
#[test]
fn a_full_disk_is_found_out_before_wechat_is_asked() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let script = r#"
        mount -t tmpfs -o size=64k tmpfs "$DIR"
        echo '{"appid":"wx0123456789abcdef","access_token":"T","expires_in":60,"created_at":"2026-01-01T00:00:00Z"}' > "$DIR/default.json"
        before=$(cat "$DIR/default.json")
        dd if=/dev/zero of="$DIR/filler" bs=4k 2>/dev/null || true
        status=0; eval "$FETCH" || status=$?
        [ "$before" = "$(cat "$DIR/default.json")" ]
        [ ! -e "$DIR/.default.json.tmp" ]
        exit $status
    "#;
    let ran = run_in_mount_namespace(&sandbox, script);
    ran.exits(1).says(&["cannot write", "No space left"]);
    assert_eq!(wechat.asked(), 0);
}

/// On classic a token with a long life is cut before the call, which takes room for a second file.
#[needs(mount)]
#[test]
fn a_disk_with_room_for_the_next_document_only_is_found_out_as_well() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat).on("classic");
    let script = r#"
        mount -t tmpfs -o size=64k tmpfs "$DIR"
        touch "$DIR/default.lock"
        now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
        echo '{"appid":"wx0123456789abcdef","access_token":"T","expires_in":7200,"created_at":"'$now'"}' > "$DIR/default.json"
        before=$(cat "$DIR/default.json")
        dd if=/dev/zero of="$DIR/filler" bs=4k 2>/dev/null || true
        truncate -s -8k "$DIR/filler"
        status=0; eval "$FETCH --force" || status=$?
        [ "$before" = "$(cat "$DIR/default.json")" ]
        [ ! -e "$DIR/.default.json.tmp" ] && [ ! -e "$DIR/.default.json.now" ]
        exit $status
    "#;
    let ran = run_in_mount_namespace(&sandbox, script);
    ran.exits(1).says(&["cannot write", ".default.json.now", "No space left"]);
    assert_eq!(wechat.asked(), 0);
}

#[needs(mount)]
#[test]
fn a_read_only_directory_is_found_out_before_wechat_is_asked() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let script = r#"
        mount -t tmpfs tmpfs "$DIR"
        touch "$DIR/default.lock"
        mount -o remount,ro "$DIR"
        eval "$FETCH"
    "#;
    let ran = run_in_mount_namespace(&sandbox, script);
    ran.exits(1).says(&["cannot", "Read-only file system"]);
    assert_eq!(wechat.asked(), 0);
}

#[needs(mount)]
#[test]
fn a_file_mounted_on_its_own_is_found_out_before_wechat_is_asked() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let script = r#"
        touch "$DIR/default.json"
        mount --bind "$DIR/default.json" "$DIR/default.json"
        eval "$FETCH"
    "#;
    let ran = run_in_mount_namespace(&sandbox, script);
    ran.exits(1).says(&["Mount its directory, not the file"]);
    assert_eq!(wechat.asked(), 0);
}
