//! Whom a request was meant for: whether a Host names this machine by a loopback name. Resolves nothing.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Whether a Host (or the authority of a target) is `localhost` or a loopback address, with any port.
///
/// A page in a browser can make any name of its own point to 127.0.0.1 and ask on behalf of whoever looks at it;
/// the name is what gives it away.
pub(crate) fn is_loopback(authority: &str) -> bool {
    if let Some(rest) = authority.strip_prefix('[') {
        let Some((ip, after)) = rest.split_once(']') else { return false };
        let loopback = ip.parse::<Ipv6Addr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
        return loopback && (after.is_empty() || after.strip_prefix(':').is_some_and(is_port));
    }
    let (name, port) = authority.split_once(':').unwrap_or((authority, ""));
    let loopback = name.eq_ignore_ascii_case("localhost")
        || name.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback());
    loopback && is_port(port)
}

/// A port, or nothing: RFC 3986 lets `localhost:` stand for `localhost`.
fn is_port(text: &str) -> bool {
    text.is_empty()
        || (text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok())
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
