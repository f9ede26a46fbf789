//! A Redis in memory, for simulations, at the socket `/simulated/redis`: it takes the bytes of commands and answers with
//! bytes. Scripts are done by their meaning. Its replica gets each write some time later; a failover makes the replica the
//! primary, and what it has not got by then is lost. The simulation is asked about each journey of a command and of an
//! answer, and lets time pass meanwhile. Nothing is sent by a process that is being ended.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;
use std::thread::panicking;
use std::time::Duration;

use serde_json::Value as Json;

use super::super::scripts;

/// Where it is reached.
pub(crate) const SOCKET: &str = "/simulated/redis";

/// How the simulation decides what happens.
#[derive(Clone, Copy)]
pub(crate) struct Hooks {
    /// Returns the true time.
    pub(crate) now: fn() -> Duration,
    /// Called for each journey, to Redis or back.
    pub(crate) travel: fn(Journey) -> Arrival,
    /// Lets time pass.
    pub(crate) wait: fn(Duration),
}

/// What travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Journey {
    Connection,
    Command,
    Answer,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    Arrives,
    Lost,
    /// The connection is closed.
    Closed,
}

#[derive(Clone, Debug, PartialEq)]
struct Value {
    bytes: Vec<u8>,
    ends_at: Option<Duration>,
}

type Data = BTreeMap<Vec<u8>, Value>;

/// A write on its way to the replica.
struct Write {
    arrives_at: Duration,
    key: Vec<u8>,
    value: Option<Value>,
}

/// A primary and its replica.
pub(crate) struct Cluster {
    hooks: Hooks,
    now: Duration,
    /// Counts the failovers. Connections of before lead to the primary of before.
    generation: u64,
    primary: Data,
    replica: Data,
    under_way: VecDeque<Write>,
    /// How long a write is under way to the replica.
    pub(crate) lag: Duration,
    /// Until then there is no replica: it is being made.
    replica_from: Duration,
    /// The primary of before, and until when connections of before still lead to it.
    isolated: Option<(Data, Duration)>,
    /// Whether there is no memory for more.
    pub(crate) is_full: bool,
    /// Counts the changes, and those that readers of documents can see.
    version: u64,
    version_for_readers: u64,
}

thread_local! {
    static CLUSTER: RefCell<Option<Cluster>> = const { RefCell::new(None) };
}

/// Replaces the Redis of this thread by an empty one.
pub(crate) fn install(hooks: Hooks) {
    CLUSTER.set(Some(Cluster {
        hooks,
        now: Duration::ZERO,
        generation: 0,
        primary: Data::new(),
        replica: Data::new(),
        under_way: VecDeque::new(),
        lag: Duration::from_millis(1),
        replica_from: Duration::ZERO,
        isolated: None,
        is_full: false,
        version: 0,
        version_for_readers: 0,
    }));
}

/// Removes the Redis of this thread.
pub(crate) fn uninstall() {
    CLUSTER.set(None);
}

/// Looks at the Redis of this thread, or changes it.
pub(crate) fn with<R>(act: impl FnOnce(&mut Cluster) -> R) -> R {
    CLUSTER.with_borrow_mut(|it| act(it.as_mut().expect("a simulated Redis")))
}

impl Cluster {
    /// Makes the replica the primary. What is still under way to it is lost. Connections of before lead to the primary of
    /// before for `isolated_for`; then they are closed. A new replica is there `replica_after` later. Returns how many writes
    /// were lost.
    pub(crate) fn fail_over(
        &mut self,
        now: Duration,
        isolated_for: Duration,
        replica_after: Duration,
    ) -> usize {
        self.settle(now);
        let lost = std::mem::take(&mut self.under_way).len();
        let replica = match now < self.replica_from {
            // It is the same one, which comes back with what it has written to its disk.
            true => self.primary.clone(),
            false => self.replica.clone(),
        };
        let before = std::mem::replace(&mut self.primary, replica);
        self.isolated = (!isolated_for.is_zero()).then_some((before, now + isolated_for));
        self.generation += 1;
        self.note_change(None);
        self.replica_from = now + replica_after;
        lost
    }

    /// Forgets everything: FLUSHALL, or a start without anything on the disk.
    pub(crate) fn forget(&mut self) {
        self.primary.clear();
        self.replica.clear();
        self.under_way.clear();
        self.note_change(None);
    }

    /// Returns a number that is another one after every change.
    pub(crate) fn version(&mut self, now: Duration) -> u64 {
        self.settle(now);
        self.version
    }

