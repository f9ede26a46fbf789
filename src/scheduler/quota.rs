//! Quotas on what a client's report may cause: forced requests, which WeChat counts and which invalidate a token, and
//! probes. Pure: the time comes in.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::state::messages;
use crate::model::status::{ClientIdentity, Unavailable};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// WeChat allows no two forced requests within this time.
/// <https://developers.weixin.qq.com/doc/service/api/base/api_getstableaccesstoken>
const FORCED_INTERVAL: Duration = Duration::from_secs(30);

/// One in so many of a day's forced requests may be caused by reports while no probe can tell whether the token is dead. The rest is for
/// tokens that WeChat calls dead.
const UNPROBED_SHARE: usize = 4;

/// How many probes for one reason may follow one another at once, for one client and for all together: more than workers cause that start
/// together.
const CLIENT_BURST: u32 = 5;
const BURST: u32 = 10;

/// The time in which one more probe becomes available to a client: 2,880 a day at most.
const CLIENT_INTERVAL: Duration = Duration::from_secs(30);

/// The time in which one more probe on a suspicion becomes available to all clients together: 4,320 a day at most. For as
/// long a token that dies may be taken for one that lives, under clients that ask all the time.
const SUSPICION_INTERVAL: Duration = Duration::from_secs(20);

/// The time in which one more probe on a report becomes available to all clients together. Under however many reports, a client that
/// may have a probe waits for it no longer than this.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// How many clients are remembered, at least. With more of them, those are forgotten that have all of theirs: under the limit
/// for all clients together no more than some dozen have not.
const MAX_CLIENTS: usize = 1024;

/// The forced requests of an account.
#[derive(Debug)]
pub(super) struct ForcedQuota {
    per_day: usize,
    /// When they were made, in the last day, and whether the token was known to be dead.
    made_at: VecDeque<(Instant, Certainty)>,
}

/// How certain it is that a token is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Certainty {
    /// WeChat says so.
    Known,
    /// Clients say so, and WeChat cannot be asked.
    Reported,
}

/// Why no request is to be forced now, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QuotaExceeded {
    TooSoon(Duration),
    DayUsedUp(Duration),
}

impl From<QuotaExceeded> for Unavailable {
    fn from(exceeded: QuotaExceeded) -> Unavailable {
        let (message, retry_after) = match exceeded {
            QuotaExceeded::TooSoon(rest) => (&messages::TOO_SOON, rest),
            QuotaExceeded::DayUsedUp(rest) => (&messages::DAY_USED_UP, rest),
        };
        Unavailable { why: message.first([]), retry_after }
    }
}

impl ForcedQuota {
    pub(super) fn new(per_day: usize) -> ForcedQuota {
        ForcedQuota { per_day, made_at: VecDeque::new() }
    }

    /// Fails if no request is to be forced now.
    pub(super) fn check(&self, certainty: Certainty, now: Instant) -> Result<(), QuotaExceeded> {
        let since = |at: Instant| now.duration_since(at);
        if let Some((last, _)) = self.made_at.back()
            && since(*last) < FORCED_INTERVAL
        {
            return Err(QuotaExceeded::TooSoon(FORCED_INTERVAL - since(*last)));
        }
        let today = || self.made_at.iter().filter(|(at, _)| since(*at) < DAY);
        let unprobed = || today().filter(|(_, certainty)| *certainty == Certainty::Reported);
        let first = match certainty {
            _ if today().count() >= self.per_day => today().next(),
            Certainty::Reported if unprobed().count() >= self.per_day / UNPROBED_SHARE => {
                unprobed().next()
            }
            _ => None,
        };
        match first {
            Some((first, _)) => Err(QuotaExceeded::DayUsedUp(DAY - since(*first))),
            None => Ok(()),
        }
    }

    /// Counts a forced request.
    pub(super) fn count(&mut self, certainty: Certainty, now: Instant) {
        self.made_at.retain(|(at, _)| now.duration_since(*at) < DAY);
        self.made_at.push_back((now, certainty));
    }
}

/// How many dead tokens normal requests on stable may replace in a row, and the time in which one more may be replaced. WeChat issues a
/// new token to a normal request only after a forced one elsewhere, which it allows 20 times a day. If an upstream breaks that rule, not
/// each call may mint.
const RENEWALS: u32 = 20;
const RENEWAL_INTERVAL: Duration = Duration::from_secs(30);

/// The dead tokens that normal requests on stable replace.
#[derive(Debug)]
pub(super) struct RenewalQuota(TokenBucket);

impl RenewalQuota {
    pub(super) fn new(now: Instant) -> RenewalQuota {
        RenewalQuota(TokenBucket::new(RENEWALS, RENEWAL_INTERVAL, now))
    }

    /// Fails if no dead token is to be replaced now.
    pub(super) fn check(&mut self, now: Instant) -> Result<(), Unavailable> {
        let Some(at) = self.0.next_at(now) else { return Ok(()) };
        let why = messages::RENEWALS_USED_UP.first([]);
        let retry_after = at.saturating_duration_since(now);
        Err(Unavailable { why, retry_after })
    }

