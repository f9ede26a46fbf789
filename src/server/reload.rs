//! A value that is made of files and replaced when they change or the operator asks for it. Files are looked at and read
//! on other threads; the value is replaced on the listener's thread. If the files are broken, the error is reported and
//! the last good value stays. Knows nothing of what the value is.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Error, Result, anyhow};

use crate::error::Exit;
use crate::log::{OnceUntilChanged, error, info};
use crate::message::{messages, notes};
use crate::os::file::version::FileVersion;
use crate::os::thread::StandingThread;

messages! {
    NO_ANSWER<1> {
        "See what holds up the disk or mount of its files.", "the {0} have not been looked at for a minute: a read does not end";
        "请检查其文件所在的磁盘或挂载。", "{0}已有一分钟无法检查：读取文件未返回";
    }
}

notes! {
    READ_AGAIN<1> = "read {0} again", "已重新读取{0}";
    /// Behind an error.
    LAST_GOOD_STAY<2> = "{0}; the last good {1} stay", "{0}；继续使用此前的{1}";
}

/// The files that a value is made from, each with its version before it was read; `None` if the file was missing.
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

/// Makes the value on the listener's thread, from what was read on another thread and from the current value, if there is one.
pub(crate) type Make<T> = Box<dyn FnOnce(Option<&T>) -> T + Send>;

/// Reads the files, on any thread, and adds each to the list before it is read.
type Read<T> = dyn Fn(&mut WatchedFiles) -> Result<Make<T>> + Send + Sync;

/// How many checks in a row may find a file still changing. Then it is read anyway: a file that is rewritten all the time must not keep a
/// withdrawn key alive.
const MAX_UNSETTLED_CHECKS: u32 = 5;

/// How many checks in a row may find that a read has not ended, before the log says so.
const MAX_HELD_UP_CHECKS: u32 = 60;

/// A value that is made from files.
pub(crate) struct Reloaded<T> {
    /// Its name in messages, in the plural.
    name: &'static str,
    read: Arc<Read<T>>,
    current: RefCell<Rc<T>>,
    /// The files of the last attempt to read them, whether it succeeded or not.
    files: RefCell<WatchedFiles>,
    /// The versions of these files at the last check.
    last_check: RefCell<Versions>,
    /// How many checks in a row have found a change that had not settled.
    unsettled_checks: Cell<u32>,
    /// The attempt to check or read the files that is under way.
    under_way: Cell<Option<u64>>,
    /// How many attempts there were.
    attempts: Cell<u64>,
    /// How many checks in a row have found that the last attempt has not ended.
    held_up_checks: Cell<u32>,
    /// The thread on which files are looked at.
    thread: StandingThread,
    /// Why files cannot be looked at now.
    hindrance: RefCell<OnceUntilChanged>,
    /// Whether the files could not be read the last time.
    is_broken: Cell<bool>,
}

/// An attempt to check or read the files. It counts until another one begins: an attempt that hangs, on a dead mount, holds up no later one.
struct ReadAttempt<'a, T> {
    number: u64,
    of: &'a Reloaded<T>,
}

impl<T> ReadAttempt<'_, T> {
    fn counts(&self) -> bool {
        self.of.under_way.get() == Some(self.number)
    }
}

impl<T> Drop for ReadAttempt<'_, T> {
    fn drop(&mut self) {
        if self.counts() {
            self.of.under_way.take();
        }
    }
}

/// The first value, read on any thread.
pub(crate) struct FirstRead<T> {
    name: &'static str,
    read: Arc<Read<T>>,
    files: WatchedFiles,
    make: Make<T>,
}

impl<T: 'static> FirstRead<T> {
    /// Reads the files. `name` is the value's name in messages, in the plural.
    pub(crate) fn new(
        name: &'static str,
        read: impl Fn(&mut WatchedFiles) -> Result<Make<T>> + Send + Sync + 'static,
    ) -> Result<FirstRead<T>> {
        let mut files = WatchedFiles::default();
        let make = read(&mut files)?;
        Ok(FirstRead::of(name, files, make, read))
    }

    /// Returns what was read from `files`, which `read` reads again later.
    pub(crate) fn of(
        name: &'static str,
        files: WatchedFiles,
        make: Make<T>,
        read: impl Fn(&mut WatchedFiles) -> Result<Make<T>> + Send + Sync + 'static,
    ) -> FirstRead<T> {
        FirstRead { name, read: Arc::new(read), files, make }
    }
}

