//! This host's copies of documents that are in Redis: a file each, as the store of files has them, for when Redis cannot
//! be reached. Kept by whoever reads or publishes, as well as it can be.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::log::debug;
use crate::model::document::{Document, MAX_DOCUMENT};
use crate::model::kind::DocumentKind;
use crate::os::atomic::{self, Replacement};
use crate::os::clock::{Clock, SystemClock};
use crate::os::lock::Lock;
use crate::store::{Found, reader};

/// How long one waits for others on this host who write the copy; they write what we would.
const PATIENCE: Duration = Duration::from_secs(1);

/// A copy, of one kind of document.
#[derive(Clone, PartialEq)]
pub(super) struct LocalCopy {
    path: PathBuf,
    kind: DocumentKind,
    /// Whose it has to be.
    appid: Option<String>,
}

impl LocalCopy {
    pub(super) fn new(path: &Path, kind: &DocumentKind, appid: Option<&str>) -> LocalCopy {
        LocalCopy { path: path.to_owned(), kind: kind.clone(), appid: appid.map(str::to_owned) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The document in it, if it is this account's.
    pub(super) fn read(&self) -> Option<Document> {
        match reader::read(&self.path, &self.kind) {
            Ok(Found::Document(document)) => self.is_ours(&document).then_some(document),
            _ => None,
        }
    }

    /// Whether this is the account's; anybody's will do where no AppID is known.
    pub(super) fn is_ours(&self, document: &Document) -> bool {
        self.appid.as_ref().is_none_or(|appid| *appid == document.appid)
    }

    /// Keeps `document`, unless what is kept is it, or newer. That it cannot be kept costs nothing as long as Redis is
    /// there. Without a `mode` the file is as tight as it was made, or tighter: who only reads gives nobody more.
    pub(super) fn keep(&self, document: &Document, mode: Option<u32>) {
        let now = SystemClock.now();
        let is_newer =
            |copy: &Document| copy.created_at > document.created_at && !copy.is_from_future(now);
        let is_kept = |copy: &Document| copy == document || is_newer(copy);
        if !self.is_ours(document) || self.read().as_ref().is_some_and(is_kept) {
            return;
        }
        if let Err(err) = self.write(document, mode, is_kept) {
            debug!("{}: no copy is kept: {err:#}", self.path.display());
        }
    }

    /// The same, and an error if that was not possible.
    fn write(
        &self,
        document: &Document,
        mode: Option<u32>,
        is_kept: impl Fn(&Document) -> bool,
    ) -> Result<()> {
        let as_it_was = || Some(fs::metadata(&self.path).ok()?.permissions().mode() & 0o7777);
        let mode = mode.or_else(as_it_was).unwrap_or(0o600);
        atomic::make_dir_of(&self.path, mode)?;
        let deadline = Instant::now() + PATIENCE;
        let lock = Lock::acquire(&self.path.with_extension("lock"), &SystemClock, deadline)?;
        if lock.is_none() || self.read().as_ref().is_some_and(is_kept) {
            return Ok(());
        }
        let line = document.to_line(&self.kind);
        Replacement::prepare(&self.path, mode, MAX_DOCUMENT)?.publish(line.expose().as_bytes())
    }

    /// Gives the copy the mode that it should have.
    pub(super) fn settle(&self, mode: u32) -> std::io::Result<()> {
        let is_other = fs::metadata(&self.path)?.permissions().mode() & 0o7777 != mode;
        if is_other {
            fs::set_permissions(&self.path, Permissions::from_mode(mode))
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use time::UtcDateTime;

    use super::*;
    use crate::model::secret::Secret;

    fn document(appid: &str, token: &str, created: i64) -> Document {
        let at = UtcDateTime::UNIX_EPOCH + time::Duration::seconds(created);
        Document::new(appid, Secret::new(token.to_owned()), Duration::from_secs(7200), at)
    }

    #[test]
    fn the_newest_of_this_account_is_kept_and_no_other_accounts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shop.json");
        let copy = |appid| LocalCopy::new(&path, &DocumentKind::Token, appid);
        let ours = copy(Some("wx1"));
        ours.keep(&document("wx2", "FOREIGN", 0), None);
        assert!(!path.exists());
        for (token, created) in [("NEW", 1000), ("OLD", 0)] {
            ours.keep(&document("wx1", token, created), None);
            assert_eq!(ours.read(), Some(document("wx1", "NEW", 1000)));
        }
        assert_eq!(copy(Some("wx2")).read(), None, "it is another's");
        copy(None).keep(&document("wx2", "NEWER", 2000), None);
        assert_eq!((ours.read(), copy(None).read()), (None, Some(document("wx2", "NEWER", 2000))));
    }
}
