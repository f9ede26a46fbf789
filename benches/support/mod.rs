//! The vocabulary of the benchmarks: rounds in which those compared take turns, what came out of them, and what /proc
//! tells of a process. Judges nothing: a target is printed beside the figure, and whoever reads decides.
#![allow(dead_code, unreachable_pub)] // Each benchmark uses its own part of it.

pub mod http;
pub mod idle;
pub mod load;
pub mod servers;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::time::{Instant, SystemTime};

use time::UtcDateTime;
use time::format_description::well_known::Rfc3339;

/// A token as long as WeChat's are.
pub const TOKEN: &str = "89_benchbenchbenchbenchbenchbenchbenchbenchbenchbenchbenchbenchbenchbenchbenchbenchbench\
                         benchbenchbenchbenchbenchbenchbenchbenchbenchbenchbenchbenchbenchb";

/// Ends the process unless `cargo bench` started it: under `cargo test --all-targets` nothing is measured.
pub fn only_under_cargo_bench() {
    if !env::args().any(|arg| arg == "--bench") {
        println!("not measured: run cargo bench");
        process::exit(0);
    }
}

/// Where a program is; `None`, and a line that says so, where it is not installed.
pub fn peer(name: &str) -> Option<PathBuf> {
    // Debian has nginx where only root's PATH leads.
    let path = format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default());
    let found = env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
    if found.is_none() {
        println!("not here: needs {name}");
    }
    found
}

