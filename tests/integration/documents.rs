//! Help, manual, READMEs, changelog and contrib are consistent, and the snippets of the README run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Run, Sandbox, Server, WeChat, needs, wxtoken};

const WXTOKEN: &str = env!("CARGO_BIN_EXE_wxtoken");
const READMES: [&str; 2] = ["README.md", "README.zh-CN.md"];
const MANUAL: &str = "man/wxtoken.1";
const MANUAL_OF_CONFIG: &str = "man/wxtoken.toml.5";
const CONFIG: &str = "contrib/wxtoken.toml";

// Help against manual.

#[test]
fn help_and_manual_have_the_same_flags() {
    let common = manual_flags("Options of every verb");
    let account = manual_flags("Account options");
    assert_eq!(flags(&help(&[])), common, "the flags before a verb, help against manual");
    for verb in verbs() {
        let help = help(&[&verb]);
        let mut documented = manual_flags(&verb);
        if help.contains("\nAccount:\n") {
            documented.extend(account.iter().cloned());
        }
        let typed: BTreeSet<_> = flags(&help).difference(&common).cloned().collect();
        assert_eq!(typed, documented, "the flags of {verb}, help against manual");
    }
}

#[test]
fn the_synopsis_of_the_manual_has_every_command() {
    let synopsis = manual_section(".Sh SYNOPSIS");
    let documented: Vec<String> =
        synopsis.lines().filter_map(|line| line.strip_prefix(".Cm ")).map(str::to_owned).collect();
    assert_eq!(as_set(&documented), as_set(&verbs()));
}

#[test]
fn help_and_manual_have_the_same_environment_variables() {
    let documented: BTreeSet<String> = manual_section(".Sh ENVIRONMENT")
        .lines()
        .filter_map(|line| line.strip_prefix(".It Ev WXTOKEN_"))
        .map(|name| format!("WXTOKEN_{name}"))
        .collect();
    assert_eq!(documented, variables());
}

#[test]
fn the_mock_and_the_manual_have_the_same_faults() {
    // The error for an unknown fault lists all faults.
    let mut command = wxtoken();
    command.args(["mock", "--fault", "unknown"]).env("WXTOKEN_LANG", "en");
    let stderr = Run::new(command).exits(2).says(&["there are errcode:N, "]).stderr;
    let list = stderr.trim_end().split_once("there are ").unwrap().1;
    let faults: BTreeSet<&str> =
        list.split(", ").map(|form| form.split(':').next().unwrap()).collect();

    let section = manual_section(".Ss mock");
    let items = section.lines().filter_map(|line| line.strip_prefix(".It Cm "));
    let documented: BTreeSet<&str> = items
        .flat_map(|item| item.split(" , "))
        .map(|name| name.split(' ').next().unwrap())
        .collect();
    assert_eq!(documented, faults);
}

#[test]
fn manual_and_readmes_have_every_exit_status() {
    let expected: Vec<String> = read("src/error.rs")
        .lines()
        .filter_map(|line| line.trim().strip_suffix(',')?.split_once(" = "))
        .map(|(_, number)| number.to_owned())
        .collect();
    assert_eq!(expected, ["0", "1", "2", "3", "4", "5", "6", "7"]);

    let manual = manual_section(".Sh EXIT STATUS");
    let documented: Vec<&str> =
        manual.lines().filter_map(|line| line.strip_prefix(".It ")).collect();
    assert_eq!(documented, expected, "{MANUAL}");

    for readme in READMES {
        let text = read(readme);
        let documented: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("| ")?.split_once(" | "))
            .map(|(first, _)| first)
            .filter(|first| first.parse::<u8>().is_ok())
            .collect();
        assert_eq!(documented, expected, "{readme}");
    }
}

// The config: its keys in the program, in its manual, and in the example.

