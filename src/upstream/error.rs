//! Why a request to upstream failed: what went wrong and at which stage, whether and when another attempt may help, and
//! whether a token may have been minted all the same. Decides nothing about retries.

use std::fmt;
use std::time::Duration;

use time::UtcDateTime;

use crate::error::Exit;
use crate::language::{bilingual, in_both};
use crate::model::document::rfc3339;
use crate::model::errcode::{Class, Refusal};
use crate::os::descriptors::shortage::SHORT_OF_RESOURCES;

/// Why a request brought no token, ticket or probe result. Never holds a URL, a body, a secret or a token.
#[derive(Debug)]
pub(crate) enum UpstreamError {
    /// WeChat answered with an errcode.
    Refused(Refusal),
    /// WeChat or an intermediary answered with a bare HTTP status.
    Status(u16),
    /// No answer: connection, DNS, TLS, timeout.
    Unreachable(Unreachable),
    /// The answer cannot be understood; says why.
    Malformed(String),
    /// The wxtoken that is mirrored gave none, or could not be asked.
    Central {
        what: String,
        /// Whether asking again soon is pointless.
        is_lasting: bool,
        /// Whether it answered.
        was_reached: bool,
    },
    /// The published token was issued again although its lifetime is over.
    Expired,
    /// Not asked: an earlier run was refused, and asking again before then is pointless or does harm.
    StillRefused { refusal: Refusal, until: UtcDateTime, wait: Duration },
    /// Not asked: each request mints a token, and too many answers were lost within a day.
    Rationed {
        /// How many were lost.
        lost: usize,
        until: UtcDateTime,
        wait: Duration,
    },
    /// Not asked: a forced refresh is not allowed now.
    Withheld,
    /// Not asked: there is no live token to authorize the ticket request.
    NoToken,
}

/// Why none of the servers answered.
#[derive(Debug)]
pub(crate) struct Unreachable {
    /// One for each server tried, in order.
    pub(super) attempts: Vec<FailedAttempt>,
    /// Whether another attempt a second later could succeed.
    pub(super) may_pass: bool,
    /// `false` if the request was certainly never sent.
    pub(super) may_have_arrived: bool,
}

/// A request to one server that brought no answer.
#[derive(Debug)]
pub(super) struct FailedAttempt {
    pub(super) stage: FailedStage,
    pub(super) reason: String,
    /// Host and proxy; `None` if no server was tried.
    pub(super) server: Option<String>,
}

/// The stage at which a request without an answer failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailedStage {
    /// The host name has no address.
    Dns,
    /// No connection was made.
    Connect,
    /// The proxy refused.
    Proxy,
    /// The TLS handshake failed, or the certificate is not trusted.
    Tls(TlsFailure),
    /// The request may have arrived.
    Response,
    /// This host had no thread or descriptor for it.
    ThisHost,
}

/// What was wrong with TLS, as far as remedies differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsFailure {
    UnknownIssuer,
    /// The certificate has expired or is not valid yet.
    OutsideValidity,
    Other,
}

impl Unreachable {
    /// Returns where it failed. With several servers that is where the first one failed, unless the request may have
    /// reached a later one.
    pub(crate) fn stage(&self) -> FailedStage {
        match self.attempts.first().map_or(FailedStage::Connect, |attempt| attempt.stage) {
            FailedStage::Connect | FailedStage::ThisHost if self.may_have_arrived => {
                FailedStage::Response
            }
            stage => stage,
        }
    }

    /// Returns what to do about the stage that failed, in English and Chinese.
    pub(crate) fn remedy(&self) -> [&'static str; 2] {
        match self.stage() {
            FailedStage::Dns => [
                "Check the name, and the name servers in /etc/resolv.conf.",
                "域名无法解析，请检查域名与 DNS（/etc/resolv.conf）。",
            ],
            FailedStage::Connect => [
                "Check the network, the firewall and the proxy (HTTPS_PROXY).",
                "无法建立连接，请检查网络、防火墙与代理（HTTPS_PROXY）。",
            ],
            FailedStage::Proxy => [
                "Check the proxy's address and password, and whether it lets this host through to the server.",
                "代理拒绝了请求，请检查代理地址与密码，以及是否放行该域名。",
            ],
            FailedStage::Tls(TlsFailure::UnknownIssuer) => [
                "Does a proxy open TLS on the way, or is the server's certificate from a CA of your own? Then name that CA's with \
                 --ca-file (ca_file).",
                "证书签发者未知：若途中有代理解密 TLS，或服务器用的是自建 CA，请用 --ca-file（ca_file）指定其根证书。",
            ],
            FailedStage::Tls(TlsFailure::OutsideValidity) => [
                "Check this host's clock; if it is right, the server's certificate is over.",
                "证书不在有效期内：请检查本机时间；若时间正确，则是服务器证书过期。",
            ],
            FailedStage::Tls(TlsFailure::Other) => [
                "Check the name in --base-url (base_url, from), and whether a proxy answers in the server's place.",
                "TLS 校验失败，请检查 --base-url（base_url、from）的域名，以及是否有代理冒充服务器。",
            ],
            FailedStage::Response => [
                "It was reached and did not answer: try again, and check the proxy.",
                "已连接但没有应答，请稍后重试或检查代理。",
            ],
            FailedStage::ThisHost => SHORT_OF_RESOURCES,
        }
    }

