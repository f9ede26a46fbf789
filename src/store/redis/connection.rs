//! A connection to Redis on which a whole answer has to arrive within the timeout. The timeout of a socket is for each
//! read: a server that sends one byte at a time would be waited for without end.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

#[cfg(test)]
pub(crate) mod model;

use super::protocol::{Answers, RedisCommand, RedisValue};
use crate::model::address::redis_url::RedisNode;
use crate::os::network::connect_unix;

/// The code of a refusal because a key holds something else than a string.
pub(super) const WRONG_TYPE: &str = "WRONGTYPE";

/// Why a command brought no answer, or none that is of use.
#[derive(Debug)]
pub(super) enum RedisError {
    Io(io::Error),
    /// Redis refused.
    Refused {
        code: String,
        detail: String,
    },
    /// It answered what such a command is not answered.
    Unexpected,
}

pub(super) type RedisResult<T> = Result<T, RedisError>;

impl From<io::Error> for RedisError {
    fn from(err: io::Error) -> RedisError {
        RedisError::Io(err)
    }
}

impl RedisError {
    /// Whether there was no answer in time.
    pub(super) fn is_timeout(&self) -> bool {
        matches!(self, RedisError::Io(err) if err.kind() == ErrorKind::TimedOut)
    }

    /// Returns the code of a refusal.
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            RedisError::Refused { code, .. } => Some(code),
            _ => None,
        }
    }
}

/// An open connection. After an error of its stream it is of no use.
pub(super) struct RedisConnection {
    stream: RedisStream,
    answers: Answers,
    timeout: Duration,
    /// When the run ends that uses it, if it does.
    ends_at: Option<Instant>,
    is_over: bool,
}

/// How long an answer is waited for in any case, also after the end of the run: a lock is still to be released.
pub(super) const LEAST_PATIENCE: Duration = Duration::from_millis(500);

/// Returns how long to wait for an answer that may take `timeout`, in a run that ends then.
pub(super) fn patience(timeout: Duration, ends_at: Option<Instant>) -> Duration {
    ends_at.map_or(timeout, |end| {
        let left = end.saturating_duration_since(Instant::now());
        timeout.min(left.max(LEAST_PATIENCE))
    })
}

impl RedisConnection {
    /// Connects over TCP, with this configuration over TLS. Blocks for as long as the name is looked up.
    pub(super) fn to_node(
        node: &RedisNode,
        tls: Option<Arc<ClientConfig>>,
        timeout: Duration,
    ) -> io::Result<RedisConnection> {
        let deadline = Instant::now() + timeout;
        let addresses: Vec<_> = (node.host.as_str(), node.port).to_socket_addrs()?.collect();
        let socket = Socket::new(connect_to_any(&addresses, deadline)?, deadline);
        let stream = match tls {
            None => RedisStream::Plain(socket),
            Some(tls) => {
                let name = ServerName::try_from(node.host.clone());
                let name = name.map_err(|err| io::Error::new(ErrorKind::InvalidInput, err))?;
                let connection = ClientConnection::new(tls, name)
                    .map_err(|err| io::Error::new(ErrorKind::InvalidData, err))?;
                RedisStream::Tls(Box::new(StreamOwned::new(connection, socket)))
            }
        };
        Ok(RedisConnection::over(stream, timeout))
    }

    /// Connects to a socket in the file system.
    pub(super) fn to_unix(path: &Path, timeout: Duration) -> io::Result<RedisConnection> {
        #[cfg(test)]
        if let Some(link) = model::connect(path, timeout) {
            return Ok(RedisConnection::over(RedisStream::Model(link?), timeout));
        }
        let socket = Socket::new(connect_unix(path, timeout)?, Instant::now() + timeout);
        let stream = RedisStream::Plain(socket);
        Ok(RedisConnection::over(stream, timeout))
    }

    fn over(stream: RedisStream, timeout: Duration) -> RedisConnection {
        let answers = Answers::default();
        RedisConnection { stream, answers, timeout, ends_at: None, is_over: false }
    }

    /// Returns the connection for a run that ends then, if it does: no answer is waited for longer.
    pub(super) fn until(self, ends_at: Option<Instant>) -> RedisConnection {
        RedisConnection { ends_at, ..self }
    }

    /// Whether it can be used further.
    pub(super) fn is_open(&self) -> bool {
        !self.is_over
    }

