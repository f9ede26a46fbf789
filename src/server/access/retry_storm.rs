//! Detects that an SDK asks again and again because WeChat refused the token it was handed (errcode 40001).
//!
//! A single repeated request proves nothing: fifty workers of one host start together, and SDKs that do not cache a token
//! near its end ask for it with each of their calls. So a repeated request first makes the token be verified, which
//! costs the client nothing, and a client is refused only after very many.
//!
//! All that ask from one address with one key are one client here, and each may give the others away. A loop, however, is
//! one process that waits for each answer and asks on one connection: only that connection is refused. Reads no clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::peer::Peer;
use crate::model::status::LiveToken;

/// A client that asks again this soon for a token may have been refused with it: an SDK's cache keeps a token that has
/// much life left for longer. Some SDKs ask only once after each failed call, so that minutes may pass between two
/// requests.
const SUSPICIOUS_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// A client in a loop asks again after one call to WeChat, which takes a second or two at worst.
const LOOP_INTERVAL: Duration = Duration::from_secs(10);

/// How many times a client gets the same token at loop intervals before it is refused: more often than a host starts
/// workers at once. The recursion of wechatpy breaks its process at 489.
const LOOP_LIMIT: u32 = 100;

/// The same limit for a token near its end, which some SDKs no longer cache.
const LOOP_LIMIT_NEAR_THE_END: u32 = 400;

/// With no more life than this, some SDKs no longer cache a token. The widest margin is that of silenceper/wechat.
const WIDEST_SDK_MARGIN: Duration = Duration::from_secs(1500);

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

/// The handouts on one connection.
#[derive(Debug, Default)]
pub(crate) struct LoopCounter(Option<Box<RepeatedHandout>>);

/// The token that was handed out last on a connection, and how many times in a row at loop intervals.
#[derive(Debug)]
struct RepeatedHandout {
    client: ClientId,
    last: LastHandout,
    count: u32,
}

impl LoopCounter {
    /// Notes that this client is to be handed the token. Returns whether it is in a loop, and is to be refused in a way that
    /// no SDK retries after. One refusal ends a loop: a client that asks again after it was in none.
    pub(crate) fn note(&mut self, client: &ClientId, token: &LiveToken, now: Instant) -> bool {
        let new = LastHandout::new(token, now);
        let Some(repeated) = self.0.as_mut().filter(|repeated| {
            repeated.client == *client
                && repeated.last.generation == new.generation
                && now.duration_since(repeated.last.at) <= LOOP_INTERVAL
        }) else {
            let client = client.clone();
            self.0 = Some(Box::new(RepeatedHandout { client, last: new, count: 1 }));
            return false;
        };
        let limit = match token.life > WIDEST_SDK_MARGIN {
            true => LOOP_LIMIT,
            false => LOOP_LIMIT_NEAR_THE_END,
        };
        let is_loop = repeated.count >= limit;
        repeated.count = if is_loop { 0 } else { repeated.count + 1 };
        repeated.last = new;
        is_loop
    }
}

impl RetryStorms {
    /// Returns whether the client may have been refused with the current token, so that it is to be verified first.
    /// Records it as handed out.
    pub(crate) fn is_suspicious(
        &mut self,
        client: &ClientId,
        token: &LiveToken,
        now: Instant,
    ) -> bool {
        let Some(last) = self.last.get_mut(client) else {
            self.remember(client, token, now);
            return false;
        };
        let last = std::mem::replace(last, LastHandout::new(token, now));
        last.generation == token.generation && now.duration_since(last.at) <= SUSPICIOUS_INTERVAL
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
        assert!(!storms.is_suspicious(&one, &t1, at(0)));
        assert!(storms.is_suspicious(&one, &t1, at(300)));
        assert!(!storms.is_suspicious(&one, &t1, at(601)));
        assert!(!storms.is_suspicious(&client(2), &t1, at(601)), "another client");
        assert!(!storms.is_suspicious(&one, &t2, at(602)), "another token");
        assert!(storms.is_suspicious(&one, &t2, at(602)));
        let other_key = ClientId { key: Some("php".into()), ..one };
        assert!(!storms.is_suspicious(&other_key, &t2, at(602)), "another key");
    }

    #[test]
    fn a_loop_is_refused_once_and_later_for_a_token_near_its_end() {
        for (life, limit) in [(7200, LOOP_LIMIT), (1500, LOOP_LIMIT_NEAR_THE_END)] {
            let (mut loops, now) = (LoopCounter::default(), Instant::now());
            let (one, t1) = (client(1), token(1, life));
            for _ in 0..limit {
                assert!(!loops.note(&one, &t1, now));
            }
            assert!(loops.note(&one, &t1, now));
            assert!(!loops.note(&one, &t1, now), "it did not loop");
        }
    }

    #[test]
    fn another_token_or_another_client_on_the_connection_is_no_loop() {
        let (mut loops, now) = (LoopCounter::default(), Instant::now());
        for n in 0..1000 {
            assert!(!loops.note(&client(1), &token(n, 7200), now));
        }
        for _ in 0..1000 {
            assert!(!loops.note(&client(1), &token(1, 7200), now));
            assert!(!loops.note(&client(2), &token(1, 7200), now));
        }
    }

    #[test]
    fn at_most_16384_clients_are_remembered_and_outdated_ones_are_forgotten() {
        let (mut storms, start) = (RetryStorms::default(), Instant::now());
        let t1 = token(1, 7200);
        for n in 0..=MAX_CLIENTS {
            storms.is_suspicious(&ClientId { account: n.to_string(), ..client(1) }, &t1, start);
        }
        assert_eq!(storms.last.len(), MAX_CLIENTS);
        let later = start + SUSPICIOUS_INTERVAL + Duration::from_secs(1);
        assert!(!storms.is_suspicious(&client(2), &t1, later));
        assert_eq!(storms.last.len(), 1);
        assert!(storms.is_suspicious(&client(2), &t1, later));
    }

    #[test]
    fn a_client_that_asks_slowly_is_never_refused() {
        let (mut loops, start, t1) = (LoopCounter::default(), Instant::now(), token(1, 7200));
        for n in 0..1000 {
            let now = start + (LOOP_INTERVAL + Duration::from_secs(1)) * n;
            assert!(!loops.note(&client(1), &t1, now));
        }
    }

    #[test]
    fn a_replacement_that_is_asked_for_again_is_suspicious() {
        let (mut storms, now) = (RetryStorms::default(), Instant::now());
        let (one, t1, t2) = (client(1), token(1, 7200), token(2, 7200));
        storms.is_suspicious(&one, &t1, now);
        storms.record_replacement(&one, &t2, now);
        assert!(storms.is_suspicious(&one, &t2, now));
    }
}
