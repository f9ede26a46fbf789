//! What is answered: the bodies, statuses and headers that callers rely on. Decides nothing.

use std::borrow::Cow;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

/// In how many seconds a caller may ask again when there is no live token: a `fetch` takes that long at most.
const RETRY_AFTER_SECS: HeaderValue = HeaderValue::from_static("10");

/// The body of an endpoint that only says yes.
pub(super) const OK: Bytes = Bytes::from_static(br#"{"status":"ok"}"#);

/// Why a request is not answered with what it asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not HTTP, or HTTP that can be read in two ways; the text says which.
    BadRequest(&'static str),
    /// The peer's address is not allowed.
    Forbidden,
    /// It came through a proxy that nobody said to trust.
    Forwarded,
    /// Meant for another host.
    Misdirected,
    /// The body is larger than any route takes.
    BodyTooLarge,
    /// The head is larger than is read.
    HeadTooLarge,
    /// It did not arrive in time.
    TooSlow,
    NoSuchRoute,
    NoSuchAccount,
    /// `/token` where there are several accounts.
    WhichAccount,
    MethodNotAllowed,
    NoToken,
    /// The accounts that have no live token.
    NotReady(Vec<String>),
}

impl Refusal {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Refusal::BadRequest(_) => StatusCode::BAD_REQUEST,
            Refusal::Forbidden | Refusal::Forwarded => StatusCode::FORBIDDEN,
            Refusal::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Refusal::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Refusal::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Refusal::NoSuchRoute | Refusal::NoSuchAccount | Refusal::WhichAccount => {
                StatusCode::NOT_FOUND
            }
            Refusal::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::NoToken | Refusal::NotReady(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Whether nothing more is read from this caller.
    pub(super) fn closes(&self) -> bool {
        match self {
            Refusal::BadRequest(_) | Refusal::Forbidden | Refusal::Forwarded => true,
            Refusal::BodyTooLarge | Refusal::HeadTooLarge | Refusal::TooSlow => true,
            Refusal::Misdirected
            | Refusal::MethodNotAllowed
            | Refusal::NoToken
            | Refusal::NotReady(_) => false,
            Refusal::NoSuchRoute | Refusal::NoSuchAccount | Refusal::WhichAccount => false,
        }
    }

    /// What programs read.
    fn error(&self) -> &'static str {
        match self {
            Refusal::BadRequest(_) => "bad_request",
            Refusal::Forbidden => "forbidden",
            Refusal::Forwarded => "forwarded",
            Refusal::Misdirected => "misdirected",
            Refusal::BodyTooLarge => "body_too_large",
            Refusal::HeadTooLarge => "head_too_large",
            Refusal::TooSlow => "request_timeout",
            Refusal::NoSuchRoute => "not_found",
            Refusal::NoSuchAccount => "no_such_account",
            Refusal::WhichAccount => "which_account",
            Refusal::MethodNotAllowed => "method_not_allowed",
            Refusal::NoToken => "no_token",
            Refusal::NotReady(_) => "not_ready",
        }
    }

    /// What people read: what to do, and nothing about this machine.
    fn message(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Refusal::BadRequest(what) => what,
            Refusal::Forbidden => {
                "your address is not allowed here; on the server, add it to serve's --allow"
            }
            Refusal::Forwarded => {
                "this request was forwarded by a proxy; ask the server directly, without proxy headers"
            }
            Refusal::Misdirected => {
                "this server listens on loopback and answers only to localhost, 127.0.0.1 and [::1]; \
                 to serve other hosts, have it listen on another address"
            }
            Refusal::BodyTooLarge => "the body is larger than 16 KiB; no route here needs one",
            Refusal::HeadTooLarge => {
                "the request line and headers are larger than 8 KiB; send fewer or shorter headers"
            }
            Refusal::TooSlow => "the request did not arrive within 10 seconds; send it at once",
            Refusal::NoSuchRoute => {
                "no such path; there are /token, /token/ACCOUNT, /healthz and /readyz"
            }
            Refusal::NoSuchAccount => {
                "no account of this name here; `wxtoken status` on the server lists them"
            }
            Refusal::WhichAccount => {
                "there are several accounts here; name one: GET /token/ACCOUNT"
            }
            Refusal::MethodNotAllowed => "use GET or HEAD",
            Refusal::NoToken => {
                "there is no live token to hand out; run `wxtoken status` on the server to see why"
            }
            Refusal::NotReady(accounts) => {
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
        let text = String::from_utf8(Refusal::TooSlow.bytes()).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{head}");
        assert!(head.contains("\r\ncache-control: no-store\r\n"), "{head}");
        assert!(head.ends_with(&format!("\r\ncontent-length: {}", body.len())), "{head}");
        assert!(body.starts_with(r#"{"error":"request_timeout","message":""#), "{body}");
    }
}
