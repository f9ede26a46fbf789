//! `wxtoken fetch`: the files it leaves behind, their modes and owners.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use crate::support::*;

/// Nobody's number, on any system that has one.
const SOMEBODY: u32 = 65534;

fn mode(sandbox: &Sandbox, name: &str) -> u32 {
    fs::metadata(sandbox.path("state").join(name)).unwrap().permissions().mode() & 0o7777
}

#[test]
fn the_mode_is_settled_also_when_nothing_is_due() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat);
    for (asked, expected) in [("0600", 0o600), ("0640", 0o640), ("0600", 0o600)] {
        sandbox.run(&["fetch", "--mode", asked]).exits(0).silent();
        assert_eq!(mode(&sandbox, "default.json"), expected);
    }
    assert_eq!(wechat.asked(), 1);
}

#[test]
fn a_directory_that_is_made_lets_in_those_who_may_read_the_document() {
    let wechat = WeChat::start();
    for (document, directory) in [("0600", 0o700), ("0640", 0o750), ("0644", 0o755)] {
        let sandbox = Sandbox::against(&wechat);
        sandbox.run(&["fetch", "--mode", document]).exits(0);
        assert_eq!(mode(&sandbox, "."), directory);
    }
}

#[test]
fn nobody_else_may_hold_the_lock() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat);
    fs::create_dir_all(sandbox.path("state")).unwrap();
    write_with_mode(&sandbox.path("state/default.lock"), "", 0o666);
    sandbox.run(&["fetch", "--mode", "0644"]).exits(0);
    assert_eq!(mode(&sandbox, "default.lock"), 0o600);
}

/// Else root could be made to change the mode of any file on the system.
#[test]
fn a_lock_that_leads_elsewhere_is_refused() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat);
    fs::create_dir_all(sandbox.path("state")).unwrap();
    write_with_mode(&sandbox.path("precious"), "", 0o644);
    symlink(sandbox.path("precious"), sandbox.path("state/default.lock")).unwrap();
    sandbox.run(&["fetch"]).exits(1).says(&["default.lock"]);
    fs::remove_file(sandbox.path("state/default.lock")).unwrap();
    fs::hard_link(sandbox.path("precious"), sandbox.path("state/default.lock")).unwrap();
    sandbox.run(&["fetch"]).exits(1).says(&["default.lock", "not a plain file"]);
    let permissions = fs::metadata(sandbox.path("precious")).unwrap().permissions();
    assert_eq!(permissions.mode() & 0o777, 0o644);
    assert_eq!(wechat.asked(), 0);
}

/// Somebody debugs as root at 3 a.m.; the service goes on afterwards.
#[test]
fn what_root_fetches_is_the_directorys_owners() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::against(&wechat);
    fs::create_dir_all(sandbox.path("state")).unwrap();
    if chown(sandbox.path("state"), Some(SOMEBODY), Some(SOMEBODY)).is_err() {
        return skip("only root can make a directory somebody else's");
    }
    sandbox.run(&["fetch"]).exits(0).silent();
    for name in ["default.json", "default.lock"] {
        let metadata = fs::metadata(sandbox.path("state").join(name)).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (SOMEBODY, SOMEBODY), "{name}");
    }
}

#[test]
fn a_failure_says_how_urgent_it_is() {
    let sandbox = Sandbox::asking("http://127.0.0.1:1");
    let here = "(127.0.0.1:1)";
    sandbox
        .run(&["fetch", "--timeout", "1"])
        .exits(5)
        .says(&[here, "(no live token is published)"]);
    sandbox.publish("T1", 7200, 7000);
    sandbox
        .run(&["fetch", "--timeout", "1"])
        .exits(5)
        .says(&[here, "(the published token lives for 3m"]);
}

/// An answer of exactly 64 KiB is read, and one of a byte more is not.
#[test]
fn an_answer_is_read_up_to_its_limit_and_no_further() {
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
        Sandbox::asking(&url).run(&["fetch"]).exits(exit);
        wechat.join().unwrap();
    }
}
