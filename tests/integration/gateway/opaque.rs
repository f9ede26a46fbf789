//! `serve --opaque-tokens`: clients have opaque tokens, which open nothing but the gateway.

use super::upstream::{Reply, Upstream};
use crate::support::home::Home;
use crate::support::*;

/// An account behind a gateway that hands out opaque tokens to two keys.
struct Setup {
    sandbox: Sandbox,
    upstream: Upstream,
    wechat: WeChat,
    one: NewKey,
    two: NewKey,
}

impl Setup {
    fn new() -> Setup {
        let wechat = WeChat::start();
        let upstream = Upstream::honest(&wechat);
        let sandbox = Sandbox::with_base_url(&upstream.url());
        let (one, two) = (new_key(&["one"]), new_key(&["--apis", "/cgi-bin/menu", "two"]));
        let setup = Setup { sandbox, upstream, wechat, one, two };
        setup.put_keys(&[&setup.one.line, &setup.two.line]);
        setup
    }

    fn put_keys(&self, lines: &[&str]) {
        let new = self.sandbox.path("keys.new");
        write_with_mode(&new, &lines.join("\n"), 0o644);
        std::fs::rename(new, self.sandbox.path("keys")).unwrap();
    }

    fn serve(&self, args: &[&str]) -> Server {
        let keys = self.sandbox.path("keys");
        let flags = ["--gateway", "--opaque-tokens", "--keys", keys.to_str().unwrap()];
        self.sandbox.serve_refreshing(&[&flags[..], args].concat())
    }
}

#[track_caller]
fn send(server: &Server, method: &str, target: &str, key: &str, body: &str) -> Response {
    let key = match key {
        "" => String::new(),
        key => format!("Authorization: Bearer {key}\r\n"),
    };
    let length = body.len();
    server.send(&format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{key}Content-Length: {length}\r\n\r\n{body}"
    ))
}

/// Returns the token that `GET /token` hands out.
#[track_caller]
fn token(server: &Server, key: &NewKey) -> String {
    let answer = send(server, "GET", "/token", &key.key, "");
    answer.json()["access_token"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
}

/// Returns the errcode of a call with this token and no key.
#[track_caller]
fn call(server: &Server, path: &str, token: &str) -> i64 {
    let answer = server.get(&format!("{path}?access_token={token}"));
    answer.json()["errcode"].as_i64().unwrap_or_else(|| panic!("{answer:?}"))
}

const MENU: &str = "/cgi-bin/menu/get";

#[test]
fn every_route_hands_out_the_clients_own_token_and_wechats_stays_here() {
    let setup = Setup::new();
    let server = setup.serve(&["-vvv"]);
    let one = token(&server, &setup.one);
    let real = setup.sandbox.token();
    assert!(one.starts_with("wxo_") && one.len() >= real.len() && one.len() >= 128, "{one}");
    assert!(one.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)));
    let credentials = format!("appid={APPID}&secret={}", setup.one.key);
    let stable = format!(
        r#"{{"grant_type":"client_credential","appid":"{APPID}","secret":"{}"}}"#,
        setup.one.key
    );
    for (method, target, key, body) in [
        ("GET", "/token/default".to_owned(), setup.one.key.as_str(), ""),
        ("POST", "/token".to_owned(), &setup.one.key, r#"{"rejected":"none"}"#),
        ("GET", format!("/cgi-bin/token?grant_type=client_credential&{credentials}"), "", ""),
        ("POST", "/cgi-bin/stable_token".to_owned(), "", &stable),
        (
            "GET",
            format!(
                "/cgi-bin/gettoken?{}",
                credentials.replace("appid", "corpid").replace("secret", "corpsecret")
            ),
            "",
            "",
        ),
    ] {
        let answer = send(&server, method, &target, key, body);
        assert_eq!(answer.json()["access_token"], one, "{target}: {answer:?}");
        let life = answer.json()["expires_in"].as_f64().unwrap();
        assert!(life > 0.0 && life <= setup.sandbox.left() + 1.0, "{answer:?}");
        assert!(!answer.body.contains(&real), "{answer:?}");
    }
    // The client's token goes no further than to the gateway.
    assert_eq!(call(&server, MENU, &one), 0);
    let calls = setup.upstream.calls();
    assert_eq!((calls.len(), calls[0].token()), (1, real.as_str()));
    // WeChat's own opens nothing here.
    assert_eq!(call(&server, MENU, &real), 40125);
    let pages = ["/", "/metrics"].map(|path| send(&server, "GET", path, &setup.one.key, "").body);
    let log = server.stop();
    for text in [&log, &pages[0], &pages[1]] {
        assert!(!text.contains(&one) && !text.contains(&real) && !text.contains(&one[20..]));
    }
}

