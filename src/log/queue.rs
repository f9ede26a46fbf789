//! Writes lines to stderr in a thread of its own and in order, so that a stderr that is not read stops no other thread. A
//! line that finds no room meanwhile is dropped and counted, and the count is written once writing works again. Knows nothing
//! of what a line says.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, write};

use super::{Level, format};
use crate::language::Language;

/// How much may wait to be written, in bytes: some thousand lines.
const MAX_WAITING: usize = 256 * 1024;

/// How long the author of a line waits until it is written, so that lines keep their order with what is written elsewhere.
const LINE_PATIENCE: Duration = Duration::from_millis(500);

/// How long the end of the process waits while stderr takes nothing.
const STUCK_PATIENCE: Duration = Duration::from_secs(1);

/// How long the end of the process waits for a stderr that is read slowly.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// How much a pipe or socket that is ready takes at once without blocking, in bytes (PIPE_BUF, pipe(7)).
const NEVER_BLOCKS: usize = 4096;

/// The lines of this process.
static QUEUE: Queue = Queue { state: Mutex::new(QueueState::EMPTY), changed: Condvar::new() };

/// Whether nothing waits until a line is written.
static IS_IN_BACKGROUND: AtomicBool = AtomicBool::new(false);

/// Has nothing wait from now on until a line is written, except for [`flush`]. For a process with an event loop.
pub(crate) fn write_in_background() {
    IS_IN_BACKGROUND.store(true, Ordering::Relaxed);
}

/// Takes a line, to be written after all that were taken before.
pub(super) fn take(line: String) -> Taken {
    let mut state = QUEUE.lock();
    if !state.offer(line) {
        return Taken(None);
    }
    let number = state.taken;
    if !state.has_writer {
        state.has_writer = thread::Builder::new().spawn(|| QUEUE.write_for_ever()).is_ok();
    }
    if state.has_writer {
        QUEUE.changed.notify_all();
    } else if !state.is_writing {
        QUEUE.write_without_thread(state);
    }
    Taken(Some(number))
}

/// A line that was taken, by its number, or dropped.
pub(super) struct Taken(Option<u64>);

impl Taken {
    /// Waits until the line is written, unless this process writes in the background, or stderr is stuck.
    pub(super) fn wait(self) {
        let Some(number) = self.0 else { return };
        if IS_IN_BACKGROUND.load(Ordering::Relaxed) {
            return;
        }
        let is_waiting = |state: &mut QueueState| state.done < number && !state.is_stuck;
        let waited = QUEUE.changed.wait_timeout_while(QUEUE.lock(), LINE_PATIENCE, is_waiting);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.done < number {
            state.is_stuck = true;
            QUEUE.changed.notify_all();
        }
    }
}

/// Waits until all lines are written, but not for long if stderr takes nothing.
pub(super) fn flush() {
    let begun = Instant::now();
    let mut state = QUEUE.lock();
    let (mut done, mut moved_at) = (state.done, begun);
    while state.has_more() && moved_at.elapsed() < STUCK_PATIENCE && begun.elapsed() < END_PATIENCE
    {
        let waited = QUEUE.changed.wait_timeout(state, STUCK_PATIENCE / 10);
        (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        // If stderr takes something, it is the thread that waits, for a processor.
        let is_ready = || await_ready(&io::stderr(), Some(Duration::ZERO)).is_ok();
        if state.done != done || is_ready() {
            (done, moved_at) = (state.done, Instant::now());
        }
    }
}

struct Queue {
    state: Mutex<QueueState>,
    /// Notified when a line was taken, and when one was written.
    changed: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what is taken, without end. The thread ends with the process, also in the middle of a write.
    fn write_for_ever(&self) {
        let mut state = self.lock();
        loop {
            let has_nothing = |state: &mut QueueState| state.is_writing || !state.has_more();
            let waited = self.changed.wait_while(state, has_nothing);
            state = waited.unwrap_or_else(PoisonError::into_inner);
            state = self.write_all(state, None);
        }
    }

    /// Writes what waits although there can be no thread for it: what would block is dropped.
    fn write_without_thread(&self, state: MutexGuard<'_, QueueState>) {
        let waits = !state.is_stuck && !IS_IN_BACKGROUND.load(Ordering::Relaxed);
        let patience = if waits { LINE_PATIENCE } else { Duration::ZERO };
        drop(self.write_all(state, Some(patience)));
    }

    fn write_all<'a>(
        &'a self,
        mut state: MutexGuard<'a, QueueState>,
        patience: Option<Duration>,
    ) -> MutexGuard<'a, QueueState> {
        while let Some(QueuedLine { text, counts }) = state.next() {
            state.is_writing = true;
            drop(state);
            let written = write_to_stderr(text.as_bytes(), patience);
            state = self.lock();
            state.is_writing = false;
            state.finish(counts, written.is_ok());
            self.changed.notify_all();
        }
        state
    }
}

