//! Decisions over simulated days.

use super::*;
use crate::model::errcode::{CallKind, Platform, Refusal};
use crate::model::status::{ClientIdentity, Suspicion, TokenRequest, Witness};
use crate::scheduler::backoff::MIN_INTERVAL;
use crate::scheduler::job::Attempt;
use crate::scheduler::quota::ProbeReason;

/// The state of an account, and the time.
struct SimulatedAccount {
    state: State,
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

/// The report of a job that only refreshed.
fn outcome(outcome: Result<Outcome, RefreshError>) -> JobReport {
    JobReport { outcome: Some(outcome), ..JobReport::default() }
}

/// A client with a key of this name.
fn client(name: &str) -> ClientIdentity {
    ClientIdentity::Key(name.into())
}

/// The demand of a client that asks again.
fn verified() -> TokenDemand {
    TokenDemand::Verified(client("sdk"), Suspicion::AsksAgain)
}

/// The demand of a client that reports this token as rejected.
fn other_than(rejected: &str, by: &str) -> TokenDemand {
    TokenDemand::OtherThan(token(rejected), Witness::Client(client(by)))
}

fn unknown() -> Liveness {
    Liveness::Unknown(UpstreamError::Status(502))
}

impl SimulatedAccount {
    fn on(rules: Rules) -> SimulatedAccount {
        SimulatedAccount::with(rules, secs(300))
    }

    fn with(rules: Rules, refresh_before: Duration) -> SimulatedAccount {
        let start = Instant::now();
        let state = State::new("shop", rules, refresh_before, start);
        SimulatedAccount { state, start, elapsed: Duration::ZERO }
    }

    fn now(&self) -> Instant {
        self.start + self.elapsed
    }

    fn wall(&self) -> Timestamp {
        Timestamp::of_wall(UtcDateTime::UNIX_EPOCH + secs(1_800_000_000) + self.elapsed)
    }

    fn pass(&mut self, span: Duration) {
        self.elapsed += span;
    }

    /// The document of a token that is issued now.
    fn document(&self, name: &str, life: u64) -> Document {
        Document::new("wx1", token(name), secs(life), self.wall())
    }

    fn step(&mut self, demand: &TokenDemand, current: Option<&str>) -> Step {
        let current = current.map(token).filter(|token| !self.state.is_dead(token));
        let now = self.now();
        self.state.step(demand, current.as_ref(), now)
    }

    /// The step for a client that reports this token, the published one, as rejected.
    fn report(&mut self, name: &str) -> Step {
        self.report_of("one", name)
    }

    fn report_of(&mut self, by: &str, name: &str) -> Step {
        self.step(&other_than(name, by), Some(name))
    }

    fn next(&mut self, document: Option<&Document>) -> (Duration, Job) {
        let (wall, now) = (self.wall(), self.now());
        self.state.next(document, wall, now)
    }

    fn start(&mut self, job: Job) {
        let now = self.now();
        self.state.start(job, now);
    }

    fn finish(&mut self, report: JobReport) -> Vec<Event> {
        let (wall, now) = (self.wall(), self.now());
        self.state.finish(report, Moment { wall, now, random: 0 })
    }

    /// A job that starts and ends now.
    fn run(&mut self, job: Job, report: JobReport) -> Vec<Event> {
        self.start(job);
        self.finish(report)
    }

    /// A job starts now, and its probe says this. Returns the events, and the request that the job makes then.
    fn probe(&mut self, job: Job, liveness: Liveness) -> (Vec<Event>, Option<Attempt>) {
        let RejectedToken { token, probe, .. } = rejected(job.clone());
        assert_ne!(probe, ProbeKind::None);
        self.start(job);
        let now = self.now();
        let events = self.state.note_liveness(token, liveness, now);
        (events, self.state.attempt(now))
    }

    /// The request that a job makes without a probe.
    fn attempt(&mut self, job: Job) -> Option<Attempt> {
        assert!(!matches!(&job, Job::Resolve(rejected) if rejected.probe != ProbeKind::None));
        self.start(job);
        let now = self.now();
        self.state.attempt(now)
    }

    /// A job ends after its probe, without a request.
    fn end(&mut self) -> Vec<Event> {
        self.finish(JobReport::default())
    }

    /// The running job ends with another token, by a forced request.
    fn replace(&mut self, with: &str) -> Vec<Event> {
        let renewed = Outcome::Renewed(self.document(with, 7200));
        self.finish(JobReport { counts_as_forced: true, ..outcome(Ok(renewed)) })
    }

    /// A report leads to a probe that finds the token dead, and no other can be requested.
    fn found_dead(&mut self, name: &str) {
        self.pass(secs(30));
        let Step::Start(job) = self.report(name) else { panic!("no job") };
        self.probe(job, Liveness::Dead);
        self.end();
        assert!(self.state.is_dead(&token(name)));
    }

    /// Reports about dead tokens lead to forced requests until the daily quota is used up.
    fn use_up_the_day(&mut self, per_day: usize) {
        for n in 0..per_day {
            let Step::Start(job) = self.report(&format!("T{n}")) else { panic!("no job") };
            let (_, attempt) = self.probe(job, Liveness::Dead);
            assert!(attempt.expect("a request").may_force);
            self.replace(&format!("T{}", n + 1));
            self.pass(secs(30));
        }
    }
}

#[track_caller]
fn rejected(job: Job) -> RejectedToken {
    match job {
        Job::Resolve(rejected) => rejected,
        Job::Refresh => panic!("it is about no token"),
    }
}

#[track_caller]
fn failed(step: Step) -> Unavailable {
    match step {
        Step::Fail(unavailable) => unavailable,
        step => panic!("{step:?}"),
    }
}

#[test]
fn clients_without_a_token_all_wait_for_one_job() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    assert_eq!(sim.step(&TokenDemand::Live, None), Step::Start(Job::Refresh));
    sim.start(Job::Refresh);
    for demand in [TokenDemand::Live, verified(), other_than("T1", "one")] {
        assert_eq!(sim.step(&demand, None), Step::Wait(None));
    }
    let renewed = Outcome::Renewed(sim.document("T1", 7200));
    assert_eq!(
        sim.finish(outcome(Ok(renewed))),
        [Event::Published(format!("token {}", token("T1").fingerprint()))]
    );
    assert_eq!(sim.step(&TokenDemand::Live, Some("T1")), Step::Serve);
}

