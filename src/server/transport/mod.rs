//! Connections: listening sockets, TLS, and the life of each connection. What a request gets is up to the routes.
//!
//! All times here come from tokio's clock, as its timers do.

pub(crate) mod accept;
mod accepted;
mod answer;
mod closing;
mod connection;
mod parsing;
mod progress;
pub(crate) mod repeated;
pub(crate) mod socket;
pub(crate) mod tls;
mod tracked;

use std::cell::Cell;
use std::rc::Rc;

use self::repeated::SharedRequests;
use self::tls::Tls;
use super::gateway::Gateway;
use super::state::ServerState;

/// What all connections of a server need.
pub(crate) struct Transport {
    pub(crate) state: Rc<ServerState>,
    /// Present if connections over TCP must use TLS.
    pub(crate) tls: Option<Tls>,
    pub(crate) gateway: Gateway,
    /// How many connections have a parser, or keep a request of their own in its place.
    pub(crate) parsers: Rc<Cell<usize>>,
    pub(crate) repeated: SharedRequests,
}
