//! wxtoken beside what would be used in its place, in one run and one table, ratios first.
//!
//! Servers: nginx with `return` and with a static file, Caddy with the same file, small servers in Go and for Node.js as
//! teams write them (`peers/`), and GET from a Redis. nginx has one worker; the others run as they come, and all their
//! threads count. wxtoken and the small servers tell what life is left, the others repeat what they have. `redis-benchmark`
//! drives Redis, wrk the others.
//!
//! Programs: `jq` with the document, `redis-cli GET`, and `curl` of `serve`.
//!
//! Latency: `GET /token` over 1,000 connections, quiet, and while a token is refreshed each second, the server reloads, and
//! over HTTPS clients make 100 handshakes a second.
//!
//! Instructions, where valgrind is installed, are those of user space, beside a program that prints a line.
//!
//! `RESULTS.md` has what was printed last, with the machine.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustix::process::{Pid, Signal, kill_process};
use rustls::HandshakeKind;
use rustls::version::TLS13;
use support::http::start_server;
use support::load::{CPU, FIGURES, Load, RATE, RESIDENT, p99_ms};
use support::servers::{
    Endpoint, Identity, Running, Site, USUAL_CONNECTIONS, can_hold_connections, connect,
    free_addresses, get, token,
};
use support::tls::{Authority, open};
use support::{Rounds, Server, Spread, TOKEN, cpu, proportional, resident, run_time_ms};

/// Connections, rounds, and seconds per server and round.
const CONNECTIONS: usize = 64;
const ROUNDS: usize = 5;
const SECS: u64 = 2;

/// GETs of Redis in a round, which take about as long.
const REDIS_REQUESTS: usize = 100_000;

/// Rounds of programs, and runs of each in a round.
const PROGRAM_ROUNDS: usize = 15;
const RUNS: usize = 10;

/// The same for latency.
const MANY: usize = 1000;
const LATENCY_ROUNDS: usize = 5;
const LATENCY_SECS: u64 = 4;

/// Between two handshakes of 100 a second.
const HANDSHAKE_INTERVAL: Duration = Duration::from_millis(10);

const APPID: &str = "wx0123456789abcdef";
const SECRET: &str = "0123456789abcdef0123456789abcdef";

struct Tools {
    nginx: PathBuf,
    wrk: PathBuf,
    caddy: PathBuf,
    redis_server: PathBuf,
    redis_cli: PathBuf,
    redis_benchmark: PathBuf,
    go: PathBuf,
    node: PathBuf,
    jq: PathBuf,
    curl: PathBuf,
}

impl Tools {
    fn find() -> Option<Tools> {
        let find = support::find_program;
        Some(Tools {
            nginx: find("nginx")?,
            wrk: find("wrk")?,
            caddy: find("caddy")?,
            redis_server: find("redis-server")?,
            redis_cli: find("redis-cli")?,
            redis_benchmark: find("redis-benchmark")?,
            go: find("go")?,
            node: find("node")?,
            jq: find("jq")?,
            curl: find("curl")?,
        })
    }
}

fn main() {
    support::only_under_cargo_bench();
    let Some(tools) = Tools::find() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    support::publish(&dir.join("default.json"), 7200);

    let peers = Peers::start(&tools, dir);
    peers.compare_servers(&tools);
    peers.compare_programs(&tools, dir);
    drop(peers);
    compare_instructions(&tools, dir);
    if can_hold_connections(2 * MANY) {
        compare_latency(&tools, dir);
    }
}

/// wxtoken comes first, Redis last.
struct Peers {
    running: Vec<Running>,
}

