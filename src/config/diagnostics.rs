//! A TOML file, read key by key: what is there, and every problem at once, each with its line and key. No problem repeats
//! a value, or a name that is not plainly one: somebody may have put a secret there. Knows nothing of what keys mean.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::cli::values;
use crate::model::secret;

/// No key has a longer name; whatever is longer may be a secret.
const LONGEST_NAME: usize = 28;

/// A file's text, and what is wrong with it.
pub(super) struct Sheet<'t> {
    /// What people call the file.
    name: &'t str,
    /// Where its relative paths begin.
    dir: &'t Path,
    /// Where its lines begin.
    lines: Vec<usize>,
    /// The lines that are not TOML: what was made of them all the same is nobody's problem.
    broken: BTreeSet<usize>,
    problems: RefCell<BTreeSet<(usize, String)>>,
}

impl<'t> Sheet<'t> {
    /// Reads the text of the file called `name`, and hands its top table to `read`; what that made of it, and the sheet
    /// with all problems on it.
    pub(super) fn read<T>(
        name: &'t str,
        dir: &'t Path,
        text: &'t str,
        read: impl FnOnce(&mut Table<'_>) -> T,
    ) -> (T, Sheet<'t>) {
        let (document, errors) = DeTable::parse_recoverable(text);
        let starts = text.match_indices('\n').map(|(at, _)| at + 1);
        let mut sheet = Sheet {
            name,
            dir,
            lines: std::iter::once(0).chain(starts).collect(),
            broken: BTreeSet::new(),
            problems: RefCell::default(),
        };
        for error in errors {
            let line = sheet.line(error.span().unwrap_or_default());
            // The parser's words are its own: it quotes nothing of what it reads.
            sheet.problems.get_mut().insert((line, error.message().to_owned()));
            sheet.broken.insert(line);
        }
        let top = Table {
            sheet: &sheet,
            path: String::new(),
            line: 1,
            entries: document.get_ref(),
            known: Vec::new(),
        };
        let made = top.read(read);
        (made, sheet)
    }

    /// All problems, in the order of their lines.
    pub(super) fn into_problems(self) -> Vec<String> {
        let name = self.name;
        let problems = self.problems.into_inner().into_iter();
        problems.map(|(line, what)| format!("{name}:{line}: {what}")).collect()
    }

    pub(super) fn has_problems(&self) -> bool {
        !self.problems.borrow().is_empty()
    }

    fn line(&self, span: Range<usize>) -> usize {
        self.lines.partition_point(|start| *start <= span.start)
    }

    /// Tells a problem with what stands at `path`.
    pub(super) fn tell(&self, line: usize, path: &str, what: &str) {
        if !self.broken.contains(&line) {
            self.problems.borrow_mut().insert((line, format!("{path}: {what}")));
        }
    }
}

/// A table. Whatever is asked of it is known to be a key of it; the rest is a problem.
pub(super) struct Table<'a> {
    sheet: &'a Sheet<'a>,
    path: String,
    line: usize,
    entries: &'a DeTable<'a>,
    known: Vec<&'static str>,
}

