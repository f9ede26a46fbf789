//! Recognizes requests that a page of another site makes a browser send. Judges by headers that browsers set and that no
//! page can change.

use hyper::HeaderMap;
use hyper::header::{self, HeaderName, HeaderValue};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Whether a page of another site makes a browser send this request: its user follows a link, or the page itself asks.
///
/// Browsers send `Sec-Fetch-Site` over HTTPS and to loopback, and `Origin` elsewhere too, if the request is more than a
/// plain GET.
pub(crate) fn is_cross_site(headers: &HeaderMap) -> bool {
    // One way through the few headers that there are takes less than to look two up.
    headers.iter().any(|(name, value)| {
        let value = || value.as_bytes().trim_ascii();
        (*name == SEC_FETCH_SITE && value().eq_ignore_ascii_case(b"cross-site"))
            || (*name == header::ORIGIN && !is_own_origin(value(), headers))
    })
}

/// Whether a page of another server makes a browser send this request, also one of the same site: another port of this host,
/// or another host of the same domain.
pub(crate) fn is_cross_origin(headers: &HeaderMap) -> bool {
    is_cross_site(headers)
        || has(headers, &SEC_FETCH_SITE, |site| site.eq_ignore_ascii_case(b"same-site"))
}

/// Whether a browser's user goes to this address, in a tab of its own: follows a link, for instance.
pub(crate) fn is_navigation(headers: &HeaderMap) -> bool {
    has(headers, &SEC_FETCH_MODE, |mode| mode == b"navigate")
        && has(headers, &SEC_FETCH_DEST, |destination| destination == b"document")
        && !headers.contains_key(header::ORIGIN)
}

fn has(headers: &HeaderMap, name: &HeaderName, is_so: impl Fn(&[u8]) -> bool) -> bool {
    headers.get_all(name).iter().any(|value| is_so(value.as_bytes().trim_ascii()))
}

/// Whether an origin (`https://HOST[:PORT]`, or `null`) has the host that the request is for. The scheme is that of the
/// proxy, if there is one, and does not count.
fn is_own_origin(origin: &[u8], headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes);
    let mut parts = origin.splitn(2, |byte| *byte == b'/');
    let authority = parts.nth(1).and_then(|rest| rest.strip_prefix(b"/"));
    authority.zip(host).is_some_and(|(one, other)| one.eq_ignore_ascii_case(other.trim_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [("host", "Token.example.com:7200")].iter().chain(lines) {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_request_from_a_page_of_another_site_is_recognized() {
        for (lines, expected) in [
            (&[][..], false),
            (&[("sec-fetch-site", "cross-site")], true),
            (&[("sec-fetch-site", " Cross-Site ")], true),
            (&[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")], true),
            (&[("sec-fetch-site", "none")], false),
            (&[("sec-fetch-site", "same-origin")], false),
            (&[("sec-fetch-site", "same-site")], false),
            // Node's fetch sends it, and is no browser.
            (&[("sec-fetch-mode", "cors")], false),
            (&[("origin", "http://evil.example")], true),
            (&[("origin", "https://token.example.com")], true),
            (&[("origin", "null")], true),
            (&[("origin", "")], true),
            (&[("origin", "token.example.com:7200")], true),
            (&[("origin", "http://token.example.com:7200")], false),
            (&[("origin", "https://TOKEN.example.com:7200")], false),
            (&[("origin", "https://token.example.com:7200"), ("origin", "null")], true),
        ] {
            assert_eq!(is_cross_site(&headers(lines)), expected, "{lines:?}");
            let is_same_site = lines.contains(&("sec-fetch-site", "same-site"));
            assert_eq!(is_cross_origin(&headers(lines)), expected || is_same_site, "{lines:?}");
        }
    }

    #[test]
    fn a_navigation_is_to_a_document_and_comes_from_no_form() {
        let [mode, destination] = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        for (lines, expected) in [
            (&[mode, destination][..], true),
            (&[mode], false),
            (&[destination], false),
            (&[mode, ("sec-fetch-dest", "iframe")], false),
            (&[("sec-fetch-mode", "no-cors"), destination], false),
            (&[mode, destination, ("origin", "https://evil.example")], false),
        ] {
            assert_eq!(is_navigation(&headers(lines)), expected, "{lines:?}");
        }
    }
}
