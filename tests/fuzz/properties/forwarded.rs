//! The client behind a reverse proxy, by what the proxy and the client wrote into headers; and the host of a request.

use std::net::{IpAddr, SocketAddr};

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

use crate::server::access::AccessError;
use crate::server::access::forwarded::{
    ClientAddress, TrustedProxies, client_address, is_proxy_header,
};
use crate::server::access::host::ServerNames;
use crate::server::access::peer::Peer;

/// The networks that are trusted, and an address that is not.
const TRUSTED: [&str; 2] = ["10.0.0.0/8", "::1"];
const STRANGER: &str = "203.0.113.66";

/// The names that are given.
const NAMES: [&str; 3] = ["token.example.com", "10.0.0.5", "[fd00::5]"];

pub fn check(data: &[u8]) {
    let headers = headers(data);
    let proxies = TrustedProxies::parse(&TRUSTED).expect("addresses");
    let is_forwarded = headers.keys().any(is_proxy_header);
    let stranger = Peer::Ip(STRANGER.parse().expect("an address"));
    let expected = match is_forwarded {
        true => Err(AccessError::UntrustedProxy),
        false => Ok(ClientAddress::Direct(stranger)),
    };
    assert_eq!(client_address(&headers, stranger, &proxies), expected);
    assert_eq!(
        client_address(&headers, Peer::Unix, &proxies),
        expected.map(|_| ClientAddress::Direct(Peer::Unix))
    );

    let proxy: IpAddr = [10, 0, 0, 1].into();
    let client = client_address(&headers, Peer::Ip(proxy), &proxies);
    match client {
        Ok(ClientAddress::Direct(peer)) => {
            assert!(
                !is_forwarded && peer == Peer::Ip(proxy),
                "a forwarded request is the proxy's own"
            );
        }
        Ok(ClientAddress::Forwarded(ip)) => {
            assert!(is_forwarded);
            if !is_trusted(ip) {
                let spoofed = spoofed(&headers);
                assert_eq!(
                    client_address(&spoofed, Peer::Ip(proxy), &proxies),
                    client,
                    "a client names another one"
                );
            }
        }
        Err(_) => assert!(is_forwarded),
    }
    let is_simple = headers.keys().all(|name| name == "x-forwarded-for" || !is_proxy_header(name));
    if let (true, Some(hops)) =
        (is_simple && headers.contains_key("x-forwarded-for"), hops(&headers))
    {
        let nearest = hops.iter().rev().find(|hop| hop.is_none_or(|ip| !is_trusted(ip)));
        let expected = nearest.or(hops.first()).copied().flatten();
        let expected =
            expected.map(ClientAddress::Forwarded).ok_or(AccessError::BadForwardedClient);
        assert_eq!(client, expected);
    }

    let names = ServerNames::parse(&NAMES).expect("names");
    let none = ServerNames::parse::<&str>(&[]).expect("no names");
    let text = String::from_utf8_lossy(data);
    for authority in text.lines().chain([&*text]) {
        assert!(none.admits(authority, false));
        let host = host_of(authority);
        let is_loopback = host == "localhost"
            || host.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback());
        if none.admits(authority, true) {
            assert!(is_loopback, "a page at {authority:?} reaches a loopback address");
        }
        if names.admits(authority, true) {
            let address = host.parse().map(|ip: IpAddr| ip.to_canonical().to_string());
            let host = address.unwrap_or(host);
            let is_given = ["token.example.com", "10.0.0.5", "fd00::5"].contains(&host.as_str());
            assert!(is_loopback || is_given, "{authority:?} is none of the names");
        }
    }
    let _ = ServerNames::parse(&text.lines().collect::<Vec<_>>());
    let _ = TrustedProxies::parse(&text.lines().collect::<Vec<_>>());
}

/// The lines that are headers.
fn headers(data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(64) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

fn is_trusted(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.octets()[0] == 10,
        IpAddr::V6(ip) => ip.is_loopback(),
    }
}

/// The same headers from a client that puts another address before all that proxies append.
fn spoofed(headers: &HeaderMap) -> HeaderMap {
    let mut spoofed = HeaderMap::new();
    for (name, value) in headers {
        let is_first = !spoofed.contains_key(name);
        let prefix = match name.as_str() {
            "x-forwarded-for" if is_first => format!("{STRANGER}, "),
            "forwarded" if is_first => format!("for={STRANGER}, "),
            _ => String::new(),
        };
        let value = [prefix.as_bytes(), value.as_bytes()].concat();
        spoofed.append(name, HeaderValue::from_bytes(&value).expect("a value"));
    }
    spoofed
}

/// The hops of `X-Forwarded-For`, by another parser; `None` where an entry is in a form that it does not judge.
fn hops(headers: &HeaderMap) -> Option<Vec<Option<IpAddr>>> {
    let lines = headers.get_all("x-forwarded-for").iter();
    let lines: Option<Vec<_>> = lines.map(|line| line.to_str().ok()).collect();
    let text = lines?.join(",");
    let hop = |entry: &str| {
        let entry = entry.trim_matches([' ', '\t']);
        let bracketed = entry.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        let is_odd = entry.contains('%') || bracketed.is_some_and(|it| !it.contains(':'));
        let ip = match bracketed {
            Some(ip) => ip.parse::<IpAddr>().ok(),
            None => entry.parse().ok().or_else(|| Some(entry.parse::<SocketAddr>().ok()?.ip())),
        };
        (!is_odd).then(|| ip.map(|ip| ip.to_canonical()))
    };
    text.split(',').map(hop).collect()
}

/// The host of an authority, in lower case and without brackets.
fn host_of(authority: &str) -> String {
    let host = match authority.split_once(']') {
        Some((ip, _)) => ip.strip_prefix('[').unwrap_or(ip),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host.to_ascii_lowercase()
}
