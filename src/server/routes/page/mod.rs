//! `GET /`: a page for the person on call: whether all is well, what is not, and what to do about it, in English and
//! Chinese. Uses no script, loads nothing, and shows no token.

mod text;

use std::cmp::Reverse;
use std::time::Duration;

use time::UtcDateTime;

use self::text::{both, escaped, instant, moment, relative, span};
use crate::model::kind::TicketType;
use crate::model::status::{
    AccountStatus, DocumentState, DocumentStatus, Published, RefreshFailure, RefreshStatus,
};

const STYLE: &str = include_str!("style.css");

/// How often a browser reloads the page: soon enough to see that a remedy has helped.
const RELOAD: Duration = Duration::from_secs(10);

/// A token is refreshed with five minutes left by default. With less than this left, the refresh is overdue.
const NEAR_THE_END: Duration = Duration::from_secs(180);

/// The headline names up to this many accounts in trouble.
const MAX_NAMED: usize = 5;

/// The condition of an account, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Condition {
    Live,
    /// The token is live; a ticket is missing or cannot be refreshed.
    NoTicket,
    /// The token is live and cannot be refreshed.
    Failing,
    /// The token is live and was not refreshed in time.
    EndsSoon,
    Expired,
    /// The token has life left, and WeChat says that it is dead.
    Dead,
    Missing,
}

impl Condition {
    fn new(account: &AccountStatus) -> Condition {
        match account.token.state() {
            DocumentState::Missing | DocumentState::Unreadable | DocumentState::Foreign => {
                Condition::Missing
            }
            DocumentState::Expired => Condition::Expired,
            DocumentState::Dead => Condition::Dead,
            DocumentState::Live | DocumentState::Due => match account.token.life() {
                life if life < NEAR_THE_END => Condition::EndsSoon,
                _ if account.token.failure.is_some() => Condition::Failing,
                _ if !account.tickets.iter().all(|(_, it)| is_well(it)) => Condition::NoTicket,
                _ => Condition::Live,
            },
        }
    }

    /// Its class in the style, and a sign that tells it apart without colours.
    fn tone(self) -> (&'static str, &'static str) {
        match self {
            Condition::Live => ("well", "✓"),
            Condition::NoTicket | Condition::Failing | Condition::EndsSoon => ("wary", "!"),
            Condition::Expired | Condition::Dead | Condition::Missing => ("ill", "✗"),
        }
    }

    /// A word or two for people.
    fn word(self) -> String {
        match self {
            Condition::Live => both("live", "有效"),
            Condition::NoTicket => both("ticket in trouble", "ticket 异常"),
            Condition::Failing => both("not renewed", "刷新失败"),
            Condition::EndsSoon => both("ends soon", "即将到期"),
            Condition::Expired => both("expired", "已过期"),
            Condition::Dead => both("dead", "已失效"),
            Condition::Missing => both("no token", "没有 token"),
        }
    }
}

/// Whether a ticket is handed out and was not refused when it was last refreshed.
fn is_well(ticket: &DocumentStatus) -> bool {
    ticket.is_live() && ticket.failure.is_none()
}

/// The page about these accounts. The worst come first.
pub(crate) fn html(accounts: &[AccountStatus], now: UtcDateTime) -> String {
    let mut accounts: Vec<_> = accounts.iter().map(|it| (Condition::new(it), it)).collect();
    accounts.sort_by_key(|(condition, _)| Reverse(*condition));
    let worst = accounts.first().map_or(Condition::Live, |(condition, _)| *condition);
    let header = header(worst, &accounts);
    let articles: String =
        accounts.iter().map(|(condition, it)| article(*condition, it, now)).collect();
    let ((_, sign), reload) = (worst.tone(), RELOAD.as_secs());
    let (version, instant) = (env!("CARGO_PKG_VERSION"), instant(now));
    let again = both(
        format_args!("this page renews itself every {reload} s"),
        format_args!("本页每 {reload} 秒自动更新"),
    );
    let next = match worst {
        Condition::Live => both("If something is wrong", "如有异常"),
        _ => both("What to do", "怎么办"),
    };
    let status = both(
        "tells what is published, and what is wrong with it.",
        "查看已发布的 token 及其问题。",
    );
    let fetch = both(
        "asks WeChat if a new token is due, and tells what it says.",
        "如 token 该刷新，立即向微信获取，并说明结果。",
    );
    format!(
        r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="{reload}">
<meta name="color-scheme" content="light dark">
<title>{sign} wxtoken</title>
<style>
{STYLE}</style>
</head>
<body>
{header}<main>
{articles}</main>
<aside>
<h2>{next}</h2>
<dl>
<dt><code>wxtoken status</code></dt><dd>{status}</dd>
<dt><code>wxtoken fetch -v</code></dt><dd>{fetch}</dd>
</dl>
</aside>
<footer>wxtoken {version} · {instant} · {again}</footer>
</body>
</html>
"#
    )
}

