//! `wxtoken key`: prints a new client key and its line for the server's keys file.

use std::collections::HashSet;

use crate::support::*;

#[track_caller]
fn key(args: &[&str]) -> Run {
    let mut command = wxtoken();
    command.arg("key").args(args);
    Run::new(command)
}

/// Runs `wxtoken key` and returns the key and the line.
#[track_caller]
fn new_key(args: &[&str]) -> (String, String) {
    let ran = key(args).exits(0);
    assert_eq!(ran.stderr, "");
    let (first, second) = ran.stdout.trim_end().split_once('\n').expect("two lines");
    let key = first.strip_prefix("key:  ").expect("the key comes first");
    let line = second.strip_prefix("line: ").expect("the line comes second");
    (key.to_owned(), line.to_owned())
}

fn sha256(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_key_is_random_and_its_line_has_the_sha256_and_not_the_key() {
    let mut keys = HashSet::new();
    for (args, accounts) in [
        (&["php.web-1"][..], ""),
        (&["php.web-1", "shop"], " shop"),
        (&["php.web-1", "shop", "branch_2"], " shop,branch_2"),
        (&["php.web-1", "shop,branch_2"], " shop,branch_2"),
        (&["--apis", "/cgi-bin/message", "php.web-1"], " * /cgi-bin/message"),
        (
            &["--apis", "/wxa/,/card", "--apis", "/sns", "php.web-1", "shop"],
            " shop /wxa,/card,/sns",
        ),
        (&["php.web-1", "shop", "--apis", "all"], " shop all"),
    ] {
        let (key, line) = new_key(args);
        let random = key.strip_prefix("wxk_").expect("the prefix");
        assert_eq!(random.len(), 43);
        assert!(random.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        assert_eq!(line, format!("php.web-1 {}{accounts}", sha256(&key)));
        assert!(keys.insert(key), "keys are unique");
    }
}

#[test]
fn an_invalid_name_account_or_api_is_a_usage_error() {
    let long = "n".repeat(65);
    for name in ["", "-", "#php", "p hp", ".php", "_php", "p/hp", "中控", "php\n", &long] {
        key(&["--", name]).exits(2).says(&["wxtoken: key: Correct the name: it begins with"]);
    }
    for account in ["", "Shop", "_shop", "shop/..", "商店", "shop,", &long[..33]] {
        key(&["php", account])
            .exits(2)
            .says(&["wxtoken: key: Correct the account's name: it begins with"]);
    }
    for api in ["", "/", "cgi-bin", "/cgi-bin/../x", "/%61", "/a b", "*", "/cgi-bin,"] {
        key(&["php", "--apis", api])
            .exits(2)
            .says(&["wxtoken: key: Write `all`, or paths such as"]);
    }
    key(&[]).exits(2);
}

#[needs(dev_full)]
#[test]
fn key_fails_if_it_cannot_be_printed() {
    let full = std::fs::File::create("/dev/full").unwrap();
    let mut command = wxtoken();
    let child = command.args(["key", "php"]).stdout(full).stderr(std::process::Stdio::piped());
    let output = child.spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write to stdout"));
}
