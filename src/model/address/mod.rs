//! Addresses as users write them, parsed strictly: URLs, proxies, listening addresses, networks, Redis servers, names
//! of this server. Connects to nothing.

pub(crate) mod endpoint;
pub(crate) mod faults;
pub(crate) mod host_port;
pub(crate) mod listen;
pub(crate) mod network;
pub(crate) mod no_proxy;
pub(crate) mod redis_url;
pub(crate) mod server_name;
