//! The form of a message to people: what to do first, then what happened, each in both languages, then the words from
//! outside in brackets. The texts are tables, so that a list of all messages can be made from them: `docs/messages.md`.
//!
//! What to do is known where an error arises, and the sentence around it is added by callers. So an action is marked inside
//! the text, and [`action_first`] moves it to the front.

use std::borrow::Cow;
use std::fmt::Display;

use crate::language::{ACTION_MARKS, Language, in_both};

pub(crate) mod command;
mod span;

pub(crate) use span::span;

/// A message with `N` values, `{0}` to `{N-1}` in its texts.
#[derive(Debug)]
pub(crate) struct Message<const N: usize> {
    pub(crate) template: Template,
}

/// The texts of a message.
#[derive(Debug)]
pub(crate) struct Template {
    /// Its name in the list of all messages.
    #[cfg_attr(not(test), expect(dead_code, reason = "read by the list of all messages"))]
    pub(crate) name: &'static str,
    pub(crate) english: Texts,
    pub(crate) chinese: Texts,
}

/// A message in one language.
#[derive(Debug)]
pub(crate) struct Texts {
    /// What to do: whole sentences.
    pub(crate) action: &'static str,
    /// What happened: a sentence without its end.
    pub(crate) what: &'static str,
}

/// Defines messages, and the table `ALL` of them. Each has a name, the number of its values, and for each language what to
/// do and what happened. Does not compile without an action, or if a value is missing in a language.
macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident<$values:literal> {
        $action:literal, $what:literal;
        $action_zh:literal, $what_zh:literal;
    })+) => {
        $($(#[$doc])*
        pub(crate) static $name: $crate::message::Message<$values> = $crate::message::Message::new(
            stringify!($name),
            $crate::message::Texts { action: $action, what: $what },
            $crate::message::Texts { action: $action_zh, what: $what_zh },
        );)+

        /// All messages of this table.
        #[cfg(test)]
        pub(crate) static ALL: &[&$crate::message::Template] = &[$(&$name.template),+];
    };
}
pub(crate) use messages;

