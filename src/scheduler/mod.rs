//! Keeps one account's token alive inside of `serve --refresh`: on schedule, and when somebody finds none or says that
//! WeChat rejected it. One errand at a time, for all who wait for what comes of it; what came of it is remembered, so
//! that nobody asks WeChat in vain for each of many.
//!
//! Runs on the listener's thread, in its `LocalSet`, and waits for the network in another one.

mod backoff;
mod quota;
mod job;
mod on_change;
mod state;
mod ticket;
mod retry;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use time::UtcDateTime;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_blocking, spawn_local};

use crate::log::{debug, error, info};
use crate::model::account::Account;
use crate::model::document::Document;
use crate::model::kind::{DocumentKind, TicketType};
use crate::model::secret::Secret;
use crate::model::status::{RefreshFailure, RefreshStatus, TokenRequest, Unavailable};
use crate::os::clock::{Clock, SystemClock, timeout};
use crate::refresh::{Outcome, RefreshError};
use crate::store::{Store, Stores};
use crate::upstream::Upstream;
pub(crate) use on_change::MOST_HOOKS;

use job::{Job, JobContext, Report};
use on_change::OnChange;
use state::{News, State, Step};
use ticket::{TicketSchedule, TicketStep};

/// How long a client waits for a token; SDKs give up after 5 to 30 s.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The schedule looks at least this often at what there is: clocks are set, and others publish too.
const LONGEST_SLEEP: Duration = Duration::from_secs(15);

/// How often it is seen to what stands elsewhere for others.
const BETWEEN_MENDINGS: Duration = Duration::from_secs(30);

/// Connects to the upstream again: reads the AppSecret, which may have been replaced. `None` if it cannot be read again.
/// Called on other threads than the listener's.
pub(crate) type Connect = Arc<dyn Fn() -> anyhow::Result<Option<Arc<dyn Upstream>>> + Send + Sync>;

/// What keeps one account's token alive.
pub(crate) struct Scheduler {
    account: Account,
    stores: Stores,
    /// The mode of its documents.
    mode: u32,
    store: Arc<dyn Store + Send + Sync>,
    connect: RefCell<Connect>,
    /// `None` until `connect` succeeds.
    upstream: RefCell<Option<Arc<dyn Upstream>>>,
    known: RefCell<State>,
    tickets: RefCell<Vec<ScheduledTicket>>,
    on_change: OnChange,
    /// Whoever waits has to think again.
    changed: Notify,
}

/// A ticket's schedule, and where its documents are published.
struct ScheduledTicket {
    schedule: TicketSchedule,
    store: Arc<dyn Store + Send + Sync>,
}

impl Scheduler {
    /// A scheduler for an account whose document is published with `mode`. It asks `upstream`, until `connect` makes another;
    /// where there is none yet, `connect` has to make it when it is needed.
    pub(crate) fn new(
        account: Account,
        stores: &Stores,
        mode: u32,
        upstream: Option<Arc<dyn Upstream>>,
        connect: Connect,
    ) -> Scheduler {
        let known =
            State::new(&account.name, account.rules, account.refresh_before, Instant::now());
        let scheduler = Scheduler {
            store: stores.open(&account.location, &DocumentKind::Token, mode),
            stores: stores.clone(),
            on_change: OnChange::of(&account),
            mode,
            connect: RefCell::new(connect),
            upstream: RefCell::new(upstream),
            known: RefCell::new(known),
            tickets: RefCell::default(),
            changed: Notify::new(),
            account,
        };
        scheduler.set_tickets(&scheduler.account.tickets);
        scheduler
    }

    /// Goes on with another configuration of the same account, which differs in its tickets, its hook and `connect` at
    /// most. What is known of the account stays, quotas included.
    pub(crate) fn update(&self, account: &Account, connect: Connect) {
        self.connect.replace(connect);
        self.on_change.set_hook(account.on_change.as_ref());
        self.set_tickets(&account.tickets);
        self.changed.notify_waiters();
    }

    /// Schedules tickets of these types. Those that are scheduled already go on.
    fn set_tickets(&self, kinds: &[TicketType]) {
        let mut before = self.tickets.take();
        let scheduled = |kind: &TicketType| {
            let known = before.iter().position(|it| it.schedule.kind == *kind);
            known.map(|index| before.swap_remove(index)).unwrap_or_else(|| ScheduledTicket {
                schedule: TicketSchedule::new(kind.clone()),
                store: self.stores.open(
                    &self.account.location,
                    &DocumentKind::Ticket(kind.clone()),
                    self.mode,
                ),
            })
        };
        self.tickets.replace(kinds.iter().map(scheduled).collect());
    }

