//! Who may make calls, in the name of which account, and what is never passed on.

use super::upstream::{DEAD, Reply, Upstream};
use crate::support::home::{Home, appsecret, wechat_with_accounts};
use crate::support::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Two accounts, `a0` and `a1`, behind a gateway whose WeChat answers `{"errcode":0}` to every call.
struct Setup {
    home: Home,
    upstream: Upstream,
    _wechat: WeChat,
}

impl Setup {
    /// Returns a setup with `more` in `[serve]`.
    fn new(more: &str) -> Setup {
        let wechat = wechat_with_accounts(2, &[]);
        let upstream = Upstream::new(&wechat, |_| Reply::Json(r#"{"errcode":0}"#.to_owned()));
        let serve = format!("[serve]\ngateway = true\nrefresh = true\n{more}\n");
        let home = Home::with_accounts(2, &upstream.url(), &serve);
        Setup { home, upstream, _wechat: wechat }
    }

    /// Puts these lines into the keys file.
    fn put_keys(&self, lines: &[&str]) {
        write_with_mode(&self.home.path("keys"), &lines.join("\n"), 0o644);
    }

    /// Starts the server, and has it fetch both tokens.
    fn serve(&self, args: &[&str]) -> Server {
        let server = self.home.serve(args);
        eventually("both tokens are published", || {
            self.home.token("a0").is_some() && self.home.token("a1").is_some()
        });
        server
    }

    /// Returns the target of the only call that WeChat got since the last time.
    #[track_caller]
    fn target(&self, before: usize) -> String {
        let calls = self.upstream.calls();
        assert_eq!(calls.len(), before + 1, "{calls:?}");
        calls[before].target().to_owned()
    }

    /// Returns the target of the call at WeChat that `request` causes.
    #[track_caller]
    fn passed(&self, server: &Server, request: &str) -> String {
        let before = self.upstream.calls().len();
        let answer = server.send(request);
        assert_eq!(answer.json()["errcode"], 0, "{request}{answer:?}");
        self.target(before)
    }

    /// Sends a request that must not reach WeChat. Returns its errcode and message.
    #[track_caller]
    fn refused(&self, server: &Server, request: &str) -> (i64, String) {
        let before = self.upstream.calls().len();
        let answer = server.send(request);
        assert_eq!(self.upstream.calls().len(), before, "{request}{answer:?}");
        let json = answer.json();
        let text = format!("{}{}", answer.head, answer.body);
        for code in ["40001", "40014", "42001"] {
            assert!(!text.contains(code), "an SDK repeats the call after {code}: {text}");
        }
        for token in ["a0", "a1"].iter().filter_map(|name| self.home.token(name)) {
            assert!(!text.contains(&token), "{text}");
        }
        let errcode = json["errcode"].as_i64().expect("an errcode");
        (errcode, json["errmsg"].as_str().expect("an errmsg").to_owned())
    }
}

/// Returns a request with these headers, each with its line end.
fn request(target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n")
}

fn bearer(key: &str) -> String {
    format!("Authorization: Bearer {key}\r\n")
}

fn basic(key: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("admin:{key}")))
}

const CALL: &str = "/cgi-bin/menu/get";

