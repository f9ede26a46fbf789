//! The stand-in's routes, and its connections: which rule a call comes under, which fault strikes it, what was counted.
//! Loopback only, no TLS; it judges no token itself.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::calls::Api;
use super::effect::{Answer, Effect, Right, in_place, spoil};
use super::fault::{ENTRIES, Entry, Fault, Kind};
use super::rules::{Credentials, Grant, Refusal, WeChat};
use super::wire::Wire;
use crate::log;
use crate::model::secret::Secret;

/// Room for any call that makes sense, and for some that do not.
const MAX_HEAD: usize = 64 * 1024;
const MAX_BODY: usize = 64 * 1024;
/// For the head to arrive, and between two calls on one connection.
const IDLE: Duration = Duration::from_secs(60);
const MAX_CONNECTIONS: usize = 1024;
/// When accepting fails, descriptors have run out: some come back sooner or later, trying at once only burns the CPU.
const PAUSE: Duration = Duration::from_millis(50);

/// The stand-in while it runs: the rules, the fault that is on, and what was counted.
pub(crate) struct StandIn {
    wechat: RefCell<WeChat>,
    fault: Cell<Option<Fault>>,
    calls: Cell<Calls>,
    clock: Clock,
}

/// Calls that arrived, whatever became of them.
#[derive(Clone, Copy, Default)]
struct Calls {
    token: u64,
    /// Forced ones too.
    stable_token: u64,
    forced: u64,
    gettoken: u64,
    get_api_domain_ip: u64,
    getcallbackip: u64,
    /// On any of their routes.
    tickets: u64,
    /// Neither these nor `/mock/…`.
    other: u64,
}

/// Since the Unix epoch, and never backwards.
pub(crate) struct Clock {
    started: Instant,
    started_at: Duration,
}

/// A call, as far as the rules want to know.
struct Call {
    method: Method,
    path: String,
    query: String,
    body: Bytes,
    has_length: bool,
}

/// What a call asks for.
enum Asked {
    Token,
    StableToken(Result<StableRequest, i64>),
    WorkToken,
    DomainIp,
    CallbackIp,
    /// Of this type; `None` where there is no such type, and whether by one of WeCom's routes.
    Ticket(Option<&'static str>, bool),
    Nothing,
}

/// The body of a call of stable_token.
struct StableRequest {
    appid: String,
    grant_type: String,
    secret: String,
    forced: bool,
}

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock {
            started: Instant::now(),
            started_at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.started_at + self.started.elapsed()
    }
}

impl StandIn {
    pub(crate) fn new(wechat: WeChat, fault: Option<Fault>, clock: Clock) -> StandIn {
        StandIn {
            wechat: RefCell::new(wechat),
            fault: Cell::new(fault),
            calls: Cell::default(),
            clock,
        }
    }

