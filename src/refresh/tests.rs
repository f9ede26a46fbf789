//! Refreshes on virtual time, with scripted answers and a store in memory.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use anyhow::{Result, bail};
use time::UtcDateTime;

use super::*;
use crate::error::Exit;
use crate::model::document::rfc3339;
use crate::model::errcode::{CallKind, Platform, Refusal};
use crate::model::kind::DocumentName;
use crate::model::secret::Secret;
use crate::os::clock::testing::VirtualClock;
use crate::store::{Lease, LostRequests, Publisher, Record, RecordChange};
use crate::upstream::SENT_WITHIN;

mod memory;
mod simulation;
mod ticket;
mod trouble;

const MARGIN: Duration = Duration::from_secs(300);
const LIFE: Duration = Duration::from_secs(7200);
const TIMEOUT: Duration = Duration::from_secs(30);

type Answer = Result<&'static str, UpstreamError>;

/// A source with scripted answers. Records each request's mode, its time, and the document that was published then.
struct ScriptedSource {
    answers: RefCell<VecDeque<Answer>>,
    requests: RefCell<Vec<RefreshMode>>,
    /// How long the last request might take.
    timeout: Cell<Duration>,
    /// How long an answer takes.
    takes: Duration,
    /// Nothing can be requested on this host.
    is_unready: bool,
    clock: VirtualClock,
    store: MemoryStore,
    published_then: RefCell<Vec<Option<Document>>>,
}

impl TokenSource for ScriptedSource {
    fn prepare(&self) -> Result<()> {
        if self.is_unready { bail!("there is no thread for it") } else { Ok(()) }
    }

    fn request_token(
        &self,
        mode: RefreshMode,
        timeout: Duration,
    ) -> Result<IssuedToken, UpstreamError> {
        self.requests.borrow_mut().push(mode);
        self.timeout.set(timeout);
        self.published_then.borrow_mut().push(self.store.published());
        self.clock.advance(self.takes);
        let answer = self.answers.borrow_mut().pop_front().expect("no further request");
        answer.map(|token| IssuedToken { token: Secret::new(token.to_owned()), expires_in: LIFE })
    }
}

/// A store in memory, with scripted faults.
#[derive(Clone, Default)]
struct MemoryStore {
    document: Rc<RefCell<Option<Document>>>,
    is_locked: bool,
    /// Another process has the lock by now.
    is_lease_lost: bool,
    /// How long the lease lasts, if it ends by itself.
    lease_left: Option<Duration>,
    /// Another process has the lock after the first look at it.
    is_lost_after_look: bool,
    has_looked: Rc<Cell<bool>>,
    /// There is no room for another file.
    is_full: bool,
    /// There is room for one more file, and not for two.
    is_nearly_full: bool,
    /// What another process publishes during the wait for the lock.
    published_meanwhile: Option<Document>,
    /// When another process confirms the document during the wait for the lock.
    confirmed_meanwhile: Option<UtcDateTime>,
    /// When the document was confirmed. `None` if that is not noted.
    confirmed: Option<Rc<Cell<Option<UtcDateTime>>>>,
    record: Rc<RefCell<Option<Record>>>,
    /// What hosts that share this place know of requests without an answer, if there are such.
    lost: Option<Rc<RefCell<LostRequests>>>,
}

impl MemoryStore {
    fn published(&self) -> Option<Document> {
        self.document.borrow().clone()
    }
}

impl Store for MemoryStore {
    fn read(&self) -> Result<Found> {
        Ok(self.published().map_or(Found::Nothing, Found::Document))
    }

    fn acquire(&self, _: &dyn Clock, _: Instant) -> Result<Option<Box<dyn Lease>>> {
        if let Some(document) = &self.published_meanwhile {
            self.document.replace(Some(document.clone()));
        }
        if let (Some(confirmed), Some(at)) = (&self.confirmed, self.confirmed_meanwhile) {
            confirmed.set(Some(at));
        }
        Ok((!self.is_locked).then(|| Box::new(self.clone()) as Box<dyn Lease>))
    }

    fn confirmed_at(&self) -> Option<UtcDateTime> {
        self.confirmed.as_ref()?.get()
    }

    fn record(&self, _: &str, _: UtcDateTime) -> Option<Record> {
        self.record.borrow().clone()
    }

    fn write_record(&self, record: &Record, _: &dyn Clock) {
        self.record.replace(Some(record.clone()));
    }

    fn change_record(
        &self,
        appid: &str,
        _: &dyn Clock,
        change: &dyn Fn(&mut Record),
    ) -> RecordChange {
        let mut record = self.record.borrow_mut();
        change(record.get_or_insert_with(|| Record::new(appid).unwrap()));
        RecordChange::Kept
    }
}

