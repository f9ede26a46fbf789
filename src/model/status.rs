//! What is known of an account: what can be handed out, why nothing can, and what people and metrics see.

use std::time::Duration;

use hyper::body::Bytes;
use time::UtcDateTime;

use crate::model::secret::Secret;

/// A live token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// The JSON to answer with: the token, and the life promised with it.
    pub(crate) json: Bytes,
    /// The life promised.
    pub(crate) life: Duration,
    /// Another number for each other token of the account.
    pub(crate) generation: u64,
}

/// What token is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// A live one, where there was none.
    Live,
    /// One that WeChat honours: a client has given reason to doubt the current one.
    Honoured,
    /// Another than this one, which WeChat rejected as a client says.
    NotThis(Secret),
}

/// Why there is no token to hand out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unavailable {
    /// A sentence for people, without a secret in it.
    pub(crate) why: String,
    pub(crate) retry_after: Duration,
}

impl Unavailable {
    /// When to ask again where nobody knows better: soon enough after the next `fetch`, whenever that is, and too seldom
    /// to be a load.
    pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(10);

    /// One of which nobody knows when it ends.
    pub(crate) fn for_now(why: &str) -> Unavailable {
        Unavailable { why: why.to_owned(), retry_after: Unavailable::RETRY_AFTER }
    }
}

/// Why there is no ticket to hand out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoTicket {
    /// Its account is not one with such tickets.
    NotKept,
    ForNow(Unavailable),
}

/// An account as people and metrics see it. Nothing in it is secret.
#[derive(Clone, Debug, Default)]
pub(crate) struct AccountStatus {
    pub(crate) name: String,
    pub(crate) appid: Option<String>,
    /// The published token; `None` where there is none.
    pub(crate) token: Option<TokenStatus>,
    /// The tickets that are fetched for it, or are to be.
    pub(crate) tickets: Vec<TicketStatus>,
    /// What this process asked of WeChat; `None` where it does not ask.
    pub(crate) asking: Option<RefreshStatus>,
}

#[derive(Clone, Debug)]
pub(crate) struct TokenStatus {
    pub(crate) created_at: UtcDateTime,
    pub(crate) expires_at: UtcDateTime,
    /// How long it may be promised to work; zero once it has expired.
    pub(crate) life: Duration,
    /// WeChat has said that it is dead, whatever life it had left.
    pub(crate) is_dead: bool,
    /// How long it lived when it was new.
    pub(crate) expires_in: Duration,
    /// The first 8 hex digits of its SHA-256.
    pub(crate) fingerprint: String,
}

#[derive(Clone, Debug)]
pub(crate) struct TicketStatus {
    pub(crate) kind: String,
    /// The published one; `None` where there is none.
    pub(crate) ticket: Option<TokenStatus>,
    /// The last failure of this process to get one, as that of a token.
    pub(crate) failure: Option<(UtcDateTime, String)>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct RefreshStatus {
    /// When WeChat last gave a token.
    pub(crate) succeeded_at: Option<UtcDateTime>,
    /// The last failure, if there was no success after it: when, and what to do, in both languages.
    pub(crate) failure: Option<(UtcDateTime, String)>,
    /// When WeChat is to be asked again at the latest.
    pub(crate) next_at: Option<UtcDateTime>,
    /// How often WeChat was asked, by what came of it: a word (`ok`, `refused`, `unreachable`, …) and the errcode, 0
    /// where there is none.
    pub(crate) attempts: Vec<(&'static str, i64, u64)>,
    /// What became of the account's hook; `None` where it has none.
    pub(crate) hook: Option<HookStatus>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct HookStatus {
    /// When it last failed, if it has not run well since.
    pub(crate) failed_at: Option<UtcDateTime>,
}

impl TicketStatus {
    /// Whether it is handed out.
    pub(crate) fn is_live(&self) -> bool {
        self.ticket.as_ref().is_some_and(TokenStatus::is_live)
    }
}

impl TokenStatus {
    /// Whether it is handed out.
    pub(crate) fn is_live(&self) -> bool {
        !self.life.is_zero() && !self.is_dead
    }
}
