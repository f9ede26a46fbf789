//! Where to listen, as people write it. Makes no socket.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use socket2::SockAddr;

use crate::error::Exit;
use crate::log;

/// What is said of anything else.
pub(crate) const EXPECTED: &str = "expected ADDRESS:PORT, [ADDRESS]:PORT or unix:PATH";

/// The longest address that an error repeats in full; a socket's path ends at 107 bytes.
const LONGEST_ADDRESS: usize = 120;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Listen {
    /// Reads `ADDRESS:PORT`, `[ADDRESS]:PORT`, `localhost:PORT` (which is 127.0.0.1) and `unix:PATH`; the error names
    /// every entry that is none of them.
    pub(crate) fn parse_all<S: AsRef<str>>(entries: &[S]) -> anyhow::Result<Vec<Listen>> {
        let mut faults = Vec::new();
        let mut parsed = Vec::new();
        for entry in entries.iter().map(|entry| entry.as_ref().trim()) {
            match Listen::parse(entry) {
                Some(listen) => parsed.push(listen),
                None if entry.is_empty() => faults.push(format!("an empty entry: {EXPECTED}")),
                None => {
                    faults.push(format!("{}: {EXPECTED}", log::printable(entry, LONGEST_ADDRESS)))
                }
            }
        }
        if faults.is_empty() {
            Ok(parsed)
        } else {
            Err(Exit::Usage.error(format!("--listen: {}", faults.join("; "))))
        }
    }

    /// Reads one of them, without blanks around it.
    pub(crate) fn parse(entry: &str) -> Option<Listen> {
        if let Some(path) = entry.strip_prefix("unix:") {
            // The kernel's own check of the length, before anything is done.
            return (!path.is_empty() && SockAddr::unix(path).is_ok())
                .then(|| Listen::Unix(path.into()));
        }
        if let Some(port) = entry.strip_prefix("localhost:") {
            let port = format!("127.0.0.1:{port}").parse().ok()?;
            return Some(Listen::Tcp(port));
        }
        entry.parse().ok().map(Listen::tcp)
    }

    pub(crate) fn tcp(mut address: SocketAddr) -> Listen {
        if let IpAddr::V4(mapped) = address.ip().to_canonical() {
            address.set_ip(mapped.into());
        }
        Listen::Tcp(address)
    }

    /// Whether only this machine can connect, over the network stack: then every Host must be a loopback one.
    pub(crate) fn is_loopback(&self) -> bool {
        matches!(self, Listen::Tcp(address) if address.ip().is_loopback())
    }

    pub(crate) fn is_v4_on(&self, port: u16) -> bool {
        matches!(self, Listen::Tcp(address) if address.is_ipv4() && address.port() == port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_literal_and_each_bad_one_is_named() {
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
        assert_eq!(err.to_string().matches("expected ADDRESS:PORT").count(), bad.len(), "{err}");
    }
}
