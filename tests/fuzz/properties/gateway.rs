//! The head of a call through the gateway: path and query in the first line, headers in those after it.

use std::collections::BTreeSet;
use std::fs;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

use super::Scratch;
use crate::accounts::{AccountPlan, AccountResources, Accounts};
use crate::model::account::Account;
use crate::model::api::{Api, Rules};
use crate::model::client_key::api_scope::ApiScope;
use crate::model::client_key::{KeyLine, digest};
use crate::model::location::Location;
use crate::os::clock::{Clock, SystemClock};
use crate::scheduler::Environment;
use crate::server::access::forwarded::ClientAddress;
use crate::server::access::keys::Keys;
use crate::server::access::peer::Peer;
use crate::server::access::{AccessRules, AccessSources};
use crate::server::gateway::admission::{Admitted, ApiRequest, TokenInRequest, admit};
use crate::store::Stores;

/// The accounts, each with the token `T-NAME`. `crm` is WeCom's.
const ACCOUNTS: [&str; 3] = ["crm", "mini", "shop"];

/// The keys: for all accounts, for `shop` alone, and for two APIs of all.
const KEYS: [(&str, &str, &str); 3] =
    [("key-all", "", "all"), ("key-shop", "shop", ""), ("key-some", "", "/cgi-bin/menu,/wxa")];

/// What begins the paths of calls that make tokens, in small letters.
const TOKEN_MAKING: [&str; 5] = [
    "/cgi-bin/token",
    "/cgi-bin/stable_token",
    "/cgi-bin/gettoken",
    "/cgi-bin/component/api_component_token",
    "/cgi-bin/clear_quota/v2",
];

/// A few calls of administration, in small letters.
const ADMINISTRATION: [&str; 5] = [
    "/cgi-bin/menu/delete",
    "/cgi-bin/clear_quota",
    "/cgi-bin/user/delete",
    "/wxa/deletetemplate",
    "/cgi-bin/message/mass/send",
];

struct Setup {
    accounts: Accounts,
    open: AccessRules,
    with_keys: AccessRules,
    _scratch: Scratch,
}

thread_local! {
    static SETUP: Setup = Setup::new();
}

impl Setup {
    fn new() -> Setup {
        let scratch = Scratch::new();
        let plan = |name: &str| {
            let api = if name == "crm" { Api::Work } else { Api::Stable };
            // From the future, so that it lives for as long as inputs are tried.
            let document = format!(
                r#"{{"appid":"wx-{name}","access_token":"T-{name}","expires_in":7200,"created_at":"8999-01-01T00:00:00Z"}}"#
            );
            let path = scratch.write(name, document.as_bytes());
            let account = Account {
                name: name.to_owned(),
                appid: Some(format!("wx-{name}")),
                api,
                rules: Rules::from(api),
                refresh_before: Duration::from_secs(300),
                location: Location::File(path),
                tickets: Vec::new(),
                on_change: None,
                on_trouble: None,
            };
            (AccountPlan { account, refresh: None }, None)
        };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let stores = Stores::new(Arc::clone(&clock));
        let environment = Environment::new(clock, stores);
        let resources = AccountResources { connector: Arc::default(), environment };
        let accounts = Accounts::new(ACCOUNTS.map(plan).into(), None, &resources);
        assert!((0..ACCOUNTS.len()).all(|it| accounts.token(it).is_some()));
        let sources = AccessSources {
            allow: vec!["10.0.0.0/8".to_owned()],
            accounts: ACCOUNTS.map(|name| (name.to_owned(), None)).into(),
            ..AccessSources::default()
        };
        let open = AccessRules {
            configured: Rc::new(sources.parse().expect("addresses")),
            ..AccessRules::default()
        };
        let lines = KEYS.map(|(key, account, apis)| {
            let words = |text: &'static str| text.split(',').filter(|word| !word.is_empty());
            let apis = ApiScope::parse(words(apis)).expect("paths");
            let accounts = words(account).map(str::to_owned).collect();
            KeyLine::new(key, digest(key.as_bytes()), accounts, apis).expect("a key").to_string()
        });
        let path = scratch.write("keys", lines.join("\n").as_bytes());
        let keys = Keys::read(&path, accounts.names()).expect("keys");
        let with_keys = AccessRules { keys: Some(Rc::new(keys)), ..open.clone() };
        let _ = fs::remove_file(path);
        Setup { accounts, open, with_keys, _scratch: scratch }
    }
}

pub fn check(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let Some(target) = lines.next().and_then(|line| std::str::from_utf8(line).ok()) else { return };
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let mut headers = HeaderMap::new();
    for line in lines.take(16) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    SETUP.with(|setup| {
        let clients = [[127, 0, 0, 1], [10, 0, 0, 7]].map(|ip| Peer::Ip(ip.into()));
        for client in clients {
            for access in [&setup.open, &setup.with_keys] {
                let client = ClientAddress::Direct(client);
                let request = ApiRequest { path, query, headers: &headers, client };
                let Ok(admitted) = admit(request, access, &setup.accounts) else { continue };
                let call = Call { query: query.unwrap_or_default(), headers: &headers };
                call.check(
                    &admitted,
                    access.keys.is_some(),
                    client == ClientAddress::Direct(clients[0]),
                );
            }
        }
    });
}

