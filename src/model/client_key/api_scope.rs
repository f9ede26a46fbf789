//! Which of WeChat's APIs a client may call through the gateway: path prefixes, and the calls of administration, which need
//! to be named. Knows no client.

use std::fmt;

use super::INVALID_API;

/// The word for every API, those of administration included.
const ALL: &str = "all";

/// The longest prefix: longer than any path of WeChat.
const MAX_PREFIX: usize = 128; // characters

/// A call with a segment that begins or ends with one of these words is one of administration.
const ADMINISTRATION_WORDS: &[&str] =
    &["batchdel", "clear", "delete", "recall", "refund", "remove", "revoke", "unbind", "withdraw"];

/// WeChat's short word for it, at the beginning of a segment, or at its end behind `_`.
const DELETE: &str = "del";

/// What begins like it, and deletes nothing.
const NOT_DELETE: &[&str] = &["delay", "delegat", "deliver"];

/// The calls of administration, which delete, reset, pay, or cannot be called back, that have none of the words. A client may
/// call these only if its key names them. What is below such a path belongs to it, and so does what it begins, behind a `*`.
///
/// Paths of WeChat's and WeCom's documentation; words and paths are in wxtoken.1, too.
pub(crate) const ADMINISTRATION: &[&str] = &[
    "/card/code/unavailable",
    "/cgi-bin/batch/replaceparty",
    "/cgi-bin/batch/replaceuser",
    "/cgi-bin/message/mass/send*",
    "/tcb/usecloudaccesstoken",
    "/wxa/revertcoderelease",
    "/wxa/revertgrayrelease",
    "/wxa/undocodeaudit",
    // Money: refunds to buyers, and where withdrawals go.
    "/channels/ec/aftersale/acceptapply",
    "/channels/ec/aftersale/genaftersaleorder",
    "/channels/ec/aftersale/merchantacceptguarantee",
    "/channels/ec/funds/setbankacct",
    "/xpay",
];

/// The APIs that a client may call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ApiScope {
    /// All that are not administration.
    #[default]
    Usual,
    /// Those below these paths. One of administration counts only where a path names it.
    Below(Vec<String>),
    All,
}

impl ApiScope {
    /// Parses `all`, or paths. Fails for anything else. Without any path it is the usual scope.
    pub(crate) fn parse<'a>(
        words: impl IntoIterator<Item = &'a str>,
    ) -> Result<ApiScope, &'static str> {
        let mut paths = Vec::new();
        let mut is_all = false;
        for word in words {
            match word {
                ALL => is_all = true,
                path if is_prefix(path) => paths.push(path.trim_end_matches('/').to_owned()),
                _ => return Err(INVALID_API),
            }
        }
        Ok(match (is_all, paths.is_empty()) {
            (true, _) => ApiScope::All,
            (false, true) => ApiScope::Usual,
            (false, false) => ApiScope::Below(paths),
        })
    }

    /// Whether a client with this scope may call the API at `path`.
    pub(crate) fn allows(&self, path: &str) -> bool {
        let is_named = |prefix: &String| {
            is_at_or_below(path, prefix)
                && (!has_word(path) || has_word(prefix))
                && administration(path).all(|pattern| matches(prefix, pattern))
        };
        match self {
            ApiScope::All => true,
            ApiScope::Usual => !has_word(path) && administration(path).next().is_none(),
            ApiScope::Below(prefixes) => prefixes.iter().any(is_named),
        }
    }

    /// Whether the scope is narrower than what a token opens. A client with such a scope is handed no token of WeChat's,
    /// with which it could call everything.
    pub(crate) fn is_limited(&self) -> bool {
        matches!(self, ApiScope::Below(_))
    }
}

impl fmt::Display for ApiScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApiScope::Usual => Ok(()),
            ApiScope::Below(prefixes) => f.write_str(&prefixes.join(",")),
            ApiScope::All => f.write_str(ALL),
        }
    }
}

/// The entries of [`ADMINISTRATION`] that a path belongs to.
fn administration(path: &str) -> impl Iterator<Item = &'static str> {
    ADMINISTRATION.iter().copied().filter(move |pattern| matches(path, pattern))
}

/// Whether a path has a segment with a word of administration.
fn has_word(path: &str) -> bool {
    path.split('/').any(|segment| {
        let begins = |word: &str| {
            segment.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word))
        };
        let before = |word: &str| {
            let end = segment.len().checked_sub(word.len())?;
            segment.get(end..).filter(|end| end.eq_ignore_ascii_case(word))?;
            Some(&segment[..end])
        };
        ADMINISTRATION_WORDS.iter().any(|word| begins(word) || before(word).is_some())
            || (begins(DELETE) && !NOT_DELETE.iter().any(|word| begins(word)))
            || before(DELETE).is_some_and(|it| it.ends_with('_'))
    })
}

/// Whether a path is that of the API `api`, or below it. Compares whole segments, in capitals or not: a server may take both.
///
/// Each call is compared with dozens of others, so this looks first at what would follow.
pub(crate) fn is_at_or_below(path: &str, api: &str) -> bool {
    let (path, api) = (path.as_bytes(), api.as_bytes());
    matches!(path.get(api.len()), None | Some(b'/'))
        && path.get(..api.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(api))
}

