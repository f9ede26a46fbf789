//! What one run remembers for the next.

use super::*;
use crate::model::secret::Salt;
use crate::store::LostAnswers;
use crate::upstream::{Credential, CredentialHashes, Liveness, Probe};

/// An AppSecret, and a probe with a scripted result. Counts the probes.
struct ScriptedUpstream {
    secret: &'static str,
    /// `None` if the probe cannot tell.
    is_alive: Option<bool>,
    probes: Cell<usize>,
    /// How long the last probe may take.
    timeout: Cell<Duration>,
}

impl Credential for ScriptedUpstream {
    fn hashes(&self, salt: &Salt) -> Option<CredentialHashes> {
        let hash = salt.hash(&[self.secret]);
        Some(CredentialHashes { secret: hash.clone(), request: hash })
    }
}

impl Probe for ScriptedUpstream {
    fn probe(&self, _: &Secret, timeout: Duration) -> Liveness {
        self.timeout.set(timeout);
        self.probes.set(self.probes.get() + 1);
        match self.is_alive {
            Some(true) => Liveness::Alive,
            Some(false) => Liveness::Dead,
            None => Liveness::Unknown(UpstreamError::Status(502)),
        }
    }
}

fn with_secret(secret: &'static str) -> ScriptedUpstream {
    ScriptedUpstream { secret, is_alive: None, probes: Cell::default(), timeout: Cell::default() }
}

impl Fixture {
    /// Runs with this secret.
    fn run_with(
        &self,
        upstream: &ScriptedUpstream,
        request: &TokenRequest,
    ) -> Result<Outcome, RefreshError> {
        let context = RecordContext {
            credential: upstream,
            probe: upstream,
            asks_anyway: *request == TokenRequest::New,
            is_of_token: true,
            keeps_honoured: false,
        };
        let refresh = Refresh { record: Some(context), ..self.refresh() };
        refresh.run(request, self.clock.instant() + TIMEOUT)
    }

    /// Runs for a report that T1 is rejected, where it is kept if WeChat honours it.
    fn report(
        &self,
        upstream: &ScriptedUpstream,
        timeout: Duration,
    ) -> Result<Outcome, RefreshError> {
        let context = RecordContext {
            credential: upstream,
            probe: upstream,
            asks_anyway: false,
            is_of_token: true,
            keeps_honoured: true,
        };
        let refresh = Refresh { record: Some(context), ..self.refresh() };
        refresh.run(&other_than("T1"), self.clock.instant() + timeout)
    }

    fn lost(&self) -> Option<LostAnswers> {
        self.store.record.borrow().as_ref()?.lost().of_day(self.clock.now().wall)
    }

    /// Adds answers to further requests.
    fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.source.answers.borrow_mut().extend(answers);
    }
}

#[track_caller]
fn not_asked(result: Result<Outcome, RefreshError>) -> (Exit, Duration, String) {
    let failure = result.expect_err("not asked");
    let wait = failure.retry_after().expect("the time of the next request is known");
    (failure.exit(), wait, failure.to_string())
}

#[test]
fn a_refused_secret_is_not_sent_again_within_an_hour() {
    for rules in [Rules::Stable, Rules::Classic, Rules::Work] {
        let fixture = Fixture::new([refused(40125)]).on(rules);
        let upstream = with_secret("old");
        let first = fixture.run_with(&upstream, &TokenRequest::Live).unwrap_err().to_string();
        for request in [TokenRequest::Live, other_than("T1")] {
            fixture.clock.advance(Duration::from_secs(60));
            let (exit, wait, text) = not_asked(fixture.run_with(&upstream, &request));
            assert_eq!(exit, Exit::Refused);
            assert!(wait < Duration::from_secs(3600) && text.starts_with(&first), "{text}");
            assert!(text.contains("until 1970-01-01T01:00:00Z"), "{text}");
            // The program's name is that of the whole process.
            assert!(text.contains("at once: ") && text.contains(" fetch --force"), "{text}");
        }
        assert_eq!(fixture.requests().len(), 1);
        // A person who has mended it asks at once, and what came of that counts.
        fixture.answer([refused(40125), Ok("T1")]);
        assert!(fixture.run_with(&upstream, &TokenRequest::New).is_err());
        fixture.clock.advance(Duration::from_secs(3599));
        not_asked(fixture.run_with(&upstream, &TokenRequest::Live));
        fixture.clock.advance(Duration::from_secs(1));
        fixture.run_with(&upstream, &TokenRequest::Live).unwrap();
        assert_eq!(fixture.requests().len(), 3);
    }
}

