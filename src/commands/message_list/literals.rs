//! What stands in the sources beside the tables: texts in both languages that are parts of messages, and the words of Chinese
//! texts.

use std::fs;
use std::path::PathBuf;

use super::{code_of, root};

/// Words around an entry or a cause, in which what to do is.
const PART: &str = "a part of a message, whose action is that of an entry or of its cause";
/// What a person reads while a command works; nothing failed.
const SCREEN: &str = "what a terminal shows while a command works";
/// The name of a thing, for a message about it.
const NAME: &str = "the name of a thing, or of a kind of value";

/// Where a text in both languages is made without a table, how many, and of which kind they are.
const BESIDE_TABLES: &[(&str, usize, &str)] = &[
    ("cli/settings.rs", 4, PART),
    ("commands/ca/mod.rs", 2, PART),
    ("commands/documents.rs", 1, PART),
    ("commands/fetch.rs", 2, PART),
    ("commands/parallel.rs", 2, SCREEN),
    ("commands/serve.rs", 3, PART),
    ("commands/setup/cron.rs", 1, NAME),
    ("commands/setup/env_file.rs", 1, PART),
    ("commands/setup/mod.rs", 11, SCREEN),
    ("commands/setup/report.rs", 14, SCREEN),
    ("commands/setup/step.rs", 8, PART),
    ("commands/setup/units.rs", 2, SCREEN),
    ("config/file.rs", 3, PART),
    ("config/mod.rs", 3, PART),
    ("config/table.rs", 13, NAME),
    ("log.rs", 1, PART),
    ("model/address/listen.rs", 1, NAME),
    ("model/errcode/mod.rs", 1, PART),
    ("os/descriptors/shortage.rs", 1, PART),
    ("os/file/atomic.rs", 11, PART),
    ("os/file/atomic/names.rs", 4, PART),
    ("os/file/lock.rs", 2, PART),
    ("os/file/read.rs", 1, PART),
    ("os/hook.rs", 8, PART),
    ("refresh/error.rs", 1, PART),
    ("refresh/trouble.rs", 1, PART),
    ("server/access/allowlist.rs", 1, NAME),
    ("server/access/host.rs", 1, NAME),
    ("server/access/line_file.rs", 4, PART),
    ("server/mod.rs", 1, PART),
    ("server/state/snapshot.rs", 2, NAME),
    ("server/transport/socket.rs", 1, PART),
    ("server/transport/tls/mod.rs", 2, NAME),
    ("store/preflight.rs", 6, PART),
    ("store/reader.rs", 3, PART),
    ("store/redis/fault.rs", 1, PART),
    ("store/redis/follower.rs", 1, PART),
    ("store/redis/lease.rs", 2, PART),
    ("store/redis/mod.rs", 2, PART),
    ("store/redis/server.rs", 6, PART),
    ("store/redis/value.rs", 1, PART),
    ("upstream/credentials.rs", 2, NAME),
    ("upstream/error.rs", 4, PART),
    ("upstream/mirror.rs", 1, PART),
    ("upstream/roots.rs", 1, PART),
];

/// Returns each source of the program, with its path in `src`. The stand-in for WeChat and the demo are for trying: what they say
/// is for this terminal.
pub(super) fn sources() -> Vec<(String, String)> {
    let (mut files, mut found) = (vec![root().join("src")], Vec::new());
    while let Some(path) = files.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            files.extend(entries.map(|it| it.unwrap().path()).collect::<Vec<PathBuf>>());
            continue;
        }
        let shown = path.strip_prefix(root().join("src")).unwrap().display().to_string();
        let is_trial =
            ["commands/demo", "commands/mock", "mock/"].iter().any(|it| shown.starts_with(it));
        if !is_trial && !shown.contains("tests") && !shown.contains("message_list") {
            found.push((shown, code_of(&fs::read_to_string(&path).unwrap())));
        }
    }
    found.sort();
    found
}

