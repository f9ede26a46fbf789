//! Which account is meant, and what the config is to say of it.

use std::env;

use anyhow::Result;

use super::env_file::EnvFile;
use super::{input, messages};
use crate::cli::{CommonArgs, SetupArgs};
use crate::config::AccountSettings;
use crate::config::edit::{self, ConfigEdit, KnownAccount};
use crate::error::Exit;
use crate::log;
use crate::message::listed;
use crate::model::account::DEFAULT_ACCOUNT;
use crate::model::address::endpoint::{self, BaseUrl};
use crate::model::address::listen::Listen;
use crate::model::address::network;
use crate::model::api::Api;
use crate::model::client_key;
use crate::model::secret::Secret;
use crate::upstream::connect::Connector;
use crate::upstream::credentials;

/// The port of an address to serve at that has none.
const PORT: u16 = 7200;

/// What the command line asks for, checked.
pub(super) struct SetupTarget {
    pub(super) appid: String,
    pub(super) api: Api,
    /// Whether the command line names the API.
    is_api_given: bool,
    name: Option<String>,
    pub(super) listen: Vec<String>,
    allow: Vec<String>,
    base_url: Option<String>,
    ca_file: Option<String>,
}

/// How the environment's proxy gets to the services, which do not have this environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServiceProxy {
    /// There is no proxy, or the config names it.
    Settled,
    /// The proxy has a password, which does not belong in the config.
    WithPassword,
}

/// The account, as the changed config has it.
pub(super) struct NewAccount {
    pub(super) name: String,
    pub(super) settings: AccountSettings,
    /// The secret that the account already has.
    pub(super) secret: Option<Secret>,
    pub(super) proxy: ServiceProxy,
}

impl SetupTarget {
    /// Checks the command line. Fails with all that is wrong with it.
    pub(super) fn of(args: &SetupArgs) -> Result<SetupTarget> {
        let api = match (args.work, args.api) {
            (true, None | Some(Api::Work)) => Api::Work,
            (true, Some(_)) => {
                return Err(Exit::Usage.error(messages::WORK_AND_API.text()));
            }
            (false, api) => api.unwrap_or_default(),
        };
        let mut problems = Vec::new();
        let appid = input::appid(&args.appid, api).map_err(|what| format!("APPID: {what}"));
        let appid = appid.unwrap_or_else(|what| {
            problems.push(what);
            String::new()
        });
        let is_bad = |name: &String| log::may_hold_secret(name) || !client_key::is_account(name);
        if args.name.as_ref().is_some_and(is_bad) {
            problems.push(format!("--name: {}", client_key::INVALID_ACCOUNT));
        }
        let listen: Vec<_> = args.serve.iter().map(|it| with_port(it.trim())).collect();
        let parsed: Vec<_> = listen.iter().filter_map(|it| Listen::parse(it).ok()).collect();
        if parsed.len() < listen.len() {
            problems.push(messages::NO_SERVE.first([]));
        }
        let allow: Vec<_> = args.allow.iter().map(|it| it.trim().to_owned()).collect();
        problems.extend(
            allow
                .iter()
                .filter_map(|it| network::parse(it).err())
                .map(|it| format!("--allow: {it}")),
        );
        let is_open = |it: &Listen| matches!(it, Listen::Tcp(it) if !it.ip().is_loopback());
        if parsed.iter().any(is_open) && allow.is_empty() {
            problems.push(messages::NEEDS_ALLOW.first([]));
        }
        if listen.is_empty() && !allow.is_empty() {
            problems.push(messages::NEEDS_SERVE.first([]));
        }
        let ca_file = args.ca_file.as_ref().map(std::path::absolute).transpose()?;
        if !problems.is_empty() {
            return Err(Exit::Usage.errors(problems));
        }
        Ok(SetupTarget {
            appid,
            api,
            is_api_given: args.work || args.api.is_some(),
            name: args.name.clone(),
            listen,
            allow,
            base_url: args.base_url.clone(),
            ca_file: ca_file.map(|path| path.display().to_string()),
        })
    }

    /// Whether the command line may mean another app of the corp than the configured one. Their secrets tell.
    pub(super) fn may_be_other_app(&self, account: &NewAccount) -> bool {
        let is_there = account.settings.account.api == Api::Work && account.secret.is_some();
        is_there && self.name.is_none()
    }

    /// Fails if this may be the secret of another app of the corp than the one that is there: its AppID is the corp's, and does
    /// not say which app is meant.
    pub(super) fn check_app(
        &self,
        account: &NewAccount,
        env_file: &EnvFile,
        secret: &Secret,
    ) -> Result<()> {
        if account.settings.account.api != Api::Work {
            return Ok(());
        }
        let name = self.name.as_deref();
        let other_app = |of: &str| Err(Exit::Usage.error(messages::OTHER_APP.with([&of])));
        if self.may_be_other_app(account) && account.secret.as_ref() != Some(secret) {
            return other_app(&account.name);
        }
        match (env_file.value(credentials::VARIABLE).is_some_and(|it| !secret.is(it)), name) {
            (true, None) => other_app(DEFAULT_ACCOUNT),
            (true, Some(name)) if name != DEFAULT_ACCOUNT => {
                Err(Exit::Usage.error(messages::OTHER_OF_UNITS.with([&self.appid])))
            }
            _ => Ok(()),
        }
    }

