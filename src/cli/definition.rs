//! The definition of the command line for clap, as far as it is needed.

use clap::builder::{Resettable, StyledStr};
use clap::{Args, CommandFactory};

use super::completion::CompletionsArgs;
use super::{
    CaArgs, CheckArgs, Cli, DemoArgs, FetchArgs, GetArgs, KeyArgs, MockArgs, ServeArgs, SetupArgs,
    SignArgs, StatusArgs,
};

impl Cli {
    /// Returns clap's definition, with three changes. Help hides values from the environment: `WXTOKEN_REJECTED` holds a
    /// token. An empty variable counts as unset, because environment files often contain empty ones. The version of a verb is
    /// that of wxtoken.
    pub(super) fn definition() -> clap::Command {
        Cli::definition_of(|_| true)
    }

    /// Returns the definition in which only the wanted verbs have arguments: to define those of all verbs takes longer than all the rest
    /// of `get`.
    pub(super) fn definition_of(is_wanted: impl Fn(&str) -> bool) -> clap::Command {
        let is_empty = |arg: &clap::Arg| {
            arg.get_env()
                .is_some_and(|name| std::env::var_os(name).is_some_and(|value| value.is_empty()))
        };
        let change = |arg: clap::Arg| {
            if is_empty(&arg) { arg.env(None::<&str>) } else { arg.hide_env_values(true) }
        };
        let change_verb = |verb: clap::Command| verb.mut_args(change).display_name("wxtoken");
        Cli::derived(is_wanted).mut_args(change).mut_subcommands(change_verb)
    }

    /// Returns clap's definition as it is derived, with the arguments of the verbs that are wanted.
    pub(super) fn derived(is_wanted: impl Fn(&str) -> bool) -> clap::Command {
        Cli::command().mut_subcommands(|verb| match arguments(verb.get_name()) {
            Some(add) if is_wanted(verb.get_name()) => with_arguments(verb, add),
            _ => verb,
        })
    }
}

fn with_arguments(
    verb: clap::Command,
    add: impl FnOnce(clap::Command) -> clap::Command,
) -> clap::Command {
    let text = |text: Option<&StyledStr>| match text {
        Some(text) => Resettable::Value(text.clone()),
        None => Resettable::Reset,
    };
    let (about, long_about) = (text(verb.get_about()), text(verb.get_long_about()));
    // The texts of the arguments' own struct are not for users. clap would add the arguments as well when the verb is used.
    add(verb).about(about).long_about(long_about).defer(|verb| verb)
}

/// Returns what adds its arguments to the definition of a verb. `None` if there is no such verb.
fn arguments(verb: &str) -> Option<fn(clap::Command) -> clap::Command> {
    Some(match verb {
        "setup" => SetupArgs::augment_args,
        "fetch" => FetchArgs::augment_args,
        "get" => GetArgs::augment_args,
        "serve" => ServeArgs::augment_args,
        "sign" => SignArgs::augment_args,
        "status" => StatusArgs::augment_args,
        "check" => CheckArgs::augment_args,
        "key" => KeyArgs::augment_args,
        "ca" => CaArgs::augment_args,
        "mock" => MockArgs::augment_args,
        "demo" => DemoArgs::augment_args,
        "completions" => CompletionsArgs::augment_args,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_is_defined_with_its_arguments_where_it_is_wanted() {
        for verb in Cli::command().get_subcommands() {
            let name = verb.get_name();
            assert!(arguments(name).is_some(), "{name}");
            let definition = Cli::definition_of(|wanted| wanted == name);
            for other in definition.get_subcommands() {
                let is_defined = other.get_arguments().next().is_some();
                assert_eq!(is_defined, other.get_name() == name, "{name}: {}", other.get_name());
            }
            let defined = definition.find_subcommand(name).expect("the verb");
            let about = |verb: &clap::Command| verb.get_about().map(ToString::to_string);
            assert_eq!(about(defined), about(verb), "{name}");
            let long = |verb: &clap::Command| verb.get_long_about().map(ToString::to_string);
            assert_eq!(long(defined), long(verb), "{name}");
        }
    }
}
