//! The source of a mirror as upstream: another wxtoken, which holds the AppSecret. `GET /token/ACCOUNT` asks for its token, and `POST`
//! reports a rejected one. The lifetime that it promises already allows for the rules of its own upstream.

use std::sync::Mutex;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::client::{Client, HttpResponse};
use super::error::{FailedStage, TlsFailure};
use super::passed;
use super::wechat::parse_expires_in;
use super::{
    Credential, CredentialHashes, IssuedToken, Liveness, Probe, RefreshMode, TicketSource,
    TokenSource, UpstreamError,
};
use crate::language::{Language, in_both};
use crate::log::printable;
use crate::message::{action, messages};
use crate::model::client_key::OPAQUE_PREFIX;
use crate::model::document;
use crate::model::kind::TicketType;
use crate::model::location::Location;
use crate::model::secret::{Salt, Secret};
use crate::os::thread::lock;

/// Maximum number of characters shown of the other wxtoken's message.
const MAX_MESSAGE: usize = 300;

messages! {
    OPAQUE<0> {
        "Send calls to its gateway, or mirror one without --opaque-tokens.",
        "the wxtoken that this is a mirror of hands out tokens of its own, which WeChat does not know";
        "请将调用发往其网关，或以未启用 opaque_tokens 的 wxtoken 为上游。", "上游启用了 opaque_tokens，下发的 token 只能用于其网关";
    }
    CAME_BACK<1> {
        "Let `from` name the wxtoken that asks WeChat itself.",
        "the wxtoken that this is a mirror of answers {0}: it has its tokens from this one";
        "请将 from 改为直接向微信获取 token 的 wxtoken。", "上游 wxtoken 返回 {0}：它的 token 正取自本机";
    }
    NO_ROUTE<0> {
        "Check that it runs, and that no firewall is in the way.", "cannot reach the wxtoken that this is a mirror of";
        "请检查其运行状态与网络。", "无法连接上游 wxtoken";
    }
    UNTRUSTED<0> {
        "Name a CA of your own in ca_file, and use in `from` the name that its certificate has.",
        "cannot reach the wxtoken that this is a mirror of";
        "自建 CA 请用 ca_file 指定，并确认证书包含 from 里的主机名。", "无法连接上游 wxtoken";
    }
    NOT_WXTOKEN<1> {
        "Check `from`.", "the answer is not wxtoken's: {0}";
        "请检查 from 地址。", "应答并非来自 wxtoken：{0}";
    }
    BAD_KEY<1> {
        "Check key_file: the other wxtoken's keys file has no line for that key.", "the wxtoken that this is a mirror of answers {0}";
        "请检查 key_file：上游的访问密钥文件中没有该访问密钥。", "上游 wxtoken 返回 {0}";
    }
    NO_KEY<1> {
        "Give key_file: `wxtoken key NAME` makes a key there.", "the wxtoken that this is a mirror of answers {0}, and there is no key here";
        "请用 key_file 指定访问密钥，可在上游用 `wxtoken key NAME` 生成。", "上游 wxtoken 返回 {0}，而本机没有访问密钥";
    }
    NOT_ALLOWED<1> {
        "Add this host to its allow list, or to the account's `allow` there.", "the wxtoken that this is a mirror of answers {0}";
        "请在上游的白名单或该账号的 allow 中放行本机地址。", "上游 wxtoken 返回 {0}";
    }
    KEY_OF_APIS<1> {
        "Give the mirror a key that is for all APIs.",
        "the wxtoken that this is a mirror of answers {0}: this key is for calls of some APIs through its gateway, and a token opens all of them";
        "请为只读副本换用不限接口的访问密钥。",
        "上游 wxtoken 返回 {0}：该访问密钥只能经网关调用指定的接口，而 token 可以调用全部接口";
    }
    NO_SUCH_TICKET<1> {
        "Put it into the account's tickets there, too.", "the wxtoken that this is a mirror of answers {0}";
        "请在上游的配置中也为该账号加上此 tickets。", "上游 wxtoken 返回 {0}";
    }
    NO_SUCH_ACCOUNT<2> {
        "Give the account the same name here as there, where `wxtoken status` lists them, and check which accounts the key is for.",
        "the wxtoken that this is a mirror of answers {0}: it has no account {1} for this host";
        "请让账号在上游与本机同名（在上游运行 `wxtoken status` 可列出），并核对访问密钥适用的账号。",
        "上游 wxtoken 返回 {0}：没有可供本机使用的账号 {1}";
    }
    DOES_NOT_REFRESH<1> {
        "Say so where its tokens are fetched (wxtoken fetch --rejected - on that host), or run it with --refresh.",
        "the wxtoken that this is a mirror of answers {0}: it runs without --refresh";
        "请在其获取 token 的主机上处理（在该主机执行 wxtoken fetch --rejected -），或为其启用 --refresh。",
        "上游 wxtoken 返回 {0}：未启用 --refresh";
    }
    NO_TICKET_THERE<1> {
        "See why there.", "the wxtoken that this is a mirror of answers {0}: it has no live ticket";
        "请在上游排查。", "上游 wxtoken 返回 {0}：暂无可用 ticket";
    }
    NO_TOKEN_THERE<1> {
        "See why there.", "the wxtoken that this is a mirror of answers {0}: it has no live token";
        "请在上游排查。", "上游 wxtoken 返回 {0}：暂无可用 token";
    }
    REDIRECTED<1> {
        "Check `from`: wxtoken does not redirect.", "the wxtoken that this is a mirror of answers {0}";
        "请检查 from 地址：wxtoken 不会重定向。", "上游返回 {0}";
    }
    OTHER_STATUS<1> {
        "Check `from`, and the other wxtoken.", "the wxtoken that this is a mirror of answers {0}";
        "请检查 from 地址与上游 wxtoken。", "上游 wxtoken 返回 {0}";
    }
}

