//! `GET /`: a page for the person on call: whether all is well, what is not, and what to do about it, in English and
//! Chinese. Uses no script, loads nothing, and shows no token.

mod text;

use std::cmp::Reverse;
use std::time::Duration;

use time::UtcDateTime;

use self::text::{Reader, escaped, span};
use crate::language::Language;
use crate::model::account::DEFAULT_ACCOUNT;
use crate::model::kind::TicketType;
use crate::model::status::{
    AccountStatus, DocumentState, DocumentStatus, Published, RefreshFailure, RefreshStatus,
};
use crate::os::local_time::LocalZone;

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

    /// Whether the headline has the same words for both.
    fn is_told_as(self, other: Condition) -> bool {
        use Condition::{Dead, EndsSoon, Expired, Failing, Missing};
        match self {
            Condition::Live | Condition::NoTicket => self == other,
            Failing | EndsSoon => matches!(other, Failing | EndsSoon),
            Expired | Dead | Missing => matches!(other, Expired | Dead | Missing),
        }
    }

    /// A word or two for people.
    fn word(self, reader: &Reader<'_>) -> String {
        match self {
            Condition::Live => reader.both("live", "有效"),
            Condition::NoTicket => reader.both("ticket in trouble", "ticket 异常"),
            Condition::Failing => reader.both("not renewed", "刷新失败"),
            Condition::EndsSoon => reader.both("ends soon", "即将到期"),
            Condition::Expired => reader.both("expired", "已过期"),
            Condition::Dead => reader.both("dead", "已失效"),
            Condition::Missing => reader.both("no token", "没有 token"),
        }
    }
}

/// Whether a ticket is handed out and was not refused when it was last refreshed.
fn is_well(ticket: &DocumentStatus) -> bool {
    ticket.is_live() && ticket.failure.is_none()
}

/// The page about these accounts, in this language and with the times of this zone. The worst accounts come first.
pub(crate) fn html(
    accounts: &[AccountStatus],
    language: Language,
    zone: &LocalZone,
    now: UtcDateTime,
) -> String {
    let reader = &Reader { language, zone, now };
    let mut accounts: Vec<_> = accounts.iter().map(|it| (Condition::new(it), it)).collect();
    accounts.sort_by_key(|(condition, _)| Reverse(*condition));
    let worst = accounts.first().map_or(Condition::Live, |(condition, _)| *condition);
    let header = header(worst, &accounts, reader);
    // A title has one language: it has no markup that could tell two apart.
    let title = headline(worst, &accounts, &Reader { language: reader.one_language(), ..*reader });
    let articles: String =
        accounts.iter().map(|(condition, it)| article(*condition, it, reader)).collect();
    let ((_, sign), reload) = (worst.tone(), RELOAD.as_secs());
    let (version, instant) = (env!("CARGO_PKG_VERSION"), reader.instant(now));
    let (language, check) = (reader.tag(), check_command(worst, &accounts));
    let again = reader.both(
        format_args!("this page renews itself every {reload} s"),
        format_args!("本页每 {reload} 秒自动更新"),
    );
    let next = match worst {
        Condition::Live => reader.both("If something is wrong", "如有异常"),
        _ => reader.both("What to do", "怎么办"),
    };
    let finds = reader.both(
        "finds what is wrong, from this host to WeChat, and says what to do.",
        "检查从本机到微信的每个环节，指出问题和处理办法。",
    );
    let status = reader.both(
        "tells what is published, and what is wrong with it.",
        "查看已发布的 token 及其问题。",
    );
    let fetch = reader.both(
        "asks WeChat if a new token is due, and tells what it says.",
        "如 token 该刷新，立即向微信获取，并说明结果。",
    );
    format!(
        r#"<!DOCTYPE html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="{reload}">
<meta name="color-scheme" content="light dark">
<title>{sign} {title} · wxtoken</title>
<style>
{STYLE}</style>
</head>
<body>
{header}<main>
{articles}</main>
<aside>
<h2>{next}</h2>
<dl>
<dt><code>{check}</code></dt><dd>{finds}</dd>
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

/// Returns the command that says more: about the account in trouble, if it is one of several.
fn check_command(worst: Condition, accounts: &[(Condition, &AccountStatus)]) -> String {
    match concerned(worst, accounts)[..] {
        [name] if worst != Condition::Live && name != DEFAULT_ACCOUNT => {
            format!("wxtoken check {}", escaped(name))
        }
        _ => "wxtoken check".to_owned(),
    }
}

/// Returns the names of the accounts of which the headline says the same as of the worst.
fn concerned<'a>(worst: Condition, accounts: &[(Condition, &'a AccountStatus)]) -> Vec<&'a str> {
    let concerned = accounts.iter().filter(|(condition, _)| condition.is_told_as(worst));
    concerned.map(|(_, it)| it.name.as_str()).collect()
}

