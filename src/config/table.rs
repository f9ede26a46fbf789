//! Reads a TOML document key by key, each value as the type that it should have. Reports values of other types and keys
//! that are not known. Does not know what keys mean.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostics::{Diagnostics, displayed};
use super::{faults, messages};
use crate::cli::spelling::nearest;
use crate::cli::values;
use crate::language::{bilingual, in_both};
use crate::message::listed;
use crate::model::secret;

/// Parses `text` and reads its top table with `read`. Messages call the file `file_name`; relative paths in it begin at
/// `dir`. Returns what `read` made of it, and all problems.
pub(super) fn parse<'t, T>(
    file_name: &'t str,
    dir: &Path,
    text: &str,
    read: impl FnOnce(&mut Table<'_>) -> T,
) -> (T, Diagnostics<'t>) {
    let (document, errors) = DeTable::parse_recoverable(text);
    let diagnostics = Diagnostics::new(file_name, text, errors);
    let top = Table {
        diagnostics: &diagnostics,
        dir,
        path: String::new(),
        line: 1,
        entries: document.get_ref(),
        known: Vec::new(),
    };
    let made = top.read(read);
    (made, diagnostics)
}

/// A TOML table. Every key that is asked for counts as known; the others are reported.
pub(super) struct Table<'a> {
    diagnostics: &'a Diagnostics<'a>,
    dir: &'a Path,
    /// The keys that lead here, for messages.
    path: String,
    line: usize,
    entries: &'a DeTable<'a>,
    known: Vec<&'static str>,
}

