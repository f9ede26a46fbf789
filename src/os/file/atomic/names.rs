//! The files beside a target that come and go while it is replaced, and what is known of the target before.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{FileType, Stat, StatxAttributes};

use crate::message::cannot;
use crate::message::command::quoted_path;
use crate::os::fault::{Operation, explain};
use crate::os::file::dir::{Attributes, Dir, dir_of};
use crate::os::file::messages::{
    ATTRIBUTE, MOUNTED_ALONE, NO_FILE_NAME, NOT_REGULAR, STICKY, SYMBOLIC_LINK,
};
use crate::os::file::mounts::is_mount_point;
use crate::sabotage::{Bug, has_bug};

// How the names end of the files beside a target that come and go.
pub(super) const TEMP: &str = ".tmp";
pub(super) const INTERIM: &str = ".now";
pub(super) const TRIAL: &str = ".trial";
pub(super) const TRIAL_MOVED: &str = ".moved";
pub(super) const TRIAL_LOCK: &str = ".check";

/// Returns the name of the hidden file beside a target of this name that ends so.
pub(super) fn beside(name: &OsStr, end: &str) -> OsString {
    let mut own = OsString::with_capacity(1 + name.len() + end.len());
    own.push(".");
    own.push(name);
    own.push(end);
    own
}

/// The directory of a target, and the names of the files that come and go there. The names are fixed, so that the next run
/// finds what a killed one left behind.
pub(super) struct Names {
    pub(super) dir: Dir,
    /// The path of the target, for messages.
    pub(super) path: PathBuf,
    pub(super) target: OsString,
    /// What will be renamed to the target.
    pub(super) temp: OsString,
    /// A second file to be renamed to the target, while the one at `temp` stays ready.
    pub(super) interim: OsString,
}

impl Names {
    pub(super) fn of(target: &Path) -> Result<Names> {
        if target.file_name().is_none() {
            bail!(NO_FILE_NAME.with([&target.display()]));
        }
        let (dir, name) = Dir::of(target)
            .map_err(|err| explain(err, dir_of(target), Operation::Reading))
            .with_context(|| cannot("open directory", "打开目录", dir_of(target).display()))?;
        Ok(Names {
            dir,
            path: target.to_owned(),
            target: name.to_owned(),
            temp: beside(name, TEMP),
            interim: beside(name, INTERIM),
        })
    }

    /// Returns the name of the hidden file beside the target that ends so.
    pub(super) fn beside(&self, end: &str) -> OsString {
        beside(&self.target, end)
    }

    pub(super) fn dir_path(&self) -> PathBuf {
        dir_of(&self.path).to_owned()
    }

    /// What messages call the file of this name.
    pub(super) fn shown(&self, name: &OsStr) -> String {
        self.path.with_file_name(name).display().to_string()
    }

    pub(super) fn remove_leftovers(&self) -> Result<()> {
        if has_bug(Bug::LeftoversStay) {
            return Ok(());
        }
        self.remove_if_there(&self.temp)?;
        self.remove_if_there(&self.interim)
    }

    /// Removes a file that a killed process left behind.
    pub(super) fn remove_if_there(&self, name: &OsStr) -> Result<()> {
        match self.dir.remove(name) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                let err = explain(err, &self.dir_path(), Operation::Writing);
                Err(err)
                    .with_context(|| cannot("remove leftover", "删除残留文件", self.shown(name)))
            }
            _ => Ok(()),
        }
    }

    /// Fails if `rename` would refuse to replace the target, or would replace a link instead of the file that it leads to.
    pub(super) fn check_target(&self) -> Result<()> {
        check_attributes(self.dir.attributes(OsStr::new(".")), || self.dir_path())?;
        let target = self.path.display();
        let found = match self.dir.stat(&self.target) {
            Ok(found) => found,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(err) => {
                return Err(explain(err, &self.path, Operation::Reading))
                    .with_context(|| cannot("look at", "查看", target));
            }
        };
        match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile => {}
            FileType::Symlink => bail!(SYMBOLIC_LINK.with([&target])),
            _ => bail!(NOT_REGULAR.with([&target])),
        }
        let attributes = self.dir.attributes(&self.target);
        check_attributes(attributes, || self.path.clone())?;
        self.check_may_replace(&found)?;
        if attributes.is_mount_point().unwrap_or_else(|| is_mount_point(&self.path)) {
            bail!(MOUNTED_ALONE.with([&target]));
        }
        Ok(())
    }

    /// Fails if the kernel would refuse to rename over this file although its directory can be written.
    fn check_may_replace(&self, found: &Stat) -> Result<()> {
        // unlink(2): in a sticky directory only the owners of the file and of the directory may, and root.
        let dir = self.dir.stat_itself();
        let dir = dir
            .map_err(|err| explain(err, &self.dir_path(), Operation::Reading))
            .with_context(|| cannot("look at", "查看", self.dir_path().display()))?;
        let may_replace = || {
            let user = rustix::process::geteuid();
            user.is_root() || [dir.st_uid, found.st_uid].contains(&user.as_raw())
        };
        if dir.st_mode & 0o1000 != 0 && !may_replace() {
            bail!(STICKY.with([&self.path.display()]));
        }
        Ok(())
    }
}

/// Fails if these attributes, of the file or directory at `path`, are those of an immutable or append-only one (chattr +i, +a): an
/// immutable file cannot be replaced, and an append-only directory takes new files and never renames them.
fn check_attributes(attributes: Attributes, path: impl FnOnce() -> PathBuf) -> Result<()> {
    let (what, flag) = match attributes {
        it if it.contains(StatxAttributes::IMMUTABLE) => ("immutable", "i"),
        it if it.contains(StatxAttributes::APPEND) => ("append-only", "a"),
        _ => return Ok(()),
    };
    bail!(ATTRIBUTE.with([&quoted_path(&path()), &flag, &what]))
}
