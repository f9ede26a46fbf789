//! The bodies of WeChat's answers on their way to clients.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body_util::{Either, Full};
use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::time::Instant;

use super::call::CallSlot;
use super::connections::{Pool, PooledConnection};
use super::hiding::TokenMask;

/// How long WeChat may pause in the middle of an answer.
pub(super) const ANSWER_GAP: Duration = Duration::from_secs(30);

/// A body that a client is sending.
pub(crate) type ClientBody<'a> = dyn Body<Data = Bytes, Error = hyper::Error> + Unpin + 'a;

/// The body of a response: our own, or WeChat's answer.
pub(crate) type ResponseBody = Either<Full<Bytes>, AnswerBody>;

/// The body of WeChat's answer, which streams to the client. Once it has been read to its end, its connection is kept.
pub(crate) struct AnswerBody {
    /// What was read already.
    begun: VecDeque<Bytes>,
    /// From which the rest comes; `None` after the end.
    connection: Option<(Rc<Pool>, PooledConnection)>,
    /// When the rest comes too late.
    late: Option<Instant>,
    /// Whether it broke off, which the client learns once it has what was read before.
    is_broken: bool,
    /// Where the client is not handed the account's token.
    mask: Option<Box<TokenMask>>,
    /// Its call is under way until the answer is dropped.
    slot: Option<CallSlot>,
}

impl AnswerBody {
    pub(super) fn new(
        begun: VecDeque<Bytes>,
        pool: &Rc<Pool>,
        connection: PooledConnection,
        mask: Option<TokenMask>,
    ) -> AnswerBody {
        AnswerBody {
            begun,
            connection: Some((Rc::clone(pool), connection)),
            late: None,
            is_broken: false,
            mask: mask.map(Box::new),
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

    /// Whether all of it has been read.
    fn is_read(&self) -> bool {
        let is_over = self.connection.as_ref().is_none_or(|(_, it)| it.is_over());
        self.begun.is_empty() && is_over && !self.is_broken
    }

    /// Polls the next piece as WeChat sends it; `None` after its end.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Some(begun) = self.begun.pop_front() {
            if self.is_read() {
                self.end();
            }
            return Poll::Ready(Some(Ok(begun)));
        }
        if self.is_broken {
            return Poll::Ready(Some(Err(io::Error::other("the answer broke off"))));
        }
        let AnswerBody { connection: Some((_, connection)), late, .. } = self else {
            return Poll::Ready(None);
        };
        match connection.poll_data(cx) {
            Poll::Ready(Some(Ok(piece))) => {
                *late = None;
                if connection.is_over() {
                    self.end();
                }
                Poll::Ready(Some(Ok(piece)))
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
                let late = *late.get_or_insert_with(|| Instant::now() + ANSWER_GAP);
                ready!(connection.poll_timeout(late, cx));
                self.connection = None;
                Poll::Ready(Some(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the answer stopped",
                ))))
            }
        }
    }

    /// How many bytes were read and are not passed on yet.
    fn held(&self) -> usize {
        self.mask.as_ref().map_or(0, |mask| mask.held())
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            let piece = ready!(self.poll_piece(cx)).transpose()?;
            let is_last = piece.is_none() || self.is_read();
            let piece = piece.unwrap_or_default();
            let passed = match &mut self.mask {
                Some(mask) => mask.pass(piece, is_last),
                None => piece,
            };
            // A piece may be the beginning of a token and no more.
            if is_last || !passed.is_empty() {
                let passed = Some(passed).filter(|it| !it.is_empty());
                return Poll::Ready(passed.map(|passed| Ok(Frame::data(passed))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_read() && self.held() == 0
    }

    fn size_hint(&self) -> SizeHint {
        let begun: u64 = self.begun.iter().map(|piece| piece.len() as u64).sum();
        let begun = begun + self.held() as u64;
        let rest = self.connection.as_ref().map_or(Some(0), |(_, it)| it.left());
        rest.map_or_else(SizeHint::default, |rest| SizeHint::with_exact(begun + rest))
    }
}
