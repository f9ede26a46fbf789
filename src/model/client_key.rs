//! A client's key: what it looks like, and the line that stands for it in a keys file. `wxtoken key` writes such lines
//! and `serve` reads them by the same rule. Makes no randomness and keeps no key.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::SHA256;

use crate::model::secret::Secret;

/// Every key begins so: a scanner of repositories and logs can look for it, and a person sees what it is.
const PREFIX: &str = "wxk_";

/// As many as nobody can guess, so that a digest without salt gives nothing away.
pub(crate) const RANDOM_BYTES: usize = 32;

const LONGEST_NAME: usize = 64;
const LONGEST_ACCOUNT: usize = 32;

const NOT_A_LINE: &str = "expected NAME SHA256 [ACCOUNT,…], the line that `wxtoken key` prints";
const NOT_A_NAME: &str = "a name begins with a letter or digit, and has no more than 64 letters, digits, '.', '_' and '-'";
const A_KEYS_NAME: &str = "a name does not begin with wxk_, which keys begin with";
const NOT_A_DIGEST: &str = "the second word must be a SHA-256 in 64 hex digits";
pub(crate) const NOT_AN_ACCOUNT: &str = "an account begins with a small letter or digit, and has no more than 32 small letters, digits, '_' and '-'";
const TOO_MANY_WORDS: &str =
    "there is a fourth word; accounts are separated by commas, without blanks";
const THE_KEY_ITSELF: &str =
    "this looks like the key itself; the file holds its SHA-256: wxtoken key";
const WITH_ITS_LABEL: &str = "the line begins after the word `line:`";

/// SHA-256 of a key.
pub(crate) type Digest = [u8; 32];

/// A new key: the prefix, and characters that are safe in URLs, shells and headers.
pub(crate) fn of_randomness(random: &[u8; RANDOM_BYTES]) -> Secret {
    Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random)))
}

pub(crate) fn digest(key: &[u8]) -> Digest {
    let mut digest = Digest::default();
    digest.copy_from_slice(ring::digest::digest(&SHA256, key).as_ref());
    digest
}

/// What a keys file says of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Whose key it is. Two keys may have one name, while one replaces the other.
    pub(crate) name: String,
    pub(crate) digest: Digest,
    /// The accounts that it is for; empty means all.
    pub(crate) accounts: Vec<String>,
}

impl Line {
    /// The line for this key; the error says which name cannot be one.
    pub(crate) fn new(
        name: &str,
        digest: Digest,
        accounts: Vec<String>,
    ) -> Result<Line, &'static str> {
        if !is_name(name) {
            return Err(NOT_A_NAME);
        }
        if name.starts_with(PREFIX) {
            return Err(A_KEYS_NAME);
        }
        if !accounts.iter().all(|account| is_account(account)) {
            return Err(NOT_AN_ACCOUNT);
        }
        Ok(Line { name: name.to_owned(), digest, accounts })
    }

    /// Reads a line; the error is the same whatever stands there, which may be a key in the wrong place.
    pub(crate) fn parse(text: &str) -> Result<Line, &'static str> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        if words.iter().take(2).any(|word| word.starts_with(PREFIX)) {
            return Err(THE_KEY_ITSELF);
        }
        match words[..] {
            ["line:", ..] => Err(WITH_ITS_LABEL),
            [name, digest] => Line::new(name, of_hex(digest)?, Vec::new()),
            [name, digest, accounts] => {
                Line::new(name, of_hex(digest)?, accounts.split(',').map(str::to_owned).collect())
            }
            [_, _, _, _, ..] => Err(TOO_MANY_WORDS),
            _ => Err(NOT_A_LINE),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.name)?;
        self.digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        if self.accounts.is_empty() { Ok(()) } else { write!(f, " {}", self.accounts.join(",")) }
    }
}

