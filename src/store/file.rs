//! The store that keeps a document in a file, `DIR/ACCOUNT.json`, with a lock file beside it, `DIR/ACCOUNT.lock`. For processes that publish:
//! a process that only reads uses `reader`, and needs no lock.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use time::UtcDateTime;

use super::patience::{PublishError, publish_patiently};
use super::record::{Record, RecordChange, RecordFile, record_path};
use super::renamed::RenamedDocuments;
use super::{Found, Lease, LostRequests, NOT_SYNCED, Predecessor, Publisher, Store, owner, reader};
use crate::log::{error, verb};
use crate::model::api::Rules;
use crate::model::document::{Document, MAX_DOCUMENT};
use crate::model::kind::DocumentKind;
use crate::os::clock::Clock;
use crate::os::file::atomic::{self, ReplaceError, Replacement};
use crate::os::file::dir::{Dir, dir_of};
use crate::os::file::lock::{self, FileLock};
use crate::os::file::read;
use crate::sabotage::{Bug, has_bug};

/// A document in a file.
#[derive(Clone)]
pub(super) struct FileStore {
    path: PathBuf,
    kind: DocumentKind,
    mode: u32,
    clock: Arc<dyn Clock>,
    /// A document that this place takes over.
    predecessor: Option<PathBuf>,
    /// Where to find the document of the same account under another name. `None` if it is not to be looked for.
    renamed: Option<Arc<RenamedDocuments>>,
}

impl FileStore {
    /// Returns the store at `path`, whose document is published with `mode`. If it has none, it takes over `predecessor`.
    pub(super) fn new(
        path: &Path,
        kind: &DocumentKind,
        mode: u32,
        clock: &Arc<dyn Clock>,
        predecessor: Option<PathBuf>,
    ) -> FileStore {
        let clock = Arc::clone(clock);
        let (path, kind) = (path.to_owned(), kind.clone());
        FileStore { path, kind, mode, clock, predecessor, renamed: None }
    }

    /// Returns the store, which also takes over what these documents have of its account.
    pub(super) fn taking_over(self, renamed: Option<Arc<RenamedDocuments>>) -> FileStore {
        FileStore { renamed, ..self }
    }

    /// Returns the document at `path` under its lock, if it is of this AppID, expired or not.
    fn predecessor_at(&self, path: &Path, appid: &str, deadline: Instant) -> Option<Predecessor> {
        let ours = || match reader::read(path, &self.kind) {
            Ok(Found::Document(it)) if !appid.is_empty() && it.appid == appid => Some(it),
            _ => None,
        };
        ours()?; // Where there is none, no lock file is made either.
        // What was read without the lock may be replaced at this moment. Time is left to ask WeChat.
        let patience = self.clock.instant() + self.clock.until(deadline) / 2;
        let lock = FileLock::acquire(&lock_path(path), &*self.clock, patience).ok().flatten()?;
        Some(Predecessor { document: ours()?, _lock: lock })
    }
}

/// Returns the path of the lock file of the document at `path`. The document itself cannot be locked: it is replaced under
/// the lock.
pub(super) fn lock_path(path: &Path) -> PathBuf {
    path.with_extension("lock")
}

/// Removes what killed processes left behind beside the document at `path`, if no process is at work there. A failure costs
/// no token, and is reported by the next process that publishes.
pub(super) fn clean_up(path: &Path, clock: &dyn Clock) {
    let Ok((dir, name)) = Dir::of(path) else { return };
    let record = record_path(path);
    let names = [Some(name), record.file_name()];
    if names.into_iter().flatten().any(|name| atomic::has_leftovers(&dir, name))
        && let lock = acquire_at_once(&lock_path(path), clock)
        && (lock.is_some() || has_bug(Bug::CleanedUpWithoutLock))
    {
        [path, &record].iter().for_each(|target| drop(atomic::remove_leftovers(target)));
    }
    clean_up_trial(path, &dir, name, clock);
}

/// Removes what a killed trial left behind in this directory, beside the document of this name, if no trial is at work there.
fn clean_up_trial(path: &Path, dir: &Dir, name: &OsStr, clock: &dyn Clock) {
    if atomic::has_trial(dir, name)
        && let Ok(lock) = atomic::trial_lock(path)
        && let Some(_lock) = acquire_at_once(&lock, clock)
    {
        let _ = atomic::remove_trial(path);
    }
}

fn acquire_at_once(lock: &Path, clock: &dyn Clock) -> Option<FileLock> {
    FileLock::acquire(lock, clock, clock.instant()).ok().flatten()
}

