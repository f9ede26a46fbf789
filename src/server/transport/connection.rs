//! The life of one connection: TLS handshake, requests by hyper, timeouts, and the close. The routes decide what a
//! request gets, and `accept` which peers get here.

use std::cell::{Cell, OnceCell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http_body_util::Either;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::Transport;
use super::progress::RequestProgress;
use super::socket::Stream;
use super::tls::{self, ClientCertificate};
use super::tracked::{BufferedStream, TrackedAnswer, TrackedBody, TrackedStream};
use crate::log::{self, Level, info};
use crate::server::access::peer::ConnectionInfo;
use crate::server::access::token_loop::LoopCounter;
use crate::server::limits::{
    LINGERING_TIMEOUT, MAX_HEAD, MAX_KEPT_PARSERS, MAX_LINGERING, REQUEST_TIMEOUT,
};
use crate::server::routes::handler::{self, ArrivedRequest, Handled};
use crate::server::routes::rejection::{Rejection, text};
use crate::server::routes::response::{self, Reply};
use crate::server::routes::{
    Route, UNKNOWN_ROUTE, begins_for_sdks, is_for_sdks, printable_path, without_extra_slashes,
};
use crate::server::state::slots::ConnectionSlot;

/// How many bytes of a request are read before it has a parser: the whole request of an SDK.
const READ_AHEAD: usize = 2 * 1024;

/// How many bytes are looked at before a handshake: enough for the path of plain HTTP.
const PEEKED: usize = 48;

/// How many characters of a method a log line shows: more than any standard method has.
const LONGEST_METHOD_SHOWN: usize = 10;

/// What is needed for as long as a connection lasts.
struct Connection {
    info: ConnectionInfo,
    transport: Rc<Transport>,
    /// Present if clients need a certificate. It shares the stream, which is dropped before the slot.
    certificate: OnceCell<Box<ClientCertificate>>,
    slot: ConnectionSlot,
    progress: Rc<RequestProgress>,
    /// What was handed out on it.
    loops: RefCell<LoopCounter>,
    /// Whether SDKs expect an `errcode` in the answer to the last request, as far as it has arrived.
    is_for_sdks: Cell<bool>,
}

/// Why a connection ends.
enum ConnectionEnd {
    /// The client closed it, or the server may close it now.
    Finished,
    /// What arrived was not HTTP, or too large.
    Rejected(Rejection),
    /// The client took too long.
    TimedOut,
}

/// Serves a connection until the client or the server closes it.
pub(crate) async fn serve(
    stream: Stream,
    info: ConnectionInfo,
    transport: Rc<Transport>,
    slot: ConnectionSlot,
) {
    let now = Instant::now();
    let progress = Rc::new(RequestProgress::new(now));
    let connection = Rc::new(Connection {
        info,
        transport,
        certificate: OnceCell::new(),
        slot,
        progress,
        loops: RefCell::default(),
        is_for_sdks: Cell::default(),
    });
    let mut life = pin!(async {
        let mut timer = pin!(sleep_until(now + REQUEST_TIMEOUT));
        // Boxed, so that the memory that a handshake takes is free afterwards.
        let Some(stream) = Box::pin(connection.handshake(stream, timer.as_mut())).await else {
            return;
        };
        let mut buffered = BufferedStream { stream, read_ahead: Bytes::new() };
        let end = loop {
            if let Some(end) = connection.next_request(&mut buffered, timer.as_mut()).await {
                break end;
            }
            // Boxed, so that an idle connection has no memory reserved for a request.
            let (end, after) =
                Box::pin(answer_requests(buffered, &connection, timer.as_mut())).await;
            buffered = after;
            if let Some(end) = end {
                break end;
            }
        };
        connection.close(buffered.stream, end).await;
    });
    let settled = pin!(poll_fn(|cx| {
        let polled = life.as_mut().poll(cx);
        if polled.is_pending() {
            connection.slot.settle(connection.progress.standing(), Instant::now);
        }
        polled
    }));
    connection.slot.run_until_evicted(settled).await;
}

/// Closes a connection whose peer was sent a refusal, so that the peer can read it.
pub(crate) async fn turn_away(stream: Stream, slot: ConnectionSlot) {
    slot.run_until_evicted(pin!(lingering_close(stream, None))).await;
}

impl Connection {
    /// Returns the stream that carries HTTP: over TCP with TLS, the one after the handshake. Returns `None` if the
    /// connection has ended.
    async fn handshake(&self, stream: Stream, mut timer: Pin<&mut Sleep>) -> Option<Stream> {
        let (socket, tls) = match (stream, &self.transport.tls) {
            (Stream::Tcp(socket), Some(tls)) => (socket, tls),
            (stream, _) => return Some(stream),
        };
        let mut first = [0; PEEKED];
        let peek = |cx: &mut Context<'_>| socket.poll_peek(cx, &mut ReadBuf::new(&mut first));
        let peeked = self.in_time(timer.as_mut(), peek).await.ok()?.ok()?;
        let first = &first[..peeked];
        if first.first().is_some_and(|byte| *byte != tls::HANDSHAKE_RECORD) {
            self.is_for_sdks.set(begins_for_sdks(first));
            let end = ConnectionEnd::Rejected(Rejection::BadRequest(text::SPEAKS_HTTPS));
            self.close(Stream::Tcp(socket), end).await;
            return None;
        }
        self.progress.begin_handshake();
        let mut handshake = pin!(tls.accept(socket));
        match self.in_time(timer, |cx| handshake.as_mut().poll(cx)).await.ok()? {
            Ok(stream) => {
                self.progress.end_handshake();
                if let Some(certificate) = tls.client_certificate(&stream) {
                    let _ = self.certificate.set(Box::new(certificate)); // There is one handshake.
                }
                Some(Stream::Tls(stream))
            }
            Err((err, socket)) => {
                if let Some((kind, why)) = tls::describe_failure(&err) {
                    self.transport.state.counters.refused("handshake");
                    let (now, peer) = (Instant::now(), self.info.peer);
                    self.transport.state.log.failed_handshake(now, kind, peer, why);
                }
                // A client that sent its request right behind the handshake can still read the alert.
                self.progress.set_has_unread(true);
                self.close(Stream::Tcp(socket), ConnectionEnd::Finished).await;
                None
            }
        }
    }

    /// Polls until the result is ready. Fails if the connection times out before, or if the server is shutting down.
    async fn in_time<T>(
        &self,
        mut timer: Pin<&mut Sleep>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Result<T, ConnectionEnd> {
        poll_fn(|cx| {
            if let Poll::Ready(ready) = poll(cx) {
                return Poll::Ready(Ok(ready));
            }
            if self.transport.state.connections.is_draining() {
                return Poll::Ready(Err(ConnectionEnd::Finished));
            }
            let timeout = self.progress.poll_timeout(timer.as_mut(), cx);
            timeout.map(|()| Err(ConnectionEnd::TimedOut))
        })
        .await
    }

    /// Waits until the next request begins. Returns how the connection ends, if it ends before.
    async fn next_request(
        &self,
        buffered: &mut BufferedStream,
        timer: Pin<&mut Sleep>,
    ) -> Option<ConnectionEnd> {
        let begun = self.in_time(timer, |cx| {
            if !buffered.read_ahead.is_empty() {
                return Poll::Ready(None);
            }
            // tokio reports a stream as readable until a read has failed, so there is no way but to read.
            let mut bytes = [MaybeUninit::uninit(); READ_AHEAD];
            let mut buf = ReadBuf::uninit(&mut bytes);
            let read = ready!(Pin::new(&mut buffered.stream).poll_read(cx, &mut buf));
            if read.is_err() || buf.filled().is_empty() {
                return Poll::Ready(Some(ConnectionEnd::Finished));
            }
            self.progress.received_bytes();
            buffered.read_ahead = Bytes::copy_from_slice(buf.filled());
            self.is_for_sdks.set(begins_for_sdks(&buffered.read_ahead));
            Poll::Ready(None)
        });
        begun.await.unwrap_or_else(Some)
    }

    /// Writes a last answer if one is due, and closes the connection.
    async fn close(&self, stream: Stream, end: ConnectionEnd) {
        let rejection = match end {
            ConnectionEnd::Finished => None,
            ConnectionEnd::Rejected(rejection) => Some(rejection),
            // Without a request there is nothing to answer.
            ConnectionEnd::TimedOut => {
                (!self.progress.is_between_requests()).then_some(Rejection::RequestTimeout)
            }
        };
        // Another answer cannot follow half of one.
        let rejection = rejection.filter(|_| !self.progress.is_writing());
        if let Some(rejection) = &rejection {
            let counters = &self.transport.state.counters;
            counters.answered(UNKNOWN_ROUTE, rejection.status());
            counters.refused(rejection.code());
            let (status, client) = (rejection.status().as_u16(), self.info.peer);
            info!(
                event = "no_request", status = status, address = client;
                "serve: (no request) {status} {client}"
            );
        }
        if rejection.is_some() || self.progress.has_unread() {
            self.slot.mark_leaving();
            let last_answer = rejection.map(|rejection| {
                let sdk = self.is_for_sdks.get().then_some(self.info.peer);
                response::refuse_in_bytes(&rejection, sdk)
            });
            lingering_close(stream, last_answer.as_deref()).await;
        }
    }
}

/// Reads and answers requests until none is under way. Returns the stream, with how the connection ends if it does.
async fn answer_requests(
    buffered: BufferedStream,
    connection: &Rc<Connection>,
    mut timer: Pin<&mut Sleep>,
) -> (Option<ConnectionEnd>, BufferedStream) {
    let handover = Handover::default();
    let service = service_fn(|request| {
        handover.request.set(Some(request));
        AwaitedResponse(&handover)
    });
    // Here, and not in the future of the service: hyper wants one that can be moved, and each request would need a box for it.
    let mut answering = pin!(None);
    let Connection { transport, progress, .. } = &**connection;
    let _counted = CountedParser::new(transport);
    let tracked = TrackedStream { buffered, progress: Rc::clone(progress) };
    let mut http = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(tracked), service);
    let end = poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = http.poll_without_shutdown(cx) {
                return Poll::Ready(Some(result.map_or_else(end_by, |()| ConnectionEnd::Finished)));
            }
            if let Some(request) = handover.request.take() {
                answering.set(Some(answer(request, connection)));
            }
            let Some(future) = answering.as_mut().as_pin_mut() else { break };
            let Poll::Ready(response) = future.poll(cx) else { break };
            answering.set(None);
            handover.response.set(Some(response));
        }
        let is_over = progress.has_ended() || transport.state.connections.is_draining();
        if progress.is_between_requests() && is_over {
            return Poll::Ready(Some(ConnectionEnd::Finished));
        }
        if !progress.is_resting() {
            return progress
                .poll_timeout(timer.as_mut(), cx)
                .map(|()| Some(ConnectionEnd::TimedOut));
        }
        if progress.has_unread() {
            // These bytes belong to the body of the last request, so that no other can follow.
            return Poll::Ready(Some(ConnectionEnd::Finished));
        }
        if transport.parsers.get() <= MAX_KEPT_PARSERS {
            ready!(progress.poll_timeout(timer.as_mut(), cx));
        }
        progress.end_rest();
        Poll::Ready(None)
    })
    .await;
    let http = http.into_parts();
    if progress.is_reading_head() {
        connection.is_for_sdks.set(begins_for_sdks(&http.read_buf));
    }
    let mut buffered = http.io.into_inner().buffered;
    if end.is_none() && !http.read_buf.is_empty() {
        progress.received_bytes();
        buffered.read_ahead = http.read_buf;
    }
    (end, buffered)
}

