//! Runs work on a thread of its own, for tasks of the event loop that must not block, and for threads that must not wait longer than a
//! timeout. A thread goes on to the end of its work even if it is no longer waited for.

use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::clock::{Clock, SystemClock};
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

/// Locks. What a thread that has panicked left is taken as it is: each holder leaves it whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `work` on a new thread, and returns its result. Unlike tokio's blocking threads, of which there are few, it does
/// not queue behind refreshes. Fails if there can be no more threads, or if `work` panics.
pub(crate) async fn run<R: Send + 'static>(
    work: impl FnOnce() -> R + Send + 'static,
) -> io::Result<R> {
    run_by(&SystemClock, work).await
}

/// Runs `work` like [`run`]; `work` waits by this clock.
pub(crate) async fn run_by<R: Send + 'static>(
    clock: &dyn Clock,
    work: impl FnOnce() -> R + Send + 'static,
) -> io::Result<R> {
    let (sender, result) = oneshot::channel();
    let work = move || {
        let _ = sender.send(work()); // Not received if the future was dropped.
    };
    clock.spawn(Box::new(work)).map_err(explain)?;
    result.await.map_err(|_| io::Error::other(BROKE_OFF.text()))
}

/// A thread that stays for work that comes again and again, which so goes on where there can be no more threads. Belongs to
/// one event loop.
#[derive(Debug, Default)]
pub(crate) struct StandingThread(RefCell<Option<PieceThread>>);

/// A thread that takes one piece of work after the other, and ends when this is dropped.
#[derive(Debug)]
struct PieceThread {
    pieces: Sender<Piece>,
    is_busy: Arc<AtomicBool>,
}

impl PieceThread {
    fn start() -> io::Result<PieceThread> {
        let (sender, pieces) = mpsc::channel::<Piece>();
        thread::Builder::new()
            .spawn(move || pieces.iter().for_each(|piece| piece()))
            .map_err(explain)?;
        Ok(PieceThread { pieces: sender, is_busy: Arc::default() })
    }
}

impl StandingThread {
    /// Runs `work` on the thread, which is started if there is none yet, and returns its result. Work that hangs holds up no
    /// other: another thread takes its place. Fails if that cannot be started, or if `work` panics.
    pub(crate) async fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> io::Result<R> {
        let (sender, result) = oneshot::channel();
        self.give(|is_busy| {
            Box::new(move || {
                let done = work(); // After a panic the thread is busy for good.
                is_busy.store(false, Ordering::Release);
                let _ = sender.send(done); // Not received if the future was dropped.
            })
        })?;
        result.await.map_err(|_| io::Error::other(BROKE_OFF.text()))
    }

    fn give(&self, piece: impl FnOnce(Arc<AtomicBool>) -> Piece) -> io::Result<()> {
        let mut current = self.0.borrow_mut();
        let idle = current.take_if(|it| !it.is_busy.load(Ordering::Acquire));
        let standing = match idle {
            Some(standing) => standing,
            None => PieceThread::start()?,
        };
        standing.is_busy.store(true, Ordering::Release);
        let _ = standing.pieces.send(piece(Arc::clone(&standing.is_busy))); // It is received: the thread waits for it.
        *current = Some(standing);
        Ok(())
    }
}

/// A piece of work among others.
pub(crate) type Piece = Box<dyn FnOnce() + Send>;

/// How long the pieces that have not begun wait for one that goes on.
const PATIENCE: Duration = Duration::from_secs(1);

/// Runs all pieces, in their order on one thread. A piece that takes long, such as a file on a dead mount, holds up no other:
/// further threads take the rest, and twice as many if they take long as well. Returns when each piece has ended or takes
/// long; those go on. Where there can be no thread at all, the caller's does the work.
pub(crate) fn run_beside(pieces: Vec<Piece>) {
    run_beside_within(pieces, PATIENCE);
}

