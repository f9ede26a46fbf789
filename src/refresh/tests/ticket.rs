//! Refreshes of a ticket, together with that of its token.

use super::*;
use crate::model::kind::TicketType;
use crate::refresh::ticket::TicketRefresh;
use crate::upstream::TicketSource;

/// A source of tickets with scripted answers. Records the tokens that authorized the requests.
#[derive(Default)]
struct ScriptedTicketSource {
    answers: RefCell<VecDeque<Answer>>,
    tokens: RefCell<Vec<String>>,
}

impl TicketSource for ScriptedTicketSource {
    fn request_ticket(
        &self,
        _: &TicketType,
        token: &Secret,
        _: Duration,
    ) -> Result<IssuedToken, UpstreamError> {
        self.tokens.borrow_mut().push(token.expose().to_owned());
        let answer = self.answers.borrow_mut().pop_front().expect("no further request");
        answer.map(|ticket| IssuedToken { token: Secret::new(ticket.to_owned()), expires_in: LIFE })
    }
}

/// The result of a ticket's refresh.
struct TicketResult {
    outcome: Result<Outcome, RefreshError>,
    /// The tokens that authorized the requests.
    tokens: Vec<String>,
    has_renewed_token: bool,
}

fn run(
    fixture: &Fixture,
    store: &MemoryStore,
    replaces_dead_token: bool,
    answers: impl IntoIterator<Item = Answer>,
) -> TicketResult {
    let upstream = ScriptedTicketSource {
        answers: RefCell::new(answers.into_iter().collect()),
        ..ScriptedTicketSource::default()
    };
    let kind = TicketType::parse("jsapi").unwrap();
    let ticket = TicketRefresh {
        kind: &kind,
        place: "/d/default.jsapi.json",
        token: fixture.refresh(),
        upstream: &upstream,
        store,
        replaces_dead_token,
        has_renewed_token: Cell::default(),
    };
    let outcome = ticket.run(fixture.clock.instant() + TIMEOUT);
    TicketResult {
        outcome,
        has_renewed_token: ticket.has_renewed_token.get(),
        tokens: upstream.tokens.take(),
    }
}

fn dead_token() -> Answer {
    Err(UpstreamError::Refused(Refusal::new(40001, "", CallKind::UsesToken, Platform::Official)))
}

fn busy() -> Answer {
    Err(UpstreamError::Refused(Refusal::new(-1, "", CallKind::UsesToken, Platform::Official)))
}

#[test]
fn a_dead_token_is_replaced_once_in_a_run() {
    let fixture = Fixture::new([Ok("T2")]).publishing("T1");
    let result = run(&fixture, &MemoryStore::default(), true, [dead_token(), busy(), dead_token()]);
    let Err(RefreshError::Upstream(error)) = result.outcome else { panic!() };
    assert!(error.is_dead_token(), "{error}");
    assert!(result.has_renewed_token);
    assert_eq!(result.tokens, ["T1", "T2", "T2"]);
    assert_eq!(fixture.requests(), [RefreshMode::Normal]);
}

#[test]
fn a_dead_token_that_is_not_to_be_replaced_is_the_error() {
    let fixture = Fixture::new([]).publishing("T1");
    let result = run(&fixture, &MemoryStore::default(), false, [dead_token()]);
    let Err(RefreshError::Upstream(error)) = result.outcome else { panic!() };
    assert!(error.is_dead_token() && !result.has_renewed_token, "{error}");
    assert!(fixture.requests().is_empty());
}

#[test]
fn a_dead_token_that_is_issued_again_is_the_error() {
    let fixture = Fixture::new([Ok("T1"), Ok("T1")]).publishing("T1");
    let result = run(&fixture, &MemoryStore::default(), true, [dead_token()]);
    let Err(RefreshError::Upstream(error)) = result.outcome else { panic!() };
    assert!(error.is_dead_token() && !result.has_renewed_token, "{error}");
}

#[test]
fn a_failure_to_replace_the_token_is_the_error() {
    let fixture = Fixture::new([refused(40164)]).publishing("T1");
    let result = run(&fixture, &MemoryStore::default(), true, [dead_token()]);
    let text = result.outcome.unwrap_err().to_string();
    assert!(text.contains("WeChat refused (40164)"), "{text}");
}

#[test]
fn without_a_live_token_of_the_account_nothing_is_requested() {
    let expired = Fixture::new([]).publishing("T1");
    expired.clock.advance(LIFE);
    let foreign = Fixture::new([]);
    let document = Document { appid: "wx9".to_owned(), ..foreign.document("T9") };
    foreign.store.document.replace(Some(document));
    for fixture in [expired, foreign, Fixture::new([])] {
        let result = run(&fixture, &MemoryStore::default(), true, []);
        let text = result.outcome.unwrap_err().to_string();
        assert!(text.contains("there is no live token to ask with"), "{text}");
    }
}

#[test]
fn where_nothing_can_be_requested_no_ticket_is() {
    let mut fixture = Fixture::new([]).publishing("T1");
    fixture.source.is_unready = true;
    let result = run(&fixture, &MemoryStore::default(), true, []);
    assert!(result.outcome.unwrap_err().to_string().contains("no thread"));
}

#[test]
fn a_ticket_of_the_account_is_kept_until_it_is_due() {
    let fixture = Fixture::new([]).publishing("T1");
    let store = MemoryStore::default();
    let fresh = run(&fixture, &store, true, [Ok("K1")]).outcome.unwrap();
    assert_eq!(fresh, Outcome::Renewed(fixture.document("K1")));
    assert!(matches!(run(&fixture, &store, true, []).outcome.unwrap(), Outcome::Kept(_)));
    // Issued again, it keeps its expiry and is due once half of the rest is gone.
    fixture.clock.advance(LIFE - MARGIN);
    let Ok(Outcome::Confirmed(again)) = run(&fixture, &store, true, [Ok("K1")]).outcome else {
        panic!()
    };
    assert_eq!(again.expires_in, MARGIN);
    fixture.clock.advance(MARGIN / 2 - Duration::from_secs(1));
    assert!(matches!(run(&fixture, &store, true, []).outcome.unwrap(), Outcome::Kept(_)));
    fixture.clock.advance(Duration::from_secs(1));
    let fixture = fixture.publishing("T1");
    assert!(matches!(run(&fixture, &store, true, [Ok("K2")]).outcome, Ok(Outcome::Renewed(_))));

    let foreign = Document { appid: "wx9".to_owned(), ..fixture.document("K9") };
    store.document.replace(Some(foreign));
    let text = run(&fixture, &store, true, []).outcome.unwrap_err().to_string();
    assert!(text.contains("/d/default.jsapi.json belongs to wx9"), "{text}");
}
