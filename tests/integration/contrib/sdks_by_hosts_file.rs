//! The SDKs of `sdks_unchanged` as they are installed, at `wxtoken serve --gateway`: the hosts file leads WeChat's hosts there,
//! the certificate is of `wxtoken ca`, and nothing is set but each runtime's variable for it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

use super::sdk::{Worker, new_key};
use super::sdks_unchanged::{SDKS, Sdk};
use crate::support::*;

/// WeChat's hosts on this machine, as an SDK sees them.
pub(super) struct Hosts {
    pub(super) wechat: WeChat,
    pub(super) sandbox: Sandbox,
    server: Server,
    pub(super) key: String,
}

impl Hosts {
    /// Starts the gateway for an account on this API at port 443 of a loopback address of its own, with these flags.
    pub(super) fn set(api: &'static str, flags: &[&str]) -> Hosts {
        static SETUPS: AtomicU8 = AtomicU8::new(1);
        let [.., high, low] = std::process::id().to_be_bytes();
        let ip = Ipv4Addr::new(127, high | 0x80, low, SETUPS.fetch_add(1, Ordering::Relaxed));
        let wechat = WeChat::start();
        let sandbox = Sandbox::new(&wechat).on(api);
        sandbox.run(&["fetch"]).exits(0);
        let (key, line) = new_key();
        write_with_mode(&sandbox.path("keys"), &line, 0o600);
        let mut ca = wxtoken();
        ca.arg("ca").arg(sandbox.path("ca"));
        Run::new(ca).exits(0);
        let hosts = format!("{ip} api.weixin.qq.com qyapi.weixin.qq.com\n");
        write_with_mode(&sandbox.path("hosts"), &hosts, 0o644);
        let [keys, cert, private] = ["keys", "ca/cert.pem", "ca/key.pem"]
            .map(|name| sandbox.path(name).display().to_string());
        let listen = SocketAddr::from((ip, 443)).to_string();
        let more = [
            "--gateway",
            "--keys",
            &keys,
            "--allow",
            "127.0.0.0/8",
            "--listen",
            &listen,
            "--tls-cert",
            &cert,
            "--tls-key",
            &private,
        ];
        let server = sandbox.serve_refreshing(&[&more, flags].concat());
        Hosts { wechat, sandbox, server, key }
    }

    /// Has WeChat go down.
    pub(super) fn end_wechat(&mut self) {
        drop(std::mem::replace(&mut self.wechat, WeChat::start()));
    }

    fn worker(&self, sdk: &Sdk, key: &str) -> Worker {
        let sdks = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("sdk");
        let mut command = sdk.driver(&sdks);
        let root = self.sandbox.path("ca/ca.pem");
        command.env("REQUESTS_CA_BUNDLE", &root).env("NODE_EXTRA_CA_CERTS", &root);
        command.env("PYTHONDONTWRITEBYTECODE", "1").env("TMPDIR", self.sandbox.path(""));
        // One SDK verifies no certificate, and says so at each call.
        command.env("PYTHONWARNINGS", "ignore");
        let modules = [&sdks, &sdks.join("unchanged")].map(|it| it.join("node_modules"));
        command.env("NODE_PATH", std::env::join_paths(modules).unwrap()).env("NO_PROXY", "*");
        command.env("WXTOKEN_APPID", APPID).env("WXTOKEN_KEY", key);
        let script = match sdk.name {
            // It does not ask requests for the settings of the environment, so the CA is added to certifi's file.
            "weixin-python" => CERTIFI,
            _ => HOSTS_FILE,
        };
        self.start(command, script)
    }

    /// Starts a program that makes calls, by a script that puts the hosts file in place.
    pub(super) fn start(&self, command: Command, script: &str) -> Worker {
        let dir = self.sandbox.path("").display().to_string();
        let words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-euc", script, &dir];
        Worker::start(wrapped(&words, &command))
    }
}

pub(super) const HOSTS_FILE: &str = r#"mount --bind "$0/hosts" /etc/hosts; exec "$@""#;

/// Adds the CA to the roots that the Python whose program is the first word has by default.
const CERTIFI: &str = r#"mount --bind "$0/hosts" /etc/hosts; roots=$("$1" -m certifi)
    cat "$roots" "$0/ca/ca.pem" > "$0/roots.pem"; mount --bind "$0/roots.pem" "$roots"; unset REQUESTS_CA_BUNDLE; exec "$@""#;

#[needs(mount, root, sdks)]
#[test]
fn at_the_gateway_no_sdk_meets_a_dead_token() {
    for sdk in &SDKS {
        let what = format!("{} {}", sdk.name, sdk.version);
        let mut hosts = Hosts::set(sdk.api(), &[]);
        let mut worker = hosts.worker(sdk, &hosts.key);
        assert_eq!(worker.call(), "ok", "{what}");
        let mints = hosts.wechat.mints();
        hosts.wechat.kill_tokens();
        for _ in 0..3 {
            assert_eq!(worker.call(), "ok", "{what}");
        }
        assert_eq!(hosts.wechat.mints(), mints + 1, "{what}");
        assert_eq!(hosts.worker(sdk, &new_key().0).call(), "error 40125", "{what}");
        // With a live token.
        hosts.end_wechat();
        assert_eq!(worker.call(), "error -1", "{what}");
    }
}

/// Each of them waits for the one replacement, and its call is made twice at most.
#[needs(mount, root, sdks)]
#[test]
fn at_the_gateway_fifty_clients_of_an_sdk_heal_at_once_by_one_mint_and_two_calls_each() {
    for sdk in &SDKS {
        let what = format!("{} {}", sdk.name, sdk.version);
        let hosts = Hosts::set(sdk.api(), &[]);
        let mut worker = hosts.worker(sdk, &hosts.key);
        assert_eq!(worker.ask("crowd"), "ok", "{what}");
        let mints = hosts.wechat.mints();
        let calls = || hosts.wechat.calls()["getcallbackip"].as_u64().unwrap();
        let made = calls();
        hosts.wechat.kill_tokens();
        assert_eq!(worker.ask("crowd"), "ok", "{what}");
        assert_eq!(hosts.wechat.mints(), mints + 1, "{what}");
        assert!((51..=100).contains(&(calls() - made)), "{what}: {} calls", calls() - made);
    }
}

/// No SDK holds WeChat's token, and none notices.
#[needs(mount, root, sdks)]
#[test]
fn at_the_gateway_each_sdk_works_with_a_token_of_wxtokens_own() {
    for sdk in &SDKS {
        let what = format!("{} {}", sdk.name, sdk.version);
        let hosts = Hosts::set(sdk.api(), &["--opaque-tokens"]);
        let mut worker = hosts.worker(sdk, &hosts.key);
        assert_eq!(worker.call(), "ok", "{what}");
        let mints = hosts.wechat.mints();
        hosts.wechat.kill_tokens();
        for _ in 0..3 {
            assert_eq!(worker.call(), "ok", "{what}");
        }
        assert_eq!(hosts.wechat.mints(), mints + 1, "{what}");
        // Its token ends with its key.
        write_with_mode(&hosts.sandbox.path("keys"), "", 0o600);
        hosts.server.signal("HUP");
        eventually("the key is taken out", || worker.call() == "error 40125");
    }
}
