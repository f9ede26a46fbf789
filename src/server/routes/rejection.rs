//! Why a request is refused: the HTTP status, the error code and the message of each reason. Programs and people rely on
//! all three.

use std::borrow::Cow;
use std::net::IpAddr;

use hyper::StatusCode;

use crate::message::listed;
use crate::model::kind::TicketType;
use crate::model::status::Unavailable;
use crate::server::access::AccessError;
use crate::server::limits::{MAX_BODY, MAX_HEAD, REQUEST_TIMEOUT};

pub(crate) mod messages;
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
    /// A token was reported as rejected to a server that does not refresh. The methods that it has are these.
    CannotReplace(&'static str),
    /// It comes from this server itself, or from a mirror that has its tokens from here.
    Loop,
    NoToken(Unavailable),
    NoTicket(Unavailable),
    /// There is no token or ticket, and the client keeps asking for it without a pause.
    TooFrequent(Unavailable),
    /// The account of this name has no tickets of this type.
    NoSuchTicket(String, TicketType),
    /// The API of the account of this name has tickets of these types only.
    UnknownTicket(String, &'static [&'static str]),
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
            | Rejection::NoSuchTicket(..)
            | Rejection::UnknownTicket(..) => StatusCode::NOT_FOUND,
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
            | Rejection::UnknownTicket(..)
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
            Rejection::NoSuchTicket(..) | Rejection::UnknownTicket(..) => "no_such_ticket",
            Rejection::NotReady(_) => "not_ready",
            Rejection::TooFrequent(_) | Rejection::WeChat(TOO_FREQUENT, ..) => "too_many_requests",
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
            Rejection::Forbidden(address) => messages::FORBIDDEN.sentence([address]),
            Rejection::ForbiddenAccount(address) => messages::FORBIDDEN_ACCOUNT.sentence([address]),
            Rejection::TooManyConnections(address, share) => {
                messages::TOO_MANY_CONNECTIONS.sentence([address, share])
            }
            Rejection::BodyTooLarge => messages::BODY_TOO_LARGE.sentence([&(MAX_BODY / 1024)]),
            Rejection::HeadTooLarge => messages::HEAD_TOO_LARGE.sentence([&(MAX_HEAD / 1024)]),
            Rejection::RequestTimeout => {
                messages::REQUEST_TIMEOUT.sentence([&REQUEST_TIMEOUT.as_secs()])
            }
            Rejection::MethodNotAllowed(allowed) => messages::METHOD_NOT_ALLOWED
                .sentence([&listed(&allowed.split(", ").collect::<Vec<_>>(), usize::MAX)]),
            Rejection::NoSuchTicket(account, kind) => {
                messages::NO_SUCH_TICKET.sentence([account, kind])
            }
            Rejection::UnknownTicket(account, types) => {
                messages::UNKNOWN_TICKET.sentence([&listed(types, types.len()), account])
            }
            Rejection::NotReady(accounts) => {
                messages::NOT_READY.sentence([&listed(accounts, accounts.len())])
            }
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
            Rejection::UnknownTicket("shop".to_owned(), &["jsapi", "wx_card"]),
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
            (Rejection::BodyTooLarge, "larger than 16 KiB"),
            (Rejection::HeadTooLarge, "larger than 8 KiB"),
            (Rejection::RequestTimeout, "within 10 seconds"),
        ] {
            assert!(rejection.message().contains(limit), "{}", rejection.message());
        }
    }
}
