//! Where settings come from, the command line or the environment; which of two counts; and which are refused before they
//! take effect: contradictions, misspelt variables, secrets in the wrong place.

use std::collections::BTreeSet;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use super::{Cli, spelling};
use crate::language::{bilingual, in_both};
use crate::model::client_key;
use crate::{language, log};

/// What the names of all variables begin with.
const PREFIX: &str = "WXTOKEN_";

/// The variable that holds the AppSecret; it has no flag.
const SECRET_VARIABLE: &str = "WXTOKEN_SECRET";

/// Variables of the programs in contrib/sdk, which may share an environment with this one.
const FOREIGN_VARIABLES: [&str; 2] = ["WXTOKEN_KEY", "WXTOKEN_URL"];

/// The ids of the arguments that may hold a secret: the token of `fetch --rejected`, and the accounts of `mock`.
const SECRET_IDS: [&str; 2] = ["rejected", "accounts"];

/// The arguments that were typed, by their ids. The others are from the environment, or defaults.
#[derive(Clone, Debug, Default)]
pub(crate) struct Typed(BTreeSet<String>);

impl Typed {
    pub(super) fn of(matches: &ArgMatches) -> Typed {
        let ids = matches.ids().map(clap::Id::as_str);
        let is_typed = |id: &&str| matches.value_source(id) == Some(ValueSource::CommandLine);
        Typed(ids.filter(is_typed).map(str::to_owned).collect())
    }

    /// Whether the argument with this id was typed.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.0.contains(id)
    }

    /// Returns what the user calls an argument that is set, by its id: the flag, or else its variable.
    pub(crate) fn name_of(&self, id: &str) -> String {
        match self.has(id) {
            true => format!("--{}", id.replace('_', "-")),
            false => format!("{PREFIX}{}", id.to_ascii_uppercase()),
        }
    }
}

/// Settles which of two arguments that exclude each other counts: the typed one does. Fails if both were typed, or both are
/// from the environment.
///
/// clap's `conflicts_with` would not do: a variable would conflict with a flag, and the flag has to win.
pub(super) fn settle_conflicts(cli: &mut Cli) -> Result<(), clap::Error> {
    let Cli { common, command } = cli;
    let typed = &common.typed;
    match preferred(typed, ("quiet", common.quiet), ("verbose", common.verbose > 0))? {
        Some("quiet") => common.verbose = 0,
        _ => common.quiet = false,
    }
    if let super::Command::Fetch(fetch) = command {
        let rejected = ("rejected", fetch.rejected.is_some());
        match preferred(typed, ("force", fetch.force), rejected)? {
            Some("force") => fetch.rejected = None,
            _ => fetch.force = false,
        }
    }
    let Some((account, has_names)) = command.account_mut() else { return Ok(()) };
    common.has_names = has_names;
    if has_names && typed.has("appid") {
        let message = bilingual!(
            "Leave out ACCOUNT or --appid: the one names an account of the config, the other gives one here.",
            "请去掉其中之一：ACCOUNT 是配置中的账号，--appid 在此另行指定账号。"
        );
        return Err(mistake(ErrorKind::ArgumentConflict, message));
    }
    if common.names_config() && !common.typed.has("file") && is_hook() {
        account.file = None;
    }
    Ok(())
}

