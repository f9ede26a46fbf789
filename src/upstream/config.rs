//! The configuration of an account's upstream, as flags or the config file give it. Not validated beyond its form.

use std::path::PathBuf;

use crate::model::address::endpoint::Proxy;

/// How to reach an account's upstream, and with which secret. Only commands that ask upstream need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UpstreamConfig {
    /// Equivalent servers; a later one is used if those before cannot be reached.
    pub(crate) base_urls: Vec<String>,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) ca_file: Option<PathBuf>,
    /// Whether upstream is another wxtoken.
    pub(crate) is_mirror: bool,
    /// Holds the AppSecret; for a mirror, its key.
    pub(crate) secret_file: Option<PathBuf>,
    /// The directory in which the secret is if nothing else says where: that of `secrets` beside the config.
    pub(crate) secret_dir: Option<PathBuf>,
    pub(crate) origin: Origin,
}

/// Where an [`UpstreamConfig`] comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    CommandLine,
    /// The lines of the account and of its secret file in the config, as messages name them.
    Config {
        account: String,
        secret_file: String,
    },
}
