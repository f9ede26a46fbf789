//! Who may call what, for each kind of client.

use std::cell::RefCell;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use hyper::header::{AUTHORIZATION, HeaderValue};
use tempfile::TempDir;

use super::*;
use crate::accounts::{AccountPlan, AccountResources};
use crate::model::account::Account;
use crate::model::api::{Api, Rules};
use crate::model::client_key::{self, KeyLine};
use crate::server::access::AccessSources;
use crate::server::access::keys::Keys;
use crate::server::access::opaque;

const LOCAL: ClientAddress =
    ClientAddress::Direct(Peer::Ip(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)));

/// The accounts `crm` (WeCom), `mini` and `shop`, each with a live token: T-crm, T-mini, T-shop.
struct Setup {
    dir: TempDir,
    accounts: Accounts,
    access: RefCell<AccessRules>,
}

fn remote() -> ClientAddress {
    ClientAddress::Direct(Peer::Ip([10, 0, 0, 7].into()))
}

fn publish(dir: &Path, name: &str, token: &str) {
    // Lives longer than this test is run.
    let document = format!(
        r#"{{"appid":"wx-{name}","access_token":"{token}","expires_in":7200,"created_at":"9000-01-01T00:00:00Z"}}"#
    );
    fs::write(dir.join("new"), document).unwrap();
    fs::rename(dir.join("new"), dir.join(name)).unwrap();
    // A document is looked at once a millisecond.
    thread::sleep(Duration::from_millis(2));
}

impl Setup {
    fn new() -> Setup {
        let dir = tempfile::tempdir().unwrap();
        let names = ["crm", "mini", "shop"];
        let plan = |name: &str| {
            let api = if name == "crm" { Api::Work } else { Api::Stable };
            let account = Account {
                appid: Some(format!("wx-{name}")),
                api,
                rules: Rules::from(api),
                ..Account::for_tests(dir.path().join(name))
            };
            (AccountPlan { account, refresh: None }, None)
        };
        for name in names {
            publish(dir.path(), name, &format!("T-{name}"));
        }
        let resources = AccountResources::for_tests();
        let accounts = Accounts::new(names.map(plan).into(), None, &resources);
        (0..names.len()).for_each(|account| assert!(accounts.token(account).is_some()));
        let mut sources =
            AccessSources { allow: vec!["10.0.0.0/8".to_owned()], ..Default::default() };
        // mini's token is for one address only.
        sources.accounts = names.map(|name| (name.to_owned(), None)).into();
        sources.accounts[1].1 = Some(vec!["10.0.0.8".to_owned(), "127.0.0.1".to_owned()]);
        let configured = Rc::new(sources.parse().unwrap());
        let access = AccessRules { configured, ..Default::default() };
        Setup { dir, accounts, access: RefCell::new(access) }
    }

    /// Requires one of these keys, each with its accounts and its APIs.
    fn with_keys(self, keys: &[(&str, &[&str], &str)]) -> Setup {
        let lines = keys.iter().map(|(key, accounts, apis)| {
            let accounts = accounts.iter().map(|it| (*it).to_owned()).collect();
            let apis = ApiScope::parse(apis.split(',').filter(|api| !api.is_empty())).unwrap();
            let digest = client_key::digest(key.as_bytes());
            KeyLine::new(key, digest, accounts, apis).unwrap().to_string()
        });
        let path = self.dir.path().join("keys");
        fs::write(&path, lines.collect::<Vec<_>>().join("\n")).unwrap();
        self.access.borrow_mut().keys =
            Some(Rc::new(Keys::read(&path, self.accounts.names()).unwrap()));
        self
    }

    fn ask(
        &self,
        client: ClientAddress,
        key: &str,
        target: &str,
    ) -> Result<(String, TokenInRequest, String), GatewayRefusal> {
        self.ask_at("localhost", client, key, target)
    }

    /// The same with this `Host` header.
    fn ask_at(
        &self,
        host: &'static str,
        client: ClientAddress,
        key: &str,
        target: &str,
    ) -> Result<(String, TokenInRequest, String), GatewayRefusal> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static(host));
        if !key.is_empty() {
            headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {key}")).unwrap());
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let request = ApiRequest { path, query, headers: &headers, client };
        let admitted = admit(request, &self.access.borrow(), &self.accounts)?;
        let account = self.accounts.names()[admitted.account].clone();
        Ok((account, admitted.token, admitted.target.with_token("", "NOW")))
    }
}