/// Returns the keys of each table, from the errors for unknown keys, which list them.
fn keys_of_config() -> [BTreeSet<String>; 4] {
    let unknown = "zz = 1\n[account.a]\nappid = 'wx1'\nzz = 1\n[redis]\nzz = 1\n[serve]\nzz = 1\n";
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wxtoken.toml");
    fs::write(&path, unknown).unwrap();
    let mut command = wxtoken();
    command.arg("status").arg("--config").arg(path).env("WXTOKEN_LANG", "en");
    let stderr = Run::new(command).exits(2).stderr;
    let lists: Vec<BTreeSet<String>> = stderr
        .lines()
        .filter_map(|line| line.split_once(": there is no such key; there are "))
        .map(|(_, list)| list.split(", ").map(str::to_owned).collect())
        .collect();
    lists.try_into().expect("one list for each table")
}

#[test]
fn the_program_and_the_manual_of_the_config_have_the_same_keys() {
    for (heading, keys) in
        ["Of all accounts", "Of one account", "Of redis", "Of serve"].iter().zip(keys_of_config())
    {
        let section = section_of(MANUAL_OF_CONFIG, &format!(".Ss {heading}"));
        let items = section.lines().filter_map(|line| line.strip_prefix(".It Cm "));
        let documented: BTreeSet<String> =
            items.map(|item| item.split(' ').next().unwrap().to_owned()).collect();
        assert_eq!(documented, keys, "{heading}, manual against program");
    }
}

#[test]
fn the_example_config_has_every_key_and_is_valid_with_and_without_the_optional_ones() {
    let example = read(CONFIG);
    let is_key = |line: &str| {
        let key = line.strip_prefix('#').unwrap_or(line).split_once(" = ");
        key.is_some_and(|(key, _)| {
            !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        })
    };
    let all: String = example
        .lines()
        .map(|line| if is_key(line) { line.trim_start_matches('#') } else { line })
        .map(|line| format!("{line}\n"))
        .collect();
    assert_ne!(all, example, "some keys are commented out");
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [("some.toml", &example), ("all.toml", &all)] {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        let mut command = wxtoken();
        command.args(["status", "--format", "json"]).arg("--dir").arg(dir.path());
        command.arg("--config").arg(path);
        let ran = Run::new(command).exits(3);
        assert!(!ran.stderr.contains(&format!("{name}:")), "{name}: {}", ran.stderr);
        assert_eq!(ran.json()["accounts"].as_array().unwrap().len(), 4);
    }

    let mut shown: [BTreeSet<String>; 4] = Default::default();
    let mut table = 0;
    for line in all.lines() {
        match line {
            "[redis]" => table = 2,
            "[serve]" => table = 3,
            line if line.starts_with("[account.") => table = 1,
            line if is_key(line) => {
                shown[table].insert(line.split(' ').next().unwrap().to_owned());
            }
            _ => {}
        }
    }
    shown[0].extend(["account", "redis", "serve"].map(str::to_owned)); // The tables themselves.
    assert_eq!(shown, keys_of_config(), "example against program");
}

// English against Chinese.

