//! What is known of an account's tokens: what WeChat said of them, what failed, what may be asked. And what follows from
//! it, for somebody who wants a token and for the schedule. Pure: the time comes in, and nobody is asked.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use time::UtcDateTime;

use super::backoff::{self, SHORTEST_WAIT};
use super::job::{Doubt, Job, Report};
use super::quota::{Forced, Probes, Withheld};
use super::retry::Trouble;
use crate::model::api::Rules;
use crate::model::document::Document;
use crate::model::secret::Secret;
use crate::model::status::{RefreshFailure, RefreshStatus, TokenRequest, Unavailable};
use crate::refresh::{Outcome, RefreshError};
use crate::upstream::{Liveness, UpstreamError};

/// How long it holds what WeChat said of a token: those who doubt it at once are answered at once.
const PULSE_HOLDS: Duration = Duration::from_secs(1);

/// How long it may hold where WeChat is not to be asked again so soon.
const PULSE_HOLDS_AT_MOST: Duration = Duration::from_secs(2 * 60);

/// Forced mints in a day. WeChat has 20 on stable; elsewhere every question counts as one, and this is a tenth of
/// classic's quota.
const FORCED_PER_DAY_ON_STABLE: usize = 20;
const FORCED_PER_DAY_ELSEWHERE: usize = 200;

/// What is known, as of the last answer.
#[derive(Debug)]
pub(super) struct State {
    name: String,
    rules: Rules,
    refresh_before: Duration,
    under_way: Option<UnderWay>,
    /// When the last errand began.
    begun_at: Option<Instant>,
    /// What WeChat said of a token that was doubted.
    pulse: Option<ProbeResult>,
    /// The token that WeChat says is dead.
    dead: Option<Secret>,
    /// The token that a client says was rejected, while WeChat could neither be asked about it nor for another.
    unsettled: Option<Secret>,
    /// The failures since the last success.
    trouble: Option<Trouble>,
    /// Those of forcing alone: what is merely asked for can be had all the same.
    forcing_trouble: Option<Trouble>,
    forced: Forced,
    probes: Probes,
    /// Before this a token that is due is left alone: it was when WeChat gave it, too.
    not_before: Instant,
    hangups: u64,
    succeeded_at: Option<UtcDateTime>,
    next_at: Option<UtcDateTime>,
    answers: BTreeMap<(&'static str, i64), u64>,
}

#[derive(Debug)]
struct UnderWay {
    errand: Job,
    /// How many hangups there were when it began.
    hangups: u64,
}

#[derive(Debug)]
struct ProbeResult {
    token: Secret,
    is_honoured: bool,
    at: Instant,
}

/// What is next for somebody who wants a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// What is published is the answer.
    HandOut,
    /// Wait until something changes, or until then, and think again.
    Wait(Option<Instant>),
    Begin(Job),
    /// There will be none for now.
    GiveUp(Unavailable),
}

