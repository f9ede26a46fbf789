//! Opens and reads files that other users may be able to write to, replace, or exchange for a pipe: without waiting, with
//! every condition checked on the open descriptor, and never more than a given number of bytes. Knows nothing of what is in
//! a file.

use std::ffi::OsStr;
use std::fmt;
use std::fs::Permissions;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, Timespec};
use rustix::io::Errno;
use rustix::process::geteuid;
use zeroize::Zeroizing;

use crate::message::command::quoted_path;
use crate::message::{cannot, messages, span};
use crate::os::fault::{Operation, explain};
use crate::os::file::dir::Dir;
use crate::os::file::disk::{File, Metadata};
use crate::os::file::version::FileVersion;

mod protection;

pub(crate) use protection::{Protection, open_to_writers};

/// The largest file of certificates or keys in PEM that is read, in bytes. The authorities of a whole system take a
/// quarter of a MiB.
pub(crate) const MAX_PEM: u64 = 4 * MIB;

const MIB: u64 = 1024 * 1024;

/// Why a file is not read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The system refused to open or to read it.
    Io(io::Error),
    /// It is a directory, a pipe, a socket or a device, and could not be read again.
    NotRegular,
    /// It belongs to another user, who could change it.
    Foreign { path: PathBuf, owner: u32 },
    /// It belongs to another user, who could have put it into a directory to which every user can write.
    Planted { owner: u32 },
    /// Its mode gives others more than `protection` allows.
    Exposed { path: PathBuf, protection: Protection, mode: u32, is_mount_read_only: bool },
    /// It has more bytes than this.
    TooLarge(u64),
    /// It was removed, and the path leads to it all the same: it is mounted on its own, and was replaced outside.
    Stale,
    /// It is a pipe, and was not written to its end within this time.
    NotWritten(Duration),
}

impl ReadError {
    /// Whether there is no such file.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, ReadError::Io(err) if err.kind() == ErrorKind::NotFound)
    }

    /// Adds what to do, which may take a look at each directory above `path`, and at the names of users and groups.
    pub(crate) fn explained(self, path: &Path) -> ReadError {
        match self {
            ReadError::Io(err) => ReadError::Io(explain(err, path, Operation::Reading)),
            other => other,
        }
    }

    /// Describes the error for a secret file, which has to be readable again and again.
    pub(crate) fn about_secret(&self) -> String {
        match self {
            ReadError::NotRegular => NOT_READABLE_AGAIN.text(),
            other => other.to_string(),
        }
    }
}