/// The headline: whether all is well, and if not, how many accounts are concerned.
fn headline(
    worst: Condition,
    accounts: &[(Condition, &AccountStatus)],
    reader: &Reader<'_>,
) -> String {
    let (all, some) = (accounts.len(), concerned(worst, accounts).len());
    // The number, and what is said of one account and of several.
    let extent = |of_one: &str, of_several: &str, chinese: &str| {
        let verb = if some == 1 { of_one } else { of_several };
        reader.both(
            format_args!("{some} of {all} accounts {verb}"),
            format_args!("{all} 个账号中有 {some} 个{chinese}"),
        )
    };
    match worst {
        Condition::Live if all == 0 => reader.both("No account to show", "没有可显示的账号"),
        Condition::Live => reader.both("All is well", "一切正常"),
        Condition::NoTicket if all == 1 => {
            reader.both("The token is well, a ticket is not", "token 正常，ticket 异常")
        }
        Condition::NoTicket => {
            extent("has no good ticket", "have no good ticket", "的 ticket 异常")
        }
        Condition::Failing | Condition::EndsSoon if all == 1 => {
            reader.both("Working, but not for long", "仍可用，但需尽快处理")
        }
        Condition::Failing | Condition::EndsSoon => {
            extent("works, but not for long", "work, but not for long", "仍可用，但需尽快处理")
        }
        Condition::Expired | Condition::Dead | Condition::Missing if all == 1 => {
            reader.both("No live token", "没有可用的 token")
        }
        Condition::Expired | Condition::Dead | Condition::Missing => {
            extent("has no token", "have no token", "没有可用的 token")
        }
    }
}

/// The headline with its sign, and the accounts concerned below it.
fn header(
    worst: Condition,
    accounts: &[(Condition, &AccountStatus)],
    reader: &Reader<'_>,
) -> String {
    let (class, sign) = worst.tone();
    let concerned = concerned(worst, accounts);
    let (all, some) = (accounts.len(), concerned.len());
    let title = headline(worst, accounts, reader);
    let comma = if reader.language == Language::Chinese { "、" } else { ", " };
    let named = escaped(&concerned[..some.min(MAX_NAMED)].join(comma));
    let subject = match worst {
        Condition::Live if all == 0 => String::new(),
        Condition::Live if all == 1 => {
            let name = &named;
            reader.both(
                format_args!("{name} has a live token."),
                format_args!("{name} 的 token 有效。"),
            )
        }
        Condition::Live => reader.both(
            format_args!("{all} accounts, each with a live token."),
            format_args!("{all} 个账号的 token 均有效。"),
        ),
        _ if some <= MAX_NAMED => named,
        _ => {
            let rest = some - MAX_NAMED;
            let more = reader.both(format_args!("and {rest} more"), format_args!("等 {some} 个"));
            format!("{named} {more}")
        }
    };
    format!(
        "<header class=\"{class}\">\n<p class=\"sign\" aria-hidden=\"true\">{sign}</p>\n\
         <div>\n<h1>{title}</h1>\n<p>{subject}</p>\n</div>\n</header>\n"
    )
}

