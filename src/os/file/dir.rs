//! A directory that is opened once, and through which its files are reached. No later step resolves its path again: a user who renames a
//! directory on the way, or puts a link in its place, cannot lead a later step elsewhere.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::{Component, Path};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RawMode, Stat, StatxAttributes, StatxFlags, chmod,
    fchmod, fstat, mkdirat, openat, renameat, statat, statx, unlinkat,
};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::geteuid;

use super::disk::File;
#[cfg(test)]
use super::disk::model::{self, ModelDir};
use crate::message::messages;

messages! {
    SOCKET_REPLACED<0> {
        "Give the socket a directory of its own.", "something else was put in place of the socket";
        "请将套接字放在单独的目录中。", "套接字的位置被放入了其他文件";
    }
}

/// The mode of a directory that only its owner may enter.
const PRIVATE: u32 = 0o700;

/// An open directory.
pub(crate) enum Dir {
    System(OwnedFd),
    #[cfg(test)]
    Model(ModelDir),
}

/// What statx(2) tells of a file besides its status.
#[derive(Clone, Copy)]
pub(crate) struct Attributes {
    set: StatxAttributes,
    known: StatxAttributes,
}

impl Attributes {
    /// Returns those of a file that has none.
    #[cfg(test)]
    fn none() -> Attributes {
        Attributes { set: StatxAttributes::empty(), known: StatxAttributes::all() }
    }

    /// Whether this one is set (chattr(1)).
    pub(crate) fn contains(self, attribute: StatxAttributes) -> bool {
        self.set.contains(attribute)
    }

    /// Whether the file is mounted on its own; `None` if the kernel does not tell. Linux does since 5.8.
    pub(crate) fn is_mount_point(self) -> Option<bool> {
        let is_known = self.known.contains(StatxAttributes::MOUNT_ROOT);
        is_known.then(|| self.contains(StatxAttributes::MOUNT_ROOT))
    }
}

/// Returns the directory that the file at `path` is in. That of a bare name is the current one.
pub(crate) fn dir_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns the parent of a path and the last name in it; `None` if there is no such name.
fn split(path: &Path) -> Option<(&Path, &OsStr)> {
    let bytes = path.as_os_str().as_bytes();
    // Nearly all paths are plain, and `Path` looks for the exceptions at every byte.
    if let Some(slash) = bytes.iter().rposition(|byte| *byte == b'/')
        && let (parent, name) = (&bytes[..slash], &bytes[slash + 1..])
        && !parent.is_empty()
        && !parent.ends_with(b"/")
        && !matches!(name, b"" | b"." | b"..")
    {
        return Some((Path::new(OsStr::from_bytes(parent)), OsStr::from_bytes(name)));
    }
    Some((path.parent()?, path.file_name()?))
}

/// Gives its owner all permissions on a directory of this user that is open as a path only, as it cannot be read.
fn give_to_owner(dir: &OwnedFd) -> rustix::io::Result<()> {
    if fstat(dir)?.st_uid != geteuid().as_raw() {
        return Err(Errno::ACCESS);
    }
    // The name may lead elsewhere by now, and fchmod takes no descriptor of a path.
    chmod(format!("/proc/self/fd/{}", dir.as_raw_fd()), Mode::RWXU)
}

/// In unit tests, returns what the directory of a simulation does. Else does nothing.
macro_rules! simulated {
    ($self:expr, $dir:ident => $call:expr) => {
        #[cfg(test)]
        if let Dir::Model($dir) = $self {
            return $call;
        }
    };
}

impl Dir {
    /// Opens the directory at `path`; the empty path is the current directory. Follows links.
    pub(crate) fn open(path: &Path) -> io::Result<Dir> {
        #[cfg(test)]
        if let Some(dir) = model::open_dir(path) {
            return Ok(Dir::Model(dir));
        }
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        // To be passed through only: another user's directory may be enterable and not readable.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Dir::System(retry_on_intr(|| openat(CWD, path, flags, Mode::empty()))?))
    }

