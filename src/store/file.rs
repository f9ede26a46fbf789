//! The store that keeps a document in a file, `DIR/ACCOUNT.json`, with a lock file beside it, `DIR/ACCOUNT.lock`. Only
//! for processes that publish: those that only read use `reader`, and need no lock.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;

use super::{Found, Lease, Publisher, Store, reader};
use crate::model::document::{Document, MAX_DOCUMENT};
use crate::model::kind::DocumentKind;
use crate::os::atomic::{self, Replacement};
use crate::os::clock::Clock;
use crate::os::lock::FileLock;
use crate::os::read;

/// A document in a file.
#[derive(Clone)]
pub(super) struct FileStore {
    path: PathBuf,
    kind: DocumentKind,
    mode: u32,
}

impl FileStore {
    /// Returns the store at `path`, whose document is published with `mode`.
    pub(super) fn new(path: &Path, kind: &DocumentKind, mode: u32) -> FileStore {
        FileStore { path: path.to_owned(), kind: kind.clone(), mode }
    }

    /// Returns the path of the lock file. The document itself cannot be locked: it is replaced under the lock.
    pub(super) fn lock_path(&self) -> PathBuf {
        self.path.with_extension("lock")
    }
}

impl Store for FileStore {
    fn read(&self) -> Result<Found> {
        reader::read(&self.path, &self.kind)
    }

    fn acquire(&self, clock: &dyn Clock, deadline: Instant) -> Result<Option<Box<dyn Lease>>> {
        atomic::make_dir_of(&self.path, self.mode)?;
        let lock = FileLock::acquire(&self.lock_path(), clock, deadline)?;
        Ok(lock.map(|lock| Box::new(FileLease { store: self.clone(), lock }) as Box<dyn Lease>))
    }

    fn apply_settings(&self) -> Result<()> {
        Ok(read::set_mode(&self.path, self.mode)?)
    }
}

struct FileLease {
    store: FileStore,
    lock: FileLock,
}

impl Lease for FileLease {
    fn read(&self) -> Result<Found> {
        self.store.read()
    }

    fn prepare(self: Box<Self>) -> Result<Box<dyn Publisher>> {
        let replacement = Replacement::prepare(&self.store.path, self.store.mode, MAX_DOCUMENT)?;
        Ok(Box::new(FilePublisher { replacement, kind: self.store.kind, _lock: self.lock }))
    }
}

struct FilePublisher {
    // Before the lock, so that an unused temporary file is gone before the next holder makes its own.
    replacement: Replacement,
    kind: DocumentKind,
    _lock: FileLock,
}

impl Publisher for FilePublisher {
    fn publish_interim(&self, document: &Document) -> Result<()> {
        self.replacement.publish_interim(document.to_line(&self.kind).expose().as_bytes())
    }

    fn publish(self: Box<Self>, document: &Document) -> Result<()> {
        self.replacement.publish(document.to_line(&self.kind).expose().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::UtcDateTime;

    use super::*;
    use crate::model::secret::Secret;
    use crate::os::clock::SystemClock;

    #[test]
    fn one_lease_at_a_time_publishes_and_readers_see_each_document() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::new(&dir.path().join("new/shop.json"), &DocumentKind::Token, 0o600);
        let life = Duration::from_secs(7200);
        let document =
            Document::new("wx1", Secret::new("T1".to_owned()), life, UtcDateTime::UNIX_EPOCH);
        assert!(matches!(store.read().unwrap(), Found::Nothing));
        let lease = store.acquire(&SystemClock, Instant::now()).unwrap().unwrap();
        assert!(store.acquire(&SystemClock, Instant::now()).unwrap().is_none(), "one at a time");
        let publisher = lease.prepare().unwrap();
        assert!(matches!(store.read().unwrap(), Found::Nothing), "not before it is published");
        let short = Document { expires_in: Duration::from_secs(300), ..document.clone() };
        publisher.publish_interim(&short).unwrap();
        assert!(matches!(store.read().unwrap(), Found::Document(found) if found == short));
        assert!(store.acquire(&SystemClock, Instant::now()).unwrap().is_none(), "still held");
        publisher.publish(&document).unwrap();
        assert!(matches!(store.read().unwrap(), Found::Document(found) if found == document));
        assert!(dir.path().join("new/shop.lock").exists());
    }

    #[test]
    fn a_store_can_be_used_from_any_thread() {
        fn assert_shared<T: Send + Sync>() {}
        assert_shared::<FileStore>();
    }
}
