//! A Redis of a test's own: started for it, killed, paused, flushed and failed over by it, gone when it ends.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::support::eventually;

pub(crate) struct Redis {
    dir: TempDir,
    port: u16,
    flags: Vec<String>,
    child: Option<Child>,
}

impl Redis {
    /// Starts one on a free loopback port.
    #[must_use]
    pub(crate) fn start() -> Redis {
        Redis::with(&[])
    }

    /// The same with these flags.
    #[must_use]
    pub(crate) fn with(flags: &[&str]) -> Redis {
        let port = free_port();
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut redis = Redis { dir: tempfile::tempdir().unwrap(), port, flags, child: None };
        redis.revive();
        redis
    }

    /// Starts it again where it was, with nothing in it.
    pub(crate) fn revive(&mut self) {
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

    /// `redis-cli ARGS…`; what it says, without the line end.
    #[track_caller]
    pub(crate) fn cli(&self, args: &[&str]) -> String {
        let ran = Command::new("redis-cli").arg("-s").arg(self.socket()).args(args).output();
        let ran = ran.expect("redis-cli is there");
        String::from_utf8(ran.stdout).unwrap().trim_end().to_owned()
    }

    /// The token of the document at this key; `None` where there is nothing.
    pub(crate) fn token(&self, key: &str) -> Option<String> {
        let text = self.cli(&["get", key]);
        let document: serde_json::Value = serde_json::from_str(&text).ok()?;
        Some(document["access_token"].as_str()?.to_owned())
    }

    fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// It answers nobody from now on.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    /// Kills it, and with it all that it held.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
        let _ = fs::remove_file(self.socket());
    }
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A sentinel that watches a Redis under the name `main`.
pub(crate) struct Sentinel {
    _dir: TempDir,
    port: u16,
    child: Child,
}

impl Sentinel {
    pub(crate) fn of(redis: &Redis) -> Sentinel {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let watched = redis.port();
        let config = format!(
            "port {port}\nbind 127.0.0.1\ndir {dir}\nsentinel monitor main 127.0.0.1 {watched} 1\n\
             sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 3000\n",
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
