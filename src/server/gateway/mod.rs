//! The gateway: passes calls of WeChat's API on to WeChat, and replaces a dead token on the way. `admission` decides who may
//! call what; the rest is transport. Connects only to the servers of an account's API, never to a host that a client names.

pub(crate) mod admission;
pub(crate) mod body;
pub(crate) mod call;
mod dial;
pub(crate) mod error;
pub(crate) mod forward;
mod headers;
mod path_faults;
mod pool;
mod proxy;
mod receive;
pub(crate) mod verdict;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use self::path_faults::PathFaults;
use self::pool::Pool;

/// What all calls share. Belongs to the listener's thread.
#[derive(Default)]
pub(crate) struct Gateway {
    pool: Rc<Pool>,
    path_faults: RefCell<PathFaults>,
    /// How many bytes of bodies are held.
    held: Cell<usize>,
    /// How many calls are under way.
    calls: Rc<Cell<usize>>,
}
