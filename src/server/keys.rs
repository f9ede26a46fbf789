//! The clients' keys: which of them a secret word is, and what its holder may see. Keeps digests only, never a key.

use std::rc::Rc;

use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

/// The accounts that somebody may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    All,
    Only(Vec<String>),
}

impl Scope {
    pub(super) fn holds(&self, account: &str) -> bool {
        match self {
            Scope::All => true,
            Scope::Only(accounts) => accounts.iter().any(|name| name == account),
        }
    }
}

/// One client's key.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) name: Rc<str>,
    digest: [u8; 32],
    pub(super) scope: Scope,
}

/// All clients' keys. Empty means nobody.
#[derive(Debug, Default)]
pub(crate) struct Keys(Vec<Key>);

impl Keys {
    /// The key that this is. All are compared, each in constant time.
    pub(super) fn find(&self, presented: &str) -> Option<&Key> {
        let presented = digest(&SHA256, presented.as_bytes());
        let is_it = |key: &&Key| bool::from(key.digest.as_slice().ct_eq(presented.as_ref()));
        self.0.iter().rfind(is_it)
    }
}
