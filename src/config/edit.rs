//! Changes a config file key by key. Every byte that is not about such a key stays: the lines, comments and line ends of
//! others. A text that would not be read as it was meant is never returned.

use std::fmt::Display;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::Result;
use toml::de::DeTable;

use super::file::{self, BYTE_ORDER_MARK, ConfigFile, FileAccount};
use super::{AccountSettings, Config, Secrets, messages};
use crate::cli::{AccountArgs, CommonArgs};
use crate::error::Exit;
use crate::model::api::Api;

/// A config file that is being changed.
pub(crate) struct ConfigEdit {
    path: PathBuf,
    /// The text of the file; `None` if there is no file.
    before: Option<String>,
    after: String,
}

/// An account of the file, as far as changes depend on it.
pub(crate) struct KnownAccount {
    pub(crate) name: String,
    pub(crate) appid: String,
    pub(crate) api: Api,
    pub(crate) is_mirror: bool,
    pub(crate) has_secret_file: bool,
}

impl ConfigEdit {
    /// Reads the file at `path`. If there is none, the text is `new`. Fails if anything is wrong with the file.
    pub(crate) fn open(path: &Path, new: &str) -> Result<ConfigEdit> {
        let before = match path.symlink_metadata() {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => None,
            _ => Some(file::read_text(path)?),
        };
        let after = before.clone().unwrap_or_else(|| new.to_owned());
        let edit = ConfigEdit { path: path.to_owned(), before, after };
        edit.parsed()?;
        Ok(edit)
    }

