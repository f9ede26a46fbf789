//! Finds the client behind a reverse proxy, by `X-Forwarded-For` and `Forwarded`. Other headers that name a client are not believed, and must
//! not contradict these two.
//!
//! A proxy appends the address that it was asked from, so these headers are read from their right end, and only as far
//! as trusted proxies wrote them.

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header::{self, HeaderName, HeaderValue};

use super::AccessError;
use super::allowlist::{self, Allowlist};
use super::peer::Peer;
use crate::error::Exit;
use crate::message::messages;
use crate::model::address::host_port::HostPort;

messages! {
    ALL_ADDRESSES<0> {
        "Name the proxies alone, like 10.0.0.5.", "this is every address, so every client could name another one";
        "请只填写代理的地址，如 10.0.0.5。", "这包括所有地址，任何客户端都可以冒充其他客户端";
    }
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The headers in which proxies and content delivery networks name the client by one address. In lower case and sorted.
const CLIENT_HEADERS: [&str; 15] = [
    "ali-cdn-real-ip",
    "cdn-src-ip",
    "cf-connecting-ip",
    "client-ip",
    "eo-connecting-ip",
    "fastly-client-ip",
    "fly-client-ip",
    "proxy-client-ip",
    "true-client-ip",
    "wl-proxy-client-ip",
    "x-azure-clientip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "x-real-ip",
];

/// The proxies whose headers are believed. Empty by default.
#[derive(Debug, Default)]
pub(crate) struct TrustedProxies {
    networks: Allowlist,
    /// Whether the peers of a unix socket are such proxies.
    includes_unix: bool,
}

impl TrustedProxies {
    /// Parses addresses, networks and the word `unix`. The error names every entry that is none of them, or that is all
    /// addresses: each client could name another one then.
    pub(crate) fn parse<S: AsRef<str>>(entries: &[S]) -> anyhow::Result<TrustedProxies> {
        let is_unix = |entry: &&str| entry.trim() == "unix";
        let (unix, networks): (Vec<&str>, Vec<&str>) =
            entries.iter().map(AsRef::as_ref).partition(is_unix);
        let networks = allowlist::parse_networks("--trusted-proxy", networks)?;
        if networks.iter().any(|network| network.network_length() == 0) {
            return Err(Exit::Usage.error(format!("--trusted-proxy: {}", ALL_ADDRESSES.text())));
        }
        let networks = Allowlist::from_networks(networks);
        Ok(TrustedProxies { networks, includes_unix: !unix.is_empty() })
    }

    /// Whether the headers that this peer sends are believed.
    pub(crate) fn contains(&self, peer: Peer) -> bool {
        match peer {
            Peer::Ip(ip) => self.networks.contains(ip),
            Peer::Unix => self.includes_unix,
        }
    }
}

/// The client that a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientAddress {
    /// The peer itself is the client.
    Direct(Peer),
    /// A trusted proxy forwards the request of this client.
    Forwarded(IpAddr),
}

impl ClientAddress {
    /// Returns the client as the peer that it would be without a proxy.
    pub(crate) fn peer(self) -> Peer {
        match self {
            ClientAddress::Direct(peer) => peer,
            ClientAddress::Forwarded(ip) => Peer::Ip(ip),
        }
    }
}

/// Finds the client of a request by the headers that `peer` sent.
pub(crate) fn client_address(
    headers: &HeaderMap,
    peer: Peer,
    proxies: &TrustedProxies,
) -> Result<ClientAddress, AccessError> {
    let is_forwarded = headers.keys().any(is_proxy_header);
    if !proxies.contains(peer) {
        return match is_forwarded {
            true => Err(AccessError::UntrustedProxy),
            false => Ok(ClientAddress::Direct(peer)),
        };
    }
    let client_by = |name: &HeaderName, parse_line: fn(&HeaderValue) -> Vec<Option<IpAddr>>| {
        let lines = headers.get_all(name).iter();
        headers
            .contains_key(name)
            .then(|| nearest_untrusted(lines.flat_map(parse_line), &proxies.networks))
    };
    let by_x_forwarded_for = client_by(&X_FORWARDED_FOR, parse_x_forwarded_for);
    let by_forwarded = client_by(&header::FORWARDED, parse_forwarded);
    let client = match (by_x_forwarded_for, by_forwarded) {
        (Some(client), None) | (None, Some(client)) => client?,
        // The client may have sent the one that the proxy does not set.
        (Some(one), Some(other)) => match (one?, other?) {
            (one, other) if one == other => one,
            _ => return Err(AccessError::ConflictingClients),
        },
        (None, None) => {
            return match peer {
                // The proxy's own request, such as a health check, is allowed or refused by the proxy's address.
                Peer::Ip(_) if !is_forwarded => Ok(ClientAddress::Direct(peer)),
                // A unix socket's peer has no address that could be allowed, and other proxy headers name no client.
                Peer::Ip(_) | Peer::Unix => Err(AccessError::NoForwardedClient),
            };
        }
    };
    match contradicts(headers, client, &proxies.networks) {
        false => Ok(ClientAddress::Forwarded(client)),
        true => Err(AccessError::ConflictingClients),
    }
}

