//! The end of a process that a signal asks to end while it has something to finish: an answer that has cost a token is awaited for a moment,
//! and published. Knows nothing of tokens and answers.

use std::cell::OnceCell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::log::error;
use crate::message::notes;
use crate::os::clock::Clock;
use crate::os::signals::{self, SignalDeferral};

/// How long an answer is awaited after the signal. As long as a server has to shut down.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// How much longer a process may take to finish what has come by then: to publish it, and to run a hook.
const FINISHING_PATIENCE: Duration = Duration::from_secs(8);

/// How often it is looked for a signal.
const LOOK: Duration = Duration::from_millis(50);

/// How many are finishing something.
static FINISHING: AtomicUsize = AtomicUsize::new(0);

/// The end of the process for one thread of a command without an event loop: from the first [`Ending::begin`] until this is
/// dropped, signals are deferred. When the last one is dropped, the process ends by the signal that came.
#[derive(Default)]
pub(crate) struct Ending {
    deferral: OnceCell<Option<SignalDeferral>>,
}

impl Ending {
    /// Defers signals from now on, for an answer that must not be lost. Returns whether the process was asked to end before:
    /// then nothing is to be begun.
    pub(crate) fn begin(&self) -> bool {
        if !is_asked() {
            self.deferral.get_or_init(|| {
                let deferral = SignalDeferral::begin();
                // Without the thread, nothing would bound the wait.
                start_watch().then_some(deferral)
            });
        }
        is_asked()
    }

    /// Waits for this long, or until the process is asked to end. Returns whether it was.
    pub(crate) fn pause(&self, clock: &dyn Clock, span: Duration) -> bool {
        let until = clock.instant() + span;
        while !clock.until(until).is_zero() && !is_asked() {
            clock.sleep(clock.until(until).min(LOOK));
        }
        is_asked()
    }
}

/// Whether the process was asked to end while that was deferred.
pub(crate) fn is_asked() -> bool {
    signals::has_noted()
}

/// While it lives, the process does not end although its time to wait for answers is over.
pub(crate) struct Finishing(());

impl Finishing {
    pub(crate) fn begin() -> Finishing {
        FINISHING.fetch_add(1, Ordering::SeqCst);
        Finishing(())
    }

    /// Whether any lives.
    pub(crate) fn is_under_way() -> bool {
        FINISHING.load(Ordering::SeqCst) > 0
    }
}

impl Drop for Finishing {
    fn drop(&mut self) {
        FINISHING.fetch_sub(1, Ordering::SeqCst);
    }
}

notes! {
    AWAITS_ANSWER<1> =
        "told to end; an answer may be on its way, and is awaited for {0} s",
        "收到终止信号；最多再等待 {0} 秒，以免丢失微信的应答";
}

/// Starts the thread that ends the process when its time is over, once. Returns whether it runs.
fn start_watch() -> bool {
    static STARTED: OnceLock<bool> = OnceLock::new();
    *STARTED.get_or_init(|| thread::Builder::new().spawn(end_in_time).is_ok())
}

/// Waits for a signal, and ends the process by it when its time is over. Usually it has ended by then.
fn end_in_time() {
    while !signals::has_noted() {
        thread::sleep(LOOK);
    }
    if !Finishing::is_under_way() {
        let patience = ANSWER_PATIENCE.as_secs();
        error!("{}", AWAITS_ANSWER.with([&patience]));
    }
    let begun = Instant::now();
    thread::sleep(ANSWER_PATIENCE);
    while Finishing::is_under_way() && begun.elapsed() < ANSWER_PATIENCE + FINISHING_PATIENCE {
        thread::sleep(LOOK);
    }
    signals::end_by_noted();
}
