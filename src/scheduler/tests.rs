//! Whole schedulers on virtual time: days pass at once, with files in a directory and a scripted upstream.

mod clients;
mod connection;
mod elsewhere;
mod hooks;
mod tickets;

use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::task::Poll;
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::{LocalSet, yield_now};

use super::*;
use crate::log::testing::lines;
use crate::model::document::Document;
use crate::model::errcode::{CallKind, Platform, Refusal};
use crate::model::secret::Salt;
use crate::model::status::{ClientIdentity, Suspicion, Witness};
use crate::os::clock::testing::VirtualClock;
use crate::os::hook::{Hook, HookKind};
use crate::upstream::{
    Credential, CredentialHashes, IssuedToken, Liveness, Probe, RefreshMode, TicketSource,
    TokenSource, UpstreamError,
};

const LIFE: Duration = Duration::from_secs(7200);

/// An upstream that issues a token again until another one is forced, and finds every probed token dead.
struct CountingUpstream {
    clock: VirtualClock,
    requests: Mutex<Vec<(Duration, RefreshMode)>>,
    tickets: Mutex<Vec<Duration>>,
    /// If it is there, the next request for a token hangs until its sender is dropped.
    gate: Mutex<Option<Receiver<()>>>,
    is_unreachable: AtomicBool,
    /// WeChat refuses the secret, and is not asked again for long.
    refuses: AtomicBool,
    gives_no_tickets: AtomicBool,
    /// The token with which a ticket is refused, and the errcode.
    refused_tickets: Mutex<Option<(&'static str, i64)>>,
    tickets_refused: AtomicUsize,
    /// If it is there, the next probe hangs until its sender is dropped.
    probe_gate: Mutex<Option<Receiver<()>>>,
    /// The tokens that probes find alive instead.
    honoured: Mutex<Vec<&'static str>>,
}

impl CountingUpstream {
    fn new(clock: &VirtualClock) -> Arc<CountingUpstream> {
        Arc::new(CountingUpstream {
            clock: clock.clone(),
            requests: Mutex::default(),
            tickets: Mutex::default(),
            gate: Mutex::default(),
            is_unreachable: AtomicBool::default(),
            refuses: AtomicBool::default(),
            gives_no_tickets: AtomicBool::default(),
            refused_tickets: Mutex::default(),
            tickets_refused: AtomicUsize::default(),
            probe_gate: Mutex::default(),
            honoured: Mutex::default(),
        })
    }

    fn issue(&self, name: String) -> Result<IssuedToken, UpstreamError> {
        Ok(IssuedToken { token: Secret::new(name), expires_in: LIFE })
    }
}

impl TokenSource for CountingUpstream {
    fn request_token(&self, mode: RefreshMode, _: Duration) -> Result<IssuedToken, UpstreamError> {
        let gate = self.gate.lock().unwrap().take();
        gate.map(|gate| gate.recv());
        if self.is_unreachable.load(Ordering::Relaxed) {
            return Err(UpstreamError::unreachable("no route", true, false));
        }
        if self.refuses.load(Ordering::Relaxed) {
            let (call, platform) = (CallKind::RequestsToken, Platform::Official);
            let refusal = Refusal::new(40125, "invalid appsecret", call, platform);
            return Err(UpstreamError::Refused(refusal));
        }
        let mut requests = self.requests.lock().unwrap();
        requests.push((self.clock.elapsed(), mode));
        let forced = requests.iter().filter(|(_, mode)| *mode == RefreshMode::Forced).count();
        self.issue(format!("T{forced}"))
    }
}

impl TicketSource for CountingUpstream {
    fn request_ticket(
        &self,
        _: &TicketType,
        token: &Secret,
        _: Duration,
    ) -> Result<IssuedToken, UpstreamError> {
        if self.gives_no_tickets.load(Ordering::Relaxed) {
            return Err(UpstreamError::unreachable("no route", true, false));
        }
        if let Some((refused, code)) = *self.refused_tickets.lock().unwrap()
            && token.is(refused)
        {
            self.tickets_refused.fetch_add(1, Ordering::Relaxed);
            let refusal = Refusal::new(code, "no", CallKind::UsesToken, Platform::Official);
            return Err(UpstreamError::Refused(refusal));
        }
        let mut tickets = self.tickets.lock().unwrap();
        tickets.push(self.clock.elapsed());
        self.issue(format!("TICKET{}", tickets.len()))
    }
}

impl Probe for CountingUpstream {
    fn probe(&self, token: &Secret, _: Duration) -> Liveness {
        let gate = self.probe_gate.lock().unwrap().take();
        gate.map(|gate| gate.recv());
        match self.honoured.lock().unwrap().iter().any(|it| token.is(it)) {
            true => Liveness::Alive,
            false => Liveness::Dead,
        }
    }
}

impl Credential for CountingUpstream {
    fn hashes(&self, salt: &Salt) -> Option<CredentialHashes> {
        let hash = salt.hash(&["s"]);
        Some(CredentialHashes { secret: hash.clone(), request: hash })
    }
}

struct SchedulerFixture {
    dir: TempDir,
    account: Account,
    clock: VirtualClock,
    upstream: Arc<CountingUpstream>,
    environment: Environment,
    scheduler: Scheduler,
}

impl SchedulerFixture {
    fn new() -> SchedulerFixture {
        let dir = tempfile::tempdir().unwrap();
        let account = Account::for_tests(dir.path().join("shop.json"));
        let clock = VirtualClock::new();
        let shared_clock: Arc<dyn Clock> = Arc::new(clock.clone());
        let stores = Stores::new(Arc::clone(&shared_clock));
        let environment = Environment::new(shared_clock, stores);
        let upstream = CountingUpstream::new(&clock);
        let scheduler = schedule(&account, &upstream, &environment);
        SchedulerFixture { dir, account, clock, upstream, environment, scheduler }
    }

