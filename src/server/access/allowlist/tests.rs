//! Which addresses a list allows, and which entries it refuses.

use super::*;
use crate::language::Language;

fn allowlist<S: AsRef<str>>(entries: &[S]) -> Allowlist {
    Allowlist::from_networks(parse_networks("--allow", entries).expect("good entries"))
}

fn allows(entries: &[&str], ip: &str) -> bool {
    allowlist(entries).contains(ip.parse().expect("an address"))
}

#[test]
fn a_list_allows_all_if_it_has_each_address_of_a_family() {
    for (entry, expected) in
        [("0.0.0.0/0", true), ("::/0", true), ("0.0.0.0/1", false), ("2001:db8::/32", false)]
    {
        assert_eq!(allowlist(&[entry]).allows_all(), expected, "{entry}");
    }
}

#[test]
fn an_address_is_allowed_if_and_only_if_a_network_contains_it() {
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
        // An IPv4 address that a dual-stack socket reports, or a network that is written so.
        ("10.0.0.0/8", "::ffff:10.1.1.1", true),
        ("::ffff:10.0.0.0/104", "10.1.1.1", true),
        ("::ffff:10.0.0.0/104", "::ffff:11.1.1.1", false),
        ("::ffff:10.1.1.1", "10.1.1.1", true),
        ("::ffff:0:0/96", "192.0.2.1", true),
        // All addresses of one family are none of the other.
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
fn an_empty_list_allows_no_address() {
    assert!(!allows(&[], "127.0.0.1") && !allows(&[], "::1"));
}

#[test]
fn a_list_is_empty_only_without_an_address_of_either_version() {
    for (entries, expected) in
        [(&[][..], true), (&["10.0.0.1"], false), (&["::1"], false), (&["10.0.0.1", "::1"], false)]
    {
        assert_eq!(allowlist(entries).is_empty(), expected, "{entries:?}");
    }
}

#[test]
fn loopback_is_127_0_0_0_8_and_one_ipv6_address() {
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
fn ten_thousand_networks_contain_their_addresses_and_no_others() {
    let entries: Vec<String> =
        (0..10_000).map(|n| format!("10.{}.{}.0/25", n / 256, n % 256)).collect();
    let list = allowlist(&entries);
    for n in 0..10_000 {
        let at = |last: u8| IpAddr::from([10, (n / 256) as u8, (n % 256) as u8, last]);
        assert!(list.contains(at(0)) && list.contains(at(127)) && !list.contains(at(128)));
    }
}

#[test]
fn an_error_names_every_bad_entry_and_its_fault() {
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
    let err = parse_networks("--allow", entries).expect_err("bad entries");
    assert_eq!(Exit::from_error(&err), Exit::Usage);
    let expected = "Write an address or a network, like 10.1.2.3 or 10.0.0.0/8: this is not one";
    let length = "Write a prefix length of 0 to 32, or to 128 for IPv6: this is not one";
    assert_eq!(
        Language::English.resolve(&err.to_string()),
        format!(
            "--allow: 10.0.0.1/8: Write 10.0.0.0/8 or 10.0.0.1: bits are set beyond the prefix; \
             nonsense\\u{{1b}}[2J: {expected}; an empty entry: {expected}; 10.0.0.0/33: {length}; 010.0.0.0/8: {expected}; \
             1.2.3.4/x: {length}; 10/8: {expected}"
        )
    );
}

#[test]
fn a_file_gives_a_list_and_its_faults_come_with_their_lines() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("allow");
    let read = |text: &str| {
        std::fs::write(&path, text).expect("a file");
        read_file(&path).map_err(|err| format!("{err:#}"))
    };
    let list =
        read("# ours\r\n10.0.0.0/8,192.0.2.1\t2001:db8::/32 # and theirs\r\n,\n::1").expect("good");
    for (ip, expected) in [
        ("10.1.1.1", true),
        ("192.0.2.1", true),
        ("2001:db8::9", true),
        ("::1", true),
        ("127.0.0.1", false),
    ] {
        assert_eq!(list.contains(ip.parse().expect("an address")), expected, "{ip}");
    }
    assert!(read("# none\n\n").expect("good").is_empty());
    let key = "wxk_0000000000000000000000000000000000000000000";
    let expected = "Write an address or a network, like 10.1.2.3 or 10.0.0.0/8: this is not one";
    assert_eq!(
        Language::English
            .resolve(&read(&format!("10.0.0.0/8\n10.0.0.1/8 host\n\n{key}")).expect_err("bad")),
        format!(
            "allow file {}: line 2: 10.0.0.1/8: Write 10.0.0.0/8 or 10.0.0.1: bits are set beyond the prefix; \
             line 2: host: {expected}; line 4: […]: {expected}",
            path.display()
        )
    );
}
