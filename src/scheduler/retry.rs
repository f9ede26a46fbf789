//! Retry bookkeeping for one document, a token's or a ticket's: whether an attempt is running, what failed, when the next
//! attempt may start, and when a failure is worth a log line. Pure: time and random numbers come in.

use std::mem;
use std::time::{Duration, Instant};

use super::backoff::{self, MIN_INTERVAL};
use super::event::Event;
use super::state::messages;
use crate::model::status::{RefreshFailure, Unavailable};
use crate::os::clock::Clock;
use crate::os::timestamp::Timestamp;
use crate::refresh::RefreshError;
use crate::refresh::trouble::TroubleCause;

/// How often the same failure is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// What an attempt needs from a [`Clock`] when it ends: the time by both clocks, and a random number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) wall: Timestamp,
    pub(super) now: Instant,
    pub(super) random: u64,
}

impl Moment {
    pub(super) fn read(clock: &dyn Clock) -> Moment {
        Moment { wall: clock.now(), now: clock.instant(), random: clock.random() }
    }
}

/// The attempts to refresh one document.
#[derive(Debug, Default)]
pub(super) struct Retry {
    running: Option<RunningAttempt>,
    /// When the last attempt started.
    started_at: Option<Instant>,
    pub(super) failures: Failures,
    resets: u64,
    /// Whether no attempt has started since the last reset.
    is_reset: bool,
}

#[derive(Debug)]
struct RunningAttempt {
    /// The number of resets at its start.
    resets: u64,
    /// Whether it is the first one since a reset.
    is_first: bool,
}

/// Whether an attempt may start now for a client that waits for the document.
#[derive(Debug)]
pub(super) enum Readiness<'a> {
    Ready,
    Running,
    NotBefore(Instant),
    /// The last attempt failed, and waiting for the next one is pointless.
    Failed(&'a FailureRecord),
}

impl Retry {
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Notes that an attempt starts. Returns whether it is the first since a reset.
    pub(super) fn start(&mut self, now: Instant) -> bool {
        let is_first = mem::take(&mut self.is_reset);
        self.running = Some(RunningAttempt { resets: self.resets, is_first });
        self.started_at = Some(now);
        is_first
    }

    /// Notes that the attempt has ended. If it made no request, the next attempt counts as the first since a reset in its place. Returns
    /// whether there was a reset since its start.
    pub(super) fn finish(&mut self, is_asked: bool) -> bool {
        let Some(attempt) = self.running.take() else { return false };
        self.is_reset |= attempt.is_first && !is_asked;
        attempt.resets != self.resets
    }

    /// Lets the next attempt start at once, because the operator may have fixed the cause of the last failure.
    pub(super) fn reset(&mut self, now: Instant) {
        self.resets += 1;
        self.is_reset = true;
        self.failures.allow_retry(now);
    }

    /// Returns the time until the next attempt may start; zero if it may now.
    pub(super) fn delay(&self, now: Instant) -> Duration {
        let not_before = self.failures.retry_at().max(self.next_start());
        not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }

    /// Returns whether an attempt may start at `now` for a client that waits for the document.
    pub(super) fn readiness(&self, now: Instant) -> Readiness<'_> {
        match self.failures.last() {
            // During another attempt too: there is no reason to expect a better result.
            Some(failure)
                if !failure.is_reset() && (now < failure.retry_at || self.is_running()) =>
            {
                Readiness::Failed(failure)
            }
            _ if self.is_running() => Readiness::Running,
            _ => match self.next_start() {
                Some(at) if now < at => Readiness::NotBefore(at),
                _ => Readiness::Ready,
            },
        }
    }

    fn next_start(&self) -> Option<Instant> {
        self.started_at.map(|at| at + MIN_INTERVAL)
    }
}

/// The failures since the last success.
#[derive(Debug, Default)]
pub(super) struct Failures(Option<FailureRecord>);

/// The last failure.
#[derive(Debug)]
pub(super) struct FailureRecord {
    /// What the operator is told of it.
    message: String,
    /// What clients are told of it.
    status: RefreshFailure,
    /// What `on_trouble` is told, if the failure is about this document.
    cause: Option<TroubleCause>,
    /// The number of failures in a row; 0 after a reset.
    in_a_row: u32,
    retry_at: Instant,
    logged_at: Option<Instant>,
}

