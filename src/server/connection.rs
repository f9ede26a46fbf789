//! One connection from its first byte to its last: HTTP by hyper, and the time that a peer may take for each thing.
//! What a request gets is decided elsewhere.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn, ready};
use std::io;
use std::mem::MaybeUninit;
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
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::House;
use super::crowd::Presence;
use super::listen::{Peer, Stream};
use super::reply::{self, Refusal};
use super::route::{self, Route};
use super::tokens::{Lookup, Tokens};
use crate::report::{self, Level, info};

/// The largest request line and headers together: an SDK sends a few hundred bytes. hyper reads no less than this.
const MAX_HEAD: usize = 8 * 1024; // bytes

/// How long a request may take to arrive, from its first byte; the first one, from the connection's beginning.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(10);

/// How long a peer may take to read an answer: as long as it may take to ask.
const SENDING_LIMIT: Duration = Duration::from_secs(10);

/// How long a kept-alive connection may be silent: longer than the minute between two runs of a cron job is no use.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// How much of a request is read before there is a parser for it: all of an SDK's.
const READ_AHEAD: usize = 2 * 1024; // bytes

/// How long a refused peer has to read why and to hang up, before the connection is cut.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);

/// How much of what a refused peer still sends is read and thrown away. A connection that is closed with bytes unread
/// is reset, and the peer may lose the answer; this much covers a megabyte sent by mistake.
const FAREWELL_BYTES: usize = 2 * 1024 * 1024; // bytes

/// How much of a method and of a host is shown in a line: all of a real one.
const LONGEST_METHOD_SHOWN: usize = 10; // characters
const LONGEST_HOST_SHOWN: usize = 60; // characters

/// What is under way on a connection, and since when.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Connected, not a byte yet.
    Fresh(Instant),
    /// Some of a request is here.
    Arriving(Instant),
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

    /// When it is enough.
    fn deadline(&self) -> Instant {
        match self.phase.get() {
            Phase::Fresh(since) | Phase::Arriving(since) => since + ARRIVAL_LIMIT,
            Phase::Sending(since) => since + SENDING_LIMIT,
            Phase::Idle(since) => since + IDLE_LIMIT,
        }
    }

    fn nothing_under_way(&self) -> bool {
        matches!(self.phase.get(), Phase::Fresh(_) | Phase::Idle(_))
    }

    fn heard_something(&self) {
        match self.phase.get() {
            Phase::Fresh(since) => self.phase.set(Phase::Arriving(since)),
            Phase::Idle(_) => self.phase.set(Phase::Arriving(Instant::now())),
            Phase::Arriving(_) | Phase::Sending(_) => {}
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
    calm: Calm,
    line: Rc<Line>,
}

impl AsyncRead for Overheard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.calm.ahead.is_empty() {
            let length = buf.remaining().min(self.calm.ahead.len());
            buf.put_slice(&self.calm.ahead.split_to(length));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.calm.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.line.talk.heard_something();
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
        match self.line.talk.phase.get() {
            Phase::Sending(_) => Pin::new(&mut self.calm.stream).poll_write(cx, buf),
            // No answer of ours is due, so this is hyper's own to what it could not parse: a bare status. It is kept
            // back, and what callers can rely on is written when hyper has ended.
            Phase::Fresh(_) | Phase::Arriving(_) | Phase::Idle(_) => Poll::Ready(Ok(buf.len())),
        }
    }

    /// hyper comes here when it has no more to write.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.calm.stream).poll_flush(cx))?;
        self.line.talk.sent_everything();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.calm.stream).poll_shutdown(cx)
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
    /// Not at all: what was asked is answered, and more may come.
    Quiet,
}

/// Serves one peer until either side has had enough.
pub(super) async fn serve(
    stream: Stream,
    peer: Peer,
    loopback_only: bool,
    house: Rc<House>,
    presence: Presence,
) {
    let now = Instant::now();
    let line = Rc::new(Line { peer, loopback_only, house, presence, talk: Talk::begun_at(now) });
    let life = pin!(async {
        let mut alarm = pin!(sleep_until(now + ARRIVAL_LIMIT));
        let mut calm = Calm { stream, ahead: Bytes::new() };
        let end = loop {
            if let Some(end) = line.silence(&mut calm, alarm.as_mut()).await {
                break end;
            }
            // Boxed, so that the silent ones do not keep room for what a request needs.
            let (end, after) = Box::pin(exchange(calm, &line, alarm.as_mut())).await;
            calm = after;
            if !matches!(end, End::Quiet) {
                break end;
            }
        };
        line.part(calm.stream, end).await;
    });
    line.presence.until_sent_out(life).await;
}

