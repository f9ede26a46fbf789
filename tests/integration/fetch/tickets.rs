//! Tickets: fetched with a live token, published beside it, and never at the cost of the token.

use std::fs;

use crate::support::home::{Home, wechat_with_accounts};
use crate::support::*;
use serde_json::Value;

/// Returns a config with account `a0` on `api` with these `tickets`, and its stand-in with this life of tokens.
fn set_up(api: &str, tickets: &str, life: &str) -> (WeChat, Home) {
    let wechat = wechat_with_accounts(1, &["--life", life]);
    let more = format!("api = \"{api}\"\ntickets = {tickets}\n");
    let home = Home::with_accounts(1, &wechat.url(), &more);
    (wechat, home)
}

fn ticket_calls(wechat: &WeChat) -> u64 {
    wechat.calls()["tickets"].as_u64().unwrap()
}

fn ticket_document(home: &Home, kind: &str) -> Value {
    let bytes = fs::read(home.path(&format!("state/a0.{kind}.json"))).expect("it is published");
    serde_json::from_slice(&bytes).unwrap()
}

/// Rewrites a published ticket as if another host had fetched it `age` seconds ago.
fn set_ticket_age(home: &Home, kind: &str, age: i64) {
    let mut document = ticket_document(home, kind);
    document["created_at"] = time_ago(age).into();
    document.as_object_mut().unwrap().remove("boot_id");
    let path = home.path(&format!("state/a0.{kind}.json"));
    write_with_mode(&path, &document.to_string(), 0o600);
}

#[test]
fn tickets_are_fetched_after_the_token_and_again_only_when_due() {
    for (api, types) in [
        ("stable", ["jsapi", "wx_card"]),
        ("classic", ["jsapi", "wx_card"]),
        ("work", ["jsapi", "agent_config"]),
    ] {
        let (wechat, home) = set_up(api, &format!("{types:?}"), "2h");
        for _ in 0..3 {
            home.run(&["fetch"]).exits(0).silent();
        }
        assert_eq!((ticket_calls(&wechat), wechat.asked()), (2, 1), "{api}");
        let tickets = types.map(|kind| ticket_document(&home, kind)["ticket"].to_string());
        assert_ne!(tickets[0], tickets[1], "{api}");
        let got = home.run(&["get", "--ticket", types[0]]).exits(0).json();
        assert_eq!(got["ticket"].to_string(), tickets[0]);
        assert!((7100..=7200).contains(&got["expires_in"].as_u64().unwrap()), "{got}");
        let server = home.serve(&[]);
        assert_eq!(
            server.get(&format!("/ticket/a0/{}", types[1])).json()["ticket"].to_string(),
            tickets[1]
        );
    }
}

#[test]
fn a_ticket_call_that_reports_a_dead_token_replaces_the_token_once() {
    let (wechat, home) = set_up("stable", "[\"jsapi\"]", "2h");
    home.publish("a0", "wx0", "T_DEAD", 60);
    home.run(&["fetch"]).exits(0).silent();
    let token = home.token("a0").unwrap();
    assert!(token != "T_DEAD" && wechat.is_alive(&token));
    assert_eq!((ticket_calls(&wechat), wechat.mints()), (2, 1));
}

#[test]
fn a_ticket_refused_with_40001_again_after_a_new_token_is_a_failure_and_not_a_loop() {
    let (wechat, home) = set_up("stable", "[\"jsapi\"]", "2h");
    home.run(&["fetch"]).exits(0);
    fs::remove_file(home.path("state/a0.jsapi.json")).unwrap();
    wechat.fault("errcode:40001");
    home.run(&["fetch"]).exits(4).says(&["a0: jsapi ticket: ", "WeChat refused (40001)"]);
    assert_eq!(ticket_calls(&wechat), 2);
}

