//! Lays out help: what belongs to the verb comes first, then the account's options, then those of every verb. Lines break at
//! words and fit a terminal of 80 columns. `-h` has the first paragraph of each option that the verb uses, `--help`
//! all options, all paragraphs and the variables.
//!
//! clap's own layout does not wrap without another crate, and puts all options of a verb into one list.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command};

/// The width of a terminal, in columns.
const WIDTH: usize = 80;

/// Where the text of an option begins in the short help.
const SHORT_COLUMN: usize = 30;

/// Where it begins in the long help, on a line of its own.
const LONG_COLUMN: usize = 10;

/// The heading of the options that every verb takes.
const COMMON: &str = "Every verb";

/// How much help is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HelpLength {
    /// `-h`
    Short,
    /// `--help` and `help`
    Long,
}

impl HelpLength {
    /// Returns how much help the words of a command line ask for; `None` if clap's answer to them is none.
    pub(super) fn asked_for(answer: &clap::Error, words: &[OsString]) -> Option<HelpLength> {
        let has = |word: &str| words.iter().any(|it| it == word);
        match answer.kind() {
            ErrorKind::DisplayHelp if has("--help") || has("help") => Some(HelpLength::Long),
            ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                Some(HelpLength::Short)
            }
            _ => None,
        }
    }
}

/// Gives the command and each of its subcommands the help text that is laid out here.
pub(super) fn lay_out(mut command: Command, length: HelpLength) -> Command {
    command.build();
    let text = text(&mut command, length);
    let lay_out_verb = |mut verb: Command| {
        let text = self::text(&mut verb, length);
        verb.override_help(text)
    };
    command.mut_subcommands(lay_out_verb).override_help(text)
}

/// Returns the help text of a built command.
fn text(command: &mut Command, length: HelpLength) -> String {
    let usage = command.render_usage().to_string();
    let about = match length {
        HelpLength::Short => command.get_about(),
        HelpLength::Long => command.get_long_about().or(command.get_about()),
    };
    let mut text = about.map(|it| paragraphs(&it.to_string(), 0)).unwrap_or_default();
    text += &format!("\n{usage}\n");
    text += &commands(command);
    for (heading, args) in sections(command, length) {
        text += &format!("\n{heading}:\n");
        args.iter().for_each(|arg| text += &entry(arg, length));
    }
    let after = match length {
        HelpLength::Short => command.get_after_help(),
        HelpLength::Long => command.get_after_long_help().or(command.get_after_help()),
    };
    if let Some(after) = after {
        text += "\n";
        text += &paragraphs(&after.to_string(), 0);
    }
    text
}

/// The verbs, each with what it does.
fn commands(command: &Command) -> String {
    let verbs = || command.get_subcommands().filter(|it| is_shown(it));
    let width = verbs().map(|verb| verb.get_name().len()).max().unwrap_or_default();
    let mut text = String::new();
    for verb in verbs() {
        let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
        let head = format!("  {:width$}", verb.get_name());
        text += &columns(&head, words(&about), width + 4);
    }
    if text.is_empty() { text } else { format!("\nCommands:\n{text}") }
}

fn is_shown(verb: &Command) -> bool {
    !verb.is_hide_set() && verb.get_name() != "help"
}

/// The arguments that are shown, under their headings: those of the verb, those of the account, those of every verb.
fn sections(command: &Command, length: HelpLength) -> Vec<(String, Vec<&Arg>)> {
    let verb = command.get_name();
    let mut sections: Vec<(String, Vec<&Arg>)> =
        ["Arguments", "Options"].map(|heading| (heading.to_owned(), Vec::new())).into();
    for arg in command.get_arguments().filter(|arg| is_used(verb, arg, length)) {
        let heading = match arg.get_help_heading() {
            _ if is_common(arg) => COMMON,
            Some(heading) => heading,
            None if arg.is_positional() => "Arguments",
            None => "Options",
        };
        match sections.iter_mut().find(|(it, _)| it == heading) {
            Some((_, args)) => args.push(arg),
            None => sections.push((heading.to_owned(), vec![arg])),
        }
    }
    sections.retain(|(_, args)| !args.is_empty());
    // The options of every verb come last, wherever they are declared.
    sections.sort_by_key(|(heading, _)| heading == COMMON);
    sections
}

