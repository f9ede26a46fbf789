//! The vocabulary of the tests: a sandbox with an account in it, WeChat's stand-in, a server, and what a run left
//! behind. Everything is the real binary on real sockets; nothing sleeps to be lucky.

pub(crate) mod home;
pub(crate) mod redis;
pub(crate) mod tls;

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub(crate) use needs::needs;
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

pub(crate) const APPID: &str = "wx0123456789abcdef";
pub(crate) const SECRET: &str = "5ec2e75ec2e75ec2e75ec2e75ec2e75e";

/// No step of a test takes longer than this, unless something hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The binary under test, with nothing of the caller's environment that could reach it.
pub(crate) fn wxtoken() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wxtoken"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let proxy = name.to_lowercase().ends_with("_proxy");
        let systemd = [
            "STATE_DIRECTORY",
            "CREDENTIALS_DIRECTORY",
            "XDG_STATE_HOME",
            "NO_COLOR",
            "NOTIFY_SOCKET",
            "WATCHDOG_USEC",
            "WATCHDOG_PID",
            "LISTEN_FDS",
            "LISTEN_PID",
            "LISTEN_FDNAMES",
        ]
        .contains(&&*name);
        if name.starts_with("WXTOKEN_") || proxy || systemd {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Returns `command` as the last words of another program's, with its environment.
pub(crate) fn wrapped<S: AsRef<OsStr>>(wrapper: &[S], command: &Command) -> Command {
    let mut wrapped = with_environment_of(command, &wrapper[0]);
    wrapped.args(&wrapper[1..]).arg(command.get_program()).args(command.get_args());
    wrapped
}

/// Returns `command` with a terminal as its stdout and stderr. What it prints there comes out of the result's stdout.
pub(crate) fn on_terminal(command: &Command) -> Command {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    let mut script = with_environment_of(command, "script");
    script.args(["-qec", &words.join(" "), "/dev/null"]);
    script
}

fn with_environment_of(command: &Command, program: impl AsRef<OsStr>) -> Command {
    let mut other = Command::new(program);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => other.env(name, value),
            None => other.env_remove(name),
        };
    }
    other.stdin(Stdio::null());
    other
}

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(mut command: Command) -> Ran {
        let output = command.output().expect("wxtoken starts");
        Ran {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Asserts the exit status; shows everything when it is another.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Ran {
        assert_eq!(
            self.status.code(),
            Some(code),
            "\n--- stdout\n{}\n--- stderr\n{}\n---",
            self.stdout,
            self.stderr
        );
        self
    }

    /// Asserts that nothing was said.
    #[track_caller]
    pub(crate) fn silent(self) -> Ran {
        assert_eq!((self.stdout.as_str(), self.stderr.as_str()), ("", ""));
        self
    }

    /// Asserts that stderr is one line with all of this in it, and stdout is empty.
    #[track_caller]
    pub(crate) fn says(self, parts: &[&str]) -> Ran {
        assert_eq!(self.stdout, "", "stdout of a failure is empty");
        assert_eq!(self.stderr.lines().count(), 1, "one line per failure:\n{}", self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in:\n{}", self.stderr);
        }
        self
    }

    /// Asserts that all of this is on stderr, on as many lines as it takes.
    #[track_caller]
    pub(crate) fn says_something(self, parts: &[&str]) -> Ran {
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in:\n{}", self.stderr);
        }
        self
    }

    /// stdout as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|err| panic!("{err}: {}", self.stdout))
    }
}

/// A directory with an account's secret in it, and the flags that go with it.
pub(crate) struct Sandbox {
    dir: TempDir,
    base_url: String,
    api: &'static str,
}

impl Sandbox {
    /// A sandbox whose account asks `wechat`.
    pub(crate) fn against(wechat: &WeChat) -> Sandbox {
        Sandbox::asking(&wechat.url())
    }

    /// A sandbox whose account asks at `base_url`.
    pub(crate) fn asking(base_url: &str) -> Sandbox {
        let dir = tempfile::tempdir().unwrap();
        let sandbox = Sandbox { dir, base_url: base_url.to_owned(), api: "stable" };
        write_with_mode(&sandbox.path("secret"), &format!("{SECRET}\n"), 0o600);
        sandbox
    }

