//! Whose file it is, for messages: "permission denied" alone does not tell that somebody once ran `fetch` as root.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The same error; if it is a lack of permission, with who owns `path` and who we are.
pub(crate) fn explain(err: io::Error, path: &Path) -> io::Error {
    let us = rustix::process::geteuid().as_raw();
    match std::fs::metadata(path) {
        Ok(found) if err.kind() == io::ErrorKind::PermissionDenied && found.uid() != us => {
            let (owner, mode) = (found.uid(), found.mode() & 0o7777);
            let whose =
                format!("{err}: it is user {owner}'s, mode {mode:04o}, and this is user {us}");
            io::Error::new(err.kind(), whose)
        }
        _ => err,
    }
}
