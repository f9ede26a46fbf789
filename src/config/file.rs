//! Reads the config file: the top table and `[account.NAME]`. Reports all its problems at once. A key that is left out
//! stays open: defaults are not known here. Reads no secret.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;

use super::diagnostics::Diagnostics;
use super::serve::FileServe;
use super::table::{self, Table, Value};
use super::{faults, messages, redis};
use crate::cli::values;
use crate::error::Exit;
use crate::language::{bilingual, in_both};
use crate::message::{action_first, listed};
use crate::model::address::endpoint::{BaseUrl, BaseUrlError, Proxy};
use crate::model::address::faults::CLEARTEXT_TO_WXTOKEN;
use crate::model::address::network;
use crate::model::api::Api;
use crate::model::client_key;
use crate::model::kind::TicketType;
use crate::model::location::RedisSettings;
use crate::model::secret;
use crate::os::file::read::{self, Protection, RegularFile};
use crate::os::hook::{Hook, HookKind};
use crate::upstream::credentials;

/// The size of the largest file that is read, in bytes. A thousand accounts take a twentieth of it.
const MAX_SIZE: u64 = 4 * 1024 * 1024;

/// How many problems are reported at most. A person corrects fewer before the next try.
const MAX_PROBLEMS: usize = 100;

/// The byte order mark, with which Windows' Notepad begins a file.
pub(super) const BYTE_ORDER_MARK: char = '\u{feff}';

/// How long the command of `on_change` or `on_trouble` may take by default.
const HOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// The length of the longest AppID, in bytes. WeChat's have 18.
const MAX_APPID: usize = 64;

/// The content of a config file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ConfigFile {
    pub(super) path: PathBuf,
    pub(super) dir: Option<PathBuf>,
    pub(super) refresh_before: Option<Duration>,
    pub(super) mode: Option<u32>,
    /// The command for accounts without one of their own.
    pub(super) on_trouble: Option<Hook>,
    /// The Redis that holds the documents; `None` if they are in files.
    pub(super) store: Option<Arc<RedisSettings>>,
    /// Sorted by name.
    pub(super) accounts: Vec<FileAccount>,
    pub(super) serve: FileServe,
}

/// Returns the names of the accounts in the config file at `path`; none if it cannot be read or is wrong.
pub(crate) fn account_names(path: &Path) -> Vec<String> {
    let file = ConfigFile::read(path, Secrets::Unneeded);
    file.map(|file| file.accounts.into_iter().map(|it| it.name).collect()).unwrap_or_default()
}

/// Reads the text of the file at `path`. Fails if another user could have written it, or if it is not UTF-8.
pub(super) fn read_text(path: &Path) -> anyhow::Result<String> {
    let name = path.display().to_string();
    let usage = |problem| Exit::Usage.error(problem);
    let shown = in_both(format!("config {name}"), format!("配置文件 {name}"));
    let bytes = read::read_guarded(&shown, path, MAX_SIZE).map_err(usage)?;
    std::str::from_utf8(&bytes).map(str::to_owned).map_err(|err| {
        let before = &bytes[..err.valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        usage(format!("{name}:{line}: {}", messages::NOT_UTF8.first([])))
    })
}

/// An `[account.NAME]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct FileAccount {
    pub(super) name: String,
    /// Empty if it is left out, as only a mirror's may be.
    pub(super) appid: String,
    pub(super) api: Option<Api>,
    pub(super) secret_file: Option<PathBuf>,
    /// The wxtoken that a mirror asks; empty for an account that asks WeChat.
    pub(super) from: Vec<String>,
    pub(super) key_file: Option<PathBuf>,
    /// Empty for WeChat's own.
    pub(super) base_urls: Vec<String>,
    pub(super) proxy: Option<Proxy>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) refresh_before: Option<Duration>,
    pub(super) file: Option<PathBuf>,
    pub(super) allow: Option<Vec<String>>,
    pub(super) tickets: Vec<TicketType>,
    pub(super) on_change: Option<Hook>,
    pub(super) on_trouble: Option<Hook>,
    /// The lines of the table and of some keys.
    pub(super) line: usize,
    pub(super) appid_line: usize,
    pub(super) secret_line: usize,
    pub(super) key_line: usize,
}

