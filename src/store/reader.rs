//! Reads published documents, once or again and again. Takes no lock and writes nothing: the file is whole at every
//! instant.

use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use super::{Found, Watch};
use crate::model::document::{Document, MAX_DOCUMENT};
use crate::model::kind::DocumentKind;
use crate::os::file_version::FileVersion;
use crate::os::read::{Protection, ReadError, RegularFile};

/// What is published at `path`.
pub(super) fn read(path: &Path, kind: &DocumentKind) -> Result<Found> {
    read_revision(path, kind).map(|(found, _)| found)
}

/// Reads the document at `path`, and which revision of the file that was; none where there is no file.
fn read_revision(path: &Path, kind: &DocumentKind) -> Result<(Found, Option<FileVersion>)> {
    let reading = || format!("cannot read {}", path.display());
    let file = match RegularFile::open(path, Protection::Any) {
        Ok(file) => file,
        Err(err) if err.is_not_found() => return Ok((Found::Nothing, None)),
        Err(err) => return Err(err).with_context(reading),
    };
    let version = file.version();
    let damaged = |what: &dyn Display| {
        Found::Damaged(format!(
            "{} is no document: {what}; wxtoken fetch replaces it",
            path.display()
        ))
    };
    let found = match file.read(MAX_DOCUMENT as u64) {
        Ok(bytes) => {
            Document::parse(kind, &bytes).map_or_else(|what| damaged(&what), Found::Document)
        }
        Err(ReadError::TooLarge(_)) => damaged(&"it is too long"),
        Err(err) => return Err(err).with_context(reading),
    };
    Ok((found, Some(version)))
}

/// A reader that looks at the file each time and reads it only when it has been replaced.
pub(super) struct Watched {
    path: PathBuf,
    kind: DocumentKind,
    revision: Option<FileVersion>,
    document: Option<Document>,
}

impl Watched {
    pub(super) fn new(path: &Path, kind: &DocumentKind) -> Watched {
        Watched { path: path.to_owned(), kind: kind.clone(), revision: None, document: None }
    }
}

impl Watch for Watched {
    /// The price of a look is one `stat`. An `Err` is told at the look that found the file to be no document, or at every
    /// look as long as it cannot be read. When the file is gone, so is the document: somebody withdrew it.
    fn look(&mut self) -> Result<bool> {
        match fs::metadata(&self.path) {
            Ok(metadata) if self.revision == Some(FileVersion::from_metadata(&metadata)) => {
                Ok(false)
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                self.revision = None;
                Ok(self.document.take().is_some())
            }
            // `read_revision` finds the same trouble, and words it.
            _ => {
                let (found, revision) = read_revision(&self.path, &self.kind)?;
                self.revision = revision;
                match found {
                    Found::Document(document) => self.document = Some(document),
                    Found::Nothing => self.document = None,
                    Found::Damaged(damage) => return Err(anyhow!(damage)),
                }
                Ok(true)
            }
        }
    }

    fn document(&self) -> Option<&Document> {
        self.document.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(path: &Path, token: &str) {
        let text = format!(
            r#"{{"appid":"wx1","access_token":"{token}","expires_in":7200,"created_at":"2026-11-22T05:34:46Z"}}"#
        );
        let new = path.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, path).unwrap();
    }

    fn token(watched: &Watched) -> Option<&str> {
        watched.document().map(|document| document.token.expose())
    }

    #[test]
    fn what_is_no_document_is_damaged_not_missing() {
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
    fn a_watched_document_is_read_again_when_it_is_replaced_and_only_then() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shop.json");
        let mut watched = Watched::new(&path, &DocumentKind::Token);
        assert!(!watched.look().unwrap() && watched.document().is_none());
        put(&path, "T1");
        assert!(watched.look().unwrap());
        assert!(!watched.look().unwrap());
        assert_eq!(token(&watched), Some("T1"));
        put(&path, "T2");
        assert!(watched.look().unwrap());
        assert_eq!(token(&watched), Some("T2"));
    }

    #[test]
    fn damage_is_reported_once_and_costs_no_good_token_but_removal_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shop.json");
        let mut watched = Watched::new(&path, &DocumentKind::Token);
        put(&path, "T1");
        watched.look().unwrap();
        fs::write(&path, r#"{"access_token":"T2"#).unwrap();
        assert!(watched.look().is_err());
        assert!(!watched.look().unwrap(), "said once");
        assert_eq!(token(&watched), Some("T1"));
        fs::remove_file(&path).unwrap();
        assert!(watched.look().unwrap());
        assert_eq!(token(&watched), None);
    }
}
