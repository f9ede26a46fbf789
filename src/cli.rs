//! The command line: subcommands, their flags, and the `WXTOKEN_*` variable of each flag. Settles which of two
//! conflicting arguments counts, and refuses what cannot be meant. Does not look at the config file or at the machine.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use self::settings::Typed;
use self::values::{parse_duration, parse_mode, parse_positive_duration};
use crate::model::api::Api;

mod serve;
mod settings;
pub(crate) mod spelling;
pub(crate) mod values;

pub(crate) use serve::ServeArgs;

/// Keeps WeChat access tokens fresh in files, and hands them out.
///
/// One place asks WeChat, everybody else reads: `fetch` from cron or a timer, `get` in scripts, `serve` for other hosts.
#[derive(Debug, Parser)]
#[command(name = "wxtoken", version, disable_help_subcommand = true)]
#[command(
    after_help = "Every flag has a twin in the environment: --refresh-before is WXTOKEN_REFRESH_BEFORE. \
                        The flag wins.\nNew here? `wxtoken demo` shows the whole job, no account needed."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Parses the command line of this process. On a mistake prints it and exits with status 2.
    pub(crate) fn from_command_line() -> Cli {
        Cli::parse(std::env::args_os()).unwrap_or_else(|err| settings::without_secrets(err).exit())
    }

    fn parse<T: Into<OsString> + Clone>(
        words: impl IntoIterator<Item = T>,
    ) -> Result<Cli, clap::Error> {
        let mut definition = Cli::definition();
        let matches = definition.try_get_matches_from_mut(words)?;
        let mut cli = Cli::from_arg_matches(&matches)?;
        let Some((name, matches)) = matches.subcommand() else { return Ok(cli) };
        if let Some(command) = definition.find_subcommand(name) {
            settings::refuse_secrets(command, matches)?;
        }
        settings::refuse_misspelt_variables(&Cli::command())?;
        cli.common.typed = Typed::of(matches);
        settings::settle_conflicts(&mut cli)?;
        Ok(cli)
    }

    /// Returns clap's definition, with two changes. `--help` hides values from the environment: `WXTOKEN_REJECTED` holds a
    /// token. An empty variable counts as unset, because environment files often contain empty ones.
    fn definition() -> clap::Command {
        let is_empty = |arg: &clap::Arg| {
            arg.get_env()
                .is_some_and(|name| std::env::var_os(name).is_some_and(|value| value.is_empty()))
        };
        let change = |arg: clap::Arg| {
            if is_empty(&arg) { arg.env(None::<&str>) } else { arg.hide_env_values(true) }
        };
        Cli::command().mut_args(change).mut_subcommands(|command| command.mut_args(change))
    }
}

/// Flags that every subcommand takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct CommonArgs {
    /// The config file, with accounts in it [default: /etc/wxtoken/wxtoken.toml if it is there, unless an account is
    /// given here]
    #[arg(short, long, global = true, env = "WXTOKEN_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Where documents are published [default: $STATE_DIRECTORY, else /var/lib/wxtoken for root, else ~/.local/state/wxtoken]
    #[arg(long, global = true, env = "WXTOKEN_DIR", value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,

    /// Say more on stderr; twice for each step, three times for the network's own words
    #[arg(short, long, global = true, env = "WXTOKEN_VERBOSE", action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Say nothing on stderr; the exit status tells
    #[arg(short, long, global = true, env = "WXTOKEN_QUIET", value_parser = BoolishValueParser::new())]
    pub(crate) quiet: bool,

    #[arg(skip)]
    pub(crate) typed: Typed,

    /// Whether the command line names accounts of the config.
    #[arg(skip)]
    pub(crate) has_names: bool,
}

impl CommonArgs {
    /// Whether the command line says that the accounts are those of a config.
    pub(crate) fn names_config(&self) -> bool {
        self.has_names || self.typed.has("config")
    }
}

/// A subcommand with its arguments.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Ask WeChat for a token when one is due, and publish it
    Fetch(FetchArgs),
    /// Print the published token with the life it has left
    Get(GetArgs),
    /// Hand out the published token over HTTP or HTTPS, to allowed callers only; with --refresh ask WeChat, too
    Serve(ServeArgs),
    /// Show what is published and how long it lasts, without the token
    Status(StatusArgs),
    /// Look at everything between an account and WeChat: what is not well, and what to do about it
    Check(CheckArgs),
    /// Make a client's key: print it once, and the line for the server's keys file
    Key(KeyArgs),
    /// Stand in for WeChat on loopback, with WeChat's own rules and faults on demand
    Mock(MockArgs),
    /// Show the whole job against the stand-in, in one command; ends by itself
    Demo(DemoArgs),
}

