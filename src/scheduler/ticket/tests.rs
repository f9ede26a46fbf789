use time::UtcDateTime;

use super::*;
use crate::model::errcode::{CallKind, Platform, Refusal};
use crate::model::secret::Secret;
use crate::scheduler::backoff::MIN_INTERVAL;
use crate::scheduler::retry::Readiness;
use crate::upstream::UpstreamError;

const WALL: Timestamp = Timestamp::of_wall(UtcDateTime::UNIX_EPOCH);
const MARGIN: Duration = secs(300);

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn schedule() -> (TicketSchedule, Instant) {
    (TicketSchedule::default(), Instant::now())
}

fn document(life: u64) -> Document {
    Document::new("wx1", Secret::new("TICKET".to_owned()), secs(life), WALL)
}

fn refused(code: i64) -> Result<Outcome, RefreshError> {
    let refusal = Refusal::new(code, "", CallKind::UsesToken, Platform::Official);
    Err(RefreshError::Upstream(UpstreamError::Refused(refusal)))
}

fn moment(now: Instant) -> Moment {
    Moment { wall: WALL, now, random: 0 }
}

impl TicketSchedule {
    /// An attempt that starts and fails now.
    fn fail(&mut self, code: i64, replaceable_in: Option<Duration>, now: Instant) -> Vec<Event> {
        self.retry.start(now);
        self.finish(refused(code), replaceable_in, moment(now))
    }

    fn wait_without_ticket(&self, now: Instant) -> Option<Duration> {
        self.wait(None, MARGIN, WALL, now)
    }
}

#[test]
fn a_ticket_is_due_at_its_margin_and_never_before_half_of_its_life() {
    let (ticket, now) = schedule();
    let wait = |document: &Document, margin, age| {
        ticket.wait(Some(document), secs(margin), WALL.plus(secs(age)), now).unwrap().as_secs()
    };
    let fresh = document(7200);
    assert_eq!([0, 6000, 6900, 9000].map(|age| wait(&fresh, 300, age)), [6900, 900, 0, 0]);
    assert_eq!([0, 3600].map(|age| wait(&fresh, 10_800, age)), [3600, 0]);
    // Issued again with 200 s left.
    assert_eq!([0, 99, 100].map(|age| wait(&document(200), 300, age)), [100, 1, 0]);
    // A refresh would keep it.
    assert_eq!(wait(&fresh.put_back(), 300, 0), 6900);
}

#[test]
fn a_missing_ticket_is_requested_at_once_but_not_twice_at_a_time_or_within_a_second() {
    let (mut ticket, now) = schedule();
    assert_eq!(ticket.wait_without_ticket(now), Some(Duration::ZERO));
    assert!(matches!(ticket.retry.readiness(now), Readiness::Ready));
    ticket.retry.start(now);
    assert!(ticket.retry.is_running());
    assert_eq!(ticket.wait_without_ticket(now + secs(60)), None);
    assert!(matches!(ticket.retry.readiness(now + secs(60)), Readiness::Running));
    let events = ticket.finish(Ok(Outcome::Renewed(document(7200))), None, moment(now));
    assert_eq!(events, [Event::Published(document(7200).token.fingerprint())]);
    assert!(!ticket.retry.is_running());
    // It has been removed again.
    assert_eq!(ticket.wait_without_ticket(now), Some(MIN_INTERVAL));
    let until = now + MIN_INTERVAL;
    assert!(matches!(ticket.retry.readiness(now), Readiness::NotBefore(at) if at == until));
    assert!(matches!(ticket.retry.readiness(until), Readiness::Ready));
}

#[test]
fn the_same_failure_is_retried_with_growing_pauses_and_logged_every_ten_minutes() {
    let (mut ticket, start) = schedule();
    let (mut now, mut lines, mut pauses) = (start, 0, Vec::new());
    while now < start + secs(1200) {
        lines += ticket.fail(-1, None, now).len();
        let pause = ticket.wait_without_ticket(now).unwrap();
        pauses.push(pause.as_secs());
        assert!(matches!(ticket.retry.readiness(now), Readiness::Failed(_)));
        now += pause;
        assert!(matches!(ticket.retry.readiness(now), Readiness::Ready));
    }
    assert_eq!((pauses[..7].to_vec(), lines), (vec![2, 4, 8, 16, 32, 60, 60], 2));
    // Another failure is logged at once.
    let events = ticket.fail(48001, None, now);
    let [Event::Failed { message, pause }] = &events[..] else { panic!("{events:?}") };
    assert!(message.contains("48001") && *pause == secs(3600), "{events:?}");
    assert_eq!(ticket.fail(45009, None, now).len(), 1);
    assert_eq!(ticket.fail(45009, None, now).len(), 0);
}

