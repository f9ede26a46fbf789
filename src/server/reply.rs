//! What is answered: the bodies, statuses and headers that callers rely on. Decides nothing.

use std::borrow::Cow;
use std::net::IpAddr;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use super::limits::{MAX_BODY, MAX_HEAD, REQUEST_TIMEOUT};

/// In how many seconds a caller should ask again when there is no live token. Nobody knows when the next `fetch` will
/// be: this is soon enough after it, and too seldom to be a load.
const RETRY_AFTER_SECS: HeaderValue = HeaderValue::from_static("10");

/// The body of an endpoint that only says yes.
pub(super) const OK: Bytes = Bytes::from_static(br#"{"status":"ok"}"#);

/// Why a request is not answered with what it asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rejection {
    /// Not HTTP, or HTTP that can be read in two ways; the text says which.
    BadRequest(&'static str),
    /// The peer's address is not allowed.
    Forbidden(IpAddr),
    /// It came through a proxy that nobody said to trust.
    Forwarded,
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
    MethodNotAllowed,
    NoToken,
    /// The accounts that have no live token.
    NotReady(Vec<String>),
}

impl Rejection {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Rejection::BadRequest(_) => StatusCode::BAD_REQUEST,
            Rejection::Forbidden(_) | Rejection::Forwarded => StatusCode::FORBIDDEN,
            Rejection::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Rejection::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Rejection::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Rejection::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Rejection::NotFound | Rejection::NoSuchAccount | Rejection::WhichAccount => {
                StatusCode::NOT_FOUND
            }
            Rejection::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Rejection::NoToken | Rejection::NotReady(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Whether nothing more is read from this caller.
    pub(super) fn closes(&self) -> bool {
        match self {
            Rejection::BadRequest(_) | Rejection::Forbidden(_) | Rejection::Forwarded => true,
            Rejection::BodyTooLarge | Rejection::HeadTooLarge | Rejection::RequestTimeout => true,
            Rejection::Misdirected
            | Rejection::MethodNotAllowed
            | Rejection::NoToken
            | Rejection::NotReady(_) => false,
            Rejection::NotFound | Rejection::NoSuchAccount | Rejection::WhichAccount => false,
        }
    }

    /// What programs read.
    fn error(&self) -> &'static str {
        match self {
            Rejection::BadRequest(_) => "bad_request",
            Rejection::Forbidden(_) => "forbidden",
            Rejection::Forwarded => "forwarded",
            Rejection::Misdirected => "misdirected",
            Rejection::BodyTooLarge => "body_too_large",
            Rejection::HeadTooLarge => "head_too_large",
            Rejection::RequestTimeout => "request_timeout",
            Rejection::NotFound => "not_found",
            Rejection::NoSuchAccount => "no_such_account",
            Rejection::WhichAccount => "which_account",
            Rejection::MethodNotAllowed => "method_not_allowed",
            Rejection::NoToken => "no_token",
            Rejection::NotReady(_) => "not_ready",
        }
    }

    /// What people read: what to do, and nothing about this machine.
    fn message(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Rejection::BadRequest(what) => what,
            Rejection::Forbidden(address) => {
                return Cow::Owned(format!(
                    "your address {address} is not allowed here; on the server, add it to serve's --allow"
                ));
            }
            Rejection::Forwarded => {
                "this request was forwarded by a proxy; ask the server directly, without proxy headers"
            }
            Rejection::Misdirected => {
                "this server listens on loopback and answers only to localhost, 127.0.0.1 and [::1]; \
                 to serve other hosts, have it listen on another address"
            }
            Rejection::BodyTooLarge => {
                return Cow::Owned(format!(
                    "the body is larger than {} KiB; no route here needs one",
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
                "no such path; there are /token, /token/ACCOUNT, /healthz and /readyz"
            }
            Rejection::NoSuchAccount => {
                "no account of this name here; `wxtoken status` on the server lists them"
            }
            Rejection::WhichAccount => {
                "there are several accounts here; name one: GET /token/ACCOUNT"
            }
            Rejection::MethodNotAllowed => "use GET or HEAD",
            Rejection::NoToken => {
                "there is no live token to hand out; run `wxtoken status` on the server to see why"
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

    pub(super) fn response(&self) -> Response<Full<Bytes>> {
        let mut response = response(Bytes::from(self.body()));
        *response.status_mut() = self.status();
        let (name, value) = match self.status() {
            StatusCode::METHOD_NOT_ALLOWED => {
                (header::ALLOW, HeaderValue::from_static("GET, HEAD"))
            }
            StatusCode::SERVICE_UNAVAILABLE => (header::RETRY_AFTER, RETRY_AFTER_SECS),
            _ => return response,
        };
        response.headers_mut().insert(name, value);
        response
    }

    /// The whole answer as bytes, for a caller with whom HTTP has not begun or has broken down.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let (status, body) = (self.status(), self.body());
        let mut text = format!("HTTP/1.1 {status}\r\n");
        for (name, value) in FIXED {
            text.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
        }
        text.push_str(&format!(
            "connection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
        text.into_bytes()
    }
}

/// The headers of every answer.
const FIXED: [(HeaderName, HeaderValue); 3] = [
    (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
];

/// A 200 with this JSON; hyper adds the length and the date.
pub(super) fn response(body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    response.headers_mut().reserve(FIXED.len() + 1);
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
