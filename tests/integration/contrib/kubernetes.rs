//! The probes of the example for Kubernetes, from an address that is not allowed, as a kubelet's.

use std::fs;
use std::net::TcpStream;
use std::path::Path;

use crate::support::*;

/// Returns the lines of the example below this key, up to the next one of its depth.
fn below(key: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/container/kubernetes.yaml");
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines().skip_while(|line| line.trim() != key);
    let depth = |line: &str| line.len() - line.trim_start().len();
    let own = depth(lines.next().unwrap());
    lines.take_while(|line| depth(line) > own).map(|line| format!("{}\n", line.trim())).collect()
}

#[test]
fn the_probes_ask_nothing_that_an_allowlist_refuses() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    sandbox.run(&["fetch"]).exits(0);
    let server = sandbox.serve(&["--allow", "10.9.8.7"]);
    assert_eq!(server.get("/healthz").status, 403);

    assert!(below("livenessProbe:").starts_with("tcpSocket:\nport: http\n"));
    TcpStream::connect(server.address()).unwrap();

    let readiness = below("readinessProbe:");
    let command = readiness.strip_prefix("exec:\ncommand: [/wxtoken, ").unwrap();
    let words: Vec<&str> = command.split_once(']').unwrap().0.split(", ").collect();
    sandbox.run(&words).exits(0);
    fs::remove_file(sandbox.document_path()).unwrap();
    sandbox.run(&words).exits(3);
}
