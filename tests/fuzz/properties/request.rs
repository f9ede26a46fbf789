//! The bytes of a connection to `serve`, as a client or a proxy sends them. The server is the real one, in a thread.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use hyper::header::HeaderName;
use ring::rand::{SecureRandom, SystemRandom};

use super::Scratch;
use crate::cli::Cli;
use crate::commands;
use crate::model::client_key::api_scope::ApiScope;
use crate::model::client_key::{KeyLine, digest, from_random};

/// The token that is handed out. No input has it.
pub(super) const TOKEN: &str = "T0kenThatIsHandedOutAndStandsInNoInput";

/// How long a server may take that has nothing to wait for. It bounds nothing but a server that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is served: with keys, and without.
struct Servers {
    with_keys: PathBuf,
    open: PathBuf,
    _scratch: Scratch,
}

thread_local! {
    static SERVERS: Servers = Servers::start();
}

impl Servers {
    fn start() -> Servers {
        let scratch = Scratch::new();
        let document = document(&scratch).display().to_string();
        // Random, so that no input has it.
        let mut random = [0; 32];
        SystemRandom::new().fill(&mut random).expect("random bytes");
        let key = digest(from_random(&random).expose().as_bytes());
        let line = KeyLine::new("client", key, Vec::new(), ApiScope::All).expect("a key");
        let keys = scratch.write("keys", line.to_string().as_bytes()).display().to_string();
        let config = scratch.write("config", b"").display().to_string();
        // Where no WeChat answers: the port was free a moment ago.
        let unused = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
        let unused = format!("http://{}", unused.expect("a port"));
        let flags = ["--gateway", "--trusted-proxy", "unix", "--allow", "10.0.0.0/8"];
        let flags =
            [&flags[..], &["--base-url", &unused, "--config", &config, "--file", &document]];
        let flags = flags.concat();
        let (with_keys, open) = (scratch.path("keys.sock"), scratch.path("open.sock"));
        start_server(&with_keys, &[&flags[..], &["--keys", &keys]].concat());
        start_server(&open, &flags);
        Servers { with_keys, open, _scratch: scratch }
    }

    fn check(&self, data: &[u8]) {
        // libFuzzer sees what is compared, and puts it into inputs.
        if has(data, TOKEN) {
            return;
        }
        let answered = ask(&self.with_keys, data);
        assert!(!has(&answered, TOKEN), "a client without a key gets the token");
        assert_answered(&answered, data);
        let answered = ask(&self.open, data);
        assert_answered(&answered, data);
        if has(&answered, TOKEN) {
            assert!(asks_for_token(data), "a token for a request that asks for none");
        }
    }
}

pub fn check(data: &[u8]) {
    SERVERS.with(|servers| servers.check(data));
}

/// No request is an internal error, and an answer is as long as it says.
fn assert_answered(answered: &[u8], request: &[u8]) {
    if answered.is_empty() {
        return;
    }
    assert!(!answered.starts_with(b"HTTP/1.1 500"), "{}", String::from_utf8_lossy(answered));
    let lengths = assert_well_formed(answered);
    if let (Some((said, sent)), false) = (lengths, has(request, "HEAD")) {
        assert_eq!(said, sent, "{}", String::from_utf8_lossy(answered));
    }
}

/// Publishes [`TOKEN`], and returns the path of the document.
pub(super) fn document(scratch: &Scratch) -> PathBuf {
    let document = format!(
        r#"{{"appid":"wx1","access_token":"{TOKEN}","expires_in":7200,"created_at":"8999-01-01T00:00:00Z"}}"#
    );
    scratch.write("default.json", document.as_bytes())
}

/// Runs `serve` with these flags in a thread. Returns once it accepts connections on this socket.
pub(super) fn start_server(socket: &Path, flags: &[&str]) {
    let listen = format!("unix:{}", socket.display());
    let words = ["wxtoken", "serve", "--quiet", "--appid", "wx1", "--listen", &listen];
    let words: Vec<_> = words.iter().chain(flags).map(|word| (*word).to_owned()).collect();
    thread::spawn(move || {
        let cli = Cli::parse(words).unwrap_or_else(|err| panic!("{err}"));
        let end = commands::run(cli);
        panic!("the server has ended: {end:?}");
    });
    while UnixStream::connect(socket).is_err() {
        thread::sleep(Duration::from_millis(10));
    }
}

/// Sends bytes and ends the stream. Returns all that the server sends.
fn ask(socket: &Path, request: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).expect("a server");
    // The server may close before it has read everything.
    let _ = stream.write_all(request);
    let _ = stream.shutdown(Shutdown::Write);
    read_all(stream)
}

/// Returns all that the server sends until it closes the connection.
pub(super) fn read_all(mut stream: UnixStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    let mut answered = Vec::new();
    if let Err(err) = stream.read_to_end(&mut answered) {
        assert_eq!(err.kind(), std::io::ErrorKind::ConnectionReset, "{err}");
    }
    answered
}

pub(super) fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|it| it == text.as_bytes())
}

/// The first answer is one of HTTP's, with this many bytes in its body if it says a length and comes alone. Returns the two.
pub(super) fn assert_well_formed(answered: &[u8]) -> Option<(usize, usize)> {
    let end = answered.windows(4).position(|it| it == b"\r\n\r\n").expect("the end of a head");
    let (head, body) = (String::from_utf8_lossy(&answered[..end]), &answered[end + 4..]);
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let code = status.strip_prefix("HTTP/1.").and_then(|it| it.get(2..5)?.parse::<u16>().ok());
    assert!(code.is_some_and(|code| code >= 100), "{status:?} is no status");
    let mut length = None;
    for line in lines {
        let Some((name, value)) = line.split_once(": ") else { panic!("{line:?} is no header") };
        assert!(HeaderName::from_bytes(name.as_bytes()).is_ok(), "{line:?}");
        assert!(!value.contains(|c: char| c.is_ascii_control() && c != '\t'), "{line:?}");
        if name.eq_ignore_ascii_case("content-length") {
            assert!(length.is_none(), "two lengths: {head}");
            length = Some(value.parse().unwrap_or_else(|_| panic!("{line:?} is no length")));
        }
    }
    let is_empty = code.is_some_and(|code| code < 200 || matches!(code, 204 | 304));
    length.filter(|_| !is_empty && !has(body, "HTTP/1.")).map(|length| (length, body.len()))
}

/// Whether a line is a request for one of the routes that hand out tokens, by another reader.
fn asks_for_token(request: &[u8]) -> bool {
    let lines = request.split(|byte| *byte == b'\n' || *byte == b'\r');
    lines.filter_map(|line| std::str::from_utf8(line).ok()).any(|line| {
        let mut words = line.split(' ').filter(|it| !it.is_empty());
        let (Some(_), Some(target)) = (words.next(), words.next()) else { return false };
        let path = target.split(['?', '#']).next().unwrap_or_default();
        let path = path
            .split_once("://")
            .map_or(path, |(_, rest)| rest.find('/').map_or("/", |at| &rest[at..]));
        let segments: Vec<_> = path.split('/').filter(|it| !it.is_empty()).collect();
        matches!(
            segments[..],
            ["token"]
                | ["token", _]
                | ["cgi-bin", "token" | "stable_token" | "gettoken"]
                | ["gateway", _, "cgi-bin", "token" | "stable_token" | "gettoken"]
        )
    })
}
