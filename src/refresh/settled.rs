//! What settles a request for a token before WeChat is asked for one: what another process did meanwhile, and what WeChat says of
//! the published token.

use std::time::Instant;

use time::UtcDateTime;

use super::record::RecordSession;
use super::{Outcome, Refresh};
use crate::model::document::Document;
use crate::model::status::TokenRequest;
use crate::sabotage::{Bug, has_bug};
use crate::upstream::Liveness;

/// What is known of the published token before another one is requested.
pub(super) enum PublishedVerdict {
    /// It stays.
    Keep,
    /// WeChat says that it is dead.
    Dead,
    /// WeChat was not asked, or could not be.
    Open,
}

impl Refresh<'_> {
    /// Returns the outcome if another process requested a token during the wait for the lock, after which `document` is published
    /// in place of `before`, or confirmed later than `confirmed_before`. WeChat's answer to it settles this request too, even if
    /// that is the same token again, or one that is due from the start.
    pub(super) fn settled_meanwhile(
        &self,
        document: &Document,
        before: Option<Document>,
        confirmed_before: Option<UtcDateTime>,
    ) -> Option<Outcome> {
        let is_settled = before.as_ref().is_none_or(|before| document.is_newer_answer_than(before))
            || self.store.confirmed_at() > confirmed_before;
        if !is_settled || document.left(self.clock.now()).is_zero() || has_bug(Bug::NoSecondLook) {
            return None;
        }
        let is_same = before.is_some_and(|before| before.token == document.token);
        let document = document.clone();
        Some(if is_same { Outcome::Confirmed(document) } else { Outcome::Kept(document) })
    }

    /// Has WeChat asked about the token of the published document where it is not due, or was reported.
    pub(super) fn verdict_before(
        &self,
        session: &mut RecordSession<'_>,
        document: &Document,
        request: &TokenRequest,
        deadline: Instant,
    ) -> PublishedVerdict {
        match request {
            // Another secret got it.
            TokenRequest::Live if self.is_fresh(document) && !has_bug(Bug::NoSecondLook) => {
                match session.verdict(document, deadline) {
                    Some(Liveness::Alive | Liveness::Unknown(_)) => PublishedVerdict::Keep,
                    Some(Liveness::Dead) => PublishedVerdict::Dead,
                    None => PublishedVerdict::Open,
                }
            }
            // Who reported it may be wrong.
            TokenRequest::OtherThan(_) if !document.left(self.clock.now()).is_zero() => {
                match session.verdict_on_report(document, deadline) {
                    Some(Liveness::Alive) => PublishedVerdict::Keep,
                    Some(Liveness::Dead) => PublishedVerdict::Dead,
                    Some(Liveness::Unknown(_)) | None => PublishedVerdict::Open,
                }
            }
            _ => PublishedVerdict::Open,
        }
    }
}
