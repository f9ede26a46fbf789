//! Where an account's documents are kept, as the config states it and as messages name it. Opens nothing: that is the
//! store's part.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::model::address::redis_url::RedisUrl;
use crate::model::kind::{DocumentKind, TicketType};

/// Where an account's documents are kept. Only the store cares which kind of place it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Location {
    /// The token's document in this file, and each ticket's in a file beside it.
    File(PathBuf),
    /// In a Redis that many hosts share.
    Redis(Arc<RedisLocation>),
}

/// A Redis, and how to connect to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RedisSettings {
    pub(crate) url: RedisUrl,
    pub(crate) user: Option<String>,
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) ca_file: Option<PathBuf>,
    /// The prefix of all keys.
    pub(crate) prefix: String,
    /// Without an answer within this time Redis counts as down.
    pub(crate) timeout: Duration,
    /// Keys at which SDKs look for the bare token.
    pub(crate) also: Vec<AlsoKey>,
}

impl RedisSettings {
    /// Returns the channel on which the key of each new document is announced.
    pub(crate) fn channel(&self) -> String {
        format!("{}:published", self.prefix)
    }
}

/// A key of `[redis] also`: published beside the document, for an SDK that reads the bare token there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AlsoKey {
    /// The key's name, with the placeholders `{appid}` and `{account}`.
    pub(crate) key: String,
    pub(crate) format: AlsoFormat,
}

impl AlsoKey {
    /// Returns the key of an account, or `None` if it needs an AppID that is not known.
    pub(crate) fn key_of(&self, account: &str, appid: &str) -> Option<String> {
        let is_known = !appid.is_empty() || !self.key.contains("{appid}");
        is_known.then(|| self.key.replace("{appid}", appid).replace("{account}", account))
    }
}

/// In which form the token is written to a key of `[redis] also`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum AlsoFormat {
    /// As it is.
    Text,
    /// In quotes.
    JsonString,
}

/// An account's keys in a Redis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RedisLocation {
    pub(crate) redis: Arc<RedisSettings>,
    /// The account's name.
    pub(crate) account: String,
    /// Only copies with this AppID are used; copies with any, if it is unknown.
    pub(crate) appid: Option<String>,
    /// Where this host keeps a copy of the token's document, for when Redis is down. A ticket's copy is beside it.
    pub(crate) copy: PathBuf,
}

impl RedisLocation {
    /// Returns the keys of `[redis] also` at which the account's token is published too. Leaves out those with `{appid}` if the
    /// AppID is unknown.
    pub(crate) fn also(&self, kind: &DocumentKind) -> Vec<(String, AlsoFormat)> {
        if *kind != DocumentKind::Token {
            return Vec::new();
        }
        let appid = self.appid.as_deref().unwrap_or_default();
        let also = self.redis.also.iter();
        also.filter_map(|it| Some((it.key_of(&self.account, appid)?, it.format))).collect()
    }

    /// Returns the key of the document of this kind.
    pub(crate) fn key(&self, kind: &DocumentKind) -> String {
        let RedisLocation { redis, account, .. } = self;
        match kind {
            DocumentKind::Token => format!("{}:{account}", redis.prefix),
            DocumentKind::Ticket(kind) => format!("{}:{account}:{kind}", redis.prefix),
        }
    }
}

impl Location {
    /// Returns the file of this kind on this host: the document itself, or the copy of it.
    pub(crate) fn path(&self, kind: &DocumentKind) -> PathBuf {
        let path = self.file();
        match kind {
            DocumentKind::Token => path.to_owned(),
            DocumentKind::Ticket(kind) => ticket_path(path, kind),
        }
    }

    /// Returns what messages call the place of the document of this kind.
    pub(crate) fn name_of(&self, kind: &DocumentKind) -> String {
        match self {
            Location::File(_) => self.path(kind).display().to_string(),
            Location::Redis(location) => {
                format!("{} at {}", location.key(kind), location.redis.url)
            }
        }
    }

    /// Whether the file on this host is under `dir`.
    pub(crate) fn is_under(&self, dir: &Path) -> bool {
        self.file().starts_with(dir)
    }

    fn file(&self) -> &Path {
        match self {
            Location::File(path) => path,
            Location::Redis(location) => &location.copy,
        }
    }
}

/// What messages call the place of the token's document.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name_of(&DocumentKind::Token))
    }
}

/// Returns the file of the ticket of this type, beside the token's.
fn ticket_path(path: &Path, kind: &TicketType) -> PathBuf {
    let mut name = match path.extension() {
        Some(extension) if extension == "json" => path.file_stem(),
        _ => path.file_name(),
    }
    .unwrap_or_default()
    .to_owned();
    name.push(format!(".{kind}.json"));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> DocumentKind {
        DocumentKind::Ticket(TicketType::parse("jsapi").unwrap())
    }

    #[test]
    fn a_tickets_file_is_beside_the_tokens() {
        for (token, expected) in [
            ("/d/default.json", "/d/default.jsapi.json"),
            ("/d/token", "/d/token.jsapi.json"),
            ("/d/token.txt", "/d/token.txt.jsapi.json"),
        ] {
            let location = Location::File(token.into());
            assert_eq!(location.path(&DocumentKind::Token), Path::new(token));
            assert_eq!(location.path(&ticket()), Path::new(expected));
            assert_eq!(location.to_string(), token);
            assert_eq!(location.name_of(&ticket()), expected);
            assert!(location.is_under(Path::new("/d")) && !location.is_under(Path::new("/e")));
        }
    }

    #[test]
    fn the_keys_in_redis_are_those_of_the_manual() {
        let also = |key: &str| AlsoKey { key: key.to_owned(), format: AlsoFormat::Text };
        let redis = RedisSettings {
            url: RedisUrl::parse("redis://10.0.0.5:6379").unwrap(),
            user: None,
            password_file: None,
            ca_file: None,
            prefix: "wxtoken".to_owned(),
            timeout: Duration::from_secs(3),
            also: vec![also("of:{account}"), also("{appid}:{account}")],
        };
        assert_eq!(redis.channel(), "wxtoken:published");
        let location = |appid: Option<&str>| RedisLocation {
            redis: Arc::new(redis.clone()),
            account: "shop".to_owned(),
            appid: appid.map(str::to_owned),
            copy: "/d/shop.json".into(),
        };
        let known = location(Some("wx1"));
        assert_eq!(known.key(&DocumentKind::Token), "wxtoken:shop");
        assert_eq!(known.key(&ticket()), "wxtoken:shop:jsapi");
        let keys = |location: &RedisLocation, kind: &DocumentKind| -> Vec<String> {
            location.also(kind).into_iter().map(|(key, _)| key).collect()
        };
        assert_eq!(keys(&known, &DocumentKind::Token), ["of:shop", "wx1:shop"]);
        assert_eq!(keys(&location(None), &DocumentKind::Token), ["of:shop"]);
        assert!(keys(&known, &ticket()).is_empty(), "tickets have none");
        let location = Location::Redis(Arc::new(known));
        assert_eq!(location.path(&ticket()), Path::new("/d/shop.jsapi.json"));
        assert!(location.to_string().starts_with("wxtoken:shop at redis://10.0.0.5:6379"));
        assert!(location.is_under(Path::new("/d")));
    }
}
