//! Detects that an SDK asks again and again: because WeChat refused the token that it was handed (errcode 40001), or because it takes the
//! answer "there is no token" for a token.
//!
//! A single repeated request proves nothing: fifty workers of one host start together, and SDKs that do not cache a token
//! near its end ask for it with each of their calls. So a repeated request only has the token verified, which costs the client nothing. All
//! requests from one network ([`NetworkId`]) with one key count as one client here. Reads no clock.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::peer::NetworkId;
use crate::model::status::LiveToken;

/// A client that asks again this soon for a token may have been refused with it: an SDK's cache keeps a token that has
/// much life left for longer. Some SDKs ask only once after each failed call, so that minutes may pass between two
/// requests.
pub(crate) const SUSPICIOUS_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// How many answers without a token, each to a request that came after the one before, are a loop within this time.
const FAILURE_LIMIT: u32 = 10;
const FAILURE_INTERVAL: Duration = Duration::from_secs(1);

/// How many clients without a token are remembered.
const MAX_FAILING: usize = 1024;

/// How many clients are remembered, in one or two megabytes.
const MAX_CLIENTS: usize = 16_384;

/// What distinguishes one client from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientId {
    pub(crate) account: String,
    pub(crate) network: NetworkId,
    /// The name of the client's key.
    pub(crate) key: Option<Arc<str>>,
}

/// The tokens that were handed out recently, by client.
#[derive(Debug, Default)]
pub(crate) struct RetryStorms {
    last: Latest<ClientId, LastHandout, MAX_CLIENTS>,
    /// The answers without a token, by a client's network and key.
    failures: Latest<(NetworkId, Option<Arc<str>>), FailedRequests, MAX_FAILING>,
}

/// A map of at most `MAX` entries. Newcomers push out those that were looked for longest ago, so that no number of clients
/// keeps another from being remembered.
#[derive(Debug)]
struct Latest<K, V, const MAX: usize> {
    /// What was looked for since the last exchange of the halves, up to half of the entries.
    newer: HashMap<K, V>,
    older: HashMap<K, V>,
}

impl<K, V, const MAX: usize> Default for Latest<K, V, MAX> {
    fn default() -> Self {
        Latest { newer: HashMap::new(), older: HashMap::new() }
    }
}

impl<K: Eq + Hash, V, const MAX: usize> Latest<K, V, MAX> {
    fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        if let Some((key, value)) = self.older.remove_entry(key) {
            self.insert(key, value);
        }
        self.newer.get_mut(key)
    }

    /// Adds an entry that is not there.
    fn insert(&mut self, key: K, value: V) {
        if self.newer.len() >= MAX / 2 {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(key, value);
    }
}

/// The answers without a token that a client got in a row.
#[derive(Debug)]
struct FailedRequests {
    first_at: Instant,
    last_at: Instant,
    count: u32,
}

/// The token that a client got last.
#[derive(Debug)]
struct LastHandout {
    generation: u64,
    at: Instant,
}

impl LastHandout {
    fn new(token: &LiveToken, now: Instant) -> LastHandout {
        LastHandout { generation: token.generation, at: now }
    }
}

impl RetryStorms {
    /// Notes that the client is handed this token. Returns whether it may have been refused with it, so that it is to be
    /// verified first: it was handed the token within this time.
    pub(crate) fn note_handout(
        &mut self,
        client: &ClientId,
        token: &LiveToken,
        within: Duration,
        now: Instant,
    ) -> bool {
        let Some(last) = self.last.get_mut(client) else {
            self.last.insert(client.clone(), LastHandout::new(token, now));
            return false;
        };
        let last = std::mem::replace(last, LastHandout::new(token, now));
        last.generation == token.generation && now.duration_since(last.at) <= within
    }

    /// Records that a client got another token than the one that was current when it asked.
    pub(crate) fn record_replacement(
        &mut self,
        client: &ClientId,
        token: &LiveToken,
        now: Instant,
    ) {
        if let Some(last) = self.last.get_mut(client) {
            *last = LastHandout::new(token, now);
        }
    }

    /// Notes that a client gets no token on a route of WeChat's, for what it asked at `asked_at`. Returns whether it asks in a
    /// loop. Requests that waited together count as one.
    pub(crate) fn note_failure(
        &mut self,
        client: (NetworkId, Option<Arc<str>>),
        asked_at: Instant,
        now: Instant,
    ) -> bool {
        let Some(failed) = self.failures.get_mut(&client) else {
            let first = FailedRequests { first_at: now, last_at: now, count: 1 };
            self.failures.insert(client, first);
            return false;
        };
        if now.duration_since(failed.first_at) > FAILURE_INTERVAL {
            *failed = FailedRequests { first_at: now, last_at: now, count: 0 };
        }
        if failed.count == 0 || asked_at >= failed.last_at {
            failed.count += 1;
        }
        failed.last_at = now;
        failed.count > FAILURE_LIMIT
    }
}