    /// Returns the account's name: from the command line, or from the config if the account is in it.
    fn name_in(&self, accounts: &[KnownAccount]) -> Result<String> {
        let usage = |what: String| Err(Exit::Usage.error(what));
        if let Some(name) = &self.name {
            return match accounts.iter().find(|it| it.name == *name) {
                Some(it) if it.is_mirror => usage(messages::NAME_OF_MIRROR.with([name])),
                Some(it) if it.appid != self.appid => {
                    usage(messages::NAME_OF_OTHER.with([name, &it.appid]))
                }
                _ => Ok(name.clone()),
            };
        }
        let is_same = |it: &&KnownAccount| {
            let same_platform = it.api.platform() == self.api.platform();
            it.appid == self.appid && !it.is_mirror && same_platform
        };
        let same: Vec<_> = accounts.iter().filter(is_same).collect();
        match same.as_slice() {
            [one] => Ok(one.name.clone()),
            [] if accounts.is_empty() => Ok(DEFAULT_ACCOUNT.to_owned()),
            [] => usage(messages::NEEDS_NAME.text()),
            several => {
                let names: Vec<_> = several.iter().map(|it| it.name.as_str()).collect();
                usage(messages::WHICH_NAME.with([&listed(&names, names.len())]))
            }
        }
    }
}

/// Adds the account to the config, and how to serve it.
pub(super) fn add(
    config: &mut ConfigEdit,
    target: &SetupTarget,
    env_file: &EnvFile,
    common: &CommonArgs,
) -> Result<NewAccount> {
    let accounts = config.accounts()?;
    let name = target.name_in(&accounts)?;
    let known = accounts.iter().find(|it| it.name == name);
    let of_units = env_file.value("WXTOKEN_APPID");
    if let Some(other) = of_units.filter(|it| *it != target.appid) {
        let other = log::printable(&log::without_long_words(other), 64);
        return Err(Exit::Usage.error(messages::OTHER_OF_UNITS.with([&other])));
    }
    // Settings that the units have used for this account until now.
    let inherited = |name: &str| of_units.and_then(|_| env_file.value(name)).map(str::to_owned);
    let mut secret = None;
    if let Some(known) = known {
        secret = current_secret(&config.settings(common, &name)?);
        if known.has_secret_file {
            config.comment_out(&name, "secret_file")?;
        }
    }
    let base_url = target.base_url.clone().or_else(|| inherited("WXTOKEN_BASE_URL"));
    let ca_file = target.ca_file.clone().or_else(|| inherited("WXTOKEN_CA_FILE"));
    let api = match (target.is_api_given, inherited("WXTOKEN_API").as_deref()) {
        (false, Some("classic")) => Api::Classic,
        _ => target.api,
    };
    // Where the units have published its token.
    let file = inherited("WXTOKEN_FILE");
    let (mut proxy, proxy_value) = proxy(base_url.as_deref().unwrap_or(api.base_url()));
    let mut keys = Vec::new();
    if known.is_none() {
        keys.push(("appid", edit::text(&target.appid)));
    }
    let has_other_api = match known {
        Some(known) => target.is_api_given && known.api != api,
        None => api != Api::default(),
    };
    if has_other_api {
        let name = match api {
            Api::Stable => "stable",
            Api::Classic => "classic",
            Api::Work => "work",
        };
        keys.push(("api", edit::text(name)));
    }
    keys.extend(base_url.map(|url| ("base_url", edit::text(&url))));
    keys.extend(ca_file.map(|path| ("ca_file", edit::text(&path))));
    keys.extend(file.map(|path| ("file", edit::text(&path))));
    if known.is_none() {
        keys.extend(proxy_value.map(|it| ("proxy", edit::text(&it))));
    }
    if !keys.is_empty() {
        config.set_account(&name, &keys)?;
    }
    config.serve(&target.listen, &target.allow)?;
    let settings = config.settings(common, &name)?;
    if settings.upstream.proxy.is_some() {
        proxy = ServiceProxy::Settled;
    }
    secret = secret.or_else(|| current_secret(&settings));
    Ok(NewAccount { name, settings, secret, proxy })
}

/// Returns the secret that an account has; `None` if it cannot be read.
fn current_secret(settings: &AccountSettings) -> Option<Secret> {
    let connector = Connector::default();
    connector.parts(&settings.account.name, &settings.upstream).1.ok().flatten()
}

/// Returns whether the proxy of the environment, by which this base URL is reached, has a password; if it has none, also the
/// proxy.
fn proxy(base_url: &str) -> (ServiceProxy, Option<String>) {
    let is_used = BaseUrl::parse(base_url)
        .is_ok_and(|base| matches!(endpoint::Proxy::from_environment(&base), Ok(Some(_))));
    let names = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
    let value = names.iter().find_map(|name| env::var(name).ok().filter(|it| !it.is_empty()));
    match value.filter(|_| is_used) {
        Some(value) if value.contains('@') => (ServiceProxy::WithPassword, None),
        value => (ServiceProxy::Settled, value),
    }
}

/// Returns an address with the usual port, if it has none.
fn with_port(address: &str) -> String {
    match address.parse::<std::net::IpAddr>() {
        Ok(ip) => std::net::SocketAddr::new(ip, PORT).to_string(),
        Err(_) => address.to_owned(),
    }
}
