//! Counts answers, refusals and connections since the process began. The kinds are fixed words, never what a client sends,
//! so their number is bounded. Belongs to one thread.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use hyper::StatusCode;

/// The refusals that operators set alerts on. They are exported from the start as 0, so that the first one is a rise.
const WATCHED: [&str; 7] = [
    "certificate",
    "cross_site",
    "forbidden",
    "forwarded",
    "misdirected",
    "too_many_connections",
    "unauthorized",
];

/// How many outcomes of calls are told apart for an account. WeChat has hundreds of errcodes.
const MAX_OUTCOMES: usize = 64;

/// Counts by account, and by result and errcode of calls that the gateway passed on. The errcode of those beyond
/// [`MAX_OUTCOMES`] is `None`.
type CallCounts = BTreeMap<String, BTreeMap<(&'static str, Option<i64>), u64>>;

#[derive(Debug)]
pub(crate) struct Counters {
    calls: RefCell<CallCounts>,
    answers: Tally<(&'static str, u16)>,
    refusals: Tally<&'static str>,
    accepted: Cell<u64>,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            calls: RefCell::default(),
            answers: Tally::default(),
            refusals: Tally(RefCell::new(WATCHED.map(|reason| (reason, 0)).to_vec())),
            accepted: Cell::default(),
        }
    }
}

impl Counters {
    /// Counts an accepted connection.
    pub(crate) fn accepted(&self) {
        self.accepted.set(self.accepted.get() + 1);
    }

    /// Counts an answered request.
    pub(crate) fn answered(&self, route: &'static str, status: StatusCode) {
        self.answers.count((route, status.as_u16()));
    }

    /// Counts a refused request or connection.
    pub(crate) fn refused(&self, reason: &'static str) {
        self.refusals.count(reason);
    }

    /// Counts a call that the gateway passed on for this account, by a word for what came of it and the errcode, 0 for none.
    pub(crate) fn forwarded(&self, account: &str, result: &'static str, errcode: i64) {
        let mut calls = self.calls.borrow_mut();
        // Without a copy of the name where it is known.
        if !calls.contains_key(account) {
            calls.insert(account.to_owned(), BTreeMap::new());
        }
        let Some(outcomes) = calls.get_mut(account) else { return };
        let mut outcome = (result, Some(errcode));
        if outcomes.len() >= MAX_OUTCOMES && !outcomes.contains_key(&outcome) {
            outcome.1 = None;
        }
        *outcomes.entry(outcome).or_default() += 1;
    }

    /// Returns how many calls the gateway passed on for this account, by result and errcode; the errcode is `other` for rare
    /// ones.
    pub(crate) fn calls(&self, account: &str) -> Vec<(&'static str, String, u64)> {
        let calls = self.calls.borrow();
        let outcomes = calls.get(account).into_iter().flatten();
        let errcode =
            |it: &Option<i64>| it.map_or("other".to_owned(), |errcode| errcode.to_string());
        outcomes.map(|((result, errcode_), count)| (*result, errcode(errcode_), *count)).collect()
    }

    /// Returns how many connections were accepted.
    pub(crate) fn connections(&self) -> u64 {
        self.accepted.get()
    }

    /// Returns how many requests were answered, by route and status.
    pub(crate) fn answers(&self) -> Vec<((&'static str, u16), u64)> {
        self.answers.0.borrow().clone()
    }

    /// Returns how many refusals there were, by reason.
    pub(crate) fn refusals(&self) -> Vec<(&'static str, u64)> {
        self.refusals.0.borrow().clone()
    }
}

/// A count for each kind, sorted by kind. Allocates only when a kind occurs for the first time.
#[derive(Debug)]
struct Tally<K>(RefCell<Vec<(K, u64)>>);

impl<K> Default for Tally<K> {
    fn default() -> Tally<K> {
        Tally(RefCell::default())
    }
}

impl<K: Ord> Tally<K> {
    fn count(&self, kind: K) {
        let mut counts = self.0.borrow_mut();
        match counts.binary_search_by(|(known, _)| known.cmp(&kind)) {
            Ok(place) => counts[place].1 += 1,
            Err(place) => counts.insert(place, (kind, 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_route_and_status() {
        let counts = Counters::default();
        assert_eq!(counts.answers(), []);
        for (route, status) in [("/token", 200), ("/readyz", 503), ("/token", 503), ("/token", 200)]
        {
            counts.answered(route, StatusCode::from_u16(status).expect("a status"));
        }
        let expected = [(("/readyz", 503), 1), (("/token", 200), 2), (("/token", 503), 1)];
        assert_eq!(counts.answers(), expected);
    }

    #[test]
    fn an_accounts_calls_have_a_bounded_number_of_outcomes() {
        let counts = Counters::default();
        for errcode in 0..1000 {
            counts.forwarded("shop", "refused", errcode);
        }
        counts.forwarded("shop", "refused", 7);
        let calls = counts.calls("shop");
        assert_eq!(calls.len(), MAX_OUTCOMES + 1);
        assert_eq!(calls[0], ("refused", "other".to_owned(), 1000 - MAX_OUTCOMES as u64));
        assert!(calls.contains(&("refused", "7".to_owned(), 2)));
        assert!(counts.calls("crm").is_empty());
    }

    #[test]
    fn watched_refusals_are_exported_as_0_from_the_start() {
        let counts = Counters::default();
        assert!(WATCHED.is_sorted(), "or binary search fails");
        assert_eq!(counts.refusals(), WATCHED.map(|reason| (reason, 0)));
        for reason in ["misdirected", "not_found", "misdirected"] {
            counts.refused(reason);
        }
        let counted: Vec<_> =
            counts.refusals().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("misdirected", 2), ("not_found", 1)]);
    }
}
