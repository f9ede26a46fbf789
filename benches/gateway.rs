//! Compares `wxtoken serve --gateway` with nginx `proxy_pass`, one worker each, before the same upstream (nginx, `return
//! 200`), with kept-alive connections on both sides: CPU time per request, requests per second, and the time in which 99
//! of 100 requests are answered. Once for a GET, and once for a POST of 300 bytes.
//!
//! wxtoken adds the token and looks at each answer; nginx only forwards. Plain HTTP on both sides: what TLS costs is the
//! same for both, or nearly so, and more than all the rest. In each round the servers take turns, and ratios are taken within
//! a round. What it found last is in docs/en/gateway.md.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::load::{CPU, Load, RATE};
use support::servers::{Endpoint, Running, Site, USUAL_CONNECTIONS, connect, get};
use support::{Rounds, print_header, print_row};

/// Connections, rounds, and seconds per server and round.
const LOADS: [(usize, usize, u64); 2] = [(64, 9, 2), (1, 15, 1)];

/// The path of a call, which all three servers answer.
const CALL: &str = "/cgi-bin/message/custom/send";

/// What WeChat answers.
const ANSWER: &str = r#"{"errcode":0,"errmsg":"ok","msgid":200228332,"x":1234}"#;

/// The name, the unit and the target of each figure.
const FIGURES: [(&str, &str, &str); 3] = [
    ("CPU per request", ", us", "target: at most 1.25"),
    ("p99", ", ms", "target: at most 2"),
    ("requests/s", "", ""),
];

fn main() {
    support::only_under_cargo_bench();
    let Some(nginx) = support::find_program("nginx") else { return };
    let Some(wrk) = support::find_program("wrk") else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let [upstream_dir, front_dir] = ["upstream", "front"].map(|name| dir.path().join(name));
    fs::create_dir_all(dir.path().join("state")).expect("a directory");
    support::publish(&dir.path().join("state/default.json"), 7200);

    let directives = format!("return 200 '{ANSWER}';");
    let site = Site { name: "upstream", directives: &directives, tls: None };
    let upstream = Running::nginx(&nginx, &upstream_dir, USUAL_CONNECTIONS, &[site]);
    let address = upstream.endpoints[0].address;
    let base_url = format!("http://{address}");
    let gateway = ["--gateway", "--base-url", &base_url];
    let wxtoken = Running::wxtoken("wxtoken", &dir.path().join("state"), &gateway);
    let site = Site {
        name: "proxy_pass",
        directives: "proxy_pass http://wechat; proxy_http_version 1.1; proxy_set_header Connection '';",
        tls: None,
    };
    let kept = format!("upstream wechat {{ server {address}; keepalive 128; }}");
    let front = Running::nginx_with(&nginx, &front_dir, USUAL_CONNECTIONS, &[site], &kept);
    let endpoints = [&wxtoken.endpoints[0], &front.endpoints[0]];
    for endpoint in endpoints {
        assert_eq!(get(&mut connect(endpoint.address), CALL), ANSWER, "{}", endpoint.name);
    }
    let script = write_post_script(dir.path());
    for (connections, rounds, secs) in LOADS {
        for (what, script) in [("GET", None), ("POST of 300 bytes", Some(&script))] {
            let mut options = vec!["--latency"];
            options.extend(script.iter().flat_map(|it| ["-s", it.to_str().expect("text")]));
            let load = Load::new(&wrk, connections, secs).with_options(&options);
            let title = format!(
                "{what}, connections: {connections}; {rounds} rounds of {secs} s, by turns"
            );
            compare(&load, endpoints, rounds, &title);
        }
    }
}

/// Writes a script that has wrk send POSTs.
fn write_post_script(dir: &Path) -> PathBuf {
    let path = dir.join("post.lua");
    let script = "wrk.method = 'POST'\nwrk.body = string.rep('x', 300)\n\
                  wrk.headers['Content-Type'] = 'application/json'\n";
    fs::write(&path, script).expect("a file");
    path
}

fn compare(load: &Load, endpoints: [&Endpoint; 2], rounds: usize, title: &str) {
    for endpoint in endpoints {
        load.drive(endpoint, CALL); // Warm-up.
    }
    let driven = Rounds::run(rounds, endpoints.len(), |nth| {
        let (figures, p99) = load.drive_for_p99(endpoints[nth], CALL);
        [figures[CPU], p99, figures[RATE]]
    });
    print_header(title);
    for (which, (what, _, target)) in FIGURES.iter().enumerate() {
        let name = &endpoints[1].name;
        print_row(&format!("{what}, wxtoken : {name}"), &driven.ratio(0, 1, which), target);
    }
    for (nth, endpoint) in endpoints.iter().enumerate() {
        for (which, (what, unit, _)) in FIGURES.iter().enumerate() {
            let figure = driven.figure(nth, which);
            print_row(&format!("{}, {what}{unit}", endpoint.name), &figure, "");
        }
    }
}
