//! Reads documents that are published in files, once or again and again. Takes no lock and writes nothing: a file is
//! whole at every instant.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Found, NO_DOCUMENT, Watch};
use crate::language::{bilingual, in_both};
use crate::message::cannot;
use crate::message::command::command;
use crate::model::document::{Document, MAX_DOCUMENT};
use crate::model::kind::DocumentKind;
use crate::os::file::disk;
use crate::os::file::read::{Protection, ReadError, RegularFile};
use crate::os::file::version::FileVersion;
use crate::sabotage::{Bug, has_bug};

/// Reads the document that is published at `path`.
pub(super) fn read(path: &Path, kind: &DocumentKind) -> Result<Found> {
    read_opened(RegularFile::open(path, PROTECTION), path, kind).map(|(found, _)| found)
}

/// Another user may not have put the file there.
const PROTECTION: Protection = Protection::NotPlanted;

/// Reads the document at `path`, from what opening it has returned. Also returns the version of the file that was read, or
/// `None` if there is no file.
fn read_opened(
    opened: Result<RegularFile, ReadError>,
    path: &Path,
    kind: &DocumentKind,
) -> Result<(Found, Option<FileVersion>)> {
    let reading = || cannot("read", "读取", path.display());
    let damaged = |what: &dyn Display| {
        Found::Damaged(NO_DOCUMENT.with([&path.display(), what, &command("fetch", None, &[])]))
    };
    let file = match opened {
        Ok(file) => file,
        Err(err) if err.is_not_found() => return Ok((Found::Nothing, None)),
        Err(err @ (ReadError::Planted { .. } | ReadError::Stale)) => {
            return Ok((Found::Damaged(unusable(path, &err)), None));
        }
        Err(err) => return Err(err).with_context(reading),
    };
    let version = file.version();
    let found = match file.read(MAX_DOCUMENT as u64) {
        Ok(bytes) => {
            let document = Document::parse(kind, &bytes);
            let written = document.map(|document| document.written_at(version.modified_at()));
            written.map_or_else(|what| damaged(&what), Found::Document)
        }
        Err(ReadError::TooLarge(_)) => damaged(&bilingual!("it is too long", "过长")),
        Err(err) => return Err(err).with_context(reading),
    };
    Ok((found, Some(version)))
}

/// Describes a file that is not read, whatever is in it.
fn unusable(path: &Path, err: &ReadError) -> String {
    let path = path.display();
    format!("{}: {err}", in_both(format!("{path} is not used"), format!("未使用 {path}")))
}

/// A reader that reads the file only when it has been replaced.
pub(super) struct FileWatch {
    path: PathBuf,
    kind: DocumentKind,
    version: Option<FileVersion>,
    document: Option<Document>,
    trouble: Option<String>,
    /// How opening it was refused at the last look, if it was. `trouble` explains that.
    refusal: Option<(io::ErrorKind, Option<i32>)>,
}

impl FileWatch {
    /// Returns a reader of the file at `path`, which has not looked yet.
    pub(super) fn new(path: &Path, kind: &DocumentKind) -> FileWatch {
        FileWatch {
            path: path.to_owned(),
            kind: kind.clone(),
            version: None,
            document: None,
            trouble: None,
            refusal: None,
        }
    }
}

impl Watch for FileWatch {
    /// Costs one `stat` while the file stays as it is. A document whose file is removed is gone: it was withdrawn.
    fn look(&mut self) -> bool {
        match disk::metadata(&self.path) {
            Ok(metadata) if self.version == Some(FileVersion::from_metadata(&metadata)) => false,
            Ok(_) if self.version.is_some() && has_bug(Bug::ReplacedFileMissed) => false,
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                (self.version, self.trouble, self.refusal) = (None, None, None);
                self.document.take().is_some()
            }
            // An error of `stat` occurs again when the file is opened, where it is explained.
            _ => self.read(),
        }
    }

    fn document(&self) -> Option<&Document> {
        self.document.as_ref()
    }

    fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }
}

