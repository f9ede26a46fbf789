//! Limits and disks that are too small, and clocks that are set: whatever fails, the published document stays whole and promises
//! no more than WeChat honours, and what is short is named.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;

use crate::support::*;

/// Returns the command under a limit that bash sets.
fn limited(limit: &str, command: &Command) -> Command {
    wrapped(&["bash", "-c", &format!("ulimit {limit}; exec \"$@\""), "bash"], command)
}

/// Asserts that the document is whole, and that WeChat honours its token for as long as it promises.
#[track_caller]
fn is_kept(sandbox: &Sandbox, wechat: &WeChat, what: &str) {
    let document = sandbox.document();
    let token = document["access_token"].as_str().unwrap();
    assert!(wechat.is_alive(token), "{what}: {token} is published and dead");
    assert!(sandbox.left() <= 7200.0, "{what}");
}

/// Asserts that a run ends as the manual says, or that it could not go on: the loader found no memory, or Rust did not, or the
/// stack was used up. Returns whether it was one of ours.
#[track_caller]
fn ends_well(ran: &Run, what: &str) -> bool {
    let Run { status, stderr, .. } = ran;
    let is_of_loader = stderr.contains("shared librar") || stderr.contains("cannot execute");
    let is_of_runtime =
        ["memory allocation of", "overflowed its stack"].iter().any(|it| stderr.contains(it));
    match (status.code(), status.signal()) {
        (Some(0), _) => true,
        (Some(1..=7), _) => {
            assert!(stderr.contains("wxtoken: ") || stderr.contains("error: "), "{what}: {stderr}");
            assert!(!stderr.contains("fault in wxtoken"), "{what}: {stderr}");
            true
        }
        (Some(126 | 127), _) if is_of_loader => false,
        (_, Some(6)) if is_of_runtime => false,
        // Nothing can be written on a stack that is used up, or by a program that is not loaded.
        (_, Some(9 | 11)) => false,
        _ => panic!("{what}: {status}: {stderr}"),
    }
}

#[test]
fn promise_2_too_little_memory_or_stack_costs_no_token() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat).on("classic");
    sandbox.run(&["fetch"]).exits(0);
    let spaces = (10_000..90_000).step_by(8_000).map(|size| format!("-v {size}"));
    let stacks = [16, 128, 192, 256, 512].map(|size| format!("-s {size}"));
    let mut ended = 0;
    for limit in spaces.chain(stacks) {
        for args in
            [&["fetch", "--force", "--timeout", "30s"][..], &["get"], &["status"], &["check"]]
        {
            let mut command = sandbox.command(args);
            if args == ["check"] {
                command
                    .args(["--base-url", &wechat.url(), "--secret-file"])
                    .arg(sandbox.path("secret"));
            }
            let ran = Run::new(limited(&limit, &command));
            let what = format!("{limit}: {args:?}");
            ended += usize::from(ends_well(&ran, &what));
            is_kept(&sandbox, &wechat, &what);
            if args == ["get"] && ran.status.success() {
                assert_eq!(ran.json()["access_token"], sandbox.token().as_str(), "{what}");
            }
        }
    }
    assert!(ended > 0, "no limit lets it run");
    // Nothing that was cut off hinders the next run.
    sandbox.run(&["fetch", "--force"]).exits(0);
    assert_eq!(sandbox.published_names(), ["default.json", "default.lock", "default.state"]);
}

/// Fills a disk but for some blocks, or takes all of its inodes but for some, and refreshes by force.
const ON_SMALL_DISKS: &str = r#"
    run() {
        before=$(cat "$DIR/default.json")
        status=0; eval "$FETCH --force" 2> "$0/stderr" || status=$?
        after=$(cat "$DIR/default.json")
        case $status in
            0) [ "$before" != "$after" ] ;;
            1) [ "$before" = "$after" ] && grep -q 'No space left' "$0/stderr" ;;
            *) false ;;
        esac || { echo "$1: $status"; cat "$0/stderr"; exit 99; }
        for left in "$DIR"/.*.tmp "$DIR"/.*.now; do [ ! -e "$left" ] || { echo "$1 leaves $left"; exit 99; }; done
        echo "$status"
    }
    mount -t tmpfs -o size=96k tmpfs "$DIR"
    eval "$FETCH"
    dd if=/dev/zero of="$DIR/filler" bs=4k 2>/dev/null || :
    for blocks in 0 1 2 3 4 5 6 7 8 9 10; do run "$blocks blocks"; truncate -s -4k "$DIR/filler"; done
    umount "$DIR"
    for inodes in 4 5 6 7 8 9; do
        mount -t tmpfs -o nr_inodes=9 tmpfs "$DIR"
        eval "$FETCH"
        for number in $(seq $((9 - inodes))); do : > "$DIR/$number" 2>/dev/null || :; done
        run "$inodes inodes"
        umount "$DIR"
    done
"#;

