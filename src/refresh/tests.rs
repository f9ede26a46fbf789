//! The story in virtual time: a clock that stands still, a source that follows a script or WeChat's own rules, and a
//! store in memory. Nothing here waits, and nothing here touches a file or the network.

use std::cell::{Cell, RefCell};
use std::collections::{HashSet, VecDeque};
use std::rc::Rc;

use anyhow::{Result, bail};

use super::*;
use crate::api::Api;
use crate::errcode::{Call, Platform, Refusal};
use crate::mock;
use crate::store::{Prepared, Turn};

const MARGIN: Duration = Duration::from_secs(300);
const LIFE: Duration = Duration::from_secs(7200);
const TIMEOUT: Duration = Duration::from_secs(30);

/// A clock that stands still unless somebody sleeps.
struct Stopped {
    start: Instant,
    passed: Cell<Duration>,
}

impl Clock for Stopped {
    fn now(&self) -> UtcDateTime {
        UtcDateTime::UNIX_EPOCH + self.passed.get()
    }
    fn instant(&self) -> Instant {
        self.start + self.passed.get()
    }
    fn sleep(&self, span: Duration) {
        self.passed.set(self.passed.get() + span);
    }
    fn chance(&self) -> u64 {
        499
    }
}

/// A source that answers what it was told to, and notes how it was asked.
#[derive(Default)]
struct Script {
    answers: RefCell<VecDeque<Result<&'static str, AskError>>>,
    asked: RefCell<Vec<Ask>>,
}

impl Source for Script {
    fn ask(&self, how: Ask, _: Duration) -> Result<Grant, AskError> {
        self.asked.borrow_mut().push(how);
        let answer = self.answers.borrow_mut().pop_front().expect("asked more often than expected");
        answer.map(|token| Grant { token: Secret::new(token.to_owned()), expires_in: LIFE })
    }
}

/// A store in memory; what goes on in it can be scripted.
#[derive(Clone, Default)]
struct Memory {
    document: Rc<RefCell<Option<Document>>>,
    held: bool,
    full: bool,
    /// What another process publishes while this one waits for its turn.
    meanwhile: Option<Document>,
}

impl Store for Memory {
    fn read(&self) -> Result<Found> {
        Ok(self.document.borrow().clone().map_or(Found::Nothing, Found::Document))
    }
    fn turn(&self, _: &dyn Clock, _: Instant) -> Result<Option<Box<dyn Turn>>> {
        if let Some(document) = &self.meanwhile {
            self.document.replace(Some(document.clone()));
        }
        Ok((!self.held).then(|| Box::new(self.clone()) as Box<dyn Turn>))
    }
}

impl Turn for Memory {
    fn read(&self) -> Result<Found> {
        Store::read(self)
    }
    fn prepare(self: Box<Self>) -> Result<Box<dyn Prepared>> {
        if self.full { bail!("no space left on device") } else { Ok(self) }
    }
}

impl Prepared for Memory {
    fn publish(self: Box<Self>, document: &Document) -> Result<()> {
        self.document.replace(Some(document.clone()));
        Ok(())
    }
}

struct World {
    clock: Stopped,
    wechat: Script,
    store: Memory,
}

impl World {
    fn new(answers: impl IntoIterator<Item = Result<&'static str, AskError>>) -> World {
        World {
            clock: Stopped { start: Instant::now(), passed: Cell::default() },
            wechat: Script {
                answers: RefCell::new(answers.into_iter().collect()),
                ..Script::default()
            },
            store: Memory::default(),
        }
    }
    fn publishing(self, token: &str) -> World {
        self.store.document.replace(Some(self.document(token)));
        self
    }
    fn document(&self, token: &str) -> Document {
        Document::new("wx1", Secret::new(token.to_owned()), LIFE, self.clock.now())
    }
    fn run(&self, want: Want) -> Result<Outcome, Failure> {
        self.run_within(TIMEOUT, want)
    }
    fn run_within(&self, timeout: Duration, want: Want) -> Result<Outcome, Failure> {
        self.refresh().run(&want, self.clock.instant() + timeout)
    }
    fn refresh(&self) -> Refresh<'_> {
        Refresh {
            name: "default",
            appid: "wx1",
            refresh_before: MARGIN,
            clock: &self.clock,
            source: &self.wechat,
            store: &self.store,
        }
    }
    fn asked(&self) -> Vec<Ask> {
        self.wechat.asked.borrow().clone()
    }
}

fn not(token: &str) -> Want {
    Want::NotThis(Secret::new(token.to_owned()))
}

fn refused(code: i64) -> Result<&'static str, AskError> {
    Err(AskError::Refused(Refusal::new(code, "", Call::Asking, Platform::Official)))
}

#[test]
fn a_token_is_asked_for_when_there_is_none_and_again_only_when_due() {
    let world = World::new([Ok("T1"), Ok("T2")]);
    assert_eq!(world.run(Want::Live).unwrap(), Outcome::Renewed(world.document("T1")));
    world.clock.sleep(LIFE - MARGIN - Duration::from_secs(1));
    assert!(matches!(world.run(Want::Live).unwrap(), Outcome::Kept(_)));
    world.clock.sleep(Duration::from_secs(1));
    assert_eq!(world.run(Want::Live).unwrap(), Outcome::Renewed(world.document("T2")));
    assert_eq!(world.asked(), [Ask::Good, Ask::Good]);
}

