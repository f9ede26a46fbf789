//! What the checks of `wxtoken serve` cost: networks, keys, proxies and WeChat's own routes, each against /token with
//! nothing but loopback allowed, by CPU time per request over kept-alive connections. Each is a process of its own.
//!
//! On WeChat's routes whoever asks again and again is told to calm down, and wrk does nothing else. The token here is
//! so near its end that SDKs do not cache it any more, and then only every 201st answer is such a refusal, which would
//! cost about as much as a token if there were more of them; how many there were is printed.

mod support;

use std::fs;
use std::path::Path;

use support::Rounds;
use support::load::{CPU, FIGURES, Load};
use support::servers::{Running, ask_with, connect};

const CONNECTIONS: usize = 64;
const ROUNDS: usize = 21;
const SECS: u64 = 1;

/// How long the token lives: so little that SDKs are known not to cache it.
const EXPIRES_IN: u64 = 1500;

const MANY_NETWORKS: usize = 10_000;
const KEYS: usize = 10;
const CLIENTS: usize = 4_000;

/// What it may cost more than nothing.
const LITTLE: &str = "target: at most 1.10";

/// A server with some check, and the request that passes it.
struct Check {
    running: Running,
    path: String,
    load: Load,
}

fn main() {
    support::only_under_cargo_bench();
    let Some(wrk) = support::peer("wrk") else { return };
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
    let asked = format!(
        "/cgi-bin/token?grant_type=client_credential&appid=wx0123456789abcdef&secret={key}"
    );
    let plain = "/cgi-bin/token?grant_type=client_credential&appid=wx0123456789abcdef&secret=any";
    let in_turn = write(dir, "in_turn.lua", &in_turn(CLIENTS));
    let behind_proxy = [&with_keys[..], &proxy].concat();

    let check = |name: &str, args: &[&str], path: &str, options: &[&str]| Check {
        running: Running::wxtoken(name, dir, args),
        path: path.to_owned(),
        load: Load::of(&wrk, CONNECTIONS, SECS).with(options),
    };
    let checks = [
        check("loopback only", &[], "/token", &[]),
        check("10 networks", &ten, "/token", &[]),
        check("10,000 networks", &["--allow-file", &many], "/token", &[]),
        check("a key, one of 10", &with_keys, "/token", &["-H", &bearer]),
        check("through a proxy", &proxy, "/token", &["-H", "X-Forwarded-For: 10.1.2.3"]),
        check("/cgi-bin/token", &[], plain, &[]),
        check("/cgi-bin/token with a key", &with_keys, &asked, &[]),
        check("the same, 4,000 clients of a proxy", &behind_proxy, &asked, &["-s", &in_turn]),
    ];
    let drive = |check: &Check| check.load.drive(&check.running.ways[0], &check.path);
    for check in &checks {
        drive(check); // Warm.
    }
    let driven = Rounds::of(ROUNDS, checks.len(), |nth| drive(&checks[nth]));

    support::head(&format!(
        "CPU per request; connections: {CONNECTIONS}; {ROUNDS} rounds of {SECS} s, taking turns"
    ));
    for (nth, check) in checks.iter().enumerate().skip(1) {
        let what = format!("{} : loopback only", name(check));
        support::row(&what, &driven.ratio(nth, 0, CPU), LITTLE);
    }
    support::row("10,000 networks : 10 networks", &driven.ratio(2, 1, CPU), "target: at most 1");
    support::row("/cgi-bin/token : /token, both with a key", &driven.ratio(6, 3, CPU), LITTLE);
    for (nth, check) in checks.iter().enumerate() {
        let what = format!("{}{}", name(check), FIGURES[CPU].1);
        support::row(&what, &driven.figure(nth, CPU), "");
    }
    for check in &checks {
        let metrics = ask_with(&mut connect(check.running.ways[0].at), "/metrics", &[&bearer]);
        let refused = r#"wxtoken_http_refused_total{reason="calm_down"} "#;
        if let Some(count) = metrics.lines().find_map(|line| line.strip_prefix(refused)) {
            println!("  {}: {count} times told to calm down", name(check));
        }
    }
}

fn name(check: &Check) -> &str {
    &check.running.ways[0].name
}

/// So many networks, loopback among them, and none beside another one: they would be looked up as one.
fn networks(count: usize) -> Vec<String> {
    let others = (1..count).map(|n| format!("10.{}.{}.0/25", n / 250, n % 250));
    others.chain(["127.0.0.0/8".to_owned()]).collect()
}

/// A keys file with so many keys, and the last one of them.
fn keys(count: usize) -> (String, String) {
    let mut lines = String::new();
    let mut key = String::new();
    for n in 0..count {
        let output = support::wxtoken().args(["key", &format!("client{n}")]).output();
        let text = String::from_utf8(output.expect("it starts").stdout).expect("text");
        let said = |label| text.lines().find_map(|line| line.strip_prefix(label)).expect("a line");
        lines += said("line: ");
        lines.push('\n');
        key = said("key:  ").to_owned();
    }
    (lines, key)
}

/// wrk's script in which so many clients ask one after the other.
fn in_turn(clients: usize) -> String {
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
