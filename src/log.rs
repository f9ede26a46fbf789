//! Writes lines to stderr: one for a failure, more with `-v`. Makes text from outside safe to print. No line holds a word
//! that has the form of a secret. A closed stderr is ignored, and one that is not read stops nothing. `set_level` is called
//! once, before the first line.

use std::fmt;
use std::sync::OnceLock;

use crate::language::in_both;

mod columns;
mod format;
mod progress;
mod queue;
mod redaction;

pub(crate) use columns::{columns_of, pieces};
pub(crate) use format::{Fields, LogFormat, kind, set_format, verb};
pub(crate) use progress::{
    USUAL_WIDTH, can_show, show_progress, tell_waits, waiting_for, without_progress,
};
pub(crate) use queue::write_in_background;
pub(crate) use redaction::{may_hold_secret, without_long_words, without_secrets};

/// How much is written to stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Nothing (`-q`).
    Silent,
    /// The answer to what was asked for, where stdout has none.
    Notice,
    /// Failures, and what an operator should know at once.
    Error,
    /// What was done (`-v`).
    Info,
    /// Each step (`-vv`).
    Debug,
    /// The network libraries' own messages too (`-vvv`).
    Network,
}

static LEVEL: OnceLock<Level> = OnceLock::new();

/// Sets the level, from `-q` or the number of `-v`.
pub(crate) fn set_level(quiet: bool, verbose: u8) {
    let level = match verbose {
        _ if quiet => Level::Silent,
        0 => Level::Error,
        1 => Level::Info,
        2 => Level::Debug,
        _ => Level::Network,
    };
    let _ = LEVEL.set(level); // Fails only at a second call.
    if level == Level::Network && log::set_logger(&NetworkLog).is_ok() {
        log::set_max_level(log::LevelFilter::Debug);
    }
}

/// Whether lines of this level are written.
pub(crate) fn is_enabled(level: Level) -> bool {
    level <= LEVEL.get().copied().unwrap_or(Level::Error)
}

/// Writes a line about an event to stderr, if its level is enabled.
pub(crate) fn write_event(
    level: Level,
    event: &str,
    fields: &Fields<'_>,
    message: fmt::Arguments<'_>,
) {
    #[cfg(test)]
    if testing::keep(level, event, message) {
        return;
    }
    if is_enabled(level) {
        progress::write_above(format::line(level, event, fields, message));
    }
}

/// Waits until all lines are written, but not for long if stderr takes nothing. For the end of the process.
pub(crate) fn flush() {
    progress::end();
    queue::flush();
}

/// Flushes when it is dropped, also by a panic.
pub(crate) struct FlushAtEnd;

impl Drop for FlushAtEnd {
    fn drop(&mut self) {
        flush();
    }
}

/// Reports a panic in one line from now on. Its message is withheld: it can be a library's, and contain a secret.
pub(crate) fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|it| format!(" ({}:{})", it.file(), it.line()));
        let place = place.unwrap_or_default();
        // Not as a log line: the panic may have come while one was written.
        let message = in_both(
            format!("a fault in wxtoken itself{place}; please report it."),
            format!("程序内部错误{place}，请报告此问题。"),
        );
        queue::take(format::line(Level::Error, "panic", &[], format_args!("{message}"))).wait();
    }));
}

/// Logs an event at a level: `event = "NAME", FIELD = VALUE, …;` before the message names it and what is known of it. Without
/// that, the event has the name of its module.
macro_rules! event {
    ($level:ident, event = $event:literal $(, $field:ident = $value:expr)* ; $($arg:tt)*) => {
        $crate::log::write_event(
            $crate::log::Level::$level,
            $event,
            &[$((stringify!($field), &$value as &dyn std::fmt::Display)),*],
            format_args!($($arg)*),
        )
    };
    ($level:ident, $($arg:tt)*) => {
        if $crate::log::is_enabled($crate::log::Level::$level) {
            let event = $crate::log::kind(module_path!());
            $crate::log::write_event($crate::log::Level::$level, &event, &[], format_args!($($arg)*));
        }
    };
}