fn admitted(
    account: &str,
    token: TokenInRequest,
    target: &str,
) -> Result<(String, TokenInRequest, String), GatewayRefusal> {
    Ok((account.to_owned(), token, target.to_owned()))
}

const MENU: &str = "/cgi-bin/menu/get";

#[test]
fn a_token_that_is_handed_out_opens_its_account_and_no_other_does() {
    use TokenInRequest::{Current, Replaced};
    let setup = Setup::new();
    let ask = |token: &str| setup.ask(remote(), "", &format!("{MENU}?access_token={token}"));
    let target = format!("{MENU}?access_token=NOW");
    assert_eq!(ask("T-shop"), admitted("shop", Current, &target));
    assert_eq!(ask("T-crm"), admitted("crm", Current, &target));
    assert_eq!(ask("T%2Dshop"), admitted("shop", Current, &target));
    for unknown in ["T-none", "T-sho", "t-shop", "T-shop%00", "wx-shop"] {
        assert_eq!(ask(unknown), Err(GatewayRefusal::UnknownToken), "{unknown}");
    }
    assert_eq!(ask("T-mini"), Err(GatewayRefusal::ForbiddenAccount));
    publish(setup.dir.path(), "shop", "T-shop-2");
    assert_eq!(ask("T-shop"), admitted("shop", Replaced, &target));
    assert_eq!(ask("T-shop-2"), admitted("shop", Current, &target));
    let named = |path: &str| setup.ask(remote(), "", &format!("{path}?access_token=T-shop-2"));
    assert_eq!(named(&format!("/gateway/shop{MENU}")), admitted("shop", Current, &target));
    assert_eq!(named(&format!("/gateway/crm{MENU}")), Err(GatewayRefusal::UnknownToken));
}

#[test]
fn without_keys_a_call_without_a_token_is_for_processes_of_this_host() {
    use TokenInRequest::Absent;
    let setup = Setup::new();
    let named = format!("{MENU}?from_appid=wx-shop");
    let target = format!("{MENU}?access_token=NOW");
    for local in [
        LOCAL,
        ClientAddress::Direct(Peer::Unix),
        ClientAddress::Direct(Peer::Ip("::1".parse().unwrap())),
    ] {
        let local_to = |target: &str| setup.ask(local, "", target);
        assert_eq!(local_to(&named), admitted("shop", Absent, &target));
        assert_eq!(local_to(&format!("{named}&access_token=")), admitted("shop", Absent, &target));
        assert_eq!(local_to(&format!("/gateway/shop{MENU}")), admitted("shop", Absent, &target));
        assert_eq!(local_to(MENU), Err(GatewayRefusal::WhichAccount));
        for (name, none) in
            [("from_appid=wx-none", MENU.to_owned()), ("", format!("/gateway/none{MENU}"))]
        {
            assert_eq!(local_to(&format!("{none}?{name}")), Err(GatewayRefusal::NoSuchAccount));
        }
    }
    // What a proxy of this host forwards is not local.
    let forwarded = ClientAddress::Forwarded([127, 0, 0, 1].into());
    for other in [remote(), forwarded] {
        assert_eq!(setup.ask(other, "", &named), Err(GatewayRefusal::NotLocal));
        assert_eq!(setup.ask(other, "K-any", &named), Err(GatewayRefusal::NotLocal));
    }
}

#[test]
fn with_keys_a_call_without_a_token_needs_one_and_goes_to_its_accounts() {
    use TokenInRequest::Absent;
    let setup = Setup::new().with_keys(&[
        ("one", &["shop"], ""),
        ("two", &["crm", "shop"], ""),
        ("mini", &["mini"], ""),
    ]);
    let target = format!("{MENU}?access_token=NOW");
    for client in [remote(), LOCAL, ClientAddress::Forwarded([10, 0, 0, 7].into())] {
        let ask = |key: &str, target: &str| setup.ask(client, key, target);
        assert_eq!(ask("one", MENU), admitted("shop", Absent, &target));
        assert_eq!(ask("two", MENU), Err(GatewayRefusal::WhichAccount));
        assert_eq!(
            ask("two", &format!("{MENU}?from_appid=wx-crm")),
            admitted("crm", Absent, &target)
        );
        assert_eq!(
            ask("one", &format!("{MENU}?from_appid=wx-crm")),
            Err(GatewayRefusal::NoSuchAccount)
        );
        assert_eq!(ask("one", &format!("/gateway/crm{MENU}")), Err(GatewayRefusal::NoSuchAccount));
        assert_eq!(ask("", MENU), Err(GatewayRefusal::NoToken));
        assert_eq!(ask("none", MENU), Err(GatewayRefusal::UnknownKey));
    }
    assert_eq!(setup.ask(LOCAL, "mini", MENU), admitted("mini", Absent, &target));
    assert_eq!(setup.ask(remote(), "mini", MENU), Err(GatewayRefusal::NoSuchAccount));
    let named = format!("/gateway/mini{MENU}");
    assert_eq!(setup.ask(remote(), "mini", &named), Err(GatewayRefusal::ForbiddenAccount));
}

