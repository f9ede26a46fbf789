//! A lock between processes (flock, through fs2), as a value: held while it lives. The lock file itself is never removed:
//! two processes could then hold "the" lock on two different files.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::os::clock::Clock;
use crate::os::read;

/// How often a held lock is tried again; short against the second or so that a refresh takes.
const RETRY: Duration = Duration::from_millis(20);

/// The lock; let go when it is dropped, or when the process ends, however it ends.
pub(crate) struct FileLock {
    _file: File,
}

impl FileLock {
    /// Waits for the lock at `path` until `deadline`; `None` if somebody else held it all along.
    pub(crate) fn acquire(
        path: &Path,
        clock: &dyn Clock,
        deadline: Instant,
    ) -> Result<Option<FileLock>> {
        let opening = || format!("cannot open lock {}", path.display());
        // Only its owner may open it: whoever can open a lock file can also hold it for ever.
        let open = || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let file = read::open_own(&mut options, path)?;
            if file.metadata()?.permissions().mode() & 0o077 != 0 {
                file.set_permissions(Permissions::from_mode(0o600))?;
            }
            read::give_to_owner_of_dir(&file, path)?;
            Ok::<_, io::Error>(file)
        };
        let mut file = open().map_err(|err| read::explain(err, path)).with_context(opening)?;
        loop {
            // Spelled out: fs2's other names, such as `file.unlock()`, have been std's own since Rust 1.89.
            match fs2::FileExt::try_lock_exclusive(&file) {
                Ok(()) if is_at(&file, path) => return Ok(Some(FileLock { _file: file })),
                // Somebody removed the lock file while we waited, against the rules: the one there now counts.
                Ok(()) => {
                    file = open().map_err(|err| read::explain(err, path)).with_context(opening)?
                }
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
                Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
                Err(err) => {
                    return Err(err).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
            if clock.until(deadline).is_zero() {
                return Ok(None);
            }
            clock.sleep(RETRY.min(clock.until(deadline)));
        }
    }
}

/// Whether `path` still stands for this very file.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::clock::SystemClock;

    #[test]
    fn the_lock_has_one_holder_and_is_free_again_when_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let at_once = || FileLock::acquire(&path, &SystemClock, Instant::now()).unwrap();
        let held = at_once().expect("the lock is free");
        assert!(at_once().is_none(), "the lock is held");
        drop(held);
        assert!(at_once().is_some());
        assert!(path.exists(), "the lock file stays");
    }
}
