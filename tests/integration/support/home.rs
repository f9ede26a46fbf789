//! A directory with a config in it, and what goes with its accounts.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Ran, Server, WeChat, write_with_mode, wxtoken};

/// An AppSecret as WeChat makes them, for account number `n`.
pub(crate) fn appsecret(n: usize) -> String {
    format!("{n:032x}")
}

/// A stand-in that knows accounts `wx0`, `wx1` and so on, this many, and is started with these flags.
pub(crate) fn wechat_of(accounts: usize, more: &[&str]) -> WeChat {
    let accounts = (0..accounts).map(|n| format!("wx{n}:{}", appsecret(n)));
    let accounts: Vec<_> = accounts.collect();
    let flags = accounts.iter().flat_map(|account| ["--account", account]);
    WeChat::with(&flags.chain(more.iter().copied()).collect::<Vec<_>>())
}

pub(crate) struct Home {
    dir: TempDir,
}

impl Home {
    /// A directory with this config. Its documents are in `state`, unless it says otherwise.
    pub(crate) fn with(config: &str) -> Home {
        let home = Home { dir: tempfile::tempdir().unwrap() };
        home.write(config);
        home
    }

    /// The config of accounts `a0`, `a1` and so on, whose AppIDs are `wx0`, `wx1` and so on, who ask at `base_url`; with
    /// `more` at its end. Their secrets are there.
    pub(crate) fn of_accounts(count: usize, base_url: &str, more: &str) -> Home {
        let accounts = (0..count).map(|n| {
            format!(
                "[account.a{n}]\nappid = \"wx{n}\"\nsecret_file = \"a{n}.secret\"\nbase_url = \"{base_url}\"\n"
            )
        });
        let home = Home::with(&format!("{}{more}", accounts.collect::<String>()));
        (0..count).for_each(|n| home.put_secret(&format!("a{n}"), &appsecret(n)));
        home
    }

    /// The same of account `a0` alone, on this API and in the Redis at `store`; with `more` in `[redis]`.
    pub(crate) fn on_redis(api: &str, base_url: &str, store: &str, more: &str) -> Home {
        let more = format!("api = \"{api}\"\n[redis]\n{more}\n");
        let home = Home::of_accounts(1, base_url, &more);
        home.write(&format!("store = \"{store}\"\n{}", home.config()));
        home
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Replaces the config, as an editor does.
    pub(crate) fn write(&self, config: &str) {
        write_with_mode(&self.path("new"), config, 0o644);
        fs::rename(self.path("new"), self.path("wxtoken.toml")).unwrap();
    }

    /// The config as it stands.
    pub(crate) fn config(&self) -> String {
        fs::read_to_string(self.path("wxtoken.toml")).unwrap()
    }

    /// Writes `NAME.secret`.
    pub(crate) fn put_secret(&self, name: &str, secret: &str) {
        write_with_mode(&self.path(&format!("{name}.secret")), secret, 0o600);
    }

    /// Publishes an account's document as `fetch` would have, asked for `age` seconds ago.
    pub(crate) fn publish(&self, name: &str, appid: &str, token: &str, age: i64) {
        let created_at = time::UtcDateTime::now() - time::Duration::seconds(age);
        let created_at = created_at.format(&time::format_description::well_known::Rfc3339).unwrap();
        let document = serde_json::json!({
            "appid": appid, "access_token": token, "expires_in": 7200, "created_at": created_at,
        });
        fs::create_dir_all(self.path("state")).unwrap();
        write_with_mode(&self.path("state/new"), &document.to_string(), 0o600);
        fs::rename(self.path("state/new"), self.document_path(name)).unwrap();
    }

    pub(crate) fn document_path(&self, name: &str) -> PathBuf {
        self.path(&format!("state/{name}.json"))
    }

    /// The token that is published for an account; `None` without a document.
    pub(crate) fn token(&self, name: &str) -> Option<String> {
        let document: Value =
            serde_json::from_slice(&fs::read(self.document_path(name)).ok()?).unwrap();
        Some(document["access_token"].as_str().unwrap().to_owned())
    }

    /// `wxtoken ARGS…` here, with no other setting than the config.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = wxtoken();
        command.args(args).arg("--config").arg(self.path("wxtoken.toml"));
        command.env("HOME", self.dir.path()).env("STATE_DIRECTORY", self.path("state"));
        command
    }

    #[track_caller]
    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Ran {
        Ran::of(self.command(args))
    }

    /// `wxtoken serve ARGS…` here, on a free loopback port.
    #[track_caller]
    pub(crate) fn serve(&self, args: &[&str]) -> Server {
        let mut command = self.command(&["serve", "--listen", "127.0.0.1:0"]);
        command.args(args);
        Server::start(command, 1)
    }

    /// The same, whose words go to the file `log`, to be read while it runs.
    #[track_caller]
    pub(crate) fn serve_with_log(&self, args: &[&str]) -> Server {
        let mut command = self.command(&["serve", "--listen", "127.0.0.1:0"]);
        command.args(args);
        Server::start_with_log(&command, &self.path("log"))
    }

    /// Whether it has said this.
    pub(crate) fn has_logged(&self, text: &str) -> bool {
        fs::read_to_string(self.path("log")).unwrap().contains(text)
    }

    /// What a run said on stderr, with the config called by its name alone.
    pub(crate) fn said(&self, ran: &Ran) -> Vec<String> {
        let dir = format!("{}/", self.dir.path().display());
        ran.stderr.replace(&dir, "").lines().map(str::to_owned).collect()
    }
}