/// Whether one of [`CLIENT_HEADERS`] names another client, or something that is no address.
///
/// The proxy sets one header and passes the others on as the client sent them, and which one it sets is unknown here. A
/// trusted proxy's own address is no contradiction: the last of several proxies names the one before it.
fn contradicts(headers: &HeaderMap, client: IpAddr, trusted: &Allowlist) -> bool {
    let agrees = |value: &HeaderValue| {
        let named = value.to_str().ok().and_then(|text| parse_address(text.trim_matches(BLANKS)));
        named.is_some_and(|named| named == client || trusted.contains(named))
    };
    let mut others = headers.iter().filter(|(name, _)| names_client(name));
    others.any(|(_, value)| !agrees(value))
}

fn names_client(header: &HeaderName) -> bool {
    let name = header.as_str(); // Lower case, however it was sent.
    // The end tells most headers apart from these.
    (name.ends_with("ip") || name.ends_with("address"))
        && CLIENT_HEADERS.binary_search(&name).is_ok()
}

/// Whether a header shows that the request was forwarded. Its peer is a proxy then, so that allowing the peer's address
/// must not allow the request.
pub(crate) fn is_proxy_header(name: &HeaderName) -> bool {
    names_client(name)
        || name.as_str().starts_with("x-forwarded")
        || matches!(name.as_str(), "forwarded" | "via" | "x-original-forwarded-for")
}

/// Returns the rightmost hop that is not a trusted proxy or, if all are, the leftmost. `None` stands for a hop that is
/// no address.
///
/// Whatever stands to the left of an untrusted hop was written by that hop, and is ignored.
fn nearest_untrusted(
    hops: impl DoubleEndedIterator<Item = Option<IpAddr>>,
    trusted: &Allowlist,
) -> Result<IpAddr, AccessError> {
    let mut leftmost = None;
    for hop in hops.rev() {
        let ip = hop.ok_or(AccessError::BadForwardedClient)?;
        if !trusted.contains(ip) {
            return Ok(ip);
        }
        leftmost = Some(ip);
    }
    leftmost.ok_or(AccessError::BadForwardedClient)
}

/// Parses the hops of one `X-Forwarded-For` line.
fn parse_x_forwarded_for(line: &HeaderValue) -> Vec<Option<IpAddr>> {
    let entries = line.as_bytes().split(|byte| *byte == b',');
    entries
        .map(|entry| parse_address(std::str::from_utf8(entry).ok()?.trim_matches(BLANKS)))
        .collect()
}

const BLANKS: [char; 2] = [' ', '\t'];

/// Parses the hops of one `Forwarded` line (RFC 7239).
///
/// A line with a syntax error is one hop that is no address: after a quote that the client left open, what the proxy
/// appended cannot be told from the client's own words.
fn parse_forwarded(line: &HeaderValue) -> Vec<Option<IpAddr>> {
    line.to_str().ok().and_then(parse_elements).unwrap_or_else(|| vec![None])
}

/// Parses `for=ADDRESS;name=value, …`. Returns `None` if the syntax is wrong.
fn parse_elements(line: &str) -> Option<Vec<Option<IpAddr>>> {
    let mut hops = Vec::new();
    let mut nodes = Vec::new(); // The values of `for` in the current element.
    let mut rest = line;
    loop {
        rest = rest.trim_start_matches(BLANKS);
        if !rest.is_empty() && !rest.starts_with([';', ',']) {
            let (name, after) = rest.split_once('=')?;
            if name.is_empty() || !name.bytes().all(is_token_char) {
                return None;
            }
            let (value, after) = parse_value(after)?;
            if name.eq_ignore_ascii_case("for") {
                nodes.push(parse_address(&value));
            }
            rest = after.trim_start_matches(BLANKS);
        }
        let separator = rest.chars().next();
        if separator != Some(';') {
            // An element that has no `for`, or several, names no client.
            hops.push(if let [node] = nodes[..] { node } else { None });
            nodes.clear();
        }
        match separator {
            Some(';' | ',') => rest = &rest[1..],
            Some(_) => return None,
            None => return Some(hops),
        }
    }
}

/// Parses the value of a parameter. Returns it with the text behind it.
///
/// Many proxies write addresses with colons and brackets unquoted, which the RFC does not allow. They are accepted.
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

/// Whether a token may contain this character (RFC 9110, section 5.6.2).
fn is_token_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Parses an address as proxies write it: `IP`, `IPV4:PORT`, `[IPV6]` or `[IPV6]:PORT`.
fn parse_address(text: &str) -> Option<IpAddr> {
    match text.parse::<IpAddr>() {
        Ok(ip) => Some(ip.to_canonical()),
        Err(_) => HostPort::parse(text)?.host.ip(),
    }
}

#[cfg(test)]
mod tests;
