//! Where the config is that no option names: the user's own, or the system's. Does not read it.

use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use super::variable;
use crate::cli;

/// The config of the system.
pub(crate) const SYSTEM_CONFIG: &str = "/etc/wxtoken/wxtoken.toml";

/// Returns the config file: the named one, else the user's own or the system's if it exists and no account is given on the
/// command line.
pub(crate) fn path(common: &cli::CommonArgs, given: &cli::AccountArgs) -> Option<PathBuf> {
    let is_given = !common.has_names && (given.file.is_some() || given.appid.is_some());
    let usual = || {
        let places = [own_config(), Some(PathBuf::from(SYSTEM_CONFIG))];
        // If its directory cannot be entered, the file is meant for other users.
        let exists = |path: &PathBuf| matches!(path.try_exists(), Ok(true));
        places.into_iter().flatten().find(exists).filter(|_| !is_given)
    };
    common.config.clone().or_else(usual)
}

/// Returns where the user's own config is; `None` for root, whose config is that of the system, and where there is no home.
pub(crate) fn own_config() -> Option<PathBuf> {
    if geteuid().is_root() {
        return None;
    }
    // A relative path in it is to be ignored (XDG Base Directory Specification).
    let config = variable("XDG_CONFIG_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let config = config.or_else(|| variable("HOME").map(|home| Path::new(&home).join(".config")));
    config.map(|dir| dir.join("wxtoken/wxtoken.toml"))
}
