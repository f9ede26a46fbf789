//! WeChat's rules for tokens as a state machine: what a call is answered, what it mints and what it kills.
//! The time comes in (since the Unix epoch); HTTP, faults and the clock are somebody else's.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::calls::Api;
use super::errmsg;
use crate::model::secret::Secret;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// What one app of a corp has, and all of its apps together; WeChat names no number for its own. They are stated for jsapi
/// tickets; those for agentConfig count here, too. <https://developer.work.weixin.qq.com/document/path/90454>
const TICKETS_PER_HOUR_OF_APP: u32 = 100;
const TICKETS_PER_HOUR_OF_CORP: u32 = 400;

/// Calls of /cgi-bin/token that a newly registered account has in a day.
const CLASSIC_PER_DAY: u32 = 2_000;
const STABLE_PER_DAY: u32 = 500_000;
const STABLE_PER_MINUTE: u32 = 10_000;
const FORCED_PER_DAY: u32 = 20;
/// Asked to force again sooner than this, WeChat answers the current token, without an error.
const FORCED_INTERVAL: Duration = Duration::from_secs(30);

/// Tokens remembered for each account and family, dead ones included: enough to tell an expired one from a stranger's,
/// and a bound on memory whatever the clients do.
const MAX_REMEMBERED: usize = 10_000;

/// An expiry is stated in whole seconds and is never 0.
const LEAST_LIFE: Duration = Duration::from_secs(1);

/// How long tokens last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// From a token's mint to its expiry.
    pub(crate) life: Duration,
    /// How long a replaced token goes on working.
    pub(crate) overlap: Duration,
}

/// What a caller says of itself; what was not sent is empty.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Credentials<'a> {
    pub(crate) appid: &'a str,
    pub(crate) grant_type: &'a str,
    pub(crate) secret: &'a str,
}

/// A token, handed out.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) token: Secret,
    pub(crate) expires_in_secs: u64,
}

/// A business error, as it stands in the answer.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) errcode: i64,
    pub(crate) errmsg: String,
}

/// WeChat, as far as tokens go.
pub(crate) struct WeChat {
    accounts: Vec<Account>,
    /// By the corps' IDs: what their apps have together.
    tickets_per_hour: BTreeMap<String, Quota>,
    terms: Terms,
    chance: Chance,
    mints: u64,
}

/// An account, or an app of a corp: several have one ID then, and a secret each.
struct Account {
    appid: String,
    secret: Secret,
    classic: Family,
    stable: Family,
    work: Family,
    /// By their types.
    tickets: BTreeMap<&'static str, Family>,
    tickets_per_hour: Quota,
    classic_per_day: Quota,
    stable_per_day: Quota,
    stable_per_minute: Quota,
    forced_per_day: Quota,
    forced_at: Option<Duration>,
}

/// The tokens of one account and one API, oldest first. The two APIs do not affect each other.
#[derive(Default)]
struct Family(VecDeque<Token>);

struct Token {
    text: Secret,
    expires_at: Duration,
    /// At its expiry, or sooner when it was replaced or killed.
    dies_at: Duration,
}

/// Calls allowed in a window of time. Windows are counted from the stand-in's start: its day begins when it does, where
/// WeChat's begins at midnight.
struct Quota {
    limit: u32,
    window: Duration,
    started_at: Duration,
    current: u64,
    used: u32,
}

impl WeChat {
    /// `accounts` are pairs of AppID and secret; the days of the quotas begin `now`. Of several with one AppID, all are
    /// WeCom's and the first is WeChat's.
    pub(crate) fn new(accounts: Vec<(String, Secret)>, terms: Terms, now: Duration) -> WeChat {
        let account = |(appid, secret)| Account {
            appid,
            secret,
            classic: Family::default(),
            stable: Family::default(),
            work: Family::default(),
            tickets: BTreeMap::new(),
            tickets_per_hour: Quota::new(TICKETS_PER_HOUR_OF_APP, HOUR, now),
            classic_per_day: Quota::new(CLASSIC_PER_DAY, DAY, now),
            stable_per_day: Quota::new(STABLE_PER_DAY, DAY, now),
            stable_per_minute: Quota::new(STABLE_PER_MINUTE, MINUTE, now),
            forced_per_day: Quota::new(FORCED_PER_DAY, DAY, now),
            forced_at: None,
        };
        let accounts: Vec<_> = accounts.into_iter().map(account).collect();
        let of_corp = |account: &Account| {
            (account.appid.clone(), Quota::new(TICKETS_PER_HOUR_OF_CORP, HOUR, now))
        };
        let tickets_per_hour = accounts.iter().map(of_corp).collect();
        WeChat { accounts, tickets_per_hour, terms, chance: Chance::new(), mints: 0 }
    }

