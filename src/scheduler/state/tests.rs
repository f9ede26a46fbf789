//! The rules by virtual time: nobody waits, and a day takes a moment.

use super::*;
use crate::model::errcode::{CallKind, Platform, Refusal};

/// An account's knowledge, and the time.
struct Sim {
    known: State,
    start: Instant,
    elapsed: Duration,
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn token(name: &str) -> Secret {
    Secret::new(name.to_owned())
}

fn refused(code: i64) -> RefreshError {
    let refusal = Refusal::new(code, "no", CallKind::RequestsToken, Platform::Official);
    RefreshError::Upstream(UpstreamError::Refused(refusal))
}

/// A report of asking only.
fn outcome(outcome: Result<Outcome, RefreshError>) -> Report {
    Report { outcome: Some(outcome), ..Report::default() }
}

/// A report of a probe only.
fn pulse(pulse: Liveness) -> Report {
    Report { pulse: Some(pulse), ..Report::default() }
}

fn unknown() -> Liveness {
    Liveness::Unknown(UpstreamError::Status(502))
}

impl Sim {
    fn on(rules: Rules) -> Sim {
        Sim::with(rules, secs(300))
    }

    fn with(rules: Rules, refresh_before: Duration) -> Sim {
        let start = Instant::now();
        let known = State::new("shop", rules, refresh_before, start);
        Sim { known, start, elapsed: Duration::ZERO }
    }

    fn now(&self) -> Instant {
        self.start + self.elapsed
    }

    fn wall(&self) -> UtcDateTime {
        UtcDateTime::UNIX_EPOCH + secs(1_800_000_000) + self.elapsed
    }

    fn pass(&mut self, span: Duration) {
        self.elapsed += span;
    }

    /// A token as WeChat would give it now.
    fn document(&self, name: &str, life: u64) -> Document {
        Document::new("wx1", token(name), secs(life), self.wall())
    }

    fn step(&mut self, wish: &TokenRequest, current: Option<&str>) -> Step {
        let current = current.map(token).filter(|token| !self.known.is_dead(token));
        let now = self.now();
        self.known.step(wish, current.as_ref(), now)
    }

    /// The same for somebody who was refused with this token.
    fn told(&mut self, name: &str) -> Step {
        self.step(&TokenRequest::OtherThan(token(name)), Some(name))
    }

    fn next(&mut self, document: Option<&Document>) -> (Duration, Job) {
        let (wall, now) = (self.wall(), self.now());
        self.known.next(document, wall, now)
    }

    fn begin(&mut self, errand: Job) {
        let now = self.now();
        self.known.begin(errand, now);
    }

    fn end(&mut self, report: Report) -> Vec<News> {
        let (wall, now) = (self.wall(), self.now());
        self.known.end(report, wall, now, 0)
    }

    /// An errand that is over at once.
    fn run(&mut self, errand: Job, report: Report) -> Vec<News> {
        self.begin(errand);
        self.end(report)
    }

    /// Has the token found dead.
    fn found_dead(&mut self, name: &str) {
        self.pass(secs(30));
        let Step::Begin(errand) = self.told(name) else { panic!("nobody asks") };
        self.run(errand, pulse(Liveness::Dead));
        assert!(self.known.is_dead(&token(name)));
    }

