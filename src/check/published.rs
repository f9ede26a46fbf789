//! Findings about published documents: whether they are live, whether WeChat honours the token, whether another program
//! replaces it, and whether it is refreshed on schedule.

use std::time::Duration;

use super::{Finding, span};
use crate::error::Exit;
use crate::language::{bilingual, in_both};
use crate::log::printable;
use crate::message::command::{command, report_rejected};
use crate::model::account::Account;
use crate::model::api::Rules;
use crate::model::document::{CLASSIC_OVERLAP, Document, rfc3339};
use crate::model::errcode::Class;
use crate::model::kind::TicketType;
use crate::model::secret::Secret;
use crate::model::status::{DocumentStatus, Problem, Published};
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
    let notice = |english: &str, chinese: &str| {
        Finding::notice(about, has_left(&name, &left, english, chinese))
    };
    match liveness {
        _ if document.left(now).is_zero() => {
            let expired = rfc3339(document.expires_at(now));
            let fetch = command("fetch", Some(&account.name), &[]);
            let what = in_both(
                format!("{name} expired at {expired}"),
                format!("{name} 已于 {expired} 过期"),
            );
            Finding::problem(about, Exit::NoToken, what).remedy(
                format!("Run {fetch} now, and see why it was not refreshed in time."),
                format!("请立即运行 {fetch}，并排查为何没有按时刷新。"),
            )
        }
        Some(Liveness::Dead) => {
            let since = rfc3339(document.created_at(now));
            let what = in_both(
                format!("{name} is dead, {left} before its time: killed some time after {since}. "),
                format!("{name} 已提前失效，本应还有 {left}：在 {since} 之后被作废。"),
            );
            killed(account, &what)
        }
        _ if current.is_some_and(|it| it.replaces(account.rules, document)) => {
            let since = rfc3339(document.created_at(now));
            let what = in_both(
                format!(
                    "{name} is no longer WeChat's current token, and dies in minutes with {left} left: replaced some \
                     time after {since}. "
                ),
                format!(
                    "{name} 已不是微信当前的 token，数分钟内失效，本应还有 {left}：在 {since} 之后被更换。"
                ),
            );
            killed(account, &what)
        }
        Some(Liveness::Alive) => {
            let what = in_both(
                format!("{name} is honoured, {left} left"),
                format!("{name} 有效，剩余 {left}"),
            );
            Finding::good(about, what)
        }
        // WeChat honours a token that it issues, even if it refuses this host's address.
        _ if current.is_some_and(|it| it.is(document)) => {
            let what = in_both(
                format!("{name} is given again, so it is honoured, {left} left"),
                format!("微信再次给出 {name}，因此有效，剩余 {left}"),
            );
            Finding::good(about, what)
        }
        None if account.rules == Rules::Mirror && current.is_some() => {
            notice("the other wxtoken gives another one by now", "上游现在给出的是另一个").remedy(
                "See schedule, below, unless a fetch follows within the minute.",
                "请看下面的 schedule 一项；若一分钟内会运行 fetch，则无须处理。",
            )
        }
        Some(Liveness::Unknown(err)) => unknown(&name, &left, err),
        None => notice("whether it is honoured was not tried", "未验证微信是否接受"),
    }
}

/// The text about a token of this name that has this life left, and something else.
fn has_left(name: &str, left: &str, english: &str, chinese: &str) -> String {
    in_both(format!("{name} has {left} left; {english}"), format!("{name} 剩余 {left}；{chinese}"))
}

/// A token whose probe was inconclusive.
fn unknown(name: &str, left: &str, err: &UpstreamError) -> Finding {
    let what = has_left(name, left, "whether it is honoured is unknown", "微信是否接受未知");
    match err {
        // WeChat checks the allowlist before the token.
        UpstreamError::Refused(refusal) if refusal.class() == Class::Allowlist => {
            let why = bilingual!(
                "this host's address was refused before the token was looked at",
                "本机地址先被拒绝，微信未检查 token"
            );
            Finding::notice("token", format!("{what}: {why}")).remedy(
                "See address, above; or check on a host that uses the token.",
                "见上面的 address 一项；也可在使用该 token 的主机上检查。",
            )
        }
        err => Finding::notice("token", format!("{what}: {err}")),
    }
}

