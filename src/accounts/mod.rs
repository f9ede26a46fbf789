//! The accounts that `serve` hands out tokens of: the published document of each, and who sees to it that there is one.
//! Which accounts there are never changes; other ones take their place, with what has not changed of the old ones.

mod cached_document;

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;

use hyper::body::Bytes;
use time::UtcDateTime;
use tokio::task::JoinHandle;

use crate::accounts::cached_document::CachedDocument;
use crate::model::account::Account;
use crate::model::api::Api;
use crate::model::kind::{DocumentKind, TicketType};
use crate::model::secret::Secret;
use crate::model::status::{
    AccountStatus, DocumentStatus, NoTicket, Problem, Token, TokenRequest, Unavailable,
};
use crate::os::clock::{Clock, SystemClock};
use crate::scheduler::Scheduler;
use crate::store::Stores;

/// Why there is no token where nobody asks WeChat.
const NO_TOKEN: &str =
    "there is no live token to hand out; run `wxtoken status` on the server to see why";

/// The same of a ticket.
const NO_TICKET: &str = "there is no live ticket of this type to hand out, or not yet: `wxtoken fetch` on the server fetches it \
                         after the token, and `wxtoken status` tells what there is";

/// One account that is served.
pub(crate) struct Served {
    account: Account,
    cached: RefCell<CachedDocument>,
    scheduler: Option<Rc<Scheduler>>,
    /// Its scheduler's schedule, if that is followed.
    keeping: RefCell<Option<JoinHandle<()>>>,
}

impl Served {
    pub(crate) fn new(account: Account, scheduler: Option<Scheduler>, stores: &Stores) -> Served {
        Served {
            cached: RefCell::new(CachedDocument::new(account.clone(), stores.clone())),
            account,
            scheduler: scheduler.map(Rc::new),
            keeping: RefCell::default(),
        }
    }

    fn keep(&self) {
        if let Some(scheduler) = &self.scheduler {
            self.keeping.borrow_mut().get_or_insert_with(|| scheduler.keep());
        }
    }

    fn let_go(&self) {
        if let Some(keeping) = self.keeping.take() {
            keeping.abort();
        }
    }

    /// The token that is published now, lives, and is not known to be dead.
    fn current(&self) -> Option<(Rc<Secret>, Token)> {
        let (secret, token) = self.cached.borrow_mut().answer(SystemClock.now())?;
        let is_dead = self.scheduler.as_ref().is_some_and(|scheduler| scheduler.is_dead(&secret));
        (!is_dead).then_some((secret, token))
    }
}

impl Drop for Served {
    /// Nobody serves it any more, so nobody refreshes it.
    fn drop(&mut self) {
        self.let_go();
    }
}

/// All accounts that are served. What is asked about one of them costs no more for there being others.
pub(crate) struct Accounts {
    /// Sorted; an account's place is its number.
    names: Vec<String>,
    served: Vec<Rc<Served>>,
    by_appid: HashMap<String, Vec<usize>>,
    /// Those whose AppID only their documents know.
    anonymous: Vec<usize>,
    can_refresh: bool,
    holders: RefCell<Holders>,
}

impl Accounts {
    pub(crate) fn new(served: impl IntoIterator<Item = Rc<Served>>) -> Accounts {
        let mut served: Vec<_> = served.into_iter().collect();
        served.sort_by(|one, other| one.account.name.cmp(&other.account.name));
        let mut by_appid: HashMap<String, Vec<usize>> = HashMap::new();
        let mut anonymous = Vec::new();
        for (place, it) in served.iter().enumerate() {
            match &it.account.appid {
                Some(appid) => by_appid.entry(appid.clone()).or_default().push(place),
                None => anonymous.push(place),
            }
        }
        Accounts {
            names: served.iter().map(|it| it.account.name.clone()).collect(),
            holders: RefCell::new(Holders::among(served.len())),
            can_refresh: served.iter().any(|it| it.scheduler.is_some()),
            served,
            by_appid,
            anonymous,
        }
    }

