//! Compares `wxtoken get -r` with `jq -r .access_token FILE`: the wall time for a shell script to read a token, from the
//! start of the process to its end. `jq` only extracts a field; `get` also fails if the token has expired.
//!
//! `true` gives the lower bound: the cost of starting any program on this machine. Programs run by turns, so that other
//! load on the machine affects all of them alike.

mod support;

use std::path::Path;
use std::process::Command;

use support::TOKEN;

const ROUNDS: usize = 25;

/// Runs of each program in each round.
const RUNS: usize = 20;

fn main() {
    support::only_under_cargo_bench();
    let Some(jq) = support::find_program("jq") else { return };
    let Some(true_program) = support::find_program("true") else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let document = dir.path().join("default.json");
    support::publish(&document, 7200);

    let mut get = support::wxtoken();
    get.args(["get", "-r", "--file"]).arg(&document);
    let mut commands = [get, jq_command(&jq, &document), Command::new(true_program)];
    for command in &mut commands[..2] {
        let output = command.output().expect("it starts");
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{TOKEN}\n"), "{command:?}");
    }

    let (ratio, times) = support::compare_run_times(ROUNDS, RUNS, &mut commands);

    support::print_header(&format!(
        "reading a token, {ROUNDS} rounds of {RUNS} runs each, by turns"
    ));
    support::print_row("wall time, wxtoken get -r : jq -r", &ratio, "target: at most 0.5");
    for (name, times) in ["wxtoken get -r", "jq -r .access_token", "true"].iter().zip(&times) {
        support::print_row(&format!("{name}, ms"), times, "");
    }
}

fn jq_command(jq: &Path, document: &Path) -> Command {
    let mut command = Command::new(jq);
    command.args(["-r", ".access_token"]).arg(document);
    command
}