#[test]
fn with_keys_a_token_is_enough_and_a_key_beside_it_must_open_its_account() {
    use TokenInRequest::Current;
    let setup = Setup::new().with_keys(&[("one", &["shop"], ""), ("crm", &["crm"], "")]);
    let target = format!("{MENU}?access_token=NOW");
    let with_token = format!("{MENU}?access_token=T-shop");
    for (key, expected) in [
        ("", admitted("shop", Current, &target)),
        ("one", admitted("shop", Current, &target)),
        ("crm", Err(GatewayRefusal::UnknownToken)),
        ("none", Err(GatewayRefusal::UnknownKey)),
    ] {
        assert_eq!(setup.ask(remote(), key, &with_token), expected, "{key}");
    }
}

#[test]
fn a_token_of_another_kind_is_passed_on_as_it_is_and_needs_a_key_where_there_are_keys() {
    use TokenInRequest::Foreign;
    let userinfo = "/sns/userinfo?access_token=U&openid=o";
    let suite = "/cgi-bin/service/get_login_info?access_token=P";
    let component = "/wxa/anything?component_access_token=C&x=%7e";
    let setup = Setup::new();
    for (target, account) in [(userinfo, "shop"), (suite, "crm"), (component, "shop")] {
        assert_eq!(setup.ask(remote(), "", target), admitted(account, Foreign, target));
        let with_keys = Setup::new().with_keys(&[("any", &[], "")]);
        assert_eq!(with_keys.ask(remote(), "any", target), admitted(account, Foreign, target));
        let refused = with_keys.ask(LOCAL, "", target);
        assert_eq!(refused, Err(GatewayRefusal::ForeignWithoutKey));
    }
    let code = "/sns/oauth2/access_token?appid=wx-mini&secret=x&code=y";
    assert_eq!(setup.ask(LOCAL, "", code), admitted("mini", Foreign, code));
    let both = "/cgi-bin/menu/get?access_token=T-shop&component_access_token=C";
    assert_eq!(setup.ask(LOCAL, "", both), Err(GatewayRefusal::AmbiguousToken));
    let only_crm = Setup::new().with_keys(&[("crm", &["crm"], "")]);
    assert_eq!(only_crm.ask(LOCAL, "crm", userinfo), Err(GatewayRefusal::NoSuchAccount));
}

#[test]
fn a_client_calls_the_apis_of_its_key_and_administration_only_where_that_names_it() {
    let setup = Setup::new().with_keys(&[
        ("usual", &["shop"], ""),
        ("few", &["shop"], "/cgi-bin/message,/cgi-bin/menu/delete"),
        ("all", &["shop"], "all"),
    ]);
    let delete = "/cgi-bin/menu/delete";
    for (key, path, expected) in [
        ("usual", MENU, None),
        ("usual", delete, Some(GatewayRefusal::Administration)),
        ("few", MENU, Some(GatewayRefusal::ForbiddenApi)),
        ("few", "/cgi-bin/message/custom/send", None),
        ("few", "/cgi-bin/message/mass/sendall", Some(GatewayRefusal::Administration)),
        ("few", delete, None),
        ("all", delete, None),
        ("all", "/cgi-bin/stable_token", Some(GatewayRefusal::MakesTokens)),
        ("all", "/cgi-bin/openapi/rid/get", Some(GatewayRefusal::ShowsRequests)),
    ] {
        for target in [path.to_owned(), format!("{path}?access_token=T-shop")] {
            assert_eq!(setup.ask(remote(), key, &target).err(), expected, "{key} {target}");
        }
    }
    // A token that comes without a key may be that of any client.
    let target = format!("{delete}?access_token=T-shop");
    assert_eq!(setup.ask(remote(), "", &target), Err(GatewayRefusal::Administration));
    let local = format!("/gateway/shop{delete}");
    assert_eq!(Setup::new().ask(LOCAL, "", &local), Err(GatewayRefusal::Administration));
}

