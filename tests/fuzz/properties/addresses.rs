//! Addresses as users write them: to listen on, of WeChat, of proxies, of Redis.

use std::net::IpAddr;

use crate::log;
use crate::model::address::endpoint::{BaseUrl, Proxy};
use crate::model::address::host_port::{Host, HostPort};
use crate::model::address::listen::Listen;
use crate::model::address::network;
use crate::model::address::redis_url::RedisUrl;
use crate::model::address::server_name::ServerName;

pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    check_listen(&text);
    check_base_url(&text);
    check_proxy(&text);
    check_redis(&text);
    if let Ok(network) = network::parse(&text) {
        assert_eq!(network::parse(&network.to_string()), Ok(network));
    }
    if let Some(HostPort { host, port }) = HostPort::parse(&text) {
        let host = match host {
            Host::Name(name) => name.to_owned(),
            Host::V6(ip) => format!("[{ip}]"),
        };
        let written = port.map_or(host.clone(), |port| format!("{host}:{port}"));
        assert_eq!(
            HostPort::parse(&written),
            HostPort::parse(&text).map(|it| HostPort { port, ..it })
        );
    }
    if let Ok(ServerName::Name(name)) = ServerName::parse(&text) {
        assert_eq!(ServerName::parse(&name), Ok(ServerName::Name(name.clone())));
        assert!(name.parse::<IpAddr>().is_err() && !name.contains([':', '/', '@', ' ']));
    }
}

fn check_listen(text: &str) {
    match Listen::parse(text) {
        Ok(Listen::Tcp(address)) => {
            assert_eq!(Listen::parse(&address.to_string()), Ok(Listen::Tcp(address)));
        }
        Ok(Listen::Unix(path)) => {
            assert!(path.is_absolute());
            assert_eq!(text, format!("unix:{}", path.display()));
        }
        Err(_) => {}
    }
    let entries: Vec<_> = text.split(',').collect();
    let all = entries.iter().all(|entry| Listen::parse(entry.trim()).is_ok());
    assert_eq!(Listen::parse_all(&entries).is_ok(), all);
}

fn check_base_url(text: &str) {
    let Ok(url) = BaseUrl::parse(text) else { return };
    assert!(!text.contains(['#', '?']) && !url.authority().contains('@'), "{text}");
    let scheme = text.split(':').next().unwrap_or_default().to_ascii_lowercase();
    let ip = url.host().parse::<IpAddr>();
    let is_loopback = url.host().eq_ignore_ascii_case("localhost")
        || ip.is_ok_and(|ip| ip.to_canonical().is_loopback());
    assert!(
        scheme == "https" || (scheme == "http" && is_loopback),
        "{text}: the secret crosses a network in clear"
    );
    assert_eq!(url.is_https(), scheme == "https");
    let joined = BaseUrl::parse(&url.join("/cgi-bin/token")).expect("a URL below it");
    assert_eq!((joined.authority(), joined.port()), (url.authority(), url.port()));
    assert_eq!(joined.prefix(), format!("{}/cgi-bin/token", url.prefix()));
}

fn check_proxy(text: &str) {
    let Ok(proxy) = Proxy::parse(text) else { return };
    let shown = format!("{proxy:?}");
    assert!(!shown.contains('@') && !log::may_hold_secret(&shown), "{shown}");
}

fn check_redis(text: &str) {
    let Ok(url) = RedisUrl::parse(text) else { return };
    let shown = url.to_string();
    assert!(!log::may_hold_secret(&shown), "{shown}");
    // A socket's path may hold any character.
    if text.starts_with("redis") && !text.contains("unix:") {
        assert!(!shown.contains('@'), "{shown} shows a user");
        let again = RedisUrl::parse(&shown).expect("what is shown can be read");
        assert_eq!(RedisUrl { user: url.user.clone(), ..again }, url);
    }
    assert_eq!(url.is_tls(), text.starts_with("rediss"));
}
