//! What the listener asks of the rest of the program, and nothing about how it is found.

use std::future::Future;
use std::pin::Pin;

use hyper::body::Bytes;

use crate::model::api::Api;
use crate::model::document::TicketType;
use crate::model::status::{AccountStatus, NoTicket, Token, Unavailable, Wish};

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
    ) -> Pin<Box<dyn Future<Output = Result<Token, Unavailable>> + '_>>;

    /// What is known of an account, for people and for metrics.
    fn seen(&self, account: usize) -> AccountStatus;

    /// Follows the accounts' schedules from now on, where it does not do so already.
    fn keep(&self);

    /// The operator has mended something: what was refused may be tried again at once.
    fn hangup(&self);

    /// The process is about to end: nothing more is asked on schedule, and what is under way is waited for.
    fn wind_up(&self) -> Pin<Box<dyn Future<Output = ()> + '_>>;
}

/// Where there are no accounts at all.
#[cfg(test)]
pub(crate) struct NoTokens;

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
    fn obtain(
        &self,
        _: usize,
        _: Wish,
    ) -> Pin<Box<dyn Future<Output = Result<Token, Unavailable>> + '_>> {
        Box::pin(async {
            Err(Unavailable { why: String::new(), retry_after: std::time::Duration::ZERO })
        })
    }
    fn seen(&self, _: usize) -> AccountStatus {
        AccountStatus::default()
    }
    fn keep(&self) {}
    fn hangup(&self) {}
    fn wind_up(&self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(async {})
    }
}
