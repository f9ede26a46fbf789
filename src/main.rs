//! Keeps WeChat access tokens fresh in files, and hands them out.
//!
//! `docs/architecture.md` explains the words of this code and the way of a request through it. The modules below are in its order, from
//! what users see down to what everything else uses; a module uses only modules below it.

// stdout is written by `commands::output` and stderr by `log`, which survive a closed pipe. Tests may print and unwrap.
#![warn(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};

use crate::language::Language;

// The relocations of the static program are packed (`.cargo/config.toml`), and the musl of Rust before 1.93 does not apply packed ones:
// the program would crash as it starts. `from_fn` keeps an older Rust from compiling this.
#[cfg(target_env = "musl")]
#[allow(unused_imports, clippy::incompatible_msrv)]
use std::fmt::from_fn as _;

#[cfg(test)]
mod simulation;

// The verbs, and what they are given.
mod commands;
mod config;
mod cli;

// `serve` and `check`, and a WeChat to try them on.
mod check;
mod mock;
mod server;
mod accounts;
mod scheduler;

// Getting a token and publishing it.
mod refresh;
mod store;
mod upstream;

// What the rest is made of.
mod model;
mod os;
mod error;
mod log;
mod message;
mod language;
mod sabotage;

#[cfg(any(test, fuzzing))]
#[path = "../tests/fuzz/properties/mod.rs"]
pub mod fuzz;

fn main() -> ExitCode {
    // Before anything else: the environment may hold the AppSecret.
    let forbidden = forbid_core_dumps();
    language::set(Language::of_environment(|name| std::env::var(name).ok()));
    log::report_panics();
    let _flush = log::FlushAtEnd;
    os::signals::survive_size_limit();
    let cli = cli::Cli::from_command_line();
    log::set_level(cli.common.quiet, cli.common.verbose);
    if cli.command.ends_by_itself() {
        log::tell_waits();
    }
    let command = cli.command.name();
    log::set_format(cli.common.log_format, command);
    if let Err(err) = forbidden {
        log::error!("{command}: {}", commands::messages::CORE_DUMPS.quoting([], err));
    }
    match panic::catch_unwind(AssertUnwindSafe(|| commands::run(cli))) {
        Ok(Ok(exit)) => exit.into(),
        Ok(Err(err)) => error::Exit::report(command, None, &err).into(),
        // The panic was reported where it happened. 1 is a status of the manual, and Rust's own for a panic is not.
        Err(_) => error::Exit::Failure.into(),
    }
}

/// Keeps the memory of this process, which holds secrets and tokens, out of core dumps and from other processes of the
/// same user: makes it not dumpable, and its core limit 0.
///
/// A process that is not dumpable leaves no core, whatever the limit and the handler of cores, and other processes of the
/// same user cannot read its memory (prctl(2), ptrace(2)). A hook is dumpable again: execve(2) resets that. It inherits
/// the limit, of which only the soft one is lowered, so that it can raise it.
fn forbid_core_dumps() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let limit = getrlimit(Resource::Core);
    // A filter of system calls may refuse this, which does no harm: the process is not dumpable already.
    if limit.current != Some(0) {
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: limit.maximum });
    }
    Ok(())
}
