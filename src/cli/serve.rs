//! The flags of `serve`, and the variable of each.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::AccountArgs;
use super::values::{parse_boolean, parse_max_connections, parse_mode, parse_sdk_life};

/// Arguments of `serve`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) account: AccountArgs,

    /// Where to listen [default: 127.0.0.1:7200]
    ///
    /// Repeatable. IP:PORT, with an IPv6 address in brackets, or unix:PATH; port 0 picks a free one.
    #[arg(long, env = "WXTOKEN_LISTEN", value_name = "ADDR", value_delimiter = ',')]
    pub(crate) listen: Vec<String>,

    /// Address or network that may ask, repeatable
    ///
    /// Default: loopback only, if there is no --allow-file.
    #[arg(long, env = "WXTOKEN_ALLOW", value_name = "CIDR", value_delimiter = ',')]
    pub(crate) allow: Vec<String>,

    /// File with more of them
    ///
    /// Separated by lines, blanks or commas; read again when it changes. Loopback is not implied.
    #[arg(long, env = "WXTOKEN_ALLOW_FILE", value_name = "PATH")]
    pub(crate) allow_file: Option<PathBuf>,

    /// Proxy whose X-Forwarded-For is believed
    ///
    /// An address, a network, or `unix` for one that comes over the Unix socket; repeatable. Forwarded is believed,
    /// too. The clients that it asks for need --allow.
    #[arg(long, env = "WXTOKEN_TRUSTED_PROXY", value_name = "CIDR", value_delimiter = ',')]
    pub(crate) trusted_proxy: Vec<String>,

    /// Name by which clients reach this server
    ///
    /// Beside localhost; repeatable. If one is given, requests for other hosts are refused. Default: at loopback
    /// addresses none, elsewhere any.
    #[arg(long, env = "WXTOKEN_SERVER_NAME", value_name = "NAME", value_delimiter = ',')]
    pub(crate) server_name: Vec<String>,

    /// File of keys, of which callers need one
    ///
    /// As well as an allowed address: lines NAME SHA256 [ACCOUNT,… [API,…]] of `wxtoken key`; read again when it
    /// changes.
    #[arg(long, env = "WXTOKEN_KEYS", value_name = "PATH")]
    pub(crate) keys: Option<PathBuf>,

    /// Speak HTTPS, with this certificate
    ///
    /// Its issuers' certificates come after it in the file.
    #[arg(long, env = "WXTOKEN_TLS_CERT", value_name = "PEM")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// The certificate's private key
    ///
    /// In a file that others cannot read.
    #[arg(long, env = "WXTOKEN_TLS_KEY", value_name = "PEM")]
    pub(crate) tls_key: Option<PathBuf>,

    /// Callers need a certificate of these authorities
    #[arg(long, env = "WXTOKEN_TLS_CLIENT_CA", value_name = "PEM")]
    pub(crate) tls_client_ca: Option<PathBuf>,

    /// Ask WeChat, too: on schedule and on demand
    ///
    /// This host is the one place that asks.
    #[arg(long, env = "WXTOKEN_REFRESH", num_args = 0, default_missing_value = "true",
          value_parser = parse_boolean)]
    pub(crate) refresh: Option<bool>,

    /// Pass API calls on to WeChat, too
    ///
    /// They go with the account's token: an SDK that is pointed here never meets a dead one.
    #[arg(long, env = "WXTOKEN_GATEWAY", num_args = 0, default_missing_value = "true",
          value_parser = parse_boolean)]
    pub(crate) gateway: Option<bool>,

    /// Most life that SDKs are told, such as 290s
    ///
    /// On WeChat's own routes; 61s to 2h. An SDK asks again then, and a token that has died is replaced, with --refresh.
    #[arg(long, env = "WXTOKEN_SDK_LIFE", value_name = "DURATION", value_parser = parse_sdk_life)]
    pub(crate) sdk_life: Option<Duration>,

    /// Hand out tokens that open nothing but the gateway
    ///
    /// Each key gets its own, and WeChat's stay on this host. Goes with --keys and --gateway.
    #[arg(long, env = "WXTOKEN_OPAQUE_TOKENS", num_args = 0, default_missing_value = "true",
          value_parser = parse_boolean)]
    pub(crate) opaque_tokens: Option<bool>,

    /// Mode of the document, in octal [default: 0600]
    ///
    /// With --refresh.
    #[arg(long, env = "WXTOKEN_MODE", value_name = "OCTAL", value_parser = parse_mode)]
    pub(crate) mode: Option<u32>,

    /// Most connections at once [default: 1024]
    ///
    /// Beyond it the one that has been idle for longest makes room.
    #[arg(long, env = "WXTOKEN_MAX_CONNECTIONS", hide_short_help = true, value_name = "N", value_parser = parse_max_connections)]
    pub(crate) max_connections: Option<u32>,
}
