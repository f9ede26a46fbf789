//! What a request asks for: whom it is meant for, its path, its method. Asks for no token and for no key.

use hyper::body::Body;
use hyper::header;
use hyper::http::request::Parts;
use hyper::{Method, Version};

use super::response::Rejection;
use super::sdk::Compatible;
use crate::log;
use crate::server::access::host;
use crate::server::limits::MAX_BODY;

/// How much of a path a log line shows.
const LONGEST_PATH_SHOWN: usize = 60; // characters

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// The page for people.
    Page,
    Health,
    Ready,
    Metrics,
    /// An account's token; the only account's, if none is named.
    Token(Option<&'a str>),
    /// The same for a ticket, and its type.
    Ticket(Option<&'a str>, &'a str),
    Compatible(Compatible),
}

/// What metrics name a request that asks for no route.
pub(crate) const NO_ROUTE: &str = "other";

const READING: &str = "GET, HEAD";
const TELLING: &str = "GET, HEAD, POST";
const POSTING: &str = "POST";

impl<'a> Route<'a> {
    pub(crate) fn of(path: &'a str) -> Result<Route<'a>, Rejection> {
        Ok(match path {
            "/" => Route::Page,
            "/healthz" => Route::Health,
            "/readyz" => Route::Ready,
            "/metrics" => Route::Metrics,
            "/token" => Route::Token(None),
            "/cgi-bin/token" => Route::Compatible(Compatible::Token),
            "/cgi-bin/stable_token" => Route::Compatible(Compatible::StableToken),
            "/cgi-bin/gettoken" => Route::Compatible(Compatible::GetToken),
            "/cgi-bin/ticket/getticket" => Route::Compatible(Compatible::GetTicket),
            _ => match (path.strip_prefix("/token/"), path.strip_prefix("/ticket/")) {
                (Some(account), _) => Route::Token(Some(account)),
                (_, Some(rest)) => match rest.split_once('/') {
                    Some((account, kind)) => Route::Ticket(Some(account), kind),
                    None => Route::Ticket(None, rest),
                },
                _ => return Err(Rejection::NotFound),
            },
        })
    }

    /// Whether it needs no key: it tells nothing but whether all is well.
    pub(crate) fn is_open(self) -> bool {
        matches!(self, Route::Health | Route::Ready)
    }

    /// Whether this method is taken; `telling` says whether rejected tokens can be told.
    pub(crate) fn check_method(self, method: &Method, telling: bool) -> Result<(), Rejection> {
        let allowed = match self {
            Route::Token(_) if telling => TELLING,
            Route::Compatible(Compatible::StableToken) => POSTING,
            _ => READING,
        };
        let is_allowed = allowed.split(", ").any(|allowed| allowed == method.as_str());
        match self {
            _ if is_allowed => Ok(()),
            Route::Token(_) if method == Method::POST => Err(Rejection::CannotReplace(allowed)),
            _ => Err(Rejection::MethodNotAllowed(allowed)),
        }
    }

    /// The route as metrics name it: never what a client chose.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Route::Page => "/",
            Route::Health => "/healthz",
            Route::Ready => "/readyz",
            Route::Metrics => "/metrics",
            Route::Token(_) => "/token",
            Route::Ticket(..) => "/ticket",
            Route::Compatible(Compatible::Token) => "/cgi-bin/token",
            Route::Compatible(Compatible::StableToken) => "/cgi-bin/stable_token",
            Route::Compatible(Compatible::GetToken) => "/cgi-bin/gettoken",
            Route::Compatible(Compatible::GetTicket) => "/cgi-bin/ticket/getticket",
        }
    }
}

/// Whom the request is meant for. hyper takes a request without a Host, or with two; neither says it.
///
/// A request that came directly `to_loopback` must name a loopback host.
pub(crate) fn check_host(request: &Parts, to_loopback: bool) -> Result<(), Rejection> {
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Rejection::BadRequest("the request has more than one Host header; send one"));
    }
    if host.is_none() && request.version >= Version::HTTP_11 {
        return Err(Rejection::BadRequest("the request has no Host header; HTTP/1.1 needs one"));
    }
    if to_loopback {
        let named = host.is_none_or(|host| host.to_str().is_ok_and(host::is_loopback));
        let target =
            request.uri.authority().is_none_or(|authority| host::is_loopback(authority.as_str()));
        if !named || !target {
            return Err(Rejection::Misdirected);
        }
    }
    Ok(())
}

/// Whether the body is said to be larger than any route takes. One of unknown length is measured when it is read.
pub(crate) fn check_body(body: &impl Body) -> Result<(), Rejection> {
    if body.size_hint().lower() > MAX_BODY { Err(Rejection::BodyTooLarge) } else { Ok(()) }
}