#[test]
fn after_a_failure_clients_get_it_at_once_until_a_refresh_succeeds() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    let events = sim.run(Job::Refresh, outcome(Err(refused(-1))));
    assert!(
        matches!(&events[..], [Event::Failed { pause, .. }] if *pause == secs(2)),
        "{events:?}"
    );
    let unavailable = failed(sim.step(&TokenDemand::Live, None));
    assert_eq!(unavailable.retry_after, secs(2));
    assert!(
        unavailable.why.contains("shop") && unavailable.why.contains("系统繁忙"),
        "{}",
        unavailable.why
    );
    assert_eq!(sim.next(None), (secs(2), Job::Refresh));

    // The same failure again is not logged, and the pause is longer. Clients get it all the same, also during the retry.
    sim.pass(secs(2));
    assert_eq!(sim.run(Job::Refresh, outcome(Err(refused(-1)))), []);
    assert_eq!(sim.next(None).0, secs(4));
    sim.pass(secs(4));
    sim.start(Job::Refresh);
    let during = failed(sim.step(&TokenDemand::Live, None)).retry_after;
    assert_eq!(during, Unavailable::DURING_ATTEMPT, "not at once, again and again");

    let renewed = Outcome::Renewed(sim.document("T1", 7200));
    let events = sim.finish(outcome(Ok(renewed)));
    assert_eq!(events[0], Event::Recovered);
    assert_eq!(sim.state.failure(), None);
    assert_eq!(sim.step(&TokenDemand::Live, Some("T1")), Step::Serve);
}

#[test]
fn the_same_failure_is_logged_every_ten_minutes() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    let mut lines = 0;
    while sim.elapsed < secs(3600) {
        lines += sim.run(Job::Refresh, outcome(Err(refused(-1)))).len();
        let (wait, _) = sim.next(None);
        sim.pass(wait);
    }
    assert!((5..=6).contains(&lines), "{lines}");
}

#[test]
fn a_failure_withholds_a_live_token_only_from_a_client_that_reported_it() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    sim.run(Job::Refresh, outcome(Err(refused(-1))));
    assert_eq!(sim.step(&TokenDemand::Live, Some("T1")), Step::Serve);
    let unavailable = failed(sim.report("T1"));
    assert!(
        unavailable.why.contains("系统繁忙"),
        "there is no other token for the client: {}",
        unavailable.why
    );
}

#[test]
fn what_a_person_must_fix_is_retried_rarely_and_at_once_after_a_reset() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    sim.run(Job::Refresh, outcome(Err(refused(40125))));
    assert_eq!(sim.next(None).0, secs(3600));
    sim.pass(secs(10));
    let now = sim.now();
    sim.state.reset(now);
    assert_eq!(sim.next(None).0, secs(0));
    assert_eq!(
        sim.step(&TokenDemand::Live, None),
        Step::Start(Job::Refresh),
        "a retry is worth waiting for"
    );
    // It was not fixed: the failure is logged again, with the same pause.
    let events = sim.run(Job::Refresh, outcome(Err(refused(40125))));
    assert!(
        matches!(&events[..], [Event::Failed { pause, .. }] if *pause == secs(3600)),
        "{events:?}"
    );
}

#[test]
fn a_reset_during_a_job_leads_to_another_one_a_second_later() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    for _ in 0..10 {
        sim.start(Job::Refresh);
        for _ in 0..100 {
            let now = sim.now();
            sim.state.reset(now);
        }
        sim.finish(outcome(Err(refused(40125))));
        assert_eq!(sim.next(None), (MIN_INTERVAL, Job::Refresh));
        sim.pass(MIN_INTERVAL);
    }
    sim.run(Job::Refresh, outcome(Err(refused(40125))));
    assert_eq!(sim.next(None).0, secs(3600), "no further reset");
}

#[test]
fn clients_get_nothing_of_this_machine_and_the_log_gets_all() {
    let refusal = || Refusal::new(40013, "no", CallKind::RequestsToken, Platform::Official);
    let [detail, wait] =
        ["/opt/wx/wxtoken fetch --force --config /etc/x.toml shop", "10.1.2.3:3128"];
    let (until, at_once) = (UtcDateTime::UNIX_EPOCH, || detail.to_owned());
    let hour = secs(3600);
    let upstream = RefreshError::Upstream;
    let unreachable = || UpstreamError::unreachable(format!("no route ({wait})"), true, true);
    let central = UpstreamError::Central {
        what: format!("Check it. cannot reach it [{wait}]"),
        is_lasting: false,
        was_reached: false,
    };
    for (failure, hidden, told) in [
        (
            RefreshError::Local(anyhow::anyhow!("cannot write {detail}")),
            detail,
            "it has a local fault",
        ),
        (
            upstream(UpstreamError::StillRefused {
                refusal: refusal(),
                until,
                wait: hour,
                at_once: at_once(),
            }),
            detail,
            "(40013)",
        ),
        (
            upstream(UpstreamError::Rationed { lost: 30, until, wait: hour, at_once: at_once() }),
            detail,
            "30 answers",
        ),
        (upstream(unreachable()), wait, "it cannot reach WeChat"),
        (upstream(central), wait, "it cannot reach the wxtoken"),
        (
            RefreshError::AnswerLost { error: unreachable(), ends_at: until },
            wait,
            "The answer may be lost",
        ),
    ] {
        let mut sim = SimulatedAccount::on(Rules::Stable);
        let events = sim.run(Job::Refresh, outcome(Err(failure)));
        let [Event::Failed { message, .. }] = &events[..] else { panic!("{events:?}") };
        assert!(message.contains(hidden), "{message}");
        let unavailable = failed(sim.step(&TokenDemand::Live, None));
        for text in [unavailable.why, sim.state.failure().expect("it failed").message] {
            assert!(text.contains(told) && !text.contains(hidden), "{text}");
        }
    }
}