#[test]
fn the_account_is_that_of_the_token_of_from_appid_or_of_the_path_and_wechat_sees_neither() {
    let setup = Setup::new("");
    let server = setup.serve(&[]);
    let [t0, t1] = ["a0", "a1"].map(|name| setup.home.token(name).unwrap());
    for (target, expected) in [
        (format!("{CALL}?access_token={t0}"), format!("{CALL}?access_token={t0}")),
        (format!("{CALL}?x=%7e&access_token={t1}&y"), format!("{CALL}?x=%7e&access_token={t1}&y")),
        (format!("{CALL}?from_appid=wx1&x=1"), format!("{CALL}?x=1&access_token={t1}")),
        (format!("{CALL}?access_token=&from%5Fappid=wx0"), format!("{CALL}?access_token={t0}")),
        (format!("/gateway/a1{CALL}"), format!("{CALL}?access_token={t1}")),
        (format!("/gateway/a1{CALL}?access_token={t1}"), format!("{CALL}?access_token={t1}")),
        (
            format!("{CALL}?cloudbase_access_token=C&from_appid=wx0"),
            format!("{CALL}?access_token={t0}"),
        ),
    ] {
        assert_eq!(setup.passed(&server, &request(&target, "")), expected, "{target}");
    }
    for (target, errcode) in [
        (CALL.to_owned(), 40013),
        (format!("{CALL}?from_appid=wx9"), 40013),
        (format!("{CALL}?from_appid=wx0&from_appid=wx1"), 40035),
        (format!("/gateway/a9{CALL}"), 40013),
        (format!("/gateway/a0{CALL}?access_token={t1}"), 40125),
        (format!("{CALL}?access_token={t0}&access_token={t0}"), 40035),
        (format!("{CALL}?access_token={t0}&access%5Ftoken={t1}"), 40035),
        (format!("{CALL}?access_token={}", &t0[1..]), 40125),
    ] {
        let (found, message) = setup.refused(&server, &request(&target, ""));
        assert_eq!(found, errcode, "{target}: {message}");
        assert!(message.contains("127.0.0.1"), "the caller's address: {message}");
    }
}

#[test]
fn sdks_find_the_routes_for_tokens_below_an_accounts_path_and_no_call_for_one_is_passed_on() {
    let setup = Setup::new("");
    let server = setup.serve(&[]);
    let token = setup.home.token("a1").unwrap();
    let query = "grant_type=client_credential&secret=x&appid=wx1";
    let answer = server.get(&format!("/gateway/a1/cgi-bin/token?{query}"));
    assert_eq!(answer.json()["access_token"], token, "{answer:?}");
    let (errcode, _) =
        setup.refused(&server, &request(&format!("/gateway/a0/cgi-bin/token?{query}"), ""));
    assert_eq!(errcode, 40013, "another account has this AppID");
    let body = r#"{"grant_type":"client_credential","appid":"wx1","secret":"x"}"#;
    let answer = server.post("/gateway/a1/cgi-bin/stable_token", body);
    assert_eq!(answer.json()["access_token"], token, "{answer:?}");
    for path in [
        "/cgi-bin/Token",
        "/cgi-bin/token/x",
        "/CGI-BIN/stable_token",
        "/cgi-bin/clear_quota/v2",
        "/cgi-bin/component/api_component_token",
        "/cgi-bin/service/get_provider_token",
        "/cgi-bin/midas/getbalance",
    ] {
        for path in [path.to_owned(), format!("/gateway/a1{path}")] {
            let target = format!("{path}?{query}&access_token={token}");
            assert_eq!(setup.refused(&server, &request(&target, "")).0, 48001, "{path}");
        }
    }
}

#[test]
fn a_path_in_an_ambiguous_form_is_refused_and_not_repaired() {
    let setup = Setup::new("");
    let server = setup.serve(&[]);
    let token = setup.home.token("a0").unwrap();
    for path in [
        "/cgi-bin/menu/%64elete",
        "/cgi-bin//menu/get",
        "//wxa/getwxacode",
        "/cgi-bin/menu/get/",
        "/cgi-bin/menu/../menu/get",
        "/cgi-bin/menu/./get",
        "/cgi-bin/menu;x=1/get",
        "/cgi-bin\\menu\\get",
        "/cgi-bin/menü/get",
        "/gateway/a0//cgi-bin/menu/get",
    ] {
        let target = format!("{path}?access_token={token}");
        let (errcode, message) = setup.refused(&server, &request(&target, ""));
        assert!(matches!(errcode, 40066 | 47001), "{path}: {errcode} {message}");
    }
}

#[test]
fn without_keys_a_call_without_a_token_comes_from_this_host_and_through_no_proxy() {
    let setup =
        Setup::new("trusted_proxies = [\"127.0.0.2\"]\nallow = [\"127.0.0.0/8\", \"10.0.0.0/8\"]");
    let server = setup.serve(&[]);
    let token = setup.home.token("a0").unwrap();
    let target = format!("{CALL}?from_appid=wx0");
    let ask = |source: &str, target: &str, headers: &str| {
        let stream = connect_from(source, server.address());
        exchange_over(stream, request(target, headers).as_bytes()).json()["errcode"]
            .as_i64()
            .unwrap()
    };
    assert_eq!(ask("127.0.0.1", &target, ""), 0);
    for (client, headers) in [
        ("10.0.0.7", "X-Forwarded-For: 10.0.0.7\r\n"),
        ("127.0.0.1", "X-Forwarded-For: 127.0.0.1\r\n"),
    ] {
        assert_eq!(ask("127.0.0.2", &target, headers), 40164, "{client} through a proxy");
        let with_token = format!("{CALL}?access_token={token}");
        assert_eq!(ask("127.0.0.2", &with_token, headers), 0, "{client} with a token");
    }
}

