//! A disk in memory, for simulations: one flat directory for each machine, at `/simulated/NUMBER`. What is written lasts
//! until the power is cut; only what was synced lasts longer. Before each operation the simulation is asked, which may let
//! other processes go on, or end this one: the operations of a process that is being ended do nothing.
//!
//! The rules of crashes are those of ext4 and xfs at their weakest: the content of a file that was not synced is old, new,
//! cut off or zeros; of the names that were created, replaced and removed since the directory was synced, the first so many
//! last; and a file's content and its name do not wait for each other.

use std::cell::{Cell, RefCell};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::Permissions;
use std::io::{self, ErrorKind, SeekFrom};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::rc::Rc;
use std::thread::panicking;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::Stat;
use rustix::io::Errno;

/// Where the directories of all machines are.
pub(crate) const ROOT: &str = "/simulated/";

const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;

thread_local! {
    static MACHINES: RefCell<Vec<Rc<RefCell<Machine>>>> = const { RefCell::new(Vec::new()) };
    static STEP: Cell<Option<fn(Operation)>> = const { Cell::new(None) };
    static TEMPLATE: Stat = rustix::fs::stat("/").unwrap();
}

/// What a process is about to do with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Look,
    Read,
    Lock,
    Create,
    Write,
    Sync,
    SyncDirectory,
    Rename,
    Remove,
    Change,
}

/// The disk of one machine.
#[derive(Default)]
pub(crate) struct Machine {
    /// All names that a file ever had, each at its number. There are few, and they are looked for often.
    known: Vec<OsString>,
    /// The file that each of them leads to now, and after a power cut.
    names: Vec<Option<Rc<RefCell<Inode>>>>,
    durable_names: Vec<Option<Rc<RefCell<Inode>>>>,
    /// What was done to names since the directory was synced.
    pending: Vec<(usize, Option<Rc<RefCell<Inode>>>)>,
    last_ino: u64,
    last_change: i64,
    /// Whether there is no room for more content. A file without any can be created.
    pub(crate) is_full: bool,
}

struct Inode {
    ino: u64,
    content: Content,
    durable: Content,
    mode: u32,
    links: u64,
    modified: (i64, i64),
    changed: i64,
    /// The open file that holds the lock.
    locked_by: Option<u64>,
}

/// What is in a file. Blanks at its end are only counted: with them room is reserved for each document, and most are never read.
#[derive(Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    blanks: usize,
}

/// What is reserved at once.
const BLANKS: &[u8] = &[b' '; 8 * 1024];

impl Content {
    fn len(&self) -> usize {
        self.bytes.len() + self.blanks
    }

    /// Returns all bytes, to be changed.
    fn spelled_out(&mut self) -> &mut Vec<u8> {
        self.bytes.resize(self.bytes.len() + self.blanks, b' ');
        self.blanks = 0;
        &mut self.bytes
    }

    fn resize(&mut self, length: usize) {
        match length.checked_sub(self.bytes.len()) {
            Some(blanks) if blanks <= self.blanks => self.blanks = blanks,
            _ => self.spelled_out().resize(length, 0),
        }
    }

    fn put(&mut self, bytes: &[u8], offset: usize) {
        if offset == self.len() && BLANKS.get(..bytes.len()) == Some(bytes) {
            self.blanks += bytes.len();
        } else if offset == self.bytes.len() && bytes.len() <= self.blanks {
            self.bytes.extend_from_slice(bytes);
            self.blanks -= bytes.len();
        } else {
            let end = offset + bytes.len();
            self.resize(self.len().max(end));
            self.spelled_out()[offset..end].copy_from_slice(bytes);
        }
    }

    /// Copies what is there from `position` on, as far as there is room. Returns how much.
    fn copy_to(&self, buffer: &mut [u8], position: usize) -> usize {
        let length = self.len().saturating_sub(position).min(buffer.len());
        let written = self.bytes.get(position..).unwrap_or_default();
        let written = &written[..written.len().min(length)];
        buffer[..written.len()].copy_from_slice(written);
        buffer[written.len()..length].fill(b' ');
        length
    }
}

/// What is another one after every change of a file: which one it is, or its content.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct InodeVersion {
    ino: u64,
    changed: i64,
    modified: (i64, i64),
}

/// An open directory of a machine.
pub(crate) struct ModelDir(usize, Rc<RefCell<Machine>>);

/// An open file of a machine, or its directory, opened to be synced.
pub(crate) struct ModelFile {
    machine: Rc<RefCell<Machine>>,
    number: usize,
    inode: Option<Rc<RefCell<Inode>>>,
    position: usize,
    /// Tells one open file from another.
    id: u64,
}

/// What is known of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ModelMetadata {
    machine: u64,
    ino: u64,
    mode: u32,
    links: u64,
    length: u64,
    modified: (i64, i64),
    changed: i64,
}

