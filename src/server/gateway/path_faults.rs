//! Paths that WeChat refuses with 40001 or 40014 although it honours the token: because of a wrong kind of app or of token, say. No token is
//! replaced for them. At first such a path is remembered for two seconds only, because the verdict on the token may have been a moment too
//! old. Reads no clock.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_secs(2);
const MAX_PAUSE: Duration = Duration::from_secs(10 * 60);

/// How many paths are remembered, in about 100 KiB. Clients choose paths; the quotas on probes hold for those beyond.
const MAX_PATHS: usize = 512;

/// The paths of all accounts.
#[derive(Default)]
pub(super) struct PathFaults(HashMap<(String, String), PathFault>);

struct PathFault {
    until: Instant,
    pause: Duration,
}

impl PathFaults {
    /// Whether a refusal on this path of the account is now taken as it is.
    pub(super) fn contains(&self, account: &str, path: &str, now: Instant) -> bool {
        !self.0.is_empty()
            && self
                .0
                .get(&(account.to_owned(), path.to_owned()))
                .is_some_and(|fault| now < fault.until)
    }

    /// Notes that WeChat refused a token on this path that it honours.
    pub(super) fn note(&mut self, account: &str, path: &str, now: Instant) {
        let key = (account.to_owned(), path.to_owned());
        if self.0.len() >= MAX_PATHS && !self.0.contains_key(&key) {
            self.0.retain(|_, fault| now < fault.until);
            if self.0.len() >= MAX_PATHS {
                return;
            }
        }
        let pause = match self.0.get(&key) {
            Some(fault) if now < fault.until + MAX_PAUSE => (fault.pause * 2).min(MAX_PAUSE),
            _ => FIRST_PAUSE,
        };
        self.0.insert(key, PathFault { until: now + pause, pause });
    }

    /// Notes that a call on this path succeeded.
    pub(super) fn forget(&mut self, account: &str, path: &str) {
        if !self.0.is_empty() {
            self.0.remove(&(account.to_owned(), path.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_counts_as_faulty_for_ever_longer_up_to_ten_minutes_and_until_it_succeeds() {
        let (mut faults, mut now) = (PathFaults::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..11 {
            faults.note("shop", "/wxa/x", now);
            let mut pause = 0;
            while faults.contains("shop", "/wxa/x", now + Duration::from_secs(pause)) {
                pause += 1;
            }
            pauses.push(pause);
            now += Duration::from_secs(pause);
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]);
        assert!(!faults.contains("crm", "/wxa/x", now) && !faults.contains("shop", "/wxa/y", now));
        faults.forget("shop", "/wxa/x");
        faults.note("shop", "/wxa/x", now);
        assert!(!faults.contains("shop", "/wxa/x", now + FIRST_PAUSE));
    }

    #[test]
    fn at_most_512_paths_are_remembered() {
        let (mut faults, now) = (PathFaults::default(), Instant::now());
        for nth in 0..=MAX_PATHS {
            faults.note("shop", &format!("/{nth}"), now);
        }
        assert_eq!(faults.0.len(), MAX_PATHS);
        faults.note("shop", "/later", now + FIRST_PAUSE);
        assert_eq!(faults.0.len(), 1);
    }
}