    /// GET /cgi-bin/token: a new token each time; the one before dies an overlap later.
    pub(crate) fn token(&mut self, who: Credentials<'_>, now: Duration) -> Result<Grant, Refusal> {
        self.try_token(who, now).map_err(|errcode| self.refusal(errcode, Api::Token, now))
    }

    /// POST /cgi-bin/stable_token without `force_refresh`: the same token until its last overlap.
    pub(crate) fn stable_token(
        &mut self,
        who: Credentials<'_>,
        now: Duration,
    ) -> Result<Grant, Refusal> {
        self.try_stable(who, now).map_err(|errcode| self.refusal(errcode, Api::StableToken, now))
    }

    /// The same with `force_refresh`: a new token, unless the last forced one is too recent.
    pub(crate) fn forced_stable_token(
        &mut self,
        who: Credentials<'_>,
        now: Duration,
    ) -> Result<Grant, Refusal> {
        self.try_forced(who, now).map_err(|errcode| self.refusal(errcode, Api::StableToken, now))
    }

    /// GET /cgi-bin/gettoken of WeCom: the same token while it lives, and always a whole life stated for it. The grant
    /// type is not looked at.
    pub(crate) fn work_token(
        &mut self,
        who: Credentials<'_>,
        now: Duration,
    ) -> Result<Grant, Refusal> {
        self.try_work(who, now).map_err(|errcode| self.refusal(errcode, Api::Work, now))
    }

    /// Any API that takes a token: whether this one is honoured.
    pub(crate) fn honour(&mut self, token: &str, now: Duration) -> Result<(), Refusal> {
        let tokens = self.accounts.iter().flat_map(Account::families).flat_map(|family| &family.0);
        let known = tokens.into_iter().find(|known| known.text.expose() == token);
        let errcode = match known {
            Some(token) if token.is_live(now) => return Ok(()),
            _ if self.is_of_work(token) => return Err(self.refusal(40014, Api::Work, now)),
            _ if token.is_empty() => 41001,
            // Past its time; one that was replaced or killed before that is "not latest" for ever.
            Some(token) if token.dies_at == token.expires_at => 42001,
            _ => 40001,
        };
        Err(self.refusal(errcode, Api::DomainIp, now))
    }

    /// The ticket of this type, for who shows a token: the same while it lives, and always a whole life stated for it.
    pub(crate) fn ticket(
        &mut self,
        token: &str,
        kind: &'static str,
        now: Duration,
    ) -> Result<Grant, Refusal> {
        self.honour(token, now)?;
        let is_of_work = self.is_of_work(token);
        let is_holder = |account: &&mut Account| {
            let mut tokens = account.families().into_iter().flat_map(|family| &family.0);
            tokens.any(|known| known.text.expose() == token)
        };
        let Some(account) = self.accounts.iter_mut().find(is_holder) else {
            return Err(self.refusal(40001, Api::DomainIp, now)); // Not of one that was honoured.
        };
        let of_corp = self.tickets_per_hour.get_mut(&account.appid);
        let may_ask =
            || account.tickets_per_hour.take(now) && of_corp.is_none_or(|quota| quota.take(now));
        if is_of_work && !may_ask() {
            return Err(self.refusal(45009, Api::Work, now));
        }
        let family = account.tickets.entry(kind).or_default();
        let live = family.0.back().filter(|ticket| ticket.is_live(now));
        let expires_in_secs = self.terms.life.as_secs();
        Ok(match live {
            Some(ticket) => Grant { token: ticket.text.clone(), expires_in_secs },
            None => family.mint(self.chance.word(), self.terms.life, now),
        })
    }

