//! Findings about the upstream: whether it answers, its clock, the address that it sees, and whether it accepts the
//! credentials.

use std::time::{Duration, Instant};

use super::{Finding, span};
use crate::error::Exit;
use crate::language::{bilingual, in_both};
use crate::model::api::Rules;
use crate::model::errcode::{Class, Platform};
use crate::os::clock::Clock;
use crate::upstream::client::Client;
use crate::upstream::ping::{self, PingReply};
use crate::upstream::{IssuedToken, Liveness, UpstreamError};

/// How long each call may take, if the deadline allows it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Returns how long the next call may take. After the deadline a call times out at once.
pub(crate) fn timeout(clock: &dyn Clock, deadline: Instant) -> Duration {
    clock.until(deadline).clamp(Duration::from_millis(1), TIMEOUT)
}

/// A difference of clocks that does no harm.
const TOLERATED: u64 = 5; // s

/// A difference of clocks that uses up the margin before a token expires.
const HARMFUL: u64 = 300; // s

/// Pings each server in turn. Returns a finding for each, and the reply of the first one that answers.
pub(crate) fn hosts(
    client: &Client,
    rules: Rules,
    clock: &dyn Clock,
    deadline: Instant,
) -> (Vec<Finding>, Option<PingReply>) {
    let mut first = None;
    let mut findings = Vec::new();
    for (name, client) in client.each() {
        let timeout = timeout(clock, deadline);
        let reply = match rules {
            Rules::Mirror => ping::wxtoken(&client, clock, timeout),
            Rules::Work => ping::wechat(&client, Platform::Work, clock, timeout),
            Rules::Stable | Rules::Classic => {
                ping::wechat(&client, Platform::Official, clock, timeout)
            }
        };
        match reply {
            Ok(reply) => {
                let took = reply.took.as_millis();
                findings.push(Finding::good(
                    "host",
                    in_both(
                        format!("{name} answers, in {took} ms"),
                        format!("{name} 有应答，用时 {took} ms"),
                    ),
                ));
                first.get_or_insert(reply);
            }
            Err(err) => findings.push(unreached(&name, &err)),
        }
    }
    // One that answers is enough; the others are its reserve.
    if first.is_some() {
        for finding in &mut findings {
            finding.verdict = finding.verdict.min(super::Verdict::Notice);
        }
    }
    (findings, first)
}

/// A server that did not answer, and what to do about the stage that failed.
fn unreached(name: &str, err: &UpstreamError) -> Finding {
    let problem = |what: &str| Finding::problem("host", err.exit(), format!("{name}: {what}"));
    let UpstreamError::Unreachable(unreachable) = err else {
        return problem(&err.to_string());
    };
    let [english, chinese] = unreachable.remedy();
    problem(&unreachable.reason()).remedy(english, chinese)
}

/// How far this host's clock differs from the upstream's.
pub(crate) fn clock(reply: &PingReply) -> Finding {
    let about = "clock";
    let Some(ahead) = reply.ahead else {
        return Finding::notice(
            about,
            bilingual!("the other side does not tell the time", "对方未告知时间"),
        );
    };
    let difference = ahead.unsigned_abs();
    let (direction, chinese) =
        if ahead.is_negative() { ("behind", "慢") } else { ("ahead of", "快") };
    let what = in_both(
        format!("{} {direction} the other side's", span(difference)),
        format!("比对方{chinese} {}", span(difference)),
    );
    let remedy = |finding: Finding| {
        finding.remedy(
            "Set it, and keep it so with NTP (timedatectl set-ntp true).",
            "请校准本机时间并启用 NTP（timedatectl set-ntp true）。",
        )
    };
    match difference.as_secs() {
        0 => Finding::good(about, bilingual!("goes with the other side's", "与对方一致")),
        1..=TOLERATED => Finding::good(about, what),
        secs if secs < HARMFUL => remedy(Finding::notice(about, what)),
        _ => remedy(Finding::problem(
            about,
            Exit::Failure,
            in_both(
                format!("{what}: tokens seem to live that much longer, or shorter"),
                format!("{what}：token 的有效期会因此算错"),
            ),
        )),
    }
}

/// The address that WeChat sees, if it is known, or a notice that calls with the token are refused from it. On WeCom a
/// host can be allowed to request tokens and not to use them.
pub(crate) fn address(seen_from: Option<&str>, pulse: Option<&Liveness>) -> Option<Finding> {
    match pulse {
        Some(Liveness::Unknown(err @ UpstreamError::Refused(refusal)))
            if refusal.class() == Class::Allowlist =>
        {
            let what = bilingual!(
                "calls that use the token are refused from here",
                "从本机使用 token 的请求被拒绝"
            );
            Some(Finding::notice("address", format!("{what}: {err}")))
        }
        _ => seen_from.map(|it| {
            let what = in_both(format!("WeChat sees {it}"), format!("微信看到的地址为 {it}"));
            Finding::good("address", what)
        }),
    }
}

/// Whether the credentials are accepted. `answer` is that to a request for a token; on `classic` for a stable one, which
/// does not invalidate the classic ones.
pub(crate) fn credentials(rules: Rules, answer: &Result<IssuedToken, UpstreamError>) -> Finding {
    let about = "credentials";
    match (answer, rules) {
        (Ok(_), Rules::Mirror) => Finding::good(
            about,
            bilingual!(
                "the other wxtoken gives this host the account's token",
                "上游向本机提供该账号的 token"
            ),
        ),
        (Ok(_), Rules::Work) => Finding::good(
            about,
            bilingual!(
                "WeCom accepts the corp's ID and the app's secret",
                "企业微信接受企业 ID 与应用 Secret"
            ),
        ),
        (Ok(_), Rules::Stable) => Finding::good(
            about,
            bilingual!("WeChat accepts AppID and AppSecret", "微信接受 AppID 与 AppSecret"),
        ),
        (Ok(_), Rules::Classic) => Finding::good(
            about,
            bilingual!(
                "WeChat accepts AppID and AppSecret (asked for a stable token, which leaves the classic ones alone)",
                "微信接受 AppID 与 AppSecret（以稳定版接口验证，不影响 classic 接口的 token）"
            ),
        ),
        (Err(err), _) => Finding::problem(about, err.exit(), err.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_difference_of_clocks_is_judged_by_its_harm() {
        let judged = |secs: Option<i64>| {
            let ahead = secs.map(time::Duration::seconds);
            clock(&PingReply { took: Duration::ZERO, ahead, seen_from: None })
        };
        for (secs, verdict, words) in [
            (Some(0), Verdict::Good, "goes with"),
            (Some(5), Verdict::Good, "5s ahead of"),
            (Some(-5), Verdict::Good, "5s behind"),
            (Some(6), Verdict::Notice, "6s ahead of"),
            (Some(-299), Verdict::Notice, "4m 59s behind"),
            (Some(300), Verdict::Problem(Exit::Failure), "5m ahead of"),
            (Some(-86_400), Verdict::Problem(Exit::Failure), "1day behind"),
            (None, Verdict::Notice, "does not tell"),
        ] {
            let finding = judged(secs);
            assert_eq!(finding.verdict, verdict, "{secs:?}");
            assert!(finding.what.contains(words), "{}", finding.what);
            let has_difference = !finding.what.contains("does not tell");
            assert_eq!(finding.remedy.is_some(), has_difference && verdict != Verdict::Good);
        }
    }
}
