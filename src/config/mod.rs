//! Merges command line, environment and config file into settings: the accounts, how to ask for their tokens, and how to
//! serve them. A flag wins over its variable, that over the file, and that over the default. Reads no document, and
//! a secret only to report all that is wrong with an account of the command line.

mod diagnostics;
mod documents;
pub(crate) mod edit;
pub(crate) mod faults;
mod file;
pub(crate) mod messages;
mod place;
mod redis;
mod run_options;
mod serve;
mod table;

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::cli::{self, spelling};
use crate::error::{Exit, both};
use crate::language::in_both;
use crate::log::{printable, without_long_words};
use crate::message::{command, listed};
use crate::model::account::{Account, DEFAULT_ACCOUNT};
use crate::model::api::Rules;
use crate::model::location::{Location, RedisLocation};
use crate::upstream::config::{Origin, UpstreamConfig};
use crate::upstream::connect::Connector;
use crate::upstream::credentials;

pub(crate) use file::{Secrets, account_names};
pub(crate) use place::{SYSTEM_CONFIG, own_config, path};
pub(crate) use serve::ServeSettings;

use file::{ConfigFile, FileAccount};

/// The directory of documents for root, and for the units in contrib.
pub(crate) const SYSTEM_DIR: &str = "/var/lib/wxtoken";

/// The directory beside a config with its accounts' secrets, unless the config names other files.
pub(crate) const SECRETS_DIR: &str = "secrets";

const DEFAULT_REFRESH_BEFORE: Duration = Duration::from_secs(5 * 60);
const DEFAULT_MODE: u32 = 0o600;

/// How many accounts an error lists at most.
const MAX_LISTED: usize = 10;

/// The length of the longest unknown name that an error shows, in characters. A longer one may be a secret.
const MAX_NAME: usize = 28;

/// An account, how to ask for its token, and who may be handed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccountSettings {
    pub(crate) account: Account,
    pub(crate) upstream: UpstreamConfig,
    /// The addresses that may be handed its token, among those that `serve` allows; `None` for all of these.
    pub(crate) allow: Option<Vec<String>>,
}

/// Command line, environment and config file, not yet merged.
pub(crate) struct Config<'a> {
    common: &'a cli::CommonArgs,
    given: &'a cli::AccountArgs,
    /// Empty if there is no config file.
    file: ConfigFile,
    /// Whether the accounts' secrets will be read.
    needs_secrets: bool,
}

