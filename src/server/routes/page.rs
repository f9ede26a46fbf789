//! `GET /`: one page for the person who is woken at night: whether all is well, what is not, and what to do about it, in
//! English and Chinese. Needs no script and nothing from elsewhere; shows no token.

use std::cmp::Reverse;
use std::fmt::Display;
use std::time::Duration;

use time::UtcDateTime;

use crate::log::printable;
use crate::model::status::{AccountStatus, RefreshStatus, TicketStatus, TokenStatus};

const STYLE: &str = include_str!("page.css");

/// How often a browser asks again by itself: soon enough to see that what was done has helped.
const REFRESH: Duration = Duration::from_secs(10);

/// A token is renewed with five minutes left, by default; where one has less than this, nobody has done it.
const NEAR_THE_END: Duration = Duration::from_secs(180);

/// In so many accounts' trouble they are named in the headline.
const MOST_NAMED: usize = 5;

/// No refusal with its remedy is longer.
const LONGEST_SHOWN: usize = 1500; // characters

/// How an account is, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Condition {
    Live,
    /// The token is well, and a ticket is missing, or WeChat gives no next one.
    NoTicket,
    /// There is a token, and WeChat gives no next one.
    Failing,
    /// There is a token, and nobody has renewed it in time.
    EndsSoon,
    Expired,
    /// It has life left, and WeChat says that it is dead.
    Dead,
    Missing,
}

impl Condition {
    fn of(seen: &AccountStatus) -> Condition {
        let failed = seen.asking.as_ref().is_some_and(|asking| asking.failure.is_some());
        match &seen.token {
            None => Condition::Missing,
            Some(token) if token.life.is_zero() => Condition::Expired,
            Some(token) if token.is_dead => Condition::Dead,
            Some(token) if token.life < NEAR_THE_END => Condition::EndsSoon,
            Some(_) if failed => Condition::Failing,
            Some(_) if !seen.tickets.iter().all(is_well) => Condition::NoTicket,
            Some(_) => Condition::Live,
        }
    }

