//! How much memory and time a client may take, and a timer that is cheap to move. The limits are enforced elsewhere.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::os::hook;

/// The largest request line with headers, in bytes. An SDK sends a few hundred; hyper accepts no smaller limit.
pub(crate) const MAX_HEAD: usize = 8 * 1024;

/// The largest body of a request, in bytes. A request as WeChat's own API takes has a few hundred.
pub(crate) const MAX_BODY: u64 = 16 * 1024;

/// How long a request may take to arrive, from its first byte. For the first request of a connection the time runs from
/// the accept, and includes the TLS handshake.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a route may take to answer. Longer than the server waits for WeChat.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a call may take that is passed on to WeChat, from the last byte of its body that came. The gateway has closer
/// limits of its own for each step; a large body on a slow way to WeChat takes minutes.
pub(crate) const FORWARD_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// How long an answer that streams may stand still, because the client reads nothing.
pub(crate) const STREAM_GAP: Duration = Duration::from_secs(60);

/// How long a client may take to read an answer: as long as a request may take to arrive.
pub(crate) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may be idle between requests. A client that asks less than once a minute, such as a cron job,
/// gains nothing from a kept-alive connection.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the parser of a connection is kept after an answer, or the request in its place. It is most of what a connection
/// costs in memory; a busy client asks again sooner.
pub(crate) const PARSER_KEPT: Duration = Duration::from_secs(1);

/// How many connections have a parser at once for that reason alone. If there are more, an answered connection drops its own
/// at once.
pub(crate) const MAX_KEPT_PARSERS: usize = 256;

/// How long a client has to read a last answer and to close its side, until the server closes the connection.
pub(crate) const LINGERING_TIMEOUT: Duration = Duration::from_secs(2);

/// How many bytes are read and dropped in that time: a megabyte that was sent by mistake, and some more. Closing a
/// connection with unread bytes resets it, and the client may lose the answer.
pub(crate) const MAX_LINGERING: usize = 2 * 1024 * 1024;

/// How long answers and hooks under way may take after SIGTERM. systemd kills the process after 90 s.
pub(crate) const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

const _: () =
    assert!(hook::TIME_AT_END.as_secs() + hook::GRACE.as_secs() < SHUTDOWN_TIMEOUT.as_secs());

/// How much longer a token that WeChat has issued by then may take to be published.
pub(crate) const PUBLISHING_TIMEOUT: Duration = Duration::from_secs(3);

/// Polls until this time. The timer is moved to a later time only when it fires, so that it costs nothing while all goes well.
pub(super) fn poll_deadline(
    mut timer: Pin<&mut Sleep>,
    deadline: Instant,
    cx: &mut Context<'_>,
) -> Poll<()> {
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
