//! A fault in wxtoken itself: one line, which repeats nothing of a library's, and a status of the manual. Real panics are rare;
//! these are made by a kernel that has no random numbers.

use std::process::Command;

use crate::support::home::{Home, wechat_with_accounts};
use crate::support::*;

/// Has each call for random numbers fail, from this one of each thread on. The standard library panics then.
fn without_random_numbers(first: usize, home: &Home, command: &Command) -> Command {
    let (trace, fault) = (home.path("trace"), format!("inject=getrandom:error=EIO:when={first}+"));
    let strace = ["strace", "-f", "-qq", "-o", trace.to_str().unwrap(), "-e", "trace=getrandom"];
    wrapped(&[&strace[..], &["-e", &fault]].concat(), command)
}

#[needs(strace)]
#[test]
fn a_panic_is_one_line_without_a_librarys_words_and_status_1() {
    let wechat = wechat_with_accounts(3, &[]);
    for accounts in [1, 3] {
        let mut panics = 0;
        for first in 1..6 {
            let home = Home::with_accounts(accounts, &wechat.url(), "");
            let fetch = home.command(&["fetch", "--timeout", "5s"]);
            let ran = in_time(|| Run::new(without_random_numbers(first, &home, &fetch)));
            assert!(!ran.stderr.contains("panicked"), "{ran:?}");
            for line in ran.stderr.lines() {
                assert!(line.starts_with("wxtoken: "), "{ran:?}");
            }
            if ran.stderr.contains("a fault in wxtoken itself") {
                panics += 1;
                let ran = ran.exits(1);
                assert!(ran.stderr.lines().count() <= accounts, "{ran:?}");
            }
        }
        assert!(panics > 0);
    }
}
