//! Findings about this host: the secret, the place of the documents, the lock and the hook.

use std::fmt::Display;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Result;
use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::{Finding, Verdict, messages};
use crate::error::Exit;
use crate::message::command::{as_user, marked, quoted_path};
use crate::model::account::Account;
use crate::model::kind::DocumentKind;
use crate::model::location::Location;
use crate::model::secret::Secret;
use crate::os::ca_store::CaStore;
use crate::os::fault::user_name;
use crate::os::file::dir::dir_of;
use crate::os::file::read::open_to_writers;
use crate::os::hook::Hook;
use crate::os::local_time::local;
use crate::store::{DirectoryState, LeaseState, LostAnswers, PublishTrial, RedisState};
use crate::upstream::UpstreamError;
use crate::upstream::credentials::SecretSource;

const ROOT: u32 = 0;

/// The AppSecret, or a mirror's key. `source` is where it comes from, and `read` the result of reading it.
pub(crate) fn secret(
    is_mirror: bool,
    source: Option<&SecretSource<'_>>,
    read: &Result<Option<Secret>>,
) -> Finding {
    let about = if is_mirror { "key" } else { "secret" };
    match (source, read) {
        (Some(source), Ok(Some(_))) => Finding::named(about, describe(source)),
        (_, Ok(_)) => Finding::good(about, &messages::NO_KEY, []),
        (Some(source), Err(err)) => {
            let message = match is_closed(source) {
                true => &messages::SECRET_CLOSED,
                false => &messages::SECRET_UNUSABLE,
            };
            Finding::problem(about, Exit::from_error(err), message, [&format!("{err:#}")])
        }
        (None, Err(_)) => Finding::notice(about, &messages::NO_SECRET, []),
    }
}

/// A secret that root can read, and not the user to whom the documents belong. Those in a directory of root's get to the units as
/// credentials.
pub(crate) fn secret_of_root(account: &Account, source: &SecretSource<'_>) -> Option<Finding> {
    let owner = |path: &Path| Some(dir_of(path).metadata().ok()?.uid());
    let user = owner(&account.location.path(&DocumentKind::Token)).filter(|user| *user != ROOT)?;
    let path: &Path = match source {
        SecretSource::File(path) => path,
        SecretSource::InDirectory(path) if owner(path) == Some(user) => path,
        _ => return None,
    };
    let file = path.metadata().ok().filter(|it| it.uid() == ROOT && it.mode() & 0o044 == 0);
    let user = user_name(user);
    let command = as_user(&user, "check", &account.name);
    let values = [&path.display() as &dyn Display, &user, &command];
    file.map(|_| Finding::notice("secret", &messages::SECRET_OF_ROOT, values))
}

/// Whether this user may not read the file of a source, and so cannot say whether its content is right.
fn is_closed(source: &SecretSource<'_>) -> bool {
    let path: &Path = match source {
        SecretSource::Stdin | SecretSource::Variable => return false,
        SecretSource::File(path) | SecretSource::FileOrPipe(path) => path,
        SecretSource::InDirectory(path) | SecretSource::Credential(path) => path,
    };
    access(path, Access::READ_OK) == Err(Errno::ACCESS)
}

/// A description of a source, with the mode of its file.
fn describe(source: &SecretSource<'_>) -> String {
    let with_mode = |path: &Path| {
        let mode = path.metadata().map(|it| it.permissions().mode() & 0o7777);
        let mode = mode.map(|mode| format!(" ({mode:04o})")).unwrap_or_default();
        format!("{}{mode}", path.display())
    };
    match source {
        SecretSource::Stdin => messages::FROM_STDIN.with([]),
        SecretSource::File(path) => with_mode(path),
        SecretSource::InDirectory(path) => with_mode(path),
        SecretSource::FileOrPipe(path) => with_mode(path),
        SecretSource::Credential(path) => messages::CREDENTIAL.with([&with_mode(path)]),
        SecretSource::Variable => messages::FROM_VARIABLE.with([]),
    }
}

/// The system's CA store, as it was read; `None` if the environment names none.
pub(crate) fn ca_store(read: Result<&CaStore, &str>) -> Option<Finding> {
    let about = "roots";
    match read {
        Ok(store) if store.sources.is_empty() => None,
        Ok(CaStore { certificates, sources }) => {
            let values = [&certificates.len() as &dyn Display, &sources.join(", ")];
            Some(Finding::good(about, &messages::CA_STORE, values))
        }
        Err(what) => {
            let message = &messages::CA_STORE_UNUSABLE;
            Some(Finding::problem(about, Exit::Usage, message, [&what]))
        }
    }
}

/// Whether documents can be published at this location. `trial` is the result of trying.
pub(crate) fn location(location: &Location, trial: &PublishTrial) -> Finding {
    match trial {
        PublishTrial::Directory(tried) => directory(location, tried),
        PublishTrial::Redis(tried) => redis(location, tried),
    }
}

