//! Lays out help: what belongs to the verb comes first, then the account's options, then those of every verb. Lines break at
//! words and fit a terminal of 80 columns. `-h` has the first paragraph of each option that the verb uses, `--help`
//! all options, all paragraphs and the variables.
//!
//! clap's own layout does not wrap without another crate, and puts all options of a verb into one list.
//!
//! Help is in Chinese where the language is Chinese, and else in English: in both it would fit no screen.

use std::ffi::OsString;

use clap::builder::PossibleValue;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command};

use super::ACCOUNT;
use crate::language::Language;
use crate::log::{columns_of, pieces};

mod chinese;

/// The width of a terminal, in columns.
const WIDTH: usize = 80;

/// Where the text of an option begins in the short help.
const SHORT_COLUMN: usize = 30;

/// Where it begins in the long help, on a line of its own.
const LONG_COLUMN: usize = 10;

/// The words of the layout, in one language.
struct Words {
    /// Returns clap's line of usage.
    usage: fn(&str) -> String,
    commands: &'static str,
    arguments: &'static str,
    options: &'static str,
    account: &'static str,
    /// The heading of the options that every verb takes.
    common: &'static str,
    default: &'static str,
    values: &'static str,
    variable: &'static str,
    colon: &'static str,
}

const ENGLISH: Words = Words {
    usage: str::to_owned,
    commands: "Commands",
    arguments: "Arguments",
    options: "Options",
    account: ACCOUNT,
    common: "Every verb",
    default: "default: ",
    values: "possible values: ",
    variable: "env: ",
    colon: ":",
};

const CHINESE: Words = Words {
    usage: usage_in_chinese,
    commands: "命令",
    arguments: "参数",
    options: "选项",
    account: "账号",
    common: "通用选项",
    default: "默认：",
    values: "可选值：",
    variable: "环境变量：",
    colon: "：",
};

impl Words {
    fn of(language: Language) -> &'static Words {
        match language {
            Language::Chinese => &CHINESE,
            Language::English | Language::Both => &ENGLISH,
        }
    }
}

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

/// Returns what a value means.
pub(super) fn about_value(value: &PossibleValue, language: Language) -> Option<String> {
    match (language, chinese::of_value(value.get_name())) {
        (Language::Chinese, Some(chinese)) => Some(chinese.to_owned()),
        _ => value.get_help().map(ToString::to_string),
    }
}

/// Returns the command with what its help says in a language.
pub(super) fn in_language(command: Command, language: Language) -> Command {
    match language {
        Language::Chinese => chinese::translated(command),
        Language::English | Language::Both => command,
    }
}

/// Returns a line of usage, as clap has it, in Chinese.
pub(super) fn usage_in_chinese(english: &str) -> String {
    let words = [("Usage: ", "用法："), ("[OPTIONS]", "[选项]"), ("<COMMAND>", "<命令>")];
    words.iter().fold(english.to_owned(), |usage, (word, chinese)| usage.replacen(word, chinese, 1))
}

/// Gives the command and each of its subcommands the help text that is laid out here, in a language.
pub(super) fn lay_out(mut command: Command, length: HelpLength, language: Language) -> Command {
    command.build();
    let words = Words::of(language);
    let mut command = in_language(command, language);
    let text = text(&mut command, length, words);
    let lay_out_verb = |mut verb: Command| {
        let text = self::text(&mut verb, length, words);
        verb.override_help(text)
    };
    command.mut_subcommands(lay_out_verb).override_help(text)
}

