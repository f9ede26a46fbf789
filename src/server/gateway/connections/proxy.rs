//! Asks a proxy for a tunnel: HTTP CONNECT, SOCKS4, SOCKS4a and SOCKS5. The proxies are those that `ureq` knows, which makes
//! all other requests.

use std::io::{self, Error};
use std::net::{IpAddr, SocketAddr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use ureq::ProxyProtocol;
use zeroize::Zeroizing;

/// The largest head of an answer to CONNECT, in bytes.
const MAX_CONNECT_HEAD: usize = 8 * 1024;

/// Where a tunnel leads.
#[derive(Clone, Copy, Debug)]
pub(super) enum TunnelTarget<'a> {
    Address(SocketAddr),
    Name(&'a str, u16),
}

impl TunnelTarget<'_> {
    fn port(self) -> u16 {
        match self {
            TunnelTarget::Address(address) => address.port(),
            TunnelTarget::Name(_, port) => port,
        }
    }
}

/// Has the proxy at the other end of `stream` connect it to `target`.
pub(super) async fn tunnel<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    proxy: &ureq::Proxy,
    target: TunnelTarget<'_>,
) -> io::Result<()> {
    match proxy.protocol() {
        ProxyProtocol::Socks4 | ProxyProtocol::Socks4A => socks4(stream, target).await,
        ProxyProtocol::Socks5 | ProxyProtocol::Socks5h => socks5(stream, proxy, target).await,
        _ => connect(stream, proxy, target).await,
    }
}

async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    proxy: &ureq::Proxy,
    target: TunnelTarget<'_>,
) -> io::Result<()> {
    let authority = match target {
        TunnelTarget::Address(address) => address.to_string(),
        TunnelTarget::Name(host, port) => format!("{host}:{port}"),
    };
    let mut head = Zeroizing::new(format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n"));
    if let Some(user) = proxy.username() {
        let password = proxy.password().unwrap_or_default();
        let credentials = Zeroizing::new(format!("{user}:{password}"));
        head.push_str("Proxy-Authorization: Basic ");
        STANDARD.encode_string(&*credentials, &mut head);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.flush().await?;
    // Byte by byte: what follows the head belongs to the tunnel.
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == MAX_CONNECT_HEAD {
            return Err(Error::other("the proxy's answer to CONNECT is too large"));
        }
        answer.push(stream.read_u8().await?);
    }
    let status = answer.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    match status {
        [b'2', ..] if answer.starts_with(b"HTTP/1.") => Ok(()),
        [b'4', b'0', b'7'] => Err(Error::other("the proxy wants another user or password")),
        _ => Err(Error::other("the proxy refuses to connect")),
    }
}

async fn socks4<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    target: TunnelTarget<'_>,
) -> io::Result<()> {
    let mut request = vec![4, 1];
    request.extend(target.port().to_be_bytes());
    match target {
        TunnelTarget::Address(SocketAddr::V4(address)) => {
            request.extend(address.ip().octets());
            request.push(0);
        }
        TunnelTarget::Address(SocketAddr::V6(_)) => {
            return Err(Error::other("SOCKS4 knows no IPv6"));
        }
        // An invalid address stands for a name, which follows the empty user.
        TunnelTarget::Name(host, _) => {
            request.extend([0, 0, 0, 1, 0]);
            request.extend(host.bytes());
            request.push(0);
        }
    }
    stream.write_all(&request).await?;
    stream.flush().await?;
    let mut reply = [0; 8];
    stream.read_exact(&mut reply).await?;
    match reply {
        [0, 90, ..] => Ok(()),
        _ => Err(Error::other("the SOCKS proxy refuses to connect")),
    }
}

async fn socks5<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    proxy: &ureq::Proxy,
    target: TunnelTarget<'_>,
) -> io::Result<()> {
    let greeting: &[u8] = if proxy.username().is_some() { &[5, 2, 2, 0] } else { &[5, 1, 0] };
    stream.write_all(greeting).await?;
    stream.flush().await?;
    let mut chosen = [0; 2];
    stream.read_exact(&mut chosen).await?;
    match (chosen, proxy.username()) {
        ([5, 0], _) => {}
        ([5, 2], Some(user)) => {
            authenticate(stream, user, proxy.password().unwrap_or_default()).await?;
        }
        _ => return Err(Error::other("the SOCKS proxy takes no user and password of ours")),
    }
    let mut request = vec![5, 1, 0];
    match target {
        TunnelTarget::Address(address) => match address.ip() {
            IpAddr::V4(ip) => {
                request.push(1);
                request.extend(ip.octets());
            }
            IpAddr::V6(ip) => {
                request.push(4);
                request.extend(ip.octets());
            }
        },
        TunnelTarget::Name(host, _) => {
            request.extend([3, length_byte(host)?]);
            request.extend(host.bytes());
        }
    }
    request.extend(target.port().to_be_bytes());
    stream.write_all(&request).await?;
    stream.flush().await?;
    let mut reply = [0; 4];
    stream.read_exact(&mut reply).await?;
    let bound = match reply {
        [5, 0, 0, 1] => 4,
        [5, 0, 0, 4] => 16,
        [5, 0, 0, 3] => usize::from(stream.read_u8().await?),
        [5, 5, ..] => return Err(Error::other("connection refused, says the SOCKS proxy")),
        _ => return Err(Error::other("the SOCKS proxy refuses to connect")),
    };
    // The address that the proxy uses.
    let mut unused = [0; 257];
    stream.read_exact(&mut unused[..bound + 2]).await?;
    Ok(())
}