#[needs(mount)]
#[test]
fn promise_2_a_disk_that_lacks_some_blocks_or_inodes_costs_no_token() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat).on("classic");
    fs::create_dir_all(sandbox.path("state")).unwrap();
    let fetch = sandbox.command(&["fetch"]);
    let words = std::iter::once(fetch.get_program()).chain(fetch.get_args());
    let words: Vec<_> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "bash", "-euc", ON_SMALL_DISKS]);
    command.arg(sandbox.path(""));
    command.env("FETCH", words.join(" ")).env("DIR", sandbox.path("state"));
    let ran = Run::new(command).exits(0);
    let statuses: Vec<_> = ran.stdout.lines().collect();
    assert!(statuses.contains(&"0") && statuses.contains(&"1"), "{statuses:?}");
    let failed = statuses.iter().filter(|it| **it == "1").count() as u64;
    let succeeded = statuses.len() as u64 - failed;
    // The first run of each disk publishes as well. One that fails asks for nothing.
    assert_eq!(wechat.mints(), succeeded + 7);
}

/// A quota of a user or of a project.
#[needs(strace)]
#[test]
fn promise_2_a_used_up_quota_is_found_out_before_wechat_is_asked() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let before = sandbox.document_bytes();
    let asked = wechat.asked();
    let state = sandbox.path("state");
    for call in ["write", "fsync"] {
        let inject = format!("inject={call}:error=EDQUOT");
        let file = state.join(".default.json.tmp").display().to_string();
        let trace = sandbox.path("trace");
        let words =
            ["strace", "-f", "-qq", "-o", trace.to_str().unwrap(), "-P", &file, "-e", &inject];
        let fetch = wrapped(&words, &sandbox.command(&["fetch", "--force"]));
        let ran = Run::new(fetch);
        assert!(fs::read_to_string(&trace).unwrap().contains("(INJECTED)"), "{call}");
        ran.exits(1).says(&["cannot write", "Disk quota exceeded"]);
        assert_eq!((sandbox.document_bytes(), wechat.asked()), (before.clone(), asked), "{call}");
    }
}

/// The library of libfaketime.
fn faketime() -> PathBuf {
    let libraries = fs::read_dir("/usr/lib").unwrap().map(|it| it.unwrap().path());
    let mut found =
        libraries.map(|it| it.join("faketime/libfaketimeMT.so.1")).filter(|it| it.exists());
    found.next().unwrap()
}

/// The wall clock of a running server is set, as ntpd does after a start, or an administrator by mistake. WeChat's is right.
#[needs(faketime)]
#[test]
fn promise_4_a_clock_that_is_set_costs_no_token_and_promises_none_that_is_dead() {
    let wechat = WeChat::start();
    for api in ["stable", "classic"] {
        let sandbox = Sandbox::new(&wechat).on(api);
        let clock = sandbox.path("clock");
        fs::write(&clock, "+0").unwrap();
        let on_clock = |command: &Command| {
            let mut command = wrapped(&["env"], command);
            command.env("LD_PRELOAD", faketime()).env("FAKETIME_TIMESTAMP_FILE", &clock);
            command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            command
        };
        let mut serve = sandbox.command(&["serve", "--refresh", "--listen", "127.0.0.1:0"]);
        serve.args(["--base-url", &wechat.url(), "--secret-file"]).arg(sandbox.path("secret"));
        let server = Server::start(on_clock(&serve), 1);
        eventually("a token", || server.get("/token").status == 200);
        // It is set for these processes.
        fs::write(&clock, "+40d").unwrap();
        let year_and_day = Run::new(on_clock(Command::new("date").args(["-u", "+%Y-%m-%d"])));
        assert_ne!(year_and_day.stdout.trim(), &time_ago(0)[..10]);
        for step in ["+2h", "+40d", "-1h", "-3d", "+0", "+5m", "-5m", "+0"] {
            fs::write(&clock, step).unwrap();
            let what = format!("{api}: {step}");
            eventually(&what, || server.get("/token").status == 200);
            let answer = server.get("/token").json();
            let token = answer["access_token"].as_str().unwrap();
            assert!(wechat.is_alive(token), "{what}: {token} is handed out and dead");
            assert!(
                (1..=7200).contains(&answer["expires_in"].as_i64().unwrap()),
                "{what}: {answer}"
            );
            let got = Run::new(on_clock(&sandbox.command(&["get"]))).exits(0).json();
            assert!(wechat.is_alive(got["access_token"].as_str().unwrap()), "{what}");
            Run::new(on_clock(&sandbox.command(&["fetch"]))).exits(0);
            assert!(wechat.is_alive(&sandbox.token()), "{what}");
        }
        // On classic each mint costs those who have the token: two days' steps are no reason for more than a few.
        assert!(wechat.mints() <= 20, "{api}: {} mints", wechat.mints());
        assert!(!server.stop().contains("fault in wxtoken"));
    }
}
