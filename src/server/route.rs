//! What a request asks for: the checks in their order, then the paths. Asks for no token.

use hyper::body::Body;
use hyper::header::{self, HeaderName};
use hyper::{Method, Request, Version};

use super::caller::Caller;
use super::host;
use super::limits::MAX_BODY;
use super::reply::Rejection;
use crate::report;

/// How much of a path a log line shows, and of a word in it: a longer one may be a secret or a token in the wrong place.
const LONGEST_PATH_SHOWN: usize = 60; // characters
const LONGEST_WORD_SHOWN: usize = 28; // characters

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    Health,
    Ready,
    /// An account's token; the only account's, if none is named.
    Token(Option<&'a str>),
}

impl<'a> Route<'a> {
    fn of(path: &'a str) -> Result<Route<'a>, Rejection> {
        match path {
            "/healthz" => Ok(Route::Health),
            "/readyz" => Ok(Route::Ready),
            "/token" => Ok(Route::Token(None)),
            _ => match path.strip_prefix("/token/") {
                Some(account) => Ok(Route::Token(Some(account))),
                None => Err(Rejection::NotFound),
            },
        }
    }
}

/// What a request asks for, or why it gets nothing.
pub(super) fn route<B: Body>(request: &Request<B>, caller: Caller) -> Result<Route<'_>, Rejection> {
    // Trusted proxies would be known here: from one of them, the client's own address is checked instead.
    if request.headers().keys().any(is_forwarding) {
        return Err(Rejection::Forwarded);
    }
    check_host(request, caller)?;
    check_body(request)?;
    let route = Route::of(request.uri().path())?;
    match *request.method() {
        Method::GET | Method::HEAD => Ok(route),
        _ => Err(Rejection::MethodNotAllowed),
    }
}

/// Whether a header says that the request was forwarded. Then the peer is a proxy, and its being allowed says nothing
/// about whoever asked it.
fn is_forwarding(name: &HeaderName) -> bool {
    let name = name.as_str(); // In lower case, however it was sent.
    name.starts_with("x-forwarded")
        || matches!(
            name,
            "forwarded"
                | "via"
                | "x-real-ip"
                | "x-client-ip"
                | "x-cluster-client-ip"
                | "true-client-ip"
                | "cf-connecting-ip"
        )
}

/// hyper takes a request without a Host, or with two; neither says whom it is meant for.
fn check_host<B>(request: &Request<B>, caller: Caller) -> Result<(), Rejection> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Rejection::BadRequest("the request has more than one Host header; send one"));
    }
    if host.is_none() && request.version() >= Version::HTTP_11 {
        return Err(Rejection::BadRequest("the request has no Host header; HTTP/1.1 needs one"));
    }
    if caller.to_loopback {
        let named = host.is_none_or(|host| host.to_str().is_ok_and(host::is_loopback));
        let target =
            request.uri().authority().is_none_or(|authority| host::is_loopback(authority.as_str()));
        if !named || !target {
            return Err(Rejection::Misdirected);
        }
    }
    Ok(())
}

fn check_body<B: Body>(request: &Request<B>) -> Result<(), Rejection> {
    // A body of unknown length is never read: the connection ends with the answer.
    if request.body().size_hint().lower() > MAX_BODY {
        Err(Rejection::BodyTooLarge)
    } else {
        Ok(())
    }
}

