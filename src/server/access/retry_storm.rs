//! Detects that an SDK asks again and again: because WeChat refused the token that it was handed (errcode 40001), or because
//! it takes the answer that there is no token for one.
//!
//! A single repeated request proves nothing: fifty workers of one host start together, and SDKs that do not cache a token
//! near its end ask for it with each of their calls. So a repeated request only makes the token be verified, which costs the
//! client nothing. All that ask from one address with one key are one client here. Reads no clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::peer::Peer;
use crate::model::status::LiveToken;

/// A client that asks again this soon for a token may have been refused with it: an SDK's cache keeps a token that has
/// much life left for longer. Some SDKs ask only once after each failed call, so that minutes may pass between two
/// requests.
pub(crate) const SUSPICIOUS_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// How many answers without a token, each to a request that came after the one before, are a loop within this time.
const FAILURE_LIMIT: u32 = 10;
const FAILURE_INTERVAL: Duration = Duration::from_secs(1);

/// How many clients without a token are remembered. Loops of further ones are not found.
const MAX_FAILING: usize = 1024;

/// How many clients are remembered, in one or two megabytes. Tokens are not verified for clients beyond that number.
const MAX_CLIENTS: usize = 16_384;

/// How often, at most, the clients that can be forgotten are searched for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// What distinguishes one client from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientId {
    pub(crate) account: String,
    pub(crate) peer: Peer,
    /// The name of the client's key.
    pub(crate) key: Option<Arc<str>>,
}

/// The tokens that were handed out recently, by client.
#[derive(Debug, Default)]
pub(crate) struct RetryStorms {
    last: HashMap<ClientId, LastHandout>,
    /// When outdated entries were last removed from `last`.
    swept_at: Option<Instant>,
    /// The answers without a token, by a client's address and key.
    failures: HashMap<(Peer, Option<Arc<str>>), FailedRequests>,
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
            self.remember(client, token, now);
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
        client: (Peer, Option<Arc<str>>),
        asked_at: Instant,
        now: Instant,
    ) -> bool {
        let is_over =
            |failed: &FailedRequests| now.duration_since(failed.first_at) > FAILURE_INTERVAL;
        if self.failures.len() >= MAX_FAILING && !self.failures.contains_key(&client) {
            self.failures.retain(|_, failed| !is_over(failed));
            if self.failures.len() >= MAX_FAILING {
                return false;
            }
        }
        let new = FailedRequests { first_at: now, last_at: now, count: 0 };
        let failed = self.failures.entry(client).or_insert_with(|| new);
        if is_over(failed) {
            *failed = FailedRequests { first_at: now, last_at: now, count: 0 };
        }
        if failed.count == 0 || asked_at >= failed.last_at {
            failed.count += 1;
        }
        failed.last_at = now;
        failed.count > FAILURE_LIMIT
    }

    fn remember(&mut self, client: &ClientId, token: &LiveToken, now: Instant) {
        if self.last.len() >= MAX_CLIENTS {
            // A sweep for each new client would take too long where there are many.
            if self.swept_at.is_some_and(|at| now.duration_since(at) < SWEEP_INTERVAL) {
                return;
            }
            self.swept_at = Some(now);
            self.last.retain(|_, last| now.duration_since(last.at) <= SUSPICIOUS_INTERVAL);
            if self.last.len() >= MAX_CLIENTS {
                return;
            }
        }
        self.last.insert(client.clone(), LastHandout::new(token, now));
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use hyper::body::Bytes;

    use super::*;

    const SOON: Duration = SUSPICIOUS_INTERVAL;

    fn token(generation: u64, life: u64) -> LiveToken {
        LiveToken { json: Bytes::new(), life: Duration::from_secs(life), generation }
    }

    fn client(last: u8) -> ClientId {
        let peer = Peer::Ip(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)));
        ClientId { account: "shop".to_owned(), peer, key: None }
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
    fn at_most_16384_clients_are_remembered_and_outdated_ones_are_forgotten() {
        let (mut storms, start) = (RetryStorms::default(), Instant::now());
        let t1 = token(1, 7200);
        for n in 0..=MAX_CLIENTS {
            storms.note_handout(
                &ClientId { account: n.to_string(), ..client(1) },
                &t1,
                SOON,
                start,
            );
        }
        assert_eq!(storms.last.len(), MAX_CLIENTS);
        let later = start + SUSPICIOUS_INTERVAL + Duration::from_secs(1);
        assert!(!storms.note_handout(&client(2), &t1, SOON, later));
        assert_eq!(storms.last.len(), 1);
        assert!(storms.note_handout(&client(2), &t1, SOON, later));
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
        let one = || (client(1).peer, None);
        let looped =
            (0..100).filter(|nth| storms.note_failure(one(), at(nth * 2), at(nth * 2 + 1)));
        assert_eq!(looped.count(), 90);
        assert!(!storms.note_failure((client(2).peer, None), at(200), at(200)), "another client");
        assert!(!storms.note_failure(one(), at(1100), at(1100)), "a second later");
        let another = || (client(1).peer, Some(Arc::from("php")));
        assert!((0..100).all(|nth| !storms.note_failure(another(), at(0), at(2500 + nth))));
        assert!((0..100).all(|nth| !storms.note_failure(
            another(),
            at(5000 + nth * 200),
            at(5000 + nth * 200)
        )));
    }
}
