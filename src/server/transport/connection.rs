//! One connection from its first byte to its last: HTTP by hyper, and the time that a caller may take for each thing.
//! What a request asks for and who may connect is decided elsewhere.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::Transport;
use super::socket::Stream;
use super::tls;
use crate::log::{self, Level, info};
use crate::server::access::peer::ConnectionInfo;
use crate::server::limits::{
    ANSWER_TIMEOUT, IDLE_TIMEOUT, LINGERING_TIMEOUT, MAX_HEAD, MAX_LINGERING, REQUEST_TIMEOUT,
    RESPONSE_TIMEOUT,
};
use crate::server::routes::handler::{self, Answered};
use crate::server::routes::response::{Rejection, Reply};
use crate::server::routes::route;
use crate::server::state::slots::Slot;

/// How much of a request is read before there is a parser for it: all of an SDK's.
const READ_AHEAD: usize = 2 * 1024; // bytes

/// How much of a method is shown in a line: all of a real one.
const LONGEST_METHOD_SHOWN: usize = 10; // characters

/// What a caller is told who speaks HTTP where TLS is expected.
const SPEAKS_HTTPS: &str = "this port speaks https, and this was plain http; ask https://… here";

/// What is under way on a connection, and since when.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Connected, not a byte yet.
    New(Instant),
    /// Some of a request is here.
    Reading(Instant),
    /// Its head is here, and its body is waited for.
    Arriving(Instant),
    /// All that is needed of it is here, and what to answer is being found out.
    Answering(Instant),
    /// The answer is being written.
    Writing(Instant),
    /// Between requests.
    Idle(Instant),
}

/// What the parts of a connection, its stream, its service and its timer, tell each other.
struct ConnectionState {
    phase: Cell<Phase>,
    /// Something of the caller's may be unread when the connection ends.
    unread: Cell<bool>,
}

impl ConnectionState {
    fn new(now: Instant) -> ConnectionState {
        ConnectionState { phase: Cell::new(Phase::New(now)), unread: Cell::new(false) }
    }

    /// When it is enough.
    fn deadline(&self) -> Instant {
        match self.phase.get() {
            Phase::New(since) | Phase::Reading(since) | Phase::Arriving(since) => {
                since + REQUEST_TIMEOUT
            }
            Phase::Answering(since) => since + ANSWER_TIMEOUT,
            Phase::Writing(since) => since + RESPONSE_TIMEOUT,
            Phase::Idle(since) => since + IDLE_TIMEOUT,
        }
    }

    /// Whether no request is under way.
    fn is_waiting(&self) -> bool {
        matches!(self.phase.get(), Phase::New(_) | Phase::Idle(_))
    }

    fn is_writing(&self) -> bool {
        matches!(self.phase.get(), Phase::Writing(_))
    }

    /// Whether there is a request that hyper could parse, and its answer is not written yet.
    fn is_asked(&self) -> bool {
        matches!(self.phase.get(), Phase::Arriving(_) | Phase::Answering(_) | Phase::Writing(_))
    }

    fn received_something(&self) {
        match self.phase.get() {
            Phase::New(since) => self.phase.set(Phase::Reading(since)),
            Phase::Idle(_) => self.phase.set(Phase::Reading(Instant::now())),
            Phase::Reading(_) | Phase::Arriving(_) | Phase::Answering(_) | Phase::Writing(_) => {}
        }
    }

    fn sent_everything(&self) {
        if let Phase::Writing(since) = self.phase.get() {
            self.phase.set(Phase::Idle(since));
        }
    }
}

/// What is known of a connection for as long as it lasts.
struct Connection {
    info: ConnectionInfo,
    transport: Rc<Transport>,
    slot: Slot,
    state: ConnectionState,
}

/// A connection's stream while no request is under way: no parser, no buffers.
struct Parked {
    stream: Stream,
    /// What has been read of the next request, if it has begun after all.
    ahead: Bytes,
}

/// The stream as hyper sees it: the state follows what is read and written.
struct Tracked {
    parked: Parked,
    connection: Rc<Connection>,
}

