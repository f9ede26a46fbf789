//! An instant by two clocks: the wall clock, which can be set, and the clock of the machine, which counts from its start
//! and cannot. Times between two instants come from the machine's clock wherever both were taken on the same machine
//! since its start.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use time::UtcDateTime;

use crate::sabotage::{Bug, has_bug};

/// Clocks that differ by no more than this count as equal.
pub(crate) const MAX_CLOCK_SKEW: time::Duration = time::Duration::seconds(60);

/// Two readings of clocks that were not set differ by less than this.
const READING_SLACK: time::Duration = time::Duration::seconds(2);

/// An instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timestamp {
    pub(crate) wall: UtcDateTime,
    /// `None` if it is not known.
    pub(crate) uptime: Option<Uptime>,
}

/// The time since a machine was started, suspend included, in whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Uptime {
    pub(crate) boot: BootId,
    pub(crate) elapsed: Duration,
}

/// Names one start of one machine, as the kernel does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct BootId(u128);

impl Timestamp {
    /// Returns the instant that is now.
    pub(super) fn now() -> Timestamp {
        Timestamp { wall: UtcDateTime::now(), uptime: Uptime::now() }
    }

    /// Returns an instant of which only the time by the wall clock is known.
    #[cfg(test)]
    pub(crate) const fn of_wall(wall: UtcDateTime) -> Timestamp {
        Timestamp { wall, uptime: None }
    }

    /// Returns the time from `earlier` until this instant: by the machine's clock if both are instants of the same boot,
    /// and else by the wall clock. Negative if `earlier` is later.
    pub(crate) fn since(self, earlier: Timestamp) -> time::Duration {
        let by_machine = self.since_by_machine(earlier).filter(|_| !has_bug(Bug::AgeByWallClock));
        by_machine.unwrap_or_else(|| self.wall - earlier.wall)
    }

    /// Returns the time from `earlier` until this instant by the machine's clock, if both are instants of the same boot.
    fn since_by_machine(self, earlier: Timestamp) -> Option<time::Duration> {
        let (now, then) = (self.uptime?, earlier.uptime?);
        let signed = |span: Duration| time::Duration::try_from(span).ok();
        let span = signed(now.elapsed)? - signed(then.elapsed)?;
        // One boot's clock does not go back. Where it seems to, two machines share an identity, as clones do.
        (now.boot == then.boot && span >= -MAX_CLOCK_SKEW).then_some(span)
    }

    /// Whether this instant is later than `other`, by the clock of the machine that took both, or by the wall clocks.
    pub(crate) fn is_after(self, other: Timestamp) -> bool {
        match (self.uptime, other.uptime) {
            (Some(this), Some(other)) if this.boot == other.boot => this.elapsed > other.elapsed,
            _ => self.wall > other.wall,
        }
    }

    /// Whether the wall clock has gone further since `earlier` than the machine's clock: it was set forward, or the machine
    /// is a virtual one and stood still.
    pub(crate) fn has_jumped_ahead_since(self, earlier: Timestamp) -> bool {
        let by_wall = self.wall - earlier.wall;
        self.since_by_machine(earlier).is_some_and(|span| by_wall - span > MAX_CLOCK_SKEW)
    }

    /// Returns what the wall clock of `now` would have shown at this instant. It may have been set since.
    pub(crate) fn wall_by_clock_of(self, now: Timestamp) -> UtcDateTime {
        let shown = now.wall.saturating_sub(now.since(self));
        match (shown - self.wall).abs() < READING_SLACK {
            true => self.wall,
            false => shown.replace_nanosecond(0).unwrap_or(shown), // 0 is in range.
        }
    }

    /// Returns the last instant no later than this one at which the wall clock showed a whole second.
    pub(crate) fn whole_seconds(self) -> Timestamp {
        let fraction = Duration::from_nanos(self.wall.nanosecond().into());
        Timestamp {
            wall: self.wall.replace_nanosecond(0).unwrap_or(self.wall), // 0 is in range.
            uptime: self.uptime.map(|it| it.at(it.elapsed.saturating_sub(fraction))),
        }
    }

    /// Returns the instant that is this much later.
    pub(crate) fn plus(self, span: Duration) -> Timestamp {
        let by_wall = time::Duration::try_from(span).unwrap_or(time::Duration::MAX);
        Timestamp {
            wall: self.wall.saturating_add(by_wall),
            uptime: self.uptime.map(|it| it.at(it.elapsed.saturating_add(span))),
        }
    }
}

impl Uptime {
    /// Returns the time since the start of the machine that `boot` names, rounded down to milliseconds.
    pub(crate) fn new(boot: BootId, elapsed: Duration) -> Uptime {
        let millis = elapsed.as_millis().try_into().unwrap_or(u64::MAX);
        Uptime { boot, elapsed: Duration::from_millis(millis) }
    }

    fn at(self, elapsed: Duration) -> Uptime {
        Uptime::new(self.boot, elapsed)
    }

    /// Returns the time since this machine was started, if the kernel tells which start that was.
    pub(super) fn now() -> Option<Uptime> {
        let (boot, ahead) = boot()?;
        let read = clock_gettime(ClockId::Boottime);
        // Read for each request, so in one number: enough for centuries.
        let secs = read.tv_sec.checked_sub(ahead.whole_seconds())?;
        let nanos = read.tv_nsec.checked_sub(ahead.subsec_nanoseconds().into())?;
        let nanos = secs.checked_mul(1_000_000_000)?.checked_add(nanos)?;
        let millis = u64::try_from(nanos).ok()? / 1_000_000;
        Some(Uptime { boot, elapsed: Duration::from_millis(millis) })
    }
}

