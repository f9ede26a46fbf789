//! Instants by the wall clock, as documents have them: RFC 3339.

use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcDateTime};

/// Returns the time without its fraction of a second.
pub(crate) fn whole_seconds(at: UtcDateTime) -> UtcDateTime {
    at.replace_nanosecond(0).unwrap_or(at) // 0 is in range.
}

/// Formats a time as RFC 3339 in UTC, in whole seconds: of two such texts the later time is the greater one.
pub(crate) fn rfc3339(at: UtcDateTime) -> String {
    let at = whole_seconds(at);
    at.format(&Rfc3339).unwrap_or_else(|_| at.to_string()) // Only a year beyond 9999 has no RFC 3339 form.
}

/// Parses an RFC 3339 time of a year in which this program may be run.
pub(crate) fn parse_rfc3339(text: &str) -> Option<UtcDateTime> {
    // Not UtcDateTime::parse, which panics on 9999-12-31T23:59:59-23:59.
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?.checked_to_utc()?;
    (1970..=9000).contains(&at.year()).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_form_of_rfc_3339_and_written_in_one_in_whole_seconds() {
        for (text, written) in [
            ("2026-11-29T03:04:05Z", "2026-11-29T03:04:05Z"),
            ("2026-11-29t03:04:05z", "2026-11-29T03:04:05Z"),
            ("2026-11-29 03:04:05Z", "2026-11-29T03:04:05Z"),
            ("2026-11-29T03:04:05.5Z", "2026-11-29T03:04:05Z"),
            ("2026-11-29T03:04:05.000000001Z", "2026-11-29T03:04:05Z"),
            ("2026-11-29T03:04:05.9999999999Z", "2026-11-29T03:04:05Z"),
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
