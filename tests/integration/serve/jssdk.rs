//! Signatures of pages for WeChat's JS-SDK: `GET /jssdk` and `wxtoken sign`.

use std::path::Path;
use std::process::Command;

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde_json::Value;

use crate::support::home::{Home, wechat_with_accounts};
use crate::support::*;

const TICKET: &str =
    "sM4AOVdWfPE4DxkXGEs8VMCPGGVi4C3VM0P37wVUCFvkVAy_90u5h9nbSlYy3-Sl-HhTdfl2fzFy1AOcHKP7qg";
const URL: &str = "https://shop.example/a?b=%E5%BE%AE&c=d";
const QUERY: &str = "url=https%3A%2F%2Fshop.example%2Fa%3Fb%3D%25E5%25BE%25AE%26c%3Dd%23top";

/// A sandbox with a live token and a jsapi ticket.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 0);
    sandbox.publish_ticket("jsapi", TICKET, 7200, 0);
    sandbox
}

/// Checks that the answer signs `url` with the ticket, as of now.
#[track_caller]
fn assert_signs(answer: &Value, ticket: &str, url: &str) {
    let (nonce, timestamp) = (answer["nonceStr"].as_str().unwrap(), &answer["timestamp"]);
    let text = format!("jsapi_ticket={ticket}&noncestr={nonce}&timestamp={timestamp}&url={url}");
    let sha1 = digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    let hex: String = sha1.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(answer["signature"], hex, "{answer}");
    let age = time::UtcDateTime::now().unix_timestamp() - timestamp.as_i64().unwrap();
    assert!((0..600).contains(&age), "{answer}");
    assert_eq!(nonce.len(), 16);
}

