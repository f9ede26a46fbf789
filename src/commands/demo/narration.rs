//! The demo's output on stdout: steps, prompts with what can be typed, and results indented below them. In the reader's
//! language, and on a terminal in colour and no wider than it is.

use std::fmt::Display;
use std::io::{self, BufRead, IsTerminal};

use anyhow::{Context, Result};

use crate::commands::output;
use crate::commands::output::terminal;
use crate::language::Language;

/// An SGR sequence of ECMA-48.
const BOLD: &str = "\x1b[1m";

/// The longest command line that is not continued on another line, in columns.
const MAX_COMMAND: usize = 78;

/// What stands before the rest of a command on another line.
const CONTINUATION: &str = "    ";

/// How many characters of a token are shown.
const SHOWN_OF_TOKEN: usize = 10;

pub(super) fn print_line(text: impl Display) -> Result<()> {
    output::print(&format!("{text}\n"))
}

/// Prints what the demo says itself, in the reader's language.
pub(super) fn print_text(english: &str, chinese: &str) -> Result<()> {
    in_language(english, chinese).iter().try_for_each(|text| print_wrapped(text, "", ""))
}

/// Prints the heading of a step, with its number.
pub(super) fn print_step(number: usize, english: &str, chinese: &str) -> Result<()> {
    print_line("")?;
    let (on, off) = colours(BOLD);
    for (index, text) in in_language(english, chinese).iter().enumerate() {
        let head = if index == 0 { format!("{number}. ") } else { " ".repeat(3) };
        print_wrapped(text, &format!("{on}{head}"), &format!("{off}{on}   "))?;
        output::print(off)?;
    }
    Ok(())
}

/// Waits for the reader before the next step, where a person can press Enter.
pub(super) fn wait_for_reader() -> Result<()> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Ok(());
    }
    let prompt = match Language::of_process() {
        Language::Chinese => "按回车继续 ",
        Language::English => "Press Enter to go on. ",
        Language::Both => "Press Enter to go on. 按回车继续 ",
    };
    output::print(&format!("\n{prompt}"))?;
    io::stdin().lock().read_line(&mut String::new()).context("cannot read the terminal").map(drop)
}

/// Prints a command of the shell, as it can be typed: a line, or several with a text for its standard input.
pub(super) fn print_prompt(text: impl Display) -> Result<()> {
    let (on, off) = colours(output::GREEN);
    let text = format!("$ {text}");
    let (command, input) = text.split_once('\n').unwrap_or((&text, ""));
    print_line(format_args!("{on}{}{off}", continued(command)))?;
    if input.is_empty() { Ok(()) } else { print_line(input) }
}

/// Returns a command line that is continued on further lines if it is too long for a terminal.
fn continued(command: &str) -> String {
    let end = command.char_indices().nth(MAX_COMMAND).map(|(at, _)| at);
    match end.and_then(|end| command[..end].rfind(' ')) {
        Some(at) if at > CONTINUATION.len() => {
            let rest = continued(&format!("{CONTINUATION}{}", &command[at + 1..]));
            format!("{} \\\n{rest}", &command[..at])
        }
        _ => command.to_owned(),
    }
}

/// Prints a line of a command's result, or a remark on it.
pub(super) fn print_result(text: impl Display) -> Result<()> {
    text.to_string().lines().try_for_each(|line| print_wrapped(line, "  ", "    "))
}

/// Prints a text after `first`, and on a terminal its further lines after `rest`.
fn print_wrapped(text: &str, first: &str, rest: &str) -> Result<()> {
    let Some(width) = terminal::width() else { return print_line(format_args!("{first}{text}")) };
    let indent = [first, rest].map(|it| it.chars().filter(|c| *c == ' ').count());
    let room = width.saturating_sub(indent[0].max(indent[1]).max(3));
    print_line(format_args!("{first}{}", terminal::wrapped(text, room).join(&format!("\n{rest}"))))
}

/// Returns the text in the reader's language, or in both.
fn in_language<'a>(english: &'a str, chinese: &'a str) -> Vec<&'a str> {
    match Language::of_process() {
        Language::English => vec![english],
        Language::Chinese => vec![chinese],
        Language::Both => vec![english, chinese],
    }
}

/// Returns what begins and ends a colour, if there are colours.
fn colours(colour: &'static str) -> (&'static str, &'static str) {
    if output::has_colours() { (colour, output::RESET) } else { ("", "") }
}

/// How often something happened, in English and Chinese.
pub(super) fn times(count: u64) -> [String; 2] {
    let english = if count == 1 { "once".to_owned() } else { format!("{count} times") };
    [english, format!("{count} 次")]
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