// Commands to paste are between the marks of `language::COMMAND_MARKS`.
messages! {
    NOT_REGULAR<0> {
        "Give a plain file.", "it is not a regular file";
        "请使用普通文件。", "不是普通文件";
    }
    NOT_READABLE_AGAIN<0> {
        "Give a plain file.", "it is not a plain file, which could be read again";
        "请使用普通文件。", "不是普通文件，无法重复读取";
    }
    FOREIGN<4> {
        "Run \u{E005}chown {2} {3}\u{E006}; in a container, mount it read-only.", "it belongs to user {0}, and not to {1}";
        "请执行 \u{E005}chown {2} {3}\u{E006}；在容器中请以只读方式挂载。", "属于用户 {0}，而不是 {1}";
    }
    PLANTED<1> {
        "Use a directory of its own.",
        "it is user {0}'s, in a directory to which every user can write: it may have been put there";
        "请使用单独的目录。", "属于用户 {0}，且所在目录任何用户可写，可能是他人放入的";
    }
    OPEN_TO_OTHERS<3> {
        "Run \u{E005}chmod {1} {2}\u{E006}.", "it is open to others: mode {0}, expected {1}";
        "请执行 \u{E005}chmod {1} {2}\u{E006}。", "其他用户可读：权限 {0}，应为 {1}";
    }
    WRITABLE_BY_OTHERS<2> {
        "Run \u{E005}chmod go-w {1}\u{E006}.", "it can be written by others: mode {0}";
        "请执行 \u{E005}chmod go-w {1}\u{E006}。", "其他用户可写：权限 {0}";
    }
    /// Containers without a mark are known by the variable.
    OPEN_ON_READ_ONLY_MOUNT<1> {
        "Give it mode 0400 where it is mounted (Kubernetes: defaultMode; Swarm, Compose and Podman: mode), or set the \
         variable `container` if this is one.",
        "it is open to others: mode {0}, and its mount is read-only";
        "请在挂载处将权限设为 0400（Kubernetes：defaultMode；Swarm、Compose、Podman：mode）；若在容器中运行，请设置环境变量 container。",
        "其他用户可读：权限 {0}，且挂载为只读，无法 chmod";
    }
    TOO_LARGE<1> {
        "Give the right file.", "it is larger than {0}";
        "请检查是否为正确的文件。", "超过 {0}";
    }
    STALE<0> {
        "Mount its directory, not the file.", "it was replaced, and this is the old one: it is mounted on its own";
        "请挂载其所在目录，而不是单个文件。", "文件已被替换，但此处挂载的仍是旧文件";
    }
    NOT_WRITTEN<1> {
        "See why the program that writes the pipe does not end.",
        "it is a pipe that was not written and closed within {0}";
        "请检查向该管道写入的程序。", "管道在 {0} 内未写完并关闭";
    }
    NOT_ALONE<0> {
        "Remove it, or name another path.", "it is not a plain file with one name";
        "请删除它，或换一个路径。", "不是普通文件，或有多个硬链接";
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&match self {
            ReadError::Io(err) => err.to_string(),
            ReadError::NotRegular => NOT_REGULAR.text(),
            ReadError::Foreign { path, owner } => foreign(path, *owner),
            ReadError::Planted { owner } => PLANTED.with([owner]),
            ReadError::Exposed { path, protection, mode, is_mount_read_only } => {
                exposed(path, *protection, *mode, *is_mount_read_only)
            }
            ReadError::TooLarge(max) if max % MIB == 0 => {
                TOO_LARGE.with([&format!("{} MiB", max / MIB)])
            }
            ReadError::TooLarge(max) => TOO_LARGE.with([&format!("{max} bytes")]),
            ReadError::Stale => STALE.text(),
            ReadError::NotWritten(patience) => NOT_WRITTEN.with([&span(*patience)]),
        })
    }
}

impl std::error::Error for ReadError {}

/// Describes a file whose mode gives others more than `protection` allows, and what to do.
fn exposed(path: &Path, protection: Protection, mode: u32, is_mount_read_only: bool) -> String {
    let (shown, path) = (format!("{mode:04o}"), path_to_change(path));
    let expected = match protection {
        _ if is_mount_read_only => return OPEN_ON_READ_ONLY_MOUNT.with([&shown]),
        Protection::WritableByOwner => return WRITABLE_BY_OTHERS.with([&shown, &path]),
        Protection::PrivateToGroup => "0640",
        Protection::NotPlanted | Protection::Private | Protection::PrivateInDirectory => "0600",
    };
    OPEN_TO_OTHERS.with([&shown, &expected, &path])
}

/// Describes a file of this owner that another user must not own.
fn foreign(path: &Path, owner: u32) -> String {
    let user = geteuid().as_raw();
    let (expected, owner_to_be) = match user {
        0 => ("root".to_owned(), "root".to_owned()),
        // A secret of root's could not be read by this user.
        _ => (format!("root or user {user}"), user.to_string()),
    };
    FOREIGN.with([&owner, &expected, &owner_to_be, &path_to_change(path)])
}

/// Returns what a command has to name that changes the mode or the owner of what is at `path`: the file that a link leads to.
fn path_to_change(path: &Path) -> String {
    let linked = path.is_symlink().then(|| path.canonicalize().ok()).flatten();
    quoted_path(linked.as_deref().unwrap_or(path))
}

/// A regular file that is open for reading and has met its conditions.
pub(crate) struct RegularFile {
    file: File,
    metadata: Metadata,
}

