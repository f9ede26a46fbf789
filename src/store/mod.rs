//! Where documents are published. A store keeps an account's documents, gives one process at a time the turn to
//! replace one, and knows nothing of when that is due.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;

use crate::model::document::Document;
use crate::model::kind::DocumentKind;
use crate::model::location::{Location, Shared};
use crate::os::clock::Clock;

use self::redis::RedisStore;
use file::FileStore;
use reader::Watched;

mod file;
mod reader;
mod redis;
mod preflight;

pub(crate) use preflight::{Directory, Trial, Turns};

impl Location {
    /// What is published now. Takes no lock, as all who only read.
    pub(crate) fn read(&self, kind: &DocumentKind) -> Result<Found> {
        match self {
            Location::File(_) => reader::read(&self.path(kind), kind),
            Location::Shared(shared) => self.redis(shared, kind, None).read_or_copy(),
        }
    }

    /// The same for those who look again and again.
    pub(crate) fn watch(&self, kind: &DocumentKind) -> Box<dyn Watch> {
        match self {
            Location::File(_) => Box::new(Watched::new(&self.path(kind), kind)),
            Location::Shared(shared) => self.redis(shared, kind, None).watch(),
        }
    }

    /// For those who publish; a file is published with `mode`.
    pub(crate) fn store(&self, kind: &DocumentKind, mode: u32) -> Arc<dyn Store + Send + Sync> {
        match self {
            Location::File(_) => Arc::new(FileStore::new(&self.path(kind), kind, mode)),
            Location::Shared(shared) => Arc::new(self.redis(shared, kind, Some(mode))),
        }
    }

    /// Tries whether documents can be published.
    pub(crate) fn try_out(&self) -> Trial {
        match self {
            Location::File(path) => Trial::Directory(preflight::directory(path)),
            Location::Shared(shared) => {
                Trial::Redis(self.redis(shared, &DocumentKind::Token, None).try_out())
            }
        }
    }

    /// Who has the turn to publish a token.
    pub(crate) fn turns(&self) -> Result<Turns> {
        match self {
            Location::File(path) => {
                preflight::turns(&FileStore::new(path, &DocumentKind::Token, 0).lock_path())
            }
            Location::Shared(shared) => {
                let holder = self.redis(shared, &DocumentKind::Token, None).holder()?;
                Ok(holder.map_or(Turns::Nobody, |holder| Turns::Somebody(Some(holder))))
            }
        }
    }

    fn redis(&self, shared: &Shared, kind: &DocumentKind, mode: Option<u32>) -> RedisStore {
        RedisStore::new(shared, kind, &self.path(kind), mode)
    }
}

/// Waits until those who watch know what is published, where it takes a moment to find out; no longer than that.
pub(crate) fn await_first_look() {
    redis::await_first_look();
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

    /// What is published, for a thread that must not wait for it: as far as it is known here, and nothing where it was lost
    /// or is no document.
    fn glance(&self) -> Option<Document> {
        match self.read() {
            Ok(Found::Document(document)) => Some(document),
            // A fault that the refresh will tell of.
            _ => None,
        }
    }

    /// Gives what is published the mode that it should have: it may have been published with another one.
    fn settle(&self) -> Result<()> {
        Ok(())
    }

    /// Whether something stands elsewhere for others while this is published, to be seen to by [`Store::mend`].
    fn has_others(&self) -> bool {
        false
    }

    /// Puts that right; it may take as long as the store does.
    fn mend(&self) -> Result<()> {
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
    /// Whether it is still our turn: an error says why not. Where nobody can lose it there is nothing to find out.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Makes this the document that readers see for now. All stays as ready as it was, also if that fails.
    fn publish_for_now(&self, document: &Document) -> Result<()>;

    /// Makes this the document that readers see, from now on.
    fn publish(self: Box<Self>, document: &Document) -> Result<()>;
}