/// Whether a command needs the accounts' secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secrets {
    Needed,
    Unneeded,
    /// If the file has `refresh = true`.
    NeededToRefresh,
    /// Yes, and the command itself reads them and reports what is wrong with them.
    Examined,
}

impl Secrets {
    /// Whether they are needed, given this file.
    pub(super) fn are_needed(self, file: &ConfigFile) -> bool {
        match self {
            Secrets::Needed => true,
            Secrets::Unneeded | Secrets::Examined => false,
            Secrets::NeededToRefresh => file.serve.refresh == Some(true),
        }
    }

    /// Whether they will be read, given this file.
    pub(super) fn are_read(self, file: &ConfigFile) -> bool {
        self == Secrets::Examined || self.are_needed(file)
    }
}

impl ConfigFile {
    /// Reads the file at `path`. Fails if anything is wrong with it. Then the problems include secret files that cannot be
    /// read, if secrets are needed; in a correct file such a secret is the problem of its account alone.
    pub(super) fn read(path: &Path, secrets: Secrets) -> anyhow::Result<ConfigFile> {
        ConfigFile::parse(path, &read_text(path)?, secrets)
    }

    /// Parses the text of the file at `path`, as [`ConfigFile::read`] does.
    pub(super) fn parse(path: &Path, text: &str, secrets: Secrets) -> anyhow::Result<ConfigFile> {
        let name = path.display().to_string();
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        let dir = path.parent().unwrap_or(Path::new(""));
        let (mut file, diagnostics) = table::parse(&name, dir, text, ConfigFile::from_table);
        file.path = path.to_owned();
        file.check_duplicates(&diagnostics);
        file.check_also(&diagnostics);
        if secrets.are_needed(&file) && diagnostics.has_problems() {
            file.accounts.iter().for_each(|account| account.check_secret(&diagnostics));
        }
        let mut problems = diagnostics.into_problems();
        if problems.len() > MAX_PROBLEMS {
            let more = {
                let rest = problems.len() - MAX_PROBLEMS;
                format!(
                    "{name}: {}",
                    in_both(format!("and {rest} more"), format!("另有 {rest} 处"))
                )
            };
            problems.truncate(MAX_PROBLEMS);
            problems.push(more);
        }
        if problems.is_empty() { Ok(file) } else { Err(Exit::Usage.errors(problems)) }
    }

    fn from_table(top: &mut Table<'_>) -> ConfigFile {
        ConfigFile {
            path: PathBuf::new(),
            dir: top.get("dir", Value::path),
            refresh_before: top.get("refresh_before", Value::duration),
            mode: top.get("mode", read_mode),
            on_trouble: read_hook(top, HookKind::OnTrouble, "on_trouble_timeout"),
            store: redis::read(top),
            accounts: top.named_tables("account", check_name, FileAccount::from_table),
            serve: top.table("serve", FileServe::from_table).unwrap_or_default(),
        }
    }

    /// Reports accounts that are the same at WeChat: each would replace the other's token.
    fn check_duplicates(&self, diagnostics: &Diagnostics<'_>) {
        let mut known: HashMap<_, &String> = HashMap::new();
        for FileAccount { name, appid, api, secret_file, from, appid_line, .. } in &self.accounts {
            let api = api.unwrap_or_default();
            let (app, message) = match api {
                Api::Work if secret_file.is_none() => continue,
                // A corp has many apps, each with a secret of its own.
                Api::Work => (secret_file, &messages::SAME_APP),
                Api::Stable | Api::Classic => (&None, &messages::SAME_ACCOUNT),
            };
            if appid.is_empty() || !from.is_empty() {
                continue;
            }
            if let Some(other) = known.insert((appid, api, app), name) {
                let what = message.first([other]);
                diagnostics.report(*appid_line, &format!("account.{name}.appid"), &what);
            }
        }
    }