impl AsyncRead for Tracked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let ahead = &mut self.parked.ahead;
        if !ahead.is_empty() {
            let length = buf.remaining().min(ahead.len());
            buf.put_slice(&ahead.split_to(length));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.parked.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.connection.state.received_something();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tracked {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.connection.state.is_asked() {
            // Ours, or hyper's own 100 (Continue) to somebody who waits for it with his body.
            Pin::new(&mut self.parked.stream).poll_write(cx, buf)
        } else {
            // No answer of ours is due, so this is hyper's own to what it could not parse: a bare status. It is kept
            // back, and what callers can rely on is written when hyper has ended.
            Poll::Ready(Ok(buf.len()))
        }
    }

    /// hyper comes here when it has no more to write.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.parked.stream).poll_flush(cx))?;
        self.connection.state.sent_everything();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.parked.stream).poll_shutdown(cx)
    }
}

/// A request's body as the route sees it: the state follows whether it is waited for. A body that no route reads is not.
struct Arriving<'a> {
    body: Incoming,
    state: &'a ConnectionState,
    /// When the request began to arrive.
    since: Instant,
}

impl Body for Arriving<'_> {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.state.phase.set(match polled {
            Poll::Pending => Phase::Arriving(self.since),
            Poll::Ready(_) => Phase::Answering(Instant::now()),
        });
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How HTTP ended on a connection.
enum End {
    /// As it should, or by the caller's going away.
    Done,
    /// What came was not HTTP, or too much.
    Unparsed(Rejection),
    /// The caller took too long.
    TimedOut,
}

/// Serves one caller until either side has had enough.
pub(crate) async fn serve(
    stream: Stream,
    info: ConnectionInfo,
    transport: Rc<Transport>,
    slot: Slot,
) {
    let now = Instant::now();
    let connection =
        Rc::new(Connection { info, transport, slot, state: ConnectionState::new(now) });
    let life = pin!(async {
        let mut timer = pin!(sleep_until(now + REQUEST_TIMEOUT));
        // Boxed, as what follows: what a handshake needs is needed only once.
        let Some(stream) = Box::pin(connection.open(stream, timer.as_mut())).await else { return };
        let mut parked = Parked { stream, ahead: Bytes::new() };
        let end = loop {
            if let Some(end) = connection.next_request(&mut parked, timer.as_mut()).await {
                break end;
            }
            // Boxed, so that the idle ones do not keep room for what a request needs.
            let (end, after) = Box::pin(answer_requests(parked, &connection, timer.as_mut())).await;
            parked = after;
            if let Some(end) = end {
                break end;
            }
        };
        connection.close(parked.stream, end).await;
    });
    connection.slot.until_evicted(life).await;
}

/// Lets a caller that has been refused read why and hang up.
pub(crate) async fn turn_away(stream: Stream, slot: Slot) {
    slot.until_evicted(pin!(lingering_close(stream, None))).await;
}

impl Connection {
    /// The stream on which HTTP is spoken: where there is TLS, that after the handshake. `None` if the connection has
    /// ended meanwhile.
    async fn open(&self, stream: Stream, mut timer: Pin<&mut Sleep>) -> Option<Stream> {
        let (socket, tls) = match (stream, &self.transport.tls) {
            (Stream::Tcp(socket), Some(tls)) => (socket, tls),
            (stream, _) => return Some(stream),
        };
        let mut first = [0];
        let look = |cx: &mut Context<'_>| socket.poll_peek(cx, &mut ReadBuf::new(&mut first));
        let seen = self.in_time(timer.as_mut(), look).await.ok()?.ok()?;
        if seen > 0 && first != [tls::HANDSHAKE] {
            let end = End::Unparsed(Rejection::BadRequest(SPEAKS_HTTPS));
            self.close(Stream::Tcp(socket), end).await;
            return None;
        }
        let mut handshake = pin!(tls.get().accept(socket));
        match self.in_time(timer, |cx| handshake.as_mut().poll(cx)).await.ok()? {
            Ok(secured) => Some(Stream::Tls(Box::new(secured))),
            Err((err, socket)) => {
                if let Some(why) = tls::failure(&err) {
                    self.transport.shared.counters.refused("handshake");
                    self.transport.shared.log.no_handshake(self.info.peer, why);
                }
                // A client that has sent its request behind the handshake is to read the alert all the same.
                self.state.unread.set(true);
                self.close(Stream::Tcp(socket), End::Done).await;
                None
            }
        }
    }

