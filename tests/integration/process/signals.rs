//! The signals that end a process by default: none of them ends `serve` without its answers, or `fetch` without its answer, and
//! not while `serve` starts either.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::stderr::full_pipe;
use crate::support::*;

/// `O_NONBLOCK` on Linux.
const NONBLOCKING: i32 = 0o4000;

fn send(signal: &str, child: &Child) {
    let kill = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status();
    assert!(kill.unwrap().success());
}

#[test]
fn every_signal_that_asks_for_the_end_is_a_clean_end_of_serve() {
    for name in ["TERM", "INT", "QUIT", "USR1", "USR2", "ALRM", "VTALRM", "PROF", "XCPU"] {
        let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
        sandbox.publish("T1", 7200, 0);
        let socket = sandbox.path("socket");
        let listen = format!("unix:{}", socket.display());
        let serve = sandbox.command(&["serve", "--listen", &listen]);
        let server = Server::start(with_default_signals(&serve), 1);
        // A request that has begun is answered.
        let mut caller = Caller::new(connect_unix(&server.addresses[0]));
        caller.send("GET /token HTTP/1.1\r\nHost: localhost\r\n");
        server.signal(name);
        eventually("it listens no longer", || !socket.exists());
        caller.send("\r\n");
        assert_eq!(caller.answer().status, 200, "{name}");
        let (status, stderr) = server.end();
        assert_eq!((status.code(), &*stderr), (Some(0), ""), "{name}");
    }
}

/// Opens a pipe for writing once another process waits for what is written there.
fn open_when_awaited(path: &Path) -> File {
    let mut opened = None;
    eventually("the secret is awaited", || {
        opened = OpenOptions::new().write(true).custom_flags(NONBLOCKING).open(path).ok();
        opened.is_some()
    });
    opened.unwrap()
}

/// Starts `serve --refresh`, which waits for its secret. Its stderr is the file `log`.
fn serve_waiting_for_secret(wechat: &WeChat, sandbox: &Sandbox) -> (Child, File) {
    let pipe = sandbox.path("pipe");
    assert!(Command::new("mkfifo").args(["-m", "600"]).arg(&pipe).status().unwrap().success());
    let mut serve = sandbox.command(&["serve", "-v", "--refresh", "--listen", "127.0.0.1:0"]);
    serve.args(["--base-url", &wechat.url(), "--secret-file"]).arg(&pipe);
    write_with_mode(&sandbox.path("config"), "refresh_before = '5m'\n", 0o644);
    serve.arg("--config").arg(sandbox.path("config"));
    let mut serve = with_default_signals(&serve);
    let log = File::create(sandbox.path("log")).unwrap();
    let child = serve.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
    let writer = open_when_awaited(&pipe);
    (child, writer)
}

#[test]
fn a_signal_ends_serve_cleanly_while_it_starts() {
    let wechat = WeChat::start();
    for name in ["TERM", "INT", "QUIT"] {
        let sandbox = Sandbox::new(&wechat);
        let (child, _writer) = serve_waiting_for_secret(&wechat, &sandbox);
        send(name, &child);
        let ran = Run::from_output(child.wait_with_output().unwrap()).exits(0);
        assert_eq!(ran.stdout, "", "{name}");
    }
}

#[test]
fn sighup_while_serve_starts_is_followed_when_it_has_started() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let (child, mut writer) = serve_waiting_for_secret(&wechat, &sandbox);
    send("HUP", &child);
    writer.write_all(SECRET.as_bytes()).unwrap();
    drop(writer);
    // The reload reads it again.
    fs::rename(sandbox.path("secret"), sandbox.path("pipe")).unwrap();
    let log = || fs::read_to_string(sandbox.path("log")).unwrap();
    eventually("it has reloaded", || log().contains("read accounts and access rules again"));
    eventually("the token is published", || sandbox.document_path().exists());
    send("TERM", &child);
    let ran = Run::from_output(child.wait_with_output().unwrap()).exits(0);
    assert!(ran.stdout.starts_with("listening on "), "{ran:?}");
}

#[test]
fn serve_answers_and_ends_although_its_stdout_is_not_read() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 0);
    let socket = sandbox.path("socket");
    let listen = format!("unix:{}", socket.display());
    let mut serve = sandbox.command(&["serve", "--listen", &listen]);
    let (_reader, writer) = full_pipe(true);
    let child = serve.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    // The file is there before connections are taken.
    eventually("it listens", || UnixStream::connect(&socket).is_ok());
    let mut caller = Caller::new(connect_unix(&listen));
    assert_eq!(caller.get("/token").status, 200);
    send("TERM", &child);
    let ran = Run::from_output(child.wait_with_output().unwrap()).exits(0);
    assert_eq!(ran.stderr, "");
    assert!(!socket.exists());
}
