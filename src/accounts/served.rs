//! One account that is served: its documents, and its scheduler if this process refreshes it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use hyper::body::Bytes;

use super::AccountResources;
use super::cached_document::{CachedDocument, TokenAge};
use super::messages::texts::{NO_TICKET, NO_TOKEN};
use super::plan::{AccountPlan, RefreshPlan};
use crate::model::account::Account;
use crate::model::client_key::opaque_token::TokenSeed;
use crate::model::kind::{DocumentKind, TicketType};
use crate::model::secret::Secret;
use crate::model::status::{
    AccountStatus, DocumentStatus, LiveToken, NoTicket, Problem, TokenDemand, Unavailable,
};
use crate::os::clock::Clock;
use crate::os::timestamp::Timestamp;
use crate::scheduler::{Connect, Scheduler};
use crate::upstream::Upstream;
use crate::upstream::connect::Connector;

/// One account that is served.
pub(super) struct ServedAccount {
    plan: AccountPlan,
    cached: Rc<RefCell<CachedDocument>>,
    /// `None` if this process does not refresh it.
    scheduler: Option<Rc<Scheduler>>,
}

impl ServedAccount {
    /// Serves an account for the first time. It asks `upstream`, if that could be connected.
    pub(super) fn new(
        plan: AccountPlan,
        upstream: Option<Arc<dyn Upstream>>,
        shared: &AccountResources,
    ) -> ServedAccount {
        let environment = &shared.environment;
        let scheduler = plan.refresh.as_ref().map(|refresh| {
            let connect = connect(refresh, &plan.account, &shared.connector);
            let (account, environment) = (plan.account.clone(), environment.clone());
            Rc::new(Scheduler::new(account, refresh.mode, upstream, connect, environment))
        });
        let cached = CachedDocument::new(plan.account.clone(), environment.stores.clone());
        ServedAccount { plan, cached: Rc::new(RefCell::new(cached)), scheduler }
    }

    /// Serves the account with a plan that continues this one ([`AccountPlan::is_continued_by`]), with the same documents
    /// and the same scheduler.
    pub(super) fn continued(&self, plan: AccountPlan, connector: &Arc<Connector>) -> ServedAccount {
        self.cached.borrow_mut().update(plan.account.clone());
        if let (Some(scheduler), Some(refresh)) = (&self.scheduler, &plan.refresh) {
            scheduler.update(plan.account.clone(), connect(refresh, &plan.account, connector));
        }
        ServedAccount { plan, cached: Rc::clone(&self.cached), scheduler: self.scheduler.clone() }
    }

    pub(super) fn plan(&self) -> &AccountPlan {
        &self.plan
    }

    pub(super) fn account(&self) -> &Account {
        &self.plan.account
    }

    pub(super) fn scheduler(&self) -> Option<&Rc<Scheduler>> {
        self.scheduler.as_ref()
    }

    /// Has the token's document looked at, however lately that was done.
    pub(super) fn forget_look(&self) {
        self.cached.borrow_mut().forget_look();
    }

    /// The token that is published, live, and not known to be dead.
    pub(super) fn current(&self, clock: &dyn Clock) -> Option<(Rc<Secret>, LiveToken)> {
        let mut cached = self.cached.borrow_mut();
        // Of most requests only the milliseconds are needed.
        let last = cached.last_answer(clock.uptime());
        let (secret, token) = last.or_else(|| cached.answer(clock.now()))?;
        let is_dead = self.scheduler().is_some_and(|scheduler| scheduler.is_dead(&secret));
        (!is_dead).then_some((secret, token))
    }

    /// Has a token refreshed as demanded if this process refreshes; otherwise returns the current one. `look` returns the
    /// current token.
    pub(super) async fn obtain<T>(
        &self,
        demand: &TokenDemand,
        look: impl Fn() -> Option<(Rc<Secret>, T)>,
    ) -> Result<T, Unavailable> {
        match self.scheduler() {
            Some(scheduler) => scheduler.obtain(demand, look).await,
            None => look().map(|(_, token)| token).ok_or_else(|| Unavailable::for_now(NO_TOKEN)),
        }
    }

