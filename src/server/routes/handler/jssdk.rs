//! Signs pages for WeChat's JS-SDK. A part of [`RequestContext`].

use hyper::body::Bytes;
use hyper::http::request::Parts;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{GETTICKET, RequestContext};
use crate::model::jssdk::PageRequest;
use crate::model::secret::Secret;
use crate::model::status::Unavailable;
use crate::server::access::keys::Key;
use crate::server::routes::rejection::{Challenge, Rejection, text};

/// The ticket, as it is handed out.
#[derive(Deserialize)]
struct TicketBody {
    ticket: Zeroizing<String>,
}

/// Fails if the key is for some APIs only, and tickets are none of them.
pub(super) fn check_ticket_key(key: Option<&Key>) -> Result<(), Rejection> {
    match key.is_none_or(|key| key.apis.allows(GETTICKET)) {
        true => Ok(()),
        false => Err(Rejection::ForbiddenApi),
    }
}

impl RequestContext<'_> {
    /// Answers a page's request for a signature.
    pub(super) async fn sign_page(
        self,
        name: Option<&str>,
        head: &Parts,
    ) -> Result<Bytes, Rejection> {
        let key = self.key(&head.headers, Challenge::Bearer)?;
        check_ticket_key(key)?;
        let account = self.find(name, key)?;
        let request = parse(head.uri.query().unwrap_or_default())?;
        if request.check_api(self.accounts().api(account)).is_err() {
            return Err(Rejection::BadRequest(text::NO_AGENT_CONFIG));
        }
        let ticket = self.ticket(account, &request.ticket).await?;
        let clock = &self.state.clock;
        let now = clock.now();
        let appid = self.accounts().status(account, now).appid.filter(|appid| !appid.is_empty());
        let body = serde_json::from_slice::<TicketBody>(&ticket).ok();
        let (Some(appid), Some(TicketBody { ticket })) = (appid, body) else {
            return Err(Rejection::NoTicket(Unavailable::for_now(text::NO_APPID)));
        };
        let ticket = Secret::new(ticket.to_string());
        let random = [clock.random(), clock.random()];
        Ok(request.sign(&appid, &ticket, now.wall, random).into())
    }
}

/// Parses the query. Something unknown in it is the rest of a URL that was not encoded, whose signature would be wrong.
fn parse(query: &str) -> Result<PageRequest, Rejection> {
    let [mut url, mut ticket, mut agentid] = [const { None }; 3];
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let known = match &*name {
            "url" => &mut url,
            "type" => &mut ticket,
            "agentid" => &mut agentid,
            _ => return Err(Rejection::BadRequest(text::UNKNOWN_PARAMETER)),
        };
        if known.replace(value).is_some() {
            return Err(Rejection::BadRequest(text::UNKNOWN_PARAMETER));
        }
    }
    let [url, ticket, agentid] = [url, ticket, agentid].map(Option::unwrap_or_default);
    PageRequest::parse(&url, &ticket, &agentid).map_err(Rejection::BadRequest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_was_not_encoded_is_refused_and_not_signed_in_part() {
        assert!(parse("url=https%3A%2F%2Fshop.example%2F%3Fa%3D1%26b%3D2").is_ok());
        assert!(parse("url=https://shop.example/?a=1").is_ok(), "nothing of it is lost");
        assert!(parse("url=https%3A%2F%2Fshop.example&agentid=1000002").is_ok());
        for query in [
            "",
            "url=",
            "url=https://shop.example/?a=1&b=2",
            "url=https://shop.example/?a=1&url=2",
            "url=https://shop.example/a+b",
            "url=https%3A%2F%2Fshop.example%2F%FF",
            "uri=https%3A%2F%2Fshop.example",
        ] {
            assert!(matches!(parse(query), Err(Rejection::BadRequest(_))), "{query}");
        }
    }
}
