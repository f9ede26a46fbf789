//! One connection from its first byte to its last: HTTP by hyper, and the time that a peer may take for each thing.
//! What a request gets is decided elsewhere.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn, ready};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, sleep_until, timeout};

use super::House;
use super::crowd::Presence;
use super::listen::{Peer, Stream};
use super::reply::{self, Refusal};
use super::route;
use crate::report::{self, Level, deed};

/// The largest request line and headers together: an SDK sends a few hundred bytes. hyper reads no less than this.
const MAX_HEAD: usize = 8 * 1024; // bytes

/// How long a request may take to arrive, from its first byte; the first one, from the connection's beginning.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(10);

/// How long a peer may take to read an answer: as long as it may take to ask.
const SENDING_LIMIT: Duration = Duration::from_secs(10);

/// How long a kept-alive connection may be silent: longer than the minute between two runs of a cron job is no use.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// How long a refused peer has to read why and to hang up, before the connection is cut.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);

/// How much of what a refused peer still sends is read and thrown away. A connection that is closed with bytes unread
/// is reset, and the peer may lose the answer; this much covers a megabyte sent by mistake.
const FAREWELL_BYTES: usize = 2 * 1024 * 1024; // bytes

/// What is under way on a connection, and since when.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Connected, not a byte yet.
    Fresh(Instant),
    /// Some of a request is here.
    Arriving(Instant),
    /// The answer is being found.
    Answering,
    /// The answer is being written.
    Sending(Instant),
    /// Between requests.
    Idle(Instant),
}

/// What the parts of a connection, its stream, its service and its clock, tell each other.
struct Talk {
    phase: Cell<Phase>,
    /// Something of the peer's may be unread when the connection ends.
    unread: Cell<bool>,
}

impl Talk {
    fn begun_at(now: Instant) -> Talk {
        Talk { phase: Cell::new(Phase::Fresh(now)), unread: Cell::new(false) }
    }

    /// When it is enough; `None` while it is we who keep the peer waiting.
    fn deadline(&self) -> Option<Instant> {
        match self.phase.get() {
            Phase::Fresh(since) | Phase::Arriving(since) => Some(since + ARRIVAL_LIMIT),
            Phase::Answering => None,
            Phase::Sending(since) => Some(since + SENDING_LIMIT),
            Phase::Idle(since) => Some(since + IDLE_LIMIT),
        }
    }

    fn nothing_under_way(&self) -> bool {
        matches!(self.phase.get(), Phase::Fresh(_) | Phase::Idle(_))
    }

    fn heard_something(&self) {
        match self.phase.get() {
            Phase::Fresh(since) => self.phase.set(Phase::Arriving(since)),
            Phase::Idle(_) => self.phase.set(Phase::Arriving(Instant::now())),
            Phase::Arriving(_) | Phase::Answering | Phase::Sending(_) => {}
        }
    }

    fn sent_everything(&self) {
        if let Phase::Sending(since) = self.phase.get() {
            self.phase.set(Phase::Idle(since));
        }
    }
}

/// The stream as hyper sees it, telling the talk what comes and goes.
struct Overheard {
    stream: Stream,
    talk: Rc<Talk>,
}

impl AsyncRead for Overheard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.talk.heard_something();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Overheard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.talk.phase.get() {
            Phase::Answering | Phase::Sending(_) => Pin::new(&mut self.stream).poll_write(cx, buf),
            // No answer of ours is due, so this is hyper's own to what it could not parse: a bare status. It is kept
            // back, and what callers can rely on is written when hyper has ended.
            Phase::Fresh(_) | Phase::Arriving(_) | Phase::Idle(_) => Poll::Ready(Ok(buf.len())),
        }
    }

    /// hyper comes here when it has no more to write.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.talk.sent_everything();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// How HTTP ended on a connection.
enum End {
    /// As it should, or by the peer's going away.
    Done,
    /// What came was not HTTP, or too much.
    Unparsed(Refusal),
    /// The peer took too long.
    Late,
}

/// Serves one peer until either side has had enough.
pub(super) async fn serve(
    stream: Stream,
    peer: Peer,
    loopback_only: bool,
    house: Rc<House>,
    presence: Presence,
) {
    let presence = Rc::new(presence);
    until_sent_out(&presence, async {
        let talk = Rc::new(Talk::begun_at(Instant::now()));
        let (end, stream) = exchange(stream, peer, loopback_only, &house, &presence, &talk).await;
        // Into half an answer no other one can be written.
        let can_speak = !matches!(talk.phase.get(), Phase::Answering | Phase::Sending(_));
        let last_words = match end {
            End::Done => None,
            End::Unparsed(refusal) => can_speak.then_some(refusal),
            End::Late => {
                house.tally.late.add_one();
                // Whoever said nothing did not ask anything.
                (can_speak && !talk.nothing_under_way()).then_some(Refusal::TooSlow)
            }
        };
        if let Some(refusal) = &last_words {
            deed!("serve: (no request) {} {peer}", refusal.status().as_u16());
        }
        if last_words.is_some() || talk.unread.get() {
            presence.leaves();
            farewell(stream, last_words.as_ref()).await;
        }
    })
    .await;
}

