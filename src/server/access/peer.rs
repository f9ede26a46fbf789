//! What is known about a connection before it has sent a byte. Makes no decision about it.

use std::fmt;
use std::net::IpAddr;

/// A connection that was accepted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionInfo {
    pub(crate) peer: Peer,
    /// Whether it was made to a loopback address of this machine, whatever address the listener has.
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

/// What the addresses of one host have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum NetworkId {
    V4(u32),
    /// The first 64 bits: a host has at least the rest of them for itself.
    V6(u64),
    Unix,
}

impl Peer {
    pub(crate) fn network_id(self) -> NetworkId {
        match self {
            Peer::Ip(IpAddr::V4(ip)) => NetworkId::V4(ip.to_bits()),
            Peer::Ip(IpAddr::V6(ip)) => NetworkId::V6((ip.to_bits() >> 64) as u64),
            Peer::Unix => NetworkId::Unix,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Ip(ip) => ip.fmt(f),
            Peer::Unix => f.write_str("unix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_host_are_those_that_share_64_bits_and_of_ipv4_the_same_one() {
        let id = |text: &str| Peer::Ip(text.parse().unwrap()).network_id();
        assert_eq!(id("2001:db8:1:2::1"), id("2001:db8:1:2:ffff::2"));
        assert_ne!(id("2001:db8:1:2::1"), id("2001:db8:1:3::1"));
        assert_ne!(id("2001:db8::1"), id("2001:db9::1"));
        assert_ne!(id("10.0.0.1"), id("10.0.0.2"));
        assert_ne!(id("0.0.0.1"), id("::1"));
        assert_ne!(id("::1"), Peer::Unix.network_id());
    }

    #[test]
    fn a_peer_is_shown_by_its_address() {
        assert_eq!(Peer::Ip("10.0.0.1".parse().unwrap()).to_string(), "10.0.0.1");
        assert_eq!(Peer::Unix.to_string(), "unix");
    }
}
