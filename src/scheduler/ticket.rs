//! The schedule of one ticket inside of `serve --refresh`: when it is asked for next. A failure is its own: it neither holds
//! up the token nor is it repeated in a hurry. Pure: what happened, and when, comes in.

use std::time::{Duration, Instant};

use time::UtcDateTime;

use super::backoff::{self, SHORTEST_WAIT};
use super::retry::Trouble;
use super::state::News;
use crate::model::api::Rules;
use crate::model::document::Document;
use crate::model::kind::TicketType;
use crate::model::status::{RefreshFailure, Unavailable};
use crate::refresh::{Outcome, RefreshError};

/// Where even another token was no cure a person has to look; each try may cost a forced token, of which a day has 20.
const AFTER_A_DEAD_TOKEN: Duration = Duration::from_secs(60 * 60);

/// A dead token that could not be replaced yet is worth another look soon, but not more than that.
const WHILE_IT_HEALS: Duration = Duration::from_secs(60);

/// What is next for a client who wants a ticket that is not there.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TicketStep {
    Begin,
    /// Wait until something changes, or until then, and think again.
    Wait(Option<Instant>),
    /// There will be none for now.
    GiveUp(Unavailable),
}

/// What is known of one ticket.
#[derive(Debug)]
pub(super) struct TicketSchedule {
    pub(super) kind: TicketType,
    /// How many hangups there were when what is under way began.
    under_way: Option<u64>,
    trouble: Option<Trouble>,
    /// When it was last begun.
    begun_at: Option<Instant>,
    hangups: u64,
}