#[test]
fn a_refused_ticket_leaves_the_token_and_the_published_ticket() {
    let (wechat, home) = set_up("stable", "[\"jsapi\"]", "2h");
    home.run(&["fetch"]).exits(0);
    let (token, path) = (home.token("a0"), home.path("state/a0.jsapi.json"));
    set_ticket_age(&home, "jsapi", 7000);
    let due = fs::read_to_string(&path).unwrap();
    for (fault, code) in [("errcode:48001", 4), ("garbage", 5), ("errcode:45009", 4)] {
        wechat.fault(fault);
        home.run(&["fetch"]).exits(code).says(&["a0: jsapi ticket: "]);
        assert_eq!(
            (home.token("a0"), fs::read_to_string(&path).unwrap()),
            (token.clone(), due.clone())
        );
    }
    assert_eq!(ticket_calls(&wechat), 1 + 3, "one run does not retry");
    // A quota that is used up is remembered.
    wechat.fault("none");
    home.run(&["fetch"]).exits(4).says(&[
        "a0: jsapi ticket: ",
        "WeChat refused (45009)",
        "until 20",
    ]);
    home.run(&["fetch", "--force", "a0"]).exits(0).silent();
}

#[test]
fn an_invalid_ticket_is_an_error_and_never_published() {
    for fault in [
        "notoken",
        "emptytoken",
        "longtoken",
        "badtoken",
        "noexpiry",
        "zero",
        "negative",
        "forever",
        "fraction",
        "both",
        "half",
        "array",
        "null",
    ] {
        let (wechat, home) = set_up("stable", "[\"jsapi\"]", "2h");
        home.run(&["fetch"]).exits(0);
        let (token, path) = (home.token("a0"), home.path("state/a0.jsapi.json"));
        set_ticket_age(&home, "jsapi", 7000);
        let before = fs::read(&path).unwrap();
        wechat.fault(fault);
        home.run(&["fetch"])
            .exits(5)
            .says(&["a0: jsapi ticket: Look for a proxy", "the answer makes no sense: "]);
        assert_eq!((home.token("a0"), fs::read(&path).unwrap()), (token, before), "{fault}");
        assert_eq!(ticket_calls(&wechat), 2, "{fault}: no retry");
    }
    for fault in ["string", "errzero"] {
        let (wechat, home) = set_up("stable", "[\"jsapi\"]", "2h");
        wechat.fault(fault);
        home.run(&["fetch"]).exits(0).silent();
        assert!(ticket_document(&home, "jsapi")["ticket"].is_string(), "{fault}");
    }
}

#[test]
fn tickets_are_fetched_with_the_published_token_if_the_next_one_is_refused() {
    let (wechat, home) = set_up("stable", "[\"jsapi\", \"wx_card\"]", "2h");
    home.run(&["fetch"]).exits(0);
    let token = home.token("a0").unwrap();
    home.publish("a0", "wx0", &token, 7000);
    ["jsapi", "wx_card"].iter().for_each(|kind| set_ticket_age(&home, kind, 7000));
    wechat.fault("errcode:50004@1");
    home.run(&["fetch"]).exits(4).says(&["a0: ", "WeChat refused (50004)"]);
    assert_eq!(ticket_calls(&wechat), 4);

    // Each failure has a line of its own.
    ["jsapi", "wx_card"].iter().for_each(|kind| set_ticket_age(&home, kind, 7000));
    wechat.fault("errcode:45009");
    let ran = home.run(&["fetch"]).exits(4);
    let leads = ["a0: ", "a0: jsapi ticket: ", "a0: wx_card ticket: "];
    let lines = home.stderr_lines(&ran);
    assert_eq!(lines.len(), 3, "{lines:?}");
    for (line, lead) in lines.iter().zip(leads) {
        assert!(line.starts_with(&format!("wxtoken: fetch: {lead}")), "{line}");
    }
    assert_eq!(ticket_calls(&wechat), 6);

    // Neither a rejected token nor an expired one is used for tickets.
    home.command(&["fetch", "--rejected", &token]).output().unwrap();
    home.publish("a0", "wx0", &token, 7300);
    home.run(&["fetch"]).exits(4).says(&["a0: ", "WeChat refused (45009)"]);
    assert_eq!(ticket_calls(&wechat), 6);
}

