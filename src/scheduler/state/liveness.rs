//! Whether the published token is alive: what to do about a report or a suspicion, what a probe says, and whether another token may be
//! requested. A part of [`State`].

use std::time::{Duration, Instant};

use super::doubt::{self, Doubt};
use super::{State, Step, messages};
use crate::model::api::Rules;
use crate::model::secret::Secret;
use crate::model::status::{ClientIdentity, Suspicion, TokenEvidence, TokenRequest, Witness};
use crate::refresh::{Outcome, RefreshError};
use crate::sabotage::{Bug, has_bug};
use crate::scheduler::event::{Event, WhyAsked};
use crate::scheduler::job::{Attempt, Job, JobReport, ProbeKind, RejectedToken};
use crate::scheduler::quota::{Certainty, ProbeReason, ProbeRefusal};
use crate::upstream::{Liveness, UpstreamError};

/// How long the result of a probe answers further reports about the same token at once.
const PROBE_VALID: Duration = Duration::from_secs(1);

/// How long the result of a probe counts for a client whose own probes are used up.
const PROBE_VALID_WITHOUT_QUOTA: Duration = Duration::from_secs(60);

/// The result of a probe.
#[derive(Debug)]
pub(super) struct ProbeResult {
    token: Secret,
    /// `Ok` if the token is alive; else why that is unknown, for clients. A dead token is in [`State::dead`].
    alive: Result<(), String>,
    at: Instant,
}

impl State {
    /// Returns what is known of this token from asking WeChat lately.
    pub(in crate::scheduler) fn evidence(&self, token: &Secret, now: Instant) -> TokenEvidence {
        match self.recent_probe(token, PROBE_VALID_WITHOUT_QUOTA, now) {
            Some(ProbeResult { alive: Ok(()), at, .. }) => TokenEvidence::Honoured(*at),
            Some(ProbeResult { alive: Err(_), .. }) => TokenEvidence::InDoubt,
            None => TokenEvidence::None,
        }
    }

    /// Returns what to do for a client that behaves as if WeChat rejected the current token.
    pub(super) fn resolve_suspicion(
        &mut self,
        current: &Secret,
        client: &ClientIdentity,
        suspicion: Suspicion,
        now: Instant,
    ) -> Step {
        if self.was_alive(current, PROBE_VALID, now) {
            return Step::Serve;
        }
        if let Some(job) = &self.job {
            // A suspicion waits only for the job that answers it, and soon.
            let is_answer = matches!(job, Job::Resolve(rejected)
                if rejected.token == *current && rejected.probe != ProbeKind::Scheduled);
            return if is_answer { Step::Wait(None) } else { Step::Serve };
        }
        if self.verdict(current, PROBE_VALID, now).is_some() {
            return Step::Serve;
        }
        let reason = match suspicion {
            Suspicion::AsksAgain => ProbeReason::Suspicion,
            Suspicion::Insists => ProbeReason::Report,
        };
        match self.probe_quota.take(reason, client, now) {
            Err(_) => Step::Serve,
            Ok(()) => Step::Start(Job::Resolve(RejectedToken {
                token: current.clone(),
                probe: ProbeKind::Awaited,
                is_reported: false,
                client: Some((client.clone(), reason)),
            })),
        }
    }

