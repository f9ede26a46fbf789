//! `wxtoken serve` against nginx with the same JSON as a static file, one worker each, over kept-alive connections:
//! requests per second, CPU time per request, memory under that load, and what 10,000 idle connections cost.
//!
//! nginx as people run it (sendfile, no access log), and on two more ports as it could be: with `open_file_cache`,
//! which sees a new token up to a minute late, and with `return 200`, which opens no file and knows no new token at
//! all. None of them is told to add headers or to end with the token's life; wxtoken does both. The load is
//! `wrk -t1`: it takes one core and the server another; where `wrk` is the slower one, CPU per request tells more than
//! requests per second.
//!
//! Each round drives one after the other, and ratios are of one round, so that whatever else the machine does happens
//! to all of them alike. nginx's CPU is its worker's; its memory is the master's and the worker's together.
//!
//! Most of what is resident are pages of the binary and of libc. The static build (README, In a container) has fewer:
//! `RUSTFLAGS='-C target-feature=+crt-static' cargo bench --target x86_64-unknown-linux-gnu --bench serve`

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{Server, Spread, TOKEN, cpu, proportional, resident};

/// Connections, rounds, and how many seconds each is driven in a round. A single connection's rate depends on which
/// cores the scheduler picks for the two sides: many short rounds.
const LOADS: [(usize, usize, u64); 2] = [(64, 9, 2), (1, 21, 1)];

/// How many connections nginx is told to hold: as many as `wxtoken serve` holds if it is not told.
const USUAL_CONNECTIONS: usize = 1024;

/// How many idle connections there are, and how many both sides are told to hold then.
const IDLE: usize = 10_000;
const MANY_CONNECTIONS: usize = 12_000;

/// How long a server has to get used to silence before its memory is looked at; well within a kept-alive minute.
const SILENCE: Duration = Duration::from_secs(4);

/// What nginx is told for each of the ways in which it answers.
const WAYS: [(&str, &str); 3] = [
    ("static file", ""),
    ("open_file_cache", "open_file_cache max=100 inactive=60s; open_file_cache_valid 60s;"),
    ("return 200", "return 200 '{ANSWER}';"),
];

fn main() {
    support::only_under_cargo_bench();
    let Some(nginx) = support::peer("nginx") else { return };
    let Some(wrk) = support::peer("wrk") else { return };
    let dir = tempfile::tempdir().expect("a directory");
    support::publish(&dir.path().join("default.json"));

    for (connections, rounds, secs) in LOADS {
        under_load(&nginx, &wrk, dir.path(), connections, rounds, secs);
    }
    idle(&nginx, dir.path());
}

fn under_load(nginx: &Path, wrk: &Path, dir: &Path, connections: usize, rounds: usize, secs: u64) {
    // New ones for each load: what the last one left in memory is not this one's.
    let servers =
        [Running::wxtoken(dir, USUAL_CONNECTIONS), Running::nginx(nginx, dir, USUAL_CONNECTIONS)];
    let ways: Vec<Way> = servers.iter().flat_map(Running::ways).collect();
    let mut figures: Vec<[Spread; FIGURES.len()]> =
        ways.iter().map(|_| Default::default()).collect();
    let mut ratios: Vec<[Spread; FIGURES.len()]> =
        ways.iter().map(|_| Default::default()).collect();
    for way in &ways {
        assert_eq!(token(&ask(&mut connect(way.at))), TOKEN, "{}", way.name);
        way.drive(wrk, connections, 1); // Warm.
    }
    for _ in 0..rounds {
        let round: Vec<_> = ways.iter().map(|way| way.drive(wrk, connections, secs)).collect();
        for (nth, driven) in round.iter().enumerate() {
            for (which, figure) in driven.iter().enumerate() {
                figures[nth][which].add(*figure);
                ratios[nth][which].add(round[0][which] / figure);
            }
        }
    }

    support::head(&format!(
        "connections: {connections}; {rounds} rounds of {secs} s, taking turns"
    ));
    for (way, ratios) in ways.iter().zip(&ratios).skip(1) {
        for ((what, _, target), ratio) in FIGURES.iter().zip(ratios) {
            // It is the same process in all of nginx's ways, and the first is the one that targets are about.
            let first = way.name == ways[1].name;
            if first || !what.contains("memory") {
                support::row(
                    &format!("{what}, wxtoken : {}", way.name),
                    ratio,
                    if first { target } else { "" },
                );
            }
        }
    }
    for (way, figures) in ways.iter().zip(&figures) {
        for ((what, unit, _), figure) in FIGURES.iter().zip(figures) {
            support::row(&format!("{}, {what}{unit}", way.name), figure, "");
        }
    }
}

