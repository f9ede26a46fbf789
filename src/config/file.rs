//! The config file: its keys, and what may stand behind each. Every problem of a file is told at once. What is left out
//! in it is left open here; reads no secret.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;

use super::diagnostics::{Sheet, Table, Value};
use super::redis;
use crate::cli::values;
use crate::error::Exit;
use crate::model::address::endpoint::{BaseUrl, Proxy};
use crate::model::address::listen::{self, Listen};
use crate::model::address::network;
use crate::model::api::Api;
use crate::model::client_key;
use crate::model::kind::TicketType;
use crate::model::location::Redis;
use crate::model::secret;
use crate::os::hook::Hook;
use crate::os::read::{self, Protection, RegularFile};

/// The largest file that is read: a thousand accounts have a twentieth of it.
const MAX_SIZE: u64 = 4 * 1024 * 1024; // bytes

/// How many problems are told: more than a person mends before looking again.
const MAX_TOLD: usize = 100;

/// How long the command of `on_change` may take, where nothing is said.
const HOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// WeChat's have 18 characters.
const LONGEST_APPID: usize = 64;

/// What stands in the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) dir: Option<PathBuf>,
    pub(super) refresh_before: Option<Duration>,
    pub(super) mode: Option<u32>,
    /// The Redis in which the documents are; none, where they are in files.
    pub(super) store: Option<Arc<Redis>>,
    /// In the order of their names.
    pub(super) accounts: Vec<Account>,
    pub(super) serve: Serve,
}

/// An `[account.NAME]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Account {
    pub(super) name: String,
    /// Empty, where a mirror was not told.
    pub(super) appid: String,
    pub(super) api: Option<Api>,
    pub(super) secret_file: Option<PathBuf>,
    /// The other wxtoken that it is a mirror of; none, where WeChat itself is asked.
    pub(super) from: Vec<String>,
    pub(super) key_file: Option<PathBuf>,
    /// None, where WeChat's own is meant.
    pub(super) base_urls: Vec<String>,
    pub(super) proxy: Option<Proxy>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) refresh_before: Option<Duration>,
    pub(super) file: Option<PathBuf>,
    pub(super) allow: Option<Vec<String>>,
    pub(super) tickets: Vec<TicketType>,
    pub(super) on_change: Option<Hook>,
    /// The lines where it begins, and where these of its keys are.
    pub(super) line: usize,
    pub(super) appid_line: usize,
    pub(super) secret_line: usize,
    pub(super) key_line: usize,
}

/// `[serve]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Serve {
    pub(super) listen: Option<Vec<String>>,
    pub(super) allow: Option<Vec<String>>,
    pub(super) allow_file: Option<PathBuf>,
    pub(super) trusted_proxies: Option<Vec<String>>,
    pub(super) keys: Option<PathBuf>,
    pub(super) tls_cert: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) tls_client_ca: Option<PathBuf>,
    pub(super) refresh: Option<bool>,
    pub(super) max_connections: Option<u32>,
}

/// Whether the accounts' secrets will be needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secrets {
    Needed,
    Unneeded,
    /// If the file itself says that `serve` refreshes.
    NeededToRefresh,
}

impl Secrets {
    pub(super) fn are_needed(self, file: &File) -> bool {
        match self {
            Secrets::Needed => true,
            Secrets::Unneeded => false,
            Secrets::NeededToRefresh => file.serve.refresh == Some(true),
        }
    }
}

