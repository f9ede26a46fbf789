//! Opaque tokens (`--opaque-tokens`): clients are handed them in place of WeChat's, and they open the gateway only.
//!
//! An opaque token is made from WeChat's token and the digest of the client's key, so that none has to be kept. It is the same after a
//! restart, and on another host with the same documents and keys. It is replaced when WeChat's token is, and ends with the key. To make
//! one takes WeChat's token, which no client is handed, or the seed of a replaced token, which the record beside the document has.

use std::rc::Rc;

use super::keys::{Key, Keys};
use crate::accounts::{Accounts, TokenAge};
use crate::model::client_key::opaque_token::{TokenSeed, tags_of};
use crate::model::document::MAX_TOKEN;
use crate::model::secret::Secret;

/// What an opaque token stands for.
#[derive(Debug)]
pub(crate) struct Opened<'a> {
    pub(crate) key: &'a Key,
    pub(crate) account: usize,
    /// WeChat's token; `None` if it was replaced before this process began.
    pub(crate) token: Option<Rc<Secret>>,
    pub(crate) age: TokenAge,
}

/// Returns the opaque token that the client with this key is handed in place of WeChat's token of the account with this name.
pub(crate) fn token(wechat_token: &Secret, key: &Key, account: &str) -> Secret {
    TokenSeed::of(wechat_token).token(wechat_token.expose().len(), &key.digest(), account)
}

/// Returns what the token that a client presents stands for; `None` if it is no opaque token, or one of a key that was taken out.
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::rc::Rc;

    use super::*;
    use crate::accounts::{AccountPlan, AccountResources};
    use crate::model::account::Account;
    use crate::model::client_key::api_scope::ApiScope;
    use crate::model::client_key::{self, KeyLine, OPAQUE_PREFIX};
    use crate::server::access::AccessRules;

    #[test]
    fn a_token_stands_for_its_key_and_account_while_both_and_the_accounts_own_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let document = r#"{"appid":"wx1","access_token":"T1","expires_in":7200,"created_at":"9000-01-01T00:00:00Z"}"#;
        let plan = |name: &str| {
            let path = dir.path().join(name);
            // One is as long as a token may be.
            let token = if name == "tall" { "T".repeat(MAX_TOKEN) } else { format!("T-{name}") };
            fs::write(&path, document.replace("T1", &token)).unwrap();
            let account = Account::for_tests(path);
            (AccountPlan { account, refresh: None }, None)
        };
        let plans = ["mall", "shop", "tall"].map(plan).into();
        let accounts = Accounts::new(plans, None, &AccountResources::for_tests());
        let path = dir.path().join("keys");
        let keys = |name: &str, accounts: &[&str]| {
            let accounts = accounts.iter().map(|it| (*it).to_owned()).collect();
            let digest = client_key::digest(name.as_bytes());
            let line = KeyLine::new(name, digest, accounts, ApiScope::Usual).unwrap();
            fs::write(&path, line.to_string()).unwrap();
            Keys::read(&path, &["mall", "shop"].map(str::to_owned)).unwrap()
        };
        let (php, of_mall, java) = (keys("php", &[]), keys("php", &["mall"]), keys("java", &[]));
        let key = php.find(b"php").unwrap();
        let own = Secret::new("T-shop".to_owned());
        let presented = token(&own, key, "shop");
        let opened = open(presented.expose(), &php, &accounts).expect("it is one of these");
        assert_eq!((&*opened.key.name, opened.account), ("php", 1));
        assert!(opened.token.is_some_and(|token| token.is("T-shop")));
        let tall = token(&Secret::new("T".repeat(MAX_TOKEN)), key, "tall");
        assert_eq!(tall.expose().len(), MAX_TOKEN);
        assert!(open(tall.expose(), &php, &accounts).is_some_and(|opened| opened.account == 2));
        for other in [
            own,
            token(&Secret::new("T-mall".to_owned()), key, "shop"),
            Secret::new(presented.expose().replace(OPAQUE_PREFIX, "x")),
        ] {
            assert!(open(other.expose(), &php, &accounts).is_none());
        }
        for (keys, what) in [(java, "another key"), (of_mall, "not for the account")] {
            assert!(open(presented.expose(), &keys, &accounts).is_none(), "{what}");
        }
        let rules = AccessRules { keys: Some(Rc::new(php)), ..AccessRules::default() };
        assert!(rules.open_opaque(presented.expose(), &accounts).is_some());
        assert!(AccessRules::default().open_opaque(presented.expose(), &accounts).is_none());
    }
}
