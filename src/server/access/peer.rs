//! Who is at the other end of a connection, and at what kind of address it came in. Judges nobody.

use std::fmt;
use std::net::IpAddr;

/// What is known of a caller before it has sent a byte.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) peer: Peer,
    /// Whether it connected to a loopback address, so that every Host must be one.
    pub(crate) to_loopback: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Peer {
    /// An IPv4 address is one even if a v6 socket showed it.
    Ip(IpAddr),
    /// A process that may open the unix socket.
    Local,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Ip(ip) => ip.fmt(f),
            Peer::Local => f.write_str("unix"),
        }
    }
}