/// Lets a peer that was turned away read why and hang up.
pub(super) async fn turned_away(stream: Stream, presence: Presence) {
    presence.until_sent_out(pin!(farewell(stream, None))).await;
}

/// A connection while no request is under way: no parser, no buffers.
struct Calm {
    stream: Stream,
    /// What has been read of the next request, if it has begun after all.
    ahead: Bytes,
}

/// What is known of a connection for as long as it lasts.
struct Line {
    peer: Peer,
    loopback_only: bool,
    house: Rc<House>,
    presence: Presence,
    talk: Talk,
}

impl Line {
    /// Waits for the next request to begin; an end, if the connection ends before.
    async fn silence(&self, calm: &mut Calm, mut alarm: Pin<&mut Sleep>) -> Option<End> {
        poll_fn(|cx| {
            if !calm.ahead.is_empty() {
                return Poll::Ready(None);
            }
            // Read rather than asked for: a stream that nobody has tried yet says that it is ready.
            let mut bytes = [MaybeUninit::uninit(); READ_AHEAD];
            let mut buf = ReadBuf::uninit(&mut bytes);
            if let Poll::Ready(read) = Pin::new(&mut calm.stream).poll_read(cx, &mut buf) {
                if read.is_err() || buf.filled().is_empty() {
                    return Poll::Ready(Some(End::Done));
                }
                self.talk.heard_something();
                calm.ahead = Bytes::copy_from_slice(buf.filled());
                return Poll::Ready(None);
            }
            if self.house.crowd.is_closing() {
                return Poll::Ready(Some(End::Done));
            }
            poll_alarm(alarm.as_mut(), self.talk.deadline(), cx).map(|()| Some(End::Late))
        })
        .await
    }

    /// Says what is still to be said, and closes.
    async fn part(&self, stream: Stream, end: End) {
        // Into half an answer no other one can be written.
        let can_speak = !matches!(self.talk.phase.get(), Phase::Sending(_));
        let last_words = match end {
            End::Done | End::Quiet => None,
            End::Unparsed(refusal) => can_speak.then_some(refusal),
            End::Late => {
                self.house.tally.late.add_one();
                // Whoever said nothing did not ask anything.
                (can_speak && !self.talk.nothing_under_way()).then_some(Refusal::TooSlow)
            }
        };
        if let Some(refusal) = &last_words {
            info!("serve: (no request) {} {}", refusal.status().as_u16(), self.peer);
        }
        if last_words.is_some() || self.talk.unread.get() {
            self.presence.leaves();
            farewell(stream, last_words.as_ref()).await;
        }
    }
}

/// Ready when `deadline` has passed. The alarm is set forward only when it rings, so a request costs no timer.
fn poll_alarm(mut alarm: Pin<&mut Sleep>, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        if deadline < alarm.deadline() {
            alarm.as_mut().reset(deadline);
        }
        ready!(alarm.as_mut().poll(cx));
        if deadline <= Instant::now() {
            return Poll::Ready(());
        }
        alarm.as_mut().reset(deadline);
    }
}

