//! Which client each combination of headers yields.

use super::*;
use crate::language::Language;

const PROXIES: [&str; 4] = ["10.0.0.0/24", "2001:db8:1::/48", "::ffff:192.0.2.1", "unix"];

fn peer(text: &str) -> Peer {
    match text {
        "unix" => Peer::Unix,
        ip => Peer::Ip(ip.parse().expect("an address")),
    }
}

/// Finds the client of a request that `from` sent with these headers, where [`PROXIES`] are trusted.
fn find(from: &str, lines: &[(&str, &str)]) -> Result<ClientAddress, AccessError> {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
    }
    client_address(&headers, peer(from), &TrustedProxies::parse(&PROXIES).expect("good entries"))
}

fn forwarded(ip: &str) -> Result<ClientAddress, AccessError> {
    Ok(ClientAddress::Forwarded(ip.parse().expect("an address")))
}

const XFF: &str = "X-Forwarded-For";
const FWD: &str = "Forwarded";

#[test]
fn a_peer_that_is_not_a_trusted_proxy_is_the_client_or_is_refused() {
    for from in ["203.0.113.9", "10.0.1.0", "192.0.2.2", "2001:db8:2::1", "127.0.0.1"] {
        assert_eq!(find(from, &[]), Ok(ClientAddress::Direct(peer(from))));
        assert_eq!(find(from, &[("accept", "10.0.0.1")]), Ok(ClientAddress::Direct(peer(from))));
        for name in [XFF, FWD, "Via", "X-Real-IP", "x-forwarded-proto"] {
            assert_eq!(
                find(from, &[(name, "10.0.0.1")]),
                Err(AccessError::UntrustedProxy),
                "{from} {name}"
            );
        }
    }
    let none = TrustedProxies::default();
    for from in ["unix", "10.0.0.1"] {
        let mut headers = HeaderMap::new();
        assert_eq!(
            client_address(&headers, peer(from), &none),
            Ok(ClientAddress::Direct(peer(from)))
        );
        headers.insert(&X_FORWARDED_FOR, HeaderValue::from_static("203.0.113.9"));
        assert_eq!(client_address(&headers, peer(from), &none), Err(AccessError::UntrustedProxy));
    }
}

#[test]
fn the_client_is_the_rightmost_hop_that_is_not_a_trusted_proxy() {
    for (lines, expected) in [
        // One hop, two hops, and a prefix that the client made up.
        (&["203.0.113.9"][..], forwarded("203.0.113.9")),
        (&["203.0.113.9, 10.0.0.7"], forwarded("203.0.113.9")),
        (&["10.0.0.5, 203.0.113.9"], forwarded("203.0.113.9")),
        (&["127.0.0.1,203.0.113.9,10.0.0.7,10.0.0.8"], forwarded("203.0.113.9")),
        (&["198.51.100.1, 203.0.113.9"], forwarded("203.0.113.9")),
        // All lines, in their order.
        (&["127.0.0.1", "203.0.113.9", "10.0.0.7"], forwarded("203.0.113.9")),
        (&["203.0.113.9", "127.0.0.1"], forwarded("127.0.0.1")),
        // All are trusted proxies: the leftmost of them is the client.
        (&["10.0.0.7"], forwarded("10.0.0.7")),
        (&["10.0.0.9", "10.0.0.8,10.0.0.7"], forwarded("10.0.0.9")),
        // The forms of an address.
        (&["203.0.113.9:4711"], forwarded("203.0.113.9")),
        (&["\t203.0.113.9 \t"], forwarded("203.0.113.9")),
        (&["203.0.113.9,10.0.0.7:65535"], forwarded("203.0.113.9")),
        (&["2001:db8::9"], forwarded("2001:db8::9")),
        (&["[2001:db8::9]"], forwarded("2001:db8::9")),
        (&["[2001:db8::9]:4711,2001:db8:1::1,[2001:db8:1::2]:1"], forwarded("2001:db8::9")),
        (&["::ffff:203.0.113.9"], forwarded("203.0.113.9")),
        (&["203.0.113.9, ::ffff:10.0.0.7, 192.0.2.1"], forwarded("203.0.113.9")),
        (&["[::ffff:cb00:7109]:80"], forwarded("203.0.113.9")),
        // A hop that is no address, to the left of the client.
        (&["unknown, 203.0.113.9"], forwarded("203.0.113.9")),
        (&["\u{e9}\u{a0}, ,\", 203.0.113.9, 10.0.0.7"], forwarded("203.0.113.9")),
        // A hop that is no address, and that has to be read.
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
            assert_eq!(find(from, &lines), expected, "{from} {lines:?}");
        }
    }
}