impl<'a> Config<'a> {
    /// Reads the config file, if there is one. Fails if anything is wrong with it, or if account flags apply to no account.
    pub(crate) fn read(
        common: &'a cli::CommonArgs,
        given: &'a cli::AccountArgs,
        secrets: Secrets,
    ) -> anyhow::Result<Config<'a>> {
        Config::read_from(path(common, given).as_deref(), common, given, secrets)
    }

    /// Reads the config file at `path` like [`Config::read`], for a process that found its path earlier.
    pub(crate) fn read_from(
        path: Option<&Path>,
        common: &'a cli::CommonArgs,
        given: &'a cli::AccountArgs,
        secrets: Secrets,
    ) -> anyhow::Result<Config<'a>> {
        let file = match path {
            Some(path) => ConfigFile::read(path, secrets)?,
            None => ConfigFile::default(),
        };
        let needs_secrets = secrets.are_needed(&file);
        let config = Config { common, given, file, needs_secrets };
        config.check_conflicts(secrets)?;
        command::set(config.run_options());
        Ok(config)
    }

    /// Returns the account of the command line, if one is given; else the accounts of the file with these names, or all if `names` is empty.
    pub(crate) fn account_settings(
        &self,
        names: &[String],
    ) -> anyhow::Result<Vec<AccountSettings>> {
        if !self.is_account_given() {
            self.check_names(names)?;
            let dir = self.directory()?;
            let accounts = self.file.accounts.iter();
            let mut settings: Vec<_> =
                accounts.map(|account| self.settings_of_file(account, &dir)).collect();
            documents::check(&settings)?;
            settings.retain(|it| names.is_empty() || names.contains(&it.account.name));
            self.check_directory(names)?;
            Ok(settings)
        } else if names.is_empty() {
            Ok(vec![self.settings_of_command_line()?])
        } else {
            Err(Exit::Usage.error(messages::NO_CONFIG.text()))
        }
    }

    /// Returns the accounts of [`Config::account_settings`], for commands that only read.
    pub(crate) fn accounts(&self, names: &[String]) -> anyhow::Result<Vec<Account>> {
        Ok(self.account_settings(names)?.into_iter().map(|it| it.account).collect())
    }

    /// Returns the account of this name, or the only one. Fails if there are several and no name.
    pub(crate) fn account(&self, name: Option<&String>) -> anyhow::Result<Account> {
        let mut accounts = self.accounts(name.map_or(&[], std::slice::from_ref))?;
        match (accounts.pop(), accounts.is_empty()) {
            (Some(only), true) => Ok(only),
            _ => {
                let file = self.file.path.display();
                let said = messages::WHICH_ACCOUNT.with([&file, &self.listed_names()]);
                Err(Exit::Usage.error(said))
            }
        }
    }

    /// Returns the permissions of published documents.
    pub(crate) fn mode(&self, flag: Option<u32>) -> u32 {
        flag.into_iter().for_each(command::set_mode);
        flag.or(self.file.mode).unwrap_or(DEFAULT_MODE)
    }

    /// Returns how to serve.
    pub(crate) fn serve(&self, flags: &cli::ServeArgs) -> ServeSettings {
        ServeSettings::new(flags, &self.file.serve)
    }

    /// Fails for settings that cannot apply, whether they are typed or from the environment: settings of the command line's
    /// account if the accounts are those of the file, and one of two variables that hold the AppSecret.
    fn check_conflicts(&self, secrets: Secrets) -> anyhow::Result<()> {
        let (typed, given) = (&self.common.typed, self.given.given());
        let has_secret = secrets.are_read(&self.file) && credentials::has_variable();
        let is_appid_typed = typed.has("appid");
        let are_accounts_named = self.common.names_config() && !self.file.accounts.is_empty();
        if self.is_account_given() && (is_appid_typed || !are_accounts_named) {
            return match given.contains(&"secret_file") && !typed.has("secret_file") && has_secret {
                true => {
                    let names =
                        [&typed.name_of("secret_file"), &credentials::VARIABLE as &dyn Display];
                    Err(Exit::Usage.error(messages::TWO_SECRETS.with(names)))
                }
                false => Ok(()),
            };
        }
        let mut names: Vec<_> = given.iter().map(|id| typed.name_of(id)).collect();
        names.extend(has_secret.then(|| credentials::VARIABLE.to_owned()));
        let list = names.join(" and ");
        let goes = if names.len() == 1 { "goes" } else { "go" };
        let goes = in_both(format!("{list} {goes}"), &list);
        let file = self.file.path.display();
        match (names.is_empty(), given.contains(&"appid")) {
            (true, _) => Ok(()),
            (false, false) => Err(Exit::Usage.error(messages::NEEDS_APPID.with([&goes, &file]))),
            (false, true) => {
                let what = if self.common.has_names { "ACCOUNT" } else { "--config" };
                Err(Exit::Usage.error(messages::OTHER_ACCOUNT.with([&list, &file, &what])))
            }
        }
    }

    /// Whether the command line gives the account, in place of the accounts of the file.
    fn is_account_given(&self) -> bool {
        self.file.accounts.is_empty() || self.given.appid.is_some()
    }

    /// Returns the names of the accounts, sorted, each with the addresses that may be handed its token.
    pub(crate) fn allowed(&self) -> Vec<(String, Option<Vec<String>>)> {
        match self.is_account_given() {
            true => vec![(DEFAULT_ACCOUNT.to_owned(), None)],
            false => {
                let accounts = self.file.accounts.iter();
                accounts.map(|it| (it.name.clone(), it.allow.clone())).collect()
            }
        }
    }

    /// Returns the account of the command line. If anything is wrong with it, the error also says what is wrong with its address and its
    /// secret, if they are needed.
    fn settings_of_command_line(&self) -> anyhow::Result<AccountSettings> {
        let upstream = self.upstream_given();
        let mut account = self.account_given();
        if self.needs_secrets {
            account = account.and_then(|account| {
                account.needed_appid()?;
                Ok(account)
            });
            if account.is_err() {
                let (client, secret) = Connector::default().parts(DEFAULT_ACCOUNT, &upstream);
                account = both(account, both(client, secret)).map(|(account, _)| account);
            }
        }
        Ok(AccountSettings { account: account?, upstream, allow: None })
    }

    fn account_given(&self) -> anyhow::Result<Account> {
        let (document, appid) = both(self.document_given(), appid(self.given))?;
        let api = self.given.api.unwrap_or_default();
        Ok(Account {
            name: DEFAULT_ACCOUNT.to_owned(),
            appid: appid.clone(),
            api,
            rules: api.into(),
            refresh_before: self.refresh_before(None),
            location: self.location(DEFAULT_ACCOUNT, appid, document),
            tickets: Vec::new(),
            on_change: None,
            on_trouble: self.file.on_trouble.clone(),
        })
    }

    fn upstream_given(&self) -> UpstreamConfig {
        let given = self.given;
        let api = given.api.unwrap_or_default();
        UpstreamConfig {
            base_urls: vec![given.base_url.clone().unwrap_or_else(|| api.base_url().to_owned())],
            proxy: None,
            ca_file: given.ca_file.clone(),
            is_mirror: false,
            secret_file: given.secret_file.clone(),
            secret_dir: None,
            origin: Origin::CommandLine,
        }
    }

    /// Returns an account of the file, whose document is in `dir` by default.
    fn settings_of_file(&self, account: &FileAccount, dir: &Path) -> AccountSettings {
        let place =
            |line, key: &str| format!("{}: account.{}{key}", self.file.place(line), account.name);
        let name = account.name.clone();
        let api = account.api.unwrap_or_default();
        let is_mirror = !account.from.is_empty();
        let rules = if is_mirror { Rules::Mirror } else { api.into() };
        let base_urls = match (account.from.as_slice(), account.base_urls.as_slice()) {
            ([], []) => vec![api.base_url().to_owned()],
            ([], given) => given.to_owned(),
            (from, _) => from.to_owned(),
        };
        let (secret_file, secret_place) = match is_mirror {
            true => (account.key_file.clone(), place(account.key_line, ".key_file")),
            false => (account.secret_file.clone(), place(account.secret_line, ".secret_file")),
        };
        let appid = Some(account.appid.clone()).filter(|appid| !appid.is_empty());
        let document = account.file.clone().unwrap_or_else(|| dir.join(format!("{name}.json")));
        AccountSettings {
            account: Account {
                appid: appid.clone(),
                api,
                rules,
                refresh_before: self.refresh_before(account.refresh_before),
                location: self.location(&name, appid, document),
                tickets: account.tickets.clone(),
                on_change: account.on_change.clone(),
                on_trouble: account.on_trouble.clone().or(self.file.on_trouble.clone()),
                name,
            },
            upstream: UpstreamConfig {
                base_urls,
                proxy: account.proxy.clone(),
                ca_file: account.ca_file.clone(),
                is_mirror,
                secret_file,
                secret_dir: self.file.path.parent().map(|dir| dir.join(SECRETS_DIR)),
                origin: Origin::Config {
                    account: place(account.line, ""),
                    secret_file: secret_place,
                },
            },
            allow: account.allow.clone(),
        }
    }

    fn refresh_before(&self, of_account: Option<Duration>) -> Duration {
        let given = self.given.refresh_before.or(of_account).or(self.file.refresh_before);
        given.unwrap_or(DEFAULT_REFRESH_BEFORE)
    }

    /// Fails, with a suggestion, for each of `names` that is no account of the file.
    fn check_names(&self, names: &[String]) -> anyhow::Result<()> {
        let known: Vec<&str> =
            self.file.accounts.iter().map(|account| account.name.as_str()).collect();
        let unknown = names.iter().filter(|name| known.binary_search(&name.as_str()).is_err());
        let problems: Vec<_> = unknown
            .map(|name| {
                let shown = printable(&without_long_words(name), MAX_NAME);
                let hint = match spelling::nearest(name, &known) {
                    Some(near) => in_both(format!("is it {near}?"), format!("是否为 {near}？")),
                    None => {
                        let names = self.listed_names();
                        in_both(format!("there are {names}"), format!("已有：{names}"))
                    }
                };
                messages::UNKNOWN_ACCOUNT.with([&shown, &self.file.path.display(), &hint])
            })
            .collect();
        if problems.is_empty() { Ok(()) } else { Err(Exit::Usage.errors(problems)) }
    }

    /// Lists the names of the file's accounts, up to a line's length.
    fn listed_names(&self) -> String {
        let names: Vec<_> = self.file.accounts.iter().map(|account| &account.name).collect();
        listed(&names, MAX_LISTED)
    }

    /// Returns where an account's documents are; `file` is the token's document or this host's copy.
    fn location(&self, account: &str, appid: Option<String>, file: PathBuf) -> Location {
        let Some(redis) = &self.file.store else { return Location::File(file) };
        Location::Redis(Arc::new(RedisLocation {
            redis: redis.clone(),
            account: account.to_owned(),
            appid,
            copy: file,
        }))
    }

    /// Returns where documents are published.
    fn directory(&self) -> anyhow::Result<PathBuf> {
        if let Some(dir) = self.common.dir.as_ref().or(self.file.dir.as_ref()) {
            return Ok(dir.clone());
        }
        // A list, if the unit has several (systemd.exec(5)).
        if let Some(first) = variable("STATE_DIRECTORY").as_deref().and_then(first_of_list) {
            return Ok(first);
        }
        if rustix::process::geteuid().is_root() {
            return Ok(PathBuf::from(SYSTEM_DIR));
        }
        // A relative path in it is to be ignored (XDG Base Directory Specification).
        let state = variable("XDG_STATE_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
        state
            .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".local/state")))
            .map(|state| state.join("wxtoken"))
            .ok_or_else(|| Exit::Usage.error(messages::NO_PLACE.text()))
    }

    /// Fails if `--dir` was typed and has no effect, because each account that is meant has a `file` of its own.
    fn check_directory(&self, names: &[String]) -> anyhow::Result<()> {
        let mut meant =
            self.file.accounts.iter().filter(|it| names.is_empty() || names.contains(&it.name));
        match self.common.typed.has("dir") && meant.all(|it| it.file.is_some()) {
            true => Err(Exit::Usage.error(messages::DIR_UNUSED.with([&self.file.path.display()]))),
            false => Ok(()),
        }
    }

    /// Returns the path of the document of the command line's account. Fails if `--dir` was typed and a variable names a document elsewhere.
    fn document_given(&self) -> anyhow::Result<PathBuf> {
        let typed = &self.common.typed;
        let Some(path) = &self.given.file else {
            return Ok(self.directory()?.join(format!("{DEFAULT_ACCOUNT}.json")));
        };
        let (name, shown) = (typed.name_of("file"), path.display());
        let document = file::check_document(path)
            .map_err(|what| Exit::Usage.error(format!("{name} {shown}: {what}")))?;
        match &self.common.dir {
            Some(dir) if typed.has("dir") && !typed.has("file") && !is_in(&document, dir) => {
                let values: [&dyn Display; 3] = [&name, &shown, &dir.display()];
                Err(Exit::Usage.error(messages::NOT_IN_DIR.with(values)))
            }
            _ => Ok(document),
        }
    }
}

/// Whether a file with this path is in the directory.
fn is_in(file: &Path, dir: &Path) -> bool {
    let [file, dir] = [file, dir].map(|path| std::path::absolute(path).ok());
    file.is_some_and(|file| file.parent() == dir.as_deref())
}

fn first_of_list(list: &OsStr) -> Option<PathBuf> {
    let mut parts = list.as_bytes().split(|byte| *byte == b':');
    parts.find(|part| !part.is_empty()).map(|part| PathBuf::from(OsStr::from_bytes(part)))
}

/// Returns the AppID of the command line.
fn appid(account: &cli::AccountArgs) -> anyhow::Result<Option<String>> {
    match account.appid.as_deref() {
        None => Ok(None),
        Some(appid) => match file::check_appid(appid) {
            Ok(()) => Ok(Some(appid.to_owned())),
            Err(fault) => Err(Exit::Usage.error(format!("--appid: {fault}"))),
        },
    }
}

/// Returns an environment variable that is set and not empty.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}
