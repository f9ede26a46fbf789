//! A host that is short of descriptors, memory or threads: that is said, and not that the network is to blame.

use std::path::Path;
use std::process::Command;

use crate::files::open_to_all;
use crate::support::home::Home;
use crate::support::redis::Redis;
use crate::support::*;

const REMEDY: [&str; 4] = ["ulimit -u and -n", "LimitNOFILE=", "TasksMax=", "文件描述符不足"];

/// Returns the command with this limit on descriptors.
fn with_descriptors(limit: usize, command: &Command) -> Command {
    wrapped(&["bash", "-c", &format!("ulimit -n {limit}; exec \"$@\""), "bash"], command)
}

/// A user of whom nothing else runs, as the limit counts all threads of a user. For root there is none.
const LONE_USER: &str = "64321";

/// Another one, for a test that runs beside.
const OTHER_LONE_USER: &str = "64323";

/// Returns the words before a command that this user is to run.
fn as_user(user: &str) -> [&str; 6] {
    ["setpriv", "--reuid", user, "--regid", user, "--clear-groups"]
}

/// Returns the command with this limit on threads and processes, run by `user` from a copy of the program.
fn with_threads(limit: usize, user: &str, program: &Path, command: &Command) -> Command {
    let mut copy = with_environment_of(command, program);
    copy.args(command.get_args());
    // The user may raise it as far again.
    let limit = format!("--nproc={limit}:{MOST_THREADS}");
    wrapped(&[&as_user(user)[..], &["prlimit", &limit]].concat(), &copy)
}

const MOST_THREADS: usize = 64;

/// Changes this limit of a server that [`OTHER_LONE_USER`] runs.
fn set_threads(limit: usize, server: &Server) {
    let (pid, limit) = (server.pid().to_string(), format!("--nproc={limit}:{MOST_THREADS}"));
    let [setpriv, user @ ..] = as_user(OTHER_LONE_USER);
    let set = Command::new(setpriv).args(user).args(["prlimit", "--pid", &pid, &limit]).status();
    assert!(set.unwrap().success());
}

/// Gives the sandbox's files to this user.
fn give_to(user: &str, sandbox: &Sandbox) {
    let chown = Command::new("chown").args(["-R", user]).arg(sandbox.path("")).status();
    assert!(chown.unwrap().success());
}

/// Asserts that a run that has failed for want of descriptors says so. Returns whether it was the way to a server that failed.
#[track_caller]
fn says_what_is_short(ran: &Run) -> bool {
    let stderr = &ran.stderr;
    // The loader of programs needs some, too.
    if ran.status.code() == Some(0) || stderr.contains("shared librar") {
        return false;
    }
    assert!(stderr.contains("Too many open files"), "{stderr}");
    for part in REMEDY {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
    for wrong in ["Check network", "cannot reach", "no address", "Name or service"] {
        assert!(!stderr.contains(wrong), "{wrong}: {stderr}");
    }
    stderr.contains("was not asked")
}

#[test]
fn without_descriptors_fetch_says_so_whatever_needs_one() {
    let wechat = WeChat::start();
    let port = wechat.address().port();
    for host in ["127.0.0.1", "localhost"] {
        let mut failed_on_the_way = 0;
        for limit in 3..20 {
            let sandbox = Sandbox::with_base_url(&format!("http://{host}:{port}"));
            let fetch = sandbox.command(&["fetch", "--timeout", "1s"]);
            let ran = in_time(|| Run::new(with_descriptors(limit, &fetch)));
            failed_on_the_way += usize::from(says_what_is_short(&ran));
        }
        assert!(failed_on_the_way > 0, "{host}");
    }
}

#[needs(redis)]
#[test]
fn without_descriptors_redis_is_not_blamed() {
    let redis = Redis::start();
    let wechat = WeChat::start();
    for host in ["127.0.0.1", "localhost"] {
        let store = redis.url().replace("127.0.0.1", host);
        for limit in 3..20 {
            let home = Home::on_redis("stable", &wechat.url(), &store, "");
            let fetch = home.command(&["fetch", "--timeout", "1s"]);
            let ran = in_time(|| Run::new(with_descriptors(limit, &fetch)));
            if !ran.stderr.contains("WeChat refused") {
                says_what_is_short(&ran);
            }
        }
    }
}

#[needs(strace)]
#[test]
fn without_memory_for_a_socket_fetch_says_so() {
    let wechat = WeChat::start();
    for error in ["ENOBUFS", "ENOMEM", "ENFILE"] {
        let sandbox = Sandbox::new(&wechat);
        let trace = sandbox.path("trace");
        let fault = format!("inject=socket:error={error}");
        let strace = ["strace", "-f", "-qq", "-o", trace.to_str().unwrap(), "-e", "trace=socket"];
        let strace = [&strace[..], &["-e", &fault]].concat();
        let fetch = sandbox.command(&["fetch", "--timeout", "1s"]);
        let ran = in_time(|| Run::new(wrapped(&strace, &fetch))).exits(5);
        let ran = ran.says(&["WeChat was not asked"]).mentions(&REMEDY);
        assert!(!ran.stderr.contains("Check network"), "{ran:?}");
    }
}

#[needs(root)]
#[test]
fn promise_2_without_threads_it_is_said_and_the_published_token_is_handed_out() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat).on("classic");
    sandbox.run(&["fetch"]).exits(0);
    let program = open_to_all(&sandbox.path(""));
    give_to(LONE_USER, &sandbox);
    let (secret, base_url) = (sandbox.path("secret"), wechat.url());
    let account = ["--secret-file", secret.to_str().unwrap(), "--base-url", &base_url];
    let (mut failed, mut succeeded) = (0, 0);
    for limit in 1..6 {
        let limited =
            |args: &[&str]| with_threads(limit, LONE_USER, &program, &sandbox.command(args));
        let before = sandbox.token();
        let ran = in_time(|| Run::new(limited(&["fetch", "--force", "--timeout", "5s"])));
        if ran.status.code() == Some(0) {
            succeeded += 1;
        } else {
            ran.exits(5).says(&["WeChat was not asked"]).mentions(&REMEDY);
            assert_eq!(sandbox.token(), before);
            failed += 1;
        }
        Run::new(limited(&["get", "-r"])).exits(0).prints(&[&sandbox.token()]);
        let serve = ["serve", "--refresh", "--listen", "127.0.0.1:0"];
        let server = Server::start(limited(&[&serve[..], &account].concat()), 1);
        assert_eq!(server.get("/token").json()["access_token"], sandbox.token(), "{limit}");
    }
    assert!(failed > 0 && succeeded > 0, "{failed} {succeeded}");
}

