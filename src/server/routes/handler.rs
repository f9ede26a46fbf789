//! One request, from its head to what is answered: the checks in their order, and then the route. Knows nothing of
//! connections.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::sync::Arc;

use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, StatusCode};
use time::UtcDateTime;

use super::body::{self, RequestBody};
use super::metrics;
use super::page;
use super::response::{self, Challenge, Rejection, Reply};
use super::route::{self, Route};
use super::sdk::{self, Asked, AskedTicket, Compatible};
use crate::accounts::Accounts;
use crate::log;
use crate::model::kind::TicketType;
use crate::model::status::{AccountStatus, NoTicket, Token, TokenRequest, Unavailable};
use crate::server::access::forwarded::{self, ClientAddress};
use crate::server::access::keys::{self, AccountScope, Key, Keys};
use crate::server::access::peer::{ConnectionInfo, Peer};
use crate::server::access::retry_storm::{ClientId, RetryDecision};
use crate::server::state::ServerState;
use crate::server::state::Snapshot;

/// How much of a host is shown in a line: all of a real one.
const LONGEST_HOST_SHOWN: usize = 60; // characters

const NO_KEY: &str = "a key is needed here: send Authorization: Bearer KEY; on the server, `wxtoken key NAME` makes one";
const NOT_A_KEY: &str =
    "this key is not in the server's keys file; was it copied whole, and was it taken out?";

/// What ends an SDK's loop: a code that no SDK asks again after.
const CALM_DOWN: Rejection = Rejection::WeChat(
    response::CALM_DOWN,
    "api minute-quota reach limit, must slower, retry next minute: this is wxtoken; WeChat honours the token that you \
     were handed and keep coming back with, so its refusal has another reason",
);

/// What came of a request, and who had made it.
pub(crate) struct Answered {
    pub(crate) client: Peer,
    /// What the key is called that was shown.
    pub(crate) key: Option<Arc<str>>,
    pub(crate) answer: Result<Reply, Rejection>,
}

/// Somebody whose address is good.
#[derive(Clone, Copy)]
struct Visitor<'a> {
    client: Peer,
    snapshot: &'a Snapshot,
    state: &'a ServerState,
    /// What the key is called that he has shown.
    key_name: &'a OnceCell<Arc<str>>,
}

/// Answers a request; in an error `body` may be unread.
pub(crate) async fn answer(
    head: &Parts,
    body: &mut RequestBody<'_>,
    connection: ConnectionInfo,
    state: &ServerState,
) -> Answered {
    // One state of it for the whole request, whatever changes meanwhile.
    let snapshot = state.snapshot.get();
    let Snapshot { access, accounts } = &*snapshot;
    let route = Route::of(head.uri.path());
    let mut client = ClientAddress::Direct(connection.peer);
    let key_name = OnceCell::new();
    let answer = async {
        client = forwarded::client_address(&head.headers, connection.peer, &access.proxies)?;
        if let Peer::Ip(ip) = client.peer()
            && !access.allow.contains(ip)
        {
            return Err(Rejection::Forbidden(ip));
        }
        // A proxy has its own names, and no page in a browser comes through it by rebinding ours.
        let is_direct = matches!(client, ClientAddress::Direct(_));
        route::check_host(head, connection.is_to_loopback && is_direct)?;
        route::check_body(&body)?;
        let route = route.clone()?;
        route.check_method(&head.method, accounts.can_refresh())?;
        let visitor =
            Visitor { client: client.peer(), snapshot: &snapshot, state, key_name: &key_name };
        visitor.visit(route, head, body).await
    }
    .await;
    let counts = &state.counters;
    if let Err(rejection) = &answer {
        counts.refused(rejection.error());
        tell_operator(rejection, &head.headers, client, connection.peer, state);
    }
    let client = client.peer();
    let answer = match (&route, &answer) {
        (Ok(Route::Compatible(_)), Err(rejection)) => match sdk::refusal(rejection, client) {
            Some(refusal) => Ok(Reply::Json(refusal)),
            None => answer,
        },
        _ => answer,
    };
    let status = answer.as_ref().map_or_else(Rejection::status, |_| StatusCode::OK);
    counts.answered(route.map_or(route::NO_ROUTE, Route::label), status);
    Answered { client, key: key_name.into_inner(), answer }
}

/// Lets the operator know of a rejection that may be an attack, or a proxy in the way.
fn tell_operator(
    rejection: &Rejection,
    headers: &HeaderMap,
    client: ClientAddress,
    peer: Peer,
    state: &ServerState,
) {
    let why = match rejection {
        Rejection::Forbidden(_) => Cow::Borrowed("not in --allow"),
        Rejection::ForbiddenAccount(_) => {
            Cow::Borrowed("not in the allow of the account that it asked for")
        }
        Rejection::Forwarded(why) => Cow::Borrowed(*why),
        Rejection::Unauthorized(NOT_A_KEY, _) => {
            Cow::Borrowed("it showed a key that is not in the keys file")
        }
        Rejection::Misdirected => {
            let host = headers.get(header::HOST).map_or(&b""[..], HeaderValue::as_bytes);
            // A client that is set up wrongly may have its key there.
            let host = log::without_long_words(&String::from_utf8_lossy(host));
            let host = log::printable(&host, LONGEST_HOST_SHOWN);
            Cow::Owned(format!("it asked a loopback address for host {host}"))
        }
        _ => return,
    };
    let now = state.clock.instant().into();
    match client {
        ClientAddress::Direct(peer) => state.log.refused(now, peer, why),
        ClientAddress::Forwarded(ip) => {
            state.log.refused(now, format_args!("{ip} through {peer}"), why)
        }
    }
}

