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
use super::descriptors::shortage::is_shortage;
use super::fault::{Operation, explained};
use crate::language::{bilingual, in_both};
use crate::log;
use crate::message::{action_first, cannot, messages, notes, span};

/// How long a hook may still run once its process was asked to end, until it gets SIGTERM.
pub(crate) const TIME_AT_END: Duration = Duration::from_secs(3);

/// How long a hook may go on after SIGTERM before it is killed.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

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
        if is_path(&self.program) {
            return runnable(self.program.clone());
        }
        let dirs = env::var_os("PATH").unwrap_or_default();
        let missing = || io::Error::new(ErrorKind::NotFound, "it is not in PATH");
        find_in(env::split_paths(&dirs), &self.program).ok_or_else(missing)
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

/// Returns the path if there is a program that this user may run.
fn runnable(path: PathBuf) -> io::Result<PathBuf> {
    match path.metadata() {
        Ok(found) if !found.is_file() => Err(io::Error::other("not a file")),
        Ok(_) => Ok(access(&path, Access::EXEC_OK).map(|()| path)?),
        Err(err) => Err(err),
    }
}

/// Returns the program of this name in the first of these directories that has one to run, as a shell finds it.
pub(crate) fn find_in(mut dirs: impl Iterator<Item = PathBuf>, program: &Path) -> Option<PathBuf> {
    dirs.find_map(|dir| runnable(dir.join(program)).ok())
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

notes! {
    HAS_RUN<1> = "{0} has run", "已运行 {0}";
}

messages! {
    INTERPRETER<1> {
        "Correct the first line of {0} (#!).", "{0} cannot be run: the interpreter of its first line is not there";
        "请更正 {0} 的首行（#!）。", "无法运行 {0}：首行指定的解释器不存在";
    }
    NO_PROGRAM<1> {
        "Give the path of a program, or one that is in PATH.", "{0} is not there; it is run without a shell";
        "请填写程序的路径，或 PATH 中的程序名。", "找不到 {0}（不经 shell 运行）";
    }
    NO_PROCESS<1> {
        "Raise ulimit -u and -n, or TasksMax= and LimitNOFILE= of the unit.", "{0} cannot be run";
        "请调高 ulimit -u、-n，或 systemd 的 TasksMax=、LimitNOFILE=。", "无法运行 {0}";
    }
    LOST_CHILD<1> {
        "See whether another program reaps it.", "{0} cannot be waited for";
        "请检查是否有其他程序回收了该进程。", "无法等待 {0} 结束";
    }
    ENDED<2> {
        "See what {0} says, above in the log, and run it by hand.", "{0} {1}";
        "请查看 {0} 的输出，并手动运行。", "{0} {1}";
    }
    TIMED_OUT<3> {
        "Make it faster, or give it more with {2}_timeout.", "{0} was killed after {1}";
        "请缩短其运行时间，或调大 {2}_timeout。", "{0} 运行 {1} 后被终止";
    }
    NOT_RUN<1> {
        "Run it by hand, and raise ulimit -u and -n, or TasksMax= and LimitNOFILE= of the unit.", "{0} has not run";
        "请手动运行，并调高 ulimit -u、-n，或 systemd 的 TasksMax=、LimitNOFILE=。", "{0} 未能运行";
    }
    CUT_SHORT<1> {
        "Run it by hand.", "{0} was cut short, for wxtoken was told to end";
        "请手动运行。", "wxtoken 被要求退出，{0} 被中断";
    }
}

impl fmt::Display for HookFailure {
    /// `What to do: the token is published, and its hook failed: PROGRAM what happened. What follows.`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exists = || is_path(&self.program) && self.program.exists();
        let (before, after) = match self.kind {
            HookKind::OnChange => (
                bilingual!(
                    "the token is published, and its hook failed",
                    "token 已发布，但 on_change 命令失败"
                ),
                bilingual!(
                    "It runs again when the token changes the next time; run it yourself now.",
                    "下次 token 变化时才会再次运行，请先手动执行。"
                ),
            ),
            HookKind::OnTrouble => (
                bilingual!("on_trouble failed", "on_trouble 命令失败"),
                bilingual!("It runs again within minutes.", "数分钟内会再次运行。"),
            ),
        };
        let program = &self.program.display();
        let what = match &self.cause {
            // The program exists, so that it is its interpreter which does not.
            HookFailureCause::NotStarted(err) if err.kind() == ErrorKind::NotFound && exists() => {
                INTERPRETER.with([program])
            }
            HookFailureCause::NotStarted(err) if err.kind() == ErrorKind::NotFound => {
                NO_PROGRAM.with([program])
            }
            HookFailureCause::NotStarted(err) if err.kind() == ErrorKind::WouldBlock => {
                NO_PROCESS.quoting([program], err)
            }
            HookFailureCause::NotStarted(err) => {
                let cannot = cannot("run", "运行", program);
                format!("{cannot}: {}", explained(err, &self.program, Operation::Running))
            }
            HookFailureCause::Lost(err) => LOST_CHILD.quoting([program], err),
            HookFailureCause::Ended(status) => {
                let how = match (status.code(), status.signal()) {
                    (Some(code), _) => {
                        in_both(format!("exited with status {code}"), format!("的退出码为 {code}"))
                    }
                    (_, Some(signal)) => in_both(
                        format!("was killed by signal {signal}"),
                        format!("被信号 {signal} 终止"),
                    ),
                    _ => in_both("ended", "已结束"),
                };
                ENDED.with([program, &how])
            }
            HookFailureCause::TimedOut(timeout) => {
                TIMED_OUT.with([program, &span(*timeout), &self.kind.key()])
            }
            HookFailureCause::CutShort => CUT_SHORT.with([program]),
        };
        write!(f, "{} ({after})", action_first(&format!("{before}: {what}")))
    }
}
