//! Requests of the same bytes as an earlier one, which clients send that ask again and again: they need no parser. The parsed head is kept,
//! and nothing of the answer: each request is judged and answered by itself.
//!
//! A request is kept only if a new parser was given its bytes and no others, and has left none of them.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::body::Bytes;
use hyper::header;
use hyper::http::request::Parts;
use hyper::{Method, Version};
use tokio::io::AsyncWrite;
use tokio::time::Sleep;

use super::answer::{Answer, answer};
use super::connection::{Connection, ConnectionEnd};
use super::parsing::CountedParser;
use super::progress::RequestPhase;
use super::socket::Stream;
use crate::server::limits::MAX_KEPT_PARSERS;
use crate::server::routes::response;

/// How many requests all connections share. The clients of one program send the same bytes.
const SHARED: usize = 4;

/// How many requests of a connection that did not come again are kept in a row. After that its parser is.
const MAX_MISSES: u8 = 3;

/// A request without a body, as it was sent and as it was parsed.
pub(super) struct ParsedRequest {
    bytes: Bytes,
    head: Parts,
    /// Whether it asks for the connection to be closed.
    closes: bool,
}

impl ParsedRequest {
    /// Returns the request that hyper has parsed from these bytes, which are all of it. `None` if anything in its head means
    /// more to hyper than to the routes.
    fn new(bytes: Bytes, head: Parts) -> Option<ParsedRequest> {
        let mut closes = false;
        for (name, value) in &head.headers {
            match *name {
                header::CONNECTION if value.as_bytes().eq_ignore_ascii_case(b"close") => {
                    closes = true;
                }
                header::CONNECTION if value.as_bytes().eq_ignore_ascii_case(b"keep-alive") => {}
                header::CONNECTION
                | header::CONTENT_LENGTH
                | header::EXPECT
                | header::TE
                | header::TRAILER
                | header::TRANSFER_ENCODING
                | header::UPGRADE => return None,
                _ => {}
            }
        }
        let is_plain = head.method == Method::GET && head.version == Version::HTTP_11;
        is_plain.then_some(ParsedRequest { bytes, head, closes })
    }

    /// Whether other connections may send it, too. One with a key stays with the connection that it came on: a comparison with
    /// the requests of others takes longer, the more of it is alike.
    fn is_shared(&self) -> bool {
        self.head.uri.query().is_none()
            && !self.head.headers.contains_key(header::AUTHORIZATION)
            && !self.head.headers.contains_key(header::COOKIE)
    }
}

/// The last requests that all connections share.
#[derive(Default)]
pub(crate) struct SharedRequests {
    requests: RefCell<[Option<Rc<ParsedRequest>>; SHARED]>,
    /// Which of them is replaced next.
    next: Cell<usize>,
}

impl SharedRequests {
    fn find(&self, bytes: &[u8]) -> Option<Rc<ParsedRequest>> {
        let requests = self.requests.borrow();
        requests.iter().flatten().find(|it| it.bytes == bytes).cloned()
    }

    fn add(&self, request: &Rc<ParsedRequest>) {
        let next = self.next.get();
        self.requests.borrow_mut()[next] = Some(Rc::clone(request));
        self.next.set((next + 1) % SHARED);
    }
}

/// The last request of a connection.
#[derive(Default)]
pub(super) struct LastRequest {
    kept: RefCell<Option<KeptRequest>>,
    /// How many that were kept did not come again.
    misses: Cell<u8>,
}

struct KeptRequest {
    request: Rc<ParsedRequest>,
    has_come_again: bool,
    /// It takes the memory of a parser: its head is in the buffer of the one that parsed it.
    _counted: CountedParser,
}

impl LastRequest {
    /// Returns the request that was sent with these bytes.
    pub(super) fn find(&self, bytes: &[u8], shared: &SharedRequests) -> Option<Rc<ParsedRequest>> {
        let mut kept = self.kept.borrow_mut();
        if let Some(last) = &mut *kept {
            if last.request.bytes == bytes {
                last.has_come_again = true;
                return Some(Rc::clone(&last.request));
            }
            let misses = if last.has_come_again { 0 } else { self.misses.get() };
            self.misses.set(misses.saturating_add(1));
        }
        *kept = None;
        shared.find(bytes)
    }

    /// Whether the next request may be one to keep.
    pub(super) fn may_come_again(&self) -> bool {
        self.misses.get() < MAX_MISSES
    }

    pub(super) fn forget(&self) {
        *self.kept.borrow_mut() = None;
    }

    /// Notes that this connection has requests that cannot be kept.
    pub(super) fn give_up(&self) {
        self.misses.set(MAX_MISSES);
    }
}

impl Connection {
    /// Keeps a request that hyper has parsed from these bytes, which are all that it was given.
    pub(super) fn keep(&self, bytes: Bytes, head: Parts) {
        let Some(request) = ParsedRequest::new(bytes, head) else { return self.last.give_up() };
        let (transport, is_shared) = (&self.transport, request.is_shared());
        let request = Rc::new(request);
        if is_shared {
            transport.repeated.add(&request);
        }
        if !request.closes && transport.parsers.get() < MAX_KEPT_PARSERS {
            let _counted = CountedParser::new(&transport.parsers);
            let kept = KeptRequest { request, has_come_again: false, _counted };
            *self.last.kept.borrow_mut() = Some(kept);
        }
    }

