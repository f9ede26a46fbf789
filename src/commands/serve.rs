//! `wxtoken serve`: hands out published tokens over HTTP, to allowed addresses only. Asks WeChat only with `--refresh`;
//! without, it does not even read the AppSecret.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::task::LocalSet;

use super::output;
use crate::accounts::{Accounts, Served};
use crate::cli::{CommonArgs, ServeArgs};
use crate::config::{self, AccountSettings, Config, Secrets, ServeSettings};
use crate::error::Exit;
use crate::error::both;
use crate::log::error;
use crate::model::account::Account;
use crate::model::address::listen::Listen;
use crate::os::clock::{Clock, SystemClock};
use crate::os::systemd;
use crate::scheduler::{self, Scheduler};
use crate::server::{
    self, AccessSources, BoundSocket, Files, Options, Reloaded, Scheme, Snapshot, Tls, TlsFiles,
};
use crate::store::Stores;
use crate::upstream::Upstream;
use crate::upstream::config::{Origin, UpstreamConfig};
use crate::upstream::connect::Connector;

/// So many accounts are refreshed at once; the others wait their turn.
const MAX_REFRESHING: usize = 16;

pub(crate) fn run(common: &CommonArgs, args: &ServeArgs) -> Result<Exit> {
    let secrets = match args.refresh {
        Some(true) => Secrets::Needed,
        Some(false) => Secrets::Unneeded,
        None => Secrets::NeededToRefresh,
    };
    let settings = Config::read(common, &args.account, secrets)?.serve(args);
    let stores = Stores::new(Arc::new(SystemClock));
    let defaults_to_loopback = sources(&settings, Vec::new()).defaults_to_loopback();
    let ((snapshot, tls), listen) = both(
        both(snapshot(common, args, secrets, &settings, &stores), tls(&settings)),
        Listen::parse_all(&settings.listen),
    )?;
    let scheme = if tls.is_some() { Scheme::Https } else { Scheme::Http };
    let bound = BoundSocket::passed_or_bind(&listen, scheme)?;
    if let (true, Some(bound)) =
        (defaults_to_loopback, bound.iter().find(|bound| bound.is_beyond_loopback()))
    {
        error!("serve: listens on {bound} and allows nobody beyond this host: give --allow");
    }
    let accounts = snapshot.get().accounts.names().len();
    stores.await_first_look();
    let options = Options { snapshot, tls, max_connections: settings.max_connections as usize };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(MAX_REFRESHING + scheduler::MOST_HOOKS)
        .build()
        .context("cannot start the event loop")?;
    let listening = |addresses: &[String]| {
        output::print_listening(addresses)?;
        systemd::ready(&status(accounts, addresses));
        Ok(())
    };
    let served = LocalSet::new()
        .block_on(&runtime, async { server::serve(bound, options, listening).await });
    // What is still under way ends with the process.
    runtime.shutdown_background();
    stores.end();
    served.map(|()| Exit::Done)
}

/// What HTTPS is made of, if it is asked for.
fn tls(settings: &ServeSettings) -> Result<Option<Reloaded<Tls>>> {
    let files = TlsFiles::from_flags(
        settings.tls_cert.as_deref(),
        settings.tls_key.as_deref(),
        settings.tls_client_ca.as_deref(),
    )?;
    let reloaded = |tls: TlsFiles| {
        Reloaded::new("certificates", move |files| {
            tls.paths().iter().for_each(|path| files.note(path));
            Tls::read(&tls, SystemClock.now())
        })
    };
    files.map(reloaded).transpose()
}

/// What it does, for whoever asks systemd.
fn status(accounts: usize, addresses: &[String]) -> String {
    let (noun, addresses) =
        (if accounts == 1 { "account" } else { "accounts" }, addresses.join(", "));
    format!("serving {accounts} {noun} on {addresses}")
}

