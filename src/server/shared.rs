//! What all connections share. Does nothing itself.

use std::cell::RefCell;
use std::rc::Rc;

use super::connections::Connections;
use super::counts::Counts;
use super::reload::Reloaded;
use super::service::Service;
use super::storm::Storms;
use super::throttle::ThrottledLog;
use super::tls::Tls;

pub(super) struct Shared {
    pub(super) service: Reloaded<Service>,
    /// What is needed to speak TLS, which then all callers over TCP must do.
    pub(super) tls: Option<Reloaded<Tls>>,
    pub(super) connections: Rc<Connections>,
    pub(super) counts: Counts,
    pub(super) storms: RefCell<Storms>,
    pub(super) log: ThrottledLog,
}
