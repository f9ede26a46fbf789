//! The one story: is a new token due? Then lock, look again, ask, publish. Clock, source and store come in as
//! arguments, so that a simulation can tell it without waiting. What came of it is for the verbs to say.

use std::fmt;
use std::time::{Duration, Instant};

use time::UtcDateTime;

use crate::error::Exit;
use crate::log::{debug, printable};
use crate::model::api::Rules;
use crate::model::document::{CLASSIC_OVERLAP, Document, rfc3339};
use crate::model::secret::Secret;
use crate::os::clock::Clock;
use crate::store::{Found, Store};
use crate::upstream::{IssuedToken, RefreshMode, TokenSource, UpstreamError};

use transaction::Stake;

pub(crate) mod ticket;
mod transaction;

/// How long to wait before each further try of what is transient; jitter is added.
const PAUSES: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// One try may take this long, or half of the time that is left if that is more, so that an answer that never comes
/// leaves time for another, and more --timeout is also more patience.
const TRY_TIMEOUT: Duration = Duration::from_secs(10);

/// With less time than this before the deadline WeChat is not asked any more: it might mint a token, and nobody would
/// wait for the answer. On the classic API that kills the published one.
const LEAST_TRY: Duration = Duration::from_millis(500);

/// Why a token is asked for.
#[derive(Debug)]
pub(crate) enum Want {
    /// One that is not due.
    Live,
    /// Another one, whatever the time.
    Another,
    /// One that is not this one: WeChat rejected it.
    NotThis(Secret),
}

/// What came of it. In every case the document is what is published now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nobody was asked: what is published is good.
    Kept(Document),
    /// Another token than before is published.
    Renewed(Document),
    /// WeChat gave the token that was published already: normal on `stable`. The document has the life WeChat states.
    Confirmed(Document),
}

/// Why there is no new token. What was published stays published; in one case for a shorter time.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The source gave none, and what is published is as good as before.
    Asking(UpstreamError),
    /// The source may have minted one and we have not heard of it: the published one may be dying, and its document
    /// says so now.
    Lost { why: UpstreamError, ends_at: UtcDateTime },
    /// Somebody else was at it until the deadline.
    Held,
    /// Something on this machine is in the way.
    Local(anyhow::Error),
    /// The place is taken by another account's document.
    Foreign { place: String, appid: String },
}

impl Failure {
    /// How long it is pointless to ask again; `None` if nothing is known against doing so at one's own pace.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Failure::Asking(why) | Failure::Lost { why, .. } => why.retry_after(),
            Failure::Held | Failure::Local(_) | Failure::Foreign { .. } => None,
        }
    }

    /// What the process's status says of it.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Failure::Asking(why) | Failure::Lost { why, .. } => why.exit(),
            Failure::Held => Exit::Locked,
            Failure::Local(_) => Exit::Failure,
            Failure::Foreign { .. } => Exit::Usage,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Asking(why) => why.fmt(f),
            Failure::Lost { why, ends_at } => {
                let ends = rfc3339(*ends_at);
                write!(
                    f,
                    "{why} The answer may be lost, and the published token with it: it ends at {ends} now; the next \
                     refresh brings another. 应答可能已丢失，已发布的 token 可能随之失效，其有效期已改为至 {ends}，再次刷新即可。"
                )
            }
            Failure::Held => f.write_str(
                "another fetch held the lock until the deadline; see what it waits for, or give more --timeout",
            ),
            Failure::Local(err) => write!(f, "{err:#}"),
            Failure::Foreign { place, appid } => write!(
                f,
                "{place} belongs to {appid}; give this account its own --file or --dir, or remove that document. \
                 该文档属于另一个 AppID：请为此账号另行指定 --file 或 --dir，或删除该文档。"
            ),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(err: anyhow::Error) -> Failure {
        Failure::Local(err)
    }
}

/// One account's refresh: who it is, when its token is due, and what the story works with.
pub(crate) struct Refresh<'a> {
    /// What people call the account.
    pub(crate) name: &'a str,
    /// Where they find its document.
    pub(crate) place: &'a str,
    /// Empty where it is not known: a mirror need not be told.
    pub(crate) appid: &'a str,
    pub(crate) rules: Rules,
    pub(crate) refresh_before: Duration,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) source: &'a dyn TokenSource,
    pub(crate) store: &'a dyn Store,
}

