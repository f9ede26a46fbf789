//! What the connections of one server share: its counters, its rate-limited log and its slots for connections.

pub(crate) mod counters;
pub(crate) mod log_limit;
pub(crate) mod slots;
