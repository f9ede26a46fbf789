//! Tells the hook `on_trouble` of a document: once when refreshing it fails in a way that needs a person or threatens its life, and
//! once when it works again. What was told is in the record that all runs and processes of a host share. Does not know who
//! refreshes, nor when.

use std::cell::Cell;
use std::time::Duration;

use time::UtcDateTime;

use super::RefreshError;
use crate::language::{Language, bilingual};
use crate::log::{printable, without_secrets};
use crate::model::account::Account;
use crate::model::document::rfc3339;
use crate::model::kind::DocumentKind;
use crate::model::location::Location;
use crate::model::secret::Secret;
use crate::os::clock::Clock;
use crate::os::hook::HookFailure;
use crate::store::{RecordChange, Store, TroubleClaim, TroubleEvent};
use crate::upstream::UpstreamError;

/// A failure after which another request is pointless for this long ends only by a person, or with the day of a quota.
const LASTING: Duration = Duration::from_secs(5 * 60);

/// How long after the hook's own time limit another process still leaves the telling to this one.
const CLAIM_MARGIN: Duration = Duration::from_secs(10);

/// How long the lock is waited for to note what was told: longer than another process holds it for a request to WeChat.
const NOTE_PATIENCE: Duration = Duration::from_secs(60);

/// The pause before another try to note it.
const NOTE_PAUSE: Duration = Duration::from_millis(50);

/// The longest message that is told, in characters.
const MAX_MESSAGE: usize = 1000;

const WELL_AGAIN: &str = bilingual!("refreshing works again.", "刷新已恢复正常。");

/// Why refreshing a document fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TroubleCause {
    /// WeChat's errcode, if it refused.
    pub(crate) errcode: Option<i64>,
    pub(crate) message: String,
    reach: Reach,
}

/// What can end a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// The next attempt.
    Passing,
    /// A person, or the day of a quota.
    Lasting,
    /// A person, if the fault is this host's. A Redis comes back by itself.
    Local,
}

impl TroubleCause {
    /// Returns the cause of a failed refresh; `None` if the failure says nothing of the document itself.
    pub(crate) fn of(failure: &RefreshError) -> Option<TroubleCause> {
        let (errcode, reach) = match failure {
            RefreshError::Upstream(error) | RefreshError::AnswerLost { error, .. } => {
                of_upstream(error)?
            }
            RefreshError::Locked => (None, Reach::Passing),
            RefreshError::Local(_) => (None, Reach::Local),
            RefreshError::Foreign { .. } => (None, Reach::Lasting),
        };
        Some(TroubleCause { errcode, message: failure.to_string(), reach })
    }

    /// Returns the cause for an account that cannot be connected, because its secret cannot be read, say.
    pub(crate) fn of_config(failure: &anyhow::Error) -> TroubleCause {
        TroubleCause::lasting(format!("{failure:#}"))
    }

    /// Returns a cause that ends only by a person, or with the day of a quota.
    pub(crate) fn lasting(message: String) -> TroubleCause {
        TroubleCause { errcode: None, message, reach: Reach::Lasting }
    }

    /// Whether this failure is trouble for a document of `account` that has this much `life` left, and is due once `margin` is left.
    pub(crate) fn is_trouble(&self, account: &Account, margin: Duration, life: Duration) -> bool {
        let needs_person = match (self.reach, &account.location) {
            (Reach::Lasting, _) | (Reach::Local, Location::File(_)) => true,
            (Reach::Passing, _) | (Reach::Local, Location::Redis(_)) => false,
        };
        needs_person || life.is_zero() || life < margin / 2
    }
}

/// Returns the errcode of a failure, and what ends it.
fn of_upstream(error: &UpstreamError) -> Option<(Option<i64>, Reach)> {
    let is_lasting = |wait: Option<Duration>| match wait.is_some_and(|wait| wait >= LASTING) {
        true => Reach::Lasting,
        false => Reach::Passing,
    };
    match error {
        // That is the token's trouble, and not the ticket's.
        error if error.is_dead_token() => None,
        UpstreamError::NoToken | UpstreamError::Withheld => None,
        // By the whole wait of the refusal: what is left of it becomes shorter than the limit.
        UpstreamError::Refused(refusal) | UpstreamError::StillRefused { refusal, .. } => {
            Some((Some(refusal.code), is_lasting(refusal.retry_after())))
        }
        UpstreamError::Rationed { .. } => Some((None, Reach::Lasting)),
        error => Some((None, is_lasting(error.retry_after()))),
    }
}

/// The condition of a document's refresh.
#[derive(Clone, Debug)]
pub(crate) enum RefreshCondition {
    Well {
        /// The published token, if WeChat was not asked about it. If it is the rejected one that could not be replaced, the trouble
        /// goes on.
        kept: Option<Secret>,
    },
    Trouble {
        cause: TroubleCause,
        /// The published token, if it was rejected.
        rejected: Option<Secret>,
    },
}