    /// Applies `act` to the ticket of this type, if it is still scheduled.
    fn with_ticket<R>(
        &self,
        kind: &TicketType,
        act: impl FnOnce(&mut ScheduledTicket) -> R,
    ) -> Option<R> {
        self.tickets.borrow_mut().iter_mut().find(|it| it.schedule.kind == *kind).map(act)
    }

    /// Whether WeChat has said that this token is dead: it is nobody's answer then, whatever life it had left.
    pub(crate) fn is_dead(&self, token: &Secret) -> bool {
        self.known.borrow().is_dead(token)
    }

    /// Refreshes whenever it is time, for ever.
    pub(crate) fn keep(self: &Rc<Scheduler>) -> JoinHandle<()> {
        let scheduler = Rc::clone(self);
        spawn_local(async move {
            let mut mended_at = None;
            loop {
                let changed = scheduler.changed.notified();
                if mended_at.is_none_or(|at: Instant| at.elapsed() >= BETWEEN_MENDINGS) {
                    mended_at = Some(Instant::now());
                    scheduler.mend();
                }
                // The schedule has nobody who would notice its end.
                let wait = catch_unwind(AssertUnwindSafe(|| scheduler.follow_schedule()));
                let _ = timeout(&SystemClock, wait.unwrap_or(LONGEST_SLEEP), changed).await;
            }
        })
    }

    /// Has it seen to, in a thread of its own, that what stands elsewhere for others is right.
    fn mend(&self) {
        if !self.store.has_also_keys() {
            return;
        }
        let (store, name) = (Arc::clone(&self.store), self.account.name.clone());
        drop(spawn_blocking(move || match store.sync_also_keys() {
            Ok(()) => debug!("serve: {name}: what stands elsewhere is right"),
            Err(err) => debug!("serve: {name}: what stands elsewhere is as it was: {err:#}"),
        }));
    }

    /// The published document, if it is this account's; `None` also where there is damage, or a fault that the refresh will
    /// tell of.
    fn published(&self) -> Option<Document> {
        self.store.last_known().filter(|document| self.account.owns(document))
    }

    /// The token that is published now, lives, and is not known to be dead.
    fn live_token(&self) -> Option<Secret> {
        let document = self.published()?;
        let is_live = !document.left(SystemClock.now()).is_zero() && !self.is_dead(&document.token);
        is_live.then_some(document.token)
    }

    /// Begins what is due, and says how long it is until one has to look again if nothing changes.
    fn follow_schedule(self: &Rc<Scheduler>) -> Duration {
        let document = self.published();
        let (wall, now) = (SystemClock.now(), Instant::now());
        let (wait, errand) = self.known.borrow_mut().next(document.as_ref(), wall, now);
        if wait.is_zero() && !self.is_under_way() {
            self.begin(errand);
        }
        let is_live = |it: &Document| !it.left(wall).is_zero() && !self.is_dead(&it.token);
        let tickets_wait = match document.as_ref().is_some_and(is_live) {
            true => self.follow_tickets(wall, now),
            // Each is asked for with a token; when there is one, this is thought through again.
            false => LONGEST_SLEEP,
        };
        let wait = if wait.is_zero() { LONGEST_SLEEP } else { wait.min(LONGEST_SLEEP) };
        wait.min(tickets_wait)
    }

    /// Begins what is due of the tickets, and says how long it is until the next one is.
    fn follow_tickets(self: &Rc<Scheduler>, wall: UtcDateTime, now: Instant) -> Duration {
        let mut next = LONGEST_SLEEP;
        let mut due = Vec::new();
        for ScheduledTicket { schedule, store } in &*self.tickets.borrow() {
            let document = store.last_known().filter(|document| self.account.owns(document));
            let margin = self.account.refresh_before;
            match schedule.wait(document.as_ref(), margin, wall, now) {
                Some(Duration::ZERO) => due.push(schedule.kind.clone()),
                Some(wait) => next = next.min(wait),
                None => {}
            }
        }
        due.into_iter().for_each(|kind| self.begin_ticket(kind));
        next
    }

    /// Has a ticket fetched, whoever goes on waiting for it. Where WeChat says that the token for it is dead, that is settled
    /// as it is for a client who says so, and then it is asked for once more.
    fn begin_ticket(self: &Rc<Scheduler>, kind: TicketType) {
        self.with_ticket(&kind, |ticket| ticket.schedule.begin(Instant::now()));
        let scheduler = Rc::clone(self);
        spawn_local(async move {
            let token = scheduler.live_token();
            let (mut outcome, mut heals_in) = (scheduler.ask_for_ticket(&kind).await, None);
            if let (Err(RefreshError::Upstream(why)), Some(token)) = (&outcome, token)
                && why.is_dead_token()
            {
                match scheduler.replace(&token).await {
                    Ok(another) if another != token => {
                        outcome = scheduler.ask_for_ticket(&kind).await;
                    }
                    // WeChat honours it all the same.
                    Ok(_) => {}
                    Err(lack) => heals_in = Some(lack.retry_after),
                }
            }
            let (wall, now, random) = (SystemClock.now(), Instant::now(), SystemClock.random());
            let news = scheduler.with_ticket(&kind, |ticket| {
                ticket.schedule.end(outcome, heals_in, wall, now, random)
            });
            scheduler.changed.notify_waiters();
            let name = format!("{}: {kind} ticket", scheduler.account.name);
            news.into_iter().flatten().for_each(|news| tell(&name, news));
        });
    }

