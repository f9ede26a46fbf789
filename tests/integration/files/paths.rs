//! What a user who can rename directories, or put links in place of files, makes a wxtoken of root do: nothing to other
//! files.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use super::OTHER_USER;
use crate::support::home::{Home, wechat_with_accounts};
use crate::support::redis::Redis;
use crate::support::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Starts this command, stops it when it has made the first of these system calls, calls `meanwhile`, and lets it go on to
/// its end.
#[track_caller]
fn stopped_after(calls: &str, command: &Command, trace: &Path, meanwhile: impl FnOnce()) -> Run {
    let inject = format!("inject={calls}:signal=STOP:when=1");
    let calls = format!("trace={calls}");
    let strace =
        ["strace", "-f", "-qq", "-o", trace.to_str().unwrap(), "-e", &calls, "-e", &inject];
    let mut command = wrapped(&strace, command);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let mut stopped = None;
    eventually("the process stops", || {
        let trace = fs::read_to_string(trace).unwrap_or_default();
        stopped = trace.lines().find(|line| line.contains("stopped by SIGSTOP")).map(str::to_owned);
        stopped.is_some()
    });
    meanwhile();
    let pid = stopped.unwrap().split_whitespace().next().unwrap().to_owned();
    assert!(Command::new("kill").args(["-CONT", &pid]).status().unwrap().success());
    Run::from_output(child.wait_with_output().unwrap())
}

/// The owner of the directory above exchanges the new one for a link.
#[needs(root)]
#[needs(strace)]
#[test]
fn a_directory_that_is_exchanged_for_a_link_while_root_creates_it_changes_no_other() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let (theirs, precious) = (sandbox.path("theirs"), sandbox.path("precious"));
    for dir in [&theirs, &precious] {
        fs::create_dir(dir).unwrap();
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).unwrap();
    }
    chown(&theirs, Some(OTHER_USER), Some(OTHER_USER)).unwrap();
    let mut fetch = sandbox.command(&["fetch", "--mode", "0644"]);
    fetch.arg("--file").arg(theirs.join("new/token.json"));
    let calls = "mkdir,mkdirat";
    let ran = stopped_after(calls, &fetch, &sandbox.path("trace"), || {
        fs::rename(theirs.join("new"), theirs.join("moved")).unwrap();
        symlink(&precious, theirs.join("new")).unwrap();
    });
    assert_eq!(mode(&precious), 0o700, "{ran:?}");
    assert_eq!(fs::read_dir(&precious).unwrap().count(), 0, "{ran:?}");
    ran.exits(1).says(&["cannot create directory"]);
    assert_eq!(wechat.asked(), 0);
}

/// The owner of the directory exchanges the new socket for a link.
#[needs(root)]
#[needs(strace)]
#[test]
fn a_socket_that_is_exchanged_for_a_link_while_root_binds_it_changes_no_other_file() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    let (theirs, precious) = (sandbox.path("theirs"), sandbox.path("precious"));
    fs::create_dir(&theirs).unwrap();
    chown(&theirs, Some(OTHER_USER), Some(OTHER_USER)).unwrap();
    write_with_mode(&precious, "precious", 0o600);
    let socket = theirs.join("socket");
    let mut serve = sandbox.command(&["serve"]);
    serve.arg("--listen").arg(format!("unix:{}", socket.display()));
    let ran = stopped_after("bind", &serve, &sandbox.path("trace"), || {
        fs::remove_file(&socket).unwrap();
        symlink(&precious, &socket).unwrap();
    });
    assert_eq!((mode(&precious), fs::read(&precious).unwrap()), (0o600, b"precious".to_vec()));
    assert!(socket.is_symlink(), "what is not ours is not removed");
    ran.exits(1).says(&["cannot listen on unix:", "something else was put in place of the socket"]);
}