#[test]
fn a_ticket_returned_again_keeps_its_first_expiry() {
    let (wechat, home) = set_up("work", "[\"jsapi\"]", "2h");
    home.run(&["fetch"]).exits(0);
    set_ticket_age(&home, "jsapi", 7000);
    home.run(&["fetch"]).exits(0);
    assert_eq!(ticket_calls(&wechat), 2);
    let left = home.run(&["get", "--ticket", "jsapi"]).exits(0).json()["expires_in"].as_u64();
    assert!(left.unwrap() <= 200, "{left:?}");
}

#[test]
fn a_published_ticket_of_another_account_is_neither_served_nor_replaced() {
    let (wechat, home) = set_up("stable", "[\"jsapi\"]", "2h");
    home.run(&["fetch"]).exits(0);
    let path = home.path("state/a0.jsapi.json");
    let foreign = fs::read_to_string(&path).unwrap().replace("wx0", "wx9");
    write_with_mode(&path, &foreign, 0o600);
    home.run(&["fetch"]).exits(2).says(&["a0: jsapi ticket: ", "belongs to wx9"]);
    home.run(&["get", "--ticket", "jsapi"]).exits(3).says(&["belongs to wx9"]);
    let server = home.serve(&["--refresh"]);
    assert_eq!(server.get("/ticket/a0/jsapi").status, 503);
    assert_eq!((fs::read_to_string(&path).unwrap(), ticket_calls(&wechat)), (foreign, 1));
}

#[test]
fn fifty_concurrent_fetches_make_one_ticket_call() {
    let (wechat, home) = set_up("stable", "[\"jsapi\"]", "2h");
    let fetches: Vec<_> = (0..50).map(|_| home.command(&["fetch"]).spawn().unwrap()).collect();
    for mut fetch in fetches {
        assert_eq!(fetch.wait().unwrap().code(), Some(0));
    }
    assert_eq!((ticket_calls(&wechat), wechat.mints()), (1, 1));
}

#[test]
fn a_ticket_type_that_the_api_lacks_or_that_is_listed_twice_is_a_config_error() {
    for (api, tickets, what) in [
        ("stable", "[\"agent_config\"]", "one of jsapi, wx_card"),
        ("work", "[\"wx_card\"]", "one of jsapi, agent_config"),
        ("stable", "[\"jsapi\", \"jsapi\"]", "Name each type once"),
    ] {
        let (_wechat, home) = set_up(api, tickets, "2h");
        home.run(&["fetch"]).exits(2).mentions(&["account.a0.tickets: ", what]);
    }
    let (_wechat, home) = set_up("stable", "[]", "2h");
    home.run(&["get", "--ticket", "jsapi"]).exits(3).says(&[
        "Put \"jsapi\" into tickets = […]",
        "then run ",
        "no jsapi ticket",
        "里加上 \"jsapi\"",
    ]);
    home.run(&["get", "--ticket", "nope"]).exits(2).says(&["one of jsapi, wx_card"]);
    // No command would fetch one for the account of the command line.
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    for args in [&["get", "--ticket", "jsapi"][..], &["sign", "https://shop.example/"]] {
        let ran = sandbox.run(args).exits(3).says(&["Put the account into a config, with tickets"]);
        assert!(!ran.stderr.contains("wxtoken fetch"), "{}", ran.stderr);
    }
}