    /// Whether this is a token of WeCom's, or was one.
    pub(crate) fn is_of_work(&self, token: &str) -> bool {
        let mut tokens = self.accounts.iter().flat_map(|account| &account.work.0);
        tokens.any(|known| known.text.expose() == token)
    }

    /// A stranger's doing: every live token dies at once. How many died.
    pub(crate) fn kill(&mut self, now: Duration) -> usize {
        let families = self.accounts.iter_mut().flat_map(Account::families_mut);
        let live = families.flat_map(|family| &mut family.0).filter(|token| token.is_live(now));
        live.map(|token| token.dies_at = now).count()
    }

    /// Tokens issued since the start.
    pub(crate) fn mints(&self) -> u64 {
        self.mints
    }

    /// The refusal with this code, in WeChat's words.
    pub(crate) fn refusal(&mut self, errcode: i64, api: Api, now: Duration) -> Refusal {
        let errmsg = match api {
            Api::Work => errmsg::with_hint(errcode, &self.hint(now)),
            _ => errmsg::with_rid(errcode, api, &self.rid(now)),
        };
        Refusal { errcode, errmsg }
    }

    /// The same in WeCom's: the time, and fifteen digits of chance.
    fn hint(&mut self, now: Duration) -> String {
        format!("{:010}{:015}", now.as_secs(), self.chance.next() % 10u64.pow(15))
    }

    /// A request's name in WeChat's logs. The first group is the time.
    pub(crate) fn rid(&mut self, now: Duration) -> String {
        let chance = self.chance.next();
        // The time wraps in 2106, as WeChat's will; two groups of chance.
        format!("{:08x}-{:08x}-{:08x}", now.as_secs() as u32, chance as u32, chance >> 32)
    }

    fn try_work(&mut self, who: Credentials<'_>, now: Duration) -> Result<Grant, i64> {
        match who {
            Credentials { secret: "", .. } => return Err(41004),
            Credentials { appid: "", .. } => return Err(41002),
            _ => {}
        }
        let mut apps =
            self.accounts.iter_mut().filter(|account| account.appid == who.appid).peekable();
        apps.peek().ok_or(40013)?;
        let app = apps.find(|account| account.secret.expose() == who.secret).ok_or(40001)?;
        let live = app.work.0.back().filter(|token| token.is_live(now));
        let expires_in_secs = self.terms.life.as_secs();
        Ok(match live {
            Some(token) => Grant { token: token.text.clone(), expires_in_secs },
            None => {
                self.mints += 1;
                app.work.mint(self.chance.word(), self.terms.life, now)
            }
        })
    }

    fn try_token(&mut self, who: Credentials<'_>, now: Duration) -> Result<Grant, i64> {
        let account = admit(&mut self.accounts, who)?;
        if !account.classic_per_day.take(now) {
            return Err(45009);
        }
        account.classic.replace_last(self.terms.overlap, now);
        self.mints += 1;
        Ok(account.classic.mint(self.chance.token(), self.terms.life, now))
    }

    fn try_stable(&mut self, who: Credentials<'_>, now: Duration) -> Result<Grant, i64> {
        let account = admit(&mut self.accounts, who)?;
        account.take_stable(now)?;
        Ok(account.stable_grant(self.terms, now).unwrap_or_else(|| {
            self.mints += 1;
            account.mint_stable(self.chance.token(), self.terms, now)
        }))
    }

    fn try_forced(&mut self, who: Credentials<'_>, now: Duration) -> Result<Grant, i64> {
        let account = admit(&mut self.accounts, who)?;
        if account.forced_at.is_some_and(|at| now.saturating_sub(at) < FORCED_INTERVAL) {
            return self.try_stable(who, now);
        }
        account.take_stable(now)?;
        if !account.forced_per_day.take(now) {
            return Err(45009);
        }
        account.forced_at = Some(now);
        self.mints += 1;
        Ok(account.mint_stable(self.chance.token(), self.terms, now))
    }
}