impl<'a> Table<'a> {
    /// What `read` makes of a key's value; `None` where there is none, or where that is a problem.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Value<'a>) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.find(key)?;
        match read(self.value(value)) {
            Ok(made) => Some(made),
            Err(what) => {
                self.tell(key, &what);
                None
            }
        }
    }

    /// The same of a key that has to be there; `what` says so where it is not.
    pub(super) fn need<T>(
        &mut self,
        key: &'static str,
        what: &str,
        read: impl FnOnce(Value<'a>) -> Result<T, String>,
    ) -> Option<T> {
        // In a file that is not TOML it may be there.
        if !self.entries.contains_key(key) && self.sheet.broken.is_empty() {
            self.sheet.tell(self.line, &self.path, what);
        }
        self.get(key, read)
    }

    /// What `read` makes of each value of a list, or of the one value that stands for a list of one.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(Value<'a>) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let value = self.find(key)?;
        let DeValue::Array(array) = value.get_ref() else {
            return match read(self.value(value)) {
                Ok(one) => Some(vec![one]),
                Err(what) => {
                    self.tell(key, &what);
                    None
                }
            };
        };
        let mut made = Vec::new();
        for (place, entry) in array.iter().enumerate() {
            match read(self.value(entry)) {
                Ok(one) => made.push(one),
                Err(what) => {
                    let what = format!("entry {}: {what}", place + 1);
                    self.sheet.tell(self.sheet.line(entry.span()), &self.path_of(key), &what);
                }
            }
        }
        Some(made)
    }

    /// The same of a list in which there has to be something.
    pub(super) fn filled_list<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(Value<'a>) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let list = self.list(key, read);
        if self
            .entries
            .get(key)
            .is_some_and(|it| it.get_ref().as_array().is_some_and(|it| it.is_empty()))
        {
            self.tell(key, "is empty; put something in it, or leave it out");
        }
        list
    }

    /// The table of this name, read by `read`.
    pub(super) fn table<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Table<'a>) -> T,
    ) -> Option<T> {
        let value = self.find(key)?;
        let table = self.inner(self.path_of(key), value.span(), value, &format!("[{key}]"));
        table.map(|table| table.read(read))
    }

    /// The tables in the one of this name, under names that the user chose. One whose name is none, as `is_name` says, is
    /// a problem, and is left out.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        is_name: impl Fn(&str) -> Result<(), &'static str>,
        read: impl Fn(&str, &mut Table<'a>) -> T,
    ) -> Vec<T> {
        let (Some(value), like) = (self.find(key), format!("[{key}.shop]")) else {
            return Vec::new();
        };
        let Some(outer) = self.inner(self.path_of(key), value.span(), value, &like) else {
            return Vec::new();
        };
        let mut made = Vec::new();
        for (name, value) in outer.entries {
            let fault = is_name(name.get_ref()).err();
            let shown = match fault {
                None => name.get_ref().as_ref(),
                Some(_) => shown(name.get_ref()),
            };
            let path = format!("{}.{shown}", outer.path);
            if let Some(fault) = fault {
                self.sheet.tell(self.sheet.line(name.span()), &path, fault);
            }
            if let Some(table) = self.inner(path, name.span(), value, &like) {
                let one = table.read(|table| read(name.get_ref(), table));
                made.extend(fault.is_none().then_some(one));
            }
        }
        made
    }

    /// The tables in a list, each read by `read`.
    pub(super) fn rows<T>(
        &mut self,
        key: &'static str,
        like: &str,
        read: impl Fn(&mut Table<'a>) -> T,
    ) -> Vec<T> {
        let Some(value) = self.find(key) else { return Vec::new() };
        let DeValue::Array(array) = value.get_ref() else {
            let found = a(value.get_ref().type_str());
            self.tell(key, &format!("expected a list like [{like}], found {found}"));
            return Vec::new();
        };
        let rows = array.iter().enumerate().filter_map(|(place, row)| {
            let path = format!("{}: entry {}", self.path_of(key), place + 1);
            let table = self.inner(path, row.span(), row, like)?;
            Some(table.read(&read))
        });
        rows.collect()
    }

    /// Whether the key is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Whether nothing is said in it.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// A key of which all that is to be said is said elsewhere.
    pub(super) fn know(&mut self, key: &'static str) {
        self.known.push(key);
    }

    /// Tells a problem of a key that is there.
    pub(super) fn tell(&self, key: &str, what: &str) {
        self.sheet.tell(self.line_of(key), &self.path_of(key), what);
    }

    /// The line of a key that is there, else of the table.
    pub(super) fn line_of(&self, key: &str) -> usize {
        self.entries.get(key).map_or(self.line, |value| self.sheet.line(value.span()))
    }

    fn read<T>(mut self, read: impl FnOnce(&mut Table<'a>) -> T) -> T {
        let made = read(&mut self);
        self.end();
        made
    }

    /// Tells of every key that nobody has asked for.
    fn end(self) {
        for key in self.entries.keys() {
            let name = key.get_ref().as_ref();
            if self.known.contains(&name) {
                continue;
            }
            let what = if let Some(near) = nearest(name, &self.known) {
                format!("there is no such key; is it {near}?")
            } else if name.to_ascii_lowercase().contains("secret") {
                "a secret has no place here: put it into a file with mode 0600, and name that in secret_file"
                    .to_owned()
            } else {
                format!("there is no such key; there are {}", self.known.join(", "))
            };
            self.sheet.tell(self.sheet.line(key.span()), &self.path_of(shown(name)), &what);
        }
    }

    fn find(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.entries.get(key)
    }

    fn inner(
        &self,
        path: String,
        span: Range<usize>,
        value: &'a Spanned<DeValue<'a>>,
        like: &str,
    ) -> Option<Table<'a>> {
        let line = self.sheet.line(span);
        let Some(entries) = value.get_ref().as_table() else {
            let found = value.get_ref().type_str();
            self.sheet.tell(
                line,
                &path,
                &format!("expected a table like {like}, found {}", a(found)),
            );
            return None;
        };
        Some(Table { sheet: self.sheet, path, line, entries, known: Vec::new() })
    }

    fn value(&self, value: &'a Spanned<DeValue<'a>>) -> Value<'a> {
        Value { value: value.get_ref(), dir: self.sheet.dir }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

/// A value, to be read as what it should be.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    value: &'a DeValue<'a>,
    dir: &'a Path,
}