impl Lease for MemoryStore {
    fn read(&self) -> Result<Found> {
        Store::read(self)
    }

    fn lost(&self) -> Result<Option<LostRequests>> {
        Ok(self.lost.as_ref().map(|lost| lost.borrow().clone()))
    }

    fn prepare(self: Box<Self>) -> Result<Box<dyn Publisher>> {
        if self.is_full { bail!("no space left on device") } else { Ok(self) }
    }
}

impl Publisher for MemoryStore {
    fn check_lease(&self) -> Result<()> {
        let is_first = !self.has_looked.replace(true);
        match self.is_lease_lost || self.is_lost_after_look && !is_first {
            true => bail!("another process has it"),
            false => Ok(()),
        }
    }

    fn lease_left(&self) -> Duration {
        self.lease_left.unwrap_or(Duration::MAX)
    }

    fn note_lost(&self, lost: &LostRequests) -> Result<()> {
        self.lost.iter().for_each(|shared| drop(shared.replace(lost.clone())));
        Ok(())
    }

    fn publish_interim(&self, document: &Document) -> Result<()> {
        if self.is_nearly_full {
            bail!("no space left on device")
        }
        self.document.replace(Some(document.clone()));
        Ok(())
    }

    fn confirm(&self, at: UtcDateTime) -> bool {
        self.confirmed.iter().for_each(|confirmed| confirmed.set(Some(at)));
        self.confirmed.is_some()
    }

    fn restore(self: Box<Self>, document: &Document) -> Result<()> {
        self.document.replace(Some(document.clone()));
        Ok(())
    }

    fn publish(
        self: Box<Self>,
        document: &Document,
        _: Rules,
        lost: Option<&LostRequests>,
    ) -> Result<()> {
        lost.map_or(Ok(()), |lost| self.note_lost(lost))?;
        self.restore(document)
    }
}

/// An account with all that its refresh works with.
struct Fixture {
    clock: VirtualClock,
    rules: Rules,
    source: ScriptedSource,
    store: MemoryStore,
}

impl Fixture {
    fn new(answers: impl IntoIterator<Item = Answer>) -> Fixture {
        let (clock, store) = (VirtualClock::new(), MemoryStore::default());
        let source = ScriptedSource {
            answers: RefCell::new(answers.into_iter().collect()),
            requests: RefCell::default(),
            timeout: Cell::default(),
            takes: Duration::ZERO,
            is_unready: false,
            clock: clock.clone(),
            store: store.clone(),
            published_then: RefCell::default(),
        };
        Fixture { clock, rules: Rules::Stable, source, store }
    }

    fn on(self, rules: Rules) -> Fixture {
        Fixture { rules, ..self }
    }

    fn publishing(self, token: &str) -> Fixture {
        self.store.document.replace(Some(self.document(token)));
        self
    }

    /// Returns the document of a token that is issued now.
    fn document(&self, token: &str) -> Document {
        Document::new("wx1", Secret::new(token.to_owned()), LIFE, self.clock.now())
    }

    fn run(&self, request: TokenRequest) -> Result<Outcome, RefreshError> {
        self.run_within(TIMEOUT, request)
    }

    fn run_within(
        &self,
        timeout: Duration,
        request: TokenRequest,
    ) -> Result<Outcome, RefreshError> {
        self.refresh().run(&request, self.clock.instant() + timeout)
    }

    fn refresh(&self) -> Refresh<'_> {
        Refresh {
            name: DocumentName::of_token("default"),
            place: "default.json",
            appid: "wx1",
            rules: self.rules,
            refresh_before: MARGIN,
            clock: &self.clock,
            source: &self.source,
            store: &self.store,
            dead: None,
            ending: None,
            memory: None,
        }
    }

    fn requests(&self) -> Vec<RefreshMode> {
        self.source.requests.borrow().clone()
    }

    fn published(&self) -> Option<Document> {
        self.store.published()
    }

    /// Returns what readers saw at each request.
    fn published_then(&self) -> Vec<Option<Document>> {
        self.source.published_then.borrow().clone()
    }

    /// Returns the document as a mint now shortens it.
    fn shortened(&self, document: &Document) -> Document {
        document.shortened_to_overlap(self.clock.now()).expect("more than the overlap is left")
    }
}

/// A permanent failure without an answer; the request was sent, or it was not.
fn unreachable(may_have_arrived: bool) -> Answer {
    Err(UpstreamError::unreachable("no answer in time", false, may_have_arrived))
}

/// A transient failure: the request was sent, and no answer came.
fn lost_answer() -> Answer {
    Err(UpstreamError::unreachable("no answer in time", true, true))
}

