//! The line of progress on the terminal at stderr: how far the work is, and what it waits for. It stays below all other lines,
//! and is erased when there is nothing to say. Nothing is said where stderr is no terminal.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::termios::tcgetwinsize;

use super::{Level, columns_of, is_enabled, queue};
use crate::language::Language;

/// How long something is waited for before that is said.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often the line is drawn anew.
const REDRAW: Duration = Duration::from_millis(200);

/// Moves to the beginning of the line and erases it.
const ERASE: &str = "\r\x1b[K";

/// The width of a terminal that does not say how wide it is, in columns.
pub(crate) const USUAL_WIDTH: usize = 80;

static LINE: Mutex<ProgressLine> = Mutex::new(ProgressLine::EMPTY);

/// Whether waits are noted, which has a price.
static TELLS_WAITS: AtomicBool = AtomicBool::new(false);

struct ProgressLine {
    /// How far the work is; empty if that is not said.
    work: String,
    /// What is being waited for, the longest wait first.
    waits: Vec<Wait>,
    next_id: u64,
    /// What stands on the terminal.
    shown: String,
}

struct Wait {
    id: u64,
    since: Instant,
    text: [String; 2],
}

impl ProgressLine {
    const EMPTY: ProgressLine =
        ProgressLine { work: String::new(), waits: Vec::new(), next_id: 0, shown: String::new() };

    /// Returns what is to be said now.
    fn text(&self, now: Instant, language: Language) -> String {
        let age = |wait: &Wait| now.saturating_duration_since(wait.since);
        let wait = self.waits.first().filter(|wait| age(wait) >= PATIENCE).map(|wait| {
            let ([english, chinese], secs) = (&wait.text, age(wait).as_secs());
            match language {
                Language::Chinese => format!("正在等待{chinese}… {secs} 秒"),
                Language::English | Language::Both => format!("waiting for {english}… {secs} s"),
            }
        });
        match wait {
            Some(wait) if self.work.is_empty() => wait,
            Some(wait) => format!("{}; {wait}", self.work),
            None => self.work.clone(),
        }
    }
}

/// Has waits that take long said from now on, if stderr is a terminal and takes lines at all.
pub(crate) fn tell_waits() {
    if can_show() && !TELLS_WAITS.swap(true, Ordering::Relaxed) {
        // Without a thread nothing is said of waits.
        let _ = thread::Builder::new().spawn(|| {
            loop {
                thread::sleep(REDRAW);
                redraw(lock());
            }
        });
    }
}

/// Whether stderr is a terminal on which a line can be replaced, and that is not silent.
pub(crate) fn can_show() -> bool {
    let is_dumb = std::env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
    is_enabled(Level::Error) && std::io::stderr().is_terminal() && !is_dumb
}

/// Something that is waited for until this is dropped.
pub(crate) struct Waiting(Option<u64>);

/// Notes that something is waited for; `what` says what, in English and Chinese, to follow “waiting for” and “正在等待”.
pub(crate) fn waiting_for(what: impl FnOnce() -> [String; 2]) -> Waiting {
    if !TELLS_WAITS.load(Ordering::Relaxed) {
        return Waiting(None);
    }
    let text = what();
    let mut line = lock();
    let id = line.next_id;
    line.next_id += 1;
    line.waits.push(Wait { id, since: Instant::now(), text });
    Waiting(Some(id))
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            let mut line = lock();
            line.waits.retain(|wait| wait.id != id);
            redraw(line);
        }
    }
}

/// Says how far the work is; an empty `text` says nothing.
pub(crate) fn show_progress(text: &str) {
    let mut line = lock();
    text.clone_into(&mut line.work);
    redraw(line);
}

/// Runs `write`, which writes to the same terminal in another way, while there is no progress line.
pub(crate) fn without_progress<T>(write: impl FnOnce() -> T) -> T {
    let line = lock();
    if line.shown.is_empty() {
        return write();
    }
    queue::take(ERASE.to_owned()).wait();
    let written = write();
    queue::take(line.shown.clone()).wait();
    written
}

/// Writes a line above the progress line.
pub(super) fn write_above(text: String) {
    let line = lock();
    let text = match line.shown.as_str() {
        "" => text,
        shown => format!("{ERASE}{text}{shown}"),
    };
    let taken = queue::take(text);
    drop(line);
    taken.wait();
}

/// Erases the line for good. For the end of the process, which may come while another thread writes.
pub(super) fn end() {
    if let Ok(mut line) = LINE.try_lock() {
        TELLS_WAITS.store(false, Ordering::Relaxed);
        line.work.clear();
        line.waits.clear();
        redraw(line);
    }
}

fn lock() -> MutexGuard<'static, ProgressLine> {
    LINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Replaces what stands on the terminal, if something else is to be said.
fn redraw(mut line: MutexGuard<'_, ProgressLine>) {
    let mut text = line.text(Instant::now(), Language::of_process());
    if !text.is_empty() {
        text = first_columns(&text, width().saturating_sub(1));
    }
    if text != line.shown && is_enabled(Level::Error) {
        let taken = queue::take(format!("{ERASE}{text}"));
        line.shown = text;
        drop(line);
        taken.wait();
    }
}

/// The width of the terminal at stderr, in columns.
fn width() -> usize {
    let columns = tcgetwinsize(std::io::stderr()).map_or(0, |size| usize::from(size.ws_col));
    if columns == 0 { USUAL_WIDTH } else { columns }
}

/// Returns the beginning of a text that fits into one line, which alone can be erased. Blanks stand for its control characters.
fn first_columns(text: &str, width: usize) -> String {
    let mut left = width;
    let fits = |c: &char| {
        let fits = columns_of(*c) <= left;
        left = left.saturating_sub(columns_of(*c));
        fits
    };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_wait_is_said_after_a_second_beside_how_far_the_work_is() {
        let begun = Instant::now();
        let wait = |id, after: u64| Wait {
            id,
            since: begun + Duration::from_secs(after),
            text: ["WeChat".to_owned(), "微信".to_owned()],
        };
        let mut line = ProgressLine { waits: vec![wait(0, 0), wait(1, 5)], ..ProgressLine::EMPTY };
        let text = |line: &ProgressLine, secs, language| {
            line.text(begun + Duration::from_millis(secs), language)
        };
        assert_eq!(text(&line, 999, Language::English), "");
        assert_eq!(text(&line, 8_100, Language::Both), "waiting for WeChat… 8 s");
        assert_eq!(text(&line, 8_100, Language::Chinese), "正在等待微信… 8 秒");
        line.work = "fetch: 1 of 3 accounts".to_owned();
        assert_eq!(text(&line, 500, Language::English), "fetch: 1 of 3 accounts");
        let both = "fetch: 1 of 3 accounts; waiting for WeChat… 2 s";
        assert_eq!(text(&line, 2_000, Language::English), both);
        line.waits.clear();
        assert_eq!(text(&line, 9_000, Language::English), "fetch: 1 of 3 accounts");
    }

    #[test]
    fn the_line_fits_the_terminal() {
        assert_eq!(first_columns("waiting for WeChat", 7), "waiting");
        assert_eq!(first_columns("正在等待微信", 5), "正在");
        assert_eq!(first_columns("short", 80), "short");
        assert_eq!(first_columns("/a\n\u{1b}[2Jb", 80), "/a  [2Jb");
    }
}
