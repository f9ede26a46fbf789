//! The lines by which cron runs `fetch` every minute: in a file of the system, and in a user's crontab.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::host::{SetupHost, USER};
use super::step::SetupStep;
use super::units::{MARK, Variables, own_text};

/// Returns the path of a program as a word of a line of cron's, which a shell reads.
fn for_cron(program: &Path) -> String {
    let path = program.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+%".contains(c);
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

/// Returns the steps that have cron run `fetch` every minute as the user of the service. What a person has added to the file
/// stays, such as a proxy.
pub(super) fn cron(host: &SetupHost) -> Result<Vec<SetupStep>> {
    let path = host.path("etc/cron.d/wxtoken");
    let there = own_text(&path)?;
    let (program, copy) = host.program();
    let from = host.own_program().to_owned();
    let copy = copy.map(|to| SetupStep::Program { from, to });
    let line = format!("{EVERY_MINUTE}{USER} {}", fetch_where_it_is(&program, ""));
    let is_fetch = |it: &&str| {
        it.strip_prefix(EVERY_MINUTE)
            .is_some_and(|it| it.starts_with(USER) && it.ends_with(" fetch"))
    };
    let text = match there.lines().find(is_fetch) {
        Some(old) => there.replacen(old, &line, 1),
        None if !there.is_empty() => format!("{}\n{line}\n", there.trim_end()),
        None => format!(
            "{MARK}: keeps the tokens of /etc/wxtoken/wxtoken.toml fresh. A run with nothing due prints\n\
             # nothing and makes no request.\n\
             PATH=/usr/local/bin:/usr/bin:/bin\nMAILTO=root\n\n{line}\n"
        ),
    };
    Ok(copy.into_iter().chain(SetupStep::text(path, 0o644, text)).collect())
}

/// Returns the steps that have a user's crontab, which is `there`, run `fetch` with these variables every minute. A line for the
/// same AppID alone is replaced.
pub(super) fn crontab(
    there: &str,
    program: &Path,
    variables: &Variables,
    appid: &str,
) -> Vec<SetupStep> {
    let set = |(name, dir): &(&str, PathBuf)| format!("{name}={} ", for_cron(dir));
    let set: String = variables.iter().map(set).collect();
    let line = format!("{EVERY_MINUTE}{}", fetch_where_it_is(program, &set));
    // As an earlier version wrote it, for this program or one elsewhere, and not for a config elsewhere.
    let is_earlier = |it: &str| {
        let command = it.strip_prefix(EVERY_MINUTE).unwrap_or_default();
        let is_fetch = command == format!("{} fetch", for_cron(program))
            || command.ends_with("/wxtoken fetch");
        is_fetch
            && if set.is_empty() { !command.contains("&& XDG_") } else { command.contains(&set) }
    };
    if there.lines().any(|it| it == line) {
        return Vec::new();
    }
    let is_of_account = |it: &str| {
        !it.starts_with('#') && it.contains(" fetch --appid ") && it.contains(&format!(" {appid} "))
    };
    let kept = there.lines().filter(|it| !is_of_account(it) && !is_earlier(it));
    let input: String = kept.chain([line.as_str()]).map(|it| format!("{it}\n")).collect();
    let words = vec!["crontab".to_owned(), "-".to_owned()];
    vec![SetupStep::Run { words, before: there.to_owned(), input }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crontab_gets_one_line_and_keeps_those_of_others() {
        let there = "MAILTO=me\n# wxtoken fetch --appid wx1 x\n* * * * * /b/wxtoken fetch --appid wx1 --x\n0 1 * * * b\n";
        let program = Path::new("/b/wxtoken");
        let input = |steps: Vec<SetupStep>| match steps.into_iter().next() {
            Some(SetupStep::Run { input, .. }) => input,
            _ => String::new(),
        };
        let written = input(crontab(there, program, &[], "wx1"));
        let line = "* * * * * [ -x /b/wxtoken ] && /b/wxtoken fetch\n";
        let others = "MAILTO=me\n# wxtoken fetch --appid wx1 x\n0 1 * * * b\n";
        assert_eq!(written, format!("{others}{line}"));
        assert!(crontab(&written, program, &[], "wx1").is_empty());
        assert_eq!(input(crontab("", program, &[], "wx1")), line);
        // That of another version or another place is replaced.
        for earlier in ["/b/wxtoken fetch", "[ -x /c/wxtoken ] && /c/wxtoken fetch"] {
            let there = format!("* * * * * {earlier}\n{others}");
            assert_eq!(input(crontab(&there, program, &[], "wx1")), written);
        }
        // That of a config elsewhere goes on, and has a line of its own.
        let elsewhere = [("XDG_CONFIG_HOME", PathBuf::from("/c d"))];
        let both = input(crontab(&written, program, &elsewhere, "wx1"));
        let own = "* * * * * [ -x /b/wxtoken ] && XDG_CONFIG_HOME='/c d' /b/wxtoken fetch\n";
        assert_eq!(both, format!("{written}{own}"));
        assert!(crontab(&both, program, &elsewhere, "wx1").is_empty());
        assert!(crontab(&both, program, &[], "wx1").is_empty());
        // That of another account goes on.
        assert!(input(crontab(there, program, &[], "wx2")).starts_with(there));
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
