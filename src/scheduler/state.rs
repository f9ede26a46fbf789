//! What is known of an account's token: the last probe, failures, quotas, the running job. Decides from that what to do
//! for a client and on schedule. Pure: time and random numbers come in, and jobs are run elsewhere.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use time::UtcDateTime;

use super::backoff;
use super::event::Event;
use super::job::{Job, JobReport, RejectedToken};
use super::quota::{ForcedQuota, ProbeQuota, QuotaExceeded};
use super::retry::{FailureRecord, Failures, Moment, Readiness, Retry};
use crate::model::api::Rules;
use crate::model::document::{Document, FRESH};
use crate::model::secret::Secret;
use crate::model::status::{RefreshFailure, RefreshStatus, TokenRequest, Unavailable};
use crate::os::timestamp::Timestamp;
use crate::refresh::{Outcome, RefreshError};
use crate::upstream::{Liveness, UpstreamError};

/// How long a probe's result answers further reports about the same token at once.
const PROBE_VALID: Duration = Duration::from_secs(1);

/// How long a probe that found the token alive counts while the probe quota is used up.
const PROBE_VALID_WITHOUT_QUOTA: Duration = Duration::from_secs(2 * 60);

/// Forced requests in a day. WeChat allows 20 on stable. Elsewhere each request counts as one, and this is a tenth of
/// classic's daily quota.
const FORCED_PER_DAY_ON_STABLE: usize = 20;
const FORCED_PER_DAY_ELSEWHERE: usize = 200;

/// The state of an account's token.
#[derive(Debug)]
pub(super) struct State {
    /// The account's name, for messages.
    name: String,
    rules: Rules,
    refresh_before: Duration,
    /// The running job.
    job: Option<Job>,
    retry: Retry,
    /// The failures of forced requests. Normal ones may succeed all the same.
    forced_failures: Failures,
    forced_quota: ForcedQuota,
    probe_quota: ProbeQuota,
    last_probe: Option<ProbeResult>,
    /// The token that WeChat says is dead.
    dead: Option<Secret>,
    /// The token that a client reported as rejected, while neither a probe nor another token could be had.
    unresolved: Option<Secret>,
    /// Whether the AppSecret has been read and not been compared yet with the one that got the published token.
    compares_secret: bool,
    /// Until then a token that is due is kept: it was due when WeChat issued it.
    not_before: Instant,
    succeeded_at: Option<UtcDateTime>,
    next_at: Option<UtcDateTime>,
    /// The number of requests by result: a word and the errcode.
    attempts: BTreeMap<(&'static str, i64), u64>,
}

#[derive(Debug)]
struct ProbeResult {
    token: Secret,
    is_alive: bool,
    at: Instant,
}

/// What to do next for a client that wants a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Hand out the published token.
    Serve,
    /// Wait for a change, or until then, and ask again.
    Wait(Option<Instant>),
    Start(Job),
    /// There is no token for now.
    Fail(Unavailable),
}

impl State {
    pub(super) fn new(name: &str, rules: Rules, refresh_before: Duration, now: Instant) -> State {
        let per_day = match rules {
            Rules::Stable => FORCED_PER_DAY_ON_STABLE,
            Rules::Classic | Rules::Work | Rules::Mirror => FORCED_PER_DAY_ELSEWHERE,
        };
        State {
            name: name.to_owned(),
            rules,
            refresh_before,
            job: None,
            retry: Retry::default(),
            forced_failures: Failures::default(),
            forced_quota: ForcedQuota::new(per_day),
            probe_quota: ProbeQuota::new(now),
            last_probe: None,
            dead: None,
            unresolved: None,
            compares_secret: false,
            not_before: now,
            succeeded_at: None,
            next_at: None,
            attempts: BTreeMap::new(),
        }
    }

    /// Whether WeChat has said that this token is dead. It is not handed out then, whatever life it has left.
    pub(super) fn is_dead(&self, token: &Secret) -> bool {
        self.dead.as_ref() == Some(token)
    }

