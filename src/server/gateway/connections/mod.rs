//! Kept connections to the servers of accounts' APIs. Each carries one request at a time. Decides nothing about requests.

pub(crate) mod answer;
mod connection;
mod dial;
mod lookups;
mod proxy;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

pub(super) use self::connection::{PooledConnection, SendError};
use self::dial::{DialError, dial};
use self::lookups::NameLookups;
use crate::upstream::api_servers::ApiServers;

/// How long a connection may be idle: shorter than any server keeps one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// How many connections may be idle, of all accounts together.
const MAX_IDLE: usize = 64;

/// The kept connections. Belongs to the listener's thread.
#[derive(Default)]
pub(super) struct Pool {
    idle: RefCell<Vec<IdleConnection>>,
    is_sweeping: Cell<bool>,
    lookups: Rc<NameLookups>,
}

struct IdleConnection {
    connection: PooledConnection,
    since: Instant,
}

impl Pool {
    /// Returns a kept connection to one of these servers; the one that was used last.
    pub(super) fn take(&self, servers: &Arc<ApiServers>) -> Option<PooledConnection> {
        let mut idle = self.idle.borrow_mut();
        let now = Instant::now();
        loop {
            let place = idle.iter().rposition(|it| it.connection.leads_to(servers))?;
            let mut taken = idle.remove(place);
            if taken.can_be_used(now) {
                return Some(taken.connection);
            }
        }
    }

    /// Connects to the first of these servers that can be reached.
    pub(super) async fn connect(
        &self,
        servers: &Arc<ApiServers>,
    ) -> Result<PooledConnection, Vec<DialError>> {
        let (server, stream) = dial(servers, &self.lookups).await?;
        Ok(PooledConnection::new(stream, Arc::clone(servers), server))
    }

    /// Keeps a connection whose answer has been read, if it can carry another request.
    pub(super) fn put(self: &Rc<Pool>, mut connection: PooledConnection) {
        if !connection.is_idle() {
            return;
        }
        connection.shrink();
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= MAX_IDLE {
            idle.remove(0);
        }
        idle.push(IdleConnection { connection, since: Instant::now() });
        drop(idle);
        if !self.is_sweeping.replace(true) {
            let pool = Rc::clone(self);
            spawn_local(async move { pool.sweep().await });
        }
    }

    /// Closes connections that are idle for too long or that the server has closed, until there are none.
    async fn sweep(&self) {
        while !self.idle.borrow().is_empty() {
            sleep(IDLE_TIMEOUT / 4).await;
            let now = Instant::now();
            self.idle.borrow_mut().retain_mut(|it| it.can_be_used(now));
        }
        self.is_sweeping.set(false);
    }
}

impl IdleConnection {
    /// Whether it is not idle for too long, and the server has not closed it.
    fn can_be_used(&mut self, now: Instant) -> bool {
        now.duration_since(self.since) < IDLE_TIMEOUT && self.connection.is_idle()
    }
}
