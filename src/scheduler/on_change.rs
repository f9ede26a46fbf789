//! The hook of one account inside of `serve --refresh`: run in a thread of its own, once at a time, and once more if the
//! token changed meanwhile. It has until the server ends, and a moment more.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use time::UtcDateTime;
use tokio::sync::Semaphore;
use tokio::task::{spawn_blocking, spawn_local};

use crate::log::{error, info};
use crate::model::account::Account;
use crate::model::kind::DocumentKind;
use crate::model::status::HookStatus;
use crate::os::clock::{Clock, SystemClock};
use crate::os::hook::Hook;

/// So many hooks of all accounts run at once. Each waits in a thread; those come beside the ones that are there for asking.
pub(crate) const MOST_HOOKS: usize = 16;

static HOOKS: Semaphore = Semaphore::const_new(MOST_HOOKS);

/// When the server ends, a hook that runs may take so long. What comes then, and its grace, are within the server's own.
const AT_END: Duration = Duration::from_secs(3);

/// What an account wants run when its token changed, if it does.
pub(super) struct OnChange {
    account: String,
    /// Where the token's document is.
    document: PathBuf,
    hook: RefCell<Option<Hook>>,
    state: Cell<HookState>,
    /// When it failed, if it has not run well since.
    failed_at: Cell<Option<UtcDateTime>>,
    /// Whether nobody has time for it any more.
    is_over: Arc<AtomicBool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum HookState {
    Idle,
    Running,
    /// The token has changed since it last began.
    Again,
}

impl OnChange {
    pub(super) fn of(account: &Account) -> OnChange {
        OnChange {
            account: account.name.clone(),
            document: account.location.path(&DocumentKind::Token),
            hook: RefCell::new(account.on_change.clone()),
            state: Cell::new(HookState::Idle),
            failed_at: Cell::default(),
            is_over: Arc::default(),
        }
    }

    /// Runs this hook from now on.
    pub(super) fn set_hook(&self, hook: Option<&Hook>) {
        if self.hook.borrow().as_ref() != hook {
            self.hook.replace(hook.cloned());
            self.failed_at.set(None);
        }
    }

    /// Has it run, as the token has changed; if it runs already, whoever waits for that runs it again.
    pub(super) async fn run(&self) {
        if self.hook.borrow().is_none() {
            return;
        }
        if self.state.replace(HookState::Again) != HookState::Idle {
            return;
        }
        let name = &self.account;
        while self.state.replace(HookState::Running) == HookState::Again {
            let _permit = HOOKS.acquire().await; // It is never closed.
            let Some(hook) = self.hook.borrow().clone() else { break };
            let (account, document) = (name.clone(), self.document.clone());
            let is_over = Arc::clone(&self.is_over);
            let is_over = move || is_over.load(Ordering::Relaxed);
            let done = spawn_blocking(move || hook.run(&account, &document, &is_over)).await;
            let is_well = matches!(done, Ok(Ok(())));
            self.failed_at.set((!is_well).then(|| SystemClock.now()));
            match done {
                Ok(Ok(())) => info!("serve: {name}: on_change has run"),
                Ok(Err(failure)) => error!("serve: {name}: {failure}"),
                Err(_) => error!("serve: {name}: {}", super::broke_off()),
            }
        }
        self.state.set(HookState::Idle);
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.state.get() != HookState::Idle
    }

    /// It has no time for long any more.
    pub(super) fn wind_up(&self) {
        let is_over = Arc::clone(&self.is_over);
        spawn_local(async move {
            SystemClock.timer(AT_END).await;
            is_over.store(true, Ordering::Relaxed);
        });
    }

    /// What is known of it; `None` where there is nothing to be run.
    pub(super) fn status(&self) -> Option<HookStatus> {
        self.hook.borrow().as_ref().map(|_| HookStatus { failed_at: self.failed_at.get() })
    }
}
