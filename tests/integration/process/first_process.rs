//! wxtoken as process 1 of a container: it reaps what hooks leave behind, and signals end it although the kernel has no default
//! actions for it.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Command, Stdio};

use crate::support::home::{Home, wechat_with_accounts};
use crate::support::*;

/// `O_NONBLOCK` on Linux.
const NONBLOCKING: i32 = 0o4000;

/// Returns the command as process 1 of a PID namespace. It is killed with the process that is started.
fn as_first_process(command: &Command) -> Command {
    let unshare =
        ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"];
    wrapped(&unshare, command)
}

/// Returns the children of a process, running or not reaped.
fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Returns the process that `unshare` has started.
fn first_process(unshare: u32) -> u32 {
    eventually("there is a process 1", || children(unshare).len() == 1);
    children(unshare)[0]
}

fn send(signal: &str, pid: u32) {
    let kill = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
    assert!(kill.unwrap().success());
}

/// Leaves behind processes that end later, one in a session of its own, and fails with status 7.
const HOOK: &str = r#"#!/bin/sh
cd "$(dirname "$0")"
for n in 1 2 3; do (sleep 0.$n && echo >> ended &); done
(setsid sh -c 'sleep 0.5 && echo >> ended' &)
sleep 1
exit 7
"#;

#[needs(pid_namespace)]
#[test]
fn what_hooks_leave_behind_is_reaped_and_their_own_status_is_not_lost() {
    let accounts = 8;
    let wechat = wechat_with_accounts(accounts, &[]);
    let home = Home::with_accounts(accounts, &wechat.url(), "");
    let config = home.config().replace("appid =", "on_change = [\"./hook\"]\nappid =");
    home.write(&config);
    write_program(&home.path("hook"), HOOK);
    let serve = home.command(&["serve", "--refresh", "--listen", "127.0.0.1:0"]);
    let server = Server::start_with_log(&as_first_process(&serve), &home.path("log"));
    let first = first_process(server.pid());
    for n in 0..accounts {
        let line = format!("serve: a{n}: See what ");
        eventually("the failure is logged", || home.has_logged(&line));
    }
    let log = fs::read_to_string(home.path("log")).unwrap();
    assert_eq!(log.matches("exited with status 7").count(), accounts, "{log}");
    let ended = || fs::read_to_string(home.path("ended")).unwrap().len();
    eventually("all have ended", || ended() == 4 * accounts);
    eventually("all are reaped", || children(first).is_empty());
    send("TERM", first);
    assert_eq!(server.end().0.code(), Some(0));
}

/// Starts `fetch` as process 1, and waits until `is_ready`. Then sends SIGTERM, and returns how it ends.
fn end_fetch(fetch: &Command, is_ready: impl FnMut() -> bool) -> Run {
    let fetch = as_first_process(fetch).stderr(Stdio::piped()).spawn().unwrap();
    eventually("it has begun", is_ready);
    send("TERM", first_process(fetch.id()));
    Run::from_output(fetch.wait_with_output().unwrap())
}

#[needs(pid_namespace)]
#[test]
fn sigterm_ends_fetch_also_as_process_1() {
    let wechat = WeChat::with(&["--fault", "hang"]);
    let sandbox = Sandbox::new(&wechat);
    let fetch = sandbox.command(&["fetch", "--timeout", "1h"]);
    let ran = end_fetch(&fetch, || wechat.asked() == 1).exits(128 + 15);
    assert!(ran.stderr.contains("told to end"), "{ran:?}");

    // While nothing is asked: it waits for its secret.
    let pipe = sandbox.path("secret");
    fs::remove_file(&pipe).unwrap();
    assert!(Command::new("mkfifo").args(["-m", "600"]).arg(&pipe).status().unwrap().success());
    let mut writer = None;
    let is_awaited = || {
        writer = OpenOptions::new().write(true).custom_flags(NONBLOCKING).open(&pipe).ok();
        writer.is_some()
    };
    let ran = end_fetch(&fetch, is_awaited).exits(128 + 15);
    assert_eq!(ran.stderr, "");
}