#[test]
fn a_page_is_signed_with_the_published_ticket_without_its_fragment() {
    let sandbox = sandbox();
    let server = sandbox.serve(&[]);
    let mut nonces = Vec::new();
    for path in ["/jssdk", "/jssdk/default"] {
        let answer = server.get(&format!("{path}?{QUERY}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), None);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let json = answer.json();
        assert_eq!((&json["appId"], json.as_object().unwrap().len()), (&APPID.into(), 4));
        assert_signs(&json, TICKET, URL);
        assert!(!answer.body.contains(TICKET));
        nonces.push(json["nonceStr"].clone());
    }
    assert_ne!(nonces[0], nonces[1]);
}

#[test]
fn a_page_on_work_is_signed_for_the_corp_and_for_an_app() {
    let sandbox = sandbox().on("work");
    sandbox.publish_ticket("agent_config", "AGENT_TICKET", 7200, 0);
    let server = sandbox.serve(&[]);
    let json = server.get(&format!("/jssdk?{QUERY}")).json();
    assert_eq!(json["appId"], APPID);
    assert_signs(&json, TICKET, URL);
    for query in [format!("{QUERY}&type=agent_config"), format!("{QUERY}&agentid=1000002")] {
        let json = server.get(&format!("/jssdk?{query}")).json();
        assert_eq!((&json["corpid"], &json["appId"]), (&APPID.into(), &Value::Null));
        assert_signs(&json, "AGENT_TICKET", URL);
    }
    let json = server.get(&format!("/jssdk?{QUERY}&agentid=1000002")).json();
    assert_eq!(json["agentid"], 1_000_002);
}

#[test]
fn what_cannot_be_signed_is_refused_with_the_reason() {
    let sandbox = sandbox();
    let server = sandbox.serve(&[]);
    for (query, status, reason) in [
        ("", 400, "Give the url of the page"),
        ("url=shop.example", 400, "https://"),
        ("url=https://shop.example/?a=1&b=2", 400, "Percent-encode the url"),
        ("url=https%3A%2F%2Fshop.example&type=wx_card", 400, "Ask for the type jsapi"),
        ("url=https%3A%2F%2Fshop.example&type=agent_config", 400, "WeCom"),
        ("url=https%3A%2F%2Fshop.example&agentid=x", 400, "Give the agentid of the app"),
    ] {
        let answer = server.get(&format!("/jssdk?{query}"));
        assert_eq!(answer.status, status, "{query} {answer:?}");
        assert!(answer.body.contains(reason), "{query} {}", answer.body);
    }
    let answer = server.post("/jssdk", "{}");
    assert_eq!(answer.status, 405);
    // The answer names the setting.
    let without = Sandbox::with_base_url("http://127.0.0.1:1");
    without.publish("T1", 7200, 0);
    let answer = without.serve(&[]).get(&format!("/jssdk?{QUERY}"));
    assert_eq!(answer.status, 404);
    assert!(answer.body.contains("tickets = ["), "{}", answer.body);
}

#[test]
fn promise_6_a_page_is_signed_for_a_key_of_the_account_only_and_for_no_page_of_another_site() {
    let wechat = wechat_with_accounts(2, &[]);
    let home = Home::with_accounts(2, &wechat.url(), "");
    let config = home.config().replace("[account.", "tickets = [\"jsapi\"]\n[account.");
    home.write(config.trim_start_matches("tickets = [\"jsapi\"]\n"));
    let mut key = wxtoken();
    key.args(["key", "shop", "a0"]);
    let ran = Run::new(key).exits(0);
    let field = |label: &str| ran.stdout.lines().find_map(|it| it.strip_prefix(label)).unwrap();
    write_with_mode(&home.path("keys"), field("line:").trim(), 0o600);
    home.run(&["fetch"]).exits(0);
    let keys = home.path("keys");
    let server = home.serve(&["--keys", keys.to_str().unwrap()]);
    let ask = |path: &str, header: &str| {
        let head =
            format!("GET {path}?{QUERY} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        server.send(&format!("{head}{header}\r\n\r\n")).status
    };
    let bearer = format!("Authorization: Bearer {}", field("key:").trim());
    assert_eq!(ask("/jssdk/a0", "Accept: */*"), 401);
    assert_eq!(ask("/jssdk/a0", "Authorization: Bearer wxk_wrong"), 401);
    assert_eq!(ask("/jssdk/a0", &bearer), 200);
    assert_eq!(ask("/jssdk", &bearer), 200, "its only account");
    assert_eq!(ask("/jssdk/a1", &bearer), 404);
    assert_eq!(ask("/jssdk/a0", &format!("{bearer}\r\nSec-Fetch-Site: cross-site")), 403);
}

#[test]
fn serve_that_refreshes_fetches_the_ticket_that_a_page_needs() {
    let wechat = wechat_with_accounts(1, &[]);
    let home = Home::with_accounts(1, &wechat.url(), "tickets = [\"jsapi\"]\n");
    let server = home.serve(&["--refresh"]);
    let answer = server.get(&format!("/jssdk?{QUERY}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    let ticket = home.run(&["get", "-r", "--ticket", "jsapi"]).exits(0).stdout;
    assert_signs(&answer.json(), ticket.trim(), URL);
    assert!(server.get("/metrics").body.contains("route=\"/jssdk\""));
}

#[test]
fn sign_prints_what_a_page_needs_and_says_what_is_missing() {
    let sandbox = sandbox();
    let ran = sandbox.run(&["sign", &format!("{URL}#top")]).exits(0);
    assert_eq!((&*ran.stderr, ran.stdout.lines().count()), ("", 1));
    assert_signs(&ran.json(), TICKET, URL);
    assert_eq!(ran.json()["appId"], APPID);
    sandbox.run(&["sign", "shop.example"]).exits(2).says(&["https://"]);
    let agent = ["sign", URL, "--agentid", "1000002"];
    sandbox.run(&agent).exits(2).says(&["one of jsapi, wx_card"]);
    let work = sandbox.on("work");
    work.run(&agent).exits(3).says(&[
        "no agent_config ticket",
        "Put the account into a config, with tickets = [\"agent_config\"]",
    ]);
    work.publish_ticket("agent_config", "AGENT_TICKET", 7200, 0);
    let ran = work.run(&agent).exits(0);
    assert_signs(&ran.json(), "AGENT_TICKET", URL);
    assert_eq!((&ran.json()["corpid"], &ran.json()["agentid"]), (&APPID.into(), &1_000_002.into()));
}

#[needs(sdks)]
#[test]
fn the_signature_is_the_one_that_wechatpy_makes() {
    const PROGRAM: &str = r#"
import json, sys
from wechatpy import WeChatClient
config, ticket, url = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
client = WeChatClient("wx1", "secret")
print(client.jsapi.get_jsapi_signature(config["nonceStr"], ticket, config["timestamp"], url))
"#;
    let signed = sandbox().run(&["sign", URL]).exits(0);
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("sdk/venv/bin/python");
    let ran = Command::new(python)
        .args(["-c", PROGRAM, signed.stdout.trim(), TICKET, URL])
        .output()
        .unwrap();
    let theirs = String::from_utf8(ran.stdout).unwrap();
    assert_eq!(signed.json()["signature"], theirs.trim(), "{:?}", String::from_utf8(ran.stderr));
}
