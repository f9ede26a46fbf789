//! What may stand next on a command line: a verb, an option, or a value. Knows what can be typed, and leaves names of accounts
//! and of files to the caller.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Arg, ArgAction, Args, Command, ValueEnum};

use super::{Cli, help};
use crate::language::Language;

/// The shells that are completed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// bash, zsh or fish
    #[arg(value_enum)]
    pub(crate) shell: Shell,

    /// The words of a command line up to the cursor: the script asks what may stand there
    #[arg(last = true, hide = true, value_name = "WORD")]
    pub(crate) words: Vec<String>,
}

/// What may stand where the cursor is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    /// What stands before the value in the same word, such as `--format=`.
    pub(crate) prefix: String,
    /// The beginning of the value.
    pub(crate) typed: String,
    pub(crate) expected: Expected,
    /// The config file that the command line names.
    pub(crate) config: Option<PathBuf>,
}

/// The values that are expected.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// One of these.
    Words(Vec<Candidate>),
    /// The name of an account of the config.
    Account,
    /// The path of a file or a directory.
    Path,
    /// Anything.
    Anything,
}

/// A word, and what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) word: String,
    pub(crate) about: String,
}

impl Candidate {
    fn new(word: &str, about: Option<impl ToString>) -> Candidate {
        let about = about.map(|it| it.to_string()).unwrap_or_default();
        Candidate { word: word.to_owned(), about }
    }
}

/// Returns what may stand in place of the last of `words`. The first one is the name of the program.
pub(crate) fn complete(words: &[String]) -> Completion {
    let mut root = Cli::definition();
    root.build();
    let root = help::in_language(root, Language::of_process());
    let words = joined(words);
    let (current, before) = match words.split_last() {
        Some((current, before)) if !before.is_empty() => (current.as_str(), before),
        _ => ("", &[][..]),
    };
    let mut line = TypedLine::new(&root);
    before.iter().skip(1).for_each(|word| line.take(word));
    let (prefix, typed, expected) = line.expected(current);
    let config = line.config;
    Completion { prefix: prefix.to_owned(), typed: typed.to_owned(), expected, config }
}

/// Puts together what bash takes apart: `--format`, `=`, `json` are one word.
fn joined(words: &[String]) -> Vec<String> {
    let mut joined: Vec<String> = Vec::new();
    for word in words {
        match joined.last_mut() {
            Some(last) if last.starts_with("--") && (word == "=" || last.ends_with('=')) => {
                last.push_str(word);
            }
            _ => joined.push(word.clone()),
        }
    }
    joined
}

/// A command line, as far as it has been read.
struct TypedLine<'a> {
    /// The verb, or the program before it.
    command: &'a Command,
    /// The option whose value comes next.
    pending: Option<&'a Arg>,
    /// The ids of the options that were given.
    given: BTreeSet<&'a str>,
    /// How many arguments without an option were given to the verb.
    positionals: usize,
    /// Whether `--` has ended the options.
    has_ended: bool,
    config: Option<PathBuf>,
}

impl<'a> TypedLine<'a> {
    fn new(command: &'a Command) -> TypedLine<'a> {
        let given = BTreeSet::new();
        TypedLine { command, pending: None, given, positionals: 0, has_ended: false, config: None }
    }

    /// Reads a whole word.
    fn take(&mut self, word: &str) {
        if let Some(arg) = self.pending.take() {
            self.note(arg, word);
        } else if word == "--" && !self.has_ended {
            self.has_ended = true;
        } else if let Some(long) = word.strip_prefix("--").filter(|_| !self.has_ended) {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (long, None),
            };
            let arg = self.command.get_arguments().find(|arg| arg.get_long() == Some(name));
            arg.into_iter().for_each(|arg| self.give(arg, value));
        } else if let Some(shorts) = word.strip_prefix('-').filter(|_| !self.has_ended) {
            self.take_shorts(shorts);
        } else if let Some(verb) = self.command.find_subcommand(word) {
            self.command = verb;
        } else {
            self.positionals += 1;
        }
    }

