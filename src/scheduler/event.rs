//! What the operator is told about refreshes, as lines of the log.

use std::time::Duration;

use crate::language::{bilingual, in_both};
use crate::log::{debug, error, info};

/// Something that happened to an account's token or ticket.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// WeChat accepts the token of this fingerprint, which a client reported as rejected.
    Accepted(String),
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

impl Event {
    /// Logs the event; `name` is the account's, with the type of the ticket if it is about one.
    pub(super) fn log(self, name: &str) {
        let account = name.split(':').next().unwrap_or_default();
        match self {
            Event::Accepted(token) => {
                info!(
                    event = "token_honoured", account = account, token_sha256 = token;
                    "serve: {name}: token {token} was said to be rejected, and WeChat honours it"
                );
            }
            Event::Dead(token) => {
                let dead = in_both(
                    format!("WeChat honours token {token} no longer"),
                    format!("token {token} 已失效"),
                );
                let what = bilingual!(
                    "another program refreshed the token; find it: wxtoken check",
                    "可能有其他程序也在刷新，请排查：wxtoken check"
                );
                error!(
                    event = "token_killed", account = account, token_sha256 = token;
                    "serve: {name}: {dead}: {what}"
                );
            }
            Event::Unknown(why) => {
                debug!(event = "token_unknown", account = account; "serve: {name}: cannot tell whether a token is alive: {why}");
            }
            Event::Unproven { token, why } => {
                let rest = bilingual!(
                    "The token stays until another client says so, too, or `wxtoken fetch --rejected -` here.",
                    "暂不更换；如确已失效，请在本机执行 wxtoken fetch --rejected -。"
                );
                let doubted = in_both(
                    format!(
                        "a client says that WeChat rejects token {token}, and WeChat cannot be asked"
                    ),
                    format!("调用方报告 token {token} 被微信拒绝，暂时无法向微信核实"),
                );
                error!(
                    event = "token_doubted", account = account, token_sha256 = token;
                    "serve: {name}: {doubted}: {why} {rest}"
                );
            }
            Event::Rationed(why) => {
                error!(event = "replacement_rationed", account = account; "serve: {name}: {why}");
            }
            Event::Published(what) => {
                info!(event = "published", account = account; "serve: {name}: {what} is published");
            }
            Event::Failed { message, pause } => {
                let pause = humantime::format_duration(Duration::from_secs(pause.as_secs()));
                let next = in_both(format!("trying again in {pause}"), format!("{pause} 后重试"));
                error!(
                    event = "refresh_failed", account = account, next_try_in = pause;
                    "serve: {name}: {message} ({next})"
                );
            }
            Event::Recovered => {
                let what = bilingual!("all is well again", "已恢复正常");
                error!(event = "recovered", account = account; "serve: {name}: {what}");
            }
        }
    }
}
