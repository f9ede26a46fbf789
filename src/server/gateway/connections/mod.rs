//! Kept connections to the servers of accounts' APIs. Each carries one request at a time. Decides nothing about requests.

mod dial;
mod proxy;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};

use self::dial::{DialError, DialedStream, dial};
use super::body::SentBody;
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

/// A connection to one of an account's servers. Dropping it closes it, whatever is under way.
///
/// No task of its own reads and writes: the task that waits for an answer drives the connection meanwhile, which saves a
/// change of tasks for the request and another one for the answer.
pub(super) struct PooledConnection {
    sender: SendRequest<SentBody>,
    /// How much may still come, in bytes, while an answer is awaited.
    may_come: Rc<Cell<usize>>,
    driver: Driver,
    servers: Arc<ApiServers>,
    /// The place of the server.
    pub(super) server: usize,
}

/// Reads and writes. `None` once the connection is over. Boxed, because it is large and its owner changes with each call.
struct Driver(Option<Box<Connection<TokioIo<MeteredStream>, SentBody>>>);

impl Driver {
    /// Reads and writes as far as that is possible now. The task is woken when more of it is.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.0
            && Pin::new(connection).poll(cx).is_ready()
        {
            self.0 = None; // An error is that of the request, too.
        }
    }

    fn is_over(&self) -> bool {
        self.0.is_none()
    }
}

/// For futures of a connection that is driven by the same task: driving it is what makes them ready, so that nothing else has
/// to wake the task.
fn without_wakeup() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// Why a request on a connection has no answer.
pub(super) enum SendError {
    /// Nothing of it was sent.
    Unsent(Box<Request<SentBody>>),
    /// All or some of it was sent.
    Sent,
}

impl Pool {
    /// Returns a kept connection to one of these servers; the one that was used last. Whether the server has closed it shows
    /// when a request is sent: it is unsent then.
    pub(super) fn take(&self, servers: &Arc<ApiServers>) -> Option<PooledConnection> {
        let mut idle = self.idle.borrow_mut();
        let now = Instant::now();
        loop {
            let place = idle.iter().rposition(|it| Arc::ptr_eq(&it.connection.servers, servers))?;
            let taken = idle.remove(place);
            if taken.is_recent(now) {
                return Some(taken.connection);
            }
        }
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
        let (driver, servers) = (Driver(Some(Box::new(connection))), Arc::clone(servers));
        Ok(PooledConnection { sender, may_come, driver, servers, server })
    }

    /// Keeps a connection whose answer has been read, once it can carry another request.
    pub(super) fn put(self: &Rc<Pool>, mut connection: PooledConnection) {
        if connection.sender.is_ready() {
            return self.keep(connection);
        }
        let pool = Rc::clone(self);
        spawn_local(async move {
            if timeout(SETTLING_TIMEOUT, connection.settle()).await == Ok(true) {
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

    /// Closes connections that are idle for too long or that the server has closed, until there are none.
    async fn sweep(&self) {
        while !self.idle.borrow().is_empty() {
            sleep(IDLE_TIMEOUT / 4).await;
            let now = Instant::now();
            self.idle.borrow_mut().retain_mut(|it| it.is_recent(now) && it.is_open());
        }
        self.is_sweeping.set(false);
    }
}

impl IdleConnection {
    fn is_recent(&self, now: Instant) -> bool {
        now.duration_since(self.since) < IDLE_TIMEOUT
    }

    /// Whether the server has not closed it. No task waits for that.
    fn is_open(&mut self) -> bool {
        self.connection.driver.drive(&mut without_wakeup());
        !self.connection.driver.is_over()
    }
}

impl PooledConnection {
    /// Sends a request and returns the head of the answer, with its body to be read while the connection is driven. Fails also
    /// if more than [`MAX_UNTIL_ANSWER`] comes before that.
    pub(super) async fn send(
        &mut self,
        request: Request<SentBody>,
    ) -> Result<Response<Incoming>, SendError> {
        self.may_come.set(MAX_UNTIL_ANSWER);
        let mut answer = pin!(self.sender.try_send_request(request));
        let driver = &mut self.driver;
        let answered = poll_fn(|cx| {
            driver.drive(cx);
            // With the wakeup: a oneshot of tokio is also pending once the task has used up its budget.
            answer.as_mut().poll(cx)
        });
        let sent = answered.await;
        self.may_come.set(usize::MAX);
        sent.map_err(|mut err| match err.take_message() {
            Some(request) => SendError::Unsent(Box::new(request)),
            None => SendError::Sent,
        })
    }

    /// Polls the next piece of the answer's body.
    pub(super) fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(&mut without_wakeup()) {
            return Poll::Ready(frame);
        }
        self.driver.drive(cx);
        Pin::new(body).poll_frame(&mut without_wakeup())
    }

    /// Drives it until it can carry another request. Returns whether it ever can.
    async fn settle(&mut self) -> bool {
        poll_fn(|cx| {
            self.driver.drive(cx);
            match self.sender.is_ready() {
                true => Poll::Ready(true),
                false if self.driver.is_over() => Poll::Ready(false),
                false => Poll::Pending,
            }
        })
        .await
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
