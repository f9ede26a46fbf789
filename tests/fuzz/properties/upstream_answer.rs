//! What WeChat, or another wxtoken, answers: three digits for the status, and the body.

use std::time::Duration;

use serde_json::Value;

use crate::model::api::Api;
use crate::model::document;
use crate::model::errcode::Platform;
use crate::model::secret::Secret;
use crate::server::gateway::verdict;
use crate::upstream::client::HttpResponse;
use crate::upstream::mirror::Sent;
use crate::upstream::{IssuedToken, Liveness, UpstreamError, mirror, wechat};

/// What was sent, which an answer may repeat.
const SENT: &str = "s3cr3ts3cr3ts3cr3ts3cr3ts3cr3t00";

/// The errcodes that say of a token that it is dead, by WeChat's documentation.
const DEAD: [i64; 3] = [40001, 40014, 42001];

pub fn check(data: &[u8]) {
    let Some((status, body)) = data.split_at_checked(3) else { return };
    let status = std::str::from_utf8(status).ok().and_then(|it| it.parse().ok()).unwrap_or(200);
    let response = HttpResponse { status, date: None, body: body.to_vec() };
    let sent = Secret::new(SENT.to_owned());
    let json: Value =
        serde_json::from_str(String::from_utf8_lossy(body).trim_start_matches('\u{feff}'))
            .unwrap_or_default();
    for api in [Api::Stable, Api::Classic, Api::Work] {
        check_issued(wechat::read_token(&response, &sent, api), &json, status);
        let platform = api.platform();
        check_liveness(&wechat::read_liveness(&response, &sent, platform), &json, platform);
    }
    let sent = Sent { account: "shop", key: Some(&sent), reported: None };
    check_issued(mirror::read_issued(&response, "access_token", &sent), &json, status);
    check_verdict(body);
}

fn check_issued(read: Result<IssuedToken, UpstreamError>, json: &Value, status: u16) {
    match read {
        Ok(IssuedToken { token, expires_in }) => {
            assert!(document::is_token(token.expose()));
            assert!(
                expires_in >= Duration::from_secs(1) && expires_in <= Duration::from_secs(86_400)
            );
            assert!(token.is(json["access_token"].as_str().unwrap_or_default()));
            assert!(!(300..400).contains(&status), "a redirect brings no token");
            let errcode = json["errcode"].as_i64().unwrap_or(0);
            assert_eq!(errcode, 0, "a refusal brings a token");
        }
        Err(err) => check_message(&err),
    }
}

fn check_message(err: &UpstreamError) {
    let message = err.to_string();
    assert!(!message.contains(SENT), "{message}");
    assert!(!message.chars().any(char::is_control), "{message:?}");
}

fn check_liveness(liveness: &Liveness, json: &Value, platform: Platform) {
    let code = match &json["errcode"] {
        Value::Number(code) => code.as_i64().or(code.as_f64().map(|it| it as i64)),
        Value::String(code) => code.trim().parse().ok(),
        _ => None,
    };
    match liveness {
        Liveness::Dead => {
            assert!(code.is_some_and(|code| DEAD.contains(&code)), "dead by errcode {code:?}");
            // 40001 is about the secret at WeCom.
            assert!(platform == Platform::Official || code != Some(40001));
        }
        Liveness::Alive => assert!(
            code.map_or(json["ip_list"].is_array(), |code| code == 0
                || (76_000..77_000).contains(&code)),
            "alive by {code:?}"
        ),
        Liveness::Unknown(err) => check_message(err),
    }
}

/// The gateway looks at the beginning of an answer only. It finds what a whole parser finds, or nothing.
fn check_verdict(body: &[u8]) {
    let found = verdict::errcode(body);
    // Lossy: what is not UTF-8 in another field changes no errcode.
    let text = String::from_utf8_lossy(body);
    let whole = serde_json::from_str::<Value>(&text).unwrap_or_default()["errcode"].as_i64();
    assert!(found == 0 || whole == Some(found), "{found} instead of {whole:?}");
    // A name with an escape in it is no name of WeChat's, and one that is there twice is none of its answers.
    let names = body.windows(9).filter(|it| *it == b"\"errcode\"").count();
    let is_text = std::str::from_utf8(body).is_ok();
    if names == 1 && is_text && !body.contains(&b'\\') && body.trim_ascii_start().starts_with(b"{")
    {
        assert!(found == whole.unwrap_or(0), "{found} instead of {whole:?}");
    }
    for api in [Api::Stable, Api::Classic, Api::Work] {
        let is_dead = verdict::is_about_token(found, api);
        assert!(!is_dead || DEAD.contains(&found));
        assert!(!(is_dead && api == Api::Work && found == 40001));
    }
    for length in 0..body.len().min(8) {
        if let Some(may_be) = verdict::may_be_error(&body[..length]) {
            assert_eq!(verdict::may_be_error(body), Some(may_be));
        }
    }
}