/// An account at another wxtoken.
pub(crate) struct Mirror {
    client: Client,
    /// Authorizes the requests, if the other wxtoken asks for a key.
    key: Option<Secret>,
    account: String,
    /// The token that was issued last, which is the one to report as rejected.
    last_issued: Mutex<Option<Secret>>,
}

/// What a request contained.
pub(crate) struct Sent<'a> {
    pub(crate) account: &'a str,
    pub(crate) key: Option<&'a Secret>,
    /// The token that was reported as rejected, if one was.
    pub(crate) reported: Option<&'a Secret>,
}

/// The body that reports a rejected token.
#[derive(Serialize)]
struct RejectedReport<'a> {
    rejected: &'a str,
}

impl Mirror {
    /// Returns the account of this name at the other wxtoken. Its documents here are at `location`.
    pub(crate) fn new(
        client: Client,
        account: &str,
        location: &Location,
        key: Option<Secret>,
    ) -> Mirror {
        let client = match &key {
            Some(key) => client.with_key(key),
            None => client,
        };
        // The words of its refusals are passed on to people.
        let language = match Language::of_process() {
            Language::Both => None,
            one => Some(one.name()),
        };
        let client = client.in_language(language).for_mirror_of(account, location);
        Mirror { client, key, account: account.to_owned(), last_issued: Mutex::default() }
    }

    fn last_issued(&self) -> Option<Secret> {
        lock(&self.last_issued).clone()
    }

    /// Reads the token or ticket in `field`. Errors name the other wxtoken, and show nothing that was sent.
    fn read(
        &self,
        response: Result<HttpResponse, UpstreamError>,
        field: &str,
    ) -> Result<IssuedToken, UpstreamError> {
        let reported = self.last_issued();
        let sent =
            Sent { account: &self.account, key: self.key.as_ref(), reported: reported.as_ref() };
        response.and_then(|response| read_issued(&response, field, &sent)).map_err(into_central)
    }

    fn send(&self, mode: RefreshMode, timeout: Duration) -> Result<HttpResponse, UpstreamError> {
        let path = format!("/token/{}", self.account);
        match (mode, self.last_issued()) {
            (RefreshMode::Forced, Some(token)) => {
                let report = RejectedReport { rejected: token.expose() };
                let body = Zeroizing::new(serde_json::to_vec(&report).unwrap_or_default()); // A string always serializes.
                self.client.post_json(&path, body, timeout)
            }
            // There is no token to report, without which the other wxtoken replaces none.
            _ => self.client.get(&path, &[], timeout),
        }
    }
}

impl TokenSource for Mirror {
    fn prepare(&self) -> anyhow::Result<()> {
        self.client.prepare()
    }

