//! Runs the account's hook after its token has changed: in a thread of its own, one at a time, and once more if the token
//! changed meanwhile. When the server ends, a running hook is stopped after a moment.

use std::cell::Cell;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use time::UtcDateTime;
use tokio::task::spawn_local;

use super::Environment;
use super::settings::Settings;
use crate::log::{OnceUntilChanged, error, info};
use crate::message::action_first;
use crate::model::kind::DocumentKind;
use crate::model::status::HookStatus;
use crate::os::hook::{HAS_RUN, HookKind, NOT_RUN, TIME_AT_END};
use crate::os::thread;

/// The pause before a hook is run again for which there was no thread.
const RETRY_WITHOUT_THREAD: Duration = Duration::from_secs(1);

/// The state of an account's hook.
#[derive(Default)]
pub(super) struct OnChange {
    phase: Cell<Phase>,
    /// When it failed, if no success followed.
    failed_at: Cell<Option<UtcDateTime>>,
    /// Whether a running hook is to be stopped.
    is_stopped: Arc<AtomicBool>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Idle,
    Running,
    /// Running, and the token has changed since.
    RunAgain,
}

impl OnChange {
    /// Runs the hook of the settings, which are read anew before each run, and waits for its end. If it is running already, it will be run
    /// once more after that, and this returns at once.
    pub(super) async fn run(
        &self,
        settings: impl Fn() -> Arc<Settings>,
        environment: &Environment,
    ) {
        if settings().account.on_change.is_none()
            || self.phase.replace(Phase::RunAgain) != Phase::Idle
        {
            return;
        }
        let mut trouble = OnceUntilChanged::default();
        while self.phase.replace(Phase::Running) == Phase::RunAgain {
            let _permit = environment.hook_slots.acquire().await; // Never closed.
            let settings = settings();
            let Some(hook) = settings.account.on_change.clone() else { break };
            let name = settings.account.name.clone();
            let document = settings.account.location.path(&DocumentKind::Token);
            let is_stopped = Arc::clone(&self.is_stopped);
            let run =
                move || hook.run(&name, &document, &[], &|| is_stopped.load(Ordering::Relaxed));
            let result = thread::run_by(&*environment.clock, run).await;
            let has_succeeded = matches!(result, Ok(Ok(())));
            self.failed_at.set((!has_succeeded).then(|| environment.clock.now().wall));
            let name = &settings.account.name;
            match result {
                Ok(Ok(())) => {
                    let ran = HAS_RUN.with([&HookKind::OnChange.key()]);
                    info!(event = "hook_ran", account = name; "serve: {name}: {ran}")
                }
                Ok(Err(failure)) => {
                    error!(event = "hook_failed", account = name; "serve: {name}: {failure}")
                }
                Err(err) => {
                    let said = NOT_RUN.quoting([&HookKind::OnChange.key()], &err);
                    let failure = action_first(&said);
                    if trouble.is_new(&failure) {
                        error!(event = "hook_failed", account = name; "serve: {name}: {failure}");
                    }
                    // For want of a thread. The token has changed all the same.
                    if err.kind() == ErrorKind::WouldBlock && !self.is_stopped() {
                        environment.clock.timer(RETRY_WITHOUT_THREAD).await;
                        self.phase.set(Phase::RunAgain);
                    }
                }
            }
        }
        self.phase.set(Phase::Idle);
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    /// Returns the flag that stops running hooks of the account.
    pub(super) fn stop_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_stopped)
    }

    /// Stops a running hook, after a moment.
    pub(super) fn stop(&self, environment: &Environment) {
        let (is_stopped, timer) =
            (Arc::clone(&self.is_stopped), environment.clock.timer(TIME_AT_END));
        spawn_local(async move {
            timer.await;
            is_stopped.store(true, Ordering::Relaxed);
        });
    }

    /// Returns the status of the hook that the settings have.
    pub(super) fn status(&self) -> HookStatus {
        HookStatus { failed_at: self.failed_at.get() }
    }

    /// Forgets a failure, because there is another hook now.
    pub(super) fn forget_failure(&self) {
        self.failed_at.set(None);
    }
}
