//! What is published in a Redis, as a process sees it that looks again and again: one thread asks each second, another
//! listens and has it asked at once. Whoever looks finds the answer of the last time, and waits for nobody.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::anyhow;

use super::local_copy::LocalCopy;
use super::server::{Fault, Server};
use super::{There, explain, pick};
use crate::log::debug;
use crate::model::document::Document;
use crate::model::kind::DocumentKind;
use crate::os::clock::{Clock, SystemClock};
use crate::store::Watch;

/// How often Redis is asked, whatever is heard.
const BETWEEN_LOOKS: Duration = Duration::from_millis(900);

/// How often it is found out whether the line over which news would come is still there.
const BETWEEN_PINGS: Duration = Duration::from_secs(3);

/// How long one waits for the first look, beyond what Redis has to answer.
const SLACK: Duration = Duration::from_millis(200);

/// What follows the keys in one Redis.
pub(super) struct Follower {
    server: Arc<Server>,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
    rounds: Mutex<Rounds>,
    news: Condvar,
}

#[derive(Default)]
struct Rounds {
    /// How often somebody wanted a look.
    wanted: u64,
    /// Up to which of these there was one.
    done: u64,
}

/// One document, as it was at the last look.
pub(super) struct Slot {
    key: String,
    kind: DocumentKind,
    copy: LocalCopy,
    url: String,
    version: AtomicU64,
    seen: Mutex<Seen>,
}

#[derive(Clone, Default)]
struct Seen {
    document: Option<Document>,
    /// Whether Redis has said that it has another one, an older, or none.
    is_lost: bool,
    /// What is wrong with what is there, or with Redis.
    trouble: Option<String>,
}