/// A token that was invalidated before its time, as the sentence `what` says, with a blank after it in English.
fn killed(account: &Account, what: &str) -> Finding {
    let finding = |cause: &str| Finding::problem("token", Exit::NoToken, format!("{what}{cause}"));
    let replace = report_rejected(Some(&account.name));
    let force = command("fetch", Some(&account.name), &["--force"]);
    let now = format!("Replace it now: {replace}; serve --refresh does so when a client tells it.");
    let now_zh = format!("请立即更换：{replace}；serve --refresh 收到调用方报告后会自动更换。");
    match account.rules {
        Rules::Classic => finding(bilingual!(
            "Another program asks for this account's token, too: on classic each call kills the one before.",
            "另有程序也在获取该账号的 token：classic 接口每次调用都会使旧 token 失效。"
        ))
        .remedy(
            // In this order: what classic gives is killed again.
            format!(
                "First set api = \"stable\", which such programs do not disturb, or find that program and stop it. {now} \
                 If WeChat honours the token after all, run {force} instead."
            ),
            format!(
                "请先改 api = \"stable\"（不受其影响），或找出该程序并停用，再更换 token。{now_zh}若旧 token 仍有效，改用 {force}。"
            ),
        ),
        // The document does not say which API gave its token.
        Rules::Stable => finding(bilingual!(
            "The token was got by classic before api was changed, another program asks with force_refresh, or the \
             AppSecret was reset.",
            "该 token 是改 api 之前由 classic 接口获取的，或另有程序带 force_refresh 刷新，或 AppSecret 已被重置。"
        ))
        .remedy(
            format!(
                "If api was classic until lately, replace the token once, and that is all; else find the program that sends \
                 force_refresh, or the reset of the AppSecret. {now}"
            ),
            format!(
                "若刚由 classic 改为 stable，更换一次即可；否则请找出带 force_refresh 的程序，或确认 AppSecret 是否被重置。{now_zh}"
            ),
        ),
        Rules::Mirror => finding(bilingual!(
            "Another program asks with force_refresh, or the AppSecret was reset.",
            "另有程序带 force_refresh 刷新，或 AppSecret 已被重置。"
        ))
        .remedy(
            format!("Find the program that sends force_refresh, or the reset of the AppSecret. {now}"),
            format!("请找出带 force_refresh 的程序，或确认 AppSecret 是否被重置。{now_zh}"),
        ),
        Rules::Work => finding(bilingual!(
            "The app's secret was reset, or the app was disabled.",
            "应用的 Secret 已被重置，或应用已停用。"
        ))
        .remedy(
            format!("Look at the app in WeCom's console. {now}"),
            format!("请在企业微信管理后台「应用管理」中查看该应用的 Secret 与状态。{now_zh}"),
        ),
    }
}

/// A document at `place` that cannot be used. `ticket` is its type if it is a ticket.
pub(crate) fn problem(
    about: &'static str,
    ticket: Option<&TicketType>,
    place: &str,
    problem: &Problem,
) -> Finding {
    let why = match problem {
        Problem::Missing => in_both(
            format!("nothing is published: {place} does not exist"),
            format!("尚未发布：{place} 不存在"),
        ),
        Problem::Unreadable(why) | Problem::Damaged(why) => why.clone(),
        Problem::Foreign { appid } => {
            let appid = printable(appid, 64);
            in_both(
                format!("{place} belongs to {appid}, another account"),
                format!("{place} 属于另一账号 {appid}"),
            )
        }
    };
    let why = match ticket {
        Some(kind) => format!("{kind}: {why}"),
        None => why,
    };
    match problem {
        // A fetch does not help.
        Problem::Unreadable(_) => Finding::problem(about, Exit::NoToken, why).remedy(
            "See store or directory, above; run this as the user that runs fetch, or as a member of the group that may read it.",
            "见上面的 store 或 directory 一项；请以运行 fetch 的用户，或有读权限的组成员执行。",
        ),
        Problem::Missing | Problem::Damaged(_) | Problem::Foreign { .. } => replaceable(about, why),
    }
}