/// What is found out by driving a server, in which unit, and what wxtoken's part of it should be.
const FIGURES: [(&str, &str, &str); 4] = [
    ("requests/s", "", "target: at least 1"),
    ("CPU per request", ", us", "target: at most 1"),
    ("memory, resident", ", KiB", "target: at most 0.33"),
    ("memory, proportional", ", KiB", "what is shared divided by those who share it"),
];

/// Idle connections, each of which has asked once, all of them within a moment: the worst that peers who keep their
/// connections can do to memory.
fn idle(nginx: &Path, dir: &Path) {
    let limit = getrlimit(Resource::Nofile);
    let needed = (IDLE + 100) as u64;
    let raised = Rlimit { current: Some(needed.max(limit.current.unwrap_or(needed))), ..limit };
    if limit.current.is_some_and(|soft| soft < needed)
        && setrlimit(Resource::Nofile, raised).is_err()
    {
        println!("\nnot here: {IDLE} idle connections need ulimit -Hn {needed}");
        return;
    }
    support::head(&format!("{IDLE} idle connections; 3 runs, memory looked at after {SILENCE:?}"));
    let start: [&dyn Fn() -> Running; 2] = [&|| Running::wxtoken(dir, MANY_CONNECTIONS), &|| {
        Running::nginx(nginx, dir, MANY_CONNECTIONS)
    }];
    for (start, (name, target)) in
        start.iter().zip([("wxtoken", "target: at most 16"), ("nginx, static file", "")])
    {
        let mut each = Spread::default();
        for _ in 0..3 {
            let server = start();
            let at = server.at[0];
            ask(&mut connect(at));
            let before = server.memory(resident);
            let mut connections: Vec<TcpStream> = (0..IDLE).map(|_| connect(at)).collect();
            for stream in &mut connections {
                ask(stream);
            }
            sleep(SILENCE);
            each.add((server.memory(resident) - before) / IDLE as f64);
            // They are still served, the first and the last.
            assert_eq!(token(&ask(&mut connections[0])), TOKEN);
            assert_eq!(token(&ask(&mut connections[IDLE - 1])), TOKEN);
        }
        support::row(&format!("{name}, resident KiB per connection"), &each, target);
    }
}

/// A server, and the addresses at which it answers: one for each of its ways.
struct Running {
    names: Vec<String>,
    at: Vec<SocketAddr>,
    server: Server,
}

/// One of a server's ways to answer.
struct Way<'a> {
    name: &'a str,
    at: SocketAddr,
    running: &'a Running,
}

impl Running {
    fn wxtoken(dir: &Path, connections: usize) -> Running {
        let mut command = support::wxtoken();
        command.args(["serve", "--listen", "127.0.0.1:0", "--dir"]).arg(dir);
        command.arg("--max-connections").arg(connections.to_string()).stdout(Stdio::piped());
        let mut server = Server::start(command);
        let mut line = String::new();
        let stdout = server.child().stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let at = line.trim().strip_prefix("listening on http://").and_then(|at| at.parse().ok());
        Running { names: vec!["wxtoken".to_owned()], at: vec![at.expect("an address")], server }
    }

