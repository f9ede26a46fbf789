//! A stderr that is not read, is read late, or takes nothing: nothing waits for it for long, and what is lost is counted.

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::support::home::Home;
use crate::support::*;

/// Returns a pipe that is full: a write to it blocks, or fails if `is_blocking` is false.
pub(super) fn full_pipe(is_blocking: bool) -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while writer.write(b"\n").is_ok() {}
    if is_blocking {
        fcntl_setfl(&writer, flags).unwrap();
    }
    (reader, writer)
}

/// Returns what comes after the text that filled the pipe, until the last writer is gone.
fn read_to_end(mut reader: PipeReader) -> String {
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    text.trim_start().to_owned()
}

fn serve(sandbox: &Sandbox) -> std::process::Command {
    sandbox.command(&["serve", "-v", "--listen", "127.0.0.1:0"])
}

/// Asks for paths with these numbers, each of which is a line on stderr.
fn ask(server: &Server, numbers: std::ops::Range<usize>) {
    let mut caller = server.caller();
    for number in numbers {
        assert_eq!(caller.get(&format!("/number/{number}")).status, 404);
    }
}

/// Returns the numbers in the lines of [`ask`].
fn numbers(text: &str) -> Vec<usize> {
    let number = |line: &str| {
        let rest = line.split_once("/number/")?.1;
        rest.split(' ').next()?.parse().ok()
    };
    text.lines().filter_map(number).collect()
}

#[test]
fn serve_answers_and_ends_although_its_stderr_is_not_read() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 0);
    let (_reader, writer) = full_pipe(true);
    let server = Server::start_with_stderr(serve(&sandbox), 1, writer);
    ask(&server, 0..100);
    assert_eq!(server.get("/token").status, 200);
    server.stop();
}

#[test]
fn lines_that_are_dropped_are_counted_where_they_were() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    let (mut reader, writer) = full_pipe(true);
    let server = Server::start_with_stderr(serve(&sandbox), 1, writer);
    ask(&server, 0..8000);
    // Read until the number of dropped lines comes, without another line.
    let mut text = Vec::new();
    let is_told = |text: &[u8]| String::from_utf8_lossy(text).contains("lines were dropped");
    let mut chunk = [0; 4096];
    while !is_told(&text) || !text.ends_with(b"\n") {
        let count = reader.read(&mut chunk).unwrap();
        text.extend(&chunk[..count]);
    }
    ask(&server, 8000..8010);
    server.stop();
    let text = String::from_utf8(text).unwrap() + &read_to_end(reader);
    let notice = text.lines().find(|line| line.contains("were dropped")).unwrap();
    let dropped: usize = notice.split(' ').nth(1).unwrap().parse().unwrap();
    let (before, after) = text.split_once(notice).unwrap();
    let (before, after) = (numbers(before), numbers(after));
    assert_eq!(before, (0..before.len()).collect::<Vec<_>>());
    assert!(before.len() > 1000, "{}", before.len());
    assert_eq!(before.len() + dropped, 8000, "{notice}");
    assert_eq!(after, (8000..8010).collect::<Vec<_>>());
}

#[test]
fn lines_wait_for_a_stderr_that_is_read_late_or_was_made_non_blocking() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    for is_blocking in [true, false] {
        let (reader, writer) = full_pipe(is_blocking);
        let server = Server::start_with_stderr(serve(&sandbox), 1, writer);
        ask(&server, 0..500);
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        let mut text = String::new();
        loop {
            let line = lines.next().unwrap();
            text += &format!("{line}\n");
            if line.contains("/number/499 ") {
                break;
            }
        }
        server.stop();
        assert_eq!(numbers(&text), (0..500).collect::<Vec<_>>());
        assert!(!text.contains("dropped"), "{text}");
        assert_eq!(lines.next(), None);
    }
}

#[test]
fn fetch_publishes_what_wechat_answers_although_its_stderr_is_not_read() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let (_reader, writer) = full_pipe(true);
    let status = sandbox.command(&["fetch", "-vv"]).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(wechat.is_alive(&sandbox.token()));
    // A failure has its own status.
    wechat.fault("errcode:40164");
    let (_reader, writer) = full_pipe(true);
    let status = sandbox.command(&["fetch", "--force"]).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(4));
}

#[test]
fn no_line_is_lost_at_the_end_of_a_run() {
    let accounts = 200;
    let home = Home::with_accounts(accounts, "http://127.0.0.1:1", "");
    let ran = home.run(&["fetch", "--timeout", "1s"]).exits(5);
    let lines: Vec<_> = ran.stderr.lines().collect();
    assert_eq!(lines.len(), accounts, "{}", ran.stderr);
    for n in 0..accounts {
        let lead = format!("wxtoken: fetch: a{n}: ");
        assert!(lines.iter().any(|line| line.starts_with(&lead)), "{lead}");
    }
}

#[needs(dev_full)]
#[test]
fn serve_goes_on_with_a_log_on_a_full_disk() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 0);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let server = Server::start_with_stderr(serve(&sandbox), 1, full);
    ask(&server, 0..100);
    assert_eq!(server.get("/token").status, 200);
    server.stop();
}