/// The path as a log line may show it: never the query, and nothing long enough to be a token.
pub(super) fn printable_path(path: &str) -> String {
    report::printable(&report::without_long_words(path, LONGEST_WORD_SHOWN), LONGEST_PATH_SHOWN)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::server::caller::Peer;
    use http_body_util::{Empty, Full};
    use hyper::body::Bytes;

    fn get(path: &str, headers: &[(&str, &str)]) -> Request<Empty<Bytes>> {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Empty::new()).expect("a request")
    }

    const TO_LOOPBACK: Caller = Caller { peer: Peer::Ip(HERE), to_loopback: true };
    const TO_ELSEWHERE: Caller = Caller { peer: Peer::Ip(HERE), to_loopback: false };
    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const LOCAL: (&str, &str) = ("host", "localhost:7200");

    #[test]
    fn a_path_is_an_account_or_nothing() {
        for (path, expected) in [
            ("/token", Ok(Route::Token(None))),
            ("/token?secret=x", Ok(Route::Token(None))),
            ("/token/shop", Ok(Route::Token(Some("shop")))),
            // What is no account's name is found to be none where the accounts are known.
            ("/token/", Ok(Route::Token(Some("")))),
            ("/token/shop/", Ok(Route::Token(Some("shop/")))),
            ("/token/%73hop", Ok(Route::Token(Some("%73hop")))),
            ("/token/../shop", Ok(Route::Token(Some("../shop")))),
            ("/token//shop", Ok(Route::Token(Some("/shop")))),
            ("/healthz", Ok(Route::Health)),
            ("/readyz", Ok(Route::Ready)),
            ("/", Err(Rejection::NotFound)),
            ("/tokens", Err(Rejection::NotFound)),
            ("/tokenshop", Err(Rejection::NotFound)),
            ("//token", Err(Rejection::NotFound)),
            ("/Token", Err(Rejection::NotFound)),
            ("/healthz/", Err(Rejection::NotFound)),
            ("/metrics2", Err(Rejection::NotFound)),
            ("/%74oken", Err(Rejection::NotFound)),
        ] {
            assert_eq!(route(&get(path, &[LOCAL]), TO_LOOPBACK), expected, "{path}");
        }
    }

    #[test]
    fn known_paths_are_read_and_nothing_else_is_done_with_them() {
        for path in ["/token/shop", "/token/other", "/healthz", "/readyz"] {
            for method in ["POST", "PUT", "DELETE", "OPTIONS", "get", "PATCH"] {
                let request =
                    Request::builder().method(method).uri(path).header("host", "localhost");
                let request = request.body(Empty::<Bytes>::new()).expect("a request");
                assert_eq!(
                    route(&request, TO_LOOPBACK),
                    Err(Rejection::MethodNotAllowed),
                    "{method} {path}"
                );
            }
        }
        let request =
            Request::post("/nowhere").header("host", "localhost").body(Empty::<Bytes>::new());
        assert_eq!(route(&request.expect("a request"), TO_LOOPBACK), Err(Rejection::NotFound));
    }

    #[test]
    fn a_forwarded_request_is_refused_before_anything_else_is_looked_at() {
        for name in [
            "Forwarded",
            "Via",
            "X-Forwarded",
            "X-Forwarded-For",
            "X-Forwarded-Proto",
            "X-Forwarded-Whatever",
            "X-Real-IP",
            "X-Client-IP",
            "X-Cluster-Client-IP",
            "True-Client-IP",
            "CF-Connecting-IP",
        ] {
            for value in ["127.0.0.1", ""] {
                let request = get("/nowhere", &[(name, value)]);
                assert_eq!(
                    route(&request, TO_ELSEWHERE),
                    Err(Rejection::Forwarded),
                    "{name}: {value}"
                );
            }
        }
        for name in ["X-Forward", "X-Request-Id", "Traceparent", "X-Real", "Client-IP-Policy"] {
            assert!(route(&get("/token", &[LOCAL, (name, "x")]), TO_LOOPBACK).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_loopback_listener_answers_only_to_loopback_names() {
        let evil = ("host", "evil.example");
        assert_eq!(route(&get("/token", &[evil]), TO_LOOPBACK), Err(Rejection::Misdirected));
        assert!(route(&get("/token", &[evil]), TO_ELSEWHERE).is_ok());
        assert_eq!(
            route(&get("http://evil.example/token", &[LOCAL]), TO_LOOPBACK),
            Err(Rejection::Misdirected)
        );
        assert_eq!(
            route(&get("http://localhost/token", &[evil]), TO_LOOPBACK),
            Err(Rejection::Misdirected)
        );
        assert!(route(&get("http://127.0.0.1:1/token", &[LOCAL]), TO_LOOPBACK).is_ok());
    }

    #[test]
    fn a_request_has_exactly_one_host_unless_it_is_from_1996() {
        for caller in [TO_LOOPBACK, TO_ELSEWHERE] {
            for hosts in [&[][..], &[LOCAL, LOCAL]] {
                let request = get("/token", hosts);
                assert!(matches!(route(&request, caller), Err(Rejection::BadRequest(_))));
            }
            let mut old = get("/token", &[]);
            *old.version_mut() = Version::HTTP_10;
            assert!(route(&old, caller).is_ok());
        }
    }

    #[test]
    fn a_body_is_small() {
        let ask = |bytes: usize| {
            let request =
                get("/token", &[LOCAL]).map(|_| Full::new(Bytes::from(vec![b'x'; bytes])));
            route(&request, TO_LOOPBACK).map(|_| ())
        };
        assert!(ask(16 * 1024).is_ok());
        assert_eq!(ask(16 * 1024 + 1), Err(Rejection::BodyTooLarge));
    }

    #[test]
    fn a_log_line_shows_no_path_that_could_hold_a_token() {
        assert_eq!(printable_path("/token/shop"), "/token/shop");
        assert_eq!(printable_path("/cgi-bin/ticket/getticket"), "/cgi-bin/ticket/getticket");
        assert_eq!(printable_path(&format!("/token/{}", "x".repeat(32))), "/token/[…]");
        assert_eq!(printable_path(&"/x".repeat(100)).chars().count(), 61);
        assert_eq!(printable_path("/\u{1b}[2J\u{202e}"), "/\\u{1b}[2J\\u{202e}");
    }
}
