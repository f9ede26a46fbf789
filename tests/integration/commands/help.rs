//! Help and version, of wxtoken and of each verb.

use crate::support::*;

fn run(args: &[&str]) -> Run {
    let mut command = wxtoken();
    command.args(args);
    Run::new(command)
}

#[test]
fn help_as_a_verb_is_the_long_help() {
    assert_eq!(run(&["help"]).exits(0).stdout, run(&["--help"]).exits(0).stdout);
    assert_eq!(run(&["help", "fetch"]).exits(0).stdout, run(&["fetch", "--help"]).exits(0).stdout);
    assert!(run(&["help", "no-verb"]).exits(2).stderr.contains("no-verb"));
}

#[test]
fn the_short_help_fits_a_screen_and_the_long_help_has_the_variables() {
    let short = run(&["serve", "-h"]).exits(0).stdout;
    assert!(
        short.lines().count() <= 40 && short.lines().all(|it| it.chars().count() <= 80),
        "{short}"
    );
    assert!(!short.contains("WXTOKEN_"), "{short}");
    let long = run(&["serve", "--help"]).exits(0).stdout;
    assert!(long.contains("[env: WXTOKEN_TRUSTED_PROXY]"), "{long}");
}

#[test]
fn without_a_verb_the_short_help_is_printed_as_an_error() {
    let ran = run(&[]).exits(2);
    assert_eq!((ran.stdout.as_str(), ran.stderr), ("", run(&["-h"]).exits(0).stdout));
}

#[test]
fn each_verb_has_the_version_of_wxtoken() {
    let version = concat!("wxtoken ", env!("CARGO_PKG_VERSION"), "\n");
    for args in [&["-V"][..], &["--version"], &["fetch", "-V"], &["demo", "--version"]] {
        assert_eq!(run(args).exits(0).stdout, version, "{args:?}");
    }
}
