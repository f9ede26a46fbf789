//! What is handed out on WeChat's own routes, to SDKs that show by their requests alone that a token was rejected. A part
//! of [`RequestContext`].

use std::sync::Arc;

use hyper::body::Bytes;
use hyper::header;
use hyper::http::request::Parts;

use super::{RequestContext, check_token_key, scope};
use crate::model::status::{LiveToken, TokenDemand, Unavailable};
use crate::server::access::keys::{self, Key};
use crate::server::access::retry_storm::ClientId;
use crate::server::routes::body::{self, RequestBody};
use crate::server::routes::rejection::{Challenge, Rejection, TOO_FREQUENT};
use crate::server::routes::sdk::{self, SdkRoute, SdkTicketRequest, SdkTokenRequest};

// What ends the retry loop of an SDK: no SDK retries after this errcode.

/// The token is honoured.
const LOOPS_WITH_HONOURED: Rejection = Rejection::WeChat(
    TOO_FREQUENT,
    "api minute-quota reach limit, must slower, retry next minute: this is wxtoken; WeChat honours the token that you \
     were handed and keep coming back with, so its refusal has another reason",
);

/// WeChat could not be asked.
const LOOPS_WITH_UNKNOWN: Rejection = Rejection::WeChat(
    TOO_FREQUENT,
    "api minute-quota reach limit, must slower, retry next minute: this is wxtoken; you keep coming back with the token \
     that you were handed, and WeChat could not be asked whether it is honoured; if WeChat rejects it, say so with POST \
     /token, or on the server with `wxtoken fetch --rejected -`",
);

/// This server does not ask WeChat.
const LOOPS_WITHOUT_REFRESH: Rejection = Rejection::WeChat(
    TOO_FREQUENT,
    "api minute-quota reach limit, must slower, retry next minute: this is wxtoken; you keep coming back with the token \
     that you were handed, and this server does not ask WeChat whether it is honoured; if WeChat rejects it, say so on the \
     host that fetches, with `wxtoken fetch --rejected -`",
);

impl RequestContext<'_> {
    /// Answers one of WeChat's own routes.
    pub(super) async fn answer_sdk(
        self,
        route: SdkRoute,
        head: &Parts,
        body: &mut RequestBody<'_>,
    ) -> Result<Bytes, Rejection> {
        let query = head.uri.query().unwrap_or_default();
        let request = match route {
            SdkRoute::Token => SdkTokenRequest::parse_token(query)?,
            SdkRoute::StableToken => SdkTokenRequest::parse_stable_token(&body::read(body).await?)?,
            SdkRoute::GetToken => SdkTokenRequest::parse_gettoken(query)?,
            SdkRoute::GetTicket => return self.sdk_ticket(SdkTicketRequest::parse(query)?).await,
        };
        let key = match (&self.snapshot.access.keys, request.key()) {
            (None, _) => None,
            (Some(keys), Ok(key)) => {
                Some(self.find_key(keys, key.expose().as_bytes(), Challenge::Bearer)?)
            }
            (Some(_), Err(missing)) if !head.headers.contains_key(header::AUTHORIZATION) => {
                return Err(missing);
            }
            (Some(_), Err(_)) => self.key(&head.headers, Challenge::Bearer)?,
        };
        check_token_key(key)?;
        let account = self.find_by_appid(&request.appid, route, key)?;
        let token = self.sdk_token(account, key, request.force).await?;
        Ok(match route {
            SdkRoute::GetToken => sdk::with_errcode_zero(&token.json),
            _ => token.json,
        })
    }

    /// Returns a token for a client that reports a rejected token only by asking again.
    async fn sdk_token(
        self,
        account: usize,
        key: Option<&Key>,
        force: bool,
    ) -> Result<LiveToken, Rejection> {
        let client = ClientId {
            account: self.accounts().names()[account].clone(),
            peer: self.client,
            key: key.map(|key| Arc::clone(&key.name)),
        };
        let token = self.token(account).await?;
        let now = || self.state.clock.instant().into();
        let is_suspicious = self.state.storms.borrow_mut().is_suspicious(&client, &token, now());
        let is_loop =
            self.loops.is_some_and(|loops| loops.borrow_mut().note(&client, &token, now()));
        let is_verified = (force || is_suspicious || is_loop) && self.accounts().can_refresh();
        let verified = match is_verified {
            true => self.obtain(account, TokenDemand::Verified(self.client(key))).await?,
            false => token.clone(),
        };
        if verified.generation != token.generation {
            self.state.storms.borrow_mut().record_replacement(&client, &verified, now());
        } else if is_loop {
            return Err(match self.accounts().is_honoured(account) {
                Some(true) => LOOPS_WITH_HONOURED,
                Some(false) => LOOPS_WITH_UNKNOWN,
                None => LOOPS_WITHOUT_REFRESH,
            });
        }
        Ok(verified)
    }

    /// Returns a ticket for a client that presents the account's token instead of a key.
    async fn sdk_ticket(self, request: SdkTicketRequest) -> Result<Bytes, Rejection> {
        let account = self.accounts().holder_of(request.access_token.expose()).ok_or_else(|| {
            let why = "this access_token is none that is handed out here now; ask /cgi-bin/token for it again";
            Rejection::NoToken(Unavailable::for_now(why))
        })?;
        self.check_account(account)?;
        let ticket = self.ticket(account, &request.kind).await?;
        Ok(sdk::with_errcode_zero(&ticket))
    }

    /// Returns the account with this AppID that the client may see; of several, the one on the API of the route.
    fn find_by_appid(
        self,
        appid: &str,
        route: SdkRoute,
        key: Option<&Key>,
    ) -> Result<usize, Rejection> {
        let accounts = self.accounts();
        let mut found = accounts.with_appid(appid);
        found.retain(|account| scope(key).contains(&accounts.names()[*account]));
        let (mut allowed, refused): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|account| self.check_account(*account).is_ok());
        if let ([], [refused, ..]) = (&*allowed, &*refused) {
            self.check_account(*refused)?;
        }
        if allowed.len() > 1 {
            allowed.retain(|account| route.api() == Some(accounts.api(*account)));
            if allowed.is_empty() {
                return Err(Rejection::WhichAccount);
            }
        }
        Ok(keys::single_account(&allowed)?)
    }
}