impl File {
    /// Reads the file at `path`. If anything is wrong with it, also secret files that are open to others are among the
    /// problems, where they are needed; else each is its account's own trouble.
    pub(super) fn read(path: &Path, secrets: Secrets) -> anyhow::Result<File> {
        let name = path.display().to_string();
        let usage = |problem| Exit::Usage.error(problem);
        let bytes = read::read_guarded(&format!("config {name}"), path, MAX_SIZE).map_err(usage)?;
        let text = match std::str::from_utf8(&bytes) {
            // Windows' Notepad begins a file so.
            Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
            Err(err) => {
                let before = &bytes[..err.valid_up_to()];
                let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
                return Err(usage(format!("{name}:{line}: this is not UTF-8; save the file so")));
            }
        };
        let dir = path.parent().unwrap_or(Path::new(""));
        let (mut file, sheet) = Sheet::read(&name, dir, text, File::of);
        file.path = path.to_owned();
        file.check_twins(&sheet);
        file.check_also(&sheet);
        if secrets.are_needed(&file) && sheet.has_problems() {
            for account in &file.accounts {
                account.check_secret(&sheet);
            }
        }
        let mut problems = sheet.into_problems();
        if problems.len() > MAX_TOLD {
            let more = format!("{name}: and {} more", problems.len() - MAX_TOLD);
            problems.truncate(MAX_TOLD);
            problems.push(more);
        }
        if problems.is_empty() { Ok(file) } else { Err(Exit::Usage.errors(problems)) }
    }

    fn of(top: &mut Table<'_>) -> File {
        File {
            path: PathBuf::new(),
            dir: top.get("dir", Value::path),
            refresh_before: top.get("refresh_before", Value::duration),
            mode: top.get("mode", mode),
            store: redis::of(top),
            accounts: top.tables("account", check_name, Account::of),
            serve: top.table("serve", Serve::of).unwrap_or_default(),
        }
    }

    /// Tells of accounts that are one and the same at WeChat: each would replace the other's token.
    fn check_twins(&self, sheet: &Sheet<'_>) {
        let mut known = HashMap::new();
        for account in &self.accounts {
            let Account { name, appid, secret_file, .. } = account;
            let (app, what) = match account.api.unwrap_or_default() {
                Api::Work if secret_file.is_none() => continue,
                // A corp has many apps, with a secret each.
                Api::Work => (secret_file, "the same corp and secret_file as"),
                Api::Stable | Api::Classic => (&None, "the same appid and api as"),
            };
            if appid.is_empty() || !account.from.is_empty() {
                continue;
            }
            let twin = known.insert((appid, account.api.unwrap_or_default(), app), name);
            if let Some(twin) = twin {
                let path = format!("account.{name}.appid");
                sheet.tell(
                    account.appid_line,
                    &path,
                    &format!("{what} account {twin}; one of them is enough"),
                );
            }
        }
    }

    /// Tells of keys for SDKs that would overwrite another, or a document of ours.
    fn check_also(&self, sheet: &Sheet<'_>) {
        let Some(redis) = &self.store else { return };
        let (ours, mut known) = (format!("{}:", redis.prefix), HashMap::new());
        for Account { name, appid, line, .. } in &self.accounts {
            for key in redis.also.iter().filter_map(|it| it.key_of(name, appid)) {
                let what = match known.get(&key) {
                    _ if key.starts_with(&ours) => {
                        format!(
                            "begins with {ours} as the keys of wxtoken itself do; give it another name"
                        )
                    }
                    Some(twin) if *twin == name => {
                        "is there twice; one of them is enough".to_owned()
                    }
                    Some(twin) => {
                        format!("is also that of account {twin}; put {{account}} into it")
                    }
                    None => {
                        known.insert(key, name);
                        continue;
                    }
                };
                let what = format!("its key {key} of [redis] also {what}");
                sheet.tell(*line, &format!("account.{name}"), &what);
            }
        }
    }

    /// A line of the file, as messages name it.
    pub(super) fn line(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }
}

