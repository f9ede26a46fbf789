//! One Redis, as this process reaches it: connections that are opened on demand and closed at the first doubt, each step
//! within the timeout, and faults in words that hold no token and no password. Knows nothing of keys.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use zeroize::Zeroizing;

use super::connection::{RedisConnection, RedisError, RedisResult, patience};
use super::fault::{RedisFault, may_be_cured_by_reconnecting};
use super::messages;
use super::protocol::{RedisValue, command};
use crate::language::in_both;
use crate::message::cannot;
use crate::model::address::redis_url::{RedisAddress, RedisNode};
use crate::model::location::RedisSettings;
use crate::os::ca_store;
use crate::os::clock::Clock;
use crate::os::file::read::{self, MAX_PEM, Protection, ReadError};
use crate::os::thread::{self, lock};

/// A connection that was idle for longer is not used again: a firewall on the way may have forgotten it.
const MAX_IDLE: Duration = Duration::from_secs(5);

/// After a failure to reach Redis, others get the same error for this long, instead of each waiting in turn.
pub(super) const DOWN_FOR: Duration = Duration::from_millis(500);

/// How long a replica may take until it has what was written.
const REPLICA_PATIENCE: Duration = Duration::from_millis(500);

/// What a Redis answers that knows no users.
const MISCOUNTED_AUTH: &str = "wrong number of arguments for 'auth' command";

/// The longest password, in bytes.
const MAX_PASSWORD: usize = 1024;

/// When a run ends, and how long it may take in all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunLimit {
    pub(crate) ends_at: Instant,
    pub(crate) timeout: Duration,
}

/// A pool of connections to one Redis.
pub(super) struct RedisServer {
    pub(super) settings: Arc<RedisSettings>,
    pub(super) clock: Arc<dyn Clock>,
    /// For a process that is a run; `None` for a server.
    limit: Option<RunLimit>,
    /// Each with the instant since which it is idle.
    idle: Mutex<Vec<(RedisConnection, Instant)>>,
    /// When it could last not be reached, and why.
    down: Mutex<Option<(Instant, RedisFault)>>,
}

impl RedisServer {
    /// Returns the server of these settings. Connects to nothing yet.
    pub(super) fn new(
        settings: Arc<RedisSettings>,
        clock: Arc<dyn Clock>,
        limit: Option<RunLimit>,
    ) -> RedisServer {
        RedisServer { settings, clock, limit, idle: Mutex::default(), down: Mutex::default() }
    }

    /// Runs `act` over a connection. Runs it again over a new one if an idle connection turns out to be dead, so that `act`
    /// must do no harm when done twice. Waits no longer than until the end of the run.
    pub(super) fn run<T>(
        &self,
        act: impl Fn(&mut RedisConnection) -> RedisResult<T>,
    ) -> Result<T, RedisFault> {
        self.run_until(self.end(), act)
    }

    /// Runs `act` like [`RedisServer::run`], and each step may take its whole timeout, although the run should end before.
    pub(super) fn run_unhurried<T>(
        &self,
        act: impl Fn(&mut RedisConnection) -> RedisResult<T>,
    ) -> Result<T, RedisFault> {
        self.run_until(None, act)
    }

    /// Returns when the run ends, if this process is one.
    fn end(&self) -> Option<Instant> {
        self.limit.map(|limit| limit.ends_at)
    }