/// Logs a failure, or what an operator should know at once.
macro_rules! error {
    ($($arg:tt)*) => { $crate::log::event!(Error, $($arg)*) };
}

/// Logs the answer to what was asked for, also without `-v`.
macro_rules! notice {
    ($($arg:tt)*) => { $crate::log::event!(Notice, $($arg)*) };
}

/// Logs what was done, with `-v`.
macro_rules! info {
    ($($arg:tt)*) => { $crate::log::event!(Info, $($arg)*) };
}

/// Logs a step, with `-vv`.
macro_rules! debug {
    ($($arg:tt)*) => { $crate::log::event!(Debug, $($arg)*) };
}

pub(crate) use {debug, error, event, info, notice};

/// Lets a message about something that is looked at again and again through once, and again only after it has changed.
#[derive(Debug, Default)]
pub(crate) struct OnceUntilChanged(Option<String>);

impl OnceUntilChanged {
    /// Whether `message` differs from the one before, and is to be logged.
    pub(crate) fn is_new(&mut self, message: &str) -> bool {
        let is_new = self.last() != Some(message);
        if is_new {
            self.0 = Some(message.to_owned());
        }
        is_new
    }

    /// Returns the message that was let through last, if there was no reset since.
    pub(crate) fn last(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// Makes the next message new, whatever it is.
    pub(crate) fn reset(&mut self) {
        self.0 = None;
    }
}

/// Makes text from outside safe to print: escapes control, bidirectional and invisible characters, keeps Chinese, and
/// cuts it after `max` characters.
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

/// Writes what ureq and rustls log to stderr. Their trace lines contain requests, secret included; Cargo.toml compiles
/// trace lines out of every library.
struct NetworkLog;

impl log::Log for NetworkLog {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Debug
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let text = without_long_words(&record.args().to_string());
            write_event(
                Level::Network,
                "network",
                &[("library", &record.target())],
                format_args!("{}: {}", record.target(), printable(&text, 1000)),
            );
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
pub(crate) mod testing {
    //! The lines of one thread, for tests of what is logged.

    use std::cell::RefCell;

    use super::*;

    /// A line: its level, the event's name, and the message.
    pub(crate) type Line = (Level, String, String);

    thread_local! {
        static LINES: RefCell<Option<Vec<Line>>> = const { RefCell::new(None) };
    }

    /// Whether the line is kept, and so not written.
    pub(super) fn keep(level: Level, event: &str, message: fmt::Arguments<'_>) -> bool {
        let line = || (level, event.to_owned(), message.to_string());
        LINES.with_borrow_mut(|lines| lines.as_mut().map(|lines| lines.push(line())).is_some())
    }

    /// Returns the lines of this thread since the last call. The first returns none.
    pub(crate) fn lines() -> Vec<Line> {
        LINES.replace(Some(Vec::new())).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::bilingual;

    #[test]
    fn a_message_is_let_through_once_until_it_changes_or_is_reset() {
        let mut once = OnceUntilChanged::default();
        assert!(once.is_new("damaged") && !once.is_new("damaged"));
        assert!(once.is_new("unreadable") && once.is_new("damaged"));
        once.reset();
        assert!(once.is_new("damaged") && !once.is_new("damaged"));
    }

    #[test]
    fn text_from_outside_cannot_move_the_cursor() {
        assert_eq!(
            printable("invalid ip \u{1b}[2J\r\nwxtoken: ok", 99),
            "invalid ip \\u{1b}[2J\\r\\nwxtoken: ok"
        );
        assert_eq!(printable("a\u{202e}b", 9), "a\\u{202e}b");
        assert_eq!(printable("无效的 appid, \"x\"", 99), "无效的 appid, \"x\"");
        assert_eq!(printable("abcdef", 3), "abc…");
        assert_eq!(printable(bilingual!("a", "甲"), 99), "\\u{e000}a\\u{e001}甲\\u{e002}");
    }

    #[test]
    fn trace_lines_of_libraries_are_compiled_out() {
        assert_eq!(log::STATIC_MAX_LEVEL, log::LevelFilter::Debug);
    }
}