/// Returns the id of the argument that counts, of two that exclude each other, each with whether it is set; `None` if
/// neither is. Fails if none of them comes before the other.
fn preferred(
    typed: &Typed,
    (first, is_first_set): (&'static str, bool),
    (second, is_second_set): (&'static str, bool),
) -> Result<Option<&'static str>, clap::Error> {
    match (typed.has(first), typed.has(second)) {
        (true, false) => Ok(Some(first)),
        (false, true) => Ok(Some(second)),
        _ if is_first_set && is_second_set => {
            let [first, second] = [first, second].map(|id| typed.name_of(id));
            let message = in_both(
                format!("{first} and {second} cannot be used together: leave out one of them."),
                format!("{first} 不能与 {second} 同时使用：请去掉其中之一。"),
            );
            Err(mistake(ErrorKind::ArgumentConflict, &message))
        }
        _ if is_first_set => Ok(Some(first)),
        _ => Ok(is_second_set.then_some(second)),
    }
}

/// Returns an error for a text in both languages.
fn mistake(kind: ErrorKind, text: &str) -> clap::Error {
    clap::Error::raw(kind, format!("{text}\n"))
}

/// Whether this process is part of a hook, whose `WXTOKEN_FILE` says what has changed, and is no setting.
fn is_hook() -> bool {
    std::env::var("WXTOKEN_ACCOUNT").is_ok_and(|name| client_key::is_account(&name))
}

/// Fails if a flag or variable of `command` has the form of a secret and is not meant to hold one. The error does not
/// repeat it; errors about files would.
pub(super) fn refuse_secrets(command: &Command, matches: &ArgMatches) -> Result<(), clap::Error> {
    let holds_secret = |arg: &&Arg| {
        let values = matches.try_get_raw(arg.get_id().as_str()).ok().flatten();
        values.is_some_and(|mut it| it.any(|value| log::may_hold_secret(&value.to_string_lossy())))
    };
    let typed = Typed::of(matches);
    let flags = command.get_arguments().filter(|arg| !arg.is_positional());
    let flags = flags.filter(|arg| !SECRET_IDS.contains(&arg.get_id().as_str()));
    let names: Vec<_> =
        flags.filter(holds_secret).map(|arg| typed.name_of(arg.get_id().as_str())).collect();
    if names.is_empty() {
        return Ok(());
    }
    let message = in_both(
        format!(
            "{}: put it into a file with mode 0600, and give that file's name: this has the form of an AppSecret, a key or a \
             token, which has no place there.",
            names.join(" and ")
        ),
        format!(
            "{}：请把它存入权限 0600 的文件，这里只写文件名：它形似 AppSecret、访问密钥或 token，不应写在这里。",
            names.join("、")
        ),
    );
    Err(mistake(ErrorKind::InvalidValue, &message))
}

/// Fails if a variable of the environment is probably a misspelt one of ours, which would be ignored. `define` returns the
/// definition of all commands, and is called if any variable may be one.
pub(super) fn refuse_misspelt_variables(
    define: impl FnOnce() -> Command,
) -> Result<(), clap::Error> {
    let set = std::env::vars_os().filter(|(_, value)| !value.is_empty());
    let set = set.filter_map(|(name, _)| name.into_string().ok());
    let set: BTreeSet<_> = set.filter(|name| name.starts_with(PREFIX)).collect();
    if set.is_empty() {
        return Ok(());
    }
    let known = variables(&define());
    let corrections: Vec<_> = set
        .iter()
        .filter_map(|name| {
            let meant = correction(name, &known)?;
            Some(in_both(
                format!("there is no variable {name}: is it {meant}?"),
                format!("没有环境变量 {name}：是否指 {meant}？"),
            ))
        })
        .collect();
    match corrections.is_empty() {
        true => Ok(()),
        false => Err(mistake(ErrorKind::UnknownArgument, &corrections.join(" "))),
    }
}

/// The variables of all flags, and those that have no flag.
fn variables(command: &Command) -> BTreeSet<String> {
    let commands = command.get_subcommands().chain([command]);
    let of_flags = commands.flat_map(Command::get_arguments).filter_map(Arg::get_env);
    let of_flags = of_flags.map(|name| name.to_string_lossy().into_owned());
    of_flags.chain([SECRET_VARIABLE, language::VARIABLE].map(str::to_owned)).collect()
}

/// Returns the one of `known` that the variable `name` is probably a misspelling of.
fn correction(name: &str, known: &BTreeSet<String>) -> Option<String> {
    let is_known = known.contains(name) || FOREIGN_VARIABLES.contains(&name);
    let suffix = name.strip_prefix(PREFIX).filter(|_| !is_known)?;
    let known: Vec<_> =
        known.iter().filter_map(|it| it.strip_prefix(PREFIX)).map(str::to_lowercase).collect();
    let known: Vec<_> = known.iter().map(String::as_str).collect();
    let nearest = spelling::nearest(suffix, &known)?;
    Some(format!("{PREFIX}{}", nearest.to_uppercase()))
}

/// Returns an error of clap's without the words that have the form of a secret: clap repeats what it refuses.
pub(super) fn without_secrets(err: clap::Error) -> clap::Error {
    let text = err.render().to_string();
    match text.strip_prefix("error: ") {
        Some(message) if log::may_hold_secret(message) => {
            clap::Error::raw(err.kind(), log::without_secrets(message))
        }
        _ => err,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_variable_is_corrected_and_others_are_none_of_our_business() {
        let known = variables(&Cli::definition());
        for (name, expected) in [
            ("WXTOKEN_BASEURL", Some("WXTOKEN_BASE_URL")),
            ("WXTOKEN_BASE_URI", Some("WXTOKEN_BASE_URL")),
            ("WXTOKEN_APP_ID", Some("WXTOKEN_APPID")),
            ("WXTOKEN_SECRETS_FILE", Some("WXTOKEN_SECRET_FILE")),
            ("WXTOKEN_BASE_URL", None),
            ("WXTOKEN_SECRET", None),
            ("WXTOKEN_LANG", None),
            ("WXTOKEN_LANGUAGE", None),
            ("WXTOKEN_KEY", None),
            ("WXTOKEN_URL", None),
            ("MY_WXTOKEN_BASEURL", None),
            ("WXTOKEN_", None),
            // What Kubernetes sets for a service called wxtoken.
            ("WXTOKEN_PORT", None),
            ("WXTOKEN_SERVICE_HOST", None),
            ("WXTOKEN_SERVICE_PORT", None),
            ("WXTOKEN_SERVICE_PORT_HTTP", None),
            ("WXTOKEN_PORT_7200_TCP", None),
            ("WXTOKEN_PORT_7200_TCP_ADDR", None),
            ("WXTOKEN_PORT_7200_TCP_PORT", None),
            ("WXTOKEN_PORT_7200_TCP_PROTO", None),
        ] {
            assert_eq!(correction(name, &known).as_deref(), expected, "{name}");
        }
    }
}
