//! Who may ask: addresses and networks, as sorted ranges. Knows nothing of names or of who forwarded what.

use std::net::IpAddr;
use std::path::Path;

use cidr::IpCidr;

use super::line_file::LineFile;
use crate::error::Exit;
use crate::log;
use crate::model::address::network;

/// The longest entry that an error repeats in full: `ffff:…:255.255.255.255/128` has 49 characters.
const LONGEST_ENTRY: usize = 60;

/// The addresses that may ask. Empty means nobody.
///
/// Each family's ranges are sorted and disjoint, so ten thousand networks are looked up in 14 comparisons.
#[derive(Debug, Default)]
pub(crate) struct Allowlist {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Allowlist {
    /// This machine only: what holds when nothing was said.
    pub(crate) fn loopback() -> Allowlist {
        let v4 = (u32::from_be_bytes([127, 0, 0, 0]), u32::from_be_bytes([127, 255, 255, 255]));
        Allowlist { v4: vec![v4], v6: vec![(1, 1)] }
    }

    /// The addresses of these networks.
    pub(crate) fn of(networks: impl IntoIterator<Item = IpCidr>) -> Allowlist {
        let mut list = Allowlist::default();
        for network in networks {
            list.add(network);
        }
        list.v4 = disjoint(list.v4);
        list.v6 = disjoint(list.v6);
        list
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether a caller at this address may ask. An IPv4 address is the same one when a v6 socket shows it.
    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(ip) => holds(&self.v4, u32::from(ip)),
            IpAddr::V6(ip) => holds(&self.v6, u128::from(ip)),
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
            _ => unreachable!("a network's ends are of one family"),
        }
    }
}

