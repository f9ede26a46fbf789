//! Refreshes a ticket: like a token, from a source that authorizes each request with the published token. If WeChat says
//! that this token is dead, another one is published first, once.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::{Outcome, RecordContext, Refresh, RefreshError};
use crate::log::debug;
use crate::model::account;
use crate::model::api::Rules;
use crate::model::document::Document;
use crate::model::kind::TicketType;
use crate::model::secret::Secret;
use crate::model::status::TokenRequest;
use crate::store::{Found, Store};
use crate::upstream::{IssuedToken, RefreshMode, TicketSource, TokenSource, UpstreamError};

/// The refresh of one ticket.
pub(crate) struct TicketRefresh<'a> {
    pub(crate) kind: &'a TicketType,
    /// The ticket's place, for messages.
    pub(crate) place: &'a str,
    /// The refresh of the account's token.
    pub(crate) token: Refresh<'a>,
    pub(crate) upstream: &'a dyn TicketSource,
    /// Where the ticket is published.
    pub(crate) store: &'a dyn Store,
    /// Whether a dead token is replaced here. If not, the error says that it is dead.
    pub(crate) replaces_dead_token: bool,
    /// Whether another token was published on the way, whatever becomes of the ticket.
    pub(crate) has_renewed_token: Cell<bool>,
}

impl TicketRefresh<'_> {
    /// Publishes a ticket by `deadline`, unless one is published that is not due.
    pub(crate) fn run(&self, deadline: Instant) -> Result<Outcome, RefreshError> {
        if let Found::Document(document) = self.store.read()?
            && account::owns(self.token.appid, &document)
            && !self.is_due(&document)
        {
            self.store.clean_up();
            return Ok(Outcome::Kept(document));
        }
        let source = AuthorizedSource { ticket: self, deadline, has_replaced: Cell::new(false) };
        let refresh = Refresh {
            rules: Rules::OF_TICKETS,
            place: self.place,
            source: &source,
            store: self.store,
            record: self.token.record.map(|it| RecordContext { is_of_token: false, ..it }),
            dead: None,
            ..self.token
        };
        refresh.run(&TokenRequest::Live, deadline)
    }

    fn is_due(&self, document: &Document) -> bool {
        let margin = document.ticket_margin(self.token.refresh_before);
        document.is_due(self.token.clock.now(), Rules::OF_TICKETS, margin)
    }
}

/// Requests the ticket with the published token.
struct AuthorizedSource<'a> {
    ticket: &'a TicketRefresh<'a>,
    deadline: Instant,
    has_replaced: Cell<bool>,
}

impl TokenSource for AuthorizedSource<'_> {
    fn prepare(&self) -> anyhow::Result<()> {
        self.ticket.token.source.prepare()
    }

    fn request_token(
        &self,
        _: RefreshMode,
        timeout: Duration,
    ) -> Result<IssuedToken, UpstreamError> {
        let TicketRefresh { kind, token: refresh, upstream, .. } = self.ticket;
        let token = self.token()?;
        let err = match upstream.request_ticket(kind, &token, timeout) {
            Err(err)
                if err.is_dead_token()
                    && self.ticket.replaces_dead_token
                    && !self.has_replaced.replace(true) =>
            {
                err
            }
            result => return result,
        };
        debug!("{}: for the {kind} ticket WeChat says that the token is dead", refresh.name);
        let replaced = refresh.run(&TokenRequest::OtherThan(token), self.deadline);
        if let Ok(Outcome::Renewed(_)) = replaced {
            self.ticket.has_renewed_token.set(true);
        }
        match replaced {
            Ok(Outcome::Kept(document) | Outcome::Renewed(document)) => {
                let left = refresh.clock.until(self.deadline);
                upstream.request_ticket(kind, &document.token, timeout.min(left))
            }
            // The dead token was issued again.
            Ok(Outcome::Confirmed(_)) => Err(err),
            Err(RefreshError::Upstream(error) | RefreshError::AnswerLost { error, .. }) => {
                Err(error)
            }
            Err(failure) => {
                debug!("{}: another token cannot be published: {failure}", refresh.name);
                Err(err)
            }
        }
    }
}

impl AuthorizedSource<'_> {
    /// Returns the published token, if it lives and belongs to the account.
    fn token(&self) -> Result<Secret, UpstreamError> {
        let refresh = &self.ticket.token;
        match refresh.store.read() {
            Ok(Found::Document(document))
                if account::owns(refresh.appid, &document)
                    && !document.left(refresh.clock.now()).is_zero() =>
            {
                Ok(document.token)
            }
            _ => Err(UpstreamError::NoToken),
        }
    }
}
