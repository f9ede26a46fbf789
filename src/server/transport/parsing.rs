//! Requests of a connection by hyper: parses them, has them answered, and writes the answers.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::time::Sleep;

use super::answer::{Answer, answer};
use super::connection::{Connection, ConnectionEnd};
use super::tracked::{BufferedStream, TrackedAnswer, TrackedStream};
use crate::server::limits::{MAX_HEAD, MAX_KEPT_PARSERS};
use crate::server::routes::begins_for_sdks;
use crate::server::routes::rejection::{Rejection, text};
use crate::server::routes::response;

/// Reads and answers requests until none is under way. Returns the stream, with how the connection ends if it does.
pub(super) async fn answer_requests(
    buffered: BufferedStream,
    connection: &Rc<Connection>,
    mut timer: Pin<&mut Sleep>,
) -> (Option<ConnectionEnd>, BufferedStream) {
    let handover = Handover::default();
    let begun = buffered.read_ahead.clone();
    let service = service_fn(|request| {
        handover.request.set(Some(request));
        AwaitedResponse(&handover)
    });
    // Here, and not in the future of the service: hyper wants one that can be moved, and each request would need a box for it.
    let mut answering = pin!(None);
    let Connection { transport, progress, last, .. } = &**connection;
    let counted = CountedParser::new(&transport.parsers);
    let tracked = TrackedStream { buffered, progress: Rc::clone(progress), has_read_more: false };
    let mut http = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(tracked), service);
    let end = poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = http.poll_without_shutdown(cx) {
                return Poll::Ready(Some(result.map_or_else(end_by, |()| ConnectionEnd::Finished)));
            }
            if let Some(request) = handover.request.take() {
                handover.count();
                answering.set(Some(respond(request, connection, &handover)));
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
        if handover.has_repeatable() && last.may_come_again() {
            return Poll::Ready(None);
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
    let tracked = http.io.into_inner();
    drop(counted);
    if let Some(head) = handover.repeatable.take() {
        match !tracked.has_read_more && http.read_buf.is_empty() {
            true => connection.keep(begun, head),
            false => last.give_up(),
        }
    }
    let mut buffered = tracked.buffered;
    if end.is_none() && !http.read_buf.is_empty() {
        progress.received_bytes();
        buffered.read_ahead = http.read_buf;
    }
    (end, buffered)
}

/// Answers a request of hyper's.
async fn respond(
    request: Request<Incoming>,
    connection: &Connection,
    handover: &Handover,
) -> Response<TrackedAnswer> {
    let (head, body) = request.into_parts();
    let Answer { outcome, at, is_last, may_repeat } = answer(&head, Some(body), connection).await;
    let languages = head.headers.get(header::ACCEPT_LANGUAGE);
    let mut response = match outcome {
        Ok(reply) => reply.into_response(languages),
        Err((rejection, sdk)) => response::with_body(response::refuse(&rejection, sdk, languages)),
    };
    if is_last {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let (head_of_response, body) = response.into_parts();
    let has_body = head.method != Method::HEAD
        && !matches!(head_of_response.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let body = TrackedAnswer::begin(body, has_body, &connection.progress, at);
    if may_repeat && handover.requests.get() == 1 {
        *handover.repeatable.borrow_mut() = Some(head);
    }
    Response::from_parts(head_of_response, body)
}

/// A request on its way from hyper to the task of its connection, and the response on its way back.
#[derive(Default)]
struct Handover {
    request: Cell<Option<Request<Incoming>>>,
    response: Cell<Option<Response<TrackedAnswer>>>,
    /// How many requests there were.
    requests: Cell<usize>,
    /// The head of the only request, if one like it may be answered without a parser.
    repeatable: RefCell<Option<Parts>>,
}

impl Handover {
    /// Counts a request.
    fn count(&self) {
        self.requests.set(self.requests.get() + 1);
        *self.repeatable.borrow_mut() = None;
    }

    fn has_repeatable(&self) -> bool {
        self.repeatable.borrow().is_some()
    }
}

/// The response, once there is one. hyper is polled again when there is, so that nothing has to wake it.
struct AwaitedResponse<'a>(&'a Handover);

impl Future for AwaitedResponse<'_> {
    type Output = Result<Response<TrackedAnswer>, Infallible>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.response.take().map_or(Poll::Pending, |response| Poll::Ready(Ok(response)))
    }
}

/// A parser, or what takes as much memory, which counts as one until this is dropped.
pub(super) struct CountedParser(Rc<Cell<usize>>);

impl CountedParser {
    pub(super) fn new(parsers: &Rc<Cell<usize>>) -> CountedParser {
        parsers.set(parsers.get() + 1);
        CountedParser(Rc::clone(parsers))
    }
}

impl Drop for CountedParser {
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
