//! `wxtoken serve`: serves published tokens over HTTP to allowed clients. Calls WeChat only with `--refresh`; without it,
//! no AppSecret is read.

use std::collections::HashMap;
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tokio::runtime::LocalOptions;

use super::messages;
use super::output;
use crate::accounts::{self, AccountPlan, AccountResources, Accounts, ConnectedPlan, RefreshPlan};
use crate::cli::{CommonArgs, ServeArgs};
use crate::config::{self, AccountSettings, Config, Secrets, ServeSettings};
use crate::error::{Exit, both};
use crate::language::{bilingual, in_both};
use crate::log::{self, error};
use crate::model::address::listen::Listen;
use crate::os::clock::{Clock, SystemClock};
use crate::os::descriptors::{self, Allotment, Needs};
use crate::os::local_time::LocalZone;
use crate::os::signals::{EndsAtOnce, ServerSignals};
use crate::os::{systemd, thread};
use crate::scheduler::{self, Environment};
use crate::server::{
    self, AccessReader, AccessSources, AccountServers, BoundSocket, Make, Options, Reloaded,
    Scheme, ServerSettings, Tls, TlsFiles, WatchedFiles,
};
use crate::store::Stores;
use crate::upstream::api_servers::ApiServersReader;
use crate::upstream::config::Origin;

/// Runs `wxtoken serve` until a signal ends it.
pub(crate) fn run(common: &CommonArgs, args: &ServeArgs) -> Result<Exit> {
    // A `LocalSet` on top of the usual runtime would queue each task that is woken twice.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build_local(LocalOptions::default())
        .context(messages::NO_EVENT_LOOP.text())?;
    // Before anything that takes time. A SIGHUP that comes now is followed when the event loop runs.
    let signals = runtime.block_on(async { ServerSignals::listen() });
    let signals = signals.context(messages::NO_SIGNALS.text())?;
    let starting = EndsAtOnce::begin();
    // Reads files, which the event loop must not.
    LocalZone::of_process();
    let secrets = match args.refresh {
        Some(true) => Secrets::Needed,
        Some(false) => Secrets::Unneeded,
        None => Secrets::NeededToRefresh,
    };
    let path = config::path(common, &args.account);
    let config = Config::read_from(path.as_deref(), common, &args.account, secrets)?;
    let (predecessor, in_use) = (config.predecessor(), config.document_names());
    let settings = config.serve(args);
    let defaults_to_loopback = sources(&settings, Vec::new()).defaults_to_loopback();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let stores = Stores::new(Arc::clone(&clock)).taking_over(predecessor).renaming(in_use);
    let environment = Environment::new(Arc::clone(&clock), stores.clone());
    let reader = SettingsReader {
        common: common.clone(),
        args: args.clone(),
        path,
        secrets,
        settings_at_start: settings.clone(),
        resources: AccountResources { connector: Arc::default(), environment: environment.clone() },
        plans: Arc::default(),
        access: AccessReader::default(),
    };
    let ((served_settings, tls), listen) = both(
        both(reader.reloaded(), tls(&settings, Arc::clone(&clock))),
        Listen::parse_all(&settings.listen),
    )?;
    // From here on there are sockets to be removed.
    drop(starting);
    if settings.gateway && !settings.refresh {
        error!("serve: {}", messages::GATEWAY_ALONE.text());
    }
    let scheme = if tls.is_some() { Scheme::Https } else { Scheme::Http };
    let bound = BoundSocket::passed_or_bind(&listen, scheme)?;
    // A client's certificate is as good as a key.
    let is_for_all = settings.tls_client_ca.is_none() && served_settings.get().are_for_all();
    warn_of_reach(&bound, defaults_to_loopback, is_for_all);
    let connections = allot_descriptors(&settings, served_settings.get().accounts(), &environment);
    let accounts = served_settings.get().accounts().names().len();
    stores.await_first_look();
    let options =
        Options { settings: served_settings, tls, max_connections: connections, clock, signals };
    log::write_in_background();
    let listening = async |addresses| tell_listening(accounts, addresses).await;
    let served = runtime.block_on(server::serve(bound, options, listening));
    // Refreshes that are still under way end with the process.
    runtime.shutdown_background();
    stores.end();
    served.map(|()| Exit::Done)
}

