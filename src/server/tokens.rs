//! What the listener asks of the rest of the program, and nothing about how it is found.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use hyper::body::Bytes;
use time::UtcDateTime;

use crate::api::Api;
use crate::secret::Secret;
use crate::token::TicketType;

/// The accounts whose tokens are handed out. An account is called by its place in the list of names.
pub(crate) trait Tokens {
    /// The accounts' names, sorted.
    fn names(&self) -> &[String];

    /// The accounts that have this AppID: several, where they are apps of one corp, or on more than one API.
    fn with_appid(&self, appid: &str) -> Vec<usize>;

    /// The API that the account's token is of.
    fn api(&self, account: usize) -> Api;

    /// What to hand out now; `None` without a live token. Called for each request: it may look at files, and nothing
    /// slower.
    fn token(&self, account: usize) -> Option<Token>;

    /// A live ticket of this type, as JSON. Where WeChat can be asked on demand it is waited for, but not for long.
    fn ticket<'a>(
        &'a self,
        account: usize,
        kind: &'a TicketType,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, NoTicket>> + 'a>>;

    /// The account whose token this is, or was until a moment ago.
    fn holder_of(&self, token: &str) -> Option<usize>;

    /// Whether WeChat can be asked on demand.
    fn can_refresh(&self) -> bool;

    /// Sees to it that there is such a token, and waits for it, but not for long.
    fn obtain(
        &self,
        account: usize,
        wish: Wish,
    ) -> Pin<Box<dyn Future<Output = Result<Token, Lack>> + '_>>;

    /// What is known of an account, for people and for metrics.
    fn seen(&self, account: usize) -> Seen;

    /// Follows the accounts' schedules from now on, where it does not do so already.
    fn keep(&self);

    /// The operator has mended something: what was refused may be tried again at once.
    fn hangup(&self);

    /// The process is about to end: nothing more is asked on schedule, and what is under way is waited for.
    fn wind_up(&self) -> Pin<Box<dyn Future<Output = ()> + '_>>;
}

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
pub(crate) struct Lack {
    /// A sentence for people, without a secret in it.
    pub(crate) why: String,
    pub(crate) retry_after: Duration,
}

impl Lack {
    /// When to ask again where nobody knows better: soon enough after the next `fetch`, whenever that is, and too seldom
    /// to be a load.
    pub(super) const RETRY_AFTER: Duration = Duration::from_secs(10);

    /// One of which nobody knows when it ends.
    pub(crate) fn for_now(why: &str) -> Lack {
        Lack { why: why.to_owned(), retry_after: Lack::RETRY_AFTER }
    }
}

/// Why there is no ticket to hand out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoTicket {
    /// Its account is not one with such tickets.
    NotKept,
    ForNow(Lack),
}

/// An account as people and metrics see it. Nothing in it is secret.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) appid: Option<String>,
    /// The published token; `None` where there is none.
    pub(crate) token: Option<SeenToken>,
    /// The tickets that are fetched for it, or are to be.
    pub(crate) tickets: Vec<SeenTicket>,
    /// What this process asked of WeChat; `None` where it does not ask.
    pub(crate) asking: Option<SeenAsking>,
}

#[derive(Clone, Debug)]
pub(crate) struct SeenToken {
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
pub(crate) struct SeenTicket {
    pub(crate) kind: String,
    /// The published one; `None` where there is none.
    pub(crate) ticket: Option<SeenToken>,
    /// The last failure of this process to get one, as that of a token.
    pub(crate) failure: Option<(UtcDateTime, String)>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct SeenAsking {
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
    pub(crate) hook: Option<SeenHook>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct SeenHook {
    /// When it last failed, if it has not run well since.
    pub(crate) failed_at: Option<UtcDateTime>,
}

impl SeenTicket {
    /// Whether it is handed out.
    pub(super) fn is_live(&self) -> bool {
        self.ticket.as_ref().is_some_and(SeenToken::is_live)
    }
}

impl SeenToken {
    /// Whether it is handed out.
    pub(super) fn is_live(&self) -> bool {
        !self.life.is_zero() && !self.is_dead
    }
}

/// Where there are no accounts at all.
#[cfg(test)]
pub(super) struct NoTokens;

#[cfg(test)]
impl Tokens for NoTokens {
    fn names(&self) -> &[String] {
        &[]
    }
    fn with_appid(&self, _: &str) -> Vec<usize> {
        Vec::new()
    }
    fn api(&self, _: usize) -> Api {
        Api::default()
    }
    fn token(&self, _: usize) -> Option<Token> {
        None
    }
    fn ticket<'a>(
        &'a self,
        _: usize,
        _: &'a TicketType,
    ) -> Pin<Box<dyn Future<Output = Result<Bytes, NoTicket>> + 'a>> {
        Box::pin(async { Err(NoTicket::NotKept) })
    }
    fn holder_of(&self, _: &str) -> Option<usize> {
        None
    }
    fn can_refresh(&self) -> bool {
        false
    }
    fn obtain(&self, _: usize, _: Wish) -> Pin<Box<dyn Future<Output = Result<Token, Lack>> + '_>> {
        Box::pin(async { Err(Lack { why: String::new(), retry_after: Duration::ZERO }) })
    }
    fn seen(&self, _: usize) -> Seen {
        Seen::default()
    }
    fn keep(&self) {}
    fn hangup(&self) {}
    fn wind_up(&self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(async {})
    }
}
