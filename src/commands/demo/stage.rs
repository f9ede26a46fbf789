//! What a story is played on: a directory, the processes in it, and requests to them. Gone when it is struck.

use std::env;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{self, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use socket2::{Domain, Socket, Type};

use crate::log::printable;

/// How long a server may take to answer.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the story plays: a directory with a secret in it, and the processes on it.
pub(super) struct Stage {
    pub(super) dir: PathBuf,
    /// `None` once the story is over: nothing is started any more.
    servers: Mutex<Option<Vec<Child>>>,
}

/// One of the processes, which listens.
#[derive(Clone, Copy)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pid: u32,
}

impl Stage {
    pub(super) fn set() -> Result<Stage> {
        let name = format!("wxtoken-demo-{}", std::process::id());
        // Some are told of it who work in it.
        let dir = path::absolute(env::temp_dir().join(name))?;
        DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Stage { dir, servers: Mutex::new(Some(Vec::new())) })
    }

    /// Ends the servers and removes the directory.
    pub(super) fn strike(&self) {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.take().into_iter().flatten().for_each(end);
        let _ = fs::remove_dir_all(&self.dir); // What is in a temporary directory goes some day anyway.
    }

    /// Puts a file there that only its owner can read, or replaces it.
    pub(super) fn put(&self, name: &str, text: &str) -> Result<()> {
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

    /// This very program, to be run in the directory, with nothing of the caller's environment that would change the story.
    pub(super) fn wxtoken(&self, words: &[&str]) -> Result<Command> {
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
        command.args(words).stdin(Stdio::null()).current_dir(&self.dir);
        Ok(command)
    }

    /// Starts one that listens.
    pub(super) fn start(&self, mut command: Command) -> Result<Server> {
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
        Ok(Server { address: address.context("a server is not listening")?, pid })
    }

    /// Kills one that listens.
    pub(super) fn kill(&self, server: Server) -> Result<()> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let servers = servers.as_mut().context(ENDED)?;
        let place = servers.iter().position(|child| child.id() == server.pid);
        place.map(|place| end(servers.remove(place))).context("there is no such server")
    }

    /// Runs one to its end. The stage is not struck meanwhile: a `fetch` would make the directory anew.
    pub(super) fn run(&self, mut command: Command) -> Result<Output> {
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.as_ref().context(ENDED)?;
        command.output().context("cannot start wxtoken")
    }
}

const ENDED: &str = "the demo was ended";

fn end(mut server: Child) {
    let _ = server.kill(); // It may have ended already, by the same Ctrl-C.
    let _ = server.wait();
}

/// The output of a step that went as it should.
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

/// What the stand-in has counted.
pub(super) fn counted(wechat: SocketAddr, what: &str) -> Result<u64> {
    let calls: serde_json::Value =
        serde_json::from_str(&http(wechat, Ipv4Addr::LOCALHOST, "GET", "/mock/calls", "")?.1)?;
    calls[what].as_u64().context("the stand-in does not count")
}

/// One request from an address of this host, as curl would send it; status and body.
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
    let _ = stream.write_all(format!("{head}{body}").as_bytes()); // A stranger is refused before it is heard out.
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
