//! Hands out tokens over HTTP/1.1, on one thread: who may connect, what they may ask, and how long they may take.
//! Knows nothing of where tokens come from; [`Tokens`] is all it asks of the rest of the program.
//!
//! A file here uses only those that stand above it.

mod limits;
mod tokens;
mod caller;
mod allow;
mod host;
mod throttle;
mod connections;
mod reply;
mod route;
mod shared;
mod listen;
mod connection;
mod admit;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;

pub(crate) use allow::Allowlist;
pub(crate) use listen::Listen;
pub(crate) use tokens::{Lookup, Tokens};

use connections::Connections;
use limits::SHUTDOWN_TIMEOUT;
use listen::Bound;
use shared::Shared;
use throttle::ThrottledLog;

use crate::report::info;
use crate::signals::Shutdown;

/// What the user decides.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) listen: Vec<Listen>,
    pub(crate) allow: Allowlist,
    pub(crate) max_connections: usize,
}

/// Listens and answers until SIGTERM or SIGINT; `listening` is told where as soon as callers can connect.
pub(crate) fn serve(
    options: Options,
    tokens: Rc<dyn Tokens>,
    listening: impl FnOnce(&[Listen]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let bound = Bound::all(&options.listen)?;
    let capacity = admit::capacity(options.max_connections, bound.len());
    if capacity < options.max_connections {
        info!("serve: no more than {capacity} connections at once, by ulimit -n");
    }
    let shared = Rc::new(Shared {
        allow: options.allow,
        tokens,
        connections: Connections::new(capacity),
        log: ThrottledLog::default(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = runtime.context("cannot start the event loop")?;
    // What is still running when this returns ends with it.
    LocalSet::new().block_on(&runtime, run(bound, listening, shared))
}

async fn run(
    bound: Vec<Bound>,
    listening: impl FnOnce(&[Listen]) -> anyhow::Result<()>,
    shared: Rc<Shared>,
) -> anyhow::Result<()> {
    let mut shutdown = Shutdown::listen().context("cannot wait for signals")?;
    // By custom SIGHUP asks a server to read anew what it serves from; here that is done for each request. Caught, it
    // does not end the process.
    let _hangup = signal(SignalKind::hangup()).context("cannot wait for signals")?;
    let addresses: Vec<Listen> = bound.iter().map(|bound| bound.at().clone()).collect();
    let mut accepting = Vec::new();
    for bound in bound {
        let listener = bound.start().context("cannot listen")?;
        accepting.push(spawn_local(admit::accept(listener, Rc::clone(&shared))));
    }
    listening(&addresses)?;

    shutdown.requested().await;
    for task in accepting {
        task.abort();
        let _ = task.await; // It was cancelled; its socket is closed and its file is gone.
    }
    shared.connections.drain();
    let mut drained = pin!(timeout(SHUTDOWN_TIMEOUT, shared.connections.at_most(0)));
    let mut again = pin!(shutdown.requested());
    poll_fn(|cx| {
        if drained.as_mut().poll(cx).is_ready() { Poll::Ready(()) } else { again.as_mut().poll(cx) }
    })
    .await;
    Ok(())
}
