//! The body of a call as it comes from the client: read whole, or passed on piece by piece.

use std::collections::VecDeque;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes};
use tokio::time::timeout;

use super::Gateway;
use super::body::ClientBody;
use super::error::{BODY_GAP, GatewayError, MAX_CHUNKED};

/// The largest body with a `Content-Length` that is read whole, so that its call can be repeated with another token.
const MAX_KEPT: u64 = 1024 * 1024;

/// How many bytes of bodies are held at once, of all calls together.
const MAX_HELD: usize = 256 * 1024 * 1024;

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
    while !body.is_end_stream() {
        let Some(piece) = next_piece(body).await? else { break };
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

/// Returns the next piece of a client's body; `None` after its end.
pub(super) async fn next_piece(body: &mut ClientBody<'_>) -> Result<Option<Bytes>, GatewayError> {
    loop {
        match timeout(BODY_GAP, body.frame()).await {
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

/// Bytes of a body that are held, which count until this is dropped.
pub(super) struct HeldBytes<'a> {
    gateway: &'a Gateway,
    bytes: usize,
}

impl Gateway {
    pub(super) fn hold(&self) -> HeldBytes<'_> {
        HeldBytes { gateway: self, bytes: 0 }
    }
}

impl HeldBytes<'_> {
    pub(super) fn add(&mut self, bytes: usize) -> Result<(), GatewayError> {
        let held = self.gateway.held.get() + bytes;
        if held > MAX_HELD {
            return Err(GatewayError::Overloaded);
        }
        self.gateway.held.set(held);
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for HeldBytes<'_> {
    fn drop(&mut self) {
        self.gateway.held.set(self.gateway.held.get() - self.bytes);
    }
}