/// What is left of a file whose content was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remains {
    Old,
    New,
    FirstHalf,
    Zeros,
}

/// Replaces all machines of this thread by so many new ones. `step` is called before each operation.
pub(crate) fn install(machines: usize, step: fn(Operation)) {
    MACHINES.with_borrow_mut(|them| {
        *them = (0..machines).map(|_| Rc::default()).collect();
    });
    STEP.set(Some(step));
}

/// Removes all machines of this thread.
pub(crate) fn uninstall() {
    MACHINES.with_borrow_mut(Vec::clear);
    STEP.set(None);
}

/// Returns the disk of a machine.
pub(crate) fn machine(number: usize) -> Rc<RefCell<Machine>> {
    MACHINES.with_borrow(|them| Rc::clone(&them[number]))
}

impl Machine {
    /// Returns how many operations on names are not synced.
    pub(crate) fn pending_names(&self) -> usize {
        self.pending.len()
    }

    /// Cuts the power: of the operations on names that were not synced the first `lasting` last, and `remains` says what is
    /// left of each file that was not.
    pub(crate) fn cut_power(&mut self, lasting: usize, mut remains: impl FnMut() -> Remains) {
        self.pending.truncate(lasting);
        self.sync_names();
        self.names.clone_from(&self.durable_names);
        for (_, inode) in self.files() {
            let inode = &mut *inode.borrow_mut();
            inode.locked_by = None;
            let (content, durable) = (inode.content.spelled_out(), inode.durable.spelled_out());
            if content != durable {
                match remains() {
                    Remains::Old => content.clone_from(durable),
                    Remains::New => {}
                    Remains::FirstHalf => content.truncate(content.len() / 2),
                    Remains::Zeros => content.fill(0),
                }
                durable.clone_from(content);
            }
            inode.links = 1;
        }
        self.last_change += 1;
    }

    /// Returns the content of a file, without asking the simulation.
    pub(crate) fn content(&self, name: &str) -> Option<Vec<u8>> {
        self.find(OsStr::new(name))
            .map(|inode| inode.borrow().content.clone().spelled_out().clone())
    }

    /// Returns the version of the file that has this name.
    pub(crate) fn version_of(&self, name: &str) -> Option<InodeVersion> {
        self.find(OsStr::new(name)).map(|inode| {
            let inode = inode.borrow();
            InodeVersion { ino: inode.ino, changed: inode.changed, modified: inode.modified }
        })
    }

    /// Returns the names of all files, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        let names = self.files().into_iter().map(|(name, _)| name);
        names.map(|name| name.to_string_lossy().into_owned()).collect()
    }

    /// Returns all files, in the order of their names.
    fn files(&self) -> Vec<(&OsStr, &Rc<RefCell<Inode>>)> {
        let named = self.known.iter().zip(&self.names);
        let mut files: Vec<_> =
            named.filter_map(|(name, inode)| Some((&**name, inode.as_ref()?))).collect();
        files.sort_unstable_by_key(|(name, _)| *name);
        files
    }

    fn number_of(&self, name: &OsStr) -> Option<usize> {
        self.known.iter().position(|known| known.as_os_str() == name)
    }

    fn find(&self, name: &OsStr) -> Option<&Rc<RefCell<Inode>>> {
        self.names[self.number_of(name)?].as_ref()
    }

    fn set(&mut self, name: &OsStr, inode: Option<Rc<RefCell<Inode>>>) {
        self.last_change += 1;
        let number = self.number_of(name).unwrap_or_else(|| {
            self.known.push(name.to_owned());
            self.names.push(None);
            self.durable_names.push(None);
            self.names.len() - 1
        });
        if let Some(before) = std::mem::replace(&mut self.names[number], inode.clone()) {
            // After a crash in the middle of a rename it has another name.
            let links = self.names.iter().flatten().filter(|it| Rc::ptr_eq(it, &before)).count();
            let mut before = before.borrow_mut();
            (before.links, before.changed) = (links as u64, self.last_change);
        }
        if let Some(inode) = &inode {
            let mut inode = inode.borrow_mut();
            (inode.links, inode.changed) = (1, self.last_change);
        }
        self.pending.push((number, inode));
    }

    fn sync_names(&mut self) {
        for (number, inode) in self.pending.drain(..) {
            self.durable_names[number] = inode;
        }
    }
}

/// Asks the simulation. Fails if the process is being ended.
fn step(operation: Operation) -> io::Result<()> {
    if panicking() {
        return Err(Errno::IO.into());
    }
    if let Some(step) = STEP.get() {
        step(operation);
    }
    Ok(())
}

