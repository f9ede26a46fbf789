//! Kept connections to the servers of accounts' APIs. Each carries one request at a time. Decides nothing about requests.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use super::body::SentBody;
use super::dial::{DialError, dial};
use crate::upstream::api_servers::ApiServers;

/// How long a connection may be idle: shorter than any server keeps one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// How many connections may be idle, of all accounts together.
const MAX_IDLE: usize = 64;

/// How long an answered connection may take until it can carry another request.
const SETTLING_TIMEOUT: Duration = Duration::from_secs(1);

/// The largest head of an answer, in bytes.
const MAX_ANSWER_HEAD: usize = 64 * 1024;

/// The kept connections. Belongs to the listener's thread.
#[derive(Default)]
pub(super) struct Pool {
    idle: RefCell<Vec<IdleConnection>>,
    is_sweeping: Cell<bool>,
}

struct IdleConnection {
    connection: PooledConnection,
    since: Instant,
}

/// A connection to one of an account's servers.
pub(super) struct PooledConnection {
    sender: SendRequest<SentBody>,
    /// Reads and writes.
    _driver: Driver,
    servers: Arc<ApiServers>,
    /// The place of the server.
    pub(super) server: usize,
}

/// Drives a connection. Closes it when it is dropped, whatever is under way.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why a request on a connection has no answer.
pub(super) enum SendError {
    /// Nothing of it was sent.
    Unsent(Box<Request<SentBody>>),
    /// All or some of it was sent.
    Sent,
}

impl Pool {
    /// Returns a kept connection to one of these servers; the one that was used last.
    pub(super) fn take(&self, servers: &Arc<ApiServers>) -> Option<PooledConnection> {
        let mut idle = self.idle.borrow_mut();
        let now = Instant::now();
        idle.retain(|it| it.is_good(now));
        let place = idle.iter().rposition(|it| Arc::ptr_eq(&it.connection.servers, servers))?;
        Some(idle.remove(place).connection)
    }

    /// Connects to the first of these servers that can be reached.
    pub(super) async fn connect(
        &self,
        servers: &Arc<ApiServers>,
    ) -> Result<PooledConnection, Vec<DialError>> {
        let (server, stream) = dial(servers).await?;
        let handshake =
            Builder::new().max_buf_size(MAX_ANSWER_HEAD).handshake(TokioIo::new(stream));
        // It sends nothing, and cannot fail.
        let Ok((sender, connection)) = handshake.await else { return Err(Vec::new()) };
        let driver = Driver(spawn_local(async move {
            let _ = connection.await; // An error is that of the request, too.
        }));
        Ok(PooledConnection { sender, _driver: driver, servers: Arc::clone(servers), server })
    }

    /// Keeps a connection whose answer has been read, once it can carry another request.
    pub(super) fn put(self: &Rc<Pool>, mut connection: PooledConnection) {
        if connection.sender.is_closed() {
            return;
        }
        if connection.sender.is_ready() {
            return self.keep(connection);
        }
        let pool = Rc::clone(self);
        spawn_local(async move {
            if let Ok(Ok(())) = timeout(SETTLING_TIMEOUT, connection.sender.ready()).await {
                pool.keep(connection);
            }
        });
    }

    fn keep(self: &Rc<Pool>, connection: PooledConnection) {
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

    /// Closes connections that are idle for too long, until there are none.
    async fn sweep(&self) {
        while !self.idle.borrow().is_empty() {
            sleep(IDLE_TIMEOUT / 4).await;
            let now = Instant::now();
            self.idle.borrow_mut().retain(|it| it.is_good(now));
        }
        self.is_sweeping.set(false);
    }
}

impl IdleConnection {
    fn is_good(&self, now: Instant) -> bool {
        let is_recent = now.duration_since(self.since) < IDLE_TIMEOUT;
        is_recent && self.connection.sender.is_ready()
    }
}

impl PooledConnection {
    /// Sends a request and returns the head of the answer, with its body to be read.
    pub(super) async fn send(
        &mut self,
        request: Request<SentBody>,
    ) -> Result<Response<Incoming>, SendError> {
        self.sender.try_send_request(request).await.map_err(|mut err| match err.take_message() {
            Some(request) => SendError::Unsent(Box::new(request)),
            None => SendError::Sent,
        })
    }
}
