//! What is made of files, and made anew when they change or when the operator says so: a broken one is reported, and
//! the last good one stays. Knows nothing of what it is.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;

use crate::report::{error, info};
use crate::revision::Revision;

/// What the revisions of some files were; `None` where there was no file.
type Revisions = Vec<Option<Revision>>;

/// Something made of files.
pub(crate) struct Reloaded<T> {
    /// What people call it.
    what: &'static str,
    files: Vec<PathBuf>,
    read: Box<dyn Fn() -> anyhow::Result<T>>,
    current: RefCell<Rc<T>>,
    /// The files that `current` was made of, or last could not be.
    tried: RefCell<Revisions>,
    /// The files at the last look.
    seen: RefCell<Revisions>,
}

impl<T> Reloaded<T> {
    /// Makes it for the first time; `files` are those which `read` reads.
    pub(crate) fn new(
        what: &'static str,
        files: Vec<PathBuf>,
        read: impl Fn() -> anyhow::Result<T> + 'static,
    ) -> anyhow::Result<Reloaded<T>> {
        let revisions = revisions(&files);
        let current = RefCell::new(Rc::new(read()?));
        let tried = RefCell::new(revisions.clone());
        Ok(Reloaded {
            what,
            files,
            read: Box::new(read),
            current,
            tried,
            seen: RefCell::new(revisions),
        })
    }

    /// The last good one.
    pub(super) fn get(&self) -> Rc<T> {
        Rc::clone(&self.current.borrow())
    }
}

/// What can be made anew, whatever it is.
pub(super) trait Reload {
    /// Makes it anew, whether its files have changed or not.
    fn reload(&self);

    /// Makes it anew if its files have changed and then stayed the same for one look: a certificate and its key are two
    /// files, and are replaced one after the other.
    fn reload_if_changed(&self);
}

impl<T> Reload for Reloaded<T> {
    fn reload(&self) {
        if self.files.is_empty() {
            return;
        }
        let revisions = revisions(&self.files);
        self.seen.replace(revisions.clone());
        self.tried.replace(revisions);
        match (self.read)() {
            Ok(new) => {
                self.current.replace(Rc::new(new));
                info!("serve: read {} again", self.what);
            }
            Err(err) => error!("serve: {err:#}; the last good {} stay", self.what),
        }
    }

    fn reload_if_changed(&self) {
        let now = revisions(&self.files);
        let settled = *self.seen.borrow() == now;
        if !settled {
            self.seen.replace(now);
        } else if *self.tried.borrow() != now {
            self.reload();
        }
    }
}

fn revisions(files: &[PathBuf]) -> Revisions {
    files.iter().map(|path| fs::metadata(path).ok().as_ref().map(Revision::of)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number_in(path: PathBuf) -> Reloaded<u32> {
        let read = {
            let path = path.clone();
            move || Ok(fs::read_to_string(&path)?.trim().parse::<u32>()?)
        };
        Reloaded::new("numbers", vec![path], read).unwrap()
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
}
