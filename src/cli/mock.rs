//! The flags of `mock` and of `demo`, and the variable of each.

use std::time::Duration;

use clap::Args;

use super::values::{parse_boolean, parse_duration, parse_positive_duration};

/// Arguments of `mock`.
#[derive(Debug, Args)]
pub(crate) struct MockArgs {
    /// Where to listen, on loopback
    ///
    /// Port 0 picks a free one.
    #[arg(long, env = "WXTOKEN_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub(crate) listen: String,

    /// An account that exists, and its secret
    ///
    /// For each app of a corp, the corp's ID and the app's secret. Default:
    /// wx0123456789abcdef:0123456789abcdef0123456789abcdef.
    #[arg(
        long = "account",
        env = "WXTOKEN_ACCOUNT",
        value_name = "APPID:SECRET",
        value_delimiter = ','
    )]
    pub(crate) accounts: Vec<String>,

    /// How long a token lives
    #[arg(long, env = "WXTOKEN_LIFE", value_name = "DUR", default_value = "2h", value_parser = parse_positive_duration)]
    pub(crate) life: Duration,

    /// How long a replaced token goes on working
    ///
    /// With less life left than this, stable_token hands out a new one.
    #[arg(long, env = "WXTOKEN_OVERLAP", value_name = "DUR", default_value = "5m", value_parser = parse_duration)]
    pub(crate) overlap: Duration,

    /// Answer with this fault: errcode:N, http:STATUS, slow:SECONDS, hang, reset, lost and more
    ///
    /// For the next TIMES calls, or until POST /mock/fault says otherwise; token/, probe/, ticket/ or api/ before it limits it to
    /// such calls. GET /mock/faults and the manual list all.
    #[arg(long, env = "WXTOKEN_FAULT", value_name = "[CALLS/]KIND[:N][@TIMES]")]
    pub(crate) fault: Option<String>,
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// What a company has, with several accounts
    ///
    /// A config with two official accounts and a WeCom app, tickets, a hook, a mirror.
    #[arg(long, env = "WXTOKEN_FULL", value_parser = parse_boolean)]
    pub(crate) full: bool,

    /// Go on serving until Ctrl-C
    #[arg(long, env = "WXTOKEN_KEEP", value_parser = parse_boolean)]
    pub(crate) keep: bool,
}