    /// Counts a token that was replaced.
    pub(super) fn count(&mut self) {
        self.0.take();
    }
}

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeReason {
    /// A client behaves as if WeChat rejected the token.
    Suspicion,
    /// WeChat rejected the token, according to a client.
    Report,
}

/// How many probes of an account's token may be sent. Suspicions take none from reports, and no client takes all.
#[derive(Debug)]
pub(super) struct ProbeQuota {
    suspicions: ProbeShare,
    reports: ProbeShare,
}

/// Why no probe may be sent for a client now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeRefusal {
    /// This client has had its share.
    Client,
    /// All clients together have had their share. The next probe may be sent at this instant.
    All(Instant),
}

impl ProbeQuota {
    pub(super) fn new(now: Instant) -> ProbeQuota {
        let share = |interval| ProbeShare {
            all: TokenBucket::new(BURST, interval, now),
            clients: HashMap::new(),
        };
        ProbeQuota { suspicions: share(SUSPICION_INTERVAL), reports: share(REPORT_INTERVAL) }
    }

    /// Takes a probe for this client. Fails if none may be sent.
    pub(super) fn take(
        &mut self,
        reason: ProbeReason,
        client: &ClientIdentity,
        now: Instant,
    ) -> Result<(), ProbeRefusal> {
        self.share(reason).take(client, now)
    }

    /// Gives back the probe that was taken for this client, because the client was right: the token is dead.
    pub(super) fn give_back(&mut self, reason: ProbeReason, client: &ClientIdentity) {
        let share = self.share(reason);
        share.all.give_back();
        if let Some(bucket) = share.clients.get_mut(client) {
            bucket.give_back();
        }
    }

    fn share(&mut self, reason: ProbeReason) -> &mut ProbeShare {
        match reason {
            ProbeReason::Suspicion => &mut self.suspicions,
            ProbeReason::Report => &mut self.reports,
        }
    }
}

/// The probes for one reason.
#[derive(Debug)]
struct ProbeShare {
    all: TokenBucket,
    /// The shares of clients that have used a part of theirs.
    clients: HashMap<ClientIdentity, TokenBucket>,
}

impl ProbeShare {
    fn take(&mut self, client: &ClientIdentity, now: Instant) -> Result<(), ProbeRefusal> {
        let own = self.clients.get_mut(client);
        if own.is_some_and(|own| own.next_at(now).is_some()) {
            return Err(ProbeRefusal::Client);
        }
        if let Some(at) = self.all.next_at(now) {
            return Err(ProbeRefusal::All(at));
        }
        self.all.take();
        if self.clients.len() >= MAX_CLIENTS {
            self.clients.retain(|_, bucket| !bucket.is_full(now));
        }
        let new = || TokenBucket::new(CLIENT_BURST, CLIENT_INTERVAL, now);
        self.clients.entry(client.clone()).or_insert_with(new).take();
        Ok(())
    }
}

/// A limit of so many at once, and one more after each interval.
#[derive(Debug)]
struct TokenBucket {
    burst: u32,
    interval: Duration,
    left: u32,
    /// Since when the next one is on its way.
    since: Instant,
}

impl TokenBucket {
    fn new(burst: u32, interval: Duration, now: Instant) -> TokenBucket {
        TokenBucket { burst, interval, left: burst, since: now }
    }

    /// Returns when the next one will be there; `None` if one is there now.
    fn next_at(&mut self, now: Instant) -> Option<Instant> {
        self.grow(now);
        (self.left == 0).then(|| self.since + self.interval)
    }

    fn is_full(&mut self, now: Instant) -> bool {
        self.grow(now);
        self.left == self.burst
    }

    fn grow(&mut self, now: Instant) {
        while self.left < self.burst && now.duration_since(self.since) >= self.interval {
            self.left += 1;
            self.since += self.interval;
        }
        if self.left == self.burst {
            self.since = now;
        }
    }

    /// Takes one, which has to be there.
    fn take(&mut self) {
        self.left = self.left.saturating_sub(1);
    }

