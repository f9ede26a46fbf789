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

/// Returns the command with this limit on threads and processes, run by [`LONE_USER`] from a copy of the program.
fn with_threads(limit: usize, program: &Path, command: &Command) -> Command {
    let mut copy = with_environment_of(command, program);
    copy.args(command.get_args());
    let limit = format!("--nproc={limit}:{limit}");
    let words = ["setpriv", "--reuid", LONE_USER, "--regid", LONE_USER, "--clear-groups"];
    wrapped(&[&words[..], &["prlimit", &limit]].concat(), &copy)
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
    let program = open_to_all(&sandbox);
    let chown = Command::new("chown").args(["-R", LONE_USER]).arg(sandbox.path("")).status();
    assert!(chown.unwrap().success());
    let (secret, base_url) = (sandbox.path("secret"), wechat.url());
    let account = ["--secret-file", secret.to_str().unwrap(), "--base-url", &base_url];
    let (mut failed, mut succeeded) = (0, 0);
    for limit in 1..6 {
        let limited = |args: &[&str]| with_threads(limit, &program, &sandbox.command(args));
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