/// Returns the help text of a built command.
fn text(command: &mut Command, length: HelpLength, words: &Words) -> String {
    let usage = command.render_usage().to_string();
    let usage = (words.usage)(&usage);
    let about = match length {
        HelpLength::Short => command.get_about(),
        HelpLength::Long => command.get_long_about().or(command.get_about()),
    };
    let mut text = about.map(|it| paragraphs(&it.to_string(), 0)).unwrap_or_default();
    text += &format!("\n{usage}\n");
    text += &commands(command, words);
    for (heading, args) in sections(command, length, words) {
        text += &format!("\n{heading}{}\n", words.colon);
        args.iter().for_each(|arg| text += &entry(arg, length, words));
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
fn commands(command: &Command, words: &Words) -> String {
    let verbs = || command.get_subcommands().filter(|it| is_shown(it));
    let width = verbs().map(|verb| verb.get_name().len()).max().unwrap_or_default();
    let mut text = String::new();
    for verb in verbs() {
        let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
        let head = format!("  {:width$}", verb.get_name());
        text += &columns(&head, &about, width + 4);
    }
    if text.is_empty() { text } else { format!("\n{}{}\n{text}", words.commands, words.colon) }
}

fn is_shown(verb: &Command) -> bool {
    !verb.is_hide_set() && verb.get_name() != "help"
}

/// The arguments that are shown, under their headings: those of the verb, those of the account, those of every verb.
fn sections<'c>(
    command: &'c Command,
    length: HelpLength,
    words: &Words,
) -> Vec<(String, Vec<&'c Arg>)> {
    let verb = command.get_name();
    let mut sections: Vec<(String, Vec<&Arg>)> =
        [words.arguments, words.options].map(|heading| (heading.to_owned(), Vec::new())).into();
    for arg in command.get_arguments().filter(|arg| is_used(verb, arg, length)) {
        let heading = match arg.get_help_heading() {
            _ if is_common(arg) => words.common,
            Some(ACCOUNT) => words.account,
            Some(heading) => heading,
            None if arg.is_positional() => words.arguments,
            None => words.options,
        };
        match sections.iter_mut().find(|(it, _)| it == heading) {
            Some((_, args)) => args.push(arg),
            None => sections.push((heading.to_owned(), vec![arg])),
        }
    }
    sections.retain(|(_, args)| !args.is_empty());
    // The options of every verb come last, wherever they are declared.
    sections.sort_by_key(|(heading, _)| heading == words.common);
    sections
}

fn is_common(arg: &Arg) -> bool {
    arg.is_global_set() || matches!(arg.get_id().as_str(), "help" | "version")
}

/// Whether the verb does something with the argument. All verbs accept what is set for all of them in one environment, and
/// the short help leaves out what they ignore.
fn is_used(verb: &str, arg: &Arg, length: HelpLength) -> bool {
    let is_used = match (verb, arg.get_id().as_str()) {
        ("setup" | "key" | "ca" | "demo" | "mock" | "completions", "config" | "dir") => {
            return false;
        }
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
fn entry(arg: &Arg, length: HelpLength, words: &Words) -> String {
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
    let defaults = defaults.filter(|_| takes_values).map(|it| format!("[{}{it}]", words.default));
    match length {
        HelpLength::Short => {
            let texts: Vec<_> = [help].into_iter().chain(defaults).collect();
            columns(&head, &texts.join(" "), SHORT_COLUMN)
        }
        HelpLength::Long => {
            let mut notes: Vec<_> = defaults.collect();
            let values = arg.get_possible_values();
            if takes_values && !values.is_empty() {
                let values: Vec<_> = values.iter().map(|it| it.get_name()).collect();
                notes.push(format!("[{}{}]", words.values, values.join(", ")));
            }
            let variable = arg.get_env().map(|name| name.to_string_lossy());
            notes.extend(variable.map(|name| format!("[{}{name}]", words.variable)));
            let notes = notes.join(" ");
            let paragraphs = help.split("\n\n").chain([notes.as_str()]);
            let text: String = paragraphs.map(|it| wrapped(it, LONG_COLUMN)).collect();
            format!("{head}\n{text}")
        }
    }
}

/// Splits a text where a line may end; what stands in brackets stays in one piece. A blank stays with what is before it.
fn breakable(text: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    let mut is_in_brackets = false;
    for piece in pieces(text) {
        match parts.last_mut() {
            Some(last) if is_in_brackets => last.push_str(piece),
            _ => parts.push(piece.to_owned()),
        }
        is_in_brackets = (is_in_brackets || piece.starts_with('[')) && !piece.contains(']');
    }
    parts
}

/// Returns the lines of a text, each after `indent` blanks.
fn wrapped(text: &str, indent: usize) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for part in breakable(text) {
        if !line.is_empty() && indent + width_of(&line) + width_of(part.trim_end()) > WIDTH {
            lines += &format!("{:indent$}{}\n", "", line.trim_end());
            line.clear();
        }
        line += &part;
    }
    match line.trim_end() {
        "" => lines,
        line => lines + &format!("{:indent$}{line}\n", ""),
    }
}

/// The width of a text on a terminal, in columns.
fn width_of(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

/// Returns `head` with a text beside it, from `column` on; below it if it is too long.
fn columns(head: &str, text: &str, column: usize) -> String {
    let text = wrapped(text, column);
    match text.get(column..) {
        None => format!("{head}\n"),
        Some(text) if width_of(head) + 2 <= column => format!("{head:column$}{text}"),
        Some(_) => format!("{head}\n{text}"),
    }
}

/// Wraps each line of a text.
fn paragraphs(text: &str, indent: usize) -> String {
    let lines = text.lines().map(|line| match line {
        "" => "\n".to_owned(),
        line => wrapped(line, indent),
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::super::Cli;
    use super::*;

    const LANGUAGES: [Language; 2] = [Language::English, Language::Chinese];

    /// Returns each verb with its short help, and with no name that of all.
    fn short_helps(language: Language) -> Vec<(String, String)> {
        let command = lay_out(Cli::definition(), HelpLength::Short, language);
        let verbs = command.get_subcommands().filter(|it| is_shown(it));
        let all = verbs.chain([&command]);
        all.map(|it| (it.get_name().to_owned(), it.clone().render_help().to_string())).collect()
    }

    #[test]
    fn the_short_help_of_every_verb_fits_80_columns_and_40_lines() {
        for (verb, help) in LANGUAGES.into_iter().flat_map(short_helps) {
            for line in help.lines() {
                assert!(width_of(line) <= WIDTH, "{verb}: {line}");
            }
            let lines = help.lines().count();
            assert!(lines <= 40, "{verb}: {lines} lines\n{help}");
        }
    }

    #[test]
    fn the_long_help_of_every_verb_fits_80_columns() {
        for language in LANGUAGES {
            let command = lay_out(Cli::definition(), HelpLength::Long, language);
            for verb in command.get_subcommands().chain([&command]) {
                for line in verb.clone().render_long_help().to_string().lines() {
                    // One word can be longer.
                    let is_one_word = line.trim_start().split(' ').nth(1).is_none();
                    let width = width_of(line);
                    assert!(width <= WIDTH || is_one_word, "{}: {line}", verb.get_name());
                }
            }
        }
    }

    #[test]
    fn a_verbs_own_options_come_first_and_those_of_every_verb_last() {
        for language in LANGUAGES {
            let Words { arguments, options, account, common, colon, .. } = Words::of(language);
            for (verb, help) in short_helps(language) {
                let at = |heading: &str| help.find(&format!("\n{heading}{colon}\n"));
                let headings: Vec<_> =
                    [arguments, options, account, common].iter().filter_map(|it| at(it)).collect();
                assert!(headings.is_sorted(), "{verb}: {help}");
                assert!(at(common).is_some(), "{verb}: {help}");
            }
        }
    }

    #[test]
    fn the_short_help_has_no_option_that_the_verb_ignores() {
        for (verb, help) in LANGUAGES.into_iter().flat_map(short_helps) {
            let has = |option: &str| help.contains(&format!(" {option} "));
            let names_secret = matches!(verb.as_str(), "setup" | "fetch" | "check" | "serve");
            assert_eq!(has("--secret-file"), names_secret, "{verb}: {help}");
            let names_dir =
                !matches!(verb.as_str(), "setup" | "key" | "ca" | "mock" | "demo" | "completions");
            assert_eq!(has("--dir"), names_dir, "{verb}: {help}");
        }
    }

    #[test]
    fn a_line_breaks_at_words_and_never_in_brackets() {
        assert_eq!(breakable("one [default: a b] two"), ["one ", "[default: a b] ", "two"]);
        assert_eq!(breakable("时限 [默认：a b]"), ["时", "限 ", "[默认：a b]"]);
        let long = "x".repeat(60);
        let lines = wrapped(&format!("{long} [default: of this one]"), 4);
        assert_eq!(lines, format!("    {long}\n    [default: of this one]\n"));
        let chinese = wrapped(&"字".repeat(40), 4);
        assert_eq!(chinese, format!("    {}\n    {}\n", "字".repeat(38), "字".repeat(2)));
        assert_eq!(columns("  --a", "text", 8), "  --a   text\n");
        assert_eq!(columns("  --long", "text", 8), "  --long\n        text\n");
        assert_eq!(columns("  --a", "", 8), "  --a\n");
    }
}
