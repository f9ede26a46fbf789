//! Lines on stderr: one for a failure, more with `-v`. Never stdout, and never a panic when nobody listens.
//!
//! How much is said is settled once, by `set_level`, before the first line.

use std::fmt;
use std::io::Write;
use std::sync::{Mutex, OnceLock, PoisonError};

/// How much is said on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Nothing (`-q`).
    Silent,
    /// Failures, and what an operator should hear of at once.
    Error,
    /// What was done (`-v`).
    Info,
    /// Each step on the way (`-vv`).
    Debug,
    /// What the network libraries say, too (`-vvv`).
    Network,
}

static LEVEL: OnceLock<Level> = OnceLock::new();

/// Settles how much is said: `-q`, or the number of `-v`.
pub(crate) fn set_level(quiet: bool, verbose: u8) {
    let level = match verbose {
        _ if quiet => Level::Silent,
        0 => Level::Error,
        1 => Level::Info,
        2 => Level::Debug,
        _ => Level::Network,
    };
    let _ = LEVEL.set(level); // The first word stands; there is only one caller.
    if level == Level::Network && log::set_logger(&NetworkLog).is_ok() {
        log::set_max_level(log::LevelFilter::Debug);
    }
}

/// Whether lines of this level are written.
pub(crate) fn says(level: Level) -> bool {
    level <= LEVEL.get().copied().unwrap_or(Level::Error)
}

/// Writes `wxtoken: …` on stderr, if lines of this level are written.
pub(crate) fn line(level: Level, message: fmt::Arguments<'_>) {
    if says(level) {
        let mut text = format!("wxtoken: {message}").replace('\n', " ");
        text.push('\n');
        let progress = PROGRESS.lock().unwrap_or_else(PoisonError::into_inner);
        if !progress.is_empty() {
            text = format!("{ERASE}{text}{progress}");
        }
        write(&text);
    }
}

/// What stands below all lines on a terminal while something goes on; empty, where nothing does.
static PROGRESS: Mutex<String> = Mutex::new(String::new());

/// To the line's beginning, and away with what stands there.
const ERASE: &str = "\r\x1b[K";

/// Shows on the terminal at stderr how far something is, in place of what was shown before; nothing, where `text` is
/// empty.
pub(crate) fn progress(text: &str) {
    let mut progress = PROGRESS.lock().unwrap_or_else(PoisonError::into_inner);
    if says(Level::Error) && *progress != text {
        text.clone_into(&mut progress);
        write(&format!("{ERASE}{text}"));
    }
}

fn write(text: &str) {
    // One write, so that lines of several processes do not mix. Nobody to tell when stderr is gone.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// A failure, or what an operator should hear of at once.
macro_rules! error {
    ($($arg:tt)*) => { $crate::log::line($crate::log::Level::Error, format_args!($($arg)*)) };
}

/// What was done; said with `-v`.
macro_rules! info {
    ($($arg:tt)*) => { $crate::log::line($crate::log::Level::Info, format_args!($($arg)*)) };
}

/// A step on the way; said with `-vv`.
macro_rules! debug {
    ($($arg:tt)*) => { $crate::log::line($crate::log::Level::Debug, format_args!($($arg)*)) };
}

pub(crate) use {debug, error, info};

/// Text from outside, made safe to print: control, bidirectional and invisible characters are escaped, and it ends
/// after `max` characters. Chinese stays Chinese.
pub(crate) fn printable(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(4 * max));
    for c in text.chars().take(max) {
        match c {
            '"' | '\'' | '\\' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    if text.chars().nth(max).is_some() {
        out.push('…');
    }
    out
}

/// A longer word may be a secret, a key or a token: an AppSecret has 32 characters. The longest that people need to read
/// is WeChat's name for a call, of 26.
const LONGEST_WORD: usize = 28;

/// The same text without any word that is as long as a secret or a token: more than [`LONGEST_WORD`] letters, digits,
/// `-` and `_` in a row. For text whose writer may have put one in it.
pub(crate) fn without_long_words(text: &str) -> String {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_of_word) {
        let end =
            rest[start..].find(|c| !is_of_word(c)).map_or(rest.len(), |length| start + length);
        out.push_str(&rest[..start]);
        out.push_str(if end - start > LONGEST_WORD { "[…]" } else { &rest[start..end] });
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

/// Carries what ureq and rustls log to stderr. Trace lines hold requests with the secret in them; Cargo.toml compiles
/// them out of every library at once.
struct NetworkLog;

impl log::Log for NetworkLog {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Debug
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let text = without_long_words(&record.args().to_string());
            line(Level::Network, format_args!("{}: {}", record.target(), printable(&text, 1000)));
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_send_cannot_move_the_cursor() {
        assert_eq!(
            printable("invalid ip \u{1b}[2J\r\nwxtoken: ok", 99),
            "invalid ip \\u{1b}[2J\\r\\nwxtoken: ok"
        );
        assert_eq!(printable("a\u{202e}b", 9), "a\\u{202e}b");
        assert_eq!(printable("无效的 appid, \"x\"", 99), "无效的 appid, \"x\"");
        assert_eq!(printable("abcdef", 3), "abc…");
    }

    #[test]
    fn a_word_as_long_as_a_token_is_left_out() {
        let (short, long) = ("x".repeat(LONGEST_WORD), "-_0".repeat(10));
        let text = format!("a={short}&b={long}, 无 {long}");
        assert_eq!(without_long_words(&text), format!("a={short}&b=[…], 无 […]"));
        assert_eq!(without_long_words(""), "");
        let rid = "invalid appid rid: 6aac005a-01bfdbee-79769285";
        assert_eq!(without_long_words(rid), rid);
    }

    #[test]
    fn the_libraries_cannot_write_trace_lines_at_all() {
        assert_eq!(log::STATIC_MAX_LEVEL, log::LevelFilter::Debug);
    }
}
