//! Instants by the wall clock, as documents have them: RFC 3339.

use time::{Date, Month, Time, UtcDateTime};

/// Returns the time without its fraction of a second, as it is written.
pub(crate) fn whole_seconds(at: UtcDateTime) -> UtcDateTime {
    at.replace_nanosecond(0).unwrap_or(at) // 0 is in range.
}

/// Formats a time as RFC 3339 in UTC.
pub(crate) fn rfc3339(at: UtcDateTime) -> String {
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second, nanosecond) = at.as_hms_nano();
    let fraction = match nanosecond {
        0 => String::new(),
        _ => format!(".{nanosecond:09}"),
    };
    let fraction = fraction.trim_end_matches('0');
    let month = u8::from(month);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Parses an RFC 3339 time of a year in which this program may be run.
pub(crate) fn parse_rfc3339(text: &str) -> Option<UtcDateTime> {
    let digits = |text: &str| -> Option<u32> {
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
    };
    let number = |at: usize, len: usize| digits(text.get(at..at + len)?);
    let two = |at: usize| u8::try_from(number(at, 2)?).ok();
    let marks = [4, 7, 10, 13, 16].map(|at| text.as_bytes().get(at).copied());
    let [Some(b'-'), Some(b'-'), Some(b'T' | b't' | b' '), Some(b':'), Some(b':')] = marks else {
        return None;
    };
    let rest = text.get(19..)?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count()),
        None => ("0", rest),
    };
    let nanosecond = digits(&format!("{:0<9.9}", Some(fraction).filter(|it| !it.is_empty())?))?;
    let month = Month::try_from(two(5)?).ok()?;
    let date = Date::from_calendar_date(i32::try_from(number(0, 4)?).ok()?, month, two(8)?);
    let time = Time::from_hms_nano(two(11)?, two(14)?, two(17)?, nanosecond);
    let ahead = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => 0,
        (sign @ ("+" | "-"), zone) => {
            let (hours, minutes) =
                zone.split_once(':').filter(|it| it.0.len() + it.1.len() == 4)?;
            let (hours, minutes) = (digits(hours)?, digits(minutes)?);
            let ahead = i64::from(hours * 60 + minutes);
            Some(if sign == "+" { ahead } else { -ahead }).filter(|_| hours < 24 && minutes < 60)?
        }
        _ => return None,
    };
    let at = UtcDateTime::new(date.ok()?, time.ok()?);
    let at = at.checked_sub(time::Duration::minutes(ahead))?;
    (1970..=9000).contains(&at.year()).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_form_of_rfc_3339_and_written_in_one() {
        for (text, written) in [
            ("2026-11-29T03:04:05Z", "2026-11-29T03:04:05Z"),
            ("2026-11-29t03:04:05z", "2026-11-29T03:04:05Z"),
            ("2026-11-29 03:04:05Z", "2026-11-29T03:04:05Z"),
            ("2026-11-29T03:04:05.5Z", "2026-11-29T03:04:05.5Z"),
            ("2026-11-29T03:04:05.000000001Z", "2026-11-29T03:04:05.000000001Z"),
            ("2026-11-29T03:04:05.1234567899Z", "2026-11-29T03:04:05.123456789Z"),
            ("2026-11-29T11:04:05+08:00", "2026-11-29T03:04:05Z"),
            ("2026-12-31T23:30:00-00:45", "2027-01-01T00:15:00Z"),
            ("2028-02-29T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(parse_rfc3339(text).map(rfc3339).as_deref(), Some(written), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2026-11-29",
            "2026-11-29T03:04:05",
            "2026-11-29T03:04Z",
            "2026-11-29T03:04:05.Z",
            "2026-11-29T03:04:05,5Z",
            "2026-11-29T24:00:00Z",
            "2026-11-29T03:60:00Z",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-11-29T03:04:05+8:00",
            "2026-11-29T03:04:05+08:60",
            "2026-11-29T03:04:05+0800",
            "2026-11-29T03:04:05Zz",
            "+026-11-29T03:04:05Z",
            "2026-11-2\u{661}T03:04:05Z",
            "1969-12-31T23:59:59Z",
            "9999-12-31T23:59:59-23:59",
            "12026-11-29T03:04:05Z",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }
}
