//! Catches the signals that ask the process to end or to reload. A command with an event loop waits for them; one without
//! can defer its end for a moment. Knows nothing of what a command does then.

use std::fs;
use std::future::poll_fn;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::task::{Context, Poll};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::{flag, low_level};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::log;

/// Catches the signals that ask the process to end.
pub(crate) struct Shutdown(Vec<Signal>);

impl Shutdown {
    /// Catches SIGTERM and SIGINT from now on.
    pub(crate) fn listen() -> io::Result<Shutdown> {
        Shutdown::catch(&[SignalKind::terminate(), SignalKind::interrupt()])
    }

    /// Catches SIGTERM, SIGINT and SIGHUP from now on, for a command that ends with its terminal.
    pub(crate) fn listen_with_hangup() -> io::Result<Shutdown> {
        Shutdown::catch(&[SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()])
    }

    fn catch(kinds: &[SignalKind]) -> io::Result<Shutdown> {
        kinds.iter().map(|kind| signal(*kind)).collect::<io::Result<_>>().map(Shutdown)
    }

    /// Waits for the next of them.
    pub(crate) async fn requested(&mut self) {
        poll_fn(|cx| match self.0.iter_mut().any(|signal| signal.poll_recv(cx).is_ready()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }
}

/// Catches SIGHUP, by which a server is asked to reload.
pub(crate) struct Hangup(Signal);

impl Hangup {
    /// Catches it from now on.
    pub(crate) fn listen() -> io::Result<Hangup> {
        signal(SignalKind::hangup()).map(Hangup)
    }

    /// Is ready when the next one has come.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_recv(cx).map(|_| ())
    }
}

/// Defers the end of the process: while one of these lives, SIGTERM, SIGINT and SIGHUP are only noted. When the last one is
/// dropped, the process ends by the noted signal, as its parent expects. Not for a command that waits for a [`Shutdown`].
pub(crate) struct SignalDeferral(());

/// The signals that ask a process to end.
const ENDING: [i32; 3] = [SIGTERM, SIGINT, SIGHUP];

/// How many deferrals there are.
static DEFERRALS: Mutex<usize> = Mutex::new(0);

/// Whether there are none. Read by the signal handler.
static ENDS_AT_ONCE: AtomicBool = AtomicBool::new(true);

/// The signal that was noted; 0 for none. Written by the signal handler.
static NOTED: AtomicUsize = AtomicUsize::new(0);

impl SignalDeferral {
    /// Defers the signals from now on.
    pub(crate) fn begin() -> SignalDeferral {
        static REGISTER: Once = Once::new();
        let mut deferrals = DEFERRALS.lock().unwrap_or_else(PoisonError::into_inner);
        *deferrals += 1;
        ENDS_AT_ONCE.store(false, Ordering::SeqCst);
        REGISTER.call_once(|| {
            // A signal that the parent has this process ignore, as nohup does, stays ignored. Handlers run in this order:
            // noting comes first, because the last deferral may end between the two. A signal whose handler cannot be
            // registered ends the process at once, as without a deferral.
            for signal in ENDING.into_iter().filter(|it| !is_ignored(*it)) {
                let _ = flag::register_usize(signal, &NOTED, signal as usize)
                    .and_then(|_| flag::register_conditional_default(signal, &ENDS_AT_ONCE));
            }
        });
        SignalDeferral(())
    }
}

/// Whether a signal has asked the process to end during a deferral.
pub(crate) fn has_noted() -> bool {
    NOTED.load(Ordering::SeqCst) != 0
}

/// Ends the process by the signal that was noted.
pub(crate) fn end_by_noted() {
    log::flush();
    let _ = low_level::emulate_default_handler(NOTED.load(Ordering::SeqCst) as i32);
}

/// Writes a byte to `socket` when such a signal comes. Called during a deferral.
pub(crate) fn write_to(socket: &UnixStream) -> io::Result<()> {
    ENDING
        .into_iter()
        .filter(|it| !is_ignored(*it))
        .try_for_each(|signal| low_level::pipe::register(signal, socket.try_clone()?).map(drop))
}

impl Drop for SignalDeferral {
    fn drop(&mut self) {
        let mut deferrals = DEFERRALS.lock().unwrap_or_else(PoisonError::into_inner);
        *deferrals -= 1;
        if *deferrals == 0 {
            ENDS_AT_ONCE.store(true, Ordering::SeqCst);
            if has_noted() {
                end_by_noted();
            }
        }
    }
}

/// Has a write beyond the limit on file sizes (ulimit -f) fail with an error from now on. By default the kernel ends the
/// process by a signal without a word, also after an answer that is lost then. A hook gets the default: the handler is not
/// inherited.
pub(crate) fn survive_size_limit() {
    // An error would leave it as it was.
    let _ = flag::register(SIGXFSZ, Arc::default());
}

/// Whether this process ignores the signal (proc_pid_status(5)). Not known on systems without /proc.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
