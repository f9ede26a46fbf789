//! Hands out tokens over HTTP/1.1, on one thread: who may connect, what they may ask, and how long they may take.
//! Knows nothing of where tokens come from; [`Tokens`] is all it asks of the rest of the house.

mod allow;
mod connection;
mod crowd;
mod host;
mod listen;
mod reply;
mod route;
mod tally;
mod tokens;

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

pub(crate) use allow::Allowlist;
pub(crate) use listen::Listen;
pub(crate) use tokens::{Lookup, Tokens};

use crowd::Crowd;
use listen::{Bound, Listener, Peer, Stream};
use reply::Refusal;
use tally::Tally;

use crate::report::info;
use crate::signals::Shutdown;

/// Descriptors that are not connections: stdin, stdout, stderr, the runtime's four, a document being read, and what
/// was accepted a moment before somebody made room for it.
const RESERVED_DESCRIPTORS: u64 = 24;

/// How long to leave the kernel alone when it cannot accept: without descriptors it would say so again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long answers under way may take to finish after SIGTERM: well under the 90 s after which systemd kills.
const CLOSING_LIMIT: Duration = Duration::from_secs(5);

/// What the user decides.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) listen: Vec<Listen>,
    pub(crate) allow: Allowlist,
    pub(crate) max_connections: usize,
}

/// What all connections share.
struct House {
    allow: Allowlist,
    tokens: Rc<dyn Tokens>,
    crowd: Rc<Crowd>,
    tally: Tally,
}

