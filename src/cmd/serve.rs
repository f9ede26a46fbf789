//! `wxtoken serve`: hands out published tokens over HTTP, to allowed addresses only. Never asks WeChat, and never reads
//! the AppSecret.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use hyper::body::Bytes;
use tokio::task::LocalSet;

use super::announce;
use crate::cli::{Common, Serve};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Account};
use crate::exit::Exit;
use crate::handout::Handout;
use crate::report::error;
use crate::server::{
    self, Access, Allowlist, Bound, Lack, Listen, Obtained, Options, Reloaded, Seen, SeenToken,
    Token, Tokens, Wish,
};

/// Why there is no token where nobody asks WeChat, and when to ask again: soon enough after the next `fetch`, whenever
/// that is, and too seldom to be a load.
const NO_TOKEN: &str =
    "there is no live token to hand out; run `wxtoken status` on the server to see why";
const RETRY_AFTER: Duration = Duration::from_secs(10);

pub(crate) fn run(common: &Common, args: &Serve) -> Result<Exit> {
    let access = {
        let allow = args.allow.clone();
        Reloaded::new("access rules", Vec::new(), move || {
            let allow = match allow.as_slice() {
                [] => Allowlist::loopback(),
                given => Allowlist::parse(given)?,
            };
            Ok(Access { allow, ..Access::default() })
        })
    };
    let (account, (listen, access)) = config::both(
        config::account(common, &args.account),
        config::both(Listen::parse_all(&args.listen), access),
    )?;
    if let (true, Some(address)) =
        (args.allow.is_empty(), listen.iter().find(|it| it.is_beyond_loopback()))
    {
        error!("serve: listens on {address} and allows nobody beyond this host: give --allow");
    }
    let bound = Bound::all(&listen)?;
    let options = Options { access, max_connections: args.max_connections as usize };
    let tokens = Rc::new(Accounts::of([account]));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    let runtime = runtime.context("cannot start the event loop")?;
    // What is still running when this returns ends with it.
    LocalSet::new().block_on(&runtime, server::serve(bound, options, tokens, announce))?;
    Ok(Exit::Done)
}

/// Where the listener gets its tokens: the accounts' published documents.
struct Accounts {
    /// Sorted; an account's place is its number.
    names: Vec<String>,
    handouts: RefCell<Vec<Handout>>,
}

impl Accounts {
    fn of(accounts: impl IntoIterator<Item = Account>) -> Accounts {
        let mut accounts: Vec<Account> = accounts.into_iter().collect();
        accounts.sort_by(|a, b| a.name.cmp(&b.name));
        let names = accounts.iter().map(|account| account.name.clone()).collect();
        Accounts { names, handouts: RefCell::new(accounts.into_iter().map(Handout::of).collect()) }
    }
}

impl Tokens for Accounts {
    fn names(&self) -> &[String] {
        &self.names
    }

    fn has_appid(&self, account: usize, appid: &str) -> bool {
        let handout = &mut self.handouts.borrow_mut()[account];
        match &handout.account().appid {
            Some(known) => known == appid,
            // Whoever only reads need not have been told it: the document knows.
            None => {
                handout.document(SystemClock.now()).is_some_and(|document| document.appid == appid)
            }
        }
    }

    fn token(&self, account: usize) -> Option<Token> {
        self.handouts.borrow_mut()[account].answer(SystemClock.now())
    }

    fn ticket(&self, _account: usize, _kind: &str) -> Option<Bytes> {
        None
    }

    fn holder_of(&self, token: &str) -> Option<usize> {
        let now = SystemClock.now();
        self.handouts.borrow_mut().iter_mut().position(|handout| handout.is_token(token, now))
    }

    fn can_refresh(&self) -> bool {
        false
    }

    fn obtain(&self, account: usize, _wish: Wish) -> Pin<Box<dyn Future<Output = Obtained> + '_>> {
        let token = self.token(account);
        Box::pin(async {
            token.map_or_else(
                || Obtained::None(Lack { why: NO_TOKEN.to_owned(), retry_after: RETRY_AFTER }),
                Obtained::Token,
            )
        })
    }

    fn seen(&self, account: usize) -> Seen {
        let (mut handouts, now) = (self.handouts.borrow_mut(), SystemClock.now());
        let handout = &mut handouts[account];
        let (name, appid) = (handout.account().name.clone(), handout.account().appid.clone());
        let (api, refresh_before) = (handout.account().api, handout.account().refresh_before);
        let document = handout.document(now);
        let appid = appid.or_else(|| document.map(|document| document.appid.clone()));
        let token = document.map(|document| SeenToken {
            created_at: document.created_at,
            expires_at: document.expires_at(),
            life: document.promise(now, api, refresh_before),
            expires_in: document.expires_in,
            fingerprint: document.token.fingerprint(),
        });
        Seen { name, appid, token, asking: None }
    }

    fn hangup(&self) {}
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::api::Api;

    fn account(dir: &Path, name: &str, appid: Option<&str>) -> Account {
        Account {
            name: name.to_owned(),
            appid: appid.map(str::to_owned),
            api: Api::Stable,
            refresh_before: Duration::from_secs(300),
            document: dir.join(name),
        }
    }

    #[test]
    fn accounts_are_in_the_order_of_their_names_and_know_their_appids() {
        let dir = tempfile::tempdir().unwrap();
        // Still alive when nobody runs this test any more.
        let document = r#"{"appid":"wx1","access_token":"T1","expires_in":7200,"created_at":"9000-01-01T00:00:00Z"}"#;
        fs::write(dir.path().join("shop"), document).unwrap();
        let accounts = Accounts::of([
            account(dir.path(), "shop", None),
            account(dir.path(), "branch", Some("wx2")),
            account(dir.path(), "again", Some("wx1")),
        ]);
        assert_eq!(accounts.names(), ["again", "branch", "shop"]);
        let with = |appid| [0, 1, 2].map(|account| accounts.has_appid(account, appid));
        assert_eq!(with("wx1"), [true, false, true], "the document of the last one knows");
        assert_eq!(with("wx2"), [false, true, false]);
        assert_eq!(with("WX1"), [false, false, false]);
        assert!(accounts.token(2).unwrap().json.starts_with(br#"{"access_token":"T1","#));
        assert_eq!(accounts.token(1), None);
        assert_eq!(accounts.holder_of("T1"), Some(2));
        assert_eq!(accounts.holder_of("T2"), None);
    }
}
