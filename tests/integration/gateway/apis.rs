//! Which APIs a client may call: those that its key names, and administration only where it is named.

use super::upstream::{Reply, Upstream};
use crate::support::*;

/// An account behind a gateway with keys, whose WeChat answers `{"errcode":0}` to every call.
struct Setup {
    sandbox: Sandbox,
    upstream: Upstream,
    _wechat: WeChat,
}

impl Setup {
    fn new(lines: &[&str]) -> Setup {
        let wechat = WeChat::start();
        let upstream = Upstream::new(&wechat, |_| Reply::Json(r#"{"errcode":0}"#.to_owned()));
        let sandbox = Sandbox::with_base_url(&upstream.url());
        let setup = Setup { sandbox, upstream, _wechat: wechat };
        setup.put_keys(lines);
        setup
    }

    fn put_keys(&self, lines: &[&str]) {
        let new = self.sandbox.path("keys.new");
        write_with_mode(&new, &lines.join("\n"), 0o644);
        std::fs::rename(new, self.sandbox.path("keys")).unwrap();
    }

    fn serve(&self) -> Server {
        let keys = self.sandbox.path("keys");
        self.sandbox.serve_refreshing(&["--gateway", "--keys", keys.to_str().unwrap()])
    }
}

/// Calls `path` with this key, or without one. Returns the errcode.
#[track_caller]
fn call(server: &Server, key: &str, path: &str) -> i64 {
    let key = match key {
        "" => String::new(),
        key => format!("Authorization: Bearer {key}\r\n"),
    };
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{key}\r\n");
    server.send(&request).json()["errcode"].as_i64().expect("an errcode")
}

const FORBIDDEN: i64 = 48001;

#[test]
fn a_key_opens_the_apis_that_it_names_and_administration_only_by_name() {
    let usual = new_key(&["usual"]);
    let few =
        new_key(&["--apis", "/cgi-bin/message/custom,/cgi-bin/menu,/cgi-bin/menu/delete", "few"]);
    let all = new_key(&["--apis", "all", "all"]);
    let setup = Setup::new(&[&usual.line, &few.line, &all.line]);
    let server = setup.serve();
    for (path, expected) in [
        ("/cgi-bin/menu/get", [0, 0, 0]),
        ("/cgi-bin/message/custom/send", [0, 0, 0]),
        ("/cgi-bin/message/template/send", [0, FORBIDDEN, 0]),
        ("/wxa/getwxacode", [0, FORBIDDEN, 0]),
        ("/cgi-bin/menu/delete", [FORBIDDEN, 0, 0]),
        ("/cgi-bin/menu/Delete", [FORBIDDEN, 0, 0]),
        ("/cgi-bin/menu/delconditional", [FORBIDDEN, FORBIDDEN, 0]),
        ("/cgi-bin/clear_quota", [FORBIDDEN, FORBIDDEN, 0]),
        ("/cgi-bin/message/mass/sendall", [FORBIDDEN, FORBIDDEN, 0]),
        ("/xpay/query_user_balance", [FORBIDDEN, FORBIDDEN, 0]),
    ] {
        let found = [&usual, &few, &all].map(|it| call(&server, &it.key, path));
        assert_eq!(found, expected, "{path}");
    }
    let passed = setup.upstream.calls();
    assert!(passed.iter().all(|call| call.token() == setup.sandbox.token()));
    assert_eq!(passed.len(), 18, "what is refused does not reach WeChat");
}

/// With WeChat's token a client could call all APIs, at WeChat.
#[test]
fn a_key_for_some_apis_is_handed_no_token_so_a_token_without_a_key_has_the_usual_scope() {
    let few = new_key(&["--apis", "/cgi-bin/menu/delete,/cgi-bin/ticket", "few"]);
    let usual = new_key(&["usual"]);
    let setup = Setup::new(&[&few.line, &usual.line]);
    let server = setup.serve();
    let bearer = |key: &str| format!("Authorization: Bearer {key}\r\n");
    let token = |key: &str| {
        let head = "GET /token HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
        server.send(&format!("{head}{}\r\n", bearer(key)))
    };
    assert_eq!(token(&few.key).status, 403);
    let secret = &few.key;
    let query = format!("grant_type=client_credential&appid={APPID}&secret={secret}");
    assert_eq!(call(&server, "", &format!("/cgi-bin/token?{query}")), FORBIDDEN);
    assert_eq!(call(&server, &few.key, "/cgi-bin/menu/delete"), 0);
    let token = token(&usual.key).json()["access_token"].as_str().unwrap().to_owned();
    let with_token = |path: &str| format!("{path}?access_token={token}");
    assert_eq!(call(&server, "", &with_token("/cgi-bin/menu/get")), 0);
    assert_eq!(call(&server, "", &with_token("/cgi-bin/menu/delete")), FORBIDDEN);
    assert_eq!(call(&server, &few.key, &with_token("/cgi-bin/menu/get")), FORBIDDEN);
}

#[test]
fn without_keys_administration_is_not_passed_on() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&["--gateway"]);
    server.get("/token");
    for path in [
        "/cgi-bin/clear_quota".to_owned(),
        format!("/cgi-bin/clear_quota?access_token={}", sandbox.token()),
    ] {
        assert_eq!(call(&server, "", &path), FORBIDDEN);
    }
}

#[test]
fn the_apis_of_a_key_change_with_its_line_while_the_server_runs() {
    let key = new_key(&["bot"]);
    let setup = Setup::new(&[&format!("{} * /cgi-bin/menu", key.line)]);
    let server = setup.serve();
    assert_eq!(call(&server, &key.key, "/wxa/getwxacode"), FORBIDDEN);
    setup.put_keys(&[&format!("{} * /cgi-bin/menu,/wxa", key.line)]);
    server.signal("HUP");
    eventually("the API is named", || call(&server, &key.key, "/wxa/getwxacode") == 0);
    setup.put_keys(&[]);
    server.signal("HUP");
    eventually("the key is taken out", || call(&server, &key.key, "/wxa/getwxacode") == 40125);
}