    /// Returns what to do for a witness that says that WeChat rejected the current token. The witness gets this token again only once
    /// WeChat has accepted it in a probe; if the rejection is known to be of `refused_at`, in a later probe.
    pub(super) fn resolve_report(
        &mut self,
        current: &Secret,
        witness: &Witness,
        refused_at: Option<Instant>,
        now: Instant,
    ) -> Step {
        let is_after = |probe: &ProbeResult| refused_at.is_none_or(|at| probe.at >= at);
        let probe = self.recent_probe(current, PROBE_VALID, now).filter(|probe| is_after(probe));
        let has_verdict = match probe {
            Some(ProbeResult { alive: Ok(()), .. }) => return Step::Serve,
            probe => probe.is_some(),
        };
        let doubt = self.doubt.take();
        let doubt = doubt.filter(|doubt| doubt.token == *current && !doubt.is_over(now));
        let doubt = self.doubt.insert(doubt.unwrap_or_else(|| Doubt::new(current.clone(), now)));
        doubt.note(witness, now);
        let (is_proven, probe_at) = (doubt.is_proven(now), doubt.probe_at);
        if self.job.is_some() {
            return Step::Wait(None);
        }
        if let Some(failure) = self.retry.failures.pending(now) {
            return Step::Fail(self.unavailable(failure, now));
        }
        let resolve = |probe, client| {
            let token = current.clone();
            Step::Start(Job::Resolve(RejectedToken { token, probe, is_reported: true, client }))
        };
        if !has_verdict {
            let Witness::Client(client) = witness else { return resolve(ProbeKind::Awaited, None) };
            let is_honoured = self.was_alive(current, PROBE_VALID_WITHOUT_QUOTA, now);
            match self.probe_quota.take(ProbeReason::Report, client, now) {
                Ok(()) => {
                    let client = (client.clone(), ProbeReason::Report);
                    return resolve(ProbeKind::Awaited, Some(client));
                }
                Err(ProbeRefusal::Client) if is_honoured => return Step::Serve,
                Err(ProbeRefusal::All(at)) if is_honoured => return Step::Wait(Some(at)),
                Err(_) => {}
            }
        }
        match self.verdict(current, PROBE_VALID_WITHOUT_QUOTA, now) {
            Some(Err(_)) if is_proven => match self.check_forced(Certainty::Reported, now) {
                Ok(()) => resolve(ProbeKind::None, None),
                Err(unavailable) => Step::Fail(unavailable),
            },
            Some(Err(why)) => Step::Fail(doubt::unproven(why, probe_at, now)),
            _ if now < probe_at => Step::Wait(Some(probe_at)),
            _ => resolve(ProbeKind::Scheduled, None),
        }
    }

    /// Returns the last probe, if it was about this token and within this time.
    fn recent_probe(&self, token: &Secret, within: Duration, now: Instant) -> Option<&ProbeResult> {
        let probe = self.last_probe.as_ref().filter(|probe| probe.token == *token)?;
        let is_recent = now.duration_since(probe.at) < within || has_bug(Bug::VerdictKept);
        is_recent.then_some(probe)
    }

    /// Returns what the last probe said of this token, if it was within this time.
    fn verdict(&self, token: &Secret, within: Duration, now: Instant) -> Option<Result<(), &str>> {
        let probe = self.recent_probe(token, within, now)?;
        Some(probe.alive.as_ref().copied().map_err(String::as_str))
    }

    fn was_alive(&self, token: &Secret, within: Duration, now: Instant) -> bool {
        self.verdict(token, within, now).is_some_and(|verdict| verdict.is_ok())
    }

    /// Takes in the result of a probe. It counts at once, however long the running job goes on. Returns the events to log.
    pub(in crate::scheduler) fn note_liveness(
        &mut self,
        token: Secret,
        liveness: Liveness,
        now: Instant,
    ) -> Vec<Event> {
        let fingerprint = token.fingerprint();
        let (alive, event) = match liveness {
            Liveness::Dead => {
                if let Some(Job::Resolve(rejected)) = &self.job
                    && rejected.token == token
                    && let Some((client, reason)) = &rejected.client
                {
                    self.probe_quota.give_back(*reason, client);
                }
                self.last_dead = Some(token.clone());
                (self.dead, self.doubt) = (Some(token), None);
                return vec![Event::Dead(fingerprint)];
            }
            Liveness::Alive => {
                self.last_dead.take_if(|dead| *dead == token);
                let why = match &self.job {
                    Some(Job::Resolve(RejectedToken { is_reported: false, .. })) => {
                        WhyAsked::AskedForAgain
                    }
                    Some(Job::Resolve(_)) => WhyAsked::SaidToBeRejected,
                    _ => WhyAsked::InDoubt,
                };
                (Ok(()), Event::Accepted { token: fingerprint, why })
            }
            Liveness::Unknown(why) => {
                (Err(messages::of_upstream(&why)), Event::Unknown(why.to_string()))
            }
        };
        let doubt = self.doubt.take_if(|doubt| doubt.token == token);
        let mut events = vec![event];
        if let Some(mut doubt) = doubt {
            match alive {
                Ok(()) if doubt.has_failed => events.extend(self.retry.failures.clear()),
                Ok(()) => {}
                Err(_) => {
                    doubt.note_unknown(now);
                    self.doubt = Some(doubt);
                }
            }
        }
        self.last_probe = Some(ProbeResult { token, alive, at: now });
        events
    }

