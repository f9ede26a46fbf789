//! Why a request is not passed on to WeChat, in WeChat's form, which SDKs read.
//!
//! Some SDKs repeat a call without end after 40001, 40014 or 42001, so these are never used, and after -1 others do.

use std::borrow::Cow;

use hyper::body::Bytes;

use crate::language::bilingual;
use crate::server::access::AccessError;
use crate::server::access::peer::Peer;

/// Why a request is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GatewayRefusal {
    /// The path can be read in two ways.
    BadPath,
    /// The path is none of WeChat's, as far as can be seen.
    NoSuchPath,
    /// The API makes tokens or takes a secret.
    MakesTokens,
    /// The API takes the token inside a signature.
    SignedWithToken,
    /// The request has two tokens, or one under a name that may count and may not.
    AmbiguousToken,
    /// The request names its account twice.
    AmbiguousAccount,
    /// A key of wxtoken stands in the query.
    KeyInQuery,
    /// More than one `Authorization` header.
    SeveralAuthorizations,
    /// The key is not in the keys file.
    UnknownKey,
    /// There is neither a token nor a key.
    NoToken,
    /// The same, where there are no keys and the client is on another host.
    NotLocal,
    /// The call takes a token of another kind, and needs a key here.
    ForeignWithoutKey,
    /// The token is none that the client may have, and was none lately.
    UnknownToken,
    /// The client's address may not have the account's token.
    ForbiddenAccount,
    NoSuchAccount,
    /// The request names no account, and there are several.
    WhichAccount,
    /// The call is one of administration, and no key names it.
    Administration,
    /// The call is not among those of the client's key.
    ForbiddenApi,
}

impl From<AccessError> for GatewayRefusal {
    fn from(err: AccessError) -> GatewayRefusal {
        match err {
            AccessError::NoSuchAccount => GatewayRefusal::NoSuchAccount,
            AccessError::AmbiguousAccount => GatewayRefusal::WhichAccount,
            AccessError::SeveralAuthorizations => GatewayRefusal::SeveralAuthorizations,
            // Those of the checks before, which the routes answer.
            AccessError::UntrustedProxy
            | AccessError::NoForwardedClient
            | AccessError::BadForwardedClient
            | AccessError::ConflictingClients
            | AccessError::Misdirected
            | AccessError::CrossSite
            | AccessError::ExpiredCertificate
            | AccessError::FutureCertificate
            | AccessError::UntrustedCertificate => GatewayRefusal::ForbiddenAccount,
        }
    }
}

