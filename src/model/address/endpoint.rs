//! Base URLs and proxies, as users write them. Errors repeat nothing of the text, which may hold a password. Connects to
//! nothing.

use std::env;
use std::ffi::OsString;
use std::fmt;

use anyhow::{Result, anyhow};
use ureq::http::Uri;

use super::host_port::{Host, HostPort};
use super::{faults, no_proxy};
use crate::message::messages;
use crate::model::secret;

messages! {
    PROXY_VARIABLE<2> {
        "Correct {0}, or unset it.", "{0} cannot be used, and is not gone round: {1}";
        "请更正或删除环境变量 {0}。", "{0} 无法使用，且不会绕过代理：{1}";
    }
}

/// A server's base URL: `https://HOST[:PORT][/PREFIX]`, or `http://` on loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BaseUrl {
    /// Without a trailing slash.
    text: String,
    uri: Uri,
    is_loopback: bool,
}

/// Why a text is not a base URL. The message continues the name of the setting.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BaseUrlError {
    /// It is `http://` and leads off this host.
    Cleartext,
    Malformed(&'static str),
}

impl fmt::Display for BaseUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BaseUrlError::Cleartext => faults::CLEARTEXT,
            BaseUrlError::Malformed(what) => what,
        })
    }
}

impl From<&'static str> for BaseUrlError {
    fn from(what: &'static str) -> BaseUrlError {
        BaseUrlError::Malformed(what)
    }
}

impl BaseUrl {
    /// Parses a base URL.
    pub(crate) fn parse(text: &str) -> Result<BaseUrl, BaseUrlError> {
        let uri: Uri = text.parse().map_err(|_| faults::NO_URL)?;
        let host = host_port(&uri).ok_or(faults::NO_PORT)?.host;
        if host == Host::Name("") {
            return Err(faults::NO_HOST.into());
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(faults::HAS_USER.into());
        }
        // `Uri` drops a fragment, and the API's path would be appended to it.
        if uri.query().is_some() || text.contains('#') {
            return Err(faults::HAS_QUERY.into());
        }
        let is_loopback = host.is_loopback();
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if is_loopback => {}
            Some("http") => return Err(BaseUrlError::Cleartext),
            _ => return Err(faults::NO_HTTPS.into()),
        }
        Ok(BaseUrl { text: text.trim_end_matches('/').to_owned(), uri, is_loopback })
    }

    /// Returns the URL of `path`, which begins with a slash.
    pub(crate) fn join(&self, path: &str) -> String {
        format!("{}{path}", self.text)
    }

    /// Returns the host and, if one is given, the port.
    pub(crate) fn authority(&self) -> &str {
        authority(&self.uri)
    }

    /// Returns the host: a name, or an address without brackets.
    pub(crate) fn host(&self) -> &str {
        let host = self.uri.host().unwrap_or_default();
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    /// Returns the port: the given one, or that of the scheme.
    pub(crate) fn port(&self) -> u16 {
        let given = host_port(&self.uri).and_then(|it| it.port);
        given.unwrap_or(if self.is_https() { 443 } else { 80 })
    }

    pub(crate) fn is_https(&self) -> bool {
        self.uri.scheme_str() != Some("http")
    }

    /// Returns what stands before the path of each call: nothing, or `/PREFIX`.
    pub(crate) fn prefix(&self) -> &str {
        self.uri.path().trim_end_matches('/')
    }

    /// Whether `exemptions`, a list like `NO_PROXY`, has this server in it.
    fn is_exempt(&self, exemptions: &str) -> bool {
        host_port(&self.uri)
            .is_some_and(|server| no_proxy::exempts(exemptions, server.host, self.port()))
    }
}

fn authority(uri: &Uri) -> &str {
    uri.authority().map_or("", |authority| authority.as_str())
}

