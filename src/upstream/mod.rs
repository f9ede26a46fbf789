//! Where new tokens come from, and who can tell whether one is alive. A source asks once and says what came of it;
//! whether, when and how often to ask is not its business.

use std::fmt;
use std::time::Duration;

use crate::error::Exit;
use crate::model::document::TicketType;
use crate::model::errcode::{Class, Refusal};
use crate::model::secret::Secret;

pub(crate) mod connect;
pub(crate) mod credentials;
mod gate;
pub(crate) mod client;
pub(crate) mod ping;
pub(crate) mod wechat;
pub(crate) mod mirror;

/// How to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// For a token that is good. On `stable` that is the current one, until its last five minutes.
    Good,
    /// For another token than the current one. On `stable` WeChat does this at most every 30 s and 20 times a day.
    Another,
}

/// What WeChat gave.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) token: Secret,
    /// How long WeChat says that it lives, counted from some instant after the request was sent.
    pub(crate) expires_in: Duration,
}

/// One who can be asked for a token.
pub(crate) trait Source {
    /// Asks once, and is back with an answer or an error within `timeout`.
    fn ask(&self, how: Ask, timeout: Duration) -> Result<Grant, AskError>;
}

/// One who can tell whether a token is alive.
pub(crate) trait Probe {
    /// Uses the token once for nothing, and is back with what that says of it within `timeout`.
    fn probe(&self, token: &Secret, timeout: Duration) -> Pulse;
}

/// What an account's tokens come from, for those who need both.
pub(crate) trait Upstream: Source + Probe + Tickets + Send + Sync {}

impl<T: Source + Probe + Tickets + Send + Sync> Upstream for T {}

/// One who can be asked for a ticket.
pub(crate) trait Tickets {
    /// Asks once for the ticket of this type, with a token, and is back within `timeout`. It kills no ticket and no token.
    fn ticket(
        &self,
        kind: &TicketType,
        token: &Secret,
        timeout: Duration,
    ) -> Result<Grant, AskError>;
}

/// What a probe says of a token.
#[derive(Debug)]
pub(crate) enum Pulse {
    /// WeChat honours it.
    Alive,
    /// WeChat says that it is expired, replaced, or none of its own.
    Dead,
    /// WeChat, or whatever is in the way, said something else: of a refused address, for instance, or nothing at all.
    Unknown(AskError),
}

/// Why there is no token, or no word about one. None of these ever holds a URL, a body, a secret or a token.
#[derive(Debug)]
pub(crate) enum AskError {
    /// WeChat answered, with an errcode.
    Refused(Refusal),
    /// WeChat, or something on the way, answered with a bare HTTP status.
    Status(u16),
    /// No answer: connection, DNS, TLS, time.
    Unreachable {
        what: String,
        /// Whether another try a second later could go better.
        may_pass: bool,
        /// Whether the request may have arrived all the same; `false` if it was surely never sent.
        may_have_arrived: bool,
    },
    /// An answer that makes no sense; says which.
    Nonsense(String),
    /// Another wxtoken gave none, or could not be asked.
    Central {
        what: String,
        /// Whether it is pointless to ask again soon.
        is_lasting: bool,
        /// Whether it was there to say so.
        was_reached: bool,
    },
    /// The published token again, whose time is over.
    Spent,
    /// Nobody was asked: it is not to be asked for now.
    Withheld,
    /// Nobody was asked: there is no live token to ask for a ticket with.
    NoToken,
}