impl<'a> Table<'a> {
    /// Returns what `read` makes of a key's value; `None` if the key is missing, or `read` fails, which is reported.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Value<'a>) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.find(key)?;
        read(self.value(value)).map_err(|what| self.report(key, &what)).ok()
    }

    /// Like [`Table::get`], and reports `what` if the key is missing.
    pub(super) fn require<T>(
        &mut self,
        key: &'static str,
        what: &str,
        read: impl FnOnce(Value<'a>) -> Result<T, String>,
    ) -> Option<T> {
        if !self.has(key) && self.diagnostics.is_toml() {
            self.diagnostics.report(self.line, &self.path, what);
        }
        self.get(key, read)
    }

    /// Returns what `read` makes of each value of a list. A single value stands for a list of one.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(Value<'a>) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let Some(DeValue::Array(array)) = self.entries.get(key).map(Spanned::get_ref) else {
            return self.get(key, read).map(|one| vec![one]);
        };
        self.mark_known(key);
        let mut made = Vec::new();
        for (index, entry) in array.iter().enumerate() {
            match read(self.value(entry)) {
                Ok(one) => made.push(one),
                Err(what) => {
                    let what = format!("entry {}: {what}", index + 1);
                    let line = self.diagnostics.line_of(entry.span());
                    self.diagnostics.report(line, &self.path_of(key), &what);
                }
            }
        }
        Some(made)
    }

    /// Like [`Table::list`], and reports an empty list.
    pub(super) fn nonempty_list<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(Value<'a>) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let list = self.list(key, read);
        let array = self.entries.get(key).and_then(|value| value.get_ref().as_array());
        if array.is_some_and(|array| array.is_empty()) {
            self.report(key, faults::EMPTY_LIST);
        }
        list
    }

    /// Returns what `read` makes of the table at a key.
    pub(super) fn table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Table<'a>) -> T,
    ) -> Option<T> {
        let value = self.find(key)?;
        let table = self.subtable(self.path_of(key), value.span(), value, &format!("[{key}]"));
        table.map(|table| table.read(read))
    }

    /// Returns what `read` makes of each table in the table at a key, with its name, which the user chose. A name that
    /// `check_name` refuses is reported, and its table left out.
    pub(super) fn named_tables<T>(
        &mut self,
        key: &'static str,
        check_name: impl Fn(&str) -> Result<(), &'static str>,
        read: impl Fn(&str, &mut Table<'a>) -> T,
    ) -> Vec<T> {
        let (Some(value), example) = (self.find(key), format!("[{key}.shop]")) else {
            return Vec::new();
        };
        let Some(outer) = self.subtable(self.path_of(key), value.span(), value, &example) else {
            return Vec::new();
        };
        let mut made = Vec::new();
        for (name, value) in outer.entries {
            let checked = check_name(name.get_ref());
            let shown = match checked {
                Ok(()) => name.get_ref().as_ref(),
                Err(_) => displayed(name.get_ref()),
            };
            let path = format!("{}.{shown}", outer.path);
            if let Err(what) = checked {
                self.diagnostics.report(self.diagnostics.line_of(name.span()), &path, what);
            }
            // The table of a refused name is read all the same, for its problems.
            if let Some(table) = self.subtable(path, name.span(), value, &example) {
                let one = table.read(|table| read(name.get_ref(), table));
                made.extend(checked.is_ok().then_some(one));
            }
        }
        made
    }

    /// Returns what `read` makes of each table in the list at a key.
    pub(super) fn table_list<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl Fn(&mut Table<'a>) -> T,
    ) -> Vec<T> {
        let Some(value) = self.find(key) else { return Vec::new() };
        let DeValue::Array(array) = value.get_ref() else {
            let expected =
                in_both(format!("a list like [{example}]"), format!("列表，如 [{example}]"));
            self.report(key, &unexpected(&expected, value.get_ref()));
            return Vec::new();
        };
        let tables = array.iter().enumerate().filter_map(|(index, entry)| {
            let path = format!("{}: entry {}", self.path_of(key), index + 1);
            let table = self.subtable(path, entry.span(), entry, example)?;
            Some(table.read(&read))
        });
        tables.collect()
    }

    /// Whether the table has this key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Whether the table has no keys.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Counts a key as known without reading it, because the caller reports it.
    pub(super) fn mark_known(&mut self, key: &'static str) {
        self.known.push(key);
    }

    /// Reports a problem with a key.
    pub(super) fn report(&self, key: &str, what: &str) {
        self.diagnostics.report(self.line_of(key), &self.path_of(key), what);
    }

    /// Returns the line of a key, or of the table if it does not have the key.
    pub(super) fn line_of(&self, key: &str) -> usize {
        self.entries.get(key).map_or(self.line, |value| self.diagnostics.line_of(value.span()))
    }

    fn read<T>(mut self, read: impl FnOnce(&mut Table<'a>) -> T) -> T {
        let made = read(&mut self);
        self.report_unknown_keys();
        made
    }

    fn report_unknown_keys(self) {
        for key in self.entries.keys() {
            let name = key.get_ref().as_ref();
            if self.known.contains(&name) {
                continue;
            }
            let what = if let Some(near) = nearest(name, &self.known) {
                messages::MISSPELT_KEY.first([&near])
            } else if name.to_ascii_lowercase().contains("secret") {
                faults::SECRET_KEY.to_owned()
            } else {
                messages::UNKNOWN_KEY.first([&listed(&self.known, self.known.len())])
            };
            let line = self.diagnostics.line_of(key.span());
            self.diagnostics.report(line, &self.path_of(displayed(name)), &what);
        }
    }

    fn find(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.entries.get(key)
    }

    /// Takes `value`, which is at `path`, as a table; reports it if it is something else.
    fn subtable(
        &self,
        path: String,
        span: Range<usize>,
        value: &'a Spanned<DeValue<'a>>,
        example: &str,
    ) -> Option<Table<'a>> {
        let line = self.diagnostics.line_of(span);
        let Some(entries) = value.get_ref().as_table() else {
            let expected = in_both(format!("a table like {example}"), format!("表，如 {example}"));
            self.diagnostics.report(line, &path, &unexpected(&expected, value.get_ref()));
            return None;
        };
        let Table { diagnostics, dir, .. } = *self;
        Some(Table { diagnostics, dir, path, line, entries, known: Vec::new() })
    }

    fn value(&self, value: &'a Spanned<DeValue<'a>>) -> Value<'a> {
        Value { value: value.get_ref(), dir: self.dir }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

/// A TOML value, to be read as the type that it should have.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    value: &'a DeValue<'a>,
    dir: &'a Path,
}

