//! The lease on a document in Redis, and the publishing under it. The lock can be lost without notice, so that each step
//! states what it expects Redis to have; and a new token is kept in the copy of this host before Redis gets it.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use time::UtcDateTime;

use super::fault::RedisFault;
use super::lock::RedisLock;
use super::messages;
use super::scripts::{self, LostArgs};
use super::value::StoredValue;
use super::{REMEMBERED, RedisStore};
use crate::language::in_both;
use crate::log::{debug, error, verb};
use crate::message::action_first;
use crate::model::api::Rules;
use crate::model::document::Document;
use crate::os::clock::Clock;
use crate::os::thread::lock;
use crate::os::timestamp::MAX_CLOCK_SKEW;
use crate::sabotage::{Bug, has_bug};
use crate::store::patience::{PublishError, publish_patiently};
use crate::store::{Found, Lease, LostRequests, Publisher};

/// The lease: the lock, and what was found under it.
pub(super) struct RedisLease {
    store: RedisStore,
    lock: RedisLock,
    deadline: Instant,
    /// What Redis had when it was read last.
    found: RefCell<StoredValue>,
}

impl RedisLease {
    /// Waits for the lock of `store`. Returns `None` if another owner held it until `deadline`.
    pub(super) fn acquire(
        store: &RedisStore,
        clock: &dyn Clock,
        deadline: Instant,
    ) -> Result<Option<RedisLease>> {
        let server = store.server();
        let lock = RedisLock::acquire(server, &store.lock, clock, deadline)
            .map_err(|fault| server.error(&fault))?;
        let found = RefCell::default();
        let store = RedisStore { warned_of: Arc::default(), ..store.clone() };
        Ok(lock.map(|lock| RedisLease { store, lock, deadline, found }))
    }
}

impl Lease for RedisLease {
    fn read(&self) -> Result<Found> {
        let (found, last) = self.store.get_or_restore()?;
        // What has ended counts as with files, where it stays: it may be issued again.
        let found = StoredValue { document: found.document.or(last), ..found };
        self.found.replace(found.clone());
        Ok(found.into())
    }

    fn lost(&self) -> Result<Option<LostRequests>> {
        if has_bug(Bug::LostRequestsNotShared) {
            return Ok(None);
        }
        let RedisStore { lost_key, .. } = &self.store;
        let found = self.store.run(|connection| scripts::read_one(connection, lost_key))?;
        let lost = LostRequests::parse(&found, self.store.clock().now().wall);
        if lost.is_none() {
            debug!("{lost_key}: nothing is known of lost answers: it is no list of times");
        }
        Ok(Some(lost.unwrap_or_default()))
    }

    fn prepare(self: Box<Self>) -> Result<Box<dyn Publisher>> {
        let RedisLease { store, lock, deadline, found } = *self;
        extend(&store, &lock, &[&store.key, &store.last_key, &store.lost_key])?;
        let StoredValue { bytes, document: found, .. } = found.into_inner();
        let life = found.as_ref().map_or(Duration::ZERO, |it| it.left(store.clock().now()));
        let copies_end_at = store.clock().instant() + life;
        let (expected, interim) = (RefCell::new(bytes), RefCell::default());
        let publisher =
            RedisPublisher { store, lock, deadline, expected, interim, found, copies_end_at };
        Ok(Box::new(publisher))
    }
}

/// Extends the lock, and tries whether `keys` can be written. Fails if the lock was lost.
fn extend(store: &RedisStore, lock: &RedisLock, keys: &[&str]) -> Result<()> {
    expect_held(store, lock.extend(keys))
}

fn expect_held(store: &RedisStore, extended: Result<bool, RedisFault>) -> Result<()> {
    match extended.map_err(|fault| store.server().error(&fault))? {
        true => Ok(()),
        false => bail!(lock_lost(store)),
    }
}

fn lock_lost(store: &RedisStore) -> String {
    messages::LOCK_LOST.with([&store.lock])
}

impl RedisStore {
    /// Says which keys of `[redis] also` are not written, once for each under a lease.
    pub(super) fn warn_of_also_keys(&self, faults: Vec<anyhow::Error>) {
        let mut warned_of = lock(&self.warned_of);
        for said in faults.iter().map(|fault| action_first(&format!("{fault:#}"))) {
            if !warned_of.contains(&said) {
                let account = &self.account;
                error!(
                    event = "also_key_not_written", account = account;
                    "{}: {account}: {said}", verb()
                );
                warned_of.push(said);
            }
        }
    }
}

struct RedisPublisher {
    store: RedisStore,
    lock: RedisLock,
    deadline: Instant,
    /// What Redis has, by this process's hand or as it was found.
    expected: RefCell<Vec<u8>>,
    /// What was published last to be replaced. Redis may have it although its answer was lost.
    interim: RefCell<Vec<u8>>,
    /// The document that was found.
    found: Option<Document>,
    /// Until then a copy of the found document could be taken for good.
    copies_end_at: Instant,
}