/// The headline: whether all is well, at a glance.
fn header(worst: Condition, accounts: &[(Condition, &AccountStatus)]) -> String {
    let (class, sign) = worst.tone();
    let concerned: Vec<&str> = accounts
        .iter()
        .filter(|(condition, _)| condition.tone() == worst.tone())
        .map(|(_, it)| it.name.as_str())
        .collect();
    let (all, some, names) = (accounts.len(), concerned.len(), escaped(&concerned.join(", ")));
    let title = match worst {
        Condition::Live if all == 0 => both("No account to show", "没有可显示的账号"),
        Condition::Live => both("All is well", "一切正常"),
        Condition::NoTicket => both("Tokens are well, a ticket is not", "token 正常，ticket 异常"),
        Condition::Failing | Condition::EndsSoon => {
            both("Working, but not for long", "仍可用，但需尽快处理")
        }
        Condition::Expired | Condition::Dead | Condition::Missing => {
            both("No live token", "没有可用的 token")
        }
    };
    let subject = match worst {
        Condition::Live if all == 0 => String::new(),
        Condition::Live if all == 1 => {
            both(format_args!("{names} has a live token."), format_args!("{names} 的 token 有效。"))
        }
        Condition::Live => both(
            format_args!("{all} accounts, each with a live token."),
            format_args!("{all} 个账号的 token 均有效。"),
        ),
        _ if all == 1 => names,
        _ => {
            let share = both(
                format_args!("{some} of {all} accounts"),
                format_args!("{all} 个账号中的 {some} 个"),
            );
            if some <= MAX_NAMED { format!("{names} — {share}") } else { share }
        }
    };
    format!(
        "<header class=\"{class}\">\n<p class=\"sign\" aria-hidden=\"true\">{sign}</p>\n\
         <div>\n<h1>{title}</h1>\n<p>{subject}</p>\n</div>\n</header>\n"
    )
}

/// One account.
fn article(condition: Condition, account: &AccountStatus, now: UtcDateTime) -> String {
    let ((class, sign), word) = (condition.tone(), condition.word());
    let name = escaped(&account.name);
    let mut html = format!("<article class=\"{class}\">\n<h2>{name} <b>{sign} {word}</b></h2>\n");
    if let Some(appid) = &account.appid {
        html += &format!("<p class=\"appid\">{}</p>\n", escaped(appid));
    }
    if let Ok(token) = &account.token.published {
        html += &life(token, account.token.is_dead, now);
    }
    let rows = rows(account, now);
    if !rows.is_empty() {
        html += &format!("<dl>\n{rows}</dl>\n");
    }
    html + &advice(condition, account, now) + "</article>\n"
}

/// What is known of an account's token, its refreshes, its hook and its tickets.
fn rows(account: &AccountStatus, now: UtcDateTime) -> String {
    let mut rows = String::new();
    let token = account.token.published.as_ref();
    if let Ok(token) = token {
        rows += &row("Created", "创建", moment(token.created_at, now));
        rows += &row("Ends", "到期", moment(token.expires_at, now));
    }
    if let Some(RefreshStatus { succeeded_at, next_at, .. }) = &account.refresh {
        let never = || both("not yet", "尚无");
        let moment = |at: &Option<UtcDateTime>| at.map_or_else(never, |at| moment(at, now));
        rows += &row("Refreshed", "刷新", moment(succeeded_at));
        rows += &row("Next try", "下次尝试", moment(next_at));
    }
    if let Ok(token) = token {
        let fingerprint = format!("<code>{}</code>", escaped(&token.fingerprint));
        rows += &row("Fingerprint", "指纹", fingerprint);
    }
    let hook = account.refresh.as_ref().and_then(|refresh| refresh.hook.as_ref()?.failed_at);
    if let Some(at) = hook {
        let failed = both("failed, see the log", "失败，见日志");
        rows += &format!("<dt>on_change</dt><dd>! {failed} · {}</dd>\n", relative(at, now));
    }
    rows + &account.tickets.iter().map(|(kind, it)| ticket_row(kind, it, now)).collect::<String>()
}

