//! Arguments of `setup`.

use std::path::PathBuf;

use clap::Args;

use super::values::parse_boolean;
use crate::model::api::Api;

/// Arguments of `setup`.
#[derive(Debug, Args)]
pub(crate) struct SetupArgs {
    /// AppID; with --work the corp's ID
    #[arg(value_name = "APPID")]
    pub(crate) appid: String,

    /// What to call the account
    ///
    /// In `get NAME` and GET /token/NAME. Default: default, if it is the only account; needed for a second one.
    #[arg(long, env = "WXTOKEN_NAME", value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// WeChat's API: stable (default), classic or work
    #[arg(long, env = "WXTOKEN_API", value_enum)]
    pub(crate) api: Option<Api>,

    /// An app of WeCom: the same as --api work
    #[arg(long, env = "WXTOKEN_WORK", value_parser = parse_boolean)]
    pub(crate) work: bool,

    /// File with the AppSecret, `-` for stdin
    ///
    /// Default: it is asked for on the terminal, and not shown.
    #[arg(long, env = "WXTOKEN_SECRET_FILE", value_name = "PATH")]
    pub(crate) secret_file: Option<PathBuf>,

    /// Hand the token out to other hosts, at this address
    ///
    /// IP:PORT, or unix:PATH. What is not loopback needs --allow.
    #[arg(long, env = "WXTOKEN_SERVE", value_name = "ADDR", value_delimiter = ',')]
    pub(crate) serve: Vec<String>,

    /// Address or network that may ask, repeatable
    #[arg(long, env = "WXTOKEN_ALLOW", value_name = "CIDR", value_delimiter = ',')]
    pub(crate) allow: Vec<String>,

    /// One process for all: it asks WeChat and hands out
    ///
    /// `serve --refresh`, which replaces a token that a client reports as rejected, in place of a timer.
    #[arg(long, env = "WXTOKEN_CENTRAL", value_parser = parse_boolean)]
    pub(crate) central: bool,

    /// WeChat's address, https
    ///
    /// Or http on loopback.
    #[arg(long, env = "WXTOKEN_BASE_URL", value_name = "URL")]
    pub(crate) base_url: Option<String>,

    /// Trust the certificates in this file, too
    ///
    /// The public ones stay trusted.
    #[arg(long, env = "WXTOKEN_CA_FILE", value_name = "PEM")]
    pub(crate) ca_file: Option<PathBuf>,

    /// Print the files and commands, and do nothing
    #[arg(long, env = "WXTOKEN_DRY_RUN", value_parser = parse_boolean)]
    pub(crate) dry_run: bool,

    /// The directory that stands for /, for tests
    #[arg(long, env = "WXTOKEN_ROOT", value_name = "DIR", hide = true)]
    pub(crate) root: Option<PathBuf>,
}
