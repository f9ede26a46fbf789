//! The store in a Redis that many hosts share. For each document there are these keys:
//!
//! - `PREFIX:ACCOUNT`: the document as JSON. It lasts as long as its token.
//! - `PREFIX:ACCOUNT:lock`: the lock, which is the lease.
//! - `PREFIX:ACCOUNT:last`: the document even after its end. A ticket, or a token of WeCom, that is issued again is recognized by it, and
//!   keeps its age.
//! - `PREFIX:ACCOUNT:lost`: the times of requests of all hosts whose answers were lost.
//!
//! A lock in Redis can be lost without notice: its holder was paused, or Redis failed over. So there is also a fence: a document is replaced
//! only by a process that knows what it replaces, or by a newer document (see `scripts`).
//!
//! Each host keeps copies (see `local_copy`). A copy that is newer than the document in Redis is in force: Redis lost this document in a
//! crash, a failover or a FLUSHALL, and the next process that publishes puts it back. On stable and work this saves one call; on classic it
//! saves a token that a call would invalidate. But a copy must not outlive its original. So a token that was replaced early stays in Redis,
//! with its shortened lifetime, for as long as a copy with the longer lifetime could be taken for a good one.

mod connection;
mod fault;
mod follower;
mod lease;
mod local_copy;
mod lock;
mod messages;
pub(crate) mod protocol;
mod scripts;
mod server;
pub(crate) mod value;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use time::UtcDateTime;

use crate::language::in_both;
use crate::log::debug;
use crate::model::document::Document;
use crate::model::kind::DocumentKind;
use crate::model::location::{AlsoFormat, RedisLocation, RedisSettings};
use crate::os::clock::Clock;
use crate::os::thread::lock;
use crate::sabotage::{Bug, has_bug};
use crate::store::file::clean_up;
use crate::store::record::{LostRequests, Record, RecordChange, RecordFile};
use crate::store::{Found, Lease, RedisState, Store, Watch, owner};
#[cfg(test)]
pub(crate) use connection::model;
#[cfg(test)]
pub(crate) use messages::ALL as REDIS_MESSAGES;

use connection::{RedisConnection, RedisResult};
use fault::RedisFault;
use follower::{FollowedKey, RedisFollower, RedisWatch};
use lease::RedisLease;
use local_copy::LocalCopy;
use scripts::{AlsoArgs, LostArgs, PublishArgs};
use server::RedisServer;
pub(crate) use server::RunLimit;
#[cfg(test)]
use server::testing;
use value::{InForce, StoredValue, also_value};

/// How long a document stays at its `:last` key: longer than any token lives that is accepted.
const REMEMBERED: Duration = Duration::from_secs(25 * 60 * 60);

/// Every Redis that this process uses. Equal settings share one.
pub(super) struct RedisPool {
    clock: Arc<dyn Clock>,
    limit: Option<RunLimit>,
    /// Weak: a Redis that no store and no reader uses any more is disconnected and not followed.
    followers: Mutex<HashMap<Arc<RedisSettings>, Weak<RedisFollower>>>,
}

impl RedisPool {
    /// Returns an empty pool, for a run with this limit.
    pub(super) fn new(clock: Arc<dyn Clock>, limit: Option<RunLimit>) -> RedisPool {
        RedisPool { clock, limit, followers: Mutex::default() }
    }

    fn get(&self, settings: &Arc<RedisSettings>) -> Arc<RedisFollower> {
        let mut followers = lock(&self.followers);
        if let Some(follower) = followers.get(settings).and_then(Weak::upgrade) {
            return follower;
        }
        followers.retain(|_, follower| follower.strong_count() > 0);
        let server = RedisServer::new(settings.clone(), self.clock.clone(), self.limit);
        let follower = Arc::new(RedisFollower::new(server));
        followers.insert(settings.clone(), Arc::downgrade(&follower));
        follower
    }

    fn all(&self) -> Vec<Arc<RedisFollower>> {
        let followers = lock(&self.followers);
        followers.values().filter_map(Weak::upgrade).collect()
    }

    /// Waits until each Redis was asked for all keys that are followed now, but no longer than it has to answer.
    pub(super) fn await_first_look(&self) {
        self.all().iter().for_each(|follower| follower.await_first_look());
    }