/// With Redis, the document on this host is a copy.
#[needs(redis)]
#[test]
fn a_link_in_place_of_a_document_or_of_its_copy_changes_no_other_file() {
    let redis = Redis::start();
    let wechat = wechat_with_accounts(1, &[]);
    let on_redis = Home::on_redis("stable", &wechat.url(), &redis.url(), "");
    let in_files = Home::with_accounts(1, &wechat.url(), "");
    for home in [on_redis, in_files] {
        home.run(&["fetch"]).exits(0).silent();
        let precious = home.path("precious");
        write_with_mode(&precious, &fs::read_to_string(home.document_path("a0")).unwrap(), 0o644);
        fs::remove_file(home.document_path("a0")).unwrap();
        symlink(&precious, home.document_path("a0")).unwrap();
        for arguments in [&["fetch", "--mode", "0600"][..], &["fetch", "--force", "--mode", "0600"]]
        {
            home.run(arguments);
            assert_eq!(mode(&precious), 0o644, "{arguments:?}");
        }
        let _server = home.serve(&["--refresh", "--mode", "0600"]);
        assert_eq!(mode(&precious), 0o644);
    }
}

/// A mode that another user chose would let that user read the token.
#[needs(root)]
#[needs(redis)]
#[test]
fn a_copy_takes_no_mode_from_a_file_that_another_user_put_there() {
    let redis = Redis::start();
    let wechat = wechat_with_accounts(1, &[]);
    let hosts = [(); 2].map(|()| Home::on_redis("stable", &wechat.url(), &redis.url(), ""));
    hosts[0].run(&["fetch"]).exits(0).silent();
    super::make_shared(&hosts[1].path("state"));
    let copy = hosts[1].document_path("a0");
    write_with_mode(&copy, "", 0o666);
    chown(&copy, Some(OTHER_USER), Some(OTHER_USER)).unwrap();
    hosts[1].run(&["get", "a0"]).exits(0);
    assert_eq!(mode(&copy), 0o600);
    assert_eq!(hosts[1].token("a0"), hosts[0].token("a0"));
}

/// No mode and no owner is changed by a path, which could lead elsewhere by then.
#[needs(root)]
#[needs(strace)]
#[test]
fn modes_and_owners_are_changed_through_descriptors_only() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    fs::create_dir(sandbox.path("theirs")).unwrap();
    chown(sandbox.path("theirs"), Some(OTHER_USER), Some(OTHER_USER)).unwrap();
    let trace = sandbox.path("trace");
    let calls = "trace=chmod,fchmod,fchmodat,chown,lchown,fchown,fchownat";
    let strace = ["strace", "-f", "-qq", "-o", trace.to_str().unwrap(), "-e", calls];
    let traced = || fs::read_to_string(&trace).unwrap();
    let by_path = |trace: &str| {
        let calls =
            trace.lines().filter(|line| !line.contains("fchmod(") && !line.contains("fchown("));
        calls.filter(|line| line.contains('(')).map(str::to_owned).collect::<Vec<_>>()
    };
    for arguments in [&["fetch", "--mode", "0640"][..], &["fetch", "--mode", "0600"]] {
        let mut fetch = sandbox.command(arguments);
        fetch.arg("--file").arg(sandbox.path("theirs/a/b/token.json"));
        Run::new(wrapped(&strace, &fetch)).exits(0).silent();
        assert!(traced().contains("fchmod("));
        assert_eq!(by_path(&traced()), [""; 0]);
    }
    let mut fetch = sandbox.command(&["fetch"]);
    fetch.arg("--file").arg(sandbox.path("theirs/token.json"));
    Run::new(wrapped(&strace, &fetch)).exits(0).silent();
    assert!(traced().contains("fchown("));
    assert_eq!(by_path(&traced()), [""; 0]);
    let mut serve = sandbox.command(&["serve"]);
    serve.arg("--listen").arg(format!("unix:{}", sandbox.path("socket").display()));
    // The server is the process that is started, and is killed as all servers are.
    let strace = [&strace[..1], &["-D"], &strace[1..]].concat();
    drop(Server::start(wrapped(&strace, &serve), 1));
    // The descriptor of a socket's file.
    let by_path = by_path(&traced());
    assert!(!by_path.is_empty() && by_path.iter().all(|call| call.contains("\"/proc/self/fd/")));
}
