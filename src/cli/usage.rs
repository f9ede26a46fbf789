//! Mistakes on the command line, as they are printed. clap's own words are English; their Chinese is made here of the kind of
//! a mistake and of what it is about.

use std::error::Error;
use std::io::Write;
use std::{io, process};

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::help::usage_in_chinese;
use crate::language::Language;

/// Prints help or a mistake in a language, and ends the process with clap's status.
pub(super) fn exit(err: &clap::Error, language: Language) -> ! {
    let text = text(err, language);
    // stderr or stdout may be closed, and the status tells the same.
    let _ = match err.use_stderr() {
        true => io::stderr().lock().write_all(text.as_bytes()),
        false => io::stdout().lock().write_all(text.as_bytes()),
    };
    process::exit(err.exit_code())
}

/// Returns what is printed.
fn text(err: &clap::Error, language: Language) -> String {
    let english = || {
        let text = err.render().to_string();
        language.resolve(&text).into_owned()
    };
    match (language, chinese(err)) {
        (Language::Chinese, None) => english().replacen("error: ", "错误：", 1),
        (Language::English, _) | (_, None) => english(),
        (Language::Chinese, Some(chinese)) => chinese,
        (Language::Both, Some(chinese)) => english() + "\n" + &chinese,
    }
}

/// Returns a mistake in Chinese, with the usage; `None` for help, and for one that has its own Chinese.
fn chinese(err: &clap::Error) -> Option<String> {
    let what = what(err)?;
    let usage = err.get(ContextKind::Usage).map(ToString::to_string).unwrap_or_default();
    let usage = usage_in_chinese(usage.trim());
    let usage = if usage.is_empty() { usage } else { format!("\n{usage}\n") };
    Some(format!("错误：{what}\n{usage}\n详细用法请加 --help。\n"))
}

fn what(err: &clap::Error) -> Option<String> {
    let named = |kind| match err.get(kind) {
        Some(ContextValue::Strings(names)) => names.join("、"),
        Some(value) => value.to_string(),
        None => String::new(),
    };
    let (arg, value) = (named(ContextKind::InvalidArg), named(ContextKind::InvalidValue));
    let suggestion = |kind| match named(kind) {
        name if name.is_empty() => "。".to_owned(),
        name => format!("，是否指 {name}？"),
    };
    Some(match err.kind() {
        // Without a context it is one of ours, in both languages.
        _ if err.context().next().is_none() => return None,
        ErrorKind::UnknownArgument => {
            let noun = if arg.starts_with('-') { "选项" } else { "参数" };
            format!("没有{noun} {arg}{}", suggestion(ContextKind::SuggestedArg))
        }
        ErrorKind::InvalidSubcommand => format!(
            "没有命令 {}{}",
            named(ContextKind::InvalidSubcommand),
            suggestion(ContextKind::SuggestedSubcommand)
        ),
        ErrorKind::InvalidValue if value.is_empty() => format!("{arg} 需要一个值。"),
        ErrorKind::InvalidValue => match named(ContextKind::ValidValue) {
            valid if valid.is_empty() => format!("{arg} 的值 {value} 无效。"),
            valid => format!("{arg} 的值 {value} 无效，可选：{valid}。"),
        },
        ErrorKind::ValueValidation => {
            let why = err.source().map(ToString::to_string).unwrap_or_default();
            let why = Language::Chinese.resolve(&why);
            format!("{arg} 的值 {value} 无效：{why}。")
        }
        ErrorKind::MissingRequiredArgument => format!("缺少 {arg}。"),
        ErrorKind::MissingSubcommand => "缺少命令。".to_owned(),
        ErrorKind::ArgumentConflict => match named(ContextKind::PriorArg) {
            prior if prior.is_empty() || prior == arg => format!("{arg} 只能写一次。"),
            prior => format!("{arg} 不能与 {prior} 同时使用。"),
        },
        ErrorKind::NoEquals => format!("{arg} 的值须以 = 相连。"),
        ErrorKind::TooManyValues => format!("{arg} 的值过多：{value}。"),
        ErrorKind::TooFewValues | ErrorKind::WrongNumberOfValues => {
            format!("{arg} 的值的个数不对。")
        }
        ErrorKind::InvalidUtf8 => "命令行中有无效的 UTF-8。".to_owned(),
        _ => return None,
    })
}