#[test]
fn another_secret_is_sent_at_once_and_success_ends_a_refusal() {
    let fixture = Fixture::new([refused(40125), Ok("T1"), Ok("T2")]);
    fixture.run_with(&with_secret("old"), &TokenRequest::Live).unwrap_err();
    fixture.run_with(&with_secret("new"), &TokenRequest::Live).unwrap();
    // The old one is still refused.
    fixture.clock.advance(LIFE / 8);
    not_asked(fixture.run_with(&with_secret("old"), &TokenRequest::Live));
    fixture.run_with(&with_secret("old"), &TokenRequest::New).unwrap();
    assert!(matches!(
        fixture.run_with(&with_secret("old"), &TokenRequest::Live),
        Ok(Outcome::Kept(_))
    ));
}

#[test]
fn what_may_pass_or_is_mended_on_this_host_is_asked_again_by_each_run() {
    for failure in [refused(40002), refused(77777), unreachable(false), malformed()] {
        let fixture = Fixture::new([failure, Ok("T1")]);
        let upstream = with_secret("s");
        fixture.run_with(&upstream, &TokenRequest::Live).unwrap_err();
        fixture.run_with(&upstream, &TokenRequest::Live).unwrap();
    }
}

#[test]
fn the_quota_of_forced_requests_puts_off_no_normal_one() {
    let fixture = Fixture::new([refused(45009), Ok("T2")]).publishing("T1");
    let upstream = with_secret("s");
    fixture.run_with(&upstream, &TokenRequest::New).unwrap_err();
    fixture.clock.advance(LIFE);
    fixture.run_with(&upstream, &TokenRequest::Live).unwrap();
    assert_eq!(fixture.requests(), [RefreshMode::Forced, RefreshMode::Normal]);
}

/// A refusal that another process was given during the wait for the lock settles this request too.
#[test]
fn one_of_many_that_wait_for_the_lock_is_refused_for_all() {
    let fixture = Fixture::new([refused(40125)]);
    let upstream = with_secret("s");
    for _ in 0..8 {
        assert_eq!(
            fixture.run_with(&upstream, &TokenRequest::Live).unwrap_err().exit(),
            Exit::Refused
        );
    }
    assert_eq!(fixture.requests().len(), 1);
}

#[test]
fn on_stable_and_work_another_secret_leads_to_a_request() {
    for rules in [Rules::Stable, Rules::Work] {
        let fixture = Fixture::new([Ok("T1"), Ok("T1"), Ok("T2"), refused(40125)]).on(rules);
        let kept = |secret| {
            let outcome = fixture.run_with(&with_secret(secret), &TokenRequest::Live);
            matches!(outcome.unwrap(), Outcome::Kept(_))
        };
        assert!(!kept("s1") && kept("s1"));
        // The token is honoured with the new secret, too.
        assert!(!kept("s2") && kept("s2"));
        assert_eq!(fixture.published().unwrap().token.expose(), "T1");
        // It is not.
        assert!(!kept("s3") && kept("s3"));
        assert_eq!(fixture.published().unwrap().token.expose(), "T2");
        // The new secret is wrong. That costs no good token.
        let published = fixture.published();
        let wrong = with_secret("wrong");
        fixture.run_with(&wrong, &TokenRequest::Live).unwrap_err();
        not_asked(fixture.run_with(&wrong, &TokenRequest::Live));
        assert_eq!(fixture.published(), published);
        assert!(kept("s3"), "the old one is put back");
    }
}

