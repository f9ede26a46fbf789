//! Files that are pipes, or larger than what is read, are refused by name: nothing waits for them, and nothing is cut off.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support::home::Home;
use crate::support::tls::{Authority, Identity};
use crate::support::*;

fn make_pipe(sandbox: &Sandbox, name: &str) -> PathBuf {
    let path = sandbox.path(name);
    let made = Command::new("mkfifo").args(["-m", "0600"]).arg(&path).status();
    assert!(made.unwrap().success());
    path
}

/// Runs a command, which has to end although no process writes to its pipe.
#[track_caller]
fn ended(mut command: Command) -> Run {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if std::time::Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it waits for the pipe: {command:?}");
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    Run::from_output(child.wait_with_output().unwrap())
}

#[test]
fn a_run_ends_within_its_timeout_although_the_secret_is_a_pipe_without_a_writer() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    let pipe = make_pipe(&sandbox, "pipe");
    for verb in ["check", "fetch"] {
        let mut command = sandbox.command(&[verb, "--timeout", "1s"]);
        if verb == "fetch" {
            command = wxtoken();
            command.args(["fetch", "--timeout", "1s", "--appid", APPID]);
        }
        command.arg("--secret-file").arg(&pipe);
        let ran = ended(command).exits(if verb == "check" { 5 } else { 2 });
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(said.contains("it is a pipe that was not written and closed within 1s"), "{said}");
    }
}

/// A pipe whose writer takes its time, such as one that asks for a passphrase, is waited for.
#[needs(root)]
#[test]
fn a_secret_in_a_pipe_is_read_when_it_comes() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let pipe = make_pipe(&sandbox, "pipe");
    let mut command = wxtoken();
    command.args(["fetch", "--appid", APPID, "--base-url", &wechat.url(), "--dir"]);
    command.arg(sandbox.path("state")).arg("--secret-file").arg(&pipe);
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    fs::write(&pipe, format!("{SECRET}\n")).unwrap();
    Run::from_output(child.wait_with_output().unwrap()).exits(0).silent();
}

#[test]
fn check_and_serve_wait_for_no_file_that_is_a_pipe() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    let pipe = make_pipe(&sandbox, "pipe").display().to_string();
    let check = |flags: &[&str]| {
        let mut command = wxtoken();
        command.args(["check", "--timeout", "2s", "--appid", APPID]).args(flags);
        command.args(["--base-url", "http://127.0.0.1:1"]).env("HOME", sandbox.path(""));
        if !flags.contains(&"--dir") {
            command.arg("--dir").arg(sandbox.path("state"));
        }
        ended(command)
    };
    let said = |ran: Run| format!("{}{}", ran.stdout, ran.stderr);
    for (flags, expected) in [
        (["--ca-file", &pipe], "not a regular file"),
        (["--file", &pipe], "not a regular file"),
        (["--dir", &pipe], "Not a directory"),
    ] {
        let said = said(check(&flags));
        assert!(said.contains(expected), "{flags:?}: {said}");
    }
    fs::create_dir_all(sandbox.path("state")).unwrap();
    fs::rename(&pipe, sandbox.path("state/default.lock")).unwrap();
    let said = said(check(&["-v"]));
    assert!(said.contains("not a plain file"), "{said}");

    let home = Home::new("");
    let pipe = home.path("pipe");
    for config in [
        "[account.a]\nappid = 'wx1'\nsecret_file = 'pipe'\n",
        "[account.a]\nappid = 'wx1'\nca_file = 'pipe'\n",
        "[account.a]\nfrom = 'http://127.0.0.1:1'\nkey_file = 'pipe'\n",
        "store = 'redis://127.0.0.1:1'\n[redis]\npassword_file = 'pipe'\ntimeout = '1s'\n[account.a]\nappid = 'wx1'\n",
        "store = 'rediss://127.0.0.1:1'\n[redis]\nca_file = 'pipe'\ntimeout = '1s'\n[account.a]\nappid = 'wx1'\n",
        "[serve]\nkeys = 'pipe'\n[account.a]\nappid = 'wx1'\n",
        "[serve]\nallow_file = 'pipe'\n[account.a]\nappid = 'wx1'\n",
    ] {
        let _ = fs::remove_file(&pipe);
        assert!(Command::new("mkfifo").args(["-m", "0600"]).arg(&pipe).status().unwrap().success());
        home.write(config);
        ended(home.command(&["check", "--timeout", "2s"]));
        if config.contains("[serve]") {
            ended(home.command(&["serve", "--listen", "127.0.0.1:0"]))
                .exits(2)
                .says(&["pipe", "not a plain file"]);
        }
    }
    fs::rename(&pipe, home.path("wxtoken.toml")).unwrap();
    ended(home.command(&["check"])).exits(2).says(&["wxtoken.toml", "not a plain file"]);
}

/// A CA at the end of a file that is cut off would be missing without a word.
#[test]
fn a_pem_file_beyond_the_bound_is_refused_by_name() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let ca = Authority::new();
    let Identity { cert, key } = ca.sign();
    let large = |pem: &str| format!("{pem}{}{pem}", "# a comment\n".repeat(400_000));
    for (name, text) in [("large.pem", large(&cert)), ("cert.pem", cert), ("key.pem", key)] {
        write_with_mode(&sandbox.path(name), &text, 0o600);
    }
    let [large, cert, key] =
        ["large.pem", "cert.pem", "key.pem"].map(|it| sandbox.path(it).display().to_string());
    let too_large = ["large.pem", "it is larger than 4 MiB"];
    sandbox.run(&["fetch", "--ca-file", &large]).exits(2).says(&too_large).says(&["CA file"]);
    for (flag, flags) in [
        ("--tls-cert", ["--tls-cert", &large, "--tls-key", &key, "--allow", "127.0.0.1"]),
        ("--tls-key", ["--tls-cert", &cert, "--tls-key", &large, "--allow", "127.0.0.1"]),
        ("--tls-client-ca", ["--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca", &large]),
    ] {
        sandbox.serve_refused(&flags).says(&too_large).says(&[flag]);
    }
    let home = Home::new(&format!(
        "store = 'rediss://127.0.0.1:1'\n[redis]\nca_file = '{large}'\n[account.a]\nappid = 'wx1'\n"
    ));
    home.run(&["get", "a"]).exits(3).says(&too_large);
    assert_eq!(wechat.asked(), 0);
}