    /// Lets time pass in steps of a second, and all jobs end in each.
    async fn pass(&self, span: Duration) {
        for _ in 0..span.as_secs() {
            self.clock.advance(Duration::from_secs(1));
            for _ in 0..4 {
                yield_now().await;
            }
            self.scheduler.idle().await;
        }
    }

    /// Lets time pass until this holds, but not for much longer than an hour: what waits for a lock moves the clock, too.
    async fn pass_until(&self, holds: impl Fn() -> bool) {
        for _ in 0..4000 {
            if holds() {
                return;
            }
            self.pass(Duration::from_secs(1)).await;
        }
        panic!("it never was");
    }

    fn published(&self) -> Option<Document> {
        let store = self.environment.stores.open(&self.account.location, &DocumentKind::Token, 0);
        store.last_known()
    }

    /// Returns how long a client with this demand waits while WeChat does not answer, with a token published or none. Ends
    /// when the job has ended.
    async fn patience(&self, demand: &TokenDemand) -> Duration {
        let (sender, receiver) = channel();
        self.upstream.gate.lock().unwrap().replace(receiver);
        let since = self.clock.elapsed();
        let current = self.published().map(|document| Rc::new(document.token));
        let look = || {
            let token = current.clone().filter(|token| !self.scheduler.is_dead(token));
            token.map(|token| (token, ()))
        };
        let mut waiting = pin!(self.scheduler.obtain(demand, look));
        let waited = loop {
            if let Poll::Ready(result) = poll_once(&mut waiting).await {
                assert!(result.unwrap_err().why.contains("has not answered yet"));
                break self.clock.elapsed() - since;
            }
            // A probe, which runs in a thread, does not hang.
            std::thread::yield_now();
            if self.upstream.gate.lock().unwrap().is_none() {
                self.clock.advance(Duration::from_millis(100));
            }
            yield_now().await;
        };
        drop(sender);
        self.scheduler.idle().await;
        waited
    }

    /// A client reports the published token as rejected.
    async fn report(&self) -> Result<(), Unavailable> {
        let witness = Witness::Client(ClientIdentity::Local);
        let demand = TokenDemand::OtherThan(self.published().unwrap().token, witness);
        self.scheduler.obtain(&demand, || self.live_token()).await
    }

    /// Returns a hook that runs this script; `$0` in it is the path returned.
    fn hook(&self, kind: HookKind, script: &str) -> (Hook, PathBuf) {
        let path = self.dir.path().join(kind.key());
        let args = vec!["-c".to_owned(), script.to_owned(), path.display().to_string()];
        (Hook::new(kind, "sh".into(), args, Duration::from_secs(600)), path)
    }

    /// Takes a change of the account.
    fn update(&self, change: impl FnOnce(&mut Account)) {
        let mut account = self.account.clone();
        change(&mut account);
        self.scheduler.update(account, connect_nothing());
    }

    /// What `obtain` and `obtain_ticket` look for: the published token, unless it is dead.
    fn live_token(&self) -> Option<(Rc<Secret>, ())> {
        let token = self.published()?.token;
        (!self.scheduler.is_dead(&token)).then(|| (Rc::new(token), ()))
    }