    fn current(&self, account: usize) -> Option<(Rc<Secret>, Token)> {
        let (secret, token) = self.served[account].current()?;
        self.holders.borrow_mut().note(account, &secret, &token);
        Some((secret, token))
    }

    /// The accounts' names, sorted. An account's index is its place in this list.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// The accounts with this AppID. There are several if they are apps of one corp, or on different APIs.
    pub(crate) fn with_appid(&self, appid: &str) -> Vec<usize> {
        let mut found = self.by_appid.get(appid).cloned().unwrap_or_default();
        // A reader need not know the AppID: the document has it. The last one read is looked at first, as a document
        // seldom changes its account.
        let is_published = |account: &usize| {
            let mut cached = self.served[*account].cached.borrow_mut();
            cached.last_document().is_some_and(|document| document.appid == appid)
                || cached.document(SystemClock.now()).is_some_and(|it| it.appid == appid)
        };
        found.extend(self.anonymous.iter().copied().filter(is_published));
        found
    }

    /// The API that the account's token is of.
    pub(crate) fn api(&self, account: usize) -> Api {
        self.served[account].account.api
    }

    /// Returns the token to hand out now; `None` without a live one. Called for each request: looks at the document's
    /// file, and does nothing slower.
    pub(crate) fn token(&self, account: usize) -> Option<Token> {
        self.current(account).map(|(_, token)| token)
    }

    /// Returns a live ticket of this type as JSON. Waits for one for some seconds if this process refreshes.
    pub(crate) async fn ticket(
        &self,
        account: usize,
        kind: &TicketType,
    ) -> Result<Bytes, NoTicket> {
        let Served { account: settings, cached, scheduler, .. } = &*self.served[account];
        let look = || cached.borrow_mut().ticket(kind, SystemClock.now());
        if let Some(ticket) = look() {
            return Ok(ticket);
        }
        // Without a config for it here another process may fetch it: an expired document is a sign of that.
        let is_kept = || cached.borrow_mut().ticket_document(kind).is_some();
        let is_ours = settings.tickets.contains(kind);
        if !is_ours && !is_kept() {
            return Err(NoTicket::NotKept);
        }
        let Some(scheduler) = scheduler.as_ref().filter(|_| is_ours) else {
            return Err(NoTicket::ForNow(Unavailable::for_now(NO_TICKET)));
        };
        // A ticket is asked for with a token.
        let token = scheduler.obtain(&TokenRequest::Live, || self.current(account)).await;
        token.map_err(NoTicket::ForNow)?;
        scheduler.obtain_ticket(kind, look).await.map_err(NoTicket::ForNow)
    }

    /// The account whose token this is, or was within the overlap after its replacement.
    pub(crate) fn holder_of(&self, token: &str) -> Option<usize> {
        let now = SystemClock.now();
        let is_of =
            |account: &usize| self.served[*account].cached.borrow_mut().is_token(token, now);
        let guess = self.holders.borrow().guess(token);
        guess.filter(is_of).or_else(|| (0..self.served.len()).find(is_of))
    }

    /// Whether this process refreshes, so that WeChat can be asked on demand.
    pub(crate) fn can_refresh(&self) -> bool {
        self.can_refresh
    }

    /// Has such a token published, and returns it. Waits for it for some seconds if this process refreshes.
    pub(crate) async fn obtain(
        &self,
        account: usize,
        request: TokenRequest,
    ) -> Result<Token, Unavailable> {
        match &self.served[account].scheduler {
            Some(scheduler) => scheduler.obtain(&request, || self.current(account)).await,
            None => self.token(account).ok_or_else(|| Unavailable::for_now(NO_TOKEN)),
        }
    }

    /// The account's status, for people and for metrics.
    pub(crate) fn status(&self, account: usize, now: UtcDateTime) -> AccountStatus {
        let Served { account, cached, scheduler, .. } = &*self.served[account];
        let (mut cached, scheduler) = (cached.borrow_mut(), scheduler.as_deref());
        let look = |kind: &DocumentKind| {
            let document = match kind {
                DocumentKind::Token => cached.document(now),
                DocumentKind::Ticket(kind) => cached.ticket_document(kind),
            };
            let is_dead = document
                .zip(scheduler)
                .is_some_and(|(document, scheduler)| scheduler.is_dead(&document.token));
            let failure = scheduler.and_then(|scheduler| scheduler.failure(kind));
            let document = document.ok_or(Problem::Missing);
            DocumentStatus { is_dead, failure, ..DocumentStatus::new(account, kind, document, now) }
        };
        AccountStatus::new(account, look, scheduler.map(Scheduler::status))
    }

