//! Detects that an SDK asks again and again because WeChat refused the token it was handed (errcode 40001).
//!
//! A single repeated request proves nothing: fifty workers of one host start together, and SDKs that do not cache a token
//! near its end ask for it with each of their calls. So a repeated request first makes the token be verified, which
//! costs the client nothing, and a client is refused only after very many. Reads no clock.

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

/// How many clients are remembered, in one or two megabytes. Clients beyond that number are never refused.
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

/// How to answer a request for the current token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RetryDecision {
    /// Hand out the current token.
    HandOut,
    /// Make sure first that WeChat accepts the token.
    Verify,
    /// Refuse the client in a way that no SDK retries after: WeChat accepts the token, and the client still asks.
    Refuse,
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
    /// How many times in a row the client has got this token at loop intervals.
    count: u32,
}

impl LastHandout {
    fn first(token: &LiveToken, now: Instant) -> LastHandout {
        LastHandout { generation: token.generation, at: now, count: 1 }
    }
}

impl RetryStorms {
    /// Decides about a client's request for the current token, and records it as handed out unless it is refused.
    pub(crate) fn decide(
        &mut self,
        client: &ClientId,
        token: &LiveToken,
        now: Instant,
    ) -> RetryDecision {
        let Some(last) = self.last.get_mut(client) else {
            self.remember(client, token, now);
            return RetryDecision::HandOut;
        };
        if last.generation != token.generation {
            *last = LastHandout::first(token, now);
            return RetryDecision::HandOut;
        }
        let age = now.duration_since(last.at);
        let is_loop = age <= LOOP_INTERVAL;
        let limit = match token.life > WIDEST_SDK_MARGIN {
            true => LOOP_LIMIT,
            false => LOOP_LIMIT_NEAR_THE_END,
        };
        if is_loop && last.count >= limit {
            // One refusal ends a loop. A client that asks again after it was in none.
            last.count = 0;
            return RetryDecision::Refuse;
        }
        last.count = if is_loop { last.count + 1 } else { 1 };
        last.at = now;
        if age <= SUSPICIOUS_INTERVAL { RetryDecision::Verify } else { RetryDecision::HandOut }
    }

    /// Records that a client got another token than the one that was current when it asked.
    pub(crate) fn record_replacement(
        &mut self,
        client: &ClientId,
        token: &LiveToken,
        now: Instant,
    ) {
        if let Some(last) = self.last.get_mut(client) {
            *last = LastHandout::first(token, now);
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
        self.last.insert(client.clone(), LastHandout::first(token, now));
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
    fn a_token_asked_for_again_within_minutes_is_verified_and_later_is_not() {
        let (mut storms, start) = (RetryStorms::default(), Instant::now());
        let at = |secs: u64| start + Duration::from_secs(secs);
        let (one, t1, t2) = (client(1), token(1, 7200), token(2, 7200));
        assert_eq!(storms.decide(&one, &t1, at(0)), RetryDecision::HandOut);
        assert_eq!(storms.decide(&one, &t1, at(300)), RetryDecision::Verify);
        assert_eq!(storms.decide(&one, &t1, at(601)), RetryDecision::HandOut);
        assert_eq!(
            storms.decide(&client(2), &t1, at(601)),
            RetryDecision::HandOut,
            "another client"
        );
        assert_eq!(storms.decide(&one, &t2, at(602)), RetryDecision::HandOut, "another token");
        assert_eq!(storms.decide(&one, &t2, at(602)), RetryDecision::Verify);
        let other_key = ClientId { key: Some("php".into()), ..one };
        assert_eq!(storms.decide(&other_key, &t2, at(602)), RetryDecision::HandOut, "another key");
    }

    #[test]
    fn a_loop_is_refused_once_and_later_for_a_token_near_its_end() {
        for (life, limit) in [(7200, LOOP_LIMIT), (1500, LOOP_LIMIT_NEAR_THE_END)] {
            let (mut storms, now) = (RetryStorms::default(), Instant::now());
            let (one, t1) = (client(1), token(1, life));
            for _ in 0..limit {
                assert_ne!(storms.decide(&one, &t1, now), RetryDecision::Refuse);
            }
            assert_eq!(storms.decide(&one, &t1, now), RetryDecision::Refuse);
            assert_eq!(storms.decide(&one, &t1, now), RetryDecision::Verify, "it did not loop");
        }
    }

    #[test]
    fn at_most_16384_clients_are_remembered_and_outdated_ones_are_forgotten() {
        let (mut storms, start) = (RetryStorms::default(), Instant::now());
        let t1 = token(1, 7200);
        for n in 0..=MAX_CLIENTS {
            storms.decide(&ClientId { account: n.to_string(), ..client(1) }, &t1, start);
        }
        assert_eq!(storms.last.len(), MAX_CLIENTS);
        let later = start + SUSPICIOUS_INTERVAL + Duration::from_secs(1);
        assert_eq!(storms.decide(&client(2), &t1, later), RetryDecision::HandOut);
        assert_eq!(storms.last.len(), 1);
        assert_eq!(storms.decide(&client(2), &t1, later), RetryDecision::Verify);
    }

    #[test]
    fn a_client_that_asks_slowly_is_never_refused() {
        let (mut storms, start, t1) = (RetryStorms::default(), Instant::now(), token(1, 7200));
        for n in 0..1000 {
            let now = start + (LOOP_INTERVAL + Duration::from_secs(1)) * n;
            assert_ne!(storms.decide(&client(1), &t1, now), RetryDecision::Refuse);
        }
    }

    #[test]
    fn a_replacement_that_is_asked_for_again_is_verified() {
        let (mut storms, now) = (RetryStorms::default(), Instant::now());
        let (one, t1, t2) = (client(1), token(1, 7200), token(2, 7200));
        storms.decide(&one, &t1, now);
        storms.record_replacement(&one, &t2, now);
        assert_eq!(storms.decide(&one, &t2, now), RetryDecision::Verify);
    }
}
