//! Keeps the account's token out of answers to clients that are not handed it: what answers in WeChat's place, such as a proxy
//! with its page about an error, may repeat the URL that it was asked for.

use hyper::HeaderMap;
use hyper::body::Bytes;
use hyper::header::HeaderName;

use crate::model::secret::Secret;

/// What stands in place of each character of a token: a length that was announced stays right.
const MASK: u8 = b'*';

/// Returns where the token begins in a text.
fn find(text: &[u8], token: &Secret) -> Option<usize> {
    let token = token.expose().as_bytes();
    text.windows(token.len().max(1)).position(|window| window == token)
}

/// Removes the headers whose values have the token.
pub(super) fn hide_in_headers(headers: &mut HeaderMap, token: &Secret) {
    let with_token = headers.iter().filter(|(_, value)| find(value.as_bytes(), token).is_some());
    let names: Vec<HeaderName> = with_token.map(|(name, _)| name.clone()).collect();
    for name in names {
        headers.remove(name);
    }
}

/// Returns a whole body with the token masked.
pub(super) fn hide_in_body(body: Bytes, token: &Secret) -> Bytes {
    let Some(first) = find(&body, token) else { return body };
    let (mut body, mut begin) = (body.to_vec(), first);
    loop {
        let end = begin + token.expose().len();
        body[begin..end].fill(MASK);
        match find(&body[end..], token) {
            Some(next) => begin = end + next,
            None => return body.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_in_no_header_and_in_no_body() {
        let token = Secret::new("T0K3N-of_WeChat".to_owned());
        for (body, expected) in [
            ("", ""),
            ("T0K3N", "T0K3N"),
            ("T0K3N-of_WeChat", "***************"),
            ("aT0K3N-of_WeChatT0K3N-of_WeChat&b", "a******************************&b"),
            ("T0K3N-of_T0K3N-of_WeChat", "T0K3N-of_***************"),
        ] {
            assert_eq!(hide_in_body(Bytes::from_static(body.as_bytes()), &token), expected);
        }
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("location", "https://a/?access_token=T0K3N-of_WeChat"),
            ("x-request", "a"),
            ("x-request", "T0K3N-of_WeChat"),
            ("content-type", "text/html"),
        ] {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        hide_in_headers(&mut headers, &token);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["content-type"]);
    }
}