/// Returns the directory at `path`, if that is one of a machine.
pub(crate) fn open_dir(path: &Path) -> Option<ModelDir> {
    let number: usize = path.to_str()?.strip_prefix(ROOT)?.parse().ok()?;
    MACHINES.with_borrow(|them| Some(ModelDir(number, Rc::clone(them.get(number)?))))
}

/// Looks at the file at `path`, if that is one of a machine.
pub(crate) fn metadata(path: &Path) -> Option<io::Result<ModelMetadata>> {
    let dir = open_dir(path.parent()?)?;
    Some(dir.metadata(path.file_name()?))
}

impl ModelDir {
    fn find(&self, name: &OsStr) -> io::Result<Rc<RefCell<Inode>>> {
        self.1.borrow().find(name).cloned().ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn metadata(&self, name: &OsStr) -> io::Result<ModelMetadata> {
        step(Operation::Look)?;
        let inode = self.find(name)?;
        Ok(ModelMetadata::of(self.0, &inode.borrow()))
    }

    fn opened(&self, inode: Option<Rc<RefCell<Inode>>>) -> ModelFile {
        thread_local!(static LAST_ID: Cell<u64> = const { Cell::new(0) });
        LAST_ID.set(LAST_ID.get() + 1);
        let (machine, id) = (Rc::clone(&self.1), LAST_ID.get());
        ModelFile { machine, number: self.0, inode, position: 0, id }
    }

    /// Opens a file; creates it if `creates`, and fails if it is there and `is_exclusive`.
    pub(crate) fn open(
        &self,
        name: &OsStr,
        creates: bool,
        is_exclusive: bool,
        mode: u32,
    ) -> io::Result<ModelFile> {
        step(if creates { Operation::Create } else { Operation::Look })?;
        match self.find(name) {
            Ok(_) if is_exclusive => Err(ErrorKind::AlreadyExists.into()),
            Ok(inode) => Ok(self.opened(Some(inode))),
            Err(err) if !creates => Err(err),
            Err(_) => {
                let mut machine = self.1.borrow_mut();
                machine.last_ino += 1;
                let inode = Rc::new(RefCell::new(Inode {
                    ino: machine.last_ino,
                    content: Content::default(),
                    durable: Content::default(),
                    mode: REGULAR | mode,
                    links: 1,
                    modified: (1, 1),
                    changed: 0,
                    locked_by: None,
                }));
                machine.set(name, Some(Rc::clone(&inode)));
                drop(machine);
                Ok(self.opened(Some(inode)))
            }
        }
    }

    pub(crate) fn open_itself(&self) -> io::Result<ModelFile> {
        step(Operation::Look)?;
        Ok(self.opened(None))
    }

    pub(crate) fn stat(&self, name: &OsStr) -> io::Result<Stat> {
        self.metadata(name).map(|found| found.stat())
    }

    pub(crate) fn stat_itself(&self) -> Stat {
        ModelMetadata::of_directory(self.0).stat()
    }

    pub(crate) fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        step(Operation::Rename)?;
        let inode = self.find(from)?;
        let mut machine = self.1.borrow_mut();
        // For readers both names change at once. After a power cut the file may have both, as on a file system without a
        // journal, but never neither.
        if let Some(number) = machine.number_of(from) {
            machine.names[number] = None;
            machine.set(to, Some(inode));
            machine.pending.push((number, None));
        }
        Ok(())
    }

    pub(crate) fn remove(&self, name: &OsStr) -> io::Result<()> {
        step(Operation::Remove)?;
        self.find(name)?;
        self.1.borrow_mut().set(name, None);
        Ok(())
    }
}

impl fmt::Debug for ModelFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModelFile({})", self.id)
    }
}

impl ModelFile {
    fn inode(&self) -> io::Result<&RefCell<Inode>> {
        self.inode.as_deref().ok_or_else(|| ErrorKind::IsADirectory.into())
    }

    pub(crate) fn metadata(&self) -> io::Result<ModelMetadata> {
        step(Operation::Look)?;
        Ok(match &self.inode {
            Some(inode) => ModelMetadata::of(self.number, &inode.borrow()),
            None => ModelMetadata::of_directory(self.number),
        })
    }

    pub(crate) fn set_permissions(&self, permissions: Permissions) -> io::Result<()> {
        step(Operation::Change)?;
        let mut machine = self.machine.borrow_mut();
        let mut inode = self.inode()?.borrow_mut();
        inode.mode = REGULAR | permissions.mode() & 0o7777;
        machine.last_change += 1;
        inode.changed = machine.last_change;
        Ok(())
    }

    pub(crate) fn set_len(&self, length: u64) -> io::Result<()> {
        step(Operation::Write)?;
        let mut machine = self.machine.borrow_mut();
        let mut inode = self.inode()?.borrow_mut();
        inode.content.resize(length as usize);
        machine.last_change += 1;
        inode.changed = machine.last_change;
        Ok(())
    }

