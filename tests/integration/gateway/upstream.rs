//! The server of WeChat's API, as a test decides what it answers. Calls for tokens and probes go on to the mock.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use socket2::SockRef;

use crate::support::proxy::forward;
use crate::support::*;

/// How much of a body is kept.
const MAX_KEPT: usize = 2 * 1024 * 1024;

/// The calls that go on to the mock.
const OF_MOCK: [&str; 4] =
    ["/cgi-bin/token", "/cgi-bin/stable_token", "/cgi-bin/gettoken", "/cgi-bin/get_api_domain_ip"];

/// A call that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// The request line and the headers as they came, without the empty line.
    pub(crate) head: String,
    /// The beginning of the body.
    pub(crate) body: Vec<u8>,
    /// The length of the body.
    pub(crate) length: usize,
    /// The number of its connection.
    pub(crate) connection: usize,
}

impl Call {
    pub(crate) fn target(&self) -> &str {
        self.head.split(' ').nth(1).expect("a target")
    }

    pub(crate) fn path(&self) -> &str {
        self.target().split('?').next().unwrap()
    }

    /// Returns the token in the query; empty if there is none.
    pub(crate) fn token(&self) -> &str {
        let query = self.target().split_once('?').map_or("", |(_, query)| query);
        query.split('&').find_map(|pair| pair.strip_prefix("access_token=")).unwrap_or("")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// What a call gets.
pub(crate) enum Reply {
    /// 200 with this JSON.
    Json(String),
    /// These bytes, which are a whole response.
    Bytes(Vec<u8>),
    /// The same, and then the connection is closed.
    Closing(Vec<u8>),
    /// These bytes, and then the connection is reset.
    Broken(Vec<u8>),
    /// 200 with this many bytes.
    Large(usize),
    /// These pieces, each after the one before has been written.
    Pieces(Vec<Vec<u8>>),
    /// These bytes again and again, until the client closes the connection.
    Endless(Vec<u8>),
    /// Nothing. The connection stays open until the client closes it.
    Silence,
}

/// A running upstream.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
    /// How many connections the client has closed.
    closed: Arc<AtomicUsize>,
}

/// Tells whether the mock honours a token, without a probe that counts.
#[derive(Clone, Copy)]
pub(crate) struct Honours(SocketAddr);

impl Honours {
    pub(crate) fn token(self, token: &str) -> bool {
        let request = format!(
            "GET /cgi-bin/getcallbackip?access_token={token} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        );
        let answer = forward(&request, self.0).expect("the mock answers");
        String::from_utf8(answer).unwrap().contains("\"ip_list\":[\"")
    }
}

/// The JSON by which WeChat refuses a dead token.
pub(crate) const DEAD: &str =
    r#"{"errcode":40001,"errmsg":"invalid credential, access_token is invalid or not latest"}"#;

impl Upstream {
    /// Starts one before the mock, whose calls are answered by `answer`.
    pub(crate) fn new(
        wechat: &WeChat,
        answer: impl Fn(&Call) -> Reply + Send + Sync + 'static,
    ) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
        let closed: Arc<AtomicUsize> = Arc::default();
        let (mock, answer) = (wechat.address(), Arc::new(answer));
        let (known, closings) = (Arc::clone(&calls), Arc::clone(&closed));
        thread::spawn(move || {
            for (number, client) in listener.incoming().flatten().enumerate() {
                let (answer, calls) = (Arc::clone(&answer), Arc::clone(&known));
                let closed = Arc::clone(&closings);
                thread::spawn(move || {
                    let mut client = BufReader::new(client);
                    loop {
                        let Some(call) = read_call(&mut client, number) else {
                            closed.fetch_add(1, Ordering::SeqCst);
                            break;
                        };
                        let done = if OF_MOCK.contains(&call.path()) {
                            pass_to_mock(&call, mock, client.get_mut())
                        } else {
                            calls.lock().unwrap().push(call.clone());
                            reply(answer(&call), client.get_mut(), &closed)
                        };
                        if done.is_none() || call.header("connection") == Some("close") {
                            break;
                        }
                    }
                });
            }
        });
        Upstream { address, calls, closed }
    }

