//! Serves tokens over HTTP/1.1 on one thread, and reloads its settings. Tokens come from [`Accounts`](crate::accounts::Accounts); flags and
//! the config come in as [`Options`].
//!
//! A connection goes through `transport`, a request through `routes` or the `gateway`. `access` has the rules of who may ask, and `state`
//! what all connections share.

pub(crate) mod access;
pub(crate) mod gateway;
mod headers;
mod limits;
mod reload;
mod routes;
mod state;
mod transport;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{MissedTickBehavior, interval, timeout};

pub(crate) use access::AccessSources;
#[cfg(test)]
pub(crate) use access::{forwarded::ALL as PROXY_MESSAGES, keys::ALL as KEYS_MESSAGES};
#[cfg(test)]
pub(crate) use gateway::{CALL_ERRORS, CALL_NOTES, CALL_REFUSALS};
#[cfg(test)]
pub(crate) use reload::{ALL as RELOAD_MESSAGES, NOTES as RELOAD_NOTES};
pub(crate) use reload::{Make, Reloaded, WatchedFiles};
#[cfg(test)]
pub(crate) use routes::rejection::{messages::ALL as REFUSAL_MESSAGES, text::ALL as REFUSALS};
#[cfg(test)]
pub(crate) use state::log_messages::{ALL as LOG_MESSAGES, NOTES as LOG_NOTES};
#[cfg(test)]
pub(crate) use state::snapshot::ALL as ACCESS_MESSAGES;
pub(crate) use state::snapshot::{AccessReader, AccountServers, ServerSettings};
#[cfg(test)]
pub(crate) use transport::socket::ALL as LISTENING_MESSAGES;
pub(crate) use transport::socket::{BoundSocket, Scheme};
#[cfg(test)]
pub(crate) use transport::tls::CERTIFICATE_MESSAGES;
pub(crate) use transport::tls::{Tls, TlsFiles};

use gateway::Gateway;
use limits::{PUBLISHING_TIMEOUT, SHUTDOWN_TIMEOUT};
use state::ServerState;
use state::counters::Counters;
use state::date::HttpDate;
use state::log_limit::ThrottledLog;
use state::slots::Connections;
use state::snapshot::LiveSnapshot;
use transport::repeated::SharedRequests;
use transport::{Transport, accept};

use crate::message::cannot;
use crate::os::clock::Clock;
use crate::os::ending::Finishing;
use crate::os::hook::children;
use crate::os::signals::{self, Hangup, ServerSignals, Shutdown};
use crate::os::systemd;
use crate::os::thread::BROKE_OFF;

/// How often the files that a reload reads are checked for changes. A change takes effect at the second check.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How often orphans are reaped by a server that is process 1 of a container.
const REAP_INTERVAL: Duration = Duration::from_secs(1);

/// How long the other files wait for the settings at each check: a new key may be for a new account.
const SETTINGS_HEAD_START: Duration = Duration::from_millis(500);

/// After this time systemd is told that a reload is over, even if a file has not been read yet. That read goes on.
const RELOAD_PATIENCE: Duration = Duration::from_secs(10);

/// What the server is started with.
pub(crate) struct Options {
    pub(crate) settings: Reloaded<ServerSettings>,
    /// The certificates for HTTPS over TCP; `None` for plain HTTP.
    pub(crate) tls: Option<Tls>,
    /// How many connections may be open. There are descriptors for so many.
    pub(crate) max_connections: usize,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) signals: ServerSignals,
}