    /// Returns the reasons without the servers.
    pub(crate) fn reason(&self) -> String {
        let reasons: Vec<_> = self.attempts.iter().map(|attempt| attempt.reason.as_str()).collect();
        reasons.join("; ")
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, FailedAttempt { reason, server, .. }) in self.attempts.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{reason}")?;
            if let Some(server) = server {
                write!(f, " ({server})")?;
            }
        }
        Ok(())
    }
}

impl UpstreamError {
    /// Returns the error for a request without an answer, before or apart from any server.
    pub(crate) fn unreachable(
        reason: impl Into<String>,
        may_pass: bool,
        may_have_arrived: bool,
    ) -> UpstreamError {
        let stage = FailedStage::Connect;
        let attempts = vec![FailedAttempt { stage, reason: reason.into(), server: None }];
        UpstreamError::Unreachable(Unreachable { attempts, may_pass, may_have_arrived })
    }

    /// Whether another attempt within seconds may succeed.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            UpstreamError::Refused(refusal) => refusal.class() == Class::Transient,
            UpstreamError::Status(status) => *status >= 500,
            UpstreamError::Unreachable(Unreachable { may_pass, .. }) => *may_pass,
            UpstreamError::Central { is_lasting, .. } => !is_lasting,
            UpstreamError::Malformed(_)
            | UpstreamError::StillRefused { .. }
            | UpstreamError::Rationed { .. }
            | UpstreamError::Withheld
            | UpstreamError::NoToken => false,
            // `created_at` precedes the request, so the local lifetime ends some seconds before WeChat's.
            UpstreamError::Expired => true,
        }
    }

    /// Whether WeChat rejected the token that the request used.
    pub(crate) fn is_dead_token(&self) -> bool {
        matches!(self, UpstreamError::Refused(refusal) if refusal.class() == Class::TokenDead)
    }

    /// Whether WeChat may have minted a token although none was received.
    pub(crate) fn may_have_minted(&self) -> bool {
        match self {
            UpstreamError::Refused(_)
            | UpstreamError::Central { .. }
            | UpstreamError::Expired
            | UpstreamError::StillRefused { .. }
            | UpstreamError::Rationed { .. }
            | UpstreamError::Withheld
            | UpstreamError::NoToken => false,
            // 3xx and 4xx mean that nothing was done, except 408: a gateway that gave up waiting cannot know.
            UpstreamError::Status(status) => !(300..500).contains(status) || *status == 408,
            UpstreamError::Unreachable(Unreachable { may_have_arrived, .. }) => *may_have_arrived,
            UpstreamError::Malformed(_) => true,
        }
    }

    /// Returns for how long another attempt is pointless; `None` if that is unknown and the caller's own backoff applies.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            UpstreamError::Refused(refusal) => refusal.retry_after(),
            UpstreamError::StillRefused { wait, .. } | UpstreamError::Rationed { wait, .. } => {
                Some(*wait)
            }
            // A wrong path or proxy: a person fixes it, and then reloads or restarts.
            UpstreamError::Status(404 | 412) => Some(Duration::from_secs(60 * 60)),
            // A certificate or a proxy's password: fixed elsewhere, without a reload here.
            UpstreamError::Unreachable(Unreachable { may_pass: false, .. }) => {
                Some(Duration::from_secs(5 * 60))
            }
            // A key, an allowlist or a certificate: likewise.
            UpstreamError::Central { is_lasting: true, .. } => Some(Duration::from_secs(5 * 60)),
            UpstreamError::Status(_)
            | UpstreamError::Unreachable(_)
            | UpstreamError::Central { .. }
            | UpstreamError::Malformed(_)
            | UpstreamError::Expired
            | UpstreamError::Withheld
            | UpstreamError::NoToken => None,
        }
    }

    /// Returns the exit status for this error.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            UpstreamError::Refused(refusal) | UpstreamError::StillRefused { refusal, .. } => {
                refusal.class().exit()
            }
            // Time does not help: a wrong path, or an intermediary that removed Content-Length.
            UpstreamError::Status(404 | 412)
            | UpstreamError::Central { is_lasting: true, was_reached: true, .. } => Exit::Refused,
            _ => Exit::Unreachable,
        }
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpstreamError::Refused(refusal) => refusal.fmt(f),
            UpstreamError::StillRefused { refusal, until, .. } => {
                let until = rfc3339(*until);
                let rest = in_both(
                    format!(
                        "That was an earlier answer; WeChat is not asked again until {until}, unless the secret changes; \
                         fetch --force asks at once."
                    ),
                    format!(
                        "此为此前的应答；{until} 之前不再询问，更换 Secret 或运行 fetch --force 可立即重试。"
                    ),
                );
                write!(f, "{refusal} {rest}")
            }
            UpstreamError::Rationed { lost, until, .. } => {
                let until = rfc3339(*until);
                f.write_str(&in_both(
                    format!(
                        "{lost} answers of WeChat were lost within a day, and on the classic API each lost answer costs \
                         a token of about 2000 a day; the next request follows at {until}. See what cuts connections off \
                         (proxy, firewall, network), or use --api stable, where asking again costs none; fetch --force \
                         asks at once."
                    ),
                    format!(
                        "一天内有 {lost} 次应答丢失，classic 接口每次丢失都会消耗一个 token（每天约 2000 个），将于 {until} \
                         再次请求；请排查代理、防火墙与网络，或改用 --api stable。"
                    ),
                ))
            }
            UpstreamError::Status(404) => {
                let what = bilingual!(
                    "Wrong API path or host; check --base-url.",
                    "接口地址错误，请检查域名与路径。"
                );
                write!(f, "HTTP 404: {what}")
            }
            UpstreamError::Status(412) => {
                let what = bilingual!(
                    "Request lost its Content-Length on the way; a proxy sent it chunked.",
                    "请求缺少 Content-Length（被分块传输），请检查代理。"
                );
                write!(f, "HTTP 412: {what}")
            }
            UpstreamError::Status(status @ 300..=399) => {
                let what = bilingual!(
                    "WeChat does not redirect, so this is not WeChat; check --base-url and the proxy.",
                    "收到重定向，并非微信的应答，请检查 --base-url 与代理。"
                );
                write!(f, "HTTP {status}: {what}")
            }
            UpstreamError::Status(status) => {
                let what = bilingual!(
                    "a gateway or proxy answered; try again, check the proxy.",
                    "网关或代理返回了错误，请稍后重试或检查代理。"
                );
                write!(f, "HTTP {status} without an errcode: {what}")
            }
            UpstreamError::Unreachable(what) => {
                let failure = match what.stage() {
                    FailedStage::ThisHost => "WeChat was not asked",
                    _ => "cannot reach WeChat",
                };
                let [english, chinese] = what.remedy();
                write!(f, "{failure}: {what}. {}", in_both(english, chinese))
            }
            UpstreamError::Central { what, .. } => f.write_str(what),
            UpstreamError::Withheld => f.write_str("another token is not asked for now"),
            UpstreamError::NoToken => f.write_str(bilingual!(
                "there is no live token to ask with: it ended while the ticket was waited for; the next fetch brings both.",
                "没有可用的 token，下次 fetch 会重新获取。"
            )),
            UpstreamError::Malformed(what) => {
                let remedy = bilingual!(
                    "Is there a proxy or portal in the way?",
                    "应答无法识别，请检查是否有代理或认证网关拦截。"
                );
                write!(f, "the answer makes no sense: {what}. {remedy}")
            }
            UpstreamError::Expired => f.write_str(bilingual!(
                "the token given again has ended by this host's clock: another one follows within seconds, or this host's \
                 clock is wrong.",
                "仍返回已到期的凭证，请稍后再试，或检查本机时间。"
            )),
        }
    }
}