/// One account.
fn article(condition: Condition, account: &AccountStatus, reader: &Reader<'_>) -> String {
    let ((class, sign), word) = (condition.tone(), condition.word(reader));
    let name = escaped(&account.name);
    let mut html = format!(
        "<article class=\"{class}\">\n<h2>{name} <b><span aria-hidden=\"true\">{sign}</span> {word}</b></h2>\n"
    );
    if let Some(appid) = &account.appid {
        html += &format!("<p class=\"appid\">{}</p>\n", escaped(appid));
    }
    if let Ok(token) = &account.token.published {
        html += &life(token, account.token.is_dead, reader);
    }
    let rows = rows(account, reader);
    if !rows.is_empty() {
        html += &format!("<dl>\n{rows}</dl>\n");
    }
    html + &advice(condition, account, reader) + "</article>\n"
}

/// What is known of an account's token, its refreshes, its hooks and its tickets.
fn rows(account: &AccountStatus, reader: &Reader<'_>) -> String {
    let mut rows = String::new();
    let row = |english: &str, chinese: &str, value: String| row(reader, english, chinese, value);
    let token = account.token.published.as_ref();
    let never = || reader.both("not yet", "尚无");
    if let Ok(token) = token {
        let refreshed =
            format!("{} {}", reader.moment(token.created_at), author(account, token, reader));
        rows += &row("Refreshed", "刷新", refreshed);
        rows += &row("Ends", "到期", reader.instant(token.expires_at));
    } else if account.refresh.is_some() {
        rows += &row("Refreshed", "刷新", never());
    }
    if let Some(RefreshStatus { next_at, .. }) = &account.refresh {
        let next = next_at.map_or_else(never, |at| reader.moment(at));
        rows += &row("Next try", "下次尝试", next);
    }
    if let Ok(token) = token {
        let fingerprint = format!("<code>{}</code>", escaped(&token.fingerprint));
        rows += &row("Fingerprint", "指纹", fingerprint);
    }
    let hooks = account
        .refresh
        .as_ref()
        .map(|refresh| [("on_change", &refresh.hook), ("on_trouble", &refresh.trouble_hook)]);
    for (key, hook) in hooks.into_iter().flatten() {
        if let Some(at) = hook.as_ref().and_then(|hook| hook.failed_at) {
            let failed = reader.both("failed, see the log", "失败，见日志");
            rows += &format!("<dt>{key}</dt><dd>! {failed} · {}</dd>\n", reader.relative(at));
        }
    }
    rows + &account
        .tickets
        .iter()
        .map(|(kind, it)| ticket_row(kind, it, reader))
        .collect::<String>()
}

/// Who refreshed the token: this server, if WeChat has given it one since, or another program.
fn author(account: &AccountStatus, token: &Published, reader: &Reader<'_>) -> String {
    let succeeded_at = account.refresh.as_ref().and_then(|refresh| refresh.succeeded_at);
    let author = match succeeded_at {
        Some(at) if at >= token.created_at => reader.both("by this server", "由本服务刷新"),
        _ => reader.both(
            "by <code>wxtoken fetch</code> or another host",
            "由 <code>wxtoken fetch</code> 或其他主机刷新",
        ),
    };
    format!("<small>{author}</small>")
}

/// What is known of a ticket.
fn ticket_row(kind: &TicketType, ticket: &DocumentStatus, reader: &Reader<'_>) -> String {
    let sign = if is_well(ticket) { "✓" } else { "!" };
    let value = match &ticket.published {
        Err(_) => reader.both("none", "没有"),
        Ok(ticket) if ticket.life.is_zero() => {
            format!("{} · {}", reader.both("expired", "已过期"), reader.relative(ticket.expires_at))
        }
        Ok(ticket) => {
            let (english, chinese) = span(ticket.life.as_secs());
            let left = reader.both(format_args!("{english} left"), format_args!("剩余 {chinese}"));
            format!("{left} <code>{}</code>", escaped(&ticket.fingerprint))
        }
    };
    format!("<dt>{kind} ticket</dt><dd>{sign} {value}</dd>\n")
}