#[test]
fn serve_refresh_fetches_tickets_and_does_not_repeat_a_refused_one() {
    let (wechat, home) = set_up("stable", "[\"jsapi\"]", "2h");
    let server = home.serve(&["--refresh"]);
    let mut answer = server.get("/ticket/a0/jsapi");
    eventually("there is a ticket", || {
        answer = server.get("/ticket/a0/jsapi");
        answer.status == 200
    });
    assert_eq!(ticket_calls(&wechat), 1);
    server.stop();

    fs::remove_file(home.path("state/a0.jsapi.json")).unwrap();
    wechat.fault("errcode:45009");
    let server = home.serve_with_log(&["--refresh"]);
    eventually("the refusal is logged", || home.has_logged("WeChat refused (45009)"));
    // The scheduler checks the account at each request, but does not request the ticket again.
    for _ in 0..50 {
        assert_eq!(server.get("/token/a0").status, 200);
        assert_eq!(server.get("/ticket/a0/jsapi").status, 503);
    }
    assert_eq!((ticket_calls(&wechat), wechat.probes()), (2, 0));
    // SIGHUP ends the pause.
    wechat.fault("none");
    server.signal("HUP");
    eventually("there is a ticket", || server.get("/ticket/a0/jsapi").status == 200);
}

#[test]
fn status_for_prometheus_has_the_expiry_of_each_ticket() {
    let (_wechat, home) = set_up("stable", "[\"jsapi\", \"wx_card\"]", "2h");
    home.run(&["fetch"]).exits(0);
    fs::remove_file(home.path("state/a0.wx_card.json")).unwrap();
    let metrics = home.run(&["status", "--format", "prometheus"]).exits(0).stdout;
    let ends = |kind: &str| {
        let lead =
            format!("wxtoken_ticket_expiry_timestamp_seconds{{account=\"a0\",type=\"{kind}\"}} ");
        metrics
            .lines()
            .find_map(|line| line.strip_prefix(&lead))
            .expect("the metric is there")
            .to_owned()
    };
    assert_eq!(ends("wx_card"), "0");
    let now = time::UtcDateTime::now().unix_timestamp();
    let left = ends("jsapi").parse::<i64>().unwrap() - now;
    assert!((7100..=7200).contains(&left), "{left}");
}

#[test]
fn status_shows_each_ticket_like_a_token_and_never_its_text() {
    let (_wechat, home) = set_up("stable", "[\"jsapi\", \"wx_card\"]", "2h");
    home.run(&["fetch"]).exits(0);
    let ticket = ticket_document(&home, "jsapi")["ticket"].as_str().unwrap().to_owned();
    set_ticket_age(&home, "jsapi", 7000);
    fs::remove_file(home.path("state/a0.wx_card.json")).unwrap();

    let ran = home.run(&["status", "--format", "json"]).exits(0);
    let account = ran.json()["accounts"][0].clone();
    assert_eq!((&account["account"], &account["state"]), (&"a0".into(), &"live".into()));
    let [jsapi, wx_card] = [0, 1].map(|n| account["tickets"][n].clone());
    let field = |row: &Value, key: &str| row[key].as_str().map(str::to_owned);
    assert_eq!(["type", "state"].map(|key| field(&jsapi, key).unwrap()), ["jsapi", "due"]);
    assert_eq!(["type", "state"].map(|key| field(&wx_card, key).unwrap()), ["wx_card", "missing"]);
    assert_eq!(
        (field(&jsapi, "appid"), field(&jsapi, "token_sha256")),
        (Some("wx0".to_owned()), None)
    );
    assert!((100..=200).contains(&jsapi["expires_in"].as_u64().unwrap()), "{jsapi}");
    let fingerprint = field(&jsapi, "ticket_sha256").unwrap();
    assert!(fingerprint.len() == 8 && fingerprint != account["token_sha256"], "{account}");
    assert!(field(&wx_card, "file").unwrap().ends_with("/a0.wx_card.json"), "{wx_card}");
    assert_eq!(field(&wx_card, "created_at"), None);

    let text = home.run(&["status"]).exits(0).stdout;
    let lines: Vec<_> = text.lines().map(|line| line.split("  ").collect::<Vec<_>>()).collect();
    let names = lines.iter().map(|line| line[0].trim_end()).collect::<Vec<_>>();
    assert_eq!(names, ["a0", "a0/jsapi", "a0/wx_card"], "{text}");
    assert!(text.contains(&format!("ticket {fingerprint}\n")), "{text}");
    assert!(!text.contains(&ticket) && !ran.stdout.contains(&ticket));
}