impl Command {
    /// The command's name as typed, for messages.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Command::Fetch(_) => "fetch",
            Command::Get(_) => "get",
            Command::Serve(_) => "serve",
            Command::Status(_) => "status",
            Command::Check(_) => "check",
            Command::Key(_) => "key",
            Command::Mock(_) => "mock",
            Command::Demo(_) => "demo",
        }
    }

    /// The account flags of a command that takes them, and whether it names accounts of the config.
    fn account_mut(&mut self) -> Option<(&mut AccountArgs, bool)> {
        match self {
            Command::Fetch(fetch) => Some((&mut fetch.account, !fetch.names.is_empty())),
            Command::Get(get) => Some((&mut get.account, get.name.is_some())),
            Command::Serve(serve) => Some((&mut serve.account, false)),
            Command::Status(status) => Some((&mut status.account, !status.names.is_empty())),
            Command::Check(check) => Some((&mut check.account, !check.names.is_empty())),
            Command::Key(_) | Command::Mock(_) | Command::Demo(_) => None,
        }
    }
}

/// The account of the command line; its name is `default`.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Account")]
pub(crate) struct AccountArgs {
    /// The account's AppID; for work, the corp's ID
    #[arg(long, env = "WXTOKEN_APPID", value_name = "ID")]
    pub(crate) appid: Option<String>,

    /// The file with the AppSecret, `-` for stdin [default: $CREDENTIALS_DIRECTORY/default.secret, else $WXTOKEN_SECRET]
    #[arg(long, env = "WXTOKEN_SECRET_FILE", value_name = "PATH")]
    pub(crate) secret_file: Option<PathBuf>,

    /// Which of WeChat's token APIs to ask [default: stable]
    #[arg(long, env = "WXTOKEN_API", value_enum)]
    pub(crate) api: Option<Api>,

    /// WeChat's address; https, or http on loopback [default: that of api.weixin.qq.com, for work of qyapi.weixin.qq.com]
    #[arg(long, env = "WXTOKEN_BASE_URL", value_name = "URL")]
    pub(crate) base_url: Option<String>,

    /// Trust the certificates in this file too, beside the public ones
    #[arg(long, env = "WXTOKEN_CA_FILE", value_name = "PEM")]
    pub(crate) ca_file: Option<PathBuf>,

    /// A token is due when this much of its life is left [default: 5m]
    #[arg(long, env = "WXTOKEN_REFRESH_BEFORE", value_name = "DUR", value_parser = parse_duration)]
    pub(crate) refresh_before: Option<Duration>,

    /// The account's document [default: DIR/default.json]
    #[arg(short, long, env = "WXTOKEN_FILE", value_name = "PATH")]
    pub(crate) file: Option<PathBuf>,
}

impl AccountArgs {
    /// Returns the ids of the arguments that are given, of those that are about this one account. `refresh_before` is not
    /// among them: it may apply to all accounts.
    pub(crate) fn given(&self) -> Vec<&'static str> {
        let AccountArgs { appid, secret_file, api, base_url, ca_file, refresh_before: _, file } =
            self;
        let ids = [
            ("appid", appid.is_some()),
            ("secret_file", secret_file.is_some()),
            ("api", api.is_some()),
            ("base_url", base_url.is_some()),
            ("ca_file", ca_file.is_some()),
            ("file", file.is_some()),
        ];
        ids.into_iter().filter(|(_, is_given)| *is_given).map(|(id, _)| id).collect()
    }
}

/// Arguments of `fetch`.
#[derive(Debug, Args)]
pub(crate) struct FetchArgs {
    /// The config's accounts that are meant [default: all]
    #[arg(value_name = "ACCOUNT")]
    pub(crate) names: Vec<String>,

    #[command(flatten)]
    pub(crate) account: AccountArgs,

    /// Mint a new token now, even if none is due; tickets only where they are
    #[arg(long, env = "WXTOKEN_FORCE", value_parser = BoolishValueParser::new())]
    pub(crate) force: bool,

    /// WeChat rejected TOKEN, which is no ticket: mint a new one if it is still the published one; `-` reads it from stdin
    #[arg(long, env = "WXTOKEN_REJECTED", value_name = "TOKEN", allow_hyphen_values = true)]
    pub(crate) rejected: Option<String>,

    /// How long the whole run may take, waiting for another fetch and retries included
    #[arg(long, env = "WXTOKEN_TIMEOUT", value_name = "DUR", default_value = "30s", value_parser = parse_positive_duration)]
    pub(crate) timeout: Duration,

    /// The document's permissions, in octal [default: 0600]
    #[arg(long, env = "WXTOKEN_MODE", value_name = "OCTAL", value_parser = parse_mode)]
    pub(crate) mode: Option<u32>,
}

