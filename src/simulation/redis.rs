//! The Redis that hosts share: how it is reached, and what happens to it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::wechat::APPID;
use super::world::{Event, World, sleep, step, with};
use super::{DAY, HOUR, again};
use crate::model::address::redis_url::RedisUrl;
use crate::model::location::{Location, RedisLocation, RedisSettings};
use crate::os::file::disk::model::Operation;
use crate::store::redis::model::{self, Arrival, Cluster, Hooks, Journey, SOCKET};

/// After so long it is down.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How long production waits for the replica.
const AWAITED: Duration = Duration::from_millis(500);

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum RedisEvent {
    FailOver,
    /// It loses everything.
    Forget,
    /// The replica lags behind, or not.
    Lag,
    /// It cannot be reached, or hangs; from all hosts or from one.
    Down,
    Full(bool),
}

/// How it is reached.
#[derive(Default)]
pub(super) struct RedisWeather {
    /// Until then it cannot be reached: from this host, or from all.
    down_until: Duration,
    down_for: Option<usize>,
    /// Whether it hangs, and does not refuse.
    hangs: bool,
    pub(super) full_since: Option<Duration>,
}

pub(super) fn install() {
    model::install(Hooks { now: || with(|world| world.now), travel, wait });
}

pub(super) fn uninstall() {
    model::uninstall();
}

/// Where the account's documents are, with their copies at `copy`.
pub(super) fn location(copy: PathBuf) -> Location {
    thread_local!(static SETTINGS: Arc<RedisSettings> = Arc::new(RedisSettings {
        url: RedisUrl::parse(&format!("redis+unix://{SOCKET}")).expect("a URL"),
        user: None,
        password_file: None,
        ca_file: None,
        prefix: "wxtoken".to_owned(),
        timeout: TIMEOUT,
        also: Vec::new(),
    }));
    Location::Redis(Arc::new(RedisLocation {
        redis: SETTINGS.with(Arc::clone),
        account: "shop".to_owned(),
        appid: Some(APPID.to_owned()),
        copy,
    }))
}

fn travel(_: Journey) -> Arrival {
    if with(|world| world.is_observing()) {
        let is_down = with(|world| world.redis.is_down(world.observed, world.now));
        return if is_down { Arrival::Closed } else { Arrival::Arrives };
    }
    step(Operation::Change);
    let (arrival, span) = with(|world| {
        let host = world.current_host();
        let arrival = match world.redis.is_down(host, world.now) {
            true if world.redis.hangs => Arrival::Lost,
            true => Arrival::Closed,
            false
                if world.options.faults >= 16 && world.tape.happens(world.options.faults / 16) =>
            {
                match world.tape.below(2) {
                    0 => Arrival::Lost,
                    _ => Arrival::Closed,
                }
            }
            false => Arrival::Arrives,
        };
        if arrival != Arrival::Arrives {
            world.count("Redis not reached");
            world.ledger.note_trouble(world.now);
        }
        (arrival, Duration::from_micros(200 + world.random() % 1000))
    });
    sleep(span);
    arrival
}

fn wait(span: Duration) {
    if !with(|world| world.is_observing()) {
        sleep(span);
    }
}

impl RedisWeather {
    fn is_down(&self, host: Option<usize>, now: Duration) -> bool {
        now < self.down_until && (self.down_for.is_none() || self.down_for == host)
    }

    /// Whether this host reaches it.
    pub(super) fn is_reached_by(&self, host: usize, now: Duration) -> bool {
        !self.is_down(Some(host), now)
    }

    /// Ends all faults.
    pub(super) fn make_calm(&mut self) {
        (self.down_until, self.full_since) = (Duration::ZERO, None);
        model::with(|redis| (redis.lag, redis.is_full) = (Duration::from_millis(1), false));
    }
}

/// Plans what happens to it.
pub(super) fn plan(world: &mut World) {
    again(world, Event::Redis(RedisEvent::FailOver), DAY);
    again(world, Event::Redis(RedisEvent::Forget), 6 * DAY);
    again(world, Event::Redis(RedisEvent::Lag), 12 * HOUR);
    again(world, Event::Redis(RedisEvent::Down), DAY);
    again(world, Event::Redis(RedisEvent::Full(true)), 6 * DAY);
}

/// Lets it happen.
pub(super) fn change(world: &mut World, event: RedisEvent) {
    let now = world.now;
    let secs = |world: &mut World, most: u64| Duration::from_secs(world.tape.below(most));
    match event {
        RedisEvent::FailOver => {
            let isolated = if world.tape.below(4) == 3 { secs(world, 30) } else { Duration::ZERO };
            let replica_after = secs(world, 120);
            let (lag, lost) =
                model::with(|redis| (redis.lag, redis.fail_over(now, isolated, replica_after)));
            let is_split = !isolated.is_zero() || lost > 0 && lag > AWAITED;
            world.note("failover", lost as u64);
            world.count("failover");
            if lost > 0 {
                world.count("failover that loses writes");
            }
            world.ledger.note_failover(now, isolated, is_split);
            again(world, Event::Redis(event), DAY);
        }
        RedisEvent::Forget => {
            model::with(|redis| redis.forget());
            world.note("Redis forgets", 0);
            world.count("Redis forgets");
            world.ledger.has_lost_all = true;
            world.ledger.note_failover(now, Duration::ZERO, false);
            again(world, Event::Redis(event), 6 * DAY);
        }
        RedisEvent::Lag => {
            let lags = [1, 300, 3000, 60_000];
            let lag = lags[world.tape.below(4) as usize];
            model::with(|redis| redis.lag = Duration::from_millis(lag));
            world.note("lag", lag);
            again(world, Event::Redis(event), 12 * HOUR);
        }
        RedisEvent::Down => {
            let span = Duration::from_secs(1) + secs(world, 256) * 4;
            world.redis.down_until = now + span;
            let host = world.tape.below(2 * world.options.hosts as u64) as usize;
            world.redis.down_for = (host < world.options.hosts).then_some(host);
            world.redis.hangs = world.tape.below(2) == 1;
            world.note("Redis down", span.as_secs());
            world.count("Redis down");
            world.ledger.note_trouble(now + span);
            again(world, Event::Redis(event), DAY);
        }
        RedisEvent::Full(is_full) => {
            model::with(|redis| redis.is_full = is_full);
            world.redis.full_since = is_full.then_some(now);
            world.note("Redis full", is_full.into());
            world.ledger.note_trouble(now);
            let (next, mean) = if is_full { (false, 2 * HOUR) } else { (true, 6 * DAY) };
            again(world, Event::Redis(RedisEvent::Full(next)), mean);
        }
    }
}

/// Returns a number that is another one after each change of what this host can see in Redis.
pub(super) fn version(world: &World, host: usize) -> u64 {
    version_by(world, host, Cluster::version)
}

/// The same of what readers of documents can see.
pub(super) fn version_for_readers(world: &World, host: usize) -> u64 {
    version_by(world, host, Cluster::version_for_readers)
}

fn version_by(
    world: &World,
    host: usize,
    version: impl FnOnce(&mut Cluster, Duration) -> u64,
) -> u64 {
    if !world.options.has_redis {
        return 0;
    }
    let is_reached = world.redis.is_reached_by(host, world.now);
    model::with(|redis| version(redis, world.now)) * 2 + u64::from(is_reached)
}