fn is_common(arg: &Arg) -> bool {
    arg.is_global_set() || matches!(arg.get_id().as_str(), "help" | "version")
}

/// Whether the verb does something with the argument. All verbs accept what is set for all of them in one environment, and
/// the short help leaves out what they ignore.
fn is_used(verb: &str, arg: &Arg, length: HelpLength) -> bool {
    let is_used = match (verb, arg.get_id().as_str()) {
        ("key" | "ca" | "demo" | "mock" | "completions", "config" | "dir") => return false,
        ("key" | "ca" | "demo" | "completions", "verbose" | "quiet" | "log_format") => {
            return false;
        }
        ("get" | "sign" | "status", "secret_file" | "base_url" | "ca_file") => false,
        _ => !arg.is_hide_short_help_set(),
    };
    !arg.is_hide_set() && (is_used || length == HelpLength::Long)
}

/// Whether the long help of a verb has the argument.
pub(super) fn is_used_by(verb: &Command, arg: &Arg) -> bool {
    is_used(verb.get_name(), arg, HelpLength::Long)
}

/// An argument, and what it is for.
fn entry(arg: &Arg, length: HelpLength) -> String {
    let short = arg.get_short().map(|short| format!("-{short}, "));
    let head = match (arg.is_positional(), short) {
        (true, _) => format!("  {arg}"),
        (false, Some(short)) => format!("  {short}{arg}"),
        (false, None) => format!("      {arg}"),
    };
    let help = match length {
        HelpLength::Short => arg.get_help(),
        HelpLength::Long => arg.get_long_help().or(arg.get_help()),
    };
    let help = help.map(ToString::to_string).unwrap_or_default();
    let takes_values = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    let defaults = arg.get_default_values().iter().map(|it| it.to_string_lossy());
    let defaults = defaults.filter(|_| takes_values).map(|it| format!("[default: {it}]"));
    match length {
        HelpLength::Short => columns(&head, words(&help).into_iter().chain(defaults), SHORT_COLUMN),
        HelpLength::Long => {
            let mut paragraphs: Vec<_> = help.split("\n\n").map(words).collect();
            let mut notes: Vec<_> = defaults.collect();
            let values = arg.get_possible_values();
            if takes_values && !values.is_empty() {
                let values: Vec<_> = values.iter().map(|it| it.get_name()).collect();
                notes.push(format!("[possible values: {}]", values.join(", ")));
            }
            notes.extend(arg.get_env().map(|name| format!("[env: {}]", name.to_string_lossy())));
            paragraphs.push(notes);
            let text: String = paragraphs.into_iter().map(|it| wrapped(it, LONG_COLUMN)).collect();
            format!("{head}\n{text}")
        }
    }
}

/// Splits a text at its blanks; what stands in brackets stays in one piece.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut is_in_brackets = false;
    for word in text.split_whitespace() {
        match words.last_mut() {
            Some(last) if is_in_brackets => *last = format!("{last} {word}"),
            _ => words.push(word.to_owned()),
        }
        is_in_brackets = (is_in_brackets || word.starts_with('[')) && !word.contains(']');
    }
    words
}

/// Returns lines of words, each after `indent` blanks.
fn wrapped(words: impl IntoIterator<Item = String>, indent: usize) -> String {
    let mut lines = String::new();
    let mut line = " ".repeat(indent);
    let mut width = indent;
    for word in words {
        let length = word.chars().count();
        if width > indent && width + 1 + length > WIDTH {
            lines += &line;
            lines.push('\n');
            line = " ".repeat(indent);
            width = indent;
        }
        if width > indent {
            line.push(' ');
            width += 1;
        }
        line += &word;
        width += length;
    }
    if width > indent { lines + &line + "\n" } else { lines }
}

