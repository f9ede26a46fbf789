//! A server that is asked, and the way to it.

use std::fmt;

use super::reasons;
use crate::model::address::endpoint::{BaseUrl, Proxy};

/// A server, and the proxy to it.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) base: BaseUrl,
    pub(super) proxy: Option<Proxy>,
}

/// For messages: the host, and the proxy without its password.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.base.authority();
        match &self.proxy {
            Some(proxy) => f.write_str(&reasons::THROUGH_PROXY.with([&host, &proxy.authority()])),
            None => f.write_str(host),
        }
    }
}
