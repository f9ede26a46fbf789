//! What flags and environment mean, checked: which account, which file, which directory. All problems are told at
//! once. Reads no secret and no document.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::api::Api;
use crate::cli;
use crate::exit::Exit;
use crate::token::{Document, TicketType};

/// The name of the account that is given on the command line.
pub(crate) const DEFAULT_ACCOUNT: &str = "default";

/// Where root's documents are, and those of the units in contrib.
pub(crate) const SYSTEM_DIR: &str = "/var/lib/wxtoken";

/// An account, as far as everybody needs to know it. What only `fetch` needs is not in here.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    /// What people call it.
    pub(crate) name: String,
    /// WeChat's name for it; a reader may do without.
    pub(crate) appid: Option<String>,
    pub(crate) api: Api,
    /// Its token is due when this much life is left.
    pub(crate) refresh_before: Duration,
    /// Where its document is published.
    pub(crate) document: PathBuf,
}

/// The account of the command line.
pub(crate) fn account(common: &cli::Common, given: &cli::Account) -> anyhow::Result<Account> {
    let (document, appid) = both(document_path(common, given), appid(given))?;
    Ok(Account {
        name: DEFAULT_ACCOUNT.to_owned(),
        appid,
        api: given.api,
        refresh_before: given.refresh_before,
        document,
    })
}

/// Where documents are published.
fn directory(common: &cli::Common) -> anyhow::Result<PathBuf> {
    if let Some(dir) = &common.dir {
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
            Exit::Usage
                .error("cannot tell where documents are published: give --dir (HOME is not set)")
        })
}

fn first_of_list(list: &OsStr) -> Option<PathBuf> {
    let mut parts = list.as_bytes().split(|byte| *byte == b':');
    parts.find(|part| !part.is_empty()).map(|part| PathBuf::from(OsStr::from_bytes(part)))
}

/// The account's document.
fn document_path(common: &cli::Common, account: &cli::Account) -> anyhow::Result<PathBuf> {
    let path = match &account.file {
        // Without a slash at its end, which would make it a directory's name.
        Some(path) => path.components().collect(),
        None => directory(common)?.join(format!("{DEFAULT_ACCOUNT}.json")),
    };
    if path.file_name().is_none() {
        return Err(Exit::Usage.error(format!("--file {} is not a file's name", path.display())));
    }
    // The lock stands beside the document under this very name.
    if path.extension().is_some_and(|extension| extension == "lock") {
        return Err(Exit::Usage
            .error(format!("--file {} would be its own lock; end it in .json", path.display())));
    }
    Ok(path)
}

/// The account's AppID; an empty one, as in a file of variables that nobody filled in, is none.
fn appid(account: &cli::Account) -> anyhow::Result<Option<String>> {
    match account.appid.as_deref() {
        None | Some("") => Ok(None),
        Some(appid) if is_appid(appid) => Ok(Some(appid.to_owned())),
        // Not repeated: whoever mixed up AppID and AppSecret would see the secret in a log.
        Some(_) => Err(Exit::Usage
            .error("--appid is not an AppID (letters, digits, - and _, like wx0123456789abcdef)")),
    }
}

impl Account {
    /// Whether a document is this account's; anybody's will do where no AppID is known.
    pub(crate) fn owns(&self, document: &Document) -> bool {
        self.appid.as_ref().is_none_or(|appid| *appid == document.appid)
    }

    /// Where its ticket of this type is published: beside its token's document.
    pub(crate) fn ticket_document(&self, kind: &TicketType) -> PathBuf {
        let mut name = match self.document.extension() {
            Some(extension) if extension == "json" => self.document.file_stem(),
            _ => self.document.file_name(),
        }
        .unwrap_or_default()
        .to_owned();
        name.push(format!(".{kind}.json"));
        self.document.with_file_name(name)
    }

    /// This account and its AppID, where one is needed.
    pub(crate) fn with_appid(self) -> anyhow::Result<(Account, String)> {
        match self.appid.clone() {
            Some(appid) => Ok((self, appid)),
            None => Err(Exit::Usage.error("no account: give --appid, or set WXTOKEN_APPID")),
        }
    }
}

fn is_appid(text: &str) -> bool {
    text.len() <= 64
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// A variable that is set and not empty.
fn var(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Both results, or one error that tells the problems of both, under the worse status.
pub(crate) fn both<A, B>(a: anyhow::Result<A>, b: anyhow::Result<B>) -> anyhow::Result<(A, B)> {
    match (a, b) {
        (Ok(a), Ok(b)) => Ok((a, b)),
        (Err(a), Err(b)) => Err(Exit::of(&a).max(Exit::of(&b)).error(format!("{a:#}; {b:#}"))),
        (Err(problem), Ok(_)) | (Ok(_), Err(problem)) => Err(problem),
    }
}