#[test]
fn every_text_in_both_languages_is_in_a_table_or_a_counted_part() {
    let makers = ["in_both(", "bilingual!(", "cannot("];
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        if ["language.rs", "message/mod.rs"].contains(&&*file) {
            continue;
        }
        let code = code.lines().filter(|line| !line.trim_start().starts_with("use "));
        let count: usize =
            code.map(|line| makers.iter().map(|it| line.matches(it).count()).sum::<usize>()).sum();
        let expected = BESIDE_TABLES.iter().find(|(it, ..)| *it == file);
        if count != expected.map_or(0, |(_, count, _)| *count) {
            wrong.push(format!("(\"{file}\", {count}, …)"));
        }
    }
    assert!(wrong.is_empty(), "make it an entry of a table: {}", wrong.join(", "));
}

/// What may stand in a Chinese text of two English words and more: commands, and terms that have no Chinese name.
const ENGLISH_IN_CHINESE: [&str; 12] = [
    "component token",
    "core dump",
    "ip addr",
    "openssl pkey",
    "refresh token",
    "sudo loginctl",
    "sudo usermod",
    "systemctl disable",
    "systemctl edit",
    "wxtoken ca",
    "wxtoken check",
    "wxtoken fetch",
];

/// The verbs of this program, which stand in commands.
const VERBS: [&str; 10] =
    ["setup", "fetch", "get", "serve", "key", "sign", "status", "mock", "demo", "help"];

/// Returns the string literals of some code, with their lines joined.
fn literals(code: &str) -> Vec<String> {
    let (mut found, mut inside, mut literal) = (Vec::new(), false, String::new());
    let mut rest = code.chars().peekable();
    while let Some(c) = rest.next() {
        match (inside, c) {
            (false, '\'') if rest.peek() == Some(&'"') => drop(rest.next()),
            (false, '"') => inside = true,
            (false, _) => {}
            (true, '"') => {
                inside = false;
                found.push(std::mem::take(&mut literal));
            }
            (true, '\\') => match rest.next() {
                Some('\n') => while rest.next_if(|c| c.is_whitespace()).is_some() {},
                Some(_) => literal.push('\\'),
                None => {}
            },
            (true, c) => literal.push(c),
        }
    }
    found
}

#[test]
fn no_chinese_text_has_english_words_but_for_names_and_commands() {
    let is_chinese = |c: char| ('\u{4e00}'..='\u{9fff}').contains(&c);
    let mut wrong = Vec::new();
    for (file, code) in sources() {
        // English that names Chinese menus.
        let chinese = literals(&code)
            .into_iter()
            .filter(|it| it.contains(is_chinese) && !it.starts_with("It is "));
        for text in chinese {
            // Values stand for themselves.
            let text: String =
                text.split('{').map(|it| it.split_once('}').map_or(it, |it| it.1)).collect();
            let mut words: Vec<&str> = Vec::new();
            for word in text.split(' ').chain([""]) {
                // A word of English alone: no flag, path, key or name of a file.
                let end = word.trim_end_matches(['`', '。', '，', '：']);
                let start = word.rsplit(is_chinese).next().unwrap_or_default();
                let begin = start.trim_start_matches(['`', '（', '：', '；', '，', '。', '“']);
                let is_word = |it: &str| it.len() > 1 && it.bytes().all(|c| c.is_ascii_lowercase());
                if !words.is_empty() && is_word(end) {
                    words.push(end);
                    continue;
                }
                let known = words.join(" ");
                let is_known = words.len() < 2
                    || ENGLISH_IN_CHINESE.contains(&&*known)
                    || (words[0] == "wxtoken" && VERBS.contains(&words[1]) && words.len() == 2);
                if !is_known {
                    wrong.push(format!("{file}: {known}: {text}"));
                }
                words = if is_word(begin) { vec![begin] } else { Vec::new() };
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
