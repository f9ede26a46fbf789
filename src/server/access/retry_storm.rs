//! When an SDK's asking again is a cry for help: WeChat told it 40001, and it asks here, again and again, for "a new
//! token". Decides what to make of it; the time comes in.
//!
//! Asking again is no proof. Fifty workers of one host start together, and SDKs that cache for less than a token's whole
//! life ask for each of their calls near its end. So the current token is doubted, which costs nobody anything, long
//! before anybody is refused.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::peer::Peer;
use crate::model::status::Token;

/// Who asks again this soon after having been handed the current token may have been refused with it: nobody's cache
/// forgets a token so early that has much life left. Some SDKs ask only once after each failed call, so that there may
/// be minutes between two of them.
const EARLY: Duration = Duration::from_secs(5 * 60);

/// Who loops asks again after one call of WeChat, which takes a second or two at worst.
const AT_ONCE: Duration = Duration::from_secs(10);

/// How often a client gets the same token without a pause before its loop is ended: more often than a host starts
/// workers at once. wechatpy's recursion breaks its process at 489.
const PATIENCE: u32 = 100;

/// The same for a token with little life left, which some SDKs do not cache any more.
const PATIENCE_NEAR_THE_END: u32 = 400;

/// With no more than this left there are SDKs that cache nothing; silenceper/wechat has the widest margin.
const WIDEST_MARGIN: Duration = Duration::from_secs(1500);

/// So many clients are remembered, in a megabyte or two; more than that are not all in a loop.
const MAX_REMEMBERED: usize = 16_384;

/// How often it is looked who of them can be forgotten.
const BETWEEN_SWEEPS: Duration = Duration::from_secs(1);

/// A client, as far as one can be told from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Who {
    pub(crate) account: String,
    pub(crate) client: Peer,
    /// The name of its key.
    pub(crate) key: Option<Rc<str>>,
}

/// What to do about somebody who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Hand the current token out.
    HandOut,
    /// Make sure first that WeChat honours it.
    Doubt,
    /// WeChat honours it, and the client keeps asking: say something that no SDK asks again after.
    End,
}

/// What was handed out lately.
#[derive(Debug, Default)]
pub(crate) struct RetryStorms {
    handed: HashMap<Who, Handed>,
    /// When those were last forgotten whose time has passed.
    swept_at: Option<Instant>,
}

#[derive(Debug)]
struct Handed {
    generation: u64,
    at: Instant,
    times: u32,
}

impl RetryStorms {
    /// What to make of it that `who` asks for the current token now. Unless it is the end, it is taken for handed out.
    pub(crate) fn judge(&mut self, who: &Who, token: &Token, now: Instant) -> Verdict {
        let Some(handed) = self.handed.get_mut(who) else {
            self.remember(who, token, now);
            return Verdict::HandOut;
        };
        let is_same = handed.generation == token.generation;
        let age = now.duration_since(handed.at);
        let patience = if token.life > WIDEST_MARGIN { PATIENCE } else { PATIENCE_NEAR_THE_END };
        if is_same && age <= AT_ONCE && handed.times >= patience {
            // The loop ends with one refusal. Whoever asks on after that did not loop.
            handed.times = 0;
            return Verdict::End;
        }
        let times = if is_same && age <= AT_ONCE { handed.times + 1 } else { 1 };
        *handed = Handed { generation: token.generation, at: now, times };
        if is_same && age <= EARLY { Verdict::Doubt } else { Verdict::HandOut }
    }

    /// Notes that `who` was handed another token than the one that was current when it asked.
    pub(crate) fn handed_another(&mut self, who: &Who, token: &Token, now: Instant) {
        if let Some(handed) = self.handed.get_mut(who) {
            *handed = Handed { generation: token.generation, at: now, times: 1 };
        }
    }