    /// Asks for a ticket in a thread of its own.
    async fn ask_for_ticket(&self, kind: &TicketType) -> Result<Outcome, RefreshError> {
        let store = self.with_ticket(kind, |ticket| Arc::clone(&ticket.store));
        let store = store.with_context(|| format!("{kind} tickets are not kept any more"))?;
        let kind = kind.clone();
        self.run(move |context| context.run_ticket(&kind, &*store)).await?
    }

    /// Sees to it that there is another token than this one, unless WeChat honours it; gives the one that there is then.
    async fn replace(self: &Rc<Scheduler>, token: &Secret) -> Result<Secret, Unavailable> {
        let look = || self.live_token().map(|token| (Rc::new(token.clone()), token));
        self.obtain(&TokenRequest::OtherThan(token.clone()), look).await
    }

    /// Sees to it that `look` finds the ticket of this type, where the token lives. It waits, but no longer than a client
    /// does.
    pub(crate) async fn obtain_ticket<T>(
        self: &Rc<Scheduler>,
        kind: &TicketType,
        look: impl Fn() -> Option<T>,
    ) -> Result<T, Unavailable> {
        let deadline = Instant::now() + LONGEST_WAIT;
        loop {
            let changed = self.changed.notified();
            if let Some(found) = look() {
                return Ok(found);
            }
            let now = Instant::now();
            let step = self.with_ticket(kind, |it| it.schedule.step(&self.account.name, now));
            let Some(step) = step.filter(|_| now < deadline) else { return Err(still_waiting()) };
            let until = match step {
                TicketStep::GiveUp(lack) => return Err(lack),
                TicketStep::Begin => {
                    self.begin_ticket(kind.clone());
                    deadline
                }
                TicketStep::Wait(until) => until.map_or(deadline, |until| until.min(deadline)),
            };
            let _ = timeout(&SystemClock, SystemClock.until(until), changed).await;
        }
    }

    /// Sees to it that `look` finds a token as wished, and gives what is found then. It waits, but no longer than a client
    /// does. `look` gives what is published, lives, and is not dead.
    pub(crate) async fn obtain<T>(
        self: &Rc<Scheduler>,
        wish: &TokenRequest,
        look: impl Fn() -> Option<(Rc<Secret>, T)>,
    ) -> Result<T, Unavailable> {
        let deadline = Instant::now() + LONGEST_WAIT;
        loop {
            let changed = self.changed.notified();
            let found = look();
            let (current, now) = (found.as_ref().map(|(token, _)| &**token), Instant::now());
            let step = self.known.borrow_mut().step(wish, current, now);
            let until = match (step, found) {
                (Step::GiveUp(lack), _) => return Err(lack),
                (Step::HandOut, Some((_, found))) => return Ok(found),
                // A hint alone is no reason to keep a token back.
                (_, Some((_, found))) if now >= deadline && *wish == TokenRequest::Verified => {
                    return Ok(found);
                }
                _ if now >= deadline => return Err(still_waiting()),
                (Step::Begin(errand), _) => {
                    self.begin(errand);
                    deadline
                }
                (Step::Wait(until), _) => until.map_or(deadline, |until| until.min(deadline)),
                (Step::HandOut, None) => deadline,
            };
            // Whether time has passed or something has changed: what is next is thought through again.
            let _ = timeout(&SystemClock, SystemClock.until(until), changed).await;
        }
    }

    /// Has this done in a thread of its own, whoever goes on waiting for it.
    fn begin(self: &Rc<Scheduler>, errand: Job) {
        self.known.borrow_mut().begin(errand.clone(), Instant::now());
        let scheduler = Rc::clone(self);
        spawn_local(async move {
            let report = scheduler.run(move |context| context.run(errand)).await;
            let report = report.unwrap_or_else(|failure| Report {
                outcome: Some(Err(RefreshError::Local(failure))),
                ..Report::default()
            });
            let is_another = matches!(report.outcome, Some(Ok(Outcome::Renewed(_))));
            let (wall, now, random) = (SystemClock.now(), Instant::now(), SystemClock.random());
            let news = scheduler.known.borrow_mut().end(report, wall, now, random);
            scheduler.changed.notify_waiters();
            news.into_iter().for_each(|news| tell(&scheduler.account.name, news));
            if is_another {
                scheduler.on_change.run().await;
                scheduler.changed.notify_waiters();
            }
        });
    }