    /// Reads options of one letter: `-vc FILE` and `-vcFILE`.
    fn take_shorts(&mut self, shorts: &str) {
        for (at, short) in shorts.char_indices() {
            let arg = self.command.get_arguments().find(|arg| arg.get_short() == Some(short));
            let Some(arg) = arg else { return };
            let rest = &shorts[at + short.len_utf8()..];
            let has_value = takes_value(arg);
            self.give(arg, Some(rest).filter(|rest| has_value && !rest.is_empty()));
            if has_value {
                return;
            }
        }
    }

    fn give(&mut self, arg: &'a Arg, value: Option<&str>) {
        self.given.insert(arg.get_id().as_str());
        match value {
            Some(value) => self.note(arg, value),
            None => self.pending = Some(arg).filter(|arg| takes_value(arg)),
        }
    }

    fn note(&mut self, arg: &Arg, value: &str) {
        if arg.get_id() == "config" {
            self.config = Some(PathBuf::from(value));
        }
    }

    /// Returns what is expected in place of the word `current`, with what stands before and in that place.
    fn expected<'b>(&self, current: &'b str) -> (&'b str, &'b str, Expected) {
        let value_of = |arg: &Arg, start: usize| {
            let list = current.rfind(',').filter(|_| arg.get_value_delimiter() == Some(','));
            let start = start.max(list.map_or(0, |at| at + 1));
            let (prefix, typed) = current.split_at(start);
            (prefix, typed, values(arg))
        };
        if let Some(arg) = self.pending {
            return value_of(arg, 0);
        }
        if current.starts_with('-') && !self.has_ended {
            if let Some((name, _)) = current.split_once('=') {
                let arg = self.command.get_arguments().find(|arg| {
                    takes_value(arg) && arg.get_long() == Some(name.trim_start_matches('-'))
                });
                return match arg {
                    Some(arg) => value_of(arg, name.len() + 1),
                    None => (current, "", Expected::Anything),
                };
            }
            return ("", current, Expected::Words(self.options()));
        }
        let verbs: Vec<_> = self.command.get_subcommands().filter(|it| !it.is_hide_set()).collect();
        if !verbs.is_empty() {
            let verbs = verbs.iter().map(|verb| Candidate::new(verb.get_name(), verb.get_about()));
            return ("", current, Expected::Words(verbs.collect()));
        }
        let positionals = self.command.get_positionals().filter(|arg| !arg.is_hide_set());
        let positionals: Vec<_> = positionals.collect();
        let next = positionals.get(self.positionals);
        match next.or(positionals.last().filter(|arg| is_list(arg))) {
            Some(arg) => value_of(arg, 0),
            None => ("", current, Expected::Anything),
        }
    }

    /// The options that can be given, with two hyphens.
    fn options(&self) -> Vec<Candidate> {
        let is_open = |arg: &&Arg| {
            let can_repeat = matches!(arg.get_action(), ArgAction::Append | ArgAction::Count);
            can_repeat || !self.given.contains(arg.get_id().as_str())
        };
        let args = self.command.get_arguments().filter(|arg| help::is_used_by(self.command, arg));
        let options = args.filter(is_open).filter_map(|arg| {
            let long = arg.get_long()?;
            Some(Candidate::new(&format!("--{long}"), arg.get_help()))
        });
        options.collect()
    }
}

fn takes_value(arg: &Arg) -> bool {
    arg.get_num_args().is_some_and(|it| it.takes_values())
}

/// Whether the argument takes any number of words.
fn is_list(arg: &Arg) -> bool {
    arg.get_num_args().is_some_and(|it| it.max_values() > 1)
        || matches!(arg.get_action(), ArgAction::Append)
}