    /// Has the tokens of a whole day replaced because somebody said so.
    fn use_up_the_day(&mut self) {
        for n in 0.. {
            let Step::Begin(errand) = self.told(&format!("T{n}")) else { panic!("nobody asks") };
            if !doubt(errand.clone()).may_force {
                self.run(errand, pulse(unknown()));
                return;
            }
            let renewed = Outcome::Renewed(self.document(&format!("T{}", n + 1), 7200));
            self.run(errand, Report { has_forced: true, ..outcome(Ok(renewed)) });
            self.pass(secs(30));
        }
    }
}

#[track_caller]
fn doubt(errand: Job) -> Doubt {
    match errand {
        Job::Settle(doubt) => doubt,
        Job::Refresh => panic!("of no token in particular"),
    }
}

#[track_caller]
fn given_up(step: Step) -> Unavailable {
    match step {
        Step::GiveUp(lack) => lack,
        step => panic!("{step:?}"),
    }
}

#[test]
fn all_who_find_no_token_wait_for_one_errand() {
    let mut sim = Sim::on(Rules::Stable);
    assert_eq!(sim.step(&TokenRequest::Live, None), Step::Begin(Job::Refresh));
    sim.begin(Job::Refresh);
    for wish in [TokenRequest::Live, TokenRequest::Verified, TokenRequest::OtherThan(token("T1"))] {
        assert_eq!(sim.step(&wish, None), Step::Wait(None));
    }
    let renewed = Outcome::Renewed(sim.document("T1", 7200));
    assert_eq!(
        sim.end(outcome(Ok(renewed))),
        [News::Published(format!("token {}", token("T1").fingerprint()))]
    );
    assert_eq!(sim.step(&TokenRequest::Live, Some("T1")), Step::HandOut);
}

#[test]
fn a_failure_is_told_at_once_until_the_schedule_has_got_over_it() {
    let mut sim = Sim::on(Rules::Stable);
    let news = sim.run(Job::Refresh, outcome(Err(refused(-1))));
    assert!(matches!(&news[..], [News::Failed { pause, .. }] if *pause == secs(2)), "{news:?}");
    let lack = given_up(sim.step(&TokenRequest::Live, None));
    assert_eq!(lack.retry_after, secs(2));
    assert!(lack.why.contains("shop") && lack.why.contains("系统繁忙"), "{}", lack.why);
    assert_eq!(sim.next(None), (secs(2), Job::Refresh));

    // The same again is not news, and takes longer; clients are told so all the same, also while it is tried.
    sim.pass(secs(2));
    assert_eq!(sim.run(Job::Refresh, outcome(Err(refused(-1)))), []);
    assert_eq!(sim.next(None).0, secs(4));
    sim.pass(secs(4));
    sim.begin(Job::Refresh);
    assert_eq!(given_up(sim.step(&TokenRequest::Live, None)).retry_after, secs(0));

    let renewed = Outcome::Renewed(sim.document("T1", 7200));
    let news = sim.end(outcome(Ok(renewed)));
    assert_eq!(news[0], News::WellAgain);
    assert_eq!(sim.known.failure(), None);
    assert_eq!(sim.step(&TokenRequest::Live, Some("T1")), Step::HandOut);
}

#[test]
fn a_failure_that_stays_the_same_is_told_again_every_ten_minutes() {
    let mut sim = Sim::on(Rules::Stable);
    let mut lines = 0;
    while sim.elapsed < secs(3600) {
        lines += sim.run(Job::Refresh, outcome(Err(refused(-1)))).len();
        let (wait, _) = sim.next(None);
        sim.pass(wait);
    }
    assert!((5..=6).contains(&lines), "{lines}");
}

#[test]
fn a_failure_costs_nobody_a_token_that_lives() {
    let mut sim = Sim::on(Rules::Stable);
    sim.run(Job::Refresh, outcome(Err(refused(-1))));
    assert_eq!(sim.step(&TokenRequest::Live, Some("T1")), Step::HandOut);
    let lack = given_up(sim.told("T1"));
    assert!(lack.why.contains("系统繁忙"), "who was refused with it gets no other: {}", lack.why);
}

#[test]
fn what_a_person_must_mend_is_tried_rarely_and_at_once_when_he_says_so() {
    let mut sim = Sim::on(Rules::Stable);
    sim.run(Job::Refresh, outcome(Err(refused(40125))));
    assert_eq!(sim.next(None).0, secs(3600));
    sim.pass(secs(10));
    let now = sim.now();
    sim.known.hangup(now);
    assert_eq!(sim.next(None).0, secs(0));
    assert_eq!(sim.step(&TokenRequest::Live, None), Step::Begin(Job::Refresh), "worth waiting for");
    // It was not mended: that is said again, and the pause is as long.
    let news = sim.run(Job::Refresh, outcome(Err(refused(40125))));
    assert!(matches!(&news[..], [News::Failed { pause, .. }] if *pause == secs(3600)), "{news:?}");
}

#[test]
fn what_was_mended_while_it_was_tried_is_tried_again_and_never_in_a_tight_loop() {
    let mut sim = Sim::on(Rules::Stable);
    for _ in 0..10 {
        sim.begin(Job::Refresh);
        for _ in 0..100 {
            let now = sim.now();
            sim.known.hangup(now);
        }
        sim.end(outcome(Err(refused(40125))));
        assert_eq!(sim.next(None), (SHORTEST_WAIT, Job::Refresh));
        sim.pass(SHORTEST_WAIT);
    }
    sim.run(Job::Refresh, outcome(Err(refused(40125))));
    assert_eq!(sim.next(None).0, secs(3600), "with the hangups it ends");
}

#[test]
fn of_trouble_on_this_machine_clients_learn_that_it_is_one() {
    let mut sim = Sim::on(Rules::Stable);
    let failure =
        || RefreshError::Local(anyhow::anyhow!("cannot write /var/lib/wxtoken/x: read-only"));
    let news = sim.run(Job::Refresh, outcome(Err(failure())));
    let [News::Failed { failure, .. }] = &news[..] else { panic!("{news:?}") };
    assert!(failure.contains("/var/lib"), "{failure}");
    let lack = given_up(sim.step(&TokenRequest::Live, None));
    assert!(lack.why.contains("on the server") && !lack.why.contains("/var/lib"), "{}", lack.why);
}

#[test]
fn wechat_is_not_asked_twice_within_a_second_though_what_it_gave_is_gone() {
    let mut sim = Sim::on(Rules::Classic);
    let renewed = Outcome::Renewed(sim.document("T1", 7200));
    sim.run(Job::Refresh, outcome(Ok(renewed)));
    let later = sim.now() + SHORTEST_WAIT;
    assert_eq!(sim.step(&TokenRequest::Live, None), Step::Wait(Some(later)));
    assert_eq!(sim.next(None).0, SHORTEST_WAIT);
    sim.pass(SHORTEST_WAIT);
    assert_eq!(sim.step(&TokenRequest::Live, None), Step::Begin(Job::Refresh));
    assert_eq!(sim.next(None).0, secs(0));
}

/// An SDK, or whoever would like the token to be replaced all the time.
#[test]
fn who_says_that_a_live_token_was_rejected_costs_three_probes_and_then_one_in_thirty_seconds() {
    let mut sim = Sim::on(Rules::Stable);
    let mut probes = 0;
    while sim.elapsed < secs(600) {
        for wish in [TokenRequest::OtherThan(token("T1")), TokenRequest::Verified] {
            match sim.step(&wish, Some("T1")) {
                Step::HandOut => {}
                Step::Begin(errand) => {
                    assert!(doubt(errand.clone()).is_probed);
                    probes += 1;
                    sim.begin(errand);
                    assert_eq!(sim.step(&wish, Some("T1")), Step::Wait(None), "{wish:?}");
                    sim.end(pulse(Liveness::Alive));
                    assert_eq!(sim.step(&wish, Some("T1")), Step::HandOut, "{wish:?}");
                }
                step => panic!("{step:?}"),
            }
        }
        sim.pass(Duration::from_millis(10));
    }
    assert!((20..=3 + 600 / 30).contains(&probes), "{probes}");
}

#[test]
fn where_nobody_can_tell_a_word_replaces_within_the_rations_and_a_hint_never() {
    for (rules, per_day) in [(Rules::Stable, 20), (Rules::Classic, 200), (Rules::Work, 200)] {
        let mut sim = Sim::on(rules);
        let (mut replaced, mut last) = (0, None::<Duration>);
        while sim.elapsed < secs(86_400) - secs(1) {
            let name = format!("T{replaced}");
            if let Step::Begin(errand) = sim.step(&TokenRequest::Verified, Some(&name)) {
                assert!(!doubt(errand.clone()).is_told);
                sim.run(errand, pulse(unknown()));
                assert_eq!(sim.step(&TokenRequest::Verified, Some(&name)), Step::HandOut, "a hint");
            }
            if let Step::Begin(errand) = sim.told(&name) {
                let doubt = doubt(errand.clone());
                assert!(doubt.is_told);
                if !doubt.may_force {
                    sim.run(errand, pulse(unknown()));
                    assert!(matches!(sim.told(&name), Step::GiveUp(_)));
                    continue;
                }
                replaced += 1;
                assert!(last.is_none_or(|last| sim.elapsed - last >= secs(30)));
                last = Some(sim.elapsed);
                let renewed = Outcome::Renewed(sim.document(&format!("T{replaced}"), 7200));
                sim.run(errand, Report { has_forced: true, ..outcome(Ok(renewed)) });
            }
            sim.pass(secs(1));
        }
        assert_eq!(replaced, per_day, "{rules:?}");
        let lack = given_up(sim.told(&format!("T{replaced}")));
        assert!(lack.why.contains("as often as a day allows"), "{}", lack.why);
    }
}

#[test]
fn a_dead_token_is_replaced_as_soon_as_the_rations_allow() {
    let mut sim = Sim::on(Rules::Stable);
    let Step::Begin(errand) = sim.told("T1") else { panic!() };
    let t2 = sim.document("T2", 7200);
    let report = Report { has_forced: true, ..outcome(Ok(Outcome::Renewed(t2.clone()))) };
    let news = sim.run(errand, Report { pulse: Some(Liveness::Dead), ..report });
    assert!(matches!(news[..], [News::Dead(_), News::Published(_)]), "{news:?}");
    assert!(!sim.known.is_dead(&token("T1")), "there is another now, and it is not remembered");

    sim.pass(secs(10));
    let Step::Begin(errand) = sim.told("T2") else { panic!() };
    assert!(!doubt(errand.clone()).may_force);
    let withheld = Err(RefreshError::Upstream(UpstreamError::Withheld));
    sim.run(errand, Report { pulse: Some(Liveness::Dead), ..outcome(withheld) });
    // It is nobody's answer; who asks is told when to ask again.
    let lack = given_up(sim.step(&TokenRequest::Live, Some("T2")));
    assert_eq!(lack.retry_after, secs(20));
    assert!(lack.why.contains("30 秒"), "{}", lack.why);
    assert_eq!(given_up(sim.told("T2")), lack);
    let (wait, errand) = sim.next(Some(&t2));
    assert_eq!((wait, doubt(errand).may_force), (secs(20), false));
    sim.pass(wait);
    let (wait, errand) = sim.next(Some(&t2));
    let expected = Doubt { token: token("T2"), is_probed: false, is_told: true, may_force: true };
    assert_eq!((wait, doubt(errand)), (secs(0), expected.clone()));
    assert_eq!(sim.step(&TokenRequest::Live, Some("T2")), Step::Begin(Job::Settle(expected)));
}

#[test]
fn a_dead_token_that_may_not_be_replaced_today_is_asked_about_where_that_costs_nothing() {
    let mut sim = Sim::on(Rules::Stable);
    sim.use_up_the_day();
    let document = sim.document("T20", 7200);
    sim.found_dead("T20");
    let confirmed = || outcome(Ok(Outcome::Confirmed(document.clone())));
    let mut questions = 0;
    let until = sim.elapsed + secs(3600);
    while sim.elapsed < until {
        let (wait, errand) = sim.next(Some(&document));
        sim.pass(wait);
        if wait.is_zero() {
            assert!(!doubt(errand.clone()).may_force);
            assert_eq!(sim.run(errand, confirmed()).len(), 1);
            questions += 1;
        }
        assert!(
            matches!(sim.step(&TokenRequest::Live, Some("T20")), Step::GiveUp(_)),
            "never at once"
        );
    }
    assert!((12..=13).contains(&questions), "{questions}");

    // Elsewhere every question counts, and the next one is that which is due.
    for rules in [Rules::Classic, Rules::Work] {
        let mut sim = Sim::on(rules);
        sim.use_up_the_day();
        sim.found_dead("T200");
        let document = sim.document("T200", 7200);
        assert_eq!(sim.next(Some(&document)), (secs(6900), Job::Refresh));
    }
}

/// As if another program had used up the 20 of a day: the good token can be had all the same.
#[test]
fn where_forcing_is_refused_the_schedule_goes_on_and_clients_hear_why() {
    let mut sim = Sim::on(Rules::Stable);
    let document = sim.document("T1", 7200);
    let Step::Begin(errand) = sim.told("T1") else { panic!("nobody asks") };
    let report = Report { was_forcing: true, ..outcome(Err(refused(45009))) };
    sim.run(errand, Report { pulse: Some(unknown()), ..report });
    assert_eq!(
        sim.step(&TokenRequest::Live, Some("T1")),
        Step::HandOut,
        "nobody knows that it is dead"
    );
    assert_eq!(sim.next(Some(&document)).0, secs(6900));
    assert_eq!(sim.known.failure(), None);

    sim.found_dead("T1");
    let lack = given_up(sim.step(&TokenRequest::Live, Some("T1")));
    assert!(lack.why.contains("45009") && lack.retry_after > secs(3000), "{lack:?}");
    assert!(sim.known.failure().is_some());
    let (wait, errand) = sim.next(Some(&document));
    assert!(wait <= SHORTEST_WAIT && !doubt(errand.clone()).may_force, "a plain question, at once");
    sim.run(errand, outcome(Ok(Outcome::Confirmed(document.clone()))));
    assert_eq!(sim.next(Some(&document)).0, secs(300), "and then now and then");
    sim.pass(secs(3600));
    assert!(doubt(sim.next(Some(&document)).1).may_force, "until forcing is worth another try");
}

#[test]
fn wecom_is_asked_rarely_while_it_gives_a_dead_token_again() {
    let mut sim = Sim::on(Rules::Work);
    let document = sim.document("T1", 7200);
    sim.found_dead("T1");
    let mut questions = 0;
    let until = sim.elapsed + secs(3600);
    while sim.elapsed < until {
        let (wait, errand) = sim.next(Some(&document));
        sim.pass(wait);
        if wait.is_zero() {
            let confirmed = outcome(Ok(Outcome::Confirmed(document.clone())));
            sim.run(errand, Report { has_forced: true, ..confirmed });
            questions += 1;
            let step = sim.step(&TokenRequest::Live, Some("T1"));
            assert!(matches!(step, Step::GiveUp(_)), "never at once: {step:?}");
        }
    }
    assert!((100..=121).contains(&questions), "{questions}");
}

#[test]
fn what_another_process_publishes_is_a_new_beginning() {
    let mut sim = Sim::on(Rules::Stable);
    sim.found_dead("T1");
    let document = sim.document("T2", 7200);
    assert_eq!(sim.next(Some(&document)), (secs(6900), Job::Refresh));
    assert_eq!(sim.step(&TokenRequest::OtherThan(token("T1")), Some("T2")), Step::HandOut);
    assert_eq!(sim.step(&TokenRequest::Verified, Some("T1")), {
        // T1 is not known to be dead any more: somebody put it back.
        let doubt = Doubt { token: token("T1"), is_probed: true, is_told: false, may_force: true };
        Step::Begin(Job::Settle(doubt))
    });
}

#[test]
fn a_hint_waits_for_nothing_but_what_answers_it() {
    let mut sim = Sim::on(Rules::Stable);
    sim.begin(Job::Refresh);
    assert_eq!(sim.step(&TokenRequest::Verified, Some("T1")), Step::HandOut);
    assert_eq!(sim.told("T1"), Step::Wait(None), "a word does");
    let confirmed = Outcome::Confirmed(sim.document("T1", 7200));
    sim.end(outcome(Ok(confirmed)));
    let Step::Begin(errand) = sim.told("T1") else { panic!("that was no answer") };
    sim.begin(errand);
    assert_eq!(sim.step(&TokenRequest::Verified, Some("T1")), Step::Wait(None));
}

/// Short lives, long margins, clocks that are set: how often WeChat is asked in an hour, if it answers each time.
#[test]
fn there_is_no_tight_loop_whatever_the_token_and_the_margin() {
    for (rules, margin, life, expected) in [
        (Rules::Stable, 300, 7200, 0..=1),
        (Rules::Classic, 300, 7200, 0..=1),
        // Asked for again it is the same: on stable until its last five minutes, on work until its end.
        (Rules::Stable, 9000, 7200, 11..=12),
        (Rules::Classic, 9000, 7200, 0..=1),
        (Rules::Stable, 300, 60, 200..=1000),
        (Rules::Classic, 300, 60, 100..=130),
        (Rules::Stable, 300, 1, 1800..=3600),
        (Rules::Classic, 300, 1, 1800..=3600),
        (Rules::Work, 9000, 7200, 11..=12),
        (Rules::Work, 300, 60, 60..=130),
    ] {
        let mut sim = Sim::with(rules, secs(margin));
        let mut document: Option<Document> = None;
        let mut asked = 0;
        while sim.elapsed < secs(3600) {
            let (wait, errand) = sim.next(document.as_ref());
            sim.pass(wait);
            if wait.is_zero() {
                let left = document.as_ref().map_or(secs(0), |document| document.left(sim.wall()));
                let given = match document.take() {
                    Some(document) if rules == Rules::Stable && left > secs(life.min(300) / 2) => {
                        Document { expires_in: left, created_at: sim.wall(), ..document }
                    }
                    Some(document) if rules == Rules::Work && !left.is_zero() => {
                        Document { expires_in: left, created_at: sim.wall(), ..document }
                    }
                    _ => sim.document(&format!("T{asked}"), life),
                };
                sim.run(errand, outcome(Ok(Outcome::Renewed(given.clone()))));
                document = Some(given);
                asked += 1;
            }
        }
        let asked = asked - 1; // The first.
        assert!(expected.contains(&asked), "{rules:?} {margin} {life}: {asked}");
    }
}

#[test]
fn a_clock_that_was_set_costs_one_question() {
    let mut sim = Sim::on(Rules::Classic);
    let from_tomorrow =
        Document { created_at: sim.wall() + secs(86_400), ..sim.document("T1", 7200) };
    let (wait, errand) = sim.next(Some(&from_tomorrow));
    assert_eq!(wait, secs(0));
    let document = sim.document("T2", 7200);
    sim.run(errand, outcome(Ok(Outcome::Renewed(document.clone()))));
    sim.pass(secs(5));
    assert_eq!(sim.next(Some(&document)).0, secs(6895));
}

#[test]
fn a_rejection_that_could_not_be_looked_into_is_looked_into_as_was_said() {
    for (later, is_dead) in [(Liveness::Alive, false), (Liveness::Dead, true)] {
        let mut sim = Sim::on(Rules::Stable);
        let document = sim.document("T1", 7200);
        let Step::Begin(errand) = sim.told("T1") else { panic!("it is looked into") };
        let failure = RefreshError::Upstream(UpstreamError::Status(502));
        let news = sim.run(errand, Report { pulse: Some(unknown()), ..outcome(Err(failure)) });
        let pause = news.iter().find_map(|news| match news {
            News::Failed { pause, .. } => Some(*pause),
            _ => None,
        });
        let pause = pause.expect("the failure is told, and when it is tried again");
        let (wait, errand) = sim.next(Some(&document));
        assert_eq!(wait, pause);
        assert!(matches!(&errand, Job::Settle(doubt) if doubt.is_probed), "{errand:?}");
        sim.pass(pause);
        let news = sim.run(errand, pulse(later));
        assert_eq!(news.contains(&News::WellAgain), !is_dead, "{news:?}");
        assert_eq!(sim.known.is_dead(&token("T1")), is_dead);
        assert_eq!(sim.known.failure().is_none(), !is_dead);
    }
}

#[test]
fn a_failure_that_somebody_else_got_over_is_no_news_for_long() {
    let mut sim = Sim::on(Rules::Stable);
    sim.begin(Job::Refresh);
    sim.end(outcome(Err(RefreshError::Upstream(UpstreamError::Status(502)))));
    let document = sim.document("T1", 7200);
    let (wait, errand) = sim.next(Some(&document));
    assert!(wait < secs(5), "{wait:?}");
    sim.pass(wait);
    let news = sim.run(errand, outcome(Ok(Outcome::Kept(document.clone()))));
    assert_eq!(news, [News::WellAgain]);
    assert!(sim.next(Some(&document)).0 > secs(6000));
}

/// Whoever replaces the token there is followed, whatever was asked here and however short the token's life is.
#[test]
fn a_mirror_is_asked_again_every_half_minute() {
    let mut sim = Sim::on(Rules::Mirror);
    let document = sim.document("T1", 7200);
    sim.run(Job::Refresh, outcome(Ok(Outcome::Renewed(document.clone()))));
    assert_eq!(sim.next(Some(&document)).0, secs(30));
    sim.pass(secs(10));
    let Step::Begin(errand) = sim.step(&TokenRequest::Verified, Some("T1")) else {
        panic!("nobody asks")
    };
    sim.run(errand, outcome(Err(RefreshError::Upstream(UpstreamError::Withheld))));
    sim.pass(secs(20));
    let next = sim.next(Some(&document));
    assert_eq!(next, (Duration::ZERO, Job::Refresh), "a hint does not put it off");
    let ending = sim.document("T1", 100);
    sim.run(Job::Refresh, outcome(Ok(Outcome::Confirmed(ending.clone()))));
    sim.pass(secs(30));
    assert_eq!(sim.next(Some(&ending)), (Duration::ZERO, Job::Refresh));
}