/// What the operator should hear of an errand.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// WeChat honours the token of this fingerprint, which was said to be rejected.
    Honoured(String),
    /// WeChat says that it is dead.
    Dead(String),
    /// It could not be told.
    Unclear(String),
    /// `token` and its fingerprint, or a ticket's alone.
    Published(String),
    Failed {
        failure: String,
        pause: Duration,
    },
    WellAgain,
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
            under_way: None,
            begun_at: None,
            pulse: None,
            dead: None,
            unsettled: None,
            trouble: None,
            forcing_trouble: None,
            forced: Forced::new(per_day),
            probes: Probes::new(now),
            not_before: now,
            hangups: 0,
            succeeded_at: None,
            next_at: None,
            answers: BTreeMap::new(),
        }
    }

    /// Whether WeChat has said that this token is dead: it is nobody's answer then, whatever life it had left.
    pub(super) fn is_dead(&self, token: &Secret) -> bool {
        self.dead.as_ref() == Some(token)
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// What to do for somebody with this wish. `current` is the token that is published, lives, and is not dead.
    pub(super) fn step(
        &mut self,
        wish: &TokenRequest,
        current: Option<&Secret>,
        now: Instant,
    ) -> Step {
        match (wish, current) {
            (_, None) => self.revive(now),
            (TokenRequest::Live, Some(_)) => Step::HandOut,
            (TokenRequest::OtherThan(rejected), Some(current)) if rejected != current => {
                Step::HandOut
            }
            (TokenRequest::OtherThan(_) | TokenRequest::New, Some(current)) => {
                self.settle(current, true, now)
            }
            (TokenRequest::Verified, Some(current)) => self.settle(current, false, now),
        }
    }

    /// There is no token to hand out.
    fn revive(&mut self, now: Instant) -> Step {
        if let Some(trouble) = self.trouble.as_ref().filter(|trouble| trouble.stands())
            && (now < trouble.retry_at || self.is_under_way())
        {
            return Step::GiveUp(self.lack_of(trouble, now));
        }
        if self.is_under_way() {
            return Step::Wait(None);
        }
        if self.dead.is_some()
            && let Err(lack) = self.may_force(now)
        {
            return Step::GiveUp(lack);
        }
        match self.rest(now) {
            Duration::ZERO => Step::Begin(self.remedy(now)),
            rest => Step::Wait(Some(now + rest)),
        }
    }

    /// Somebody doubts the current token. If he `is_told` so by WeChat, he is not content with it unless it is honoured.
    fn settle(&mut self, current: &Secret, is_told: bool, now: Instant) -> Step {
        let felt = self.pulse.as_ref().filter(|felt| felt.token == *current);
        let felt = felt.map(|felt| (felt.is_honoured, now.duration_since(felt.at)));
        let is_honoured = |holds| felt.is_some_and(|(honoured, ago)| honoured && ago < holds);
        if is_honoured(PULSE_HOLDS) {
            return Step::HandOut;
        }
        if let Some(UnderWay { errand, .. }) = &self.under_way {
            // A hint waits for nothing but what answers it.
            let is_answer = matches!(errand, Job::Settle(doubt) if doubt.token == *current);
            return if is_told || is_answer { Step::Wait(None) } else { Step::HandOut };
        }
        if let Some(trouble) = self.trouble.as_ref().filter(|trouble| now < trouble.retry_at)
            && is_told
        {
            return Step::GiveUp(self.lack_of(trouble, now));
        }
        let may_force = self.may_force(now);
        let was_unclear = felt.is_some_and(|(_, ago)| ago < PULSE_HOLDS);
        let is_probed = !was_unclear && self.probes.take(now);
        if !is_probed && (!is_told || is_honoured(PULSE_HOLDS_AT_MOST)) {
            return Step::HandOut;
        }
        match (is_probed, may_force) {
            (false, Err(lack)) => Step::GiveUp(lack),
            (_, may_force) => Step::Begin(Job::Settle(Doubt {
                token: current.clone(),
                is_probed,
                is_told,
                may_force: may_force.is_ok(),
            })),
        }
    }

    /// Whether WeChat may be made to replace its token.
    fn may_force(&mut self, now: Instant) -> Result<(), Unavailable> {
        if let Some(trouble) = self.forcing_trouble.as_ref().filter(|it| now < it.retry_at) {
            return Err(self.lack_of(trouble, now));
        }
        self.forced.check(now).map_err(lack)
    }

    /// What would bring a token, where there is none.
    fn remedy(&mut self, now: Instant) -> Job {
        let may_force = self.may_force(now).is_ok();
        match &self.dead {
            // On stable a plain question counts nothing.
            Some(dead) if may_force || self.rules == Rules::Stable => Job::Settle(Doubt {
                token: dead.clone(),
                is_probed: false,
                is_told: true,
                may_force,
            }),
            Some(_) => Job::Refresh,
            None => match &self.unsettled {
                Some(token) => Job::Settle(Doubt {
                    token: token.clone(),
                    is_probed: true,
                    is_told: true,
                    may_force,
                }),
                None => Job::Refresh,
            },
        }
    }

    /// How long it is until WeChat is to be asked on schedule, and what for. `document` is what is published.
    pub(super) fn next(
        &mut self,
        document: Option<&Document>,
        wall: UtcDateTime,
        now: Instant,
    ) -> (Duration, Job) {
        // Others publish, too.
        if document.is_some_and(|document| !self.is_dead(&document.token)) {
            self.dead = None;
        }
        if document.is_none_or(|document| self.unsettled.as_ref() != Some(&document.token)) {
            self.unsettled = None;
        }
        let until = |at: Instant| at.saturating_duration_since(now);
        let due_in = match document
            .map(|it| backoff::until_due(it, wall, self.rules, self.refresh_before))
        {
            None => Duration::ZERO,
            // What was said to be tried again is, and where nothing is due it is found out that all is well.
            Some(_) if self.trouble.is_some() => Duration::ZERO,
            // One that was due when WeChat gave it.
            Some(Duration::ZERO) => until(self.not_before),
            Some(due_in) => due_in,
        };
        let wait = match (self.dead.is_some(), self.may_force(now)) {
            (false, _) => due_in,
            (true, Ok(())) => Duration::ZERO,
            // Meanwhile it may end, or somebody else may have it replaced.
            (true, Err(lack)) => lack.retry_after.min(match self.rules {
                Rules::Stable => until(self.not_before),
                Rules::Classic | Rules::Work | Rules::Mirror => due_in,
            }),
        };
        let retry_in = self.trouble.as_ref().map_or(Duration::ZERO, |it| until(it.retry_at));
        let wait = wait.max(retry_in).max(self.rest(now));
        self.next_at = Some(wall.saturating_add(wait.try_into().unwrap_or_default()));
        (wait, self.remedy(now))
    }

    fn lack_of(&self, trouble: &Trouble, now: Instant) -> Unavailable {
        trouble.lack(&format!("there is no good token: {}", self.name), now)
    }

    /// How long it is until the next errand may begin.
    fn rest(&self, now: Instant) -> Duration {
        self.begun_at.map_or(Duration::ZERO, |at| SHORTEST_WAIT.saturating_sub(now - at))
    }

    /// An errand begins.
    pub(super) fn begin(&mut self, errand: Job, now: Instant) {
        self.begun_at = Some(now);
        self.under_way = Some(UnderWay { errand, hangups: self.hangups });
    }

    /// An errand has ended: remembers what came of it.
    pub(super) fn end(
        &mut self,
        report: Report,
        wall: UtcDateTime,
        now: Instant,
        random: u64,
    ) -> Vec<News> {
        let mut news = Vec::new();
        let Some(UnderWay { errand, hangups }) = self.under_way.take() else { return news };
        for answer in report.answers {
            *self.answers.entry(answer).or_default() += 1;
        }
        if let Job::Settle(doubt) = errand {
            if report.has_forced {
                self.forced.note(now);
            }
            let was_unsettled = self.unsettled.take().is_some();
            let is_honoured = matches!(report.pulse, Some(Liveness::Alive));
            if was_unsettled && is_honoured {
                news.extend(self.trouble.take().map(|_| News::WellAgain));
            }
            if doubt.is_told && !is_honoured && matches!(report.outcome, Some(Err(_))) {
                self.unsettled = Some(doubt.token.clone());
            }
            news.extend(report.pulse.map(|pulse| self.feel(doubt.token, pulse, now)));
        }
        match report.outcome {
            None => {}
            Some(Ok(outcome)) => {
                if report.was_forcing {
                    self.forcing_trouble = None;
                }
                news.extend(self.succeeded(&outcome, wall, now));
            }
            // WeChat gave the doubted token again.
            Some(Err(RefreshError::Upstream(UpstreamError::Withheld))) => {
                self.not_before = now + backoff::wait_after_the_same(self.rules);
            }
            Some(Err(failure)) => {
                let trouble = match report.was_forcing {
                    true => &mut self.forcing_trouble,
                    false => &mut self.trouble,
                };
                let pointless = failure.retry_after();
                let told = Trouble::note(trouble, &failure, pointless, wall, now, random);
                let failure = failure.to_string();
                news.extend(told.map(|pause| News::Failed { failure, pause }));
                // What was mended meanwhile has not been tried yet.
                if hangups != self.hangups {
                    self.forgive(now);
                }
            }
        }
        news
    }

    /// WeChat has said something of a token.
    fn feel(&mut self, token: Secret, pulse: Liveness, now: Instant) -> News {
        let fingerprint = token.fingerprint();
        match pulse {
            Liveness::Dead => {
                self.dead = Some(token);
                News::Dead(fingerprint)
            }
            Liveness::Alive => {
                self.pulse = Some(ProbeResult { token, is_honoured: true, at: now });
                News::Honoured(fingerprint)
            }
            Liveness::Unknown(why) => {
                self.pulse = Some(ProbeResult { token, is_honoured: false, at: now });
                News::Unclear(why.to_string())
            }
        }
    }

    fn succeeded(&mut self, outcome: &Outcome, wall: UtcDateTime, now: Instant) -> Vec<News> {
        let mut news = Vec::new();
        let (Outcome::Kept(document) | Outcome::Renewed(document) | Outcome::Confirmed(document)) =
            outcome;
        let is_dead = self.is_dead(&document.token);
        if !is_dead {
            self.dead = None;
            news.extend(self.trouble.take().map(|_| News::WellAgain));
        }
        if !matches!(outcome, Outcome::Kept(_)) {
            self.succeeded_at = Some(wall);
            news.push(News::Published(format!("token {}", document.token.fingerprint())));
        }
        if is_dead || document.is_due(wall, self.refresh_before) {
            self.not_before = now + backoff::wait_while_due(self.rules, document.left(wall));
        }
        news
    }

    /// The operator may have mended what was in the way.
    pub(super) fn hangup(&mut self, now: Instant) {
        self.hangups += 1;
        self.not_before = now;
        self.forgive(now);
    }

    /// Lets what failed be tried again at once, and be told again should it fail again.
    fn forgive(&mut self, now: Instant) {
        for trouble in [&mut self.trouble, &mut self.forcing_trouble].into_iter().flatten() {
            trouble.forgive(now);
        }
    }

    /// What people and metrics see of it.
    pub(super) fn status(&self) -> RefreshStatus {
        let attempts = self.answers.iter();
        RefreshStatus {
            succeeded_at: self.succeeded_at,
            next_at: self.next_at,
            attempts: attempts.map(|((word, errcode), times)| (*word, *errcode, *times)).collect(),
            hook: None,
        }
    }

    /// The last failure, if no success followed.
    pub(super) fn failure(&self) -> Option<RefreshFailure> {
        // That nothing can be forced is a failure only while a dead token has to be replaced.
        let forcing_trouble = self.forcing_trouble.as_ref().filter(|_| self.dead.is_some());
        self.trouble.as_ref().or(forcing_trouble).map(Trouble::failure)
    }
}

/// What is said where WeChat is not asked for another token now.
fn lack(withheld: Withheld) -> Unavailable {
    let (why, retry_after) = match withheld {
        Withheld::TooSoon(rest) => (
            "another token was asked for moments ago, and that is done once in 30 seconds at most; ask again then. \
             30 秒内已强制刷新过，请稍后再试。",
            rest,
        ),
        Withheld::DayUsedUp(rest) => (
            "tokens were replaced on demand as often as a day allows; who kills them? \
             当日强制刷新次数已用完，请查明是谁在使 token 失效。",
            rest,
        ),
    };
    Unavailable { why: why.to_owned(), retry_after }
}

#[cfg(test)]
mod tests;