/// Returns the token that the client with this key is handed for an account.
fn opaque_token(setup: &Setup, key: &str, account: &str) -> String {
    let access = setup.access.borrow();
    let key = access.keys.as_ref().unwrap().find(key.as_bytes()).unwrap();
    let account = setup.accounts.names().iter().position(|name| name == account).unwrap();
    let (own, _) = setup.accounts.live_token(account).unwrap();
    opaque::token(&own, key, &setup.accounts.names()[account]).expose().to_owned()
}

#[test]
fn a_token_of_wxtokens_own_is_for_one_key_and_one_account_and_ends_with_its_key() {
    use TokenInRequest::{Current, Replaced};
    let keys: [(&str, &[&str], &str); 3] =
        [("one", &["shop"], ""), ("two", &["crm", "shop"], "/cgi-bin/menu"), ("old", &[], "all")];
    let setup = Setup::new().with_keys(&keys);
    let configured = AccessSources {
        allow: vec!["10.0.0.0/8".to_owned()],
        opaque_tokens: true,
        ..Default::default()
    };
    setup.access.borrow_mut().configured = Rc::new(configured.parse().unwrap());
    let ask = |key: &str, path: &str, token: &str| {
        setup.ask(remote(), key, &format!("{path}?access_token={token}"))
    };
    let target = format!("{MENU}?access_token=NOW");
    let tokens =
        [("one", "shop"), ("two", "crm"), ("two", "shop"), ("old", "shop"), ("old", "mini")]
            .map(|(key, account)| (key, account, opaque_token(&setup, key, account)));
    for (n, (key, account, token)) in tokens.iter().enumerate() {
        assert!(token.starts_with("wxo_") && token.len() == 128, "{token}");
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)));
        assert!(!token.contains("T-shop"));
        assert!(tokens[..n].iter().all(|(_, _, other)| other != token));
        assert_eq!(*token, opaque_token(&setup, key, account), "the same each time");
        assert_eq!(ask("", MENU, token), admitted(account, Current, &target), "{key} {account}");
        assert_eq!(ask(key, MENU, token), admitted(account, Current, &target));
        let other = if *key == "one" { "two" } else { "one" };
        assert_eq!(ask(other, MENU, token), Err(GatewayRefusal::UnknownToken));
        // A bit less, and a token whose tags are those of another account or key.
        for wrong in [&token[..127], &format!("{token}A"), &format!("wxo_{}", &token[5..])] {
            assert_eq!(ask("", MENU, wrong), Err(GatewayRefusal::UnknownToken));
        }
        for (_, _, other) in &tokens[..n] {
            let mixed = format!("{}{}", &token[..20], &other[20..]);
            assert_eq!(ask("", MENU, &mixed), Err(GatewayRefusal::UnknownToken));
        }
    }
    // The key's APIs hold for its tokens.
    let [(_, _, one), (_, _, two), .., (_, _, old)] = &tokens;
    let delete = "/cgi-bin/menu/delete";
    assert_eq!(ask("", delete, one), Err(GatewayRefusal::Administration));
    assert_eq!(ask("", "/wxa/getwxacode", two), Err(GatewayRefusal::ForbiddenApi));
    assert!(ask("", delete, old).is_ok());
    // WeChat's own token opens nothing.
    assert_eq!(ask("", MENU, "T-shop"), Err(GatewayRefusal::UnknownToken));
    assert_eq!(ask("one", MENU, "T-shop"), Err(GatewayRefusal::UnknownToken));
    // It is replaced when the account's own is.
    publish(setup.dir.path(), "shop", "T-shop-2");
    assert_ne!(opaque_token(&setup, "one", "shop"), *one);
    assert_eq!(ask("", MENU, one), admitted("shop", Replaced, &target));
    // A key that is taken out takes its tokens with it; one for fewer accounts, those of the others.
    let setup = setup.with_keys(&[("one", &["shop"], ""), ("two", &["shop"], "")]);
    let ask = |token: &str| setup.ask(remote(), "", &format!("{MENU}?access_token={token}"));
    assert_eq!(ask(old), Err(GatewayRefusal::UnknownToken));
    assert_eq!(ask(two), Err(GatewayRefusal::UnknownToken));
    assert_eq!(ask(one), admitted("shop", Replaced, &target));
}

