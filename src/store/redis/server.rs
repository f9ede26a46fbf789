//! One Redis, as this process reaches it: connections that are opened when they are needed and given up at the first
//! doubt, each step within the timeout, and faults in words that hold no token and no password. Knows no keys.

use std::collections::HashMap;
use std::fmt;
use std::io::ErrorKind;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use redis::{
    Client, Connection, ConnectionAddr, ConnectionInfo, ConnectionLike, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, RedisResult, TlsCertificates,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::link::{Late, Link, MOST_LATE};
use crate::model::address::redis_url::{RedisAddress, RedisNode};
use crate::model::location::Redis;
use crate::os::read::{self, MAX_PEM, Protection, ReadError};

/// A connection that was idle for longer is not used again: something on the way may have forgotten it.
const LONGEST_IDLE: Duration = Duration::from_secs(5);

/// After a failure to reach it, others are told the same for so long, and do not wait for it in turn.
const DOWN_FOR: Duration = Duration::from_millis(500);

/// How long a replica may take until it has what was written.
const REPLICA_PATIENCE: Duration = Duration::from_millis(500);

/// The longest password that is read.
const MAX_PASSWORD: usize = 1024;

/// What is wrong, in words.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    /// Whether it did not answer, as opposed to what it answered.
    pub(super) is_unreachable: bool,
    what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Fault {}

/// One Redis.
pub(super) struct Server {
    pub(super) redis: Arc<Redis>,
    idle: Mutex<Vec<(Link, Instant)>>,
    down: Mutex<Option<(Instant, Fault)>>,
    late: Late,
}

/// Those that this process speaks to.
static SERVERS: Mutex<Option<HashMap<Arc<Redis>, Weak<Server>>>> = Mutex::new(None);

impl Server {
    /// The server of these settings, the same one for all who ask.
    pub(super) fn of(redis: &Arc<Redis>) -> Arc<Server> {
        let mut servers = SERVERS.lock().unwrap_or_else(PoisonError::into_inner);
        let servers = servers.get_or_insert_default();
        if let Some(server) = servers.get(redis).and_then(Weak::upgrade) {
            return server;
        }
        servers.retain(|_, server| server.strong_count() > 0);
        let server = Arc::new(Server {
            redis: redis.clone(),
            idle: Mutex::default(),
            down: Mutex::default(),
            late: Late::default(),
        });
        servers.insert(redis.clone(), Arc::downgrade(&server));
        server
    }

    /// Does this over a connection. It may be done twice, where the first one turns out to be dead: it has to be something
    /// that is the same done twice.
    pub(super) fn run<T>(&self, act: impl Fn(&mut Link) -> RedisResult<T>) -> Result<T, Fault> {
        if let Some(mut connection) = self.take_idle() {
            match act(&mut connection) {
                Ok(done) => {
                    self.keep(connection);
                    return Ok(done);
                }
                Err(err) if err.is_timeout() => return Err(self.note_down(self.fault(&err))),
                // A new one may lead to another server, or to this one after it was started anew.
                Err(err) if is_of_connection(&err) => {}
                Err(err) => {
                    self.keep(connection);
                    return Err(self.fault(&err));
                }
            }
        }
        let mut connection = self.link(self.connect()?)?;
        match act(&mut connection) {
            Ok(done) => {
                self.keep(connection);
                Ok(done)
            }
            Err(err) if err.is_io_error() => Err(self.note_down(self.fault(&err))),
            Err(err) => Err(self.fault(&err)),
        }
    }

    /// How long to wait for a replica: not so long that Redis itself would be taken for down.
    pub(super) fn replica_patience(&self) -> Duration {
        REPLICA_PATIENCE.min(self.redis.timeout / 2)
    }

    /// A connection of one's own.
    pub(super) fn connect(&self) -> Result<Connection, Fault> {
        let down = self.down.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, fault)) = down.filter(|(at, _)| at.elapsed() < DOWN_FOR) {
            return Err(fault);
        }
        if Arc::strong_count(&self.late) > MOST_LATE {
            let late = RedisError::from(std::io::Error::from(ErrorKind::TimedOut));
            return Err(self.note_down(self.fault(&late)));
        }
        let password = self.password().map_err(|what| Fault { is_unreachable: false, what })?;
        let password = password.as_ref().map(|password| password.as_str());
        let connected = match &self.redis.url.address {
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

    /// The address of the master by the first sentinel that knows it. The library's own way to ask has no timeout.
    fn ask_sentinels(
        &self,
        nodes: &[RedisNode],
        master: &str,
        is_tls: bool,
    ) -> Result<RedisNode, Fault> {
        let mut last = None;
        for node in nodes {
            let asked = self.open(node, is_tls, None).and_then(|connection| {
                let mut connection = self.link(connection)?;
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
        Err(self.note_down(Fault { is_unreachable: true, what }))
    }

    fn link(&self, connection: Connection) -> Result<Link, Fault> {
        Link::over(connection, self.redis.timeout, &self.late).map_err(|err| self.fault(&err))
    }

    fn open(
        &self,
        node: &RedisNode,
        is_tls: bool,
        password: Option<&str>,
    ) -> Result<Connection, Fault> {
        let RedisNode { host, port } = node.clone();
        self.open_at(
            match is_tls {
                true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
                false => ConnectionAddr::Tcp(host, port),
            },
            password,
        )
    }

    /// Opens a connection; without a password it is to a sentinel, or to a Redis that wants none.
    fn open_at(&self, addr: ConnectionAddr, password: Option<&str>) -> Result<Connection, Fault> {
        let timeout = self.redis.timeout;
        // Names are looked up without a timeout, an address of a dead host costs one each, and so does each part of an
        // answer where there is more to say than hello.
        let may_take_longer = match &addr {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => {
                host.parse::<std::net::IpAddr>().is_err()
            }
            _ => false,
        } || password.is_some()
            || self.redis.url.db != 0
            || matches!(addr, ConnectionAddr::TcpTls { .. });
        let info = self.info(addr, password).map_err(|err| self.fault(&err))?;
        let client = self.client(info)?;
        let connected = match may_take_longer {
            false => client.get_connection_with_timeout(timeout),
            true => bounded(timeout, move || client.get_connection_with_timeout(timeout)),
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
        let Redis { url, user, .. } = &*self.redis;
        // Nothing is told of the library: a user may be allowed no CLIENT, and it is a round trip.
        let mut settings = RedisConnectionInfo::default().set_skip_set_lib_name();
        if let Some(password) = password {
            settings = settings.set_password(password);
            if let Some(user) = user.as_ref().or(url.user.as_ref()) {
                settings = settings.set_username(user);
            }
        }
        Ok(addr.into_connection_info()?.set_redis_settings(settings.set_db(url.db)))
    }

    fn client(&self, info: ConnectionInfo) -> Result<Client, Fault> {
        let local = |what: String| Fault { is_unreachable: false, what };
        let client = match &self.redis.ca_file {
            Some(path) if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) => {
                let pem = read::read(path, Protection::Any, MAX_PEM).map_err(|err| {
                    local(format!("cannot read ca_file {}: {err}", path.display()))
                })?;
                if !CertificateDer::pem_slice_iter(&pem).any(|it| it.is_ok()) {
                    let path = path.display();
                    return Err(local(format!("there is no certificate in ca_file {path}")));
                }
                let certificates =
                    TlsCertificates { client_tls: None, root_cert: Some(pem.to_vec()) };
                Client::build_with_tls(info, certificates)
            }
            _ => Client::open(info),
        };
        client.map_err(|err| self.fault(&err))
    }

    /// Read each time: it may have been replaced.
    fn password(&self) -> Result<Option<Zeroizing<String>>, String> {
        let Some(path) = &self.redis.password_file else { return Ok(None) };
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

    fn take_idle(&self) -> Option<Link> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, since)| since.elapsed() < LONGEST_IDLE);
        idle.pop().map(|(connection, _)| connection)
    }

    fn keep(&self, connection: Link) {
        if connection.is_open() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push((connection, Instant::now()));
        }
        *self.down.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn note_down(&self, fault: Fault) -> Fault {
        *self.down.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), fault.clone()));
        fault
    }

    /// What the library says, in our words: a server's own may hold what it was sent.
    pub(super) fn fault(&self, err: &RedisError) -> Fault {
        let Redis { timeout, .. } = &*self.redis;
        let io = err.as_io_error();
        let what = if err.is_timeout() {
            format!("no answer within {}", humantime::format_duration(*timeout))
        } else if let Some(io) = io {
            match io.kind() {
                ErrorKind::UnexpectedEof => "it closed the connection".to_owned(),
                _ => io.to_string(),
            }
        } else if err.kind() == redis::ErrorKind::AuthenticationFailed {
            said("WRONGPASS", err)
        } else if let Some(code) = err.code() {
            said(code, err)
        } else {
            err.category().to_owned()
        };
        let is_unreachable =
            io.is_some() || matches!(err.code(), Some("LOADING" | "MASTERDOWN" | "CLUSTERDOWN"));
        Fault { is_unreachable, what }
    }
}