impl Failures {
    /// Records a failure after which another attempt is pointless for `retry_after`, if that is known. Returns the event to
    /// log, unless the same failure was logged within the last ten minutes.
    pub(super) fn record(
        &mut self,
        error: &RefreshError,
        retry_after: Option<Duration>,
        at: Moment,
    ) -> Option<Event> {
        let message = error.to_string();
        let in_a_row = self.last().map_or(1, |last| last.in_a_row + 1);
        let pause = backoff::pause(in_a_row, retry_after, at.random);
        let logged_at = self.last().filter(|last| last.message == message);
        let logged_at = logged_at.and_then(|last| last.logged_at);
        let logged_at = logged_at.filter(|logged_at| at.now < *logged_at + LOG_INTERVAL);
        self.0 = Some(FailureRecord {
            message: message.clone(),
            cause: TroubleCause::of(error),
            status: RefreshFailure { at: at.wall.wall, message: messages::of_failure(error) },
            in_a_row,
            retry_at: at.now + pause,
            logged_at: logged_at.or(Some(at.now)),
        });
        logged_at.is_none().then_some(Event::Failed { message, pause })
    }

    /// Notes a success. Returns the event to log if it ends a failure.
    pub(super) fn clear(&mut self) -> Option<Event> {
        self.0.take().map(|_| Event::Recovered)
    }

    /// Lets the next attempt start at once, and logs its failure even if it is the same.
    pub(super) fn allow_retry(&mut self, now: Instant) {
        if let Some(last) = &mut self.0 {
            (last.in_a_row, last.retry_at, last.logged_at) = (0, now, None);
        }
    }

    pub(super) fn last(&self) -> Option<&FailureRecord> {
        self.0.as_ref()
    }

    /// Returns the last failure if another attempt is pointless now.
    pub(super) fn pending(&self, now: Instant) -> Option<&FailureRecord> {
        self.last().filter(|last| now < last.retry_at)
    }

    fn retry_at(&self) -> Option<Instant> {
        self.last().map(|last| last.retry_at)
    }
}

impl FailureRecord {
    fn is_reset(&self) -> bool {
        self.in_a_row == 0
    }

    pub(super) fn status(&self) -> RefreshFailure {
        self.status.clone()
    }

    pub(super) fn cause(&self) -> Option<TroubleCause> {
        self.cause.clone()
    }

    /// Returns the error for a client. `with_want` adds what is missing to the cause.
    pub(super) fn unavailable(
        &self,
        with_want: impl FnOnce(&String) -> String,
        now: Instant,
    ) -> Unavailable {
        let pause = self.retry_at.saturating_duration_since(now);
        // The next attempt is under way, and may take longer than a moment.
        let retry_after = if pause.is_zero() { Unavailable::DURING_ATTEMPT } else { pause };
        Unavailable { why: with_want(&self.status.message), retry_after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_attempt_since_a_reset_is_the_first_that_asks() {
        let (mut retry, now) = (Retry::default(), Instant::now());
        assert!(!retry.start(now), "there was no reset");
        assert!(!retry.finish(false));
        assert!(!retry.start(now));
        retry.reset(now);
        assert!(retry.finish(true), "there was one since its start");
        assert!(retry.start(now));
        assert!(!retry.finish(false));
        assert!(retry.start(now), "that one has asked for nothing");
        assert!(!retry.finish(true));
        assert!(!retry.start(now));
        assert!(!retry.finish(true));
        assert!(!retry.finish(true), "none is running");
    }

    #[test]
    fn a_failure_is_pending_until_the_next_attempt_is_due() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        let wall = Timestamp::of_wall(time::UtcDateTime::UNIX_EPOCH);
        let error = RefreshError::Local(anyhow::anyhow!("no space"));
        let wait = Duration::from_secs(300);
        assert!(failures.record(&error, Some(wait), Moment { wall, now, random: 0 }).is_some());
        let at = failures.retry_at().unwrap();
        assert!(at >= now + wait);
        assert!(failures.pending(at - Duration::from_nanos(1)).is_some());
        assert!(failures.pending(at).is_none());
    }

    #[test]
    fn the_same_failure_is_logged_again_after_ten_minutes() {
        let (mut failures, now) = (Failures::default(), Instant::now());
        let wall = Timestamp::of_wall(time::UtcDateTime::UNIX_EPOCH);
        let error = RefreshError::Local(anyhow::anyhow!("no space"));
        let mut is_logged =
            |now| failures.record(&error, None, Moment { wall, now, random: 0 }).is_some();
        let later = now + LOG_INTERVAL;
        let shortly_before = later - Duration::from_nanos(1);
        assert_eq!(
            [now, shortly_before, later, later].map(&mut is_logged),
            [true, false, true, false]
        );
    }
}
