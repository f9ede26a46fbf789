//! What a request gets: the checks in their order, then the paths. Knows requests and answers, not connections.

use hyper::body::{Body, Bytes};
use hyper::header::{self, HeaderName};
use hyper::{Method, Request, Version};

use super::reply::{self, Refusal};
use super::{Tokens, host};
use crate::report;

/// The largest body that is taken: WeChat's own requests have a few hundred bytes.
const MAX_BODY: u64 = 16 * 1024; // bytes

/// The longest path that is shown as it is; a longer one may well be a token in the wrong place.
const LONGEST_PATH_SHOWN: usize = 40; // characters

/// The body of a 200, or why there is none. `loopback_only` is for a listener on a loopback address.
pub(super) fn answer<B: Body>(
    request: &Request<B>,
    loopback_only: bool,
    tokens: &dyn Tokens,
) -> Result<Bytes, Refusal> {
    // Trusted proxies would be known here: from one of them, the client's own address is checked instead.
    if request.headers().keys().any(is_forwarding) {
        return Err(Refusal::Forwarded);
    }
    check_host(request, loopback_only)?;
    check_body(request)?;
    let reading = matches!(*request.method(), Method::GET | Method::HEAD);
    let known = |body: Bytes| if reading { Ok(body) } else { Err(Refusal::MethodNotAllowed) };
    match request.uri().path() {
        "/healthz" => known(reply::OK),
        "/readyz" => {
            match tokens.accounts().iter().filter(|account| tokens.token(account).is_none()) {
                _ if !reading => Err(Refusal::MethodNotAllowed),
                waiting => match waiting.cloned().collect::<Vec<_>>() {
                    none if none.is_empty() => Ok(reply::OK),
                    waiting => Err(Refusal::NotReady(waiting)),
                },
            }
        }
        path => {
            let account = account(path, tokens.accounts())?;
            if !reading {
                return Err(Refusal::MethodNotAllowed);
            }
            tokens.token(account).ok_or(Refusal::NoToken)
        }
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

/// The account that `/token` or `/token/ACCOUNT` means.
fn account<'a>(path: &str, accounts: &'a [String]) -> Result<&'a str, Refusal> {
    let rest = path.strip_prefix("/token").ok_or(Refusal::NoSuchRoute)?;
    match (rest.strip_prefix('/'), accounts) {
        (Some(name), _) => accounts
            .iter()
            .find(|account| *account == name)
            .map(String::as_str)
            .ok_or(Refusal::NoSuchAccount),
        (None, _) if !rest.is_empty() => Err(Refusal::NoSuchRoute),
        (None, [only]) => Ok(only),
        (None, []) => Err(Refusal::NoSuchAccount),
        (None, _) => Err(Refusal::WhichAccount),
    }
}

/// hyper takes a request without a Host, or with two; neither says whom it is meant for.
fn check_host<B>(request: &Request<B>, loopback_only: bool) -> Result<(), Refusal> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::BadRequest("the request has more than one Host header; send one"));
    }
    if host.is_none() && request.version() >= Version::HTTP_11 {
        return Err(Refusal::BadRequest("the request has no Host header; HTTP/1.1 needs one"));
    }
    if loopback_only {
        let named = host.is_none_or(|host| host.to_str().is_ok_and(host::is_loopback));
        let target =
            request.uri().authority().is_none_or(|authority| host::is_loopback(authority.as_str()));
        if !named || !target {
            return Err(Refusal::Misdirected);
        }
    }
    Ok(())
}

fn check_body<B: Body>(request: &Request<B>) -> Result<(), Refusal> {
    // A body of unknown length is never read: the connection ends with the answer.
    if request.body().size_hint().lower() > MAX_BODY { Err(Refusal::BodyTooLarge) } else { Ok(()) }
}