/// Tells a peer that is not allowed so, without reading a byte first.
pub(super) async fn turn_away(stream: Stream, presence: Presence) {
    presence.leaves();
    until_sent_out(&presence, farewell(stream, Some(&Refusal::Forbidden))).await;
}

/// Runs `life` to its end, or until the connection has to make room.
async fn until_sent_out(presence: &Presence, life: impl Future<Output = ()>) {
    let mut life = pin!(life);
    poll_fn(|cx| match presence.poll_sent_out(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => life.as_mut().poll(cx),
    })
    .await;
}

/// Requests and answers, until there are no more.
async fn exchange(
    stream: Stream,
    peer: Peer,
    loopback_only: bool,
    house: &Rc<House>,
    presence: &Rc<Presence>,
    talk: &Rc<Talk>,
) -> (End, Stream) {
    let service = {
        let (house, presence, talk) = (Rc::clone(house), Rc::clone(presence), Rc::clone(talk));
        service_fn(move |request| {
            ready(Ok::<_, Infallible>(answer(
                &request,
                peer,
                loopback_only,
                &house,
                &presence,
                &talk,
            )))
        })
    };
    let mut http = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        // Somebody who shuts down his side after asking still gets his answer.
        .half_close(true)
        .serve_connection(TokioIo::new(Overheard { stream, talk: Rc::clone(talk) }), service);
    let end = {
        let mut alarm = pin!(sleep_until(Instant::now() + ARRIVAL_LIMIT));
        poll_fn(|cx| {
            if let Poll::Ready(result) = http.poll_without_shutdown(cx) {
                return Poll::Ready(result.map_or_else(end_of, |()| End::Done));
            }
            if house.crowd.is_closing() && talk.nothing_under_way() {
                return Poll::Ready(End::Done);
            }
            // The alarm is set forward only when it rings: a request costs no timer.
            loop {
                let deadline = talk.deadline().unwrap_or_else(|| Instant::now() + IDLE_LIMIT);
                if deadline < alarm.deadline() {
                    alarm.as_mut().reset(deadline);
                }
                ready!(alarm.as_mut().poll(cx));
                if deadline <= Instant::now() {
                    return Poll::Ready(End::Late);
                }
                alarm.as_mut().reset(deadline);
            }
        })
        .await
    };
    (end, http.into_parts().io.into_inner().stream)
}

fn end_of(err: hyper::Error) -> End {
    if err.is_parse_too_large() {
        End::Unparsed(Refusal::HeadTooLarge)
    } else if err.is_parse() {
        End::Unparsed(Refusal::BadRequest(
            "this is not HTTP/1.1 as this server understands it; send GET /token",
        ))
    } else {
        End::Done
    }
}

/// Answers one request.
fn answer(
    request: &Request<Incoming>,
    peer: Peer,
    loopback_only: bool,
    house: &House,
    presence: &Presence,
    talk: &Talk,
) -> Response<Full<Bytes>> {
    let asked_at = Instant::now();
    talk.phase.set(Phase::Answering);
    let answer = route::answer(request, loopback_only, &*house.tokens);
    // No route reads a body: where it ends is left open, and with it where the next request begins.
    talk.unread.set(!request.body().is_end_stream());
    let mut response = match answer {
        Ok(body) => reply::response(body),
        Err(refusal) => {
            note(&refusal, request, peer, house, asked_at);
            talk.unread.set(talk.unread.get() || refusal.closes());
            refusal.response()
        }
    };
    if talk.unread.get() || house.crowd.is_closing() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    house.tally.answered.add_one();
    presence.served();
    talk.phase.set(Phase::Sending(asked_at));
    if report::says(Level::Deeds) {
        let method = report::printable(request.method().as_str(), 10);
        let (path, status) =
            (route::printable_path(request.uri().path()), response.status().as_u16());
        deed!("serve: {method} {path} {status} {peer} {}us", asked_at.elapsed().as_micros());
    }
    response
}

/// Lets the operator know of a refusal that may be an attack, or a proxy in the way.
fn note(refusal: &Refusal, request: &Request<Incoming>, peer: Peer, house: &House, now: Instant) {
    match refusal {
        Refusal::Forwarded => {
            house.tally.forwarded.add_one();
            house.tally.refused(peer, "the request was forwarded by a proxy", now.into_std());
        }
        Refusal::Misdirected => {
            house.tally.misdirected.add_one();
            let host = request.headers().get(header::HOST).map_or(&b""[..], HeaderValue::as_bytes);
            let host = report::printable(&String::from_utf8_lossy(host), 60);
            house.tally.refused(
                peer,
                format_args!("asked for host {host}, on a loopback address"),
                now.into_std(),
            );
        }
        _ => {}
    }
}

/// Says the last words, if any, closes our side, and gives the peer a moment to read them and close its own.
async fn farewell(mut stream: Stream, last_words: Option<&Refusal>) {
    // Whatever fails here, the connection ends with this function.
    let _ = timeout(FAREWELL_LIMIT, async {
        if let Some(refusal) = last_words {
            stream.write_all(&refusal.bytes()).await?;
        }
        stream.shutdown().await?;
        let mut discarded = 0;
        while discarded < FAREWELL_BYTES {
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
        let mut bytes = [0; 16 * 1024];
        let mut buf = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut buf))?;
        Poll::Ready(Ok(buf.filled().len()))
    })
    .await
}
