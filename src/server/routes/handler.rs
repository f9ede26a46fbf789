//! Handles one request: the checks in their order, then the route. Reports refusals that may be an attack. Knows nothing
//! of connections.

mod api;
mod for_sdks;
mod jssdk;

use std::cell::{OnceCell, RefCell};
use std::sync::Arc;

use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method};

use super::body::{self, RequestBody};
use super::rejection::{Challenge, Rejection, text};
use super::response::Reply;
use super::sdk::WechatError;
use super::{
    Route, UNKNOWN_ROUTE, check_body, check_host, check_site, is_for_sdks, metrics, page,
    printable_path,
};
use crate::accounts::Accounts;
use crate::language::Language;
use crate::log;
use crate::message::with_marked_action;
use crate::model::kind::TicketType;
use crate::model::response::token as token_json;
use crate::model::secret::Secret;
use crate::model::status::{
    AccountStatus, ClientIdentity, LiveToken, NoTicket, TokenDemand, Unavailable, Witness,
};
use crate::os::local_time::LocalZone;
use crate::os::timestamp::Timestamp;
use crate::server::access::AccessError;
use crate::server::access::forwarded::{self, ClientAddress};
use crate::server::access::keys::{self, AccountScope, Key, Keys};
use crate::server::access::opaque::{self, Opened};
use crate::server::access::peer::{ConnectionInfo, Peer};
use crate::server::access::token_loop::LoopCounter;
use crate::server::gateway::error::GatewayError;
use crate::server::gateway::{self, Gateway};
use crate::server::state::snapshot::Snapshot;
use crate::server::state::{ServerState, log_messages};

/// WeChat's path of the call for tickets.
const GETTICKET: &str = "/cgi-bin/ticket/getticket";

/// How many characters of a host a log line shows: all of a real host name.
const MAX_HOST_SHOWN: usize = 60; // characters

/// A request whose head has arrived.
pub(crate) struct ArrivedRequest<'a> {
    pub(crate) head: &'a Parts,
    pub(crate) route: Result<Route<'a>, Rejection>,
    /// The snapshot from which it is answered. A reload meanwhile does not affect it.
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) connection: ConnectionInfo,
    /// How the connection's certificate was judged.
    pub(crate) certificate: Result<(), AccessError>,
    /// What was handed out on the connection.
    pub(crate) loops: &'a RefCell<LoopCounter>,
}

/// A request that has been handled.
pub(crate) struct Handled {
    pub(crate) client: Peer,
    /// Whether SDKs expect an `errcode` in the answer.
    pub(crate) is_for_sdks: bool,
    /// The name of the client's key.
    pub(crate) key: Option<Arc<str>>,
    pub(crate) answer: Result<Reply, Rejection>,
}

/// A request of a client whose address is allowed, and the snapshot from which it is answered.
#[derive(Clone, Copy)]
struct RequestContext<'a> {
    client: Peer,
    /// The client, and whether a proxy speaks for it.
    address: ClientAddress,
    /// The other end of the connection.
    peer: Peer,
    snapshot: &'a Snapshot,
    state: &'a ServerState,
    gateway: &'a Gateway,
    /// What was handed out on the connection; `None` if a proxy shares it among clients.
    loops: Option<&'a RefCell<LoopCounter>>,
    /// The name of the client's key, once that is known.
    key_name: &'a OnceCell<Arc<str>>,
}

