//! Values that flags and the config file write alike: durations, permissions, numbers of connections.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::message::texts;

texts! {
    NO_DURATION =
        "Write a duration like 90s, 30m or 2h: this is not one",
        "请填写 90s、30m、2h 这样的时长：格式不对";
    TOO_LONG =
        "Write a day at most: this is longer",
        "请设为一天以内：超过一天";
    ZERO =
        "Write more than zero: this is no time at all",
        "请设为大于零的时长：时长为零";
    NO_SDK_LIFE =
        "Write 61s to 2h: with less, SDKs keep no token",
        "请设为 61s 至 2h：再短，SDK 就不缓存 token";
    NO_CONNECTIONS =
        "Write a number, 1 to 1000000: this is not one",
        "请填写 1 至 1000000 的数字：不在此范围";
    NO_DAYS =
        "Write a number of days, 1 to 825: this is not one",
        "请填写 1 至 825 的天数：不在此范围";
    OCTAL =
        "Write three or four octal digits, like 0640: this is something else",
        "请填写三位或四位八进制数字，如 0640：格式不对";
    NOT_FOR_OWNER =
        "Let the owner read and write it (06..): without that it cannot be replaced",
        "请允许属主读写（06..）：否则无法替换";
    HAS_OTHER_BITS =
        "Give read and write bits alone, like 0640: a document is not a program",
        "请只设置读写权限，如 0640：token 文件不是程序";
    NO_BOOLEAN =
        "Write true or false: this is neither",
        "请填写 true 或 false：两者都不是";
    OTHERS_MAY_WRITE =
        "Let the owner alone write, like 0640: others could publish a token of their own",
        "请只允许属主写入，如 0640：否则其他用户可以发布自己的 token";
}

/// A token lives two hours and WeChat promises less than a day, so a longer duration is a mistake.
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

/// More connections than any machine holds.
const MAX_CONNECTIONS: u32 = 1_000_000;

/// The longest that Apple's systems take a certificate of a CA which a user has added
/// (<https://support.apple.com/en-us/103769>).
const MAX_DAYS: u16 = 825;

/// Parses a boolean, as a variable gives it to a flag.
pub(crate) fn parse_boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "y" | "yes" | "t" | "true" | "on" | "1" => Ok(true),
        "n" | "no" | "f" | "false" | "off" | "0" => Ok(false),
        _ => Err(NO_BOOLEAN.to_owned()),
    }
}

/// Parses a duration such as `90s`, `30m` or `2h`; a bare number is seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse::<u64>() {
        Ok(secs) => Duration::from_secs(secs),
        Err(_) => humantime::parse_duration(text).map_err(|_| NO_DURATION.to_owned())?,
    };
    // This also catches `2M`, which is two months to humantime and was meant as two minutes.
    if parsed > MAX_DURATION { Err(TOO_LONG.to_owned()) } else { Ok(parsed) }
}

/// Parses a duration as [`parse_duration`] does. Fails if it is zero.
pub(crate) fn parse_positive_duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err(ZERO.to_owned()),
        positive => Ok(positive),
    }
}

/// The least and the most life that SDKs may be told: with a minute, several keep no token at all; WeChat's live two hours.
const SDK_LIFE: RangeInclusive<Duration> = Duration::from_secs(61)..=Duration::from_secs(7200);

/// Parses how much life of a token SDKs are told at most.
pub(crate) fn parse_sdk_life(text: &str) -> Result<Duration, String> {
    let life = Some(parse_duration(text)?).filter(|life| SDK_LIFE.contains(life));
    life.ok_or_else(|| NO_SDK_LIFE.to_owned())
}

/// Parses how many connections to hold, which is at least one.
pub(crate) fn parse_max_connections(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| (1..=MAX_CONNECTIONS).contains(number));
    number.ok_or_else(|| NO_CONNECTIONS.to_owned())
}

/// Parses for how many days a certificate is valid.
pub(super) fn parse_days(text: &str) -> Result<u16, String> {
    let number = text.parse().ok().filter(|number| (1..=MAX_DAYS).contains(number));
    number.ok_or_else(|| NO_DAYS.to_owned())
}

/// Parses a document's permissions: three or four octal digits. Fails if its owner could not read and replace it, or if other
/// users could change it.
pub(crate) fn parse_mode(text: &str) -> Result<u32, String> {
    // `from_str_radix` alone would take a sign.
    if !matches!(text.len(), 3 | 4) || !text.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(OCTAL.to_owned());
    }
    let mode = u32::from_str_radix(text, 8).map_err(|_| OCTAL.to_owned())?;
    if mode & 0o600 != 0o600 {
        return Err(NOT_FOR_OWNER.to_owned());
    }
    if mode & !0o666 != 0 {
        return Err(HAS_OTHER_BITS.to_owned());
    }
    if mode & 0o022 != 0 {
        return Err(OTHERS_MAY_WRITE.to_owned());
    }
    Ok(mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_seconds_or_has_units_and_is_at_most_a_day() {
        assert_eq!(parse_duration("300"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_secs(7200)));
        for wrong in ["", "-1", "soon", "2M", "3d", "1e9", "99999999999999999999"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
        assert!(parse_positive_duration("0").is_err());
    }

    #[test]
    fn a_boolean_variable_takes_yes_no_true_false_1_and_0() {
        for (value, expected) in [
            ("1", true),
            ("yes", true),
            ("TRUE", true),
            ("0", false),
            ("no", false),
            ("Off", false),
        ] {
            assert_eq!(parse_boolean(value), Ok(expected), "{value}");
        }
        for wrong in ["", "maybe", "2"] {
            assert_eq!(parse_boolean(wrong), Err(NO_BOOLEAN.to_owned()), "{wrong}");
        }
    }

    #[test]
    fn a_mode_is_octal_and_lets_its_owner_alone_write() {
        assert_eq!(parse_mode("0640"), Ok(0o640));
        assert_eq!(parse_mode("644"), Ok(0o644));
        for wrong in ["", "64", "06400", "648", "0o640", "0400", "0040", "0755", "+640"] {
            assert!(parse_mode(wrong).is_err(), "{wrong}");
        }
        for open in ["0666", "0620", "0602", "662"] {
            assert_eq!(parse_mode(open), Err(OTHERS_MAY_WRITE.to_owned()), "{open}");
        }
    }
}
