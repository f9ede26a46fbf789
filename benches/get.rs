//! `wxtoken get -r` against `jq -r .access_token FILE`: what a shell script pays to read a token, from starting the
//! process to its end. `jq` only picks a field; `get` also says no when the token has run out.
//!
//! `true` is the floor under both: what it costs on this machine to start any program at all. Runs take turns, so that
//! whatever else the machine does happens to all of them alike.

mod support;

use std::path::Path;
use std::process::Command;

use support::TOKEN;

const ROUNDS: usize = 25;

/// In each round, of each program.
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

    let (ratio, times) = support::race(ROUNDS, RUNS, &mut commands);

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
