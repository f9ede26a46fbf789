//! Where documents are published. A store keeps an account's documents, gives one process at a time the turn to
//! replace one, and knows nothing of when that is due.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;

use crate::clock::Clock;
use crate::place::Place;
use crate::token::{Document, Kind};

use file::FileStore;
use reader::Watched;

mod file;
mod reader;
mod trial;

pub(crate) use trial::{Directory, Turns};

impl Place {
    /// What is published now. Takes no lock, as all who only read.
    pub(crate) fn read(&self, kind: &Kind) -> Result<Found> {
        reader::read(&self.path(kind), kind)
    }

    /// The same for those who look again and again.
    pub(crate) fn watch(&self, kind: &Kind) -> Box<dyn Watch> {
        Box::new(Watched::new(&self.path(kind), kind))
    }

    /// For those who publish; a file is published with `mode`.
    pub(crate) fn store(&self, kind: &Kind, mode: u32) -> Arc<dyn Store + Send + Sync> {
        Arc::new(FileStore::new(&self.path(kind), kind, mode))
    }

    /// Tries whether documents can be published; an error says why not.
    pub(crate) fn try_out(&self) -> Result<Directory> {
        trial::directory(&self.path(&Kind::Token))
    }

    /// Who has the turn to publish a token.
    pub(crate) fn turns(&self) -> Result<Turns> {
        trial::turns(&FileStore::new(&self.path(&Kind::Token), &Kind::Token, 0).lock_path())
    }
}

/// What a store has for an account.
#[derive(Debug)]
pub(crate) enum Found {
    Nothing,
    /// Something that is no document; says where, and what is wrong with it.
    Damaged(String),
    Document(Document),
}

/// One document's place in a store.
pub(crate) trait Store {
    /// What is published now. An error means that nobody can tell.
    fn read(&self) -> Result<Found>;

    /// Waits until it is this process's turn to publish; `None` if it was somebody else's until `deadline`.
    fn turn(&self, clock: &dyn Clock, deadline: Instant) -> Result<Option<Box<dyn Turn>>>;

    /// Gives what is published the mode that it should have: it may have been published with another one.
    fn settle(&self) -> Result<()> {
        Ok(())
    }
}

/// A reader that looks again and again, at little cost.
pub(crate) trait Watch {
    /// Looks whether the document is another than at the last look.
    ///
    /// An `Err` says that there is something that is no document, or that nobody can tell; the last good document, if
    /// there was one, stays: a failure never costs a good token.
    fn look(&mut self) -> Result<bool>;

    /// The document at the last look.
    fn document(&self) -> Option<&Document>;
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
