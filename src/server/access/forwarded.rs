//! Whose request a proxy passes on. What a header says counts only where somebody who is trusted wrote it, and then
//! the last word of it counts first: what stands to its left came from further away.

use std::net::{IpAddr, Ipv6Addr};

use hyper::HeaderMap;
use hyper::header::{self, HeaderName, HeaderValue};

use super::AccessError;
use super::allowlist::{self, Allowlist};
use super::peer::Peer;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The proxies whose word counts about whom they ask for. Empty means nobody's.
#[derive(Debug, Default)]
pub(crate) struct Proxies {
    networks: Allowlist,
    /// Whoever may open the unix socket is one.
    unix: bool,
}

impl Proxies {
    /// Reads addresses, networks, and `unix`; the error names every entry that is none of them.
    pub(crate) fn parse<S: AsRef<str>>(entries: &[S]) -> anyhow::Result<Proxies> {
        let is_unix = |entry: &&str| entry.trim() == "unix";
        let (unix, networks): (Vec<&str>, Vec<&str>) =
            entries.iter().map(AsRef::as_ref).partition(is_unix);
        let networks = Allowlist::of(allowlist::of_flag("--trusted-proxy", networks)?);
        Ok(Proxies { networks, unix: !unix.is_empty() })
    }

    pub(crate) fn trusts(&self, peer: Peer) -> bool {
        match peer {
            Peer::Ip(ip) => self.networks.contains(ip),
            Peer::Local => self.unix,
        }
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// The peer, for itself.
    Direct(Peer),
    /// Somebody behind a trusted proxy.
    Behind(IpAddr),
}

impl Client {
    pub(crate) fn peer(self) -> Peer {
        match self {
            Client::Direct(peer) => peer,
            Client::Behind(ip) => Peer::Ip(ip),
        }
    }
}

/// Who asks, by the headers of a request that came from `peer`.
pub(crate) fn client(
    headers: &HeaderMap,
    peer: Peer,
    proxies: &Proxies,
) -> Result<Client, AccessError> {
    let is_forwarded = headers.keys().any(is_forwarding);
    if !proxies.trusts(peer) {
        return if is_forwarded {
            Err(AccessError::UntrustedProxy)
        } else {
            Ok(Client::Direct(peer))
        };
    }
    let said = |name, hops: fn(&HeaderValue) -> Vec<Hop>| {
        let lines = headers.get_all(name);
        headers.contains_key(name).then(|| first_untrusted(lines.iter().flat_map(hops), proxies))
    };
    let client = match (said(&X_FORWARDED_FOR, listed), said(&header::FORWARDED, elements)) {
        (Some(client), None) | (None, Some(client)) => client?,
        // Whichever of them the proxy did not set may be the client's own.
        (Some(one), Some(other)) => match (one?, other?) {
            (one, other) if one == other => one,
            _ => return Err(AccessError::ConflictingClients),
        },
        (None, None) => {
            return match peer {
                // The proxy's own affair, such as a look at its backend's health: it is let in by its own address.
                Peer::Ip(_) if !is_forwarded => Ok(Client::Direct(peer)),
                // A unix socket has no address to be let in by. Or it asks for somebody, and does not say for whom.
                Peer::Ip(_) | Peer::Local => Err(AccessError::NoForwardedClient),
            };
        }
    };
    Ok(Client::Behind(client))
}

/// Whether a header says that the request was forwarded. Then the peer is a proxy, and its being allowed says nothing
/// about whoever asked it.
fn is_forwarding(name: &HeaderName) -> bool {
    let name = name.as_str(); // In lower case, however it was sent.
    name.starts_with("x-forwarded")
        || matches!(
            name,
            "forwarded"
                | "via"
                | "x-real-ip"
                | "x-client-ip"
                | "x-cluster-client-ip"
                | "true-client-ip"
                | "cf-connecting-ip"
        )
}

/// Somebody a request came by; `None` where something is said that is no address.
type Hop = Option<IpAddr>;

/// The nearest hop that is not a trusted proxy, or else the farthest. What a proxy adds stands to the right of what it
/// was sent, so whatever is to the left of an untrusted hop is that one's own word, and is not looked at.
fn first_untrusted(
    hops: impl DoubleEndedIterator<Item = Hop>,
    proxies: &Proxies,
) -> Result<IpAddr, AccessError> {
    let mut farthest = None;
    for hop in hops.rev() {
        let ip = hop.ok_or(AccessError::BadForwardedClient)?;
        if !proxies.networks.contains(ip) {
            return Ok(ip);
        }
        farthest = Some(ip);
    }
    farthest.ok_or(AccessError::BadForwardedClient)
}

/// The hops of an `X-Forwarded-For` line.
fn listed(line: &HeaderValue) -> Vec<Hop> {
    let entries = line.as_bytes().split(|byte| *byte == b',');
    entries.map(|entry| address(std::str::from_utf8(entry).ok()?.trim_matches(BLANKS))).collect()
}

const BLANKS: [char; 2] = [' ', '\t'];

/// The hops of a `Forwarded` line, RFC 7239. A quote that somebody left open may hide what the proxy added after it, so
/// a line that cannot be read says nothing at all.
fn elements(line: &HeaderValue) -> Vec<Hop> {
    line.to_str().ok().and_then(parse_elements).unwrap_or_else(|| vec![None])
}

fn parse_elements(line: &str) -> Option<Vec<Hop>> {
    let mut hops = Vec::new();
    let mut nodes: Vec<Hop> = Vec::new(); // What `for` says in the current element.
    let mut rest = line;
    loop {
        rest = rest.trim_start_matches(BLANKS);
        if !rest.is_empty() && !rest.starts_with([';', ',']) {
            let (name, after) = rest.split_once('=')?;
            if name.is_empty() || !name.bytes().all(is_of_token) {
                return None;
            }
            let (value, after) = parse_value(after)?;
            if name.eq_ignore_ascii_case("for") {
                nodes.push(address(&value));
            }
            rest = after.trim_start_matches(BLANKS);
        }
        match rest.split_at_checked(1) {
            Some((";", after)) => rest = after,
            Some((",", after)) => {
                hops.push(only(&nodes));
                nodes.clear();
                rest = after;
            }
            Some(_) => return None,
            None => {
                hops.push(only(&nodes));
                return Some(hops);
            }
        }
    }
}

/// What is said once.
fn only(nodes: &[Hop]) -> Hop {
    if let [node] = nodes { *node } else { None }
}

/// A parameter's value, and what comes after it. More is taken unquoted than the RFC has it: addresses with colons and
/// brackets, as many proxies write them.
fn parse_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ',', ' ', '\t', '"', '\\']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    loop {
        match chars.next()? {
            (end, '"') => return Some((value, &quoted[end + 1..])),
            (_, '\\') => value.push(chars.next()?.1),
            (_, c) => value.push(c),
        }
    }
}

