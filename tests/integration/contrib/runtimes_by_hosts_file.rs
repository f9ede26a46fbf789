//! Plain HTTP clients of Go, Java, PHP and Ruby, whose SDKs no registry of CI has, at the gateway as a program that cannot be changed
//! uses it: the hosts file leads WeChat's hosts there, and each runtime is told of the CA as `docs/en/sdks.md` says.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::sdk::{Worker, new_key};
use super::sdks_by_hosts_file::{HOSTS_FILE, Hosts};
use crate::support::*;

fn in_tree(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdks/plain").join(name)
}

/// Returns the program of a runtime, which trusts the CA. It is built in a directory for all hosts of a test.
type Program = fn(&Hosts, &Path) -> Command;

fn go(hosts: &Hosts, built: &Path) -> Command {
    let driver = built.join("driver");
    if !driver.exists() {
        let mut build = Command::new("go");
        build.arg("build").arg("-o").arg(&driver).arg(in_tree("main.go"));
        build.env("GOCACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("go"));
        build.env("GOPROXY", "off").env("GOTOOLCHAIN", "local").env("GO111MODULE", "off");
        Run::new(build).exits(0);
    }
    let mut command = Command::new(driver);
    command.env("SSL_CERT_FILE", hosts.sandbox.path("ca/ca.pem"));
    command
}

fn java(hosts: &Hosts, built: &Path) -> Command {
    if !built.join("Plain.class").exists() {
        java_compile(&in_tree("Plain.java"), built);
    }
    let store = hosts.sandbox.path("trust");
    if !store.exists() {
        java_import(&hosts.sandbox.path("ca/ca.pem"), &store);
    }
    let mut command = java_trusting(&store);
    command.arg("-cp").arg(built).arg("Plain");
    command
}

fn php(hosts: &Hosts, _: &Path) -> Command {
    let mut command = Command::new("php");
    let root = hosts.sandbox.path("ca/ca.pem");
    command.arg("-d").arg(format!("openssl.cafile={}", root.display())).arg(in_tree("plain.php"));
    command
}

fn ruby(hosts: &Hosts, _: &Path) -> Command {
    let mut command = Command::new("ruby");
    command.arg(in_tree("plain.rb")).env("SSL_CERT_FILE", hosts.sandbox.path("ca/ca.pem"));
    command
}

fn start(hosts: &Hosts, program: Program, built: &Path, key: &str) -> Worker {
    let mut command = program(hosts, built);
    command.env("WXTOKEN_APPID", APPID).env("WXTOKEN_KEY", key).env("NO_PROXY", "*");
    hosts.start(command, HOSTS_FILE)
}

#[track_caller]
fn never_meets_a_dead_token(program: Program) {
    let built = tempfile::tempdir().unwrap();
    let start = |hosts: &Hosts, key: &str| start(hosts, program, built.path(), key);
    for api in ["stable", "classic"] {
        let mut hosts = Hosts::set(api, &[]);
        let mut worker = start(&hosts, &hosts.key);
        worker.call_succeeds();
        let mints = hosts.wechat.mints();
        let calls = || hosts.wechat.calls()["getcallbackip"].as_u64().unwrap();
        let made = calls();
        hosts.wechat.kill_tokens();
        worker.call_succeeds();
        assert_eq!((hosts.wechat.mints(), calls()), (mints + 1, made + 2), "{api}");
        worker.call_succeeds();
        assert_eq!((hosts.wechat.mints(), calls()), (mints + 1, made + 3), "{api}");
        assert_eq!(start(&hosts, &new_key().0).call(), "error 40125", "{api}");
        hosts.end_wechat();
        assert_eq!(worker.call(), "error -1", "{api}");
    }
}

#[needs(go, mount, root)]
#[test]
fn a_go_program_at_wechats_own_address_never_meets_a_dead_token() {
    never_meets_a_dead_token(go);
}

#[needs(java, mount, root)]
#[test]
fn a_java_program_at_wechats_own_address_never_meets_a_dead_token() {
    never_meets_a_dead_token(java);
}

#[needs(mount, php, root)]
#[test]
fn a_php_program_at_wechats_own_address_never_meets_a_dead_token() {
    never_meets_a_dead_token(php);
}

#[needs(mount, root, ruby)]
#[test]
fn a_ruby_program_at_wechats_own_address_never_meets_a_dead_token() {
    never_meets_a_dead_token(ruby);
}
