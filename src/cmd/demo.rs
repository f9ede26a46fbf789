//! `wxtoken demo`: the whole job against the stand-in, told as a story: the real commands as processes of their own,
//! in a directory that is gone afterwards. Needs no account, asks nobody but the stand-in.

use std::fmt::Display;
use std::fs::{self, DirBuilder, OpenOptions};
use std::future::{Future, poll_fn};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use socket2::{Domain, Socket, Type};

use crate::cli::Demo;
use crate::exit::Exit;
use crate::mock;
use crate::report::printable;
use crate::signals::Shutdown;

/// A machine of this network that nobody allowed; all of 127.0.0.0/8 is this host.
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// How long a server may take to answer.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) fn run(args: &Demo) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(play(args.keep));
    // A story that was interrupted may still be at its last step, which finds nobody there.
    runtime.shutdown_background();
    outcome.map(|()| Exit::Done)
}

/// Tells the story, to its end or to Ctrl-C; with `keep`, goes on until then. Leaves nothing behind.
async fn play(keep: bool) -> Result<()> {
    // First of all: from here on an end is an orderly one.
    let mut shutdown = Shutdown::listen_with_hangup().context("cannot wait for signals")?;
    let stage = Arc::new(Stage::set()?);
    let teller = Arc::clone(&stage);
    let mut story = tokio::task::spawn_blocking(move || tell(&teller, keep));
    let mut interrupted = pin!(shutdown.requested());
    let told = poll_fn(|cx| {
        if interrupted.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut story).poll(cx).map(Some)
    })
    .await;
    let outcome = match told {
        None => Ok(()),
        Some(told) => {
            let outcome = told.context("the story broke off").and_then(|outcome| outcome);
            if keep && outcome.is_ok() {
                interrupted.await;
            }
            outcome
        }
    };
    stage.strike();
    outcome
}

/// Where the story plays: a directory with a secret in it, and the processes on it.
struct Stage {
    dir: PathBuf,
    /// `None` once the story is over: nothing is started any more.
    servers: Mutex<Option<Vec<Child>>>,
}

impl Stage {
    fn set() -> Result<Stage> {
        let dir = std::env::temp_dir().join(format!("wxtoken-demo-{}", std::process::id()));
        DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .with_context(|| format!("cannot create {}", dir.display()))?;
        let stage = Stage { dir, servers: Mutex::new(Some(Vec::new())) };
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(stage.dir.join("secret"))
            .and_then(|mut file| file.write_all(mock::SECRET.as_bytes()))
            .context("cannot write the stand-in's secret")?;
        Ok(stage)
    }

    /// Ends the servers and removes the directory.
    fn strike(&self) {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        for mut server in servers.take().into_iter().flatten() {
            let _ = server.kill(); // It may have ended already, by the same Ctrl-C.
            let _ = server.wait();
        }
        let _ = fs::remove_dir_all(&self.dir); // What is in a temporary directory goes some day anyway.
    }

    /// This very program, with nothing of the caller's environment that would change the story.
    fn wxtoken(&self, words: &[&str]) -> Result<Command> {
        let mut command =
            Command::new(std::env::current_exe().context("cannot find wxtoken itself")?);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("WXTOKEN_")
                || name == "CREDENTIALS_DIRECTORY"
                || name == "STATE_DIRECTORY"
            {
                command.env_remove(name);
            }
        }
        command.args(words).stdin(Stdio::null());
        // An account of its own, so that no config of this machine is read.
        command.env("WXTOKEN_DIR", &self.dir).env("WXTOKEN_APPID", mock::APPID);
        Ok(command)
    }

    /// Starts one that listens; its address.
    fn start(&self, words: &[&str]) -> Result<SocketAddr> {
        let stdout = {
            let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
            let servers = servers.as_mut().context("the demo was ended")?;
            let mut command = self.wxtoken(words)?;
            let mut child =
                command.stdout(Stdio::piped()).spawn().context("cannot start wxtoken")?;
            let stdout = child.stdout.take();
            servers.push(child);
            stdout.context("no stdout")?
        };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line
            .trim_end()
            .strip_prefix("listening on http://")
            .and_then(|address| address.parse().ok());
        address.with_context(|| format!("wxtoken {} is not listening", words[0]))
    }

    /// Runs one to its end. The stage is not struck meanwhile: a `fetch` would make the directory anew.
    fn run(&self, words: &[&str], wechat: &str) -> Result<Output> {
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.as_ref().context("the demo was ended")?;
        let secret = self.dir.join("secret");
        let mut command = self.wxtoken(words)?;
        command.env("WXTOKEN_SECRET_FILE", secret).env("WXTOKEN_BASE_URL", wechat);
        command.output().context("cannot start wxtoken")
    }
}

