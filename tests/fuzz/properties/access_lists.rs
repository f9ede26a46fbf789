//! The keys file and the allow file of `serve`: whom they let in is what a simple reader finds in them, and no more.

use std::fmt::Write;
use std::net::IpAddr;

use super::{Scratch, assert_tells_no_secret};
use crate::error::Exit;
use crate::model::client_key::{KeyLine, digest};
use crate::server::access::allowlist;
use crate::server::access::keys::Keys;

thread_local! {
    static SCRATCH: Scratch = Scratch::new();
}

pub fn check(data: &[u8]) {
    SCRATCH.with(|scratch| {
        let path = scratch.write("list", data);
        let shown = path.display().to_string();
        let tell = |err: &anyhow::Error| {
            let message = format!("{err:#}");
            assert_eq!(Exit::from_error(err), Exit::Usage);
            assert!(message.contains(&shown), "{message}: does not name the file");
            assert_tells_no_secret(&message.replace(&shown, ""), data);
        };
        match Keys::read(&path, &["crm", "mini", "shop"].map(str::to_owned)) {
            Ok(keys) => check_keys(&keys, data),
            Err(err) => tell(&err),
        }
        match allowlist::read_file(&path) {
            Ok(list) => check_addresses(&list, data),
            Err(err) => tell(&err),
        }
    });
}

/// The contents of each line, without comments.
fn contents(data: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(data);
    let text = text.trim_start_matches('\u{feff}');
    text.lines().map(|line| line.split('#').next().unwrap_or_default().to_owned()).collect()
}

fn check_keys(keys: &Keys, data: &[u8]) {
    let text = String::from_utf8_lossy(data).to_lowercase();
    for line in contents(data).iter().filter(|line| !line.trim_ascii().is_empty()) {
        let line = KeyLine::parse(line.trim_ascii()).expect("each line was read");
        assert_eq!(KeyLine::parse(&line.to_string()), Ok(line));
    }
    // Any word may be tried as a key: it opens something only if its digest stands in the file.
    for word in data.split(u8::is_ascii_whitespace).chain([&b"wxk_"[..], b""]) {
        let mut hex = String::new();
        digest(word).iter().for_each(|byte| write!(hex, "{byte:02x}").unwrap());
        if let Some(key) = keys.find(word) {
            assert!(text.contains(&hex), "{} is opened by a word of the file", key.name);
            assert_eq!(key.digest(), digest(word));
        }
    }
}

/// An address, and how many of its first bits count.
type Network = (IpAddr, u32);

fn check_addresses(list: &allowlist::Allowlist, data: &[u8]) {
    let lines = contents(data);
    let entries = lines.iter().flat_map(|line| {
        line.split(|c: char| c == ',' || c.is_ascii_whitespace()).filter(|it| !it.is_empty())
    });
    let networks: Vec<Network> = entries.map(parse).collect();
    assert_eq!(list.is_empty(), networks.is_empty());
    let probes = networks.iter().flat_map(|(ip, _)| neighbours(*ip));
    for ip in probes.chain([[127, 0, 0, 1].into(), [10, 0, 0, 1].into(), [0; 16].into()]) {
        let is_listed = networks.iter().any(|network| is_in(ip, *network));
        assert_eq!(list.contains(ip), is_listed, "{ip}");
    }
}

fn parse(entry: &str) -> Network {
    let (ip, bits) = entry.split_once('/').map_or((entry, None), |(ip, bits)| (ip, Some(bits)));
    let ip: IpAddr = ip.parse().expect("an address");
    let all = if ip.is_ipv4() { 32 } else { 128 };
    (ip, bits.map_or(all, |bits| bits.parse().expect("a number of bits")))
}

/// An address as 128 bits, in which IPv4 is mapped into IPv6.
fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn is_in(ip: IpAddr, (network, length): Network) -> bool {
    let length = if network.is_ipv4() { length + 96 } else { length };
    // A network of IPv6 that is larger than what is mapped into it is about IPv6.
    if length < 96 && ip.to_canonical().is_ipv4() {
        return false;
    }
    length == 0 || (bits(ip) ^ bits(network)) >> (128 - length) == 0
}

/// The address, and those before and after it.
fn neighbours(ip: IpAddr) -> Vec<IpAddr> {
    let near = |bits: u128| match ip {
        IpAddr::V4(_) => IpAddr::from((bits as u32).to_be_bytes()),
        IpAddr::V6(_) => IpAddr::from(bits.to_be_bytes()),
    };
    let own = match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    [0, 1, 255, 65_536]
        .iter()
        .flat_map(|by| [own.wrapping_add(*by), own.wrapping_sub(*by)])
        .map(near)
        .collect()
}
