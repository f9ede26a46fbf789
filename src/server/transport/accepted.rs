//! A TCP connection that is registered with the event loop late: not before it has to be waited for.

use std::io::{self, Read};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{SendFlags, send};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// A TCP connection from its accept on. The event loop learns of it when it has to be waited for, or is read from a second
/// time. Most connections with one request are closed before, which saves two system calls and a wake-up.
#[derive(Debug)]
pub(crate) struct AcceptedStream {
    /// The socket, which does not block, until the event loop knows it.
    socket: Option<std::net::TcpStream>,
    /// Whether it was read from before that. What is read without the loop counts for no fair share of its thread.
    was_read: bool,
    /// The socket once the event loop knows it. `None` also if the event loop could not take it.
    registered: Option<TcpStream>,
}

impl AcceptedStream {
    /// Returns the connection of a socket that does not block.
    pub(super) fn new(socket: std::net::TcpStream) -> AcceptedStream {
        AcceptedStream { socket: Some(socket), was_read: false, registered: None }
    }

    /// Returns the socket. Fails if the event loop could not take it.
    pub(super) fn socket(&self) -> io::Result<SockRef<'_>> {
        let socket = self.socket.as_ref().map(SockRef::from);
        socket.or_else(|| self.registered.as_ref().map(SockRef::from)).ok_or_else(not_connected)
    }

    /// Returns the stream that the event loop knows.
    pub(super) fn into_registered(mut self) -> io::Result<TcpStream> {
        self.register()?;
        self.registered.ok_or_else(not_connected)
    }

    fn register(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        if let Some(socket) = self.socket.take() {
            self.registered = Some(TcpStream::from_std(socket)?);
        }
        self.registered.as_mut().map(Pin::new).ok_or_else(not_connected)
    }
}

impl From<TcpStream> for AcceptedStream {
    fn from(stream: TcpStream) -> AcceptedStream {
        AcceptedStream { socket: None, was_read: true, registered: Some(stream) }
    }
}

impl AsyncRead for AcceptedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(mut socket) = self.socket.as_ref().filter(|_| !self.was_read) {
            let read = socket.read(buf.initialize_unfilled());
            if !would_block(&read) {
                self.was_read = true;
                return Poll::Ready(read.map(|length| buf.advance(length)));
            }
        }
        self.register()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for AcceptedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, bytes, SendFlags::NOSIGNAL)
    }

    /// Sockets have no buffer of their own.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket().and_then(|socket| socket.shutdown(Shutdown::Write)))
    }
}

impl AcceptedStream {
    /// Writes bytes that the end of the stream follows at once. They wait for it, so that both leave in one segment: two of them
    /// cost the kernel a fifth more for a connection with one request.
    pub(super) fn poll_write_last(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, bytes, SendFlags::NOSIGNAL | SendFlags::MORE)
    }

    /// The event loop is asked for room only if there is none: of a connection that it has just taken it does not know yet.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        flags: SendFlags,
    ) -> Poll<io::Result<usize>> {
        let sent = self.socket().and_then(|socket| Ok(send(&*socket, bytes, flags)?));
        if !would_block(&sent) {
            return Poll::Ready(sent);
        }
        let stream = self.register()?;
        loop {
            ready!(stream.poll_write_ready(cx))?;
            let sent = stream.try_io(Interest::WRITABLE, || Ok(send(&*stream, bytes, flags)?));
            if !would_block(&sent) {
                return Poll::Ready(sent);
            }
        }
    }
}

fn not_connected() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