/// Returns the READMEs and the guides, each in English and in Chinese.
fn translated() -> Vec<[String; 2]> {
    let names = |language: &str| -> BTreeSet<String> {
        fs::read_dir(in_tree("docs").join(language))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    assert_eq!(names("en"), names("zh"), "each guide has both languages");
    let guides = names("en");
    let guides = guides.iter().map(|name| ["en", "zh"].map(|it| format!("docs/{it}/{name}")));
    std::iter::once(READMES.map(str::to_owned)).chain(guides).collect()
}

#[test]
fn a_translation_has_the_same_sections() {
    for pair in translated() {
        let [english, chinese] = pair.each_ref().map(|path| {
            let text = prose(&read(path));
            let levels = text
                .lines()
                .filter(|line| line.starts_with('#'))
                .map(|line| line.split(' ').next().map(str::len));
            levels.collect::<Vec<_>>()
        });
        assert_eq!(english, chinese, "{pair:?}");
    }
}

#[test]
fn each_guide_says_first_for_whom_it_is_and_last_what_can_go_wrong() {
    for path in translated().iter().skip(1).flatten() {
        let text = read(path);
        let text = prose(&text);
        // After the title and the link to the translation.
        let first = text.lines().filter(|line| !line.is_empty()).nth(2).unwrap();
        let last = text.lines().rfind(|line| line.starts_with("## ")).unwrap();
        let (opens, ends) = match path.contains("/zh/") {
            true => (["适合", "写给"].as_slice(), "## 可能遇到的问题"),
            false => (["For "].as_slice(), "## What can go wrong"),
        };
        assert!(opens.iter().any(|it| first.starts_with(it)), "{path}: {first}");
        assert_eq!(last, ends, "{path}");
    }
}

/// Words for which the Chinese here has another one, and the documents where they mean something else.
const OTHER_WORDS: &[(&str, &str, &[&str])] = &[
    ("镜像", "只读副本", &["README.zh-CN.md", "docs/zh/containers.md", "docs/zh/packages.md"]),
    ("令牌", "token", &[]),
    ("配额", "调用额度", &[]),
    ("所有者", "属主", &[]),
    ("退出状态", "退出码", &[]),
    ("keys 文件", "访问密钥文件", &[]),
    ("allow 文件", "白名单文件", &[]),
    ("陌生人", "未授权的调用方", &[]),
    ("帐号", "账号", &[]),
    ("秘钥", "密钥", &[]),
];

#[test]
fn the_chinese_has_one_word_for_one_thing() {
    let more = ["contrib/sdk/README.zh-CN.md", "docs/messages.md", "src/cli/help/chinese.rs"];
    let chinese = translated().into_iter().map(|[_, chinese]| chinese);
    for path in chinese.chain(more.map(str::to_owned)) {
        // The quota of a file system is another thing.
        let text = read(&path).replace("磁盘配额", "");
        for (word, right, exceptions) in OTHER_WORDS {
            let is_right = !text.contains(word) || exceptions.contains(&path.as_str());
            assert!(is_right, "{path} has {word}, in place of {right}");
        }
    }
}

/// A line that ends in the middle of a Chinese sentence has a gap there in a browser.
#[test]
fn lines_of_chinese_documents_end_between_words() {
    let is_chinese = |c: char| ('\u{4e00}'..='\u{9fff}').contains(&c);
    let chinese = translated().into_iter().map(|[_, chinese]| chinese);
    for path in chinese.chain(["contrib/sdk/README.zh-CN.md".to_owned()]) {
        let text = read(&path);
        let text = prose(&text);
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.windows(2) {
            if let (Some(end), Some(begin)) =
                (pair[0].chars().next_back(), pair[1].trim_start().chars().next())
            {
                assert!(!is_chinese(end) || !is_chinese(begin), "{path}: {pair:?}");
            }
        }
    }
}

#[test]
fn a_translation_has_the_same_commands() {
    for pair in translated() {
        let [english, chinese] = pair.each_ref().map(|path| blocks(&read(path)));
        assert_eq!(english.len(), chinese.len(), "{pair:?}");
        for (english, chinese) in english.iter().zip(&chinese) {
            let [english, chinese] = [english, chinese].map(|block| {
                let text = block.without_comments();
                // A picture has words of its own.
                if text.starts_with("text ") && text.contains('▼') {
                    return text.chars().filter(|c| "─│▼<>".contains(*c)).collect();
                }
                // What a command prints is in the language of the guide.
                match text.strip_prefix("text ").filter(|text| text.contains(['✓', '✗'])) {
                    Some(text) => text.lines().map(|line| line.get(..20).unwrap_or(line)).collect(),
                    None => text,
                }
            });
            assert_eq!(english, chinese, "{pair:?}");
        }
    }
}

#[test]
fn a_translation_has_the_same_tables_and_lists() {
    for pair in translated() {
        let [english, chinese] = pair.each_ref().map(|path| lists(&read(path)));
        assert_eq!(english, chinese, "{pair:?}");
    }
}

/// Returns how each line of a table or list begins.
fn lists(text: &str) -> Vec<String> {
    {
        let shapes = text.lines().map(|line| line.split(' ').next().unwrap_or_default());
        let listed = |shape: &&str| {
            let item = shape.strip_suffix('.').is_some_and(|number| number.parse::<u8>().is_ok());
            item || matches!(*shape, "|" | "-")
        };
        shapes.filter(listed).map(str::to_owned).collect()
    }
}

#[test]
fn each_translation_links_the_other_on_its_first_lines() {
    for [english, chinese] in translated() {
        for (path, other) in [(&english, &chinese), (&chinese, &english)] {
            let link = match other.strip_prefix("docs/") {
                Some(guide) => format!("(../{guide})"),
                None => format!("({other})"),
            };
            assert!(read(path).lines().take(3).any(|line| line.contains(&link)), "{path}");
        }
    }
}

#[test]
fn a_readme_is_read_in_one_go() {
    for readme in READMES {
        assert!(read(readme).lines().count() <= 220, "{readme}");
    }
}

/// A link to a file leads to one, and a link to a heading of the same document to one of its headings.
#[test]
fn every_link_between_documents_leads_somewhere() {
    let others = ["docs/architecture.md", "docs/contributing.md", "docs/security.md"];
    let mut links = 0;
    for path in translated().into_iter().flatten().chain(others.map(str::to_owned)) {
        let text = read(&path);
        let headings: BTreeSet<String> = prose(&text)
            .lines()
            .filter_map(|line| line.strip_prefix('#')?.split_once(' '))
            .map(|(_, heading)| anchor(heading))
            .collect();
        for rest in prose(&text).split("](").skip(1) {
            let target = rest.split(')').next().unwrap();
            links += 1;
            if let Some(heading) = target.strip_prefix('#') {
                assert!(headings.contains(heading), "{path}: #{heading}");
            } else if !target.contains("://") {
                let file = target.split('#').next().unwrap();
                let from = in_tree(&path).parent().unwrap().join(file);
                assert!(from.exists(), "{path}: {target}");
            }
        }
    }
    assert!(links > 100, "{links} links were found");
}

/// Returns the anchor that a heading has on the usual sites: small letters, no punctuation, hyphens for spaces.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.flat_map(char::to_lowercase).collect::<String>().replace(' ', "-")
}