impl RedisPublisher {
    /// Returns how long the key has to last.
    fn life(&self, document: &Document) -> Duration {
        let clock = self.store.clock();
        document.left(clock.now()).max(clock.until(self.copies_end_at))
    }

    /// Returns the document with the life that is certain. If the lock is no longer held, another process may have it, and on
    /// classic its request leaves this token the overlap.
    fn bounded_by_lease(&self, document: Document, rules: Rules) -> Document {
        match rules {
            Rules::Classic if self.lock.left().is_zero() => {
                document.replaceable_from(self.lock.held_at())
            }
            _ => document,
        }
    }

    /// Raises `created_at` so that a replacement is never older than what it replaces, and newer by `margin` if it is
    /// another document: the clock of the host that made that one may have been a little ahead, and its copies must not
    /// count as newer. A document from the future is exempt: its copies never count as newer, and a replacement moved as
    /// far would have no lifetime left.
    fn not_older_than_found(&self, document: &Document, margin: time::Duration) -> Document {
        let now = self.store.clock().now().wall;
        let is_from_future = |at: UtcDateTime| at - now > MAX_CLOCK_SKEW;
        match &self.found {
            Some(found) if found != document && !is_from_future(found.created_at.wall) => {
                document.with_created_at_least(found.created_at.wall.saturating_add(margin))
            }
            _ => document.clone(),
        }
    }
}

impl Publisher for RedisPublisher {
    fn check_lease(&self) -> Result<()> {
        extend(&self.store, &self.lock, &[])
    }

    fn note_lost(&self, lost: &LostRequests) -> Result<()> {
        let lost = LostArgs { key: &self.store.lost_key, requests: &lost.to_json() };
        let noted = self.lock.note_lost(&lost, REMEMBERED);
        expect_held(&self.store, noted.map(|is_held| is_held || has_bug(Bug::LockNotLookedAt)))
    }

    fn lease_left(&self) -> Duration {
        self.lock.left()
    }

    fn publish_interim(&self, document: &Document) -> Result<()> {
        let document = &self.not_older_than_found(document, time::Duration::ZERO);
        let owner = Some(self.lock.owner());
        let life = self.life(document);
        self.interim.replace(self.store.bytes(document));
        if !self.store.publish(document, &self.expected.borrow(), life, owner, None)? {
            bail!(lock_lost(&self.store));
        }
        self.expected.replace(self.store.bytes(document));
        self.store.keep_copy(document);
        Ok(())
    }

    fn restore(self: Box<Self>, document: &Document) -> Result<()> {
        let store = self.store.unhurried();
        // Another owner of the lock may have asked WeChat meanwhile.
        let owner = Some(self.lock.owner());
        let publish =
            |there: &[u8]| store.publish(document, there, self.life(document), owner, None);
        if !publish(&self.expected.borrow())? && !publish(&self.interim.borrow())? {
            bail!(lock_lost(&store));
        }
        store.keep_copy(document);
        Ok(())
    }

    fn publish(
        &mut self,
        document: &Document,
        rules: Rules,
        lost: Option<&LostRequests>,
    ) -> Result<()> {
        let clock = self.store.clock();
        let document = self.not_older_than_found(document, time::Duration::SECOND);
        // The token has cost a call.
        let store = self.store.unhurried();
        // First, so that the token is not lost, whatever happens to Redis.
        let document = self.bounded_by_lease(document, rules);
        self.store.keep_copy(&document);
        let expected = self.expected.borrow();
        let owner = Some(self.lock.owner());
        let publish = || -> Result<bool> {
            if store.publish(&document, &expected, self.life(&document), owner, lost)? {
                return Ok(true);
            }
            // The lock is lost, or there is another value.
            let _ = self.lock.extend(&[]);
            let bounded = self.bounded_by_lease(document.clone(), rules);
            if bounded != document {
                self.store.keep_copy(&bounded);
            }
            // What another holder has noted stays.
            let publish =
                |there: &[u8]| store.publish(&bounded, there, self.life(&bounded), None, None);
            // The copy is newer than what Redis has, so that another process of this host may put it back at once.
            let put_back = self.store.bytes(&document.clone().put_back());
            Ok(publish(&expected)? || publish(&put_back)?)
        };
        let attempt = || match publish() {
            Ok(true) => Ok(()),
            Ok(false) => {
                Err(PublishError::Final(anyhow!(messages::OVERTAKEN.with([&self.store.key]))))
            }
            Err(err) => {
                self.store.keep_copy(&document);
                let copy = self.store.copy.path().display();
                let consequence = match self.store.copy.read().as_ref() == Some(&document) {
                    true => in_both(
                        format!(
                            "the token is in {copy} only, and is published by the next run that reaches Redis"
                        ),
                        format!("token 仅在 {copy} 中，下次连上 Redis 时发布"),
                    ),
                    false => in_both(
                        format!("the token is lost, for {copy} cannot be written either"),
                        format!("{copy} 也无法写入，token 已丢失"),
                    ),
                };
                Err(PublishError::MayPass(err.context(consequence)))
            }
        };
        publish_patiently(clock, self.deadline, &self.store.key, attempt)
    }
}
