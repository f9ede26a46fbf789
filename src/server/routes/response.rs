//! HTTP responses: the bodies and headers that clients rely on. Decides nothing.

use std::sync::LazyLock;
use std::time::Duration;

use http_body_util::{Either, Full};
use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode};

use super::rejection::{Challenge, Rejection};
use super::sdk::WechatError;
use crate::language::{self, Language};
use crate::model::status::Unavailable;
use crate::server::access::peer::Peer;
use crate::server::gateway::body::ResponseBody;
use crate::server::gateway::error::GatewayError;

/// The body of a response that is no rejection.
pub(crate) enum Reply {
    /// JSON, which may have texts in two languages.
    Json(Bytes),
    /// A token or a ticket, as JSON.
    Issued(Bytes),
    /// The token that a client reported as rejected, once more.
    KeptToken(Bytes),
    /// Metrics in Prometheus's text format.
    Metrics(String),
    /// A page for people.
    Page(String),
    /// WeChat's answer to a call.
    Api(Box<Response<ResponseBody>>),
    /// A call has no answer.
    ApiError(GatewayError),
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const PAGE: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// Allows the page its own style. It loads nothing else, and no other page frames it.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
);

/// When a client may come again for which there was no connection: its others are answered soon.
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Says of a token that was reported as rejected why it is handed out again.
const REPORTED_TOKEN: HeaderName = HeaderName::from_static("wxtoken-reported-token");

/// WeChat honoured the token when it was probed, just now or moments ago.
const HONOURED: HeaderValue = HeaderValue::from_static("honoured");

/// The beginning of the head of every token or ticket.
const ISSUED_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\n";

/// What the last answer on a connection has in its head.
const CLOSE: &[u8] = b"connection: close\r\n";

/// More than the rest of a head needs beside its values.
const SPACE_FOR_NAMES: usize = 32;

/// The headers of every response, besides its type.
const FIXED: [(HeaderName, HeaderValue); 2] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
];

impl Reply {
    /// The reply of a route that only confirms.
    pub(crate) const OK: Reply = Reply::Json(Bytes::from_static(br#"{"status":"ok"}"#));

    /// The HTTP status.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Reply::Json(_)
            | Reply::Issued(_)
            | Reply::KeptToken(_)
            | Reply::Metrics(_)
            | Reply::Page(_) => StatusCode::OK,
            Reply::Api(response) => response.status(),
            Reply::ApiError(error) => error.status(),
        }
    }

    /// Whether the connection is closed after it.
    pub(crate) fn closes(&self) -> bool {
        matches!(self, Reply::ApiError(error) if error.closes())
    }

    /// Returns the response with this body, in a language of this `Accept-Language`.
    pub(crate) fn into_response(self, languages: Option<&HeaderValue>) -> Response<ResponseBody> {
        self.into_whole(languages).map_or_else(|streamed| *streamed, with_body)
    }

    /// Returns the response with a whole body; the response of an answer by WeChat as it is.
    fn into_whole(
        self,
        languages: Option<&HeaderValue>,
    ) -> Result<Response<Bytes>, Box<Response<ResponseBody>>> {
        Ok(match self {
            Reply::Api(response) => return Err(response),
            Reply::ApiError(error) => {
                response(error.status(), resolved(error.body(), languages), JSON)
            }
            Reply::Json(body) => response(StatusCode::OK, resolved(body, languages), JSON),
            Reply::Issued(body) => response(StatusCode::OK, body, JSON),
            Reply::KeptToken(body) => {
                let mut response = response(StatusCode::OK, body, JSON);
                response.headers_mut().insert(REPORTED_TOKEN, HONOURED);
                response
            }
            Reply::Metrics(text) => response(StatusCode::OK, text.into(), METRICS),
            Reply::Page(html) => {
                let mut response = response(StatusCode::OK, html.into(), PAGE);
                let headers = response.headers_mut();
                headers.insert(header::CONTENT_SECURITY_POLICY, PAGE_POLICY);
                headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
                response
            }
        })
    }
}

/// Returns a response whose body is whole.
pub(crate) fn with_body(response: Response<Bytes>) -> Response<ResponseBody> {
    response.map(|body| Either::Left(Full::new(body)))
}

/// What a request is answered: a reply, or a rejection, for which the second field is the client if it may come from an SDK.
pub(crate) type Outcome = Result<Reply, (Rejection, Option<Peer>)>;

