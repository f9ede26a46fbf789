//! A Redis for one test, which can kill, pause and restart it, and a sentinel.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use tempfile::TempDir;

use super::eventually;

/// A running redis-server. It is killed when this is dropped.
pub(crate) struct Redis {
    dir: TempDir,
    port: u16,
    flags: Vec<String>,
    child: Option<Child>,
}

impl Redis {
    /// Starts one on a free loopback port.
    pub(crate) fn start() -> Redis {
        Redis::with_flags(&[])
    }

    /// Starts one with these flags.
    pub(crate) fn with_flags(flags: &[&str]) -> Redis {
        let port = free_port();
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut redis = Redis { dir: tempfile::tempdir().unwrap(), port, flags, child: None };
        redis.restart();
        redis
    }

    /// Starts it at its port, empty.
    pub(crate) fn restart(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"]);
        command.arg("--unixsocket").arg(self.socket()).args(["--save", "", "--appendonly", "no"]);
        command.arg("--dir").arg(self.dir.path()).args(&self.flags);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().expect("redis-server starts"));
        let socket = self.socket();
        eventually("redis-server answers", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// Runs `redis-cli ARGS…`. Returns its output without the line end.
    #[track_caller]
    pub(crate) fn cli(&self, args: &[&str]) -> String {
        let ran = Command::new("redis-cli").arg("-s").arg(self.socket()).args(args).output();
        let ran = ran.expect("redis-cli is there");
        String::from_utf8(ran.stdout).unwrap().trim_end().to_owned()
    }

    /// Returns the token of the document at this key; `None` if there is no document.
    pub(crate) fn token(&self, key: &str) -> Option<String> {
        let text = self.cli(&["get", key]);
        let document: serde_json::Value = serde_json::from_str(&text).ok()?;
        Some(document["access_token"].as_str()?.to_owned())
    }

    fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Stops the process: it accepts connections, and answers nothing.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    /// Kills it. Its data is lost.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
        let _ = fs::remove_file(self.socket());
    }
}

/// Returns a loopback port that nothing listens on. It is below the ephemeral ports of Linux, so that no other test gets it from
/// the kernel meanwhile, and each call returns another.
pub(crate) fn free_port() -> u16 {
    static CALLS: AtomicU16 = AtomicU16::new(0);
    // Other test processes begin elsewhere.
    let first = std::process::id() as u16;
    loop {
        let port = 12_000
            + first.wrapping_mul(61).wrapping_add(CALLS.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A running sentinel that watches a Redis as `main`.
pub(crate) struct Sentinel {
    _dir: TempDir,
    port: u16,
    child: Child,
}

impl Sentinel {
    pub(crate) fn new(redis: &Redis) -> Sentinel {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let watched = redis.port();
        let config = format!(
            "port {port}\nbind 127.0.0.1\ndir {dir}\nsentinel monitor main 127.0.0.1 {watched} 1\n\
             sentinel down-after-milliseconds main 5000\nsentinel failover-timeout main 10000\n",
            dir = dir.path().display()
        );
        fs::write(dir.path().join("sentinel.conf"), config).unwrap();
        let mut command = Command::new("redis-server");
        command.arg(dir.path().join("sentinel.conf")).arg("--sentinel");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("redis-server starts");
        eventually("the sentinel answers", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Sentinel { _dir: dir, port, child }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn cli(&self, args: &[&str]) -> String {
        let ran =
            Command::new("redis-cli").args(["-p", &self.port.to_string()]).args(args).output();
        String::from_utf8(ran.unwrap().stdout).unwrap().trim_end().to_owned()
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
