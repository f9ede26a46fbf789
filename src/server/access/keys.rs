//! The clients' keys: which one a request presents, and which accounts it opens. Keeps digests of keys, and no key.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::AccessError;
use super::line_file::LineFile;
use crate::message::{listed, messages};
use crate::model::account::Tag;
use crate::model::client_key::api_scope::ApiScope;
use crate::model::client_key::{self, Digest, KeyLine, opaque_token};
use crate::server::headers::values;

messages! {
    SAME_KEY<1> {
        "Leave out one of them.", "the same SHA-256 as on line {0}";
        "请去掉其中一行。", "与第 {0} 行的 SHA-256 相同";
    }
    OTHER_ACCOUNT<1> {
        "Correct the account.", "it is for an account that is not served here; there are {0}";
        "请更正账号。", "此处没有该账号；已有：{0}";
    }
}

/// How many accounts an error names.
const MAX_ACCOUNTS_NAMED: usize = 10;

/// The accounts that a client may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AccountScope {
    All,
    /// Sorted by name.
    Only(Vec<String>),
}

impl AccountScope {
    /// Whether a client with this scope may see the account.
    pub(crate) fn contains(&self, account: &str) -> bool {
        match self {
            AccountScope::All => true,
            AccountScope::Only(accounts) => {
                accounts.binary_search_by(|name| name.as_str().cmp(account)).is_ok()
            }
        }
    }

    /// Returns the indices of the visible accounts in `names`, which is sorted.
    pub(crate) fn indices(&self, names: &[String]) -> impl Iterator<Item = usize> {
        let (all, only) = match self {
            AccountScope::All => (0..names.len(), &[][..]),
            AccountScope::Only(accounts) => (0..0, &accounts[..]),
        };
        all.chain(only.iter().filter_map(|name| names.binary_search(name).ok()))
    }

    /// Returns the index of an account in `names`, which is sorted. Fails alike for an account that does not exist and
    /// for one that is not visible.
    pub(crate) fn find(&self, names: &[String], name: &str) -> Result<usize, AccessError> {
        match names.binary_search_by(|known| known.as_str().cmp(name)) {
            Ok(index) if self.contains(name) => Ok(index),
            _ => Err(AccessError::NoSuchAccount),
        }
    }
}

/// Returns the account of a request that names none: the only one. Fails if there are several, or none.
pub(crate) fn single_account(
    accounts: impl IntoIterator<Item = usize>,
) -> Result<usize, AccessError> {
    let mut accounts = accounts.into_iter();
    let only = accounts.next().ok_or(AccessError::NoSuchAccount)?;
    match accounts.next() {
        None => Ok(only),
        Some(_) => Err(AccessError::AmbiguousAccount),
    }
}

/// The key of one client.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) name: Arc<str>,
    digest: DigestWords,
    pub(crate) scope: AccountScope,
    /// What it may call through the gateway.
    pub(crate) apis: ApiScope,
}

impl Key {
    /// The SHA-256 of the key.
    pub(crate) fn digest(&self) -> Digest {
        let mut digest = Digest::default();
        let words = self.digest.iter().flat_map(|word| word.to_ne_bytes());
        digest.iter_mut().zip(words).for_each(|(byte, of_word)| *byte = of_word);
        digest
    }

    /// Returns the tag of the key in opaque tokens.
    pub(crate) fn tag(&self) -> Tag {
        opaque_token::tag(&self.digest())
    }
}

/// The keys of all clients. An empty set admits no client.
#[derive(Debug, Default)]
pub(crate) struct Keys(Vec<Key>);

impl Keys {
    /// Reads a keys file. `accounts` are the names of all accounts, sorted.
    ///
    /// The file may be readable by everyone: the digest of 256 random bits does not reveal them.
    pub(crate) fn read(path: &Path, accounts: &[String]) -> anyhow::Result<Keys> {
        let file = LineFile::read("keys file", path)?;
        let mut keys = Vec::new();
        let mut faults = Vec::new();
        let mut lines_of_digests: HashMap<Digest, usize> = HashMap::new();
        for (number, text) in file.lines() {
            let line = match KeyLine::parse(text) {
                Ok(line) => line,
                Err(fault) => {
                    faults.push((number, fault.to_owned()));
                    continue;
                }
            };
            if let Some(before) = lines_of_digests.insert(line.digest, number) {
                faults.push((number, SAME_KEY.first([&before])));
            }
            // The fault does not repeat the unknown name, which may be a secret in the wrong place.
            if !line.accounts.iter().all(|name| accounts.binary_search(name).is_ok()) {
                let named = listed(accounts, MAX_ACCOUNTS_NAMED);
                faults.push((number, OTHER_ACCOUNT.first([&named])));
            }
            let mut scope = line.accounts;
            scope.sort();
            keys.push(Key {
                name: line.name.into(),
                digest: digest_words(&line.digest),
                apis: line.apis,
                scope: match scope.is_empty() {
                    true => AccountScope::All,
                    false => AccountScope::Only(scope),
                },
            });
        }
        if faults.is_empty() { Ok(Keys(keys)) } else { Err(file.error(&faults)) }
    }