    /// Sends a command, and returns its answer. Fails if Redis refuses it, or has not answered within the timeout.
    pub(super) fn query(&mut self, command: &RedisCommand) -> RedisResult<RedisValue> {
        self.send(command)?;
        let answer = self.receive(self.timeout);
        // The next answer could belong to this command.
        self.is_over |= matches!(&answer, Err(RedisError::Io(_)));
        answer.map_err(|err| match err {
            // Redis does not say which.
            RedisError::Refused { code, .. } if code == WRONG_TYPE => {
                RedisError::Refused { code, detail: command.key_names().join(", ") }
            }
            err => err,
        })
    }

    /// Sends a command, whose answer is to be received.
    pub(super) fn send(&mut self, command: &RedisCommand) -> io::Result<()> {
        self.stream.set_deadline(patience(self.timeout, self.ends_at));
        command.send(&mut self.stream).inspect_err(|_| self.is_over = true)
    }

    /// Receives an answer. After a timeout it can be received later.
    pub(super) fn receive(&mut self, timeout: Duration) -> RedisResult<RedisValue> {
        self.stream.set_deadline(patience(timeout, self.ends_at));
        loop {
            match self.answers.take()? {
                Some(RedisValue::Refusal { code, detail }) => {
                    return Err(RedisError::Refused { code, detail });
                }
                Some(answer) => return Ok(answer),
                None => {}
            }
            let mut arrived = [0; 16 << 10];
            match self.stream.read(&mut arrived) {
                Ok(0) => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
                Ok(count) => self.answers.add(&arrived[..count]),
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(err) => return Err(err.into()),
            }
        }
    }
}

/// Connects to the first of these addresses that answers. The time left is shared with the remaining ones.
fn connect_to_any(addresses: &[SocketAddr], deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the host name has no address");
    for (nth, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - nth).unwrap_or(u32::MAX);
        match TcpStream::connect_timeout(address, share.max(LEAST_WAIT)) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(err) => last = err,
        }
    }
    Err(last)
}

/// A socket cannot be given no time at all.
const LEAST_WAIT: Duration = Duration::from_millis(1);

/// A socket with a deadline for all reads and writes together.
struct Socket {
    /// Of TCP or a Unix socket.
    stream: socket2::Socket,
    deadline: Instant,
    /// Whether the one read or write has been that is allowed after the deadline. What has come while this process was stopped
    /// is taken in by it.
    is_overdue: bool,
}

impl Socket {
    fn new(stream: impl Into<socket2::Socket>, deadline: Instant) -> Socket {
        Socket { stream: stream.into(), deadline, is_overdue: false }
    }

    fn set_deadline(&mut self, patience: Duration) {
        self.deadline = Instant::now() + patience;
        self.is_overdue = false;
    }

    /// Returns how long the next read or write may take.
    fn left(&mut self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() && std::mem::replace(&mut self.is_overdue, true) {
            return Err(ErrorKind::TimedOut.into());
        }
        Ok(Some(left.max(LEAST_WAIT)))
    }
}

/// A socket's timeout is told as if it were not to block.
fn timed_out(err: io::Error) -> io::Error {
    match err.kind() {
        ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
        _ => err,
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left()?;
        self.stream.set_read_timeout(left)?;
        self.stream.read(buffer).map_err(timed_out)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.left()?;
        self.stream.set_write_timeout(left)?;
        self.stream.write(bytes).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum RedisStream {
    Plain(Socket),
    Tls(Box<StreamOwned<ClientConnection, Socket>>),
    #[cfg(test)]
    Model(model::Link),
}

impl RedisStream {
    /// Lets all reads and writes from now on take this long together.
    fn set_deadline(&mut self, patience: Duration) {
        match self {
            RedisStream::Plain(socket) => socket.set_deadline(patience),
            RedisStream::Tls(stream) => stream.sock.set_deadline(patience),
            #[cfg(test)]
            RedisStream::Model(link) => link.set_deadline(patience),
        }
    }
}

impl Read for RedisStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            RedisStream::Plain(socket) => socket.read(buffer),
            RedisStream::Tls(stream) => stream.read(buffer),
            #[cfg(test)]
            RedisStream::Model(link) => link.read(buffer),
        }
    }
}

impl Write for RedisStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            RedisStream::Plain(socket) => socket.write(bytes),
            RedisStream::Tls(stream) => stream.write(bytes),
            #[cfg(test)]
            RedisStream::Model(link) => link.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            RedisStream::Plain(socket) => socket.flush(),
            RedisStream::Tls(stream) => stream.flush(),
            #[cfg(test)]
            RedisStream::Model(_) => Ok(()),
        }
    }
}
