//! `wxtoken completions`: prints a script for a shell, which asks `wxtoken completions SHELL -- WORDS` what may stand next on a
//! command line. So the script knows no option, and stays right when wxtoken is updated.

use anyhow::Result;

use super::output;
use crate::cli::completion::{self, Candidate, Completion, CompletionsArgs, Expected, Shell};
use crate::cli::{AccountArgs, CommonArgs};
use crate::config;
use crate::error::Exit;

/// Tells a script to complete the path of a file. Not the beginning of a word of ours.
const PATH: &str = ":path\n";

pub(crate) fn run(common: &CommonArgs, args: &CompletionsArgs) -> Result<Exit> {
    output::print(&match args.words.as_slice() {
        [] => script(args.shell).to_owned(),
        words => answer(args.shell, completion::complete(words), common),
    })?;
    Ok(Exit::Done)
}

fn script(shell: Shell) -> &'static str {
    match shell {
        Shell::Bash => include_str!("wxtoken.bash"),
        Shell::Zsh => include_str!("wxtoken.zsh"),
        Shell::Fish => include_str!("wxtoken.fish"),
    }
}

/// Returns what may stand next, a line for each.
fn answer(shell: Shell, completion: Completion, common: &CommonArgs) -> String {
    let Completion { prefix, typed, expected, config } = completion;
    let candidates = match expected {
        Expected::Words(words) => words,
        Expected::Account => {
            let config = config.or_else(|| config::path(common, &AccountArgs::default()));
            let names = config.map(|path| config::account_names(&path)).unwrap_or_default();
            names.into_iter().map(|word| Candidate { word, about: String::new() }).collect()
        }
        Expected::Path => return PATH.to_owned(),
        Expected::Anything => Vec::new(),
    };
    // bash replaces what follows the last `=` only.
    let prefix = match (shell, prefix.rfind('=')) {
        (Shell::Bash, Some(at)) => &prefix[at + 1..],
        _ => prefix.as_str(),
    };
    let candidates = candidates.into_iter().filter(|it| it.word.starts_with(&typed));
    let line = |Candidate { word, about }: Candidate| match shell {
        Shell::Bash => format!("{prefix}{word}\n"),
        Shell::Zsh => format!("{}:{about}\n", format!("{prefix}{word}").replace(':', "\\:")),
        Shell::Fish => format!("{prefix}{word}\t{about}\n"),
    };
    candidates.map(line).collect()
}