impl FileWatch {
    /// Reads the file. Returns whether the document is another one, or can be read again.
    fn read(&mut self) -> bool {
        let opened = RegularFile::open_unexplained(&self.path, PROTECTION);
        let refusal = match &opened {
            Err(ReadError::Io(err)) => Some((err.kind(), err.raw_os_error())),
            _ => None,
        };
        // Explained once: that may read a lot, and `serve` looks in its event loop.
        if refusal.is_some() && refusal == self.refusal {
            return false;
        }
        self.refusal = refusal;
        let opened = opened.map_err(|err| err.explained(&self.path));
        if let Err(err @ ReadError::Stale) = &opened {
            // Its token was replaced, and may be dead.
            (self.version, self.trouble) = (None, Some(unusable(&self.path, err)));
            return self.document.take().is_some();
        }
        match read_opened(opened, &self.path, &self.kind) {
            Ok((Found::Damaged(damage), version)) => {
                (self.version, self.trouble) = (version, Some(damage));
                false
            }
            Ok((found, version)) => {
                (self.version, self.trouble) = (version, None);
                self.document = match found {
                    Found::Document(document) => Some(document),
                    _ => None,
                };
                true
            }
            Err(err) => {
                (self.version, self.trouble) = (None, Some(format!("{err:#}")));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn put(path: &Path, token: &str) {
        let text = format!(
            r#"{{"appid":"wx1","access_token":"{token}","expires_in":7200,"created_at":"2026-11-22T05:34:46Z"}}"#
        );
        let new = path.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, path).unwrap();
    }

    fn token(watch: &FileWatch) -> Option<&str> {
        watch.document().map(|document| document.token.expose())
    }

    #[test]
    fn a_file_without_a_document_is_damaged_and_a_directory_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shop.json");
        for damage in ["", "{}", &" ".repeat(MAX_DOCUMENT + 1)] {
            fs::write(&path, damage).unwrap();
            assert!(matches!(read(&path, &DocumentKind::Token).unwrap(), Found::Damaged(_)));
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(read(&path, &DocumentKind::Token).unwrap(), Found::Nothing));
        fs::create_dir(&path).unwrap();
        assert!(read(&path, &DocumentKind::Token).is_err());
    }

    #[test]
    fn a_document_is_read_again_when_it_is_replaced_and_only_then() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shop.json");
        let mut watch = FileWatch::new(&path, &DocumentKind::Token);
        assert!(!watch.look() && watch.document().is_none());
        put(&path, "T1");
        assert!(watch.look());
        assert!(!watch.look());
        assert_eq!(token(&watch), Some("T1"));
        put(&path, "T2");
        assert!(watch.look());
        assert_eq!(token(&watch), Some("T2"));
    }

    #[test]
    fn a_refusal_is_explained_once_for_as_long_as_it_stays_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shop.json");
        let mut watch = FileWatch::new(&path, &DocumentKind::Token);
        let circle = || std::os::unix::fs::symlink(&path, &path).unwrap();
        circle();
        assert!(!watch.look());
        let explained = watch.trouble().unwrap().as_ptr();
        assert!(!watch.look());
        assert_eq!(watch.trouble().unwrap().as_ptr(), explained, "the same text, not made again");
        fs::remove_file(&path).unwrap();
        assert!(!watch.look() && watch.trouble().is_none());
        circle();
        assert!(!watch.look() && watch.trouble().unwrap().contains("in a circle"));
        put(&path, "T1");
        assert!(watch.look() && watch.trouble().is_none());
    }

    #[test]
    fn damage_is_trouble_and_costs_no_good_token_but_removal_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shop.json");
        let mut watch = FileWatch::new(&path, &DocumentKind::Token);
        put(&path, "T1");
        assert!(watch.look() && watch.trouble().is_none());
        fs::write(&path, r#"{"access_token":"T2"#).unwrap();
        for _ in 0..2 {
            assert!(!watch.look() && watch.trouble().unwrap().contains("is no document"));
            assert_eq!(token(&watch), Some("T1"));
        }
        put(&path, "T1");
        assert!(watch.look() && watch.trouble().is_none(), "it can be read again");
        fs::remove_file(&path).unwrap();
        assert!(watch.look() && watch.trouble().is_none());
        assert_eq!(token(&watch), None);
    }
}
