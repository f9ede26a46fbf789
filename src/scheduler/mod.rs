//! Keeps one account's token and tickets fresh inside `serve --refresh`: on schedule, when a client finds none, and when a client reports
//! that WeChat rejected the token. One job at a time runs for each document, all clients that wait share its result, and failures are
//! remembered, so that many clients cause no more requests than one.
//!
//! [`State`](state::State) decides what to do, and does nothing itself. [`Worker`] starts what it decides. A [`Job`](job::Job) does the
//! blocking work in a thread. The rest runs on the server's thread, as local tasks. Time comes from a [`Clock`].

mod backoff;
mod event;
mod job;
mod on_change;
mod quota;
mod retry;
mod settings;
mod state;
mod ticket;
mod worker;

#[cfg(test)]
pub(crate) use event::{ALL as EVENT_MESSAGES, NOTES as EVENT_NOTES};
#[cfg(test)]
pub(crate) use state::messages::{
    ALL as UNAVAILABLE_MESSAGES, NOTES as UNAVAILABLE_NOTES, texts::ALL as UNAVAILABLE_TEXTS,
};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_local};

use crate::model::account::Account;
use crate::model::kind::{DocumentKind, TicketType};
use crate::model::secret::Secret;
use crate::model::status::{
    RefreshFailure, RefreshStatus, TokenDemand, TokenEvidence, Unavailable,
};
use crate::os::clock::Clock;
use crate::sabotage::{Bug, has_bug};
use crate::store::Stores;
use crate::upstream::Upstream;

pub(crate) use job::Connect;
use job::UpstreamConnection;
use settings::Settings;
use worker::Worker;

/// How many accounts are refreshed at once, each in a thread; the others wait for their turn.
pub(crate) const MAX_JOBS: usize = 16;

/// How many descriptors a refresh has open at most. Eight for itself: its lock, the directory twice, the new document and a shortened
/// one, the record with its directory, and a socket or the lookup of a name. Four for the start of the last refresh's hook.
pub(crate) const JOB_DESCRIPTORS: u64 = 8 + 4;

/// How many hooks of all accounts run at once, each in a thread.
const MAX_HOOKS: usize = 16;

/// What all schedulers of a server share.
#[derive(Clone)]
pub(crate) struct Environment {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stores: Stores,
    job_slots: Arc<Semaphore>,
    hook_slots: Arc<Semaphore>,
}

impl Environment {
    pub(crate) fn new(clock: Arc<dyn Clock>, stores: Stores) -> Environment {
        let [job_slots, hook_slots] =
            [MAX_JOBS, MAX_HOOKS].map(|max| Arc::new(Semaphore::new(max)));
        Environment { clock, stores, job_slots, hook_slots }
    }

    /// Limits how many jobs, and how many hooks, run at once. Called before the first of them starts.
    pub(crate) fn limit_jobs(&self, jobs: usize) {
        self.job_slots.forget_permits(MAX_JOBS.saturating_sub(jobs.max(1)));
        self.hook_slots.forget_permits(MAX_HOOKS.saturating_sub(jobs.max(1)));
    }
}

/// Keeps one account's token and tickets fresh. Dropping it ends the schedule; jobs that are running finish.
pub(crate) struct Scheduler {
    worker: Rc<Worker>,
    schedule: RefCell<Option<JoinHandle<()>>>,
}

impl Scheduler {
    /// Returns a scheduler for an account whose document files have this `mode`. Without an `upstream` it connects when a job needs one.
    pub(crate) fn new(
        account: Account,
        mode: u32,
        upstream: Option<Arc<dyn Upstream>>,
        connect: Connect,
        environment: Environment,
    ) -> Scheduler {
        let connection = UpstreamConnection::new(&account.name, connect, upstream);
        let settings = Settings::new(account, mode, &environment.stores);
        let worker = Rc::new(Worker::new(settings, connection, environment));
        Scheduler { worker, schedule: RefCell::default() }
    }