    /// Polls until it is ready; an end, if the connection ends before.
    async fn in_time<T>(
        &self,
        mut timer: Pin<&mut Sleep>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Result<T, End> {
        poll_fn(|cx| {
            if let Poll::Ready(ready) = poll(cx) {
                return Poll::Ready(Ok(ready));
            }
            if self.transport.shared.connections.is_draining() {
                return Poll::Ready(Err(End::Done));
            }
            poll_deadline(timer.as_mut(), self.state.deadline(), cx).map(|()| Err(End::TimedOut))
        })
        .await
    }

    /// Waits for the next request to begin; an end, if the connection ends before.
    async fn next_request(&self, parked: &mut Parked, timer: Pin<&mut Sleep>) -> Option<End> {
        let begun = self.in_time(timer, |cx| {
            if !parked.ahead.is_empty() {
                return Poll::Ready(None);
            }
            // Read rather than asked for: a stream that nobody has tried yet says that it is ready.
            let mut bytes = [MaybeUninit::uninit(); READ_AHEAD];
            let mut buf = ReadBuf::uninit(&mut bytes);
            let read = ready!(Pin::new(&mut parked.stream).poll_read(cx, &mut buf));
            if read.is_err() || buf.filled().is_empty() {
                return Poll::Ready(Some(End::Done));
            }
            self.state.received_something();
            parked.ahead = Bytes::copy_from_slice(buf.filled());
            Poll::Ready(None)
        });
        begun.await.unwrap_or_else(Some)
    }

    /// Says what is still to be said, and closes.
    async fn close(&self, stream: Stream, end: End) {
        let rejection = match end {
            End::Done => None,
            End::Unparsed(rejection) => Some(rejection),
            // Whoever sent nothing did not ask anything.
            End::TimedOut => (!self.state.is_waiting()).then_some(Rejection::RequestTimeout),
        };
        // Into half an answer no other one can be written.
        let rejection = rejection.filter(|_| !self.state.is_writing());
        if let Some(rejection) = &rejection {
            self.transport.shared.counters.answered(route::NO_ROUTE, rejection.status());
            self.transport.shared.counters.refused(rejection.error());
            info!("serve: (no request) {} {}", rejection.status().as_u16(), self.info.peer);
        }
        if rejection.is_some() || self.state.unread.get() {
            self.slot.leaving();
            lingering_close(stream, rejection.as_ref()).await;
        }
    }
}

/// Ready when `deadline` has passed. The timer is set forward only when it fires, so a request costs none.
fn poll_deadline(mut timer: Pin<&mut Sleep>, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        if deadline < timer.deadline() {
            timer.as_mut().reset(deadline);
        }
        ready!(timer.as_mut().poll(cx));
        if deadline <= Instant::now() {
            return Poll::Ready(());
        }
        timer.as_mut().reset(deadline);
    }
}