/// What is known of a ticket.
fn ticket_row(kind: &TicketType, ticket: &DocumentStatus, now: UtcDateTime) -> String {
    let sign = if is_well(ticket) { "✓" } else { "!" };
    let value = match &ticket.published {
        Err(_) => both("none", "没有"),
        Ok(ticket) if ticket.life.is_zero() => {
            format!("{} · {}", both("expired", "已过期"), relative(ticket.expires_at, now))
        }
        Ok(ticket) => {
            let (english, chinese) = span(ticket.life.as_secs());
            let left = both(format_args!("{english} left"), format_args!("剩余 {chinese}"));
            format!("{left} <code>{}</code>", escaped(&ticket.fingerprint))
        }
    };
    format!("<dt>{kind} ticket</dt><dd>{sign} {value}</dd>\n")
}

/// How much life a token has left, in words and as a bar.
fn life(token: &Published, is_dead: bool, now: UtcDateTime) -> String {
    let words = if token.life.is_zero() {
        let (english, chinese) = span((now - token.expires_at).whole_seconds().max(0) as u64);
        format!("<b>{english}</b> {}", both("past its end", format_args!("已过期 {chinese}")))
    } else {
        let (english, chinese) = span(token.life.as_secs());
        let left = match is_dead {
            false => both("left", format_args!("剩余 {chinese}")),
            true => both("too early", format_args!("提前 {chinese}失效")),
        };
        format!("<b>{english}</b> {left}")
    };
    let share = token.life.as_secs_f64() / token.expires_in.as_secs_f64().max(1.0);
    let percent = if is_dead { 0.0 } else { (share * 100.0).min(100.0) };
    format!(
        "<p class=\"left\">{words}</p>\n<div class=\"bar\" role=\"meter\" aria-label=\"life left\" aria-valuemin=\"0\" \
         aria-valuemax=\"100\" aria-valuenow=\"{percent:.0}\"><i style=\"width:{percent:.1}%\"></i></div>\n"
    )
}

/// What is wrong with an account and what to do about it, as far as is known here; nothing for a healthy one.
fn advice(condition: Condition, account: &AccountStatus, now: UtcDateTime) -> String {
    let last_failure = |failure: &RefreshFailure| {
        format!("{} · {}", both("Last failure", "上次失败"), relative(failure.at, now))
    };
    let tickets =
        account.tickets.iter().filter_map(|(kind, it)| Some((kind, it.failure.as_ref()?)));
    let of_tickets: String = tickets
        .map(|(kind, failure)| {
            let title = format!("{kind} ticket: {}", last_failure(failure));
            section(&title, &escaped(&failure.message))
        })
        .collect();
    let (title, text) = match (condition, &account.token.failure) {
        (_, Some(failure)) => (last_failure(failure), escaped(&failure.message)),
        (Condition::NoTicket, None) if of_tickets.is_empty() => (
            both("A ticket is not there", "缺少 ticket"),
            both(
                "It is fetched after the token. Does <code>wxtoken fetch</code> run with the same config, and what does it say?",
                "ticket 在 token 之后获取。请检查 <code>wxtoken fetch</code> 是否使用同一配置运行，以及其输出。",
            ),
        ),
        (Condition::Live | Condition::NoTicket | Condition::Failing, None) => return of_tickets,
        (Condition::Missing, None) => (
            both("Nothing is published", "尚未发布"),
            both(
                "There is no document, or it cannot be read, or it is another account's; <code>wxtoken status</code> says which.",
                "没有 token 文件，或无法读取，或属于其他账号；原因见 <code>wxtoken status</code>。",
            ),
        ),
        (Condition::Dead, None) => (
            both("WeChat does not honour it any more", "微信已不认可该 token"),
            both(
                "Another one is asked for as soon as may be. Does another program ask WeChat with the same AppSecret?",
                "将尽快重新获取。请检查是否有其他程序使用同一 AppSecret 获取 token。",
            ),
        ),
        (Condition::EndsSoon | Condition::Expired, None) if account.refresh.is_none() => (
            both("Nobody has renewed it", "无人刷新"),
            both(
                "This server only hands out. Does the timer or cron job of <code>wxtoken fetch</code> still run?",
                "本服务只负责分发；请检查 <code>wxtoken fetch</code> 的定时任务是否仍在运行。",
            ),
        ),
        (Condition::EndsSoon | Condition::Expired, None) => return of_tickets,
    };
    section(&title, &text) + &of_tickets
}

/// A title and a text below it.
fn section(title: &str, text: &str) -> String {
    format!("<section>\n<h3>{title}</h3>\n<p>{text}</p>\n</section>\n")
}

/// A name and a value beside it.
fn row(english: &str, chinese: &str, value: String) -> String {
    format!("<dt>{}</dt><dd>{value}</dd>\n", both(english, chinese))
}

#[cfg(test)]
mod tests;