    pub(super) fn is_running(&self) -> bool {
        self.retry.is_running()
    }

    /// Returns what to do for a client with this request. `current` is the published token, if it lives and is not dead.
    pub(super) fn step(
        &mut self,
        request: &TokenRequest,
        current: Option<&Secret>,
        now: Instant,
    ) -> Step {
        match (request, current) {
            (_, None) => self.replace_missing(now),
            (TokenRequest::Live, Some(_)) => Step::Serve,
            (TokenRequest::OtherThan(rejected), Some(current)) if rejected != current => {
                Step::Serve
            }
            (TokenRequest::OtherThan(_) | TokenRequest::New, Some(current)) => {
                self.resolve(current, true, now)
            }
            (TokenRequest::Verified, Some(current)) => self.resolve(current, false, now),
        }
    }

    /// Returns what to do while there is no token to hand out.
    fn replace_missing(&self, now: Instant) -> Step {
        match self.retry.readiness(now) {
            Readiness::Failed(failure) => Step::Fail(self.unavailable(failure, now)),
            Readiness::Running => Step::Wait(None),
            readiness => match (self.check_forced(now), readiness) {
                (Err(unavailable), _) if self.dead.is_some() => Step::Fail(unavailable),
                (_, Readiness::NotBefore(at)) => Step::Wait(Some(at)),
                _ => Step::Start(self.remedy(now)),
            },
        }
    }

    /// Returns what to do about the current token, which may be dead. If a client reported that WeChat rejected it
    /// (`is_reported`), that client gets it only once WeChat has accepted it.
    fn resolve(&mut self, current: &Secret, is_reported: bool, now: Instant) -> Step {
        let probe = self.last_probe.as_ref().filter(|probe| probe.token == *current);
        let probe = probe.map(|probe| (probe.is_alive, now.duration_since(probe.at)));
        let was_alive_within = |span| probe.is_some_and(|(is_alive, ago)| is_alive && ago < span);
        if was_alive_within(PROBE_VALID) {
            return Step::Serve;
        }
        if let Some(job) = &self.job {
            // A suspicion alone waits only for the job that answers it.
            let is_answer = matches!(job, Job::Resolve(rejected) if rejected.token == *current);
            return if is_reported || is_answer { Step::Wait(None) } else { Step::Serve };
        }
        if let (Some(failure), true) = (self.retry.failures.pending(now), is_reported) {
            return Step::Fail(self.unavailable(failure, now));
        }
        let was_probed = probe.is_some_and(|(_, ago)| ago < PROBE_VALID);
        let is_probed = !was_probed && self.probe_quota.take(now);
        if !is_probed && (!is_reported || was_alive_within(PROBE_VALID_WITHOUT_QUOTA)) {
            return Step::Serve;
        }
        match (is_probed, self.check_forced(now)) {
            (false, Err(unavailable)) => Step::Fail(unavailable),
            (_, may_force) => Step::Start(Job::Resolve(RejectedToken {
                token: current.clone(),
                is_probed,
                is_reported,
                may_force: may_force.is_ok(),
            })),
        }
    }

    /// Fails if no request is to be forced now.
    fn check_forced(&self, now: Instant) -> Result<(), Unavailable> {
        if let Some(failure) = self.forced_failures.pending(now) {
            return Err(self.unavailable(failure, now));
        }
        self.forced_quota.check(now).map_err(quota_exceeded)
    }

    /// Returns the job that can bring a token while there is none to hand out.
    fn remedy(&self, now: Instant) -> Job {
        let may_force = self.check_forced(now).is_ok();
        let (token, is_probed) = match (&self.dead, &self.unresolved) {
            // On stable a normal request costs nothing.
            (Some(dead), _) if may_force || self.rules == Rules::Stable => (dead, false),
            (None, Some(unresolved)) => (unresolved, true),
            _ => return Job::Refresh,
        };
        let token = token.clone();
        Job::Resolve(RejectedToken { token, is_probed, is_reported: true, may_force })
    }