/// What is handed out and who may have it, by flags, config and the files that they name.
fn snapshot(
    common: &CommonArgs,
    args: &ServeArgs,
    secrets: Secrets,
    at_start: &ServeSettings,
    stores: &Stores,
) -> Result<Reloaded<Snapshot>> {
    let (common, args, at_start) = (common.clone(), args.clone(), at_start.clone());
    let what = match config::path(&common, &args.account) {
        Some(_) => "accounts and access rules",
        None => "access rules",
    };
    let maker = Maker::new(stores.clone());
    Reloaded::new(what, move |files: &mut Files| {
        if let Some(path) = config::path(&common, &args.account) {
            files.note(&path);
        }
        let config = Config::read(&common, &args.account, secrets)?;
        let settings = config.serve(&args);
        let entries = config.account_settings(&[])?;
        let allowed = entries.iter().map(|it| (it.account.name.clone(), it.allow.clone()));
        let sources = sources(&settings, allowed.collect());
        sources.files().for_each(|path| files.note(path));
        let accounts = maker.accounts(entries, settings.refresh, config.mode(args.mode));
        let (accounts, access) = both(accounts, sources.read())?;
        if settings.needs_restart(&at_start) {
            error!(
                "serve: listen, tls_* and max_connections have changed: that counts from the next start on"
            );
        }
        Ok(Snapshot { access, accounts: maker.take(accounts) })
    })
}

fn sources(
    settings: &ServeSettings,
    accounts: Vec<(String, Option<Vec<String>>)>,
) -> AccessSources {
    AccessSources {
        allow: settings.allow.clone(),
        allow_file: settings.allow_file.clone(),
        trusted_proxies: settings.trusted_proxies.clone(),
        keys: settings.keys.clone(),
        accounts,
    }
}

/// All that an account which is served is made of.
#[derive(Clone, Debug, PartialEq)]
struct Plan {
    account: Account,
    /// How to ask for it, and the mode of its document; `None` where WeChat is not asked.
    refresh: Option<(UpstreamConfig, u32)>,
}

/// Makes the accounts that are served, and makes them anew: one that is as it was stays, with all that is known of it.
struct Maker {
    stores: Stores,
    connector: Rc<Connector>,
    /// By their names.
    made: RefCell<HashMap<String, Made>>,
}

type Made = (Plan, Rc<Served>);

impl Maker {
    fn new(stores: Stores) -> Maker {
        Maker { stores, connector: Rc::default(), made: RefCell::default() }
    }

    fn accounts(
        &self,
        entries: Vec<AccountSettings>,
        is_refreshed: bool,
        mode: u32,
    ) -> Result<Vec<Made>> {
        let plans = entries.into_iter().map(|AccountSettings { account, upstream, .. }| Plan {
            account,
            refresh: is_refreshed.then_some((upstream, mode)),
        });
        plans.map(|plan| self.known(&plan).map_or_else(|| self.make(plan), Ok)).collect()
    }

    /// The account that is served already, if it was made of the same.
    fn known(&self, plan: &Plan) -> Option<Made> {
        self.made.borrow().get(&plan.account.name).filter(|(known, _)| known == plan).cloned()
    }

    /// Makes an account of its plan. What is wrong with one of the file's is logged and tried again later, so that the
    /// others are served; what is wrong with the only one, that of the command line, is an error.
    fn make(&self, plan: Plan) -> Result<Made> {
        let upstream = match &plan.refresh {
            None => None,
            Some((contact, _)) => match self.connector.connect(&plan.account, contact) {
                Ok(upstream) => Some(upstream),
                Err(err) if contact.origin == Origin::CommandLine => return Err(err),
                Err(err) => {
                    error!("serve: {err:#}");
                    None
                }
            },
        };
        Ok(self.make_with(plan, upstream))
    }

    fn make_with(&self, plan: Plan, upstream: Option<Arc<dyn Upstream>>) -> Made {
        let account = plan.account.clone();
        let scheduler = plan.refresh.clone().map(|(contact, mode)| {
            let connector = Rc::clone(&self.connector);
            let connect = {
                let account = account.clone();
                move || match contact.secret_file.as_deref() {
                    // What was typed or piped in is gone.
                    Some(path) if path.as_os_str() == "-" => Ok(None),
                    // And who waited for a writer would have all callers wait.
                    Some(path) if path.metadata().is_ok_and(|found| !found.is_file()) => {
                        let path = path.display();
                        Err(Exit::Usage.error(format!(
                            "secret file {path} is no plain file, which could be read again"
                        )))
                    }
                    _ => connector.connect(&account, &contact).map(Some),
                }
            };
            Scheduler::new(account.clone(), &self.stores, mode, upstream, connect)
        });
        (plan, Rc::new(Served::new(account, scheduler, &self.stores)))
    }

    /// These are what is served from now on.
    fn take(&self, made: Vec<Made>) -> Accounts {
        let accounts = Accounts::new(made.iter().map(|(_, served)| Rc::clone(served)));
        let by_name = made.into_iter().map(|it| (it.0.account.name.clone(), it));
        self.made.replace(by_name.collect());
        accounts
    }
}
