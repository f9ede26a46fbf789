//! The few lines that tell the operator of strangers and of overload: at most one of a kind in a while, however many
//! they are. Counters only what it holds back.

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, Instant};

use crate::log::error;

/// How often an operator hears of the same kind of trouble: often enough to see it, too seldom to fill a disk.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct ThrottledLog {
    rejected: Throttle,
    evicted: Throttle,
    no_handshake: Throttle,
    not_accepted: Throttle,
}

impl ThrottledLog {
    /// Somebody was refused, and why.
    pub(crate) fn rejected(&self, who: impl fmt::Display, why: impl fmt::Display) {
        if let Some(more) = self.rejected.turn(Instant::now()) {
            error!("serve: refused {who}: {why}{more}");
        }
    }

    /// Somebody who may speak with us, and could not.
    pub(crate) fn no_handshake(&self, who: impl fmt::Display, why: impl fmt::Display) {
        if let Some(more) = self.no_handshake.turn(Instant::now()) {
            error!("serve: no TLS with {who}: {why}{more}");
        }
    }

    /// A connection that may still be of use is closed to make room.
    pub(crate) fn evicted(&self, capacity: usize) {
        if let Some(more) = self.evicted.turn(Instant::now()) {
            error!(
                "serve: all {capacity} places for connections are taken, whoever is idle for longest makes room \
                 (--max-connections, ulimit -n){more}"
            );
        }
    }

    /// A connection could not be accepted.
    pub(crate) fn not_accepted(&self, err: &std::io::Error) {
        if let Some(more) = self.not_accepted.turn(Instant::now()) {
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
