//! `wxtoken serve`: hands out published tokens over HTTP, to allowed addresses only. Asks WeChat only with `--refresh`;
//! without, it does not even read the AppSecret.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use anyhow::{Context, Result};
use hyper::body::Bytes;
use tokio::task::{JoinHandle, LocalSet};

use super::{announce, asking};
use crate::cli::{Common, Serve};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Account, DEFAULT_ACCOUNT};
use crate::exit::Exit;
use crate::handout::Handout;
use crate::keeper::Keeper;
use crate::report::error;
use crate::secret::Secret;
use crate::server::{
    self, Bound, Lack, Listen, Options, Reloaded, Scheme, Seen, SeenToken, Sources, Tls, TlsFiles,
    Token, Tokens, Wish,
};
use crate::systemd;
use crate::token::TicketType;

/// Why there is no token where nobody asks WeChat.
const NO_TOKEN: &str =
    "there is no live token to hand out; run `wxtoken status` on the server to see why";

/// So many accounts are refreshed at once; the others wait their turn.
const MAX_REFRESHING: usize = 16;

pub(crate) fn run(common: &Common, args: &Serve) -> Result<Exit> {
    let sources = Sources {
        allow: args.allow.clone(),
        allow_file: args.allow_file.clone(),
        trusted_proxies: args.trusted_proxy.clone(),
        keys: args.keys.clone(),
    };
    let imply_loopback = sources.imply_loopback();
    // Whatever else is wrong with the account, it has this name.
    let names = vec![DEFAULT_ACCOUNT.to_owned()];
    let access = Reloaded::new("access rules", sources.files(), move || sources.read(&names));
    let ((tokens, tls), (listen, access)) = config::both(
        config::both(tokens(common, args), tls(args)),
        config::both(Listen::parse_all(&args.listen), access),
    )?;
    let scheme = if tls.is_some() { Scheme::Https } else { Scheme::Http };
    let bound = Bound::passed_or(&listen, scheme)?;
    if let (true, Some(bound)) =
        (imply_loopback, bound.iter().find(|bound| bound.is_beyond_loopback()))
    {
        error!("serve: listens on {bound} and allows nobody beyond this host: give --allow");
    }
    let options = Options { access, tls, max_connections: args.max_connections as usize };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(MAX_REFRESHING)
        .build()
        .context("cannot start the event loop")?;
    let tokens = Rc::new(tokens);
    let served = LocalSet::new().block_on(&runtime, async {
        tokens.keep();
        let listening = |addresses: &[String]| {
            announce(addresses)?;
            systemd::ready(&tokens.status(addresses));
            Ok(())
        };
        server::serve(bound, options, Rc::clone(&tokens) as Rc<dyn Tokens>, listening).await
    });
    // What is still under way ends with the process.
    runtime.shutdown_background();
    served.map(|()| Exit::Done)
}

/// What HTTPS is made of, if it is asked for.
fn tls(args: &Serve) -> Result<Option<Reloaded<Tls>>> {
    let files = TlsFiles::given(
        args.tls_cert.as_deref(),
        args.tls_key.as_deref(),
        args.tls_client_ca.as_deref(),
    )?;
    let reloaded = |files: TlsFiles| {
        let paths = files.paths();
        Reloaded::new("certificates", paths, move || Tls::read(&files, SystemClock.now()))
    };
    files.map(reloaded).transpose()
}

/// The accounts, and with `--refresh` those who keep their tokens alive.
fn tokens(common: &Common, args: &Serve) -> Result<Accounts> {
    let account = config::account(common, &args.account);
    if !args.refresh {
        return Ok(Accounts::of([(account?, None)]));
    }
    let account = account.and_then(Account::with_appid);
    let ((account, appid), source) = config::both(account, asking::source(&args.account))?;
    let wechat = source.wechat(&account, &appid);
    let connect = {
        let (account, appid, given) = (account.clone(), appid.clone(), args.account.clone());
        move || match given.secret_file.as_deref() {
            // What was typed or piped in is gone.
            Some(path) if path.as_os_str() == "-" => Ok(None),
            // And who waited for a writer would have all callers wait.
            Some(path) if path.metadata().is_ok_and(|found| !found.is_file()) => {
                let path = path.display();
                Err(Exit::Usage.error(format!(
                    "secret file {path} is no plain file, which could be read again"
                )))
            }
            _ => Ok(Some(asking::source(&given)?.wechat(&account, &appid))),
        }
    };
    let keeper = Keeper::of(account.clone(), appid, args.mode, wechat, connect);
    Ok(Accounts::of([(account, Some(keeper))]))
}

