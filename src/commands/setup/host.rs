//! What there is on this host to set up with: systemd, cron or a crontab, the user of the service, its units, the program.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::process::geteuid;

use super::messages;
use super::step::SetupStep;
use crate::config;
use crate::error::Exit;
use crate::os::hook;

/// The name of the user and of the group that the service runs as.
pub(super) const USER: &str = "wxtoken";

/// Where systemd looks for units, in its order.
const UNIT_DIRS: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];

/// Directories whose programs other users, or services without access to homes, cannot run.
const PRIVATE_DIRS: [&str; 5] = ["/home", "/root", "/tmp", "/var/tmp", "/run/user"];

/// The variables that name the directories of the user's own config and documents, and their defaults below the home.
pub(super) const OWN_DIRS: [(&str, &str); 2] =
    [("XDG_CONFIG_HOME", ".config"), ("XDG_STATE_HOME", ".local/state")];

/// The variable of the user's home.
pub(super) const HOME: &str = "HOME";

/// The variable of the user's directory for sockets.
const RUNTIME_DIR: &str = "XDG_RUNTIME_DIR";

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

/// What setup has found out about the host, and for whom it sets it up.
pub(super) struct SetupHost {
    /// The directory in place of `/`.
    root: PathBuf,
    pub(super) runner: FetchRunner,
    config: PathBuf,
    /// The path of this program.
    program: PathBuf,
    /// Where the user's own systemd listens, if that is the runner.
    runtime_dir: Option<PathBuf>,
}

impl SetupHost {
    /// Looks at the host: at the system for root or with a `root` given, else at the user's own parts.
    pub(super) fn detect(root: Option<&Path>) -> Result<SetupHost> {
        let is_system = geteuid().is_root() || root.is_some();
        let root = root.unwrap_or(Path::new("/")).to_owned();
        let runtime_dir = if is_system { None } else { user_systemd() };
        let runner = match is_system {
            true if root.join("run/systemd/system").is_dir() => FetchRunner::Systemd,
            true if root.join("etc/cron.d").is_dir() => FetchRunner::Cron,
            false if find_program("crontab").is_some() => FetchRunner::Crontab,
            false if runtime_dir.is_some() => FetchRunner::UserSystemd,
            _ => FetchRunner::Nothing,
        };
        let config = match is_system {
            true => root.join(config::SYSTEM_CONFIG.trim_start_matches('/')),
            false => {
                config::own_config().ok_or_else(|| Exit::Usage.error(messages::NO_HOME.text()))?
            }
        };
        let program = env::current_exe().context(messages::NO_PROGRAM.text())?;
        Ok(SetupHost { root, runner, config, program, runtime_dir })
    }

    /// Whether the system is set up, and not a user's own config.
    pub(super) fn is_system(&self) -> bool {
        !matches!(self.runner, FetchRunner::Crontab | FetchRunner::UserSystemd)
            && self.config.starts_with(self.root.join("etc"))
    }

    /// Returns the path on this host of a path of the system.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Returns the path of the config.
    pub(super) fn config(&self) -> &Path {
        &self.config
    }

