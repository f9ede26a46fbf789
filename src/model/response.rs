//! The JSON in which `get` and `serve` hand out a token or ticket. The same as WeChat's, with the lifetime promised.

use std::time::Duration;

use serde::Serialize;

use crate::model::secret::Secret;

#[derive(Serialize)]
struct TokenResponse<'a> {
    access_token: &'a str,
    expires_in: u64,
}

#[derive(Serialize)]
struct TicketResponse<'a> {
    ticket: &'a str,
    expires_in: u64,
}

/// Returns a token and the lifetime promised, in whole seconds, as JSON without a trailing newline.
pub(crate) fn token(token: &Secret, life: Duration) -> String {
    let response = TokenResponse { access_token: token.expose(), expires_in: life.as_secs() };
    serde_json::to_string(&response).unwrap_or_default() // A string and a number always serialize.
}

/// Returns a ticket in the same way.
pub(crate) fn ticket(ticket: &Secret, life: Duration) -> String {
    let response = TicketResponse { ticket: ticket.expose(), expires_in: life.as_secs() };
    serde_json::to_string(&response).unwrap_or_default() // A string and a number always serialize.
}
