//! Whom to ask, and with which secret: what `fetch` and `serve --refresh` need beyond what readers do. Asks nobody yet.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow};

use crate::error;
use crate::error::Exit;
use crate::model::account::Account;
use crate::model::address::endpoint::BaseUrl;
use crate::model::address::endpoint::Proxy;
use crate::model::api::Rules;
use crate::model::secret::Secret;
use crate::os::file_version::FileVersion;
use crate::upstream::Upstream;
use crate::upstream::client::{Client, TrustedRoots};
use crate::upstream::credentials;
use crate::upstream::mirror::Mirror;
use crate::upstream::wechat::WeChat;

/// Whom to ask for an account's token, by which way, and with which secret: what `fetch` and `serve --refresh` need
/// beyond what readers do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UpstreamConfig {
    /// One after the other, where the one before cannot be reached.
    pub(crate) base_urls: Vec<String>,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) ca_file: Option<PathBuf>,
    /// Whether another wxtoken is asked.
    pub(crate) is_mirror: bool,
    /// With the AppSecret; a mirror's with its key.
    pub(crate) secret_file: Option<PathBuf>,
    pub(crate) origin: Origin,
}

/// Where it is said how to ask for an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    CommandLine,
    /// The lines in the config, as messages name them: of the account, and of its secret file.
    Config {
        account: String,
        secret_file: String,
    },
}

/// Servers, and what makes them answer us: the AppSecret, or a mirror's key.
pub(crate) struct UpstreamParts {
    client: Client,
    secret: Option<Secret>,
}

impl UpstreamParts {
    /// The link of these parts.
    pub(crate) fn new(client: Client, secret: Option<Secret>) -> UpstreamParts {
        UpstreamParts { client, secret }
    }

    /// Who is to be asked for this account.
    pub(crate) fn upstream(self, account: &Account) -> Result<Arc<dyn Upstream>> {
        Ok(match (account.rules, self.secret) {
            (Rules::Mirror, key) => Arc::new(Mirror::new(self.client, &account.name, key)),
            (_, secret) => {
                let secret = secret.context("there is no AppSecret")?;
                Arc::new(WeChat::new(self.client, account.api, account.needed_appid()?, secret))
            }
        })
    }
}

/// Makes links. A CA file that a thousand accounts name is read once, and again when it has changed.
#[derive(Default)]
pub(crate) struct Connector {
    trusts: Mutex<HashMap<PathBuf, (FileVersion, TrustedRoots)>>,
}

impl Connector {
    /// What is needed to ask for the account called `name`; reads the AppSecret. An error says where it is from.
    pub(crate) fn link(&self, name: &str, contact: &UpstreamConfig) -> Result<UpstreamParts> {
        let (client, secret) = self.parts(name, contact);
        let (client, secret) = error::both(client, secret)?;
        Ok(UpstreamParts { client, secret })
    }

    /// The same, each part for itself: who is asked, and what with.
    pub(crate) fn parts(
        &self,
        name: &str,
        contact: &UpstreamConfig,
    ) -> (Result<Client>, Result<Option<Secret>>) {
        let secret_file = contact.secret_file.as_deref();
        let client = self.client(contact).map_err(|err| Exit::Usage.error(format!("{err:#}")));
        match &contact.origin {
            Origin::CommandLine => (client, credentials::read_given(name, secret_file).map(Some)),
            Origin::Config { account, secret_file: place } => (
                client.with_context(|| account.clone()),
                match contact.is_mirror {
                    true => credentials::read_key(name, secret_file),
                    false => credentials::read(name, secret_file).map(Some),
                }
                .with_context(|| place.clone()),
            ),
        }
    }

    fn client(&self, contact: &UpstreamConfig) -> Result<Client> {
        let base =
            |text: &String| BaseUrl::parse(text).map_err(|fault| anyhow!("--base-url {fault}"));
        let bases: Vec<_> = contact.base_urls.iter().map(base).collect::<Result<_>>()?;
        let trust = match &contact.ca_file {
            None => TrustedRoots::public(),
            Some(path) => self.trust(path)?,
        };
        Client::new(&bases, contact.proxy.as_ref(), trust)
    }

    fn trust(&self, path: &Path) -> Result<TrustedRoots> {
        let mut trusts = self.trusts.lock().unwrap_or_else(PoisonError::into_inner);
        let revision = FileVersion::at(path);
        match (trusts.get(path), revision) {
            (Some((known, trust)), Some(revision)) if *known == revision => Ok(trust.clone()),
            (_, revision) => {
                let trust = TrustedRoots::with(path)?;
                if let Some(revision) = revision {
                    trusts.insert(path.to_owned(), (revision, trust.clone()));
                }
                Ok(trust)
            }
        }
    }
}
