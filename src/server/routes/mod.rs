//! The routes: which path and method asks for what, and how each request is answered. Knows nothing of connections.

mod body;
pub(crate) mod handler;
mod metrics;
mod page;
pub(crate) mod rejection;
pub(crate) mod response;
mod sdk;

use hyper::body::Body;
use hyper::header;
use hyper::http::request::Parts;
use hyper::{Method, Version};

use self::rejection::Rejection;
use self::sdk::SdkRoute;
use crate::log;
use crate::server::access::host;
use crate::server::limits::MAX_BODY;

/// How much of a path a log line shows.
const MAX_PATH_SHOWN: usize = 60; // characters

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route<'a> {
    /// The status page for people.
    Page,
    Health,
    Ready,
    Metrics,
    /// The token of the named account, or of the only one.
    Token(Option<&'a str>),
    /// A ticket of the named account, or of the only one, and its type.
    Ticket(Option<&'a str>, &'a str),
    /// One of WeChat's own routes, for SDKs.
    Sdk(SdkRoute),
}

/// The label in metrics for a path that is no route.
pub(crate) const UNKNOWN_ROUTE: &str = "other";

// Methods, as the Allow header has them.
const READ: &str = "GET, HEAD";
const READ_AND_REPORT: &str = "GET, HEAD, POST";
const POST: &str = "POST";

impl<'a> Route<'a> {
    /// Returns the route of a path.
    fn parse(path: &'a str) -> Result<Route<'a>, Rejection> {
        Ok(match path {
            "/" => Route::Page,
            "/healthz" => Route::Health,
            "/readyz" => Route::Ready,
            "/metrics" => Route::Metrics,
            "/token" => Route::Token(None),
            "/cgi-bin/token" => Route::Sdk(SdkRoute::Token),
            "/cgi-bin/stable_token" => Route::Sdk(SdkRoute::StableToken),
            "/cgi-bin/gettoken" => Route::Sdk(SdkRoute::GetToken),
            "/cgi-bin/ticket/getticket" => Route::Sdk(SdkRoute::GetTicket),
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

    /// Fails if the route does not take this method. If `can_refresh`, rejected tokens can be reported.
    fn check_method(self, method: &Method, can_refresh: bool) -> Result<(), Rejection> {
        let allowed = match self {
            Route::Token(_) if can_refresh => READ_AND_REPORT,
            Route::Sdk(SdkRoute::StableToken) => POST,
            _ => READ,
        };
        let is_allowed = allowed.split(", ").any(|allowed| allowed == method.as_str());
        match self {
            _ if is_allowed => Ok(()),
            Route::Token(_) if method == Method::POST => Err(Rejection::CannotReplace(allowed)),
            _ => Err(Rejection::MethodNotAllowed(allowed)),
        }
    }

    /// The label in metrics, which never holds what a client chose.
    fn label(self) -> &'static str {
        match self {
            Route::Page => "/",
            Route::Health => "/healthz",
            Route::Ready => "/readyz",
            Route::Metrics => "/metrics",
            Route::Token(_) => "/token",
            Route::Ticket(..) => "/ticket",
            Route::Sdk(SdkRoute::Token) => "/cgi-bin/token",
            Route::Sdk(SdkRoute::StableToken) => "/cgi-bin/stable_token",
            Route::Sdk(SdkRoute::GetToken) => "/cgi-bin/gettoken",
            Route::Sdk(SdkRoute::GetTicket) => "/cgi-bin/ticket/getticket",
        }
    }
}

/// Fails unless the request names one host; hyper accepts none or several. A request that came directly `to_loopback`
/// must name a loopback host, so that a page in a browser cannot ask by rebinding its own host's name.
fn check_host(request: &Parts, to_loopback: bool) -> Result<(), Rejection> {
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Rejection::BadRequest("the request has more than one Host header; send one"));
    }
    if host.is_none() && request.version >= Version::HTTP_11 {
        return Err(Rejection::BadRequest("the request has no Host header; HTTP/1.1 needs one"));
    }
    if to_loopback {
        let is_host_loopback = host.is_none_or(|host| host.to_str().is_ok_and(host::is_loopback));
        let is_target_loopback =
            request.uri.authority().is_none_or(|authority| host::is_loopback(authority.as_str()));
        if !is_host_loopback || !is_target_loopback {
            return Err(Rejection::Misdirected);
        }
    }
    Ok(())
}

/// Fails if the body is declared to be larger than any route takes. One of unknown length is measured when it is read.
fn check_body(body: &impl Body) -> Result<(), Rejection> {
    if body.size_hint().lower() > MAX_BODY { Err(Rejection::BodyTooLarge) } else { Ok(()) }
}

/// Returns the path for a log line, without anything long enough to be a token.
pub(crate) fn printable_path(path: &str) -> String {
    log::printable(&log::without_long_words(path), MAX_PATH_SHOWN)
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
    fn a_path_is_a_route_or_not_found() {
        for (path, expected) in [
            ("/", Some(Route::Page)),
            ("/token", Some(Route::Token(None))),
            ("/token/shop", Some(Route::Token(Some("shop")))),
            // Whether there is such an account is found out later.
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
            ("/cgi-bin/token", Some(Route::Sdk(SdkRoute::Token))),
            ("/cgi-bin/ticket/getticket", Some(Route::Sdk(SdkRoute::GetTicket))),
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
            assert_eq!(Route::parse(path).ok(), expected, "{path}");
        }
    }

    #[test]
    fn routes_take_get_and_head_and_few_take_post() {
        let takes = |path: &str, method: &str, can_refresh: bool| {
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            Route::parse(path).expect("a route").check_method(&method, can_refresh)
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
    fn a_request_names_exactly_one_host_unless_it_is_http_1_0() {
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
    fn a_declared_body_beyond_the_limit_is_refused() {
        let body = |bytes: usize| check_body(&Full::new(Bytes::from(vec![b'x'; bytes])));
        assert!(body(16 * 1024).is_ok());
        assert_eq!(body(16 * 1024 + 1), Err(Rejection::BodyTooLarge));
    }

    #[test]
    fn a_log_line_shows_no_word_of_a_path_that_can_be_a_token() {
        assert_eq!(printable_path("/token/shop"), "/token/shop");
        assert_eq!(printable_path("/cgi-bin/ticket/getticket"), "/cgi-bin/ticket/getticket");
        assert_eq!(printable_path(&format!("/token/{}", "x".repeat(32))), "/token/[…]");
        assert_eq!(printable_path(&"/x".repeat(100)).chars().count(), 61);
        assert_eq!(printable_path("/\u{1b}[2J\u{202e}"), "/\\u{1b}[2J\\u{202e}");
    }
}
