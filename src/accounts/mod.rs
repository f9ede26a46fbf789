//! The accounts whose tokens `serve` hands out. An `Accounts` value never changes which accounts there are and how they are served: a reload
//! makes a new one, which takes over what has not changed.

mod cached_document;
pub(crate) mod messages;
mod plan;
mod served;

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;

use hyper::body::Bytes;
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::spawn_local;

pub(crate) use self::cached_document::TokenAge;
pub(crate) use self::plan::{AccountPlan, ConnectedPlan, RefreshPlan, connect_all};
use self::served::ServedAccount;
use crate::log::error;
use crate::model::account::{self, Tag};
use crate::model::api::Api;
use crate::model::client_key::opaque_token::TokenSeed;
use crate::model::kind::TicketType;
use crate::model::location::Location;
use crate::model::secret::Secret;
use crate::model::status::{
    AccountStatus, ClientIdentity, LiveToken, NoTicket, TokenDemand, TokenEvidence, Unavailable,
};
use crate::os::clock::Clock;
use crate::os::thread::{self, Piece};
use crate::os::timestamp::Timestamp;
use crate::scheduler::{Environment, Scheduler};
use crate::upstream::connect::Connector;
use crate::upstream::passed::KnownMirrors;

/// What accounts need to be served, and share.
#[derive(Clone)]
pub(crate) struct AccountResources {
    pub(crate) connector: Arc<Connector>,
    pub(crate) environment: Environment,
}

/// All accounts that are served. What is asked of one of them costs the same however many there are.
pub(crate) struct Accounts {
    /// Sorted by name; an account's index is its place in this list.
    served: Vec<Rc<ServedAccount>>,
    names: Vec<String>,
    by_appid: HashMap<String, Vec<usize>>,
    /// Those whose AppID is not configured; their documents have it.
    without_appid: Vec<usize>,
    by_tag: OnceCell<HashMap<Tag, Vec<usize>>>,
    can_refresh: bool,
    holders: RefCell<TokenHolders>,
    mirrors: Arc<KnownMirrors>,
    clock: Arc<dyn Clock>,
}

#[cfg(test)]
impl AccountResources {
    pub(crate) fn for_tests() -> AccountResources {
        let clock: Arc<dyn Clock> = Arc::new(crate::os::clock::SystemClock);
        let stores = crate::store::Stores::new(Arc::clone(&clock));
        AccountResources { connector: Arc::default(), environment: Environment::new(clock, stores) }
    }
}

impl Accounts {
    /// Serves the accounts of these plans. An account that `before` serves with a plan that is continued keeps its
    /// scheduler.
    pub(crate) fn new(
        plans: Vec<ConnectedPlan>,
        before: Option<&Accounts>,
        shared: &AccountResources,
    ) -> Accounts {
        let serve = |(plan, upstream): ConnectedPlan| match before
            .and_then(|before| before.find(&plan.account.name))
        {
            Some(served) if *served.plan() == plan => Rc::clone(served),
            Some(served) if served.plan().is_continued_by(&plan) => {
                Rc::new(served.continued(plan, &shared.connector))
            }
            _ => Rc::new(ServedAccount::new(plan, upstream, shared)),
        };
        let mut served: Vec<_> = plans.into_iter().map(serve).collect();
        served.sort_by(|one, other| one.account().name.cmp(&other.account().name));
        let mut by_appid: HashMap<String, Vec<usize>> = HashMap::new();
        let mut without_appid = Vec::new();
        for (index, it) in served.iter().enumerate() {
            match &it.account().appid {
                Some(appid) => by_appid.entry(appid.clone()).or_default().push(index),
                None => without_appid.push(index),
            }
        }
        Accounts {
            names: served.iter().map(|it| it.account().name.clone()).collect(),
            holders: RefCell::new(TokenHolders::new(served.len())),
            can_refresh: served.iter().any(|it| it.scheduler().is_some()),
            served,
            by_appid,
            without_appid,
            by_tag: OnceCell::new(),
            mirrors: Arc::clone(&shared.connector.mirrors),
            clock: Arc::clone(&shared.environment.clock),
        }
    }

    fn find(&self, name: &str) -> Option<&Rc<ServedAccount>> {
        let index = self.names.binary_search_by(|known| known.as_str().cmp(name)).ok()?;
        self.served.get(index)
    }

    /// Returns the current token of the account.
    fn current(&self, account: usize) -> Option<(Rc<Secret>, LiveToken)> {
        let (secret, token) = self.served[account].current(&*self.clock)?;
        self.holders.borrow_mut().note(account, &secret, &token);
        Some((secret, token))
    }

