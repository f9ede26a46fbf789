//! Work on a thread of its own, for tasks of the event loop that must not block, and for threads that must not wait longer
//! than a timeout. A thread that is not waited for any more ends its work all the same.

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::message::messages;

messages! {
    BROKE_OFF<0> {
        "Please report it.", "a thread broke off by a fault in wxtoken itself";
        "请报告此问题。", "wxtoken 内部错误导致线程中断";
    }
    NO_THREADS<0> {
        "Raise ulimit -u, or TasksMax= of the unit.", "there can be no more threads";
        "请调高 ulimit -u 或 TasksMax=。", "无法创建线程";
    }
}

/// Runs `work` on a new thread, and returns its result. Unlike tokio's blocking threads, of which there are few, it does
/// not queue behind refreshes. Fails if there can be no more threads, or if `work` panics.
pub(crate) async fn run<R: Send + 'static>(
    work: impl FnOnce() -> R + Send + 'static,
) -> io::Result<R> {
    let (sender, result) = oneshot::channel();
    let work = move || {
        let _ = sender.send(work()); // Not received if the future was dropped.
    };
    thread::Builder::new().spawn(work).map_err(explain)?;
    result.await.map_err(|_| io::Error::other(BROKE_OFF.text()))
}

/// Adds to an error of a thread that was not started what to do.
pub(crate) fn explain(err: io::Error) -> io::Error {
    let kind = err.kind();
    io::Error::new(kind, NO_THREADS.quoting([], err))
}

/// A stop of this process is noticed by a wait that took this much longer than asked, and no more of it counts.
const SLICE: Duration = Duration::from_millis(100);

/// How long a result is waited for after a stop, although the time is over.
const AFTER_STOP: Duration = Duration::from_millis(500);

/// The result of work on a thread of its own.
pub(crate) struct Pending<R>(Receiver<R>);

/// Starts `work` on a new thread with this name. Fails if there can be no more threads.
pub(crate) fn start<R: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> R + Send + 'static,
) -> io::Result<Pending<R>> {
    let (sender, result) = mpsc::channel();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _ = sender.send(work()); // Not received if `Pending` was dropped.
    })?;
    Ok(Pending(result))
}

impl<R> Pending<R> {
    /// Waits for the result, for at most this long; after a timeout it may be waited for again. `Disconnected` means that
    /// the work has panicked.
    ///
    /// The time in which this process was stopped (SIGSTOP, a suspended machine) does not count: what came meanwhile is
    /// taken in by a thread that was stopped, too.
    pub(crate) fn wait(&self, timeout: Duration) -> Result<R, RecvTimeoutError> {
        let mut left = timeout;
        let mut was_stopped = false;
        loop {
            let (slice, begun) = (left.min(SLICE), Instant::now());
            match self.0.recv_timeout(slice) {
                Err(RecvTimeoutError::Timeout) => {}
                result => return result,
            }
            was_stopped |= begun.elapsed() > slice + SLICE;
            left -= slice;
            if left.is_zero() {
                if !was_stopped {
                    return Err(RecvTimeoutError::Timeout);
                }
                (left, was_stopped) = (AFTER_STOP, false);
            }
        }
    }
}
