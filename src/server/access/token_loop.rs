//! Detects that one process asks for the same token in a loop: it waits for each answer, calls WeChat, is refused, and asks
//! again on the same connection, without end.
//!
//! A client that keeps no token asks with each of its calls, and looks the same but for its pace. So what WeChat said of the
//! token decides how much is a loop. Reads no clock.

use std::time::Duration;

use tokio::time::Instant;

use super::retry_storm::ClientId;
use crate::model::status::{LiveToken, TokenEvidence};

/// A client that pauses for longer than this is in no loop: a loop asks again after one call to WeChat.
const LOOP_INTERVAL: Duration = Duration::from_secs(10);

/// The pace that is never a loop while nothing speaks against the token: clients that keep no token make as many calls on
/// one connection. A loop is faster, unless WeChat is far away.
const PACE: Duration = Duration::from_millis(125);

/// How many handouts above that pace are a loop: more than a host starts workers at once. The recursion of wechatpy breaks
/// its process at 489.
const LOOP_LIMIT: u32 = 100;

/// How many handouts above that pace are a loop while the token is near its end, so that some SDKs no longer cache it.
const LOOP_LIMIT_NEAR_THE_END: u32 = 400;

/// With no more life than this, some SDKs no longer cache a token. The widest margin is that of silenceper/wechat.
const WIDEST_SDK_MARGIN: Duration = Duration::from_secs(1500);

/// Pace and limit where the last probe could not tell whether the token is alive: a loop may be due to a dead token that
/// cannot be replaced, and costs the client an API call each time.
const PACE_IN_DOUBT: Duration = Duration::from_secs(1);
const LOOP_LIMIT_IN_DOUBT: u32 = 5;

/// The handouts on one connection.
#[derive(Debug, Default)]
pub(crate) struct LoopCounter(Option<Box<RepeatedHandout>>);

/// The token that was handed out last on a connection, and how often above the paces that are no loop.
#[derive(Debug)]
struct RepeatedHandout {
    client: ClientId,
    generation: u64,
    began_at: Instant,
    last_at: Instant,
    excess: Excess,
    excess_in_doubt: Excess,
    /// How often it was handed out while WeChat honoured it.
    honoured: u32,
}

/// Handouts above a pace. It is kept as the instant at which none are left at that pace.
#[derive(Clone, Copy, Debug)]
struct Excess {
    none_at: Instant,
}

impl Excess {
    /// Adds a handout. Returns whether there are more than `limit`, beyond which they are not counted.
    fn add(&mut self, pace: Duration, limit: u32, now: Instant) -> bool {
        let most = now + pace * limit;
        self.none_at = self.none_at.max(now) + pace;
        let is_above = self.none_at > most;
        self.none_at = self.none_at.min(most);
        is_above
    }
}

impl LoopCounter {
    /// Notes that this client is to be handed the token, of which so much is known. Returns since when it has been asking if
    /// it is in a loop.
    pub(crate) fn note(
        &mut self,
        client: &ClientId,
        token: &LiveToken,
        evidence: TokenEvidence,
        now: Instant,
    ) -> Option<Instant> {
        let is_same = |repeated: &RepeatedHandout| {
            repeated.client == *client
                && repeated.generation == token.generation
                && now.duration_since(repeated.last_at) <= LOOP_INTERVAL
        };
        if !self.0.as_deref().is_some_and(is_same) {
            self.0 = Some(Box::new(RepeatedHandout::new(client, token, now)));
        }
        let repeated = self.0.as_mut()?;
        repeated.last_at = now;
        let limit = match token.life > WIDEST_SDK_MARGIN {
            true => LOOP_LIMIT,
            false => LOOP_LIMIT_NEAR_THE_END,
        };
        let is_loop = repeated.excess.add(PACE, limit, now);
        let is_loop_in_doubt = match evidence {
            TokenEvidence::InDoubt => {
                repeated.excess_in_doubt.add(PACE_IN_DOUBT, LOOP_LIMIT_IN_DOUBT, now)
                    && repeated.honoured <= LOOP_LIMIT_IN_DOUBT
            }
            TokenEvidence::Honoured(_) => {
                repeated.honoured = repeated.honoured.saturating_add(1);
                false
            }
            TokenEvidence::None => false,
        };
        (is_loop || is_loop_in_doubt).then_some(repeated.began_at)
    }

    /// Notes that the loop was ended by a refusal. A client that asks again after it was in none.
    pub(crate) fn end(&mut self) {
        self.0 = None;
    }
}

