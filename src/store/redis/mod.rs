//! The store that is a Redis which many hosts share: the document as JSON at `PREFIX:ACCOUNT`, for as long as the token
//! lives, and a lock beside it.
//!
//! A lock in Redis can be lost unnoticed: whoever holds it is paused, or Redis fails over. So there is a fence, too: a
//! document is replaced only by who knows what he replaces, or by a newer one (see `script`).
//!
//! Each host keeps copies (see `copy`). One that is newer than what Redis has, or is alone, is the document: it was lost
//! there with a crash, a failover or a FLUSHALL, and whoever publishes puts it back. That is no more than a mint would
//! find out on stable and work, where asking brings the same token; on classic it saves the token that asking would kill.
//! A copy cannot outlive what it is a copy of: a token that was replaced before its time stays in Redis, with its
//! shortened life, for as long as a copy with the old one could be taken for good.

mod copy;
mod follower;
mod link;
mod lock;
mod script;
mod server;

use std::cell::RefCell;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use time::UtcDateTime;

use super::{Found, Prepared, Store, Turn, Watch};
use crate::clock::{Clock, SystemClock};
use crate::place::{AlsoFormat, Shared};
use crate::report::{debug, error};
use crate::token::{Document, Kind, MAX_DOCUMENT};

use copy::Copy;
use follower::{Followed, Follower, Slot};
use lock::{RedisLock, holder};
use script::{Publication, Published};
use server::{Fault, Server};

pub(in crate::store) use follower::await_first_look;

/// A new token cost a mint: where Redis does not answer it is tried to publish it as long as there is time, and so long
/// in any case.
const PUBLISH_PATIENCE: Duration = Duration::from_secs(3);

/// How long one waits between those tries.
const PUBLISH_AGAIN: Duration = Duration::from_millis(200);

/// How long a replica may take until it has what was published.
const REPLICA_PATIENCE: Duration = Duration::from_millis(500);

/// A document in Redis.
#[derive(Clone)]
pub(super) struct RedisStore {
    server: Arc<Server>,
    kind: Kind,
    key: String,
    lock: String,
    channel: String,
    copy: Copy,
    mode: u32,
    also: Vec<(String, AlsoFormat)>,
    url: String,
    /// As soon as somebody wants to look without waiting; followed for as long as this lives.
    followed: OnceLock<(Arc<Follower>, Arc<Slot>)>,
}

impl RedisStore {
    /// The store of the document of this kind; a copy that is made gets `mode`.
    pub(super) fn new(
        shared: &Shared,
        kind: &Kind,
        path: &std::path::Path,
        mode: u32,
    ) -> RedisStore {
        let key = shared.key(kind);
        RedisStore {
            server: Server::of(&shared.redis),
            kind: kind.clone(),
            lock: format!("{key}:lock"),
            channel: format!("{}:published", shared.redis.prefix),
            copy: Copy::new(path, kind, shared.appid.as_deref()),
            mode,
            also: shared.also(kind),
            url: shared.redis.url.to_string(),
            followed: OnceLock::new(),
            key,
        }
    }

    /// What is published, for those who only read: this host's copy, where Redis is down or has lost it.
    pub(super) fn read_or_copy(&self) -> Result<Found> {
        let now = SystemClock.now();
        match self.get() {
            Ok(there) => {
                let (found, is_published) = self.pick(there.document, now);
                if let (Some(document), true) = (&found, is_published) {
                    self.copy.keep(document);
                }
                Ok(match (found, there.damage) {
                    (Some(document), _) => Found::Document(document),
                    (None, Some(damage)) => Found::Damaged(damage),
                    (None, None) => Found::Nothing,
                })
            }
            Err(fault) => match self.copy.read().filter(|copy| !copy.left(now).is_zero()) {
                Some(document) => {
                    debug!("{}: {fault:#}; the copy of this host is good", self.key);
                    Ok(Found::Document(document))
                }
                None => Err(fault),
            },
        }
    }

