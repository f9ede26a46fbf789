//! Keeps WeChat access tokens fresh in files, and hands them out.
//!
//! Read the modules in the order below: what the user can type and what the process says, what a token is, the edges
//! of the process, the one story, and the verbs. A module uses only what stands above it; modules of one
//! group do not know each other.

// stdout is the answer's and stderr is `report`'s, and neither may panic on a closed pipe; nor may an unwrap. Tests may.
#![warn(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

use std::process::ExitCode;

mod accounts;
mod check;
mod cli;
mod commands;
mod config;
mod error;
mod log;
mod mock;
mod model;
mod os;
mod refresh;
mod scheduler;
mod server;
mod store;
mod upstream;

fn main() -> ExitCode {
    let cli = cli::Cli::from_command_line();
    log::set_level(cli.common.quiet, cli.common.verbose);
    let command = cli.command.name();
    match commands::run(cli) {
        Ok(exit) => exit.into(),
        Err(err) => {
            for line in error::Exit::lines(&err) {
                log::error!("{command}: {line}");
            }
            error::Exit::from_error(&err).into()
        }
    }
}