/// The binary that was just built, with nothing of the caller's settings.
pub fn wxtoken() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wxtoken"));
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("WXTOKEN_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Publishes a document with [`TOKEN`] in it, which lives so many seconds from now on.
pub fn publish(path: &Path, expires_in: u64) {
    let now = UtcDateTime::from(SystemTime::now()).format(&Rfc3339).expect("a time has a form");
    let document = serde_json::json!({
        "appid": "wx0123456789abcdef", "access_token": TOKEN, "expires_in": expires_in,
        "created_at": now,
    });
    fs::write(path, format!("{document}\n")).expect("a document");
}

/// What several rounds gave.
#[derive(Default)]
pub struct Spread(Vec<f64>);

impl Spread {
    pub fn add(&mut self, figure: f64) {
        self.0.push(figure);
        self.0.sort_by(f64::total_cmp);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn min(&self) -> f64 {
        self.0.first().copied().unwrap_or(f64::NAN)
    }

    pub fn max(&self) -> f64 {
        self.0.last().copied().unwrap_or(f64::NAN)
    }

    pub fn median(&self) -> f64 {
        let (lower, upper) = (self.0.len().saturating_sub(1) / 2, self.0.len() / 2);
        match (self.0.get(lower), self.0.get(upper)) {
            (Some(lower), Some(upper)) => (lower + upper) / 2.0,
            _ => f64::NAN,
        }
    }
}

/// What came out of rounds in which several took turns: each one's figures in each round.
pub struct Rounds<const FIGURES: usize>(Vec<Vec<[f64; FIGURES]>>);

impl<const FIGURES: usize> Rounds<FIGURES> {
    /// Has all of them driven in each round: forth in one and back in the next, so that nobody always comes after the
    /// same one.
    pub fn of(
        rounds: usize,
        those: usize,
        mut drive: impl FnMut(usize) -> [f64; FIGURES],
    ) -> Rounds<FIGURES> {
        let one = |round: usize| {
            let mut figures = vec![[0.0; FIGURES]; those];
            for turn in 0..those {
                let nth = if round.is_multiple_of(2) { turn } else { those - 1 - turn };
                figures[nth] = drive(nth);
            }
            figures
        };
        Rounds((0..rounds).map(one).collect())
    }

    /// One of somebody's figures.
    pub fn figure(&self, of: usize, which: usize) -> Spread {
        self.spread(|round| round[of][which])
    }

    /// Somebody's figure by another one's of the same round, so that whatever else the machine did happened to both.
    pub fn ratio(&self, of: usize, to: usize, which: usize) -> Spread {
        self.spread(|round| round[of][which] / round[to][which])
    }

    fn spread(&self, of: impl Fn(&[[f64; FIGURES]]) -> f64) -> Spread {
        let mut spread = Spread::default();
        self.0.iter().for_each(|round| spread.add(of(round)));
        spread
    }
}

/// How long a program takes from its start to its end.
pub fn milliseconds(command: &mut Command) -> f64 {
    command.stdout(Stdio::null());
    let begun = Instant::now();
    let status = command.status().expect("it starts");
    let spent = begun.elapsed();
    assert!(status.success(), "{command:?}: {status}");
    spent.as_secs_f64() * 1000.0
}

/// What programs take that are run in turns, so many times in each round, as one run is too short to be compared with
/// another one: the first one's time by the second's, and each one's in milliseconds.
pub fn race<const PROGRAMS: usize>(
    rounds: usize,
    runs: usize,
    commands: &mut [Command; PROGRAMS],
) -> (Spread, [Spread; PROGRAMS]) {
    let mut ratio = Spread::default();
    let mut times = std::array::from_fn(|_| Spread::default());
    for _ in 0..rounds {
        let mut spent = [0.0; PROGRAMS];
        for _ in 0..runs {
            for (command, spent) in commands.iter_mut().zip(&mut spent) {
                *spent += milliseconds(command);
            }
        }
        ratio.add(spent[0] / spent[1]);
        times.iter_mut().zip(spent).for_each(|(times, spent)| times.add(spent / runs as f64));
    }
    (ratio, times)
}

/// The first line of a table.
pub fn head(title: &str) {
    println!("\n{title:<58}{:>10}{:>10}{:>10}", "min", "median", "max");
}

/// A line of a table.
pub fn row(what: &str, spread: &Spread, note: &str) {
    let [min, median, max] =
        [spread.min(), spread.median(), spread.max()].map(|figure| match figure {
            large if large >= 1000.0 => format!("{large:.0}"),
            small => format!("{small:.2}"),
        });
    println!("  {what:<56}{min:>10}{median:>10}{max:>10}   {note}");
}

/// A process that ends with this value, as politely as it lets itself be asked.
pub struct Server(Child);

impl Server {
    pub fn start(mut command: Command) -> Server {
        Server(command.spawn().unwrap_or_else(|err| panic!("{command:?}: {err}")))
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Not SIGKILL: nginx's worker would outlive its master.
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.0),
            rustix::process::Signal::TERM,
        );
        let _ = self.0.wait();
    }
}

/// A number in a file of /proc, by the word before it; the unit is the file's.
fn proc_number(pid: u32, file: &str, word: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).expect("the process runs");
    let line = text.lines().find_map(|line| line.strip_prefix(word)).expect("the kernel tells");
    let number = line.split_whitespace().next().and_then(|number| number.parse().ok());
    number.expect("a number")
}

/// What of a process is in memory, with all that it shares, in KiB.
pub fn resident(pid: u32) -> f64 {
    proc_number(pid, "status", "VmRSS:")
}

/// The same with each shared page divided by those who share it, in KiB.
pub fn proportional(pid: u32) -> f64 {
    proc_number(pid, "smaps_rollup", "Pss:")
}

/// The CPU time a process has used, its own and the kernel's on its behalf, in seconds. To the nanosecond: the ticks of
/// /proc/PID/stat are too long for short rounds.
pub fn cpu(pid: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let spent = threads.map(|thread| {
        let schedstat = thread.expect("a thread").path().join("schedstat");
        let text = fs::read_to_string(schedstat).expect("the kernel tells");
        let nanoseconds = text.split_whitespace().next().and_then(|number| number.parse().ok());
        nanoseconds.unwrap_or(f64::NAN) / 1e9
    });
    spent.sum()
}