    /// Which document counts, of what is in Redis and this host's copy; and whether it is the one in Redis.
    fn pick(&self, there: Option<Document>, now: UtcDateTime) -> (Option<Document>, bool) {
        pick(there, self.copy.read(), now)
    }

    /// What is in Redis.
    fn get(&self) -> Result<There> {
        let got: Option<Vec<u8>> = self
            .server
            .run(|connection| redis::cmd("GET").arg(&self.key).query(connection))
            .map_err(|fault| self.explain(&fault))?;
        Ok(self.parse(got))
    }

    fn parse(&self, got: Option<Vec<u8>>) -> There {
        There::parse(&self.kind, &self.key, &self.url, got)
    }

    fn explain(&self, fault: &Fault) -> anyhow::Error {
        explain(&self.url, fault)
    }

    /// Puts back the copy, if Redis has lost it.
    fn restore(&self, there: There) -> Result<There> {
        let now = SystemClock.now();
        let (found, is_published) = self.pick(there.document.clone(), now);
        let Some(copy) = found.filter(|_| !is_published) else { return Ok(there) };
        debug!("{}: Redis has lost token {}; it is put back", self.key, copy.token.fingerprint());
        let life = copy.left(now);
        self.publish(&copy, &there.bytes, life, None)?;
        self.get() // Or what somebody else has published meanwhile.
    }

    /// Publishes this, if `before` is there still; see [`Publication`].
    fn publish(
        &self,
        document: &Document,
        before: &[u8],
        life: Duration,
        owner: Option<&str>,
    ) -> Result<bool> {
        let line = document.to_line(&self.kind);
        let also_life = document.left(SystemClock.now());
        let also = self.also.iter().map(|(key, format)| (key.clone(), written(document, *format)));
        let also: Vec<_> = also.collect();
        let publication = Publication {
            lock: &self.lock,
            key: &self.key,
            document: line.expose().trim_end(),
            life,
            before,
            owner,
            channel: &self.channel,
            also: &also,
            also_life,
        };
        let published = self.server.run(|connection| {
            let published = script::publish(connection, &publication)?;
            if !matches!(published, Published::Refused) {
                script::replicate(connection, REPLICA_PATIENCE);
            }
            Ok(published)
        });
        match published.map_err(|fault| self.explain(&fault))? {
            Published::Refused => return Ok(false),
            Published::Done => {}
            Published::Without(n) => {
                let key = also.get(n).map_or("another key", |(key, _)| key);
                error!(
                    "{}: {key} of [redis] also cannot be written: see the ACL of its user",
                    self.key
                );
            }
        }
        self.seen(document);
        Ok(true)
    }

    /// Those who watch in this process need not wait until they hear of it.
    fn seen(&self, document: &Document) {
        if let Some(follower) = Follower::there_is(&self.server) {
            follower.note(&self.key, document);
        }
    }
}

/// What stands at a key.
pub(super) struct There {
    /// As it stands, be it text or not; empty, where there is nothing.
    bytes: Vec<u8>,
    document: Option<Document>,
    damage: Option<String>,
}

impl There {
    fn parse(kind: &Kind, key: &str, url: &str, got: Option<Vec<u8>>) -> There {
        let Some(bytes) = got else {
            return There { bytes: Vec::new(), document: None, damage: None };
        };
        let parsed = match bytes.len() {
            len if len > MAX_DOCUMENT => Err("it is too long".to_owned()),
            _ => Document::parse(kind, &bytes).map_err(|damage| damage.to_string()),
        };
        let damaged =
            |what| format!("{key} at {url} is no document: {what}; wxtoken fetch replaces it");
        match parsed {
            Ok(document) => There { bytes, document: Some(document), damage: None },
            Err(what) => There { bytes, document: None, damage: Some(damaged(what)) },
        }
    }
}

fn explain(url: &str, fault: &Fault) -> anyhow::Error {
    match fault.is_unreachable {
        true => anyhow!("cannot reach {url}: {fault}"),
        false => anyhow!("{url}: {fault}"),
    }
}