    fn request_token(
        &self,
        mode: RefreshMode,
        timeout: Duration,
    ) -> Result<IssuedToken, UpstreamError> {
        let issued = self.read(self.send(mode, timeout), "access_token")?;
        *lock(&self.last_issued) = Some(issued.token.clone());
        Ok(issued)
    }
}

impl TicketSource for Mirror {
    /// Returns the ticket published there, for which no token is needed.
    fn request_ticket(
        &self,
        kind: &TicketType,
        _: &Secret,
        timeout: Duration,
    ) -> Result<IssuedToken, UpstreamError> {
        let path = format!("/ticket/{}/{kind}", self.account);
        self.read(self.client.get(&path, &[], timeout), "ticket")
    }
}

impl Probe for Mirror {
    /// Not supported: the other wxtoken probes a token itself when it is reported as rejected.
    fn probe(&self, _: &Secret, _: Duration) -> Liveness {
        Liveness::Unknown(UpstreamError::Withheld)
    }
}

impl Credential for Mirror {
    /// Returns `None`: another wxtoken bans no address, and its refusals end when its config changes.
    fn hashes(&self, _: &Salt) -> Option<CredentialHashes> {
        None
    }
}

/// Converts errors whose messages would name WeChat to errors that name the other wxtoken.
pub(super) fn into_central(err: UpstreamError) -> UpstreamError {
    match err {
        UpstreamError::Unreachable(unreachable) => {
            let what = match unreachable.stage() {
                FailedStage::ThisHost
                | FailedStage::Proxy(_)
                | FailedStage::Tls(
                    TlsFailure::Expired | TlsFailure::NotValidYet | TlsFailure::CaAsServer,
                ) => {
                    let [english, chinese] = unreachable.remedy();
                    let failure = in_both(
                        "cannot reach the wxtoken that this is a mirror of",
                        "无法连接上游 wxtoken",
                    );
                    format!("{} {failure} [{unreachable}]", action(english, chinese))
                }
                FailedStage::Tls(_) => UNTRUSTED.quoting([], &unreachable),
                _ => NO_ROUTE.quoting([], &unreachable),
            };
            UpstreamError::Central { what, is_lasting: !unreachable.may_pass, was_reached: false }
        }
        UpstreamError::Malformed(what) => UpstreamError::Central {
            what: NOT_WXTOKEN.with([&what]),
            is_lasting: false,
            was_reached: true,
        },
        err => err,
    }
}

/// Reads the token or ticket in `field` of a response to what was `sent`, or why there is none.
pub(crate) fn read_issued(
    response: &HttpResponse,
    field: &str,
    sent: &Sent<'_>,
) -> Result<IssuedToken, UpstreamError> {
    let body: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    if response.status != 200 {
        return Err(refused(response.status, &body, sent));
    }
    // No answer of a wxtoken has both.
    if body["errcode"].as_i64().is_some_and(|code| code != 0) {
        return Err(UpstreamError::Malformed("there is an errcode in it".to_owned()));
    }
    let token = match body[field].as_str() {
        Some(text) if text.starts_with(OPAQUE_PREFIX) => {
            return Err(UpstreamError::Central {
                what: OPAQUE.text(),
                is_lasting: true,
                was_reached: true,
            });
        }
        Some(text) if document::is_token(text) => Secret::new(text.to_owned()),
        _ => return Err(UpstreamError::Malformed(format!("there is no {field} in it"))),
    };
    Ok(IssuedToken { token, expires_in: parse_expires_in(&body)? })
}

