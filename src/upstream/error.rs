//! Why a request to upstream failed: what went wrong and at which stage, whether and when another attempt may help, and whether a token may
//! have been minted although none came. Decides nothing about retries.

use std::fmt;
use std::time::Duration;

use time::UtcDateTime;

use super::passed;
use crate::error::Exit;
use crate::language::in_both;
use crate::message::{action, action_first, messages};
use crate::model::errcode::{Class, Refusal};
use crate::os::descriptors::shortage::SHORT_OF_RESOURCES;
use crate::os::local_time::local;

/// Why a request brought no token, ticket or probe result. Never holds a URL, a body, a secret or a token.
#[derive(Debug)]
pub(crate) enum UpstreamError {
    /// WeChat answered with an errcode.
    Refused(Refusal),
    /// WeChat or an intermediary answered with a bare HTTP status.
    Status(u16),
    /// No answer: connection, DNS, TLS, timeout.
    Unreachable(Unreachable),
    /// The answer cannot be understood, for this reason.
    Malformed(String),
    /// The source of a mirror gave none, or could not be asked.
    Central {
        what: String,
        /// Whether another request soon is pointless.
        is_lasting: bool,
        /// Whether the source answered.
        was_reached: bool,
    },
    /// The published token was issued again although its lifetime is over.
    Expired,
    /// WeChat was not asked: it refused an earlier run, and another request before `until` is pointless or does harm.
    StillRefused {
        refusal: Refusal,
        until: UtcDateTime,
        wait: Duration,
        /// The command that asks all the same.
        at_once: String,
    },
    /// WeChat was not asked: each request mints a token, and too many answers were lost within a day.
    Rationed {
        /// How many answers were lost.
        lost: usize,
        until: UtcDateTime,
        wait: Duration,
        /// The command that asks all the same.
        at_once: String,
    },
    /// WeChat was not asked: a forced request is not allowed now.
    Withheld,
    /// WeChat was not asked: there is no live token to authorize the request for a ticket.
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
    /// The proxy was not reached, or refused.
    Proxy(ProxyFailure),
    /// The TLS handshake failed, or the certificate is not trusted.
    Tls(TlsFailure),
    /// The request may have arrived.
    Response,
    /// This host had no thread or descriptor for it.
    ThisHost,
}

/// What was wrong with the proxy, as far as remedies differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyFailure {
    /// Its address is not an address.
    Address,
    /// Its name has no address.
    Name,
    /// No connection was made to it or through it.
    Unreached,
    /// It wants another user or password.
    Password,
    /// It forbids the request.
    Forbids,
    /// It could not reach the server.
    GetsNoFurther,
}

/// What was wrong with TLS, as far as remedies differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsFailure {
    UnknownIssuer,
    /// The certificate has expired, by this host's clock.
    Expired,
    /// The certificate is not valid yet, by this host's clock.
    NotValidYet,
    /// The server shows the certificate of a CA as its own.
    CaAsServer,
    Other,
}

/// What to do about a request that failed at a stage.
pub(crate) struct StageRemedy {
    pub(crate) stage: FailedStage,
    pub(crate) english: &'static str,
    pub(crate) chinese: &'static str,
}

const fn at(stage: FailedStage, english: &'static str, chinese: &'static str) -> StageRemedy {
    StageRemedy { stage, english, chinese }
}

