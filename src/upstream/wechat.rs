//! WeChat (公众号, 服务号, 小程序) and WeCom (企业微信) as upstream: tokens, tickets and probes, one request each. The JSON
//! body decides what an answer means, not the HTTP status.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::client::{Client, HttpResponse};
use super::passed;
use super::{
    Credential, CredentialHashes, IssuedToken, Liveness, Probe, RefreshMode, TicketSource,
    TokenSource, UpstreamError,
};
use crate::model::api::Api;
use crate::model::document;
use crate::model::errcode::{CallKind, Class, Platform, Refusal};
use crate::model::kind::TicketType;
use crate::model::secret::{Salt, Secret};

/// An account at WeChat, or an app of a corp at WeCom.
pub(crate) struct WeChat {
    client: Client,
    api: Api,
    appid: String,
    secret: Secret,
}

/// The parameters of `stable_token`. <https://developers.weixin.qq.com/doc/service/api/base/api_getstableaccesstoken>
#[derive(Serialize)]
struct StableTokenParams<'a> {
    grant_type: &'static str,
    appid: &'a str,
    secret: &'a str,
    force_refresh: bool,
}

const GRANT_TYPE: &str = "client_credential";

impl WeChat {
    /// Returns the upstream of the account with this AppID, or CorpID on work.
    pub(crate) fn new(client: Client, api: Api, appid: &str, secret: Secret) -> WeChat {
        WeChat { client, api, appid: appid.to_owned(), secret }
    }

    fn send_stable(
        &self,
        force_refresh: bool,
        timeout: Duration,
    ) -> Result<HttpResponse, UpstreamError> {
        let body = StableTokenParams {
            grant_type: GRANT_TYPE,
            appid: &self.appid,
            secret: self.secret.expose(),
            force_refresh,
        };
        let body = Zeroizing::new(serde_json::to_vec(&body).unwrap_or_default()); // Strings always serialize.
        self.client.post_json("/cgi-bin/stable_token", body, timeout)
    }

    fn send_classic(&self, timeout: Duration) -> Result<HttpResponse, UpstreamError> {
        let query =
            [("grant_type", GRANT_TYPE), ("appid", &self.appid), ("secret", self.secret.expose())];
        self.client.get("/cgi-bin/token", &query, timeout)
    }

    /// <https://developer.work.weixin.qq.com/document/path/91039>
    fn send_work(&self, timeout: Duration) -> Result<HttpResponse, UpstreamError> {
        let query = [("corpid", self.appid.as_str()), ("corpsecret", self.secret.expose())];
        self.client.get("/cgi-bin/gettoken", &query, timeout)
    }
}

impl TokenSource for WeChat {
    fn prepare(&self) -> anyhow::Result<()> {
        self.client.prepare()
    }

    fn request_token(
        &self,
        mode: RefreshMode,
        timeout: Duration,
    ) -> Result<IssuedToken, UpstreamError> {
        let response = match self.api {
            Api::Stable => self.send_stable(mode == RefreshMode::Forced, timeout),
            // Every call mints a token.
            Api::Classic => self.send_classic(timeout),
            // WeCom issues another token only when the current one has expired.
            Api::Work => self.send_work(timeout),
        }?;
        read_token(&response, &self.secret, self.api)
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
        let (path, query) = match (self.api.platform(), kind.as_str()) {
            (Platform::Official, _) => ("/cgi-bin/ticket/getticket", Some(("type", &*kind))),
            (Platform::Work, "jsapi") => ("/cgi-bin/get_jsapi_ticket", None),
            (Platform::Work, _) => ("/cgi-bin/ticket/get", Some(("type", &*kind))),
        };
        let query: Vec<_> = [("access_token", token.expose())].into_iter().chain(query).collect();
        let response = self.client.get(path, &query, timeout)?;
        read_issued(&response, "ticket", token, CallKind::UsesToken, self.api.platform())
    }
}

impl Probe for WeChat {
    /// Requests the list of WeChat's addresses: every kind of account may, and it changes nothing.
    fn probe(&self, token: &Secret, timeout: Duration) -> Liveness {
        let query = [("access_token", token.expose())];
        match self.client.get("/cgi-bin/get_api_domain_ip", &query, timeout) {
            Ok(response) => read_liveness(&response, token, self.api.platform()),
            Err(err) => Liveness::Unknown(err),
        }
    }
}

