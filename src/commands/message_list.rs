//! The list of all messages, `docs/messages.md`: it is made from the tables that the program prints them from. Also finds
//! errors that are no entry of a table.

mod literals;
mod titles;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use crate::language::Language;
use crate::message::{NoteTemplate, Template};
use crate::model::errcode::table::{self, Meaning, Remedy};
use crate::os::fault;
use crate::upstream::error::{STAGES, StageRemedy};
use crate::{accounts, check, cli, config, model, os, refresh, scheduler, server, store, upstream};

/// Where errors are made without a table, how many, and why that is right.
const WITHOUT_TABLE: &[(&str, usize, &str)] = &[
    ("config/edit.rs", 1, "a fault of the program itself: the account has just been put in"),
    ("os/hook.rs", 1, "check says what to do about a hook"),
    ("server/gateway/body.rs", 1, "words of the connection, quoted by the gateway's own message"),
    (
        "server/gateway/connections/proxy.rs",
        10,
        "words of the proxy, quoted by the gateway's own message",
    ),
    (
        "server/transport/connection.rs",
        1,
        "a line of the log for each request, of names and numbers",
    ),
    ("store/file.rs", 1, "a fault of the program itself"),
    ("store/record.rs", 3, "logged with -vv only: the record is not needed"),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the tables of messages, each with what it is about.
fn tables() -> Vec<(&'static str, &'static [&'static Template])> {
    vec![
        ("Files", os::file::read::ALL),
        ("Publishing files", os::file::messages::ALL),
        ("The system's CA store", os::ca_store::ALL),
        ("Threads", os::thread::ALL),
        ("systemd", os::systemd::ALL),
        ("Hooks", os::hook::ALL),
        ("Stores", store::ALL),
        ("Verbs and their flags", super::messages::ALL),
        ("setup", super::setup::messages::ALL),
        ("Command line and config", config::messages::ALL),
        ("AppSecret and keys", upstream::credentials::ALL),
        ("Accounts", model::account::ALL),
        ("Directories", os::file::dir::ALL),
        ("Putting back", refresh::PUTTING_BACK_MESSAGES),
        ("Redis", store::REDIS_MESSAGES),
        ("Networks", model::address::network::ALL),
        ("Proxies of the environment", model::address::endpoint::ALL),
        ("Types of tickets", model::kind::ALL),
        ("Lines of the keys file", server::KEYS_MESSAGES),
        ("Trusted proxies", server::PROXY_MESSAGES),
        ("Access", server::ACCESS_MESSAGES),
        ("Certificates of serve", server::CERTIFICATE_MESSAGES),
        ("Refreshing", refresh::ALL),
        ("Events of serve --refresh", scheduler::EVENT_MESSAGES),
        ("Answers of WeChat, and no answers", upstream::error::ALL),
        ("Mirrors", upstream::mirror::ALL),
        ("Hosts files", upstream::client::ALL),
        ("Upstream", upstream::connect::ALL),
        ("CA files", upstream::roots::ALL),
        ("Listening", server::LISTENING_MESSAGES),
        ("Findings of check", check::messages::ALL),
        ("Documents that serve reads", accounts::messages::ALL),
        ("No token to hand out", scheduler::UNAVAILABLE_MESSAGES),
        ("Refusals by serve that name something", server::REFUSAL_MESSAGES),
        ("Clients and connections, in the log of serve", server::LOG_MESSAGES),
        ("Reloading", server::RELOAD_MESSAGES),
    ]
}

/// Returns the tables of notes, which ask for nothing, each with what it is about.
fn notes() -> Vec<(&'static str, &'static [&'static NoteTemplate])> {
    vec![
        ("Findings of check", check::messages::NOTES),
        ("What fetch says", super::messages::NOTES),
        ("Hooks", os::hook::NOTES),
        ("Why there was no answer", upstream::client::reasons::NOTES),
        ("Why a document is none", model::document::faults::NOTES),
        ("Reading again", server::RELOAD_NOTES),
        ("Ending", os::ending::NOTES),
        ("Documents that serve reads", accounts::messages::NOTES),
        ("Events of serve --refresh", scheduler::EVENT_NOTES),
        ("No token to hand out", scheduler::UNAVAILABLE_NOTES),
        ("Calls through the gateway", server::CALL_NOTES),
        ("Clients and connections, in the log of serve", server::LOG_NOTES),
    ]
}

/// Returns the tables of messages without values, each with what it is about.
fn texts() -> Vec<(&'static str, &'static [(&'static str, &'static str)])> {
    vec![
        ("Addresses", model::address::faults::ALL),
        ("Values of flags and keys", cli::values::ALL),
        ("Keys of the config", config::faults::ALL),
        ("Keys, their names and lines", model::client_key::ALL),
        ("What setup asks for", super::setup::input::ALL),
        ("Refusals by serve", server::REFUSALS),
        ("Calls that the gateway does not pass on", server::CALL_REFUSALS),
        ("Calls through the gateway without an answer", server::CALL_ERRORS),
        ("Pages for the JS-SDK", model::jssdk::faults::ALL),
        ("No token here", accounts::messages::TEXTS),
        ("No token yet", scheduler::UNAVAILABLE_TEXTS),
    ]
}

/// What the headings of notes begin with.
const NOTHING_TO_DO: &str = "Nothing to do 无须处理: ";

/// Returns what to do and what happened in the form in which they are printed, so that a search finds them.
fn as_printed((action, what): Remedy, stop: char, colon: &str) -> String {
    let action = &*Language::English.resolve(action); // Without the marks of commands.
    match action.strip_suffix(stop) {
        _ if what.is_empty() => action.to_owned(),
        Some(action) => format!("{action}{colon}{what}"),
        None if stop == '.' => format!("{action} {what}"),
        None => format!("{action}{what}"),
    }
}

/// Returns the list as it is to be in the documents.
fn list() -> String {
    let mut text = String::from(
        "# Messages\n\nWhat wxtoken says, in both languages: what to do, then what happened. `{0}`, `{1}` stand for values. \
         What the system, WeChat or another program said follows in brackets. What asks for nothing is at the end. Not listed: \
         tables and pages (`status`, `demo`, the page of `serve`), the steps of `setup`, the line of `-v` for each request, and \
         words that stand around an entry; nor the steps of the program and its libraries that `-vv` and `-vvv` trace, for reports \
         of faults, in English. Made from the program's tables by a test, and kept equal by it.\n\nwxtoken 的提示，中英文各一：先写怎么办，再写发生了什么。`{0}`、`{1}` 为具体值，方括号内是系统、\
         微信或其他程序的原文。无须处理的提示列在最后。未列出：表格与页面（`status`、`demo`、`serve` 的网页）、`setup` 的步骤、\
         `-v` 为每个请求输出的一行，以及提示前后的衔接文字；`-vv`、`-vvv` 输出程序与网络库的内部步骤，供报告问题时使用，只有英文。本表由测试根据程序中的表生成。\n",
    );
    let mut section = |title: &str, rows: &mut dyn Iterator<Item = [String; 3]>| {
        let title = match title.strip_prefix(NOTHING_TO_DO) {
            None => titles::in_both_languages(title),
            Some(title) => format!("{NOTHING_TO_DO}{}", titles::in_both_languages(title)),
        };
        let _ = write!(text, "\n## {title}\n\n| | English | 中文 |\n|---|---|---|\n");
        for [name, english, chinese] in rows {
            let cell = |text: &str| text.replace('|', "\\|");
            let _ = writeln!(text, "| {name} | {} | {} |", cell(&english), cell(&chinese));
        }
    };
    let fault = |row: &fault::Advice| {
        [format!("{:?}", row.kind), row.english.to_owned(), row.chinese.to_owned()]
    };
    section("Errors of the system", &mut fault::TABLE.iter().map(fault));
    let refusal = |row: &Meaning| {
        let codes: Vec<_> = row.codes.iter().map(ToString::to_string).collect();
        let codes = if codes.is_empty() { "others".to_owned() } else { codes.join(", ") };
        let english = as_printed(row.english, '.', ": ");
        [codes, english, as_printed(row.chinese, '。', "：")]
    };
    let mut refusals = table::TABLE.iter().chain([&table::UNKNOWN]).map(refusal);
    section("Refusals by WeChat", &mut refusals);
    let stage = |row: &StageRemedy| {
        [format!("{:?}", row.stage), row.english.to_owned(), row.chinese.to_owned()]
    };
    section("No answer", &mut STAGES.iter().map(stage));
    section("Mistakes on the command line", &mut cli::examples_of_mistakes().into_iter());
    for (title, templates) in tables() {
        let row = |it: &&Template| {
            let name = it.name.to_lowercase().replace('_', " ");
            let english = as_printed((it.english.action, it.english.what), '.', ": ");
            [name, english, as_printed((it.chinese.action, it.chinese.what), '。', "：")]
        };
        section(title, &mut templates.iter().map(row));
    }
    let refusal = |(name, text): &(&str, &str)| {
        let [english, chinese] =
            [Language::English, Language::Chinese].map(|it| it.resolve(text).into_owned());
        [name.to_lowercase().replace('_', " "), english, chinese]
    };
    for (title, texts) in texts() {
        section(title, &mut texts.iter().map(refusal));
    }
    for (title, notes) in notes() {
        let row = |it: &&NoteTemplate| {
            let name = it.name.to_lowercase().replace('_', " ");
            [name, it.english.to_owned(), it.chinese.to_owned()]
        };
        section(&format!("{NOTHING_TO_DO}{title}"), &mut notes.iter().map(row));
    }
    text
}

/// With WXTOKEN_TEST_WRITE set, writes it instead.
#[test]
fn the_list_of_messages_in_the_documents_is_that_of_the_program() {
    let path = root().join("docs/messages.md");
    if std::env::var_os("WXTOKEN_TEST_WRITE").is_some() {
        fs::write(&path, list()).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let expected = list();
    let differing = expected.lines().zip(found.lines().chain(["nothing"])).find(|(a, b)| a != b);
    assert!(found == expected, "run it with WXTOKEN_TEST_WRITE=1; {differing:?}");
}

#[test]
fn every_message_says_what_to_do_in_whole_sentences_and_in_both_languages() {
    let is_chinese = |c: char| ('\u{4e00}'..='\u{9fff}').contains(&c);
    for (title, templates) in tables() {
        for Template { name, english, chinese } in templates {
            assert!(english.action.ends_with(['.', '?']), "{title}: {name}: {}", english.action);
            assert!(chinese.action.ends_with(['。', '？']), "{title}: {name}: {}", chinese.action);
            assert!(
                english.action.starts_with(|c: char| c.is_ascii_uppercase()),
                "{title}: {name}"
            );
            for text in [english.action, english.what] {
                assert!(!text.contains(is_chinese), "{title}: {name}: {text}");
            }
            assert!(chinese.action.contains(is_chinese), "{title}: {name}: {}", chinese.action);
            assert!(
                !english.what.ends_with('.') && !chinese.what.ends_with('。'),
                "{title}: {name}"
            );
        }
    }
}

/// Returns what stands between two characters, wherever that is.
fn quoted(text: &str, [begin, end]: [char; 2]) -> Vec<&str> {
    let parts = text.split(begin).skip(1);
    let parts = parts.filter_map(|part| part.split_once(end).map(|it| it.0));
    parts.step_by(if begin == end { 2 } else { 1 }).collect()
}

#[test]
fn what_the_guide_to_troubleshooting_quotes_is_said_by_the_program() {
    // Of the system.
    let system = ["Connection refused", "timed out", "No space left on device"];
    let system = [&system[..], &["Read-only file system", "Permission denied"]].concat();
    let sources: String = literals::sources().into_iter().map(|(_, code)| code).collect();
    let (mut found, mut wrong) = (0, Vec::new());
    for (language, quotes) in [("en", ['`', '`']), ("zh", ['“', '”'])] {
        let path = root().join(format!("docs/{language}/troubleshooting.md"));
        let guide = fs::read_to_string(path).unwrap();
        let rows = guide.lines().filter(|line| line.starts_with("| "));
        let cells = rows.flat_map(|row| row.split(" | ").take(2));
        for quoted in cells.flat_map(|cell| quoted(cell, quotes)) {
            // A word alone is the name of something.
            let is_phrase = language == "zh" || quoted.contains(' ');
            for phrase in quoted.split('…').map(str::trim).filter(|it| is_phrase && !it.is_empty())
            {
                let phrase = phrase.replace("0644", "{0}").replace("0600", "{1}");
                let phrase = phrase.trim_start_matches("cannot ").trim_start_matches("无法");
                found += 1;
                if !system.contains(&phrase) && !sources.contains(phrase) {
                    wrong.push(format!("{language}: {phrase}"));
                }
            }
        }
    }
    assert!(found > 10 && wrong.is_empty(), "{found}: {wrong:#?}");
}

/// The verbs that actions begin with.
const IMPERATIVES: &str = "Add Allow Ask Authorize Begin Bring Check Compare Connect Copy Correct Decrypt Do End Find Free Give Have Keep \
    Leave Let Look Make Mend Mount Move Name Pause Percent-encode Pipe Please Put Raise Register Remove Rename Renew Repeat Reset \
    Restart Run Save Say See Send Separate Set Shorten Solve Stop Switch Take Try Type Unset Use Wait Write Join Build";

/// What may come before: the case in which to do it, where, or that there is more to do afterwards.
const BEFORE_IMPERATIVES: [&str; 3] = ["If", "On", "First"];

#[test]
fn every_message_begins_with_a_verb_that_says_what_to_do() {
    let templates = tables().into_iter().flat_map(|(_, it)| it);
    let templates = templates.map(|it| (it.name, it.english.action.to_owned()));
    let texts = texts().into_iter().flat_map(|(_, it)| it);
    let texts = texts.map(|(name, text)| (*name, Language::English.resolve(text).into_owned()));
    let refusals = table::TABLE.iter().map(|it| ("refusal by WeChat", it.english.0.to_owned()));
    let stages = STAGES.iter().map(|it| ("no answer", it.english.to_owned()));
    let faults = fault::TABLE.iter().map(|it| ("system", it.english.to_owned()));
    for (name, action) in templates.chain(texts).chain(refusals).chain(stages).chain(faults) {
        let first = action.split([' ', ',', ':', '.']).next().unwrap_or_default();
        let is_imperative = IMPERATIVES.split_whitespace().any(|it| it == first);
        assert!(is_imperative || BEFORE_IMPERATIVES.contains(&first), "{name}: {action}");
    }
}

#[test]
fn every_text_says_first_what_to_do_and_then_why_in_both_languages() {
    let is_chinese = |c: char| ('\u{4e00}'..='\u{9fff}').contains(&c);
    for (title, texts) in texts() {
        for (name, text) in texts {
            let [english, chinese] =
                [Language::English, Language::Chinese].map(|it| it.resolve(text).into_owned());
            let is_alone = english.ends_with('.');
            assert!(is_alone || english.contains(": "), "{title}: {name}: {english}");
            assert!(is_alone || chinese.contains('：'), "{title}: {name}: {chinese}");
            assert!(
                !english.contains(is_chinese) && chinese.contains(is_chinese),
                "{title}: {name}"
            );
        }
    }
}

/// How errors, and lines of the log, are made. `debug!` traces steps, in English.
const MAKERS: [&str; 10] = [
    "bail!(",
    "anyhow!(",
    ".error(",
    ".errors(",
    ".context(",
    ".with_context(",
    "Error::other(",
    "error!(",
    "notice!(",
    "info!(",
];

/// Returns the text of a call's arguments: up to the parenthesis that closes it.
fn arguments(text: &str) -> &str {
    let (mut depth, mut is_literal, mut is_escaped) = (1, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_literal => is_escaped = true,
            '"' => is_literal = !is_literal,
            '(' if !is_literal => depth += 1,
            ')' if !is_literal => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[..at];
        }
    }
    text
}

/// Whether a text of its own is in the arguments: a literal with words, and no entry of a table.
fn is_without_table(arguments: &str) -> bool {
    // The name of the event is for programs.
    let arguments = match arguments.split_once("event = \"") {
        Some((_, rest)) => rest.split_once('"').map_or("", |(_, rest)| rest),
        None => arguments,
    };
    let literals = arguments.split('"').skip(1).step_by(2);
    let has_words = |literal: &str| {
        let outside = literal.split(['{', '}']).step_by(2);
        outside.flat_map(str::split_whitespace).any(|word| word.len() > 2 && !word.ends_with(':'))
    };
    let is_of_table =
        [".with(", ".text(", ".first(", ".quoting(", "cannot(", "in_both(", "unreadable("];
    !is_of_table.iter().any(|it| arguments.contains(it)) && literals.map(str::trim).any(has_words)
}

/// Returns the code of a file without its tests and comments.
fn code_of(text: &str) -> String {
    let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).fold(
        String::new(),
        |mut code, line| {
            code += line;
            code.push('\n');
            code
        },
    )
}

/// Returns the places of a file at which an error is made without a table.
fn places_without_table(path: &Path) -> Vec<String> {
    let code = code_of(&fs::read_to_string(path).unwrap());
    let mut places = Vec::new();
    for maker in MAKERS {
        for (at, _) in code.match_indices(maker) {
            let arguments = arguments(&code[at + maker.len()..]);
            if is_without_table(arguments) {
                places.push(arguments.trim().chars().take(120).collect());
            }
        }
    }
    places
}

#[test]
fn every_error_and_line_of_the_log_is_an_entry_of_a_table_but_for_counted_exceptions() {
    let mut files = vec![root().join("src")];
    let mut wrong = Vec::new();
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(fs::read_dir(&path).unwrap().map(|it| it.unwrap().path()));
            continue;
        }
        let shown = path.strip_prefix(root().join("src")).unwrap().display().to_string();
        // The story of the demo and the stand-in for WeChat are for trying; what they say is for this terminal.
        let is_trial =
            ["commands/demo", "commands/mock", "mock/"].iter().any(|it| shown.starts_with(it));
        if is_trial || shown.contains("tests") || shown.ends_with("message_list.rs") {
            continue;
        }
        let places = places_without_table(&path);
        let expected = WITHOUT_TABLE.iter().find(|(file, ..)| *file == shown);
        if places.len() != expected.map_or(0, |(_, count, _)| *count) {
            wrong.push(format!("(\"{shown}\", {}, \"\"), {places:#?}", places.len()));
        }
    }
    wrong.sort();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
