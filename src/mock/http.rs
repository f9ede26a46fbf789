//! The stand-in's HTTP server: connections, the fault that is switched on, call counters and the control routes `/mock/…`.
//! Binds to what it is given and speaks no TLS; `routes` decides the answers.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use time::UtcDateTime;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::effect::{Effect, MockAnswer, alter, replacement};
use super::errmsg::Wording;
use super::fault::{CallGroup, FAULTS, FaultEntry, FaultKind, MockFault};
use super::routes::{ApiCall, MockRequest, UPLOAD};
use super::rules::MockWeChat;
use super::wire::WireAction;
use crate::language::Language;
use crate::log;
use crate::model::secret::Secret;
use crate::os::clock::Clock;

/// Bounds in bytes on a request, well above any valid one.
const MAX_HEAD: usize = 64 * 1024;
const MAX_BODY: usize = 64 * 1024;
/// For the head to arrive, and between two requests on one connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_CONNECTIONS: usize = 1024;
/// Pause after a failed `accept`. It fails when descriptors have run out, and an immediate retry would only burn CPU.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// A running stand-in: the rules' state, the fault that is switched on, and the counters.
pub(crate) struct MockServer {
    wechat: RefCell<MockWeChat>,
    fault: Cell<Option<MockFault>>,
    counts: Cell<CallCounts>,
    clock: EpochClock,
}

/// Calls that arrived, whatever their outcome.
#[derive(Clone, Copy, Default)]
struct CallCounts {
    token: u64,
    /// Includes the forced ones.
    stable_token: u64,
    forced: u64,
    gettoken: u64,
    get_api_domain_ip: u64,
    getcallbackip: u64,
    /// All routes for tickets.
    tickets: u64,
    /// Messages, uploads and downloads.
    api: u64,
    /// Unknown routes, without `/mock/…`.
    other: u64,
}

/// Time since the Unix epoch that never goes backwards: the wall clock at the start, and the monotonic clock from then on.
pub(crate) struct EpochClock {
    clock: Box<dyn Clock>,
    started: Instant,
    started_at: Duration,
}

impl EpochClock {
    pub(crate) fn new(clock: impl Clock + 'static) -> EpochClock {
        let since_epoch = clock.now().wall - UtcDateTime::UNIX_EPOCH;
        EpochClock {
            started: clock.instant(),
            started_at: since_epoch.try_into().unwrap_or_default(),
            clock: Box::new(clock),
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.started_at + self.clock.instant().duration_since(self.started)
    }
}

impl MockServer {
    pub(crate) fn new(
        wechat: MockWeChat,
        fault: Option<MockFault>,
        clock: EpochClock,
    ) -> MockServer {
        MockServer {
            wechat: RefCell::new(wechat),
            fault: Cell::new(fault),
            counts: Cell::default(),
            clock,
        }
    }

    /// Serves connections until dropped. Must run in a `LocalSet`.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let server = Rc::new(self);
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        // Acquiring fails only if the semaphore is closed, which it never is.
        while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let server = Rc::clone(&server);
                    spawn_local(async move {
                        server.serve_connection(stream).await;
                        drop(slot);
                    });
                }
                Err(err) => {
                    log::error!("mock: cannot accept a connection: {err}");
                    sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    }

