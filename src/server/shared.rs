//! What all connections share. Does nothing itself.

use std::cell::RefCell;
use std::rc::Rc;

use super::access::retry_storm::RetryStorms;
use super::reload::Reloaded;
use super::routes::counters::Counters;
use super::routes::log_limit::ThrottledLog;
use super::service::Service;
use super::transport::slots::Connections;
use super::transport::tls::Tls;

pub(crate) struct Shared {
    pub(crate) service: Reloaded<Service>,
    /// What is needed to speak TLS, which then all callers over TCP must do.
    pub(crate) tls: Option<Reloaded<Tls>>,
    pub(crate) connections: Rc<Connections>,
    pub(crate) counts: Counters,
    pub(crate) storms: RefCell<RetryStorms>,
    pub(crate) log: ThrottledLog,
}