/// Warns if other hosts can connect and none is allowed, or all get the token without a key.
fn warn_of_reach(bound: &[BoundSocket], defaults_to_loopback: bool, is_for_all: bool) {
    let Some(bound) = bound.iter().find(|bound| bound.is_beyond_loopback()) else { return };
    match defaults_to_loopback {
        true => error!("serve: {}", messages::ALLOWS_NO_OTHER_HOST.with([bound])),
        false if is_for_all => error!("serve: {}", messages::ALLOWS_ALL.with([bound])),
        false => {}
    }
}

/// Tells stdout and systemd that clients can connect.
async fn tell_listening(accounts: usize, addresses: Vec<String>) -> Result<()> {
    let status = status(accounts, &addresses);
    // In a thread, because stdout may not be read.
    let shared = addresses.clone();
    match thread::run(move || output::print_listening(&shared)).await {
        Ok(printed) => printed?,
        Err(_) => output::print_listening(&addresses)?,
    }
    systemd::ready(&status);
    Ok(())
}

/// Descriptors beyond those that are open at the start (of the event loop, among others) and those of connections and refreshes: for
/// files that are read for a reload or a request, and for a connection of each listener that waits for a slot.
const RESERVED_DESCRIPTORS: u64 = 19;

/// The descriptors of one Redis: two that follow it, and one that is being opened.
const REDIS_DESCRIPTORS: u64 = 3;

/// Shares out the descriptors that this process may have between connections and refreshes, and says so if they are too
/// few. Returns how many connections may be open.
fn allot_descriptors(
    settings: &ServeSettings,
    accounts: &Accounts,
    environment: &Environment,
) -> usize {
    let redis = if accounts.uses_redis() { REDIS_DESCRIPTORS } else { 0 };
    let known_jobs = accounts.refreshed_documents();
    let wanted = settings.max_connections;
    let needs = Needs {
        fixed: descriptors::open().unwrap_or(0) + RESERVED_DESCRIPTORS + redis,
        connections: wanted.into(),
        // A call that is passed on has a connection to WeChat, too.
        per_connection: if settings.gateway { 2 } else { 1 },
        jobs: scheduler::MAX_JOBS as u64,
        known_jobs: known_jobs as u64,
        per_job: scheduler::JOB_DESCRIPTORS + redis,
    };
    let (Allotment { connections, jobs }, limit) = needs.allot();
    environment.limit_jobs(jobs as usize);
    let is_too_low = connections < wanted.into() || jobs < needs.known_jobs.min(needs.jobs);
    if let Some(limit) = limit.filter(|_| is_too_low) {
        let refreshes = match jobs {
            0 => String::new(),
            1 => in_both(", and for one refresh at once", "，及 1 个并发刷新"),
            jobs => in_both(
                format!(", and for {jobs} refreshes at once"),
                format!("，及 {jobs} 个并发刷新"),
            ),
        };
        let values: [&dyn Display; 4] = [&limit, &connections, &wanted, &refreshes];
        error!("serve: {}", messages::FEW_DESCRIPTORS.with(values));
    }
    connections as usize
}

/// Fails if opaque tokens are to be handed out without a gateway, where they open nothing, or without keys to make them for.
fn check_opaque_tokens(settings: &ServeSettings) -> Result<()> {
    let missing = match (settings.opaque_tokens, &settings.keys, settings.gateway) {
        (false, ..) | (true, Some(_), true) => return Ok(()),
        (true, None, true) => &messages::OPAQUE_NEEDS_KEYS,
        (true, Some(_), false) => &messages::OPAQUE_NEEDS_GATEWAY,
        (true, None, false) => &messages::OPAQUE_NEEDS_BOTH,
    };
    Err(Exit::Usage.error(missing.text()))
}

/// Returns the certificates for HTTPS, if it is configured.
fn tls(settings: &ServeSettings, clock: Arc<dyn Clock>) -> Result<Option<Tls>> {
    let files = TlsFiles::from_flags(
        settings.tls_cert.as_deref(),
        settings.tls_key.as_deref(),
        settings.tls_client_ca.as_deref(),
    )?;
    files.map(|files| Tls::new(files, clock)).transpose()
}

/// Returns the status that `systemctl status` shows.
fn status(accounts: usize, addresses: &[String]) -> String {
    let noun = if accounts == 1 { "account" } else { "accounts" };
    format!("serving {accounts} {noun} on {}", addresses.join(", "))
}