impl Store for FileStore {
    fn read(&self) -> Result<Found> {
        reader::read(&self.path, &self.kind)
    }

    fn acquire(&self, clock: &dyn Clock, deadline: Instant) -> Result<Option<Box<dyn Lease>>> {
        atomic::make_dir_of(&self.path, self.mode)?;
        let lock = FileLock::acquire(&lock_path(&self.path), clock, deadline)?;
        let lease = |lock| Box::new(FileLease { store: self.clone(), lock, deadline });
        Ok(lock.map(|lock| lease(lock) as Box<dyn Lease>))
    }

    fn record(&self, appid: &str, now: UtcDateTime) -> Option<Record> {
        RecordFile::beside(&self.path).read(appid, now)
    }

    fn write_record(&self, record: &Record, _: &dyn Clock) {
        RecordFile::beside(&self.path).write(record);
    }

    fn change_record(
        &self,
        appid: &str,
        clock: &dyn Clock,
        change: &dyn Fn(&mut Record),
    ) -> RecordChange {
        RecordFile::beside(&self.path).change(appid, clock, change)
    }

    fn apply_settings(&self) -> Result<()> {
        let given = owner::give_files_of(&self.path);
        read::set_mode(&self.path, self.mode)?;
        Ok(given?)
    }

    fn take_over(&self, appid: &str, deadline: Instant) -> Option<Predecessor> {
        let path = self.predecessor.as_ref()?;
        let predecessor = self.predecessor_at(path, appid, deadline)?;
        if predecessor.document.left(self.clock.now()).is_zero() {
            // A program that reads it learns at once that nothing is published there. The next run tries again.
            let _ = Dir::of(path).and_then(|(dir, name)| dir.remove(name));
            return None;
        }
        Some(predecessor)
    }

    fn take_over_renamed(&self, appid: &str, deadline: Instant) -> Option<Predecessor> {
        let now = self.clock.now();
        let path = self.renamed.as_ref()?.find(dir_of(&self.path), appid, now)?;
        let predecessor = self.predecessor_at(&path, appid, deadline)?;
        (!predecessor.document.left(now).is_zero()).then_some(predecessor)
    }

    fn confirmed_at(&self) -> Option<UtcDateTime> {
        lock::noted_at(&lock_path(&self.path))
    }

    fn clean_up(&self) {
        clean_up(&self.path, &*self.clock);
    }
}

struct FileLease {
    store: FileStore,
    lock: FileLock,
    deadline: Instant,
}

impl Lease for FileLease {
    fn read(&self) -> Result<Found> {
        self.store.read()
    }

    fn prepare(self: Box<Self>) -> Result<Box<dyn Publisher>> {
        let FileLease { store, lock, deadline } = *self;
        if let Ok((dir, name)) = Dir::of(&store.path) {
            clean_up_trial(&store.path, &dir, name, &*store.clock);
        }
        let replacement = Some(prepare(&store)?);
        Ok(Box::new(FilePublisher { replacement, store, deadline, lock }))
    }
}

fn prepare(store: &FileStore) -> Result<Replacement> {
    Replacement::prepare(&store.path, store.mode, MAX_DOCUMENT)
}

struct FilePublisher {
    // Before the lock, so that an unused temporary file is gone before the next holder makes its own.
    /// `None` between two attempts to publish.
    replacement: Option<Replacement>,
    store: FileStore,
    deadline: Instant,
    lock: FileLock,
}

impl FilePublisher {
    /// Publishes these bytes for readers, patiently. The file that is prepared is used twice, because it has its room on the
    /// disk; then another one, because the fault may be with this one.
    fn publish_bytes(&mut self, bytes: &[u8]) -> Result<Replacement> {
        let FilePublisher { replacement, store, deadline, .. } = self;
        let mut has_failed = false;
        publish_patiently(&*store.clock, *deadline, &store.path.display(), || {
            let mut current = match replacement.take() {
                Some(prepared) => prepared,
                None => prepare(store).map_err(PublishError::MayPass)?,
            };
            match current.publish(bytes) {
                Ok(()) => Ok(current),
                Err(ReplaceError::TakenOver(err)) => Err(PublishError::Final(err)),
                Err(ReplaceError::Failed(err)) => {
                    has_failed = !has_failed;
                    *replacement = has_failed.then_some(current);
                    Err(PublishError::MayPass(err))
                }
            }
        })
    }
}

