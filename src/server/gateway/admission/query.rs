//! The query of a request to the gateway: the token in it, what else decides about the request, and the same query with
//! another token. Names are decoded before they are compared; all that is not the gateway's affair stays byte for byte.

use std::borrow::Cow;

use super::refusal::GatewayRefusal;
use crate::model::client_key;

const ACCESS_TOKEN: &str = "access_token";

/// The word of WeChat's cloud hosting for the account of a call without a token.
const FROM_APPID: &str = "from_appid";

/// The token of WeChat's cloud hosting, which counts in place of `access_token`.
const CLOUD_TOKEN: &str = "cloudbase_access_token";

/// Tokens of another kind, by the names under which they are sent.
const FOREIGN_TOKENS: [&str; 3] =
    ["component_access_token", "provider_access_token", "suite_access_token"];

/// Which bytes of a token stand in a query as they are.
static IS_PLAIN: [bool; 256] = {
    let mut is_plain = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let is_sign = byte == b'_' as usize || byte == b'-' as usize;
        is_plain[byte] = (byte as u8).is_ascii_alphanumeric() || is_sign;
        byte += 1;
    }
    is_plain
};

/// The query of a request, without what is never passed on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query<'a> {
    /// The pairs as they came.
    pairs: Vec<&'a str>,
    /// The token's place among the pairs.
    token_at: Option<usize>,
    /// The token; empty if there is none.
    pub(super) token: Cow<'a, str>,
    from_appid_at: Option<usize>,
    /// The AppID for which the account is meant.
    pub(super) from_appid: Option<Cow<'a, str>>,
    /// The AppID that the call itself takes, as those of `sns` do.
    pub(super) appid: Option<Cow<'a, str>>,
    /// Whether there is a token of another kind.
    pub(super) has_foreign_token: bool,
}

/// Where a request goes at WeChat: path and query, with a place for the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiTarget {
    before: String,
    /// What follows the token; `None` if the call takes none from here.
    after: Option<String>,
    path_length: usize,
}

impl<'a> Query<'a> {
    /// Parses a query as it came. Fails if it could be read in two ways, or if a key of wxtoken stands in it.
    pub(super) fn parse(query: Option<&'a str>) -> Result<Query<'a>, GatewayRefusal> {
        let mut parsed = Query::default();
        let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(parsed) };
        for pair in query.split('&') {
            let (name, value) = decode(pair);
            if client_key::has_form_of_key(&value) {
                return Err(GatewayRefusal::KeyInQuery);
            }
            let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
            if is(CLOUD_TOKEN) {
                continue;
            }
            let index = parsed.pairs.len();
            if is(ACCESS_TOKEN) {
                if parsed.token_at.replace(index).is_some() || name != ACCESS_TOKEN {
                    return Err(GatewayRefusal::AmbiguousToken);
                }
                parsed.token = value;
            } else if is(FROM_APPID) {
                if parsed.from_appid_at.replace(index).is_some() {
                    return Err(GatewayRefusal::AmbiguousAccount);
                }
                parsed.from_appid = Some(value).filter(|appid| !appid.is_empty());
            } else if name == "appid" {
                parsed.appid = Some(value);
            } else if FOREIGN_TOKENS.iter().any(|foreign| is(foreign)) {
                parsed.has_foreign_token = true;
            }
            parsed.pairs.push(pair);
        }
        Ok(parsed)
    }

    /// Returns where the request goes: `path`, and the query without `from_appid` if that `is_used` here. The token stands
    /// where the client put it, or else at the end.
    pub(super) fn target(&self, path: &str, is_from_appid_used: bool) -> ApiTarget {
        // One pair more than there are: the token.
        let length = |pairs: &[&str]| pairs.iter().map(|pair| pair.len() + 1).sum::<usize>();
        let mut before =
            String::with_capacity(path.len() + length(&self.pairs) + ACCESS_TOKEN.len() + 2);
        let mut after = String::new();
        before.push_str(path);
        before.push('?');
        for (index, pair) in self.kept(is_from_appid_used) {
            match self.token_at {
                Some(place) if index == place => {}
                Some(place) if index > place => {
                    after.push('&');
                    after.push_str(pair);
                }
                _ => {
                    before.push_str(pair);
                    before.push('&');
                }
            }
        }
        before.push_str(ACCESS_TOKEN);
        before.push('=');
        ApiTarget { before, after: Some(after), path_length: path.len() }
    }

    /// The pairs that are passed on, with their places.
    fn kept(&self, is_from_appid_used: bool) -> impl Iterator<Item = (usize, &'a str)> {
        let dropped = self.from_appid_at.filter(|_| is_from_appid_used);
        let pairs = self.pairs.iter().copied().enumerate();
        pairs.filter(move |(index, _)| Some(*index) != dropped)
    }

    /// Returns where a request goes that takes no token from here, with the query as it came.
    pub(super) fn target_without_token(&self, path: &str, is_from_appid_used: bool) -> ApiTarget {
        let kept: Vec<_> = self.kept(is_from_appid_used).map(|(_, pair)| pair).collect();
        let before = match kept.is_empty() {
            true => path.to_owned(),
            false => format!("{path}?{}", kept.join("&")),
        };
        ApiTarget { before, after: None, path_length: path.len() }
    }
}

impl ApiTarget {
    /// The path, without the query.
    pub(crate) fn path(&self) -> &str {
        &self.before[..self.path_length]
    }

