//! Keeps WeChat access tokens fresh in files, and hands them out.
//!
//! `docs/architecture.md` describes the modules and which of them may use which.

// stdout is written by `commands::output` and stderr by `log`, which survive a closed pipe. Tests may print and unwrap.
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
    log::report_panics();
    os::signals::survive_size_limit();
    let cli = cli::Cli::from_command_line();
    log::set_level(cli.common.quiet, cli.common.verbose);
    let command = cli.command.name();
    commands::run(cli).unwrap_or_else(|err| error::Exit::report(command, &err)).into()
}