impl Credential for WeChat {
    fn hashes(&self, salt: &Salt) -> Option<CredentialHashes> {
        let WeChat { client, api, appid, secret } = self;
        let api = format!("{api:?}");
        let route = client.route();
        Some(CredentialHashes {
            secret: salt.hash(&[appid, secret.expose()]),
            request: salt.hash(&[appid, secret.expose(), &api, &route]),
        })
    }
}

pub(crate) fn read_token(
    response: &HttpResponse,
    secret: &Secret,
    api: Api,
) -> Result<IssuedToken, UpstreamError> {
    let call = match api {
        Api::Stable => CallKind::RequestsStableToken,
        Api::Classic | Api::Work => CallKind::RequestsToken,
    };
    read_issued(response, "access_token", secret, call, api.platform())
}

/// Reads the token or ticket in `field` of the response to a call that sent `sent`.
fn read_issued(
    response: &HttpResponse,
    field: &str,
    sent: &Secret,
    call: CallKind,
    platform: Platform,
) -> Result<IssuedToken, UpstreamError> {
    let body = parse_object(response)?;
    if let Some(code @ ..=-1 | code @ 1..) = errcode(&body)? {
        // A contradiction: a token may have been minted.
        if body[field].as_str().is_some_and(document::is_token) {
            let what = format!("{} {field} and errcode {code} in one", article(field));
            return Err(UpstreamError::Malformed(what));
        }
        return Err(refused(code, &body, sent, call, platform));
    }
    if !is_success(response) && body[field].is_null() {
        return Err(UpstreamError::Status(response.status));
    }

    let token = match &body[field] {
        Value::String(text) if document::is_token(text) => Secret::new(text.clone()),
        Value::Null => {
            return Err(UpstreamError::Malformed(format!("neither {field} nor errcode")));
        }
        _ => {
            let what = format!("{} {field} that is no token", article(field));
            return Err(UpstreamError::Malformed(what));
        }
    };
    Ok(IssuedToken { token, expires_in: parse_expires_in(&body)? })
}

fn article(noun: &str) -> &'static str {
    if noun.starts_with('a') { "an" } else { "a" }
}

/// Reads what the response to a call with `token` says about it.
pub(crate) fn read_liveness(
    response: &HttpResponse,
    token: &Secret,
    platform: Platform,
) -> Liveness {
    let read = || {
        let body = parse_object(response)?;
        let code = errcode(&body)?;
        Ok((body, code))
    };
    let (body, code) = match read() {
        Ok(read) => read,
        Err(err) => return Liveness::Unknown(err),
    };
    match code {
        Some(0) => Liveness::Alive,
        // These codes complain about other parameters, which WeChat checks only after it has accepted the token.
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
        // WeCom's refusals have a list too, an empty one, but beside an errcode.
        None if body["ip_list"].as_array().is_some_and(|list| !list.is_empty()) => Liveness::Alive,
        None if !is_success(response) => Liveness::Unknown(UpstreamError::Status(response.status)),
        None => {
            Liveness::Unknown(UpstreamError::Malformed("neither ip_list nor errcode".to_owned()))
        }
    }
}

/// Parses the body of a response by WeChat, which always is a JSON object.
pub(super) fn parse_object(response: &HttpResponse) -> Result<Value, UpstreamError> {
    // WeChat never redirects: a redirect comes from another server, whatever its body says. So does word of a loop.
    if (300..400).contains(&response.status) || response.status == passed::LOOP_DETECTED {
        return Err(UpstreamError::Status(response.status));
    }
    // Lossy: a gateway may have broken the encoding of errmsg, and the errcode still counts.
    let text = String::from_utf8_lossy(&response.body);
    let text = text.trim_start_matches('\u{feff}');
    let malformed = |what: &str| Err(UpstreamError::Malformed(what.to_owned()));
    match serde_json::from_str(text) {
        Ok(body @ Value::Object(_)) => Ok(body),
        _ if !is_success(response) => Err(UpstreamError::Status(response.status)),
        Ok(_) => malformed("JSON, but not an object"),
        Err(_) if text.is_empty() => malformed("an empty body"),
        Err(err) if err.is_eof() => malformed("JSON that ends too soon"),
        Err(_) if text.trim_start().starts_with('<') => malformed("an HTML page instead of JSON"),
        Err(_) => malformed("not JSON"),
    }
}

