//! WeChat's rules for tokens as a state machine: what each call is answered, which tokens it mints and which it revokes.
//! Time comes in as an argument, as a duration since the Unix epoch. Knows neither HTTP nor faults.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::errmsg::{self, Wording};
use super::random::MockRandom;
use crate::model::secret::Secret;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// WeCom's limits on tickets, for one app and for all apps of a corp. WeCom states them for jsapi tickets; agent_config tickets
/// count towards them here, too. WeChat states no limit. <https://developer.work.weixin.qq.com/document/path/90454>
const TICKETS_PER_HOUR_OF_APP: u32 = 100;
const TICKETS_PER_HOUR_OF_CORP: u32 = 400;

/// Daily limit on GET /cgi-bin/token of a newly registered account.
const CLASSIC_PER_DAY: u32 = 2_000;
const STABLE_PER_DAY: u32 = 500_000;
const STABLE_PER_MINUTE: u32 = 10_000;
const FORCED_PER_DAY: u32 = 20;
/// Within this time after a forced call, WeChat answers another one with the current token, without an error.
const FORCED_INTERVAL: Duration = Duration::from_secs(30);

/// Tokens remembered for each account and API, dead ones included, since a token that has expired gets another errcode
/// than one that never existed. Bounds memory.
const MAX_REMEMBERED: usize = 10_000;

/// `expires_in` is in whole seconds and never 0.
const MIN_LIFE: Duration = Duration::from_secs(1);

/// How long tokens work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenLifetime {
    /// From a token's mint to its expiry.
    pub(crate) life: Duration,
    /// How long a replaced token keeps working.
    pub(crate) overlap: Duration,
}

/// The parameters by which a caller authenticates; a missing one is empty.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallerCredentials<'a> {
    pub(crate) appid: &'a str,
    pub(crate) grant_type: &'a str,
    pub(crate) secret: &'a str,
}

/// A token or ticket, as it is answered.
#[derive(Debug)]
pub(crate) struct MockGrant {
    pub(crate) token: Secret,
    pub(crate) expires_in_secs: u64,
}

/// A business error, as it is answered.
#[derive(Debug)]
pub(crate) struct MockRefusal {
    pub(crate) errcode: i64,
    pub(crate) errmsg: String,
}

/// WeChat's and WeCom's state as far as it concerns tokens.
pub(crate) struct MockWeChat {
    accounts: Vec<MockAccount>,
    /// Shared by all apps of a corp; by its ID.
    tickets_per_hour: BTreeMap<String, CallQuota>,
    lifetime: TokenLifetime,
    random: MockRandom,
    mints: u64,
}

/// An account, or one app of a corp. The apps of a corp share its ID, and each has a secret.
struct MockAccount {
    appid: String,
    secret: Secret,
    classic: TokenHistory,
    stable: TokenHistory,
    wecom: TokenHistory,
    /// By the tickets' type.
    tickets: BTreeMap<&'static str, TokenHistory>,
    tickets_per_hour: CallQuota,
    classic_per_day: CallQuota,
    stable_per_day: CallQuota,
    stable_per_minute: CallQuota,
    forced_per_day: CallQuota,
    forced_at: Option<Duration>,
}

/// The tokens of one account and one API, oldest first. The APIs do not affect each other's tokens.
#[derive(Default)]
struct TokenHistory(VecDeque<MockToken>);

struct MockToken {
    text: Secret,
    expires_at: Duration,
    /// Equals `expires_at`, or is earlier if the token was replaced or revoked.
    dies_at: Duration,
}

/// Limits the calls in a window of time. Windows count from the stand-in's start, where WeChat's days begin at midnight.
struct CallQuota {
    limit: u32,
    window: Duration,
    started_at: Duration,
    current_window: u64,
    used: u32,
}

impl MockWeChat {
    /// `accounts` are pairs of AppID and secret. Quotas count from `now`; `seed` determines the tokens. If several accounts have
    /// one AppID, they are apps of a WeCom corp; WeChat's own APIs know the first of them alone.
    pub(crate) fn new(
        accounts: Vec<(String, Secret)>,
        lifetime: TokenLifetime,
        now: Duration,
        seed: u64,
    ) -> MockWeChat {
        let tickets_of_corp =
            |appid: &String| (appid.clone(), CallQuota::new(TICKETS_PER_HOUR_OF_CORP, HOUR, now));
        MockWeChat {
            tickets_per_hour: accounts.iter().map(|(appid, _)| tickets_of_corp(appid)).collect(),
            accounts: accounts
                .into_iter()
                .map(|(appid, secret)| MockAccount::new(appid, secret, now))
                .collect(),
            lifetime,
            random: MockRandom::new(seed),
            mints: 0,
        }
    }