    /// Writes the path below `prefix`, and the query with this token if the call takes one from here.
    pub(crate) fn write(&self, out: &mut Vec<u8>, prefix: &str, token: &str) {
        out.extend_from_slice(prefix.as_bytes());
        out.extend_from_slice(self.before.as_bytes());
        let Some(after) = &self.after else { return };
        // WeChat's tokens have no other characters.
        if token.bytes().all(|byte| IS_PLAIN[usize::from(byte)]) {
            out.extend_from_slice(token.as_bytes());
        } else {
            let encoded = form_urlencoded::byte_serialize(token.as_bytes());
            encoded.for_each(|part| out.extend_from_slice(part.as_bytes()));
        }
        out.extend_from_slice(after.as_bytes());
    }

    /// Returns what [`write`](Self::write) writes, as a text.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn with_token(&self, prefix: &str, token: &str) -> String {
        let mut out = Vec::new();
        self.write(&mut out, prefix, token);
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// Returns name and value of a pair, decoded.
fn decode(pair: &str) -> (Cow<'_, str>, Cow<'_, str>) {
    if !pair.contains(['%', '+']) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        return (Cow::Borrowed(name), Cow::Borrowed(value));
    }
    form_urlencoded::parse(pair.as_bytes()).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(query: &str) -> String {
        Query::parse(Some(query)).unwrap().target("/p/q", true).with_token("", "T_2-x")
    }

    #[test]
    fn the_token_is_set_in_its_place_and_the_rest_stays_byte_for_byte() {
        for (query, expected) in [
            ("", "/p/q?access_token=T_2-x"),
            ("access_token=T1", "/p/q?access_token=T_2-x"),
            ("access_token=", "/p/q?access_token=T_2-x"),
            ("access_token", "/p/q?access_token=T_2-x"),
            ("a=%7e&access_token=T1&b=+&&c", "/p/q?a=%7e&access_token=T_2-x&b=+&&c"),
            ("access%5Ftoken=T1&b=%zz", "/p/q?access_token=T_2-x&b=%zz"),
            ("a=1", "/p/q?a=1&access_token=T_2-x"),
            ("a=1&cloudbase_access_token=C&b=2", "/p/q?a=1&b=2&access_token=T_2-x"),
            ("cloudbase%5Faccess_token=C&access_token=T1", "/p/q?access_token=T_2-x"),
            ("from_appid=wx1&a=1", "/p/q?a=1&access_token=T_2-x"),
            ("a=1&from%5fappid=wx1&access_token=T1&b", "/p/q?a=1&access_token=T_2-x&b"),
            ("名=值&access_token=T1", "/p/q?名=值&access_token=T_2-x"),
        ] {
            assert_eq!(target(query), expected, "{query}");
        }
        let none = Query::parse(None).unwrap();
        assert_eq!(none.target("/p/q", true).with_token("", "a&b"), "/p/q?access_token=a%26b");
        assert_eq!(none.target_without_token("/p/q", false).with_token("", "T"), "/p/q");
        let foreign = Query::parse(Some("access_token=U&from_appid=wx1&%61=b")).unwrap();
        let target = foreign.target_without_token("/sns/x", true);
        assert_eq!(target.with_token("", "T"), "/sns/x?access_token=U&%61=b");
        assert_eq!(target.path(), "/sns/x");
        let target = foreign.target("/p/q", false);
        assert_eq!(target.with_token("", "T"), "/p/q?access_token=T&from_appid=wx1&%61=b");
        assert_eq!(target.path(), "/p/q");
    }

    #[test]
    fn a_query_that_can_be_read_in_two_ways_is_refused() {
        for (query, expected) in [
            ("access_token=T1&access_token=T1", GatewayRefusal::AmbiguousToken),
            ("access_token=T1&a=b&access%5ftoken=T2", GatewayRefusal::AmbiguousToken),
            ("access_token=&%61ccess_token=T2", GatewayRefusal::AmbiguousToken),
            ("Access_Token=T1", GatewayRefusal::AmbiguousToken),
            ("from_appid=wx1&from_appid=wx2", GatewayRefusal::AmbiguousAccount),
        ] {
            assert_eq!(Query::parse(Some(query)), Err(expected), "{query}");
        }
    }

    #[test]
    fn a_key_in_the_query_is_refused_and_goes_nowhere() {
        let key = client_key::from_random(&[7; client_key::RANDOM_BYTES]);
        for name in ["access_token", "secret", "x"] {
            let plain = format!("appid=wx1&{name}={}", key.expose());
            let encoded = format!("{name}=wxk%5F{}&appid=wx1", &key.expose()[4..]);
            for query in [plain, encoded] {
                assert_eq!(Query::parse(Some(&query)), Err(GatewayRefusal::KeyInQuery));
            }
        }
        assert!(Query::parse(Some("x=wxk_short&y=abc")).is_ok());
    }

    #[test]
    fn what_decides_about_the_request_is_decoded() {
        let query = Query::parse(Some("appid=wx%31&access_token=T%5F1&from_appid=")).unwrap();
        assert_eq!((&*query.token, query.appid.as_deref()), ("T_1", Some("wx1")));
        assert_eq!((query.from_appid, query.has_foreign_token), (None, false));
        for name in ["component_access_token", "suite%5Faccess_token", "provider_access_token"] {
            assert!(Query::parse(Some(&format!("{name}=X"))).unwrap().has_foreign_token);
        }
    }
}
