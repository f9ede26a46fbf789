//! The tokens that were replaced lately. By these the gateway recognizes clients that still send such a token.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::UtcDateTime;

use super::RecordedTime;
use crate::model::client_key::opaque_token::TokenSeed;
use crate::model::document::whole_seconds;

/// How long a replaced token is recognized. No SDK caches a token for longer, whatever life was promised.
pub(crate) const CACHED_BY_SDKS: Duration = Duration::from_secs(2 * 60 * 60);

/// How many replaced tokens are kept: more than a healthy account has in that time.
pub(crate) const MAX_REPLACED: usize = 16;

/// The tokens that were replaced lately, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct ReplacedTokens(Vec<ReplacedToken>);

/// A token, as a hash, and the time when another was published in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ReplacedToken {
    token: String,
    /// By which the opaque tokens are recognized that were made of this token. `None` if only its hash was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seed: Option<TokenSeed>,
    at: RecordedTime,
}

impl ReplacedTokens {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns how many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Notes the token with this hash as replaced at `at`.
    pub(super) fn note(&mut self, token: String, seed: Option<TokenSeed>, at: UtcDateTime) {
        self.forget(&token);
        self.0.push(ReplacedToken { token, seed, at: RecordedTime(whole_seconds(at)) });
        let superfluous = self.0.len().saturating_sub(MAX_REPLACED);
        self.0.drain(..superfluous);
    }

    /// Forgets the token with this hash.
    pub(super) fn forget(&mut self, token: &str) {
        self.0.retain(|it| it.token != token);
    }

    /// Whether the token with this hash was replaced within [`CACHED_BY_SDKS`] before `now`.
    pub(super) fn contains(&self, token: &str, now: UtcDateTime) -> bool {
        self.recent(now).any(|it| it.token == token)
    }

    /// Returns the seeds of the tokens that were replaced within [`CACHED_BY_SDKS`] before `now`, the latest first.
    pub(super) fn seeds(&self, now: UtcDateTime) -> impl Iterator<Item = &TokenSeed> {
        self.recent(now).filter_map(|it| it.seed.as_ref())
    }

    fn recent(&self, now: UtcDateTime) -> impl Iterator<Item = &ReplacedToken> {
        self.0.iter().rev().filter(move |it| now - it.at.0 < CACHED_BY_SDKS)
    }

    /// Drops the tokens that are no longer recognized, and those from the future.
    pub(super) fn prune(&mut self, now: UtcDateTime) {
        self.0.retain(|it| it.at.is_within(CACHED_BY_SDKS, now));
    }
}
