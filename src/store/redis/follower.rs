//! Follows keys of one Redis for readers that look again and again. One thread asks for all of them about once a second;
//! another subscribes to the channel and has them asked for at once. Readers find the last answer, and never wait.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::thread;
use std::time::Duration;

use super::fault::RedisFault;
use super::local_copy::LocalCopy;
use super::protocol::{RedisValue, command};
use super::scripts;
use super::server::RedisServer;
use super::value::{InForce, StoredValue};
use crate::language::in_both;
use crate::log::debug;
use crate::model::document::Document;
use crate::model::kind::DocumentKind;
use crate::os::clock::Clock;
use crate::os::thread::{explain, lock};
use crate::os::timestamp::Timestamp;
use crate::store::Watch;

/// The pause between two looks, if nothing is announced.
const BETWEEN_LOOKS: Duration = Duration::from_millis(900);

/// The pause between two looks in any case: clients can request one by asking for another document.
const LEAST_PAUSE: Duration = Duration::from_millis(20);

/// How often the subscribed connection is tried while nothing is announced.
const BETWEEN_PINGS: Duration = Duration::from_secs(3);

/// How long the subscriber waits for an announcement before it looks whether it is to end.
const LISTEN_STEP: Duration = Duration::from_millis(200);

/// How long the first look is waited for, beyond the time that Redis has to answer.
const FIRST_LOOK_SLACK: Duration = Duration::from_millis(200);

/// How long the threads are waited for when they are ended. One that waits for a Redis that hangs is left behind.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// One Redis and its followed keys. The threads start with the first key, and end when this is dropped or ended.
pub(super) struct RedisFollower {
    pub(super) server: Arc<RedisServer>,
    keys: Mutex<HashMap<String, Arc<FollowedKey>>>,
    progress: Mutex<Progress>,
    changed: Condvar,
    /// Whether both threads were started.
    is_started: AtomicBool,
}

#[derive(Default)]
struct Progress {
    /// How many looks were requested.
    requested: u64,
    /// How many of these requests a look has served.
    served: u64,
    /// How many threads run.
    threads: usize,
    /// Which of them were started.
    started: [bool; 2],
    is_ended: bool,
}

/// One document, as of the last look.
pub(super) struct FollowedKey {
    key: String,
    kind: DocumentKind,
    copy: LocalCopy,
    /// Counts the changes of `state`.
    version: AtomicU64,
    state: Mutex<KeyState>,
}

#[derive(Clone, Default)]
struct KeyState {
    document: Option<Document>,
    /// Whether Redis is known to have another document, an older one or none.
    is_lost: bool,
    /// What is wrong with the value, or with Redis.
    trouble: Option<String>,
    /// When Redis was asked that answered last.
    asked_at: Option<Timestamp>,
}

impl RedisFollower {
    /// Returns a follower without keys, which has no threads yet.
    pub(super) fn new(server: RedisServer) -> RedisFollower {
        RedisFollower {
            server: Arc::new(server),
            keys: Mutex::default(),
            progress: Mutex::default(),
            changed: Condvar::new(),
            is_started: AtomicBool::new(false),
        }
    }

    /// Follows the document at `key`, for as long as the returned value is referenced.
    pub(super) fn follow(
        self: &Arc<RedisFollower>,
        key: &str,
        kind: &DocumentKind,
        copy: &LocalCopy,
    ) -> Arc<FollowedKey> {
        let mut keys = lock(&self.keys);
        if let Some(followed) = keys.get(key)
            && followed.copy == *copy
        {
            return followed.clone();
        }
        // The copy of this host counts until Redis has answered.
        let document = copy.read().map(|copy| copy.cut_off_since(None));
        let state = KeyState { document, ..KeyState::default() };
        let followed = Arc::new(FollowedKey {
            key: key.to_owned(),
            kind: kind.clone(),
            copy: copy.clone(),
            version: AtomicU64::new(1),
            state: Mutex::new(state),
        });
        keys.insert(key.to_owned(), followed.clone());
        drop(keys);
        self.request_look();
        self.ensure_started();
        followed
    }

    /// Notes that this process has published `document` at `key`, so that its readers need not wait for the next look.
    pub(super) fn note(&self, key: &str, document: &Document) {
        let followed = lock(&self.keys).get(key).cloned();
        if let Some(followed) = followed {
            let asked_at = self.server.clock.now();
            followed.update(Some(document.clone()), None, asked_at, &*self.server.clock);
            self.request_look();
        }
    }

    /// Waits until all keys that are followed now were asked for, but no longer than Redis has to answer.
    pub(super) fn await_first_look(&self) {
        let patience = self.server.settings.timeout + FIRST_LOOK_SLACK;
        let progress = lock(&self.progress);
        let requested = progress.requested;
        let is_pending = |progress: &mut Progress| progress.served < requested;
        let _ = self.changed.wait_timeout_while(progress, patience, is_pending);
    }