    /// Returns the time until the next job by schedule, and the job. `document` is the published one.
    pub(super) fn next(
        &mut self,
        document: Option<&Document>,
        wall: Timestamp,
        now: Instant,
    ) -> (Duration, Job) {
        // Another process may have published another token.
        if document.is_some_and(|document| !self.is_dead(&document.token)) {
            self.dead = None;
        }
        if document.is_none_or(|document| self.unresolved.as_ref() != Some(&document.token)) {
            self.unresolved = None;
        }
        let until = |at: Instant| at.saturating_duration_since(now);
        let due_in = document
            .map(|document| backoff::until_due(document, wall, self.rules, self.refresh_before));
        let due_in = match due_in {
            None => Duration::ZERO,
            // The announced retry takes place. If nothing is due any more, it ends the failure.
            Some(_) if self.retry.failures.last().is_some() => Duration::ZERO,
            Some(_) if self.compares_secret => Duration::ZERO,
            // The token was due when WeChat issued it.
            Some(Duration::ZERO) => until(self.not_before),
            Some(due_in) => due_in,
        };
        let wait = match (self.dead.is_some(), self.check_forced(now)) {
            (false, _) => due_in,
            (true, Ok(())) => Duration::ZERO,
            // Until then it may expire, or be replaced at WeChat by another program.
            (true, Err(unavailable)) => unavailable.retry_after.min(match self.rules {
                Rules::Stable => until(self.not_before),
                Rules::Classic | Rules::Work | Rules::Mirror => due_in,
            }),
        };
        let wait = wait.max(self.retry.delay(now));
        self.next_at = Some(wall.plus(wait).wall);
        (wait, self.remedy(now))
    }

    fn unavailable(&self, failure: &FailureRecord, now: Instant) -> Unavailable {
        failure.unavailable(&format!("there is no good token: {}", self.name), now)
    }

    /// Notes that the AppSecret has been read. A job compares it with the one that got the published token.
    pub(super) fn note_secret(&mut self) {
        self.compares_secret = self.rules != Rules::Mirror;
    }

    /// Notes that a job starts. Returns whether it is the first since a reset.
    pub(super) fn start(&mut self, job: Job, now: Instant) -> bool {
        self.compares_secret = false;
        self.job = Some(job);
        self.retry.start(now)
    }

    /// Takes in the running job's report. Returns the events to log.
    pub(super) fn finish(&mut self, report: JobReport, at: Moment) -> Vec<Event> {
        let mut events = Vec::new();
        let Some(job) = self.job.take() else { return events };
        let was_reset = self.retry.finish();
        for attempt in report.attempts {
            *self.attempts.entry(attempt).or_default() += 1;
        }
        let probed = report.probed;
        events.extend(probed.map(|(token, liveness)| self.note_probe(token, liveness, at.now)));
        if let Job::Resolve(rejected) = job {
            if report.counts_as_forced {
                self.forced_quota.count(at.now);
            }
            let was_unresolved = self.unresolved.take().is_some();
            let is_alive = matches!(report.liveness, Some(Liveness::Alive));
            if was_unresolved && is_alive {
                events.extend(self.retry.failures.clear());
            }
            if rejected.is_reported && !is_alive && matches!(report.outcome, Some(Err(_))) {
                self.unresolved = Some(rejected.token.clone());
            }
            let probed = report.liveness;
            events.extend(probed.map(|liveness| self.note_probe(rejected.token, liveness, at.now)));
        }
        match report.outcome {
            None => {}
            Some(Ok(outcome)) => {
                if report.ended_forced {
                    self.forced_failures.clear();
                }
                events.extend(self.note_success(&outcome, at));
            }
            // WeChat issued the rejected token again.
            Some(Err(RefreshError::Upstream(UpstreamError::Withheld))) => {
                self.not_before = at.now + backoff::wait_after_same_token(self.rules);
            }
            Some(Err(error)) => {
                let failures = match report.ended_forced {
                    true => &mut self.forced_failures,
                    false => &mut self.retry.failures,
                };
                events.extend(failures.record(&error, error.retry_after(), at));
                // What the operator fixed meanwhile has not been tried yet.
                if was_reset {
                    self.retry.failures.allow_retry(at.now);
                    self.forced_failures.allow_retry(at.now);
                }
            }
        }
        events
    }

