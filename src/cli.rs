//! The command line: subcommands, their flags, and the `WXTOKEN_*` variable of each flag. Settles which of two
//! conflicting arguments counts, and refuses what cannot be meant. Does not look at the config file or at the machine.

use std::ffi::OsString;
use std::mem;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, ArgMatches, Args, FromArgMatches, Parser, Subcommand, ValueEnum};

use self::completion::CompletionsArgs;
use self::help::HelpLength;
use self::settings::Typed;
use self::values::{parse_boolean, parse_duration, parse_mode, parse_positive_duration};
use crate::language::Language;
use crate::log::LogFormat;
use crate::model::api::Api;

mod ca;
pub(crate) mod completion;
mod definition;
mod help;
mod mock;
mod serve;
mod settings;
mod setup;
mod sign;
pub(crate) mod spelling;
mod usage;
pub(crate) mod values;

pub(crate) use ca::CaArgs;
pub(crate) use mock::{DemoArgs, MockArgs};
pub(crate) use serve::ServeArgs;
pub(crate) use setup::SetupArgs;
pub(crate) use sign::SignArgs;
#[cfg(test)]
pub(crate) use usage::examples as examples_of_mistakes;

/// Keeps WeChat access tokens fresh in files, and hands them out.
///
/// One place asks WeChat, all others read: `fetch` from cron or a timer, `get` in scripts, `serve` for other hosts.
#[derive(Debug, Parser)]
#[command(name = "wxtoken", version, propagate_version = true)]
#[command(
    after_help = "`wxtoken help VERB` has all options of a verb, and their variables.\n\
                  New here? `wxtoken demo` shows the whole job, no account needed.",
    after_long_help = "Every option has a variable: --refresh-before is WXTOKEN_REFRESH_BEFORE. The option wins.\n\
                       New here? `wxtoken demo` shows the whole job, no account needed."
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
        let words: Vec<_> = std::env::args_os().collect();
        let (cli, used) = Cli::parse_words(&words).unwrap_or_else(|err| {
            usage::exit(&settings::without_secrets(err), Language::of_process())
        });
        if cli.command.ends_by_itself() {
            // To free it piece by piece takes a tenth of all that a `fetch` with nothing to do takes. The process ends soon.
            mem::forget(used);
        }
        cli
    }

    /// Parses a command line, whose first word is the name of the program. The error shows no secret.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn parse<T: Into<OsString> + Clone>(
        words: impl IntoIterator<Item = T>,
    ) -> Result<Cli, clap::Error> {
        let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
        Cli::parse_words(&words).map(|(cli, _)| cli).map_err(settings::without_secrets)
    }

    /// Returns the command line, and what clap has read it with.
    fn parse_words(words: &[OsString]) -> Result<(Cli, (clap::Command, ArgMatches)), clap::Error> {
        // Only a verb that stands there can be meant, and its name may be anywhere behind the flags that all verbs have.
        let mut definition = Cli::definition_of(|verb| words.iter().any(|word| word == verb));
        let mut matches = definition.try_get_matches_from_mut(words).map_err(|err| {
            let Some(length) = HelpLength::asked_for(&err, words) else { return err };
            // The same again, with help as it is laid out here.
            let language = Language::of_process();
            let laid_out =
                help::lay_out(Cli::definition(), length, language).try_get_matches_from(words);
            laid_out.err().unwrap_or(err)
        })?;
        let typed = match matches.subcommand() {
            Some((name, matches)) => {
                if let Some(command) = definition.find_subcommand(name) {
                    settings::refuse_secrets(command, matches)?;
                }
                settings::refuse_misspelt_variables(|| Cli::derived(|_| true))?;
                Typed::of(matches)
            }
            None => Typed::default(),
        };
        // What it takes out, it does not copy.
        let mut cli = Cli::from_arg_matches_mut(&mut matches)?;
        cli.common.typed = typed;
        settings::settle_conflicts(&mut cli)?;
        Ok((cli, (definition, matches)))
    }
}

