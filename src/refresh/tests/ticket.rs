//! The same story of a ticket, beside that of its token.

use super::*;
use crate::model::kind::TicketType;
use crate::refresh::ticket::TicketRefresh;
use crate::upstream::TicketSource;

/// Whoever gives tickets as it was told to, and notes the tokens that it was shown.
#[derive(Default)]
struct TicketScript {
    answers: RefCell<VecDeque<Result<&'static str, UpstreamError>>>,
    shown: RefCell<Vec<String>>,
}

impl TicketSource for TicketScript {
    fn request_ticket(
        &self,
        _: &TicketType,
        token: &Secret,
        _: Duration,
    ) -> Result<IssuedToken, UpstreamError> {
        self.shown.borrow_mut().push(token.expose().to_owned());
        let answer = self.answers.borrow_mut().pop_front().expect("asked more often than expected");
        answer.map(|ticket| IssuedToken { token: Secret::new(ticket.to_owned()), expires_in: LIFE })
    }
}

/// What came of asking for a ticket: the outcome, the tokens that were shown, and whether the token was replaced.
struct Told {
    outcome: Result<Outcome, Failure>,
    shown: Vec<String>,
    has_renewed: bool,
}

fn ask(
    world: &World,
    store: &Memory,
    heals: bool,
    answers: impl IntoIterator<Item = Result<&'static str, UpstreamError>>,
) -> Told {
    let upstream = TicketScript {
        answers: RefCell::new(answers.into_iter().collect()),
        ..TicketScript::default()
    };
    let kind = TicketType::parse("jsapi").unwrap();
    let ticket = TicketRefresh {
        kind: &kind,
        place: "/d/default.jsapi.json",
        token: world.refresh(),
        upstream: &upstream,
        store,
        heals,
        has_renewed: Cell::default(),
    };
    let outcome = ticket.run(world.clock.instant() + TIMEOUT);
    Told { outcome, has_renewed: ticket.has_renewed.get(), shown: upstream.shown.take() }
}

fn of_dead_token() -> Result<&'static str, UpstreamError> {
    Err(UpstreamError::Refused(Refusal::new(40001, "", CallKind::UsesToken, Platform::Official)))
}

fn busy() -> Result<&'static str, UpstreamError> {
    Err(UpstreamError::Refused(Refusal::new(-1, "", CallKind::UsesToken, Platform::Official)))
}

#[test]
fn a_dead_token_is_replaced_once_whatever_follows() {
    let world = World::new([Ok("T2")]).publishing("T1");
    let told = ask(&world, &Memory::default(), true, [of_dead_token(), busy(), of_dead_token()]);
    let Err(Failure::Asking(why)) = told.outcome else { panic!() };
    assert!(why.is_dead_token(), "{why}");
    assert_eq!(
        (told.shown, told.has_renewed),
        (["T1", "T2", "T2"].map(str::to_owned).into(), true)
    );
    assert_eq!(world.asked(), [RefreshMode::Normal]);
}

#[test]
fn where_it_is_not_for_us_to_heal_the_failure_says_that_the_token_is_dead() {
    let world = World::new([]).publishing("T1");
    let told = ask(&world, &Memory::default(), false, [of_dead_token()]);
    let Err(Failure::Asking(why)) = told.outcome else { panic!() };
    assert!(why.is_dead_token() && !told.has_renewed, "{why}");
    assert!(world.asked().is_empty());
}

#[test]
fn the_same_token_again_is_no_cure() {
    let world = World::new([Ok("T1"), Ok("T1")]).publishing("T1");
    let told = ask(&world, &Memory::default(), true, [of_dead_token()]);
    let Err(Failure::Asking(why)) = told.outcome else { panic!() };
    assert!(why.is_dead_token() && !told.has_renewed, "{why}");
}

#[test]
fn why_there_is_no_other_token_is_why_there_is_no_ticket() {
    let world = World::new([refused(40164)]).publishing("T1");
    let told = ask(&world, &Memory::default(), true, [of_dead_token()]);
    let text = told.outcome.unwrap_err().to_string();
    assert!(text.starts_with("WeChat refused (40164)"), "{text}");
}

#[test]
fn nobody_is_asked_with_a_token_that_is_over_or_another_accounts() {
    let over = World::new([]).publishing("T1");
    over.clock.sleep(LIFE);
    let foreign = World::new([]);
    let document = Document { appid: "wx9".to_owned(), ..foreign.document("T9") };
    foreign.store.document.replace(Some(document));
    for world in [over, foreign, World::new([])] {
        let told = ask(&world, &Memory::default(), true, []);
        let text = told.outcome.unwrap_err().to_string();
        assert!(text.starts_with("there is no live token to ask with"), "{text}");
    }
}

#[test]
fn a_ticket_that_is_not_due_is_kept_if_it_is_this_accounts() {
    let world = World::new([]).publishing("T1");
    let store = Memory::default();
    let fresh = ask(&world, &store, true, [Ok("K1")]).outcome.unwrap();
    assert_eq!(fresh, Outcome::Renewed(world.document("K1")));
    assert!(matches!(ask(&world, &store, true, []).outcome.unwrap(), Outcome::Kept(_)));
    // Given again, it ends when it would have, and is asked for once half of the rest is gone.
    world.clock.sleep(LIFE - MARGIN);
    let Ok(Outcome::Confirmed(again)) = ask(&world, &store, true, [Ok("K1")]).outcome else {
        panic!()
    };
    assert_eq!(again.expires_in, MARGIN);
    world.clock.sleep(MARGIN / 2 - Duration::from_secs(1));
    assert!(matches!(ask(&world, &store, true, []).outcome.unwrap(), Outcome::Kept(_)));
    world.clock.sleep(Duration::from_secs(1));
    let world = world.publishing("T1");
    assert!(matches!(ask(&world, &store, true, [Ok("K2")]).outcome, Ok(Outcome::Renewed(_))));

    let foreign = Document { appid: "wx9".to_owned(), ..world.document("K9") };
    store.document.replace(Some(foreign));
    let text = ask(&world, &store, true, []).outcome.unwrap_err().to_string();
    assert!(text.starts_with("/d/default.jsapi.json belongs to wx9"), "{text}");
}
