//! The bytes of a connection to `serve`, as a client or a proxy sends them. The server is the real one, in a thread.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::Scratch;
use crate::cli::Cli;
use crate::commands;
use crate::model::client_key::api_scope::ApiScope;
use crate::model::client_key::{KeyLine, digest, from_random};

/// The token that is handed out. No input has it.
const TOKEN: &str = "T0kenThatIsHandedOutAndStandsInNoInput";

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
        let document = format!(
            "{{\"appid\":\"wx1\",\"access_token\":\"{TOKEN}\",\"expires_in\":7200,\"created_at\":\"8999-01-01T00:00:00Z\"}}"
        );
        let file = scratch.write("default.json", document.as_bytes());
        // Random, so that no input has it.
        let mut random = [0; 32];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random)
            .expect("random bytes");
        let key = digest(from_random(&random).expose().as_bytes());
        let line =
            KeyLine::new("client", key, Vec::new(), ApiScope::All).expect("a key").to_string();
        let keys = scratch.write("keys", line.as_bytes());
        let config = scratch.write("config", b"");
        // Where no WeChat answers: the port was free a moment ago.
        let unused =
            TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
        let start = |name: &str, keys: Option<&Path>| {
            let socket = scratch.0.join(name);
            let mut words = [
                "wxtoken",
                "serve",
                "--quiet",
                "--gateway",
                "--appid",
                "wx1",
                "--trusted-proxy",
                "unix",
                "--allow",
                "10.0.0.0/8",
            ]
            .map(str::to_owned)
            .to_vec();
            words.extend(["--config".to_owned(), config.display().to_string()]);
            words.extend(["--base-url".to_owned(), format!("http://{unused}")]);
            words.extend(["--file".to_owned(), file.display().to_string()]);
            words.extend(["--listen".to_owned(), format!("unix:{}", socket.display())]);
            words.extend(
                keys.iter().flat_map(|keys| ["--keys".to_owned(), keys.display().to_string()]),
            );
            thread::spawn(move || {
                let cli = Cli::parse(words).unwrap_or_else(|err| panic!("{err}"));
                let end = commands::run(cli);
                panic!("the server has ended: {end:?}");
            });
            while UnixStream::connect(&socket).is_err() {
                thread::sleep(Duration::from_millis(10));
            }
            socket
        };
        Servers {
            with_keys: start("keys.sock", Some(&keys)),
            open: start("open.sock", None),
            _scratch: scratch,
        }
    }

    fn check(&self, data: &[u8]) {
        let answered = ask(&self.with_keys, data);
        assert!(!has(&answered, TOKEN), "a client without a key gets the token");
        assert_well_formed(&answered, data);
        let answered = ask(&self.open, data);
        assert_well_formed(&answered, data);
        if has(&answered, TOKEN) {
            assert!(asks_for_token(data), "a token for a request that asks for none");
        }
    }
}

pub fn check(data: &[u8]) {
    SERVERS.with(|servers| servers.check(data));
}

/// Returns all that the server sends until it closes the connection.
fn ask(socket: &Path, request: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).expect("a server");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time");
    // The server may close before it has read everything.
    let _ = stream.write_all(request);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answered = Vec::new();
    if let Err(err) = stream.read_to_end(&mut answered) {
        assert_eq!(err.kind(), std::io::ErrorKind::ConnectionReset, "{err}");
    }
    answered
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|it| it == text.as_bytes())
}

/// The first answer is one of HTTP's, and says its length.
fn assert_well_formed(answered: &[u8], request: &[u8]) {
    if answered.is_empty() {
        return;
    }
    let text = String::from_utf8_lossy(answered);
    let Some((head, _)) = text.split_once("\r\n\r\n") else {
        panic!("{text:?} has no end of its head")
    };
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let code: Option<u16> =
        status.strip_prefix("HTTP/1.").and_then(|it| it.get(2..5)).and_then(|it| it.parse().ok());
    let code = code.unwrap_or_else(|| panic!("{status:?} is no status"));
    assert!((100..600).contains(&code) && code != 500, "{status}");
    for line in lines {
        let Some((name, value)) = line.split_once(": ") else { panic!("{line:?} is no header") };
        assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{line:?}");
        assert!(!value.chars().any(char::is_control), "{line:?}");
    }
    let is_only = !has(&answered[1..], "HTTP/1.");
    let length = head.to_ascii_lowercase();
    let length = length
        .split("content-length: ")
        .nth(1)
        .and_then(|it| it.split("\r\n").next())
        .and_then(|it| it.parse::<usize>().ok());
    let body = answered
        .windows(4)
        .position(|it| it == b"\r\n\r\n")
        .map_or(0, |end| answered.len() - end - 4);
    if let (true, Some(length), false) =
        (is_only, length, request.windows(4).any(|it| it == b"HEAD"))
    {
        assert_eq!(body, length, "{text:?}");
    }
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
        match segments[..] {
            ["token"] | ["token", _] | ["cgi-bin", "token" | "stable_token" | "gettoken"] => true,
            ["gateway", _, "cgi-bin", "token" | "stable_token" | "gettoken"] => true,
            _ => false,
        }
    })
}
