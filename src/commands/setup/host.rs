//! What there is on this host to set up with: systemd, cron or a crontab, the user of the service, its units, the program.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::process::geteuid;

use crate::config;
use crate::error::Exit;

/// The name of the user and of the group that the service runs as.
pub(super) const USER: &str = "wxtoken";

/// Where systemd looks for units, first things first.
const UNIT_DIRS: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];

/// Directories whose programs another user, or a service that sees no homes, cannot run.
const PRIVATE_DIRS: [&str; 5] = ["/home", "/root", "/tmp", "/var/tmp", "/run/user"];

/// What runs `fetch` every minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FetchRunner {
    /// The system's systemd.
    Systemd,
    /// A file in /etc/cron.d.
    Cron,
    /// The user's crontab.
    Crontab,
    /// The user's own systemd.
    UserSystemd,
    Nothing,
}

/// The host, and for whom it is set up.
pub(super) struct SetupHost {
    /// What stands for `/`.
    root: PathBuf,
    pub(super) runner: FetchRunner,
    config: PathBuf,
    /// The path of this program.
    program: PathBuf,
}

impl SetupHost {
    /// Finds out what there is: for root, and with a `root`, of the system; else of the user.
    pub(super) fn detect(root: Option<&Path>) -> Result<SetupHost> {
        let is_system = geteuid().is_root() || root.is_some();
        let root = root.unwrap_or(Path::new("/")).to_owned();
        let runner = match is_system {
            true if root.join("run/systemd/system").is_dir() => FetchRunner::Systemd,
            true if root.join("etc/cron.d").is_dir() => FetchRunner::Cron,
            false if find_program("crontab").is_some() => FetchRunner::Crontab,
            false if has_user_systemd() => FetchRunner::UserSystemd,
            _ => FetchRunner::Nothing,
        };
        let config = match is_system {
            true => root.join(config::SYSTEM_CONFIG.trim_start_matches('/')),
            false => config::own_config().ok_or_else(|| {
                Exit::Usage.error("cannot tell where your config is: HOME is not set")
            })?,
        };
        let program = env::current_exe().context("cannot tell where this program is")?;
        Ok(SetupHost { root, runner, config, program })
    }

    /// Whether it is the system that is set up, and not a user's own.
    pub(super) fn is_system(&self) -> bool {
        !matches!(self.runner, FetchRunner::Crontab | FetchRunner::UserSystemd)
            && self.config.starts_with(self.root.join("etc"))
    }

    /// Returns what is at this path of the system.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Returns the path of the config.
    pub(super) fn config(&self) -> &Path {
        &self.config
    }

    /// Returns the directory of the secrets.
    pub(super) fn secrets(&self) -> PathBuf {
        self.config.with_file_name(config::SECRETS_DIR)
    }

    /// Returns the text that a new config begins with.
    pub(super) fn new_config(&self) -> String {
        let head = "# Accounts and settings of wxtoken: wxtoken.toml(5). `wxtoken setup APPID` adds an account.\n";
        if !self.is_system() {
            return head.to_owned();
        }
        let dir = config::edit::text(&self.path(config::SYSTEM_DIR).display().to_string());
        format!(
            "{head}\ndir = {dir}\n# Members of the group wxtoken may read tokens.\nmode = \"0640\"\n"
        )
    }

    /// Whether the service that asks WeChat and hands out is enabled.
    pub(super) fn has_central(&self) -> bool {
        let wants = "etc/systemd/system/multi-user.target.wants/wxtoken-central.service";
        self.path(wants).symlink_metadata().is_ok()
    }

    /// Returns the file of a unit, as systemd finds it.
    pub(super) fn unit(&self, name: &str) -> Option<PathBuf> {
        UNIT_DIRS.into_iter().map(|dir| self.path(dir).join(name)).find(|path| path.exists())
    }

    /// Returns the user and the group of the service, by their numbers; `None` if there is no such user.
    pub(super) fn service_user(&self) -> Option<(u32, u32)> {
        let users = fs::read_to_string(self.path("etc/passwd")).ok()?;
        let line = users.lines().find_map(|line| line.strip_prefix(USER)?.strip_prefix(':'))?;
        let mut fields = line.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    }

    /// Returns the program that services run, and where it has to be copied to for that, if other users cannot run it where
    /// it is.
    pub(super) fn program(&self) -> (PathBuf, Option<PathBuf>) {
        let is_private = PRIVATE_DIRS.into_iter().any(|dir| self.program.starts_with(dir));
        match is_private && self.is_system() {
            true => ("/usr/local/bin/wxtoken".into(), Some(self.path("usr/local/bin/wxtoken"))),
            false => (self.program.clone(), None),
        }
    }

    /// Returns where this program is.
    pub(super) fn own_program(&self) -> &Path {
        &self.program
    }
}

/// Returns where a program is that a shell would find, or root's.
pub(super) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    dirs.map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// Whether the user has a systemd that runs.
fn has_user_systemd() -> bool {
    let runtime = env::var_os("XDG_RUNTIME_DIR");
    runtime.is_some_and(|dir| Path::new(&dir).join("systemd/private").exists())
}