fn run_beside_within(pieces: Vec<Piece>, patience: Duration) {
    let mut left = pieces.len();
    let pieces = Arc::new(Mutex::new(pieces.into_iter()));
    let next = |pieces: &Mutex<std::vec::IntoIter<Piece>>| lock(pieces).next();
    let (sender, ended) = mpsc::channel();
    let start = || {
        let (pieces, sender): (_, Sender<()>) = (Arc::clone(&pieces), sender.clone());
        let work = move || {
            while let Some(piece) = next(&pieces) {
                piece();
                let _ = sender.send(()); // Not received if it took long.
            }
        };
        thread::Builder::new().spawn(work)
    };
    if left > 0 && start().is_err() {
        while let Some(piece) = next(&pieces) {
            piece();
        }
        return;
    }
    let mut more = 1;
    while left > 0 {
        if ended.recv_timeout(patience).is_ok() {
            left -= 1;
            continue;
        }
        if lock(&pieces).len() == 0 {
            break;
        }
        // Without another thread, those that there are come to the rest.
        let _ = (0..more).try_for_each(|_| start().map(drop));
        more *= 2;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_that_hangs_holds_up_no_other() {
        let (done, ended) = mpsc::channel();
        let (let_go, hangs) = mpsc::channel::<()>();
        let hangs = Arc::new(Mutex::new(hangs));
        let piece = |number: u32| -> Piece {
            let (done, hangs) = (done.clone(), Arc::clone(&hangs));
            Box::new(move || {
                if number.is_multiple_of(3) {
                    let _ = lock(&hangs).recv();
                }
                done.send(number).unwrap();
            })
        };
        run_beside_within((0..12).map(piece).collect(), Duration::from_millis(1));
        let mut first: Vec<_> = ended.iter().take(8).collect();
        first.sort_unstable();
        assert_eq!(first, [1, 2, 4, 5, 7, 8, 10, 11]);
        assert!(ended.try_recv().is_err(), "the others hang");
        drop(let_go);
        assert_eq!(ended.iter().take(4).map(|number| number % 3).sum::<u32>(), 0);
    }

    #[test]
    fn a_standing_thread_does_all_work_and_one_that_hangs_or_panics_is_replaced() {
        let thread = std::rc::Rc::new(StandingThread::default());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let id = || thread::current().id();
            let first = thread.run(id).await.unwrap();
            assert_eq!(thread.run(id).await.unwrap(), first);
            let (let_go, hangs) = mpsc::channel::<u32>();
            let hung = std::rc::Rc::clone(&thread);
            let hung =
                tokio::task::spawn_local(async move { hung.run(move || hangs.recv()).await });
            tokio::task::yield_now().await;
            let second = thread.run(id).await.unwrap();
            assert_ne!(second, first);
            let_go.send(7).unwrap();
            assert_eq!(hung.await.unwrap().unwrap().unwrap(), 7);
            assert_eq!(thread.run(id).await.unwrap(), second);
            assert!(thread.run(|| panic!("a fault")).await.is_err());
            assert_ne!(thread.run(id).await.unwrap(), second);
        });
    }

    #[test]
    fn pieces_run_in_their_order_on_one_thread_and_a_panic_ends_its_own_alone() {
        let (done, ended) = mpsc::channel();
        let piece = |number: u32| -> Piece {
            let done = done.clone();
            Box::new(move || {
                assert_ne!(number, 2, "a fault");
                done.send((number, thread::current().id())).unwrap();
            })
        };
        run_beside_within((0..2).map(piece).collect(), Duration::MAX);
        let both: Vec<_> = ended.try_iter().collect();
        assert_eq!((both[0].0, both[1].0, both[0].1), (0, 1, both[1].1));
        run_beside_within((0..5).map(piece).collect(), Duration::from_millis(1));
        assert_eq!(ended.iter().take(4).map(|(number, _)| number).sum::<u32>(), 1 + 3 + 4);
    }
}
