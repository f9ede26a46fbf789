//! The flags of `serve`, and the variable of each.

use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::AccountArgs;
use super::values::{parse_max_connections, parse_mode};

/// Arguments of `serve`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) account: AccountArgs,

    /// Where to listen: IP:PORT, with an IPv6 address in brackets, or unix:PATH; port 0 picks a free one. Repeatable
    /// [default: 127.0.0.1:7200]
    #[arg(long, env = "WXTOKEN_LISTEN", value_name = "ADDR", value_delimiter = ',')]
    pub(crate) listen: Vec<String>,

    /// Who may ask: an address or a network. Repeatable [default: loopback only, if there is no --allow-file]
    #[arg(long, env = "WXTOKEN_ALLOW", value_name = "CIDR", value_delimiter = ',')]
    pub(crate) allow: Vec<String>,

    /// More of them, separated by lines, blanks or commas; read again when it changes. Loopback is not implied
    #[arg(long, env = "WXTOKEN_ALLOW_FILE", value_name = "PATH")]
    pub(crate) allow_file: Option<PathBuf>,

    /// A proxy whose X-Forwarded-For or Forwarded is believed: an address, a network, or `unix` for one that comes over
    /// the unix socket. Repeatable; whom it asks for needs --allow
    #[arg(long, env = "WXTOKEN_TRUSTED_PROXY", value_name = "CIDR", value_delimiter = ',')]
    pub(crate) trusted_proxy: Vec<String>,

    /// A name by which clients reach this server, beside localhost. Repeatable; if one is given, requests for other hosts
    /// are refused [default: at loopback addresses none, elsewhere any]
    #[arg(long, env = "WXTOKEN_SERVER_NAME", value_name = "NAME", value_delimiter = ',')]
    pub(crate) server_name: Vec<String>,

    /// Who asks needs a key from this file too, beside its address: lines NAME SHA256 [ACCOUNT,…] of `wxtoken key`; read
    /// again when it changes
    #[arg(long, env = "WXTOKEN_KEYS", value_name = "PATH")]
    pub(crate) keys: Option<PathBuf>,

    /// Speak HTTPS, with the certificate in this file; its issuers' come after it
    #[arg(long, env = "WXTOKEN_TLS_CERT", value_name = "PEM")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// The certificate's private key, in a file that others cannot read
    #[arg(long, env = "WXTOKEN_TLS_KEY", value_name = "PEM")]
    pub(crate) tls_key: Option<PathBuf>,

    /// Ask callers for a certificate, too: one that the authorities in this file have signed
    #[arg(long, env = "WXTOKEN_TLS_CLIENT_CA", value_name = "PEM")]
    pub(crate) tls_client_ca: Option<PathBuf>,

    /// Ask WeChat too, when a token is due and when somebody needs one: this host is the one place that asks
    #[arg(long, env = "WXTOKEN_REFRESH", num_args = 0, default_missing_value = "true",
          value_parser = BoolishValueParser::new())]
    pub(crate) refresh: Option<bool>,

    /// With --refresh, the document's permissions, in octal [default: 0600]
    #[arg(long, env = "WXTOKEN_MODE", value_name = "OCTAL", value_parser = parse_mode)]
    pub(crate) mode: Option<u32>,

    /// How many connections to hold at once; beyond it the one idle for longest makes room [default: 1024]
    #[arg(long, env = "WXTOKEN_MAX_CONNECTIONS", value_name = "N", value_parser = parse_max_connections)]
    pub(crate) max_connections: Option<u32>,
}
