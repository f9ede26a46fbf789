//! Connections: listening sockets, TLS, and the life of each connection.

pub(crate) mod accept;
pub(crate) mod connection;
pub(crate) mod socket;
pub(crate) mod tls;

use std::rc::Rc;

use self::tls::Tls;
use super::reload::Reloaded;
use super::state::ServerState;

/// What every connection of a server needs.
pub(crate) struct Transport {
    pub(crate) shared: Rc<ServerState>,
    /// Present if connections over TCP must use TLS.
    pub(crate) tls: Option<Reloaded<Tls>>,
}
