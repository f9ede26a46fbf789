//! Addresses to listen on, as users write them. Creates no socket.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use socket2::SockAddr;

use super::faults::{NO_LISTEN, NO_LISTEN_PATH};
use super::host_port::{Host, HostPort};
use crate::error::Exit;
use crate::language::bilingual;
use crate::log;

/// The longest address that an error repeats in full. The path of a socket has at most 107 bytes.
const MAX_SHOWN: usize = 120;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Listen {
    /// Parses entries like [`Listen::parse`], after trimming them. The error names every entry that is invalid.
    pub(crate) fn parse_all<S: AsRef<str>>(entries: &[S]) -> anyhow::Result<Vec<Listen>> {
        let mut problems = Vec::new();
        let mut parsed = Vec::new();
        for entry in entries.iter().map(|entry| entry.as_ref().trim()) {
            match Listen::parse(entry) {
                Ok(address) => parsed.push(address),
                Err(why) if entry.is_empty() => {
                    problems.push(format!("{}: {why}", bilingual!("an empty entry", "有空项")));
                }
                Err(why) => problems.push(format!("{}: {why}", log::printable(entry, MAX_SHOWN))),
            }
        }
        if problems.is_empty() {
            Ok(parsed)
        } else {
            Err(Exit::Usage.error(format!("--listen: {}", problems.join("; "))))
        }
    }

    /// Parses `ADDRESS:PORT`, `[ADDRESS]:PORT`, `localhost:PORT` (which means 127.0.0.1) or `unix:PATH` with an absolute path.
    /// The error says what is wrong.
    pub(crate) fn parse(entry: &str) -> Result<Listen, &'static str> {
        if let Some(path) = entry.strip_prefix("unix:") {
            return match path.chars().next() {
                // Refuses a path that is too long before anything is bound.
                Some('/') if SockAddr::unix(path).is_ok() => Ok(Listen::Unix(path.into())),
                // A relative one would be wherever the service stands, and others mean by `@` that there is no file.
                Some(first) if first != '/' => Err(NO_LISTEN_PATH),
                _ => Err(NO_LISTEN),
            };
        }
        match HostPort::parse(entry) {
            Some(HostPort { host: Host::Name("localhost"), port }) => {
                let port = port.ok_or(NO_LISTEN)?;
                Ok(Listen::Tcp((Ipv4Addr::LOCALHOST, port).into()))
            }
            // std's parser also knows IPv6 scopes.
            _ => entry.parse().map(Listen::tcp).map_err(|_| NO_LISTEN),
        }
    }

    /// Returns the TCP address, with an IPv4 address that is mapped into IPv6 turned back.
    pub(crate) fn tcp(mut address: SocketAddr) -> Listen {
        if let IpAddr::V4(mapped) = address.ip().to_canonical() {
            address.set_ip(mapped.into());
        }
        Listen::Tcp(address)
    }

    /// Whether this is an IPv4 address with this port.
    pub(crate) fn is_v4_on(&self, port: u16) -> bool {
        matches!(self, Listen::Tcp(address) if address.is_ipv4() && address.port() == port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Language;

    #[test]
    fn addresses_are_literal_and_every_invalid_one_is_named() {
        let tcp = |text: &str| Listen::Tcp(text.parse().expect("an address"));
        let good = [
            "0.0.0.0:7200",
            "[::]:7200",
            "localhost:0",
            "[::ffff:127.0.0.1]:80",
            "unix:/run/wxtoken.sock",
            " [::1]:1 ",
        ];
        assert_eq!(
            Listen::parse_all(&good).expect("good addresses"),
            [
                tcp("0.0.0.0:7200"),
                tcp("[::]:7200"),
                tcp("127.0.0.1:0"),
                tcp("127.0.0.1:80"),
                Listen::Unix("/run/wxtoken.sock".into()),
                tcp("[::1]:1"),
            ]
        );
        let long = format!("unix:/{}", "x".repeat(200));
        let bad = [
            "7200",
            "",
            ":7200",
            "example.com:80",
            "::1:80",
            "1.2.3.4",
            "1.2.3.4:70000",
            "unix:",
            "localhost:x",
            &long,
        ];
        let err = Listen::parse_all(&bad).expect_err("bad addresses");
        assert_eq!(Exit::from_error(&err), Exit::Usage);
        assert_eq!(err.to_string().matches("Write ADDRESS:PORT").count(), bad.len(), "{err}");
        assert_eq!(err.to_string().matches("an empty entry").count(), 1, "{err}");
    }

    #[test]
    fn the_path_of_a_socket_is_absolute_wherever_the_process_stands() {
        for entry in ["unix:wxtoken.sock", "unix:./wxtoken.sock", "unix:@wxtoken", "unix:~/s"] {
            let said = Listen::parse_all(&[entry]).expect_err(entry).to_string();
            let begin = format!("--listen: {entry}: Write the socket's absolute path");
            assert!(Language::English.resolve(&said).starts_with(&begin), "{said}");
        }
    }

    #[test]
    fn an_ipv4_address_with_a_port_is_neither_ipv6_nor_another_port_nor_a_socket() {
        let is = |text: &str| Listen::tcp(text.parse().expect("an address")).is_v4_on(443);
        assert!(is("0.0.0.0:443") && is("[::ffff:10.0.0.1]:443"));
        assert!(!is("0.0.0.0:444") && !is("[::]:443"));
    }
}
