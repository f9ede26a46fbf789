//! WeChat's own routes, so that an SDK can be pointed here unchanged: what it sends, and refusals in the shape that it
//! understands. Looks nothing up.
//!
//! Some SDKs ask again without end when a token route says 40001, 40014 or 42001, so none of these is ever said here.

use hyper::body::Bytes;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::body;
use super::response::Rejection;
use crate::model::api::Api;
use crate::model::kind::TicketType;
use crate::model::secret::Secret;
use crate::server::access::peer::Peer;

/// One of WeChat's routes that is answered here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compatible {
    /// GET /cgi-bin/token
    Token,
    /// POST /cgi-bin/stable_token
    StableToken,
    /// GET /cgi-bin/gettoken, WeCom's
    GetToken,
    /// GET /cgi-bin/ticket/getticket
    GetTicket,
}

/// What an SDK asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) appid: String,
    /// The client's key, where WeChat would have the AppSecret.
    pub(crate) secret: Secret,
    /// The SDK wants another token than the current one.
    pub(crate) force: bool,
}

/// What an SDK asks of getticket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AskedTicket {
    pub(crate) access_token: Secret,
    pub(crate) kind: TicketType,
}

const GRANT_TYPE: &str = "client_credential";

/// WeChat's words for what it cannot read.
const MISSING_APPID: Rejection = Rejection::WeChat(41002, "appid missing");
const MISSING_CORPID: Rejection = Rejection::WeChat(41002, "corpid missing");
const MISSING_SECRET: Rejection =
    Rejection::WeChat(41004, "appsecret missing: send your wxtoken key as the secret");
const INVALID_GRANT_TYPE: Rejection =
    Rejection::WeChat(40002, "invalid grant_type: it must be client_credential");
const MISSING_ACCESS_TOKEN: Rejection = Rejection::WeChat(41001, "access_token missing");
const INVALID_TICKET_TYPE: Rejection =
    Rejection::WeChat(40097, "invalid args: type, such as jsapi, is missing or is none");

/// stable_token's body.
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

impl Asked {
    /// Reads the query of /cgi-bin/token.
    pub(crate) fn of_token(query: &str) -> Result<Asked, Rejection> {
        let [appid, secret, grant_type] = parameters(query, ["appid", "secret", "grant_type"]);
        Asked { appid, secret: Secret::new(secret), force: false }.checked(&grant_type)
    }

    /// Reads the body of /cgi-bin/stable_token.
    pub(crate) fn of_stable_token(body: &[u8]) -> Result<Asked, Rejection> {
        if body.is_empty() {
            return Err(Rejection::WeChat(44002, "empty post data"));
        }
        let body: StableBody = body::object(body).ok_or(Rejection::WeChat(
            47001,
            "data format error: it is not the JSON of stable_token",
        ))?;
        let secret = Secret::new(body.secret.to_string());
        Asked { appid: body.appid, secret, force: body.force_refresh }.checked(&body.grant_type)
    }

    /// Reads the query of WeCom's /cgi-bin/gettoken.
    pub(crate) fn of_gettoken(query: &str) -> Result<Asked, Rejection> {
        let [appid, secret] = parameters(query, ["corpid", "corpsecret"]);
        if appid.is_empty() {
            return Err(MISSING_CORPID);
        }
        Ok(Asked { appid, secret: Secret::new(secret), force: false })
    }

    /// In WeChat's order: the AppID is looked at before anything else.
    fn checked(self, grant_type: &str) -> Result<Asked, Rejection> {
        match self {
            Asked { appid, .. } if appid.is_empty() => Err(MISSING_APPID),
            _ if grant_type != GRANT_TYPE => Err(INVALID_GRANT_TYPE),
            asked => Ok(asked),
        }
    }

    /// The key that was sent; an error where there is none.
    pub(crate) fn key(&self) -> Result<&Secret, Rejection> {
        if self.secret.expose().is_empty() { Err(MISSING_SECRET) } else { Ok(&self.secret) }
    }
}

