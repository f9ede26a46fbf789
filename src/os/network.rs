//! Which addresses are this host's own. Sends nothing.

use std::net::{IpAddr, UdpSocket};

/// Whether an address is this host's own: only to such a one can a socket be bound.
pub(crate) fn is_own(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_address_is_own_and_one_for_documents_is_not() {
        for (ip, expected) in [("127.0.0.1", true), ("127.9.9.9", true), ("192.0.2.1", false)] {
            assert_eq!(is_own(ip.parse().unwrap()), expected, "{ip}");
        }
    }
}