async fn authenticate<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    user: &str,
    password: &str,
) -> io::Result<()> {
    let mut request = Zeroizing::new(vec![1, length_byte(user)?]);
    request.extend(user.bytes());
    request.push(length_byte(password)?);
    request.extend(password.bytes());
    stream.write_all(&request).await?;
    stream.flush().await?;
    let mut reply = [0; 2];
    stream.read_exact(&mut reply).await?;
    match reply {
        [1, 0] => Ok(()),
        _ => Err(Error::other("the SOCKS proxy wants another user or password")),
    }
}

fn length_byte(text: &str) -> io::Result<u8> {
    u8::try_from(text.len()).map_err(|_| Error::other("longer than SOCKS can say"))
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    const NAME: TunnelTarget<'_> = TunnelTarget::Name("wechat.test", 443);

    /// Asks `proxy`, which answers with these bytes, for a tunnel. Returns what it was sent.
    fn ask(proxy: &str, target: TunnelTarget<'_>, replies: &[u8]) -> (io::Result<()>, Vec<u8>) {
        let proxy = ureq::Proxy::new(proxy).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut ours, mut theirs) = duplex(64 * 1024);
            theirs.write_all(replies).await.unwrap();
            theirs.shutdown().await.unwrap();
            let result = tunnel(&mut ours, &proxy, target).await;
            let mut sent = Vec::new();
            drop(ours);
            theirs.read_to_end(&mut sent).await.unwrap();
            (result, sent)
        })
    }

    #[test]
    fn http_proxies_are_asked_by_connect_with_user_and_password() {
        let (result, sent) = ask("http://u:p%40ss@proxy", NAME, b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n");
        result.unwrap();
        let expected = "CONNECT wechat.test:443 HTTP/1.1\r\nHost: wechat.test:443\r\n\
                        Proxy-Authorization: Basic dTpwQHNz\r\n\r\n";
        assert_eq!(String::from_utf8(sent).unwrap(), expected);
        for refusal in ["HTTP/1.1 407 no\r\n\r\n", "HTTP/1.1 502 no\r\n\r\n", "SSH-2.0\r\n\r\n", ""]
        {
            assert!(ask("http://proxy", NAME, refusal.as_bytes()).0.is_err(), "{refusal}");
        }
        assert!(ask("http://proxy", NAME, &[b'x'; 9000]).0.is_err());
    }

    #[test]
    fn socks_proxies_get_a_name_or_an_address() {
        let granted5: &[u8] = &[5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let address = TunnelTarget::Address("10.0.0.1:80".parse().unwrap());
        let v6 = TunnelTarget::Address("[2001:db8::1]:80".parse().unwrap());
        let (result, sent) = ask("socks5h://proxy", NAME, granted5);
        result.unwrap();
        assert_eq!(sent, [&[5, 1, 0, 5, 1, 0, 3, 11][..], b"wechat.test", &[1, 187]].concat());
        let (result, sent) = ask("socks5://proxy", address, granted5);
        result.unwrap();
        assert_eq!(sent, [5, 1, 0, 5, 1, 0, 1, 10, 0, 0, 1, 0, 80]);
        let by_password: &[u8] = &[5, 2, 1, 0, 5, 0, 0, 3, 1, b'x', 0, 0];
        let (result, sent) = ask("socks5://u:p@proxy", v6, by_password);
        result.unwrap();
        assert_eq!(sent[..13], [5, 2, 2, 0, 1, 1, b'u', 1, b'p', 5, 1, 0, 4]);
        let (result, sent) = ask("socks4a://proxy", NAME, &[0, 90, 0, 0, 0, 0, 0, 0]);
        result.unwrap();
        assert_eq!(sent, [&[4, 1, 1, 187, 0, 0, 0, 1, 0][..], b"wechat.test", &[0]].concat());
        let (result, sent) = ask("socks4://proxy", address, &[0, 90, 0, 0, 0, 0, 0, 0]);
        result.unwrap();
        assert_eq!(sent, [4, 1, 0, 80, 10, 0, 0, 1, 0]);
        assert!(ask("socks4://proxy", v6, &[0, 90, 0, 0, 0, 0, 0, 0]).0.is_err());
    }

    #[test]
    fn a_socks_proxy_that_refuses_or_breaks_off_is_an_error() {
        for (proxy, replies) in [
            ("socks4a://proxy", &[0, 91, 0, 0, 0, 0, 0, 0][..]),
            ("socks4a://proxy", &[0, 90, 0]),
            ("socks5h://proxy", &[5, 0xff]),
            ("socks5h://proxy", &[5, 2, 1, 0]),
            ("socks5h://u:p@proxy", &[5, 2, 1, 1]),
            ("socks5h://proxy", &[5, 0, 5, 5, 0, 1, 0, 0, 0, 0, 0, 0]),
            ("socks5h://proxy", &[5, 0, 5, 0, 0, 9]),
            ("socks5h://proxy", &[5, 0, 5, 0, 0, 1, 0]),
            ("socks5h://proxy", &[]),
        ] {
            assert!(ask(proxy, NAME, replies).0.is_err(), "{proxy} {replies:?}");
        }
    }
}
