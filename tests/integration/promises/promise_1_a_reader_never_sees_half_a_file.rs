//! Promise 1: old document or new one, whole, at every instant, also across `kill -9`.

use std::hash::{BuildHasher, RandomState};
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::*;

#[test]
fn a_reader_sees_only_whole_documents_while_fetch_is_killed_200_times() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat).on("classic");
    let started = Instant::now();
    sandbox.run(&["fetch", "--force"]).exits(0);
    let usual = started.elapsed();

    let path = sandbox.document_path();
    let (reads, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let bytes = std::fs::read(&path).expect("there is a document at every instant");
                let document: serde_json::Value =
                    serde_json::from_slice(&bytes).unwrap_or_else(|err| {
                        panic!("half a file: {err}: {}", String::from_utf8_lossy(&bytes))
                    });
                assert!(document["access_token"].as_str().is_some_and(|token| token.len() > 100));
                assert!(bytes.ends_with(b"}\n"));
                reads.fetch_add(1, Ordering::Relaxed);
                // Leaves most of a core to the writers.
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        let (mut runs, mut kills) = (0, 0);
        // A busy machine needs more runs until enough was read and killed to show anything.
        let is_enough =
            |runs, kills| runs >= 200 && kills > 20 && reads.load(Ordering::Relaxed) > 1000;
        while !is_enough(runs, kills) && !reader.is_finished() {
            let mut fetch = sandbox.command(&["fetch", "--force"]).spawn().unwrap();
            // At any instant of a run's usual length, and a little after it.
            let random = (RandomState::new().hash_one(0) % 1200) as f64 / 1000.0;
            std::thread::sleep(usual.mul_f64(random));
            let _ = fetch.kill();
            let status = fetch.wait().unwrap();
            assert!(status.success() || status.signal() == Some(9), "{status}");
            runs += 1;
            kills += i32::from(!status.success());
        }
        is_over.store(true, Ordering::Relaxed);
    });

    sandbox.run(&["fetch", "--force"]).exits(0).silent();
    assert_eq!(
        sandbox.published_names(),
        ["default.json", "default.lock", "default.state"],
        "leftovers are swept away"
    );
}

#[test]
fn a_leftover_of_a_killed_run_is_swept_away_by_the_next() {
    let wechat = WeChat::with(&["--fault", "hang"]);
    let sandbox = Sandbox::new(&wechat);
    let mut fetch = sandbox.command(&["fetch"]).spawn().unwrap();
    eventually("the call has begun", || wechat.asked() > 0);
    fetch.kill().unwrap();
    fetch.wait().unwrap();
    assert_eq!(sandbox.published_names(), [".default.json.tmp", "default.lock"]);

    wechat.fault("none");
    sandbox.run(&["fetch"]).exits(0);
    assert_eq!(sandbox.published_names(), ["default.json", "default.lock", "default.state"]);
}

#[test]
fn the_document_is_one_line_with_its_mode_from_the_first_instant() {
    use std::os::unix::fs::PermissionsExt;
    let wechat = WeChat::start();
    for (mode, expected) in [("0600", 0o600), ("640", 0o640), ("0644", 0o644)] {
        let sandbox = Sandbox::new(&wechat);
        sandbox.run(&["fetch", "--mode", mode]).exits(0).silent();
        let permissions = std::fs::metadata(sandbox.document_path()).unwrap().permissions();
        assert_eq!(permissions.mode() & 0o7777, expected);
        assert_eq!(sandbox.document_bytes().iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(sandbox.document()["appid"], APPID);
    }
}

/// What survives a power cut is decided by the order of these calls: content on the disk, then the name, then the
/// directory on the disk.
#[needs(strace)]
#[test]
fn the_content_is_on_the_disk_before_the_name_and_the_directory_after_it() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let trace = sandbox.path("trace");
    let fetch = sandbox.command(&["fetch"]);
    let calls = "trace=fsync,rename,renameat,renameat2,write,ftruncate";
    let strace = ["strace", "-f", "-y", "-e", calls, "-o", trace.to_str().unwrap()];
    Run::new(wrapped(&strace, &fetch)).exits(0);
    let calls = std::fs::read_to_string(trace).unwrap();
    let place = |call: &str, of: &str| {
        let found =
            calls.lines().enumerate().filter(|(_, line)| line.contains(call) && line.contains(of));
        found
            .map(|(number, _)| number)
            .last()
            .unwrap_or_else(|| panic!("no {call} of {of} in\n{calls}"))
    };
    let written = place("write(", ".default.json.tmp>");
    let content_synced = place("fsync(", ".default.json.tmp>");
    let renamed = place("rename", "default.json\"");
    let directory_synced = place("fsync(", "/state>");
    assert!(
        written < content_synced && content_synced < renamed && renamed < directory_synced,
        "{calls}"
    );
}
