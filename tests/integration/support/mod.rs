//! What all tests share: commands and what they print, accounts in directories of their own, servers, WeChat's mock, HTTP, TLS
//! and Redis. Tests run the real binary on real sockets. They wait for events, and never rely on how fast the machine is.

mod command;
pub(crate) mod home;
mod http;
mod java;
pub(crate) mod proxy;
pub(crate) mod redis;
mod sandbox;
mod server;
pub(crate) mod tls;
mod wechat;

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use time::UtcDateTime;

pub(crate) use command::*;
pub(crate) use http::*;
pub(crate) use java::*;
pub(crate) use needs::needs;
pub(crate) use sandbox::*;
pub(crate) use server::*;
pub(crate) use wechat::*;

/// How long a test waits for an event before it fails. Only a hang takes this long, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `is_so` returns true. Fails after [`PATIENCE`].
#[track_caller]
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun_at = Instant::now();
    while !is_so() {
        let waited = begun_at.elapsed();
        assert!(waited < PATIENCE, "never: {what}");
        // What takes long is looked at less often: to look can cost a request or a process.
        let pause = (waited / 16).clamp(Duration::from_millis(5), Duration::from_millis(250));
        std::thread::sleep(pause);
    }
}

/// Waits until a server that has looked at a document looks at it again when it is asked: it does so once a millisecond.
pub(crate) fn outlast_look() {
    std::thread::sleep(Duration::from_millis(2));
}

/// Returns a time as documents have it: without zeros at the end of a second's fraction.
pub(crate) fn rfc3339(at: UtcDateTime) -> String {
    let text = humantime::format_rfc3339(at.into()).to_string();
    match text.trim_end_matches('Z').split_once('.') {
        Some((second, fraction)) => match fraction.trim_end_matches('0') {
            "" => format!("{second}Z"),
            fraction => format!("{second}.{fraction}Z"),
        },
        None => text,
    }
}

/// Parses a time that ends with `Z`.
pub(crate) fn parse_rfc3339(text: &str) -> Option<UtcDateTime> {
    humantime::parse_rfc3339(text).ok().map(UtcDateTime::from)
}

/// Returns the time `secs` seconds ago, as documents have it.
pub(crate) fn time_ago(secs: i64) -> String {
    let at = UtcDateTime::now() - time::Duration::seconds(secs);
    rfc3339(at.replace_nanosecond(0).unwrap())
}

/// Writes a file and sets its mode, whatever the umask.
pub(crate) fn write_with_mode(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Writes a program and moves it into place.
///
/// A process of its own writes it. If this one did, a child started by another test at that moment would inherit the descriptor,
/// and the kernel executes no file that is open for writing ("Text file busy").
#[track_caller]
pub(crate) fn write_program(path: &Path, text: &str) {
    let script = r#"cat >"$0.new" && chmod 755 "$0.new" && mv "$0.new" "$0""#;
    let mut writer = Command::new("sh");
    let mut writer = writer.args(["-c", script]).arg(path).stdin(Stdio::piped()).spawn().unwrap();
    writer.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
}

/// Returns a loopback address that refuses connections, and the socket that keeps other tests from getting its port.
pub(crate) fn refusing_address() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // Bound and not listening.
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}