fn malformed() -> Answer {
    Err(UpstreamError::Malformed("an empty body".to_owned()))
}

fn refused(code: i64) -> Answer {
    Err(UpstreamError::Refused(Refusal::new(code, "", CallKind::RequestsToken, Platform::Official)))
}

fn other_than(token: &str) -> TokenRequest {
    TokenRequest::OtherThan(Secret::new(token.to_owned()))
}

// Which requests are sent, and when.

#[test]
fn a_missing_token_is_requested_at_once_and_a_published_one_only_when_due() {
    let fixture = Fixture::new([Ok("T1"), Ok("T2")]);
    assert_eq!(fixture.run(TokenRequest::Live).unwrap(), Outcome::Renewed(fixture.document("T1")));
    fixture.clock.advance(LIFE - MARGIN - Duration::from_secs(1));
    assert!(matches!(fixture.run(TokenRequest::Live).unwrap(), Outcome::Kept(_)));
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(fixture.run(TokenRequest::Live).unwrap(), Outcome::Renewed(fixture.document("T2")));
    assert_eq!(fixture.requests(), [RefreshMode::Normal, RefreshMode::Normal]);
}

#[test]
fn the_same_token_issued_again_is_confirmed_with_the_lifetime_stated_now() {
    let fixture = Fixture::new([Ok("T1")]).publishing("T1");
    fixture.clock.advance(LIFE - MARGIN);
    assert_eq!(
        fixture.run(TokenRequest::Live).unwrap(),
        Outcome::Confirmed(fixture.document("T1"))
    );
}

#[test]
fn a_rejected_token_is_replaced_only_while_it_is_published_and_forced_only_if_issued_again() {
    let fixture = Fixture::new([]).publishing("T2");
    assert!(matches!(fixture.run(other_than("T1")).unwrap(), Outcome::Kept(_)));

    let fixture = Fixture::new([Ok("T2")]).publishing("T1");
    assert_eq!(fixture.run(other_than("T1")).unwrap(), Outcome::Renewed(fixture.document("T2")));
    assert_eq!(fixture.requests(), [RefreshMode::Normal], "WeChat had another already");

    let fixture = Fixture::new([Ok("T1"), Ok("T2")]).publishing("T1");
    assert_eq!(fixture.run(other_than("T1")).unwrap(), Outcome::Renewed(fixture.document("T2")));
    assert_eq!(fixture.requests(), [RefreshMode::Normal, RefreshMode::Forced]);

    let fixture = Fixture::new([Ok("T1"), Ok("T1")]).publishing("T1");
    assert_eq!(fixture.run(other_than("T1")).unwrap(), Outcome::Confirmed(fixture.document("T1")));
}

#[test]
fn another_accounts_document_is_not_replaced() {
    let fixture = Fixture::new([]);
    let foreign = Document { appid: "wx2".to_owned(), ..fixture.document("T1") };
    fixture.store.document.replace(Some(foreign));
    let failure = fixture.run(TokenRequest::New).unwrap_err();
    assert_eq!(failure.exit(), Exit::Usage);
    assert!(failure.to_string().contains("wx2"), "{failure}");
}

#[test]
fn a_token_that_could_not_be_published_is_not_requested() {
    let mut fixture = Fixture::new([]);
    fixture.store.is_full = true;
    assert_eq!(fixture.run(TokenRequest::New).unwrap_err().exit(), Exit::Failure);
    fixture.store.is_locked = true;
    assert_eq!(fixture.run(TokenRequest::New).unwrap_err().exit(), Exit::Locked);
    let mut fixture = Fixture::new([]);
    fixture.store.is_lease_lost = true;
    assert_eq!(fixture.run(TokenRequest::New).unwrap_err().exit(), Exit::Failure);
}

// Several processes.

#[test]
fn a_token_published_during_the_wait_for_the_lock_is_kept() {
    let mut fixture = Fixture::new([]);
    fixture.store.published_meanwhile = Some(fixture.document("T1"));
    assert_eq!(fixture.run(TokenRequest::Live).unwrap(), Outcome::Kept(fixture.document("T1")));
}

