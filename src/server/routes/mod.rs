//! The routes: which path and method asks for what, and how each request is answered. Knows nothing of connections.

mod body;
pub(crate) mod handler;
mod metrics;
mod page;
pub(crate) mod rejection;
pub(crate) mod response;
mod sdk;

use std::borrow::Cow;

use hyper::body::Body;
use hyper::header;
use hyper::http::request::Parts;
use hyper::{Method, Version};

use self::rejection::{Rejection, text};
use self::sdk::SdkRoute;
use crate::log;
use crate::server::access::AccessError;
use crate::server::access::browser;
use crate::server::access::host::{self, ServerNames};
use crate::server::gateway::admission::path::split_account;
use crate::server::headers::values;
use crate::server::limits::MAX_BODY;

/// How much of a path a log line shows.
const MAX_PATH_SHOWN: usize = 60; // characters

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// The status page for people.
    Page,
    Health,
    Ready,
    Metrics,
    /// The token of the named account, or of the only one.
    Token(Option<&'a str>),
    /// A ticket of the named account, or of the only one, and its type.
    Ticket(Option<&'a str>, &'a str),
    /// The signature of a page, with a ticket of the named account, or of the only one.
    Jssdk(Option<&'a str>),
    /// One of WeChat's own routes, for SDKs.
    Sdk(SdkRoute),
    /// A call that is passed on to WeChat, which is the judge of path and method.
    Api,
}

/// The label in metrics for a path that is no route.
pub(crate) const UNKNOWN_ROUTE: &str = "other";

// Methods, as the Allow header has them.
const READ: &str = "GET, HEAD";
const READ_AND_REPORT: &str = "GET, HEAD, POST";
const POST: &str = "POST";

/// The first directory in the paths of WeChat's own routes.
const WECHAT_DIRECTORY: &str = "cgi-bin/";

/// Returns the path without the slashes that careless proxies and SDKs add: one of several in a row is left, and none at the end.
pub(crate) fn without_extra_slashes(path: &str) -> Cow<'_, str> {
    let is_root = path == "/";
    // Each request comes here: a search for a string would take ten times as long.
    let has_two = path.as_bytes().windows(2).any(|pair| pair[0] == b'/' && pair[1] == b'/');
    if is_root || !(has_two || path.ends_with('/')) {
        return Cow::Borrowed(path);
    }
    let mut segments: Vec<_> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    segments.insert(0, "");
    match segments.len() {
        1 => Cow::Borrowed("/"),
        _ => Cow::Owned(segments.join("/")),
    }
}

/// Whether a path is below `/cgi-bin/`, however many slashes it has: SDKs expect an `errcode` in any answer there.
pub(crate) fn is_for_sdks(path: &str) -> bool {
    path.starts_with('/') && path.trim_start_matches('/').starts_with(WECHAT_DIRECTORY)
}

/// Whether these bytes begin with a request for a path below `/cgi-bin/`, as far as they can be read.
pub(crate) fn begins_for_sdks(bytes: &[u8]) -> bool {
    let target = bytes.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    std::str::from_utf8(target).is_ok_and(is_for_sdks)
}