    fn nginx(nginx: &Path, dir: &Path, connections: usize) -> Running {
        let home = dir.join("nginx");
        fs::create_dir_all(home.join("www")).expect("a directory");
        let answer = format!(r#"{{"access_token":"{TOKEN}","expires_in":7200}}"#);
        fs::write(home.join("www/token"), &answer).expect("a file");
        let at = free_addresses(WAYS.len());
        let servers = WAYS.iter().zip(&at).map(|((_, how), at)| {
            let how = how.replace("{ANSWER}", &answer);
            format!("server {{ listen {at} backlog=1024; root www; location / {{ {how} }} }}\n")
        });
        let config = format!(
            // As root it would become somebody who cannot read this directory.
            "user root; daemon off; worker_processes 1; pid pid; worker_rlimit_nofile {};\n\
             events {{ worker_connections {connections}; }}\n\
             http {{ access_log off; sendfile on; default_type application/json;\n\
             keepalive_timeout 300s; keepalive_requests 1000000000;\n\
             client_body_temp_path a; proxy_temp_path b; fastcgi_temp_path c; uwsgi_temp_path d; scgi_temp_path e;\n\
             {} }}\n",
            connections + 100,
            servers.collect::<String>(),
        );
        fs::write(home.join("nginx.conf"), config).expect("a file");
        let stderr = fs::File::create(home.join("stderr")).expect("a file");
        let mut command = Command::new(nginx);
        command.arg("-p").arg(&home).args(["-e", "errors", "-c", "nginx.conf"]);
        let server = Server::start({
            command.stdin(Stdio::null()).stderr(stderr);
            command
        });
        let begun = Instant::now();
        while TcpStream::connect(at[0]).is_err() {
            let errors = fs::read_to_string(home.join("stderr")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(10), "nginx does not start: {errors}");
            sleep(Duration::from_millis(10));
        }
        Running {
            names: WAYS.iter().map(|(name, _)| format!("nginx, {name}")).collect(),
            at,
            server,
        }
    }

    fn ways(&self) -> impl Iterator<Item = Way<'_>> {
        self.names.iter().zip(&self.at).map(|(name, at)| Way { name, at: *at, running: self })
    }

    /// The process that was started, and its children.
    fn processes(&self) -> Vec<u32> {
        let parent = self.server.pid();
        let children = format!("/proc/{parent}/task/{parent}/children");
        let children = fs::read_to_string(children).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        [parent].into_iter().chain(children).collect()
    }

    fn memory(&self, of: fn(u32) -> f64) -> f64 {
        self.processes().into_iter().map(of).sum()
    }
}

impl Way<'_> {
    /// Has it driven by `wrk`, and returns the [`FIGURES`].
    fn drive(&self, wrk: &Path, connections: usize, secs: u64) -> [f64; FIGURES.len()] {
        let mut command = Command::new(wrk);
        command.args(["-t1", &format!("-c{connections}"), &format!("-d{secs}s")]);
        command.arg(format!("http://{}/token", self.at)).stdout(Stdio::piped());
        // The one who answers: nginx's is the master's child.
        let worker = *self.running.processes().last().expect("there is one");
        let before = cpu(worker);
        let mut driving = command.spawn().expect("wrk starts");
        sleep(Duration::from_millis(secs * 500)); // Memory is looked at in the middle.
        let memory = [resident, proportional].map(|of| self.running.memory(of));
        let mut said = String::new();
        driving.stdout.take().expect("a pipe").read_to_string(&mut said).expect("text");
        assert!(driving.wait().expect("wrk ends").success(), "{said}");
        let spent = cpu(worker) - before;
        let failures = ["Non-2xx", "Socket errors"];
        assert!(!failures.iter().any(|it| said.contains(it)), "{}: {said}", self.name);
        let number = |text: Option<&str>| text.and_then(|text| text.trim().parse::<f64>().ok());
        let requests = said.lines().find_map(|line| Some(line.split_once(" requests in ")?.0));
        let rate = said.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
        let (requests, rate) = number(requests).zip(number(rate)).expect("wrk counts");
        [rate, spent * 1e6 / requests, memory[0], memory[1]]
    }
}

/// Where nobody listens: nginx has to be told its ports.
fn free_addresses(count: usize) -> Vec<SocketAddr> {
    let free = || TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listeners: Vec<TcpListener> = (0..count).map(|_| free()).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("an address")).collect()
}

fn connect(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    stream
}

/// One request over a connection that stays; the answer's body.
fn ask(stream: &mut TcpStream) -> Vec<u8> {
    stream.write_all(b"GET /token HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it reads");
    let mut answer = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        let n = stream.read(&mut buffer).expect("it answers");
        assert!(n > 0, "it hung up");
        answer.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&answer).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let head = head.to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if length.and_then(|length| length.parse().ok()) == Some(body.len()) {
            return body.as_bytes().to_vec();
        }
    }
}

fn token(body: &[u8]) -> String {
    let body: serde_json::Value = serde_json::from_slice(body).expect("JSON");
    body["access_token"].as_str().expect("a token").to_owned()
}