/// A request on its way from hyper to the task of its connection, and the response on its way back.
#[derive(Default)]
struct Handover {
    request: Cell<Option<Request<Incoming>>>,
    response: Cell<Option<Response<TrackedAnswer>>>,
}

/// The response, once there is one. hyper is polled again when there is, so that nothing has to wake it.
struct AwaitedResponse<'a>(&'a Handover);

impl Future for AwaitedResponse<'_> {
    type Output = Result<Response<TrackedAnswer>, Infallible>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.response.take().map_or(Poll::Pending, |response| Poll::Ready(Ok(response)))
    }
}

/// A parser, which counts as one until this is dropped.
struct CountedParser<'a>(&'a Cell<usize>);

impl CountedParser<'_> {
    fn new(transport: &Transport) -> CountedParser<'_> {
        transport.parsers.set(transport.parsers.get() + 1);
        CountedParser(&transport.parsers)
    }
}

impl Drop for CountedParser<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Returns how a connection ends by this error of hyper's.
fn end_by(err: hyper::Error) -> ConnectionEnd {
    if err.is_parse_too_large() {
        ConnectionEnd::Rejected(Rejection::HeadTooLarge)
    } else if err.is_parse() {
        ConnectionEnd::Rejected(Rejection::BadRequest(text::NOT_HTTP))
    } else {
        ConnectionEnd::Finished
    }
}