#[test]
fn no_two_jobs_start_within_a_second_though_the_document_is_gone() {
    let mut sim = SimulatedAccount::on(Rules::Classic);
    let renewed = Outcome::Renewed(sim.document("T1", 7200));
    sim.run(Job::Refresh, outcome(Ok(renewed)));
    let later = sim.now() + MIN_INTERVAL;
    assert_eq!(sim.step(&TokenDemand::Live, None), Step::Wait(Some(later)));
    assert_eq!(sim.next(None).0, MIN_INTERVAL);
    sim.pass(MIN_INTERVAL);
    assert_eq!(sim.step(&TokenDemand::Live, None), Step::Start(Job::Refresh));
    assert_eq!(sim.next(None).0, secs(0));
}

/// As by an SDK with a bug, or a client that wants the token to be replaced all the time.
#[test]
fn repeated_reports_about_a_live_token_cost_five_probes_and_then_two_a_minute() {
    for demand in [other_than("T1", "one"), verified()] {
        let mut sim = SimulatedAccount::on(Rules::Stable);
        let mut probes = 0;
        while sim.elapsed < secs(600) {
            match sim.step(&demand, Some("T1")) {
                Step::Serve => {}
                Step::Start(job) => {
                    probes += 1;
                    let (_, attempt) = sim.probe(job, Liveness::Alive);
                    assert_eq!(attempt, None);
                    assert_eq!(sim.step(&demand, Some("T1")), Step::Serve, "{demand:?}");
                    sim.end();
                    assert_eq!(sim.step(&demand, Some("T1")), Step::Serve, "{demand:?}");
                }
                step => panic!("{step:?}"),
            }
            sim.pass(Duration::from_millis(10));
        }
        assert!((20..=5 + 600 / 30).contains(&probes), "{probes}");
    }
}

/// A verdict used to hold for half a minute after a start: that of the workers had used up the probes.
#[test]
fn a_token_that_dies_just_after_workers_have_started_is_probed_at_the_next_suspicion_and_report() {
    for demand in [other_than("T1", "sdk"), verified()] {
        let mut sim = SimulatedAccount::on(Rules::Stable);
        // Fifty workers start within three seconds, with one key.
        for _ in 0..50 {
            if let Step::Start(job) = sim.step(&verified(), Some("T1")) {
                sim.probe(job, Liveness::Alive);
                sim.end();
            }
            sim.pass(Duration::from_millis(60));
        }
        sim.pass(secs(1));
        let Step::Start(job) = sim.step(&demand, Some("T1")) else { panic!("{demand:?}: no job") };
        sim.probe(job, Liveness::Dead);
        assert!(sim.state.is_dead(&token("T1")));
    }
}

/// Clients that keep no token ask all the time, and use up the probes for that.
#[test]
fn a_client_that_insists_has_a_probe_when_those_for_clients_that_ask_again_are_used_up() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    while let Step::Start(job) = sim.step(&verified(), Some("T1")) {
        sim.probe(job, Liveness::Alive);
        sim.end();
        sim.pass(secs(1));
    }
    let insisting = TokenDemand::Verified(client("sdk"), Suspicion::Insists);
    let Step::Start(job) = sim.step(&insisting, Some("T1")) else { panic!("no job") };
    let (_, attempt) = sim.probe(job, unknown());
    assert_eq!(attempt, None, "it is no report that names the token");
}

#[test]
fn a_report_of_a_dead_token_is_probed_at_once_whatever_one_other_client_does() {
    for demand in [other_than("T1", "liar"), verified()] {
        let mut sim = SimulatedAccount::on(Rules::Classic);
        for _ in 0..600 {
            if let Step::Start(job) = sim.step(&demand, Some("T1")) {
                sim.probe(job, Liveness::Alive);
                sim.end();
            }
            sim.pass(secs(1));
        }
        sim.pass(secs(1));
        let Step::Start(job) = sim.report_of("honest", "T1") else { panic!("{demand:?}: no job") };
        let (_, attempt) = sim.probe(job, Liveness::Dead);
        assert!(attempt.expect("a request").may_force);
    }
}

/// A token that was honoured a moment ago is no reason to wait for longer.
#[test]
fn a_report_for_which_no_probe_is_left_waits_for_the_next_one_and_about_an_unknown_token_for_one_of_the_servers_own()
 {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    let waits = (0..20).find_map(|n| match sim.report_of(&format!("client {n}"), "T1") {
        Step::Start(job) => {
            sim.probe(job, Liveness::Alive);
            sim.end();
            sim.pass(secs(1));
            None
        }
        Step::Wait(until) => until,
        step => panic!("{step:?}"),
    });
    let until = waits.expect("the probes are used up") - sim.now();
    assert!(!until.is_zero() && until < secs(5), "{until:?}");
    // Of this one nothing is known.
    let Step::Wait(Some(until)) = sim.report_of("another", "T2") else { panic!("no wait") };
    assert_eq!(until - sim.now(), secs(5));
}

#[test]
fn under_the_reports_of_ten_liars_a_report_is_probed_within_five_seconds() {
    let mut sim = SimulatedAccount::on(Rules::Classic);
    for _ in 0..60 {
        for n in 0..10 {
            if let Step::Start(job) = sim.report_of(&format!("liar {n}"), "T1") {
                sim.probe(job, Liveness::Alive);
                sim.end();
            }
        }
        sim.pass(secs(1));
    }
    let waits = (0..=5).find(|_| match sim.report_of("honest", "T1") {
        Step::Start(_) => true,
        Step::Serve => panic!("another client's probe answers no report that comes later"),
        _ => {
            sim.pass(secs(1));
            false
        }
    });
    assert!(waits.is_some());
}