impl RegularFile {
    /// Opens the file at `path`. Never waits: a pipe is refused, not waited for.
    ///
    /// Follows a symbolic link, also in the last component: Kubernetes mounts secrets and certificates as links, and
    /// certbot links to the newest certificate. What counts is the file that the link leads to.
    pub(crate) fn open(path: &Path, protection: Protection) -> Result<RegularFile, ReadError> {
        RegularFile::open_unexplained(path, protection).map_err(|err| err.explained(path))
    }

    /// Opens the file like [`RegularFile::open`], for a caller that looks again and again: an error does not say what to do yet.
    pub(crate) fn open_unexplained(
        path: &Path,
        protection: Protection,
    ) -> Result<RegularFile, ReadError> {
        let (dir, name) = place_of(path)?;
        let (file, metadata) = open_linked(&dir, name)?;
        protection.check(path, &dir, &file, &metadata)?;
        Ok(RegularFile { file, metadata })
    }

    /// Which state of the file is open.
    pub(crate) fn version(&self) -> FileVersion {
        FileVersion::from_metadata(&self.metadata)
    }

    /// Reads all of it. Fails if there are more than `max` bytes, also if they are added while it is read.
    pub(crate) fn read(self, max: u64) -> Result<Zeroizing<Vec<u8>>, ReadError> {
        read_bounded(self.file, self.metadata.len(), max)
    }
}

/// Opens the file called `name`, which must not have been removed.
fn open_linked(dir: &Dir, name: &OsStr) -> Result<(File, Metadata), ReadError> {
    let mut removed: Option<(File, Metadata)> = None;
    loop {
        let found = open_regular(dir, name, OFlags::RDONLY)?;
        let metadata = &found.1;
        if metadata.nlink() > 0 {
            return Ok(found);
        }
        // It was replaced between these two calls, or it is mounted on its own. The one before is still open, so that its
        // number is not another file's.
        if removed.is_some_and(|(_, it)| (it.dev(), it.ino()) == (metadata.dev(), metadata.ino())) {
            return Err(ReadError::Stale);
        }
        removed = Some(found);
    }
}

/// Reads the file at `path`, as [`RegularFile::open`] and [`RegularFile::read`] do.
pub(crate) fn read(
    path: &Path,
    protection: Protection,
    max: u64,
) -> Result<Zeroizing<Vec<u8>>, ReadError> {
    RegularFile::open(path, protection)?.read(max)
}

/// Reads a secret that the user named for this one run. It may also be a pipe, such as `<(pass show wechat)`, whose writer
/// is waited for, but no longer than `patience`.
pub(crate) fn read_secret_or_pipe(
    path: &Path,
    max: u64,
    patience: Duration,
) -> Result<Zeroizing<Vec<u8>>, ReadError> {
    let read = || {
        let (dir, name) = Dir::of(path).map_err(ReadError::Io)?;
        let (file, metadata) = open_at_once(&dir, name, OFlags::RDONLY)?;
        if metadata.is_dir() {
            return Err(ReadError::Io(ErrorKind::IsADirectory.into()));
        }
        Protection::Private.check(path, &dir, &file, &metadata)?;
        match metadata.is_file() {
            true => read_bounded(file, metadata.len(), max),
            false => read_pipe(file, max, patience),
        }
    };
    read().map_err(|err: ReadError| err.explained(path))
}