    /// Asks each Redis for all keys that are followed now, as the threads do of which a simulated one has none.
    #[cfg(test)]
    pub(super) fn look(&self) {
        self.all().iter().for_each(|follower| follower.look());
    }

    /// Ends the threads that follow keys.
    pub(super) fn end(&self) {
        self.all().iter().for_each(|follower| follower.end());
    }
}

/// A document in Redis.
#[derive(Clone)]
pub(super) struct RedisStore {
    follower: Arc<RedisFollower>,
    kind: DocumentKind,
    account: String,
    key: String,
    lock: String,
    last_key: String,
    lost_key: String,
    copy: LocalCopy,
    /// The mode of the copy; `None` for a process that only reads.
    mode: Option<u32>,
    also: Vec<(String, AlsoFormat)>,
    /// The warnings about keys of `[redis] also` that were logged under this lease.
    warned_of: Arc<Mutex<Vec<String>>>,
    /// Set by the first call of `last_known`. The key is followed for as long as this lives.
    followed: OnceLock<Arc<FollowedKey>>,
    /// Whether steps may take longer than the run.
    is_unhurried: bool,
}

impl RedisStore {
    /// Returns the store of the document of this kind, whose copy is at `path`. Processes that publish give its `mode`.
    pub(super) fn new(
        pool: &RedisPool,
        location: &RedisLocation,
        kind: &DocumentKind,
        path: &Path,
        mode: Option<u32>,
    ) -> RedisStore {
        let key = location.key(kind);
        RedisStore {
            follower: pool.get(&location.redis),
            kind: kind.clone(),
            account: location.account.clone(),
            lock: format!("{key}:lock"),
            last_key: format!("{key}:last"),
            lost_key: format!("{key}:lost"),
            copy: LocalCopy::new(path, kind, location.appid.as_deref()),
            mode,
            also: location.also(kind),
            warned_of: Arc::default(),
            followed: OnceLock::new(),
            is_unhurried: false,
            key,
        }
    }

    /// Returns a store whose steps may take longer than the run, for what has to be done all the same.
    fn unhurried(&self) -> RedisStore {
        RedisStore { is_unhurried: true, ..self.clone() }
    }

    /// Reads the published document for a process that does not publish. Falls back to the copy of this host if Redis is
    /// down or has lost the document.
    pub(super) fn read_or_copy(&self) -> Result<Found> {
        let now = self.clock().now();
        match self.get() {
            Ok(value) => match InForce::choose(value.document.clone(), self.copy.read(), now) {
                InForce::Copied(document) => Ok(Found::Document(document)),
                InForce::Stored(document) => {
                    document.iter().for_each(|document| self.keep_copy(document));
                    Ok(value.into())
                }
            },
            Err(fault) => match self.copy.read().filter(|copy| !copy.left(now).is_zero()) {
                Some(document) => {
                    debug!("{}: {fault:#}; the copy of this host is good", self.key);
                    Ok(Found::Document(document.cut_off_since(None)))
                }
                None => Err(fault),
            },
        }
    }

    /// Returns a reader that looks again and again.
    pub(super) fn watch(&self) -> Box<dyn Watch> {
        Box::new(RedisWatch::new(self.follower.clone(), self.follow()))
    }

    /// Tries whether the keys of wxtoken can be written. Returns what keeps those of `[redis] also` from being written, and the
    /// channel from being used.
    pub(super) fn try_writing(&self) -> Result<RedisState> {
        let (server, channel) = (self.server(), self.server().settings.channel());
        let unused = format!("{}:trial", self.lock);
        self.run(|connection| scripts::try_commands(connection, &unused))?;
        let keys = [&*self.lock, &self.key, &self.last_key, &self.lost_key];
        self.run(|connection| scripts::try_writing(connection, &keys))?;
        let announced = self.act(|connection| scripts::try_announcing(connection, &channel));
        let followed = announced.and_then(|()| server.try_subscribing(&channel));
        let try_also = |(also, _): &(String, AlsoFormat)| {
            let tried = server.run(|connection| scripts::try_writing(connection, &[also]));
            tried.err().map(|fault| self.also_error(also, &fault))
        };
        Ok(RedisState {
            also: self.also.iter().filter_map(try_also).collect(),
            channel: followed.err().map(|fault| server.error(&fault)),
        })
    }

