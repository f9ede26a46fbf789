//! An account that is given by flags, with its directory.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::proxy::HoldingProxy;
use super::{
    Run, Server, WeChat, eventually, outlast_look, parse_rfc3339, time_ago, write_with_mode,
    wxtoken,
};

pub(crate) const APPID: &str = "wx0123456789abcdef";
pub(crate) const SECRET: &str = "5ec2e75ec2e75ec2e75ec2e75ec2e75e";

/// A directory with an account's secret and documents, and the flags of the account.
pub(crate) struct Sandbox {
    dir: TempDir,
    base_url: String,
    api: &'static str,
}

impl Sandbox {
    /// Returns a sandbox whose account is at `wechat`.
    pub(crate) fn new(wechat: &WeChat) -> Sandbox {
        Sandbox::with_base_url(&wechat.url())
    }

    /// Returns a sandbox whose account has this base URL.
    pub(crate) fn with_base_url(base_url: &str) -> Sandbox {
        let dir = tempfile::tempdir().unwrap();
        let sandbox = Sandbox { dir, base_url: base_url.to_owned(), api: "stable" };
        write_with_mode(&sandbox.path("secret"), &format!("{SECRET}\n"), 0o600);
        sandbox
    }

    /// Puts the account on this API: `stable`, `classic` or `work`.
    pub(crate) fn on(self, api: &'static str) -> Sandbox {
        Sandbox { api, ..self }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns where the account's document is published, for a test that puts another one there.
    pub(crate) fn document_path(&self) -> PathBuf {
        outlast_look();
        self.path("state/default.json")
    }

    /// Returns the published document's bytes.
    pub(crate) fn document_bytes(&self) -> Vec<u8> {
        fs::read(self.document_path()).expect("a document is published")
    }

    /// Returns the published document.
    pub(crate) fn document(&self) -> Value {
        serde_json::from_slice(&self.document_bytes()).expect("the document is JSON")
    }

    /// Returns the published token.
    pub(crate) fn token(&self) -> String {
        self.document()["access_token"].as_str().expect("the document has a token").to_owned()
    }

    /// Returns how many seconds the published token has left according to its document.
    pub(crate) fn left(&self) -> f64 {
        let document = self.document();
        let created_at = document["created_at"].as_str().expect("a time");
        let created_at = parse_rfc3339(created_at).expect("a time");
        let life = document["expires_in"].as_f64().expect("a life");
        (created_at - time::UtcDateTime::now()).as_seconds_f64() + life
    }

    /// Publishes a document as the `fetch` of another host does, with a token requested `age` seconds ago.
    pub(crate) fn publish(&self, token: &str, expires_in: i64, age: i64) {
        self.publish_document(&serde_json::json!({
            "appid": APPID, "access_token": token, "expires_in": expires_in, "created_at": time_ago(age),
        }));
    }

    /// Publishes a document as `fetch` did a minute ago on this host, whose wall clock was set forward by `set_forward`
    /// seconds since. Machines that run tests were started earlier.
    pub(crate) fn publish_before_clock_was_set(
        &self,
        token: &str,
        expires_in: i64,
        set_forward: i64,
    ) {
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let uptime = fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        self.publish_document(&serde_json::json!({
            "appid": APPID, "access_token": token, "expires_in": expires_in, "created_at": time_ago(60 + set_forward),
            "boot_id": boot_id.trim_end(), "boottime": uptime - 60.0,
        }));
    }

    fn publish_document(&self, document: &Value) {
        fs::create_dir_all(self.path("state")).unwrap();
        let new = self.path("state/new");
        write_with_mode(&new, &document.to_string(), 0o600);
        fs::rename(new, self.document_path()).unwrap();
    }

    /// Publishes the account's ticket of this type, requested `age` seconds ago.
    pub(crate) fn publish_ticket(&self, kind: &str, ticket: &str, expires_in: i64, age: i64) {
        let document = serde_json::json!({
            "appid": APPID, "ticket": ticket, "expires_in": expires_in, "created_at": time_ago(age),
        });
        fs::create_dir_all(self.path("state")).unwrap();
        let path = self.path(&format!("state/default.{kind}.json"));
        write_with_mode(&path, &document.to_string(), 0o600);
    }

    /// Returns the command `wxtoken ARGS…` with the account's flags, as far as the command takes them.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = wxtoken();
        command.args(args).arg("--dir").arg(self.path("state")).env("HOME", self.dir.path());
        command.args(["--appid", APPID, "--api", self.api]);
        if args[0].as_ref() == "fetch" {
            command
                .arg("--secret-file")
                .arg(self.path("secret"))
                .args(["--base-url", &self.base_url]);
        }
        command
    }

    /// Runs `wxtoken ARGS…` with the account's flags.
    #[track_caller]
    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Run {
        Run::new(self.command(args))
    }

    /// Runs `count` times `wxtoken fetch ARGS…` while `proxy`, at which the account is, holds the answer to the first call. It is
    /// released when all others wait for the lock.
    #[track_caller]
    pub(crate) fn fetch_together(
        &self,
        proxy: &HoldingProxy,
        count: usize,
        args: &[&str],
    ) -> Vec<Run> {
        let lock = self.path("state/default.lock");
        proxy.hold();
        let start = |_| {
            let mut fetch = self.command(&[&["fetch"], args].concat());
            fetch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let children: Vec<_> = (0..count).map(start).collect();
        for child in &children {
            eventually("fetch has opened the lock", || {
                let descriptors = fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap();
                let mut files =
                    descriptors.flatten().filter_map(|it| fs::read_link(it.path()).ok());
                files.any(|file| file == lock)
            });
        }
        proxy.release();
        children.into_iter().map(|it| Run::from_output(it.wait_with_output().unwrap())).collect()
    }

    /// Returns the sorted file names in the directory of documents.
    pub(crate) fn published_names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path("state")) else { return Vec::new() };
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Runs `wxtoken serve ARGS…`, which has to be a usage error. Its address is taken, so that it ends in any case.
    #[track_caller]
    pub(crate) fn serve_refused(&self, args: &[&str]) -> Run {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        self.run(&[&["serve", "--listen", &address], args].concat()).exits(2)
    }

    /// Starts `wxtoken serve ARGS…`, on a free loopback port unless ARGS have `--listen`.
    pub(crate) fn serve(&self, args: &[&str]) -> Server {
        let mut command = self.command(&["serve"]);
        command.args(args);
        if !args.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        Server::start(command, args.iter().filter(|arg| **arg == "--listen").count().max(1))
    }

    /// Starts `wxtoken serve --refresh ARGS…`.
    pub(crate) fn serve_refreshing(&self, args: &[&str]) -> Server {
        let secret = self.path("secret");
        let account = ["--secret-file", secret.to_str().unwrap(), "--base-url", &self.base_url];
        self.serve(&[&["--refresh"], &account[..], args].concat())
    }
}
