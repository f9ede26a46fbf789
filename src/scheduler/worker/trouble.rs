//! Tells `on_trouble` of the trouble with the account's documents, in a thread for each. A part of [`Worker`].

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use time::UtcDateTime;

use super::Worker;
use crate::log::{OnceUntilChanged, error, info};
use crate::message::action_first;
use crate::model::kind::DocumentKind;
use crate::model::secret::Secret;
use crate::model::status::{DocumentStatus, HookStatus, Problem};
use crate::os::hook::{HAS_RUN, HookKind, NOT_RUN};
use crate::os::thread;
use crate::refresh::trouble::{RefreshCondition, Telling, TroubleCause, TroubleSubject};
use crate::scheduler::settings::SharedStore;
use crate::store::TroubleEvent;

/// The pause before `on_trouble` is told again what it could not be told.
const RETRY: Duration = Duration::from_secs(60);

/// What `on_trouble` has been told of one document by this process.
#[derive(Default)]
pub(in crate::scheduler) struct TroubleTeller {
    is_running: Cell<bool>,
    /// What the hook knows; `None` if only the record can tell.
    known: Cell<Option<TroubleEvent>>,
    not_before: Cell<Option<Instant>>,
    failure: RefCell<OnceUntilChanged>,
    /// When telling it last failed, if no success followed.
    failed_at: Cell<Option<UtcDateTime>>,
}

impl TroubleTeller {
    fn is_wanted(&self, event: TroubleEvent, now: Instant) -> bool {
        let is_early = self.not_before.get().is_some_and(|at| now < at);
        !self.is_running.get() && self.known.get() != Some(event) && !is_early
    }

    fn note(&self, event: TroubleEvent, is_known: bool, now: Instant) {
        self.is_running.set(false);
        match is_known {
            true => (self.known.set(Some(event)), self.not_before.set(None)),
            false => ((), self.not_before.set(Some(now + RETRY))),
        };
    }
}

impl Worker {
    /// Tells `on_trouble` in the background what it does not know yet, of the token and of the tickets.
    pub(in crate::scheduler) fn tell_trouble(self: &Rc<Worker>) {
        let settings = self.settings();
        let account = &settings.account;
        if account.on_trouble.is_none() {
            return;
        }
        let wall = self.environment.clock.now();
        let (document, kind) = (self.published(&settings.token_store), DocumentKind::Token);
        let status =
            DocumentStatus::new(account, &kind, document.as_ref().ok_or(Problem::Missing), wall);
        let token = document.map(|document| document.token);
        let (failure, is_dead, has_succeeded) = {
            let state = self.state.borrow();
            let is_dead = token.as_ref().is_some_and(|token| state.is_dead(token));
            (state.cause(self.now()), is_dead, state.status().succeeded_at.is_some())
        };
        let life = if is_dead { Duration::ZERO } else { status.life() };
        let is_due = status.published.is_ok_and(|it| it.is_due) && !has_succeeded;
        let condition = match failure {
            Some(cause) => {
                self.trouble(cause, account.refresh_before, life, || token.filter(|_| is_dead))
            }
            None if life.is_zero() || is_due => None,
            None => Some(RefreshCondition::Well { kept: token }),
        };
        let store = Arc::clone(&settings.token_store);
        self.tell(&self.teller, kind, store, condition, life);
        if life.is_zero() {
            return; // A ticket is requested with a token.
        }
        let tickets = self.tickets.borrow().clone();
        for ticket in tickets {
            let kind = DocumentKind::Ticket(ticket.kind.clone());
            let document = self.published(&ticket.store);
            let published = document.as_ref().ok_or(Problem::Missing);
            let status = DocumentStatus::new(account, &kind, published, wall);
            let margin = account.refresh_before;
            let margin = document.as_ref().map_or(margin, |it| it.ticket_margin(margin));
            let life = status.life();
            let condition = match ticket.schedule.borrow().cause() {
                Some(cause) => self.trouble(cause, margin, life, || None),
                None if life.is_zero() || status.published.is_ok_and(|it| it.is_due) => None,
                None => Some(RefreshCondition::Well { kept: None }),
            };
            self.tell(&ticket.teller, kind, Arc::clone(&ticket.store), condition, life);
        }
    }