/// How much life a token has left, in words and as a bar.
fn life(token: &Published, is_dead: bool, reader: &Reader<'_>) -> String {
    let is_over = token.life.is_zero();
    let secs = match is_over {
        true => (reader.now - token.expires_at).whole_seconds().max(0) as u64,
        false => token.life.as_secs(),
    };
    // The number is large: it stands before the word in English, and after it in Chinese.
    let (english, chinese) = span(secs);
    let (after, before) = match (is_over, is_dead) {
        (true, true) => ("since it was found dead", "发现失效已"),
        (true, false) => ("past its end", "已过期"),
        (false, true) => ("too early", "失效时还剩"),
        (false, false) => ("left", "剩余"),
    };
    let words = match reader.language {
        Language::Chinese => format!("{before} <b>{chinese}</b>"),
        Language::English | Language::Both => {
            let words = reader.both(after, format_args!("{before} {chinese}"));
            format!("<b>{english}</b> {words}")
        }
    };
    let share = token.life.as_secs_f64() / token.expires_in.as_secs_f64().max(1.0);
    let label = match reader.language {
        Language::Chinese => "剩余有效期",
        Language::English | Language::Both => "life left",
    };
    let percent = if is_dead { 0.0 } else { (share * 100.0).min(100.0) };
    format!(
        "<p class=\"left\">{words}</p>\n<div class=\"bar\" role=\"meter\" aria-label=\"{label}\" aria-valuemin=\"0\" \
         aria-valuemax=\"100\" aria-valuenow=\"{percent:.0}\"><i style=\"width:{percent:.1}%\"></i></div>\n"
    )
}

/// What is wrong with an account and what to do about it, as far as is known here; nothing for a healthy one.
fn advice(condition: Condition, account: &AccountStatus, reader: &Reader<'_>) -> String {
    let last_failure = |failure: &RefreshFailure| {
        format!("{} · {}", reader.both("Last failure", "上次失败"), reader.relative(failure.at))
    };
    let tickets =
        account.tickets.iter().filter_map(|(kind, it)| Some((kind, it.failure.as_ref()?)));
    let of_tickets: String = tickets
        .map(|(kind, failure)| {
            let title = format!("{kind} ticket: {}", last_failure(failure));
            section(&title, &escaped(&reader.language.resolve(&failure.message)))
        })
        .collect();
    let (title, text) = match (condition, &account.token.failure) {
        (_, Some(failure)) => (last_failure(failure), escaped(&reader.language.resolve(&failure.message))),
        (Condition::NoTicket, None) if of_tickets.is_empty() => (
            reader.both("A ticket is not there", "缺少 ticket"),
            reader.both(
                "It is fetched after the token. Does <code>wxtoken fetch</code> run with the same config, and what does it say?",
                "ticket 在 token 之后获取。请检查 <code>wxtoken fetch</code> 是否使用同一配置运行，以及其输出。",
            ),
        ),
        (Condition::Live | Condition::NoTicket | Condition::Failing, None) => return of_tickets,
        (Condition::Missing, None) => (
            reader.both("Nothing is published", "尚未发布"),
            reader.both(
                "There is no document, or it cannot be read, or it is another account's; <code>wxtoken status</code> says which.",
                "没有 token 文件，或无法读取，或属于其他账号；原因见 <code>wxtoken status</code>。",
            ),
        ),
        (Condition::Dead, None) => (
            reader.both("WeChat does not honour it any more", "微信已不承认该 token"),
            reader.both(
                "Another one is asked for as soon as may be. Does another program ask WeChat with the same AppSecret?",
                "将尽快重新获取。请检查是否有其他程序使用同一 AppSecret 获取 token。",
            ),
        ),
        (Condition::EndsSoon | Condition::Expired, None) if account.refresh.is_none() => (
            reader.both("It has not been refreshed", "未按时刷新"),
            reader.both(
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
fn row(reader: &Reader<'_>, english: &str, chinese: &str, value: String) -> String {
    format!("<dt>{}</dt><dd>{value}</dd>\n", reader.both(english, chinese))
}

#[cfg(test)]
mod tests;
