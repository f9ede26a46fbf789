//! Thousands of refreshes by the rules of the mock WeChat, on virtual time. Every token that a reader takes has to work
//! for as long as was promised with it.

use crate::model::kind::DocumentName;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::*;
use crate::mock;

#[test]
fn promise_4_a_token_works_for_as_long_as_was_promised_with_it() {
    for (rules, margin) in [
        (Rules::Classic, MARGIN),
        (Rules::Classic, Duration::from_secs(3600)),
        (Rules::Stable, MARGIN),
        (Rules::Stable, Duration::from_secs(60)),
    ] {
        let simulation = Simulation::new(rules, margin);
        for second in 0..50_000 {
            if second % 60 == 0 {
                simulation.run(&TokenRequest::Live, []);
            }
            assert!(simulation.read(), "there is a token at every second");
            simulation.pass_a_second();
        }
        assert!(simulation.generations() >= 6, "{} generations", simulation.generations());
    }
}

/// Nearly every second request fails: answers are lost after a mint, and the process dies after one.
#[test]
fn promise_4_no_promise_is_broken_by_lost_answers_and_dying_processes() {
    for (rules, margin) in [
        (Rules::Classic, MARGIN),
        (Rules::Classic, Duration::from_secs(3600)),
        (Rules::Stable, MARGIN),
        (Rules::Stable, Duration::from_secs(60)),
        (Rules::Work, MARGIN),
    ] {
        let simulation = Simulation::new(rules, margin);
        let mut random: u64 = 1;
        let mut outcomes = || {
            const OUTCOMES: [CallOutcome; 8] = [
                CallOutcome::Answered,
                CallOutcome::AnswerLost,
                CallOutcome::Answered,
                CallOutcome::ProcessDies,
                CallOutcome::Refused,
                CallOutcome::AnswerLost,
                CallOutcome::RequestLost,
                CallOutcome::NotSent,
            ];
            let outcomes = [(); 4].map(|()| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                OUTCOMES[(random >> 61) as usize]
            });
            match rules {
                // A lifetime that began in an earlier run is known to WeCom alone, so each run ends with an answer.
                Rules::Work => vec![CallOutcome::AnswerLost],
                Rules::Stable | Rules::Classic | Rules::Mirror => outcomes.to_vec(),
            }
        };
        let mut force_again_at = u64::MAX;
        for minute in 0..1500 {
            let published = simulation.published();
            match minute {
                // A forced request takes back all promises beyond the overlap, and no others.
                _ if minute % 50 == 49 => {
                    let overlap_end = simulation.clock.elapsed() + CLASSIC_OVERLAP;
                    simulation.promises.borrow_mut().retain(|(_, until)| *until <= overlap_end);
                    simulation.run(&TokenRequest::New, outcomes());
                    let is_shortened =
                        simulation.published().zip(published).is_some_and(|(now, before)| {
                            !now.is_newer_answer_than(&before) && now.expires_in < before.expires_in
                        });
                    force_again_at = if is_shortened { minute + 1 } else { u64::MAX };
                }
                _ if minute == force_again_at => simulation.run(&TokenRequest::New, outcomes()),
                _ => simulation.run(&TokenRequest::Live, outcomes()),
            }
            for _ in 0..60 {
                simulation.read();
                simulation.pass_a_second();
            }
        }
        assert!(simulation.generations() > 10, "{} generations", simulation.generations());
        let lost = simulation.lost_mints.get();
        assert!(lost > 3, "{rules:?}: {lost} answers were lost");
    }
}

/// What becomes of a call to WeChat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CallOutcome {
    Answered,
    /// Refused with -1, busy.
    Refused,
    NotSent,
    /// It was sent and did not arrive, which the caller cannot know.
    RequestLost,
    /// It was executed, and the answer did not arrive.
    AnswerLost,
    /// It was executed, and then the calling process died.
    ProcessDies,
}

/// The mock WeChat without HTTP, the process that refreshes, and readers that take the published token each second.
struct Simulation {
    clock: VirtualClock,
    rules: Rules,
    margin: Duration,
    wechat: RefCell<mock::MockWeChat>,
    store: MemoryStore,
    /// The outcomes of the next calls; further ones are answered.
    outcomes: RefCell<VecDeque<CallOutcome>>,
    /// Each token that a reader took, and until when it was promised to work.
    promises: RefCell<Vec<(Secret, Duration)>>,
    fingerprints: RefCell<HashSet<String>>,
    /// How many tokens were minted whose answer was lost.
    lost_mints: Cell<u64>,
}

