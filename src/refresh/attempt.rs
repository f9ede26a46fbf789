//! One attempt to get a token from WeChat: what is done before its request is sent, and how long it may take. It takes no longer
//! than the run has left, and its request is sent under the lease.

use std::time::{Duration, Instant};

use anyhow::anyhow;

use super::record::RecordSession;
use super::transaction::Transaction;
use super::{NO_TIME, Refresh, RefreshError, TOLD_TO_END};
use crate::os::ending::Ending;
use crate::os::timestamp::Timestamp;
use crate::sabotage::{Bug, has_bug};
use crate::upstream::{RefreshMode, SENT_WITHIN, UpstreamError};

/// One attempt may take this long, or half of the time left if that is more. So an answer that never comes leaves time
/// for another attempt, and a longer --timeout also waits longer for one answer.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// No request is sent with less time than this left: WeChat might mint a token, and the answer would not be waited for.
/// On the classic API that invalidates the published token.
pub(super) const MIN_ATTEMPT: Duration = Duration::from_millis(500);

/// The times of a request that is to be sent now.
pub(super) struct RequestTiming {
    /// The instant before the request is sent.
    pub(super) requested_at: Timestamp,
    /// How long the answer may take.
    pub(super) timeout: Duration,
}

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

    /// Notes a request in this mode, in the record and in the published document if it may mint a token. Fails if no request is to
    /// be sent.
    pub(super) fn begin_attempt(
        &self,
        mode: RefreshMode,
        transaction: &mut Transaction<'_>,
        session: &mut Option<RecordSession<'_>>,
        deadline: Instant,
    ) -> Result<RequestTiming, RefreshError> {
        if self.ending.is_some_and(Ending::begin) {
            return Err(anyhow!(TOLD_TO_END.text()).into());
        }
        transaction.check()?;
        if let Some(session) = session {
            session.check().map_err(RefreshError::Upstream)?;
        }
        let requested_at = self.clock.now();
        if self.mints(mode) && !has_bug(Bug::NotShortenedBeforeMint) {
            transaction.shorten_before_mint(requested_at)?;
        }
        if let Some(session) = session {
            session.note_request(requested_at.wall);
        }
        let lost = session.as_mut().and_then(RecordSession::unshared);
        let noted = lost.map_or(Ok(()), |lost| transaction.note_lost(lost));
        let timeout = match noted {
            Ok(()) => self.timeout_under_lease(transaction, deadline),
            Err(err) => Err(err.into()),
        };
        let timeout = timeout.inspect_err(|_| {
            session.iter_mut().for_each(|session| session.note_unsent(requested_at.wall));
        })?;
        Ok(RequestTiming { requested_at, timeout })
    }

    /// Returns the time for an attempt. Its request is sent before the lease ends: afterwards, because this process was stopped, another
    /// process may have sent its own. Fails if the lease is lost.
    fn timeout_under_lease(
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

    /// Returns the time for an attempt, whatever the lease.
    pub(super) fn attempt_timeout(&self, deadline: Instant) -> Duration {
        let left = self.clock.until(deadline);
        left.min(ATTEMPT_TIMEOUT.max(left / 2))
    }
}