/// What is written at once.
struct QueuedLine {
    text: String,
    /// How many lines are lost if it is not written: more than one if it says how many were dropped.
    counts: u64,
}

/// What waits, and what has become of the rest.
struct QueueState {
    waiting: VecDeque<QueuedLine>,
    /// The length of all that waits.
    bytes: usize,
    /// How many lines were taken so far, and how many of them are written or lost.
    taken: u64,
    done: u64,
    /// How many lines were lost since the last one that waits.
    dropped: u64,
    /// Whether the last write has failed. Then the number of dropped lines waits for another line.
    has_failed: bool,
    /// Whether a line has not been written in time, and none was since.
    is_stuck: bool,
    /// Whether there is a thread that writes.
    has_writer: bool,
    /// Whether a line is being written.
    is_writing: bool,
}

impl QueueState {
    const EMPTY: QueueState = QueueState {
        waiting: VecDeque::new(),
        bytes: 0,
        taken: 0,
        done: 0,
        dropped: 0,
        has_failed: false,
        is_stuck: false,
        has_writer: false,
        is_writing: false,
    };

    /// Takes a line if there is room for it, and else drops it. Returns whether it was taken.
    fn offer(&mut self, text: String) -> bool {
        if !self.waiting.is_empty() && self.bytes + text.len() > MAX_WAITING {
            self.dropped += 1;
            return false;
        }
        if self.dropped > 0 {
            let notice = self.notice();
            self.push(notice);
        }
        self.has_failed = false;
        self.push(QueuedLine { text, counts: 1 });
        true
    }

    fn push(&mut self, line: QueuedLine) {
        self.bytes += line.text.len();
        self.taken += 1;
        self.waiting.push_back(line);
    }

    /// Returns the line that says how many were dropped.
    fn notice(&mut self) -> QueuedLine {
        let counts = std::mem::take(&mut self.dropped);
        let (noun, verb) = if counts == 1 { ("line", "was") } else { ("lines", "were") };
        let text = Language::of_process().text(
            format!("{counts} {noun} {verb} dropped: stderr took no more."),
            format!("stderr 无法写入，丢弃了 {counts} 行日志。"),
        );
        let text = format::line(Level::Error, "lines_dropped", &[], format_args!("{text}"));
        QueuedLine { text, counts }
    }

    /// Whether something is to be written or is being written.
    fn has_more(&self) -> bool {
        self.is_writing || !self.waiting.is_empty() || (self.dropped > 0 && !self.has_failed)
    }

    /// Returns what is to be written next.
    fn next(&mut self) -> Option<QueuedLine> {
        if self.waiting.is_empty() && self.dropped > 0 && !self.has_failed {
            let notice = self.notice();
            self.push(notice);
        }
        let line = self.waiting.pop_front()?;
        self.bytes -= line.text.len();
        Some(line)
    }

    /// Notes what has become of the line that counts as this many.
    fn finish(&mut self, counts: u64, is_written: bool) {
        self.done += 1;
        self.has_failed = !is_written;
        if is_written {
            self.is_stuck = false;
        } else {
            self.dropped += counts;
        }
    }
}

