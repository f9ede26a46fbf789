//! Who may ask, as far as files and flags say it: addresses, proxies, keys. It can change while the server runs.

use std::net::IpAddr;

use super::allow::Allowlist;
use super::keys::Keys;

/// Who may ask. Both the address and, where there are keys, the key must be good.
#[derive(Debug, Default)]
pub(crate) struct Access {
    pub(crate) allow: Allowlist,
    /// Whose word counts about whom they ask for; empty means nobody's.
    pub(crate) proxies: Allowlist,
    /// `None` where no key is asked for.
    pub(crate) keys: Option<Keys>,
}

impl Access {
    /// Whether somebody at this address may speak at all: for himself, or as a proxy for somebody else.
    pub(super) fn admits(&self, ip: IpAddr) -> bool {
        self.allow.contains(ip) || self.proxies.contains(ip)
    }
}
