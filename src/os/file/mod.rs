//! Files that other users may be able to write to, replace, or exchange for something else: reading, replacing and locking
//! them. Each path is resolved once, in `dir`, and everything after that goes through descriptors.

pub(crate) mod atomic;
pub(crate) mod dir;
pub(crate) mod disk;
pub(crate) mod lock;
pub(crate) mod messages;
mod mounts;
pub(crate) mod read;
pub(crate) mod version;
