//! Which of WeChat's APIs a client may call through the gateway: path prefixes, and the calls of administration, which need
//! to be named. Knows no client.

use std::fmt;
use std::sync::LazyLock;

use super::INVALID_API;

/// The word for every API, those of administration included.
const ALL: &str = "all";

/// The longest prefix: longer than any path of WeChat.
const MAX_PREFIX: usize = 128; // characters

/// The calls that delete, reset, pay, or cannot be called back. A client may call them only if its key names them. `*`
/// stands for the rest of a segment. What is below such a path belongs to it.
///
/// Paths of WeChat's and WeCom's documentation; the table is in wxtoken.1, too.
pub(crate) const ADMINISTRATION: &[&str] = &[
    // Quotas and tokens.
    "/cgi-bin/clear_quota",
    "/cgi-bin/component/clear_quota",
    "/cgi-bin/openapi/quota/clear",
    "/tcb/usecloudaccesstoken",
    // The account and its releases.
    "/cgi-bin/open/unbind",
    "/cgi-bin/wxopen/deletecategory",
    "/cgi-bin/wxopen/qrcodejumpdelete",
    "/wxa/deletetemplate",
    "/wxa/revertcoderelease",
    "/wxa/revertgrayrelease",
    "/wxa/unbind_tester",
    "/wxa/undocodeaudit",
    // Content and people.
    "/cgi-bin/comment/delete",
    "/cgi-bin/draft/delete",
    "/cgi-bin/freepublish/delete",
    "/cgi-bin/guide/delguide*",
    "/cgi-bin/material/del_material",
    "/cgi-bin/menu/delconditional",
    "/cgi-bin/menu/delete",
    "/cgi-bin/message/mass/delete",
    "/cgi-bin/message/mass/send*",
    "/cgi-bin/poi/delpoi",
    "/cgi-bin/tags/delete",
    "/cgi-bin/template/del_private_template",
    "/customservice/kfaccount/del",
    // Goods, cards and devices.
    "/card/code/unavailable",
    "/card/delete",
    "/device/compel_unbind",
    "/device/unbind",
    "/mall/delete*",
    "/marketing/*/delete",
    "/merchant/del",
    "/merchant/express/del",
    "/merchant/group/del",
    "/merchant/shelf/del",
    "/scan/product/clear",
    "/wxa/del_store",
    // WeCom.
    "/cgi-bin/batch/replaceparty",
    "/cgi-bin/batch/replaceuser",
    "/cgi-bin/department/delete",
    "/cgi-bin/tag/delete",
    "/cgi-bin/tag/deltagusers",
    "/cgi-bin/user/batchdelete",
    "/cgi-bin/user/delete",
    // Money: withdrawals, and refunds to buyers.
    "/cgi-bin/express/intracity/storerefund",
    "/channels/ec/aftersale/acceptapply",
    "/channels/ec/aftersale/genaftersaleorder",
    "/channels/ec/aftersale/merchantacceptguarantee",
    "/channels/ec/aftersale/refundpricediff",
    "/channels/ec/funds/setbankacct",
    "/channels/ec/funds/submitwithdraw",
    "/nontax/refund",
    "/product/funds/submitwithdraw",
    "/shop/ecaftersale/acceptrefund",
    "/shop/funds/submitwithdraw",
    "/shop/pay/refundorder",
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
        let named = |prefix: &String| {
            is_at_or_below(path, prefix)
                && administration(path).all(|pattern| matches(prefix, pattern))
        };
        match self {
            ApiScope::All => true,
            ApiScope::Usual => administration(path).next().is_none(),
            ApiScope::Below(prefixes) => prefixes.iter().any(named),
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
    /// Those without a `*` by their length, and those with one.
    static DIVIDED: LazyLock<(Vec<Vec<&str>>, Vec<&str>)> = LazyLock::new(|| {
        let (starred, literal): (Vec<&str>, Vec<&str>) =
            ADMINISTRATION.iter().partition(|pattern| pattern.contains('*'));
        let longest = literal.iter().map(|pattern| pattern.len()).max().unwrap_or_default();
        let mut by_length = vec![Vec::new(); longest + 1];
        literal.into_iter().for_each(|pattern| by_length[pattern.len()].push(pattern));
        (by_length, starred)
    });
    let (by_length, starred) = &*DIVIDED;
    // Only one that is as long as some segments of the path together.
    let ends = path.bytes().enumerate().filter(|(_, byte)| *byte == b'/').map(|(at, _)| at);
    let fitting = ends.chain([path.len()]).filter_map(|end| by_length.get(end)).flatten();
    let literal = fitting.filter(move |pattern| is_at_or_below(path, pattern));
    literal.chain(starred.iter().filter(move |pattern| matches(path, pattern))).copied()
}

/// Whether a path is that of the API `api`, or below it. Compares whole segments, in capitals or not: a server may take both.
///
/// Each call is compared with many, so this looks first at what would follow.
pub(crate) fn is_at_or_below(path: &str, api: &str) -> bool {
    let (path, api) = (path.as_bytes(), api.as_bytes());
    matches!(path.get(api.len()), None | Some(b'/'))
        && path.get(..api.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(api))
}

/// The same with a pattern, in which `*` stands for the rest of a segment.
fn matches(path: &str, pattern: &str) -> bool {
    let mut rest = path.as_bytes();
    for wanted in pattern.bytes() {
        rest = match rest.split_first() {
            _ if wanted == b'*' => {
                &rest[rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len())..]
            }
            Some((found, rest)) if found.eq_ignore_ascii_case(&wanted) => rest,
            _ => return false,
        };
    }
    matches!(rest.first(), None | Some(b'/'))
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
        for path in
            ["/cgi-bin/menu/get", "/cgi-bin/tags/deletes", "/wxa/getwxacode", "/marketing/x"]
        {
            assert!(scope("").allows(path), "{path}");
        }
        let of_money = [
            "/channels/ec/funds/submitwithdraw",
            "/shop/funds/submitwithdraw",
            "/channels/ec/aftersale/acceptapply",
            "/shop/pay/refundorder",
        ];
        assert!(of_money.iter().all(|path| !scope("").allows(path)));
        // To look at refunds, or to refuse them, pays nothing.
        for path in ["getaftersaleorder", "rejectapply", "uploadrefundcertificate"] {
            assert!(scope("").allows(&format!("/channels/ec/aftersale/{path}")), "{path}");
        }
        let menu = scope("/cgi-bin/menu,/cgi-bin/menu/delete");
        assert!(menu.allows("/cgi-bin/menu/delete") && menu.allows("/cgi-bin/menu/get"));
        assert!(!menu.allows("/cgi-bin/menu/delconditional"));
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