/// Returns the boot, and how far this process's clock is ahead of the machine's.
fn boot() -> Option<(BootId, time::Duration)> {
    static BOOT: OnceLock<Option<(BootId, time::Duration)>> = OnceLock::new();
    *BOOT.get_or_init(read_boot)
}

/// Reads which boot this is, and how far a time namespace (time_namespaces(7)) shifts this process's clock.
fn read_boot() -> Option<(BootId, time::Duration)> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = |name: &str| fs::read_link(PathBuf::from("/proc/self/ns").join(name)).ok();
    // The offsets are those of the children's namespace.
    if namespace("time") != namespace("time_for_children") {
        return None;
    }
    let ahead = match fs::read_to_string("/proc/self/timens_offsets") {
        Ok(offsets) => parse_offset(&offsets)?,
        Err(_) => time::Duration::ZERO, // A kernel without time namespaces.
    };
    Some((BootId::parse(id.trim_end())?, ahead))
}

/// Returns the offset of the clock of `boottime` from the lines of `timens_offsets`.
fn parse_offset(offsets: &str) -> Option<time::Duration> {
    let mut lines = offsets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|words| words.first() == Some(&"boottime"))?;
    let [_, secs, nanos] = line[..] else { return None };
    Some(time::Duration::new(secs.parse().ok()?, nanos.parse().ok()?))
}

impl BootId {
    /// Parses the UUID that the kernel gives a boot.
    pub(crate) fn parse(text: &str) -> Option<BootId> {
        let (mut id, mut digits) = (0, 0);
        for byte in text.bytes().filter(|it| *it != b'-') {
            id = id << 4 | u128::from(char::from(byte).to_digit(16)?);
            digits += 1;
        }
        (text.len() == 36 && digits == 32).then_some(BootId(id))
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        let [a, b, c, d, e] = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &hex[part]);
        write!(f, "{a}-{b}-{c}-{d}-{e}")
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Returns an instant by both clocks, in seconds since 1970 and since the start of the machine with this number.
    pub(crate) fn instant(wall: i64, machine: u128, uptime: u64) -> Timestamp {
        let uptime = Uptime::new(BootId(machine), Duration::from_secs(uptime));
        let wall = UtcDateTime::from_unix_timestamp(wall).unwrap();
        Timestamp { wall, uptime: Some(uptime) }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::instant;
    use super::*;

    fn secs(secs: i64) -> time::Duration {
        time::Duration::seconds(secs)
    }

    #[test]
    fn the_machines_clock_counts_within_a_boot_and_the_wall_clock_else() {
        let then = instant(10_000, 1, 500);
        assert_eq!(instant(8_200, 1, 600).since(then), secs(100), "set back");
        assert_eq!(instant(99_000, 1, 600).since(then), secs(100), "set forward");
        assert_eq!(instant(10_200, 2, 600).since(then), secs(200), "another boot");
        let by_wall = Timestamp::of_wall(instant(10_200, 1, 0).wall);
        assert_eq!((by_wall.since(then), then.since(by_wall)), (secs(200), secs(-200)));
        assert_eq!(instant(10_200, 1, 440).since(then), secs(-60), "a little ahead");
        assert_eq!(instant(10_200, 1, 439).since(then), secs(200), "a clone of the machine");
    }

    #[test]
    fn only_a_wall_clock_that_went_further_has_jumped_ahead() {
        let then = instant(10_000, 1, 500);
        for (now, expected) in [
            (instant(10_160, 1, 600), false),
            (instant(10_161, 1, 600), true),
            (instant(5_000, 1, 600), false),
            (instant(99_000, 2, 600), false),
        ] {
            assert_eq!(now.has_jumped_ahead_since(then), expected, "{now:?}");
        }
    }

    #[test]
    fn an_instant_is_shown_by_the_clock_of_today() {
        let then = instant(10_000, 1, 500);
        let shown = |now: Timestamp| then.wall_by_clock_of(now).unix_timestamp();
        assert_eq!(shown(instant(10_100, 1, 600)), 10_000);
        assert_eq!(shown(instant(10_101, 1, 600)), 10_000, "no more than two readings differ");
        assert_eq!(shown(instant(8_200, 1, 600)), 8_100);
        assert_eq!(shown(instant(99_000, 1, 600)), 98_900);
        assert_eq!(shown(instant(99_000, 2, 600)), 10_000);
    }

    #[test]
    fn rounding_to_seconds_moves_both_clocks_alike() {
        let exact = instant(10_000, 1, 500).plus(Duration::from_millis(300));
        assert_eq!(exact.whole_seconds(), instant(10_000, 1, 500));
        let early = Timestamp { uptime: instant(0, 1, 0).uptime, ..exact };
        assert_eq!(early.whole_seconds(), instant(10_000, 1, 0));
    }

    #[test]
    fn a_boot_has_one_name_and_one_clock() {
        let [first, second] = [(); 2].map(|()| Timestamp::now());
        assert!(!second.since(first).is_negative());
        let text = "38bcf4e1-95ec-4780-b34b-6460bb9b439b";
        assert_eq!(BootId::parse(text).unwrap().to_string(), text);
        for wrong in [
            "",
            "38bcf4e1",
            "38bcf4e195ec4780b34b6460bb9b439b",
            "+8bcf4e1-95ec-4780-b34b-6460bb9b439b",
        ] {
            assert!(BootId::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn the_offset_of_a_time_namespace_is_read() {
        let offsets = "monotonic           0         0\nboottime         -500 250000000\n";
        assert_eq!(parse_offset(offsets), Some(time::Duration::milliseconds(-499_750)));
        assert_eq!(parse_offset("monotonic 0 0\n"), None);
    }
}
