//! Asks WeChat (公众号, 服务号, 小程序) for a token: one request, one verdict. The JSON body decides, not the HTTP status.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::client::{Answer, Client};
use super::{Ask, AskError, Grant, Source};
use crate::api::Api;
use crate::errcode::{Call, Platform, Refusal};
use crate::secret::Secret;
use crate::token;

/// One account at WeChat.
pub(crate) struct WeChat {
    client: Client,
    api: Api,
    appid: String,
    secret: Secret,
}

/// What `stable_token` is asked. <https://developers.weixin.qq.com/doc/service/api/base/api_getstableaccesstoken>
#[derive(Serialize)]
struct StableRequest<'a> {
    grant_type: &'static str,
    appid: &'a str,
    secret: &'a str,
    force_refresh: bool,
}

const GRANT_TYPE: &str = "client_credential";

impl Source for WeChat {
    fn ask(&self, how: Ask, timeout: Duration) -> Result<Grant, AskError> {
        let answer = match self.api {
            Api::Stable => self.ask_stable(how == Ask::Another, timeout),
            // Every call mints another.
            Api::Classic => self.ask_classic(timeout),
        }?;
        judge(&answer, &self.secret)
    }
}

impl WeChat {
    pub(crate) fn new(client: Client, api: Api, appid: &str, secret: Secret) -> WeChat {
        WeChat { client, api, appid: appid.to_owned(), secret }
    }

    fn ask_stable(&self, force_refresh: bool, timeout: Duration) -> Result<Answer, AskError> {
        let request = StableRequest {
            grant_type: GRANT_TYPE,
            appid: &self.appid,
            secret: self.secret.expose(),
            force_refresh,
        };
        let body = Zeroizing::new(serde_json::to_vec(&request).unwrap_or_default()); // Strings always serialize.
        self.client.post_json("/cgi-bin/stable_token", body, timeout)
    }

    fn ask_classic(&self, timeout: Duration) -> Result<Answer, AskError> {
        let query =
            [("grant_type", GRANT_TYPE), ("appid", &self.appid), ("secret", self.secret.expose())];
        self.client.get("/cgi-bin/token", &query, timeout)
    }
}

/// What an answer says: a grant, a refusal, or nothing that makes sense.
fn judge(answer: &Answer, secret: &Secret) -> Result<Grant, AskError> {
    // Somebody else's answer, whatever its body says: WeChat never redirects.
    if (300..400).contains(&answer.status) {
        return Err(AskError::Status(answer.status));
    }
    let success = (200..300).contains(&answer.status);
    // Whatever some gateway did to the text of a refusal, its errcode still counts.
    let text = String::from_utf8_lossy(&answer.body);
    let text = text.trim_start_matches('\u{feff}');
    let body: Value = match serde_json::from_str(text) {
        Ok(body @ Value::Object(_)) => body,
        _ if !success => return Err(AskError::Status(answer.status)),
        Ok(_) => return Err(AskError::Nonsense("JSON, but not an object".to_owned())),
        Err(_) if text.is_empty() => {
            return Err(AskError::Nonsense("an empty body".to_owned()));
        }
        Err(err) if err.is_eof() => {
            return Err(AskError::Nonsense("JSON that ends too soon".to_owned()));
        }
        Err(_) if text.trim_start().starts_with('<') => {
            return Err(AskError::Nonsense("an HTML page instead of JSON".to_owned()));
        }
        Err(_) => return Err(AskError::Nonsense("not JSON".to_owned())),
    };

    match &body["errcode"] {
        Value::Null => {}
        code => match whole_number(code) {
            Some(0) => {}
            Some(code) => {
                // A gateway that echoes the request would make us print the secret.
                let text = body["errmsg"]
                    .as_str()
                    .unwrap_or_default()
                    .replace(secret.expose(), "[secret]");
                return Err(AskError::Refused(Refusal::new(
                    code,
                    &text,
                    Call::Asking,
                    Platform::Official,
                )));
            }
            None => return Err(AskError::Nonsense("an errcode that is not a number".to_owned())),
        },
    }
    if !success && body["access_token"].is_null() {
        return Err(AskError::Status(answer.status));
    }

    let token = match &body["access_token"] {
        Value::String(text) if token::is_token(text) => Secret::new(text.clone()),
        Value::Null => {
            return Err(AskError::Nonsense("neither access_token nor errcode".to_owned()));
        }
        _ => return Err(AskError::Nonsense("an access_token that is no token".to_owned())),
    };
    let expires_in = whole_number(&body["expires_in"])
        .and_then(|secs| u64::try_from(secs).ok())
        .and_then(token::life)
        .ok_or_else(|| {
            AskError::Nonsense("an expires_in that is no life (1 to 86400 s)".to_owned())
        })?;
    Ok(Grant { token, expires_in })
}

