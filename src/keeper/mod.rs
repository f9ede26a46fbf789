//! Keeps one account's token alive inside of `serve --refresh`: on schedule, and when somebody finds none or says that
//! WeChat rejected it. Tells the one story in a thread of its own, once for all who wait for it, and remembers what came
//! of it, so that nobody asks WeChat in vain for each of many.
//!
//! Runs on the listener's thread, in its `LocalSet`; nothing here waits for the network or for a file that is slow.

mod pace;
mod ration;
mod tally;

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use time::UtcDateTime;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_blocking, spawn_local};
use tokio::time::{timeout, timeout_at};

use crate::api::Api;
use crate::clock::{Clock, SystemClock};
use crate::config::Account;
use crate::refresh::{Failure, Outcome, Refresh, Want};
use crate::report::{debug, error, info};
use crate::secret::Secret;
use crate::server::{Lack, SeenAsking};
use crate::source::wechat::WeChat;
use crate::source::{AskError, Probe, Pulse};
use crate::store::Store;
use crate::store::file::FileStore;
use crate::token::Document;
use ration::{Forced, Probes, Withheld};
use tally::{Counted, Tally};

/// How long one refresh may take, waiting for the lock and retries included; `fetch` has the same.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client waits for one; SDKs give up after 5 to 30 s.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How long WeChat may take to say whether a token is alive: the client waits for what comes of that, too.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long it holds what WeChat said of a token: those who doubt it at once are answered at once.
const PULSE_HOLDS: Duration = Duration::from_secs(1);

/// How long it may hold where WeChat is not to be asked again so soon.
const PULSE_HOLDS_AT_MOST: Duration = Duration::from_secs(2 * 60);

/// The schedule looks at least this often at what there is: clocks are set, and others publish too.
const LONGEST_SLEEP: Duration = Duration::from_secs(15);

/// How often an operator hears of the same trouble again.
const BETWEEN_LINES: Duration = Duration::from_secs(10 * 60);

/// Forced mints in a day. WeChat has 20 on stable; on the others asking is all there is, and this is a tenth of the
/// smallest quota.
const FORCED_PER_DAY_ON_STABLE: usize = 20;
const FORCED_PER_DAY: usize = 200;

/// Makes the source anew: reads the AppSecret, which may have been replaced.
type Connect = Box<dyn Fn() -> anyhow::Result<WeChat>>;

/// What keeps one account's token alive.
pub(crate) struct Keeper {
    account: Account,
    appid: String,
    store: FileStore,
    connect: Connect,
    /// `None` as long as it could not be made.
    wechat: RefCell<Option<Arc<WeChat>>>,
    tally: Arc<Tally>,
    state: RefCell<State>,
    /// Notified when the schedule has to think again.
    changed: Notify,
}

struct State {
    /// What is under way.
    flight: Option<Rc<Flight>>,
    trouble: Option<Trouble>,
    succeeded_at: Option<UtcDateTime>,
    /// After a success: before this WeChat is not asked on schedule, due or not.
    not_before: Instant,
    next_at: Option<UtcDateTime>,
    forced: Forced,
    probes: Probes,
    /// The token that WeChat honoured when it was asked last, and when that was.
    honoured: Option<(Secret, Instant)>,
    /// The token that WeChat says is dead.
    dead: Option<Secret>,
}

/// The failures since the last success.
struct Trouble {
    at: UtcDateTime,
    text: String,
    in_a_row: u32,
    /// Before this another try is pointless.
    retry_at: Instant,
    told_at: Instant,
}

/// What is done in a thread of its own.
enum Job {
    /// See to it that a token is published that is not due.
    Refresh,
    /// See to it that a token is published that WeChat honours. This one was doubted.
    Settle { doubted: Secret, is_probed: bool, word: Word, withheld: Option<Withheld> },
}

/// Who doubts a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// A client says that WeChat rejected it.
    Given,
    /// A client behaves as if it had been.
    Implied,
}

/// One run of a job, for all who wait for it.
#[derive(Default)]
struct Flight {
    landing: OnceCell<Landing>,
    landed: Notify,
}

/// What came of a job.
enum Landing {
    /// This is published.
    Published,
    /// WeChat honours the token that was doubted, or nobody can tell and it is not given up on a hint.
    Stays,
    /// Nothing else than before is published.
    Failed(Lack),
}

/// What a thread brings back.
enum Report {
    Refreshed { outcome: Result<Outcome, Failure>, is_dead: bool },
    Honoured,
    Unknown,
    Withheld { why: Withheld, is_dead: bool },
}

