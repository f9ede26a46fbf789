//! How often a client's word may cost something: a forced mint, which WeChat counts and which kills a token, or a
//! question whether a token is alive. Pure: the time comes in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// WeChat forces no two tokens within this time, and nobody needs two.
/// <https://developers.weixin.qq.com/doc/service/api/base/api_getstableaccesstoken>
pub(super) const BETWEEN_FORCED: Duration = Duration::from_secs(30);

/// So many questions may follow one another at once.
const PROBES: u32 = 3;

/// In this time one more becomes possible: 2,880 a day at most.
const BETWEEN_PROBES: Duration = Duration::from_secs(30);

/// The forced mints of an account.
#[derive(Debug)]
pub(super) struct Forced {
    per_day: usize,
    at: VecDeque<Instant>,
}

/// Why no mint is to be forced now, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Withheld {
    TooSoon(Duration),
    DayUsedUp(Duration),
}

impl Forced {
    /// WeChat's day has so many of them, or we let it have no more.
    pub(super) fn new(per_day: usize) -> Forced {
        Forced { per_day, at: VecDeque::new() }
    }

    /// Whether one may be forced now.
    pub(super) fn check(&mut self, now: Instant) -> Result<(), Withheld> {
        let since = |at: &Instant| now.duration_since(*at);
        while self.at.front().is_some_and(|at| since(at) >= DAY) {
            self.at.pop_front();
        }
        match (self.at.back(), self.at.front()) {
            (Some(last), _) if since(last) < BETWEEN_FORCED => {
                Err(Withheld::TooSoon(BETWEEN_FORCED - since(last)))
            }
            (_, Some(first)) if self.at.len() >= self.per_day => {
                Err(Withheld::DayUsedUp(DAY - since(first)))
            }
            _ => Ok(()),
        }
    }

    /// One was forced.
    pub(super) fn note(&mut self, now: Instant) {
        self.at.push_back(now);
    }
}

/// The questions whether an account's token is alive.
#[derive(Debug)]
pub(super) struct Probes {
    left: u32,
    /// Since when the next one has been growing.
    since: Instant,
}

impl Probes {
    pub(super) fn new(now: Instant) -> Probes {
        Probes { left: PROBES, since: now }
    }

    /// Takes one, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        while self.left < PROBES && now.duration_since(self.since) >= BETWEEN_PROBES {
            self.left += 1;
            self.since += BETWEEN_PROBES;
        }
        if self.left == PROBES {
            self.since = now;
        }
        let taken = self.left > 0;
        self.left -= u32::from(taken);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mint_in_thirty_seconds_and_no_more_than_the_day_has() {
        let start = Instant::now();
        let at = |secs: u64| start + Duration::from_secs(secs);
        let mut forced = Forced::new(3);
        for n in 0..3 {
            assert_eq!(forced.check(at(30 * n)), Ok(()));
            forced.note(at(30 * n));
        }
        assert_eq!(forced.check(at(89)), Err(Withheld::TooSoon(Duration::from_secs(1))));
        assert_eq!(forced.check(at(90)), Err(Withheld::DayUsedUp(DAY - Duration::from_secs(90))));
        assert_eq!(forced.check(at(86_400)), Ok(()), "the first is a day ago");
        forced.note(at(86_400));
        assert!(matches!(forced.check(at(86_429)), Err(Withheld::TooSoon(_))));
        assert_eq!(forced.check(at(86_430)), Ok(()), "so is the second");
    }

    #[test]
    fn questions_come_in_a_burst_and_then_twice_a_minute() {
        let start = Instant::now();
        let at = |secs: u64| start + Duration::from_secs(secs);
        let mut probes = Probes::new(start);
        assert_eq!(
            [0, 0, 1, 1, 29].map(|secs| probes.take(at(secs))),
            [true, true, true, false, false]
        );
        assert_eq!([30, 31, 59].map(|secs| probes.take(at(secs))), [true, false, false]);
        assert_eq!([60, 60].map(|secs| probes.take(at(secs))), [true, false]);
        let later = [1000, 1000, 1000, 1000].map(|secs| probes.take(at(secs)));
        assert_eq!(later, [true, true, true, false]);
    }
}
