//! Whom to ask, and with which secret: what `fetch` and `serve --refresh` need beyond what readers do. Asks nobody yet.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow};

use crate::api::Rules;
use crate::appsecret;
use crate::config::{self, Account, Contact, DEFAULT_ACCOUNT, Origin};
use crate::endpoint::BaseUrl;
use crate::exit::Exit;
use crate::revision::Revision;
use crate::secret::Secret;
use crate::source::Upstream;
use crate::source::client::{Client, Trust};
use crate::source::wechat::WeChat;
use crate::source::wxtoken::Wxtoken;

/// Servers, and what makes them answer us: the AppSecret, or a mirror's key.
pub(super) struct Link {
    client: Client,
    secret: Option<Secret>,
}

impl Link {
    /// The link of these parts.
    pub(super) fn of(client: Client, secret: Option<Secret>) -> Link {
        Link { client, secret }
    }

    /// Who is to be asked for this account.
    pub(super) fn upstream(self, account: &Account) -> Result<Arc<dyn Upstream>> {
        Ok(match (account.rules, self.secret) {
            (Rules::Mirror, key) => Arc::new(Wxtoken::new(self.client, &account.name, key)),
            (_, secret) => {
                let secret = secret.context("there is no AppSecret")?;
                Arc::new(WeChat::new(self.client, account.api, account.needed_appid()?, secret))
            }
        })
    }
}

/// Makes links. A CA file that a thousand accounts name is read once, and again when it has changed.
#[derive(Default)]
pub(super) struct Linker {
    trusts: Mutex<HashMap<PathBuf, (Revision, Trust)>>,
}

impl Linker {
    /// What is needed to ask for the account called `name`; reads the AppSecret. An error says where it is from.
    pub(super) fn link(&self, name: &str, contact: &Contact) -> Result<Link> {
        let (client, secret) = self.parts(name, contact);
        let (client, secret) = config::both(client, secret)?;
        Ok(Link { client, secret })
    }

    /// The same, each part for itself: who is asked, and what with.
    pub(super) fn parts(
        &self,
        name: &str,
        contact: &Contact,
    ) -> (Result<Client>, Result<Option<Secret>>) {
        let secret_file = contact.secret_file.as_deref();
        let client = self.client(contact).map_err(|err| Exit::Usage.error(format!("{err:#}")));
        match &contact.origin {
            Origin::CommandLine => {
                (client, appsecret::read_given(DEFAULT_ACCOUNT, secret_file).map(Some))
            }
            Origin::Config { account, secret_file: place } => (
                client.with_context(|| account.clone()),
                match contact.is_mirror {
                    true => appsecret::read_key(name, secret_file),
                    false => appsecret::read(name, secret_file).map(Some),
                }
                .with_context(|| place.clone()),
            ),
        }
    }

    fn client(&self, contact: &Contact) -> Result<Client> {
        let base =
            |text: &String| BaseUrl::parse(text).map_err(|fault| anyhow!("--base-url {fault}"));
        let bases: Vec<_> = contact.base_urls.iter().map(base).collect::<Result<_>>()?;
        let trust = match &contact.ca_file {
            None => Trust::public(),
            Some(path) => self.trust(path)?,
        };
        Client::new(&bases, contact.proxy.as_ref(), trust)
    }

    fn trust(&self, path: &Path) -> Result<Trust> {
        let mut trusts = self.trusts.lock().unwrap_or_else(PoisonError::into_inner);
        let revision = fs::metadata(path).ok().as_ref().map(Revision::of);
        match (trusts.get(path), revision) {
            (Some((known, trust)), Some(revision)) if *known == revision => Ok(trust.clone()),
            (_, revision) => {
                let trust = Trust::with(path)?;
                if let Some(revision) = revision {
                    trusts.insert(path.to_owned(), (revision, trust.clone()));
                }
                Ok(trust)
            }
        }
    }
}
