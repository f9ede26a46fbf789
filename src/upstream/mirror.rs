//! Asks another wxtoken, the one that holds the AppSecret, for its token: `GET /token/ACCOUNT`, and `POST` where the token
//! was rejected. What it promises is a life from now on, with its own rules in it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::client::{Answer, Client, FailedStage};
use super::wechat::whole_number;
use super::{IssuedToken, Liveness, Probe, RefreshMode, TicketSource, TokenSource, UpstreamError};
use crate::log::printable;
use crate::model::document;
use crate::model::kind::TicketType;
use crate::model::secret::Secret;

/// So much of what the other wxtoken says is told.
const LONGEST_WORDS: usize = 300;

/// One account at another wxtoken.
pub(crate) struct Mirror {
    client: Client,
    /// What the client shows, if that is needed.
    key: Option<Secret>,
    account: String,
    /// What it gave last: that is what it is told was rejected.
    given: Mutex<Option<Secret>>,
}

#[derive(Serialize)]
struct Rejected<'a> {
    rejected: &'a str,
}

impl Mirror {
    /// The account of this name there, whose token is given to who shows this key, if one is needed.
    pub(crate) fn new(client: Client, account: &str, key: Option<Secret>) -> Mirror {
        let client = match &key {
            Some(key) => client.with_key(key),
            None => client,
        };
        Mirror { client, key, account: account.to_owned(), given: Mutex::default() }
    }

    fn given(&self) -> Option<Secret> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What an answer grants under `field`; an error is told of another wxtoken, and shows nothing that was sent.
    fn judge(
        &self,
        answer: Result<Answer, UpstreamError>,
        field: &str,
    ) -> Result<IssuedToken, UpstreamError> {
        let sent = [self.key.clone(), self.given()];
        let sent: Vec<_> = sent.iter().flatten().collect();
        answer.and_then(|answer| judge(&answer, field, &sent)).map_err(of_central)
    }

    fn request(&self, how: RefreshMode, timeout: Duration) -> Result<Answer, UpstreamError> {
        let path = format!("/token/{}", self.account);
        match (how, self.given()) {
            (RefreshMode::Forced, Some(given)) => {
                let rejected = Rejected { rejected: given.expose() };
                let body = Zeroizing::new(serde_json::to_vec(&rejected).unwrap_or_default()); // A string always serializes.
                self.client.post_json(&path, body, timeout)
            }
            // Who forces without a reason is told what there is.
            _ => self.client.get(&path, &[], timeout),
        }
    }
}

impl TokenSource for Mirror {
    fn request_token(
        &self,
        how: RefreshMode,
        timeout: Duration,
    ) -> Result<IssuedToken, UpstreamError> {
        let grant = self.judge(self.request(how, timeout), "access_token")?;
        *self.given.lock().unwrap_or_else(PoisonError::into_inner) = Some(grant.token.clone());
        Ok(grant)
    }
}

impl TicketSource for Mirror {
    /// The one that is published there; it needs no token for that.
    fn request_ticket(
        &self,
        kind: &TicketType,
        _: &Secret,
        timeout: Duration,
    ) -> Result<IssuedToken, UpstreamError> {
        let answer = self.client.get(&format!("/ticket/{}/{kind}", self.account), &[], timeout);
        self.judge(answer, "ticket")
    }
}

impl Probe for Mirror {
    /// Whether it is alive is the other one's to find out, when it is told that the token was rejected.
    fn probe(&self, _: &Secret, _: Duration) -> Liveness {
        Liveness::Unknown(UpstreamError::Withheld)
    }
}

/// The same error, told of another wxtoken and not of WeChat.
pub(super) fn of_central(err: UpstreamError) -> UpstreamError {
    match err {
        UpstreamError::Unreachable { what, may_pass, may_have_arrived } => {
            let what_to_do = match FailedStage::of(&what, may_have_arrived) {
                FailedStage::Tls => {
                    "If its certificate is from a CA of your own, name that in ca_file; and it must have the name that is \
                     in `from`. 证书校验失败：自建 CA 请用 ca_file 指定，并确认证书包含 from 里的主机名。"
                }
                _ => {
                    "Is it running, and does a firewall let us through? 无法连接上级 wxtoken，请检查其运行状态与网络。"
                }
            };
            UpstreamError::Central {
                what: format!(
                    "cannot reach the wxtoken that this is a mirror of: {what}. {what_to_do}"
                ),
                is_lasting: !may_pass,
                was_reached: false,
            }
        }
        UpstreamError::Malformed(what) => UpstreamError::Central {
            what: format!(
                "the answer is not wxtoken's: {what}; check `from`. 应答并非来自 wxtoken，请检查 from 地址。"
            ),
            is_lasting: false,
            was_reached: true,
        },
        err => err,
    }
}

