//! One connection to a server of WeChat's: writes a request, reads the answer. Speaks HTTP/1.1 and no more of it than a
//! gateway needs. Decides nothing about requests.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use hyper::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};

use super::answer::{AnswerHead, Framing};
use super::dial::DialedStream;
use crate::server::limits::poll_deadline;
use crate::upstream::api_servers::ApiServers;

/// The largest head of an answer, in bytes.
const MAX_ANSWER_HEAD: usize = 64 * 1024;

/// How much may come until an answer begins, in bytes: its head, what is read with it, and any number of heads with a status
/// of 1xx before it.
const MAX_UNTIL_ANSWER: usize = 4 * MAX_ANSWER_HEAD;

/// How much is read at once, in bytes: of a head with a small body, and of a body that streams.
const READ_FOR_HEAD: usize = 4 * 1024;
const READ_FOR_BODY: usize = 16 * 1024;

/// The largest body that is copied behind the head of its request, in bytes, so that both go out in one plain write.
const MAX_COPIED: usize = 16 * 1024;

/// A connection to one of an account's servers. Dropping it closes it, whatever is under way.
///
/// No task of its own reads and writes: the task that waits for an answer does.
pub(in crate::server::gateway) struct PooledConnection(Box<Http1>);

struct Http1 {
    stream: Box<dyn DialedStream>,
    servers: Arc<ApiServers>,
    /// The place of the server.
    server: usize,
    /// What of the request is still to be written: its head, with a small body, and another piece of the body.
    head: Vec<u8>,
    written: usize,
    body: Bytes,
    is_flushed: bool,
    /// Whether the server takes no more of the request.
    is_refused: bool,
    /// What has arrived and is not taken.
    arrived: BytesMut,
    /// How much may arrive until the answer begins, in bytes.
    may_arrive: usize,
    method: Method,
    /// Where the body of the answer ends.
    framing: Framing,
    is_kept: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server::gateway) enum SendError {
    /// Nothing of it was sent.
    Unsent,
    /// All or some of it was sent.
    Sent,
}

impl PooledConnection {
    pub(super) fn new(
        stream: Box<dyn DialedStream>,
        servers: Arc<ApiServers>,
        server: usize,
    ) -> PooledConnection {
        PooledConnection(Box::new(Http1 {
            stream,
            servers,
            server,
            head: Vec::new(),
            written: 0,
            body: Bytes::new(),
            is_flushed: true,
            is_refused: false,
            arrived: BytesMut::new(),
            may_arrive: 0,
            method: Method::GET,
            framing: Framing::Length(0),
            is_kept: true,
            timer: None,
        }))
    }

    /// Whether it leads to one of these servers.
    pub(super) fn leads_to(&self, servers: &Arc<ApiServers>) -> bool {
        Arc::ptr_eq(&self.0.servers, servers)
    }

    /// The place of its server.
    pub(in crate::server::gateway) fn server(&self) -> usize {
        self.0.server
    }

    /// Whether it can carry another request. The server may have closed it meanwhile, as far as the event loop knows; no task
    /// is woken by it.
    pub(super) fn is_idle(&mut self) -> bool {
        let http = &mut *self.0;
        let is_done = http.is_kept && http.framing.is_over() && http.is_written();
        is_done && http.arrived.is_empty() && {
            let mut cx = Context::from_waker(Waker::noop());
            http.poll_arrive(1, &mut cx).is_pending()
        }
    }

    /// Gives back the memory that only large requests and answers need.
    pub(super) fn shrink(&mut self) {
        if self.0.arrived.capacity() > 2 * READ_FOR_HEAD {
            self.0.arrived = BytesMut::new();
        }
        if self.0.head.capacity() > 2 * READ_FOR_HEAD {
            self.0.head = Vec::new();
        }
    }

    /// Begins a request with this head, which `write` writes, and this body, or the first piece of it.
    pub(in crate::server::gateway) fn begin(
        &mut self,
        method: &Method,
        body: Bytes,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let http = &mut *self.0;
        http.head.clear();
        write(&mut http.head);
        http.body = body;
        if http.body.len() <= MAX_COPIED {
            http.head.extend_from_slice(&std::mem::take(&mut http.body));
        }
        (http.written, http.is_flushed, http.is_refused) = (0, false, false);
        http.may_arrive = MAX_UNTIL_ANSWER;
        http.method = method.clone();
        http.is_kept = false;
    }

    /// Continues the body of a request, of which all pieces so far are written.
    pub(in crate::server::gateway) fn continue_with(&mut self, piece: Bytes) {
        (self.0.body, self.0.is_flushed) = (piece, false);
    }

