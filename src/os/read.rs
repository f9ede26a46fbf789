//! Opens and reads files that other users may be able to write to, replace, or exchange for a pipe: without waiting, with
//! every condition checked on the open descriptor, and never more than a given number of bytes. Also explains a refusal
//! by the system, and hands files that root makes to the owner of their directory. Knows nothing of what is in a file.

use std::fmt;
use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::geteuid;
use zeroize::Zeroizing;

use crate::os::file_version::FileVersion;

/// The largest file of certificates or keys in PEM that is read, in bytes. The authorities of a whole system take a
/// quarter of a MiB.
pub(crate) const MAX_PEM: u64 = 4 * MIB;

const MIB: u64 = 1024 * 1024;

/// Which mode bits a file may have, for its content to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    /// Any: nothing depends on who reads or writes the file.
    Any,
    /// Only the owner may write; anybody may read.
    WritableByOwner,
    /// Only the owner may read or write: the file holds a secret.
    Private,
    /// The same, and its group may read. systemd grants access to a credential by an ACL, whose mask shows up as the
    /// group's bits, and Debian lets servers read private keys through the group ssl-cert.
    PrivateToGroup,
}

impl Protection {
    fn forbidden_bits(self) -> u32 {
        match self {
            Protection::Any => 0,
            Protection::WritableByOwner => 0o022,
            Protection::Private => 0o077,
            Protection::PrivateToGroup => 0o037,
        }
    }

    fn check(self, mode: u32) -> Result<(), ReadError> {
        let mode = mode & 0o7777;
        match mode & self.forbidden_bits() {
            0 => Ok(()),
            _ => Err(ReadError::Exposed { protection: self, mode }),
        }
    }
}

/// Why a file is not read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The system refused to open or to read it.
    Io(io::Error),
    /// It is a directory, a pipe, a socket or a device, and could not be read again.
    NotRegular,
    /// Its mode gives others more than `protection` allows.
    Exposed { protection: Protection, mode: u32 },
    /// It has more bytes than this.
    TooLarge(u64),
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
            ReadError::Exposed { protection: Protection::WritableByOwner, mode } => {
                write!(f, "it can be written by others: mode {mode:04o}; run chmod go-w on it")
            }
            ReadError::Exposed { protection, mode } => {
                let expected = match protection {
                    Protection::PrivateToGroup => "0640",
                    _ => "0600",
                };
                write!(
                    f,
                    "it is open to others: mode {mode:04o}, expected {expected}; run chmod {expected} on it"
                )
            }
            ReadError::TooLarge(max) if max % MIB == 0 => {
                write!(f, "it is larger than {} MiB", max / MIB)
            }
            ReadError::TooLarge(max) => write!(f, "it is larger than {max} bytes"),
        }
    }
}

impl std::error::Error for ReadError {}

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
        let mut options = OpenOptions::new();
        let (file, metadata) = open_regular(options.read(true), path, Links::Follow)
            .map_err(|err| err.explained(path))?;
        protection.check(metadata.mode())?;
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

/// Reads the file at `path`, as [`RegularFile::open`] and [`RegularFile::read`] do.
pub(crate) fn read(
    path: &Path,
    protection: Protection,
    max: u64,
) -> Result<Zeroizing<Vec<u8>>, ReadError> {
    RegularFile::open(path, protection)?.read(max)
}