impl Refresh<'_> {
    /// Sees to it that the token wanted is published, by `deadline`.
    ///
    /// However many do this at once, one of them asks: the others wait for the lock, look again, and find it done.
    pub(crate) fn run(&self, want: &Want, deadline: Instant) -> Result<Outcome, Failure> {
        let before = match self.judge(self.store.read()?, want)? {
            Judgement::Keep(document) => return Ok(Outcome::Kept(document)),
            Judgement::Replace(published) => published,
        };
        let turn = self.store.turn(self.clock, deadline)?.ok_or(Failure::Held)?;
        let published = match self.judge(turn.read()?, want)? {
            Judgement::Keep(document) => return Ok(Outcome::Kept(document)),
            Judgement::Replace(published) => published,
        };
        // Somebody else asked while we waited for the turn. What WeChat said then is the answer for us, too: also that
        // it is the same token again, or one that is due from the start.
        if let Some(document) = &published
            && before.as_ref().is_none_or(|before| document.is_newer_answer_than(before))
            && !document.left(self.clock.now()).is_zero()
        {
            let is_the_same = before.is_some_and(|before| before.token == document.token);
            let document = document.clone();
            return Ok(if is_the_same {
                Outcome::Confirmed(document)
            } else {
                Outcome::Kept(document)
            });
        }
        // Before asking: a local fault must not cost a mint.
        let mut stake = Stake::new(self.name, published.as_ref(), turn.prepare()?);
        let document = match self.ask(want, &mut stake, deadline) {
            Ok(document) => document,
            Err(failure) => return Err(stake.give_up(failure)),
        };
        stake.win(&document)?;

        let is_the_same = published.is_some_and(|published| published.token == document.token);
        Ok(if is_the_same { Outcome::Confirmed(document) } else { Outcome::Renewed(document) })
    }

    /// Whether a document is this account's; anybody's will do where no AppID is known.
    fn owns(&self, document: &Document) -> bool {
        self.appid.is_empty() || document.appid == self.appid
    }

    /// Whether what was found will do.
    fn judge(&self, found: Found, want: &Want) -> Result<Judgement, Failure> {
        let document = match found {
            Found::Nothing => return Ok(Judgement::Replace(None)),
            Found::Damaged(damage) => {
                debug!("{}: {damage}; a new token is the cure", self.name);
                return Ok(Judgement::Replace(None));
            }
            Found::Document(document) => document,
        };
        if !self.owns(&document) {
            let (place, appid) = (self.place.to_owned(), printable(&document.appid, 64));
            return Err(Failure::Foreign { place, appid });
        }
        let keep = match want {
            Want::Another => false,
            Want::NotThis(rejected) if document.token == *rejected => false,
            // Another than the rejected one: it will do while it lives, due or not.
            Want::NotThis(_) => !document.left(self.clock.now()).is_zero(),
            Want::Live if self.rules == Rules::Mirror => !document.is_stale(self.clock.now()),
            Want::Live => !document.is_due(self.clock.now(), self.refresh_before),
        };
        Ok(if keep { Judgement::Keep(document) } else { Judgement::Replace(Some(document)) })
    }

    /// Asks for what is wanted, and again what is transient, while there is time; gives the document to publish.
    fn ask(
        &self,
        want: &Want,
        stake: &mut Stake<'_>,
        deadline: Instant,
    ) -> Result<Document, Failure> {
        let published = stake.published();
        // Somebody else may have replaced the unwanted one at WeChat, or we did and lost the answer: then the good one
        // is another, and can be had without forcing a further one. That would kill it in turn, and the one before it
        // at once, and counts against 20 a day.
        let (unwanted, mut how) = match want {
            Want::Live => (None, RefreshMode::Normal),
            Want::NotThis(rejected) => (Some(rejected), RefreshMode::Normal),
            Want::Another => {
                let is_ending = published.is_some_and(|document| {
                    let left = document.left(self.clock.now());
                    !left.is_zero() && left <= CLASSIC_OVERLAP
                });
                let how = if is_ending { RefreshMode::Normal } else { RefreshMode::Forced };
                (published.map(|document| &document.token), how)
            }
        };
        let mut unheard_since = None;
        let mut pauses = PAUSES.iter();
        self.check_time(deadline)?;
        loop {
            stake.check()?;
            let asked_at = self.clock.now();
            if self.kills(how) {
                stake.brace(asked_at)?;
            }
            let err = match self.source.request_token(how, self.try_timeout(deadline)) {
                Ok(grant) if Some(&grant.token) == unwanted && self.can_force(how) => {
                    self.check_time(deadline)?;
                    how = RefreshMode::Forced;
                    continue;
                }
                Ok(grant) => match self.document_of(grant, asked_at, unheard_since, published) {
                    Some(document) => return Ok(document),
                    None => UpstreamError::Expired,
                },
                Err(err) => err,
            };
            if err.may_have_minted() {
                unheard_since.get_or_insert(asked_at);
                if self.kills(how) {
                    stake.lose();
                    how = RefreshMode::Normal;
                }
            }
            let pause = pauses.next().map(|pause| with_jitter(*pause, self.clock.chance()));
            match pause {
                Some(pause)
                    if err.is_transient() && self.clock.until(deadline) >= pause + LEAST_TRY =>
                {
                    debug!("{}: {err}; trying again in {} ms", self.name, pause.as_millis());
                    self.clock.sleep(pause);
                }
                _ => return Err(Failure::Asking(err)),
            }
        }
    }

    /// The document for what was granted in answer to a request of `asked_at`, after others whose answers were lost since
    /// `unheard_since`; `None` if the token's time is over.
    fn document_of(
        &self,
        grant: IssuedToken,
        asked_at: UtcDateTime,
        unheard_since: Option<UtcDateTime>,
        published: Option<&Document>,
    ) -> Option<Document> {
        let document = |at| Document::new(self.appid, grant.token.clone(), grant.expires_in, at);
        match (self.rules, published) {
            (Rules::Stable | Rules::Classic | Rules::Mirror, _) => Some(document(asked_at)),
            // WeCom's manual does not say which life an answer states for a token that was given before: to us, or in
            // an answer that we did not hear.
            (Rules::Work, Some(published)) if published.token == grant.token => {
                document(asked_at).capped_by(published, asked_at)
            }
            (Rules::Work, _) => Some(document(unheard_since.unwrap_or(asked_at))),
        }
    }

    /// Whether asking so makes WeChat replace the token that it gave last.
    fn kills(&self, how: RefreshMode) -> bool {
        match self.rules {
            Rules::Classic => true,
            Rules::Stable => how == RefreshMode::Forced,
            Rules::Work | Rules::Mirror => false,
        }
    }

    /// Whether WeChat can be asked for more than `how` does.
    fn can_force(&self, how: RefreshMode) -> bool {
        matches!(self.rules, Rules::Stable | Rules::Mirror) && how == RefreshMode::Normal
    }

    /// Whether there is time to hear an answer.
    fn check_time(&self, deadline: Instant) -> Result<(), Failure> {
        if self.clock.until(deadline) < LEAST_TRY {
            let what = "no time is left to ask; give more --timeout".to_owned();
            let unasked =
                UpstreamError::Unreachable { what, may_pass: true, may_have_arrived: false };
            return Err(Failure::Asking(unasked));
        }
        Ok(())
    }

    fn try_timeout(&self, deadline: Instant) -> Duration {
        let left = self.clock.until(deadline);
        left.min(TRY_TIMEOUT.max(left / 2))
    }
}

/// What to do about what is published.
enum Judgement {
    Keep(Document),
    Replace(Option<Document>),
}

/// `pause` and up to a quarter more, so that many who failed together do not come back together.
fn with_jitter(pause: Duration, random: u64) -> Duration {
    pause + pause.mul_f64((random % 1000) as f64 / 4000.0)
}

#[cfg(test)]
mod tests;
