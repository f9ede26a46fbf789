//! The part of the record about `on_trouble`: what it was told, and which process is to tell it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::UtcDateTime;

use super::{Record, RecordedTime};
use crate::model::document::whole_seconds;
use crate::model::secret::Secret;

/// For how long a process may claim the telling at most: the longest duration of a config, and an hour.
const MAX_CLAIM: time::Duration = time::Duration::hours(25);

/// A trouble, and what `on_trouble` knows of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RecordedTrouble {
    since: RecordedTime,
    /// Whether `on_trouble` was told that it began.
    is_told: bool,
    /// A process tells of it until then. Later, this process is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claimed_until: Option<RecordedTime>,
    /// The hash of a token that was rejected and could not be replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rejected: Option<String>,
}

impl RecordedTrouble {
    /// Whether a process is telling of it at `now`. A claim that would last too long comes from a clock that was set back since.
    fn is_claimed(&self, now: UtcDateTime) -> bool {
        let left = self.claimed_until.map(|until| until.0 - now);
        left.is_some_and(|left| left.is_positive() && left <= MAX_CLAIM)
    }

    fn claim(&mut self, now: UtcDateTime, hold: Duration) -> TroubleClaim {
        let hold = MAX_CLAIM.min(hold.try_into().unwrap_or(MAX_CLAIM));
        self.claimed_until = Some(RecordedTime(whole_seconds(now.saturating_add(hold))));
        TroubleClaim::Ours(self.since.0)
    }
}

/// Which process is to tell `on_trouble`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TroubleClaim {
    /// This process. The trouble began at this time.
    Ours(UtcDateTime),
    /// Another process, which is doing it.
    Held,
    /// None: there is nothing to tell.
    Needless,
}

/// The two events of a trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TroubleEvent {
    Begin,
    End,
}

impl Record {
    /// Whether there is a trouble, told or not.
    pub(crate) fn has_trouble(&self) -> bool {
        self.trouble.is_some()
    }

    /// Returns since when there is a trouble, told or not.
    pub(crate) fn trouble_since(&self) -> Option<UtcDateTime> {
        self.trouble.as_ref().map(|trouble| trouble.since.0)
    }

    /// Notes that there is trouble, and the published token if it was `rejected`. Returns whether `on_trouble` is to be told; if this
    /// process is to do it, no other one does until `now + hold`.
    pub(crate) fn claim_begin(
        &mut self,
        rejected: Option<&Secret>,
        now: UtcDateTime,
        hold: Duration,
    ) -> TroubleClaim {
        let rejected = rejected.map(|token| self.hash(token));
        let since = RecordedTime(whole_seconds(now));
        let trouble = self.trouble.get_or_insert(RecordedTrouble {
            since,
            is_told: false,
            claimed_until: None,
            rejected: None,
        });
        trouble.rejected = rejected.or(trouble.rejected.take());
        match trouble.is_told {
            _ if trouble.is_claimed(now) => TroubleClaim::Held,
            true => TroubleClaim::Needless,
            false => trouble.claim(now, hold),
        }
    }

    /// Notes that the trouble is over. It goes on if the token that was `kept` without asking WeChat is the rejected one. Returns whether
    /// `on_trouble` is to be told, as [`Record::claim_begin`] does. The end of a trouble is told only if its begin was.
    pub(crate) fn claim_end(
        &mut self,
        kept: Option<&Secret>,
        now: UtcDateTime,
        hold: Duration,
    ) -> TroubleClaim {
        let kept = kept.map(|token| self.hash(token));
        let Some(trouble) = &mut self.trouble else { return TroubleClaim::Needless };
        match trouble.is_told {
            _ if kept.is_some() && kept == trouble.rejected => TroubleClaim::Needless,
            _ if trouble.is_claimed(now) => TroubleClaim::Held,
            true => trouble.claim(now, hold),
            false => {
                self.trouble = None;
                TroubleClaim::Needless
            }
        }
    }

    /// Notes that `on_trouble` was told of this event. If it could not be told, it is to be told again later.
    pub(crate) fn note_told(&mut self, event: TroubleEvent, is_told: bool) {
        let Some(trouble) = &mut self.trouble else { return };
        trouble.claimed_until = None;
        match (event, is_told) {
            (_, false) => {}
            (TroubleEvent::Begin, true) => trouble.is_told = true,
            (TroubleEvent::End, true) => self.trouble = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> UtcDateTime {
        UtcDateTime::UNIX_EPOCH + time::Duration::seconds(secs)
    }

    fn record() -> Record {
        Record::new("wx1").unwrap()
    }

    #[test]
    fn a_trouble_is_one_processs_to_tell_until_that_is_late() {
        use TroubleClaim::{Held, Needless, Ours};
        let mut record = record();
        let hold = Duration::from_secs(40);
        assert_eq!(record.claim_end(None, at(0), hold), Needless);
        assert_eq!(record.claim_begin(None, at(1), hold), Ours(at(1)));
        assert_eq!(record.claim_begin(None, at(40), hold), Held);
        assert_eq!(record.claim_end(None, at(40), hold), Held);
        // The process was killed.
        assert_eq!(record.claim_begin(None, at(41), hold), Ours(at(1)));
        record.note_told(TroubleEvent::Begin, false);
        assert_eq!(record.claim_begin(None, at(42), hold), Ours(at(1)));
        record.note_told(TroubleEvent::Begin, true);
        assert_eq!(record.claim_begin(None, at(43), hold), Needless);
        assert_eq!(record.claim_end(None, at(50), hold), Ours(at(1)));
        assert_eq!(record.claim_end(None, at(51), hold), Held);
        record.note_told(TroubleEvent::End, true);
        assert!(!record.has_trouble());
        // The clock was set back during a claim.
        record.claim_begin(None, at(1_000_000), hold);
        assert_eq!(record.claim_begin(None, at(60), hold), Ours(at(1_000_000)));
    }

    #[test]
    fn a_trouble_that_was_not_told_ends_untold_and_not_while_the_rejected_token_stays() {
        use TroubleClaim::{Needless, Ours};
        let mut record = record();
        let hold = Duration::from_secs(40);
        let [dead, good] = ["T1", "T2"].map(|token| Secret::new(token.to_owned()));
        record.claim_begin(Some(&dead), at(1), hold);
        record.note_told(TroubleEvent::Begin, false);
        assert_eq!(record.claim_end(Some(&dead), at(2), hold), Needless);
        assert!(record.has_trouble());
        assert_eq!(record.claim_end(Some(&good), at(3), hold), Needless);
        assert!(!record.has_trouble());
        record.claim_begin(Some(&dead), at(4), hold);
        record.note_told(TroubleEvent::Begin, true);
        assert_eq!(record.claim_begin(None, at(5), hold), Needless);
        assert_eq!(record.claim_end(Some(&dead), at(6), hold), Needless);
        assert_eq!(record.claim_end(None, at(7), hold), Ours(at(4)));
    }
}