#[test]
fn a_client_learns_why_a_ticket_is_refused_and_when_to_ask_again() {
    let (mut ticket, now) = schedule();
    ticket.fail(48001, None, now);
    let later = now + secs(600);
    let Readiness::Failed(failure) = ticket.retry.readiness(later) else { panic!() };
    let unavailable = failure.unavailable(|cause| format!("{cause} (no ticket)"), later);
    assert!(unavailable.why.ends_with(" (no ticket)"), "{}", unavailable.why);
    assert_eq!(unavailable.retry_after, secs(3000));
    let failure = ticket.failure().unwrap();
    assert_eq!(failure.at, WALL.wall);
    assert!(failure.message.contains("WeChat refused (48001)"), "{failure:?}");
    // During the retry the answer is the same.
    ticket.retry.start(now + secs(3600));
    assert!(matches!(ticket.retry.readiness(now + secs(3600)), Readiness::Failed(_)));
}

#[test]
fn after_a_dead_token_the_pause_depends_on_when_the_token_may_be_replaced() {
    for (replaceable_in, pause) in
        [(None, 3600), (Some(secs(5)), 60), (Some(secs(90)), 90), (Some(secs(80_000)), 80_000)]
    {
        let (mut ticket, now) = schedule();
        ticket.fail(40001, replaceable_in, now);
        assert_eq!(ticket.wait_without_ticket(now), Some(secs(pause)), "{replaceable_in:?}");
    }
}

#[test]
fn after_a_failure_the_retry_takes_place_even_if_nothing_is_due_any_more() {
    let (mut ticket, now) = schedule();
    ticket.fail(-1, None, now);
    let fresh = document(7200);
    assert_eq!(ticket.wait(Some(&fresh), MARGIN, WALL, now), Some(secs(2)));
    ticket.retry.start(now + secs(2));
    let events = ticket.finish(Ok(Outcome::Kept(fresh.clone())), None, moment(now + secs(2)));
    assert_eq!((events, ticket.failure()), (vec![Event::Recovered], None));
    assert_eq!(ticket.wait(Some(&fresh), MARGIN, WALL, now + secs(3)), Some(secs(6900)));
}

#[test]
fn after_a_reset_a_failure_is_retried_at_once_and_logged_again() {
    let (mut ticket, now) = schedule();
    ticket.fail(48001, None, now);
    let later = now + secs(5);
    assert!(ticket.wait_without_ticket(later).unwrap() > secs(3000));
    ticket.retry.reset(later);
    assert_eq!(ticket.wait_without_ticket(later), Some(Duration::ZERO));
    // A reset during an attempt: that one fails by what was not fixed yet at its start.
    ticket.retry.start(later);
    assert!(matches!(ticket.retry.readiness(later), Readiness::Running), "it may succeed now");
    ticket.retry.reset(later);
    let events = ticket.finish(refused(48001), None, moment(later));
    assert!(matches!(events[..], [Event::Failed { .. }]), "{events:?}");
    assert_eq!(ticket.wait_without_ticket(later), Some(MIN_INTERVAL));
    assert!(matches!(ticket.fail(48001, None, later)[..], [Event::Failed { .. }]));
    assert_eq!(ticket.wait_without_ticket(later), Some(secs(3600)), "no further reset");
}

#[test]
fn a_ticket_that_waits_for_another_token_is_requested_as_soon_as_there_is_one() {
    for (replaceable_in, expected) in [(Some(secs(5)), secs(1)), (None, secs(3600))] {
        let (mut ticket, now) = schedule();
        ticket.fail(40001, replaceable_in, now);
        ticket.note_new_token(now);
        assert_eq!(ticket.wait_without_ticket(now), Some(expected), "{replaceable_in:?}");
    }
    let (mut ticket, now) = schedule();
    ticket.fail(48001, None, now);
    ticket.note_new_token(now);
    assert!(ticket.wait_without_ticket(now).unwrap() > secs(60), "another failure");
}
