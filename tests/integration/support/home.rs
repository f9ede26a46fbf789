//! A directory with a config and the files of its accounts.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::{Run, Server, WeChat, outlast_look, time_ago, write_with_mode, wxtoken};

/// Returns an AppSecret of WeChat's form for account number `n`.
pub(crate) fn appsecret(n: usize) -> String {
    format!("{n:032x}")
}

/// Starts a mock with this many accounts, `wx0`, `wx1` and so on, and these flags.
pub(crate) fn wechat_with_accounts(accounts: usize, more: &[&str]) -> WeChat {
    let accounts = (0..accounts).map(|n| format!("wx{n}:{}", appsecret(n)));
    let accounts: Vec<_> = accounts.collect();
    let flags = accounts.iter().flat_map(|account| ["--account", account]);
    WeChat::with(&flags.chain(more.iter().copied()).collect::<Vec<_>>())
}

pub(crate) struct Home {
    dir: TempDir,
}

impl Home {
    /// Returns a directory with this config. Its documents are in `state` unless the config has `dir`.
    pub(crate) fn new(config: &str) -> Home {
        let home = Home { dir: tempfile::tempdir().unwrap() };
        home.write(config);
        home
    }

    /// Returns a directory with `count` accounts, `a0` with AppID `wx0` and so on, at `base_url`, and with their secrets. The
    /// config ends with `more`.
    pub(crate) fn with_accounts(count: usize, base_url: &str, more: &str) -> Home {
        let accounts = (0..count).map(|n| {
            format!(
                "[account.a{n}]\nappid = \"wx{n}\"\nsecret_file = \"a{n}.secret\"\nbase_url = \"{base_url}\"\n"
            )
        });
        let home = Home::new(&format!("{}{more}", accounts.collect::<String>()));
        (0..count).for_each(|n| home.put_secret(&format!("a{n}"), &appsecret(n)));
        home
    }

    /// Returns a directory with account `a0` on this API, whose documents are in the Redis at `store`, with `more` in `[redis]`.
    pub(crate) fn on_redis(api: &str, base_url: &str, store: &str, more: &str) -> Home {
        let more = format!("api = \"{api}\"\n[redis]\n{more}\n");
        let home = Home::with_accounts(1, base_url, &more);
        home.write(&format!("store = \"{store}\"\n{}", home.config()));
        home
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Replaces the config in one step, as editors do.
    pub(crate) fn write(&self, config: &str) {
        write_with_mode(&self.path("new"), config, 0o644);
        fs::rename(self.path("new"), self.path("wxtoken.toml")).unwrap();
    }

    /// Returns the config.
    pub(crate) fn config(&self) -> String {
        fs::read_to_string(self.path("wxtoken.toml")).unwrap()
    }

    /// Writes `NAME.secret`.
    pub(crate) fn put_secret(&self, name: &str, secret: &str) {
        write_with_mode(&self.path(&format!("{name}.secret")), secret, 0o600);
    }

    /// Publishes an account's document as `fetch` does, with a token requested `age` seconds ago.
    pub(crate) fn publish(&self, name: &str, appid: &str, token: &str, age: i64) {
        let document = serde_json::json!({
            "appid": appid, "access_token": token, "expires_in": 7200, "created_at": time_ago(age),
        });
        fs::create_dir_all(self.path("state")).unwrap();
        write_with_mode(&self.path("state/new"), &document.to_string(), 0o600);
        fs::rename(self.path("state/new"), self.document_path(name)).unwrap();
    }

    /// Returns where an account's document is published, for a test that puts another one there.
    pub(crate) fn document_path(&self, name: &str) -> PathBuf {
        outlast_look();
        self.path(&format!("state/{name}.json"))
    }

    /// Returns the published token of an account; `None` without a document.
    pub(crate) fn token(&self, name: &str) -> Option<String> {
        let document: Value =
            serde_json::from_slice(&fs::read(self.document_path(name)).ok()?).unwrap();
        Some(document["access_token"].as_str().unwrap().to_owned())
    }

    /// Returns the command `wxtoken ARGS…` with this config and no other settings.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = wxtoken();
        command.args(args).arg("--config").arg(self.path("wxtoken.toml"));
        command.env("HOME", self.dir.path()).env("STATE_DIRECTORY", self.path("state"));
        command
    }

    #[track_caller]
    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Run {
        Run::new(self.command(args))
    }

    /// Starts `wxtoken serve ARGS…` on a free loopback port.
    #[track_caller]
    pub(crate) fn serve(&self, args: &[&str]) -> Server {
        let mut command = self.command(&["serve", "--listen", "127.0.0.1:0"]);
        command.args(args);
        Server::start(command, 1)
    }

    /// Starts it with its stderr in the file `log`, which [`Home::has_logged`] reads.
    #[track_caller]
    pub(crate) fn serve_with_log(&self, args: &[&str]) -> Server {
        let mut command = self.command(&["serve", "--listen", "127.0.0.1:0"]);
        command.args(args);
        Server::start_with_log(&command, &self.path("log"))
    }

    /// Returns whether the log of [`Home::serve_with_log`] contains `text`.
    pub(crate) fn has_logged(&self, text: &str) -> bool {
        fs::read_to_string(self.path("log")).unwrap().contains(text)
    }

    /// Returns the lines of a run's stderr, without the path of this directory.
    pub(crate) fn stderr_lines(&self, ran: &Run) -> Vec<String> {
        let dir = format!("{}/", self.dir.path().display());
        ran.stderr.replace(&dir, "").lines().map(str::to_owned).collect()
    }
}
