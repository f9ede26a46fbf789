//! Whose file it is, and who else may read it: for messages, so that a secret is nobody else's, and so that root, who may
//! do everything, leaves nothing behind that its owner cannot use. Changes nobody's file but those it is given open.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::process::geteuid;

/// The same error; if it is a lack of permission, with who owns `path`, who we are, and what to do.
pub(crate) fn explain(err: io::Error, path: &Path) -> io::Error {
    let us = geteuid().as_raw();
    match std::fs::metadata(path) {
        Ok(found) if err.kind() == io::ErrorKind::PermissionDenied && found.uid() != us => {
            let (owner, mode) = (found.uid(), found.mode() & 0o7777);
            io::Error::new(
                err.kind(),
                format!(
                    "{err}: it is user {owner}'s, mode {mode:04o}, and this is user {us}; run as user {owner}, or \
                     chown it"
                ),
            )
        }
        _ => err,
    }
}

/// Who may read a file that holds a secret.
#[derive(Clone, Copy)]
pub(crate) enum Readers {
    Owner,
    /// Its group, too. systemd grants access to a credential by an ACL, whose mask shows up as the group's bits, and
    /// Debian lets servers read private keys through the group ssl-cert.
    OwnerAndGroup,
}

/// Opens a file that holds a secret; one that others can read, or replace what is in it, is an error.
pub(crate) fn open_secret(path: &Path, readers: Readers) -> io::Result<File> {
    let file = File::open(path).map_err(|err| explain(err, path))?;
    // Of the file that was opened: the name may stand for another one by now.
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mode = metadata.mode() & 0o7777;
    let (forbidden, expected) = match readers {
        Readers::Owner => (0o077, "0600"),
        Readers::OwnerAndGroup => (0o037, "0640"),
    };
    if mode & forbidden != 0 {
        return Err(io::Error::other(format!(
            "it is open to others: mode {mode:04o}, expected {expected}; run chmod {expected} on it"
        )));
    }
    Ok(file)
}

/// The same of one that is read again and again. A pipe is an error: it would have us wait for a writer.
pub(crate) fn open_lasting_secret(path: &Path, readers: Readers) -> io::Result<File> {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            Err(io::Error::other("it is no plain file, which could be read again"))
        }
        _ => open_secret(path, readers),
    }
}

/// Reads a file that says what we do, of no more than `max` bytes: only if nobody but its owner can have written it.
/// Whoever may read it is not asked. The error is a sentence with `name` in it, which is what people call the file.
pub(crate) fn read_guarded(name: &str, path: &Path, max: u64) -> Result<Vec<u8>, String> {
    let failed = |err: io::Error| format!("cannot read {name}: {}", explain(err, path));
    // A pipe would have us wait for a writer.
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(OFlags::NONBLOCK.bits() as i32);
    let file = options.open(path).map_err(failed)?;
    // Of the file that was opened: the name may stand for another one by now.
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(format!("{name} is not a plain file, which could be read again"));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return Err(format!(
            "{name} can be written by others: mode {mode:04o}; run chmod go-w on it"
        ));
    }
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > max {
        return Err(format!("{name} is larger than {} MiB", max / 1024 / 1024));
    }
    Ok(bytes)
}

/// Opens a file whose mode or owner is to be changed: never what a link of somebody else's leads to.
pub(crate) fn open_plain(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.custom_flags(OFlags::NOFOLLOW.bits() as i32).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.nlink() <= 1 {
        Ok(file)
    } else {
        Err(io::Error::other("it is not a plain file with one name"))
    }
}

/// Gives a file that root has made to the owner of its directory. Whoever debugs as root would else lock out the
/// service. Does nothing for other users, who own what they make.
pub(crate) fn give_to_owner_of_dir(file: &File, path: &Path) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (dir, file_metadata) = (std::fs::metadata(dir)?, file.metadata()?);
    if file_metadata.uid() == dir.uid() {
        return Ok(());
    }
    fchown(file, Some(dir.uid()), Some(dir.gid()))
}