impl<'a> Value<'a> {
    /// Reads a string. Fails if it has the form of a secret.
    pub(super) fn text(self) -> Result<&'a str, String> {
        let text = self.secret_text()?;
        if secret::may_hold_secret(text) { Err(faults::LIKE_SECRET.to_owned()) } else { Ok(text) }
    }

    /// Reads a string that may hold a secret, and must not be shown.
    pub(super) fn secret_text(self) -> Result<&'a str, String> {
        self.value.as_str().ok_or_else(|| self.unexpected(A_STRING))
    }

    /// Reads a duration: a string such as `"90s"`, or a number of seconds.
    pub(super) fn duration(self) -> Result<Duration, String> {
        self.duration_by(values::parse_duration)
    }

    /// Reads a duration. Fails if it is zero.
    pub(super) fn positive_duration(self) -> Result<Duration, String> {
        self.duration_by(values::parse_positive_duration)
    }

    fn duration_by(self, parse: fn(&str) -> Result<Duration, String>) -> Result<Duration, String> {
        match self.value {
            DeValue::Integer(_) => parse(&self.integer()?.to_string()),
            DeValue::String(_) => parse(self.text()?),
            _ => Err(self.unexpected(A_DURATION)),
        }
    }

    /// Reads a path. A relative one begins at the file's directory.
    pub(super) fn path(self) -> Result<PathBuf, String> {
        // Refuses what has the form of a secret: later errors about the file show the whole path.
        let path = Path::new(self.text()?);
        if path.as_os_str().is_empty() {
            return Err(faults::EMPTY_PATH.to_owned());
        }
        if self.text()?.contains(char::is_control) {
            return Err(faults::CONTROL_IN_PATH.to_owned());
        }
        Ok(self.resolve(path))
    }

    /// Makes a relative path begin at the file's directory.
    pub(super) fn resolve(self, path: impl AsRef<Path>) -> PathBuf {
        self.dir.join(path)
    }

    /// Reads `true` or `false`.
    pub(super) fn boolean(self) -> Result<bool, String> {
        self.value
            .as_bool()
            .ok_or_else(|| self.unexpected(bilingual!("true or false", " true 或 false")))
    }

    /// Reads a whole number, in any of TOML's notations.
    pub(super) fn integer(self) -> Result<i64, String> {
        let integer = self
            .value
            .as_integer()
            .ok_or_else(|| self.unexpected(bilingual!("a whole number", "整数")))?;
        i64::from_str_radix(integer.as_str(), integer.radix())
            .map_err(|_| faults::LARGE_NUMBER.to_owned())
    }

    /// Whether the value is a whole number.
    pub(super) fn is_integer(self) -> bool {
        self.value.is_integer()
    }

    /// Returns the message about a value of another type than `expected`.
    pub(super) fn unexpected(self, expected: &str) -> String {
        unexpected(expected, self.value)
    }
}

const A_STRING: &str = bilingual!("a string in quotes", "带引号的字符串");

const A_DURATION: &str = bilingual!(
    "seconds as a whole number, or a string like \"90s\"",
    "整数秒数，或 \"90s\" 这样的字符串"
);

