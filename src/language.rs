//! The language of what people read: English, Chinese, or both if it is unknown. A text is composed in both languages, with marks around each
//! passage, and the language is chosen when the text is written or sent. Names, codes, JSON keys and whatever else programs read are the
//! same in every language.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt::Display;
use std::sync::OnceLock;

/// The variable that says which language people want. It wins over the variables of the locale.
pub(crate) const VARIABLE: &str = "WXTOKEN_LANG";

/// The variables of the locale that say in which language messages are, in POSIX's order.
const LOCALE_VARIABLES: [&str; 3] = ["LC_ALL", "LC_MESSAGES", "LANG"];

/// The language or languages of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    English,
    Chinese,
    /// The reader's language is unknown: English, followed by Chinese.
    Both,
}

/// Marks around a passage in both languages: its English begins, its Chinese begins, it ends. They are characters of Unicode's private use.
/// `log::printable` escapes them in text from outside.
const MARKS: [char; 3] = ['\u{E000}', '\u{E001}', '\u{E002}'];

/// Marks around what to do, which is moved to the front of a message. No reader sees them.
pub(crate) const ACTION_MARKS: [char; 2] = ['\u{E003}', '\u{E004}'];

/// Marks around a command to paste, which a terminal gets on a line of its own. No reader sees them.
pub(crate) const COMMAND_MARKS: [char; 2] = ['\u{E005}', '\u{E006}'];

static OF_PROCESS: OnceLock<Language> = OnceLock::new();

/// Sets the language of what this process writes to its terminal and its log. A second call changes nothing.
pub(crate) fn set(language: Language) {
    let _ = OF_PROCESS.set(language);
}

/// Returns a passage in both languages, for a text that is composed before its reader is known. What writes or sends the
/// text chooses, by [`Language::resolve`].
pub(crate) fn in_both(english: impl Display, chinese: impl Display) -> String {
    let [begin, middle, end] = MARKS;
    format!("{begin}{english}{middle}{chinese}{end}")
}

/// Returns a passage in both languages, as [`in_both`] does, of two literals, as a `&'static str`. Does not compile if only one of the
/// two ends a sentence.
macro_rules! bilingual {
    ($english:literal, $chinese:literal) => {{
        const _: () = assert!($crate::language::end_alike($english, $chinese));
        concat!("\u{E000}", $english, "\u{E001}", $chinese, "\u{E002}")
    }};
}
pub(crate) use bilingual;

/// Whether both texts end a sentence, or neither does: a way to find texts that were divided in the wrong place.
pub(crate) const fn end_alike(english: &str, chinese: &str) -> bool {
    let ends_english = matches!(english.as_bytes(), [.., b'.' | b'?' | b'!']);
    // 。？！ in UTF-8.
    let ends_chinese = matches!(
        chinese.as_bytes(),
        [.., 0xe3, 0x80, 0x82] | [.., 0xef, 0xbc, 0x9f] | [.., 0xef, 0xbc, 0x81]
    );
    ends_english == ends_chinese
}

/// The byte that each of the marks begins with in UTF-8.
const FIRST_BYTE_OF_MARKS: u8 = 0xee;

/// Whether a text has a passage of [`in_both`], or an action or a command that is marked.
pub(crate) fn is_unresolved(text: &str) -> bool {
    let begins = [MARKS[0], ACTION_MARKS[0], COMMAND_MARKS[0]];
    may_be_unresolved(text.as_bytes()) && text.contains(begins)
}

/// Whether these bytes may be such a text. Quick, because it is asked about each answer of a server, and looks for a single byte.
pub(crate) fn may_be_unresolved(bytes: &[u8]) -> bool {
    bytes.contains(&FIRST_BYTE_OF_MARKS)
}