impl Peers {
    fn start(tools: &Tools, dir: &Path) -> Peers {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers");
        let document = dir.join("default.json");
        let sites = [
            Site { name: "return 200", directives: "return 200 '{ANSWER}';", tls: None },
            Site { name: "static file", directives: "", tls: None },
        ];
        let nginx = Running::nginx(&tools.nginx, dir, USUAL_CONNECTIONS, &sites);
        let addresses = free_addresses(2);
        let mut caddy = Command::new(&tools.caddy);
        caddy.args(["run", "--adapter", "caddyfile", "--config"]).arg(sources.join("Caddyfile"));
        caddy.env("PORT", addresses[0].port().to_string()).env("ROOT", dir.join("nginx/www"));
        caddy.env("HOME", dir);
        let mut build = Command::new(&tools.go);
        build.args(["build", "-o"]).arg(dir.join("token-go")).arg(sources.join("token.go"));
        assert!(build.status().expect("go starts").success());
        let mut go = Command::new(dir.join("token-go"));
        go.arg(&document);
        let mut node = Command::new(&tools.node);
        node.arg(sources.join("token.js")).arg(&document);
        let mut redis = Command::new(&tools.redis_server);
        redis.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"]);
        redis.arg(addresses[1].port().to_string()).current_dir(dir);
        let running = vec![
            Running::wxtoken("wxtoken", dir, &[]),
            nginx,
            Running::at("Caddy", addresses[0], caddy),
            Running::announced("Go server", go),
            Running::announced("Node.js server", node),
            Running::at("Redis GET", addresses[1], redis),
        ];
        let peers = Peers { running };
        let answer = get(&mut connect(peers.endpoints()[0].address), "/token");
        let set = peers.redis_cli(tools).args(["set", "token", &answer]).output();
        assert_eq!(set.expect("redis-cli starts").stdout, b"OK\n");
        peers
    }

    fn endpoints(&self) -> Vec<&Endpoint> {
        self.running.iter().flat_map(|it| &it.endpoints).collect()
    }

    fn redis(&self) -> &Endpoint {
        self.endpoints().last().expect("it is the last")
    }

    fn redis_cli(&self, tools: &Tools) -> Command {
        let mut command = Command::new(&tools.redis_cli);
        command.args(["-p", &self.redis().address.port().to_string()]);
        command
    }

    fn compare_servers(&self, tools: &Tools) {
        let (endpoints, load) = (self.endpoints(), Load::new(&tools.wrk, CONNECTIONS, SECS));
        let redis = endpoints.len() - 1;
        for endpoint in &endpoints[..redis] {
            let answer = get(&mut connect(endpoint.address), "/token");
            assert_eq!(token(&answer), TOKEN, "{}", endpoint.name);
        }
        let drive = |nth| match nth == redis {
            true => drive_redis(tools, endpoints[nth]),
            false => load.drive(endpoints[nth], "/token"),
        };
        // Warm-up.
        for nth in 0..endpoints.len() {
            drive(nth);
        }
        let driven = Rounds::run(ROUNDS, endpoints.len(), drive);
        support::print_header(&format!(
            "token servers, {CONNECTIONS} connections; {ROUNDS} rounds of {SECS} s, by turns"
        ));
        let figures = [CPU, RATE, RESIDENT];
        for which in figures {
            for (nth, endpoint) in endpoints.iter().enumerate().skip(1) {
                let what = format!("{}, wxtoken : {}", FIGURES[which].0, endpoint.name);
                support::print_row(&what, &driven.ratio(0, nth, which), "");
            }
        }
        for which in figures {
            for (nth, endpoint) in endpoints.iter().enumerate() {
                let what = format!("{}, {}{}", endpoint.name, FIGURES[which].0, FIGURES[which].1);
                support::print_row(&what, &driven.figure(nth, which), "");
            }
        }
    }

