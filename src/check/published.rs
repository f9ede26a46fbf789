//! Findings about published documents: whether they are live, whether WeChat honours the token, whether another program
//! replaces it, and whether it is refreshed on schedule.

use std::fmt::Display;
use std::time::Duration;

use super::{Finding, messages};
use crate::error::Exit;
use crate::log::printable;
use crate::message::command::{command, report_rejected};
use crate::message::span;
use crate::model::account::Account;
use crate::model::api::Rules;
use crate::model::document::{CLASSIC_OVERLAP, Document};
use crate::model::errcode::Class;
use crate::model::kind::TicketType;
use crate::model::secret::Secret;
use crate::model::status::{DocumentStatus, Problem, Published};
use crate::os::local_time::local;
use crate::os::timestamp::{MAX_CLOCK_SKEW, Timestamp};
use crate::upstream::{Liveness, UpstreamError};

/// How late a refresh may be. A cron job or a timer that runs each minute needs less, retries included.
const TOLERATED_DELAY: Duration = Duration::from_secs(3 * 60);

/// The life left at which WeChat may regularly issue the next token.
const NEARLY_OVER: Duration = CLASSIC_OVERLAP.saturating_add(Duration::from_secs(60));

/// The token that the upstream issued on request: its current one.
pub(crate) struct CurrentToken {
    pub(crate) token: Secret,
    pub(crate) asked_at: Timestamp,
}

impl CurrentToken {
    fn is(&self, document: &Document) -> bool {
        self.token == document.token
    }

    /// Whether it replaced the published token before its time, as only a forced request on `stable` does.
    fn replaces(&self, rules: Rules, document: &Document) -> bool {
        // A document that was published after the request is newer than this token.
        let is_older = self.asked_at.since(document.created_at) > time::Duration::SECOND;
        let is_early = document.left(self.asked_at) > NEARLY_OVER;
        rules == Rules::Stable && !self.is(document) && is_older && is_early
    }
}

/// The published token. `liveness` is the result of a probe, if there was one; `current` the upstream's current token, if
/// that is of the same kind.
pub(crate) fn token(
    account: &Account,
    document: &Document,
    liveness: Option<&Liveness>,
    current: Option<&CurrentToken>,
    now: Timestamp,
) -> Finding {
    let about = "token";
    let name = document.token.fingerprint();
    let left = span(document.left(now));
    let values = [&name as &dyn Display, &left];
    match liveness {
        _ if document.left(now).is_zero() => {
            let expired = local(document.expires_at(now));
            let fetch = command("fetch", Some(&account.name), &[]);
            let values = [&name as &dyn Display, &expired, &fetch];
            Finding::problem(about, Exit::NoToken, &messages::EXPIRED, values)
        }
        Some(Liveness::Dead) => {
            let since = local(document.created_at(now));
            killed(account, &messages::DEAD.with([&name, &left, &since]))
        }
        _ if current.is_some_and(|it| it.replaces(account.rules, document)) => {
            let since = local(document.created_at(now));
            killed(account, &messages::REPLACED.with([&name, &left, &since]))
        }
        Some(Liveness::Alive) => Finding::good(about, &messages::HONOURED, values),
        // WeChat honours a token that it issues, even if it refuses this host's address.
        _ if current.is_some_and(|it| it.is(document)) => {
            Finding::good(about, &messages::GIVEN_AGAIN, values)
        }
        None if account.rules == Rules::Mirror && current.is_some() => {
            Finding::notice(about, &messages::SOURCE_IS_AHEAD, values)
        }
        // WeChat checks the allowlist before the token.
        Some(Liveness::Unknown(UpstreamError::Refused(refusal)))
            if refusal.class() == Class::Allowlist =>
        {
            Finding::notice(about, &messages::UNKNOWN_FROM_HERE, values)
        }
        Some(Liveness::Unknown(err)) => {
            Finding::notice(about, &messages::UNKNOWN, [&name, &left, err])
        }
        None => Finding::notice(about, &messages::NOT_TRIED, values),
    }
}

