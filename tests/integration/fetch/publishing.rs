//! Publishing a token that WeChat has issued, on a machine where something is in the way: an answer that arrived is not lost.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use rustix::fs::inotify;

use crate::support::home::{Home, appsecret, wechat_with_accounts};
use crate::support::proxy::HoldingProxy;
use crate::support::*;

/// Returns whether a trace has a call that strace made go wrong.
fn has_fault(trace: &Path) -> bool {
    fs::read_to_string(trace).unwrap().contains("(INJECTED)")
}

#[needs(strace)]
#[test]
fn promise_2_a_fault_that_passes_costs_no_mint_whichever_call_fails() {
    std::thread::scope(|scope| {
        for (api, calls) in [
            ("classic", "rename,renameat,renameat2"),
            ("classic", "fsync"),
            ("stable", "fsync"),
            ("classic", "write,ftruncate"),
            ("classic", "lseek,statx,fstat,newfstatat"),
        ] {
            scope.spawn(move || {
                let wechat = WeChat::start();
                let mut mints = 0;
                for number in 1.. {
                    let sandbox = Sandbox::new(&wechat).on(api);
                    let (trace, inject) =
                        (sandbox.path("trace"), format!("inject={calls}:error=EIO:when={number}"));
                    let faults = ["-e", &format!("trace={calls}"), "-e", &inject];
                    let fetch = sandbox.command(&["fetch"]);
                    let ran = Run::new(with_faults(&faults, &trace, &fetch));
                    if !has_fault(&trace) {
                        assert!(number > 1, "{calls} is called");
                        ran.exits(0).silent();
                        break;
                    }
                    let minted = wechat.mints() - mints;
                    mints += minted;
                    match ran.status.code() {
                        Some(0) => assert!(wechat.is_alive(&sandbox.token()), "{inject}"),
                        // Found out before WeChat was asked. On a fault while the program starts there is no message.
                        _ => assert_eq!((minted, sandbox.document_path().exists()), (0, false)),
                    }
                    assert!(!sandbox.path("state/.default.json.tmp").exists(), "{inject}");
                }
            });
        }
    });
}

/// More faults than one: the file that was prepared fails twice, and is given up for another.
#[needs(strace)]
#[test]
fn promise_2_an_answer_is_published_when_the_disk_fails_for_a_moment_after_it() {
    for (calls, first_after_answer) in [("fsync", 4), ("/^rename", 4)] {
        let wechat = WeChat::start();
        let sandbox = Sandbox::new(&wechat).on("classic");
        let trace = sandbox.path("trace");
        let last = first_after_answer + 2;
        let inject = format!("inject={calls}:error=ENOSPC:when={first_after_answer}..{last}");
        let fetch = sandbox.command(&["fetch", "--timeout", "1s"]);
        let faults = ["-e", &format!("trace={calls}"), "-e", &inject];
        Run::new(with_faults(&faults, &trace, &fetch)).exits(0).silent();
        assert_eq!(fs::read_to_string(&trace).unwrap().matches("(INJECTED)").count(), 3);
        assert!(wechat.is_alive(&sandbox.token()));
        assert_eq!(wechat.mints(), 1);
        let names = ["default.json", "default.lock", "default.state"];
        assert_eq!(sandbox.published_names(), names);
    }
}

/// Such a directory takes new files and never renames them.
#[needs(chattr)]
#[test]
fn promise_2_an_append_only_directory_is_found_out_before_wechat_is_asked() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    sandbox.publish("T_STILL_GOOD", 7200, 7100);
    fs::write(sandbox.path("state/default.lock"), "").unwrap();
    let change = |flag: &str, name: &str| {
        let changed = Command::new("chattr").arg(flag).arg(sandbox.path(name)).status();
        assert!(changed.unwrap().success());
    };
    for (flag, undo, name, what) in [
        ("+a", "-a", "state", "state is append-only"),
        ("+i", "-i", "state", "state is immutable"),
        ("+a", "-a", "state/default.json", "default.json is append-only"),
        ("+i", "-i", "state/default.json", "default.json is immutable"),
    ] {
        change(flag, name);
        let ran = sandbox.run(&["fetch"]);
        let checked = sandbox.run(&["check"]);
        change(undo, name);
        ran.exits(1).says(&[what, "lsattr -d", &format!("chattr {undo}"), "无法替换"]);
        assert!(checked.stdout.contains(what), "{}", checked.stdout);
        assert_eq!(sandbox.published_names(), ["default.json", "default.lock"]);
    }
    assert_eq!((wechat.asked(), sandbox.token()), (0, "T_STILL_GOOD".to_owned()));
    sandbox.run(&["fetch"]).exits(0).silent();
}

