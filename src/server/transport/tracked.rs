//! The stream and the request body as hyper and the routes see them: reading and writing updates the connection's
//! [`RequestProgress`].

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http_body_util::Either;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::progress::{RequestPhase, RequestProgress};
use super::socket::Stream;
use crate::server::gateway::body::ResponseBody;

/// A stream with bytes that were read ahead of hyper. While a connection is idle, this is all that it keeps.
pub(super) struct BufferedStream {
    pub(super) stream: Stream,
    /// The beginning of the next request; empty if it has not begun.
    pub(super) read_ahead: Bytes,
}

/// The stream that hyper reads from and writes to.
pub(super) struct TrackedStream {
    pub(super) buffered: BufferedStream,
    pub(super) progress: Rc<RequestProgress>,
    /// Whether hyper has read more than what was read ahead.
    pub(super) has_read_more: bool,
}

impl AsyncRead for TrackedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read_ahead = &mut self.buffered.read_ahead;
        if !read_ahead.is_empty() {
            let length = buf.remaining().min(read_ahead.len());
            buf.put_slice(&read_ahead.split_to(length));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        if !self.progress.has_ended() {
            ready!(Pin::new(&mut self.buffered.stream).poll_read(cx, buf))?;
        }
        if buf.filled().len() > before {
            self.has_read_more = true;
            self.progress.received_bytes();
            return Poll::Ready(Ok(()));
        }
        self.progress.reached_end();
        match self.progress.ignores_end() {
            // Not woken for it: once the answer is written, the connection ends by itself.
            true => Poll::Pending,
            false => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for TrackedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.progress.has_request() {
            // A route's answer, or hyper's 100 (Continue) to a client that waits for it before it sends a body.
            let written = ready!(Pin::new(&mut self.buffered.stream).poll_write(cx, buf))?;
            self.progress.sent_bytes();
            Poll::Ready(Ok(written))
        } else {
            // hyper answers what it could not parse with a bare status. That is dropped: once hyper has ended, the
            // connection writes a rejection with the body and headers that all others have.
            Poll::Ready(Ok(buf.len()))
        }
    }

    /// hyper flushes when it has nothing more to write.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.buffered.stream).poll_flush(cx))?;
        self.progress.sent_everything();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.buffered.stream).poll_shutdown(cx)
    }
}

/// The body that a route reads. A body that no route reads has no timeout of its own.
pub(super) struct TrackedBody<'a> {
    /// `None` if there is none.
    pub(super) body: Option<Incoming>,
    pub(super) progress: &'a RequestProgress,
    /// When the request began to arrive.
    pub(super) request_began: Instant,
    /// Whether it is passed on to WeChat: then it may be large, and what counts is how long it stands still.
    pub(super) is_forwarded: bool,
    /// Whether it was read to its end, which hyper does not say of one without a length.
    pub(super) has_ended: bool,
}

impl Body for TrackedBody<'_> {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        self.has_ended |= matches!(polled, Poll::Ready(None));
        match polled {
            Poll::Pending if self.is_forwarded => self.progress.await_call(),
            Poll::Ready(_) if self.is_forwarded => {
                self.progress.enter(RequestPhase::Forwarding, Instant::now());
            }
            Poll::Pending => self.progress.enter(RequestPhase::ReadingBody, self.request_began),
            Poll::Ready(_) => self.progress.enter(RequestPhase::Answering, Instant::now()),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

/// The body of an answer, which may stream.
pub(super) struct TrackedAnswer {
    pub(super) body: ResponseBody,
    pub(super) progress: Rc<RequestProgress>,
}

impl TrackedAnswer {
    /// Returns the body, and notes that the answer is being written from now on. `has_body` is false if the client gets no
    /// body, as after HEAD. hyper asks for no piece of an empty one.
    pub(super) fn begin(
        body: ResponseBody,
        has_body: bool,
        progress: &Rc<RequestProgress>,
        now: Instant,
    ) -> TrackedAnswer {
        let is_awaited = has_body && !body.is_end_stream();
        progress
            .enter(if is_awaited { RequestPhase::Streaming } else { RequestPhase::Writing }, now);
        TrackedAnswer { body, progress: Rc::clone(progress) }
    }
}

impl Body for TrackedAnswer {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        // Not before: hyper flushes a head that fills its buffer before it asks for the body, and what it flushes while the
        // end is being written is the end.
        let ends = frame.is_none() || self.body.is_end_stream();
        match self.body {
            // A body that is whole has come at once.
            Either::Left(_) => self.progress.took_whole_body(),
            Either::Right(_) if ends => self.progress.enter(RequestPhase::Writing, Instant::now()),
            Either::Right(_) => self.progress.enter(RequestPhase::Streaming, Instant::now()),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