#[test]
fn the_verdict_of_a_probe_counts_while_the_request_for_another_token_goes_on() {
    for rules in [Rules::Stable, Rules::Classic, Rules::Work] {
        let mut sim = SimulatedAccount::on(rules);
        let Step::Start(job) = sim.report("T1") else { panic!("no job") };
        let (events, attempt) = sim.probe(job, Liveness::Dead);
        assert!(matches!(events[..], [Event::Dead(_)]), "{events:?}");
        assert!(attempt.is_some());
        for demand in [TokenDemand::Live, verified(), other_than("T1", "another")] {
            assert_eq!(sim.step(&demand, Some("T1")), Step::Wait(None), "{rules:?} {demand:?}");
        }
        sim.replace("T2");
        assert_eq!(sim.step(&TokenDemand::Live, Some("T2")), Step::Serve);
    }
}

#[test]
fn while_probes_cannot_tell_one_client_alone_has_no_token_replaced() {
    for rules in [Rules::Stable, Rules::Classic, Rules::Work] {
        let mut sim = SimulatedAccount::on(rules);
        let document = sim.document("T1", 7200);
        let (mut probes, mut requests, mut told) = (0, 0, 0);
        while sim.elapsed < secs(6000) {
            let (wait, job) = sim.next(Some(&document));
            let step = match (sim.report("T1"), wait.is_zero()) {
                (Step::Start(job), _) => Step::Start(job),
                (_, true) => Step::Start(job),
                (step, false) => step,
            };
            match step {
                Step::Start(job) => {
                    let attempt = match rejected(job.clone()).probe {
                        ProbeKind::None => sim.attempt(job),
                        _ => {
                            probes += 1;
                            sim.probe(job, unknown()).1
                        }
                    };
                    let events = match attempt {
                        None => sim.end(),
                        Some(attempt) => {
                            assert!(!attempt.may_force, "{rules:?}");
                            assert_ne!(rules, Rules::Classic, "a request would be a mint");
                            requests += 1;
                            sim.finish(JobReport {
                                counts_as_forced: rules == Rules::Work,
                                ..match rules {
                                    Rules::Work => {
                                        outcome(Ok(Outcome::Confirmed(document.clone())))
                                    }
                                    _ => {
                                        let withheld = UpstreamError::Withheld;
                                        outcome(Err(RefreshError::Upstream(withheld)))
                                    }
                                }
                            })
                        }
                    };
                    told += events
                        .iter()
                        .filter(|event| matches!(event, Event::Unproven { .. }))
                        .count();
                }
                Step::Fail(unavailable) => {
                    let is_quota = unavailable.why.contains("30 seconds");
                    let is_unproven = unavailable.why.contains("one client");
                    assert!(is_unproven || is_quota, "{}", unavailable.why);
                    assert!(unavailable.retry_after >= secs(1), "{unavailable:?}");
                    assert!(!unavailable.why.contains("T1"));
                }
                Step::Wait(Some(_)) => {}
                step => panic!("{step:?}"),
            }
            assert_eq!(sim.step(&TokenDemand::Live, Some("T1")), Step::Serve, "{rules:?}");
            sim.pass(secs(1));
        }
        assert!((100..=5 + 6000 / 30).contains(&probes), "{rules:?}: {probes}");
        assert!(requests <= probes, "{rules:?}: {requests}");
        assert_eq!(told, 1, "{rules:?}: the operator learns of it once");
    }
}

#[test]
fn while_probes_cannot_tell_two_clients_or_wechat_itself_have_a_token_replaced() {
    for rules in [Rules::Stable, Rules::Classic] {
        for second in [Witness::Client(client("two")), Witness::WeChat] {
            let mut sim = SimulatedAccount::on(rules);
            let Step::Start(job) = sim.report_of("one", "T1") else { panic!("no job") };
            let (_, attempt) = sim.probe(job, unknown());
            assert!(attempt.is_none_or(|attempt| !attempt.may_force), "{rules:?}");
            sim.end();
            sim.pass(secs(60));
            let demand = TokenDemand::OtherThan(token("T1"), second);
            let Step::Start(job) = sim.step(&demand, Some("T1")) else { panic!("no job") };
            let (_, attempt) = sim.probe(job, unknown());
            assert!(attempt.expect("a request").may_force, "{rules:?}");
            sim.replace("T2");
            assert_eq!(sim.step(&demand, Some("T2")), Step::Serve);
        }
    }
}

#[test]
fn reports_that_come_during_a_probe_that_cannot_tell_count_together() {
    let mut sim = SimulatedAccount::on(Rules::Classic);
    let Step::Start(job) = sim.report_of("one", "T1") else { panic!("no job") };
    sim.start(job);
    assert_eq!(sim.report_of("two", "T1"), Step::Wait(None));
    let now = sim.now();
    sim.state.note_liveness(token("T1"), unknown(), now);
    assert!(sim.state.attempt(now).expect("a request").may_force);
}

