//! What Redis has at a document's key, and which document is in force: that one, or a copy that Redis has lost. Pure:
//! bytes and the time are arguments.

use crate::language::bilingual;
use crate::message::command::command;
use crate::model::account;
use crate::model::document::{Document, MAX_DOCUMENT};
use crate::model::kind::DocumentKind;
use crate::model::location::{AlsoFormat, RedisSettings};
use crate::os::timestamp::Timestamp;
use crate::sabotage::{Bug, has_bug};
use crate::store::{Found, NO_DOCUMENT};

/// The value at a document's key.
#[derive(Clone, Default)]
pub(crate) struct StoredValue {
    /// As Redis has it, text or not; empty, if there is nothing.
    pub(crate) bytes: Vec<u8>,
    pub(crate) document: Option<Document>,
    /// Why it is no document, with the key and the Redis. Never quotes it.
    pub(crate) damage: Option<String>,
}

impl StoredValue {
    /// Parses what Redis has at `key`, or the first bytes of it.
    pub(crate) fn parse(
        kind: &DocumentKind,
        key: &str,
        redis: &RedisSettings,
        bytes: Vec<u8>,
    ) -> StoredValue {
        if bytes.is_empty() {
            return StoredValue::default();
        }
        let parsed = match bytes.len() {
            len if len > MAX_DOCUMENT => Err(bilingual!("it is too long", "过长").to_owned()),
            _ => Document::parse(kind, &bytes).map_err(|damage| damage.to_string()),
        };
        let damaged = |what| {
            let place = format!("{key} at {}", redis.url);
            NO_DOCUMENT.with([&place, &what, &command("fetch", None, &[])])
        };
        match parsed {
            Ok(document) => StoredValue { bytes, document: Some(document), damage: None },
            Err(what) => StoredValue { bytes, document: None, damage: Some(damaged(what)) },
        }
    }
}

impl From<StoredValue> for Found {
    fn from(value: StoredValue) -> Found {
        match (value.document, value.damage) {
            (Some(document), _) => Found::Document(document),
            (None, Some(damage)) => Found::Damaged(damage),
            (None, None) => Found::Nothing,
        }
    }
}

/// The document in force.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum InForce {
    /// What Redis has, also if that is nothing.
    Stored(Option<Document>),
    /// The copy, marked as put back: Redis has lost it, and has an older one or none.
    Copied(Document),
}

impl InForce {
    /// Chooses between what Redis has and a copy of what it once had. A copy is in force while it lives, if it is newer
    /// and belongs to the same account.
    pub(crate) fn choose(
        stored: Option<Document>,
        copy: Option<Document>,
        now: Timestamp,
    ) -> InForce {
        let is_newer = |copy: &Document| {
            let is_before =
                |it: &Document| account::owns(&copy.appid, it) && copy.is_later_than(it, now);
            stored.as_ref().is_none_or(is_before)
        };
        match copy.filter(|copy| is_newer(copy) && !copy.left(now).is_zero()) {
            Some(_) if has_bug(Bug::FailoverValueAccepted) => InForce::Stored(stored),
            Some(copy) => InForce::Copied(copy.put_back()),
            None => InForce::Stored(stored),
        }
    }
}

/// Returns what an SDK finds at a key of `[redis] also` with this format.
pub(crate) fn also_value(document: &Document, format: AlsoFormat) -> String {
    let token = document.token.expose();
    match format {
        AlsoFormat::Text => token.to_owned(),
        AlsoFormat::JsonString => serde_json::Value::from(token).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::UtcDateTime;

    use super::*;
    use crate::model::secret::Secret;
    use crate::store::redis::testing::settings;

    fn document(token: &str, created: i64) -> Document {
        let life = Duration::from_secs(7200);
        Document::new("wx1", Secret::new(token.to_owned()), life, at(created))
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::of_wall(UtcDateTime::UNIX_EPOCH + time::Duration::seconds(secs))
    }

    #[test]
    fn a_copy_is_in_force_where_it_is_newer_than_what_redis_has_and_lives() {
        let [old, new] = [document("OLD", 0), document("NEW", 1000)];
        let chosen = |stored: Option<&Document>, copy: &Document, now| {
            InForce::choose(stored.cloned(), Some(copy.clone()), at(now))
        };
        assert_eq!(chosen(Some(&new), &old, 1001), InForce::Stored(Some(new.clone())));
        assert_eq!(chosen(Some(&old), &new, 1001), InForce::Copied(new.clone().put_back()));
        assert_eq!(chosen(None, &new, 1001), InForce::Copied(new.clone().put_back()));
        assert_eq!(chosen(None, &new, 8200), InForce::Stored(None), "it has expired");
        assert_eq!(chosen(Some(&old), &new, 8200), InForce::Stored(Some(old.clone())));
        // A document that was shortened is as new as the whole one.
        let short = Document { expires_in: Duration::from_secs(300), ..new.clone() };
        assert_eq!(chosen(Some(&short), &new, 1000), InForce::Stored(Some(short)));
        let foreign = Document { appid: "wx2".to_owned(), ..new };
        assert_eq!(chosen(Some(&old), &foreign, 1001), InForce::Stored(Some(old.clone())));
        // A mirror did not know its AppID then.
        let earlier = Document { appid: String::new(), ..old };
        assert_eq!(chosen(Some(&earlier), &foreign, 1001), InForce::Copied(foreign.put_back()));
    }

    #[test]
    fn a_value_that_is_no_document_is_named_by_its_key_and_never_shown() {
        let redis = settings("redis://cache");
        let parse = |bytes: &[u8]| {
            StoredValue::parse(&DocumentKind::Token, "wxtoken:shop", &redis, bytes.to_owned())
        };
        let line = document("T1", 0).to_line(&DocumentKind::Token);
        assert_eq!(parse(line.expose().as_bytes()).document, Some(document("T1", 0)));
        let padded = format!("{}{}", line.expose(), " ".repeat(MAX_DOCUMENT));
        for (bytes, why) in
            [(padded.as_bytes(), "too long"), (b"T1", "not JSON"), (b"\xff", "JSON")]
        {
            let StoredValue { bytes: kept, document, damage } = parse(bytes);
            let damage = damage.unwrap();
            assert!(document.is_none() && kept == bytes, "it is what gets replaced");
            assert!(
                damage.contains("wxtoken:shop at redis://cache:6379 is no document"),
                "{damage}"
            );
            assert!(damage.contains(why) && !damage.contains("T1"), "{damage}");
        }
    }
}