    /// Fails if another program has changed the file since it was read.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        match ConfigEdit::open(&self.path, "") {
            Ok(now) if now.before == self.before => Ok(()),
            Err(err) if self.before.is_some() => Err(err),
            _ => Err(changed_meanwhile(&self.path)),
        }
    }

    /// Returns where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the changed text.
    pub(crate) fn after(&self) -> &str {
        &self.after
    }

    /// Returns the accounts of the changed text.
    pub(crate) fn accounts(&self) -> Result<Vec<KnownAccount>> {
        let accounts = self.parsed()?.accounts.into_iter();
        Ok(accounts
            .map(|it| KnownAccount {
                name: it.name,
                appid: it.appid,
                api: it.api.unwrap_or_default(),
                is_mirror: !it.from.is_empty(),
                has_secret_file: it.secret_file.is_some(),
            })
            .collect())
    }

    /// Returns the settings of the account of this name in the changed text.
    pub(crate) fn settings(&self, common: &CommonArgs, name: &str) -> Result<AccountSettings> {
        let given = AccountArgs::default();
        let config = Config { common, given: &given, file: self.parsed()?, needs_secrets: false };
        let mut settings = config.account_settings(&[name.to_owned()])?;
        settings.pop().ok_or_else(|| Exit::Usage.error(format!("there is no account {name}")))
    }

    /// Sets keys of the account called `name`, each to a TOML value.
    pub(crate) fn set_account(&mut self, name: &str, keys: &[(&str, String)]) -> Result<()> {
        self.set(&["account", name], keys)?;
        // No change may touch the other accounts.
        let others = |text: &str| {
            let accounts = ConfigFile::parse(&self.path, text, Secrets::Unneeded)?.accounts;
            let others = accounts.into_iter().filter(|it| it.name != name);
            anyhow::Ok(others.map(without_lines).collect::<Vec<_>>())
        };
        match &self.before {
            Some(before) if others(before)? != others(&self.after)? => {
                Err(self.refused(&["account", name], keys))
            }
            _ => Ok(()),
        }
    }

    /// Sets `listen` of `[serve]` to this address, and adds these addresses and networks to its `allow`, if they are missing.
    pub(crate) fn serve(&mut self, listen: &[String], allow: &[String]) -> Result<()> {
        let mut keys = Vec::new();
        if !listen.is_empty() && self.list("serve", "listen").as_deref() != Some(listen) {
            keys.push(("listen", list(listen)));
        }
        let there = self.list("serve", "allow").unwrap_or_default();
        let missing: Vec<_> = allow.iter().filter(|it| !there.contains(it)).cloned().collect();
        if !missing.is_empty() {
            keys.push(("allow", list(&[there, missing].concat())));
        }
        if keys.is_empty() { Ok(()) } else { self.set(&["serve"], &keys) }
    }

    /// Returns `allow` of `[serve]`.
    pub(crate) fn allowed(&self) -> Vec<String> {
        self.list("serve", "allow").unwrap_or_default()
    }

    /// Whether `[serve]` has this key.
    pub(crate) fn has_serving(&self, key: &str) -> bool {
        self.list("serve", key).is_some()
    }

    /// Turns an account's key into a comment.
    pub(crate) fn comment_out(&mut self, name: &str, key: &str) -> Result<()> {
        let (mark, body) = split_mark(&self.after);
        let at = line_of_key(body, &["account", name], key);
        let at = at.ok_or_else(|| {
            let line = format!("{key} of [account.{name}]");
            let values: [&dyn Display; 2] = [&self.path.display(), &line];
            Exit::Usage.error(messages::KEY_NOT_REMOVED.with(values))
        })?;
        self.after.insert(mark.len() + at, '#');
        self.parsed().map(drop)
    }

    fn set(&mut self, table: &[&str], keys: &[(&str, String)]) -> Result<()> {
        let (mark, body) = split_mark(&self.after);
        let (mark, mut body) = (mark.to_owned(), body.to_owned());
        // Each is put first in its table.
        for (key, value) in keys.iter().rev() {
            let change = change(&body, table, key, value);
            let (range, text) = change.ok_or_else(|| self.refused(table, keys))?;
            body.replace_range(range, &text);
        }
        let changed = mark + &body;
        let parsed = ConfigFile::parse(&self.path, &changed, Secrets::Unneeded);
        // The text was right before. So either a value is wrong now, or the way in which it was put in.
        if let Err(err) = parsed {
            return Err(match DeTable::parse(&body) {
                Ok(_) => err,
                Err(_) => self.refused(table, keys),
            });
        }
        self.after = changed;
        Ok(())
    }

    /// Returns the values of a list in a table; `None` without one.
    fn list(&self, table: &str, key: &str) -> Option<Vec<String>> {
        let document = DeTable::parse(split_mark(&self.after).1).ok()?;
        let value = document.get_ref().get(table)?.get_ref().as_table()?.get(key)?.get_ref();
        let texts = match value.as_array() {
            Some(array) => array.iter().map(|it| it.get_ref().as_str()).collect::<Option<Vec<_>>>(),
            None => value.as_str().map(|text| vec![text]),
        };
        Some(texts?.into_iter().map(str::to_owned).collect())
    }

    fn parsed(&self) -> Result<ConfigFile> {
        ConfigFile::parse(&self.path, &self.after, Secrets::Unneeded)
    }

    /// Returns the error about a file that is written in a way which cannot be changed key by key.
    fn refused(&self, table: &[&str], keys: &[(&str, String)]) -> anyhow::Error {
        let lines: Vec<_> = keys.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        let (table, lines) = (table.join("."), lines.join(", "));
        let values: [&dyn Display; 3] = [&self.path.display(), &table, &lines];
        Exit::Usage.error(messages::KEYS_NOT_SET.with(values))
    }
}

/// Returns the error about a file that another program has changed since it was read.
pub(crate) fn changed_meanwhile(path: &Path) -> anyhow::Error {
    Exit::Failure.error(messages::CHANGED_MEANWHILE.with([&path.display()]))
}

