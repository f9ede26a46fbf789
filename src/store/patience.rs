//! Publishes patiently. A new token has cost a call to WeChat, which on classic cannot be repeated without cost. So publishing it is tried again
//! and again, for as long as the run can afford.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::Error;

use crate::log::debug;
use crate::os::clock::Clock;

/// Publishing is tried until the deadline of the run, and for this long in any case.
const PATIENCE: Duration = Duration::from_secs(3);

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// Why an attempt to publish failed.
pub(super) enum PublishError {
    /// Another attempt may succeed.
    MayPass(Error),
    /// Another attempt is pointless, or would do harm.
    Final(Error),
}

/// Calls `attempt` until it succeeds or its error is final, but no longer than until `deadline`, or [`PATIENCE`] from now.
/// `place` is where it publishes, for messages.
pub(super) fn publish_patiently<T>(
    clock: &dyn Clock,
    deadline: Instant,
    place: &dyn Display,
    mut attempt: impl FnMut() -> Result<T, PublishError>,
) -> anyhow::Result<T> {
    let until = deadline.max(clock.instant() + PATIENCE);
    loop {
        match attempt() {
            Ok(published) => return Ok(published),
            Err(PublishError::MayPass(err)) if !clock.until(until).is_zero() => {
                debug!("{place}: {err:#}; trying again");
                clock.sleep(PAUSE);
            }
            Err(PublishError::MayPass(err) | PublishError::Final(err)) => return Err(err),
        }
    }
}
