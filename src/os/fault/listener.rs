//! Which process listens on an address that is in use, as far as proc(5) tells this user.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;

use crate::message::action;

/// The state of a listening socket in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// Returns an error of binding `address` with what to do, marked. Only errors about the address itself have that.
pub(crate) fn address_in_use(err: io::Error, address: SocketAddr) -> io::Error {
    let port = address.port();
    let action = match err.kind() {
        ErrorKind::AddrInUse => {
            let see = format!("ss -ltnp 'sport = :{port}'");
            match holder(port) {
                Some(process) => action(
                    format!("Stop {process}, or give another --listen (see: {see})."),
                    format!("请停止 {process}，或换一个 --listen（查看：{see}）。"),
                ),
                None => action(
                    format!(
                        "See what listens there ({see}), and stop it, or give another --listen."
                    ),
                    format!("请查看占用该端口的程序（{see}）并停止，或换一个 --listen。"),
                ),
            }
        }
        ErrorKind::AddrNotAvailable => action(
            "Give an address of this host (see: ip addr), or 0.0.0.0.",
            "请使用本机地址（查看：ip addr），或 0.0.0.0。",
        ),
        ErrorKind::PermissionDenied => action(
            "Give a port from 1024 on, or the capability CAP_NET_BIND_SERVICE.",
            "请使用 1024 及以上的端口，或授予 CAP_NET_BIND_SERVICE。",
        ),
        _ => return err,
    };
    io::Error::new(err.kind(), format!("[{err}] {action}"))
}

/// Returns the process that listens on this port, as `nginx (pid 4711)`.
fn holder(port: u16) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let inode = tables.iter().find_map(|it| listener_in(&fs::read_to_string(it).ok()?, port))?;
    let socket = format!("socket:[{inode}]");
    let is_pid = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let mut pids =
        processes.filter_map(|it| it.file_name().into_string().ok().filter(|it| is_pid(it)));
    pids.find_map(|pid| {
        let mut open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.filter_map(Result::ok);
        let holds = |target: std::path::PathBuf| target.as_os_str().as_bytes() == socket.as_bytes();
        open.any(|it| fs::read_link(it.path()).is_ok_and(holds)).then(|| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("{} (pid {pid})", crate::log::printable(name.trim_end(), 20))
        })
    })
}

/// Returns the inode of the socket that listens on this port, in the text of `/proc/net/tcp`.
fn listener_in(table: &str, port: u16) -> Option<u64> {
    let local = format!(":{port:04X}");
    table.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        match fields[..] {
            [_, at, _, LISTENING, _, _, _, _, _, inode, ..] if at.ends_with(&local) => {
                inode.parse().ok()
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::language::Language;

    #[test]
    fn an_address_in_use_names_the_process_that_has_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let err = address_in_use(TcpListener::bind(address).unwrap_err(), address).to_string();
        let err = Language::English.resolve(&err).into_owned();
        let (port, pid) = (address.port(), std::process::id());
        assert!(err.contains(&format!("(pid {pid}), or give another --listen")), "{err}");
        assert!(err.contains(&format!("ss -ltnp 'sport = :{port}'")), "{err}");
    }
}
