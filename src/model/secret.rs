//! Text that must not be shown: AppSecrets, tokens, keys.
//!
//! A `Secret` cannot be printed; `grep 'expose()'` lists every place where one is used.

use std::fmt;

use ring::digest::{Context, SHA256};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

pub(crate) use crate::log::may_hold_secret;

/// A text that no log, error or panic can show. Its memory is wiped on drop.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a text.
    pub(crate) fn new(text: String) -> Secret {
        Secret(Zeroizing::new(text))
    }

    /// Returns the text itself. Callers must not show it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Compares in constant time.
    pub(crate) fn is(&self, text: &str) -> bool {
        self.0.as_bytes().ct_eq(text.as_bytes()).into()
    }

    /// Returns the first 8 hex digits of the SHA-256, to identify a token without revealing it.
    pub(crate) fn fingerprint(&self) -> String {
        let digest = ring::digest::digest(&SHA256, self.0.as_bytes());
        hex(&digest.as_ref()[..4])
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Random bytes that go into the hashes of secrets, so that the same secret has a different hash in each file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Salt(String);

impl Salt {
    /// Returns a new salt; `None` if the operating system gives no random bytes.
    pub(crate) fn new() -> Option<Salt> {
        // As long as a hash: the redaction of logs takes no word of this length for a secret.
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).ok()?;
        Some(Salt(hex(&bytes)))
    }

    /// Returns the SHA-256 of this salt and of the parts, each with its length. So fast a hash is enough for an AppSecret: its 128
    /// random bits cannot be guessed.
    pub(crate) fn hash(&self, parts: &[&str]) -> String {
        let mut context = Context::new(&SHA256);
        for part in [self.0.as_str()].iter().chain(parts) {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        hex(context.finish().as_ref())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shown_by_its_fingerprint_only() {
        let secret = Secret::new("abc".to_owned());
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "Secret(…) Some(Secret(…))");
        // echo -n abc | sha256sum
        assert_eq!(secret.fingerprint(), "ba7816bf");
    }

    #[test]
    fn a_salted_hash_depends_on_the_salt_and_on_each_part_and_has_no_form_of_a_secret() {
        let (salt, other) = (Salt::new().unwrap(), Salt::new().unwrap());
        let hash = salt.hash(&["ab", "c"]);
        assert_eq!(hash, salt.hash(&["ab", "c"]));
        for another in [salt.hash(&["a", "bc"]), salt.hash(&["abc"]), other.hash(&["ab", "c"])] {
            assert_ne!(hash, another);
        }
        assert!(!may_hold_secret(&format!("{hash} {}", salt.0)));
    }

    #[test]
    fn a_secret_is_its_own_text_and_no_other() {
        let secret = Secret::new("abc".to_owned());
        assert!(secret.is("abc"));
        for other in ["", "ab", "abd", "abcd"] {
            assert!(!secret.is(other), "{other}");
        }
    }
}