/// Arguments of `get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// The config's account that is meant [default: the only one]
    #[arg(value_name = "ACCOUNT")]
    pub(crate) name: Option<String>,

    #[command(flatten)]
    pub(crate) account: AccountArgs,

    /// The bare token instead of a line of JSON
    #[arg(short, long, env = "WXTOKEN_RAW", value_parser = BoolishValueParser::new())]
    pub(crate) raw: bool,

    /// The ticket of this type instead of the token
    #[arg(long, env = "WXTOKEN_TICKET", value_name = "TYPE")]
    pub(crate) ticket: Option<String>,

    /// Fail (status 3) unless the token lives at least this long
    #[arg(long, env = "WXTOKEN_MIN_LIFE", value_name = "DUR", default_value = "1s", value_parser = parse_duration)]
    pub(crate) min_life: Duration,
}

/// Output formats of `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A line for people
    Text,
    /// For programs
    Json,
    /// For node_exporter's textfile collector
    Prometheus,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The config's accounts that are meant [default: all]
    #[arg(value_name = "ACCOUNT")]
    pub(crate) names: Vec<String>,

    #[command(flatten)]
    pub(crate) account: AccountArgs,

    /// How to write it
    #[arg(long, env = "WXTOKEN_FORMAT", value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,

    /// Leave with status 3 unless the token lives at least this long
    #[arg(long, env = "WXTOKEN_MIN_LIFE", value_name = "DUR", default_value = "1s", value_parser = parse_duration)]
    pub(crate) min_life: Duration,
}

/// Output formats of `check`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckFormat {
    /// A line for each finding, for people
    Text,
    /// For programs
    Json,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The config's accounts that are meant [default: all]
    #[arg(value_name = "ACCOUNT")]
    pub(crate) names: Vec<String>,

    #[command(flatten)]
    pub(crate) account: AccountArgs,

    /// How to write it
    #[arg(long, env = "WXTOKEN_FORMAT", value_enum, default_value_t = CheckFormat::Text)]
    pub(crate) format: CheckFormat,

    /// How long the whole run may take
    #[arg(long, env = "WXTOKEN_TIMEOUT", value_name = "DUR", default_value = "30s", value_parser = parse_positive_duration)]
    pub(crate) timeout: Duration,
}

/// Arguments of `key`.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    /// Whose key it is, for the server's log: letters, digits, `.`, `_` and `-`
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// The accounts that it is for, their names alone [default: all]
    #[arg(value_name = "ACCOUNT", value_delimiter = ',')]
    pub(crate) accounts: Vec<String>,
}

/// Arguments of `mock`.
#[derive(Debug, Args)]
pub(crate) struct MockArgs {
    /// Where to listen; loopback only, port 0 picks a free one
    #[arg(long, env = "WXTOKEN_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub(crate) listen: String,

    /// An account that exists, and its secret; for each app of a corp, the corp's ID and the app's [default: wx0123456789abcdef:0123456789abcdef0123456789abcdef]
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

    /// How long a replaced token goes on working; with less life left than this, stable_token hands out a new one
    #[arg(long, env = "WXTOKEN_OVERLAP", value_name = "DUR", default_value = "5m", value_parser = parse_duration)]
    pub(crate) overlap: Duration,

    /// Answer so instead of keeping the rules, for the next TIMES calls or until POST /mock/fault says otherwise:
    /// errcode:N, http:STATUS, slow:SECONDS, hang, reset, lost and more (GET /mock/faults and the manual list them);
    /// token/, probe/ or ticket/ before it limits it to such calls
    #[arg(long, env = "WXTOKEN_FAULT", value_name = "[CALLS/]KIND[:N][@TIMES]")]
    pub(crate) fault: Option<String>,
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Show what a company has: a config with two official accounts and a WeCom app, tickets, a hook, a mirror
    #[arg(long, env = "WXTOKEN_FULL", value_parser = BoolishValueParser::new())]
    pub(crate) full: bool,

    /// Go on serving until Ctrl-C
    #[arg(long, env = "WXTOKEN_KEEP", value_parser = BoolishValueParser::new())]
    pub(crate) keep: bool,
}

#[cfg(test)]
mod tests {
    use clap::builder::TypedValueParser;

    use super::*;

    #[test]
    fn claps_own_assertions_hold() {
        Cli::definition().debug_assert();
    }

    #[test]
    fn every_flag_has_a_variable_of_its_name() {
        for command in Cli::definition().get_subcommands().chain([&Cli::definition()]) {
            for arg in command
                .get_arguments()
                .filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version"))
                .filter(|arg| !arg.is_positional())
            {
                let long = arg.get_long().expect("every flag has a long name");
                let twin = format!("WXTOKEN_{}", long.to_uppercase().replace('-', "_"));
                assert_eq!(
                    arg.get_env().and_then(|env| env.to_str()),
                    Some(twin.as_str()),
                    "--{long}"
                );
            }
        }
    }

    #[test]
    fn a_boolean_variable_takes_yes_no_true_false_1_and_0() {
        for (value, expected) in
            [("1", true), ("yes", true), ("true", true), ("0", false), ("no", false)]
        {
            let parsed =
                BoolishValueParser::new().parse_ref(&Cli::definition(), None, value.as_ref());
            assert_eq!(parsed.ok(), Some(expected), "{value}");
        }
    }
}
