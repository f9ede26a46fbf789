//! What the connections of one server share: what is served and to whom, counters, a rate-limited log, and the slots for
//! connections.

pub(crate) mod counters;
pub(crate) mod log_limit;
pub(crate) mod slots;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use self::counters::Counters;
use self::log_limit::ThrottledLog;
use self::slots::Connections;
use super::access::AccessRules;
use super::access::retry_storm::RetryStorms;
use super::reload::Reloaded;
use crate::accounts::Accounts;
use crate::os::clock::Clock;

/// Immutable snapshot of accounts and access rules, with matching indices. A reload swaps in a new one.
pub(crate) struct Snapshot {
    pub(crate) access: AccessRules,
    pub(crate) accounts: Accounts,
}

/// What all connections share. Belongs to the listener's thread.
pub(crate) struct ServerState {
    pub(crate) snapshot: Reloaded<Snapshot>,
    pub(crate) connections: Rc<Connections>,
    pub(crate) counters: Counters,
    pub(crate) storms: RefCell<RetryStorms>,
    pub(crate) log: ThrottledLog,
    pub(crate) clock: Arc<dyn Clock>,
}