    /// Returns a number that is another one after every change but those of keys that only processes which publish read.
    pub(crate) fn version_for_readers(&mut self, now: Duration) -> u64 {
        self.settle(now);
        self.version_for_readers
    }

    /// Notes a change of this key, or of any.
    fn note_change(&mut self, key: Option<&[u8]>) {
        const NOT_READ: [&[u8]; 3] = [b":lock", b":last", b":lost"];
        self.version += 1;
        let is_read = !key.is_some_and(|key| NOT_READ.iter().any(|end| key.ends_with(end)));
        self.version_for_readers += u64::from(is_read);
    }

    /// Lets come to pass what has by now.
    fn settle(&mut self, now: Duration) {
        self.now = now;
        while let Some(write) = self.under_way.pop_front_if(|it| it.arrives_at <= now) {
            put(&mut self.replica, write.key, write.value);
        }
        if self.replica_from > Duration::ZERO && now >= self.replica_from {
            self.replica_from = Duration::ZERO;
            self.under_way.clear();
            self.replica = self.primary.clone();
        }
        if self.isolated.as_ref().is_some_and(|(_, until)| now >= *until) {
            self.isolated = None;
            self.note_change(None);
        }
        let is_over = |value: &Value| value.ends_at.is_some_and(|at| at <= now);
        while let Some((key, _)) = self.primary.iter().find(|(_, value)| is_over(value)) {
            let key = key.clone();
            self.primary.remove(&key);
            self.note_change(Some(&key));
        }
    }

    fn write(&mut self, link: &Link, key: &[u8], value: Option<Value>) {
        if link.generation != self.generation {
            if let Some((data, _)) = &mut self.isolated {
                put(data, key.to_vec(), value);
                self.note_change(Some(key));
            }
            return;
        }
        self.note_change(Some(key));
        let arrives_at = self.now + self.lag;
        self.under_way.push_back(Write { arrives_at, key: key.to_vec(), value: value.clone() });
        put(&mut self.primary, key.to_vec(), value);
    }

    fn data(&self, link: &Link) -> &Data {
        match &self.isolated {
            Some((data, _)) if link.generation != self.generation => data,
            _ => &self.primary,
        }
    }

    fn get(&self, link: &Link, key: &[u8]) -> Option<Vec<u8>> {
        self.data(link).get(key).map(|value| value.bytes.clone())
    }

    fn set(&mut self, link: &Link, key: &[u8], bytes: &[u8], millis: Option<u64>) {
        let ends_at = millis.map(|millis| self.now + Duration::from_millis(millis));
        self.write(link, key, Some(Value { bytes: bytes.to_vec(), ends_at }));
    }

    /// Leaves a value at a key, or none if it is empty.
    fn leave(&mut self, link: &Link, key: &[u8], bytes: &[u8], millis: u64) {
        match bytes {
            [] => self.write(link, key, None),
            bytes => self.set(link, key, bytes, Some(millis)),
        }
    }

    /// Does a command. Returns its answer, or how long to wait for the replica.
    fn act(&mut self, link: &Link, command: &[&[u8]]) -> Answer {
        let name = command[0].to_ascii_uppercase();
        let writes = match &*name {
            b"SET" => true,
            b"EVAL" => {
                [scripts::TAKE_LOCK, scripts::EXTEND_LOCK, scripts::NOTE_LOST, scripts::PUBLISH]
                    .iter()
                    .any(|script| command[1] == script.as_bytes())
            }
            _ => false,
        };
        if writes && self.is_full {
            return Answer::Refusal("OOM command not allowed when used memory > 'maxmemory'.");
        }
        match (&*name, &command[1..]) {
            (b"PING", []) => Answer::Status("PONG"),
            (b"GET", [key]) => Answer::of(self.get(link, key)),
            (b"GETRANGE", [key, _, end]) => {
                let mut bytes = self.get(link, key).unwrap_or_default();
                bytes.truncate(number(end) as usize + 1);
                Answer::Bytes(bytes)
            }
            (b"SET", [key, value, _, millis]) => {
                self.set(link, key, value, Some(number(millis)));
                Answer::Status("OK")
            }
            (b"DEL", [key]) => {
                self.write(link, key, None);
                Answer::Number(1)
            }
            (b"ROLE", []) => {
                let has_replica = self.replica_from.is_zero() && link.generation == self.generation;
                Answer::Role { has_replica }
            }
            (b"WAIT", [_, millis]) => {
                let patience = Duration::from_millis(number(millis));
                match link.generation == self.generation && self.lag <= patience {
                    true => Answer::Waited(self.lag, 1),
                    false => Answer::Waited(patience, 0),
                }
            }
            (b"EVAL", [script, count, rest @ ..]) => {
                let (keys, args) = rest.split_at(number(count) as usize);
                self.run_script(link, script, keys, args)
            }
            _ => Answer::Refusal("ERR unknown command"),
        }
    }