    /// Answers a request that was kept. Returns how the connection ends, if it does.
    pub(super) async fn answer_again(
        &self,
        stream: &mut Stream,
        request: &ParsedRequest,
        mut timer: Pin<&mut Sleep>,
    ) -> Option<ConnectionEnd> {
        let ParsedRequest { head, closes, .. } = request;
        let (progress, state) = (&self.progress, &self.transport.state);
        let mut answering = pin!(answer(head, None, self));
        let answered = poll_fn(|cx| match answering.as_mut().poll(cx) {
            Poll::Ready(answered) => Poll::Ready(Some(answered)),
            Poll::Pending => progress.poll_timeout(timer.as_mut(), cx).map(|()| None),
        });
        let Some(Answer { outcome, at, is_last, .. }) = answered.await else {
            return Some(ConnectionEnd::TimedOut);
        };
        let is_last = is_last || *closes;
        let date = state.date.at(at, &*state.clock);
        let Some(bytes) = response::in_bytes(outcome, &head.headers, is_last, &date) else {
            return Some(ConnectionEnd::Finished); // No call is kept.
        };
        progress.enter(RequestPhase::Writing, at);
        let mut rest = &*bytes;
        let written = poll_fn(|cx| {
            let polled = poll_write(stream, &mut rest, is_last, cx);
            match polled {
                Poll::Ready(Ok(())) => Poll::Ready(None),
                Poll::Ready(Err(_)) => Poll::Ready(Some(ConnectionEnd::Finished)),
                Poll::Pending => progress
                    .poll_timeout(timer.as_mut(), cx)
                    .map(|()| Some(ConnectionEnd::TimedOut)),
            }
        });
        if let Some(end) = written.await {
            return Some(end);
        }
        progress.sent_everything();
        (is_last || state.connections.is_draining()).then_some(ConnectionEnd::Finished)
    }
}

/// Writes what is left of the bytes, and flushes them or ends the stream.
fn poll_write(
    stream: &mut Stream,
    rest: &mut &[u8],
    is_last: bool,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while !rest.is_empty() {
        let written = match is_last {
            true => stream.poll_write_last(cx, rest),
            false => Pin::new(&mut *stream).poll_write(cx, rest),
        };
        match ready!(written)? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            written => *rest = &rest[written..],
        }
    }
    match is_last {
        true => stream.poll_end(cx),
        false => Pin::new(stream).poll_flush(cx),
    }
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn parsed(bytes: &str, headers: &[(&str, &str)]) -> Option<ParsedRequest> {
        let mut request = Request::get("/token");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let head = request.body(()).unwrap().into_parts().0;
        ParsedRequest::new(Bytes::copy_from_slice(bytes.as_bytes()), head)
    }

    #[test]
    fn what_means_something_to_the_parser_is_parsed_each_time() {
        for (name, value) in [
            ("connection", "upgrade"),
            ("connection", "close, te"),
            ("content-length", "0"),
            ("expect", "100-continue"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
        ] {
            assert!(parsed("", &[(name, value)]).is_none(), "{name}: {value}");
        }
        for (name, value, closes) in [
            ("connection", "Keep-Alive", false),
            ("connection", "Close", true),
            ("accept", "*/*", false),
        ] {
            assert_eq!(parsed("", &[(name, value)]).unwrap().closes, closes, "{name}: {value}");
        }
        let head =
            |request: hyper::http::request::Builder| request.body(()).unwrap().into_parts().0;
        let post = head(Request::post("/token"));
        let old = head(Request::get("/token").version(Version::HTTP_10));
        assert!(ParsedRequest::new(Bytes::new(), post).is_none());
        assert!(ParsedRequest::new(Bytes::new(), old).is_none());
    }

    #[test]
    fn a_request_with_a_key_is_for_its_own_connection() {
        assert!(parsed("", &[("host", "localhost")]).unwrap().is_shared());
        assert!(!parsed("", &[("authorization", "Bearer k")]).unwrap().is_shared());
        assert!(!parsed("", &[("cookie", "k")]).unwrap().is_shared());
        let head = Request::get("/cgi-bin/token?secret=k").body(()).unwrap().into_parts().0;
        assert!(!ParsedRequest::new(Bytes::new(), head).unwrap().is_shared());
    }

    #[test]
    fn the_last_few_requests_are_shared() {
        let shared = SharedRequests::default();
        for n in 0..=SHARED {
            shared.add(&Rc::new(parsed(&n.to_string(), &[]).unwrap()));
        }
        assert!(shared.find(b"0").is_none(), "the first one made room");
        for n in 1..=SHARED {
            assert!(shared.find(n.to_string().as_bytes()).is_some(), "{n}");
        }
        assert!(shared.find(b"").is_none());
    }

    #[test]
    fn a_connection_whose_requests_do_not_come_again_keeps_its_parser() {
        let (last, shared) = (LastRequest::default(), SharedRequests::default());
        let keep = |bytes: &str| {
            let request = Rc::new(parsed(bytes, &[]).unwrap());
            let _counted = CountedParser::new(&Rc::default());
            let kept = KeptRequest { request, has_come_again: false, _counted };
            *last.kept.borrow_mut() = Some(kept);
        };
        for n in 0..MAX_MISSES {
            assert!(last.may_come_again(), "{n}");
            keep("a");
            assert!(last.find(b"b", &shared).is_none());
        }
        assert!(!last.may_come_again());
        keep("a");
        assert!(last.find(b"a", &shared).is_some());
        assert!(last.find(b"b", &shared).is_none());
        assert!(last.may_come_again(), "one came again");
        assert!(last.find(b"a", &shared).is_none(), "it made room");
    }
}
