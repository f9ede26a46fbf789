//! Whole schedulers on virtual time: days pass at once, with files in a directory and a scripted upstream.

use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::task::Poll;
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::{LocalSet, yield_now};

use super::*;
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
    /// The tokens that probes find alive instead.
    honoured: Mutex<Vec<&'static str>>,
}

impl CountingUpstream {
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
        _: &Secret,
        _: Duration,
    ) -> Result<IssuedToken, UpstreamError> {
        if self.gives_no_tickets.load(Ordering::Relaxed) {
            return Err(UpstreamError::unreachable("no route", true, false));
        }
        let mut tickets = self.tickets.lock().unwrap();
        tickets.push(self.clock.elapsed());
        self.issue(format!("TICKET{}", tickets.len()))
    }
}

impl Probe for CountingUpstream {
    fn probe(&self, token: &Secret, _: Duration) -> Liveness {
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
        let upstream = Arc::new(CountingUpstream {
            clock: clock.clone(),
            requests: Mutex::default(),
            tickets: Mutex::default(),
            gate: Mutex::default(),
            is_unreachable: AtomicBool::default(),
            refuses: AtomicBool::default(),
            gives_no_tickets: AtomicBool::default(),
            honoured: Mutex::default(),
        });
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
            let step = poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx))).await;
            if let Poll::Ready(result) = step {
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
fn a_client_without_a_token_waits_two_and_a_half_seconds_and_a_report_waits_ten() {
    run(async |fixture| {
        let waited = fixture.patience(&TokenDemand::Live).await;
        assert_eq!(waited, Duration::from_millis(2500));
        let first = fixture.published().expect("the request went on").token;
        let witness = Witness::Client(ClientIdentity::Local);
        let waited = fixture.patience(&TokenDemand::OtherThan(first.clone(), witness)).await;
        assert_eq!(waited, Duration::from_secs(10));
        assert_ne!(fixture.published().expect("a document").token, first);
    });
}

/// Looks every 15 seconds at most, and not only when an attempt has failed.
#[test]
fn on_trouble_is_told_when_less_than_half_of_the_margin_is_left_and_when_it_is_over() {
    run(async |fixture| {
        let script = r#"echo "$WXTOKEN_TROUBLE $WXTOKEN_TROUBLE_LIFE" >> "$0""#;
        let (hook, told) = fixture.hook(HookKind::OnTrouble, script);
        fixture.update(|account| account.on_trouble = Some(hook));
        let told = || std::fs::read_to_string(&told).unwrap_or_default();
        let left = || fixture.published().unwrap().left(fixture.clock.now()).as_secs();
        fixture.scheduler.start();
        fixture.pass(Duration::from_secs(6800)).await;
        fixture.upstream.is_unreachable.store(true, Ordering::Relaxed);
        while left() > 160 {
            fixture.pass(Duration::from_secs(1)).await;
        }
        assert!(fixture.scheduler.failure(&DocumentKind::Token).is_some());
        assert_eq!(told(), "");
        while left() > 100 {
            fixture.pass(Duration::from_secs(1)).await;
        }
        let begin = told();
        let life: u64 = begin.strip_prefix("begin ").expect(&begin).trim().parse().unwrap();
        assert!((110..150).contains(&life), "{life}");
        fixture.pass(Duration::from_secs(200)).await;
        assert_eq!(told(), begin, "once");
        fixture.upstream.is_unreachable.store(false, Ordering::Relaxed);
        fixture.pass(Duration::from_secs(300)).await;
        let end = told();
        assert!(end.strip_prefix(&begin).is_some_and(|end| end.starts_with("end 7")), "{end}");
        assert_eq!(end.lines().count(), 2);
    });
}

#[test]
fn on_trouble_is_told_again_after_a_minute_if_it_has_failed() {
    run(async |fixture| {
        let (hook, told) = fixture.hook(HookKind::OnTrouble, r#"echo >> "$0"; exit 1"#);
        fixture.update(|account| account.on_trouble = Some(hook));
        let told = || std::fs::read_to_string(&told).map_or(0, |text| text.lines().count());
        // No job comes again meanwhile, which would hold the lock that the record is changed under.
        fixture.upstream.refuses.store(true, Ordering::Relaxed);
        fixture.scheduler.start();
        let until_told = async |count| {
            for _ in 0..300 {
                if told() >= count {
                    break;
                }
                fixture.pass(Duration::from_secs(1)).await;
            }
            fixture.clock.elapsed()
        };
        let (first, second) = (until_told(1).await, until_told(2).await);
        assert!((60..80).contains(&(second - first).as_secs()), "{first:?} {second:?}");
        assert!(fixture.scheduler.status().trouble_hook.unwrap().failed_at.is_some());
    });
}

#[test]
fn on_change_runs_once_for_each_token_and_its_failure_stays_until_it_is_another() {
    run(async |fixture| {
        let script = r#"echo >> "$0"; [ ! -e "$0.fails" ]"#;
        let (hook, ran) = fixture.hook(HookKind::OnChange, script);
        let count = || std::fs::read_to_string(&ran).map_or(0, |text| text.lines().count());
        let failed_at = || fixture.scheduler.status().hook.expect("a hook").failed_at;
        fixture.update(|account| account.on_change = Some(hook.clone()));
        fixture.scheduler.start();
        fixture.pass(Duration::from_secs(2)).await;
        assert_eq!((count(), failed_at()), (1, None));
        std::fs::write(ran.with_extension("fails"), "").unwrap();
        fixture.report().await.unwrap();
        fixture.scheduler.idle().await;
        assert_eq!(count(), 2);
        let failed = failed_at().expect("a failure");
        fixture.update(|account| account.on_change = Some(hook.clone()));
        assert_eq!(failed_at(), Some(failed), "it is the same hook");
        let (another, _) = fixture.hook(HookKind::OnChange, "true");
        fixture.update(|account| account.on_change = Some(another));
        assert_eq!(failed_at(), None);
    });
}

#[test]
fn a_change_during_on_change_is_followed_by_another_run_and_never_by_one_beside_it() {
    run(async |fixture| {
        let script = r#"echo >> "$0"; while [ ! -e "$0.go" ]; do sleep 0.01; done"#;
        let (hook, ran) = fixture.hook(HookKind::OnChange, script);
        let count = || std::fs::read_to_string(&ran).map_or(0, |text| text.lines().count());
        fixture.update(|account| account.on_change = Some(hook));
        let worker = &fixture.scheduler.worker;
        let run = || worker.on_change.run(|| worker.settings(), &fixture.environment);
        let mut first = pin!(run());
        while count() == 0 {
            let step = poll_fn(|cx| Poll::Ready(first.as_mut().poll(cx))).await;
            assert!(step.is_pending());
            yield_now().await;
        }
        for _ in 0..3 {
            run().await;
        }
        assert_eq!(count(), 1);
        std::fs::write(ran.with_extension("go"), "").unwrap();
        first.await;
        assert_eq!(count(), 2);
        run().await;
        assert_eq!(count(), 3);
    });
}

#[test]
fn hooks_are_stopped_three_seconds_after_the_schedule() {
    run(async |fixture| {
        let flag = fixture.scheduler.worker.on_change.stop_flag();
        fixture.scheduler.start();
        fixture.scheduler.stop();
        fixture.pass(Duration::from_secs(2)).await;
        assert!(!flag.load(Ordering::Relaxed));
        fixture.pass(Duration::from_secs(2)).await;
        assert!(flag.load(Ordering::Relaxed));
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

#[test]
fn a_client_that_seems_to_have_a_dead_token_waits_for_what_wechat_says_of_it() {
    run(async |fixture| {
        fixture.scheduler.start();
        fixture.pass(Duration::from_secs(2)).await;
        let demand = TokenDemand::Verified(ClientIdentity::Local, Suspicion::AsksAgain);
        let look = || fixture.live_token().map(|(token, ())| (Rc::clone(&token), token));
        for (honoured, expected) in [(vec!["T0", "T1"], "T0"), (vec!["T1"], "T1")] {
            *fixture.upstream.honoured.lock().unwrap() = honoured;
            let found = fixture.scheduler.obtain(&demand, look).await.unwrap();
            assert!(found.is(expected));
            fixture.pass(Duration::from_secs(60)).await;
        }
    });
}

#[test]
fn a_client_gets_a_ticket_and_the_token_that_it_is_requested_with() {
    run(async |fixture| {
        let kind = TicketType::parse("jsapi").unwrap();
        let place = DocumentKind::Ticket(kind.clone());
        let look =
            || fixture.environment.stores.open(&fixture.account.location, &place, 0).last_known();
        let unknown = fixture.scheduler.obtain_ticket(&kind, || fixture.live_token(), look).await;
        assert!(unknown.is_err() && fixture.tickets_requested() == 0, "it is not configured");

        fixture.update(|account| account.tickets = vec![kind.clone()]);
        let ticket = fixture.scheduler.obtain_ticket(&kind, || fixture.live_token(), look).await;
        assert!(ticket.unwrap().token.is("TICKET1"));
        assert_eq!((fixture.requested_at().len(), fixture.tickets_requested()), (1, 1));
    });
}

#[test]
fn a_client_whose_time_is_over_has_no_ticket_requested() {
    run(async |fixture| {
        let kind = TicketType::parse("jsapi").unwrap();
        fixture.update(|account| account.tickets = vec![kind.clone()]);
        let since = fixture.clock.elapsed();
        // The token comes when the client has waited long enough.
        let look_for_token = || match fixture.clock.elapsed() - since < worker::MAX_WAIT {
            true => None,
            false => fixture.live_token(),
        };
        let mut waiting =
            pin!(fixture.scheduler.obtain_ticket(&kind, look_for_token, || None::<()>));
        let result = loop {
            let step = poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx))).await;
            if let Poll::Ready(result) = step {
                break result;
            }
            fixture.scheduler.idle().await;
            fixture.clock.advance(Duration::from_millis(100));
            yield_now().await;
        };
        assert!(result.is_err());
        fixture.scheduler.idle().await;
        assert_eq!((fixture.requested_at().len(), fixture.tickets_requested()), (1, 0));
    });
}

#[test]
fn no_ticket_is_requested_with_a_token_that_is_dead_and_cannot_be_replaced_yet() {
    run(async |fixture| {
        fixture.scheduler.start();
        fixture.pass(Duration::from_secs(2)).await;
        fixture.report().await.unwrap();
        fixture.report().await.unwrap_err();
        fixture.update(|account| account.tickets = vec![TicketType::parse("jsapi").unwrap()]);
        fixture.pass(Duration::from_secs(5)).await;
        assert_eq!(fixture.tickets_requested(), 0);
        fixture.pass(Duration::from_secs(60)).await;
        assert_eq!(fixture.tickets_requested(), 1);
    });
}

#[test]
fn a_restart_ends_no_trouble_with_a_ticket_that_is_due() {
    run(async |mut fixture| {
        let script = r#"echo "$WXTOKEN_TROUBLE" >> "$0""#;
        let (hook, told) = fixture.hook(HookKind::OnTrouble, script);
        let told = || std::fs::read_to_string(&told).unwrap_or_default();
        fixture.account.tickets = vec![TicketType::parse("jsapi").unwrap()];
        fixture.account.on_trouble = Some(hook);
        fixture.update(|_| {});
        fixture.scheduler.start();
        fixture.pass(Duration::from_secs(6800)).await;
        assert_eq!((fixture.tickets_requested(), told()), (1, String::new()));
        fixture.upstream.gives_no_tickets.store(true, Ordering::Relaxed);
        for _ in 0..390 {
            fixture.pass(Duration::from_secs(1)).await;
            if !told().is_empty() {
                break;
            }
        }
        assert_eq!(told(), "begin\n");
        fixture.scheduler.stop();
        fixture.scheduler = schedule(&fixture.account, &fixture.upstream, &fixture.environment);
        fixture.scheduler.start();
        fixture.pass(Duration::from_secs(20)).await;
        assert_eq!(told(), "begin\n");
        fixture.upstream.gives_no_tickets.store(false, Ordering::Relaxed);
        fixture.pass(Duration::from_secs(60)).await;
        assert_eq!((fixture.tickets_requested() > 1, told()), (true, "begin\nend\n".to_owned()));
    });
}
