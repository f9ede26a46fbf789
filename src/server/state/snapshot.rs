//! What is served and to whom, and its parts, each of which is reloaded by itself: flags and config, the allow file, and the
//! keys file. A fault in one of them holds back no change of another.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Result;

use crate::accounts::Accounts;
use crate::error::both;
use crate::language::bilingual;
use crate::log::error;
use crate::message::messages;
use crate::os::thread::lock;
use crate::server::access::allowlist::{self, Allowlist};
use crate::server::access::keys::Keys;
use crate::server::access::{AccessRules, AccessSources, ConfiguredRules};
use crate::server::reload::{FirstRead, Make, Reloaded, WatchedFiles};
use crate::upstream::api_servers::ApiServers;

messages! {
    NO_ADDRESS<1> {
        "Write the clients' addresses into it.", "allow file {0} holds no address, and no client gets in";
        "请写入调用方的地址。", "白名单文件 {0} 中没有地址，任何调用方都无法访问";
    }
    NO_KEY<1> {
        "Make one with `wxtoken key NAME`.", "keys file {0} holds no key, and no client gets a token";
        "请用 wxtoken key NAME 生成。", "访问密钥文件 {0} 中没有访问密钥，任何调用方都拿不到 token";
    }
}

/// An immutable snapshot of accounts and access rules, in which one index stands for the same account everywhere. A reload swaps in a new
/// one.
pub(crate) struct Snapshot {
    pub(crate) access: AccessRules,
    pub(crate) accounts: Rc<Accounts>,
    /// Where the accounts' calls go; `None` without a gateway.
    pub(crate) api_servers: Option<Rc<AccountServers>>,
    /// The most life of a token that SDKs are told.
    pub(crate) sdk_life: Option<Duration>,
}

/// Where calls go, by the account's name. An account whose servers could not be read is missing.
pub(crate) type AccountServers = HashMap<String, Arc<ApiServers>>;

/// What flags and config say, with the accounts connected.
pub(crate) struct ServerSettings {
    rules: Rc<ConfiguredRules>,
    accounts: Rc<Accounts>,
    sdk_life: Option<Duration>,
    allow_file: ListFile<Allowlist>,
    keys: ListFile<Keys>,
    api_servers: Option<Rc<AccountServers>>,
}

impl ServerSettings {
    pub(crate) fn new(access: AccessRead, accounts: Accounts) -> ServerSettings {
        let AccessRead { rules, allow_file, keys } = access;
        let (rules, accounts) = (Rc::new(rules), Rc::new(accounts));
        ServerSettings { rules, accounts, sdk_life: None, allow_file, keys, api_servers: None }
    }

    /// Returns these settings with a gateway to these servers, if there are any.
    pub(crate) fn with_api_servers(self, servers: Option<AccountServers>) -> ServerSettings {
        ServerSettings { api_servers: servers.map(Rc::new), ..self }
    }

    /// Returns these settings with this limit on the life of a token that SDKs are told.
    pub(crate) fn with_sdk_life(self, sdk_life: Option<Duration>) -> ServerSettings {
        ServerSettings { sdk_life, ..self }
    }

    pub(crate) fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// Whether a client at any address gets tokens without a key.
    pub(crate) fn are_for_all(&self) -> bool {
        matches!(self.keys, ListFile::None) && self.rules.allow_all()
    }
}

/// A file of access rules that flags or config name.
#[derive(Default)]
enum ListFile<T> {
    #[default]
    None,
    /// The file that is followed already. Its last good state stays, whatever is read now.
    Followed,
    /// Another file. It was read, because the settings count only if it is good, and is followed from now on.
    New(RefCell<Option<FirstRead<T>>>),
}

impl<T: 'static> ListFile<T> {
    /// Follows this file from now on.
    fn follow(&self, followed: &RefCell<Option<Rc<Reloaded<T>>>>) {
        match self {
            ListFile::None => drop(followed.take()),
            ListFile::Followed => {}
            // Taken once: the same settings count further while the file is reloaded.
            ListFile::New(first) => {
                if let Some(first) = first.take() {
                    followed.replace(Some(Rc::new(first.into())));
                }
            }
        }
    }
}

/// The access rules as they were read.
#[derive(Default)]
pub(crate) struct AccessRead {
    rules: ConfiguredRules,
    allow_file: ListFile<Allowlist>,
    keys: ListFile<Keys>,
}

/// Reads access rules, and knows which of their files are followed already.
#[derive(Clone, Default)]
pub(crate) struct AccessReader(Arc<Mutex<AccessSources>>);

impl AccessReader {
    /// Reads all but the files that are followed already. The error names all problems.
    pub(crate) fn read(&self, sources: &AccessSources) -> Result<AccessRead> {
        let (known_allow_file, known_keys) = {
            let known = self.known();
            (known.allow_file.clone(), known.keys.clone())
        };
        let allow_file = list_file(&sources.allow_file, &known_allow_file, |path| {
            self.allow_file(path, sources)
        });
        let keys = list_file(&sources.keys, &known_keys, |path| self.keys(path, sources));
        let (rules, (allow_file, keys)) = both(sources.parse(), both(allow_file, keys))?;
        Ok(AccessRead { rules, allow_file, keys })
    }

    /// Notes that these sources were read, and are in force now.
    pub(crate) fn take(&self, sources: AccessSources) {
        *self.known() = sources;
    }

