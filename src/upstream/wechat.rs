//! Asks WeChat (公众号, 服务号, 小程序) or WeCom (企业微信) for a token, or whether one is alive: one request, one verdict.
//! The JSON body decides, not the HTTP status.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::client::{Answer, Client};
use super::{IssuedToken, Liveness, Probe, RefreshMode, TicketSource, TokenSource, UpstreamError};
use crate::model::api::Api;
use crate::model::document;
use crate::model::errcode::{CallKind, Class, Platform, Refusal};
use crate::model::kind::TicketType;
use crate::model::secret::Secret;

/// One account at WeChat, or one app of a corp at WeCom.
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

impl TokenSource for WeChat {
    fn request_token(
        &self,
        how: RefreshMode,
        timeout: Duration,
    ) -> Result<IssuedToken, UpstreamError> {
        let answer = match self.api {
            Api::Stable => self.ask_stable(how == RefreshMode::Forced, timeout),
            // Every call mints another.
            Api::Classic => self.ask_classic(timeout),
            // Nothing but its end makes it give another.
            Api::Work => self.ask_work(timeout),
        }?;
        judge(&answer, &self.secret, self.platform())
    }
}

impl Probe for WeChat {
    /// By the list of WeChat's addresses: every kind of account may ask for it, and it changes nothing.
    fn probe(&self, token: &Secret, timeout: Duration) -> Liveness {
        let query = [("access_token", token.expose())];
        match self.client.get("/cgi-bin/get_api_domain_ip", &query, timeout) {
            Ok(answer) => pulse(&answer, token, self.platform()),
            Err(err) => Liveness::Unknown(err),
        }
    }
}

impl TicketSource for WeChat {
    /// <https://developers.weixin.qq.com/doc/service/api/webdev/jssdk/api_getticket> and
    /// <https://developer.work.weixin.qq.com/document/path/90506>
    fn request_ticket(
        &self,
        kind: &TicketType,
        token: &Secret,
        timeout: Duration,
    ) -> Result<IssuedToken, UpstreamError> {
        let kind = kind.to_string();
        let (path, query) = match (self.platform(), kind.as_str()) {
            (Platform::Official, _) => ("/cgi-bin/ticket/getticket", Some(("type", &*kind))),
            (Platform::Work, "jsapi") => ("/cgi-bin/get_jsapi_ticket", None),
            (Platform::Work, _) => ("/cgi-bin/ticket/get", Some(("type", &*kind))),
        };
        let token_only = [("access_token", token.expose())];
        let query: Vec<_> = token_only.into_iter().chain(query).collect();
        let answer = self.client.get(path, &query, timeout)?;
        judge_grant(&answer, "ticket", token, CallKind::UsesToken, self.platform())
    }
}

impl WeChat {
    pub(crate) fn new(client: Client, api: Api, appid: &str, secret: Secret) -> WeChat {
        WeChat { client, api, appid: appid.to_owned(), secret }
    }

    fn ask_stable(&self, force_refresh: bool, timeout: Duration) -> Result<Answer, UpstreamError> {
        let request = StableRequest {
            grant_type: GRANT_TYPE,
            appid: &self.appid,
            secret: self.secret.expose(),
            force_refresh,
        };
        let body = Zeroizing::new(serde_json::to_vec(&request).unwrap_or_default()); // Strings always serialize.
        self.client.post_json("/cgi-bin/stable_token", body, timeout)
    }

    fn ask_classic(&self, timeout: Duration) -> Result<Answer, UpstreamError> {
        let query =
            [("grant_type", GRANT_TYPE), ("appid", &self.appid), ("secret", self.secret.expose())];
        self.client.get("/cgi-bin/token", &query, timeout)
    }

    /// <https://developer.work.weixin.qq.com/document/path/91039>
    fn ask_work(&self, timeout: Duration) -> Result<Answer, UpstreamError> {
        let query = [("corpid", self.appid.as_str()), ("corpsecret", self.secret.expose())];
        self.client.get("/cgi-bin/gettoken", &query, timeout)
    }

    /// Whose errcodes it hears.
    fn platform(&self) -> Platform {
        match self.api {
            Api::Stable | Api::Classic => Platform::Official,
            Api::Work => Platform::Work,
        }
    }
}

/// What an answer says: a grant, a refusal, or nothing that makes sense.
fn judge(
    answer: &Answer,
    secret: &Secret,
    platform: Platform,
) -> Result<IssuedToken, UpstreamError> {
    judge_grant(answer, "access_token", secret, CallKind::RequestsToken, platform)
}

