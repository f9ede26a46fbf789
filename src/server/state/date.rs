//! The time in the head of an answer, which is written once a second.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use time::UtcDateTime;
use tokio::time::Instant;

use crate::os::clock::Clock;

/// The time of day as the header `Date` has it.
#[derive(Default)]
pub(crate) struct HttpDate {
    text: Cell<[u8; HttpDate::LENGTH]>,
    /// When the next second begins; `None` before the first answer.
    holds_until: Cell<Option<Instant>>,
}

impl HttpDate {
    /// The length of every date, in bytes.
    pub(crate) const LENGTH: usize = "Sun, 06 Nov 1994 08:49:37 GMT".len();

    /// Returns the date, which is of the second that `now` is in.
    pub(crate) fn at(&self, now: Instant, clock: &dyn Clock) -> [u8; HttpDate::LENGTH] {
        if self.holds_until.get().is_none_or(|until| until <= now) {
            // Those of earlier years have no such form.
            let wall = clock.now().wall.max(UtcDateTime::UNIX_EPOCH);
            let text = httpdate::fmt_http_date(SystemTime::from(wall));
            let rest = Duration::from_secs(1) - Duration::from_nanos(wall.nanosecond().into());
            self.text.set(text.as_bytes().try_into().unwrap_or([b' '; HttpDate::LENGTH]));
            self.holds_until.set(Some(now + rest));
        }
        self.text.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::clock::testing::VirtualClock;

    #[test]
    fn the_date_is_that_of_the_second() {
        let (clock, start) = (VirtualClock::new(), Instant::now());
        let date = HttpDate::default();
        let at = |millis: u64| {
            clock.advance(Duration::from_millis(millis).saturating_sub(clock.elapsed()));
            let text = date.at(start + Duration::from_millis(millis), &clock);
            String::from_utf8(text.to_vec()).unwrap()
        };
        assert_eq!(at(300), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(at(999), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(at(1000), "Thu, 01 Jan 1970 00:00:01 GMT");
        assert_eq!(at(86_400_000), "Fri, 02 Jan 1970 00:00:00 GMT");
        clock.set_forward(-time::Duration::days(400));
        assert_eq!(at(86_402_000), "Thu, 01 Jan 1970 00:00:00 GMT");
    }
}