#[test]
fn an_answer_to_another_process_settles_the_requests_of_all_that_waited_for_the_lock() {
    // A token that is due from the start: WeChat may issue one with 300 s left.
    let mut fixture = Fixture::new([]);
    let short = Document { expires_in: MARGIN, ..fixture.document("T1") };
    fixture.store.published_meanwhile = Some(short.clone());
    assert_eq!(fixture.run(TokenRequest::Live).unwrap(), Outcome::Kept(short));

    // The rejected token, issued again.
    let mut fixture = Fixture::new([]).publishing("T1");
    fixture.clock.advance(Duration::from_secs(1));
    let again = Document { expires_in: LIFE / 2, ..fixture.document("T1") };
    fixture.store.published_meanwhile = Some(again.clone());
    assert_eq!(fixture.run(other_than("T1")).unwrap(), Outcome::Confirmed(again));

    // Another token, by a forced request.
    let mut fixture = Fixture::new([]).publishing("T1");
    fixture.store.published_meanwhile = Some(fixture.document("T2"));
    assert_eq!(fixture.run(TokenRequest::New).unwrap(), Outcome::Kept(fixture.document("T2")));
}

#[test]
fn a_document_that_another_process_only_shortened_or_restored_settles_nothing() {
    for request in [TokenRequest::Live, TokenRequest::New, other_than("T1")] {
        // Shortened by a process that died during its request.
        let mut fixture = Fixture::new([Ok("T2")]).on(Rules::Classic).publishing("T1");
        fixture.clock.advance(LIFE / 2);
        fixture.store.published_meanwhile =
            fixture.published().map(|document| fixture.shortened(&document));
        let refresh = Refresh { refresh_before: LIFE / 2, ..fixture.refresh() };
        let outcome = refresh.run(&request, fixture.clock.instant() + TIMEOUT).unwrap();
        assert_eq!(outcome, Outcome::Renewed(fixture.document("T2")), "{request:?}");
        // Shortened at the first look, restored at the second.
        let mut fixture = Fixture::new([Ok("T2")]).on(Rules::Classic).publishing("T1");
        fixture.store.published_meanwhile = fixture.published();
        let shortened = fixture.shortened(&fixture.published().unwrap());
        fixture.store.document.replace(Some(shortened));
        let outcome = fixture.run(TokenRequest::New).unwrap();
        assert_eq!(outcome, Outcome::Renewed(fixture.document("T2")), "{request:?}");
    }
    // Restored at the second look, and good for a reader.
    let mut fixture = Fixture::new([]).on(Rules::Classic).publishing("T1");
    let good = fixture.published().unwrap();
    fixture.store.published_meanwhile = Some(good.clone());
    let shortened = fixture.shortened(&good);
    fixture.store.document.replace(Some(shortened));
    assert_eq!(fixture.run(TokenRequest::Live).unwrap(), Outcome::Kept(good));
}

// Answers that change nothing.

#[test]
fn an_answer_that_adds_nothing_is_noted_and_the_document_is_written_only_where_it_cannot_be() {
    for can_confirm in [true, false] {
        let mut fixture = Fixture::new([Ok("T1")]).on(Rules::Work).publishing("T1");
        fixture.store.confirmed = can_confirm.then(Rc::default);
        let before = fixture.published();
        fixture.clock.advance(LIFE - MARGIN);
        assert!(matches!(fixture.run(TokenRequest::Live).unwrap(), Outcome::Confirmed(_)));
        assert_eq!(fixture.published() == before, can_confirm);
        let now = fixture.clock.now().wall;
        assert_eq!(fixture.store.confirmed_at(), can_confirm.then_some(now));
    }
    // One that was shortened is put back.
    let mut fixture = Fixture::new([Ok("T1")]).publishing("T1");
    fixture.store.confirmed = Some(Rc::default());
    let before = fixture.published().unwrap();
    assert_eq!(fixture.run(TokenRequest::New).unwrap(), Outcome::Confirmed(before.clone()));
    assert_eq!(fixture.published_then(), [Some(fixture.shortened(&before))]);
    assert_eq!((fixture.published(), fixture.store.confirmed_at()), (Some(before), None));
    // So is one whose life was ended, if a mirror's source has the token all the same.
    let mut fixture = Fixture::new([Ok("T1"), Ok("T1")]).on(Rules::Mirror).publishing("T1");
    fixture.store.confirmed = Some(Rc::default());
    let dead = Secret::new("T1".to_owned());
    let refresh = Refresh { dead: Some(&dead), ..fixture.refresh() };
    let outcome = refresh.run(&other_than("T1"), fixture.clock.instant() + TIMEOUT).unwrap();
    let published = fixture.published().unwrap();
    assert_eq!(outcome, Outcome::Confirmed(published.clone()));
    assert_eq!(published.left(fixture.clock.now()), LIFE);
}