/// The same of an answer that grants what stands under `key`, to a call in which `sent` was sent.
fn judge_grant(
    answer: &Answer,
    key: &str,
    sent: &Secret,
    call: CallKind,
    platform: Platform,
) -> Result<IssuedToken, UpstreamError> {
    let body = object(answer)?;
    if let Some(code @ ..=-1 | code @ 1..) = errcode(&body)? {
        // Whichever of the two is wrong: a token was minted, perhaps.
        if body[key].as_str().is_some_and(document::is_token) {
            return Err(UpstreamError::Malformed(format!(
                "{} {key} and errcode {code} in one",
                article(key)
            )));
        }
        return Err(refused(code, &body, sent, call, platform));
    }
    if !is_success(answer) && body[key].is_null() {
        return Err(UpstreamError::Status(answer.status));
    }

    let token = match &body[key] {
        Value::String(text) if document::is_token(text) => Secret::new(text.clone()),
        Value::Null => {
            return Err(UpstreamError::Malformed(format!("neither {key} nor errcode")));
        }
        _ => {
            return Err(UpstreamError::Malformed(format!(
                "{} {key} that is no token",
                article(key)
            )));
        }
    };
    let expires_in = whole_number(&body["expires_in"])
        .and_then(|secs| u64::try_from(secs).ok())
        .and_then(document::parse_lifetime)
        .ok_or_else(|| {
            UpstreamError::Malformed("an expires_in that is no life (1 to 86400 s)".to_owned())
        })?;
    Ok(IssuedToken { token, expires_in })
}

fn article(key: &str) -> &'static str {
    if key.starts_with('a') { "an" } else { "a" }
}

/// What an answer to a call that used `token` says of it.
fn pulse(answer: &Answer, token: &Secret, platform: Platform) -> Liveness {
    let read = || {
        let body = object(answer)?;
        let code = errcode(&body)?;
        Ok((body, code))
    };
    let (body, code) = match read() {
        Ok(read) => read,
        Err(err) => return Liveness::Unknown(err),
    };
    match code {
        Some(0) => Liveness::Alive,
        // What these find fault with is looked at only once the token has been honoured.
        Some(76_000..=76_999) => Liveness::Alive,
        Some(code) => {
            let err = refused(code, &body, token, CallKind::UsesToken, platform);
            match &err {
                UpstreamError::Refused(refusal) if refusal.class() == Class::TokenDead => {
                    Liveness::Dead
                }
                _ => Liveness::Unknown(err),
            }
        }
        // WeCom's refusals have a list, too: an empty one, beside an errcode.
        None if body["ip_list"].as_array().is_some_and(|list| !list.is_empty()) => Liveness::Alive,
        None if !is_success(answer) => Liveness::Unknown(UpstreamError::Status(answer.status)),
        None => {
            Liveness::Unknown(UpstreamError::Malformed("neither ip_list nor errcode".to_owned()))
        }
    }
}

/// The JSON object that every answer of WeChat's is.
pub(super) fn object(answer: &Answer) -> Result<Value, UpstreamError> {
    // Somebody else's answer, whatever its body says: WeChat never redirects.
    if (300..400).contains(&answer.status) {
        return Err(UpstreamError::Status(answer.status));
    }
    // Whatever some gateway did to the text of a refusal, its errcode still counts.
    let text = String::from_utf8_lossy(&answer.body);
    let text = text.trim_start_matches('\u{feff}');
    let nonsense = |what: &str| Err(UpstreamError::Malformed(what.to_owned()));
    match serde_json::from_str(text) {
        Ok(body @ Value::Object(_)) => Ok(body),
        _ if !is_success(answer) => Err(UpstreamError::Status(answer.status)),
        Ok(_) => nonsense("JSON, but not an object"),
        Err(_) if text.is_empty() => nonsense("an empty body"),
        Err(err) if err.is_eof() => nonsense("JSON that ends too soon"),
        Err(_) if text.trim_start().starts_with('<') => nonsense("an HTML page instead of JSON"),
        Err(_) => nonsense("not JSON"),
    }
}

fn is_success(answer: &Answer) -> bool {
    (200..300).contains(&answer.status)
}

/// The errcode, where there is one; 0 is none to worry about.
pub(super) fn errcode(body: &Value) -> Result<Option<i64>, UpstreamError> {
    match &body["errcode"] {
        Value::Null => Ok(None),
        code => whole_number(code)
            .map(Some)
            .ok_or_else(|| UpstreamError::Malformed("an errcode that is not a number".to_owned())),
    }
}