/// Which document counts, of what is in Redis and what was kept of it; and whether it is the one in Redis.
fn pick(
    there: Option<Document>,
    kept: Option<Document>,
    now: UtcDateTime,
) -> (Option<Document>, bool) {
    let is_newer = |kept: &Document| {
        there.as_ref().is_none_or(|there| {
            kept.appid == there.appid
                && kept.created_at > there.created_at
                && !kept.is_from_the_future(now)
        })
    };
    match kept.filter(|kept| is_newer(kept) && !kept.left(now).is_zero()) {
        Some(kept) => (Some(kept), false),
        None => (there, true),
    }
}

/// What an SDK finds.
fn written(document: &Document, format: AlsoFormat) -> String {
    let token = document.token.expose();
    match format {
        AlsoFormat::Text => token.to_owned(),
        AlsoFormat::JsonString => serde_json::Value::from(token).to_string(),
    }
}

impl Store for RedisStore {
    fn read(&self) -> Result<Found> {
        let not_asked = || "WeChat was not asked, as a token could not be published";
        let there = self.get().and_then(|there| self.restore(there)).with_context(not_asked)?;
        if let Some(document) = &there.document {
            self.copy.keep(document);
        }
        Ok(there.into())
    }

    fn turn(&self, clock: &dyn Clock, deadline: Instant) -> Result<Option<Box<dyn Turn>>> {
        let lock = RedisLock::acquire(&self.server, &self.lock, clock, deadline)
            .map_err(|fault| self.explain(&fault))?;
        Ok(lock.map(|lock| {
            let store = self.clone();
            Box::new(RedisTurn { store, lock, deadline, before: RefCell::default() })
                as Box<dyn Turn>
        }))
    }

    fn settle(&self) -> Result<()> {
        Ok(self.copy.settle(self.mode)?)
    }

    fn glance(&self) -> Option<Document> {
        let (_, slot) = self.followed.get_or_init(|| self.follow());
        slot.is_published_or_unknown().then(|| slot.document()).flatten()
    }
}

impl RedisStore {
    /// All keys that are written.
    fn keys(&self) -> Vec<String> {
        let also = self.also.iter().map(|(key, _)| key);
        [&self.lock, &self.key].into_iter().chain(also).cloned().collect()
    }

    fn follow(&self) -> (Arc<Follower>, Arc<Slot>) {
        let follower = Follower::of(&self.server);
        let slot = follower.slot(&self.key, &self.kind, &self.copy);
        (follower, slot)
    }

    /// The same for those who look again and again.
    pub(super) fn watch(&self) -> Box<dyn Watch> {
        let (follower, slot) = self.follow();
        Box::new(Followed::new(follower, slot))
    }

    /// Tries whether it can be written.
    pub(super) fn try_out(&self) -> Result<()> {
        self.server
            .run(|connection| script::try_out(connection, &self.keys()))
            .map_err(|fault| self.explain(&fault))
    }

    /// Who has the turn.
    pub(super) fn holder(&self) -> Result<Option<String>> {
        holder(&self.server, &self.lock).map_err(|fault| self.explain(&fault))
    }
}

impl From<There> for Found {
    fn from(there: There) -> Found {
        match (there.document, there.damage) {
            (Some(document), _) => Found::Document(document),
            (None, Some(damage)) => Found::Damaged(damage),
            (None, None) => Found::Nothing,
        }
    }
}

struct RedisTurn {
    store: RedisStore,
    lock: RedisLock,
    deadline: Instant,
    /// What was found at the last look.
    before: RefCell<Vec<u8>>,
}

impl Turn for RedisTurn {
    fn read(&self) -> Result<Found> {
        let there = self.store.get().and_then(|there| self.store.restore(there))?;
        if let Some(document) = &there.document {
            self.store.copy.keep(document);
        }
        self.before.replace(there.bytes.clone());
        Ok(there.into())
    }

