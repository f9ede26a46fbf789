//! A host: its clocks, its disk, and the settings of wxtoken on it.

use std::cell::Cell;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use time::UtcDateTime;

use super::mirror::Link;
use super::options::Options;
use super::serve::{CLIENTS, Held, Timer};
use super::world::{START, World, with};
use crate::model::document::Document;
use crate::model::location::Location;
use crate::os::clock::{Clock, Repetition};
use crate::os::file::disk::model::{self, InodeVersion, ROOT};
use crate::os::timestamp::{BootId, Timestamp, Uptime};
use crate::store::{Stores, Watch};

/// What is published on a host.
#[derive(Clone, Default)]
pub(super) struct Published {
    pub(super) token: Option<Rc<Document>>,
    /// As a reader has it that has been looking for long. The same one where that reader has read what others read.
    pub(super) watched: Option<Rc<Document>>,
    pub(super) ticket: Option<Rc<Document>>,
}

/// What is another one after each change of what readers of a host can see: of the documents on its disk, and in Redis.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Version {
    documents: [Option<InodeVersion>; 2],
    redis: u64,
}

impl Version {
    /// Returns that of a host.
    pub(super) fn of(world: &World, host: usize) -> Version {
        let redis = super::redis::version_for_readers(world, host);
        let machine = model::machine(host);
        let machine = machine.borrow();
        let documents = ["shop.json", "shop.jsapi.json"].map(|name| machine.version_of(name));
        Version { documents, redis }
    }

    /// Whether readers of the token can see what they saw at `other`.
    pub(super) fn has_token_of(&self, other: &Version) -> bool {
        (self.documents[0], self.redis) == (other.documents[0], other.redis)
    }

    /// Whether readers of the ticket can see what they saw at `other`.
    pub(super) fn has_ticket_of(&self, other: &Version) -> bool {
        (self.documents[1], self.redis) == (other.documents[1], other.redis)
    }
}

/// What decides what the clocks of a host show.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Shown {
    now: Duration,
    ahead: time::Duration,
    boots: u64,
}

/// A host.
pub(super) struct Host {
    number: usize,
    boots: u64,
    boot: Option<BootId>,
    booted_at: Duration,
    /// By how many millionths its clocks go too fast.
    drift: i64,
    /// Whether its wall clock is kept right: hosts that share a Redis tell each other the time by it.
    is_wall_clock_kept: bool,
    /// How far the wall clock is ahead of the true time.
    pub(super) ahead: time::Duration,
    /// The host is suspended until then.
    pub(super) suspended_until: Duration,
    /// For how long it was suspended since its start: the monotonic clock stands still meanwhile.
    pub(super) suspended_for: Duration,
    pub(super) stores: Stores,
    /// A reader that looks again and again. It is taken out while it looks.
    pub(super) watch: Option<Box<dyn Watch>>,
    /// What was published when readers looked last, and its version then: they read again only after a change.
    pub(super) seen: Option<(Version, Published)>,
    /// What its clocks show, and what decides that.
    shown: Cell<Option<(Shown, Timestamp)>>,
    /// Whether its clock was set since the boot before this one ended, so that ages across boots are wrong.
    pub(super) is_clock_wrong: bool,
    pub(super) clock_set_at: Duration,
    pub(super) disk_full_since: Option<Duration>,
    /// Until when it was full the last time.
    pub(super) disk_full_until: Duration,
    /// Who uses the token of its server.
    pub(super) clients: [Held; CLIENTS],
    /// Until then its server may ask WeChat for another token on demand.
    pub(super) demanded_until: Duration,
    /// What WeChat has told its server to be dead.
    pub(super) known_dead: Option<String>,
    /// To its source, if it is a mirror.
    pub(super) link: Link,
}

impl Host {
    pub(super) fn new(number: usize, options: &Options) -> Host {
        let clock: Arc<dyn Clock> = Arc::new(HostClock(number));
        Host {
            number,
            boots: 0,
            boot: name_of(number, 0),
            booted_at: START - Duration::from_secs(1000),
            ahead: time::Duration::ZERO,
            suspended_until: Duration::ZERO,
            suspended_for: Duration::ZERO,
            stores: Stores::new(clock),
            watch: None,
            seen: None,
            shown: Cell::new(None),
            is_clock_wrong: false,
            clock_set_at: Duration::ZERO,
            disk_full_since: None,
            disk_full_until: Duration::ZERO,
            clients: Default::default(),
            demanded_until: Duration::ZERO,
            known_dead: None,
            link: Link::default(),
            drift: options.drifts[number % options.drifts.len()],
            is_wall_clock_kept: options.has_redis,
        }
    }

