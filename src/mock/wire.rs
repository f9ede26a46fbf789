//! What no HTTP library does for us, on the bare socket: silence, resets, answers that break off or never end.
//! What is sent is told in `effect`; each ends by itself when the peer goes.

use std::fmt;
use std::time::Duration;

use hyper::body::Bytes;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// More than any client should be ready to hold.
const FLOOD: usize = 512 * 1024 * 1024;
/// A socket with unread bytes is reset when it is closed, which would take the last answer away: what the peer still
/// sends is read for this long.
const FAREWELL: Duration = Duration::from_secs(2);

/// The service's way to say: this connection is no longer HTTP's.
#[derive(Clone, Debug)]
pub(crate) enum Wire {
    /// Nothing, for as long as the peer waits.
    Silence,
    /// A TCP reset.
    Reset,
    /// These bytes, none perhaps, and the end.
    Bytes(Bytes),
    /// The head, then the body a byte a second.
    Drip { head: Bytes, body: Bytes },
    /// Half a gigabyte of padding between the two, in little memory.
    Flood { before: Bytes, after: Bytes },
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wire::Silence => "no answer",
            Wire::Reset => "reset",
            Wire::Bytes(bytes) if bytes.is_empty() => "closed without an answer",
            Wire::Bytes(_) => "broken answer, closed",
            Wire::Drip { .. } => "a byte a second",
            Wire::Flood { .. } => "flood",
        })
    }
}

impl std::error::Error for Wire {}

impl Wire {
    /// Does it, to the end. Errors are the peer's going away, which is nothing to report.
    pub(crate) async fn act(self, mut stream: TcpStream) {
        let _ = self.write(&mut stream).await;
    }

    async fn write(self, stream: &mut TcpStream) -> std::io::Result<()> {
        match self {
            Wire::Silence => return drain(stream).await,
            Wire::Reset => return SockRef::from(&*stream).set_linger(Some(Duration::ZERO)),
            Wire::Bytes(bytes) => stream.write_all(&bytes).await?,
            Wire::Drip { head, body } => {
                stream.write_all(&head).await?;
                for byte in body {
                    stream.write_all(&[byte]).await?;
                    sleep(Duration::from_secs(1)).await;
                }
            }
            Wire::Flood { before, after } => {
                let padding = [b'x'; 64 * 1024];
                stream.write_all(&before).await?;
                for _ in 0..FLOOD / padding.len() {
                    stream.write_all(&padding).await?;
                }
                stream.write_all(&after).await?;
            }
        }
        stream.shutdown().await?;
        timeout(FAREWELL, drain(stream)).await?
    }
}

/// Reads until the peer closes.
async fn drain(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut unread = [0; 1024];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}
