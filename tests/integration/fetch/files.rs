//! `wxtoken fetch`: modes and owners of its files, and the limits on answers.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::process::Command;

use crate::support::*;

/// A user ID that the tests do not run as.
const OTHER_USER: u32 = 65534;

fn mode(sandbox: &Sandbox, name: &str) -> u32 {
    fs::metadata(sandbox.path("state").join(name)).unwrap().permissions().mode() & 0o7777
}

#[test]
fn the_mode_is_applied_also_if_nothing_is_due() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    for (asked, expected) in [("0600", 0o600), ("0640", 0o640), ("0600", 0o600)] {
        sandbox.run(&["fetch", "--mode", asked]).exits(0).silent();
        assert_eq!(mode(&sandbox, "default.json"), expected);
    }
    assert_eq!(wechat.asked(), 1);
}

#[test]
fn a_created_directory_is_accessible_to_the_readers_of_the_document() {
    let wechat = WeChat::start();
    for (document, directory) in [("0600", 0o700), ("0640", 0o750), ("0644", 0o755)] {
        let sandbox = Sandbox::new(&wechat);
        sandbox.run(&["fetch", "--mode", document]).exits(0);
        assert_eq!(mode(&sandbox, "."), directory);
    }
}

#[test]
fn the_lock_file_is_accessible_to_its_owner_only() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    fs::create_dir_all(sandbox.path("state")).unwrap();
    write_with_mode(&sandbox.path("state/default.lock"), "", 0o666);
    sandbox.run(&["fetch", "--mode", "0644"]).exits(0);
    assert_eq!(mode(&sandbox, "default.lock"), 0o600);
}

/// Otherwise root could be made to change the mode of any file.
#[test]
fn a_lock_file_that_is_a_link_is_refused() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    fs::create_dir_all(sandbox.path("state")).unwrap();
    write_with_mode(&sandbox.path("precious"), "", 0o644);
    symlink(sandbox.path("precious"), sandbox.path("state/default.lock")).unwrap();
    let is_refused = || {
        let ran = sandbox.run(&["fetch"]).exits(1).says(&["default.lock", "not a plain file"]);
        // Only what helps here: there is no circle of links, and nothing in the kernel's log.
        assert!(ran.stderr.contains("Remove it") && !ran.stderr.contains("dmesg"), "{ran:?}");
        fs::remove_file(sandbox.path("state/default.lock")).unwrap();
    };
    is_refused();
    fs::hard_link(sandbox.path("precious"), sandbox.path("state/default.lock")).unwrap();
    is_refused();
    let mut mkfifo = Command::new("mkfifo");
    assert!(mkfifo.arg(sandbox.path("state/default.lock")).status().unwrap().success());
    is_refused();
    let permissions = fs::metadata(sandbox.path("precious")).unwrap().permissions();
    assert_eq!(permissions.mode() & 0o777, 0o644);
    assert_eq!(wechat.asked(), 0);
}

/// The service must still be able to write them after an administrator ran fetch as root.
#[needs(root)]
#[test]
fn files_written_by_root_belong_to_the_owner_of_the_directory() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    fs::create_dir_all(sandbox.path("state")).unwrap();
    chown(sandbox.path("state"), Some(OTHER_USER), Some(OTHER_USER)).unwrap();
    sandbox.run(&["fetch"]).exits(0).silent();
    for name in ["default.json", "default.lock"] {
        let metadata = fs::metadata(sandbox.path("state").join(name)).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (OTHER_USER, OTHER_USER), "{name}");
    }
}

#[test]
fn a_failure_names_the_remaining_life_of_the_published_token() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    let here = "(127.0.0.1:1)";
    in_time(|| sandbox.run(&["fetch", "--timeout", "1"]))
        .exits(5)
        .says(&[here, "(no live token is published)"]);
    sandbox.publish("T1", 7200, 6965);
    in_time(|| sandbox.run(&["fetch", "--timeout", "1"]))
        .exits(5)
        .says(&[here, "(the published token lives for 3m"]);
}

#[test]
fn an_answer_of_more_than_64_kib_is_refused() {
    use std::io::{Read, Write};
    for (length, exit) in [(64 * 1024, 0), (64 * 1024 + 1, 5)] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let wechat = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            let answer = r#"{"access_token":"T1","expires_in":7200}"#;
            let padding = " ".repeat(length - answer.len());
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            let _ = client.write_all(format!("{head}{answer}{padding}").as_bytes());
        });
        Sandbox::with_base_url(&url).run(&["fetch"]).exits(exit);
        wechat.join().unwrap();
    }
}
