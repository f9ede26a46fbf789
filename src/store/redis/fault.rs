//! Why Redis did not do what it was asked, and what to do about it. Never in the server's own words, which may quote what
//! it was sent.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::time::Duration;

use super::connection::RedisError;
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

/// What is needed of a server that does not know a command.
const OF_SERVER: &str =
    "wxtoken needs a Redis of version 3 or newer, or what speaks like it, without rename-command";

/// What to do about a command in a script; the server does not say which one it is.
const IN_SCRIPT: &str = "allow +get +getrange +set +setrange +del +publish and the channel; wxtoken check names what is missing";

/// Why Redis did not do what it was asked.
#[derive(Clone, Debug)]
pub(super) struct RedisFault {
    /// Whether it could not be reached, or did not answer. Otherwise it answered with an error, or was not asked.
    pub(super) is_unreachable: bool,
    what: String,
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
            _ if err.is_timeout() => {
                format!("no answer within {}", humantime::format_duration(timeout))
            }
            RedisError::Io(io) if io.kind() == ErrorKind::UnexpectedEof => {
                "it closed the connection".to_owned()
            }
            RedisError::Io(io) => described_io(io),
            RedisError::Refused { code, detail } => described_refusal(code, detail),
            RedisError::Unexpected => "its answer is none to what was asked".to_owned(),
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
    shortage::explained(hidden.as_ref().unwrap_or(io))
}

/// Whether the same could succeed over another connection.
pub(super) fn may_be_cured_by_reconnecting(err: &RedisError) -> bool {
    matches!(err, RedisError::Io(_))
        || matches!(err.code(), Some("READONLY" | "LOADING" | "MASTERDOWN" | "NOAUTH"))
}

/// Describes what the server answered.
fn described_refusal(code: &str, detail: &str) -> String {
    let meaning = meaning(code, detail);
    let code: String = code.chars().filter(char::is_ascii_alphanumeric).take(24).collect();
    format!("it says {code}: {meaning}")
}

fn is_without_password(detail: &str) -> bool {
    detail.contains("without any password configured")
}

/// Returns what an answer with this error code means, and what to do.
fn meaning(code: &str, detail: &str) -> String {
    let detail = &*detail.to_ascii_lowercase();
    let has = |part: &str| detail.contains(part);
    let known = match code {
        "NOAUTH" => "it wants a password: give [redis] password_file",
        _ if code == "WRONGPASS" || has("invalid password") => {
            "it refuses user or password: see [redis] user and password_file"
        }
        "NOPERM" if has(" channels ") => {
            "its user may not use the channel of [redis] prefix: allow &wxtoken:*, or that prefix"
        }
        "NOPERM" if has(" command") && !has(" key") => {
            return match command_in(detail) {
                Some(it) => format!("its user may not run {}: allow +{it}", it.to_uppercase()),
                None => format!("its user may not run a command: {IN_SCRIPT}"),
            };
        }
        "NOPERM" => {
            "its user may not do this: see user in wxtoken.toml(5) for the ACL that is needed, and allow the keys of also"
        }
        "READONLY" => {
            "it is a replica, which cannot be written: name the primary, or its sentinels"
        }
        "OOM" => "it has no memory left for writing: see its maxmemory",
        "MISCONF" => "it refuses to write, as it cannot save: see its log",
        "NOREPLICAS" => "it refuses to write without enough replicas",
        "LOADING" => "it is still reading its data",
        "MASTERDOWN" => "it is a replica that has lost its primary",
        "CROSSSLOT" | "MOVED" | "ASK" | "CLUSTERDOWN" => {
            "it is a Redis Cluster, which is not supported: name one Redis, or sentinels"
        }
        "WRONGTYPE" => {
            "a key of ours holds something else: remove it, or give another [redis] prefix or also key"
        }
        "DENIED" => "it is in protected mode: give it a password, and [redis] password_file",
        "BUSY" => "a script of another program keeps it busy: see SCRIPT KILL",
        _ if has("unknown command") => {
            return match command_in(detail) {
                Some(it) => format!("it has no {}: {OF_SERVER}", it.to_uppercase()),
                None => format!("it does not know a command: {OF_SERVER}"),
            };
        }
        _ if has("command called from script") => {
            return format!("it lacks a command that scripts call: {OF_SERVER}; {IN_SCRIPT}");
        }
        _ if has("executing the script can't access") => return meaning("NOPERM", " key"),
        _ if has("executing the script can't") => {
            return format!("its user may not run a command that scripts call: {IN_SCRIPT}");
        }
        _ if is_without_password(detail) => "it has no password: leave out [redis] password_file",
        _ if has("number of arguments for 'auth'") => {
            "it is older than Redis 6 and has no users: leave out [redis] user"
        }
        _ if has("db index") => "it has no database of this number: see the end of store",
        _ if has("in cluster mode") => return meaning("MOVED", ""),
        _ if has("max number of clients") => "it takes no more connections: see its maxclients",
        _ => "see its log",
    };
    known.to_owned()
}

/// Returns the command of ours that an error message quotes.
fn command_in(detail: &str) -> Option<&'static str> {
    let quoted = |it: &&str| ['\'', '`'].iter().any(|q| detail.contains(&format!("{q}{it}{q}")));
    COMMANDS.into_iter().find(quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_to_do_and_names_the_command() {
        for (code, detail, expected) in [
            (
                "NOPERM",
                "this user has no permissions to run the 'eval' command",
                "EVAL: allow +eval",
            ),
            (
                "NOPERM",
                "User x has no permissions to run the 'SUBSCRIBE' command",
                "allow +subscribe",
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
                "allow +setrange",
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
                "the channel",
            ),
            (
                "ERR",
                "AUTH <password> called without any password configured for the default user",
                "leave out [redis] password_file",
            ),
            ("ERR", "wrong number of arguments for 'auth' command", "leave out [redis] user"),
            ("ERR", "DB index is out of range", "no database of this number"),
            ("ERR", "SELECT is not allowed in cluster mode", "Redis Cluster"),
            ("ERR", "max number of clients reached", "maxclients"),
            ("DENIED", "Redis is running in protected mode", "protected mode"),
            ("ERR", "S3CR3T", "see its log"),
        ] {
            let meaning = meaning(code, detail);
            assert!(meaning.contains(expected), "{detail}: {meaning}");
            assert!(!meaning.contains("S3CR3T"));
        }
    }
}