impl<'a> Visitor<'a> {
    async fn visit(
        self,
        route: Route<'_>,
        head: &Parts,
        body: &mut RequestBody<'_>,
    ) -> Result<Reply, Rejection> {
        if let Route::Compatible(compatible) = route {
            return self.compatible(compatible, head, body).await.map(Reply::Json);
        }
        let key = match route {
            route if route.is_open() => None,
            // Of all routes, this one is for people.
            Route::Page => self.key_of(&head.headers, Challenge::Basic)?,
            _ => self.key_of(&head.headers, Challenge::Bearer)?,
        };
        let now = self.state.clock.now();
        match route {
            Route::Health => Ok(Reply::OK),
            Route::Ready => self.ready(now),
            Route::Page => Ok(Reply::Page(page::html(&self.statuses(key, now), now))),
            Route::Metrics => {
                Ok(Reply::Metrics(metrics::text(&self.statuses(key, now), self.state)))
            }
            Route::Token(name) => {
                let account = self.find(name, key)?;
                let token = if head.method == Method::POST {
                    let rejected = body::rejected(&body::read(body).await?)?;
                    self.obtain(account, TokenRequest::OtherThan(rejected)).await?
                } else {
                    self.token(account).await?
                };
                Ok(Reply::Json(token.json))
            }
            Route::Ticket(name, kind) => {
                let account = self.find(name, key)?;
                let kind = TicketType::parse(kind).ok_or(Rejection::NotFound)?;
                self.ticket(account, &kind).await.map(Reply::Json)
            }
            Route::Compatible(_) => unreachable!("answered above"),
        }
    }

