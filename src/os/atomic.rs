//! Replaces a file so that readers see either the whole old content or the whole new one at every instant, even after a
//! power loss. Knows nothing of what is in it, and takes no lock: the caller holds one.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::os::read;

/// A file that is about to be replaced. Everything that can fail on this machine was tried before it exists. Dropped
/// without [`Replacement::publish`], it leaves the old file as it was.
pub(crate) struct Replacement {
    target: PathBuf,
    dir: File,
    temp: PathBuf,
    file: File,
    mode: u32,
    published: bool,
}

impl Replacement {
    /// Prepares to replace `target`: creates the temporary file beside it, with its mode and with `room` bytes on the disk.
    /// So this fails for a full disk, a directory that cannot be written, and a target that cannot be replaced.
    ///
    /// The temporary file has a fixed name, so that the next run removes what a killed one left behind. The caller holds
    /// the lock that makes this safe.
    pub(crate) fn prepare(target: &Path, mode: u32, room: usize) -> Result<Replacement> {
        let (_, temp) = dir_and_temp(target)?;
        remove_leftover(&interim_temp(&temp))?;
        Replacement::prepare_at(temp, target, mode, room)
    }

    fn prepare_at(temp: PathBuf, target: &Path, mode: u32, room: usize) -> Result<Replacement> {
        let (dir_path, _) = dir_and_temp(target)?;
        check_target(target)?;
        let dir = File::open(&dir_path)
            .with_context(|| format!("cannot open directory {}", dir_path.display()))?;

        remove_leftover(&temp)?;
        // The umask can only narrow this mode. The exact one is set before there is any content.
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode & 0o600)
            .open(&temp)
            .map_err(|err| read::explain(err, &dir_path))
            .with_context(|| format!("cannot create {}", temp.display()))?;
        let target = target.to_owned();
        let mut replacement = Replacement { target, dir, temp, file, mode, published: false };
        replacement
            .reserve(room)
            .with_context(|| format!("cannot write {}", replacement.temp.display()))?;
        Ok(replacement)
    }

    /// Writes blanks, to take real blocks on the disk: creating a file or seeking in it succeeds on a full disk.
    fn reserve(&mut self, room: usize) -> io::Result<()> {
        read::give_to_owner_of_dir(&self.file, &self.temp)?;
        self.file.set_permissions(Permissions::from_mode(self.mode))?;
        self.file.write_all(&vec![b' '; room])?;
        self.file.sync_all()
    }

    /// Replaces the target with `content`, before a later [`Replacement::publish`]. This replacement stays ready, also if
    /// that fails.
    pub(crate) fn publish_interim(&self, content: &[u8]) -> Result<()> {
        self.check_temp()?;
        let temp = interim_temp(&self.temp);
        Replacement::prepare_at(temp, &self.target, self.mode, content.len())?.publish(content)
    }

    /// Replaces the target with `content`.
    pub(crate) fn publish(mut self, content: &[u8]) -> Result<()> {
        self.check_temp()?;
        self.fill(content).with_context(|| format!("cannot write {}", self.temp.display()))?;
        fs::rename(&self.temp, &self.target)
            .with_context(|| format!("cannot replace {}", self.target.display()))?;
        self.published = true;
        // Before the directory is on the disk, a power cut could bring the old file back.
        self.dir.sync_all().with_context(|| {
            format!("{} is replaced, but its directory cannot be synced", self.target.display())
        })
    }

    /// Fails if the temporary file is no longer this one. Another process replaces it if the lock did not exclude that
    /// process, because the file system has no working locks or the lock file was removed. Renaming the other file, which
    /// has no content yet, would publish blanks.
    fn check_temp(&self) -> Result<()> {
        let own = self.file.metadata()?;
        match fs::symlink_metadata(&self.temp) {
            Ok(found) if (found.dev(), found.ino()) == (own.dev(), own.ino()) => Ok(()),
            _ => bail!(
                "another process is replacing {} in spite of the lock: was the lock file removed, or does this file \
                 system have no locks?",
                self.target.display()
            ),
        }
    }

    fn fill(&mut self, content: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(content)?;
        self.file.set_len(content.len() as u64)?;
        // Also reports errors of earlier writes, which closing the file would swallow.
        self.file.sync_all()
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        // Not if the name is another process's by now.
        if !self.published && self.check_temp().is_ok() {
            let _ = fs::remove_file(&self.temp); // If this fails, the next run removes it.
        }
    }
}

