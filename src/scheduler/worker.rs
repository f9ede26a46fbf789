//! Starts a scheduler's jobs, and follows the schedule. Running jobs keep the worker alive; the schedule ends with its
//! [`Scheduler`](super::Scheduler).

mod jobs;
mod trouble;

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::task::spawn_local;

use super::Environment;
use super::event::Event;
use super::job::{Connect, UpstreamConnection};
use super::on_change::OnChange;
use super::retry::{Moment, Readiness};
use super::settings::{Settings, SharedStore};
use super::state::{State, Step, messages};
use super::ticket::TicketSchedule;
use crate::log::debug;
use crate::model::account::Account;
use crate::model::document::Document;
use crate::model::kind::{DocumentName, TicketType};
use crate::model::secret::Secret;
use crate::model::status::{RefreshFailure, TokenDemand, Unavailable};
use crate::os::clock::timeout;
use crate::os::thread;
use crate::os::timestamp::Timestamp;
use crate::store::Stores;
use trouble::TroubleTeller;

/// How long a client waits for a token or ticket. The most impatient SDK, co-wechat-api, gives up after 3 s, and several
/// after 5 s; their exceptions show the URL, with the key in it.
pub(super) const MAX_WAIT: Duration = Duration::from_millis(2500);

/// How long a client waits after a report, for a probe and a request. Only clients that are made for wxtoken report.
const MAX_WAIT_FOR_REPORT: Duration = Duration::from_secs(10);

/// The longest time between two looks at the published documents: clocks may be set, and other processes publish too.
const MAX_SLEEP: Duration = Duration::from_secs(15);

/// How often `[redis] also` keys are kept in step with the document.
const ALSO_KEYS_INTERVAL: Duration = Duration::from_secs(30);

/// What to do next for a client that waits: return a result, or wait for a change, but no longer than until an instant.
type Next<T> = ControlFlow<Result<T, Unavailable>, Option<Instant>>;

/// The jobs of one account, and what they work with.
pub(super) struct Worker {
    settings: RefCell<Arc<Settings>>,
    pub(super) connection: Arc<UpstreamConnection>,
    pub(super) environment: Environment,
    pub(super) state: RefCell<State>,
    tickets: RefCell<Vec<Rc<Ticket>>>,
    /// Why the last request of the running job failed, while the job goes on with further ones.
    failed_attempt: RefCell<Option<String>>,
    pub(super) on_change: OnChange,
    teller: Rc<TroubleTeller>,
    /// The number of running tasks.
    running: Cell<usize>,
    /// Notified whenever waiting tasks have to decide anew.
    changed: Notify,
}

/// A configured ticket.
struct Ticket {
    kind: TicketType,
    store: SharedStore,
    schedule: RefCell<TicketSchedule>,
    teller: Rc<TroubleTeller>,
}

impl Ticket {
    fn new(kind: &TicketType, settings: &Settings, stores: &Stores) -> Rc<Ticket> {
        let store = settings.open_ticket_store(kind, stores);
        let (kind, schedule) = (kind.clone(), RefCell::default());
        Rc::new(Ticket { kind, store, schedule, teller: Rc::default() })
    }
}

impl Worker {
    pub(super) fn new(
        settings: Settings,
        connection: UpstreamConnection,
        environment: Environment,
    ) -> Worker {
        let Account { name, rules, refresh_before, tickets, .. } = &settings.account;
        let ticket = |kind| Ticket::new(kind, &settings, &environment.stores);
        let now = environment.clock.instant();
        let mut state = State::new(name, *rules, *refresh_before, now);
        if connection.is_connected() {
            state.note_secret();
        }
        Worker {
            state: RefCell::new(state),
            tickets: RefCell::new(tickets.iter().map(ticket).collect()),
            settings: RefCell::new(Arc::new(settings)),
            connection: Arc::new(connection),
            environment,
            failed_attempt: RefCell::default(),
            on_change: OnChange::default(),
            teller: Rc::default(),
            running: Cell::new(0),
            changed: Notify::new(),
        }
    }