    /// Does what the script does: see `scripts`.
    fn run_script(&mut self, link: &Link, script: &[u8], keys: &[&[u8]], args: &[&[u8]]) -> Answer {
        let is = |text: &str| script == text.as_bytes();
        if is(scripts::READ) {
            let longest = number(args[0]) as usize + 1;
            let read = keys.iter().map(|key| {
                let mut bytes = self.get(link, key).unwrap_or_default();
                bytes.truncate(longest);
                bytes
            });
            return Answer::List(read.collect());
        }
        let lock = self.get(link, keys[0]);
        if is(scripts::TAKE_LOCK) {
            match lock {
                Some(owner) => Answer::done(owner == args[0]),
                None => {
                    self.set(link, keys[0], args[0], Some(number(args[1])));
                    Answer::done(true)
                }
            }
        } else if is(scripts::RELEASE_LOCK) {
            let is_held = lock.as_deref() == Some(args[0]);
            if is_held {
                self.write(link, keys[0], None);
            }
            Answer::done(is_held)
        } else if is(scripts::EXTEND_LOCK) {
            let is_held = lock.as_deref() == Some(args[0]);
            if is_held {
                self.set(link, keys[0], args[0], Some(number(args[1])));
            }
            Answer::done(is_held)
        } else if is(scripts::NOTE_LOST) {
            let is_held = lock.as_deref() == Some(args[0]);
            if is_held {
                self.set(link, keys[0], args[0], Some(number(args[1])));
                self.leave(link, keys[1], args[2], number(args[3]));
            }
            Answer::done(is_held)
        } else if is(scripts::PUBLISH) {
            self.publish(link, keys, args)
        } else {
            Answer::Refusal("ERR this script is not known to the model")
        }
    }

    fn publish(&mut self, link: &Link, keys: &[&[u8]], args: &[&[u8]]) -> Answer {
        let &[ours, millis, expected, needs_lock, owner, _, _, memory, ref lost @ ..] = args else {
            return Answer::Refusal("ERR arguments are missing");
        };
        let needs_lock = needs_lock == b"1";
        if needs_lock && self.get(link, keys[0]).as_deref() != Some(owner) {
            return Answer::done(false);
        }
        let there = self.get(link, keys[1]).unwrap_or_default();
        if there != expected && there != ours {
            if needs_lock {
                return Answer::done(false);
            }
            let json = |bytes: &[u8]| serde_json::from_slice::<Json>(bytes).unwrap_or_default();
            let (ours, theirs) = (json(ours), json(&there));
            let has_one_clock = ours["boot_id"].is_string() && ours["boot_id"] == theirs["boot_id"];
            let is_late = match has_one_clock {
                true => ours["boottime"]
                    .as_f64()
                    .zip(theirs["boottime"].as_f64())
                    .is_some_and(|(ours, theirs)| theirs >= ours),
                false => ours["created_at"]
                    .as_str()
                    .zip(theirs["created_at"].as_str())
                    .is_some_and(|(ours, theirs)| theirs >= ours),
            };
            if is_late {
                return Answer::done(false);
            }
        }
        self.set(link, keys[2], ours, Some(number(memory)));
        self.set(link, keys[1], ours, Some(number(millis)));
        if let (Some(key), Some(lost)) = (keys.get(3), lost.first()) {
            self.leave(link, key, lost, number(memory));
        }
        Answer::done(true)
    }
}

fn put(data: &mut Data, key: Vec<u8>, value: Option<Value>) {
    match value {
        Some(value) => drop(data.insert(key, value)),
        None => drop(data.remove(&key)),
    }
}

fn number(text: &[u8]) -> u64 {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).expect("a number")
}

