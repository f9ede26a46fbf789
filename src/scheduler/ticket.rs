//! When one ticket is requested next. Its failures are counted apart from the token's: they do not delay the token. Pure: time and random
//! numbers come in.

use std::time::{Duration, Instant};

use super::backoff;
use super::event::Event;
use super::retry::{FailureRecord, Moment, Retry};
use crate::model::api::Rules;
use crate::model::document::Document;
use crate::model::status::RefreshFailure;
use crate::os::timestamp::Timestamp;
use crate::refresh::trouble::TroubleCause;
use crate::refresh::{Outcome, RefreshError};

/// The pause if WeChat still says that the token is dead after it was replaced. A person has to look, and each attempt
/// may cost a forced request, of which there are 20 a day.
const PAUSE_AFTER_DEAD_TOKEN: Duration = Duration::from_secs(60 * 60);

/// The least pause while a dead token cannot be replaced yet.
const MIN_PAUSE_WITH_DEAD_TOKEN: Duration = Duration::from_secs(60);

/// The schedule of one ticket.
#[derive(Debug, Default)]
pub(super) struct TicketSchedule {
    pub(super) retry: Retry,
    /// Whether the last attempt failed because the token is dead and could not be replaced yet.
    waits_for_token: bool,
}

impl TicketSchedule {
    /// Returns the time until the ticket is to be requested; `None` while a request is under way. `document` is the published ticket's.
    pub(super) fn wait(
        &self,
        document: Option<&Document>,
        refresh_before: Duration,
        wall: Timestamp,
        now: Instant,
    ) -> Option<Duration> {
        let due_in = match document {
            // After a failure the retry that was announced takes place. If another process has published a ticket meanwhile, it ends
            // the failure.
            Some(document) if self.retry.failures.last().is_none() => {
                let margin = document.ticket_margin(refresh_before);
                backoff::until_due(document, wall, Rules::OF_TICKETS, margin)
            }
            _ => Duration::ZERO,
        };
        (!self.retry.is_running()).then(|| due_in.max(self.retry.delay(now)))
    }

    /// Takes in the result of a refresh. Returns the events to log. `replaceable_in` is the time until a dead token may be replaced, if the
    /// refresh failed because of one and it could not be replaced yet.
    pub(super) fn finish(
        &mut self,
        outcome: Result<Outcome, RefreshError>,
        replaceable_in: Option<Duration>,
        at: Moment,
    ) -> Vec<Event> {
        let was_reset = self.retry.finish(true);
        self.waits_for_token = replaceable_in.is_some();
        let error = match outcome {
            Ok(outcome) => {
                let published = match outcome {
                    Outcome::Kept(_) => None,
                    Outcome::Renewed(document) | Outcome::Confirmed(document) => {
                        Some(Event::Published(document.token.fingerprint()))
                    }
                };
                return published.into_iter().chain(self.retry.failures.clear()).collect();
            }
            Err(error) => error,
        };
        let retry_after = match &error {
            RefreshError::Upstream(why) if why.is_dead_token() => Some(
                replaceable_in
                    .map_or(PAUSE_AFTER_DEAD_TOKEN, |span| span.max(MIN_PAUSE_WITH_DEAD_TOKEN)),
            ),
            error => error.retry_after(),
        };
        let event = self.retry.failures.record(&error, retry_after, at);
        // This attempt began before the reset: what the operator fixed has not been tried yet.
        if was_reset {
            self.retry.failures.allow_retry(at.now);
        }
        event.into_iter().collect()
    }

    /// Notes that another token was published. A ticket that waits for one is requested at once.
    pub(super) fn note_new_token(&mut self, now: Instant) {
        if self.waits_for_token {
            self.retry.failures.allow_retry(now);
        }
    }

    /// Returns what `on_trouble` is told of the last failure, if no success followed.
    pub(super) fn cause(&self) -> Option<Option<TroubleCause>> {
        self.retry.failures.last().map(FailureRecord::cause)
    }

    /// Returns the last failure, if no success followed.
    pub(super) fn failure(&self) -> Option<RefreshFailure> {
        self.retry.failures.last().map(FailureRecord::status)
    }
}

#[cfg(test)]
mod tests;
