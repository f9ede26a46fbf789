//! What is published: whether it lives, whether WeChat honours it, who else may be refreshing, and whether anybody
//! evidently keeps it fresh.

use std::time::Duration;

use time::UtcDateTime;

use super::{Finding, span};
use crate::api::Api;
use crate::config::Account;
use crate::errcode::Class;
use crate::exit::Exit;
use crate::source::{AskError, Pulse};
use crate::token::{Document, rfc3339};

/// A cron job or a timer that runs each minute, and tries again what is transient, has done it by then.
const PATIENCE: Duration = Duration::from_secs(3 * 60);

/// The published token, of which a probe said this; `None` where nobody could be asked.
pub(crate) fn token(
    account: &Account,
    document: &Document,
    pulse: Option<&Pulse>,
    now: UtcDateTime,
) -> Finding {
    let about = "token";
    let name = document.token.fingerprint();
    let left = span(document.left(now));
    match pulse {
        _ if document.left(now).is_zero() => {
            let expired = document.expires();
            Finding::wrong(about, Exit::NoToken, format!("{name} expired at {expired}")).remedy(
                "Run wxtoken fetch now, and see why nobody did.",
                "请立即运行 wxtoken fetch，并排查为何没有按时刷新。",
            )
        }
        Some(Pulse::Alive) => Finding::well(about, format!("{name} is honoured, {left} left")),
        Some(Pulse::Dead) => dead(account.api, document, now),
        Some(Pulse::Unknown(err)) => unknown(&name, &left, err),
        None => Finding::notice(
            about,
            format!("{name} has {left} left; whether it is honoured was not tried"),
        ),
    }
}

fn unknown(name: &str, left: &str, err: &AskError) -> Finding {
    // The allowlist is looked at before the token.
    let is_gate = matches!(err, AskError::Refused(refusal) if refusal.class() == Class::Allowlist);
    let why = if is_gate {
        "this host's address was refused before the token was looked at"
    } else {
        "no verdict"
    };
    Finding::notice(
        "token",
        format!("{name} has {left} left; whether it is honoured is unknown, {why}: {err}"),
    )
}

/// A token that WeChat no longer honours, though it had time left: somebody else had another one made.
fn dead(api: Api, document: &Document, now: UtcDateTime) -> Finding {
    let (name, left, since) =
        (document.token.fingerprint(), span(document.left(now)), document.created());
    let what = format!("{name} is dead, {left} before its time: killed since {since}");
    let finding = |who: &str| Finding::wrong("token", Exit::NoToken, format!("{what}. {who}"));
    let now = "Replace it now: serve --refresh does so when told, or wxtoken fetch --rejected.";
    let now_zh = "请立即更换：告知 serve --refresh，或运行 wxtoken fetch --rejected。";
    match api {
        Api::Classic => finding("Another program asks for this account's token, too: on classic each call kills the one before")
            .remedy(
                format!("Find it, or set api = \"stable\", which such programs do not disturb. {now}"),
                format!("另有程序也在获取该账号的 token（classic 接口每次调用都会使旧 token 失效）：请找出并停用，或改用 api = \"stable\"。{now_zh}"),
            ),
        Api::Stable | Api::Mirror => finding("Another program asks with force_refresh, or the AppSecret was reset").remedy(
            format!("Find who sends force_refresh; has anybody reset the AppSecret? {now}"),
            format!("可能有程序带 force_refresh 刷新，或 AppSecret 被重置，请排查。{now_zh}"),
        ),
        Api::Work => finding("The app's secret was reset, or the app was disabled").remedy(
            format!("Look at the app in WeCom's console. {now}"),
            format!("请在企业微信管理后台查看该应用的 Secret 与状态。{now_zh}"),
        ),
    }
}

/// A document that is not there, or is none of this account's; `why` says so.
pub(crate) fn none(about: &'static str, why: impl Into<String>) -> Finding {
    Finding::wrong(about, Exit::NoToken, why).remedy(
        "Run wxtoken fetch as whoever is to keep it fresh, with the same --dir or --file.",
        "请以负责刷新的用户运行 wxtoken fetch，--dir 或 --file 须一致。",
    )
}

/// A ticket, by the clock alone: nothing that WeChat answers tells whether it is honoured.
pub(crate) fn ticket(kind: &str, document: &Document, now: UtcDateTime) -> Finding {
    let (about, name, left) = ("ticket", document.token.fingerprint(), document.left(now));
    if left.is_zero() {
        return none(about, format!("{kind}: {name} expired at {}", document.expires()));
    }
    Finding::well(about, format!("{kind}: {name} has {} left", span(left)))
}

/// Whether anybody evidently keeps the token fresh: then it is never due for long.
pub(crate) fn schedule(account: &Account, document: &Document, now: UtcDateTime) -> Finding {
    let about = "schedule";
    let age = Duration::try_from(now - document.created_at).unwrap_or_default();
    // A mirror asks its source twice a minute or so.
    let due_at = match account.api {
        Api::Mirror => document.created_at + document.stale_in(document.created_at),
        _ => document.expires_at().saturating_sub(
            time::Duration::try_from(account.refresh_before.min(document.expires_in))
                .unwrap_or_default(),
        ),
    };
    let late = Duration::try_from(now - due_at).unwrap_or_default();
    if late <= PATIENCE {
        return Finding::well(about, format!("last asked for {} ago", span(age)));
    }
    let what = format!(
        "last asked for {} ago, and due since {}: nobody has asked since",
        span(age),
        rfc3339(due_at)
    );
    Finding::notice(about, what).remedy(
        "Is cron, the timer (systemctl list-timers) or serve --refresh running, and what did it say last?",
        "请确认 cron、systemd 定时器（systemctl list-timers）或 serve --refresh 正在运行，并查看其最近的日志。",
    )
}