#[test]
fn while_probes_cannot_tell_clients_use_up_a_quarter_of_a_days_forced_requests_at_most() {
    for (rules, expected) in [(Rules::Stable, 5), (Rules::Classic, 50), (Rules::Work, 50)] {
        let mut sim = SimulatedAccount::on(rules);
        let (mut replaced, mut last) = (0, None::<Duration>);
        while sim.elapsed < secs(86_400) - secs(1) {
            let name = format!("T{replaced}");
            if let Step::Start(job) = sim.step(&verified(), Some(&name)) {
                let (_, attempt) = sim.probe(job, unknown());
                assert_eq!(attempt, None, "a suspicion");
                sim.end();
                assert_eq!(sim.step(&verified(), Some(&name)), Step::Serve);
            }
            for by in ["one", "two"] {
                let Step::Start(job) = sim.report_of(by, &name) else { continue };
                let attempt = match rejected(job.clone()).probe {
                    ProbeKind::None => sim.attempt(job),
                    _ => sim.probe(job, unknown()).1,
                };
                let is_forced = attempt.as_ref().is_some_and(|it| it.may_force)
                    || (rules == Rules::Work && attempt.is_some());
                match is_forced {
                    true => {
                        assert!(last.is_none_or(|last| sim.elapsed - last >= secs(30)));
                        last = Some(sim.elapsed);
                        replaced += 1;
                        sim.replace(&format!("T{replaced}"));
                        break;
                    }
                    false => drop(sim.end()),
                }
            }
            sim.pass(secs(1));
        }
        assert_eq!(replaced, expected, "{rules:?}");
        sim.found_dead(&format!("T{replaced}"));
        assert!(sim.state.check_forced(Certainty::Known, sim.now()).is_ok(), "{rules:?}");
    }
}

/// As if WeChat takes more time than a client can wait.
#[test]
fn a_doubt_is_probed_again_on_schedule_and_ends_with_what_wechat_says() {
    for (later, is_dead) in [(Liveness::Alive, false), (Liveness::Dead, true)] {
        let mut sim = SimulatedAccount::on(Rules::Classic);
        let document = sim.document("T1", 7200);
        let Step::Start(job) = sim.report("T1") else { panic!("no job") };
        sim.probe(job, unknown());
        sim.end();
        let (wait, job) = sim.next(Some(&document));
        assert_eq!((wait, rejected(job.clone()).probe), (secs(5), ProbeKind::Scheduled));
        sim.pass(wait);
        let (_, attempt) = sim.probe(job, later);
        assert_eq!(attempt.is_some_and(|attempt| attempt.may_force), is_dead);
        sim.end();
        let (wait, job) = sim.next(Some(&document));
        match is_dead {
            true => assert!(wait <= MIN_INTERVAL && matches!(job, Job::Resolve(_))),
            false => assert_eq!((wait, job), (secs(6895), Job::Refresh)),
        }
    }
}

#[test]
fn a_doubt_without_further_reports_ends_after_ten_minutes() {
    let mut sim = SimulatedAccount::on(Rules::Classic);
    let document = sim.document("T1", 7200);
    let Step::Start(job) = sim.report("T1") else { panic!("no job") };
    sim.probe(job, unknown());
    sim.end();
    let mut probes = 0;
    while sim.elapsed < secs(3600) {
        let (wait, job) = sim.next(Some(&document));
        sim.pass(wait.max(secs(1)).min(secs(15)));
        if wait.is_zero() && matches!(job, Job::Resolve(_)) {
            sim.probe(job, unknown());
            sim.end();
            probes += 1;
        }
    }
    assert!((5..=8).contains(&probes), "{probes}");
}

#[test]
fn a_token_that_is_due_is_replaced_on_schedule_whatever_is_said_of_it() {
    let mut sim = SimulatedAccount::on(Rules::Classic);
    let document = sim.document("T1", 7200);
    sim.pass(secs(6898));
    let Step::Start(job) = sim.report("T1") else { panic!("no job") };
    sim.probe(job, unknown());
    sim.end();
    sim.pass(secs(2));
    assert_eq!(sim.next(Some(&document)), (secs(0), Job::Refresh));
    assert_eq!(sim.attempt(Job::Refresh).map(|it| it.request), Some(TokenRequest::Live));
    sim.end();
    sim.pass(secs(300));
    assert_eq!(sim.step(&other_than("T1", "one"), None), Step::Start(Job::Refresh), "expired");
}

#[test]
fn a_report_that_cannot_be_verified_does_not_move_the_refresh_of_a_token_that_is_due() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    let document = sim.document("T1", 7200);
    sim.pass(secs(6898));
    let Step::Start(job) = sim.report("T1") else { panic!("no job") };
    sim.probe(job, unknown());
    sim.finish(outcome(Err(RefreshError::Upstream(UpstreamError::Withheld))));
    sim.pass(secs(2));
    assert_eq!(sim.next(Some(&document)), (secs(0), Job::Refresh));
}

#[test]
fn a_probe_leaves_what_an_operator_asked_for_to_the_next_request() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    let document = sim.document("T1", 7200);
    sim.pass(secs(100));
    let now = sim.now();
    sim.state.reset(now);
    sim.state.note_secret();
    let Step::Start(job) = sim.step(&verified(), Some("T1")) else { panic!("no job") };
    sim.probe(job, Liveness::Alive);
    sim.finish(JobReport::default());
    sim.pass(secs(1));
    assert_eq!(sim.next(Some(&document)), (secs(0), Job::Refresh), "the AppSecret is compared");
    let now = sim.now();
    assert!(sim.state.start(Job::Refresh, now), "WeChat is asked in spite of a remembered refusal");
}

