//! Time and chance, as an argument: the wall clock for what is written down, a monotonic one for deadlines, waiting.
//! A simulation brings its own and waits for nothing.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use time::UtcDateTime;

/// Where the story takes its time from.
pub(crate) trait Clock {
    /// The wall clock; can be set, also backwards.
    fn now(&self) -> UtcDateTime;
    /// The monotonic clock, for deadlines.
    fn instant(&self) -> Instant;
    /// Lets time pass.
    fn sleep(&self, span: Duration);
    /// A chance number, so that many who failed together do not come back together. Not for secrets.
    fn chance(&self) -> u64;

    /// How long it is until `deadline`; zero once it has passed.
    fn until(&self, deadline: Instant) -> Duration {
        deadline.saturating_duration_since(self.instant())
    }
}

/// The machine's clock.
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UtcDateTime {
        UtcDateTime::now()
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, span: Duration) {
        std::thread::sleep(span);
    }

    fn chance(&self) -> u64 {
        RandomState::new().hash_one(0)
    }
}
