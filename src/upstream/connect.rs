//! Builds the upstream of an account from its configuration: the HTTP client, the AppSecret or key, and the API. Reads
//! secret and CA files; sends no request.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::Upstream;
use super::client::Client;
use super::config::{Origin, UpstreamConfig};
use super::credentials;
use super::mirror::Mirror;
use super::passed::KnownMirrors;
use super::roots::TrustedRoots;
use super::wechat::WeChat;
use crate::error::{Exit, both, in_order};
use crate::message::messages;
use crate::model::account::Account;
use crate::model::address::endpoint::{BaseUrl, Proxy};
use crate::model::api::Rules;
use crate::model::secret::Secret;
use crate::os::file::version::FileVersion;
use crate::os::thread::lock;

/// How long a pipe in place of a secret file is waited for, if no flag limits the run.
const PIPE_PATIENCE: Duration = Duration::from_secs(30);

/// Builds upstreams. Caches CA files, so that a file that a thousand accounts name is read again only after a change.
pub(crate) struct Connector {
    /// The roots of accounts without a CA file.
    common: TrustedRoots,
    /// The roots of accounts with a CA file, by its path.
    roots: Mutex<HashMap<PathBuf, (FileVersion, TrustedRoots)>>,
    /// How long the writer of a pipe in place of a secret file is waited for.
    pipe_patience: Duration,
    /// The mirrors that have asked this process.
    pub(crate) mirrors: Arc<KnownMirrors>,
}

impl Default for Connector {
    fn default() -> Connector {
        Connector::within(PIPE_PATIENCE)
    }
}

impl Connector {
    /// Returns a connector for a run that may take `timeout`.
    pub(crate) fn within(timeout: Duration) -> Connector {
        Connector {
            common: TrustedRoots::of_system(),
            roots: Mutex::default(),
            pipe_patience: timeout,
            mirrors: Arc::default(),
        }
    }

    /// Builds the account's upstream. The error says where the configuration comes from.
    pub(crate) fn connect(
        &self,
        account: &Account,
        config: &UpstreamConfig,
    ) -> Result<Arc<dyn Upstream>> {
        let (client, secret) = self.parts(&account.name, config);
        let (client, secret) = both(client, secret)?;
        upstream(account, client, secret)
    }

    /// Builds the account's upstream like [`connect`](Self::connect), for a run that may make no request: the system's CA store is read
    /// at the first one.
    pub(crate) fn connect_later(
        &self,
        account: &Account,
        config: &UpstreamConfig,
    ) -> Result<Arc<dyn Upstream>> {
        let (client, secret) = self.parts_for_later(&account.name, config);
        let (client, secret) = both(client, secret)?;
        upstream(account, client, secret)
    }

    /// Returns the client and the secret of the account called `name`, each with its own error. A mirror may have no
    /// secret.
    pub(crate) fn parts(
        &self,
        name: &str,
        config: &UpstreamConfig,
    ) -> (Result<Client>, Result<Option<Secret>>) {
        let (client, secret) = self.parts_for_later(name, config);
        let client = client.and_then(|client| {
            match (client.prepare(), &config.origin) {
                (Err(err), Origin::Config { account, .. }) => Err(err.context(account.clone())),
                (prepared, _) => prepared,
            }?;
            Ok(client)
        });
        (client, secret)
    }

    fn parts_for_later(
        &self,
        name: &str,
        config: &UpstreamConfig,
    ) -> (Result<Client>, Result<Option<Secret>>) {
        let client = self.client(config).map_err(|err| Exit::Usage.error(in_order(&err)));
        let secret = credentials::read(name, config, self.pipe_patience);
        match &config.origin {
            Origin::CommandLine => (client, secret),
            Origin::Config { account, secret_file } => (
                client.with_context(|| account.clone()),
                secret.with_context(|| secret_file.clone()),
            ),
        }
    }

    fn client(&self, config: &UpstreamConfig) -> Result<Client> {
        let bases = bases(&config.base_urls)?;
        let roots = self.roots(config, &bases)?;
        let client = Client::new(&bases, config.proxy.as_ref(), roots)?;
        Ok(client.asked_by(&self.mirrors))
    }

    /// Returns the common roots, with those of the CA file if there is one. Without TLS it returns none, and a CA store that cannot be used
    /// is no error.
    pub(super) fn roots(&self, config: &UpstreamConfig, bases: &[BaseUrl]) -> Result<TrustedRoots> {
        match &config.ca_file {
            Some(path) => self.roots_of_file(path),
            None if speaks_tls(config, bases) => Ok(self.common.clone()),
            None => Ok(TrustedRoots::none()),
        }
    }

    fn roots_of_file(&self, path: &Path) -> Result<TrustedRoots> {
        // Read without the lock: a file on a dead mount holds up no account with another one.
        let cached = || lock(&self.roots);
        let version = FileVersion::at(path);
        let known = cached().get(path).filter(|(known, _)| Some(*known) == version).cloned();
        if let Some((_, roots)) = known {
            return Ok(roots);
        }
        let roots = TrustedRoots::with_ca_file(path)?;
        if let Some(version) = version {
            cached().insert(path.to_owned(), (version, roots.clone()));
        }
        Ok(roots)
    }
}

messages! {
    NO_SECRET_HERE<0> {
        "Give the AppSecret (secret_file).", "there is no AppSecret";
        "请提供 AppSecret（secret_file）。", "没有 AppSecret";
    }
    SLOW_FILES<0> {
        "See whether the disk answers that they are on.", "the files of the AppSecret and of the CAs are not read yet";
        "请检查其所在磁盘是否有响应。", "AppSecret 和 CA 文件尚未读完";
    }
}

/// Whether a connection to one of these servers, or to a proxy on the way there, may be by TLS.
pub(super) fn speaks_tls(config: &UpstreamConfig, bases: &[BaseUrl]) -> bool {
    let has_proxy = |base| !matches!(Proxy::from_environment(base), Ok(None));
    config.proxy.is_some() || bases.iter().any(|base| base.is_https() || has_proxy(base))
}

/// Parses base URLs.
pub(super) fn bases(texts: &[String]) -> Result<Vec<BaseUrl>> {
    let base = |text: &String| BaseUrl::parse(text).map_err(|fault| anyhow!("--base-url: {fault}"));
    texts.iter().map(base).collect()
}

/// Returns the account's upstream with this client and secret. Fails if the account's API needs an AppID or AppSecret
/// that is missing.
pub(crate) fn upstream(
    account: &Account,
    client: Client,
    secret: Option<Secret>,
) -> Result<Arc<dyn Upstream>> {
    Ok(match account.rules {
        Rules::Mirror => Arc::new(Mirror::new(client, &account.name, &account.location, secret)),
        Rules::Stable | Rules::Classic | Rules::Work => {
            let secret = secret.context(NO_SECRET_HERE.text())?;
            Arc::new(WeChat::new(client, account.api, account.needed_appid()?, secret))
        }
    })
}