    pub(crate) fn set_modified(&self, at: SystemTime) -> io::Result<()> {
        step(Operation::Change)?;
        let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.machine.borrow_mut().last_change += 1;
        self.inode()?.borrow_mut().modified = (at.as_secs() as i64, at.subsec_nanos().into());
        Ok(())
    }

    pub(crate) fn sync_all(&self) -> io::Result<()> {
        let Some(inode) = &self.inode else {
            step(Operation::SyncDirectory)?;
            self.machine.borrow_mut().sync_names();
            return Ok(());
        };
        step(Operation::Sync)?;
        let inode = &mut *inode.borrow_mut();
        inode.durable.bytes.clone_from(&inode.content.bytes);
        inode.durable.blanks = inode.content.blanks;
        Ok(())
    }

    pub(crate) fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.put(bytes, offset as usize)
    }

    fn put(&self, bytes: &[u8], offset: usize) -> io::Result<()> {
        step(Operation::Write)?;
        let mut machine = self.machine.borrow_mut();
        let mut inode = self.inode()?.borrow_mut();
        if machine.is_full && offset + bytes.len() > inode.content.len() {
            return Err(Errno::NOSPC.into());
        }
        inode.content.put(bytes, offset);
        machine.last_change += 1;
        (inode.changed, inode.modified) = (machine.last_change, (1, machine.last_change));
        Ok(())
    }

    pub(crate) fn try_lock_exclusive(&self) -> io::Result<()> {
        step(Operation::Lock)?;
        let mut inode = self.inode()?.borrow_mut();
        match inode.locked_by {
            Some(id) if id != self.id => Err(ErrorKind::WouldBlock.into()),
            _ => {
                inode.locked_by = Some(self.id);
                Ok(())
            }
        }
    }

    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        step(Operation::Read)?;
        let inode = self.inode()?.borrow();
        let length = inode.content.copy_to(buffer, self.position);
        drop(inode);
        self.position += length;
        Ok(length)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(bytes, self.position)?;
        self.position += bytes.len();
        Ok(bytes.len())
    }

    pub(crate) fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let SeekFrom::Start(position) = to else { return Err(ErrorKind::Unsupported.into()) };
        self.position = position as usize;
        Ok(position)
    }

    /// Only for calls that are not made on the files of a simulation.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        rustix::fs::CWD
    }
}

impl Drop for ModelFile {
    /// Also in a process that is being ended.
    fn drop(&mut self) {
        if let Some(inode) = &self.inode {
            let mut inode = inode.borrow_mut();
            inode.locked_by = inode.locked_by.filter(|id| *id != self.id);
        }
    }
}

impl ModelMetadata {
    fn of(machine: usize, inode: &Inode) -> ModelMetadata {
        ModelMetadata {
            machine: machine as u64,
            ino: inode.ino,
            mode: inode.mode,
            links: inode.links,
            length: inode.content.len() as u64,
            modified: inode.modified,
            changed: inode.changed,
        }
    }

    fn of_directory(machine: usize) -> ModelMetadata {
        let (ino, modified) = (0, (0, 0));
        let mode = DIRECTORY | 0o700;
        let machine = machine as u64;
        ModelMetadata { machine, ino, mode, links: 2, length: 0, modified, changed: 0 }
    }

    fn stat(&self) -> Stat {
        let mut stat = TEMPLATE.with(|template| *template);
        (stat.st_dev, stat.st_ino, stat.st_mode) = (self.dev(), self.ino, self.mode);
        stat.st_uid = self.uid();
        stat
    }

    pub(crate) fn dev(&self) -> u64 {
        u64::MAX - self.machine
    }

    pub(crate) fn ino(&self) -> u64 {
        self.ino
    }

    pub(crate) fn uid(&self) -> u32 {
        thread_local!(static USER: u32 = rustix::process::geteuid().as_raw());
        USER.with(|user| *user)
    }

    pub(crate) fn mode(&self) -> u32 {
        self.mode
    }

    pub(crate) fn nlink(&self) -> u64 {
        self.links
    }

    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    pub(crate) fn blocks(&self) -> u64 {
        self.length.div_ceil(4096) * 8
    }

    pub(crate) fn is_file(&self) -> bool {
        self.mode & REGULAR != 0
    }

    pub(crate) fn is_dir(&self) -> bool {
        !self.is_file()
    }

    pub(crate) fn mtime(&self) -> i64 {
        self.modified.0
    }

    pub(crate) fn mtime_nsec(&self) -> i64 {
        self.modified.1
    }

    pub(crate) fn ctime(&self) -> i64 {
        self.changed
    }

    pub(crate) fn ctime_nsec(&self) -> i64 {
        0
    }
}