    /// GET /cgi-bin/token: mints a new token at each call; the one before stops working after the overlap.
    pub(crate) fn classic_token(
        &mut self,
        caller: CallerCredentials<'_>,
        now: Duration,
    ) -> Result<MockGrant, MockRefusal> {
        self.try_classic(caller, now)
            .map_err(|errcode| self.refusal(errcode, Wording::Classic, now))
    }

    /// POST /cgi-bin/stable_token: the same token until its last overlap. With `forced` (`force_refresh`) a new one, unless
    /// the last forced call was too recent.
    pub(crate) fn stable_token(
        &mut self,
        caller: CallerCredentials<'_>,
        forced: bool,
        now: Duration,
    ) -> Result<MockGrant, MockRefusal> {
        self.try_stable(caller, forced, now)
            .map_err(|errcode| self.refusal(errcode, Wording::WeChat, now))
    }

    /// GET /cgi-bin/gettoken of WeCom: the same token while it lives, always answered with a whole life. Ignores the grant type.
    pub(crate) fn wecom_token(
        &mut self,
        caller: CallerCredentials<'_>,
        now: Duration,
    ) -> Result<MockGrant, MockRefusal> {
        self.try_wecom(caller, now).map_err(|errcode| self.refusal(errcode, Wording::WeCom, now))
    }

    /// Checks a token as each API that takes one does.
    pub(crate) fn check_token(&mut self, token: &str, now: Duration) -> Result<(), MockRefusal> {
        let known = self.accounts.iter().find_map(|account| account.find(token));
        let errcode = match known {
            Some(token) if token.is_live(now) => return Ok(()),
            _ if self.is_wecom_token(token) => {
                return Err(self.refusal(40014, Wording::WeCom, now));
            }
            _ if token.is_empty() => 41001,
            // A token that was replaced or revoked before its expiry stays "not latest" after it.
            Some(token) if token.dies_at == token.expires_at => 42001,
            _ => 40001,
        };
        Err(self.refusal(errcode, Wording::WeChat, now))
    }

    /// Returns the ticket of type `kind` for the account of `token`: the same while it lives, always with a whole life.
    pub(crate) fn ticket(
        &mut self,
        token: &str,
        kind: &'static str,
        now: Duration,
    ) -> Result<MockGrant, MockRefusal> {
        self.check_token(token, now)?;
        let is_wecom = self.is_wecom_token(token);
        let owner = self.accounts.iter_mut().find(|account| account.find(token).is_some());
        let Some(account) = owner else {
            return Err(self.refusal(40001, Wording::WeChat, now)); // Excluded by the check above.
        };
        let quota_of_corp = self.tickets_per_hour.get_mut(&account.appid);
        let take_quota = || {
            account.tickets_per_hour.take(now) && quota_of_corp.is_none_or(|quota| quota.take(now))
        };
        if is_wecom && !take_quota() {
            return Err(self.refusal(45009, Wording::WeCom, now));
        }
        let tickets = account.tickets.entry(kind).or_default();
        let life = self.lifetime.life;
        Ok(tickets
            .grant_with_whole_life(life, now)
            .unwrap_or_else(|| tickets.mint(self.random.wecom_token(), life, now)))
    }

    /// Returns whether WeCom gave out this token, live or dead.
    pub(crate) fn is_wecom_token(&self, token: &str) -> bool {
        self.accounts.iter().any(|account| account.wecom.find(token).is_some())
    }

    /// Revokes every live token, as another program with the same AppSecret could. Returns how many there were.
    pub(crate) fn revoke_all(&mut self, now: Duration) -> usize {
        let histories = self.accounts.iter_mut().flat_map(MockAccount::histories_mut);
        let tokens = histories.flat_map(|history| &mut history.0);
        tokens.filter(|token| token.is_live(now)).map(|token| token.dies_at = now).count()
    }

