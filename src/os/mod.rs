//! What the rest uses of the operating system: reading and replacing files, the CA store, locks, clocks, signals, commands,
//! systemd. Knows nothing of WeChat or of tokens.

pub(crate) mod ca_store;
pub(crate) mod clock;
pub(crate) mod descriptors;
pub(crate) mod ending;
pub(crate) mod fault;
pub(crate) mod file;
pub(crate) mod hook;
pub(crate) mod local_time;
pub(crate) mod network;
pub(crate) mod signals;
pub(crate) mod systemd;
pub(crate) mod thread;
pub(crate) mod timestamp;