impl AskError {
    /// Whether it is worth another try within seconds.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            AskError::Refused(refusal) => refusal.class() == Class::Transient,
            AskError::Status(status) => *status >= 500,
            AskError::Unreachable { may_pass, .. } => *may_pass,
            AskError::Central { is_lasting, .. } => !is_lasting,
            AskError::Nonsense(_) | AskError::Withheld | AskError::NoToken => false,
            // Our count begins before the request was sent, so it ends some seconds before WeChat's.
            AskError::Spent => true,
        }
    }

    /// Whether it says that the token which was used is dead.
    pub(crate) fn is_of_dead_token(&self) -> bool {
        matches!(self, AskError::Refused(refusal) if refusal.class() == Class::TokenDead)
    }

    /// Whether WeChat may have done what it was asked for all the same: minted a token that nobody will hear of.
    pub(crate) fn may_have_minted(&self) -> bool {
        match self {
            AskError::Refused(_)
            | AskError::Central { .. }
            | AskError::Spent
            | AskError::Withheld
            | AskError::NoToken => false,
            // By the rules of HTTP nothing was done. A gateway that gave up waiting cannot know.
            AskError::Status(status) => !(300..500).contains(status) || *status == 408,
            AskError::Unreachable { may_have_arrived, .. } => *may_have_arrived,
            AskError::Nonsense(_) => true,
        }
    }

    /// How long it is pointless to ask again; `None` if nothing is known against doing so at one's own pace.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            AskError::Refused(refusal) => refusal.retry_after(),
            // A path or a proxy that a person must mend, who will say so or start us anew.
            AskError::Status(404 | 412) => Some(Duration::from_secs(60 * 60)),
            // A certificate, a proxy's password: mended elsewhere, where nobody will think of telling us.
            AskError::Unreachable { may_pass: false, .. } => Some(Duration::from_secs(5 * 60)),
            // A key, an allowlist or a certificate.
            AskError::Central { is_lasting: true, .. } => Some(Duration::from_secs(5 * 60)),
            AskError::Status(_)
            | AskError::Unreachable { .. }
            | AskError::Central { .. }
            | AskError::Nonsense(_)
            | AskError::Spent
            | AskError::Withheld
            | AskError::NoToken => None,
        }
    }

    /// What the process's status says of it.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            AskError::Refused(refusal) => refusal.class().exit(),
            // Nothing that time would mend: a wrong path, or a body whose length got lost on the way.
            AskError::Status(404 | 412)
            | AskError::Central { is_lasting: true, was_reached: true, .. } => Exit::Refused,
            _ => Exit::Unreachable,
        }
    }
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AskError::Refused(refusal) => refusal.fmt(f),
            AskError::Status(404) => {
                f.write_str("HTTP 404: Wrong API path or host; check --base-url. 接口地址错误，请检查域名与路径。")
            }
            AskError::Status(412) => f.write_str(
                "HTTP 412: Request lost its Content-Length on the way; a proxy sent it chunked. \
                 请求缺少 Content-Length（被分块传输），请检查代理。",
            ),
            AskError::Status(status @ 300..=399) => write!(
                f,
                "HTTP {status}: WeChat does not redirect, so this is not WeChat; check --base-url and the proxy. \
                 收到重定向，并非微信的应答，请检查 --base-url 与代理。"
            ),
            AskError::Status(status) => write!(
                f,
                "HTTP {status} without an errcode: a gateway or proxy answered; try again, check the proxy. \
                 网关或代理返回了错误，请稍后重试或检查代理。"
            ),
            AskError::Unreachable { what, .. } => write!(
                f,
                "cannot reach WeChat: {what}. Check network and proxy. 无法连接微信服务器，请检查网络或代理。"
            ),
            AskError::Central { what, .. } => f.write_str(what),
            AskError::Withheld => f.write_str("another token is not asked for now"),
            AskError::NoToken => f.write_str(
                "there is no live token to ask with: it went while the ticket was waited for; the next fetch brings both. \
                 没有可用的 token，下次 fetch 会重新获取。",
            ),
            AskError::Nonsense(what) => write!(
                f,
                "the answer makes no sense: {what}. Is there a proxy or portal in the way? \
                 应答无法识别，请检查是否有代理或认证网关拦截。"
            ),
            AskError::Spent => f.write_str(
                "what was given again is over by this host's count: there is another within seconds, or is this host's \
                 clock wrong? 仍返回已到期的凭证，请稍后再试，或检查本机时间。",
            ),
        }
    }
}

impl std::error::Error for AskError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_must_mend_is_not_asked_for_again_at_once() {
        let unreachable = |may_pass| AskError::Unreachable {
            what: String::new(),
            may_pass,
            may_have_arrived: true,
        };
        for (err, expected) in [
            (AskError::Status(404), Some(3600)),
            (AskError::Status(412), Some(3600)),
            (AskError::Status(302), None),
            (AskError::Status(502), None),
            (unreachable(true), None),
            (unreachable(false), Some(300)),
            (AskError::Nonsense("an HTML page".to_owned()), None),
            (AskError::Spent, None),
        ] {
            assert_eq!(err.retry_after().map(|wait| wait.as_secs()), expected, "{err}");
        }
    }

    #[test]
    fn only_a_clear_answer_or_no_request_at_all_means_that_nothing_was_minted() {
        let unreachable = |may_have_arrived| AskError::Unreachable {
            what: String::new(),
            may_pass: true,
            may_have_arrived,
        };
        for (err, expected) in [
            (unreachable(true), true),
            (unreachable(false), false),
            (AskError::Nonsense("an empty body".to_owned()), true),
            (AskError::Status(200), true),
            (AskError::Status(302), false),
            (AskError::Status(404), false),
            (AskError::Status(408), true),
            (AskError::Status(412), false),
            (AskError::Status(502), true),
        ] {
            assert_eq!(err.may_have_minted(), expected, "{err}");
        }
    }
}