// Documents against program.

#[test]
fn every_documented_command_line_has_existing_commands_and_flags() {
    let mut used = BTreeSet::new();
    let flags_of: BTreeMap<_, _> =
        verbs().into_iter().map(|verb| (verb.clone(), flags(&help(&[&verb])))).collect();
    for document in documents() {
        for command in command_lines(&document) {
            let Some((verb, words)) = command.split_first() else { continue };
            let Some(known) = flags_of.get(verb) else {
                panic!("{document}: wxtoken {}", command.join(" "))
            };
            for word in words.iter().filter(|word| word.starts_with('-') && word.len() > 1) {
                let exists = match word.strip_prefix("--") {
                    Some(long) => known.iter().any(|flag| flag.long == long),
                    None => {
                        word.chars().skip(1).all(|c| known.iter().any(|flag| flag.short == Some(c)))
                    }
                };
                assert!(exists, "{document}: wxtoken {verb} has no {word}");
            }
            used.insert(verb.clone());
        }
    }
    for verb in ["fetch", "get", "serve", "status"] {
        assert!(used.contains(verb), "only {used:?} are in the documents");
    }
}

#[test]
fn every_documented_flag_and_variable_exists() {
    let flags: BTreeSet<String> = verbs()
        .iter()
        .flat_map(|verb| flags(&help(&[verb])))
        .map(|flag| format!("--{}", flag.long))
        .collect();
    let variables = variables();
    for document in documents() {
        let text = read(&document);
        for (at, _) in text.match_indices("WXTOKEN_") {
            let name: String =
                text[at..].chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
            // The manual states the rule with the prefix alone.
            let is_of_hook = name.starts_with("WXTOKEN_TROUBLE");
            let exists = is_of_hook || name == "WXTOKEN_" || variables.contains(&name);
            assert!(exists, "{document}: {name}");
        }
        if document.starts_with("README") || document.starts_with("docs/") {
            for span in
                prose(&text).split('`').skip(1).step_by(2).filter(|span| span.starts_with("--"))
            {
                let flag = span.split(' ').next().unwrap_or_default();
                assert!(flags.contains(flag), "{document}: {flag}");
            }
        }
    }
}