impl Account {
    fn of(name: &str, table: &mut Table<'_>) -> Account {
        let is_mirror = table.has("from");
        let (from, key_file) =
            (table.filled_list("from", from), table.get("key_file", Value::path));
        let appid = match is_mirror {
            true => table.get("appid", appid),
            false => table.need("appid", "it has no appid", appid),
        };
        let api = table.get("api", api);
        let account = Account {
            name: name.to_owned(),
            appid: appid.unwrap_or_default(),
            api,
            secret_file: table.get("secret_file", Value::path),
            from: from.unwrap_or_default(),
            key_file,
            base_urls: table.filled_list("base_url", base_url).unwrap_or_default(),
            proxy: table.get("proxy", proxy),
            ca_file: table.get("ca_file", Value::path),
            refresh_before: table.get("refresh_before", Value::duration),
            file: table.get("file", document),
            allow: table.filled_list("allow", network),
            tickets: tickets(table, api.unwrap_or_default()),
            on_change: on_change(table),
            line: table.line_of(""),
            appid_line: table.line_of("appid"),
            secret_line: table.line_of("secret_file"),
            key_line: table.line_of("key_file"),
        };
        let (strays, what): (&[_], _) = match is_mirror {
            true => (
                &["secret_file", "base_url", "refresh_before"],
                "is for who asks WeChat; `from` names another wxtoken, which does that",
            ),
            false => (&["key_file"], "goes with `from`, the other wxtoken that knows the key"),
        };
        strays.iter().filter(|key| table.has(key)).for_each(|key| table.tell(key, what));
        account
    }

    fn check_secret(&self, sheet: &Sheet<'_>) {
        let files = [
            ("secret", &self.secret_file, self.secret_line),
            ("key", &self.key_file, self.key_line),
        ];
        for (kind, path, line) in files {
            if let Some(path) = path
                && let Err(err) = RegularFile::open(path, Protection::Private)
            {
                let what =
                    format!("cannot read {kind} file {}: {}", path.display(), err.about_secret());
                sheet.tell(line, &format!("account.{}.{kind}_file", self.name), &what);
            }
        }
    }
}

impl Serve {
    fn of(table: &mut Table<'_>) -> Serve {
        Serve {
            listen: table.filled_list("listen", listen),
            allow: table.filled_list("allow", network),
            allow_file: table.get("allow_file", Value::path),
            trusted_proxies: table.list("trusted_proxies", trusted_proxy),
            keys: table.get("keys", Value::path),
            tls_cert: table.get("tls_cert", Value::path),
            tls_key: table.get("tls_key", Value::path),
            tls_client_ca: table.get("tls_client_ca", Value::path),
            refresh: table.get("refresh", Value::flag),
            max_connections: table.get("max_connections", max_connections),
        }
    }
}

/// Whether an account can be called so.
fn check_name(name: &str) -> Result<(), &'static str> {
    if secret::may_hold_secret(name) {
        Err("an account's name in the form of an AppSecret; give it a short one")
    } else if client_key::is_account(name) {
        Ok(())
    } else {
        Err(client_key::NOT_AN_ACCOUNT)
    }
}

/// What is wrong with an AppID. Not repeated: whoever mixed up AppID and AppSecret would see the secret in a log.
pub(super) fn check_appid(text: &str) -> Result<(), &'static str> {
    let is_of_appid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if secret::may_hold_secret(text) {
        Err("has the form of an AppSecret, and is not an AppID (like wx0123456789abcdef)")
    } else if (1..=LONGEST_APPID).contains(&text.len()) && text.bytes().all(is_of_appid) {
        Ok(())
    } else {
        Err("is not an AppID (letters, digits, - and _, like wx0123456789abcdef)")
    }
}

fn appid(value: Value<'_>) -> Result<String, String> {
    let text = value.secretive_text()?;
    check_appid(text).map(|()| text.to_owned()).map_err(str::to_owned)
}

fn api(value: Value<'_>) -> Result<Api, String> {
    let text = value.text()?;
    Api::from_str(text, false).map_err(|_| {
        let names = Api::value_variants().iter().filter_map(Api::to_possible_value);
        let names: Vec<_> = names.map(|name| name.get_name().to_owned()).collect();
        format!("there is no such api; there are {}", names.join(", "))
    })
}