    /// Follows the schedules of all accounts, where that is not done yet.
    pub(crate) fn keep(&self) {
        self.served.iter().for_each(|it| it.keep());
    }

    /// Lets what was refused be tried again at once, as the operator may have mended the cause.
    pub(crate) fn hangup(&self) {
        self.schedulers().for_each(|scheduler| scheduler.hangup());
    }

    /// Ends all schedules, and waits for the refreshes under way.
    pub(crate) async fn wind_up(&self) {
        self.served.iter().for_each(|it| it.let_go());
        self.schedulers().for_each(|scheduler| scheduler.wind_up());
        for scheduler in self.schedulers() {
            scheduler.settled().await;
        }
    }

    fn schedulers(&self) -> impl Iterator<Item = &Rc<Scheduler>> {
        self.served.iter().filter_map(|it| it.scheduler.as_ref())
    }
}

/// Whose token is which, of those that were handed out lately: found without a look at each account's document.
struct Holders {
    hasher: RandomState,
    by_token: HashMap<u64, usize>,
    /// By the accounts' places: the generation of the token that was noted last.
    noted: Vec<Option<u64>>,
}

impl Holders {
    fn among(accounts: usize) -> Holders {
        Holders {
            hasher: RandomState::new(),
            by_token: HashMap::new(),
            noted: vec![None; accounts],
        }
    }

    fn note(&mut self, account: usize, secret: &Secret, token: &Token) {
        if self.noted[account] == Some(token.generation) {
            return;
        }
        // Those of today and yesterday are enough.
        if self.by_token.len() > 32 * self.noted.len() {
            self.by_token.clear();
        }
        self.by_token.insert(self.hasher.hash_one(secret.expose()), account);
        self.noted[account] = Some(token.generation);
    }

    /// The account that may be the token's.
    fn guess(&self, token: &str) -> Option<usize> {
        self.by_token.get(&self.hasher.hash_one(token)).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::model::api::{Api, Rules};
    use crate::model::location::Location;

    fn account(dir: &Path, name: &str, appid: Option<&str>) -> Account {
        Account {
            name: name.to_owned(),
            appid: appid.map(str::to_owned),
            api: Api::Stable,
            rules: Rules::Stable,
            refresh_before: Duration::from_secs(300),
            location: Location::File(dir.join(name)),
            tickets: Vec::new(),
            on_change: None,
        }
    }

    #[test]
    fn accounts_are_in_the_order_of_their_names_and_know_their_appids() {
        let dir = tempfile::tempdir().unwrap();
        // Still alive when nobody runs this test any more.
        let document = r#"{"appid":"wx1","access_token":"T1","expires_in":7200,"created_at":"9000-01-01T00:00:00Z"}"#;
        fs::write(dir.path().join("shop"), document).unwrap();
        let stores = Stores::new(Arc::new(SystemClock));
        let of = [("shop", None), ("branch", Some("wx2")), ("again", Some("wx1"))];
        let of =
            of.map(|(name, appid)| Served::new(account(dir.path(), name, appid), None, &stores));
        let accounts = Accounts::new(of.map(Rc::new));
        assert_eq!(accounts.names(), ["again", "branch", "shop"]);
        assert_eq!(accounts.with_appid("wx1"), [0, 2], "the document of the last one knows");
        assert_eq!(accounts.with_appid("wx2"), [1]);
        assert!(accounts.with_appid("WX1").is_empty());
        assert!(accounts.token(2).unwrap().json.starts_with(br#"{"access_token":"T1","#));
        assert_eq!(accounts.token(1), None);
        assert_eq!(accounts.holder_of("T1"), Some(2));
        assert_eq!(accounts.holder_of("T2"), None);
    }
}