impl RepeatedHandout {
    fn new(client: &ClientId, token: &LiveToken, now: Instant) -> RepeatedHandout {
        let none = Excess { none_at: now };
        RepeatedHandout {
            client: client.clone(),
            generation: token.generation,
            began_at: now,
            last_at: now,
            excess: none,
            excess_in_doubt: none,
            honoured: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::body::Bytes;

    use super::*;
    use crate::model::status::TokenEvidence::{Honoured, InDoubt, None as NotAsked};
    use crate::server::access::peer::NetworkId;

    fn token(generation: u64, life: u64) -> LiveToken {
        LiveToken { json: Bytes::new(), life: Duration::from_secs(life), generation }
    }

    fn client(last: u8) -> ClientId {
        let network = NetworkId::V4(u32::from_be_bytes([10, 0, 0, last]));
        ClientId { account: "shop".to_owned(), network, key: None }
    }

    /// Returns after how many handouts at this pace, of `most`, a client is in a loop.
    fn loops_after(
        pace: u64,
        life: u64,
        most: u32,
        evidence: fn(std::time::Instant) -> TokenEvidence,
    ) -> Option<u32> {
        let (mut loops, start) = (LoopCounter::default(), Instant::now());
        let mut is_loop = |nth: u32| {
            let now = start + Duration::from_millis(pace) * nth;
            loops.note(&client(1), &token(1, life), evidence(now.into()), now).is_some()
        };
        (0..most).find(|nth| is_loop(*nth))
    }

    #[test]
    fn a_client_that_keeps_no_token_is_in_no_loop_whatever_it_does_for_days() {
        // Eight calls a second, five, and one in ten seconds.
        for pace in [125, 200, 10_000] {
            for evidence in [Honoured, |_| NotAsked] {
                assert_eq!(loops_after(pace, 7200, 1_000_000, evidence), None, "{pace} ms");
            }
        }
    }

    #[test]
    fn a_loop_is_found_before_wechatpy_fails_and_later_for_a_token_near_its_end() {
        for (pace, expected) in [(1, 100), (50, 165), (95, 413)] {
            let found = loops_after(pace, 7200, 489, Honoured).expect("a loop");
            assert!(found.abs_diff(expected) <= 4, "{pace} ms: {found}");
        }
        assert_eq!(loops_after(1, 1500, 489, Honoured), Some(403));
    }

    #[test]
    fn with_a_token_that_no_probe_confirmed_a_loop_is_found_after_a_few_handouts() {
        for pace in [1, 200, 500] {
            let found = loops_after(pace, 7200, 489, |_| InDoubt).expect("a loop");
            assert!((5..=10).contains(&found), "{pace} ms: {found}");
        }
        assert_eq!(loops_after(1000, 7200, 1_000_000, |_| InDoubt), None);
    }

    #[test]
    fn a_client_that_asked_as_often_while_wechat_honoured_the_token_is_in_no_loop_when_it_is_in_doubt()
     {
        let (mut loops, start) = (LoopCounter::default(), Instant::now());
        for nth in 0..1000 {
            let now = start + Duration::from_millis(200) * nth;
            let evidence = if nth < 20 { Honoured(now.into()) } else { InDoubt };
            assert_eq!(loops.note(&client(1), &token(1, 7200), evidence, now), None, "{nth}");
        }
    }

    #[test]
    fn a_loop_that_was_ended_is_none() {
        let (mut loops, now) = (LoopCounter::default(), Instant::now());
        let note = |loops: &mut LoopCounter| {
            loops.note(&client(1), &token(1, 7200), Honoured(now.into()), now).is_some()
        };
        let after = (0..489).find(|_| note(&mut loops));
        assert_eq!(after, Some(LOOP_LIMIT), "that many are none yet");
        assert!(note(&mut loops), "it goes on");
        loops.end();
        assert_eq!((0..489).find(|_| note(&mut loops)), after);
    }

    #[test]
    fn another_token_or_another_client_on_the_connection_is_no_loop() {
        let (mut loops, now) = (LoopCounter::default(), Instant::now());
        let mut note = |client: &ClientId, generation| {
            loops.note(client, &token(generation, 7200), Honoured(now.into()), now)
        };
        for nth in 0..1000 {
            assert_eq!(note(&client(1), nth), None);
        }
        for _ in 0..1000 {
            assert_eq!((note(&client(1), 1), note(&client(2), 1)), (None, None));
        }
    }
}