    /// Returns the current token of the account, and looks at the document even if it did so within the last millisecond.
    fn newest(&self, account: usize) -> Option<(Rc<Secret>, LiveToken)> {
        self.served[account].forget_look();
        self.current(account)
    }

    /// The accounts' names, sorted. An account's index is its place in this list.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns how many documents this process refreshes.
    pub(crate) fn refreshed_documents(&self) -> usize {
        let refreshed = self.served.iter().filter(|it| it.scheduler().is_some());
        refreshed.map(|it| 1 + it.account().tickets.len()).sum()
    }

    /// Whether documents are kept in a Redis.
    pub(crate) fn uses_redis(&self) -> bool {
        self.served.iter().any(|it| matches!(it.account().location, Location::Redis(_)))
    }

    /// Returns the accounts with this AppID. There are several if they are apps of one corp, or on different APIs.
    pub(crate) fn with_appid(&self, appid: &str) -> Vec<usize> {
        let mut found = self.by_appid.get(appid).cloned().unwrap_or_default();
        let now = self.clock.now();
        let publishes = |account: &usize| self.served[*account].publishes_for(appid, now);
        found.extend(self.without_appid.iter().copied().filter(publishes));
        found
    }

    /// Returns the accounts with this tag: one, or none.
    pub(crate) fn tagged(&self, tag: Tag) -> &[usize] {
        let by_tag = self.by_tag.get_or_init(|| {
            let mut by_tag: HashMap<Tag, Vec<usize>> = HashMap::new();
            for (index, name) in self.names.iter().enumerate() {
                by_tag.entry(account::tag(name)).or_default().push(index);
            }
            by_tag
        });
        by_tag.get(&tag).map_or(&[], Vec::as_slice)
    }

    /// Returns the API that issues the account's token.
    pub(crate) fn api(&self, account: usize) -> Api {
        self.served[account].account().api
    }

    /// Whether a request of this client for the account's token is a loop, by the names that it has `passed`.
    pub(crate) fn has_come_back(
        &self,
        account: usize,
        client: &ClientIdentity,
        passed: &[&str],
    ) -> bool {
        let (account, now) = (self.served[account].account(), self.clock.instant());
        self.mirrors.has_come_back(account, client, passed, now)
    }

    /// Returns the token to hand out now; `None` without a live one. Called for each request: looks at the document's
    /// file once a millisecond, and does nothing slower.
    pub(crate) fn token(&self, account: usize) -> Option<LiveToken> {
        self.current(account).map(|(_, token)| token)
    }

    /// Returns the token itself and the token to hand out now, with its life; `None` without a live one.
    pub(crate) fn live_token(&self, account: usize) -> Option<(Rc<Secret>, LiveToken)> {
        self.current(account)
    }

    /// Returns a token as demanded. Waits for it for some seconds if this process refreshes.
    pub(crate) async fn obtain(
        &self,
        account: usize,
        demand: TokenDemand,
    ) -> Result<LiveToken, Unavailable> {
        self.served[account].obtain(&demand, || self.newest(account)).await
    }

    /// Returns the token itself, to make a call with it; `None` without a live one. Called for each request.
    pub(crate) fn live_secret(&self, account: usize) -> Option<Rc<Secret>> {
        self.current(account).map(|(secret, _)| secret)
    }

    /// Returns the token itself, as demanded. Waits for it for some seconds if this process refreshes.
    pub(crate) async fn obtain_secret(
        &self,
        account: usize,
        demand: TokenDemand,
    ) -> Result<Rc<Secret>, Unavailable> {
        let look = || self.newest(account).map(|(secret, _)| (Rc::clone(&secret), secret));
        self.served[account].obtain(&demand, look).await
    }

    /// Returns a live ticket of this type as JSON. Waits for it for some seconds if this process refreshes.
    pub(crate) async fn ticket(
        &self,
        account: usize,
        kind: &TicketType,
    ) -> Result<Bytes, NoTicket> {
        let look = || self.newest(account);
        self.served[account].ticket(kind, &*self.clock, look).await
    }

    /// Returns the account whose token this is, or was within the overlap after its replacement.
    pub(crate) fn holder_of(&self, token: &str) -> Option<usize> {
        let now = self.clock.now();
        let is_holder = |account: &usize| self.served[*account].is_token(token, now);
        let guess = self.holders.borrow().guess(token);
        guess.filter(is_holder).or_else(|| (0..self.served.len()).find(is_holder))
    }