impl Flight {
    async fn landing(&self) -> &Landing {
        loop {
            let landed = self.landed.notified();
            if let Some(landing) = self.landing.get() {
                return landing;
            }
            landed.await;
        }
    }
}

impl Keeper {
    /// A keeper for an account whose document is published with `mode`. It asks `wechat`, until `connect` makes another;
    /// where there is none yet, it tries to make it when it needs it.
    pub(crate) fn of(
        account: Account,
        appid: String,
        mode: u32,
        wechat: Option<WeChat>,
        connect: impl Fn() -> anyhow::Result<WeChat> + 'static,
    ) -> Keeper {
        let now = Instant::now();
        let per_day = match account.api {
            Api::Stable => FORCED_PER_DAY_ON_STABLE,
            _ => FORCED_PER_DAY,
        };
        let state = State {
            flight: None,
            trouble: None,
            succeeded_at: None,
            not_before: now,
            next_at: None,
            forced: Forced::new(per_day),
            probes: Probes::new(now),
            honoured: None,
            dead: None,
        };
        Keeper {
            store: FileStore::new(&account.document, mode),
            account,
            appid,
            wechat: RefCell::new(wechat.map(Arc::new)),
            connect: Box::new(connect),
            tally: Arc::default(),
            state: RefCell::new(state),
            changed: Notify::new(),
        }
    }

    /// Whether WeChat has said that this token is dead: it is nobody's answer then, whatever life it had left.
    pub(crate) fn is_dead(&self, token: &Secret) -> bool {
        self.state.borrow().dead.as_ref() == Some(token)
    }

    /// Refreshes whenever it is time, for ever.
    pub(crate) fn keep(self: &Rc<Keeper>) -> JoinHandle<()> {
        let keeper = Rc::clone(self);
        spawn_local(async move {
            loop {
                let wait = keeper.until_next();
                if !wait.is_zero() {
                    // Whether time has passed or something has changed: what is next is thought through again.
                    let _ = timeout(wait.min(LONGEST_SLEEP), keeper.changed.notified()).await;
                    continue;
                }
                let flight = keeper.scheduled();
                flight.landing().await;
            }
        })
    }

    /// Waits for what is under way.
    pub(crate) async fn settled(&self) {
        if let Some(flight) = self.under_way() {
            flight.landing().await;
        }
    }

    fn under_way(&self) -> Option<Rc<Flight>> {
        self.state.borrow().flight.clone()
    }

    /// The operator may have mended what was in the way: reads the AppSecret again, and asks at once what was put off.
    pub(crate) fn hangup(&self) {
        match (self.connect)() {
            Ok(wechat) => {
                self.wechat.replace(Some(Arc::new(wechat)));
            }
            Err(err) if self.wechat.borrow().is_some() => {
                error!("serve: {}: {err:#}; the last good AppSecret stays", self.account.name);
            }
            // Told when it is needed, which is now.
            Err(_) => {}
        }
        let now = Instant::now();
        let mut state = self.state.borrow_mut();
        state.not_before = now;
        if let Some(trouble) = &mut state.trouble {
            trouble.retry_at = now;
            trouble.in_a_row = 0;
        }
        drop(state);
        self.changed.notify_one();
    }

    /// What is known of the asking, for people and for metrics.
    pub(crate) fn seen(&self) -> SeenAsking {
        let state = self.state.borrow();
        SeenAsking {
            succeeded_at: state.succeeded_at,
            failure: state.trouble.as_ref().map(|trouble| (trouble.at, trouble.text.clone())),
            next_at: state.next_at,
            attempts: self.tally.attempts(),
        }
    }

    /// Starts a refresh, or joins it, for somebody who found no live token, and waits for it; `Err` if there is still
    /// none, or if it is known that there will not be.
    pub(crate) async fn revive(self: &Rc<Keeper>) -> Result<(), Lack> {
        let flight = match self.joinable()? {
            Some(flight) => flight,
            None => self.scheduled(),
        };
        match wait(&flight).await? {
            Landing::Failed(lack) => Err(lack.clone()),
            Landing::Published | Landing::Stays => Ok(()),
        }
    }

