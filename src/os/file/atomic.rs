//! Replaces a file so that readers see either the whole old content or the whole new one at every instant, even after a
//! power loss. Knows nothing of what is in it, and takes no lock: the caller holds one. Its directory is opened once for
//! all steps.

use std::ffi::{OsStr, OsString};
use std::fs::Permissions;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use rustix::io::Errno;

use crate::language::in_both;
use crate::message::cannot;
use crate::os::fault::{Operation, explain};
use crate::os::file::dir::{Dir, dir_of};
use crate::os::file::disk::File;
use crate::os::file::messages::TAKEN_OVER;
use crate::sabotage::{Bug, has_bug};

mod names;

use names::{INTERIM, Names, TEMP, TRIAL, TRIAL_LOCK, TRIAL_MOVED, beside};

/// A file that is about to be replaced. Everything that can fail on this machine was tried before it exists. Dropped
/// before [`Replacement::publish`] succeeds, it leaves the old file as it was.
pub(crate) struct Replacement {
    names: Arc<Names>,
    /// The directory, to be synced.
    dir: File,
    /// The name of the temporary file.
    temp: OsString,
    file: File,
    mode: u32,
    published: bool,
}

/// Why a target was not replaced.
#[derive(Debug)]
pub(crate) enum ReplaceError {
    /// The system refused. The temporary file is still there, so that another attempt may succeed.
    Failed(anyhow::Error),
    /// Another process replaces it, in spite of the lock. Another attempt could undo what that one has published.
    TakenOver(anyhow::Error),
}

impl ReplaceError {
    pub(crate) fn into_error(self) -> anyhow::Error {
        match self {
            ReplaceError::Failed(err) | ReplaceError::TakenOver(err) => err,
        }
    }
}

impl Replacement {
    /// Prepares to replace `target`: creates the temporary file beside it, with its mode and with `room` bytes on the disk,
    /// and renames it there and back. So this fails for a full disk, a directory that cannot be written or that keeps the
    /// names of its files, and a target that cannot be replaced. The target itself is not opened: programs that watch it
    /// would wake.
    ///
    /// The temporary file has a fixed name, so that the next run removes what a killed one left behind. The caller holds
    /// the lock that makes this safe.
    #[cfg_attr(test, allow(clippy::arc_with_non_send_sync, reason = "a simulation has one thread"))]
    pub(crate) fn prepare(target: &Path, mode: u32, room: usize) -> Result<Replacement> {
        let names = Arc::new(Names::of(target)?);
        names.remove_leftovers()?;
        let mut replacement = Replacement::create(&names, &names.temp, mode)?;
        replacement.reserve(room)?;
        replacement.rehearse_rename(&names.interim)?;
        Ok(replacement)
    }

    /// Replaces `target` with `content` at once, and makes that outlast a power cut. For what nothing is done for before it is
    /// written: if it fails, that costs no more than if [`Replacement::prepare`] had. The caller holds the same lock.
    #[cfg_attr(test, allow(clippy::arc_with_non_send_sync, reason = "a simulation has one thread"))]
    pub(crate) fn replace_at_once(target: &Path, mode: u32, content: &[u8]) -> Result<()> {
        let names = Arc::new(Names::of(target)?);
        names.remove_leftovers()?;
        Replacement::create(&names, &names.temp, mode)?.publish_for_good(content)
    }

    fn create(names: &Arc<Names>, temp: &OsStr, mode: u32) -> Result<Replacement> {
        names.check_target()?;
        let dir = names.dir.open_itself();
        let dir = dir
            .map_err(|err| explain(err, &names.dir_path(), Operation::Reading))
            .with_context(|| cannot("open directory", "打开目录", names.dir_path().display()))?;
        // The umask can only narrow this mode. The exact one is set before there is any content.
        let created = names.dir.create_file(temp, mode & 0o600);
        let file = created
            .map_err(|err| explain(err, &names.dir_path(), Operation::Writing))
            .with_context(|| cannot("create", "创建", names.shown(temp)))?;
        let (names, temp) = (Arc::clone(names), temp.to_owned());
        let replacement = Replacement { names, dir, temp, file, mode, published: false };
        replacement
            .apply_settings()
            .map_err(|err| explain(err, &replacement.names.dir_path(), Operation::ChangingMode))
            .with_context(|| cannot("write", "写入", replacement.shown_temp()))?;
        Ok(replacement)
    }

    /// Gives the temporary file its owner and its mode.
    fn apply_settings(&self) -> io::Result<()> {
        self.names.dir.give_to_owner(&self.file)?;
        self.file.set_permissions(Permissions::from_mode(self.mode))
    }

