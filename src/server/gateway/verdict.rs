//! What WeChat's answer says: the errcode of a small JSON object, and whether it is about the token. Only the body tells: errors come with
//! HTTP 200 and any content type. Reads no connection.

use serde::Deserialize;

use crate::model::api::Api;

/// The largest answer that is looked at, in bytes. Errors have a few hundred.
pub(super) const MAX_INSPECTED: usize = 4 * 1024;

/// The part of an answer that is looked at.
#[derive(Deserialize)]
struct ErrorFields {
    #[serde(default)]
    errcode: i64,
}

/// Whether a body may be an error, by its first bytes. `None` if these are too few to tell.
pub(crate) fn may_be_error(begun: &[u8]) -> Option<bool> {
    begun.trim_ascii_start().first().map(|first| *first == b'{')
}

/// Returns the errcode of a complete small answer; 0 if it has none.
pub(crate) fn errcode(body: &[u8]) -> i64 {
    // Most answers have none, or 0, and are not parsed.
    let is_candidate = may_be_error(body) == Some(true) && has_nonzero_errcode(body);
    // serde_json's error would quote the answer.
    let fields = is_candidate.then(|| serde_json::from_slice::<ErrorFields>(body).ok()).flatten();
    fields.map_or(0, |fields| fields.errcode)
}

/// Whether there may be an errcode other than 0.
fn has_nonzero_errcode(body: &[u8]) -> bool {
    let quotes = body.iter().enumerate().filter(|(_, byte)| **byte == b'"');
    quotes.filter_map(|(place, _)| body[place..].strip_prefix(b"\"errcode\"")).any(|rest| {
        let value = rest.trim_ascii_start().strip_prefix(b":").unwrap_or_default();
        !value.trim_ascii_start().starts_with(b"0")
    })
}

/// Whether an errcode says that the token of a call is dead. WeCom's 40001 is about the secret.
pub(crate) fn is_about_token(errcode: i64, api: Api) -> bool {
    match errcode {
        40014 | 42001 => true,
        40001 => api != Api::Work,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_errcode_is_a_number_at_the_top_of_a_small_object_whatever_its_type() {
        for (body, expected) in [
            (&br#"{"errcode":40001,"errmsg":"invalid credential"}"#[..], 40001),
            (b" \r\n{ \"errmsg\" : \"x\", \"errcode\" : 42001 }", 42001),
            (br#"{"errcode":-1,"errmsg":"system error"}"#, -1),
            (br#"{"errcode":0,"errmsg":"ok"}"#, 0),
            (br#"{"a":{"errcode":40001}}"#, 0),
            (br#"{"errcode":"40001"}"#, 0),
            (br#"{"errmsg":"\"errcode\":40001"}"#, 0),
            (br#"[{"errcode":40001}]"#, 0),
            (br#"{"errcode":40001"#, 0),
            (b"", 0),
            (b"\x89PNG {\"errcode\":40001}", 0),
            (br#"{"errcode"#, 0),
        ] {
            assert_eq!(errcode(body), expected, "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn the_first_byte_tells_whether_an_answer_may_be_an_error() {
        assert_eq!(may_be_error(b" {"), Some(true));
        assert_eq!(may_be_error(b"\x89PNG"), Some(false));
        assert_eq!(may_be_error(b" \n"), None);
    }

    #[test]
    fn on_wecom_40001_is_about_the_secret() {
        for (errcode, api, expected) in [
            (40001, Api::Stable, true),
            (40001, Api::Classic, true),
            (40001, Api::Work, false),
            (40014, Api::Work, true),
            (42001, Api::Stable, true),
            (40125, Api::Stable, false),
            (0, Api::Stable, false),
        ] {
            assert_eq!(is_about_token(errcode, api), expected, "{errcode} {api:?}");
        }
    }
}