/// Tries everything that replacing `target` takes, on a file beside it that is removed again. `attempt` tries more on that
/// file.
pub(crate) fn try_replacing(
    target: &Path,
    mode: u32,
    room: usize,
    attempt: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let (dir, temp) = dir_and_temp(target)?;
    // Names of its own, because the caller does not hold the lock.
    let own = |suffix: &str| temp.with_extension(format!("{suffix}{}", std::process::id()));
    let (temp, moved) = (own("check"), own("moved"));
    let replacement = Replacement::prepare_at(temp.clone(), target, mode, room)?;
    attempt(&temp)?;
    let there_and_back = fs::rename(&temp, &moved).and_then(|()| fs::rename(&moved, &temp));
    let _ = fs::remove_file(&moved); // Exists only if it could not be renamed back.
    there_and_back.with_context(|| format!("files cannot be renamed in {}", dir.display()))?;
    replacement.check_temp()?;
    let syncing = || format!("directory {} cannot be synced", dir.display());
    replacement.dir.sync_all().with_context(syncing)
}

/// Returns the directory of `target`, and the path of its temporary file there.
fn dir_and_temp(target: &Path) -> Result<(PathBuf, PathBuf)> {
    let Some(name) = target.file_name() else { bail!("{} is not a file's name", target.display()) };
    let dir = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let mut temp = std::ffi::OsString::from(".");
    temp.push(name);
    temp.push(".tmp");
    Ok((dir.clone(), dir.join(temp)))
}

/// Returns the path of the temporary file for what is published while the one at `temp` stays ready.
fn interim_temp(temp: &Path) -> PathBuf {
    temp.with_extension("now")
}

/// Removes a temporary file that a killed run left behind.
fn remove_leftover(temp: &Path) -> Result<()> {
    match fs::remove_file(temp) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            Err(err).with_context(|| format!("cannot remove leftover {}", temp.display()))
        }
        _ => Ok(()),
    }
}

/// Creates the directory of `target` if it is missing. Users who may read a file of `mode` may enter it.
pub(crate) fn make_dir_of(target: &Path, mode: u32) -> Result<()> {
    let (dir, _) = dir_and_temp(target)?;
    let readers = mode & 0o044;
    let create = || {
        if !dir.exists() {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
            fs::set_permissions(&dir, Permissions::from_mode(0o700 | readers | readers >> 2))?; // Independent of the umask.
        }
        Ok::<_, io::Error>(())
    };
    create().with_context(|| format!("cannot create directory {}", dir.display()))
}

/// Fails if `rename` would refuse to replace `target`, or would replace a link instead of the file that it leads to.
fn check_target(target: &Path) -> Result<()> {
    let metadata = match fs::symlink_metadata(target) {
        Ok(metadata) => metadata,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(err) => {
            return Err(err).with_context(|| format!("cannot look at {}", target.display()));
        }
    };
    if metadata.file_type().is_symlink() {
        bail!("{} is a symbolic link: name the file that it points to", target.display());
    }
    if !metadata.is_file() {
        bail!("{} is not a regular file", target.display());
    }
    check_may_replace(target, &metadata)?;
    if is_mount_point(target) {
        bail!(
            "{} is mounted on its own and cannot be replaced: mount its directory, not the file",
            target.display()
        );
    }
    Ok(())
}

/// Fails if the kernel would refuse to rename over this file although its directory can be written.
fn check_may_replace(target: &Path, metadata: &fs::Metadata) -> Result<()> {
    // unlink(2): in a sticky directory only the owners of the file and of the directory may, and root.
    let (dir, _) = dir_and_temp(target)?;
    let dir = fs::metadata(&dir).with_context(|| format!("cannot look at {}", dir.display()))?;
    let user = rustix::process::geteuid();
    let owners = [dir.uid(), metadata.uid()];
    if dir.mode() & 0o1000 != 0 && !user.is_root() && !owners.contains(&user.as_raw()) {
        bail!(
            "{} belongs to another user, in a sticky directory: it cannot be replaced",
            target.display()
        );
    }
    // Opening an immutable file (chattr +i, +a) for writing fails with EPERM, not with EACCES. Nothing is written.
    match OpenOptions::new().write(true).open(target) {
        Err(err) if err.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error()) => {
            bail!("{} is immutable (lsattr, chattr -i): it cannot be replaced", target.display())
        }
        _ => Ok(()),
    }
}