    /// Runs `work` on another thread, after connecting there if that has not succeeded yet. Fails if it does not succeed
    /// now.
    async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce(&JobContext) -> R + Send + 'static,
    ) -> anyhow::Result<R> {
        let connect = Arc::clone(&self.connect.borrow());
        let (account, store) = (self.account.clone(), Arc::clone(&self.store));
        let upstream = self.upstream.borrow().clone();
        let done = spawn_blocking(move || {
            let upstream = match upstream {
                Some(upstream) => upstream,
                None => connect()?.context("there is no AppSecret")?,
            };
            let context = JobContext {
                appid: account.needed_appid()?.to_owned(),
                name: account.name,
                place: account.location,
                rules: account.rules,
                refresh_before: account.refresh_before,
                store,
                upstream: Arc::clone(&upstream),
            };
            anyhow::Ok((work(&context), upstream))
        });
        let (result, upstream) = done.await.unwrap_or_else(|_| Err(broke_off()))?;
        self.upstream.borrow_mut().get_or_insert(upstream);
        Ok(result)
    }

    fn is_under_way(&self) -> bool {
        self.known.borrow().is_under_way()
    }

    /// Nobody waits for long any more.
    pub(crate) fn wind_up(&self) {
        self.on_change.wind_up();
    }

    /// Waits for what is under way.
    pub(crate) async fn settled(&self) {
        loop {
            let changed = self.changed.notified();
            let tickets = self.tickets.borrow().iter().any(|it| it.schedule.is_under_way());
            if !self.is_under_way() && !tickets && !self.on_change.is_under_way() {
                return;
            }
            changed.await;
        }
    }

    /// Connects to the upstream again; see [`Scheduler::hangup`].
    pub(crate) fn connect(&self) -> Connect {
        Arc::clone(&self.connect.borrow())
    }

    /// Asks `upstream` from now on, and asks at once what was put off, as the operator may have removed the cause.
    pub(crate) fn hangup(&self, upstream: anyhow::Result<Option<Arc<dyn Upstream>>>) {
        match upstream {
            Ok(Some(upstream)) => drop(self.upstream.replace(Some(upstream))),
            Ok(None) => {}
            // That there is none yet is told when it is asked for, which is now.
            Err(_) if self.upstream.borrow().is_none() => {}
            Err(err) => {
                error!("serve: {}: {err:#}; the last good AppSecret stays", self.account.name);
            }
        }
        self.known.borrow_mut().hangup(Instant::now());
        self.tickets.borrow_mut().iter_mut().for_each(|it| it.schedule.hangup(Instant::now()));
        self.changed.notify_waiters();
    }

    /// The last failure to refresh the document of this kind, if no success followed.
    pub(crate) fn failure(&self, kind: &DocumentKind) -> Option<RefreshFailure> {
        match kind {
            DocumentKind::Token => self.known.borrow().failure(),
            DocumentKind::Ticket(kind) => {
                self.with_ticket(kind, |ticket| ticket.schedule.failure()).flatten()
            }
        }
    }

    /// What is known of refreshing the account, for people and for metrics.
    pub(crate) fn status(&self) -> RefreshStatus {
        RefreshStatus { hook: self.on_change.status(), ..self.known.borrow().status() }
    }
}

/// What is said of a panic: its own words may hold anything.
fn broke_off() -> anyhow::Error {
    anyhow!("a refresh broke off by a fault in wxtoken itself; please report it")
}

/// What is said to a client who has waited long enough.
fn still_waiting() -> Unavailable {
    let why =
        "WeChat is being asked and has not answered yet; ask again. 正在等待微信应答，请稍后再试。";
    Unavailable { why: why.to_owned(), retry_after: Duration::from_secs(5) }
}

/// Tells the operator.
fn tell(name: &str, news: News) {
    match news {
        News::Honoured(token) => {
            info!("serve: {name}: token {token} was said to be rejected, and WeChat honours it");
        }
        News::Dead(token) => error!(
            "serve: {name}: WeChat honours token {token} no longer: somebody else has had another one made; who asks \
             beside us? 该 token 已失效，可能有其他程序在获取 token，请排查。"
        ),
        News::Unclear(why) => {
            debug!("serve: {name}: cannot tell whether a token is alive: {why}");
        }
        News::Published(what) => info!("serve: {name}: {what} is published"),
        News::Failed { failure, pause } => {
            let pause = humantime::format_duration(Duration::from_secs(pause.as_secs()));
            error!("serve: {name}: {failure} (trying again in {pause})");
        }
        News::WellAgain => error!("serve: {name}: all is well again"),
    }
}