#[test]
fn on_classic_another_secret_leads_to_a_probe_and_only_a_dead_token_is_replaced() {
    let fixture = Fixture::new([Ok("T1"), Ok("T2")]).on(Rules::Classic);
    fixture.run_with(&with_secret("old"), &TokenRequest::Live).unwrap();
    fixture.clock.advance(Duration::from_secs(60));
    let probed = |is_alive| ScriptedUpstream { is_alive, ..with_secret("new") };
    let unknown = probed(None);
    for probes in 1..=2 {
        let outcome = fixture.run_with(&unknown, &TokenRequest::Live).unwrap();
        assert!(matches!(outcome, Outcome::Kept(_)));
        assert_eq!(unknown.probes.get(), probes, "until WeChat can tell");
    }
    let dead = probed(Some(false));
    let outcome = fixture.run_with(&dead, &TokenRequest::Live).unwrap();
    assert_eq!(outcome, Outcome::Renewed(fixture.document("T2")));
    let alive = ScriptedUpstream { is_alive: Some(true), ..with_secret("newest") };
    for _ in 0..2 {
        let outcome = fixture.run_with(&alive, &TokenRequest::Live).unwrap();
        assert!(matches!(outcome, Outcome::Kept(_)));
        assert_eq!(alive.probes.get(), 1, "once");
    }
    assert_eq!(fixture.requests().len(), 2);
    let then = fixture.published_then().pop().unwrap().unwrap();
    assert!(then.left(fixture.clock.now()).is_zero(), "no reader hands out the dead one meanwhile");
}

#[test]
fn of_a_token_that_is_due_wechat_is_not_asked_also_with_another_secret() {
    let fixture = Fixture::new([Ok("T1"), Ok("T2")]).on(Rules::Classic);
    fixture.run_with(&with_secret("old"), &TokenRequest::Live).unwrap();
    fixture.clock.advance(LIFE - MARGIN);
    let alive = ScriptedUpstream { is_alive: Some(true), ..with_secret("new") };
    let outcome = fixture.run_with(&alive, &TokenRequest::Live).unwrap();
    assert_eq!(outcome, Outcome::Renewed(fixture.document("T2")));
    assert_eq!(alive.probes.get(), 0);
}

#[test]
fn promise_7_a_token_that_a_probe_finds_dead_is_published_no_more_whatever_becomes_of_the_request()
{
    for failure in [refused(45009), unreachable(false), unreachable(true), malformed()] {
        let fixture = Fixture::new([Ok("T1"), failure]).on(Rules::Classic);
        fixture.run_with(&with_secret("old"), &TokenRequest::Live).unwrap();
        fixture.clock.advance(Duration::from_secs(60));
        let new = ScriptedUpstream { is_alive: Some(false), ..with_secret("new") };
        fixture.run_with(&new, &TokenRequest::Live).unwrap_err();
        let published = fixture.published().unwrap();
        assert_eq!(published.token.expose(), "T1");
        assert!(published.left(fixture.clock.now()).is_zero());
    }
}

#[test]
fn promise_7_the_document_of_a_dead_token_ends_also_while_wechat_is_not_to_be_asked() {
    for rules in [Rules::Stable, Rules::Classic] {
        let fixture = Fixture::new([Ok("T1"), refused(40125)]).on(rules);
        let upstream = with_secret("s");
        fixture.run_with(&upstream, &TokenRequest::Live).unwrap();
        fixture.run_with(&upstream, &TokenRequest::New).unwrap_err();
        fixture.clock.advance(Duration::from_secs(60));
        let (whole, dead) = (fixture.published().unwrap(), Secret::new("T1".to_owned()));
        let run = |dead| {
            let context = RecordContext {
                credential: &upstream,
                probe: &upstream,
                asks_anyway: false,
                is_of_token: true,
                keeps_honoured: false,
            };
            let refresh = Refresh { record: Some(context), dead, ..fixture.refresh() };
            not_asked(refresh.run(&other_than("T1"), fixture.clock.instant() + TIMEOUT));
            fixture.published().unwrap()
        };
        assert_eq!(run(None), whole, "a client's word ends nothing");
        assert!(run(Some(&dead)).left(fixture.clock.now()).is_zero());
    }
}