#[test]
fn a_token_is_for_one_key_with_the_apis_of_that_and_ends_with_it() {
    let setup = Setup::new();
    let server = setup.serve(&[]);
    let [one, two] = [&setup.one, &setup.two].map(|key| token(&server, key));
    assert_ne!(one, two);
    assert_eq!(call(&server, "/wxa/getwxacode", &one), 0);
    assert_eq!(call(&server, "/wxa/getwxacode", &two), 48001);
    assert_eq!(call(&server, MENU, &two), 0);
    let with_other_key =
        send(&server, "GET", &format!("{MENU}?access_token={two}"), &setup.one.key, "");
    assert_eq!(with_other_key.json()["errcode"], 40125);
    for forged in [format!("{}{}", &one[..20], &two[20..]), format!("{}{}", &two[..20], &one[20..])]
    {
        assert_eq!(call(&server, MENU, &forged), 40125);
    }
    // On a connection that is open, too.
    let mut caller = server.caller();
    let request = format!("{MENU}?access_token={two}");
    assert_eq!(caller.get(&request).json()["errcode"], 0);
    setup.put_keys(&[&setup.one.line]);
    server.signal("HUP");
    eventually("the key is taken out", || caller.get(&request).json()["errcode"] == 40125);
    assert_eq!(call(&server, MENU, &one), 0);
}

