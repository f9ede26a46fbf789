//! Where documents are published. A store keeps one account's document, gives one process at a time the turn to
//! replace it, and knows nothing of when that is due.

use std::time::Instant;

use anyhow::Result;

use crate::clock::Clock;
use crate::token::Document;

pub(crate) mod file;
pub(crate) mod reader;

/// What a store has for an account.
#[derive(Debug)]
pub(crate) enum Found {
    Nothing,
    /// Something that is no document; says where, and what is wrong with it.
    Damaged(String),
    Document(Document),
}

/// One account's place in a store.
pub(crate) trait Store {
    /// What is published now. An error means that nobody can tell.
    fn read(&self) -> Result<Found>;

    /// Waits until it is this process's turn to publish; `None` if it was somebody else's until `deadline`.
    fn turn(&self, clock: &dyn Clock, deadline: Instant) -> Result<Option<Box<dyn Turn>>>;
}

/// The turn to publish; it passes on when this is dropped.
pub(crate) trait Turn {
    /// What is published now; nobody else publishes until the turn is over.
    fn read(&self) -> Result<Found>;

    /// Tries all that can fail here, so that WeChat is not asked for a token that could not be published.
    fn prepare(self: Box<Self>) -> Result<Box<dyn Prepared>>;
}

/// A turn in which everything is ready for the last word; dropped without one, it leaves what is published as it is.
pub(crate) trait Prepared {
    /// Makes this the document that readers see for now. All stays as ready as it was, also if that fails.
    fn publish_for_now(&self, document: &Document) -> Result<()>;

    /// Makes this the document that readers see, from now on.
    fn publish(self: Box<Self>, document: &Document) -> Result<()>;
}
