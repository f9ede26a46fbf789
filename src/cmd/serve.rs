//! `wxtoken serve`: hands out published tokens over HTTP, to allowed addresses only. Asks WeChat only with `--refresh`;
//! without, it does not even read the AppSecret.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use hyper::body::Bytes;
use tokio::task::{JoinHandle, LocalSet};

use super::announce;
use super::asking::{Link, Linker};
use crate::cli::{Common, Serve};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Account, Config, Contact, DEFAULT_ACCOUNT, Entry, Meant, Secrets};
use crate::exit::Exit;
use crate::handout::Handout;
use crate::keeper::Keeper;
use crate::listen::Listen;
use crate::report::error;
use crate::secret::Secret;
use crate::server::{
    self, Bound, Lack, Options, Reloaded, Scheme, Seen, SeenToken, Sources, Tls, TlsFiles, Token,
    Tokens, Wish,
};
use crate::systemd;
use crate::token::TicketType;

/// Why there is no token where nobody asks WeChat, and when to ask again: soon enough after the next `fetch`, whenever
/// that is, and too seldom to be a load.
const NO_TOKEN: &str =
    "there is no live token to hand out; run `wxtoken status` on the server to see why";
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// So many accounts are refreshed at once; the others wait their turn.
const MAX_REFRESHING: usize = 16;

pub(crate) fn run(common: &Common, args: &Serve) -> Result<Exit> {
    let secrets = match args.refresh {
        Some(true) => Secrets::Needed,
        Some(false) => Secrets::Unneeded,
        None => Secrets::NeededToRefresh,
    };
    let config = Config::read(common, &args.account, secrets)?;
    let settings = config.serve(args);
    let sources = Sources {
        allow: settings.allow.clone(),
        allow_file: settings.allow_file.clone(),
        trusted_proxies: settings.trusted_proxies.clone(),
        keys: settings.keys.clone(),
    };
    let imply_loopback = sources.imply_loopback();
    let meant = config.meant(&[])?;
    let names = meant.names();
    let access = Reloaded::new("access rules", sources.files(), move || sources.read(&names));
    let tokens = tokens(meant, settings.refresh, config.mode(args.mode));
    let ((tokens, tls), (listen, access)) = config::both(
        config::both(tokens, tls(&settings)),
        config::both(Listen::parse_all(&settings.listen), access),
    )?;
    let scheme = if tls.is_some() { Scheme::Https } else { Scheme::Http };
    let bound = Bound::passed_or(&listen, scheme)?;
    if let (true, Some(bound)) =
        (imply_loopback, bound.iter().find(|bound| bound.is_beyond_loopback()))
    {
        error!("serve: listens on {bound} and allows nobody beyond this host: give --allow");
    }
    let options = Options { access, tls, max_connections: settings.max_connections as usize };
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
fn tls(settings: &config::Serve) -> Result<Option<Reloaded<Tls>>> {
    let files = TlsFiles::given(
        settings.tls_cert.as_deref(),
        settings.tls_key.as_deref(),
        settings.tls_client_ca.as_deref(),
    )?;
    let reloaded = |files: TlsFiles| {
        let paths = files.paths();
        Reloaded::new("certificates", paths, move || Tls::read(&files, SystemClock.now()))
    };
    files.map(reloaded).transpose()
}

/// The accounts, and with `--refresh` those who keep their tokens alive.
fn tokens(meant: Meant, is_refreshed: bool, mode: u32) -> Result<Accounts> {
    let linker = Rc::new(Linker::default());
    let keeper = |(account, appid): (Account, String), contact: Contact, link: Option<Link>| {
        let wechat = link.map(|link| link.wechat(&account, &appid));
        let connect = {
            let (linker, account, appid) = (Rc::clone(&linker), account.clone(), appid.clone());
            // What was typed or piped in is gone.
            let is_gone = contact.secret_file.as_ref().is_some_and(|path| path.as_os_str() == "-");
            move || match is_gone {
                true => Ok(None),
                false => Ok(Some(linker.link(&account.name, &contact)?.wechat(&account, &appid))),
            }
        };
        let keeper = Keeper::of(account.clone(), appid, mode, wechat, connect);
        (account, Some(keeper))
    };
    match meant {
        Meant::Given(account, _) if !is_refreshed => Ok(Accounts::of([(account?, None)])),
        Meant::Given(account, contact) => {
            let account = account.and_then(Account::with_appid);
            let link = linker.link(DEFAULT_ACCOUNT, &contact);
            let (account, link) = config::both(account, link)?;
            Ok(Accounts::of([keeper(account, contact, Some(link))]))
        }
        Meant::OfFile(entries) if !is_refreshed => {
            Ok(Accounts::of(entries.into_iter().map(|entry| (entry.account, None))))
        }
        Meant::OfFile(entries) => {
            let accounts = entries.into_iter().map(|Entry { account, contact, .. }| {
                // One account's trouble is no reason not to serve the others.
                let link = linker.link(&account.name, &contact);
                let link = link.map_err(|err| error!("serve: {err:#}")).ok();
                Ok(keeper(account.with_appid()?, contact, link))
            });
            accounts.collect::<Result<Vec<_>>>().map(Accounts::of)
        }
    }
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
            // Whoever only reads need not have been told it: the document knows.
            None => {
                handout.document(SystemClock.now()).is_some_and(|document| document.appid == appid)
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
                None => self
                    .token(account)
                    .ok_or_else(|| Lack { why: NO_TOKEN.to_owned(), retry_after: RETRY_AFTER }),
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