#[test]
fn a_call_without_a_token_comes_over_a_unix_socket() {
    let setup = Setup::new("");
    let socket = setup.home.path("socket");
    let listen = format!("unix:{}", socket.display());
    let server = Server::start(setup.home.command(&["serve", "--listen", &listen]), 1);
    eventually("the token is published", || setup.home.token("a1").is_some());
    let stream = connect_unix(&server.addresses[0]);
    let answer = exchange_over(stream, request(&format!("{CALL}?from_appid=wx1"), "").as_bytes());
    assert_eq!(answer.json()["errcode"], 0, "{answer:?}");
    let expected = format!("{CALL}?access_token={}", setup.home.token("a1").unwrap());
    assert_eq!(setup.target(0), expected);
}

#[test]
fn with_keys_a_call_needs_a_token_or_a_key_for_the_account_and_the_key_stays_here() {
    let setup = Setup::new("keys = \"keys\"");
    let [one, both] = [new_key(&["one", "a0"]), new_key(&["both"])];
    setup.put_keys(&[&one.line, &both.line]);
    let server = setup.serve(&[]);
    let [t0, t1] = ["a0", "a1"].map(|name| setup.home.token(name).unwrap());
    let with_key = |key: &str, target: &str| request(target, &bearer(key));
    let expected = format!("{CALL}?access_token={t0}");
    assert_eq!(setup.passed(&server, &with_key(&one.key, CALL)), expected);
    let named = format!("{CALL}?from_appid=wx0");
    assert_eq!(setup.passed(&server, &with_key(&both.key, &named)), expected);
    // What an SDK sends, which has the token from here and can send no key with it.
    assert_eq!(setup.passed(&server, &request(&expected, "")), expected);
    assert_eq!(setup.passed(&server, &with_key(&one.key, &expected)), expected);
    let of_other = format!("{CALL}?access_token={t1}");
    for (request, errcode) in [
        (request(CALL, ""), 40125),
        (with_key(&both.key, CALL), 40013),
        (with_key(&one.key, &format!("{CALL}?from_appid=wx1")), 40013),
        (with_key(&one.key, &format!("/gateway/a1{CALL}")), 40013),
        (with_key(&one.key, &of_other), 40125),
        (with_key("wxk_wrong", &expected), 40125),
        (with_key("wxk_wrong", CALL), 40125),
        // As a browser sends it by itself once its user has opened the status page.
        (request(CALL, &basic(&one.key)), 40125),
        (request(&expected, &basic(&one.key)), 40125),
        (request(&format!("{CALL}?access_token={}", one.key), ""), 40125),
        (with_key(&one.key, &format!("/sns/jscode2session?appid=wx0&secret={}", one.key)), 40125),
        (request(CALL, &format!("{}{}", bearer(&one.key), bearer(&both.key))), 40035),
    ] {
        let (found, message) = setup.refused(&server, &request);
        assert_eq!(found, errcode, "{request}: {message}");
        assert!(!message.contains(&one.key), "{message}");
    }
    for call in setup.upstream.calls() {
        assert!(!call.head.contains("wxk_"), "{}", call.head);
    }
}