/// Reads and answers requests; without an end when none is under way any more.
async fn answer_requests(
    parked: Parked,
    connection: &Rc<Connection>,
    mut timer: Pin<&mut Sleep>,
) -> (Option<End>, Parked) {
    let service = {
        let connection = Rc::clone(connection);
        service_fn(move |request| {
            let connection = Rc::clone(&connection);
            // hyper keeps it where it cannot stay pinned by itself.
            Box::pin(async move { Ok::<_, Infallible>(answer(request, &connection).await) })
        })
    };
    let tracked = Tracked { parked, connection: Rc::clone(connection) };
    let mut http = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        // Somebody who shuts down his side after asking still gets his answer.
        .half_close(true)
        .serve_connection(TokioIo::new(tracked), service);
    let state = &connection.state;
    let end = poll_fn(|cx| {
        if let Poll::Ready(result) = http.poll_without_shutdown(cx) {
            return Poll::Ready(Some(result.map_or_else(end_of, |()| End::Done)));
        }
        if state.is_waiting() && connection.transport.shared.connections.is_draining() {
            return Poll::Ready(Some(End::Done));
        }
        if let Phase::Idle(_) = state.phase.get() {
            // hyper's parser and buffers are most of what a connection costs. To make them anew for each request takes
            // about a tenth more CPU, and all connections together have one set of them instead of one each.
            // What is unread is no request: with it the connection ends.
            return Poll::Ready(state.unread.get().then_some(End::Done));
        }
        poll_deadline(timer.as_mut(), state.deadline(), cx).map(|()| Some(End::TimedOut))
    })
    .await;
    let http = http.into_parts();
    let mut parked = http.io.into_inner().parked;
    if end.is_none() && !http.read_buf.is_empty() {
        state.received_something();
        parked.ahead = http.read_buf;
    }
    (end, parked)
}

fn end_of(err: hyper::Error) -> End {
    if err.is_parse_too_large() {
        End::Unparsed(Rejection::HeadTooLarge)
    } else if err.is_parse() {
        End::Unparsed(Rejection::BadRequest(
            "this is not HTTP/1.1 as this server understands it; send GET /token",
        ))
    } else {
        End::Done
    }
}

/// Answers one request.
async fn answer(request: Request<Incoming>, connection: &Connection) -> Response<Full<Bytes>> {
    let Connection { info, transport, slot, state } = connection;
    let shared = &transport.shared;
    let asked_at = Instant::now();
    let (head, body) = request.into_parts();
    let since = match state.phase.get() {
        Phase::New(since) | Phase::Reading(since) => since,
        // It came in one piece with the one before.
        _ => asked_at,
    };
    let mut body = Arriving { body, state, since };
    // Where a body ends that is not read is left open, and with it where the next request begins.
    let has_body = !body.is_end_stream();
    state.unread.set(has_body);
    state.phase.set(Phase::Answering(asked_at));
    let Answered { client, key, answer } = handler::answer(&head, &mut body, *info, shared).await;
    state.unread.set(has_body && !body.is_end_stream());
    if let Err(rejection) = &answer {
        state.unread.set(state.unread.get() || rejection.closes());
    }
    let mut response = answer.map_or_else(|rejection| rejection.response(), Reply::response);
    if state.unread.get() || shared.connections.is_draining() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let answered_at = Instant::now();
    slot.answered(answered_at.into_std());
    state.phase.set(Phase::Writing(answered_at));
    if log::is_enabled(Level::Info) {
        let method = log::printable(head.method.as_str(), LONGEST_METHOD_SHOWN);
        let (path, status) = (route::printable_path(head.uri.path()), response.status().as_u16());
        let took = (answered_at - asked_at).as_micros();
        let key = key.map_or_else(String::new, |name| format!(" {name}"));
        info!("serve: {method} {path} {status} {client} {took}us{key}");
    }
    response
}

/// Writes the last answer, if it is not written yet, closes our side, and gives the caller a moment to read it and to
/// close its own. The name is nginx's.
async fn lingering_close(mut stream: Stream, rejection: Option<&Rejection>) {
    // Whatever fails here, the connection ends with this function.
    let _ = timeout(LINGERING_TIMEOUT, async {
        if let Some(rejection) = rejection {
            stream.write_all(&rejection.bytes()).await?;
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

/// Reads what is there and forgets it. The buffer is not part of the future: ten thousand of them would add up.
async fn discard(stream: &mut Stream) -> io::Result<usize> {
    poll_fn(|cx| {
        let mut bytes = [MaybeUninit::uninit(); 16 * 1024];
        let mut buf = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut buf))?;
        Poll::Ready(Ok(buf.filled().len()))
    })
    .await
}
