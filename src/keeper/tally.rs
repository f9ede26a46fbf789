//! What WeChat was asked and what came of it, counted; and what is not to be asked of it. Decides nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::source::{Ask, AskError, Grant, Source};

/// The answers so far, by what they were. Shared by the threads that ask.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    by_result: BTreeMap<(&'static str, i64), u64>,
    forced: u64,
}

impl Tally {
    /// How often WeChat was asked, by a word for what came of it, and the errcode, 0 where there is none.
    pub(super) fn attempts(&self) -> Vec<(&'static str, i64, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts
            .by_result
            .iter()
            .map(|((result, errcode), times)| (*result, *errcode, *times))
            .collect()
    }

    /// How often another token than the current one was asked for.
    pub(super) fn forced(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).forced
    }

    fn note(&self, how: Ask, outcome: &Result<Grant, AskError>) {
        let what = match outcome {
            Ok(_) => ("ok", 0),
            Err(AskError::Refused(refusal)) => ("refused", refusal.code),
            Err(AskError::Status(_)) => ("http_status", 0),
            Err(AskError::Unreachable { .. }) => ("unreachable", 0),
            Err(AskError::Nonsense(_)) => ("nonsense", 0),
            Err(AskError::Spent | AskError::Withheld) => return,
        };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.by_result.entry(what).or_default() += 1;
        counts.forced += u64::from(how == Ask::Another);
    }
}

/// A source whose answers are counted, and of which another token is not asked where that is withheld.
pub(super) struct Counted<'a> {
    pub(super) source: &'a dyn Source,
    pub(super) tally: &'a Tally,
    /// Whether another token is not to be asked for.
    pub(super) is_withheld: bool,
}

impl Source for Counted<'_> {
    fn ask(&self, how: Ask, timeout: Duration) -> Result<Grant, AskError> {
        let outcome = match how {
            Ask::Another if self.is_withheld => Err(AskError::Withheld),
            _ => self.source.ask(how, timeout),
        };
        self.tally.note(how, &outcome);
        outcome
    }
}
