//! Whom to ask, and with which secret: what `fetch` and `serve --refresh` need beyond what readers do. Asks nobody yet.

use anyhow::{Result, anyhow};

use crate::appsecret;
use crate::cli;
use crate::config::{self, Account, DEFAULT_ACCOUNT};
use crate::endpoint::BaseUrl;
use crate::exit::Exit;
use crate::secret::Secret;
use crate::source::client::Client;
use crate::source::wechat::WeChat;

/// A server, and the AppSecret for it.
pub(super) struct Asking {
    client: Client,
    secret: Secret,
}

/// What the flags say of it; reads the AppSecret.
pub(super) fn source(given: &cli::Account) -> Result<Asking> {
    let base_url = given.base_url.as_deref().unwrap_or(given.api.base_url());
    let client = BaseUrl::parse(base_url)
        .map_err(|finding| anyhow!("--base-url {finding}"))
        .and_then(|base| Client::new(&[base], None, given.ca_file.as_deref()))
        .map_err(|err| Exit::Usage.error(format!("{err:#}")));
    let secret = appsecret::read(DEFAULT_ACCOUNT, given.secret_file.as_deref());
    let (client, secret) = config::both(client, secret)?;
    Ok(Asking { client, secret })
}

impl Asking {
    /// WeChat, to be asked for this account.
    pub(super) fn wechat(self, account: &Account, appid: &str) -> WeChat {
        WeChat::new(self.client, account.api, appid, self.secret)
    }
}