#[test]
fn without_a_record_the_secret_is_not_known_to_be_another() {
    let fixture = Fixture::new([]).publishing("T1");
    let outcome = fixture.run_with(&with_secret("s"), &TokenRequest::Live).unwrap();
    assert!(matches!(outcome, Outcome::Kept(_)));
    assert!(fixture.store.record.borrow().is_none());
}

/// A cron job that runs each minute, on a network that loses every answer, and then no more.
#[test]
fn on_classic_no_more_than_200_answers_are_lost_in_a_day() {
    let fixture = Fixture::new([]).on(Rules::Classic);
    let upstream = with_secret("s");
    let mut said = None;
    for _ in 0..1440 {
        fixture.answer([(); 4].map(|()| lost_answer()));
        let failure = fixture.run_with(&upstream, &TokenRequest::Live).unwrap_err();
        if let RefreshError::Upstream(UpstreamError::Rationed { lost, .. }) = &failure {
            said = Some((*lost, failure.to_string(), failure.exit()));
        }
        fixture.source.answers.borrow_mut().clear();
        let minute = Duration::from_secs(60);
        let rest = fixture.clock.elapsed().as_secs() % 60;
        fixture.clock.advance(minute - Duration::from_secs(rest));
    }
    let requests = fixture.requests().len();
    assert!((150..=200).contains(&requests), "{requests} tokens were minted in vain");
    let (lost, text, exit) = said.expect("a run that did not ask");
    assert_eq!(exit, Exit::Unreachable);
    for part in [&lost.to_string(), "were lost", "--api stable", "应答丢失"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // A person may ask, and an answer that comes is not lost.
    let before = fixture.lost();
    fixture.answer([Ok("T1")]);
    fixture.run_with(&upstream, &TokenRequest::New).unwrap();
    assert_eq!(fixture.lost(), before);
}

/// Every attempt counts as it is made: the process may end before the answer comes.
#[test]
fn a_process_that_was_stopped_after_its_look_at_the_lock_sends_no_request_and_counts_none_as_lost()
{
    let mut fixture = Fixture::new([]).on(Rules::Classic);
    fixture.store.is_lost_after_look = true;
    fixture.store.lease_left = Some(Duration::ZERO);
    let run = fixture.run_with(&with_secret("s"), &TokenRequest::Live);
    assert_eq!(run.unwrap_err().exit(), Exit::Failure);
    assert_eq!(fixture.lost(), None);
}

#[test]
fn on_classic_the_mint_of_a_process_that_dies_counts_as_lost() {
    let fixture = Fixture::new([]).on(Rules::Classic);
    let upstream = with_secret("s");
    let run = || fixture.run_with(&upstream, &TokenRequest::Live);
    let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)); // There is no answer.
    assert!(died.is_err());
    assert_eq!(fixture.lost().unwrap().count, 1);
    fixture.answer([refused(-1), refused(45009)]);
    run().unwrap_err();
    assert_eq!(fixture.lost().unwrap().count, 1, "a refusal is an answer");
}

#[test]
fn answers_lost_on_stable_and_work_cost_no_token_and_are_not_rationed() {
    for rules in [Rules::Stable, Rules::Work] {
        let fixture = Fixture::new([]).on(rules);
        let upstream = with_secret("s");
        for _ in 0..30 {
            fixture.answer([(); 4].map(|()| lost_answer()));
            fixture.run_with(&upstream, &TokenRequest::Live).unwrap_err();
        }
        assert_eq!(fixture.requests().len(), 120);
        assert_eq!(fixture.lost().is_some(), rules == Rules::Work, "it ages the token");
    }
}

#[test]
fn the_quota_of_forced_requests_says_nothing_about_normal_ones_on_stable_and_all_elsewhere() {
    for (rules, first, is_asked) in [
        (Rules::Stable, TokenRequest::New, true),
        (Rules::Stable, TokenRequest::Live, false),
        (Rules::Classic, TokenRequest::New, false),
        (Rules::Work, TokenRequest::New, false),
    ] {
        let fixture = Fixture::new([refused(45009)]).on(rules);
        let upstream = with_secret("secret");
        fixture.run_with(&upstream, &first).unwrap_err();
        fixture.clock.advance(Duration::from_secs(60));
        fixture.answer(is_asked.then_some(Ok("T1")));
        let second = fixture.run_with(&upstream, &TokenRequest::Live);
        assert_eq!(second.is_ok(), is_asked, "{rules:?} {first:?}");
    }
}

