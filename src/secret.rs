//! What must not be shown: an AppSecret (ours to keep) or a token (ours to hand out).
//!
//! A `Secret` cannot be printed; `grep 'expose()'` lists every place where one leaves.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A text that no log, error or panic can show; its memory is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Zeroizing<String>);

impl Secret {
    pub(crate) fn new(text: String) -> Secret {
        Secret(Zeroizing::new(text))
    }

    /// The text itself. Whoever calls this sends it somewhere.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Whether this is the text, found out in a time that tells nothing about where it differs.
    pub(crate) fn is(&self, text: &str) -> bool {
        self.0.as_bytes().ct_eq(text.as_bytes()).into()
    }

    /// The first 8 hex digits of its SHA-256: a name for a token that gives nothing away.
    pub(crate) fn fingerprint(&self) -> String {
        let digest = ring::digest::digest(&ring::digest::SHA256, self.0.as_bytes());
        digest.as_ref()[..4].iter().map(|byte| format!("{byte:02x}")).collect()
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
    fn a_secret_is_not_printed_but_can_be_told_from_another() {
        let secret = Secret::new("abc".to_owned());
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "Secret(…) Some(Secret(…))");
        // echo -n abc | sha256sum
        assert_eq!(secret.fingerprint(), "ba7816bf");
    }
}