/// Flags that every subcommand takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct CommonArgs {
    /// Config file with accounts
    ///
    /// Default: ~/.config/wxtoken/wxtoken.toml, not for root, or /etc/wxtoken/wxtoken.toml if it is there, unless an account
    /// is given here.
    #[arg(short, long, global = true, env = "WXTOKEN_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Directory of the documents
    ///
    /// Default: $STATE_DIRECTORY, else /var/lib/wxtoken for root, else ~/.local/state/wxtoken.
    #[arg(long, global = true, env = "WXTOKEN_DIR", value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,

    /// Say more on stderr; -vv: each step
    ///
    /// With -vvv also the network's own words.
    #[arg(short, long, global = true, env = "WXTOKEN_VERBOSE", action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Say nothing on stderr; the exit status tells
    #[arg(short, long, global = true, env = "WXTOKEN_QUIET", value_parser = parse_boolean)]
    pub(crate) quiet: bool,

    /// Lines on stderr: text or json
    ///
    /// With json each is an object: time, level, verb, event, account and what else is known, message.
    #[arg(long, global = true, env = "WXTOKEN_LOG_FORMAT", value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,

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
#[command(defer = true)]
pub(crate) enum Command {
    /// Set an account up on this host, from its AppID and AppSecret
    ///
    /// Asks for the AppSecret, writes the config, and has the token fetched from now on. Run again it adds an account.
    Setup(SetupArgs),
    /// Ask WeChat for a token when one is due, and publish it
    Fetch(FetchArgs),
    /// Print the published token with the life it has left
    Get(GetArgs),
    /// Hand the published token out over HTTP, to allowed callers
    ///
    /// Or over HTTPS. With --refresh it asks WeChat, too.
    Serve(ServeArgs),
    /// Sign a page for WeChat's JS-SDK with the published ticket
    Sign(SignArgs),
    /// Show what is published and how long it lasts
    Status(StatusArgs),
    /// Find what is wrong between an account and WeChat, and what to do
    Check(CheckArgs),
    /// Make a client's key, and the line for the server's keys file
    Key(KeyArgs),
    /// Make a CA for WeChat's hosts alone, and a certificate
    ///
    /// For clients whose hosts file leads WeChat's hosts to `serve`. Prints how they trust it.
    Ca(CaArgs),
    /// Stand in for WeChat on loopback, with faults on demand
    Mock(MockArgs),
    /// Show the whole job against the stand-in; ends by itself
    Demo(DemoArgs),
    /// Print the completion script of a shell
    Completions(CompletionsArgs),
}

impl Command {
    /// The command's name as typed, for messages.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Command::Setup(_) => "setup",
            Command::Fetch(_) => "fetch",
            Command::Get(_) => "get",
            Command::Serve(_) => "serve",
            Command::Sign(_) => "sign",
            Command::Status(_) => "status",
            Command::Check(_) => "check",
            Command::Key(_) => "key",
            Command::Ca(_) => "ca",
            Command::Mock(_) => "mock",
            Command::Demo(_) => "demo",
            Command::Completions(_) => "completions",
        }
    }

    /// Whether it does one thing and ends, so that the user waits for it.
    pub(crate) fn ends_by_itself(&self) -> bool {
        !matches!(self, Command::Serve(_) | Command::Mock(_) | Command::Demo(_))
    }

    /// The account flags of a command that takes them, and whether it names accounts of the config.
    fn account_mut(&mut self) -> Option<(&mut AccountArgs, bool)> {
        match self {
            Command::Fetch(fetch) => Some((&mut fetch.account, !fetch.names.is_empty())),
            Command::Get(get) => Some((&mut get.account, get.name.is_some())),
            Command::Serve(serve) => Some((&mut serve.account, false)),
            Command::Sign(sign) => Some((&mut sign.account, sign.name.is_some())),
            Command::Status(status) => Some((&mut status.account, !status.names.is_empty())),
            Command::Check(check) => Some((&mut check.account, !check.names.is_empty())),
            Command::Setup(_)
            | Command::Key(_)
            | Command::Ca(_)
            | Command::Mock(_)
            | Command::Demo(_)
            | Command::Completions(_) => None,
        }
    }
}

/// The heading of the account options in help.
const ACCOUNT: &str = "Account";