#[test]
fn metrics_and_the_page_show_the_state_of_tickets_and_never_their_text() {
    let (_wechat, home) = set_up("stable", "[\"jsapi\", \"wx_card\"]", "2h");
    home.run(&["fetch"]).exits(0);
    fs::remove_file(home.path("state/a0.wx_card.json")).unwrap();
    let server = home.serve(&[]);
    let (metrics, page) = (server.get("/metrics").body, server.get("/").body);
    for line in ["type=\"jsapi\"} 1\n", "type=\"wx_card\"} 0\n"] {
        let line = format!("wxtoken_ticket_live{{account=\"a0\",{line}");
        assert!(metrics.contains(&line), "{line} is not in {metrics}");
    }
    let rows = home.run(&["status", "--format", "json"]).exits(0).json();
    let fingerprint = rows["accounts"][0]["tickets"][0]["ticket_sha256"].as_str().unwrap();
    for part in
        ["jsapi ticket", fingerprint, "wx_card ticket", "The token is well, a ticket is not"]
    {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    let ticket = ticket_document(&home, "jsapi")["ticket"].as_str().unwrap().to_owned();
    assert!(!metrics.contains(&ticket) && !page.contains(&ticket));
}

#[test]
fn a_ticket_type_that_is_not_configured_is_404_and_one_that_is_not_fetched_yet_is_503() {
    let (_wechat, home) = set_up("stable", "[\"jsapi\"]", "2h");
    home.publish("a0", "wx0", "T1", 0);
    for args in [&[][..], &["--refresh"]] {
        let server = home.serve(args);
        let never = server.get("/ticket/a0/wx_card");
        assert_eq!((never.status, never.header("retry-after")), (404, None));
        assert_eq!(never.json()["error"], "no_such_ticket");
        let message = |path: &str| server.get(path).json()["message"].as_str().unwrap().to_owned();
        assert!(message("/ticket/a0/wx_card").starts_with("On the server, put \"wx_card\""));
        // No config can have it.
        let unknown = message("/ticket/a0/foo");
        assert!(unknown.starts_with("Ask for a ticket of the type jsapi, wx_card: "), "{unknown}");
        assert!(unknown.contains("请改用 jsapi、wx_card 类型的 ticket："), "{unknown}");
        assert!(never.body.contains("tickets = […]"), "{never:?}");
        let token = server.get("/token/a0").json()["access_token"].as_str().unwrap().to_owned();
        let path = format!("/cgi-bin/ticket/getticket?access_token={token}&type=wx_card");
        assert_eq!(server.get(&path).json()["errcode"], 48001);
    }
    let _ = fs::remove_file(home.path("state/a0.jsapi.json"));
    let server = home.serve(&[]);
    let not_yet = server.get("/ticket/a0/jsapi");
    assert_eq!((not_yet.status, not_yet.header("retry-after")), (503, Some("10")));
    assert_eq!(not_yet.json()["error"], "no_ticket");
    let path =
        format!("/cgi-bin/ticket/getticket?access_token={}&type=jsapi", home.token("a0").unwrap());
    assert_eq!(server.get(&path).json()["errcode"], -1);
}

#[test]
fn requests_wait_for_the_first_ticket() {
    let (wechat, home) = set_up("stable", "[\"jsapi\"]", "2h");
    wechat.fault("ticket/slow:1");
    let server = home.serve(&["--refresh"]);
    std::thread::scope(|scope| {
        for _ in 0..5 {
            // On a busy machine the time that a request waits may be over before.
            scope.spawn(|| eventually("a ticket", || server.get("/ticket/a0/jsapi").status == 200));
        }
    });
    assert_eq!((ticket_calls(&wechat), wechat.mints()), (1, 1));
    // A removed ticket is fetched again although it is not due.
    fs::remove_file(home.path("state/a0.jsapi.json")).unwrap();
    assert_eq!(server.get("/ticket/a0/jsapi").status, 200);
    assert_eq!((ticket_calls(&wechat), wechat.mints()), (2, 1));
}

#[test]
fn a_request_for_a_refused_ticket_gets_the_reason_and_when_to_retry() {
    let (wechat, home) = set_up("stable", "[\"jsapi\"]", "2h");
    home.publish("a0", "wx0", "T1", 0);
    wechat.fault("errcode:48001");
    let server = home.serve(&["--refresh"]);
    let refused = server.get("/ticket/a0/jsapi");
    assert_eq!(refused.status, 503);
    let why = refused.json()["message"].as_str().unwrap().to_owned();
    assert!(
        why.starts_with("Give the account or app permission")
            && why.contains("(there is no live jsapi ticket: a0)"),
        "{why}"
    );
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() > 3500, "{refused:?}");
    for _ in 0..20 {
        assert_eq!(server.get("/ticket/a0/jsapi").status, 503);
    }
    assert_eq!(ticket_calls(&wechat), 1);
    let metrics = server.get("/metrics").body;
    let failed = "wxtoken_ticket_last_failure_timestamp_seconds{account=\"a0\",type=\"jsapi\"} ";
    let at =
        metrics.lines().find_map(|line| line.strip_prefix(failed)).expect("the metric is there");
    assert_ne!(at, "0");
    assert!(server.get("/").body.contains("WeChat refused (48001)"));
}

