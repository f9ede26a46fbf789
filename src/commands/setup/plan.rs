//! Which steps set an account up on this host, in their order. What is needed by a later step comes before it, and the secret
//! comes before the config that names its account.

use std::fs;
use std::mem;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::Result;
use rustix::process::geteuid;
use zeroize::Zeroizing;

use super::cron;
use super::env_file::EnvFile;
use super::host::{FetchRunner, SetupHost, find_program, own_home};
use super::messages;
use super::step::{self, Content, DirectoryOwner, SetupStep};
use super::units;
use crate::config::SYSTEM_DIR;
use crate::config::edit::ConfigEdit;
use crate::error::Exit;
use crate::log::printable;
use crate::store;

/// The units, by what they are for.
const TIMER: &str = "wxtoken-fetch.timer";
pub(super) const FETCH: &str = "wxtoken-fetch.service";
const SERVE: &str = "wxtoken-serve.service";
const SOCKET: &str = "wxtoken-serve.socket";
const CENTRAL: &str = "wxtoken-central.service";

/// What is to be set up.
pub(super) struct Wanted<'a> {
    pub(super) host: &'a SetupHost,
    pub(super) config: &'a ConfigEdit,
    pub(super) env_file: &'a EnvFile,
    pub(super) name: &'a str,
    pub(super) appid: &'a str,
    /// The AppSecret and a line end; empty for a preview.
    pub(super) secret: Zeroizing<String>,
    /// Whether the account is one of a process that asks and hands out.
    pub(super) is_central: bool,
    /// Whether other hosts are to be served.
    pub(super) is_served: bool,
}

impl Wanted<'_> {
    /// Returns the steps, without the first fetch.
    pub(super) fn steps(mut self) -> Result<Vec<SetupStep>> {
        let Wanted { host, config, .. } = self;
        let mut steps = Vec::new();
        let units = match host.runner {
            FetchRunner::Systemd => {
                check_names(&host.secrets())?;
                units::units(host)?
            }
            _ => Vec::new(),
        };
        let cron = match host.runner {
            FetchRunner::Cron => cron::cron(host, self.appid)?,
            _ => Vec::new(),
        };
        if matches!(host.runner, FetchRunner::Systemd | FetchRunner::Cron) {
            let has_sysusers = find_program("systemd-sysusers").is_some();
            steps.extend(units::user(host, has_sysusers));
        }
        let dir = config.path().parent().unwrap_or(Path::new("/"));
        if !dir.exists() {
            steps.push(host.config_dir());
        }
        // cron runs `fetch` as a user that has to read them; systemd reads them as root, and hands over copies.
        let owner = match host.runner {
            _ if !geteuid().is_root() => None,
            FetchRunner::Cron => Some(DirectoryOwner::Service),
            _ => Some(DirectoryOwner::Root),
        };
        steps.push(SetupStep::Directory { path: host.secrets(), mode: 0o700, owner });
        let documents = host.path(SYSTEM_DIR);
        // What root's fetch has published there before is of no use to the service.
        let of_root = match owner {
            Some(_) if host.gives_documents() => store::files_of_root_in(&documents),
            _ => Vec::new(),
        };
        if host.runner == FetchRunner::Cron {
            steps.push(SetupStep::Directory { path: documents, mode: 0o750, owner });
        }
        if !of_root.is_empty() {
            steps.push(SetupStep::Give(of_root));
        }
        let path = host.secrets().join(format!("{}.secret", self.name));
        let content = Content::Secret(mem::take(&mut self.secret));
        steps.push(SetupStep::File { path, mode: 0o600, content });
        let (path, text) = (config.path().to_owned(), config.after().to_owned());
        steps.extend(SetupStep::text(path, if host.is_system() { 0o644 } else { 0o600 }, text));
        match host.runner {
            FetchRunner::Systemd => steps.extend(self.systemd_steps(units)?),
            FetchRunner::Cron => steps.extend(cron),
            FetchRunner::Crontab => {
                let (there, home, dirs) = (step::crontab()?, own_home(), host.own_dirs());
                let program = host.own_program();
                steps.extend(cron::crontab(&there, &home, program, &dirs, self.appid)?);
            }
            FetchRunner::UserSystemd => {
                let configs = dir.parent().unwrap_or(dir);
                steps.extend(units::user_units(configs, host.own_program(), &host.own_dirs())?);
            }
            FetchRunner::Nothing => {}
        }
        Ok(steps)
    }

    /// Returns the steps by which systemd runs wxtoken from then on, with these units.
    fn systemd_steps(&self, units: Vec<SetupStep>) -> Result<Vec<SetupStep>> {
        let Wanted { host, config, env_file, is_central, is_served, .. } = *self;
        let overridden = env_file.overridden(is_served);
        let is_changed = overridden.is_some();
        let filter = match is_served && !is_central {
            true => {
                check_socket(host)?;
                units::filter(host, &config.allowed())?
            }
            false => None,
        };
        let has_new = !units.is_empty() || filter.is_some();
        let mut steps: Vec<_> = overridden.into_iter().chain(units).chain(filter).collect();
        if has_new {
            steps.push(SetupStep::run(&["systemctl", "daemon-reload"]));
        }
        let has_socket = host.unit(SOCKET).is_some();
        steps.extend(commands(is_central, is_served, has_socket));
        if is_changed && !is_central && !is_served {
            // It runs with what the environment file said.
            steps.push(SetupStep::run(&["systemctl", "try-restart", SERVE]));
        }
        Ok(steps)
    }
}

/// Returns what systemctl is told.
fn commands(is_central: bool, is_served: bool, has_socket: bool) -> Vec<SetupStep> {
    let mut commands: Vec<&[&str]> = Vec::new();
    if is_central {
        // Both would ask, and listen on one address.
        commands.push(match has_socket {
            true => &["systemctl", "disable", "--now", TIMER, SOCKET, SERVE],
            false => &["systemctl", "disable", "--now", TIMER, SERVE],
        });
        commands.push(&["systemctl", "enable", CENTRAL]);
        // The secrets are copied when it starts.
        commands.push(&["systemctl", "restart", CENTRAL]);
    } else {
        commands.push(&["systemctl", "enable", "--now", TIMER]);
        if is_served {
            commands.push(&["systemctl", "enable", SERVE]);
            commands.push(&["systemctl", "restart", SERVE]);
        }
    }
    commands.into_iter().map(SetupStep::run).collect()
}

/// Fails where the service gets its sockets from systemd: the address that was said would not be listened at.
fn check_socket(host: &SetupHost) -> Result<()> {
    match host.has_socket_enabled() {
        false => Ok(()),
        true => Err(Exit::Usage.error(messages::SOCKET_ENABLED.text())),
    }
}

/// Fails for a file among the secrets whose name systemd takes for none of a credential: no unit that is passed the directory
/// would start then, and it would not say why (systemd 252).
fn check_names(secrets: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(secrets) else { return Ok(()) };
    let is_bad =
        |name: &[u8]| name.first() != Some(&b'.') && (!name.is_ascii() || name.contains(&b':'));
    let names = entries.flatten().map(|entry| entry.file_name());
    match names.into_iter().find(|name| is_bad(name.as_bytes())) {
        None => Ok(()),
        Some(name) => {
            let name = printable(&name.to_string_lossy(), 60);
            Err(Exit::Usage.error(messages::BAD_NAME.with([&secrets.display(), &name])))
        }
    }
}
