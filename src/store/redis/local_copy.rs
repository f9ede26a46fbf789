//! This host's copies of documents that are in Redis, for when Redis cannot be reached: each a file, as in the store of
//! files. Every process that reads or publishes keeps them up to date; failing to do so is no error.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::log::debug;
use crate::model::account;
use crate::model::document::Document;
use crate::model::kind::DocumentKind;
use crate::os::clock::Clock;
use crate::os::file::atomic::{self, Replacement};
use crate::os::file::dir::Dir;
use crate::os::file::lock::FileLock;
use crate::os::file::read::{self, Access};
use crate::store::record::RecordFile;
use crate::store::{Found, reader};

/// How long to wait for another process on this host that writes the copy. It writes the same document.
const PATIENCE: Duration = Duration::from_secs(1);

/// The copy of one document.
#[derive(Clone, PartialEq)]
pub(super) struct LocalCopy {
    path: PathBuf,
    kind: DocumentKind,
    /// The AppID that the document must have; any, if it is not known.
    appid: Option<String>,
}

impl LocalCopy {
    /// Returns the copy at `path` of a document of this kind and AppID.
    pub(super) fn new(path: &Path, kind: &DocumentKind, appid: Option<&str>) -> LocalCopy {
        LocalCopy { path: path.to_owned(), kind: kind.clone(), appid: appid.map(str::to_owned) }
    }

    /// Returns where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the document in it, if it is this account's.
    pub(super) fn read(&self) -> Option<Document> {
        match reader::read(&self.path, &self.kind) {
            Ok(Found::Document(document)) => self.is_for(&document).then_some(document),
            _ => None,
        }
    }

    /// Whether the document is this account's, as far as the AppIDs of both are known.
    pub(super) fn is_for(&self, document: &Document) -> bool {
        account::owns(self.appid.as_deref().unwrap_or_default(), document)
    }

    /// Keeps `document`, unless the copy already has it or a newer one. Failing to do so only matters when Redis is down,
    /// and is logged for debugging. Without a `mode` the file keeps its own, or is private: a process that only reads
    /// gives others no access that they did not have.
    pub(super) fn keep(&self, document: &Document, mode: Option<u32>, clock: &dyn Clock) {
        let now = clock.now();
        let is_kept = |copy: &Document| copy == document || copy.is_later_than(document, now);
        if !self.is_for(document) || self.read().as_ref().is_some_and(is_kept) {
            return;
        }
        if let Err(err) = self.write(document, mode, clock, is_kept) {
            debug!("{}: no copy is kept: {err:#}", self.path.display());
        }
    }

    /// Makes the record beside the copy, if there is none: it has room then on a disk that fills up.
    pub(super) fn make_room_for_record(&self, clock: &dyn Clock) {
        if let Some(appid) = &self.appid {
            RecordFile::beside(&self.path).make_room(appid, clock);
        }
    }

    fn write(
        &self,
        document: &Document,
        mode: Option<u32>,
        clock: &dyn Clock,
        is_kept: impl Fn(&Document) -> bool,
    ) -> Result<()> {
        let current = || {
            let file = read::open_own(&self.path, Access::Read).ok()?;
            Some(file.metadata().ok()?.mode() & 0o666)
        };
        let mode = mode.or_else(current).unwrap_or(0o600);
        atomic::make_dir_of(&self.path, mode)?;
        let deadline = clock.instant() + PATIENCE;
        let lock = FileLock::acquire(&self.path.with_extension("lock"), clock, deadline)?;
        if lock.is_none() || self.read().as_ref().is_some_and(&is_kept) {
            return Ok(());
        }
        let replaced = self.replace(document, mode);
        // The token of an older copy may be dead, or is to end sooner than it says.
        if replaced.is_err() && self.read().is_some_and(|copy| !is_kept(&copy)) {
            let (dir, name) = Dir::of(&self.path)?;
            dir.remove(name)?;
        }
        replaced
    }

    fn replace(&self, document: &Document, mode: u32) -> Result<()> {
        let line = document.to_line(&self.kind);
        Replacement::replace_at_once(&self.path, mode, line.expose().as_bytes())
    }

    /// Gives the file of the copy this mode.
    pub(super) fn set_mode(&self, mode: u32) -> io::Result<()> {
        read::set_mode(&self.path, mode)
    }
}

#[cfg(test)]
mod tests {
    use time::UtcDateTime;

    use super::*;
    use crate::model::secret::Secret;
    use crate::os::clock::SystemClock;
    use crate::os::timestamp::Timestamp;

    fn document(appid: &str, token: &str, created: i64) -> Document {
        let at = UtcDateTime::UNIX_EPOCH + time::Duration::seconds(created);
        Document::new(
            appid,
            Secret::new(token.to_owned()),
            Duration::from_secs(7200),
            Timestamp::of_wall(at),
        )
    }

    #[test]
    fn a_copy_that_cannot_be_replaced_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shop.json");
        let copy = LocalCopy::new(&path, &DocumentKind::Token, Some("wx1"));
        let old = document("wx1", "OLD", 0);
        copy.keep(&old, None, &SystemClock);
        // As on a disk without room.
        std::fs::create_dir(dir.path().join(".shop.json.tmp")).unwrap();
        copy.keep(&old, None, &SystemClock);
        assert_eq!(copy.read(), Some(old.clone()), "it is the same");
        let shortened = Document { expires_in: Duration::from_secs(300), ..old };
        copy.keep(&shortened, None, &SystemClock);
        assert!(!path.exists(), "its token is to end sooner than it says");
    }

    #[test]
    fn the_newest_of_this_account_is_kept_and_no_other_accounts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shop.json");
        let copy = |appid| LocalCopy::new(&path, &DocumentKind::Token, appid);
        let ours = copy(Some("wx1"));
        ours.keep(&document("wx2", "FOREIGN", 0), None, &SystemClock);
        assert!(!path.exists());
        for (token, created) in [("NEW", 1000), ("OLD", 0)] {
            ours.keep(&document("wx1", token, created), None, &SystemClock);
            assert_eq!(ours.read(), Some(document("wx1", "NEW", 1000)));
        }
        assert_eq!(copy(Some("wx2")).read(), None, "it is another account's");
        copy(None).keep(&document("", "MIRRORED", 1500), None, &SystemClock);
        assert_eq!(ours.read(), Some(document("", "MIRRORED", 1500)), "it may be any account's");
        copy(None).keep(&document("wx2", "NEWER", 2000), None, &SystemClock);
        assert_eq!((ours.read(), copy(None).read()), (None, Some(document("wx2", "NEWER", 2000))));
    }
}
