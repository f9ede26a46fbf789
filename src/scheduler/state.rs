//! What is known of an account's token: the last probe, doubts, failures, quotas, the running job. Decides from that what to do for a
//! client ([`State::step`]) and on schedule ([`State::next`]). Pure: time and random numbers come in, and jobs run elsewhere.

mod doubt;
mod liveness;
pub(super) mod messages;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use time::UtcDateTime;

use super::backoff;
use super::event::Event;
use super::job::{Job, JobReport, ProbeKind, RejectedToken};
use super::quota::{Certainty, ForcedQuota, ProbeQuota, QuotaExceeded, RenewalQuota};
use super::retry::{FailureRecord, Failures, Moment, Readiness, Retry};
use crate::model::api::Rules;
use crate::model::document::{Document, FRESH};
use crate::model::secret::Secret;
use crate::model::status::{RefreshFailure, RefreshStatus, TokenDemand, Unavailable, Witness};
use crate::os::timestamp::Timestamp;
use crate::refresh::trouble::TroubleCause;
use crate::refresh::{Outcome, RefreshError};
use crate::sabotage::{Bug, has_bug};
use crate::upstream::{Liveness, UpstreamError};
use doubt::Doubt;
use liveness::ProbeResult;

/// How many requests are forced in a day at most. On stable WeChat allows 20. Elsewhere each request on demand counts as forced; 200 are a
/// tenth of classic's daily quota.
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
    /// How certain it is that the token is dead that the running job replaces.
    certainty: Certainty,
    retry: Retry,
    /// The failures of forced requests. Normal ones may succeed all the same.
    forced_failures: Failures,
    forced_quota: ForcedQuota,
    renewal_quota: RenewalQuota,
    probe_quota: ProbeQuota,
    last_probe: Option<ProbeResult>,
    /// The published token, if WeChat has called it dead.
    dead: Option<Secret>,
    /// The last token that WeChat has called dead, published or replaced.
    last_dead: Option<Secret>,
    /// Whether, and since when, clients say that the published token is dead and WeChat cannot tell.
    doubt: Option<Doubt>,
    /// Whether the next job has to compare the AppSecret, which was read anew, with the one that got the published token.
    compares_secret: bool,
    /// A token that is due is kept until then, because it was due when WeChat issued it.
    not_before: Instant,
    /// WeChat is expected to issue the dead token again until then.
    same_until: Instant,
    succeeded_at: Option<UtcDateTime>,
    next_at: Option<UtcDateTime>,
    /// The number of requests by result: a word and the errcode.
    attempts: BTreeMap<(&'static str, i64), u64>,
}