struct Call<'a> {
    query: &'a str,
    headers: &'a HeaderMap,
}

impl Call<'_> {
    fn check(&self, admitted: &Admitted, has_keys: bool, is_local: bool) {
        let account = ACCOUNTS[admitted.account];
        let path = admitted.target.path();
        assert_path_has_one_meaning(path);
        let lower = path.to_ascii_lowercase();
        assert!(!TOKEN_MAKING.iter().any(|it| is_below(&lower, it)), "{path} makes tokens");

        let key = self.key().filter(|_| has_keys);
        let token = self.token();
        match admitted.token {
            TokenInRequest::Current => assert_eq!(token.as_deref(), Some(&*format!("T-{account}"))),
            TokenInRequest::Replaced => unreachable!("no token has been replaced"),
            TokenInRequest::Absent => {
                assert!(token.is_none_or(|it| it.is_empty()), "a token that stands for no account");
                assert!(
                    key.is_some() || (!has_keys && is_local),
                    "a stranger calls in an account's name"
                );
            }
            TokenInRequest::Foreign => {
                assert!(key.is_some() || !has_keys, "a stranger without a key")
            }
        }
        assert!(key != Some("key-shop") || account == "shop", "the key is for another account");
        if ADMINISTRATION.iter().any(|it| is_below(&lower, it)) {
            assert_eq!(key, Some("key-all"), "{path} needs to be named");
        }
        if key == Some("key-some") {
            assert!(
                ["/cgi-bin/menu", "/wxa"].iter().any(|it| is_below(&lower, it)),
                "{path} is not the key's"
            );
        }
        let sent = admitted.target.with_token("", "NEW+/=");
        self.check_sent(&sent, admitted.token != TokenInRequest::Foreign);
    }

    /// The bearer key, by another reader.
    fn key(&self) -> Option<&'static str> {
        let line = self.headers.get("authorization")?.as_bytes();
        let is_basic = line.len() > 5 && line[..5].eq_ignore_ascii_case(b"basic");
        if is_basic {
            use base64::Engine;
            let decoded =
                base64::engine::general_purpose::STANDARD.decode(line[5..].trim_ascii()).ok()?;
            let password = decoded.splitn(2, |byte| *byte == b':').nth(1)?;
            return KEYS.iter().map(|it| it.0).find(|key| key.as_bytes() == password);
        }
        let words: Vec<_> =
            line.split(|byte| byte.is_ascii_whitespace()).filter(|it| !it.is_empty()).collect();
        let [scheme, presented] = words[..] else { return None };
        let is_bearer = scheme.eq_ignore_ascii_case(b"bearer");
        KEYS.iter().map(|it| it.0).find(|key| is_bearer && key.as_bytes() == presented)
    }

    fn token(&self) -> Option<String> {
        let mut pairs = form_urlencoded::parse(self.query.as_bytes());
        pairs.find(|(name, _)| name == "access_token").map(|(_, value)| value.into_owned())
    }

    /// WeChat gets one token, and every other pair as the client wrote it.
    fn check_sent(&self, sent: &str, takes_token: bool) {
        assert!(
            sent.parse::<hyper::Uri>().is_ok()
                || self
                    .query
                    .contains(|c: char| !c.is_ascii_graphic() || "\"<>\\^`{|}".contains(c)),
            "{sent:?}"
        );
        let query = sent.split_once('?').map_or("", |(_, query)| query);
        let is_token = |name: &str| name.eq_ignore_ascii_case("access_token");
        let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
        let tokens: Vec<_> =
            pairs.iter().filter(|(name, _)| is_token(name)).map(|(_, value)| &**value).collect();
        if takes_token {
            assert_eq!(tokens, ["NEW+/="], "{query}");
        }
        assert!(
            pairs.iter().all(|(name, value)| !name.eq_ignore_ascii_case("cloudbase_access_token")
                && !value.starts_with("wxk_")
                || value.len() != 47),
            "{query}"
        );
        let raw =
            |query: &str| -> BTreeSet<String> { query.split('&').map(str::to_owned).collect() };
        let (before, after) = (raw(self.query), raw(query));
        let added: Vec<_> = after.difference(&before).filter(|pair| !pair.is_empty()).collect();
        assert!(
            added.iter().all(|pair| takes_token && pair.starts_with("access_token=")),
            "{added:?}"
        );
    }
}

/// A server that decodes, merges or lower-cases paths calls the API that was judged.
fn assert_path_has_one_meaning(path: &str) {
    assert!(
        path.starts_with('/')
            && !path.ends_with('/')
            && !path.contains("//")
            && !path.contains("/."),
        "{path}"
    );
    assert!(
        path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_-.".contains(&byte)),
        "{path}"
    );
    let own = ["/token", "/ticket", "/jssdk", "/healthz", "/readyz", "/metrics", "/gateway"];
    assert!(
        !own.iter().any(|it| is_below(&path.to_ascii_lowercase(), it)),
        "{path} is not WeChat's"
    );
}

fn is_below(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