#[test]
fn the_probe_of_a_reported_token_takes_half_of_the_time_and_three_seconds_at_most() {
    for (left, expected) in [(2, 1), (4, 2), (30, 3)] {
        let fixture = Fixture::new([]).publishing("T1");
        let upstream = ScriptedUpstream { is_alive: Some(true), ..with_secret("secret") };
        let outcome = fixture.report(&upstream, Duration::from_secs(left)).unwrap();
        assert!(matches!(outcome, Outcome::Kept(_)), "{outcome:?}");
        assert_eq!(upstream.timeout.get(), Duration::from_secs(expected));
    }
}

#[test]
fn a_reported_token_that_a_probe_finds_dead_is_published_no_more_but_on_work_where_it_may_be_issued_again()
 {
    for (rules, is_over) in [(Rules::Stable, true), (Rules::Classic, true), (Rules::Work, false)] {
        let fixture = Fixture::new([Ok("T2")]).on(rules).publishing("T1");
        fixture.clock.advance(Duration::from_secs(60));
        let upstream = ScriptedUpstream { is_alive: Some(false), ..with_secret("secret") };
        let outcome = fixture.report(&upstream, TIMEOUT).unwrap();
        assert_eq!(outcome, Outcome::Renewed(fixture.document("T2")));
        let then = fixture.published_then().pop().unwrap().unwrap();
        assert_eq!(then.left(fixture.clock.now()).is_zero(), is_over, "{rules:?}");
    }
}

#[test]
fn a_reported_token_whose_life_is_over_is_not_probed() {
    let fixture = Fixture::new([Ok("T2")]).publishing("T1");
    fixture.clock.advance(LIFE);
    let upstream = ScriptedUpstream { is_alive: Some(true), ..with_secret("secret") };
    assert!(matches!(fixture.report(&upstream, TIMEOUT).unwrap(), Outcome::Renewed(_)));
    assert_eq!(upstream.probes.get(), 0);
}

#[test]
fn answers_lost_on_classic_do_not_ration_what_costs_no_token() {
    for (rules, is_asked) in [(Rules::Classic, false), (Rules::Stable, true), (Rules::Work, true)] {
        let fixture = Fixture::new(is_asked.then_some(Ok("T1"))).on(rules);
        fixture.store.change_record("wx1", &fixture.clock, &|record| {
            (0..30).for_each(|_| record.lost_mut().note(fixture.clock.now().wall));
        });
        let outcome = fixture.run_with(&with_secret("secret"), &TokenRequest::Live);
        assert_eq!(outcome.is_ok(), is_asked, "{rules:?}");
    }
}

/// Returns two hosts on these rules that share a place.
fn two_hosts(rules: Rules) -> [Fixture; 2] {
    let mut hosts = [(); 2].map(|()| Fixture::new([]).on(rules));
    let lost = Some(Rc::default());
    hosts.iter_mut().for_each(|host| host.store.lost.clone_from(&lost));
    hosts
}

#[test]
fn answers_that_one_host_has_lost_are_rationed_on_the_other_until_it_forgets_them() {
    let [one, other] = two_hosts(Rules::Classic);
    let upstream = with_secret("s");
    for _ in 0..5 {
        one.answer([(); 4].map(|()| lost_answer()));
        one.run_with(&upstream, &TokenRequest::Live).unwrap_err();
    }
    let shared = |host: &Fixture| host.store.lost.as_ref().unwrap().borrow().clone();
    assert_eq!(shared(&one).of_day(one.clock.now().wall).unwrap().count, 20);
    other.clock.advance(one.clock.elapsed());
    let rationed = |host: &Fixture| match host.run_with(&upstream, &TokenRequest::Live) {
        Err(RefreshError::Upstream(UpstreamError::Rationed { lost, .. })) => Some(lost),
        _ => None,
    };
    assert_eq!([&one, &other].map(rationed), [Some(20); 2]);
    // The place has lost them, and each host still knows them.
    other.store.lost.as_ref().unwrap().take();
    assert_eq!(rationed(&other), Some(20));
    other.answer([Ok("T1")]);
    other.run_with(&upstream, &TokenRequest::New).unwrap();
    assert_eq!(shared(&other).of_day(other.clock.now().wall).unwrap().count, 20, "one more came");
    other.answer([refused(-1), refused(45009)]);
    other.run_with(&upstream, &TokenRequest::New).unwrap_err();
    assert_eq!(shared(&other).of_day(other.clock.now().wall).unwrap().count, 20, "it is answered");
}