/// A token that was invalidated before its time, as `what` says.
fn killed(account: &Account, what: &str) -> Finding {
    let (about, exit) = ("token", Exit::NoToken);
    let replace = report_rejected(Some(&account.name));
    let values = [&what as &dyn Display, &replace];
    match account.rules {
        Rules::Classic => {
            let force = command("fetch", Some(&account.name), &["--force"]);
            let values = [&what as &dyn Display, &replace, &force];
            Finding::problem(about, exit, &messages::KILLED_ON_CLASSIC, values)
        }
        Rules::Stable => Finding::problem(about, exit, &messages::KILLED_ON_STABLE, values),
        Rules::Mirror => Finding::problem(about, exit, &messages::KILLED_AT_SOURCE, values),
        Rules::Work => Finding::problem(about, exit, &messages::KILLED_AT_WECOM, values),
    }
}

/// A document at `place` that cannot be used. `ticket` is its type if it is a ticket, and `store_fault` what was found to be wrong
/// with the whole store.
pub(crate) fn problem(
    about: &'static str,
    ticket: Option<&TicketType>,
    place: &str,
    problem: &Problem,
    store_fault: Option<&str>,
) -> Finding {
    let exit = Exit::NoToken;
    let fetch = command("fetch", None, &[]);
    let finding = match problem {
        Problem::Missing => Finding::problem(about, exit, &messages::MISSING, [&place, &fetch]),
        Problem::Damaged(why) => Finding::problem(about, exit, &messages::DAMAGED, [why, &fetch]),
        Problem::Unreadable(why) if Some(&**why) == store_fault => {
            Finding::problem(about, exit, &messages::SAME_AS_STORE, [])
        }
        // A fetch does not help.
        Problem::Unreadable(why) => Finding::problem(about, exit, &messages::UNREADABLE, [why]),
        Problem::Foreign { appid } => {
            let appid = printable(appid, 64);
            Finding::problem(about, exit, &messages::FOREIGN, [&place, &appid])
        }
    };
    finding.of_ticket(ticket)
}

/// A document that is not published because of a problem found before. `ticket` is its type if it is a ticket.
pub(crate) fn consequence(about: &'static str, ticket: Option<&TicketType>) -> Finding {
    Finding::notice(about, &messages::NOTHING_YET, []).of_ticket(ticket)
}

/// A ticket, by the clock alone: no answer of WeChat tells whether a ticket is honoured.
pub(crate) fn ticket(
    kind: &TicketType,
    status: &DocumentStatus,
    store_fault: Option<&str>,
) -> Finding {
    let about = "ticket";
    let finding = match &status.published {
        Ok(Published { life, fingerprint, expires_at, .. }) if life.is_zero() => {
            let (expired, fetch) = (local(*expires_at), command("fetch", None, &[]));
            let values = [fingerprint as &dyn Display, &expired, &fetch];
            Finding::problem(about, Exit::NoToken, &messages::EXPIRED, values)
        }
        Ok(Published { life, fingerprint, .. }) => {
            Finding::good(about, &messages::TICKET_LIVE, [fingerprint, &span(*life)])
        }
        Err(problem) => {
            return self::problem(about, Some(kind), &status.place, problem, store_fault);
        }
    };
    finding.of_ticket(Some(kind))
}

