//! The user's time zone, from `TZ` and /etc/localtime, as tzset(3) says. For what people read; files, JSON and metrics are in
//! UTC.

use std::sync::OnceLock;

use time::{OffsetDateTime, UtcDateTime, UtcOffset};
use tz::TimeZone;

/// A time zone.
pub(crate) struct LocalZone {
    /// `None` is UTC.
    zone: Option<TimeZone>,
}

impl LocalZone {
    /// Returns the zone of this process: that of `TZ`, else that of the system. UTC where there is none. Reads files the first
    /// time.
    pub(crate) fn of_process() -> &'static LocalZone {
        static OF_PROCESS: OnceLock<LocalZone> = OnceLock::new();
        OF_PROCESS.get_or_init(|| LocalZone::new(std::env::var("TZ").ok().as_deref()))
    }

    /// Returns the zone for a value of `TZ`.
    #[cfg(test)]
    pub(crate) fn for_tests(variable: &str) -> LocalZone {
        LocalZone::new(Some(variable))
    }

    /// Returns the zone for a value of `TZ`; without one that of the system.
    fn new(variable: Option<&str>) -> LocalZone {
        let zone = match variable {
            Some(zone) => TimeZone::from_posix_tz(zone),
            None => TimeZone::local(),
        };
        LocalZone { zone: zone.ok() }
    }

    /// Returns the local time at an instant.
    pub(crate) fn at(&self, at: UtcDateTime) -> OffsetDateTime {
        let zone = self.zone.as_ref();
        let kind = zone.and_then(|zone| zone.find_local_time_type(at.unix_timestamp()).ok());
        let offset = kind.and_then(|it| UtcOffset::from_whole_seconds(it.ut_offset()).ok());
        at.to_offset(offset.unwrap_or(UtcOffset::UTC))
    }
}

/// Returns the offset of a local time for people: `UTC`, `UTC+8` or `UTC-3:30`.
pub(crate) fn zone_name(at: OffsetDateTime) -> String {
    let (hours, minutes, _) = at.offset().as_hms();
    let sign = if at.offset().is_negative() { '-' } else { '+' };
    match (hours.unsigned_abs(), minutes.unsigned_abs()) {
        (0, 0) => "UTC".to_owned(),
        (hours, 0) => format!("UTC{sign}{hours}"),
        (hours, minutes) => format!("UTC{sign}{hours}:{minutes:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_zone_of_a_variable_decides_and_a_wrong_one_is_utc() {
        let at = UtcDateTime::from_unix_timestamp(1_795_325_686).unwrap(); // 2026-11-22T05:34:46Z
        for (variable, time, name) in [
            ("CST-8", "13:34:46", "UTC+8"),
            ("NST3:30", "2:04:46", "UTC-3:30"),
            // The summer of the southern hemisphere.
            ("AEST-10AEDT,M10.1.0,M4.1.0/3", "16:34:46", "UTC+11"),
            ("UTC0", "5:34:46", "UTC"),
            ("", "5:34:46", "UTC"),
            ("No/Such_Zone", "5:34:46", "UTC"),
        ] {
            let local = LocalZone::new(Some(variable)).at(at);
            let (hour, minute, second) = local.time().as_hms();
            assert_eq!(format!("{hour}:{minute:02}:{second:02}"), time, "{variable}");
            assert_eq!(zone_name(local), name, "{variable}");
        }
    }
}