/// The story. Every line of it is what really happened; a step that goes otherwise ends it.
fn tell(stage: &Stage, keep: bool) -> Result<()> {
    let document = stage.dir.join("default.json");
    let wechat = stage.start(&["mock"])?;
    let url = format!("http://{wechat}");

    say("wxtoken demo: one place asks WeChat for the token, everybody else reads it.")?;
    say(
        "WeChat is a stand-in on this machine here; wxtoken is the real one. 微信由本机模拟，其余都是真的。",
    )?;

    command("fetch                                  # from cron or a timer, every minute")?;
    expect(&stage.run(&["fetch"], &url)?, 0)?;
    aside(format_args!("published {}:", document.display()))?;
    aside(shortened(&fs::read_to_string(&document)?))?;

    command(
        "get                                    # in a script: the token, and the life it has left",
    )?;
    aside(shortened(&expect(&stage.run(&["get"], &url)?, 0)?))?;

    command("fetch                                  # again: not due, nobody is asked")?;
    expect(&stage.run(&["fetch"], &url)?, 0)?;
    aside(format_args!("WeChat was asked {} in all", times(asked(wechat)?)))?;

    let server =
        stage.start(&["serve", "--quiet", "--listen", "127.0.0.1:0", "--allow", "127.0.0.1"])?;
    command("serve --allow 127.0.0.1                # for other hosts: allowed addresses only")?;
    prompt(format_args!("curl http://{server}/token"))?;
    aside(shortened(&http(server, Ipv4Addr::LOCALHOST, "GET", "/token", "")?.1))?;
    prompt(format_args!("curl --interface {STRANGER} http://{server}/token     # a stranger"))?;
    let (status, body) = http(server, STRANGER, "GET", "/token", "")?;
    if status != 403 {
        bail!("a stranger got {status} instead of 403");
    }
    aside(format_args!("{status} {}", body.trim_end()))?;

    http(wechat, Ipv4Addr::LOCALHOST, "POST", "/mock/fault", "errcode:40164")?;
    command(
        "fetch --force                          # and when WeChat refuses: what to do, in both languages",
    )?;
    let refused = stage.run(&["fetch", "--force"], &url)?;
    aside(String::from_utf8_lossy(&refused.stderr).trim_end())?;
    expect(&refused, Exit::Refused as i32)?;
    command("status                                 # the published token is still there")?;
    aside(expect(&stage.run(&["status"], &url)?, 0)?.trim_end())?;

    if keep {
        http(wechat, Ipv4Addr::LOCALHOST, "POST", "/mock/fault", "none")?;
        say(format_args!(
            "\nGoing on until Ctrl-C: wxtoken at http://{server}/token, the stand-in at {url}"
        ))
    } else {
        say(
            "\nThat is all. With an account of your own: see README.md, 正式使用请看 README.zh-CN.md",
        )
    }
}

/// The output of a step that went as it should.
fn expect(output: &Output, status: i32) -> Result<String> {
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

fn say(text: impl Display) -> Result<()> {
    super::answer(&format!("{text}\n"))
}

fn prompt(text: impl Display) -> Result<()> {
    say(format_args!("\n$ {text}"))
}

fn command(text: &str) -> Result<()> {
    prompt(format_args!("wxtoken {text}"))
}

fn aside(text: impl Display) -> Result<()> {
    say(format_args!("  {text}"))
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// JSON whose token is cut to what fits a line.
fn shortened(json: &str) -> String {
    let json = json.trim_end();
    let Some((before, rest)) = json.split_once("\"access_token\":\"") else {
        return json.to_owned();
    };
    let Some((token, after)) = rest.split_once('"') else { return json.to_owned() };
    format!("{before}\"access_token\":\"{}…\"{after}", token.get(..10).unwrap_or(token))
}

/// How often the stand-in was asked for a token.
fn asked(wechat: SocketAddr) -> Result<u64> {
    let calls: serde_json::Value =
        serde_json::from_str(&http(wechat, Ipv4Addr::LOCALHOST, "GET", "/mock/calls", "")?.1)?;
    calls["stable_token"].as_u64().context("the stand-in does not count")
}

/// One request from an address of this host, as curl would send it; status and body.
fn http(
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
