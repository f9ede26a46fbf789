//! Refreshes one document: looks whether it is due, acquires the lease to publish, looks again, requests a token and publishes it.
//! [`Refresh::run`] is the order of these steps. Clock, token source and store are arguments. Does not know who runs it, nor what is
//! reported about it.

use std::time::{Duration, Instant};

use crate::log::{self, debug, printable};
use crate::message::messages;
use crate::model::account;
use crate::model::api::Rules;
use crate::model::document::{self, CLASSIC_OVERLAP, Document};
use crate::model::kind::DocumentName;
use crate::model::secret::Secret;
use crate::model::status::TokenRequest;
use crate::os::clock::{Clock, with_jitter};
use crate::os::ending::{Ending, Finishing};
use crate::os::timestamp::Timestamp;
use crate::sabotage::{Bug, has_bug};
use crate::store::{Found, Lease, Predecessor, Store};
use crate::upstream::{IssuedToken, RefreshMode, TokenSource, UpstreamError};

use attempt::{MIN_ATTEMPT, RequestTiming};
pub(crate) use error::{RefreshError, answer_lost};
pub(crate) use record::RecordContext;
use record::RecordSession;
use settled::PublishedVerdict;
#[cfg(test)]
pub(crate) use transaction::ALL as PUTTING_BACK_MESSAGES;
use transaction::Transaction;

mod attempt;
mod error;
mod record;
mod settled;
pub(crate) mod ticket;
mod transaction;
pub(crate) mod trouble;

/// The pauses before further attempts after a transient failure; up to a quarter of jitter is added.
const PAUSES: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

messages! {
    LOCKED<0> {
        "See what that one waits for, or give more --timeout.", "another fetch held the lock until the deadline";
        "请查看其在等待什么，或调大 --timeout。", "另一个 fetch 一直持有锁，直到超时";
    }
    FOREIGN<2> {
        "Give this account its own --file or --dir, or remove that document.", "{0} belongs to {1}";
        "请为此账号另行指定 --file 或 --dir，或删除该文件。", "{0} 属于另一个 AppID {1}";
    }
    OTHER_APP<0> {
        "Give each app of the corp its own --file, or an account in a config; if its Secret was reset, this is all.",
        "the live token that was published before was got with another Secret, and all apps of a corp have one AppID";
        "请为同一企业的各应用分别指定 --file，或在配置中各设一个账号；若只是重置了 Secret，则无须处理。",
        "此前发布的 token 尚未到期，且是用另一个 Secret 获取的，而同一企业各应用的企业 ID 相同";
    }
    TOLD_TO_END<0> {
        "Run it again.", "WeChat was not asked, because wxtoken was told to end";
        "请再次运行。", "wxtoken 被要求退出，未向微信发出请求";
    }
    NO_TIME<0> {
        "Give more --timeout.", "no time is left to ask";
        "请调大 --timeout。", "没有时间再发请求";
    }
}

/// The result of a refresh. The document is the one that is published now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The published token satisfies the request. No token was requested.
    Kept(Document),
    /// A token other than before is published.
    Renewed(Document),
    /// The published token was issued again, which is normal on `stable`. The document has the lifetime that was stated this time.
    Confirmed(Document),
}

/// The refresh of one document.
pub(crate) struct Refresh<'a> {
    pub(crate) name: DocumentName<'a>,
    /// The document's place, for messages.
    pub(crate) place: &'a str,
    /// Empty if unknown, as only a mirror's may be.
    pub(crate) appid: &'a str,
    pub(crate) rules: Rules,
    pub(crate) refresh_before: Duration,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) source: &'a dyn TokenSource,
    pub(crate) store: &'a dyn Store,
    /// The token that WeChat says is dead. Its document's life ends before another token is requested.
    pub(crate) dead: Option<&'a Secret>,
    /// Defers the end of the process while an answer is on its way. `None` in `serve`, whose event loop does that.
    pub(crate) ending: Option<&'a Ending>,
    /// What it needs to use the record of earlier runs; `None` if there is no such record.
    pub(crate) record: Option<RecordContext<'a>>,
}

