//! What the listener counts, and the few lines it says about strangers: at most one in a while, however many they are.

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, Instant};

use crate::report::error;

/// How often an operator hears of the same kind of trouble: often enough to see it, too seldom to fill a disk.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(Cell<u64>);

impl Counter {
    pub(super) fn add_one(&self) {
        self.0.set(self.0.get() + 1);
    }
}

/// What has happened since the start.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Requests that were answered, with whatever status.
    pub(super) answered: Counter,
    /// Connections from addresses that are not allowed.
    pub(super) strangers: Counter,
    /// Requests refused because they were forwarded.
    pub(super) forwarded: Counter,
    /// Requests refused because they were meant for another host.
    pub(super) misdirected: Counter,
    /// Connections that ended because a request or its sender was too slow.
    pub(super) late: Counter,
    /// Connections that were dropped to make room for a newer one.
    pub(super) crowded_out: Counter,
    /// Connections that could not be accepted.
    pub(super) not_accepted: Counter,

    refusals: Throttle,
    crowding: Throttle,
    accepting: Throttle,
}

impl Tally {
    /// Somebody was refused, and why; the operator hears of it.
    pub(super) fn refused(&self, who: impl fmt::Display, why: impl fmt::Display, now: Instant) {
        if let Some(more) = self.refusals.turn(now) {
            error!("serve: refused {who}: {why}{more}");
        }
    }

    /// A connection was dropped to make room.
    pub(super) fn crowded_out(&self, capacity: usize, now: Instant) {
        self.crowded_out.add_one();
        if let Some(more) = self.crowding.turn(now) {
            error!(
                "serve: all {capacity} places for connections are taken, whoever is idle for longest makes room \
                 (--max-connections, ulimit -n){more}"
            );
        }
    }

    /// A connection could not be accepted.
    pub(super) fn not_accepted(&self, err: &std::io::Error, now: Instant) {
        self.not_accepted.add_one();
        if let Some(more) = self.accepting.turn(now) {
            error!("serve: cannot accept a connection: {err}{more}");
        }
    }
}

/// Lets one line through in a while, and counts those it held back.
#[derive(Debug, Default)]
struct Throttle {
    said_at: Cell<Option<Instant>>,
    held: Cell<u64>,
}

impl Throttle {
    /// What to say at the line's end if it may be said now, `None` if it is held back.
    fn turn(&self, now: Instant) -> Option<String> {
        if self.said_at.get().is_some_and(|at| now.duration_since(at) < BETWEEN_LINES) {
            self.held.set(self.held.get() + 1);
            return None;
        }
        self.said_at.set(Some(now));
        Some(match self.held.take() {
            0 => String::new(),
            held => format!(" ({held} more since the last line)"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_ten_seconds_and_the_next_one_says_how_many_were_held() {
        let throttle = Throttle::default();
        let start = Instant::now();
        let at = |secs: f64| throttle.turn(start + Duration::from_secs_f64(secs));
        assert_eq!(at(0.0), Some(String::new()));
        assert_eq!(at(0.1), None);
        assert_eq!(at(9.9), None);
        assert_eq!(at(10.0), Some(" (2 more since the last line)".to_owned()));
        assert_eq!(at(19.0), None);
        assert_eq!(at(30.0), Some(" (1 more since the last line)".to_owned()));
        assert_eq!(at(41.0), Some(String::new()));
    }
}