/// A number, or a numeric string: SDKs have met both.
fn whole_number(value: &Value) -> Option<i64> {
    match value {
        // 7200.0 is whole, too; beyond 2^53 a float cannot tell.
        Value::Number(number) => number.as_i64().or_else(|| {
            number.as_f64().filter(|it| it.fract() == 0.0 && it.abs() < 9e15).map(|it| it as i64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    fn judged(status: u16, body: &str) -> Result<Grant, AskError> {
        judge(&Answer { status, body: body.as_bytes().to_vec() }, &Secret::new("S3CR3T".to_owned()))
    }

    #[test]
    fn the_body_decides_not_the_status() {
        for (status, body) in [
            (200, r#"{"access_token":"T1","expires_in":7200}"#),
            (200, r#"{"errcode":0,"errmsg":"ok","access_token":"T1","expires_in":7200}"#),
            (200, r#"{"errcode":0.0,"access_token":"T1","expires_in":7.2e3}"#),
            (200, "\u{feff}{\"access_token\":\"T1\",\"expires_in\":7200}"),
            (200, r#"{"errcode":"0","access_token":"T1","expires_in":"7200","new":[1]}"#),
            (500, r#"{"access_token":"T1","expires_in":7200}"#),
        ] {
            let grant = judged(status, body).expect(body);
            assert_eq!((grant.token.expose(), grant.expires_in.as_secs()), ("T1", 7200), "{body}");
        }
        for (status, body, exit) in [
            (200, r#"{"errcode":40013,"errmsg":"invalid appid"}"#, Exit::Refused),
            (200, r#"{"errcode":"40013","errmsg":7}"#, Exit::Refused),
            (502, r#"{"errcode":40013}"#, Exit::Refused),
            (200, r#"{"errcode":-1,"errmsg":"system error"}"#, Exit::Unreachable),
            (200, r#"{"errcode":40001,"access_token":"T1","expires_in":7200}"#, Exit::Refused),
            (302, r#"{"access_token":"T1","expires_in":7200}"#, Exit::Unreachable),
            (404, "", Exit::Refused),
            (412, "", Exit::Refused),
            (502, "<html>", Exit::Unreachable),
        ] {
            assert_eq!(judged(status, body).expect_err(body).exit(), exit, "{status} {body}");
        }
    }

    #[test]
    fn nonsense_is_named_and_never_taken_for_a_token() {
        for (body, what) in [
            ("", "empty"),
            ("<!DOCTYPE html>", "HTML"),
            ("\u{0}\u{1}", "not JSON"),
            (r#"{"access_token":"T1","expi"#, "too soon"),
            ("null", "not an object"),
            ("[1]", "not an object"),
            ("{}", "neither"),
            (r#"{"expires_in":7200}"#, "neither"),
            (r#"{"access_token":"","expires_in":7200}"#, "no token"),
            (r#"{"access_token":7,"expires_in":7200}"#, "no token"),
            (r#"{"access_token":"a b","expires_in":7200}"#, "no token"),
            (r#"{"access_token":"T1"}"#, "no life"),
            (r#"{"access_token":"T1","expires_in":0}"#, "no life"),
            (r#"{"access_token":"T1","expires_in":-7200}"#, "no life"),
            (r#"{"access_token":"T1","expires_in":7200.5}"#, "no life"),
            (r#"{"access_token":"T1","expires_in":99999999999999999999}"#, "no life"),
            (r#"{"access_token":"T1","expires_in":86401}"#, "no life"),
            (r#"{"errcode":[],"access_token":"T1","expires_in":7200}"#, "errcode"),
        ] {
            let err = judged(200, body).expect_err(body);
            assert!(
                matches!(&err, AskError::Nonsense(named) if named.contains(what)),
                "{body}: {err}"
            );
            assert!(!err.is_transient(), "{body}");
        }
        let long = format!(r#"{{"access_token":"{}","expires_in":7200}}"#, "x".repeat(2049));
        assert!(judged(200, &long).is_err());
    }

    #[test]
    fn every_truncation_and_flipped_byte_is_survived() {
        let whole = br#"{"access_token":"T1","expires_in":7200,"errcode":0}"#;
        for cut in 0..whole.len() {
            let body = whole[..cut].to_vec();
            assert!(judge(&Answer { status: 200, body }, &Secret::new("x".to_owned())).is_err());
            for bit in 0..8 {
                let mut body = whole.to_vec();
                body[cut] ^= 1 << bit;
                let _ = judge(&Answer { status: 200, body }, &Secret::new("x".to_owned())); // Any verdict, no panic.
            }
        }
    }

    #[test]
    fn a_refusal_in_broken_text_is_still_that_refusal() {
        let body = b"{\"errcode\":40164,\"errmsg\":\"\xce\xde\xd0\xa7 invalid ip 203.0.113.9, not in whitelist\"}".to_vec();
        let err = judge(&Answer { status: 200, body }, &Secret::new("x".to_owned())).unwrap_err();
        assert!(err.to_string().contains("Add IP 203.0.113.9"), "{err}");
    }

    #[test]
    fn a_secret_that_comes_back_in_an_errmsg_is_not_shown() {
        let err =
            judged(200, r#"{"errcode":40013,"errmsg":"bad /token?secret=S3CR3T&x"}"#).unwrap_err();
        assert!(!format!("{err} {err:?}").contains("S3CR3T"), "{err}");
        assert!(err.to_string().contains("secret=[secret]&x"), "{err}");
    }
}