#[test]
fn who_waited_for_the_lock_looks_again_and_does_not_ask() {
    let mut world = World::new([]);
    world.store.meanwhile = Some(world.document("T1"));
    assert_eq!(world.run(Want::Live).unwrap(), Outcome::Kept(world.document("T1")));
}

#[test]
fn what_wechat_said_to_somebody_else_meanwhile_is_the_answer_for_all_who_waited() {
    // A token that is due from the start, which WeChat may give with 300 s left.
    let mut world = World::new([]);
    let short = Document { expires_in: MARGIN, ..world.document("T1") };
    world.store.meanwhile = Some(short.clone());
    assert_eq!(world.run(Want::Live).unwrap(), Outcome::Kept(short));

    // The rejected token again: who asked has told WeChat already.
    let mut world = World::new([]).publishing("T1");
    let again = Document { expires_in: LIFE / 2, ..world.document("T1") };
    world.store.meanwhile = Some(again.clone());
    assert_eq!(world.run(not("T1")).unwrap(), Outcome::Confirmed(again));

    // Another one, minted by force.
    let mut world = World::new([]).publishing("T1");
    world.store.meanwhile = Some(world.document("T2"));
    assert_eq!(world.run(Want::Another).unwrap(), Outcome::Kept(world.document("T2")));
}

#[test]
fn a_slow_wechat_gets_half_of_the_time_there_is_or_ten_seconds() {
    let world = World::new([]);
    let refresh = world.refresh();
    for (left, expected) in [(60, 30), (30, 15), (12, 10), (10, 10), (3, 3)] {
        let deadline = world.clock.instant() + Duration::from_secs(left);
        assert_eq!(refresh.try_timeout(deadline), Duration::from_secs(expected));
    }
}

#[test]
fn what_cannot_be_published_is_not_asked_for() {
    let mut world = World::new([]);
    world.store.full = true;
    assert_eq!(world.run(Want::Another).unwrap_err().exit(), Exit::Failure);
    world.store.held = true;
    assert_eq!(world.run(Want::Another).unwrap_err().exit(), Exit::Locked);
}

#[test]
fn another_accounts_document_is_not_replaced() {
    let world = World::new([]);
    let foreign = Document { appid: "wx2".to_owned(), ..world.document("T1") };
    world.store.document.replace(Some(foreign));
    let failure = world.run(Want::Another).unwrap_err();
    assert_eq!(failure.exit(), Exit::Usage);
    assert!(failure.to_string().contains("wx2"), "{failure}");
}

#[test]
fn a_failure_leaves_what_is_published() {
    for failure in [
        refused(40164),
        Err(AskError::Nonsense("an empty body".to_owned())),
        Err(AskError::Status(302)),
        Err(AskError::Unreachable { what: "TLS".to_owned(), may_pass: false }),
    ] {
        let world = World::new([failure]).publishing("T1");
        let before = world.store.document.borrow().clone();
        assert!(world.run(Want::Another).is_err());
        assert_eq!(*world.store.document.borrow(), before);
        assert_eq!(world.asked().len(), 1, "what is permanent is not tried again");
    }
}

#[test]
fn what_is_transient_is_tried_after_about_one_two_and_four_seconds() {
    let world = World::new([refused(-1), Err(AskError::Status(502)), refused(-1), Ok("T1")]);
    world.run(Want::Live).unwrap();
    let waited: Duration =
        PAUSES.map(|pause| with_jitter(pause, world.clock.chance())).iter().sum();
    assert_eq!(world.clock.passed.get(), waited);
    assert_eq!(
        world.store.document.borrow().as_ref().unwrap().created_at,
        world.document("").created_at
    );

    let world = World::new((0..4).map(|_| refused(-1)));
    assert_eq!(world.run(Want::Live).unwrap_err().exit(), Exit::Unreachable);
}

#[test]
fn nobody_waits_past_the_deadline() {
    let world = World::new((0..4).map(|_| refused(-1)));
    assert!(world.run_within(Duration::from_secs(3), Want::Live).is_err());
    assert!(world.clock.passed.get() < Duration::from_secs(3));
    assert_eq!(world.asked().len(), 2);
}

#[test]
fn nobody_asks_who_could_not_hear_the_answer() {
    let world = World::new([]);
    let failure = world.run_within(LEAST_TRY - Duration::from_millis(1), Want::Live).unwrap_err();
    assert_eq!(failure.exit(), Exit::Unreachable);
    assert!(failure.to_string().contains("--timeout"), "{failure}");
    // Nor does anybody wait for a try that there is no time for.
    let world = World::new([refused(-1)]);
    let failure = world.run_within(PAUSES[0] + LEAST_TRY, Want::Live).unwrap_err();
    assert!(
        failure.to_string().contains("busy"),
        "the real reason, not the lack of time: {failure}"
    );
    assert_eq!(world.clock.passed.get(), Duration::ZERO);
}

