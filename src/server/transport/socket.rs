//! Binds listening sockets, or takes those that systemd passes, and accepts streams from them. Decides nothing about
//! their peers.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use rustix::fs::{FileType, Stat};
use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

use super::accepted::AcceptedStream;
use super::tls::TlsServerStream;
use crate::log;
use crate::message::command::quoted;
use crate::message::{cannot, messages};
use crate::model::address::listen::Listen;
use crate::os::fault::{Operation, address_in_use, explain};
use crate::os::file::dir::Dir;
use crate::os::network::connect_unix;
use crate::os::systemd::{self, PassedSocket};
use crate::server::access::peer::{ConnectionInfo, Peer};

messages! {
    NO_SOCKET<0> {
        "Move it away, or choose another path.", "something else is there, and it is not a socket";
        "请移走它，或换一个路径。", "该路径已被占用，且不是套接字";
    }
    NO_PROC<0> {
        "Mount /proc.", "the mode of the socket cannot be set without it";
        "请挂载 /proc。", "缺少 /proc，无法设置套接字的权限";
    }
    IN_USE<1> {
        "Stop the process that listens there (ss -lxp src {0}), or choose another path.", "the address is in use";
        "请停止监听该套接字的程序（ss -lxp src {0}），或换一个路径。", "地址已被占用";
    }
}

/// How many connections may wait to be accepted, so that a burst of clients fits while an answer is written.
const BACKLOG: i32 = 1024;

/// The mode of a unix socket: its owner and group may connect. Without addresses, only a key is checked after that.
const SOCKET_MODE: u32 = 0o660;

/// How many characters of an address are shown. A socket's path has at most 107 bytes.
const LONGEST_ADDRESS: usize = 120;

/// The protocol over TCP. Unix sockets always use plain HTTP, as their peers are on this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scheme {
    Http,
    Https,
}

/// The address of a listening socket as clients see it: a URL, except for a unix socket.
#[derive(Debug)]
struct ListenUrl {
    at: Listen,
    scheme: Scheme,
}

impl fmt::Display for ListenUrl {
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

/// A socket that listens. Dropping it removes the file of a unix socket that it has made.
pub(crate) struct BoundSocket {
    socket: Socket,
    /// With the actual port, if port 0 was asked for.
    address: ListenUrl,
    /// The name that systemd gives to the socket, if systemd passed it.
    name: Option<String>,
    file: Option<SocketFile>,
}

impl fmt::Display for BoundSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, " ({name})"))
    }
}

impl BoundSocket {
    /// Takes the sockets that systemd has passed. Binds the `wanted` addresses if there are none.
    pub(crate) fn passed_or_bind(
        wanted: &[Listen],
        scheme: Scheme,
    ) -> anyhow::Result<Vec<BoundSocket>> {
        match systemd::take_passed_sockets()? {
            passed if passed.is_empty() => BoundSocket::bind_all(wanted, scheme),
            passed => {
                passed.into_iter().map(|passed| BoundSocket::from_passed(passed, scheme)).collect()
            }
        }
    }

    fn from_passed(passed: PassedSocket, scheme: Scheme) -> anyhow::Result<BoundSocket> {
        let PassedSocket { socket, name } = passed;
        let local = socket.local_addr()?;
        let at = match local.as_socket() {
            Some(address) => {
                socket.set_tcp_nodelay(true)?;
                Listen::tcp(address)
            }
            // An abstract name is shown with an @, as systemd does.
            None => Listen::Unix(match (local.as_pathname(), local.as_abstract_namespace()) {
                (Some(path), _) => path.to_owned(),
                (None, name) => {
                    format!("@{}", String::from_utf8_lossy(name.unwrap_or_default())).into()
                }
            }),
        };
        socket.set_nonblocking(true)?;
        Ok(BoundSocket { socket, address: ListenUrl { at, scheme }, name, file: None })
    }

    /// Binds all addresses. After a failure, those that are bound already are closed.
    fn bind_all(wanted: &[Listen], scheme: Scheme) -> anyhow::Result<Vec<BoundSocket>> {
        let bind = |at: &Listen| {
            let address = ListenUrl { at: at.clone(), scheme };
            let cannot = cannot("listen on", "监听", &address);
            BoundSocket::bind(address, wanted).context(cannot)
        };
        wanted.iter().map(bind).collect()
    }