#[test]
fn a_token_of_another_kind_is_passed_on_unchanged_and_its_call_is_never_repeated() {
    let wechat = WeChat::start();
    let upstream = Upstream::new(&wechat, |_| Reply::Json(DEAD.to_owned()));
    let sandbox = Sandbox::with_base_url(&upstream.url());
    let server = sandbox.serve_refreshing(&["--gateway"]);
    server.get("/token");
    let probes = wechat.probes();
    let targets = [
        "/sns/userinfo?access_token=USER&openid=o1&lang=zh_CN",
        "/sns/oauth2/refresh_token?appid=wx0&grant_type=refresh_token&refresh_token=R",
        "/cgi-bin/component/api_create_preauthcode?component_access_token=C",
        "/cgi-bin/component/api_get_authorizer_list?access_token=C",
        "/wxa/anything?component_access_token=C&x=%7e",
    ];
    for target in targets {
        assert_eq!(server.get(target).body, DEAD, "{target}");
    }
    let calls = upstream.calls();
    assert_eq!(calls.iter().map(|call| call.target()).collect::<Vec<_>>(), targets);
    assert_eq!(wechat.probes(), probes, "the account's token is not doubted");
}

/// An SDK keeps the token that it was handed before.
#[test]
fn a_token_that_was_replaced_before_a_restart_is_recognized_after_it() {
    let wechat = WeChat::start();
    let upstream = Upstream::honest(&wechat);
    let sandbox = Sandbox::with_base_url(&upstream.url());
    let server = sandbox.serve_refreshing(&["--gateway"]);
    server.get("/token");
    let old = sandbox.token();
    wechat.kill_tokens();
    let call = |server: &Server, token: &str| {
        let target = format!("{CALL}?access_token={token}");
        server.get(&target).json()["errcode"].as_i64().unwrap()
    };
    assert_eq!(call(&server, &old), 0, "it is replaced on the way");
    server.stop();
    let record = std::fs::read_to_string(sandbox.path("state/default.state")).unwrap();
    assert!(!record.contains(&old) && !record.contains(&sandbox.token()), "{record}");
    // Also one that does not refresh, beside a `fetch`.
    let secret = sandbox.path("secret");
    let reader = sandbox.serve(&[
        "--gateway",
        "--secret-file",
        secret.to_str().unwrap(),
        "--base-url",
        &upstream.url(),
    ]);
    for server in [sandbox.serve_refreshing(&["--gateway"]), reader] {
        assert_eq!(call(&server, &old), 0);
        assert_eq!(call(&server, &format!("{old}x")), 40125);
    }
    assert!(upstream.calls()[1..].iter().all(|call| call.token() == sandbox.token()));
}

#[test]
fn a_page_in_a_browser_makes_no_call() {
    let setup = Setup::new("");
    let server = setup.serve(&[]);
    let target = format!("{CALL}?from_appid=wx0");
    for headers in [
        "Sec-Fetch-Site: cross-site\r\n",
        // Another port of this host.
        "Sec-Fetch-Site: same-site\r\n",
        "Origin: https://evil.example\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n",
    ] {
        assert_eq!(setup.refused(&server, &request(&target, headers)).0, 48001, "{headers}");
    }
    let rebound = request(&target, "").replace("Host: localhost", "Host: evil.example");
    assert_eq!(setup.refused(&server, &rebound).0, 40066);
    let absolute = request(&format!("http://evil.example{target}"), "");
    assert_eq!(setup.refused(&server, &absolute).0, 40066);
}

#[test]
fn refusals_are_logged_each_kind_with_its_own_limit_and_without_path_or_token() {
    let setup = Setup::new("");
    let server = setup.serve(&[]);
    for _ in 0..20 {
        setup.refused(&server, &request("/cgi-bin/%6denu/get", ""));
        setup.refused(&server, &request("/cgi-bin/menu/delete?from_appid=wx0", ""));
        setup.refused(&server, &request(&format!("{CALL}?access_token=T_unknown_token"), ""));
    }
    let metrics = server.get("/metrics").body;
    let log = server.stop();
    for why in [
        "refused 127.0.0.1: it asked for a path in a form that is not passed on",
        "refused 127.0.0.1: it called an API of administration",
        "refused 127.0.0.1: it sent an access_token that is not handed out to it",
    ] {
        assert_eq!(log.matches(why).count(), 1, "{log}");
    }
    for hidden in ["T_unknown", "%6denu", "menu/delete"] {
        assert!(!log.contains(hidden) && !metrics.contains(hidden), "{hidden}: {log}{metrics}");
    }
    for code in ["gateway_bad_path", "forbidden_api", "gateway_unknown_token"] {
        let line = format!("{code}\"}} 20");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
    assert!(!log.contains(&appsecret(0)));
}
