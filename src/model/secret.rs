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

/// The characters of an AppSecret: hex digits at WeChat, letters, digits, `-` and `_` at WeCom.
const APPSECRET: usize = 32;
const CORPSECRET: usize = 43;

/// What a client's key begins with, and how long it is.
const KEY: (&str, usize) = ("wxk_", 47);

/// A token is longer, and hardly anything else that is one word.
const TOKEN: usize = 100;

/// Whether there is a word in this text that has the form of an AppSecret, of a client's key or of a token, so that it is
/// not to be shown.
pub(crate) fn may_hold_secret(text: &str) -> bool {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    text.split(|c| !is_of_word(c)).any(|word| {
        let has = |is: fn(&u8) -> bool| word.as_bytes().iter().any(is);
        match word.len() {
            APPSECRET => word.bytes().all(|byte| byte.is_ascii_hexdigit()),
            CORPSECRET => {
                has(u8::is_ascii_digit)
                    && has(u8::is_ascii_lowercase)
                    && has(u8::is_ascii_uppercase)
            }
            length => length >= TOKEN || (length == KEY.1 && word.starts_with(KEY.0)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_key_and_a_token_are_known_by_their_form_too() {
        let (key, token) = (format!("wxk_{}", "A".repeat(43)), format!("72_{}", "x".repeat(130)));
        for secret in [&key, &token] {
            assert!(may_hold_secret(&format!("/etc/wxtoken/{secret}.key")), "{secret}");
        }
        for name in [&key[1..], &key[..46], "wxk_", &"x".repeat(TOKEN - 1)] {
            assert!(!may_hold_secret(name), "{name}");
        }
    }

    #[test]
    fn a_secret_is_not_printed_but_can_be_told_from_another() {
        let secret = Secret::new("abc".to_owned());
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "Secret(…) Some(Secret(…))");
        // echo -n abc | sha256sum
        assert_eq!(secret.fingerprint(), "ba7816bf");
    }

    #[test]
    fn a_word_in_the_form_of_an_appsecret_is_noticed_wherever_it_stands() {
        let wechat = "5ec2e75ec2e75ec2e75ec2e75ec2e75e";
        let wecom = "xPk1N_Zx9oRrMnIqS-mG4g8tW7vHbY2dQcJ5eLfA0uK";
        assert_eq!((wechat.len(), wecom.len()), (32, 43));
        for text in [wechat, wecom, &wechat.to_uppercase()] {
            assert!(may_hold_secret(text), "{text}");
            assert!(may_hold_secret(&format!("https://x/?secret={text}&a=b")), "{text}");
            assert!(!may_hold_secret(&format!("{text}a")), "{text}");
        }
        for text in
            ["", "wx0123456789abcdef", "api.weixin.qq.com", &"x".repeat(32), &"_".repeat(43)]
        {
            assert!(!may_hold_secret(text), "{text}");
        }
    }
}
