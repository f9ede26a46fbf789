//! WeChat's routes for SDKs: the format of answers, errcodes that no SDK retries for ever, and repeated requests of one client.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::support::*;
use serde_json::{Value, json};

/// Errcodes that make some SDKs retry for ever.
const RETRIED_FOR_EVER: [i64; 3] = [40001, 40014, 42001];

fn token_path() -> String {
    format!("/cgi-bin/token?grant_type=client_credential&appid={APPID}&secret=KEY")
}

fn stable_body(force: bool) -> String {
    json!({
        "grant_type": "client_credential", "appid": APPID, "secret": "KEY", "force_refresh": force,
    })
    .to_string()
}

fn ticket_path(token: &str) -> String {
    format!("/cgi-bin/ticket/getticket?access_token={token}&type=jsapi")
}

/// Asserts status and headers. Returns the body.
#[track_caller]
fn body(response: &Response) -> Value {
    assert_eq!(response.status, 200, "{response:?}");
    for (name, value) in [
        ("content-type", "application/json"),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(response.header(name), Some(value), "{response:?}");
    }
    assert_eq!(response.header("content-length").unwrap(), response.body.len().to_string());
    response.json()
}

/// Asserts that the answer is a refusal. Returns errcode and errmsg.
#[track_caller]
fn refusal(response: &Response) -> (i64, String) {
    let body = body(response);
    assert_eq!(body.as_object().unwrap().len(), 2, "{body}");
    let (code, text) = (body["errcode"].as_i64().unwrap(), body["errmsg"].as_str().unwrap());
    assert_ne!(code, 0);
    assert!(text.len() > 10, "{body}");
    for errcode in RETRIED_FOR_EVER {
        assert!(!response.body.contains(&errcode.to_string()), "{response:?}");
    }
    (code, text.to_owned())
}

/// Returns a sandbox with a live token and its server without --refresh.
fn published() -> (Sandbox, Server) {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 1000);
    let server = sandbox.serve(&[]);
    (sandbox, server)
}

// Format.

#[test]
fn each_route_answers_in_wechats_format() {
    let (sandbox, server) = published();
    sandbox.publish_ticket("jsapi", "TICKET", 7200, 1000);
    for (response, with_errcode, what) in [
        (server.get(&token_path()), false, "access_token"),
        (server.post("/cgi-bin/stable_token", &stable_body(false)), false, "access_token"),
        (
            server.get(&format!("/cgi-bin/gettoken?corpid={APPID}&corpsecret=KEY")),
            true,
            "access_token",
        ),
        (server.get(&ticket_path("T1")), true, "ticket"),
    ] {
        let body = body(&response);
        // An integer: some SDKs accept no other type.
        let left = body["expires_in"].as_u64().expect("a number");
        assert!((6100..=6200).contains(&left), "{body}");
        assert_eq!(body[what], if what == "ticket" { "TICKET" } else { "T1" }, "{body}");
        match with_errcode {
            true => assert_eq!((&body["errcode"], &body["errmsg"]), (&json!(0), &json!("ok"))),
            false => assert_eq!(body.as_object().unwrap().len(), 2, "{body}"),
        }
    }
}

#[test]
fn parameters_can_have_any_order_and_unknown_ones_are_ignored() {
    let (_sandbox, server) = published();
    for query in [
        format!("appid={APPID}&secret=&grant_type=client_credential"),
        format!("secret=a%2Bb&foo&grant_type=client_credential&appid={APPID}&bar=%ff"),
        format!("grant_type=client%5Fcredential&appid={APPID}"),
    ] {
        let response = server.get(&format!("/cgi-bin/token?{query}"));
        assert_eq!(body(&response)["access_token"], "T1", "{query}");
    }
    let stable = |body: &Value| server.post("/cgi-bin/stable_token", &body.to_string());
    let request = json!({"grant_type": "client_credential", "appid": APPID, "more": [1, {"x": 2}]});
    assert_eq!(body(&stable(&request))["access_token"], "T1");
    let mut caller = server.caller();
    for _ in 0..3 {
        assert_eq!(caller.get(&token_path()).json()["access_token"], "T1", "kept alive");
    }
    // HTTP/1.0 and HEAD.
    let old = format!("GET {} HTTP/1.0\r\n\r\n", token_path());
    assert_eq!(body(&server.send(&old))["access_token"], "T1");
    caller.send(format!("HEAD {} HTTP/1.1\r\nHost: localhost\r\n\r\n", token_path()));
    assert_eq!(caller.answer_to_head().status, 200);
}