impl Language {
    /// Returns a text with each passage of [`in_both`] in this language, or in both in a row.
    pub(crate) fn resolve(self, text: &str) -> Cow<'_, str> {
        match is_unresolved(text) {
            true => Cow::Owned(self.resolved(text, &[])),
            false => Cow::Borrowed(text),
        }
    }

    /// Returns a text in this language, with the marks of actions and commands.
    pub(crate) fn resolve_marked(self, text: &str) -> String {
        self.resolved(text, &[ACTION_MARKS, COMMAND_MARKS])
    }

    /// Returns a text in this language, with the marks of commands only.
    pub(crate) fn resolve_with_commands(self, text: &str) -> String {
        self.resolved(text, &[COMMAND_MARKS])
    }

    /// Returns the text in this language, with those marks that are `kept`.
    fn resolved(self, text: &str, kept: &[[char; 2]]) -> String {
        let is_dropped = |c| {
            let mut dropped = [ACTION_MARKS, COMMAND_MARKS].into_iter();
            dropped.any(|marks| marks.contains(&c) && !kept.contains(&marks))
        };
        let [begin, middle, end] = MARKS;
        let mut resolved = String::with_capacity(text.len());
        // Of each passage around: whether its Chinese has begun.
        let mut around: Vec<bool> = Vec::new();
        for c in text.chars() {
            if c == begin {
                around.push(false);
            } else if c == middle {
                around.pop();
                // Between the two, where both are shown.
                if self == Language::Both && around.is_empty() {
                    resolved.push(' ');
                }
                around.push(true);
            } else if c == end {
                around.pop();
            } else if !is_dropped(c) && self.shows(&around) {
                resolved.push(c);
            }
        }
        resolved
    }

    /// Whether what stands inside these passages is shown; of each, from the outermost on, whether it is the Chinese one. In
    /// both languages, a passage in another one has the language of that.
    fn shows(self, around: &[bool]) -> bool {
        match self {
            Language::English => around.iter().all(|is_chinese| !is_chinese),
            Language::Chinese => around.iter().all(|is_chinese| *is_chinese),
            Language::Both => around.windows(2).all(|pair| pair[0] == pair[1]),
        }
    }

    /// Returns the language of what this process writes; [`Language::Both`] before [`set`].
    pub(crate) fn of_process() -> Language {
        OF_PROCESS.get().copied().unwrap_or(Language::Both)
    }

    /// Returns the value of [`VARIABLE`] that asks for this language.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Language::English => "en",
            Language::Chinese => "zh",
            Language::Both => "both",
        }
    }

    /// Returns the language that an environment asks for; `variable` returns the value of one of its variables. The first of
    /// [`VARIABLE`], `LC_ALL`, `LC_MESSAGES` and `LANG` that is not empty counts.
    pub(crate) fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Language {
        let value = |name: &&str| variable(name).filter(|value| !value.is_empty());
        let first = [VARIABLE].iter().chain(&LOCALE_VARIABLES).find_map(value);
        first.map_or(Language::Both, |locale| Language::of_locale(&locale))
    }

    /// Returns the language of a locale as in `zh_CN.UTF-8`. `C`, `POSIX` and `both` stand for no choice.
    fn of_locale(locale: &str) -> Language {
        let name = locale.split(['.', '@']).next().unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "c" | "posix" | "both" => Language::Both,
            name if is_chinese(name) => Language::Chinese,
            _ => Language::English,
        }
    }

    /// Returns the language that the value of `Accept-Language` (RFC 9110, 12.5.4) prefers of English and Chinese. A reader
    /// of neither gets English. Without the header, or with `*` alone, any language will do: both.
    pub(crate) fn of_accept_language(header: Option<&str>) -> Language {
        let ranges: Vec<_> =
            header.unwrap_or_default().split(',').filter_map(parse_range).collect();
        let quality = |is_meant: &dyn Fn(&str) -> bool| {
            let of_it = ranges.iter().filter(|(tag, _)| is_meant(tag));
            of_it.map(|(_, quality)| *quality).max()
        };
        let is_english = |tag: &str| primary(tag) == "en";
        let chinese = quality(&|tag| is_chinese(tag));
        let others = quality(&|tag| tag != "*" && !is_chinese(tag) && !is_english(tag));
        match (quality(&is_english), chinese) {
            (Some(english), Some(chinese)) => match english.cmp(&chinese) {
                Ordering::Greater => Language::English,
                Ordering::Less => Language::Chinese,
                Ordering::Equal => {
                    let first = ranges.iter().find(|(tag, _)| is_english(tag) || is_chinese(tag));
                    match first {
                        Some((tag, _)) if is_chinese(tag) => Language::Chinese,
                        _ => Language::English,
                    }
                }
            },
            (None, Some(_)) => Language::Chinese,
            (Some(_), None) => Language::English,
            (None, None) if others.is_some() => Language::English,
            (None, None) => Language::Both,
        }
    }

    /// Returns the text of this language: one of two that say the same, or both in a row.
    pub(crate) fn text(self, english: impl Display, chinese: impl Display) -> String {
        match self {
            Language::English => english.to_string(),
            Language::Chinese => chinese.to_string(),
            Language::Both => format!("{english} {chinese}"),
        }
    }
}