    /// Serves HTTP on a connection until the peer closes it or a fault takes over the socket.
    async fn serve_connection(&self, stream: TcpStream) {
        let _ = stream.set_nodelay(true); // Affects speed only.
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE_TIMEOUT)
            .max_header_size(MAX_HEAD)
            .serve_connection(
                TokioIo::new(stream),
                service_fn(|request| Box::pin(self.respond(request))),
            );
        let action = match poll_fn(|cx| connection.poll_without_shutdown(cx)).await {
            Ok(()) => None,
            Err(err) => std::error::Error::source(&err)
                .and_then(|source| source.downcast_ref::<WireAction>())
                .cloned(),
        };
        // Without a fault the peer has closed the connection, or sent no HTTP and got its 400.
        let action = action.unwrap_or(WireAction::Bytes(Bytes::new()));
        action.run(connection.into_parts().io.into_inner()).await;
    }

    async fn respond(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, WireAction> {
        let (head, body) = request.into_parts();
        let body = match head.uri.path() {
            UPLOAD => discarded(body).await,
            _ => Limited::new(body, MAX_BODY).collect().await.map(|body| body.to_bytes()),
        };
        let body = match body {
            Ok(body) => body,
            Err(err) if err.is::<LengthLimitError>() => {
                return Ok(response(MockAnswer::empty(413)));
            }
            Err(_) => return Err(WireAction::Bytes(Bytes::new())), // The peer is gone.
        };
        let request = MockRequest {
            method: head.method,
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            body,
            has_content_length: head.headers.contains_key(CONTENT_LENGTH),
        };
        if let Some(route) = request.path.strip_prefix("/mock/") {
            return Ok(response(self.control(route, &request)));
        }
        let call = request.api_call();
        let effect = self.effect(&request, &call).await;
        // The path alone: the query contains the secret.
        let path = log::printable(&request.path, 100);
        match effect {
            Effect::Http(answer) => {
                log::info!("mock: {} {path}: {}", request.method, summary(&answer));
                let error_headers = match call.wording() {
                    Wording::WeCom => error_headers(&answer.body),
                    _ => HeaderMap::new(),
                };
                let mut response = response(answer);
                response.headers_mut().extend(error_headers);
                Ok(response)
            }
            Effect::Wire(action) => {
                log::info!("mock: {} {path}: {action}", request.method);
                Err(action)
            }
        }
    }

    /// Counts the call, answers it by the rules and applies the fault. Faults apply to WeChat's routes only.
    async fn effect(&self, request: &MockRequest, call: &ApiCall) -> Effect {
        self.count(call);
        let now = self.clock.now();
        let answer = || call.answer(request, &mut self.wechat.borrow_mut(), now);
        let is_wechats = request.path.starts_with("/cgi-bin/");
        let fault = if is_wechats { self.take_fault(call.group()) } else { None };
        let Some(fault) = fault else { return Effect::Http(answer().into()) };

        let refuse = |errcode| self.wechat.borrow_mut().refusal(errcode, call.wording(), now);
        if let Some(effect) = replacement(fault, &request.to_text(), refuse) {
            return effect;
        }
        let correct = answer();
        if fault.kind == FaultKind::Slow {
            sleep(Duration::from_secs(fault.number.unsigned_abs())).await;
        }
        alter(fault, correct)
    }

    /// Returns the fault that is switched on, if it applies to a call of this group, and counts the call then.
    fn take_fault(&self, group: Option<CallGroup>) -> Option<MockFault> {
        let fault = self.fault.get().filter(|fault| fault.applies_to(group))?;
        self.fault.set(fault.after_one_call());
        Some(fault)
    }

    fn count(&self, call: &ApiCall) {
        let mut counts = self.counts.get();
        match call {
            ApiCall::ClassicToken => counts.token += 1,
            ApiCall::StableToken(body) => {
                counts.stable_token += 1;
                counts.forced += u64::from(body.as_ref().is_ok_and(|body| body.forced));
            }
            ApiCall::WeComToken => counts.gettoken += 1,
            ApiCall::DomainIp => counts.get_api_domain_ip += 1,
            ApiCall::CallbackIp => counts.getcallbackip += 1,
            ApiCall::Ticket { .. } => counts.tickets += 1,
            ApiCall::Message | ApiCall::Upload | ApiCall::Download => counts.api += 1,
            ApiCall::Unknown => counts.other += 1,
        }
        self.counts.set(counts);
    }

    /// The routes under `/mock/`, for tests and people. They are not WeChat's, so no fault applies and nothing is counted.
    fn control(&self, route: &str, request: &MockRequest) -> MockAnswer {
        match (route, &request.method) {
            ("calls", &Method::GET) => {
                let counts = self.counts.get();
                MockAnswer::json(&json!({
                    "token": counts.token,
                    "stable_token": counts.stable_token,
                    "forced": counts.forced,
                    "gettoken": counts.gettoken,
                    "get_api_domain_ip": counts.get_api_domain_ip,
                    "getcallbackip": counts.getcallbackip,
                    "tickets": counts.tickets,
                    "api": counts.api,
                    "other": counts.other,
                    "mints": self.wechat.borrow().mints(),
                }))
            }
            ("faults", &Method::GET) => {
                MockAnswer::json(&FAULTS.iter().map(fault_description).collect())
            }
            ("fault", &Method::GET) => MockAnswer::text(200, fault_line(self.fault.get())),
            ("fault", &Method::POST) => {
                match MockFault::parse_or_none(String::from_utf8_lossy(&request.body).trim()) {
                    Ok(fault) => {
                        self.fault.set(fault);
                        MockAnswer::text(200, fault_line(fault))
                    }
                    Err(why) => {
                        let why = Language::English.resolve(&why);
                        MockAnswer::text(400, format!("{why}\n"))
                    }
                }
            }
            ("kill", &Method::POST) => {
                let revoked = self.wechat.borrow_mut().revoke_all(self.clock.now());
                MockAnswer::json(&json!({ "killed": revoked }))
            }
            ("calls" | "faults" | "fault" | "kill", _) => {
                MockAnswer::text(405, "wrong method\n".to_owned())
            }
            _ => MockAnswer::text(
                404,
                "there are calls, fault, faults and kill under /mock/\n".to_owned(),
            ),
        }
    }
}

/// Reads a body to its end, of any size, and keeps nothing of it.
async fn discarded(mut body: Incoming) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(Bytes::new())
}

fn fault_description(entry: &FaultEntry) -> Value {
    json!({ "fault": entry.form(), "example": entry.example(), "about": entry.about })
}

fn fault_line(fault: Option<MockFault>) -> String {
    fault.map_or("none\n".to_owned(), |fault| format!("{fault}\n"))
}

/// Returns an answer's status, errcode and the token's fingerprint, for the log. Not its text, which can contain the secret.
fn summary(answer: &MockAnswer) -> String {
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

/// Returns the headers in which WeCom repeats errcode and errmsg.
fn error_headers(body: &[u8]) -> HeaderMap {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = match &body["errmsg"] {
        Value::String(text) => text.as_str(),
        _ => return HeaderMap::new(),
    };
    let repeated = [("error-code", body["errcode"].to_string()), ("error-msg", text.to_owned())];
    let headers = repeated.into_iter().filter_map(|(name, value)| {
        // Left out if the value is not valid in a header.
        Some((HeaderName::from_static(name), HeaderValue::try_from(value).ok()?))
    });
    headers.collect()
}

fn response(answer: MockAnswer) -> Response<Full<Bytes>> {
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
        // The rest of the body stays unread, so the connection cannot carry another request.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