impl<'a> Value<'a> {
    /// A text in which there is no secret.
    pub(super) fn text(self) -> Result<&'a str, String> {
        let text = self.secretive_text()?;
        if secret::may_hold_secret(text) { Err(A_SECRET.to_owned()) } else { Ok(text) }
    }

    /// A text in which there may be a password: it is not to be shown.
    pub(super) fn secretive_text(self) -> Result<&'a str, String> {
        self.value.as_str().ok_or_else(|| self.unexpected("a string in quotes"))
    }

    /// A duration as people write it; a bare number is seconds.
    pub(super) fn duration(self) -> Result<Duration, String> {
        match self.is_integer() {
            true => values::parse_duration(&self.integer()?.to_string()),
            false => values::parse_duration(self.text()?),
        }
    }

    /// The same, but not none at all.
    pub(super) fn some_duration(self) -> Result<Duration, String> {
        match self.duration()? {
            Duration::ZERO => Err("expected more than no time at all".to_owned()),
            some => Ok(some),
        }
    }

    /// A path; a relative one begins at the file's directory.
    pub(super) fn path(self) -> Result<PathBuf, String> {
        // It would be told with every error about the file, directories and all.
        let path = Path::new(self.text()?);
        if path.as_os_str().is_empty() {
            return Err("expected a path".to_owned());
        }
        Ok(self.beside(path))
    }

    /// The path, which begins at the file's directory if it is a relative one.
    pub(super) fn beside(self, path: impl AsRef<Path>) -> PathBuf {
        self.dir.join(path)
    }

    pub(super) fn flag(self) -> Result<bool, String> {
        self.value.as_bool().ok_or_else(|| self.unexpected("true or false"))
    }

    pub(super) fn integer(self) -> Result<i64, String> {
        let integer = self.value.as_integer().ok_or_else(|| self.unexpected("a whole number"))?;
        i64::from_str_radix(integer.as_str(), integer.radix())
            .map_err(|_| "the number is too large".to_owned())
    }

    /// What is said of a value of the wrong kind.
    pub(super) fn unexpected(self, expected: &str) -> String {
        format!("expected {expected}, found {}", a(self.value.type_str()))
    }

    pub(super) fn is_integer(self) -> bool {
        self.value.is_integer()
    }
}

const A_SECRET: &str = "this has the form of an AppSecret, which has no place here: put it into a file with mode 0600, \
                        and name that in secret_file";

/// A kind of value, with its article.
fn a(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {kind}")
}

/// A name that may be shown: one as keys have. Anything else may be a secret, and its line is enough to find it.
fn shown(name: &str) -> &str {
    let is_plain = |byte: u8| byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_');
    let is_shown = (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(is_plain);
    if is_shown { name } else { "[…]" }
}

/// The one of these that `name` is a misspelling of.
pub(super) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |name: &str| name.to_ascii_lowercase().replace('-', "_");
    let name = plain(name);
    let by_distance =
        known.iter().map(|known| (distance(&name, known), Reverse(known.len()), *known));
    let (distance, _, nearest) = by_distance.min()?;
    (distance <= nearest.len() / 3 && distance <= 2 && name.len() <= LONGEST_NAME)
        .then_some(nearest)
}