    /// Returns who holds the lock, in words for a message: `None` if it is free, `Some(None)` if it does not say who.
    pub(super) fn lease_holder(&self) -> Result<Option<Option<String>>> {
        lock::holder(self.server(), &self.lock).map_err(|fault| self.server().error(&fault))
    }

    fn server(&self) -> &Arc<RedisServer> {
        &self.follower.server
    }

    fn clock(&self) -> &dyn Clock {
        &*self.server().clock
    }

    fn run<T>(&self, act: impl Fn(&mut RedisConnection) -> RedisResult<T>) -> Result<T> {
        self.act(act).map_err(|fault| self.server().error(&fault))
    }

    fn act<T>(
        &self,
        act: impl Fn(&mut RedisConnection) -> RedisResult<T>,
    ) -> Result<T, RedisFault> {
        match self.is_unhurried {
            true => self.server().run_unhurried(act),
            false => self.server().run(act),
        }
    }

    fn follow(&self) -> Arc<FollowedKey> {
        self.follower.follow(&self.key, &self.kind, &self.copy)
    }

    /// Returns the value of a key that has this document.
    fn bytes(&self, document: &Document) -> Vec<u8> {
        document.to_line(&self.kind).expose().trim_end().into()
    }

    fn keep_copy(&self, document: &Document) {
        self.copy.keep(document, self.mode, self.clock());
    }

    /// Reads what Redis has.
    fn get(&self) -> Result<StoredValue> {
        self.get_at(&self.key)
    }

    fn get_at(&self, key: &str) -> Result<StoredValue> {
        let bytes = self.run(|connection| scripts::read_one(connection, key))?;
        Ok(StoredValue::parse(&self.kind, key, &self.server().settings, bytes))
    }

    /// Reads what Redis has, after putting back the copy if Redis has lost it. Keeps a copy of another document. Returns the
    /// last document as well that is known, if Redis has none at the key.
    fn get_or_restore(&self) -> Result<(StoredValue, Option<Document>)> {
        let value = self.get()?;
        let copy = self.copy.read();
        let last = match value.bytes.is_empty() && !has_bug(Bug::EndedDocumentForgotten) {
            true => self.last_of(copy)?,
            false => copy,
        };
        let value = self.restore(value, last.clone())?;
        if let Some(document) = &value.document {
            self.keep_copy(document);
        }
        let is_missing = value.bytes.is_empty() && !has_bug(Bug::EndedDocumentForgotten);
        Ok((value, last.filter(|_| is_missing)))
    }

    /// Returns the later one of this copy and the document that Redis remembers.
    fn last_of(&self, copy: Option<Document>) -> Result<Option<Document>> {
        let last = self.get_at(&self.last_key)?.document.filter(|it| self.copy.is_for(it));
        let now = self.clock().now();
        Ok(match (copy, last) {
            (Some(copy), Some(last)) if last.is_later_than(&copy, now) => Some(last),
            (copy, last) => copy.or(last),
        })
    }

    /// Puts back the copy if Redis has lost it. Returns what Redis has then.
    fn restore(&self, value: StoredValue, copy: Option<Document>) -> Result<StoredValue> {
        let now = self.clock().now();
        let InForce::Copied(copy) = InForce::choose(value.document.clone(), copy, now) else {
            return Ok(value);
        };
        debug!("{}: Redis has lost token {}; it is put back", self.key, copy.token.fingerprint());
        self.publish(&copy, &value.bytes, copy.left(now), None, None)?;
        self.get() // The copy, or what another host has published meanwhile.
    }

    /// Publishes `document` for `life`, if the fence lets it. Returns whether it did. Redis is expected to have `expected`.
    /// With an `owner` that is required, and that this owner holds the lock. Notes the requests that are `lost` then, if that
    /// changes.
    fn publish(
        &self,
        document: &Document,
        expected: &[u8],
        life: Duration,
        owner: Option<&str>,
        lost: Option<&LostRequests>,
    ) -> Result<bool> {
        let requests = lost.map(LostRequests::to_json);
        let bytes = self.bytes(document);
        let there;
        let expected = match owner.is_none() && has_bug(Bug::FenceDropped) {
            true => {
                there = self.get()?.bytes;
                &there
            }
            false => expected,
        };
        let args = PublishArgs {
            lock: &self.lock,
            key: &self.key,
            last_key: &self.last_key,
            document: &bytes,
            life,
            memory: REMEMBERED,
            expected,
            owner,
            lost: requests.as_ref().map(|requests| LostArgs { key: &self.lost_key, requests }),
            channel: &self.server().settings.channel(),
        };
        let is_published = self.run(|connection| {
            let is_published = scripts::publish(connection, &args)?;
            if is_published {
                scripts::await_replica(connection, self.server().replica_patience());
            }
            Ok(is_published)
        })?;
        if is_published {
            self.follower.note(&self.key, document);
            // The document is published, and the token is not lost for a key that SDKs read.
            self.warn_of_also_keys(self.write_also_keys(document, &bytes, true));
        }
        Ok(is_published)
    }

