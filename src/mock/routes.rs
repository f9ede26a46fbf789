//! WeChat's routes: which API a request calls, with which parameters, and the correct answer by the rules.
//! Knows no connections.

use std::time::Duration;

use hyper::Method;
use hyper::body::Bytes;
use serde_json::{Map, Value, json};

use super::effect::CorrectAnswer;
use super::errmsg::Wording;
use super::fault::CallGroup;
use super::rules::{CallerCredentials, MockGrant, MockRefusal, MockWeChat};

/// Some addresses of WeChat's, as the APIs that list them answer.
const WECHAT_ADDRESSES: [&str; 3] = ["101.91.34.103", "101.226.103.61", "180.163.15.149"];

/// The route whose bodies may be large. Nothing of them is kept.
pub(crate) const UPLOAD: &str = "/cgi-bin/media/upload";

/// A request with its whole body.
pub(crate) struct MockRequest {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: Bytes,
    pub(crate) has_content_length: bool,
}

/// What a request calls.
pub(crate) enum ApiCall {
    /// GET /cgi-bin/token
    ClassicToken,
    /// POST /cgi-bin/stable_token; an invalid body is its errcode.
    StableToken(Result<StableTokenBody, i64>),
    /// GET /cgi-bin/gettoken
    WeComToken,
    /// GET /cgi-bin/get_api_domain_ip
    DomainIp,
    /// GET /cgi-bin/getcallbackip
    CallbackIp,
    /// One of the routes for tickets. `kind` is `None` if the route has no such type.
    Ticket { kind: Option<&'static str>, is_wecom: bool },
    /// POST /cgi-bin/message/custom/send, on WeCom /cgi-bin/message/send
    Message,
    /// POST /cgi-bin/media/upload
    Upload,
    /// GET /cgi-bin/media/get
    Download,
    /// None of the routes.
    Unknown,
}

/// The body of a call of stable_token. A missing field is empty.
pub(crate) struct StableTokenBody {
    appid: String,
    grant_type: String,
    secret: String,
    pub(crate) forced: bool,
}

impl MockRequest {
    /// Returns the API that is called.
    pub(crate) fn api_call(&self) -> ApiCall {
        let ticket = |kinds: &[&'static str], is_wecom| {
            let kind = self.parameter("type");
            ApiCall::Ticket { kind: kinds.iter().copied().find(|known| *known == kind), is_wecom }
        };
        match self.path.as_str() {
            "/cgi-bin/token" => ApiCall::ClassicToken,
            "/cgi-bin/stable_token" => ApiCall::StableToken(StableTokenBody::parse(&self.body)),
            "/cgi-bin/gettoken" => ApiCall::WeComToken,
            "/cgi-bin/get_api_domain_ip" => ApiCall::DomainIp,
            "/cgi-bin/getcallbackip" => ApiCall::CallbackIp,
            "/cgi-bin/ticket/getticket" => ticket(&["jsapi", "wx_card"], false),
            "/cgi-bin/get_jsapi_ticket" => ApiCall::Ticket { kind: Some("jsapi"), is_wecom: true },
            "/cgi-bin/ticket/get" => ticket(&["agent_config"], true),
            "/cgi-bin/message/custom/send" | "/cgi-bin/message/send" => ApiCall::Message,
            UPLOAD => ApiCall::Upload,
            "/cgi-bin/media/get" => ApiCall::Download,
            _ => ApiCall::Unknown,
        }
    }

    /// Returns a parameter of the query, decoded; empty if it is missing.
    fn parameter(&self, name: &str) -> String {
        form_urlencoded::parse(self.query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
            .unwrap_or_default()
    }

    /// Returns the whole request as text, secret included, for the fault that repeats it.
    pub(crate) fn to_text(&self) -> String {
        format!(
            "{} {}?{} {}",
            self.method,
            self.path,
            self.query,
            String::from_utf8_lossy(&self.body)
        )
    }
}

impl ApiCall {
    /// Returns the group of calls that a fault can be limited to.
    pub(crate) fn group(&self) -> Option<CallGroup> {
        match self {
            ApiCall::ClassicToken | ApiCall::StableToken(_) | ApiCall::WeComToken => {
                Some(CallGroup::Token)
            }
            ApiCall::DomainIp | ApiCall::CallbackIp => Some(CallGroup::Probe),
            ApiCall::Ticket { .. } => Some(CallGroup::Ticket),
            ApiCall::Message | ApiCall::Upload | ApiCall::Download => Some(CallGroup::Api),
            ApiCall::Unknown => None,
        }
    }