#[rustfmt::skip]
pub(crate) static STAGES: &[StageRemedy] = &[
    at(FailedStage::Dns,
        "Check the name, and /etc/resolv.conf.",
        "请检查域名与 DNS（/etc/resolv.conf）。"),
    at(FailedStage::Connect,
        "Check the network and the firewall; where only a proxy leads out, set HTTPS_PROXY.",
        "请检查网络与防火墙；如须经代理访问外网，请设置 HTTPS_PROXY。"),
    at(FailedStage::Proxy(ProxyFailure::Address),
        "Correct the proxy's address (HTTPS_PROXY or proxy).",
        "请更正代理地址（HTTPS_PROXY 或 proxy）。"),
    at(FailedStage::Proxy(ProxyFailure::Name),
        "Correct the proxy's name (HTTPS_PROXY or proxy), or check /etc/resolv.conf.",
        "请更正代理的域名（HTTPS_PROXY 或 proxy），或检查 DNS（/etc/resolv.conf）。"),
    at(FailedStage::Proxy(ProxyFailure::Unreached),
        "See that the proxy runs, and correct its address.",
        "请确认代理正在运行，并核对其地址。"),
    at(FailedStage::Proxy(ProxyFailure::Password),
        "Correct the proxy's user and password (HTTPS_PROXY).",
        "请更正代理的用户名与密码（HTTPS_PROXY）。"),
    at(FailedStage::Proxy(ProxyFailure::Forbids),
        "Have the proxy let this host through to that name.",
        "请在代理上放行本机对该域名的访问。"),
    at(FailedStage::Proxy(ProxyFailure::GetsNoFurther),
        "See the proxy's own log: it does not get through.",
        "请查看代理自身的日志：代理未能连接目标。"),
    at(FailedStage::Tls(TlsFailure::UnknownIssuer),
        "Name the CA with --ca-file: is it your own, or does a proxy open TLS?",
        "请用 --ca-file 指定根证书：是否为自建 CA，或有代理解密 TLS？"),
    at(FailedStage::Tls(TlsFailure::NotValidYet),
        "Set this host's clock; if it is right, the server's certificate is not valid yet.",
        "请校准本机时间；若时间正确，则是服务器证书尚未生效。"),
    at(FailedStage::Tls(TlsFailure::Expired),
        "Check this host's clock; if it is right, the server's certificate is over.",
        "请检查本机时间；若时间正确，则是服务器证书过期。"),
    at(FailedStage::Tls(TlsFailure::CaAsServer),
        "Give that server a certificate of its own, signed by the CA whose certificate it shows.",
        "服务器出示的是 CA 证书，请用该 CA 为服务器另签证书。"),
    at(FailedStage::Tls(TlsFailure::Other),
        "Check --base-url (base_url, from), and for a proxy between.",
        "请检查 --base-url（base_url、from）的域名，以及是否有代理冒充服务器。"),
    at(FailedStage::Response,
        "Try again, and check the proxy: it was reached and did not answer.",
        "请稍后重试或检查代理：已连接但没有应答。"),
];

messages! {
    WRONG_PATH<1> {
        "Check --base-url.", "HTTP {0}: Wrong API path or host";
        "请检查域名与路径（--base-url）。", "HTTP {0}：接口地址错误";
    }
    CHUNKED<1> {
        "Have the proxy send a Content-Length.", "HTTP {0}: the request lost its Content-Length on the way; a proxy sent it chunked";
        "请让代理保留 Content-Length。", "HTTP {0}：请求缺少 Content-Length（被代理分块传输）";
    }
    REDIRECT<1> {
        "Check --base-url and the proxy.", "HTTP {0}: WeChat does not redirect, so this is not WeChat";
        "请检查 --base-url 与代理。", "HTTP {0}：收到重定向，并非微信的应答";
    }
    BARE_STATUS<1> {
        "Try again, and check the proxy.", "HTTP {0} without an errcode: a gateway or proxy answered";
        "请稍后重试或检查代理。", "HTTP {0}，没有 errcode：由网关或代理应答";
    }
    CAME_BACK<1> {
        "Correct base_url, the proxy or the hosts file of this host.",
        "HTTP {0}: the request came back to this wxtoken and did not reach WeChat";
        "请修正本机的 base_url、代理或 hosts 文件。", "HTTP {0}：请求回到了本 wxtoken 自身，未到达微信";
    }
    MALFORMED<1> {
        "Look for a proxy or portal in the way.", "the answer makes no sense: {0}";
        "请检查是否有代理或认证网关拦截。", "应答无法识别：{0}";
    }
    ENDED_ALREADY<0> {
        "Try again in a few seconds, or check this host's clock.",
        "the token given again has ended by this host's clock";
        "请稍后再试，或检查本机时间。", "再次返回的凭证按本机时间已到期";
    }
    WITHHELD<0> {
        "Wait.", "another token is not asked for now";
        "请稍候。", "暂不请求新的 token";
    }
    NO_TOKEN<0> {
        "Let fetch run again, which brings both.",
        "there is no live token to ask with: it ended while the ticket was waited for";
        "请再次运行 fetch。", "没有可用的 token：等待 ticket 期间已到期";
    }
    RATIONED<3> {
        "See what cuts connections off (proxy, firewall, network), or use --api stable, where asking again costs none.",
        "{0} answers of WeChat were lost within a day, and on the classic API each lost answer costs a token of about 2000 a \
         day; the next request follows at {1}{2}";
        "请排查代理、防火墙与网络，或改用 --api stable（重复请求不消耗 token）。",
        "一天内有 {0} 次应答丢失，classic 接口每次应答丢失都会消耗一个 token（每天约 2000 个），将于 {1} 再次请求{2}";
    }
}

