//! The clients' keys: how one is shown, which of them it is, and what its holder may see. Keeps digests only, never a
//! key.

use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::AccessError;
use super::line_file::LineFile;
use crate::model::client_key::{self, Digest, Line};

/// So many accounts are named in an error.
const MOST_NAMED: usize = 10;

/// The accounts that somebody may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    All,
    /// In the order of their names.
    Only(Vec<String>),
}

impl Scope {
    pub(crate) fn holds(&self, account: &str) -> bool {
        match self {
            Scope::All => true,
            Scope::Only(accounts) => {
                accounts.binary_search_by(|name| name.as_str().cmp(account)).is_ok()
            }
        }
    }

    /// The places of those accounts among all, whose names are sorted.
    pub(crate) fn visible(&self, names: &[String]) -> Vec<usize> {
        match self {
            Scope::All => (0..names.len()).collect(),
            Scope::Only(accounts) => {
                accounts.iter().filter_map(|name| names.binary_search(name).ok()).collect()
            }
        }
    }

    /// The account of this name. One that may not be seen is as good as none.
    pub(crate) fn find(&self, names: &[String], name: &str) -> Result<usize, AccessError> {
        match names.binary_search_by(|known| known.as_str().cmp(name)) {
            Ok(place) if self.holds(name) => Ok(place),
            _ => Err(AccessError::NoSuchAccount),
        }
    }
}

/// The account that is meant where none is named: the only one.
pub(crate) fn only(accounts: &[usize]) -> Result<usize, AccessError> {
    match accounts {
        [only] => Ok(*only),
        [] => Err(AccessError::NoSuchAccount),
        _ => Err(AccessError::AmbiguousAccount),
    }
}

/// One client's key.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) name: Rc<str>,
    digest: Words,
    pub(crate) scope: Scope,
}

/// All clients' keys. Empty means nobody.
#[derive(Debug, Default)]
pub(crate) struct Keys(Vec<Key>);

impl Keys {
    /// Reads a keys file, for `accounts`, whose names are sorted. Others may read it, too: a digest of 256 random bits tells nothing of them.
    pub(crate) fn read(path: &Path, accounts: &[String]) -> anyhow::Result<Keys> {
        let roster = LineFile::read("keys file", path)?;
        let mut keys = Vec::new();
        let mut faults = Vec::new();
        let mut lines_of_digests: HashMap<Digest, usize> = HashMap::new();
        for (number, text) in roster.lines() {
            let line = match Line::parse(text) {
                Ok(line) => line,
                Err(fault) => {
                    faults.push((number, fault.to_owned()));
                    continue;
                }
            };
            if let Some(before) = lines_of_digests.insert(line.digest, number) {
                faults.push((number, format!("the same SHA-256 as on line {before}")));
            }
            // Neither is it said what stands there instead of an account.
            if !line.accounts.iter().all(|name| accounts.binary_search(name).is_ok()) {
                let here = accounts.iter().take(MOST_NAMED).map(String::as_str);
                let here = here.collect::<Vec<_>>().join(", ");
                let here = match accounts.len().saturating_sub(MOST_NAMED) {
                    0 => here,
                    more => format!("{here} and {more} more"),
                };
                faults.push((
                    number,
                    format!("is for an account that is not served here; there are {here}"),
                ));
            }
            keys.push(Key {
                name: line.name.into(),
                digest: words(&line.digest),
                scope: if line.accounts.is_empty() {
                    Scope::All
                } else {
                    let mut accounts = line.accounts;
                    accounts.sort();
                    Scope::Only(accounts)
                },
            });
        }
        if faults.is_empty() { Ok(Keys(keys)) } else { Err(roster.faulty(&faults)) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key that this is. All are compared, each in constant time.
    pub(crate) fn find(&self, presented: &[u8]) -> Option<&Key> {
        let presented = words(&client_key::digest(presented));
        self.0.iter().fold(None, |found, key| {
            if key.digest.ct_eq(&presented).into() { Some(key) } else { found }
        })
    }
}

/// A digest as it is compared: word by word costs an eighth of byte by byte.
type Words = [u64; 4];

fn words(digest: &Digest) -> Words {
    let (words, _) = digest.as_chunks();
    std::array::from_fn(|n| u64::from_ne_bytes(words[n]))
}

/// What a request shows as its key: a bearer's token, or the password of whatever user; `None` where it shows nothing.
pub(crate) fn shown(headers: &HeaderMap) -> Result<Option<Zeroizing<Vec<u8>>>, AccessError> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(AccessError::SeveralAuthorizations);
    }
    let line = line.as_bytes();
    let (scheme, rest) = line.split_at(line.iter().position(|b| *b == b' ').unwrap_or(line.len()));
    let credentials = rest.trim_ascii();
    let shown = if scheme.eq_ignore_ascii_case(b"bearer") {
        Some(Zeroizing::new(credentials.to_vec()))
    } else if scheme.eq_ignore_ascii_case(b"basic") {
        password(credentials)
    } else {
        None
    };
    Ok(shown.filter(|key| !key.is_empty()))
}

