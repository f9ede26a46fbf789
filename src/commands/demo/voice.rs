//! How a story is told: on stdout, with a prompt before what is typed, and what came of it under that.

use std::fmt::Display;

use anyhow::Result;

use crate::commands::output;

pub(super) fn say(text: impl Display) -> Result<()> {
    output::print(&format!("{text}\n"))
}

pub(super) fn prompt(text: impl Display) -> Result<()> {
    say(format_args!("\n$ {text}"))
}

pub(super) fn command(text: &str) -> Result<()> {
    prompt(format_args!("wxtoken {text}"))
}

pub(super) fn aside(text: impl Display) -> Result<()> {
    say(format_args!("  {text}"))
}

pub(super) fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// What is shown of a token.
const SHOWN: usize = 10;

/// JSON whose token or ticket is cut to what fits a line.
pub(super) fn shortened(json: &str) -> String {
    let json = json.trim_end();
    for key in ["\"access_token\":\"", "\"ticket\":\""] {
        if let Some((before, rest)) = json.split_once(key)
            && let Some((token, after)) = rest.split_once('"')
        {
            return format!("{before}{key}{}…\"{after}", token.get(..SHOWN).unwrap_or(token));
        }
    }
    json.to_owned()
}