/// What a command is answered.
enum Answer {
    Nil,
    Status(&'static str),
    Refusal(&'static str),
    Number(i64),
    Bytes(Vec<u8>),
    List(Vec<Vec<u8>>),
    Role {
        has_replica: bool,
    },
    /// The number, after this time.
    Waited(Duration, i64),
}

impl Answer {
    fn of(bytes: Option<Vec<u8>>) -> Answer {
        bytes.map_or(Answer::Nil, Answer::Bytes)
    }

    fn done(is_done: bool) -> Answer {
        Answer::Number(is_done.into())
    }

    fn write_to(&self, to: &mut Vec<u8>) -> io::Result<()> {
        let bulk = |to: &mut Vec<u8>, bytes: &[u8]| {
            write!(to, "${}\r\n", bytes.len())?;
            to.extend_from_slice(bytes);
            write!(to, "\r\n")
        };
        match self {
            Answer::Nil => write!(to, "$-1\r\n"),
            Answer::Status(text) => write!(to, "+{text}\r\n"),
            Answer::Refusal(text) => write!(to, "-{text}\r\n"),
            Answer::Number(number) | Answer::Waited(_, number) => write!(to, ":{number}\r\n"),
            Answer::Bytes(bytes) => bulk(to, bytes),
            Answer::List(list) => {
                write!(to, "*{}\r\n", list.len())?;
                list.iter().try_for_each(|bytes| bulk(to, bytes))
            }
            Answer::Role { has_replica: true } => {
                write!(to, "*3\r\n$6\r\nmaster\r\n:1\r\n*1\r\n$7\r\nreplica\r\n")
            }
            Answer::Role { has_replica: false } => {
                write!(to, "*3\r\n$6\r\nmaster\r\n:1\r\n*0\r\n")
            }
        }
    }
}

/// A connection.
pub(crate) struct Link {
    generation: u64,
    arrived: Vec<u8>,
    deadline: Duration,
    is_closed: bool,
}

/// Connects, if this is the path of the simulated Redis.
pub(super) fn connect(path: &Path, patience: Duration) -> Option<io::Result<Link>> {
    if path != Path::new(SOCKET) {
        return None;
    }
    if panicking() {
        return Some(Err(ErrorKind::ConnectionRefused.into()));
    }
    let hooks = with(|cluster| cluster.hooks);
    Some(match (hooks.travel)(Journey::Connection) {
        Arrival::Arrives => Ok(Link {
            generation: with(|cluster| cluster.generation),
            arrived: Vec::new(),
            deadline: Duration::ZERO,
            is_closed: false,
        }),
        Arrival::Lost => {
            (hooks.wait)(patience);
            Err(ErrorKind::TimedOut.into())
        }
        Arrival::Closed => Err(ErrorKind::ConnectionRefused.into()),
    })
}

impl Link {
    pub(super) fn set_deadline(&mut self, patience: Duration) {
        self.deadline = (with(|cluster| cluster.hooks).now)() + patience;
    }

    /// Takes a command, which comes in one piece, and does it.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if panicking() {
            return self.close();
        }
        let hooks = with(|cluster| cluster.hooks);
        match (hooks.travel)(Journey::Command) {
            Arrival::Arrives if !self.is_closed => {}
            Arrival::Lost => return Ok(bytes.len()),
            _ => return self.close(),
        }
        let answer = with(|cluster| {
            cluster.settle((hooks.now)());
            let is_cut_off = self.generation != cluster.generation && cluster.isolated.is_none();
            (!is_cut_off).then(|| cluster.act(self, &arguments(bytes)))
        });
        let Some(answer) = answer else { return self.close() };
        if let Answer::Waited(span, _) = answer {
            (hooks.wait)(span);
        }
        match (hooks.travel)(Journey::Answer) {
            Arrival::Arrives => answer.write_to(&mut self.arrived)?,
            Arrival::Lost => {}
            Arrival::Closed => self.is_closed = true,
        }
        Ok(bytes.len())
    }

    fn close(&mut self) -> io::Result<usize> {
        self.is_closed = true;
        Err(ErrorKind::BrokenPipe.into())
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.arrived.is_empty() && !self.is_closed {
            let hooks = with(|cluster| cluster.hooks);
            (hooks.wait)(self.deadline.saturating_sub((hooks.now)()));
            return Err(ErrorKind::TimedOut.into());
        }
        let length = buffer.len().min(self.arrived.len());
        buffer[..length].copy_from_slice(&self.arrived[..length]);
        self.arrived.drain(..length);
        Ok(length)
    }
}

/// Returns the arguments of a command, which is whole.
fn arguments(mut bytes: &[u8]) -> Vec<&[u8]> {
    let end = bytes.iter().position(|byte| *byte == b'\n').expect("a command");
    let count = number(&bytes[1..end - 1]) as usize;
    bytes = &bytes[end + 1..];
    let mut found = Vec::with_capacity(count);
    for _ in 0..count {
        let end = bytes.iter().position(|byte| *byte == b'\n').expect("an argument");
        let length = number(&bytes[1..end - 1]) as usize;
        found.push(&bytes[end + 1..][..length]);
        bytes = &bytes[end + 1 + length + 2..];
    }
    found
}
