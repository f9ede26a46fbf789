//! Keeps WeChat access tokens fresh in files, and hands them out.
//!
//! Read the modules in the order below: what the user can type and what the process says, what a token is, the edges
//! of the process, the one story, and the verbs. A module uses only what stands above it; modules of one
//! group do not know each other.

// stdout is the answer's and stderr is `report`'s, and neither may panic on a closed pipe; nor may an unwrap. Tests may.
#![warn(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

use std::process::ExitCode;

// Leaves: they know nothing of ours.
mod api;
mod exit;
mod report;
mod secret;
mod clock;
mod signals;
mod owner;
mod revision;
mod exposition;

// What people write, wherever they write it.
mod network;
mod listen;
mod endpoint;
mod redis_url;

// What the user can type.
mod cli;

// Mechanism: nothing about WeChat in it.
mod atomic;
mod lock;
mod hook;
mod systemd;

// Rules: what a token, a refusal and a client's key mean, and where documents are. No clock, no I/O.
mod token;
mod errcode;
mod answer;
mod key;
mod place;

// Edges: what the outside says, where tokens come from, where they are published, who they are handed to.
mod config;
mod appsecret;
mod source;
mod store;
mod server;

// WeChat's stand-in, for tests and for trying things out: on the other side of the wire.
mod mock;

// The one story, who tells it again and again, and what `serve` tells of its outcome.
mod refresh;
mod keeper;
mod handout;
mod accounts;

// What a doctor says of all of it.
mod check;

// The verbs: each is a paragraph.
mod cmd;

fn main() -> ExitCode {
    let cli = cli::Cli::from_command_line();
    report::set_level(cli.common.quiet, cli.common.verbose);
    let verb = cli.verb.name();
    match cmd::run(cli) {
        Ok(exit) => exit.into(),
        Err(err) => {
            for line in exit::Exit::lines(&err) {
                report::error!("{verb}: {line}");
            }
            exit::Exit::of(&err).into()
        }
    }
}