/// Whether a path is that of an API that matches `pattern`, or below it. A `*` at the end of the pattern is the rest of a segment.
fn matches(path: &str, pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        None => is_at_or_below(path, pattern),
        Some(begin) => {
            path.get(..begin.len()).is_some_and(|found| found.eq_ignore_ascii_case(begin))
        }
    }
}

fn is_prefix(text: &str) -> bool {
    let is_segment = |segment: &str| {
        !segment.is_empty()
            && !segment.starts_with('.')
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
    };
    text.len() <= MAX_PREFIX
        && text
            .strip_prefix('/')
            .is_some_and(|rest| rest.strip_suffix('/').unwrap_or(rest).split('/').all(is_segment))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(words: &str) -> ApiScope {
        ApiScope::parse(words.split(',').filter(|word| !word.is_empty())).unwrap()
    }

    #[test]
    fn a_prefix_allows_what_is_below_it_and_no_longer_word() {
        let message = scope("/cgi-bin/message,/wxa/getwxacode");
        for (path, expected) in [
            ("/cgi-bin/message", true),
            ("/cgi-bin/message/custom/send", true),
            ("/cgi-bin/messages", false),
            ("/cgi-bin", false),
            ("/cgi-bin/menu/get", false),
            ("/wxa/getwxacode", true),
            ("/wxa/getwxacodeunlimit", false),
        ] {
            assert_eq!(message.allows(path), expected, "{path}");
        }
        assert_eq!(scope("/cgi-bin/message/"), scope("/cgi-bin/message"));
    }

    #[test]
    fn administration_needs_to_be_named() {
        for pattern in ADMINISTRATION {
            let path = pattern.replace("send*", "sendall").replace('*', "x");
            let below = format!("{path}/x");
            for path in [&path, &below, &path.to_uppercase()] {
                assert!(!scope("").allows(path), "{path}");
                assert!(scope("all").allows(path), "{path}");
            }
            let parent = path.rsplit_once('/').unwrap().0;
            if !parent.is_empty() {
                assert!(!scope(parent).allows(&path), "{parent} {path}");
            }
            assert!(scope(&path).allows(&path), "{path}");
        }
        for path in [
            "/cgi-bin/menu/get",
            "/wxa/getwxacode",
            "/cgi-bin/express/delivery/open_msg/trace_waybill",
            "/channels/ec/order/deliveryinfo/update",
            "/cgi-bin/openapi/quota/get",
            "/cgi-bin/message/massive",
            "/cgi-bin/model/get",
        ] {
            assert!(scope("").allows(path), "{path}");
        }
        // To look at refunds, or to refuse them, pays nothing.
        for path in ["getaftersaleorder", "rejectapply", "uploadrefundcertificate"] {
            assert!(scope("").allows(&format!("/channels/ec/aftersale/{path}")), "{path}");
        }
        let menu = scope("/cgi-bin/menu,/cgi-bin/menu/delete");
        assert!(menu.allows("/cgi-bin/menu/delete") && menu.allows("/cgi-bin/menu/get"));
        assert!(!menu.allows("/cgi-bin/menu/delconditional"));
    }

    #[test]
    fn a_call_with_a_word_of_administration_needs_to_be_named_whether_it_is_known_or_not() {
        for path in [
            "/card/delete",
            "/cgi-bin/clear_quota",
            "/cgi-bin/draft/DELETE",
            "/cgi-bin/externalcontact/del_contact_way",
            "/cgi-bin/externalcontact/group_welcome_template/del",
            "/cgi-bin/menu/delconditional",
            "/cgi-bin/message/recall",
            "/cgi-bin/open/unbind",
            "/cgi-bin/tag/deltagusers",
            "/cgi-bin/user/batchdelete",
            "/cgi-bin/wedrive/file_delete",
            "/cgi-bin/x/batch_del",
            "/cgi-bin/x/batchdel",
            "/channels/ec/product/delete",
            "/device/compel_unbind",
            "/marketing/adgroups/delete",
            "/shop/funds/submitwithdraw",
            "/shop/pay/refundorder",
            "/tcb/batchdeletefile",
            "/tcb/databasedelete",
            "/wxa/delnearbypoi",
            "/wxaapi/newtmpl/deltemplate",
        ] {
            let (parent, _) = path.rsplit_once('/').unwrap();
            assert!(!scope("").allows(path) && !scope(parent).allows(path), "{path}");
            assert!(scope(path).allows(path) && scope("all").allows(path), "{path}");
        }
    }

    #[test]
    fn a_scope_of_paths_alone_is_narrower_than_a_token() {
        assert!(scope("/cgi-bin").is_limited());
        assert!(!scope("").is_limited() && !scope("all").is_limited());
    }

    #[test]
    fn a_scope_is_parsed_as_it_was_written() {
        for words in ["all", "/cgi-bin", "/cgi-bin/message,/wxa", ""] {
            assert_eq!(scope(words).to_string(), words);
        }
        assert_eq!(scope("/cgi-bin,all"), ApiScope::All);
        for invalid in [
            "cgi-bin",
            "/",
            "//",
            "/cgi-bin//x",
            "/a/../b",
            "/%61",
            "ALL",
            "/a b",
            "/*",
            "/a;b",
            "wxk_x",
        ] {
            assert_eq!(ApiScope::parse([invalid]), Err(INVALID_API), "{invalid}");
        }
        assert!(ApiScope::parse([format!("/{}", "a".repeat(MAX_PREFIX)).as_str()]).is_err());
    }
}