/// Where the listener gets its tokens: the accounts' published documents, and those who see to it that there are some.
struct Accounts {
    /// Sorted; an account's place is its number.
    names: Vec<String>,
    handouts: RefCell<Vec<Handout>>,
    keepers: Vec<Option<Rc<Keeper>>>,
    /// The schedules that are followed.
    keeping: RefCell<Vec<JoinHandle<()>>>,
}

impl Accounts {
    fn of(accounts: impl IntoIterator<Item = (Account, Option<Keeper>)>) -> Accounts {
        let mut accounts: Vec<_> = accounts.into_iter().collect();
        accounts.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        let names = accounts.iter().map(|(account, _)| account.name.clone()).collect();
        let (handouts, keepers) = accounts
            .into_iter()
            .map(|(account, keeper)| (Handout::of(account), keeper.map(Rc::new)))
            .unzip();
        Accounts { names, handouts: RefCell::new(handouts), keepers, keeping: RefCell::default() }
    }

    /// What it does, for whoever asks systemd.
    fn status(&self, addresses: &[String]) -> String {
        let (count, addresses) = (self.names.len(), addresses.join(", "));
        let accounts = if count == 1 { "account" } else { "accounts" };
        format!("serving {count} {accounts} on {addresses}")
    }

    /// Follows the schedules from now on.
    fn keep(&self) {
        self.keeping.replace(self.keepers.iter().flatten().map(Keeper::keep).collect());
    }

    /// The token that is published now, lives, and is not known to be dead.
    fn current(&self, account: usize) -> Option<(Rc<Secret>, Token)> {
        let (secret, token) = self.handouts.borrow_mut()[account].answer(SystemClock.now())?;
        let keeper = self.keepers[account].as_ref();
        (!keeper.is_some_and(|keeper| keeper.is_dead(&secret))).then_some((secret, token))
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
            // Whoever only reads need not have been told it: the document knows. It does not change its account often.
            None => {
                handout.last_document().is_some_and(|document| document.appid == appid)
                    || handout.document(SystemClock.now()).is_some_and(|it| it.appid == appid)
            }
        }
    }

    fn token(&self, account: usize) -> Option<Token> {
        self.current(account).map(|(_, token)| token)
    }

    fn ticket(&self, account: usize, kind: &TicketType) -> Option<Bytes> {
        self.handouts.borrow()[account].ticket(kind, SystemClock.now())
    }

    fn holder_of(&self, token: &str) -> Option<usize> {
        let now = SystemClock.now();
        self.handouts.borrow_mut().iter_mut().position(|handout| handout.is_token(token, now))
    }

    fn can_refresh(&self) -> bool {
        self.keepers.iter().any(Option::is_some)
    }

    fn obtain(
        &self,
        account: usize,
        wish: Wish,
    ) -> Pin<Box<dyn Future<Output = Result<Token, Lack>> + '_>> {
        Box::pin(async move {
            match &self.keepers[account] {
                Some(keeper) => keeper.obtain(&wish, || self.current(account)).await,
                None => self.token(account).ok_or_else(|| Lack::for_now(NO_TOKEN)),
            }
        })
    }

    fn seen(&self, account: usize) -> Seen {
        let (mut handouts, now) = (self.handouts.borrow_mut(), SystemClock.now());
        let handout = &mut handouts[account];
        let (name, appid) = (handout.account().name.clone(), handout.account().appid.clone());
        let (api, refresh_before) = (handout.account().api, handout.account().refresh_before);
        let document = handout.document(now);
        let appid = appid.or_else(|| document.map(|document| document.appid.clone()));
        let keeper = self.keepers[account].as_ref();
        let token = document.map(|document| SeenToken {
            created_at: document.created_at,
            expires_at: document.expires_at(),
            life: document.promise(now, api, refresh_before),
            is_dead: keeper.is_some_and(|keeper| keeper.is_dead(&document.token)),
            expires_in: document.expires_in,
            fingerprint: document.token.fingerprint(),
        });
        Seen { name, appid, token, asking: keeper.map(|keeper| keeper.seen()) }
    }

    fn hangup(&self) {
        self.keepers.iter().flatten().for_each(|keeper| keeper.hangup());
    }

    fn wind_up(&self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        self.keeping.take().iter().for_each(JoinHandle::abort);
        Box::pin(async {
            for keeper in self.keepers.iter().flatten() {
                keeper.settled().await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

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
            (account(dir.path(), "shop", None), None),
            (account(dir.path(), "branch", Some("wx2")), None),
            (account(dir.path(), "again", Some("wx1")), None),
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
