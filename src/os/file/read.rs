//! Opens and reads files that other users may be able to write to, replace, or exchange for a pipe: without waiting, with
//! every condition checked on the open descriptor, and never more than a given number of bytes. Also explains a refusal
//! by the system. Knows nothing of what is in a file.

use std::ffi::OsStr;
use std::fmt;
use std::fs::Permissions;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, Timespec};
use rustix::io::Errno;
use rustix::process::geteuid;
use zeroize::Zeroizing;

use crate::language::bilingual;
use crate::os::descriptors::shortage;
use crate::os::file::dir::Dir;
use crate::os::file::disk::{File, Metadata};
use crate::os::file::version::FileVersion;

mod protection;

pub(crate) use protection::Protection;

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
    Foreign { owner: u32 },
    /// It belongs to another user, who could have put it into a directory to which every user can write.
    Planted { owner: u32 },
    /// Its mode gives others more than `protection` allows.
    Exposed { protection: Protection, mode: u32, is_mount_read_only: bool },
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

    fn explained(self, path: &Path) -> ReadError {
        match self {
            ReadError::Io(err) => ReadError::Io(explain(err, path)),
            other => other,
        }
    }

    /// Describes the error for a secret file, which has to be readable again and again.
    pub(crate) fn about_secret(&self) -> String {
        match self {
            ReadError::NotRegular => "it is no plain file, which could be read again".to_owned(),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Io(err) => err.fmt(f),
            ReadError::NotRegular => f.write_str("it is not a regular file"),
            ReadError::Foreign { owner } => write!(f, "it {}", foreign(*owner)),
            ReadError::Planted { owner } => write!(
                f,
                "it is user {owner}'s, in a directory to which every user can write: it may have been put there; use a \
                 directory of its own"
            ),
            ReadError::Exposed { protection, mode, is_mount_read_only } => {
                write!(f, "it {}", exposed(*protection, *mode, *is_mount_read_only))
            }
            ReadError::TooLarge(max) if max % MIB == 0 => {
                write!(f, "it is larger than {} MiB", max / MIB)
            }
            ReadError::TooLarge(max) => write!(f, "it is larger than {max} bytes"),
            ReadError::Stale => f.write_str(STALE),
            ReadError::NotWritten(patience) => {
                let patience = humantime::format_duration(*patience);
                write!(f, "it is a pipe that was not written and closed within {patience}")
            }
        }
    }
}

impl std::error::Error for ReadError {}

/// What to do about the mode of a file that this host cannot change. Containers without a mark are known by the variable.
const READ_ONLY_MOUNT: &str = bilingual!(
    "its mount is read-only: give it mode 0400 where it is mounted (Kubernetes: defaultMode; Swarm, Compose and Podman: \
     mode), or set the variable `container` if this is one.",
    "该挂载为只读，无法 chmod：请在挂载处将权限设为 0400；若在容器中运行，请设置环境变量 container。"
);

const STALE: &str = bilingual!(
    "it was replaced, and this is the old one: it is mounted on its own; mount its directory, not the file.",
    "文件已被替换，但此处挂载的仍是旧文件：请挂载其所在目录，而不是单个文件。"
);

/// Describes a file whose mode gives others more than `protection` allows, and what to do.
fn exposed(protection: Protection, mode: u32, is_mount_read_only: bool) -> String {
    let (problem, expected) = match protection {
        Protection::WritableByOwner => ("can be written by others", "go-w"),
        Protection::PrivateToGroup => ("is open to others", "0640"),
        Protection::NotPlanted | Protection::Private => ("is open to others", "0600"),
    };
    let remedy = match is_mount_read_only {
        true => READ_ONLY_MOUNT.to_owned(),
        false => format!("run chmod {expected} on it"),
    };
    match protection {
        Protection::WritableByOwner => format!("{problem}: mode {mode:04o}; {remedy}"),
        _ => format!("{problem}: mode {mode:04o}, expected {expected}; {remedy}"),
    }
}

