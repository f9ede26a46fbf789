//! Clients whose hosts file leads WeChat's hosts to the gateway.

use crate::support::home::{self, Home, wechat_with_accounts};
use crate::support::*;

/// Returns a mock, and a directory with the account `shop` and the WeCom app `crm`.
fn two_platforms(more: &str) -> (WeChat, Home) {
    let wechat = wechat_with_accounts(2, &[]);
    let base_url = wechat.url();
    let home = Home::new(&format!(
        "[account.shop]\nappid = 'wx0'\nsecret_file = 'shop.secret'\nbase_url = '{base_url}'\n\
         [account.crm]\napi = 'work'\nappid = 'wx1'\nsecret_file = 'crm.secret'\nbase_url = '{base_url}'\n{more}"
    ));
    home.put_secret("shop", &home::appsecret(0));
    home.put_secret("crm", &home::appsecret(1));
    home.run(&["fetch"]).exits(0);
    (wechat, home)
}

fn call(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

const DOMAIN_IP: &str = "/cgi-bin/get_api_domain_ip";

#[test]
fn the_gateway_takes_wechats_hosts_as_its_own_and_they_choose_the_account() {
    let (_wechat, home) = two_platforms("");
    let server = home.serve(&["--refresh", "--gateway"]);
    for host in ["api.weixin.qq.com", "qyapi.weixin.qq.com", "API.weixin.qq.com:443"] {
        let answer = server.send(&call(host, DOMAIN_IP));
        assert!(answer.json()["ip_list"].is_array(), "{host} {answer:?}");
    }
    for target in ["/token/shop", "http://api.weixin.qq.com/token/crm"] {
        assert_eq!(server.send(&call("api.weixin.qq.com", target)).status, 200, "{target}");
    }
    // A host that is none of WeChat's chooses nothing, and one that is not the server's is refused.
    let answer = server.send(&call("localhost", DOMAIN_IP));
    assert!(answer.json()["ip_list"].is_null() && answer.json()["errcode"].is_i64(), "{answer:?}");
    for host in ["evil.example", "sh.api.weixin.qq.com", "api.mch.weixin.qq.com"] {
        assert_eq!(server.send(&call(host, "/token/shop")).status, 421, "{host}");
    }
}

#[test]
fn promise_6_without_the_gateway_wechats_hosts_are_not_the_servers() {
    let (_wechat, home) = two_platforms("");
    for flags in [&[][..], &["--server-name", "central.example"]] {
        let server = home.serve(flags);
        for host in ["api.weixin.qq.com", "qyapi.weixin.qq.com"] {
            assert_eq!(server.send(&call(host, "/token/shop")).status, 421, "{host}");
        }
    }
    let server = home.serve(&["--gateway", "--server-name", "central.example"]);
    assert_eq!(server.send(&call("api.weixin.qq.com", "/token/shop")).status, 200);
}

/// The hosts file of the gateway's own host must not have WeChat's hosts.
#[needs(mount)]
#[test]
fn a_hosts_file_that_leads_the_gateway_to_itself_is_explained() {
    let sandbox = Sandbox::with_base_url("http://127.0.0.1:1");
    sandbox.publish("T1", 7200, 0);
    write_with_mode(&sandbox.path("hosts"), "127.0.0.1 api.weixin.qq.com\n", 0o644);
    let mut serve = sandbox.command(&["serve", "--gateway", "--listen", "127.0.0.1:0"]);
    serve.args(["--base-url", "https://api.weixin.qq.com:1"]);
    let script = r#"mount --bind "$0/hosts" /etc/hosts; exec "$@""#;
    let dir = sandbox.path("").display().to_string();
    let words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-euc", script, &dir];
    let log = sandbox.path("log");
    let server = Server::start_with_log(&wrapped(&words, &serve), &log);
    // On a busy machine the host may not be looked up in time for each call.
    eventually("it is explained", || {
        assert_eq!(server.get(DOMAIN_IP).json()["errcode"], -1);
        let logged = std::fs::read_to_string(&log).unwrap();
        logged.contains("api.weixin.qq.com is 127.0.0.1 here")
    });
}
