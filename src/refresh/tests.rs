//! The story in virtual time: a clock that stands still, a source that follows a script or WeChat's own rules, and a
//! store in memory. Nothing here waits, and nothing here touches a file or the network.

use std::cell::{Cell, RefCell};
use std::collections::{HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use anyhow::{Result, bail};

use super::*;
use crate::mock;
use crate::model::errcode::{CallKind, Platform, Refusal};
use crate::store::{Prepared, Turn};

mod ticket;

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

/// A source that answers what it was told to, and notes how it was asked and what was published then.
#[derive(Default)]
struct Script {
    answers: RefCell<VecDeque<Result<&'static str, UpstreamError>>>,
    asked: RefCell<Vec<RefreshMode>>,
    store: Memory,
    published_then: RefCell<Vec<Option<Document>>>,
}

impl TokenSource for Script {
    fn request_token(&self, how: RefreshMode, _: Duration) -> Result<IssuedToken, UpstreamError> {
        self.asked.borrow_mut().push(how);
        self.published_then.borrow_mut().push(self.store.document.borrow().clone());
        let answer = self.answers.borrow_mut().pop_front().expect("asked more often than expected");
        answer.map(|token| IssuedToken { token: Secret::new(token.to_owned()), expires_in: LIFE })
    }
}

/// A store in memory; what goes on in it can be scripted.
#[derive(Clone, Default)]
struct Memory {
    document: Rc<RefCell<Option<Document>>>,
    held: bool,
    full: bool,
    /// There is room for one more file, and not for two.
    nearly_full: bool,
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
    fn publish_for_now(&self, document: &Document) -> Result<()> {
        if self.nearly_full {
            bail!("no space left on device")
        }
        self.document.replace(Some(document.clone()));
        Ok(())
    }
    fn publish(self: Box<Self>, document: &Document) -> Result<()> {
        self.document.replace(Some(document.clone()));
        Ok(())
    }
}

struct World {
    clock: Stopped,
    rules: Rules,
    wechat: Script,
    store: Memory,
}

impl World {
    fn new(answers: impl IntoIterator<Item = Result<&'static str, UpstreamError>>) -> World {
        let store = Memory::default();
        World {
            clock: Stopped { start: Instant::now(), passed: Cell::default() },
            rules: Rules::Stable,
            wechat: Script {
                answers: RefCell::new(answers.into_iter().collect()),
                store: store.clone(),
                ..Script::default()
            },
            store,
        }
    }
    fn on(self, rules: Rules) -> World {
        World { rules, ..self }
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
            place: "default.json",
            appid: "wx1",
            rules: self.rules,
            refresh_before: MARGIN,
            clock: &self.clock,
            source: &self.wechat,
            store: &self.store,
        }
    }
    fn asked(&self) -> Vec<RefreshMode> {
        self.wechat.asked.borrow().clone()
    }
    fn published(&self) -> Option<Document> {
        self.store.document.borrow().clone()
    }
    /// What readers saw at each call.
    fn published_then(&self) -> Vec<Option<Document>> {
        self.wechat.published_then.borrow().clone()
    }
    /// The document with this token, cut by a call now.
    fn cut(&self, document: &Document) -> Document {
        document.shortened_to_overlap(self.clock.now()).expect("it has more than the overlap left")
    }
}

/// No answer; the request was sent, or it was not.
fn unreachable(may_have_arrived: bool) -> Result<&'static str, UpstreamError> {
    let what = "no answer in time".to_owned();
    Err(UpstreamError::Unreachable { what, may_pass: false, may_have_arrived })
}

/// The same, and worth another try.
fn lost_for_now() -> Result<&'static str, UpstreamError> {
    let what = "no answer in time".to_owned();
    Err(UpstreamError::Unreachable { what, may_pass: true, may_have_arrived: true })
}

fn nonsense() -> Result<&'static str, UpstreamError> {
    Err(UpstreamError::Malformed("an empty body".to_owned()))
}

fn not(token: &str) -> Want {
    Want::NotThis(Secret::new(token.to_owned()))
}

fn refused(code: i64) -> Result<&'static str, UpstreamError> {
    Err(UpstreamError::Refused(Refusal::new(code, "", CallKind::RequestsToken, Platform::Official)))
}

