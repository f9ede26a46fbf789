//! `serve --refresh` on a host: production's scheduler, and what it hands out, in an event loop of its own; and its clients,
//! of which some hold tokens, some lie, and some ask in loops as SDKs do.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tokio::task::LocalSet;

use super::host::{HostClock, location};
use super::ledger;
use super::mirror;
use super::options::Options;
use super::redis;
use super::wechat::{APPID, SimulatedUpstream};
use super::world::{self, Event, Fate, ProcessId, World, with};
use crate::accounts::{AccountPlan, AccountResources, Accounts, RefreshPlan};
use crate::model::account::Account;
use crate::model::kind::TicketType;
use crate::model::secret::Secret;
use crate::model::status::{
    ClientIdentity, LiveToken, Suspicion, TokenDemand, Unavailable, Witness,
};
use crate::os::clock::Clock;
use crate::scheduler::Environment;
use crate::store::Stores;
use crate::upstream::Upstream;
use crate::upstream::config::{Origin, UpstreamConfig};

/// How many clients a server has.
pub(super) const CLIENTS: usize = 3;

/// How often it is looked whether the server still runs.
const BETWEEN_LOOKS: Duration = Duration::from_secs(60);

/// A server that runs.
pub(super) struct Server {
    process: ProcessId,
    accounts: Accounts,
    stores: Stores,
    /// What is to be done in its event loop.
    inbox: RefCell<Vec<Task>>,
    /// The version of Redis when it was looked at last.
    seen_in_redis: Cell<u64>,
    waker: Arc<LoopWaker>,
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    /// The servers that run, by their hosts.
    static SERVERS: RefCell<BTreeMap<usize, Rc<Server>>> = const { RefCell::new(BTreeMap::new()) };
    /// The timers of all event loops that wait.
    static TIMERS: RefCell<BTreeMap<u64, Waker>> = const { RefCell::new(BTreeMap::new()) };
}

/// Wakes an event loop.
struct LoopWaker {
    process: ProcessId,
    is_woken: AtomicBool,
}

impl Wake for LoopWaker {
    fn wake(self: Arc<Self>) {
        if !self.is_woken.swap(true, Ordering::Relaxed) {
            with(|world| world.wake_soon(self.process));
        }
    }
}

/// A timer of a host's event loop.
pub(super) struct Timer {
    pub(super) host: usize,
    pub(super) end: Instant,
    pub(super) number: Option<u64>,
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let left = HostClock(self.host).until(self.end);
        if left.is_zero() {
            return Poll::Ready(());
        }
        let number = with(|world| {
            let number = world.next_number();
            world.after(left, Event::Timer(number));
            number
        });
        self.forget();
        self.number = Some(number);
        TIMERS.with_borrow_mut(|timers| timers.insert(number, context.waker().clone()));
        Poll::Pending
    }
}