    /// Returns the request for a token that the running job has to make after its probe; `None` if it makes none.
    pub(in crate::scheduler) fn attempt(&mut self, now: Instant) -> Option<Attempt> {
        let Some(Job::Resolve(rejected)) = &self.job else {
            return Some(Attempt { request: TokenRequest::Live, may_force: true, dead: None });
        };
        let RejectedToken { token, is_reported, .. } = rejected.clone();
        let is_dead = self.is_dead(&token);
        self.certainty = if is_dead { Certainty::Known } else { Certainty::Reported };
        let is_within_quota = self.check_forced(self.certainty, now).is_ok();
        let is_proven = is_dead
            || has_bug(Bug::HonouredTokenReplaced)
            || self
                .doubt
                .as_ref()
                .is_some_and(|doubt| doubt.token == token && doubt.is_proven(now));
        let may_force = is_proven && is_within_quota;
        let may_request = match self.rules {
            // The source of a mirror probes the token, and has quotas of its own.
            Rules::Mirror => {
                let request = TokenRequest::OtherThan(token);
                return Some(Attempt { request, may_force: is_reported, dead: None });
            }
            _ if self.was_alive(&token, PROBE_VALID, now)
                && !has_bug(Bug::HonouredTokenReplaced) =>
            {
                false
            }
            _ if !is_dead && !is_reported => false,
            // A normal request costs nothing, and returns the new token if another program has forced one.
            Rules::Stable => self.renewal_quota.check(now).is_ok(),
            // A request replaces no live token, but counts.
            Rules::Work => is_within_quota,
            Rules::Classic => may_force,
        };
        let dead = is_dead.then(|| token.clone());
        may_request.then_some(Attempt { request: TokenRequest::OtherThan(token), may_force, dead })
    }

    /// Notes how a job about a token that may be dead has ended. Returns the event to log.
    pub(super) fn note_resolved(
        &mut self,
        rejected: &RejectedToken,
        report: &JobReport,
        now: Instant,
    ) -> Option<Event> {
        let doubt = self.doubt.as_mut().filter(|doubt| doubt.token == rejected.token)?;
        match &report.outcome {
            Some(Ok(Outcome::Renewed(_) | Outcome::Kept(_))) => return None,
            Some(Ok(Outcome::Confirmed(_)))
            | Some(Err(RefreshError::Upstream(UpstreamError::Withheld))) => {}
            // The failure is logged by itself.
            Some(Err(_)) => {
                doubt.has_failed |= rejected.is_reported && !report.ended_forced;
                return None;
            }
            // No further request is allowed, so that nothing can fail.
            None if doubt.has_failed => {
                doubt.has_failed = false;
                self.retry.failures.clear();
            }
            None => {}
        }
        let probe = self.last_probe.as_ref().filter(|probe| probe.token == rejected.token)?;
        let why = probe.alive.as_ref().err()?.clone();
        if doubt.is_proven(now) || doubt.is_logged {
            return None;
        }
        doubt.is_logged = true;
        Some(Event::Unproven { token: doubt.token.fingerprint(), why })
    }
}
