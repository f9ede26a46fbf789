//! What is done in a thread of its own: WeChat is asked whether a token lives, and for another one. It takes as long as
//! it takes; whoever sent it on its way decides what to make of what it brings back.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use crate::model::api::Rules;
use crate::model::kind::{DocumentKind, TicketType};
use crate::model::location::Location;
use crate::model::secret::Secret;
use crate::model::status::TokenRequest;
use crate::os::clock::{Clock, SystemClock};
use crate::refresh::ticket::TicketRefresh;
use crate::refresh::{Outcome, Refresh, RefreshError};
use crate::store::Store;
use crate::upstream::{IssuedToken, Liveness, RefreshMode, TokenSource, Upstream, UpstreamError};

/// How long one refresh may take, waiting for the lock and retries included; `fetch` has the same.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(30);

/// How long WeChat may take to say whether a token is alive: the client waits for what comes of that, too.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// See to it that a token is published that is not due.
    Refresh,
    /// See to it that a token is published that WeChat honours.
    Settle(Doubt),
}

/// A token that may be dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Doubt {
    pub(super) token: Secret,
    /// Whether WeChat is to be asked first whether it lives.
    pub(super) is_probed: bool,
    /// Whether there is more than a hint: then it is replaced also where nobody can tell.
    pub(super) is_told: bool,
    /// Whether WeChat may be made to replace it.
    pub(super) may_force: bool,
}

/// What is brought back.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// What WeChat said of the token, if it was asked.
    pub(super) pulse: Option<Liveness>,
    /// What came of asking for another one, if that was done.
    pub(super) outcome: Option<Result<Outcome, RefreshError>>,
    /// Whether WeChat may have done what it can to replace its token.
    pub(super) has_forced: bool,
    /// Whether the last question was for more than the good token: a failure is one of that alone.
    pub(super) was_forcing: bool,
    /// The answers to the questions for a token, each by a word for what it was, and the errcode, 0 where there is none.
    pub(super) answers: Vec<(&'static str, i64)>,
}

/// What an errand needs.
pub(super) struct JobContext {
    pub(super) name: String,
    pub(super) place: Location,
    pub(super) appid: String,
    pub(super) rules: Rules,
    pub(super) refresh_before: Duration,
    pub(super) store: Arc<dyn Store + Send + Sync>,
    pub(super) upstream: Arc<dyn Upstream>,
}

impl JobContext {
    /// Does what is to be done.
    pub(super) fn run(&self, errand: Job) -> Report {
        let doubt = match errand {
            Job::Refresh => return self.refresh(&TokenRequest::Live, true),
            Job::Settle(doubt) => doubt,
        };
        if self.rules == Rules::Mirror {
            return self.pass_on(doubt);
        }
        let pulse = doubt.is_probed.then(|| self.upstream.probe(&doubt.token, PROBE_TIMEOUT));
        let is_settled = match &pulse {
            Some(Liveness::Alive) => true,
            Some(Liveness::Dead) => false,
            // Nobody knows, and a hint is no reason to burn a token.
            Some(Liveness::Unknown(_)) | None => !doubt.is_told,
        };
        // On stable a plain question costs nothing, and brings the new one where somebody else has forced it.
        let may_ask = doubt.may_force || self.rules == Rules::Stable;
        let report = match is_settled || !may_ask {
            true => Report::default(),
            false => self.refresh(&TokenRequest::OtherThan(doubt.token), doubt.may_force),
        };
        Report { pulse, ..report }
    }

    /// Where another wxtoken is asked, that one probes the token, and rations what it forces.
    fn pass_on(&self, doubt: Doubt) -> Report {
        let mut report = self.refresh(&TokenRequest::OtherThan(doubt.token), doubt.is_told);
        if let Some(Ok(Outcome::Confirmed(_))) = &report.outcome {
            report.pulse = Some(Liveness::Alive);
        }
        report
    }

    /// Sees to it that this ticket is published in `store`, and is not due. That its token is dead is a failure here: what
    /// follows from it is for whoever rations that.
    pub(super) fn run_ticket(
        &self,
        kind: &TicketType,
        store: &dyn Store,
    ) -> Result<Outcome, RefreshError> {
        let place = self.place.name_of(&DocumentKind::Token);
        let ticket = TicketRefresh {
            kind,
            place: &self.place.name_of(&DocumentKind::Ticket(kind.clone())),
            token: self.asking(&*self.upstream, &place),
            upstream: &*self.upstream,
            store,
            replaces_dead_token: false,
            has_renewed_token: Cell::default(),
        };
        ticket.run(SystemClock.instant() + REFRESH_TIMEOUT)
    }

    /// The token's refresh, which asks `source`.
    fn asking<'a>(&'a self, source: &'a dyn TokenSource, place: &'a str) -> Refresh<'a> {
        Refresh {
            name: &self.name,
            place,
            appid: &self.appid,
            rules: self.rules,
            refresh_before: self.refresh_before,
            clock: &SystemClock,
            source,
            store: &*self.store,
        }
    }

    fn refresh(&self, want: &TokenRequest, may_force: bool) -> Report {
        let source = Noted {
            source: &*self.upstream,
            rules: self.rules,
            may_force,
            has_forced: Cell::new(false),
            was_forcing: Cell::new(false),
            answers: RefCell::default(),
        };
        let place = self.place.name_of(&DocumentKind::Token);
        let outcome =
            self.asking(&source, &place).run(want, SystemClock.instant() + REFRESH_TIMEOUT);
        Report {
            pulse: None,
            outcome: Some(outcome),
            has_forced: source.has_forced.get(),
            was_forcing: source.was_forcing.get(),
            answers: source.answers.into_inner(),
        }
    }
}

/// A source that is not forced where that is not to be, and whose answers are noted.
struct Noted<'a> {
    source: &'a dyn TokenSource,
    rules: Rules,
    may_force: bool,
    has_forced: Cell<bool>,
    was_forcing: Cell<bool>,
    answers: RefCell<Vec<(&'static str, i64)>>,
}

impl TokenSource for Noted<'_> {
    fn request_token(
        &self,
        how: RefreshMode,
        timeout: Duration,
    ) -> Result<IssuedToken, UpstreamError> {
        if how == RefreshMode::Forced && !self.may_force {
            return Err(UpstreamError::Withheld);
        }
        self.was_forcing.set(how == RefreshMode::Forced);
        let answer = self.source.request_token(how, timeout);
        // Where nothing can be forced, each question is all that can be done about a token.
        let is_forced = match self.rules {
            Rules::Stable => how == RefreshMode::Forced,
            Rules::Classic | Rules::Work => true,
            Rules::Mirror => false,
        };
        if is_forced && answer.as_ref().err().is_none_or(UpstreamError::may_have_minted) {
            self.has_forced.set(true);
        }
        self.answers.borrow_mut().push(match &answer {
            Ok(_) => ("ok", 0),
            Err(UpstreamError::Refused(refusal)) => ("refused", refusal.code),
            Err(UpstreamError::Status(_)) => ("http_status", 0),
            Err(UpstreamError::Unreachable(_)) => ("unreachable", 0),
            Err(UpstreamError::Central { is_lasting: true, was_reached: true, .. }) => {
                ("refused", 0)
            }
            Err(UpstreamError::Central { .. }) => ("unreachable", 0),
            Err(UpstreamError::Malformed(_)) => ("nonsense", 0),
            Err(UpstreamError::Expired | UpstreamError::Withheld | UpstreamError::NoToken) => {
                return answer;
            }
        });
        answer
    }
}
