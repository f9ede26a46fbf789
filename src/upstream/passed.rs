//! Names processes and documents of wxtoken in what they ask, so that a request that comes back is known: an address that is
//! WeChat's according to the configuration leads here, or a mirror's source has its tokens from that mirror.

use std::collections::HashMap;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::account::Account;
use crate::model::api::Rules;
use crate::model::location::Location;
use crate::os::timestamp::BootId;

/// The header with the names of what a request has passed: a number each. Not `Via`, by which other proxies are known.
pub(crate) const HEADER: &str = "wxtoken-gateway";

/// The HTTP status with which a request is answered that has come back.
pub(crate) const LOOP_DETECTED: u16 = 508;

/// How long a mirror counts as one after it has asked. It asks every half a minute.
const REMEMBERED: Duration = Duration::from_secs(120);

/// How many mirrors of one account are remembered: more have no name that is sent on.
const MAX_MIRRORS: usize = 16;

static NAME: LazyLock<String> = LazyLock::new(|| RandomState::new().hash_one(()).to_string());

/// Returns the name of this process: a random number.
pub(crate) fn name() -> &'static str {
    &NAME
}

/// The mirrors that have asked for tokens: for each account, the names that have come with requests for its token, each with
/// when it came last.
#[derive(Debug, Default)]
pub(crate) struct KnownMirrors(Mutex<HashMap<String, Vec<(String, Instant)>>>);

impl KnownMirrors {
    /// Returns the names that a mirror's request has beside that of the process: its documents', and those of its own mirrors.
    pub(super) fn names_of_mirror(
        &self,
        account: &str,
        location: &Location,
        now: Instant,
    ) -> Vec<String> {
        let mut mirrors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mirrors = mirrors.get_mut(account).map(|mirrors| {
            mirrors.retain(|(_, at)| now.duration_since(*at) < REMEMBERED);
            mirrors.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()
        });
        name_of_documents(location).into_iter().chain(mirrors.unwrap_or_default()).collect()
    }

    /// Whether a request for the token of `account` that has passed these comes from what it asks: from this process, from
    /// another one that publishes the same document, or from a mirror of such. If not, and if this is a mirror, they are
    /// remembered as mirrors of it.
    pub(crate) fn has_come_back(&self, account: &Account, passed: &[&str], now: Instant) -> bool {
        let documents = name_of_documents(&account.location);
        let is_own = |passed: &&str| *passed == name() || Some(*passed) == documents.as_deref();
        if passed.iter().any(is_own) {
            return true;
        }
        if account.rules != Rules::Mirror {
            return false;
        }
        let is_name = |text: &str| text.len() <= 20 && text.bytes().all(|it| it.is_ascii_digit());
        let mut mirrors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mirrors = mirrors.entry(account.name.clone()).or_default();
        for passed in passed.iter().filter(|passed| is_name(passed)) {
            mirrors.retain(|(name, at)| name != passed && now.duration_since(*at) < REMEMBERED);
            if mirrors.len() < MAX_MIRRORS {
                mirrors.push(((*passed).to_owned(), now));
            }
        }
        false
    }
}

/// Returns the name of an account's documents on this machine, which is the same for all processes; `None` where they have
/// none, as in Redis.
fn name_of_documents(location: &Location) -> Option<String> {
    let Location::File(path) = location else { return None };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = dir.unwrap_or(Path::new(".")).metadata().ok()?;
    let mut hasher = DefaultHasher::new();
    // Paths are the same in many containers.
    let place = (BootId::of_machine()?.to_string(), dir.dev(), dir.ino(), path.file_name()?);
    place.hash(&mut hasher);
    Some(hasher.finish().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::api::Api;

    fn account(name: &str, rules: Rules, file: &Path) -> Account {
        Account {
            name: name.to_owned(),
            appid: None,
            api: Api::Stable,
            rules,
            refresh_before: Duration::ZERO,
            location: Location::File(file.to_owned()),
            tickets: Vec::new(),
            on_change: None,
            on_trouble: None,
        }
    }

    #[test]
    fn a_mirrors_own_names_come_back_and_its_mirrors_names_are_sent_on_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let mirror = account("chain", Rules::Mirror, &dir.path().join("chain.json"));
        let (now, known) = (Instant::now(), KnownMirrors::default());
        let names = |now| known.names_of_mirror("chain", &mirror.location, now);
        let own = names(now);
        let asks = |passed: &[&str], now| known.has_come_back(&mirror, passed, now);
        assert!(asks(&["1", name()], now));
        if let [documents] = &own[..] {
            assert!(asks(&[documents], now), "another process that publishes them");
            let other = account("another", Rules::Mirror, &dir.path().join("other.json"));
            assert!(!known.has_come_back(&other, &[documents], now), "another document");
        }
        assert!(!asks(&["1", "2", "1", "no name"], now));
        let sent_on: Vec<_> = names(now).into_iter().filter(|it| !own.contains(it)).collect();
        assert_eq!(sent_on, ["2", "1"]);
        let of_other = known.names_of_mirror("other", &mirror.location, now);
        assert_eq!(of_other, own, "of this account alone");
        let later = now + REMEMBERED / 2;
        assert!(!asks(&["2"], later));
        assert_eq!(names(now + REMEMBERED).len(), own.len() + 1, "the other has gone");
        let many: Vec<_> = (0..40).map(|it| it.to_string()).collect();
        assert!(!asks(&many.iter().map(String::as_str).collect::<Vec<_>>(), later));
        assert_eq!(names(later).len(), own.len() + MAX_MIRRORS);
    }

    #[test]
    fn what_asks_wechat_itself_remembers_no_mirrors() {
        let location = Location::File("/none/shop.json".into());
        let asks = Account { location, ..account("shop", Rules::Stable, Path::new("shop.json")) };
        let (now, known) = (Instant::now(), KnownMirrors::default());
        assert!(!known.has_come_back(&asks, &["1"], now));
        assert!(known.names_of_mirror("shop", &asks.location, now).is_empty());
    }
}
