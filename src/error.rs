//! Exit statuses, and errors that carry one. The manual lists them under EXIT STATUS; scripts depend on them.

use std::fmt;
use std::process::ExitCode;

use crate::log;
use crate::message::action_first;

/// Exit statuses, from best to worst: with several accounts the status of the run is the highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    /// Done; for `fetch`: a live token is published, new or already there.
    Done = 0,
    /// Anything else: cannot read, cannot write, internal.
    Failure = 1,
    /// Usage or configuration; clap's own status for a wrong command line.
    Usage = 2,
    /// No usable token: missing, unreadable, expired, or less than `--min-life` left.
    NoToken = 3,
    /// WeChat refused: a person must act or a quota must pass; retrying soon is pointless.
    Refused = 4,
    /// WeChat was not reached, is busy, or answered nonsense; the next run may succeed.
    Unreachable = 5,
    /// Another `fetch` held the lock until the deadline.
    Locked = 6,
    /// The token is published, and its `on_change` command failed.
    Hook = 7,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// An error that carries an exit status. [`Exit::from_error`] finds it under any context.
#[derive(Debug)]
struct ExitError {
    exit: Exit,
    messages: Vec<String>,
    /// The account of each message; empty if the messages are about no account.
    accounts: Vec<String>,
}

impl fmt::Display for ExitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.messages.join("; "))
    }
}

impl std::error::Error for ExitError {}

impl Exit {
    /// Returns an error with this status.
    pub(crate) fn error(self, message: impl Into<String>) -> anyhow::Error {
        self.errors(vec![message.into()])
    }

    /// Returns an error of several failures, each reported on a line of its own.
    pub(crate) fn errors(self, messages: Vec<String>) -> anyhow::Error {
        let messages = messages.iter().map(|message| action_first(message)).collect();
        ExitError { exit: self, messages, accounts: Vec::new() }.into()
    }

    /// Returns an error of several failures, each the name of an account and a message about it, reported on a line of its own.
    pub(crate) fn errors_of(self, failures: Vec<(String, String)>) -> anyhow::Error {
        let (accounts, messages): (_, Vec<_>) = failures.into_iter().unzip();
        let messages = messages.iter().map(|message| action_first(message)).collect();
        ExitError { exit: self, messages, accounts }.into()
    }

    /// Returns the status with this number, with which another run of this program ended; [`Exit::Failure`] for any other number.
    pub(crate) fn of_status(code: Option<i32>) -> Exit {
        let known = [
            Exit::Done,
            Exit::Usage,
            Exit::NoToken,
            Exit::Refused,
            Exit::Unreachable,
            Exit::Locked,
            Exit::Hook,
        ];
        known.into_iter().find(|exit| code == Some(*exit as i32)).unwrap_or(Exit::Failure)
    }

    /// Combines all failures into one error with the worst status, each reported on a line of its own. Succeeds if there
    /// are none.
    pub(crate) fn combine(failures: impl IntoIterator<Item = anyhow::Error>) -> anyhow::Result<()> {
        let (mut worst, mut lines) = (Exit::Done, Vec::new());
        for failure in failures {
            worst = worst.max(Exit::from_error(&failure));
            lines.extend(Exit::lines(&failure));
        }
        if lines.is_empty() { Ok(()) } else { Err(worst.errors(lines)) }
    }

    /// Returns the lines that report an error. Several failures under a context share one line.
    pub(crate) fn lines(err: &anyhow::Error) -> Vec<String> {
        match outermost(err) {
            Some(error) => error.messages.clone(),
            None => vec![in_order(err)],
        }
    }

    /// Returns the status that an error carries; [`Exit::Failure`] if it carries none.
    pub(crate) fn from_error(err: &anyhow::Error) -> Exit {
        err.chain()
            .find_map(|cause| cause.downcast_ref::<ExitError>())
            .map_or(Exit::Failure, |error| error.exit)
    }

    /// Logs an error of `command`, and returns the status that it carries. With `account`, all of the error is about the account with this
    /// name.
    pub(crate) fn report(command: &str, account: Option<&str>, err: &anyhow::Error) -> Exit {
        let exit = Exit::from_error(err);
        let status = exit as u8;
        let accounts = outermost(err).map(|error| error.accounts.as_slice()).unwrap_or_default();
        for (at, line) in Exit::lines(err).iter().enumerate() {
            match account.or(accounts.get(at).map(String::as_str)) {
                Some(name) => log::error!(
                    event = "failed", account = name, exit_status = status; "{command}: {line}"
                ),
                None => {
                    log::error!(event = "failed", exit_status = status; "{command}: {line}");
                }
            }
        }
        exit
    }
}

/// Returns the error that carries a status, if it has no context around it.
fn outermost(err: &anyhow::Error) -> Option<&ExitError> {
    err.chain().next()?.downcast_ref()
}

/// Returns the text of an error and its causes, with what to do first.
pub(crate) fn in_order(err: &anyhow::Error) -> String {
    action_first(&format!("{err:#}"))
}

/// Returns both values, or one error with the problems of both and the worse status.
pub(crate) fn both<A, B>(a: anyhow::Result<A>, b: anyhow::Result<B>) -> anyhow::Result<(A, B)> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (Err(a), Err(b)) => {
            let messages = [&a, &b].map(Exit::lines).concat();
            Err(Exit::from_error(&a).max(Exit::from_error(&b)).error(messages.join("; ")))
        }
        (Err(problem), Ok(_)) | (Ok(_), Err(problem)) => Err(problem),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn an_error_keeps_its_status_under_any_context() {
        let err = Err::<(), _>(Exit::NoToken.error("no token")).context("default").unwrap_err();
        assert_eq!(Exit::from_error(&err), Exit::NoToken);
        assert_eq!(format!("{err:#}"), "default: no token");
        assert_eq!(Exit::from_error(&anyhow::anyhow!("anything else")), Exit::Failure);
    }

    #[test]
    fn several_failures_are_several_lines_and_one_line_under_a_context() {
        let failures = || Exit::Usage.errors(vec!["one".to_owned(), "two".to_owned()]);
        assert_eq!(Exit::lines(&failures()), ["one", "two"]);
        assert_eq!(Exit::lines(&failures().context("all")), ["all: one; two"]);
        assert_eq!(Exit::lines(&failures().context("one; two")), ["one; two: one; two"]);
        assert_eq!(Exit::lines(&anyhow::anyhow!("one").context("all")), ["all: one"]);
    }
}
