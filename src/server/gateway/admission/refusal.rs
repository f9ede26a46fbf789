//! Why a request is not passed on to WeChat, in WeChat's form, which SDKs read.
//!
//! Some SDKs repeat a call without end after 40001, 40014 or 42001, so these are never used, and after -1 others do.

use std::borrow::Cow;

use hyper::body::Bytes;

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
            GatewayRefusal::BadPath => "it asked for a path in a form that is not passed on",
            GatewayRefusal::KeyInQuery => {
                "it sent a key in a query, where proxies and logs may keep it: make a new one"
            }
            GatewayRefusal::UnknownKey => "it showed a key that is not in the keys file",
            GatewayRefusal::UnknownToken => {
                "it sent an access_token that is not handed out to it, or not any more"
            }
            GatewayRefusal::ForbiddenAccount => {
                "not in the allow of the account whose token it sent"
            }
            GatewayRefusal::Administration => {
                "it called an API of administration, which no key of its own names"
            }
            GatewayRefusal::ForbiddenApi => "it called an API that its key does not name",
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

    /// The message for people: what to do, and nothing about this machine. It begins with WeChat's own words.
    pub(crate) fn message(self, client: Peer) -> Cow<'static, str> {
        let why = match self {
            GatewayRefusal::BadPath => {
                "invalid url: the path has a character or a form that no API of WeChat has, such as %, //, /., ; or a slash \
                 at its end"
            }
            GatewayRefusal::NoSuchPath => {
                "invalid url: the gateway passes on paths of WeChat's API, such as /cgi-bin/menu/get, also behind \
                 /gateway/ACCOUNT"
            }
            GatewayRefusal::MakesTokens => {
                "api unauthorized: this call makes a token or takes a secret, and is not passed on; ask for the token at \
                 /cgi-bin/token, /cgi-bin/stable_token or /cgi-bin/gettoken of this server"
            }
            GatewayRefusal::SignedWithToken => {
                "api unauthorized: this call is signed with the token, which the gateway cannot replace; send it to WeChat \
                 directly"
            }
            GatewayRefusal::AmbiguousToken => {
                "invalid parameter: the query has more than one token, or access_token in capitals; send access_token once"
            }
            GatewayRefusal::AmbiguousAccount => {
                "invalid parameter: the query has from_appid more than once"
            }
            GatewayRefusal::SeveralAuthorizations => {
                "invalid parameter: the request has more than one Authorization header; send one"
            }
            GatewayRefusal::KeyInQuery => {
                "invalid appsecret: a key of wxtoken stands in the query and is not passed on to WeChat; send it as \
                 Authorization: Bearer KEY"
            }
            GatewayRefusal::UnknownKey => {
                "invalid appsecret: this key is not in the server's keys file; was it copied whole, and was it taken out?"
            }
            GatewayRefusal::NoToken => {
                "invalid appsecret: the call has neither an access_token nor a key; send Authorization: Bearer KEY; on the \
                 server, `wxtoken key NAME` makes one"
            }
            GatewayRefusal::NotLocal => {
                return Cow::Owned(format!(
                    "invalid ip {client}, not in whitelist: a call without an access_token needs a key, except from the \
                     server itself; on the server, `wxtoken key NAME` makes one"
                ));
            }
            GatewayRefusal::ForeignWithoutKey => {
                "invalid appsecret: the token of this call is none of this server's, so a key is needed; send \
                 Authorization: Bearer KEY, or make the call to WeChat directly"
            }
            GatewayRefusal::UnknownToken => {
                "invalid appsecret: this access_token is none that this server hands out to you, or not any more; ask \
                 for it again at /cgi-bin/token of this server, or send the call without a token and with Authorization: \
                 Bearer KEY"
            }
            GatewayRefusal::ForbiddenAccount => {
                return Cow::Owned(format!(
                    "invalid ip {client}, not in whitelist: your address is not allowed to use this account; on the \
                     server, add it to the account's allow"
                ));
            }
            GatewayRefusal::NoSuchAccount => {
                "invalid appid: no account of this name here, or the key is for others; `wxtoken status` on the server lists them"
            }
            GatewayRefusal::WhichAccount => {
                "invalid appid: there are several accounts here; name one: from_appid=APPID in the query, or \
                 /gateway/ACCOUNT before the path"
            }
            GatewayRefusal::Administration => {
                "api unauthorized: this call deletes, resets, pays or cannot be called back; it needs a key that names \
                 its path: on the server, `wxtoken key --apis PATH NAME`"
            }
            GatewayRefusal::ForbiddenApi => {
                "api unauthorized: your key is for other APIs; on the server, add the path to the key's line in the keys \
                 file"
            }
        };
        Cow::Owned(format!("{why} (wxtoken, to {client})"))
    }

    /// Returns the body of the refusal, which WeChat sends with HTTP status 200.
    pub(crate) fn body(self, client: Peer) -> Bytes {
        let body = serde_json::json!({"errcode": self.errcode(), "errmsg": self.message(client)});
        body.to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_refusal_has_an_errcode_after_which_an_sdk_repeats_the_call() {
        use GatewayRefusal::*;
        for refusal in [
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
        ] {
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
}