/// Handles a request. If it is refused, `body` may be unread.
pub(crate) async fn handle(
    request: ArrivedRequest<'_>,
    body: &mut RequestBody<'_>,
    state: &ServerState,
    gateway: &Gateway,
) -> Handled {
    let ArrivedRequest { head, route, snapshot, connection, certificate, loops } = request;
    let Snapshot { access, accounts, api_servers, .. } = snapshot;
    let is_api = matches!(route, Ok(Route::Api));
    let mut client = ClientAddress::Direct(connection.peer);
    let key_name = OnceCell::new();
    let answer = async {
        certificate?;
        // Before the checks below, which could refuse this server's own request.
        let is_wechats = is_api || matches!(route, Ok(Route::Sdk(_)));
        if is_wechats && gateway::has_sent(&head.headers) {
            return Ok(Reply::ApiError(GatewayError::Loop));
        }
        client = forwarded::client_address(&head.headers, connection.peer, access.proxies())?;
        if let Peer::Ip(ip) = client.peer()
            && !access.allows(ip)
        {
            return Err(Rejection::Forbidden(ip));
        }
        // A client of a unix socket names no host that could be checked.
        let is_over_unix = matches!(client, ClientAddress::Direct(Peer::Unix));
        let names = (!is_over_unix).then(|| access.server_names());
        check_host(head, names, connection.is_to_loopback, api_servers.is_some())?;
        check_site(head, route.as_ref().ok().copied())?;
        if !is_api {
            check_body(&body)?;
        }
        let route = route.clone()?;
        route.check_method(&head.method, accounts.can_refresh())?;
        let context = RequestContext {
            client: client.peer(),
            address: client,
            peer: connection.peer,
            snapshot,
            state,
            gateway,
            // Many clients share the connection of a proxy.
            loops: matches!(client, ClientAddress::Direct(_)).then_some(loops),
            key_name: &key_name,
        };
        context.answer(route, head, body).await
    }
    .await;
    if let Err(rejection) = &answer {
        state.counters.refused(rejection.code());
        let key = key_name.get().map(|key| &**key);
        report_refusal(rejection, head, key, client, connection.peer, state);
    }
    let client = client.peer();
    let answer = match (&route, &answer) {
        (Ok(Route::Sdk(_) | Route::Api), Err(rejection)) => {
            match WechatError::body(rejection, client) {
                Some(refusal) => Ok(Reply::Json(refusal)),
                None => answer,
            }
        }
        _ => answer,
    };
    let status = answer.as_ref().map_or_else(Rejection::status, Reply::status);
    let is_sdk = matches!(route, Ok(Route::Sdk(_) | Route::Api));
    state.counters.answered(route.map_or(UNKNOWN_ROUTE, Route::label), status);
    let is_for_sdks = is_sdk || is_for_sdks(head.uri.path());
    Handled { client, is_for_sdks, key: key_name.into_inner(), answer }
}

/// Reports a refusal that may be an attack, a proxy in the way or the wrong key. `key` is the name of the client's key.
fn report_refusal(
    rejection: &Rejection,
    head: &Parts,
    key: Option<&str>,
    client: ClientAddress,
    peer: Peer,
    state: &ServerState,
) {
    let why = match (rejection, key) {
        (Rejection::Forbidden(ip), _) => state.not_allowed(ip),
        (Rejection::ForbiddenAccount(ip), _) => log_messages::NOT_ALLOWED_ACCOUNT.with([ip]),
        (Rejection::Forwarded(why) | Rejection::Certificate(why), _) => with_marked_action(why),
        (Rejection::Unauthorized(text::UNKNOWN_KEY, _), _) => log_messages::UNKNOWN_KEY.text(),
        (Rejection::Misdirected, _) => {
            let host = shown(&head.headers, &header::HOST);
            let target = head.uri.host().map(shown_in_log); // Not its user and password.
            let both = target.map(|target| format!("{target} (Host: {host})"));
            log_messages::UNKNOWN_HOST.with([both.as_ref().unwrap_or(&host)])
        }
        (Rejection::CrossSite, _) => {
            log_messages::OTHER_SITE.with([&shown(&head.headers, &header::ORIGIN)])
        }
        // Without keys the client may see every account.
        (Rejection::NoSuchAccount, Some(key)) => {
            let path = printable_path(head.uri.path());
            log_messages::KEY_OF_OTHER_ACCOUNT.with([&key, &path])
        }
        _ => return,
    };
    // Refusals with one code may have different texts.
    let kind = match rejection {
        Rejection::Forwarded(why) | Rejection::Certificate(why) => *why,
        rejection => rejection.code(),
    };
    let now = state.clock.instant().into();
    state.log.refused(now, kind, client, peer, why);
}

/// Returns a header's value for a log line.
fn shown(headers: &HeaderMap, name: &HeaderName) -> String {
    let value = headers.get(name).map_or(&b""[..], HeaderValue::as_bytes);
    shown_in_log(&String::from_utf8_lossy(value))
}

/// Returns a client's words for a log line. A misconfigured client may send its key in them.
fn shown_in_log(value: &str) -> String {
    log::printable(&log::without_long_words(value), MAX_HOST_SHOWN)
}

