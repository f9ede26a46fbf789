//! The form of a line: text for people and journals, or JSON for programs. No line holds a word that has the form of a secret.

use std::fmt::{self, Display};
use std::sync::OnceLock;

use clap::ValueEnum;
use time::UtcDateTime;

use super::{Level, without_secrets};
use crate::language::Language;
use crate::message::action_first;

/// The forms of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// `wxtoken: VERB: MESSAGE`
    Text,
    /// An object in each line
    Json,
}

/// The fields that are numbers. Others can look like one, as the hash of a token does now and then.
const NUMBERS: [&str; 3] = ["exit_status", "microseconds", "status"];

static FORMAT: OnceLock<(LogFormat, &'static str)> = OnceLock::new();

/// Sets the form of all lines, and the verb that they are of. A second call changes nothing.
pub(crate) fn set_format(format: LogFormat, verb: &'static str) {
    let _ = FORMAT.set((format, verb));
}

/// Returns the verb of this run, with which the lines of layers begin that do not know it.
pub(crate) fn verb() -> &'static str {
    FORMAT.get().map_or("wxtoken", |(_, verb)| verb)
}

/// What is known of an event besides its message, by name.
pub(crate) type Fields<'a> = [(&'static str, &'a dyn Display)];

/// Returns the name for the events of a module that have no other one: its path, as in `server.reload`.
pub(crate) fn kind(module_path: &str) -> String {
    module_path.split("::").skip(1).collect::<Vec<_>>().join(".")
}

/// Returns a whole line about an event of this process.
pub(super) fn line(
    level: Level,
    event: &str,
    fields: &Fields<'_>,
    message: fmt::Arguments<'_>,
) -> String {
    // Whatever a message quotes: a setting that names a file may be the secret itself.
    let message = message.to_string();
    let message = in_order(&message);
    let message = Language::of_process().resolve(&message);
    let message = without_secrets(&message).replace('\n', " ");
    match FORMAT.get() {
        Some((LogFormat::Json, verb)) => {
            json(UtcDateTime::now(), level, verb, event, fields, &message)
        }
        Some((LogFormat::Text, _)) | None => format!("wxtoken: {message}\n"),
    }
}

/// Returns the message with what to do first, after the verb that it begins with.
fn in_order(message: &str) -> String {
    let is_verb = |word: &str| word.bytes().all(|byte| byte.is_ascii_lowercase());
    match message.split_once(": ") {
        Some((verb, rest)) if is_verb(verb) => format!("{verb}: {}", action_first(rest)),
        _ => action_first(message),
    }
}

fn json(
    time: UtcDateTime,
    level: Level,
    verb: &str,
    event: &str,
    fields: &Fields<'_>,
    message: &str,
) -> String {
    let (date, (hour, minute, second, milli)) = (time.date(), time.as_hms_milli());
    let level = match level {
        Level::Silent | Level::Error => "error",
        Level::Notice | Level::Info => "info",
        Level::Debug => "debug",
        Level::Network => "network",
    };
    // By hand, for the order: the time first and the message last.
    let mut line = format!(
        "{{\"time\":\"{date}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z\",\"level\":\"{level}\",\"verb\":{},\"event\":{}",
        quoted(verb),
        quoted(event)
    );
    let mut rest = message.strip_prefix(&format!("{verb}: ")).unwrap_or(message);
    for (name, value) in fields {
        let value = value.to_string();
        let value = Language::of_process().resolve(&value);
        let shown = match value.parse::<u64>() {
            Ok(number) if NUMBERS.contains(name) => number.to_string(),
            _ => quoted(&without_secrets(&value)),
        };
        line += &format!(",{}:{shown}", quoted(name));
        // Text says the account at its beginning; here it has a place of its own.
        if *name == "account" {
            rest = rest.strip_prefix(&format!("{value}: ")).unwrap_or(rest);
        }
    }
    line + &format!(",\"message\":{}}}\n", quoted(rest))
}

/// Returns a text as JSON has it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_json_has_the_time_first_and_what_is_known_by_name() {
        let at = UtcDateTime::from_unix_timestamp_nanos(1_795_325_686_012_000_000).unwrap();
        let message = "serve: shop: \"refused\" 拒绝";
        let fields: &Fields<'_> =
            &[("account", &"shop"), ("token_sha256", &"12345678"), ("status", &200)];
        let line = json(at, Level::Error, "serve", "refresh_failed", fields, message);
        let expected = "{\"time\":\"2026-11-22T05:34:46.012Z\",\"level\":\"error\",\"verb\":\"serve\",\
                        \"event\":\"refresh_failed\",\"account\":\"shop\",\"token_sha256\":\"12345678\",\"status\":200,\
                        \"message\":\"\\\"refused\\\" 拒绝\"}\n";
        assert_eq!(line, expected);
        assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok());
    }

    #[test]
    fn no_field_holds_a_secret_and_a_line_is_one_line() {
        let secret = "5ec2e75ec2e75ec2e75ec2e75ec2e75e";
        let fields: &Fields<'_> = &[("file", &secret)];
        let line = json(UtcDateTime::UNIX_EPOCH, Level::Info, "get", "x", fields, "a\u{1}b");
        assert!(
            !line.contains(secret) && line.contains("[…]") && line.contains("\\u0001"),
            "{line}"
        );
        let text = super::line(Level::Info, "x", &[], format_args!("get: {secret}\nmore"));
        assert_eq!(text, "wxtoken: get: […] more\n");
    }

    #[test]
    fn an_event_without_a_name_has_that_of_its_module() {
        assert_eq!(kind("wxtoken::server::reload"), "server.reload");
        assert_eq!(kind("wxtoken"), "");
    }
}
