//! What is answered: the bodies, statuses and headers that callers rely on. Decides nothing.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use crate::model::status::Unavailable;
use crate::server::access::AccessError;
use crate::server::limits::{MAX_BODY, MAX_HEAD, REQUEST_TIMEOUT};

/// WeChat's errcode for who asks too often.
pub(crate) const CALM_DOWN: i64 = 45011;

/// What is answered when nothing stands against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Json(Bytes),
    /// Prometheus's text.
    Metrics(String),
    /// A page for people.
    Page(String),
}

impl Reply {
    /// The answer of a route that only says yes.
    pub(crate) const OK: Reply = Reply::Json(Bytes::from_static(br#"{"status":"ok"}"#));

    pub(crate) fn response(self) -> Response<Full<Bytes>> {
        match self {
            Reply::Json(body) => response(body, JSON),
            Reply::Metrics(text) => response(text.into(), METRICS),
            Reply::Page(html) => {
                let mut response = response(html.into(), PAGE);
                let headers = response.headers_mut();
                headers.insert(header::CONTENT_SECURITY_POLICY, PAGE_POLICY);
                headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
                response
            }
        }
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const PAGE: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// The page needs its own style and nothing else from anywhere, and is nobody's frame.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
);

/// How somebody without a key is told to show one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// To a program.
    Bearer,
    /// To a browser, which asks its user for a name and a password then.
    Basic,
}

/// Why a request is not answered with what it asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// Not HTTP, or HTTP that can be read in two ways; the text says which.
    BadRequest(&'static str),
    /// The peer's address is not allowed.
    Forbidden(IpAddr),
    /// It came through a proxy, and for whom is not to be trusted; the text says why.
    Forwarded(&'static str),
    /// A key is asked for, and there was none or an unknown one; the text says which.
    Unauthorized(&'static str, Challenge),
    /// Meant for another host.
    Misdirected,
    /// The body is larger than any route takes.
    BodyTooLarge,
    /// The head is larger than is read.
    HeadTooLarge,
    /// It did not arrive in time.
    RequestTimeout,
    NotFound,
    NoSuchAccount,
    /// `/token` where there are several accounts.
    WhichAccount,
    /// The client's address, where the account is not for it.
    ForbiddenAccount(IpAddr),
    /// The methods that the route takes.
    MethodNotAllowed(&'static str),
    /// The same for who tells of a rejected token where nobody asks WeChat for another.
    CannotReplace(&'static str),
    NoToken(Unavailable),
    NoTicket(Unavailable),
    /// The account has no tickets of this type.
    NoSuchTicket,
    /// The accounts that have no live token; empty where it must not be said which.
    NotReady(Vec<String>),
    /// What only one of WeChat's own routes can say: the errcode, and what people read.
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
                "X-Forwarded-For and Forwarded name different clients; have the proxy set one of them and remove the \
                 other",
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
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Rejection::BadRequest(_) => StatusCode::BAD_REQUEST,
            Rejection::Unauthorized(..) => StatusCode::UNAUTHORIZED,
            Rejection::Forbidden(_) | Rejection::Forwarded(_) | Rejection::ForbiddenAccount(_) => {
                StatusCode::FORBIDDEN
            }
            Rejection::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Rejection::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Rejection::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Rejection::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Rejection::NotFound
            | Rejection::NoSuchAccount
            | Rejection::WhichAccount
            | Rejection::NoSuchTicket => StatusCode::NOT_FOUND,
            Rejection::MethodNotAllowed(_) | Rejection::CannotReplace(_) => {
                StatusCode::METHOD_NOT_ALLOWED
            }
            Rejection::NoToken(_) | Rejection::NoTicket(_) | Rejection::NotReady(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Rejection::WeChat(..) => StatusCode::OK,
        }
    }

    /// Whether nothing more is read from this caller.
    pub(crate) fn closes(&self) -> bool {
        match self {
            Rejection::BadRequest(_) | Rejection::Forbidden(_) | Rejection::Forwarded(_) => true,
            Rejection::BodyTooLarge | Rejection::HeadTooLarge | Rejection::RequestTimeout => true,
            Rejection::Unauthorized(..)
            | Rejection::Misdirected
            | Rejection::ForbiddenAccount(_)
            | Rejection::MethodNotAllowed(_)
            | Rejection::CannotReplace(_)
            | Rejection::NoToken(_)
            | Rejection::NoTicket(_)
            | Rejection::NoSuchTicket
            | Rejection::NotReady(_)
            | Rejection::WeChat(..) => false,
            Rejection::NotFound | Rejection::NoSuchAccount | Rejection::WhichAccount => false,
        }
    }

    /// What programs and metrics read.
    pub(crate) fn error(&self) -> &'static str {
        match self {
            Rejection::BadRequest(_) => "bad_request",
            Rejection::Forbidden(_) => "forbidden",
            Rejection::ForbiddenAccount(_) => "forbidden_account",
            Rejection::Forwarded(_) => "forwarded",
            Rejection::Unauthorized(..) => "unauthorized",
            Rejection::Misdirected => "misdirected",
            Rejection::BodyTooLarge => "body_too_large",
            Rejection::HeadTooLarge => "head_too_large",
            Rejection::RequestTimeout => "request_timeout",
            Rejection::NotFound => "not_found",
            Rejection::NoSuchAccount => "no_such_account",
            Rejection::WhichAccount => "which_account",
            Rejection::MethodNotAllowed(_) | Rejection::CannotReplace(_) => "method_not_allowed",
            Rejection::NoToken(_) => "no_token",
            Rejection::NoTicket(_) => "no_ticket",
            Rejection::NoSuchTicket => "no_such_ticket",
            Rejection::NotReady(_) => "not_ready",
            Rejection::WeChat(CALM_DOWN, _) => "calm_down",
            Rejection::WeChat(..) => "bad_request",
        }
    }

    /// What people read: what to do, and nothing about this machine.
    pub(crate) fn message(&self) -> Cow<'_, str> {
        Cow::Borrowed(match self {
            Rejection::BadRequest(what)
            | Rejection::Forwarded(what)
            | Rejection::Unauthorized(what, _)
            | Rejection::WeChat(_, what) => what,
            Rejection::Forbidden(address) => {
                return Cow::Owned(format!(
                    "your address {address} is not allowed here; on the server, add it to serve's --allow"
                ));
            }
            Rejection::ForbiddenAccount(address) => {
                return Cow::Owned(format!(
                    "your address {address} is not allowed to have this account's token; on the server, add it to the \
                     account's allow"
                ));
            }
            Rejection::Misdirected => {
                "this server listens on loopback and answers only to localhost, 127.0.0.1 and [::1]; \
                 to serve other hosts, have it listen on another address"
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
                "no such path; there are /token, /token/ACCOUNT, /ticket/TYPE, /ticket/ACCOUNT/TYPE, /healthz, /readyz, \
                 /metrics, and some of WeChat's own under /cgi-bin"
            }
            Rejection::NoSuchAccount => {
                "no account of this name here; `wxtoken status` on the server lists them"
            }
            Rejection::WhichAccount => {
                "there are several accounts here; name one: GET /token/ACCOUNT"
            }
            Rejection::MethodNotAllowed(allowed) => return Cow::Owned(format!("use {allowed}")),
            Rejection::CannotReplace(_) => {
                "this server hands out what is published and replaces nothing: tell it on the host that fetches, with \
                 `wxtoken fetch --rejected -`, or run serve with --refresh there"
            }
            Rejection::NoToken(lack) | Rejection::NoTicket(lack) => &lack.why,
            Rejection::NoSuchTicket => {
                "no tickets of this type are kept here: on the server, put it into tickets = […] under the account in the \
                 config. 服务器未配置此类 ticket，请在其配置的 tickets 中加上。"
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

    fn body(&self) -> String {
        serde_json::json!({"error": self.error(), "message": self.message()}).to_string()
    }

    pub(crate) fn response(&self) -> Response<Full<Bytes>> {
        let mut response = response(Bytes::from(self.body()), JSON);
        *response.status_mut() = self.status();
        let retry_after = |span: Duration| HeaderValue::from(span.as_secs().max(1));
        let (name, value) = match self {
            Rejection::MethodNotAllowed(allowed) | Rejection::CannotReplace(allowed) => {
                (header::ALLOW, HeaderValue::from_static(allowed))
            }
            Rejection::Unauthorized(_, challenge) => {
                let challenge = match challenge {
                    Challenge::Bearer => "Bearer",
                    Challenge::Basic => "Basic realm=\"wxtoken\"",
                };
                (header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
            }
            Rejection::NoToken(lack) | Rejection::NoTicket(lack) => {
                (header::RETRY_AFTER, retry_after(lack.retry_after))
            }
            Rejection::NotReady(_) => (header::RETRY_AFTER, retry_after(Unavailable::RETRY_AFTER)),
            _ => return response,
        };
        response.headers_mut().insert(name, value);
        response
    }

    /// The whole answer as bytes, for a caller with whom HTTP has not begun or has broken down.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let (status, body) = (self.status(), self.body());
        let mut text = format!("HTTP/1.1 {status}\r\n");
        for (name, value) in [(header::CONTENT_TYPE, JSON)].into_iter().chain(FIXED) {
            text.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
        }
        text.push_str(&format!(
            "connection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
        text.into_bytes()
    }
}

/// The headers of every answer, beside its type.
const FIXED: [(HeaderName, HeaderValue); 2] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
];

/// A 200 with this body; hyper adds the length and the date.
fn response(body: Bytes, content_type: HeaderValue) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    response.headers_mut().reserve(FIXED.len() + 2);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    for (name, value) in FIXED {
        response.headers_mut().insert(name, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_outside_of_http_looks_like_one_inside() {
        let text = String::from_utf8(Rejection::RequestTimeout.bytes()).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{head}");
        assert!(head.contains("\r\ncache-control: no-store\r\n"), "{head}");
        assert!(head.ends_with(&format!("\r\ncontent-length: {}", body.len())), "{head}");
        assert!(body.starts_with(r#"{"error":"request_timeout","message":""#), "{body}");
    }

    #[test]
    fn a_limit_is_named_in_the_unit_people_use() {
        for (rejection, limit) in [
            (Rejection::BodyTooLarge, "larger than 16 KiB;"),
            (Rejection::HeadTooLarge, "larger than 8 KiB;"),
            (Rejection::RequestTimeout, "within 10 seconds;"),
        ] {
            assert!(rejection.message().contains(limit), "{}", rejection.message());
        }
    }
}