impl RefreshCondition {
    pub(crate) fn event(&self) -> TroubleEvent {
        match self {
            RefreshCondition::Well { .. } => TroubleEvent::End,
            RefreshCondition::Trouble { .. } => TroubleEvent::Begin,
        }
    }
}

/// What came of telling `on_trouble`.
#[derive(Debug)]
pub(crate) enum Telling {
    /// It has been told now.
    Told,
    /// There was nothing to tell.
    Needless,
    /// Another process is telling it, or the record cannot be reached now.
    Later,
    Failed(HookFailure),
}

/// A document, about which `on_trouble` is told.
pub(crate) struct TroubleSubject<'a> {
    pub(crate) account: &'a Account,
    pub(crate) kind: &'a DocumentKind,
    pub(crate) store: &'a dyn Store,
    pub(crate) clock: &'a dyn Clock,
    /// How long the document still lives.
    pub(crate) life: Duration,
}

impl TroubleSubject<'_> {
    /// Runs the account's `on_trouble` for this condition, unless it was told of it. Blocks while the hook runs; `is_over` ends it.
    pub(crate) fn tell(&self, condition: &RefreshCondition, is_over: &dyn Fn() -> bool) -> Telling {
        let TroubleSubject { account, kind, store, clock, .. } = *self;
        let (Some(hook), event) = (&account.on_trouble, condition.event()) else {
            return Telling::Needless;
        };
        let appid = account.appid.as_deref().unwrap_or_default();
        let now = clock.now().wall;
        // The usual case, which costs no lock.
        if event == TroubleEvent::End
            && !store.record(appid, now).is_some_and(|it| it.has_trouble())
        {
            return Telling::Needless;
        }
        let claim = Cell::new(TroubleClaim::Needless);
        let hold = hook.timeout() + CLAIM_MARGIN;
        let changed = store.change_record(appid, clock, &|record| {
            claim.set(match condition {
                RefreshCondition::Well { kept } => record.claim_end(kept.as_ref(), now, hold),
                RefreshCondition::Trouble { rejected, .. } => {
                    record.claim_begin(rejected.as_ref(), now, hold)
                }
            });
        });
        let since = match (changed, claim.get()) {
            (RecordChange::NotMade, _) | (_, TroubleClaim::Held) => return Telling::Later,
            (_, TroubleClaim::Needless) => return Telling::Needless,
            // Told even if it could not be noted: the fault that keeps it from being noted may be the trouble.
            (RecordChange::Kept | RecordChange::Lost, TroubleClaim::Ours(since)) => since,
        };
        let document = account.location.path(kind);
        let told = hook.run(&account.name, &document, &self.variables(condition, since), is_over);
        // Without this note the begin would be told again, and the end never.
        let patience = clock.instant() + NOTE_PATIENCE;
        let note =
            || store.change_record(appid, clock, &|record| record.note_told(event, told.is_ok()));
        while note() == RecordChange::NotMade && !is_over() && !clock.until(patience).is_zero() {
            clock.sleep(NOTE_PAUSE);
        }
        match told {
            Ok(()) => Telling::Told,
            Err(failure) => Telling::Failed(failure),
        }
    }

    /// Returns the variables of the hook. They hold no secret.
    fn variables(
        &self,
        condition: &RefreshCondition,
        since: UtcDateTime,
    ) -> [(&'static str, String); 6] {
        let (event, cause) = match condition {
            RefreshCondition::Well { .. } => ("end", None),
            RefreshCondition::Trouble { cause, .. } => ("begin", Some(cause)),
        };
        let message = cause.map_or(WELL_AGAIN, |cause| cause.message.as_str()).replace('\n', " ");
        let message = Language::of_process().resolve(&message).into_owned();
        let errcode = cause.and_then(|cause| cause.errcode);
        let ticket = match self.kind {
            DocumentKind::Token => String::new(),
            DocumentKind::Ticket(kind) => kind.to_string(),
        };
        [
            ("WXTOKEN_TROUBLE", event.to_owned()),
            ("WXTOKEN_TROUBLE_ERRCODE", errcode.map(|code| code.to_string()).unwrap_or_default()),
            ("WXTOKEN_TROUBLE_MESSAGE", printable(&without_secrets(&message), MAX_MESSAGE)),
            ("WXTOKEN_TROUBLE_LIFE", self.life.as_secs().to_string()),
            ("WXTOKEN_TROUBLE_SINCE", rfc3339(since)),
            ("WXTOKEN_TROUBLE_TICKET", ticket),
        ]
    }
}
