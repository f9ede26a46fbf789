//! What to add to an error where a host of WeChat's is this host itself.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use crate::message::messages;
use crate::model::address::endpoint::BaseUrl;
use crate::model::address::host_port::{Host, HostPort};
use crate::os::{network, thread};

/// How long a name is looked up to explain a failure.
const HINT_PATIENCE: Duration = Duration::from_millis(500);

/// Returns what to add to an error if a host of WeChat's is this host here.
pub(super) fn hint_of_own_host(base: &BaseUrl) -> String {
    let host = match HostPort::parse(base.authority()).map(|it| it.host) {
        Some(Host::Name(name)) if is_wechat(name) => name.to_owned(),
        _ => return String::new(),
    };
    let name = host.clone();
    let resolve = move || (name.as_str(), 0).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
    let addresses = match thread::start("resolve", resolve) {
        Ok(pending) => pending.wait(HINT_PATIENCE).ok().and_then(Result::ok),
        Err(_) => None,
    };
    own_host_hint(&host, addresses.unwrap_or_default().iter().map(SocketAddr::ip))
}

messages! {
    OWN_HOST<2> {
        "Take {0} out of this host's hosts file, or for an official account set base_url to https://api2.weixin.qq.com.",
        "{0} is {1} here, which is this host itself";
        "请从本机 hosts 文件中去掉 {0}，公众号与小程序也可将 base_url 设为 https://api2.weixin.qq.com。",
        "{0} 在本机被解析为本机地址 {1}";
    }
}

/// Whether this is a host of WeChat's.
pub(crate) fn is_wechat(host: &str) -> bool {
    host.ends_with(".weixin.qq.com")
}

/// Returns what to add to an error about a host of WeChat's with these addresses if one of them is this host's own. A hosts
/// file may lead clients to wxtoken by WeChat's names, and must not lead wxtoken itself there.
pub(crate) fn own_host_hint(host: &str, addresses: impl IntoIterator<Item = IpAddr>) -> String {
    match addresses.into_iter().find(|ip| network::is_own(*ip)) {
        None => String::new(),
        Some(ip) => {
            format!("; {}", OWN_HOST.with([&host, &ip]))
        }
    }
}
