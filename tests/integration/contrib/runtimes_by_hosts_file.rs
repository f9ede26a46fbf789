//! Plain HTTP clients of Go, Java and PHP, whose SDKs no registry of CI has, at the gateway as a program that cannot be changed
//! uses it: the hosts file leads WeChat's hosts there, and each runtime is told of the CA as `docs/en/sdks.md` says.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::sdk::{Worker, new_key};
use super::sdks_by_hosts_file::{HOSTS_FILE, Hosts};
use crate::support::*;

fn in_tree(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdks/plain").join(name)
}

/// Returns the program of a runtime, which trusts the CA.
type Program = fn(&Hosts) -> Command;

fn go(hosts: &Hosts) -> Command {
    let driver = hosts.sandbox.path("driver");
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

fn java(hosts: &Hosts) -> Command {
    let (store, classes) = (hosts.sandbox.path("trust"), hosts.sandbox.path("classes"));
    if !store.exists() {
        let mut compile = Command::new("javac");
        compile.arg("-d").arg(&classes).arg(in_tree("Plain.java"));
        Run::new(compile).exits(0);
        let mut import = Command::new("keytool");
        import.args(["-importcert", "-noprompt", "-alias", "wxtoken", "-storepass", "changeit"]);
        import.arg("-file").arg(hosts.sandbox.path("ca/ca.pem")).arg("-keystore").arg(&store);
        Run::new(import).exits(0);
    }
    let mut command = Command::new("java");
    command.arg(format!("-Djavax.net.ssl.trustStore={}", store.display()));
    command.args(["-Djavax.net.ssl.trustStorePassword=changeit", "-cp"]).arg(classes).arg("Plain");
    command
}

fn php(hosts: &Hosts) -> Command {
    let mut command = Command::new("php");
    let root = hosts.sandbox.path("ca/ca.pem");
    command.arg("-d").arg(format!("openssl.cafile={}", root.display())).arg(in_tree("plain.php"));
    command
}

fn start(hosts: &Hosts, program: Program, key: &str) -> Worker {
    let mut command = program(hosts);
    command.env("WXTOKEN_APPID", APPID).env("WXTOKEN_KEY", key).env("NO_PROXY", "*");
    hosts.start(command, HOSTS_FILE)
}

#[track_caller]
fn never_meets_a_dead_token(program: Program) {
    for api in ["stable", "classic"] {
        let mut hosts = Hosts::set(api, &[]);
        let mut worker = start(&hosts, program, &hosts.key);
        worker.call_succeeds();
        let mints = hosts.wechat.mints();
        let calls = || hosts.wechat.calls()["getcallbackip"].as_u64().unwrap();
        let made = calls();
        hosts.wechat.kill_tokens();
        worker.call_succeeds();
        assert_eq!((hosts.wechat.mints(), calls()), (mints + 1, made + 2), "{api}");
        worker.call_succeeds();
        assert_eq!((hosts.wechat.mints(), calls()), (mints + 1, made + 3), "{api}");
        assert_eq!(start(&hosts, program, &new_key().0).call(), "error 40125", "{api}");
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
