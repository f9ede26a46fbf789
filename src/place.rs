//! Where an account's documents are, as config says it and people read it. Opens nothing: that is the store's.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::token::{Kind, TicketType};

/// Where an account's documents are. Which store that is matters to nobody but the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// The token in this file, and each ticket in one beside it.
    File(PathBuf),
}

impl Place {
    /// The file of this kind.
    pub(crate) fn path(&self, kind: &Kind) -> PathBuf {
        let Place::File(path) = self;
        match kind {
            Kind::Token => path.clone(),
            Kind::Ticket(kind) => beside(path, kind),
        }
    }

    /// Where the document of this kind is, for people.
    pub(crate) fn name_of(&self, kind: &Kind) -> String {
        self.path(kind).display().to_string()
    }

    /// Whether it is a file under `dir`.
    pub(crate) fn is_under(&self, dir: &Path) -> bool {
        let Place::File(path) = self;
        path.starts_with(dir)
    }
}

/// Where the token's document is, for people.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place::File(path) = self;
        path.display().fmt(f)
    }
}

/// The file of the ticket of this type, beside the token's.
fn beside(path: &Path, kind: &TicketType) -> PathBuf {
    let mut name = match path.extension() {
        Some(extension) if extension == "json" => path.file_stem(),
        _ => path.file_name(),
    }
    .unwrap_or_default()
    .to_owned();
    name.push(format!(".{kind}.json"));
    path.with_file_name(name)
}
