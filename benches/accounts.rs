//! A thousand accounts in one config: the time of a `wxtoken fetch` that finds nothing due, the time of one that finds all
//! due compared with what WeChat's latency allows, and the CPU time of a request to `wxtoken serve`. The first, and its
//! memory, for ten thousand accounts as well.
//!
//! WeChat is `wxtoken mock` with a latency of one second, without TLS, whose cost does not depend on the number of
//! accounts.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use support::http::start_server;
use support::{Server, Spread, cpu, run_time_ms};

const MANY: usize = 1000;
const VERY_MANY: usize = 10_000;

/// Accounts fetched in parallel, as in src/commands/parallel.rs.
const PARALLEL: usize = 64;

/// The mock's latency in seconds.
const LATENCY: u64 = 1;

const ROUNDS: usize = 15;

/// How long requests are sent in a round.
const LOAD_TIME: Duration = Duration::from_secs(2);

/// Pipelined requests.
const BATCH: usize = 50;

const STATUS: &[u8] = b"HTTP/1.1 200 OK\r\n";

fn main() {
    support::only_under_cargo_bench();
    fetch_with_nothing_due();
    fetch_of_very_many();
    fetch_with_all_due();
    serve_requests();
}

fn fetch_with_nothing_due() {
    let homes =
        [Home::new(MANY, "https://api.weixin.qq.com"), Home::new(1, "https://api.weixin.qq.com")];
    homes.iter().for_each(Home::publish);
    let (mut times, mut checked): ([Spread; 2], [Spread; 2]) = Default::default();
    for _ in 0..ROUNDS {
        for (nth, home) in homes.iter().enumerate() {
            times[nth].add(run_time_ms(&mut home.command("fetch")));
            checked[nth].add(run_time_ms(&mut home.command("status")));
        }
    }
    support::print_header(&format!("a run with nothing due, {ROUNDS} rounds, by turns"));
    support::print_row(&format!("fetch of {MANY} accounts, ms"), &times[0], "target: at most 50");
    support::print_row("fetch of 1 account, ms", &times[1], "");
    support::print_row(&format!("status of {MANY} accounts, ms"), &checked[0], "");
    support::print_row("status of 1 account, ms", &checked[1], "");
}

fn fetch_of_very_many() {
    let home = Home::new(VERY_MANY, "https://api.weixin.qq.com");
    home.publish();
    let (mut times, mut memory) = (Spread::default(), Spread::default());
    for _ in 0..ROUNDS {
        times.add(run_time_ms(&mut home.command("fetch")));
        memory.add(most_resident_mib(&mut home.command("fetch")));
    }
    support::print_header(&format!("a run with nothing due, {ROUNDS} rounds"));
    let what = format!("fetch of {VERY_MANY} accounts");
    support::print_row(&format!("{what}, ms"), &times, "target: at most 60");
    support::print_row(&format!("{what}, most resident, MiB"), &memory, "target: at most 40");
}

/// Runs a program and returns the most memory that it had resident, as far as that was seen.
fn most_resident_mib(command: &mut Command) -> f64 {
    let mut child = command.spawn().expect("it starts");
    let path = format!("/proc/{}/status", child.id());
    let mut most = 0.0;
    while child.try_wait().expect("a child").is_none() {
        let status = fs::read_to_string(&path).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        most = f64::max(most, kib.unwrap_or(0.0) / 1024.0);
    }
    most
}

fn fetch_with_all_due() {
    let mut mock = support::wxtoken();
    mock.args(["mock", "--fault", &format!("slow:{LATENCY}")]);
    for n in 0..MANY {
        mock.args(["--account", &format!("{}:{}", appid(n), secret(n))]);
    }
    let (_mock, address) = start_server(mock);
    let mut ratio = Spread::default();
    let mut secs = Spread::default();
    let ideal = MANY.div_ceil(PARALLEL) as f64 * LATENCY as f64;
    for _ in 0..3 {
        let home = Home::new(MANY, &format!("http://{address}"));
        let mut fetch = home.command("fetch");
        fetch.args(["--timeout", "5m"]);
        let spent = run_time_ms(&mut fetch) / 1000.0;
        ratio.add(spent / ideal);
        secs.add(spent);
    }
    support::print_header(&format!(
        "a run with all due, {PARALLEL} in parallel, latency {LATENCY} s; 3 runs"
    ));
    support::print_row(&format!("fetch of {MANY} accounts, s"), &secs, "");
    support::print_row("wxtoken : WeChat's latency alone", &ratio, "target: at most 1.1");
}

