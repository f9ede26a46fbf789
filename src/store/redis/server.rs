//! One Redis, as this process reaches it: connections that are opened on demand and closed at the first doubt, each step
//! within the timeout, and faults in words that hold no token and no password. Knows nothing of keys.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use redis::{
    Client, Connection, ConnectionAddr, ConnectionInfo, ConnectionLike, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, RedisResult,
};
use zeroize::Zeroizing;

use super::connection::{BoundedConnection, MAX_OVERDUE, OverdueCount};
use super::fault::{RedisFault, may_be_cured_by_reconnecting};
use super::roots;
use crate::model::address::redis_url::{RedisAddress, RedisNode};
use crate::model::location::RedisSettings;
use crate::os::clock::Clock;
use crate::os::file::read::{self, Protection, ReadError};
use crate::os::thread;

/// A connection that was idle for longer is not used again: a firewall on the way may have forgotten it.
const MAX_IDLE: Duration = Duration::from_secs(5);

/// After a failure to reach Redis, others get the same error for this long, instead of each waiting in turn.
const DOWN_FOR: Duration = Duration::from_millis(500);

/// How long a replica may take until it has what was written.
const REPLICA_PATIENCE: Duration = Duration::from_millis(500);

/// The longest password, in bytes.
const MAX_PASSWORD: usize = 1024;