fn would_block<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(err) if err.kind() == io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::io::Write;
    use std::net::{Ipv4Addr, TcpListener};
    use std::task::Waker;
    use std::thread;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn run<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        runtime.expect("a runtime").block_on(test)
    }

    /// Returns a connection whose client has sent this, and the client.
    fn accepted(sent: &[u8]) -> (AcceptedStream, std::net::TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = std::net::TcpStream::connect(address).unwrap();
        client.write_all(sent).unwrap();
        let (socket, _) = listener.accept().unwrap();
        if !sent.is_empty() {
            socket.peek(&mut [0]).unwrap(); // It has arrived.
        }
        socket.set_nonblocking(true).unwrap();
        (AcceptedStream::new(socket), client)
    }

    async fn read(stream: &mut AcceptedStream) -> Vec<u8> {
        let mut buf = [0; 64];
        let length = stream.read(&mut buf).await.unwrap();
        buf[..length].to_vec()
    }

    async fn write_last(stream: &mut AcceptedStream, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let written = poll_fn(|cx| stream.poll_write_last(cx, bytes)).await.unwrap();
            bytes = &bytes[written..];
        }
        stream.shutdown().await.unwrap();
    }

    #[test]
    fn a_connection_that_is_read_from_once_is_unknown_to_the_event_loop() {
        run(async {
            let (mut stream, mut client) = accepted(b"request");
            assert_eq!(read(&mut stream).await, b"request");
            stream.write_all(b"one, ").await.unwrap();
            write_last(&mut stream, b"two").await;
            assert!(stream.registered.is_none());
            drop(stream);
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "one, two");
        });
    }

    #[test]
    fn a_connection_that_is_waited_for_or_read_from_again_is_known_to_the_event_loop() {
        run(async {
            for sent in [&b""[..], b"first, "] {
                let (mut stream, mut client) = accepted(sent);
                if !sent.is_empty() {
                    assert_eq!(read(&mut stream).await, sent);
                }
                let poll = Pin::new(&mut stream).poll_read(
                    &mut Context::from_waker(Waker::noop()),
                    &mut ReadBuf::new(&mut [0]),
                );
                assert!(poll.is_pending() && stream.registered.is_some());
                let poll =
                    stream.poll_write_last(&mut Context::from_waker(Waker::noop()), b"at once");
                assert!(poll.is_ready());
                client.write_all(b"next").unwrap();
                assert_eq!(read(&mut stream).await, b"next");
            }
        });
    }

    #[test]
    fn an_answer_that_is_larger_than_the_buffer_of_the_socket_arrives_whole() {
        let answer: Vec<u8> = (0..16 * 1024 * 1024).map(|n: u32| n.to_le_bytes()[1]).collect();
        for is_known in [false, true] {
            let (mut stream, mut client) = accepted(b"request");
            let received = run(async {
                if is_known {
                    stream.register().unwrap();
                }
                assert_eq!(read(&mut stream).await, b"request");
                // Nothing is read until all buffers are full.
                let waiting = &mut Context::from_waker(Waker::noop());
                let mut written = 0;
                while let Poll::Ready(more) = stream.poll_write_last(waiting, &answer[written..]) {
                    written += more.unwrap();
                }
                assert!(0 < written && written < answer.len(), "{written}");
                let reading = thread::spawn(move || {
                    let mut received = Vec::new();
                    client.read_to_end(&mut received).unwrap();
                    received
                });
                write_last(&mut stream, &answer[written..]).await;
                reading
            });
            assert!(received.join().unwrap() == answer);
        }
    }

    #[test]
    fn last_bytes_leave_with_the_end_of_the_connection() {
        /// Returns whether nothing arrives before the end.
        async fn waits(is_known: bool) -> bool {
            let (mut stream, mut client) = accepted(b"");
            if is_known {
                stream.register().unwrap();
            }
            let written = poll_fn(|cx| stream.poll_write_last(cx, b"answer")).await;
            assert_eq!(written.unwrap(), 6);
            client.set_nonblocking(true).unwrap();
            let early = client.peek(&mut [0]);
            stream.shutdown().await.unwrap();
            client.set_nonblocking(false).unwrap();
            let mut received = String::new();
            client.read_to_string(&mut received).unwrap();
            assert_eq!(received, "answer");
            would_block(&early)
        }
        for is_known in [false, true] {
            // The kernel sends what has waited for 200 ms. On a busy machine that may be before it is looked for.
            let attempts = 1000;
            assert!((0..attempts).any(|_| run(waits(is_known))), "{is_known}");
        }
    }
}