    /// Returns the status of `on_trouble`: its last failure about any document.
    pub(in crate::scheduler) fn trouble_hook_status(&self) -> HookStatus {
        let tickets = self.tickets.borrow();
        let tellers = tickets.iter().map(|ticket| &ticket.teller).chain([&self.teller]);
        HookStatus { failed_at: tellers.filter_map(|teller| teller.failed_at.get()).max() }
    }

    /// Returns the condition of a document whose refresh fails for this cause, if that is known and is trouble.
    fn trouble(
        &self,
        cause: Option<TroubleCause>,
        margin: Duration,
        life: Duration,
        rejected: impl FnOnce() -> Option<Secret>,
    ) -> Option<RefreshCondition> {
        let cause = cause?;
        cause
            .is_trouble(&self.settings.borrow().account, margin, life)
            .then(|| RefreshCondition::Trouble { cause, rejected: rejected() })
    }

    fn tell(
        self: &Rc<Worker>,
        teller: &Rc<TroubleTeller>,
        kind: DocumentKind,
        store: SharedStore,
        condition: Option<RefreshCondition>,
        life: Duration,
    ) {
        let Some(condition) = condition else { return };
        let event = condition.event();
        if !teller.is_wanted(event, self.now()) {
            return;
        }
        teller.is_running.set(true);
        let (teller, settings) = (Rc::clone(teller), self.settings());
        let (clock, is_stopped) = (Arc::clone(&self.environment.clock), self.on_change.stop_flag());
        self.spawn(async move |worker| {
            let _permit = worker.environment.hook_slots.acquire().await; // Never closed.
            let name = settings.account.name.clone();
            let told = thread::run_by(&*worker.environment.clock, move || {
                let (account, kind, store) = (&settings.account, &kind, &*store);
                let subject = TroubleSubject { account, kind, store, clock: &*clock, life };
                subject.tell(&condition, &|| is_stopped.load(Ordering::Relaxed))
            });
            let (is_known, failure) = match told.await {
                Ok(Telling::Told) => {
                    let ran = HAS_RUN.with([&HookKind::OnTrouble.key()]);
                    info!(event = "hook_ran", account = name; "serve: {name}: {ran}");
                    (true, None)
                }
                Ok(Telling::Needless) => (true, None),
                Ok(Telling::Later) => (false, None),
                Ok(Telling::Failed(failure)) => (false, Some(failure.to_string())),
                Err(err) => {
                    let said = NOT_RUN.quoting([&HookKind::OnTrouble.key()], err);
                    (false, Some(action_first(&said)))
                }
            };
            teller.note(event, is_known, worker.now());
            if is_known || failure.is_some() {
                let now = worker.environment.clock.now().wall;
                teller.failed_at.set(failure.is_some().then_some(now));
            }
            match failure {
                Some(failure) if teller.failure.borrow_mut().is_new(&failure) => {
                    error!(event = "hook_failed", account = name; "serve: {name}: {failure}");
                }
                Some(_) => {}
                None => teller.failure.borrow_mut().reset(),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_on_trouble_knows_is_not_told_and_what_it_could_not_be_told_comes_again_after_a_minute()
    {
        use TroubleEvent::{Begin, End};
        let (teller, now) = (TroubleTeller::default(), Instant::now());
        assert!(teller.is_wanted(Begin, now));
        teller.is_running.set(true);
        assert!(!teller.is_wanted(Begin, now) && !teller.is_wanted(End, now));
        teller.note(Begin, false, now);
        assert!(!teller.is_wanted(Begin, now + RETRY - Duration::from_nanos(1)));
        assert!(teller.is_wanted(Begin, now + RETRY));
        teller.note(Begin, true, now);
        assert!(!teller.is_wanted(Begin, now + RETRY) && teller.is_wanted(End, now));
    }
}
