//! When an SDK's asking again is a cry for help: WeChat told it 40001, and it asks here, again and again, for "a new
//! token". Decides what to make of it; the time comes in.
//!
//! Asking again is no proof. Fifty workers of one host start together, and SDKs that cache for less than a token's whole
//! life ask for each of their calls near its end. So the current token is doubted, which costs nobody anything, long
//! before anybody is refused.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::caller::Peer;
use super::tokens::Token;

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

/// So many clients are remembered; more than that are not all in a loop.
const MAX_REMEMBERED: usize = 4096;

/// A client, as far as one can be told from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Who {
    pub(super) account: String,
    pub(super) client: Peer,
    /// The name of its key.
    pub(super) key: Option<Rc<str>>,
}

/// What to do about somebody who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Hand the current token out.
    HandOut,
    /// Make sure first that WeChat honours it.
    Doubt,
    /// WeChat honours it, and the client keeps asking: say something that no SDK asks again after.
    End,
}

/// What was handed out lately.
#[derive(Debug, Default)]
pub(super) struct Storms(HashMap<Who, Handed>);

#[derive(Debug)]
struct Handed {
    generation: u64,
    at: Instant,
    times: u32,
}

impl Storms {
    /// What to make of it that `who` asks for the current token now.
    pub(super) fn judge(&mut self, who: &Who, token: &Token, now: Instant) -> Verdict {
        let Some(handed) = self.0.get_mut(who) else { return Verdict::HandOut };
        if handed.generation != token.generation || now.duration_since(handed.at) > EARLY {
            return Verdict::HandOut;
        }
        let patience = if token.life > WIDEST_MARGIN { PATIENCE } else { PATIENCE_NEAR_THE_END };
        if handed.times < patience || now.duration_since(handed.at) > AT_ONCE {
            return Verdict::Doubt;
        }
        // The loop ends with one refusal. Whoever asks on after that did not loop.
        handed.times = 0;
        Verdict::End
    }

    /// Notes that `who` is handed this token.
    pub(super) fn handed(&mut self, who: Who, token: &Token, now: Instant) {
        if self.0.len() >= MAX_REMEMBERED && !self.0.contains_key(&who) {
            self.0.retain(|_, handed| now.duration_since(handed.at) <= EARLY);
            if self.0.len() >= MAX_REMEMBERED {
                return;
            }
        }
        let fresh = Handed { generation: token.generation, at: now, times: 0 };
        let handed = self.0.entry(who).or_insert(fresh);
        if handed.generation != token.generation || now.duration_since(handed.at) > AT_ONCE {
            handed.generation = token.generation;
            handed.times = 0;
        }
        handed.at = now;
        handed.times += 1;
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

    /// One who is handed what it asks for, unless it is the end.
    fn ask(storms: &mut Storms, who: &Who, token: &Token, now: Instant) -> Verdict {
        let verdict = storms.judge(who, token, now);
        if verdict != Verdict::End {
            storms.handed(who.clone(), token, now);
        }
        verdict
    }

    #[test]
    fn asking_again_within_minutes_is_a_doubt_and_later_is_none() {
        let (mut storms, start) = (Storms::default(), Instant::now());
        let at = |secs: u64| start + Duration::from_secs(secs);
        let (one, t1, t2) = (client(1), token(1, 7200), token(2, 7200));
        assert_eq!(ask(&mut storms, &one, &t1, at(0)), Verdict::HandOut);
        assert_eq!(ask(&mut storms, &one, &t1, at(300)), Verdict::Doubt);
        assert_eq!(ask(&mut storms, &one, &t1, at(601)), Verdict::HandOut);
        assert_eq!(ask(&mut storms, &client(2), &t1, at(601)), Verdict::HandOut, "another client");
        assert_eq!(ask(&mut storms, &one, &t2, at(602)), Verdict::HandOut, "another token");
        assert_eq!(ask(&mut storms, &one, &t2, at(602)), Verdict::Doubt);
        let other_key = Who { key: Some("php".into()), ..one };
        assert_eq!(ask(&mut storms, &other_key, &t2, at(602)), Verdict::HandOut, "another key");
    }

    #[test]
    fn a_loop_is_ended_once_and_later_where_sdks_cache_nothing() {
        for (life, patience) in [(7200, PATIENCE), (1500, PATIENCE_NEAR_THE_END)] {
            let (mut storms, now) = (Storms::default(), Instant::now());
            let (one, t1) = (client(1), token(1, life));
            for _ in 0..patience {
                assert_ne!(ask(&mut storms, &one, &t1, now), Verdict::End);
            }
            let calm = now + AT_ONCE + Duration::from_secs(1);
            assert_eq!(storms.judge(&one, &t1, calm), Verdict::Doubt, "no loop is this slow");
            assert_eq!(ask(&mut storms, &one, &t1, now), Verdict::End);
            assert_eq!(ask(&mut storms, &one, &t1, now), Verdict::Doubt, "it did not loop");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_room_comes_back() {
        let (mut storms, start) = (Storms::default(), Instant::now());
        let t1 = token(1, 7200);
        for n in 0..=MAX_REMEMBERED {
            storms.handed(Who { account: n.to_string(), ..client(1) }, &t1, start);
        }
        assert_eq!(storms.0.len(), MAX_REMEMBERED);
        let later = start + EARLY + Duration::from_secs(1);
        storms.handed(client(2), &t1, later);
        assert_eq!(storms.0.len(), 1);
        assert_eq!(storms.judge(&client(2), &t1, later), Verdict::Doubt);
    }
}
