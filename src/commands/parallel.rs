//! Runs one action for many accounts at once, on a bounded number of threads. Reports each failure as it comes, and shows
//! progress on a terminal. Does not know what the action does.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::error::Exit;
use crate::language::{Language, in_both};
use crate::log;

/// WeChat answers within about a fifth of a second, so a thousand accounts take some seconds.
const MAX_THREADS: usize = 64;

/// How often the progress line is redrawn. A shorter run shows none.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Runs `action` for each of `accounts`, and reports each failure as one of `command`; `name` returns the name of an account.
/// Returns the worst exit status.
pub(super) fn for_each<T: Sync>(
    command: &str,
    accounts: &[T],
    name: impl Fn(&T) -> &str,
    action: impl Fn(&T) -> Result<()> + Sync,
) -> Exit {
    // A panic is reported where it happens, and costs no other account its turn.
    let action = |account: &T| {
        let run = panic::catch_unwind(AssertUnwindSafe(|| action(account)));
        run.unwrap_or_else(|_| Err(Exit::Failure.errors(Vec::new())))
    };
    let next = AtomicUsize::new(0);
    let work = |outcomes: Sender<(usize, Result<()>)>| {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(account) = accounts.get(index) else { break };
            let _ = outcomes.send((index, action(account))); // The receiver outlives all workers.
        }
    };
    let mut progress =
        RunProgress { command, all: accounts.len(), done: 0, failed: 0, worst: Exit::Done };
    thread::scope(|scope| {
        let (sender, outcomes) = mpsc::channel();
        let wanted = if accounts.len() == 1 { 0 } else { accounts.len().min(MAX_THREADS) };
        let workers = (0..wanted).map(|_| {
            let (work, sender) = (&work, sender.clone());
            thread::Builder::new().spawn_scoped(scope, move || work(sender))
        });
        // If the system refuses some of the threads, the others take longer.
        let started = workers.take_while(Result::is_ok).count();
        if started == 0 {
            accounts.iter().for_each(|account| progress.count(name(account), action(account)));
            return;
        }
        drop(sender);
        let mut redraw_at = Instant::now() + PROGRESS_INTERVAL;
        loop {
            match outcomes.recv_timeout(redraw_at.saturating_duration_since(Instant::now())) {
                Ok((index, outcome)) => progress.count(name(&accounts[index]), outcome),
                Err(RecvTimeoutError::Timeout) => {
                    progress.show();
                    redraw_at = Instant::now() + PROGRESS_INTERVAL;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    });
    log::show_progress("");
    progress.worst
}

/// How many accounts are done, and the worst status among them.
struct RunProgress<'a> {
    command: &'a str,
    all: usize,
    done: usize,
    failed: usize,
    worst: Exit,
}

impl RunProgress<'_> {
    /// Counts the outcome for an account, and reports a failure.
    fn count(&mut self, account: &str, outcome: Result<()>) {
        self.done += 1;
        if let Err(err) = outcome {
            self.failed += 1;
            self.worst = self.worst.max(Exit::report(self.command, Some(account), &err));
        }
    }

    fn show(&self) {
        if log::can_show() {
            let RunProgress { command, all, done, failed, .. } = self;
            let failed = match failed {
                0 => String::new(),
                failed => in_both(format!(", {failed} failed"), format!("，{failed} 个失败")),
            };
            let progress = in_both(
                format!("{command}: {done} of {all} accounts"),
                format!("{command}：已完成 {done}/{all} 个账号"),
            );
            log::show_progress(&Language::of_process().resolve(&format!("{progress}{failed}")));
        }
    }
}
