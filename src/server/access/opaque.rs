//! Tokens of wxtoken's own (`--opaque-tokens`), which clients are handed in place of WeChat's and which open the gateway only.
//!
//! A client's token is made of the account's own token and the digest of the client's key, so that nothing has to be kept: it is
//! the same after a restart and on another host with the same documents and keys, is replaced when the account's own is, and
//! ends with the key. It cannot be made without the account's own token, which no client is handed.

use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac::{self, HMAC_SHA512};

use super::keys::{Key, Keys};
use crate::accounts::{Accounts, TokenAge};
use crate::model::account::{self, Tag};
use crate::model::client_key::OPAQUE_PREFIX;
use crate::model::secret::Secret;

/// What follows the prefix: which key and which account it is for, in base64.
const TAG_LENGTH: usize = 16; // characters

/// The least length. A longer token of WeChat's is matched in length: SDKs and databases have room for that.
const MIN_LENGTH: usize = 128; // characters

/// What the message authentication is for, so that no other use gives the same result.
const PURPOSE: &[u8] = b"wxtoken opaque token";

/// What a client's token stands for.
#[derive(Debug)]
pub(crate) struct Opened<'a> {
    pub(crate) key: &'a Key,
    pub(crate) account: usize,
    /// The account's own token.
    pub(crate) token: Rc<Secret>,
    pub(crate) age: TokenAge,
}

/// Returns the token that the client with this key is handed in place of `own`, that of the account with this name.
pub(crate) fn token(own: &Secret, key: &Key, account: &str) -> Secret {
    let mut text = String::with_capacity(own.expose().len().max(MIN_LENGTH));
    text += OPAQUE_PREFIX;
    URL_SAFE_NO_PAD.encode_string([key.tag(), account::tag(account)].concat(), &mut text);
    let secret = hmac::Key::new(HMAC_SHA512, own.expose().as_bytes());
    let length = own.expose().len().max(MIN_LENGTH);
    for block in 0_u32.. {
        let mut mac = hmac::Context::with_key(&secret);
        mac.update(PURPOSE);
        mac.update(&block.to_be_bytes());
        mac.update(&key.digest());
        mac.update(account.as_bytes());
        URL_SAFE_NO_PAD.encode_string(mac.sign(), &mut text);
        if text.len() >= length {
            break;
        }
    }
    text.truncate(length);
    Secret::new(text)
}

/// Returns what a token stands for that a client presents; `None` if it is none of these, or of a key that was taken out.
pub(crate) fn open<'a>(presented: &str, keys: &'a Keys, accounts: &Accounts) -> Option<Opened<'a>> {
    let (key_tag, account_tag) = tags_of(presented)?;
    for key in keys.tagged(key_tag) {
        for account in accounts.tagged(account_tag).iter().copied() {
            let name = &accounts.names()[account];
            if !key.scope.contains(name) {
                continue;
            }
            let found = accounts.find_token(account, |own| token(own, key, name).is(presented));
            if let Some((token, age)) = found {
                return Some(Opened { key, account, token, age });
            }
        }
    }
    None
}

/// Returns the tags of key and account in a token.
fn tags_of(token: &str) -> Option<(Tag, Tag)> {
    let tags = token.strip_prefix(OPAQUE_PREFIX)?.get(..TAG_LENGTH)?;
    let tags = URL_SAFE_NO_PAD.decode(tags).ok()?;
    let (key, account) = tags.split_at_checked(size_of::<Tag>())?;
    Some((key.try_into().ok()?, account.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::model::client_key::api_scope::ApiScope;
    use crate::model::client_key::{self, KeyLine};

    fn keys() -> Keys {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let lines = ["php", "java"].map(|name| {
            let digest = client_key::digest(name.as_bytes());
            KeyLine::new(name, digest, Vec::new(), ApiScope::Usual).unwrap().to_string()
        });
        fs::write(&path, lines.join("\n")).unwrap();
        Keys::read(&path, &[]).unwrap()
    }

    #[test]
    fn a_token_is_as_long_as_wechats_and_never_short_and_tells_its_key_and_account() {
        let keys = keys();
        let key = keys.find(b"php").unwrap();
        for (own, expected) in [(1, 128), (128, 128), (129, 129), (157, 157), (512, 512)] {
            let own = Secret::new("T".repeat(own));
            let token = token(&own, key, "shop");
            assert_eq!(token.expose().len(), expected);
            assert_eq!(tags_of(token.expose()), Some((key.tag(), account::tag("shop"))));
        }
    }

    #[test]
    fn another_key_account_or_own_token_makes_another_token_in_every_part() {
        let (keys, own) = (keys(), Secret::new("T".repeat(512)));
        let (php, java) = (keys.find(b"php").unwrap(), keys.find(b"java").unwrap());
        let one = token(&own, php, "shop");
        assert!(token(&own, php, "shop").is(one.expose()), "it is always the same");
        let (start, other) = (OPAQUE_PREFIX.len() + TAG_LENGTH, Secret::new("U".repeat(512)));
        let others =
            [token(&other, php, "shop"), token(&own, java, "shop"), token(&own, php, "mall")];
        for other in others {
            let pairs = one.expose()[start..].bytes().zip(other.expose()[start..].bytes());
            let same = pairs.filter(|(a, b)| a == b).count();
            assert!(same < 50, "{same}");
        }
    }

    #[test]
    fn what_is_no_token_of_its_own_has_no_tags() {
        let good = token(&Secret::new("T".to_owned()), keys().find(b"php").unwrap(), "shop");
        let rest = &good.expose()[OPAQUE_PREFIX.len()..];
        for text in ["", OPAQUE_PREFIX, "T", rest, &good.expose()[..OPAQUE_PREFIX.len() + 15]] {
            assert_eq!(tags_of(text), None, "{text}");
        }
        assert_eq!(tags_of(&format!("{OPAQUE_PREFIX}{}", "!".repeat(200))), None);
    }
}
