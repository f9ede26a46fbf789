//! Files that are mounted into a container: single files, and the secrets of orchestrators.

use std::fs;

use crate::support::*;

/// The words that run `sh -c SCRIPT` in a mount namespace, where it is root.
fn in_namespace(script: &str) -> [&str; 7] {
    ["unshare", "--user", "--map-root-user", "--mount", "sh", "-euc", script]
}

const STALE: &[&str] =
    &["it was replaced", "Mount its directory, not the file", "请挂载其所在目录"];

/// Mounts the document on its own, in a directory `inside`, and runs a command there.
const MOUNT_DOCUMENT: &str = r#"dir=$0; mkdir -p "$dir/inside"; : > "$dir/inside/default.json"
    mount --bind "$dir/state/default.json" "$dir/inside/default.json"; exec "$@""#;

#[needs(mount)]
#[test]
fn promise_4_a_document_that_was_replaced_behind_its_mount_is_not_handed_out() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 0);
    let mut serve = wxtoken();
    serve.args(["serve", "--appid", APPID, "--listen", "127.0.0.1:0", "--file"]);
    serve.arg(sandbox.path("inside/default.json"));
    let dir = sandbox.path("").display().to_string();
    let words = [&in_namespace(MOUNT_DOCUMENT)[..], &[&dir]].concat();
    let server = Server::start(wrapped(&words, &serve), 1);
    assert_eq!(server.get("/token").json()["access_token"], "T1");
    // As fetch does on the host.
    sandbox.publish("T2", 7200, 0);
    assert_eq!(server.get("/token").status, 503);
    assert_eq!(server.get("/token").status, 503);
    let stderr = server.stop();
    assert!(STALE.iter().all(|part| stderr.contains(part)), "{stderr}");
    assert!(!stderr.contains("the last good token stays"), "{stderr}");
}

#[needs(mount)]
#[test]
fn promise_4_get_prints_no_token_of_a_document_that_was_replaced_behind_its_mount() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 0);
    sandbox.publish_ticket("jsapi", "K1", 7200, 0);
    let script = r#"cd "$0"; mkdir inside; : > inside/default.json; : > inside/default.jsapi.json
        for name in default.json default.jsapi.json; do mount --bind "state/$name" "inside/$name"; done
        "$@"; "$@" --ticket jsapi
        for name in default.json default.jsapi.json; do cp "state/$name" new; mv new "state/$name"; done
        "$@" && exit 1; code=$?; "$@" --ticket jsapi && exit 1; exit $code"#;
    let mut get = wxtoken();
    get.args(["get", "--raw", "--appid", APPID, "--file", "inside/default.json"]);
    let dir = sandbox.path("").display().to_string();
    let ran = Run::new(wrapped(&[&in_namespace(script)[..], &[&dir]].concat(), &get)).exits(3);
    assert_eq!(ran.stdout, "T1\nK1\n", "only before it was replaced");
    assert_eq!(ran.stderr.lines().count(), 2, "{}", ran.stderr);
    ran.mentions(STALE);
}

/// A revoked key must not stay without a word.
#[needs(mount)]
#[test]
fn promise_6_a_keys_file_that_was_replaced_behind_its_mount_is_reported() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    let keys = sandbox.path("keys");
    write_with_mode(&keys, "", 0o600);
    let script =
        r#"dir=$0; : > "$dir/mounted"; mount --bind "$dir/keys" "$dir/mounted"; exec "$@""#;
    let mut serve = wxtoken();
    serve.args(["serve", "--appid", APPID, "--listen", "127.0.0.1:0", "--keys"]);
    serve.arg(sandbox.path("mounted")).arg("--dir").arg(sandbox.path("state"));
    let dir = sandbox.path("").display().to_string();
    let log = sandbox.path("log");
    let words = [&in_namespace(script)[..], &[&dir]].concat();
    let _server = Server::start_with_log(&wrapped(&words, &serve), &log);
    write_with_mode(&sandbox.path("new"), "", 0o600);
    fs::rename(sandbox.path("new"), &keys).unwrap();
    eventually("it is reported", || {
        let log = fs::read_to_string(&log).unwrap();
        STALE.iter().all(|part| log.contains(part))
    });
}

/// Mounts a secret as Kubernetes does: links in a tmpfs, owned by root.
const MOUNT_SECRET: &str = r#"dir=$0; mode=$1; options=$2; shift 2
    mkdir "$dir/mounted"; mount -t tmpfs secret "$dir/mounted"; cd "$dir/mounted"; mkdir ..1; ln -s ..1 ..data
    cp "$dir/secret" ..1/shop.secret; ln -s ..data/shop.secret shop.secret; chmod "$mode" ..1/shop.secret
    mount -o "remount,$options" "$dir/mounted"; exec "$@""#;

