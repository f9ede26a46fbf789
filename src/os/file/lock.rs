//! A lock between processes (flock, through fs2), as a value: held while the value lives. The lock file is never removed,
//! because two processes could then hold "the" lock on two different files.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use rustix::fs::{major, minor};
use time::UtcDateTime;

use crate::log;
use crate::message::cannot;
use crate::os::clock::Clock;
use crate::os::fault::{Operation, explain};
use crate::os::file::dir::Dir;
use crate::os::file::disk::{self, File};
use crate::os::file::read::{self, Access};
use crate::sabotage::{Bug, has_bug};

/// The pause before a held lock is tried again. Short against the second or so that a refresh takes.
const RETRY: Duration = Duration::from_millis(20);

const NANOS_IN_MILLI: i128 = 1_000_000;
const NANOS_IN_SEC: i128 = 1_000_000_000;

/// Released when it is dropped, or when the process ends, in whatever way.
pub(crate) struct FileLock {
    file: File,
}

impl FileLock {
    /// Waits for the lock at `path`. Returns `None` if another process held it until `deadline`.
    pub(crate) fn acquire(
        path: &Path,
        clock: &dyn Clock,
        deadline: Instant,
    ) -> Result<Option<FileLock>> {
        let opening = || cannot("open lock", "打开锁文件", path.display());
        // Only the owner may open it: a process that can open a lock file can also hold the lock for ever.
        let open = || {
            let (dir, name) = Dir::of(path)?;
            let file = read::open_own_in(&dir, name, Access::Create)?;
            // Under some umasks its owner may not, either.
            if file.metadata()?.mode() & 0o677 != 0o600 {
                file.set_permissions(Permissions::from_mode(0o600))?;
            }
            dir.give_to_owner(&file)?;
            Ok::<_, io::Error>(file)
        };
        let explained = |err| explain(err, path, Operation::Writing);
        let mut file = open().map_err(explained).with_context(opening)?;
        let mut waiting = None;
        loop {
            match file.try_lock_exclusive() {
                Ok(()) if is_at(&file, path) => return Ok(Some(FileLock { file })),
                // The lock file was removed meanwhile, against the rules. The one that is there now counts.
                Ok(()) => file = open().map_err(explained).with_context(opening)?,
                Err(_) if has_bug(Bug::LockNotWaitedFor) => return Ok(Some(FileLock { file })),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                Err(err) => {
                    return Err(explain(err, path, Operation::Locking))
                        .with_context(|| cannot("lock", "锁定", path.display()));
                }
            }
            if clock.until(deadline).is_zero() {
                return Ok(None);
            }
            waiting.get_or_insert_with(|| log::waiting_for(|| of_holder(&file, path)));
            clock.sleep(RETRY.min(clock.until(deadline)));
        }
    }
}

/// Returns what is waited for, in English and Chinese: the lock, with the process that holds it if the kernel tells.
fn of_holder(file: &File, path: &Path) -> [String; 2] {
    let path = path.display();
    match holder(file) {
        Some(pid) => [
            format!("the lock {path}, held by pid {pid}"),
            format!("锁 {path}（由进程 {pid} 持有）"),
        ],
        None => [format!("the lock {path}"), format!("锁 {path}")],
    }
}

/// How often the list of all locks is read to find one.
const LOOKS_AT_LOCKS: usize = 5;

/// Returns the process that holds the lock, as proc_locks(5) has it. `None` where that is not to be known: another PID
/// namespace, or a file system with device numbers of its own.
fn holder(file: &File) -> Option<u32> {
    let found = file.metadata().ok()?;
    let (major, minor) = (major(found.dev()), minor(found.dev()));
    let place = format!("{major:02x}:{minor:02x}:{}", found.ino());
    let find = || {
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        locks.lines().find_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            match words[..] {
                [_, "FLOCK", _, _, pid, at, ..] if at == place => pid.parse().ok(),
                _ => None,
            }
        })
    };
    // The kernel hands the list out in pieces, and an entry can be missed while locks of others come and go.
    let holder: Option<u32> = (0..LOOKS_AT_LOCKS).find_map(|_| find());
    holder.filter(|pid| *pid > 0)
}

impl FileLock {
    /// Notes an instant in the lock file, as the time of its last change. Writes nothing, so that nothing is to be synced.
    pub(crate) fn note(&self, at: UtcDateTime) -> io::Result<()> {
        let millis = u64::try_from(at.unix_timestamp_nanos() / NANOS_IN_MILLI).unwrap_or_default();
        self.file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_millis(millis))
    }
}

/// Returns the instant that was noted last in the lock file at `path`. Only notes are in whole milliseconds.
pub(crate) fn noted_at(path: &Path) -> Option<UtcDateTime> {
    let (secs, nanos) = disk::symlink_metadata(path).ok()?.modified();
    let nanos = i128::from(secs) * NANOS_IN_SEC + i128::from(nanos);
    let is_note = nanos % NANOS_IN_MILLI == 0;
    UtcDateTime::from_unix_timestamp_nanos(nanos).ok().filter(|_| is_note)
}

/// Whether `path` still leads to this very file.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), disk::metadata(path)) {
        (Ok(held), Ok(found)) => (held.dev(), held.ino()) == (found.dev(), found.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::clock::SystemClock;

    #[test]
    fn a_lock_has_one_holder_and_is_free_again_when_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let at_once = || FileLock::acquire(&path, &SystemClock, Instant::now()).unwrap();
        let held = at_once().expect("the lock is free");
        assert!(at_once().is_none(), "the lock is held");
        drop(held);
        assert!(at_once().is_some());
        assert!(path.exists(), "the lock file stays");
    }

    #[test]
    fn the_holder_is_this_process_or_unknown_and_a_free_lock_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let held = FileLock::acquire(&path, &SystemClock, Instant::now()).unwrap().unwrap();
        let found = holder(&held.file);
        assert!(found.is_none_or(|pid| pid == std::process::id()), "{found:?}");
        drop(held);
        assert_eq!(holder(&File::System(std::fs::File::open(&path).unwrap())), None);
    }
}
