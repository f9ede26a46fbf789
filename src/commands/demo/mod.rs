//! `wxtoken demo`: the whole job against the stand-in, told as a story: the real commands as processes of their own,
//! in a directory that is gone afterwards. Needs no account, asks nobody but the stand-in.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use anyhow::{Context, Result};

use crate::cli::DemoArgs;
use crate::error::Exit;
use crate::os::signals::Shutdown;

use stage::Stage;

mod account;
mod company;
mod stage;
mod voice;

pub(crate) fn run(args: &DemoArgs) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(play(args.full, args.keep));
    // A story that was interrupted may still be at its last step, which finds nobody there.
    runtime.shutdown_background();
    outcome.map(|()| Exit::Done)
}

/// Tells the story, to its end or to Ctrl-C; with `keep`, goes on until then. Leaves nothing behind.
async fn play(full: bool, keep: bool) -> Result<()> {
    // First of all: from here on an end is an orderly one.
    let mut shutdown = Shutdown::listen_with_hangup().context("cannot wait for signals")?;
    let stage = Arc::new(Stage::set()?);
    let teller = Arc::clone(&stage);
    let tell = if full { company::tell } else { account::tell };
    let mut story = tokio::task::spawn_blocking(move || tell(&teller, keep));
    let mut interrupted = pin!(shutdown.requested());
    let told = poll_fn(|cx| {
        if interrupted.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut story).poll(cx).map(Some)
    })
    .await;
    let outcome = match told {
        None => Ok(()),
        Some(told) => {
            let outcome = told.context("the story broke off").and_then(|outcome| outcome);
            if keep && outcome.is_ok() {
                interrupted.await;
            }
            outcome
        }
    };
    stage.strike();
    outcome
}
