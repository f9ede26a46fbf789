//! Keeps the promise of the published document true while a token is requested. A request that mints a token invalidates the
//! published one after the overlap, even if its answer is lost. So the document's life is shortened before such a request, and
//! restored only if it is certain that no token was minted.

use std::time::Duration;

use super::record::RecordSession;
use super::{Refresh, RefreshError};
use crate::log::{debug, error, verb};
use crate::message::{action_first, messages};
use crate::model::api::Rules;
use crate::model::document::Document;
use crate::model::kind::DocumentName;
use crate::os::local_time::local;
use crate::os::timestamp::Timestamp;
use crate::sabotage::{Bug, has_bug};
use crate::store::{LostRequests, Publisher};

messages! {
    NOT_PUT_BACK<1> {
        "Let fetch run again soon.", "the document cannot be put back and ends at {0}";
        "请尽快再次运行 fetch。", "token 文件无法恢复，将于 {0} 到期";
    }
}

impl Refresh<'_> {
    /// Whether this is the refresh of a mirror that has this deliberate bug.
    pub(super) fn has_bug_of_mirrors(&self, bug: Bug) -> bool {
        self.rules == Rules::Mirror && has_bug(bug)
    }
}

/// One refresh under a lease: the document published at its beginning, and what has been done to it since.
pub(super) struct Transaction<'a> {
    name: DocumentName<'a>,
    published: Option<&'a Document>,
    publisher: Box<dyn Publisher>,
    /// The shortened document that is published now.
    shortened: Option<Document>,
    /// Whether a request may have minted a token that was not received.
    is_answer_lost: bool,
    /// Whether WeChat says that the published token is dead. The document's life has ended then, and is not restored.
    is_dead: bool,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(
        name: DocumentName<'a>,
        published: Option<&'a Document>,
        publisher: Box<dyn Publisher>,
    ) -> Transaction<'a> {
        Transaction {
            name,
            published,
            publisher,
            shortened: None,
            is_answer_lost: false,
            is_dead: false,
        }
    }

    /// Returns the document as it was published at the beginning.
    pub(super) fn published(&self) -> Option<&'a Document> {
        self.published
    }

    /// Fails if the lease has been lost to another process. Called before each request.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        self.publisher.check_lease()
    }

    /// Tells all hosts that share the place of these requests without an answer. Fails if the lease has been lost.
    pub(super) fn note_lost(&self, lost: &LostRequests) -> anyhow::Result<()> {
        self.publisher.note_lost(lost)
    }

    /// Tells these hosts what has become of the requests of `session`. If that fails, they count one request too many.
    pub(super) fn share(&self, session: &mut RecordSession<'_>) {
        if let Some(lost) = session.unshared()
            && let Err(err) = self.note_lost(lost)
        {
            debug!("{}: other hosts take a request for one without an answer: {err:#}", self.name);
        }
    }

    /// Ends the published document's life, because WeChat says that its token is dead: from now on no reader hands it out, even if no
    /// other token can be had.
    pub(super) fn end(&mut self, now: Timestamp) -> anyhow::Result<()> {
        self.is_dead = true;
        match self.published.and_then(|published| published.ended(now)) {
            Some(document) => self.publisher.publish_interim(&document),
            None => Ok(()),
        }
    }

    /// Returns how long the lease lasts at least, as far as this process knows.
    pub(super) fn lease_left(&self) -> Duration {
        self.publisher.lease_left()
    }

    /// Shortens the published document's life to what a mint at `requested_at` would leave of it. Only the first call has an effect:
    /// later mints leave no less.
    pub(super) fn shorten_before_mint(&mut self, requested_at: Timestamp) -> anyhow::Result<()> {
        if self.shortened.is_none()
            && !self.is_dead
            && let Some(document) =
                self.published.and_then(|it| it.shortened_to_overlap(requested_at))
        {
            // Remembered first: an error can come after readers have seen the document.
            self.publisher.publish_interim(self.shortened.insert(document))?;
        }
        Ok(())
    }

    /// Notes that a request may have minted a token that was not received.
    pub(super) fn mark_answer_lost(&mut self) {
        self.is_answer_lost = !has_bug(Bug::LostAnswerTakenForNone);
    }

    /// Publishes the new document. Afterwards only the record is written under the lease. With `lost`, all hosts that share the place
    /// are told of the requests that are still without an answer.
    pub(super) fn commit(
        &mut self,
        document: &Document,
        rules: Rules,
        lost: Option<&LostRequests>,
    ) -> anyhow::Result<()> {
        self.publisher.publish(document, rules, lost)
    }

    /// Leaves the published document untouched, and notes that the answer of `at` has confirmed it. Returns false if the document has
    /// to be published again.
    pub(super) fn confirm(&self, at: Timestamp) -> bool {
        self.shortened.is_none() && !self.is_dead && self.publisher.confirm(at.wall)
    }

    /// Restores the document after the failure `why`, unless its token may have been invalidated. Returns the failure to report.
    pub(super) fn roll_back(self, why: RefreshError, now: Timestamp) -> RefreshError {
        let (Some(shortened), Some(published)) = (self.shortened, self.published) else {
            return why;
        };
        match why {
            RefreshError::Upstream(error) if self.is_answer_lost => {
                RefreshError::AnswerLost { error, ends_at: shortened.expires_at(now) }
            }
            why => {
                if !self.is_answer_lost
                    && let Err(err) = self.publisher.restore(published)
                {
                    let (name, ends) = (self.name, local(shortened.expires_at(now)));
                    let said = NOT_PUT_BACK.with([&ends]);
                    let account = name.account;
                    error!(
                        event = "not_put_back", account = account;
                        "{}: {name}: {}", verb(), action_first(&format!("{said}: {err:#}"))
                    );
                }
                why
            }
        }
    }
}