/// Whether a language tag or the name of a locale is of Chinese, in whatever script and country.
fn is_chinese(tag: &str) -> bool {
    primary(tag) == "zh"
}

/// The language of a tag without its script and country, in small letters.
fn primary(tag: &str) -> String {
    tag.split(['-', '_']).next().unwrap_or_default().to_ascii_lowercase()
}

/// Returns a language range and its quality in thousandths, as in `zh-CN;q=0.8`. `None` if it is malformed or declined
/// (`q=0`).
fn parse_range(range: &str) -> Option<(&str, u16)> {
    let (tag, parameter) = match range.split_once(';') {
        Some((tag, parameter)) => (tag.trim(), Some(parameter.trim())),
        None => (range.trim(), None),
    };
    let quality = match parameter {
        None => 1000,
        Some(parameter) => {
            let value = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="))?;
            parse_quality(value)?
        }
    };
    let is_of_tag = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '*');
    (!tag.is_empty() && tag.chars().all(is_of_tag) && quality > 0).then_some((tag, quality))
}

/// Returns a quality in thousandths: 0 to 1 with up to three digits after the point.
fn parse_quality(value: &str) -> Option<u16> {
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let is_number = fraction.len() <= 3 && fraction.bytes().all(|it| it.is_ascii_digit());
    let whole: u16 = Some(whole).filter(|it| matches!(*it, "0" | "1"))?.parse().ok()?;
    let fraction: u16 = is_number.then(|| format!("{fraction:0<3}").parse().ok())??;
    Some(1000 * whole + fraction).filter(|quality| *quality <= 1000)
}

#[cfg(test)]
mod tests {
    use super::Language::{Both, Chinese, English};
    use super::*;

