//! Why Redis did not do what it was asked, and what to do about it. Never in the server's own words, which may quote what
//! it was sent.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::time::Duration;

use super::connection::{RedisError, WRONG_TYPE};
use super::messages;
use crate::language::in_both;
use crate::message::{Message, span};
use crate::os::descriptors::shortage;

/// The commands that are sent, by themselves or in scripts.
const COMMANDS: [&str; 13] = [
    "eval",
    "get",
    "getrange",
    "set",
    "setrange",
    "del",
    "publish",
    "subscribe",
    "ping",
    "role",
    "wait",
    "select",
    "sentinel",
];

/// Why Redis did not do what it was asked.
#[derive(Clone, Debug)]
pub(super) struct RedisFault {
    /// Whether it could not be reached, or did not answer. Otherwise it answered with an error, or was not asked.
    pub(super) is_unreachable: bool,
    pub(super) what: String,
}

impl fmt::Display for RedisFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for RedisFault {}

impl RedisFault {
    /// Returns a fault that is described by `what`.
    pub(super) fn described(is_unreachable: bool, what: String) -> RedisFault {
        RedisFault { is_unreachable, what }
    }

    /// Describes an error. The server had `timeout` to answer.
    pub(super) fn new(err: &RedisError, timeout: Duration) -> RedisFault {
        let what = match err {
            _ if err.is_timeout() => messages::NO_ANSWER.with([&span(timeout)]),
            RedisError::Io(io) if io.kind() == ErrorKind::UnexpectedEof => messages::CLOSED.text(),
            RedisError::Io(io) => described_io(io),
            RedisError::Refused { code, detail } => described_refusal(code, detail),
            RedisError::Unexpected => messages::UNEXPECTED.text(),
        };
        let is_unreachable = matches!(err, RedisError::Io(_))
            || matches!(err.code(), Some("LOADING" | "MASTERDOWN" | "CLUSTERDOWN"));
        RedisFault { is_unreachable, what }
    }
}

/// Describes an I/O error. Without a descriptor, the resolver of names says that there is no such name.
fn described_io(io: &io::Error) -> String {
    let text = io.to_string();
    let hidden = text.starts_with("failed to lookup").then(shortage::of_sockets).flatten();
    let io = hidden.as_ref().unwrap_or(io);
    match shortage::is_shortage(io) {
        true => shortage::explained(io),
        false => messages::NOT_REACHED.with([io]),
    }
}

/// Whether the same could succeed over another connection.
pub(super) fn may_be_cured_by_reconnecting(err: &RedisError) -> bool {
    matches!(err, RedisError::Io(_))
        || matches!(err.code(), Some("READONLY" | "LOADING" | "MASTERDOWN" | "NOAUTH"))
}

/// Describes what the server answered.
fn described_refusal(code: &str, detail: &str) -> String {
    let meaning = match code {
        WRONG_TYPE => messages::OTHER_TYPE.with([&detail]),
        _ => meaning(code, detail),
    };
    let code: String = code.chars().filter(char::is_ascii_alphanumeric).take(24).collect();
    let says = in_both(format!("it says {code}"), format!("应答为 {code}"));
    format!("{says}: {meaning}")
}

fn is_without_password(detail: &str) -> bool {
    detail.contains("without any password configured")
}