/// Returns an answer as hyper writes it to a GET by HTTP/1.1 with the headers `asked`. It is the last one if it `closes` the
/// connection. `None` for an answer of WeChat's, which streams.
pub(crate) fn in_bytes(
    answer: Outcome,
    asked: &HeaderMap,
    closes: bool,
    date: &[u8],
) -> Option<Vec<u8>> {
    let (mut bytes, body) = match answer {
        Ok(Reply::Issued(body)) => (ISSUED_HEAD.to_vec(), body),
        answer => {
            let languages = asked.get(header::ACCEPT_LANGUAGE);
            let response = match answer {
                Ok(reply) => reply.into_whole(languages).ok()?,
                Err((rejection, sdk)) => refuse(&rejection, sdk, languages),
            };
            let mut bytes = format!("HTTP/1.1 {}\r\n", response.status()).into_bytes();
            for (name, value) in response.headers() {
                let line = [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"];
                line.iter().for_each(|part| bytes.extend_from_slice(part));
            }
            (bytes, response.into_body())
        }
    };
    let (close, length) = (if closes { CLOSE } else { b"" }, body.len().to_string());
    bytes.reserve_exact(close.len() + length.len() + date.len() + body.len() + SPACE_FOR_NAMES);
    for part in
        [close, b"content-length: ", length.as_bytes(), b"\r\ndate: ", date, b"\r\n\r\n", &body]
    {
        bytes.extend_from_slice(part);
    }
    Some(bytes)
}

/// Returns the response to a refused request, in a language of this `Accept-Language`. If it may come from an SDK, `sdk` is
/// the client.
pub(crate) fn refuse(
    rejection: &Rejection,
    sdk: Option<Peer>,
    languages: Option<&HeaderValue>,
) -> Response<Bytes> {
    let body = resolved(error_body(rejection, sdk).into(), languages);
    let mut response = response(rejection.status(), body, JSON);
    let retry_after = |span: Duration| HeaderValue::from(span.as_secs().max(1));
    let (name, value) = match rejection {
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
        Rejection::NoToken(unavailable) | Rejection::NoTicket(unavailable) => {
            (header::RETRY_AFTER, retry_after(unavailable.retry_after))
        }
        Rejection::NotReady(_) => (header::RETRY_AFTER, retry_after(Unavailable::RETRY_AFTER)),
        _ => return response,
    };
    response.headers_mut().insert(name, value);
    response
}

/// Returns the answer to a refused request as bytes, for a client with whom HTTP has not begun or has failed.
pub(crate) fn refuse_in_bytes(rejection: &Rejection, sdk: Option<Peer>) -> Vec<u8> {
    let (status, body) = (rejection.status(), error_body(rejection, sdk));
    let body = Language::Both.resolve(&body);
    let mut text = format!("HTTP/1.1 {status}\r\n");
    for (name, value) in [(header::CONTENT_TYPE, JSON)].into_iter().chain(FIXED) {
        text += &format!("{name}: {}\r\n", value.to_str().unwrap_or_default());
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        text += &format!("{}: {}\r\n", header::RETRY_AFTER, BUSY_RETRY_AFTER.as_secs());
    }
    text += &format!("connection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    text.into_bytes()
}

fn error_body(rejection: &Rejection, sdk: Option<Peer>) -> String {
    let mut body = serde_json::json!({"error": rejection.code(), "message": rejection.message()});
    if let Some(client) = sdk {
        let WechatError { errcode, errmsg } = WechatError::new(rejection, client);
        body["errcode"] = errcode.into();
        body["errmsg"] = errmsg.into();
    }
    body.to_string()
}

/// Returns a body with its messages in a language of this `Accept-Language`.
fn resolved(body: Bytes, languages: Option<&HeaderValue>) -> Bytes {
    if !language::may_be_unresolved(&body) {
        return body;
    }
    match std::str::from_utf8(&body) {
        Ok(text) if language::is_unresolved(text) => {
            let languages = languages.and_then(|value| value.to_str().ok());
            Language::of_accept_language(languages).resolve(text).into_owned().into()
        }
        _ => body,
    }
}

/// Returns a response with the fixed headers. hyper adds the length and the date.
fn response(status: StatusCode, body: Bytes, content_type: HeaderValue) -> Response<Bytes> {
    /// Those of JSON. A copy takes a quarter of the time in which they are put together.
    static HEADERS: LazyLock<HeaderMap> = LazyLock::new(|| {
        let mut headers = HeaderMap::with_capacity(FIXED.len() + 2);
        headers.extend([(header::CONTENT_TYPE, JSON)].into_iter().chain(FIXED));
        headers
    });
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = HEADERS.clone();
    if content_type != JSON {
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_of_a_token_that_is_written_beforehand_is_that_of_its_response() {
        for closes in [false, true] {
            let body = || Bytes::from_static(b"{\"access_token\":\"T\"}");
            let bytes =
                |reply| in_bytes(Ok(reply), &HeaderMap::new(), closes, b"now").expect("whole");
            let text = String::from_utf8(bytes(Reply::Issued(body()))).expect("text");
            assert_eq!(text.as_bytes(), bytes(Reply::Json(body())), "{text}");
            assert_eq!(text.contains("\r\nconnection: close\r\n"), closes, "{text}");
            let end = "\r\ncontent-length: 20\r\ndate: now\r\n\r\n{\"access_token\":\"T\"}";
            assert!(text.ends_with(end), "{text}");
        }
    }

    #[test]
    fn a_refusal_in_bytes_looks_like_one_over_http() {
        let bytes = refuse_in_bytes(&Rejection::RequestTimeout, Some(Peer::Unix));
        let text = String::from_utf8(bytes).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{head}");
        assert!(head.contains("\r\ncache-control: no-store\r\n"), "{head}");
        assert!(head.ends_with(&format!("\r\ncontent-length: {}", body.len())), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!((&body["error"], &body["errcode"]), (&"request_timeout".into(), &(-1).into()));
        assert!(body["message"].is_string() && body["errmsg"].is_string(), "{body}");
    }
}