    /// Whether there is no key at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the keys with this tag.
    pub(crate) fn tagged(&self, tag: Tag) -> impl Iterator<Item = &Key> {
        self.0.iter().filter(move |key| key.tag() == tag)
    }

    /// Finds the key that a client presents. Compares all keys, each in constant time.
    pub(crate) fn find(&self, presented: &[u8]) -> Option<&Key> {
        let presented = digest_words(&client_key::digest(presented));
        self.0.iter().fold(None, |found, key| {
            if key.digest.ct_eq(&presented).into() { Some(key) } else { found }
        })
    }
}

/// A digest in the form in which it is compared, which takes an eighth of the time that bytes take.
type DigestWords = [u64; 4];

fn digest_words(digest: &Digest) -> DigestWords {
    let (words, _) = digest.as_chunks();
    std::array::from_fn(|n| u64::from_ne_bytes(words[n]))
}

/// How a request presents its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyScheme {
    Bearer,
    /// As the password of any user. A browser asks its user for it once, and then sends it by itself, also when a page of
    /// another site leads there.
    Basic,
}

/// A key as it is presented, and how.
type PresentedKey = (KeyScheme, Zeroizing<Vec<u8>>);

/// Returns the key that a request presents, and how. `None` if it presents none.
pub(crate) fn presented_key(headers: &HeaderMap) -> Result<Option<PresentedKey>, AccessError> {
    let mut lines = values(headers, AUTHORIZATION);
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(AccessError::SeveralAuthorizations);
    }
    let line = line.as_bytes();
    let (scheme, rest) = line.split_at(line.iter().position(|b| *b == b' ').unwrap_or(line.len()));
    let credentials = rest.trim_ascii();
    let key = if scheme.eq_ignore_ascii_case(b"bearer") {
        Some((KeyScheme::Bearer, Zeroizing::new(credentials.to_vec())))
    } else if scheme.eq_ignore_ascii_case(b"basic") {
        password(credentials).map(|password| (KeyScheme::Basic, password))
    } else {
        None
    };
    Ok(key.filter(|(_, key)| !key.is_empty()))
}

