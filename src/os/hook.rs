//! Runs the commands of `on_change` and `on_trouble`, without a shell. A command gets the path of the document, and neither
//! token nor secret, and is killed when its time is over. This file does not know when or why it runs.

pub(crate) mod children;

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{Access, access};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use self::children::AwaitedChild;
use super::descriptors::shortage::{self, explained, is_shortage};
use crate::language::bilingual;
use crate::log;

/// How long a hook may go on after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(1);

/// How long starting a hook is tried again while there can be no more processes.
const SPAWN_PATIENCE: Duration = Duration::from_secs(3);

/// The pause between those attempts.
const SPAWN_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between two looks whether a hook has ended. A quick hook is noticed sooner.
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// Variables that a hook does not inherit, besides all that begin with `WXTOKEN_`: where the secrets are, and what is
/// between systemd and this process.
const WITHHELD: [&str; 7] = [
    "CREDENTIALS_DIRECTORY",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
];

/// Which command of an account it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HookKind {
    OnChange,
    OnTrouble,
}

impl HookKind {
    /// Returns its key in the config.
    pub(crate) fn key(self) -> &'static str {
        match self {
            HookKind::OnChange => "on_change",
            HookKind::OnTrouble => "on_trouble",
        }
    }
}

/// A command, and how long it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hook {
    kind: HookKind,
    program: PathBuf,
    args: Vec<String>,
    timeout: Duration,
}

/// A hook that did not succeed.
#[derive(Debug)]
pub(crate) struct HookFailure {
    kind: HookKind,
    program: PathBuf,
    cause: HookFailureCause,
}

#[derive(Debug)]
enum HookFailureCause {
    NotStarted(io::Error),
    /// The system could not say whether it ended.
    Lost(io::Error),
    /// It ended by itself, and not with status 0.
    Ended(ExitStatus),
    TimedOut(Duration),
    /// It was killed because this process is to end.
    CutShort,
}

impl Hook {
    /// Returns a hook that runs `program` with `args` and kills it after `timeout`. A `program` without a slash is looked up
    /// in `PATH`.
    pub(crate) fn new(
        kind: HookKind,
        program: PathBuf,
        args: Vec<String>,
        timeout: Duration,
    ) -> Hook {
        Hook { kind, program, args, timeout }
    }

    /// Runs the hook for the account of this name and its `document`, with `more` variables, and waits for its end. Kills
    /// it, with all processes that it started, when its time is over or `is_over` returns true. Its stdin is empty, and
    /// its output goes to stderr.
    pub(crate) fn run(
        &self,
        account: &str,
        document: &Path,
        more: &[(&str, String)],
        is_over: &dyn Fn() -> bool,
    ) -> Result<(), HookFailure> {
        let command = self.command(account, document).map(|mut command| {
            command.envs(more.iter().map(|(name, value)| (name, value)));
            command
        });
        self.run_to_end(command, is_over).map_err(|cause| HookFailure {
            kind: self.kind,
            program: self.program.clone(),
            cause,
        })
    }

