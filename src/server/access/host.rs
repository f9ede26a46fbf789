//! Decides whether the host that a request names is this server. Resolves no name.

use std::cell::RefCell;

use crate::error::Exit;
use crate::language::bilingual;
use crate::log;
use crate::model::address::host_port::{Host, HostPort};
use crate::model::address::server_name::ServerName;
use crate::model::errcode::Platform;

/// Those whose hosts a client's hosts file may lead to the gateway.
const PLATFORMS: [Platform; 2] = [Platform::Official, Platform::Work];

/// Returns the platform whose API a request is for that names this host. The port does not count.
///
/// No web page can have these names, so that a browser sends requests here with them (DNS rebinding).
pub(crate) fn platform_at(authority: &str) -> Option<Platform> {
    let authority = authority.strip_suffix(':').unwrap_or(authority);
    let HostPort { host: Host::Name(name), .. } = HostPort::parse(authority)? else { return None };
    PLATFORMS.into_iter().find(|platform| platform.host().eq_ignore_ascii_case(name))
}

/// The longest entry that an error shows, in characters.
const LONGEST_ENTRY: usize = 60;

/// The names by which clients reach this server, beside loopback ones. Empty if none is given.
#[derive(Debug, Default)]
pub(crate) struct ServerNames {
    names: Vec<ServerName>,
    /// The authority that was admitted last, and whether at a loopback address: most requests name the same.
    admitted: RefCell<Option<(String, bool)>>,
}

impl ServerNames {
    /// Parses host names and IP addresses. The error names every entry that is neither.
    pub(crate) fn parse<S: AsRef<str>>(entries: &[S]) -> anyhow::Result<ServerNames> {
        let mut names = Vec::new();
        let mut faults = Vec::new();
        for entry in entries {
            let entry = entry.as_ref().trim();
            match ServerName::parse(entry) {
                Ok(name) => names.push(name),
                Err(fault) if entry.is_empty() => {
                    faults.push(format!("{}: {fault}", bilingual!("an empty entry", "有空项")))
                }
                Err(fault) => {
                    let entry = log::without_long_words(entry);
                    faults.push(format!("{}: {fault}", log::printable(&entry, LONGEST_ENTRY)));
                }
            }
        }
        match faults.is_empty() {
            true => Ok(ServerNames { names, ..ServerNames::default() }),
            false => Err(Exit::Usage.error(format!("--server-name: {}", faults.join("; ")))),
        }
    }

    /// Whether a request may have this Host header, or this authority in its target. The port does not count.
    ///
    /// A web page can point a name of its own at this server and so make a browser send requests here (DNS rebinding).
    /// Such requests carry that name as their Host, which can be no IP address. At a loopback address, where the browsers
    /// of this machine are, only loopback names count and those that are given; elsewhere all, if none is given.
    pub(crate) fn admits(&self, authority: &str, is_to_loopback: bool) -> bool {
        if self.names.is_empty() && !is_to_loopback {
            return true;
        }
        let is_last = |(last, was_to_loopback): &(String, bool)| {
            last == authority && *was_to_loopback == is_to_loopback
        };
        if self.admitted.borrow().as_ref().is_some_and(is_last) {
            return true;
        }
        let is_admitted = self.is_one(authority, is_to_loopback);
        if is_admitted {
            self.admitted.replace(Some((authority.to_owned(), is_to_loopback)));
        }
        is_admitted
    }

    fn is_one(&self, authority: &str, is_to_loopback: bool) -> bool {
        // RFC 3986, section 3.2.3: an empty port stands for the default one.
        let authority = authority.strip_suffix(':').unwrap_or(authority);
        let Some(HostPort { host, .. }) = HostPort::parse(authority) else { return false };
        host.is_loopback()
            || (!is_to_loopback && host.ip().is_some())
            || self.names.iter().any(|name| name.is_of(host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Language;

    const LOOPBACK: [&str; 11] = [
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
        "localhost:65535",
    ];

    const ADDRESSES: [&str; 4] = ["10.0.0.1", "10.0.0.1:7200", "0.0.0.0", "[::2]:80"];

    const FOREIGN: [&str; 23] = [
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
        "::1",
        "::1:80",
        "[::1",
        "[::1]7200",
        "[127.0.0.1]",
        "user@localhost",
        "localhost/",
        " localhost",
    ];

    #[test]
    fn at_a_loopback_address_a_request_names_loopback_or_a_given_name() {
        let none = ServerNames::default();
        let given = ServerNames::parse(&["token.example.com", "10.0.0.5"]).unwrap();
        for names in [&none, &given] {
            for host in LOOPBACK {
                assert!(names.admits(host, true), "{host}");
            }
            for host in FOREIGN.into_iter().chain(ADDRESSES) {
                assert!(!names.admits(host, true), "{host}");
            }
        }
        // What was admitted elsewhere is none here.
        assert!(given.admits("10.0.0.1", false) && !given.admits("10.0.0.1", true));
        for host in ["token.example.com", "Token.example.com:7200", "10.0.0.5", "10.0.0.5:1"] {
            assert!(given.admits(host, true) && !none.admits(host, true), "{host}");
        }
    }

    #[test]
    fn elsewhere_a_request_names_anything_or_an_address_or_a_given_name() {
        let none = ServerNames::default();
        let given = ServerNames::parse(&["token.example.com"]).unwrap();
        for host in FOREIGN {
            assert!(none.admits(host, false), "{host}");
            assert!(!given.admits(host, false), "{host}");
        }
        for host in LOOPBACK.into_iter().chain(ADDRESSES).chain(["token.example.com:443"]) {
            assert!(none.admits(host, false) && given.admits(host, false), "{host}");
        }
    }

    #[test]
    fn an_error_names_every_entry_that_is_no_server_name() {
        let err = ServerNames::parse(&["a.example", "", "b.example:80", "c/d"]).unwrap_err();
        assert_eq!(
            Language::English.resolve(&err.to_string()),
            "--server-name: an empty entry: Write a host name without a port, like token.example.com: this is not one; \
             b.example:80: Write a host name without a port, like token.example.com: this is not one; \
             c/d: Write a host name without a port, like token.example.com: this is not one"
        );
    }

    #[test]
    fn wechats_hosts_are_known_and_no_others() {
        for (authority, expected) in [
            ("api.weixin.qq.com", Some(Platform::Official)),
            ("API.Weixin.qq.com:443", Some(Platform::Official)),
            ("api.weixin.qq.com:", Some(Platform::Official)),
            ("qyapi.weixin.qq.com:7200", Some(Platform::Work)),
        ] {
            assert_eq!(platform_at(authority), expected, "{authority}");
        }
        let others =
            ["sh.api.weixin.qq.com", "weixin.qq.com", "api.weixin.qq.com.", "xapi.weixin.qq.com"];
        for host in FOREIGN.into_iter().chain(ADDRESSES).chain(LOOPBACK).chain(others) {
            assert_eq!(platform_at(host), None, "{host}");
        }
    }
}