impl Simulation {
    fn new(rules: Rules, margin: Duration) -> Simulation {
        let lifetime = mock::TokenLifetime { life: LIFE, overlap: Duration::from_secs(300) };
        let accounts = vec![("wx1".to_owned(), Secret::new("s".to_owned()))];
        Simulation {
            clock: VirtualClock::new(),
            rules,
            margin,
            wechat: RefCell::new(mock::MockWeChat::new(accounts, lifetime, Duration::ZERO, 1)),
            store: MemoryStore::default(),
            outcomes: RefCell::default(),
            promises: RefCell::default(),
            fingerprints: RefCell::default(),
            lost_mints: Cell::default(),
        }
    }

    /// Runs a refresh whose calls have these outcomes.
    fn run(&self, request: &TokenRequest, outcomes: impl IntoIterator<Item = CallOutcome>) {
        self.outcomes.replace(outcomes.into_iter().collect());
        let refresh = Refresh {
            place: "default.json",
            name: DocumentName::of_token("default"),
            appid: "wx1",
            rules: self.rules,
            refresh_before: self.margin,
            clock: &self.clock,
            source: self,
            store: &self.store,
            dead: None,
            ending: None,
            record: None,
        };
        let deadline = self.clock.instant() + TIMEOUT;
        // Only the promises count here, not the result.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| refresh.run(request, deadline)))
            && !panic.is::<CallOutcome>()
        {
            resume_unwind(panic);
        }
    }

    fn published(&self) -> Option<Document> {
        self.store.published()
    }

    /// A reader takes the token. Returns whether there is one that lives.
    fn read(&self) -> bool {
        let Some(document) = self.published() else { return false };
        let promise = document.promise(self.clock.now(), self.rules, self.margin);
        self.fingerprints.borrow_mut().insert(document.token.fingerprint());
        self.promises.borrow_mut().push((document.token, self.clock.elapsed() + promise));
        !promise.is_zero()
    }

    /// Uses every token that was promised to work until now, and lets a second pass.
    fn pass_a_second(&self) {
        let mut promises = self.promises.borrow_mut();
        let now = self.clock.elapsed();
        promises.retain(|(token, until)| {
            let is_alive = self.wechat.borrow_mut().check_token(token.expose(), now).is_ok();
            assert!(now >= *until || is_alive, "{:?} at {now:?}, until {until:?}", self.rules);
            now < *until
        });
        promises.dedup_by(|later, earlier| later.0 == earlier.0 && later.1 <= earlier.1);
        self.clock.advance(Duration::from_secs(1));
    }

    fn generations(&self) -> usize {
        self.fingerprints.borrow().len()
    }

    fn issue(&self, mode: RefreshMode) -> Result<IssuedToken, UpstreamError> {
        let who =
            mock::CallerCredentials { appid: "wx1", grant_type: "client_credential", secret: "s" };
        let (mut wechat, now) = (self.wechat.borrow_mut(), self.clock.elapsed());
        let issued = match (self.rules, mode) {
            (Rules::Classic, _) => wechat.classic_token(who, now),
            (Rules::Stable, RefreshMode::Normal) => wechat.stable_token(who, false, now),
            (Rules::Stable, RefreshMode::Forced) => wechat.stable_token(who, true, now),
            (Rules::Work | Rules::Mirror, _) => wechat.wecom_token(who, now),
        };
        let issued = issued.map_err(|refusal| refused(refusal.errcode).unwrap_err())?;
        Ok(IssuedToken {
            token: issued.token,
            expires_in: Duration::from_secs(issued.expires_in_secs),
        })
    }
}

impl TokenSource for Simulation {
    fn request_token(
        &self,
        mode: RefreshMode,
        timeout: Duration,
    ) -> Result<IssuedToken, UpstreamError> {
        let outcome = self.outcomes.borrow_mut().pop_front().unwrap_or(CallOutcome::Answered);
        let no_answer = |may_have_arrived| {
            for _ in 0..timeout.as_secs() {
                self.read();
                self.pass_a_second();
            }
            Err(UpstreamError::unreachable("no answer in time", true, may_have_arrived))
        };
        match outcome {
            CallOutcome::Answered => self.issue(mode),
            CallOutcome::Refused => Err(refused(-1).unwrap_err()),
            CallOutcome::NotSent => no_answer(false),
            CallOutcome::RequestLost => no_answer(true),
            CallOutcome::AnswerLost | CallOutcome::ProcessDies => {
                let mints = self.wechat.borrow().mints();
                let _ = self.issue(mode); // A refusal is lost as well.
                self.lost_mints.set(self.lost_mints.get() + self.wechat.borrow().mints() - mints);
                if outcome == CallOutcome::ProcessDies {
                    resume_unwind(Box::new(outcome));
                }
                no_answer(true)
            }
        }
    }
}
