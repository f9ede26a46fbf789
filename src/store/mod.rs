//! Where documents are published: in files, or in a Redis that many hosts share. A [`Store`] keeps one document. It gives the right to
//! replace it, a [`Lease`], to one process at a time, and a prepared lease is a [`Publisher`]. Readers need none of these. Knows
//! nothing of when a document is due, and never calls WeChat.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use time::UtcDateTime;

use crate::message::messages;
use crate::model::api::Rules;
use crate::model::document::Document;
use crate::model::kind::DocumentKind;
use crate::model::location::{Location, RedisLocation};
use crate::os::clock::Clock;
use crate::os::file::lock::FileLock;

#[cfg(test)]
pub(crate) use self::redis::REDIS_MESSAGES;
use self::redis::{RedisPool, RedisStore, RunLimit};
use self::renamed::RenamedDocuments;
use file::FileStore;
use reader::FileWatch;
use record::RecordFile;

mod file;
mod owner;
mod patience;
mod reader;
mod record;
mod renamed;
pub(crate) mod redis;
mod preflight;

pub(crate) use owner::{files_of_root_in, give};
pub(crate) use preflight::{DirectoryState, LeaseState, PublishTrial, RedisState};
pub(crate) use record::{
    CACHED_BY_SDKS, LostAnswers, LostRequests, MAX_REPLACED, Record, RecordChange, TroubleClaim,
    TroubleEvent,
};

messages! {
    NO_DOCUMENT<3> {
        "Run {2}, which replaces it.", "{0} is no document: {1}";
        "请执行 {2}，会将其替换。", "{0} 不是 token 文件：{1}";
    }
    OTHER_CHECK<1> {
        "Wait for it.", "another check is trying the same, and holds {0}";
        "请等待其结束。", "另一个 check 正在进行，持有 {0}";
    }
    NOT_SYNCED<0> {
        "Look at the disk.", "the new document is in force, but a power cut could bring back the old one";
        "请检查磁盘。", "新 token 文件已生效，但断电后可能恢复为旧文件";
    }
    LOCKS_DO_NOT_HOLD<1> {
        "Use a file system with locks.", "locks do not hold in {0}: one was given twice";
        "请使用支持文件锁的文件系统。", "{0} 中的文件锁无效：同一把锁可以被取得两次";
    }
}

/// Opens stores, and owns what stores in Redis share: connections, and the threads that follow keys. A command makes one value and
/// hands it down. Cheap to clone; clones share everything.
#[derive(Clone)]
pub(crate) struct Stores {
    clock: Arc<dyn Clock>,
    redis: Arc<RedisPool>,
    /// A document that an account without one takes over, if it is in the account's directory and has its AppID.
    predecessor: Option<Arc<Path>>,
    /// Documents of accounts whose name has changed.
    renamed: Option<Arc<RenamedDocuments>>,
}