/// A command line with each kind of mistake.
#[cfg(test)]
const MISTAKES: [(&str, &str); 9] = [
    ("unknown option", "wxtoken fetch --forced"),
    ("unknown verb", "wxtoken fetsh"),
    ("together", "wxtoken fetch -q -v"),
    ("too many words", "wxtoken demo shop"),
    ("wrong value", "wxtoken fetch --api clasic"),
    ("invalid value", "wxtoken fetch --timeout soon"),
    ("no value", "wxtoken fetch --timeout"),
    ("something missing", "wxtoken key"),
    ("twice", "wxtoken fetch --force --force"),
];

/// Returns examples of mistakes, each with its name and what is printed in English and Chinese, for the list of all messages.
#[cfg(test)]
pub(crate) fn examples() -> Vec<[String; 3]> {
    let said = |line: &str, language| {
        let err = super::Cli::parse(line.split(' ')).expect_err(line);
        let text = text(&err, language);
        let ends = ["Usage", "用法", "For more", "详细用法"];
        let is_end = |line: &str| ends.iter().any(|end| line.starts_with(end));
        let lines = text.lines().map(str::trim).take_while(|it| !is_end(it));
        lines.filter(|it| !it.is_empty()).collect::<Vec<_>>().join(" ")
    };
    let row = |(name, line): (&str, &str)| {
        [name.to_owned(), said(line, Language::English), said(line, Language::Chinese)]
    };
    MISTAKES.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Cli;
    use super::*;

    fn printed(line: &str, language: Language) -> String {
        let err = Cli::parse(line.split(' ')).expect_err(line);
        text(&err, language)
    }

    #[test]
    fn a_mistake_on_the_command_line_is_told_in_the_readers_language() {
        for (line, expected) in [
            (
                "wxtoken fetch --forced",
                "错误：没有选项 --forced，是否指 --force？\n\n用法：wxtoken fetch ",
            ),
            ("wxtoken fetsh", "错误：没有命令 fetsh，是否指 fetch？\n"),
            (
                "wxtoken fetch --api clasic",
                "错误：--api <API> 的值 clasic 无效，可选：stable、classic、work。\n",
            ),
            (
                "wxtoken fetch --timeout soon",
                "的值 soon 无效：请填写 90s、30m、2h 这样的时长：格式不对。\n",
            ),
            ("wxtoken fetch --timeout", "错误：--timeout <DUR> 需要一个值。\n"),
            ("wxtoken key", "错误：缺少 <NAME>。\n"),
            ("wxtoken fetch --force --force", "错误：--force 只能写一次。\n"),
            ("wxtoken fetch -q -v", "--quiet 不能与 --verbose 同时使用"),
            ("wxtoken fetch shop --appid wx1", "去掉其中之一"),
        ] {
            let chinese = printed(line, Language::Chinese);
            assert!(chinese.contains(expected), "{line}: {chinese}");
            let english = printed(line, Language::English);
            assert!(english.starts_with("error: ") && !english.contains('，'), "{line}: {english}");
            assert!(chinese.starts_with("错误："), "{line}: {chinese}");
            let both = printed(line, Language::Both);
            assert!(both.contains(expected) && both.starts_with("error: "), "{line}: {both}");
        }
    }

    #[test]
    fn a_mistake_repeats_no_secret() {
        let secret = "0123456789abcdef0123456789abcdef";
        for language in [Language::English, Language::Chinese, Language::Both] {
            let text = printed(&format!("wxtoken fetch --api {secret}"), language);
            assert!(!text.contains(secret) && text.contains("--api"), "{text}");
        }
    }
}