    /// Starts one that answers `{"errcode":0}` to a token that the mock honours, and 40001 to others.
    pub(crate) fn honest(wechat: &WeChat) -> Upstream {
        let honours = Honours(wechat.address());
        Upstream::new(wechat, move |call| {
            Reply::Json(match honours.token(call.token()) {
                true => r#"{"errcode":0,"errmsg":"ok"}"#.to_owned(),
                false => DEAD.to_owned(),
            })
        })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the calls so far, without those that went to the mock.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    pub(crate) fn closed(&self) -> usize {
        self.closed.load(Ordering::SeqCst)
    }
}

impl Honours {
    pub(crate) fn of(wechat: &WeChat) -> Honours {
        Honours(wechat.address())
    }
}

fn read_call(client: &mut BufReader<TcpStream>, connection: usize) -> Option<Call> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if client.read_until(b'\n', &mut head).ok()? == 0 {
            return None;
        }
    }
    head.truncate(head.len() - 4);
    let head = String::from_utf8(head).expect("a head in UTF-8");
    let mut call = Call { head, body: Vec::new(), length: 0, connection };
    let length: usize = call.header("content-length").map_or(0, |it| it.parse().unwrap());
    let mut buffer = [0; 64 * 1024];
    while call.length < length {
        let wanted = buffer.len().min(length - call.length);
        let read = client.read(&mut buffer[..wanted]).ok().filter(|read| *read > 0)?;
        call.length += read;
        if call.body.len() < MAX_KEPT {
            call.body.extend_from_slice(&buffer[..read]);
        }
    }
    Some(call)
}

fn pass_to_mock(call: &Call, mock: SocketAddr, client: &mut TcpStream) -> Option<()> {
    let body = String::from_utf8(call.body.clone()).unwrap();
    let answer = forward(&format!("{}\r\n\r\n{body}", call.head), mock)?;
    // The mock closes its connection.
    client.write_all(&answer).ok()?;
    None
}

fn reply(reply: Reply, client: &mut TcpStream, closed: &AtomicUsize) -> Option<()> {
    match reply {
        Reply::Json(json) => {
            // The type is never what tells an error.
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
                json.len()
            );
            client.write_all(&[head.as_bytes(), json.as_bytes()].concat()).ok()
        }
        Reply::Bytes(bytes) => client.write_all(&bytes).ok(),
        Reply::Closing(bytes) => {
            client.write_all(&bytes).ok()?;
            client.shutdown(std::net::Shutdown::Write).ok()?;
            let _ = client.read(&mut [0]);
            closed.fetch_add(1, Ordering::SeqCst);
            None
        }
        Reply::Broken(bytes) => {
            client.write_all(&bytes).ok()?;
            client.flush().ok()?;
            // So that the bytes arrive before the reset.
            thread::sleep(std::time::Duration::from_millis(50));
            SockRef::from(&*client).set_linger(Some(std::time::Duration::ZERO)).ok()?;
            None
        }
        Reply::Large(size) => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n");
            client.write_all(head.as_bytes()).ok()?;
            let piece = [b'x'; 64 * 1024];
            let mut left = size;
            while left > 0 {
                let now = left.min(piece.len());
                client.write_all(&piece[..now]).ok()?;
                left -= now;
            }
            Some(())
        }
        Reply::Pieces(pieces) => {
            for piece in pieces {
                client.write_all(&piece).ok()?;
            }
            Some(())
        }
        Reply::Endless(bytes) => {
            while client.write_all(&bytes).is_ok() {}
            closed.fetch_add(1, Ordering::SeqCst);
            None
        }
        Reply::Silence => {
            let _ = client.read(&mut [0]);
            closed.fetch_add(1, Ordering::SeqCst);
            None
        }
    }
}
