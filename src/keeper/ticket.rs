//! The schedule of one ticket inside of `serve --refresh`: when it is asked for next. A failure is its own: it neither holds
//! up the token nor is it repeated in a hurry. Pure: what happened, and when, comes in.

use std::time::{Duration, Instant};

use time::UtcDateTime;

use super::pace;
use crate::api::Api;
use crate::refresh::{Failure, Outcome};
use crate::token::{Document, TicketType};

/// Where even another token was no cure a person has to look; each try may cost a forced token, of which a day has 20.
const AFTER_A_DEAD_TOKEN: Duration = Duration::from_secs(60 * 60);

/// What is known of one ticket.
#[derive(Debug)]
pub(super) struct TicketSchedule {
    pub(super) kind: TicketType,
    is_under_way: bool,
    in_a_row: u32,
    not_before: Instant,
}

impl TicketSchedule {
    pub(super) fn new(kind: TicketType, now: Instant) -> TicketSchedule {
        TicketSchedule { kind, is_under_way: false, in_a_row: 0, not_before: now }
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.is_under_way
    }

    /// How long it is until it is to be asked for; `None` while that is done. `document` is what is published.
    pub(super) fn wait(
        &self,
        document: Option<&Document>,
        refresh_before: Duration,
        wall: UtcDateTime,
        now: Instant,
    ) -> Option<Duration> {
        let due_in = document
            .map_or(Duration::ZERO, |it| pace::until_due(it, wall, Api::Stable, refresh_before));
        let rest = self.not_before.saturating_duration_since(now);
        (!self.is_under_way).then(|| due_in.max(rest))
    }

    pub(super) fn begin(&mut self) {
        self.is_under_way = true;
    }

    /// Remembers what came of it; after a failure how long it is left alone.
    pub(super) fn end(
        &mut self,
        outcome: &Result<Outcome, Failure>,
        wall: UtcDateTime,
        now: Instant,
        chance: u64,
    ) -> Option<Duration> {
        self.is_under_way = false;
        match outcome {
            Ok(
                Outcome::Kept(document) | Outcome::Renewed(document) | Outcome::Confirmed(document),
            ) => {
                self.in_a_row = 0;
                // Where it is due all the same, WeChat gives no other yet.
                self.not_before = now + pace::wait_while_due(Api::Stable, document.left(wall));
                None
            }
            Err(failure) => {
                self.in_a_row += 1;
                let pointless = match failure {
                    Failure::Asking(why) if why.is_of_dead_token() => Some(AFTER_A_DEAD_TOKEN),
                    failure => failure.retry_after(),
                };
                let pause = pace::pause(self.in_a_row, pointless, chance);
                self.not_before = now + pause;
                Some(pause)
            }
        }
    }

    /// The operator may have mended what was in the way.
    pub(super) fn hangup(&mut self, now: Instant) {
        (self.in_a_row, self.not_before) = (0, now);
    }
}