impl<'a> Route<'a> {
    /// Returns the route of a path without extra slashes.
    fn parse(path: &'a str) -> Result<Route<'a>, Rejection> {
        Ok(match path {
            "/" => Route::Page,
            "/healthz" => Route::Health,
            "/readyz" => Route::Ready,
            "/metrics" => Route::Metrics,
            "/token" => Route::Token(None),
            "/jssdk" => Route::Jssdk(None),
            "/cgi-bin/token" => Route::Sdk(SdkRoute::Token),
            "/cgi-bin/stable_token" => Route::Sdk(SdkRoute::StableToken),
            "/cgi-bin/gettoken" => Route::Sdk(SdkRoute::GetToken),
            "/cgi-bin/ticket/getticket" => Route::Sdk(SdkRoute::GetTicket),
            _ => match path.strip_prefix('/').and_then(|path| path.split_once('/')) {
                Some(("token", account)) => Route::Token(Some(account)),
                Some(("jssdk", account)) => Route::Jssdk(Some(account)),
                Some(("ticket", rest)) => match rest.split_once('/') {
                    Some((account, kind)) => Route::Ticket(Some(account), kind),
                    None => Route::Ticket(None, rest),
                },
                _ => return Err(Rejection::NotFound),
            },
        })
    }

    /// Returns the route of a path without extra slashes, with a gateway: a path that is no route is a call, and SDKs also find WeChat's routes
    /// below `/gateway/ACCOUNT`.
    pub(crate) fn of(path: &'a str, has_gateway: bool) -> Result<Route<'a>, Rejection> {
        let below = || split_account(path).and_then(|(_, rest)| Route::parse(rest).ok());
        match Route::parse(path) {
            Err(Rejection::NotFound) if has_gateway => match below() {
                Some(Route::Sdk(route)) => Ok(Route::Sdk(route)),
                _ => Ok(Route::Api),
            },
            route => route,
        }
    }

    /// Fails if the route does not take this method. If `can_refresh`, rejected tokens can be reported.
    fn check_method(self, method: &Method, can_refresh: bool) -> Result<(), Rejection> {
        let is_read = matches!(*method, Method::GET | Method::HEAD);
        let is_post = *method == Method::POST;
        let (allowed, is_allowed) = match self {
            Route::Token(_) if can_refresh => (READ_AND_REPORT, is_read || is_post),
            Route::Sdk(SdkRoute::StableToken) => (POST, is_post),
            Route::Api => return Ok(()),
            _ => (READ, is_read),
        };
        match self {
            _ if is_allowed => Ok(()),
            Route::Token(_) if is_post => Err(Rejection::CannotReplace(allowed)),
            _ => Err(Rejection::MethodNotAllowed(allowed)),
        }
    }

    /// Returns the label in metrics, which never holds what a client chose.
    fn label(self) -> &'static str {
        match self {
            Route::Page => "/",
            Route::Health => "/healthz",
            Route::Ready => "/readyz",
            Route::Metrics => "/metrics",
            Route::Token(_) => "/token",
            Route::Ticket(..) => "/ticket",
            Route::Jssdk(_) => "/jssdk",
            Route::Sdk(SdkRoute::Token) => "/cgi-bin/token",
            Route::Sdk(SdkRoute::StableToken) => "/cgi-bin/stable_token",
            Route::Sdk(SdkRoute::GetToken) => "/cgi-bin/gettoken",
            Route::Sdk(SdkRoute::GetTicket) => "/cgi-bin/ticket/getticket",
            Route::Api => "gateway",
        }
    }
}

/// Checks that the request is meant for this server, by its one `Host`. hyper also takes a request with none or with two.
///
/// If there are `names`, the host must be one of them, or one that counts at a loopback address.
fn check_host(
    request: &Parts,
    names: Option<&ServerNames>,
    is_to_loopback: bool,
    is_gateway: bool,
) -> Result<(), Rejection> {
    let mut hosts = values(&request.headers, header::HOST);
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Rejection::BadRequest(text::SEVERAL_HOSTS));
    }
    if host.is_none() && request.version >= Version::HTTP_11 {
        return Err(Rejection::BadRequest(text::NO_HOST));
    }
    let Some(names) = names else { return Ok(()) };
    let admits = |authority: &str| {
        names.admits(authority, is_to_loopback)
            || (is_gateway && host::platform_at(authority).is_some())
    };
    let is_host_ours = host.is_none_or(|host| match host.to_str() {
        Ok(host) => admits(host),
        Err(_) => admits(&String::from_utf8_lossy(host.as_bytes())),
    });
    let is_target_ours = request.uri.authority().is_none_or(|it| admits(it.as_str()));
    match is_host_ours && is_target_ours {
        true => Ok(()),
        false => Err(AccessError::Misdirected.into()),
    }
}

/// Checks that no page of another site makes a browser send the request. A call of the gateway may come from this server's own pages only.
/// Other sites may link to the status page.
fn check_site(request: &Parts, route: Option<Route<'_>>) -> Result<(), Rejection> {
    let headers = &request.headers;
    let is_visit = route == Some(Route::Page) && browser::is_navigation(headers);
    let is_foreign = match route {
        Some(Route::Api) => browser::is_cross_origin(headers),
        _ => browser::is_cross_site(headers) && !is_visit,
    };
    if is_foreign { Err(AccessError::CrossSite.into()) } else { Ok(()) }
}

