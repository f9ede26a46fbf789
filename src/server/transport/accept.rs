//! Who gets in: takes connections, refuses addresses that are not allowed, and makes room where there is none.
//! Reads nothing of what callers send.

use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::Transport;
use super::connection;
use super::socket::{Listener, Stream};
use super::tls::ACCESS_DENIED;
use crate::server::access::peer::{ConnectionInfo, Peer};
use crate::server::routes::response::Rejection;

/// Descriptors that are not connections: stdin, stdout, stderr, the runtime's four, a document being read, and what
/// was accepted a moment before somebody made room for it.
const RESERVED_DESCRIPTORS: u64 = 24;

/// How long to leave the kernel alone when it cannot accept: without descriptors it would say so again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Takes connections for as long as it is let. No failure to accept ends it.
pub(crate) async fn accept(listener: Listener, transport: Rc<Transport>) {
    let shared = &transport.shared;
    loop {
        match listener.accept().await {
            Ok((stream, info)) => admit(stream, info, &transport).await,
            // The peer's own affair: it was gone before its turn.
            Err(err)
                if matches!(
                    err.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                ) => {}
            Err(err) => {
                shared.log.not_accepted(&err);
                if let Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) =
                    Errno::from_io_error(&err)
                {
                    // What is short, whoever is idle holds some of.
                    if shared.connections.next_stays_for(Instant::now()).is_none() {
                        shared.connections.evict();
                    }
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Lets a caller in if its address is allowed; others make room for it, but never for a stranger.
///
/// Its slot is claimed before the one who makes room has gone: another listener that is full at the same moment must
/// see that this one is not free. What is waited for afterwards is a descriptor.
async fn admit(stream: Stream, info: ConnectionInfo, transport: &Rc<Transport>) {
    let Transport { shared, tls } = &**transport;
    let connections = &shared.connections;
    shared.counters.accepted();
    let stranger = match info.peer {
        Peer::Ip(ip) if !shared.snapshot.get().access.allows_connection(info.peer) => Some(ip),
        Peer::Ip(_) | Peer::Unix => None,
    };
    let is_allowed = stranger.is_none();
    if let Some(address) = stranger {
        let rejection = Rejection::Forbidden(address);
        match (&stream, tls) {
            // No handshake is spent on a stranger.
            (Stream::Tcp(_), Some(_)) => stream.say_at_once(&ACCESS_DENIED),
            _ => stream.say_at_once(&rejection.bytes()),
        }
        shared.counters.refused(rejection.error());
        shared.log.rejected(info.peer, "not in --allow");
    }
    while connections.is_full() && !connections.evict_leaving() {
        if !is_allowed {
            return;
        }
        match connections.next_stays_for(Instant::now()) {
            Some(rest) => sleep(rest).await,
            None => {
                shared.log.evicted(connections.capacity());
                connections.evict();
            }
        }
    }
    let slot = connections.claim(Instant::now());
    if !is_allowed {
        slot.leaving();
    }
    // Where there is room for few, it may have been evicted for the next one by now.
    let room = pin!(connections.at_most(connections.capacity()));
    if slot.until_evicted(room).await.is_none() {
        return;
    }
    if is_allowed {
        spawn_local(connection::serve(stream, info, Rc::clone(transport), slot));
    } else {
        spawn_local(connection::turn_away(stream, slot));
    }
}

/// How many connections the descriptors allow, up to `wanted`; the limit is raised as far as it is needed and allowed.
pub(crate) fn capacity(wanted: usize, listeners: usize) -> usize {
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
    use tokio::task::LocalSet;
    use tokio::time::timeout;

    use std::cell::RefCell;

    use crate::accounts::Accounts;
    use crate::server::access::AccessRules;
    use crate::server::reload::Reloaded;
    use crate::server::state::ServerState;
    use crate::server::state::Snapshot;
    use crate::server::state::counters::Counters;
    use crate::server::state::log_limit::ThrottledLog;
    use crate::server::state::slots::Connections;

    /// Two listeners that are full accept at the same moment; how many connections are open afterwards.
    async fn two_at_once(capacity: usize) -> usize {
        let shared = Rc::new(ServerState {
            snapshot: Reloaded::new("", |_| {
                Ok(Snapshot { access: AccessRules::default(), accounts: Accounts::new([]) })
            })
            .expect("nothing to read"),
            storms: RefCell::default(),
            connections: Connections::new(capacity),
            counters: Counters::default(),
            log: ThrottledLog::default(),
        });
        let transport = Rc::new(Transport { shared, tls: None });
        let mut peers = Vec::new();
        for arrivals in [capacity, 2] {
            let mut admitting = Vec::new();
            for _ in 0..arrivals {
                let (ours, theirs) = UnixStream::pair().expect("a pair");
                peers.push(theirs);
                let transport = Rc::clone(&transport);
                admitting.push(spawn_local(async move {
                    let info = ConnectionInfo { peer: Peer::Unix, is_to_loopback: false };
                    admit(Stream::Unix(ours), info, &transport).await;
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