    /// Starts again. Readers start again, too.
    pub(super) fn boot(&mut self, now: Duration) {
        self.boots += 1;
        self.boot = name_of(self.number, self.boots);
        self.booted_at = now - Duration::from_secs(5);
        self.suspended_for = Duration::ZERO;
        (self.watch, self.seen) = (None, None);
    }

    /// Whether it was started again since the beginning.
    pub(super) fn has_started_again(&self) -> bool {
        self.boots > 0
    }

    /// Whether the age of this document is told by a wall clock that was set.
    pub(super) fn may_err_about(&self, document: &Document) -> bool {
        self.is_clock_wrong && document.created_at.uptime.map(|it| it.boot) != self.boot
    }

    pub(super) fn timestamp(&self, now: Duration) -> Timestamp {
        let by = Shown { now, ahead: self.ahead, boots: self.boots };
        match self.shown.get() {
            Some((then, shown)) if then == by => shown,
            _ => {
                let shown = self.read_clocks(now);
                self.shown.set(Some((by, shown)));
                shown
            }
        }
    }

    fn read_clocks(&self, now: Duration) -> Timestamp {
        let shown = if self.is_wall_clock_kept { now } else { self.by_its_clock(now) };
        let wall = UtcDateTime::UNIX_EPOCH + shown + self.ahead;
        let uptime = self.boot.map(|boot| {
            let [now, booted_at] = [now, self.booted_at].map(|at| self.by_its_clock(at));
            Uptime::new(boot, now.saturating_sub(booted_at))
        });
        Timestamp { wall, uptime }
    }

    /// Returns what a clock of this host shows that was right at the beginning.
    fn by_its_clock(&self, now: Duration) -> Duration {
        let elapsed = now.saturating_sub(START).as_micros() as i64;
        let ahead = elapsed * self.drift / 1_000_000;
        let span = Duration::from_micros(ahead.unsigned_abs());
        if ahead < 0 { now - span } else { now + span }
    }
}

/// Whether a host has the token's document on its disk, or a copy of it.
pub(super) fn has_document(host: usize) -> bool {
    model::machine(host).borrow().version_of("shop.json").is_some()
}

/// Returns the name of a start of a host.
fn name_of(number: usize, boots: u64) -> Option<BootId> {
    BootId::parse(&format!("00000000-0000-0000-{number:04x}-{boots:012x}"))
}

/// Where the account's documents are on this host, or their copies.
pub(super) fn location(host: usize, has_redis: bool) -> Location {
    let path = PathBuf::from(format!("{ROOT}{host}/shop.json"));
    match has_redis {
        false => Location::File(path),
        true => super::redis::location(path),
    }
}

/// The clocks of a host.
pub(super) struct HostClock(pub(super) usize);

impl Clock for HostClock {
    fn now(&self) -> Timestamp {
        with(|world| world.hosts[self.0].timestamp(world.now))
    }

    fn instant(&self) -> Instant {
        thread_local!(static BASE: Instant = Instant::now());
        let awake = with(|world| {
            let it = &world.hosts[self.0];
            let to_come = it.suspended_until.saturating_sub(world.now);
            let elapsed = it.by_its_clock(world.now) + world.observed_for + to_come - START;
            // A clock that goes too slow has counted less than it stood still for.
            elapsed.saturating_sub(it.suspended_for)
        });
        BASE.with(|base| *base) + awake
    }

    fn sleep(&self, span: Duration) {
        let is_observing = with(|world| {
            if world.is_observing() {
                world.observed_for += span;
            }
            world.is_observing()
        });
        if !is_observing {
            super::world::sleep(span);
        }
    }

    fn repeat(&self, span: Duration, work: Box<dyn FnMut() -> bool + Send>) -> Option<Repetition> {
        Some(Repetition::new(super::world::repeat(span, work)))
    }

    fn timer(&self, span: Duration) -> Pin<Box<dyn Future<Output = ()>>> {
        let (host, end) = (self.0, self.instant() + span);
        Box::pin(Timer { host, end, number: None })
    }

    fn spawn(&self, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        super::serve::spawn(work);
        Ok(())
    }

    fn random(&self) -> u64 {
        with(World::random)
    }
}
