//! Keeps WeChat access tokens fresh in files, and hands them out.
//!
//! Read the modules in the order below: what the user can type and what the process says, what a token is, the edges
//! of the process, the one story, and the verbs. A module uses only what stands above it; modules of one
//! group do not know each other.

use std::process::ExitCode;

// Leaves: they know nothing of ours.
mod cli;
mod exit;
mod report;
mod secret;

// Edges: where the process meets the world.
mod server;

// The verbs: each is a paragraph.
mod cmd;

fn main() -> ExitCode {
    let cli = cli::Cli::from_command_line();
    report::set_level(cli.common.quiet, cli.common.verbose);
    let verb = cli.verb.name();
    match cmd::run(cli) {
        Ok(exit) => exit.into(),
        Err(err) => {
            report::failure!("{verb}: {err:#}");
            exit::Exit::of(&err).into()
        }
    }
}
