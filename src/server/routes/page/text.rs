//! Text of the page: escaping, and instants and spans of time, in English and Chinese.

use std::fmt::Display;

use time::UtcDateTime;

use crate::language::Language;
use crate::log::printable;
use crate::os::local_time::{LocalZone, zone_name};

/// The longest text from outside that is shown; no refusal with its remedy is longer.
const MAX_SHOWN: usize = 1500; // characters

/// For whom and when the page is written.
pub(super) struct Reader<'a> {
    pub(super) language: Language,
    pub(super) zone: &'a LocalZone,
    pub(super) now: UtcDateTime,
}

impl Reader<'_> {
    /// A text in the reader's language; if that is unknown, in English, followed by its Chinese.
    pub(super) fn both(&self, english: impl Display, chinese: impl Display) -> String {
        match self.language {
            Language::English => english.to_string(),
            Language::Chinese => chinese.to_string(),
            Language::Both => format!("{english} <span lang=\"zh-CN\">{chinese}</span>"),
        }
    }

    /// The language of what has room for one: English, where the reader's is unknown.
    pub(super) fn one_language(&self) -> Language {
        match self.language {
            Language::Both => Language::English,
            language => language,
        }
    }

    /// The language of the page, for a browser.
    pub(super) fn tag(&self) -> &'static str {
        match self.language {
            Language::English | Language::Both => "en",
            Language::Chinese => "zh-CN",
        }
    }

    /// An instant, and how far from now it is.
    pub(super) fn moment(&self, at: UtcDateTime) -> String {
        format!("{} <small>{}</small>", self.instant(at), self.relative(at))
    }

    /// An instant, to the second in the server's zone, and in UTC where one points at it: a page without a script does not know
    /// the zone of the reader.
    pub(super) fn instant(&self, at: UtcDateTime) -> String {
        let text = |date: time::Date, (hour, minute, second): (u8, u8, u8)| {
            (date.to_string(), format!("{hour:02}:{minute:02}:{second:02}"))
        };
        let (date, time) = text(at.date(), at.as_hms());
        let local = self.zone.at(at);
        let (local_date, local_time) = text(local.date(), local.time().as_hms());
        let zone = zone_name(local);
        format!(
            "<time datetime=\"{date}T{time}Z\" title=\"{date} {time} UTC\">{local_date} {local_time} {zone}</time>"
        )
    }

    /// How far from now an instant is.
    pub(super) fn relative(&self, at: UtcDateTime) -> String {
        let secs = (at - self.now).whole_seconds();
        let (english, chinese) = span(secs.unsigned_abs());
        match secs {
            0 => self.both("now", "现在"),
            1.. => self.both(format_args!("in {english}"), format_args!("{chinese}后")),
            _ => self.both(format_args!("{english} ago"), format_args!("{chinese}前")),
        }
    }
}

/// A span of time in English and in Chinese, in its two largest units.
pub(super) fn span(secs: u64) -> (String, String) {
    const DAY: (u64, &str, &str) = (86_400, "d", "天");
    const HOUR: (u64, &str, &str) = (3600, "h", "小时");
    const MINUTE: (u64, &str, &str) = (60, "min", "分");
    const SECOND: (u64, &str, &str) = (1, "s", "秒");
    let units = match secs {
        0..60 => &[SECOND][..],
        60..600 => &[MINUTE, SECOND],
        600..3600 => &[MINUTE],
        3600..86_400 => &[HOUR, MINUTE],
        _ => &[DAY, HOUR],
    };
    let (mut english, mut chinese, mut rest) = (Vec::new(), Vec::new(), secs);
    for (length, short, name) in units {
        let count = rest / length;
        rest %= length;
        if count > 0 || secs == 0 {
            english.push(format!("{count} {short}"));
            chinese.push(format!("{count} {name}"));
        }
    }
    let is_one = chinese.len() == 1;
    let chinese = chinese.join(" ");
    // Minutes alone are 分钟, beside another unit 分.
    let chinese = if is_one { chinese.replace('分', "分钟") } else { chinese };
    (english.join(" "), chinese)
}

/// Text from outside, escaped so that it is text in HTML, and cut to [`MAX_SHOWN`].
pub(super) fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in printable(text, MAX_SHOWN).chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c => html.push(c),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: i64) -> UtcDateTime {
        UtcDateTime::from_unix_timestamp(1_795_578_720 + offset).unwrap() // 2026-11-25T03:52:00Z
    }

    #[test]
    fn an_instant_is_in_the_servers_zone_and_in_utc_and_says_how_far_from_now_it_is() {
        let zone = LocalZone::for_tests("CST-8");
        let reader = |language| Reader { language, zone: &zone, now: at(0) };
        for (offset, relative) in [
            (0, "now 现在"),
            (1, "in 1 s 1 秒后"),
            (-59, "59 s ago 59 秒前"),
            (60, "in 1 min 1 分钟后"),
            (-61, "1 min 1 s ago 1 分 1 秒前"),
            (600, "in 10 min 10 分钟后"),
            (-3600, "1 h ago 1 小时前"),
            (4321, "in 1 h 12 min 1 小时 12 分后"),
            (-90_000, "1 d 1 h ago 1 天 1 小时前"),
        ] {
            let html = reader(Language::Both).moment(at(offset));
            let plain = html.replace("<span lang=\"zh-CN\">", "").replace("</span>", "");
            assert!(plain.ends_with(&format!("</time> <small>{relative}</small>")), "{plain}");
        }
        assert!(reader(Language::English).moment(at(60)).ends_with("<small>in 1 min</small>"));
        assert!(reader(Language::Chinese).moment(at(60)).ends_with("<small>1 分钟后</small>"));
        let expected = "<time datetime=\"2026-11-25T03:52:00Z\" title=\"2026-11-25 03:52:00 UTC\">2026-11-25 11:52:00 UTC+8</time>";
        assert_eq!(reader(Language::Both).instant(at(0)), expected);
    }
}