/// The path as a log line may show it: never the query, and nothing long enough to be a token.
pub(super) fn printable_path(path: &str) -> String {
    if path.chars().nth(LONGEST_PATH_SHOWN).is_some() {
        format!("/…({} bytes)", path.len())
    } else {
        report::printable(path, LONGEST_PATH_SHOWN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{Empty, Full};

    struct Fixed(Vec<String>);

    impl Tokens for Fixed {
        fn accounts(&self) -> &[String] {
            &self.0
        }

        /// Those whose name begins with `dead` have no live token.
        fn token(&self, account: &str) -> Option<Bytes> {
            (!account.starts_with("dead")).then(|| Bytes::from(account.to_owned()))
        }
    }

    fn accounts(names: &[&str]) -> Fixed {
        Fixed(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn get(path: &str, headers: &[(&str, &str)]) -> Request<Empty<Bytes>> {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Empty::new()).expect("a request")
    }

    const LOCAL: (&str, &str) = ("host", "localhost:7200");

    #[test]
    fn a_path_is_an_account_or_nothing() {
        let (one, two, none) = (accounts(&["shop"]), accounts(&["shop", "dead"]), accounts(&[]));
        let ask = |tokens: &Fixed, path: &str| answer(&get(path, &[LOCAL]), true, tokens);
        let shop = Ok(Bytes::from("shop"));
        assert_eq!(ask(&one, "/token"), shop);
        assert_eq!(ask(&one, "/token?secret=x"), shop);
        assert_eq!(ask(&two, "/token/shop"), shop);
        assert_eq!(ask(&two, "/token"), Err(Refusal::WhichAccount));
        assert_eq!(ask(&none, "/token"), Err(Refusal::NoSuchAccount));
        assert_eq!(ask(&two, "/token/dead"), Err(Refusal::NoToken));
        for path in [
            "/token/",
            "/token/Shop",
            "/token/shop/",
            "/token/%73hop",
            "/token/../shop",
            "/token//shop",
        ] {
            assert_eq!(ask(&two, path), Err(Refusal::NoSuchAccount), "{path}");
        }
        for path in [
            "/",
            "/tokens",
            "/tokenshop",
            "//token",
            "/Token",
            "/healthz/",
            "/metrics2",
            "/%74oken",
        ] {
            assert_eq!(ask(&one, path), Err(Refusal::NoSuchRoute), "{path}");
        }
    }

    #[test]
    fn ready_means_that_every_account_has_a_live_token() {
        let ask = |tokens: &Fixed, path: &str| answer(&get(path, &[LOCAL]), true, tokens);
        assert_eq!(ask(&accounts(&["shop", "branch"]), "/readyz"), Ok(reply::OK));
        let some_dead = accounts(&["dead1", "shop", "dead2"]);
        assert_eq!(
            ask(&some_dead, "/readyz"),
            Err(Refusal::NotReady(vec!["dead1".to_owned(), "dead2".to_owned()]))
        );
        assert_eq!(ask(&some_dead, "/healthz"), Ok(reply::OK));
    }

    #[test]
    fn known_paths_are_read_and_nothing_else_is_done_with_them() {
        let tokens = accounts(&["shop", "dead"]);
        for path in ["/token/shop", "/token/dead", "/healthz", "/readyz"] {
            for method in ["POST", "PUT", "DELETE", "OPTIONS", "get", "PATCH"] {
                let request =
                    Request::builder().method(method).uri(path).header("host", "localhost");
                let request = request.body(Empty::<Bytes>::new()).expect("a request");
                assert_eq!(
                    answer(&request, true, &tokens),
                    Err(Refusal::MethodNotAllowed),
                    "{method} {path}"
                );
            }
        }
        let request =
            Request::post("/nowhere").header("host", "localhost").body(Empty::<Bytes>::new());
        assert_eq!(answer(&request.expect("a request"), true, &tokens), Err(Refusal::NoSuchRoute));
    }

    #[test]
    fn a_forwarded_request_is_refused_before_anything_else_is_looked_at() {
        let tokens = accounts(&["shop"]);
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
                    answer(&request, false, &tokens),
                    Err(Refusal::Forwarded),
                    "{name}: {value}"
                );
            }
        }
        for name in ["X-Forward", "X-Request-Id", "Traceparent", "X-Real", "Client-IP-Policy"] {
            assert!(answer(&get("/token", &[LOCAL, (name, "x")]), true, &tokens).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_loopback_listener_answers_only_to_loopback_names() {
        let tokens = accounts(&["shop"]);
        let evil = ("host", "evil.example");
        assert_eq!(answer(&get("/token", &[evil]), true, &tokens), Err(Refusal::Misdirected));
        assert!(answer(&get("/token", &[evil]), false, &tokens).is_ok());
        assert_eq!(
            answer(&get("http://evil.example/token", &[LOCAL]), true, &tokens),
            Err(Refusal::Misdirected)
        );
        assert_eq!(
            answer(&get("http://localhost/token", &[evil]), true, &tokens),
            Err(Refusal::Misdirected)
        );
        assert!(answer(&get("http://127.0.0.1:1/token", &[LOCAL]), true, &tokens).is_ok());
    }

    #[test]
    fn a_request_has_exactly_one_host_unless_it_is_from_1996() {
        let tokens = accounts(&["shop"]);
        for loopback_only in [true, false] {
            let none = answer(&get("/token", &[]), loopback_only, &tokens);
            let two = answer(&get("/token", &[LOCAL, LOCAL]), loopback_only, &tokens);
            assert!(
                matches!(none, Err(Refusal::BadRequest(_)))
                    && matches!(two, Err(Refusal::BadRequest(_)))
            );
            let mut old = get("/token", &[]);
            *old.version_mut() = Version::HTTP_10;
            assert!(answer(&old, loopback_only, &tokens).is_ok());
        }
    }

    #[test]
    fn a_body_is_small() {
        let tokens = accounts(&["shop"]);
        let ask = |bytes: usize| {
            let request =
                get("/token", &[LOCAL]).map(|_| Full::new(Bytes::from(vec![b'x'; bytes])));
            answer(&request, true, &tokens)
        };
        assert!(ask(16 * 1024).is_ok());
        assert_eq!(ask(16 * 1024 + 1), Err(Refusal::BodyTooLarge));
    }

    #[test]
    fn a_log_line_shows_no_path_that_could_hold_a_token() {
        assert_eq!(printable_path("/token/shop"), "/token/shop");
        assert_eq!(printable_path(&format!("/{}", "x".repeat(39))), format!("/{}", "x".repeat(39)));
        assert_eq!(printable_path(&format!("/token/{}", "x".repeat(150))), "/…(157 bytes)");
        assert_eq!(printable_path("/\u{1b}[2J\u{202e}"), "/\\u{1b}[2J\\u{202e}");
    }
}