/// How many characters are to be put in, left out, or replaced to make one of the other.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_name(name: &str) -> Result<(), &'static str> {
        if secret::may_hold_secret(name) { Err("no name") } else { Ok(()) }
    }

    fn problems_of(text: &str) -> Vec<String> {
        let read = |top: &mut Table<'_>| {
            top.get("name", Value::text);
            top.get("path", Value::path);
            top.get("number", Value::integer);
            top.list("words", Value::text);
            top.tables("account", is_name, |_, table| {
                table.need("appid", "no appid", Value::text).map(str::to_owned)
            });
        };
        Sheet::read("f", Path::new("/d"), text, read).1.into_problems()
    }

    #[test]
    fn a_value_is_taken_for_what_it_is_and_its_line_is_told() {
        for (text, expected) in [
            ("name = 'x'\npath = 'a/b'\nnumber = 0x10\nwords = ['a', 'b']", &[][..]),
            ("words = 'a'", &[]),
            ("name = 1", &["f:1: name: expected a string in quotes, found an integer"]),
            ("\r\n\r\nname = 1.5", &["f:3: name: expected a string in quotes, found a float"]),
            ("path = ''", &["f:1: path: expected a path"]),
            ("number = '1'", &["f:1: number: expected a whole number, found a string"]),
            ("number = 99999999999999999999", &["f:1: number: the number is too large"]),
            (
                "words = [\n'a',\n1,\n]",
                &["f:3: words: entry 2: expected a string in quotes, found an integer"],
            ),
            (
                "account = 1",
                &["f:1: account: expected a table like [account.shop], found an integer"],
            ),
            (
                "[[account]]",
                &["f:1: account: expected a table like [account.shop], found an array"],
            ),
            ("\n[account.a]", &["f:2: account.a: no appid"]),
            (
                "[account]\nb.appid = 1",
                &["f:2: account.b.appid: expected a string in quotes, found an integer"],
            ),
            ("nam = 1", &["f:1: nam: there is no such key; is it name?"]),
            ("Name = 1", &["f:1: Name: there is no such key; is it name?"]),
            (
                "z = 1",
                &["f:1: z: there is no such key; there are name, path, number, words, account"],
            ),
        ] {
            assert_eq!(problems_of(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_toml_is_told_with_what_can_be_seen_beside_it() {
        for (text, expected) in [
            ("name = x", &["f:1: string values must be quoted, expected literal string"][..]),
            ("name = 'a'\nname = 'b'", &["f:2: duplicate key"]),
            // What was made of the broken line is nobody's problem, and what is missing may be in it.
            (
                "number = x\n[account.a]\nappid 'wx1'",
                &[
                    "f:1: string values must be quoted, expected literal string",
                    "f:3: key with no value, expected `=`",
                ],
            ),
            (
                "name = 1\n[account.a",
                &[
                    "f:1: name: expected a string in quotes, found an integer",
                    "f:2: unclosed table, expected `]`",
                ],
            ),
        ] {
            assert_eq!(problems_of(text), expected, "{text}");
        }
    }

    #[test]
    fn a_secret_is_shown_by_no_problem_wherever_it_stands() {
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
    fn every_truncation_and_flipped_byte_is_survived() {
        let whole =
            "name = 'a'\nwords = [\"b\", 'c']\n[account.shop]\nappid = 'wx1' # it\n[account.'x']\n";
        for cut in (0..whole.len()).filter(|cut| whole.is_char_boundary(*cut)) {
            let _ = problems_of(&whole[..cut]); // Any problems, no panic.
            for bit in 0..7 {
                let mut bytes = whole.as_bytes().to_vec();
                bytes[cut] ^= 1 << bit;
                let _ = problems_of(&String::from_utf8(bytes).unwrap());
            }
        }
        assert_eq!(problems_of(whole), ["f:5: account.x: no appid"]);
        assert!(!problems_of(&"[".repeat(100_000)).is_empty());
    }

    #[test]
    fn a_misspelt_name_is_near_to_what_was_meant_and_to_nothing_else() {
        let known = ["appid", "allow", "secret_file", "base_url"];
        for (name, expected) in [
            ("app_id", Some("appid")),
            ("APPID", Some("appid")),
            ("alow", Some("allow")),
            ("base-url", Some("base_url")),
            ("secretfile", Some("secret_file")),
            ("url", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(name, &known), expected, "{name}");
        }
        assert_eq!(nearest("x", &[]), None);
    }
}
