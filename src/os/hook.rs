//! The command that an account's owner wants run when its token changed. An argv, no shell; it is told where the
//! document is, and neither token nor secret. It has its time and no more, and whatever becomes of it, the token stays.

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
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// After SIGTERM a hook may take so long to put things in order.
const GRACE: Duration = Duration::from_secs(1);

/// Between two looks whether it has ended, at most; a hook that is quick is noticed sooner.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// What our own environment has that is not for a hook, beside all that begins with `WXTOKEN_`: the way to the secrets,
/// and systemd's words with this process.
const NOT_FOR_HOOKS: [&str; 7] = [
    "CREDENTIALS_DIRECTORY",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
];

/// A command, and how long it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hook {
    program: PathBuf,
    args: Vec<String>,
    timeout: Duration,
}

/// What became of a hook that did not do its work.
#[derive(Debug)]
pub(crate) struct HookFailure {
    program: PathBuf,
    what: What,
}

#[derive(Debug)]
enum What {
    NotStarted(io::Error),
    Lost(io::Error),
    Ended(ExitStatus),
    TimedOut(Duration),
    CutShort,
}

impl Hook {
    /// The hook that runs `program` with `args`: a program of this name in `PATH`, or at this path.
    pub(crate) fn new(program: PathBuf, args: Vec<String>, timeout: Duration) -> Hook {
        Hook { program, args, timeout }
    }

    /// Runs it for the account called `account`, whose token in `document` is another than before, and waits for its end.
    /// All that it started is killed when its time is over, or when `is_over` says that nobody has time any more. It reads
    /// nothing, and what it writes goes to stderr.
    pub(crate) fn run(
        &self,
        account: &str,
        document: &Path,
        is_over: &dyn Fn() -> bool,
    ) -> Result<(), HookFailure> {
        self.run_to_end(account, document, is_over)
            .map_err(|what| HookFailure { program: self.program.clone(), what })
    }

    fn run_to_end(
        &self,
        account: &str,
        document: &Path,
        is_over: &dyn Fn() -> bool,
    ) -> Result<(), What> {
        if is_over() {
            return Err(What::CutShort);
        }
        let spawned = self.command(account, document).and_then(|mut command| command.spawn());
        let child = &mut spawned.map_err(What::NotStarted)?;
        let waited = wait(child, self.timeout, is_over);
        if waited.is_err() {
            let group = Pid::from_child(child);
            // It may end right now; then there is nobody to be told.
            let _ = kill_process_group(group, Signal::TERM);
            let _ = wait(child, GRACE, &|| false);
            // Nobody else can have this number as long as it has not been reaped.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let status = child.wait().map_err(What::Lost)?;
        waited?;
        if status.success() { Ok(()) } else { Err(What::Ended(status)) }
    }

    /// The program as it was given.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Where the program is that would be run, by this process's `PATH`; the error says why there is none.
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
        let is_ours = |name: &OsStr| {
            let name = name.to_string_lossy();
            name.starts_with("WXTOKEN_") || NOT_FOR_HOOKS.contains(&&*name)
        };
        for (name, _) in env::vars_os().filter(|(name, _)| is_ours(name)) {
            command.env_remove(name);
        }
        command.env("WXTOKEN_ACCOUNT", account);
        command.env("WXTOKEN_FILE", std::path::absolute(document)?);
        // A group of its own, so that all of it can be killed. Our stdout is somebody's answer.
        let stderr = io::stderr().as_fd().try_clone_to_owned()?;
        command.process_group(0).stdin(Stdio::null()).stdout(stderr);
        Ok(command)
    }
}

/// Whether the program is given by its path, and not looked for in `PATH`.
fn is_path(program: &Path) -> bool {
    program.components().count() > 1
}

/// Waits for its end, for so long, and does not reap it; an error if it did not end by itself. There is no wait with a
/// timeout in std, and its end is worth no further dependency.
fn wait(child: &Child, timeout: Duration, is_over: &dyn Fn() -> bool) -> Result<(), What> {
    let deadline = Instant::now() + timeout;
    let mut pause = Duration::from_millis(1);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let at_once = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let ended = waitid(WaitId::Pid(Pid::from_child(child)), at_once);
        if ended.map_err(|err| What::Lost(err.into()))?.is_some() {
            return Ok(());
        } else if left.is_zero() {
            return Err(What::TimedOut(timeout));
        } else if is_over() {
            return Err(What::CutShort);
        }
        sleep(pause.min(left));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

impl fmt::Display for HookFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_there = || is_path(&self.program) && self.program.exists();
        write!(f, "the token is published, and its hook failed: {} ", self.program.display())?;
        match &self.what {
            // Of two things that are not there, it is the other one.
            What::NotStarted(err) if err.kind() == ErrorKind::NotFound && is_there() => {
                f.write_str("cannot be run: the interpreter of its first line is not there")?;
            }
            What::NotStarted(err) if err.kind() == ErrorKind::NotFound => {
                f.write_str("is not there; it is run without a shell, by its path or from PATH")?;
            }
            What::NotStarted(err) => write!(f, "cannot be run: {err}")?,
            What::Lost(err) => write!(f, "cannot be waited for: {err}")?,
            What::Ended(status) => match (status.code(), status.signal()) {
                (Some(code), _) => write!(f, "exited with status {code}")?,
                (_, Some(signal)) => write!(f, "was killed by signal {signal}")?,
                _ => f.write_str("ended")?,
            },
            What::TimedOut(timeout) => {
                let timeout = humantime::format_duration(*timeout);
                write!(f, "was killed after {timeout}; on_change_timeout gives it more")?;
            }
            What::CutShort => f.write_str("was cut short, for wxtoken was told to end")?,
        }
        f.write_str(
            ". It runs again when the token changes the next time; run it yourself now. \
             token 已发布，但 on_change 命令失败；下次 token 变化时才会再次运行，请先手动执行。",
        )
    }
}