/// Whoever takes a token can use it for as long as was said, at any second of many generations of it: WeChat's own
/// rules say when one is dead.
#[test]
fn promise_4_a_token_outlives_what_was_promised_with_it() {
    for (api, margin) in [
        (Api::Classic, MARGIN),
        (Api::Classic, Duration::from_secs(3600)),
        (Api::Stable, MARGIN),
        (Api::Stable, Duration::from_secs(60)),
    ] {
        let clock = Stopped { start: Instant::now(), passed: Cell::default() };
        let wechat = Rules::new(&clock, api);
        let store = Memory::default();
        let mut held: Vec<(Secret, Duration)> = Vec::new();
        let mut generations = HashSet::new();
        for second in 0..50_000 {
            if second % 60 == 0 {
                let refresh = Refresh {
                    name: "default",
                    appid: "wx1",
                    refresh_before: margin,
                    clock: &clock,
                    source: &wechat,
                    store: &store,
                };
                refresh.run(&Want::Live, clock.instant() + TIMEOUT).unwrap();
            }
            let document = store.document.borrow().clone().unwrap();
            let promise = document.promise(clock.now(), api, margin);
            assert!(!promise.is_zero(), "there is a token at every second");
            generations.insert(document.token.fingerprint());
            held.push((document.token, clock.passed.get() + promise));
            held.retain(|(token, until)| {
                assert!(
                    clock.passed.get() >= *until || wechat.is_alive(token),
                    "{api:?} at {second}"
                );
                clock.passed.get() < *until
            });
            held.dedup_by(|later, earlier| later.0 == earlier.0 && later.1 <= earlier.1);
            clock.sleep(Duration::from_secs(1));
        }
        assert!(generations.len() >= 6, "{} generations", generations.len());
    }
}

/// The stand-in's rules as a source, without the wire.
struct Rules<'a> {
    clock: &'a Stopped,
    api: Api,
    wechat: RefCell<mock::WeChat>,
}

impl<'a> Rules<'a> {
    fn new(clock: &'a Stopped, api: Api) -> Rules<'a> {
        let terms = mock::Terms { life: LIFE, overlap: Duration::from_secs(300) };
        let accounts = vec![("wx1".to_owned(), Secret::new("s".to_owned()))];
        Rules {
            clock,
            api,
            wechat: RefCell::new(mock::WeChat::new(accounts, terms, Duration::ZERO)),
        }
    }
    fn is_alive(&self, token: &Secret) -> bool {
        self.wechat.borrow_mut().honour(token.expose(), self.clock.passed.get()).is_ok()
    }
}

impl Source for Rules<'_> {
    fn ask(&self, _: Ask, _: Duration) -> Result<Grant, AskError> {
        let who = mock::Credentials { appid: "wx1", grant_type: "client_credential", secret: "s" };
        let mut wechat = self.wechat.borrow_mut();
        let grant = match self.api {
            Api::Classic => wechat.token(who, self.clock.passed.get()),
            Api::Stable => wechat.stable_token(who, self.clock.passed.get()),
        }
        .expect("the rules are kept");
        Ok(Grant { token: grant.token, expires_in: Duration::from_secs(grant.expires_in_secs) })
    }
}

#[test]
fn a_rejected_token_is_replaced_only_while_it_is_the_published_one() {
    let world = World::new([]).publishing("T2");
    assert!(matches!(world.run(not("T1")).unwrap(), Outcome::Kept(_)));

    let world = World::new([Ok("T2")]).publishing("T1");
    assert_eq!(world.run(not("T1")).unwrap(), Outcome::Renewed(world.document("T2")));
    assert_eq!(world.asked(), [Ask::Good], "WeChat had another already");

    let world = World::new([Ok("T1"), Ok("T2")]).publishing("T1");
    assert_eq!(world.run(not("T1")).unwrap(), Outcome::Renewed(world.document("T2")));
    assert_eq!(world.asked(), [Ask::Good, Ask::Another]);

    let world = World::new([Ok("T1"), Ok("T1")]).publishing("T1");
    assert_eq!(world.run(not("T1")).unwrap(), Outcome::Confirmed(world.document("T1")));
}

#[test]
fn the_same_token_again_is_no_change_and_brings_the_life_wechat_states() {
    let world = World::new([Ok("T1")]).publishing("T1");
    world.clock.sleep(LIFE - MARGIN);
    assert_eq!(world.run(Want::Live).unwrap(), Outcome::Confirmed(world.document("T1")));
}

#[test]
fn jitter_adds_up_to_a_quarter_and_never_takes_away() {
    let second = Duration::from_secs(1);
    assert_eq!(with_jitter(second, 0), second);
    assert_eq!(with_jitter(second, 999), Duration::from_micros(1_249_750));
    for random in 0..5000 {
        assert!((second..Duration::from_millis(1250)).contains(&with_jitter(second, random)));
    }
}
