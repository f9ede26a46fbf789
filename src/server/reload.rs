//! A value that is made of files and replaced when they change or the operator asks for it. Files are looked at and read
//! on other threads; the value is replaced on the listener's thread. If the files are broken, the error is reported and
//! the last good value stays. Knows nothing of what the value is.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use anyhow::Result;

use crate::error::Exit;
use crate::log::{error, info};
use crate::os::file_version::FileVersion;
use crate::os::thread;

/// The files that a value is made of, each with its version before it was read; `None` if there was no file.
#[derive(Debug, Default)]
pub(crate) struct WatchedFiles(Vec<(PathBuf, Option<FileVersion>)>);

impl WatchedFiles {
    /// Adds a file that is about to be read.
    pub(crate) fn add(&mut self, path: &Path) {
        self.0.push((path.to_owned(), FileVersion::at(path)));
    }

    fn versions(&self) -> Versions {
        self.0.iter().map(|(_, version)| *version).collect()
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.0.iter().map(|(path, _)| path.clone()).collect()
    }
}

type Versions = Vec<Option<FileVersion>>;

/// Makes the value on the listener's thread, of what was read elsewhere and of the current value, if there is one.
pub(crate) type Make<T> = Box<dyn FnOnce(Option<&T>) -> T + Send>;

/// Reads the files, on any thread, and adds each to the list before.
type Read<T> = dyn Fn(&mut WatchedFiles) -> Result<Make<T>> + Send + Sync;

/// A value made of files.
pub(crate) struct Reloaded<T> {
    /// What people call it, in the plural.
    name: &'static str,
    read: Arc<Read<T>>,
    current: RefCell<Rc<T>>,
    /// The files of the last attempt to read them, good or not.
    files: RefCell<WatchedFiles>,
    /// The versions of these files at the last look.
    last_look: RefCell<Versions>,
}

impl<T: 'static> Reloaded<T> {
    /// Reads the files and makes the first value.
    pub(crate) fn new(
        name: &'static str,
        read: impl Fn(&mut WatchedFiles) -> Result<Make<T>> + Send + Sync + 'static,
    ) -> Result<Reloaded<T>> {
        let mut files = WatchedFiles::default();
        let current = read(&mut files)?(None);
        Ok(Reloaded {
            name,
            read: Arc::new(read),
            current: RefCell::new(Rc::new(current)),
            last_look: RefCell::new(files.versions()),
            files: RefCell::new(files),
        })
    }

    /// The last good value.
    pub(crate) fn get(&self) -> Rc<T> {
        Rc::clone(&self.current.borrow())
    }

    /// Reads the files again, whether they have changed or not.
    pub(crate) async fn reload(&self) {
        if self.files.borrow().0.is_empty() {
            return;
        }
        let read = Arc::clone(&self.read);
        let attempt = thread::run(move || {
            let mut files = WatchedFiles::default();
            (read(&mut files), files)
        });
        let read = match attempt.await {
            Ok((read, files)) => {
                self.last_look.replace(files.versions());
                self.files.replace(files);
                read
            }
            Err(err) => Err(err.into()),
        };
        match read {
            Ok(make) => {
                let new = make(Some(&self.get()));
                self.current.replace(Rc::new(new));
                info!("serve: read {} again", self.name);
            }
            Err(err) => {
                let mut lines = Exit::lines(&err);
                if let Some(last) = lines.last_mut() {
                    *last += &format!("; the last good {} stay", self.name);
                }
                lines.iter().for_each(|line| error!("serve: {line}"));
            }
        }
    }

    /// Reads the files again if they have changed and then stayed the same for one look: a certificate and its key are two
    /// files, and are replaced one after the other.
    pub(crate) async fn reload_if_changed(&self) {
        let paths = self.files.borrow().paths();
        if paths.is_empty() {
            return;
        }
        let look = move || paths.iter().map(|path| FileVersion::at(path)).collect();
        // Without a thread, the next look finds the change.
        let Ok(now) = thread::run(look).await else { return };
        let before = self.last_look.replace(now);
        let has_changed = *self.last_look.borrow() != self.files.borrow().versions();
        let has_settled = *self.last_look.borrow() == before;
        if has_changed && has_settled {
            self.reload().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn run<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn constant<T: Send + 'static>(value: T) -> Make<T> {
        Box::new(|_| value)
    }

    fn number_in(path: PathBuf) -> Reloaded<u32> {
        let read = move |files: &mut WatchedFiles| {
            files.add(&path);
            Ok(constant(fs::read_to_string(&path)?.trim().parse::<u32>()?))
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
            run(number.reload_if_changed());
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
    fn a_reload_on_request_takes_a_change_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("number");
        fs::write(&path, "1").unwrap();
        let number = number_in(path.clone());
        fs::write(&path, "22").unwrap();
        run(number.reload());
        assert_eq!(*number.get(), 22);
    }

    #[test]
    fn a_new_value_is_made_of_the_current_one() {
        let read = |files: &mut WatchedFiles| {
            files.add(Path::new("/"));
            Ok(Box::new(|current: Option<&u32>| current.map_or(0, |it| it + 1)) as Make<u32>)
        };
        let count = Reloaded::new("counts", read).unwrap();
        assert_eq!(*count.get(), 0);
        run(count.reload());
        assert_eq!(*count.get(), 1);
    }

    #[test]
    fn a_panic_while_reading_is_an_error_like_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("number");
        fs::write(&path, "1").unwrap();
        let read = {
            let path = path.clone();
            move |files: &mut WatchedFiles| {
                files.add(&path);
                Ok(constant(fs::read_to_string(&path)?.parse::<u32>().expect("a number")))
            }
        };
        let number = Reloaded::new("numbers", read).unwrap();
        fs::write(&path, "nonsense").unwrap();
        run(number.reload());
        assert_eq!(*number.get(), 1);
        fs::write(&path, "22").unwrap();
        run(number.reload());
        assert_eq!(*number.get(), 22);
    }

    #[test]
    fn a_file_that_another_file_names_is_watched_as_long_as_it_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("list"), "one").unwrap();
        fs::write(at("one"), "1").unwrap();
        let named = {
            let dir = dir.path().to_owned();
            move |files: &mut WatchedFiles| {
                let list = dir.join("list");
                files.add(&list);
                let named = dir.join(fs::read_to_string(list)?);
                files.add(&named);
                Ok(constant(fs::read_to_string(named)?))
            }
        };
        let number = Reloaded::new("numbers", named).unwrap();
        let look = |expected: &str| {
            run(number.reload_if_changed());
            run(number.reload_if_changed());
            assert_eq!(*number.get(), expected);
        };
        fs::write(at("list"), "two").unwrap();
        look("1");
        // It was missing, and is there now.
        fs::write(at("two"), "22").unwrap();
        look("22");
        fs::write(at("one"), "111").unwrap();
        look("22");
        fs::write(at("two"), "222").unwrap();
        look("222");
    }
}