    fn prepare(self: Box<Self>) -> Result<Box<dyn Prepared>> {
        let RedisTurn { store, lock, deadline, before } = *self;
        let is_ours = lock.extend(&store.keys()[1..]).map_err(|fault| store.explain(&fault))?;
        if !is_ours {
            bail!(lost(&store.lock));
        }
        let before = before.into_inner();
        let life = Document::parse(&store.kind, &before)
            .map_or(Duration::ZERO, |document| document.left(SystemClock.now()));
        let copies_end_at = Instant::now() + life;
        let before = RefCell::new(before);
        Ok(Box::new(PreparedKey { store, lock, deadline, before, copies_end_at }))
    }
}

fn lost(lock: &str) -> String {
    format!(
        "the lock {lock} was lost to another host: this process was paused, or Redis failed over; try again"
    )
}

struct PreparedKey {
    store: RedisStore,
    lock: RedisLock,
    deadline: Instant,
    /// What stands there, by our hand or as we found it.
    before: RefCell<Vec<u8>>,
    /// Until then copies of what was found can be taken for good.
    copies_end_at: Instant,
}

impl PreparedKey {
    /// How long the key is to stand.
    fn life(&self, document: &Document) -> Duration {
        let of_copies = self.copies_end_at.saturating_duration_since(Instant::now());
        document.left(SystemClock.now()).max(of_copies)
    }

    fn bytes(&self, document: &Document) -> Vec<u8> {
        document.to_line(&self.store.kind).expose().trim_end().into()
    }

    /// Whether this is the document that stood there before it was cut.
    fn is_put_back(&self, document: &Document) -> bool {
        let before = Document::parse(&self.store.kind, &self.before.borrow());
        before.is_ok_and(|before| !document.is_news_since(&before))
    }

    /// The document, made newer than the one it replaces: another host's clock may have been a little ahead. It ends when
    /// it ended. Of one from the future nothing would be left behind: that is no document to be newer than.
    fn after_the_last(&self, document: &Document) -> Document {
        let before = Document::parse(&self.store.kind, &self.before.borrow());
        match before {
            Ok(before)
                if before.token != document.token
                    && !before.is_from_the_future(SystemClock.now()) =>
            {
                document.moved_after(before.created_at)
            }
            _ => document.clone(),
        }
    }
}

impl Prepared for PreparedKey {
    fn check(&self) -> Result<()> {
        match self.lock.extend(&[]).map_err(|fault| self.store.explain(&fault))? {
            true => Ok(()),
            false => bail!(lost(&self.store.lock)),
        }
    }

    fn publish_for_now(&self, document: &Document) -> Result<()> {
        let before = self.before.borrow().clone();
        let owner = Some(self.lock.owner());
        if !self.store.publish(document, &before, self.life(document), owner)? {
            bail!(lost(&self.store.lock));
        }
        self.before.replace(self.bytes(document));
        self.store.copy.keep(document);
        Ok(())
    }

    fn publish(self: Box<Self>, document: &Document) -> Result<()> {
        let document = self.after_the_last(document);
        // First: whatever becomes of Redis, the token is not lost.
        self.store.copy.keep(&document);
        let until = self.deadline.max(Instant::now() + PUBLISH_PATIENCE);
        let before = self.before.borrow().clone();
        let is_put_back = self.is_put_back(&document);
        loop {
            match self.store.publish(&document, &before, self.life(&document), None) {
                Ok(true) => return Ok(()),
                Ok(false) => bail!(
                    "another host has published a newer document at {} meanwhile, and this one is given up: this process \
                     was paused, or Redis failed over",
                    self.store.key
                ),
                Err(err) if is_put_back => return Err(err),
                Err(err) if Instant::now() >= until => {
                    let copy = self.store.copy.path().display();
                    return Err(err.context(format!(
                        "the token is in {copy} only, and is published by the next run that reaches Redis"
                    )));
                }
                Err(err) => {
                    debug!("{}: {err:#}; trying again", self.store.key);
                    thread::sleep(PUBLISH_AGAIN);
                }
            }
        }
    }
}