/// Writes a text to stderr, in one write if that takes all: lines of several processes do not mix then. If stderr is closed,
/// there is nowhere to report it. With `patience` it never blocks for longer, and fails instead.
fn write_to_stderr(mut text: &[u8], patience: Option<Duration>) -> Result<(), Errno> {
    let stderr = io::stderr();
    while !text.is_empty() {
        let mut at_once = text;
        if patience.is_some() {
            await_ready(&stderr, patience)?;
            at_once = &text[..text.len().min(NEVER_BLOCKS)];
        }
        match write(&stderr, at_once) {
            Ok(0) => return Err(Errno::IO),
            Ok(written) => text = &text[written..],
            Err(Errno::INTR) => {}
            // A process that shares it has made it non-blocking.
            Err(Errno::AGAIN) => await_ready(&stderr, patience)?,
            Err(Errno::PIPE | Errno::BADF) => return Ok(()),
            Err(err) => return Err(err),
        }
    }
    Ok(())
}

/// Waits until stderr takes something, for at most `patience`.
fn await_ready(stderr: &io::Stderr, patience: Option<Duration>) -> Result<(), Errno> {
    let patience = patience.map(Timespec::try_from).transpose().map_err(|_| Errno::INVAL)?;
    loop {
        match poll(&mut [PollFd::new(stderr, PollFlags::OUT)], patience.as_ref()) {
            Ok(0) => return Err(Errno::TIMEDOUT),
            Err(Errno::INTR) => {}
            ready => return ready.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes the next line. Returns it without the Chinese.
    fn next(state: &mut QueueState) -> Option<(String, u64)> {
        let QueuedLine { text, counts } = state.next()?;
        Some((text.split(". stderr ").next().expect("a part").trim_end().to_owned(), counts))
    }

    #[test]
    fn lines_keep_their_order_and_the_dropped_ones_are_counted_where_they_were() {
        let mut state = QueueState::EMPTY;
        let long = |letter: &str| format!("{}\n", letter.repeat(MAX_WAITING / 2 - 1));
        assert!(state.offer(long("a")) && state.offer(long("b")));
        for _ in 0..3 {
            assert!(!state.offer("lost\n".to_owned()));
        }
        assert_eq!(next(&mut state).map(|line| line.1), Some(1));
        state.finish(1, true);
        assert!(state.offer("after\n".to_owned()));
        assert!(next(&mut state).is_some_and(|(text, _)| text.starts_with('b')));
        state.finish(1, true);
        let notice = "wxtoken: 3 lines were dropped: stderr took no more".to_owned();
        assert_eq!(next(&mut state), Some((notice, 3)));
        state.finish(3, true);
        assert_eq!(next(&mut state), Some(("after".to_owned(), 1)));
        state.finish(1, true);
        assert!(!state.has_more() && next(&mut state).is_none());
        assert_eq!((state.taken, state.done, state.bytes), (4, 4, 0));
    }

    #[test]
    fn dropped_lines_are_told_without_a_line_after_them() {
        let mut state = QueueState::EMPTY;
        assert!(state.offer("x".repeat(MAX_WAITING)));
        assert!(!state.offer("lost\n".to_owned()));
        assert!(next(&mut state).is_some());
        state.finish(1, true);
        let notice = "wxtoken: 1 line was dropped: stderr took no more".to_owned();
        assert_eq!(next(&mut state), Some((notice, 1)));
    }

    #[test]
    fn lines_that_cannot_be_written_are_told_with_the_next_one_that_can() {
        let mut state = QueueState::EMPTY;
        for failures in 1..=3 {
            assert!(state.offer("lost\n".to_owned()));
            while let Some((_, counts)) = next(&mut state) {
                state.finish(counts, false);
            }
            assert_eq!((state.dropped, state.has_more()), (failures, false));
        }
        assert!(state.offer("written\n".to_owned()));
        let notice = "wxtoken: 3 lines were dropped: stderr took no more".to_owned();
        assert_eq!(next(&mut state), Some((notice, 3)));
        state.finish(3, true);
        assert_eq!(next(&mut state), Some(("written".to_owned(), 1)));
        state.finish(1, true);
        assert_eq!(state.dropped, 0);
    }
}