/// Describes a file of this owner that another user must not own.
fn foreign(owner: u32) -> String {
    let user = geteuid().as_raw();
    let expected = if user == 0 { "root".to_owned() } else { format!("root or user {user}") };
    let remedy = bilingual!(
        "run chown root on it; in a container, mount it read-only.",
        "请执行 chown root；在容器中请以只读方式挂载。"
    );
    format!("belongs to user {owner}, and not to {expected}: {remedy}")
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
        let open = || {
            let (dir, name) = Dir::of(path).map_err(ReadError::Io)?;
            let (file, metadata) = open_linked(&dir, name)?;
            protection.check(&dir, &file, &metadata)?;
            Ok(RegularFile { file, metadata })
        };
        open().map_err(|err: ReadError| err.explained(path))
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
        Protection::Private.check(&dir, &file, &metadata)?;
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
    read(path, Protection::WritableByOwner, max).map_err(|err| match err {
        ReadError::NotRegular => {
            format!("{name} is not a plain file, which could be read again")
        }
        ReadError::Foreign { owner } => format!("{name} {}", foreign(owner)),
        ReadError::Exposed { protection, mode, is_mount_read_only } => {
            format!("{name} {}", exposed(protection, mode, is_mount_read_only))
        }
        ReadError::TooLarge(max) => format!("{name} is larger than {} MiB", max / MIB),
        err => format!("cannot read {name}: {err}"),
    })
}

/// How a file of this program's own is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    ReadWrite,
    /// The same, and it is created if it is missing, for its owner only.
    Create,
}

/// Opens a file of this program's own, to lock it or to change its mode or owner. Refuses what another user could have put
/// there so that another file is changed, or a file of that user's is used: a symbolic link, a file with a second name,
/// and in a directory to which every user can write a file of another user.
pub(crate) fn open_own(path: &Path, access: Access) -> io::Result<File> {
    let (dir, name) = Dir::of(path)?;
    open_own_in(&dir, name, access)
}

/// The same for the file called `name` in `dir`.
pub(crate) fn open_own_in(dir: &Dir, name: &OsStr, access: Access) -> io::Result<File> {
    let flags = match access {
        Access::Read => OFlags::RDONLY,
        Access::ReadWrite => OFlags::RDWR,
        Access::Create => OFlags::RDWR | OFlags::CREATE,
    };
    let (file, metadata) = match open_regular(dir, name, flags | OFlags::NOFOLLOW) {
        Ok((file, metadata)) if metadata.nlink() <= 1 => (file, metadata),
        Err(ReadError::Io(err)) => return Err(err),
        _ => return Err(io::Error::other("it is not a plain file with one name")),
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

/// Adds to an error of missing permission who owns `path`, who this process is, and what to do, and to one of a limit what
/// limits it. Returns any other error as it is.
pub(crate) fn explain(err: io::Error, path: &Path) -> io::Error {
    if err.kind() == ErrorKind::FileTooLarge {
        return io::Error::new(
            err.kind(),
            format!(
                "{err}: {}",
                bilingual!(
                    "the size of files is limited; raise ulimit -f, or LimitFSIZE= of the unit.",
                    "文件大小受限，请调高 ulimit -f 或 LimitFSIZE=。"
                )
            ),
        );
    }
    if shortage::is_shortage(&err) {
        return io::Error::new(err.kind(), shortage::explained(&err));
    }
    let user = geteuid().as_raw();
    match std::fs::metadata(path) {
        Ok(found) if err.kind() == ErrorKind::PermissionDenied && found.uid() != user => {
            io::Error::new(err.kind(), format!("{err}: {}", other_owner(&Owner::of(&found), user)))
        }
        _ => err,
    }
}

/// Whom a file belongs to, and what they may do with it.
struct Owner {
    user: u32,
    group: u32,
    mode: u32,
}

impl Owner {
    fn of(found: &std::fs::Metadata) -> Owner {
        Owner { user: found.uid(), group: found.gid(), mode: found.mode() & 0o7777 }
    }
}

/// Returns why `user` has no permission for the file of another user, and what to do.
fn other_owner(owner: &Owner, user: u32) -> String {
    let Owner { user: owner, group, mode } = owner;
    let readers = match mode & 0o040 {
        0 => String::new(),
        _ => format!("; members of group {group} can read it"),
    };
    format!(
        "it is user {owner}'s, mode {mode:04o}, and this is user {user}; run as user {owner}, or chown it{readers}"
    )
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
        for path in [&pipe, &socket, dir.path(), Path::new("/dev/null")] {
            let err = read_any(path).unwrap_err();
            assert!(matches!(err, ReadError::NotRegular), "{}: {err}", path.display());
        }
        assert!(read_any(&dir.path().join("none")).unwrap_err().is_not_found());
    }

    #[test]
    fn missing_permission_names_the_group_that_can_read() {
        let owner = |mode| Owner { user: 0, group: 990, mode };
        let message = other_owner(&owner(0o640), 33);
        assert!(message.ends_with("or chown it; members of group 990 can read it"), "{message}");
        let message = other_owner(&owner(0o600), 33);
        assert!(message.ends_with("or chown it"), "{message}");
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