impl std::error::Error for UpstreamError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Language;

    #[test]
    fn a_failure_of_tls_says_what_to_do_about_the_certificate() {
        for (failure, expected) in [
            (TlsFailure::UnknownIssuer, ["--ca-file", "根证书"]),
            (TlsFailure::OutsideValidity, ["clock", "证书过期"]),
        ] {
            let stage = FailedStage::Tls(failure);
            let attempts = vec![FailedAttempt { stage, reason: String::new(), server: None }];
            let unreachable = Unreachable { attempts, may_pass: false, may_have_arrived: false };
            let message = UpstreamError::Unreachable(unreachable).to_string();
            let message = Language::Both.resolve(&message);
            for words in expected {
                assert!(message.contains(words), "{message}");
            }
            assert!(!message.contains("network"), "{message}");
        }
    }

    #[test]
    fn errors_that_need_a_person_have_a_retry_delay() {
        let unreachable = |may_pass| UpstreamError::unreachable("", may_pass, true);
        for (err, expected) in [
            (UpstreamError::Status(404), Some(3600)),
            (UpstreamError::Status(412), Some(3600)),
            (UpstreamError::Status(302), None),
            (UpstreamError::Status(502), None),
            (unreachable(true), None),
            (unreachable(false), Some(300)),
            (UpstreamError::Malformed("an HTML page".to_owned()), None),
            (UpstreamError::Expired, None),
        ] {
            assert_eq!(err.retry_after().map(|wait| wait.as_secs()), expected, "{err}");
        }
    }

    #[test]
    fn only_a_clear_answer_or_an_unsent_request_rules_out_that_a_token_was_minted() {
        let unreachable = |may_have_arrived| UpstreamError::unreachable("", true, may_have_arrived);
        for (err, expected) in [
            (unreachable(true), true),
            (unreachable(false), false),
            (UpstreamError::Malformed("an empty body".to_owned()), true),
            (UpstreamError::Status(200), true),
            (UpstreamError::Status(302), false),
            (UpstreamError::Status(404), false),
            (UpstreamError::Status(408), true),
            (UpstreamError::Status(412), false),
            (UpstreamError::Status(502), true),
        ] {
            assert_eq!(err.may_have_minted(), expected, "{err}");
        }
    }
}