/// Reads what is written to a pipe until all its writers have closed it. Fails if that takes longer than `patience`. Reads
/// the real time: other processes know no virtual one.
fn read_pipe(
    mut file: File,
    max: u64,
    patience: Duration,
) -> Result<Zeroizing<Vec<u8>>, ReadError> {
    let deadline = Instant::now() + patience;
    let mut bytes = Zeroizing::new(vec![0; max as usize + 1]);
    let mut length = 0;
    while length < bytes.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| ReadError::NotWritten(patience))?;
        // A pipe that had no writer yet is not at its end: `poll` waits for one, and `read` would not.
        match poll(&mut [PollFd::new(&file, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Err(ReadError::NotWritten(patience)),
            Ok(_) | Err(Errno::INTR) => {}
            Err(err) => return Err(ReadError::Io(err.into())),
        }
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(err) if matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(err) => return Err(ReadError::Io(err)),
        }
    }
    if length as u64 > max {
        return Err(ReadError::TooLarge(max));
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// Reads an open file of about `length` bytes. Fails if it has more than `max`.
pub(crate) fn read_bounded(
    file: File,
    length: u64,
    max: u64,
) -> Result<Zeroizing<Vec<u8>>, ReadError> {
    // Of full size from the start: a vector that grows leaves copies of a secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(length.min(max) as usize + 1));
    file.take(max + 1).read_to_end(&mut bytes).map_err(ReadError::Io)?;
    match bytes.len() as u64 > max {
        true => Err(ReadError::TooLarge(max)),
        false => Ok(bytes),
    }
}

/// Reads a file that decides what this process does, up to `max` bytes, if only root and the user of this process can have
/// written it. The error is a sentence about `name`, which is what people call the file.
pub(crate) fn read_guarded(
    name: &str,
    path: &Path,
    max: u64,
) -> Result<Zeroizing<Vec<u8>>, String> {
    read(path, Protection::WritableByOwner, max)
        .map_err(|err| cannot_read(name, &err.about_secret()))
}

/// Returns the error of a file that cannot be read: what people call it, and why.
pub(crate) fn cannot_read(name: &str, why: &str) -> String {
    format!("{}: {why}", cannot("read", "读取", name))
}

/// Opens the directory of the file at `path`, and returns its name in it. What has no name, such as `.`, is a directory.
fn place_of(path: &Path) -> Result<(Dir, &OsStr), ReadError> {
    Dir::of(path).map_err(|err| match err.kind() {
        ErrorKind::IsADirectory => ReadError::NotRegular,
        _ => ReadError::Io(err),
    })
}

/// How a file of this program's own is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    ReadWrite,
    /// To read and write. A missing file is created, for its owner only.
    Create,
}

/// Opens a file of this program's own, to lock it or to change its mode or owner. Refuses what another user could have put
/// there so that another file is changed, or a file of that user's is used: a symbolic link, a file with a second name,
/// and in a directory to which every user can write a file of another user.
pub(crate) fn open_own(path: &Path, access: Access) -> io::Result<File> {
    let (dir, name) = Dir::of(path)?;
    open_own_in(&dir, name, access)
}

/// Opens the file called `name` in `dir`, like [`open_own`].
pub(crate) fn open_own_in(dir: &Dir, name: &OsStr, access: Access) -> io::Result<File> {
    let flags = match access {
        Access::Read => OFlags::RDONLY,
        Access::ReadWrite => OFlags::RDWR,
        Access::Create => OFlags::RDWR | OFlags::CREATE,
    };
    let (file, metadata) = match open_regular(dir, name, flags | OFlags::NOFOLLOW) {
        Ok((file, metadata)) if metadata.nlink() <= 1 => (file, metadata),
        // A symbolic link is refused with ELOOP, open(2).
        Err(ReadError::Io(err)) if Errno::from_io_error(&err) != Some(Errno::LOOP) => {
            return Err(err);
        }
        _ => return Err(io::Error::other(NOT_ALONE.text())),
    };
    match protection::is_planted(dir, metadata.uid())? {
        true => Err(io::Error::other(ReadError::Planted { owner: metadata.uid() })),
        false => Ok(file),
    }
}

/// Gives a file of this program's own this mode, if it has another.
pub(crate) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    let file = open_own(path, Access::Read)?;
    match file.metadata()?.mode() & 0o7777 == mode {
        true => Ok(()),
        false => file.set_permissions(Permissions::from_mode(mode)),
    }
}

