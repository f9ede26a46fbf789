//! Files that another user could have written, replaced, or exchanged for a link or a pipe: which are used, and which are
//! refused.

mod bounds;
mod mounts;
mod owners;
mod paths;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::support::*;

/// A user that the tests do not run as.
pub(crate) const OTHER_USER: u32 = 65534;

/// Makes a directory that every user can write to, with the sticky bit, such as /tmp.
fn make_shared(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(dir).unwrap();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o1777)).unwrap();
}

/// Lets every user enter this directory of a test, and returns the path of a copy of wxtoken there.
pub(crate) fn open_to_all(dir: &Path) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.join("wxtoken");
    // A process of its own copies it: a child of another test would keep it open for writing, and it could not be run.
    let copied = Command::new("cp").arg(wxtoken().get_program()).arg(&program).status();
    assert!(copied.unwrap().success());
    program
}

/// Returns this command, run by [`OTHER_USER`].
pub(crate) fn by_other_user(program: &Path, command: &Command) -> Command {
    let mut other = wrapped(&["env"], command);
    let mut command = Command::new(program);
    command.args(other.get_args().skip(1)).uid(OTHER_USER).gid(OTHER_USER);
    for (name, value) in other.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    other.stdin(std::process::Stdio::null());
    command
}
