//! What the other side says: whether it is there, by which clock, from where it sees us, and whether it takes our word.

use std::time::{Duration, Instant};

use super::{Finding, span};
use crate::error::Exit;
use crate::model::api::Rules;
use crate::model::errcode::{Class, Platform};
use crate::os::clock::SystemClock;
use crate::upstream::client::Client;
use crate::upstream::error::{FailedStage, TlsFailure};
use crate::upstream::ping::{self, PingReply};
use crate::upstream::{IssuedToken, Liveness, UpstreamError};

/// How long each call may take, if there is as much time.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long the next call may take, where all is to be over by `deadline`. What comes too late fails as being late.
pub(crate) fn timeout(deadline: Instant) -> Duration {
    let left = deadline.saturating_duration_since(Instant::now());
    left.clamp(Duration::from_millis(1), TIMEOUT)
}

/// Clocks that differ by less than this harm nobody.
const TOLERATED: u64 = 5; // s

/// A clock that is wrong by as much has tokens expired, or promised, five minutes off: all of the margin there is.
const HARMFUL: u64 = 300; // s

/// Greets each of the servers in turn; what there is to say of them, and what the first one that answers told.
pub(crate) fn hosts(
    client: &Client,
    rules: Rules,
    deadline: Instant,
) -> (Vec<Finding>, Option<PingReply>) {
    let mut first = None;
    let mut findings = Vec::new();
    for (name, client) in client.each() {
        let timeout = timeout(deadline);
        let greeting = match rules {
            Rules::Mirror => ping::wxtoken(&client, &SystemClock, timeout),
            Rules::Work => ping::wechat(&client, Platform::Work, &SystemClock, timeout),
            Rules::Stable | Rules::Classic => {
                ping::wechat(&client, Platform::Official, &SystemClock, timeout)
            }
        };
        match greeting {
            Ok(greeting) => {
                let took = greeting.took.as_millis();
                findings.push(Finding::well("host", format!("{name} answers, in {took} ms")));
                first.get_or_insert(greeting);
            }
            Err(err) => findings.push(unreached(&name, &err)),
        }
    }
    // Where one answers, the others are for the day when it does not.
    if first.is_some() {
        for finding in &mut findings {
            finding.verdict = finding.verdict.min(super::Verdict::Notice);
        }
    }
    (findings, first)
}

/// A server that was not reached, and at which stage of the way.
fn unreached(name: &str, err: &UpstreamError) -> Finding {
    let wrong = |what: &str| Finding::wrong("host", err.exit(), format!("{name}: {what}"));
    let UpstreamError::Unreachable(unreachable) = err else {
        return wrong(&err.to_string());
    };
    let (english, chinese) = match unreachable.stage() {
        FailedStage::Dns => (
            "Check the name, and the name servers in /etc/resolv.conf.",
            "域名无法解析，请检查域名与 DNS（/etc/resolv.conf）。",
        ),
        FailedStage::Connect => (
            "Check the network, the firewall, and whether a proxy is needed (HTTPS_PROXY).",
            "无法建立连接，请检查网络、防火墙，以及是否需要代理（HTTPS_PROXY）。",
        ),
        FailedStage::Proxy => (
            "Check the proxy's address and password, and whether it lets this host through to the server.",
            "代理拒绝了请求，请检查代理地址与密码，以及是否放行该域名。",
        ),
        FailedStage::Tls(TlsFailure::UnknownIssuer) => (
            "Does a proxy open TLS on the way, or is the server's certificate from a CA of your own? Then name that CA's with \
             --ca-file (ca_file).",
            "证书签发者未知：若途中有代理解密 TLS，或服务器用的是自建 CA，请用 --ca-file（ca_file）指定其根证书。",
        ),
        FailedStage::Tls(TlsFailure::OutsideValidity) => (
            "Check this host's clock; if it is right, the server's certificate is over.",
            "证书不在有效期内：请检查本机时间；若时间正确，则是服务器证书过期。",
        ),
        FailedStage::Tls(TlsFailure::Other) => (
            "Check the name in --base-url (base_url, from), and whether a proxy answers in the server's place.",
            "TLS 校验失败，请检查 --base-url（base_url、from）的域名，以及是否有代理冒充服务器。",
        ),
        FailedStage::Response => (
            "It was reached and did not answer: try again, and check the proxy.",
            "已连接但没有应答，请稍后重试或检查代理。",
        ),
    };
    wrong(&unreachable.reason()).remedy(english, chinese)
}

