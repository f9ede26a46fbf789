//! A lock in Redis, as a value: held while the value lives, released only by its owner, and extended in
//! between. It can be lost without notice; `scripts::publish` has the fence for that.

use std::cell::Cell;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::connection::{RedisConnection, RedisResult};
use super::fault::RedisFault;
use super::scripts::{self, LostArgs};
use super::server::{DOWN_FOR, RedisServer};
use crate::log::{self, debug};
use crate::message::span;
use crate::os::clock::{Clock, Repetition, with_jitter};
use crate::os::thread::lock;
use crate::os::timestamp::Timestamp;
use crate::sabotage::{Bug, has_bug};

/// How long a lock lasts without an extension: longer than a refresh takes, so that it holds even if Redis cannot be
/// reached meanwhile. After its holder was killed, others wait this long.
pub(super) const LIFE: Duration = Duration::from_secs(35);

/// How often a held lock is extended.
const BETWEEN_EXTENSIONS: Duration = Duration::from_secs(5);

/// The pause before a held lock is tried again, to which up to as much is added at random. Short against the second or so
/// that a refresh takes.
const RETRY: Duration = Duration::from_millis(40);

/// Released when it is dropped, or when its time is over.
pub(super) struct RedisLock {
    server: Arc<RedisServer>,
    key: String,
    owner: String,
    hold: Arc<Hold>,
    /// Extends the lock until it is dropped.
    _extender: Option<Repetition>,
}

/// Until when a lock is held, as far as this process knows.
struct Hold(Mutex<HoldState>);

#[derive(Clone, Copy)]
struct HoldState {
    /// Before it was asked for the last time that it was held: it lasts [`LIFE`] from some later instant.
    asked_at: Timestamp,
    is_lost: bool,
}

impl Hold {
    fn new(asked_at: Timestamp) -> Arc<Hold> {
        Arc::new(Hold(Mutex::new(HoldState { asked_at, is_lost: false })))
    }

    fn state(&self) -> HoldState {
        *lock(&self.0)
    }

    /// Notes what Redis answered to the question of `asked_at`. A lock that was lost is not held again.
    fn note(&self, asked_at: Timestamp, is_held: bool) {
        let mut state = lock(&self.0);
        match is_held && !state.is_lost {
            true if asked_at.is_after(state.asked_at) => state.asked_at = asked_at,
            true => {}
            false => state.is_lost = true,
        }
    }
}

impl RedisLock {
    /// Waits for the lock at `key`. Returns `None` if another owner held it until `deadline`.
    pub(super) fn acquire(
        server: &Arc<RedisServer>,
        key: &str,
        clock: &dyn Clock,
        deadline: Instant,
    ) -> Result<Option<RedisLock>, RedisFault> {
        let owner = new_owner(clock);
        let mut waiting = None;
        loop {
            let is_asked = Cell::new(false);
            let asked_at = clock.now();
            let taken = server.run(|connection| {
                is_asked.set(true);
                scripts::take_lock(connection, key, &owner, LIFE)
            });
            let lock = |owner: String, hold, extender| {
                let (server, key) = (server.clone(), key.to_owned());
                RedisLock { server, key, owner, hold, _extender: extender }
            };
            match taken {
                Ok(false) => {}
                Ok(true) => {
                    let hold = Hold::new(asked_at);
                    let extender = start_extender(server, key, &owner, &hold);
                    return Ok(Some(lock(owner, hold, extender)));
                }
                Err(fault) => {
                    // The answer may be lost, and the lock taken. Until then this process would not try to reach Redis.
                    if is_asked.get() && fault.is_unreachable {
                        clock.sleep(DOWN_FOR);
                        drop(lock(owner, Hold::new(asked_at), None));
                    }
                    return Err(fault);
                }
            }
            if clock.until(deadline).is_zero() {
                return Ok(None);
            }
            waiting.get_or_insert_with(|| {
                log::waiting_for(|| {
                    [format!("the lock {key} in Redis"), format!(" Redis 中的锁 {key}")]
                })
            });
            let pause = with_jitter(RETRY, 1.0, clock.random());
            clock.sleep(pause.min(clock.until(deadline)));
        }
    }