    /// Writes the token to the keys of `[redis] also`, while Redis has `bytes` for `document`: to all, or to those that have
    /// another value. Returns what went wrong.
    fn write_also_keys(
        &self,
        document: &Document,
        bytes: &[u8],
        is_forced: bool,
    ) -> Vec<anyhow::Error> {
        let life = document.left(self.clock().now());
        let args = AlsoArgs { key: &self.key, document: bytes, life, is_forced };
        let write = |(also, format): &(String, AlsoFormat)| {
            let value = also_value(document, *format);
            let written =
                self.act(|connection| scripts::write_also(connection, &args, also, &value));
            written.err().map(|fault| self.also_error(also, &fault))
        };
        self.also.iter().filter_map(write).collect()
    }

    /// Returns the error for a key of `[redis] also` that cannot be written.
    fn also_error(&self, also: &str, fault: &RedisFault) -> anyhow::Error {
        let context = in_both(
            format!("the key {also} of [redis] also is not written"),
            format!("[redis] also 的键 {also} 未写入"),
        );
        self.server().error(fault).context(context)
    }
}

impl Store for RedisStore {
    fn read(&self) -> Result<Found> {
        let not_asked = || {
            in_both(
                "WeChat was not asked, as a token could not be published",
                "token 无法发布，未向微信请求",
            )
        };
        let (value, _) = self.get_or_restore().with_context(not_asked)?;
        Ok(value.into())
    }

    fn acquire(&self, clock: &dyn Clock, deadline: Instant) -> Result<Option<Box<dyn Lease>>> {
        self.copy.make_room_for_record(clock);
        let lease = RedisLease::acquire(self, clock, deadline)?;
        Ok(lease.map(|lease| Box::new(lease) as Box<dyn Lease>))
    }

    fn last_known(&self) -> Option<Document> {
        self.followed.get_or_init(|| self.follow()).published()
    }

    fn record(&self, appid: &str, now: UtcDateTime) -> Option<Record> {
        RecordFile::beside(self.copy.path()).read(appid, now)
    }

    /// The lease is one in Redis, and no lock of this host.
    fn write_record(&self, record: &Record, clock: &dyn Clock) {
        RecordFile::beside(self.copy.path()).write_locked(record, clock);
    }

    fn change_record(
        &self,
        appid: &str,
        clock: &dyn Clock,
        change: &dyn Fn(&mut Record),
    ) -> RecordChange {
        RecordFile::beside(self.copy.path()).change(appid, clock, change)
    }

    fn apply_settings(&self) -> Result<()> {
        let applied = self.mode.map_or(Ok(()), |mode| self.copy.set_mode(mode));
        let given = owner::give_files_of(self.copy.path());
        self.sync_also_keys()?;
        Ok(applied.and(given)?)
    }

    fn clean_up(&self) {
        clean_up(self.copy.path(), self.clock());
    }

    fn has_also_keys(&self) -> bool {
        !self.also.is_empty()
    }

    /// An SDK deletes its key when WeChat rejects the token, and a key that is new in the config does not exist yet.
    fn sync_also_keys(&self) -> Result<()> {
        if !self.has_also_keys() {
            return Ok(());
        }
        let (value, now) = (self.get()?, self.clock().now());
        let is_good = |it: &Document| self.copy.is_for(it) && !it.left(now).is_zero();
        let Some(document) = value.document.filter(is_good) else { return Ok(()) };
        let faults = self.write_also_keys(&document, &value.bytes, false);
        faults.into_iter().next().map_or(Ok(()), Err)
    }
}
