//! Tries whether a document could be published, without publishing one: for `check`. Leaves nothing behind, and holds no
//! lock that others wait for longer than the attempt takes.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{Access, access, major, minor, statfs};
use rustix::io::Errno;

use super::{LOCKS_DO_NOT_HOLD, OTHER_CHECK};
use crate::message::cannot;
use crate::model::document::MAX_DOCUMENT;
use crate::os::clock::Clock;
use crate::os::fault::{Operation, explain};
use crate::os::file::atomic;
use crate::os::file::dir::{Dir, dir_of};
use crate::os::file::disk::File;
use crate::os::file::lock::FileLock;
use crate::os::file::read;

/// Whether documents can be published; an error says why not.
pub(crate) enum PublishTrial {
    /// In a directory.
    Directory(Result<DirectoryState>),
    /// In a Redis, where a script must be able to write.
    Redis(Result<RedisState>),
}

/// A Redis in which documents can be published.
pub(crate) struct RedisState {
    /// What keeps keys of `[redis] also` from being written.
    pub(crate) also: Vec<anyhow::Error>,
    /// What keeps publications from being announced, or announcements from being followed.
    pub(crate) channel: Option<anyhow::Error>,
}

/// A directory in which documents can be published.
pub(crate) enum DirectoryState {
    /// Writing, renaming and locking were tried, and work.
    Ready,
    /// They work, on a network file system of this kind. Whether a lock excludes other hosts cannot be tried from one host.
    Network(&'static str),
    /// It does not exist, and the first `fetch` can make it.
    Missing,
}

/// Whether a process holds the lease on a document.
pub(crate) enum LeaseState {
    Free,
    /// Held by this holder, if it is known which.
    Held(Option<String>),
}

/// File systems that other hosts may write to as well, by their magic numbers (statfs(2)).
const NETWORK: [(u32, &str); 7] = [
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "Ceph"),
    (0x6573_5546, "FUSE"),
    (0x7461_636f, "OCFS2"),
];

/// The mode of the file that is tried with. It is gone before it is read.
const MODE: u32 = 0o600;

/// How long to wait for another check that tries the same.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tries whether documents can be published as `path`.
pub(super) fn try_directory(path: &Path, clock: &dyn Clock) -> Result<DirectoryState> {
    let dir = dir_of(path);
    match fs::metadata(dir) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => {
            return Err(explain(Errno::NOTDIR.into(), dir, Operation::Writing))
                .with_context(|| cannot("use", "使用", dir.display()));
        }
        Err(err) if err.kind() == ErrorKind::NotFound => {
            let mut above = dir
                .ancestors()
                .skip(1)
                .map(|it| if it.as_os_str().is_empty() { Path::new(".") } else { it });
            let existing = above.find(|it| it.exists()).unwrap_or(Path::new("/"));
            access(existing, Access::WRITE_OK | Access::EXEC_OK)
                .map_err(|err| explain(err.into(), dir, Operation::Writing))
                .with_context(|| cannot("create directory", "创建目录", dir.display()))?;
            return Ok(DirectoryState::Missing);
        }
        Err(err) => {
            return Err(explain(err, path, Operation::Reading))
                .with_context(|| cannot("enter", "进入", dir.display()));
        }
    }
    try_replacing(path, dir, clock)?;
    let kind = statfs(dir).map(|it| it.f_type as u32).unwrap_or_default();
    let network = NETWORK.iter().find(|(magic, _)| *magic == kind);
    Ok(network.map_or(DirectoryState::Ready, |(_, name)| DirectoryState::Network(name)))
}

/// Tries everything that publishing takes, one process at a time, and leaves nothing behind.
fn try_replacing(path: &Path, dir: &Path, clock: &dyn Clock) -> Result<()> {
    atomic::check_replaceable(path)?; // First, because a lock file in an append-only directory would stay.
    let lock = atomic::trial_lock(path)?;
    let acquired = FileLock::acquire(&lock, clock, clock.instant() + PATIENCE);
    let not_created = |err: anyhow::Error| {
        anyhow!("{}: {}", cannot("create", "创建", lock.display()), err.root_cause())
    };
    let Some(_lock) = acquired.map_err(not_created)? else {
        bail!(OTHER_CHECK.with([&lock.display()]));
    };
    let attempt = |opened: &Dir, name: &OsStr| try_locks(dir, opened, name);
    let tried = atomic::try_replacing(path, MODE, MAX_DOCUMENT, attempt);
    let removed = atomic::remove_trial(path);
    tried.and(removed)
}

/// Fails if two descriptors of the file called `name` can be locked at once, or none.
fn try_locks(dir: &Path, opened: &Dir, name: &OsStr) -> Result<()> {
    let open = || read::open_own_in(opened, name, read::Access::ReadWrite);
    let (one, other) = (open()?, open()?);
    one.try_lock_exclusive()
        .map_err(|err| explain(err, dir, Operation::Locking))
        .with_context(|| cannot("lock files in", "锁定文件，目录", dir.display()))?;
    match other.try_lock_exclusive() {
        Err(err) if err.kind() == ErrorKind::WouldBlock => Ok(()),
        _ => bail!(LOCKS_DO_NOT_HOLD.with([&dir.display()])),
    }
}

/// Returns whether a process holds the lock at `path`.
pub(super) fn lease_state(path: &Path) -> Result<LeaseState> {
    let looking = || cannot("look at lock", "查看锁文件", path.display());
    let file = match read::open_own(path, read::Access::Read) {
        Ok(file) => file,
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(LeaseState::Free),
        Err(err) => return Err(explain(err, path, Operation::Reading)).with_context(looking),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(LeaseState::Free),
        Err(err) if err.kind() == ErrorKind::WouldBlock => {
            Ok(LeaseState::Held(holder(&file).unwrap_or_default()))
        }
        Err(err) => Err(explain(err, path, Operation::Locking)).with_context(looking),
    }
}

/// Returns the process that holds a lock on this file, as far as the kernel knows it (proc(5)).
fn holder(file: &File) -> io::Result<Option<String>> {
    let metadata = file.metadata()?;
    let (device, inode) = (metadata.dev(), metadata.ino());
    let place = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
    let locks = fs::read_to_string("/proc/locks")?;
    // The line of a process that waits has one more word, and does not match.
    let mut pids = locks.lines().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        (words.get(5) == Some(&&*place)).then(|| words.get(4).copied())?
    });
    Ok(pids.next().map(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        format!("process {pid} ({})", name.trim())
    }))
}
