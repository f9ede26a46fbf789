//! Tickets: fetched with a live token and after it, published beside it, and never at its cost.

mod support;
#[path = "support/home.rs"]
mod home;

use std::fs;

use home::Home;
use serde_json::Value;
use support::*;

/// An account `a0` with this `api` and these `tickets`, whose stand-in has this life.
fn set_up(api: &str, tickets: &str, life: &str) -> (WeChat, Home) {
    let mut args = Home::accounts_of_mock(1);
    args.extend(["--life".to_owned(), life.to_owned()]);
    let wechat = WeChat::with(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let more = format!("api = \"{api}\"\ntickets = {tickets}\n");
    let home = Home::of_accounts(1, &wechat.url(), &more);
    (wechat, home)
}

fn asked_for_tickets(wechat: &WeChat) -> u64 {
    wechat.calls()["tickets"].as_u64().unwrap()
}

fn ticket_document(home: &Home, kind: &str) -> Value {
    let bytes = fs::read(home.path(&format!("state/a0.{kind}.json"))).expect("it is published");
    serde_json::from_slice(&bytes).unwrap()
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
        assert_eq!((asked_for_tickets(&wechat), wechat.asked()), (2, 1), "{api}");
        let tickets = types.map(|kind| ticket_document(&home, kind)["ticket"].to_string());
        assert_ne!(tickets[0], tickets[1], "{api}");
        let got = home.run(&["get", "--ticket", types[0]]).exits(0).json();
        assert_eq!(got["ticket"].to_string(), tickets[0]);
        assert!((7190..=7200).contains(&got["expires_in"].as_u64().unwrap()), "{got}");
        let server = home.serve(&[]);
        assert_eq!(
            server.get(&format!("/ticket/a0/{}", types[1])).json()["ticket"].to_string(),
            tickets[1]
        );
    }
}

#[test]
fn a_ticket_call_that_says_the_token_is_dead_heals_the_token_once() {
    let (wechat, home) = set_up("stable", "[\"jsapi\"]", "2h");
    home.publish("a0", "wx0", "T_DEAD", 60);
    home.run(&["fetch"]).exits(0).silent();
    let token = home.token("a0").unwrap();
    assert!(token != "T_DEAD" && wechat.is_alive(&token));
    assert_eq!((asked_for_tickets(&wechat), wechat.mints()), (2, 1));
}

#[test]
fn a_token_that_is_dead_whatever_is_done_is_no_loop_and_a_refusal() {
    let (wechat, home) = set_up("stable", "[\"jsapi\"]", "2h");
    home.run(&["fetch"]).exits(0);
    fs::remove_file(home.path("state/a0.jsapi.json")).unwrap();
    wechat.fault("errcode:40001");
    home.run(&["fetch"]).exits(4).says(&["a0: jsapi ticket: WeChat refused (40001)"]);
    assert_eq!(asked_for_tickets(&wechat), 2);
}

#[test]
fn a_refusal_of_a_ticket_costs_neither_the_token_nor_the_ticket_that_is_there() {
    let (wechat, home) = set_up("stable", "[\"jsapi\"]", "2h");
    home.run(&["fetch"]).exits(0);
    let (token, path) = (home.token("a0"), home.path("state/a0.jsapi.json"));
    let due = fs::read_to_string(&path).unwrap().replace("7200", "200");
    write_with_mode(&path, &due, 0o600);
    for (fault, code) in [("errcode:48001", 4), ("errcode:45009", 4), ("garbage", 5)] {
        wechat.fault(fault);
        home.run(&["fetch"]).exits(code).says(&["a0: jsapi ticket: "]);
        assert_eq!(
            (home.token("a0"), fs::read_to_string(&path).unwrap()),
            (token.clone(), due.clone())
        );
    }
    assert_eq!(asked_for_tickets(&wechat), 1 + 3, "none of them is tried again in one run");
    wechat.fault("none");
    home.run(&["fetch"]).exits(0).silent();
}

#[test]
fn the_same_ticket_again_does_not_live_longer_for_it() {
    let (_wechat, home) = set_up("work", "[\"jsapi\"]", "2h");
    home.run(&["fetch"]).exits(0);
    let path = home.path("state/a0.jsapi.json");
    let due = fs::read_to_string(&path).unwrap().replace("7200", "200");
    write_with_mode(&path, &due, 0o600);
    home.run(&["fetch"]).exits(0);
    let left = home.run(&["get", "--ticket", "jsapi"]).exits(0).json()["expires_in"].as_u64();
    assert!(left.unwrap() <= 200, "{left:?}");
}

#[test]
fn fifty_fetches_at_once_are_one_ticket_call() {
    let (wechat, home) = set_up("stable", "[\"jsapi\"]", "2h");
    let fetches: Vec<_> = (0..50).map(|_| home.command(&["fetch"]).spawn().unwrap()).collect();
    for mut fetch in fetches {
        assert_eq!(fetch.wait().unwrap().code(), Some(0));
    }
    assert_eq!((asked_for_tickets(&wechat), wechat.mints()), (1, 1));
}