fn directory(location: &Location, tried: &Result<DirectoryState>) -> Finding {
    let about = "directory";
    match tried {
        Ok(DirectoryState::Ready) => Finding::good(about, &messages::DIRECTORY_READY, [location]),
        Ok(DirectoryState::Network(kind)) => {
            Finding::notice(about, &messages::DIRECTORY_ON_NETWORK, [location, kind])
        }
        Ok(DirectoryState::Missing) => {
            Finding::good(about, &messages::DIRECTORY_MISSING, [location])
        }
        Err(err) => {
            let values = [location as &dyn Display, &format!("{err:#}")];
            Finding::problem(about, Exit::Failure, &messages::DIRECTORY_UNUSABLE, values)
        }
    }
}

/// A document, or its directory, that others than the owner may write to.
pub(crate) fn writers(paths: impl IntoIterator<Item = PathBuf>) -> Option<Finding> {
    let (path, mode) = paths.into_iter().find_map(|path| open_to_writers(&path))?;
    let bits = if path.is_dir() { "o-w" } else { "go-w" };
    let command = marked(&format!("chmod {bits} {}", quoted_path(&path)));
    let values = [&command as &dyn Display, &path.display(), &format!("{mode:04o}")];
    Some(Finding::notice("directory", &messages::OPEN_TO_WRITERS, values))
}

fn redis(location: &Location, tried: &Result<RedisState>) -> Finding {
    let about = "store";
    match tried {
        Ok(RedisState { also, channel }) if also.is_empty() => match channel {
            None => Finding::good(about, &messages::REDIS_READY, [location]),
            Some(err) => {
                let values = [location as &dyn Display, &format!("{err:#}")];
                Finding::notice(about, &messages::REDIS_SILENT, values)
            }
        },
        Ok(RedisState { also, .. }) => {
            let faults: Vec<_> = also.iter().map(|fault| format!("{fault:#}")).collect();
            let values = [location as &dyn Display, &faults.join("; ")];
            Finding::problem(about, Exit::Failure, &messages::REDIS_FAULTY, values)
        }
        Err(err) => {
            let values = [location as &dyn Display, &format!("{err:#}")];
            Finding::problem(about, Exit::Failure, &messages::REDIS_UNUSABLE, values)
        }
    }
}

/// Why nothing can be published in Redis. What it keeps from being read as well needs no advice of its own.
pub(crate) fn store_fault(trial: &PublishTrial) -> Option<String> {
    match trial {
        PublishTrial::Redis(Err(err)) => Some(format!("{err:#}")),
        _ => None,
    }
}

/// A secret that is not the one that got the published token.
pub(crate) fn other_secret() -> Finding {
    Finding::notice("record", &messages::OTHER_SECRET, [])
}

/// Answers that were lost within a day, on the API where each costs a token.
pub(crate) fn lost_answers(lost: &LostAnswers) -> Finding {
    let LostAnswers { count, last_at, next_at } = lost;
    let next = next_at.map(|at| messages::NEXT_REQUEST.with([&local(at)])).unwrap_or_default();
    let values = [count as &dyn Display, &local(*last_at), &next];
    Finding::notice("record", &messages::ANSWERS_LOST, values)
}

/// A refusal, not of the credentials, that still keeps `fetch` from asking.
pub(crate) fn still_refused(error: &UpstreamError) -> Finding {
    Finding { verdict: Verdict::Notice, ..Finding::from_upstream("record", error) }
}

/// Whether the program of a hook can be run.
pub(crate) fn hook(hook: &Hook) -> Finding {
    let (about, key) = ("hook", hook.kind().key());
    match hook.find() {
        Ok(path) => Finding::good(about, &messages::HOOK, [&key, &path.display()]),
        Err(err) => {
            let values = [&key as &dyn Display, &hook.program().display(), &err];
            Finding::problem(about, Exit::Hook, &messages::HOOK_UNUSABLE, values)
        }
    }
}

/// Whether the lock is free. `trial` is the result of trying to publish.
pub(crate) fn lock(trial: &PublishTrial, state: &Result<LeaseState>) -> Finding {
    let about = "lock";
    match state {
        Ok(LeaseState::Free) => Finding::good(about, &messages::LOCK_FREE, []),
        Ok(LeaseState::Held(holder)) => {
            let other = || messages::OTHER_PROCESS.with([]);
            let holder = holder.clone().unwrap_or_else(other);
            Finding::notice(about, &messages::LOCK_HELD, [&holder])
        }
        Err(err) => {
            let what = format!("{err:#}");
            match trial {
                // The finding about the store is the problem.
                PublishTrial::Redis(_) if store_fault(trial).as_ref() == Some(&what) => {
                    Finding::notice(about, &messages::SAME_AS_STORE, [])
                }
                PublishTrial::Redis(_) => Finding::notice(about, &messages::LOCK_UNKNOWN, [&what]),
                PublishTrial::Directory(_) => {
                    Finding::problem(about, Exit::Failure, &messages::LOCK_UNUSABLE, [&what])
                }
            }
        }
    }
}