/// Whether the token is refreshed on schedule: then it is never due for long.
pub(crate) fn schedule(account: &Account, document: &Document, now: Timestamp) -> Finding {
    let about = "schedule";
    let ahead = -now.since(document.created_at);
    if ahead > MAX_CLOCK_SKEW {
        let ahead = span(ahead.unsigned_abs());
        return Finding::notice(about, &messages::CLOCK_SET_BACK, [&ahead]);
    }
    let age = Duration::try_from(-ahead).unwrap_or_default();
    // A mirror asks its upstream every half minute or so.
    let due_at = match account.rules {
        Rules::Mirror => document.created_at(now) + document.time_until_stale(document.created_at),
        _ => document.expires_at(now).saturating_sub(
            time::Duration::try_from(account.refresh_before.min(document.expires_in))
                .unwrap_or_default(),
        ),
    };
    let late = Duration::try_from(now.wall - due_at).unwrap_or_default();
    let age = span(age);
    if late <= TOLERATED_DELAY {
        return Finding::good(about, &messages::REFRESHED, [&age]);
    }
    Finding::notice(about, &messages::OVERDUE, [&age, &local(due_at)])
}

#[cfg(test)]
mod tests {
    use time::UtcDateTime;

    use super::super::Verdict;
    use super::*;

    fn at(secs: i64) -> Timestamp {
        let wall = UtcDateTime::from_unix_timestamp(1_790_000_000 + secs).unwrap();
        Timestamp::of_wall(wall)
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    fn account(rules: Rules, refresh_before: u64) -> Account {
        Account {
            appid: None,
            rules,
            refresh_before: Duration::from_secs(refresh_before),
            ..Account::for_tests("/nowhere/shop.json")
        }
    }

    #[test]
    fn a_document_that_is_due_for_long_is_not_refreshed() {
        for (rules, refresh_before, life, age, verdict, words) in [
            (Rules::Stable, 300, 7200, 600, Verdict::Good, "last asked for 10m ago"),
            (Rules::Stable, 300, 7200, 6900 + 180, Verdict::Good, "last asked"),
            (Rules::Stable, 300, 7200, 6900 + 181, Verdict::Notice, "not asked for since"),
            // Due since it was issued, with half an hour to live.
            (Rules::Stable, 3600, 1800, 60, Verdict::Good, "last asked for 1m ago"),
            (Rules::Stable, 3600, 1800, 200, Verdict::Notice, "not asked for since"),
            (Rules::Classic, 7200, 7200, 200, Verdict::Notice, "not asked for since"),
            (Rules::Mirror, 300, 7200, 200, Verdict::Good, "last asked"),
            (Rules::Mirror, 300, 7200, 240, Verdict::Notice, "not asked for since"),
            // A clock that differs a little, and one that was set back.
            (Rules::Stable, 300, 7200, -60, Verdict::Good, "last asked for 0s ago"),
            (Rules::Stable, 300, 7200, -61, Verdict::Notice, "1m 1s in the future"),
        ] {
            let life = Duration::from_secs(life);
            let document = Document::new("wx1", secret("T1"), life, at(-age));
            let found = schedule(&account(rules, refresh_before), &document, at(0));
            assert_eq!(found.verdict, verdict, "{rules:?} {refresh_before} {age}: {}", found.what);
            assert!(found.what.contains(words), "{}", found.what);
        }
    }

    #[test]
    fn another_current_token_means_a_forced_request_only_on_stable_and_before_its_time() {
        let document = Document::new("wx1", secret("T1"), Duration::from_secs(7200), at(0));
        let replaces = |rules, token, asked_at| {
            CurrentToken { token: secret(token), asked_at: at(asked_at) }.replaces(rules, &document)
        };
        assert!(replaces(Rules::Stable, "T2", 60));
        assert!(replaces(Rules::Stable, "T2", 7200 - 361));
        for (rules, token, asked_at) in [
            (Rules::Stable, "T1", 60),
            // The next one at its time.
            (Rules::Stable, "T2", 7200 - 360),
            // Published after the request.
            (Rules::Stable, "T2", 0),
            (Rules::Stable, "T2", -5),
            // WeCom does not promise to issue the same token, and a mirror lags behind.
            (Rules::Work, "T2", 60),
            (Rules::Mirror, "T2", 60),
        ] {
            assert!(!replaces(rules, token, asked_at), "{rules:?} {token} {asked_at}");
        }
    }
}