#[test]
fn a_token_is_asked_for_when_there_is_none_and_again_only_when_due() {
    let world = World::new([Ok("T1"), Ok("T2")]);
    assert_eq!(world.run(Want::Live).unwrap(), Outcome::Renewed(world.document("T1")));
    world.clock.sleep(LIFE - MARGIN - Duration::from_secs(1));
    assert!(matches!(world.run(Want::Live).unwrap(), Outcome::Kept(_)));
    world.clock.sleep(Duration::from_secs(1));
    assert_eq!(world.run(Want::Live).unwrap(), Outcome::Renewed(world.document("T2")));
    assert_eq!(world.asked(), [RefreshMode::Normal, RefreshMode::Normal]);
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
    world.clock.sleep(Duration::from_secs(1));
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
        nonsense(),
        Err(UpstreamError::Status(302)),
        unreachable(true),
        unreachable(false),
    ] {
        let world = World::new([failure]).publishing("T1");
        let before = world.published();
        world.clock.sleep(LIFE - MARGIN);
        assert!(world.run(Want::Live).is_err());
        assert_eq!(world.published(), before);
        assert_eq!(world.asked().len(), 1, "what is permanent is not tried again");
    }
}

#[test]
fn what_is_transient_is_tried_after_about_one_two_and_four_seconds() {
    let world = World::new([refused(-1), Err(UpstreamError::Status(502)), refused(-1), Ok("T1")]);
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

#[test]
fn a_document_is_cut_before_a_call_that_kills_its_token_and_before_no_other() {
    for (rules, want, is_killed) in [
        (Rules::Classic, Want::Live, true),
        (Rules::Classic, Want::Another, true),
        (Rules::Classic, not("T1"), true),
        (Rules::Stable, Want::Live, false),
        (Rules::Stable, Want::Another, true),
        (Rules::Stable, not("T1"), false),
    ] {
        let world = World::new([Ok("T2")]).on(rules).publishing("T1");
        world.clock.sleep(LIFE / 2);
        let before = world.published().unwrap();
        let refresh = Refresh { refresh_before: LIFE, ..world.refresh() };
        let outcome = refresh.run(&want, world.clock.instant() + TIMEOUT).unwrap();
        assert_eq!(outcome, Outcome::Renewed(world.document("T2")), "{rules:?} {want:?}");
        let then = if is_killed { world.cut(&before) } else { before };
        assert_eq!(world.published_then(), [Some(then)], "{rules:?} {want:?}");
    }
    // On stable, only once it has been found out that the rejected one is still the good one.
    let world = World::new([Ok("T1"), Ok("T2")]).publishing("T1");
    let before = world.published().unwrap();
    world.run(not("T1")).unwrap();
    assert_eq!(world.published_then(), [Some(before.clone()), Some(world.cut(&before))]);
    // And what ends within the overlap anyway is left alone.
    let world = World::new([Ok("T2")]).on(Rules::Classic).publishing("T1");
    world.clock.sleep(LIFE - MARGIN);
    let before = world.published();
    world.run(Want::Live).unwrap();
    assert_eq!(world.published_then(), [before]);
}

#[test]
fn a_document_is_put_back_only_when_it_is_sure_that_nothing_was_minted() {
    for (failure, is_sure) in [
        (refused(40164), true),
        (Err(UpstreamError::Status(403)), true),
        (unreachable(false), true),
        (unreachable(true), false),
        (nonsense(), false),
        (Err(UpstreamError::Status(200)), false),
    ] {
        let what = format!("{failure:?}");
        let world = World::new([failure]).on(Rules::Classic).publishing("T1");
        world.clock.sleep(LIFE / 2);
        let before = world.published().unwrap();
        let failure = world.run(Want::Another).unwrap_err();
        if is_sure {
            assert!(matches!(failure, Failure::Asking(_)), "{what}: {failure}");
            assert_eq!(world.published(), Some(before), "{what}");
        } else {
            let cut = world.cut(&before);
            assert!(failure.to_string().contains(&cut.expires_at_rfc3339()), "{what}: {failure}");
            assert!(matches!(failure, Failure::Lost { .. }), "{what}: {failure}");
            assert_eq!(world.published(), Some(cut), "{what}");
        }
    }
}

#[test]
fn an_answer_that_was_lost_once_stays_lost_whatever_the_next_try_brings() {
    let world = World::new([lost_for_now(), refused(45009)]).on(Rules::Classic).publishing("T1");
    let before = world.published().unwrap();
    let cut = world.cut(&before);
    let failure = world.run(Want::Another).unwrap_err();
    assert_eq!(failure.exit(), Exit::Refused);
    assert_eq!(failure.retry_after(), Some(Duration::from_secs(3600)));
    assert!(failure.to_string().contains(&cut.expires_at_rfc3339()), "{failure}");
    assert_eq!(world.published(), Some(cut.clone()));
    // The second call is no reason to cut once more, nor is the next run's.
    assert_eq!(world.published_then(), [Some(cut.clone()), Some(cut.clone())]);
    world.wechat.answers.borrow_mut().push_back(refused(45009));
    world.run(Want::Another).unwrap_err();
    assert_eq!(world.published(), Some(cut), "and no refusal puts back what was lost before");

    let world =
        World::new([refused(-1), lost_for_now(), Ok("T3")]).on(Rules::Classic).publishing("T1");
    assert_eq!(world.run(Want::Another).unwrap(), Outcome::Renewed(world.document("T3")));
}

/// WeCom may state a whole life each time for a token that is nearly over.
#[test]
fn on_work_the_same_token_again_keeps_its_end_and_is_asked_for_once() {
    for want in [Want::Live, Want::Another, not("T1")] {
        let world = World::new([Ok("T1")]).on(Rules::Work).publishing("T1");
        let end = world.published().unwrap().expires_at();
        world.clock.sleep(LIFE - MARGIN);
        let Outcome::Confirmed(document) = world.run(want).unwrap() else {
            panic!("it is the same")
        };
        assert_eq!((document.expires_at(), document.expires_in), (end, MARGIN));
        assert_eq!(world.published(), Some(document.clone()));
        // Who waited for the lock meanwhile has the answer, too.
        let mut waiting = World::new([]).on(Rules::Work).publishing("T1");
        waiting.clock.sleep(LIFE - MARGIN);
        waiting.store.meanwhile = Some(document.clone());
        assert_eq!(waiting.run(not("T1")).unwrap(), Outcome::Confirmed(document));
    }
    let world = World::new([Ok("T2")]).on(Rules::Work).publishing("T1");
    assert_eq!(world.run(not("T1")).unwrap(), Outcome::Renewed(world.document("T2")));
}

#[test]
fn on_work_a_token_whose_time_is_over_is_asked_for_until_it_is_another() {
    let world = World::new([Ok("T1"), Ok("T1"), Ok("T2")]).on(Rules::Work).publishing("T1");
    world.clock.sleep(LIFE);
    assert!(
        matches!(world.run(Want::Live).unwrap(), Outcome::Renewed(it) if it.token.expose() == "T2")
    );
    let world = World::new([(); 4].map(|()| Ok("T1"))).on(Rules::Work).publishing("T1");
    let before = world.published();
    world.clock.sleep(LIFE);
    let failure = world.run(Want::Live).unwrap_err();
    assert_eq!(failure.exit(), Exit::Unreachable);
    assert!(failure.to_string().contains("clock"), "{failure}");
    assert_eq!(world.published(), before);
}

#[test]
fn on_work_a_life_is_counted_from_the_first_call_that_may_have_begun_it() {
    let world =
        World::new([refused(-1), lost_for_now(), Ok("T2")]).on(Rules::Work).publishing("T1");
    world.clock.sleep(LIFE);
    let first = world.clock.passed.get() + with_jitter(PAUSES[0], world.clock.chance());
    world.run(Want::Live).unwrap();
    let created_at = world.published().unwrap().created_at - UtcDateTime::UNIX_EPOCH;
    assert_eq!(created_at.whole_seconds() as u64, first.as_secs());
    assert!(world.clock.passed.get() > first + PAUSES[1], "the answer came later");
}

#[test]
fn on_work_no_call_kills_anything() {
    for failure in [unreachable(true), nonsense(), refused(40001)] {
        let world = World::new([failure]).on(Rules::Work).publishing("T1");
        let before = world.published();
        assert!(matches!(world.run(Want::Another), Err(Failure::Asking(_))));
        assert_eq!(world.published(), before);
        assert_eq!(world.asked().len(), 1);
    }
}

/// Forcing once more would kill what the lost answer holds, and the published token at once.
#[test]
fn after_a_lost_forced_answer_the_good_token_is_asked_for() {
    for want in [Want::Another, not("T1")] {
        let is_rejected = matches!(want, Want::NotThis(_));
        let first = if is_rejected { vec![Ok("T1")] } else { vec![] };
        let script = first.into_iter().chain([lost_for_now(), Ok("T2")]);
        let world = World::new(script).publishing("T1");
        assert_eq!(world.run(want).unwrap(), Outcome::Renewed(world.document("T2")));
        let expected = [RefreshMode::Normal, RefreshMode::Forced, RefreshMode::Normal];
        assert_eq!(world.asked(), expected[usize::from(!is_rejected)..]);
    }
    // It was lost before it arrived.
    let world = World::new([lost_for_now(), Ok("T1"), Ok("T2")]).publishing("T1");
    assert_eq!(world.run(Want::Another).unwrap(), Outcome::Renewed(world.document("T2")));
    assert_eq!(world.asked(), [RefreshMode::Forced, RefreshMode::Normal, RefreshMode::Forced]);
    // By a run that is over, or dead.
    let world = World::new([unreachable(true), Ok("T2")]).publishing("T1");
    world.run(Want::Another).unwrap_err();
    world.clock.sleep(Duration::from_secs(60));
    assert_eq!(world.run(Want::Another).unwrap(), Outcome::Renewed(world.document("T2")));
    assert_eq!(world.asked(), [RefreshMode::Forced, RefreshMode::Normal]);
}

#[test]
fn who_waited_behind_one_who_got_no_answer_asks_for_himself() {
    for want in [Want::Live, Want::Another, not("T1")] {
        let mut world = World::new([Ok("T2")]).on(Rules::Classic).publishing("T1");
        world.clock.sleep(LIFE / 2);
        // Cut by a holder of the lock who died while he asked.
        world.store.meanwhile = world.published().map(|document| world.cut(&document));
        let refresh = Refresh { refresh_before: LIFE / 2, ..world.refresh() };
        let outcome = refresh.run(&want, world.clock.instant() + TIMEOUT).unwrap();
        assert_eq!(outcome, Outcome::Renewed(world.document("T2")), "{want:?}");
        // And one that looked when it was cut, and again when it was put back.
        let mut world = World::new([Ok("T2")]).on(Rules::Classic).publishing("T1");
        world.store.meanwhile = world.published();
        let cut = world.cut(&world.published().unwrap());
        world.store.document.replace(Some(cut));
        let outcome = world.run(Want::Another).unwrap();
        assert_eq!(outcome, Outcome::Renewed(world.document("T2")), "{want:?}");
    }
}

#[test]
fn a_document_that_cannot_be_cut_is_a_local_fault_and_costs_no_call() {
    let mut world = World::new([]).on(Rules::Classic).publishing("T1");
    world.store.nearly_full = true;
    let before = world.published();
    assert_eq!(world.run(Want::Another).unwrap_err().exit(), Exit::Failure);
    assert_eq!(world.published(), before);
}

/// Whoever takes a token can use it for as long as was said, at any second of many generations of it: WeChat's own
/// rules say when one is dead.
#[test]
fn promise_4_a_token_outlives_what_was_promised_with_it() {
    for (rules, margin) in [
        (Rules::Classic, MARGIN),
        (Rules::Classic, Duration::from_secs(3600)),
        (Rules::Stable, MARGIN),
        (Rules::Stable, Duration::from_secs(60)),
    ] {
        let clock = Stopped { start: Instant::now(), passed: Cell::default() };
        let town = Town::new(&clock, rules, margin);
        for second in 0..50_000 {
            if second % 60 == 0 {
                town.run(&Want::Live, []);
            }
            assert!(town.read(), "there is a token at every second");
            town.pass_a_second();
        }
        assert!(town.generations() >= 6, "{} generations", town.generations());
    }
}

/// The same where nearly every second call goes wrong: answers are lost behind a mint, and wxtoken dies behind one.
#[test]
fn promise_4_no_reader_is_promised_a_token_that_died_with_a_lost_answer() {
    for (rules, margin) in [
        (Rules::Classic, MARGIN),
        (Rules::Classic, Duration::from_secs(3600)),
        (Rules::Stable, MARGIN),
        (Rules::Stable, Duration::from_secs(60)),
        (Rules::Work, MARGIN),
    ] {
        let clock = Stopped { start: Instant::now(), passed: Cell::default() };
        let town = Town::new(&clock, rules, margin);
        let mut chance: u64 = 1;
        let mut fates = || {
            const FATES: [Fate; 8] = [
                Fate::Answered,
                Fate::Lost,
                Fate::Answered,
                Fate::Death,
                Fate::Refused,
                Fate::Lost,
                Fate::NeverHeard,
                Fate::NeverSent,
            ];
            let fates = [(); 4].map(|()| {
                chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                FATES[(chance >> 61) as usize]
            });
            match rules {
                // What was minted in an earlier run, WeCom alone can tell: there each run has its answer, at last.
                Rules::Work => vec![Fate::Lost],
                Rules::Stable | Rules::Classic | Rules::Mirror => fates.to_vec(),
            }
        };
        let mut again_at = u64::MAX;
        for minute in 0..1500 {
            let published = town.published();
            match minute {
                // Whoever forces takes back all promises beyond the overlap, and no other.
                _ if minute % 50 == 49 => {
                    town.held
                        .borrow_mut()
                        .retain(|(_, until)| *until <= clock.passed.get() + CLASSIC_OVERLAP);
                    town.run(&Want::Another, fates());
                    let is_cut = town.published().zip(published).is_some_and(|(now, before)| {
                        !now.is_newer_answer_than(&before) && now.expires_in < before.expires_in
                    });
                    again_at = if is_cut { minute + 1 } else { u64::MAX };
                }
                // The same person, a minute later.
                _ if minute == again_at => town.run(&Want::Another, fates()),
                _ => town.run(&Want::Live, fates()),
            }
            for _ in 0..60 {
                town.read();
                town.pass_a_second();
            }
        }
        assert!(town.generations() > 10, "{} generations", town.generations());
        let lost = town.lost.get();
        assert!(lost > 3, "{rules:?}: {lost} answers were lost");
    }
}

/// What the way to WeChat does to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    /// By somebody who is busy.
    Refused,
    NeverSent,
    /// It did not arrive, and we cannot know.
    NeverHeard,
    /// It was done; the answer did not arrive.
    Lost,
    /// It was done, and that was the last of us.
    Death,
}

