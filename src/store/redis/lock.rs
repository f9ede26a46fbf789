//! A lock in Redis, as a value: held while it lives, let go of only by its owner, and extended by a thread as long as
//! somebody holds it. It can be lost unnoticed; the fence is for that (see `script`).

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};

use super::scripts;
use super::server::{Fault, Server};
use crate::log::debug;
use crate::os::clock::Clock;

/// How long a lock holds by itself: longer than a refresh takes, so that it holds even if Redis cannot be reached
/// meanwhile. Whoever is killed keeps the others waiting for so long.
pub(super) const LIFE: Duration = Duration::from_secs(35);

/// How often it is extended.
const BETWEEN_EXTENSIONS: Duration = Duration::from_secs(5);

/// How often a held lock is tried again, and as much more by chance; short against the second or so that a refresh takes.
const RETRY: Duration = Duration::from_millis(40);

/// The lock; let go when it is dropped, or when its time is over.
pub(super) struct RedisLock {
    server: Arc<Server>,
    key: String,
    owner: String,
    /// Dropped, it ends the thread that extends the lock.
    _extended: Option<SyncSender<()>>,
}

impl RedisLock {
    /// Waits for the lock at `key` until `deadline`; `None` if somebody else held it all along.
    pub(super) fn acquire(
        server: &Arc<Server>,
        key: &str,
        clock: &dyn Clock,
        deadline: Instant,
    ) -> Result<Option<RedisLock>, Fault> {
        let owner = owner();
        loop {
            if server.run(|connection| scripts::take(connection, key, &owner, LIFE))? {
                let extended = extend(server, key, &owner);
                let (server, key) = (server.clone(), key.to_owned());
                return Ok(Some(RedisLock { server, key, owner, _extended: extended }));
            }
            if clock.until(deadline).is_zero() {
                return Ok(None);
            }
            let pause = RETRY + RETRY.mul_f64((clock.random() % 1000) as f64 / 1000.0);
            clock.sleep(pause.min(clock.until(deadline)));
        }
    }

    /// Who holds it.
    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    /// Makes it hold anew, and tries whether these keys can be written; whether it was ours still.
    pub(super) fn extend(&self, keys: &[String]) -> Result<bool, Fault> {
        self.server.run(|connection| {
            let is_ours = scripts::extend(connection, &self.key, &self.owner, LIFE, keys)?;
            // Nobody else is to be given it by a replica that knows nothing of it.
            scripts::replicate(connection, self.server.replica_patience());
            Ok(is_ours)
        })
    }
}

impl Drop for RedisLock {
    fn drop(&mut self) {
        let left = self.server.run(|connection| scripts::leave(connection, &self.key, &self.owner));
        if let Err(fault) = left {
            debug!(
                "the lock {} ends by itself within {}: {fault}",
                self.key,
                humantime::format_duration(LIFE)
            );
        }
    }
}

/// Starts the thread that extends a lock as long as what is returned lives. Without it the lock ends sooner.
fn extend(server: &Arc<Server>, key: &str, owner: &str) -> Option<SyncSender<()>> {
    let (alive, ended) = mpsc::sync_channel::<()>(0);
    let (server, key, owner) = (server.clone(), key.to_owned(), owner.to_owned());
    let work = move || {
        while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(BETWEEN_EXTENSIONS) {
            match server.run(|connection| scripts::extend(connection, &key, &owner, LIFE, &[])) {
                Ok(true) => {}
                Ok(false) => return, // The fence will tell.
                Err(fault) => debug!("the lock {key} cannot be extended now: {fault}"),
            }
        }
    };
    thread::Builder::new().spawn(work).ok().map(|_| alive)
}

/// Who holds the lock at `key`, for people.
pub(super) fn holder(server: &Server, key: &str) -> Result<Option<String>, Fault> {
    let found: Option<String> =
        server.run(|connection| redis::cmd("GET").arg(key).query(connection))?;
    Ok(found.map(|owner| {
        let of_host = owner.rsplit_once('/').map_or("", |(of_host, _)| of_host);
        let shown: String = of_host.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').collect();
        shown.chars().take(100).collect()
    }))
}

/// A name for this holder: the host and process, for people, and a number that nobody else has.
fn owner() -> String {
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy();
    let mut number = [0; 16];
    let _ = SystemRandom::new().fill(&mut number); // Then host and process have to do.
    let number: String = number.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("process {} on {host}/{number}", std::process::id())
}
