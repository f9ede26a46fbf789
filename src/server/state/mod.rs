//! What the connections of one server share: what is served and to whom, counters, a rate-limited log, and the slots for
//! connections.

pub(crate) mod counters;
pub(crate) mod log_limit;
pub(crate) mod log_messages;
pub(crate) mod slots;
pub(crate) mod snapshot;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use time::UtcDateTime;

use self::counters::Counters;
use self::log_limit::ThrottledLog;
use self::slots::Connections;
use self::snapshot::LiveSnapshot;
use super::access::retry_storm::RetryStorms;
use crate::os::clock::Clock;

/// What all connections share. Belongs to the listener's thread.
pub(crate) struct ServerState {
    pub(crate) snapshot: LiveSnapshot,
    pub(crate) connections: Rc<Connections>,
    pub(crate) counters: Counters,
    /// When the certificate for HTTPS ends; `None` for plain HTTP.
    pub(crate) certificate_end: Cell<Option<UtcDateTime>>,
    pub(crate) storms: RefCell<RetryStorms>,
    pub(crate) log: ThrottledLog,
    pub(crate) clock: Arc<dyn Clock>,
}