/// WeChat by the stand-in's rules, without the wire; wxtoken, and those who read what it publishes, each second.
struct Town<'a> {
    clock: &'a Stopped,
    rules: Rules,
    margin: Duration,
    wechat: RefCell<mock::MockWeChat>,
    store: Memory,
    /// What the next calls come to; then all is well.
    fates: RefCell<VecDeque<Fate>>,
    /// Each token that was taken, and until when it was promised.
    held: RefCell<Vec<(Secret, Duration)>>,
    seen: RefCell<HashSet<String>>,
    /// How many answers were lost whose call had minted a token.
    lost: Cell<u64>,
}

impl<'a> Town<'a> {
    fn new(clock: &'a Stopped, rules: Rules, margin: Duration) -> Town<'a> {
        let lifetime = mock::TokenLifetime { life: LIFE, overlap: Duration::from_secs(300) };
        let accounts = vec![("wx1".to_owned(), Secret::new("s".to_owned()))];
        Town {
            clock,
            rules,
            margin,
            wechat: RefCell::new(mock::MockWeChat::new(accounts, lifetime, Duration::ZERO, 1)),
            store: Memory::default(),
            fates: RefCell::default(),
            held: RefCell::default(),
            seen: RefCell::default(),
            lost: Cell::default(),
        }
    }

    /// A run of wxtoken, whose calls fare so.
    fn run(&self, want: &Want, fates: impl IntoIterator<Item = Fate>) {
        self.fates.replace(fates.into_iter().collect());
        let refresh = Refresh {
            place: "default.json",
            name: "default",
            appid: "wx1",
            rules: self.rules,
            refresh_before: self.margin,
            clock: self.clock,
            source: self,
            store: &self.store,
        };
        let deadline = self.clock.instant() + TIMEOUT;
        // What it says of it is no matter here; dying, least of all.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| refresh.run(want, deadline)))
            && !panic.is::<Fate>()
        {
            resume_unwind(panic);
        }
    }

    fn published(&self) -> Option<Document> {
        self.store.document.borrow().clone()
    }

    /// Somebody takes the token, if there is one.
    fn read(&self) -> bool {
        let Some(document) = self.published() else { return false };
        let promise = document.promise(self.clock.now(), self.rules, self.margin);
        self.seen.borrow_mut().insert(document.token.fingerprint());
        self.held.borrow_mut().push((document.token, self.clock.passed.get() + promise));
        !promise.is_zero()
    }

    /// Every token that was taken is used while it was promised to work.
    fn pass_a_second(&self) {
        let mut held = self.held.borrow_mut();
        let now = self.clock.passed.get();
        held.retain(|(token, until)| {
            let is_alive = self.wechat.borrow_mut().check_token(token.expose(), now).is_ok();
            assert!(now >= *until || is_alive, "{:?} at {now:?}, until {until:?}", self.rules);
            now < *until
        });
        held.dedup_by(|later, earlier| later.0 == earlier.0 && later.1 <= earlier.1);
        self.clock.sleep(Duration::from_secs(1));
    }

    fn generations(&self) -> usize {
        self.seen.borrow().len()
    }

    fn grant(&self, how: RefreshMode) -> Result<IssuedToken, UpstreamError> {
        let who =
            mock::CallerCredentials { appid: "wx1", grant_type: "client_credential", secret: "s" };
        let (mut wechat, now) = (self.wechat.borrow_mut(), self.clock.passed.get());
        let granted = match (self.rules, how) {
            (Rules::Classic, _) => wechat.classic_token(who, now),
            (Rules::Stable, RefreshMode::Normal) => wechat.stable_token(who, false, now),
            (Rules::Stable, RefreshMode::Forced) => wechat.stable_token(who, true, now),
            (Rules::Work | Rules::Mirror, _) => wechat.wecom_token(who, now),
        };
        let grant = granted.map_err(|refusal| {
            let Err(err) = refused(refusal.errcode) else { unreachable!("a refusal") };
            err
        })?;
        Ok(IssuedToken {
            token: grant.token,
            expires_in: Duration::from_secs(grant.expires_in_secs),
        })
    }
}

impl TokenSource for Town<'_> {
    fn request_token(
        &self,
        how: RefreshMode,
        timeout: Duration,
    ) -> Result<IssuedToken, UpstreamError> {
        let fate = self.fates.borrow_mut().pop_front().unwrap_or(Fate::Answered);
        let silence = |may_have_arrived| {
            for _ in 0..timeout.as_secs() {
                self.read();
                self.pass_a_second();
            }
            let what = "no answer in time".to_owned();
            Err(UpstreamError::Unreachable { what, may_pass: true, may_have_arrived })
        };
        match fate {
            Fate::Answered => self.grant(how),
            Fate::Refused => refused(-1).map(|_| unreachable!("a refusal")),
            Fate::NeverSent => silence(false),
            Fate::NeverHeard => silence(true),
            Fate::Lost | Fate::Death => {
                let mints = self.wechat.borrow().mints();
                let _ = self.grant(how); // A refusal is lost as well.
                self.lost.set(self.lost.get() + self.wechat.borrow().mints() - mints);
                if fate == Fate::Death {
                    resume_unwind(Box::new(fate));
                }
                silence(true)
            }
        }
    }
}

#[test]
fn a_rejected_token_is_replaced_only_while_it_is_the_published_one() {
    let world = World::new([]).publishing("T2");
    assert!(matches!(world.run(not("T1")).unwrap(), Outcome::Kept(_)));

    let world = World::new([Ok("T2")]).publishing("T1");
    assert_eq!(world.run(not("T1")).unwrap(), Outcome::Renewed(world.document("T2")));
    assert_eq!(world.asked(), [RefreshMode::Normal], "WeChat had another already");

    let world = World::new([Ok("T1"), Ok("T2")]).publishing("T1");
    assert_eq!(world.run(not("T1")).unwrap(), Outcome::Renewed(world.document("T2")));
    assert_eq!(world.asked(), [RefreshMode::Normal, RefreshMode::Forced]);

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
