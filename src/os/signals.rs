//! The signals that ask the process to end, or to read anew what it works from. What runs an event loop waits for them;
//! what does not can put off its end for a moment.

use std::fs;
use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::task::{Context, Poll};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask the process to end, caught from now on.
pub(crate) struct Shutdown(Vec<Signal>);

impl Shutdown {
    /// SIGTERM and SIGINT.
    pub(crate) fn listen() -> io::Result<Shutdown> {
        Shutdown::by(&[SignalKind::terminate(), SignalKind::interrupt()])
    }

    /// SIGTERM, SIGINT and SIGHUP: for what a terminal takes with it when it is closed.
    pub(crate) fn listen_with_hangup() -> io::Result<Shutdown> {
        Shutdown::by(&[SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()])
    }

    fn by(kinds: &[SignalKind]) -> io::Result<Shutdown> {
        kinds.iter().map(|kind| signal(*kind)).collect::<io::Result<_>>().map(Shutdown)
    }

    /// Ready when the next of them has come.
    pub(crate) async fn requested(&mut self) {
        poll_fn(|cx| match self.0.iter_mut().any(|signal| signal.poll_recv(cx).is_ready()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }
}

/// SIGHUP, caught from now on: by custom a server reads anew what it works from, and does not end.
pub(crate) struct Hangup(Signal);

impl Hangup {
    pub(crate) fn listen() -> io::Result<Hangup> {
        signal(SignalKind::hangup()).map(Hangup)
    }

    /// Ready when the next one has come.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_recv(cx).map(|_| ())
    }
}

/// While one of these lives, a signal that asks the process to end is kept for later. When the last of them is dropped the
/// process ends by it after all, as its parent expects. Not for who waits for a [`Shutdown`].
pub(crate) struct Reprieve(());

/// How many reprieves there are; whether there are none, for the signal's handler; and the signal that came.
static REPRIEVES: Mutex<usize> = Mutex::new(0);
static IS_MORTAL: AtomicBool = AtomicBool::new(true);
static CAME: AtomicUsize = AtomicUsize::new(0);

impl Reprieve {
    /// Puts it off from now on.
    pub(crate) fn begin() -> Reprieve {
        static CATCH: Once = Once::new();
        let mut reprieves = REPRIEVES.lock().unwrap_or_else(PoisonError::into_inner);
        *reprieves += 1;
        IS_MORTAL.store(false, Ordering::SeqCst);
        CATCH.call_once(|| {
            // What the parent had us ignore, as nohup does, is not for us. And noted first: between the two the last
            // reprieve may end. A signal that cannot be caught ends us at once, as ever.
            for signal in [SIGTERM, SIGINT, SIGHUP].into_iter().filter(|it| !is_ignored(*it)) {
                let _ = flag::register_usize(signal, &CAME, signal as usize)
                    .and_then(|_| flag::register_conditional_default(signal, &IS_MORTAL));
            }
        });
        Reprieve(())
    }

    /// Whether the process was asked to end.
    pub(crate) fn is_over(&self) -> bool {
        CAME.load(Ordering::SeqCst) != 0
    }
}

impl Drop for Reprieve {
    fn drop(&mut self) {
        let mut reprieves = REPRIEVES.lock().unwrap_or_else(PoisonError::into_inner);
        *reprieves -= 1;
        if *reprieves == 0 {
            IS_MORTAL.store(true, Ordering::SeqCst);
            if self.is_over() {
                let _ = low_level::emulate_default_handler(CAME.load(Ordering::SeqCst) as i32);
            }
        }
    }
}

/// Whether the signal is ignored, as far as this system tells.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
