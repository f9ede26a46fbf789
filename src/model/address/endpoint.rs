//! Where WeChat is and the way there, as people write it, checked: base URLs and proxies. What is refused is not
//! repeated: it may hold a password. Connects to nobody.

use std::fmt;
use std::net::IpAddr;

use anyhow::{Result, anyhow};
use ureq::http::Uri;

/// A server: `https://HOST[:PORT][/PREFIX]`, or `http://` on loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BaseUrl {
    /// Without a slash at its end.
    text: String,
    uri: Uri,
}

impl BaseUrl {
    /// Reads one; the error goes on after the name of what was read.
    pub(crate) fn parse(text: &str) -> Result<BaseUrl, &'static str> {
        let uri: Uri = text.parse().map_err(|_| "is not a URL")?;
        if has_bad_port(&uri) {
            return Err("has a port that is none");
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or("has no host")?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("must not hold a user or password");
        }
        // The URI forgets a fragment, and the API's path would land behind it.
        if uri.query().is_some() || text.contains('#') {
            return Err("must not have a query or a fragment");
        }
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if is_loopback(host) => {}
            Some("http") => {
                return Err(
                    "must be https:// (http:// only to loopback): the AppSecret would cross the network in clear",
                );
            }
            _ => return Err("must begin with https://"),
        }
        Ok(BaseUrl { text: text.trim_end_matches('/').to_owned(), uri })
    }

    /// The URL of `path` there.
    pub(crate) fn with(&self, path: &str) -> String {
        format!("{}{path}", self.text)
    }

    /// The host and, where one is given, the port.
    pub(crate) fn authority(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }
}

/// Whether a port is given that is not one; the client would take the scheme's own instead.
fn has_bad_port(uri: &Uri) -> bool {
    let after_host = uri
        .authority()
        .map_or("", |authority| authority.as_str().rsplit([']', '@']).next().unwrap_or(""));
    after_host.contains(':') && uri.port_u16().is_none()
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// A proxy's address, its password included. What is shown are host and port alone.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proxy(ureq::Proxy);

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority())
    }
}

/// What is said of anything else, after the name of what was read.
const NO_PROXY_ADDRESS: &str = "is not a proxy's address (like http://proxy:3128)";

impl Proxy {
    /// Reads one.
    pub(crate) fn parse(address: &str) -> Result<Proxy, &'static str> {
        Proxy::exempting(address, "")
    }

    /// The proxy for `target`, from `HTTPS_PROXY` or `ALL_PROXY`, unless `NO_PROXY` exempts it; never for loopback.
    ///
    /// ureq would read them too, but it goes direct when it cannot parse one, takes `HTTP_PROXY` for https, and
    /// overlooks `NO_PROXY` entries after a blank.
    pub(crate) fn of_environment(target: &BaseUrl) -> Result<Option<Proxy>> {
        let read = |name: &'static str| std::env::var_os(name).filter(|value| !value.is_empty());
        let either = |upper, lower| {
            read(upper)
                .map(|value| (upper, value))
                .or_else(|| read(lower).map(|value| (lower, value)))
        };
        let Some((name, value)) =
            either("HTTPS_PROXY", "https_proxy").or_else(|| either("ALL_PROXY", "all_proxy"))
        else {
            return Ok(None);
        };
        if is_loopback(target.uri.host().unwrap_or_default()) {
            return Ok(None);
        }
        let exempt =
            either("NO_PROXY", "no_proxy").map(|(_, list)| list.to_string_lossy().into_owned());
        let proxy = value
            .to_str()
            .ok_or(NO_PROXY_ADDRESS)
            .and_then(|address| Proxy::exempting(address.trim(), &exempt.unwrap_or_default()))
            .map_err(|finding| anyhow!("{name} {finding}; refusing to go round it"))?;
        Ok((!proxy.0.is_no_proxy(&target.uri)).then_some(proxy))
    }

    fn exempting(address: &str, exempt: &str) -> Result<Proxy, &'static str> {
        if address.parse::<Uri>().is_ok_and(|uri| has_bad_port(&uri)) {
            return Err(NO_PROXY_ADDRESS);
        }
        // ureq's own words may hold the password.
        build(address, exempt).map(Proxy).map_err(|_| NO_PROXY_ADDRESS)
    }

    /// For the client; to be shown to nobody.
    pub(crate) fn for_client(&self) -> ureq::Proxy {
        self.0.clone()
    }

    /// Its host and port.
    pub(crate) fn authority(&self) -> String {
        format!("{}:{}", self.0.host(), self.0.port())
    }
}

fn build(address: &str, exempt: &str) -> Result<ureq::Proxy, ureq::Error> {
    let given = ureq::Proxy::new(address)?;
    let mut proxy = ureq::Proxy::builder(given.protocol())
        .host(given.host())
        .port(given.port())
        .resolve_target(given.resolve_target());
    if let Some(username) = given.username() {
        proxy = proxy.username(username);
    }
    if let Some(password) = given.password() {
        proxy = proxy.password(password);
    }
    for entry in exempt.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        proxy = proxy.no_proxy(entry);
    }
    proxy.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_goes_to_https_or_stays_on_this_machine() {
        for fine in [
            "https://api.weixin.qq.com",
            "https://proxy.example:8443/wx/",
            "http://127.0.0.1:7201",
            "http://localhost",
            "http://[::1]:80",
            "http://127.9.9.9",
        ] {
            assert!(BaseUrl::parse(fine).is_ok(), "{fine}");
        }
        for wrong in [
            "",
            "api.weixin.qq.com",
            "/cgi-bin",
            "ftp://api.weixin.qq.com",
            "http://api.weixin.qq.com",
            "http://127.0.0.1.example",
            "http://10.0.0.1",
            "https://",
            "https://user:S3CR3T@api.weixin.qq.com",
            "https://api.weixin.qq.com/?secret=S3CR3T",
            "https://api.weixin.qq.com/#S3CR3T",
            "https://api weixin/S3CR3T",
            "https://api.weixin.qq.com:99999",
            "https://api.weixin.qq.com:",
            "http://[::1]:x",
        ] {
            assert!(BaseUrl::parse(wrong).is_err(), "{wrong}");
        }
        let prefixed = BaseUrl::parse("https://proxy.example:8443/wx/").unwrap();
        assert_eq!(prefixed.with("/cgi-bin/token"), "https://proxy.example:8443/wx/cgi-bin/token");
        assert_eq!(prefixed.authority(), "proxy.example:8443");
    }

    #[test]
    fn a_proxy_is_told_by_host_and_port_alone() {
        let proxy = Proxy::parse("http://u:p%40ss@proxy:3128").unwrap();
        assert_eq!(proxy.authority(), "proxy:3128");
        assert_eq!(proxy.for_client().password(), Some("p@ss"));
        assert_eq!(Proxy::parse("socks5://proxy").map(|it| it.authority()).unwrap(), "proxy:1080");
        for wrong in ["", "nonsense://x", "http://", "http://proxy:x", "http://u:p@proxy:99999"] {
            assert_eq!(Proxy::parse(wrong).err(), Some(NO_PROXY_ADDRESS), "{wrong}");
        }
    }

    #[test]
    fn no_proxy_entries_may_have_blanks_around_them() {
        let proxy = Proxy::exempting("http://proxy:3128", "a.example, .weixin.qq.com ,,b").unwrap();
        assert!(proxy.0.is_no_proxy(&"https://api.weixin.qq.com".parse().unwrap()));
        assert!(!proxy.0.is_no_proxy(&"https://qyapi.example".parse().unwrap()));
    }
}
