//! What the service manager is told of this process, as sd_notify(3) has it, and the sockets that it has passed, as
//! sd_listen_fds(3) has it. Where there is no such manager it says nothing and finds none.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::sync::Once;
use std::time::Duration;

use listenfd::ListenFd;
use rustix::time::{ClockId, clock_gettime};
use socket2::{Domain, Socket, Type};

use crate::error::Exit;
use crate::log::{error, printable};

/// How long to wait for a manager that does not read: the event loop waits as long.
const TELL_TIMEOUT: Duration = Duration::from_millis(100);

/// More sockets than anybody passes.
const MAX_PASSED: usize = 1000;

/// The first descriptor that is passed.
const FIRST_PASSED: usize = 3;

/// The longest name of a socket unit.
const LONGEST_NAME: usize = 255;

/// It has started, and callers can connect; `status` is for people.
pub(crate) fn ready(status: &str) {
    tell(&format!("READY=1\nSTATUS={status}"));
}

/// It reads anew what it works from, because it was told to.
pub(crate) fn reloading() {
    let now = clock_gettime(ClockId::Monotonic);
    let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
    tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
}

/// It has done so.
pub(crate) fn reloaded() {
    tell("READY=1");
}

/// It is about to end.
pub(crate) fn stopping() {
    tell("STOPPING=1");
}

/// Its event loop turns.
pub(crate) fn alive() {
    tell("WATCHDOG=1");
}

/// How often it is to be [`alive`]: twice in the time after which the manager would kill it. `None` where nobody waits
/// for it.
pub(crate) fn alive_interval() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    // Of a parent's watchdog there may be traces in the environment.
    let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
    let micros = number("WATCHDOG_USEC").filter(|micros| *micros > 0 && is_ours)?;
    Some(Duration::from_micros(micros / 2).max(Duration::from_millis(1)))
}

/// Whoever does not listen is no reason to end; he is complained of once.
fn tell(state: &str) {
    static COMPLAINED: Once = Once::new();
    let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return };
    if let Err(err) = send(&name, state) {
        COMPLAINED.call_once(|| error!("cannot tell systemd how it goes (NOTIFY_SOCKET): {err}"));
    }
}

fn send(name: &OsStr, state: &str) -> io::Result<()> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(TELL_TIMEOUT))?;
    loop {
        match socket.send_to_addr(state.as_bytes(), &address) {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {} // By the next signal.
            sent => return sent.map(drop),
        }
    }
}

/// A socket that was passed, and what it is called.
pub(crate) struct Passed {
    pub(crate) socket: Socket,
    pub(crate) name: Option<String>,
}

/// The sockets that were passed: all of them listen, for TCP or on a unix socket. They are taken, once.
pub(crate) fn passed() -> anyhow::Result<Vec<Passed>> {
    let count = env::var("LISTEN_FDS").unwrap_or_default();
    if !count.is_empty() && !count.parse().is_ok_and(|count: usize| count <= MAX_PASSED) {
        return Err(Exit::Usage.error("LISTEN_FDS is not a number of sockets"));
    }
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut descriptors = ListenFd::from_env();
    (0..descriptors.len())
        .map(|nth| {
            let name = names.next().filter(|name| !name.is_empty());
            let name = name.map(|name| printable(name, LONGEST_NAME));
            match listening(&mut descriptors, nth) {
                Some(socket) => Ok(Passed { socket, name }),
                None => Err(Exit::Usage.error(format!(
                    "descriptor {} that systemd passed ({}) is no listening stream socket; in the socket unit use \
                     ListenStream=, and leave Accept= off",
                    FIRST_PASSED + nth,
                    name.as_deref().unwrap_or("without a name"),
                ))),
            }
        })
        .collect()
}

fn listening(descriptors: &mut ListenFd, nth: usize) -> Option<Socket> {
    let mut take = |domain: Domain| {
        descriptors.take_custom(nth, domain.into(), Type::STREAM.into(), "").ok().flatten()
    };
    // The first stands for IPv6, too.
    let socket: Socket = take(Domain::IPV4).or_else(|| take(Domain::UNIX))?;
    socket.is_listener().is_ok_and(|listens| listens).then_some(socket)
}
