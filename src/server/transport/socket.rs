//! The sockets that listen, made of what the user wrote or passed by systemd, and the streams that come out of them.
//! Who may connect is not asked here.

use std::fmt;
use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::Context as _;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::tls::Secured;
use crate::log;
use crate::model::address::listen::Listen;
use crate::os::systemd::{self, Passed};
use crate::server::access::peer::{ConnectionInfo, Peer};

/// How many connections may wait to be accepted: a burst of callers finds room while one answer is written.
const BACKLOG: i32 = 1024;

/// Who may use a unix socket: its owner and group. Addresses they have none, so nothing else is checked but a key.
const SOCKET_MODE: u32 = 0o660;

/// The longest address that is shown in full; a socket's path ends at 107 bytes.
const LONGEST_ADDRESS: usize = 120;

/// What is spoken over TCP. The callers of a unix socket are on this machine: with them it is always plain.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scheme {
    Http,
    Https,
}

/// Where callers find it, as a URL where there is one for it.
#[derive(Debug)]
struct Address {
    at: Listen,
    scheme: Scheme,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.at, self.scheme) {
            (Listen::Tcp(address), Scheme::Http) => write!(f, "http://{address}"),
            (Listen::Tcp(address), Scheme::Https) => write!(f, "https://{address}"),
            (Listen::Unix(path), _) => {
                write!(f, "unix:{}", log::printable(&path.to_string_lossy(), LONGEST_ADDRESS))
            }
        }
    }
}

/// A socket that listens; the file of a unix socket that we made goes when this is dropped.
pub(crate) struct Bound {
    socket: Socket,
    /// With the port that was really given.
    address: Address,
    /// What systemd calls it, if it was passed.
    name: Option<String>,
    file: Option<SocketFile>,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, " ({name})"))
    }
}

impl Bound {
    /// Takes what systemd has passed, and else binds what the user wrote: where there is a socket unit, it says where to
    /// listen.
    pub(crate) fn passed_or(wanted: &[Listen], scheme: Scheme) -> anyhow::Result<Vec<Bound>> {
        match systemd::passed()? {
            passed if passed.is_empty() => Bound::all(wanted, scheme),
            passed => passed.into_iter().map(|passed| Bound::of(passed, scheme)).collect(),
        }
    }

    fn of(passed: Passed, scheme: Scheme) -> anyhow::Result<Bound> {
        let Passed { socket, name } = passed;
        let local = socket.local_addr()?;
        let at = match local.as_socket() {
            Some(address) => {
                socket.set_tcp_nodelay(true)?;
                Listen::tcp(address)
            }
            // An abstract one is written as systemd does.
            None => Listen::Unix(match (local.as_pathname(), local.as_abstract_namespace()) {
                (Some(path), _) => path.to_owned(),
                (None, name) => {
                    format!("@{}", String::from_utf8_lossy(name.unwrap_or_default())).into()
                }
            }),
        };
        socket.set_nonblocking(true)?;
        Ok(Bound { socket, address: Address { at, scheme }, name, file: None })
    }

    /// Binds them all, or none: those bound before a failure are closed again.
    fn all(wanted: &[Listen], scheme: Scheme) -> anyhow::Result<Vec<Bound>> {
        let bind = |at: &Listen| {
            let address = Address { at: at.clone(), scheme };
            let cannot = format!("cannot listen on {address}");
            Bound::one(address, wanted).context(cannot)
        };
        wanted.iter().map(bind).collect()
    }

    fn one(Address { at, scheme }: Address, all: &[Listen]) -> anyhow::Result<Bound> {
        let (socket, file) = match &at {
            Listen::Tcp(address) => {
                let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
                if address.is_ipv6() && address.ip().is_unspecified() {
                    // `[::]` takes IPv4 callers too, unless somebody listens for those on the same port.
                    let beside_v4 = address.port() != 0
                        && all.iter().any(|other| other.is_v4_on(address.port()));
                    socket.set_only_v6(beside_v4)?;
                }
                // A restart need not wait for the last run's connections to time out.
                socket.set_reuse_address(true)?;
                // Accepted sockets inherit it: an answer must not wait for the acknowledgement of the one before.
                socket.set_tcp_nodelay(true)?;
                socket.bind(&(*address).into())?;
                (socket, None)
            }
            Listen::Unix(path) => {
                make_way(path)?;
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                socket.bind(&SockAddr::unix(path)?)?;
                let file = SocketFile::at(path)?;
                // Nobody can connect before `listen`, so nobody gets in under the umask's mode.
                fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
                (socket, Some(file))
            }
        };
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let at = match socket.local_addr()?.as_socket() {
            Some(address) => Listen::Tcp(address),
            None => at,
        };
        Ok(Bound { socket, address: Address { at, scheme }, name: None, file })
    }