/// Fetches with a secret of this mode, on a mount with these options, in a container of Kubernetes.
fn fetch_with_mounted_secret(wechat: &WeChat, mode: &str, options: &str) -> Run {
    fetch_with_mounted_secret_in("KUBERNETES_SERVICE_HOST", wechat, mode, options)
}

/// The same where this variable is set.
fn fetch_with_mounted_secret_in(variable: &str, wechat: &WeChat, mode: &str, options: &str) -> Run {
    let sandbox = Sandbox::new(wechat);
    let mut fetch = wxtoken();
    fetch.args(["fetch", "--appid", APPID, "--base-url", &wechat.url(), "--dir"]);
    fetch.arg(sandbox.path("state")).arg("--secret-file").arg(sandbox.path("mounted/shop.secret"));
    fetch.env(variable, "10.0.0.1");
    let dir = sandbox.path("").display().to_string();
    let words = [&in_namespace(MOUNT_SECRET)[..], &[&dir, mode, options]].concat();
    Run::new(wrapped(&words, &fetch))
}

#[needs(mount)]
#[test]
fn a_secret_on_a_read_only_mount_in_a_container_may_be_readable_there() {
    let wechat = WeChat::start();
    for mode in ["0400", "0440", "0444", "0644"] {
        fetch_with_mounted_secret(&wechat, mode, "ro").exits(0).silent();
    }
    for mode in ["0440", "0444", "0644"] {
        let ran = fetch_with_mounted_secret(&wechat, mode, "rw").exits(2);
        ran.says(&["open to others", mode, "Run chmod 0600 "]);
    }
    fetch_with_mounted_secret(&wechat, "0400", "rw").exits(0).silent();
    let ran = fetch_with_mounted_secret(&wechat, "0666", "ro").exits(2);
    ran.says(&["mode 0666", "its mount is read-only", "defaultMode", "请在挂载处"]);
}

/// ProtectSystem= makes all mounts read-only for a unit.
#[needs(mount)]
#[test]
fn in_a_unit_of_systemd_the_mode_of_a_secret_is_changed_where_it_is() {
    let wechat = WeChat::start();
    let ran = fetch_with_mounted_secret_in("INVOCATION_ID", &wechat, "0666", "ro").exits(2);
    ran.says(&["mode 0666, expected 0600", "Run chmod 0600 "]);
}

/// systemd's credentials are on a read-only mount of their own, too.
#[needs(mount)]
#[test]
fn a_credential_that_its_group_can_read_by_an_acl_is_read() {
    let wechat = WeChat::start();
    let sandbox = Sandbox::new(&wechat);
    let mut fetch = wxtoken();
    fetch.args(["fetch", "--appid", APPID, "--base-url", &wechat.url(), "--dir"]);
    fetch.arg(sandbox.path("state")).env("CREDENTIALS_DIRECTORY", sandbox.path("credentials"));
    let script = r#"cd "$0"; mkdir credentials; mount -t tmpfs credentials credentials
        cp secret credentials/default.secret; chmod 0440 credentials/default.secret
        mount -o remount,ro credentials; cd /; exec "$@""#;
    let dir = sandbox.path("").display().to_string();
    let words = [&in_namespace(script)[..], &[&dir]].concat();
    Run::new(wrapped(&words, &fetch)).exits(0).silent();
}

/// A hosts file may lead clients to wxtoken by WeChat's names, and must not lead wxtoken itself there.
#[needs(mount)]
#[test]
fn wechats_host_that_a_hosts_file_leads_to_this_host_is_explained() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    write_with_mode(&sandbox.path("hosts"), "127.0.0.1 api.weixin.qq.com\n", 0o644);
    let script = r#"mount --bind "$0/hosts" /etc/hosts; exec "$@""#;
    let mut fetch = wxtoken();
    // Nothing is there, nor would its certificate be trusted.
    fetch.args(["fetch", "--appid", APPID, "--base-url", "https://api.weixin.qq.com:1"]);
    fetch.arg("--secret-file").arg(sandbox.path("secret")).arg("--dir").arg(sandbox.path("state"));
    fetch.args(["--timeout", "1s"]);
    let dir = sandbox.path("").display().to_string();
    let ran = Run::new(wrapped(&[&in_namespace(script)[..], &[&dir]].concat(), &fetch)).exits(5);
    ran.says(&[
        "api.weixin.qq.com is 127.0.0.1 here, which is this host itself",
        "hosts file",
        "base_url to https://api2.weixin.qq.com",
    ]);
}
