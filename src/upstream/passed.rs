//! Names this process in what it asks WeChat, so that a request that comes back to it is known: an address that is WeChat's
//! according to the configuration leads here.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

/// The header with the names of the processes that a request has passed. Not `Via`, by which other proxies are known.
pub(crate) const HEADER: &str = "wxtoken-gateway";

/// The HTTP status with which a request is answered that has come back.
pub(crate) const LOOP_DETECTED: u16 = 508;

static NAME: LazyLock<String> = LazyLock::new(|| RandomState::new().hash_one(()).to_string());

/// Returns the name of this process: a random number.
pub(crate) fn name() -> &'static str {
    &NAME
}
