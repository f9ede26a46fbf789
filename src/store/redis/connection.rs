//! A connection to Redis on which a whole answer has to arrive within the timeout. The timeout of a socket is for each
//! read: a server that sends one byte at a time would be waited for without end.

use std::io::{Error, ErrorKind};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::Duration;

use redis::{Connection, ConnectionLike, RedisResult, Value};

/// How many overdue answers may be outstanding, each in a thread. Beyond that nothing is asked.
pub(super) const MAX_OVERDUE: usize = 16;

/// Counts overdue answers by its references: each holds one until it arrives.
pub(super) type OverdueCount = Arc<()>;

/// Asks in a thread of its own, which ends with the connection, or when an answer finds no receiver.
pub(super) struct BoundedConnection {
    commands: SyncSender<Vec<u8>>,
    answers: Receiver<RedisResult<Value>>,
    timeout: Duration,
    db: i64,
    /// Whether the next answer could belong to an earlier command.
    is_over: bool,
    overdue: Weak<()>,
    /// What the thread holds while its answer is overdue.
    held: Arc<OnceLock<OverdueCount>>,
}

impl BoundedConnection {
    /// Takes over `connection`. An answer that is not there after `timeout` is counted in `overdue` until it arrives.
    pub(super) fn new(
        mut connection: Connection,
        timeout: Duration,
        overdue: &OverdueCount,
    ) -> RedisResult<BoundedConnection> {
        let db = connection.get_db();
        let (commands, received) = mpsc::sync_channel::<Vec<u8>>(1);
        let (answered, answers) = mpsc::sync_channel(1);
        let held = Arc::new(OnceLock::new());
        let held_by_thread = held.clone();
        thread::Builder::new().spawn(move || {
            let _held = held_by_thread;
            for command in received {
                if answered.send(connection.req_packed_command(&command)).is_err() {
                    return;
                }
            }
        })?;
        let overdue = Arc::downgrade(overdue);
        Ok(BoundedConnection { commands, answers, timeout, db, is_over: false, overdue, held })
    }

    fn fail<T>(&mut self, kind: ErrorKind) -> RedisResult<T> {
        self.is_over = true;
        Err(Error::from(kind).into())
    }
}

impl ConnectionLike for BoundedConnection {
    fn req_packed_command(&mut self, command: &[u8]) -> RedisResult<Value> {
        if self.is_over || self.commands.send(command.to_vec()).is_err() {
            return self.fail(ErrorKind::UnexpectedEof);
        }
        match self.answers.recv_timeout(self.timeout) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => {
                if let Some(overdue) = self.overdue.upgrade() {
                    let _ = self.held.set(overdue); // At most one answer is overdue.
                }
                self.fail(ErrorKind::TimedOut)
            }
            Err(RecvTimeoutError::Disconnected) => self.fail(ErrorKind::UnexpectedEof),
        }
    }

    /// For pipelines, which are not used.
    fn req_packed_commands(&mut self, _: &[u8], _: usize, _: usize) -> RedisResult<Vec<Value>> {
        self.fail(ErrorKind::Unsupported)
    }

    fn get_db(&self) -> i64 {
        self.db
    }

    fn check_connection(&mut self) -> bool {
        self.is_open()
    }

    fn is_open(&self) -> bool {
        !self.is_over
    }
}
