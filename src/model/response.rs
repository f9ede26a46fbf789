//! The JSON in which `get` and `serve` hand out a token or ticket. It has the shape of WeChat's answers; `expires_in` is the lifetime
//! promised.

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

/// Returns the response with its `expires_in` replaced by this lifetime, in whole seconds.
pub(crate) fn with_life(response: &[u8], life: Duration) -> Vec<u8> {
    // The last one in the response: nothing follows it, and a token that contains these words has its quotes escaped.
    const FIELD: &[u8] = br#""expires_in":"#;
    let field = response.windows(FIELD.len()).rposition(|window| window == FIELD);
    let head = &response[..field.map_or(0, |field| field + FIELD.len())];
    [head, life.as_secs().to_string().as_bytes(), b"}"].concat()
}

/// Returns a ticket and the lifetime promised, in whole seconds, as JSON without a trailing newline.
pub(crate) fn ticket(ticket: &Secret, life: Duration) -> String {
    let response = TicketResponse { ticket: ticket.expose(), expires_in: life.as_secs() };
    serde_json::to_string(&response).unwrap_or_default() // A string and a number always serialize.
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_and_a_ticket_are_answered_in_wechats_shape_and_in_whole_seconds() {
        let (secret, life) = (Secret::new("a\"b".to_owned()), Duration::from_millis(7_199_900));
        assert_eq!(token(&secret, life), r#"{"access_token":"a\"b","expires_in":7199}"#);
        assert_eq!(ticket(&secret, life), r#"{"ticket":"a\"b","expires_in":7199}"#);
    }

    #[test]
    fn a_response_can_promise_another_life() {
        let token = Secret::new(r#"a"expires_in":1\b"#.to_owned());
        let long = super::token(&token, Duration::from_secs(7200));
        let short = super::token(&token, Duration::from_secs(290));
        let shortened = with_life(long.as_bytes(), Duration::from_secs(290));
        assert_eq!(String::from_utf8(shortened), Ok(short));
    }
}
