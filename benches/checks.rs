//! The cost of the access checks of `wxtoken serve`: networks, keys, proxies and the SDK routes. Compares CPU time per
//! request over kept-alive connections with /token on a server that allows loopback only. Each case has its own process.
//!
//! The SDK routes refuse clients that ask again and again, as wrk does. Here the token expires so soon that SDKs do not
//! cache it, and then only every 201st request is refused. A refusal costs about as much as a token. The number of
//! refusals is printed.

mod support;

use std::fs;
use std::path::Path;

use support::Rounds;
use support::load::{CPU, FIGURES, Load};
use support::servers::{Running, connect, get_with_headers};

const CONNECTIONS: usize = 64;
const ROUNDS: usize = 21;
const SECS: u64 = 1;

/// The token's lifetime in seconds: so short that SDKs do not cache it.
const EXPIRES_IN: u64 = 1500;

const MANY_NETWORKS: usize = 10_000;
const KEYS: usize = 10;
const CLIENTS: usize = 4_000;

/// The target for a check, relative to none.
const SMALL_COST: &str = "target: at most 1.10";

/// A server with a certain check, and the load that passes it.
struct Check {
    running: Running,
    path: String,
    load: Load,
}

fn main() {
    support::only_under_cargo_bench();
    let Some(wrk) = support::find_program("wrk") else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    support::publish(&dir.join("default.json"), EXPIRES_IN);

    let ten = networks(10);
    let ten: Vec<&str> = ten.iter().flat_map(|network| ["--allow", network]).collect();
    let many = write(dir, "networks", &networks(MANY_NETWORKS).join("\n"));
    let (keys, key) = keys(KEYS);
    let keys = write(dir, "keys", &keys);
    let with_keys = ["--keys", &keys];
    let proxy = ["--trusted-proxy", "127.0.0.1", "--allow", "127.0.0.1,10.0.0.0/8"];
    let bearer = format!("Authorization: Bearer {key}");
    let with_key = format!(
        "/cgi-bin/token?grant_type=client_credential&appid=wx0123456789abcdef&secret={key}"
    );
    let plain = "/cgi-bin/token?grant_type=client_credential&appid=wx0123456789abcdef&secret=any";
    let by_turns = write(dir, "by_turns.lua", &by_turns(CLIENTS));
    let behind_proxy = [&with_keys[..], &proxy].concat();

    let check = |name: &str, args: &[&str], path: &str, options: &[&str]| Check {
        running: Running::wxtoken(name, dir, args),
        path: path.to_owned(),
        load: Load::new(&wrk, CONNECTIONS, SECS).with_options(options),
    };
    let checks = [
        check("loopback only", &[], "/token", &[]),
        check("10 networks", &ten, "/token", &[]),
        check("10,000 networks", &["--allow-file", &many], "/token", &[]),
        check("a key, one of 10", &with_keys, "/token", &["-H", &bearer]),
        check("through a proxy", &proxy, "/token", &["-H", "X-Forwarded-For: 10.1.2.3"]),
        check("/cgi-bin/token", &[], plain, &[]),
        check("/cgi-bin/token with a key", &with_keys, &with_key, &[]),
        check("the same, 4,000 clients of a proxy", &behind_proxy, &with_key, &["-s", &by_turns]),
    ];
    let drive = |check: &Check| check.load.drive(&check.running.endpoints[0], &check.path);
    for check in &checks {
        drive(check); // Warm-up.
    }
    let driven = Rounds::run(ROUNDS, checks.len(), |nth| drive(&checks[nth]));

    support::print_header(&format!(
        "CPU per request; connections: {CONNECTIONS}; {ROUNDS} rounds of {SECS} s, by turns"
    ));
    for (nth, check) in checks.iter().enumerate().skip(1) {
        let what = format!("{} : loopback only", name(check));
        support::print_row(&what, &driven.ratio(nth, 0, CPU), SMALL_COST);
    }
    support::print_row(
        "10,000 networks : 10 networks",
        &driven.ratio(2, 1, CPU),
        "target: at most 1",
    );
    support::print_row(
        "/cgi-bin/token : /token, both with a key",
        &driven.ratio(6, 3, CPU),
        SMALL_COST,
    );
    for (nth, check) in checks.iter().enumerate() {
        let what = format!("{}{}", name(check), FIGURES[CPU].1);
        support::print_row(&what, &driven.figure(nth, CPU), "");
    }
    for check in &checks {
        let metrics = get_with_headers(
            &mut connect(check.running.endpoints[0].address),
            "/metrics",
            &[&bearer],
        );
        let metric = r#"wxtoken_http_refused_total{reason="too_many_requests"} "#;
        if let Some(count) = metrics.lines().find_map(|line| line.strip_prefix(metric)) {
            println!("  {}: {count} requests refused (too_many_requests)", name(check));
        }
    }
}

fn name(check: &Check) -> &str {
    &check.running.endpoints[0].name
}

/// Returns so many networks, loopback among them. None are adjacent, because adjacent ones are merged.
fn networks(count: usize) -> Vec<String> {
    let others = (1..count).map(|n| format!("10.{}.{}.0/25", n / 250, n % 250));
    others.chain(["127.0.0.0/8".to_owned()]).collect()
}

/// Returns a keys file with so many keys, and the last of the keys.
fn keys(count: usize) -> (String, String) {
    let mut lines = String::new();
    let mut key = String::new();
    for n in 0..count {
        let output = support::wxtoken().args(["key", &format!("client{n}")]).output();
        let text = String::from_utf8(output.expect("it starts").stdout).expect("text");
        let after = |label| text.lines().find_map(|line| line.strip_prefix(label)).expect("a line");
        lines += after("line: ");
        lines.push('\n');
        key = after("key:  ").to_owned();
    }
    (lines, key)
}

/// Returns a script for wrk that sends requests of so many clients by turns.
fn by_turns(clients: usize) -> String {
    format!(
        "local n = 0\n\
         function request()\n\
           n = (n + 1) % {clients}\n\
           local client = '10.9.' .. math.floor(n / 250) .. '.' .. n % 250\n\
           return wrk.format(nil, nil, {{ ['X-Forwarded-For'] = client }})\n\
         end\n"
    )
}

/// Writes a file, and returns its path.
fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, text).expect("a file");
    path.to_str().expect("text").to_owned()
}
