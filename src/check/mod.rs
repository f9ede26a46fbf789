//! Findings about an account, from the config to WeChat, each with a remedy. Judges what the caller has found out: makes
//! no call of its own but a ping.

use std::fmt::Display;

use crate::error::Exit;
use crate::language::ACTION_MARKS;
use crate::message::{Message, Note, action_first};
use crate::model::kind::TicketType;
use crate::upstream::UpstreamError;

pub(crate) mod local;
pub(crate) mod messages;
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
    pub(crate) fn good<const N: usize>(
        about: &'static str,
        note: &Note<N>,
        values: [&dyn Display; N],
    ) -> Finding {
        Finding::named(about, note.with(values))
    }

    /// Something that works, and is no more than a name or a path.
    pub(crate) fn named(about: &'static str, name: String) -> Finding {
        Finding { about, verdict: Verdict::Good, what: name, remedy: None }
    }

    /// Something that a person should know.
    pub(crate) fn notice<const N: usize>(
        about: &'static str,
        message: &Message<N>,
        values: [&dyn Display; N],
    ) -> Finding {
        Finding::with_remedy(about, Verdict::Notice, message.divided(values))
    }

    /// Something that does not work.
    pub(crate) fn problem<const N: usize>(
        about: &'static str,
        exit: Exit,
        message: &Message<N>,
        values: [&dyn Display; N],
    ) -> Finding {
        Finding::with_remedy(about, Verdict::Problem(exit), message.divided(values))
    }

    /// What the cause itself asks for is enough, and the finding asks for nothing else then.
    fn with_remedy(
        about: &'static str,
        verdict: Verdict,
        (remedy, what): ([String; 2], String),
    ) -> Finding {
        let remedy = (!what.contains(ACTION_MARKS[0])).then_some(remedy);
        Finding { about, verdict, what: action_first(&what), remedy }
    }

    /// Returns a problem with the text and the exit status of an error of the upstream, which says itself what to do.
    pub(crate) fn from_upstream(about: &'static str, err: &UpstreamError) -> Finding {
        let verdict = Verdict::Problem(err.exit());
        Finding { about, verdict, what: err.to_string(), remedy: None }
    }

    /// Returns the finding as one about the ticket of this type, if a type is given.
    fn of_ticket(self, ticket: Option<&TicketType>) -> Finding {
        match ticket {
            Some(kind) => Finding { what: format!("{kind}: {}", self.what), ..self },
            None => self,
        }
    }
}