    /// Writes what is left of the request. Fails if nothing of it could be sent. It is ready, too, if the server takes no more
    /// of it: then only the answer is still to come.
    pub(in crate::server::gateway) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendError>> {
        let http = &mut *self.0;
        match ready!(http.poll_write(cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(_) if http.written == 0 => Poll::Ready(Err(SendError::Unsent)),
            Err(_) => {
                http.is_refused = true;
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Reads the head of the answer; what comes before it with a status of 1xx is dropped. Fails if the connection breaks, if
    /// the answer is malformed, or if more than [`MAX_UNTIL_ANSWER`] comes before it.
    pub(in crate::server::gateway) fn poll_head(
        &mut self,
        is_complete: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<AnswerHead, SendError>> {
        let http = &mut *self.0;
        loop {
            if !http.arrived.is_empty() {
                let parsed = AnswerHead::parse(&http.arrived, &http.method);
                match parsed.map_err(|_| SendError::Sent)? {
                    Some((_, length)) if length > MAX_ANSWER_HEAD => {
                        return Poll::Ready(Err(SendError::Sent));
                    }
                    Some((head, length)) => {
                        http.arrived.advance(length);
                        // After 101, for which nothing asked, no HTTP follows.
                        let is_first = head.status.is_informational();
                        if is_first && head.status != StatusCode::SWITCHING_PROTOCOLS {
                            continue;
                        }
                        http.framing = head.framing;
                        http.is_kept = head.is_kept && is_complete;
                        return Poll::Ready(Ok(head));
                    }
                    None if http.arrived.len() >= MAX_ANSWER_HEAD => {
                        return Poll::Ready(Err(SendError::Sent));
                    }
                    None => {}
                }
            }
            let arrived = ready!(http.poll_arrive(READ_FOR_HEAD, cx)).unwrap_or_default();
            http.may_arrive = match http.may_arrive.checked_sub(arrived) {
                Some(left) if arrived > 0 => left,
                _ => return Poll::Ready(Err(SendError::Sent)),
            };
        }
    }

    /// Writes a request and returns the head of its answer, which may come before all is written. `None` if neither is done at
    /// this time.
    pub(in crate::server::gateway) async fn answered(
        &mut self,
        deadline: Instant,
    ) -> Option<Result<AnswerHead, SendError>> {
        poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = self.poll_write(cx) {
                return Poll::Ready(Some(Err(error)));
            }
            if let Poll::Ready(answer) = self.poll_head(true, cx) {
                return Poll::Ready(Some(answer));
            }
            self.poll_timeout(deadline, cx).map(|()| None)
        })
        .await
    }

    /// Polls the next piece of the answer's body; `None` after its end. Goes on writing the request if that is not done.
    pub(in crate::server::gateway) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Bytes>>> {
        let http = &mut *self.0;
        if !http.is_written() {
            let _ = self.poll_write(cx); // What the server does not read of it, it does not need.
        }
        let http = &mut *self.0;
        loop {
            if http.framing.is_over() {
                return Poll::Ready(None);
            }
            let taken = http.framing.take(&http.arrived);
            let (skipped, data) = taken.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            http.arrived.advance(skipped);
            if data > 0 {
                return Poll::Ready(Some(Ok(http.take_arrived(data))));
            }
            if http.framing.is_over() {
                continue;
            }
            let left = http.framing.left().and_then(|left| usize::try_from(left).ok());
            let at_least = left.unwrap_or(READ_FOR_BODY).clamp(READ_FOR_HEAD, READ_FOR_BODY);
            if ready!(http.poll_arrive(at_least, cx))? == 0 {
                return Poll::Ready(match http.framing {
                    Framing::UntilClosed => {
                        http.framing = Framing::Length(0);
                        None
                    }
                    _ => Some(Err(io::ErrorKind::UnexpectedEof.into())),
                });
            }
        }
    }

    /// Whether the answer has been read to its end.
    pub(in crate::server::gateway) fn is_over(&self) -> bool {
        self.0.framing.is_over()
    }

    /// Returns how much of the answer is still to come, in bytes, if that is known.
    pub(in crate::server::gateway) fn left(&self) -> Option<u64> {
        self.0.framing.left()
    }

    /// Polls until this time. One timer serves all that is waited for.
    pub(in crate::server::gateway) fn poll_timeout(
        &mut self,
        deadline: Instant,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let timer = self.0.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        poll_deadline(timer.as_mut(), deadline, cx)
    }
}

impl Http1 {
    fn is_written(&self) -> bool {
        self.is_flushed || self.is_refused
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_written() {
            return Poll::Ready(Ok(()));
        }
        let mut stream = Pin::new(&mut self.stream);
        loop {
            let head = &self.head[self.written.min(self.head.len())..];
            let written = match (head.is_empty(), self.body.is_empty()) {
                (true, true) => break,
                (false, true) => ready!(stream.as_mut().poll_write(cx, head))?,
                (true, false) => ready!(stream.as_mut().poll_write(cx, &self.body))?,
                (false, false) => {
                    let pieces = [IoSlice::new(head), IoSlice::new(&self.body)];
                    ready!(stream.as_mut().poll_write_vectored(cx, &pieces))?
                }
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_head = written.min(head.len());
            self.written += of_head;
            self.body.advance(written - of_head);
        }
        ready!(stream.poll_flush(cx))?;
        self.is_flushed = true;
        Poll::Ready(Ok(()))
    }

    /// Reads once, at least this much if there is as much. Returns how many bytes have arrived, 0 at the end.
    fn poll_arrive(&mut self, at_least: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.arrived.reserve(at_least);
        let reading = pin!(self.stream.read_buf(&mut self.arrived));
        reading.poll(cx)
    }

    /// Takes what has arrived. Small answers are copied, so that the connection keeps its memory.
    fn take_arrived(&mut self, length: usize) -> Bytes {
        if length >= READ_FOR_HEAD {
            return self.arrived.split_to(length).freeze();
        }
        let taken = Bytes::copy_from_slice(&self.arrived[..length]);
        self.arrived.advance(length);
        taken
    }
}
