//! What flags, environment and config file mean together, checked: which accounts, which documents, how `serve` serves.
//! A flag wins over the environment, that over the file, and that over what holds by default; this is the one place where
//! that is settled. Reads no secret and no document.

mod diagnostics;
mod file;
mod redis;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::cli;
use crate::error::Exit;
use crate::error::both;
use crate::log::{printable, without_long_words};
use crate::model::account::{Account, DEFAULT_ACCOUNT};
use crate::model::api::Rules;
use crate::model::kind::DocumentKind;
use crate::model::location::{Location, Shared};
use crate::upstream::connect::{Connector, Origin, UpstreamConfig};

pub(crate) use file::Secrets;

use file::File;

/// Where root's documents are, and those of the units in contrib.
pub(crate) const SYSTEM_DIR: &str = "/var/lib/wxtoken";

/// The config that is read where none is named.
const SYSTEM_CONFIG: &str = "/etc/wxtoken/wxtoken.toml";

// What holds where nothing is said.
const REFRESH_BEFORE: Duration = Duration::from_secs(5 * 60);
const MODE: u32 = 0o600;
const LISTEN: &str = "127.0.0.1:7200";
const MAX_CONNECTIONS: u32 = 1024;

/// So many accounts are named in an error.
const MOST_NAMED: usize = 10;

/// A name that is longer is none, and may be a secret.
const LONGEST_NAME_SHOWN: usize = 28;

/// An account, how to ask for it, and who may be handed its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) account: Account,
    pub(crate) contact: UpstreamConfig,
    /// The addresses that may be handed its token, of those who may ask at all; `None` where all of them may.
    pub(crate) allow: Option<Vec<String>>,
}

/// How `serve` serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Serve {
    pub(crate) listen: Vec<String>,
    pub(crate) allow: Vec<String>,
    pub(crate) allow_file: Option<PathBuf>,
    pub(crate) trusted_proxies: Vec<String>,
    pub(crate) keys: Option<PathBuf>,
    pub(crate) tls_cert: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
    pub(crate) tls_client_ca: Option<PathBuf>,
    pub(crate) refresh: bool,
    pub(crate) max_connections: u32,
}

impl Serve {
    /// Whether it says something else than `before` of what is settled once, when the process starts.
    pub(crate) fn needs_restart(&self, before: &Serve) -> bool {
        let Serve { listen, tls_cert, tls_key, tls_client_ca, max_connections, .. } = before;
        (listen, max_connections) != (&self.listen, &self.max_connections)
            || (tls_cert, tls_key, tls_client_ca)
                != (&self.tls_cert, &self.tls_key, &self.tls_client_ca)
    }
}

/// What was said, by flags, environment and file.
pub(crate) struct Config<'a> {
    common: &'a cli::CommonArgs,
    given: &'a cli::AccountArgs,
    /// Empty if there is no config file.
    file: File,
    /// Whether the accounts' secrets will be read.
    needs_secrets: bool,
}

/// The config file: that which is named, else the system's if it is there, unless an account is given without it.
pub(crate) fn path(common: &cli::CommonArgs, given: &cli::AccountArgs) -> Option<PathBuf> {
    let is_given = given.file.is_some() || !matches!(appid(given), Ok(None));
    let system = || {
        // One in a directory that we may not enter is not for us.
        let is_there = matches!(Path::new(SYSTEM_CONFIG).try_exists(), Ok(true));
        (!is_given && is_there).then(|| PathBuf::from(SYSTEM_CONFIG))
    };
    common.config.clone().or_else(system)
}

