//! Finds loops: a request that comes back to the process that sent it, because an address that is WeChat's by the configuration leads
//! here, or because the source of a mirror has its tokens from that mirror. Each request carries the names of the processes and documents
//! that it has passed.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use crate::model::account::Account;
use crate::model::api::Rules;
use crate::model::kind::DocumentKind;
use crate::model::location::Location;
use crate::model::status::ClientIdentity;
use crate::os::file::atomic::Replacement;
use crate::os::file::read::{self, Access};
use crate::os::thread::lock;

/// The header with these names, each a number. Not `Via`, which other proxies use.
pub(crate) const HEADER: &str = "wxtoken-gateway";

/// The HTTP status of the answer to a request that has come back.
pub(crate) const LOOP_DETECTED: u16 = 508;

/// How long a mirror is remembered after its last request. It asks every half a minute.
const REMEMBERED: Duration = Duration::from_secs(120);

/// How many mirrors of one account are remembered. The names of further ones are not sent on.
const MAX_MIRRORS: usize = 32;

/// How many of these names may come from one client: its own, and those of the mirrors behind it.
const MAX_OF_CLIENT: usize = 16;

/// The length of the longest name.
const MAX_NAME: usize = 20;

static NAME: LazyLock<String> = LazyLock::new(|| RandomState::new().hash_one(()).to_string());

/// Returns the name of this process: a random number.
pub(crate) fn name() -> &'static str {
    &NAME
}

/// A mirror that has asked for tokens.
#[derive(Debug)]
struct KnownMirror {
    name: String,
    /// The client that sent the name.
    client: ClientIdentity,
    /// When the name came last.
    at: Instant,
}

/// The mirrors that have asked for tokens, by account.
#[derive(Debug, Default)]
pub(crate) struct KnownMirrors(Mutex<HashMap<String, Vec<KnownMirror>>>);

impl KnownMirrors {
    /// Returns the names that a mirror's request carries beside the name of the process: its documents', and those of its own mirrors.
    pub(super) fn names_of_mirror(
        &self,
        account: &str,
        location: &Location,
        now: Instant,
    ) -> Vec<String> {
        let mut mirrors = lock(&self.0);
        let mirrors = mirrors.get_mut(account).map(|mirrors| {
            mirrors.retain(|it| it.is_recent(now));
            mirrors.iter().map(|it| it.name.clone()).collect::<Vec<_>>()
        });
        let documents = name_of_documents(location).or_else(|| name_documents(location));
        documents.into_iter().chain(mirrors.unwrap_or_default()).collect()
    }

    /// Whether a request of `client` for the token of `account` is a loop: whether the names that it has `passed` include this process,
    /// another process that publishes the same document, or a mirror of either. If it is none, its names are remembered as those of
    /// mirrors of this account.
    pub(crate) fn has_come_back(
        &self,
        account: &Account,
        client: &ClientIdentity,
        passed: &[&str],
        now: Instant,
    ) -> bool {
        let documents = name_of_documents(&account.location);
        let is_own = |passed: &&str| *passed == name() || Some(*passed) == documents.as_deref();
        if passed.iter().any(is_own) {
            return true;
        }
        if account.rules != Rules::Mirror {
            return false;
        }
        let mut mirrors = lock(&self.0);
        let mirrors = mirrors.entry(account.name.clone()).or_default();
        for passed in passed.iter().filter(|passed| is_name(passed)) {
            mirrors.retain(|it| it.name != *passed && it.is_recent(now));
            let of_client = mirrors.iter().filter(|it| it.client == *client);
            if of_client.count() >= MAX_OF_CLIENT {
                continue;
            }
            // Clients that have sent few names keep theirs.
            if mirrors.len() >= MAX_MIRRORS {
                let sent = |it: &KnownMirror| {
                    mirrors.iter().filter(|other| other.client == it.client).count()
                };
                let most = (0..mirrors.len()).rev().max_by_key(|place| sent(&mirrors[*place]));
                most.map(|place| mirrors.remove(place));
            }
            let (name, client) = ((*passed).to_owned(), client.clone());
            mirrors.push(KnownMirror { name, client, at: now });
        }
        false
    }
}

impl KnownMirror {
    fn is_recent(&self, now: Instant) -> bool {
        now.duration_since(self.at) < REMEMBERED
    }
}

/// Whether a text is a name: a number of 64 bits.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(|it| it.is_ascii_digit())
}