    fn bind(ListenUrl { at, scheme }: ListenUrl, all: &[Listen]) -> anyhow::Result<BoundSocket> {
        let (socket, file) = match &at {
            Listen::Tcp(address) => {
                let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
                if address.is_ipv6() && address.ip().is_unspecified() {
                    // `[::]` accepts IPv4 too, unless another listener has the same port for that.
                    let beside_v4 = address.port() != 0
                        && all.iter().any(|other| other.is_v4_on(address.port()));
                    socket.set_only_v6(beside_v4)?;
                }
                // Without it, a restart fails until the connections of the last run have timed out.
                socket.set_reuse_address(true)?;
                // Accepted sockets inherit it. An answer must not wait for the acknowledgement of the one before.
                socket.set_tcp_nodelay(true)?;
                let bound = socket.bind(&(*address).into());
                bound.map_err(|err| address_in_use(err, *address))?;
                (socket, None)
            }
            Listen::Unix(path) => {
                remove_stale_socket(path)?;
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                let bound = socket.bind(&SockAddr::unix(path)?);
                bound.map_err(|err| explain(err, path, Operation::Writing))?;
                // No peer can connect before `listen`, so the mode by the umask lets none in.
                let file = SocketFile::new(path).map_err(|err| {
                    match Path::new("/proc/self").exists() {
                        true => anyhow::Error::new(err),
                        false => anyhow::anyhow!(NO_PROC.quoting([], err)),
                    }
                })?;
                (socket, Some(file))
            }
        };
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let at = match socket.local_addr()?.as_socket() {
            Some(address) => Listen::Tcp(address),
            None => at,
        };
        Ok(BoundSocket { socket, address: ListenUrl { at, scheme }, name: None, file })
    }

    /// Whether other hosts can connect.
    pub(crate) fn is_beyond_loopback(&self) -> bool {
        matches!(self.address.at, Listen::Tcp(address) if !address.ip().is_loopback())
    }

    /// Registers the socket with the current tokio runtime.
    pub(crate) fn start(self) -> io::Result<Listener> {
        let kind = match self.address.at {
            Listen::Tcp(address) => {
                ListenerKind::Tcp(Some(address.ip()).filter(|ip| !ip.is_unspecified()))
            }
            Listen::Unix(_) => ListenerKind::Unix,
        };
        #[expect(
            deprecated,
            reason = "its successor is unsafe, for types whose descriptor changes"
        )]
        let socket = AsyncFd::with_interest(self.socket, Interest::READABLE)?;
        Ok(Listener { socket, kind, _file: self.file })
    }
}

/// A server that has not taken a connection by then is there, and has too many waiting.
const AT_ONCE: Duration = Duration::from_millis(100);

/// Removes a socket that an earlier run left behind. Fails if there is anything else at `path`.
fn remove_stale_socket(path: &Path) -> anyhow::Result<()> {
    let (dir, name) = Dir::of(path).map_err(|err| explain(err, path, Operation::Writing))?;
    let Ok(found) = dir.stat(name) else { return Ok(()) };
    if FileType::from_raw_mode(found.st_mode) != FileType::Socket {
        anyhow::bail!(NO_SOCKET.text());
    }
    match connect_unix(path, AT_ONCE) {
        Err(err) if err.kind() == io::ErrorKind::ConnectionRefused => Ok(dir.remove(name)?),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        // After any other error a process may still be listening.
        Ok(_) | Err(_) => anyhow::bail!(IN_USE.with([&quoted(&path.display().to_string())])),
    }
}

/// The file of a unix socket. Dropping it removes the file.
struct SocketFile {
    dir: Dir,
    name: OsString,
    /// Device and inode.
    id: (u64, u64),
}

impl SocketFile {
    /// Returns the file at `path`, to which a socket was just bound, and gives it its mode.
    fn new(path: &Path) -> io::Result<SocketFile> {
        let (dir, name) = Dir::of(path)?;
        let id = id(&dir.set_socket_mode(name, SOCKET_MODE)?);
        Ok(SocketFile { dir, name: name.to_owned(), id })
    }
}

fn id(found: &Stat) -> (u64, u64) {
    (found.st_dev, found.st_ino)
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another process may have replaced the file since.
        if self.dir.stat(&self.name).is_ok_and(|found| id(&found) == self.id) {
            let _ = self.dir.remove(&self.name); // The next run removes it otherwise.
        }
    }
}

/// Accepts connections.
pub(crate) struct Listener {
    socket: AsyncFd<Socket>,
    kind: ListenerKind,
    _file: Option<SocketFile>,
}

enum ListenerKind {
    /// With the address to which all its connections are made. `None` if it listens on all addresses.
    Tcp(Option<IpAddr>),
    Unix,
}

