//! How long one attempt at WeChat may take: no longer than the run has. What it sends, it sends under the lease.

use std::time::{Duration, Instant};

use super::transaction::Transaction;
use super::{NO_TIME, Refresh, RefreshError};
use crate::sabotage::{Bug, has_bug};
use crate::upstream::{SENT_WITHIN, UpstreamError};

/// One attempt may take this long, or half of the time left if that is more. So an answer that never comes leaves time
/// for another attempt, and a longer --timeout also waits longer for one answer.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// No request is sent with less time than this left: WeChat might mint a token, and the answer would not be waited for.
/// On the classic API that invalidates the published token.
pub(super) const MIN_ATTEMPT: Duration = Duration::from_millis(500);

impl Refresh<'_> {
    /// Fails if too little time is left for an attempt.
    pub(super) fn check_time(&self, deadline: Instant) -> Result<(), RefreshError> {
        if self.clock.until(deadline) < MIN_ATTEMPT {
            return Err(RefreshError::Upstream(UpstreamError::unreachable(
                NO_TIME.text(),
                true,
                false,
            )));
        }
        Ok(())
    }

    /// Returns the time for an attempt, whose request is sent before the lease ends: one that comes later, because this process
    /// was stopped, would be one too many. Fails if the lease is lost.
    pub(super) fn timeout_under_lease(
        &self,
        transaction: &Transaction<'_>,
        deadline: Instant,
    ) -> Result<Duration, RefreshError> {
        let timeout = self.attempt_timeout(deadline);
        if has_bug(Bug::LockNotLookedAt) {
            return Ok(timeout);
        }
        let sent_within = timeout.min(SENT_WITHIN);
        if transaction.lease_left() < sent_within {
            transaction.check()?;
        }
        let left = transaction.lease_left();
        Ok(if left < sent_within { left } else { timeout })
    }

    pub(super) fn attempt_timeout(&self, deadline: Instant) -> Duration {
        let left = self.clock.until(deadline);
        left.min(ATTEMPT_TIMEOUT.max(left / 2))
    }
}