#[test]
fn an_invalid_request_gets_wechats_errcode() {
    let (_sandbox, server) = published();
    let get = |path: &str| refusal(&server.get(path)).0;
    let token = |query: &str| get(&format!("/cgi-bin/token?{query}"));
    assert_eq!(get("/cgi-bin/token"), 41002);
    assert_eq!(token("grant_type=client_credential&secret=KEY"), 41002);
    assert_eq!(token(&format!("appid={APPID}&secret=KEY")), 40002);
    assert_eq!(token(&format!("appid={APPID}&secret=KEY&grant_type=authorization_code")), 40002);
    assert_eq!(token("grant_type=client_credential&appid=wx1&secret=KEY"), 40013);
    assert_eq!(get("/cgi-bin/gettoken"), 41002);
    assert_eq!(get("/cgi-bin/gettoken?corpid=ww1&corpsecret=KEY"), 40013);
    assert_eq!(get("/cgi-bin/ticket/getticket"), 41001);
    assert_eq!(get("/cgi-bin/ticket/getticket?access_token=T1"), 40097);
    for kind in ["JSAPI", "..%2Fdefault", "a.b", "", &"x".repeat(33)] {
        let path = format!("/cgi-bin/ticket/getticket?access_token=T1&type={kind}");
        assert_eq!(get(&path), 40097, "{kind}");
    }
    let post = |body: &str| refusal(&server.post("/cgi-bin/stable_token", body)).0;
    assert_eq!(post(""), 44002);
    for wrong in ["{", "null", "[]", "appid=wx1", r#"{"appid":1}"#, r#"{"force_refresh":"yes"}"#] {
        assert_eq!(post(wrong), 47001, "{wrong}");
    }
    assert_eq!(post("{}"), 41002);
    assert_eq!(post(r#"{"grant_type":"client_credential","appid":"wx1"}"#), 40013);
    for (method, path, code) in [
        ("POST", token_path(), 43001),
        ("PUT", ticket_path("T1"), 43001),
        ("GET", "/cgi-bin/stable_token".to_owned(), 43002),
        ("HEAD", "/cgi-bin/stable_token".to_owned(), 0),
    ] {
        let request = post_request(&path, "").replacen("POST", method, 1);
        match code {
            0 => assert_eq!(server.send(&request).status, 200),
            code => assert_eq!(refusal(&server.send(&request)).0, code, "{method} {path}"),
        }
    }
}

#[test]
fn a_wrong_or_missing_key_gets_the_errcode_of_a_wrong_or_missing_appsecret() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 0);
    let mut command = wxtoken();
    command.args(["key", "php"]);
    let stdout = Run::new(command).exits(0).stdout;
    let field = |label: &str| {
        stdout.lines().find_map(|line| line.strip_prefix(label)).unwrap().trim().to_owned()
    };
    let keys = sandbox.path("keys");
    write_with_mode(&keys, &field("line:"), 0o644);
    let server = sandbox.serve(&["--keys", keys.to_str().unwrap()]);
    let path = token_path().replace("KEY", &field("key:"));
    assert_eq!(body(&server.get(&path))["access_token"], "T1");
    assert_eq!(refusal(&server.get(&token_path())).0, 40125);
    assert_eq!(refusal(&server.get(&token_path().replace("KEY", ""))).0, 41004);
    assert_eq!(refusal(&server.post("/cgi-bin/stable_token", &stable_body(true))).0, 40125);
    // PowerWeChat shows what its token request is answered.
    let (_, why) = refusal(&server.get(&format!("{}&neededText=", token_path())));
    assert!(why.contains("not in the server's keys file"), "{why}");
    // Without a valid key, an unknown AppID gets the same errcode.
    let unknown = token_path().replace(APPID, "wx1");
    assert_eq!(refusal(&server.get(&unknown)).0, 40125);
}

// Errors.