/// Returns the password of basic credentials. The first colon ends the user's name (RFC 7617).
fn password(credentials: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let decoded = Zeroizing::new(STANDARD.decode(credentials).ok()?);
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    Some(Zeroizing::new(decoded[colon + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::language::Language;

    fn read(text: &str, accounts: &[&str]) -> Result<Keys, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        fs::write(&path, text).unwrap();
        let accounts: Vec<String> = accounts.iter().map(|name| (*name).to_owned()).collect();
        let prefix = format!("keys file {}: ", dir.path().join("keys").display());
        Keys::read(&path, &accounts)
            .map_err(|err| Language::English.resolve(&err.to_string()).replace(&prefix, ""))
    }

    fn line(name: &str, key: &str, accounts: &[&str]) -> String {
        let accounts = accounts.iter().map(|account| (*account).to_owned()).collect();
        let digest = client_key::digest(key.as_bytes());
        KeyLine::new(name, digest, accounts, ApiScope::Usual).unwrap().to_string()
    }

    #[test]
    fn a_key_is_found_by_its_digest_and_opens_the_accounts_of_its_line() {
        let text = [
            "# clients",
            &line("php", "K1", &[]),
            "",
            &format!("{} # until May", line("java", "K2", &["shop"])),
            &line("java", "K3", &["shop", "branch"])
                .replace('a', "A")
                .replace("jAvA", "java")
                .replace("brAnch", "branch"),
        ]
        .join("\r\n");
        let keys = read(&text, &["branch", "shop"]).unwrap();
        let may_see = |key: &str, account| {
            keys.find(key.as_bytes()).map(|key| (key.name.to_string(), key.scope.contains(account)))
        };
        assert_eq!(may_see("K1", "branch"), Some(("php".to_owned(), true)));
        assert_eq!(may_see("K2", "branch"), Some(("java".to_owned(), false)));
        assert_eq!(may_see("K2", "shop"), Some(("java".to_owned(), true)));
        assert_eq!(may_see("K3", "branch"), Some(("java".to_owned(), true)));
        for unknown in ["", "K", "K11", "k1", &line("php", "K1", &[])[4..]] {
            assert_eq!(may_see(unknown, "shop"), None);
        }
        assert!(read("# none\n", &["shop"]).unwrap().find(b"").is_none());
    }

    #[test]
    fn a_key_has_the_digest_of_its_line_and_is_found_by_the_first_bytes_of_that() {
        let keys =
            read(&[line("php", "K1", &[]), line("java", "K2", &[])].join("\n"), &[]).unwrap();
        let digest = client_key::digest(b"K2");
        let tag: Tag = std::array::from_fn(|n| digest[n]);
        let key = keys.find(b"K2").unwrap();
        assert_eq!((key.digest(), key.tag()), (digest, tag));
        let tagged: Vec<_> = keys.tagged(tag).map(|key| &*key.name).collect();
        assert_eq!(tagged, ["java"]);
        assert!(!keys.is_empty() && read("", &[]).unwrap().is_empty());
    }

    #[test]
    fn an_account_outside_of_a_keys_scope_does_not_exist_for_it() {
        let names = ["branch", "mall", "shop"].map(str::to_owned);
        let only = |accounts: &[&str]| {
            AccountScope::Only(accounts.iter().map(|it| (*it).to_owned()).collect())
        };
        let (shop, two) = (only(&["shop"]), only(&["branch", "shop"]));
        for (scope, name, expected) in [
            (&AccountScope::All, "mall", Ok(1)),
            (&AccountScope::All, "none", Err(AccessError::NoSuchAccount)),
            (&shop, "shop", Ok(2)),
            (&shop, "mall", Err(AccessError::NoSuchAccount)),
            (&shop, "none", Err(AccessError::NoSuchAccount)),
            (&two, "branch", Ok(0)),
            (&two, "mall", Err(AccessError::NoSuchAccount)),
        ] {
            assert_eq!(scope.find(&names, name), expected, "{scope:?} {name:?}");
        }
        for (scope, expected) in [
            (&AccountScope::All, Err(AccessError::AmbiguousAccount)),
            (&shop, Ok(2)),
            (&two, Err(AccessError::AmbiguousAccount)),
            (&only(&["none"]), Err(AccessError::NoSuchAccount)),
        ] {
            assert_eq!(single_account(scope.indices(&names)), expected, "{scope:?}");
        }
        assert_eq!(two.indices(&names).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(single_account(AccountScope::All.indices(&names[..1])), Ok(0));
    }

    #[test]
    fn a_key_is_presented_as_a_bearer_token_or_as_a_password() {
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        for (line, expected) in [
            ("Bearer K1", Some("K1")),
            ("bearer K1", Some("K1")),
            ("BEARER   K1  ", Some("K1")),
            ("Bearer K1 K2", Some("K1 K2")),
            ("Bearer", None),
            ("Bearer ", None),
            ("BearerK1", None),
            ("Bearer\tK1", None),
            ("Bearer,K1", None),
            ("K1", None),
            ("", None),
            ("Digest K1", None),
            (&basic("php:K1"), Some("K1")),
            (&basic(":K1"), Some("K1")),
            (&basic("php:K1:K2"), Some("K1:K2")),
            (&basic("php:K1").to_lowercase().replace("basic", "BASIC"), None),
            (&basic("K1:"), None),
            (&basic("K1"), None),
            ("Basic ", None),
            ("Basic K1", None),
            ("Basic php:K1", None),
            (&basic("php:K12").replace('=', ""), None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, line.parse().unwrap());
            let found = presented_key(&headers).unwrap();
            let is_basic = found.as_ref().map(|(scheme, _)| *scheme == KeyScheme::Basic);
            assert!(is_basic.is_none_or(|it| it == line.starts_with("Basic")), "{line:?}");
            let key = found.map(|(_, key)| String::from_utf8(key.to_vec()).unwrap());
            assert_eq!(key.as_deref(), expected, "{line:?}");
            headers.append(AUTHORIZATION, "Bearer K1".parse().unwrap());
            assert_eq!(
                presented_key(&headers),
                Err(AccessError::SeveralAuthorizations),
                "{line:?}"
            );
        }
        assert_eq!(presented_key(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn of_many_accounts_an_error_names_ten_and_says_how_many_more_there_are() {
        let names: Vec<_> = (10..23).map(|n| format!("shop{n}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let said = |names| read(&line("php", "K1", &["none"]), names).unwrap_err();
        let (ten, more) = (said(&names[..10]), said(&names));
        assert!(ten.ends_with("shop18, shop19"), "{ten}");
        assert!(more.ends_with("shop18, shop19 and 3 more"), "{more}");
    }

    #[test]
    fn an_error_names_all_faults_with_their_lines() {
        let text = [
            "php wxk_0000000000000000000000000000000000000000000",
            &line("php", "K1", &[]),
            "",
            "T0KEN",
            &line("java", "K1", &[]),
            &line("java", "K2", &["shop", "s3cret"]),
        ]
        .join("\n");
        assert_eq!(
            read(&text, &["branch", "shop"]).unwrap_err(),
            "line 1: Put the line of `wxtoken key` here, with the key's SHA-256: this looks like the key itself; \
             line 4: Write NAME SHA256 [ACCOUNT,… [API,…]], the line that `wxtoken key` prints: this is another one; \
             line 5: Leave out one of them: the same SHA-256 as on line 2; \
             line 6: Correct the account: it is for an account that is not served here; there are branch, shop"
        );
    }
}
