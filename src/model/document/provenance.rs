//! Where a document was read, as far as its lifetime depends on that: from a file with a time, or from a copy of a place that
//! cannot be reached.

use std::time::Duration;

use time::UtcDateTime;

use super::Document;
use crate::os::timestamp::Timestamp;

/// What is known of a document from where it was read. It is no part of what the document says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Provenance {
    /// When its file was written, by the clock of the machine that has it.
    pub(super) written_at: Option<UtcDateTime>,
    /// The last time at which the place was known to have the document, if this is a copy and the place cannot be reached.
    in_force_at: Option<Timestamp>,
}

impl Document {
    /// Returns the document as read from a file that was written at `at`, if that is known.
    pub(crate) fn written_at(self, at: Option<UtcDateTime>) -> Document {
        Document { provenance: Provenance { written_at: at, ..self.provenance }, ..self }
    }

    /// Returns the document as a copy whose place cannot be reached. `at` is the last time at which the place was known to have it;
    /// if that is unknown, it is the time when the copy was written.
    pub(crate) fn cut_off_since(self, at: Option<Timestamp>) -> Document {
        let written = self.provenance.written_at.map(|wall| Timestamp { wall, uptime: None });
        let in_force_at = at.or(written).or(Some(self.created_at));
        Document { provenance: Provenance { in_force_at, ..self.provenance }, ..self }
    }

    /// Returns the document as a copy that is in force because its place has lost it.
    pub(crate) fn put_back(self) -> Document {
        let provenance = Provenance { in_force_at: None, ..self.provenance };
        Document { is_put_back: true, provenance, ..self }
    }

    /// Returns for how long it has not been known whether the document is in force; zero if its place is reached.
    pub(super) fn unseen_for(&self, now: Timestamp) -> Duration {
        let in_force_at = self.provenance.in_force_at;
        in_force_at.and_then(|at| Duration::try_from(now.since(at)).ok()).unwrap_or_default()
    }
}
