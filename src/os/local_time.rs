//! The user's time zone, from `TZ` and /etc/localtime, as tzset(3) says. For what people read; files, JSON and metrics are in
//! UTC.

use std::error::Error;
use std::path::Path;
use std::sync::OnceLock;

use time::{OffsetDateTime, UtcDateTime, UtcOffset};
use tz::{TimeZone, TimeZoneSettings};

use crate::os::file::read::{Protection, RegularFile};

/// The largest file of a time zone that is read, in bytes. Those of the system take up to 4 KiB.
const MAX_ZONE: u64 = 64 << 10;

/// Reads the file of a time zone. Never waits: the variable may name a pipe or a device.
fn read_zone(path: &str) -> Result<Vec<u8>, Box<dyn Error + Send + Sync>> {
    let file = RegularFile::open_unexplained(Path::new(path), Protection::NotPlanted)?;
    Ok(file.read(MAX_ZONE)?.to_vec())
}

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
        let settings = TimeZoneSettings::new(TimeZoneSettings::DEFAULT_DIRECTORIES, read_zone);
        let zone = match variable {
            Some(zone) => settings.parse_posix_tz(zone),
            None => settings.parse_local(),
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

/// Returns an instant for people, in the zone of this process, as [`in_zone`] has it.
pub(crate) fn local(at: UtcDateTime) -> String {
    in_zone(LocalZone::of_process().at(at))
}

/// Returns a local time as in RFC 3339, in whole seconds: `2026-11-25T13:00:01+08:00`, in UTC with a `Z`.
fn in_zone(at: OffsetDateTime) -> String {
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second) = at.to_hms();
    let month = u8::from(month);
    let time = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    let (hours, minutes, _) = at.offset().as_hms();
    match (hours, minutes) {
        (0, 0) => time + "Z",
        _ => {
            let sign = if at.offset().is_negative() { '-' } else { '+' };
            format!("{time}{sign}{:02}:{:02}", hours.unsigned_abs(), minutes.unsigned_abs())
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

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

    /// The file of a zone that is always eight hours ahead, in the first version of RFC 9636, with so much after it.
    fn zone_file(rest: usize) -> Vec<u8> {
        let mut bytes = b"TZif".to_vec();
        bytes.resize(20, 0);
        // Six counts: of types one, of bytes of their names four.
        for count in [0, 0, 0, 0, 1, 4_u32] {
            bytes.extend(count.to_be_bytes());
        }
        bytes.extend(28_800_i32.to_be_bytes());
        bytes.extend(b"\0\0CST\0");
        bytes.resize(bytes.len() + rest, 0);
        bytes
    }

    #[test]
    fn a_zone_is_read_from_a_plain_file_of_its_size_and_from_nothing_that_could_be_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let [file, pipe, large] = ["file", "pipe", "large"].map(|name| dir.path().join(name));
        std::fs::write(&file, zone_file(0)).unwrap();
        std::fs::write(&large, zone_file(MAX_ZONE as usize)).unwrap();
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        // Not joined: where the pipe is not read, it may wait for good.
        let writer = pipe.clone();
        std::thread::spawn(move || std::fs::write(writer, zone_file(0)));
        let at = UtcDateTime::from_unix_timestamp(1_795_325_686).unwrap();
        for (path, name) in [(&file, "UTC+8"), (&pipe, "UTC"), (&large, "UTC")] {
            for colon in ["", ":"] {
                let zone = LocalZone::new(Some(&format!("{colon}{}", path.display())));
                assert_eq!(zone_name(zone.at(at)), name, "{}", path.display());
            }
        }
    }

    #[test]
    fn a_local_time_in_a_line_of_text_has_its_offset() {
        let at = UtcDateTime::from_unix_timestamp(1_795_325_686).unwrap(); // 2026-11-22T05:34:46Z
        for (variable, text) in [
            ("UTC0", "2026-11-22T05:34:46Z"),
            ("CST-8", "2026-11-22T13:34:46+08:00"),
            ("NST3:30", "2026-11-22T02:04:46-03:30"),
        ] {
            assert_eq!(in_zone(LocalZone::new(Some(variable)).at(at)), text);
        }
    }
}
