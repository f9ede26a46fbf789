//! Tries out whether a document could be published at its place, without publishing one: `check` asks. Leaves nothing
//! behind, and takes no lock that somebody may be waiting for longer than a look takes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{Access, access, major, minor, statfs};

use crate::model::document::MAX_DOCUMENT;
use crate::os::atomic;
use crate::os::read;

/// What came of trying whether documents can be published; an error says why not.
pub(crate) enum Trial {
    Directory(Result<Directory>),
    /// They are in a Redis, where a script has to be able to write.
    Redis(Result<()>),
}

/// A directory in which documents can be published.
pub(crate) enum Directory {
    /// Writing, renaming and locking were tried there, and work.
    Ready,
    /// The same, on a file system of other hosts: whether a lock there holds between hosts, nobody can try alone.
    Shared(&'static str),
    /// It is not there, and the first `fetch` can make it.
    Missing,
}

/// Who has the turn to publish.
pub(crate) enum Turns {
    Nobody,
    /// Somebody has; who, where that can be told.
    Somebody(Option<String>),
}

/// File systems that other hosts may write to as well, by their magic numbers (statfs(2)).
const SHARED: [(u32, &str); 7] = [
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "Ceph"),
    (0x6573_5546, "FUSE"),
    (0x7461_636f, "OCFS2"),
];

/// That of the file that is tried with; it is gone before anybody reads it.
const MODE: u32 = 0o600;

/// Tries whether documents can be published as `path`.
pub(super) fn directory(path: &Path) -> Result<Directory> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    match fs::metadata(dir) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => bail!("{} is not a directory", dir.display()),
        Err(err) if err.kind() == ErrorKind::NotFound => {
            let mut above = dir
                .ancestors()
                .skip(1)
                .map(|it| if it.as_os_str().is_empty() { Path::new(".") } else { it });
            let there = above.find(|it| it.exists()).unwrap_or(Path::new("/"));
            access(there, Access::WRITE_OK | Access::EXEC_OK)
                .map_err(|err| read::explain(err.into(), there))
                .with_context(|| format!("{} is not there, and cannot be made", dir.display()))?;
            return Ok(Directory::Missing);
        }
        Err(err) => {
            return Err(read::explain(err, dir))
                .with_context(|| format!("cannot enter {}", dir.display()));
        }
    }
    try_out(dir, path)?;
    let kind = statfs(dir).map(|it| it.f_type as u32).unwrap_or_default();
    let shared = SHARED.iter().find(|(magic, _)| *magic == kind);
    Ok(shared.map_or(Directory::Ready, |(_, name)| Directory::Shared(name)))
}

/// Does all that publishing a document as `path` takes, but on a file beside it; and sees that locks keep others out.
fn try_out(dir: &Path, path: &Path) -> Result<()> {
    let locks = |file: &Path| {
        let open = || read::open_own(OpenOptions::new().read(true).write(true), file);
        let (one, other) = (open()?, open()?);
        fs2::FileExt::try_lock_exclusive(&one)
            .with_context(|| format!("flock fails in {}", dir.display()))?;
        match fs2::FileExt::try_lock_exclusive(&other) {
            Err(err) if err.kind() == ErrorKind::WouldBlock => Ok(()),
            _ => bail!("locks do not hold in {}: one was given twice", dir.display()),
        }
    };
    atomic::rehearse(path, MODE, MAX_DOCUMENT, locks)
}

/// Tries who has the turn that the lock at `path` stands for.
pub(super) fn turns(path: &Path) -> Result<Turns> {
    let looking = || format!("cannot look at lock {}", path.display());
    let file = match read::open_own(OpenOptions::new().read(true), path) {
        Ok(file) => file,
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(Turns::Nobody),
        Err(err) => return Err(read::explain(err, path)).with_context(looking),
    };
    match fs2::FileExt::try_lock_shared(&file) {
        Ok(()) => Ok(Turns::Nobody),
        Err(err) if err.kind() == ErrorKind::WouldBlock => {
            Ok(Turns::Somebody(holder(&file).unwrap_or_default()))
        }
        Err(err) => Err(anyhow!(err)).with_context(looking),
    }
}

/// The process that holds a lock on this file, as far as the kernel tells (proc(5)).
fn holder(file: &File) -> io::Result<Option<String>> {
    let metadata = file.metadata()?;
    let (device, inode) = (metadata.dev(), metadata.ino());
    let place = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
    let locks = fs::read_to_string("/proc/locks")?;
    // Those who wait have a word more in their lines.
    let mut pids = locks.lines().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        (words.get(5) == Some(&&*place)).then(|| words.get(4).copied())?
    });
    Ok(pids.next().map(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        format!("process {pid} ({})", name.trim())
    }))
}
