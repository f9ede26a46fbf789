//! The life of one connection: TLS handshake, requests, timeouts, and the close. The routes decide what a request gets, and
//! `accept` which peers get here.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::body::Bytes;
use rustix::io::Errno;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::Transport;
use super::accepted::AcceptedStream;
use super::closing::lingering_close;
use super::parsing::answer_requests;
use super::progress::RequestProgress;
use super::repeated::{LastRequest, ParsedRequest};
use super::socket::Stream;
use super::tls::{self, ClientCertificate, Tls};
use super::tracked::BufferedStream;
use crate::log::info;
use crate::server::access::peer::ConnectionInfo;
use crate::server::access::token_loop::LoopCounter;
use crate::server::limits::REQUEST_TIMEOUT;
use crate::server::routes::rejection::{Rejection, text};
use crate::server::routes::response;
use crate::server::routes::{UNKNOWN_ROUTE, begins_for_sdks};
use crate::server::state::slots::ConnectionSlot;

/// How many bytes of a request are read before it has a parser: the whole request of an SDK.
const READ_AHEAD: usize = 2 * 1024;

/// How many bytes are looked at before a handshake: enough for the path of plain HTTP.
const PEEKED: usize = 48;

/// What is needed for as long as a connection lasts.
pub(super) struct Connection {
    pub(super) info: ConnectionInfo,
    pub(super) transport: Rc<Transport>,
    /// Present if clients need a certificate. It shares the stream, which is dropped before the slot.
    pub(super) certificate: OnceCell<Box<ClientCertificate>>,
    pub(super) slot: ConnectionSlot,
    pub(super) progress: Rc<RequestProgress>,
    /// What was handed out on it.
    pub(super) loops: RefCell<LoopCounter>,
    pub(super) last: LastRequest,
    /// Whether SDKs expect an `errcode` in the answer to the last request, as far as it has arrived.
    pub(super) is_for_sdks: Cell<bool>,
}

/// Why a connection ends.
pub(super) enum ConnectionEnd {
    /// The client closed it, or the server may close it now.
    Finished,
    /// What arrived was not HTTP, or too large.
    Rejected(Rejection),
    /// The client took too long.
    TimedOut,
}

/// What a connection gets next.
enum NextRequest {
    /// A request of the same bytes as one before.
    Again(Rc<ParsedRequest>),
    /// The beginning of a request, or all of it. It is read ahead.
    Begun,
    /// None: the connection ends.
    None(ConnectionEnd),
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
        last: LastRequest::default(),
        is_for_sdks: Cell::default(),
    });
    let mut life = pin!(async {
        let mut timer = pin!(sleep_until(now + REQUEST_TIMEOUT));
        let stream = match (stream, &connection.transport.tls) {
            // Boxed, so that the memory that a handshake takes is free afterwards.
            (Stream::Tcp(socket), Some(tls)) => {
                Box::pin(connection.handshake(socket, tls, timer.as_mut())).await
            }
            (stream, _) => Some(stream),
        };
        let Some(stream) = stream else { return };
        let mut buffered = BufferedStream { stream, read_ahead: Bytes::new() };
        let end = loop {
            // Boxed, so that an idle connection has no memory reserved for a request.
            let end = match connection.next_request(&mut buffered, timer.as_mut()).await {
                NextRequest::None(end) => Some(end),
                NextRequest::Again(request) => {
                    let stream = &mut buffered.stream;
                    Box::pin(connection.answer_again(stream, &request, timer.as_mut())).await
                }
                NextRequest::Begun => {
                    let (end, after) =
                        Box::pin(answer_requests(buffered, &connection, timer.as_mut())).await;
                    buffered = after;
                    end
                }
            };
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

impl Connection {
    /// Returns the stream after the handshake. Returns `None` if the connection has ended.
    async fn handshake(
        &self,
        socket: AcceptedStream,
        tls: &Tls,
        mut timer: Pin<&mut Sleep>,
    ) -> Option<Stream> {
        let registered = socket.into_registered();
        let socket = registered.inspect_err(|err| self.report_if_not_taken(err)).ok()?;
        let mut first = [0; PEEKED];
        let peek = |cx: &mut Context<'_>| socket.poll_peek(cx, &mut ReadBuf::new(&mut first));
        let peeked = self.in_time(timer.as_mut(), peek).await.ok()?.ok()?;
        let first = &first[..peeked];
        if first.first().is_some_and(|byte| *byte != tls::HANDSHAKE_RECORD) {
            self.is_for_sdks.set(begins_for_sdks(first));
            let end = ConnectionEnd::Rejected(Rejection::BadRequest(text::SPEAKS_HTTPS));
            self.close(Stream::Tcp(socket.into()), end).await;
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
                self.close(Stream::Tcp(socket.into()), ConnectionEnd::Finished).await;
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

    /// Waits until the next request begins.
    async fn next_request(
        &self,
        buffered: &mut BufferedStream,
        mut timer: Pin<&mut Sleep>,
    ) -> NextRequest {
        loop {
            let begun = self.in_time(timer.as_mut(), |cx| {
                if !buffered.read_ahead.is_empty() {
                    return Poll::Ready(NextRequest::Begun);
                }
                // tokio reports a stream as readable until a read has failed, so there is no way but to read.
                let mut bytes = [MaybeUninit::uninit(); READ_AHEAD];
                let mut buf = ReadBuf::uninit(&mut bytes);
                let read = ready!(Pin::new(&mut buffered.stream).poll_read(cx, &mut buf));
                let read = read.inspect_err(|err| self.report_if_not_taken(err));
                if read.is_err() || buf.filled().is_empty() {
                    return Poll::Ready(NextRequest::None(ConnectionEnd::Finished));
                }
                self.progress.received_bytes();
                if let Some(request) = self.last.find(buf.filled(), &self.transport.repeated) {
                    return Poll::Ready(NextRequest::Again(request));
                }
                buffered.read_ahead = Bytes::copy_from_slice(buf.filled());
                self.is_for_sdks.set(begins_for_sdks(&buffered.read_ahead));
                Poll::Ready(NextRequest::Begun)
            });
            match begun.await {
                Ok(next) => return next,
                Err(ConnectionEnd::TimedOut) if self.progress.is_resting() => {
                    self.last.forget();
                    self.progress.end_rest();
                }
                Err(end) => return NextRequest::None(end),
            }
        }
    }

    /// Reports that the event loop could not take the connection, if it is that: a user can have so many descriptors in event
    /// loops (`fs.epoll.max_user_watches`).
    fn report_if_not_taken(&self, err: &io::Error) {
        if let Some(Errno::NOSPC | Errno::NOMEM) = Errno::from_io_error(err) {
            self.transport.state.log.not_accepted(Instant::now(), err);
        }
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
