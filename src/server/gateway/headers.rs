//! Which headers pass between a client and WeChat: all but those that belong to one connection or to this server.

use hyper::HeaderMap;
use hyper::Method;
use hyper::header::{self, HeaderName, HeaderValue};

use crate::server::access::forwarded;
use crate::server::headers::values;

/// Whether a header is about one connection (RFC 9110, 7.6.1). What `Connection` names is, too.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Whether a header of a request is meant for this server, or set by it. The key of a client is none of WeChat's business, and
/// neither are the addresses and names that proxies of the network add.
fn is_ours(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "host"
            | "content-length"
            | "expect"
            | "accept-encoding"
            | "authorization"
            | "proxy-authorization"
            | "http2-settings"
    )
}

/// Writes the headers of a request to WeChat at `host`, for a client's request with these headers. `length` is that of the
/// body. An answer that is compressed could not be looked at.
pub(super) fn write_for_wechat(
    out: &mut Vec<u8>,
    headers: &HeaderMap,
    method: &Method,
    host: &str,
    length: u64,
) {
    out.extend_from_slice(b"host: ");
    out.extend_from_slice(host.as_bytes());
    out.extend_from_slice(b"\r\n");
    let named = named_by_connection(headers);
    for (name, value) in headers {
        let stays = is_hop_by_hop(name)
            || named.contains(name)
            || is_ours(name)
            || forwarded::is_proxy_header(name);
        if !stays {
            write_line(out, name, value.as_bytes());
        }
    }
    out.extend_from_slice(b"accept-encoding: identity\r\n");
    // WeChat answers 412 to a POST without a length, also if it has no body.
    let may_have_body = *method != Method::GET && *method != Method::HEAD;
    if length > 0 || may_have_body {
        write_line(out, &header::CONTENT_LENGTH, length.to_string().as_bytes());
    }
}

/// Writes one header.
pub(super) fn write_line(out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Returns the headers of the answer to a client, for one of WeChat with these headers.
///
/// Where there are a transfer coding and a length, the coding counts (RFC 9112, 6.3), and the length is wrong: a client
/// would take the rest of the body for its next answer. A length that is not one number, not every client reads alike.
pub(super) fn for_client(mut headers: HeaderMap) -> HeaderMap {
    let mut lengths = values(&headers, header::CONTENT_LENGTH);
    let is_number = lengths.next().is_none_or(|it| it.as_bytes().iter().all(u8::is_ascii_digit));
    let has_two = lengths.next().is_some();
    let mut codings = values(&headers, header::TRANSFER_ENCODING);
    let is_wrong = !is_number || has_two || codings.next().is_some();
    drop((lengths, codings));
    if is_wrong {
        headers.remove(header::CONTENT_LENGTH);
    }
    let named = named_by_connection(&headers);
    // Most answers have one of these at most.
    let is_unwanted = |name: &&HeaderName| is_hop_by_hop(name) || named.contains(name);
    let unwanted: Vec<_> = headers.keys().filter(is_unwanted).cloned().collect();
    for name in unwanted {
        headers.remove(name);
    }
    headers
}

/// Returns the headers that `Connection` names. Most often these are none: its words `close` and `keep-alive` do not count.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let names_none = |word: &[u8]| {
        word.eq_ignore_ascii_case(b"close") || word.eq_ignore_ascii_case(b"keep-alive")
    };
    let lines = values(headers, header::CONNECTION).map(HeaderValue::as_bytes);
    let lines = lines.filter(|line| !names_none(line));
    let words = lines.flat_map(|line| line.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let words = words.filter(|word| !names_none(word));
    words.filter_map(|word| HeaderName::from_bytes(word).ok()).collect()
}

/// Whether a body has no transfer coding, or is chunked and nothing else. hyper also takes `gzip, chunked`, and drops that it
/// is compressed.
pub(super) fn has_plain_coding(headers: &HeaderMap) -> bool {
    let mut codings = values(headers, header::TRANSFER_ENCODING);
    let is_chunked = codings.next().is_none_or(|it| it.as_bytes().eq_ignore_ascii_case(b"chunked"));
    is_chunked && codings.next().is_none()
}