    /// Whether other hosts can reach it.
    pub(crate) fn is_beyond_loopback(&self) -> bool {
        matches!(self.address.at, Listen::Tcp(address) if !address.ip().is_loopback())
    }

    /// Takes the socket into the runtime that is running.
    pub(crate) fn start(self) -> io::Result<Listener> {
        let is_loopback = self.address.at.is_loopback();
        let socket = match self.address.at {
            Listen::Tcp(_) => Accepting::Tcp(TcpListener::from_std(self.socket.into())?),
            Listen::Unix(_) => Accepting::Unix(UnixListener::from_std(self.socket.into())?),
        };
        Ok(Listener { socket, is_loopback, _file: self.file })
    }
}

/// Removes a socket that a run left behind; anything else at `path` stays, and is an error.
fn make_way(path: &Path) -> anyhow::Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        anyhow::bail!(
            "something else is there, and it is not a socket; move it away or choose another path"
        );
    }
    match StdUnixStream::connect(path) {
        Err(err) if err.kind() == io::ErrorKind::ConnectionRefused => Ok(fs::remove_file(path)?),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        // Whatever else it says, somebody may be there.
        Ok(_) | Err(_) => Err(io::Error::from(io::ErrorKind::AddrInUse).into()),
    }
}

/// A unix socket's name in the file system.
struct SocketFile {
    path: PathBuf,
    id: (u64, u64),
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<SocketFile> {
        let found = fs::symlink_metadata(path)?;
        Ok(SocketFile { path: path.to_owned(), id: (found.dev(), found.ino()) })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another run may have taken the name over: what is removed is our own socket.
        if fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.id)
        {
            let _ = fs::remove_file(&self.path); // The next run replaces it.
        }
    }
}

/// Where connections come from.
pub(crate) struct Listener {
    socket: Accepting,
    is_loopback: bool,
    _file: Option<SocketFile>,
}

enum Accepting {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    pub(crate) async fn accept(&self) -> io::Result<(Stream, ConnectionInfo)> {
        let (stream, peer) = match &self.socket {
            Accepting::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                (Stream::Tcp(stream), Peer::Ip(address.ip().to_canonical()))
            }
            Accepting::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                (Stream::Unix(stream), Peer::Unix)
            }
        };
        Ok((stream, ConnectionInfo { peer, is_to_loopback: self.is_loopback }))
    }
}

/// A connection of any kind.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Over TCP, after the handshake. Boxed: it is much larger than the others.
    Tls(Box<Secured>),
}

impl Stream {
    /// Says something to a peer who has just connected, and nothing after it. There is room for it in the kernel;
    /// where it fails, the peer is gone.
    pub(crate) fn say_at_once(&self, bytes: &[u8]) {
        let socket = match self {
            Stream::Tcp(stream) => SockRef::from(stream),
            Stream::Unix(stream) => SockRef::from(stream),
            Stream::Tls(_) => return, // He has been spoken with: he has not just connected.
        };
        let _ = socket.send(bytes).and_then(|_| socket.shutdown(Shutdown::Write));
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(secured) => secured.stream().poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(secured) => secured.stream().poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(secured) => secured.stream().poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(secured) => secured.stream().poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn v4_and_v6_wildcards_share_a_port() {
        let free = Bound::all(&[Listen::Tcp((Ipv4Addr::UNSPECIFIED, 0).into())], Scheme::Http)
            .expect("a free port");
        let Listen::Tcp(address) = free[0].address.at else { panic!("not TCP") };
        drop(free);
        let both = [
            Listen::Tcp(address),
            Listen::Tcp(format!("[::]:{}", address.port()).parse().expect("an address")),
        ];
        match Bound::all(&both, Scheme::Http) {
            Ok(bound) => assert_eq!(bound.len(), 2),
            // A machine without IPv6 has nothing to share.
            Err(err) => assert!(format!("{err:#}").contains("family not supported"), "{err:#}"),
        }
    }

    #[test]
    fn a_left_behind_socket_is_replaced_and_nothing_else_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let wanted = [Listen::Unix(path.clone())];

        drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
        let first = Bound::all(&wanted, Scheme::Http).expect("a stale socket is in nobody's way");
        assert_eq!(fs::metadata(&path).expect("a socket").permissions().mode() & 0o777, 0o660);
        let err = Bound::all(&wanted, Scheme::Http).map(|_| ()).expect_err("somebody listens");
        assert!(format!("{err:#}").contains("in use"), "{err:#}");
        drop(first);
        assert!(!path.exists(), "the file goes with the listener");

        fs::write(&path, "precious").expect("a file");
        let err = Bound::all(&wanted, Scheme::Http).map(|_| ()).expect_err("a file is in the way");
        assert!(format!("{err:#}").contains("not a socket"), "{err:#}");
        assert_eq!(fs::read(&path).expect("a file"), b"precious");
    }
}