impl<'a> Config<'a> {
    /// Reads the file, if there is one.
    pub(crate) fn read(
        common: &'a cli::CommonArgs,
        given: &'a cli::AccountArgs,
        secrets: Secrets,
    ) -> anyhow::Result<Config<'a>> {
        let file = match path(common, given) {
            Some(path) => File::read(&path, secrets)?,
            None => File::default(),
        };
        let needs_secrets = secrets.are_needed(&file);
        let config = Config { common, given, file, needs_secrets };
        config.check_conflicts()?;
        Ok(config)
    }

    /// Returns the account of the command line, if one is given there; else those of the file that have these names, or
    /// all of them if there are no names.
    pub(crate) fn entries(&self, names: &[String]) -> anyhow::Result<Vec<Entry>> {
        if !self.is_account_given() {
            self.check_names(names)?;
            let dir = self.directory()?;
            let accounts = self.file.accounts.iter();
            let mut entries: Vec<_> =
                accounts.map(|account| self.entry_of_file(account, &dir)).collect();
            check_documents(&entries)?;
            entries.retain(|entry| names.is_empty() || names.contains(&entry.account.name));
            Ok(entries)
        } else if names.is_empty() {
            Ok(vec![self.entry_given()?])
        } else {
            Err(Exit::Usage.error(
                "ACCOUNT is the name of an account in a config, and there is none; give --config, or leave it out",
            ))
        }
    }

    /// Returns the accounts of [`Config::entries`], for commands that only read.
    pub(crate) fn accounts(&self, names: &[String]) -> anyhow::Result<Vec<Account>> {
        Ok(self.entries(names)?.into_iter().map(|entry| entry.account).collect())
    }

    /// The account of this name, or the only one.
    pub(crate) fn account(&self, name: Option<&String>) -> anyhow::Result<Account> {
        let mut accounts = self.accounts(name.map_or(&[], std::slice::from_ref))?;
        match (accounts.pop(), accounts.is_empty()) {
            (Some(only), true) => Ok(only),
            _ => Err(Exit::Usage.error(format!(
                "which ACCOUNT? {} has {}",
                self.file.path.display(),
                self.named()
            ))),
        }
    }

    /// The permissions of documents that are published.
    pub(crate) fn mode(&self, given: Option<u32>) -> u32 {
        given.or(self.file.mode).unwrap_or(MODE)
    }

    /// How to serve.
    pub(crate) fn serve(&self, given: &cli::ServeArgs) -> Serve {
        let file = &self.file.serve;
        let path = |given: &Option<PathBuf>, file: &Option<PathBuf>| given.clone().or(file.clone());
        // A flag's list has something in it, where the flag is given.
        let list = |given: &[String], file: &Option<Vec<String>>| match given {
            [] => file.clone().unwrap_or_default(),
            given => given.to_owned(),
        };
        let mut listen = list(&given.listen, &file.listen);
        if listen.is_empty() {
            listen.push(LISTEN.to_owned());
        }
        Serve {
            listen,
            allow: list(&given.allow, &file.allow),
            allow_file: path(&given.allow_file, &file.allow_file),
            trusted_proxies: list(&given.trusted_proxy, &file.trusted_proxies),
            keys: path(&given.keys, &file.keys),
            tls_cert: path(&given.tls_cert, &file.tls_cert),
            tls_key: path(&given.tls_key, &file.tls_key),
            tls_client_ca: path(&given.tls_client_ca, &file.tls_client_ca),
            refresh: given.refresh.or(file.refresh).unwrap_or(false),
            max_connections: given
                .max_connections
                .or(file.max_connections)
                .unwrap_or(MAX_CONNECTIONS),
        }
    }

    /// Without `--appid`, what else is said of an account here would be said of none: that is not passed over.
    fn check_conflicts(&self) -> anyhow::Result<()> {
        if self.is_account_given() {
            return Ok(());
        }
        let cli::AccountArgs { secret_file, api, base_url, ca_file, file, .. } = self.given;
        let stray = [
            ("--secret-file", secret_file.is_some()),
            ("--api", api.is_some()),
            ("--base-url", base_url.is_some()),
            ("--ca-file", ca_file.is_some()),
            ("--file", file.is_some()),
        ];
        match stray.iter().find(|(_, is_given)| *is_given) {
            None => Ok(()),
            Some((flag, _)) => Err(Exit::Usage.error(format!(
                "{flag} (or its variable) goes with --appid, and the accounts are those of {}: say it there, or give --appid",
                self.file.path.display()
            ))),
        }
    }

    /// Whether the account is that of the command line, and not those of the file.
    fn is_account_given(&self) -> bool {
        self.file.accounts.is_empty() || !matches!(appid(self.given), Ok(None))
    }

    /// The account of the command line. If anything is wrong with it, the error names what is wrong with its secret and
    /// address too, where those are needed, as for a file.
    fn entry_given(&self) -> anyhow::Result<Entry> {
        let contact = self.contact_given();
        let mut account = self.account_given();
        if self.needs_secrets {
            account = account.and_then(|account| {
                account.needed_appid()?;
                Ok(account)
            });
            if account.is_err() {
                let link = Connector::default().link(DEFAULT_ACCOUNT, &contact);
                account = both(account, link).map(|(account, _)| account);
            }
        }
        Ok(Entry { account: account?, contact, allow: None })
    }

    fn account_given(&self) -> anyhow::Result<Account> {
        let (document, appid) = both(self.document_given(), appid(self.given))?;
        Ok(Account {
            name: DEFAULT_ACCOUNT.to_owned(),
            appid,
            api: self.given.api.unwrap_or_default(),
            rules: self.given.api.unwrap_or_default().into(),
            refresh_before: self.refresh_before(None),
            place: self.place(DEFAULT_ACCOUNT, self.given.appid.as_deref(), document),
            tickets: Vec::new(),
            on_change: None,
        })
    }

    fn contact_given(&self) -> UpstreamConfig {
        let given = self.given;
        let api = given.api.unwrap_or_default();
        UpstreamConfig {
            base_urls: vec![given.base_url.clone().unwrap_or_else(|| api.base_url().to_owned())],
            proxy: None,
            ca_file: given.ca_file.clone(),
            is_mirror: false,
            secret_file: given.secret_file.clone(),
            origin: Origin::CommandLine,
        }
    }

    /// An account of the file.
    fn entry_of_file(&self, account: &file::Account, dir: &Path) -> Entry {
        let place =
            |line, key: &str| format!("{}: account.{}{key}", self.file.line(line), account.name);
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
        let document = || dir.join(format!("{}.json", account.name));
        Entry {
            account: Account {
                name: account.name.clone(),
                appid: Some(account.appid.clone()).filter(|appid| !appid.is_empty()),
                api,
                rules,
                refresh_before: self.refresh_before(account.refresh_before),
                place: self.place(
                    &account.name,
                    Some(&account.appid),
                    account.file.clone().unwrap_or_else(document),
                ),
                tickets: account.tickets.clone(),
                on_change: account.on_change.clone(),
            },
            contact: UpstreamConfig {
                base_urls,
                proxy: account.proxy.clone(),
                ca_file: account.ca_file.clone(),
                is_mirror,
                secret_file,
                origin: Origin::Config {
                    account: place(account.line, ""),
                    secret_file: secret_place,
                },
            },
            allow: account.allow.clone(),
        }
    }

    fn refresh_before(&self, of_account: Option<Duration>) -> Duration {
        let given = self.given.refresh_before.or(of_account);
        given.or(self.file.refresh_before).unwrap_or(REFRESH_BEFORE)
    }

    /// Tells which of these names are no account's.
    fn check_names(&self, names: &[String]) -> anyhow::Result<()> {
        let known: Vec<&str> =
            self.file.accounts.iter().map(|account| account.name.as_str()).collect();
        let unknown = names.iter().filter(|name| known.binary_search(&name.as_str()).is_err());
        let unknown: Vec<_> = unknown
            .map(|name| {
                let shown = without_long_words(name);
                let shown = printable(&shown, LONGEST_NAME_SHOWN);
                let hint = match diagnostics::nearest(name, &known) {
                    Some(near) => format!("is it {near}?"),
                    None => format!("there are {}", self.named()),
                };
                format!("there is no account {shown} in {}; {hint}", self.file.path.display())
            })
            .collect();
        if unknown.is_empty() { Ok(()) } else { Err(Exit::Usage.errors(unknown)) }
    }

    /// The names of the file's accounts, as far as a line holds them.
    fn named(&self) -> String {
        let names = self.file.accounts.iter().map(|account| account.name.as_str());
        let names: Vec<_> = names.take(MOST_NAMED).collect();
        match self.file.accounts.len() - names.len() {
            0 => names.join(", "),
            more => format!("{} and {more} more", names.join(", ")),
        }
    }

    /// Where the documents of this account are, whose own file is this one.
    fn place(&self, account: &str, appid: Option<&str>, file: PathBuf) -> Location {
        let Some(redis) = &self.file.store else { return Location::File(file) };
        Location::Shared(Arc::new(Shared {
            redis: redis.clone(),
            account: account.to_owned(),
            appid: appid.filter(|appid| !appid.is_empty()).map(str::to_owned),
            copy: file,
        }))
    }

    /// Where documents are published.
    fn directory(&self) -> anyhow::Result<PathBuf> {
        if let Some(dir) = self.common.dir.as_ref().or(self.file.dir.as_ref()) {
            return Ok(dir.clone());
        }
        // systemd.exec(5): a list, when the unit asks for several.
        if let Some(first) = var("STATE_DIRECTORY").as_deref().and_then(first_of_list) {
            return Ok(first);
        }
        if rustix::process::geteuid().is_root() {
            return Ok(PathBuf::from(SYSTEM_DIR));
        }
        // XDG Base Directory: a relative path in it is to be ignored.
        let state = var("XDG_STATE_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
        state
            .or_else(|| var("HOME").map(|home| Path::new(&home).join(".local/state")))
            .map(|state| state.join("wxtoken"))
            .ok_or_else(|| {
                Exit::Usage.error(
                    "cannot tell where documents are published: give --dir (HOME is not set)",
                )
            })
    }

    /// The document of the account that is given.
    fn document_given(&self) -> anyhow::Result<PathBuf> {
        let path = match &self.given.file {
            // Without a slash at its end, which would make it a directory's name.
            Some(path) => path.components().collect(),
            None => self.directory()?.join(format!("{DEFAULT_ACCOUNT}.json")),
        };
        if path.file_name().is_none() {
            return Err(
                Exit::Usage.error(format!("--file {} is not a file's name", path.display()))
            );
        }
        // The lock stands beside the document under this very name.
        if path.extension().is_some_and(|extension| extension == "lock") {
            return Err(Exit::Usage.error(format!(
                "--file {} would be its own lock; end it in .json",
                path.display()
            )));
        }
        Ok(path)
    }
}

