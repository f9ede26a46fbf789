//! Shared by the benchmarks: rounds in which the subjects take turns, statistics over them, tables, and measurements from
//! /proc. Targets are printed beside the figures, not enforced.
#![allow(dead_code, unreachable_pub)] // Each benchmark uses a part of this.

pub mod http;
pub mod idle;
pub mod load;
pub mod servers;
pub mod tls;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::time::{Instant, SystemTime};

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

/// Returns the path of a program. Prints a line and returns `None` if it is not installed.
pub fn find_program(name: &str) -> Option<PathBuf> {
    // Debian installs nginx outside of an ordinary user's PATH.
    let path = format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default());
    let found = env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
    if found.is_none() {
        println!("not here: needs {name}");
    }
    found
}

/// Returns a command for the binary under test, without the caller's WXTOKEN_ variables. `BENCHED` names another one than
/// cargo has built, such as a static one.
pub fn wxtoken() -> Command {
    let built = env!("CARGO_BIN_EXE_wxtoken").into();
    let mut command = Command::new(env::var_os("BENCHED").unwrap_or(built));
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("WXTOKEN_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Writes a document with [`TOKEN`] that expires in so many seconds.
pub fn publish(path: &Path, expires_in: u64) {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let document = serde_json::json!({
        "appid": "wx0123456789abcdef", "access_token": TOKEN, "expires_in": expires_in,
        "created_at": now,
    });
    fs::write(path, format!("{document}\n")).expect("a document");
}

/// The sorted values of one figure over several rounds.
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

/// The figures of several subjects that took turns, for each round.
pub struct Rounds<const FIGURES: usize>(Vec<Vec<[f64; FIGURES]>>);

impl<const FIGURES: usize> Rounds<FIGURES> {
    /// Measures all subjects in each round, in alternating order, so that none always follows the same other one.
    pub fn run(
        rounds: usize,
        subjects: usize,
        mut drive: impl FnMut(usize) -> [f64; FIGURES],
    ) -> Rounds<FIGURES> {
        let one = |round: usize| {
            let mut figures = vec![[0.0; FIGURES]; subjects];
            for turn in 0..subjects {
                let nth = if round.is_multiple_of(2) { turn } else { subjects - 1 - turn };
                figures[nth] = drive(nth);
            }
            figures
        };
        Rounds((0..rounds).map(one).collect())
    }

    /// Returns one figure of a subject.
    pub fn figure(&self, subject: usize, which: usize) -> Spread {
        self.spread(|round| round[subject][which])
    }

    /// Returns a figure of a subject divided by that of another in the same round, which cancels other load on the machine.
    pub fn ratio(&self, subject: usize, other: usize, which: usize) -> Spread {
        self.spread(|round| round[subject][which] / round[other][which])
    }

    fn spread(&self, of: impl Fn(&[[f64; FIGURES]]) -> f64) -> Spread {
        let mut spread = Spread::default();
        self.0.iter().for_each(|round| spread.add(of(round)));
        spread
    }
}

/// Returns the wall time of a program from its start to its end, in milliseconds.
pub fn run_time_ms(command: &mut Command) -> f64 {
    command.stdout(Stdio::null());
    let started = Instant::now();
    let status = command.status().expect("it starts");
    let spent = started.elapsed();
    assert!(status.success(), "{command:?}: {status}");
    spent.as_secs_f64() * 1000.0
}

/// Runs programs in turns, `runs` times in each round, because a single run is too short to compare. Returns the first
/// one's time divided by the second's, and the time of each in milliseconds.
pub fn compare_run_times<const PROGRAMS: usize>(
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
                *spent += run_time_ms(command);
            }
        }
        ratio.add(spent[0] / spent[1]);
        times.iter_mut().zip(spent).for_each(|(times, spent)| times.add(spent / runs as f64));
    }
    (ratio, times)
}

/// Prints the header of a table.
pub fn print_header(title: &str) {
    println!("\n{title:<58}{:>10}{:>10}{:>10}", "min", "median", "max");
}

/// Prints a line of a table.
pub fn print_row(what: &str, spread: &Spread, note: &str) {
    let [min, median, max] =
        [spread.min(), spread.median(), spread.max()].map(|figure| match figure {
            large if large >= 1000.0 => format!("{large:.0}"),
            small => format!("{small:.2}"),
        });
    println!("  {what:<56}{min:>10}{median:>10}{max:>10}   {note}");
}

/// A process that is terminated on drop.
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
        // Not SIGKILL: nginx's worker would outlive its master process.
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.0),
            rustix::process::Signal::TERM,
        );
        let _ = self.0.wait();
    }
}

/// Reads the number after `word` in a file of /proc, in the file's unit.
fn proc_number(pid: u32, file: &str, word: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).expect("the process runs");
    let line = text.lines().find_map(|line| line.strip_prefix(word)).expect("a line of /proc");
    let number = line.split_whitespace().next().and_then(|number| number.parse().ok());
    number.expect("a number")
}

/// Returns the resident memory of a process including shared pages, in KiB.
pub fn resident(pid: u32) -> f64 {
    proc_number(pid, "status", "VmRSS:")
}

/// Returns the resident memory of a process with each shared page divided by its number of users, in KiB.
pub fn proportional(pid: u32) -> f64 {
    proc_number(pid, "smaps_rollup", "Pss:")
}

/// Returns the CPU time that a process has used, in user and kernel mode, in seconds. From schedstat, because the ticks of
/// /proc/PID/stat are too coarse for short rounds.
pub fn cpu(pid: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let spent = threads.map(|thread| {
        let schedstat = thread.expect("a thread").path().join("schedstat");
        let text = fs::read_to_string(schedstat).expect("a line of /proc");
        let nanoseconds = text.split_whitespace().next().and_then(|number| number.parse().ok());
        nanoseconds.unwrap_or(f64::NAN) / 1e9
    });
    spent.sum()
}