#[test]
fn on_a_mirror_a_confirmed_document_is_fresh_while_it_lives() {
    let mut fixture = Fixture::new([Ok("T2")]).on(Rules::Mirror).publishing("T1");
    let before = fixture.published().unwrap();
    fixture.store.confirmed = Some(Rc::default());
    // As old as its source is asked again.
    fixture.clock.advance(LIFE - MARGIN);
    assert!(before.is_stale(fixture.clock.now()));
    fixture.store.confirm(fixture.clock.now().wall);
    assert_eq!(fixture.run(TokenRequest::Live).unwrap(), Outcome::Kept(before));
    fixture.clock.advance(MARGIN);
    fixture.store.confirm(fixture.clock.now().wall);
    assert!(matches!(fixture.run(TokenRequest::Live).unwrap(), Outcome::Renewed(_)));
}

#[test]
fn a_confirmation_that_another_process_got_meanwhile_settles_the_report_of_a_mirror() {
    let confirmed = |meanwhile: Option<u64>, answers: &[&'static str]| {
        let answers = answers.iter().map(|token| Ok(*token));
        let mut fixture = Fixture::new(answers).on(Rules::Mirror).publishing("T1");
        fixture.clock.advance(Duration::from_secs(60));
        fixture.store.confirmed = Some(Rc::default());
        fixture.store.confirm(fixture.clock.now().wall);
        fixture.store.confirmed_meanwhile =
            meanwhile.map(|secs| fixture.clock.now().wall + Duration::from_secs(secs));
        fixture.run(other_than("T1")).unwrap()
    };
    assert!(matches!(confirmed(Some(1), &[]), Outcome::Confirmed(_)));
    assert!(matches!(confirmed(None, &["T2"]), Outcome::Renewed(_)));
    assert!(matches!(confirmed(Some(0), &["T2"]), Outcome::Renewed(_)));
}

// Failures, further attempts and deadlines.

#[test]
fn a_permanent_failure_leaves_the_document_and_is_not_retried() {
    for failure in [
        refused(40164),
        malformed(),
        Err(UpstreamError::Status(302)),
        unreachable(true),
        unreachable(false),
    ] {
        let fixture = Fixture::new([failure]).publishing("T1");
        let before = fixture.published();
        fixture.clock.advance(LIFE - MARGIN);
        assert!(fixture.run(TokenRequest::Live).is_err());
        assert_eq!(fixture.published(), before);
        assert_eq!(fixture.requests().len(), 1);
    }
}

#[test]
fn a_transient_failure_is_retried_after_about_one_two_and_four_seconds() {
    let answers = [refused(-1), Err(UpstreamError::Status(502)), refused(-1), Ok("T1")];
    let fixture = Fixture::new(answers);
    fixture.run(TokenRequest::Live).unwrap();
    let waited: Duration =
        PAUSES.map(|pause| with_jitter(pause, 0.25, fixture.clock.random())).iter().sum();
    assert_eq!(fixture.clock.elapsed(), waited);
    assert_eq!(fixture.published().unwrap().created_at, fixture.document("").created_at);

    let fixture = Fixture::new((0..4).map(|_| refused(-1)));
    assert_eq!(fixture.run(TokenRequest::Live).unwrap_err().exit(), Exit::Unreachable);
}

#[test]
fn no_pause_passes_the_deadline() {
    let fixture = Fixture::new((0..4).map(|_| refused(-1)));
    assert!(fixture.run_within(Duration::from_secs(3), TokenRequest::Live).is_err());
    assert!(fixture.clock.elapsed() < Duration::from_secs(3));
    assert_eq!(fixture.requests().len(), 2);
}

#[test]
fn without_time_for_an_answer_nothing_is_requested() {
    let fixture = Fixture::new([]);
    let too_little = MIN_ATTEMPT - Duration::from_millis(1);
    let failure = fixture.run_within(too_little, TokenRequest::Live).unwrap_err();
    assert_eq!(failure.exit(), Exit::Unreachable);
    assert!(failure.to_string().contains("--timeout"), "{failure}");
    Fixture::new([Ok("T1")]).run_within(MIN_ATTEMPT, TokenRequest::Live).unwrap();
    // Nor is there a pause before an attempt that there is no time for.
    let fixture = Fixture::new([refused(-1)]);
    let failure = fixture.run_within(PAUSES[0] + MIN_ATTEMPT, TokenRequest::Live).unwrap_err();
    let text = failure.to_string();
    assert!(text.contains("busy"), "the first failure, not the lack of time: {text}");
    assert_eq!(fixture.clock.elapsed(), Duration::ZERO);
}

#[test]
fn an_attempt_may_take_half_of_the_time_left_or_ten_seconds() {
    let fixture = Fixture::new([]);
    let refresh = fixture.refresh();
    for (left, expected) in [(60, 30), (30, 15), (12, 10), (10, 10), (3, 3)] {
        let deadline = fixture.clock.instant() + Duration::from_secs(left);
        assert_eq!(refresh.attempt_timeout(deadline), Duration::from_secs(expected));
    }
}

