//! Decides whether a Host header names this machine by a loopback name. Resolves no name.

use crate::model::address::host_port::HostPort;

/// Whether a Host header, or the authority of a request target, is `localhost` or a loopback address, with any port.
///
/// A web page can point a name of its own at 127.0.0.1 and so make a browser send requests here (DNS rebinding). Such
/// requests carry that name as their Host.
pub(crate) fn is_loopback(authority: &str) -> bool {
    // RFC 3986, section 3.2.3: an empty port stands for the default one.
    let authority = authority.strip_suffix(':').unwrap_or(authority);
    HostPort::parse(authority).is_some_and(|parsed| parsed.host.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_loopback() {
        for host in [
            "localhost",
            "LocalHost:7200",
            "localhost:",
            "127.0.0.1",
            "127.0.0.1:7200",
            "127.9.9.9:1",
            "[::1]",
            "[::1]:7200",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]:80",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            ":7200",
            "evil.example",
            "localhost.evil.example",
            "evil.localhost",
            "localhost.",
            "localhost:x",
            "localhost:+1",
            "localhost:70000",
            "localhost:1:2",
            "127.0.0.1.evil.example",
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "127.0.0.01",
            "10.0.0.1",
            "0.0.0.0",
            "::1",
            "::1:80",
            "[::1",
            "[::1]7200",
            "[::2]:80",
            "[127.0.0.1]",
            "user@localhost",
            "localhost/",
            " localhost",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