/// Two accounts with one document would replace each other's token for ever.
fn check_documents(entries: &[Entry]) -> anyhow::Result<()> {
    let mut known = HashMap::new();
    let mut problems = Vec::new();
    for Entry { account, contact, .. } in entries {
        let kinds = account.tickets.iter().map(|kind| DocumentKind::Ticket(kind.clone()));
        let documents = std::iter::once(DocumentKind::Token).chain(kinds);
        let documents = documents.map(|kind| account.place.path(&kind));
        let twins: Vec<_> = documents
            .filter_map(|it| Some((known.insert(it.clone(), &account.name)?, it)))
            .collect();
        // One is enough to see by.
        if let (Some((twin, document)), Origin::Config { account: place, .. }) =
            (twins.first(), &contact.origin)
        {
            let document = document.display();
            problems.push(format!("{place}: its document {document} is account {twin}'s, too"));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Exit::Usage.errors(problems)) }
}

fn first_of_list(list: &OsStr) -> Option<PathBuf> {
    let mut parts = list.as_bytes().split(|byte| *byte == b':');
    parts.find(|part| !part.is_empty()).map(|part| PathBuf::from(OsStr::from_bytes(part)))
}

/// The account's AppID; an empty one, as in a file of variables that nobody filled in, is none.
fn appid(account: &cli::AccountArgs) -> anyhow::Result<Option<String>> {
    match account.appid.as_deref() {
        None | Some("") => Ok(None),
        Some(appid) => match file::check_appid(appid) {
            Ok(()) => Ok(Some(appid.to_owned())),
            Err(fault) => Err(Exit::Usage.error(format!("--appid {fault}"))),
        },
    }
}

/// A variable that is set and not empty.
fn var(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}
