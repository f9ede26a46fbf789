//! Which process listens on an address that is in use, as far as proc(5) tells this user.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
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
            match holder(address) {
                Some((_, pid)) if pid == std::process::id() => action(
                    "Leave this one out, or give it another port: another --listen has it already.",
                    "请去掉这一项，或换一个端口：已被另一个 --listen 占用。",
                ),
                Some((process, _)) => action(
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
        ErrorKind::InvalidInput if is_without_interface(address) => action(
            format!(
                "Add the number of its interface (see: ip -o link), like [{}%2]:{port}.",
                address.ip()
            ),
            format!("请加上网卡编号（查看：ip -o link），如 [{}%2]:{port}。", address.ip()),
        ),
        _ => return err,
    };
    io::Error::new(err.kind(), format!("[{err}] {action}"))
}

/// Whether it is an address that each interface has, and does not say of which interface.
fn is_without_interface(address: SocketAddr) -> bool {
    matches!(address, SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() == 0)
}

/// Returns the process that listens on this address, or with it on all, as `nginx (pid 4711)`, and its number.
fn holder(address: SocketAddr) -> Option<(String, u32)> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let inode = tables.iter().find_map(|it| listener_in(&fs::read_to_string(it).ok()?, address))?;
    let socket = format!("socket:[{inode}]");
    let is_pid = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let mut pids =
        processes.filter_map(|it| it.file_name().into_string().ok().filter(|it| is_pid(it)));
    pids.find_map(|pid| {
        let number = pid.parse().ok()?;
        let mut open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.filter_map(Result::ok);
        let holds = |target: std::path::PathBuf| target.as_os_str().as_bytes() == socket.as_bytes();
        open.any(|it| fs::read_link(it.path()).is_ok_and(holds)).then(|| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            (format!("{} (pid {pid})", crate::log::printable(name.trim_end(), 20)), number)
        })
    })
}

/// Returns the inode of the socket that keeps others from this address, in the text of `/proc/net/tcp` or `tcp6`.
fn listener_in(table: &str, address: SocketAddr) -> Option<u64> {
    let wanted = address.ip().to_canonical();
    let is_in_the_way = |at: &str| {
        let Some((ip, port)) = at.split_once(':') else { return false };
        let ip = ip_of_hex(ip);
        u16::from_str_radix(port, 16).is_ok_and(|port| port == address.port())
            && ip.is_some_and(|ip| ip == wanted || ip.is_unspecified() || wanted.is_unspecified())
    };
    table.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        match fields[..] {
            [_, at, _, LISTENING, _, _, _, _, _, inode, ..] if is_in_the_way(at) => {
                inode.parse().ok()
            }
            _ => None,
        }
    })
}

/// Returns an address as proc(5) writes it: words of four bytes as this processor reads them from memory, in hex.
fn ip_of_hex(text: &str) -> Option<IpAddr> {
    let words =
        (0..text.len()).step_by(8).map(|at| u32::from_str_radix(text.get(at..at + 8)?, 16).ok());
    let bytes: Vec<u8> =
        words.collect::<Option<Vec<u32>>>()?.into_iter().flat_map(u32::to_ne_bytes).collect();
    match bytes.len() {
        4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
        _ => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical()),
    }
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
        let (process, pid) = holder(address).unwrap();
        assert!(process.ends_with(&format!(" (pid {pid})")) && pid == std::process::id());
        // No program is to be stopped for a mistake of this run.
        let err = address_in_use(TcpListener::bind(address).unwrap_err(), address).to_string();
        let err = Language::English.resolve(&err).into_owned();
        assert!(err.contains("another --listen has it already"), "{err}");
    }

    #[test]
    fn a_program_on_another_address_of_the_same_port_is_not_named() {
        let other = TcpListener::bind("127.0.0.2:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let at = |ip: &str| holder(format!("{ip}:{port}").parse().unwrap());
        assert_eq!(at("127.0.0.3"), None);
        for ip in ["127.0.0.2", "0.0.0.0", "[::]"] {
            assert!(at(ip).is_some(), "{ip}");
        }
    }

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        let word = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
        assert_eq!(ip_of_hex(&word([127, 0, 0, 1])), Some("127.0.0.1".parse().unwrap()));
        let loopback = word([0; 4]).repeat(3) + &word([0, 0, 0, 1]);
        assert_eq!(ip_of_hex(&loopback), Some("::1".parse().unwrap()));
        let mapped = word([0; 4]).repeat(2) + &word([0, 0, 255, 255]) + &word([10, 0, 0, 1]);
        assert_eq!(ip_of_hex(&mapped), Some("10.0.0.1".parse().unwrap()));
        for no_address in ["", "0100007", "0100007F0", "xxxxxxxx"] {
            assert_eq!(ip_of_hex(no_address), None, "{no_address}");
        }
    }

    #[test]
    fn a_link_local_address_without_its_interface_names_what_is_missing() {
        let address = "[fe80::1]:7200".parse().unwrap();
        let err = address_in_use(ErrorKind::InvalidInput.into(), address).to_string();
        let err = Language::English.resolve(&err).into_owned();
        assert!(err.contains("like [fe80::1%2]:7200"), "{err}");
    }
}