/// Reads what is served and to whom: flags, the config, and the files that these name and that are not followed yet.
struct SettingsReader {
    common: CommonArgs,
    args: ServeArgs,
    /// The config file that was found at the start. A reload does not look for another one: if this file is gone for a moment, its
    /// access rules must stay.
    path: Option<PathBuf>,
    secrets: Secrets,
    /// The settings with which the process started. Some of them cannot change while it runs.
    settings_at_start: ServeSettings,
    resources: AccountResources,
    /// The plans of the last good read, by the accounts' names. Their secrets are not read again.
    plans: Arc<Mutex<HashMap<String, AccountPlan>>>,
    access: AccessReader,
}

impl SettingsReader {
    fn reloaded(self) -> Result<Reloaded<ServerSettings>> {
        let name = bilingual!("accounts and access rules", "账号与访问规则");
        Reloaded::new(name, move |files| self.read(files))
    }

    fn read(&self, files: &mut WatchedFiles) -> Result<Make<ServerSettings>> {
        let path = self.path.as_deref();
        path.into_iter().for_each(|path| files.add(path));
        let config = Config::read_from(path, &self.common, &self.args.account, self.secrets)?;
        let settings = config.serve(&self.args);
        let sources = sources(&settings, config.allowed());
        let mode = settings.refresh.then(|| config.mode(self.args.mode));
        let accounts = config.account_settings(&[]);
        let accounts = accounts.and_then(|accounts| {
            let servers = settings.gateway.then(|| self.api_servers(&accounts)).transpose()?;
            Ok((self.connect(accounts, mode)?, servers))
        });
        let access = both(check_opaque_tokens(&settings), self.access.read(&sources));
        let ((accounts, servers), ((), access)) = both(accounts, access)?;
        if settings.needs_restart(&self.settings_at_start) {
            error!("serve: {}", messages::NEEDS_RESTART.text());
        }
        let plans = accounts.iter().map(|(plan, _)| (plan.account.name.clone(), plan.clone()));
        let (plans, known) = (plans.collect(), Arc::clone(&self.plans));
        let (reader, resources) = (self.access.clone(), self.resources.clone());
        let sdk_life = settings.sdk_life;
        // Only if these settings are taken: others may have been read meanwhile.
        Ok(Box::new(move |before: Option<&ServerSettings>| {
            *known.lock().unwrap_or_else(PoisonError::into_inner) = plans;
            reader.take(sources);
            let before = before.map(ServerSettings::accounts);
            ServerSettings::new(access, Accounts::new(accounts, before, &resources))
                .with_api_servers(servers)
                .with_sdk_life(sdk_life)
        }))
    }

    /// Returns where the accounts' calls go. If that cannot be read for an account of the config, this is logged, and the account is left
    /// out, so that the others are served.
    fn api_servers(&self, accounts: &[AccountSettings]) -> Result<AccountServers> {
        let mut reader = ApiServersReader::new(&self.resources.connector);
        let mut found = AccountServers::new();
        for AccountSettings { account, upstream, .. } in accounts {
            match reader.read(account.api, upstream) {
                Ok(servers) => drop(found.insert(account.name.clone(), servers)),
                Err(err) if upstream.origin == Origin::CommandLine => return Err(err),
                Err(err) => error!("serve: {err:#}"),
            }
        }
        Ok(found)
    }

    /// Connects the accounts that do not continue a known one. With a `mode`, they are refreshed, and their documents have that mode.
    fn connect(
        &self,
        accounts: Vec<AccountSettings>,
        mode: Option<u32>,
    ) -> Result<Vec<ConnectedPlan>> {
        let known = self.plans.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let plan = |AccountSettings { account, upstream, .. }| AccountPlan {
            account,
            refresh: mode.map(|mode| RefreshPlan { upstream, mode }),
        };
        let is_continued = |plan: &AccountPlan| {
            known.get(&plan.account.name).is_some_and(|before| before.is_continued_by(plan))
        };
        let plans = accounts.into_iter().map(plan).collect();
        accounts::connect_all(plans, is_continued, &self.resources.connector)
    }
}

/// Returns the flags and files of the access rules. `accounts` are the names of the accounts, each with its own `allow`.
fn sources(
    settings: &ServeSettings,
    accounts: Vec<(String, Option<Vec<String>>)>,
) -> AccessSources {
    AccessSources {
        allow: settings.allow.clone(),
        allow_file: settings.allow_file.clone(),
        trusted_proxies: settings.trusted_proxies.clone(),
        server_names: settings.server_names.clone(),
        keys: settings.keys.clone(),
        opaque_tokens: settings.opaque_tokens,
        accounts,
    }
}