    fn compare_programs(&self, tools: &Tools, dir: &Path) {
        let document = dir.join("default.json");
        let mut get = support::wxtoken();
        get.args(["get", "-r", "--file"]).arg(&document);
        let mut jq = Command::new(&tools.jq);
        jq.args(["-r", ".access_token"]).arg(&document);
        let mut redis = self.redis_cli(tools);
        redis.args(["get", "token"]);
        let mut curl = Command::new(&tools.curl);
        curl.args(["-sS", "--fail", &self.endpoints()[0].url("/token")]);
        let mut programs = [
            ("wxtoken get -r", get),
            ("jq", jq),
            ("redis-cli GET", redis),
            ("curl of serve", curl),
            ("true", Command::new("true")),
        ];
        let drive = |nth: usize| {
            let command = &mut programs[nth].1;
            [(0..RUNS).map(|_| run_time_ms(command)).sum::<f64>() / RUNS as f64]
        };
        let driven = Rounds::run(PROGRAM_ROUNDS, 5, drive);
        support::print_header(&format!(
            "programs that print a token, {PROGRAM_ROUNDS} rounds of {RUNS} runs, by turns"
        ));
        for (nth, (name, _)) in programs.iter().enumerate().skip(1) {
            let what = format!("wall time, wxtoken get -r : {name}");
            support::print_row(&what, &driven.ratio(0, nth, 0), "");
        }
        for (nth, (name, _)) in programs.iter().enumerate() {
            support::print_row(&format!("{name}, ms"), &driven.figure(nth, 0), "");
        }
    }
}

/// Returns the figures of [`Load::drive`] for GETs of the answer.
fn drive_redis(tools: &Tools, endpoint: &Endpoint) -> [f64; FIGURES.len()] {
    let mut command = Command::new(&tools.redis_benchmark);
    command.args(["-q", "-p", &endpoint.address.port().to_string()]);
    command.args(["-c", &CONNECTIONS.to_string(), "-n", &REDIS_REQUESTS.to_string()]);
    let before = cpu(endpoint.worker);
    let output = command.args(["GET", "token"]).output().expect("redis-benchmark starts");
    let spent = cpu(endpoint.worker) - before;
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    // It writes its progress over itself.
    let rate = output.rsplit(['\r', '\n']).find_map(|line| line.split_once(" requests per second"));
    let rate = rate.and_then(|(line, _)| line.rsplit(' ').next()?.parse().ok());
    let memory = [resident, proportional].map(|measure| endpoint.memory(measure));
    let spent = spent * 1e6 / REDIS_REQUESTS as f64;
    [rate.unwrap_or_else(|| panic!("{output}")), spent, memory[0], memory[1]]
}

fn compare_instructions(tools: &Tools, dir: &Path) {
    let Some(valgrind) = support::find_program("valgrind") else { return };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/hello.rs");
    let hello = dir.join("hello");
    let mut build = Command::new("rustc");
    build.args(["-Copt-level=s", "-Cstrip=symbols", "-o"]).arg(&hello).arg(source);
    assert!(build.status().expect("rustc starts").success());
    let document = dir.join("default.json");
    let secret = secret(dir);
    let count = |mut command: Command| {
        let mut counted = Command::new(&valgrind);
        counted.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
        counted.arg(command.get_program()).args(command.get_args());
        // The system's CA store is read where these name it.
        counted.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
        assert!(command.output().expect("it starts").status.success(), "{command:?}");
        let output = counted.output().expect("valgrind starts");
        let text = String::from_utf8_lossy(&output.stderr);
        // What crashes under valgrind has not done its work.
        assert!(output.status.success(), "{text}");
        let count = text.lines().find_map(|line| line.split_once("Collected :"));
        let count = count.and_then(|(_, count)| count.trim().parse::<f64>().ok());
        count.unwrap_or_else(|| panic!("{text}"))
    };
    let with = |args: &[&str], file: &str| {
        let mut command = support::wxtoken();
        command.args(args).arg(file).arg(&document);
        command
    };
    let fetch = ["fetch", "--appid", APPID, "--secret-file", secret.to_str().expect("text")];
    // The same program with the same libraries, which reads the same verb's command line and prints a line.
    let version = |verb: &str| {
        let mut command = support::wxtoken();
        command.args([verb, "--version"]);
        count(command)
    };
    let mut jq = Command::new(&tools.jq);
    jq.args(["-r", ".access_token"]).arg(&document);
    let hello = count(Command::new(hello));
    support::print_header("instructions in user space, one run");
    let verbs = [
        ("wxtoken get -r", count(with(&["get", "-r"], "--file")), version("get")),
        ("wxtoken fetch, nothing due", count(with(&fetch, "--file")), version("fetch")),
    ];
    for (name, count, version) in verbs {
        let mut spread = Spread::default();
        spread.add(count / version);
        let what = format!("{name} : the verb with --version");
        support::print_row(&what, &spread, "target: at most 1.3");
    }
    let counts = [
        (verbs[0].0, verbs[0].1),
        ("wxtoken get --version", verbs[0].2),
        (verbs[1].0, verbs[1].1),
        ("wxtoken fetch --version", verbs[1].2),
        ("jq -r .access_token", count(jq)),
    ];
    for (what, by) in [(" : a program that prints a line", hello), (", thousands", 1000.0)] {
        for (name, count) in counts {
            let mut spread = Spread::default();
            spread.add(count / by);
            support::print_row(&format!("{name}{what}"), &spread, "");
        }
    }
}

