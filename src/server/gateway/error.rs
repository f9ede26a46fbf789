//! Why an admitted call has no answer of WeChat's, in WeChat's form. No errcode here makes an SDK ask for another token.

pub(super) mod text;

use std::borrow::Cow;
use std::time::Duration;

use hyper::StatusCode;
use hyper::body::Bytes;

use crate::model::status::Unavailable;

/// The largest body without a `Content-Length`, in bytes. It is read whole, because WeChat answers 412 to a chunked one; this
/// is more than any documented upload.
pub(super) const MAX_CHUNKED: usize = 24 * 1024 * 1024;

/// How long a client may pause while it sends a body.
pub(super) const BODY_GAP: Duration = Duration::from_secs(30);

/// Why an admitted call has no answer of WeChat's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GatewayError {
    /// The method cannot be passed on, or the client wants to speak something else than HTTP.
    NotHttp,
    /// The body has another transfer coding than `chunked`.
    TransferCoding,
    /// The chunked body is too large.
    BodyTooLarge,
    /// The client paused for too long.
    BodyTooSlow,
    /// The client broke off. It gets no answer.
    BodyBroken,
    /// The bodies that are being held take too much memory.
    Overloaded,
    /// Too many calls are under way.
    TooManyCalls,
    /// Too many calls of this client are under way.
    TooManyOfClient,
    /// The account's way to WeChat could not be read.
    NotConfigured,
    /// There is no token.
    NoToken(Unavailable),
    /// No server can be reached. Nothing was sent.
    Unreachable,
    /// The call has come back to the gateway that sent it.
    Loop,
    /// No answer came, and WeChat may have carried the call out.
    NoAnswer,
    /// No answer came in time, and WeChat may have carried the call out.
    NoAnswerInTime,
    /// The token was dead and has been replaced, and the body is gone.
    NotRepeated,
    /// The token may be dead and could not be replaced.
    NotReplaced(Unavailable),
}

impl GatewayError {
    /// The HTTP status. Where WeChat may have carried the call out, it makes a client's library fail as a broken connection
    /// would, and repeat nothing.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            GatewayError::NotHttp => StatusCode::NOT_IMPLEMENTED,
            GatewayError::TransferCoding => StatusCode::BAD_REQUEST,
            GatewayError::NoAnswer => StatusCode::BAD_GATEWAY,
            GatewayError::NoAnswerInTime => StatusCode::GATEWAY_TIMEOUT,
            // By which the gateway that sent it knows.
            GatewayError::Loop => StatusCode::LOOP_DETECTED,
            GatewayError::BodyTooLarge
            | GatewayError::BodyTooSlow
            | GatewayError::BodyBroken
            | GatewayError::Overloaded
            | GatewayError::TooManyCalls
            | GatewayError::TooManyOfClient
            | GatewayError::NotConfigured
            | GatewayError::NoToken(_)
            | GatewayError::Unreachable
            | GatewayError::NotRepeated
            | GatewayError::NotReplaced(_) => StatusCode::OK,
        }
    }

    /// The error code, for metrics.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            GatewayError::NotHttp => "not_http",
            GatewayError::TransferCoding => "transfer_coding",
            GatewayError::BodyTooLarge => "body_too_large",
            GatewayError::BodyTooSlow => "body_too_slow",
            GatewayError::BodyBroken => "body_broken",
            GatewayError::Overloaded => "overloaded",
            GatewayError::TooManyCalls | GatewayError::TooManyOfClient => "too_many_calls",
            GatewayError::NotConfigured => "not_configured",
            GatewayError::NoToken(_) => "no_token",
            GatewayError::Unreachable => "unreachable",
            GatewayError::Loop => "loop",
            GatewayError::NoAnswer | GatewayError::NoAnswerInTime => "no_answer",
            GatewayError::NotRepeated => "not_repeated",
            GatewayError::NotReplaced(_) => "not_replaced",
        }
    }

    /// WeChat's errcode for the reason that is nearest.
    fn errcode(&self) -> i64 {
        match self {
            GatewayError::NotHttp | GatewayError::TransferCoding => 47001,
            GatewayError::BodyTooLarge => 45002,
            // The system is busy.
            GatewayError::BodyTooSlow
            | GatewayError::BodyBroken
            | GatewayError::Overloaded
            | GatewayError::TooManyCalls
            | GatewayError::TooManyOfClient
            | GatewayError::NotConfigured
            | GatewayError::NoToken(_)
            | GatewayError::Unreachable
            | GatewayError::Loop
            | GatewayError::NoAnswer
            | GatewayError::NoAnswerInTime => -1,
            // Calls are too frequent: no SDK repeats a call after that.
            GatewayError::NotRepeated | GatewayError::NotReplaced(_) => 45011,
        }
    }

    /// WeChat's own words for the errcode, with which the message begins.
    fn words(&self) -> &'static str {
        match self.errcode() {
            47001 => "data format error",
            45002 => "content size out of limit",
            45011 => {
                "api minute-quota reach limit, must slower, retry next minute: this is the gateway"
            }
            _ => "system error",
        }
    }

    /// What to do and what happened, in both languages, and nothing about this machine.
    fn text(&self) -> Cow<'_, str> {
        Cow::Borrowed(match self {
            GatewayError::NotHttp => text::NOT_HTTP,
            GatewayError::TransferCoding => text::TRANSFER_CODING,
            GatewayError::BodyTooLarge => text::BODY_TOO_LARGE,
            GatewayError::BodyTooSlow => text::BODY_TOO_SLOW,
            GatewayError::BodyBroken => text::BODY_BROKEN,
            GatewayError::Overloaded => text::OVERLOADED,
            GatewayError::TooManyCalls => text::TOO_MANY_CALLS,
            GatewayError::TooManyOfClient => text::TOO_MANY_OF_CLIENT,
            GatewayError::NotConfigured => text::NOT_CONFIGURED,
            GatewayError::NoToken(unavailable) => {
                return Cow::Owned(text::NOT_MADE.with([&unavailable.why]));
            }
            GatewayError::Unreachable => text::UNREACHABLE,
            GatewayError::Loop => text::LOOP,
            GatewayError::NoAnswer => text::NO_ANSWER,
            GatewayError::NoAnswerInTime => text::NO_ANSWER_IN_TIME,
            GatewayError::NotRepeated => text::NOT_REPEATED,
            GatewayError::NotReplaced(unavailable) => {
                return Cow::Owned(text::TOKEN_REFUSED.with([&unavailable.why]));
            }
        })
    }

    /// Returns the body.
    pub(crate) fn body(&self) -> Bytes {
        let body = serde_json::json!({"errcode": self.errcode(), "errmsg": format!("{}: {}", self.words(), self.text())});
        body.to_string().into()
    }

    /// Whether the connection is closed after it, as the rest of the request may follow.
    pub(crate) fn closes(&self) -> bool {
        matches!(
            self,
            GatewayError::NotHttp
                | GatewayError::Loop
                | GatewayError::TransferCoding
                | GatewayError::BodyTooLarge
                | GatewayError::BodyTooSlow
                | GatewayError::BodyBroken
        )
    }
}

