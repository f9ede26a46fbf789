//! Paths with slashes that careless proxies and SDKs add, and answers below WeChat's own prefix.

use serde_json::Value;

use crate::support::tls::{Authority, Identity};
use crate::support::*;

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 0);
    sandbox.publish_ticket("jsapi", "J1", 7200, 0);
    sandbox
}

fn query() -> String {
    format!("?grant_type=client_credential&appid={APPID}&corpid={APPID}&secret=x&corpsecret=x")
}

#[test]
fn one_slash_is_as_good_as_two_and_a_last_one_is_ignored() {
    let sandbox = sandbox();
    let server = sandbox.serve(&[]);
    for path in [
        "//token",
        "/token/",
        "/token//default",
        "/token/default/",
        "//token//default//",
        "//cgi-bin/token",
        "/cgi-bin//token",
        "/cgi-bin/token/",
        "//cgi-bin//gettoken/",
        "http://localhost//token/",
    ] {
        let response = server.get(&format!("{path}{}", query()));
        assert_eq!(response.json()["access_token"], "T1", "{path} {response:?}");
    }
    for path in ["//ticket/jsapi", "/ticket//jsapi/", "/ticket/default//jsapi"] {
        assert_eq!(server.get(path).json()["ticket"], "J1", "{path}");
    }
    for path in ["//cgi-bin/ticket/getticket", "/cgi-bin/ticket//getticket/"] {
        let response = server.get(&format!("{path}?access_token=T1&type=jsapi"));
        assert_eq!(response.json()["ticket"], "J1", "{path}");
    }
    for path in ["//healthz", "/healthz/", "/readyz/", "//metrics", "//"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    let body = format!(
        r#"{{"grant_type":"client_credential","appid":"{APPID}","secret":"x","force_refresh":false}}"#
    );
    for path in ["//cgi-bin/stable_token", "/cgi-bin/stable_token/"] {
        assert_eq!(server.post(path, &body).json()["access_token"], "T1", "{path}");
    }
    // An encoded slash is none, and a dot is no directory.
    for path in ["/%2Ftoken", "/token%2F", "/./token", "/x/../token"] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
}

/// Asserts that a body has what SDKs read: an errcode other than 0, and a text.
#[track_caller]
fn assert_is_for_sdks(response: &Response) -> i64 {
    let body: Value = response.json();
    let errcode = body["errcode"].as_i64().unwrap_or_else(|| panic!("{response:?}"));
    assert!(errcode != 0 && body["errmsg"].as_str().is_some_and(|text| text.len() > 10));
    for endless in ["40001", "40014", "42001"] {
        assert!(!response.body.contains(endless), "{response:?}");
    }
    errcode
}

#[test]
fn below_cgi_bin_every_answer_has_an_errcode() {
    let sandbox = sandbox();
    let server = sandbox.serve(&["--trusted-proxy", "127.0.0.2"]);
    let head = "HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    let large = format!("Content-Length: {}\r\n", 1024 * 1024);
    let token = format!("/cgi-bin/token{}", query());
    for (request, status, errcode) in [
        (format!("GET /cgi-bin/clear_quota {head}\r\n"), 404, 40066),
        (format!("POST //cgi-bin//message/send/ {head}\r\n"), 404, 40066),
        (format!("GET /cgi-bin/ {head}\r\n"), 404, 40066),
        (format!("DELETE {token} {head}\r\n"), 200, 43001),
        (format!("GET /cgi-bin/stable_token {head}\r\n"), 200, 43002),
        (format!("POST /cgi-bin/stable_token {head}{large}\r\n"), 413, 45002),
        (format!("GET {token} {head}Host: localhost\r\n\r\n"), 400, 47001),
        (format!("GET {token} {head}X-Forwarded-For: 127.0.0.1\r\n\r\n"), 200, 40164),
        (format!("GET {token} {head}Sec-Fetch-Site: cross-site\r\n\r\n"), 403, 48001),
        (
            format!("GET {token} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"),
            421,
            40066,
        ),
        // The path is not read to its end, or not at all.
        (format!("GET {token} HTTP/1.1\r\nno header\r\n\r\n"), 400, 47001),
        (format!("GET /cgi-bin/token?{} {head}\r\n", "x".repeat(20_000)), 431, 45002),
    ] {
        let response = server.send(&request);
        let start = &request[..request.len().min(60)];
        assert_eq!(response.status, status, "{start} {response:?}");
        assert_eq!(assert_is_for_sdks(&response), errcode, "{start} {response:?}");
        assert_eq!(response.json()["error"].is_string(), status != 200, "{response:?}");
    }
    // A client whose address is not allowed is refused before a byte is read.
    let server = sandbox.serve(&["--allow", "127.0.0.9"]);
    let response = server.get(&token);
    assert_eq!((response.status, assert_is_for_sdks(&response)), (403, 40164));
    assert_eq!(response.json()["error"], "forbidden");
    // Plain HTTP on a port for HTTPS.
    Authority::new().sign().write_to(&sandbox);
    let flags = Identity::flags(&sandbox);
    let server = sandbox.serve(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    let response = server.get(&token);
    assert_eq!((response.status, assert_is_for_sdks(&response)), (400, 47001));
    // Elsewhere errors are wxtoken's alone.
    let server = sandbox.serve(&[]);
    let response = server.get("/cgi-bins/token");
    assert_eq!((response.status, &response.json()["errcode"]), (404, &Value::Null));
}
