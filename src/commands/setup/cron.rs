//! The lines by which cron runs `fetch` every minute: in a file of the system, and in a user's crontab.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::env_file::{ACCOUNT, ELSEWHERE, value_in};
use super::host::{HOME, OWN_DIRS, SetupHost, USER};
use super::messages;
use super::step::{SetupStep, shown_line};
use super::units::{MARK, Variables, own_text};
use crate::error::Exit;
use crate::language::in_both;

/// Whether a shell takes the character as it is.
fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || "/._-+%".contains(c)
}

/// Returns the path of a program as a word of a line of cron's, which a shell reads.
fn for_cron(program: &Path) -> String {
    let path = program.display().to_string();
    let word = match path.chars().all(is_plain) {
        true => path,
        false => format!("'{}'", path.replace('\'', "'\\''")),
    };
    word.replace('%', "\\%")
}

/// What a line of cron's begins with.
const EVERY_MINUTE: &str = "* * * * * ";

/// Returns the command of a line of cron's that runs `fetch`. Once the program is removed it does nothing: cron would send a
/// mail about it every minute.
fn fetch_where_it_is(program: &Path, variables: &str) -> String {
    let program = for_cron(program);
    format!("[ -x {program} ] && {variables}{program} fetch")
}

/// A line's command that runs `fetch` and does nothing else, in a form that setup, the manual or an earlier README has
/// written. Only such a line may be replaced: what else a person has written is theirs.
struct FetchCommand<'c> {
    /// What it sets, as a shell reads it.
    variables: String,
    /// The account that is named; `None` for all of the config.
    appid: Option<&'c str>,
}