    /// Returns the account whose token this is, or was so lately that an SDK may still send it. It may have expired or be dead.
    pub(crate) fn recognize(&self, token: &str) -> Option<(usize, TokenAge)> {
        let now = self.clock.now();
        let age = |account: usize| Some((account, self.served[account].recognize(token, now)?));
        let guess = self.holders.borrow().guess(token);
        guess.and_then(age).or_else(|| (0..self.served.len()).find_map(age))
    }

    /// Finds one of the account's recognized tokens by its seed. Returns no token if it was replaced before this process began: only its seed
    /// is known.
    pub(crate) fn find_by_seed(
        &self,
        account: usize,
        is_wanted: impl Fn(&TokenSeed) -> bool,
    ) -> Option<(Option<Rc<Secret>>, TokenAge)> {
        self.served[account].find_by_seed(self.clock.now(), is_wanted)
    }

    /// Returns what is known of the account's current token from asking WeChat lately; `None` if this process does not ask.
    pub(crate) fn evidence(&self, account: usize) -> Option<TokenEvidence> {
        let scheduler = self.served[account].scheduler()?;
        let current = self.current(account);
        Some(current.map_or(TokenEvidence::None, |(token, _)| scheduler.evidence(&token)))
    }

    /// Whether this process refreshes, so that WeChat can be asked on demand.
    pub(crate) fn can_refresh(&self) -> bool {
        self.can_refresh
    }

    /// Returns the account's status, for people and for metrics.
    pub(crate) fn status(&self, account: usize, now: Timestamp) -> AccountStatus {
        self.served[account].status(now)
    }

    /// Starts the schedules that are not running yet. Runs where local tasks can be spawned.
    pub(crate) fn start(&self) {
        self.schedulers().for_each(|scheduler| scheduler.start());
    }

    /// Reads all secrets again, and lets everything be tried again at once: the operator may have removed the cause of a failure. A secret on
    /// a dead mount holds up its own account only.
    pub(crate) async fn hangup(&self) {
        let schedulers: Vec<_> = self.schedulers().collect();
        let (sender, mut reconnected) = unbounded_channel();
        let reconnect = |(index, scheduler): (usize, &&Rc<Scheduler>)| -> Piece {
            let (connection, sender) = (scheduler.connection(), sender.clone());
            Box::new(move || {
                connection.reconnect();
                let _ = sender.send(index); // Not received by a server that has ended.
            })
        };
        let pieces = schedulers.iter().enumerate().map(reconnect).collect();
        drop(sender);
        let read = spawn_local(thread::run(move || thread::run_beside(pieces)));
        while let Some(index) = reconnected.recv().await {
            schedulers[index].retry_now();
        }
        if let Ok(Err(err)) = read.await {
            error!("serve: {}", messages::SECRETS_STAY.with([&err]));
            schedulers.iter().for_each(|scheduler| scheduler.retry_now());
        }
    }

    /// Ends all schedules, and waits for the refreshes under way.
    pub(crate) async fn wind_up(&self) {
        self.schedulers().for_each(|scheduler| scheduler.stop());
        for scheduler in self.schedulers() {
            scheduler.idle().await;
        }
    }

    fn schedulers(&self) -> impl Iterator<Item = &Rc<Scheduler>> {
        self.served.iter().filter_map(|it| it.scheduler())
    }
}

/// Which account each token belongs to that was handed out lately. Saves a look at each account's document.
struct TokenHolders {
    hasher: RandomState,
    by_token: HashMap<u64, usize>,
    /// The generation of the token that was noted last, for each account.
    noted: Vec<Option<u64>>,
}

impl TokenHolders {
    fn new(accounts: usize) -> TokenHolders {
        TokenHolders {
            hasher: RandomState::new(),
            by_token: HashMap::new(),
            noted: vec![None; accounts],
        }
    }

    fn note(&mut self, account: usize, secret: &Secret, token: &LiveToken) {
        if self.noted[account] == Some(token.generation) {
            return;
        }
        // Enough for two days of twelve tokens and some more.
        if self.by_token.len() > 32 * self.noted.len() {
            self.by_token.clear();
            self.noted.fill(None);
        }
        self.by_token.insert(self.hasher.hash_one(secret.expose()), account);
        self.noted[account] = Some(token.generation);
    }

