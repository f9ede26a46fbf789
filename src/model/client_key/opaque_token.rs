//! Opaque tokens (`serve --opaque-tokens`): how one is made from WeChat's token and a client's key.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{Context, SHA256};
use ring::hmac::{self, HMAC_SHA512};
use serde::{Deserialize, Serialize};

use super::{Digest, OPAQUE_PREFIX};
use crate::model::account::{self, Tag};
use crate::model::secret::Secret;

/// The length of what follows the prefix: for which key and which account the token is, in base64.
const TAG_LENGTH: usize = 16; // characters

/// The least length of an opaque token. If WeChat's token is longer, both have the same length: SDKs and databases have room for that.
const MIN_LENGTH: usize = 128; // characters

/// Part of what is hashed, so that no other use of the hashes gives the same result.
const PURPOSE: &[u8] = b"wxtoken opaque token";

/// Makes the opaque tokens that stand for one of WeChat's tokens, for all keys. It does not reveal WeChat's token, and its opaque tokens
/// open the gateway for as long as the seed is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub(crate) struct TokenSeed(Secret);

impl From<String> for TokenSeed {
    fn from(text: String) -> TokenSeed {
        TokenSeed(Secret::new(text))
    }
}

impl From<TokenSeed> for String {
    fn from(seed: TokenSeed) -> String {
        seed.0.expose().to_owned()
    }
}

impl TokenSeed {
    /// Returns the seed of one of WeChat's tokens.
    pub(crate) fn of(wechat_token: &Secret) -> TokenSeed {
        let mut context = Context::new(&SHA256);
        context.update(PURPOSE);
        context.update(wechat_token.expose().as_bytes());
        TokenSeed(Secret::new(URL_SAFE_NO_PAD.encode(context.finish())))
    }

    /// Returns the opaque token of the client whose key has this digest, for the account with this name. It has `length` characters, or
    /// [`MIN_LENGTH`] if that is more.
    pub(crate) fn token(&self, length: usize, key: &Digest, account: &str) -> Secret {
        let length = length.max(MIN_LENGTH);
        let mut text = String::with_capacity(length);
        text += OPAQUE_PREFIX;
        URL_SAFE_NO_PAD.encode_string([tag(key), account::tag(account)].concat(), &mut text);
        let secret = hmac::Key::new(HMAC_SHA512, self.0.expose().as_bytes());
        for block in 0_u32.. {
            let mut mac = hmac::Context::with_key(&secret);
            mac.update(PURPOSE);
            mac.update(&block.to_be_bytes());
            mac.update(&(length as u64).to_be_bytes());
            mac.update(key);
            mac.update(account.as_bytes());
            URL_SAFE_NO_PAD.encode_string(mac.sign(), &mut text);
            if text.len() >= length {
                break;
            }
        }
        text.truncate(length);
        Secret::new(text)
    }
}

/// Returns the tag of the key with this digest.
pub(crate) fn tag(key: &Digest) -> Tag {
    std::array::from_fn(|n| key[n])
}

/// Returns the tags of key and account in an opaque token; `None` for any other token.
pub(crate) fn tags_of(token: &str) -> Option<(Tag, Tag)> {
    let tags = token.strip_prefix(OPAQUE_PREFIX)?.get(..TAG_LENGTH)?;
    let tags = URL_SAFE_NO_PAD.decode(tags).ok()?;
    let (key, account) = tags.split_at_checked(size_of::<Tag>())?;
    Some((key.try_into().ok()?, account.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::client_key::digest;

    fn token(own: &str, key: &str, account: &str) -> Secret {
        let seed = TokenSeed::of(&Secret::new(own.to_owned()));
        seed.token(own.len(), &digest(key.as_bytes()), account)
    }

    #[test]
    fn a_token_is_as_long_as_wechats_and_never_short_and_tells_its_key_and_account() {
        for (own, expected) in [(1, 128), (128, 128), (129, 129), (157, 157), (512, 512)] {
            let token = token(&"T".repeat(own), "php", "shop");
            assert_eq!(token.expose().len(), expected);
            let tags = (tag(&digest(b"php")), account::tag("shop"));
            assert_eq!(tags_of(token.expose()), Some(tags));
        }
        let (digest, size) = (digest(b"php"), size_of::<Tag>());
        assert_eq!(tag(&digest), digest[..size], "the beginning of its SHA-256");
    }

    #[test]
    fn another_key_account_length_or_own_token_makes_another_token_in_every_part() {
        let own = "T".repeat(512);
        let one = token(&own, "php", "shop");
        assert!(token(&own, "php", "shop").is(one.expose()), "it is always the same");
        let (start, other) = (OPAQUE_PREFIX.len() + TAG_LENGTH, "U".repeat(512));
        let shorter = TokenSeed::of(&Secret::new(own.clone())).token(511, &digest(b"php"), "shop");
        let others = [
            token(&other, "php", "shop"),
            token(&own, "java", "shop"),
            token(&own, "php", "mall"),
            shorter,
        ];
        for other in others {
            let pairs = one.expose()[start..].bytes().zip(other.expose()[start..].bytes());
            let same = pairs.filter(|(a, b)| a == b).count();
            assert!(same < 50, "{same}");
        }
    }

    #[test]
    fn a_seed_that_was_kept_makes_the_same_tokens_and_does_not_show_the_own_token() {
        let own = Secret::new("T".repeat(157));
        let kept = serde_json::to_string(&TokenSeed::of(&own)).unwrap();
        assert_eq!(kept.len(), 45);
        assert!(!kept.contains("TTT"), "{kept}");
        let seed: TokenSeed = serde_json::from_str(&kept).unwrap();
        let made = seed.token(157, &digest(b"php"), "shop");
        assert!(token(own.expose(), "php", "shop").is(made.expose()));
        assert!(!format!("{seed:?}").contains(&kept[1..9]));
    }

    #[test]
    fn what_is_no_token_of_its_own_has_no_tags() {
        let good = token("T", "php", "shop");
        let rest = &good.expose()[OPAQUE_PREFIX.len()..];
        for text in ["", OPAQUE_PREFIX, "T", rest, &good.expose()[..OPAQUE_PREFIX.len() + 15]] {
            assert_eq!(tags_of(text), None, "{text}");
        }
        assert_eq!(tags_of(&format!("{OPAQUE_PREFIX}{}", "!".repeat(200))), None);
    }
}
