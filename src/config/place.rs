//! Where the config is that no option names: the user's own, or the system's. Does not read it.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use super::variable;
use crate::cli;

/// The config of the system.
pub(crate) const SYSTEM_CONFIG: &str = "/etc/wxtoken/wxtoken.toml";

/// Returns the config file: the named one, else the user's own or the system's if it exists and no account is given on the
/// command line. One that this process may not look at counts as existing: without it, accounts that it does not have
/// would be served to clients that its access rules keep out.
pub(crate) fn path(common: &cli::CommonArgs, given: &cli::AccountArgs) -> Option<PathBuf> {
    let is_given = !common.has_names && (given.file.is_some() || given.appid.is_some());
    let usual = || {
        let own = own_config().filter(|path| exists(path, is_foreign_home));
        own.or_else(|| Some(PathBuf::from(SYSTEM_CONFIG)).filter(|path| exists(path, || false)))
    };
    common.config.clone().or_else(|| if is_given { None } else { usual() })
}

/// Whether there is a file, or this process may not look whether there is one where it `is_foreign` does not hold.
fn exists(path: &Path, is_foreign: impl Fn() -> bool) -> bool {
    match fs::metadata(path) {
        Ok(_) => true,
        Err(err) => match err.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => false,
            ErrorKind::PermissionDenied => !is_foreign(),
            _ => true,
        },
    }
}

/// Whether the home directory of the environment is another user's, as `runuser -u www-data` leaves root's there.
fn is_foreign_home() -> bool {
    let owner = base().and_then(|(base, _)| fs::metadata(base).ok()).map(|it| it.uid());
    owner.is_some_and(|owner| owner != geteuid().as_raw())
}

/// Returns where the user's own config is; `None` for root, whose config is that of the system, and where there is no home.
pub(crate) fn own_config() -> Option<PathBuf> {
    if geteuid().is_root() {
        return None;
    }
    base().map(|(base, path)| base.join(path))
}

/// Returns the directory of the environment that the user's own config is below, and its path from there.
fn base() -> Option<(PathBuf, &'static str)> {
    // A relative path in it is to be ignored (XDG Base Directory Specification).
    let config = variable("XDG_CONFIG_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let home =
        || variable("HOME").map(|home| (PathBuf::from(home), ".config/wxtoken/wxtoken.toml"));
    config.map(|dir| (dir, "wxtoken/wxtoken.toml")).or_else(home)
}