/// A pool of connections to one Redis.
pub(super) struct RedisServer {
    pub(super) settings: Arc<RedisSettings>,
    pub(super) clock: Arc<dyn Clock>,
    /// Each with the instant since which it is idle.
    idle: Mutex<Vec<(BoundedConnection, Instant)>>,
    /// When it could last not be reached, and why.
    down: Mutex<Option<(Instant, RedisFault)>>,
    overdue: OverdueCount,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RedisServer {
    /// Returns the server of these settings. Connects to nothing yet.
    pub(super) fn new(settings: Arc<RedisSettings>, clock: Arc<dyn Clock>) -> RedisServer {
        RedisServer {
            settings,
            clock,
            idle: Mutex::default(),
            down: Mutex::default(),
            overdue: OverdueCount::default(),
        }
    }

    /// Runs `act` over a connection. Runs it again over a new one if an idle connection turns out to be dead, so that `act`
    /// must do no harm when done twice.
    pub(super) fn run<T>(
        &self,
        act: impl Fn(&mut BoundedConnection) -> RedisResult<T>,
    ) -> Result<T, RedisFault> {
        if let Some(mut connection) = self.take_idle() {
            match act(&mut connection) {
                Ok(done) => {
                    self.keep(connection);
                    return Ok(done);
                }
                Err(err) if err.is_timeout() => return Err(self.note_down(self.fault(&err))),
                // A new connection may lead to another server, or to this one after a restart.
                Err(err) if may_be_cured_by_reconnecting(&err) => {}
                Err(err) => {
                    self.keep(connection);
                    return Err(self.fault(&err));
                }
            }
        }
        let mut connection = self.bound(self.connect()?)?;
        match act(&mut connection) {
            Ok(done) => {
                self.keep(connection);
                Ok(done)
            }
            Err(err) if err.is_io_error() => Err(self.note_down(self.fault(&err))),
            Err(err) => Err(self.fault(&err)),
        }
    }

    /// Turns a fault into an error that names this Redis.
    pub(super) fn error(&self, fault: &RedisFault) -> anyhow::Error {
        let url = &self.settings.url;
        match fault.is_unreachable {
            true => anyhow!("cannot reach {url}: {fault}"),
            false => anyhow!("{url}: {fault}"),
        }
    }

    /// Returns how long to wait for a replica: not so long that Redis itself would be taken for down.
    pub(super) fn replica_patience(&self) -> Duration {
        REPLICA_PATIENCE.min(self.settings.timeout / 2)
    }

    /// Tries whether the channel can be subscribed to.
    pub(super) fn try_subscribing(&self, channel: &str) -> Result<(), RedisFault> {
        let mut connection = self.connect()?;
        // Not by the library's subscription, which takes no notice of a refusal.
        let subscribed =
            redis::cmd("SUBSCRIBE").arg(channel).query::<redis::Value>(&mut connection);
        subscribed.map(drop).map_err(|err| self.fault(&err))
    }

    /// Opens a connection that is not part of the pool.
    pub(super) fn connect(&self) -> Result<Connection, RedisFault> {
        let down = lock(&self.down).clone();
        if let Some((_, fault)) = down.filter(|(at, _)| self.age(*at) < DOWN_FOR) {
            return Err(fault);
        }
        if Arc::strong_count(&self.overdue) > MAX_OVERDUE {
            let timed_out = RedisError::from(io::Error::from(ErrorKind::TimedOut));
            return Err(self.note_down(self.fault(&timed_out)));
        }
        let password = self.password().map_err(|what| RedisFault::described(false, what))?;
        let password = password.as_ref().map(|password| password.as_str());
        let connected = match &self.settings.url.address {
            RedisAddress::Tcp { node, is_tls } => self.open(node, *is_tls, password),
            RedisAddress::Unix(path) => self.open_at(ConnectionAddr::Unix(path.clone()), password),
            RedisAddress::Sentinel { nodes, master, is_tls } => {
                let master = self.ask_sentinels(nodes, master, *is_tls)?;
                self.open(&master, *is_tls, password)
            }
        };
        connected.map_err(|fault| match fault.is_unreachable {
            true => self.note_down(fault),
            false => fault,
        })
    }

    /// Returns the address of the master from the first sentinel that knows it. The library's own way to ask has no
    /// timeout.
    fn ask_sentinels(
        &self,
        nodes: &[RedisNode],
        master: &str,
        is_tls: bool,
    ) -> Result<RedisNode, RedisFault> {
        let mut last = None;
        for node in nodes {
            let asked = self.open(node, is_tls, None).and_then(|connection| {
                let mut connection = self.bound(connection)?;
                let mut ask = redis::cmd("SENTINEL");
                ask.arg("get-master-addr-by-name").arg(master);
                ask.query::<Option<(String, u16)>>(&mut connection).map_err(|err| self.fault(&err))
            });
            match asked {
                Ok(Some((host, port))) => return Ok(RedisNode { host, port }),
                Ok(None) => last = Some(format!("the sentinel at {node} knows no master {master}")),
                Err(fault) => last = Some(format!("the sentinel at {node}: {fault}")),
            }
        }
        let what = last.unwrap_or_else(|| "there is no sentinel".to_owned());
        Err(self.note_down(RedisFault::described(true, what)))
    }

    fn bound(&self, connection: Connection) -> Result<BoundedConnection, RedisFault> {
        BoundedConnection::new(connection, self.settings.timeout, &self.overdue)
            .map_err(|err| self.fault(&err))
    }

    fn open(
        &self,
        node: &RedisNode,
        is_tls: bool,
        password: Option<&str>,
    ) -> Result<Connection, RedisFault> {
        let RedisNode { host, port } = node.clone();
        self.open_at(
            match is_tls {
                true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
                false => ConnectionAddr::Tcp(host, port),
            },
            password,
        )
    }

    /// Opens a connection. Without a password it is to a sentinel, or to a Redis that wants none.
    fn open_at(
        &self,
        addr: ConnectionAddr,
        password: Option<&str>,
    ) -> Result<Connection, RedisFault> {
        let timeout = self.settings.timeout;
        // The library looks up names without a timeout, and applies the timeout to each of their addresses and to each
        // step of TLS, authentication and SELECT.
        let may_take_longer = match &addr {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => {
                host.parse::<std::net::IpAddr>().is_err()
            }
            _ => false,
        } || password.is_some()
            || self.settings.url.db != 0
            || matches!(addr, ConnectionAddr::TcpTls { .. });
        let info = self.info(addr, password).map_err(|err| self.fault(&err))?;
        let client = self.client(info)?;
        let connected = match may_take_longer {
            false => client.get_connection_with_timeout(timeout),
            true => {
                let connect = move || client.get_connection_with_timeout(timeout);
                let timed_out = |_| Err(io::Error::from(ErrorKind::TimedOut).into());
                thread::start("redis-connect", connect)
                    .map_err(|err| thread::explain(err).into())
                    .and_then(|pending| pending.wait(timeout).unwrap_or_else(timed_out))
            }
        };
        let connection = connected.map_err(|err| self.fault(&err))?;
        let with_timeouts = |connection: &Connection| {
            connection.set_read_timeout(Some(timeout))?;
            connection.set_write_timeout(Some(timeout))
        };
        with_timeouts(&connection).map_err(|err| self.fault(&err))?;
        Ok(connection)
    }

    fn info(&self, addr: ConnectionAddr, password: Option<&str>) -> RedisResult<ConnectionInfo> {
        let RedisSettings { url, user, .. } = &*self.settings;
        // No CLIENT SETINFO: the user may not be allowed to, and it costs a round trip.
        let mut settings = RedisConnectionInfo::default().set_skip_set_lib_name();
        if let Some(password) = password {
            settings = settings.set_password(password);
            if let Some(user) = user.as_ref().or(url.user.as_ref()) {
                settings = settings.set_username(user);
            }
        }
        Ok(addr.into_connection_info()?.set_redis_settings(settings.set_db(url.db)))
    }

    fn client(&self, info: ConnectionInfo) -> Result<Client, RedisFault> {
        let local = |what: String| RedisFault::described(false, what);
        let is_tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
        let certificates = match is_tls {
            true => roots::certificates(self.settings.ca_file.as_deref()).map_err(local)?,
            false => None,
        };
        let client = match certificates {
            Some(certificates) => Client::build_with_tls(info, certificates),
            None => Client::open(info),
        };
        client.map_err(|err| self.fault(&err))
    }

    /// Reads the password, each time: it may have been replaced.
    fn password(&self) -> Result<Option<Zeroizing<String>>, String> {
        let Some(path) = &self.settings.password_file else { return Ok(None) };
        let failed = |what: String| format!("cannot read password file {}: {what}", path.display());
        let bytes = read::read(path, Protection::PrivateToGroup, MAX_PASSWORD as u64 + 2);
        let bytes = bytes.map_err(|err| match err {
            ReadError::TooLarge(_) => failed("it is too long".to_owned()),
            err => failed(err.about_secret()),
        })?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| failed("stream did not contain valid UTF-8".to_owned()))?;
        let line = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
        match line.len() {
            0 => Err(failed("it is empty".to_owned())),
            len if len >= MAX_PASSWORD => Err(failed("it is too long".to_owned())),
            _ if line.contains('\n') => Err(failed("it has more than one line".to_owned())),
            _ => Ok(Some(line)),
        }
    }