/// Returns `head` with the words beside it, from `column` on; below it if it is too long.
fn columns(head: &str, words: impl IntoIterator<Item = String>, column: usize) -> String {
    let text = wrapped(words, column);
    let width = head.chars().count();
    match text.get(column..) {
        None => format!("{head}\n"),
        Some(text) if width + 2 <= column => format!("{head:column$}{text}"),
        Some(_) => format!("{head}\n{text}"),
    }
}

/// Wraps each line of a text.
fn paragraphs(text: &str, indent: usize) -> String {
    let lines = text.lines().map(|line| match line {
        "" => "\n".to_owned(),
        line => wrapped(words(line), indent),
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::super::Cli;
    use super::*;

    /// Returns each verb with its short help, and with no name that of all.
    fn short_helps() -> Vec<(String, String)> {
        let command = lay_out(Cli::definition(), HelpLength::Short);
        let verbs = command.get_subcommands().filter(|it| is_shown(it));
        let all = verbs.chain([&command]);
        all.map(|it| (it.get_name().to_owned(), it.clone().render_help().to_string())).collect()
    }

    #[test]
    fn the_short_help_of_every_verb_fits_80_columns_and_40_lines() {
        for (verb, help) in short_helps() {
            for line in help.lines() {
                assert!(line.chars().count() <= WIDTH, "{verb}: {line}");
            }
            let lines = help.lines().count();
            assert!(lines <= 40, "{verb}: {lines} lines\n{help}");
        }
    }

    #[test]
    fn the_long_help_of_every_verb_fits_80_columns() {
        let command = lay_out(Cli::definition(), HelpLength::Long);
        for verb in command.get_subcommands().chain([&command]) {
            for line in verb.clone().render_long_help().to_string().lines() {
                // One word can be longer.
                let is_one_word = line.trim_start().split(' ').nth(1).is_none();
                let width = line.chars().count();
                assert!(width <= WIDTH || is_one_word, "{}: {line}", verb.get_name());
            }
        }
    }

    #[test]
    fn a_verbs_own_options_come_first_and_those_of_every_verb_last() {
        for (verb, help) in short_helps() {
            let at = |heading: &str| help.find(&format!("\n{heading}:\n"));
            let headings: Vec<_> = ["Arguments", "Options", "Account", COMMON]
                .iter()
                .filter_map(|it| at(it))
                .collect();
            assert!(headings.is_sorted(), "{verb}: {help}");
            assert!(at(COMMON).is_some(), "{verb}: {help}");
        }
    }

    #[test]
    fn the_short_help_has_no_option_that_the_verb_ignores() {
        for (verb, help) in short_helps() {
            let has = |option: &str| help.contains(&format!(" {option} "));
            let names_secret = matches!(verb.as_str(), "fetch" | "check" | "serve");
            assert_eq!(has("--secret-file"), names_secret, "{verb}: {help}");
            let names_dir =
                !matches!(verb.as_str(), "key" | "ca" | "mock" | "demo" | "completions");
            assert_eq!(has("--dir"), names_dir, "{verb}: {help}");
        }
    }

    #[test]
    fn a_line_breaks_at_words_and_never_in_brackets() {
        let text = words("one [default: a b] two");
        assert_eq!(text, ["one", "[default: a b]", "two"]);
        let long = "x".repeat(60);
        let lines = wrapped(vec![long.clone(), "[default: of this one]".to_owned()], 4);
        assert_eq!(lines, format!("    {long}\n    [default: of this one]\n"));
        assert_eq!(columns("  --a", words("text"), 8), "  --a   text\n");
        assert_eq!(columns("  --long", words("text"), 8), "  --long\n        text\n");
        assert_eq!(columns("  --a", words(""), 8), "  --a\n");
    }
}