fn serve_requests() {
    let homes =
        [Home::new(MANY, "https://api.weixin.qq.com"), Home::new(1, "https://api.weixin.qq.com")];
    homes.iter().for_each(Home::publish);
    let servers = homes.each_ref().map(|home| {
        let mut serve = home.command("serve");
        serve.args(["--listen", "127.0.0.1:0"]);
        start_server(serve)
    });
    support::print_header(&format!(
        "CPU per request, {MANY} accounts and 1, by turns; 5 rounds of {LOAD_TIME:?}"
    ));
    let by_name = |n: usize| format!("/token/{}", name(n));
    let by_appid = |n: usize| {
        format!("/cgi-bin/token?grant_type=client_credential&appid={}&secret=x", appid(n))
    };
    let routes: [(&str, &dyn Fn(usize) -> String); 2] =
        [("GET /token/ACCOUNT", &by_name), ("GET /cgi-bin/token", &by_appid)];
    for (route, path) in routes {
        let mut ratios: [Spread; 2] = Default::default();
        let mut each: [Spread; 3] = Default::default();
        for _ in 0..5 {
            // The SDK route refuses a request now and then, as often for one account as for a thousand.
            let round = [(0, 1), (0, MANY), (1, 1)].map(|(nth, accounts)| {
                let (server, address) = &servers[nth];
                cpu_per_request(server, *address, accounts, path)
            });
            ratios[0].add(round[0] / round[2]);
            ratios[1].add(round[1] / round[2]);
            each.iter_mut().zip(round).for_each(|(each, it)| each.add(it));
        }
        let target = "target: at most 1.1";
        support::print_row(&format!("{route}, one of {MANY} : of 1"), &ratios[0], target);
        support::print_row(&format!("{route}, all {MANY} in turn : of 1"), &ratios[1], target);
        support::print_row(&format!("{route}, one of {MANY}, us"), &each[0], "");
        support::print_row(&format!("{route}, all {MANY} in turn, us"), &each[1], "");
        support::print_row(&format!("{route}, of 1, us"), &each[2], "");
    }
}

fn name(n: usize) -> String {
    format!("account-{n:04}")
}

fn appid(n: usize) -> String {
    format!("wx{n:016x}")
}

fn secret(n: usize) -> String {
    format!("{n:032x}")
}

/// A directory with a config of so many accounts, and their secrets.
struct Home {
    dir: tempfile::TempDir,
    accounts: usize,
}

impl Home {
    fn new(accounts: usize, base_url: &str) -> Home {
        let dir = tempfile::tempdir().expect("a directory");
        let mut config = "dir = \"state\"\n".to_owned();
        for n in 0..accounts {
            let (name, appid) = (name(n), appid(n));
            config += &format!(
                "\n[account.{name}]\nappid = \"{appid}\"\nsecret_file = \"{name}.secret\"\nbase_url = \"{base_url}\"\n"
            );
            let mut file = fs::OpenOptions::new();
            let file = file.write(true).create_new(true).mode(0o600);
            let file = file.open(dir.path().join(format!("{name}.secret")));
            file.expect("a file").write_all(secret(n).as_bytes()).expect("a secret");
        }
        let path = dir.path().join("wxtoken.toml");
        fs::write(&path, config).expect("a config");
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("a mode");
        Home { dir, accounts }
    }

    /// Publishes documents that are due two hours later.
    fn publish(&self) {
        let state = self.dir.path().join("state");
        fs::create_dir(&state).expect("a directory");
        for n in 0..self.accounts {
            let path = state.join(format!("{}.json", name(n)));
            support::publish(&path, 7200);
            let document = fs::read_to_string(&path).expect("a document");
            fs::write(&path, document.replace("wx0123456789abcdef", &appid(n)))
                .expect("a document");
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("a mode");
        }
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = support::wxtoken();
        command.arg(verb).arg("--config").arg(self.config());
        command
    }

    fn config(&self) -> PathBuf {
        Path::new(self.dir.path()).join("wxtoken.toml")
    }
}

/// Returns the server's CPU time per request in microseconds. Requests are sent over one connection for [`LOAD_TIME`], for
/// one account after the other, and pipelined in batches, so that the cost of wake-ups hardly counts.
fn cpu_per_request(
    server: &Server,
    address: SocketAddr,
    accounts: usize,
    path: &dyn Fn(usize) -> String,
) -> f64 {
    let request = |n| format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", path(n % accounts));
    let batches: Vec<String> =
        (0..MANY).step_by(BATCH).map(|n| (n..n + BATCH).map(request).collect()).collect();
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_nodelay(true).expect("an option");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let mut buffer = vec![0; 64 * 1024];
    let mut send = |batch: &String| {
        stream.write_all(batch.as_bytes()).expect("it reads");
        let mut answers = Vec::new();
        while answers.windows(STATUS.len()).filter(|window| *window == STATUS).count() < BATCH
            || !answers.ends_with(b"}")
        {
            let length = stream.read(&mut buffer).expect("it answers");
            assert!(length > 0, "it hung up");
            answers.extend_from_slice(&buffer[..length]);
        }
    };
    batches.iter().for_each(&mut send); // Warm-up.
    let (started, before, mut sent) = (Instant::now(), cpu(server.pid()), 0);
    for batch in batches.iter().cycle() {
        send(batch);
        sent += BATCH;
        if started.elapsed() >= LOAD_TIME {
            break;
        }
    }
    (cpu(server.pid()) - before) * 1e6 / sent as f64
}
