//! Compares `wxtoken get -r` from a Redis store with `redis-cli GET` of the same key: the wall time for a shell script to
//! read a token, from the start of the process to its end. `redis-cli` only prints the document; `get` extracts the token,
//! fails if it has expired, and updates this host's copy.

mod support;

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use support::{Server, TOKEN};

const ROUNDS: usize = 25;

/// Runs of each program in each round.
const RUNS: usize = 20;

fn main() {
    support::only_under_cargo_bench();
    let Some(redis_server) = support::find_program("redis-server") else { return };
    let Some(redis_cli) = support::find_program("redis-cli") else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let free = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
    let port = free.expect("a free port").port().to_string();
    let mut command = Command::new(redis_server);
    command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--dir"]).arg(dir.path());
    let _server = Server::start({
        command.stdout(Stdio::null());
        command
    });
    let cli = |args: &[&str]| {
        let mut command = Command::new(&redis_cli);
        command.args(["-p", &port]).args(args);
        command
    };
    while !cli(&["ping"]).output().is_ok_and(|output| output.stdout == b"PONG\n") {
        sleep(Duration::from_millis(20));
    }

    let config = dir.path().join("wxtoken.toml");
    let text = format!(
        "store = \"redis://127.0.0.1:{port}\"\n[account.shop]\nappid = \"wx0123456789abcdef\"\n"
    );
    fs::write(&config, text).expect("a config");
    let document = dir.path().join("document");
    support::publish(&document, 7200);
    let text = fs::read_to_string(&document).expect("a document");
    assert!(cli(&["set", "wxtoken:shop", text.trim_end()]).output().is_ok());

    let mut get = support::wxtoken();
    get.args(["get", "-r", "shop", "--config"]).arg(&config).arg("--dir").arg(dir.path());
    let mut commands = [get, cli(&["get", "wxtoken:shop"])];
    for command in &mut commands {
        let output = command.output().expect("it starts");
        assert!(String::from_utf8_lossy(&output.stdout).contains(TOKEN), "{command:?}");
    }

    let (ratio, times) = support::compare_run_times(ROUNDS, RUNS, &mut commands);

    support::print_header(&format!(
        "a token from Redis, {ROUNDS} rounds of {RUNS} runs each, by turns"
    ));
    support::print_row("wall time, wxtoken get -r : redis-cli get", &ratio, "target: at most 1.5");
    for (name, times) in ["wxtoken get -r", "redis-cli get"].iter().zip(&times) {
        support::print_row(&format!("{name}, ms"), times, "");
    }
}
