//! Counts answers, refusals and connections since the process began. The kinds are fixed words, never what a client sends,
//! so their number is bounded. Belongs to one thread.

use std::cell::{Cell, RefCell};

use hyper::StatusCode;

/// The refusals that operators set alerts on. They are exported from the start as 0, so that the first one is a rise.
const WATCHED: [&str; 6] =
    ["certificate", "cross_site", "forbidden", "forwarded", "misdirected", "unauthorized"];

#[derive(Debug)]
pub(crate) struct Counters {
    answers: Tally<(&'static str, u16)>,
    refusals: Tally<&'static str>,
    accepted: Cell<u64>,
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
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
