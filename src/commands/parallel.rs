//! The same for many accounts at once, within a bound: one's trouble is told and stays its own, and whoever looks on at a
//! terminal sees how far it is. Knows nothing of what is done.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::error::Exit;
use crate::log::{self, error};

/// So many at once: WeChat answers in a fifth of a second or so, so that a thousand accounts take some seconds.
const MOST_AT_ONCE: usize = 64;

/// How often a person sees how far it is. Whatever is over sooner need not be looked at.
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// Does it for each, and tells each failure as it comes; the worst status of all.
pub(super) fn each<T: Sync>(verb: &str, all: &[T], act: impl Fn(&T) -> Result<()> + Sync) -> Exit {
    let next = AtomicUsize::new(0);
    let work = |done: Sender<Result<()>>| {
        while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            let _ = done.send(act(one)); // Somebody listens until all is done.
        }
    };
    let mut tally = Tally { verb, all: all.len(), done: 0, failed: 0, worst: Exit::Done };
    thread::scope(|scope| {
        let (done, outcomes) = mpsc::channel();
        let hands = if all.len() == 1 { 0 } else { all.len().min(MOST_AT_ONCE) };
        let workers = (0..hands).map(|_| {
            let (work, done) = (&work, done.clone());
            thread::Builder::new().spawn_scoped(scope, move || work(done))
        });
        // With fewer threads than are wanted it takes longer.
        let hired = workers.take_while(Result::is_ok).count();
        if hired == 0 {
            all.iter().for_each(|one| tally.note(act(one)));
            return;
        }
        drop(done);
        let mut looks_at = Instant::now() + BETWEEN_LOOKS;
        loop {
            match outcomes.recv_timeout(looks_at.saturating_duration_since(Instant::now())) {
                Ok(outcome) => tally.note(outcome),
                Err(RecvTimeoutError::Timeout) => {
                    tally.show();
                    looks_at = Instant::now() + BETWEEN_LOOKS;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    });
    log::progress("");
    tally.worst
}

/// How far it is.
struct Tally<'a> {
    verb: &'a str,
    all: usize,
    done: usize,
    failed: usize,
    worst: Exit,
}

impl Tally<'_> {
    fn note(&mut self, outcome: Result<()>) {
        self.done += 1;
        if let Err(err) = outcome {
            self.failed += 1;
            self.worst = self.worst.max(Exit::from_error(&err));
            for line in Exit::lines(&err) {
                error!("{}: {line}", self.verb);
            }
        }
    }

    fn show(&self) {
        let is_for_eyes = std::io::stderr().is_terminal()
            && std::env::var_os("TERM").is_some_and(|terminal| terminal != "dumb");
        if is_for_eyes {
            let Tally { verb, all, done, failed, .. } = self;
            let failed = match failed {
                0 => String::new(),
                failed => format!(", {failed} failed"),
            };
            log::progress(&format!("{verb}: {done} of {all} accounts{failed}"));
        }
    }
}