/// RFC 9110, 5.6.2.
fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// An address as proxies write it: `IP`, `IP:PORT`, `[IPV6]`, `[IPV6]:PORT`. An IPv4 address is one even if it is mapped.
fn address(text: &str) -> Option<IpAddr> {
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, after) = rest.split_once(']')?;
        let ip: Ipv6Addr = ip.parse().ok()?;
        let is_whole = after.is_empty() || after.strip_prefix(':').is_some_and(is_port);
        return is_whole.then_some(ip.to_canonical());
    }
    let ip = match text.split_once(':') {
        Some((ip, port)) if !port.contains(':') && is_port(port) => ip,
        _ => text,
    };
    ip.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXIES: [&str; 4] = ["10.0.0.0/24", "2001:db8:1::/48", "::ffff:192.0.2.1", "unix"];

    fn peer(text: &str) -> Peer {
        match text {
            "unix" => Peer::Local,
            ip => Peer::Ip(ip.parse().expect("an address")),
        }
    }

    /// What comes of a request with these headers that `from` sent to somebody who trusts [`PROXIES`].
    fn found(from: &str, lines: &[(&str, &str)]) -> Result<Client, AccessError> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        client(&headers, peer(from), &Proxies::parse(&PROXIES).expect("good entries"))
    }

    fn behind(ip: &str) -> Result<Client, AccessError> {
        Ok(Client::Behind(ip.parse().expect("an address")))
    }

    const XFF: &str = "X-Forwarded-For";
    const FWD: &str = "Forwarded";

    #[test]
    fn whoever_is_not_a_trusted_proxy_asks_for_itself_or_is_refused() {
        for from in ["203.0.113.9", "10.0.1.0", "192.0.2.2", "2001:db8:2::1", "127.0.0.1"] {
            assert_eq!(found(from, &[]), Ok(Client::Direct(peer(from))));
            assert_eq!(found(from, &[("accept", "10.0.0.1")]), Ok(Client::Direct(peer(from))));
            for name in [XFF, FWD, "Via", "X-Real-IP", "x-forwarded-proto"] {
                assert_eq!(
                    found(from, &[(name, "10.0.0.1")]),
                    Err(AccessError::UntrustedProxy),
                    "{from} {name}"
                );
            }
        }
        let nobody = Proxies::default();
        for from in ["unix", "10.0.0.1"] {
            let mut headers = HeaderMap::new();
            assert_eq!(client(&headers, peer(from), &nobody), Ok(Client::Direct(peer(from))));
            headers.insert(&X_FORWARDED_FOR, HeaderValue::from_static("203.0.113.9"));
            assert_eq!(client(&headers, peer(from), &nobody), Err(AccessError::UntrustedProxy));
        }
    }

    #[test]
    fn the_client_is_the_last_hop_that_is_no_trusted_proxy() {
        for (lines, expected) in [
            // One hop, two hops, and a prefix that the client made up.
            (&["203.0.113.9"][..], behind("203.0.113.9")),
            (&["203.0.113.9, 10.0.0.7"], behind("203.0.113.9")),
            (&["10.0.0.5, 203.0.113.9"], behind("203.0.113.9")),
            (&["127.0.0.1,203.0.113.9,10.0.0.7,10.0.0.8"], behind("203.0.113.9")),
            (&["198.51.100.1, 203.0.113.9"], behind("203.0.113.9")),
            // All lines, in their order.
            (&["127.0.0.1", "203.0.113.9", "10.0.0.7"], behind("203.0.113.9")),
            (&["203.0.113.9", "127.0.0.1"], behind("127.0.0.1")),
            // All are proxies: the farthest of them asks.
            (&["10.0.0.7"], behind("10.0.0.7")),
            (&["10.0.0.9", "10.0.0.8,10.0.0.7"], behind("10.0.0.9")),
            // The ways of writing an address.
            (&["203.0.113.9:4711"], behind("203.0.113.9")),
            (&["\t203.0.113.9 \t"], behind("203.0.113.9")),
            (&["203.0.113.9,10.0.0.7:65535"], behind("203.0.113.9")),
            (&["2001:db8::9"], behind("2001:db8::9")),
            (&["[2001:db8::9]"], behind("2001:db8::9")),
            (&["[2001:db8::9]:4711,2001:db8:1::1,[2001:db8:1::2]:1"], behind("2001:db8::9")),
            (&["::ffff:203.0.113.9"], behind("203.0.113.9")),
            (&["203.0.113.9, ::ffff:10.0.0.7, 192.0.2.1"], behind("203.0.113.9")),
            (&["[::ffff:cb00:7109]:80"], behind("203.0.113.9")),
            // What is no address, where it is not reached.
            (&["unknown, 203.0.113.9"], behind("203.0.113.9")),
            (&["\u{e9}\u{a0}, ,\", 203.0.113.9, 10.0.0.7"], behind("203.0.113.9")),
            // And where it is.
            (&[""], Err(AccessError::BadForwardedClient)),
            (&["203.0.113.9,"], Err(AccessError::BadForwardedClient)),
            (&["203.0.113.9,,10.0.0.7"], Err(AccessError::BadForwardedClient)),
            (&["203.0.113.9, unknown"], Err(AccessError::BadForwardedClient)),
            (&["203.0.113.9, unknown, 10.0.0.7"], Err(AccessError::BadForwardedClient)),
            (&["203.0.113.9", "_hidden"], Err(AccessError::BadForwardedClient)),
            (&["203.0.113.9", ""], Err(AccessError::BadForwardedClient)),
            (&["localhost"], Err(AccessError::BadForwardedClient)),
            (&["203.0.113.9 10.0.0.7"], Err(AccessError::BadForwardedClient)),
            (&["\"203.0.113.9\""], Err(AccessError::BadForwardedClient)),
            (&["for=203.0.113.9"], Err(AccessError::BadForwardedClient)),
            (&["203.0.113.9:"], Err(AccessError::BadForwardedClient)),
            (&["203.0.113.9:x"], Err(AccessError::BadForwardedClient)),
            (&["203.0.113.9:+1"], Err(AccessError::BadForwardedClient)),
            (&["203.0.113.9:65536"], Err(AccessError::BadForwardedClient)),
            (&["203.0.113.9:1:2"], Err(AccessError::BadForwardedClient)),
            (&["203.0.113.09"], Err(AccessError::BadForwardedClient)),
            (&["203.0.113"], Err(AccessError::BadForwardedClient)),
            (&["3405803785"], Err(AccessError::BadForwardedClient)),
            (&["0xcb.0.113.9"], Err(AccessError::BadForwardedClient)),
            (&["203.0.113.9/32"], Err(AccessError::BadForwardedClient)),
            (&["fe80::1%eth0"], Err(AccessError::BadForwardedClient)),
            (&["[fe80::1%25eth0]:80"], Err(AccessError::BadForwardedClient)),
            (&["[2001:db8::9"], Err(AccessError::BadForwardedClient)),
            (&["[2001:db8::9]80"], Err(AccessError::BadForwardedClient)),
            (&["[203.0.113.9]"], Err(AccessError::BadForwardedClient)),
            (&["203.0.113.\u{ff19}"], Err(AccessError::BadForwardedClient)),
        ] {
            for from in ["10.0.0.1", "2001:db8:1::1", "192.0.2.1", "unix"] {
                let lines: Vec<_> = lines.iter().map(|line| (XFF, *line)).collect();
                assert_eq!(found(from, &lines), expected, "{from} {lines:?}");
            }
        }
    }

    #[test]
    fn forwarded_says_the_same_in_its_own_way() {
        for (lines, expected) in [
            (&["for=203.0.113.9"][..], behind("203.0.113.9")),
            (&["For=203.0.113.9;PROTO=https;by=10.0.0.1"], behind("203.0.113.9")),
            (
                &["proto=https; FOR=\"203.0.113.9:4711\" ;host=\"a,b;c\\\"=\""],
                behind("203.0.113.9"),
            ),
            (&["for=\"[2001:db8::1]:4711\""], behind("2001:db8::1")),
            (&["for=\"[2001:db8::1]\", for=10.0.0.7"], behind("2001:db8::1")),
            (&["for=\"[::ffff:203.0.113.9]\""], behind("203.0.113.9")),
            (&["for=\"203.0.113\\.9\""], behind("203.0.113.9")),
            (&["for=198.51.100.1, for=203.0.113.9", "for=10.0.0.7;by=_a"], behind("203.0.113.9")),
            (&["for=10.0.0.9", "for=10.0.0.8"], behind("10.0.0.9")),
            (&["for=203.0.113.9;"], behind("203.0.113.9")),
            (&[";;for=203.0.113.9; ;"], behind("203.0.113.9")),
            // As many proxies write it.
            (&["for=203.0.113.9:4711"], behind("203.0.113.9")),
            (&["for=[2001:db8::1]:4711;proto=http"], behind("2001:db8::1")),
            (&["for=2001:db8::1"], behind("2001:db8::1")),
            // What is no address, where it is not reached: also on a line of its own that cannot be read.
            (&["for=unknown, proto=http, , for=203.0.113.9"], behind("203.0.113.9")),
            (&["for=\"", "for=203.0.113.9"], behind("203.0.113.9")),
            (&["\u{e9}", "for=203.0.113.9"], behind("203.0.113.9")),
            // And where it is.
            (&[""], Err(AccessError::BadForwardedClient)),
            (&["203.0.113.9"], Err(AccessError::BadForwardedClient)),
            (&["for="], Err(AccessError::BadForwardedClient)),
            (&["for=\"\""], Err(AccessError::BadForwardedClient)),
            (&["for=unknown"], Err(AccessError::BadForwardedClient)),
            (&["for=203.0.113.9, for=_hidden;by=10.0.0.1"], Err(AccessError::BadForwardedClient)),
            (&["for=203.0.113.9, proto=https"], Err(AccessError::BadForwardedClient)),
            (&["for=203.0.113.9,"], Err(AccessError::BadForwardedClient)),
            (&["for=203.0.113.9;for=203.0.113.9"], Err(AccessError::BadForwardedClient)),
            (&["for =203.0.113.9"], Err(AccessError::BadForwardedClient)),
            (&["for= 203.0.113.9"], Err(AccessError::BadForwardedClient)),
            (&["for=203.0.113.9 proto=http"], Err(AccessError::BadForwardedClient)),
            (&["for=\"203.0.113.9\"x"], Err(AccessError::BadForwardedClient)),
            (&["for=203.0.113.9\\"], Err(AccessError::BadForwardedClient)),
            (&["for=\"203.0.113.9"], Err(AccessError::BadForwardedClient)),
            (&["for=\"203.0.113.9\\"], Err(AccessError::BadForwardedClient)),
            (&["f\u{e9}r=203.0.113.9"], Err(AccessError::BadForwardedClient)),
            // A quote left open does not hide what the proxy added, whether that has quotes or not.
            (&["for=10.0.1.5;x=\", for=203.0.113.9"], Err(AccessError::BadForwardedClient)),
            (&["for=10.0.1.5;x=\", for=\"[2001:db8::9]:1\""], Err(AccessError::BadForwardedClient)),
            (
                &["for=10.0.1.5;x=\", for=203.0.113.9;host=\"\""],
                Err(AccessError::BadForwardedClient),
            ),
            (
                &["for=10.0.1.5;x=\"\\, for=\"[2001:db8::9]\";by=\"[::1]\""],
                Err(AccessError::BadForwardedClient),
            ),
        ] {
            for from in ["10.0.0.1", "unix"] {
                let lines: Vec<_> = lines.iter().map(|line| (FWD, *line)).collect();
                assert_eq!(found(from, &lines), expected, "{from} {lines:?}");
            }
        }
    }

    #[test]
    fn both_headers_must_name_the_same_client() {
        for (listed, element, expected) in [
            ("203.0.113.9", "for=203.0.113.9", behind("203.0.113.9")),
            ("203.0.113.9, 10.0.0.7", "for=\"[::ffff:203.0.113.9]:1\"", behind("203.0.113.9")),
            ("203.0.113.9", "for=203.0.113.8", Err(AccessError::ConflictingClients)),
            ("203.0.113.9", "for=10.0.0.7", Err(AccessError::ConflictingClients)),
            ("203.0.113.9", "for=unknown", Err(AccessError::BadForwardedClient)),
            ("unknown", "for=203.0.113.9", Err(AccessError::BadForwardedClient)),
            ("203.0.113.9", "", Err(AccessError::BadForwardedClient)),
        ] {
            let lines = [(FWD, element), (XFF, listed), ("X-Real-IP", "127.0.0.1")];
            assert_eq!(found("10.0.0.1", &lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_proxy_that_does_not_say_for_whom_it_asks_asks_for_itself_or_is_refused() {
        assert_eq!(found("10.0.0.1", &[]), Ok(Client::Direct(peer("10.0.0.1"))));
        assert_eq!(found("10.0.0.1", &[("host", "x")]), Ok(Client::Direct(peer("10.0.0.1"))));
        // Whoever may open the socket would else be let in by nothing at all.
        assert_eq!(found("unix", &[]), Err(AccessError::NoForwardedClient));
        for name in ["X-Real-IP", "X-Client-IP", "CF-Connecting-IP", "Via", "X-Forwarded-Proto"] {
            for from in ["10.0.0.1", "unix"] {
                assert_eq!(
                    found(from, &[(name, "203.0.113.9")]),
                    Err(AccessError::NoForwardedClient),
                    "{from} {name}"
                );
            }
        }
    }

    #[test]
    fn whatever_is_cut_off_or_flipped_names_nobody_new() {
        // Somebody who can damage what the proxy wrote is no client; but whatever comes must be read without a panic.
        let whole =
            "for=198.51.100.1;x=\"a,\\\"b\", for=\"[2001:db8::1]:4711\";proto=https , for=10.0.0.7";
        for end in 0..=whole.len() {
            let _ = parse_elements(&whole[..end]);
            for byte in 0..end {
                for flipped in [b'"', b'\\', b',', b';', b'=', b' ', b'x'] {
                    let mut bytes = whole.as_bytes()[..end].to_vec();
                    bytes[byte] = flipped;
                    let _ = parse_elements(std::str::from_utf8(&bytes).expect("ASCII"));
                }
            }
        }
        assert_eq!(parse_elements(whole).map(|hops| hops.len()), Some(3));
    }

    #[test]
    fn entries_are_addresses_networks_and_the_word_unix() {
        let proxies = Proxies::parse(&["127.0.0.1", " 10.0.0.0/8"]).expect("good entries");
        assert!(proxies.trusts(peer("127.0.0.1")) && proxies.trusts(peer("10.9.9.9")));
        assert!(!proxies.trusts(peer("::1")) && !proxies.trusts(Peer::Local));
        let err = Proxies::parse(&["unix:/run/x", "proxy", "10.0.0.1/8", "unix"]).unwrap_err();
        assert_eq!(
            err.to_string(),
            "--trusted-proxy: unix:/run/x: expected an address or a network, like 10.1.2.3 or 10.0.0.0/8; \
             proxy: expected an address or a network, like 10.1.2.3 or 10.0.0.0/8; \
             10.0.0.1/8: bits are set beyond the prefix, write 10.0.0.0/8 or 10.0.0.1"
        );
        assert!(!Proxies::parse::<&str>(&[]).expect("nobody").trusts(Peer::Local));
    }
}
