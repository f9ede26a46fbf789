//! Splits `HOST[:PORT]`, as it stands in headers, flags and URLs. Resolves no name.

use std::net::{IpAddr, Ipv6Addr};

/// A host and, if one is given, a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostPort<'a> {
    pub(crate) host: Host<'a>,
    pub(crate) port: Option<u16>,
}

/// The host of a [`HostPort`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host<'a> {
    /// A name or an IPv4 address: whatever has no brackets and no colon. It may be empty.
    Name(&'a str),
    /// An IPv6 address, which stood in brackets.
    V6(Ipv6Addr),
}

impl<'a> HostPort<'a> {
    /// Parses `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`.
    ///
    /// Fails if brackets hold anything but an IPv6 address, or if a port is not a number up to 65535.
    pub(crate) fn parse(text: &'a str) -> Option<HostPort<'a>> {
        let (host, rest) = match text.strip_prefix('[') {
            Some(bracketed) => {
                let (ip, rest) = bracketed.split_once(']')?;
                (Host::V6(ip.parse().ok()?), rest)
            }
            None => {
                let (name, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
                (Host::Name(name), rest)
            }
        };
        let port = match rest {
            "" => None,
            rest => Some(parse_port(rest.strip_prefix(':')?)?),
        };
        Some(HostPort { host, port })
    }
}

impl Host<'_> {
    /// Whether this is `localhost` or a loopback address. An IPv4 address may be mapped into IPv6.
    pub(crate) fn is_loopback(self) -> bool {
        match self {
            Host::Name(name) if name.eq_ignore_ascii_case("localhost") => true,
            host => host.ip().is_some_and(|ip| ip.is_loopback()),
        }
    }

    /// The host as an IP address, which is IPv4 even if it is mapped into IPv6; `None` for a name.
    pub(crate) fn ip(self) -> Option<IpAddr> {
        match self {
            Host::Name(name) => name.parse().ok(),
            Host::V6(ip) => Some(ip.to_canonical()),
        }
    }
}

/// Parses decimal digits. `u16::from_str` would accept a plus sign too.
fn parse_port(text: &str) -> Option<u16> {
    let has_digits_only = text.bytes().all(|byte| byte.is_ascii_digit());
    has_digits_only.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_split_from_its_port_and_anything_else_is_refused() {
        let name = |name, port| Some(HostPort { host: Host::Name(name), port });
        let v6 = |ip: &str, port| Some(HostPort { host: Host::V6(ip.parse().unwrap()), port });
        for (text, expected) in [
            ("example.com", name("example.com", None)),
            ("example.com:80", name("example.com", Some(80))),
            ("10.0.0.1:65535", name("10.0.0.1", Some(65535))),
            ("", name("", None)),
            (":80", name("", Some(80))),
            ("[::1]", v6("::1", None)),
            ("[::1]:80", v6("::1", Some(80))),
            ("example.com:", None),
            ("example.com:x", None),
            ("example.com:+80", None),
            ("example.com:65536", None),
            ("example.com:80:80", None),
            ("::1", None),
            ("[::1", None),
            ("[::1]:", None),
            ("[::1]80", None),
            ("[10.0.0.1]", None),
        ] {
            assert_eq!(HostPort::parse(text), expected, "{text}");
        }
    }
}
