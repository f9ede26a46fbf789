//! Text from outside on its way to a terminal or a log.

use crate::language::Language;
use crate::log::{may_hold_secret, printable, without_long_words, without_secrets};

/// How many characters are shown.
const MAX: usize = 60;

pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let shown = without_secrets(&text);
    assert!(!may_hold_secret(&shown), "{shown}");
    assert_eq!(without_secrets(&shown), shown);
    assert_eq!(shown == text, !may_hold_secret(&text));

    let short = without_long_words(&text);
    assert!(!may_hold_secret(&short), "{short}");
    let longest = short
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'))
        .map(str::len)
        .max();
    assert!(longest.is_none_or(|longest| longest <= super::MAX_WORD), "{short}");

    let printed = printable(&text, MAX);
    assert!(!printed.chars().any(char::is_control), "{printed:?}");
    // What turns the direction of a line, and the marks of a text in two languages.
    let is_odd = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{e000}'..='\u{e002}');
    assert!(!printed.contains(is_odd), "{printed:?}");
    assert!(printed.chars().count() <= 10 * MAX + 1);
    for language in [Language::English, Language::Chinese, Language::Both] {
        assert_eq!(language.resolve(&printed), printed, "text from outside chooses a language");
        let resolved = language.resolve(&text);
        assert!(
            !resolved.contains(['\u{e000}', '\u{e001}', '\u{e002}']) || !text.contains('\u{e000}')
        );
    }
}
