//! Catches the signals that ask the process to end or to reload. A command with an event loop waits for them; one without
//! can defer its end for a moment. Knows nothing of what a command does then.

use std::fs;
use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::task::{Context, Poll};
use std::time::Duration;
use std::{process, thread};

use signal_hook::consts::{
    SIGALRM, SIGHUP, SIGINT, SIGPROF, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU,
    SIGXFSZ,
};
use signal_hook::{SigId, flag, low_level};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::log;
use crate::os::thread::lock;

/// The signals that ask a process to end: all whose default action that is, except for faults of the program itself, and
/// for SIGPIPE and SIGXFSZ, which are errors of a write. A command whose memory holds an answer that was paid for must not
/// end by any of them at once.
const ENDING: [i32; 10] =
    [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGALRM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGPROF, SIGXCPU];

/// Returns those of [`ENDING`] that a command with an event loop catches; `ends_with_terminal` says whether SIGHUP is one.
fn caught(ends_with_terminal: bool) -> impl Iterator<Item = i32> {
    let ignored = Ignored::read();
    ENDING.into_iter().filter(move |signal| match *signal {
        SIGHUP => ends_with_terminal,
        // A shell has what it starts in the background ignore SIGINT; who sends one all the same means it.
        SIGTERM | SIGINT => true,
        other => !ignored.contains(other),
    })
}

/// Catches the signals that ask the process to end.
pub(crate) struct Shutdown(Vec<Signal>);

impl Shutdown {
    /// Catches them from now on, except for SIGHUP.
    pub(crate) fn listen() -> io::Result<Shutdown> {
        Shutdown::catch(caught(false))
    }

    /// Catches them from now on, for a command that ends with its terminal.
    pub(crate) fn listen_with_hangup() -> io::Result<Shutdown> {
        Shutdown::catch(caught(true))
    }

    fn catch(signals: impl Iterator<Item = i32>) -> io::Result<Shutdown> {
        let catch = |number| signal(SignalKind::from_raw(number));
        signals.map(catch).collect::<io::Result<_>>().map(Shutdown)
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

/// The signals that a server waits for.
pub(crate) struct ServerSignals {
    pub(crate) hangup: Hangup,
    pub(crate) shutdown: Shutdown,
}

impl ServerSignals {
    /// Catches them from now on. Called in the context of a runtime, which need not run yet.
    pub(crate) fn listen() -> io::Result<ServerSignals> {
        Ok(ServerSignals { hangup: Hangup::listen()?, shutdown: Shutdown::listen()? })
    }
}

/// How often it is looked for a signal while a server starts.
const LOOK: Duration = Duration::from_millis(20);

/// Ends the process with status 0 when a signal asks for it: while this lives, nothing is under way that has to be finished.
/// For a server that starts: what it reads then can take long, and its event loop does not turn yet.
pub(crate) struct EndsAtOnce {
    registered: Vec<SigId>,
    /// Whether it lives.
    is_in_force: Arc<AtomicBool>,
}

impl EndsAtOnce {
    /// Begins with the signals that come from now on, without SIGHUP. If there can be no thread for it, a signal has to wait.
    pub(crate) fn begin() -> EndsAtOnce {
        let (is_in_force, is_asked) = (Arc::new(AtomicBool::new(true)), Arc::default());
        let register = |signal| flag::register(signal, Arc::clone(&is_asked));
        let registered = caught(false).filter_map(|signal| register(signal).ok()).collect();
        let lives = Arc::clone(&is_in_force);
        let end_when_asked = move || {
            while lives.load(Ordering::SeqCst) {
                if is_asked.load(Ordering::SeqCst) && lives.swap(false, Ordering::SeqCst) {
                    log::flush();
                    process::exit(0);
                }
                thread::sleep(LOOK);
            }
        };
        let _ = thread::Builder::new().spawn(end_when_asked);
        EndsAtOnce { registered, is_in_force }
    }
}

impl Drop for EndsAtOnce {
    fn drop(&mut self) {
        self.is_in_force.store(false, Ordering::SeqCst);
        for id in self.registered.drain(..) {
            low_level::unregister(id);
        }
    }
}

/// Defers the end of the process: while one of these lives, the signals that ask for it are only noted. When the last one is
/// dropped, the process ends by the noted signal, as its parent expects. Not for a command that waits for a [`Shutdown`].
pub(crate) struct SignalDeferral(());

/// How many deferrals there are.
static DEFERRALS: Mutex<usize> = Mutex::new(0);

/// Whether there are none. Read by the signal handler.
static ENDS_AT_ONCE: AtomicBool = AtomicBool::new(true);

/// The signal that was noted; 0 for none. Written by the signal handler.
static NOTED: AtomicUsize = AtomicUsize::new(0);

impl SignalDeferral {
    /// Defers the signals from now on.
    pub(crate) fn begin() -> SignalDeferral {
        let mut deferrals = lock(&DEFERRALS);
        *deferrals += 1;
        ENDS_AT_ONCE.store(false, Ordering::SeqCst);
        register();
        SignalDeferral(())
    }
}

/// Has signals note themselves, and end the process unless that is deferred. A second call does nothing.
fn register() {
    static REGISTER: Once = Once::new();
    REGISTER.call_once(|| {
        // A signal that the parent has this process ignore, as nohup does, stays ignored. Handlers run in this order:
        // noting comes first, because the last deferral may end between the two. A signal whose handler cannot be registered
        // ends the process at once, as without a deferral.
        let ignored = Ignored::read();
        for signal in ENDING.into_iter().filter(|it| !ignored.contains(*it)) {
            let noting = flag::register_usize(signal, &NOTED, signal as usize);
            let _ = noting.and_then(|_| match is_first_process() {
                true => {
                    flag::register_conditional_shutdown(signal, status_of(signal), &ENDS_AT_ONCE)
                }
                false => flag::register_conditional_default(signal, &ENDS_AT_ONCE),
            });
        }
    });
}

/// Has signals end a process that is process 1 of a container, for which the kernel ignores all signals without a handler. For
/// a command that waits for no [`Shutdown`].
pub(crate) fn end_first_process() {
    if is_first_process() {
        register();
    }
}

/// Whether this is process 1 of a container.
pub(crate) fn is_first_process() -> bool {
    process::id() == 1
}

/// The exit status that a shell reports for a process that a signal has ended.
fn status_of(signal: i32) -> i32 {
    128 + signal
}

/// Whether a signal has asked the process to end during a deferral.
pub(crate) fn has_noted() -> bool {
    NOTED.load(Ordering::SeqCst) != 0
}

/// Ends the process by the signal that was noted, or with its status if it is process 1.
pub(crate) fn end_by_noted() {
    log::flush();
    let signal = NOTED.load(Ordering::SeqCst) as i32;
    if is_first_process() {
        process::exit(status_of(signal));
    }
    let _ = low_level::emulate_default_handler(signal);
}

impl Drop for SignalDeferral {
    fn drop(&mut self) {
        let mut deferrals = lock(&DEFERRALS);
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

/// The signals that this process ignores (proc_pid_status(5)). Not known on systems without /proc.
struct Ignored(u64);

impl Ignored {
    fn read() -> Ignored {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        Ignored(mask.unwrap_or_default())
    }

    fn contains(&self, signal: i32) -> bool {
        self.0 >> (signal - 1) & 1 == 1
    }
}