#[test]
fn every_file_that_readmes_and_guides_mention_exists() {
    for readme in translated().into_iter().flatten() {
        let text = read(&readme).replace("../", "");
        let words = text.split(|c: char| c.is_whitespace() || "()`，：。".contains(c));
        for word in words
            .filter(|word| ["contrib/", "man/", "./man/"].iter().any(|dir| word.starts_with(dir)))
        {
            let (directory, name) = word.rsplit_once('/').expect("it has a slash");
            let (prefix, suffix) = name.split_once('*').unwrap_or((name, ""));
            let found = fs::read_dir(in_tree(directory)).unwrap().any(|entry| {
                let name = entry.unwrap().file_name().into_string().unwrap();
                name.starts_with(prefix) && name.ends_with(suffix)
            });
            assert!(found, "{readme}: {word}");
        }
    }
}

#[test]
fn the_changelog_has_this_version() {
    assert!(read("CHANGELOG.md").contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn every_shell_snippet_is_valid_in_bash_and_zsh() {
    for block in translated()
        .iter()
        .flatten()
        .flat_map(|path| blocks(&read(path)))
        .filter(|block| block.language == "sh")
    {
        // zsh passes a comment after a command as arguments, and takes a quote in a comment as the start of a string.
        for (at, _) in block.text.match_indices('#') {
            let start = block.text[..at].rfind('\n').map_or(0, |end| end + 1);
            let comment = block.text[at..].lines().next().unwrap_or_default();
            assert!(at == start && !comment.contains(['\'', '"', '`', '(', '*', '?']), "{comment}");
        }
        let bash =
            Command::new("bash").args(["-n", "-c", &block.text]).output().expect("bash runs");
        assert!(bash.status.success(), "{}\n{}", block.text, String::from_utf8_lossy(&bash.stderr));
    }
}

/// `tests/needs` says of each ignored test what to install; the READMEs install all of it in one line.
#[test]
fn the_readmes_install_all_that_ignored_tests_need() {
    let needs = read("tests/needs/build.rs");
    let needed: BTreeSet<_> = needs
        .split("apt-get install ")
        .skip(1)
        .map(|rest| rest.split(['"', ',']).next().unwrap())
        .collect();
    assert!(needed.contains("redis-server"), "{needed:?}");
    for readme in READMES.map(read) {
        let line = readme.lines().find(|line| line.starts_with("apt-get install -y ")).unwrap();
        let installed: BTreeSet<_> = line.split(' ').collect();
        assert_eq!(needed.difference(&installed).next(), None);
    }
}

/// The README and the guides mark the snippets that can be pasted one after the other, and those that a token is
/// needed for.
#[test]
fn marked_snippets_run() {
    run_snippets(&["README.md"]);
    run_snippets(&[
        "docs/en/one-host.md",
        "docs/en/central-server.md",
        "docs/en/troubleshooting.md",
    ]);
}

fn run_snippets(paths: &[&str]) {
    // The secret of the mock's default account.
    let secret = "0123456789abcdef0123456789abcdef";
    let mut mock = wxtoken();
    mock.args(["mock", "--listen", "127.0.0.1:0"]);
    let mock = Server::start(mock, 1);
    let home = tempfile::tempdir().unwrap();
    let all: Vec<Block> = paths.iter().flat_map(|path| blocks(&read(path))).collect();
    let marked = |mark: &str| -> String {
        all.iter().filter(|block| block.marks == mark).map(Block::as_script).collect()
    };
    let mut script = marked("test: mock");
    assert!(script.contains("fetch"), "no marked snippets:\n{script}");
    let with_token = marked("test: mock with TOKEN");
    if !with_token.is_empty() {
        script.push_str("TOKEN=$(wxtoken get -r)\n");
        script.push_str(&with_token);
        // A report of a healthy token costs nothing.
        script.push_str("test \"$(wxtoken get -r)\" = \"$TOKEN\"\n");
    }

    let program_dir = Path::new(WXTOKEN).parent().unwrap();
    let path = format!("{}:{}", program_dir.display(), std::env::var("PATH").unwrap());
    let mut bash = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script])
        .current_dir(&home)
        .env_clear()
        .env("PATH", path)
        .env("HOME", home.path())
        .env("WXTOKEN_DIR", home.path().join("state"))
        .env("WXTOKEN_BASE_URL", &mock.addresses[0])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bash runs");
    // The first snippet reads the secret from stdin.
    writeln!(bash.stdin.take().unwrap(), "{secret}").unwrap();
    let output = bash.wait_with_output().unwrap();

    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{script}\n{stdout}\n{stderr}", output.status);
    assert!(
        stdout.contains(r#"{"access_token":""#) && stdout.contains(r#""expires_in":"#),
        "{stdout}"
    );
    assert!(!stdout.contains(secret) && !stderr.contains(secret), "the output contains the secret");
}

/// The examples of the guide to the gateway, at a server of this test's.
#[needs(curl, python3)]
#[test]
fn the_programs_without_a_token_of_the_gateways_guide_run() {
    let mock = WeChat::start();
    let sandbox = Sandbox::new(&mock);
    let server = sandbox.serve_refreshing(&["--gateway"]);
    for guide in ["docs/en/gateway.md", "docs/zh/gateway.md"] {
        let examples = blocks(&read(guide));
        let is_example = |block: &&Block| {
            block.language == "python" || block.text.starts_with("curl -sS http://127.0.0.1:7200/")
        };
        let examples: Vec<_> = examples.iter().filter(is_example).collect();
        assert_eq!(examples.len(), 2, "{guide}");
        for example in examples {
            let text = example.text.replace("http://127.0.0.1:7200", &server.addresses[0]);
            let program = if example.language == "python" { "python3" } else { "sh" };
            let mut command = Command::new(program);
            // No proxy of this machine's stands between.
            command.args(["-c", &text]).env("no_proxy", "*").env_remove("CLIENT_KEY");
            let output = command.output().expect("it runs");
            let printed = String::from_utf8_lossy(&output.stdout);
            assert!(printed.contains("ip_list"), "{guide}: {text}\n{output:?}");
        }
    }
    let python = |guide: &str| {
        let blocks = blocks(&read(guide));
        blocks.into_iter().find(|block| block.language == "python").expect("an example").text
    };
    assert_eq!(python("docs/en/gateway.md"), python("docs/zh/gateway.md"));
    assert_eq!(python("docs/en/gateway.md").lines().count(), 10);
}

#[test]
fn the_manual_lists_the_apis_of_administration_that_need_to_be_named() {
    let source = read("src/model/client_key/api_scope.rs");
    let (_, table) = source.split_once("ADMINISTRATION: &[&str] = &[").expect("the table");
    let (table, _) = table.split_once("];").expect("its end");
    let known: Vec<_> = table.split('"').skip(1).step_by(2).collect();
    let manual = read(MANUAL);
    let (_, section) = manual.split_once(".Ss Who may call what").expect("the section");
    let (_, list) = section.split_once(".Bd -literal -offset indent\n").expect("the list");
    let (list, _) = list.split_once("\n.Ed").expect("its end");
    assert_eq!(list.lines().collect::<Vec<_>>(), known);
    assert!(known.len() > 10);
    let (_, words) = source.split_once("ADMINISTRATION_WORDS: &[&str] =").expect("the words");
    let (words, _) = words.split_once("];").expect("their end");
    for word in words.split('"').skip(1).step_by(2) {
        assert!(section.contains(word), "{word}");
    }
}

#[test]
fn every_test_in_the_table_of_attacks_and_faults_exists_in_the_module_that_is_named() {
    let modules = modules();
    let has =
        |module: &str, text: &str| modules.iter().any(|it| it.0 == module && it.1.contains(text));
    let table = read("docs/security.md");
    let rows = table.lines().filter(|line| line.starts_with("| "));
    let tests: Vec<_> = rows
        .filter_map(|row| row.trim_end_matches(" |").rsplit(" | ").next())
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .filter_map(|name| name.rsplit_once("::"))
        .collect();
    assert!(tests.len() > 100, "{} tests are named", tests.len());
    for (module, name) in tests {
        let definition = format!("fn {name}(");
        // The module is a file of its own, or in that of the module above it.
        let is_inside = module.rsplit_once("::").is_some_and(|(file, inside)| {
            has(file, &definition) && has(file, &format!("mod {inside} {{"))
        });
        assert!(has(module, &definition) || is_inside, "{module}::{name} is no test");
    }
}

/// Returns the modules that are files, each with its path as `cargo test` shows it and its source.
fn modules() -> Vec<(String, String)> {
    let mut modules = Vec::new();
    for root in [in_tree("tests/integration"), in_tree("src")] {
        let mut dirs = vec![root.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else if path.extension().is_some_and(|it| it == "rs") {
                    let module = path.strip_prefix(&root).unwrap().with_extension("");
                    let module = module.to_str().unwrap().replace('/', "::");
                    let module = module.strip_suffix("::mod").unwrap_or(&module).to_owned();
                    modules.push((module, fs::read_to_string(path).unwrap()));
                }
            }
        }
    }
    modules
}