    /// Returns the account to which the token may belong: hashes may collide.
    fn guess(&self, token: &str) -> Option<usize> {
        self.by_token.get(&self.hasher.hash_one(token)).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::model::account::Account;
    use crate::upstream::config::{Origin, UpstreamConfig};

    fn account(dir: &Path, name: &str, appid: Option<&str>) -> Account {
        Account { appid: appid.map(str::to_owned), ..Account::for_tests(dir.join(name)) }
    }

    fn accounts(
        plans: impl IntoIterator<Item = AccountPlan>,
        before: Option<&Accounts>,
    ) -> Accounts {
        let plans = plans.into_iter().map(|plan| (plan, None)).collect();
        Accounts::new(plans, before, &AccountResources::for_tests())
    }

    #[test]
    fn accounts_are_sorted_by_name_and_found_by_appid_and_token() {
        let dir = tempfile::tempdir().unwrap();
        // Lives longer than this test is run.
        let document = r#"{"appid":"wx1","access_token":"T1","expires_in":7200,"created_at":"9000-01-01T00:00:00Z"}"#;
        fs::write(dir.path().join("shop"), document).unwrap();
        let plan = |(name, appid)| AccountPlan {
            account: account(dir.path(), name, appid),
            refresh: None,
        };
        let accounts = accounts(
            [("shop", None), ("branch", Some("wx2")), ("again", Some("wx1"))].map(plan),
            None,
        );
        assert_eq!(accounts.names(), ["again", "branch", "shop"]);
        assert_eq!(accounts.with_appid("wx1"), [0, 2], "the last one by its document");
        assert_eq!(accounts.with_appid("wx2"), [1]);
        assert!(accounts.with_appid("WX1").is_empty());
        assert!(accounts.token(2).unwrap().json.starts_with(br#"{"access_token":"T1","#));
        assert_eq!(accounts.token(1), None);
        assert_eq!(accounts.holder_of("T1"), Some(2));
        assert_eq!(accounts.holder_of("T2"), None);
    }

    #[test]
    fn a_quiet_accounts_token_is_noted_again_after_another_account_had_many() {
        let mut holders = TokenHolders::new(2);
        let token = |generation| LiveToken {
            json: Default::default(),
            life: Duration::from_secs(7200),
            generation,
        };
        let secret = |text: &str| Secret::new(text.to_owned());
        let mut note = |account, text: &str, generation| {
            holders.note(account, &secret(text), &token(generation));
        };
        note(1, "quiet", 1);
        (0..66).for_each(|n| note(0, &format!("T{n}"), n));
        note(1, "quiet", 1);
        assert_eq!(holders.guess("quiet"), Some(1));
        assert_eq!(holders.guess("T65"), Some(0));
    }

    fn refreshed(account: Account, line: usize) -> AccountPlan {
        let upstream = UpstreamConfig {
            base_urls: vec!["https://api.weixin.qq.com".to_owned()],
            proxy: None,
            ca_file: None,
            is_mirror: false,
            secret_file: None,
            secret_dir: None,
            origin: Origin::Config {
                account: format!("wxtoken.toml:{line}: account.shop"),
                secret_file: format!("wxtoken.toml:{}: account.shop.secret_file", line + 1),
            },
        };
        AccountPlan { account, refresh: Some(RefreshPlan { upstream, mode: 0o600 }) }
    }

    #[test]
    fn a_scheduler_goes_on_with_other_tickets_another_hook_or_other_lines_and_with_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let plan = |change: &dyn Fn(&mut AccountPlan)| {
            let mut plan = refreshed(account(dir.path(), "shop", Some("wx1")), 7);
            change(&mut plan);
            plan
        };
        let before = accounts([plan(&|_| ())], None);
        let goes_on = |change: &dyn Fn(&mut AccountPlan)| {
            let after = accounts([plan(change)], Some(&before));
            let scheduler = |it: &Accounts| Rc::clone(it.served[0].scheduler().unwrap());
            Rc::ptr_eq(&scheduler(&before), &scheduler(&after))
        };
        let jsapi = TicketType::parse("jsapi").unwrap();
        assert!(goes_on(&|_| ()));
        assert!(goes_on(&|it| it.account.tickets = vec![jsapi.clone()]));
        assert!(goes_on(&|it| *it = refreshed(it.account.clone(), 9)));
        assert!(!goes_on(&|it| it.account.appid = Some("wx2".to_owned())));
        assert!(!goes_on(&|it| it.account.refresh_before = Duration::from_secs(600)));
        assert!(!goes_on(&|it| it.refresh.as_mut().unwrap().mode = 0o640));
        assert!(!goes_on(&|it| {
            it.refresh.as_mut().unwrap().upstream.secret_file = Some("/secret".into());
        }));
    }
}