#[test]
fn no_errcode_of_these_routes_makes_an_sdk_retry_for_ever() {
    let routes = |server: &Server| -> Vec<Response> {
        let mut all = vec![
            server.get(&token_path()),
            server.get(&format!("/cgi-bin/gettoken?corpid={APPID}&corpsecret=KEY")),
            server.get(&ticket_path("T1")),
            server.get(&ticket_path("T2")),
        ];
        for force in [true, false] {
            all.push(server.post("/cgi-bin/stable_token", &stable_body(force)));
        }
        all
    };
    let mut codes = BTreeSet::new();
    let mut collect = |responses: Vec<Response>| {
        for response in responses {
            codes.insert(refusal(&response).0);
        }
    };

    // No token, an expired one, and one of another account; without --refresh.
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    let server = sandbox.serve(&[]);
    collect(routes(&server));
    sandbox.publish("T1", 7200, 7200);
    collect(routes(&server));
    sandbox.publish("T1", 7200, 0);
    let text = fs::read_to_string(sandbox.document_path()).unwrap();
    fs::write(sandbox.document_path(), text.replace(APPID, "wx1")).unwrap();
    collect(routes(&server));
    // An address that is not allowed, behind a proxy; headers of a proxy that name no client.
    sandbox.publish("T1", 7200, 0);
    let server = sandbox.serve(&["--trusted-proxy", "127.0.0.1", "--allow", "10.0.0.1"]);
    for header in ["X-Forwarded-For: 10.0.0.2", "X-Forwarded-For: nonsense", "Via: 1.1 x"] {
        let path = token_path();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: x\r\n{header}\r\nConnection: close\r\n\r\n");
        collect(vec![server.send(&request)]);
    }
    // Refusals by WeChat, with these errcodes among them.
    let wechat = WeChat::start();
    for code in [40001, 40014, 42001, 40013, 40125, 40164, 41004, 45009, 45011, 48001, 50002, -1] {
        wechat.fault(&format!("errcode:{code}"));
        let sandbox = Sandbox::new(&wechat);
        let server = sandbox.serve_refreshing(&[]);
        eventually("the refusal is known", || server.get("/token").status == 503);
        let body = server.get("/token").body;
        assert!(body.contains(&code.to_string()), "/token names the errcode: {body}");
        collect(routes(&server));
    }
    // A client that asks so often for what is not there gets 45011. Other tests cover invalid requests and retry loops.
    assert!(codes.is_superset(&BTreeSet::from([-1, 40164])), "{codes:?}");
    assert!(codes.is_subset(&BTreeSet::from([-1, 40164, 45011])), "{codes:?}");
}

// Tickets.

#[test]
fn a_ticket_needs_the_current_or_previous_token_and_has_the_requested_type() {
    let (sandbox, server) = published();
    sandbox.publish_ticket("jsapi", "J1", 7200, 0);
    sandbox.publish_ticket("wx_card", "C1", 7200, 7201);
    let ticket = |path: &str| server.get(path);
    assert_eq!(ticket("/ticket/jsapi").json()["ticket"], "J1");
    assert_eq!(ticket("/ticket/default/jsapi").json()["ticket"], "J1");
    let left = ticket("/ticket/jsapi").json()["expires_in"].as_u64().unwrap();
    assert!((7100..=7200).contains(&left), "{left}");
    let expired = ticket("/ticket/wx_card");
    assert_eq!(expired.status, 503, "{expired:?}");
    assert!(expired.header("retry-after").is_some());
    // A type that is not configured.
    let none = ticket("/ticket/agent_config");
    assert_eq!((none.status, &none.json()["error"]), (404, &"no_such_ticket".into()));
    let path = "/cgi-bin/ticket/getticket?access_token=T1&type=agent_config";
    assert_eq!(refusal(&server.get(path)).0, 48001);
    for path in ["/ticket/JSAPI", "/ticket/default/..", "/ticket/default/a.b", "/ticket/"] {
        assert_eq!(ticket(path).status, 404, "{path}");
    }
    assert_eq!(ticket("/ticket/other/jsapi").status, 404);

    assert_eq!(body(&server.get(&ticket_path("T1")))["ticket"], "J1");
    assert_eq!(refusal(&server.get(&ticket_path("T2"))).0, -1);
    // The previous token is accepted while it still works at WeChat.
    sandbox.publish("T2", 7200, 0);
    for token in ["T1", "T2"] {
        assert_eq!(body(&server.get(&ticket_path(token)))["ticket"], "J1", "{token}");
    }
    assert_eq!(refusal(&server.get(&ticket_path("T3"))).0, -1);
    sandbox.publish("T2", 7200, 7200);
    assert_eq!(refusal(&server.get(&ticket_path("T2"))).0, -1, "the token has expired");
}