#[test]
fn a_dead_token_is_replaced_as_soon_as_the_quota_allows() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    let Step::Start(job) = sim.report("T1") else { panic!("no job") };
    let t2 = sim.document("T2", 7200);
    let (events, _) = sim.probe(job, Liveness::Dead);
    assert!(matches!(events[..], [Event::Dead(_)]), "{events:?}");
    let events = sim.replace("T2");
    assert!(matches!(events[..], [Event::Published(_)]), "{events:?}");
    assert!(!sim.state.is_dead(&token("T1")), "T2 is published now");

    sim.pass(secs(10));
    let Step::Start(job) = sim.report("T2") else { panic!("no job") };
    let (_, attempt) = sim.probe(job, Liveness::Dead);
    assert!(!attempt.expect("a normal request").may_force);
    let withheld = Err(RefreshError::Upstream(UpstreamError::Withheld));
    sim.finish(outcome(withheld));
    // It is not handed out; clients learn when to ask again.
    let unavailable = failed(sim.step(&TokenDemand::Live, Some("T2")));
    assert_eq!(unavailable.retry_after, secs(20));
    assert!(unavailable.why.contains("30 秒"), "{}", unavailable.why);
    assert_eq!(failed(sim.report("T2")), unavailable);
    let (wait, job) = sim.next(Some(&t2));
    assert_eq!(wait, secs(20));
    assert!(!sim.attempt(job).expect("a request").may_force);
    sim.finish(outcome(Err(RefreshError::Upstream(UpstreamError::Withheld))));
    sim.pass(wait);
    let (wait, job) = sim.next(Some(&t2));
    assert_eq!(wait, secs(0));
    assert_eq!(sim.step(&TokenDemand::Live, Some("T2")), Step::Start(job.clone()));
    let request = TokenRequest::OtherThan(token("T2"));
    let expected = Attempt { request, may_force: true, dead: Some(token("T2")) };
    assert_eq!(sim.attempt(job), Some(expected));
}

#[test]
fn with_the_daily_quota_used_up_normal_requests_are_sent_for_a_dead_token_only_if_they_cost_nothing()
 {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    sim.use_up_the_day(20);
    let document = sim.document("T20", 7200);
    sim.found_dead("T20");
    let confirmed = || outcome(Ok(Outcome::Confirmed(document.clone())));
    let mut requests = 0;
    let until = sim.elapsed + secs(3600);
    while sim.elapsed < until {
        let (wait, job) = sim.next(Some(&document));
        sim.pass(wait);
        if wait.is_zero() {
            assert!(!sim.attempt(job).expect("a normal request").may_force);
            assert_eq!(sim.finish(confirmed()).len(), 1);
            requests += 1;
        }
        assert!(
            matches!(sim.step(&TokenDemand::Live, Some("T20")), Step::Fail(_)),
            "not handed out"
        );
    }
    assert!((12..=13).contains(&requests), "{requests}");

    // On other APIs every request counts. The next one is sent when the token is due.
    for rules in [Rules::Classic, Rules::Work] {
        let mut sim = SimulatedAccount::on(rules);
        sim.use_up_the_day(200);
        sim.found_dead("T200");
        let document = sim.document("T200", 7200);
        assert_eq!(sim.next(Some(&document)), (secs(6900), Job::Refresh));
    }
}

/// As if another program had used up the 20 forced requests of the day. Normal requests succeed all the same.
#[test]
fn a_dead_token_that_cannot_be_replaced_today_is_trouble_and_one_that_can_in_a_moment_is_not() {
    let mut account = SimulatedAccount::on(Rules::Stable);
    assert_eq!(account.state.cause(account.now()), None);
    account.use_up_the_day(FORCED_PER_DAY_ON_STABLE - 1);
    account.found_dead("T1");
    assert_eq!(account.state.cause(account.now()), None);
    account.use_up_the_day(1);
    account.found_dead("T1");
    let cause = account.state.cause(account.now()).flatten().expect("a cause");
    assert!(cause.message.contains("as often as a day allows"), "{}", cause.message);
    let mut account = SimulatedAccount::on(Rules::Stable);
    account.use_up_the_day(FORCED_PER_DAY_ON_STABLE);
    assert_eq!(account.state.cause(account.now()), None, "the last token is good");
}

#[test]
fn while_forced_requests_fail_the_schedule_goes_on_and_clients_get_the_reason() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    let document = sim.document("T1", 7200);
    let Step::Start(job) = sim.report("T1") else { panic!("no job") };
    sim.start(job);
    sim.report_of("another", "T1");
    let now = sim.now();
    sim.state.note_liveness(token("T1"), unknown(), now);
    assert!(sim.state.attempt(now).expect("a request").may_force);
    sim.finish(JobReport { ended_forced: true, ..outcome(Err(refused(45009))) });
    assert_eq!(
        sim.step(&TokenDemand::Live, Some("T1")),
        Step::Serve,
        "nothing says that it is dead"
    );
    assert_eq!(sim.next(Some(&document)).0, secs(5), "it is probed again");
    assert_eq!(sim.state.failure(), None);

    sim.found_dead("T1");
    let unavailable = failed(sim.step(&TokenDemand::Live, Some("T1")));
    assert!(
        unavailable.why.contains("45009") && unavailable.retry_after > secs(3000),
        "{unavailable:?}"
    );
    assert!(sim.state.failure().is_some());
    let (wait, job) = sim.next(Some(&document));
    assert!(wait <= MIN_INTERVAL);
    assert!(!sim.attempt(job).expect("a normal request, at once").may_force);
    sim.finish(outcome(Ok(Outcome::Confirmed(document.clone()))));
    assert_eq!(sim.next(Some(&document)).0, secs(300), "then every five minutes");
    sim.pass(secs(3600));
    let (_, job) = sim.next(Some(&document));
    assert!(sim.attempt(job).expect("the retry of the forced one").may_force);
}

#[test]
fn while_wecom_issues_a_dead_token_again_a_request_is_sent_every_thirty_seconds() {
    let mut sim = SimulatedAccount::on(Rules::Work);
    let document = sim.document("T1", 7200);
    sim.found_dead("T1");
    let mut requests = 0;
    let until = sim.elapsed + secs(3600);
    while sim.elapsed < until {
        let (wait, job) = sim.next(Some(&document));
        sim.pass(wait);
        if wait.is_zero() {
            let confirmed = outcome(Ok(Outcome::Confirmed(document.clone())));
            assert!(sim.attempt(job).is_some());
            sim.finish(JobReport { counts_as_forced: true, ..confirmed });
            requests += 1;
            let step = sim.step(&TokenDemand::Live, Some("T1"));
            assert!(matches!(step, Step::Fail(_)), "not handed out: {step:?}");
        }
    }
    assert!((100..=121).contains(&requests), "{requests}");
}