impl Publisher for FilePublisher {
    fn publish_interim(&self, document: &Document) -> Result<()> {
        if has_bug(Bug::InterimNotPublished) {
            return Ok(());
        }
        let line = document.to_line(&self.store.kind);
        let replacement = self.replacement.as_ref().context("nothing is prepared")?;
        replacement.publish_interim(line.expose().as_bytes())
    }

    fn confirm(&self, at: UtcDateTime) -> bool {
        self.lock.note(at).is_ok()
    }

    fn restore(mut self: Box<Self>, document: &Document) -> Result<()> {
        self.publish(document, Rules::Stable, None)
    }

    fn publish(&mut self, document: &Document, _: Rules, _: Option<&LostRequests>) -> Result<()> {
        let line = document.to_line(&self.store.kind);
        let published = self.publish_bytes(line.expose().as_bytes())?;
        // No failure of publishing: readers have the document.
        if let Err(err) = published.sync_dir().or_else(|_| published.sync_dir()) {
            error!("{}: {}", verb(), NOT_SYNCED.quoting([], format!("{err:#}")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::secret::Secret;
    use crate::os::clock::SystemClock;
    use crate::os::timestamp::Timestamp;

    fn store_at(path: &Path) -> FileStore {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        FileStore::new(path, &DocumentKind::Token, 0o600, &clock, None)
    }

    #[test]
    fn one_lease_at_a_time_publishes_and_readers_see_each_document() {
        let dir = tempfile::tempdir().unwrap();
        let store = store_at(&dir.path().join("new/shop.json"));
        let life = Duration::from_secs(7200);
        let document = Document::new("wx1", Secret::new("T1".to_owned()), life, SystemClock.now());
        assert!(matches!(store.read().unwrap(), Found::Nothing));
        let lease = store.acquire(&SystemClock, Instant::now()).unwrap().unwrap();
        assert!(store.acquire(&SystemClock, Instant::now()).unwrap().is_none(), "one at a time");
        let mut publisher = lease.prepare().unwrap();
        assert!(matches!(store.read().unwrap(), Found::Nothing), "not before it is published");
        let short = Document { expires_in: Duration::from_secs(300), ..document.clone() };
        publisher.publish_interim(&short).unwrap();
        assert!(matches!(store.read().unwrap(), Found::Document(found) if found == short));
        assert!(store.acquire(&SystemClock, Instant::now()).unwrap().is_none(), "still held");
        publisher.publish(&document, Rules::Classic, None).unwrap();
        assert!(matches!(store.read().unwrap(), Found::Document(found) if found == document));
        assert!(store.acquire(&SystemClock, Instant::now()).unwrap().is_none(), "until it ends");
        drop(publisher);
        assert!(store.acquire(&SystemClock, Instant::now()).unwrap().is_some());
        assert!(dir.path().join("new/shop.lock").exists());
    }

    #[test]
    fn a_predecessor_that_is_replaced_at_this_moment_is_taken_over_as_it_is_then() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("default.json");
        let (cron, life) = (store_at(&path), Duration::from_secs(7200));
        let publish = |document: &Document| {
            let lease = cron.acquire(&SystemClock, Instant::now()).unwrap().unwrap();
            lease.prepare().unwrap().publish(document, Rules::Classic, None).unwrap();
        };
        let new = Document::new("wx1", Secret::new("T2".to_owned()), life, SystemClock.now());
        let long_ago = Timestamp { wall: new.created_at.wall - life * 2, uptime: None };
        let dead = Document { created_at: long_ago, ..new.clone() };
        let predecessor = Some(path.clone());
        let shop = FileStore { predecessor, ..store_at(&dir.path().join("shop.json")) };
        let later = || Instant::now() + Duration::from_secs(600);

        publish(&dead);
        assert!(shop.take_over("", later()).is_none() && path.exists(), "of an unknown AppID");
        let lease = cron.acquire(&SystemClock, Instant::now()).unwrap().unwrap();
        assert!(shop.take_over("wx1", Instant::now()).is_none() && path.exists(), "in use");
        std::thread::scope(|scope| {
            let taken_over = scope.spawn(|| shop.take_over("wx1", later()).unwrap().document);
            lease.prepare().unwrap().publish(&new, Rules::Classic, None).unwrap();
            assert_eq!(taken_over.join().unwrap(), new);
        });
        publish(&dead);
        assert!(shop.take_over("wx1", later()).is_none() && !path.exists(), "expired");
    }

    #[test]
    fn a_store_can_be_used_from_any_thread() {
        fn assert_shared<T: Send + Sync>() {}
        assert_shared::<FileStore>();
    }
}