#[test]
fn a_document_that_is_no_valid_ticket_is_not_served_as_one() {
    let (sandbox, server) = published();
    let path = sandbox.path("state/default.jsapi.json");
    let token = sandbox.document();
    let mut both = token.clone();
    both["ticket"] = json!("J1");
    let mut foreign = json!({ "ticket": "J1", "appid": "wx1" });
    let mut damaged = json!({ "ticket": "J1 J1", "appid": APPID });
    for field in ["expires_in", "created_at"] {
        foreign[field] = token[field].clone();
        damaged[field] = token[field].clone();
    }
    for wrong in [&token, &both, &foreign, &damaged, &json!("T1")] {
        fs::write(&path, wrong.to_string()).unwrap();
        let response = server.get("/ticket/jsapi");
        assert!([404, 503].contains(&response.status), "{wrong}: {response:?}");
        assert!(!response.body.contains("T1") && !response.body.contains("J1"), "{response:?}");
        assert!([-1, 48001].contains(&refusal(&server.get(&ticket_path("T1"))).0), "{wrong}");
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!([404, 503].contains(&server.get("/ticket/jsapi").status));
    // A ticket is not served as a token.
    sandbox.publish_ticket("x", "J1", 7200, 0);
    fs::rename(sandbox.path("state/default.x.json"), sandbox.document_path()).unwrap();
    assert!(!server.get("/token").body.contains("J1"));
}

// Repeated requests.

#[test]
fn an_sdk_with_a_revoked_token_gets_a_live_one_by_repeated_requests() {
    for api in ["stable", "classic", "work"] {
        let wechat = WeChat::start();
        let sandbox = Sandbox::new(&wechat).on(api);
        let server = sandbox.serve_refreshing(&[]);
        let path = match api {
            "work" => format!("/cgi-bin/gettoken?corpid={APPID}&corpsecret=KEY"),
            _ => token_path(),
        };
        let ask = || body(&server.get(&path))["access_token"].as_str().unwrap().to_owned();
        let first = ask();
        wechat.kill_tokens();
        let requests = (1..=3).find(|_| ask() != first).expect("a new token by the third request");
        assert!(wechat.is_alive(&ask()), "{api}, after {requests}");
        assert_eq!(wechat.mints(), 2, "{api}");
    }
}

/// An SDK that has no way to report a dead token keeps it until its cache ends.
#[test]
fn sdk_life_ends_caches_early_and_asking_again_replaces_a_dead_token() {
    for api in ["stable", "work"] {
        let wechat = WeChat::start();
        let sandbox = Sandbox::new(&wechat).on(api);
        let server = sandbox.serve_refreshing(&["--sdk-life", "290s"]);
        let ask = || match api {
            "work" => server.get(&format!("/cgi-bin/gettoken?corpid={APPID}&corpsecret=KEY")),
            _ => server.get(&token_path()),
        };
        let first = body(&ask());
        assert_eq!(first["expires_in"], 290);
        let stable = body(&server.post("/cgi-bin/stable_token", &stable_body(false)));
        assert_eq!(stable["expires_in"], 290);
        assert!(server.get("/token").json()["expires_in"].as_u64() > Some(6000), "as it is");
        wechat.kill_tokens();
        // What a probe said just before holds for a second.
        eventually("another token", || body(&ask())["access_token"] != first["access_token"]);
        assert!(wechat.is_alive(body(&ask())["access_token"].as_str().unwrap()));
        assert_eq!(wechat.mints(), 2, "{api}");
    }
    // A token with less life is no exception.
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 7000);
    let server = sandbox.serve(&["--sdk-life", "290s"]);
    let left = body(&server.get(&token_path()))["expires_in"].as_u64().expect("a number");
    assert!(left <= 200, "{left}");
    for wrong in ["60s", "2h1m", "0", "long"] {
        let ran = sandbox.run(&["serve", "--sdk-life", wrong]).exits(2);
        assert!(ran.stderr.contains("--sdk-life"), "{}", ran.stderr);
    }
}