/// The addresses (`10.1.2.3`) and networks (`10.0.0.0/8`) that a flag gives; the error names every entry that is neither.
pub(crate) fn of_flag<S: AsRef<str>>(
    flag: &str,
    entries: impl IntoIterator<Item = S>,
) -> anyhow::Result<Vec<IpCidr>> {
    let mut networks = Vec::new();
    let mut faults = Vec::new();
    for entry in entries {
        let entry = entry.as_ref().trim();
        match network::parse(entry) {
            Ok(network) => networks.push(network),
            Err(fault) if entry.is_empty() => faults.push(format!("an empty entry: {fault}")),
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

/// The same of a file, where commas and blanks are as good as lines.
pub(crate) fn of_file(path: &Path) -> anyhow::Result<Vec<IpCidr>> {
    let roster = LineFile::read("allow file", path)?;
    let mut networks = Vec::new();
    let mut faults = Vec::new();
    for (number, line) in roster.lines() {
        let is_between = |c: char| c == ',' || c.is_ascii_whitespace();
        for entry in line.split(is_between).filter(|entry| !entry.is_empty()) {
            match network::parse(entry) {
                Ok(network) => networks.push(network),
                Err(fault) => {
                    // Somebody may have put a key there.
                    let shown = log::without_long_words(entry);
                    let shown = log::printable(&shown, LONGEST_ENTRY);
                    faults.push((number, format!("{shown}: {fault}")));
                }
            }
        }
    }
    if faults.is_empty() { Ok(networks) } else { Err(roster.faulty(&faults)) }
}

/// The same addresses as ranges that are sorted and do not overlap.
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

fn holds<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|range| range.0 <= address);
    after > 0 && address <= ranges[after - 1].1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed<S: AsRef<str>>(entries: &[S]) -> Allowlist {
        Allowlist::of(of_flag("--allow", entries).expect("good entries"))
    }

    fn allows(entries: &[&str], ip: &str) -> bool {
        listed(entries).contains(ip.parse().expect("an address"))
    }

    #[test]
    fn an_address_is_allowed_exactly_where_a_network_holds_it() {
        for (entry, ip, expected) in [
            ("10.0.0.0/8", "10.0.0.0", true),
            ("10.0.0.0/8", "10.255.255.255", true),
            ("10.0.0.0/8", "9.255.255.255", false),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3/32", "10.1.2.4", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::", false),
            ("::1", "::1", true),
            ("::1", "127.0.0.1", false),
            // The same address, as a dual-stack socket shows it, and as somebody may write it.
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("::ffff:10.0.0.0/104", "10.1.1.1", true),
            ("::ffff:10.0.0.0/104", "::ffff:11.1.1.1", false),
            ("::ffff:10.1.1.1", "10.1.1.1", true),
            ("::ffff:0:0/96", "192.0.2.1", true),
            // Everybody of one family is nobody of the other.
            ("0.0.0.0/0", "192.0.2.1", true),
            ("0.0.0.0/0", "::1", false),
            ("0.0.0.0/0", "::ffff:192.0.2.1", true),
            ("::/0", "2001:db8::1", true),
            ("::/0", "192.0.2.1", false),
            ("::/0", "::ffff:192.0.2.1", false),
        ] {
            assert_eq!(allows(&[entry], ip), expected, "{entry} {ip}");
        }
    }

    #[test]
    fn an_empty_list_allows_nobody() {
        assert!(!allows(&[], "127.0.0.1") && !allows(&[], "::1"));
    }

    #[test]
    fn loopback_is_the_whole_of_127_and_one_address_of_v6() {
        let list = Allowlist::loopback();
        for (ip, expected) in [
            ("127.0.0.1", true),
            ("127.255.255.255", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("126.255.255.255", false),
            ("128.0.0.0", false),
            ("::", false),
            ("::2", false),
        ] {
            assert_eq!(list.contains(ip.parse().expect("an address")), expected, "{ip}");
        }
    }

    #[test]
    fn networks_may_overlap_repeat_and_come_in_any_order() {
        let entries = [
            "10.2.0.0/16",
            "10.0.0.0/8",
            "10.2.0.0/16",
            "192.0.2.0/25",
            "192.0.2.128/25",
            "10.9.9.9",
            " ::1 ",
        ];
        for ip in ["10.0.0.1", "10.2.3.4", "10.200.0.1", "192.0.2.127", "192.0.2.128", "::1"] {
            assert!(allows(&entries, ip), "{ip}");
        }
        for ip in ["9.0.0.1", "11.0.0.1", "192.0.3.0", "::2"] {
            assert!(!allows(&entries, ip), "{ip}");
        }
    }

    #[test]
    fn among_ten_thousand_networks_each_is_found_and_nothing_else() {
        let entries: Vec<String> =
            (0..10_000).map(|n| format!("10.{}.{}.0/25", n / 256, n % 256)).collect();
        let list = listed(&entries);
        for n in 0..10_000 {
            let at = |last: u8| IpAddr::from([10, (n / 256) as u8, (n % 256) as u8, last]);
            assert!(list.contains(at(0)) && list.contains(at(127)) && !list.contains(at(128)));
        }
    }

    #[test]
    fn every_bad_entry_is_named_with_what_is_wrong() {
        let entries = [
            "10.0.0.1/8",
            "10.0.0.0/8",
            "nonsense\u{1b}[2J",
            "",
            "10.0.0.0/33",
            "010.0.0.0/8",
            "1.2.3.4/x",
            "10/8",
        ];
        let err = of_flag("--allow", entries).expect_err("bad entries");
        assert_eq!(Exit::from_error(&err), Exit::Usage);
        let expected = "expected an address or a network, like 10.1.2.3 or 10.0.0.0/8";
        let length = "the prefix length must be 0 to 32, or to 128 for IPv6";
        assert_eq!(
            err.to_string(),
            format!(
                "--allow: 10.0.0.1/8: bits are set beyond the prefix, write 10.0.0.0/8 or 10.0.0.1; \
                 nonsense\\u{{1b}}[2J: {expected}; an empty entry: {expected}; 10.0.0.0/33: {length}; 010.0.0.0/8: {expected}; \
                 1.2.3.4/x: {length}; 10/8: {expected}"
            )
        );
    }

    #[test]
    fn a_file_is_a_list_too_and_its_faults_are_told_by_their_lines() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("allow");
        let read = |text: &str| {
            std::fs::write(&path, text).expect("a file");
            of_file(&path).map(Allowlist::of).map_err(|err| format!("{err:#}"))
        };
        let list = read("# ours\r\n10.0.0.0/8,192.0.2.1\t2001:db8::/32 # and theirs\r\n,\n::1")
            .expect("good");
        for (ip, expected) in [
            ("10.1.1.1", true),
            ("192.0.2.1", true),
            ("2001:db8::9", true),
            ("::1", true),
            ("127.0.0.1", false),
        ] {
            assert_eq!(list.contains(ip.parse().expect("an address")), expected, "{ip}");
        }
        assert!(read("# nobody\n\n").expect("good").is_empty());
        let key = "wxk_0000000000000000000000000000000000000000000";
        let expected = "expected an address or a network, like 10.1.2.3 or 10.0.0.0/8";
        assert_eq!(
            read(&format!("10.0.0.0/8\n10.0.0.1/8 host\n\n{key}")).expect_err("bad"),
            format!(
                "allow file {}: line 2: 10.0.0.1/8: bits are set beyond the prefix, write 10.0.0.0/8 or 10.0.0.1; \
                 line 2: host: {expected}; line 4: […]: {expected}",
                path.display()
            )
        );
    }
}
