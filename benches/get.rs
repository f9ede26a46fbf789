//! `wxtoken get -r` against `jq -r .access_token FILE`: what a shell script pays to read a token, from starting the
//! process to its end. `jq` only picks a field; `get` also says no when the token has run out.
//!
//! `true` is the floor under both: what it costs on this machine to start any program at all. Runs take turns, so that
//! whatever else the machine does happens to all of them alike.

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use support::{Spread, TOKEN};

const ROUNDS: usize = 25;

/// In each round, of each program; one run is too short to be compared with another one.
const RUNS: usize = 20;

fn main() {
    support::only_under_cargo_bench();
    let Some(jq) = support::peer("jq") else { return };
    let Some(nothing) = support::peer("true") else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let document = dir.path().join("default.json");
    support::publish(&document, 7200);

    let mut get = support::wxtoken();
    get.args(["get", "-r", "--file"]).arg(&document);
    let mut commands = [get, jq_on(&jq, &document), Command::new(nothing)];
    for command in &mut commands[..2] {
        let output = command.output().expect("it starts");
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{TOKEN}\n"), "{command:?}");
    }

    let mut ratio = Spread::default();
    let mut times: [Spread; 3] = Default::default();
    for _ in 0..ROUNDS {
        let mut spent = [0.0; 3];
        for _ in 0..RUNS {
            for (command, spent) in commands.iter_mut().zip(&mut spent) {
                *spent += milliseconds(command);
            }
        }
        ratio.add(spent[0] / spent[1]);
        times.iter_mut().zip(spent).for_each(|(times, spent)| times.add(spent / RUNS as f64));
    }

    support::head(&format!("reading a token, {ROUNDS} rounds of {RUNS} runs each, taking turns"));
    support::row("wall time, wxtoken get -r : jq -r", &ratio, "target: at most 0.5");
    for (name, times) in ["wxtoken get -r", "jq -r .access_token", "true"].iter().zip(&times) {
        support::row(&format!("{name}, ms"), times, "");
    }
}

fn jq_on(jq: &Path, document: &Path) -> Command {
    let mut command = Command::new(jq);
    command.args(["-r", ".access_token"]).arg(document);
    command
}

fn milliseconds(command: &mut Command) -> f64 {
    command.stdout(Stdio::null());
    let begun = Instant::now();
    let status = command.status().expect("it starts");
    let spent = begun.elapsed();
    assert!(status.success(), "{command:?}: {status}");
    spent.as_secs_f64() * 1000.0
}