impl Listener {
    /// Waits for the next connection.
    pub(crate) async fn accept(&self) -> io::Result<(Stream, ConnectionInfo)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let accept = |listener: &Socket| Ok(acceptfrom_with(listener, flags)?);
        let (accepted, peer) = self.socket.async_io(Interest::READABLE, accept).await?;
        Ok(match self.kind {
            ListenerKind::Tcp(address) => {
                let stream = std::net::TcpStream::from(accepted);
                let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                let peer = Peer::Ip(peer.ok_or(io::ErrorKind::Unsupported)?.ip().to_canonical());
                // A listener on 0.0.0.0 is at loopback addresses too. If the address cannot be told, it may be one.
                let local = address.or_else(|| Some(stream.local_addr().ok()?.ip()));
                let is_to_loopback = local.is_none_or(|ip| ip.to_canonical().is_loopback());
                let info = ConnectionInfo { peer, is_to_loopback };
                (Stream::Tcp(AcceptedStream::new(stream)), info)
            }
            ListenerKind::Unix => {
                let info = ConnectionInfo { peer: Peer::Unix, is_to_loopback: false };
                (Stream::Unix(UnixStream::from_std(accepted.into())?), info)
            }
        })
    }
}

/// A stream of any kind.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(AcceptedStream),
    Unix(UnixStream),
    /// TLS over TCP, after the handshake.
    Tls(TlsServerStream),
}

/// What all kinds of streams can do.
trait ReadWrite: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> ReadWrite for T {}

impl Stream {
    /// Calls `poll` with the stream, whatever its kind.
    fn with<R>(&mut self, poll: impl FnOnce(Pin<&mut dyn ReadWrite>) -> R) -> R {
        match self {
            Stream::Tcp(stream) => poll(Pin::new(stream)),
            Stream::Unix(stream) => poll(Pin::new(stream)),
            Stream::Tls(stream) => stream.with(|stream| poll(stream)),
        }
    }

    /// Writes bytes that the end of the stream follows at once. Over TCP they may wait for it.
    pub(super) fn poll_write_last(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Stream::Tcp(stream) => stream.poll_write_last(cx, bytes),
            Stream::Unix(_) | Stream::Tls(_) => Pin::new(self).poll_write(cx, bytes),
        }
    }

    /// Ends the stream after the last bytes. Over TCP it leaves that to the close of the socket, which has to follow at once: it sends
    /// what waits and the end of the stream in one segment, and a shutdown before it would be a system call more.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(_) => Poll::Ready(Ok(())),
            Stream::Unix(_) | Stream::Tls(_) => Pin::new(self).poll_shutdown(cx),
        }
    }

    /// Sends a few bytes on a stream that was just accepted, and shuts down the server's side. The bytes fit into the
    /// empty buffer of the socket. Errors are ignored, as they mean that the peer has gone.
    pub(crate) fn send_and_shut_down(&self, bytes: &[u8]) {
        let socket = match self {
            Stream::Tcp(stream) => stream.socket(),
            Stream::Unix(stream) => Ok(SockRef::from(stream)),
            Stream::Tls(_) => return, // Not just accepted: it has had a handshake.
        };
        let Ok(socket) = socket else { return };
        let _ = socket.send(bytes).and_then(|_| socket.shutdown(Shutdown::Write));
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().with(|stream| stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().with(|stream| stream.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().with(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().with(|stream| stream.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::Ipv4Addr;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn v4_and_v6_wildcards_share_a_port() {
        let free =
            BoundSocket::bind_all(&[Listen::Tcp((Ipv4Addr::UNSPECIFIED, 0).into())], Scheme::Http)
                .expect("a free port");
        let Listen::Tcp(address) = free[0].address.at else { panic!("not TCP") };
        drop(free);
        let both = [
            Listen::Tcp(address),
            Listen::Tcp(format!("[::]:{}", address.port()).parse().expect("an address")),
        ];
        match BoundSocket::bind_all(&both, Scheme::Http) {
            Ok(bound) => assert_eq!(bound.len(), 2),
            // A machine without IPv6 cannot bind the second one.
            Err(err) => assert!(format!("{err:#}").contains("family not supported"), "{err:#}"),
        }
    }

    #[test]
    fn a_stale_socket_is_replaced_and_anything_else_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let wanted = [Listen::Unix(path.clone())];

        drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
        let first =
            BoundSocket::bind_all(&wanted, Scheme::Http).expect("a stale socket is removed");
        assert_eq!(fs::metadata(&path).expect("a socket").permissions().mode() & 0o777, 0o660);
        let err = BoundSocket::bind_all(&wanted, Scheme::Http)
            .map(|_| ())
            .expect_err("the first one listens");
        assert!(format!("{err:#}").contains("in use"), "{err:#}");
        drop(first);
        assert!(!path.exists(), "the file is removed with the listener");

        fs::write(&path, "precious").expect("a file");
        let err =
            BoundSocket::bind_all(&wanted, Scheme::Http).map(|_| ()).expect_err("a file is there");
        assert!(format!("{err:#}").contains("not a socket"), "{err:#}");
        assert_eq!(fs::read(&path).expect("a file"), b"precious");
    }
}
