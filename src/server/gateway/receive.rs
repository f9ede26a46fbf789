//! The body of a call as it comes from the client: read whole, or passed on piece by piece.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes};
use tokio::time::{Instant, timeout};

use super::Gateway;
use super::body::ClientBody;
use super::error::{BODY_GAP, GatewayError, MAX_CHUNKED};
use crate::model::status::ClientIdentity;

/// The largest body with a `Content-Length` that is read whole, so that its call can be repeated with another token.
const MAX_KEPT: u64 = 1024 * 1024;

/// How many bytes of bodies are held at once, of all calls together.
const MAX_HELD: usize = 256 * 1024 * 1024;

/// How many of these are one client's: as with connections, no client keeps the others out.
const MAX_HELD_OF_CLIENT: usize = MAX_HELD / 4;

/// A body up to this size does not count: such ones are bounded by the number of calls.
const UNCOUNTED: usize = 64 * 1024;

/// How slowly a client may send a body on the whole, in bytes a second: one that sends a byte now and then holds a connection,
/// and a call if the body streams.
const SLOWEST_BODY: u64 = 1024;

/// Returns how long the next piece of a body may take, of which this many bytes have come and were waited for so long.
pub(super) fn client_patience(received: u64, waited: Duration) -> Duration {
    let in_all = BODY_GAP + Duration::from_secs(received / SLOWEST_BODY);
    BODY_GAP.min(in_all.saturating_sub(waited))
}

/// A client's body, as far as it is read before the call is made.
pub(super) enum ReceivedBody {
    Whole(Bytes),
    /// It has this length, and streams.
    Streamed(u64),
}

/// Reads a body whole, unless it is large and has a length.
pub(super) async fn receive(
    body: &mut ClientBody<'_>,
    held: &mut HeldBytes<'_>,
) -> Result<ReceivedBody, GatewayError> {
    let length = body.size_hint().exact();
    if let Some(length) = length.filter(|length| *length > MAX_KEPT) {
        return Ok(ReceivedBody::Streamed(length));
    }
    // Most bodies arrive in one piece, and are not copied. Others are: a client that sends a byte a piece would take as much
    // memory for each as a piece's own record has.
    let (mut first, mut whole) = (Bytes::new(), Vec::new());
    let mut begun = None;
    while !body.is_end_stream() {
        let received = (first.len() + whole.len()) as u64;
        let Some(piece) = next_piece(body, received, &mut begun).await? else { break };
        if first.len() + whole.len() + piece.len() > MAX_CHUNKED {
            return Err(GatewayError::BodyTooLarge);
        }
        held.add(piece.len())?;
        if first.is_empty() && whole.is_empty() {
            first = piece;
        } else {
            whole.extend_from_slice(&std::mem::take(&mut first));
            whole.extend_from_slice(&piece);
        }
    }
    Ok(ReceivedBody::Whole(if whole.is_empty() { first } else { whole.into() }))
}

/// Returns the next piece of a client's body, of which this many bytes have come since `begun`; `None` after its end. `begun`
/// is set once it has to be waited for: most bodies arrive with their heads, and no clock is read for those.
async fn next_piece(
    body: &mut ClientBody<'_>,
    received: u64,
    begun: &mut Option<Instant>,
) -> Result<Option<Bytes>, GatewayError> {
    loop {
        let frame = match poll_fn(|cx| Poll::Ready(Pin::new(&mut *body).poll_frame(cx))).await {
            Poll::Ready(frame) => Ok(frame),
            Poll::Pending => {
                let begun = *begun.get_or_insert_with(Instant::now);
                timeout(client_patience(received, begun.elapsed()), body.frame()).await
            }
        };
        match frame {
            Err(_) => return Err(GatewayError::BodyTooSlow),
            Ok(None) => return Ok(None),
            Ok(Some(Err(_))) => return Err(GatewayError::BodyBroken),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(piece) if !piece.is_empty() => return Ok(Some(piece)),
                // Trailers are dropped: the headers did not announce them to WeChat.
                _ => {}
            },
        }
    }
}

pub(super) fn join(mut pieces: VecDeque<Bytes>) -> Bytes {
    match (pieces.pop_front(), pieces.is_empty()) {
        (None, _) => Bytes::new(),
        (Some(only), true) => only,
        (Some(first), false) => {
            pieces.push_front(first);
            pieces.into_iter().collect::<Vec<_>>().concat().into()
        }
    }
}