/// Describes a refusal that still holds, and until when. `more` are the ends in English and Chinese.
fn still_refused(refusal: &Refusal, until: UtcDateTime, [more, more_zh]: &[String; 2]) -> String {
    let until = local(until);
    // Another secret helps only if the secret was refused.
    let [unless, unless_zh] = match refusal.class() {
        Class::Credentials => [", unless the secret changes", "，更换 Secret 除外"],
        _ => ["", ""],
    };
    let rest = in_both(
        format!(" (an earlier answer; WeChat is not asked again until {until}{unless}{more})"),
        format!("（此前的应答；{until} 之前不再询问{unless_zh}{more_zh}）"),
    );
    format!("{refusal}{rest}")
}

impl Unreachable {
    /// Returns the stage that failed. With several servers, it is that of the first one, unless the request may have reached a later one.
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
        let stage = self.stage();
        let row = STAGES.iter().find(|row| row.stage == stage);
        row.map_or(SHORT_OF_RESOURCES, |row| [row.english, row.chinese])
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
            UpstreamError::Status(status) => *status >= 500 && *status != passed::LOOP_DETECTED,
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
            UpstreamError::Status(passed::LOOP_DETECTED) => false,
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
            // A certificate, a proxy's password, or an address that leads back here: fixed elsewhere, without a reload here.
            UpstreamError::Status(passed::LOOP_DETECTED)
            | UpstreamError::Unreachable(Unreachable { may_pass: false, .. }) => {
                Some(Duration::from_secs(5 * 60))
            }
            // A key, an allowlist or a certificate at the source: fixed there, too.
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

    /// Returns the message without commands, for readers who can run none on this host.
    pub(crate) fn without_command(&self) -> String {
        match self {
            UpstreamError::StillRefused { refusal, until, .. } => {
                still_refused(refusal, *until, &Default::default())
            }
            UpstreamError::Rationed { lost, until, .. } => {
                RATIONED.first([lost, &local(*until), &""])
            }
            other => other.to_string(),
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
    /// Writes what to do, and then what happened.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&match self {
            UpstreamError::Refused(refusal) => refusal.to_string(),
            UpstreamError::StillRefused { refusal, until, at_once, .. } => {
                let more = [format!("; at once: {at_once}"), format!("；立即重试：{at_once}")];
                still_refused(refusal, *until, &more)
            }
            UpstreamError::Rationed { lost, until, at_once, .. } => {
                let more =
                    in_both(format!(" (at once: {at_once})"), format!("（立即重试：{at_once}）"));
                RATIONED.first([lost, &local(*until), &more])
            }
            UpstreamError::Status(404) => WRONG_PATH.first([&404]),
            UpstreamError::Status(412) => CHUNKED.first([&412]),
            UpstreamError::Status(status @ 300..=399) => REDIRECT.first([status]),
            UpstreamError::Status(status @ passed::LOOP_DETECTED) => CAME_BACK.first([status]),
            UpstreamError::Status(status) => BARE_STATUS.first([status]),
            UpstreamError::Unreachable(what) => {
                let failure = match what.stage() {
                    FailedStage::ThisHost => in_both("WeChat was not asked", "未向微信发出请求"),
                    _ => in_both("cannot reach WeChat", "无法连接微信"),
                };
                let [english, chinese] = what.remedy();
                action_first(&format!("{} {failure} [{what}]", action(english, chinese)))
            }
            UpstreamError::Central { what, .. } => action_first(what),
            UpstreamError::Withheld => WITHHELD.first([]),
            UpstreamError::NoToken => NO_TOKEN.first([]),
            UpstreamError::Malformed(what) => MALFORMED.first([what]),
            UpstreamError::Expired => ENDED_ALREADY.first([]),
        })
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
            (TlsFailure::Expired, ["certificate is over", "证书过期"]),
            (TlsFailure::NotValidYet, ["is not valid yet", "证书尚未生效"]),
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
    fn every_stage_has_a_remedy_of_its_own_in_both_languages() {
        for (nth, row) in STAGES.iter().enumerate() {
            assert!(STAGES[nth + 1..].iter().all(|other| other.stage != row.stage));
            assert!(row.english.is_ascii() && row.english.ends_with(['.', '?']), "{}", row.english);
            assert!(row.chinese.ends_with(['。', '？']), "{}", row.chinese);
        }
    }

    #[test]
    fn errors_that_need_a_person_have_a_retry_delay() {
        let unreachable = |may_pass| UpstreamError::unreachable("", may_pass, true);
        for (err, expected) in [
            (UpstreamError::Status(404), Some(3600)),
            (UpstreamError::Status(412), Some(3600)),
            (UpstreamError::Status(508), Some(300)),
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
            (UpstreamError::Status(508), false),
        ] {
            assert_eq!(err.may_have_minted(), expected, "{err}");
        }
    }
}