    /// Reports keys of `[redis] also` that would overwrite another such key or a document, or that need an unknown AppID.
    fn check_also(&self, diagnostics: &Diagnostics<'_>) {
        let Some(redis) = &self.store else { return };
        let own_prefix = format!("{}:", redis.prefix);
        let mut known: HashMap<String, &String> = HashMap::new();
        for FileAccount { name, appid, from, line, .. } in &self.accounts {
            for also in &redis.also {
                let Some(key) = also.key_of(name, appid) else {
                    // Of others it is required anyway.
                    if !from.is_empty() {
                        let what = messages::ALSO_NEEDS_APPID.first([&also.key]);
                        diagnostics.report(*line, &format!("account.{name}"), &what);
                    }
                    continue;
                };
                let what = match known.get(&key) {
                    _ if key.starts_with(&own_prefix) => {
                        messages::ALSO_OWN.first([&key, &own_prefix])
                    }
                    Some(other) if *other == name => messages::ALSO_TWICE.first([&key]),
                    Some(other) => messages::ALSO_SHARED.first([&key, other]),
                    None => {
                        known.insert(key, name);
                        continue;
                    }
                };
                diagnostics.report(*line, &format!("account.{name}"), &what);
            }
        }
    }

    /// Returns how messages name a line of the file.
    pub(super) fn place(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }
}

impl FileAccount {
    fn from_table(name: &str, table: &mut Table<'_>) -> FileAccount {
        let is_mirror = table.has("from");
        let (from, key_file) =
            (table.nonempty_list("from", read_from), table.get("key_file", Value::path));
        let appid = match is_mirror {
            true => table.get("appid", read_appid),
            false => table.require("appid", faults::NO_APPID, read_appid),
        };
        let api = table.get("api", read_api);
        let account = FileAccount {
            name: name.to_owned(),
            appid: appid.unwrap_or_default(),
            api,
            secret_file: table.get("secret_file", Value::path),
            from: from.unwrap_or_default(),
            key_file,
            base_urls: table.nonempty_list("base_url", read_base_url).unwrap_or_default(),
            proxy: table.get("proxy", read_proxy),
            ca_file: table.get("ca_file", Value::path),
            refresh_before: table.get("refresh_before", Value::duration),
            file: table.get("file", read_document),
            allow: table.nonempty_list("allow", read_network),
            tickets: read_tickets(table, api.unwrap_or_default()),
            on_change: read_hook(table, HookKind::OnChange, "on_change_timeout"),
            on_trouble: read_hook(table, HookKind::OnTrouble, "on_trouble_timeout"),
            line: table.line_of(""),
            appid_line: table.line_of("appid"),
            secret_line: table.line_of("secret_file"),
            key_line: table.line_of("key_file"),
        };
        let (misplaced, what): (&[_], _) = match is_mirror {
            true => (&["secret_file", "base_url", "refresh_before"], faults::NOT_OF_MIRROR),
            false => (&["key_file"], faults::KEY_WITHOUT_FROM),
        };
        misplaced.iter().filter(|key| table.has(key)).for_each(|key| table.report(key, what));
        account
    }

    /// Reports the account's secret file and key file if they cannot be read.
    fn check_secret(&self, diagnostics: &Diagnostics<'_>) {
        let files = [
            ("secret", &self.secret_file, self.secret_line),
            ("key", &self.key_file, self.key_line),
        ];
        for (kind, path, line) in files {
            if let Some(path) = path
                && let Err(err) = RegularFile::open(path, Protection::Private)
            {
                let what = action_first(&credentials::unreadable(kind, path, &err));
                diagnostics.report(line, &format!("account.{}.{kind}_file", self.name), &what);
            }
        }
    }
}

/// Checks an account's name.
fn check_name(name: &str) -> Result<(), &'static str> {
    if secret::may_hold_secret(name) {
        Err(faults::ACCOUNT_LIKE_SECRET)
    } else if client_key::is_account(name) {
        Ok(())
    } else {
        Err(client_key::INVALID_ACCOUNT)
    }
}

/// Checks an AppID. The error does not repeat it: it may be an AppSecret in the wrong place.
pub(super) fn check_appid(text: &str) -> Result<(), &'static str> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if secret::may_hold_secret(text) {
        Err(faults::APPID_LIKE_SECRET)
    } else if (1..=MAX_APPID).contains(&text.len()) && text.bytes().all(is_allowed) {
        Ok(())
    } else {
        Err(faults::INVALID_APPID)
    }
}

