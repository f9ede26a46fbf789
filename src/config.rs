//! What flags and environment mean, checked: which account, which file, which directory. All problems are told at
//! once. Reads no secret and no document.

use std::path::{Path, PathBuf};

use crate::cli;
use crate::exit::Exit;

/// The name of the account that is given on the command line.
pub(crate) const DEFAULT_ACCOUNT: &str = "default";

/// Where documents are published.
pub(crate) fn directory(common: &cli::Common) -> anyhow::Result<PathBuf> {
    if let Some(dir) = &common.dir {
        return Ok(dir.clone());
    }
    // systemd.exec(5): a list, when the unit asks for several.
    if let Some(dirs) = var("STATE_DIRECTORY") {
        return Ok(PathBuf::from(dirs.split(':').next().unwrap_or(&dirs)));
    }
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/wxtoken"));
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

/// The account's document.
pub(crate) fn document_path(
    common: &cli::Common,
    account: &cli::Account,
) -> anyhow::Result<PathBuf> {
    let path = match &account.file {
        Some(path) => path.clone(),
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

/// The account's AppID, where one is needed.
pub(crate) fn appid(account: &cli::Account) -> anyhow::Result<&str> {
    match account.appid.as_deref() {
        None | Some("") => Err(Exit::Usage.error("no account: give --appid, or set WXTOKEN_APPID")),
        Some(appid) if is_appid(appid) => Ok(appid),
        // Not repeated: whoever mixed up AppID and AppSecret would see the secret in a log.
        Some(_) => Err(Exit::Usage
            .error("--appid is not an AppID (letters, digits, - and _, like wx0123456789abcdef)")),
    }
}

fn is_appid(text: &str) -> bool {
    text.len() <= 64
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// A variable that is set and not empty.
fn var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// All of these results, or one error that tells every problem among them, under the worst status.
pub(crate) fn all<A, B, C>(
    a: anyhow::Result<A>,
    b: anyhow::Result<B>,
    c: anyhow::Result<C>,
) -> anyhow::Result<(A, B, C)> {
    match (a, b, c) {
        (Ok(a), Ok(b), Ok(c)) => Ok((a, b, c)),
        (a, b, c) => {
            let problems: Vec<_> = [a.err(), b.err(), c.err()].into_iter().flatten().collect();
            let exit = problems.iter().map(Exit::of).max().unwrap_or(Exit::Failure);
            let told: Vec<_> = problems.iter().map(|problem| format!("{problem:#}")).collect();
            Err(exit.error(told.join("; ")))
        }
    }
}
