//! `wxtoken get`: its output, exit statuses, sources, and what it does not touch.

use std::process::{Command, Stdio};

use crate::support::*;

#[test]
fn get_prints_one_line_of_json_in_wechats_format() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 0);
    let ran = sandbox.run(&["get"]).exits(0);
    assert_eq!(ran.stderr, "");
    assert_eq!(ran.stdout.lines().count(), 1);
    let answer = ran.json();
    assert_eq!(answer["access_token"], "T1");
    assert!((7100..=7200).contains(&answer["expires_in"].as_i64().unwrap()), "{answer}");
    assert_eq!(answer.as_object().unwrap().len(), 2);
}

#[test]
fn raw_prints_the_bare_token_and_a_newline() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 0);
    assert_eq!(sandbox.run(&["get", "-r"]).exits(0).stdout, "T1\n");
    assert_eq!(sandbox.run(&["get", "--raw"]).exits(0).stdout, "T1\n");
}

#[test]
fn without_a_token_get_exits_with_3_an_empty_stdout_and_the_reason() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.run(&["get"]).exits(3).says(&["does not exist", "wxtoken fetch"]);
    std::fs::create_dir_all(sandbox.document_path()).unwrap();
    sandbox.run(&["get"]).exits(3).says(&["cannot read", "default.json"]);
    std::fs::remove_dir(sandbox.document_path()).unwrap();
    write_with_mode(&sandbox.document_path(), &"x".repeat(100_000), 0o600);
    sandbox.run(&["get"]).exits(3).says(&["default.json is no document"]);
    sandbox.publish("T1", 60, 3600);
    sandbox.run(&["get", "-r"]).exits(3).says(&["expired at", "(59m"]);
}

#[test]
fn get_refuses_a_document_of_another_account() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 0);
    let mut other = wxtoken();
    other.args(["get", "--appid", "wxother", "--dir"]).arg(sandbox.path("state"));
    Run::new(other).exits(3).says(&[APPID, "another account"]);
    let mut any = wxtoken();
    any.args(["get", "-r", "--dir"]).arg(sandbox.path("state"));
    assert_eq!(Run::new(any).exits(0).stdout, "T1\n");
}

#[test]
fn the_document_is_found_by_file_dir_state_directory_and_home() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 0);
    let document = sandbox.document_path();
    let get = |set: &dyn Fn(&mut Command) -> &mut Command| {
        let mut command = wxtoken();
        command.args(["get", "-r"]);
        set(&mut command);
        assert_eq!(Run::new(command).exits(0).stdout, "T1\n");
    };
    get(&|command| command.arg("-f").arg(&document));
    get(&|command| command.env("WXTOKEN_FILE", &document));
    get(&|command| command.env("WXTOKEN_DIR", sandbox.path("state")));
    get(&|command| {
        command.env("STATE_DIRECTORY", format!("{}:/b", sandbox.path("state").display()))
    });
    // The flag overrides the environment.
    get(&|command| {
        command.env("WXTOKEN_DIR", "/nonexistent").arg("--dir").arg(sandbox.path("state"))
    });
}

#[needs(dev_full)]
#[test]
fn a_broken_pipe_is_a_success_and_a_full_disk_a_failure() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 0);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = sandbox.command(&["get"]);
    let output =
        command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));

    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = sandbox.command(&["get"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write to stdout"));
}

/// Checks the system calls: get reads one file.
#[needs(strace)]
#[test]
fn get_opens_no_socket_takes_no_lock_and_reads_no_secret() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 0);
    let trace = sandbox.path("trace");
    let mut get = sandbox.command(&["get"]);
    get.arg("--secret-file").arg(sandbox.path("secret"));
    Run::new(wrapped(&["strace", "-f", "-o", trace.to_str().unwrap()], &get)).exits(0);
    let calls = std::fs::read_to_string(trace).unwrap();
    // execve has the arguments, with the secret's path.
    let calls: Vec<_> = calls.lines().filter(|call| !call.contains("execve(")).collect();
    let calls = calls.join("\n");
    assert!(calls.contains("default.json"), "{calls}");
    for call in [
        "socket(",
        "connect(",
        "flock(",
        "default.lock",
        "/secret\"",
        "clone",
        "O_WRONLY",
        "O_RDWR",
    ] {
        assert!(!calls.contains(call), "{call} in\n{calls}");
    }
}