    /// Writes so many blanks, to take real blocks on the disk: creating a file or seeking in it succeeds on a full disk.
    fn reserve(&mut self, room: usize) -> Result<()> {
        let room = if has_bug(Bug::RoomNotReserved) { 0 } else { room };
        let written = io::copy(&mut io::repeat(b' ').take(room as u64), &mut self.file);
        written
            .and_then(|_| self.file.sync_all())
            .map_err(|err| explain(err, &self.names.dir_path(), Operation::Writing))
            .with_context(|| cannot("write", "写入", self.shown_temp()))
    }

    /// Renames the temporary file to `other` and back.
    fn rehearse_rename(&self, other: &OsStr) -> Result<()> {
        let dir = &self.names.dir;
        let there_and_back =
            dir.rename(&self.temp, other).and_then(|()| dir.rename(other, &self.temp));
        if there_and_back.is_err() {
            let _ = dir.remove(other); // Exists only if it could not be renamed back.
        }
        let dir = || self.names.dir_path();
        there_and_back
            .map_err(|err| explain(err, &dir(), Operation::Writing))
            .with_context(|| cannot("rename files in", "重命名文件，目录", dir().display()))
    }

    /// Replaces the target with `content`, before a later [`Replacement::publish`]. This replacement stays ready, also if
    /// that fails.
    pub(crate) fn publish_interim(&self, content: &[u8]) -> Result<()> {
        self.check_temp().map_err(ReplaceError::into_error)?;
        let names = &self.names;
        names.remove_if_there(&names.interim)?;
        Replacement::create(names, &names.interim, self.mode)?.publish_for_good(content)
    }

    fn publish_for_good(&mut self, content: &[u8]) -> Result<()> {
        self.publish(content).map_err(ReplaceError::into_error)?;
        self.sync_dir()
    }

    /// Replaces the target with `content`, for readers. [`Replacement::sync_dir`] makes it last. If this fails, it may be
    /// called again.
    pub(crate) fn publish(&mut self, content: &[u8]) -> Result<(), ReplaceError> {
        self.check_temp()?;
        if has_bug(Bug::RenamedBeforeWritten) {
            let _ = self.names.dir.rename(&self.temp, &self.names.target);
        }
        self.fill(content)
            .map_err(|err| {
                explain(err, &self.names.path.with_file_name(&self.temp), Operation::Writing)
            })
            .with_context(|| cannot("write", "写入", self.shown_temp()))
            .map_err(ReplaceError::Failed)?;
        let names = &self.names;
        match names.dir.rename(&self.temp, &names.target) {
            // On a network file system the error can be that of a reply which was lost.
            Err(err) if !self.is_called(&names.target).unwrap_or(false) => {
                let err = explain(err, &names.path, Operation::Writing);
                let cannot = cannot("replace", "替换", names.path.display());
                return Err(ReplaceError::Failed(anyhow::Error::new(err).context(cannot)));
            }
            _ => {}
        }
        self.published = true;
        Ok(())
    }

    /// Makes the published file outlast a power cut, which could bring the old one back before.
    pub(crate) fn sync_dir(&self) -> Result<()> {
        let synced = sync_dir(&self.dir);
        synced.map_err(|err| explain(err, &self.names.dir_path(), Operation::Writing)).with_context(
            || {
                let target = self.names.path.display();
                in_both(
                    format!("{target} is replaced, but its directory cannot be synced"),
                    format!("{target} 已替换，但无法同步其目录"),
                )
            },
        )
    }

    /// Fails if the temporary file is no longer this one. Another process replaces it if the lock did not exclude that
    /// process, because the file system has no working locks or the lock file was removed. Renaming the other file, which
    /// has no content yet, would publish blanks.
    fn check_temp(&self) -> Result<(), ReplaceError> {
        let looking = || cannot("look at", "查看", self.shown_temp());
        match self.is_called(&self.temp) {
            Ok(true) => Ok(()),
            Ok(false) => {
                let taken = TAKEN_OVER.with([&self.names.path.display()]);
                Err(ReplaceError::TakenOver(anyhow!(taken)))
            }
            Err(err) => {
                let err = explain(err, &self.names.path, Operation::Reading);
                Err(ReplaceError::Failed(anyhow::Error::new(err).context(looking())))
            }
        }
    }

    /// Whether `name` is that of the temporary file.
    fn is_called(&self, name: &OsStr) -> io::Result<bool> {
        let own = self.file.metadata()?;
        match self.names.dir.stat(name) {
            Ok(found) => Ok((found.st_dev, found.st_ino) == (own.dev(), own.ino())),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(err) => Err(err),
        }
    }

    fn shown_temp(&self) -> String {
        self.names.shown(&self.temp)
    }

    fn fill(&mut self, content: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(content)?;
        self.file.set_len(content.len() as u64)?;
        if has_bug(Bug::ContentNotSynced) {
            return Ok(());
        }
        // Also reports errors of earlier writes, which closing the file would swallow.
        self.file.sync_all()
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        // Not if the name is another process's by now.
        if !self.published && self.check_temp().is_ok() {
            let _ = self.names.dir.remove(&self.temp); // If this fails, the next run removes it.
        }
    }
}