#[cfg(test)]
mod tests {
    use hyper::body::Bytes;

    use super::*;

    const SOON: Duration = SUSPICIOUS_INTERVAL;

    fn token(generation: u64, life: u64) -> LiveToken {
        LiveToken { json: Bytes::new(), life: Duration::from_secs(life), generation }
    }

    fn client(last: u8) -> ClientId {
        let network = NetworkId::V4(u32::from_be_bytes([10, 0, 0, last]));
        ClientId { account: "shop".to_owned(), network, key: None }
    }

    #[test]
    fn a_token_asked_for_again_within_minutes_is_suspicious_and_later_is_not() {
        let (mut storms, start) = (RetryStorms::default(), Instant::now());
        let at = |secs: u64| start + Duration::from_secs(secs);
        let (one, t1, t2) = (client(1), token(1, 7200), token(2, 7200));
        assert!(!storms.note_handout(&one, &t1, SOON, at(0)));
        assert!(storms.note_handout(&one, &t1, SOON, at(300)));
        assert!(!storms.note_handout(&one, &t1, SOON, at(601)));
        assert!(!storms.note_handout(&client(2), &t1, SOON, at(601)), "another client");
        assert!(!storms.note_handout(&one, &t2, SOON, at(602)), "another token");
        assert!(storms.note_handout(&one, &t2, SOON, at(602)));
        let other_key = ClientId { key: Some("php".into()), ..one };
        assert!(!storms.note_handout(&other_key, &t2, SOON, at(602)), "another key");
    }

    #[test]
    fn any_number_of_other_clients_keeps_no_new_one_from_being_remembered() {
        let (mut storms, now) = (RetryStorms::default(), Instant::now());
        let t1 = token(1, 7200);
        let other = |n: usize| ClientId { network: NetworkId::V6(n as u64), ..client(1) };
        let mut note = |client: &ClientId| storms.note_handout(client, &t1, SOON, now);
        assert!((0..2 * MAX_CLIENTS).all(|n| !note(&other(n))));
        assert!(!note(&client(2)));
        assert!((0..MAX_CLIENTS / 2 - 1).all(|n| !note(&other(n))), "forgotten");
        assert!(note(&client(2)), "one that was seen lately is remembered");
        assert!((0..MAX_CLIENTS / 2 - 1).all(|n| !note(&other(1_000_000 + n))));
        assert!(note(&client(2)), "and stays so while it is seen");
        assert!(storms.last.newer.len() + storms.last.older.len() <= MAX_CLIENTS);

        let mut fails = |network| storms.note_failure((network, None), now, now);
        assert!((0..2 * MAX_FAILING).all(|n| !fails(NetworkId::V6(n as u64))));
        let looped = (0..=FAILURE_LIMIT).filter(|_| fails(NetworkId::Unix)).count();
        assert_eq!(looped, 1);
        assert!(storms.failures.newer.len() + storms.failures.older.len() <= MAX_FAILING);
    }

    #[test]
    fn a_replacement_that_is_asked_for_again_is_suspicious() {
        let (mut storms, now) = (RetryStorms::default(), Instant::now());
        let (one, t1, t2) = (client(1), token(1, 7200), token(2, 7200));
        storms.note_handout(&one, &t1, SOON, now);
        storms.record_replacement(&one, &t2, now);
        assert!(storms.note_handout(&one, &t2, SOON, now));
    }

    #[test]
    fn more_than_ten_failures_within_a_second_are_a_loop_and_those_of_requests_that_waited_together_are_one()
     {
        let (mut storms, start) = (RetryStorms::default(), Instant::now());
        let at = |millis: u64| start + Duration::from_millis(millis);
        let one = || (client(1).network, None);
        let looped =
            (0..100).filter(|nth| storms.note_failure(one(), at(nth * 2), at(nth * 2 + 1)));
        assert_eq!(looped.count(), 90);
        assert!(
            !storms.note_failure((client(2).network, None), at(200), at(200)),
            "another client"
        );
        assert!(!storms.note_failure(one(), at(1100), at(1100)), "a second later");
        let php = || (client(3).network, None);
        let looped =
            (0..=10).filter(|nth| storms.note_failure(php(), at(nth * 100), at(nth * 100)));
        assert_eq!(looped.count(), 1, "the last second counts to its end");
        let another = || (client(1).network, Some(Arc::from("php")));
        assert!((0..100).all(|nth| !storms.note_failure(another(), at(0), at(2500 + nth))));
        assert!((0..100).all(|nth| !storms.note_failure(
            another(),
            at(5000 + nth * 200),
            at(5000 + nth * 200)
        )));
    }
}
