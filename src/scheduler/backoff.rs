//! When WeChat is asked next: soon after what passes by itself, rarely after what a person must mend, and never in a
//! tight loop. Pure: what happened and random come in.

use std::time::Duration;

use time::UtcDateTime;

use crate::model::api::Rules;
use crate::model::document::Document;

/// The pause after a first failure that may pass by itself; each further one in a row doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// The longest such pause: WeChat's coming back is noticed within a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// For want of a token WeChat is never asked twice within this time.
pub(super) const SHORTEST_WAIT: Duration = Duration::from_secs(1);

/// How long WeChat may be left alone with a token that is due, where asking costs nothing. Its own advice for
/// stable_token is to ask at least once in five minutes.
const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60);

/// How long to leave WeChat alone after the last of `in_a_row` failures (1 and up). `pointless` is how long another try
/// is known to be.
pub(super) fn pause(in_a_row: u32, pointless: Option<Duration>, random: u64) -> Duration {
    let pause = pointless.unwrap_or_else(|| {
        let doubled = FIRST_PAUSE * 2u32.pow(in_a_row.saturating_sub(1).min(8));
        doubled.min(LONGEST_PAUSE)
    });
    // Up to a tenth more, so that many who failed together do not come back together.
    pause + pause.mul_f64((random % 1000) as f64 / 10_000.0)
}

/// How long it is until the token is due; zero once it is.
pub(super) fn until_due(
    document: &Document,
    now: UtcDateTime,
    rules: Rules,
    refresh_before: Duration,
) -> Duration {
    if rules == Rules::Mirror {
        return document.time_until_stale(now);
    }
    if document.is_due(now, refresh_before) {
        return Duration::ZERO;
    }
    document.left(now).saturating_sub(refresh_before).max(SHORTEST_WAIT)
}

/// How long to leave WeChat alone after it gave a token that is still due, and has this much left. On the classic API
/// the next question would kill it. On stable it brings the same one until the last five minutes, whatever our margin,
/// and on work until the end, which a question just before it waits out.
pub(super) fn wait_while_due(rules: Rules, left: Duration) -> Duration {
    match rules {
        Rules::Classic => (left / 2).max(SHORTEST_WAIT),
        Rules::Stable => (left / 4).clamp(SHORTEST_WAIT, LONGEST_WAIT),
        Rules::Work => left.saturating_sub(SHORTEST_WAIT).clamp(SHORTEST_WAIT, LONGEST_WAIT),
        // Whoever it is a mirror of may have another at any time.
        Rules::Mirror => Duration::ZERO,
    }
}

/// How long to leave WeChat alone after it gave a doubted token again.
pub(super) fn wait_after_the_same(rules: Rules) -> Duration {
    match rules {
        Rules::Stable | Rules::Classic | Rules::Work => LONGEST_WAIT,
        Rules::Mirror => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::secret::Secret;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_never_come_together() {
        let pauses = [1, 2, 3, 4, 5, 6, 7, 1000].map(|n| pause(n, None, 0).as_secs());
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(pause(6, None, 999).as_secs(), 65);
        assert!((0..5000).all(|random| (secs(60)..=secs(66)).contains(&pause(9, None, random))));
    }

    #[test]
    fn what_is_known_to_be_pointless_is_tried_rarely_from_the_first_time_on() {
        assert_eq!(pause(1, Some(secs(3600)), 0), secs(3600));
        assert_eq!(pause(5, Some(secs(300)), 500), secs(315));
    }

    #[test]
    fn a_due_token_is_left_alone_for_a_part_of_what_is_left() {
        let stable = [7200, 400, 0].map(|left| wait_while_due(Rules::Stable, secs(left)));
        assert_eq!(stable, [secs(300), secs(100), secs(1)]);
        let classic = [7200, 400, 0].map(|left| wait_while_due(Rules::Classic, secs(left)));
        assert_eq!(classic, [secs(3600), secs(200), secs(1)]);
    }

    #[test]
    fn a_token_is_due_at_its_margin() {
        let now = UtcDateTime::UNIX_EPOCH;
        let token = Document::new("wx1", Secret::new("T1".to_owned()), secs(7200), now);
        let until = |at| until_due(&token, now + secs(at), Rules::Stable, secs(300));
        assert_eq!([0, 6899, 6900, 9000].map(until), [6900, 1, 0, 0].map(secs));
        let between = now + Duration::from_millis(6_899_900);
        assert_eq!(
            until_due(&token, between, Rules::Stable, secs(300)),
            secs(1),
            "it is never a busy wait"
        );
    }
}