/// Defines messages without values, each a `&'static str` in both languages: what to do, then why. Also defines the table
/// `ALL` of them. Does not compile if the English does not begin with a capital letter, as what to do does, or if one of the
/// two ends a sentence and the other does not.
macro_rules! texts {
    ($($(#[$about:meta])* $name:ident = $english:literal, $chinese:literal;)+) => {
        $($(#[$about])* pub(crate) const $name: &str = {
            const _: () = assert!($crate::message::begins_like_an_action($english));
            $crate::language::bilingual!($english, $chinese)
        };)+

        /// Every text, with the name of its constant.
        #[cfg(test)]
        pub(crate) const ALL: &[(&str, &str)] = &[$((stringify!($name), $name)),+];
    };
}
pub(crate) use texts;

/// Whether a text begins with a capital letter, as what to do does.
pub(crate) const fn begins_like_an_action(english: &str) -> bool {
    matches!(english.as_bytes(), [b'A'..=b'Z', ..])
}

/// A text with `N` values that asks for nothing: how something is, or that all is well.
#[derive(Debug)]
pub(crate) struct Note<const N: usize> {
    pub(crate) template: NoteTemplate,
}

/// The texts of a note.
#[derive(Debug)]
pub(crate) struct NoteTemplate {
    /// Its name in the list of all messages.
    #[cfg_attr(not(test), expect(dead_code, reason = "read by the list of all messages"))]
    pub(crate) name: &'static str,
    pub(crate) english: &'static str,
    pub(crate) chinese: &'static str,
}

/// Defines notes, each with its name, the number of its values and its text in both languages; and the table `NOTES` of them.
/// Does not compile if a value is missing in a language.
macro_rules! notes {
    ($($(#[$doc:meta])* $name:ident<$values:literal> = $english:literal, $chinese:literal;)+) => {
        $($(#[$doc])*
        pub(crate) static $name: $crate::message::Note<$values> =
            $crate::message::Note::new(stringify!($name), $english, $chinese);)+

        /// All notes of this table.
        #[cfg(test)]
        pub(crate) static NOTES: &[&$crate::message::NoteTemplate] = &[$(&$name.template),+];
    };
}
pub(crate) use notes;

impl<const N: usize> Note<N> {
    pub(crate) const fn new(
        name: &'static str,
        english: &'static str,
        chinese: &'static str,
    ) -> Note<N> {
        assert!(has_all_values(&[english], N) && has_all_values(&[chinese], N), "all values");
        Note { template: NoteTemplate { name, english, chinese } }
    }

    /// Returns the note with these values, in both languages.
    pub(crate) fn with(&self, values: [&dyn Display; N]) -> String {
        let values = values.map(ToString::to_string);
        in_both(filled(self.template.english, &values), filled(self.template.chinese, &values))
    }
}

impl<const N: usize> Message<N> {
    pub(crate) const fn new(name: &'static str, english: Texts, chinese: Texts) -> Message<N> {
        assert!(english.is_complete(N) && chinese.is_complete(N), "an action, and all values");
        Message { template: Template { name, english, chinese } }
    }

    /// Returns the message with these values, in both languages.
    pub(crate) fn with(&self, values: [&dyn Display; N]) -> String {
        let values = values.map(ToString::to_string);
        let [english, chinese] = [&self.template.english, &self.template.chinese];
        let both = |of: fn(&Texts) -> &'static str| {
            in_both(filled(of(english), &values), filled(of(chinese), &values))
        };
        format!("{} {}", marked_action(both(|it| it.action)), both(|it| it.what))
    }

    /// Returns what to do, in English and Chinese, and apart from it what happened, in both languages.
    pub(crate) fn divided(&self, values: [&dyn Display; N]) -> ([String; 2], String) {
        let values = values.map(ToString::to_string);
        let [english, chinese] = [&self.template.english, &self.template.chinese];
        let action = [english, chinese].map(|texts| filled(texts.action, &values));
        (action, in_both(filled(english.what, &values), filled(chinese.what, &values)))
    }

    /// Returns the message with these values as [`action_first`] arranges it, for a text of its own.
    pub(crate) fn first(&self, values: [&dyn Display; N]) -> String {
        action_first(&self.with(values))
    }

    /// Returns the message with these values as a whole sentence.
    pub(crate) fn sentence(&self, values: [&dyn Display; N]) -> String {
        let text = self.first(values);
        let [english, chinese] =
            [Language::English, Language::Chinese].map(|language| language.resolve(&text));
        in_both(format!("{english}."), format!("{chinese}。"))
    }

    /// Returns the message with these values, and what the system, WeChat or another program said about it.
    pub(crate) fn quoting(&self, values: [&dyn Display; N], said: impl Display) -> String {
        format!("{} [{said}]", self.with(values))
    }
}

impl Message<0> {
    /// Returns the message in both languages.
    pub(crate) fn text(&self) -> String {
        self.with([])
    }
}

impl Texts {
    /// Whether there are an action and a description, and all of `values` values and no other are in them.
    const fn is_complete(&self, values: usize) -> bool {
        has_all_values(&[self.action, self.what], values)
            && !self.action.is_empty()
            && !self.what.is_empty()
    }
}

/// Whether all of `values` values and no other are in the texts together.
const fn has_all_values(texts: &[&str], values: usize) -> bool {
    let mut value = 0;
    while value < 10 {
        let (mut is_used, mut at) = (false, 0);
        while at < texts.len() {
            is_used |= has_value(texts[at], value);
            at += 1;
        }
        if is_used != (value < values) {
            return false;
        }
        value += 1;
    }
    true
}

/// Whether the text has the value of this number.
const fn has_value(text: &str, number: usize) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at + 2 < bytes.len() {
        if bytes[at] == b'{' && bytes[at + 1] == b'0' + number as u8 && bytes[at + 2] == b'}' {
            return true;
        }
        at += 1;
    }
    false
}

/// Returns the text with its values in place of `{0}`, `{1}` and so on. A value is not looked into.
fn filled(text: &str, values: &[String]) -> String {
    let mut whole = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        whole += before;
        let number = after.bytes().next().map(|digit| usize::from(digit.wrapping_sub(b'0')));
        match (number.and_then(|number| values.get(number)), after.get(1..2)) {
            (Some(value), Some("}")) => {
                whole += value;
                rest = &after[2..];
            }
            _ => {
                whole.push('{');
                rest = after;
            }
        }
    }
    whole + rest
}

/// Returns what could not be done, in both languages, for an error around another one: `cannot open lock X`.
pub(crate) fn cannot(english: &str, chinese: &str, what: impl Display) -> String {
    let what = what.to_string();
    // No blank between two Chinese characters.
    let is_chinese = Language::Chinese.resolve(&what).starts_with(is_han);
    let blank = if is_chinese { "" } else { " " };
    in_both(format!("cannot {english} {what}"), format!("无法{chinese}{blank}{what}"))
}

/// Returns a list of names as each language writes it: the first `max` of them, and how many there are beside or in all.
pub(crate) fn listed(names: &[impl AsRef<str>], max: usize) -> String {
    let shown: Vec<_> = names.iter().take(max).map(AsRef::as_ref).collect();
    let (all, more) = (names.len(), names.len() - shown.len());
    let [rest, rest_zh] = match more {
        0 => [String::new(), String::new()],
        more => [format!(" and {more} more"), format!(" 等 {all} 个")],
    };
    in_both(shown.join(", ") + &rest, shown.join("、") + &rest_zh)
}

/// Marks a text as what to do, so that [`action_first`] finds it.
pub(crate) fn marked_action(action: impl Display) -> String {
    let [begin, end] = ACTION_MARKS;
    format!("{begin}{action}{end}")
}

/// Returns what to do, in both languages and marked.
pub(crate) fn action(english: impl Display, chinese: impl Display) -> String {
    marked_action(in_both(english, chinese))
}

/// Returns a text of [`texts`] with its action marked, so that it can stand behind other words.
pub(crate) fn with_marked_action(text: &str) -> String {
    let divided = |language: Language, colon| {
        let text = language.resolve(text);
        let (action, what) = text.rsplit_once(colon).unwrap_or(("", &text));
        [action, what.trim_end_matches(['.', '。'])].map(str::to_owned)
    };
    let [english, what] = divided(Language::English, ": ");
    let [chinese, what_zh] = divided(Language::Chinese, "：");
    format!("{} {}", action(english + ".", chinese + "。"), in_both(what, what_zh))
}

/// Returns the text with what to do at its front, each action once: `What to do: what happened [words from outside]`, in
/// both languages. A text without an action stays as it is.
pub(crate) fn action_first(text: &str) -> String {
    if !text.contains(ACTION_MARKS[0]) {
        return text.to_owned();
    }
    let [english, chinese] = [in_order(text, Language::English), in_order(text, Language::Chinese)];
    // Words from outside are said once, and follow what they explain.
    let ([english, said], [chinese, said_in_chinese]) = (divided(&english), divided(&chinese));
    match said == said_in_chinese {
        true => in_both(without_colon(english), without_colon(chinese)) + said,
        false => {
            let whole = |text, said| format!("{}{said}", without_colon(text));
            in_both(whole(english, said), whole(chinese, said_in_chinese))
        }
    }
}

/// Divides a text before the words from outside at its end, in brackets with a blank before them.
fn divided(text: &str) -> [&str; 2] {
    let mut depth = 0;
    let begin = text.char_indices().rev().find(|(_, c)| {
        depth += match c {
            ']' => 1,
            '[' => -1,
            _ => 0,
        };
        depth == 0
    });
    match begin {
        Some((at, '[')) if text[..at].ends_with(' ') => {
            let (what, said) = text.split_at(at - 1);
            [what, said]
        }
        _ => [text, ""],
    }
}

fn without_colon(text: &str) -> &str {
    text.trim_end_matches([' ', ':', '：'])
}

/// Returns a text in one language, with its actions first.
fn in_order(text: &str, language: Language) -> String {
    let [begin, end] = ACTION_MARKS;
    let text = language.resolve_marked(text);
    let mut actions: Vec<&str> = Vec::new();
    let mut what = String::with_capacity(text.len());
    let mut left = &*text;
    while let Some((before, after)) = left.split_once(begin) {
        let (action, after) = after.split_once(end).unwrap_or((after, ""));
        if !actions.contains(&action) {
            actions.push(action);
        }
        // What stood on both sides of the action stands together now.
        what += before.trim_end_matches(' ');
        left = after.trim_start_matches(' ');
        let is_word_next = match left.as_bytes() {
            [] | [b';' | b',' | b')', ..] | [b'.'] | [b'.', b' ', ..] => false,
            _ => true, // A path may begin with a full stop.
        };
        if is_word_next && !what.is_empty() && !what.ends_with('：') {
            what.push(' ');
        }
    }
    what += left;
    let what = match what.ends_with(']') {
        true => what.as_str(),
        false => without_colon(&what),
    };
    let (blank, sentence, colon) = match language {
        Language::Chinese => ("", '。', "："),
        _ => (" ", '.', ": "),
    };
    let what = match language {
        Language::Chinese => {
            let [ours, said] = divided(what);
            Cow::Owned(with_wide_colons(ours) + said)
        }
        _ => Cow::Borrowed(what),
    };
    let actions = actions.join(blank);
    match actions.strip_suffix(sentence) {
        _ if what.is_empty() => actions,
        Some(action) => format!("{action}{colon}{what}"),
        None => format!("{actions}{blank}{what}"),
    }
}

/// Whether this is a Chinese character.
fn is_han(c: char) -> bool {
    ('\u{4e00}'..='\u{9fff}').contains(&c)
}

/// Returns a Chinese text whose colons are Chinese where Chinese follows: those between an error and its cause are not.
pub(crate) fn with_wide_colons(text: &str) -> String {
    let mut parts = text.split(": ");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        whole += if part.starts_with(is_han) { "：" } else { ": " };
        whole += part;
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Language::{Both, Chinese, English};

    messages! {
        LOST<2> {
            "Look for {0}.", "{0} was lost by {1}";
            "请查找 {0}。", "{1} 丢失了 {0}";
        }
        PLAIN<0> {
            "Try again.", "it failed";
            "请重试。", "失败";
        }
    }

    #[test]
    fn a_message_says_first_what_to_do_and_last_what_was_said_outside() {
        let text = action_first(&LOST.quoting([&"the {1}", &"x"], "raw {0}"));
        assert_eq!(English.resolve(&text), "Look for the {1}: the {1} was lost by x [raw {0}]");
        assert_eq!(Chinese.resolve(&text), "请查找 the {1}：x 丢失了 the {1} [raw {0}]");
        assert_eq!(
            Both.resolve(&text),
            "Look for the {1}: the {1} was lost by x 请查找 the {1}：x 丢失了 the {1} [raw {0}]"
        );
        assert_eq!(ALL.len(), 2);
    }

    #[test]
    fn a_list_has_the_comma_of_its_language_and_says_how_many_there_are() {
        let text = listed(&["a", "b", "c"], 2);
        assert_eq!(English.resolve(&text), "a, b and 1 more");
        assert_eq!(Chinese.resolve(&text), "a、b 等 3 个");
        assert_eq!(Both.resolve(&listed(&["a", "b"], 2)), "a, b a、b");
    }

    #[test]
    fn a_colon_before_chinese_is_a_chinese_one() {
        let cause = in_both("it is open", "其他用户可读");
        let text = action_first(&format!("{}: {cause} [a: 其他]", PLAIN.text()));
        assert_eq!(Chinese.resolve(&text), "请重试：失败：其他用户可读 [a: 其他]");
        assert_eq!(English.resolve(&text), "Try again: it failed: it is open [a: 其他]");
    }

    #[test]
    fn an_action_moves_to_the_front_from_wherever_it_stands_and_is_said_once() {
        let first = |text: &str| English.resolve(&action_first(text)).into_owned();
        let act = || action("Act.", "请处理。");
        assert_eq!(first(&format!("cannot do: [raw] {}", act())), "Act: cannot do [raw]");
        assert_eq!(first(&format!("a: {}; b: {}", act(), act())), "Act: a:; b");
        assert_eq!(first(&format!("name: {}", PLAIN.text())), "Try again: name: it failed");
        assert_eq!(first("as it is: [x]"), "as it is: [x]");
        // Words from outside may have brackets themselves.
        let raw = "[raw, hint: [1], from [2]]";
        assert_eq!(first(&format!("cannot do: {raw} {}", act())), format!("Act: cannot do {raw}"));
        // A dot at the end of a path is a part of it.
        let path = format!("cannot read /etc/wxtoken. {}", act());
        assert_eq!(first(&path), "Act: cannot read /etc/wxtoken.");
        assert_eq!(first(&format!("{path} [raw]")), "Act: cannot read /etc/wxtoken. [raw]");
        // One at the beginning, too.
        for path in ["./d.json", "../d.json", ".d.json"] {
            assert_eq!(
                first(&format!("a: {} {path} is none", act())),
                format!("Act: a: {path} is none")
            );
        }
        assert_eq!(first(&format!("it failed {}.", act())), "Act: it failed.");
        let asks = action("Is it there?", "是否存在？");
        assert_eq!(first(&format!("no answer {asks}")), "Is it there? no answer");
        // Where it was not moved, it is whole all the same.
        let text = format!("cannot do: {}", act());
        assert_eq!(English.resolve(&text), "cannot do: Act.");
    }
}
