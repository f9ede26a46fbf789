//! Compares `wxtoken serve` with nginx serving the same JSON as a static file, one worker each, over kept-alive
//! connections: requests per second, CPU time per request, memory under load, and memory of 10,000 idle connections.
//!
//! nginx runs as usual (sendfile, no access log), and on two more ports with `open_file_cache`, which serves a new token up
//! to a minute late, and with `return 200`, which opens no file and never serves a new token. None of them adds headers or
//! stops at the end of the token's lifetime; wxtoken does both.
//!
//! In each round the servers take turns, and ratios are taken within a round, so that other load on the machine affects all
//! of them alike. nginx's CPU time is its worker's; its memory is that of master and worker together.
//!
//! Most resident pages are those of the binary and of libc. The static build has fewer:
//! `cargo bench --target x86_64-unknown-linux-musl --bench serve`

mod support;

use std::net::TcpStream;
use std::path::Path;

use support::idle;
use support::load::{FIGURES, Load};
use support::servers::{
    Endpoint, Running, Site, USUAL_CONNECTIONS, can_hold_connections, connect, get, token,
};
use support::{Rounds, TOKEN};

/// Connections, rounds, and seconds per server and round. The rate of a single connection depends on the cores that the
/// kernel picks for client and server, hence many short rounds.
const LOADS: [(usize, usize, u64); 2] = [(64, 9, 2), (1, 21, 1)];

/// The number of idle connections, and the limit set on both servers.
const IDLE: usize = 10_000;
const MANY_CONNECTIONS: usize = 12_000;

/// nginx's ports; the targets compare with the first.
const SITES: [Site<'_>; 3] = [
    Site { name: "static file", directives: "", tls: None },
    Site {
        name: "open_file_cache",
        directives: "open_file_cache max=100 inactive=60s; open_file_cache_valid 60s;",
        tls: None,
    },
    Site { name: "return 200", directives: "return 200 '{ANSWER}';", tls: None },
];

/// The target for each figure, relative to nginx.
const TARGETS: [&str; FIGURES.len()] = [
    "target: at least 1",
    "target: at most 1",
    "target: at most 0.33",
    "shared pages divided by their users",
];

fn main() {
    support::only_under_cargo_bench();
    let Some(nginx) = support::find_program("nginx") else { return };
    let Some(wrk) = support::find_program("wrk") else { return };
    let dir = tempfile::tempdir().expect("a directory");
    support::publish(&dir.path().join("default.json"), 7200);

    for (connections, rounds, secs) in LOADS {
        let load = Load::new(&wrk, connections, secs);
        let title = format!("connections: {connections}; {rounds} rounds of {secs} s, by turns");
        under_load(&nginx, dir.path(), &load, rounds, &title);
    }
    if can_hold_connections(IDLE) {
        idle(&nginx, dir.path());
    }
}

fn under_load(nginx: &Path, dir: &Path, load: &Load, rounds: usize, title: &str) {
    // Started anew for each load, because the previous one affects memory.
    let servers = [
        Running::wxtoken("wxtoken", dir, &[]),
        Running::nginx(nginx, dir, USUAL_CONNECTIONS, &SITES),
    ];
    let endpoints: Vec<&Endpoint> = servers.iter().flat_map(|server| &server.endpoints).collect();
    for endpoint in &endpoints {
        assert_eq!(
            token(&get(&mut connect(endpoint.address), "/token")),
            TOKEN,
            "{}",
            endpoint.name
        );
        load.drive(endpoint, "/token"); // Warm-up.
    }
    let driven = Rounds::run(rounds, endpoints.len(), |nth| load.drive(endpoints[nth], "/token"));

    support::print_header(title);
    for (nth, endpoint) in endpoints.iter().enumerate().skip(1) {
        for (which, (what, _)) in FIGURES.iter().enumerate() {
            // Memory is that of the same process for all of nginx's ports.
            if nth == 1 || !what.contains("memory") {
                let target = if nth == 1 { TARGETS[which] } else { "" };
                let ratio = driven.ratio(0, nth, which);
                support::print_row(&format!("{what}, wxtoken : {}", endpoint.name), &ratio, target);
            }
        }
    }
    for (nth, endpoint) in endpoints.iter().enumerate() {
        for (which, (what, unit)) in FIGURES.iter().enumerate() {
            let figure = driven.figure(nth, which);
            support::print_row(&format!("{}, {what}{unit}", endpoint.name), &figure, "");
        }
    }
}

fn idle(nginx: &Path, dir: &Path) {
    let many = MANY_CONNECTIONS.to_string();
    let wxtoken = || Running::wxtoken("wxtoken", dir, &["--max-connections", &many]);
    let nginx = || Running::nginx(nginx, dir, MANY_CONNECTIONS, &SITES[..1]);
    let open = |endpoint: &Endpoint| connect(endpoint.address);
    let ask = |stream: &mut TcpStream| assert_eq!(token(&get(stream, "/token")), TOKEN);
    idle::print_header(IDLE);
    let each = idle::memory_of_each(IDLE, wxtoken, open, ask);
    support::print_row("wxtoken, resident KiB per connection", &each, "target: at most 16");
    let each = idle::memory_of_each(IDLE, nginx, open, ask);
    support::print_row("nginx, static file, resident KiB per connection", &each, "");
}
