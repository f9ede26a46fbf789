//! Findings about an account, from the config to WeChat, each with a remedy. Judges what the caller has found out: makes
//! no call of its own but a ping.

use std::time::Duration;

use crate::error::Exit;
use crate::message::action_first;

pub(crate) mod local;
pub(crate) mod published;
pub(crate) mod remote;

/// A finding about one thing.
#[derive(Debug)]
pub(crate) struct Finding {
    /// A word for the thing, for scripts.
    pub(crate) about: &'static str,
    pub(crate) verdict: Verdict,
    /// What was found, in both languages; a name or a path is the same in each.
    pub(crate) what: String,
    /// What to do about it, in English and Chinese.
    pub(crate) remedy: Option<[String; 2]>,
}

/// The meaning of a finding, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Good,
    /// It works or is unknown; a person should know.
    Notice,
    /// It does not work. Other commands exit with this status for it.
    Problem(Exit),
}

impl Finding {
    /// Something that works.
    pub(crate) fn good(about: &'static str, what: impl Into<String>) -> Finding {
        Finding { about, verdict: Verdict::Good, what: what.into(), remedy: None }
    }

    /// Something that a person should know.
    pub(crate) fn notice(about: &'static str, what: impl Into<String>) -> Finding {
        Finding { about, verdict: Verdict::Notice, what: what.into(), remedy: None }
    }

    /// Something that does not work.
    pub(crate) fn problem(about: &'static str, exit: Exit, what: impl Into<String>) -> Finding {
        let what = action_first(&what.into());
        Finding { about, verdict: Verdict::Problem(exit), what, remedy: None }
    }

    /// A problem with the text and the exit status of an error.
    pub(crate) fn from_error(about: &'static str, err: &anyhow::Error) -> Finding {
        Finding::problem(about, Exit::from_error(err), format!("{err:#}"))
    }

    /// Adds what to do about it.
    pub(crate) fn remedy(self, english: impl Into<String>, chinese: impl Into<String>) -> Finding {
        Finding { remedy: Some([english.into(), chinese.into()]), ..self }
    }
}

/// A span of time in whole seconds, for people.
fn span(span: Duration) -> String {
    humantime::format_duration(Duration::from_secs(span.as_secs())).to_string()
}