    /// Returns which API's texts a refusal of the call uses.
    pub(crate) fn wording(&self) -> Wording {
        match self {
            ApiCall::ClassicToken => Wording::Classic,
            ApiCall::WeComToken | ApiCall::Ticket { is_wecom: true, .. } => Wording::WeCom,
            _ => Wording::WeChat,
        }
    }

    /// Returns the correct answer, and changes WeChat's state as the call does.
    pub(crate) fn answer(
        &self,
        request: &MockRequest,
        wechat: &mut MockWeChat,
        now: Duration,
    ) -> CorrectAnswer {
        // WeChat refuses a POST without a length before it looks at it.
        if request.method == Method::POST && !request.has_content_length {
            return CorrectAnswer::Status(412);
        }
        self.try_answer(request, wechat, now).unwrap_or_else(CorrectAnswer::from)
    }

    fn try_answer(
        &self,
        request: &MockRequest,
        wechat: &mut MockWeChat,
        now: Duration,
    ) -> Result<CorrectAnswer, MockRefusal> {
        let parameter = |name| request.parameter(name);
        Ok(match self {
            ApiCall::Unknown => CorrectAnswer::Status(404),
            ApiCall::StableToken(_) if request.method != Method::POST => {
                return Err(wechat.refusal(43002, self.wording(), now));
            }
            ApiCall::StableToken(Err(errcode)) => {
                return Err(wechat.refusal(*errcode, self.wording(), now));
            }
            ApiCall::StableToken(Ok(body)) => {
                let caller = body.credentials();
                grant_answer("access_token", &wechat.stable_token(caller, body.forced, now)?)
            }
            ApiCall::Message | ApiCall::Upload if request.method != Method::POST => {
                return Err(wechat.refusal(43002, self.wording(), now));
            }
            ApiCall::Message => {
                wechat.check_token(&parameter("access_token"), now)?;
                CorrectAnswer::Object(Map::new()).with_errcode_0()
            }
            ApiCall::Upload => {
                wechat.check_token(&parameter("access_token"), now)?;
                CorrectAnswer::Object(Map::from_iter([
                    ("type".to_owned(), json!("image")),
                    ("media_id".to_owned(), json!("mock_media_id")),
                    ("created_at".to_owned(), json!(now.as_secs())),
                ]))
            }
            _ if request.method != Method::GET => {
                return Err(wechat.refusal(43001, self.wording(), now));
            }
            ApiCall::ClassicToken => {
                let [appid, grant_type, secret] = ["appid", "grant_type", "secret"].map(parameter);
                let caller =
                    CallerCredentials { appid: &appid, grant_type: &grant_type, secret: &secret };
                grant_answer("access_token", &wechat.classic_token(caller, now)?)
            }
            ApiCall::WeComToken => {
                let [appid, secret] = ["corpid", "corpsecret"].map(parameter);
                let caller = CallerCredentials { appid: &appid, grant_type: "", secret: &secret };
                grant_answer("access_token", &wechat.wecom_token(caller, now)?).with_errcode_0()
            }
            ApiCall::Ticket { kind, is_wecom } => {
                let token = parameter("access_token");
                wechat.check_token(&token, now)?;
                if wechat.is_wecom_token(&token) != *is_wecom {
                    let errcode = if *is_wecom { 40014 } else { 40001 };
                    return Err(wechat.refusal(errcode, self.wording(), now));
                }
                let Some(kind) = kind else {
                    // Neither manual documents the answer to a wrong type. These are the codes for an invalid parameter in their
                    // lists of errcodes.
                    let errcode = if *is_wecom { 40058 } else { 40097 };
                    return Err(wechat.refusal(errcode, self.wording(), now));
                };
                grant_answer("ticket", &wechat.ticket(&token, kind, now)?).with_errcode_0()
            }
            ApiCall::Download => {
                wechat.check_token(&parameter("access_token"), now)?;
                CorrectAnswer::Media
            }
            ApiCall::DomainIp | ApiCall::CallbackIp => {
                let token = parameter("access_token");
                let is_wecom = wechat.is_wecom_token(&token);
                address_list(wechat.check_token(&token, now), is_wecom)
            }
        })
    }
}

impl StableTokenBody {
    /// Parses the body. Fails with WeChat's errcode.
    fn parse(body: &[u8]) -> Result<StableTokenBody, i64> {
        if body.is_empty() {
            return Err(44002);
        }
        let Ok(Value::Object(body)) = serde_json::from_slice(body) else { return Err(47001) };
        let text = |name| match body.get(name) {
            None => Ok(String::new()),
            Some(value) => value.as_str().map(str::to_owned).ok_or(47001),
        };
        let forced = body.get("force_refresh").map_or(Some(false), Value::as_bool).ok_or(47001)?;
        Ok(StableTokenBody {
            appid: text("appid")?,
            grant_type: text("grant_type")?,
            secret: text("secret")?,
            forced,
        })
    }

