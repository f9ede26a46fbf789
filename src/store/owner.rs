//! The owner of the files of documents. A file that root makes is given to the owner of its directory at once ([`Dir::give_to_owner`]). This
//! gives away files that root made before the directory belonged to that user.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use super::file::lock_path;
use super::record::record_path;
use crate::os::file::dir::Dir;
use crate::os::file::read::{self, Access};

const ROOT: u32 = 0;

/// How the files of documents and of records begin.
const HEAD: &[u8] = br#"{"appid":"#;

/// As root, gives root's files of the document at this path to the owner of their directory. Does nothing for other users.
pub(super) fn give_files_of(document: &Path) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let files = [document, &lock_path(document), &record_path(document)];
    files.into_iter().try_for_each(|path| match give(path) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        given => given,
    })
}

/// Returns root's files in a directory of documents that [`give`] may give away, in the order of their names.
pub(crate) fn files_of_root_in(dir: &Path) -> Vec<PathBuf> {
    let is_documents = |path: &Path| {
        let end = path.extension().and_then(OsStr::to_str);
        end.is_some_and(|end| ["json", "lock", "state"].contains(&end))
    };
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let of_root = entries.filter(|it| it.metadata().is_ok_and(|it| it.uid() == ROOT));
    let mut files: Vec<_> = of_root.map(|it| it.path()).filter(|it| is_documents(it)).collect();
    files.sort();
    files
}

/// Gives a file of root's to the owner of its directory, if it is one of a document. The owner of the directory could have
/// moved any other file of root's there, to get at what is in it: so it has to begin as documents do, or be an empty lock.
/// Follows no link, and refuses a file with a second name.
pub(crate) fn give(path: &Path) -> io::Result<()> {
    let (dir, name) = Dir::of(path)?;
    let mut file = read::open_own_in(&dir, name, Access::Read)?;
    let mut head = [0; HEAD.len()];
    let length = file.read(&mut head)?;
    let is_lock = length == 0 && path.extension() == Some(OsStr::new("lock"));
    match file.metadata()?.uid() == ROOT && (is_lock || head[..] == *HEAD) {
        true => dir.give_to_owner(&file),
        false => Ok(()),
    }
}
