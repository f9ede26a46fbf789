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

mod local_copy;
mod follower;
mod link;
mod lock;
mod scripts;
mod server;

use std::cell::RefCell;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use time::UtcDateTime;

use crate::log::{debug, error};
use crate::model::document::{Document, MAX_DOCUMENT};
use crate::model::kind::DocumentKind;
use crate::model::location::{AlsoFormat, Shared};
use crate::os::clock::{Clock, SystemClock};
use crate::store::{Found, Prepared, Store, Turn, Watch};

use follower::{Followed, Follower, Slot};
use local_copy::LocalCopy;
use lock::{RedisLock, holder};
use scripts::{Publication, Published};
use server::{Fault, Server};

pub(in crate::store) use follower::await_first_look;

/// A new token cost a mint: where Redis does not answer it is tried to publish it as long as there is time, and so long
/// in any case.
const PUBLISH_PATIENCE: Duration = Duration::from_secs(3);

/// How long one waits between those tries.
const PUBLISH_AGAIN: Duration = Duration::from_millis(200);

/// A document in Redis.
#[derive(Clone)]
pub(super) struct RedisStore {
    server: Arc<Server>,
    kind: DocumentKind,
    key: String,
    lock: String,
    copy: LocalCopy,
    mode: Option<u32>,
    also: Vec<(String, AlsoFormat)>,
    url: String,
    /// As soon as somebody wants to look without waiting; followed for as long as this lives.
    followed: OnceLock<(Arc<Follower>, Arc<Slot>)>,
}