/// Makes every fsync of the directory of documents fail with this error.
fn without_directory_sync(home: &Home, error: &str, command: &Command) -> Command {
    let state = home.path("state");
    fs::create_dir_all(&state).unwrap();
    let inject = format!("inject=fsync:error={error}");
    with_faults(&["-P", state.to_str().unwrap(), "-e", &inject], &home.path("trace"), command)
}

/// Returns a host with account `a0`, with `more` in its config, and a hook that may be there.
fn home_with_hook(base_url: &str, more: &str) -> Home {
    let home = Home::with_accounts(1, base_url, more);
    write_program(&home.path("hook"), "#!/bin/sh\necho run >> \"${0%/*}/runs\"\n");
    home
}

const HOOK: &str = "on_change = [\"./hook\"]\n";

#[needs(strace)]
#[test]
fn the_hook_runs_for_a_token_that_is_published_although_the_directory_cannot_be_synced() {
    let wechat = wechat_with_accounts(1, &[]);
    let home = home_with_hook(&wechat.url(), HOOK);
    let fetch = without_directory_sync(&home, "EIO", &home.command(&["fetch"]));
    Run::new(fetch).exits(0).says(&["is replaced", "cannot be synced", "in force", "断电"]);
    assert!(has_fault(&home.path("trace")));
    assert!(wechat.is_alive(&home.token("a0").unwrap()));
    assert_eq!(fs::read_to_string(home.path("runs")).unwrap(), "run\n");

    let home = home_with_hook(&wechat.url(), HOOK);
    let serve = home.command(&["serve", "--refresh", "--listen", "127.0.0.1:0"]);
    let server = Server::start(without_directory_sync(&home, "EIO", &serve), 1);
    eventually("the hook has run", || home.path("runs").exists());
    end_traced(&server);
    let (_, stderr) = server.end();
    assert!(stderr.contains("cannot be synced") && !stderr.contains("failed"), "{stderr}");
}

#[needs(strace)]
#[test]
fn a_file_system_that_cannot_sync_directories_is_no_fault() {
    for error in ["EINVAL", "EOPNOTSUPP"] {
        let wechat = wechat_with_accounts(1, &[]);
        let home = home_with_hook(&wechat.url(), HOOK);
        let fetch = without_directory_sync(&home, error, &home.command(&["fetch"]));
        Run::new(fetch).exits(0).silent();
        assert!(has_fault(&home.path("trace")));
        assert_eq!(fs::read_to_string(home.path("runs")).unwrap(), "run\n");
    }
}

/// Returns how much a program that watches the file at `path` is told while `act` runs; 0 if it does not wake.
fn events_of(path: &Path, act: impl FnOnce()) -> usize {
    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    let watch = inotify::init(flags).unwrap();
    let changes = inotify::WatchFlags::ALL_EVENTS
        - inotify::WatchFlags::OPEN
        - inotify::WatchFlags::ACCESS
        - inotify::WatchFlags::CLOSE_NOWRITE;
    inotify::add_watch(&watch, path, changes).unwrap();
    act();
    let mut events = Vec::new();
    let _ = File::from(watch).read_to_end(&mut events); // Ends with an error: there are no more.
    events.len()
}

