//! A connection to Redis on which an answer has to be there, whole, within the timeout. That of a socket is one for each
//! part of an answer: who sends a byte at a time would be waited for without end.

use std::io::{Error, ErrorKind};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use redis::{Connection, ConnectionLike, RedisResult, Value};

/// Asks in a thread of its own, which ends with the connection, or when it is heard no longer.
pub(super) struct Link {
    ask: SyncSender<Vec<u8>>,
    answer: Receiver<RedisResult<Value>>,
    timeout: Duration,
    db: i64,
    /// Whether there may be an answer under way that nobody waits for.
    is_over: bool,
}

impl Link {
    pub(super) fn over(mut connection: Connection, timeout: Duration) -> RedisResult<Link> {
        let db = connection.get_db();
        let (ask, asked) = mpsc::sync_channel::<Vec<u8>>(1);
        let (answered, answer) = mpsc::sync_channel(1);
        thread::Builder::new().spawn(move || {
            for command in asked {
                if answered.send(connection.req_packed_command(&command)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Link { ask, answer, timeout, db, is_over: false })
    }

    fn fail<T>(&mut self, kind: ErrorKind) -> RedisResult<T> {
        self.is_over = true;
        Err(Error::from(kind).into())
    }
}

impl ConnectionLike for Link {
    fn req_packed_command(&mut self, command: &[u8]) -> RedisResult<Value> {
        if self.is_over || self.ask.send(command.to_vec()).is_err() {
            return self.fail(ErrorKind::UnexpectedEof);
        }
        match self.answer.recv_timeout(self.timeout) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => self.fail(ErrorKind::TimedOut),
            Err(RecvTimeoutError::Disconnected) => self.fail(ErrorKind::UnexpectedEof),
        }
    }

    /// Of a pipeline, of which we have none.
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