    /// Opens the directory of the file at `path`, which need not exist. Also returns the file's name in it.
    pub(crate) fn of(path: &Path) -> io::Result<(Dir, &OsStr)> {
        match split(path) {
            Some((parent, name)) => Ok((Dir::open(parent)?, name)),
            // `/` or `..`.
            None => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    /// Opens the directory at `path`. Creates it first if it is missing, and those above it that are missing too: itself
    /// with the permissions `mode`, whatever the umask, the others for their owner only.
    pub(crate) fn open_or_create(path: &Path, mode: u32) -> io::Result<Dir> {
        Dir::open_or_create_below(path, mode, PRIVATE)
    }

    /// Opens or creates the directory at `path` like [`Dir::open_or_create`], with the permissions `above` for missing directories above
    /// it.
    pub(crate) fn open_or_create_below(path: &Path, mode: u32, above: u32) -> io::Result<Dir> {
        let is_missing = |err: &io::Error| err.kind() == io::ErrorKind::NotFound;
        match Dir::open(path) {
            Err(err) if is_missing(&err) => {}
            opened => return opened,
        }
        let mut ancestors = path.ancestors().skip(1);
        let (existing, mut dir) = loop {
            let Some(ancestor) = ancestors.next() else { return Err(Errno::NOENT.into()) };
            match Dir::open(ancestor) {
                Ok(dir) => break (ancestor, dir),
                Err(err) if is_missing(&err) => {}
                Err(err) => return Err(err),
            }
        };
        let missing = path.strip_prefix(existing).unwrap_or(Path::new(""));
        let mut parts = missing.components().peekable();
        while let Some(component) = parts.next() {
            let name = component.as_os_str();
            // With its mode from the start, as far as the umask allows: a process that is killed here leaves nothing to mend.
            let mode =
                Mode::from_raw_mode(if parts.peek().is_none() { mode } else { above } as RawMode);
            let is_new = component != Component::ParentDir
                && match mkdirat(dir.fd(), name, mode) {
                    Ok(()) => true,
                    Err(Errno::EXIST) => false, // Another process has just created it.
                    Err(err) => return Err(err.into()),
                };
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let open = |flags| retry_on_intr(|| openat(dir.fd(), name, flags, Mode::empty()));
            let opened = open(flags | OFlags::RDONLY).or_else(|err| match err {
                // The umask has taken the owner's own permissions.
                Errno::ACCESS if is_new => {
                    give_to_owner(&open(flags | OFlags::PATH)?)?;
                    open(flags | OFlags::RDONLY)
                }
                err => Err(err),
            });
            dir = Dir::System(opened?);
            // The owner of the directory above may have put another one in its place.
            if is_new && dir.stat_itself()?.st_uid == geteuid().as_raw() {
                fchmod(dir.fd(), mode)?;
            }
        }
        Ok(dir)
    }

    /// Opens the file called `name`, with these flags and, if it is created, this mode.
    pub(super) fn open_file(&self, name: &OsStr, flags: OFlags, mode: Mode) -> io::Result<File> {
        simulated!(self, dir => {
            let has = |flag| flags.contains(flag);
            dir.open(name, has(OFlags::CREATE), has(OFlags::EXCL), mode.bits()).map(File::Model)
        });
        let flags = flags | OFlags::CLOEXEC;
        let file = retry_on_intr(|| openat(self.fd(), name, flags, mode))?;
        Ok(File::System(fs::File::from(file)))
    }

    /// Creates the file called `name` for writing, with the permissions `mode` as far as the umask allows. Fails if there is
    /// anything of that name.
    pub(crate) fn create_file(&self, name: &OsStr, mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        self.open_file(name, flags, Mode::from_raw_mode(mode as RawMode))
    }

    /// Returns the status of what is called `name`. Does not follow a link.
    pub(crate) fn stat(&self, name: &OsStr) -> io::Result<Stat> {
        simulated!(self, dir => dir.stat(name));
        Ok(statat(self.fd(), name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Returns the status of the directory.
    pub(crate) fn stat_itself(&self) -> io::Result<Stat> {
        simulated!(self, dir => Ok(dir.stat_itself()));
        Ok(fstat(self.fd())?)
    }

    /// Returns the attributes of what is called `name`, as far as the kernel and the file system have them.
    pub(crate) fn attributes(&self, name: &OsStr) -> Attributes {
        simulated!(self, _dir => Attributes::none());
        let found = statx(self.fd(), name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty());
        let unknown = StatxAttributes::empty();
        found.map_or(Attributes { set: unknown, known: unknown }, |it| Attributes {
            set: it.stx_attributes,
            known: it.stx_attributes_mask,
        })
    }

    /// Gives the socket called `name`, which this process has made, this mode. Returns its status. Fails if another user may
    /// have put something else there since.
    pub(crate) fn set_socket_mode(&self, name: &OsStr, mode: u32) -> io::Result<Stat> {
        let socket = self.open_file(name, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
        let found = fstat(&socket)?;
        let is_socket = FileType::from_raw_mode(found.st_mode) == FileType::Socket;
        if !is_socket || found.st_uid != geteuid().as_raw() || found.st_nlink != 1 {
            return Err(io::Error::other(SOCKET_REPLACED.text()));
        }
        // A socket cannot be opened in a way that fchmod takes. This leads to the open inode, whatever has its name by now.
        let open = format!("/proc/self/fd/{}", socket.as_fd().as_raw_fd());
        fs::set_permissions(open, Permissions::from_mode(mode))?;
        Ok(found)
    }

    /// Renames a file within the directory, and replaces one that is called `to`.
    pub(crate) fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        simulated!(self, dir => dir.rename(from, to));
        Ok(renameat(self.fd(), from, self.fd(), to)?)
    }

    /// Removes the file called `name`.
    pub(crate) fn remove(&self, name: &OsStr) -> io::Result<()> {
        simulated!(self, dir => dir.remove(name));
        Ok(unlinkat(self.fd(), name, AtFlags::empty())?)
    }

    /// Opens the directory so that it can be synced.
    pub(crate) fn open_itself(&self) -> io::Result<File> {
        simulated!(self, dir => dir.open_itself().map(File::Model));
        self.open_file(OsStr::new("."), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Dir::System(dir) => dir.as_fd(),
            // Each method has asked the model before.
            #[cfg(test)]
            Dir::Model(_) => CWD,
        }
    }

    /// Gives a file that root has made here to the owner of the directory, so that a run as root does not lock out the
    /// service. Does nothing for other users, who own what they make.
    pub(crate) fn give_to_owner(&self, file: &File) -> io::Result<()> {
        simulated!(self, _dir => Ok(()));
        if !geteuid().is_root() {
            return Ok(());
        }
        let dir = self.stat_itself()?;
        match file.metadata()?.uid() == dir.st_uid {
            true => Ok(()),
            false => fchown(file, Some(dir.st_uid), Some(dir.st_gid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_path_is_split_as_the_standard_library_does() {
        for path in [
            "/a/b/shop.json",
            "a/shop.json",
            "shop.json",
            "/shop.json",
            "/",
            "",
            ".",
            "..",
            "a/..",
            "a/.",
            "a/",
            "/a//",
            "a//shop.json",
            "//shop.json",
            "a/./shop.json",
            "./shop.json",
            "../shop.json",
            "a/.shop",
            "a/...",
        ] {
            let path = Path::new(path);
            let expected = path.parent().zip(path.file_name());
            assert_eq!(split(path), expected, "{}", path.display());
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_created_directory_has_its_mode_and_those_above_it_are_private() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b");
        Dir::open_or_create(&path, 0o755).unwrap();
        assert_eq!((mode(&temp.path().join("a")), mode(&path)), (0o700, 0o755));
        // One that is there keeps its mode.
        Dir::open_or_create(&path, 0o700).unwrap();
        assert_eq!(mode(&path), 0o755);
        Dir::open_or_create(&temp.path().join("c/../d"), 0o750).unwrap();
        assert_eq!(mode(&temp.path().join("d")), 0o750);
    }

    #[test]
    fn a_link_in_place_of_a_missing_directory_is_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let elsewhere = temp.path().join("elsewhere");
        symlink(&elsewhere, temp.path().join("link")).unwrap();
        assert!(Dir::open_or_create(&temp.path().join("link"), 0o755).is_err());
        assert!(Dir::open_or_create(&temp.path().join("link/below"), 0o755).is_err());
        assert!(!elsewhere.exists());
    }

    #[test]
    fn files_are_reached_after_the_directory_was_renamed_and_another_took_its_place() {
        let temp = tempfile::tempdir().unwrap();
        let (path, moved) = (temp.path().join("dir"), temp.path().join("moved"));
        fs::create_dir(&path).unwrap();
        let file = path.join("file");
        let (dir, name) = Dir::of(&file).unwrap();
        fs::rename(&path, &moved).unwrap();
        fs::create_dir(&path).unwrap();
        fs::write(&file, "theirs").unwrap();
        dir.create_file(name, 0o600).unwrap();
        dir.rename(name, OsStr::new("renamed")).unwrap();
        assert!(moved.join("renamed").exists());
        dir.remove(OsStr::new("renamed")).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"theirs");
    }

    #[test]
    fn a_path_without_a_file_name_is_a_directory() {
        for path in ["/", "..", "a/.."] {
            let err = Dir::of(Path::new(path)).map(|_| ()).unwrap_err();
            assert_eq!(err.kind(), io::ErrorKind::IsADirectory, "{path}");
        }
        assert_eq!(Dir::of(Path::new("a")).unwrap().1, "a");
    }
}