#[test]
fn of_several_accounts_the_host_that_is_asked_for_chooses() {
    let setup = Setup::new();
    let key = "both";
    let setup = setup.with_keys(&[(key, &["crm", "shop"], "")]);
    let target = format!("{MENU}?access_token=NOW");
    let absent = TokenInRequest::Absent;
    for (host, account) in [
        ("qyapi.weixin.qq.com", "crm"),
        ("api.weixin.qq.com", "shop"),
        ("Api.weixin.qq.com:443", "shop"),
    ] {
        assert_eq!(setup.ask_at(host, remote(), key, MENU), admitted(account, absent, &target));
        // What is named counts all the same.
        for named in [format!("/gateway/crm{MENU}"), format!("{MENU}?from_appid=wx-crm")] {
            let asked = setup.ask_at(host, remote(), key, &named);
            assert_eq!(asked, admitted("crm", absent, &target), "{host} {named}");
        }
    }
    assert!(setup.ask_at("central.example", remote(), key, MENU).is_err());
}

#[test]
fn two_authorization_headers_are_refused() {
    let setup = Setup::new().with_keys(&[("one", &["shop"], "")]);
    let mut headers = HeaderMap::new();
    for key in ["one", "two"] {
        headers.append(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {key}")).unwrap());
    }
    let request = ApiRequest { path: MENU, query: None, headers: &headers, client: remote() };
    let refused = admit(request, &setup.access.borrow(), &setup.accounts);
    assert_eq!(refused, Err(GatewayRefusal::SeveralAuthorizations));
}

/// Whatever the head of a request holds, WeChat gets a plain path, one token, and the rest of the query as it came.
#[test]
fn of_random_targets_those_that_are_admitted_have_one_meaning() {
    let setup = Setup::new();
    let parts = [
        "/",
        "//",
        "/.",
        "cgi-bin",
        "menu",
        "get",
        "delete",
        "sns",
        "%2e",
        ";",
        "\\",
        "token",
        "?",
        "&",
        "=",
        "access_token",
        "access%5Ftoken",
        "%61ccess_token",
        "ACCESS_TOKEN",
        "T-shop",
        "T-crm",
        "%",
        "from_appid",
        "wx-shop",
        "cloudbase_access_token",
        "gateway",
        "shop",
        "a",
        "+",
        "%00",
        "ü",
        "#",
        "component_access_token",
        "/cgi-bin/menu/get?",
        "/gateway/shop/wxa/x?",
        "access_token=T-shop",
        "&from_appid=wx-shop",
        "&access_token=",
    ];
    let mut state = 1_u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    let (mut admitted, mut refused) = (0, 0);
    for _ in 0..50_000 {
        let mut target =
            if next(2) == 0 { "/cgi-bin/menu/get?".to_owned() } else { "/".to_owned() };
        (0..next(8)).for_each(|_| target += parts[next(parts.len())]);
        let Ok((_, token, passed)) = setup.ask(LOCAL, "", &target) else {
            refused += 1;
            continue;
        };
        admitted += 1;
        let (path, query) = passed.split_once('?').unwrap_or((&passed, ""));
        assert!(path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_-.".contains(&byte)));
        assert!(!path.contains("//") && !path.contains("/.") && path.split('/').count() > 2);
        if token == TokenInRequest::Foreign {
            continue;
        }
        assert!(ApiScope::Usual.allows(path), "{target}");
        let names_and_values = form_urlencoded::parse(query.as_bytes());
        let tokens = names_and_values.filter(|(name, _)| name.eq_ignore_ascii_case("access_token"));
        let tokens: Vec<_> = tokens.map(|(_, value)| value.into_owned()).collect();
        assert_eq!(tokens, ["NOW"], "{target} {passed}");
        let asked = target.split_once('?').map_or("", |(_, query)| query);
        for pair in query.split('&').filter(|pair| *pair != "access_token=NOW") {
            assert!(asked.split('&').any(|it| it == pair), "{target} {passed}");
        }
    }
    assert!(admitted > 500 && refused > 500, "{admitted} {refused}");
}