trait AsIo {
    fn as_io_error(&self) -> Option<&std::io::Error>;
}

impl AsIo for RedisError {
    fn as_io_error(&self) -> Option<&std::io::Error> {
        // It stands behind a pointer of the library's.
        let source = std::error::Error::source(self)?;
        let source = source.downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>()?;
        source.downcast_ref()
    }
}

/// Whether another connection may do better.
fn is_of_connection(err: &RedisError) -> bool {
    err.is_io_error()
        || matches!(err.code(), Some("READONLY" | "LOADING" | "MASTERDOWN" | "NOAUTH"))
}

/// What an answer with this code means, and what to do.
fn said(code: &str, err: &RedisError) -> String {
    let script_is_denied = || err.detail().is_some_and(|it| it.contains("'eval'"));
    let meaning = match code {
        "NOAUTH" => "it wants a password: give [redis] password_file",
        "WRONGPASS" => "it refuses user or password: see [redis] user and password_file",
        "NOPERM" if script_is_denied() => "its user may not run scripts: allow +eval",
        "NOPERM" => {
            "its user may not do this: see user in wxtoken.toml(5) for the ACL that is needed, and allow the keys of also"
        }
        "READONLY" => {
            "it is a replica, which cannot be written: name the primary, or its sentinels"
        }
        "OOM" => "it has no memory left for writing: see its maxmemory",
        "MISCONF" => "it refuses to write, as it cannot save: see its log",
        "NOREPLICAS" => "it refuses to write without enough replicas",
        "LOADING" => "it is still reading its data",
        "MASTERDOWN" => "it is a replica that has lost its primary",
        "CROSSSLOT" | "MOVED" | "ASK" => {
            "it is a Redis Cluster, which is not supported: name one Redis, or sentinels"
        }
        "WRONGTYPE" => {
            "a key of ours holds something else: give another [redis] prefix, or remove it"
        }
        _ => "see its log",
    };
    let code: String = code.chars().filter(char::is_ascii_alphanumeric).take(24).collect();
    format!("it says {code}: {meaning}")
}

/// Does this in a thread of its own, and waits for it no longer than that.
fn bounded(
    timeout: Duration,
    act: impl FnOnce() -> RedisResult<Connection> + Send + 'static,
) -> RedisResult<Connection> {
    let (done, result) = mpsc::sync_channel(1);
    thread::Builder::new().spawn(move || done.send(act()))?;
    match result.recv_timeout(timeout) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            Err(std::io::Error::from(ErrorKind::TimedOut).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;
    use crate::model::address::redis_url::RedisUrl;

    #[test]
    fn of_answers_that_never_end_no_more_are_under_way_than_may_be() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
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
        let server = Server::of(&Arc::new(Redis {
            url: RedisUrl::parse(&url).unwrap(),
            user: None,
            password_file: None,
            ca_file: None,
            prefix: "wxtoken".to_owned(),
            timeout: Duration::from_millis(30),
            also: Vec::new(),
        }));
        for _ in 0..4 * MOST_LATE {
            let asked = server.run(|connection| redis::cmd("PING").query::<()>(connection));
            assert_eq!(asked.unwrap_err().to_string(), "no answer within 30ms");
            *server.down.lock().unwrap() = None;
        }
        assert_eq!(Arc::strong_count(&server.late) - 1, MOST_LATE);
    }
}