    /// What the style calls it, and what tells it from others where there are no colours.
    fn tone(self) -> (&'static str, &'static str) {
        match self {
            Condition::Live => ("well", "✓"),
            Condition::NoTicket | Condition::Failing | Condition::EndsSoon => ("wary", "!"),
            Condition::Expired | Condition::Dead | Condition::Missing => ("ill", "✗"),
        }
    }

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

/// Whether a ticket is handed out, and the next one will be as far as is known.
fn is_well(ticket: &TicketStatus) -> bool {
    ticket.is_live() && ticket.failure.is_none()
}

/// The page about these accounts, as they are `now`. Those in trouble come first.
pub(crate) fn html(accounts: &[AccountStatus], now: UtcDateTime) -> String {
    let mut accounts: Vec<_> = accounts.iter().map(|seen| (Condition::of(seen), seen)).collect();
    accounts.sort_by_key(|(condition, _)| Reverse(*condition));
    let worst = accounts.first().map_or(Condition::Live, |(condition, _)| *condition);
    let header = header(worst, &accounts);
    let articles: String =
        accounts.iter().map(|(condition, seen)| article(*condition, seen, now)).collect();
    let ((_, sign), refresh) = (worst.tone(), REFRESH.as_secs());
    let (version, instant) = (env!("CARGO_PKG_VERSION"), instant(now));
    let again = both(
        format_args!("this page renews itself every {refresh} s"),
        format_args!("本页每 {refresh} 秒自动更新"),
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
<meta http-equiv="refresh" content="{refresh}">
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

/// Whether all is well, at a glance.
fn header(worst: Condition, accounts: &[(Condition, &AccountStatus)]) -> String {
    let (class, sign) = worst.tone();
    let concerned: Vec<&str> = accounts
        .iter()
        .filter(|(condition, _)| condition.tone() == worst.tone())
        .map(|(_, seen)| seen.name.as_str())
        .collect();
    let (all, some, names) = (accounts.len(), concerned.len(), shown(&concerned.join(", ")));
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
    let whom = match worst {
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
            if some <= MOST_NAMED { format!("{names} — {share}") } else { share }
        }
    };
    format!(
        "<header class=\"{class}\">\n<p class=\"sign\" aria-hidden=\"true\">{sign}</p>\n\
         <div>\n<h1>{title}</h1>\n<p>{whom}</p>\n</div>\n</header>\n"
    )
}

/// One account.
fn article(condition: Condition, seen: &AccountStatus, now: UtcDateTime) -> String {
    let ((class, sign), word) = (condition.tone(), condition.word());
    let name = shown(&seen.name);
    let mut text = format!("<article class=\"{class}\">\n<h2>{name} <b>{sign} {word}</b></h2>\n");
    if let Some(appid) = &seen.appid {
        text += &format!("<p class=\"appid\">{}</p>\n", shown(appid));
    }
    if let Some(token) = &seen.token {
        text += &life(token, now);
    }
    let rows = rows(seen, now);
    if !rows.is_empty() {
        text += &format!("<dl>\n{rows}</dl>\n");
    }
    text + &advice(condition, seen, now) + "</article>\n"
}

/// What is known of an account's token, and of the asking for it.
fn rows(seen: &AccountStatus, now: UtcDateTime) -> String {
    let mut rows = String::new();
    if let Some(token) = &seen.token {
        rows += &row("Created", "创建", moment(token.created_at, now));
        rows += &row("Ends", "到期", moment(token.expires_at, now));
    }
    if let Some(RefreshStatus { succeeded_at, next_at, .. }) = &seen.asking {
        let never = || both("not yet", "尚无");
        let moment = |at: &Option<UtcDateTime>| at.map_or_else(never, |at| moment(at, now));
        rows += &row("Refreshed", "刷新", moment(succeeded_at));
        rows += &row("Next try", "下次尝试", moment(next_at));
    }
    if let Some(token) = &seen.token {
        rows += &row("Fingerprint", "指纹", format!("<code>{}</code>", shown(&token.fingerprint)));
    }
    let hook = seen.asking.as_ref().and_then(|asking| asking.hook.as_ref()?.failed_at);
    if let Some(at) = hook {
        let failed = both("failed, see the log", "失败，见日志");
        rows += &format!("<dt>on_change</dt><dd>! {failed} · {}</dd>\n", relative(at, now));
    }
    rows + &seen.tickets.iter().map(|it| ticket_row(it, now)).collect::<String>()
}

/// What is known of a ticket, in a line or two.
fn ticket_row(seen: &TicketStatus, now: UtcDateTime) -> String {
    let sign = if is_well(seen) { "✓" } else { "!" };
    let value = match &seen.ticket {
        None => both("none", "没有"),
        Some(ticket) if ticket.life.is_zero() => {
            format!("{} · {}", both("expired", "已过期"), relative(ticket.expires_at, now))
        }
        Some(ticket) => {
            let (english, chinese) = span(ticket.life.as_secs());
            let left = both(format_args!("{english} left"), format_args!("剩余 {chinese}"));
            format!("{left} <code>{}</code>", shown(&ticket.fingerprint))
        }
    };
    format!("<dt>{} ticket</dt><dd>{sign} {value}</dd>\n", shown(&seen.kind))
}

/// How much life a token has left, in words and as a bar.
fn life(token: &TokenStatus, now: UtcDateTime) -> String {
    let words = if token.life.is_zero() {
        let (english, chinese) = span((now - token.expires_at).whole_seconds().max(0) as u64);
        format!("<b>{english}</b> {}", both("past its end", format_args!("已过期 {chinese}")))
    } else {
        let (english, chinese) = span(token.life.as_secs());
        let left = match token.is_dead {
            false => both("left", format_args!("剩余 {chinese}")),
            true => both("too early", format_args!("提前 {chinese}失效")),
        };
        format!("<b>{english}</b> {left}")
    };
    let share = token.life.as_secs_f64() / token.expires_in.as_secs_f64().max(1.0);
    let percent = if token.is_live() { (share * 100.0).min(100.0) } else { 0.0 };
    format!(
        "<p class=\"left\">{words}</p>\n<div class=\"bar\" role=\"meter\" aria-label=\"life left\" aria-valuemin=\"0\" \
         aria-valuemax=\"100\" aria-valuenow=\"{percent:.0}\"><i style=\"width:{percent:.1}%\"></i></div>\n"
    )
}

/// Why an account is not as it should be, as far as it is known here; nothing where it is.
fn advice(condition: Condition, seen: &AccountStatus, now: UtcDateTime) -> String {
    let tickets = seen.tickets.iter().filter_map(|it| Some((it, it.failure.as_ref()?)));
    let tickets = tickets.map(|(ticket, (at, text))| {
        let failure = both("Last failure", "上次失败");
        let title = format!("{} ticket: {failure} · {}", shown(&ticket.kind), relative(*at, now));
        section(&title, &shown(text))
    });
    let of_tickets: String = tickets.collect();
    let failure = seen.asking.as_ref().and_then(|asking| asking.failure.as_ref());
    let (title, text) = match (condition, failure) {
        (_, Some((at, text))) => {
            (format!("{} · {}", both("Last failure", "上次失败"), relative(*at, now)), shown(text))
        }
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
        (Condition::EndsSoon | Condition::Expired, None) if seen.asking.is_none() => (
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

fn section(title: &str, text: &str) -> String {
    format!("<section>\n<h3>{title}</h3>\n<p>{text}</p>\n</section>\n")
}

fn row(english: &str, chinese: &str, value: String) -> String {
    format!("<dt>{}</dt><dd>{value}</dd>\n", both(english, chinese))
}

/// An instant, and how long that is from now.
fn moment(at: UtcDateTime, now: UtcDateTime) -> String {
    format!("{} <small>{}</small>", instant(at), relative(at, now))
}

fn instant(at: UtcDateTime) -> String {
    let (date, (hour, minute, second)) = (at.date(), at.as_hms());
    let time = format!("{hour:02}:{minute:02}:{second:02}");
    format!("<time datetime=\"{date}T{time}Z\">{date} {time} UTC</time>")
}

fn relative(at: UtcDateTime, now: UtcDateTime) -> String {
    let secs = (at - now).whole_seconds();
    let (english, chinese) = span(secs.unsigned_abs());
    match secs {
        0 => both("now", "现在"),
        1.. => both(format_args!("in {english}"), format_args!("{chinese}后")),
        _ => both(format_args!("{english} ago"), format_args!("{chinese}前")),
    }
}

/// A span of time as people say it, in English and in Chinese: the two units that matter.
fn span(secs: u64) -> (String, String) {
    const DAY: (u64, &str, &str) = (86_400, "d", "天");
    const HOUR: (u64, &str, &str) = (3600, "h", "小时");
    const MINUTE: (u64, &str, &str) = (60, "min", "分");
    const SECOND: (u64, &str, &str) = (1, "s", "秒");
    let units = match secs {
        0..60 => &[SECOND][..],
        60..600 => &[MINUTE, SECOND],
        600..3600 => &[MINUTE],
        3600..86_400 => &[HOUR, MINUTE],
        _ => &[DAY, HOUR],
    };
    let (mut english, mut chinese, mut rest) = (Vec::new(), Vec::new(), secs);
    for (length, short, name) in units {
        let count = rest / length;
        rest %= length;
        if count > 0 || secs == 0 {
            english.push(format!("{count} {short}"));
            chinese.push(format!("{count} {name}"));
        }
    }
    let is_one = chinese.len() == 1;
    let chinese = chinese.join(" ");
    // Minutes by themselves are 分钟, beside another unit 分.
    let chinese = if is_one { chinese.replace('分', "分钟") } else { chinese };
    (english.join(" "), chinese)
}

/// The same in English and in Chinese.
fn both(english: impl Display, chinese: impl Display) -> String {
    format!("{english} <span lang=\"zh-CN\">{chinese}</span>")
}

/// Text from outside as a page can hold it, whatever is in it.
fn shown(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in printable(text, LONGEST_SHOWN).chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c => html.push(c),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::status::HookStatus;

    const NOW: i64 = 1_795_578_720; // 2026-11-25T03:52:00Z

    const REFUSAL: &str = "WeChat refused (40164): Add IP 203.0.113.9 (as WeChat sees it) to the account's API IP \
        allowlist. 请将 IP 203.0.113.9 加入公众号／小程序的 API IP 白名单，数分钟后生效。 [invalid ip 203.0.113.9 ipv6 \
        ::ffff:203.0.113.9, not in whitelist rid: 6aac005a-01bfdbee-79769285]";

    fn at(offset: i64) -> UtcDateTime {
        UtcDateTime::from_unix_timestamp(NOW + offset).unwrap()
    }

    /// An account of a server that only hands out.
    fn account(name: &str, life: i64) -> AccountStatus {
        let token = TokenStatus {
            created_at: at(life - 7200),
            expires_at: at(life),
            life: Duration::from_secs(life.max(0) as u64),
            is_dead: false,
            expires_in: Duration::from_secs(7200),
            fingerprint: "1f93603d".to_owned(),
        };
        let appid = Some("wx0123456789abcdef".to_owned());
        AccountStatus {
            name: name.to_owned(),
            appid,
            token: Some(token),
            tickets: Vec::new(),
            asking: None,
        }
    }

    /// The same where the server asks WeChat, with what came of it last.
    fn asking(seen: AccountStatus, failure: Option<&str>) -> AccountStatus {
        let asking = RefreshStatus {
            succeeded_at: seen.token.as_ref().map(|token| token.created_at),
            failure: failure.map(|text| (at(-200), text.to_owned())),
            next_at: Some(at(45)),
            attempts: Vec::new(),
            hook: None,
        };
        AccountStatus { asking: Some(asking), ..seen }
    }

    fn dead(mut seen: AccountStatus) -> AccountStatus {
        seen.token.as_mut().unwrap().is_dead = true;
        seen
    }

    /// The same with a jsapi ticket that has so much life left, and what came of asking for the next one.
    fn with_ticket(
        mut seen: AccountStatus,
        life: Option<i64>,
        failure: Option<&str>,
    ) -> AccountStatus {
        let mut ticket = life.and_then(|life| account("", life).token);
        ticket.iter_mut().for_each(|it| it.fingerprint = "71c4e700".to_owned());
        let failure = failure.map(|text| (at(-200), text.to_owned()));
        seen.tickets.push(TicketStatus { kind: "jsapi".to_owned(), ticket, failure });
        seen
    }

    fn missing(name: &str) -> AccountStatus {
        AccountStatus { token: None, ..account(name, 0) }
    }

    /// What is in a page's headline.
    fn headline(accounts: &[AccountStatus]) -> String {
        let page = html(accounts, at(0));
        let from = page.find("<header").unwrap();
        page[from..page.find("</header>").unwrap()].to_owned()
    }

    #[test]
    fn the_headline_says_at_once_whether_all_is_well() {
        for (accounts, class, sign, words) in [
            (
                vec![account("shop", 3000)],
                "well",
                "✓",
                ["All is well", "一切正常", "shop has a live token"],
            ),
            (
                vec![account("a", 3000), account("b", 200)],
                "well",
                "✓",
                ["All is well", "一切正常", "2 accounts, each"],
            ),
            (
                vec![account("a", 179), account("b", 200)],
                "wary",
                "!",
                ["not for long", "尽快处理", "a — 1 of 2"],
            ),
            (
                vec![asking(account("a", 3000), Some(REFUSAL))],
                "wary",
                "!",
                ["not for long", "尽快处理", "<p>a</p>"],
            ),
            (
                vec![account("a", 179), account("b", 0)],
                "ill",
                "✗",
                ["No live token", "没有可用的 token", "b — 1 of 2"],
            ),
            (
                vec![missing("a"), account("b", 0)],
                "ill",
                "✗",
                ["No live token", "没有可用的 token", "a, b — 2 of 2"],
            ),
            (vec![], "well", "✓", ["No account to show", "没有可显示的账号", "<p></p>"]),
        ] {
            let headline = headline(&accounts);
            assert!(
                headline.contains(&format!("class=\"{class}\"")) && headline.contains(sign),
                "{headline}"
            );
            for word in words {
                assert!(headline.contains(word), "{word:?} is not in {headline}");
            }
            assert!(html(&accounts, at(0)).contains(&format!("<title>{sign} wxtoken</title>")));
        }
    }

    #[test]
    fn many_in_trouble_are_counted_and_not_listed() {
        let accounts: Vec<AccountStatus> =
            (0..30).map(|n| missing(&format!("account-{n}"))).collect();
        let headline = headline(&accounts);
        assert!(
            headline.contains("30 of 30 accounts") && !headline.contains("account-7"),
            "{headline}"
        );
    }

    #[test]
    fn who_is_in_trouble_comes_first_and_otherwise_the_order_stays() {
        let page = html(
            &[
                account("a", 3000),
                account("b", 100),
                account("c", 3000),
                missing("d"),
                account("e", 0),
            ],
            at(0),
        );
        let names: Vec<&str> = page
            .split("<h2>")
            .skip(1)
            .filter_map(|rest| rest.split_once(" <b>"))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["d", "e", "b", "a", "c"]);
    }

    #[test]
    fn an_account_in_trouble_comes_with_what_is_known_of_it() {
        let said = |seen: AccountStatus| html(&[seen], at(0));
        for (seen, words) in [
            (
                account("a", 100),
                &["ends soon 即将到期", "1 min 40 s", "timer or cron job", "定时任务"][..],
            ),
            (
                account("a", -500),
                &["expired 已过期", "8 min 20 s", "past its end", "timer or cron job", "定时任务"],
            ),
            (missing("a"), &["no token 没有 token", "wxtoken status</code> says which"]),
            (
                asking(account("a", 3000), Some(REFUSAL)),
                &["not renewed 刷新失败", "203.0.113.9 加入公众号", "3 min 20 s ago"],
            ),
            (
                asking(account("a", -500), Some(REFUSAL)),
                &["expired 已过期", "203.0.113.9 加入公众号", "in 45 s", "45 秒后"],
            ),
            (
                dead(asking(account("a", 3000), None)),
                &["dead 已失效", "50 min", "too early", "width:0.0%", "same AppSecret", "其他程序"],
            ),
            (
                dead(asking(account("a", 3000), Some(REFUSAL))),
                &["dead 已失效", "203.0.113.9 加入公众号"],
            ),
            (
                asking(missing("a"), Some(REFUSAL)),
                &["no token 没有 token", "203.0.113.9 加入公众号", "not yet 尚无"],
            ),
        ] {
            let page = said(seen).replace("<span lang=\"zh-CN\">", "").replace("</span>", "");
            for word in words {
                assert!(page.contains(word), "{word:?} is not in {page}");
            }
        }
        let well = said(asking(account("a", 3000), None));
        assert!(!well.contains("<section>"), "{well}");
        assert!(!said(asking(account("a", 100), None)).contains("cron"), "this one asks by itself");
    }

    #[test]
    fn a_hook_is_told_of_where_it_failed() {
        let with_hook = |failed_at| {
            let mut seen = asking(account("shop", 7000), None);
            seen.asking.as_mut().unwrap().hook = Some(HookStatus { failed_at });
            html(&[seen], at(0))
        };
        assert!(!with_hook(None).contains("on_change"));
        let page = with_hook(Some(at(-120)));
        assert!(page.contains("<dt>on_change</dt><dd>! "), "{page}");
        assert!(page.contains("failed, see the log") && page.contains("2 min ago"), "{page}");
    }

    #[test]
    fn an_accounts_tickets_are_told_and_one_in_trouble_is_what_the_headline_says_last() {
        let said = |seen: AccountStatus| {
            html(&[seen], at(0)).replace("<span lang=\"zh-CN\">", "").replace("</span>", "")
        };
        let shop = || asking(account("shop", 3000), None);
        for (seen, class, words) in [
            (
                with_ticket(shop(), Some(3000), None),
                "well",
                &["All is well", "jsapi ticket", "✓ 50 min left 剩余 50 分钟", "71c4e700"][..],
            ),
            (
                with_ticket(shop(), None, Some(REFUSAL)),
                "wary",
                &[
                    "Tokens are well, a ticket is not",
                    "! none 没有",
                    "ticket in trouble",
                    "jsapi ticket: Last failure",
                    "203.0.113.9 加入公众号",
                ],
            ),
            (
                with_ticket(shop(), Some(3000), Some(REFUSAL)),
                "wary",
                &[
                    "Tokens are well, a ticket is not",
                    "! 50 min left",
                    "jsapi ticket: Last failure",
                ],
            ),
            (
                with_ticket(account("shop", 3000), Some(-60), None),
                "wary",
                &["! expired 已过期 · 1 min ago", "with the same config", "同一配置"],
            ),
            // The token's trouble is the greater.
            (
                with_ticket(missing("shop"), None, Some(REFUSAL)),
                "ill",
                &["No live token", "status</code> says which", "jsapi ticket: Last failure"],
            ),
        ] {
            let page = said(seen);
            assert!(page.contains(&format!("<header class=\"{class}\"")), "{page}");
            for word in words {
                assert!(page.contains(word), "{word:?} is not in {page}");
            }
        }
    }

    #[test]
    fn whatever_comes_from_outside_is_text() {
        let evil = "</p><script>alert('1')</script>&\"\u{202e}\u{0}<img src=x onerror=alert(1)>";
        let mut seen = asking(account(evil, 3000), Some(evil));
        seen.appid = Some(evil.to_owned());
        seen.token.as_mut().unwrap().fingerprint = evil.to_owned();
        seen = with_ticket(seen, Some(60), Some(evil));
        let ticket = &mut seen.tickets[0];
        (ticket.kind, ticket.ticket.as_mut().unwrap().fingerprint) =
            (evil.to_owned(), evil.to_owned());
        let page = html(&[seen], at(0));
        for outside in ["<script", "<img", "alert('", "\u{202e}", "\u{0}", "&\""] {
            assert!(!page.contains(outside), "{outside:?} is in {page}");
        }
        assert_eq!(
            page.matches("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;&quot;").count(),
            9
        );
    }

    #[test]
    fn the_page_is_small_and_wants_nothing_from_elsewhere() {
        let accounts = ["shop", "branch"].map(|name| asking(account(name, 3000), Some(REFUSAL)));
        let page = html(&accounts, at(0));
        assert!(page.len() < 10 * 1024, "{} bytes", page.len());
        for outside in ["<script", "<link", "<iframe", "src=", "href=", "url(", "@import", "//"] {
            assert!(!page.contains(outside), "{outside:?} is in {page}");
        }
    }

    #[test]
    fn every_time_is_utc_and_says_how_long_it_is_from_now() {
        for (offset, relative) in [
            (0, "now 现在"),
            (1, "in 1 s 1 秒后"),
            (-59, "59 s ago 59 秒前"),
            (60, "in 1 min 1 分钟后"),
            (-61, "1 min 1 s ago 1 分 1 秒前"),
            (600, "in 10 min 10 分钟后"),
            (-3600, "1 h ago 1 小时前"),
            (4321, "in 1 h 12 min 1 小时 12 分后"),
            (-90_000, "1 d 1 h ago 1 天 1 小时前"),
        ] {
            let said = moment(at(offset), at(0));
            let plain = said.replace("<span lang=\"zh-CN\">", "").replace("</span>", "");
            assert!(plain.ends_with(&format!("</time> <small>{relative}</small>")), "{plain}");
        }
        let expected = "<time datetime=\"2026-11-25T03:52:00Z\">2026-11-25 03:52:00 UTC</time>";
        assert_eq!(instant(at(0)), expected);
    }

    #[test]
    fn a_bar_is_as_long_as_the_life_that_is_left() {
        for (left, width) in
            [(7200, "100.0%"), (1800, "25.0%"), (0, "0.0%"), (-9, "0.0%"), (99_999, "100.0%")]
        {
            let seen = account("a", left);
            let bar = life(seen.token.as_ref().unwrap(), at(0));
            assert!(bar.contains(&format!("width:{width}")), "{left}: {bar}");
        }
    }
}