    fn of_environment(variables: &[(&str, &str)]) -> Language {
        Language::of_environment(|name| {
            let found = variables.iter().find(|(it, _)| *it == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_text_without_the_first_byte_of_a_mark_has_none() {
        for mark in MARKS.iter().chain(&ACTION_MARKS) {
            let mut bytes = [0; 4];
            assert_eq!(mark.encode_utf8(&mut bytes).as_bytes()[0], FIRST_BYTE_OF_MARKS);
        }
        assert!(is_unresolved(&in_both("a", "b")) && is_unresolved("\u{E003}a\u{E004}"));
        // This one begins with the same byte, and the other does not.
        assert!(may_be_unresolved("\u{E123}".as_bytes()) && !is_unresolved("\u{E123}"));
        assert!(!may_be_unresolved("微信".as_bytes()));
    }

    #[test]
    fn a_text_of_unknown_readers_is_resolved_when_it_is_written() {
        let address = in_both("Add 1.2.3.4.", "请加入 1.2.3.4。");
        let text = format!("refused: {address} [{}] {}", bilingual!("now", "现在"), "raw 原文");
        assert_eq!(English.resolve(&text), "refused: Add 1.2.3.4. [now] raw 原文");
        assert_eq!(Chinese.resolve(&text), "refused: 请加入 1.2.3.4。 [现在] raw 原文");
        assert_eq!(
            Both.resolve(&text),
            "refused: Add 1.2.3.4. 请加入 1.2.3.4。 [now 现在] raw 原文"
        );
        let nested = in_both(format!("a {address}"), format!("甲 {address}"));
        assert_eq!(English.resolve(&nested), "a Add 1.2.3.4.");
        assert_eq!(Chinese.resolve(&nested), "甲 请加入 1.2.3.4。");
        assert_eq!(Both.resolve(&nested), "a Add 1.2.3.4. 甲 请加入 1.2.3.4。");
        assert_eq!(English.resolve("as it is 原样"), "as it is 原样");
    }

    #[test]
    fn a_sentence_has_a_sentence_beside_it() {
        assert!(end_alike("Ask again.", "请重试。") && end_alike("now", "现在"));
        assert!(end_alike("Is it running?", "是否在运行？"));
        assert!(!end_alike("Ask again and", "see. 请重试。") && !end_alike("Ask again.", "请重试"));
    }

    #[test]
    fn the_locale_decides_and_wxtoken_lang_decides_over_it() {
        for (variables, expected) in [
            (&[][..], Both),
            (&[("LANG", "C.UTF-8")], Both),
            (&[("LANG", "POSIX")], Both),
            (&[("LANG", "zh_CN.UTF-8")], Chinese),
            (&[("LANG", "zh_TW")], Chinese),
            (&[("LANG", "en_US.UTF-8")], English),
            (&[("LANG", "de_DE@euro")], English),
            // A three-letter language that begins like Chinese.
            (&[("LANG", "zha_CN")], English),
            (&[("LANG", "zh_CN.UTF-8"), ("LC_MESSAGES", "en_GB")], English),
            (&[("LC_MESSAGES", "zh_CN"), ("LC_ALL", "C")], Both),
            (&[("LC_ALL", ""), ("LANG", "zh_CN")], Chinese),
            (&[("WXTOKEN_LANG", ""), ("LANG", "zh_CN")], Chinese),
            (&[("WXTOKEN_LANG", "zh"), ("LC_ALL", "en_US.UTF-8")], Chinese),
            (&[("WXTOKEN_LANG", "ZH-CN")], Chinese),
            (&[("WXTOKEN_LANG", "en"), ("LC_ALL", "zh_CN.UTF-8")], English),
            (&[("WXTOKEN_LANG", "both"), ("LC_ALL", "zh_CN.UTF-8")], Both),
        ] {
            assert_eq!(of_environment(variables), expected, "{variables:?}");
        }
    }

    #[test]
    fn accept_language_decides_by_quality_and_then_by_order() {
        for (header, expected) in [
            ("", Both),
            ("*", Both),
            ("zh-CN,zh;q=0.9,en;q=0.8", Chinese),
            ("en-US,en;q=0.9,zh-CN;q=0.8", English),
            ("en;q=0.5, zh;q=0.8", Chinese),
            ("zh;q=0.3,en;q=0.31", English),
            ("zh, en", Chinese),
            ("en, zh", English),
            ("EN-gb", English),
            ("ZH-Hant-TW", Chinese),
            ("zh;q=0, *", Both),
            ("zh;q=0, en;q=0.1", English),
            ("fr, zh;q=0.2", Chinese),
            ("fr-FR, de;q=0.5", English),
            ("fr, *;q=0.5", English),
            // Malformed ranges count for nothing.
            ("zh;q=2", Both),
            ("zh;q=1.5", Both),
            ("zh;q=0.1234", Both),
            ("zh;q=x, en", English),
            (";;,,=", Both),
        ] {
            assert_eq!(Language::of_accept_language(Some(header)), expected, "{header:?}");
        }
        assert_eq!(Language::of_accept_language(None), Both);
    }

    #[test]
    fn a_text_is_in_one_language_or_in_both_english_first() {
        assert_eq!(English.text("yes", "是"), "yes");
        assert_eq!(Chinese.text("yes", "是"), "是");
        assert_eq!(Both.text("yes", "是"), "yes 是");
        for language in [English, Chinese, Both] {
            assert_eq!(of_environment(&[("WXTOKEN_LANG", language.name())]), language);
        }
    }
}