    /// Returns the step that makes the directory of the config.
    pub(super) fn config_dir(&self) -> SetupStep {
        let path = self.config.parent().unwrap_or(Path::new("/")).to_owned();
        let mode = if self.is_system() { 0o755 } else { 0o700 };
        SetupStep::Directory { path, mode, owner: None }
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

    /// Whether `wxtoken-central.service` is enabled, which asks WeChat and hands tokens out.
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

    /// Whether root's files in the directory of documents have to be given to the service. systemd gives a directory with all that is in it
    /// to the service, but only if the directory is not yet the service's.
    pub(super) fn gives_documents(&self) -> bool {
        let found = || self.path(config::SYSTEM_DIR).symlink_metadata().ok();
        match self.runner {
            FetchRunner::Cron => true,
            FetchRunner::Systemd => self
                .service_user()
                .zip(found())
                .is_some_and(|((user, _), found)| found.is_dir() && found.uid() == user),
            _ => false,
        }
    }

    /// Returns the program that services run, and where it has to be copied to first: if other users cannot run it in its place, or if a user
    /// besides root could replace it there.
    pub(super) fn program(&self) -> (PathBuf, Option<PathBuf>) {
        let copy = self.path("usr/local/bin/wxtoken");
        let is_private = PRIVATE_DIRS.into_iter().any(|dir| self.program.starts_with(dir));
        // On older Debian systems the group staff may write to /usr/local/bin, which no copy would change.
        let places = if self.program == copy { 1 } else { usize::MAX };
        let is_roots = self.program.ancestors().take(places).all(is_roots);
        match self.is_system() && (is_private || !is_roots) {
            true => ("/usr/local/bin/wxtoken".into(), Some(copy)),
            false => (self.program.clone(), None),
        }
    }

    /// Returns the program that services run, and the step that copies it to there, if it has to be. Fails if other users could
    /// change it there, too, or could not run it.
    pub(super) fn installed_program(&self) -> Result<(PathBuf, Option<SetupStep>)> {
        let (program, copy) = self.program();
        let Some(to) = copy else { return Ok((program, None)) };
        for dir in to.ancestors().skip(1).take_while(|dir| *dir != self.root) {
            let Ok(found) = dir.metadata() else { continue };
            let is_owned = [0, geteuid().as_raw()].contains(&found.uid());
            if !is_owned || found.mode() & 0o002 != 0 || found.mode() & 0o001 == 0 {
                return Err(Exit::Usage.error(messages::NO_PLACE.with([&dir.display()])));
            }
        }
        Ok((program, Some(SetupStep::Program { from: self.program.clone(), to })))
    }

    /// Fails if a user besides root could change the system's config: it says what the services do, and root's steps write in its directory.
    pub(super) fn check_config_dir(&self) -> Result<()> {
        let dir = self.config.parent().unwrap_or(Path::new("/"));
        let Ok(found) = dir.metadata() else { return Ok(()) };
        let is_owned = [0, geteuid().as_raw()].contains(&found.uid());
        if !self.is_system() || (is_owned && found.mode() & 0o022 == 0) {
            return Ok(());
        }
        Err(Exit::Usage.error(messages::CHANGEABLE.with([&dir.display()])))
    }

    /// Whether systemd listens at the addresses of the socket unit, in place of the service.
    pub(super) fn has_socket_enabled(&self) -> bool {
        let wants = "etc/systemd/system/sockets.target.wants/wxtoken-serve.socket";
        self.path(wants).symlink_metadata().is_ok()
    }

    /// Returns the variable by which `systemctl --user` finds the user's own systemd.
    pub(super) fn runtime_variable(&self) -> Option<(&'static str, &Path)> {
        self.runtime_dir.as_deref().map(|dir| (RUNTIME_DIR, dir))
    }

    /// Returns the variables that name the user's own directories here, and that neither cron nor the user's systemd has: without
    /// them, `fetch` would not find the config, or publish elsewhere than `get` reads.
    pub(super) fn own_dirs(&self) -> Vec<(&'static str, PathBuf)> {
        if self.is_system() {
            return Vec::new();
        }
        let home = own_home();
        let set = |(name, usual): (&'static str, &str)| {
            let dir = env::var_os(name).map(PathBuf::from)?;
            (dir.is_absolute() && dir != home.join(usual)).then_some((name, dir))
        };
        OWN_DIRS.into_iter().filter_map(set).collect()
    }

    /// Returns where this program is.
    pub(super) fn own_program(&self) -> &Path {
        &self.program
    }
}

/// Returns the user's home, as the environment names it.
pub(super) fn own_home() -> PathBuf {
    env::var_os(HOME).map(PathBuf::from).unwrap_or_default()
}

/// Whether a file or directory is root's, and root alone can change it, and all users can use it.
fn is_roots(path: &Path) -> bool {
    let found = path.symlink_metadata();
    found.is_ok_and(|it| it.uid() == 0 && it.mode() & 0o022 == 0 && it.mode() & 0o001 != 0)
}

/// Returns where a program is that a shell would find, or root's.
pub(super) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    hook::find_in(dirs, Path::new(name))
}

/// Returns the directory in which the user's own systemd listens; `None` if none runs. After `sudo -u` the environment does not
/// name it.
fn user_systemd() -> Option<PathBuf> {
    let named = env::var_os(RUNTIME_DIR).map(PathBuf::from);
    let usual = Path::new("/run/user").join(geteuid().as_raw().to_string());
    named.into_iter().chain([usual]).find(|dir| dir.join("systemd/private").exists())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn services_run_only_a_program_that_root_alone_can_replace() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("run/systemd/system")).unwrap();
        let mut host = SetupHost::detect(Some(root.path())).unwrap();
        let copy = root.path().join("usr/local/bin/wxtoken");
        // Not in one of the directories that are known to be private.
        for program in ["/nonexistent/wxtoken", "/dev/shm/wxtoken"] {
            host.program = program.into();
            assert_eq!(host.program().1.as_deref(), Some(copy.as_path()), "{program}");
        }
        host.program = fs::canonicalize("/bin/sh").unwrap();
        assert_eq!(host.program(), (host.program.clone(), None));
        // Nor one that others can replace where it is copied to, or cannot run there.
        host.program = "/nonexistent/wxtoken".into();
        let bin = root.path().join("usr/local/bin");
        fs::create_dir_all(&bin).unwrap();
        for (mode, is_place) in [(0o755, true), (0o2775, true), (0o777, false), (0o700, false)] {
            for dir in [&bin, &root.path().join("usr")] {
                fs::set_permissions(dir, PermissionsExt::from_mode(mode)).unwrap();
                assert_eq!(host.installed_program().is_ok(), is_place, "{mode:o}");
                fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).unwrap();
            }
        }
        host.program = fs::canonicalize("/bin/sh").unwrap();
        assert!(host.check_config_dir().is_ok());
        let dir = root.path().join("etc/wxtoken");
        fs::create_dir_all(&dir).unwrap();
        let set_mode = |mode| {
            fs::set_permissions(&dir, PermissionsExt::from_mode(mode)).unwrap();
        };
        set_mode(0o755);
        assert!(host.check_config_dir().is_ok());
        set_mode(0o775);
        assert!(host.check_config_dir().is_err());
    }

    #[test]
    fn a_file_that_cannot_be_run_is_no_program() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for (name, mode) in [("first", 0o644), ("second", 0o755)] {
            fs::create_dir(path(name)).unwrap();
            let program = path(name).join("crontab");
            fs::write(&program, "").unwrap();
            fs::set_permissions(program, PermissionsExt::from_mode(mode)).unwrap();
        }
        let found = hook::find_in(["first", "second"].map(path).into_iter(), Path::new("crontab"));
        assert_eq!(found, Some(path("second").join("crontab")));
        assert_eq!(hook::find_in([path("first")].into_iter(), Path::new("crontab")), None);
    }
}