// Reading documents.

fn in_tree(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[track_caller]
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(in_tree(path)).unwrap_or_else(|err| panic!("{path}: {err}"))
}

/// Returns the paths of all documents with commands and variables.
fn documents() -> Vec<String> {
    let mut documents: Vec<String> = translated().into_iter().flatten().collect();
    documents
        .extend([MANUAL, MANUAL_OF_CONFIG, CONFIG, "contrib/cron.d/wxtoken"].map(str::to_owned));
    for entry in fs::read_dir(in_tree("contrib/systemd")).unwrap() {
        documents
            .push(format!("contrib/systemd/{}", entry.unwrap().file_name().into_string().unwrap()));
    }
    documents
}

/// Returns what `wxtoken VERB --help` prints.
fn help(verb: &[&str]) -> String {
    let mut command = wxtoken();
    command.args(verb).arg("--help");
    Run::new(command).exits(0).stdout
}

/// Returns the commands that the help lists.
fn verbs() -> Vec<String> {
    let help = help(&[]);
    let list = help.split_once("\nCommands:\n").unwrap().1.split("\n\n").next().unwrap();
    list.lines().map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flag {
    long: String,
    short: Option<char>,
}

impl Flag {
    /// Parses a flag like `-f --file`, given as words without commas.
    fn from_words<'a>(words: impl Iterator<Item = &'a str>) -> Option<Flag> {
        let mut short = None;
        for word in words.take(2) {
            match word.strip_prefix("--") {
                Some(long) => {
                    return Some(Flag { long: long.trim_end_matches('.').to_owned(), short });
                }
                None => short = word.strip_prefix('-')?.chars().next(),
            }
        }
        None
    }
}