#[test]
fn programs_that_watch_the_document_do_not_wake_while_it_stays() {
    let wechat = WeChat::start();
    for api in ["stable", "classic", "work"] {
        let sandbox = Sandbox::new(&wechat).on(api);
        sandbox.publish("T1", 7200, 7000);
        let path = sandbox.document_path();
        wechat.fault("errcode:40164");
        let refused = events_of(&path, || drop(sandbox.run(&["fetch"]).exits(4)));
        let checked = events_of(&path, || drop(sandbox.run(&["check"])));
        wechat.fault("none");
        sandbox.publish("T1", 7200, 0);
        let kept = events_of(&path, || drop(sandbox.run(&["fetch"]).exits(0)));
        assert_eq!((refused, checked, kept), (0, 0, 0), "{api}");
        let replaced = events_of(&path, || drop(sandbox.run(&["fetch", "--force"]).exits(0)));
        assert!(replaced > 0);
    }
}

/// Rewrites a mirror's document as if it had been published this long ago.
fn make_older(path: &Path, age: i64) {
    let mut document: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    document["created_at"] = time_ago(age).into();
    document["expires_in"] = (document["expires_in"].as_i64().unwrap() + age).into();
    if let Some(boottime) = document["boottime"].as_f64() {
        document["boottime"] = (boottime - age as f64).into();
    }
    write_with_mode(path, &document.to_string(), 0o600);
}

#[test]
fn a_mirror_whose_source_gives_the_same_token_writes_no_document() {
    let wechat = wechat_with_accounts(1, &[]);
    let first = Home::with_accounts(1, &wechat.url(), "");
    let server = first.serve(&["--refresh"]);
    let from = format!("[account.a0]\nfrom = \"http://{}\"\n", server.address());
    let mirror = Home::new(&from);
    mirror.run(&["fetch"]).exits(0).silent();
    let path = mirror.document_path("a0");
    assert_eq!(events_of(&path, || drop(mirror.run(&["fetch", "--force"]).exits(0))), 0);
    let lock = File::options().write(true).open(mirror.path("state/a0.lock")).unwrap();
    let confirming = || {
        // It is too old to rely on; after it was confirmed, no other run asks for a while.
        make_older(&path, 600);
        lock.set_modified(SystemTime::now() - Duration::from_secs(600)).unwrap();
        events_of(&path, || {
            mirror.run(&["fetch", "-v"]).exits(0).mentions(&["confirmed"]);
            mirror.run(&["fetch", "-v"]).exits(0).mentions(&["not due"]);
        })
    };
    // An answer that takes seconds, on a busy machine, promises less than the one before, which has to be written.
    assert!((0..20).any(|_| confirming() == 0));
    let served = mirror.serve(&["--refresh"]);
    assert_eq!(events_of(&path, || assert_eq!(served.get("/token/a0").status, 200)), 0);
    // What is another token, or ends at another time, is written.
    make_older(&path, 60);
    let mut document = fs::read_to_string(&path).unwrap();
    document = document.replace("\"expires_in\":7", "\"expires_in\":6");
    write_with_mode(&path, &document, 0o600);
    assert_ne!(events_of(&path, || drop(mirror.run(&["fetch", "--force"]).exits(0))), 0);
    wechat.kill_tokens();
    let dead = mirror.token("a0").unwrap();
    let replaced = events_of(&path, || drop(mirror.run(&["fetch", "--rejected", &dead]).exits(0)));
    assert_ne!(replaced, 0);
    assert!(wechat.is_alive(&mirror.token("a0").unwrap()));
}

/// A process that is killed at each rename leaves each of its temporary files.
#[needs(strace)]
#[test]
fn the_next_run_of_a_verb_that_writes_removes_what_killed_ones_left() {
    let wechat = WeChat::start();
    for killed in [&["fetch", "--force"][..], &["check"]] {
        for number in 1..=4 {
            let next = ["fetch", "check", "serve"][number % 3];
            let sandbox = Sandbox::new(&wechat).on("classic");
            sandbox.publish("T1", 7200, 60);
            let inject = format!("inject=rename,renameat,renameat2:signal=KILL:when={number}");
            let command = sandbox.command(killed);
            let ran = Run::new(with_faults(&["-e", &inject], &sandbox.path("trace"), &command));
            if ran.status.signal() != Some(9) {
                assert!(number > 2, "{killed:?} renames");
                break;
            }
            assert_ne!(sandbox.published_names(), ["default.json", "default.lock"], "{killed:?}");
            match next {
                "serve" => drop(sandbox.serve_refreshing(&[]).stop()),
                verb => drop(sandbox.run(&[verb])),
            }
            let names = sandbox.published_names();
            assert!(!names.iter().any(|name| name.starts_with('.')), "{killed:?} {next} {names:?}");
        }
    }
}

