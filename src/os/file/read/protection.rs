//! Which owners and modes a file may have for its content to be used, and how a container's read-only mounts are judged.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, fstatvfs};
use rustix::process::geteuid;

use super::ReadError;
use crate::os::file::dir::{Dir, dir_of};
use crate::os::file::disk::{File, Metadata};

/// The owner of the files that belong to the system.
const ROOT: u32 = 0;

/// Which owner and which mode bits a file may have, for its content to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    /// Any mode. In a directory to which every user can write, such as /tmp, the owner must be root, the user of this process
    /// or the owner of the directory: another user could have put the file there.
    NotPlanted,
    /// Only the owner may write, and is root or the user of this process. All users may read.
    WritableByOwner,
    /// As `WritableByOwner`, and only the owner may read: the file holds a secret.
    Private,
    /// As `Private`, and for root the owner may also be the owner of the directory. Where cron runs `fetch` as a user of its own, the
    /// secrets are that user's, and root runs `check` and `setup` beside it.
    PrivateInDirectory,
    /// As `Private`, and its group may read. systemd grants access to a credential by an ACL, whose mask shows up as the
    /// group's bits, and Debian lets servers read private keys through the group ssl-cert.
    PrivateToGroup,
}

impl Protection {
    fn forbidden_bits(self) -> u32 {
        match self {
            Protection::NotPlanted => 0,
            Protection::WritableByOwner => WRITE_BITS,
            Protection::Private | Protection::PrivateInDirectory => 0o077,
            Protection::PrivateToGroup => 0o037,
        }
    }

    /// Fails if the file at `path`, which is in `dir`, does not meet the condition.
    pub(super) fn check(
        self,
        path: &Path,
        dir: &Dir,
        file: &File,
        metadata: &Metadata,
    ) -> Result<(), ReadError> {
        let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
        if self == Protection::NotPlanted {
            return match is_planted(dir, owner).map_err(ReadError::Io)? {
                true => Err(ReadError::Planted { owner }),
                false => Ok(()),
            };
        }
        let user = geteuid().as_raw();
        let is_owner_trusted = [ROOT, user].contains(&owner)
            || (self == Protection::PrivateInDirectory
                && user == ROOT
                && dir.stat_itself().map_err(ReadError::Io)?.st_uid == owner);
        if is_owner_trusted && mode & self.forbidden_bits() == 0 {
            Ok(())
        } else if mode & WRITE_BITS == 0 && is_container() && is_read_only(file) {
            // Secrets of Kubernetes and Docker Swarm, and files of a host that are mounted into a container: their owner and
            // mode are often not for the container to choose, no process in it can change them, and it holds no other users.
            Ok(())
        } else if !is_owner_trusted {
            Err(ReadError::Foreign { path: path.to_owned(), owner })
        } else {
            let is_mount_read_only = is_read_only(file) && !is_unit();
            Err(ReadError::Exposed {
                path: path.to_owned(),
                protection: self,
                mode,
                is_mount_read_only,
            })
        }
    }
}

/// The bits by which the group and all others may write.
const WRITE_BITS: u32 = 0o022;

/// Whether a file of this owner in `dir` may have been put there by a user who has nothing to do with it.
pub(super) fn is_planted(dir: &Dir, owner: u32) -> io::Result<bool> {
    let dir = dir.stat_itself()?;
    let is_trusted = || [ROOT, dir.st_uid].contains(&owner) || owner == geteuid().as_raw();
    if dir.st_mode & 0o002 == 0 || is_trusted() {
        return Ok(false);
    }
    // The volume that containers of a pod share (emptyDir) is open to all of them, without the sticky bit of /tmp, and has
    // no other users.
    let is_sticky = dir.st_mode & 0o1000 != 0;
    Ok(is_sticky || !is_container())
}

/// Returns what lets users besides its owner write the file at `path`, or put another one into its place, and its mode: the
/// file, or the directory that it is in. In a container the directory may be open: there are no other users.
pub(crate) fn open_to_writers(path: &Path) -> Option<(PathBuf, u32)> {
    open_to_writers_in(path, is_container())
}

fn open_to_writers_in(path: &Path, is_container: bool) -> Option<(PathBuf, u32)> {
    let dir = dir_of(path);
    let mode = |path: &Path| fs::metadata(path).map(|it| it.mode() & 0o7777).ok();
    let document = mode(path).filter(|mode| mode & WRITE_BITS != 0).map(|mode| (path, mode));
    // With the sticky bit no other user can replace the file.
    let is_open = |mode: &u32| mode & 0o1002 == 0o002 && !is_container;
    let dir = || mode(dir).filter(is_open).map(|mode| (dir, mode));
    document.or_else(dir).map(|(path, mode)| (path.to_owned(), mode))
}

/// Whether this process runs in a container, which has no users besides its own: Docker, Podman or Kubernetes say so, or
/// the variable `container` does (systemd's CONTAINER_INTERFACE).
pub(super) fn is_container() -> bool {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    ["/.dockerenv", "/run/.containerenv"].iter().any(|it| Path::new(it).exists())
        || ["KUBERNETES_SERVICE_HOST", "container"].into_iter().any(is_set)
}

/// Whether systemd has started this process. With ProtectSystem= a unit sees all files on read-only mounts, and their modes are
/// changed from outside of it.
fn is_unit() -> bool {
    env::var_os("INVOCATION_ID").is_some()
}

/// Whether the file is on a read-only mount.
fn is_read_only(file: &File) -> bool {
    fstatvfs(file).is_ok_and(|it| it.f_flag.contains(StatVfsMountFlags::RDONLY))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_others_may_write_or_replace_is_found_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let document = dir.path().join("shop.json");
        fs::write(&document, "").unwrap();
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        for (dir_mode, mode, of_host, of_container) in [
            (0o755, 0o640, None, None),
            // A group that shares a directory is as its members want it.
            (0o770, 0o644, None, None),
            (0o1777, 0o644, None, None),
            (0o777, 0o644, Some((dir.path(), 0o777)), None),
            (0o755, 0o660, Some((&*document, 0o660)), Some((&*document, 0o660))),
            (0o777, 0o602, Some((&*document, 0o602)), Some((&*document, 0o602))),
        ] {
            set(dir.path(), dir_mode);
            set(&document, mode);
            for (is_container, expected) in [(false, of_host), (true, of_container)] {
                let found = open_to_writers_in(&document, is_container);
                let expected = expected.map(|(path, mode)| (path.to_owned(), mode));
                assert_eq!(found, expected, "{dir_mode:o} {mode:o} {is_container}");
            }
        }
        assert_eq!(open_to_writers_in(&dir.path().join("no/shop.json"), false), None);
    }
}