/// Whether the file itself is a mount point, as when a single file is mounted into a container: `rename` fails with EBUSY
/// there.
fn is_mount_point(target: &Path) -> bool {
    let (Ok(target), Ok(mounts)) = (target.canonicalize(), fs::read("/proc/self/mountinfo")) else {
        return false; // Unknown here; `rename` fails then.
    };
    // proc_pid_mountinfo(5): the mount point is the fifth field, with blanks, line ends and backslashes in octal.
    let escaped: Vec<u8> = target
        .as_os_str()
        .as_bytes()
        .iter()
        .flat_map(|byte| match byte {
            b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
            _ => vec![*byte],
        })
        .collect();
    mounts
        .split(|byte| *byte == b'\n')
        .any(|mount| mount.split(|byte| *byte == b' ').nth(4) == Some(escaped.as_slice()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_in(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn publishing_replaces_the_content_and_sets_exactly_the_mode() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("doc.json");
        for (mode, content) in [(0o644, "first, and longer"), (0o640, "second")] {
            Replacement::prepare(&target, mode, 4096).unwrap().publish(content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&target).unwrap(), content);
            assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o7777, mode);
        }
        assert_eq!(names_in(dir.path()), ["doc.json"]);
    }

    #[test]
    fn an_interim_document_has_the_mode_and_can_still_be_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("doc.json");
        fs::write(&target, "old").unwrap();
        let replacement = Replacement::prepare(&target, 0o640, 4096).unwrap();
        for content in ["for now", "and now"] {
            replacement.publish_interim(content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&target).unwrap(), content);
            assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o7777, 0o640);
            assert_eq!(names_in(dir.path()), [".doc.json.tmp", "doc.json"]);
        }
        replacement.publish(b"new").unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "new");
        // The next run removes what a run that was killed in between left behind.
        fs::write(dir.path().join(".doc.json.now"), "left over").unwrap();
        drop(Replacement::prepare(&target, 0o640, 4096).unwrap());
        assert_eq!(names_in(dir.path()), ["doc.json"]);
    }

    #[test]
    fn an_unused_replacement_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("doc.json");
        fs::write(&target, "old").unwrap();
        drop(Replacement::prepare(&target, 0o600, 4096).unwrap());
        assert_eq!(fs::read_to_string(&target).unwrap(), "old");
        assert_eq!(names_in(dir.path()), ["doc.json"]);
    }

    #[test]
    fn a_process_that_the_lock_did_not_exclude_cannot_publish_blanks() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("doc.json");
        let first = Replacement::prepare(&target, 0o600, 4096).unwrap();
        let second = Replacement::prepare(&target, 0o600, 4096).unwrap();
        let err = first.publish(b"first").unwrap_err().to_string();
        assert!(err.contains("in spite of the lock") && !target.exists(), "{err}");
        second.publish(b"second").unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "second");
        assert_eq!(names_in(dir.path()), ["doc.json"]);
    }

    #[test]
    fn a_leftover_of_a_killed_run_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".doc.json.tmp"), "half a docu").unwrap();
        Replacement::prepare(&dir.path().join("doc.json"), 0o600, 16)
            .unwrap()
            .publish(b"new")
            .unwrap();
        assert_eq!(names_in(dir.path()), ["doc.json"]);
    }

    #[test]
    fn a_target_that_is_no_regular_file_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("elsewhere", &link).unwrap();
        for (target, finding) in
            [(link.as_path(), "symbolic link"), (dir.path(), "not a regular file")]
        {
            let err = format!("{:#}", Replacement::prepare(target, 0o600, 16).err().unwrap());
            assert!(err.contains(finding) && err.contains(&target.display().to_string()), "{err}");
        }
    }

    #[test]
    fn a_created_directory_can_be_entered_by_users_who_may_read_the_file() {
        let dir = tempfile::tempdir().unwrap();
        for (mode, expected) in [(0o600, 0o700), (0o640, 0o750), (0o644, 0o755)] {
            let created = dir.path().join(format!("{mode:o}"));
            make_dir_of(&created.join("doc.json"), mode).unwrap();
            assert_eq!(fs::metadata(&created).unwrap().permissions().mode() & 0o777, expected);
        }
    }
}