/// What to do next for a client that wants a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Hand out the published token.
    Serve,
    /// Wait for a change, or until this instant, and call [`State::step`] again.
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
            certainty: Certainty::Reported,
            retry: Retry::default(),
            forced_failures: Failures::default(),
            forced_quota: ForcedQuota::new(per_day),
            renewal_quota: RenewalQuota::new(now),
            probe_quota: ProbeQuota::new(now),
            last_probe: None,
            dead: None,
            last_dead: None,
            doubt: None,
            compares_secret: false,
            not_before: now,
            same_until: now,
            succeeded_at: None,
            next_at: None,
            attempts: BTreeMap::new(),
        }
    }

    /// Whether WeChat has called this published token dead.
    pub(super) fn is_dead(&self, token: &Secret) -> bool {
        self.dead.as_ref() == Some(token) && !has_bug(Bug::DeadTokenHandedOut)
    }

    /// Whether this is the last token that WeChat has called dead, published or replaced.
    pub(super) fn was_found_dead(&self, token: &str) -> bool {
        self.last_dead.as_ref().is_some_and(|dead| dead.is(token))
    }

    pub(super) fn is_running(&self) -> bool {
        self.retry.is_running()
    }

    /// Returns what to do for a client with this demand. `current` is the published token, if it lives and is not dead.
    pub(super) fn step(
        &mut self,
        demand: &TokenDemand,
        current: Option<&Secret>,
        now: Instant,
    ) -> Step {
        match (demand, current) {
            (_, None) => self.replace_missing(now),
            (TokenDemand::Live, Some(_)) => Step::Serve,
            (
                TokenDemand::OtherThan(rejected, _) | TokenDemand::OtherThanRefused(rejected, ..),
                Some(current),
            ) if rejected != current => Step::Serve,
            (TokenDemand::OtherThan(_, witness), Some(current)) => {
                self.resolve_report(current, witness, None, now)
            }
            (TokenDemand::OtherThanRefused(_, client, at), Some(current)) => {
                self.resolve_report(current, &Witness::Client(client.clone()), Some(*at), now)
            }
            (TokenDemand::Verified(client, suspicion), Some(current)) => {
                self.resolve_suspicion(current, client, *suspicion, now)
            }
        }
    }

    /// Returns what to do while there is no token to hand out.
    fn replace_missing(&mut self, now: Instant) -> Step {
        let may_replace = self.check_replacement(now);
        match self.retry.readiness(now) {
            Readiness::Failed(failure) => Step::Fail(self.unavailable(failure, now)),
            Readiness::Running => Step::Wait(None),
            readiness => match (may_replace, readiness) {
                (Err(unavailable), _) if self.dead.is_some() => Step::Fail(unavailable),
                (_, Readiness::NotBefore(at)) => Step::Wait(Some(at)),
                _ => Step::Start(self.remedy(now)),
            },
        }
    }

    /// Fails if the quotas allow no replacement of a dead token now.
    fn check_replacement(&mut self, now: Instant) -> Result<(), Unavailable> {
        self.renewal_quota.check(now)?;
        self.check_forced(Certainty::Known, now)
    }

    /// Fails if the quota allows no forced request now, or if the last one failed a short time ago.
    fn check_forced(&self, certainty: Certainty, now: Instant) -> Result<(), Unavailable> {
        if let Some(failure) = self.forced_failures.pending(now) {
            return Err(self.unavailable(failure, now));
        }
        self.forced_quota.check(certainty, now).map_err(Unavailable::from)
    }

    /// Returns the job that can bring a token while there is none to hand out.
    fn remedy(&self, now: Instant) -> Job {
        match &self.dead {
            // On stable this job begins with a normal request, which costs nothing.
            Some(dead)
                if self.rules == Rules::Stable
                    || self.check_forced(Certainty::Known, now).is_ok() =>
            {
                let (token, probe) = (dead.clone(), ProbeKind::None);
                Job::Resolve(RejectedToken { token, probe, is_reported: true, client: None })
            }
            _ => Job::Refresh,
        }
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
        let doubt = self.doubt.take().filter(|doubt| !doubt.is_over(now));
        self.doubt =
            doubt.filter(|doubt| document.is_some_and(|document| document.token == doubt.token));
        let until = |at: Instant| at.saturating_duration_since(now);
        let due_in = document
            .map(|document| backoff::until_due(document, wall, self.rules, self.refresh_before));
        let is_due = due_in.is_none_or(|due_in| due_in.is_zero());
        let has_failed = self.retry.failures.last().is_some();
        let due_in = match due_in {
            None => Duration::ZERO,
            // The retry that was announced takes place. If nothing is due any more, it ends the failure.
            Some(_) if has_failed => Duration::ZERO,
            Some(_) if self.compares_secret => Duration::ZERO,
            // The token was due when WeChat issued it.
            Some(Duration::ZERO) => until(self.not_before),
            Some(due_in) => due_in,
        };
        let renewal = self.renewal_quota.check(now);
        let wait = match (self.dead.is_some(), renewal, self.check_forced(Certainty::Known, now)) {
            (false, ..) => due_in,
            (true, Err(unavailable), _) => unavailable.retry_after,
            (true, Ok(()), Ok(())) => Duration::ZERO,
            // Meanwhile the token may expire, or be replaced at WeChat by another program.
            (true, Ok(()), Err(unavailable)) => unavailable.retry_after.min(match self.rules {
                Rules::Stable => until(self.not_before.max(self.same_until)),
                Rules::Classic | Rules::Work | Rules::Mirror => due_in,
            }),
        };
        // A token that is due is replaced, dead or not, and a doubt about it does not matter.
        let doubt = self.doubt.as_ref().filter(|_| !is_due && self.dead.is_none());
        let probe_in = doubt.and_then(|doubt| match has_failed {
            true => doubt.has_failed.then_some(Duration::ZERO),
            false => Some(until(doubt.probe_at)).filter(|probe_in| *probe_in < wait),
        });
        let (wait, job) = match (doubt, probe_in) {
            (Some(doubt), Some(probe_in)) => {
                let (token, probe) = (doubt.token.clone(), ProbeKind::Scheduled);
                let rejected = RejectedToken { token, probe, is_reported: true, client: None };
                (probe_in, Job::Resolve(rejected))
            }
            _ => (wait, self.remedy(now)),
        };
        let wait = wait.max(self.retry.delay(now));
        self.next_at = Some(wall.plus(wait).wall);
        (wait, job)
    }

    fn unavailable(&self, failure: &FailureRecord, now: Instant) -> Unavailable {
        failure.unavailable(|cause| messages::FOR_WANT_OF_TOKEN.with([cause, &self.name]), now)
    }

    /// Notes that the AppSecret was read anew. The next job compares it with the one that got the published token.
    pub(super) fn note_secret(&mut self) {
        self.compares_secret = self.rules != Rules::Mirror;
    }

    /// Notes that a job starts. Returns whether it is the first since a reset.
    pub(super) fn start(&mut self, job: Job, now: Instant) -> bool {
        // Only a refresh surely compares it: a job that begins with a probe may end there.
        self.compares_secret &= job != Job::Refresh;
        self.job = Some(job);
        self.retry.start(now)
    }

    /// Takes in the running job's report. Returns the events to log.
    pub(super) fn finish(&mut self, report: JobReport, at: Moment) -> Vec<Event> {
        let mut events = Vec::new();
        // A mirror's source has probed the token.
        if let (Rules::Mirror, Some(Job::Resolve(rejected))) = (self.rules, &self.job) {
            let token = rejected.token.clone();
            let liveness = match &report.outcome {
                Some(Ok(Outcome::Confirmed(_))) => Some(Liveness::Alive),
                Some(Err(RefreshError::Upstream(UpstreamError::Withheld))) => {
                    Some(Liveness::Unknown(UpstreamError::Withheld))
                }
                _ => None,
            };
            if let Some(liveness) = liveness {
                events.extend(self.note_liveness(token, liveness, at.now));
            }
        }
        let Some(job) = self.job.take() else { return events };
        let is_asked = job == Job::Refresh || !report.attempts.is_empty();
        let was_reset = self.retry.finish(is_asked);
        for attempt in &report.attempts {
            *self.attempts.entry(*attempt).or_default() += 1;
        }
        if let Job::Resolve(rejected) = job {
            if report.counts_as_forced {
                self.forced_quota.count(self.certainty, at.now);
            }
            let is_renewed = matches!(report.outcome, Some(Ok(Outcome::Renewed(_))));
            if self.rules == Rules::Stable && is_renewed && !report.counts_as_forced {
                self.renewal_quota.count();
                events.extend(
                    self.renewal_quota.check(at.now).err().map(|it| Event::Rationed(it.why)),
                );
            }
            events.extend(self.note_resolved(&rejected, &report, at.now));
        }
        match report.outcome {
            None => {}
            Some(Ok(outcome)) => {
                if report.ended_forced {
                    self.forced_failures.clear();
                }
                events.extend(self.note_success(&outcome, at));
            }
            // WeChat issued the rejected token again, and no forced request was allowed.
            Some(Err(RefreshError::Upstream(UpstreamError::Withheld))) => match self.rules {
                // The mirrored wxtoken may have another one at any time.
                Rules::Mirror => self.not_before = at.now,
                // A token that is due is replaced on schedule all the same.
                Rules::Stable | Rules::Classic | Rules::Work => {
                    self.same_until = at.now + backoff::WAIT_AFTER_SAME_TOKEN;
                }
            },
            Some(Err(error)) => {
                let failures = match report.ended_forced {
                    true => &mut self.forced_failures,
                    false => &mut self.retry.failures,
                };
                events.extend(failures.record(&error, error.retry_after(), at));
                // This attempt began before the reset: what the operator fixed has not been tried yet.
                if was_reset {
                    self.retry.failures.allow_retry(at.now);
                    self.forced_failures.allow_retry(at.now);
                }
            }
        }
        events
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
            // A confirmed document stays as it was, and is stale by its age alone.
            self.not_before = at.now + FRESH.min(document.left(at.wall));
        } else if is_dead || document.is_due(at.wall, self.rules, self.refresh_before) {
            let wait = backoff::wait_while_due(self.rules, document.left(at.wall));
            self.not_before = at.now + wait;
        }
        events
    }

    /// Lets everything be tried again at once, because the operator may have fixed the cause of a failure.
    pub(super) fn reset(&mut self, now: Instant) {
        (self.not_before, self.same_until) = (now, now);
        if let Some(doubt) = &mut self.doubt {
            doubt.probe_at = now;
        }
        self.retry.reset(now);
        self.forced_failures.allow_retry(now);
    }

    /// Returns the status for people and metrics, without the status of hooks.
    pub(super) fn status(&self) -> RefreshStatus {
        let attempts = self.attempts.iter();
        RefreshStatus {
            succeeded_at: self.succeeded_at,
            next_at: self.next_at,
            attempts: attempts.map(|((word, errcode), count)| (*word, *errcode, *count)).collect(),
            hook: None,
            trouble_hook: None,
        }
    }

    /// Returns the last failure, if no success followed.
    pub(super) fn failure(&self) -> Option<RefreshFailure> {
        self.last_failure().map(FailureRecord::status)
    }

    /// Returns what `on_trouble` is told of the last failure, if no success followed; or else of a dead token that cannot be replaced today.
    /// The inner `None` is a failure that says nothing of the token itself.
    pub(super) fn cause(&self, now: Instant) -> Option<Option<TroubleCause>> {
        let failed = self.last_failure().map(FailureRecord::cause);
        failed.or_else(|| match self.forced_quota.check(Certainty::Known, now) {
            Err(used_up @ QuotaExceeded::DayUsedUp(_)) if self.dead.is_some() => {
                Some(Some(TroubleCause::lasting(Unavailable::from(used_up).why)))
            }
            _ => None,
        })
    }

    fn last_failure(&self) -> Option<&FailureRecord> {
        // A failure to force counts only while a dead token has to be replaced.
        let forced = self.forced_failures.last().filter(|_| self.dead.is_some());
        self.retry.failures.last().or(forced)
    }
}

#[cfg(test)]
mod tests;
