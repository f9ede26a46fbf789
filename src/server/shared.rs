//! What all connections share. Does nothing itself.

use std::cell::RefCell;
use std::rc::Rc;

use super::access::retry_storm::RetryStorms;
use super::reload::Reloaded;
use super::service::Service;
use super::state::counters::Counters;
use super::state::log_limit::ThrottledLog;
use super::state::slots::Connections;

pub(crate) struct Shared {
    pub(crate) service: Reloaded<Service>,
    pub(crate) connections: Rc<Connections>,
    pub(crate) counts: Counters,
    pub(crate) storms: RefCell<RetryStorms>,
    pub(crate) log: ThrottledLog,
}