fn secret(dir: &Path) -> PathBuf {
    let path = dir.join("default.secret");
    fs::write(&path, SECRET).expect("a secret");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
    path
}

/// A server under the load of many connections, and what else goes on.
struct Latency<'a> {
    wrk: &'a Path,
    dir: &'a Path,
    authority: &'a Authority,
    fetch: Vec<String>,
}

fn compare_latency(tools: &Tools, dir: &Path) {
    let home = dir.join("latency");
    fs::create_dir(&home).expect("a directory");
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).expect("a mode");
    let authority = Authority::new();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let identity = authority.identity(&home, "P-256", &key);
    let mut mock = support::wxtoken();
    mock.args(["mock", "--account", &format!("{APPID}:{SECRET}")]);
    let (_mock, address): (Server, _) = start_server(mock);
    let (base_url, secret) = (format!("http://{address}"), secret(&home).display().to_string());
    let account =
        ["--api", "classic", "--appid", APPID, "--secret-file", &secret, "--base-url", &base_url];
    let fetch = ["fetch", "--force", "--dir", home.to_str().expect("text")];
    let fetch = fetch.iter().chain(&account).map(|it| (*it).to_owned()).collect();
    let latency = Latency { wrk: &tools.wrk, dir: &home, authority: &authority, fetch };
    latency.refresh();
    let many = (2 * MANY).to_string();
    let flags = [&["--refresh", "--max-connections", &many], &account[..]].concat();
    for (protocol, identity) in [("HTTP", None), ("HTTPS", Some(&identity))] {
        latency.compare(&tools.nginx, protocol, identity, &flags);
    }
}