#[test]
fn a_request_is_sent_before_its_lease_ends() {
    let requested = |lease_left, is_lost_after_look| {
        let mut fixture = Fixture::new([Ok("T1")]);
        fixture.store.lease_left = Some(lease_left);
        fixture.store.is_lost_after_look = is_lost_after_look;
        let outcome = fixture.run_within(Duration::from_secs(200), TokenRequest::Live);
        assert_eq!(outcome.is_ok(), fixture.requests().len() == 1);
        outcome.is_ok().then(|| fixture.source.timeout.get())
    };
    let (whole, second) = (Some(Duration::from_secs(100)), Duration::from_secs(1));
    let short = SENT_WITHIN - second;
    assert_eq!(requested(SENT_WITHIN + second, true), whole);
    assert_eq!(requested(SENT_WITHIN, true), whole, "it is long enough: the lock is not looked at");
    assert_eq!(requested(short, true), None, "another process has it by now");
    assert_eq!(requested(short, false), Some(short));
}

#[test]
fn a_life_counts_from_before_the_request_and_is_no_longer_than_the_last_answer_says() {
    for rules in [Rules::Stable, Rules::Classic, Rules::Work, Rules::Mirror] {
        let mut fixture = Fixture::new([Ok("T1"), Ok("T1")]).on(rules);
        fixture.source.takes = Duration::from_secs(4);
        let requested = fixture.document("T1");
        assert_eq!(fixture.run(TokenRequest::Live).unwrap(), Outcome::Renewed(requested));
    }
    // A source may take back what it has stated before.
    let fixture = Fixture::new([Ok("T1")]).on(Rules::Mirror);
    let longer = Document { expires_in: LIFE * 2, ..fixture.document("T1") };
    fixture.store.document.replace(Some(longer));
    let shorter = fixture.document("T1");
    assert_eq!(fixture.run(TokenRequest::New).unwrap(), Outcome::Confirmed(shorter.clone()));
    assert_eq!(fixture.published(), Some(shorter));
}

// Shortening the document before a mint.

#[test]
fn a_document_is_shortened_before_a_request_that_mints_and_before_no_other() {
    for (rules, request, is_shortened) in [
        (Rules::Classic, TokenRequest::Live, true),
        (Rules::Classic, TokenRequest::New, true),
        (Rules::Classic, other_than("T1"), true),
        (Rules::Stable, TokenRequest::Live, false),
        (Rules::Stable, TokenRequest::New, true),
        (Rules::Stable, other_than("T1"), false),
    ] {
        let fixture = Fixture::new([Ok("T2")]).on(rules).publishing("T1");
        fixture.clock.advance(LIFE / 2);
        let before = fixture.published().unwrap();
        let refresh = Refresh { refresh_before: LIFE, ..fixture.refresh() };
        let outcome = refresh.run(&request, fixture.clock.instant() + TIMEOUT).unwrap();
        assert_eq!(outcome, Outcome::Renewed(fixture.document("T2")), "{rules:?} {request:?}");
        let then = if is_shortened { fixture.shortened(&before) } else { before };
        assert_eq!(fixture.published_then(), [Some(then)], "{rules:?} {request:?}");
    }
    // On stable, only before the forced request.
    let fixture = Fixture::new([Ok("T1"), Ok("T2")]).publishing("T1");
    let before = fixture.published().unwrap();
    fixture.run(other_than("T1")).unwrap();
    let shortened = fixture.shortened(&before);
    assert_eq!(fixture.published_then(), [Some(before), Some(shortened)]);
    // A document that expires within the overlap anyway stays as it is.
    let fixture = Fixture::new([Ok("T2")]).on(Rules::Classic).publishing("T1");
    fixture.clock.advance(LIFE - MARGIN);
    let before = fixture.published();
    fixture.run(TokenRequest::Live).unwrap();
    assert_eq!(fixture.published_then(), [before]);
}

#[test]
fn a_document_is_restored_only_if_certainly_nothing_was_minted() {
    for (failure, is_certain) in [
        (refused(40164), true),
        (Err(UpstreamError::Status(403)), true),
        (unreachable(false), true),
        (unreachable(true), false),
        (malformed(), false),
        (Err(UpstreamError::Status(200)), false),
    ] {
        let what = format!("{failure:?}");
        let fixture = Fixture::new([failure]).on(Rules::Classic).publishing("T1");
        fixture.clock.advance(LIFE / 2);
        let before = fixture.published().unwrap();
        let failure = fixture.run(TokenRequest::New).unwrap_err();
        if is_certain {
            assert!(matches!(failure, RefreshError::Upstream(_)), "{what}: {failure}");
            assert_eq!(fixture.published(), Some(before), "{what}");
        } else {
            let shortened = fixture.shortened(&before);
            let text = failure.to_string();
            assert!(
                text.contains(&rfc3339(shortened.expires_at(fixture.clock.now()))),
                "{what}: {text}"
            );
            assert!(matches!(failure, RefreshError::AnswerLost { .. }), "{what}: {text}");
            assert_eq!(fixture.published(), Some(shortened), "{what}");
        }
    }
}

