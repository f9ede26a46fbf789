//! The terminal at stdout: its width, how many columns a text takes on it, and text that is cut or broken to fit.

use std::io::{self, IsTerminal};

use rustix::termios::tcgetwinsize;

use crate::language::COMMAND_MARKS;
use crate::log::{USUAL_WIDTH, columns_of, pieces};

/// Returns the width of the terminal at stdout, in columns; `None` if stdout is no terminal.
pub(in crate::commands) fn width() -> Option<usize> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let columns = tcgetwinsize(&stdout).map_or(0, |size| usize::from(size.ws_col));
    Some(if columns == 0 { USUAL_WIDTH } else { columns })
}

/// Returns how many columns a text takes.
pub(in crate::commands) fn columns(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

/// Returns a text with blanks after it, so that it takes `width` columns.
pub(in crate::commands) fn padded(text: &str, width: usize) -> String {
    text.to_owned() + &" ".repeat(width.saturating_sub(columns(text)))
}

/// Returns the beginning of a text, with `…` if not all of it fits.
pub(in crate::commands) fn cut(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let fits = |c: &char| {
        let fits = columns_of(*c) <= left;
        left = left.saturating_sub(columns_of(*c));
        fits
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

/// Returns the end of a text, for a path: its name says more than its root.
pub(in crate::commands) fn cut_at_start(text: &str, width: usize) -> String {
    let reversed: String = text.chars().rev().collect();
    cut(&reversed, width).chars().rev().collect()
}

/// Breaks a text into lines of up to `width` columns: at blanks, and between Chinese characters. A longer word is broken, as
/// JSON is after a comma.
pub(in crate::commands) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let width = width.max(2);
    let mut lines = vec![String::new()];
    let parts_of = |piece| match columns(piece) <= width {
        true => vec![piece],
        false => piece.split_inclusive(',').collect(),
    };
    for piece in pieces(text).into_iter().flat_map(parts_of) {
        let line = lines.last().map_or("", String::as_str);
        let word = piece.trim_end();
        if columns(line) + columns(word) <= width {
            lines.last_mut().into_iter().for_each(|line| line.push_str(piece));
        } else if columns(word) <= width {
            lines.push(piece.to_owned());
        } else {
            for c in piece.chars() {
                if lines.last().map_or(0, |line| columns(line)) + columns_of(c) > width {
                    lines.push(String::new());
                }
                lines.last_mut().into_iter().for_each(|line| line.push(c));
            }
        }
    }
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

/// A line on a terminal.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::commands) enum Line {
    Text(String),
    /// A command to paste, whole: a break in it would run its first part by itself.
    Command(String),
}

/// Breaks a text into lines of up to `width` columns. A command that is marked in it has a line of its own, however long.
/// `shown` makes each part of the text fit to be printed.
pub(in crate::commands) fn laid_out(
    text: &str,
    width: usize,
    shown: impl Fn(&str) -> String,
) -> Vec<Line> {
    let parts: Vec<_> = text.split(COMMAND_MARKS).map(shown).collect();
    let is_mark = |c: char| "，；：。、）,;:.) ".contains(c);
    let mut lines = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        let is_last = at + 2 == parts.len() - 1;
        match (at % 2, parts.get(at + 2)) {
            (1, _) => lines.push(Line::Command(part.clone())),
            // Nothing but the end of a parenthesis follows the command.
            (_, Some(rest))
                if is_last && rest.ends_with([')', '）']) && rest.chars().all(is_mark) =>
            {
                let part = format!("{}↓{rest}", part.trim_start_matches(is_mark));
                lines.extend(wrapped(&part, width).into_iter().map(Line::Text));
                lines.push(Line::Command(parts[at + 1].clone()));
                break;
            }
            _ => {
                let part = if at == 0 { part } else { part.trim_start_matches(is_mark) };
                if !part.trim().is_empty() || parts.len() == 1 {
                    lines.extend(wrapped(part.trim_end(), width).into_iter().map(Line::Text));
                }
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_stays_whole_and_has_a_line_of_its_own() {
        let laid_out = |text: &str| {
            let text = text.replace('<', "\u{E005}").replace('>', "\u{E006}");
            let lines = laid_out(&text, 10, str::to_owned).into_iter();
            lines
                .map(|line| match line {
                    Line::Text(text) => text,
                    Line::Command(command) => format!("$ {command}"),
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(laid_out("no command here"), ["no command", "here"]);
        assert_eq!(laid_out(""), [""]);
        assert_eq!(
            laid_out("Run <wxtoken fetch --force>, then <wxtoken get -r | wc>."),
            ["Run", "$ wxtoken fetch --force", "then", "$ wxtoken get -r | wc"]
        );
        assert_eq!(laid_out("请执行 <a b>。"), ["请执行", "$ a b"]);
        assert_eq!(
            laid_out("no (at once: <a b c d e f g>)"),
            ["no (at", "once: ↓)", "$ a b c d e f g"]
        );
    }

    #[test]
    fn chinese_takes_two_columns() {
        for (text, expected) in
            [("", 0), ("token", 5), ("白名单", 6), ("token 已过期。", 14), ("✓ …█", 4)]
        {
            assert_eq!(columns(text), expected, "{text}");
        }
        assert_eq!(padded("账号", 6), "账号  ");
        assert_eq!(padded("账号", 3), "账号");
    }

    #[test]
    fn a_text_that_is_too_wide_is_cut_with_a_sign() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "ab…");
        assert_eq!(cut("白名单", 5), "白名…");
        assert_eq!(cut("白名单", 4), "白…");
        assert_eq!(cut_at_start("/var/lib/wxtoken/default.json", 13), "…default.json");
    }

    #[test]
    fn lines_break_at_blanks_and_between_chinese_characters_and_never_before_punctuation() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("one two", 80), ["one two"]);
        assert_eq!(wrapped("请加入白名单。", 8), ["请加入白", "名单。"]);
        assert_eq!(wrapped("请加入白名单。", 12), ["请加入白名", "单。"]);
        assert_eq!(wrapped("请运行 wxtoken fetch 一次", 10), ["请运行", "wxtoken", "fetch 一次"]);
        assert_eq!(wrapped("abcdefgh ij", 5), ["abcde", "fgh", "ij"]);
        assert_eq!(
            wrapped("x {\"a\":1,\"b\":20,\"c\":3}", 12),
            ["x {\"a\":1,", "\"b\":20,", "\"c\":3}"]
        );
        assert_eq!(wrapped("", 5), [""]);
        for width in 0..30 {
            let lines = wrapped("一个 word（也）是, as wide as 80 columns。", width);
            assert!(lines.iter().all(|line| columns(line) <= width.max(2)), "{width}: {lines:?}");
        }
    }
}