impl<'a> RequestContext<'a> {
    async fn answer(
        self,
        route: Route<'_>,
        head: &Parts,
        body: &mut RequestBody<'_>,
    ) -> Result<Reply, Rejection> {
        match route {
            Route::Health => Ok(Reply::OK),
            Route::Ready => self.ready(self.state.clock.now()),
            Route::Page => {
                let key = self.key(&head.headers, Challenge::Basic)?;
                let language = head.headers.get(header::ACCEPT_LANGUAGE);
                let language = language.and_then(|value| value.to_str().ok());
                let language = Language::of_accept_language(language);
                let (now, zone) = (self.state.clock.now(), LocalZone::of_process());
                let statuses = self.statuses(key, now);
                Ok(Reply::Page(page::html(&statuses, language, zone, now.wall)))
            }
            Route::Metrics => {
                let key = self.key(&head.headers, Challenge::Bearer)?;
                let statuses = self.statuses(key, self.state.clock.now());
                Ok(Reply::Metrics(metrics::text(&statuses, self.state)))
            }
            Route::Token(name) => {
                let key = self.key(&head.headers, Challenge::Bearer)?;
                self.check_token_key(key)?;
                let account = self.find(name, key)?;
                self.check_loop(account, key, head)?;
                if head.method != Method::POST {
                    let token = self.token(account).await?;
                    return self
                        .handed_out(account, key, token)
                        .map(|token| Reply::Issued(token.json));
                }
                let rejected = body::rejected(&body::read(body).await?)?;
                let rejected = self.own_token(account, key, rejected);
                let witness = Witness::Client(self.client(key.map(|key| &key.name)));
                let demand = TokenDemand::OtherThan(rejected.clone(), witness);
                let token = self.obtain(account, demand).await?;
                let is_kept = self.is_current(account, &rejected);
                let token = self.handed_out(account, key, token)?;
                Ok(if is_kept { Reply::KeptToken(token.json) } else { Reply::Issued(token.json) })
            }
            Route::Ticket(name, kind) => {
                let key = self.key(&head.headers, Challenge::Bearer)?;
                jssdk::check_ticket_key(key)?;
                let account = self.find(name, key)?;
                let kind = TicketType::parse(kind).ok_or(Rejection::NotFound)?;
                self.check_loop(account, key, head)?;
                self.ticket(account, &kind).await.map(Reply::Issued)
            }
            // Boxed: the memory of a future is moved from one to the next that awaits it, for every request.
            Route::Jssdk(name) => Box::pin(self.sign_page(name, head)).await.map(Reply::Json),
            Route::Sdk(it) => Box::pin(self.answer_sdk(it, head, body)).await.map(Reply::Json),
            Route::Api => Box::pin(self.answer_api(head, body)).await,
        }
    }

