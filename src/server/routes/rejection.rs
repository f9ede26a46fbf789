//! Why a request is refused: the HTTP status, the error code and the message of each reason. Programs and people rely on
//! all three.

use std::borrow::Cow;
use std::net::IpAddr;

use hyper::StatusCode;

use crate::language::in_both;
use crate::model::kind::TicketType;
use crate::model::status::Unavailable;
use crate::server::access::AccessError;
use crate::server::limits::{MAX_BODY, MAX_HEAD, REQUEST_TIMEOUT};

pub(crate) mod text;

/// WeChat's errcode for calls that are too frequent.
pub(crate) const TOO_FREQUENT: i64 = 45011;

/// How a client without a key is asked for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// For programs.
    Bearer,
    /// For browsers, which ask their user for a name and a password.
    Basic,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// Not HTTP, or ambiguous HTTP; the text says which.
    BadRequest(&'static str),
    /// The client's address is not allowed.
    Forbidden(IpAddr),
    /// The client's address has this many connections, which is its share.
    TooManyConnections(IpAddr, usize),
    /// A proxy forwarded it, and the client is unknown; the text says why.
    Forwarded(&'static str),
    /// The client's certificate does not hold any more; the text says why.
    Certificate(&'static str),
    /// There is no key, or an unknown one; the text says which.
    Unauthorized(&'static str, Challenge),
    /// It names another host than this server.
    Misdirected,
    /// A page of another site makes a browser send it.
    CrossSite,
    /// The body is larger than any route takes.
    BodyTooLarge,
    /// The head is larger than the server reads.
    HeadTooLarge,
    /// It did not arrive in time.
    RequestTimeout,
    NotFound,
    NoSuchAccount,
    /// The request names no account, and there are several.
    WhichAccount,
    /// The client's address is not allowed to have this account's token.
    ForbiddenAccount(IpAddr),
    /// The client's key is for some APIs only, and this is not one of them.
    ForbiddenApi,
    /// The method is not one of these.
    MethodNotAllowed(&'static str),
    /// The same, for a report of a rejected token to a server that does not refresh.
    CannotReplace(&'static str),
    /// It comes from this server itself, or from a mirror that has its tokens from here.
    Loop,
    NoToken(Unavailable),
    NoTicket(Unavailable),
    /// There is no token or ticket, and the client keeps asking for it without a pause.
    TooFrequent(Unavailable),
    /// The account of this name has no tickets of this type.
    NoSuchTicket(String, TicketType),
    /// These accounts have no live token; empty if the client must not learn their names.
    NotReady(Vec<String>),
    /// A refusal that only WeChat's own routes have: an errcode, WeChat's words for it, and what to do.
    WeChat(i64, &'static str, &'static str),
}

impl From<AccessError> for Rejection {
    fn from(err: AccessError) -> Rejection {
        match err {
            AccessError::UntrustedProxy => Rejection::Forwarded(text::UNTRUSTED_PROXY),
            AccessError::NoForwardedClient => Rejection::Forwarded(text::NO_FORWARDED_CLIENT),
            AccessError::BadForwardedClient => Rejection::Forwarded(text::BAD_FORWARDED_CLIENT),
            AccessError::ConflictingClients => Rejection::Forwarded(text::CONFLICTING_CLIENTS),
            AccessError::Misdirected => Rejection::Misdirected,
            AccessError::CrossSite => Rejection::CrossSite,
            AccessError::ExpiredCertificate => Rejection::Certificate(text::EXPIRED_CERTIFICATE),
            AccessError::FutureCertificate => Rejection::Certificate(text::FUTURE_CERTIFICATE),
            AccessError::UntrustedCertificate => {
                Rejection::Certificate(text::UNTRUSTED_CERTIFICATE)
            }
            AccessError::SeveralAuthorizations => {
                Rejection::BadRequest(text::SEVERAL_AUTHORIZATIONS)
            }
            AccessError::NoSuchAccount => Rejection::NoSuchAccount,
            AccessError::AmbiguousAccount => Rejection::WhichAccount,
        }
    }
}

impl Rejection {
    /// The HTTP status.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Rejection::BadRequest(_) => StatusCode::BAD_REQUEST,
            Rejection::Unauthorized(..) => StatusCode::UNAUTHORIZED,
            Rejection::Forbidden(_)
            | Rejection::Forwarded(_)
            | Rejection::Certificate(_)
            | Rejection::CrossSite
            | Rejection::ForbiddenApi
            | Rejection::ForbiddenAccount(_) => StatusCode::FORBIDDEN,
            Rejection::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Rejection::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Rejection::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Rejection::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Rejection::NotFound
            | Rejection::NoSuchAccount
            | Rejection::WhichAccount
            | Rejection::NoSuchTicket(..) => StatusCode::NOT_FOUND,
            Rejection::MethodNotAllowed(_) | Rejection::CannotReplace(_) => {
                StatusCode::METHOD_NOT_ALLOWED
            }
            Rejection::NoToken(_)
            | Rejection::NoTicket(_)
            | Rejection::TooFrequent(_)
            | Rejection::NotReady(_)
            | Rejection::TooManyConnections(..) => StatusCode::SERVICE_UNAVAILABLE,
            Rejection::Loop => StatusCode::LOOP_DETECTED,
            Rejection::WeChat(..) => StatusCode::OK,
        }
    }

    /// Whether the connection is closed after it.
    pub(crate) fn closes(&self) -> bool {
        match self {
            Rejection::BadRequest(_) | Rejection::Forbidden(_) | Rejection::Forwarded(_) => true,
            Rejection::Certificate(_) | Rejection::TooManyConnections(..) => true,
            Rejection::BodyTooLarge | Rejection::HeadTooLarge | Rejection::RequestTimeout => true,
            Rejection::Unauthorized(..)
            | Rejection::Misdirected
            | Rejection::CrossSite
            | Rejection::ForbiddenAccount(_)
            | Rejection::ForbiddenApi
            | Rejection::MethodNotAllowed(_)
            | Rejection::CannotReplace(_)
            | Rejection::Loop
            | Rejection::NoToken(_)
            | Rejection::NoTicket(_)
            | Rejection::TooFrequent(_)
            | Rejection::NoSuchTicket(..)
            | Rejection::NotReady(_)
            | Rejection::WeChat(..) => false,
            Rejection::NotFound | Rejection::NoSuchAccount | Rejection::WhichAccount => false,
        }
    }

    /// The error code, for programs and metrics.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Rejection::BadRequest(_) => "bad_request",
            Rejection::Forbidden(_) => "forbidden",
            Rejection::ForbiddenAccount(_) => "forbidden_account",
            Rejection::TooManyConnections(..) => "too_many_connections",
            Rejection::ForbiddenApi => "forbidden_api",
            Rejection::Forwarded(_) => "forwarded",
            Rejection::Certificate(_) => "certificate",
            Rejection::Unauthorized(..) => "unauthorized",
            Rejection::Misdirected => "misdirected",
            Rejection::CrossSite => "cross_site",
            Rejection::BodyTooLarge => "body_too_large",
            Rejection::HeadTooLarge => "head_too_large",
            Rejection::RequestTimeout => "request_timeout",
            Rejection::NotFound => "not_found",
            Rejection::NoSuchAccount => "no_such_account",
            Rejection::WhichAccount => "which_account",
            Rejection::MethodNotAllowed(_) | Rejection::CannotReplace(_) => "method_not_allowed",
            Rejection::Loop => "loop",
            Rejection::NoToken(_) => "no_token",
            Rejection::NoTicket(_) => "no_ticket",
            Rejection::NoSuchTicket(..) => "no_such_ticket",
            Rejection::NotReady(_) => "not_ready",
            Rejection::TooFrequent(_) | Rejection::WeChat(TOO_FREQUENT, ..) => "calm_down",
            Rejection::WeChat(..) => "bad_request",
        }
    }

    /// The message for people, in both languages: what to do, then why, and nothing about this machine.
    pub(crate) fn message(&self) -> Cow<'_, str> {
        Cow::Owned(match self {
            Rejection::BadRequest(what)
            | Rejection::Forwarded(what)
            | Rejection::Certificate(what)
            | Rejection::Unauthorized(what, _)
            | Rejection::WeChat(_, _, what) => return Cow::Borrowed(what),
            Rejection::NoToken(unavailable)
            | Rejection::NoTicket(unavailable)
            | Rejection::TooFrequent(unavailable) => return Cow::Borrowed(&unavailable.why),
            Rejection::ForbiddenApi => return Cow::Borrowed(text::FORBIDDEN_API),
            Rejection::Loop => return Cow::Borrowed(text::MIRROR_OF_ITSELF),
            Rejection::Misdirected => return Cow::Borrowed(text::MISDIRECTED),
            Rejection::CrossSite => return Cow::Borrowed(text::CROSS_SITE),
            Rejection::NotFound => return Cow::Borrowed(text::NO_SUCH_PATH),
            Rejection::NoSuchAccount => return Cow::Borrowed(text::NO_SUCH_ACCOUNT),
            Rejection::WhichAccount => return Cow::Borrowed(text::WHICH_ACCOUNT),
            Rejection::CannotReplace(_) => return Cow::Borrowed(text::CANNOT_REPLACE),
            Rejection::NotReady(accounts) if accounts.is_empty() => {
                return Cow::Borrowed(text::NOT_READY);
            }
            Rejection::Forbidden(address) => in_both(
                format!(
                    "On the server, add {address} to serve's --allow: your address {address} is not allowed here."
                ),
                format!(
                    "请在服务器上把 {address} 加入 serve 的 --allow：您的地址 {address} 不在白名单中。"
                ),
            ),
            Rejection::ForbiddenAccount(address) => in_both(
                format!(
                    "On the server, add {address} to the account's allow: your address {address} is not allowed to have \
                     this account's token."
                ),
                format!(
                    "请在服务器上把 {address} 加入该账号的 allow：您的地址 {address} 无权领取该账号的 token。"
                ),
            ),
            Rejection::TooManyConnections(address, share) => in_both(
                format!(
                    "Keep and reuse fewer connections, raise serve's --max-connections, or name a proxy in its \
                     --trusted-proxy: your address {address} has {share}, as many as one address can hold."
                ),
                format!(
                    "请减少并复用连接，或调大 serve 的 --max-connections，或在 --trusted-proxy 中加入代理：您的地址 {address} \
                     已有 {share} 个连接，达到单个地址的上限。"
                ),
            ),
            Rejection::BodyTooLarge => in_both(
                format!("Send a smaller body: it is larger than {} KiB.", MAX_BODY / 1024),
                format!("请减小请求体：已超过 {} KiB。", MAX_BODY / 1024),
            ),
            Rejection::HeadTooLarge => in_both(
                format!(
                    "Send fewer or shorter headers: the request line and headers are larger than {} KiB.",
                    MAX_HEAD / 1024
                ),
                format!("请减少或缩短请求头：请求行与请求头超过 {} KiB。", MAX_HEAD / 1024),
            ),
            Rejection::RequestTimeout => in_both(
                format!(
                    "Send the request at once: it did not arrive within {} seconds.",
                    REQUEST_TIMEOUT.as_secs()
                ),
                format!("请一次性发送请求：{} 秒内未收到完整的请求。", REQUEST_TIMEOUT.as_secs()),
            ),
            Rejection::MethodNotAllowed(allowed) => in_both(
                format!("Use one of the methods {allowed}: this path takes no other."),
                format!("请使用 {allowed} 方法：该路径不支持其他方法。"),
            ),
            Rejection::NoSuchTicket(account, kind) => in_both(
                format!(
                    "On the server, put \"{kind}\" into tickets = […] of [account.{account}] in the config: no {kind} \
                     tickets of the account {account} are kept here."
                ),
                format!(
                    "请在服务器配置 [account.{account}] 的 tickets 中加上 \"{kind}\"：服务器未保存该账号的 {kind} ticket。"
                ),
            ),
            Rejection::NotReady(accounts) => in_both(
                format!(
                    "Run `wxtoken status` on the server to see why: no live token for {}.",
                    accounts.join(", ")
                ),
                format!(
                    "请在服务器上运行 `wxtoken status` 查看原因：{} 没有可用的 token。",
                    accounts.join("、")
                ),
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Language;

    /// The longest message in one language, in characters.
    const MAX_MESSAGE: usize = 200;

    /// A rejection of each kind whose message is composed.
    fn composed() -> Vec<Rejection> {
        let address: IpAddr = [203, 0, 113, 254].into();
        vec![
            Rejection::Forbidden(address),
            Rejection::ForbiddenAccount(address),
            Rejection::TooManyConnections(address, 256),
            Rejection::BodyTooLarge,
            Rejection::HeadTooLarge,
            Rejection::RequestTimeout,
            Rejection::MethodNotAllowed("GET, HEAD, POST"),
            Rejection::NoSuchTicket("shop".to_owned(), TicketType::parse("wx_card").unwrap()),
            Rejection::NotReady(vec!["crm".to_owned(), "shop".to_owned()]),
        ]
    }

    #[test]
    fn every_refusal_is_a_sentence_in_either_language_that_is_read_at_once() {
        let fixed = text::ALL.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        let composed = composed().into_iter().map(|it| {
            let message = it.message().into_owned();
            (format!("{it:?}"), message)
        });
        for (name, message) in fixed.chain(composed) {
            let english = Language::English.resolve(&message);
            let chinese = Language::Chinese.resolve(&message);
            assert!(english.is_ascii() || english.contains(['…', '"']), "{name}: {english}");
            assert!(english.ends_with('.') && chinese.ends_with('。'), "{name}: {message}");
            for text in [english, chinese] {
                assert!(text.chars().count() <= MAX_MESSAGE, "{name}: {text}");
            }
        }
    }

    #[test]
    fn a_limit_is_named_in_a_unit_for_people() {
        for (rejection, limit) in [
            (Rejection::BodyTooLarge, "larger than 16 KiB."),
            (Rejection::HeadTooLarge, "larger than 8 KiB."),
            (Rejection::RequestTimeout, "within 10 seconds."),
        ] {
            assert!(rejection.message().contains(limit), "{}", rejection.message());
        }
    }
}
