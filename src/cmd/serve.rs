//! `wxtoken serve`: hands out published tokens over HTTP, to allowed addresses only. Never asks WeChat, and never reads
//! the AppSecret.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use anyhow::Result;

use super::announce;
use crate::cli::{Common, Serve};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Account};
use crate::exit::Exit;
use crate::handout::Handout;
use crate::report::error;
use crate::server::{self, Allowlist, Listen, Lookup, Options, Tokens};

pub(crate) fn run(common: &Common, args: &Serve) -> Result<Exit> {
    let allow = match args.allow.as_slice() {
        [] => Ok(Allowlist::loopback()),
        given => Allowlist::parse(given),
    };
    let (account, (listen, allow)) = config::both(
        config::account(common, &args.account),
        config::both(Listen::parse_all(&args.listen), allow),
    )?;
    if let (true, Some(address)) =
        (args.allow.is_empty(), listen.iter().find(|it| it.is_beyond_loopback()))
    {
        error!("serve: listens on {address} and allows nobody beyond this host: give --allow");
    }
    let options = Options { listen, allow, max_connections: args.max_connections as usize };
    server::serve(options, Rc::new(Accounts::of([account])), announce)?;
    Ok(Exit::Done)
}

/// Where the listener gets its tokens: the accounts' published documents, by the accounts' names.
struct Accounts(RefCell<BTreeMap<String, Handout>>);

impl Accounts {
    fn of(accounts: impl IntoIterator<Item = Account>) -> Accounts {
        let by_name = |account: Account| (account.name.clone(), Handout::of(account));
        Accounts(RefCell::new(accounts.into_iter().map(by_name).collect()))
    }
}

impl Tokens for Accounts {
    fn token(&self, account: Option<&str>) -> Lookup {
        let mut accounts = self.0.borrow_mut();
        let found = match account {
            Some(name) => accounts.get_mut(name),
            None if accounts.len() > 1 => return Lookup::WhichAccount,
            None => accounts.values_mut().next(),
        };
        match found.map(|handout| handout.answer(SystemClock.now())) {
            Some(Some(answer)) => Lookup::Token(answer),
            Some(None) => Lookup::NoToken,
            None => Lookup::NoSuchAccount,
        }
    }

    fn not_ready(&self) -> Vec<String> {
        let (mut accounts, now) = (self.0.borrow_mut(), SystemClock.now());
        let waiting = accounts.iter_mut().filter_map(|(name, handout)| {
            let has_token = handout.answer(now).is_some();
            (!has_token).then(|| name.clone())
        });
        waiting.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::api::Api;

    fn account(dir: &Path, name: &str) -> Account {
        Account {
            name: name.to_owned(),
            appid: None,
            api: Api::Stable,
            refresh_before: Duration::from_secs(300),
            document: dir.join(name),
        }
    }

    #[test]
    fn an_account_is_found_by_its_exact_name_or_by_being_the_only_one() {
        let dir = tempfile::tempdir().unwrap();
        // Still alive when nobody runs this test any more.
        let document = r#"{"appid":"wx1","access_token":"T1","expires_in":7200,"created_at":"9000-01-01T00:00:00Z"}"#;
        fs::write(dir.path().join("shop"), document).unwrap();
        let accounts =
            |names: &[&str]| Accounts::of(names.iter().map(|name| account(dir.path(), name)));
        let is_token = |lookup| matches!(lookup, Lookup::Token(json) if json.starts_with(br#"{"access_token":"T1","#));

        let one = accounts(&["shop"]);
        assert!(is_token(one.token(None)) && is_token(one.token(Some("shop"))));
        assert_eq!(one.not_ready(), [""; 0]);
        for other in ["", "Shop", "shop/", "%73hop", "../shop", "/shop", "shop\0"] {
            assert_eq!(one.token(Some(other)), Lookup::NoSuchAccount, "{other:?}");
        }

        let several = accounts(&["shop", "branch", "another"]);
        assert_eq!(several.token(None), Lookup::WhichAccount);
        assert!(is_token(several.token(Some("shop"))));
        assert_eq!(several.token(Some("branch")), Lookup::NoToken);
        assert_eq!(several.not_ready(), ["another", "branch"]);

        assert_eq!(accounts(&[]).token(None), Lookup::NoSuchAccount);
        assert_eq!(accounts(&["branch"]).token(None), Lookup::NoToken);
    }
}
