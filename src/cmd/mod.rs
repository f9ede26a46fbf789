//! The verbs. Each file is one of them and reads as its own specification; nothing else decides an exit status.

mod serve;

use crate::cli::{Cli, Verb};
use crate::exit::Exit;

/// Does what was typed; an error carries its exit status (see [`Exit::error`]).
pub(crate) fn run(cli: Cli) -> anyhow::Result<Exit> {
    match cli.verb {
        Verb::Serve(flags) => serve::run(&flags),
        _ => Err(Exit::Usage.error("not here yet")),
    }
}