/// The account of the command line; its name is `default`.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct AccountArgs {
    /// AppID; on work the corp's ID
    #[arg(help_heading = ACCOUNT, long, env = "WXTOKEN_APPID", value_name = "ID")]
    pub(crate) appid: Option<String>,

    /// File with the AppSecret, `-` for stdin
    ///
    /// Default: $CREDENTIALS_DIRECTORY/default.secret, else the AppSecret is in $WXTOKEN_SECRET.
    #[arg(help_heading = ACCOUNT, long, env = "WXTOKEN_SECRET_FILE", value_name = "PATH")]
    pub(crate) secret_file: Option<PathBuf>,

    /// WeChat's API: stable (default), classic or work
    #[arg(help_heading = ACCOUNT, long, env = "WXTOKEN_API", value_enum)]
    pub(crate) api: Option<Api>,

    /// WeChat's address, https
    ///
    /// Or http on loopback. Default: that of api.weixin.qq.com, on work that of qyapi.weixin.qq.com.
    #[arg(help_heading = ACCOUNT, long, env = "WXTOKEN_BASE_URL", value_name = "URL")]
    pub(crate) base_url: Option<String>,

    /// Trust the certificates in this file, too
    ///
    /// The public ones stay trusted.
    #[arg(help_heading = ACCOUNT, long, env = "WXTOKEN_CA_FILE", value_name = "PEM")]
    pub(crate) ca_file: Option<PathBuf>,

    /// Life left when a token is due [default: 5m]
    #[arg(help_heading = ACCOUNT, long, env = "WXTOKEN_REFRESH_BEFORE", value_name = "DUR", value_parser = parse_duration)]
    pub(crate) refresh_before: Option<Duration>,

    /// The document [default: DIR/default.json]
    #[arg(help_heading = ACCOUNT, short, long, env = "WXTOKEN_FILE", value_name = "PATH")]
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
    /// Accounts of the config [default: all]
    #[arg(value_name = "ACCOUNT")]
    pub(crate) names: Vec<String>,

    #[command(flatten)]
    pub(crate) account: AccountArgs,

    /// Get a new token now, even if none is due
    ///
    /// Tickets are fetched where they are due.
    #[arg(long, env = "WXTOKEN_FORCE", value_parser = parse_boolean)]
    pub(crate) force: bool,

    /// Replace TOKEN, which WeChat rejected; `-`: from stdin
    ///
    /// A new one is minted if TOKEN, which is no ticket, is still the published one.
    #[arg(long, env = "WXTOKEN_REJECTED", value_name = "TOKEN", allow_hyphen_values = true)]
    pub(crate) rejected: Option<String>,

    /// How long the whole run may take
    ///
    /// Waiting for another fetch and retries included.
    #[arg(long, env = "WXTOKEN_TIMEOUT", value_name = "DUR", default_value = "30s", value_parser = parse_positive_duration)]
    pub(crate) timeout: Duration,

    /// Mode of the document, in octal [default: 0600]
    #[arg(long, env = "WXTOKEN_MODE", value_name = "OCTAL", value_parser = parse_mode)]
    pub(crate) mode: Option<u32>,
}

/// Arguments of `get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Account of the config [default: the only one]
    #[arg(value_name = "ACCOUNT")]
    pub(crate) name: Option<String>,

    #[command(flatten)]
    pub(crate) account: AccountArgs,

    /// The bare token instead of JSON
    #[arg(short, long, env = "WXTOKEN_RAW", value_parser = parse_boolean)]
    pub(crate) raw: bool,

    /// The ticket of this type instead of the token
    #[arg(long, env = "WXTOKEN_TICKET", value_name = "TYPE")]
    pub(crate) ticket: Option<String>,

    /// Status 3 unless the token lives this long
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
    /// Accounts of the config [default: all]
    #[arg(value_name = "ACCOUNT")]
    pub(crate) names: Vec<String>,

    #[command(flatten)]
    pub(crate) account: AccountArgs,

    /// text, json or prometheus
    #[arg(long, env = "WXTOKEN_FORMAT", value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,

    /// Status 3 unless the token lives this long
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
    /// Accounts of the config [default: all]
    #[arg(value_name = "ACCOUNT")]
    pub(crate) names: Vec<String>,

    #[command(flatten)]
    pub(crate) account: AccountArgs,

    /// text or json
    #[arg(long, env = "WXTOKEN_FORMAT", value_enum, default_value_t = CheckFormat::Text)]
    pub(crate) format: CheckFormat,

    /// How long the whole run may take
    #[arg(long, env = "WXTOKEN_TIMEOUT", value_name = "DUR", default_value = "30s", value_parser = parse_positive_duration)]
    pub(crate) timeout: Duration,
}

/// Arguments of `key`.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    /// Whose key it is, for the server's log
    ///
    /// Letters, digits, `.`, `_` and `-`.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// Accounts that it is for [default: all]
    #[arg(value_name = "ACCOUNT", value_delimiter = ',')]
    pub(crate) accounts: Vec<String>,

    /// API that may be called with it [default: all but administration]
    ///
    /// Through the gateway of `serve`: a path such as /cgi-bin/message, with all below it, or `all`. Repeatable. A key
    /// with paths is handed no token.
    #[arg(long = "apis", env = "WXTOKEN_APIS", value_name = "PATH", value_delimiter = ',')]
    pub(crate) apis: Vec<String>,
}

#[cfg(test)]
mod tests {
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
}