    fn give_back(&mut self) {
        self.left = (self.left + 1).min(self.burst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ClientIdentity {
        ClientIdentity::Key(name.into())
    }

    #[test]
    fn requests_are_forced_once_in_thirty_seconds_and_not_more_often_than_a_day_allows() {
        let start = Instant::now();
        let at = |secs: u64| start + Duration::from_secs(secs);
        let mut quota = ForcedQuota::new(3);
        let known = Certainty::Known;
        for n in 0..3 {
            assert_eq!(quota.check(known, at(30 * n)), Ok(()));
            quota.count(known, at(30 * n));
        }
        let too_soon = QuotaExceeded::TooSoon(Duration::from_secs(1));
        assert_eq!(quota.check(known, at(89)), Err(too_soon));
        let used_up = QuotaExceeded::DayUsedUp(DAY - Duration::from_secs(90));
        assert_eq!(quota.check(known, at(90)), Err(used_up));
        assert_eq!(quota.check(known, at(86_400)), Ok(()), "the first is a day ago");
        quota.count(known, at(86_400));
        assert!(matches!(quota.check(known, at(86_429)), Err(QuotaExceeded::TooSoon(_))));
        assert_eq!(quota.check(known, at(86_430)), Ok(()), "the second is a day ago");
    }

    #[test]
    fn what_no_probe_has_shown_takes_no_more_than_a_quarter_of_the_day() {
        let start = Instant::now();
        let at = |secs: u64| start + Duration::from_secs(secs);
        let mut quota = ForcedQuota::new(20);
        for n in 0..5 {
            assert_eq!(quota.check(Certainty::Reported, at(30 * n)), Ok(()));
            quota.count(Certainty::Reported, at(30 * n));
        }
        let used_up = QuotaExceeded::DayUsedUp(DAY - Duration::from_secs(150));
        assert_eq!(quota.check(Certainty::Reported, at(150)), Err(used_up));
        for n in 5..20 {
            assert_eq!(quota.check(Certainty::Known, at(30 * n)), Ok(()));
            quota.count(Certainty::Known, at(30 * n));
        }
        assert!(quota.check(Certainty::Known, at(600)).is_err());
    }

    #[test]
    fn probes_of_a_client_come_in_a_burst_of_five_and_then_twice_a_minute() {
        let start = Instant::now();
        let at = |secs: u64| start + Duration::from_secs(secs);
        for reason in [ProbeReason::Suspicion, ProbeReason::Report] {
            let mut quota = ProbeQuota::new(start);
            let mut is_taken = |secs| quota.take(reason, &key("a"), at(secs)).is_ok();
            assert_eq!([0, 0, 0, 0, 1].map(&mut is_taken), [true; 5]);
            assert_eq!([1, 29, 30, 31, 59].map(&mut is_taken), [false, false, true, false, false]);
            assert_eq!([1000; 6].map(&mut is_taken), [true, true, true, true, true, false]);
        }
    }

    #[test]
    fn one_client_never_takes_the_probes_of_all_and_suspicions_none_of_reports() {
        let start = Instant::now();
        let mut quota = ProbeQuota::new(start);
        for n in 0..3600 {
            let now = start + Duration::from_secs(n);
            for reason in [ProbeReason::Suspicion, ProbeReason::Report] {
                let _ = quota.take(reason, &key("liar"), now);
            }
        }
        let now = start + Duration::from_secs(3600);
        assert_eq!(quota.take(ProbeReason::Report, &key("honest"), now), Ok(()));
        assert_eq!(quota.take(ProbeReason::Suspicion, &key("honest"), now), Ok(()));
        for n in 0..50 {
            let _ = quota.take(ProbeReason::Suspicion, &key(&n.to_string()), now);
        }
        assert_eq!(quota.take(ProbeReason::Report, &key("another"), now), Ok(()));
    }

    #[test]
    fn under_reports_of_however_many_clients_another_one_waits_five_seconds_at_most() {
        let now = Instant::now();
        let mut quota = ProbeQuota::new(now);
        let mut taken = 0;
        for n in 0..2 * MAX_CLIENTS {
            taken += u32::from(quota.take(ProbeReason::Report, &key(&n.to_string()), now).is_ok());
        }
        assert_eq!(taken, BURST);
        let refusal = quota.take(ProbeReason::Report, &key("honest"), now);
        assert_eq!(refusal, Err(ProbeRefusal::All(now + REPORT_INTERVAL)));
        assert_eq!(quota.take(ProbeReason::Report, &key("honest"), now + REPORT_INTERVAL), Ok(()));
    }

    #[test]
    fn among_however_many_that_reported_before_a_client_is_remembered() {
        let start = Instant::now();
        let mut quota = ProbeQuota::new(start);
        let at = |n: usize| start + REPORT_INTERVAL * n as u32;
        for n in 1..MAX_CLIENTS {
            assert_eq!(quota.take(ProbeReason::Report, &key(&n.to_string()), at(n)), Ok(()));
        }
        // All but the last few have all of theirs again, and are forgotten.
        let now = at(MAX_CLIENTS + BURST as usize);
        let taken = (0..BURST).filter(|_| quota.take(ProbeReason::Report, &key("a"), now).is_ok());
        assert_eq!(taken.count(), CLIENT_BURST as usize);
        assert!(quota.reports.clients.len() <= BURST as usize);
    }

    #[test]
    fn a_report_that_was_right_costs_its_client_nothing() {
        let now = Instant::now();
        let mut quota = ProbeQuota::new(now);
        for _ in 0..10 {
            assert_eq!(quota.take(ProbeReason::Report, &key("a"), now), Ok(()));
            quota.give_back(ProbeReason::Report, &key("a"));
        }
    }
}
