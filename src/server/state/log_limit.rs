//! Rate limits for the lines on stderr that clients can cause: of each kind at most one in ten seconds, with the number of
//! those that were suppressed. Reads no clock.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::time::Duration;

use tokio::time::Instant;

use crate::log::error;

/// The time between two lines of one kind: short enough for an operator to notice, and too long to fill a disk.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Writes rate-limited lines to stderr.
#[derive(Debug, Default)]
pub(crate) struct ThrottledLog {
    refused: Throttle,
    evicted: Throttle,
    failed_handshakes: Throttle,
    not_accepted: Throttle,
}

impl ThrottledLog {
    /// Reports that a peer or client was refused.
    pub(crate) fn refused(&self, now: Instant, client: impl fmt::Display, why: impl fmt::Display) {
        self.refused.report(now, format_args!("refused {client}: {why}"));
    }

    /// Reports that the TLS handshake with an allowed peer failed.
    pub(crate) fn failed_handshake(
        &self,
        now: Instant,
        peer: impl fmt::Display,
        why: impl fmt::Display,
    ) {
        self.failed_handshakes.report(now, format_args!("no TLS with {peer}: {why}"));
    }

    /// Reports that a connection was evicted that had not had its last answer.
    pub(crate) fn evicted(&self, now: Instant, capacity: usize) {
        self.evicted.report(
            now,
            format_args!(
                "all {capacity} places for connections are taken, whoever is idle for longest makes room \
                 (--max-connections, ulimit -n)"
            ),
        );
    }

    /// Reports that a connection could not be accepted.
    pub(crate) fn not_accepted(&self, now: Instant, err: &io::Error) {
        self.not_accepted.report(now, format_args!("cannot accept a connection: {err}"));
    }
}

/// The rate limit of one kind of line.
#[derive(Debug, Default)]
struct Throttle {
    written_at: Cell<Option<Instant>>,
    suppressed: Cell<u64>,
}

impl Throttle {
    fn report(&self, now: Instant, message: fmt::Arguments<'_>) {
        if let Some(suffix) = self.admit(now) {
            error!("serve: {message}{suffix}");
        }
    }

    /// Returns the end of a line that may be written now, with the number of those that were suppressed since the last
    /// one. Returns `None` if this line is suppressed.
    fn admit(&self, now: Instant) -> Option<String> {
        if self.written_at.get().is_some_and(|at| now.duration_since(at) < LINE_INTERVAL) {
            self.suppressed.set(self.suppressed.get() + 1);
            return None;
        }
        self.written_at.set(Some(now));
        Some(match self.suppressed.take() {
            0 => String::new(),
            suppressed => format!(" ({suppressed} more since the last line)"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_ten_seconds_is_written_with_the_number_of_suppressed_ones() {
        let throttle = Throttle::default();
        let start = Instant::now();
        let at = |secs: f64| throttle.admit(start + Duration::from_secs_f64(secs));
        assert_eq!(at(0.0), Some(String::new()));
        assert_eq!(at(0.1), None);
        assert_eq!(at(9.9), None);
        assert_eq!(at(10.0), Some(" (2 more since the last line)".to_owned()));
        assert_eq!(at(19.0), None);
        assert_eq!(at(30.0), Some(" (1 more since the last line)".to_owned()));
        assert_eq!(at(41.0), Some(String::new()));
    }
}
