//! HTTP as clients of the server speak it, byte by byte where a test needs it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::PATIENCE;

/// Returns a request `POST path` that asks the server to close the connection.
pub(crate) fn post_request(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// Returns the body that reports this token as rejected.
pub(crate) fn rejected(token: &str) -> String {
    serde_json::json!({ "rejected": token }).to_string()
}

/// A response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    /// Parses a response. The status is 0 if there is none.
    pub(crate) fn parse(bytes: &[u8]) -> Response {
        let text = String::from_utf8_lossy(bytes);
        super::command::assert_is_resolved(&text);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Response { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|err| panic!("{err}: {self:?}"))
    }
}

/// Connects to `address`. Reads and writes fail after [`PATIENCE`].
#[track_caller]
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Connects to `address` from `source`, an address of this machine.
#[track_caller]
pub(crate) fn connect_from(source: &str, address: SocketAddr) -> TcpStream {
    let source: IpAddr = source.parse().unwrap();
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(source, 0).into()).expect("an address of this machine");
    socket.connect(&address.into()).expect("a connection");
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket.into()
}

/// Returns an address of this machine that is not a loopback one, for tests that need `network`. Sends nothing to find it.
pub(crate) fn outward_address() -> String {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").unwrap();
    let ip = socket.local_addr().unwrap().ip();
    assert!(!ip.is_loopback() && !ip.is_unspecified());
    ip.to_string()
}

/// Connects to the `unix:PATH` of a "listening on" line.
#[track_caller]
pub(crate) fn connect_unix(listening: &str) -> UnixStream {
    let path = listening.strip_prefix("unix:").expect("it listens on a unix socket");
    let stream = UnixStream::connect(path).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends `request` over a new connection and reads until the server closes it.
#[track_caller]
pub(crate) fn exchange(address: SocketAddr, request: &[u8]) -> Response {
    exchange_over(connect(address), request)
}

/// Sends `request` over `stream` and reads until the server closes it.
pub(crate) fn exchange_over(mut stream: impl Read + Write, request: &[u8]) -> Response {
    let _ = stream.write_all(request); // A server that refuses it may not read all of it.
    let mut answer = Vec::new();
    // It may also reset the connection.
    if let Err(err) = stream.read_to_end(&mut answer)
        && err.kind() == std::io::ErrorKind::WouldBlock
    {
        panic!("no answer in time, after {}", String::from_utf8_lossy(&answer));
    }
    Response::parse(&answer)
}

/// A kept connection. Responses are read one by one, by their content-length.
pub(crate) struct Caller<S> {
    stream: BufReader<S>,
}

impl<S: Read + Write> Caller<S> {
    pub(crate) fn new(stream: S) -> Caller<S> {
        Caller { stream: BufReader::new(stream) }
    }

    /// Returns the stream below.
    pub(crate) fn stream(&self) -> &S {
        self.stream.get_ref()
    }

    /// Writes `text`, which need not be a whole request.
    #[track_caller]
    pub(crate) fn send(&mut self, text: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(text.as_ref()).expect("the server reads");
    }

    /// Does the same, unless the server has closed the connection.
    pub(crate) fn try_send(&mut self, text: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.get_mut().write_all(text.as_ref())
    }

    /// Sends `GET path` and keeps the connection.
    #[track_caller]
    pub(crate) fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        self.answer()
    }

    /// Reads the next response.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Response {
        let mut answer = self.answer_to_head();
        let length: usize = answer.header("content-length").expect("a length").parse().unwrap();
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).expect("all of the body");
        answer.body = String::from_utf8(body).unwrap();
        answer
    }

    /// Reads the next response without a body, as to a HEAD request.
    #[track_caller]
    pub(crate) fn answer_to_head(&mut self) -> Response {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let read = self.stream.read_until(b'\n', &mut head).expect("an answer");
            assert!(read > 0, "closed: {:?}", String::from_utf8_lossy(&head));
        }
        Response::parse(&head)
    }

    /// Reads the next line, with its end.
    #[track_caller]
    pub(crate) fn read_line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("a line");
        line
    }

    /// Reads until the connection ends, closed or reset.
    pub(crate) fn read_all(&mut self, all: &mut Vec<u8>) {
        let _ = self.stream.read_to_end(all);
    }

    /// Waits until the server closes the connection. Returns false if it sent anything before, or reset it.
    #[track_caller]
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).is_ok() && rest.is_empty()
    }
}
