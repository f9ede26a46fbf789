//! Tells one state of a file from another without reading it. Knows nothing of what is in a file.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

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
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            is_removed: metadata.nlink() == 0,
        }
    }

    /// Returns the version of the file at `path`, or `None` if it cannot be looked at.
    pub(crate) fn at(path: &Path) -> Option<FileVersion> {
        fs::metadata(path).ok().as_ref().map(FileVersion::from_metadata)
    }
}