#[test]
fn the_client_is_found_in_the_forwarded_header_likewise() {
    for (lines, expected) in [
        (&["for=203.0.113.9"][..], forwarded("203.0.113.9")),
        (&["For=203.0.113.9;PROTO=https;by=10.0.0.1"], forwarded("203.0.113.9")),
        (&["proto=https; FOR=\"203.0.113.9:4711\" ;host=\"a,b;c\\\"=\""], forwarded("203.0.113.9")),
        (&["for=\"[2001:db8::1]:4711\""], forwarded("2001:db8::1")),
        (&["for=\"[2001:db8::1]\", for=10.0.0.7"], forwarded("2001:db8::1")),
        (&["for=\"[::ffff:203.0.113.9]\""], forwarded("203.0.113.9")),
        (&["for=\"203.0.113\\.9\""], forwarded("203.0.113.9")),
        (&["for=198.51.100.1, for=203.0.113.9", "for=10.0.0.7;by=_a"], forwarded("203.0.113.9")),
        (&["for=10.0.0.9", "for=10.0.0.8"], forwarded("10.0.0.9")),
        (&["for=203.0.113.9;"], forwarded("203.0.113.9")),
        (&[";;for=203.0.113.9; ;"], forwarded("203.0.113.9")),
        // Unquoted, as many proxies write it.
        (&["for=203.0.113.9:4711"], forwarded("203.0.113.9")),
        (&["for=[2001:db8::1]:4711;proto=http"], forwarded("2001:db8::1")),
        (&["for=2001:db8::1"], forwarded("2001:db8::1")),
        // To the left of the client: hops that are no address, and lines with syntax errors.
        (&["for=unknown, proto=http, , for=203.0.113.9"], forwarded("203.0.113.9")),
        (&["for=\"", "for=203.0.113.9"], forwarded("203.0.113.9")),
        (&["\u{e9}", "for=203.0.113.9"], forwarded("203.0.113.9")),
        // A hop that is no address, and that has to be read.
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
        // A quote that the client left open hides nothing that the proxy appended.
        (&["for=10.0.1.5;x=\", for=203.0.113.9"], Err(AccessError::BadForwardedClient)),
        (&["for=10.0.1.5;x=\", for=\"[2001:db8::9]:1\""], Err(AccessError::BadForwardedClient)),
        (&["for=10.0.1.5;x=\", for=203.0.113.9;host=\"\""], Err(AccessError::BadForwardedClient)),
        (
            &["for=10.0.1.5;x=\"\\, for=\"[2001:db8::9]\";by=\"[::1]\""],
            Err(AccessError::BadForwardedClient),
        ),
    ] {
        for from in ["10.0.0.1", "unix"] {
            let lines: Vec<_> = lines.iter().map(|line| (FWD, *line)).collect();
            assert_eq!(find(from, &lines), expected, "{from} {lines:?}");
        }
    }
}

#[test]
fn both_headers_must_name_the_same_client() {
    for (listed, element, expected) in [
        ("203.0.113.9", "for=203.0.113.9", forwarded("203.0.113.9")),
        ("203.0.113.9, 10.0.0.7", "for=\"[::ffff:203.0.113.9]:1\"", forwarded("203.0.113.9")),
        ("203.0.113.9", "for=203.0.113.8", Err(AccessError::ConflictingClients)),
        ("203.0.113.9", "for=10.0.0.7", Err(AccessError::ConflictingClients)),
        ("203.0.113.9", "for=unknown", Err(AccessError::BadForwardedClient)),
        ("unknown", "for=203.0.113.9", Err(AccessError::BadForwardedClient)),
        ("203.0.113.9", "", Err(AccessError::BadForwardedClient)),
    ] {
        let lines = [(FWD, element), (XFF, listed)];
        assert_eq!(find("10.0.0.1", &lines), expected, "{lines:?}");
    }
}