/// Fails if the declared length of the body is more than any route takes. A body of unknown length is measured when it is read.
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
            // One slash too many is none.
            ("//", Some(Route::Page)),
            ("//token", Some(Route::Token(None))),
            ("/token/", Some(Route::Token(None))),
            ("/token//", Some(Route::Token(None))),
            ("/token/shop/", Some(Route::Token(Some("shop")))),
            ("/token//shop", Some(Route::Token(Some("shop")))),
            ("///token///shop///", Some(Route::Token(Some("shop")))),
            ("/ticket//shop//jsapi/", Some(Route::Ticket(Some("shop"), "jsapi"))),
            ("//cgi-bin/token", Some(Route::Sdk(SdkRoute::Token))),
            ("/cgi-bin//token", Some(Route::Sdk(SdkRoute::Token))),
            ("/cgi-bin/token/", Some(Route::Sdk(SdkRoute::Token))),
            ("/cgi-bin/ticket//getticket", Some(Route::Sdk(SdkRoute::GetTicket))),
            ("/healthz/", Some(Route::Health)),
            // Whether there is such an account is found out later.
            ("/token/%73hop", Some(Route::Token(Some("%73hop")))),
            ("/token/../shop", Some(Route::Token(Some("../shop")))),
            ("/ticket/jsapi", Some(Route::Ticket(None, "jsapi"))),
            ("/jssdk", Some(Route::Jssdk(None))),
            ("/jssdk/", Some(Route::Jssdk(None))),
            ("/jssdk/shop", Some(Route::Jssdk(Some("shop")))),
            ("/jssdk2", None),
            ("token/shop", None),
            ("/ticket/shop/jsapi", Some(Route::Ticket(Some("shop"), "jsapi"))),
            ("/ticket/shop/js/api", Some(Route::Ticket(Some("shop"), "js/api"))),
            ("/healthz", Some(Route::Health)),
            ("/readyz", Some(Route::Ready)),
            ("/metrics", Some(Route::Metrics)),
            ("/cgi-bin/token", Some(Route::Sdk(SdkRoute::Token))),
            ("/cgi-bin/ticket/getticket", Some(Route::Sdk(SdkRoute::GetTicket))),
            ("/cgi-bin", None),
            ("/cgi-bin/", None),
            ("/cgi-bin/clear_quota", None),
            ("/ticket", None),
            ("/ticket/", None),
            ("/tokens", None),
            ("/tokenshop", None),
            ("/Token", None),
            ("/metrics2", None),
            ("/%74oken", None),
            ("/%2Ftoken", None),
            ("", None),
        ] {
            assert_eq!(Route::parse(&without_extra_slashes(path)).ok(), expected, "{path}");
        }
    }

    #[test]
    fn paths_below_cgi_bin_are_for_sdks() {
        for (path, expected) in [
            ("/cgi-bin/", true),
            ("/cgi-bin/token", true),
            ("/cgi-bin/clear_quota", true),
            ("//cgi-bin//token", true),
            ("/cgi-bin", false),
            ("/cgi-bins/token", false),
            ("/token/cgi-bin/", false),
            ("cgi-bin/token", false),
            ("/", false),
            ("", false),
        ] {
            assert_eq!(is_for_sdks(path), expected, "{path}");
            for rest in [" HTTP/1.1\r\nHost: x", "?a=b HTTP/1.1", " x y z", ""] {
                let bytes = format!("GET {path}{rest}");
                assert_eq!(begins_for_sdks(bytes.as_bytes()), expected, "{bytes}");
            }
        }
        assert!(!begins_for_sdks(b"\xff\xff /cgi-bin") && !begins_for_sdks(b"GET /\xff/cgi-bin/"));
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
    fn at_a_loopback_address_both_host_and_target_are_loopback_names() {
        let names = ServerNames::default();
        let evil = ("host", "evil.example");
        for (target, host, expected) in [
            ("/token", LOCAL, Ok(())),
            ("/token", evil, Err(Rejection::Misdirected)),
            ("http://evil.example/token", LOCAL, Err(Rejection::Misdirected)),
            ("http://localhost/token", evil, Err(Rejection::Misdirected)),
            ("http://127.0.0.1:1/token", LOCAL, Ok(())),
        ] {
            let request = get(target, &[host]);
            assert_eq!(
                check_host(&request, Some(&names), true, false),
                expected,
                "{target} {host:?}"
            );
            assert_eq!(
                check_host(&request, Some(&names), false, false),
                Ok(()),
                "{target} {host:?}"
            );
            assert_eq!(check_host(&request, None, true, false), Ok(()), "{target} {host:?}");
        }
    }

    #[test]
    fn a_request_names_exactly_one_host_unless_it_is_http_1_0() {
        let none = ServerNames::default();
        for (names, to_loopback) in [(Some(&none), true), (Some(&none), false), (None, false)] {
            for hosts in [&[][..], &[LOCAL, LOCAL]] {
                let checked = check_host(&get("/token", hosts), names, to_loopback, false);
                assert!(matches!(checked, Err(Rejection::BadRequest(_))));
            }
            let mut old = get("/token", &[]);
            old.version = Version::HTTP_10;
            assert!(check_host(&old, names, to_loopback, false).is_ok());
        }
    }

    #[test]
    fn a_page_of_another_site_reaches_the_page_for_people_by_a_link_and_nothing_else() {
        let cross_site = ("sec-fetch-site", "cross-site");
        let link = [cross_site, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        for (lines, route, expected) in [
            (&link[..], Some(Route::Page), Ok(())),
            (&[cross_site], Some(Route::Page), Err(Rejection::CrossSite)),
            (&link, Some(Route::Token(None)), Err(Rejection::CrossSite)),
            (&link, Some(Route::Sdk(SdkRoute::Token)), Err(Rejection::CrossSite)),
            (&link, None, Err(Rejection::CrossSite)),
            (&[("sec-fetch-site", "same-origin")], Some(Route::Token(None)), Ok(())),
            (&[], Some(Route::Token(None)), Ok(())),
        ] {
            assert_eq!(check_site(&get("/", lines), route), expected, "{lines:?} {route:?}");
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
