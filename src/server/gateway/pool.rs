//! Kept connections to the servers of accounts' APIs. Each carries one request at a time. Decides nothing about requests.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use super::body::SentBody;
use super::dial::{DialError, DialedStream, dial};
use crate::upstream::api_servers::ApiServers;

/// How long a connection may be idle: shorter than any server keeps one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// How many connections may be idle, of all accounts together.
const MAX_IDLE: usize = 64;

/// How long an answered connection may take until it can carry another request.
const SETTLING_TIMEOUT: Duration = Duration::from_secs(1);

/// The largest head of an answer, in bytes.
const MAX_ANSWER_HEAD: usize = 64 * 1024;

/// How much may come until an answer begins, in bytes: its head, what is read with it, and any number of heads with a status
/// of 1xx before it.
const MAX_UNTIL_ANSWER: usize = 4 * MAX_ANSWER_HEAD;

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
    /// How much may still come, in bytes, while an answer is awaited.
    may_come: Rc<Cell<usize>>,
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
        let may_come = Rc::new(Cell::new(usize::MAX));
        let stream = TokioIo::new(MeteredStream { stream, may_come: Rc::clone(&may_come) });
        let handshake = Builder::new().max_buf_size(MAX_ANSWER_HEAD).handshake(stream);
        // It sends nothing, and cannot fail.
        let Ok((sender, connection)) = handshake.await else { return Err(Vec::new()) };
        let driver = Driver(spawn_local(async move {
            let _ = connection.await; // An error is that of the request, too.
        }));
        let servers = Arc::clone(servers);
        Ok(PooledConnection { sender, may_come, _driver: driver, servers, server })
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
    /// Sends a request and returns the head of the answer, with its body to be read. Fails also if more than
    /// [`MAX_UNTIL_ANSWER`] comes before that.
    pub(super) async fn send(
        &mut self,
        request: Request<SentBody>,
    ) -> Result<Response<Incoming>, SendError> {
        self.may_come.set(MAX_UNTIL_ANSWER);
        let sent = self.sender.try_send_request(request).await;
        self.may_come.set(usize::MAX);
        sent.map_err(|mut err| match err.take_message() {
            Some(request) => SendError::Unsent(Box::new(request)),
            None => SendError::Sent,
        })
    }
}

/// A stream that breaks once too much has come. hyper reads heads with a status of 1xx for as long as they come.
struct MeteredStream {
    stream: Box<dyn DialedStream>,
    /// In bytes.
    may_come: Rc<Cell<usize>>,
}

impl AsyncRead for MeteredStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let left = self.may_come.get().checked_sub(buf.filled().len() - before);
        self.may_come.set(left.ok_or_else(|| io::Error::other("no answer begins"))?);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MeteredStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