/// Requests and answers, until there are no more, or none under way.
async fn exchange(calm: Calm, line: &Rc<Line>, mut alarm: Pin<&mut Sleep>) -> (End, Calm) {
    let service = {
        let line = Rc::clone(line);
        service_fn(move |request| ready(Ok::<_, Infallible>(answer(&request, &line))))
    };
    let mut http = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        // Somebody who shuts down his side after asking still gets his answer.
        .half_close(true)
        .serve_connection(TokioIo::new(Overheard { calm, line: Rc::clone(line) }), service);
    let talk = &line.talk;
    let end = poll_fn(|cx| {
        if let Poll::Ready(result) = http.poll_without_shutdown(cx) {
            return Poll::Ready(result.map_or_else(end_of, |()| End::Done));
        }
        if talk.nothing_under_way() && line.house.crowd.is_closing() {
            return Poll::Ready(End::Done);
        }
        if let Phase::Idle(_) = talk.phase.get() {
            // hyper's parser and buffers are most of what a connection costs. To make them anew for each request takes
            // about a tenth more CPU, and all connections together have one set of them instead of one each.
            return Poll::Ready(End::Quiet);
        }
        poll_alarm(alarm.as_mut(), talk.deadline(), cx).map(|()| End::Late)
    })
    .await;
    let http = http.into_parts();
    let mut calm = http.io.into_inner().calm;
    if matches!(end, End::Quiet) && !http.read_buf.is_empty() {
        talk.heard_something();
        calm.ahead = http.read_buf;
    }
    (end, calm)
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

/// The body of a 200, or why there is none. Whatever an answer has to wait for is waited for here.
fn look_up(route: Route<'_>, tokens: &dyn Tokens) -> Result<Bytes, Refusal> {
    match route {
        Route::Health => Ok(reply::OK),
        Route::Ready => match tokens.not_ready() {
            none if none.is_empty() => Ok(reply::OK),
            accounts => Err(Refusal::NotReady(accounts)),
        },
        Route::Token(account) => match tokens.token(account) {
            Lookup::Token(body) => Ok(body),
            Lookup::NoToken => Err(Refusal::NoToken),
            Lookup::NoSuchAccount => Err(Refusal::NoSuchAccount),
            Lookup::WhichAccount => Err(Refusal::WhichAccount),
        },
    }
}

/// Answers one request.
fn answer(request: &Request<Incoming>, line: &Line) -> Response<Full<Bytes>> {
    let Line { peer, house, talk, .. } = line;
    let asked_at = report::says(Level::Info).then(Instant::now);
    // No route reads a body: where it ends is left open, and with it where the next request begins.
    talk.unread.set(!request.body().is_end_stream());
    let found =
        route::route(request, line.loopback_only).and_then(|route| look_up(route, &*house.tokens));
    let mut response = match found {
        Ok(body) => reply::response(body),
        Err(refusal) => {
            line.note(&refusal, request);
            talk.unread.set(talk.unread.get() || refusal.closes());
            refusal.response()
        }
    };
    if talk.unread.get() || house.crowd.is_closing() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    house.tally.answered.add_one();
    line.presence.served();
    talk.phase.set(Phase::Sending(Instant::now()));
    if let Some(asked_at) = asked_at {
        let method = report::printable(request.method().as_str(), LONGEST_METHOD_SHOWN);
        let (path, status) =
            (route::printable_path(request.uri().path()), response.status().as_u16());
        info!("serve: {method} {path} {status} {peer} {}us", asked_at.elapsed().as_micros());
    }
    response
}

impl Line {
    /// Lets the operator know of a refusal that may be an attack, or a proxy in the way.
    fn note(&self, refusal: &Refusal, request: &Request<Incoming>) {
        let now = Instant::now();
        let tally = &self.house.tally;
        match refusal {
            Refusal::Forwarded => {
                tally.forwarded.add_one();
                tally.refused(self.peer, "the request was forwarded by a proxy", now.into_std());
            }
            Refusal::Misdirected => {
                tally.misdirected.add_one();
                let host =
                    request.headers().get(header::HOST).map_or(&b""[..], HeaderValue::as_bytes);
                let host = report::printable(&String::from_utf8_lossy(host), LONGEST_HOST_SHOWN);
                tally.refused(
                    self.peer,
                    format_args!("it asked a loopback address for host {host}"),
                    now.into_std(),
                );
            }
            _ => {}
        }
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
        let mut bytes = [MaybeUninit::uninit(); 16 * 1024];
        let mut buf = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut buf))?;
        Poll::Ready(Ok(buf.filled().len()))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where `shop` has a token and the other accounts have none.
    struct Accounts(&'static [&'static str]);

    impl Tokens for Accounts {
        fn token(&self, account: Option<&str>) -> Lookup {
            match (account, self.0) {
                (None, [_, _, ..]) => Lookup::WhichAccount,
                (Some("shop"), _) | (None, ["shop"]) => Lookup::Token(Bytes::from("T1")),
                (Some(name), known) if known.contains(&name) => Lookup::NoToken,
                _ => Lookup::NoSuchAccount,
            }
        }

        fn not_ready(&self) -> Vec<String> {
            self.0.iter().filter(|name| **name != "shop").map(|name| (*name).to_owned()).collect()
        }
    }

    #[test]
    fn what_is_found_is_answered_and_what_is_not_says_why() {
        let (one, two) = (Accounts(&["shop"]), Accounts(&["shop", "branch"]));
        for (tokens, route, expected) in [
            (&one, Route::Token(None), Ok(Bytes::from("T1"))),
            (&two, Route::Token(None), Err(Refusal::WhichAccount)),
            (&two, Route::Token(Some("shop")), Ok(Bytes::from("T1"))),
            (&two, Route::Token(Some("branch")), Err(Refusal::NoToken)),
            (&two, Route::Token(Some("other")), Err(Refusal::NoSuchAccount)),
            (&one, Route::Ready, Ok(reply::OK)),
            (&two, Route::Ready, Err(Refusal::NotReady(vec!["branch".to_owned()]))),
            (&two, Route::Health, Ok(reply::OK)),
        ] {
            assert_eq!(look_up(route, tokens), expected, "{route:?}");
        }
    }
}
