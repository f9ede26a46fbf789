//! `wxtoken demo`: the first thing that a newcomer runs.

mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use support::*;

/// A demo with a directory of its own for temporary files.
fn demo(dir: &std::path::Path, args: &[&str]) -> std::process::Command {
    let mut command = wxtoken();
    command.arg("demo").args(args).env("TMPDIR", dir);
    command
}

fn is_empty(dir: &std::path::Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}

#[test]
fn the_demo_tells_the_whole_job_and_cleans_up() {
    let dir = tempfile::tempdir().unwrap();
    let ran = Ran::of(demo(dir.path(), &[])).exits(0);
    assert_eq!(ran.stderr, "");
    for part in [
        "$ wxtoken fetch",
        "\"access_token\":\"",
        "$ wxtoken get",
        "WeChat was asked once in all",
        "$ wxtoken serve --allow 127.0.0.1",
        "$ curl http://127.0.0.1:",
        "403 {\"error\":\"forbidden\"",
        "WeChat refused (40164)",
        "白名单",
        "default  live",
    ] {
        assert!(ran.stdout.contains(part), "{part:?} is not in:\n{}", ran.stdout);
    }
    assert!(is_empty(dir.path()), "nothing is left behind");
    assert!(
        !ran.stdout.contains("0123456789abcdef0123456789abcdef"),
        "not even the stand-in's secret is shown"
    );
}

#[test]
fn the_demo_is_not_led_astray_by_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = demo(dir.path(), &[]);
    command
        .env("WXTOKEN_DIR", "/nonexistent")
        .env("WXTOKEN_API", "nonsense")
        .env("WXTOKEN_QUIET", "true");
    command
        .env("HTTPS_PROXY", "http://127.0.0.1:1")
        .env("WXTOKEN_LISTEN", "nonsense")
        .env("STATE_DIRECTORY", "/x");
    Ran::of(command).exits(0);
}

#[test]
fn a_demo_that_is_kept_goes_on_serving_until_it_is_told_to_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = demo(dir.path(), &["--keep"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let address = loop {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).unwrap() > 0, "it ended by itself");
        if let Some(rest) = line.strip_prefix("Going on until Ctrl-C: wxtoken at http://") {
            break rest.split('/').next().unwrap().parse().unwrap();
        }
    };
    let request = b"GET /token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(exchange(address, request).status, 200);

    // Its children have the secret neither in their environment nor in their arguments.
    let mut children = 0;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let read = |name: &str| {
            String::from_utf8_lossy(&std::fs::read(entry.path().join(name)).unwrap_or_default())
                .into_owned()
        };
        if read("status").contains(&format!("\nPPid:\t{}\n", child.id())) {
            children += 1;
            for place in ["environ", "cmdline"] {
                assert!(
                    !read(place).contains("0123456789abcdef0123456789abcdef"),
                    "{place}: {}",
                    read(place)
                );
            }
        }
    }
    assert_eq!(children, 2, "the stand-in and serve");

    std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert!(is_empty(dir.path()), "nothing is left behind");
    assert!(std::net::TcpStream::connect(address).is_err(), "and nobody");
}

#[test]
fn a_reader_who_leaves_early_does_not_break_the_demo() {
    let dir = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = demo(dir.path(), &[]).stdout(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(is_empty(dir.path()));
}

/// Whenever it is told to end, nothing of it is left: no directory, and nobody who listens.
#[test]
fn a_demo_that_is_interrupted_at_any_moment_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    for millisecond in 0..40 {
        let mut child =
            demo(dir.path(), &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(millisecond));
        // As by `kill`, by Ctrl-C, and by a terminal that is closed.
        let signal = ["-TERM", "-INT", "-HUP"][millisecond as usize % 3];
        std::process::Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status()
            .unwrap();
        child.wait().unwrap();
        let left: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "after {millisecond} ms: {left:?}");
    }
    // A step that was under way may take a moment more; a server would go on for ever.
    let marker = format!("WXTOKEN_DIR={}", dir.path().display());
    let goes_on = || {
        std::fs::read_dir("/proc").unwrap().flatten().find(|entry| {
            let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            String::from_utf8_lossy(&environ).contains(&marker)
        })
    };
    let deadline = std::time::Instant::now() + PATIENCE;
    while let Some(process) = goes_on() {
        assert!(std::time::Instant::now() < deadline, "{:?} goes on", process.path());
    }
}
