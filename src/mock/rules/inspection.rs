//! What only WeChat knows, for simulations that judge by it what is handed out.

use super::{Duration, MockWeChat, Secret};

/// How many tokens of an account are looked at.
const RECENT: usize = 256;

impl MockWeChat {
    /// Returns when this token or ticket dies, or has died, as things stand now; `None` if it was
    /// never issued, or long ago.
    pub(crate) fn death_of(&self, token: &str) -> Option<Duration> {
        let mut histories = self.accounts.iter().flat_map(|account| {
            let tokens = [&account.classic, &account.stable, &account.wecom];
            tokens.into_iter().chain(account.tickets.values())
        });
        // The newest first: it is nearly always one of them. Those before so many died long ago.
        let found = histories
            .find_map(|it| it.0.iter().rev().take(RECENT).find(|it| it.text.expose() == token));
        found.map(|token| token.dies_at)
    }

    /// Replaces the AppSecret of every account, as an operator does in WeChat's console. Tokens stay as they are.
    pub(crate) fn set_secret(&mut self, secret: &str) {
        self.accounts.iter_mut().for_each(|it| it.secret = Secret::new(secret.to_owned()));
    }
}