#[test]
fn a_token_published_by_another_process_ends_what_is_known_of_the_dead_one() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    sim.found_dead("T1");
    let document = sim.document("T2", 7200);
    assert_eq!(sim.next(Some(&document)), (secs(6900), Job::Refresh));
    assert_eq!(sim.step(&other_than("T1", "one"), Some("T2")), Step::Serve);
    assert_eq!(sim.step(&verified(), Some("T1")), {
        // T1 is published again, and not known to be dead any more.
        let rejected = RejectedToken {
            token: token("T1"),
            probe: ProbeKind::Awaited,
            is_reported: false,
            client: Some((client("sdk"), ProbeReason::Suspicion)),
        };
        Step::Start(Job::Resolve(rejected))
    });
}

#[test]
fn a_suspicion_waits_only_for_a_job_that_answers_it() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    sim.start(Job::Refresh);
    assert_eq!(sim.step(&verified(), Some("T1")), Step::Serve);
    assert_eq!(sim.report("T1"), Step::Wait(None), "a report waits for any job");
    let confirmed = Outcome::Confirmed(sim.document("T1", 7200));
    sim.finish(outcome(Ok(confirmed)));
    let Step::Start(job) = sim.report("T1") else { panic!("no job") };
    sim.start(job);
    assert_eq!(sim.step(&verified(), Some("T1")), Step::Wait(None));
}

/// Short lifetimes and long margins: how many requests are sent in an hour, if each succeeds.
#[test]
fn requests_are_bounded_for_every_lifetime_and_margin() {
    for (rules, margin, life, expected) in [
        (Rules::Stable, 300, 7200, 0..=1),
        (Rules::Classic, 300, 7200, 0..=1),
        // WeChat issues the same token again: on stable until its last five minutes, on work until its end.
        (Rules::Stable, 9000, 7200, 11..=12),
        (Rules::Classic, 9000, 7200, 0..=1),
        (Rules::Stable, 300, 60, 200..=1000),
        (Rules::Classic, 300, 60, 100..=130),
        (Rules::Stable, 300, 1, 1800..=3600),
        (Rules::Classic, 300, 1, 1800..=3600),
        (Rules::Work, 9000, 7200, 11..=12),
        (Rules::Work, 300, 60, 60..=130),
    ] {
        let mut sim = SimulatedAccount::with(rules, secs(margin));
        let mut document: Option<Document> = None;
        let mut requests = 0;
        while sim.elapsed < secs(3600) {
            let (wait, job) = sim.next(document.as_ref());
            sim.pass(wait);
            if wait.is_zero() {
                let left = document.as_ref().map_or(secs(0), |document| document.left(sim.wall()));
                let issued = match document.take() {
                    Some(document) if rules == Rules::Stable && left > secs(life.min(300) / 2) => {
                        Document { expires_in: left, created_at: sim.wall(), ..document }
                    }
                    Some(document) if rules == Rules::Work && !left.is_zero() => {
                        Document { expires_in: left, created_at: sim.wall(), ..document }
                    }
                    _ => sim.document(&format!("T{requests}"), life),
                };
                sim.run(job, outcome(Ok(Outcome::Renewed(issued.clone()))));
                document = Some(issued);
                requests += 1;
            }
        }
        let requests = requests - 1; // Without the first.
        assert!(expected.contains(&requests), "{rules:?} {margin} {life}: {requests}");
    }
}

#[test]
fn a_document_from_the_future_costs_one_request() {
    let mut sim = SimulatedAccount::on(Rules::Classic);
    let from_tomorrow =
        Document { created_at: sim.wall().plus(secs(86_400)), ..sim.document("T1", 7200) };
    let (wait, job) = sim.next(Some(&from_tomorrow));
    assert_eq!(wait, secs(0));
    let document = sim.document("T2", 7200);
    sim.run(job, outcome(Ok(Outcome::Renewed(document.clone()))));
    sim.pass(secs(5));
    assert_eq!(sim.next(Some(&document)).0, secs(6895));
}

#[test]
fn a_report_that_could_not_be_resolved_is_resolved_at_the_announced_retry() {
    for (later, is_dead) in [(Liveness::Alive, false), (Liveness::Dead, true)] {
        let mut sim = SimulatedAccount::on(Rules::Stable);
        let document = sim.document("T1", 7200);
        let Step::Start(job) = sim.report("T1") else { panic!("no job") };
        sim.probe(job, unknown());
        let failure = RefreshError::Upstream(UpstreamError::Status(502));
        let events = sim.finish(outcome(Err(failure)));
        let pause = events.iter().find_map(|event| match event {
            Event::Failed { pause, .. } => Some(*pause),
            _ => None,
        });
        let pause = pause.expect("the failure is logged, and when it is retried");
        let (wait, job) = sim.next(Some(&document));
        assert_eq!(wait, pause);
        sim.pass(pause);
        let (mut events, _) = sim.probe(job, later);
        events.extend(sim.end());
        assert_eq!(events.contains(&Event::Recovered), !is_dead, "{events:?}");
        assert_eq!(sim.state.is_dead(&token("T1")), is_dead);
        assert_eq!(sim.state.failure().is_none(), !is_dead);
    }
}

#[test]
fn a_failure_ends_at_the_announced_retry_if_another_process_has_published() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    sim.start(Job::Refresh);
    sim.finish(outcome(Err(RefreshError::Upstream(UpstreamError::Status(502)))));
    let document = sim.document("T1", 7200);
    let (wait, job) = sim.next(Some(&document));
    assert!(wait < secs(5), "{wait:?}");
    sim.pass(wait);
    let events = sim.run(job, outcome(Ok(Outcome::Kept(document.clone()))));
    assert_eq!(events, [Event::Recovered]);
    assert!(sim.next(Some(&document)).0 > secs(6000));
}

