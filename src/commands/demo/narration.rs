//! The demo's output on stdout: prompts with what would be typed, and results indented below them.

use std::fmt::Display;

use anyhow::Result;

use crate::commands::output;

/// How many characters of a token are shown.
const SHOWN_OF_TOKEN: usize = 10;

pub(super) fn print_line(text: impl Display) -> Result<()> {
    output::print(&format!("{text}\n"))
}

/// Prints a heading in both languages.
pub(super) fn print_heading(english: &str, chinese: &str) -> Result<()> {
    print_line(format_args!("\n# {english}\n# {chinese}"))
}

/// Prints a command line of the shell.
pub(super) fn print_prompt(text: impl Display) -> Result<()> {
    print_line(format_args!("\n$ {text}"))
}

/// Prints a command line of wxtoken's.
pub(super) fn print_wxtoken(arguments: &str) -> Result<()> {
    print_prompt(format_args!("wxtoken {arguments}"))
}

/// Prints a line of a command's result, or a remark on it.
pub(super) fn print_result(text: impl Display) -> Result<()> {
    print_line(format_args!("  {text}"))
}

pub(super) fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// Returns the JSON with its token or ticket cut to a few characters.
pub(super) fn shortened(json: &str) -> String {
    let json = json.trim_end();
    for key in ["\"access_token\":\"", "\"ticket\":\""] {
        if let Some((before, rest)) = json.split_once(key)
            && let Some((token, after)) = rest.split_once('"')
        {
            let shown = token.get(..SHOWN_OF_TOKEN).unwrap_or(token);
            return format!("{before}{key}{shown}…\"{after}");
        }
    }
    json.to_owned()
}