    pub(super) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.borrow())
    }

    /// Takes changed tickets and changed hooks. Running jobs end with the old ones.
    pub(super) fn update(&self, account: Account, connect: Connect) {
        self.connection.set_connect(connect);
        if account.on_change != self.settings.borrow().account.on_change {
            self.on_change.forget_failure();
        }
        let settings = self.settings.borrow().with_account(account);
        let ticket = |kind: &TicketType| {
            let known = self.ticket(kind);
            known.unwrap_or_else(|| Ticket::new(kind, &settings, &self.environment.stores))
        };
        let tickets = settings.account.tickets.iter().map(ticket).collect();
        self.tickets.replace(tickets);
        self.settings.replace(Arc::new(settings));
        self.changed.notify_waiters();
    }

    fn ticket(&self, kind: &TicketType) -> Option<Rc<Ticket>> {
        self.tickets.borrow().iter().find(|ticket| ticket.kind == *kind).cloned()
    }

    /// Returns the last failure to refresh a ticket, if no success followed.
    pub(super) fn ticket_failure(&self, kind: &TicketType) -> Option<RefreshFailure> {
        self.ticket(kind)?.schedule.borrow().failure()
    }

    /// Follows the schedule, without end.
    pub(super) async fn follow_schedule(self: Rc<Worker>) {
        let mut synced_at = None;
        loop {
            let changed = self.changed.notified();
            let now = self.now();
            if synced_at.is_none_or(|at| now.duration_since(at) >= ALSO_KEYS_INTERVAL) {
                synced_at = Some(now);
                self.sync_also_keys();
            }
            // Without this a panic would end the schedule unnoticed.
            let wait = catch_unwind(AssertUnwindSafe(|| {
                self.tell_trouble();
                self.start_due()
            }));
            self.wait(wait.unwrap_or(MAX_SLEEP), changed).await;
        }
    }

    /// Keeps `[redis] also` keys in step, in a thread.
    fn sync_also_keys(&self) {
        let settings = self.settings();
        if !settings.token_store.has_also_keys() {
            return;
        }
        let environment = self.environment.clone();
        spawn_local(async move {
            let store = Arc::clone(&settings.token_store);
            let synced = run_blocking(&environment, move || store.sync_also_keys()).await;
            let name = &settings.account.name;
            match synced.and_then(|synced| synced) {
                Ok(()) => debug!("serve: {name}: what stands elsewhere is right"),
                Err(err) => debug!("serve: {name}: what stands elsewhere is as it was: {err:#}"),
            }
        });
    }

    /// Starts the jobs that are due. Returns the time until the next look.
    fn start_due(self: &Rc<Worker>) -> Duration {
        let settings = self.settings();
        let document = self.published(&settings.token_store);
        let Moment { wall, now, .. } = Moment::read(&*self.environment.clock);
        let (wait, job) = self.state.borrow_mut().next(document.as_ref(), wall, now);
        if wait.is_zero() && !self.state.borrow().is_running() {
            self.start_job(job);
        }
        let wait = if wait.is_zero() { MAX_SLEEP } else { wait.min(MAX_SLEEP) };
        match document.is_some_and(|document| self.is_live(&document, wall)) {
            true => wait.min(self.start_due_tickets(&settings, wall, now)),
            // A ticket is requested with a token; its publication leads to another look.
            false => wait,
        }
    }

    fn start_due_tickets(
        self: &Rc<Worker>,
        settings: &Settings,
        wall: Timestamp,
        now: Instant,
    ) -> Duration {
        let mut next = MAX_SLEEP;
        let tickets = self.tickets.borrow().clone();
        for ticket in tickets {
            let document = self.published(&ticket.store);
            let margin = settings.account.refresh_before;
            let wait = ticket.schedule.borrow().wait(document.as_ref(), margin, wall, now);
            match wait {
                Some(Duration::ZERO) => self.start_ticket_job(ticket),
                Some(wait) => next = next.min(wait),
                None => {}
            }
        }
        next
    }

    /// Returns what is published, if it belongs to the account. `None` also if the document is damaged or cannot be read:
    /// the refresh that follows reports that.
    fn published(&self, store: &SharedStore) -> Option<Document> {
        store.last_known().filter(|document| self.settings.borrow().account.owns(document))
    }

    fn is_live(&self, document: &Document, wall: Timestamp) -> bool {
        !document.left(wall).is_zero() && !self.state.borrow().is_dead(&document.token)
    }

    /// Returns the published token, if it lives and is not known to be dead.
    fn live_token(&self) -> Option<Secret> {
        let document = self.published(&self.settings().token_store)?;
        self.is_live(&document, self.environment.clock.now()).then_some(document.token)
    }

    /// Starts the jobs for a token that satisfies the demand, and waits until `look` finds it. `look` returns the published token if it
    /// lives and is not known to be dead. Fails after [`MAX_WAIT`], after a report [`MAX_WAIT_FOR_REPORT`]; the jobs go on.
    pub(super) async fn obtain<T>(
        self: &Rc<Worker>,
        demand: &TokenDemand,
        look: impl Fn() -> Option<(Rc<Secret>, T)>,
    ) -> Result<T, Unavailable> {
        let patience = match demand {
            TokenDemand::Live | TokenDemand::Verified(..) => MAX_WAIT,
            TokenDemand::OtherThan(..) | TokenDemand::OtherThanRefused(..) => MAX_WAIT_FOR_REPORT,
        };
        self.obtain_until(self.now() + patience, demand, look).await
    }

    async fn obtain_until<T>(
        self: &Rc<Worker>,
        deadline: Instant,
        demand: &TokenDemand,
        look: impl Fn() -> Option<(Rc<Secret>, T)>,
    ) -> Result<T, Unavailable> {
        self.wait_for(deadline, |now, is_late| {
            let found = look();
            let current = found.as_ref().map(|(token, _)| &**token);
            let step = self.state.borrow_mut().step(demand, current, now);
            match (step, found) {
                (Step::Fail(unavailable), _) => Next::Break(Err(unavailable)),
                (Step::Serve, Some((_, found))) => Next::Break(Ok(found)),
                // A suspicion alone is no reason to withhold a token.
                (_, Some((_, found))) if is_late && matches!(demand, TokenDemand::Verified(..)) => {
                    Next::Break(Ok(found))
                }
                (Step::Start(job), _) if !is_late => {
                    self.start_job(job);
                    Next::Continue(None)
                }
                (Step::Wait(until), _) => Next::Continue(until),
                _ => Next::Continue(None),
            }
        })
        .await
    }

    /// Starts the job for a ticket, and waits until `look` finds it. A ticket is requested with a token: `look_for_token` returns the
    /// published one if it lives and is not known to be dead. Fails after [`MAX_WAIT`].
    pub(super) async fn obtain_ticket<T, U>(
        self: &Rc<Worker>,
        kind: &TicketType,
        look_for_token: impl Fn() -> Option<(Rc<Secret>, U)>,
        look: impl Fn() -> Option<T>,
    ) -> Result<T, Unavailable> {
        let deadline = self.now() + MAX_WAIT;
        self.obtain_until(deadline, &TokenDemand::Live, look_for_token).await?;
        self.wait_for(deadline, |now, is_late| {
            if let Some(found) = look() {
                return Next::Break(Ok(found));
            }
            let Some(ticket) = self.ticket(kind) else {
                return Next::Break(Err(self.still_waiting()));
            };
            match ticket.schedule.borrow().retry.readiness(now) {
                Readiness::Failed(failure) => {
                    let name = &self.settings.borrow().account.name;
                    let with_want =
                        |cause: &String| messages::FOR_WANT_OF_TICKET.with([cause, name, kind]);
                    return Next::Break(Err(failure.unavailable(with_want, now)));
                }
                Readiness::NotBefore(at) => return Next::Continue(Some(at)),
                Readiness::Ready if !is_late => {}
                Readiness::Ready | Readiness::Running => return Next::Continue(None),
            }
            self.start_ticket_job(ticket);
            Next::Continue(None)
        })
        .await
    }

    /// Calls `next` until it returns a result: again after each change, and at the instants that it returns. `next` gets the
    /// time, and whether it is called for the last time.
    async fn wait_for<T>(
        &self,
        deadline: Instant,
        mut next: impl FnMut(Instant, bool) -> Next<T>,
    ) -> Result<T, Unavailable> {
        loop {
            let changed = self.changed.notified();
            let now = self.now();
            let until = match next(now, now >= deadline) {
                Next::Break(result) => return result,
                Next::Continue(_) if now >= deadline => return Err(self.still_waiting()),
                Next::Continue(until) => until.map_or(deadline, |until| until.min(deadline)),
            };
            self.wait(until.saturating_duration_since(now), changed).await;
        }
    }

    /// Returns the error for a client that has waited long enough.
    fn still_waiting(&self) -> Unavailable {
        let why = match &*self.failed_attempt.borrow() {
            Some(why) => messages::IS_ASKED_AGAIN.with([why]),
            None => messages::texts::IS_BEING_ASKED.to_owned(),
        };
        Unavailable { why, retry_after: Unavailable::DURING_ATTEMPT }
    }

    /// Waits for a change, for at most this long.
    async fn wait(&self, span: Duration, changed: Notified<'_>) {
        let _ = timeout(&*self.environment.clock, span, changed).await;
    }

    /// Lets everything be tried again at once.
    pub(super) fn retry_now(&self) {
        let now = self.now();
        self.state.borrow_mut().reset(now);
        if self.connection.is_connected() {
            self.state.borrow_mut().note_secret();
        }
        self.tickets.borrow().iter().for_each(|it| it.schedule.borrow_mut().retry.reset(now));
        self.changed.notify_waiters();
    }

    /// Runs a task of the event loop that [`Worker::idle`] waits for.
    fn spawn(self: &Rc<Worker>, task: impl AsyncFnOnce(Rc<Worker>) + 'static) {
        let worker = Rc::clone(self);
        worker.running.set(worker.running.get() + 1);
        spawn_local(async move {
            task(Rc::clone(&worker)).await;
            worker.running.set(worker.running.get() - 1);
            worker.changed.notify_waiters();
        });
    }

    /// Waits until no job and no hook is running.
    pub(super) async fn idle(&self) {
        loop {
            let changed = self.changed.notified();
            if self.running.get() == 0 {
                return;
            }
            changed.await;
        }
    }

    fn log(&self, events: Vec<Event>, ticket: Option<&TicketType>) {
        let settings = self.settings.borrow();
        let name = DocumentName { account: &settings.account.name, ticket };
        events.into_iter().for_each(|event| event.log(name));
    }

    fn now(&self) -> Instant {
        self.environment.clock.instant()
    }

    fn moment(&self) -> Moment {
        Moment::read(&*self.environment.clock)
    }
}

/// Runs blocking work in a thread, when there is a slot for it. Fails if it panics, or if there can be no more threads.
async fn run_blocking<T: Send + 'static>(
    environment: &Environment,
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    let _slot = environment.job_slots.acquire().await; // Never closed.
    Ok(thread::run_by(&*environment.clock, work).await?)
}