#[test]
fn after_a_lost_answer_no_later_failure_restores_the_document() {
    let fixture = Fixture::new([lost_answer(), refused(45009)]).on(Rules::Classic).publishing("T1");
    let before = fixture.published().unwrap();
    let shortened = fixture.shortened(&before);
    let failure = fixture.run(TokenRequest::New).unwrap_err();
    assert_eq!(failure.exit(), Exit::Refused);
    assert_eq!(failure.retry_after(), Some(Duration::from_secs(3600)));
    assert!(
        failure.to_string().contains(&rfc3339(shortened.expires_at(fixture.clock.now()))),
        "{failure}"
    );
    assert_eq!(fixture.published(), Some(shortened.clone()));
    // Neither the second request nor the next run shortens it further.
    assert_eq!(fixture.published_then(), [Some(shortened.clone()), Some(shortened.clone())]);
    fixture.source.answers.borrow_mut().push_back(refused(45009));
    fixture.run(TokenRequest::New).unwrap_err();
    assert_eq!(fixture.published(), Some(shortened));

    let answers = [refused(-1), lost_answer(), Ok("T3")];
    let fixture = Fixture::new(answers).on(Rules::Classic).publishing("T1");
    assert_eq!(fixture.run(TokenRequest::New).unwrap(), Outcome::Renewed(fixture.document("T3")));
}

/// Forcing again would invalidate the token in the lost answer, and the published one at once.
#[test]
fn after_a_lost_forced_answer_the_next_request_is_a_normal_one() {
    for request in [TokenRequest::New, other_than("T1")] {
        let is_rejected = matches!(request, TokenRequest::OtherThan(_));
        let first = if is_rejected { vec![Ok("T1")] } else { vec![] };
        let answers = first.into_iter().chain([lost_answer(), Ok("T2")]);
        let fixture = Fixture::new(answers).publishing("T1");
        assert_eq!(fixture.run(request).unwrap(), Outcome::Renewed(fixture.document("T2")));
        let expected = [RefreshMode::Normal, RefreshMode::Forced, RefreshMode::Normal];
        assert_eq!(fixture.requests(), expected[usize::from(!is_rejected)..]);
    }
    // The forced request itself was lost.
    let fixture = Fixture::new([lost_answer(), Ok("T1"), Ok("T2")]).publishing("T1");
    assert_eq!(fixture.run(TokenRequest::New).unwrap(), Outcome::Renewed(fixture.document("T2")));
    assert_eq!(fixture.requests(), [RefreshMode::Forced, RefreshMode::Normal, RefreshMode::Forced]);
    // The answer was lost in an earlier run.
    let fixture = Fixture::new([unreachable(true), Ok("T2")]).publishing("T1");
    fixture.run(TokenRequest::New).unwrap_err();
    fixture.clock.advance(Duration::from_secs(60));
    assert_eq!(fixture.run(TokenRequest::New).unwrap(), Outcome::Renewed(fixture.document("T2")));
    assert_eq!(fixture.requests(), [RefreshMode::Forced, RefreshMode::Normal]);
}

#[test]
fn a_document_that_cannot_be_shortened_is_a_local_fault_and_nothing_is_requested() {
    let mut fixture = Fixture::new([]).on(Rules::Classic).publishing("T1");
    fixture.store.is_nearly_full = true;
    let before = fixture.published();
    assert_eq!(fixture.run(TokenRequest::New).unwrap_err().exit(), Exit::Failure);
    assert_eq!(fixture.published(), before);
}

// The wall clock.

#[test]
fn a_wall_clock_that_is_set_makes_no_token_due_that_would_be_replaced_for_it() {
    for forward in [-86_400, -1800, 86_400].map(time::Duration::seconds) {
        let fixture = Fixture::new([]).on(Rules::Classic).publishing("T1");
        fixture.clock.advance(LIFE / 2);
        fixture.clock.set_forward(forward);
        let outcome = fixture.run(TokenRequest::Live).unwrap();
        assert!(matches!(outcome, Outcome::Kept(_)), "{forward}: {outcome:?}");

        let fixture = Fixture::new([Ok("T2")]).on(Rules::Classic).publishing("T1");
        fixture.clock.advance(LIFE);
        fixture.clock.set_forward(forward);
        let outcome = fixture.run(TokenRequest::Live).unwrap();
        assert!(matches!(outcome, Outcome::Renewed(_)), "{forward}: {outcome:?}");
        let [shortened] = &fixture.published_then()[..] else { panic!("one request") };
        let left = shortened.as_ref().map(|document| document.left(fixture.clock.now()));
        assert_eq!(left, Some(Duration::ZERO), "it has expired: {forward}");
    }
}

