//! Files and directories of the system, as the modules beside this one use them. Unit tests can put a model of a disk in their place, which
//! loses what was not synced when its power is cut.

use std::fs::{self, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::SystemTime;

#[cfg(test)]
pub(crate) mod model;

/// An open file.
#[derive(Debug)]
pub(crate) enum File {
    System(fs::File),
    #[cfg(test)]
    Model(model::ModelFile),
}

/// What is known of a file besides its content.
#[derive(Debug)]
pub(crate) enum Metadata {
    System(fs::Metadata),
    #[cfg(test)]
    Model(model::ModelMetadata),
}

/// Calls the same method of whichever file it is.
macro_rules! dispatch {
    ($file:expr, $inner:ident => $call:expr) => {
        match $file {
            Self::System($inner) => $call,
            #[cfg(test)]
            Self::Model($inner) => $call,
        }
    };
}

impl File {
    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        match self {
            File::System(file) => file.metadata().map(Metadata::System),
            #[cfg(test)]
            File::Model(file) => file.metadata().map(Metadata::Model),
        }
    }

    pub(crate) fn set_permissions(&self, permissions: Permissions) -> io::Result<()> {
        dispatch!(self, file => file.set_permissions(permissions))
    }

    pub(crate) fn set_len(&self, length: u64) -> io::Result<()> {
        dispatch!(self, file => file.set_len(length))
    }

    pub(crate) fn set_modified(&self, at: SystemTime) -> io::Result<()> {
        dispatch!(self, file => file.set_modified(at))
    }

    pub(crate) fn sync_all(&self) -> io::Result<()> {
        dispatch!(self, file => file.sync_all())
    }

    pub(crate) fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        dispatch!(self, file => file.write_all_at(bytes, offset))
    }

    /// Locks the file for this process alone, unless another one has locked it: flock(2).
    pub(crate) fn try_lock_exclusive(&self) -> io::Result<()> {
        match self {
            // Not as a method: since Rust 1.89 std has methods of the same names.
            File::System(file) => fs2::FileExt::try_lock_exclusive(file),
            #[cfg(test)]
            File::Model(file) => file.try_lock_exclusive(),
        }
    }

    /// Locks the file for shared use, unless another process has locked it for its own: flock(2).
    pub(crate) fn try_lock_shared(&self) -> io::Result<()> {
        match self {
            File::System(file) => fs2::FileExt::try_lock_shared(file),
            #[cfg(test)]
            File::Model(file) => file.try_lock_exclusive(),
        }
    }
}

impl Read for File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        dispatch!(self, file => file.read(buffer))
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        dispatch!(self, file => file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // Nothing is buffered in this process.
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        dispatch!(self, file => file.seek(to))
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        dispatch!(self, file => file.as_fd())
    }
}

impl Metadata {
    pub(crate) fn dev(&self) -> u64 {
        dispatch!(self, it => it.dev())
    }

    pub(crate) fn ino(&self) -> u64 {
        dispatch!(self, it => it.ino())
    }

    pub(crate) fn uid(&self) -> u32 {
        dispatch!(self, it => it.uid())
    }

    pub(crate) fn mode(&self) -> u32 {
        dispatch!(self, it => it.mode())
    }

    pub(crate) fn nlink(&self) -> u64 {
        dispatch!(self, it => it.nlink())
    }

    pub(crate) fn len(&self) -> u64 {
        dispatch!(self, it => it.len())
    }

    /// In units of 512 bytes, as of stat(2).
    pub(crate) fn blocks(&self) -> u64 {
        dispatch!(self, it => it.blocks())
    }

    pub(crate) fn is_file(&self) -> bool {
        dispatch!(self, it => it.is_file())
    }

    pub(crate) fn is_dir(&self) -> bool {
        dispatch!(self, it => it.is_dir())
    }

    /// When the content changed, in seconds and nanoseconds.
    pub(crate) fn modified(&self) -> (i64, i64) {
        dispatch!(self, it => (it.mtime(), it.mtime_nsec()))
    }

    /// When anything changed.
    pub(crate) fn changed(&self) -> (i64, i64) {
        dispatch!(self, it => (it.ctime(), it.ctime_nsec()))
    }
}

/// Looks at the file at `path`. Follows links.
pub(crate) fn metadata(path: &Path) -> io::Result<Metadata> {
    #[cfg(test)]
    if let Some(found) = model::metadata(path) {
        return found.map(Metadata::Model);
    }
    fs::metadata(path).map(Metadata::System)
}

/// Looks at the file at `path`. Does not follow a link.
pub(crate) fn symlink_metadata(path: &Path) -> io::Result<Metadata> {
    #[cfg(test)]
    if let Some(found) = model::metadata(path) {
        return found.map(Metadata::Model);
    }
    fs::symlink_metadata(path).map(Metadata::System)
}