#[test]
fn a_forced_refresh_makes_no_token_call_while_the_token_is_live() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    let force = || {
        let response = server.post("/cgi-bin/stable_token", &stable_body(true));
        body(&response)["access_token"].as_str().unwrap().to_owned()
    };
    let first = force();
    for _ in 0..50 {
        assert_eq!(force(), first);
    }
    assert_eq!((wechat.asked(), wechat.mints()), (1, 1));
    // Five at once, and one more in half a minute.
    assert!((1..=10).contains(&wechat.probes()), "{}", wechat.probes());
    wechat.kill_tokens();
    eventually("the token is replaced", || {
        let response = server.post("/cgi-bin/stable_token", &stable_body(true));
        wechat.is_alive(body(&response)["access_token"].as_str().unwrap_or(&first))
    });
    assert_eq!(wechat.mints(), 2);
}

#[test]
fn fifty_workers_that_start_together_or_in_turn_all_get_the_token() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    let request = format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", token_path());
    let mut workers: Vec<TcpStream> = (0..50).map(|_| connect(server.address())).collect();
    for worker in &mut workers {
        worker.write_all(request.as_bytes()).unwrap();
    }
    let mut tokens: Vec<String> = workers
        .into_iter()
        .map(|worker| {
            let response = Caller::new(worker).answer();
            body(&response)["access_token"].as_str().expect("a token").to_owned()
        })
        .collect();
    let server = sandbox.serve_refreshing(&[]);
    for _ in 0..50 {
        let response = server.get(&token_path());
        tokens.push(body(&response)["access_token"].as_str().expect("a token").to_owned());
    }
    tokens.dedup();
    assert_eq!(tokens, [sandbox.token()]);
    assert_eq!((wechat.asked(), wechat.mints()), (1, 1));
    assert!(wechat.probes() <= 2 * 10, "{}", wechat.probes());
}

/// Asks on one connection, as fast as it goes, until there is no token in the answer. Returns that answer, and its number.
fn end_of_loop(caller: &mut Caller<TcpStream>) -> (Response, u32) {
    // A machine that is busy is too slow for a loop now and then.
    let mut answers = (1..=20_000).map(|asked| (caller.get(&token_path()), asked));
    answers.find(|(answer, _)| body(answer)["errcode"].is_i64()).expect("the loop is ended")
}

/// wechatpy retries until its process fails, at the 489th request.
#[test]
fn a_retry_loop_with_a_live_token_is_ended_and_the_next_request_is_served() {
    for refresh in [true, false] {
        let wechat = WeChat::start();
        let sandbox = Sandbox::new(&wechat);
        let server = match refresh {
            true => sandbox.serve_refreshing(&[]),
            false => {
                sandbox.run(&["fetch"]).exits(0);
                sandbox.serve(&[])
            }
        };
        let mut caller = server.caller();
        let (end, asked) = end_of_loop(&mut caller);
        let (code, text) = refusal(&end);
        assert_eq!(code, 45011);
        let expected = if refresh { "WeChat honours" } else { "does not ask WeChat" };
        assert!(text.contains(expected), "{text}");
        assert!(asked > 100, "{asked}");
        assert_eq!(caller.get(&token_path()).json()["access_token"], sandbox.token());
        assert_eq!(wechat.asked(), 1);
        assert!(wechat.probes() <= 10, "{}", wechat.probes());
    }
}

/// Such a client got 45011 at every 101st call.
#[test]
fn a_client_that_asks_with_each_of_its_calls_is_never_refused() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    let mut caller = server.caller();
    // Seven calls a second, or fewer.
    for _ in 0..120 {
        assert_eq!(body(&caller.get(&token_path()))["access_token"], sandbox.token());
        thread::sleep(Duration::from_millis(143));
    }
    assert_eq!(wechat.asked(), 1);
}

/// The end of a loop used to hit the client that asked next from the same address with the same key.
#[test]
fn the_end_of_a_loop_hits_no_other_client_with_the_same_address_and_key() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    let mut looping = server.caller();
    let mut bystander = server.caller();
    let is_token = |answer: &Response| body(answer)["access_token"] == sandbox.token();
    assert!(is_token(&bystander.get(&token_path())));
    let mut ends = 0;
    for nth in 0..20_000 {
        ends += u32::from(!is_token(&looping.get(&token_path())));
        if ends == 2 {
            return;
        }
        // On a connection of its own each time, and on one that is kept.
        if nth % 5 == 0 {
            assert!(is_token(&server.get(&token_path())), "{nth}");
        }
        if nth % 50 == 0 {
            assert!(is_token(&bystander.get(&token_path())), "{nth}");
        }
    }
    panic!("{ends}");
}