/// How this host's clock goes, against the other side's.
pub(crate) fn clock(greeting: &PingReply) -> Finding {
    let about = "clock";
    let Some(ahead) = greeting.ahead else {
        return Finding::notice(about, "the other side does not tell the time");
    };
    let off = ahead.unsigned_abs();
    let way = if ahead.is_negative() { "behind" } else { "ahead of" };
    let what = format!("{} {way} the other side's", span(off));
    let remedy = |finding: Finding| {
        finding.remedy(
            "Set it, and keep it so with NTP (timedatectl set-ntp true).",
            "请校准本机时间并启用 NTP（timedatectl set-ntp true）。",
        )
    };
    match off.as_secs() {
        0 => Finding::well(about, "goes with the other side's"),
        1..=TOLERATED => Finding::well(about, what),
        secs if secs < HARMFUL => remedy(Finding::notice(about, what)),
        _ => remedy(Finding::wrong(
            about,
            Exit::Failure,
            format!("{what}: tokens seem to live that much longer, or shorter"),
        )),
    }
}

/// The address that WeChat sees, where it was told; and that this host could not use the token from there, as a probe
/// said. On WeCom who asks for tokens need not be among those that may use them.
pub(crate) fn address(seen_from: Option<&str>, pulse: Option<&Liveness>) -> Option<Finding> {
    match pulse {
        Some(Liveness::Unknown(err @ UpstreamError::Refused(refusal)))
            if refusal.class() == Class::Allowlist =>
        {
            let what = format!("calls that use the token are refused from here: {err}");
            Some(Finding::notice("address", what))
        }
        _ => seen_from.map(|it| Finding::well("address", format!("WeChat sees {it}"))),
    }
}

/// Whether who we say that we are is accepted. On `classic` a stable token was asked for: that tells as much, and leaves
/// the classic ones alone.
pub(crate) fn credentials(rules: Rules, answer: &Result<IssuedToken, UpstreamError>) -> Finding {
    let about = "credentials";
    match (answer, rules) {
        (Ok(_), Rules::Mirror) => {
            Finding::well(about, "the other wxtoken gives this host the account's token")
        }
        (Ok(_), Rules::Work) => {
            Finding::well(about, "WeCom accepts the corp's ID and the app's secret")
        }
        (Ok(_), Rules::Stable) => Finding::well(about, "WeChat accepts AppID and AppSecret"),
        (Ok(_), Rules::Classic) => Finding::well(
            about,
            "WeChat accepts AppID and AppSecret (asked for a stable token, which leaves the classic ones alone)",
        ),
        (Err(err), _) => Finding::wrong(about, err.exit(), err.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_clock_is_judged_by_the_harm_that_it_does() {
        let judged = |secs: Option<i64>| {
            let ahead = secs.map(time::Duration::seconds);
            clock(&PingReply { took: Duration::ZERO, ahead, seen_from: None })
        };
        for (secs, verdict, words) in [
            (Some(0), Verdict::Well, "goes with"),
            (Some(5), Verdict::Well, "5s ahead of"),
            (Some(-5), Verdict::Well, "5s behind"),
            (Some(6), Verdict::Notice, "6s ahead of"),
            (Some(-299), Verdict::Notice, "4m 59s behind"),
            (Some(300), Verdict::Wrong(Exit::Failure), "5m ahead of"),
            (Some(-86_400), Verdict::Wrong(Exit::Failure), "1day behind"),
            (None, Verdict::Notice, "does not tell"),
        ] {
            let finding = judged(secs);
            assert_eq!(finding.verdict, verdict, "{secs:?}");
            assert!(
                finding.what.starts_with(words) || finding.what.contains(words),
                "{}",
                finding.what
            );
            assert_eq!(
                finding.remedy.is_some(),
                finding.what.contains("'s") && verdict != Verdict::Well
            );
        }
    }
}