#[test]
fn a_wecom_token_whose_answer_another_host_has_lost_has_its_age_from_there() {
    let [killed, other] = two_hosts(Rules::Work);
    let upstream = with_secret("s");
    let run = || killed.run_with(&upstream, &TokenRequest::Live);
    let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    assert!(died.is_err(), "there is no answer");
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    other.clock.advance(minutes(90));
    other.answer([Ok("T1")]);
    other.run_with(&upstream, &TokenRequest::Live).unwrap();
    assert_eq!(other.published().unwrap().left(other.clock.now()), LIFE - minutes(90));
    assert_eq!(other.store.lost.as_ref().unwrap().borrow().clone(), LostRequests::default());
    // It has been published since, so that what the first host remembers by itself says nothing of the next one.
    killed.clock.advance(minutes(119));
    killed.store.document.replace(other.published());
    killed.answer([Ok("T2")]);
    killed.run_with(&upstream, &TokenRequest::Live).unwrap();
    assert_eq!(killed.published().unwrap().left(killed.clock.now()), LIFE);
}

/// WeCom may have issued the token in the first of them, and returns it until its end.
#[test]
fn a_wecom_tokens_life_counts_from_the_first_answer_that_was_lost_since_one_came() {
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    let fixture = Fixture::new([]).on(Rules::Work);
    let upstream = with_secret("s");
    let left = || fixture.published().unwrap().left(fixture.clock.now());
    let run = |answers: Vec<Answer>| {
        fixture.answer(answers);
        let ran = fixture.run_with(&upstream, &TokenRequest::Live);
        fixture.source.answers.borrow_mut().clear();
        ran
    };
    let lost = || (0..4).map(|_| lost_answer()).collect::<Vec<_>>();
    run(lost()).unwrap_err();
    fixture.clock.advance(minutes(20) - fixture.clock.elapsed());
    // What refuses has issued nothing.
    run((0..4).map(|_| refused(-1)).collect()).unwrap_err();
    fixture.clock.advance(minutes(30) - fixture.clock.elapsed());
    let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(Vec::new())));
    assert!(died.is_err(), "there is no answer");
    fixture.clock.advance(minutes(90) - fixture.clock.elapsed());
    run(vec![Ok("T1")]).unwrap();
    assert_eq!(left(), LIFE - minutes(90));
    // Another token is issued after this one came.
    assert_eq!(fixture.lost(), None);
    fixture.clock.advance(LIFE - fixture.clock.elapsed());
    run(vec![Ok("T2")]).unwrap();
    assert_eq!(left(), LIFE);
    // One that was issued a whole life ago has ended, and is not the one that comes.
    fixture.clock.advance(LIFE);
    run(lost()).unwrap_err();
    fixture.clock.advance(LIFE + minutes(1));
    run(vec![Ok("T3")]).unwrap();
    assert!(left() > LIFE - Duration::from_secs(1), "{:?}", left());
}

#[test]
fn a_record_that_says_nothing_new_is_not_written() {
    let fixture = Fixture::new([Ok("T1"), Ok("T1")]);
    let upstream = with_secret("s1");
    for _ in 0..2 {
        fixture.run_with(&upstream, &TokenRequest::Live).unwrap();
        assert_eq!(fixture.store.record_writes.get(), 1);
        fixture.clock.advance(LIFE);
    }
    assert_eq!(fixture.source.requests.borrow().len(), 2);
}