    fn run_to_end(
        &self,
        command: io::Result<Command>,
        is_over: &dyn Fn() -> bool,
    ) -> Result<(), HookFailureCause> {
        if is_over() {
            return Err(HookFailureCause::CutShort);
        }
        let spawned = command.and_then(|mut command| spawn(&mut command, is_over));
        let child = &mut spawned.map_err(HookFailureCause::NotStarted)?;
        let waiting = log::waiting_for(|| {
            let program = self.program.display();
            [format!("the command {program}"), format!("命令 {program}")]
        });
        let waited = wait(child, self.timeout, is_over);
        drop(waiting);
        if waited.is_err() {
            let group = Pid::from_child(child);
            // Fails if it ends right now.
            let _ = kill_process_group(group, Signal::TERM);
            let _ = wait(child, GRACE, &|| false);
            // The number is not reused as long as the process has not been reaped.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let status = child.wait().map_err(HookFailureCause::Lost)?;
        waited?;
        if status.success() { Ok(()) } else { Err(HookFailureCause::Ended(status)) }
    }

    /// Returns how long it may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Returns which command it is.
    pub(crate) fn kind(&self) -> HookKind {
        self.kind
    }

    /// Returns the program as it was given.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Returns the path of the program that would run, by this process's `PATH`. The error says why there is none.
    pub(crate) fn find(&self) -> io::Result<PathBuf> {
        let runnable = |path: PathBuf| match path.metadata() {
            Ok(found) if !found.is_file() => Err(io::Error::other("not a file")),
            Ok(_) => Ok(access(&path, Access::EXEC_OK).map(|()| path)?),
            Err(err) => Err(err),
        };
        if is_path(&self.program) {
            return runnable(self.program.clone());
        }
        let dirs = env::var_os("PATH").unwrap_or_default();
        let mut found = env::split_paths(&dirs).map(|dir| runnable(dir.join(&self.program)));
        let missing = || io::Error::new(ErrorKind::NotFound, "it is not in PATH");
        found.find_map(Result::ok).ok_or_else(missing)
    }

    fn command(&self, account: &str, document: &Path) -> io::Result<Command> {
        let mut command = Command::new(&self.program);
        command.args(&self.args);
        let is_withheld = |name: &OsStr| {
            let name = name.to_string_lossy();
            name.starts_with("WXTOKEN_") || WITHHELD.contains(&&*name)
        };
        for (name, _) in env::vars_os().filter(|(name, _)| is_withheld(name)) {
            command.env_remove(name);
        }
        command.env("WXTOKEN_ACCOUNT", account);
        command.env("WXTOKEN_FILE", std::path::absolute(document)?);
        // A group of its own, so that all of it can be killed. This process's stdout is for its own answer.
        let stderr = io::stderr().as_fd().try_clone_to_owned()?;
        command.process_group(0).stdin(Stdio::null()).stdout(stderr);
        Ok(command)
    }
}

/// Whether the program is given by its path, and not looked up in `PATH`.
fn is_path(program: &Path) -> bool {
    program.components().count() > 1
}

/// Starts the command. While there can be no more processes or descriptors, tries again for a moment: the token may have
/// changed, and there is no other occasion to run.
fn spawn(command: &mut Command, is_over: &dyn Fn() -> bool) -> io::Result<AwaitedChild> {
    let until = Instant::now() + SPAWN_PATIENCE;
    loop {
        match children::spawn(command) {
            Err(err) if may_pass(&err) && Instant::now() < until && !is_over() => {
                sleep(SPAWN_PAUSE);
            }
            spawned => return spawned,
        }
    }
}

fn may_pass(err: &io::Error) -> bool {
    let passing = [Errno::AGAIN, Errno::TXTBSY];
    is_shortage(err) || Errno::from_io_error(err).is_some_and(|errno| passing.contains(&errno))
}

/// Waits for the end of `child`, and does not reap it. Fails if it did not end by itself. Polls, because std has no wait
/// with a timeout, and this is worth no further dependency. Reads the real time: another process knows no virtual one.
fn wait(
    child: &Child,
    timeout: Duration,
    is_over: &dyn Fn() -> bool,
) -> Result<(), HookFailureCause> {
    let deadline = Instant::now() + timeout;
    let mut pause = Duration::from_millis(1);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let at_once = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let ended = waitid(WaitId::Pid(Pid::from_child(child)), at_once);
        if ended.map_err(|err| HookFailureCause::Lost(err.into()))?.is_some() {
            return Ok(());
        } else if left.is_zero() {
            return Err(HookFailureCause::TimedOut(timeout));
        } else if is_over() {
            return Err(HookFailureCause::CutShort);
        }
        sleep(pause.min(left));
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

impl fmt::Display for HookFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exists = || is_path(&self.program) && self.program.exists();
        let (before, after) = match self.kind {
            HookKind::OnChange => (
                "the token is published, and its hook failed",
                bilingual!(
                    "It runs again when the token changes the next time; run it yourself now.",
                    "token 已发布，但 on_change 命令失败；下次 token 变化时才会再次运行，请先手动执行。"
                ),
            ),
            HookKind::OnTrouble => (
                "on_trouble failed",
                bilingual!(
                    "It runs again within minutes.",
                    "on_trouble 命令失败，数分钟内会再次运行。"
                ),
            ),
        };
        write!(f, "{before}: {} ", self.program.display())?;
        match &self.cause {
            // The program exists, so that it is its interpreter which does not.
            HookFailureCause::NotStarted(err) if err.kind() == ErrorKind::NotFound && exists() => {
                f.write_str("cannot be run: the interpreter of its first line is not there")?;
            }
            HookFailureCause::NotStarted(err) if err.kind() == ErrorKind::NotFound => {
                f.write_str("is not there; it is run without a shell, by its path or from PATH")?;
            }
            HookFailureCause::NotStarted(err) if err.kind() == ErrorKind::WouldBlock => {
                write!(f, "cannot be run: {err}. {}", shortage::remedy())?;
            }
            HookFailureCause::NotStarted(err) => write!(f, "cannot be run: {}", explained(err))?,
            HookFailureCause::Lost(err) => write!(f, "cannot be waited for: {err}")?,
            HookFailureCause::Ended(status) => match (status.code(), status.signal()) {
                (Some(code), _) => write!(f, "exited with status {code}")?,
                (_, Some(signal)) => write!(f, "was killed by signal {signal}")?,
                _ => f.write_str("ended")?,
            },
            HookFailureCause::TimedOut(timeout) => {
                let timeout = humantime::format_duration(*timeout);
                let key = self.kind.key();
                write!(f, "was killed after {timeout}; {key}_timeout gives it more")?;
            }
            HookFailureCause::CutShort => {
                f.write_str("was cut short, for wxtoken was told to end")?
            }
        }
        write!(f, ". {after}")
    }
}
