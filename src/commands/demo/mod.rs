//! The `demo` command: runs wxtoken's real commands against the stand-in for WeChat and prints what they do.
//! Each command is a process of its own, in a directory that is removed at the end. Needs no account and no network.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use anyhow::{Context, Result};

use crate::cli::DemoArgs;
use crate::error::Exit;
use crate::os::signals::Shutdown;
use crate::os::thread;

use sandbox::Sandbox;

mod single_account;
mod several_accounts;
mod sandbox;
mod narration;

/// Runs the demo.
pub(crate) fn run(args: &DemoArgs) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(run_until_shutdown(args.full, args.keep));
    // After an interruption the scenario's thread can still be in its last step; the sandbox refuses to start more.
    runtime.shutdown_background();
    outcome
}

/// Runs the scenario to its end, or until a signal, which is a failure if not all was shown. With `keep`, its servers stay until
/// a signal. Cleans up in each case.
async fn run_until_shutdown(full: bool, keep: bool) -> Result<Exit> {
    // Before anything is created, so that a signal cannot leave it behind.
    let mut shutdown = Shutdown::listen_with_hangup().context("cannot wait for signals")?;
    let sandbox = Arc::new(Sandbox::create()?);
    let run_scenario = if full { several_accounts::run } else { single_account::run };
    let shared = Arc::clone(&sandbox);
    let mut scenario = pin!(thread::run(move || run_scenario(&shared, keep)));
    let mut interrupted = pin!(shutdown.requested());
    // `None` if the signal comes first.
    let finished = poll_fn(|cx| {
        if interrupted.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        scenario.as_mut().poll(cx).map(Some)
    })
    .await;
    let outcome = match finished {
        // Those who had it go on end it themselves.
        None => Ok(if keep { Exit::Done } else { Exit::Failure }),
        Some(joined) => {
            let outcome = joined.context("the story broke off").and_then(|outcome| outcome);
            if keep && outcome.is_ok() {
                interrupted.await;
            }
            outcome.map(|()| Exit::Done)
        }
    };
    sandbox.remove();
    outcome
}
