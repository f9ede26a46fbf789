//! Which failures are tried again, and within which time.

use super::*;

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