impl TicketSchedule {
    pub(super) fn new(kind: TicketType) -> TicketSchedule {
        TicketSchedule { kind, under_way: None, trouble: None, begun_at: None, hangups: 0 }
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// How long it is until it is to be asked for; `None` while that is done. `document` is what is published.
    pub(super) fn wait(
        &self,
        document: Option<&Document>,
        refresh_before: Duration,
        wall: UtcDateTime,
        now: Instant,
    ) -> Option<Duration> {
        let due_in = match document {
            // Where nothing is due after a failure, somebody else has fetched it: that is found out.
            Some(document) if self.trouble.is_none() => {
                let margin = document.ticket_margin(refresh_before);
                backoff::until_due(document, wall, Rules::Stable, margin)
            }
            _ => Duration::ZERO,
        };
        let retry_at = self.trouble.as_ref().map(|trouble| trouble.retry_at);
        let not_before = retry_at.max(self.begun_at.map(|at| at + SHORTEST_WAIT));
        let rest = not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        (!self.is_under_way()).then(|| due_in.max(rest))
    }

    /// What to do for a client of the account of this `name`, where there is no live ticket.
    pub(super) fn step(&self, name: &str, now: Instant) -> TicketStep {
        if let Some(trouble) = self.trouble.as_ref().filter(|trouble| trouble.stands())
            && (now < trouble.retry_at || self.is_under_way())
        {
            let what = format!("there is no live {} ticket: {name}", self.kind);
            return TicketStep::GiveUp(trouble.lack(&what, now));
        }
        match self.begun_at.map(|at| at + SHORTEST_WAIT) {
            _ if self.is_under_way() => TicketStep::Wait(None),
            Some(at) if now < at => TicketStep::Wait(Some(at)),
            _ => TicketStep::Begin,
        }
    }

    pub(super) fn begin(&mut self, now: Instant) {
        (self.under_way, self.begun_at) = (Some(self.hangups), Some(now));
    }

    /// Remembers what came of it. `heals_in` is when its dead token may be replaced, where that could not be done now.
    pub(super) fn end(
        &mut self,
        outcome: Result<Outcome, RefreshError>,
        heals_in: Option<Duration>,
        wall: UtcDateTime,
        now: Instant,
        random: u64,
    ) -> Vec<News> {
        let hangups = self.under_way.take();
        let failure = match outcome {
            Err(failure) => failure,
            Ok(outcome) => {
                let well_again = self.trouble.take().map(|_| News::WellAgain);
                let published = match outcome {
                    Outcome::Kept(_) => None,
                    Outcome::Renewed(document) | Outcome::Confirmed(document) => {
                        Some(News::Published(document.token.fingerprint()))
                    }
                };
                return published.into_iter().chain(well_again).collect();
            }
        };
        let pointless = match &failure {
            RefreshError::Upstream(why) if why.is_dead_token() => {
                Some(heals_in.map_or(AFTER_A_DEAD_TOKEN, |span| span.max(WHILE_IT_HEALS)))
            }
            failure => failure.retry_after(),
        };
        let told = Trouble::note(&mut self.trouble, &failure, pointless, wall, now, random);
        // What was mended meanwhile has not been tried yet.
        if hangups != Some(self.hangups) {
            self.forgive(now);
        }
        let failure = failure.to_string();
        told.map(|pause| News::Failed { failure, pause }).into_iter().collect()
    }

    /// The operator may have mended what was in the way.
    pub(super) fn hangup(&mut self, now: Instant) {
        self.hangups += 1;
        self.forgive(now);
    }

    fn forgive(&mut self, now: Instant) {
        self.trouble.iter_mut().for_each(|trouble| trouble.forgive(now));
    }

    /// The last failure, if there was no success after it.
    pub(super) fn failure(&self) -> Option<RefreshFailure> {
        self.trouble.as_ref().map(Trouble::failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::errcode::{CallKind, Platform, Refusal};
    use crate::model::secret::Secret;
    use crate::upstream::UpstreamError;

    const WALL: UtcDateTime = UtcDateTime::UNIX_EPOCH;
    const MARGIN: Duration = secs(300);

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn schedule() -> (TicketSchedule, Instant) {
        (TicketSchedule::new(TicketType::parse("jsapi").unwrap()), Instant::now())
    }

    fn document(life: u64) -> Document {
        Document::new("wx1", Secret::new("TICKET".to_owned()), secs(life), WALL)
    }

    fn refused(code: i64) -> Result<Outcome, RefreshError> {
        let refusal = Refusal::new(code, "", CallKind::UsesToken, Platform::Official);
        Err(RefreshError::Upstream(UpstreamError::Refused(refusal)))
    }

    impl TicketSchedule {
        /// An errand that begins and ends now.
        fn fail(&mut self, code: i64, heals_in: Option<Duration>, now: Instant) -> Vec<News> {
            self.begin(now);
            self.end(refused(code), heals_in, WALL, now, 0)
        }

        fn wait_for_none(&self, now: Instant) -> Option<Duration> {
            self.wait(None, MARGIN, WALL, now)
        }
    }

    #[test]
    fn a_ticket_is_due_at_its_margin_and_never_before_half_of_its_life_is_gone() {
        let (ticket, now) = schedule();
        let wait = |document: &Document, margin, age| {
            ticket.wait(Some(document), secs(margin), WALL + secs(age), now).unwrap().as_secs()
        };
        let fresh = document(7200);
        assert_eq!([0, 6000, 6900, 9000].map(|age| wait(&fresh, 300, age)), [6900, 900, 0, 0]);
        assert_eq!([0, 3600].map(|age| wait(&fresh, 10_800, age)), [3600, 0]);
        // With 200 s left it was given again.
        assert_eq!([0, 99, 100].map(|age| wait(&document(200), 300, age)), [100, 1, 0]);
    }

    #[test]
    fn one_that_is_not_there_is_asked_for_at_once_and_not_twice_at_a_time_or_in_a_second() {
        let (mut ticket, now) = schedule();
        assert_eq!(ticket.wait_for_none(now), Some(Duration::ZERO));
        assert_eq!(ticket.step("shop", now), TicketStep::Begin);
        ticket.begin(now);
        assert!(ticket.is_under_way());
        assert_eq!(ticket.wait_for_none(now + secs(60)), None);
        assert_eq!(ticket.step("shop", now + secs(60)), TicketStep::Wait(None));
        let news = ticket.end(Ok(Outcome::Renewed(document(7200))), None, WALL, now, 0);
        let fingerprint = document(7200).token.fingerprint();
        assert_eq!((news, ticket.is_under_way()), (vec![News::Published(fingerprint)], false));
        // It is gone again.
        assert_eq!(ticket.wait_for_none(now), Some(SHORTEST_WAIT));
        let until = now + SHORTEST_WAIT;
        assert_eq!(ticket.step("shop", now), TicketStep::Wait(Some(until)));
        assert_eq!(ticket.step("shop", until), TicketStep::Begin);
    }

    #[test]
    fn a_failure_is_tried_again_ever_more_rarely_and_told_once_in_ten_minutes() {
        let (mut ticket, start) = schedule();
        let (mut now, mut told, mut pauses) = (start, 0, Vec::new());
        while now < start + secs(1200) {
            told += ticket.fail(-1, None, now).len();
            let pause = ticket.wait_for_none(now).unwrap();
            pauses.push(pause.as_secs());
            assert!(matches!(ticket.step("shop", now), TicketStep::GiveUp(_)));
            now += pause;
            assert_eq!(ticket.step("shop", now), TicketStep::Begin);
        }
        assert_eq!((pauses[..7].to_vec(), told), (vec![2, 4, 8, 16, 32, 60, 60], 2));
        // Another trouble is news at once.
        let news = ticket.fail(48001, None, now);
        let [News::Failed { failure, pause }] = &news[..] else { panic!("{news:?}") };
        assert!(failure.contains("48001") && *pause == secs(3600), "{news:?}");
        assert_eq!(ticket.fail(45009, None, now).len(), 1);
        assert_eq!(ticket.fail(45009, None, now).len(), 0);
    }

    #[test]
    fn who_wants_one_that_is_refused_hears_why_and_until_when() {
        let (mut ticket, now) = schedule();
        ticket.fail(48001, None, now);
        let TicketStep::GiveUp(lack) = ticket.step("shop", now + secs(600)) else { panic!() };
        let lead = "there is no live jsapi ticket: shop: WeChat refused (48001)";
        assert!(lack.why.starts_with(lead), "{}", lack.why);
        assert_eq!(lack.retry_after, secs(3000));
        let failure = ticket.failure().unwrap();
        assert_eq!(failure.at, WALL);
        assert!(failure.message.starts_with("WeChat refused (48001)"), "{failure:?}");
        // While it is tried again, nothing speaks for another answer.
        ticket.begin(now + secs(3600));
        assert!(matches!(ticket.step("shop", now + secs(3600)), TicketStep::GiveUp(_)));
    }

    #[test]
    fn a_dead_token_that_another_did_not_cure_is_left_alone_for_an_hour_and_one_that_heals_later_is_not()
     {
        for (heals_in, pause) in
            [(None, 3600), (Some(secs(5)), 60), (Some(secs(90)), 90), (Some(secs(80_000)), 80_000)]
        {
            let (mut ticket, now) = schedule();
            ticket.fail(40001, heals_in, now);
            assert_eq!(ticket.wait_for_none(now), Some(secs(pause)), "{heals_in:?}");
        }
    }

    #[test]
    fn after_a_failure_it_is_found_out_that_all_is_well_also_where_nothing_is_due() {
        let (mut ticket, now) = schedule();
        ticket.fail(-1, None, now);
        let fresh = document(7200);
        assert_eq!(ticket.wait(Some(&fresh), MARGIN, WALL, now), Some(secs(2)));
        ticket.begin(now + secs(2));
        let news = ticket.end(Ok(Outcome::Kept(fresh.clone())), None, WALL, now + secs(2), 0);
        assert_eq!((news, ticket.failure()), (vec![News::WellAgain], None));
        assert_eq!(ticket.wait(Some(&fresh), MARGIN, WALL, now + secs(3)), Some(secs(6900)));
    }

    #[test]
    fn what_the_operator_mended_is_tried_at_once_and_told_again_should_it_fail_again() {
        let (mut ticket, now) = schedule();
        ticket.fail(48001, None, now);
        let later = now + secs(5);
        assert!(ticket.wait_for_none(later).unwrap() > secs(3000));
        ticket.hangup(later);
        assert_eq!(ticket.wait_for_none(later), Some(Duration::ZERO));
        // Meanwhile it is under way, and fails by what was not mended yet when it began.
        ticket.begin(later);
        assert_eq!(ticket.step("shop", later), TicketStep::Wait(None), "it may go well now");
        ticket.hangup(later);
        let news = ticket.end(refused(48001), None, WALL, later, 0);
        assert!(matches!(news[..], [News::Failed { .. }]), "{news:?}");
        assert_eq!(ticket.wait_for_none(later), Some(SHORTEST_WAIT));
        assert!(matches!(ticket.fail(48001, None, later)[..], [News::Failed { .. }]));
        assert_eq!(ticket.wait_for_none(later), Some(secs(3600)), "with the hangups it ends");
    }
}
