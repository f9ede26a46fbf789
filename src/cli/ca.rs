//! Arguments of `ca`.

use std::path::PathBuf;

use clap::Args;

use super::values::{parse_boolean, parse_days};

/// Arguments of `ca`.
#[derive(Debug, Args)]
pub(crate) struct CaArgs {
    /// The directory of the CA's files; it is created if it is missing
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,

    /// Sign the server's next certificate with the CA that is in DIR
    #[arg(long, env = "WXTOKEN_RENEW", value_parser = parse_boolean)]
    pub(crate) renew: bool,

    /// How many days the server's certificate is valid, 1 to 825
    #[arg(long, env = "WXTOKEN_DAYS", value_name = "N", default_value = "365", value_parser = parse_days)]
    pub(crate) days: u16,

    /// The only one of WeChat's two hosts that the new CA can sign: api.weixin.qq.com or qyapi.weixin.qq.com [default: both]
    #[arg(long, env = "WXTOKEN_NAME", value_name = "HOST", value_delimiter = ',')]
    pub(crate) name: Vec<String>,
}