fn is_success(response: &HttpResponse) -> bool {
    (200..300).contains(&response.status)
}

/// Returns the errcode if there is one; 0 means success.
pub(super) fn errcode(body: &Value) -> Result<Option<i64>, UpstreamError> {
    match &body["errcode"] {
        Value::Null => Ok(None),
        code => parse_integer(code)
            .map(Some)
            .ok_or_else(|| UpstreamError::Malformed("an errcode that is not a number".to_owned())),
    }
}

/// Returns the lifetime in `expires_in`.
pub(super) fn parse_expires_in(body: &Value) -> Result<Duration, UpstreamError> {
    parse_integer(&body["expires_in"])
        .and_then(|secs| u64::try_from(secs).ok())
        .and_then(document::parse_lifetime)
        .ok_or_else(|| {
            UpstreamError::Malformed("an expires_in that is no life (1 to 86400 s)".to_owned())
        })
}

/// Returns the refusal with this errcode. A gateway may echo the request in errmsg, so `sent` is removed from it. If `sent`
/// has characters that an echo may escape, all of errmsg is dropped.
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

/// Accepts a number or a numeric string: SDKs report both.
fn parse_integer(value: &Value) -> Option<i64> {
    match value {
        // 7200.0 counts as whole. Beyond 2^53 a float is not exact.
        Value::Number(number) => number.as_i64().or_else(|| {
            number.as_f64().filter(|it| it.fract() == 0.0 && it.abs() < 9e15).map(|it| it as i64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::roots::TrustedRoots;
    use super::*;
    use crate::error::Exit;
    use crate::model::address::endpoint::BaseUrl;

    fn read(status: u16, body: &str) -> Result<IssuedToken, UpstreamError> {
        read_on(Api::Stable, status, body.as_bytes())
    }

    fn read_on(api: Api, status: u16, body: &[u8]) -> Result<IssuedToken, UpstreamError> {
        let response = HttpResponse { status, date: None, body: body.to_vec() };
        read_token(&response, &Secret::new("S3CR3T".to_owned()), api)
    }

    #[test]
    fn the_body_decides_and_not_the_status() {
        for (status, body) in [
            (200, r#"{"access_token":"T1","expires_in":7200}"#),
            (200, r#"{"errcode":0,"errmsg":"ok","access_token":"T1","expires_in":7200}"#),
            (200, r#"{"errcode":0.0,"access_token":"T1","expires_in":7.2e3}"#),
            (200, "\u{feff}{\"access_token\":\"T1\",\"expires_in\":7200}"),
            (200, r#"{"errcode":"0","access_token":"T1","expires_in":"7200","new":[1]}"#),
            (500, r#"{"access_token":"T1","expires_in":7200}"#),
        ] {
            let issued = read(status, body).expect(body);
            assert_eq!(
                (issued.token.expose(), issued.expires_in.as_secs()),
                ("T1", 7200),
                "{body}"
            );
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
            assert_eq!(read(status, body).expect_err(body).exit(), exit, "{status} {body}");
        }
    }

    #[test]
    fn wecoms_errcode_0_is_success_and_its_other_codes_have_meanings_of_their_own() {
        let body = br#"{"errcode":0,"errmsg":"ok","access_token":"T1","expires_in":7200}"#;
        assert!(read_on(Api::Work, 200, body).is_ok());
        let body = br#"{"errcode":40001,"errmsg":"invalid credential, hint: [1589168158000000000000000], from ip: 203.0.113.9, more info at https://open.work.weixin.qq.com/devtool/query?e=40001"}"#;
        let err = read_on(Api::Work, 200, body).unwrap_err();
        assert!(!err.is_transient() && err.exit() == Exit::Refused);
        let shown = err.to_string();
        for part in ["do not retry", "banned for an hour", "切勿反复重试", "from ip: 203.0.113.9"]
        {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }

    #[test]
    fn a_malformed_answer_is_described_and_never_taken_for_a_token() {
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
            let err = read(200, body).expect_err(body);
            assert!(
                matches!(&err, UpstreamError::Malformed(named) if named.contains(what)),
                "{body}: {err}"
            );
            assert!(!err.is_transient(), "{body}");
        }
        let long = format!(r#"{{"access_token":"{}","expires_in":7200}}"#, "x".repeat(2049));
        assert!(read(200, &long).is_err());
    }

    #[test]
    fn no_truncated_or_corrupted_answer_panics() {
        let whole = br#"{"access_token":"T1","expires_in":7200,"errcode":0}"#;
        for cut in 0..whole.len() {
            assert!(read_on(Api::Stable, 200, &whole[..cut]).is_err());
            for bit in 0..8 {
                let mut body = whole.to_vec();
                body[cut] ^= 1 << bit;
                let _ = read_on(Api::Stable, 200, &body); // Any result, no panic.
            }
        }
    }

    #[test]
    fn a_refusal_with_a_broken_encoding_is_recognized() {
        let body = b"{\"errcode\":40164,\"errmsg\":\"\xce\xde\xd0\xa7 invalid ip 203.0.113.9, not in whitelist\"}";
        let err = read_on(Api::Stable, 200, body).unwrap_err();
        assert!(err.to_string().contains("Add IP 203.0.113.9"), "{err}");
    }

    #[test]
    fn a_secret_echoed_in_errmsg_is_not_shown() {
        let err =
            read(200, r#"{"errcode":40013,"errmsg":"bad /token?secret=S3CR3T&x"}"#).unwrap_err();
        assert!(!format!("{err} {err:?}").contains("S3CR3T"), "{err}");
        assert!(err.to_string().contains("secret=[secret]&x"), "{err}");
    }

    fn probed(status: u16, body: &str, platform: Platform) -> Liveness {
        let response = HttpResponse { status, date: None, body: body.into() };
        read_liveness(&response, &Secret::new("T0KEN".to_owned()), platform)
    }

    #[test]
    fn a_probe_returns_dead_only_if_wechat_says_so() {
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
        // A refused address, a used-up quota or a busy WeChat say nothing about the token.
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
            let liveness = probed(200, &body, platform);
            assert!(
                matches!(&liveness, Liveness::Unknown(UpstreamError::Refused(it)) if it.code == code),
                "{code}: {liveness:?}"
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
            let liveness = probed(status, body, Official);
            assert!(matches!(liveness, Liveness::Unknown(_)), "{status} {body}: {liveness:?}");
        }
    }

    #[test]
    fn a_token_echoed_in_errmsg_is_not_shown() {
        let body = r#"{"errcode":40164,"errmsg":"bad /x?access_token=T0KEN&y"}"#;
        let liveness = format!("{:?}", probed(200, body, Platform::Official));
        assert!(
            liveness.contains("access_token=[secret]&y") && !liveness.contains("T0KEN"),
            "{liveness}"
        );
        // Has a character that a gateway may escape, so nothing of errmsg is shown.
        let odd = Secret::new("T0/KEN".to_owned());
        let body = br#"{"errcode":40164,"errmsg":"bad /x?access_token=T0%2FKEN&y"}"#.to_vec();
        let response = HttpResponse { status: 200, date: None, body };
        let liveness = format!("{:?}", read_liveness(&response, &odd, Platform::Official));
        assert!(!liveness.contains("KEN"), "{liveness}");
    }

    #[test]
    fn a_probe_sends_the_token_and_its_errors_show_no_url() {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let base = BaseUrl::parse(&base).unwrap();
        // Answers once, then closes.
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
            panic!("nothing listens")
        };
        let shown = format!("{err} {err:?}");
        assert!(!shown.contains("T0KEN") && !shown.contains("cgi-bin"), "{shown}");
        assert_eq!(err.exit(), Exit::Unreachable);
    }

    #[test]
    fn an_upstream_can_be_shared_between_threads() {
        fn assert_shared<T: Send + Sync>() {}
        assert_shared::<WeChat>();
        assert_shared::<Client>();
    }
}
