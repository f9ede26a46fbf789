//! The store that is a file beside its lock: `DIR/ACCOUNT.json`, `DIR/ACCOUNT.lock`. Here is the writing; who only
//! reads needs `reader`, and no lock.

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;

use super::{Found, Prepared, Store, Turn, reader};
use crate::model::document::{Document, MAX_DOCUMENT};
use crate::model::kind::DocumentKind;
use crate::os::atomic::{self, Replacement};
use crate::os::clock::Clock;
use crate::os::lock::Lock;
use crate::os::read;

/// A document in a file.
#[derive(Clone)]
pub(super) struct FileStore {
    path: PathBuf,
    kind: DocumentKind,
    mode: u32,
}

impl FileStore {
    /// The store at `path`, whose document is published with `mode`.
    pub(super) fn new(path: &Path, kind: &DocumentKind, mode: u32) -> FileStore {
        FileStore { path: path.to_owned(), kind: kind.clone(), mode }
    }

    /// The lock beside the document; never the document itself, which is replaced under it.
    pub(super) fn lock_path(&self) -> PathBuf {
        self.path.with_extension("lock")
    }
}

impl Store for FileStore {
    fn read(&self) -> Result<Found> {
        reader::read(&self.path, &self.kind)
    }

    fn turn(&self, clock: &dyn Clock, deadline: Instant) -> Result<Option<Box<dyn Turn>>> {
        atomic::make_dir_of(&self.path, self.mode)?;
        let lock = Lock::acquire(&self.lock_path(), clock, deadline)?;
        Ok(lock.map(|lock| Box::new(FileTurn { store: self.clone(), lock }) as Box<dyn Turn>))
    }

    fn settle(&self) -> Result<()> {
        let file = read::open_own(OpenOptions::new().read(true), &self.path)?;
        if file.metadata()?.permissions().mode() & 0o7777 != self.mode {
            file.set_permissions(Permissions::from_mode(self.mode))?;
        }
        Ok(())
    }
}

struct FileTurn {
    store: FileStore,
    lock: Lock,
}

impl Turn for FileTurn {
    fn read(&self) -> Result<Found> {
        self.store.read()
    }

    fn prepare(self: Box<Self>) -> Result<Box<dyn Prepared>> {
        let replacement = Replacement::prepare(&self.store.path, self.store.mode, MAX_DOCUMENT)?;
        Ok(Box::new(PreparedFile { replacement, kind: self.store.kind, _lock: self.lock }))
    }
}

struct PreparedFile {
    // Before the lock, so that an unused temporary file is gone before the next holder makes its own.
    replacement: Replacement,
    kind: DocumentKind,
    _lock: Lock,
}

impl Prepared for PreparedFile {
    fn publish_for_now(&self, document: &Document) -> Result<()> {
        self.replacement.publish_for_now(document.to_line(&self.kind).expose().as_bytes())
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
    fn what_is_published_is_what_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::new(&dir.path().join("new/shop.json"), &DocumentKind::Token, 0o600);
        let life = Duration::from_secs(7200);
        let document =
            Document::new("wx1", Secret::new("T1".to_owned()), life, UtcDateTime::UNIX_EPOCH);
        assert!(matches!(store.read().unwrap(), Found::Nothing));
        let turn = store.turn(&SystemClock, Instant::now()).unwrap().unwrap();
        assert!(store.turn(&SystemClock, Instant::now()).unwrap().is_none(), "one at a time");
        let prepared = turn.prepare().unwrap();
        assert!(matches!(store.read().unwrap(), Found::Nothing), "not before it is published");
        let short = Document { expires_in: Duration::from_secs(300), ..document.clone() };
        prepared.publish_for_now(&short).unwrap();
        assert!(matches!(store.read().unwrap(), Found::Document(found) if found == short));
        assert!(store.turn(&SystemClock, Instant::now()).unwrap().is_none(), "still ours");
        prepared.publish(&document).unwrap();
        assert!(matches!(store.read().unwrap(), Found::Document(found) if found == document));
        assert!(dir.path().join("new/shop.lock").exists());
    }

    #[test]
    fn a_store_can_be_used_from_any_thread() {
        fn assert_shared<T: Send + Sync>() {}
        assert_shared::<FileStore>();
    }
}
