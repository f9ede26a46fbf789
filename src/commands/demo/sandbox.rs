//! The demo's temporary directory, the processes that run in it, and requests to them.

use std::env;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{self, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use socket2::{Domain, Socket, Type};

use crate::commands::messages;
use crate::commands::output::terminal;
use crate::language::{self, Language};
use crate::log::printable;

/// Limit for one request, and for what is polled until it is as expected.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// The error of what comes after the sandbox is removed.
const ENDED: &str = "the demo was ended";

/// A private directory and the servers that run in it.
pub(super) struct Sandbox {
    pub(super) dir: PathBuf,
    /// The running servers; `None` once the sandbox is removed, after which nothing starts.
    servers: Mutex<Option<Vec<Child>>>,
}

/// A running server of the demo.
#[derive(Clone, Copy)]
pub(super) struct DemoServer {
    pub(super) address: SocketAddr,
    pid: u32,
}

impl Sandbox {
    /// Creates the directory, with a name of this process and for its owner only.
    pub(super) fn create() -> Result<Sandbox> {
        let name = format!("wxtoken-demo-{}", std::process::id());
        // Absolute, since the processes in it get it as an argument.
        let dir = path::absolute(env::temp_dir().join(name))?;
        DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .map_err(|err| anyhow!(messages::NO_DEMO_DIR.quoting([&dir.display()], err)))?;
        Ok(Sandbox { dir, servers: Mutex::new(Some(Vec::new())) })
    }

    /// Kills the servers and removes the directory.
    pub(super) fn remove(&self) {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.take().into_iter().flatten().for_each(kill);
        let _ = fs::remove_dir_all(&self.dir); // The system cleans its temporary directory, too.
    }

    /// Writes a file, readable by its owner only; replaces one of that name.
    pub(super) fn write_file(&self, name: &str, text: &str) -> Result<()> {
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.as_ref().context(ENDED)?;
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.dir.join(name))
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("cannot write {name}"))
    }

    /// Returns a command that runs this program in the directory, without environment variables that configure it.
    pub(super) fn wxtoken(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(env::current_exe().context("cannot find wxtoken itself")?);
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("WXTOKEN_")
                || name == "CREDENTIALS_DIRECTORY"
                || name == "STATE_DIRECTORY"
            {
                command.env_remove(name);
            }
        }
        command.env(language::VARIABLE, Language::of_process().name());
        command.args(arguments).stdin(Stdio::null()).current_dir(&self.dir);
        Ok(command)
    }

    /// Starts a server and waits until it says where it listens.
    pub(super) fn start(&self, mut command: Command) -> Result<DemoServer> {
        let (pid, stdout) = {
            let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
            let servers = servers.as_mut().context(ENDED)?;
            let mut child =
                command.stdout(Stdio::piped()).spawn().context("cannot start wxtoken")?;
            let started = (child.id(), child.stdout.take());
            servers.push(child);
            started
        };
        let mut line = String::new();
        BufReader::new(stdout.context("no stdout")?).read_line(&mut line)?;
        let address = line
            .trim_end()
            .strip_prefix("listening on http://")
            .and_then(|address| address.parse().ok());
        Ok(DemoServer { address: address.context("a server is not listening")?, pid })
    }

    /// Kills a server.
    pub(super) fn kill(&self, server: DemoServer) -> Result<()> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let servers = servers.as_mut().context(ENDED)?;
        let index = servers.iter().position(|child| child.id() == server.pid);
        index.map(|index| kill(servers.remove(index))).context("there is no such server")
    }

    /// Runs a command to its end. Holds the lock meanwhile, so that the directory is not removed: `fetch` would recreate it.
    pub(super) fn run(&self, mut command: Command) -> Result<Output> {
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.as_ref().context(ENDED)?;
        command.output().context("cannot start wxtoken")
    }

    /// Runs a command like [`run`](Self::run) whose output has another form on a terminal. If the demo has a terminal, the command
    /// writes to it, and the stdout that is returned is empty.
    pub(super) fn run_on_terminal(&self, mut command: Command) -> Result<Output> {
        if terminal::width().is_some() {
            command.stdout(Stdio::inherit());
        }
        self.run(command)
    }
}

fn kill(mut server: Child) {
    let _ = server.kill(); // Ctrl-C may have ended it already.
    let _ = server.wait();
}

/// Returns the command's stdout. Fails unless it ended with `status`.
pub(super) fn expect(output: &Output, status: i32) -> Result<String> {
    if output.status.code() != Some(status) {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "a step of the demo ended with {} instead of {status}: {}",
            output.status,
            printable(&stderr, 500)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns one of the stand-in's counters.
pub(super) fn mock_count(wechat: SocketAddr, counter: &str) -> Result<u64> {
    let counts: serde_json::Value =
        serde_json::from_str(&http(wechat, Ipv4Addr::LOCALHOST, "GET", "/mock/calls", "")?.1)?;
    counts[counter].as_u64().context("the stand-in does not count")
}

/// Sends a request from the local address `from`. Returns status and body of the answer.
pub(super) fn http(
    to: SocketAddr,
    from: Ipv4Addr,
    method: &str,
    path: &str,
    body: &str,
) -> Result<(u16, String)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect_timeout(&to.into(), STEP_TIMEOUT)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(STEP_TIMEOUT))?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {to}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let _ = stream.write_all(format!("{head}{body}").as_bytes()); // A refusal can come before the request is written.
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("not an HTTP answer")?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .context("not an HTTP answer")?;
    Ok((status, body.to_owned()))
}