impl<T: 'static> From<FirstRead<T>> for Reloaded<T> {
    fn from(first: FirstRead<T>) -> Reloaded<T> {
        let FirstRead { name, read, files, make } = first;
        Reloaded {
            name,
            read,
            current: RefCell::new(Rc::new(make(None))),
            last_check: RefCell::new(files.versions()),
            files: RefCell::new(files),
            unsettled_checks: Cell::default(),
            under_way: Cell::default(),
            attempts: Cell::default(),
            held_up_checks: Cell::default(),
            thread: StandingThread::default(),
            hindrance: RefCell::default(),
            is_broken: Cell::default(),
        }
    }
}

impl<T: 'static> Reloaded<T> {
    /// Reads the files and makes the first value.
    pub(crate) fn new(
        name: &'static str,
        read: impl Fn(&mut WatchedFiles) -> Result<Make<T>> + Send + Sync + 'static,
    ) -> Result<Reloaded<T>> {
        FirstRead::new(name, read).map(Reloaded::from)
    }

    /// Returns the last good value.
    pub(crate) fn get(&self) -> Rc<T> {
        Rc::clone(&self.current.borrow())
    }

    /// Whether the files can be looked at, and the value is what they held the last time. If not, a line on stderr has said why.
    fn is_current(&self) -> bool {
        !self.is_broken.get() && self.hindrance.borrow().last().is_none()
    }

    /// Reloads the value if its files have changed, or if a reload is requested. Returns whether the value is current.
    pub(crate) async fn update(&self, is_requested: bool) -> bool {
        match is_requested {
            true => self.reload().await,
            false => self.reload_if_changed().await,
        }
        self.is_current()
    }

    /// Reads the files again, even if they have not changed, and even if an earlier read has not ended.
    pub(crate) async fn reload(&self) {
        self.hindrance.borrow_mut().reset();
        self.read_again(self.attempt()).await;
    }

    fn attempt(&self) -> ReadAttempt<'_, T> {
        let number = self.attempts.get() + 1;
        self.attempts.set(number);
        self.held_up_checks.set(0);
        self.under_way.set(Some(number));
        ReadAttempt { number, of: self }
    }

    /// Reads the files again if they have changed and then stayed the same for one check: a certificate and its key are
    /// two files, and are replaced one after the other. Does nothing while they are being read.
    pub(crate) async fn reload_if_changed(&self) {
        let paths = self.files.borrow().paths();
        if paths.is_empty() {
            return;
        }
        if self.under_way.get().is_some() {
            self.held_up_checks.set(self.held_up_checks.get() + 1);
            if self.held_up_checks.get() >= MAX_HELD_UP_CHECKS {
                self.hindered(&anyhow!(NO_ANSWER.with([&self.name])));
            }
            return;
        }
        let attempt = self.attempt();
        let check = move || paths.iter().map(|path| FileVersion::at(path)).collect();
        let now = self.thread.run(check).await;
        if !attempt.counts() {
            return;
        }
        let now = match now {
            Ok(now) => now,
            // The next check finds the change.
            Err(err) => return self.hindered(&err.into()),
        };
        self.hindrance.borrow_mut().reset();
        let before = self.last_check.replace(now);
        if *self.last_check.borrow() == self.files.borrow().versions() {
            self.unsettled_checks.set(0);
            return;
        }
        self.unsettled_checks.set(self.unsettled_checks.get() + 1);
        let has_settled = *self.last_check.borrow() == before;
        if has_settled || self.unsettled_checks.get() >= MAX_UNSETTLED_CHECKS {
            self.read_again(attempt).await;
        }
    }

    async fn read_again(&self, attempt: ReadAttempt<'_, T>) {
        if self.files.borrow().0.is_empty() {
            return;
        }
        self.unsettled_checks.set(0);
        let read = Arc::clone(&self.read);
        let read = self.thread.run(move || {
            let mut files = WatchedFiles::default();
            (read(&mut files), files)
        });
        let read = read.await;
        if !attempt.counts() {
            return;
        }
        let read = match read {
            Ok((read, files)) => {
                self.last_check.replace(files.versions());
                self.files.replace(files);
                self.hindrance.borrow_mut().reset();
                read
            }
            // The files are read at the next check.
            Err(err) => return self.hindered(&err.into()),
        };
        self.is_broken.set(read.is_err());
        match read {
            Ok(make) => {
                let new = make(Some(&self.get()));
                self.current.replace(Rc::new(new));
                info!(event = "reloaded"; "serve: {}", READ_AGAIN.with([&self.name]));
            }
            Err(err) => self.report(&err),
        }
    }

    /// Reports why files cannot be looked at: once while that lasts, and again for each reload that is requested.
    fn hindered(&self, err: &Error) {
        if self.hindrance.borrow_mut().is_new(&err.to_string()) {
            self.report(err);
        }
    }

    fn report(&self, err: &Error) {
        let mut lines = Exit::lines(err);
        if let Some(last) = lines.last_mut() {
            *last = LAST_GOOD_STAY.with([last, &self.name]);
        }
        lines.iter().for_each(|line| error!(event = "reload_failed"; "serve: {line}"));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().unwrap()
    }

    fn run<F: Future>(future: F) -> F::Output {
        runtime().block_on(future)
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
    fn a_file_that_changes_all_the_time_is_read_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("number");
        fs::write(&path, "1").unwrap();
        let number = number_in(path.clone());
        let mut text = "1".to_owned();
        for _ in 0..MAX_UNSETTLED_CHECKS {
            assert_eq!(*number.get(), 1);
            text.insert(0, '0'); // Another size.
            fs::write(&path, text.replace('1', "2")).unwrap();
            run(number.reload_if_changed());
        }
        assert_eq!(*number.get(), 2);
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
    fn a_read_that_hangs_holds_up_no_later_one_and_counts_no_more() {
        let (let_go, hangs) = std::sync::mpsc::channel::<u32>();
        let (begun, has_begun) = std::sync::mpsc::channel();
        let hanging = std::sync::Mutex::new(Some(hangs));
        let files = WatchedFiles(vec![(PathBuf::from("/"), FileVersion::at(Path::new("/")))]);
        let read = move |files: &mut WatchedFiles| {
            files.add(Path::new("/"));
            let Some(hangs) = hanging.lock().unwrap().take() else { return Ok(constant(3)) };
            begun.send(()).unwrap();
            Ok(constant(hangs.recv().unwrap()))
        };
        let number = Reloaded::from(FirstRead::of("numbers", files, constant(1), read));
        let number = Rc::new(number);
        tokio::task::LocalSet::new().block_on(&runtime(), async {
            let hanging = Rc::clone(&number);
            let hung = tokio::task::spawn_local(async move { hanging.reload().await });
            while number.under_way.get().is_none() {
                tokio::task::yield_now().await;
            }
            // Or else the later one might be the one that hangs.
            has_begun.recv().unwrap();
            number.reload_if_changed().await;
            assert_eq!(number.attempts.get(), 1, "nothing is checked while files are being read");
            number.reload().await;
            assert_eq!(*number.get(), 3, "a later read counts");
            let_go.send(2).unwrap();
            hung.await.unwrap();
        });
        assert_eq!(*number.get(), 3, "the earlier one counts no more");
        assert_eq!(number.under_way.get(), None);
    }

    #[test]
    fn a_read_that_does_not_end_is_told_once_after_a_minute_of_checks_until_one_ends() {
        let (let_go, hangs) = std::sync::mpsc::channel::<u32>();
        let hanging = std::sync::Mutex::new(hangs);
        let files = WatchedFiles(vec![(PathBuf::from("/"), FileVersion::at(Path::new("/")))]);
        let read = move |files: &mut WatchedFiles| {
            files.add(Path::new("/"));
            Ok(constant(hanging.lock().unwrap().recv().unwrap()))
        };
        let number = Reloaded::from(FirstRead::of("numbers", files, constant(1), read));
        let number = Rc::new(number);
        let told = || number.hindrance.borrow().last().map(str::to_owned);
        tokio::task::LocalSet::new().block_on(&runtime(), async {
            let hanging = Rc::clone(&number);
            let hung = tokio::task::spawn_local(async move { hanging.reload().await });
            while number.under_way.get().is_none() {
                tokio::task::yield_now().await;
            }
            for _ in 1..MAX_HELD_UP_CHECKS {
                assert!(number.update(false).await, "not yet");
            }
            assert_eq!(told(), None);
            for _ in 0..2 {
                assert!(!number.update(false).await, "the value may be an old one");
                assert_eq!(told(), Some(NO_ANSWER.with([&"numbers"])));
            }
            let_go.send(2).unwrap();
            hung.await.unwrap();
        });
        assert_eq!((*number.get(), told()), (2, None));
        assert!(run(number.update(false)) && number.held_up_checks.get() == 0);
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