    /// Finds out what is to be done about a published token that somebody doubts, and does it; `Err` if it is dead, or
    /// was said to be, and there is no other one.
    pub(crate) async fn settle(
        self: &Rc<Keeper>,
        doubted: &Secret,
        word: Word,
    ) -> Result<(), Lack> {
        let flight = match self.under_way() {
            Some(flight) => flight,
            None if self.is_honoured(doubted, PULSE_HOLDS) => return Ok(()),
            None => self.doubt(doubted, word),
        };
        match wait(&flight).await? {
            Landing::Failed(lack) => Err(lack.clone()),
            Landing::Published | Landing::Stays => Ok(()),
        }
    }

    /// What is under way; an error if a failure is known and nothing has changed since.
    fn joinable(&self) -> Result<Option<Rc<Flight>>, Lack> {
        let state = self.state.borrow();
        match &state.trouble {
            Some(trouble) => Err(trouble.lack(&self.account.name, Instant::now())),
            None => Ok(state.flight.clone()),
        }
    }

    /// How long it is until WeChat is to be asked on schedule.
    fn until_next(&self) -> Duration {
        let (now, instant) = (SystemClock.now(), Instant::now());
        let due_in = match self.store.read() {
            Ok(crate::store::Found::Document(document)) => {
                let margin = pace::margin(&document, self.account.api, self.account.refresh_before);
                pace::until_due(&document, now, margin)
            }
            // Nothing, or damage, or a fault that the refresh will tell of.
            _ => Duration::ZERO,
        };
        let mut state = self.state.borrow_mut();
        let due_in = match (state.forced.check(instant), state.dead.is_some()) {
            (_, false) => due_in.max(state.not_before.saturating_duration_since(instant)),
            (Ok(()), true) => Duration::ZERO,
            (Err(Withheld::TooSoon(rest) | Withheld::DayUsedUp(rest)), true) => rest,
        };
        let retry_in = state
            .trouble
            .as_ref()
            .map_or(Duration::ZERO, |it| it.retry_at.saturating_duration_since(instant));
        let wait = due_in.max(retry_in);
        state.next_at = Some(now.saturating_add(wait.try_into().unwrap_or_default()));
        wait
    }

    /// Starts what is next on schedule, unless something is under way.
    fn scheduled(self: &Rc<Keeper>) -> Rc<Flight> {
        let mut state = self.state.borrow_mut();
        if let Some(flight) = &state.flight {
            return Rc::clone(flight);
        }
        let job = match state.dead.clone() {
            None => Job::Refresh,
            Some(doubted) => {
                let withheld = state.forced.check(Instant::now()).err();
                Job::Settle { doubted, is_probed: true, word: Word::Given, withheld }
            }
        };
        drop(state);
        self.fly(job)
    }

    /// Starts to find out about a doubted token. Nothing is under way.
    fn doubt(self: &Rc<Keeper>, doubted: &Secret, word: Word) -> Rc<Flight> {
        let now = Instant::now();
        let mut state = self.state.borrow_mut();
        let withheld = state.forced.check(now).err();
        let is_probed = state.dead.as_ref() == Some(doubted) || !state.probes.take(now);
        drop(state);
        // Asked as often as may be: what WeChat said last has to do.
        if is_probed && self.is_honoured(doubted, PULSE_HOLDS_AT_MOST) {
            let flight = Rc::new(Flight::default());
            let _ = flight.landing.set(Landing::Stays); // It is new.
            return flight;
        }
        self.fly(Job::Settle { doubted: doubted.clone(), is_probed, word, withheld })
    }

    fn is_honoured(&self, token: &Secret, holds: Duration) -> bool {
        let state = self.state.borrow();
        state
            .honoured
            .as_ref()
            .is_some_and(|(honoured, at)| honoured == token && at.elapsed() < holds)
    }

    /// WeChat, to be asked.
    fn wechat(&self) -> anyhow::Result<Arc<WeChat>> {
        let mut wechat = self.wechat.borrow_mut();
        if wechat.is_none() {
            *wechat = Some(Arc::new((self.connect)()?));
        }
        wechat.clone().context("there is nobody to ask")
    }

