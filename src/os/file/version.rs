//! Tells one state of a file from another without reading it. Knows nothing of what is in a file.

use std::path::Path;

use time::UtcDateTime;

use super::disk::{self, Metadata};

/// Identifies one state of a file. It changes when the file is replaced or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileVersion {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    /// Whether it was removed, and can be reached all the same because it is mounted on its own.
    is_removed: bool,
}

impl FileVersion {
    /// Returns the version of the file that has this metadata.
    pub(crate) fn from_metadata(metadata: &Metadata) -> FileVersion {
        FileVersion {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: metadata.modified(),
            changed: metadata.changed(),
            is_removed: metadata.nlink() == 0,
        }
    }

    /// Returns when the file was written; `None` for one that an image or an archive has brought without its time.
    pub(crate) fn modified_at(&self) -> Option<UtcDateTime> {
        let at = UtcDateTime::from_unix_timestamp(self.modified.0).ok()?;
        (at.year() > 2000).then_some(at)
    }

    /// Returns the version of the file at `path`, or `None` if it cannot be looked at.
    pub(crate) fn at(path: &Path) -> Option<FileVersion> {
        disk::metadata(path).ok().as_ref().map(FileVersion::from_metadata)
    }
}