/// The bytes of bodies that are held, of each client.
#[derive(Default)]
pub(super) struct HeldBodies {
    total: usize,
    of_clients: HashMap<ClientIdentity, usize>,
}

impl HeldBodies {
    fn add(&mut self, client: &ClientIdentity, bytes: usize) -> Result<(), GatewayError> {
        let of_client = self.of_clients.get(client).copied().unwrap_or_default() + bytes;
        if self.total + bytes > MAX_HELD || of_client > MAX_HELD_OF_CLIENT {
            return Err(GatewayError::Overloaded);
        }
        self.total += bytes;
        self.of_clients.insert(client.clone(), of_client);
        Ok(())
    }

    fn remove(&mut self, client: &ClientIdentity, bytes: usize) {
        self.total -= bytes;
        let of_client = self.of_clients.get(client).copied().unwrap_or_default() - bytes;
        match of_client {
            0 => self.of_clients.remove(client),
            left => self.of_clients.insert(client.clone(), left),
        };
    }
}

/// The bytes of a call's body that are held, which count until this is dropped.
pub(super) struct HeldBytes<'a> {
    bodies: &'a RefCell<HeldBodies>,
    client: &'a ClientIdentity,
    bytes: usize,
}

impl Gateway {
    pub(super) fn hold<'a>(&'a self, client: &'a ClientIdentity) -> HeldBytes<'a> {
        HeldBytes { bodies: &self.held, client, bytes: 0 }
    }
}

impl HeldBytes<'_> {
    /// Bytes that count, of a body of this size.
    fn counted(size: usize) -> usize {
        if size <= UNCOUNTED { 0 } else { size }
    }

    pub(super) fn add(&mut self, bytes: usize) -> Result<(), GatewayError> {
        let (before, after) = (Self::counted(self.bytes), Self::counted(self.bytes + bytes));
        if after > before {
            self.bodies.borrow_mut().add(self.client, after - before)?;
        }
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for HeldBytes<'_> {
    fn drop(&mut self) {
        let counted = Self::counted(self.bytes);
        if counted > 0 {
            self.bodies.borrow_mut().remove(self.client, counted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    fn client(name: &str) -> ClientIdentity {
        ClientIdentity::Key(name.into())
    }

    #[test]
    fn a_body_that_comes_too_slowly_on_the_whole_is_not_waited_for_although_it_never_stops() {
        let secs = Duration::from_secs;
        assert_eq!(client_patience(0, Duration::ZERO), BODY_GAP);
        assert_eq!(client_patience(2, secs(24)), secs(6));
        assert_eq!(client_patience(3, secs(36)), Duration::ZERO);
        // One at twice that pace is.
        assert_eq!(client_patience(2048 * 600, secs(600)), BODY_GAP);
    }

    #[test]
    fn a_client_that_holds_its_share_keeps_no_other_one_out() {
        let gateway = Gateway::default();
        let (greedy, other) = (client("greedy"), client("other"));
        let mut held: Vec<_> = (0..4).map(|_| gateway.hold(&greedy)).collect();
        for body in &mut held {
            body.add(16 * MIB).unwrap();
        }
        let mut refused = gateway.hold(&greedy);
        assert_eq!(refused.add(MIB), Err(GatewayError::Overloaded));
        let mut small = gateway.hold(&greedy);
        assert_eq!(small.add(UNCOUNTED), Ok(()));
        let mut of_other = gateway.hold(&other);
        assert_eq!(of_other.add(24 * MIB), Ok(()));
        drop(held);
        assert_eq!(refused.add(MIB), Ok(()));
    }

    #[test]
    fn all_clients_together_hold_no_more_than_the_whole() {
        let gateway = Gateway::default();
        let clients: Vec<_> = (0..5).map(|nth| client(&nth.to_string())).collect();
        let mut held: Vec<_> = clients.iter().map(|client| gateway.hold(client)).collect();
        for body in &mut held[..4] {
            body.add(MAX_HELD_OF_CLIENT).unwrap();
        }
        assert_eq!(held[4].add(UNCOUNTED + 1), Err(GatewayError::Overloaded));
        assert_eq!(held[4].add(UNCOUNTED), Ok(()));
        drop(held);
        let bodies = gateway.held.borrow();
        assert!(bodies.total == 0 && bodies.of_clients.is_empty());
    }
}
