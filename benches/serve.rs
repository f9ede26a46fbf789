//! `wxtoken serve` against nginx with the same JSON as a static file, one worker each, over kept-alive connections:
//! requests per second, CPU time per request, memory under that load, and what 10,000 idle connections cost.
//!
//! nginx as people run it (sendfile, no access log), and on two more ports as it could be: with `open_file_cache`,
//! which sees a new token up to a minute late, and with `return 200`, which opens no file and knows no new token at
//! all. None of them is told to add headers or to end with the token's life; wxtoken does both.
//!
//! Each round drives one after the other, and ratios are of one round, so that whatever else the machine does happens
//! to all of them alike. nginx's CPU is its worker's; its memory is the master's and the worker's together.
//!
//! Most of what is resident are pages of the binary and of libc. The static build (README, In a container) has fewer:
//! `RUSTFLAGS='-C target-feature=+crt-static' cargo bench --target x86_64-unknown-linux-gnu --bench serve`

mod support;

use std::net::TcpStream;
use std::path::Path;

use support::idle;
use support::load::{FIGURES, Load};
use support::servers::{Running, Site, USUAL_CONNECTIONS, Way, ask, can_hold, connect, token};
use support::{Rounds, TOKEN};

/// Connections, rounds, and how many seconds each is driven in a round. A single connection's rate depends on which
/// cores the scheduler picks for the two sides: many short rounds.
const LOADS: [(usize, usize, u64); 2] = [(64, 9, 2), (1, 21, 1)];

/// How many idle connections there are, and how many both sides are told to hold then.
const IDLE: usize = 10_000;
const MANY_CONNECTIONS: usize = 12_000;

/// nginx's ways to answer; the first is the one that targets are about.
const SITES: [Site<'_>; 3] = [
    Site { name: "static file", how: "", tls: None },
    Site {
        name: "open_file_cache",
        how: "open_file_cache max=100 inactive=60s; open_file_cache_valid 60s;",
        tls: None,
    },
    Site { name: "return 200", how: "return 200 '{ANSWER}';", tls: None },
];

/// What wxtoken's part of each figure should be.
const TARGETS: [&str; FIGURES.len()] = [
    "target: at least 1",
    "target: at most 1",
    "target: at most 0.33",
    "what is shared divided by those who share it",
];

fn main() {
    support::only_under_cargo_bench();
    let Some(nginx) = support::peer("nginx") else { return };
    let Some(wrk) = support::peer("wrk") else { return };
    let dir = tempfile::tempdir().expect("a directory");
    support::publish(&dir.path().join("default.json"), 7200);

    for (connections, rounds, secs) in LOADS {
        let load = Load::of(&wrk, connections, secs);
        let title =
            format!("connections: {connections}; {rounds} rounds of {secs} s, taking turns");
        under_load(&nginx, dir.path(), &load, rounds, &title);
    }
    if can_hold(IDLE) {
        idle(&nginx, dir.path());
    }
}

fn under_load(nginx: &Path, dir: &Path, load: &Load, rounds: usize, title: &str) {
    // New ones for each load: what the last one left in memory is not this one's.
    let servers = [
        Running::wxtoken("wxtoken", dir, &[]),
        Running::nginx(nginx, dir, USUAL_CONNECTIONS, &SITES),
    ];
    let ways: Vec<&Way> = servers.iter().flat_map(|server| &server.ways).collect();
    for way in &ways {
        assert_eq!(token(&ask(&mut connect(way.at), "/token")), TOKEN, "{}", way.name);
        load.drive(way, "/token"); // Warm.
    }
    let driven = Rounds::of(rounds, ways.len(), |nth| load.drive(ways[nth], "/token"));

    support::head(title);
    for (nth, way) in ways.iter().enumerate().skip(1) {
        for (which, (what, _)) in FIGURES.iter().enumerate() {
            // It is the same process in all of nginx's ways.
            if nth == 1 || !what.contains("memory") {
                let target = if nth == 1 { TARGETS[which] } else { "" };
                let ratio = driven.ratio(0, nth, which);
                support::row(&format!("{what}, wxtoken : {}", way.name), &ratio, target);
            }
        }
    }
    for (nth, way) in ways.iter().enumerate() {
        for (which, (what, unit)) in FIGURES.iter().enumerate() {
            let figure = driven.figure(nth, which);
            support::row(&format!("{}, {what}{unit}", way.name), &figure, "");
        }
    }
}

fn idle(nginx: &Path, dir: &Path) {
    let many = MANY_CONNECTIONS.to_string();
    let wxtoken = || Running::wxtoken("wxtoken", dir, &["--max-connections", &many]);
    let nginx = || Running::nginx(nginx, dir, MANY_CONNECTIONS, &SITES[..1]);
    let open = |way: &Way| connect(way.at);
    let ask = |stream: &mut TcpStream| assert_eq!(token(&ask(stream, "/token")), TOKEN);
    idle::head(IDLE);
    let each = idle::memory_of_each(IDLE, wxtoken, open, ask);
    support::row("wxtoken, resident KiB per connection", &each, "target: at most 16");
    let each = idle::memory_of_each(IDLE, nginx, open, ask);
    support::row("nginx, static file, resident KiB per connection", &each, "");
}