/// The account, if the caller is who it says. In WeChat's order: the AppID is looked at before anything else.
fn admit<'a>(accounts: &'a mut [Account], who: Credentials<'_>) -> Result<&'a mut Account, i64> {
    if who.appid.is_empty() {
        return Err(41002);
    }
    let account = accounts.iter_mut().find(|account| account.appid == who.appid).ok_or(40013)?;
    match who {
        _ if who.grant_type != "client_credential" => Err(40002),
        _ if who.secret.is_empty() => Err(41004),
        _ if who.secret != account.secret.expose() => Err(40125),
        _ => Ok(account),
    }
}

impl Account {
    fn families(&self) -> [&Family; 3] {
        [&self.classic, &self.stable, &self.work]
    }

    fn families_mut(&mut self) -> [&mut Family; 3] {
        [&mut self.classic, &mut self.stable, &mut self.work]
    }

    /// Counters a call of stable_token, if there is room for it.
    fn take_stable(&mut self, now: Duration) -> Result<(), i64> {
        if !self.stable_per_minute.take(now) {
            return Err(45011);
        }
        if !self.stable_per_day.take(now) {
            return Err(45009);
        }
        Ok(())
    }

    /// The current token, unless it is in its last overlap or dead.
    fn stable_grant(&self, terms: Terms, now: Duration) -> Option<Grant> {
        let token = self.stable.0.back().filter(|token| token.is_live(now))?;
        let left = token.expires_at.saturating_sub(now);
        let fresh = left >= terms.overlap.max(LEAST_LIFE);
        fresh.then(|| Grant { token: token.text.clone(), expires_in_secs: left.as_secs() })
    }

    /// One predecessor is honoured for the overlap, never two: this is why two forced calls kill a leaked token at once.
    fn mint_stable(&mut self, text: Secret, terms: Terms, now: Duration) -> Grant {
        let older = self.stable.0.len().saturating_sub(1);
        for token in self.stable.0.range_mut(..older) {
            token.die_by(now);
        }
        self.stable.replace_last(terms.overlap, now);
        self.stable.mint(text, terms.life, now)
    }
}

impl Family {
    /// The current token lives on for the overlap at most.
    fn replace_last(&mut self, overlap: Duration, now: Duration) {
        if let Some(token) = self.0.back_mut() {
            token.die_by(now.saturating_add(overlap));
        }
    }

    fn mint(&mut self, text: Secret, life: Duration, now: Duration) -> Grant {
        if self.0.len() == MAX_REMEMBERED {
            self.0.pop_front();
        }
        let expires_at = now.saturating_add(life);
        self.0.push_back(Token { text: text.clone(), expires_at, dies_at: expires_at });
        Grant { token: text, expires_in_secs: life.as_secs() }
    }
}

impl Token {
    fn is_live(&self, now: Duration) -> bool {
        now < self.dies_at
    }

    fn die_by(&mut self, at: Duration) {
        self.dies_at = self.dies_at.min(at);
    }
}

impl Quota {
    fn new(limit: u32, window: Duration, started_at: Duration) -> Quota {
        Quota { limit, window, started_at, current: 0, used: 0 }
    }

    /// Counters a call, if there is room for it.
    fn take(&mut self, now: Duration) -> bool {
        let current = now.saturating_sub(self.started_at).as_secs() / self.window.as_secs();
        if current != self.current {
            self.current = current;
            self.used = 0;
        }
        let room = self.used < self.limit;
        self.used += u32::from(room);
        room
    }
}

/// Unpredictable enough for a stand-in: a keyed hash of a counter, with a key that each process draws anew.
struct Chance {
    key: RandomState,
    drawn: u64,
}

impl Chance {
    fn new() -> Chance {
        Chance { key: RandomState::new(), drawn: 0 }
    }

    fn next(&mut self) -> u64 {
        self.drawn += 1;
        self.key.hash_one(self.drawn)
    }