    /// Returns the number of tokens minted since the start.
    pub(crate) fn mints(&self) -> u64 {
        self.mints
    }

    /// Returns the refusal with this errcode and its text.
    pub(crate) fn refusal(&mut self, errcode: i64, wording: Wording, now: Duration) -> MockRefusal {
        let errmsg = match wording {
            Wording::WeCom => errmsg::with_hint(errcode, &self.hint(now)),
            _ => errmsg::with_rid(errcode, wording, &self.rid(now)),
        };
        MockRefusal { errcode, errmsg }
    }

    /// A hint as WeCom's: the Unix time and fifteen random digits.
    fn hint(&mut self, now: Duration) -> String {
        format!("{:010}{:015}", now.as_secs(), self.random.next() % 10u64.pow(15))
    }

    /// A request ID as WeChat's: the Unix time and two random groups.
    fn rid(&mut self, now: Duration) -> String {
        let random = self.random.next();
        // Eight digits hold the time until 2106; it wraps then.
        format!("{:08x}-{:08x}-{:08x}", now.as_secs() as u32, random as u32, random >> 32)
    }

    fn try_wecom(
        &mut self,
        caller: CallerCredentials<'_>,
        now: Duration,
    ) -> Result<MockGrant, i64> {
        match caller {
            CallerCredentials { secret: "", .. } => return Err(41004),
            CallerCredentials { appid: "", .. } => return Err(41002),
            _ => {}
        }
        let mut apps =
            self.accounts.iter_mut().filter(|account| account.appid == caller.appid).peekable();
        apps.peek().ok_or(40013)?;
        let app = apps.find(|account| account.secret.expose() == caller.secret).ok_or(40001)?;
        let life = self.lifetime.life;
        Ok(app.wecom.grant_with_whole_life(life, now).unwrap_or_else(|| {
            self.mints += 1;
            app.wecom.mint(self.random.wecom_token(), life, now)
        }))
    }

    fn try_classic(
        &mut self,
        caller: CallerCredentials<'_>,
        now: Duration,
    ) -> Result<MockGrant, i64> {
        let account = authenticate(&mut self.accounts, caller)?;
        if !account.classic_per_day.take(now) {
            return Err(45009);
        }
        account.classic.replace_last(self.lifetime.overlap, now);
        self.mints += 1;
        Ok(account.classic.mint(self.random.wechat_token(), self.lifetime.life, now))
    }

    fn try_stable(
        &mut self,
        caller: CallerCredentials<'_>,
        forced: bool,
        now: Duration,
    ) -> Result<MockGrant, i64> {
        let account = authenticate(&mut self.accounts, caller)?;
        let is_too_soon =
            account.forced_at.is_some_and(|at| now.saturating_sub(at) < FORCED_INTERVAL);
        account.take_stable_quota(now)?;
        if forced && !is_too_soon {
            if !account.forced_per_day.take(now) {
                return Err(45009);
            }
            account.forced_at = Some(now);
        } else if let Some(grant) = account.current_stable(self.lifetime, now) {
            return Ok(grant);
        }
        self.mints += 1;
        Ok(account.mint_stable(self.random.wechat_token(), self.lifetime, now))
    }
}

/// Returns the account that `caller` authenticates as. Checks in WeChat's order: the AppID comes before everything else.
fn authenticate<'a>(
    accounts: &'a mut [MockAccount],
    caller: CallerCredentials<'_>,
) -> Result<&'a mut MockAccount, i64> {
    if caller.appid.is_empty() {
        return Err(41002);
    }
    let account = accounts.iter_mut().find(|account| account.appid == caller.appid).ok_or(40013)?;
    match caller {
        _ if caller.grant_type != "client_credential" => Err(40002),
        _ if caller.secret.is_empty() => Err(41004),
        _ if caller.secret != account.secret.expose() => Err(40125),
        _ => Ok(account),
    }
}

impl MockAccount {
    fn new(appid: String, secret: Secret, now: Duration) -> MockAccount {
        MockAccount {
            appid,
            secret,
            classic: TokenHistory::default(),
            stable: TokenHistory::default(),
            wecom: TokenHistory::default(),
            tickets: BTreeMap::new(),
            tickets_per_hour: CallQuota::new(TICKETS_PER_HOUR_OF_APP, HOUR, now),
            classic_per_day: CallQuota::new(CLASSIC_PER_DAY, DAY, now),
            stable_per_day: CallQuota::new(STABLE_PER_DAY, DAY, now),
            stable_per_minute: CallQuota::new(STABLE_PER_MINUTE, MINUTE, now),
            forced_per_day: CallQuota::new(FORCED_PER_DAY, DAY, now),
            forced_at: None,
        }
    }

