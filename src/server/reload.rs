//! What is made of files, and made anew when they change or when the operator says so: a broken one is reported, and
//! the last good one stays. Knows nothing of what it is.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::error::Exit;
use crate::log::{error, info};
use crate::os::file_version::FileVersion;

/// The files that something is made of, each with its state before it was read; `None` where there was no file.
#[derive(Debug, Default)]
pub(crate) struct Files(Vec<(PathBuf, Option<FileVersion>)>);

impl Files {
    /// Notes that this file is read from now on.
    pub(crate) fn note(&mut self, path: &Path) {
        self.0.push((path.to_owned(), FileVersion::at(path)));
    }

    fn revisions(&self) -> Revisions {
        self.0.iter().map(|(_, revision)| *revision).collect()
    }

    /// The states now.
    fn look(&self) -> Revisions {
        self.0.iter().map(|(path, _)| FileVersion::at(path)).collect()
    }
}

type Revisions = Vec<Option<FileVersion>>;

/// Makes it, and notes what it reads for that.
type Read<T> = Box<dyn Fn(&mut Files) -> anyhow::Result<T>>;

/// Something made of files.
pub(crate) struct Reloaded<T> {
    /// What people call it.
    what: &'static str,
    read: Read<T>,
    current: RefCell<Rc<T>>,
    /// The files that `current` was made of, or last could not be.
    tried: RefCell<Files>,
    /// The files at the last look.
    seen: RefCell<Revisions>,
}

impl<T> Reloaded<T> {
    /// Makes it for the first time.
    pub(crate) fn new(
        what: &'static str,
        read: impl Fn(&mut Files) -> anyhow::Result<T> + 'static,
    ) -> anyhow::Result<Reloaded<T>> {
        let mut files = Files::default();
        let current = RefCell::new(Rc::new(read(&mut files)?));
        let seen = RefCell::new(files.revisions());
        Ok(Reloaded { what, read: Box::new(read), current, tried: RefCell::new(files), seen })
    }

    /// The last good one.
    pub(crate) fn get(&self) -> Rc<T> {
        Rc::clone(&self.current.borrow())
    }
}

/// What can be made anew, whatever it is.
pub(crate) trait Reload {
    /// Makes it anew, whether its files have changed or not.
    fn reload(&self);

    /// Makes it anew if its files have changed and then stayed the same for one look: a certificate and its key are two
    /// files, and are replaced one after the other.
    fn reload_if_changed(&self);
}

impl<T> Reload for Reloaded<T> {
    fn reload(&self) {
        if self.tried.borrow().0.is_empty() {
            return;
        }
        let mut files = Files::default();
        match (self.read)(&mut files) {
            Ok(new) => {
                self.current.replace(Rc::new(new));
                info!("serve: read {} again", self.what);
            }
            Err(err) => {
                let mut lines = Exit::lines(&err);
                if let Some(last) = lines.last_mut() {
                    *last += &format!("; the last good {} stay", self.what);
                }
                lines.iter().for_each(|line| error!("serve: {line}"));
            }
        }
        self.seen.replace(files.revisions());
        self.tried.replace(files);
    }

    fn reload_if_changed(&self) {
        let now = self.tried.borrow().look();
        let settled = *self.seen.borrow() == now;
        if !settled {
            self.seen.replace(now);
        } else if self.tried.borrow().revisions() != now {
            self.reload();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn number_in(path: PathBuf) -> Reloaded<u32> {
        let read = move |files: &mut Files| {
            files.note(&path);
            Ok(fs::read_to_string(&path)?.trim().parse::<u32>()?)
        };
        Reloaded::new("numbers", read).unwrap()
    }

    #[test]
    fn a_change_is_taken_when_it_has_settled_and_a_broken_one_never() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("number");
        fs::write(&path, "1").unwrap();
        let number = number_in(path.clone());
        let look = |expected| {
            number.reload_if_changed();
            assert_eq!(*number.get(), expected);
        };
        look(1);
        fs::write(&path, "22").unwrap();
        look(1);
        look(22);
        fs::write(&path, "nonsense").unwrap();
        look(22);
        look(22);
        fs::remove_file(&path).unwrap();
        look(22);
        look(22);
        fs::write(&path, "3").unwrap();
        look(22);
        look(3);
    }

    #[test]
    fn the_operator_need_not_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("number");
        fs::write(&path, "1").unwrap();
        let number = number_in(path.clone());
        fs::write(&path, "22").unwrap();
        number.reload();
        assert_eq!(*number.get(), 22);
    }

    #[test]
    fn a_file_that_the_others_name_is_watched_as_long_as_they_do() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("list"), "one").unwrap();
        fs::write(at("one"), "1").unwrap();
        let named = {
            let dir = dir.path().to_owned();
            move |files: &mut Files| {
                let list = dir.join("list");
                files.note(&list);
                let named = dir.join(fs::read_to_string(list)?);
                files.note(&named);
                Ok(fs::read_to_string(named)?)
            }
        };
        let number = Reloaded::new("numbers", named).unwrap();
        let look = |expected: &str| {
            number.reload_if_changed();
            number.reload_if_changed();
            assert_eq!(*number.get(), expected);
        };
        fs::write(at("list"), "two").unwrap();
        look("1");
        // It was missing, and has come.
        fs::write(at("two"), "22").unwrap();
        look("22");
        fs::write(at("one"), "111").unwrap();
        look("22");
        fs::write(at("two"), "222").unwrap();
        look("222");
    }
}
