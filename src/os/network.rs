//! Which addresses are this host's own, and how a program of this host is connected to. Sends nothing.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

/// Whether an address is this host's own: only to such a one can a socket be bound.
pub(crate) fn is_own(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

/// Connects to a socket in the file system. Fails with [`ErrorKind::TimedOut`] if its queue of connections stays full for
/// `patience`, which must not be zero: the standard library's `connect` would wait for a stuck server without end.
pub(crate) fn connect_unix(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(patience))?; // Linux has it limit connect(2), too: unix(7) waits as a write does.
    socket.connect(&SockAddr::unix(path)?).map_err(|err| match err.kind() {
        ErrorKind::WouldBlock => io::Error::from(ErrorKind::TimedOut),
        _ => err,
    })?;
    socket.set_write_timeout(None)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_server_that_accepts_nothing_is_not_waited_for_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        socket.listen(0).unwrap();
        let patience = Duration::from_millis(10);
        let mut connected = Vec::new();
        let err = loop {
            match connect_unix(&path, patience) {
                Ok(stream) => connected.push(stream),
                Err(err) => break err,
            }
        };
        assert_eq!(err.kind(), ErrorKind::TimedOut);
        assert!(!connected.is_empty());
    }

    #[test]
    fn a_socket_that_was_left_behind_refuses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let err = connect_unix(&path, Duration::from_secs(60)).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_loopback_address_is_own_and_one_for_documents_is_not() {
        for (ip, expected) in [("127.0.0.1", true), ("127.9.9.9", true), ("192.0.2.1", false)] {
            assert_eq!(is_own(ip.parse().unwrap()), expected, "{ip}");
        }
    }
}
