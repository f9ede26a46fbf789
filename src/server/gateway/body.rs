//! Bodies on their way: those of requests to WeChat, and those of its answers to clients.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body_util::{Either, Full};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};

use super::call::CallSlot;
use super::connections::{Pool, PooledConnection};

/// How long WeChat may pause in the middle of an answer.
pub(super) const ANSWER_GAP: Duration = Duration::from_secs(30);

/// A body that a client is sending.
pub(crate) type ClientBody<'a> = dyn Body<Data = Bytes, Error = hyper::Error> + Unpin + 'a;

/// The body of a response: our own, or WeChat's answer.
pub(crate) type ResponseBody = Either<Full<Bytes>, AnswerBody>;

/// The body of a request to WeChat.
pub(super) enum SentBody {
    Whole(Full<Bytes>),
    Streamed(StreamedBody),
}

/// A body of known length that arrives in pieces. If these end early, it never ends: its owner drops the connection.
pub(super) struct StreamedBody {
    pieces: mpsc::Receiver<Bytes>,
    left: u64,
}

impl SentBody {
    pub(super) fn whole(bytes: Bytes) -> SentBody {
        SentBody::Whole(Full::new(bytes))
    }

    /// Returns a body of this length, and where its pieces go.
    pub(super) fn streamed(length: u64) -> (mpsc::Sender<Bytes>, SentBody) {
        let (sender, pieces) = mpsc::channel(1);
        (sender, SentBody::Streamed(StreamedBody { pieces, left: length }))
    }
}

impl Body for SentBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            SentBody::Whole(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
            SentBody::Streamed(StreamedBody { left: 0, .. }) => Poll::Ready(None),
            SentBody::Streamed(StreamedBody { pieces, left }) => {
                // An end here would be one of the whole connection, while WeChat's early answer is being read.
                let Some(piece) = ready!(pieces.poll_recv(cx)) else { return Poll::Pending };
                *left = left.saturating_sub(piece.len() as u64);
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            SentBody::Whole(body) => body.is_end_stream(),
            SentBody::Streamed(body) => body.left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            SentBody::Whole(body) => body.size_hint(),
            SentBody::Streamed(body) => SizeHint::with_exact(body.left),
        }
    }
}

/// The body of WeChat's answer, which streams to the client. Once it has been read to its end, its connection is kept.
pub(crate) struct AnswerBody {
    /// What was read already.
    begun: VecDeque<Bytes>,
    rest: Incoming,
    /// `None` after the end.
    connection: Option<(Rc<Pool>, PooledConnection)>,
    gap: Option<Pin<Box<Sleep>>>,
    /// Whether it broke off, which the client learns once it has what was read before.
    is_broken: bool,
    /// Its call is under way until the answer is dropped.
    slot: Option<CallSlot>,
}

impl AnswerBody {
    pub(super) fn new(
        begun: VecDeque<Bytes>,
        rest: Incoming,
        pool: &Rc<Pool>,
        connection: PooledConnection,
    ) -> AnswerBody {
        AnswerBody {
            begun,
            rest,
            connection: Some((Rc::clone(pool), connection)),
            gap: None,
            is_broken: false,
            slot: None,
        }
    }

    pub(super) fn hold(&mut self, slot: CallSlot) {
        self.slot = Some(slot);
    }

    fn end(&mut self) {
        if let Some((pool, connection)) = self.connection.take() {
            pool.put(connection);
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(begun) = self.begun.pop_front() {
            if self.is_end_stream() {
                self.end();
            }
            return Poll::Ready(Some(Ok(Frame::data(begun))));
        }
        if self.is_broken {
            return Poll::Ready(Some(Err(io::Error::other("the answer broke off"))));
        }
        let AnswerBody { rest, connection, .. } = &mut *self;
        let polled = match connection {
            Some((_, connection)) => connection.poll_frame(rest, cx),
            None => Poll::Ready(None),
        };
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.gap = None;
                if self.rest.is_end_stream() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => {
                self.connection = None;
                self.is_broken = true;
                // At an error, hyper drops what it has not sent yet, the head as well. At a pause it sends that.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let gap = self
                    .gap
                    .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + ANSWER_GAP)));
                ready!(gap.as_mut().poll(cx));
                self.connection = None;
                Poll::Ready(Some(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the answer stopped",
                ))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.begun.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let begun: u64 = self.begun.iter().map(|piece| piece.len() as u64).sum();
        let rest = self.rest.size_hint();
        match rest.exact() {
            Some(rest) => SizeHint::with_exact(begun + rest),
            None => SizeHint::default(),
        }
    }
}
