//! Connections: listening sockets, TLS, the slots that are shared, and the life of each connection.

pub(crate) mod accept;
pub(crate) mod connection;
pub(crate) mod slots;
pub(crate) mod socket;
pub(crate) mod tls;