    /// Ends the threads, and waits for them for a moment.
    pub(super) fn end(&self) {
        let mut progress = lock(&self.progress);
        progress.is_ended = true;
        self.changed.notify_all();
        let _ = self.changed.wait_timeout_while(progress, END_PATIENCE, |it| it.threads > 0);
    }

    /// Starts the threads that were not started. Where there can be no more of them, all keys get to know it, and the next
    /// reader tries again.
    fn ensure_started(self: &Arc<RedisFollower>) {
        if self.is_started.load(Ordering::Relaxed) {
            return;
        }
        #[cfg(test)]
        if self.server.is_simulated() {
            return;
        }
        let mut is_started = true;
        for (index, work) in
            [RedisFollower::look_regularly, RedisFollower::listen].into_iter().enumerate()
        {
            if !self.note_thread_start(index) {
                continue;
            }
            let follower = Arc::downgrade(self);
            let run = move || {
                work(&follower);
                if let Some(follower) = follower.upgrade() {
                    follower.note_thread_end();
                }
            };
            if let Err(err) = thread::Builder::new().spawn(run) {
                is_started = false;
                lock(&self.progress).started[index] = false;
                self.note_thread_end();
                let what = in_both("Redis cannot be followed", "无法跟踪 Redis 的变化");
                let trouble = format!("{what}: {}", explain(err));
                lock(&self.keys).values().for_each(|followed| followed.note_failure(&trouble));
            }
        }
        self.is_started.store(is_started, Ordering::Relaxed);
    }

    /// Returns whether this thread is to be started now.
    fn note_thread_start(&self, index: usize) -> bool {
        let mut progress = lock(&self.progress);
        let is_new = !std::mem::replace(&mut progress.started[index], true);
        progress.threads += usize::from(is_new);
        is_new
    }

    fn note_thread_end(&self) {
        lock(&self.progress).threads -= 1;
        self.changed.notify_all();
    }

    fn is_ended(&self) -> bool {
        lock(&self.progress).is_ended
    }

    fn request_look(&self) {
        lock(&self.progress).requested += 1;
        self.changed.notify_all();
    }

    fn look_regularly(follower: &Weak<RedisFollower>) {
        while let Some(follower) = follower.upgrade().filter(|it| !it.is_ended()) {
            let requested = lock(&follower.progress).requested;
            follower.look();
            let mut progress = lock(&follower.progress);
            progress.served = requested;
            follower.changed.notify_all();
            let is_idle = |it: &mut Progress| it.requested == requested && !it.is_ended;
            let waited = follower.changed.wait_timeout_while(progress, BETWEEN_LOOKS, is_idle);
            drop(waited);
            thread::sleep(LEAST_PAUSE);
        }
    }

    /// Asks Redis for all keys that are still referenced elsewhere.
    pub(super) fn look(&self) {
        let keys: Vec<_> = {
            let mut keys = lock(&self.keys);
            keys.retain(|_, followed| Arc::strong_count(followed) > 1);
            keys.values().cloned().collect()
        };
        if keys.is_empty() {
            return;
        }
        let names: Vec<_> = keys.iter().map(|followed| &*followed.key).collect();
        let (settings, asked_at) = (&self.server.settings, self.server.clock.now());
        match self.server.run(|connection| scripts::read(connection, &names)) {
            Ok(values) => {
                for (followed, value) in keys.iter().zip(values) {
                    let value = value.unwrap_or_default();
                    let value = StoredValue::parse(&followed.kind, &followed.key, settings, value);
                    followed.update(value.document, value.damage, asked_at, &*self.server.clock);
                }
            }
            Err(fault) => {
                let trouble = format!("{:#}", self.server.error(&fault));
                keys.iter().for_each(|followed| followed.note_failure(&trouble));
            }
        }
    }

    /// Subscribes to the announcements, again and again.
    fn listen(follower: &Weak<RedisFollower>) {
        let server = || Some(follower.upgrade().filter(|it| !it.is_ended())?.server.clone());
        while let Some(server) = server() {
            if let Err(fault) = RedisFollower::subscribe(follower, &server) {
                debug!("no news from Redis, which is asked each second: {fault}");
            }
            let Some(follower) = follower.upgrade() else { return };
            let progress = lock(&follower.progress);
            let _ = follower.changed.wait_timeout_while(progress, BETWEEN_LOOKS, |it| !it.is_ended);
        }
    }

