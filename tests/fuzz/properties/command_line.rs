//! The command line, and what the environment brings: settings as text.

use crate::cli::{Cli, Command};
use crate::language::Language;
use crate::log;
use crate::model::address::host_port::HostPort;
use crate::model::address::no_proxy;

pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    // Arguments hold no NUL.
    let words: Vec<_> = text.split('\n').filter(|word| !word.contains('\0')).take(24).collect();
    match Cli::parse(["wxtoken"].into_iter().chain(words.iter().copied())) {
        Ok(cli) => {
            assert!(!(cli.common.quiet && cli.common.verbose > 0), "quiet and verbose");
            if let Command::Fetch(args) = &cli.command {
                assert!(!(args.force && args.rejected.is_some()), "force and rejected");
            }
        }
        Err(err) => {
            let shown = err.render().to_string();
            assert!(!log::may_hold_secret(&shown), "{shown}");
        }
    }
    check_language(&words);
    if let [list, server, ..] = words[..] {
        check_no_proxy(list, server);
    }
}

/// A variable decides by itself, and the first one that is set.
fn check_language(values: &[&str]) {
    let names = ["WXTOKEN_LANG", "LC_ALL", "LC_MESSAGES", "LANG"];
    let value = |name: &str, values: &[&str]| {
        let index = names.iter().position(|it| *it == name)?;
        values.get(index).map(|it| (*it).to_owned())
    };
    let language = Language::of_environment(|name| value(name, values));
    let first = values.iter().take(names.len()).find(|value| !value.is_empty());
    let alone =
        Language::of_environment(|name| value(name, first.map_or(&[], std::slice::from_ref)));
    assert_eq!(language, alone);
    if let Some(header) = values.first() {
        let _ = Language::of_accept_language(Some(header));
    }
}

fn check_no_proxy(list: &str, server: &str) {
    let Some(HostPort { host, port }) = HostPort::parse(server) else { return };
    let exempts = |list: &str| no_proxy::exempts(list, host, port.unwrap_or(443));
    assert!(exempts(&format!("{list},*")));
    if exempts(list) {
        assert!(exempts(&format!("{list} example.invalid")), "a longer list exempts less");
        let entries = list.split([',', ' ', '\t', '\n', '\r', '\u{c}']);
        assert!(entries.into_iter().any(exempts), "no entry exempts it alone");
    }
}