fn read_appid(value: Value<'_>) -> Result<String, String> {
    let text = value.secret_text()?;
    check_appid(text).map(|()| text.to_owned()).map_err(str::to_owned)
}

fn read_api(value: Value<'_>) -> Result<Api, String> {
    let text = value.text()?;
    Api::from_str(text, false).map_err(|_| {
        let names = Api::value_variants().iter().filter_map(Api::to_possible_value);
        let names: Vec<_> = names.map(|name| name.get_name().to_owned()).collect();
        messages::UNKNOWN_API.first([&listed(&names, names.len())])
    })
}

/// Permissions, as a string: of the number 640, one reader would think that it is octal, and another that it is decimal.
fn read_mode(value: Value<'_>) -> Result<u32, String> {
    if value.is_integer() {
        return Err(value.unexpected(bilingual!(
            "octal digits in quotes, like \"0640\"",
            "带引号的八进制数字，如 \"0640\""
        )));
    }
    values::parse_mode(value.text()?)
}

fn read_base_url(value: Value<'_>) -> Result<String, String> {
    let text = value.text()?;
    BaseUrl::parse(text).map_err(|err| err.to_string())?;
    Ok(text.to_owned())
}

/// The address of another wxtoken, to which no AppSecret is sent.
fn read_from(value: Value<'_>) -> Result<String, String> {
    let text = value.text()?;
    match BaseUrl::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(BaseUrlError::Cleartext) => Err(CLEARTEXT_TO_WXTOKEN.to_owned()),
        Err(malformed) => Err(malformed.to_string()),
    }
}

fn read_proxy(value: Value<'_>) -> Result<Proxy, String> {
    Ok(Proxy::parse(value.secret_text()?)?)
}

/// The types of tickets, which must exist on `api` and be named once each.
fn read_tickets(table: &mut Table<'_>, api: Api) -> Vec<TicketType> {
    let ticket = |value: Value<'_>| TicketType::on(api, value.text()?);
    let tickets = table.list("tickets", ticket).unwrap_or_default();
    let is_repeated = |index: usize| tickets[..index].contains(&tickets[index]);
    if (0..tickets.len()).any(is_repeated) {
        table.report("tickets", faults::TICKET_TWICE);
    }
    tickets
}

/// An account's command of this kind, with the time that its key `timeout_key` gives it.
fn read_hook(table: &mut Table<'_>, kind: HookKind, timeout_key: &'static str) -> Option<Hook> {
    let key = kind.key();
    let timeout = table.get(timeout_key, Value::positive_duration);
    if table.has(timeout_key) && !table.has(key) {
        table.report(timeout_key, &messages::GOES_WITH.first([&key]));
    }
    let words = table.nonempty_list(key, |word| Ok((word, word.text()?.to_owned())))?;
    let mut words = words.into_iter();
    let (first, program) = words.next()?;
    let args: Vec<_> = words.map(|(_, word)| word).collect();
    if program.is_empty() {
        table.report(key, faults::EMPTY_PROGRAM);
    } else if args.is_empty() && program.contains(char::is_whitespace) {
        table.report(key, faults::SHELL_LINE);
    }
    let program = match program.contains('/') {
        true => first.resolve(&program),
        false => PathBuf::from(program),
    };
    Some(Hook::new(kind, program, args, timeout.unwrap_or(HOOK_TIMEOUT)))
}

fn read_document(value: Value<'_>) -> Result<PathBuf, String> {
    check_document(&value.path()?).map_err(str::to_owned)
}

/// Checks the path of a document, and returns it without a slash at its end. Fails for a name that would also be the name of the document's
/// lock or record.
pub(super) fn check_document(path: &Path) -> Result<PathBuf, &'static str> {
    let path: PathBuf = path.components().collect();
    match (path.file_name(), path.extension()) {
        (None, _) => Err(faults::NO_FILE_NAME),
        (_, Some(extension)) if extension == "lock" => Err(faults::OWN_LOCK),
        (_, Some(extension)) if extension == "state" || extension == "mirror" => {
            Err(faults::OWN_RECORD)
        }
        _ => Ok(path),
    }
}

pub(super) fn read_network(value: Value<'_>) -> Result<String, String> {
    let text = value.text()?.trim();
    network::parse(text)?;
    Ok(text.to_owned())
}
