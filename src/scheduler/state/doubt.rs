//! A doubt: clients say that WeChat rejects a token, and a probe cannot tell. Who says so, and when WeChat is to be asked again. Pure: the
//! time comes in.

use std::time::{Duration, Instant};

use super::messages;
use crate::model::secret::Secret;
use crate::model::status::{Unavailable, Witness};

/// How long a report counts. Two clients with the same dead token both notice within minutes.
const REPORT_VALID: Duration = Duration::from_secs(10 * 60);

/// The pause before WeChat is asked again; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const MAX_PAUSE: Duration = Duration::from_secs(5 * 60);

/// A client whose report was not enough is asked to come back after this time at least.
const MIN_RETRY_AFTER: Duration = Duration::from_secs(5);

/// How many witnesses are remembered. Two are enough to decide.
const MAX_WITNESSES: usize = 2;

/// The doubt about a token.
#[derive(Debug)]
pub(super) struct Doubt {
    pub(super) token: Secret,
    /// The last witnesses, and the time of each one's last report.
    witnesses: Vec<(Witness, Instant)>,
    /// When WeChat is to be asked again, unless a client's report has it asked earlier.
    pub(super) probe_at: Instant,
    pause: Duration,
    /// Whether a request for another token has failed. The doubt then lasts until one succeeds.
    pub(super) has_failed: bool,
    /// Whether it was logged that the token stays for now.
    pub(super) is_logged: bool,
}

impl Doubt {
    pub(super) fn new(token: Secret, now: Instant) -> Doubt {
        Doubt {
            token,
            witnesses: Vec::new(),
            probe_at: now + FIRST_PAUSE,
            pause: FIRST_PAUSE,
            has_failed: false,
            is_logged: false,
        }
    }

    /// Notes a report.
    pub(super) fn note(&mut self, witness: &Witness, now: Instant) {
        self.witnesses.retain(|(known, _)| known != witness);
        if self.witnesses.len() == MAX_WITNESSES {
            self.witnesses.remove(0);
        }
        self.witnesses.push((witness.clone(), now));
    }

    /// Notes that a probe could not tell: the next one follows after a longer pause.
    pub(super) fn note_unknown(&mut self, now: Instant) {
        self.probe_at = now + self.pause;
        self.pause = (self.pause * 2).min(MAX_PAUSE);
    }

    /// Whether the reports are enough to replace the token: one of WeChat's own, or those of two clients.
    pub(super) fn is_proven(&self, now: Instant) -> bool {
        let (mut clients, mut is_wechats) = (0, false);
        for (witness, _) in self.valid(now) {
            match witness {
                Witness::WeChat => is_wechats = true,
                Witness::Client(_) => clients += 1,
            }
        }
        is_wechats || clients >= 2
    }

    /// Whether no report counts any more.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        !self.has_failed && self.valid(now).next().is_none()
    }

    fn valid(&self, now: Instant) -> impl Iterator<Item = &(Witness, Instant)> {
        self.witnesses.iter().filter(move |(_, at)| now.duration_since(*at) < REPORT_VALID)
    }
}

/// Returns the error for a client whose report is not enough. `why` says why WeChat could not be asked.
pub(super) fn unproven(why: &str, probe_at: Instant, now: Instant) -> Unavailable {
    Unavailable {
        why: messages::UNPROVEN.first([&why]),
        retry_after: probe_at.saturating_duration_since(now).max(MIN_RETRY_AFTER),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::status::ClientIdentity;

    fn client(name: &str) -> Witness {
        Witness::Client(ClientIdentity::Key(name.into()))
    }

    fn doubt(now: Instant) -> Doubt {
        Doubt::new(Secret::new("T1".to_owned()), now)
    }

    #[test]
    fn wechats_word_or_that_of_two_clients_within_ten_minutes_is_enough_and_that_of_one_is_not() {
        let start = Instant::now();
        let at = |secs: u64| start + Duration::from_secs(secs);
        let mut doubted = doubt(start);
        for n in 0..100 {
            doubted.note(&client("one"), at(n));
            assert!(!doubted.is_proven(at(n)));
        }
        doubted.note(&client("two"), at(698));
        assert!(doubted.is_proven(at(698)));
        assert!(!doubted.is_proven(at(699)), "the first report is ten minutes old");
        assert!(!doubted.is_over(at(1297)) && doubted.is_over(at(1298)));
        let mut doubted = doubt(start);
        doubted.note(&Witness::WeChat, start);
        assert!(doubted.is_proven(start));
    }

    #[test]
    fn wechat_is_asked_again_after_5_seconds_and_then_ever_less_often_down_to_every_5_minutes() {
        let mut now = Instant::now();
        let mut doubted = doubt(now);
        let pauses: Vec<u64> = (0..9)
            .map(|_| {
                doubted.note_unknown(now);
                let pause = doubted.probe_at - now;
                now = doubted.probe_at;
                pause.as_secs()
            })
            .collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
    }
}
