//! Asks for a line on the terminal without showing what is typed. Whatever ends the question, signals included, the terminal
//! shows again what is typed after it.

use std::fs::File;
use std::io::{self, IsTerminal, Write};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};
use zeroize::Zeroizing;

use crate::language::Language;
use crate::os::{ending, signals::SignalDeferral};

/// The longest line that a terminal hands over.
const MAX_LINE: usize = 4096;

/// How often it is looked for a signal.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// The terminal of this process.
pub(super) struct Terminal(File);

impl Terminal {
    /// Opens the terminal. `None` if this process has none, or if stdin is something else: then there may be no person at it.
    pub(super) fn open() -> Option<Terminal> {
        let terminal = || File::options().read(true).write(true).open("/dev/tty").ok();
        io::stdin().is_terminal().then(terminal).flatten().map(Terminal)
    }

    /// Writes a text.
    pub(super) fn say(&self, text: &str) -> io::Result<()> {
        (&self.0).write_all(text.as_bytes())
    }

    /// Asks for Enter. Returns whether it was pressed: Ctrl-D says no.
    pub(super) fn confirm(&self, question: &str) -> io::Result<bool> {
        let answer = self.ask(&Language::of_process().resolve(question))?;
        Ok(answer.ends_with(b"\n"))
    }

    /// Asks, and reads a line without showing it. If the process is told to end meanwhile, it ends.
    pub(super) fn ask(&self, question: &str) -> io::Result<Zeroizing<Vec<u8>>> {
        let deferral = SignalDeferral::begin();
        // Before the question: what is typed from then on is its answer.
        let hidden = Hidden::begin(&self.0)?;
        self.say(question)?;
        let line = read_line(&self.0);
        drop(hidden);
        // The line end that was typed was not shown either.
        let _ = self.say("\n");
        drop(deferral);
        line
    }
}

/// A terminal that does not show what is typed, until this is dropped.
struct Hidden<'a> {
    terminal: &'a File,
    before: Termios,
}

impl Hidden<'_> {
    fn begin(terminal: &File) -> io::Result<Hidden<'_>> {
        let before = tcgetattr(terminal)?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL);
        // A stopped process would leave the terminal to the shell as it is.
        hidden.special_codes[SpecialCodeIndex::VSUSP] = 0;
        // What was typed before the question was asked, and shown, is not its answer.
        tcsetattr(terminal, OptionalActions::Flush, &hidden)?;
        Ok(Hidden { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}

/// Reads a line. Fails if there is no more, or if a signal has come.
fn read_line(terminal: &File) -> io::Result<Zeroizing<Vec<u8>>> {
    // Of full size from the start: a vector that grows leaves copies behind.
    let mut line = Zeroizing::new(vec![0; MAX_LINE]);
    loop {
        match poll(&mut [PollFd::new(terminal, PollFlags::IN)], Some(&LOOK)) {
            _ if ending::is_asked() => return Err(io::ErrorKind::Interrupted.into()),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => {
                let length = rustix::io::read(terminal, line.as_mut_slice())?;
                line.truncate(length);
                return Ok(line);
            }
            Err(err) => return Err(err.into()),
        }
    }
}
