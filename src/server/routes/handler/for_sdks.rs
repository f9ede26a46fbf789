//! What is handed out on WeChat's own routes, to SDKs that show by their requests alone that a token was rejected. A part
//! of [`RequestContext`].

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::header;
use hyper::http::request::Parts;
use tokio::time::Instant;

use super::jssdk::check_ticket_key;
use super::{RequestContext, scope};
use crate::model::response;
use crate::model::secret::Secret;
use crate::model::status::{LiveToken, Suspicion, TokenDemand, TokenEvidence, Unavailable};
use crate::server::access::keys::{self, Key};
use crate::server::access::retry_storm::{ClientId, SUSPICIOUS_INTERVAL};
use crate::server::gateway::admission::path::split_account;
use crate::server::routes::body::{self, RequestBody};
use crate::server::routes::rejection::{Challenge, Rejection, TOO_FREQUENT, text};
use crate::server::routes::sdk::{
    self, SdkRoute, SdkTicketRequest, SdkTokenRequest, TOO_FREQUENT_WORDS,
};
use crate::server::routes::without_extra_slashes;

// What ends the retry loop of an SDK: no SDK retries after this errcode.

/// The token is honoured.
const LOOPS_WITH_HONOURED: Rejection =
    Rejection::WeChat(TOO_FREQUENT, TOO_FREQUENT_WORDS, text::LOOPS_WITH_HONOURED);

/// WeChat could not be asked.
const LOOPS_IN_DOUBT: Rejection =
    Rejection::WeChat(TOO_FREQUENT, TOO_FREQUENT_WORDS, text::LOOPS_IN_DOUBT);

/// This server does not ask WeChat.
const LOOPS_WITHOUT_REFRESH: Rejection =
    Rejection::WeChat(TOO_FREQUENT, TOO_FREQUENT_WORDS, text::LOOPS_WITHOUT_REFRESH);

