//! The verbs. Each file is one of them and reads as its own specification; nothing else decides an exit status.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};

use anyhow::{Context, Result};

use crate::cli::{Cli, Verb};
use crate::error::Exit;

mod check;
mod demo;
mod fetch;
mod get;
mod key;
mod parallel;
mod mock;
mod published;
mod serve;
mod status;

/// Does what was typed; an error carries its exit status (see [`Exit::error`]).
pub(crate) fn run(cli: Cli) -> Result<Exit> {
    match cli.verb {
        Verb::Fetch(args) => fetch::run(&cli.common, &args),
        Verb::Get(args) => get::run(&cli.common, &args),
        Verb::Serve(args) => serve::run(&cli.common, &args),
        Verb::Status(args) => status::run(&cli.common, &args),
        Verb::Check(args) => check::run(&cli.common, &args),
        Verb::Key(args) => key::run(&args),
        Verb::Mock(args) => mock::run(&args),
        Verb::Demo(args) => demo::run(&args),
    }
}

/// Writes the answer to stdout. A reader that has gone away is no error; a full disk is.
fn answer(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(err) if err.kind() != ErrorKind::BrokenPipe => {
            Err(err).context("cannot write to stdout")
        }
        _ => Ok(()),
    }
}

/// Whether who reads stdout wants colours: a person, unless they said no (<https://no-color.org>).
fn has_colours() -> bool {
    let said_no = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !said_no
}

/// Says where callers are awaited, a line for each address. Whoever started us may wait for these lines.
fn announce<A: Display>(addresses: &[A]) -> Result<()> {
    let lines: String = addresses.iter().map(|at| format!("listening on {at}\n")).collect();
    answer(&lines)
}
