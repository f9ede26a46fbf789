//! The shape in which a token is handed out, by `get` and over HTTP: WeChat's own, with the life that is left.

use std::time::Duration;

use serde::Serialize;

use crate::model::secret::Secret;

#[derive(Serialize)]
struct Token<'a> {
    access_token: &'a str,
    expires_in: u64,
}

#[derive(Serialize)]
struct Ticket<'a> {
    ticket: &'a str,
    expires_in: u64,
}

/// A token and the life promised with it, in whole seconds, as JSON without a line end.
pub(crate) fn token(token: &Secret, life: Duration) -> String {
    let token = Token { access_token: token.expose(), expires_in: life.as_secs() };
    serde_json::to_string(&token).unwrap_or_default() // A string and a number always serialize.
}

/// The same for a ticket.
pub(crate) fn ticket(ticket: &Secret, life: Duration) -> String {
    let ticket = Ticket { ticket: ticket.expose(), expires_in: life.as_secs() };
    serde_json::to_string(&ticket).unwrap_or_default() // A string and a number always serialize.
}