    fn credentials(&self) -> CallerCredentials<'_> {
        CallerCredentials { appid: &self.appid, grant_type: &self.grant_type, secret: &self.secret }
    }
}

/// Returns the answer with a token or ticket under `key`. WeChat's token APIs send no errcode with it.
fn grant_answer(key: &str, grant: &MockGrant) -> CorrectAnswer {
    CorrectAnswer::Object(Map::from_iter([
        (key.to_owned(), json!(grant.token.expose())),
        ("expires_in".to_owned(), json!(grant.expires_in_secs)),
    ]))
}

/// Returns the answer of an API that lists addresses. WeCom's refusals have an empty list.
fn address_list(checked: Result<(), MockRefusal>, is_wecom: bool) -> CorrectAnswer {
    let list = |addresses: &[&str]| ("ip_list".to_owned(), json!(addresses));
    match checked {
        Ok(()) => {
            let answer = CorrectAnswer::Object(Map::from_iter([list(&WECHAT_ADDRESSES)]));
            if is_wecom { answer.with_errcode_0() } else { answer }
        }
        Err(refusal) => {
            let mut answer = CorrectAnswer::from(refusal);
            if let (true, CorrectAnswer::Object(object)) = (is_wecom, &mut answer) {
                object.extend([list(&[])]);
            }
            answer
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_decoded_as_browsers_encode_it() {
        let request = MockRequest {
            method: Method::GET,
            path: String::new(),
            query: "a=1&b=x%2By+z&c&%64=4&e=100%&f=%+1&a=2".to_owned(),
            body: Bytes::new(),
            has_content_length: false,
        };
        let [a, b, c, d, e, f, none] =
            ["a", "b", "c", "d", "e", "f", "none"].map(|name| request.parameter(name));
        assert_eq!([a, b, c, d, e, f, none], ["1", "x+y z", "", "4", "100%", "% 1", ""]);
    }

    #[test]
    fn an_invalid_body_of_stable_token_has_its_errcode() {
        let code = |body: &[u8]| StableTokenBody::parse(body).map(|_| ()).unwrap_err();
        assert_eq!(code(b""), 44002);
        for wrong in [
            &b"{"[..],
            b"[]",
            b"null",
            b"\"x\"",
            br#"{"appid":1}"#,
            br#"{"force_refresh":"yes"}"#,
            b"\xff",
        ] {
            assert_eq!(code(wrong), 47001, "{}", String::from_utf8_lossy(wrong));
        }
        let body =
            StableTokenBody::parse(br#"{"appid":"a","secret":"s","force_refresh":true,"more":[]}"#);
        assert!(body.is_ok_and(|body| body.forced && body.grant_type.is_empty()));
    }
}