    fn run_until<T>(
        &self,
        end: Option<Instant>,
        act: impl Fn(&mut RedisConnection) -> RedisResult<T>,
    ) -> Result<T, RedisFault> {
        if let Some(mut connection) = self.take_idle().map(|idle| idle.until(end)) {
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
        let mut connection = self.connect_until(end)?;
        match act(&mut connection) {
            Ok(done) => {
                self.keep(connection);
                Ok(done)
            }
            Err(err @ RedisError::Io(_)) => Err(self.note_down(self.fault(&err))),
            Err(err) => Err(self.fault(&err)),
        }
    }

    /// Turns a fault into an error that names this Redis.
    pub(super) fn error(&self, fault: &RedisFault) -> anyhow::Error {
        let url = &self.settings.url;
        match fault.is_unreachable {
            true => anyhow!("{}: {fault}", cannot("reach", "连接", url)),
            false => anyhow!("{url}: {fault}"),
        }
    }

    /// Returns how long to wait for a replica: not so long that Redis itself would be taken for down.
    pub(super) fn replica_patience(&self) -> Duration {
        REPLICA_PATIENCE.min(self.settings.timeout / 2)
    }

    /// Whether it is the one of simulations.
    #[cfg(test)]
    pub(super) fn is_simulated(&self) -> bool {
        let simulated = Path::new(super::model::SOCKET);
        matches!(&self.settings.url.address, RedisAddress::Unix(path) if path == simulated)
    }

    /// Tries whether the channel can be subscribed to.
    pub(super) fn try_subscribing(&self, channel: &str) -> Result<(), RedisFault> {
        let mut connection = self.connect()?;
        let subscribed = connection.query(&command("SUBSCRIBE").arg(channel));
        subscribed.map(drop).map_err(|err| self.fault(&err))
    }

    /// Opens a connection that is not part of the pool.
    pub(super) fn connect(&self) -> Result<RedisConnection, RedisFault> {
        self.connect_until(self.end())
    }

    fn connect_until(&self, end: Option<Instant>) -> Result<RedisConnection, RedisFault> {
        let down = lock(&self.down).clone();
        if let Some((_, fault)) = down.filter(|(at, _)| self.age(*at) < DOWN_FOR) {
            return Err(fault);
        }
        let password = self.password().map_err(|what| RedisFault::described(false, what))?;
        let password = password.as_ref().map(|password| password.as_str());
        let connected = match &self.settings.url.address {
            RedisAddress::Tcp { node, is_tls } => self.open(node, *is_tls, password, end),
            RedisAddress::Unix(path) => {
                let timeout = patience(self.settings.timeout, end);
                let connected = RedisConnection::to_unix(path, timeout);
                let connected = connected.map_err(RedisError::from).map(|it| it.until(end));
                let connected = connected.and_then(|connection| self.log_in(connection, password));
                connected.map_err(|err| self.fault(&err))
            }
            RedisAddress::Sentinel { nodes, master, is_tls } => {
                let master = self.ask_sentinels(nodes, master, *is_tls, end)?;
                // The address is the sentinel's: the user has not written it, and has to see it.
                self.open(&master, *is_tls, password, end).map_err(
                    |RedisFault { is_unreachable, what }| {
                        let named = in_both(
                            format!("the master that the sentinel names, {master}"),
                            format!("sentinel 给出的主节点 {master}"),
                        );
                        RedisFault::described(is_unreachable, format!("{named}: {what}"))
                    },
                )
            }
        };
        connected.map_err(|fault| match fault.is_unreachable {
            true => self.note_down(fault),
            false => fault,
        })
    }

    /// Returns the address of the master from the first sentinel that knows it.
    fn ask_sentinels(
        &self,
        nodes: &[RedisNode],
        master: &str,
        is_tls: bool,
        end: Option<Instant>,
    ) -> Result<RedisNode, RedisFault> {
        let ask = command("SENTINEL").arg("get-master-addr-by-name").arg(master);
        let mut last = None;
        for node in nodes {
            let asked = self
                .reach(node, is_tls, end)
                .and_then(|mut connection| connection.query(&ask).map_err(|err| self.fault(&err)));
            let asked = asked.and_then(|answer| match answer {
                RedisValue::Nil => Ok(None),
                answer => match node_of_answer(answer) {
                    Some(master) => Ok(Some(master)),
                    None => Err(self.fault(&RedisError::Unexpected)),
                },
            });
            match asked {
                Ok(Some(master)) => return Ok(master),
                Ok(None) => last = Some(messages::NO_SUCH_MASTER.with([&node, &master])),
                Err(fault) => {
                    let asked =
                        in_both(format!("the sentinel at {node}"), format!("sentinel {node}"));
                    last = Some(format!("{asked}: {fault}"));
                }
            }
        }
        let what = last.unwrap_or_else(|| messages::NO_SENTINEL.text());
        Err(self.note_down(RedisFault::described(true, what)))
    }

    /// Opens a connection to a Redis. Without a password it wants none.
    fn open(
        &self,
        node: &RedisNode,
        is_tls: bool,
        password: Option<&str>,
        end: Option<Instant>,
    ) -> Result<RedisConnection, RedisFault> {
        let connection = self.reach(node, is_tls, end)?;
        self.log_in(connection, password).map_err(|err| self.fault(&err))
    }

    /// Opens a connection to a Redis or a sentinel.
    fn reach(
        &self,
        node: &RedisNode,
        is_tls: bool,
        end: Option<Instant>,
    ) -> Result<RedisConnection, RedisFault> {
        let timeout = patience(self.settings.timeout, end);
        let tls = match is_tls {
            true => Some(self.tls().map_err(|what| RedisFault::described(false, what))?),
            false => None,
        };
        let node = node.clone();
        let has_name = node.host.parse::<IpAddr>().is_err();
        let connect = move || RedisConnection::to_node(&node, tls, timeout);
        let connected = match has_name {
            false => connect(),
            // A name is looked up without a timeout.
            true => match thread::start("redis-connect", connect) {
                Ok(pending) => {
                    pending.wait(timeout).unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
                }
                Err(err) => Err(thread::explain(err)),
            },
        };
        connected.map(|it| it.until(end)).map_err(|err| self.fault(&err.into()))
    }

    /// Gives the password, and selects the database. Asks for nothing else: the user may not be allowed to.
    fn log_in(
        &self,
        mut connection: RedisConnection,
        password: Option<&str>,
    ) -> RedisResult<RedisConnection> {
        let RedisSettings { url, user, .. } = &*self.settings;
        if let Some(password) = password {
            let auth = |user: Option<&String>| {
                let auth = command("AUTH");
                match user {
                    Some(user) => auth.arg(user).arg(password),
                    None => auth.arg(password),
                }
            };
            let user = user.as_ref().or(url.user.as_ref());
            match connection.query(&auth(user)) {
                // Before version 6 there are no users.
                Err(RedisError::Refused { detail, .. })
                    if user.is_some() && detail.contains(MISCOUNTED_AUTH) =>
                {
                    connection.query(&auth(None))?
                }
                answer => answer?,
            };
        }
        if url.db != 0 {
            connection.query(&command("SELECT").number(url.db))?;
        }
        Ok(connection)
    }

    /// Returns the configuration of a TLS client that trusts the CA file, or else Mozilla's roots and the system's CA store.
    fn tls(&self) -> Result<Arc<ClientConfig>, String> {
        let roots = match &self.settings.ca_file {
            Some(path) => read_ca_file(path)?,
            None => ca_store::beside_public(ca_store::of_system()?.certificates.iter()),
        };
        ca_store::tls_client(roots).map(Arc::new).map_err(|err| err.to_string())
    }

    /// Reads the password, each time: it may have been replaced.
    fn password(&self) -> Result<Option<Zeroizing<String>>, String> {
        let Some(path) = &self.settings.password_file else { return Ok(None) };
        let failed = |english, chinese| {
            messages::PASSWORD_UNREADABLE.with([&path.display(), &in_both(english, chinese)])
        };
        let too_long = || failed("it is too long", "过长");
        let bytes = read::read(path, Protection::PrivateToGroup, MAX_PASSWORD as u64 + 2);
        let bytes = bytes.map_err(|err| match err {
            ReadError::TooLarge(_) => too_long(),
            err => {
                let what = cannot("read password file", "读取密码文件", path.display());
                format!("{what}: {}", err.about_secret())
            }
        })?;
        let text =
            std::str::from_utf8(&bytes).map_err(|_| failed("it is not UTF-8", "不是 UTF-8"))?;
        let line = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
        match line.len() {
            0 => Err(failed("it is empty", "为空")),
            len if len >= MAX_PASSWORD => Err(too_long()),
            _ if line.contains('\n') => Err(failed("it has more than one line", "不止一行")),
            _ => Ok(Some(line)),
        }
    }

    fn take_idle(&self) -> Option<RedisConnection> {
        let mut idle = lock(&self.idle);
        idle.retain(|(_, since)| self.age(*since) < MAX_IDLE);
        idle.pop().map(|(connection, _)| connection)
    }

    /// Puts a connection back on which Redis has answered.
    fn keep(&self, connection: RedisConnection) {
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

    /// Describes an error.
    pub(super) fn fault(&self, err: &RedisError) -> RedisFault {
        let timeout = self.settings.timeout;
        RedisFault::new(err, self.limit.map_or(timeout, |limit| timeout.min(limit.timeout)))
    }
}

/// Returns the address in a sentinel's answer; `None` if there is none in it.
fn node_of_answer(answer: RedisValue) -> Option<RedisNode> {
    let mut answer = answer.into_list()?.into_iter();
    let host = answer.next()?.into_text()?;
    let port = answer.next()?.into_text()?.parse().ok()?;
    Some(RedisNode { host, port })
}

fn read_ca_file(path: &Path) -> Result<RootCertStore, String> {
    let pem = read::read(path, Protection::WritableByOwner, MAX_PEM).map_err(|err| {
        format!("{}: {err}", cannot("read ca_file", "读取 ca_file", path.display()))
    })?;
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
    match roots.add_parsable_certificates(certificates) {
        (0, _) => Err(messages::NO_CERTIFICATE.with([&path.display()])),
        _ => Ok(roots),
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use crate::model::address::redis_url::RedisUrl;

    /// Returns settings for the Redis at `url`, with a timeout that tests can wait for.
    pub(crate) fn settings(url: &str) -> Arc<RedisSettings> {
        Arc::new(RedisSettings {
            url: RedisUrl::parse(url).unwrap(),
            user: None,
            password_file: None,
            ca_file: None,
            prefix: "wxtoken".to_owned(),
            timeout: Duration::from_millis(30),
            also: Vec::new(),
        })
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
    use crate::store::redis::connection::LEAST_PATIENCE;
    use crate::store::redis::testing::settings;

    fn listener() -> (TcpListener, Arc<RedisSettings>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        (listener, settings(&url))
    }

    fn ping(server: &RedisServer) -> Result<(), RedisFault> {
        server.run(|connection| connection.query(&command("PING")).map(drop))
    }

    #[test]
    fn an_answer_that_comes_byte_by_byte_is_waited_for_no_longer_than_the_timeout() {
        let (listener, settings) = listener();
        let server_side = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // Ends when the client has closed the connection.
            while stream.write_all(b"+").is_ok() {
                thread::sleep(Duration::from_millis(1));
            }
        });
        let server = RedisServer::new(settings, Arc::new(SystemClock), None);
        assert!(ping(&server).unwrap_err().to_string().contains("no answer within 30ms"));
        server_side.join().unwrap();
    }

    /// Such an answer never comes, so that the test ends only if less than the timeout is waited for.
    #[test]
    fn no_answer_is_waited_for_beyond_the_end_of_the_run_but_to_what_is_unhurried() {
        let (listener, settings) = listener();
        let day = Duration::from_secs(24 * 3600);
        let settings = Arc::new(RedisSettings { timeout: day, ..(*settings).clone() });
        let timeout = Duration::from_millis(10);
        let limit = RunLimit { ends_at: Instant::now() + timeout, timeout };
        let clock = VirtualClock::new();
        let server = RedisServer::new(settings, Arc::new(clock.clone()), Some(limit));
        let fault = ping(&server).unwrap_err();
        assert!(
            fault.is_unreachable && fault.to_string().contains("no answer within 10ms"),
            "{fault}"
        );
        clock.advance(DOWN_FOR);
        let answering = thread::spawn(move || {
            let _silent = listener.accept().unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            thread::sleep(2 * LEAST_PATIENCE);
            stream.write_all(b"+PONG\r\n").unwrap();
            stream
        });
        let ping = |connection: &mut RedisConnection| connection.query(&command("PING")).map(drop);
        server.run_unhurried(ping).unwrap();
        answering.join().unwrap();
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
        let server = RedisServer::new(settings, Arc::new(clock.clone()), None);
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
