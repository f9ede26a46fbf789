//! Tokens of wxtoken's own (`--opaque-tokens`), which clients are handed in place of WeChat's and which open the gateway only.
//!
//! A client's token is made of the account's own token and the digest of the client's key, so that none has to be kept: it is
//! the same after a restart and on another host with the same documents and keys, is replaced when the account's own is, and
//! ends with the key. It cannot be made without the account's own token, which no client is handed, or what the record beside the
//! document has of one that was replaced.

use std::rc::Rc;

use super::keys::{Key, Keys};
use crate::accounts::{Accounts, TokenAge};
use crate::model::client_key::opaque_token::{TokenSeed, tags_of};
use crate::model::document::MAX_TOKEN;
use crate::model::secret::Secret;

/// What a client's token stands for.
#[derive(Debug)]
pub(crate) struct Opened<'a> {
    pub(crate) key: &'a Key,
    pub(crate) account: usize,
    /// The account's own token; `None` if it was replaced before this process began.
    pub(crate) token: Option<Rc<Secret>>,
    pub(crate) age: TokenAge,
}

/// Returns the token that the client with this key is handed in place of `own`, that of the account with this name.
pub(crate) fn token(own: &Secret, key: &Key, account: &str) -> Secret {
    TokenSeed::of(own).token(own.expose().len(), &key.digest(), account)
}

/// Returns what a token stands for that a client presents; `None` if it is none of these, or of a key that was taken out.
pub(crate) fn open<'a>(presented: &str, keys: &'a Keys, accounts: &Accounts) -> Option<Opened<'a>> {
    let (key_tag, account_tag) = tags_of(presented)?;
    let length = presented.len();
    if length > MAX_TOKEN {
        return None;
    }
    for key in keys.tagged(key_tag) {
        let digest = key.digest();
        for account in accounts.tagged(account_tag).iter().copied() {
            let name = &accounts.names()[account];
            if !key.scope.contains(name) {
                continue;
            }
            let found = accounts
                .find_by_seed(account, |seed| seed.token(length, &digest, name).is(presented));
            if let Some((token, age)) = found {
                return Some(Opened { key, account, token, age });
            }
        }
    }
    None
}
