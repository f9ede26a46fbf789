//! What is at stake while WeChat is asked: the published token. A call that makes WeChat replace it kills it, also when
//! nobody hears the answer; so its document is cut before the call, and put back once it is sure that nothing was done.

use time::UtcDateTime;

use super::Failure;
use crate::log::error;
use crate::model::document::Document;
use crate::store::Prepared;

/// The published document in a turn, and the place that is ready for the next.
pub(super) struct Stake<'a> {
    /// What people call the account.
    name: &'a str,
    /// As it stood when the turn began.
    published: Option<&'a Document>,
    prepared: Box<dyn Prepared>,
    /// As it stands now, if it was cut.
    cut: Option<Document>,
    /// Whether a call that kills it may have been heard, and its answer was not.
    is_lost: bool,
}

impl<'a> Stake<'a> {
    pub(super) fn new(
        name: &'a str,
        published: Option<&'a Document>,
        prepared: Box<dyn Prepared>,
    ) -> Stake<'a> {
        Stake { name, published, prepared, cut: None, is_lost: false }
    }

    pub(super) fn published(&self) -> Option<&'a Document> {
        self.published
    }

    /// Before each call: whoever has lost the turn must not ask.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        self.prepared.check()
    }

    /// Before a call at `asked_at` that kills the published token: from now on no reader is promised more than such a
    /// call leaves of it, whatever becomes of the answer and of us. Once is enough: later calls leave no less.
    pub(super) fn brace(&mut self, asked_at: UtcDateTime) -> anyhow::Result<()> {
        if self.cut.is_none()
            && let Some(cut) =
                self.published.and_then(|document| document.shortened_to_overlap(asked_at))
        {
            // Noted first: an error can come after readers see it.
            self.prepared.publish_for_now(self.cut.insert(cut))?;
        }
        Ok(())
    }

    /// After such a call without an answer that is sure.
    pub(super) fn lose(&mut self) {
        self.is_lost = true;
    }

    /// After an answer: publishes it.
    pub(super) fn win(self, document: &Document) -> anyhow::Result<()> {
        self.prepared.publish(document)
    }

    /// After asking in vain: puts the document back as it was, unless the token may be dying.
    pub(super) fn give_up(self, why: Failure) -> Failure {
        let (Some(cut), Some(published)) = (self.cut, self.published) else { return why };
        match why {
            Failure::Asking(why) if self.is_lost => {
                Failure::Lost { why, ends_at: cut.expires_at() }
            }
            why => {
                if !self.is_lost
                    && let Err(err) = self.prepared.publish(published)
                {
                    let (name, ends) = (self.name, cut.expires_at_rfc3339());
                    error!("{name}: the document cannot be put back and ends at {ends}: {err:#}");
                }
                why
            }
        }
    }
}