/// Whether the request wants to speak something else than HTTP from then on. An offer of HTTP/2, which Java's client makes
/// with each request, may be ignored.
pub(super) fn wants_websocket(headers: &HeaderMap) -> bool {
    let mut upgrades = values(headers, header::UPGRADE);
    upgrades
        .any(|it| it.as_bytes().to_ascii_lowercase().windows(9).any(|part| part == b"websocket"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn written(headers: &HeaderMap, method: &Method, length: u64) -> String {
        let mut out = Vec::new();
        write_for_wechat(&mut out, headers, method, "api.weixin.qq.com", length);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn headers_of_one_connection_and_those_for_this_server_do_not_reach_wechat() {
        let sent = map(&[
            ("host", "wxtoken:7200"),
            ("connection", "keep-alive, X-Private"),
            ("connection", "close"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAAQAoAAAAAIAAAAA"),
            ("proxy-authorization", "Basic eA=="),
            ("authorization", "Bearer wxk_0"),
            ("expect", "100-continue"),
            ("accept-encoding", "gzip, br"),
            ("x-forwarded-for", "10.0.0.7"),
            ("x-real-ip", "10.0.0.7"),
            ("x-forwarded-server", "proxy.internal"),
            ("x-forwarded-client-cert", "Subject=\"CN=shop\""),
            ("x-client-ip", "10.0.0.7"),
            ("cf-connecting-ip", "10.0.0.7"),
            ("via", "1.1 proxy.internal"),
            ("transfer-encoding", "chunked"),
            ("content-type", "application/json"),
            ("wechatmp-signature", "s1"),
            ("cookie", "a=b"),
            ("x-twice", "1"),
            ("x-twice", "2"),
        ]);
        let expected = "host: api.weixin.qq.com\r\n\
                        content-type: application/json\r\n\
                        wechatmp-signature: s1\r\n\
                        cookie: a=b\r\n\
                        x-twice: 1\r\n\
                        x-twice: 2\r\n\
                        accept-encoding: identity\r\n\
                        content-length: 7\r\n";
        assert_eq!(written(&sent, &Method::POST, 7), expected);
    }

    #[test]
    fn a_get_without_a_body_has_no_length_and_a_post_without_one_has() {
        let length = |method: Method, length| {
            let written = written(&HeaderMap::new(), &method, length);
            let line = written.lines().find_map(|line| line.strip_prefix("content-length: "));
            line.map(ToOwned::to_owned)
        };
        assert_eq!(length(Method::GET, 0), None);
        assert_eq!(length(Method::GET, 2).as_deref(), Some("2"));
        assert_eq!(length(Method::POST, 0).as_deref(), Some("0"));
    }

    #[test]
    fn an_answer_keeps_all_but_the_headers_of_its_connection() {
        let answer = map(&[
            ("content-length", "68"),
            ("etag", "\"x\""),
            ("connection", "X-Hop"),
            ("x-hop", "1"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
        ]);
        let expected = map(&[
            ("content-length", "68"),
            ("etag", "\"x\""),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
        ]);
        assert_eq!(for_client(answer), expected);
        let of_two_lengths = map(&[("content-length", "2"), ("transfer-encoding", "chunked")]);
        assert!(for_client(of_two_lengths).is_empty());
        for lengths in [&["2, 2"][..], &["2", "2"], &["+2"]] {
            let lines: Vec<_> = lengths.iter().map(|it| ("content-length", *it)).collect();
            assert!(for_client(map(&lines)).is_empty(), "{lengths:?}");
        }
    }

    #[test]
    fn a_body_is_plain_or_chunked_and_nothing_else() {
        for (codings, expected) in [
            (&[][..], true),
            (&["chunked"], true),
            (&["Chunked"], true),
            (&["gzip, chunked"], false),
            (&["gzip", "chunked"], false),
            (&["chunked, chunked"], false),
            (&["chunked", "chunked"], false),
            (&["identity"], false),
        ] {
            let lines: Vec<_> = codings.iter().map(|it| ("transfer-encoding", *it)).collect();
            assert_eq!(has_plain_coding(&map(&lines)), expected, "{codings:?}");
        }
    }

    #[test]
    fn an_offer_of_http2_is_ignored_and_websocket_is_not() {
        assert!(wants_websocket(&map(&[("upgrade", "WebSocket")])));
        assert!(wants_websocket(&map(&[("upgrade", "h2c, websocket")])));
        assert!(!wants_websocket(&map(&[("upgrade", "h2c")])) && !wants_websocket(&map(&[])));
    }
}
