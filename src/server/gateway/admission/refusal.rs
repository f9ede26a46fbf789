//! Why a request is not passed on to WeChat, in WeChat's form, which SDKs read.
//!
//! Some SDKs repeat a call without end after 40001, 40014 or 42001, and others after -1: none of these is used.

use std::borrow::Cow;

use hyper::body::Bytes;

use super::text;
use crate::message::Message;
use crate::server::access::AccessError;
use crate::server::access::peer::Peer;
use crate::server::state::log_messages;

/// Why a request is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GatewayRefusal {
    /// The path can be read in two ways.
    BadPath,
    /// The path is none of WeChat's, as far as can be seen.
    NoSuchPath,
    /// The API makes tokens or takes a secret.
    MakesTokens,
    /// The API answers with earlier requests, whichever client made them.
    ShowsRequests,
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
    /// The key comes as browsers send it, by themselves, whichever site's page leads them here.
    BasicKey,
    /// There is neither a token nor a key.
    NoToken,
    /// There is no token, keys are not in use, and the client is on another host.
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
            GatewayRefusal::MakesTokens
            | GatewayRefusal::ShowsRequests
            | GatewayRefusal::SignedWithToken => "gateway_not_passed",
            GatewayRefusal::AmbiguousToken
            | GatewayRefusal::AmbiguousAccount
            | GatewayRefusal::SeveralAuthorizations => "bad_request",
            GatewayRefusal::KeyInQuery => "gateway_key_in_query",
            GatewayRefusal::UnknownKey
            | GatewayRefusal::BasicKey
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
    pub(crate) fn log_line(self) -> Option<&'static Message<0>> {
        Some(match self {
            GatewayRefusal::BadPath => &log_messages::BAD_PATH,
            GatewayRefusal::KeyInQuery => &log_messages::KEY_IN_QUERY,
            GatewayRefusal::UnknownKey => &log_messages::UNKNOWN_KEY,
            GatewayRefusal::UnknownToken => &log_messages::UNKNOWN_TOKEN,
            GatewayRefusal::ForbiddenAccount => &log_messages::FORBIDDEN_ACCOUNT_OF_CALL,
            GatewayRefusal::NoSuchAccount => &log_messages::NO_SUCH_ACCOUNT_OF_CALL,
            GatewayRefusal::Administration => &log_messages::ADMINISTRATION,
            GatewayRefusal::ForbiddenApi => &log_messages::FORBIDDEN_API,
            _ => return None,
        })
    }

    /// WeChat's errcode for the reason that is nearest.
    pub(crate) fn errcode(self) -> i64 {
        match self {
            GatewayRefusal::BadPath | GatewayRefusal::NoSuchPath => 40066,
            GatewayRefusal::MakesTokens
            | GatewayRefusal::ShowsRequests
            | GatewayRefusal::SignedWithToken
            | GatewayRefusal::Administration
            | GatewayRefusal::ForbiddenApi => 48001,
            GatewayRefusal::AmbiguousToken
            | GatewayRefusal::AmbiguousAccount
            | GatewayRefusal::SeveralAuthorizations => 40035,
            GatewayRefusal::KeyInQuery
            | GatewayRefusal::UnknownKey
            | GatewayRefusal::BasicKey
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
            GatewayRefusal::BadPath => text::BAD_PATH,
            GatewayRefusal::NoSuchPath => text::NO_SUCH_PATH,
            GatewayRefusal::MakesTokens => text::MAKES_TOKENS,
            GatewayRefusal::ShowsRequests => text::SHOWS_REQUESTS,
            GatewayRefusal::SignedWithToken => text::SIGNED_WITH_TOKEN,
            GatewayRefusal::AmbiguousToken => text::AMBIGUOUS_TOKEN,
            GatewayRefusal::AmbiguousAccount => text::AMBIGUOUS_ACCOUNT,
            GatewayRefusal::SeveralAuthorizations => text::SEVERAL_AUTHORIZATIONS,
            GatewayRefusal::KeyInQuery => text::KEY_IN_QUERY,
            GatewayRefusal::UnknownKey => text::UNKNOWN_KEY,
            GatewayRefusal::BasicKey => text::BASIC_KEY,
            GatewayRefusal::NoToken => text::NO_TOKEN,
            GatewayRefusal::NotLocal => text::NOT_LOCAL,
            GatewayRefusal::ForeignWithoutKey => text::FOREIGN_WITHOUT_KEY,
            GatewayRefusal::UnknownToken => text::UNKNOWN_TOKEN,
            GatewayRefusal::ForbiddenAccount => text::FORBIDDEN_ACCOUNT,
            GatewayRefusal::NoSuchAccount => text::NO_SUCH_ACCOUNT,
            GatewayRefusal::WhichAccount => text::WHICH_ACCOUNT,
            GatewayRefusal::Administration => text::ADMINISTRATION,
            GatewayRefusal::ForbiddenApi => text::FORBIDDEN_API,
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

    const ALL: [GatewayRefusal; 20] = [
        BadPath,
        NoSuchPath,
        MakesTokens,
        ShowsRequests,
        SignedWithToken,
        AmbiguousToken,
        AmbiguousAccount,
        KeyInQuery,
        SeveralAuthorizations,
        UnknownKey,
        BasicKey,
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