/// The values of an argument.
fn values(arg: &Arg) -> Expected {
    let possible = arg.get_possible_values();
    if !possible.is_empty() {
        let about = |it| help::about_value(it, Language::of_process());
        let words = possible.iter().map(|it| Candidate::new(it.get_name(), about(it)));
        return Expected::Words(words.collect());
    }
    let name = arg.get_value_names().and_then(<[_]>::first).map(|it| it.as_str());
    match name {
        Some("ACCOUNT") => Expected::Account,
        Some("FILE" | "DIR" | "PATH" | "PEM") => Expected::Path,
        _ => Expected::Anything,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(line: &str) -> Completion {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        complete(&words)
    }

    /// The words that may follow, that begin with what was typed.
    fn words_after(line: &str) -> Vec<String> {
        let Completion { typed, expected, .. } = after(line);
        let Expected::Words(words) = expected else { panic!("{line}: {expected:?}") };
        words.into_iter().map(|it| it.word).filter(|it| it.starts_with(&typed)).collect()
    }

    #[test]
    fn verbs_come_first_and_options_of_the_verb_after_it() {
        assert_eq!(words_after("wxtoken st"), ["status"]);
        assert_eq!(words_after("wxtoken -v --dir /d ch"), ["check"]);
        assert_eq!(words_after("wxtoken help ser"), ["serve"]);
        assert_eq!(words_after("wxtoken fetch --re"), ["--refresh-before", "--rejected"]);
        assert_eq!(words_after("wxtoken fetch --rejected x --re"), ["--refresh-before"]);
        assert_eq!(
            words_after("wxtoken serve --allow 10.0.0.1 --allow"),
            ["--allow", "--allow-file"]
        );
        assert!(words_after("wxtoken key --").iter().all(|it| it != "--dir"), "key ignores it");
        assert!(words_after("wxtoken ").contains(&"fetch".to_owned()));
    }

    #[test]
    fn a_value_is_a_word_an_account_a_path_or_anything() {
        assert_eq!(words_after("wxtoken status --format js"), ["json"]);
        assert_eq!(words_after("wxtoken completions z"), ["zsh"]);
        for (line, expected) in [
            ("wxtoken fetch ", Expected::Account),
            ("wxtoken fetch shop ", Expected::Account),
            ("wxtoken get ", Expected::Account),
            ("wxtoken get shop ", Expected::Anything),
            ("wxtoken key me ", Expected::Account),
            ("wxtoken key ", Expected::Anything),
            ("wxtoken fetch -- -", Expected::Account),
            ("wxtoken fetch --secret-file ", Expected::Path),
            ("wxtoken fetch -f ", Expected::Path),
            ("wxtoken fetch -vc ", Expected::Path),
            ("wxtoken fetch --timeout ", Expected::Anything),
            ("wxtoken completions bash ", Expected::Anything),
        ] {
            assert_eq!(after(line).expected, expected, "{line}");
        }
    }

    #[test]
    fn a_value_after_an_equals_sign_is_completed_as_bash_and_as_zsh_split_it() {
        for line in ["wxtoken status --format=js", "wxtoken status --format = js"] {
            assert_eq!(words_after(line), ["json"], "{line}");
            assert_eq!(after(line).prefix, "--format=", "{line}");
        }
        assert_eq!(words_after("wxtoken status --format ="), ["text", "json", "prometheus"]);
    }

    #[test]
    fn a_list_is_completed_at_its_last_comma() {
        let Completion { prefix, typed, expected, .. } = after("wxtoken key me shop,cr");
        assert_eq!((prefix.as_str(), typed.as_str(), expected), ("shop,", "cr", Expected::Account));
    }

    #[test]
    fn the_config_is_the_one_that_was_typed() {
        for line in [
            "wxtoken -c /etc/a.toml fetch ",
            "wxtoken fetch -v --config /etc/a.toml ",
            "wxtoken fetch --config=/etc/a.toml ",
            "wxtoken fetch -vc/etc/a.toml ",
        ] {
            assert_eq!(after(line).config, Some(PathBuf::from("/etc/a.toml")), "{line}");
        }
        assert_eq!(after("wxtoken fetch ").config, None);
    }

    #[test]
    fn nothing_is_too_odd_to_be_completed() {
        for line in [
            "",
            " ",
            "wxtoken",
            "wxtoken -",
            "wxtoken --",
            "wxtoken -é",
            "wxtoken x --y=",
            "wxtoken fetch --config",
        ] {
            after(line);
        }
        complete(&[]);
    }
}