    fn find(&self, token: &str) -> Option<&MockToken> {
        [&self.classic, &self.stable, &self.wecom].into_iter().find_map(|known| known.find(token))
    }

    fn histories_mut(&mut self) -> [&mut TokenHistory; 3] {
        [&mut self.classic, &mut self.stable, &mut self.wecom]
    }

    /// Counts a call of stable_token. Fails with the errcode of the quota that is spent.
    fn take_stable_quota(&mut self, now: Duration) -> Result<(), i64> {
        if !self.stable_per_minute.take(now) {
            return Err(45011);
        }
        if !self.stable_per_day.take(now) {
            return Err(45009);
        }
        Ok(())
    }

    /// Returns the current stable token, unless it is dead or in its last overlap.
    fn current_stable(&self, lifetime: TokenLifetime, now: Duration) -> Option<MockGrant> {
        let token = self.stable.live(now)?;
        let left = token.expires_at.saturating_sub(now);
        (left >= lifetime.overlap.max(MIN_LIFE))
            .then(|| MockGrant { token: token.text.clone(), expires_in_secs: left.as_secs() })
    }

    /// Mints a stable token. One predecessor keeps working for the overlap, older ones die at once: two forced calls revoke
    /// a leaked token immediately.
    fn mint_stable(&mut self, text: Secret, lifetime: TokenLifetime, now: Duration) -> MockGrant {
        // Those before that one died when it was minted, at the latest.
        if let Some(older) = self.stable.0.iter_mut().rev().nth(1) {
            older.die_by(now);
        }
        self.stable.replace_last(lifetime.overlap, now);
        self.stable.mint(text, lifetime.life, now)
    }
}

impl TokenHistory {
    fn find(&self, token: &str) -> Option<&MockToken> {
        // It is nearly always one of the newest.
        self.0.iter().rev().find(|known| known.text.expose() == token)
    }

    /// Returns the newest token, if it is live.
    fn live(&self, now: Duration) -> Option<&MockToken> {
        self.0.back().filter(|token| token.is_live(now))
    }

    /// Returns the newest token, if it is live, with `life` as its expiry whatever is left of it. WeCom answers like this.
    fn grant_with_whole_life(&self, life: Duration, now: Duration) -> Option<MockGrant> {
        self.live(now)
            .map(|token| MockGrant { token: token.text.clone(), expires_in_secs: life.as_secs() })
    }

    /// Lets the newest token die after the overlap, or at its expiry if that is earlier.
    fn replace_last(&mut self, overlap: Duration, now: Duration) {
        if let Some(token) = self.0.back_mut() {
            token.die_by(now.saturating_add(overlap));
        }
    }

    fn mint(&mut self, text: Secret, life: Duration, now: Duration) -> MockGrant {
        if self.0.len() == MAX_REMEMBERED {
            self.0.pop_front();
        }
        let expires_at = now.saturating_add(life);
        self.0.push_back(MockToken { text: text.clone(), expires_at, dies_at: expires_at });
        MockGrant { token: text, expires_in_secs: life.as_secs() }
    }
}

impl MockToken {
    fn is_live(&self, now: Duration) -> bool {
        now < self.dies_at
    }

    fn die_by(&mut self, at: Duration) {
        self.dies_at = self.dies_at.min(at);
    }
}

impl CallQuota {
    fn new(limit: u32, window: Duration, started_at: Duration) -> CallQuota {
        CallQuota { limit, window, started_at, current_window: 0, used: 0 }
    }

    /// Counts a call and returns true, or returns false if the quota is spent.
    fn take(&mut self, now: Duration) -> bool {
        let current = now.saturating_sub(self.started_at).as_secs() / self.window.as_secs();
        if current != self.current_window {
            self.current_window = current;
            self.used = 0;
        }
        let has_room = self.used < self.limit;
        self.used += u32::from(has_room);
        has_room
    }
}

#[cfg(test)]
mod inspection;
#[cfg(test)]
mod tests;