    fn remember(&mut self, who: &Who, token: &Token, now: Instant) {
        if self.handed.len() >= MAX_REMEMBERED {
            // Not for each newcomer: there may be many, and all of the others as new.
            if self.swept_at.is_some_and(|at| now.duration_since(at) < BETWEEN_SWEEPS) {
                return;
            }
            self.swept_at = Some(now);
            self.handed.retain(|_, handed| now.duration_since(handed.at) <= EARLY);
            if self.handed.len() >= MAX_REMEMBERED {
                return;
            }
        }
        let handed = Handed { generation: token.generation, at: now, times: 1 };
        self.handed.insert(who.clone(), handed);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use hyper::body::Bytes;

    use super::*;

    fn token(generation: u64, life: u64) -> Token {
        Token { json: Bytes::new(), life: Duration::from_secs(life), generation }
    }

    fn client(last: u8) -> Who {
        let client = Peer::Ip(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)));
        Who { account: "shop".to_owned(), client, key: None }
    }

    #[test]
    fn asking_again_within_minutes_is_a_doubt_and_later_is_none() {
        let (mut storms, start) = (RetryStorms::default(), Instant::now());
        let at = |secs: u64| start + Duration::from_secs(secs);
        let (one, t1, t2) = (client(1), token(1, 7200), token(2, 7200));
        assert_eq!(storms.judge(&one, &t1, at(0)), Verdict::HandOut);
        assert_eq!(storms.judge(&one, &t1, at(300)), Verdict::Doubt);
        assert_eq!(storms.judge(&one, &t1, at(601)), Verdict::HandOut);
        assert_eq!(storms.judge(&client(2), &t1, at(601)), Verdict::HandOut, "another client");
        assert_eq!(storms.judge(&one, &t2, at(602)), Verdict::HandOut, "another token");
        assert_eq!(storms.judge(&one, &t2, at(602)), Verdict::Doubt);
        let other_key = Who { key: Some("php".into()), ..one };
        assert_eq!(storms.judge(&other_key, &t2, at(602)), Verdict::HandOut, "another key");
    }

    #[test]
    fn a_loop_is_ended_once_and_later_where_sdks_cache_nothing() {
        for (life, patience) in [(7200, PATIENCE), (1500, PATIENCE_NEAR_THE_END)] {
            let (mut storms, now) = (RetryStorms::default(), Instant::now());
            let (one, t1) = (client(1), token(1, life));
            for _ in 0..patience {
                assert_ne!(storms.judge(&one, &t1, now), Verdict::End);
            }
            assert_eq!(storms.judge(&one, &t1, now), Verdict::End);
            assert_eq!(storms.judge(&one, &t1, now), Verdict::Doubt, "it did not loop");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_room_comes_back() {
        let (mut storms, start) = (RetryStorms::default(), Instant::now());
        let t1 = token(1, 7200);
        for n in 0..=MAX_REMEMBERED {
            storms.judge(&Who { account: n.to_string(), ..client(1) }, &t1, start);
        }
        assert_eq!(storms.handed.len(), MAX_REMEMBERED);
        let later = start + EARLY + Duration::from_secs(1);
        assert_eq!(storms.judge(&client(2), &t1, later), Verdict::HandOut);
        assert_eq!(storms.handed.len(), 1);
        assert_eq!(storms.judge(&client(2), &t1, later), Verdict::Doubt);
    }

    #[test]
    fn nobody_who_asks_slowly_is_in_a_loop() {
        let (mut storms, start, t1) = (RetryStorms::default(), Instant::now(), token(1, 7200));
        for n in 0..1000 {
            let now = start + (AT_ONCE + Duration::from_secs(1)) * n;
            assert_ne!(storms.judge(&client(1), &t1, now), Verdict::End);
        }
    }

    #[test]
    fn who_is_handed_another_token_and_asks_again_is_doubted_about_that_one() {
        let (mut storms, now) = (RetryStorms::default(), Instant::now());
        let (one, t1, t2) = (client(1), token(1, 7200), token(2, 7200));
        storms.judge(&one, &t1, now);
        storms.handed_another(&one, &t2, now);
        assert_eq!(storms.judge(&one, &t2, now), Verdict::Doubt);
    }
}
