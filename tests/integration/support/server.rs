//! A server under test.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use super::{Caller, Response, connect, exchange, post_request, rejected, wrapped};

/// A wxtoken that listens. It is killed when this is dropped.
pub(crate) struct Server {
    child: Child,
    /// The addresses of its "listening on" lines, in their order.
    pub(crate) addresses: Vec<String>,
    stdout: BufReader<ChildStdout>,
    stderr: Option<std::thread::JoinHandle<String>>,
}

impl Server {
    /// Starts it and waits for this many "listening on" lines.
    #[track_caller]
    pub(crate) fn start(command: Command, listeners: usize) -> Server {
        Server::start_with_stderr(command, listeners, Stdio::piped())
    }

    /// Does the same with this stderr. If it is a pipe of its own, that is read all the time.
    #[track_caller]
    pub(crate) fn start_with_stderr(
        mut command: Command,
        listeners: usize,
        stderr: impl Into<Stdio>,
    ) -> Server {
        let mut child =
            command.stdout(Stdio::piped()).stderr(stderr).spawn().expect("wxtoken starts");
        drop(command); // With its copy of stderr.
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = child.stderr.take();
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.map(|mut stderr| stderr.read_to_string(&mut text));
            text
        });
        let mut addresses = Vec::new();
        for _ in 0..listeners {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            let Some(address) = line.trim_end().strip_prefix("listening on ") else {
                let _ = child.kill();
                panic!("not listening: {line:?} {}", stderr.join().unwrap());
            };
            addresses.push(address.to_owned());
        }
        Server { child, addresses, stdout, stderr: Some(stderr) }
    }

    /// Starts it with its stderr in the file `log`, which can be read while it runs.
    #[track_caller]
    pub(crate) fn start_with_log(command: &Command, log: &Path) -> Server {
        let script = format!(r#"exec "$0" "$@" 2>'{}'"#, log.display());
        Server::start(wrapped(&["sh", "-c", &script], command), 1)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns its first address, which has to be TCP.
    pub(crate) fn address(&self) -> SocketAddr {
        let url = &self.addresses[0];
        let address = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        address.expect("it listens on TCP").parse().unwrap()
    }

    /// Sends `GET path`.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Response {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
    }

    /// Sends `request` over a new connection and reads until the server closes it.
    #[track_caller]
    pub(crate) fn send(&self, request: &str) -> Response {
        exchange(self.address(), request.as_bytes())
    }

    /// Sends `POST path` with this body.
    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &str) -> Response {
        self.send(&post_request(path, body))
    }

    /// Reports that WeChat rejected this token.
    #[track_caller]
    pub(crate) fn report_rejected(&self, token: &str) -> Response {
        self.post("/token", &rejected(token))
    }

    /// Opens a connection that is kept.
    #[track_caller]
    pub(crate) fn caller(&self) -> Caller<TcpStream> {
        Caller::new(connect(self.address()))
    }

    /// Returns its resident memory in bytes.
    #[track_caller]
    pub(crate) fn memory(&self) -> usize {
        self.memory_of("VmRSS:")
    }

    /// Returns the most bytes of memory that it has had.
    #[track_caller]
    pub(crate) fn peak_memory(&self) -> usize {
        self.memory_of("VmHWM:")
    }

    fn memory_of(&self, name: &str) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    /// Returns how many descriptors it has open. It is not dumpable, so only root can see them; for others, returns how many
    /// TCP connections it has.
    #[track_caller]
    pub(crate) fn descriptors(&self) -> usize {
        match fs::read_dir(format!("/proc/{}/fd", self.pid())) {
            Ok(descriptors) => descriptors.count(),
            Err(err) if err.kind() == ErrorKind::PermissionDenied => self.connections(),
            Err(err) => panic!("{err}: does it run?"),
        }
    }

    /// Returns how many sockets with its port have a descriptor, its listener included.
    fn connections(&self) -> usize {
        let tables = ["tcp", "tcp6"].map(|it| fs::read_to_string(format!("/proc/net/{it}")));
        let port = format!(":{:04X}", self.address().port());
        // Columns of proc_pid_net(5): sl, local_address, …, inode, which is 0 after the last close.
        let is_open = |line: &&str| {
            let columns: Vec<_> = line.split_whitespace().collect();
            columns[1].ends_with(&port) && columns.get(9).is_some_and(|inode| *inode != "0")
        };
        tables.iter().flatten().map(|table| table.lines().filter(is_open).count()).sum()
    }

    /// Sends it a signal, by its name without SIG.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits until it ends. Returns its status and stderr.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        (status, self.stderr.take().unwrap().join().unwrap())
    }

    /// Ends it by SIGTERM. Returns its stderr.
    #[track_caller]
    pub(crate) fn stop(self) -> String {
        self.stop_with_output().1
    }

    /// Ends it by SIGTERM. Returns its stdout after the addresses, and its stderr.
    #[track_caller]
    pub(crate) fn stop_with_output(mut self) -> (String, String) {
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

/// Returns the process of a server under strace.
pub(crate) fn traced(server: &Server) -> u32 {
    let children = format!("/proc/{0}/task/{0}/children", server.pid());
    fs::read_to_string(children).unwrap().trim().parse().unwrap()
}

/// Ends a server under strace, which does not forward signals.
pub(crate) fn end_traced(server: &Server) {
    send("TERM", traced(server));
}

/// Sends a signal to a process.
pub(crate) fn send(signal: &str, pid: u32) {
    let kill = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
    assert!(kill.unwrap().success());
}