impl<'c> FetchCommand<'c> {
    /// Takes a command apart that may have this program, or one of this name elsewhere.
    fn read(command: &'c str, program: &Path) -> Option<FetchCommand<'c>> {
        let guarded = command.strip_prefix("[ -x ").and_then(|it| it.split_once(" ] && "));
        let (looked_for, run) = guarded.map_or((None, command), |(path, run)| (Some(path), run));
        let words = words(run)?;
        let is_set = |word: &&&str| {
            let name = word.split_once('=').map(|(name, _)| name);
            name.is_some_and(|it| it.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_'))
        };
        let (variables, words) = words.split_at(words.iter().take_while(is_set).count());
        let (found, appid) = match *words {
            [program, "fetch"] => (program, None),
            [program, "fetch", "--appid", appid, "--secret-file", _] => (program, Some(appid)),
            _ => return None,
        };
        let is_program =
            found == for_cron(program) || found.trim_end_matches('\'').ends_with("/wxtoken");
        let is_meant = is_program && looked_for.is_none_or(|it| it == found);
        is_meant.then(|| FetchCommand { variables: variables.join(" "), appid })
    }

    /// Reads the command from a line of a user's crontab that runs it every minute.
    fn of_line(line: &'c str, program: &Path) -> Option<FetchCommand<'c>> {
        FetchCommand::read(line.strip_prefix(EVERY_MINUTE)?, program)
    }
}

/// Returns the words of a command that cron hands to a shell, as they are written; `None` if the shell would do more than run
/// a program with them.
fn words(command: &str) -> Option<Vec<&str>> {
    let (mut words, mut begin, mut is_quoted) = (Vec::new(), 0, false);
    let mut before = ' ';
    for (at, c) in command.char_indices() {
        let is_escaped = std::mem::replace(&mut before, c) == '\\';
        match c {
            '\'' if is_quoted || !is_escaped => is_quoted = !is_quoted,
            // For cron, the command ends at one without a backslash.
            '%' if !is_escaped => return None,
            ' ' if !is_quoted => {
                words.push(&command[begin..at]);
                begin = at + 1;
            }
            _ if is_quoted || is_plain(c) || "=\\'".contains(c) => {}
            _ => return None,
        }
    }
    words.push(&command[begin..]);
    (!is_quoted).then_some(words)
}

/// Returns the step that names the lines which run `fetch`, too, and which stay. `None` if there are none.
fn note<'l>(others: impl Iterator<Item = &'l str>, place: &str, appid: &str) -> Option<SetupStep> {
    let runs_fetch = |line: &&str| {
        let names_other = line.contains("--appid") && !line.contains(appid);
        let mut words = line.split(|c: char| c.is_whitespace() || "'\";&|()".contains(c));
        let is_comment = line.trim_start().starts_with('#');
        !is_comment && !names_other && line.contains("wxtoken") && words.any(|it| it == "fetch")
    };
    let lines: String =
        others.filter(runs_fetch).map(|it| format!("\n    {}", shown_line(it))).collect();
    let about = messages::ALSO_FETCH.sentence([&appid, &place]);
    (!lines.is_empty()).then(|| SetupStep::Note(about + &lines))
}

/// Fails if cron would run `fetch` with a variable by which it finds something else than what setup writes, or one of `also`.
fn check_variables(text: &str, place: &str, also: &[&str]) -> Result<()> {
    let names = ELSEWHERE.iter().chain(&ACCOUNT).chain(also);
    match names.into_iter().find(|name| value_in(text, name).is_some()) {
        None => Ok(()),
        Some(name) => Err(Exit::Usage.error(messages::VARIABLE_OF_CRON.with([name, &place]))),
    }
}

/// Returns the steps that have cron run `fetch` every minute as the user of the service. What a person has added to the file
/// stays, such as a proxy.
pub(super) fn cron(host: &SetupHost, appid: &str) -> Result<Vec<SetupStep>> {
    let path = host.path("etc/cron.d/wxtoken");
    let there = own_text(&path)?;
    let place = path.display().to_string();
    check_variables(&there, &place, &[])?;
    let (program, copy) = host.installed_program()?;
    let line = format!("{EVERY_MINUTE}{USER} {}", fetch_where_it_is(&program, ""));
    let is_fetch = |it: &str| {
        let command = it.strip_prefix(EVERY_MINUTE).and_then(|it| it.strip_prefix(USER));
        let command = command.and_then(|it| it.strip_prefix(' '));
        let command = command.and_then(|it| FetchCommand::read(it, &program));
        command.is_some_and(|it| it.variables.is_empty() && it.appid.is_none())
    };
    let others = there.lines().filter(|it| !is_fetch(it));
    let note = note(others, &place, appid);
    let is_there = there.lines().any(is_fetch);
    let text = match there.is_empty() {
        false if is_there => {
            let replaced = |it| if is_fetch(it) { line.as_str() } else { it };
            there.lines().map(|it| format!("{}\n", replaced(it))).collect()
        }
        false => format!("{}\n{line}\n", there.trim_end()),
        true => format!(
            "{MARK}: keeps the tokens of /etc/wxtoken/wxtoken.toml fresh. A run with nothing due prints\n\
             # nothing and makes no request.\n\
             PATH=/usr/local/bin:/usr/bin:/bin\nMAILTO=root\n\n{line}\n"
        ),
    };
    let file = SetupStep::text(path, 0o644, text);
    Ok(copy.into_iter().chain(file).chain(note).collect())
}

/// Returns the steps that have the crontab of a user with this home, which is `there`, run `fetch` with these variables every
/// minute. A line that does nothing but fetch this account, or those of the same config, is replaced. Any other stays, and is
/// named if it fetches.
pub(super) fn crontab(
    there: &str,
    home: &Path,
    program: &Path,
    variables: &Variables,
    appid: &str,
) -> Result<Vec<SetupStep>> {
    let place = in_both("your crontab", "您的 crontab");
    let is_set = |name: &&str| variables.iter().any(|(it, _)| it == name);
    let mut also: Vec<_> = OWN_DIRS.into_iter().map(|(name, _)| name).collect();
    also.retain(|it| !is_set(it));
    // Where these are not set, they are below the home.
    if !also.is_empty() && value_in(there, HOME).is_some_and(|it| Path::new(it) != home) {
        also.push(HOME);
    }
    check_variables(there, &place, &also)?;
    let set = |(name, dir): &(&str, PathBuf)| format!("{name}={} ", for_cron(dir));
    let set: String = variables.iter().map(set).collect();
    let line = format!("{EVERY_MINUTE}{}", fetch_where_it_is(program, &set));
    let is_earlier = |it: &str| {
        let is_same = |it: &FetchCommand| it.variables == set.trim_end();
        FetchCommand::of_line(it, program)
            .is_some_and(|it| is_same(&it) && it.appid.is_none_or(|it| it == appid))
    };
    let has_line = there.lines().any(|it| it == line);
    let kept = there.lines().filter(|it| *it == line || !is_earlier(it));
    // One that setup has written for a config elsewhere is meant.
    let others = kept
        .clone()
        .filter(|it| FetchCommand::of_line(it, program).is_none_or(|it| it.appid.is_some()));
    let note = note(others, &place, appid);
    let new = (!has_line).then_some(line.as_str());
    let input: String = kept.chain(new).map(|it| format!("{it}\n")).collect();
    let words = vec!["crontab".to_owned(), "-".to_owned()];
    let is_changed = !input.lines().eq(there.lines());
    let run = is_changed.then(|| SetupStep::Run { words, before: there.to_owned(), input });
    Ok(run.into_iter().chain(note).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME_DIR: &str = "/home/me";

    /// Returns the crontab that setup writes, if another one is there, and what it says of it.
    fn set_up(there: &str, variables: &Variables, appid: &str) -> (Option<String>, String) {
        let (mut written, mut said) = (None, String::new());
        for step in
            crontab(there, HOME_DIR.as_ref(), Path::new("/b/wxtoken"), variables, appid).unwrap()
        {
            match step {
                SetupStep::Run { input, .. } => written = Some(input),
                SetupStep::Note(text) => said = text,
                _ => panic!("{}", step.summary()),
            }
        }
        (written, said)
    }

    #[test]
    fn a_crontab_gets_one_line_and_keeps_those_of_others() {
        let there = "MAILTO=me\n# wxtoken fetch --appid wx1 x\n* * * * * /b/wxtoken fetch --appid wx1 --secret-file /x\n0 1 * * * b\n";
        let (written, said) = set_up(there, &[], "wx1");
        let (written, line) =
            (written.unwrap(), "* * * * * [ -x /b/wxtoken ] && /b/wxtoken fetch\n");
        let others = "MAILTO=me\n# wxtoken fetch --appid wx1 x\n0 1 * * * b\n";
        assert_eq!((written.clone(), said), (format!("{others}{line}"), String::new()));
        assert_eq!(set_up(&written, &[], "wx1"), (None, String::new()));
        assert_eq!(set_up("", &[], "wx1").0.unwrap(), line);
        // That of another version or another place is replaced.
        for earlier in [
            "/b/wxtoken fetch",
            "'/c d/wxtoken' fetch",
            "[ -x /c/wxtoken ] && /c/wxtoken fetch",
            "[ -x '/c\\%'\\''/wxtoken' ] && '/c\\%'\\''/wxtoken' fetch",
        ] {
            let there = format!("* * * * * {earlier}\n{others}");
            assert_eq!(set_up(&there, &[], "wx1"), (Some(written.clone()), String::new()));
        }
        // That of a config elsewhere goes on, and has a line of its own.
        let elsewhere = [("XDG_CONFIG_HOME", PathBuf::from("/c d"))];
        let (both, said) = set_up(&written, &elsewhere, "wx1");
        let own = "* * * * * [ -x /b/wxtoken ] && XDG_CONFIG_HOME='/c d' /b/wxtoken fetch\n";
        assert_eq!((both.clone().unwrap(), said), (format!("{written}{own}"), String::new()));
        for variables in [&elsewhere[..], &[]] {
            assert_eq!(set_up(both.as_ref().unwrap(), variables, "wx1"), (None, String::new()));
        }
        // That of another account goes on.
        let (written, said) = set_up(there, &[], "wx2");
        assert_eq!((written.unwrap(), said), (format!("{there}{line}"), String::new()));
    }

    #[test]
    fn a_line_of_a_crontab_that_does_more_than_fetch_stays_and_is_named() {
        for line in [
            "*/5 * * * * /b/wxtoken fetch --appid wx1 --secret-file /s && /home/me/push",
            "0 3 * * * /home/me/backup; wxtoken fetch --appid wx1 --secret-file /s; /home/me/report",
            "* * * * * /home/me/renew-proxy && /b/wxtoken fetch",
            "* * * * * cd /srv/other && WXTOKEN_CONFIG=/srv/w.toml /opt/wxtoken fetch",
            "* * * * * /b/wxtoken fetch --appid wx1 --secret-file /s --dir /srv/shop",
            "* * * * * /b/wxtoken fetch --appid wx1 --secret-file $(a)",
            "* * * * * /b/wxtoken fetch --appid wx1 --secret-file /s%mail",
            "* * * * * X=`a` /b/wxtoken fetch",
            "* * * * * 'a' /b/wxtoken fetch",
            "* * * * * [ -x /c/wxtoken ] && /b/wxtoken fetch",
            "*/5 * * * * /b/wxtoken fetch",
            "* * * * * ~/bin/wxtoken fetch",
            "\t* * * * * /b/wxtoken fetch",
        ] {
            let (written, said) = set_up(&format!("{line}\n"), &[], "wx1");
            let new = "* * * * * [ -x /b/wxtoken ] && /b/wxtoken fetch\n";
            assert_eq!(written.unwrap(), format!("{line}\n{new}"));
            assert!(said.ends_with(line.trim_start()), "{said}: {line}");
        }
    }

    #[test]
    fn a_variable_by_which_cron_would_fetch_something_else_is_named() {
        let (home, program) = (Path::new(HOME_DIR), Path::new("/b/wxtoken"));
        for set in ["WXTOKEN_CONFIG = /x", "WXTOKEN_APPID='wx2'", "XDG_STATE_HOME=/x", "HOME=/x"] {
            let name = set.split([' ', '=']).next().unwrap();
            let failed = crontab(&format!("MAILTO=me\n{set}\n"), home, program, &[], "wx1");
            let said = failed.err().unwrap().to_string();
            assert!(said.contains(&format!("{name} is in your crontab")), "{said}");
        }
        // Each line that is written sets it.
        let elsewhere = [("XDG_STATE_HOME", PathBuf::from("/c"))];
        assert!(crontab("XDG_STATE_HOME=/x\n", home, program, &elsewhere, "wx1").is_ok());
        for set in ["#WXTOKEN_CONFIG=/x\nWXTOKEN_DIR=\n", "HOME=/home/me\n", "HOME = '/home/me/'\n"]
        {
            assert!(crontab(set, home, program, &[], "wx1").is_ok(), "{set}");
        }
        let both = OWN_DIRS.map(|(name, _)| (name, PathBuf::from("/c")));
        assert!(crontab("HOME=/x\n", home, program, &both, "wx1").is_ok());
    }

    #[test]
    fn the_path_of_the_program_is_one_word_for_cron() {
        for (path, word) in [
            ("/b/wxtoken-1.0", "/b/wxtoken-1.0"),
            ("/a b/x", "'/a b/x'"),
            ("/a%b/$c", "'/a\\%b/$c'"),
        ] {
            assert_eq!(for_cron(Path::new(path)), word);
        }
    }
}