    /// The key that the visitor shows; `None` where none is asked for.
    fn key_of(
        self,
        headers: &HeaderMap,
        challenge: Challenge,
    ) -> Result<Option<&'a Key>, Rejection> {
        let Some(keys) = &self.snapshot.access.keys else { return Ok(None) };
        let shown =
            keys::presented_key(headers)?.ok_or(Rejection::Unauthorized(NO_KEY, challenge))?;
        self.known(keys, &shown, challenge).map(Some)
    }

    /// The key that was shown, if it is one.
    fn known(
        self,
        keys: &'a Keys,
        shown: &[u8],
        challenge: Challenge,
    ) -> Result<&'a Key, Rejection> {
        let key = keys.find(shown).ok_or(Rejection::Unauthorized(NOT_A_KEY, challenge))?;
        self.key_name.get_or_init(|| Arc::clone(&key.name));
        Ok(key)
    }

    fn accounts(self) -> &'a Accounts {
        &self.snapshot.accounts
    }

    /// The account of this name among those that the key may see; the only one that is for this client, if none is named.
    fn find(self, name: Option<&str>, key: Option<&Key>) -> Result<usize, Rejection> {
        match name {
            Some(name) => {
                let account = scope(key).find(self.accounts().names(), name)?;
                self.let_to(account)
            }
            None => Ok(keys::single_account(&self.visible(key))?),
        }
    }

    /// The account, if it is for clients at this address.
    fn let_to(self, account: usize) -> Result<usize, Rejection> {
        match self.client {
            Peer::Ip(ip) if !self.snapshot.access.allows_account(self.client, account) => {
                Err(Rejection::ForbiddenAccount(ip))
            }
            _ => Ok(account),
        }
    }

    /// The accounts that the key may see, and that are for this client.
    fn visible(self, key: Option<&Key>) -> Vec<usize> {
        let mut visible = scope(key).indices(self.accounts().names());
        visible.retain(|account| self.snapshot.access.allows_account(self.client, *account));
        visible
    }

    /// The status of each of them.
    fn statuses(self, key: Option<&Key>, now: UtcDateTime) -> Vec<AccountStatus> {
        self.visible(key).into_iter().map(|it| self.accounts().status(it, now)).collect()
    }

    /// The account with this AppID that the key may see, and that is for this client; of several, the one on the API that
    /// the route is of.
    fn find_by_appid(
        self,
        appid: &str,
        route: Compatible,
        key: Option<&Key>,
    ) -> Result<usize, Rejection> {
        let tokens = self.accounts();
        let mut accounts = tokens.with_appid(appid);
        accounts.retain(|account| scope(key).contains(&tokens.names()[*account]));
        let known = accounts.clone();
        accounts.retain(|account| self.let_to(*account).is_ok());
        if let ([], [refused, ..]) = (&*accounts, &*known) {
            return self.let_to(*refused);
        }
        if accounts.len() > 1 {
            accounts.retain(|account| route.api() == Some(tokens.api(*account)));
            if accounts.is_empty() {
                return Err(Rejection::WhichAccount);
            }
        }
        Ok(keys::single_account(&accounts)?)
    }

    /// Whether all accounts have a live token, those that are not for this client included.
    fn ready(self, now: UtcDateTime) -> Result<Reply, Rejection> {
        let (accounts, access) = (self.accounts(), &self.snapshot.access);
        let statuses = (0..accounts.names().len()).map(|it| (it, accounts.status(it, now)));
        let mut waiting: Vec<_> = statuses.filter(|(_, it)| !it.token.is_live()).collect();
        if waiting.is_empty() {
            return Ok(Reply::OK);
        }
        // This route needs no key, and without one a client must not learn which accounts there are.
        match access.keys {
            Some(_) => waiting.clear(),
            None => waiting.retain(|(account, _)| access.allows_account(self.client, *account)),
        }
        Err(Rejection::NotReady(waiting.into_iter().map(|(_, status)| status.name).collect()))
    }

    /// The account's token, if need be a new one.
    async fn token(&self, account: usize) -> Result<Token, Rejection> {
        match self.accounts().token(account) {
            Some(token) => Ok(token),
            None => self.obtain(account, TokenRequest::Live).await,
        }
    }

    async fn obtain(&self, account: usize, request: TokenRequest) -> Result<Token, Rejection> {
        self.accounts().obtain(account, request).await.map_err(Rejection::NoToken)
    }

    /// The account's ticket of this type, if need be one that is waited for.
    async fn ticket(&self, account: usize, kind: &TicketType) -> Result<Bytes, Rejection> {
        self.accounts().ticket(account, kind).await.map_err(|why| match why {
            NoTicket::NotKept => Rejection::NoSuchTicket,
            NoTicket::ForNow(lack) => Rejection::NoTicket(lack),
        })
    }

    /// Answers on one of WeChat's own routes.
    async fn compatible(
        &self,
        compatible: Compatible,
        head: &Parts,
        body: &mut RequestBody<'_>,
    ) -> Result<Bytes, Rejection> {
        let query = head.uri.query().unwrap_or_default();
        let asked = match compatible {
            Compatible::Token => Asked::of_token(query)?,
            Compatible::StableToken => Asked::of_stable_token(&body::read(body).await?)?,
            Compatible::GetToken => Asked::of_gettoken(query)?,
            Compatible::GetTicket => {
                return self.ticket_for(AskedTicket::of_query(query)?).await;
            }
        };
        let key = match (&self.snapshot.access.keys, asked.key()) {
            (None, _) => None,
            (Some(keys), Ok(secret)) => {
                Some(self.known(keys, secret.expose().as_bytes(), Challenge::Bearer)?)
            }
            (Some(_), Err(missing)) if !head.headers.contains_key(header::AUTHORIZATION) => {
                return Err(missing);
            }
            (Some(_), Err(_)) => self.key_of(&head.headers, Challenge::Bearer)?,
        };
        let account = self.find_by_appid(&asked.appid, compatible, key)?;
        let token = self.token_for_sdk(account, key, asked.force).await?;
        Ok(match compatible {
            Compatible::GetToken => sdk::with_errcode_zero(&token.json),
            _ => token.json,
        })
    }

    /// The token, for a client that can say only by asking again that WeChat rejected it.
    async fn token_for_sdk(
        &self,
        account: usize,
        key: Option<&Key>,
        force: bool,
    ) -> Result<Token, Rejection> {
        let name = self.accounts().names()[account].clone();
        let key = key.map(|key| Arc::clone(&key.name));
        let client = ClientId { account: name, peer: self.client, key };
        let token = self.token(account).await?;
        let decision = self.state.storms.borrow_mut().decide(
            &client,
            &token,
            self.state.clock.instant().into(),
        );
        match decision {
            RetryDecision::Refuse => return Err(CALM_DOWN),
            RetryDecision::HandOut if !force => return Ok(token),
            // Without --refresh nobody can find out.
            _ if !self.accounts().can_refresh() => return Ok(token),
            RetryDecision::HandOut | RetryDecision::Verify => {}
        }
        let honoured = self.obtain(account, TokenRequest::Verified).await?;
        if honoured.generation != token.generation {
            let mut storms = self.state.storms.borrow_mut();
            storms.record_replacement(&client, &honoured, self.state.clock.instant().into());
        }
        Ok(honoured)
    }

    /// A ticket for somebody who shows the token that it goes with.
    async fn ticket_for(&self, asked: AskedTicket) -> Result<Bytes, Rejection> {
        let tokens = self.accounts();
        let account = tokens.holder_of(asked.access_token.expose()).ok_or_else(|| {
            let why = "this access_token is none that is handed out here now; ask /cgi-bin/token for it again";
            Rejection::NoToken(Unavailable::for_now(why))
        })?;
        let ticket = self.ticket(self.let_to(account)?, &asked.kind).await?;
        Ok(sdk::with_errcode_zero(&ticket))
    }
}

fn scope(key: Option<&Key>) -> &AccountScope {
    key.map_or(&AccountScope::All, |key| &key.scope)
}
