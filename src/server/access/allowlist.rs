//! Sets of IP addresses: the networks of a flag or a file, as sorted ranges. Knows no names, and no proxy headers.

use std::net::IpAddr;
use std::path::Path;

use cidr::IpCidr;

use super::line_file::LineFile;
use crate::error::Exit;
use crate::language::bilingual;
use crate::log;
use crate::model::address::network;

/// The longest entry that an error repeats in full: `ffff:…:255.255.255.255/128` has 49 characters.
const LONGEST_ENTRY: usize = 60;

/// The IP addresses that are allowed. An empty list allows none.
///
/// The ranges of each family are sorted and disjoint, so a lookup among ten thousand networks takes 14 comparisons.
#[derive(Debug, Default)]
pub(crate) struct Allowlist {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Allowlist {
    /// Returns the list that allows loopback addresses only.
    pub(crate) fn loopback() -> Allowlist {
        let v4 = (u32::from_be_bytes([127, 0, 0, 0]), u32::from_be_bytes([127, 255, 255, 255]));
        Allowlist { v4: vec![v4], v6: vec![(1, 1)] }
    }

    /// Returns the list that allows every address of these networks.
    pub(crate) fn from_networks(networks: impl IntoIterator<Item = IpCidr>) -> Allowlist {
        let mut list = Allowlist::default();
        for network in networks {
            list.add(network);
        }
        list.v4 = disjoint(list.v4);
        list.v6 = disjoint(list.v6);
        list
    }

    /// Whether the list allows no address at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether the list allows each address of a family.
    pub(crate) fn allows_all(&self) -> bool {
        self.v4.contains(&(0, u32::MAX)) || self.v6.contains(&(0, u128::MAX))
    }

    /// Whether this address is allowed. An IPv4 address that is mapped into IPv6 counts as IPv4.
    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(ip) => is_in_ranges(&self.v4, u32::from(ip)),
            IpAddr::V6(ip) => is_in_ranges(&self.v6, u128::from(ip)),
        }
    }

    fn add(&mut self, network: IpCidr) {
        match (network.first_address(), network.last_address()) {
            (IpAddr::V4(first), IpAddr::V4(last)) => self.v4.push((first.into(), last.into())),
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                match (first.to_ipv4_mapped(), last.to_ipv4_mapped()) {
                    (Some(first), Some(last)) => self.v4.push((first.into(), last.into())),
                    _ => self.v6.push((first.into(), last.into())),
                }
            }
            _ => unreachable!("both ends of a network are of one family"),
        }
    }
}

/// Parses the addresses (`10.1.2.3`) and networks (`10.0.0.0/8`) of a flag. The error names every entry that is neither.
pub(crate) fn parse_networks<S: AsRef<str>>(
    flag: &str,
    entries: impl IntoIterator<Item = S>,
) -> anyhow::Result<Vec<IpCidr>> {
    let mut networks = Vec::new();
    let mut faults = Vec::new();
    for entry in entries {
        let entry = entry.as_ref().trim();
        match network::parse(entry) {
            Ok(network) => networks.push(network),
            Err(fault) if entry.is_empty() => {
                faults.push(format!("{}: {fault}", bilingual!("an empty entry", "有空项")))
            }
            Err(fault) => {
                faults.push(format!("{}: {fault}", log::printable(entry, LONGEST_ENTRY)));
            }
        }
    }
    if faults.is_empty() {
        Ok(networks)
    } else {
        Err(Exit::Usage.error(format!("{flag}: {}", faults.join("; "))))
    }
}

/// Reads a file of addresses and networks, which separates them by commas, blanks or line ends. The error names every
/// entry that is neither, with its line.
pub(crate) fn read_file(path: &Path) -> anyhow::Result<Allowlist> {
    let file = LineFile::read("allow file", path)?;
    let mut networks = Vec::new();
    let mut faults = Vec::new();
    for (number, line) in file.lines() {
        let is_separator = |c: char| c == ',' || c.is_ascii_whitespace();
        for entry in line.split(is_separator).filter(|entry| !entry.is_empty()) {
            match network::parse(entry) {
                Ok(network) => networks.push(network),
                Err(fault) => {
                    // The entry may be a key that was put into the wrong file.
                    let entry = log::without_long_words(entry);
                    let entry = log::printable(&entry, LONGEST_ENTRY);
                    faults.push((number, format!("{entry}: {fault}")));
                }
            }
        }
    }
    match faults.is_empty() {
        true => Ok(Allowlist::from_networks(networks)),
        false => Err(file.error(&faults)),
    }
}

/// Sorts ranges and merges those that overlap.
fn disjoint<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= before.1 => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

fn is_in_ranges<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|range| range.0 <= address);
    after > 0 && address <= ranges[after - 1].1
}

#[cfg(test)]
mod tests;