#[test]
fn without_a_token_no_ticket_is_requested_and_the_answer_has_the_reason() {
    let (wechat, home) = set_up("stable", "[\"jsapi\"]", "2h");
    wechat.fault("errcode:40164");
    let server = home.serve(&["--refresh"]);
    let refused = server.get("/ticket/a0/jsapi");
    assert_eq!((refused.status, ticket_calls(&wechat)), (503, 0));
    let why = refused.json()["message"].as_str().unwrap().to_owned();
    assert!(why.starts_with("Add IP ") && why.contains("(there is no good token: a0)"), "{why}");
}

#[test]
fn serve_replaces_a_dead_token_that_a_ticket_call_reports() {
    let (wechat, home) = set_up("stable", "[\"jsapi\"]", "2h");
    // With one token minted, the replacement needs no forced call.
    home.run(&["fetch"]).exits(0);
    let first = home.token("a0").unwrap();
    wechat.kill_tokens();
    fs::remove_file(home.path("state/a0.jsapi.json")).unwrap();
    let server = home.serve(&["--refresh"]);
    assert_eq!(server.get("/ticket/a0/jsapi").status, 200);
    let second = home.token("a0").unwrap();
    assert!(second != first && wechat.is_alive(&second));
    assert_eq!((ticket_calls(&wechat), wechat.mints()), (3, 2));
}

#[test]
fn replacements_for_tickets_and_for_clients_share_one_quota() {
    let (wechat, home) = set_up("classic", "[\"jsapi\"]", "2h");
    home.publish("a0", "wx0", "T_DEAD", 60);
    let server = home.serve_with_log(&["--refresh"]);
    assert_eq!(server.get("/ticket/a0/jsapi").status, 200);
    wechat.kill_tokens();
    let answer = server.post("/token/a0", &rejected(&home.token("a0").unwrap()));
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.body.contains("once in 30 seconds"), "{answer:?}");
    assert_eq!(wechat.mints(), 1);
}

