//! WeCom, which issues a token again until it ends.

use super::*;

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
