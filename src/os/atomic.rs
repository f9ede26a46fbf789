//! Replaces a file so that readers see the old content or the new, whole, at every instant, power loss included.
//! Knows nothing of what is in it, and takes no lock: whoever calls holds one.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::os::read;

/// A file about to be replaced. What can fail on this machine has been tried when it exists; dropping it without
/// [`Replacement::publish`] leaves the old file as it was.
pub(crate) struct Replacement {
    target: PathBuf,
    dir: File,
    temp: PathBuf,
    file: File,
    mode: u32,
    published: bool,
}

impl Replacement {
    /// Makes ready to replace `target`: the temporary file beside it exists, has its mode, and holds `room` bytes on
    /// the disk, so that a full disk, a directory that cannot be written, or a target that cannot be
    /// replaced is found out now.
    ///
    /// The temporary file has one fixed name: what a killed run left behind is swept away by the next. The caller
    /// holds the lock that makes this safe.
    pub(crate) fn prepare(target: &Path, mode: u32, room: usize) -> Result<Replacement> {
        let (_, temp) = neighbours(target)?;
        sweep(&interim(&temp))?;
        Replacement::prepare_at(temp, target, mode, room)
    }

    fn prepare_at(temp: PathBuf, target: &Path, mode: u32, room: usize) -> Result<Replacement> {
        let (dir_path, _) = neighbours(target)?;
        check_target(target)?;
        let dir = File::open(&dir_path)
            .with_context(|| format!("cannot open directory {}", dir_path.display()))?;

        sweep(&temp)?;
        // The mode at creation can only be narrower than `mode` (umask); content comes after it is set exactly.
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

    /// Takes real blocks on the disk. Creating a file or seeking in it would succeed on a full one.
    fn reserve(&mut self, room: usize) -> io::Result<()> {
        read::give_to_owner_of_dir(&self.file, &self.temp)?;
        self.file.set_permissions(Permissions::from_mode(self.mode))?;
        self.file.write_all(&vec![b' '; room])?;
        self.file.sync_all()
    }

    /// Makes `content` what readers of the target see for now. This replacement stays as ready as it was, also if that
    /// fails.
    pub(crate) fn publish_interim(&self, content: &[u8]) -> Result<()> {
        self.check_temp()?;
        let temp = interim(&self.temp);
        Replacement::prepare_at(temp, &self.target, self.mode, content.len())?.publish(content)
    }

    /// Makes `content` what readers of the target see from now on.
    pub(crate) fn publish(mut self, content: &[u8]) -> Result<()> {
        self.check_temp()?;
        self.fill(content).with_context(|| format!("cannot write {}", self.temp.display()))?;
        fs::rename(&self.temp, &self.target)
            .with_context(|| format!("cannot replace {}", self.target.display()))?;
        self.published = true;
        // Until the directory is on the disk too, a power cut could bring the old file back.
        self.dir.sync_all().with_context(|| {
            format!("{} is replaced, but its directory cannot be synced", self.target.display())
        })
    }

    /// Whether the temporary file is still ours. It is not when the lock did not keep another process out, on a file
    /// system without working locks or because somebody removed the lock file: then the name stands for a file that is
    /// not yet filled, and renaming that one would publish blanks.
    fn check_temp(&self) -> Result<()> {
        let ours = self.file.metadata()?;
        match fs::symlink_metadata(&self.temp) {
            Ok(found) if (found.dev(), found.ino()) == (ours.dev(), ours.ino()) => Ok(()),
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
        // Also where errors of earlier writes come out: closing the file would swallow them.
        self.file.sync_all()
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        // A name that is another process's by now is theirs to remove.
        if !self.published && self.check_temp().is_ok() {
            let _ = fs::remove_file(&self.temp); // The next run sweeps it away, should this fail.
        }
    }
}

/// Tries all that replacing `target` takes on a file beside it, which is gone afterwards; `attempt` tries more on it.
pub(crate) fn try_replacing(
    target: &Path,
    mode: u32,
    room: usize,
    attempt: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let (dir, temp) = neighbours(target)?;
    // A name of its own: nobody holds the lock.
    let own = |suffix: &str| temp.with_extension(format!("{suffix}{}", std::process::id()));
    let (temp, moved) = (own("check"), own("moved"));
    let replacement = Replacement::prepare_at(temp.clone(), target, mode, room)?;
    attempt(&temp)?;
    let there_and_back = fs::rename(&temp, &moved).and_then(|()| fs::rename(&moved, &temp));
    let _ = fs::remove_file(&moved); // It is there only if it did not come back.
    there_and_back.with_context(|| format!("files cannot be renamed in {}", dir.display()))?;
    replacement.check_temp()?;
    let syncing = || format!("directory {} cannot be synced", dir.display());
    replacement.dir.sync_all().with_context(syncing)
}

/// The directory of `target` and the name of its temporary file there.
fn neighbours(target: &Path) -> Result<(PathBuf, PathBuf)> {
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

/// The name of the temporary file for what is published while the one at `temp` is kept ready.
fn interim(temp: &Path) -> PathBuf {
    temp.with_extension("now")
}

/// Removes what a killed run left behind.
fn sweep(temp: &Path) -> Result<()> {
    match fs::remove_file(temp) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            Err(err).with_context(|| format!("cannot remove leftover {}", temp.display()))
        }
        _ => Ok(()),
    }
}

/// Makes the directory of `target` if it is missing, open to those who may read a file of `mode` in it.
pub(crate) fn make_dir_of(target: &Path, mode: u32) -> Result<()> {
    let (dir, _) = neighbours(target)?;
    let readers = mode & 0o044;
    let make = || {
        if !dir.exists() {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
            fs::set_permissions(&dir, Permissions::from_mode(0o700 | readers | readers >> 2))?; // Whatever the umask.
        }
        Ok::<_, io::Error>(())
    };
    make().with_context(|| format!("cannot create directory {}", dir.display()))
}

/// Refuses what `rename` would refuse, or would replace by something else than its owner meant.
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

/// Refuses a file that the kernel would not let us rename over, with the directory writable and all.
fn check_may_replace(target: &Path, metadata: &fs::Metadata) -> Result<()> {
    // unlink(2): in a sticky directory only the owners of file and directory may, and root.
    let (dir, _) = neighbours(target)?;
    let dir = fs::metadata(&dir).with_context(|| format!("cannot look at {}", dir.display()))?;
    let user = rustix::process::geteuid();
    let owners = [dir.uid(), metadata.uid()];
    if dir.mode() & 0o1000 != 0 && !user.is_root() && !owners.contains(&user.as_raw()) {
        bail!(
            "{} belongs to another user, in a sticky directory: it cannot be replaced",
            target.display()
        );
    }
    // An immutable file (chattr +i, +a) cannot be opened for writing, by EPERM and not by EACCES; nothing is written.
    match OpenOptions::new().write(true).open(target) {
        Err(err) if err.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error()) => {
            bail!("{} is immutable (lsattr, chattr -i): it cannot be replaced", target.display())
        }
        _ => Ok(()),
    }
}

