//! Keeps the account's token out of answers to clients that are not handed it: what answers in WeChat's place, such as a proxy
//! with its page about an error, may repeat the URL that it was asked for.

use std::mem;

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

/// Masks the token in a body that arrives in pieces.
pub(super) struct TokenMask {
    token: Secret,
    /// The end of what has arrived, as far as the token may begin in it.
    held: Bytes,
}

impl TokenMask {
    pub(super) fn new(token: &Secret) -> TokenMask {
        TokenMask { token: token.clone(), held: Bytes::new() }
    }

    /// Returns what can be passed on when this piece has arrived: all that there is, after the last one.
    pub(super) fn pass(&mut self, piece: Bytes, is_last: bool) -> Bytes {
        let held = mem::take(&mut self.held);
        let arrived = if held.is_empty() { piece } else { [held, piece].concat().into() };
        let mut masked = hide_in_body(arrived, &self.token);
        if !is_last {
            self.held = masked.split_off(masked.len() - begun(&masked, &self.token));
        }
        masked
    }

    /// How many bytes are held back.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }
}

/// Returns with how many of its first bytes the token, but not all of it, stands at the end of a text.
fn begun(text: &[u8], token: &Secret) -> usize {
    let token = token.expose().as_bytes();
    let longest = token.len().saturating_sub(1).min(text.len());
    (1..=longest).rev().find(|length| text.ends_with(&token[..*length])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_masked_wherever_a_body_is_divided_and_only_its_beginning_is_held_back() {
        let token = Secret::new("abab_c".to_owned());
        let body = "xabababab_cab-abab_cabab_cabab_ababab_c-ab";
        let expected = "xabab******ab-************abab_ab******-ab";
        for size in 1..=body.len() {
            let mut mask = TokenMask::new(&token);
            let (mut passed, mut arrived) = (Vec::new(), 0);
            let pieces: Vec<_> = body.as_bytes().chunks(size).collect();
            for (nth, piece) in pieces.iter().enumerate() {
                arrived += piece.len();
                passed.extend(mask.pass(Bytes::copy_from_slice(piece), nth + 1 == pieces.len()));
                assert_eq!(passed.len() + mask.held(), arrived);
                assert!(mask.held() < token.expose().len());
            }
            assert_eq!(String::from_utf8(passed).unwrap(), expected, "{size}");
        }
        let mut mask = TokenMask::new(&token);
        assert_eq!(mask.pass(Bytes::from_static(b"text: a\n"), false), "text: a\n");
        assert_eq!(mask.pass(Bytes::from_static(b"aba"), false), "");
        assert_eq!(mask.pass(Bytes::new(), true), "aba");
    }

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
