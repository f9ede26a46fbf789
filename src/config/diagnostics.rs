//! Collects what is wrong with a config file, by line and key. No message repeats a value, or a name that does not look
//! like a key's: it may be a secret in the wrong place. Does not know what keys mean.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Range;

use toml::de::Error;

/// The length of the longest name that is shown or corrected, in bytes. No key has a longer one; a longer word may be a
/// secret.
const MAX_NAME: usize = 28;

/// The problems of one file.
pub(super) struct Diagnostics<'t> {
    /// The file's name in messages.
    file_name: &'t str,
    /// The offset of each line, in bytes.
    line_starts: Vec<usize>,
    /// Lines that are not TOML. What the parser recovered from them is not reported again.
    syntax_error_lines: BTreeSet<usize>,
    problems: RefCell<BTreeSet<(usize, String)>>,
}

impl<'t> Diagnostics<'t> {
    /// Starts with the parser's errors about `text`.
    pub(super) fn new(file_name: &'t str, text: &str, errors: Vec<Error>) -> Diagnostics<'t> {
        let starts = text.match_indices('\n').map(|(offset, _)| offset + 1);
        let mut diagnostics = Diagnostics {
            file_name,
            line_starts: std::iter::once(0).chain(starts).collect(),
            syntax_error_lines: BTreeSet::new(),
            problems: RefCell::default(),
        };
        for error in errors {
            let line = diagnostics.line_of(error.span().unwrap_or_default());
            // The parser's messages quote nothing of what it reads.
            diagnostics.problems.get_mut().insert((line, error.message().to_owned()));
            diagnostics.syntax_error_lines.insert(line);
        }
        diagnostics
    }

    /// Adds a problem with what is at the key path `path`.
    pub(super) fn report(&self, line: usize, path: &str, what: &str) {
        if !self.syntax_error_lines.contains(&line) {
            self.problems.borrow_mut().insert((line, format!("{path}: {what}")));
        }
    }

    /// Whether anything was reported.
    pub(super) fn has_problems(&self) -> bool {
        !self.problems.borrow().is_empty()
    }

    /// Whether the whole file is TOML. If not, a key that seems missing may be in a part that was not understood.
    pub(super) fn is_toml(&self) -> bool {
        self.syntax_error_lines.is_empty()
    }

    /// Returns all problems in the order of their lines, each as a message.
    pub(super) fn into_problems(self) -> Vec<String> {
        let file_name = self.file_name;
        let problems = self.problems.into_inner().into_iter();
        problems.map(|(line, what)| format!("{file_name}:{line}: {what}")).collect()
    }

    /// Returns the line where a span begins, counted from 1.
    pub(super) fn line_of(&self, span: Range<usize>) -> usize {
        self.line_starts.partition_point(|start| *start <= span.start)
    }
}

/// Returns `name` if it looks like a key's, else a placeholder. Any other name may be a secret, and its line is enough to
/// find it.
pub(super) fn displayed(name: &str) -> &str {
    let is_plain = |byte: u8| byte.is_ascii_alphabetic() || matches!(byte, b'-' | b'_');
    let is_shown = (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(is_plain);
    if is_shown { name } else { "[…]" }
}

/// Returns the one of `known` that `name` is probably a misspelling of.
pub(super) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    if name.len() > MAX_NAME {
        return None;
    }
    let name = name.to_ascii_lowercase().replace('-', "_");
    let by_distance =
        known.iter().map(|known| (strsim::levenshtein(&name, known), Reverse(known.len()), *known));
    let (distance, _, nearest) = by_distance.min()?;
    (distance <= nearest.len() / 3 && distance <= 2).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_is_corrected_and_a_different_one_is_not() {
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