/// Listens and answers until SIGTERM or SIGINT; `listening` is told where as soon as callers can connect.
pub(crate) fn serve(
    options: Options,
    tokens: Rc<dyn Tokens>,
    listening: impl FnOnce(&[Listen]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let bound = Bound::all(&options.listen)?;
    let capacity = capacity(options.max_connections, bound.len());
    if capacity < options.max_connections {
        info!("serve: no more than {capacity} connections at once, by ulimit -n");
    }
    let house = House {
        allow: options.allow,
        tokens,
        crowd: Crowd::new(capacity),
        tally: Tally::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = runtime.context("cannot start the event loop")?;
    // What is still running when this returns ends with it.
    LocalSet::new().block_on(&runtime, accept_until_told(bound, listening, Rc::new(house)))
}

async fn accept_until_told(
    bound: Vec<Bound>,
    listening: impl FnOnce(&[Listen]) -> anyhow::Result<()>,
    house: Rc<House>,
) -> anyhow::Result<()> {
    let mut shutdown = Shutdown::listen().context("cannot wait for signals")?;
    let addresses: Vec<Listen> = bound.iter().map(|bound| bound.at().clone()).collect();
    let mut accepting = Vec::new();
    for bound in bound {
        let listener = bound.start().context("cannot listen")?;
        accepting.push(spawn_local(accept(listener, Rc::clone(&house))));
    }
    listening(&addresses)?;

    shutdown.requested().await;
    for task in accepting {
        task.abort();
        let _ = task.await; // It was cancelled; its socket is closed and its file is gone.
    }
    house.crowd.close();
    let mut emptied = pin!(timeout(CLOSING_LIMIT, house.crowd.at_most(0)));
    let mut again = pin!(shutdown.requested());
    poll_fn(|cx| {
        if emptied.as_mut().poll(cx).is_ready() { Poll::Ready(()) } else { again.as_mut().poll(cx) }
    })
    .await;
    Ok(())
}

/// Takes connections for as long as it is let. No failure to accept ends it.
async fn accept(listener: Listener, house: Rc<House>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => admit(stream, peer, listener.loopback, &house).await,
            // The peer's own affair: it was gone before its turn.
            Err(err)
                if matches!(
                    err.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                ) => {}
            Err(err) => {
                house.tally.not_accepted(&err, Instant::now());
                if let Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) =
                    Errno::from_io_error(&err)
                {
                    // What is short, whoever is idle holds some of.
                    house.crowd.send_one_out();
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Lets a peer in if its address is allowed; others make room for it, but never for a stranger.
///
/// Its place is taken before the one who makes room has gone: another listener that is full at the same moment must see
/// that this one is not free. What is waited for afterwards is a descriptor.
async fn admit(stream: Stream, peer: Peer, loopback_only: bool, house: &Rc<House>) {
    let crowd = &house.crowd;
    let is_allowed = match peer {
        Peer::Ip(ip) => house.allow.contains(ip),
        Peer::Local => true,
    };
    let presence = if is_allowed {
        if crowd.is_full() && !crowd.send_a_leaver_out() {
            house.tally.crowded_out(crowd.capacity(), Instant::now());
            crowd.send_one_out();
        }
        crowd.enter()
    } else {
        stream.say_at_once(&Refusal::Forbidden.bytes());
        house.tally.strangers.add_one();
        house.tally.refused(peer, "not in --allow", Instant::now());
        if crowd.is_full() && !crowd.send_a_leaver_out() {
            return;
        }
        let presence = crowd.enter();
        presence.leaves();
        presence
    };
    // Where there is room for few, it may have been sent out for the next one by now.
    if presence.until_sent_out(pin!(crowd.at_most(crowd.capacity()))).await.is_none() {
        return;
    }
    if is_allowed {
        spawn_local(connection::serve(stream, peer, loopback_only, Rc::clone(house), presence));
    } else {
        spawn_local(connection::turned_away(stream, presence));
    }
}

/// How many connections the descriptors allow, up to `wanted`; the limit is raised as far as it is needed and allowed.
fn capacity(wanted: usize, listeners: usize) -> usize {
    let reserved = RESERVED_DESCRIPTORS + 2 * listeners.saturating_sub(1) as u64;
    let needed = (wanted as u64).saturating_add(reserved);
    let limit = getrlimit(Resource::Nofile);
    let within = |limit: Option<u64>| limit.is_none_or(|limit| needed <= limit);
    if !within(limit.current) {
        let raised = limit.maximum.map_or(needed, |hard| hard.min(needed));
        // If it is not allowed after all, the old limit stands, and is what is read below.
        let _ =
            setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum });
    }
    let allowed = getrlimit(Resource::Nofile).current.map_or(needed, |soft| soft.min(needed));
    usize::try_from(allowed.saturating_sub(reserved)).unwrap_or(wanted).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;

    struct Nobody;

    impl Tokens for Nobody {
        fn token(&self, _: Option<&str>) -> Lookup {
            Lookup::NoSuchAccount
        }

        fn not_ready(&self) -> Vec<String> {
            Vec::new()
        }
    }

    /// Two listeners accept at the same moment; what each of their peers sees afterwards.
    async fn two_at_once(capacity: usize) -> usize {
        let house = Rc::new(House {
            allow: Allowlist::default(),
            tokens: Rc::new(Nobody),
            crowd: Crowd::new(capacity),
            tally: Tally::default(),
        });
        let mut peers = Vec::new();
        for arrivals in [capacity, 2] {
            let mut admitting = Vec::new();
            for _ in 0..arrivals {
                let (ours, theirs) = UnixStream::pair().expect("a pair");
                peers.push(theirs);
                let house = Rc::clone(&house);
                admitting.push(spawn_local(async move {
                    admit(Stream::Unix(ours), Peer::Local, false, &house).await;
                }));
            }
            for task in admitting {
                timeout(Duration::from_secs(5), task).await.expect("no wait is endless").expect("");
            }
        }
        let mut open = 0;
        for peer in &mut peers {
            let closed = timeout(Duration::from_millis(50), peer.read(&mut [0])).await;
            open += usize::from(closed.is_err());
        }
        open
    }

    #[test]
    fn two_newcomers_never_share_one_freed_place() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        for capacity in 1..=3 {
            let open = LocalSet::new().block_on(&runtime, two_at_once(capacity));
            assert_eq!(open, capacity);
        }
    }
}
