//! The subcommands, a file for each. Exit statuses are decided here and nowhere below.

use anyhow::Result;

use crate::cli::{Cli, Command};
use crate::error::Exit;
use crate::os::signals;

mod ca;
mod check;
mod completions;
mod demo;
mod documents;
mod fetch;
mod get;
mod key;
#[cfg(test)]
mod message_list;
pub(crate) mod messages;
mod mock;
mod output;
mod parallel;
mod serve;
mod setup;
mod sign;
mod status;

/// Runs the command that was typed. An error carries the exit status ([`Exit::from_error`]).
pub(crate) fn run(cli: Cli) -> Result<Exit> {
    if cli.command.ends_by_itself() {
        signals::end_first_process();
    }
    match cli.command {
        Command::Setup(args) => setup::run(&cli.common, &args),
        Command::Fetch(args) => fetch::run(&cli.common, &args),
        Command::Get(args) => get::run(&cli.common, &args),
        Command::Serve(args) => serve::run(&cli.common, &args),
        Command::Sign(args) => sign::run(&cli.common, &args),
        Command::Status(args) => status::run(&cli.common, &args),
        Command::Check(args) => check::run(&cli.common, &args),
        Command::Key(args) => key::run(&args),
        Command::Ca(args) => ca::run(&args),
        Command::Mock(args) => mock::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Completions(args) => completions::run(&cli.common, &args),
    }
}
