//! Commands that messages print. They repeat the options, the config and the variables of this run, so that they do the same
//! where they are pasted.

use std::path::Path;
use std::sync::OnceLock;

use crate::language::COMMAND_MARKS;

static OF_PROCESS: OnceLock<RunOptions> = OnceLock::new();

/// The mode that this run was told to give documents, in octal. Another one would lock their readers out.
static MODE: OnceLock<String> = OnceLock::new();

/// What of this run a further command has to repeat. Holds no secret.
#[derive(Debug, Default)]
pub(crate) struct RunOptions {
    /// How this program was called.
    pub(crate) program: String,
    /// The options that hold for all accounts, as flags and their values.
    pub(crate) common: Vec<(&'static str, String)>,
    /// Those of the account of the command line; empty if the accounts are those of a config.
    pub(crate) account: Vec<(&'static str, String)>,
    /// The variable that holds the AppSecret, if one does.
    pub(crate) secret_variable: Option<&'static str>,
    /// What `fetch` needs and this run was not given, to be filled in.
    pub(crate) to_fill_in: Vec<&'static str>,
    /// Whether the accounts are those of a config, so that they are named.
    pub(crate) has_config: bool,
}

/// Sets what commands repeat. A second call changes nothing.
pub(crate) fn set(options: RunOptions) {
    let _ = OF_PROCESS.set(options);
}

/// Sets the mode that commands repeat. A second call changes nothing.
pub(crate) fn set_mode(mode: u32) {
    let _ = MODE.set(format!("{mode:04o}"));
}

/// Whether the accounts of this run are those of a config, and not the one of the command line.
pub(crate) fn has_config() -> bool {
    OF_PROCESS.get().is_some_and(|options| options.has_config)
}

/// Returns a command about an account of this run, or about all: `verb` with the flags `more`. It is marked as a command.
pub(crate) fn command(verb: &str, account: Option<&str>, more: &[&str]) -> String {
    marked(&unmarked(verb, account, more))
}

/// Returns a command about an account of this run, for root to run as `user`: a name, or the number of a user without one. It is marked
/// as a command.
pub(crate) fn as_user(user: &str, verb: &str, account: &str) -> String {
    let is_number = user.bytes().all(|byte| byte.is_ascii_digit());
    let user = if is_number { format!("'#{user}'") } else { user.to_owned() };
    marked(&format!("sudo -u {user} {}", unmarked(verb, Some(account), &[])))
}

/// Returns the command that reports the published token of an account as rejected. It is marked as a command.
pub(crate) fn report_rejected(account: Option<&str>) -> String {
    let get = unmarked("get", account, &["-r"]);
    marked(&format!("{get} | {}", unmarked("fetch", account, &["--rejected", "-"])))
}

/// Marks a text as a command to paste.
pub(crate) fn marked(command: &str) -> String {
    let [begin, end] = COMMAND_MARKS;
    format!("{begin}{command}{end}")
}

fn unmarked(verb: &str, account: Option<&str>, more: &[&str]) -> String {
    let mut more = more.to_vec();
    if let (Some(mode), "fetch") = (MODE.get(), verb) {
        more.extend(["--mode", mode]);
    }
    match OF_PROCESS.get() {
        Some(options) => options.command(verb, account, &more),
        None => RunOptions { has_config: account != Some("default"), ..RunOptions::default() }
            .command(verb, account, &more),
    }
}

impl RunOptions {
    fn command(&self, verb: &str, account: Option<&str>, more: &[&str]) -> String {
        let mut words = Vec::new();
        let asks = matches!(verb, "fetch" | "check" | "serve");
        if let (Some(variable), true) = (self.secret_variable, asks) {
            words.push(format!("{variable}=\"${variable}\""));
        }
        words.push(match self.program.is_empty() {
            true => "wxtoken".to_owned(),
            false => quoted(&self.program),
        });
        words.push(verb.to_owned());
        words.extend(more.iter().map(|word| quoted(word)));
        for (flag, value) in self.common.iter().chain(&self.account) {
            // What only those verbs use that ask WeChat.
            let is_used = asks || !matches!(*flag, "--secret-file" | "--base-url" | "--ca-file");
            if is_used {
                words.extend([(*flag).to_owned(), quoted(value)]);
            }
        }
        if verb == "fetch" {
            words.extend(self.to_fill_in.iter().map(|flag| (*flag).to_owned()));
        }
        words.extend(account.filter(|_| self.has_config).map(quoted));
        words.join(" ")
    }
}

/// Returns a path as sh(1) takes it, in whatever directory it is pasted.
pub(crate) fn quoted_path(path: &Path) -> String {
    let absolute = std::path::absolute(path);
    quoted(&absolute.as_deref().unwrap_or(path).display().to_string())
}

/// Returns a word as sh(1) takes it.
pub(crate) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_without_a_name_is_given_by_number_as_sudo_takes_it() {
        assert!(as_user("wxtoken", "check", "shop").contains("sudo -u wxtoken "));
        assert!(as_user("4711", "check", "shop").contains("sudo -u '#4711' "));
    }

    #[test]
    fn a_command_repeats_what_this_run_was_told() {
        let options = RunOptions {
            program: "/opt/it's/wxtoken".to_owned(),
            common: vec![("--dir", "/a b".to_owned())],
            account: vec![("--appid", "wx1".to_owned()), ("--secret-file", "/s".to_owned())],
            ..RunOptions::default()
        };
        assert_eq!(
            options.command("fetch", Some("default"), &["--rejected", "-"]),
            r"'/opt/it'\''s/wxtoken' fetch --rejected - --dir '/a b' --appid wx1 --secret-file /s"
        );
        let get = options.command("get", Some("default"), &["-r"]);
        assert!(get.ends_with(" get -r --dir '/a b' --appid wx1"), "{get}");
        let options = RunOptions {
            common: vec![("--config", "/x.toml".to_owned())],
            secret_variable: Some("WXTOKEN_SECRET"),
            has_config: true,
            ..RunOptions::default()
        };
        let check = options.command("check", Some("shop"), &[]);
        assert_eq!(check, "WXTOKEN_SECRET=\"$WXTOKEN_SECRET\" wxtoken check --config /x.toml shop");
        assert_eq!(options.command("status", None, &[]), "wxtoken status --config /x.toml");
        let options = RunOptions { to_fill_in: vec!["--appid APPID"], ..RunOptions::default() };
        assert_eq!(options.command("fetch", None, &[]), "wxtoken fetch --appid APPID");
        assert_eq!(options.command("check", None, &[]), "wxtoken check");
    }
}