/// Returns why there is no token, by the status and the other wxtoken's message.
fn refused(status: u16, body: &Value, sent: &Sent<'_>) -> UpstreamError {
    let error = body["error"].as_str();
    let said = match (status, error) {
        (401, _) if sent.key.is_none() => &NO_KEY,
        (401, _) => &BAD_KEY,
        (403, Some("forbidden_api")) => &KEY_OF_APIS,
        // Its message says what to do.
        (403, Some("forwarded" | "certificate")) => &OTHER_STATUS,
        (403, _) => &NOT_ALLOWED,
        (404, Some("no_such_ticket")) => &NO_SUCH_TICKET,
        (405, _) => &DOES_NOT_REFRESH,
        (passed::LOOP_DETECTED, _) => &CAME_BACK,
        (503, Some("no_ticket")) => &NO_TICKET_THERE,
        (503, _) => &NO_TOKEN_THERE,
        (300..=399, _) => &REDIRECTED,
        _ => &OTHER_STATUS,
    };
    let (said, says_the_same) = match (status, error) {
        (404, Some("no_such_account")) => (NO_SUCH_ACCOUNT.with([&status, &sent.account]), true),
        _ => {
            let says_the_same = status == passed::LOOP_DETECTED || error == Some("forbidden_api");
            (said.with([&status]), says_the_same)
        }
    };
    // An intermediary that answers instead may echo the request.
    let secrets = [sent.key, sent.reported];
    let echoes =
        |message: &str| secrets.iter().flatten().any(|secret| message.contains(secret.expose()));
    let message = match body["message"].as_str() {
        Some(message) if error.is_some() && !says_the_same && !echoes(message) => {
            format!(" [{}]", printable(message, MAX_MESSAGE))
        }
        _ => String::new(),
    };
    UpstreamError::Central {
        what: format!("{said}{message}"),
        is_lasting: status < 500 && status != 408 && status != 429
            || status == passed::LOOP_DETECTED,
        was_reached: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &str) -> Result<(String, u64), UpstreamError> {
        let body = body.as_bytes().to_vec();
        let response = HttpResponse { status, date: None, body };
        let key = Secret::new("wxk_S3CR3T".to_owned());
        let sent = Sent { account: "shop", key: Some(&key), reported: None };
        let issued = read_issued(&response, "access_token", &sent)?;
        Ok((issued.token.expose().to_owned(), issued.expires_in.as_secs()))
    }

    #[test]
    fn a_token_comes_with_the_lifetime_promised_there() {
        let answer = read(200, r#"{"access_token":"T1","expires_in":123}"#);
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
            assert!(matches!(read(200, wrong), Err(UpstreamError::Malformed(_))), "{wrong}");
        }
    }

    #[test]
    fn a_message_that_echoes_the_key_is_not_shown() {
        let key = Secret::new("wxk_S3CR3T".to_owned());
        let body = br#"{"error":"bad","message":"Bearer wxk_S3CR3T is unknown here"}"#.to_vec();
        let response = HttpResponse { status: 401, date: None, body };
        let sent = Sent { account: "shop", key: Some(&key), reported: None };
        let shown = read_issued(&response, "access_token", &sent).unwrap_err().to_string();
        assert!(shown.contains("answers 401") && shown.contains("Check key_file"), "{shown}");
        assert!(!shown.contains("S3CR3T"), "{shown}");
    }

    #[test]
    fn statuses_that_need_a_person_are_lasting_and_others_may_pass() {
        for (status, is_lasting, hint) in [
            (401, true, "key_file"),
            (403, true, "allow list"),
            (404, true, "`from`"),
            (302, true, "redirect"),
            (405, true, "without --refresh"),
            (429, false, "`from`"),
            (500, false, "`from`"),
            (503, false, "no live token"),
            (508, true, "asks WeChat itself"),
        ] {
            let body = r#"{"error":"denied","message":"10.0.0.9 is not allowed"}"#;
            let err = read(status, body).unwrap_err();
            assert_eq!(err.is_transient(), !is_lasting, "{status}");
            let text = err.to_string();
            assert!(text.contains(hint), "{text}");
            assert_eq!(text.contains("10.0.0.9"), status != 508, "{text}");
            assert!(!err.may_have_minted());
        }
        for (status, error, hint, is_quoted) in [
            (404, "no_such_ticket", "tickets there", true),
            (404, "no_such_account", "it has no account shop", false),
            (503, "no_ticket", "no live ticket", true),
            (403, "forbidden_account", "`allow` there", true),
            (403, "forbidden_api", "for all APIs", false),
            (403, "certificate", "Check `from`, and the other", true),
        ] {
            let body = format!(r#"{{"error":"{error}","message":"10.0.0.9 is none"}}"#);
            let shown = read(status, &body).unwrap_err().to_string();
            assert!(shown.contains(hint), "{shown}");
            assert_eq!(shown.contains("10.0.0.9"), is_quoted, "{shown}");
        }
    }

    #[test]
    fn without_a_key_a_key_is_asked_for() {
        let response = HttpResponse { status: 401, date: None, body: Vec::new() };
        let sent = Sent { account: "shop", key: None, reported: None };
        let shown = read_issued(&response, "access_token", &sent).unwrap_err().to_string();
        assert!(shown.contains("Give key_file"), "{shown}");
    }
}