    fn known(&self) -> MutexGuard<'_, AccessSources> {
        lock(&self.0)
    }

    /// Reads the allow file. Reports on stderr if it lets no client in.
    fn allow_file(&self, path: &Path, sources: &AccessSources) -> Result<FirstRead<Allowlist>> {
        let path = path.to_owned();
        let read = move |files: &mut WatchedFiles, sources: &AccessSources| {
            files.add(&path);
            let listed = allowlist::read_file(&path)?;
            if listed.is_empty() && sources.allow.is_empty() {
                error!("serve: {}", NO_ADDRESS.with([&path.display()]));
            }
            Ok(Box::new(|_: Option<&Allowlist>| listed) as Make<Allowlist>)
        };
        self.first_read(
            bilingual!("addresses of the allow file", "白名单文件中的地址"),
            sources,
            read,
        )
    }

    /// Reads the keys file. Reports on stderr if it lets no client in.
    fn keys(&self, path: &Path, sources: &AccessSources) -> Result<FirstRead<Keys>> {
        let path = path.to_owned();
        let read = move |files: &mut WatchedFiles, sources: &AccessSources| {
            files.add(&path);
            let keys = Keys::read(&path, &sources.account_names())?;
            if keys.is_empty() {
                error!("serve: {}", NO_KEY.with([&path.display()]));
            }
            Ok(Box::new(|_: Option<&Keys>| keys) as Make<Keys>)
        };
        self.first_read(bilingual!("keys", "访问密钥"), sources, read)
    }

    /// Reads a file for these sources; at a reload, for the sources that are in force then.
    fn first_read<T: 'static>(
        &self,
        name: &'static str,
        sources: &AccessSources,
        read: impl Fn(&mut WatchedFiles, &AccessSources) -> Result<Make<T>> + Send + Sync + 'static,
    ) -> Result<FirstRead<T>> {
        let mut files = WatchedFiles::default();
        let make = read(&mut files, sources)?;
        let reader = self.clone();
        let again = move |files: &mut WatchedFiles| {
            let sources = reader.known().clone();
            read(files, &sources)
        };
        Ok(FirstRead::of(name, files, make, again))
    }
}

/// Reads the file at `path`, unless it is `known` already.
fn list_file<T>(
    path: &Option<PathBuf>,
    known: &Option<PathBuf>,
    read: impl FnOnce(&Path) -> Result<FirstRead<T>>,
) -> Result<ListFile<T>> {
    match path {
        None => Ok(ListFile::None),
        Some(path) if Some(path) == known.as_ref() => Ok(ListFile::Followed),
        Some(path) => Ok(ListFile::New(RefCell::new(Some(read(path)?)))),
    }
}

/// The current snapshot, and the parts that it is made of. Belongs to the listener's thread.
pub(crate) struct LiveSnapshot {
    settings: Reloaded<ServerSettings>,
    allow_file: RefCell<Option<Rc<Reloaded<Allowlist>>>>,
    keys: RefCell<Option<Rc<Reloaded<Keys>>>>,
    current: RefCell<Rc<Snapshot>>,
}

impl LiveSnapshot {
    pub(crate) fn new(settings: Reloaded<ServerSettings>) -> LiveSnapshot {
        let snapshot = Snapshot {
            access: AccessRules::default(),
            accounts: Rc::clone(&settings.get().accounts),
            api_servers: None,
            sdk_life: None,
        };
        let live = LiveSnapshot {
            settings,
            allow_file: RefCell::default(),
            keys: RefCell::default(),
            current: RefCell::new(Rc::new(snapshot)),
        };
        live.swap();
        live
    }

    /// Returns the current snapshot.
    pub(crate) fn get(&self) -> Rc<Snapshot> {
        Rc::clone(&self.current.borrow())
    }

    /// Reloads flags and config if they have changed, or if a reload `is_requested`. Starts to serve new accounts. Returns whether the settings
    /// are current.
    pub(crate) async fn update_settings(&self, is_requested: bool) -> bool {
        let before = self.get();
        let is_current = self.settings.update(is_requested).await;
        // Nothing is awaited here: other settings that came in between would not name a new file once more.
        self.swap();
        let accounts = Rc::clone(&self.get().accounts);
        accounts.start();
        // A key may be for an account that is new.
        let keys = self.keys.borrow().clone();
        let is_same =
            Rc::ptr_eq(&before.accounts, &accounts) || before.accounts.names() == accounts.names();
        if let (Some(keys), false) = (keys, is_same) {
            keys.reload().await;
            self.swap();
        }
        is_current
    }

    /// Reloads the allow file in the same cases. Returns whether it is current; `None` if there is none.
    pub(crate) async fn update_allow_file(&self, is_requested: bool) -> Option<bool> {
        let allow_file = self.allow_file.borrow().clone()?;
        let is_current = allow_file.update(is_requested).await;
        self.swap();
        Some(is_current)
    }

    /// Reloads the keys file in the same cases. Returns whether it is current; `None` if there is none.
    pub(crate) async fn update_keys(&self, is_requested: bool) -> Option<bool> {
        let keys = self.keys.borrow().clone()?;
        let is_current = keys.update(is_requested).await;
        self.swap();
        Some(is_current)
    }

    /// Makes a snapshot of the parts as they are now.
    fn swap(&self) {
        let settings = self.settings.get();
        settings.allow_file.follow(&self.allow_file);
        settings.keys.follow(&self.keys);
        let access = AccessRules {
            configured: Rc::clone(&settings.rules),
            listed: self.allow_file.borrow().as_ref().map(|file| file.get()),
            keys: self.keys.borrow().as_ref().map(|file| file.get()),
        };
        let (accounts, sdk_life) = (Rc::clone(&settings.accounts), settings.sdk_life);
        let api_servers = settings.api_servers.clone();
        self.current.replace(Rc::new(Snapshot { access, accounts, api_servers, sdk_life }));
    }
}
