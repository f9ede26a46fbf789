//! What the operator is told about refreshes, as lines of the log.

use std::fmt::Display;
use std::time::Duration;

use crate::log::{debug, error, info, notice};
use crate::message::command::{command, report_rejected};
use crate::message::{action_first, messages, notes, span};
use crate::model::kind::DocumentName;

/// With a pause of this length or more, the line says how not to wait for it.
const FAR_AWAY: Duration = Duration::from_secs(5 * 60);

messages! {
    TOKEN_KILLED<2> {
        "Find the program that refreshed it: {1}.", "WeChat honours token {0} no longer: another program refreshed the token";
        "请找出刷新它的程序：{1}。", "微信不再承认 token {0}：可能有其他程序也在刷新";
    }
    TOKEN_DOUBTED<2> {
        "If it is dead: {1}; else it stays until another client says so, too.",
        "a client says that WeChat rejects token {0}, and WeChat cannot be asked";
        "如确已失效：{1}；否则待另一个调用方也报告后再更换。", "调用方报告 token {0} 被微信拒绝，但无法向微信核实";
    }
}

notes! {
    ASKED_FOR_AGAIN<1> =
        "token {0} was asked for again soon, and WeChat honours it", "token {0} 在短时间内再次被领取，微信仍承认它";
    SAID_TO_BE_REJECTED<1> =
        "token {0} was said to be rejected, and WeChat honours it", "调用方报告 token {0} 被拒绝，微信仍承认它";
    IN_DOUBT<1> = "token {0} was in doubt, and WeChat honours it", "token {0} 曾存疑，微信仍承认它";
    IS_PUBLISHED<1> = "{0} is published", "已发布 {0}";
    TRYING_AGAIN<3> = "{0} (trying again in {1}{2})", "{0}（{1} 后重试{2}）";
    AT_ONCE<1> = "; at once: kill -HUP {0}", "；立即重试：kill -HUP {0}";
    RECOVERED<0> = "all is well again", "已恢复正常";
    /// Behind an error.
    SECRET_STAYS<1> = "{0}; the last good AppSecret stays", "{0}；继续使用此前的 AppSecret";
}

/// Something that happened to an account's token or ticket.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// WeChat accepts the token of this fingerprint.
    Accepted { token: String, why: WhyAsked },
    /// WeChat says that the token of this fingerprint is dead.
    Dead(String),
    /// A probe could not tell whether the token is alive; says why.
    Unknown(String),
    /// A client reported the token of this fingerprint as rejected, a probe could not tell, and that is not enough to
    /// replace it.
    Unproven { token: String, why: String },
    /// Dead tokens are replaced more slowly for now; says why.
    Rationed(String),
    /// A token or ticket was published: `token` and its fingerprint, or a ticket's fingerprint alone.
    Published(String),
    /// A refresh failed; the next one follows after this pause.
    Failed { message: String, pause: Duration },
    /// A refresh succeeded after failures.
    Recovered,
}

/// Why WeChat was asked whether it accepts a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WhyAsked {
    /// A client that had it asked for a token again soon.
    AskedForAgain,
    /// A client said that it was rejected.
    SaidToBeRejected,
    InDoubt,
}

impl Event {
    /// Logs the event, which is about this document.
    pub(super) fn log(self, name: DocumentName<'_>) {
        let account = name.account;
        match self {
            Event::Accepted { token, why } => {
                let said = match why {
                    WhyAsked::AskedForAgain => &ASKED_FOR_AGAIN,
                    WhyAsked::SaidToBeRejected => &SAID_TO_BE_REJECTED,
                    WhyAsked::InDoubt => &IN_DOUBT,
                };
                info!(
                    event = "token_honoured", account = account, token_sha256 = token;
                    "serve: {name}: {}", said.with([&token])
                );
            }
            Event::Dead(token) => {
                let said = TOKEN_KILLED.first([&token, &command("check", Some(account), &[])]);
                error!(
                    event = "token_killed", account = account, token_sha256 = token;
                    "serve: {name}: {said}"
                );
            }
            Event::Unknown(why) => {
                debug!(event = "token_unknown", account = account; "serve: {name}: cannot tell whether a token is alive: {why}");
            }
            Event::Unproven { token, why } => {
                let values = [&token as &dyn Display, &report_rejected(Some(account))];
                let said = action_first(&TOKEN_DOUBTED.quoting(values, why));
                error!(
                    event = "token_doubted", account = account, token_sha256 = token;
                    "serve: {name}: {said}"
                );
            }
            Event::Rationed(why) => {
                error!(event = "replacement_rationed", account = account; "serve: {name}: {why}");
            }
            Event::Published(what) => {
                let said = IS_PUBLISHED.with([&what]);
                info!(event = "published", account = account; "serve: {name}: {said}");
            }
            Event::Failed { message, pause } => {
                let at_once = at_once(pause);
                let pause = span(pause);
                error!(
                    event = "refresh_failed", account = account, next_try_in = pause;
                    "serve: {name}: {}", TRYING_AGAIN.with([&message, &pause, &at_once])
                );
            }
            Event::Recovered => {
                notice!(event = "recovered", account = account; "serve: {name}: {}", RECOVERED.with([]));
            }
        }
    }
}

/// Says how not to wait for a long pause; empty for a short one.
fn at_once(pause: Duration) -> String {
    match pause >= FAR_AWAY {
        true => AT_ONCE.with([&std::process::id()]),
        false => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Level;
    use crate::log::testing::lines;
    use crate::model::kind::TicketType;

    #[test]
    fn failures_are_logged_without_v_what_was_done_with_it_and_each_event_by_its_name() {
        let text = || "text".to_owned();
        let accepted = |why| Event::Accepted { token: text(), why };
        let (unproven, pause) = (Event::Unproven { token: text(), why: text() }, FAR_AWAY);
        for (event, level, name) in [
            (accepted(WhyAsked::AskedForAgain), Level::Info, "token_honoured"),
            (accepted(WhyAsked::SaidToBeRejected), Level::Info, "token_honoured"),
            (accepted(WhyAsked::InDoubt), Level::Info, "token_honoured"),
            (Event::Dead(text()), Level::Error, "token_killed"),
            (Event::Unknown(text()), Level::Debug, "token_unknown"),
            (unproven, Level::Error, "token_doubted"),
            (Event::Rationed(text()), Level::Error, "replacement_rationed"),
            (Event::Published(text()), Level::Info, "published"),
            (Event::Failed { message: text(), pause }, Level::Error, "refresh_failed"),
        ] {
            lines();
            event.log(DocumentName::of_token("shop"));
            let logged = lines();
            let [(found, event, message)] = &logged[..] else { panic!("{name}: {logged:?}") };
            assert_eq!((*found, event.as_str()), (level, name));
            assert!(message.starts_with("serve: shop: ") && message.contains("text"), "{message}");
        }
        let ticket = TicketType::parse("jsapi").unwrap();
        Event::Recovered.log(DocumentName { account: "shop", ticket: Some(&ticket) });
        let logged = lines();
        let [(Level::Notice, event, message)] = &logged[..] else { panic!("{logged:?}") };
        assert_eq!(event, "recovered");
        assert!(message.contains("jsapi"), "{message}");
    }

    #[test]
    fn how_not_to_wait_is_said_of_a_pause_of_five_minutes_or_more() {
        assert_eq!(at_once(FAR_AWAY - Duration::from_secs(1)), "");
        for pause in [FAR_AWAY, FAR_AWAY * 2] {
            assert!(at_once(pause).contains(&format!("kill -HUP {}", std::process::id())));
        }
    }
}