    fn note_probe(&mut self, token: Secret, liveness: Liveness, now: Instant) -> Event {
        let fingerprint = token.fingerprint();
        let (is_alive, event) = match liveness {
            Liveness::Dead => {
                self.dead = Some(token);
                return Event::Dead(fingerprint);
            }
            Liveness::Alive => (true, Event::Accepted(fingerprint)),
            Liveness::Unknown(why) => (false, Event::Unknown(why.to_string())),
        };
        self.last_probe = Some(ProbeResult { token, is_alive, at: now });
        event
    }

    fn note_success(&mut self, outcome: &Outcome, at: Moment) -> Vec<Event> {
        let mut events = Vec::new();
        let (Outcome::Kept(document) | Outcome::Renewed(document) | Outcome::Confirmed(document)) =
            outcome;
        let is_dead = self.is_dead(&document.token);
        if !is_dead {
            self.dead = None;
            events.extend(self.retry.failures.clear());
        }
        if !matches!(outcome, Outcome::Kept(_)) {
            self.succeeded_at = Some(at.wall.wall);
            events.push(Event::Published(format!("token {}", document.token.fingerprint())));
        }
        if self.rules == Rules::Mirror && !is_dead {
            // The document may be stale for its age alone: it stays as it was when it was confirmed.
            self.not_before = at.now + FRESH.min(document.left(at.wall));
        } else if is_dead || document.is_due(at.wall, self.rules, self.refresh_before) {
            let wait = backoff::wait_while_due(self.rules, document.left(at.wall));
            self.not_before = at.now + wait;
        }
        events
    }

    /// Lets everything be tried again at once, because the operator may have fixed the cause of a failure.
    pub(super) fn reset(&mut self, now: Instant) {
        self.not_before = now;
        self.retry.reset(now);
        self.forced_failures.allow_retry(now);
    }

    /// Returns the status for people and metrics, without that of the hook.
    pub(super) fn status(&self) -> RefreshStatus {
        let attempts = self.attempts.iter();
        RefreshStatus {
            succeeded_at: self.succeeded_at,
            next_at: self.next_at,
            attempts: attempts.map(|((word, errcode), count)| (*word, *errcode, *count)).collect(),
            hook: None,
        }
    }

    /// Returns the last failure, if no success followed.
    pub(super) fn failure(&self) -> Option<RefreshFailure> {
        // A failure to force counts only while a dead token has to be replaced.
        let forced = self.forced_failures.last().filter(|_| self.dead.is_some());
        self.retry.failures.last().or(forced).map(FailureRecord::status)
    }
}

fn quota_exceeded(exceeded: QuotaExceeded) -> Unavailable {
    let (why, retry_after) = match exceeded {
        QuotaExceeded::TooSoon(rest) => (
            "another token was asked for moments ago, and that is done once in 30 seconds at most; ask again then. \
             30 秒内已强制刷新过，请稍后再试。",
            rest,
        ),
        QuotaExceeded::DayUsedUp(rest) => (
            "tokens were replaced on demand as often as a day allows; who kills them? \
             当日强制刷新次数已用完，请查明是谁在使 token 失效。",
            rest,
        ),
    };
    Unavailable { why: why.to_owned(), retry_after }
}

#[cfg(test)]
mod tests;
