//! `NO_PROXY`: the servers that are reached directly. Read as curl reads it, and with ports. Resolves no name.

use cidr::IpInet;

use super::host_port::{Host, HostPort};

/// Whether a list like `NO_PROXY` exempts a server from the proxy. Its entries, between commas or blanks:
///
/// - `*` is every server;
/// - `example.com`, `.example.com` and `*.example.com` are this domain and all below it;
/// - `10.0.0.1` and `10.0.0.0/8` are addresses, as they stand in a URL: no name is resolved;
/// - `HOST:PORT`, with an IPv6 address in brackets, is this port alone.
///
/// Other entries are other programs', and exempt nothing.
pub(crate) fn exempts(list: &str, server: Host<'_>, port: u16) -> bool {
    let entries = list.split(|c: char| c == ',' || c.is_ascii_whitespace());
    entries.filter(|entry| !entry.is_empty()).any(|entry| is_match(entry, server, port))
}

fn is_match(entry: &str, server: Host<'_>, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    // Before the port is split off: an IPv6 address may stand without brackets here. Bits beyond the prefix do not count.
    if let (Some(ip), Ok(network)) = (server.ip(), entry.parse::<IpInet>()) {
        return network.contains(&ip);
    }
    let Some(entry) = HostPort::parse(entry) else { return false };
    if entry.port.is_some_and(|only| only != port) {
        return false;
    }
    match (entry.host, server) {
        (Host::Name(domain), Host::Name(name)) if server.ip().is_none() => is_below(name, domain),
        (entry, server) => entry.ip().is_some_and(|ip| server.ip() == Some(ip)),
    }
}

/// Whether `name` is the domain or below it.
fn is_below(name: &str, domain: &str) -> bool {
    let domain = domain.strip_prefix('*').unwrap_or(domain);
    let domain = domain.strip_prefix('.').unwrap_or(domain);
    // A dot at the end says that the name is complete.
    let [name, domain] = [name, domain].map(|it| it.strip_suffix('.').unwrap_or(it).as_bytes());
    match name.len().checked_sub(domain.len()) {
        Some(length) if !domain.is_empty() => {
            let (below, end) = name.split_at(length);
            end.eq_ignore_ascii_case(domain) && (below.is_empty() || below.ends_with(b"."))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_exempt(list: &str, server: &str) -> bool {
        let server = HostPort::parse(server).unwrap();
        exempts(list, server.host, server.port.unwrap_or(443))
    }

    #[test]
    fn a_domain_covers_itself_and_its_subdomains_however_it_is_written() {
        for list in ["weixin.qq.com", ".weixin.qq.com", "*.weixin.qq.com", "WeiXin.QQ.com."] {
            for server in
                ["weixin.qq.com", "api.weixin.qq.com", "a.B.weixin.qq.com", "weixin.qq.com."]
            {
                assert!(is_exempt(list, server), "{list}: {server}");
            }
            for server in
                ["myweixin.qq.com", "qq.com", "weixin.qq.com.example", "10.0.0.1", "[::1]"]
            {
                assert!(!is_exempt(list, server), "{list}: {server}");
            }
        }
    }

    #[test]
    fn a_port_narrows_an_entry_and_a_star_is_every_server() {
        for (list, server, expected) in [
            ("weixin.qq.com:443", "api.weixin.qq.com", true),
            ("weixin.qq.com:8443", "api.weixin.qq.com", false),
            ("weixin.qq.com:8443", "api.weixin.qq.com:8443", true),
            ("*.weixin.qq.com:8443", "api.weixin.qq.com:8443", true),
            ("10.0.0.1:8443", "10.0.0.1:8443", true),
            ("10.0.0.1:8443", "10.0.0.1", false),
            ("[2001:db8::1]:8443", "[2001:db8::1]:8443", true),
            ("[2001:db8::1]:8443", "[2001:db8::1]", false),
            ("*", "api.weixin.qq.com", true),
            ("a.example, *", "[2001:db8::1]:8443", true),
        ] {
            assert_eq!(is_exempt(list, server), expected, "{list}: {server}");
        }
    }

    #[test]
    fn addresses_are_exempt_by_address_and_by_network_and_names_never_by_either() {
        for (list, server, expected) in [
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.0/8", "10.200.0.1:8443", true),
            ("10.1.2.3/8", "10.200.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("0.0.0.0/0", "203.0.113.1", true),
            ("0.0.0.0/0", "[2001:db8::1]", false),
            ("2001:db8::/32", "[2001:db8::1]", true),
            ("2001:db8::1", "[2001:db8::1]", true),
            ("[2001:db8::1]", "[2001:db8::1]", true),
            ("10.0.0.1", "[::ffff:10.0.0.1]", true),
            // An address has no domain above it.
            ("0.0.1", "10.0.0.1", false),
            ("0.0.0.0/0", "api.weixin.qq.com", false),
        ] {
            assert_eq!(is_exempt(list, server), expected, "{list}: {server}");
        }
    }

    #[test]
    fn blanks_separate_and_what_is_not_an_entry_exempts_nothing() {
        assert!(is_exempt("a.example, .weixin.qq.com ,,b", "api.weixin.qq.com"));
        assert!(is_exempt("a.example\tweixin.qq.com", "api.weixin.qq.com"));
        for list in
            ["", " ,", ".", "*.", "..", "http://weixin.qq.com", "10.0.0.0/99", ":443", "api.*", "é"]
        {
            assert!(!is_exempt(list, "api.weixin.qq.com"), "{list}");
            assert!(!is_exempt(list, "api.weixin.qq.com.."), "{list}");
            assert!(!is_exempt(list, "10.0.0.1"), "{list}");
        }
    }
}