#[test]
fn a_ticket_whose_token_cannot_be_replaced_yet_is_retried_after_a_minute() {
    let (wechat, home) = set_up("classic", "[\"jsapi\"]", "2h");
    home.publish("a0", "wx0", "T_DEAD", 60);
    let server = home.serve_with_log(&["--refresh"]);
    assert_eq!(server.get("/ticket/a0/jsapi").status, 200);
    wechat.kill_tokens();
    fs::remove_file(home.path("state/a0.jsapi.json")).unwrap();
    assert_eq!(server.get("/ticket/a0/jsapi").status, 503);
    eventually("the refusal is logged", || home.has_logged("WeChat refused (40001)"));
    assert!(home.has_logged("(trying again in 1m"));
    assert_eq!(wechat.mints(), 1);
}

#[test]
fn shutdown_waits_for_a_ticket_call_in_progress() {
    let (wechat, home) = set_up("stable", "[\"jsapi\"]", "2h");
    home.publish("a0", "wx0", "T1", 0);
    home.run(&["fetch", "--rejected", "T1"]).exits(0);
    fs::remove_file(home.path("state/a0.jsapi.json")).unwrap();
    wechat.fault("slow:1");
    let server = home.serve(&["--refresh"]);
    eventually("the call has begun", || ticket_calls(&wechat) == 2);
    server.stop();
    assert!(ticket_document(&home, "jsapi")["ticket"].is_string());
}

#[test]
fn a_live_token_is_kept_although_a_ticket_call_reports_it_dead() {
    let (wechat, home) = set_up("stable", "[\"jsapi\"]", "2h");
    home.run(&["fetch"]).exits(0);
    let token = home.token("a0").unwrap();
    fs::remove_file(home.path("state/a0.jsapi.json")).unwrap();
    wechat.fault("errcode:40001@1");
    let server = home.serve_with_log(&["--refresh"]);
    eventually("the refusal is logged", || home.has_logged("WeChat refused (40001)"));
    assert_eq!(server.get("/ticket/a0/jsapi").status, 503);
    assert_eq!((ticket_calls(&wechat), wechat.probes(), wechat.mints()), (2, 1, 1));
    assert_eq!(home.token("a0"), Some(token));
    assert!(home.has_logged("trying again in 1h"));
}

#[test]
fn a_due_ticket_that_wechat_returns_unchanged_is_requested_ever_more_rarely() {
    let (wechat, home) = set_up("stable", "[\"jsapi\"]\nrefresh_before = \"3h\"", "2h");
    let fetch = || {
        for _ in 0..3 {
            home.run(&["fetch"]).exits(0).silent();
        }
        ticket_calls(&wechat)
    };
    assert_eq!(fetch(), 1, "for half of its life a ticket is not due, whatever the margin");
    set_ticket_age(&home, "jsapi", 3700);
    assert_eq!(fetch(), 2);
    let left = ticket_document(&home, "jsapi")["expires_in"].as_u64().unwrap();
    assert!((3400..=3500).contains(&left), "{left}");
    set_ticket_age(&home, "jsapi", 1700);
    assert_eq!(fetch(), 2);
    set_ticket_age(&home, "jsapi", 1800);
    assert_eq!(fetch(), 3);
}

#[test]
fn the_error_for_another_accounts_ticket_names_its_file() {
    let (wechat, home) = set_up("stable", "[\"jsapi\"]", "2h");
    home.run(&["fetch"]).exits(0);
    let path = home.path("state/a0.jsapi.json");
    let other = fs::read_to_string(&path).unwrap().replace("wx0", "wx9");
    write_with_mode(&path, &other, 0o600);
    let place = format!("{} belongs to wx9", path.display());
    home.run(&["fetch"]).exits(2).says(&[&place]);
    assert_eq!(fs::read_to_string(&path).unwrap(), other);
    assert_eq!(ticket_calls(&wechat), 1);
}