/// Whether a key can be called so: `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`.
fn is_name(text: &str) -> bool {
    text.len() <= LONGEST_NAME
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Whether an account can be called so: `[a-z0-9][a-z0-9_-]{0,31}`.
pub(crate) fn is_account(text: &str) -> bool {
    let is_small = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= LONGEST_ACCOUNT
        && text.bytes().next().is_some_and(is_small)
        && text.bytes().all(|byte| is_small(byte) || b"_-".contains(&byte))
}

fn of_hex(text: &str) -> Result<Digest, &'static str> {
    let nibble = |digit: u8| char::from(digit).to_digit(16).ok_or(NOT_A_DIGEST);
    let mut digest = Digest::default();
    if text.len() != 2 * digest.len() {
        return Err(NOT_A_DIGEST);
    }
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = (nibble(pair[0])? << 4 | nibble(pair[1])?) as u8;
    }
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// printf wxk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA | sha256sum
    const OF_ZEROS: &str = "8d39a30cbb22673feff689ca74b75b7e245e869172629df2273f860fa2f074ff";

    #[test]
    fn a_key_is_a_prefix_and_43_characters_that_need_no_quoting() {
        let zeros = of_randomness(&[0; RANDOM_BYTES]);
        assert_eq!(zeros.expose(), format!("wxk_{}", "A".repeat(43)));
        let ones = of_randomness(&[0xff; RANDOM_BYTES]);
        assert_eq!(ones.expose().len(), 47);
        assert!(
            ones.expose().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        );
        let line = Line {
            name: "php".into(),
            digest: digest(zeros.expose().as_bytes()),
            accounts: vec![],
        };
        assert_eq!(line.to_string(), format!("php {OF_ZEROS}"));
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        for accounts in [&[][..], &["shop"], &["shop", "0-branch_2"], &["wxk_"]] {
            let accounts = accounts.iter().map(|account| (*account).to_owned()).collect();
            let line = Line::new("php.web-1", digest(b"K"), accounts).unwrap();
            assert_eq!(Line::parse(&line.to_string()), Ok(line));
        }
        let spread = Line::parse(&format!(" \tphp\t {}  shop ", OF_ZEROS.to_uppercase())).unwrap();
        assert_eq!(spread.to_string(), format!("php {OF_ZEROS} shop"));
    }

    #[test]
    fn a_faulty_line_is_told_by_its_fault_and_never_by_what_stands_there() {
        let key = of_randomness(&[7; RANDOM_BYTES]);
        let key = key.expose();
        let long = |n: usize| "n".repeat(n);
        for (line, expected) in [
            (long(64), NOT_A_LINE),
            (format!("{} {OF_ZEROS}", long(65)), NOT_A_NAME),
            (format!("-php {OF_ZEROS}"), NOT_A_NAME),
            (format!("p\u{e9} {OF_ZEROS}"), NOT_A_NAME),
            (format!("a/b {OF_ZEROS}"), NOT_A_NAME),
            (format!("php {}", &OF_ZEROS[1..]), NOT_A_DIGEST),
            (format!("php {OF_ZEROS}0"), NOT_A_DIGEST),
            (format!("php +{}", &OF_ZEROS[1..]), NOT_A_DIGEST),
            (format!("php g{}", &OF_ZEROS[1..]), NOT_A_DIGEST),
            (format!("php \u{e9}{}", &OF_ZEROS[2..]), NOT_A_DIGEST),
            (format!("php {OF_ZEROS} Shop"), NOT_AN_ACCOUNT),
            (format!("php {OF_ZEROS} shop,"), NOT_AN_ACCOUNT),
            (format!("php {OF_ZEROS} ,"), NOT_AN_ACCOUNT),
            (format!("php {OF_ZEROS} _shop"), NOT_AN_ACCOUNT),
            (format!("php {OF_ZEROS} {}", long(33)), NOT_AN_ACCOUNT),
            (format!("php {OF_ZEROS} shop branch"), TOO_MANY_WORDS),
            (format!("line: php {OF_ZEROS}"), WITH_ITS_LABEL),
            (format!("key:  {key}"), THE_KEY_ITSELF),
            (format!("php {key}"), THE_KEY_ITSELF),
            (key.to_owned(), THE_KEY_ITSELF),
            (format!("php {OF_ZEROS} {key}"), NOT_AN_ACCOUNT),
        ] {
            assert_eq!(Line::parse(&line), Err(expected), "{line}");
        }
        assert_eq!(Line::new("wxk_php", digest(b"K"), vec![]), Err(A_KEYS_NAME));
        assert!(Line::parse(&format!("{} {OF_ZEROS} {}", long(64), long(32))).is_ok());
    }
}
