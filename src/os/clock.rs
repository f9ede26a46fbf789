//! Time, randomness and the threads that wait behind one trait, so that code which waits runs on virtual time in tests. [`SystemClock`] reads
//! the machine's clocks; `testing::VirtualClock` moves only when it is told to.

use std::any::Any;
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::pin::{Pin, pin};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::task::Poll;
use std::time::{Duration, Instant};

use super::timestamp::{Timestamp, Uptime};

/// A source of time and random numbers.
pub(crate) trait Clock: Send + Sync {
    /// Returns the time of day. The wall clock can be set, also backwards.
    fn now(&self) -> Timestamp;

    /// Returns the machine's clock alone, which takes less than all of [`Clock::now`].
    fn uptime(&self) -> Option<Uptime> {
        self.now().uptime
    }

    /// Returns the monotonic time, for deadlines.
    fn instant(&self) -> Instant;

    /// Blocks the thread for this long.
    fn sleep(&self, span: Duration);

    /// Returns a future that is ready after this long, for tasks of the event loop.
    fn timer(&self, span: Duration) -> Pin<Box<dyn Future<Output = ()>>>;

    /// Calls `work` after each `span`, on a thread of its own, until it returns false or what is returned is dropped. `None`
    /// if there can be no thread.
    fn repeat(&self, span: Duration, work: Box<dyn FnMut() -> bool + Send>) -> Option<Repetition>;

    /// Runs blocking work on a thread of its own. Fails if there can be no more threads.
    fn spawn(&self, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        std::thread::Builder::new().spawn(work).map(drop)
    }

    /// Returns a random number that spreads retries. Not fit for secrets.
    fn random(&self) -> u64;

    /// Returns the time left until `deadline`; zero once it has passed.
    fn until(&self, deadline: Instant) -> Duration {
        deadline.saturating_duration_since(self.instant())
    }
}

/// Work that is repeated until this is dropped.
pub(crate) struct Repetition {
    _until_dropped: Box<dyn Any + Send>,
}

impl Repetition {
    /// Returns what ends with `until_dropped`.
    pub(crate) fn new(until_dropped: impl Any + Send) -> Repetition {
        Repetition { _until_dropped: Box::new(until_dropped) }
    }
}

/// Waits for `event`, for at most this long. Returns `None` if the time is over first.
pub(crate) async fn timeout<T>(
    clock: &dyn Clock,
    span: Duration,
    event: impl Future<Output = T>,
) -> Option<T> {
    let (mut event, mut timer) = (pin!(event), clock.timer(span));
    poll_fn(|cx| match event.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending => timer.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// Returns `span` lengthened by up to `share` of it, so that many who failed together do not retry together.
pub(crate) fn with_jitter(span: Duration, share: f64, random: u64) -> Duration {
    span + span.mul_f64(share * (random % 1000) as f64 / 1000.0)
}

/// The machine's clocks.
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn uptime(&self) -> Option<Uptime> {
        Uptime::now()
    }

    fn instant(&self) -> Instant {
        Instant::now()
    }

    fn sleep(&self, span: Duration) {
        std::thread::sleep(span);
    }

    fn timer(&self, span: Duration) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(tokio::time::sleep(span))
    }

    fn repeat(
        &self,
        span: Duration,
        mut work: Box<dyn FnMut() -> bool + Send>,
    ) -> Option<Repetition> {
        let (alive, ended) = mpsc::sync_channel::<()>(0);
        let repeat = move || {
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(span) {
                if !work() {
                    return;
                }
            }
        };
        std::thread::Builder::new().spawn(repeat).ok().map(|_| Repetition::new(alive))
    }

    fn random(&self) -> u64 {
        RandomState::new().hash_one(0)
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A clock for tests that waits for nothing.

    use std::sync::{Arc, Mutex};
    use std::task::Waker;

    use time::UtcDateTime;

    use super::*;
    use crate::os::timestamp::BootId;

    /// A clock that stands still until it is moved. `sleep` moves it; timers end when it has been moved far enough.
    #[derive(Clone)]
    pub(crate) struct VirtualClock {
        start: Instant,
        state: Arc<Mutex<VirtualTime>>,
    }

    /// The boot of every machine with a virtual clock.
    const BOOT: &str = "00000000-0000-0000-0000-000000000001";

    #[derive(Default)]
    struct VirtualTime {
        elapsed: Duration,
        /// How far the wall clock was set forward.
        set_forward: time::Duration,
        timers: Vec<Waker>,
        has_no_threads: bool,
        threads_started: usize,
    }

    impl VirtualClock {
        /// The wall-clock time of every virtual clock at its start.
        pub(crate) const START: UtcDateTime = UtcDateTime::UNIX_EPOCH;

        pub(crate) fn new() -> VirtualClock {
            VirtualClock { start: Instant::now(), state: Arc::default() }
        }

        /// Returns the time since the start.
        pub(crate) fn elapsed(&self) -> Duration {
            self.state.lock().unwrap().elapsed
        }

        /// Sets the wall clock forward, or back.
        pub(crate) fn set_forward(&self, span: time::Duration) {
            self.state.lock().unwrap().set_forward += span;
        }

        /// Says whether there can be no more threads.
        pub(crate) fn refuse_threads(&self, refuses: bool) {
            self.state.lock().unwrap().has_no_threads = refuses;
        }

        /// Returns how many threads have been started by this clock.
        pub(crate) fn threads_started(&self) -> usize {
            self.state.lock().unwrap().threads_started
        }

        /// Moves the clock, and wakes all timers to look at it.
        pub(crate) fn advance(&self, span: Duration) {
            let mut state = self.state.lock().unwrap();
            state.elapsed += span;
            state.timers.drain(..).for_each(Waker::wake);
        }
    }

    impl Clock for VirtualClock {
        fn now(&self) -> Timestamp {
            let state = self.state.lock().unwrap();
            Timestamp {
                wall: VirtualClock::START + state.elapsed + state.set_forward,
                uptime: Some(Uptime::new(BootId::parse(BOOT).unwrap(), state.elapsed)),
            }
        }

        fn instant(&self) -> Instant {
            self.start + self.elapsed()
        }

        fn sleep(&self, span: Duration) {
            self.advance(span);
        }

        fn timer(&self, span: Duration) -> Pin<Box<dyn Future<Output = ()>>> {
            let (clock, end) = (self.clone(), self.elapsed() + span);
            Box::pin(poll_fn(move |cx| {
                let mut state = clock.state.lock().unwrap();
                if state.elapsed >= end {
                    return Poll::Ready(());
                }
                state.timers.push(cx.waker().clone());
                Poll::Pending
            }))
        }

        fn spawn(&self, work: Box<dyn FnOnce() + Send>) -> io::Result<()> {
            let mut state = self.state.lock().unwrap();
            if state.has_no_threads {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            state.threads_started += 1;
            std::thread::Builder::new().spawn(work).map(drop)
        }

        /// Repeats nothing.
        fn repeat(&self, _: Duration, _: Box<dyn FnMut() -> bool + Send>) -> Option<Repetition> {
            None
        }

        fn random(&self) -> u64 {
            499
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_adds_up_to_its_share_and_never_shortens() {
        let second = Duration::from_secs(1);
        assert_eq!(with_jitter(second, 0.25, 0), second);
        assert_eq!(with_jitter(second, 0.25, 999), Duration::from_micros(1_249_750));
        for random in 0..5000 {
            let spread = with_jitter(second, 0.25, random);
            assert!((second..Duration::from_millis(1250)).contains(&spread));
        }
    }
}
