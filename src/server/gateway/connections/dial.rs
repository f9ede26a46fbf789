//! Connects to a server of an account's API: name, TCP, the proxy, TLS. Sends no request.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::lookups::NameLookups;
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
    lookups: &Rc<NameLookups>,
) -> Result<(usize, Box<dyn DialedStream>), Vec<DialError>> {
    let deadline = Instant::now() + DIAL_TIMEOUT;
    let mut errors = Vec::new();
    for (nth, server) in servers.servers.iter().enumerate() {
        // The time left is shared with the remaining servers.
        let share = deadline.saturating_duration_since(Instant::now())
            / u32::try_from(servers.servers.len() - nth).unwrap_or(u32::MAX);
        let dialing = Dialing { servers, lookups, deadline: Instant::now() + share };
        let reason = match timeout(share, dialing.connect(server)).await {
            Ok(Ok(stream)) => return Ok((nth, stream)),
            Ok(Err(err)) => err.to_string() + &hint_of_own_host(server, lookups).await,
            Err(_) => "no connection in time".to_owned(),
        };
        errors.push(DialError { server: name(server), reason });
    }
    Err(errors)
}

/// Returns what to add to an error if a host of WeChat's is this host here.
async fn hint_of_own_host(server: &ApiServer, lookups: &Rc<NameLookups>) -> String {
    let host = server.base.host();
    if server.proxy.is_some() || !client::is_wechat(host) {
        return String::new();
    }
    match timeout(HINT_TIMEOUT, lookups.addresses(host, 0)).await {
        Ok(Ok(addresses)) => client::own_host_hint(host, addresses.iter().map(SocketAddr::ip)),
        _ => String::new(),
    }
}

/// Returns the name of a server for messages.
fn name(server: &ApiServer) -> String {
    match &server.proxy {
        None => server.base.authority().to_owned(),
        Some(proxy) => {
            let values = [&server.base.authority() as &dyn fmt::Display, &proxy.authority()];
            client::reasons::THROUGH_PROXY.with(values)
        }
    }
}

/// An attempt to connect to one of these servers.
struct Dialing<'a> {
    servers: &'a ApiServers,
    lookups: &'a Rc<NameLookups>,
    deadline: Instant,
}

impl Dialing<'_> {
    async fn connect(&self, server: &ApiServer) -> io::Result<Box<dyn DialedStream>> {
        let (host, port) = (server.base.host(), server.base.port());
        let stream: Box<dyn DialedStream> = match &server.proxy {
            None => Box::new(self.connect_tcp(host, port).await?),
            Some(proxy) => self.connect_through(proxy, host, port).await?,
        };
        match server.base.is_https() {
            true => secure(stream, host, &self.servers.tls).await,
            false => Ok(stream),
        }
    }

    async fn connect_through(
        &self,
        proxy: &Proxy,
        host: &str,
        port: u16,
    ) -> io::Result<Box<dyn DialedStream>> {
        let way = proxy.to_ureq();
        let proxy_host = way.host().trim_start_matches('[').trim_end_matches(']');
        let mut stream: Box<dyn DialedStream> =
            Box::new(self.connect_tcp(proxy_host, way.port()).await?);
        if way.protocol() == ureq::ProxyProtocol::Https {
            stream = secure(stream, proxy_host, &self.servers.tls).await?;
        }
        // SOCKS4 has no names.
        let ip = match way.resolve_target() {
            true => self.lookups.addresses(host, port).await?.first().copied(),
            false => host.parse().ok().map(|ip| SocketAddr::new(ip, port)),
        };
        let target = ip.map_or(proxy::TunnelTarget::Name(host, port), proxy::TunnelTarget::Address);
        proxy::tunnel(&mut stream, &way, target).await?;
        Ok(stream)
    }

    /// Connects to the first address of a host that answers.
    async fn connect_tcp(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let addresses = self.lookups.addresses(host, port).await?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for (nth, address) in addresses.iter().enumerate() {
            let left = self.deadline.saturating_duration_since(Instant::now());
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