impl GatewayRefusal {
    /// The error code, for metrics and the limit of log lines.
    pub(crate) fn code(self) -> &'static str {
        match self {
            GatewayRefusal::BadPath => "gateway_bad_path",
            GatewayRefusal::NoSuchPath => "not_found",
            GatewayRefusal::MakesTokens | GatewayRefusal::SignedWithToken => "gateway_not_passed",
            GatewayRefusal::AmbiguousToken
            | GatewayRefusal::AmbiguousAccount
            | GatewayRefusal::SeveralAuthorizations => "bad_request",
            GatewayRefusal::KeyInQuery => "gateway_key_in_query",
            GatewayRefusal::UnknownKey
            | GatewayRefusal::NoToken
            | GatewayRefusal::NotLocal
            | GatewayRefusal::ForeignWithoutKey => "unauthorized",
            GatewayRefusal::UnknownToken => "gateway_unknown_token",
            GatewayRefusal::ForbiddenAccount => "forbidden_account",
            GatewayRefusal::NoSuchAccount => "no_such_account",
            GatewayRefusal::WhichAccount => "which_account",
            GatewayRefusal::Administration | GatewayRefusal::ForbiddenApi => "forbidden_api",
        }
    }

    /// Returns what a log line says of the client, for refusals that an operator wants to see; `None` for the others.
    pub(crate) fn log_line(self) -> Option<&'static str> {
        Some(match self {
            GatewayRefusal::BadPath => bilingual!(
                "it asked for a path in a form that is not passed on",
                "它请求的路径形式不予转发"
            ),
            GatewayRefusal::KeyInQuery => bilingual!(
                "it sent a key in a query, where proxies and logs may keep it: make a new one",
                "它把访问密钥放在查询参数里，可能被代理和日志记录：请更换该访问密钥"
            ),
            GatewayRefusal::UnknownKey => bilingual!(
                "it showed a key that is not in the keys file",
                "访问密钥文件里没有它的访问密钥"
            ),
            GatewayRefusal::UnknownToken => bilingual!(
                "it sent an access_token that is not handed out to it, or not any more",
                "它携带的 access_token 不是发给它的，或已停用"
            ),
            GatewayRefusal::ForbiddenAccount => bilingual!(
                "not in the allow of the account whose token it sent",
                "不在其 token 所属账号的 allow 中"
            ),
            GatewayRefusal::Administration => bilingual!(
                "it called an API of administration, which no key of its own names",
                "它调用了管理类接口，而其访问密钥未写明该路径"
            ),
            GatewayRefusal::ForbiddenApi => bilingual!(
                "it called an API that its key does not name",
                "它调用的接口不在其访问密钥指定的范围内"
            ),
            _ => return None,
        })
    }

    /// WeChat's errcode for the reason that is nearest.
    pub(crate) fn errcode(self) -> i64 {
        match self {
            GatewayRefusal::BadPath | GatewayRefusal::NoSuchPath => 40066,
            GatewayRefusal::MakesTokens
            | GatewayRefusal::SignedWithToken
            | GatewayRefusal::Administration
            | GatewayRefusal::ForbiddenApi => 48001,
            GatewayRefusal::AmbiguousToken
            | GatewayRefusal::AmbiguousAccount
            | GatewayRefusal::SeveralAuthorizations => 40035,
            GatewayRefusal::KeyInQuery
            | GatewayRefusal::UnknownKey
            | GatewayRefusal::NoToken
            | GatewayRefusal::ForeignWithoutKey
            | GatewayRefusal::UnknownToken => 40125,
            GatewayRefusal::NotLocal | GatewayRefusal::ForbiddenAccount => 40164,
            GatewayRefusal::NoSuchAccount | GatewayRefusal::WhichAccount => 40013,
        }
    }

    /// WeChat's own words for the errcode, with which the message begins.
    fn words(self, client: Peer) -> Cow<'static, str> {
        Cow::Borrowed(match self.errcode() {
            40066 => "invalid url",
            48001 => "api unauthorized",
            40035 => "invalid parameter",
            40125 => "invalid appsecret",
            40013 => "invalid appid",
            _ => return Cow::Owned(format!("invalid ip {client}, not in whitelist")),
        })
    }

    /// What to do and why, in both languages.
    fn text(self) -> &'static str {
        match self {
            GatewayRefusal::BadPath => bilingual!(
                "Ask for the path as WeChat documents it: this one has a character or a form that no API of WeChat has, such \
                 as %, //, /., ; or a slash at its end.",
                "请按微信文档填写路径：当前路径含有微信接口没有的字符或形式，如 %、//、/.、; 或末尾的斜杠。"
            ),
            GatewayRefusal::NoSuchPath => bilingual!(
                "Ask for a path of WeChat's API, such as /cgi-bin/menu/get, also behind /gateway/ACCOUNT: the gateway passes \
                 on no other.",
                "请使用微信接口的路径，如 /cgi-bin/menu/get，前面可加 /gateway/ACCOUNT：网关不转发其他路径。"
            ),
            GatewayRefusal::MakesTokens => bilingual!(
                "Ask this server for the token, at /cgi-bin/token, stable_token or gettoken, and WeChat for one of another \
                 account: a call that makes a token or takes a secret is not passed on.",
                "请向本服务器的 /cgi-bin/token、stable_token 或 gettoken 领取 token，其他账号的请向微信获取：获取 token 或需要 \
                 AppSecret 的接口不予转发。"
            ),
            GatewayRefusal::SignedWithToken => bilingual!(
                "Send the call to WeChat directly: it is signed with the token, which the gateway cannot replace.",
                "请直接请求微信：该接口用 token 签名，网关无法替换。"
            ),
            GatewayRefusal::AmbiguousToken => bilingual!(
                "Send access_token once: the query has more than one token, or access_token in capitals.",
                "请只携带一个 access_token：查询参数里有多个 token，或使用了大写。"
            ),
            GatewayRefusal::AmbiguousAccount => bilingual!(
                "Send from_appid once: the query has it more than once.",
                "请只携带一个 from_appid：查询参数里有多个。"
            ),
            GatewayRefusal::SeveralAuthorizations => bilingual!(
                "Send one Authorization header: the request has more than one.",
                "请只发送一个 Authorization 请求头：当前有多个。"
            ),
            GatewayRefusal::KeyInQuery => bilingual!(
                "Send the key as Authorization: Bearer KEY: a key of wxtoken stands in the query, and is not passed on to \
                 WeChat.",
                "请用请求头 Authorization: Bearer 访问密钥：wxtoken 的访问密钥出现在查询参数里，不会转发给微信。"
            ),
            GatewayRefusal::UnknownKey => bilingual!(
                "Send the key as `wxtoken key` made it, or get a new one: this one is not in the server's keys file.",
                "请核对访问密钥是否完整，或重新生成：服务器的访问密钥文件里没有它。"
            ),
            GatewayRefusal::NoToken => bilingual!(
                "Send Authorization: Bearer KEY: the call has neither an access_token nor a key. On the server, `wxtoken key \
                 NAME` makes one.",
                "请携带请求头 Authorization: Bearer 访问密钥：请求既无 access_token 也无访问密钥，可在服务器上用 `wxtoken key \
                 NAME` 生成。"
            ),
            GatewayRefusal::NotLocal => bilingual!(
                "Send a key, which `wxtoken key NAME` makes on the server: a call without an access_token needs one, except \
                 from the server itself.",
                "请携带访问密钥，可在服务器上用 `wxtoken key NAME` 生成：除服务器本机外，不带 access_token 的请求需要它。"
            ),
            GatewayRefusal::ForeignWithoutKey => bilingual!(
                "Send Authorization: Bearer KEY, or make the call to WeChat directly: its token is none of this server's, so \
                 a key is needed.",
                "请携带请求头 Authorization: Bearer 访问密钥，或直接请求微信：请求中的 token 不由本服务器管理，需要访问密钥。"
            ),
            GatewayRefusal::UnknownToken => bilingual!(
                "Ask for the access_token again at /cgi-bin/token of this server, or send Authorization: Bearer KEY instead: \
                 this one is not handed out to you, or not any more.",
                "请重新向本服务器的 /cgi-bin/token 领取 access_token，或改用请求头 Authorization: Bearer 访问密钥：\
                 该 access_token 不是发给您的，或已停用。"
            ),
            GatewayRefusal::ForbiddenAccount => bilingual!(
                "On the server, add your address to the account's allow: it is not allowed to use this account.",
                "请在服务器上把您的地址加入该账号的 allow：您的地址无权使用该账号。"
            ),
            GatewayRefusal::NoSuchAccount => bilingual!(
                "Check the account's name, and which accounts the key is for: there is no such account for you here. \
                 `wxtoken status` on the server lists them.",
                "请核对账号名，以及访问密钥适用的账号：此处没有您可用的该账号。服务器上的 `wxtoken status` 会列出所有账号。"
            ),
            GatewayRefusal::WhichAccount => bilingual!(
                "Name the account, by from_appid=APPID in the query or /gateway/ACCOUNT before the path: there are several \
                 accounts here.",
                "请指明账号：在查询参数中加 from_appid=APPID，或在路径前加 /gateway/ACCOUNT：此处有多个账号。"
            ),
            GatewayRefusal::Administration => bilingual!(
                "Use a key that names this path, made by `wxtoken key --apis PATH NAME` on the server: the call deletes, \
                 resets, pays or cannot be called back.",
                "请使用写明该路径的访问密钥，在服务器上用 `wxtoken key --apis PATH NAME` 生成：该接口会删除、重置、付款或不可撤回。"
            ),
            GatewayRefusal::ForbiddenApi => bilingual!(
                "On the server, add the path to the key's line in the keys file: your key is for other APIs.",
                "请在服务器上把该路径加入访问密钥文件中您的那一行：您的访问密钥只能调用其他接口。"
            ),
        }
    }

    /// The message for people: WeChat's own words, then what to do, and nothing about this machine.
    pub(crate) fn message(self, client: Peer) -> String {
        format!("{}: {} (wxtoken, to {client})", self.words(client), self.text())
    }

    /// Returns the body of the refusal, which WeChat sends with HTTP status 200.
    pub(crate) fn body(self, client: Peer) -> Bytes {
        let body = serde_json::json!({"errcode": self.errcode(), "errmsg": self.message(client)});
        body.to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use super::GatewayRefusal::*;
    use super::*;
    use crate::language::Language;

    const ALL: [GatewayRefusal; 18] = [
        BadPath,
        NoSuchPath,
        MakesTokens,
        SignedWithToken,
        AmbiguousToken,
        AmbiguousAccount,
        KeyInQuery,
        SeveralAuthorizations,
        UnknownKey,
        NoToken,
        NotLocal,
        ForeignWithoutKey,
        UnknownToken,
        ForbiddenAccount,
        NoSuchAccount,
        WhichAccount,
        Administration,
        ForbiddenApi,
    ];

    #[test]
    fn no_refusal_has_an_errcode_after_which_an_sdk_repeats_the_call() {
        for refusal in ALL {
            let body = refusal.body(Peer::Ip([203, 0, 113, 7].into()));
            let json: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            assert!(json["errcode"].as_i64().is_some_and(|code| code > 0), "{json}");
            let text = json.to_string();
            for code in ["40001", "40014", "42001"] {
                assert!(!text.contains(code), "{text}");
            }
            assert!(text.contains("203.0.113.7"), "the caller's address: {text}");
        }
    }

    #[test]
    fn every_refusal_says_what_to_do_in_either_language_at_a_glance() {
        for refusal in ALL {
            for language in [Language::English, Language::Chinese] {
                let text = language.resolve(refusal.text());
                assert!(text.chars().count() <= 200, "{text}");
                assert!(text.ends_with(['.', '。']), "{text}");
            }
            assert!(refusal.words(Peer::Unix).is_ascii());
        }
    }
}