#[test]
fn a_header_that_names_another_client_is_a_contradiction() {
    assert!(CLIENT_HEADERS.is_sorted(), "or binary search fails");
    let conflict = Err(AccessError::ConflictingClients);
    for name in CLIENT_HEADERS {
        for (client, named, expected) in [
            ("203.0.113.9", "203.0.113.9", forwarded("203.0.113.9")),
            ("203.0.113.9", " [::ffff:203.0.113.9]:80\t", forwarded("203.0.113.9")),
            ("2001:db8::9", "2001:DB8:0::9", forwarded("2001:db8::9")),
            ("203.0.113.9", "203.0.113.8", conflict),
            ("203.0.113.9", "127.0.0.1", conflict),
            ("203.0.113.9", "203.0.113.9, 203.0.113.9", conflict),
            ("203.0.113.9", "unknown", conflict),
            ("203.0.113.9", "\u{e9}", conflict),
            ("203.0.113.9", "", conflict),
            // The last of two proxies names the other one.
            ("203.0.113.9, 10.0.0.7", "10.0.0.7", forwarded("203.0.113.9")),
            ("198.51.100.1, 203.0.113.9", "198.51.100.1", conflict),
        ] {
            for (header, value) in [(XFF, client.to_owned()), (FWD, element(client))] {
                for lines in [
                    [(header, &*value), (name, named)],
                    [(&*name.to_uppercase(), named), (header, &*value)],
                ] {
                    for from in ["10.0.0.1", "unix"] {
                        assert_eq!(find(from, &lines), expected, "{from} {lines:?}");
                    }
                }
            }
        }
        // Each line counts, and each header.
        let two = [(name, "203.0.113.9"), (XFF, "203.0.113.9"), (name, "203.0.113.8")];
        assert_eq!(find("10.0.0.1", &two), conflict, "{name}");
        let by_itself = [(name, "203.0.113.9")];
        assert_eq!(find("10.0.0.1", &by_itself), Err(AccessError::NoForwardedClient), "{name}");
        assert_eq!(find("203.0.113.9", &by_itself), Err(AccessError::UntrustedProxy), "{name}");
    }
}

/// Returns the hops as a `Forwarded` header has them.
fn element(hops: &str) -> String {
    let hops: Vec<_> = hops.split(", ").map(|hop| format!("for=\"{hop}\"")).collect();
    hops.join(", ").replace("\"2001:db8::9\"", "\"[2001:db8::9]\"")
}

#[test]
fn a_trusted_proxy_that_names_no_client_is_the_client_or_is_refused() {
    assert_eq!(find("10.0.0.1", &[]), Ok(ClientAddress::Direct(peer("10.0.0.1"))));
    assert_eq!(find("10.0.0.1", &[("host", "x")]), Ok(ClientAddress::Direct(peer("10.0.0.1"))));
    // No rule about addresses would apply to it otherwise.
    assert_eq!(find("unix", &[]), Err(AccessError::NoForwardedClient));
    for name in ["X-Real-IP", "X-Client-IP", "CF-Connecting-IP", "Via", "X-Forwarded-Proto"] {
        for from in ["10.0.0.1", "unix"] {
            assert_eq!(
                find(from, &[(name, "203.0.113.9")]),
                Err(AccessError::NoForwardedClient),
                "{from} {name}"
            );
        }
    }
}

#[test]
fn a_damaged_forwarded_header_is_parsed_without_a_panic() {
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
fn a_forwarded_header_whose_parameter_has_no_name_or_a_bad_one_names_no_client() {
    let first = parse_elements("for=10.0.0.7;by=10.0.0.8").expect("good syntax");
    assert_eq!(first, [Some(std::net::Ipv4Addr::new(10, 0, 0, 7).into())]);
    for line in ["=10.0.0.7", "for=10.0.0.7;=x", "fo(r=10.0.0.7", "fo r=10.0.0.7", "for"] {
        assert_eq!(parse_elements(line), None, "{line}");
    }
}

#[test]
fn entries_are_addresses_networks_and_the_word_unix() {
    let proxies = TrustedProxies::parse(&["127.0.0.1", " 10.0.0.0/8"]).expect("good entries");
    assert!(proxies.contains(peer("127.0.0.1")) && proxies.contains(peer("10.9.9.9")));
    assert!(!proxies.contains(peer("::1")) && !proxies.contains(Peer::Unix));
    let err = TrustedProxies::parse(&["unix:/run/x", "proxy", "10.0.0.1/8", "unix"]).unwrap_err();
    assert_eq!(
        Language::English.resolve(&err.to_string()),
        "--trusted-proxy: unix:/run/x: Write an address or a network, like 10.1.2.3 or 10.0.0.0/8: this is not one; \
         proxy: Write an address or a network, like 10.1.2.3 or 10.0.0.0/8: this is not one; \
         10.0.0.1/8: Write 10.0.0.0/8 or 10.0.0.1: bits are set beyond the prefix"
    );
    for all in ["0.0.0.0/0", "::/0"] {
        let err = TrustedProxies::parse(&["127.0.0.1", all]).unwrap_err().to_string();
        assert!(err.contains("every client could name another one"), "{err}");
    }
    assert!(!TrustedProxies::parse::<&str>(&[]).expect("no entries").contains(Peer::Unix));
}

#[test]
fn a_header_that_only_ends_like_one_of_a_proxy_is_none() {
    for (name, expected) in
        [("x-real-ip", true), ("x-ship", false), ("mac-address", false), ("accept", false)]
    {
        assert_eq!(is_proxy_header(&HeaderName::from_static(name)), expected, "{name}");
    }
}
