//! Collects what is wrong with a config file, by line and key. No message repeats a value, or a name that does not look
//! like a key's: it may be a secret in the wrong place. Does not know what keys mean.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;

use toml::de::Error;

use super::messages;
use crate::cli::spelling::MAX_NAME;

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
            let what = messages::NOT_TOML.first([&error.message()]);
            diagnostics.problems.get_mut().insert((line, what));
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