impl Stores {
    /// Returns stores that take the time from `clock`. Connects to nothing yet.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Stores {
        Stores {
            redis: Arc::new(RedisPool::new(Arc::clone(&clock), None)),
            clock,
            predecessor: None,
            renamed: None,
        }
    }

    /// Returns the stores for a run that ends at `ends_at` and may take `timeout`. No step in Redis takes longer, except the publishing
    /// of a token that was received.
    pub(crate) fn within(self, timeout: Duration, ends_at: Instant) -> Stores {
        let pool = RedisPool::new(Arc::clone(&self.clock), Some(RunLimit { ends_at, timeout }));
        Stores { redis: Arc::new(pool), ..self }
    }

    /// Returns the stores in which an account without a document takes over this one, and the tickets beside it, if it is in the
    /// account's directory and has its AppID.
    pub(crate) fn taking_over(self, predecessor: Option<PathBuf>) -> Stores {
        Stores { predecessor: predecessor.map(Arc::from), ..self }
    }

    /// Returns the stores in which an account without a document takes over that of an account which has another name now: a
    /// document in the account's directory that has its AppID and is not among those `in_use`.
    pub(crate) fn renaming(self, in_use: Option<HashSet<OsString>>) -> Stores {
        Stores { renamed: in_use.map(|names| Arc::new(RenamedDocuments::new(names))), ..self }
    }

    /// Reads the published document. Takes no lock.
    pub(crate) fn read(&self, location: &Location, kind: &DocumentKind) -> Result<Found> {
        match location {
            Location::File(_) => reader::read(&location.path(kind), kind),
            Location::Redis(redis) => self.redis_store(redis, location, kind, None).read_or_copy(),
        }
    }

    /// Returns a reader that looks at the published document again and again.
    pub(crate) fn watch(&self, location: &Location, kind: &DocumentKind) -> Box<dyn Watch> {
        match location {
            Location::File(_) => Box::new(FileWatch::new(&location.path(kind), kind)),
            Location::Redis(redis) => self.redis_store(redis, location, kind, None).watch(),
        }
    }

    /// Opens the store for a process that publishes. Files are published with `mode`.
    pub(crate) fn open(
        &self,
        location: &Location,
        kind: &DocumentKind,
        mode: u32,
    ) -> Arc<dyn Store + Send + Sync> {
        match location {
            Location::File(_) => {
                let predecessor = self.predecessor_for(location, kind);
                let path = location.path(kind);
                let store = FileStore::new(&path, kind, mode, &self.clock, predecessor);
                Arc::new(store.taking_over(self.renamed.clone()))
            }
            Location::Redis(redis) => Arc::new(self.redis_store(redis, location, kind, Some(mode))),
        }
    }

    /// Tries whether documents can be published. Publishes none, and leaves nothing behind.
    pub(crate) fn try_publishing(&self, location: &Location) -> PublishTrial {
        match location {
            Location::File(path) => {
                file::clean_up(path, &*self.clock);
                PublishTrial::Directory(preflight::try_directory(path, &*self.clock))
            }
            Location::Redis(redis) => {
                let store = self.redis_store(redis, location, &DocumentKind::Token, None);
                PublishTrial::Redis(store.try_writing())
            }
        }
    }

    /// Returns whether a process holds the lease on the token's document.
    pub(crate) fn lease_state(&self, location: &Location) -> Result<LeaseState> {
        match location {
            Location::File(path) => preflight::lease_state(&file::lock_path(path)),
            Location::Redis(redis) => {
                let store = self.redis_store(redis, location, &DocumentKind::Token, None);
                let holder = store.lease_holder()?;
                Ok(holder.map_or(LeaseState::Free, LeaseState::Held))
            }
        }
    }

    /// Returns the record that earlier runs on this host left for the document, if it is of this AppID. Changes nothing.
    pub(crate) fn record(
        &self,
        location: &Location,
        kind: &DocumentKind,
        appid: &str,
        now: UtcDateTime,
    ) -> Option<Record> {
        RecordFile::beside(&location.path(kind)).read(appid, now)
    }

    /// Waits until each Redis was asked for all keys that are watched so far, but no longer than its timeout.
    pub(crate) fn await_first_look(&self) {
        self.redis.await_first_look();
    }

    /// Asks each simulated Redis for all keys that are watched so far.
    #[cfg(test)]
    pub(crate) fn look(&self) {
        self.redis.look();
    }

    /// Ends the threads that follow Redis, and waits a moment at most for their end. Watched documents change no more.
    pub(crate) fn end(&self) {
        self.redis.end();
    }

    /// Returns the document that the account at this location may take over.
    fn predecessor_for(&self, location: &Location, kind: &DocumentKind) -> Option<PathBuf> {
        let predecessor = Location::File(self.predecessor.as_deref()?.to_owned());
        let (from, to) = (predecessor.path(kind), location.path(kind));
        (from.parent() == to.parent() && from != to).then_some(from)
    }

    fn redis_store(
        &self,
        redis: &RedisLocation,
        location: &Location,
        kind: &DocumentKind,
        mode: Option<u32>,
    ) -> RedisStore {
        RedisStore::new(&self.redis, redis, kind, &location.path(kind), mode)
    }
}

/// What was found at a document's place.
#[derive(Debug)]
pub(crate) enum Found {
    Nothing,
    /// Something that is no document. The text says where it is, and what is wrong with it.
    Damaged(String),
    Document(Document),
}

/// A live document that an account takes over.
pub(crate) struct Predecessor {
    pub(crate) document: Document,
    /// While it is held, no process replaces the document.
    _lock: FileLock,
}

/// The place of one document.
pub(crate) trait Store {
    /// Reads the published document. After an error it is unknown whether there is one.
    fn read(&self) -> Result<Found>;

    /// Waits for the exclusive right to publish. Returns `None` if another process held it until `deadline`.
    fn acquire(&self, clock: &dyn Clock, deadline: Instant) -> Result<Option<Box<dyn Lease>>>;

    /// Returns the published document as last known, without waiting for it. `None` if there is none, or if it is damaged or cannot be
    /// read; a refresh reports that.
    fn last_known(&self) -> Option<Document> {
        match self.read() {
            Ok(Found::Document(document)) => Some(document),
            _ => None,
        }
    }

    /// Applies settings that may have changed since the document was published: the mode of its file, the owner of its directory, and
    /// the keys of `[redis] also`.
    fn apply_settings(&self) -> Result<()> {
        Ok(())
    }

