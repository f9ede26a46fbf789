//! Where the API calls of an account's clients go: its servers, the proxy to each, and the roots that they are verified
//! against. Connects to nothing.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::config::{Origin, UpstreamConfig};
use super::connect::{self, Connector};
use crate::error::{Exit, in_order};
use crate::model::address::endpoint::{BaseUrl, Proxy};
use crate::model::api::Api;

/// The equivalent servers of one account's API. A later one is used if those before cannot be reached.
pub(crate) struct ApiServers {
    pub(crate) servers: Vec<ApiServer>,
    pub(crate) tls: Arc<rustls::ClientConfig>,
}

/// A server, and the proxy to it.
pub(crate) struct ApiServer {
    pub(crate) base: BaseUrl,
    pub(crate) proxy: Option<Proxy>,
}

/// Makes the [`ApiServers`] of many accounts. Accounts with one CA file share its TLS configuration.
pub(crate) struct ApiServersReader<'a> {
    connector: &'a Connector,
    /// By the CA file, and by whether any connection is by TLS.
    tls: HashMap<(Option<PathBuf>, bool), Arc<rustls::ClientConfig>>,
}

impl<'a> ApiServersReader<'a> {
    pub(crate) fn new(connector: &'a Connector) -> ApiServersReader<'a> {
        ApiServersReader { connector, tls: HashMap::new() }
    }

    /// Returns the servers of an account on `api`. A mirror's calls go to WeChat itself: its source hands out tokens only.
    /// Fails if an address is none, or if the CA file cannot be read; the error says where the configuration comes from.
    pub(crate) fn read(&mut self, api: Api, config: &UpstreamConfig) -> Result<Arc<ApiServers>> {
        let servers = self.servers(api, config);
        let servers = servers.map_err(|err| Exit::Usage.error(in_order(&err)));
        match &config.origin {
            Origin::CommandLine => servers,
            Origin::Config { account, .. } => servers.with_context(|| account.clone()),
        }
    }

    fn servers(&mut self, api: Api, config: &UpstreamConfig) -> Result<Arc<ApiServers>> {
        let bases = match config.is_mirror {
            true => connect::bases(&[api.base_url().to_owned()])?,
            false => connect::bases(&config.base_urls)?,
        };
        let server = |base: BaseUrl| {
            let proxy = match &config.proxy {
                Some(given) => Some(given.clone()),
                None => Proxy::from_environment(&base)?,
            };
            Ok(ApiServer { base, proxy })
        };
        let tls = self.tls(config, &bases)?;
        let servers = bases.into_iter().map(server).collect::<Result<_>>()?;
        Ok(Arc::new(ApiServers { servers, tls }))
    }

    fn tls(
        &mut self,
        config: &UpstreamConfig,
        bases: &[BaseUrl],
    ) -> Result<Arc<rustls::ClientConfig>> {
        let key = (config.ca_file.clone(), connect::speaks_tls(config, bases));
        if let Some(known) = self.tls.get(&key) {
            return Ok(Arc::clone(known));
        }
        let tls = Arc::new(self.connector.roots(config, bases)?.pool_config()?);
        self.tls.insert(key, Arc::clone(&tls));
        Ok(tls)
    }
}
