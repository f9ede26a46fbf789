//! Quotas on what a client's report may cause: forced requests, which WeChat counts and which invalidate a token, and
//! probes. Pure: the time comes in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// WeChat allows no two forced requests within this time.
/// <https://developers.weixin.qq.com/doc/service/api/base/api_getstableaccesstoken>
const FORCED_INTERVAL: Duration = Duration::from_secs(30);

/// How many probes may follow one another at once.
const PROBE_BURST: u32 = 3;

/// The time in which one more probe becomes available: 2,880 a day at most.
const PROBE_INTERVAL: Duration = Duration::from_secs(30);

/// The forced requests of an account.
#[derive(Debug)]
pub(super) struct ForcedQuota {
    per_day: usize,
    /// When they were made, in the last day.
    made_at: VecDeque<Instant>,
}

/// Why no request is to be forced now, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QuotaExceeded {
    TooSoon(Duration),
    DayUsedUp(Duration),
}

impl ForcedQuota {
    pub(super) fn new(per_day: usize) -> ForcedQuota {
        ForcedQuota { per_day, made_at: VecDeque::new() }
    }

    /// Fails if no request is to be forced now.
    pub(super) fn check(&self, now: Instant) -> Result<(), QuotaExceeded> {
        let since = |at: &Instant| now.duration_since(*at);
        let mut today = self.made_at.iter().skip_while(|at| since(at) >= DAY);
        let (count, first, last) = (today.clone().count(), today.next(), self.made_at.back());
        match (last, first) {
            (Some(last), _) if since(last) < FORCED_INTERVAL => {
                Err(QuotaExceeded::TooSoon(FORCED_INTERVAL - since(last)))
            }
            (_, Some(first)) if count >= self.per_day => {
                Err(QuotaExceeded::DayUsedUp(DAY - since(first)))
            }
            _ => Ok(()),
        }
    }

    /// Counts a forced request.
    pub(super) fn count(&mut self, now: Instant) {
        self.made_at.retain(|at| now.duration_since(*at) < DAY);
        self.made_at.push_back(now);
    }
}

/// The probes whether an account's token is alive: a token bucket.
#[derive(Debug)]
pub(super) struct ProbeQuota {
    left: u32,
    /// Since when the next one has been growing.
    since: Instant,
}

impl ProbeQuota {
    pub(super) fn new(now: Instant) -> ProbeQuota {
        ProbeQuota { left: PROBE_BURST, since: now }
    }

    /// Takes one. Returns whether there was one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        while self.left < PROBE_BURST && now.duration_since(self.since) >= PROBE_INTERVAL {
            self.left += 1;
            self.since += PROBE_INTERVAL;
        }
        if self.left == PROBE_BURST {
            self.since = now;
        }
        let is_taken = self.left > 0;
        self.left -= u32::from(is_taken);
        is_taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_forced_once_in_thirty_seconds_and_not_more_often_than_a_day_allows() {
        let start = Instant::now();
        let at = |secs: u64| start + Duration::from_secs(secs);
        let mut quota = ForcedQuota::new(3);
        for n in 0..3 {
            assert_eq!(quota.check(at(30 * n)), Ok(()));
            quota.count(at(30 * n));
        }
        let too_soon = QuotaExceeded::TooSoon(Duration::from_secs(1));
        assert_eq!(quota.check(at(89)), Err(too_soon));
        let used_up = QuotaExceeded::DayUsedUp(DAY - Duration::from_secs(90));
        assert_eq!(quota.check(at(90)), Err(used_up));
        assert_eq!(quota.check(at(86_400)), Ok(()), "the first is a day ago");
        quota.count(at(86_400));
        assert!(matches!(quota.check(at(86_429)), Err(QuotaExceeded::TooSoon(_))));
        assert_eq!(quota.check(at(86_430)), Ok(()), "the second is a day ago");
    }

    #[test]
    fn probes_come_in_a_burst_of_three_and_then_twice_a_minute() {
        let start = Instant::now();
        let at = |secs: u64| start + Duration::from_secs(secs);
        let mut quota = ProbeQuota::new(start);
        assert_eq!(
            [0, 0, 1, 1, 29].map(|secs| quota.take(at(secs))),
            [true, true, true, false, false]
        );
        assert_eq!([30, 31, 59].map(|secs| quota.take(at(secs))), [true, false, false]);
        assert_eq!([60, 60].map(|secs| quota.take(at(secs))), [true, false]);
        let later = [1000, 1000, 1000, 1000].map(|secs| quota.take(at(secs)));
        assert_eq!(later, [true, true, true, false]);
    }
}