/// Answers one request.
async fn answer(request: Request<Incoming>, connection: &Connection) -> Response<TrackedAnswer> {
    let Connection { info, transport, slot, progress, .. } = connection;
    let Transport { state, gateway, .. } = &**transport;
    let asked_at = Instant::now();
    let (head, body) = request.into_parts();
    let snapshot = state.snapshot.get();
    let path = without_extra_slashes(head.uri.path());
    let route = Route::of(&path, snapshot.api_servers.is_some());
    let is_forwarded = matches!(route, Ok(Route::Api));
    let request_began = progress.begin_answer(is_forwarded, asked_at);
    // In case that the body does not arrive.
    connection.is_for_sdks.set(is_for_sdks(head.uri.path()));
    let mut body = TrackedBody { body, progress, request_began, is_forwarded, has_ended: false };
    // The end of a body that is not read, and so the beginning of the next request, is unknown.
    let has_body = !body.is_end_stream();
    progress.set_has_unread(has_body);
    let certificate = connection.certificate.get();
    let certificate = certificate.map_or(Ok(()), |it| it.judge(state.clock.now().wall));
    let request = ArrivedRequest {
        head: &head,
        route,
        snapshot: &snapshot,
        connection: *info,
        certificate,
        loops: &connection.loops,
    };
    let Handled { client, is_for_sdks, key, answer } =
        handler::handle(request, &mut body, state, gateway).await;
    connection.is_for_sdks.set(is_for_sdks);
    let closes = answer.as_ref().map_or_else(Rejection::closes, Reply::closes);
    progress.set_has_unread(closes || (has_body && !body.is_end_stream()));
    let languages = head.headers.get(header::ACCEPT_LANGUAGE);
    let mut response = match answer {
        Ok(reply) => reply.into_response(languages),
        Err(rejection) => {
            let sdk = is_for_sdks.then_some(client);
            response::refuse(&rejection, sdk, languages).map(Either::Left)
        }
    };
    if progress.has_unread() || state.connections.is_draining() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let answered_at = Instant::now();
    slot.mark_answered(answered_at);
    let (head_of_response, answer_body) = response.into_parts();
    let has_body = head.method != Method::HEAD
        && !matches!(head_of_response.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let answer_body = TrackedAnswer::begin(answer_body, has_body, progress, answered_at);
    let response = Response::from_parts(head_of_response, answer_body);
    if log::is_enabled(Level::Info) {
        let method = log::printable(head.method.as_str(), LONGEST_METHOD_SHOWN);
        let (path, status) = (printable_path(head.uri.path()), response.status().as_u16());
        let took = (answered_at - asked_at).as_micros();
        let key = key.map_or_else(String::new, |name| format!(" {name}"));
        info!(
            event = "request", method = method, path = path, status = status, address = client, microseconds = took;
            "serve: {method} {path} {status} {client} {took}us{key}"
        );
    }
    response
}

/// Writes a last answer, closes the server's side, and gives the client some time to read the answer and to close its
/// side. nginx calls this a lingering close.
async fn lingering_close(mut stream: Stream, last_answer: Option<&[u8]>) {
    // After an error or the timeout the connection is dropped, as it is after success.
    let _ = timeout(LINGERING_TIMEOUT, async {
        if let Some(bytes) = last_answer {
            stream.write_all(bytes).await?;
        }
        stream.shutdown().await?;
        let mut discarded = 0;
        while discarded < MAX_LINGERING {
            match discard(&mut stream).await? {
                0 => break,
                n => discarded += n,
            }
        }
        io::Result::Ok(())
    })
    .await;
}

/// Reads once, and drops what was read. The buffer is not part of the future, of which there may be ten thousand.
async fn discard(stream: &mut Stream) -> io::Result<usize> {
    poll_fn(|cx| {
        let mut bytes = [MaybeUninit::uninit(); 16 * 1024];
        let mut buf = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut buf))?;
        Poll::Ready(Ok(buf.filled().len()))
    })
    .await
}