    fn tickets_requested(&self) -> usize {
        self.upstream.tickets.lock().unwrap().len()
    }

    fn requested_at(&self) -> Vec<u64> {
        self.upstream.requests.lock().unwrap().iter().map(|(at, _)| at.as_secs()).collect()
    }
}

fn schedule(
    account: &Account,
    upstream: &Arc<CountingUpstream>,
    environment: &Environment,
) -> Scheduler {
    let upstream = Arc::clone(upstream) as Arc<dyn Upstream>;
    Scheduler::new(account.clone(), 0o600, Some(upstream), connect_nothing(), environment.clone())
}

fn connect_nothing() -> Connect {
    Arc::new(|| Ok(None))
}

fn connect_to(upstream: &Arc<CountingUpstream>) -> Connect {
    let upstream = Arc::clone(upstream);
    Arc::new(move || Ok(Some(Arc::clone(&upstream) as Arc<dyn Upstream>)))
}

fn connect_in_vain() -> Connect {
    Arc::new(|| Err(anyhow::anyhow!("no such file")))
}

/// Returns the names of the events that were logged since the last call.
fn events_logged() -> Vec<String> {
    lines().into_iter().map(|(_, event, _)| event).collect()
}

async fn poll_once<F: Future>(future: &mut Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// Runs a test in an event loop without timers of its own.
fn run(test: impl AsyncFnOnce(SchedulerFixture)) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    LocalSet::new().block_on(&runtime, async { test(SchedulerFixture::new()).await });
}

#[test]
fn on_schedule_a_token_is_refreshed_at_its_margin_and_never_otherwise() {
    run(async |fixture| {
        fixture.scheduler.start();
        fixture.pass(Duration::from_secs(14_000)).await;
        let at = fixture.requested_at();
        // Once in 6,900 s, give or take the step.
        let intervals: Vec<_> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(at.len(), 3, "{at:?}");
        assert!(intervals.iter().all(|span| (6900..=6902).contains(span)), "{at:?}");
        let status = fixture.scheduler.status();
        assert_eq!(status.attempts, [("ok", 0, 3)]);
        assert!(status.succeeded_at.is_some() && status.next_at.is_some());
        assert!(status.hook.is_none() && status.trouble_hook.is_none(), "there are none");
    });
}

#[test]
fn without_the_schedule_nothing_is_requested() {
    run(async |fixture| {
        fixture.pass(Duration::from_secs(60)).await;
        assert!(fixture.requested_at().is_empty());
        fixture.scheduler.start();
        fixture.pass(Duration::from_secs(1)).await;
        fixture.scheduler.stop();
        fixture.pass(Duration::from_secs(8000)).await;
        assert_eq!(fixture.requested_at().len(), 1);
    });
}

#[test]
fn changed_tickets_are_requested_and_quotas_stay() {
    run(async |fixture| {
        fixture.scheduler.start();
        fixture.pass(Duration::from_secs(2)).await;
        fixture.report().await.unwrap();
        let requests = fixture.upstream.requests.lock().unwrap().clone();
        let modes: Vec<_> = requests.into_iter().map(|(_, mode)| mode).collect();
        assert_eq!(modes, [RefreshMode::Normal, RefreshMode::Normal, RefreshMode::Forced]);

        let tickets = vec![TicketType::parse("jsapi").unwrap()];
        let account = Account { tickets, ..fixture.account.clone() };
        fixture.scheduler.update(account, connect_nothing());
        fixture.pass(Duration::from_secs(2)).await;
        assert_eq!(fixture.upstream.tickets.lock().unwrap().len(), 1);
        let unavailable = fixture.report().await.unwrap_err();
        assert!(unavailable.why.contains("once in 30 seconds"), "{}", unavailable.why);

        fixture.scheduler.update(fixture.account.clone(), connect_nothing());
        fixture.pass(Duration::from_secs(8000)).await;
        assert_eq!(fixture.upstream.tickets.lock().unwrap().len(), 1, "not configured any more");
    });
}

#[test]
fn no_more_jobs_and_hooks_run_at_once_than_there_are_descriptors_for() {
    run(async |fixture| {
        for (limit, expected) in [(100, 16), (16, 16), (3, 3), (0, 1)] {
            let clock: Arc<dyn Clock> = Arc::new(fixture.clock.clone());
            let environment = Environment::new(Arc::clone(&clock), Stores::new(clock));
            environment.limit_jobs(limit);
            assert_eq!(environment.job_slots.available_permits(), expected, "{limit}");
            assert_eq!(environment.hook_slots.available_permits(), expected, "{limit}");
        }
    });
}