/// The refusal with this errcode. A gateway that echoes the request would make us print what was in it: `sent` is taken
/// out of the text, or all of the text, should it be of characters that an echo may write otherwise.
fn refused(
    code: i64,
    body: &Value,
    sent: &Secret,
    call: CallKind,
    platform: Platform,
) -> UpstreamError {
    let errmsg = body["errmsg"].as_str().unwrap_or_default();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let text = match sent.expose() {
        plain if plain.bytes().all(is_plain) => errmsg.replace(plain, "[secret]"),
        _ => String::new(),
    };
    UpstreamError::Refused(Refusal::new(code, &text, call, platform))
}

/// A number, or a numeric string: SDKs have met both.
pub(super) fn whole_number(value: &Value) -> Option<i64> {
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
    use super::super::client::TrustedRoots;
    use super::*;
    use crate::error::Exit;
    use crate::model::address::endpoint::BaseUrl;

    fn judged(status: u16, body: &str) -> Result<IssuedToken, UpstreamError> {
        judged_on(Platform::Official, status, body.as_bytes())
    }

    fn judged_on(
        platform: Platform,
        status: u16,
        body: &[u8],
    ) -> Result<IssuedToken, UpstreamError> {
        judge(
            &Answer { status, date: None, body: body.to_vec() },
            &Secret::new("S3CR3T".to_owned()),
            platform,
        )
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
            (200, r#"{"errcode":40001,"access_token":"","expires_in":0}"#, Exit::Refused),
            (200, r#"{"errcode":40001,"access_token":"T1","expires_in":7200}"#, Exit::Unreachable),
            (302, r#"{"access_token":"T1","expires_in":7200}"#, Exit::Unreachable),
            (404, "", Exit::Refused),
            (412, "", Exit::Refused),
            (502, "<html>", Exit::Unreachable),
        ] {
            assert_eq!(judged(status, body).expect_err(body).exit(), exit, "{status} {body}");
        }
    }

    #[test]
    fn wecom_says_errcode_0_when_all_is_well_and_its_codes_are_its_own() {
        let body = br#"{"errcode":0,"errmsg":"ok","access_token":"T1","expires_in":7200}"#;
        assert!(judged_on(Platform::Work, 200, body).is_ok());
        let body = br#"{"errcode":40001,"errmsg":"invalid credential, hint: [1589168158000000000000000], from ip: 203.0.113.9, more info at https://open.work.weixin.qq.com/devtool/query?e=40001"}"#;
        let err = judged_on(Platform::Work, 200, body).unwrap_err();
        assert!(!err.is_transient() && err.exit() == Exit::Refused);
        let shown = err.to_string();
        for part in ["do not retry", "banned for an hour", "切勿反复重试", "from ip: 203.0.113.9"]
        {
            assert!(shown.contains(part), "{part}: {shown}");
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
                matches!(&err, UpstreamError::Malformed(named) if named.contains(what)),
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
            assert!(judged_on(Platform::Official, 200, &whole[..cut]).is_err());
            for bit in 0..8 {
                let mut body = whole.to_vec();
                body[cut] ^= 1 << bit;
                let _ = judged_on(Platform::Official, 200, &body); // Any verdict, no panic.
            }
        }
    }

    #[test]
    fn a_refusal_in_broken_text_is_still_that_refusal() {
        let body = b"{\"errcode\":40164,\"errmsg\":\"\xce\xde\xd0\xa7 invalid ip 203.0.113.9, not in whitelist\"}";
        let err = judged_on(Platform::Official, 200, body).unwrap_err();
        assert!(err.to_string().contains("Add IP 203.0.113.9"), "{err}");
    }

    #[test]
    fn a_secret_that_comes_back_in_an_errmsg_is_not_shown() {
        let err =
            judged(200, r#"{"errcode":40013,"errmsg":"bad /token?secret=S3CR3T&x"}"#).unwrap_err();
        assert!(!format!("{err} {err:?}").contains("S3CR3T"), "{err}");
        assert!(err.to_string().contains("secret=[secret]&x"), "{err}");
    }

    fn probed(status: u16, body: &str, platform: Platform) -> Liveness {
        pulse(
            &Answer { status, date: None, body: body.into() },
            &Secret::new("T0KEN".to_owned()),
            platform,
        )
    }

    #[test]
    fn a_probe_says_dead_only_where_wechat_says_so() {
        use Platform::{Official, Work};
        for (body, platform) in [
            (r#"{"ip_list":["101.91.34.103"]}"#, Official),
            (r#"{"errcode":0,"errmsg":"ok","ip_list":[]}"#, Work),
            (r#"{"errcode":76001,"errmsg":"rid not found"}"#, Official),
        ] {
            assert!(matches!(probed(200, body, platform), Liveness::Alive), "{body}");
        }
        for (code, platform) in
            [(40001, Official), (40014, Official), (42001, Official), (40014, Work), (42001, Work)]
        {
            let body = format!(r#"{{"ip_list":[],"errcode":{code},"errmsg":"x"}}"#);
            assert!(matches!(probed(200, &body, platform), Liveness::Dead), "{code}");
        }
        // An address that is refused, a spent quota, a busy WeChat: nothing about the token.
        for (code, platform) in [
            (40164, Official),
            (61004, Official),
            (45009, Official),
            (45011, Official),
            (-1, Official),
            (41001, Official),
            (42007, Official),
            (77777, Official),
            (60020, Work),
            (45009, Work),
            (40001, Work),
        ] {
            let body = format!(r#"{{"ip_list":[],"errcode":{code},"errmsg":"x"}}"#);
            let pulse = probed(200, &body, platform);
            assert!(
                matches!(&pulse, Liveness::Unknown(UpstreamError::Refused(it)) if it.code == code),
                "{code}: {pulse:?}"
            );
        }
        for (status, body) in [
            (200, ""),
            (200, "{}"),
            (200, r#"{"ip_list":[]}"#),
            (200, r#"{"ip_list":"101.91.34.103"}"#),
            (200, "<html>"),
            (302, r#"{"ip_list":["101.91.34.103"]}"#),
            (502, "<html>"),
            (404, ""),
        ] {
            let pulse = probed(status, body, Official);
            assert!(matches!(pulse, Liveness::Unknown(_)), "{status} {body}: {pulse:?}");
        }
    }

    #[test]
    fn a_token_that_comes_back_in_an_errmsg_is_not_shown() {
        let body = r#"{"errcode":40164,"errmsg":"bad /x?access_token=T0KEN&y"}"#;
        let pulse = format!("{:?}", probed(200, body, Platform::Official));
        assert!(pulse.contains("access_token=[secret]&y") && !pulse.contains("T0KEN"), "{pulse}");
        // Of characters that a gateway may write otherwise: nothing of the text is sure.
        let odd = Secret::new("T0/KEN".to_owned());
        let body = br#"{"errcode":40164,"errmsg":"bad /x?access_token=T0%2FKEN&y"}"#.to_vec();
        let pulse = pulse_of(&Answer { status: 200, date: None, body }, &odd);
        assert!(!pulse.contains("KEN"), "{pulse}");
    }

    #[test]
    fn a_probe_uses_the_token_and_no_error_of_it_shows_where() {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let base = BaseUrl::parse(&base).unwrap();
        // Answers once, and is gone.
        let answering = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                client.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let body = r#"{"errcode":42001,"errmsg":"access_token expired"}"#;
            let length = body.len();
            write!(client, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
            String::from_utf8(head).unwrap()
        });
        let secret = Secret::new("S3CR3T".to_owned());
        let client = Client::new(&[base], None, TrustedRoots::public()).unwrap();
        let wechat = WeChat::new(client, Api::Stable, "wx1", secret);
        let (token, timeout) = (Secret::new("T0KEN+/".to_owned()), Duration::from_secs(10));
        assert!(matches!(wechat.probe(&token, timeout), Liveness::Dead));
        let head = answering.join().unwrap();
        let target = "GET /cgi-bin/get_api_domain_ip?access_token=T0KEN%2B%2F HTTP/1.1\r\n";
        assert!(head.starts_with(target) && !head.contains("S3CR3T"), "{head}");

        let Liveness::Unknown(err) = wechat.probe(&token, timeout) else {
            panic!("nobody listens")
        };
        let shown = format!("{err} {err:?}");
        assert!(!shown.contains("T0KEN") && !shown.contains("cgi-bin"), "{shown}");
        assert_eq!(err.exit(), Exit::Unreachable);
    }

    fn pulse_of(answer: &Answer, token: &Secret) -> String {
        format!("{:?}", pulse(answer, token, Platform::Official))
    }

    #[test]
    fn a_source_can_be_asked_from_any_thread() {
        fn assert_shared<T: Send + Sync>() {}
        assert_shared::<WeChat>();
        assert_shared::<Client>();
    }
}
