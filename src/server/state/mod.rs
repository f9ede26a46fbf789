//! What the connections of one server share: what is served and to whom, counters, a rate-limited log, and the slots for
//! connections.

pub(crate) mod counters;
pub(crate) mod date;
pub(crate) mod log_limit;
pub(crate) mod log_messages;
pub(crate) mod slots;
pub(crate) mod snapshot;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::rc::Rc;
use std::sync::Arc;

use time::UtcDateTime;

use self::counters::Counters;
use self::date::HttpDate;
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
    /// Whether each kind of files that a reload reads is current.
    pub(crate) reloads: RefCell<BTreeMap<&'static str, bool>>,
    pub(crate) storms: RefCell<RetryStorms>,
    pub(crate) log: ThrottledLog,
    pub(crate) date: HttpDate,
    pub(crate) clock: Arc<dyn Clock>,
}

impl ServerState {
    /// Returns what the log says of an address that may not ask.
    pub(crate) fn not_allowed(&self, address: &dyn Display) -> String {
        log_messages::NOT_ALLOWED.with([address, &self.snapshot.get().access.allow_place()])
    }

    /// Notes whether files of this kind are current; `None` if there are none.
    pub(crate) fn note_reload(&self, files: &'static str, is_current: Option<bool>) {
        let mut reloads = self.reloads.borrow_mut();
        match is_current {
            Some(is_current) => drop(reloads.insert(files, is_current)),
            None => drop(reloads.remove(files)),
        }
    }
}
