//! What failed, how often, and when it is tried again: of a token, or of a ticket. Says when that is news. Pure: the time
//! and random come in.

use std::time::{Duration, Instant};

use time::UtcDateTime;

use super::backoff;
use crate::model::status::{RefreshFailure, Unavailable};
use crate::refresh::RefreshError;

/// How often an operator hears of the same trouble again.
const BETWEEN_LINES: Duration = Duration::from_secs(10 * 60);

/// What clients are told of trouble on this machine.
const LOCAL: &str = "something on the server is in the way, and what it says on stderr tells what; its operator can mend it. \
                     服务器本地故障，详见其日志，请联系管理员。";

/// The failures since the last success.
#[derive(Debug)]
pub(super) struct Trouble {
    at: UtcDateTime,
    failure: String,
    /// What clients are told of it.
    why: String,
    /// How often it failed since the operator last said that something was mended.
    in_a_row: u32,
    /// Before this another try is pointless.
    pub(super) retry_at: Instant,
    told_at: Option<Instant>,
}

impl Trouble {
    /// Notes one more failure; gives the pause that follows, if the operator is to hear of it. `pointless` is how long another
    /// try is known to be.
    pub(super) fn note(
        trouble: &mut Option<Trouble>,
        failure: &RefreshError,
        pointless: Option<Duration>,
        wall: UtcDateTime,
        now: Instant,
        random: u64,
    ) -> Option<Duration> {
        let text = failure.to_string();
        let in_a_row = trouble.as_ref().map_or(1, |trouble| trouble.in_a_row + 1);
        let pause = backoff::pause(in_a_row, pointless, random);
        let told_at = trouble.take().filter(|it| it.failure == text).and_then(|it| it.told_at);
        let is_told = told_at.is_some_and(|at| now < at + BETWEEN_LINES);
        *trouble = Some(Trouble {
            at: wall,
            failure: text.clone(),
            why: match failure {
                RefreshError::Upstream(_) | RefreshError::AnswerLost { .. } => text,
                // Of the machine itself clients learn nothing.
                RefreshError::Locked | RefreshError::Local(_) | RefreshError::Foreign { .. } => {
                    LOCAL.to_owned()
                }
            },
            in_a_row,
            retry_at: now + pause,
            told_at: if is_told { told_at } else { Some(now) },
        });
        (!is_told).then_some(pause)
    }

    /// Whether there is no reason to believe that it has been mended.
    pub(super) fn stands(&self) -> bool {
        self.in_a_row > 0
    }

    /// Lets it be tried again at once, and be told again should it fail again.
    pub(super) fn forgive(&mut self, now: Instant) {
        (self.in_a_row, self.retry_at, self.told_at) = (0, now, None);
    }

    /// When it last failed, and how.
    pub(super) fn failure(&self) -> RefreshFailure {
        RefreshFailure { at: self.at, message: self.failure.clone() }
    }

    /// The same for a client; `what` says what there is none of.
    pub(super) fn lack(&self, what: &str, now: Instant) -> Unavailable {
        Unavailable {
            why: format!("{what}: {}", self.why),
            retry_after: self.retry_at.saturating_duration_since(now),
        }
    }
}
