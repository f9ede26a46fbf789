//! Decisions over simulated days.

mod dead_tokens;
mod doubts;
mod failures;
mod probes;

use super::*;
use crate::model::errcode::{CallKind, Platform, Refusal};
use crate::model::status::{ClientIdentity, Suspicion, TokenEvidence, TokenRequest, Witness};
use crate::scheduler::backoff::MIN_INTERVAL;
use crate::scheduler::event::WhyAsked;
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

    /// The request that a mirror's job about a token makes: its source probes the token.
    fn attempt_of_mirror(&mut self, job: Job) -> Attempt {
        self.start(job);
        let now = self.now();
        self.state.attempt(now).expect("a request")
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
