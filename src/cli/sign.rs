//! The arguments of `sign`.

use clap::Args;

use super::AccountArgs;

/// Arguments of `sign`.
#[derive(Debug, Args)]
pub(crate) struct SignArgs {
    /// URL of the page, as location.href has it
    ///
    /// Its fragment, from the first #, is left out.
    #[arg(value_name = "URL")]
    pub(crate) url: String,

    /// Account of the config [default: the only one]
    #[arg(value_name = "ACCOUNT")]
    pub(crate) name: Option<String>,

    #[command(flatten)]
    pub(crate) account: AccountArgs,

    /// Ticket to sign with: jsapi (default) or agent_config
    ///
    /// The latter is for wx.agentConfig, on work.
    #[arg(long, env = "WXTOKEN_TICKET", value_name = "TYPE")]
    pub(crate) ticket: Option<String>,

    /// The app's number, for wx.agentConfig
    ///
    /// It is printed as it is; the type of the ticket is agent_config then.
    #[arg(long, env = "WXTOKEN_AGENTID", value_name = "N")]
    pub(crate) agentid: Option<String>,
}
