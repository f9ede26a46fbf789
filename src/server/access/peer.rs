//! What is known about a connection before it has sent a byte. Makes no decision about it.

use std::fmt;
use std::net::IpAddr;

/// A connection that was accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionInfo {
    pub(crate) peer: Peer,
    /// Whether the connection came in at a loopback address, so that every Host must be a loopback name.
    pub(crate) is_to_loopback: bool,
}

/// The other end of a connection, or the client that a trusted proxy names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Peer {
    /// An IPv4 address stands here as IPv4, even if an IPv6 socket accepted the connection.
    Ip(IpAddr),
    /// A process on this machine that may open the unix socket.
    Unix,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Ip(ip) => ip.fmt(f),
            Peer::Unix => f.write_str("unix"),
        }
    }
}