/// Returns the path of the file with the name of an account's documents on this machine.
fn path_of_name(location: &Location) -> PathBuf {
    location.path(&DocumentKind::Token).with_extension("mirror")
}

/// Returns the name of an account's documents on this machine, which all processes share; `None` before they have one. The name is random,
/// and only the user who publishes the documents can read it: a client that knew it could have the source refuse this mirror as a loop.
fn name_of_documents(location: &Location) -> Option<String> {
    let file = read::open_own(&path_of_name(location), Access::Read).ok()?;
    let bytes = read::read_bounded(file, MAX_NAME as u64, MAX_NAME as u64 + 1).ok()?;
    let text = std::str::from_utf8(&bytes).ok()?.trim_ascii();
    is_name(text).then(|| text.to_owned())
}

/// Gives an account's documents a name. Returns the name; `None` if it cannot be written.
fn name_documents(location: &Location) -> Option<String> {
    let name = RandomState::new().hash_one(()).to_string();
    let mut file = Replacement::prepare(&path_of_name(location), 0o600, MAX_NAME).ok()?;
    file.publish(format!("{name}\n").as_bytes()).ok()?;
    Some(name)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    fn account(name: &str, rules: Rules, file: &Path) -> Account {
        Account { name: name.to_owned(), rules, ..Account::for_tests(file) }
    }

    #[test]
    fn a_mirrors_own_names_come_back_and_its_mirrors_names_are_sent_on_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let mirror = account("chain", Rules::Mirror, &dir.path().join("chain.json"));
        let (now, known) = (Instant::now(), KnownMirrors::default());
        let names = |now| known.names_of_mirror("chain", &mirror.location, now);
        let own = names(now);
        let client = ClientIdentity::Key("one".into());
        let asks = |passed: &[&str], now| known.has_come_back(&mirror, &client, passed, now);
        assert!(asks(&["1", name()], now));
        if let [documents] = &own[..] {
            assert!(asks(&[documents], now), "another process that publishes them");
            let other = account("another", Rules::Mirror, &dir.path().join("other.json"));
            assert!(!known.has_come_back(&other, &client, &[documents], now), "another document");
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
        assert_eq!(names(later).len(), own.len() + MAX_OF_CLIENT);
        // Those of a client that has few are sent on all the same.
        for (client, first) in [("two", 100), ("three", 200), ("four", 300)] {
            let many: Vec<_> = (first..first + 40).map(|it| it.to_string()).collect();
            let many: Vec<_> = many.iter().map(String::as_str).collect();
            let names = if client == "three" { &["200"][..] } else { &many };
            assert!(!known.has_come_back(
                &mirror,
                &ClientIdentity::Key(client.into()),
                names,
                later
            ));
        }
        let names = names(later);
        assert!(names.len() == own.len() + MAX_MIRRORS && names.contains(&"200".to_owned()));
    }

    #[test]
    fn the_name_of_documents_is_random_and_for_the_user_alone_who_publishes_them() {
        let dir = tempfile::tempdir().unwrap();
        let location = |name| Location::File(dir.path().join(format!("{name}.json")));
        let [one, other] = ["one", "other"].map(location);
        assert_eq!(name_of_documents(&one), None);
        let names = [&one, &other].map(|it| {
            let names = KnownMirrors::default().names_of_mirror("a", it, Instant::now());
            assert_eq!(name_of_documents(it).as_ref(), names.first(), "for all processes");
            let mode = fs::metadata(path_of_name(it)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            names
        });
        assert!(names[0].len() == 1 && names[0] != names[1]);
        let again = KnownMirrors::default().names_of_mirror("a", &one, Instant::now());
        assert_eq!(again, names[0]);
        // What is no name is replaced.
        for text in ["", "12x\n", "123456789012345678901234\n"] {
            fs::write(path_of_name(&one), text).unwrap();
            assert_eq!(name_of_documents(&one), None, "{text}");
        }
        let new = KnownMirrors::default().names_of_mirror("a", &one, Instant::now());
        assert_eq!(name_of_documents(&one).as_ref(), new.first());
    }

    #[test]
    fn what_asks_wechat_itself_remembers_no_mirrors() {
        let location = Location::File("/none/shop.json".into());
        let asks = Account { location, ..account("shop", Rules::Stable, Path::new("shop.json")) };
        let (now, known) = (Instant::now(), KnownMirrors::default());
        assert!(!known.has_come_back(&asks, &ClientIdentity::Local, &["1"], now));
        assert!(known.names_of_mirror("shop", &asks.location, now).is_empty());
    }
}
