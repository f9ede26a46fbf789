//! Closes connections so that the client can read what it was sent last.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::task::{Poll, ready};

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use super::socket::Stream;
use crate::server::limits::{LINGERING_TIMEOUT, MAX_LINGERING};
use crate::server::state::slots::ConnectionSlot;

/// Closes a connection whose peer was sent a refusal, so that the peer can read it.
pub(crate) async fn turn_away(stream: Stream, slot: ConnectionSlot) {
    slot.run_until_evicted(pin!(lingering_close(stream, None))).await;
}

/// Writes a last answer, closes the server's side, and gives the client some time to read the answer and to close its
/// side. nginx calls this a lingering close.
pub(super) async fn lingering_close(mut stream: Stream, last_answer: Option<&[u8]>) {
    // After an error or the timeout the connection is dropped, as it is after success.
    let _ = timeout(LINGERING_TIMEOUT, async {
        if let Some(bytes) = last_answer {
            stream.write_all(bytes).await?;
        }
        stream.shutdown().await?;
        let mut discarded = 0;
        while discarded < MAX_LINGERING {
            match discard(&mut stream).await? {
                0 => break,
                n => discarded += n,
            }
        }
        io::Result::Ok(())
    })
    .await;
}

/// Reads once, and drops what was read. The buffer is not part of the future, of which there may be ten thousand.
async fn discard(stream: &mut Stream) -> io::Result<usize> {
    poll_fn(|cx| {
        let mut bytes = [MaybeUninit::uninit(); 16 * 1024];
        let mut buf = ReadBuf::uninit(&mut bytes);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut buf))?;
        Poll::Ready(Ok(buf.filled().len()))
    })
    .await
}