/// Reads a secret that the user named for this one run. It may also be a pipe, such as `<(pass show wechat)`, whose writer
/// is waited for.
pub(crate) fn read_secret_or_pipe(path: &Path, max: u64) -> Result<Zeroizing<Vec<u8>>, ReadError> {
    let file = File::open(path).map_err(|err| ReadError::Io(explain(err, path)))?;
    let metadata = file.metadata().map_err(ReadError::Io)?;
    if metadata.is_dir() {
        return Err(ReadError::Io(ErrorKind::IsADirectory.into()));
    }
    Protection::Private.check(metadata.mode())?;
    read_bounded(file, max, max)
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

/// Reads a file that decides what this process does, up to `max` bytes, if only its owner can have written it. The error
/// is a sentence about `name`, which is what people call the file.
pub(crate) fn read_guarded(
    name: &str,
    path: &Path,
    max: u64,
) -> Result<Zeroizing<Vec<u8>>, String> {
    read(path, Protection::WritableByOwner, max).map_err(|err| match err {
        ReadError::Io(err) => format!("cannot read {name}: {err}"),
        ReadError::NotRegular => {
            format!("{name} is not a plain file, which could be read again")
        }
        ReadError::Exposed { mode, .. } => {
            format!("{name} can be written by others: mode {mode:04o}; run chmod go-w on it")
        }
        ReadError::TooLarge(max) => format!("{name} is larger than {} MiB", max / MIB),
    })
}

/// Opens a file of this program's own, to lock it or to change its mode or owner. Refuses a symbolic link and a file with
/// a second name: another user could have made either, so that another file is changed.
pub(crate) fn open_own(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    match open_regular(options, path, Links::Refuse) {
        Ok((file, metadata)) if metadata.nlink() <= 1 => Ok(file),
        Err(ReadError::Io(err)) => Err(err),
        _ => Err(io::Error::other("it is not a plain file with one name")),
    }
}

/// Gives a file of this program's own this mode, if it has another.
pub(crate) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    let file = open_own(OpenOptions::new().read(true), path)?;
    match file.metadata()?.mode() & 0o7777 == mode {
        true => Ok(()),
        false => file.set_permissions(Permissions::from_mode(mode)),
    }
}

/// Whether a symbolic link in the last component of a path is followed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Links {
    Follow,
    Refuse,
}

/// Opens a regular file without waiting for anything. Also returns the metadata of the open file: the path may lead to
/// another one by then.
fn open_regular(
    options: &mut OpenOptions,
    path: &Path,
    links: Links,
) -> Result<(File, Metadata), ReadError> {
    // Opening a pipe would wait for its writer, and a terminal could become the controlling one.
    let mut flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    if links == Links::Refuse {
        flags |= OFlags::NOFOLLOW;
    }
    let file = options.custom_flags(flags.bits() as i32).open(path).map_err(|err| {
        match err.raw_os_error() == Some(Errno::NXIO.raw_os_error()) {
            true => ReadError::NotRegular, // A socket, open(2).
            false => ReadError::Io(err),
        }
    })?;
    let metadata = file.metadata().map_err(ReadError::Io)?;
    match metadata.is_file() {
        true => Ok((file, metadata)),
        false => Err(ReadError::NotRegular),
    }
}

/// Adds to an error of missing permission who owns `path`, who this process is, and what to do, and to one of a limit what
/// limits it. Returns any other error as it is.
pub(crate) fn explain(err: io::Error, path: &Path) -> io::Error {
    if err.kind() == ErrorKind::FileTooLarge {
        return io::Error::new(
            err.kind(),
            format!(
                "{err}: the size of files is limited; raise ulimit -f, or LimitFSIZE= of the unit. 文件大小受限，请调高 ulimit -f 或 LimitFSIZE=。"
            ),
        );
    }
    let user = geteuid().as_raw();
    match std::fs::metadata(path) {
        Ok(found) if err.kind() == ErrorKind::PermissionDenied && found.uid() != user => {
            let (owner, mode) = (found.uid(), found.mode() & 0o7777);
            io::Error::new(
                err.kind(),
                format!(
                    "{err}: it is user {owner}'s, mode {mode:04o}, and this is user {user}; run as user {owner}, or \
                     chown it"
                ),
            )
        }
        _ => err,
    }
}

/// Gives a file that root has made to the owner of its directory, so that a run as root does not lock out the service.
/// Does nothing for other users, who own what they make.
pub(crate) fn give_to_owner_of_dir(file: &File, path: &Path) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (dir, file_metadata) = (std::fs::metadata(dir)?, file.metadata()?);
    if file_metadata.uid() == dir.uid() {
        return Ok(());
    }
    fchown(file, Some(dir.uid()), Some(dir.gid()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    fn read_any(path: &Path) -> Result<Zeroizing<Vec<u8>>, ReadError> {
        read(path, Protection::Any, 4)
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
            (Protection::Any, [0o600, 0o666], [0; 0].as_slice()),
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
        let open = |path| open_own(OpenOptions::new().read(true), path);
        assert!(open(&path).is_ok() && open(&link).is_err());
        fs::hard_link(&path, dir.path().join("other")).unwrap();
        assert!(open(&path).unwrap_err().to_string().contains("one name"));
    }
}