impl RedisStore {
    /// The store of the document of this kind, whose copy is at `path`; with `mode`, for those who publish.
    pub(super) fn new(
        shared: &Shared,
        kind: &DocumentKind,
        path: &Path,
        mode: Option<u32>,
    ) -> RedisStore {
        let key = shared.key(kind);
        RedisStore {
            server: Server::of(&shared.redis),
            kind: kind.clone(),
            lock: format!("{key}:lock"),
            copy: LocalCopy::new(path, kind, shared.appid.as_deref()),
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
                let (document, is_published) = pick(there.document, self.copy.read(), now);
                if let (Some(document), true) = (&document, is_published) {
                    self.keep(document);
                }
                Ok(There { document, ..there }.into())
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

    /// What is in Redis.
    fn get(&self) -> Result<There> {
        let got: Option<Vec<u8>> = self
            .server
            .run(|connection| redis::cmd("GET").arg(&self.key).query(connection))
            .map_err(|fault| self.explain(&fault))?;
        Ok(There::parse(&self.kind, &self.key, &self.url, got))
    }

    /// The same for those who publish: the copy is put back, if Redis has lost it, and kept, if it has another.
    fn get_or_restore(&self) -> Result<There> {
        let there = self.restore(self.get()?)?;
        if let Some(document) = &there.document {
            self.keep(document);
        }
        Ok(there)
    }

    fn keep(&self, document: &Document) {
        self.copy.keep(document, self.mode);
    }

    /// What stands under the other keys while this is published.
    fn also(&self, document: &Document) -> Vec<(String, String)> {
        let also = self.also.iter();
        also.map(|(key, format)| (key.clone(), written(document, *format))).collect()
    }

    /// The document as it stands in Redis.
    fn bytes(&self, document: &Document) -> Vec<u8> {
        document.to_line(&self.kind).expose().trim_end().into()
    }

    fn explain(&self, fault: &Fault) -> anyhow::Error {
        explain(&self.url, fault)
    }

    /// Puts back the copy, if Redis has lost it.
    fn restore(&self, there: There) -> Result<There> {
        let now = SystemClock.now();
        let (found, is_published) = pick(there.document.clone(), self.copy.read(), now);
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
        let bytes = self.bytes(document);
        let also_life = document.left(SystemClock.now());
        let also = self.also(document);
        let publication = Publication {
            lock: &self.lock,
            key: &self.key,
            document: &bytes,
            life,
            before,
            owner,
            channel: &self.server.redis.channel(),
            also: &also,
            also_life,
        };
        let published = self.server.run(|connection| {
            let published = scripts::publish(connection, &publication)?;
            if !matches!(published, Published::Refused) {
                scripts::replicate(connection, self.server.replica_patience());
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
        // Those who watch in this process need not wait until they hear of it.
        if let Some(follower) = Follower::there_is(&self.server) {
            follower.note(&self.key, document);
        }
        Ok(true)
    }
}

/// What stands at a key.
#[derive(Clone, Default)]
pub(super) struct There {
    /// As it stands, be it text or not; empty, where there is nothing.
    bytes: Vec<u8>,
    document: Option<Document>,
    damage: Option<String>,
}

impl There {
    fn parse(kind: &DocumentKind, key: &str, url: &str, got: Option<Vec<u8>>) -> There {
        let Some(bytes) = got else { return There::default() };
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
                && !kept.is_from_future(now)
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
        Ok(self.get_or_restore().with_context(not_asked)?.into())
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
        let settled = self.mode.map_or(Ok(()), |mode| self.copy.settle(mode));
        self.mend()?;
        Ok(settled?)
    }

    fn has_others(&self) -> bool {
        !self.also.is_empty()
    }

    /// An SDK deletes its key when WeChat rejects the token, and one that the config has now may not be there yet.
    fn mend(&self) -> Result<()> {
        if !self.has_others() {
            return Ok(());
        }
        let (there, now) = (self.get()?, SystemClock.now());
        let is_good = |it: &Document| self.copy.is_ours(it) && !it.left(now).is_zero();
        let Some(document) = there.document.filter(is_good) else { return Ok(()) };
        let (also, life) = (self.also(&document), document.left(now));
        self.server
            .run(|connection| scripts::mend(connection, &self.key, &there.bytes, &also, life))
            .map_err(|fault| self.explain(&fault))
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
            .run(|connection| scripts::try_out(connection, &self.keys()))
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
    before: RefCell<There>,
}

impl Turn for RedisTurn {
    fn read(&self) -> Result<Found> {
        let there = self.store.get_or_restore()?;
        self.before.replace(there.clone());
        Ok(there.into())
    }

    fn prepare(self: Box<Self>) -> Result<Box<dyn Prepared>> {
        let RedisTurn { store, lock, deadline, before } = *self;
        let is_ours = lock.extend(&store.keys()[1..]).map_err(|fault| store.explain(&fault))?;
        if !is_ours {
            bail!(lost(&store.lock));
        }
        let There { bytes, document: found, .. } = before.into_inner();
        let life = found.as_ref().map_or(Duration::ZERO, |it| it.left(SystemClock.now()));
        let copies_end_at = Instant::now() + life;
        let before = RefCell::new(bytes);
        Ok(Box::new(PreparedKey { store, lock, deadline, before, found, copies_end_at }))
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
    /// What was found.
    found: Option<Document>,
    /// Until then copies of what was found can be taken for good.
    copies_end_at: Instant,
}

impl PreparedKey {
    /// How long the key is to stand.
    fn life(&self, document: &Document) -> Duration {
        let of_copies = self.copies_end_at.saturating_duration_since(Instant::now());
        document.left(SystemClock.now()).max(of_copies)
    }

    /// The document as it is to stand there: older by none than what was found, and newer where it is another one. The
    /// clock of the host that made that may have been a little ahead, and copies of it must not be taken for news. Of one
    /// from the future they are not, and of what is moved as far nothing would be left.
    fn after_the_found(&self, document: &Document, by: time::Duration) -> Document {
        match &self.found {
            Some(found) if found != document && !found.is_from_future(SystemClock.now()) => {
                document.with_created_at_least(found.created_at.saturating_add(by))
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
        let document = &self.after_the_found(document, time::Duration::ZERO);
        let owner = Some(self.lock.owner());
        let life = self.life(document);
        if !self.store.publish(document, &self.before.borrow(), life, owner)? {
            bail!(lost(&self.store.lock));
        }
        self.before.replace(self.store.bytes(document));
        self.store.keep(document);
        Ok(())
    }

    fn publish(self: Box<Self>, document: &Document) -> Result<()> {
        let is_put_back = self.found.as_ref() == Some(document);
        let document = self.after_the_found(document, time::Duration::SECOND);
        // First: whatever becomes of Redis, the token is not lost.
        self.store.keep(&document);
        let until = self.deadline.max(Instant::now() + PUBLISH_PATIENCE);
        let before = self.before.borrow();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::secret::Secret;

    fn document(token: &str, created: i64) -> Document {
        let at = UtcDateTime::UNIX_EPOCH + time::Duration::seconds(created);
        let life = Duration::from_secs(7200);
        Document::new("wx1", Secret::new(token.to_owned()), life, at)
    }

    fn picked(there: Option<Document>, kept: Option<Document>, now: i64) -> (String, bool) {
        let now = UtcDateTime::UNIX_EPOCH + time::Duration::seconds(now);
        let (found, is_published) = pick(there, kept, now);
        (found.map_or(String::new(), |it| it.token.expose().to_owned()), is_published)
    }

    #[test]
    fn what_was_kept_counts_where_it_is_newer_than_what_is_there_and_lives() {
        let [old, new] = [document("OLD", 0), document("NEW", 1000)];
        let some = |it: &Document| Some(it.clone());
        assert_eq!(picked(some(&new), some(&old), 1001), ("NEW".to_owned(), true));
        assert_eq!(picked(some(&old), some(&new), 1001), ("NEW".to_owned(), false));
        assert_eq!(picked(None, some(&new), 1001), ("NEW".to_owned(), false));
        assert_eq!(picked(None, some(&new), 8200), (String::new(), true), "it has ended");
        assert_eq!(picked(some(&old), some(&new), 8200), ("OLD".to_owned(), true));
        // One that was cut is as new as it was whole.
        let cut = Document { expires_in: Duration::from_secs(300), ..new.clone() };
        let (found, _) = pick(some(&cut), some(&new), new.created_at);
        assert_eq!(found, Some(cut));
        // Another account's is nobody's affair.
        let foreign = Document { appid: "wx2".to_owned(), ..new };
        assert_eq!(picked(some(&old), some(&foreign), 1001), ("OLD".to_owned(), true));
    }

    #[test]
    fn what_is_no_document_is_told_by_its_place_and_never_shown() {
        let there = |bytes: &[u8]| {
            There::parse(
                &DocumentKind::Token,
                "wxtoken:shop",
                "redis://cache",
                Some(bytes.to_owned()),
            )
        };
        let line = document("T1", 0).to_line(&DocumentKind::Token);
        assert_eq!(there(line.expose().as_bytes()).document, Some(document("T1", 0)));
        let padded = format!("{}{}", line.expose(), " ".repeat(MAX_DOCUMENT));
        for (bytes, why) in
            [(padded.as_bytes(), "too long"), (b"T1", "not JSON"), (b"\xff", "JSON")]
        {
            let There { bytes: kept, document, damage } = there(bytes);
            let damage = damage.unwrap();
            assert!(document.is_none() && kept == bytes, "it is what is replaced");
            assert!(damage.starts_with("wxtoken:shop at redis://cache is no document"), "{damage}");
            assert!(damage.contains(why) && !damage.contains("T1"), "{damage}");
        }
    }
}
