//! What Redis has at a document's key, and which document is in force: that one, or the copy on this host.

use std::sync::LazyLock;
use std::time::Duration;

use time::UtcDateTime;

use super::assert_tells_no_secret;
use crate::model::address::redis_url::RedisUrl;
use crate::model::document::Document;
use crate::model::kind::DocumentKind;
use crate::model::location::{AlsoFormat, RedisSettings};
use crate::model::secret::Secret;
use crate::os::timestamp::Timestamp;
use crate::store::LostRequests;
use crate::store::redis::value::{InForce, StoredValue, also_value};

static REDIS: LazyLock<RedisSettings> = LazyLock::new(|| RedisSettings {
    url: RedisUrl::parse("redis://127.0.0.1").expect("a Redis"),
    user: None,
    password_file: None,
    ca_file: None,
    prefix: "wxtoken".to_owned(),
    timeout: Duration::from_secs(1),
    also: Vec::new(),
});

/// How much older or newer the copy is than what Redis has, in seconds.
const AGES: [i64; 5] = [-7000, -1, 0, 1, 7000];

pub fn check(data: &[u8]) {
    check_lost(data);
    let value = StoredValue::parse(&DocumentKind::Token, "wxtoken:shop", &REDIS, data.to_vec());
    assert!(value.document.is_none() || value.damage.is_none());
    assert_eq!(value.document.is_none() && value.damage.is_none(), data.is_empty());
    if let Some(damage) = &value.damage {
        assert!(damage.contains("wxtoken:shop at redis://127.0.0.1"), "{damage}");
        assert_tells_no_secret(damage, data);
    }
    let Some(stored) = value.document else { return };
    for (format, expected) in [(AlsoFormat::Text, None), (AlsoFormat::JsonString, Some(()))] {
        let written = also_value(&stored, format);
        let read = match expected {
            None => written,
            Some(()) => serde_json::from_str(&written).expect("a JSON string"),
        };
        assert!(stored.token.is(&read));
    }
    for age in AGES {
        for appid in [stored.appid.clone(), format!("{}x", stored.appid)] {
            check_choice(&stored, age, &appid);
        }
    }
}

/// What hosts know of requests without an answer counts for a day at most.
fn check_lost(data: &[u8]) {
    let now = UtcDateTime::UNIX_EPOCH + time::Duration::days(20_000);
    let Some(lost) = LostRequests::parse(data, now) else { return };
    assert_eq!(LostRequests::parse(lost.to_json().as_bytes(), now).as_ref(), Some(&lost));
    let mut twice = lost.clone();
    twice.add(&lost);
    assert_eq!(twice, lost, "what is known is no other request");
    if let Some(today) = lost.of_day(now) {
        assert!((1..=200).contains(&today.count), "{}", today.count);
        assert!(today.next_at.is_none_or(|at| at > now && at < now + time::Duration::minutes(10)));
    }
}

fn check_choice(stored: &Document, age: i64, appid: &str) {
    let wall = stored.created_at.wall.saturating_add(time::Duration::seconds(age));
    let asked_at = Timestamp { wall, uptime: None };
    let copy = Document::new(appid, Secret::new("COPY".to_owned()), stored.expires_in, asked_at);
    for later in [0, 60, 7200, 90_000] {
        let now = stored.created_at.plus(Duration::from_secs(later));
        match InForce::choose(Some(stored.clone()), Some(copy.clone()), now) {
            InForce::Stored(chosen) => assert!(chosen.as_ref() == Some(stored)),
            InForce::Copied(chosen) => {
                assert!(chosen.is_put_back && chosen.token == copy.token);
                assert!(chosen.appid == stored.appid, "the copy is another account's");
                assert!(copy.created_at.wall > stored.created_at.wall, "the copy is older");
                assert!(!copy.left(now).is_zero() && chosen.left(now) <= copy.left(now));
            }
        }
    }
}
