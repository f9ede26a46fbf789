//! What all connections share. Does nothing itself.

use std::rc::Rc;

use super::allow::Allowlist;
use super::connections::Connections;
use super::throttle::ThrottledLog;
use super::tokens::Tokens;

pub(super) struct Shared {
    pub(super) allow: Allowlist,
    pub(super) tokens: Rc<dyn Tokens>,
    pub(super) connections: Rc<Connections>,
    pub(super) log: ThrottledLog,
}