    /// Requests a look for each announcement, until the follower ends or the connection breaks.
    fn subscribe(follower: &Weak<RedisFollower>, server: &RedisServer) -> Result<(), RedisFault> {
        let fault = |err| server.fault(&err);
        let mut connection = server.connect()?;
        let subscribe = command("SUBSCRIBE").arg(server.settings.channel());
        connection.query(&subscribe).map_err(fault)?;
        // Also for what was published before the subscription.
        let mut is_news = true;
        let mut silence = Duration::ZERO;
        while let Some(follower) = follower.upgrade().filter(|it| !it.is_ended()) {
            if is_news {
                follower.request_look();
            }
            drop(follower); // Not kept alive by waiting.
            is_news = match connection.receive(LISTEN_STEP) {
                Ok(announced) => is_announcement(&announced),
                Err(err) if err.is_timeout() => false,
                Err(err) => return Err(fault(err)),
            };
            silence = if is_news { Duration::ZERO } else { silence + LISTEN_STEP };
            if silence >= BETWEEN_PINGS {
                // An announcement that comes before the answer is a sign of life as well.
                is_news = is_announcement(&connection.query(&command("PING")).map_err(fault)?);
                silence = Duration::ZERO;
            }
        }
        Ok(())
    }
}

/// Whether this is what a subscriber is sent for a message, and no answer to one of its commands.
fn is_announcement(value: &RedisValue) -> bool {
    let RedisValue::List(items) = value else { return false };
    matches!(items.first(), Some(RedisValue::Bytes(kind)) if kind == b"message")
}

impl FollowedKey {
    /// Returns the document in force, if Redis is not known to have lost it.
    pub(super) fn published(&self) -> Option<Document> {
        let state = lock(&self.state);
        state.document.clone().filter(|_| !state.is_lost)
    }

    /// Takes in what Redis had when it was asked at `asked_at`.
    fn update(
        &self,
        stored: Option<Document>,
        damage: Option<String>,
        asked_at: Timestamp,
        clock: &dyn Clock,
    ) {
        let mut state = lock(&self.state);
        let is_first = state.asked_at.replace(asked_at).is_none();
        let (document, is_lost) = match InForce::choose(stored, state.document.clone(), clock.now())
        {
            InForce::Stored(document) => (document, false),
            InForce::Copied(document) => (Some(document), true),
        };
        let is_same = state.document == document && state.trouble == damage;
        if is_same && state.is_lost == is_lost && !is_first {
            return;
        }
        let is_another = state.document != document;
        let (trouble, asked_at) = (damage, Some(asked_at));
        *state = KeyState { document: document.clone(), is_lost, trouble, asked_at };
        self.version.fetch_add(1, Ordering::Release);
        drop(state);
        if let (true, Some(document)) = (is_another, document) {
            self.copy.keep(&document, None, clock);
        }
    }

    /// Notes that Redis could not be asked.
    fn note_failure(&self, trouble: &str) {
        let mut state = lock(&self.state);
        if state.trouble.as_deref() != Some(trouble) {
            state.trouble = Some(trouble.to_owned());
            let asked_at = state.asked_at;
            state.document = state.document.take().map(|it| it.cut_off_since(asked_at));
            self.version.fetch_add(1, Ordering::Release);
        }
    }
}

/// A reader of a followed key.
pub(super) struct RedisWatch {
    followed: Arc<FollowedKey>,
    version: u64,
    state: KeyState,
    /// Keeps the key followed.
    follower: Arc<RedisFollower>,
}

impl RedisWatch {
    /// Returns a reader of this key, which `follower` follows.
    pub(super) fn new(follower: Arc<RedisFollower>, followed: Arc<FollowedKey>) -> RedisWatch {
        RedisWatch { followed, version: 0, state: KeyState::default(), follower }
    }
}

impl Watch for RedisWatch {
    /// Costs the read of a number while nothing changes.
    fn look(&mut self) -> bool {
        self.follower.ensure_started();
        let version = self.followed.version.load(Ordering::Acquire);
        if version == self.version {
            return false;
        }
        self.version = version;
        let state = lock(&self.followed.state).clone();
        let before = std::mem::replace(&mut self.state, state);
        let is_over = before.trouble.is_some() && self.state.trouble.is_none();
        before.document != self.state.document || is_over
    }

    fn document(&self) -> Option<&Document> {
        self.state.document.as_ref()
    }

    fn trouble(&self) -> Option<&str> {
        self.state.trouble.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::os::clock::SystemClock;
    use crate::store::redis::testing::settings;

    #[test]
    fn a_reader_has_its_answer_after_the_first_look_and_ending_stops_all_threads() {
        let dir = tempfile::tempdir().unwrap();
        // Closed again, so that every connection is refused.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let settings = settings(&format!("redis://{address}"));
        let server = RedisServer::new(settings, Arc::new(SystemClock), None);
        let follower = Arc::new(RedisFollower::new(server));
        let copy = LocalCopy::new(&dir.path().join("shop.json"), &DocumentKind::Token, None);
        let followed = follower.follow("wxtoken:shop", &DocumentKind::Token, &copy);
        let mut watch = RedisWatch::new(follower.clone(), followed);
        while watch.trouble().is_none() {
            follower.await_first_look();
            watch.look();
        }
        assert!(watch.document().is_none() && watch.trouble().unwrap().contains("cannot reach"));
        assert_eq!(lock(&follower.progress).threads, 2);
        while lock(&follower.progress).threads > 0 {
            follower.end();
        }
    }
}