/// Returns what an answer with this error code means, and what to do.
fn meaning(code: &str, detail: &str) -> String {
    let detail = &*detail.to_ascii_lowercase();
    let has = |part: &str| detail.contains(part);
    let known: &Message<0> = match code {
        "NOAUTH" => &messages::WANTS_PASSWORD,
        _ if code == "WRONGPASS" || has("invalid password") => &messages::WRONG_PASSWORD,
        "NOPERM" if has(" channels ") => &messages::CHANNEL_FORBIDDEN,
        "NOPERM" if has(" command") && !has(" key") => {
            return match command_in(detail) {
                Some(it) => messages::COMMAND_FORBIDDEN.with([&it, &it.to_uppercase()]),
                None => messages::SOME_COMMAND_FORBIDDEN.text(),
            };
        }
        "NOPERM" => &messages::FORBIDDEN,
        "READONLY" => &messages::REPLICA,
        "OOM" => &messages::NO_MEMORY,
        "MISCONF" => &messages::CANNOT_SAVE,
        "NOREPLICAS" => &messages::FEW_REPLICAS,
        "LOADING" => &messages::LOADING,
        "MASTERDOWN" => &messages::LOST_PRIMARY,
        "CROSSSLOT" | "MOVED" | "ASK" | "CLUSTERDOWN" => &messages::CLUSTER,
        "DENIED" => &messages::PROTECTED,
        "BUSY" => &messages::BUSY,
        _ if has("unknown command") => {
            return match command_in(detail) {
                Some(it) => messages::UNKNOWN_COMMAND.with([&it.to_uppercase()]),
                None => messages::SOME_UNKNOWN_COMMAND.text(),
            };
        }
        _ if has("command called from script") => &messages::SOME_UNKNOWN_COMMAND,
        _ if has("executing the script can't access") => return meaning("NOPERM", " key"),
        _ if has("executing the script can't") => &messages::SOME_COMMAND_FORBIDDEN,
        _ if is_without_password(detail) => &messages::HAS_NO_PASSWORD,
        _ if has("number of arguments for 'auth'") => &messages::HAS_NO_USERS,
        _ if has("db index") => &messages::NO_DATABASE,
        _ if has("in cluster mode") => return meaning("MOVED", ""),
        _ if has("max number of clients") => &messages::FULL,
        _ => &messages::OTHER,
    };
    known.text()
}

/// Returns the command of ours that an error message quotes.
fn command_in(detail: &str) -> Option<&'static str> {
    let quoted = |it: &&str| ['\'', '`'].iter().any(|q| detail.contains(&format!("{q}{it}{q}")));
    COMMANDS.into_iter().find(quoted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Language;
    use crate::message::action_first;

    #[test]
    fn an_error_says_what_to_do_and_names_the_command() {
        for (code, detail, expected) in [
            (
                "NOPERM",
                "this user has no permissions to run the 'eval' command",
                "Allow +eval: its user may not run EVAL",
            ),
            (
                "NOPERM",
                "User x has no permissions to run the 'SUBSCRIBE' command",
                "Allow +subscribe",
            ),
            (
                "NOPERM",
                "this user has no permissions to access one of the keys used as arguments",
                "the keys of also",
            ),
            (
                "NOPERM",
                "this user has no permissions to access one of the channels used as arguments",
                "&wxtoken:*",
            ),
            (
                "NOPERM",
                "ACL failure in script: User x has no permissions to run the 'setrange' command",
                "Allow +setrange",
            ),
            ("ERR", "unknown command 'EVAL', with args beginning with: 'S3CR3T'", "it has no EVAL"),
            (
                "ERR",
                "unknown command `getrange`, with args beginning with: `x`",
                "it has no GETRANGE",
            ),
            ("ERR", "unknown command 'S3CR3T'", "it does not know a command"),
            (
                "ERR",
                "Unknown Redis command called from script script: 22, on @user_script:1.",
                "+setrange",
            ),
            (
                "ERR",
                "The user executing the script can't run this command or subcommand",
                "+setrange",
            ),
            (
                "ERR",
                "The user executing the script can't access at least one of the keys mentioned",
                "the keys of also",
            ),
            (
                "ERR",
                "The user executing the script can't publish to the channel mentioned",
                "and the channel",
            ),
            (
                "ERR",
                "AUTH <password> called without any password configured for the default user",
                "Leave out [redis] password_file",
            ),
            ("ERR", "wrong number of arguments for 'auth' command", "Leave out [redis] user"),
            ("ERR", "DB index is out of range", "no database of this number"),
            ("ERR", "SELECT is not allowed in cluster mode", "Redis Cluster"),
            ("ERR", "max number of clients reached", "maxclients"),
            ("DENIED", "Redis is running in protected mode", "protected mode"),
            ("ERR", "S3CR3T", "See the log of Redis"),
        ] {
            let meaning =
                Language::English.resolve(&action_first(&meaning(code, detail))).into_owned();
            assert!(meaning.contains(expected), "{detail}: {meaning}");
            assert!(!meaning.contains("S3CR3T"));
        }
    }
}
