//! What commands write to stdout. Errors and progress go to stderr, through [`crate::log`].

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};

use anyhow::{Result, anyhow};

use crate::commands::messages;
use crate::language::Language;

pub(super) mod table;
pub(super) mod terminal;

// SGR sequences of ECMA-48.
pub(super) const GREEN: &str = "\x1b[32m";
pub(super) const YELLOW: &str = "\x1b[33m";
pub(super) const RED: &str = "\x1b[31m";
pub(super) const RESET: &str = "\x1b[0m";

/// Writes `text` to stdout. Succeeds if the reader has closed its end; fails if the disk is full.
pub(super) fn print(text: &str) -> Result<()> {
    let text = Language::of_process().resolve(text);
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(err) if err.kind() != ErrorKind::BrokenPipe => {
            Err(anyhow!(messages::STDOUT_UNWRITABLE.quoting([], err)))
        }
        _ => Ok(()),
    }
}

/// Prints a line for each address that the command listens on. The caller's parent may wait for these lines.
pub(super) fn print_listening<A: Display>(addresses: &[A]) -> Result<()> {
    let lines: String =
        addresses.iter().map(|address| format!("listening on {address}\n")).collect();
    print(&lines)
}

/// Whether stdout takes colours: it is a terminal that is not dumb, and `NO_COLOR` is empty or unset
/// (<https://no-color.org>).
pub(super) fn has_colours() -> bool {
    let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    io::stdout().is_terminal() && !is_refused && !is_dumb
}