// The end of the process.

/// WeChat behind a proxy that holds its answers.
fn held_wechat() -> (WeChat, HoldingProxy) {
    let wechat = wechat_with_accounts(1, &[]);
    let proxy = HoldingProxy::new(wechat.address());
    proxy.hold();
    (wechat, proxy)
}

#[test]
fn promise_2_a_signal_during_a_request_waits_for_the_answer_and_publishes_it() {
    for (name, number) in [("TERM", 15), ("INT", 2), ("HUP", 1), ("QUIT", 3), ("ALRM", 14)] {
        let (wechat, proxy) = held_wechat();
        let more = &format!("api = \"classic\"\n{HOOK}");
        let home = home_with_hook(&proxy.url(), more);
        let fetch =
            with_default_signals(&home.command(&["fetch"])).stderr(Stdio::piped()).spawn().unwrap();
        eventually("WeChat has answered", || wechat.mints() == 1);
        send(name, fetch.id());
        proxy.release();
        let output = fetch.wait_with_output().unwrap();
        assert_eq!(output.status.signal(), Some(number), "{output:?}");
        assert!(wechat.is_alive(&home.token("a0").unwrap()), "{name}");
        assert_eq!(fs::read_to_string(home.path("runs")).unwrap(), "run\n");
    }
}

#[test]
fn a_signal_during_a_request_ends_fetch_after_a_moment_if_no_answer_comes() {
    let wechat = WeChat::with(&["--fault", "hang"]);
    let sandbox = Sandbox::new(&wechat);
    sandbox.publish("T_STILL_GOOD", 7200, 7100);
    let mut fetch = sandbox.command(&["fetch", "--timeout", "1h"]);
    let fetch = fetch.stderr(Stdio::piped()).spawn().unwrap();
    eventually("WeChat is asked", || wechat.asked() == 1);
    send("TERM", fetch.id());
    let output = fetch.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), Some(15));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("told to end") && stderr.contains("终止"), "{stderr}");
    assert_eq!((wechat.asked(), sandbox.token()), (1, "T_STILL_GOOD".to_owned()));
}

#[test]
fn a_refusal_that_comes_after_a_signal_is_reported() {
    let (wechat, proxy) = held_wechat();
    let home = home_with_hook(&proxy.url(), "");
    home.put_secret("a0", &appsecret(7));
    let fetch = home.command(&["fetch"]).stderr(Stdio::piped()).spawn().unwrap();
    eventually("WeChat is asked", || wechat.asked() == 1);
    send("TERM", fetch.id());
    proxy.release();
    let output = fetch.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), Some(15));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("fetch: a0: ") && stderr.contains("no live token"), "{stderr}");
}

/// Stopped by SIGSTOP, as by a suspended machine. The answer comes and the deadline passes meanwhile.
#[test]
fn promise_2_a_fetch_that_was_stopped_past_its_deadline_publishes_what_came() {
    let (wechat, proxy) = held_wechat();
    let home = home_with_hook(&proxy.url(), "api = \"classic\"\n");
    let fetch = home.command(&["fetch", "--timeout", "10s"]).spawn().unwrap();
    eventually("WeChat has answered", || wechat.mints() == 1);
    send("STOP", fetch.id());
    proxy.release();
    std::thread::sleep(Duration::from_secs(11));
    send("CONT", fetch.id());
    let output = fetch.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(wechat.is_alive(&home.token("a0").unwrap()));
    assert_eq!(wechat.mints(), 1);
}