/// Sends `GET path` with this key.
fn get_with(server: &Server, path: &str, key: &NewKey) -> Response {
    server.send(&format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\r\n",
        key.key
    ))
}

/// Returns the value of the metric about the keys file, if it is there yet.
fn keys_are_followed(server: &Server, key: &NewKey) -> Option<bool> {
    let body = get_with(server, "/metrics", key).body;
    let metric = "wxtoken_reload_last_successful{files=\"keys\"} ";
    let value = body.lines().find_map(|line| line.strip_prefix(metric));
    value.map(|value| value == "1")
}

#[needs(root)]
#[test]
fn without_threads_a_key_is_withdrawn_all_the_same_or_it_is_said_once_that_files_are_not_followed()
{
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:9");
    sandbox.publish("T1", 7200, 0);
    let program = open_to_all(&sandbox.path(""));
    let (php, monitoring) = (new_key(&["php"]), new_key(&["monitoring"]));
    let keys = sandbox.path("keys");
    let serve = ["serve", "--listen", "127.0.0.1:0", "--keys", keys.to_str().unwrap()];
    let serve = sandbox.command(&serve);
    let put_keys = |text: &str| {
        write_with_mode(&sandbox.path("new"), text, 0o644);
        give_to(OTHER_LONE_USER, &sandbox);
        std::fs::rename(sandbox.path("new"), &keys).unwrap();
    };
    let both = format!("{}\n{}\n", php.line, monitoring.line);
    put_keys(&both);

    // The threads for looking at files are there when there can be no more.
    let limited = with_threads(MOST_THREADS, OTHER_LONE_USER, &program, &serve);
    let server = Server::start(limited, 1);
    eventually("the keys file is followed", || {
        keys_are_followed(&server, &monitoring) == Some(true)
    });
    set_threads(1, &server);
    assert_eq!(get_with(&server, "/token", &php).status, 200);
    put_keys(&format!("{}\n", monitoring.line));
    eventually("the key is withdrawn", || get_with(&server, "/token", &php).status == 401);
    assert_eq!(keys_are_followed(&server, &monitoring), Some(true));
    let stderr = server.stop();
    assert!(!stderr.contains("no more threads"), "{stderr}");

    // There are none from the start.
    put_keys(&both);
    let log = sandbox.path("log");
    let limited = with_threads(1, OTHER_LONE_USER, &program, &serve);
    let server = Server::start_with_log(&limited, &log);
    eventually("the keys file is not followed", || {
        keys_are_followed(&server, &monitoring) == Some(false)
    });
    let pid = server.pid().to_string();
    let said = || {
        let log = std::fs::read_to_string(&log).unwrap();
        let lines = log.lines().filter(|it| it.contains("the last good keys stay"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    // A look comes each second: the time of many more is waited for by their number in the kernel.
    let switches = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let count = status.lines().find_map(|it| it.strip_prefix("voluntary_ctxt_switches:"));
        count.unwrap().trim().parse::<u64>().unwrap()
    };
    let before = switches();
    eventually("it looks again", || switches() > before + 5);
    let lines = said();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("Raise ulimit -u, or TasksMax="), "{lines:?}");
    // With threads it goes on, without a reload.
    put_keys(&format!("{}\n", monitoring.line));
    set_threads(MOST_THREADS, &server);
    eventually("the key is withdrawn", || get_with(&server, "/token", &php).status == 401);
    assert_eq!(keys_are_followed(&server, &monitoring), Some(true));
}