    /// Takes changed settings of the same account: tickets, hooks, `connect`. What is known of its token, its quotas and its running jobs
    /// stay. The upstream stays until it is connected again.
    pub(crate) fn update(&self, account: Account, connect: Connect) {
        self.worker.update(account, connect);
    }

    /// Starts the schedule, unless it is running.
    pub(crate) fn start(&self) {
        let worker = Rc::clone(&self.worker);
        self.schedule.borrow_mut().get_or_insert_with(|| spawn_local(worker.follow_schedule()));
    }

    /// Ends the schedule. A running hook is stopped after a moment.
    pub(crate) fn stop(&self) {
        self.end_schedule();
        self.worker.on_change.stop(&self.worker.environment);
    }

    /// Waits until no job and no hook is running.
    pub(crate) async fn idle(&self) {
        self.worker.idle().await;
    }

    /// Returns the connection to the upstream, for a thread that connects it again.
    pub(crate) fn connection(&self) -> Arc<UpstreamConnection> {
        Arc::clone(&self.worker.connection)
    }

    /// Lets everything be tried again at once, because the operator may have fixed the cause of a failure.
    pub(crate) fn retry_now(&self) {
        self.worker.retry_now();
    }

    /// Whether WeChat has said that this token is dead. A dead token is not handed out, whatever life it has left.
    pub(crate) fn is_dead(&self, token: &Secret) -> bool {
        let state = self.worker.state.borrow();
        state.is_dead(token) && !(has_bug(Bug::VerdictHeldBack) && state.is_running())
    }

    /// Whether this is the last token that WeChat has called dead, published or replaced. It authorizes nothing.
    pub(crate) fn was_found_dead(&self, token: &str) -> bool {
        self.worker.state.borrow().was_found_dead(token)
    }

    /// Returns what is known of this token from asking WeChat lately.
    pub(crate) fn evidence(&self, token: &Secret) -> TokenEvidence {
        let now = self.worker.environment.clock.instant();
        self.worker.state.borrow().evidence(token, now)
    }

    /// Starts the jobs for a token that satisfies the demand, and waits some seconds until `look` finds it. `look` returns the published
    /// token if it lives and is not known to be dead.
    pub(crate) async fn obtain<T>(
        &self,
        demand: &TokenDemand,
        look: impl Fn() -> Option<(Rc<Secret>, T)>,
    ) -> Result<T, Unavailable> {
        self.worker.obtain(demand, look).await
    }

    /// Starts the jobs for a ticket, and for the token with which it is requested, and waits some seconds until `look` finds the ticket.
    /// `look_for_token` returns the published token if it lives and is not known to be dead.
    pub(crate) async fn obtain_ticket<T, U>(
        &self,
        kind: &TicketType,
        look_for_token: impl Fn() -> Option<(Rc<Secret>, U)>,
        look: impl Fn() -> Option<T>,
    ) -> Result<T, Unavailable> {
        self.worker.obtain_ticket(kind, look_for_token, look).await
    }

    /// Returns the last failure to refresh the document of this kind, if no success followed.
    pub(crate) fn failure(&self, kind: &DocumentKind) -> Option<RefreshFailure> {
        match kind {
            DocumentKind::Token => self.worker.state.borrow().failure(),
            DocumentKind::Ticket(kind) => self.worker.ticket_failure(kind),
        }
    }

    /// Returns what is known of refreshing the account, for people and metrics.
    pub(crate) fn status(&self) -> RefreshStatus {
        let settings = self.worker.settings();
        let hook = settings.account.on_change.is_some().then(|| self.worker.on_change.status());
        let trouble_hook = settings.account.on_trouble.is_some();
        let trouble_hook = trouble_hook.then(|| self.worker.trouble_hook_status());
        RefreshStatus { hook, trouble_hook, ..self.worker.state.borrow().status() }
    }

    fn end_schedule(&self) {
        if let Some(schedule) = self.schedule.take() {
            schedule.abort();
        }
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.end_schedule();
    }
}

#[cfg(test)]
mod tests;
