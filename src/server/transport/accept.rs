//! Accepts connections, refuses peers whose address is not allowed, and evicts connections to make room for others.
//! Reads nothing of what peers send.

use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::task::{spawn_local, yield_now};
use tokio::time::{Instant, sleep};

use super::Transport;
use super::closing;
use super::connection;
use super::socket::{Listener, Stream};
use super::tls::{ACCESS_DENIED, INTERNAL_ERROR};
use crate::server::access::AccessRules;
use crate::server::access::forwarded::ClientAddress;
use crate::server::access::peer::{ConnectionInfo, NetworkId, Peer};
use crate::server::routes::rejection::Rejection;
use crate::server::routes::response;
use crate::server::state::ServerState;
use crate::server::state::log_messages::TOO_MANY_CONNECTIONS;

/// How long to wait after the kernel could not accept a connection. Without descriptors it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections until it is cancelled. Goes on after any error.
pub(crate) async fn accept(listener: Listener, transport: Rc<Transport>) {
    let state = &transport.state;
    loop {
        match listener.accept().await {
            Ok((stream, info)) => admit(stream, info, &transport).await,
            // The peer closed the connection before it was accepted.
            Err(err)
                if matches!(
                    err.kind(),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                ) => {}
            Err(err) => {
                state.log.not_accepted(Instant::now(), &err);
                if let Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) =
                    Errno::from_io_error(&err)
                {
                    // Idle connections hold descriptors and memory; close one.
                    if state.connections.next_stays_for(Instant::now()) == Some(Duration::ZERO) {
                        state.connections.evict();
                    }
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves a connection if its peer's address is allowed and holds less than its share. Evicts another connection for it
/// if there is no free slot, but not for one that is refused. While the requests of all connections are being answered, it
/// waits, and those after it wait in the kernel's queue.
///
/// The slot is claimed before the evicted connection is closed, so that another listener does not take it too. What is
/// waited for after that is the descriptor.
async fn admit(stream: Stream, info: ConnectionInfo, transport: &Rc<Transport>) {
    let Transport { state, tls, .. } = &**transport;
    let connections = &state.connections;
    state.counters.accepted();
    let holder = bounded_address(info.peer, &state.snapshot.get().access);
    if connections.is_full() || holder.is_some_and(|it| connections.is_at_share(it)) {
        // Another connection may not be idle any more: its request has arrived, and its task has not seen it yet.
        yield_now().await;
    }
    let refused = refusal(info.peer, holder, state);
    let is_allowed = refused.is_none();
    if let Some(rejection) = refused {
        match (&stream, tls) {
            // A handshake would cost too much for a peer that is refused.
            (Stream::Tcp(_), Some(_)) => stream.send_and_shut_down(match rejection {
                Rejection::TooManyConnections(..) => &INTERNAL_ERROR,
                _ => &ACCESS_DENIED,
            }),
            // The path is unknown yet, and may be one for SDKs.
            _ => stream.send_and_shut_down(&response::refuse_in_bytes(&rejection, Some(info.peer))),
        }
        state.counters.refused(rejection.code());
    }
    while connections.is_full() && !connections.evict_leaving() {
        if !is_allowed {
            return;
        }
        match connections.next_stays_for(Instant::now()) {
            Some(Duration::ZERO) => {
                state.log.evicted(Instant::now(), connections.capacity());
                connections.evict();
            }
            Some(rest) => sleep(rest).await,
            None => {
                state.log.all_in_flight(Instant::now(), connections.capacity());
                connections.freed().await;
            }
        }
    }
    let slot = connections.claim(holder, Instant::now());
    if !is_allowed {
        slot.mark_leaving();
    }
    // With few slots, this connection may be evicted for the next one while it waits.
    let room = pin!(connections.wait_until_at_most(connections.capacity()));
    if slot.run_until_evicted(room).await.is_none() {
        return;
    }
    if is_allowed {
        spawn_local(connection::serve(stream, info, Rc::clone(transport), slot));
    } else {
        spawn_local(closing::turn_away(stream, slot));
    }
}

/// Returns the address that a connection counts for. `None` if its peer may hold all slots: a process of this machine, or a
/// trusted proxy, whose connections are those of many clients.
fn bounded_address(peer: Peer, access: &AccessRules) -> Option<NetworkId> {
    match peer {
        Peer::Ip(ip) if !ip.is_loopback() && !access.proxies().contains(peer) => {
            Some(peer.network_id())
        }
        Peer::Ip(_) | Peer::Unix => None,
    }
}

/// Returns why this peer may not have another connection, and logs it. If the peer's address holds its share, a connection
/// of its own makes room, if there is one that can.
fn refusal(peer: Peer, holder: Option<NetworkId>, state: &ServerState) -> Option<Rejection> {
    let Peer::Ip(ip) = peer else { return None };
    let (connections, now) = (&state.connections, Instant::now());
    let client = ClientAddress::Direct(peer);
    if !state.snapshot.get().access.allows_connection(peer) {
        let rejection = Rejection::Forbidden(ip);
        state.log.refused(now, rejection.code(), client, peer, state.not_allowed(&peer));
        return Some(rejection);
    }
    let holder = holder.filter(|it| connections.is_at_share(*it))?;
    let share = connections.share();
    if connections.evict_of(holder, now) {
        state.log.evicted_for_itself(now, peer, share);
        return None;
    }
    let rejection = Rejection::TooManyConnections(ip, share);
    let why = TOO_MANY_CONNECTIONS.with([&share]);
    state.log.refused(now, rejection.code(), client, peer, why);
    Some(rejection)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;
    use tokio::task::LocalSet;
    use tokio::time::timeout;

    use std::cell::{Cell, RefCell};
    use std::sync::Arc;

    use crate::accounts::{AccountResources, Accounts};
    use crate::os::clock::SystemClock;
    use crate::server::gateway::Gateway;
    use crate::server::reload::Reloaded;
    use crate::server::state::counters::Counters;
    use crate::server::state::date::HttpDate;
    use crate::server::state::log_limit::ThrottledLog;
    use crate::server::state::slots::Connections;
    use crate::server::state::snapshot::{AccessRead, LiveSnapshot, ServerSettings};
    use crate::server::transport::repeated::SharedRequests;

    /// Fills all slots, lets two connections in at once, and returns how many are open afterwards.
    async fn two_at_once(capacity: usize) -> usize {
        let settings = Reloaded::new("", |_| {
            Ok(Box::new(|_: Option<&ServerSettings>| {
                let accounts = Accounts::new(Vec::new(), None, &AccountResources::for_tests());
                ServerSettings::new(AccessRead::default(), accounts)
            }))
        });
        let state = Rc::new(ServerState {
            snapshot: LiveSnapshot::new(settings.expect("nothing to read")),
            reloads: RefCell::default(),
            storms: RefCell::default(),
            connections: Connections::new(capacity),
            counters: Counters::default(),
            certificate_end: Cell::default(),
            log: ThrottledLog::default(),
            date: HttpDate::default(),
            clock: Arc::new(SystemClock),
        });
        let transport = Rc::new(Transport {
            state,
            tls: None,
            gateway: Gateway::default(),
            parsers: Rc::default(),
            repeated: SharedRequests::default(),
        });
        let mut peers = Vec::new();
        for arrivals in [capacity, 2] {
            let mut admitting = Vec::new();
            for _ in 0..arrivals {
                let (accepted, peer) = UnixStream::pair().expect("a pair");
                peers.push(peer);
                let transport = Rc::clone(&transport);
                admitting.push(spawn_local(async move {
                    let info = ConnectionInfo { peer: Peer::Unix, is_to_loopback: false };
                    admit(Stream::Unix(accepted), info, &transport).await;
                }));
            }
            for task in admitting {
                timeout(Duration::from_secs(5), task)
                    .await
                    .expect("no wait is endless")
                    .expect("no panic");
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
    fn two_connections_accepted_at_once_never_get_the_same_slot() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        for capacity in 1..=3 {
            let open = LocalSet::new().block_on(&runtime, two_at_once(capacity));
            assert_eq!(open, capacity);
        }
    }
}
