//! The life of the published document while a token is requested that may replace it.

use super::*;

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