/// The path as a log line may show it: never the query, and nothing long enough to be a token.
pub(crate) fn printable_path(path: &str) -> String {
    log::printable(&log::without_long_words(path), LONGEST_PATH_SHOWN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;
    use hyper::Request;
    use hyper::body::Bytes;

    fn get(target: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::get(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    const LOCAL: (&str, &str) = ("host", "localhost:7200");

    #[test]
    fn a_path_is_a_route_or_nothing() {
        for (path, expected) in [
            ("/", Some(Route::Page)),
            ("/token", Some(Route::Token(None))),
            ("/token/shop", Some(Route::Token(Some("shop")))),
            // What is no account's name is found to be none where the accounts are known.
            ("/token/", Some(Route::Token(Some("")))),
            ("/token/shop/", Some(Route::Token(Some("shop/")))),
            ("/token/%73hop", Some(Route::Token(Some("%73hop")))),
            ("/token/../shop", Some(Route::Token(Some("../shop")))),
            ("/token//shop", Some(Route::Token(Some("/shop")))),
            ("/ticket/jsapi", Some(Route::Ticket(None, "jsapi"))),
            ("/ticket/shop/jsapi", Some(Route::Ticket(Some("shop"), "jsapi"))),
            ("/ticket/shop/js/api", Some(Route::Ticket(Some("shop"), "js/api"))),
            ("/healthz", Some(Route::Health)),
            ("/readyz", Some(Route::Ready)),
            ("/metrics", Some(Route::Metrics)),
            ("/cgi-bin/token", Some(Route::Compatible(Compatible::Token))),
            ("/cgi-bin/ticket/getticket", Some(Route::Compatible(Compatible::GetTicket))),
            ("/cgi-bin/token/", None),
            ("/cgi-bin/clear_quota", None),
            ("/ticket", None),
            ("/tokens", None),
            ("/tokenshop", None),
            ("//token", None),
            ("/Token", None),
            ("/healthz/", None),
            ("/metrics2", None),
            ("/%74oken", None),
        ] {
            assert_eq!(Route::of(path).ok(), expected, "{path}");
        }
    }

    #[test]
    fn known_paths_are_read_and_little_else_is_done_with_them() {
        let takes = |path: &str, method: &str, telling: bool| {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            Route::of(path).expect("a route").check_method(&method, telling)
        };
        for path in [
            "/",
            "/token/shop",
            "/ticket/jsapi",
            "/healthz",
            "/readyz",
            "/metrics",
            "/cgi-bin/token",
        ] {
            for method in ["GET", "HEAD"] {
                assert_eq!(takes(path, method, false), Ok(()), "{method} {path}");
            }
            for method in ["POST", "PUT", "DELETE", "OPTIONS", "get", "PATCH"] {
                let expected = match (path, method) {
                    ("/token" | "/token/shop", "POST") => {
                        Err(Rejection::CannotReplace("GET, HEAD"))
                    }
                    _ => Err(Rejection::MethodNotAllowed("GET, HEAD")),
                };
                assert_eq!(takes(path, method, false), expected, "{method} {path}");
            }
        }
        assert_eq!(takes("/token", "POST", true), Ok(()));
        assert_eq!(
            takes("/token", "PUT", true),
            Err(Rejection::MethodNotAllowed("GET, HEAD, POST"))
        );
        assert!(takes("/readyz", "POST", true).is_err());
        assert_eq!(takes("/cgi-bin/stable_token", "POST", false), Ok(()));
        assert_eq!(
            takes("/cgi-bin/stable_token", "GET", false),
            Err(Rejection::MethodNotAllowed("POST"))
        );
    }

    #[test]
    fn a_loopback_listener_answers_only_to_loopback_names() {
        let evil = ("host", "evil.example");
        for (target, host, expected) in [
            ("/token", LOCAL, Ok(())),
            ("/token", evil, Err(Rejection::Misdirected)),
            ("http://evil.example/token", LOCAL, Err(Rejection::Misdirected)),
            ("http://localhost/token", evil, Err(Rejection::Misdirected)),
            ("http://127.0.0.1:1/token", LOCAL, Ok(())),
        ] {
            assert_eq!(check_host(&get(target, &[host]), true), expected, "{target} {host:?}");
            assert_eq!(check_host(&get(target, &[host]), false), Ok(()), "{target} {host:?}");
        }
    }

    #[test]
    fn a_request_has_exactly_one_host_unless_it_is_from_1996() {
        for to_loopback in [true, false] {
            for hosts in [&[][..], &[LOCAL, LOCAL]] {
                let checked = check_host(&get("/token", hosts), to_loopback);
                assert!(matches!(checked, Err(Rejection::BadRequest(_))));
            }
            let mut old = get("/token", &[]);
            old.version = Version::HTTP_10;
            assert!(check_host(&old, to_loopback).is_ok());
        }
    }

    #[test]
    fn a_body_is_small() {
        let body = |bytes: usize| check_body(&Full::new(Bytes::from(vec![b'x'; bytes])));
        assert!(body(16 * 1024).is_ok());
        assert_eq!(body(16 * 1024 + 1), Err(Rejection::BodyTooLarge));
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