/// Returns the flags that a help text lists.
fn flags(help: &str) -> BTreeSet<Flag> {
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    lines
        .filter_map(|line| Flag::from_words(line.split([' ', ',']).filter(|word| !word.is_empty())))
        .collect()
}

/// Returns the section of the manual under a `.Sh` or `.Ss` line.
#[track_caller]
fn manual_section(heading: &str) -> String {
    section_of(MANUAL, heading)
}

/// The same for any manual.
#[track_caller]
fn section_of(manual: &str, heading: &str) -> String {
    let text = read(manual);
    let mut lines = text.lines().skip_while(|line| *line != heading);
    assert!(lines.next().is_some(), "{manual} has no {heading}");
    lines
        .take_while(|line| !line.starts_with(".Sh ") && !line.starts_with(".Ss "))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Returns the flags that a subsection of the manual describes.
fn manual_flags(subsection: &str) -> BTreeSet<Flag> {
    let section = manual_section(&format!(".Ss {subsection}"));
    let items = section.lines().filter_map(|line| line.strip_prefix(".It Fl "));
    items
        .filter_map(|item| {
            let words: Vec<String> = item
                .split(' ')
                .filter(|word| *word != "," && *word != "Fl")
                .map(|word| format!("-{word}"))
                .collect();
            Flag::from_words(words.iter().map(String::as_str))
        })
        .collect()
}

/// Returns every `WXTOKEN_*` variable: those of flags, from the help, and those that have no flag.
fn variables() -> BTreeSet<String> {
    let mut variables = BTreeSet::from(["WXTOKEN_SECRET", "WXTOKEN_LANG"].map(str::to_owned));
    for verb in verbs() {
        let help = help(&[&verb]);
        variables.extend(
            help.split("[env: ")
                .skip(1)
                .map(|rest| rest.split([']', '=']).next().unwrap().to_owned()),
        );
    }
    variables
}

/// A fenced code block of a README.
pub(crate) struct Block {
    pub(crate) language: String,
    pub(crate) text: String,
    /// The HTML comment on the line before it, or empty.
    marks: String,
}

impl Block {
    fn without_comments(&self) -> String {
        let lines: Vec<&str> = self.text.lines().filter(|line| !line.starts_with("# ")).collect();
        format!("{} {}\n{}", self.language, self.marks, lines.join("\n"))
    }

    fn as_script(&self) -> String {
        assert_eq!(self.language, "sh");
        self.text.clone()
    }
}

pub(crate) fn blocks(markdown: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = markdown.lines();
    let mut before = "";
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let text = lines
                .by_ref()
                .take_while(|line| *line != "```")
                .map(|line| format!("{line}\n"))
                .collect();
            let marks = before
                .strip_prefix("<!-- ")
                .and_then(|rest| rest.strip_suffix(" -->"))
                .unwrap_or_default();
            blocks.push(Block { language: language.to_owned(), text, marks: marks.to_owned() });
        }
        before = line;
    }
    blocks
}