/// It used to say that WeChat honours the token, also where it had not been asked.
#[test]
fn the_end_of_a_loop_claims_only_what_wechat_has_said() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    let mut caller = server.caller();
    body(&caller.get(&token_path()));
    wechat.fault("probe/errcode:45009");
    let (end, asked) = end_of_loop(&mut caller);
    let (code, text) = refusal(&end);
    assert_eq!(code, 45011);
    // Each of them costs the client a call to WeChat.
    assert!(asked <= 20, "{asked}");
    assert!(!text.contains("honours") && text.contains("could not be asked"), "{text}");
}

/// Some SDKs take a negative errcode for success, and asked 425 times a second.
#[test]
fn a_client_that_keeps_asking_for_what_is_not_there_gets_a_positive_errcode_until_it_pauses() {
    let wechat = WeChat::with(&["--fault", "errcode:40164"]);
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    eventually("the refusal is known", || server.get("/token").status == 503);
    let ask = || refusal(&server.get(&token_path()));
    let mut codes = (0..20_000).map(|_| ask().0).skip_while(|code| *code == -1);
    assert_eq!(codes.next(), Some(45011));
    let mut texts = (0..20_000).map(|_| ask()).skip_while(|(code, _)| *code == -1);
    let (_, text) = texts.next().expect("it is refused again");
    assert!(text.contains("there is nothing to hand out") && text.contains("40164"), "{text}");
    // The second ends.
    eventually("the answer is the usual one", || ask().0 == -1);
    // A ticket is not there, either.
    let ticket = || refusal(&server.get(&ticket_path("T1"))).0;
    assert!((0..20_000).any(|_| ticket() == 45011));
    wechat.fault("none");
    sandbox.run(&["fetch", "--force"]).exits(0);
    assert_eq!(body(&server.get(&token_path()))["access_token"], sandbox.token());
}

/// The connection of a proxy is that of many clients.
#[test]
fn a_proxy_gets_no_end_of_a_loop() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 1000);
    let server = sandbox.serve(&["--trusted-proxy", "127.0.0.1", "--allow", "10.0.0.0/8"]);
    let mut caller = server.caller();
    let path = token_path();
    for _ in 0..300 {
        caller.send(format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n"
        ));
        assert_eq!(body(&caller.answer())["access_token"], "T1");
    }
}

#[test]
fn a_token_that_cannot_be_verified_is_not_replaced_for_repeated_requests() {
    for fault in ["errcode:40164", "http:502", "reset"] {
        let wechat = WeChat::start();
        let sandbox = Sandbox::new(&wechat).on("classic");
        let server = sandbox.serve_refreshing(&[]);
        let token = body(&server.get(&token_path()))["access_token"].clone();
        wechat.fault(fault);
        for _ in 0..20 {
            assert_eq!(body(&server.get(&token_path()))["access_token"], token, "{fault}");
        }
        assert_eq!((wechat.asked(), wechat.mints()), (1, 1), "{fault}");
        assert!((1..=10).contains(&wechat.probes()), "{fault}: {}", wechat.probes());
    }
}

#[test]
fn repeated_requests_are_answered_in_time_while_wechat_hangs() {
    // On a busy machine the requests can start late. If they really waited for as long, they would do so each time.
    assert!((0..5).any(|_| are_answered_before_a_request_that_waits_for_a_token()));
}

/// Returns whether requests with doubts about a token are answered with it sooner than a report of one that is not there.
fn are_answered_before_a_request_that_waits_for_a_token() -> bool {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let server = sandbox.serve_refreshing(&[]);
    let token = body(&server.get(&token_path()))["access_token"].clone();
    wechat.fault("hang");
    // A server without a token makes a report wait for WeChat as long as it makes any wait.
    let without_token = Sandbox::new(&wechat).serve_refreshing(&[]);
    thread::scope(|scope| {
        let longest = scope.spawn(|| without_token.post("/token", r#"{"rejected":"TOKEN"}"#));
        let requests: Vec<_> = (0..20)
            .map(|_| {
                scope.spawn(|| assert_eq!(body(&server.get(&token_path()))["access_token"], token))
            })
            .collect();
        requests.into_iter().for_each(|it| it.join().unwrap());
        assert_eq!(wechat.probes(), 1);
        !longest.is_finished()
    })
}