    /// Returns the live document with this AppID that this place may take over: the one of the command line's account. Removes it if
    /// it has expired. Waits for a process that publishes there, but not as long as until `deadline`. Called by the holder of the lease.
    fn take_over(&self, _appid: &str, _deadline: Instant) -> Option<Predecessor> {
        None
    }

    /// Returns the live document with this AppID that this place takes over from an account which has another name now. Waits for
    /// a process that publishes there, but not until `deadline`. Called by the holder of the lease.
    fn take_over_renamed(&self, _appid: &str, _deadline: Instant) -> Option<Predecessor> {
        None
    }

    /// Returns when the published document was last [confirmed](Publisher::confirm), if that is known.
    fn confirmed_at(&self) -> Option<UtcDateTime> {
        None
    }

    /// Removes temporary files that killed processes left behind, unless a process is at work there. Does not wait.
    fn clean_up(&self) {}

    /// Returns the record that earlier runs left, if it is of this AppID.
    fn record(&self, _appid: &str, _now: UtcDateTime) -> Option<Record> {
        None
    }

    /// Writes the record for the next run. Called by the holder of the lease. A failure is logged, and is no error.
    fn write_record(&self, _record: &Record, _clock: &dyn Clock) {}

    /// Changes the record, under a lock. Called by a process that holds no lease. A failure is no error.
    fn change_record(
        &self,
        _appid: &str,
        _clock: &dyn Clock,
        _change: &dyn Fn(&mut Record),
    ) -> RecordChange {
        RecordChange::NotMade
    }

    /// Whether `[redis] also` keys have to be kept in step.
    fn has_also_keys(&self) -> bool {
        false
    }

    /// Writes the published token to those `[redis] also` keys that hold something else. May wait for Redis.
    fn sync_also_keys(&self) -> Result<()> {
        Ok(())
    }
}

/// A reader that looks at the published document again and again, at little cost.
pub(crate) trait Watch {
    /// Looks again. Returns whether the document has changed, or can be read again.
    fn look(&mut self) -> bool;

    /// Returns the document of the last look; while it is damaged or cannot be read, the last good one: a failure never costs a good
    /// token.
    fn document(&self) -> Option<&Document>;

    /// Returns what was wrong with the document at the last look, or why it could not be read.
    fn trouble(&self) -> Option<&str>;
}

/// The exclusive right to publish. Ends when it is dropped.
pub(crate) trait Lease {
    /// Reads the published document. No other process replaces it while the lease lasts.
    fn read(&self) -> Result<Found>;

    /// Returns the requests without an answer of all hosts that share this place. `None` if the place is one host's: its record has
    /// them.
    fn lost(&self) -> Result<Option<LostRequests>> {
        Ok(None)
    }

    /// Does everything that can fail on this host, so that WeChat is not asked for a token that could not be published.
    fn prepare(self: Box<Self>) -> Result<Box<dyn Publisher>>;
}

/// A lease with everything ready to publish. If it is dropped, the published document stays as it is.
pub(crate) trait Publisher {
    /// Fails if the lease was lost to another process, as only a lease in Redis can be.
    fn check_lease(&self) -> Result<()> {
        Ok(())
    }

    /// Returns how long the lease lasts at least without another look; without end if it cannot be lost.
    fn lease_left(&self) -> Duration {
        Duration::MAX
    }

    /// Tells all hosts that share this place of these requests without an answer. Fails if the lease was lost.
    fn note_lost(&self, _lost: &LostRequests) -> Result<()> {
        Ok(())
    }

    /// Publishes a document that [`Publisher::publish`] may replace soon. Everything stays ready, also if this fails.
    fn publish_interim(&self, document: &Document) -> Result<()>;

    /// Notes that WeChat confirmed the published document at `at`, and leaves the document untouched, so that no program that watches
    /// it wakes. Returns whether that was noted; if not, the caller publishes the document again.
    fn confirm(&self, _at: UtcDateTime) -> bool {
        false
    }

    /// Publishes the document that was found at the beginning again, and ends the lease. Fails if the lease was lost.
    fn restore(self: Box<Self>, document: &Document) -> Result<()>;

    /// Publishes a document. The lease lasts on, and nothing else can be published under it.
    ///
    /// If the lease was lost, the document gets no more life than a request of the next holder leaves its token by these `rules`. With
    /// `lost`, all hosts that share this place are told of the requests that are still without an answer.
    fn publish(
        &mut self,
        document: &Document,
        rules: Rules,
        lost: Option<&LostRequests>,
    ) -> Result<()>;
}