/// Serves until a signal asks for the end. Calls `listening` with the addresses once clients can connect, and serves them meanwhile. Runs
/// where local tasks can be spawned.
pub(crate) async fn serve(
    bound: Vec<BoundSocket>,
    options: Options,
    listening: impl AsyncFnOnce(Vec<String>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let state = Rc::new(ServerState {
        snapshot: LiveSnapshot::new(options.settings),
        connections: Connections::new(options.max_connections),
        counters: Counters::default(),
        certificate_end: Cell::new(options.tls.as_ref().and_then(Tls::certificate_end)),
        reloads: RefCell::default(),
        storms: RefCell::default(),
        log: ThrottledLog::default(),
        date: HttpDate::default(),
        clock: options.clock,
    });
    state.note_reload("config", Some(true));
    let transport = Rc::new(Transport {
        state: Rc::clone(&state),
        tls: options.tls,
        gateway: Gateway::default(),
        parsers: Rc::default(),
        repeated: SharedRequests::default(),
    });
    let ServerSignals { hangup, mut shutdown } = options.signals;
    let reloading = spawn_local(reload(Rc::clone(&transport), hangup));
    let addresses: Vec<String> = bound.iter().map(BoundSocket::to_string).collect();
    let mut tasks = vec![reloading];
    for bound in bound {
        let name = bound.to_string();
        let listening = || cannot("listen on", "监听", &name);
        let listener = bound.start().with_context(listening)?;
        tasks.push(spawn_local(accept::accept(listener, Rc::clone(&transport))));
    }
    state.snapshot.get().accounts.start();
    if let Some(every) = systemd::alive_interval() {
        spawn_local(notify_alive(every)); // Until the process ends.
    }
    spawn_local(tell_rest(Rc::clone(&state))); // Until the process ends.
    if signals::is_first_process() {
        spawn_local(reap_orphans()); // Until the process ends.
    }
    run_until(shutdown.requested(), listening(addresses), &mut tasks).await?;
    systemd::stopping();
    for task in tasks {
        task.abort();
        let _ = task.await; // After this its socket is closed, and the file of a unix socket is removed.
    }
    wind_up(&state, &mut shutdown).await;
    Ok(())
}

/// Waits for the answers, refreshes and hooks under way: until they have ended, their time is over, or a second signal comes.
async fn wind_up(state: &ServerState, shutdown: &mut Shutdown) {
    state.connections.drain();
    let mut finished = pin!(async {
        let mut idle = pin!(async {
            state.snapshot.get().accounts.wind_up().await;
            state.connections.wait_until_at_most(0).await;
        });
        if timeout(SHUTDOWN_TIMEOUT, idle.as_mut()).await.is_err() && Finishing::is_under_way() {
            let _ = timeout(PUBLISHING_TIMEOUT, idle).await;
        }
    });
    let mut second_signal = pin!(shutdown.requested());
    poll_fn(|cx| {
        if finished.as_mut().poll(cx).is_ready() {
            Poll::Ready(())
        } else {
            second_signal.as_mut().poll(cx)
        }
    })
    .await;
}

/// Waits until a signal has `requested` the end, and runs `listening` meanwhile. Fails if `listening` fails, or if one of `tasks` ends: all
/// are needed, and a server that no longer accepts or reloads is to be started again.
async fn run_until(
    requested: impl Future<Output = ()>,
    listening: impl Future<Output = anyhow::Result<()>>,
    tasks: &mut [JoinHandle<()>],
) -> anyhow::Result<()> {
    let (mut requested, mut listening) = (pin!(requested), pin!(listening));
    let mut is_told = false;
    poll_fn(|cx| {
        if requested.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if tasks.iter_mut().any(|task| Pin::new(task).poll(cx).is_ready()) {
            return Poll::Ready(Err(anyhow!(BROKE_OFF.text())));
        }
        if !is_told {
            match listening.as_mut().poll(cx) {
                Poll::Ready(Ok(())) => is_told = true,
                other => return other,
            }
        }
        Poll::Pending
    })
    .await
}

/// Reloads the settings when their files change and on SIGHUP. Nothing is read on this thread, and no file waits for another one: a key or an
/// address is withdrawn in time, and a new AppSecret is used, whatever is wrong with the other files.
async fn reload(transport: Rc<Transport>, mut hangup: Hangup) {
    let mut checks = interval(CHECK_INTERVAL);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut updates: Vec<Task> = Vec::new();
    loop {
        let is_requested = poll_fn(|cx| match hangup.poll(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending => checks.poll_tick(cx).map(|_| false),
        })
        .await;
        if is_requested {
            systemd::reloading();
        }
        let mut settings = Task::start(&transport, async move |transport| {
            let is_current = transport.state.snapshot.update_settings(is_requested).await;
            transport.state.note_reload("config", Some(is_current));
        });
        settings.ended_within(SETTINGS_HEAD_START).await;
        let mut parts = vec![
            settings,
            Task::start(&transport, async move |transport| {
                let is_current = transport.state.snapshot.update_allow_file(is_requested).await;
                transport.state.note_reload("allow_file", is_current);
            }),
            Task::start(&transport, async move |transport| {
                let is_current = transport.state.snapshot.update_keys(is_requested).await;
                transport.state.note_reload("keys", is_current);
            }),
            Task::start(&transport, async move |transport| {
                if let Some(tls) = &transport.tls {
                    let is_current = tls.update_identity(is_requested).await;
                    transport.state.note_reload("certificate", Some(is_current));
                    transport.state.certificate_end.set(tls.certificate_end());
                }
            }),
            Task::start(&transport, async move |transport| {
                if let Some(tls) = &transport.tls {
                    let is_current = tls.update_client_cas(is_requested).await;
                    transport.state.note_reload("client_ca", is_current);
                }
            }),
        ];
        if is_requested {
            // Accounts that the settings bring later read their secrets then.
            parts.push(Task::start(&transport, async move |transport| {
                transport.state.snapshot.get().accounts.hangup().await;
            }));
        }
        updates.retain(|update| !update.has_ended());
        updates.push(Task::start(&transport, async move |_| {
            let reloaded = || {
                if is_requested {
                    systemd::reloaded();
                }
            };
            complete(parts, RELOAD_PATIENCE, reloaded).await;
        }));
    }
}

/// Waits for the parts of a reload. Calls `reloaded` when all have ended, or when `patience` is over.
async fn complete(parts: Vec<Task>, patience: Duration, reloaded: impl FnOnce()) {
    let mut all = pin!(async {
        for part in parts {
            part.ended().await;
        }
    });
    let is_late = timeout(patience, all.as_mut()).await.is_err();
    reloaded();
    if is_late {
        all.await;
    }
}

/// A task of the event loop. It is cancelled when this is dropped.
struct Task(JoinHandle<()>);

impl Task {
    fn start<F: AsyncFnOnce(Rc<Transport>) + 'static>(transport: &Rc<Transport>, work: F) -> Task {
        let transport = Rc::clone(transport);
        Task(spawn_local(async move { work(transport).await }))
    }

    fn has_ended(&self) -> bool {
        self.0.is_finished()
    }

    async fn ended(mut self) {
        if !self.has_ended() {
            let _ = (&mut self.0).await; // A panic is reported where it happens.
        }
    }

    async fn ended_within(&mut self, time: Duration) {
        let _ = timeout(time, &mut self.0).await;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Writes the numbers of log lines that were held back, again and again.
async fn tell_rest(state: Rc<ServerState>) {
    let mut ticks = interval(CHECK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let now = ticks.tick().await;
        state.log.tell_rest(now);
    }
}

/// Reaps what hooks have left behind, again and again.
async fn reap_orphans() {
    let mut ticks = interval(REAP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        children::reap_orphans();
    }
}

/// Notifies systemd at this interval that the event loop runs.
async fn notify_alive(every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        systemd::alive();
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::task::LocalSet;

    use super::*;

    #[test]
    fn a_reload_is_over_for_systemd_although_a_file_hangs() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        LocalSet::new().block_on(&runtime.expect("a runtime"), async {
            let told = Rc::new(Cell::new(0));
            let tell = || {
                let told = Rc::clone(&told);
                move || told.set(told.get() + 1)
            };
            let never = || Task(spawn_local(pending()));
            let quick = || Task(spawn_local(async {}));
            // Without a file that hangs it is told at once, however much patience there is.
            complete(vec![quick(), quick()], Duration::MAX, tell()).await;
            assert_eq!(told.get(), 1);
            let (go_on, hanging) = tokio::sync::oneshot::channel::<()>();
            let part = Task(spawn_local(async move { drop(hanging.await) }));
            let late = spawn_local(complete(vec![part, quick()], Duration::ZERO, tell()));
            let patient = spawn_local(complete(vec![quick(), never()], Duration::MAX, tell()));
            while told.get() < 2 {
                tokio::task::yield_now().await;
            }
            assert!(!late.is_finished(), "the file that hangs is still followed");
            go_on.send(()).expect("it is awaited");
            late.await.expect("it ends");
            assert_eq!((told.get(), patient.is_finished()), (2, false));
        });
    }

    #[test]
    fn a_server_ends_if_it_could_accept_or_reload_no_longer() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let run = |breaks: bool, requested: bool| {
            LocalSet::new().block_on(&runtime, async {
                let mut tasks = vec![
                    spawn_local(pending()),
                    spawn_local(async move {
                        assert!(!breaks, "a fault");
                        pending().await
                    }),
                ];
                let requested = async move {
                    if !requested {
                        pending().await
                    }
                };
                run_until(requested, ready(Ok(())), &mut tasks).await
            })
        };
        assert!(run(false, true).is_ok());
        let err = run(true, false).expect_err("a fault");
        assert!(err.to_string().contains("broke off"), "{err}");
    }
}
