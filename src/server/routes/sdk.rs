//! WeChat's own routes, so that an SDK can be pointed here unchanged: its requests, and refusals in the form that it
//! understands. Looks up no account.
//!
//! Some SDKs retry without end if a token route answers 40001, 40014 or 42001, so these are never sent.

use hyper::body::Bytes;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::body;
use super::rejection::{Rejection, TOO_FREQUENT, text};
use crate::model::api::Api;
use crate::model::kind::TicketType;
use crate::model::secret::Secret;
use crate::server::access::peer::Peer;

/// A route of WeChat that is answered here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SdkRoute {
    /// GET /cgi-bin/token
    Token,
    /// POST /cgi-bin/stable_token
    StableToken,
    /// GET /cgi-bin/gettoken, WeCom's
    GetToken,
    /// GET /cgi-bin/ticket/getticket
    GetTicket,
}

impl SdkRoute {
    /// The API that this route belongs to; `None` if it hands out no tokens.
    pub(super) fn api(self) -> Option<Api> {
        match self {
            SdkRoute::Token => Some(Api::Classic),
            SdkRoute::StableToken => Some(Api::Stable),
            SdkRoute::GetToken => Some(Api::Work),
            SdkRoute::GetTicket => None,
        }
    }
}

/// A request for a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SdkTokenRequest {
    pub(super) appid: String,
    /// The client's key, in place of the AppSecret.
    pub(super) secret: Secret,
    /// Whether the SDK wants another token than the current one.
    pub(super) force: bool,
}

/// A request for a ticket.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SdkTicketRequest {
    pub(super) access_token: Secret,
    pub(super) kind: TicketType,
}

const GRANT_TYPE: &str = "client_credential";

// WeChat's errors for requests that it cannot read.
const MISSING_APPID: Rejection = Rejection::WeChat(41002, "appid missing", text::SEND_APPID);
const MISSING_CORPID: Rejection = Rejection::WeChat(41002, "corpid missing", text::SEND_CORPID);
const MISSING_SECRET: Rejection = Rejection::WeChat(41004, "appsecret missing", text::SEND_KEY);
const INVALID_GRANT_TYPE: Rejection =
    Rejection::WeChat(40002, "invalid grant_type", text::SEND_GRANT_TYPE);
const MISSING_ACCESS_TOKEN: Rejection =
    Rejection::WeChat(41001, "access_token missing", text::SEND_ACCESS_TOKEN);
const INVALID_TICKET_TYPE: Rejection =
    Rejection::WeChat(40097, "invalid args", text::SEND_TICKET_TYPE);
const NO_BODY: Rejection = Rejection::WeChat(44002, "empty post data", text::SEND_STABLE_BODY);
const INVALID_BODY: Rejection =
    Rejection::WeChat(47001, "data format error", text::SEND_STABLE_BODY);

/// The body of stable_token.
#[derive(Deserialize)]
struct StableBody {
    #[serde(default)]
    grant_type: String,
    #[serde(default)]
    appid: String,
    #[serde(default)]
    secret: Zeroizing<String>,
    #[serde(default)]
    force_refresh: bool,
}

impl SdkTokenRequest {
    /// Parses the query of /cgi-bin/token.
    pub(super) fn parse_token(query: &str) -> Result<SdkTokenRequest, Rejection> {
        let [appid, secret, grant_type] = parameters(query, ["appid", "secret", "grant_type"]);
        SdkTokenRequest { appid, secret: Secret::new(secret), force: false }.checked(&grant_type)
    }

    /// Parses the body of /cgi-bin/stable_token.
    pub(super) fn parse_stable_token(body: &[u8]) -> Result<SdkTokenRequest, Rejection> {
        if body.is_empty() {
            return Err(NO_BODY);
        }
        let body: StableBody = body::object(body).ok_or(INVALID_BODY)?;
        let secret = Secret::new(body.secret.to_string());
        SdkTokenRequest { appid: body.appid, secret, force: body.force_refresh }
            .checked(&body.grant_type)
    }

    /// Parses the query of WeCom's /cgi-bin/gettoken.
    pub(super) fn parse_gettoken(query: &str) -> Result<SdkTokenRequest, Rejection> {
        let [appid, secret] = parameters(query, ["corpid", "corpsecret"]);
        if appid.is_empty() {
            return Err(MISSING_CORPID);
        }
        Ok(SdkTokenRequest { appid, secret: Secret::new(secret), force: false })
    }

    /// Checks the fields in WeChat's order, in which the AppID comes first.
    fn checked(self, grant_type: &str) -> Result<SdkTokenRequest, Rejection> {
        match self {
            request if request.appid.is_empty() => Err(MISSING_APPID),
            _ if grant_type != GRANT_TYPE => Err(INVALID_GRANT_TYPE),
            request => Ok(request),
        }
    }

    /// Returns the key. Fails if there is none.
    pub(super) fn key(&self) -> Result<&Secret, Rejection> {
        if self.secret.expose().is_empty() { Err(MISSING_SECRET) } else { Ok(&self.secret) }
    }
}

impl SdkTicketRequest {
    /// Parses the query of /cgi-bin/ticket/getticket.
    pub(super) fn parse(query: &str) -> Result<SdkTicketRequest, Rejection> {
        let [access_token, kind] = parameters(query, ["access_token", "type"]);
        if access_token.is_empty() {
            return Err(MISSING_ACCESS_TOKEN);
        }
        let kind = TicketType::parse(&kind).ok_or(INVALID_TICKET_TYPE)?;
        Ok(SdkTicketRequest { access_token: Secret::new(access_token), kind })
    }
}