impl Latency<'_> {
    fn compare(&self, nginx: &Path, protocol: &str, tls: Option<&Identity>, flags: &[&str]) {
        let wxtoken = match tls {
            Some(identity) => Running::wxtoken_with_tls("wxtoken", self.dir, identity, flags),
            None => Running::wxtoken("wxtoken", self.dir, flags),
        };
        let sites = [Site { name: "static file", directives: "", tls }];
        let nginx = Running::nginx(nginx, self.dir, 2 * MANY, &sites);
        let endpoints = [&wxtoken.endpoints[0], &nginx.endpoints[0]];
        for is_quiet in [true, false] {
            let driven = Rounds::run(LATENCY_ROUNDS, 2, |nth| self.drive(endpoints[nth], is_quiet));
            let what = match (is_quiet, tls) {
                (true, _) => "quiet",
                (false, None) => "with refreshes and a reload",
                (false, Some(_)) => "with refreshes, a reload and 100 handshakes/s",
            };
            support::print_header(&format!(
                "{protocol}, {MANY} connections, {what}; {LATENCY_ROUNDS} rounds of {LATENCY_SECS} s"
            ));
            let ratio = driven.ratio(0, 1, 0);
            support::print_row("p99, wxtoken : nginx, static file", &ratio, "target: at most 2");
            for (nth, endpoint) in endpoints.iter().enumerate() {
                support::print_row(
                    &format!("{}, p99, ms", endpoint.name),
                    &driven.figure(nth, 0),
                    "",
                );
                let what = format!("{}, requests/s", endpoint.name);
                support::print_row(&what, &driven.figure(nth, 1), "");
                let what = format!("{}, requests that failed", endpoint.name);
                support::print_row(&what, &driven.figure(nth, 2), "");
            }
        }
    }

    /// Returns p99 in milliseconds, the rate, and how many requests failed.
    fn drive(&self, endpoint: &Endpoint, is_quiet: bool) -> [f64; 3] {
        let mut command = Command::new(self.wrk);
        command.args(["-t1", &format!("-c{MANY}"), &format!("-d{LATENCY_SECS}s"), "--latency"]);
        command.arg(endpoint.url("/token")).stdout(Stdio::piped());
        let is_over = AtomicBool::new(is_quiet);
        let output = scope(|scope| {
            let driving = command.spawn().expect("wrk starts");
            scope.spawn(|| self.operate(endpoint, &is_over));
            if endpoint.scheme == "https" {
                scope.spawn(|| self.shake_hands(endpoint, &is_over));
            }
            let output = driving.wait_with_output().expect("wrk ends");
            is_over.store(true, Ordering::Relaxed);
            output
        });
        let output = String::from_utf8_lossy(&output.stdout).into_owned();
        let rate = output.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
        let rate = rate.and_then(|rate| rate.trim().parse().ok()).expect("wrk counts");
        // "Socket errors: connect 0, read 0, write 0, timeout 0", and "Non-2xx or 3xx responses: 0".
        let failures =
            output.lines().filter(|line| line.contains("errors:") || line.contains("Non-2xx"));
        let failures = failures.flat_map(|line| line.split([' ', ',']));
        let failed: f64 = failures.filter_map(|word| word.parse::<f64>().ok()).sum();
        // The sum of none is -0.
        [p99_ms(&output), rate, failed + 0.0]
    }

    /// Refreshes the token each second, and has the server reload once.
    fn operate(&self, endpoint: &Endpoint, is_over: &AtomicBool) {
        let started = Instant::now();
        let mut has_reloaded = false;
        while !is_over.load(Ordering::Relaxed) {
            self.refresh();
            if !has_reloaded && started.elapsed().as_secs() >= LATENCY_SECS / 2 {
                let main = Pid::from_raw(endpoint.processes[0] as i32).expect("a process");
                kill_process(main, Signal::HUP).expect("it runs");
                has_reloaded = true;
            }
            sleep(Duration::from_secs(1));
        }
    }

    /// Publishes another token, for nginx as well.
    fn refresh(&self) {
        let output = support::wxtoken().args(&self.fetch).output().expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let www = self.dir.join("nginx/www");
        if www.exists() {
            fs::copy(self.dir.join("default.json"), www.join("next")).expect("a copy");
            fs::rename(www.join("next"), www.join("token")).expect("a file");
        }
    }

    fn shake_hands(&self, endpoint: &Endpoint, is_over: &AtomicBool) {
        let client = self.authority.client(&TLS13, HandshakeKind::Full);
        let mut next = Instant::now();
        while !is_over.load(Ordering::Relaxed) {
            let mut stream = open(endpoint, &client);
            // It fails with a worker of nginx that ends meanwhile.
            let _ = stream.conn.complete_io(&mut stream.sock);
            next += HANDSHAKE_INTERVAL;
            sleep(next.saturating_duration_since(Instant::now()));
        }
    }
}
