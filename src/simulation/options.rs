//! What one run is about, drawn from the beginning of its tape: all zeros are the simplest.

use std::time::Duration;

use super::tape::Tape;
use crate::model::api::{Api, Rules};

/// Where documents are, and what refreshes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    /// Cron runs `fetch` on one host, which publishes a file.
    Files,
    /// Cron runs `fetch` on several hosts, which share a Redis.
    Redis,
    /// `serve --refresh` runs on each host, with clients.
    Servers,
    /// The same on one host, and others that are mirrors of it, or of one another.
    Mirrors,
}

/// The options of a run.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) api: Api,
    pub(super) refresh_before: Duration,
    pub(super) hosts: usize,
    /// How often cron starts `fetch`.
    pub(super) interval: Duration,
    /// How many fetches start at once.
    pub(super) together: u64,
    /// In 256 runs of `fetch`, how many are killed, stopped, or end with the power.
    pub(super) fates: u8,
    /// In 256 requests, how many go wrong in good weather.
    pub(super) faults: u8,
    /// Whether the weather changes: hours in which WeChat fails in one way.
    pub(super) has_weather: bool,
    /// Whether other programs mint, with the same AppSecret.
    pub(super) has_strangers: bool,
    /// Whether operators force tokens, report them, and change settings and secrets.
    pub(super) has_operators: bool,
    /// Whether clocks are wrong, and are set.
    pub(super) has_clocks: bool,
    pub(super) has_tickets: bool,
    pub(super) life: Duration,
    /// Whether documents are in a Redis that all hosts share.
    pub(super) has_redis: bool,
    /// The time that a run of `fetch` has.
    pub(super) timeout: Duration,
    /// Whether `serve --refresh` runs on each host, and not cron.
    pub(super) has_servers: bool,
    /// Whether WeChat takes tokens back again and again.
    pub(super) has_revocations: bool,
    /// Whether all hosts but the first are mirrors.
    pub(super) has_mirrors: bool,
    /// Whether each is a mirror of the one before, and not of the first.
    pub(super) is_chain: bool,
    /// Whether on the last one cron runs `fetch`, and no server.
    pub(super) ends_with_cron: bool,
    /// By how many millionths the clocks of each host go too fast.
    pub(super) drifts: [i64; 3],
}

impl Options {
    /// Draws the options of a run.
    pub(super) fn draw(setting: Setting, tape: &mut Tape) -> Options {
        let api = [Api::Classic, Api::Stable, Api::Work][tape.below(3) as usize];
        let refresh_before = match (api, tape.below(4)) {
            (_, 0 | 1) => 300,
            (Api::Classic, 2) => 3600,
            (Api::Classic, _) => 900,
            (_, 2) => 150,
            _ => 290,
        };
        let interval = [60, 60, 120, 240][tape.below(4) as usize];
        // A run may be missed, and another one be late.
        let interval = interval.min(refresh_before / 2 - 15);
        let together = 1 + tape.below(3);
        let mut options = Options {
            api,
            refresh_before: Duration::from_secs(refresh_before),
            hosts: 1,
            interval: Duration::from_secs(interval),
            together,
            fates: 0,
            faults: 0,
            has_weather: false,
            has_strangers: false,
            has_operators: false,
            has_clocks: false,
            has_tickets: false,
            life: Duration::from_secs(7200),
            has_redis: false,
            timeout: Duration::from_secs(30),
            has_servers: false,
            has_revocations: false,
            has_mirrors: false,
            is_chain: false,
            ends_with_cron: false,
            drifts: [0; 3],
        };
        options.draw_faults(tape);
        options.has_tickets = tape.below(2) == 1;
        match setting {
            Setting::Files => return options,
            Setting::Redis => options.has_redis = true,
            Setting::Servers => {
                options.has_servers = true;
                options.has_revocations = tape.below(4) == 3;
                options.has_redis = tape.below(3) == 2;
            }
            Setting::Mirrors => {
                options.has_servers = true;
                options.has_mirrors = true;
                options.has_revocations = tape.below(8) == 7;
                options.has_tickets = false;
                options.hosts = 2 + tape.below(2) as usize;
                options.is_chain = tape.below(2) == 1;
                options.ends_with_cron = tape.below(3) == 2;
            }
        }
        if options.has_redis {
            options.hosts = 1 + tape.below(3) as usize;
            options.timeout = Duration::from_secs([30, 30, 90][tape.below(3) as usize]);
        }
        if options.has_servers {
            options.drifts = [(); 3].map(|()| [0, 50, -50, 20][tape.below(4) as usize]);
        }
        options
    }

    /// Draws what goes wrong from now on.
    pub(super) fn draw_faults(&mut self, tape: &mut Tape) {
        self.fates = [0, 4, 16, 64][tape.below(4) as usize];
        self.faults = [0, 4, 32, 128][tape.below(4) as usize];
        let mut has = || tape.below(2) == 1;
        self.has_weather = has();
        self.has_strangers = has();
        self.has_operators = has();
        self.has_clocks = has();
    }

    /// Returns how long there may be no token although nothing is wrong. WeCom issues the same token until its end, and the next
    /// one only then.
    pub(super) fn gap_on(&self, host: usize) -> Duration {
        let gap = match self.rules() {
            Rules::Work => 2 * self.interval + Duration::from_secs(60),
            _ => Duration::ZERO,
        };
        match self.source_of(host) {
            // It asks again in half a minute.
            Some(source) => gap + self.gap_on(source) + 2 * self.interval,
            None => gap,
        }
    }

    /// Returns the rules of WeChat.
    pub(super) fn rules(&self) -> Rules {
        self.api.into()
    }

    /// Returns the rules by which a host refreshes.
    pub(super) fn rules_of(&self, host: usize) -> Rules {
        self.source_of(host).map_or_else(|| self.rules(), |_| Rules::Mirror)
    }

    /// Returns the host that this one is a mirror of.
    pub(super) fn source_of(&self, host: usize) -> Option<usize> {
        let source = if self.is_chain { host.checked_sub(1)? } else { 0 };
        (self.has_mirrors && host > 0).then_some(source)
    }

    /// Whether a server runs on a host, and not cron.
    pub(super) fn is_served(&self, host: usize) -> bool {
        self.has_servers && !(self.ends_with_cron && host + 1 == self.hosts)
    }

    /// Returns what clocks are off by: by their milliseconds, and by what they drift in the life of a token.
    pub(super) fn tolerance(&self) -> Duration {
        let most = self.drifts.iter().map(|it| it.unsigned_abs()).sum::<u64>() as u32;
        Duration::from_millis(10) + self.life * most / 1_000_000
    }
}
