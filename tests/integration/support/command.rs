//! Commands that run wxtoken, by itself or in a wrapper, and what they print.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use serde_json::Value;

use super::PATIENCE;

/// Variables of service managers, desktops, terminals and OpenSSL that change what wxtoken does.
const REMOVED_VARIABLES: [&str; 17] = [
    "STATE_DIRECTORY",
    "CREDENTIALS_DIRECTORY",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
    "NO_COLOR",
    "LC_ALL",
    "LC_MESSAGES",
    "LANG",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "INVOCATION_ID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// Returns the command with the default actions of SIGHUP, SIGINT and SIGQUIT, which the tests may have been started without, as
/// `nohup` and `&` do.
pub(crate) fn with_default_signals(command: &Command) -> Command {
    let mut env = Command::new("env");
    env.arg("--default-signal=HUP,INT,QUIT").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => env.env(name, value),
            None => env.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        env.current_dir(dir);
    }
    env.stdin(Stdio::null());
    env
}

/// Returns the binary under test as a command, without variables of the environment that affect it.
pub(crate) fn wxtoken() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wxtoken"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        let is_proxy = name.to_lowercase().ends_with("_proxy");
        if name.starts_with("WXTOKEN_") || is_proxy || REMOVED_VARIABLES.contains(&&*name) {
            command.env_remove(name);
        }
    }
    // What is said has times of the zone.
    command.env("TZ", "UTC0");
    command.stdin(Stdio::null());
    command
}

/// Returns a command whose words are those of `wrapper` and then those of `command`, with the environment of `command`.
pub(crate) fn wrapped<S: AsRef<OsStr>>(wrapper: &[S], command: &Command) -> Command {
    let mut wrapped = with_environment_of(command, &wrapper[0]);
    wrapped.args(&wrapper[1..]).arg(command.get_program()).args(command.get_args());
    wrapped
}

/// Returns this command under strace, which makes calls go wrong: `faults` are its flags. The trace goes to `trace`.
pub(crate) fn with_faults(faults: &[&str], trace: &Path, command: &Command) -> Command {
    let strace = ["strace", "-f", "-qq", "-o", trace.to_str().unwrap()];
    wrapped(&[&strace, faults].concat(), command)
}

/// Returns `command` with a terminal of 80 columns as its stdout and stderr. The result's stdout has what is written there.
pub(crate) fn on_terminal(command: &Command) -> Command {
    on_terminal_of_width(80, command)
}

/// The same with a terminal of this many columns.
pub(crate) fn on_terminal_of_width(columns: usize, command: &Command) -> Command {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    let mut script = with_environment_of(command, "script");
    let line = format!("stty cols {columns} && exec {}", words.join(" "));
    script.args(["-qec", &line, "/dev/null"]);
    if command.get_envs().all(|(name, _)| name != "TERM") {
        script.env("TERM", "xterm");
    }
    script
}

/// Returns how many columns of a terminal a line takes, colours excluded. Chinese characters take two.
pub(crate) fn columns(line: &str) -> usize {
    // What comes after a carriage return is written over what was before.
    line.split('\r').map(columns_without_return).max().unwrap_or_default()
}

fn columns_without_return(line: &str) -> usize {
    let mut visible = String::new();
    for (index, part) in line.split('\x1b').enumerate() {
        let rest =
            if index == 0 { part } else { part.split_once('m').map_or("", |(_, rest)| rest) };
        visible.push_str(rest);
    }
    visible.chars().map(|c| if c >= '\u{2e80}' { 2 } else { 1 }).sum()
}

/// Returns `program` with the environment that `command` gives it, and without its arguments.
pub(crate) fn with_environment_of(command: &Command, program: impl AsRef<OsStr>) -> Command {
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

/// Runs a command with a short `--timeout` again while the machine is too busy to get an answer within it.
#[track_caller]
pub(crate) fn in_time(mut run: impl FnMut() -> Run) -> Run {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ran = run();
        let is_late = ["no answer in time", "no time is left"].map(|it| ran.stderr.contains(it));
        if !is_late.contains(&true) {
            return ran;
        }
        assert!(Instant::now() < deadline, "never in time: {}", ran.stderr);
    }
}

/// Asserts that a text is in the language of its reader, and has no marks of passages in two.
#[track_caller]
pub(crate) fn assert_is_resolved(text: &str) {
    // `find` of one character is what std has optimized. `contains`, or a search for several, takes minutes over the logs of
    // all tests.
    for mark in ['\u{E000}', '\u{E001}', '\u{E002}', '\u{E003}', '\u{E004}'] {
        assert_eq!(text.find(mark), None, "marks are left: {text:?}");
    }
    let is_escaped_mark = |(at, _): (usize, &str)| text[at..].starts_with("\\u{e00");
    assert!(!text.match_indices('\\').any(is_escaped_mark), "escaped marks are left: {text}");
}

/// A run of a command that has ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// Runs `command` to its end.
    pub(crate) fn new(mut command: Command) -> Run {
        Run::from_output(command.output().expect("the program starts"))
    }

    pub(crate) fn from_output(output: std::process::Output) -> Run {
        let text = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            assert_is_resolved(&text);
            text
        };
        Run { status: output.status, stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// Asserts the exit status. Shows all output if it is another.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Run {
        assert_eq!(
            self.status.code(),
            Some(code),
            "\n--- stdout\n{}\n--- stderr\n{}\n---",
            self.stdout,
            self.stderr
        );
        self
    }

    /// Asserts that there is no output.
    #[track_caller]
    pub(crate) fn silent(self) -> Run {
        assert_eq!((self.stdout.as_str(), self.stderr.as_str()), ("", ""));
        self
    }

    /// Asserts that stdout is empty, and that stderr is one line that contains all of `parts`.
    #[track_caller]
    pub(crate) fn says(self, parts: &[&str]) -> Run {
        assert_eq!(self.stdout, "", "stdout of a failure is empty");
        assert_eq!(self.stderr.lines().count(), 1, "one line per failure:\n{}", self.stderr);
        self.mentions(parts)
    }

    /// Asserts that stderr contains all of `parts`.
    #[track_caller]
    pub(crate) fn mentions(self, parts: &[&str]) -> Run {
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in:\n{}", self.stderr);
        }
        self
    }

    /// Asserts that stdout contains all of `parts`.
    #[track_caller]
    pub(crate) fn prints(self, parts: &[&str]) -> Run {
        for part in parts {
            assert!(self.stdout.contains(part), "{part:?} is not in:\n{}", self.stdout);
        }
        self
    }

    /// Parses stdout as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|err| panic!("{err}: {}", self.stdout))
    }
}

/// A key, and its line for the keys file.
pub(crate) struct NewKey {
    pub(crate) key: String,
    pub(crate) line: String,
}

/// Runs `wxtoken key ARGS…`.
#[track_caller]
pub(crate) fn new_key(args: &[&str]) -> NewKey {
    let mut command = wxtoken();
    command.arg("key").args(args);
    let ran = Run::new(command).exits(0);
    let field = |label: &str| {
        let mut lines = ran.stdout.lines();
        lines.find_map(|line| line.strip_prefix(label)).expect("a line of each").trim().to_owned()
    };
    NewKey { key: field("key:"), line: field("line:") }
}