impl Timer {
    fn forget(&mut self) {
        if let Some(number) = self.number.take() {
            TIMERS.with_borrow_mut(|timers| timers.remove(&number));
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.forget();
    }
}

/// A timer has ended.
pub(super) fn ring(number: u64) {
    let waker = TIMERS.with_borrow_mut(|timers| timers.remove(&number));
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Returns the server of a host, if one runs.
pub(super) fn server_on(host: usize) -> Option<Rc<Server>> {
    let server = SERVERS.with_borrow(|servers| servers.get(&host).cloned())?;
    with(|world| world.is_alive(server.process)).then_some(server)
}

/// Forgets all servers.
pub(super) fn forget_all() {
    SERVERS.take();
    TIMERS.take();
}

/// Looks whether the server of this host runs, and starts it if not, as systemd does.
pub(super) fn keep_running(host: usize) {
    let is_awake = with(|world| {
        world.after(BETWEEN_LOOKS, Event::Serve(host));
        world.options.is_served(host) && world.now >= world.hosts[host].suspended_until
    });
    if is_awake && server_on(host).is_none() {
        with(|world| {
            world.note("server starts", host as u64);
            world.count("server started");
            world.hosts[host].known_dead = None;
        });
        world::start(host, None, move || serve(host));
    }
}

/// What `serve --refresh` does. Runs until it is killed.
fn serve(host: usize) {
    let (options, process) = with(|world| (world.options.clone(), world.current_process()));
    let clock: Arc<dyn Clock> = Arc::new(HostClock(host));
    let stores = Stores::new(Arc::clone(&clock));
    let environment = Environment::new(clock, stores.clone());
    let resources = AccountResources { connector: Arc::default(), environment };
    let source = options.source_of(host);
    let upstream: Arc<dyn Upstream> = match source {
        Some(source) => mirror::upstream(host, source, &options),
        None => Arc::new(SimulatedUpstream::of_server(host)),
    };
    let refresh = Some(refresh_plan(source.is_some()));
    let plan = AccountPlan { account: account(host, &options), refresh };
    let accounts = Accounts::new(vec![(plan, Some(upstream))], None, &resources);
    let waker = Arc::new(LoopWaker { process, is_woken: AtomicBool::new(true) });
    let inbox = RefCell::default();
    let server =
        Rc::new(Server { process, accounts, stores, inbox, seen_in_redis: Cell::new(0), waker });
    SERVERS.with_borrow_mut(|servers| servers.insert(host, Rc::clone(&server)));
    let tasks = LocalSet::new();
    let starting = Rc::clone(&server);
    tasks.spawn_local(async move { starting.accounts.start() });
    let mut tasks = std::pin::pin!(tasks);
    let waker = Waker::from(Arc::clone(&server.waker));
    let mut context = Context::from_waker(&waker);
    loop {
        for task in server.inbox.take() {
            tasks.spawn_local(task);
        }
        if server.waker.is_woken.swap(false, Ordering::Relaxed) {
            server.look_at_redis(host);
            world::undisturbed(|| tasks.as_mut().poll(&mut context).is_ready());
        } else {
            world::wait_to_be_woken();
        }
    }
}

/// Returns the account as a host has it.
pub(super) fn account(host: usize, options: &Options) -> Account {
    let tickets = TicketType::parse("jsapi").filter(|_| options.has_tickets);
    Account {
        name: "shop".to_owned(),
        appid: Some(APPID.to_owned()),
        api: options.api,
        rules: options.rules_of(host),
        refresh_before: options.refresh_before,
        location: location(host, options.has_redis),
        tickets: tickets.into_iter().collect(),
        on_change: None,
        on_trouble: None,
    }
}

fn refresh_plan(is_mirror: bool) -> RefreshPlan {
    let upstream = UpstreamConfig {
        base_urls: Vec::new(),
        proxy: None,
        ca_file: None,
        is_mirror,
        secret_file: None,
        secret_dir: None,
        origin: Origin::CommandLine,
    };
    RefreshPlan { upstream, mode: 0o600 }
}

impl Server {
    /// Looks at Redis, as a thread of production does about once a second.
    fn look_at_redis(&self, host: usize) {
        let version = with(|world| redis::version(world, host));
        if self.seen_in_redis.replace(version) != version {
            world::observe(host, || self.stores.look());
        }
    }

    /// Whether it is stopped, or its host suspended.
    pub(super) fn is_halted(&self) -> bool {
        with(|world| world.is_halted(self.process))
    }

    /// Returns what it hands out.
    pub(super) fn hands_out(&self, host: usize) -> Option<LiveToken> {
        self.look_at_redis(host);
        world::observe(host, || self.accounts.token(0))
    }

    /// Answers a mirror, as its routes do. `act` gets the answer.
    pub(super) fn answer(
        self: &Rc<Server>,
        host: usize,
        demand: TokenDemand,
        act: impl FnOnce(Result<LiveToken, Unavailable>) + 'static,
    ) {
        match self.hands_out(host).filter(|_| demand == TokenDemand::Live) {
            Some(live) => act(Ok(live)),
            None => self.ask(demand, act),
        }
    }

    /// Asks it for a token. `act` gets the answer.
    pub(super) fn ask(
        self: &Rc<Server>,
        demand: TokenDemand,
        act: impl FnOnce(Result<LiveToken, Unavailable>) + 'static,
    ) {
        let server = Rc::clone(self);
        let asked = async move { act(server.accounts.obtain(0, demand).await) };
        self.inbox.borrow_mut().push(Box::pin(asked));
        Arc::clone(&self.waker).wake();
    }
}

/// Returns the token in an answer.
pub(super) fn token_in(live: &LiveToken) -> String {
    let json: Json = serde_json::from_slice(&live.json).unwrap_or_default();
    json["access_token"].as_str().unwrap_or_default().to_owned()
}

/// What a client holds.
#[derive(Clone, Default)]
pub(super) struct Held {
    token: String,
    until: Duration,
    /// Since when it has been reporting a dead token.
    reports_since: Option<Duration>,
    /// When it does something next.
    next_at: Duration,
}

/// Lets a client do something after this long, and not before.
pub(super) fn visit_after(world: &mut World, span: Duration, host: usize, client: usize) {
    world.hosts[host].clients[client].next_at = world.now + span;
    world.after(span, Event::Client(host, client));
}

/// A client of this host uses its token, or does something else.
pub(super) fn use_token(host: usize, client: usize) {
    let usual = with(|world| {
        if world.hosts[host].clients[client].next_at != world.now {
            return None;
        }
        let next = 20 + world.random() % 600;
        visit_after(world, Duration::from_secs(next), host, client);
        Some(world.tape.below(32))
    });
    let Some(usual) = usual else { return };
    let Some(server) = server_on(host) else { return };
    let identity = ClientIdentity::Key(format!("client{client}").into());
    let held = with(|world| world.hosts[host].clients[client].clone());
    let reported = Secret::new(held.token.clone());
    let now = with(|world| world.now);
    let demand = match usual {
        // It lies, or takes another refusal for this one.
        29 => TokenDemand::OtherThan(reported, Witness::Client(identity)),
        30 => TokenDemand::Verified(identity, Suspicion::AsksAgain),
        31 => TokenDemand::Verified(identity, Suspicion::Insists),
        _ if held.token.is_empty() || now >= held.until => TokenDemand::Live,
        _ => {
            let is_dead = with(|world| {
                let death = world.wechat.rules.death_of(&held.token);
                death.is_none_or(|death| death <= world.now)
            });
            if !is_dead {
                return;
            }
            with(|world| {
                world.count("dead token reported to a server");
                let since = &mut world.hosts[host].clients[client].reports_since;
                since.get_or_insert(now);
            });
            TokenDemand::OtherThan(reported, Witness::Client(identity))
        }
    };
    with(|world| {
        world.note("client asks", usual);
        world.tell(|| format!("client {client} of host {host} asks: {demand:?}"));
        if demand != TokenDemand::Live {
            world.note_demand(host);
        }
    });
    let rejected = match &demand {
        TokenDemand::OtherThan(token, _) => Some(token.expose().to_owned()),
        _ => None,
    };
    server.ask(demand, move |answer| {
        with(|world| take_answer(world, host, client, rejected.as_deref(), now, answer));
    });
    // A second one asks in a loop.
    if usual == 31 {
        with(|world| visit_after(world, Duration::from_secs(1), host, client));
    }
}

fn take_answer(
    world: &mut World,
    host: usize,
    client: usize,
    rejected: Option<&str>,
    asked_at: Duration,
    answer: Result<LiveToken, Unavailable>,
) {
    let now = world.now;
    match answer {
        Ok(live) => {
            let token = token_in(&live);
            ledger::hand_out_by_server(world, host, &token, live.life);
            let was_dead = |token: &str| {
                let death = world.wechat.rules.death_of(token).unwrap_or_default();
                // It may have died just after WeChat was asked.
                death + Duration::from_secs(20) <= asked_at
            };
            if rejected == Some(&*token) && was_dead(&token) {
                world.fail("promise 7: the rejected token is kept by a server".to_owned());
            }
            world.count("server answers");
            let since = world.hosts[host].clients[client].reports_since;
            if let Some(since) = since.filter(|_| rejected != Some(&*token)) {
                world.count("server heals");
                world.tell(|| format!("healed after {:?}", now - since));
            }
            let until = now + live.life;
            let held = &mut world.hosts[host].clients[client];
            (held.token, held.until, held.reports_since) = (token, until, None);
        }
        Err(unavailable) => {
            world.count("server has no answer");
            world.tell(|| {
                format!("client {client} of host {host} gets nothing: {}", unavailable.why)
            });
            // A mirror says a few seconds, which for hours takes the time of a run.
            let least = if world.options.has_mirrors { 15 } else { 1 };
            let retry = unavailable.retry_after.max(Duration::from_secs(least));
            let since = world.hosts[host].clients[client].reports_since;
            ledger::check_healing(world, since);
            visit_after(world, retry, host, client);
        }
    }
}

/// Readers of this host look at what its server hands out.
pub(super) fn look(host: usize) {
    let Some(server) = server_on(host) else { return };
    if let Some(live) = server.hands_out(host) {
        with(|world| ledger::hand_out_by_server(world, host, &token_in(&live), live.life));
    }
}

/// Runs blocking work of an event loop as a thread of its process.
pub(super) fn spawn(work: Box<dyn FnOnce() + Send>) {
    let fuse = with(|world| {
        let fates = world.options.fates;
        world.tape.happens(fates).then(|| {
            let fate = match world.tape.below(3) {
                0 => Fate::Stopped(1 + world.tape.below(90)),
                1 => Fate::Killed,
                _ => Fate::PowerCut,
            };
            (world.tape.below(120) as u32, fate)
        })
    });
    world::start_thread_soon(fuse, work);
}