/// Returns the host and port of `uri`; `None` if the port is not one. The HTTP client would silently take the scheme's
/// default port instead.
fn host_port(uri: &Uri) -> Option<HostPort<'_>> {
    let authority = authority(uri);
    HostPort::parse(authority.rsplit_once('@').map_or(authority, |(_, host_port)| host_port))
}

/// A proxy's address, with its password. Shown as host and port only.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proxy(ureq::Proxy);

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority())
    }
}

impl Proxy {
    /// Parses a proxy's address. Fails if its host, which messages show, has the form of a secret: it may be a misplaced
    /// password.
    pub(crate) fn parse(address: &str) -> Result<Proxy, &'static str> {
        if address.parse::<Uri>().is_ok_and(|uri| host_port(&uri).is_none()) {
            return Err(faults::NO_PROXY);
        }
        // ureq's own error may contain the password.
        let proxy = ureq::Proxy::new(address).map(Proxy).map_err(|_| faults::NO_PROXY)?;
        if secret::may_hold_secret(&proxy.authority()) {
            return Err(faults::PROXY_LIKE_SECRET);
        }
        Ok(proxy)
    }

    /// Returns the proxy for `target` from `HTTPS_PROXY` or `ALL_PROXY`, unless `NO_PROXY` exempts it; never one for
    /// loopback. As with curl, the variable in small letters counts if there are both.
    ///
    /// ureq reads these variables too, but it connects directly if it cannot parse one, uses `HTTP_PROXY` for https, and
    /// has rules of its own for `NO_PROXY`.
    pub(crate) fn from_environment(target: &BaseUrl) -> Result<Option<Proxy>> {
        Proxy::from_variables(target, env::var_os)
    }

    fn from_variables(
        target: &BaseUrl,
        variable: impl Fn(&'static str) -> Option<OsString>,
    ) -> Result<Option<Proxy>> {
        let read = |name| variable(name).filter(|value| !value.is_empty());
        let either = |lower, upper| {
            read(lower)
                .map(|value| (lower, value))
                .or_else(|| read(upper).map(|value| (upper, value)))
        };
        let Some((name, value)) =
            either("https_proxy", "HTTPS_PROXY").or_else(|| either("all_proxy", "ALL_PROXY"))
        else {
            return Ok(None);
        };
        if target.is_loopback {
            return Ok(None);
        }
        let proxy = value
            .to_str()
            .ok_or(faults::NO_PROXY)
            .and_then(|it| Proxy::parse(it.trim()))
            .map_err(|problem| anyhow!("{}", PROXY_VARIABLE.with([&name, &problem])))?;
        let is_exempt = either("no_proxy", "NO_PROXY")
            .is_some_and(|(_, list)| target.is_exempt(&list.to_string_lossy()));
        Ok((!is_exempt).then_some(proxy))
    }

    /// Returns the proxy for the HTTP client, with its password.
    pub(crate) fn to_ureq(&self) -> ureq::Proxy {
        self.0.clone()
    }

    /// Returns host and port.
    pub(crate) fn authority(&self) -> String {
        format!("{}:{}", self.0.host(), self.0.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_is_https_or_on_loopback() {
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
        assert_eq!(prefixed.join("/cgi-bin/token"), "https://proxy.example:8443/wx/cgi-bin/token");
        assert_eq!(prefixed.authority(), "proxy.example:8443");
        let parts = |it: &BaseUrl| (it.host().to_owned(), it.port(), it.prefix().to_owned());
        assert_eq!(parts(&prefixed), ("proxy.example".to_owned(), 8443, "/wx".to_owned()));
        let v6 = BaseUrl::parse("http://[::1]/").unwrap();
        assert_eq!(parts(&v6), ("::1".to_owned(), 80, String::new()));
    }

    #[test]
    fn a_proxy_is_shown_as_host_and_port_only() {
        let proxy = Proxy::parse("http://u:p%40ss@proxy:3128").unwrap();
        assert_eq!(proxy.authority(), "proxy:3128");
        assert_eq!(format!("{proxy:?}"), "proxy:3128");
        assert_eq!(proxy.to_ureq().password(), Some("p@ss"));
        assert_eq!(Proxy::parse("socks5://proxy").map(|it| it.authority()).unwrap(), "proxy:1080");
        for wrong in ["", "nonsense://x", "http://", "http://proxy:x", "http://u:p@proxy:99999"] {
            assert_eq!(Proxy::parse(wrong).err(), Some(faults::NO_PROXY), "{wrong}");
        }
        let secret = "5ec2e75ec2e75ec2e75ec2e75ec2e75e";
        let problem = Proxy::parse(&format!("http://{secret}:3128")).unwrap_err();
        assert!(problem.contains("AppSecret") && !problem.contains(secret), "{problem}");
    }

    #[test]
    fn the_proxy_is_that_of_a_variable_that_is_set_unless_another_exempts_the_server() {
        let target = "https://api.weixin.qq.com";
        for (target, variables, expected) in [
            (target, &[][..], Ok(None)),
            (target, &[("HTTPS_PROXY", "http://a:1")], Ok(Some("a:1"))),
            (
                target,
                &[("https_proxy", "http://b:2"), ("HTTPS_PROXY", "http://a:1")],
                Ok(Some("b:2")),
            ),
            (target, &[("https_proxy", ""), ("HTTPS_PROXY", " http://a:1 ")], Ok(Some("a:1"))),
            (target, &[("ALL_PROXY", "socks5://c:3")], Ok(Some("c:3"))),
            (
                target,
                &[("all_proxy", "socks5://c:3"), ("HTTPS_PROXY", "http://a:1")],
                Ok(Some("a:1")),
            ),
            (target, &[("HTTPS_PROXY", "http://a:1"), ("NO_PROXY", "x.example")], Ok(Some("a:1"))),
            (target, &[("HTTPS_PROXY", "http://a:1"), ("NO_PROXY", "qq.com")], Ok(None)),
            (target, &[("HTTPS_PROXY", "nonsense://x")], Err("HTTPS_PROXY")),
            ("http://127.0.0.1:7201", &[("HTTPS_PROXY", "nonsense")], Ok(None)),
        ] {
            let target = BaseUrl::parse(target).unwrap();
            let variable = |name| variables.iter().find(|it| it.0 == name).map(|it| it.1.into());
            let found = Proxy::from_variables(&target, variable);
            match (found, expected) {
                (Ok(proxy), Ok(expected)) => {
                    assert_eq!(
                        proxy.map(|it| it.authority()).as_deref(),
                        expected,
                        "{variables:?}"
                    );
                }
                (Err(err), Err(name)) => assert!(err.to_string().contains(name), "{err}"),
                (found, _) => panic!("{variables:?}: {found:?}"),
            }
        }
    }

    #[test]
    fn what_is_wrong_with_a_base_url_is_said() {
        let said = |text| BaseUrl::parse(text).unwrap_err().to_string();
        assert_eq!(said("http://api.weixin.qq.com"), faults::CLEARTEXT);
        assert_eq!(said("ftp://api.weixin.qq.com"), faults::NO_HTTPS);
        assert_eq!(said("https://"), faults::NO_URL);
        assert!(BaseUrl::parse("https://localhost").unwrap().is_https());
        assert!(!BaseUrl::parse("http://localhost").unwrap().is_https());
    }

    #[test]
    fn a_server_is_exempt_by_its_host_and_the_port_of_its_scheme() {
        let is_exempt = |url: &str, list: &str| BaseUrl::parse(url).unwrap().is_exempt(list);
        assert!(is_exempt("https://api.weixin.qq.com/wx", "a.example, qq.com:443"));
        assert!(!is_exempt("https://api.weixin.qq.com:8443", "qq.com:443"));
        assert!(is_exempt("https://[2001:db8::1]:8443", "2001:db8::/32"));
    }
}