    /// Returns the client's key; `None` if clients need none.
    fn key(self, headers: &HeaderMap, challenge: Challenge) -> Result<Option<&'a Key>, Rejection> {
        let Some(keys) = &self.snapshot.access.keys else { return Ok(None) };
        let (_, presented) = keys::presented_key(headers)?
            .ok_or(Rejection::Unauthorized(text::NO_KEY, challenge))?;
        self.find_key(keys, &presented, challenge).map(Some)
    }

    /// Returns the key that the client presents. Fails if the keys file does not have it.
    fn find_key(
        self,
        keys: &'a Keys,
        presented: &[u8],
        challenge: Challenge,
    ) -> Result<&'a Key, Rejection> {
        let key =
            keys.find(presented).ok_or(Rejection::Unauthorized(text::UNKNOWN_KEY, challenge))?;
        self.key_name.get_or_init(|| Arc::clone(&key.name));
        Ok(key)
    }

    /// Returns as which client a report counts that comes with the key of this name, or without a key.
    fn client(self, key: Option<&Arc<str>>) -> ClientIdentity {
        match (key, self.client) {
            (Some(name), _) => ClientIdentity::Key(Arc::clone(name)),
            (None, Peer::Ip(ip)) => ClientIdentity::at(ip),
            (None, Peer::Unix) => ClientIdentity::Local,
        }
    }

    /// Fails if the key is for some APIs only: with WeChat's token, its client could call every API.
    fn check_token_key(self, key: Option<&Key>) -> Result<(), Rejection> {
        let is_limited = key.is_some_and(|key| key.apis.is_limited());
        match is_limited && !self.snapshot.access.hands_out_opaque() {
            true => Err(Rejection::ForbiddenApi),
            false => Ok(()),
        }
    }

    /// Returns a live token as the client with this key is handed it: WeChat's token, or an opaque one.
    fn handed_out(
        self,
        account: usize,
        key: Option<&Key>,
        token: LiveToken,
    ) -> Result<LiveToken, Rejection> {
        if !self.snapshot.access.hands_out_opaque() {
            return Ok(token);
        }
        let live = key.zip(self.accounts().live_token(account));
        let (key, (own, token)) =
            live.ok_or_else(|| Rejection::NoToken(Unavailable::for_now(text::JUST_REPLACED)))?;
        let handed = opaque::token(&own, key, &self.accounts().names()[account]);
        Ok(LiveToken { json: token_json(&handed, token.life).into(), ..token })
    }

    /// Whether a token that a client reported as rejected is handed out again, because WeChat honoured it in a probe. Logs it: people may ask
    /// why.
    fn is_current(self, account: usize, reported: &Secret) -> bool {
        let current = self.accounts().live_token(account);
        let is_current = current.is_some_and(|(current, _)| *current == *reported);
        if is_current {
            let (name, token) = (&self.accounts().names()[account], reported.fingerprint());
            let said = log_messages::HANDED_OUT_AGAIN.with([&token]);
            log::info!(event = "rejected_token_kept", account = name; "serve: {name}: {said}");
        }
        is_current
    }

    /// Returns WeChat's token for an opaque one that a client reports; any other token as it is.
    fn own_token(self, account: usize, key: Option<&Key>, reported: Secret) -> Secret {
        let is_of_client = |opened: &Opened<'_>| {
            opened.account == account && key.is_some_and(|key| key.digest() == opened.key.digest())
        };
        let opened = self.snapshot.access.open_opaque(reported.expose(), self.accounts());
        let own = opened.filter(is_of_client).and_then(|opened| opened.token);
        own.map_or(reported, |own| Secret::clone(&own))
    }

    fn accounts(self) -> &'a Accounts {
        &self.snapshot.accounts
    }

    /// Returns the account of this name, or without a name the only one that the client may see.
    fn find(self, name: Option<&str>, key: Option<&Key>) -> Result<usize, Rejection> {
        match name {
            Some(name) => {
                let account = scope(key).find(self.accounts().names(), name)?;
                self.check_account(account)?;
                Ok(account)
            }
            None => Ok(keys::single_account(self.visible(key))?),
        }
    }

    /// Fails if the client's address may not have the token of this account.
    fn check_account(self, account: usize) -> Result<(), Rejection> {
        match self.client {
            Peer::Ip(ip) if !self.snapshot.access.allows_account(self.client, account) => {
                Err(Rejection::ForbiddenAccount(ip))
            }
            _ => Ok(()),
        }
    }

    /// Fails if the request is a loop: if the account's tokens come from the client that asks for one.
    fn check_loop(self, account: usize, key: Option<&Key>, head: &Parts) -> Result<(), Rejection> {
        let passed: Vec<_> = gateway::passed_by(&head.headers).collect();
        let client = || self.client(key.map(|key| &key.name));
        match !passed.is_empty() && self.accounts().has_come_back(account, &client(), &passed) {
            true => Err(Rejection::Loop),
            false => Ok(()),
        }
    }

    /// Returns the accounts that the client may see, by its key and its address.
    fn visible(self, key: Option<&Key>) -> impl Iterator<Item = usize> {
        let visible = scope(key).indices(self.accounts().names());
        visible.filter(move |account| self.check_account(*account).is_ok())
    }

    /// Returns the statuses of the accounts that the client may see.
    fn statuses(self, key: Option<&Key>, now: Timestamp) -> Vec<AccountStatus> {
        self.visible(key).map(|account| self.accounts().status(account, now)).collect()
    }

    /// Answers whether all accounts have a live token, including accounts that the client may not see.
    fn ready(self, now: Timestamp) -> Result<Reply, Rejection> {
        let accounts = self.accounts();
        let statuses = (0..accounts.names().len()).map(|it| (it, accounts.status(it, now)));
        let mut waiting: Vec<_> = statuses.filter(|(_, it)| !it.token.is_live()).collect();
        if waiting.is_empty() {
            return Ok(Reply::OK);
        }
        // This route needs no key, and a client without one must not learn which accounts there are.
        match self.snapshot.access.keys {
            Some(_) => waiting.clear(),
            None => waiting.retain(|(account, _)| self.check_account(*account).is_ok()),
        }
        Err(Rejection::NotReady(waiting.into_iter().map(|(_, status)| status.name).collect()))
    }

    /// Returns the account's live token, refreshed if there is none.
    async fn token(self, account: usize) -> Result<LiveToken, Rejection> {
        match self.accounts().token(account) {
            Some(token) => Ok(token),
            None => self.obtain(account, TokenDemand::Live).await,
        }
    }

    async fn obtain(self, account: usize, demand: TokenDemand) -> Result<LiveToken, Rejection> {
        // Boxed: it is seldom needed, and each request would move its memory around.
        let obtained = Box::pin(self.accounts().obtain(account, demand)).await;
        obtained.map_err(Rejection::NoToken)
    }

    /// Returns the account's live ticket of this type as JSON, fetched if there is none.
    async fn ticket(self, account: usize, kind: &TicketType) -> Result<Bytes, Rejection> {
        let ticket = Box::pin(self.accounts().ticket(account, kind)).await;
        ticket.map_err(|err| match err {
            NoTicket::NotKept => {
                let name = self.accounts().names()[account].clone();
                let types = TicketType::names_on(self.accounts().api(account));
                match types.contains(&kind.name()) {
                    true => Rejection::NoSuchTicket(name, kind.clone()),
                    false => Rejection::UnknownTicket(name, types),
                }
            }
            NoTicket::ForNow(unavailable) => Rejection::NoTicket(unavailable),
        })
    }
}

/// Returns the accounts that a key opens; all accounts if clients need no key.
fn scope(key: Option<&Key>) -> &AccountScope {
    key.map_or(&AccountScope::All, |key| &key.scope)
}
