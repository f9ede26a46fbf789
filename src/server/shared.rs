//! What all connections share. Does nothing itself.

use std::cell::RefCell;
use std::rc::Rc;

use super::access::Access;
use super::connections::Connections;
use super::counts::Counts;
use super::reload::Reloaded;
use super::storm::Storms;
use super::throttle::ThrottledLog;
use super::tokens::Tokens;

pub(super) struct Shared {
    pub(super) access: Reloaded<Access>,
    pub(super) tokens: Rc<dyn Tokens>,
    pub(super) connections: Rc<Connections>,
    pub(super) counts: Counts,
    pub(super) storms: RefCell<Storms>,
    pub(super) log: ThrottledLog,
}