    /// Does a job in a thread of its own, whoever goes on waiting for it.
    fn fly(self: &Rc<Keeper>, job: Job) -> Rc<Flight> {
        let flight = Rc::new(Flight::default());
        let wechat = match self.wechat() {
            Ok(wechat) => wechat,
            Err(err) => {
                let outcome = Err(Failure::Local(err));
                let report = Report::Refreshed { outcome, is_dead: false };
                let landed = self.land(report, None, self.tally.forced());
                let _ = flight.landing.set(landed); // It is new.
                return flight;
            }
        };
        self.state.borrow_mut().flight = Some(Rc::clone(&flight));
        let errand = Errand {
            name: self.account.name.clone(),
            appid: self.appid.clone(),
            api: self.account.api,
            refresh_before: self.account.refresh_before,
            store: self.store.clone(),
            wechat,
            tally: Arc::clone(&self.tally),
        };
        let doubted = match &job {
            Job::Refresh => None,
            Job::Settle { doubted, .. } => Some(doubted.clone()),
        };
        let forced_before = self.tally.forced();
        let done = spawn_blocking(move || errand.run(job));
        let (keeper, landing) = (Rc::clone(self), Rc::clone(&flight));
        spawn_local(async move {
            let report = done.await.unwrap_or_else(|err| Report::Refreshed {
                outcome: Err(Failure::Local(anyhow!("the refresh broke off: {err}"))),
                is_dead: false,
            });
            let landed = keeper.land(report, doubted, forced_before);
            keeper.state.borrow_mut().flight = None;
            let _ = landing.landing.set(landed); // Only here.
            landing.landed.notify_waiters();
            keeper.changed.notify_one();
        });
        flight
    }

    /// Remembers what came of a job.
    fn land(&self, report: Report, doubted: Option<Secret>, forced_before: u64) -> Landing {
        let now = Instant::now();
        let mut state = self.state.borrow_mut();
        let (outcome, is_dead) = match report {
            Report::Honoured => {
                state.honoured = doubted.map(|token| (token, now));
                state.dead = None;
                return Landing::Stays;
            }
            Report::Unknown => return Landing::Stays,
            Report::Withheld { why, is_dead } => {
                if is_dead {
                    state.dead = doubted;
                }
                return Landing::Failed(withheld_lack(why));
            }
            Report::Refreshed { outcome, is_dead } => (outcome, is_dead),
        };
        // On stable, WeChat counts what was forced; elsewhere, a replacement is what has to be counted.
        let is_forced = match (self.account.api, &doubted) {
            (Api::Stable, _) => self.tally.forced() > forced_before,
            (_, Some(_)) => matches!(outcome, Ok(Outcome::Renewed(_) | Outcome::Confirmed(_))),
            (_, None) => false,
        };
        if is_forced {
            state.forced.note(now);
        }
        match outcome {
            // The very token that was doubted, again: nothing is better than before.
            Ok(Outcome::Confirmed(document)) if doubted.as_ref() == Some(&document.token) => {
                if is_dead {
                    state.dead = doubted;
                }
                Landing::Failed(Lack { why: AGAIN.to_owned(), retry_after: ration::BETWEEN_FORCED })
            }
            Ok(outcome) => {
                self.succeeded(&mut state, &outcome);
                Landing::Published
            }
            Err(failure) => {
                if is_dead {
                    state.dead = doubted;
                }
                Landing::Failed(self.failed(&mut state, &failure))
            }
        }
    }

    fn succeeded(&self, state: &mut State, outcome: &Outcome) {
        let name = &self.account.name;
        let now = SystemClock.now();
        if state.trouble.take().is_some() {
            error!("serve: {name}: all is well again: WeChat gives tokens");
        }
        let (Outcome::Kept(document) | Outcome::Renewed(document) | Outcome::Confirmed(document)) =
            outcome;
        if !matches!(outcome, Outcome::Kept(_)) {
            state.succeeded_at = Some(now);
            info!("serve: {name}: token {} is published", document.token.fingerprint());
        }
        if state.dead.as_ref() != Some(&document.token) {
            state.dead = None;
        }
        state.not_before = Instant::now() + self.wait_after(document, now);
    }

    /// How long WeChat is left alone after a success with a token that is due all the same.
    fn wait_after(&self, document: &Document, now: UtcDateTime) -> Duration {
        let margin = pace::margin(document, self.account.api, self.account.refresh_before);
        match document.is_due(now, margin) {
            true => pace::wait_while_due(document.left(now)),
            false => Duration::ZERO,
        }
    }