/// Opens the regular file called `name` without waiting for anything. Also returns the metadata of the open file: the name
/// may lead to another one by then.
fn open_regular(dir: &Dir, name: &OsStr, flags: OFlags) -> Result<(File, Metadata), ReadError> {
    let (file, metadata) = open_at_once(dir, name, flags)?;
    match metadata.is_file() {
        true => Ok((file, metadata)),
        false => Err(ReadError::NotRegular),
    }
}

/// Opens what is called `name` without waiting for anything.
fn open_at_once(dir: &Dir, name: &OsStr, flags: OFlags) -> Result<(File, Metadata), ReadError> {
    // Opening a pipe would wait for its writer, and a terminal could become the controlling one.
    let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = dir.open_file(name, flags, Mode::RUSR | Mode::WUSR).map_err(|err| {
        match Errno::from_io_error(&err) {
            Some(Errno::NXIO) => ReadError::NotRegular, // A socket, open(2).
            _ => ReadError::Io(err),
        }
    })?;
    let metadata = file.metadata().map_err(ReadError::Io)?;
    Ok((file, metadata))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    fn read_any(path: &Path) -> Result<Zeroizing<Vec<u8>>, ReadError> {
        read(path, Protection::NotPlanted, 4)
    }

    #[test]
    fn a_pipe_a_socket_a_directory_and_a_device_are_refused_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let (pipe, socket) = (dir.path().join("pipe"), dir.path().join("socket"));
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let _listener = UnixListener::bind(&socket).unwrap();
        for path in [&pipe, &socket, dir.path(), Path::new("."), Path::new("/dev/null")] {
            let err = read_any(path).unwrap_err();
            assert!(matches!(err, ReadError::NotRegular), "{}: {err}", path.display());
        }
        assert!(read_any(&dir.path().join("none")).unwrap_err().is_not_found());
    }

    #[test]
    fn a_file_beyond_the_bound_is_an_error_and_never_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "1234").unwrap();
        assert_eq!(**read_any(&path).unwrap(), *b"1234");
        fs::write(&path, "12345").unwrap();
        assert!(matches!(read_any(&path).unwrap_err(), ReadError::TooLarge(4)));
    }

    #[test]
    fn each_protection_refuses_exactly_its_bits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "").unwrap();
        for (protection, allowed, refused) in [
            (Protection::NotPlanted, [0o600, 0o666], [0; 0].as_slice()),
            (Protection::WritableByOwner, [0o600, 0o644], &[0o620, 0o602]),
            (Protection::Private, [0o400, 0o600], &[0o640, 0o604, 0o610]),
            (Protection::PrivateToGroup, [0o440, 0o600], &[0o620, 0o644]),
        ] {
            let opened = |mode: u32| {
                fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
                RegularFile::open(&path, protection).map(drop)
            };
            for mode in allowed {
                assert!(opened(mode).is_ok(), "{protection:?} {mode:o}");
            }
            for mode in refused {
                let err = opened(*mode).unwrap_err().to_string();
                assert!(err.contains(&format!("mode {mode:04o}")), "{protection:?}: {err}");
            }
        }
    }

    #[test]
    fn a_command_that_changes_a_file_names_the_one_that_a_link_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let (path, link) = (dir.join("file"), dir.join("link"));
        fs::write(&path, "").unwrap();
        symlink("file", &link).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        for protection in [Protection::Private, Protection::WritableByOwner] {
            let err = read(&link, protection, 4).unwrap_err().to_string();
            assert!(err.contains(&path.display().to_string()) && !err.contains("/link"), "{err}");
        }
    }

    #[test]
    fn a_link_is_followed_to_be_read_and_refused_to_be_changed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&path, "1").unwrap();
        symlink(&path, &link).unwrap();
        assert_eq!(**read_any(&link).unwrap(), *b"1");
        let open = |path| open_own(path, Access::Read);
        assert!(open(&path).is_ok() && open(&link).is_err());
        fs::hard_link(&path, dir.path().join("other")).unwrap();
        assert!(open(&path).unwrap_err().to_string().contains("one name"));
    }
}
