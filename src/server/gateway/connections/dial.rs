//! Connects to a server of an account's API: name, TCP, the proxy, TLS. Sends no request.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::proxy;
use crate::model::address::endpoint::Proxy;
use crate::upstream::api_servers::{ApiServer, ApiServers};
use crate::upstream::client;

/// How long it may take to have a connection to any of the servers, so that a client is answered within 2.5 s.
const DIAL_TIMEOUT: Duration = Duration::from_millis(2300);

/// How long a name is looked up once more, to explain a failure.
const HINT_TIMEOUT: Duration = Duration::from_millis(100);

/// A stream to a server, through whatever is between.
pub(super) trait DialedStream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> DialedStream for T {}

/// Why there is no connection. Nothing was sent.
#[derive(Debug)]
pub(in crate::server::gateway) struct DialError {
    /// The server, and the proxy without its password.
    server: String,
    reason: String,
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.server, self.reason)
    }
}

/// Connects to the first of the servers that can be reached. Returns its place and the stream. Fails with the error of each.
pub(super) async fn dial(
    servers: &ApiServers,
) -> Result<(usize, Box<dyn DialedStream>), Vec<DialError>> {
    let deadline = Instant::now() + DIAL_TIMEOUT;
    let mut errors = Vec::new();
    for (nth, server) in servers.servers.iter().enumerate() {
        // The time left is shared with the remaining servers.
        let share = deadline.saturating_duration_since(Instant::now())
            / u32::try_from(servers.servers.len() - nth).unwrap_or(u32::MAX);
        let reason = match timeout(share, connect(server, servers, Instant::now() + share)).await {
            Ok(Ok(stream)) => return Ok((nth, stream)),
            Ok(Err(err)) => err.to_string() + &hint_of_own_host(server).await,
            Err(_) => "no connection in time".to_owned(),
        };
        errors.push(DialError { server: name(server), reason });
    }
    Err(errors)
}

/// Returns what to add to an error if a host of WeChat's is this host here.
async fn hint_of_own_host(server: &ApiServer) -> String {
    let host = server.base.host();
    if server.proxy.is_some() || !client::is_wechat(host) {
        return String::new();
    }
    match timeout(HINT_TIMEOUT, lookup_host((host, 0))).await {
        Ok(Ok(addresses)) => client::own_host_hint(host, addresses.map(|it| it.ip())),
        _ => String::new(),
    }
}

/// Returns the name of a server for messages.
fn name(server: &ApiServer) -> String {
    match &server.proxy {
        None => server.base.authority().to_owned(),
        Some(proxy) => {
            format!("{} through the proxy {}", server.base.authority(), proxy.authority())
        }
    }
}

async fn connect(
    server: &ApiServer,
    servers: &ApiServers,
    deadline: Instant,
) -> io::Result<Box<dyn DialedStream>> {
    let (host, port) = (server.base.host(), server.base.port());
    let stream: Box<dyn DialedStream> = match &server.proxy {
        None => Box::new(connect_tcp(host, port, deadline).await?),
        Some(proxy) => connect_through(proxy, host, port, servers, deadline).await?,
    };
    match server.base.is_https() {
        true => secure(stream, host, &servers.tls).await,
        false => Ok(stream),
    }
}

async fn connect_through(
    proxy: &Proxy,
    host: &str,
    port: u16,
    servers: &ApiServers,
    deadline: Instant,
) -> io::Result<Box<dyn DialedStream>> {
    let way = proxy.to_ureq();
    let proxy_host = way.host().trim_start_matches('[').trim_end_matches(']');
    let mut stream: Box<dyn DialedStream> =
        Box::new(connect_tcp(proxy_host, way.port(), deadline).await?);
    if way.protocol() == ureq::ProxyProtocol::Https {
        stream = secure(stream, proxy_host, &servers.tls).await?;
    }
    // SOCKS4 has no names.
    let ip = match way.resolve_target() {
        true => lookup_host((host, port)).await?.next(),
        false => host.parse().ok().map(|ip| SocketAddr::new(ip, port)),
    };
    let target = ip.map_or(proxy::TunnelTarget::Name(host, port), proxy::TunnelTarget::Address);
    proxy::tunnel(&mut stream, &way, target).await?;
    Ok(stream)
}

/// Connects to the first address of a host that answers. The name is resolved in a thread of the runtime's.
async fn connect_tcp(host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = lookup_host((host, port)).await?.collect();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (nth, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - nth).unwrap_or(u32::MAX);
        match timeout_at(Instant::now() + share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true); // Affects speed only.
                return Ok(stream);
            }
            Ok(Err(err)) => last = err,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, "no connection in time"),
        }
    }
    Err(last)
}

async fn secure(
    stream: Box<dyn DialedStream>,
    host: &str,
    tls: &Arc<rustls::ClientConfig>,
) -> io::Result<Box<dyn DialedStream>> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "no name for TLS"))?;
    Ok(Box::new(TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?))
}
