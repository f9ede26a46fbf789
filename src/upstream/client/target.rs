//! A server that is asked, and the way to it.

use std::fmt;

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
        f.write_str(self.base.authority())?;
        match &self.proxy {
            Some(proxy) => write!(f, " through the proxy {}", proxy.authority()),
            None => Ok(()),
        }
    }
}
