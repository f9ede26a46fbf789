//! The gateway: passes calls of WeChat's API on to WeChat, and replaces a dead token on the way. `admission` decides who may
//! call what; the rest is transport. Connects only to the servers of an account's API, never to a host that a client names.

pub(crate) mod admission;
pub(crate) mod body;
pub(crate) mod call;
mod connections;
pub(crate) mod error;
pub(crate) mod forward;
mod headers;
mod hiding;
mod path_faults;
mod receive;
pub(crate) mod verdict;

use std::cell::RefCell;
use std::rc::Rc;

use hyper::HeaderMap;
use hyper::header::HeaderName;

#[cfg(test)]
pub(crate) use self::admission::ALL as CALL_REFUSALS;
use self::call::CallsUnderWay;
use self::connections::Pool;
#[cfg(test)]
pub(crate) use self::error::{ALL as CALL_ERRORS, NOTES as CALL_NOTES};
use self::path_faults::PathFaults;
use self::receive::HeldBodies;
use crate::upstream::passed;

/// Names the processes of wxtoken that a request has passed.
const PASSED: HeaderName = HeaderName::from_static(passed::HEADER);

/// What all calls share. Belongs to the listener's thread.
#[derive(Default)]
pub(crate) struct Gateway {
    pool: Rc<Pool>,
    path_faults: RefCell<PathFaults>,
    held: RefCell<HeldBodies>,
    calls: Rc<RefCell<CallsUnderWay>>,
}

/// Whether a request with these headers is of this process itself: an address that is WeChat's according to the configuration
/// leads back here.
pub(crate) fn has_sent(headers: &HeaderMap) -> bool {
    passed_by(headers).any(|name| name == passed::name())
}

/// Returns what a request with these headers has passed.
pub(crate) fn passed_by(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let passed = headers.iter().filter(|(name, _)| **name == PASSED);
    passed.filter_map(|(_, name)| name.to_str().ok())
}