/// Whether the file itself is a mount point, as when a container is given one file: `rename` says EBUSY there.
fn is_mount_point(target: &Path) -> bool {
    let (Ok(target), Ok(mounts)) = (target.canonicalize(), fs::read("/proc/self/mountinfo")) else {
        return false; // Not to be found out here; then `rename` will tell.
    };
    // proc_pid_mountinfo(5): the fifth field, with blanks, line ends and backslashes in octal.
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
    fn the_new_content_replaces_the_old_with_exactly_its_mode() {
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
    fn what_is_published_for_now_has_its_mode_and_the_last_word_is_still_to_come() {
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
        // What a run that was killed in between leaves is swept away.
        fs::write(dir.path().join(".doc.json.now"), "left over").unwrap();
        drop(Replacement::prepare(&target, 0o640, 4096).unwrap());
        assert_eq!(names_in(dir.path()), ["doc.json"]);
    }

    #[test]
    fn giving_up_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("doc.json");
        fs::write(&target, "old").unwrap();
        drop(Replacement::prepare(&target, 0o600, 4096).unwrap());
        assert_eq!(fs::read_to_string(&target).unwrap(), "old");
        assert_eq!(names_in(dir.path()), ["doc.json"]);
    }

    #[test]
    fn who_was_not_kept_out_by_the_lock_publishes_nothing_but_whole_documents() {
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
    fn a_leftover_of_a_killed_run_is_swept_away() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".doc.json.tmp"), "half a docu").unwrap();
        Replacement::prepare(&dir.path().join("doc.json"), 0o600, 16)
            .unwrap()
            .publish(b"new")
            .unwrap();
        assert_eq!(names_in(dir.path()), ["doc.json"]);
    }

    #[test]
    fn a_target_that_is_no_plain_file_is_refused_by_name() {
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
    fn a_directory_that_is_made_lets_in_those_who_may_read_the_file() {
        let dir = tempfile::tempdir().unwrap();
        for (mode, expected) in [(0o600, 0o700), (0o640, 0o750), (0o644, 0o755)] {
            let made = dir.path().join(format!("{mode:o}"));
            make_dir_of(&made.join("doc.json"), mode).unwrap();
            assert_eq!(fs::metadata(&made).unwrap().permissions().mode() & 0o777, expected);
        }
    }
}
