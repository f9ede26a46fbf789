//! How long to wait before the next request: briefly after a failure that passes by itself, long after one that a person
//! has to fix, and never so briefly that it is a busy loop. Pure: the past and random numbers come in.

use std::time::Duration;

use crate::model::api::Rules;
use crate::model::document::Document;
use crate::os::clock::with_jitter;
use crate::os::timestamp::Timestamp;

/// The pause after a first failure that may pass by itself. Each further one in a row doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// The longest pause after a failure that may pass by itself: the end of an outage is noticed within a minute.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// The least time between the starts of two jobs for the same document.
pub(super) const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// The longest wait while a token is due and a request costs nothing. WeChat advises to call stable_token at least every
/// five minutes. <https://developers.weixin.qq.com/doc/service/api/base/api_getstableaccesstoken>
const MAX_WAIT_WHILE_DUE: Duration = Duration::from_secs(5 * 60);

/// The wait after WeChat issued a dead token again.
pub(super) const WAIT_AFTER_SAME_TOKEN: Duration = MAX_WAIT_WHILE_DUE;

/// Returns the pause after the last of `in_a_row` failures (1 and up), with up to a tenth of jitter. `retry_after` is the time for which
/// another attempt is known to be pointless.
pub(super) fn pause(in_a_row: u32, retry_after: Option<Duration>, random: u64) -> Duration {
    let pause = retry_after.unwrap_or_else(|| {
        let doubled = FIRST_PAUSE * 2u32.pow(in_a_row.saturating_sub(1).min(8));
        doubled.min(MAX_PAUSE)
    });
    with_jitter(pause, 0.1, random)
}

/// Returns the time until the token is due; zero if it is due now.
pub(super) fn until_due(
    document: &Document,
    now: Timestamp,
    rules: Rules,
    refresh_before: Duration,
) -> Duration {
    if rules == Rules::Mirror {
        return document.time_until_stale(now);
    }
    if document.is_due(now, rules, refresh_before) {
        return Duration::ZERO;
    }
    document.left(now).saturating_sub(refresh_before).max(MIN_INTERVAL)
}

/// Returns the wait after WeChat issued a token that is due from the start and has this much life left. On classic the next request
/// would invalidate it. On stable WeChat returns the same token until its last five minutes, whatever the margin here. On work it does
/// so until the token's end, so that the next request comes shortly before that.
pub(super) fn wait_while_due(rules: Rules, left: Duration) -> Duration {
    match rules {
        Rules::Classic => (left / 2).max(MIN_INTERVAL),
        Rules::Stable => (left / 4).clamp(MIN_INTERVAL, MAX_WAIT_WHILE_DUE),
        Rules::Work => left.saturating_sub(MIN_INTERVAL).clamp(MIN_INTERVAL, MAX_WAIT_WHILE_DUE),
        // The source may have another token at any time.
        Rules::Mirror => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use time::UtcDateTime;

    use super::*;
    use crate::model::secret::Secret;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn pauses_double_up_to_a_minute_with_a_tenth_of_jitter() {
        let pauses = [1, 2, 3, 4, 5, 6, 7, 1000].map(|n| pause(n, None, 0).as_secs());
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(pause(6, None, 999).as_secs(), 65);
        assert!((0..5000).all(|random| (secs(60)..=secs(66)).contains(&pause(9, None, random))));
    }

    #[test]
    fn a_known_retry_delay_is_used_from_the_first_failure_on() {
        assert_eq!(pause(1, Some(secs(3600)), 0), secs(3600));
        assert_eq!(pause(5, Some(secs(300)), 500), secs(315));
    }

    #[test]
    fn the_wait_while_due_is_a_part_of_the_life_left() {
        let stable = [7200, 400, 0].map(|left| wait_while_due(Rules::Stable, secs(left)));
        assert_eq!(stable, [secs(300), secs(100), secs(1)]);
        let classic = [7200, 400, 0].map(|left| wait_while_due(Rules::Classic, secs(left)));
        assert_eq!(classic, [secs(3600), secs(200), secs(1)]);
    }

    #[test]
    fn a_token_is_due_at_its_margin() {
        let now = Timestamp::of_wall(UtcDateTime::UNIX_EPOCH);
        let token = Document::new("wx1", Secret::new("T1".to_owned()), secs(7200), now);
        let until = |at| until_due(&token, now.plus(secs(at)), Rules::Stable, secs(300));
        assert_eq!([0, 6899, 6900, 9000].map(until), [6900, 1, 0, 0].map(secs));
        let shortly_before = now.plus(Duration::from_millis(6_899_900));
        let wait = until_due(&token, shortly_before, Rules::Stable, secs(300));
        assert_eq!(wait, secs(1), "no busy loop");
    }
}
