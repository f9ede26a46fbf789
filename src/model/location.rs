//! Where an account's documents are, as config says it and people read it. Opens nothing: that is the store's.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::model::address::redis_url::RedisUrl;
use crate::model::kind::{DocumentKind, TicketType};

/// Where an account's documents are. Which store that is matters to nobody but the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Location {
    /// The token in this file, and each ticket in one beside it.
    File(PathBuf),
    /// In a Redis that many hosts share.
    Shared(Arc<Shared>),
}

/// A Redis, and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Redis {
    pub(crate) url: RedisUrl,
    pub(crate) user: Option<String>,
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) ca_file: Option<PathBuf>,
    /// What the names of all keys begin with.
    pub(crate) prefix: String,
    /// It answers within this, or counts as down.
    pub(crate) timeout: Duration,
    /// Keys under which others look for the bare token.
    pub(crate) also: Vec<Also>,
}

/// A key that is published beside the document, for an SDK that reads it there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Also {
    /// With `{appid}` and `{account}` in it.
    pub(crate) key: String,
    pub(crate) format: AlsoFormat,
}

impl Also {
    /// The key of an account; `None` where its AppID belongs into it, and is not known.
    pub(crate) fn key_of(&self, account: &str, appid: &str) -> Option<String> {
        let is_known = !appid.is_empty() || !self.key.contains("{appid}");
        is_known.then(|| self.key.replace("{appid}", appid).replace("{account}", account))
    }
}

/// What stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum AlsoFormat {
    Text,
    /// In quotes.
    JsonString,
}

/// An account's place there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shared {
    pub(crate) redis: Arc<Redis>,
    /// What people call the account.
    pub(crate) account: String,
    /// Whose copies are of use; anybody's where it is not known.
    pub(crate) appid: Option<String>,
    /// Where this host keeps a copy of the token's document, for when Redis is down; a ticket's is beside it.
    pub(crate) copy: PathBuf,
}

impl Redis {
    /// The channel on which the keys are told that something was published at.
    pub(crate) fn channel(&self) -> String {
        format!("{}:published", self.prefix)
    }
}

impl Shared {
    /// The other keys under which the token is published, and what stands there; none where the AppID is not known that
    /// belongs into them.
    pub(crate) fn also(&self, kind: &DocumentKind) -> Vec<(String, AlsoFormat)> {
        if *kind != DocumentKind::Token {
            return Vec::new();
        }
        let appid = self.appid.as_deref().unwrap_or_default();
        let also = self.redis.also.iter();
        also.filter_map(|it| Some((it.key_of(&self.account, appid)?, it.format))).collect()
    }

    /// The key of the document of this kind.
    pub(crate) fn key(&self, kind: &DocumentKind) -> String {
        let Shared { redis, account, .. } = self;
        match kind {
            DocumentKind::Token => format!("{}:{account}", redis.prefix),
            DocumentKind::Ticket(kind) => format!("{}:{account}:{kind}", redis.prefix),
        }
    }
}

impl Location {
    /// The file of this kind on this host: the document, or a copy of it.
    pub(crate) fn path(&self, kind: &DocumentKind) -> PathBuf {
        let path = self.file();
        match kind {
            DocumentKind::Token => path.to_owned(),
            DocumentKind::Ticket(kind) => beside(path, kind),
        }
    }

    /// Where the document of this kind is, for people.
    pub(crate) fn name_of(&self, kind: &DocumentKind) -> String {
        match self {
            Location::File(_) => self.path(kind).display().to_string(),
            Location::Shared(shared) => format!("{} at {}", shared.key(kind), shared.redis.url),
        }
    }

    /// Whether it is a file under `dir`.
    pub(crate) fn is_under(&self, dir: &Path) -> bool {
        self.file().starts_with(dir)
    }

    fn file(&self) -> &Path {
        match self {
            Location::File(path) => path,
            Location::Shared(shared) => &shared.copy,
        }
    }
}

/// Where the token's document is, for people.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name_of(&DocumentKind::Token))
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