    /// The same account on this API: `stable`, `classic` or `work`.
    pub(crate) fn on(self, api: &'static str) -> Sandbox {
        Sandbox { api, ..self }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where the account's document is published.
    pub(crate) fn document_path(&self) -> PathBuf {
        self.path("state/default.json")
    }

    /// The published document's bytes.
    pub(crate) fn document_bytes(&self) -> Vec<u8> {
        fs::read(self.document_path()).expect("a document is published")
    }

    /// The published document.
    pub(crate) fn document(&self) -> Value {
        serde_json::from_slice(&self.document_bytes()).expect("the document is JSON")
    }

    /// The published token.
    pub(crate) fn token(&self) -> String {
        self.document()["access_token"].as_str().expect("the document has a token").to_owned()
    }

    /// How many seconds the published document gives its token from now on.
    pub(crate) fn left(&self) -> f64 {
        let document = self.document();
        let rfc3339 = &time::format_description::well_known::Rfc3339;
        let created_at = document["created_at"].as_str().expect("a time");
        let created_at = time::UtcDateTime::parse(created_at, rfc3339).expect("a time");
        let life = document["expires_in"].as_f64().expect("a life");
        (created_at - time::UtcDateTime::now()).as_seconds_f64() + life
    }

    /// Publishes a document as `fetch` would have, asked for `age` seconds ago.
    pub(crate) fn publish(&self, token: &str, expires_in: i64, age: i64) {
        let document = serde_json::json!({
            "appid": APPID, "access_token": token, "expires_in": expires_in, "created_at": time_ago(age),
        });
        fs::create_dir_all(self.path("state")).unwrap();
        let new = self.path("state/new");
        write_with_mode(&new, &document.to_string(), 0o600);
        fs::rename(new, self.document_path()).unwrap();
    }

    /// Publishes the account's ticket of this type, asked for `age` seconds ago.
    pub(crate) fn publish_ticket(&self, kind: &str, ticket: &str, expires_in: i64, age: i64) {
        let document = serde_json::json!({
            "appid": APPID, "ticket": ticket, "expires_in": expires_in, "created_at": time_ago(age),
        });
        fs::create_dir_all(self.path("state")).unwrap();
        let path = self.path(&format!("state/default.{kind}.json"));
        write_with_mode(&path, &document.to_string(), 0o600);
    }

    /// `wxtoken ARGS…` here, not yet run: with the account's flags where the verb takes them.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = wxtoken();
        command.args(args).arg("--dir").arg(self.path("state")).env("HOME", self.dir.path());
        command.args(["--appid", APPID, "--api", self.api]);
        if args[0].as_ref() == "fetch" {
            command
                .arg("--secret-file")
                .arg(self.path("secret"))
                .args(["--base-url", &self.base_url]);
        }
        command
    }

    /// Runs `wxtoken ARGS…` here.
    #[track_caller]
    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Ran {
        Ran::of(self.command(args))
    }

    /// Names in the directory of documents, sorted.
    pub(crate) fn published_names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path("state")) else { return Vec::new() };
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Runs `wxtoken serve ARGS…` here, which must not start. Its address is taken, so that it ends in any case.
    #[track_caller]
    pub(crate) fn serve_refused(&self, args: &[&str]) -> Ran {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        self.run(&[&["serve", "--listen", &address], args].concat()).exits(2)
    }

    /// `wxtoken serve ARGS…` here, listening on a free loopback port unless ARGS say otherwise.
    pub(crate) fn serve(&self, args: &[&str]) -> Server {
        let mut command = self.command(&["serve"]);
        command.args(args);
        if !args.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        Server::start(command, args.iter().filter(|arg| **arg == "--listen").count().max(1))
    }

    /// `wxtoken serve --refresh ARGS…` here: one that asks WeChat itself.
    pub(crate) fn serve_refreshing(&self, args: &[&str]) -> Server {
        let secret = self.path("secret");
        let account = ["--secret-file", secret.to_str().unwrap(), "--base-url", &self.base_url];
        self.serve(&[&["--refresh"], &account[..], args].concat())
    }
}

/// So many seconds ago, as documents write it.
fn time_ago(secs: i64) -> String {
    let at = time::UtcDateTime::now() - time::Duration::seconds(secs);
    at.format(&time::format_description::well_known::Rfc3339).unwrap()
}

