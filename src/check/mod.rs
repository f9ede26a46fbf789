//! Looks at an account from the config to WeChat and back, and says what is well, what is not, and what to do about it.
//! Judges what others found out: publishes nothing, refreshes nothing, and has no token minted that kills another.

use crate::error::Exit;

pub(crate) mod local;
pub(crate) mod remote;
pub(crate) mod published;

/// One thing that was looked at.
#[derive(Debug)]
pub(crate) struct Finding {
    /// Which, in a word: scripts go by it.
    pub(crate) about: &'static str,
    pub(crate) verdict: Verdict,
    /// What was found.
    pub(crate) what: String,
    /// What to do about it, in English and in Chinese.
    pub(crate) remedy: Option<[String; 2]>,
}

/// What a finding means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Well,
    /// It works, or could not be told; a person should know.
    Notice,
    /// It does not work; with the status that another verb would leave with for it.
    Wrong(Exit),
}

impl Finding {
    pub(crate) fn well(about: &'static str, what: impl Into<String>) -> Finding {
        Finding { about, verdict: Verdict::Well, what: what.into(), remedy: None }
    }

    pub(crate) fn notice(about: &'static str, what: impl Into<String>) -> Finding {
        Finding { about, verdict: Verdict::Notice, what: what.into(), remedy: None }
    }

    pub(crate) fn wrong(about: &'static str, exit: Exit, what: impl Into<String>) -> Finding {
        Finding { about, verdict: Verdict::Wrong(exit), what: what.into(), remedy: None }
    }

    /// The finding of an error.
    pub(crate) fn of_error(about: &'static str, err: &anyhow::Error) -> Finding {
        Finding::wrong(about, Exit::from_error(err), format!("{err:#}"))
    }

    /// The same finding, with what to do about it.
    pub(crate) fn remedy(self, english: impl Into<String>, chinese: impl Into<String>) -> Finding {
        Finding { remedy: Some([english.into(), chinese.into()]), ..self }
    }
}

/// A span of time in whole seconds, as people read it.
fn span(span: std::time::Duration) -> String {
    humantime::format_duration(std::time::Duration::from_secs(span.as_secs())).to_string()
}