/// Returns a README without its code blocks.
fn prose(markdown: &str) -> String {
    markdown.split("\n```").step_by(2).collect::<Vec<_>>().join("\n")
}

/// Returns the lines of a document that are for a shell, cron, systemd or Docker, and the code spans of READMEs.
fn code(document: &str) -> Vec<String> {
    let text = read(document);
    if document.starts_with("README") || document.starts_with("docs/") {
        let spans =
            prose(&text).split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        blocks(&text)
            .iter()
            .flat_map(|block| block.text.lines())
            .map(str::to_owned)
            .chain(spans)
            .collect()
    } else if document == MANUAL {
        let mut literal = false;
        let mut lines = Vec::new();
        for line in text.lines() {
            literal = line.starts_with(".Bd ") || (literal && line != ".Ed");
            lines.extend(
                literal.then_some(line).or_else(|| line.strip_prefix(".Dl ")).map(str::to_owned),
            );
        }
        lines
    } else {
        // A commented-out cron line counts; other comments do not.
        let lines = text
            .lines()
            .map(|line| line.strip_prefix("#*").map_or(line.to_owned(), |rest| format!("*{rest}")));
        lines.filter(|line| !line.starts_with('#')).collect()
    }
}

/// Returns the arguments of each command that runs wxtoken.
fn command_lines(document: &str) -> Vec<Vec<String>> {
    let mut command_lines = Vec::new();
    for line in code(document) {
        // Removes what Docker, cron and sudo have before the program.
        let line = line
            .replace("\", \"", " ")
            .replace("* * * * * wxtoken wxtoken ", "wxtoken ")
            .replace("* * * * * wxtoken command ", "command ")
            .replace("* * * * * wxtoken /usr/local/bin/", "")
            .replace("@reboot wxtoken /usr/local/bin/", "")
            .replace("* * * * * ", "");
        for command in line.split(['|', ';', '&', '(', ')', '"', '\'', '=', '>', '#']) {
            let command = ["sudo -u www-data ", "sudo -u wxtoken ", "sudo ", "exec "]
                .iter()
                .find_map(|before| command.trim().strip_prefix(before))
                .unwrap_or(command);
            let mut words = command.split_whitespace().map(str::to_owned);
            if words.next().is_some_and(|program| program.rsplit('/').next() == Some("wxtoken")) {
                command_lines.push(words.collect());
            }
        }
    }
    command_lines
}

fn as_set(words: &[String]) -> BTreeSet<&String> {
    words.iter().collect()
}
