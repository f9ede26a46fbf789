//! The signals that ask the process to end, or to read anew what it works from. Only what runs an event loop waits for
//! them.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask the process to end, caught from now on.
pub(crate) struct Shutdown(Vec<Signal>);

impl Shutdown {
    /// SIGTERM and SIGINT.
    pub(crate) fn listen() -> io::Result<Shutdown> {
        Shutdown::by(&[SignalKind::terminate(), SignalKind::interrupt()])
    }

    /// SIGTERM, SIGINT and SIGHUP: for what a terminal takes with it when it is closed.
    pub(crate) fn listen_with_hangup() -> io::Result<Shutdown> {
        Shutdown::by(&[SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()])
    }

    fn by(kinds: &[SignalKind]) -> io::Result<Shutdown> {
        kinds.iter().map(|kind| signal(*kind)).collect::<io::Result<_>>().map(Shutdown)
    }

    /// Ready when the next of them has come.
    pub(crate) async fn requested(&mut self) {
        poll_fn(|cx| match self.0.iter_mut().any(|signal| signal.poll_recv(cx).is_ready()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }
}

/// SIGHUP, caught from now on: by custom a server reads anew what it works from, and does not end.
pub(crate) struct Hangup(Signal);

impl Hangup {
    pub(crate) fn listen() -> io::Result<Hangup> {
        signal(SignalKind::hangup()).map(Hangup)
    }

    /// Ready when the next one has come.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_recv(cx).map(|_| ())
    }
}