impl Compatible {
    /// The API that this is a route of; none, where it hands out no tokens.
    pub(crate) fn api(self) -> Option<Api> {
        match self {
            Compatible::Token => Some(Api::Classic),
            Compatible::StableToken => Some(Api::Stable),
            Compatible::GetToken => Some(Api::Work),
            Compatible::GetTicket => None,
        }
    }
}

impl AskedTicket {
    /// Reads the query of /cgi-bin/ticket/getticket.
    pub(crate) fn of_query(query: &str) -> Result<AskedTicket, Rejection> {
        let [access_token, kind] = parameters(query, ["access_token", "type"]);
        if access_token.is_empty() {
            return Err(MISSING_ACCESS_TOKEN);
        }
        let kind = TicketType::parse(&kind).ok_or(INVALID_TICKET_TYPE)?;
        Ok(AskedTicket { access_token: Secret::new(access_token), kind })
    }
}

/// These parameters of a query, decoded; empty where there is none. The first of a name counts.
fn parameters<const N: usize>(query: &str, names: [&str; N]) -> [String; N] {
    let mut values = names.map(|_| None);
    let mut note = |name: &str, value: &str| {
        if let Some(place) = names.iter().position(|wanted| *wanted == name) {
            values[place].get_or_insert_with(|| value.to_owned());
        }
    };
    for pair in query.split('&') {
        if pair.contains(['%', '+']) {
            form_urlencoded::parse(pair.as_bytes()).for_each(|(name, value)| note(&name, &value));
        } else {
            // What nearly all send: to decode it would cost a third of what the route costs.
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            note(name, value);
        }
    }
    values.map(Option::unwrap_or_default)
}

/// WeCom's answers carry an errcode on success, too.
pub(crate) fn with_errcode_zero(json: &[u8]) -> Bytes {
    [br#"{"errcode":0,"errmsg":"ok","#, json.strip_prefix(b"{").unwrap_or(json)].concat().into()
}

/// Where there is such a number, some SDK asks again, and one or two look for it in the text, too. What WeChat told us
/// is told on so that people still know it.
const ENDLESS: [(&str, &str); 3] = [("40001", "40-001"), ("40014", "40-014"), ("42001", "42-001")];

/// What is said where an AppID is not enough to tell which account is meant.
const SEVERAL_APPS: &str = "invalid appid: several accounts here have it, such as the apps of one corp; on the server, \
                            give each client a key for its own account";

/// A refusal as WeChat would put it, in an HTTP 200; `None` for what is wrong before there is a route.
pub(crate) fn refusal(rejection: &Rejection, client: Peer) -> Option<Bytes> {
    let message = rejection.message();
    let message =
        ENDLESS.iter().fold(message.into_owned(), |it, (code, told)| it.replace(code, told));
    let (errcode, errmsg) = match rejection {
        Rejection::WeChat(errcode, errmsg) => (*errcode, (*errmsg).to_owned()),
        Rejection::Forbidden(ip) | Rejection::ForbiddenAccount(ip) => {
            (40164, format!("invalid ip {ip}, not in whitelist: {message}"))
        }
        Rejection::Forwarded(_) => {
            (40164, format!("invalid ip {client}, not in whitelist: {message}"))
        }
        Rejection::Unauthorized(..) => (40125, format!("invalid appsecret: {message}")),
        Rejection::NoSuchAccount => (40013, format!("invalid appid: {message}")),
        Rejection::WhichAccount => (40013, SEVERAL_APPS.to_owned()),
        Rejection::NoToken(_) | Rejection::NoTicket(_) => (-1, format!("system error: {message}")),
        // As WeChat says of an account that may not have such tickets.
        Rejection::NoSuchTicket => (48001, format!("api unauthorized: {message}")),
        Rejection::MethodNotAllowed("POST") => (43002, "require POST method".to_owned()),
        Rejection::MethodNotAllowed(_) => (43001, "require GET method".to_owned()),
        Rejection::BadRequest(_)
        | Rejection::Misdirected
        | Rejection::BodyTooLarge
        | Rejection::HeadTooLarge
        | Rejection::RequestTimeout
        | Rejection::NotFound
        | Rejection::CannotReplace(_)
        | Rejection::NotReady(_) => return None,
    };
    Some(serde_json::json!({"errcode": errcode, "errmsg": errmsg}).to_string().into())
}