// The texts say so.
const _: () = assert!(MAX_CHUNKED == 24 * 1024 * 1024);

#[cfg(test)]
pub(crate) use text::{ALL, NOTES};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::{Language, bilingual};

    fn all() -> [GatewayError; 16] {
        let unavailable = || {
            Unavailable::for_now(bilingual!(
                "Wait: WeChat refuses (45009)",
                "请稍候：微信拒绝 (45009)"
            ))
        };
        [
            GatewayError::NotHttp,
            GatewayError::TransferCoding,
            GatewayError::BodyTooLarge,
            GatewayError::BodyTooSlow,
            GatewayError::BodyBroken,
            GatewayError::Overloaded,
            GatewayError::TooManyCalls,
            GatewayError::TooManyOfClient,
            GatewayError::NotConfigured,
            GatewayError::NoToken(unavailable()),
            GatewayError::Unreachable,
            GatewayError::Loop,
            GatewayError::NoAnswer,
            GatewayError::NoAnswerInTime,
            GatewayError::NotRepeated,
            GatewayError::NotReplaced(unavailable()),
        ]
    }

    #[test]
    fn every_error_says_what_to_do_in_either_language_at_a_glance() {
        for error in all() {
            let text = error.text();
            assert!(Language::English.resolve(&text).starts_with(char::is_uppercase), "{text}");
            let [english, chinese] =
                [Language::English, Language::Chinese].map(|language| language.resolve(&text));
            assert_ne!(english, chinese);
            for text in [english, chinese] {
                assert!(text.chars().count() <= 200, "{text}");
            }
        }
    }

    #[test]
    fn no_error_says_that_the_token_is_dead() {
        for error in all() {
            let text = String::from_utf8(error.body().to_vec()).unwrap();
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(json["errcode"].as_i64().is_some_and(|it| it != 0), "{text}");
            for code in ["40001", "40014", "42001"] {
                assert!(!text.contains(code), "{text}");
            }
        }
    }
}