/// The answer comes shortly before the server's time to shut down is over, and the disk fails beyond that.
#[needs(strace)]
#[test]
fn promise_2_a_server_that_shuts_down_publishes_what_came_although_the_disk_fails_for_a_moment() {
    let (wechat, proxy) = held_wechat();
    let home = home_with_hook(&proxy.url(), "api = \"classic\"\n");
    let serve = home.command(&["serve", "--refresh", "--listen", "127.0.0.1:0"]);
    let faults = ["-e", "trace=/^rename", "-e", "inject=/^rename:error=ENOSPC:when=3..12"];
    let server = Server::start(with_faults(&faults, &home.path("trace"), &serve), 1);
    eventually("WeChat has answered", || wechat.mints() == 1);
    end_traced(&server);
    std::thread::sleep(Duration::from_millis(3500));
    proxy.release();
    server.end();
    assert!(has_fault(&home.path("trace")));
    assert!(wechat.is_alive(&home.token("a0").unwrap()));
}

// Limits of this machine.

#[test]
fn promise_2_a_limit_on_file_sizes_is_found_out_before_wechat_is_asked() {
    let wechat = WeChat::start();
    for blocks in [0, 1, 7] {
        let sandbox = Sandbox::new(&wechat);
        let limited = ["bash", "-c", &format!("ulimit -f {blocks}; exec \"$@\""), "bash"];
        let fetch = wrapped(&limited, &sandbox.command(&["fetch"]));
        let parts = ["cannot write", "File too large", "ulimit -f", "LimitFSIZE=", "文件大小限制"];
        Run::new(fetch).exits(1).says(&parts);
        assert_eq!(sandbox.published_names(), ["default.lock"]);
    }
    assert_eq!(wechat.asked(), 0);
    // What a reader prints is limited, too.
    let sandbox = Sandbox::new(&wechat);
    sandbox.publish("T1", 7200, 0);
    let limited = ["bash", "-c", "ulimit -f 0; exec \"$@\" >\"$0\""];
    let output = sandbox.path("output");
    let limited = [&limited[..], &[output.to_str().unwrap()]].concat();
    let get = wrapped(&limited, &sandbox.command(&["get"]));
    Run::new(get).exits(1).says(&["get: ", "File too large"]);
}

/// Makes every attempt to start a thread fail from this one on, counted for each thread.
fn without_threads(first: &str, trace: &Path, command: &Command) -> Command {
    let inject = format!("inject=clone,clone3:error=EAGAIN:when={first}");
    with_faults(&["-e", "trace=clone,clone3", "-e", &inject], trace, command)
}

#[needs(strace)]
#[test]
fn without_threads_fetch_says_so_or_does_without() {
    let wechat = WeChat::start();
    // The first thread of the thread that asks: it resolves the name itself.
    let sandbox = Sandbox::new(&wechat);
    let fetch = without_threads("1", &sandbox.path("trace"), &sandbox.command(&["fetch"]));
    Run::new(fetch).exits(0).silent();
    assert!(wechat.is_alive(&sandbox.token()));
    for first in ["1+", "2+"] {
        let sandbox = Sandbox::new(&wechat);
        let fetch = sandbox.command(&["fetch", "--timeout", "1s"]);
        let fetch = without_threads(first, &sandbox.path("trace"), &fetch);
        let parts = ["no thread", "ulimit -u", "TasksMax=", "网络"];
        let ran = Run::new(fetch).exits(5).says(&parts[..3]);
        assert!(!ran.stderr.contains("panicked") && !ran.stderr.contains(parts[3]), "{ran:?}");
    }
}

#[needs(strace)]
#[test]
fn without_threads_for_a_moment_serve_refreshes_and_runs_the_hook_later() {
    let wechat = wechat_with_accounts(1, &[]);
    // Those of the server's thread: for the secrets, for the signals, for stdout and for the job, or for the hook and a look at
    // the config. And of the hook's thread: for the hook.
    for faults in ["1..3", "2..4", "5..6"] {
        let home = home_with_hook(&wechat.url(), HOOK);
        let serve = home.command(&["serve", "--refresh", "--listen", "127.0.0.1:0"]);
        let server = Server::start(without_threads(faults, &home.path("trace"), &serve), 1);
        eventually("the hook has run", || home.path("runs").exists());
        assert!(wechat.is_alive(&home.token("a0").unwrap()));
        end_traced(&server);
        let (_, stderr) = server.end();
        assert!(!stderr.contains("panicked"), "{stderr}");
        assert!(stderr.contains("no more threads") || faults != "2..4", "{stderr}");
    }
}