/// Returns a text as a TOML value.
pub(crate) fn text(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted += &format!("\\u{:04x}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// Returns texts as a TOML value: a list.
fn list(texts: &[String]) -> String {
    let texts: Vec<_> = texts.iter().map(|it| text(it)).collect();
    format!("[{}]", texts.join(", "))
}

/// Splits off the byte order mark.
fn split_mark(text: &str) -> (&str, &str) {
    let body = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    text.split_at(text.len() - body.len())
}

/// Returns which bytes of `text` to replace, and by what, so that the key of the table at the path `table` has this `value`. `None` if the table
/// is written in a way that leaves no place for it, or if a comment would be lost.
fn change(text: &str, table: &[&str], key: &str, value: &str) -> Option<(Range<usize>, String)> {
    let end = line_end(text);
    let document = DeTable::parse(text).ok()?;
    let (mut entries, mut at) = (document.get_ref(), None);
    for part in table {
        match entries.get(*part) {
            Some(found) => (entries, at) = (found.get_ref().as_table()?, Some(found.span().start)),
            None => {
                let last_end = if text.is_empty() || text.ends_with('\n') { "" } else { end };
                let gap = if text.is_empty() { "" } else { end };
                let header = format!("{last_end}{gap}[{}]{end}", table.join("."));
                return Some((text.len()..text.len(), format!("{header}{key} = {value}{end}")));
            }
        }
    }
    if let Some(found) = entries.get(key) {
        let old = text.get(found.span())?;
        return (!old.contains('#')).then(|| (found.span(), value.to_owned()));
    }
    let at = at?;
    match text.as_bytes().get(at)? {
        b'[' => {
            let line = text[at..].find('\n').map(|length| at + length + 1);
            let (at, last_end) = line.map_or((text.len(), end), |at| (at, ""));
            Some((at..at, format!("{last_end}{key} = {value}{end}")))
        }
        b'{' => {
            let comma = if entries.is_empty() { "" } else { "," };
            Some((at + 1..at + 1, format!(" {key} = {value}{comma}")))
        }
        _ => None,
    }
}

/// Returns where the line of a key begins, if nothing else is on it; `None` if there is no such line.
fn line_of_key(text: &str, table: &[&str], key: &str) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let mut entries = document.get_ref();
    for part in table {
        entries = entries.get(*part)?.get_ref().as_table()?;
    }
    let (found, value) = entries.iter().find(|(it, _)| it.get_ref().as_ref() == key)?;
    let start = text[..found.span().start].rfind('\n').map_or(0, |at| at + 1);
    let is_alone = text[start..found.span().start].trim().is_empty();
    (is_alone && !text[value.span()].contains('\n')).then_some(start)
}

/// Returns the line end of a text.
fn line_end(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

/// Returns an account without the lines at which it stands.
fn without_lines(account: FileAccount) -> FileAccount {
    FileAccount { line: 0, appid_line: 0, secret_line: 0, key_line: 0, ..account }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(text: &str) -> ConfigEdit {
        let path = PathBuf::from("/d/wxtoken.toml");
        ConfigEdit { path, before: Some(text.to_owned()), after: text.to_owned() }
    }

    /// Sets the AppID of account `shop`, and returns the text.
    fn with_appid(before: &str) -> Result<String, String> {
        let mut edit = edit(before);
        let set = edit.set_account("shop", &[("appid", text("wx2"))]);
        set.map(|()| edit.after).map_err(|err| err.to_string())
    }

    #[test]
    fn a_new_account_comes_last_and_nothing_else_changes() {
        for (before, after) in [
            ("", "[account.shop]\nappid = \"wx2\"\n"),
            ("# mine\n", "# mine\n\n[account.shop]\nappid = \"wx2\"\n"),
            ("dir = 'x' # no end", "dir = 'x' # no end\n\n[account.shop]\nappid = \"wx2\"\n"),
            (
                "[account.a]\r\nappid = 'wx1'\r\n",
                "[account.a]\r\nappid = 'wx1'\r\n\r\n[account.shop]\r\nappid = \"wx2\"\r\n",
            ),
            (
                "\u{feff}account.a.appid = 'wx1'\n[serve]\n",
                "\u{feff}account.a.appid = 'wx1'\n[serve]\n\n[account.shop]\nappid = \"wx2\"\n",
            ),
        ] {
            assert_eq!(with_appid(before).as_deref(), Ok(after), "{before}");
        }
    }

    #[test]
    fn a_value_is_replaced_where_it_stands_and_a_key_is_added_below_its_header() {
        for (before, after) in [
            (
                "# a\n[account.shop] # b\n  appid  =  'wx1'  # c\n\n# d\n[serve]\n",
                "# a\n[account.shop] # b\n  appid  =  \"wx2\"  # c\n\n# d\n[serve]\n",
            ),
            ("account.shop.appid = 'wx1'\n", "account.shop.appid = \"wx2\"\n"),
            ("[account]\nshop = { appid = 'wx1' }\n", "[account]\nshop = { appid = \"wx2\" }\n"),
            (
                "\u{feff}[account.\"shop\"]\r\nappid='wx1'",
                "\u{feff}[account.\"shop\"]\r\nappid=\"wx2\"",
            ),
        ] {
            assert_eq!(with_appid(before).as_deref(), Ok(after), "{before}");
        }
        for (before, after) in [
            (
                "[account.shop] # b\nappid = 'wx1'\n",
                "[account.shop] # b\napi = \"work\"\nappid = 'wx1'\n",
            ),
            (
                "account.shop = {appid = 'wx1'}\n",
                "account.shop = { api = \"work\",appid = 'wx1'}\n",
            ),
        ] {
            let mut edit = edit(before);
            edit.set_account("shop", &[("api", text("work"))]).unwrap();
            assert_eq!(edit.after, after);
        }
    }

    #[test]
    fn a_file_that_leaves_no_place_is_refused_with_what_to_write() {
        for before in ["account = { a = { appid = 'wx1' } }\n", "account.shop.appid = 'wx1'\n"] {
            let mut edit = edit(before);
            let keys = [("appid", text("wx2")), ("api", text("work"))];
            let err = edit.set_account("shop", &keys).unwrap_err();
            assert_eq!(Exit::from_error(&err), Exit::Usage);
            let err = err.to_string();
            assert!(
                err.contains("Make it say in [account.shop]: appid = \"wx2\", api = \"work\""),
                "{err}"
            );
            assert_eq!(edit.after, before);
        }
    }

    #[test]
    fn addresses_are_added_to_those_that_are_allowed_and_the_one_to_listen_on_is_replaced() {
        let addresses = |it: &[&str]| it.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        for (before, after) in [
            ("", "[serve]\nlisten = [\"10.0.0.5:7200\"]\n"),
            ("[serve]\nlisten = '10.0.0.5:7200'\n", "[serve]\nlisten = '10.0.0.5:7200'\n"),
            ("[serve]\nlisten = '[::]:80' # x\n", "[serve]\nlisten = [\"10.0.0.5:7200\"] # x\n"),
        ] {
            let mut edit = edit(before);
            edit.serve(&addresses(&["10.0.0.5:7200"]), &[]).unwrap();
            assert_eq!(edit.after, after);
        }
        let allow = addresses(&["10.0.0.0/8", "::1"]);
        for (before, after) in [
            ("allow = '127.0.0.1'", "allow = [\"127.0.0.1\", \"10.0.0.0/8\", \"::1\"]"),
            ("allow = ['::1', '10.0.0.0/8']", "allow = ['::1', '10.0.0.0/8']"),
        ] {
            let mut edit = edit(&format!("[serve]\n{before}\n"));
            edit.serve(&[], &allow).unwrap();
            assert_eq!(edit.after, format!("[serve]\n{after}\n"));
        }
        // A comment inside is not lost.
        let mut edit = edit("[serve]\nallow = [\n  '127.0.0.1', # this host\n]\n");
        let err = edit.serve(&[], &allow).unwrap_err().to_string();
        assert!(err.contains("10.0.0.0/8"), "{err}");
    }

    #[test]
    fn a_key_that_stands_alone_on_its_line_becomes_a_comment() {
        let mut there = edit("[account.shop]\nappid = 'wx1'\n  secret_file = 'x' # y\n");
        there.comment_out("shop", "secret_file").unwrap();
        assert_eq!(there.after, "[account.shop]\nappid = 'wx1'\n#  secret_file = 'x' # y\n");
        let mut inline = edit("account.shop = { appid = 'wx1', secret_file = 'x' }\n");
        assert!(inline.comment_out("shop", "secret_file").is_err());
    }

    #[test]
    fn a_value_that_is_wrong_is_reported_and_changes_nothing() {
        let mut edit = edit("[account.a]\nappid = 'wx2'\n");
        let err = edit.set_account("shop", &[("appid", text("wx2"))]).unwrap_err();
        assert!(err.to_string().contains("the same appid and api as account a"), "{err}");
        assert_eq!(edit.after, "[account.a]\nappid = 'wx2'\n");
        assert_eq!(text("a\"b\\c\n"), "\"a\\\"b\\\\c\\u000a\"");
    }
}
