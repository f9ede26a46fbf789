//! What the process's exit status says. The table is in the manual, under EXIT STATUS; scripts depend on it.

use std::fmt;
use std::process::ExitCode;

/// Exit statuses, least to worst: with several accounts the run's status is the highest.
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
    /// WeChat refused: a person must act or a quota must pass, retrying soon is pointless.
    Refused = 4,
    /// WeChat was not reached, is busy, or answered nonsense; the next run may succeed.
    Unreachable = 5,
    /// Another `fetch` held the lock until the deadline.
    Locked = 6,
    /// The token is published, and the command that should have run then failed.
    Hook = 7,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// An error that knows the status which the process leaves with. Any context may be put over it.
#[derive(Debug)]
struct Because {
    exit: Exit,
    messages: Vec<String>,
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.messages.join("; "))
    }
}

impl std::error::Error for Because {}

impl Exit {
    /// An error that says `message` and leaves with this status.
    pub(crate) fn error(self, message: impl Into<String>) -> anyhow::Error {
        self.errors(vec![message.into()])
    }

    /// An error of several failures, each of which is told on a line of its own.
    pub(crate) fn errors(self, messages: Vec<String>) -> anyhow::Error {
        Because { exit: self, messages }.into()
    }

    /// All failures as one, each on a line of its own, with the worst status; `Ok` where there are none.
    pub(crate) fn of_all(failures: impl IntoIterator<Item = anyhow::Error>) -> anyhow::Result<()> {
        let (mut worst, mut lines) = (Exit::Done, Vec::new());
        for failure in failures {
            worst = worst.max(Exit::from_error(&failure));
            lines.extend(Exit::lines(&failure));
        }
        if lines.is_empty() { Ok(()) } else { Err(worst.errors(lines)) }
    }

    /// What to tell of an error, line by line.
    pub(crate) fn lines(err: &anyhow::Error) -> Vec<String> {
        match err.downcast_ref::<Because>() {
            // With nothing put over it.
            Some(because) if because.to_string() == err.to_string() => because.messages.clone(),
            _ => vec![format!("{err:#}")],
        }
    }

    /// The status that an error asks for; [`Exit::Failure`] if it asks for none.
    pub(crate) fn from_error(err: &anyhow::Error) -> Exit {
        err.chain()
            .find_map(|cause| cause.downcast_ref::<Because>())
            .map_or(Exit::Failure, |because| because.exit)
    }
}

/// Both results, or one error that tells the problems of both, under the worse status.
pub(crate) fn both<A, B>(a: anyhow::Result<A>, b: anyhow::Result<B>) -> anyhow::Result<(A, B)> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (Err(a), Err(b)) => {
            Err(Exit::from_error(&a).max(Exit::from_error(&b)).error(format!("{a:#}; {b:#}")))
        }
        (Err(problem), Ok(_)) | (Ok(_), Err(problem)) => Err(problem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn an_error_keeps_its_status_under_any_context() {
        let err = Err::<(), _>(Exit::NoToken.error("no token")).context("default").unwrap_err();
        assert_eq!(Exit::from_error(&err), Exit::NoToken);
        assert_eq!(format!("{err:#}"), "default: no token");
        assert_eq!(Exit::from_error(&anyhow::anyhow!("anything else")), Exit::Failure);
    }

    #[test]
    fn several_failures_are_several_lines_until_something_is_put_over_them() {
        let failures = || Exit::Usage.errors(vec!["one".to_owned(), "two".to_owned()]);
        assert_eq!(Exit::lines(&failures()), ["one", "two"]);
        assert_eq!(Exit::lines(&failures().context("all")), ["all: one; two"]);
        assert_eq!(Exit::lines(&anyhow::anyhow!("one").context("all")), ["all: one"]);
    }
}