    /// A token as WeChat's look: a small number, an underscore, and 133 characters.
    fn token(&mut self) -> Secret {
        Secret::new(format!("{}_{}", 60 + self.next() % 40, self.word().expose()))
    }

    /// 133 characters, as WeCom's tokens look.
    fn word(&mut self) -> Secret {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
        let mut text = String::with_capacity(133);
        let mut chance = 0;
        for n in 0..133 {
            // Ten characters of six bits from each draw.
            chance = if n % 10 == 0 { self.next() } else { chance >> 6 };
            text.push(char::from(ALPHABET[(chance & 63) as usize]));
        }
        Secret::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const APPID: &str = "wx0123456789abcdef";
    const US: Credentials<'_> =
        Credentials { appid: APPID, grant_type: "client_credential", secret: "hush" };
    const START: Duration = Duration::from_secs(0x6aac_005a);

    /// So many seconds after the start.
    fn at(secs: u64) -> Duration {
        START + Duration::from_secs(secs)
    }

    fn wechat() -> WeChat {
        let terms = Terms { life: Duration::from_secs(7200), overlap: Duration::from_secs(300) };
        WeChat::new(vec![(APPID.to_owned(), Secret::new("hush".to_owned()))], terms, START)
    }

    fn honours(wechat: &mut WeChat, grant: &Grant, now: Duration) -> Result<(), i64> {
        wechat.honour(grant.token.expose(), now).map_err(|refusal| refusal.errcode)
    }

    #[test]
    fn an_app_has_a_hundred_tickets_an_hour_and_a_corp_four_hundred_whatever_their_type() {
        let terms = Terms { life: Duration::from_secs(7200), overlap: Duration::from_secs(300) };
        let secret = |n: u32| Secret::new(format!("app{n}"));
        let apps = (0..6).map(|n| (APPID.to_owned(), secret(n))).collect();
        let mut wechat = WeChat::new(apps, terms, START);
        let tokens: Vec<_> = (0..6)
            .map(|n| {
                let secret = format!("app{n}");
                wechat.work_token(Credentials { secret: &secret, ..US }, at(0)).unwrap().token
            })
            .collect();
        let mut ask = |n: usize, kind, now| {
            wechat
                .ticket(tokens[n].expose(), kind, now)
                .map(drop)
                .map_err(|refusal| refusal.errcode)
        };
        for n in 0..4 {
            for call in 0..100 {
                let kind = if call % 2 == 0 { "jsapi" } else { "agent_config" };
                assert_eq!(ask(n, kind, at(1)), Ok(()), "{n} {call}");
            }
            assert_eq!(ask(n, "jsapi", at(2)), Err(45009), "this app's are used up");
        }
        assert_eq!(ask(4, "jsapi", at(3599)), Err(45009), "and so are the corp's");
        assert_eq!(ask(4, "jsapi", at(3600)), Ok(()), "an hour later there are others");

        let token = wechat.stable_token(Credentials { secret: "app0", ..US }, at(0)).unwrap().token;
        for _ in 0..1000 {
            assert!(
                wechat.ticket(token.expose(), "jsapi", at(1)).is_ok(),
                "of WeChat's own no number is known"
            );
        }
    }

    #[test]
    fn asking_the_classic_api_again_kills_the_token_before_after_the_overlap() {
        let mut wechat = wechat();
        let first = wechat.token(US, at(0)).unwrap();
        let second = wechat.token(US, at(1000)).unwrap();
        assert!(first.token != second.token);
        assert_eq!((first.expires_in_secs, second.expires_in_secs), (7200, 7200));
        assert_eq!(honours(&mut wechat, &first, at(1299)), Ok(()));
        assert_eq!(honours(&mut wechat, &first, at(1300)), Err(40001));
        assert_eq!(honours(&mut wechat, &second, at(8199)), Ok(()));
    }

    #[test]
    fn a_token_that_was_never_replaced_expires_instead() {
        let mut wechat = wechat();
        let token = wechat.token(US, at(0)).unwrap();
        assert_eq!(honours(&mut wechat, &token, at(7199)), Ok(()));
        assert_eq!(honours(&mut wechat, &token, at(7200)), Err(42001));
        // Replaced when it had less than the overlap left: it is not prolonged.
        wechat.token(US, at(7201)).unwrap();
        assert_eq!(honours(&mut wechat, &token, at(7202)), Err(42001));
    }

    #[test]
    fn the_stable_api_answers_the_same_token_until_its_last_overlap() {
        let mut wechat = wechat();
        let first = wechat.stable_token(US, at(0)).unwrap();
        let again = wechat.stable_token(US, at(6900)).unwrap();
        assert!(first.token == again.token);
        assert_eq!(again.expires_in_secs, 300);
        let next = wechat.stable_token(US, at(6901)).unwrap();
        assert!(next.token != first.token);
        assert_eq!(next.expires_in_secs, 7200);
        assert_eq!(
            honours(&mut wechat, &first, at(7199)),
            Ok(()),
            "both are honoured for the overlap"
        );
        assert_eq!(honours(&mut wechat, &first, at(7200)), Err(42001));
        assert_eq!(wechat.mints(), 2);
    }

    #[test]
    fn a_stable_life_is_stated_in_whole_seconds_and_is_never_nothing() {
        let terms = Terms { life: Duration::from_secs(10), overlap: Duration::ZERO };
        let mut wechat =
            WeChat::new(vec![(APPID.to_owned(), Secret::new("hush".to_owned()))], terms, START);
        let lives: Vec<u64> = (0..100)
            .map(|n| {
                wechat
                    .stable_token(US, START + Duration::from_millis(333 * n))
                    .unwrap()
                    .expires_in_secs
            })
            .collect();
        assert!(lives.iter().all(|life| (1..=10).contains(life)), "{lives:?}");
    }

    #[test]
    fn one_forced_call_leaves_the_grace_period_and_two_kill_the_first_at_once() {
        let mut wechat = wechat();
        let first = wechat.stable_token(US, at(0)).unwrap();
        let second = wechat.forced_stable_token(US, at(100)).unwrap();
        assert!(first.token != second.token);
        assert_eq!(honours(&mut wechat, &first, at(129)), Ok(()));
        let third = wechat.forced_stable_token(US, at(130)).unwrap();
        assert!(second.token != third.token);
        assert_eq!(honours(&mut wechat, &first, at(130)), Err(40001));
        assert_eq!(honours(&mut wechat, &second, at(429)), Ok(()));
        assert_eq!(honours(&mut wechat, &second, at(430)), Err(40001));
    }

    #[test]
    fn forcing_again_within_thirty_seconds_silently_answers_the_current_token() {
        let mut wechat = wechat();
        let first = wechat.forced_stable_token(US, at(0)).unwrap();
        let soon = wechat.forced_stable_token(US, at(29)).unwrap();
        assert!(first.token == soon.token);
        assert_eq!(soon.expires_in_secs, 7171);
        let later = wechat.forced_stable_token(US, at(30)).unwrap();
        assert!(first.token != later.token);
    }

    #[test]
    fn forced_calls_are_twenty_a_day_and_the_silent_ones_do_not_count() {
        let mut wechat = wechat();
        for n in 0..20 {
            wechat.forced_stable_token(US, at(n * 30)).unwrap();
            wechat.forced_stable_token(US, at(n * 30 + 1)).unwrap();
        }
        let refusal = wechat.forced_stable_token(US, at(600)).unwrap_err();
        assert_eq!(refusal.errcode, 45009);
        assert!(
            refusal.errmsg.starts_with("reach max api daily quota limit rid: "),
            "{}",
            refusal.errmsg
        );
        assert!(wechat.stable_token(US, at(600)).is_ok(), "the current token is still handed out");
        assert!(wechat.forced_stable_token(US, at(24 * 60 * 60)).is_ok(), "a new day");
    }

    #[test]
    fn the_two_apis_do_not_touch_each_other() {
        let mut wechat = wechat();
        let stable = wechat.stable_token(US, at(0)).unwrap();
        let classic = wechat.token(US, at(1)).unwrap();
        wechat.token(US, at(2)).unwrap();
        wechat.forced_stable_token(US, at(3)).unwrap();
        assert_eq!(honours(&mut wechat, &stable, at(299)), Ok(()));
        assert_eq!(honours(&mut wechat, &classic, at(299)), Ok(()));
        assert_eq!(wechat.mints(), 4);
    }

    #[test]
    fn the_appid_is_looked_at_before_the_grant_type_and_that_before_the_secret() {
        let mut wechat = wechat();
        let mut code = |appid, grant_type, secret| {
            let who = Credentials { appid, grant_type, secret };
            let codes = [
                wechat.token(who, at(0)),
                wechat.stable_token(who, at(0)),
                wechat.forced_stable_token(who, at(0)),
            ]
            .map(|answer| answer.unwrap_err().errcode);
            assert!(codes.iter().all(|code| *code == codes[0]), "{codes:?}");
            codes[0]
        };
        assert_eq!(code("", "", ""), 41002);
        assert_eq!(code("wxnobody", "", ""), 40013);
        assert_eq!(code("WX0123456789ABCDEF", "client_credential", "hush"), 40013);
        assert_eq!(code(APPID, "", "hush"), 40002);
        assert_eq!(code(APPID, "client_credentials", "hush"), 40002);
        assert_eq!(code(APPID, "client_credential", ""), 41004);
        assert_eq!(code(APPID, "client_credential", "HUSH"), 40125);
        assert_eq!(wechat.mints(), 0);
    }

    #[test]
    fn a_rid_begins_with_the_time() {
        let mut wechat = wechat();
        let who = Credentials { appid: "wxnobody", ..US };
        let refusal = wechat.token(who, at(0)).unwrap_err();
        let rid = refusal.errmsg.strip_prefix("invalid appid rid: ").expect("WeChat's text");
        let groups: Vec<&str> = rid.split('-').collect();
        assert_eq!(groups[0], "6aac005a");
        assert!(groups.len() == 3 && groups.iter().all(|group| group.len() == 8), "{rid}");
        assert!(wechat.token(who, at(0)).unwrap_err().errmsg != refusal.errmsg);
    }

    #[test]
    fn the_classic_api_has_two_thousand_calls_a_day() {
        let mut wechat = wechat();
        for _ in 0..2000 {
            wechat.token(US, at(0)).unwrap();
        }
        let refusal = wechat.token(US, at(86_399)).unwrap_err();
        assert_eq!(refusal.errcode, 45009);
        assert!(
            refusal.errmsg.contains("could get access_token by getStableAccessToken"),
            "{}",
            refusal.errmsg
        );
        assert!(wechat.stable_token(US, at(86_399)).is_ok());
        assert!(wechat.token(US, at(86_400)).is_ok());
    }

    #[test]
    fn the_stable_api_has_ten_thousand_calls_a_minute_and_half_a_million_a_day() {
        let mut wechat = wechat();
        for minute in 0..50 {
            for _ in 0..10_000 {
                wechat.stable_token(US, at(60 * minute)).unwrap();
            }
            let expected = if minute < 49 { 45011 } else { 45009 };
            let now = at(60 * minute + if minute < 49 { 59 } else { 60 });
            assert_eq!(wechat.stable_token(US, now).unwrap_err().errcode, expected);
        }
        assert!(wechat.stable_token(US, at(86_400)).is_ok());
    }

    #[test]
    fn a_stranger_kills_every_live_token_and_the_next_call_gets_a_new_one() {
        let mut wechat = wechat();
        let classic = wechat.token(US, at(0)).unwrap();
        let stable = wechat.stable_token(US, at(0)).unwrap();
        assert_eq!(wechat.kill(at(10)), 2);
        assert_eq!(honours(&mut wechat, &classic, at(10)), Err(40001));
        assert_eq!(honours(&mut wechat, &stable, at(10)), Err(40001));
        assert!(wechat.stable_token(US, at(11)).unwrap().token != stable.token);
        assert_eq!(wechat.kill(at(12)), 1);
    }

    #[test]
    fn wecom_gives_the_same_token_while_it_lives_and_always_states_a_whole_life() {
        let mut wechat = wechat();
        let first = wechat.work_token(US, at(0)).unwrap();
        let again = wechat.work_token(US, at(7199)).unwrap();
        assert!(first.token == again.token);
        assert_eq!((first.expires_in_secs, again.expires_in_secs), (7200, 7200));
        assert_eq!(honours(&mut wechat, &first, at(7199)), Ok(()));
        assert_eq!(honours(&mut wechat, &first, at(7200)), Err(40014), "as for a fake one");
        let next = wechat.work_token(US, at(7200)).unwrap();
        assert!(next.token != first.token);
        assert_eq!((wechat.mints(), wechat.kill(at(7201))), (2, 1));
        assert_eq!(honours(&mut wechat, &next, at(7201)), Err(40014));
        assert!(wechat.work_token(US, at(7202)).unwrap().token != next.token);
        assert!(wechat.is_of_work(next.token.expose()));
        let official = wechat.token(US, at(7202)).unwrap();
        assert!(!wechat.is_of_work(official.token.expose()));
    }

    #[test]
    fn each_app_of_a_corp_has_its_own_token() {
        let terms = Terms { life: Duration::from_secs(7200), overlap: Duration::from_secs(300) };
        let accounts =
            ["hush", "psst"].map(|secret| (APPID.to_owned(), Secret::new(secret.to_owned())));
        let mut wechat = WeChat::new(accounts.to_vec(), terms, START);
        let (one, other) = (US, Credentials { secret: "psst", ..US });
        let first = wechat.work_token(one, at(0)).unwrap();
        assert!(wechat.work_token(other, at(0)).unwrap().token != first.token);
        assert!(wechat.work_token(one, at(1)).unwrap().token == first.token);
        assert_eq!(
            wechat.token(other, at(1)).unwrap_err().errcode,
            40125,
            "WeChat knows the first"
        );
    }

    #[test]
    fn wecom_looks_at_the_presence_of_a_secret_first_and_has_words_of_its_own() {
        let mut wechat = wechat();
        let mut refused = |appid, secret| {
            let who = Credentials { appid, grant_type: "", secret };
            wechat.work_token(who, at(0)).unwrap_err()
        };
        for (appid, secret, errcode) in
            [("", "", 41004), ("", "x", 41002), ("ww1", "x", 40013), (APPID, "x", 40001)]
        {
            assert_eq!(refused(appid, secret).errcode, errcode);
        }
        let text = refused("ww1", "x").errmsg;
        let rest = text.strip_prefix("invalid corpid, hint: [").expect("WeCom's text");
        let (hint, rest) = rest.split_once(']').expect("a hint");
        assert!(hint.len() == 25 && hint.starts_with(&START.as_secs().to_string()), "{hint}");
        assert_eq!(
            rest,
            ", from ip: 203.0.113.9, more info at https://open.work.weixin.qq.com/devtool/query?e=40013"
        );
    }

    #[test]
    fn what_was_never_a_token_is_refused() {
        let mut wechat = wechat();
        let mut code = |token| wechat.honour(token, at(0)).unwrap_err().errcode;
        assert_eq!(code(""), 41001);
        assert_eq!(code("68_made_up"), 40001);
    }

    #[test]
    fn tokens_look_like_wechats_and_never_repeat() {
        let mut chance = Chance::new();
        let mut seen = BTreeSet::new();
        for _ in 0..1000 {
            let token = chance.token();
            let text = token.expose();
            let (number, rest) = text.split_once('_').expect("an underscore");
            assert!(number.len() == 2 && number.bytes().all(|b| b.is_ascii_digit()), "{text}");
            assert!(
                rest.len() == 133
                    && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)),
                "{text}"
            );
            assert!(seen.insert(text.to_owned()));
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut family = Family::default();
        for n in 0..=MAX_REMEMBERED as u64 {
            family.mint(Secret::new(n.to_string()), Duration::from_secs(1), at(n));
        }
        assert_eq!(family.0.len(), MAX_REMEMBERED);
        assert_eq!(family.0[0].text.expose(), "1");
    }
}