/// Permissions. A number would be 640 to one reader and 0o1200 to another.
fn mode(value: Value<'_>) -> Result<u32, String> {
    if value.is_integer() {
        return Err(value.unexpected("octal digits in quotes, like \"0640\""));
    }
    values::parse_mode(value.text()?)
}

fn base_url(value: Value<'_>) -> Result<String, String> {
    let text = value.text()?;
    BaseUrl::parse(text)?;
    Ok(text.to_owned())
}

/// The same of another wxtoken.
fn from(value: Value<'_>) -> Result<String, String> {
    base_url(value).map_err(|fault| fault.replace("the AppSecret would", "key and token would"))
}

fn proxy(value: Value<'_>) -> Result<Proxy, String> {
    let proxy = Proxy::parse(value.secretive_text()?)?;
    // Its host is shown, and may be what was meant to be its password.
    if secret::may_hold_secret(&proxy.authority()) {
        return Err("is not a proxy's address; its host has the form of an AppSecret".to_owned());
    }
    Ok(proxy)
}

/// The types of tickets, each of which an account on this API can have, and once.
fn tickets(table: &mut Table<'_>, api: Api) -> Vec<TicketType> {
    let of = |value: Value<'_>| TicketType::on(api, value.text()?);
    let tickets = table.list("tickets", of).unwrap_or_default();
    let is_twin = |place: usize| tickets[..place].contains(&tickets[place]);
    if (0..tickets.len()).any(is_twin) {
        table.tell("tickets", "names a type twice; once is enough");
    }
    tickets
}

/// The command that is run when the token changed.
fn on_change(table: &mut Table<'_>) -> Option<Hook> {
    let timeout = table.get("on_change_timeout", Value::some_duration);
    if table.has("on_change_timeout") && !table.has("on_change") {
        table.tell("on_change_timeout", "goes with on_change, the command that it is about");
    }
    let words = table.filled_list("on_change", |word| Ok((word, word.text()?.to_owned())))?;
    let mut words = words.into_iter();
    let (first, program) = words.next()?;
    let args: Vec<_> = words.map(|(_, word)| word).collect();
    if program.is_empty() {
        table.tell("on_change", "expected a program as the first word, found an empty one");
    } else if args.is_empty() && program.contains(char::is_whitespace) {
        table.tell(
            "on_change",
            "is no line for a shell; write [\"systemctl\", \"reload\", \"app\"]",
        );
    }
    let program = match program.contains('/') {
        true => first.beside(&program),
        false => PathBuf::from(program),
    };
    Some(Hook::new(program, args, timeout.unwrap_or(HOOK_TIMEOUT)))
}

/// Where a document is published. The lock stands beside it under this very name.
fn document(value: Value<'_>) -> Result<PathBuf, String> {
    // Without a slash at its end, which would make it a directory's name.
    let path: PathBuf = value.path()?.components().collect();
    match (path.file_name(), path.extension()) {
        (None, _) => Err("is not a file's name".to_owned()),
        (_, Some(extension)) if extension == "lock" => {
            Err("would be its own lock; end it in .json".to_owned())
        }
        _ => Ok(path),
    }
}

fn network(value: Value<'_>) -> Result<String, String> {
    let text = value.text()?.trim();
    network::parse(text)?;
    Ok(text.to_owned())
}

fn trusted_proxy(value: Value<'_>) -> Result<String, String> {
    if value.text()?.trim() == "unix" { Ok("unix".to_owned()) } else { network(value) }
}

fn listen(value: Value<'_>) -> Result<String, String> {
    let text = value.text()?.trim();
    let text = match text.strip_prefix("unix:") {
        Some(path) if !path.is_empty() => format!("unix:{}", value.beside(path).display()),
        _ => text.to_owned(),
    };
    Listen::parse(&text).map(|_| text).ok_or_else(|| listen::EXPECTED.to_owned())
}

fn max_connections(value: Value<'_>) -> Result<u32, String> {
    values::parse_max_connections(&value.integer()?.to_string())
}