    /// Returns the name of its owner.
    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    /// Returns how long it lasts without an extension, unless Redis loses it. Counts the time in which this process was
    /// stopped, and this machine suspended.
    pub(super) fn left(&self) -> Duration {
        let HoldState { asked_at, is_lost } = self.hold.state();
        let age = self.server.clock.now().since(asked_at).try_into().unwrap_or_default();
        if is_lost { Duration::ZERO } else { LIFE.saturating_sub(age) }
    }

    /// Returns the last instant at which it is known to have been held.
    pub(super) fn held_at(&self) -> Timestamp {
        self.hold.state().asked_at
    }

    /// Extends the lock, and tries whether these keys can be written. Returns whether the lock was still held.
    pub(super) fn extend(&self, keys: &[&str]) -> Result<bool, RedisFault> {
        self.hold_on(|connection| {
            scripts::extend_lock(connection, &self.key, &self.owner, LIFE, keys)
        })
    }

    /// Extends the lock, and leaves the requests at their key. Returns whether the lock was still held.
    pub(super) fn note_lost(
        &self,
        lost: &LostArgs<'_>,
        memory: Duration,
    ) -> Result<bool, RedisFault> {
        self.hold_on(|connection| {
            scripts::note_lost(connection, &self.key, &self.owner, LIFE, lost, memory)
        })
    }

    /// Extends the lock by what `extend` does. Returns whether it was still held.
    fn hold_on(
        &self,
        extend: impl Fn(&mut RedisConnection) -> RedisResult<bool>,
    ) -> Result<bool, RedisFault> {
        let asked_at = self.server.clock.now();
        if has_bug(Bug::LockNotExtended) {
            self.hold.note(asked_at, true);
            return Ok(true);
        }
        let is_held = self.server.run(|connection| {
            let is_held = extend(connection)?;
            // A replica that does not know of it must not give it to another owner after a failover.
            scripts::await_replica(connection, self.server.replica_patience());
            Ok(is_held)
        })?;
        self.hold.note(asked_at, is_held);
        Ok(is_held)
    }
}

impl Drop for RedisLock {
    fn drop(&mut self) {
        let released =
            self.server.run(|connection| scripts::release_lock(connection, &self.key, &self.owner));
        if let Err(fault) = released {
            debug!("the lock {} ends by itself within {}: {fault}", self.key, span(LIFE));
        }
    }
}

/// Starts what extends a lock while the returned value lives. Without a thread the lock ends sooner.
fn start_extender(
    server: &Arc<RedisServer>,
    key: &str,
    owner: &str,
    hold: &Arc<Hold>,
) -> Option<Repetition> {
    let (extended, key, owner) = (server.clone(), key.to_owned(), owner.to_owned());
    let hold = Arc::clone(hold);
    let extend = move || {
        if has_bug(Bug::LockNotExtended) {
            return true;
        }
        let asked_at = extended.clock.now();
        let extended =
            extended.run(|connection| scripts::extend_lock(connection, &key, &owner, LIFE, &[]));
        match extended {
            Ok(is_held) => {
                hold.note(asked_at, is_held);
                is_held // Once it is lost, publishing fails for it.
            }
            Err(fault) => {
                debug!("the lock {key} cannot be extended now: {fault}");
                true
            }
        }
    };
    server.clock.repeat(BETWEEN_EXTENSIONS, Box::new(extend))
}

/// Returns who holds the lock at `key`, in words for a message: `None` if it is free, `Some(None)` if it does not say who.
pub(super) fn holder(
    server: &RedisServer,
    key: &str,
) -> Result<Option<Option<String>>, RedisFault> {
    let found = server.run(|connection| scripts::read_one(connection, key))?;
    Ok((!found.is_empty()).then(|| {
        let owner = String::from_utf8_lossy(&found);
        let (of_host, _) = owner.rsplit_once('/')?;
        let shown = of_host.chars().filter(|c| c.is_ascii_graphic() || *c == ' ');
        Some(shown.take(100).collect())
    }))
}

/// Returns a name for one holder: process and host, for messages, and a random number that makes it unique.
fn new_owner(clock: &dyn Clock) -> String {
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy();
    let (high, low) = (clock.random(), clock.random());
    format!("process {} on {host}/{high:016x}{low:016x}", std::process::id())
}
