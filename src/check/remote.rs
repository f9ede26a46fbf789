//! Findings about the upstream: whether it answers, its clock, the address that it sees, and whether it accepts the
//! credentials.

use std::fmt::Display;
use std::time::{Duration, Instant};

use super::{Finding, Verdict, messages};
use crate::error::Exit;
use crate::message::span;
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
                let values = [&name as &dyn Display, &reply.took.as_millis()];
                findings.push(Finding::good("host", &messages::ANSWERS, values));
                first.get_or_insert(reply);
            }
            Err(err) => findings.push(unreached(&name, &err)),
        }
    }
    // One that answers is enough; the others are its reserve.
    if first.is_some() {
        for finding in &mut findings {
            finding.verdict = finding.verdict.min(Verdict::Notice);
        }
    }
    (findings, first)
}

/// A server that did not answer, and what to do about the stage that failed.
fn unreached(name: &str, err: &UpstreamError) -> Finding {
    let about = "host";
    let UpstreamError::Unreachable(unreachable) = err else {
        let finding = Finding::from_upstream(about, err);
        return Finding { what: format!("{name}: {}", finding.what), ..finding };
    };
    Finding {
        about,
        verdict: Verdict::Problem(err.exit()),
        what: format!("{name}: {}", unreachable.reason()),
        remedy: Some(unreachable.remedy().map(str::to_owned)),
    }
}

/// How far this host's clock differs from the upstream's.
pub(crate) fn clock(reply: &PingReply) -> Finding {
    let about = "clock";
    let Some(ahead) = reply.ahead else {
        return Finding::notice(about, &messages::NO_CLOCK, []);
    };
    let difference = ahead.unsigned_abs();
    let note = if ahead.is_negative() { &messages::CLOCK_BEHIND } else { &messages::CLOCK_AHEAD };
    let span = span(difference);
    let what = note.with([&span]);
    match difference.as_secs() {
        0 => Finding::good(about, &messages::CLOCK_EQUAL, []),
        1..=TOLERATED => Finding::good(about, note, [&span]),
        secs if secs < HARMFUL => Finding::notice(about, &messages::CLOCK_DIFFERS, [&what]),
        _ => Finding::problem(about, Exit::Failure, &messages::CLOCK_WRONG, [&what]),
    }
}

/// The address that WeChat sees, if it is known, or a notice that calls with the token are refused from it. On WeCom a
/// host can be allowed to request tokens and not to use them.
pub(crate) fn address(seen_from: Option<&str>, pulse: Option<&Liveness>) -> Option<Finding> {
    let about = "address";
    match pulse {
        Some(Liveness::Unknown(err @ UpstreamError::Refused(refusal)))
            if refusal.class() == Class::Allowlist =>
        {
            Some(Finding::notice(about, &messages::ADDRESS_REFUSED, [err]))
        }
        _ => seen_from.map(|it| Finding::good(about, &messages::SEEN_FROM, [&it])),
    }
}

/// Whether the credentials are accepted. `answer` is that to a request for a token; on `classic` for a stable one, which
/// does not invalidate the classic ones.
pub(crate) fn credentials(rules: Rules, answer: &Result<IssuedToken, UpstreamError>) -> Finding {
    let about = "credentials";
    let note = match (answer, rules) {
        (Err(err), _) => return Finding::from_upstream(about, err),
        (Ok(_), Rules::Mirror) => &messages::ACCEPTED_BY_SOURCE,
        (Ok(_), Rules::Work) => &messages::ACCEPTED_BY_WECOM,
        (Ok(_), Rules::Stable) => &messages::ACCEPTED,
        (Ok(_), Rules::Classic) => &messages::ACCEPTED_ON_CLASSIC,
    };
    Finding::good(about, note, [])
}

#[cfg(test)]
mod tests {
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
            (Some(-86_400), Verdict::Problem(Exit::Failure), "1d behind"),
            (None, Verdict::Notice, "does not tell"),
        ] {
            let finding = judged(secs);
            assert_eq!(finding.verdict, verdict, "{secs:?}");
            assert!(finding.what.contains(words), "{}", finding.what);
            assert_eq!(finding.remedy.is_some(), verdict != Verdict::Good);
        }
    }
}
