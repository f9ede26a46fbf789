//! `wxtoken get`: what a script relies on.

use std::process::{Command, Stdio};

use crate::support::*;

#[test]
fn get_prints_one_line_of_json_in_wechats_shape() {
    let sandbox = Sandbox::asking("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 0);
    let ran = sandbox.run(&["get"]).exits(0);
    assert_eq!(ran.stderr, "");
    assert_eq!(ran.stdout.lines().count(), 1);
    let answer = ran.json();
    assert_eq!(answer["access_token"], "T1");
    assert!((7190..=7200).contains(&answer["expires_in"].as_i64().unwrap()), "{answer}");
    assert_eq!(answer.as_object().unwrap().len(), 2);
}

#[test]
fn raw_is_the_bare_token_and_a_line_end() {
    let sandbox = Sandbox::asking("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 0);
    assert_eq!(sandbox.run(&["get", "-r"]).exits(0).stdout, "T1\n");
    assert_eq!(sandbox.run(&["get", "--raw"]).exits(0).stdout, "T1\n");
}

#[test]
fn no_token_is_exit_3_an_empty_stdout_and_a_line_that_says_why() {
    let sandbox = Sandbox::asking("http://127.0.0.1:1");
    sandbox.run(&["get"]).exits(3).says(&["does not exist", "wxtoken fetch"]);
    std::fs::create_dir_all(sandbox.document_path()).unwrap();
    sandbox.run(&["get"]).exits(3).says(&["cannot read", "default.json"]);
    std::fs::remove_dir(sandbox.document_path()).unwrap();
    write_with_mode(&sandbox.document_path(), &"x".repeat(100_000), 0o600);
    sandbox.run(&["get"]).exits(3).says(&["default.json is no document"]);
    sandbox.publish("T1", 60, 3600);
    sandbox.run(&["get", "-r"]).exits(3).says(&["expired at", "59m ago"]);
}

#[test]
fn another_accounts_token_is_not_handed_out_as_this_ones() {
    let sandbox = Sandbox::asking("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 0);
    let mut other = wxtoken();
    other.args(["get", "--appid", "wxother", "--dir"]).arg(sandbox.path("state"));
    Ran::of(other).exits(3).says(&[APPID, "another account"]);
    let mut anybody = wxtoken();
    anybody.args(["get", "-r", "--dir"]).arg(sandbox.path("state"));
    assert_eq!(Ran::of(anybody).exits(0).stdout, "T1\n");
}

#[test]
fn the_document_is_found_by_file_dir_state_directory_and_home() {
    let sandbox = Sandbox::asking("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 0);
    let document = sandbox.document_path();
    let get = |set: &dyn Fn(&mut Command) -> &mut Command| {
        let mut command = wxtoken();
        command.args(["get", "-r"]);
        set(&mut command);
        assert_eq!(Ran::of(command).exits(0).stdout, "T1\n");
    };
    get(&|command| command.arg("-f").arg(&document));
    get(&|command| command.env("WXTOKEN_FILE", &document));
    get(&|command| command.env("WXTOKEN_DIR", sandbox.path("state")));
    get(&|command| {
        command.env("STATE_DIRECTORY", format!("{}:/b", sandbox.path("state").display()))
    });
    // The flag wins.
    get(&|command| {
        command.env("WXTOKEN_DIR", "/nonexistent").arg("--dir").arg(sandbox.path("state"))
    });
}

#[needs(dev_full)]
#[test]
fn a_broken_pipe_is_no_error_and_a_full_disk_is() {
    let sandbox = Sandbox::asking("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 0);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut gone = sandbox.command(&["get"]);
    let output =
        gone.stdout(writer).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));

    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = sandbox.command(&["get"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write to stdout"));
}

/// What it does, as the kernel sees it: it reads one file.
#[needs(strace)]
#[test]
fn get_opens_no_socket_takes_no_lock_and_reads_no_secret() {
    let sandbox = Sandbox::asking("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 0);
    let trace = sandbox.path("trace");
    let mut get = sandbox.command(&["get"]);
    get.arg("--secret-file").arg(sandbox.path("secret"));
    Ran::of(wrapped(&["strace", "-f", "-o", trace.to_str().unwrap()], &get)).exits(0);
    let calls = std::fs::read_to_string(trace).unwrap();
    let calls: Vec<_> = calls.lines().filter(|call| !call.contains("execve(")).collect(); // Our own words are there.
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