/// Returns the message about a value of another type than `expected`.
fn unexpected(expected: &str, found: &DeValue<'_>) -> String {
    let found = match found {
        DeValue::String(_) => bilingual!("a string", "字符串"),
        DeValue::Integer(_) => bilingual!("an integer", "整数"),
        DeValue::Float(_) => bilingual!("a float", "小数"),
        DeValue::Boolean(_) => bilingual!("a boolean", "布尔值"),
        DeValue::Datetime(_) => bilingual!("a datetime", "日期时间"),
        DeValue::Array(_) => bilingual!("an array", "数组"),
        DeValue::Table(_) => bilingual!("a table", "表"),
    };
    messages::UNEXPECTED.first([&expected, &found])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Language;

    fn is_name(name: &str) -> Result<(), &'static str> {
        if secret::may_hold_secret(name) { Err("no name") } else { Ok(()) }
    }

    fn problems_of(text: &str) -> Vec<String> {
        let read = |top: &mut Table<'_>| {
            top.get("name", Value::text);
            top.get("path", Value::path);
            top.get("number", Value::integer);
            top.list("words", Value::text);
            top.named_tables("account", is_name, |_, table| {
                table.require("appid", "no appid", Value::text).map(str::to_owned)
            });
        };
        let problems = parse("f", Path::new("/d"), text, read).1.into_problems();
        problems.iter().map(|it| Language::English.resolve(it).into_owned()).collect()
    }

    #[test]
    fn a_value_of_another_type_is_reported_with_its_line() {
        for (text, expected) in [
            ("name = 'x'\npath = 'a/b'\nnumber = 0x10\nwords = ['a', 'b']", &[][..]),
            ("words = 'a'", &[]),
            ("name = 1", &["f:1: name: Write a string in quotes: found an integer"]),
            ("\r\n\r\nname = 1.5", &["f:3: name: Write a string in quotes: found a float"]),
            ("path = ''", &["f:1: path: Write a path: it is empty"]),
            ("number = '1'", &["f:1: number: Write a whole number: found a string"]),
            (
                "number = 99999999999999999999",
                &["f:1: number: Write a smaller number: it is too large"],
            ),
            (
                "words = [\n'a',\n1,\n]",
                &["f:3: words: entry 2: Write a string in quotes: found an integer"],
            ),
            ("account = 1", &["f:1: account: Write a table like [account.shop]: found an integer"]),
            ("[[account]]", &["f:1: account: Write a table like [account.shop]: found an array"]),
            ("\n[account.a]", &["f:2: account.a: no appid"]),
            (
                "[account]\nb.appid = 1",
                &["f:2: account.b.appid: Write a string in quotes: found an integer"],
            ),
            ("nam = 1", &["f:1: nam: Correct the name: there is no such key; is it name?"]),
            ("Name = 1", &["f:1: Name: Correct the name: there is no such key; is it name?"]),
            (
                "z = 1",
                &[
                    "f:1: z: Correct it, or leave it out: there is no such key; there are name, path, number, words, account",
                ],
            ),
        ] {
            assert_eq!(problems_of(text), expected, "{text}");
        }
    }

    #[test]
    fn syntax_errors_are_reported_together_with_the_problems_of_other_lines() {
        for (text, expected) in [
            (
                "name = x",
                &[
                    "f:1: Correct the line: this is not TOML: string values must be quoted, expected literal string",
                ][..],
            ),
            ("name = 'a'\nname = 'b'", &["f:2: Correct the line: this is not TOML: duplicate key"]),
            // What was recovered from a broken line is not reported, and a missing key may be in it.
            (
                "number = x\n[account.a]\nappid 'wx1'",
                &[
                    "f:1: Correct the line: this is not TOML: string values must be quoted, expected literal string",
                    "f:3: Correct the line: this is not TOML: key with no value, expected `=`",
                ],
            ),
            (
                "name = 1\n[account.a",
                &[
                    "f:1: name: Write a string in quotes: found an integer",
                    "f:2: Correct the line: this is not TOML: unclosed table, expected `]`",
                ],
            ),
        ] {
            assert_eq!(problems_of(text), expected, "{text}");
        }
    }

    #[test]
    fn no_problem_shows_a_secret_wherever_it_is() {
        let secret = "5ec2e75ec2e75ec2e75ec2e75ec2e75e";
        for text in [
            "name = '{}'",
            "name = 'https://x/?secret={}'",
            "name = {}",
            "name = '{}",
            "path = '/etc/{}'",
            "words = '{}'",
            "words = ['a', '{}']",
            "words = [['{}']]",
            "number = '{}'",
            "account = '{}'",
            "[account.{}]",
            "[account.'{} ']\nx = 1",
            "[account.a.{}]",
            "[account.a]\nappid = ['{}']",
            "{} = 1",
            "'{} ' = 1",
            "{}",
            "[{}]",
            "name.{} = 1",
            "secret = '{}'",
            "AppSecret = '{}'",
        ] {
            let problems = problems_of(&text.replace("{}", secret));
            assert!(!problems.is_empty(), "{text}");
            assert!(!problems.join("\n").contains(secret), "{text}: {problems:?}");
        }
    }

    #[test]
    fn no_truncation_and_no_flipped_bit_panics() {
        let whole =
            "name = 'a'\nwords = [\"b\", 'c']\n[account.shop]\nappid = 'wx1' # it\n[account.'x']\n";
        for cut in (0..whole.len()).filter(|cut| whole.is_char_boundary(*cut)) {
            let _ = problems_of(&whole[..cut]);
            for bit in 0..7 {
                let mut bytes = whole.as_bytes().to_vec();
                bytes[cut] ^= 1 << bit;
                let _ = problems_of(&String::from_utf8(bytes).unwrap());
            }
        }
        assert_eq!(problems_of(whole), ["f:5: account.x: no appid"]);
        assert!(!problems_of(&"[".repeat(100_000)).is_empty());
    }
}