/// A document that is not published because of a problem found before. `ticket` is its type if it is a ticket.
pub(crate) fn consequence(about: &'static str, ticket: Option<&TicketType>) -> Finding {
    let what = bilingual!("nothing is published yet", "尚未发布");
    let what = match ticket {
        Some(kind) => format!("{kind}: {what}"),
        None => what.to_owned(),
    };
    Finding::notice(about, what).remedy(
        "Solve the problem above first; the next run of fetch publishes then.",
        "请先解决上面的问题，下次运行会自动获取。",
    )
}

/// A document that the next fetch replaces.
fn replaceable(about: &'static str, why: String) -> Finding {
    let fetch = command("fetch", None, &[]);
    Finding::problem(about, Exit::NoToken, why).remedy(
        format!("Run {fetch} as the user that keeps it fresh."),
        format!("请以负责刷新的用户运行 {fetch}。"),
    )
}

/// A ticket, by the clock alone: no answer of WeChat tells whether a ticket is honoured.
pub(crate) fn ticket(kind: &TicketType, status: &DocumentStatus) -> Finding {
    let about = "ticket";
    match &status.published {
        Ok(Published { life, fingerprint, expires_at, .. }) if life.is_zero() => {
            let expired = rfc3339(*expires_at);
            let what = in_both(
                format!("{kind}: {fingerprint} expired at {expired}"),
                format!("{kind}: {fingerprint} 已于 {expired} 过期"),
            );
            replaceable(about, what)
        }
        Ok(Published { life, fingerprint, .. }) => {
            let left = span(*life);
            let what = in_both(
                format!("{kind}: {fingerprint} has {left} left"),
                format!("{kind}: {fingerprint} 剩余 {left}"),
            );
            Finding::good(about, what)
        }
        Err(problem) => self::problem(about, Some(kind), &status.place, problem),
    }
}

/// Whether the token is refreshed on schedule: then it is never due for long.
pub(crate) fn schedule(account: &Account, document: &Document, now: Timestamp) -> Finding {
    let about = "schedule";
    let ahead = -now.since(document.created_at);
    if ahead > MAX_CLOCK_SKEW {
        let ahead = span(ahead.unsigned_abs());
        let what = in_both(
            format!("asked for {ahead} in the future: a clock was set back, or differs"),
            format!("获取时间比现在晚 {ahead}：时钟被调回，或各主机时间不一致"),
        );
        return Finding::notice(about, what).remedy(
            "See that NTP keeps the clocks of all hosts that fetch; the next fetch asks anew.",
            "请确认所有刷新主机的时间由 NTP 校准；下次 fetch 会重新获取。",
        );
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
        let what = in_both(format!("last asked for {age} ago"), format!("上次获取在 {age} 之前"));
        return Finding::good(about, what);
    }
    let due_at = rfc3339(due_at);
    let what = in_both(
        format!("last asked for {age} ago, and due since {due_at}: not asked for since"),
        format!("上次获取在 {age} 之前，{due_at} 起就应刷新，至今未刷新"),
    );
    Finding::notice(about, what).remedy(
        "See whether cron, the timer (systemctl list-timers) or serve --refresh runs, and what it said last.",
        "请确认 cron、systemd 定时器（systemctl list-timers）或 serve --refresh 正在运行，并查看其最近的日志。",
    )
}

#[cfg(test)]
mod tests {
    use time::UtcDateTime;

    use super::super::Verdict;
    use super::*;
    use crate::model::api::Api;
    use crate::model::location::Location;

    fn at(secs: i64) -> Timestamp {
        let wall = UtcDateTime::from_unix_timestamp(1_790_000_000 + secs).unwrap();
        Timestamp::of_wall(wall)
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    fn account(rules: Rules, refresh_before: u64) -> Account {
        Account {
            name: "shop".to_owned(),
            appid: None,
            api: Api::Stable,
            rules,
            refresh_before: Duration::from_secs(refresh_before),
            location: Location::File("/nowhere/shop.json".into()),
            tickets: Vec::new(),
            on_change: None,
            on_trouble: None,
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
