//! Requests whose answers were lost. On classic each of them may have minted a token, within the day's quota. On WeCom a token may have
//! been issued in answer to the first of them, and its age counts from there.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::UtcDateTime;

use super::{DAY, RecordedTime};
use crate::model::document::whole_seconds;

/// How many answers may be lost before requests are rationed.
pub(crate) const LOST_IN_A_ROW: usize = 20;

/// The time between requests that are rationed: 180 a day, so that 200 answers are lost in a day at most. That is a tenth of classic's
/// daily quota, like the limit of forced requests there.
pub(crate) const LOST_INTERVAL: Duration = Duration::from_secs(8 * 60);

/// How many answers can be lost in a day under these two limits.
const MAX_LOST: usize = LOST_IN_A_ROW + 180;

/// The times of requests that were not answered, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct LostRequests(Vec<RecordedTime>);

/// The answers that were lost within a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LostAnswers {
    pub(crate) count: usize,
    pub(crate) last_at: UtcDateTime,
    /// When the next request may be sent that mints a token; `None` if it may be sent now.
    pub(crate) next_at: Option<UtcDateTime>,
}

impl LostRequests {
    /// Parses what [`LostRequests::to_json`] returns, without the requests that no longer count at `now`.
    pub(crate) fn parse(json: &[u8], now: UtcDateTime) -> Option<LostRequests> {
        if json.is_empty() {
            return Some(LostRequests::default());
        }
        let mut lost: LostRequests = serde_json::from_slice(json).ok()?;
        lost.prune(now);
        lost.put_in_order();
        Some(lost)
    }

    /// Returns the requests as a list in JSON; an empty text if there are none.
    pub(crate) fn to_json(&self) -> String {
        match self.is_empty() {
            true => String::new(),
            false => serde_json::to_string(self).unwrap_or_default(), // Strings always serialize.
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds those of the `others` that are missing here.
    pub(crate) fn add(&mut self, others: &LostRequests) {
        let mut known = self.0.clone();
        for at in &others.0 {
            match known.iter().position(|it| it == at) {
                Some(index) => drop(known.swap_remove(index)),
                None => self.0.push(*at),
            }
        }
        self.put_in_order();
    }

    /// Forgets the requests up to `at`.
    pub(crate) fn forget_until(&mut self, at: UtcDateTime) {
        self.0.retain(|it| it.0 > at);
    }

    /// Notes that a request is about to be sent at `at`. Its answer counts as lost until [`LostRequests::note_answer`]: the
    /// process may end before.
    pub(crate) fn note(&mut self, at: UtcDateTime) {
        self.0.push(RecordedTime(whole_seconds(at)));
        self.keep_latest();
    }

    fn put_in_order(&mut self) {
        self.0.sort_unstable();
        self.keep_latest();
    }

    fn keep_latest(&mut self) {
        let superfluous = self.0.len().saturating_sub(MAX_LOST);
        self.0.drain(..superfluous);
    }

    /// Notes that the request of `at` was answered.
    pub(crate) fn note_answer(&mut self, at: UtcDateTime) {
        if let Some(index) = self.0.iter().rposition(|it| *it == RecordedTime(whole_seconds(at))) {
            self.0.remove(index);
        }
    }

    /// Forgets all requests.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the time of the first request less than `life` before `now`: a token of this `life` that it brought may still live.
    pub(crate) fn since(&self, life: Duration, now: UtcDateTime) -> Option<UtcDateTime> {
        self.0.iter().map(|at| at.0).find(|at| now - *at < life)
    }

    /// Returns the answers lost within a day before `now`; `None` if there are none.
    pub(crate) fn of_day(&self, now: UtcDateTime) -> Option<LostAnswers> {
        let mut today = self.0.iter().filter(|at| now - at.0 < DAY);
        let (count, last_at) = (today.clone().count(), today.next_back()?.0);
        let next_at = last_at.saturating_add(LOST_INTERVAL.try_into().unwrap_or_default());
        let is_put_off = count >= LOST_IN_A_ROW && now < next_at;
        Some(LostAnswers { count, last_at, next_at: is_put_off.then_some(next_at) })
    }

    /// Drops the requests of more than a day ago, and those from the future.
    pub(super) fn prune(&mut self, now: UtcDateTime) {
        self.0.retain(|at| at.is_within(DAY, now));
    }
}