/// RFC 7617: a user has no colon in his name.
fn password(credentials: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let decoded = Zeroizing::new(STANDARD.decode(credentials).ok()?);
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    Some(Zeroizing::new(decoded[colon + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(text: &str, accounts: &[&str]) -> Result<Keys, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        fs::write(&path, text).unwrap();
        let accounts: Vec<String> = accounts.iter().map(|name| (*name).to_owned()).collect();
        let beside = format!("keys file {}: ", dir.path().join("keys").display());
        Keys::read(&path, &accounts).map_err(|err| err.to_string().replace(&beside, ""))
    }

    fn line(name: &str, key: &str, accounts: &[&str]) -> String {
        let accounts = accounts.iter().map(|account| (*account).to_owned()).collect();
        Line::new(name, client_key::digest(key.as_bytes()), accounts).unwrap().to_string()
    }

    #[test]
    fn a_key_is_found_by_its_digest_and_opens_what_its_line_says() {
        let text = [
            "# who may ask",
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
        let sees = |key: &str, account| {
            keys.find(key.as_bytes()).map(|key| (key.name.to_string(), key.scope.holds(account)))
        };
        assert_eq!(sees("K1", "branch"), Some(("php".to_owned(), true)));
        assert_eq!(sees("K2", "branch"), Some(("java".to_owned(), false)));
        assert_eq!(sees("K2", "shop"), Some(("java".to_owned(), true)));
        assert_eq!(sees("K3", "branch"), Some(("java".to_owned(), true)));
        for stranger in ["", "K", "K11", "k1", &line("php", "K1", &[])[4..]] {
            assert_eq!(sees(stranger, "shop"), None);
        }
        assert!(read("# nobody\n", &["shop"]).unwrap().find(b"").is_none());
    }

    #[test]
    fn an_account_that_a_key_may_not_see_does_not_exist_for_it() {
        let names = ["branch", "mall", "shop"].map(str::to_owned);
        let of =
            |accounts: &[&str]| Scope::Only(accounts.iter().map(|it| (*it).to_owned()).collect());
        let (shop, two) = (of(&["shop"]), of(&["branch", "shop"]));
        for (scope, name, expected) in [
            (&Scope::All, "mall", Ok(1)),
            (&Scope::All, "nobody", Err(AccessError::NoSuchAccount)),
            (&shop, "shop", Ok(2)),
            (&shop, "mall", Err(AccessError::NoSuchAccount)),
            (&shop, "nobody", Err(AccessError::NoSuchAccount)),
            (&two, "branch", Ok(0)),
            (&two, "mall", Err(AccessError::NoSuchAccount)),
        ] {
            assert_eq!(scope.find(&names, name), expected, "{scope:?} {name:?}");
        }
        for (scope, expected) in [
            (&Scope::All, Err(AccessError::AmbiguousAccount)),
            (&shop, Ok(2)),
            (&two, Err(AccessError::AmbiguousAccount)),
            (&of(&["nobody"]), Err(AccessError::NoSuchAccount)),
        ] {
            assert_eq!(only(&scope.visible(&names)), expected, "{scope:?}");
        }
        assert_eq!(two.visible(&names), [0, 2]);
        assert_eq!(only(&Scope::All.visible(&names[..1])), Ok(0));
    }

    #[test]
    fn a_key_is_shown_as_a_bearers_token_or_as_a_password() {
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
            let found =
                shown(&headers).unwrap().map(|key| String::from_utf8(key.to_vec()).unwrap());
            assert_eq!(found.as_deref(), expected, "{line:?}");
            headers.append(AUTHORIZATION, "Bearer K1".parse().unwrap());
            assert_eq!(shown(&headers), Err(AccessError::SeveralAuthorizations), "{line:?}");
        }
        assert_eq!(shown(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn all_faults_are_told_at_once_by_the_lines_they_are_on() {
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
            "line 1: this looks like the key itself; the file holds its SHA-256: wxtoken key; \
             line 4: expected NAME SHA256 [ACCOUNT,…], the line that `wxtoken key` prints; \
             line 5: the same SHA-256 as on line 2; \
             line 6: is for an account that is not served here; there are branch, shop"
        );
    }
}