    fn take_idle(&self) -> Option<BoundedConnection> {
        let mut idle = lock(&self.idle);
        idle.retain(|(_, since)| self.age(*since) < MAX_IDLE);
        idle.pop().map(|(connection, _)| connection)
    }

    /// Puts a connection back on which Redis has answered.
    fn keep(&self, connection: BoundedConnection) {
        if connection.is_open() {
            lock(&self.idle).push((connection, self.clock.instant()));
        }
        *lock(&self.down) = None;
    }

    fn note_down(&self, fault: RedisFault) -> RedisFault {
        *lock(&self.down) = Some((self.clock.instant(), fault.clone()));
        fault
    }

    fn age(&self, since: Instant) -> Duration {
        self.clock.instant().saturating_duration_since(since)
    }

    /// Describes an error of the library.
    pub(super) fn fault(&self, err: &RedisError) -> RedisFault {
        RedisFault::new(err, self.settings.timeout)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;
    use crate::os::clock::SystemClock;
    use crate::os::clock::testing::VirtualClock;
    use crate::store::redis::testing::settings;

    fn listener() -> (TcpListener, Arc<RedisSettings>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        (listener, settings(&url))
    }

    fn ping(server: &RedisServer) -> Result<(), RedisFault> {
        server.run(|connection| redis::cmd("PING").query(connection))
    }

    #[test]
    fn no_more_answers_are_outstanding_than_allowed_when_none_ever_ends() {
        let (listener, settings) = listener();
        thread::spawn(move || {
            let mut streams: Vec<_> = Vec::new();
            listener.set_nonblocking(true).unwrap();
            loop {
                streams.extend(listener.accept().map(|(stream, _)| stream));
                for stream in &mut streams {
                    let _ = stream.write_all(b"+");
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        let server = RedisServer::new(settings, Arc::new(SystemClock));
        let outstanding_after_ping = || {
            assert_eq!(ping(&server).unwrap_err().to_string(), "no answer within 30ms");
            *lock(&server.down) = None;
            Arc::strong_count(&server.overdue) - 1
        };
        // On a busy machine some are late already when they connect, and do not count.
        while outstanding_after_ping() < MAX_OVERDUE {}
        for _ in 0..MAX_OVERDUE {
            assert_eq!(outstanding_after_ping(), MAX_OVERDUE);
        }
    }

    #[test]
    fn a_redis_that_is_down_is_tried_again_only_after_a_while() {
        let (listener, settings) = listener();
        let attempts = Arc::new(AtomicUsize::new(0));
        let counted = attempts.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                counted.fetch_add(1, Ordering::SeqCst);
                drop(stream);
            }
        });
        let clock = VirtualClock::new();
        let server = RedisServer::new(settings, Arc::new(clock.clone()));
        for expected in 1..=2 {
            for _ in 0..3 {
                assert!(ping(&server).unwrap_err().is_unreachable);
                while attempts.load(Ordering::SeqCst) < expected {
                    thread::yield_now();
                }
                assert_eq!(attempts.load(Ordering::SeqCst), expected);
            }
            clock.advance(DOWN_FOR);
        }
    }
}
