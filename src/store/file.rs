//! The store that is a file beside its lock: `DIR/ACCOUNT.json`, `DIR/ACCOUNT.lock`. Here is the writing; who only
//! reads needs `reader`, and no lock.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, anyhow};

use super::{Found, Store, Turn, reader};
use crate::atomic::{self, Replacement};
use crate::clock::Clock;
use crate::lock::Lock;
use crate::token::{Document, MAX_DOCUMENT};

/// A document in a file.
pub(crate) struct FileStore {
    path: PathBuf,
    mode: u32,
}

impl FileStore {
    /// The store at `path`, whose document is published with `mode`.
    pub(crate) fn new(path: &Path, mode: u32) -> FileStore {
        FileStore { path: path.to_owned(), mode }
    }

    /// The lock beside the document; never the document itself, which is replaced under it.
    fn lock_path(&self) -> PathBuf {
        self.path.with_extension("lock")
    }
}

impl Store for FileStore {
    fn read(&self) -> Result<Found> {
        reader::read(&self.path)
    }

    fn turn<'a>(
        &'a self,
        clock: &dyn Clock,
        deadline: Instant,
    ) -> Result<Option<Box<dyn Turn + 'a>>> {
        atomic::make_dir_of(&self.path, self.mode)?;
        let lock = Lock::acquire(&self.lock_path(), clock, deadline)?;
        Ok(lock.map(|lock| {
            Box::new(FileTurn { store: self, replacement: None, _lock: lock }) as Box<dyn Turn>
        }))
    }
}

struct FileTurn<'a> {
    store: &'a FileStore,
    // Before the lock, so that an unused temporary file is gone before the next holder makes its own.
    replacement: Option<Replacement>,
    _lock: Lock,
}

impl Turn for FileTurn<'_> {
    fn prepare(&mut self) -> Result<()> {
        self.replacement =
            Some(Replacement::prepare(&self.store.path, self.store.mode, MAX_DOCUMENT)?);
        Ok(())
    }

    fn publish(&mut self, document: &Document) -> Result<()> {
        let replacement =
            self.replacement.take().ok_or_else(|| anyhow!("publishing without having prepared"))?;
        replacement.publish(document.to_line().expose().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::UtcDateTime;

    use super::*;
    use crate::clock::SystemClock;
    use crate::secret::Secret;

    #[test]
    fn what_is_published_is_what_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::new(&dir.path().join("new/shop.json"), 0o600);
        let life = Duration::from_secs(7200);
        let document =
            Document::new("wx1", Secret::new("T1".to_owned()), life, UtcDateTime::UNIX_EPOCH);
        assert!(matches!(store.read().unwrap(), Found::Nothing));
        let mut turn = store.turn(&SystemClock, Instant::now()).unwrap().unwrap();
        assert!(store.turn(&SystemClock, Instant::now()).unwrap().is_none(), "one at a time");
        turn.prepare().unwrap();
        assert!(matches!(store.read().unwrap(), Found::Nothing), "not before it is published");
        turn.publish(&document).unwrap();
        assert!(matches!(store.read().unwrap(), Found::Document(found) if found == document));
        assert!(dir.path().join("new/shop.lock").exists());
    }
}
