//! Why a request is refused: the HTTP status, the error code and the message of each reason. Programs and people rely on
//! all three.

use std::borrow::Cow;
use std::net::IpAddr;

use hyper::StatusCode;

use crate::language::in_both;
use crate::model::kind::TicketType;
use crate::model::status::Unavailable;
use crate::server::access::AccessError;
use crate::server::limits::{MAX_BODY, MAX_HEAD, REQUEST_TIMEOUT};

/// WeChat's errcode for calls that are too frequent.
pub(crate) const TOO_FREQUENT: i64 = 45011;

/// How a client without a key is asked for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// For programs.
    Bearer,
    /// For browsers, which ask their user for a name and a password.
    Basic,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// Not HTTP, or ambiguous HTTP; the text says which.
    BadRequest(&'static str),
    /// The client's address is not allowed.
    Forbidden(IpAddr),
    /// The client's address has this many connections, which is its share.
    TooManyConnections(IpAddr, usize),
    /// A proxy forwarded it, and the client is unknown; the text says why.
    Forwarded(&'static str),
    /// The client's certificate does not hold any more; the text says why.
    Certificate(&'static str),
    /// There is no key, or an unknown one; the text says which.
    Unauthorized(&'static str, Challenge),
    /// It names another host than this server.
    Misdirected,
    /// A page of another site makes a browser send it.
    CrossSite,
    /// The body is larger than any route takes.
    BodyTooLarge,
    /// The head is larger than the server reads.
    HeadTooLarge,
    /// It did not arrive in time.
    RequestTimeout,
    NotFound,
    NoSuchAccount,
    /// The request names no account, and there are several.
    WhichAccount,
    /// The client's address is not allowed to have this account's token.
    ForbiddenAccount(IpAddr),
    /// The client's key is for some APIs only, and this is not one of them.
    ForbiddenApi,
    /// The method is not one of these.
    MethodNotAllowed(&'static str),
    /// The same, for a report of a rejected token to a server that does not refresh.
    CannotReplace(&'static str),
    NoToken(Unavailable),
    NoTicket(Unavailable),
    /// There is no token or ticket, and the client keeps asking for it without a pause.
    TooFrequent(Unavailable),
    /// The account of this name has no tickets of this type.
    NoSuchTicket(String, TicketType),
    /// These accounts have no live token; empty if the client must not learn their names.
    NotReady(Vec<String>),
    /// A refusal that only WeChat's own routes have: an errcode and its text.
    WeChat(i64, &'static str),
}

impl From<AccessError> for Rejection {
    fn from(err: AccessError) -> Rejection {
        match err {
            AccessError::UntrustedProxy => Rejection::Forwarded(
                "this request was forwarded by a proxy that is not trusted here; ask the server directly, without \
                 proxy headers, or name the proxy in serve's --trusted-proxy",
            ),
            AccessError::NoForwardedClient => Rejection::Forwarded(
                "the proxy did not say for whom it asks; have it set X-Forwarded-For to the client's address",
            ),
            AccessError::BadForwardedClient => Rejection::Forwarded(
                "the proxy says for whom it asks with something that is no IP address; have it set X-Forwarded-For to \
                 the client's address",
            ),
            AccessError::ConflictingClients => Rejection::Forwarded(
                "headers such as X-Forwarded-For, Forwarded, X-Real-IP and CF-Connecting-IP name different clients; have \
                 the proxy set one of them and remove the others, and name every proxy in serve's --trusted-proxy",
            ),
            AccessError::Misdirected => Rejection::Misdirected,
            AccessError::CrossSite => Rejection::CrossSite,
            AccessError::ExpiredCertificate => Rejection::Certificate(
                "the client's certificate has expired; connect again with a new one",
            ),
            AccessError::FutureCertificate => Rejection::Certificate(
                "the client's certificate is not valid yet; is the clock right, here and where it was made?",
            ),
            AccessError::UntrustedCertificate => Rejection::Certificate(
                "the client's certificate is of no CA in serve's --tls-client-ca now; connect again with one that is",
            ),
            AccessError::SeveralAuthorizations => Rejection::BadRequest(
                "the request has more than one Authorization header; send one",
            ),
            AccessError::NoSuchAccount => Rejection::NoSuchAccount,
            AccessError::AmbiguousAccount => Rejection::WhichAccount,
        }
    }
}

impl Rejection {
    /// The HTTP status.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Rejection::BadRequest(_) => StatusCode::BAD_REQUEST,
            Rejection::Unauthorized(..) => StatusCode::UNAUTHORIZED,
            Rejection::Forbidden(_)
            | Rejection::Forwarded(_)
            | Rejection::Certificate(_)
            | Rejection::CrossSite
            | Rejection::ForbiddenApi
            | Rejection::ForbiddenAccount(_) => StatusCode::FORBIDDEN,
            Rejection::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Rejection::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Rejection::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Rejection::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Rejection::NotFound
            | Rejection::NoSuchAccount
            | Rejection::WhichAccount
            | Rejection::NoSuchTicket(..) => StatusCode::NOT_FOUND,
            Rejection::MethodNotAllowed(_) | Rejection::CannotReplace(_) => {
                StatusCode::METHOD_NOT_ALLOWED
            }
            Rejection::NoToken(_)
            | Rejection::NoTicket(_)
            | Rejection::TooFrequent(_)
            | Rejection::NotReady(_)
            | Rejection::TooManyConnections(..) => StatusCode::SERVICE_UNAVAILABLE,
            Rejection::WeChat(..) => StatusCode::OK,
        }
    }

    /// Whether the connection is closed after it.
    pub(crate) fn closes(&self) -> bool {
        match self {
            Rejection::BadRequest(_) | Rejection::Forbidden(_) | Rejection::Forwarded(_) => true,
            Rejection::Certificate(_) | Rejection::TooManyConnections(..) => true,
            Rejection::BodyTooLarge | Rejection::HeadTooLarge | Rejection::RequestTimeout => true,
            Rejection::Unauthorized(..)
            | Rejection::Misdirected
            | Rejection::CrossSite
            | Rejection::ForbiddenAccount(_)
            | Rejection::ForbiddenApi
            | Rejection::MethodNotAllowed(_)
            | Rejection::CannotReplace(_)
            | Rejection::NoToken(_)
            | Rejection::NoTicket(_)
            | Rejection::TooFrequent(_)
            | Rejection::NoSuchTicket(..)
            | Rejection::NotReady(_)
            | Rejection::WeChat(..) => false,
            Rejection::NotFound | Rejection::NoSuchAccount | Rejection::WhichAccount => false,
        }
    }

    /// The error code, for programs and metrics.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Rejection::BadRequest(_) => "bad_request",
            Rejection::Forbidden(_) => "forbidden",
            Rejection::ForbiddenAccount(_) => "forbidden_account",
            Rejection::TooManyConnections(..) => "too_many_connections",
            Rejection::ForbiddenApi => "forbidden_api",
            Rejection::Forwarded(_) => "forwarded",
            Rejection::Certificate(_) => "certificate",
            Rejection::Unauthorized(..) => "unauthorized",
            Rejection::Misdirected => "misdirected",
            Rejection::CrossSite => "cross_site",
            Rejection::BodyTooLarge => "body_too_large",
            Rejection::HeadTooLarge => "head_too_large",
            Rejection::RequestTimeout => "request_timeout",
            Rejection::NotFound => "not_found",
            Rejection::NoSuchAccount => "no_such_account",
            Rejection::WhichAccount => "which_account",
            Rejection::MethodNotAllowed(_) | Rejection::CannotReplace(_) => "method_not_allowed",
            Rejection::NoToken(_) => "no_token",
            Rejection::NoTicket(_) => "no_ticket",
            Rejection::NoSuchTicket(..) => "no_such_ticket",
            Rejection::NotReady(_) => "not_ready",
            Rejection::TooFrequent(_) | Rejection::WeChat(TOO_FREQUENT, _) => "calm_down",
            Rejection::WeChat(..) => "bad_request",
        }
    }

    /// The message for people: what to do, and nothing about this machine.
    pub(crate) fn message(&self) -> Cow<'_, str> {
        Cow::Borrowed(match self {
            Rejection::BadRequest(what)
            | Rejection::Forwarded(what)
            | Rejection::Certificate(what)
            | Rejection::Unauthorized(what, _)
            | Rejection::WeChat(_, what) => what,
            Rejection::Forbidden(address) => {
                return Cow::Owned(format!(
                    "your address {address} is not allowed here; on the server, add it to serve's --allow"
                ));
            }
            Rejection::TooManyConnections(address, share) => {
                return Cow::Owned(format!(
                    "your address {address} has {share} connections here, as many as one address can hold; keep and reuse \
                     fewer, or raise serve's --max-connections, or name a proxy in its --trusted-proxy"
                ));
            }
            Rejection::ForbiddenAccount(address) => {
                return Cow::Owned(format!(
                    "your address {address} is not allowed to have this account's token; on the server, add it to the \
                     account's allow"
                ));
            }
            Rejection::ForbiddenApi => {
                "your key is for calls of some APIs through the gateway only, and with a token you could call all of them; \
                 send the calls to this server, without a token"
            }
            Rejection::Misdirected => {
                "this server does not answer for this Host: on loopback it answers for localhost, 127.0.0.1 and [::1], \
                 and for the names in serve's --server-name; ask for one of these, or add the name there"
            }
            Rejection::CrossSite => {
                "a page of another site made a browser send this request; ask with a program, or open the page of this \
                 server at / in the browser"
            }
            Rejection::BodyTooLarge => {
                return Cow::Owned(format!(
                    "the body is larger than {} KiB; no route here needs that much",
                    MAX_BODY / 1024
                ));
            }
            Rejection::HeadTooLarge => {
                return Cow::Owned(format!(
                    "the request line and headers are larger than {} KiB; send fewer or shorter headers",
                    MAX_HEAD / 1024
                ));
            }
            Rejection::RequestTimeout => {
                return Cow::Owned(format!(
                    "the request did not arrive within {} seconds; send it at once",
                    REQUEST_TIMEOUT.as_secs()
                ));
            }
            Rejection::NotFound => {
                "no such path; there are /token, /token/ACCOUNT, /ticket/TYPE, /ticket/ACCOUNT/TYPE, /jssdk, /jssdk/ACCOUNT, \
                 /healthz, /readyz, /metrics, and some of WeChat's own under /cgi-bin"
            }
            Rejection::NoSuchAccount => {
                "no account of this name here, or the key is for others; `wxtoken status` on the server lists them"
            }
            Rejection::WhichAccount => {
                "there are several accounts here; name one: GET /token/ACCOUNT"
            }
            Rejection::MethodNotAllowed(allowed) => return Cow::Owned(format!("use {allowed}")),
            Rejection::CannotReplace(_) => {
                "this server hands out what is published and replaces nothing: tell it on the host that fetches, with \
                 `wxtoken fetch --rejected -`, or run serve with --refresh there"
            }
            Rejection::NoToken(unavailable)
            | Rejection::NoTicket(unavailable)
            | Rejection::TooFrequent(unavailable) => &unavailable.why,
            Rejection::NoSuchTicket(account, kind) => {
                return Cow::Owned(in_both(
                    format!(
                        "no {kind} tickets of the account {account} are kept here: on the server, put \"{kind}\" into \
                         tickets = […] of [account.{account}] in the config."
                    ),
                    format!(
                        "服务器未保存该账号的 {kind} ticket，请在其配置 [account.{account}] 的 tickets 中加上。"
                    ),
                ));
            }
            Rejection::NotReady(accounts) if accounts.is_empty() => {
                "not every account has a live token; run `wxtoken status` on the server to see why"
            }
            Rejection::NotReady(accounts) => {
                return Cow::Owned(format!(
                    "no live token for {}; run `wxtoken status` on the server to see why",
                    accounts.join(", ")
                ));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_named_in_a_unit_for_people() {
        for (rejection, limit) in [
            (Rejection::BodyTooLarge, "larger than 16 KiB;"),
            (Rejection::HeadTooLarge, "larger than 8 KiB;"),
            (Rejection::RequestTimeout, "within 10 seconds;"),
        ] {
            assert!(rejection.message().contains(limit), "{}", rejection.message());
        }
    }
}
