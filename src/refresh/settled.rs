//! When no token has to be requested after all: another process got one meanwhile, or WeChat honours the published token.

use std::time::Instant;

use time::UtcDateTime;

use super::record::RecordSession;
use super::{Outcome, Refresh};
use crate::model::document::Document;
use crate::model::status::TokenRequest;
use crate::sabotage::{Bug, has_bug};
use crate::upstream::Liveness;

/// What follows for the published token before another one is requested.
pub(super) enum PublishedVerdict {
    /// It stays, and none is requested.
    Keep,
    /// WeChat says that it is dead.
    Dead,
    /// WeChat was not asked, or did not tell.
    Open,
}

impl Refresh<'_> {
    /// Returns the outcome if another process requested a token during the wait for the lock: `document` is published in place of
    /// `before` now, or was confirmed after `confirmed_before`. WeChat's answer to that process settles this request too, even if it is
    /// the same token again, or one that is due from the start.
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

    /// Asks WeChat about the published token if it is not due, or if it was reported as rejected.
    pub(super) fn verdict_before(
        &self,
        session: &mut RecordSession<'_>,
        document: &Document,
        request: &TokenRequest,
        deadline: Instant,
    ) -> PublishedVerdict {
        match request {
            // It is replaced only because another secret got it.
            TokenRequest::Live if self.is_fresh(document) && !has_bug(Bug::NoSecondLook) => {
                match session.verdict(document, deadline) {
                    Some(Liveness::Alive | Liveness::Unknown(_)) => PublishedVerdict::Keep,
                    Some(Liveness::Dead) => PublishedVerdict::Dead,
                    None => PublishedVerdict::Open,
                }
            }
            // The report may be wrong.
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