#[test]
fn a_dead_token_heals_behind_it_and_a_report_of_it_is_one_of_wechats() {
    let setup = Setup::new();
    let server = setup.serve(&[]);
    let one = token(&server, &setup.one);
    let mints = setup.wechat.mints();
    setup.wechat.kill_tokens();
    assert_eq!(call(&server, MENU, &one), 0, "healed within the call");
    assert_eq!(setup.wechat.mints(), mints + 1);
    let next = token(&server, &setup.one);
    assert_ne!(next, one, "it is replaced with WeChat's");
    assert_eq!(call(&server, MENU, &one), 0, "and was one a moment ago");
    setup.wechat.kill_tokens();
    let report = |key: &NewKey, token: &str| {
        let body = format!(r#"{{"rejected":"{token}"}}"#);
        let answer = send(&server, "POST", "/token", &key.key, &body);
        answer.json()["access_token"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
    };
    // That of another client, and one that was replaced, say nothing about the current one.
    report(&setup.two, &next);
    report(&setup.one, &one);
    assert_eq!(setup.wechat.mints(), mints + 1);
    let third = report(&setup.one, &next);
    assert!(third != next && third.starts_with("wxo_"), "{third}");
    assert_eq!(setup.wechat.mints(), mints + 2);
    assert_eq!(call(&server, MENU, &third), 0);
}

#[test]
fn a_ticket_is_had_with_it_and_not_with_wechats_own() {
    let setup = Setup::new();
    setup.sandbox.publish_ticket("jsapi", "TICKET_1", 7200, 0);
    let server = setup.serve(&[]);
    let [one, two] = [&setup.one, &setup.two].map(|key| token(&server, key));
    let ticket = |token: &str| {
        server.get(&format!("/cgi-bin/ticket/getticket?type=jsapi&access_token={token}")).json()
    };
    assert_eq!(ticket(&one)["ticket"], "TICKET_1");
    assert_eq!(ticket(&two)["errcode"], 48001, "not among the APIs of its key");
    assert_eq!(ticket(&setup.sandbox.token())["errcode"], -1);
}

#[test]
fn it_is_the_same_after_a_restart_and_on_another_server_with_the_same_files() {
    let setup = Setup::new();
    let server = setup.serve(&[]);
    let one = token(&server, &setup.one);
    let other = setup.serve(&[]);
    assert_eq!(token(&other, &setup.one), one);
    server.stop();
    other.stop();
    let server = setup.serve(&[]);
    assert_eq!(call(&server, MENU, &one), 0);
    assert_eq!(token(&server, &setup.one), one);
}

#[test]
fn one_that_was_replaced_before_a_restart_heals_after_it_and_still_ends_with_its_key() {
    let setup = Setup::new();
    let server = setup.serve(&[]);
    let [one, two] = [&setup.one, &setup.two].map(|key| token(&server, key));
    let report = |server: &Server, token: &str| {
        let body = format!(r#"{{"rejected":"{token}"}}"#);
        send(server, "POST", "/token", &setup.one.key, &body).json()
    };
    setup.wechat.kill_tokens();
    let next = report(&server, &one)["access_token"].as_str().unwrap().to_owned();
    assert_ne!(next, one);
    assert_eq!(call(&server, MENU, &one), 0, "before the restart");
    server.stop();
    let state = std::fs::read_to_string(setup.sandbox.path("state/default.state")).unwrap();
    assert!(!state.contains("wxo_") && !state.contains(&setup.sandbox.token()), "{state}");

    let server = setup.serve(&[]);
    assert_eq!(call(&server, MENU, &one), 0);
    assert_eq!(setup.upstream.calls().last().unwrap().token(), setup.sandbox.token());
    // Its key's APIs hold, and it says no more of the current token than before.
    assert_eq!(call(&server, MENU, &two), 0);
    assert_eq!(call(&server, "/wxa/getwxacode", &two), 48001);
    let mints = setup.wechat.mints();
    assert_eq!(report(&server, &one)["access_token"], next);
    assert_eq!(setup.wechat.mints(), mints);
    // A dead token heals behind it.
    setup.wechat.kill_tokens();
    assert_eq!(call(&server, MENU, &one), 0);
    assert_eq!(setup.wechat.mints(), mints + 1);
    let last = if one.ends_with('A') { "B" } else { "A" };
    for forged in [one[..one.len() - 1].to_owned() + last, one.clone() + "A"] {
        assert_eq!(call(&server, MENU, &forged), 40125);
    }
    setup.put_keys(&[&setup.two.line]);
    server.signal("HUP");
    eventually("the key is taken out", || call(&server, MENU, &one) == 40125);
    assert_eq!(call(&server, MENU, &two), 0);
}

/// No SDK asks again for a token that is unknown.
#[test]
fn one_that_was_handed_out_before_they_were_turned_off_works_to_its_end_with_the_apis_of_its_key() {
    let setup = Setup::new();
    setup.sandbox.publish_ticket("jsapi", "TICKET_1", 7200, 0);
    let server = setup.serve(&[]);
    let [one, two] = [&setup.one, &setup.two].map(|key| token(&server, key));
    server.stop();
    let keys = setup.sandbox.path("keys");
    let server = setup.sandbox.serve_refreshing(&["--gateway", "--keys", keys.to_str().unwrap()]);
    assert_eq!(token(&server, &setup.one), setup.sandbox.token());
    assert_eq!(call(&server, MENU, &setup.sandbox.token()), 0);
    assert_eq!([&one, &two].map(|token| call(&server, MENU, token)), [0, 0]);
    assert_eq!(call(&server, "/wxa/getwxacode", &two), 48001);
    let ticket = server.get(&format!("/cgi-bin/ticket/getticket?type=jsapi&access_token={one}"));
    assert_eq!(ticket.json()["ticket"], "TICKET_1");
    // A report of it is one of WeChat's.
    setup.wechat.kill_tokens();
    let mints = setup.wechat.mints();
    let body = format!(r#"{{"rejected":"{one}"}}"#);
    let answer = send(&server, "POST", "/token", &setup.one.key, &body);
    assert_eq!(answer.json()["access_token"], setup.sandbox.token(), "{answer:?}");
    assert_eq!(setup.wechat.mints(), mints + 1);
    // It ends with its key.
    setup.put_keys(&[&setup.two.line]);
    server.signal("HUP");
    eventually("the key is taken out", || call(&server, MENU, &one) == 40125);
}

/// Its token would be handed out to programs that call WeChat.
#[test]
fn a_mirror_of_such_a_server_publishes_none() {
    let setup = Setup::new();
    let server = setup.serve(&[]);
    token(&server, &setup.one);
    let mirror = Home::new(&format!(
        "[account.default]\nfrom = \"{}\"\nkey_file = \"key\"\n",
        server.addresses[0]
    ));
    write_with_mode(&mirror.path("key"), &setup.one.key, 0o600);
    let ran = mirror.run(&["fetch", "--timeout", "10s"]);
    assert!(ran.stderr.contains("mirror one without --opaque-tokens"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("wxo_"), "{}", ran.stderr);
    assert_eq!(mirror.token("default"), None);
}

#[test]
fn it_needs_keys_and_the_gateway() {
    let setup = Setup::new();
    let keys = setup.sandbox.path("keys");
    let keys = ["--keys", keys.to_str().unwrap()];
    let refused =
        |args: &[&str]| setup.sandbox.serve_refused(&[&["--opaque-tokens"], args].concat());
    refused(&["--gateway"]).says(&["Give --keys, too: --opaque-tokens needs it"]);
    refused(&keys).says(&["Give --gateway, too: --opaque-tokens needs it"]);
    refused(&[]).says(&["Give --keys and --gateway, too: "]);
}

/// As a proxy's page about an error does, or a redirect.
#[test]
fn an_answer_that_repeats_the_url_shows_no_client_wechats_token() {
    let wechat = WeChat::start();
    let upstream = Upstream::new(&wechat, |call| {
        let (url, path) = (call.target().to_owned(), call.path().to_owned());
        let filler = if path.ends_with("long") { "x".repeat(8 * 1024) } else { String::new() };
        let body = format!("{filler} cannot get {url} {filler} {url}");
        let status = if path.contains("fine") { "200 OK" } else { "502 Bad Gateway" };
        let (framing, body) = match path.contains("chunked") {
            // Each token is in several of them.
            true => {
                let pieces = body.as_bytes().chunks(7).map(|it| str::from_utf8(it).unwrap());
                let chunks: String =
                    pieces.map(|it| format!("{:x}\r\n{it}\r\n", it.len())).collect();
                ("Transfer-Encoding: chunked".to_owned(), chunks + "0\r\n\r\n")
            }
            false => (format!("Content-Length: {}", body.len()), body),
        };
        let head = format!("HTTP/1.1 {status}\r\nLocation: {url}\r\nX-Kept: 1\r\n{framing}\r\n");
        Reply::Bytes(format!("{head}\r\n{body}").into_bytes())
    });
    let sandbox = Sandbox::with_base_url(&upstream.url());
    let (usual, limited) = (new_key(&["usual"]), new_key(&["--apis", "/cgi-bin/menu", "limited"]));
    let keys = sandbox.path("keys");
    write_with_mode(&keys, &format!("{}\n{}\n", usual.line, limited.line), 0o644);
    for flags in [&["--opaque-tokens"][..], &[]] {
        let flags = [&["--gateway", "--keys", keys.to_str().unwrap()], flags].concat();
        let server = sandbox.serve_refreshing(&flags);
        send(&server, "GET", "/cgi-bin/menu/fine", &usual.key, "");
        let real = sandbox.token();
        for key in [&usual, &limited] {
            let is_hidden = key.key == limited.key || flags.contains(&"--opaque-tokens");
            for (path, status) in [
                ("fine", 200),
                ("fine-long", 200),
                ("fine-chunked", 200),
                ("fine-chunked-long", 200),
                ("short", 502),
                ("long", 502),
            ] {
                let answer = send(&server, "GET", &format!("/cgi-bin/menu/{path}"), &key.key, "");
                let shows = answer.body.contains(&real) || answer.header("location").is_some();
                assert_eq!((answer.status, shows), (status, !is_hidden), "{path}: {answer:?}");
                let is_whole = path != "long" || !is_hidden;
                assert_eq!(answer.header("x-kept").is_some(), is_whole, "{answer:?}");
            }
        }
    }
}
