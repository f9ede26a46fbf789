//! An account's ticket: the same story as a token's, told with a source that shows the published token. Where WeChat says
//! that this one is dead, another is published first, once.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::{Failure, Outcome, Refresh, Want};
use crate::log::debug;
use crate::model::api::Rules;
use crate::model::document::Document;
use crate::model::kind::TicketType;
use crate::model::secret::Secret;
use crate::store::{Found, Store};
use crate::upstream::{IssuedToken, RefreshMode, TicketSource, TokenSource, UpstreamError};

/// A ticket's refresh, beside that of the token which it needs.
pub(crate) struct TicketRefresh<'a> {
    pub(crate) kind: &'a TicketType,
    /// Where people find its document.
    pub(crate) place: &'a str,
    /// How the account's token is refreshed.
    pub(crate) token: Refresh<'a>,
    pub(crate) upstream: &'a dyn TicketSource,
    /// Where the ticket is published.
    pub(crate) store: &'a dyn Store,
    /// Whether a dead token is replaced here; else that is what the failure says.
    pub(crate) heals: bool,
    /// Set when another token was published on the way, whatever becomes of the ticket.
    pub(crate) has_renewed: Cell<bool>,
}

impl TicketRefresh<'_> {
    /// Sees to it that a ticket is published that is not due, by `deadline`.
    pub(crate) fn run(&self, deadline: Instant) -> Result<Outcome, Failure> {
        if let Found::Document(document) = self.store.read()?
            && self.token.owns(&document)
            && !self.is_due(&document)
        {
            return Ok(Outcome::Kept(document));
        }
        let source = WithToken { ticket: self, deadline, has_healed: Cell::new(false) };
        let refresh = Refresh {
            // Asking kills nothing, and the same ticket again does not live longer for it: as on work.
            rules: Rules::Work,
            place: self.place,
            source: &source,
            store: self.store,
            ..self.token
        };
        refresh.run(&Want::Live, deadline)
    }

    fn is_due(&self, document: &Document) -> bool {
        let margin = document.ticket_margin(self.token.refresh_before);
        document.is_due(self.token.clock.now(), margin)
    }
}

/// Asks for a ticket with the token that is published.
struct WithToken<'a> {
    ticket: &'a TicketRefresh<'a>,
    deadline: Instant,
    has_healed: Cell<bool>,
}

impl TokenSource for WithToken<'_> {
    fn request_token(
        &self,
        _: RefreshMode,
        timeout: Duration,
    ) -> Result<IssuedToken, UpstreamError> {
        let &TicketRefresh { kind, token: ref refresh, upstream, heals, .. } = self.ticket;
        let token = self.token()?;
        let err = match upstream.request_ticket(kind, &token, timeout) {
            Err(err) if err.is_dead_token() && heals && !self.has_healed.replace(true) => err,
            answer => return answer,
        };
        debug!("{}: for the {kind} ticket WeChat says that the token is dead", refresh.name);
        let healed = refresh.run(&Want::NotThis(token.clone()), self.deadline);
        if let Ok(Outcome::Renewed(_)) = healed {
            self.ticket.has_renewed.set(true);
        }
        match healed {
            Ok(Outcome::Kept(document) | Outcome::Renewed(document)) => {
                let left = refresh.clock.until(self.deadline);
                upstream.request_ticket(kind, &document.token, timeout.min(left))
            }
            // The dead one again.
            Ok(Outcome::Confirmed(_)) => Err(err),
            Err(Failure::Asking(why) | Failure::Lost { why, .. }) => Err(why),
            Err(failure) => {
                debug!("{}: another token cannot be published: {failure}", refresh.name);
                Err(err)
            }
        }
    }
}

impl WithToken<'_> {
    /// The published token, if it lives.
    fn token(&self) -> Result<Secret, UpstreamError> {
        let refresh = &self.ticket.token;
        match refresh.store.read() {
            Ok(Found::Document(document))
                if refresh.owns(&document) && !document.left(refresh.clock.now()).is_zero() =>
            {
                Ok(document.token)
            }
            _ => Err(UpstreamError::NoToken),
        }
    }
}