    fn failed(&self, state: &mut State, failure: &Failure) -> Lack {
        let (name, now) = (&self.account.name, Instant::now());
        let text = failure.to_string();
        let in_a_row = state.trouble.as_ref().map_or(1, |trouble| trouble.in_a_row + 1);
        let pause = pace::pause(in_a_row, failure.retry_after(), SystemClock.chance());
        let told_at = match &state.trouble {
            Some(known) if known.text == text && now < known.told_at + BETWEEN_LINES => {
                known.told_at
            }
            _ => {
                let pause = humantime::format_duration(Duration::from_secs(pause.as_secs()));
                error!("serve: {name}: {text} (trying again in {pause})");
                now
            }
        };
        let trouble =
            Trouble { at: SystemClock.now(), text, in_a_row, retry_at: now + pause, told_at };
        state.trouble.insert(trouble).lack(name, now)
    }
}

impl Trouble {
    fn lack(&self, name: &str, now: Instant) -> Lack {
        Lack {
            why: format!("there is no live token: {name}: {}", self.text),
            retry_after: self.retry_at.saturating_duration_since(now),
        }
    }
}

/// What is said when WeChat was asked for another token and gave the old one without a word.
const AGAIN: &str =
    "WeChat gave the same token again; try again later. 微信返回了原 token，请稍后再试。";

fn withheld_lack(why: Withheld) -> Lack {
    let (why, retry_after) = match why {
        Withheld::TooSoon(rest) => (
            "a token was replaced moments ago, and that is done once in 30 seconds at most; ask again then. \
             30 秒内已强制刷新过，请稍后再试。",
            rest,
        ),
        Withheld::DayUsedUp(rest) => (
            "tokens were replaced on demand as often as a day allows; who kills them? \
             当日强制刷新次数已用完，请查明是谁在使 token 失效。",
            rest,
        ),
    };
    Lack { why: why.to_owned(), retry_after }
}

/// Waits for a flight, but no longer than a client does.
async fn wait(flight: &Flight) -> Result<&Landing, Lack> {
    let deadline = tokio::time::Instant::now() + LONGEST_WAIT;
    timeout_at(deadline, flight.landing()).await.map_err(|_| Lack {
        why: "WeChat is being asked and has not answered yet; ask again".to_owned(),
        retry_after: Duration::from_secs(5),
    })
}

/// What a thread needs to do a job.
struct Errand {
    name: String,
    appid: String,
    api: Api,
    refresh_before: Duration,
    store: FileStore,
    wechat: Arc<WeChat>,
    tally: Arc<Tally>,
}

impl Errand {
    fn run(&self, job: Job) -> Report {
        let (doubted, is_probed, word, withheld) = match job {
            Job::Refresh => return self.refresh(&Want::Live, None, false),
            Job::Settle { doubted, is_probed, word, withheld } => {
                (doubted, is_probed, word, withheld)
            }
        };
        let pulse = match is_probed {
            true => None,
            false => Some(self.wechat.probe(&doubted, PROBE_TIMEOUT)),
        };
        let is_dead = matches!(pulse, Some(Pulse::Dead));
        if let Some(Pulse::Unknown(err)) = &pulse {
            debug!("serve: {}: cannot tell whether a token is alive: {err}", self.name);
        }
        match (pulse, word) {
            (Some(Pulse::Alive), _) => {
                info!(
                    "serve: {}: token {} was said to be rejected, and WeChat honours it",
                    self.name,
                    doubted.fingerprint()
                );
                return Report::Honoured;
            }
            // Nobody knows, and a hint is no reason to burn a token.
            (Some(Pulse::Unknown(_)) | None, Word::Implied) => return Report::Unknown,
            _ => {}
        }
        match (self.api, withheld) {
            // A plain question on stable costs nothing, and brings the new one where somebody else has forced it.
            (Api::Stable, withheld) => self.refresh(&Want::NotThis(doubted), withheld, is_dead),
            (_, Some(why)) => Report::Withheld { why, is_dead },
            (_, None) => self.refresh(&Want::NotThis(doubted), None, is_dead),
        }
    }

    fn refresh(&self, want: &Want, withheld: Option<Withheld>, is_dead: bool) -> Report {
        let source =
            Counted { source: &*self.wechat, tally: &self.tally, is_withheld: withheld.is_some() };
        let refresh = Refresh {
            name: &self.name,
            appid: &self.appid,
            api: self.api,
            refresh_before: self.refresh_before,
            clock: &SystemClock,
            source: &source,
            store: &self.store,
        };
        let outcome = refresh.run(want, SystemClock.instant() + REFRESH_TIMEOUT);
        match (outcome, withheld) {
            (Err(Failure::Asking(AskError::Withheld)), Some(why)) => {
                Report::Withheld { why, is_dead }
            }
            (outcome, _) => Report::Refreshed { outcome, is_dead },
        }
    }
}