/// Syncs a directory. Some file systems have nothing to sync there, and say so.
fn sync_dir(dir: &File) -> io::Result<()> {
    let is_needless =
        |err: &io::Error| matches!(Errno::from_io_error(err), Some(Errno::INVAL | Errno::NOTSUP));
    if has_bug(Bug::DirectoryNotSynced) {
        return Ok(());
    }
    match dir.sync_all() {
        Err(err) if !is_needless(&err) => Err(err),
        _ => Ok(()),
    }
}

/// Tries everything that replacing `target` takes, on files beside it that are removed again. `attempt` tries more on one of
/// them, of this name in this directory. The caller does not hold the lock of `target`, but that of [`trial_lock`].
#[cfg_attr(test, allow(clippy::arc_with_non_send_sync, reason = "a simulation has one thread"))]
pub(crate) fn try_replacing(
    target: &Path,
    mode: u32,
    room: usize,
    attempt: impl FnOnce(&Dir, &OsStr) -> Result<()>,
) -> Result<()> {
    let names = Arc::new(Names::of(target)?);
    let [trial, moved] = [TRIAL, TRIAL_MOVED].map(|end| names.beside(end));
    names.remove_if_there(&trial)?;
    names.remove_if_there(&moved)?;
    let mut replacement = Replacement::create(&names, &trial, mode)?;
    replacement.reserve(room)?;
    attempt(&names.dir, &trial)?;
    replacement.rehearse_rename(&moved)?;
    replacement.check_temp().map_err(ReplaceError::into_error)?;
    let dir = names.dir_path();
    sync_dir(&replacement.dir)
        .map_err(|err| explain(err, &dir, Operation::Writing))
        .with_context(|| cannot("sync directory", "同步目录", dir.display()))
}

/// Returns the path of the lock file of [`try_replacing`]. It is removed when the trial is over.
pub(crate) fn trial_lock(target: &Path) -> Result<PathBuf> {
    Names::of(target).map(|names| names.path.with_file_name(names.beside(TRIAL_LOCK)))
}

/// Whether there are temporary files beside the target of this name: another process is at work there, or was killed.
pub(crate) fn has_leftovers(dir: &Dir, target: &OsStr) -> bool {
    is_any_there(dir, target, [TEMP, INTERIM])
}

/// Whether there are files of a trial.
pub(crate) fn has_trial(dir: &Dir, target: &OsStr) -> bool {
    is_any_there(dir, target, [TRIAL, TRIAL_MOVED, TRIAL_LOCK])
}

/// Whether a file beside `target` has a name with one of these ends.
fn is_any_there<const ENDS: usize>(dir: &Dir, target: &OsStr, ends: [&str; ENDS]) -> bool {
    ends.iter().any(|end| dir.stat(&beside(target, end)).is_ok())
}

/// Removes what killed processes left behind beside `target`. The caller holds its lock.
pub(crate) fn remove_leftovers(target: &Path) -> Result<()> {
    Names::of(target)?.remove_leftovers()
}

/// Removes what killed trials left behind beside `target`, and the lock of trials, which the caller holds.
pub(crate) fn remove_trial(target: &Path) -> Result<()> {
    let names = Names::of(target)?;
    let of_trial = [TRIAL, TRIAL_MOVED, TRIAL_LOCK].map(|end| names.beside(end));
    of_trial.iter().try_for_each(|name| names.remove_if_there(name))
}

/// Creates the directory of `target` if it is missing. Users who may read a file of `mode` may enter it.
pub(crate) fn make_dir_of(target: &Path, mode: u32) -> Result<()> {
    let dir = dir_of(target);
    let readers = mode & 0o044;
    Dir::open_or_create(dir, 0o700 | readers | readers >> 2)
        .map(drop)
        .map_err(|err| explain(err, dir, Operation::Writing))
        .with_context(|| cannot("create directory", "创建目录", dir.display()))
}

/// Fails if it is known without an attempt that `target` cannot be replaced.
pub(crate) fn check_replaceable(target: &Path) -> Result<()> {
    Names::of(target)?.check_target()
}

#[cfg(test)]
mod tests {
    use std::fs;

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
        let mut replacement = Replacement::prepare(&target, 0o640, 4096).unwrap();
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
        let mut first = Replacement::prepare(&target, 0o600, 4096).unwrap();
        let mut second = Replacement::prepare(&target, 0o600, 4096).unwrap();
        let ReplaceError::TakenOver(err) = first.publish(b"first").unwrap_err() else {
            panic!("it is another process's");
        };
        let err = err.to_string();
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
