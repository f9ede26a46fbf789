//! The names by which clients reach a server, as users write them and as requests give them. Resolves no name.

use std::net::{IpAddr, Ipv6Addr};

use super::faults::NO_SERVER_NAME;
use super::host_port::Host;

/// The longest name that DNS has, in characters.
const MAX_LENGTH: usize = 253;

/// A name by which clients reach a server: a host name, or an IP address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServerName {
    /// In lower case.
    Name(String),
    Ip(IpAddr),
}

impl ServerName {
    /// Parses a host name or an IP address, which may be in brackets. Fails if there is a port, or anything that no Host
    /// header holds.
    pub(crate) fn parse(text: &str) -> Result<ServerName, &'static str> {
        let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Some(ip) = bracketed {
            let ip: Ipv6Addr = ip.parse().map_err(|_| NO_SERVER_NAME)?;
            return Ok(ServerName::Ip(ip.to_canonical()));
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(ServerName::Ip(ip.to_canonical()));
        }
        let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let is_name = (1..=MAX_LENGTH).contains(&text.len()) && text.bytes().all(is_of_name);
        match is_name {
            true => Ok(ServerName::Name(text.to_ascii_lowercase())),
            false => Err(NO_SERVER_NAME),
        }
    }

    /// Whether this host has the name, in upper or lower case.
    pub(crate) fn is_of(&self, host: Host<'_>) -> bool {
        match (self, host) {
            (ServerName::Name(name), Host::Name(host)) => name.eq_ignore_ascii_case(host),
            (ServerName::Ip(ip), host) => host.ip() == Some(*ip),
            (ServerName::Name(_), Host::V6(_)) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::address::host_port::HostPort;

    #[test]
    fn a_server_name_is_a_host_without_a_port() {
        for (text, host) in [
            ("token.example.com", "TOKEN.example.com:7200"),
            ("Token.Example.COM", "token.example.com"),
            ("central", "central"),
            ("my_host", "my_host"),
            ("10.0.0.5", "10.0.0.5:80"),
            ("::ffff:10.0.0.5", "10.0.0.5"),
            ("2001:db8::5", "[2001:DB8::5]:7200"),
            ("[2001:db8::5]", "[2001:db8:0::5]"),
        ] {
            let name = ServerName::parse(text).expect(text);
            assert!(name.is_of(HostPort::parse(host).expect(host).host), "{text} {host}");
            for other in ["", "example.com", "a.token.example.com", "10.0.0.6", "[2001:db8::6]"] {
                let other = HostPort::parse(other).expect(other).host;
                assert!(!name.is_of(other), "{text} {other:?}");
            }
        }
        for wrong in [
            "",
            "token.example.com:7200",
            "10.0.0.5:7200",
            "[::1]:7200",
            "[10.0.0.5]",
            "https://token.example.com",
            "*.example.com",
            "a b",
            "令牌.example.com",
            &"x".repeat(254),
        ] {
            assert_eq!(ServerName::parse(wrong), Err(NO_SERVER_NAME), "{wrong}");
        }
    }
}