/// A virtual machine that stood still has a wall clock that jumps when it goes on: then the token is older than the
/// machine's clock tells.
#[test]
fn a_wall_clock_that_jumped_ahead_is_settled_by_a_request_that_costs_nothing() {
    for rules in [Rules::Stable, Rules::Work, Rules::Mirror] {
        let fixture = Fixture::new([Ok("T1")]).on(rules).publishing("T1");
        fixture.clock.set_forward(time::Duration::HOUR);
        for _ in 0..2 {
            fixture.run(TokenRequest::Live).unwrap();
            assert_eq!(fixture.requests().len(), 1, "{rules:?}");
        }
    }
}

// WeCom.

/// WeCom may state a full lifetime each time for a token that is nearly over.
#[test]
fn on_work_the_same_token_again_keeps_its_expiry() {
    for request in [TokenRequest::Live, TokenRequest::New, other_than("T1")] {
        let fixture = Fixture::new([Ok("T1")]).on(Rules::Work).publishing("T1");
        let expiry = fixture.published().unwrap().expires_at(fixture.clock.now());
        fixture.clock.advance(LIFE - MARGIN);
        let Outcome::Confirmed(document) = fixture.run(request).unwrap() else {
            panic!("it is the same")
        };
        assert_eq!(
            (document.expires_at(fixture.clock.now()), document.expires_in),
            (expiry, MARGIN)
        );
        assert_eq!(fixture.published(), Some(document.clone()));
        // That settles the request of a process that waited for the lock meanwhile.
        let mut waiting = Fixture::new([]).on(Rules::Work).publishing("T1");
        waiting.clock.advance(LIFE - MARGIN);
        waiting.store.published_meanwhile = Some(document.clone());
        assert_eq!(waiting.run(other_than("T1")).unwrap(), Outcome::Confirmed(document));
    }
    let fixture = Fixture::new([Ok("T2")]).on(Rules::Work).publishing("T1");
    assert_eq!(fixture.run(other_than("T1")).unwrap(), Outcome::Renewed(fixture.document("T2")));
}

#[test]
fn on_work_an_expired_token_issued_again_is_a_transient_failure() {
    let answers = [Ok("T1"), Ok("T1"), Ok("T2")];
    let fixture = Fixture::new(answers).on(Rules::Work).publishing("T1");
    fixture.clock.advance(LIFE);
    let outcome = fixture.run(TokenRequest::Live).unwrap();
    assert!(matches!(outcome, Outcome::Renewed(it) if it.token.expose() == "T2"));

    let fixture = Fixture::new([(); 4].map(|()| Ok("T1"))).on(Rules::Work).publishing("T1");
    let before = fixture.published();
    fixture.clock.advance(LIFE);
    let failure = fixture.run(TokenRequest::Live).unwrap_err();
    assert_eq!(failure.exit(), Exit::Unreachable);
    assert!(failure.to_string().contains("clock"), "{failure}");
    assert_eq!(fixture.published(), before);
}

#[test]
fn on_work_a_lifetime_counts_from_the_first_request_that_may_have_begun_it() {
    let answers = [refused(-1), lost_answer(), Ok("T2")];
    let fixture = Fixture::new(answers).on(Rules::Work).publishing("T1");
    fixture.clock.advance(LIFE);
    let first = fixture.clock.elapsed() + with_jitter(PAUSES[0], 0.25, fixture.clock.random());
    fixture.run(TokenRequest::Live).unwrap();
    let created_at = fixture.published().unwrap().created_at.wall - VirtualClock::START;
    assert_eq!(created_at.whole_seconds() as u64, first.as_secs());
    assert!(fixture.clock.elapsed() > first + PAUSES[1], "the answer came later");
}

#[test]
fn on_work_no_request_shortens_the_document() {
    for failure in [unreachable(true), malformed(), refused(40001)] {
        let fixture = Fixture::new([failure]).on(Rules::Work).publishing("T1");
        let before = fixture.published();
        assert!(matches!(fixture.run(TokenRequest::New), Err(RefreshError::Upstream(_))));
        assert_eq!(fixture.published(), before);
        assert_eq!(fixture.requests().len(), 1);
    }
}
