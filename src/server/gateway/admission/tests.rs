//! Who may call what, for each kind of client.

use std::cell::RefCell;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use hyper::header::{AUTHORIZATION, HeaderValue};
use tempfile::TempDir;

use super::*;
use crate::accounts::{AccountPlan, AccountResources};
use crate::model::account::Account;
use crate::model::api::Rules;
use crate::model::client_key::{self, KeyLine};
use crate::model::location::Location;
use crate::server::access::AccessSources;
use crate::server::access::keys::Keys;

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
}

impl Setup {
    fn new() -> Setup {
        let dir = tempfile::tempdir().unwrap();
        let names = ["crm", "mini", "shop"];
        let plan = |name: &str| {
            let api = if name == "crm" { Api::Work } else { Api::Stable };
            let account = Account {
                name: name.to_owned(),
                appid: Some(format!("wx-{name}")),
                api,
                rules: Rules::from(api),
                refresh_before: Duration::from_secs(300),
                location: Location::File(dir.path().join(name)),
                tickets: Vec::new(),
                on_change: None,
                on_trouble: None,
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
        Ok((account, admitted.token, admitted.target.with_token("NOW")))
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