/// What an answer to a request in which this was `sent` says: what stands under `field`, or why there is none.
fn judge(answer: &Answer, field: &str, sent: &[&Secret]) -> Result<IssuedToken, UpstreamError> {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    if answer.status != 200 {
        return Err(refused(answer.status, &body, sent));
    }
    let token = match body[field].as_str() {
        Some(text) if document::is_token(text) => Secret::new(text.to_owned()),
        _ => return Err(UpstreamError::Malformed(format!("there is no {field} in it"))),
    };
    let life = whole_number(&body["expires_in"]).and_then(|secs| u64::try_from(secs).ok());
    let expires_in = life.and_then(document::parse_lifetime).ok_or_else(|| {
        UpstreamError::Malformed("an expires_in that is no life (1 to 86400 s)".to_owned())
    })?;
    Ok(IssuedToken { token, expires_in })
}

/// Why there is no token, by the status and in the other one's words.
fn refused(status: u16, body: &Value, sent: &[&Secret]) -> UpstreamError {
    let what_to_do = match status {
        401 => {
            "check key_file: the other wxtoken's keys file has no line for that key. 密钥无效，请检查 key_file。"
        }
        403 => {
            "add this host to its allow list, or the account to the key's line. \
             请在上级 wxtoken 中放行本机地址，或为该密钥授权此账号。"
        }
        404 if body["error"] == "no_such_ticket" => {
            "put it into the account's tickets there, too. 请在上级的配置中也为该账号加上此 tickets。"
        }
        404 => {
            "an account has the same name there as here; check `from`. 上级没有同名账号，请检查名称与 from 地址。"
        }
        405 => {
            "it runs without --refresh: say so where its tokens are fetched (wxtoken fetch --rejected -), or run it with \
             --refresh. 上级未启用 --refresh，请在其获取 token 的主机上处理。"
        }
        503 if body["error"] == "no_ticket" => {
            "it has no live ticket; see why there. 上级暂无可用 ticket，请在其上排查。"
        }
        503 => "it has no live token; see why there. 上级暂无可用 token，请在其上排查。",
        300..=399 => "check `from`: wxtoken does not redirect. 收到重定向，请检查 from 地址。",
        _ => "check `from`, and the other wxtoken. 请检查 from 地址与上级 wxtoken。",
    };
    // Whoever else answers may echo what it was sent.
    let echoes = |words: &str| sent.iter().any(|secret| words.contains(secret.expose()));
    let words = match body["message"].as_str() {
        Some(words) if body["error"].is_string() && !echoes(words) => {
            format!(" ({})", printable(words, LONGEST_WORDS))
        }
        _ => String::new(),
    };
    UpstreamError::Central {
        what: format!("the wxtoken that this is a mirror of answers {status}{words}: {what_to_do}"),
        is_lasting: status < 500 && status != 408 && status != 429,
        was_reached: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, body: &str) -> Result<(String, u64), UpstreamError> {
        let grant = judge(
            &Answer { status, date: None, body: body.as_bytes().to_vec() },
            "access_token",
            &[],
        )?;
        Ok((grant.token.expose().to_owned(), grant.expires_in.as_secs()))
    }

    #[test]
    fn a_token_comes_with_the_life_that_is_promised_there() {
        let answer = judged(200, r#"{"access_token":"T1","expires_in":123}"#);
        assert_eq!(answer.unwrap(), ("T1".to_owned(), 123));
        for wrong in [
            "",
            "[]",
            r#"{"expires_in":123}"#,
            r#"{"access_token":"T 1","expires_in":123}"#,
            r#"{"access_token":"T1","expires_in":0}"#,
            r#"{"access_token":"T1"}"#,
            r#"{"errcode":40001,"errmsg":"invalid credential"}"#,
        ] {
            assert!(matches!(judged(200, wrong), Err(UpstreamError::Malformed(_))), "{wrong}");
        }
    }

    #[test]
    fn an_echo_of_what_was_sent_is_not_told() {
        let key = Secret::new("wxk_S3CR3T".to_owned());
        let body = br#"{"error":"bad","message":"Bearer wxk_S3CR3T is unknown here"}"#.to_vec();
        let answer = Answer { status: 401, date: None, body };
        let told = judge(&answer, "access_token", &[&key]).unwrap_err().to_string();
        assert!(told.contains("answers 401: check key_file"), "{told}");
        assert!(!told.contains("S3CR3T"), "{told}");
    }

    #[test]
    fn what_a_person_must_mend_is_a_refusal_and_the_rest_may_pass() {
        for (status, is_pointless, hint) in [
            (401, true, "key_file"),
            (403, true, "allow list"),
            (404, true, "same name"),
            (302, true, "redirect"),
            (405, true, "without --refresh"),
            (429, false, "`from`"),
            (500, false, "`from`"),
            (503, false, "no live token"),
        ] {
            let body = r#"{"error":"denied","message":"10.0.0.9 is not allowed"}"#;
            let err = judged(status, body).unwrap_err();
            assert_eq!(err.is_transient(), !is_pointless, "{status}");
            let text = err.to_string();
            assert!(text.contains(hint) && text.contains("10.0.0.9"), "{text}");
            assert!(!err.may_have_minted());
        }
        for (status, error, hint) in
            [(404, "no_such_ticket", "tickets there"), (503, "no_ticket", "no live ticket")]
        {
            let body = format!(r#"{{"error":"{error}","message":"none"}}"#);
            let told = judged(status, &body).unwrap_err().to_string();
            assert!(told.contains(hint), "{told}");
        }
    }
}
