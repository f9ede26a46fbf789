//! Reports the state of this process to systemd (sd_notify(3)), and takes the sockets that systemd has passed
//! (sd_listen_fds(3)). Without systemd it reports nothing and finds none.

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
use crate::message::{action_first, messages};

messages! {
    NOT_TOLD<0> {
        "Check NOTIFY_SOCKET, and NotifyAccess= of the unit.", "cannot tell systemd how it goes";
        "请检查 NOTIFY_SOCKET 与单元的 NotifyAccess=。", "无法向 systemd 报告状态";
    }
    NO_NUMBER<0> {
        "Unset LISTEN_FDS, or start it by a socket unit.", "LISTEN_FDS is not a number of sockets";
        "请取消设置 LISTEN_FDS，或通过 socket 单元启动。", "LISTEN_FDS 不是套接字数量";
    }
    NO_LISTENER<2> {
        "Use ListenStream= in the socket unit, and leave Accept= off.",
        "descriptor {0} that systemd passed ({1}) is no listening stream socket";
        "请在 socket 单元中使用 ListenStream=，并关闭 Accept=。",
        "systemd 传入的描述符 {0}（{1}）不是监听中的流套接字";
    }
}

/// How long to wait for a manager that does not read. The event loop waits as long.
const NOTIFY_TIMEOUT: Duration = Duration::from_millis(100);

/// More sockets than are passed in practice.
const MAX_PASSED: usize = 1000;

/// The first descriptor that is passed (SD_LISTEN_FDS_START).
const FIRST_PASSED: usize = 3;

/// The longest name of a socket, in characters (sd_listen_fds(3)).
const MAX_NAME: usize = 255;

/// Reports that the process has started and accepts connections. `systemctl status` shows `status`.
pub(crate) fn ready(status: &str) {
    notify(&format!("READY=1\nSTATUS={status}"));
}

/// Reports that the process has begun to reload, as it was asked to.
pub(crate) fn reloading() {
    let now = clock_gettime(ClockId::Monotonic);
    let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
}

/// Reports that the reload has ended.
pub(crate) fn reloaded() {
    notify("READY=1");
}

/// Reports that the process is about to end.
pub(crate) fn stopping() {
    notify("STOPPING=1");
}

/// Reports that the event loop turns.
pub(crate) fn alive() {
    notify("WATCHDOG=1");
}

/// Returns how often [`alive`] has to be called: twice in the time after which systemd would kill the process. `None` if
/// the unit has no watchdog.
pub(crate) fn alive_interval() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    // The variables may be inherited from a parent that has a watchdog.
    let is_for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
    let micros = number("WATCHDOG_USEC").filter(|micros| *micros > 0 && is_for_us)?;
    Some(Duration::from_micros(micros / 2).max(Duration::from_millis(1)))
}

/// Sends a state to systemd. Logs the first failure, and ignores the others.
fn notify(state: &str) {
    static LOGGED: Once = Once::new();
    let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return };
    if let Err(err) = send(&name, state) {
        LOGGED.call_once(|| error!("{}", action_first(&NOT_TOLD.quoting([], &err))));
    }
}

fn send(name: &OsStr, state: &str) -> io::Result<()> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(NOTIFY_TIMEOUT))?;
    loop {
        match socket.send_to_addr(state.as_bytes(), &address) {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            sent => return sent.map(drop),
        }
    }
}

/// A socket that systemd has passed, with its name.
pub(crate) struct PassedSocket {
    pub(crate) socket: Socket,
    pub(crate) name: Option<String>,
}

/// Takes the sockets that systemd has passed; a second call finds none. Fails if one of them is no listening stream socket
/// for TCP or a unix socket.
pub(crate) fn take_passed_sockets() -> anyhow::Result<Vec<PassedSocket>> {
    let count = env::var("LISTEN_FDS").unwrap_or_default();
    if !count.is_empty() && !count.parse().is_ok_and(|count: usize| count <= MAX_PASSED) {
        return Err(Exit::Usage.error(NO_NUMBER.text()));
    }
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut descriptors = ListenFd::from_env();
    (0..descriptors.len())
        .map(|nth| {
            let name = names.next().filter(|name| !name.is_empty());
            let name = name.map(|name| printable(name, MAX_NAME));
            match take_listening(&mut descriptors, nth) {
                Some(socket) => Ok(PassedSocket { socket, name }),
                None => {
                    let name = name.as_deref().unwrap_or("without a name");
                    Err(Exit::Usage.error(NO_LISTENER.with([&(FIRST_PASSED + nth), &name])))
                }
            }
        })
        .collect()
}

/// Takes a descriptor, if it is a listening stream socket.
fn take_listening(descriptors: &mut ListenFd, nth: usize) -> Option<Socket> {
    let mut take = |domain: Domain| {
        descriptors.take_custom(nth, domain.into(), Type::STREAM.into(), "").ok().flatten()
    };
    // `IPV4` also matches IPv6 sockets.
    let socket: Socket = take(Domain::IPV4).or_else(|| take(Domain::UNIX))?;
    socket.is_listener().is_ok_and(|listens| listens).then_some(socket)
}
