//! What `fetch` says on a terminal while it waits.

use std::fs::File;
use std::io::Read;
use std::process::{Child, Command, Stdio};

use crate::support::*;

/// A command on a terminal, and what it has written there so far.
struct OnTerminal {
    child: Child,
    written: String,
}

impl OnTerminal {
    fn start(command: &Command) -> OnTerminal {
        let mut command = on_terminal(command);
        command.stdout(Stdio::piped());
        OnTerminal { child: command.spawn().unwrap(), written: String::new() }
    }

    /// Reads until this was written.
    fn read_until(&mut self, text: &str) {
        let stdout = self.child.stdout.as_mut().unwrap();
        while !self.written.contains(text) {
            let mut some = [0; 4096];
            let count = stdout.read(&mut some).unwrap();
            assert!(count > 0, "it has ended without {text:?}: {:?}", self.written);
            self.written.push_str(&String::from_utf8_lossy(&some[..count]));
        }
    }

    /// Reads to the end, and returns everything that was written.
    fn finish(mut self, code: i32) -> String {
        self.child.stdout.as_mut().unwrap().read_to_string(&mut self.written).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(code), "{:?}", self.written);
        self.written
    }
}

const ERASE: &str = "\r\x1b[K";

#[needs(script)]
#[test]
fn a_terminal_shows_which_process_holds_the_lock_and_nothing_when_it_is_over() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat).on("classic");
    sandbox.run(&["fetch"]).exits(0);
    let lock = File::open(sandbox.document_path().with_extension("lock")).unwrap();
    lock.lock().unwrap();
    let mut fetch = OnTerminal::start(&sandbox.command(&["fetch", "--force", "--timeout", "100s"]));
    fetch.read_until(&format!("default.lock, held by pid {}", std::process::id()));
    lock.unlock().unwrap();
    let written = fetch.finish(0);
    assert!(written.ends_with(ERASE), "{written:?}");
}

#[needs(script)]
#[test]
fn a_terminal_shows_which_server_is_waited_for_in_the_language_of_the_reader() {
    let wechat = WeChat::start();
    wechat.fault("slow:4");
    let sandbox = Sandbox::new(&wechat);
    let host = wechat.url().strip_prefix("http://").unwrap().to_owned();
    let mut command = sandbox.command(&["fetch"]);
    command.env("WXTOKEN_LANG", "zh");
    let mut fetch = OnTerminal::start(&command);
    fetch.read_until(&format!("正在等待 {host}… 1 秒"));
    let written = fetch.finish(0);
    assert!(written.ends_with(ERASE), "{written:?}");
}

#[needs(script)]
#[test]
fn neither_a_file_nor_a_quiet_terminal_nor_a_dumb_one_is_told_of_waits() {
    let wechat = WeChat::start();
    wechat.fault("slow:2");
    let sandbox = Sandbox::new(&wechat).on("classic");
    sandbox.run(&["fetch"]).exits(0).silent();
    let quiet = Run::new(on_terminal(&sandbox.command(&["fetch", "--force", "-q"]))).exits(0);
    assert_eq!(quiet.stdout, "");
    let mut dumb = on_terminal(&sandbox.command(&["fetch", "--force"]));
    dumb.env("TERM", "dumb");
    assert!(!Run::new(dumb).exits(0).stdout.contains("waiting"));
}