impl Refresh<'_> {
    /// Publishes a token that satisfies `request` by `deadline`, unless one is published already.
    ///
    /// Of many refreshes that run at once only one requests a token: the others wait for the lock, look again and find it done.
    pub(crate) fn run(
        &self,
        request: &TokenRequest,
        deadline: Instant,
    ) -> Result<Outcome, RefreshError> {
        self.store.clean_up();
        let before = match self.decide(self.store.read()?, request)? {
            Decision::Keep(document) => return Ok(Outcome::Kept(document)),
            Decision::Replace(published) => published,
        };
        let confirmed_before = self.store.confirmed_at();
        let lease = self.store.acquire(self.clock, deadline)?.ok_or(RefreshError::Locked)?;
        let published = match self.decide(lease.read()?, request)? {
            Decision::Keep(document) if has_bug(Bug::NoSecondLook) => Some(document),
            Decision::Keep(document) => return Ok(Outcome::Kept(document)),
            Decision::Replace(published) => published,
        };
        if let Some(predecessor) = self.predecessor(published.as_ref(), request, deadline) {
            lease.prepare()?.publish(&predecessor.document, self.rules, None)?;
            return Ok(Outcome::Kept(predecessor.document.clone()));
        }
        if let Some(document) = &published
            && let Some(outcome) = self.settled_meanwhile(document, before, confirmed_before)
        {
            return Ok(outcome);
        }
        self.source.prepare()?;
        self.replace(published.as_ref(), request, lease, deadline)
    }

    /// Returns the document to take over in place of a request for a token. Only on classic, where such a request would invalidate
    /// the token in it. Elsewhere WeChat issues the same token again, and says whose it is: apps of one corp have one AppID.
    fn predecessor(
        &self,
        published: Option<&Document>,
        request: &TokenRequest,
        deadline: Instant,
    ) -> Option<Predecessor> {
        let until = if published.is_none() { deadline } else { self.clock.instant() };
        let predecessor = self.store.take_over(self.appid, until);
        let is_wanted = published.is_none()
            && *request == TokenRequest::Live
            && self.mints(RefreshMode::Normal);
        let renamed = || self.store.take_over_renamed(self.appid, deadline);
        let predecessor = if is_wanted { predecessor.or_else(renamed) } else { None };
        predecessor.filter(|it| self.is_fresh(&it.document))
    }

    /// Requests a token and publishes it in place of `published`, unless what earlier runs were told forbids a request, or WeChat
    /// honours the published token.
    fn replace(
        &self,
        published: Option<&Document>,
        request: &TokenRequest,
        lease: Box<dyn Lease>,
        deadline: Instant,
    ) -> Result<Outcome, RefreshError> {
        // WeCom may issue a dead token again, and only its document says how long that one lives: the document stays.
        let ends_dead = self.rules != Rules::Work;
        let mut is_dead = ends_dead && published.is_some_and(|it| self.dead == Some(&it.token));
        let mut session = RecordSession::begin(self);
        if let Some(session) = &mut session {
            session.take_in(&*lease, published)?;
            if let Err(error) = session.check() {
                if is_dead {
                    Transaction::new(self.name, published, lease.prepare()?)
                        .end(self.clock.now())?;
                }
                return Err(RefreshError::Upstream(error));
            }
            if let Some(document) = published {
                match self.verdict_before(session, document, request, deadline) {
                    PublishedVerdict::Keep => return Ok(Outcome::Kept(document.clone())),
                    PublishedVerdict::Dead => is_dead = ends_dead,
                    PublishedVerdict::Open => {}
                }
            }
        }
        // Prepared before the request: a local fault must not cost a mint.
        let mut transaction = Transaction::new(self.name, published, lease.prepare()?);
        if is_dead {
            transaction.end(self.clock.now())?;
        }
        let requested = self.request(request, &mut transaction, &mut session, deadline);
        let _finishing = Finishing::begin();
        match requested {
            Ok(document) => self.publish(document, transaction, session),
            Err(error) => {
                // Before the lease ends: the process that waits for it reads the record next.
                if let Some(session) = &mut session {
                    session.write();
                    transaction.share(session);
                }
                Err(transaction.roll_back(error, self.clock.now()))
            }
        }
    }

    /// Publishes the document of a new answer. Leaves the published one untouched if the answer only confirms it.
    fn publish(
        &self,
        document: Document,
        mut transaction: Transaction<'_>,
        mut session: Option<RecordSession<'_>>,
    ) -> Result<Outcome, RefreshError> {
        let published = transaction.published();
        let now = self.clock.now();
        let confirmed = published.filter(|it| {
            document.adds_nothing_to(it, now)
                || it.token == document.token && self.has_bug_of_mirrors(Bug::ShorterLifeIgnored)
        });
        let document = match confirmed {
            Some(published) if transaction.confirm(now) => published.clone(),
            _ => {
                let lost = session.as_mut().and_then(|session| {
                    session.note_token();
                    session.unshared()
                });
                transaction.commit(&document, self.rules, lost)?;
                document
            }
        };
        // Before the lease ends, which the transaction holds.
        if let Some(session) = session {
            session.note_published(&document, published);
        }
        let is_same = published.is_some_and(|published| published.token == document.token);
        Ok(if is_same { Outcome::Confirmed(document) } else { Outcome::Renewed(document) })
    }

    /// Decides whether the published document satisfies `request`.
    fn decide(&self, found: Found, request: &TokenRequest) -> Result<Decision, RefreshError> {
        let document = match found {
            Found::Nothing => return Ok(Decision::Replace(None)),
            Found::Damaged(damage) => {
                debug!("{}: {damage}; a new token is the cure", self.name);
                return Ok(Decision::Replace(None));
            }
            Found::Document(document) => document,
        };
        if !account::owns(self.appid, &document) {
            let (place, appid) = (self.place.to_owned(), printable(&document.appid, 64));
            return Err(RefreshError::Foreign { place, appid });
        }
        let now = self.clock.now();
        let is_kept = match request {
            TokenRequest::New => false,
            TokenRequest::OtherThan(rejected) if document.token == *rejected => {
                has_bug(Bug::RejectedTokenKept)
            }
            // Any other token than the rejected one is good while it lives, due or not.
            TokenRequest::OtherThan(_) => !document.left(now).is_zero(),
            TokenRequest::Live => {
                self.is_fresh(&document) && !record::has_other_secret(self, &document)
            }
        };
        Ok(if is_kept { Decision::Keep(document) } else { Decision::Replace(Some(document)) })
    }

    /// Whether the document is too young for a request, by its age alone.
    fn is_fresh(&self, document: &Document) -> bool {
        let now = self.clock.now();
        match self.rules {
            Rules::Mirror => {
                let confirmed_at = self.store.confirmed_at();
                !document.is_stale(now)
                    || !document.left(now).is_zero()
                        && confirmed_at.is_some_and(|at| document::is_recent(at, now.wall))
            }
            Rules::Stable | Rules::Classic | Rules::Work => {
                !document.is_due(now, self.rules, self.refresh_before)
            }
        }
    }

    /// Requests a token, and again after a transient failure while there is time. Returns the document to publish.
    fn request(
        &self,
        request: &TokenRequest,
        transaction: &mut Transaction<'_>,
        session: &mut Option<RecordSession<'_>>,
        deadline: Instant,
    ) -> Result<Document, RefreshError> {
        let published = transaction.published();
        let (unwanted, mut mode) = self.first_request(request, published);
        let mut answer_lost_since = None;
        let mut pauses = PAUSES.iter();
        self.check_time(deadline)?;
        loop {
            let RequestTiming { requested_at, timeout } =
                self.begin_attempt(mode, transaction, session, deadline)?;
            let err = match self.source.request_token(mode, timeout) {
                Ok(issued) if Some(&issued.token) == unwanted && self.can_force_after(mode) => {
                    self.check_time(deadline)?;
                    mode = RefreshMode::Forced;
                    continue;
                }
                Ok(issued) => {
                    let requested_at = match has_bug(Bug::LifeCountedFromAnswer)
                        || self.has_bug_of_mirrors(Bug::MirrorLifeCountedFromAnswer)
                    {
                        true => self.clock.now(),
                        false => requested_at,
                    };
                    let spent = session.as_ref().map_or(Duration::ZERO, |session| {
                        let asked_at = answer_lost_since.unwrap_or(requested_at);
                        session.spent(issued.expires_in, asked_at.whole_seconds().wall)
                    });
                    let document =
                        self.document(issued, requested_at, answer_lost_since, spent, published);
                    match document {
                        Some(document) => return Ok(document),
                        None => UpstreamError::Expired,
                    }
                }
                Err(err) => err,
            };
            if let Some(session) = session {
                session.note_error(&err, mode, requested_at.wall);
            }
            if err.may_have_minted() {
                answer_lost_since.get_or_insert(requested_at);
                if self.mints(mode) {
                    transaction.mark_answer_lost();
                    mode = RefreshMode::Normal;
                }
            }
            let pause = pauses.next().map(|pause| with_jitter(*pause, 0.25, self.clock.random()));
            match pause {
                Some(pause)
                    if err.is_transient() && self.clock.until(deadline) >= pause + MIN_ATTEMPT =>
                {
                    debug!("{}: {err}; trying again in {} ms", self.name, pause.as_millis());
                    if self.pause(pause) {
                        return Err(RefreshError::Upstream(err));
                    }
                }
                _ => return Err(RefreshError::Upstream(err)),
            }
        }
    }

    /// Returns the token that is not wanted, and the mode of the first request.
    ///
    /// The first request is a normal one even where another token is wanted. The unwanted token may have been replaced at WeChat
    /// already, by another program or by a request whose answer was lost; then a normal request returns the current token. A forced
    /// request would invalidate this one, end the one before it at once, and count against 20 a day.
    fn first_request<'b>(
        &self,
        request: &'b TokenRequest,
        published: Option<&'b Document>,
    ) -> (Option<&'b Secret>, RefreshMode) {
        match request {
            TokenRequest::Live => (None, RefreshMode::Normal),
            TokenRequest::OtherThan(rejected) if has_bug(Bug::ForcedAtOnce) => {
                (Some(rejected), RefreshMode::Forced)
            }
            TokenRequest::OtherThan(rejected) => (Some(rejected), RefreshMode::Normal),
            TokenRequest::New => {
                let is_ending = published.is_some_and(|document| {
                    let left = document.left(self.clock.now());
                    !left.is_zero() && left <= CLASSIC_OVERLAP
                });
                let mode = if is_ending { RefreshMode::Normal } else { RefreshMode::Forced };
                (published.map(|document| &document.token), mode)
            }
        }
    }

    /// Waits before another attempt. Returns whether the process was told to end.
    fn pause(&self, pause: Duration) -> bool {
        let _waiting = log::waiting_for(|| {
            [format!("another try of {}", self.name), format!("重试 {}", self.name)]
        });
        match self.ending {
            Some(ending) => ending.pause(self.clock, pause),
            None => {
                self.clock.sleep(pause);
                false
            }
        }
    }

    /// Returns the document for a token issued to the request of `requested_at`; `None` if the token has expired. If answers to
    /// earlier requests of this run were lost, the first of them was sent at `answer_lost_since`. A token may have `spent` this much of
    /// its life because of lost answers to earlier runs.
    fn document(
        &self,
        issued: IssuedToken,
        requested_at: Timestamp,
        answer_lost_since: Option<Timestamp>,
        spent: Duration,
        published: Option<&Document>,
    ) -> Option<Document> {
        let document = |at| Document::new(self.appid, issued.token.clone(), issued.expires_in, at);
        match (self.rules, published) {
            (Rules::Stable | Rules::Classic | Rules::Mirror, _) => Some(document(requested_at)),
            // WeCom's documentation does not say which lifetime an answer states for a token that an earlier answer had,
            // received or lost.
            (Rules::Work, Some(published))
                if published.token == issued.token && !has_bug(Bug::WorkLifeNotCapped) =>
            {
                document(requested_at).capped_by(published, requested_at)
            }
            (Rules::Work, _) if has_bug(Bug::EarlierLostAnswerForgotten) => {
                Some(document(requested_at))
            }
            (Rules::Work, _) => {
                let document = document(answer_lost_since.unwrap_or(requested_at));
                let expires_in =
                    Duration::from_secs(document.expires_in.saturating_sub(spent).as_secs());
                Some(Document { expires_in, ..document })
            }
        }
    }

    /// Whether a request in this mode can make WeChat replace its current token.
    fn mints(&self, mode: RefreshMode) -> bool {
        match self.rules {
            Rules::Classic => true,
            Rules::Stable => mode == RefreshMode::Forced,
            Rules::Work | Rules::Mirror => false,
        }
    }

    /// Whether a forced request can bring another token after a request in this mode.
    fn can_force_after(&self, mode: RefreshMode) -> bool {
        matches!(self.rules, Rules::Stable | Rules::Mirror) && mode == RefreshMode::Normal
    }
}

/// What to do about the published document.
enum Decision {
    Keep(Document),
    Replace(Option<Document>),
}

#[cfg(test)]
mod tests;
