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

mod record;
mod retries;
mod shortening;
mod simulation;
mod ticket;
mod trouble;
mod waiting;
mod work;

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
    /// How often it was written.
    record_writes: Rc<Cell<u32>>,
    /// Whether the next changes of it find its lock held.
    held_locks: Rc<RefCell<VecDeque<bool>>>,
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
        self.record_writes.set(self.record_writes.get() + 1);
    }

    fn change_record(
        &self,
        appid: &str,
        _: &dyn Clock,
        change: &dyn Fn(&mut Record),
    ) -> RecordChange {
        if self.held_locks.borrow_mut().pop_front() == Some(true) {
            return RecordChange::NotMade;
        }
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
        &mut self,
        document: &Document,
        _: Rules,
        lost: Option<&LostRequests>,
    ) -> Result<()> {
        lost.map_or(Ok(()), |lost| self.note_lost(lost))?;
        self.document.replace(Some(document.clone()));
        Ok(())
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
            record: None,
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

// Answers that change nothing.

// Failures, further attempts and deadlines.

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
    let mut fixture = Fixture::new([Ok("T1")]).on(Rules::Mirror);
    fixture.store.confirmed = Some(Rc::default());
    let longer = Document { expires_in: LIFE * 2, ..fixture.document("T1") };
    fixture.store.document.replace(Some(longer));
    let shorter = fixture.document("T1");
    assert_eq!(fixture.run(TokenRequest::New).unwrap(), Outcome::Confirmed(shorter.clone()));
    assert_eq!(fixture.published(), Some(shorter));
}

// Shortening the document before a mint.

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
