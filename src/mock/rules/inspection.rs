//! What only WeChat knows, for simulations that judge by it what is handed out.

use super::{Duration, MockWeChat, Secret, TokenHistory};

/// How many tokens of an account are looked at.
const RECENT: usize = 256;

/// How many of them are looked at first, of each kind: it is nearly always one of these.
const NEWEST: usize = 3;

impl MockWeChat {
    /// Returns when this token or ticket dies, or has died, as things stand now; `None` if it was
    /// never issued, or long ago.
    pub(crate) fn death_of(&self, token: &str) -> Option<Duration> {
        let find = |skipped: usize, looked_at: usize| {
            for account in &self.accounts {
                let tokens = [&account.classic, &account.stable, &account.wecom];
                for TokenHistory(history) in tokens.into_iter().chain(account.tickets.values()) {
                    let end = history.len().saturating_sub(skipped);
                    let mut newest = history.range(end.saturating_sub(looked_at)..end).rev();
                    if let Some(found) = newest.find(|it| it.text.expose() == token) {
                        return Some(found.dies_at);
                    }
                }
            }
            None
        };
        // Those before so many died long ago.
        find(0, NEWEST).or_else(|| find(NEWEST, RECENT - NEWEST))
    }

    /// Replaces the AppSecret of every account, as an operator does in WeChat's console. Tokens stay as they are.
    pub(crate) fn set_secret(&mut self, secret: &str) {
        self.accounts.iter_mut().for_each(|it| it.secret = Secret::new(secret.to_owned()));
    }
}
