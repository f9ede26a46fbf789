//! What another process did while this one waited for the lock, and answers that add nothing.

use super::*;

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