pub(crate) fn write_with_mode(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Writes a program and moves it into place. Another process writes it: a child that this one starts elsewhere at that
/// moment would inherit the descriptor, and what is open for writing cannot be executed ("Text file busy").
#[track_caller]
pub(crate) fn write_program(path: &Path, text: &str) {
    let script = r#"cat >"$0.new" && chmod 755 "$0.new" && mv "$0.new" "$0""#;
    let mut writer = Command::new("sh");
    let mut writer = writer.args(["-c", script]).arg(path).stdin(Stdio::piped()).spawn().unwrap();
    writer.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
}

/// A wxtoken that listens; ends with the test.
pub(crate) struct Server {
    child: Child,
    /// What it said on its "listening on" lines, in their order.
    pub(crate) addresses: Vec<String>,
    stdout: BufReader<ChildStdout>,
    stderr: Option<std::thread::JoinHandle<String>>,
}

impl Server {
    /// Starts it, and waits for this many "listening on" lines.
    #[track_caller]
    pub(crate) fn start(mut command: Command, listeners: usize) -> Server {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("wxtoken starts");
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = child.stderr.take().unwrap();
        // Read all along, so that a talkative server never waits for us.
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        let mut addresses = Vec::new();
        for _ in 0..listeners {
            let mut line = String::new();
            said.read_line(&mut line).unwrap();
            let Some(address) = line.trim_end().strip_prefix("listening on ") else {
                let _ = child.kill();
                panic!("not listening: {line:?} {}", stderr.join().unwrap());
            };
            addresses.push(address.to_owned());
        }
        Server { child, addresses, stdout: said, stderr: Some(stderr) }
    }

    /// Starts one whose stderr goes to the file `log`, to be read while it runs.
    #[track_caller]
    pub(crate) fn start_with_log(command: &Command, log: &Path) -> Server {
        let script = format!(r#"exec "$0" "$@" 2>'{}'"#, log.display());
        Server::start(wrapped(&["sh", "-c", &script], command), 1)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its (first) TCP address.
    pub(crate) fn address(&self) -> SocketAddr {
        let url = &self.addresses[0];
        let address = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        address.expect("it listens on TCP").parse().unwrap()
    }

    /// GETs `path`.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Response {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
    }

    /// Sends these bytes, and reads all that comes until the connection is closed.
    #[track_caller]
    pub(crate) fn send(&self, request: &str) -> Response {
        exchange(self.address(), request.as_bytes())
    }

    /// POSTs `body` to `path`.
    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &str) -> Response {
        self.send(&posting(path, body))
    }

    /// Says that WeChat rejected this token.
    #[track_caller]
    pub(crate) fn tell_rejected(&self, token: &str) -> Response {
        self.post("/token", &rejected(token))
    }

    /// A connection to it that is kept.
    #[track_caller]
    pub(crate) fn caller(&self) -> Caller<TcpStream> {
        Caller::over(connect(self.address()))
    }

    /// What of its memory is in RAM.
    #[track_caller]
    pub(crate) fn memory(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    /// How many descriptors it has open.
    #[track_caller]
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs").count()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits for its end; the status and what it said on stderr.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        (status, self.stderr.take().unwrap().join().unwrap())
    }

    /// Ends it by SIGTERM; what it said on stderr.
    #[track_caller]
    pub(crate) fn stop(self) -> String {
        self.stop_and_tell().1
    }

    /// Ends it by SIGTERM; what it said on stdout after its addresses, and on stderr.
    #[track_caller]
    pub(crate) fn stop_and_tell(mut self) -> (String, String) {
        self.signal("TERM");
        let mut stdout = String::new();
        self.stdout.read_to_string(&mut stdout).unwrap();
        let (status, stderr) = self.end();
        assert_eq!(status.code(), Some(0), "SIGTERM is a clean end:\n{stderr}");
        (stdout, stderr)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request that POSTs `body` to `path`, and ends the connection.
pub(crate) fn posting(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// The body that says that this token was rejected.
pub(crate) fn rejected(token: &str) -> String {
    serde_json::json!({ "rejected": token }).to_string()
}

/// WeChat's stand-in: `wxtoken mock`, with the sandbox's account.
pub(crate) struct WeChat {
    server: Server,
}

impl WeChat {
    pub(crate) fn start() -> WeChat {
        WeChat::with(&[])
    }

    pub(crate) fn with(args: &[&str]) -> WeChat {
        let mut command = wxtoken();
        command
            .args(["mock", "--listen", "127.0.0.1:0", "--account", &format!("{APPID}:{SECRET}")])
            .args(args);
        WeChat { server: Server::start(command, 1) }
    }

    pub(crate) fn url(&self) -> String {
        self.server.addresses[0].clone()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Answers so from now on; `none` for by the rules again.
    #[track_caller]
    pub(crate) fn fault(&self, fault: &str) {
        let response = self.server.post("/mock/fault", fault);
        assert!(
            (200..300).contains(&response.status),
            "{fault}: {} {}",
            response.status,
            response.body
        );
    }

    /// Every fault that it knows, with an example of its number.
    pub(crate) fn faults(&self) -> Vec<String> {
        let listed = self.server.get("/mock/faults").json();
        let entries = listed.as_array().expect("a list").iter();
        entries.map(|entry| entry["example"].as_str().expect("an example").to_owned()).collect()
    }

    /// A stranger kills every live token.
    #[track_caller]
    pub(crate) fn kill_tokens(&self) {
        assert!((200..300).contains(&self.server.post("/mock/kill", "").status));
    }

    /// How often it was asked so far, by route.
    pub(crate) fn calls(&self) -> Value {
        self.server.get("/mock/calls").json()
    }

    /// How often it was asked for a token, on any API.
    pub(crate) fn asked(&self) -> u64 {
        let calls = self.calls();
        ["token", "stable_token", "gettoken"].map(|api| calls[api].as_u64().unwrap()).iter().sum()
    }

    /// How often it was asked whether a token is alive.
    pub(crate) fn probes(&self) -> u64 {
        self.calls()["get_api_domain_ip"].as_u64().unwrap()
    }

    /// How many tokens it made.
    pub(crate) fn mints(&self) -> u64 {
        self.calls()["mints"].as_u64().unwrap()
    }

    /// Whether it takes this token.
    pub(crate) fn is_alive(&self, token: &str) -> bool {
        let path = format!("/cgi-bin/get_api_domain_ip?access_token={token}");
        self.server.get(&path).json()["ip_list"][0].is_string()
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Response {
    /// Reads an answer's bytes; status 0 where there is none.
    pub(crate) fn parse(bytes: &[u8]) -> Response {
        let text = String::from_utf8_lossy(bytes);
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

/// Connects to `address`, with patience but without end.
#[track_caller]
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Connects to `address` from `source`, an address of this machine: friend and stranger on one host.
#[track_caller]
pub(crate) fn connect_from(source: &str, address: SocketAddr) -> TcpStream {
    let source: IpAddr = source.parse().unwrap();
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(source, 0).into()).expect("an address of this machine");
    socket.connect(&address.into()).expect("somebody listens");
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket.into()
}

/// Connects to a `unix:PATH` that a server said it listens on.
#[track_caller]
pub(crate) fn connect_unix(listening: &str) -> UnixStream {
    let path = listening.strip_prefix("unix:").expect("it listens on a unix socket");
    let stream = UnixStream::connect(path).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends these bytes, and reads all that comes until the connection is closed.
#[track_caller]
pub(crate) fn exchange(address: SocketAddr, request: &[u8]) -> Response {
    exchange_over(connect(address), request)
}

/// The same over a connection that is there.
pub(crate) fn exchange_over(mut stream: impl Read + Write, request: &[u8]) -> Response {
    let _ = stream.write_all(request); // Who refuses may not read it all.
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer); // Nor end politely.
    Response::parse(&answer)
}

/// One end of a connection that is kept: answers are read one by one, as long as they say they are.
pub(crate) struct Caller<S> {
    stream: BufReader<S>,
}

impl<S: Read + Write> Caller<S> {
    pub(crate) fn over(stream: S) -> Caller<S> {
        Caller { stream: BufReader::new(stream) }
    }

    /// What it speaks over.
    pub(crate) fn stream(&self) -> &S {
        self.stream.get_ref()
    }

    #[track_caller]
    pub(crate) fn say(&mut self, text: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(text.as_ref()).expect("the other side reads");
    }

    /// GETs `path`, and keeps the connection.
    #[track_caller]
    pub(crate) fn get(&mut self, path: &str) -> Response {
        self.say(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        self.answer()
    }

    /// The next answer, whose body is as long as it says.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Response {
        let mut answer = self.answer_to_head();
        let length: usize = answer.header("content-length").expect("a length").parse().unwrap();
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).expect("all of the body");
        answer.body = String::from_utf8(body).unwrap();
        answer
    }

    /// The next answer, without a body: that to a HEAD.
    #[track_caller]
    pub(crate) fn answer_to_head(&mut self) -> Response {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let read = self.stream.read_until(b'\n', &mut head).expect("an answer");
            assert!(read > 0, "closed: {:?}", String::from_utf8_lossy(&head));
        }
        Response::parse(&head)
    }

    /// Reads all that comes until the connection ends, however it ends.
    pub(crate) fn read_all(&mut self, all: &mut Vec<u8>) {
        let _ = self.stream.read_to_end(all);
    }

    /// Waits for the other side to close; whether it did so politely and said nothing more.
    #[track_caller]
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).is_ok() && rest.is_empty()
    }
}

/// Waits until it is so, with patience but without end.
#[track_caller]
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