    /// Returns a live ticket of this type as JSON. If this process refreshes, has it fetched if necessary. `look` returns
    /// the current token.
    pub(super) async fn ticket(
        &self,
        kind: &TicketType,
        clock: &dyn Clock,
        look: impl Fn() -> Option<(Rc<Secret>, LiveToken)>,
    ) -> Result<Bytes, NoTicket> {
        let find = || self.cached.borrow_mut().ticket(kind, clock.now());
        if let Some(ticket) = find() {
            return Ok(ticket);
        }
        // A ticket that is not configured here may be fetched by another process. An expired one is a sign of that.
        let is_configured = self.account().tickets.contains(kind);
        let is_published = || self.cached.borrow_mut().ticket_document(kind).is_some();
        if !is_configured && !is_published() {
            return Err(NoTicket::NotKept);
        }
        let Some(scheduler) = self.scheduler().filter(|_| is_configured) else {
            return Err(NoTicket::ForNow(Unavailable::for_now(NO_TICKET)));
        };
        scheduler.obtain_ticket(kind, look, find).await.map_err(NoTicket::ForNow)
    }

    /// Whether the published token belongs to this AppID. The last document that was read is looked at first, as a document
    /// seldom changes its AppID.
    pub(super) fn publishes_for(&self, appid: &str, now: Timestamp) -> bool {
        let mut cached = self.cached.borrow_mut();
        cached.last_document().is_some_and(|document| document.appid == appid)
            || cached.document(now).is_some_and(|document| document.appid == appid)
    }

    /// Whether this is the account's token, or was within the overlap after its replacement.
    pub(super) fn is_token(&self, token: &str, now: Timestamp) -> bool {
        let is_dead = self.scheduler().is_some_and(|scheduler| scheduler.was_found_dead(token));
        !is_dead && self.cached.borrow_mut().is_token(token, now)
    }

    /// Whether this is the account's token, or was for as long as an SDK may still send it. It may have expired or be dead.
    pub(super) fn recognize(&self, token: &str, now: Timestamp) -> Option<TokenAge> {
        self.cached.borrow_mut().recognize(token, now)
    }

    /// Finds one of the account's tokens that are recognized, by its seed. The token is not known if it was replaced before
    /// this process began.
    pub(super) fn find_by_seed(
        &self,
        now: Timestamp,
        is_wanted: impl Fn(&TokenSeed) -> bool,
    ) -> Option<(Option<Rc<Secret>>, TokenAge)> {
        self.cached.borrow_mut().find_by_seed(now, is_wanted)
    }

    /// The account's status, for people and for metrics.
    pub(super) fn status(&self, now: Timestamp) -> AccountStatus {
        let (account, scheduler) = (self.account(), self.scheduler());
        let mut cached = self.cached.borrow_mut();
        let look = |kind: &DocumentKind| {
            let document = match kind {
                DocumentKind::Token => cached.document(now),
                DocumentKind::Ticket(kind) => cached.ticket_document(kind),
            };
            let is_dead = document
                .zip(scheduler)
                .is_some_and(|(document, scheduler)| scheduler.is_dead(&document.token));
            let failure = scheduler.and_then(|scheduler| scheduler.failure(kind));
            let document = document.ok_or(Problem::Missing);
            DocumentStatus { is_dead, failure, ..DocumentStatus::new(account, kind, document, now) }
        };
        AccountStatus::new(account, look, scheduler.map(|scheduler| scheduler.status()))
    }
}

/// What connects the account to its upstream again.
fn connect(plan: &RefreshPlan, account: &Account, connector: &Arc<Connector>) -> Connect {
    let (plan, account, connector) = (plan.clone(), account.clone(), Arc::clone(connector));
    Arc::new(move || plan.reconnect(&account, &connector))
}