/// Those of this process, by what they follow.
static FOLLOWERS: Mutex<Vec<Weak<Follower>>> = Mutex::new(Vec::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until every follower has looked at all that is followed now, or could not.
pub(in crate::store) fn await_first_look() {
    let followers: Vec<_> = lock(&FOLLOWERS).iter().filter_map(Weak::upgrade).collect();
    for follower in followers {
        let until = Instant::now() + follower.server.redis.timeout + SLACK;
        let mut rounds = lock(&follower.rounds);
        let wanted = rounds.wanted;
        while rounds.done < wanted {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            rounds =
                follower.news.wait_timeout(rounds, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Follower {
    /// The one that follows this server, if there is one.
    pub(super) fn there_is(server: &Arc<Server>) -> Option<Arc<Follower>> {
        Follower::among(&lock(&FOLLOWERS), server)
    }

    fn among(followers: &[Weak<Follower>], server: &Arc<Server>) -> Option<Arc<Follower>> {
        followers.iter().filter_map(Weak::upgrade).find(|it| Arc::ptr_eq(&it.server, server))
    }

    /// The one that follows this server; begins to, if there was none. It ends when nobody looks any more.
    pub(super) fn of(server: &Arc<Server>) -> Arc<Follower> {
        let mut followers = lock(&FOLLOWERS);
        if let Some(follower) = Follower::among(&followers, server) {
            return follower;
        }
        let follower = Arc::new(Follower {
            server: server.clone(),
            slots: Mutex::default(),
            rounds: Mutex::default(),
            news: Condvar::new(),
        });
        followers.retain(|it| it.strong_count() > 0);
        followers.push(Arc::downgrade(&follower));
        drop(followers);
        for work in [Follower::look_each_second, Follower::listen] {
            let weak = Arc::downgrade(&follower);
            if let Err(err) = thread::Builder::new().spawn(move || work(&weak)) {
                debug!("no thread to follow Redis: {err}");
            }
        }
        follower
    }

    /// The document at `key`, followed from now on.
    pub(super) fn slot(
        self: &Arc<Follower>,
        key: &str,
        kind: &DocumentKind,
        copy: &LocalCopy,
    ) -> Arc<Slot> {
        let mut slots = lock(&self.slots);
        if let Some(slot) = slots.get(key)
            && slot.copy == *copy
        {
            return slot.clone();
        }
        // What this host has is good until Redis is heard.
        let seen = Seen { document: copy.read(), ..Seen::default() };
        let slot = Arc::new(Slot {
            key: key.to_owned(),
            kind: kind.clone(),
            copy: copy.clone(),
            url: self.server.redis.url.to_string(),
            version: AtomicU64::new(1),
            seen: Mutex::new(seen),
        });
        slots.insert(key.to_owned(), slot.clone());
        drop(slots);
        self.want_look();
        slot
    }

    /// This process has published `document` at `key`.
    pub(super) fn note(&self, key: &str, document: &Document) {
        let slot = lock(&self.slots).get(key).cloned();
        if let Some(slot) = slot {
            slot.take(Some(document.clone()), None);
        }
        self.want_look();
    }

    fn want_look(&self) {
        lock(&self.rounds).wanted += 1;
        self.news.notify_all();
    }

    fn look_each_second(follower: &Weak<Follower>) {
        while let Some(follower) = follower.upgrade() {
            let wanted = lock(&follower.rounds).wanted;
            follower.look();
            let until = Instant::now() + BETWEEN_LOOKS;
            let mut rounds = lock(&follower.rounds);
            rounds.done = wanted;
            follower.news.notify_all();
            while rounds.wanted == wanted {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                rounds = follower
                    .news
                    .wait_timeout(rounds, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
        }
    }

    /// Asks for all that is followed by somebody still.
    fn look(&self) {
        let slots: Vec<_> = {
            let mut slots = lock(&self.slots);
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
            slots.values().cloned().collect()
        };
        if slots.is_empty() {
            return;
        }
        let mut ask = redis::cmd("MGET");
        for slot in &slots {
            ask.arg(&slot.key);
        }
        let got = self.server.run(|connection| ask.query::<Vec<Option<Vec<u8>>>>(connection));
        match got {
            Ok(values) => {
                for (slot, value) in slots.iter().zip(values) {
                    let there = There::parse(&slot.kind, &slot.key, &slot.url, value);
                    slot.take(there.document, there.damage);
                }
            }
            Err(fault) => slots.iter().for_each(|slot| slot.miss(&fault)),
        }
    }

    /// Has Redis asked at once when somebody has published.
    fn listen(follower: &Weak<Follower>) {
        loop {
            let Some(server) = follower.upgrade().map(|it| it.server.clone()) else { return };
            if let Err(fault) = Follower::hear(follower, &server) {
                debug!("no news from Redis, which is asked each second: {fault}");
            }
            thread::sleep(BETWEEN_LOOKS);
        }
    }

    /// Hears the news as long as somebody looks, or until the line breaks.
    fn hear(follower: &Weak<Follower>, server: &Server) -> Result<(), Fault> {
        let fault = |err| server.fault(&err);
        let mut connection = server.connect()?;
        let mut line = connection.as_pubsub();
        line.subscribe(server.redis.channel()).map_err(fault)?;
        // What was published before we listened, too.
        let mut is_news = true;
        while let Some(follower) = follower.upgrade() {
            if is_news {
                follower.want_look();
            }
            drop(follower); // It ends while we wait.
            line.set_read_timeout(Some(BETWEEN_PINGS)).map_err(fault)?;
            is_news = match line.get_message() {
                Ok(_) => true,
                Err(err) if err.is_timeout() => {
                    line.set_read_timeout(Some(server.redis.timeout)).map_err(fault)?;
                    line.ping::<redis::Value>().map_err(fault)?;
                    false
                }
                Err(err) => return Err(fault(err)),
            };
        }
        Ok(())
    }
}

impl Slot {
    /// The document that counts.
    pub(super) fn document(&self) -> Option<Document> {
        lock(&self.seen).document.clone()
    }

    /// Whether it is what Redis has, as far as that can be told.
    pub(super) fn is_published_or_unknown(&self) -> bool {
        !lock(&self.seen).is_lost
    }

    /// This is there.
    fn take(&self, there: Option<Document>, damage: Option<String>) {
        let mut seen = lock(&self.seen);
        let (document, is_published) = pick(there, seen.document.clone(), SystemClock.now());
        let is_lost = !is_published;
        if seen.document == document && seen.trouble == damage && seen.is_lost == is_lost {
            return;
        }
        let is_news = seen.document != document;
        *seen = Seen { document: document.clone(), is_lost, trouble: damage };
        self.version.fetch_add(1, Ordering::Release);
        drop(seen);
        // Only what is published is news.
        if let (true, Some(document)) = (is_news, document) {
            self.copy.keep(&document, None);
        }
    }

    /// Nobody can tell what is there.
    fn miss(&self, fault: &Fault) {
        let trouble = Some(format!("{:#}", explain(&self.url, fault)));
        let mut seen = lock(&self.seen);
        if seen.trouble != trouble {
            seen.trouble = trouble;
            self.version.fetch_add(1, Ordering::Release);
        }
    }
}

/// A reader that looks at what is followed.
pub(super) struct Followed {
    slot: Arc<Slot>,
    version: u64,
    seen: Seen,
    /// Whether there is trouble that was not told yet.
    is_untold: bool,
    /// It ends when nobody looks any more.
    _follower: Arc<Follower>,
}

impl Followed {
    pub(super) fn new(follower: Arc<Follower>, slot: Arc<Slot>) -> Followed {
        Followed { slot, version: 0, seen: Seen::default(), is_untold: false, _follower: follower }
    }
}

impl Watch for Followed {
    /// The price of a look is that of reading a number.
    fn look(&mut self) -> anyhow::Result<bool> {
        let version = self.slot.version.load(Ordering::Acquire);
        if version != self.version {
            let seen = lock(&self.slot.seen).clone();
            let before = std::mem::replace(&mut self.seen, seen);
            self.version = version;
            self.is_untold = self.seen.trouble.is_some() && self.seen.trouble != before.trouble;
            let is_over = before.trouble.is_some() && self.seen.trouble.is_none();
            if before.document != self.seen.document || is_over {
                return Ok(true);
            }
        }
        match &self.seen.trouble {
            Some(trouble) if std::mem::take(&mut self.is_untold) => Err(anyhow!(trouble.clone())),
            _ => Ok(false),
        }
    }

    fn document(&self) -> Option<&Document> {
        self.seen.document.as_ref()
    }
}