    /// Serves whoever connects, until dropped. Must run in a `LocalSet`.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let stand_in = Rc::new(self);
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        // The semaphore is never closed, which is the only error there is.
        while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let stand_in = Rc::clone(&stand_in);
                    spawn_local(async move {
                        stand_in.converse(stream).await;
                        drop(permit);
                    });
                }
                Err(err) => {
                    log::error!("mock: cannot accept a connection: {err}");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Speaks HTTP on a connection until the peer leaves or a fault takes the socket over.
    async fn converse(&self, stream: TcpStream) {
        let _ = stream.set_nodelay(true); // Only about speed.
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_header_size(MAX_HEAD)
            .serve_connection(
                TokioIo::new(stream),
                service_fn(|request| Box::pin(self.respond(request))),
            );
        let wire = match poll_fn(|cx| connection.poll_without_shutdown(cx)).await {
            Ok(()) => None,
            Err(err) => std::error::Error::source(&err)
                .and_then(|source| source.downcast_ref::<Wire>())
                .cloned(),
        };
        // Any other end is the peer's: it left, or does not speak HTTP and has been told so.
        let wire = wire.unwrap_or(Wire::Bytes(Bytes::new()));
        wire.act(connection.into_parts().io.into_inner()).await;
    }

    async fn respond(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Wire> {
        let (head, body) = request.into_parts();
        let body = match Limited::new(body, MAX_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(err) if err.is::<LengthLimitError>() => return Ok(response(Answer::bare(413))),
            Err(_) => return Err(Wire::Bytes(Bytes::new())), // Cut off: there is nobody to answer.
        };
        let call = Call {
            method: head.method,
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            body,
            has_length: head.headers.contains_key(CONTENT_LENGTH),
        };
        if let Some(control) = call.path.strip_prefix("/mock/") {
            return Ok(response(self.control(control, &call)));
        }
        let effect = self.effect(&call).await;
        // Path only: the query holds the secret.
        let path = log::printable(&call.path, 100);
        match effect {
            Effect::Answer(answer) => {
                log::info!("mock: {} {path}: {}", call.method, described(&answer));
                let repeated = match call.asked().api() {
                    Api::Work => error_headers(&answer.body),
                    _ => HeaderMap::new(),
                };
                let mut response = response(answer);
                response.headers_mut().extend(repeated);
                Ok(response)
            }
            Effect::Wire(wire) => {
                log::info!("mock: {} {path}: {wire}", call.method);
                Err(wire)
            }
        }
    }

    /// Counters the call and lets the fault that is on have its way, if it is one of WeChat's.
    async fn effect(&self, call: &Call) -> Effect {
        let asked = call.asked();
        self.count(&asked);
        let now = self.clock.now();
        let fault = if call.path.starts_with("/cgi-bin/") { self.strike() } else { None };
        let Some(fault) = fault else {
            return Effect::Answer(self.right(call, &asked, now).into());
        };

        let refuse = |errcode| self.wechat.borrow_mut().refusal(errcode, asked.api(), now);
        if let Some(effect) = in_place(fault, &call.whole(), refuse) {
            return effect;
        }
        let right = self.right(call, &asked, now);
        if fault.kind == Kind::Slow {
            sleep(Duration::from_secs(fault.number.unsigned_abs())).await;
        }
        spoil(fault, right)
    }

    /// The fault that is on; it is spent by this call.
    fn strike(&self) -> Option<Fault> {
        let fault = self.fault.take()?;
        self.fault.set(fault.spent());
        Some(fault)
    }

    /// What WeChat's rules say to a call.
    fn right(&self, call: &Call, asked: &Asked, now: Duration) -> Right {
        // A POST that does not say its length is turned away before anybody reads it.
        if call.method == Method::POST && !call.has_length {
            return Right::Status(412);
        }
        let mut wechat = self.wechat.borrow_mut();
        let due = if matches!(asked, Asked::StableToken(_)) {
            (Method::POST, 43002)
        } else {
            (Method::GET, 43001)
        };
        let granted = match asked {
            Asked::Nothing => return Right::Status(404),
            _ if call.method != due.0 => Err(wechat.refusal(due.1, asked.api(), now)),
            Asked::Token => {
                let [appid, grant_type, secret] =
                    ["appid", "grant_type", "secret"].map(|name| call.parameter(name));
                wechat.token(
                    Credentials { appid: &appid, grant_type: &grant_type, secret: &secret },
                    now,
                )
            }
            Asked::StableToken(Err(errcode)) => {
                Err(wechat.refusal(*errcode, Api::StableToken, now))
            }
            Asked::StableToken(Ok(request)) if request.forced => {
                wechat.forced_stable_token(request.credentials(), now)
            }
            Asked::StableToken(Ok(request)) => wechat.stable_token(request.credentials(), now),
            Asked::WorkToken => {
                let [appid, secret] = ["corpid", "corpsecret"].map(|name| call.parameter(name));
                let who = Credentials { appid: &appid, grant_type: "", secret: &secret };
                let granted = wechat.work_token(who, now).map(Right::from);
                return granted.map_or_else(Right::from, Right::with_errcode_0);
            }
            Asked::Ticket(kind, by_work) => {
                let token = call.parameter("access_token");
                let is_foreign = wechat.is_of_work(&token) != *by_work;
                let granted = match kind {
                    _ if is_foreign && wechat.honour(&token, now).is_ok() => {
                        Err(wechat.refusal(if *by_work { 40014 } else { 40001 }, asked.api(), now))
                    }
                    Some(kind) => wechat.ticket(&token, kind, now),
                    // The token is looked at first. Neither manual says what a wrong type is answered; these are the codes for
                    // a wrong parameter in their lists of errcodes.
                    None => wechat.honour(&token, now).and_then(|()| {
                        Err(wechat.refusal(if *by_work { 40058 } else { 40097 }, asked.api(), now))
                    }),
                };
                return granted
                    .map_or_else(Right::from, |ticket| Right::of_ticket(&ticket).with_errcode_0());
            }
            Asked::DomainIp | Asked::CallbackIp => {
                let token = call.parameter("access_token");
                let honoured = wechat.honour(&token, now);
                return used(honoured, wechat.is_of_work(&token));
            }
        };
        granted.map_or_else(Right::from, Right::from)
    }

    fn count(&self, asked: &Asked) {
        let mut calls = self.calls.get();
        match asked {
            Asked::Token => calls.token += 1,
            Asked::StableToken(request) => {
                calls.stable_token += 1;
                calls.forced += u64::from(request.as_ref().is_ok_and(|request| request.forced));
            }
            Asked::WorkToken => calls.gettoken += 1,
            Asked::DomainIp => calls.get_api_domain_ip += 1,
            Asked::CallbackIp => calls.getcallbackip += 1,
            Asked::Ticket(..) => calls.tickets += 1,
            Asked::Nothing => calls.other += 1,
        }
        self.calls.set(calls);
    }

    /// `/mock/…`: what tests and people turn and read. Not WeChat's, not counted, never struck by a fault.
    fn control(&self, control: &str, call: &Call) -> Answer {
        match (control, &call.method) {
            ("calls", &Method::GET) => {
                let calls = self.calls.get();
                Answer::json(&json!({
                    "token": calls.token,
                    "stable_token": calls.stable_token,
                    "forced": calls.forced,
                    "gettoken": calls.gettoken,
                    "get_api_domain_ip": calls.get_api_domain_ip,
                    "getcallbackip": calls.getcallbackip,
                    "tickets": calls.tickets,
                    "other": calls.other,
                    "mints": self.wechat.borrow().mints(),
                }))
            }
            ("faults", &Method::GET) => {
                Answer::json(&ENTRIES.iter().map(described_entry).collect())
            }
            ("fault", &Method::GET) => Answer::text(200, told(self.fault.get())),
            ("fault", &Method::POST) => {
                match Fault::parse_or_none(String::from_utf8_lossy(&call.body).trim()) {
                    Ok(fault) => {
                        self.fault.set(fault);
                        Answer::text(200, told(fault))
                    }
                    Err(why) => Answer::text(400, why + "\n"),
                }
            }
            ("kill", &Method::POST) => {
                Answer::json(&json!({ "killed": self.wechat.borrow_mut().kill(self.clock.now()) }))
            }
            ("calls" | "faults" | "fault" | "kill", _) => {
                Answer::text(405, "wrong method\n".to_owned())
            }
            _ => Answer::text(
                404,
                "there are calls, fault, faults and kill under /mock/\n".to_owned(),
            ),
        }
    }
}

impl Call {
    fn asked(&self) -> Asked {
        match self.path.as_str() {
            "/cgi-bin/token" => Asked::Token,
            "/cgi-bin/stable_token" => Asked::StableToken(StableRequest::parse(&self.body)),
            "/cgi-bin/gettoken" => Asked::WorkToken,
            "/cgi-bin/get_api_domain_ip" => Asked::DomainIp,
            "/cgi-bin/getcallbackip" => Asked::CallbackIp,
            "/cgi-bin/ticket/getticket" => {
                Asked::Ticket(self.one_of("type", &["jsapi", "wx_card"]), false)
            }
            "/cgi-bin/get_jsapi_ticket" => Asked::Ticket(Some("jsapi"), true),
            "/cgi-bin/ticket/get" => Asked::Ticket(self.one_of("type", &["agent_config"]), true),
            _ => Asked::Nothing,
        }
    }

    /// A parameter that takes these values; `None` if it has another.
    fn one_of(&self, name: &str, values: &[&'static str]) -> Option<&'static str> {
        let value = self.parameter(name);
        values.iter().copied().find(|known| *known == value)
    }

    /// A parameter of the query, decoded; empty where there is none.
    fn parameter(&self, name: &str) -> String {
        let pairs = self.query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs
            .into_iter()
            .find(|(key, _)| decoded(key) == name)
            .map(|(_, value)| decoded(value))
            .unwrap_or_default()
    }

    /// The call as it came, secret and all: for the fault that repeats it.
    fn whole(&self) -> String {
        format!(
            "{} {}?{} {}",
            self.method,
            self.path,
            self.query,
            String::from_utf8_lossy(&self.body)
        )
    }
}

impl Asked {
    /// Whose words a refusal takes.
    fn api(&self) -> Api {
        match self {
            Asked::Token => Api::Token,
            Asked::StableToken(_) => Api::StableToken,
            Asked::WorkToken | Asked::Ticket(_, true) => Api::Work,
            Asked::DomainIp | Asked::CallbackIp | Asked::Ticket(_, false) | Asked::Nothing => {
                Api::DomainIp
            }
        }
    }
}

impl StableRequest {
    /// What was not sent is empty; a body that is no such request is the errcode for it.
    fn parse(body: &[u8]) -> Result<StableRequest, i64> {
        if body.is_empty() {
            return Err(44002);
        }
        let Ok(Value::Object(body)) = serde_json::from_slice(body) else { return Err(47001) };
        let text = |name| match body.get(name) {
            None => Ok(String::new()),
            Some(value) => value.as_str().map(str::to_owned).ok_or(47001),
        };
        let forced = body.get("force_refresh").map_or(Some(false), Value::as_bool).ok_or(47001)?;
        Ok(StableRequest {
            appid: text("appid")?,
            grant_type: text("grant_type")?,
            secret: text("secret")?,
            forced,
        })
    }

    fn credentials(&self) -> Credentials<'_> {
        Credentials { appid: &self.appid, grant_type: &self.grant_type, secret: &self.secret }
    }
}

impl From<Grant> for Right {
    /// Success has no errcode here.
    fn from(grant: Grant) -> Right {
        Right::Object(Map::from_iter([
            ("access_token".to_owned(), json!(grant.token.expose())),
            ("expires_in".to_owned(), json!(grant.expires_in_secs)),
        ]))
    }
}

impl Right {
    fn of_ticket(grant: &Grant) -> Right {
        Right::Object(Map::from_iter([
            ("ticket".to_owned(), json!(grant.token.expose())),
            ("expires_in".to_owned(), json!(grant.expires_in_secs)),
        ]))
    }
}

/// The answer to a call that used a token: WeCom has a list in its refusals too, an empty one.
fn used(honoured: Result<(), Refusal>, is_of_work: bool) -> Right {
    let list = |addresses: &[&str]| ("ip_list".to_owned(), json!(addresses));
    match honoured {
        Ok(()) => {
            let right = Right::Object(Map::from_iter([list(&addresses())]));
            if is_of_work { right.with_errcode_0() } else { right }
        }
        Err(refusal) => {
            let mut right = Right::from(refusal);
            if let (true, Right::Object(object)) = (is_of_work, &mut right) {
                object.extend([list(&[])]);
            }
            right
        }
    }
}

/// WeChat's own, some of them.
fn addresses() -> [&'static str; 3] {
    ["101.91.34.103", "101.226.103.61", "180.163.15.149"]
}

fn described_entry(entry: &Entry) -> Value {
    json!({ "fault": entry.form(), "example": entry.example(), "about": entry.about })
}

fn told(fault: Option<Fault>) -> String {
    fault.map_or("none\n".to_owned(), |fault| format!("{fault}\n"))
}

/// An answer's status, and its errcode or the token's fingerprint, for the log; never its text, which can repeat the
/// secret.
fn described(answer: &Answer) -> String {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let mut line = answer.status.to_string();
    if let Some(errcode) = body.get("errcode").and_then(Value::as_i64) {
        line += &format!(" errcode {errcode}");
    }
    if let Some(token) = body.get("access_token").and_then(Value::as_str) {
        let token = Secret::new(token.to_owned());
        line += &format!(
            " token {} for {} s",
            token.fingerprint(),
            body.get("expires_in").unwrap_or(&Value::Null)
        );
    }
    line
}

/// What WeCom repeats in the head of an answer.
fn error_headers(body: &[u8]) -> HeaderMap {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = match &body["errmsg"] {
        Value::String(text) => text.as_str(),
        _ => return HeaderMap::new(),
    };
    let repeated = [("error-code", body["errcode"].to_string()), ("error-msg", text.to_owned())];
    let headers = repeated.into_iter().filter_map(|(name, value)| {
        // What no header can hold is left out.
        Some((HeaderName::from_static(name), HeaderValue::try_from(value).ok()?))
    });
    headers.collect()
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(answer.body));
    if let Ok(status) = answer.status.try_into() {
        *response.status_mut() = status;
    }
    let headers = response.headers_mut();
    for (name, value) in [(CONTENT_TYPE, answer.content_type), (LOCATION, answer.location)] {
        if let Some(value) = value {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    if answer.status == 413 {
        // The rest of the body is not read: nothing more can be understood on this connection.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// `%41` and `+` as browsers mean them; what is no such escape stays as it is.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escaped = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        let escaped = escaped.filter(|hex| hex.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match (byte, escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(plain)) => {
                out.push(plain);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(*byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_browsers_write_it() {
        let call = Call {
            method: Method::GET,
            path: String::new(),
            query: "a=1&b=x%2By+z&c&%64=4&e=100%&f=%+1&a=2".to_owned(),
            body: Bytes::new(),
            has_length: false,
        };
        let [a, b, c, d, e, f, none] =
            ["a", "b", "c", "d", "e", "f", "none"].map(|name| call.parameter(name));
        assert_eq!([a, b, c, d, e, f, none], ["1", "x+y z", "", "4", "100%", "% 1", ""]);
    }

    #[test]
    fn a_body_that_is_no_request_has_its_errcode() {
        let code = |body: &[u8]| StableRequest::parse(body).map(|_| ()).unwrap_err();
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
        let request =
            StableRequest::parse(br#"{"appid":"a","secret":"s","force_refresh":true,"more":[]}"#);
        assert!(request.is_ok_and(|request| request.forced && request.grant_type.is_empty()));
    }
}
