//! Faults that no HTTP library produces, on a bare socket: silence, resets, answers that break off or never end.
//! `effect` decides which bytes are sent. Each action ends when the peer closes the connection.

use std::fmt;
use std::time::Duration;

use hyper::body::Bytes;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Size of the padding, in bytes: more than any client should buffer.
const FLOOD: usize = 512 * 1024 * 1024;
/// For how long unread bytes are drained before a connection is closed. Closing a socket with unread bytes resets it, and the
/// peer could lose the answer.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// What to do with a connection instead of answering by HTTP. An error of the HTTP service, which ends hyper's part.
#[derive(Clone, Debug)]
pub(crate) enum WireAction {
    /// Sends nothing and keeps the connection open.
    Silence,
    /// Resets the TCP connection.
    Reset,
    /// Sends these bytes, or none, and closes.
    Bytes(Bytes),
    /// Sends the head, then a byte of the body each second.
    Drip { head: Bytes, body: Bytes },
    /// Sends 512 MiB of padding between the two, without holding it in memory.
    Flood { before: Bytes, after: Bytes },
}

impl fmt::Display for WireAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WireAction::Silence => "no answer",
            WireAction::Reset => "reset",
            WireAction::Bytes(bytes) if bytes.is_empty() => "closed without an answer",
            WireAction::Bytes(_) => "broken answer, closed",
            WireAction::Drip { .. } => "a byte a second",
            WireAction::Flood { .. } => "flood",
        })
    }
}

impl std::error::Error for WireAction {}

impl WireAction {
    /// Carries out the action. Ignores errors: they mean that the peer is gone.
    pub(crate) async fn run(self, mut stream: TcpStream) {
        let _ = self.write(&mut stream).await;
    }

    async fn write(self, stream: &mut TcpStream) -> std::io::Result<()> {
        match self {
            WireAction::Silence => return drain(stream).await,
            WireAction::Reset => return SockRef::from(&*stream).set_linger(Some(Duration::ZERO)),
            WireAction::Bytes(bytes) => stream.write_all(&bytes).await?,
            WireAction::Drip { head, body } => {
                stream.write_all(&head).await?;
                for byte in body {
                    stream.write_all(&[byte]).await?;
                    sleep(Duration::from_secs(1)).await;
                }
            }
            WireAction::Flood { before, after } => {
                let padding = [b'x'; 64 * 1024];
                stream.write_all(&before).await?;
                for _ in 0..FLOOD / padding.len() {
                    stream.write_all(&padding).await?;
                }
                stream.write_all(&after).await?;
            }
        }
        stream.shutdown().await?;
        timeout(DRAIN_TIMEOUT, drain(stream)).await?
    }
}

/// Reads until the peer closes.
async fn drain(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut unread = [0; 1024];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}