/// The token may be replaced at the source at any time, whatever happened here and however short its lifetime is.
#[test]
fn a_mirror_asks_its_source_every_half_minute() {
    let mut sim = SimulatedAccount::on(Rules::Mirror);
    let document = sim.document("T1", 7200);
    sim.run(Job::Refresh, outcome(Ok(Outcome::Renewed(document.clone()))));
    assert_eq!(sim.next(Some(&document)).0, secs(30));
    sim.pass(secs(10));
    let Step::Start(job) = sim.step(&verified(), Some("T1")) else { panic!("no job") };
    sim.run(job, outcome(Err(RefreshError::Upstream(UpstreamError::Withheld))));
    sim.pass(secs(20));
    let next = sim.next(Some(&document));
    assert_eq!(next, (Duration::ZERO, Job::Refresh), "a suspicion does not delay it");
    let ending = sim.document("T1", 100);
    sim.run(Job::Refresh, outcome(Ok(Outcome::Confirmed(ending.clone()))));
    sim.pass(secs(30));
    assert_eq!(sim.next(Some(&ending)), (Duration::ZERO, Job::Refresh));
}

/// By WeChat's rules a normal request brings another token only after one was forced. An upstream that mints at each request,
/// and calls each token dead, must not be asked as often as clients call.
#[test]
fn an_upstream_that_issues_dead_tokens_is_asked_for_few() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    let mut published = 0;
    let (mut served, mut rationed) = (0, 0);
    for _ in 0..3600 {
        sim.pass(secs(1));
        let name = format!("T{published}");
        match sim.report(&name) {
            Step::Start(job) => {
                let (_, attempt) = match &job {
                    Job::Resolve(rejected) if rejected.probe != ProbeKind::None => {
                        sim.probe(job, Liveness::Dead)
                    }
                    _ => (Vec::new(), sim.attempt(job)),
                };
                match attempt {
                    Some(_) => {
                        published += 1;
                        let renewed =
                            Outcome::Renewed(sim.document(&format!("T{published}"), 7200));
                        let events = sim.finish(outcome(Ok(renewed)));
                        rationed +=
                            events.iter().filter(|it| matches!(it, Event::Rationed(_))).count();
                    }
                    None => drop(sim.end()),
                }
            }
            Step::Fail(unavailable) => {
                assert!(unavailable.retry_after <= secs(30), "{unavailable:?}");
                assert!(unavailable.why.contains("base_url"), "{unavailable:?}");
                let document = sim.document(&name, 7200);
                let (wait, _) = sim.next(Some(&document));
                assert!(wait > Duration::ZERO && wait <= secs(30), "{wait:?}");
            }
            _ => served += 1,
        }
    }
    assert!((120..=20 + 120).contains(&published), "{published}");
    assert!(rationed > 0 && served < 3600);
}

/// Another program forces tokens as often as WeChat allows. Each time a normal request brings the new one.
#[test]
fn tokens_that_another_program_forces_are_taken_over_each_time() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    for n in 0..20 {
        sim.pass(secs(30));
        let Step::Start(job) = sim.report(&format!("T{n}")) else { panic!("no job: {n}") };
        assert!(sim.probe(job, Liveness::Dead).1.is_some(), "{n}");
        let renewed = Outcome::Renewed(sim.document(&format!("T{}", n + 1), 7200));
        sim.finish(outcome(Ok(renewed)));
    }
}

/// The gateway itself has seen that WeChat refuses the token. That WeChat honoured it a moment before says nothing.
#[test]
fn a_refusal_that_was_seen_counts_for_more_than_an_older_verdict() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    let refused = |sim: &SimulatedAccount| {
        TokenDemand::OtherThanRefused(token("T1"), client("one"), sim.now())
    };
    let Step::Start(job) = sim.report("T1") else { panic!("no job") };
    sim.probe(job, Liveness::Alive);
    sim.end();
    sim.pass(Duration::from_millis(1));
    assert_eq!(sim.report("T1"), Step::Serve, "a client's word is older than it comes");
    let first = refused(&sim);
    let Step::Start(job) = sim.step(&first, Some("T1")) else { panic!("no job") };
    let second = refused(&sim);
    sim.start(job.clone());
    assert_eq!(sim.step(&second, Some("T1")), Step::Wait(None));
    sim.pass(Duration::from_millis(1));
    let now = sim.now();
    sim.state.note_liveness(token("T1"), Liveness::Alive, now);
    sim.end();
    for demand in [first, second] {
        assert_eq!(sim.step(&demand, Some("T1")), Step::Serve, "one probe is for all before it");
    }
}

#[test]
fn a_probe_that_finds_a_token_dead_costs_the_client_that_reported_it_nothing() {
    let mut account = SimulatedAccount::on(Rules::Stable);
    for n in 0..50 {
        account.pass(secs(1));
        let Step::Start(job) = account.report(&format!("T{n}")) else { panic!("no probe of T{n}") };
        account.probe(job, Liveness::Dead);
        account.end();
    }
}

#[test]
fn the_last_dead_token_is_forgotten_once_wechat_honours_it_and_only_then() {
    let mut account = SimulatedAccount::on(Rules::Stable);
    let now = account.now();
    account.state.note_liveness(token("T0"), Liveness::Dead, now);
    account.state.note_liveness(token("T1"), Liveness::Alive, now);
    assert!(account.state.was_found_dead("T0"));
    account.state.note_liveness(token("T0"), Liveness::Alive, now);
    assert!(!account.state.was_found_dead("T0"));
}

#[test]
fn a_report_that_has_no_token_replaced_costs_none_of_the_replacements() {
    let mut account = SimulatedAccount::on(Rules::Stable);
    let Step::Start(job) = account.report("T0") else { panic!("no probe") };
    for _ in 0..50 {
        account.run(job.clone(), JobReport::default());
    }
    let now = account.now();
    assert!(account.state.renewal_quota.check(now).is_ok());
}