#[test]
fn a_ticket_that_the_api_does_not_have_or_that_is_named_twice_is_told() {
    for (api, tickets, what) in [
        ("stable", "[\"agent_config\"]", "there are jsapi, wx_card"),
        ("work", "[\"wx_card\"]", "there are jsapi, agent_config"),
        ("stable", "[\"jsapi\", \"jsapi\"]", "names a type twice"),
    ] {
        let (_wechat, home) = set_up(api, tickets, "2h");
        home.run(&["fetch"]).exits(2).says_something(&["account.a0.tickets: ", what]);
    }
    let (_wechat, home) = set_up("stable", "[]", "2h");
    home.run(&["get", "--ticket", "jsapi"]).exits(3).says(&["no jsapi ticket", "tickets = "]);
    home.run(&["get", "--ticket", "nope"]).exits(2).says(&["there are jsapi, wx_card"]);
}

#[test]
fn a_server_that_refreshes_keeps_tickets_too_and_does_not_hammer_what_is_refused() {
    let (wechat, home) = set_up("stable", "[\"jsapi\"]", "2h");
    let server = home.serve(&["--refresh"]);
    let mut answer = server.get("/ticket/a0/jsapi");
    eventually("there is a ticket", || {
        answer = server.get("/ticket/a0/jsapi");
        answer.status == 200
    });
    assert_eq!(asked_for_tickets(&wechat), 1);
    server.stop();

    fs::remove_file(home.path("state/a0.jsapi.json")).unwrap();
    wechat.fault("errcode:45009");
    let server = home.serve_with_log(&["--refresh"]);
    eventually("it is refused", || home.has_logged("a0: jsapi ticket: WeChat refused (45009)"));
    // The token's schedule goes on looking, and asks for no ticket.
    for _ in 0..50 {
        assert_eq!(server.get("/token/a0").status, 200);
        assert_eq!(server.get("/ticket/a0/jsapi").status, 503);
    }
    assert_eq!(asked_for_tickets(&wechat), 2);
    // Until somebody says that it was mended.
    wechat.fault("none");
    server.signal("HUP");
    eventually("there is a ticket", || server.get("/ticket/a0/jsapi").status == 200);
}

#[test]
fn a_monitor_reads_when_each_ticket_ends() {
    let (_wechat, home) = set_up("stable", "[\"jsapi\", \"wx_card\"]", "2h");
    home.run(&["fetch"]).exits(0);
    fs::remove_file(home.path("state/a0.wx_card.json")).unwrap();
    let told = home.run(&["status", "--format", "prometheus"]).exits(0).stdout;
    let ends = |kind: &str| {
        let lead =
            format!("wxtoken_ticket_expiry_timestamp_seconds{{account=\"a0\",type=\"{kind}\"}} ");
        told.lines().find_map(|line| line.strip_prefix(&lead)).expect("it is told").to_owned()
    };
    assert_eq!(ends("wx_card"), "0");
    let now = time::UtcDateTime::now().unix_timestamp();
    let left = ends("jsapi").parse::<i64>().unwrap() - now;
    assert!((7190..=7200).contains(&left), "{left}");
}

#[test]
fn status_tells_of_each_ticket_as_of_the_token_and_shows_none() {
    let (_wechat, home) = set_up("stable", "[\"jsapi\", \"wx_card\"]", "2h");
    home.run(&["fetch"]).exits(0);
    let ticket = ticket_document(&home, "jsapi")["ticket"].as_str().unwrap().to_owned();
    let due = fs::read_to_string(home.path("state/a0.jsapi.json")).unwrap().replace("7200", "200");
    write_with_mode(&home.path("state/a0.jsapi.json"), &due, 0o600);
    fs::remove_file(home.path("state/a0.wx_card.json")).unwrap();

    let ran = home.run(&["status", "--format", "json"]).exits(0);
    let account = ran.json()["accounts"][0].clone();
    assert_eq!((&account["account"], &account["state"]), (&"a0".into(), &"live".into()));
    let [jsapi, wx_card] = [0, 1].map(|n| account["tickets"][n].clone());
    let of = |row: &Value, key: &str| row[key].as_str().map(str::to_owned);
    assert_eq!(["type", "state"].map(|key| of(&jsapi, key).unwrap()), ["jsapi", "due"]);
    assert_eq!(["type", "state"].map(|key| of(&wx_card, key).unwrap()), ["wx_card", "missing"]);
    assert_eq!((of(&jsapi, "appid"), of(&jsapi, "token_sha256")), (Some("wx0".to_owned()), None));
    assert!((190..=200).contains(&jsapi["expires_in"].as_u64().unwrap()), "{jsapi}");
    let fingerprint = of(&jsapi, "ticket_sha256").unwrap();
    assert!(fingerprint.len() == 8 && fingerprint != account["token_sha256"], "{account}");
    assert!(of(&wx_card, "file").unwrap().ends_with("/a0.wx_card.json"), "{wx_card}");
    assert_eq!(of(&wx_card, "created_at"), None);

    let text = home.run(&["status"]).exits(0).stdout;
    let lines: Vec<_> = text.lines().map(|line| line.split("  ").collect::<Vec<_>>()).collect();
    let names = lines.iter().map(|line| line[0].trim_end()).collect::<Vec<_>>();
    assert_eq!(names, ["a0", "a0/jsapi", "a0/wx_card"], "{text}");
    assert!(text.contains(&format!("ticket {fingerprint}\n")), "{text}");
    assert!(!text.contains(&ticket) && !ran.stdout.contains(&ticket));
}
