//! Why an admitted call has no answer of WeChat's, in WeChat's form. No errcode here makes an SDK ask for another token.

use std::borrow::Cow;
use std::time::Duration;

use hyper::StatusCode;
use hyper::body::Bytes;

use crate::language::bilingual;
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
    /// The account's way to WeChat could not be read.
    NotConfigured,
    /// There is no token.
    NoToken(Unavailable),
    /// No server can be reached. Nothing was sent.
    Unreachable,
    /// WeChat may have carried the call out.
    NoAnswer,
    /// The same, and the time was up.
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
            GatewayError::BodyTooLarge
            | GatewayError::BodyTooSlow
            | GatewayError::BodyBroken
            | GatewayError::Overloaded
            | GatewayError::TooManyCalls
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
            GatewayError::TooManyCalls => "too_many_calls",
            GatewayError::NotConfigured => "not_configured",
            GatewayError::NoToken(_) => "no_token",
            GatewayError::Unreachable => "unreachable",
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
            | GatewayError::NotConfigured
            | GatewayError::NoToken(_)
            | GatewayError::Unreachable
            | GatewayError::NoAnswer
            | GatewayError::NoAnswerInTime => -1,
            // Calls are too frequent: no SDK repeats a call after that.
            GatewayError::NotRepeated | GatewayError::NotReplaced(_) => 45011,
        }
    }

    /// The message for people: what happened and what to do, and nothing about this machine.
    fn message(&self) -> Cow<'_, str> {
        Cow::Borrowed(match self {
            GatewayError::NotHttp => {
                "data format error: the gateway passes on requests of HTTP/1.1; no WebSocket, CONNECT or TRACE"
            }
            GatewayError::TransferCoding => {
                "data format error: send the body with Content-Length, or chunked and not compressed"
            }
            GatewayError::BodyTooLarge => {
                return Cow::Owned(format!(
                    "content size out of limit: a body without a Content-Length may have {} MiB here; send its length, and \
                     it may be larger",
                    MAX_CHUNKED / 1024 / 1024
                ));
            }
            GatewayError::BodyTooSlow => {
                return Cow::Owned(format!(
                    "system error: no byte of the body came for {} seconds; the call was not made",
                    BODY_GAP.as_secs()
                ));
            }
            GatewayError::BodyBroken => "system error: the body broke off; the call was not made",
            GatewayError::Overloaded => {
                "system error: too many large bodies are on their way at once; the call was not made, repeat it later"
            }
            GatewayError::TooManyCalls => {
                "system error: too many calls are waiting for WeChat at once; the call was not made, repeat it later"
            }
            GatewayError::NotConfigured => {
                "system error: the account's proxy, base_url or ca_file is wrong; the log of the server says what; the call \
                 was not made"
            }
            GatewayError::NoToken(unavailable) => {
                return Cow::Owned(format!(
                    "system error: the call was not made: {}",
                    unavailable.why
                ));
            }
            GatewayError::Unreachable => {
                bilingual!(
                    "system error: WeChat cannot be reached from the gateway; nothing was sent to it, so the call can be \
                     repeated.",
                    "网关无法连接微信，请求尚未发出，可以重试。"
                )
            }
            GatewayError::NoAnswer => {
                bilingual!(
                    "system error: WeChat's answer did not arrive; it may have carried the call out.",
                    "未收到微信的应答，该请求可能已被执行。"
                )
            }
            GatewayError::NoAnswerInTime => {
                bilingual!(
                    "system error: WeChat did not answer in time; it may have carried the call out.",
                    "微信未在限定时间内应答，该请求可能已被执行。"
                )
            }
            GatewayError::NotRepeated => {
                bilingual!(
                    "api minute-quota reach limit, must slower, retry next minute: this is the gateway: the token was dead \
                     and has been replaced; a body of this size is not kept, so send the call again.",
                    "token 已更换，请重新发送该请求。"
                )
            }
            GatewayError::NotReplaced(unavailable) => {
                return Cow::Owned(format!(
                    "api minute-quota reach limit, must slower, retry next minute: this is the gateway: WeChat refuses the \
                     token, and it is not replaced now: {}",
                    unavailable.why
                ));
            }
        })
    }

    /// Returns the body.
    pub(crate) fn body(&self) -> Bytes {
        let body = serde_json::json!({"errcode": self.errcode(), "errmsg": self.message()});
        body.to_string().into()
    }

    /// Whether the connection is closed after it, as the rest of the request may follow.
    pub(crate) fn closes(&self) -> bool {
        matches!(
            self,
            GatewayError::NotHttp
                | GatewayError::TransferCoding
                | GatewayError::BodyTooLarge
                | GatewayError::BodyTooSlow
                | GatewayError::BodyBroken
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_error_says_that_the_token_is_dead() {
        let unavailable = || Unavailable::for_now("WeChat refuses: 45009");
        for error in [
            GatewayError::NotHttp,
            GatewayError::TransferCoding,
            GatewayError::BodyTooLarge,
            GatewayError::BodyTooSlow,
            GatewayError::BodyBroken,
            GatewayError::Overloaded,
            GatewayError::TooManyCalls,
            GatewayError::NotConfigured,
            GatewayError::NoToken(unavailable()),
            GatewayError::Unreachable,
            GatewayError::NoAnswer,
            GatewayError::NoAnswerInTime,
            GatewayError::NotRepeated,
            GatewayError::NotReplaced(unavailable()),
        ] {
            let text = String::from_utf8(error.body().to_vec()).unwrap();
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(json["errcode"].as_i64().is_some_and(|it| it != 0), "{text}");
            for code in ["40001", "40014", "42001"] {
                assert!(!text.contains(code), "{text}");
            }
        }
    }
}