/// Returns these parameters of a query, decoded; an empty text for a missing one. The first of a name counts.
fn parameters<const N: usize>(query: &str, names: [&str; N]) -> [String; N] {
    let mut values = names.map(|_| None);
    let mut note = |name: &str, value: &str| {
        if let Some(index) = names.iter().position(|wanted| *wanted == name) {
            values[index].get_or_insert_with(|| value.to_owned());
        }
    };
    for pair in query.split('&') {
        if pair.contains(['%', '+']) {
            form_urlencoded::parse(pair.as_bytes()).for_each(|(name, value)| note(&name, &value));
        } else {
            // Nearly all requests. Decoding would take a third of the time of the route.
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            note(name, value);
        }
    }
    values.map(Option::unwrap_or_default)
}

/// Adds errcode 0 to an answer, as WeCom does on success.
pub(super) fn with_errcode_zero(json: &[u8]) -> Bytes {
    [br#"{"errcode":0,"errmsg":"ok","#, json.strip_prefix(b"{").unwrap_or(json)].concat().into()
}

/// The errcodes after which some SDKs retry without end, and a spelling for texts. One or two SDKs look for the number in
/// the text too; a refusal of WeChat that is passed on stays readable.
const ENDLESS_RETRY: [(&str, &str); 3] =
    [("40001", "40-001"), ("40014", "40-014"), ("42001", "42-001")];

/// WeChat's words for [`TOO_FREQUENT`], and that they are not WeChat's.
pub(super) const TOO_FREQUENT_WORDS: &str =
    "api minute-quota reach limit, must slower, retry next minute: this is wxtoken";

/// An error in the form of WeChat, which SDKs read.
pub(super) struct WechatError {
    pub(super) errcode: i64,
    pub(super) errmsg: String,
}

impl WechatError {
    /// Returns a rejection in the form of WeChat.
    pub(super) fn new(rejection: &Rejection, client: Peer) -> WechatError {
        let message = rejection.message();
        let message = ENDLESS_RETRY
            .iter()
            .fold(message.into_owned(), |text, (code, spelling)| text.replace(code, spelling));
        let (errcode, errmsg) = match rejection {
            Rejection::WeChat(errcode, words, what) => (*errcode, format!("{words}: {what}")),
            Rejection::Forbidden(ip) | Rejection::ForbiddenAccount(ip) => {
                (40164, format!("invalid ip {ip}, not in whitelist: {message}"))
            }
            Rejection::Forwarded(_) => {
                (40164, format!("invalid ip {client}, not in whitelist: {message}"))
            }
            Rejection::Unauthorized(..) => (40125, format!("invalid appsecret: {message}")),
            Rejection::NoSuchAccount => (40013, format!("invalid appid: {}", text::NO_SUCH_APPID)),
            Rejection::WhichAccount => {
                (40013, format!("invalid appid: {}", text::SEVERAL_WITH_APPID))
            }
            Rejection::NoToken(_)
            | Rejection::NoTicket(_)
            | Rejection::NotReady(_)
            | Rejection::Loop
            | Rejection::TooManyConnections(..)
            | Rejection::RequestTimeout => (-1, format!("system error: {message}")),
            // Some SDKs take a negative errcode for success, find no token, and ask again at once.
            Rejection::TooFrequent(_) => {
                (TOO_FREQUENT, format!("{TOO_FREQUENT_WORDS}: {} {message}", text::KEEPS_ASKING))
            }
            // As WeChat says of an account that may not have such tickets.
            Rejection::NoSuchTicket(..)
            | Rejection::UnknownTicket(..)
            | Rejection::ForbiddenApi
            | Rejection::CrossSite
            | Rejection::Certificate(_) => (48001, format!("api unauthorized: {message}")),
            Rejection::MethodNotAllowed("POST") => {
                (43002, format!("require POST method: {message}"))
            }
            Rejection::MethodNotAllowed(_) | Rejection::CannotReplace(_) => {
                (43001, format!("require GET method: {message}"))
            }
            Rejection::NotFound | Rejection::Misdirected => {
                (40066, format!("invalid url: {message}"))
            }
            Rejection::BadRequest(_) => (47001, format!("data format error: {message}")),
            Rejection::BodyTooLarge | Rejection::HeadTooLarge => {
                (45002, format!("content size out of limit: {message}"))
            }
        };
        WechatError { errcode, errmsg }
    }

    /// Returns the body of a refusal, which WeChat sends with HTTP status 200; `None` for reasons that are not about the
    /// route.
    pub(super) fn body(rejection: &Rejection, client: Peer) -> Option<Bytes> {
        match rejection {
            Rejection::BadRequest(_)
            | Rejection::Misdirected
            | Rejection::CrossSite
            | Rejection::Certificate(_)
            | Rejection::BodyTooLarge
            | Rejection::HeadTooLarge
            | Rejection::RequestTimeout
            | Rejection::NotFound
            | Rejection::CannotReplace(_)
            | Rejection::Loop
            | Rejection::NotReady(_) => return None,
            Rejection::Forbidden(_)
            | Rejection::TooManyConnections(..)
            | Rejection::Forwarded(_)
            | Rejection::Unauthorized(..)
            | Rejection::NoSuchAccount
            | Rejection::WhichAccount
            | Rejection::ForbiddenAccount(_)
            | Rejection::ForbiddenApi
            | Rejection::MethodNotAllowed(_)
            | Rejection::NoToken(_)
            | Rejection::NoTicket(_)
            | Rejection::TooFrequent(_)
            | Rejection::NoSuchTicket(..)
            | Rejection::UnknownTicket(..)
            | Rejection::WeChat(..) => {}
        }
        let WechatError { errcode, errmsg } = WechatError::new(rejection, client);
        Some(serde_json::json!({"errcode": errcode, "errmsg": errmsg}).to_string().into())
    }
}