impl RequestContext<'_> {
    /// Answers one of WeChat's own routes.
    pub(super) async fn answer_sdk(
        self,
        route: SdkRoute,
        head: &Parts,
        body: &mut RequestBody<'_>,
    ) -> Result<Bytes, Rejection> {
        let asked_at = self.now();
        match self.hand_out(route, head, body).await {
            Err(Rejection::NoToken(unavailable) | Rejection::NoTicket(unavailable))
                if self.note_failure(asked_at) =>
            {
                Err(Rejection::TooFrequent(unavailable))
            }
            answer => answer,
        }
    }

    /// Notes a request that gets no token. Returns whether the client asks in a loop.
    fn note_failure(self, asked_at: Instant) -> bool {
        let client = (self.client.network_id(), self.key_name.get().cloned());
        self.state.storms.borrow_mut().note_failure(client, asked_at, self.now())
    }

    fn now(self) -> Instant {
        self.state.clock.instant().into()
    }

    async fn hand_out(
        self,
        route: SdkRoute,
        head: &Parts,
        body: &mut RequestBody<'_>,
    ) -> Result<Bytes, Rejection> {
        let query = head.uri.query().unwrap_or_default();
        let path = without_extra_slashes(head.uri.path());
        let named = split_account(&path).map(|(account, _)| account);
        let request = match route {
            SdkRoute::Token => SdkTokenRequest::parse_token(query)?,
            SdkRoute::StableToken => SdkTokenRequest::parse_stable_token(&body::read(body).await?)?,
            SdkRoute::GetToken => SdkTokenRequest::parse_gettoken(query)?,
            SdkRoute::GetTicket => {
                return self.sdk_ticket(SdkTicketRequest::parse(query)?, named).await;
            }
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
        self.check_token_key(key)?;
        let account = self.find_by_appid(&request.appid, named, route, key)?;
        let token = self.sdk_token(account, key, request.force).await?;
        let token = self.handed_out(account, key, token)?;
        let json = match self.snapshot.sdk_life {
            Some(life) if life < token.life => response::with_life(&token.json, life).into(),
            _ => token.json,
        };
        Ok(match route {
            SdkRoute::GetToken => sdk::with_errcode_zero(&json),
            _ => json,
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
            network: self.client.network_id(),
            key: key.map(|key| Arc::clone(&key.name)),
        };
        // Where SDKs are told a shorter life, they ask again in time for a token that has died.
        let within = self.snapshot.sdk_life.map_or(SUSPICIOUS_INTERVAL, |_| Duration::MAX);
        let Some(token) = self.accounts().token(account) else {
            // A token that was waited for is new.
            let token = self.token(account).await?;
            self.state.storms.borrow_mut().note_handout(&client, &token, within, self.now());
            return Ok(token);
        };
        let now = self.now();
        let is_suspicious =
            self.state.storms.borrow_mut().note_handout(&client, &token, within, now);
        let loops_since = self.loops.and_then(|loops| {
            let evidence = self.accounts().evidence(account).unwrap_or(TokenEvidence::None);
            loops.borrow_mut().note(&client, &token, evidence, now)
        });
        let suspicion = match (force || loops_since.is_some(), is_suspicious) {
            (true, _) => Some(Suspicion::Insists),
            (false, true) => Some(Suspicion::AsksAgain),
            (false, false) => None,
        };
        let verified = match suspicion.filter(|_| self.accounts().can_refresh()) {
            Some(suspicion) => {
                let demand =
                    TokenDemand::Verified(self.client(key.map(|key| &key.name)), suspicion);
                self.obtain(account, demand).await?
            }
            None => token.clone(),
        };
        if verified.generation != token.generation {
            self.state.storms.borrow_mut().record_replacement(&client, &verified, self.now());
        } else if let (Some(loops), Some(since)) = (self.loops, loops_since)
            && let Some(end) = self.end_of_loop(account, since)
        {
            loops.borrow_mut().end();
            return Err(end);
        }
        Ok(verified)
    }

    /// Returns what ends a loop that began at `since`; `None` if nothing proves that it is one, and no client that asks with
    /// each of its calls.
    fn end_of_loop(self, account: usize, since: Instant) -> Option<Rejection> {
        match self.accounts().evidence(account) {
            Some(TokenEvidence::Honoured(at)) if Instant::from(at) >= since => {
                Some(LOOPS_WITH_HONOURED)
            }
            Some(TokenEvidence::Honoured(_) | TokenEvidence::None) => None,
            Some(TokenEvidence::InDoubt) => Some(LOOPS_IN_DOUBT),
            None => Some(LOOPS_WITHOUT_REFRESH),
        }
    }

    /// Returns a ticket for a client that presents the account's token instead of a key.
    async fn sdk_ticket(
        self,
        request: SdkTicketRequest,
        named: Option<&str>,
    ) -> Result<Bytes, Rejection> {
        let is_named =
            |account: &usize| named.is_none_or(|named| named == self.accounts().names()[*account]);
        let holder = self.holder_of(&request.access_token)?.filter(is_named);
        let account = holder
            .ok_or_else(|| Rejection::NoToken(Unavailable::for_now(text::NOT_THE_CURRENT_TOKEN)))?;
        self.check_account(account)?;
        let ticket = self.ticket(account, &request.kind).await?;
        Ok(sdk::with_errcode_zero(&ticket))
    }

    /// Returns the account whose live token this is, or was a moment ago, as it is handed out.
    fn holder_of(self, token: &Secret) -> Result<Option<usize>, Rejection> {
        let access = &self.snapshot.access;
        let Some(opened) = access.open_opaque(token.expose(), self.accounts()) else {
            let holder = self.accounts().holder_of(token.expose());
            return Ok(holder.filter(|_| !access.hands_out_opaque()));
        };
        self.key_name.get_or_init(|| Arc::clone(&opened.key.name));
        check_ticket_key(Some(opened.key))?;
        let Some(own) = opened.token else { return Ok(None) };
        let holder = self.accounts().holder_of(own.expose());
        Ok(holder.filter(|account| *account == opened.account))
    }

    /// Returns the account with this AppID that the client may see, and that the path names if it names one; of several, the
    /// one on the API of the route.
    fn find_by_appid(
        self,
        appid: &str,
        named: Option<&str>,
        route: SdkRoute,
        key: Option<&Key>,
    ) -> Result<usize, Rejection> {
        let accounts = self.accounts();
        let mut found = accounts.with_appid(appid);
        found.retain(|account| {
            let name = &accounts.names()[*account];
            scope(key).contains(name) && named.is_none_or(|named| named == name)
        });
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
        Ok(keys::single_account(allowed)?)
    }
}
