//! What the simulations have to show.

#![allow(clippy::print_stdout, reason = "what is found is printed, for people")]

use std::collections::BTreeSet;
use std::time::Instant;
use std::{env, iter};

use super::*;
use crate::sabotage::{Bug, switch};

/// The days of faults in each run; one without follows.
const DAYS: u64 = 10;

/// Situations that have to come up, or the runs show nothing of them.
const SITUATIONS: &[&str] = &[
    "a stranger mints",
    "address refused",
    "answer is nonsense",
    "answer late",
    "answer lost",
    "answer of a proxy",
    "clock set",
    "dead token reported",
    "disk full",
    "fetch failed",
    "forced by an operator",
    "host suspended",
    "killed at an operation",
    "live token reported",
    "power cut at an operation",
    "power cut with content that is not synced",
    "power cut with names that are not synced",
    "rejected token replaced",
    "request lost",
    "request not sent",
    "secret changed",
    "stopped at an operation",
    "ticket handed out",
    "token confirmed",
    "token renewed",
    "WeChat busy",
];

/// How a deliberate bug is found.
const HANDED_OUT: &str = "promise 4: handed out until";
const PROMISED: &str = "promise 4: promised until";
const GONE: &str = "promise 2: the token is gone that was promised until";
const LOST_ANSWERS: &str = "220 lost answers cost a token each within a day";
const REFUSED: &str = "a refused secret is sent again and again";
const REPLACING: &str = "another process is replacing";

/// Each deliberate bug, a seed that is known to find it, within how many seeds it has to be found where that one no longer
/// does, and what the failure says.
const BUGS: &[(Bug, u64, u64, &str)] = &[
    (Bug::LifeCountedFromAnswer, 1, 50, HANDED_OUT),
    (Bug::NoSecondLook, 2, 50, PROMISED),
    (Bug::NotShortenedBeforeMint, 2, 50, HANDED_OUT),
    (Bug::LostAnswerTakenForNone, 7, 50, HANDED_OUT),
    (
        Bug::ForcedAtOnce,
        4,
        50,
        "promise 7: the token that WeChat has is killed, and another was rejected",
    ),
    (Bug::WorkLifeNotCapped, 1, 50, HANDED_OUT),
    (Bug::EarlierLostAnswerForgotten, 1, 50, HANDED_OUT),
    (Bug::RejectedTokenKept, 1, 50, "promise 7: the rejected token is kept"),
    (Bug::LostAnswersNotCounted, 4, 50, LOST_ANSWERS),
    (Bug::LostAnswersTakenForAnswers, 23, 100, LOST_ANSWERS),
    (Bug::RefusalForgotten, 1, 50, REFUSED),
    (Bug::WholeLifePromisedOnClassic, 7, 50, PROMISED),
    (Bug::PromiseRoundedUp, 1, 50, HANDED_OUT),
    (Bug::AgeByWallClock, 8, 50, HANDED_OUT),
    (Bug::InterimNotPublished, 2, 50, HANDED_OUT),
    (Bug::RecordNotWritten, 1, 50, REFUSED),
    (Bug::MarginIgnored, 2, 50, "there is no token, and nothing is wrong"),
    (Bug::ShortenedToNothing, 2, 50, GONE),
    (Bug::ContentNotSynced, 1, 50, "it is not JSON"),
    (Bug::DirectoryNotSynced, 1, 50, GONE),
    (Bug::RenamedBeforeWritten, 1, 50, "it ends too soon"),
    (Bug::LeftoversStay, 1, 50, "cannot create"),
    (Bug::RoomNotReserved, 1, 50, "promise 2: a token is requested that cannot be published"),
    (Bug::LockNotWaitedFor, 23, 50, REPLACING),
    (Bug::ReplacedFileMissed, 1, 50, GONE),
    (Bug::CleanedUpWithoutLock, 23, 50, REPLACING),
];

fn number(name: &str, usual: u64) -> u64 {
    env::var(name).map_or(usual, |it| it.parse().expect("a number"))
}

#[test]
fn calm_days_are_without_faults() {
    let verdict = run(Tape::of(Vec::new()), DAYS, true);
    assert_eq!(verdict.failure, None, "{:#?}", verdict.story);
    assert!(!verdict.counts.contains_key("fetch failed"), "{:?}", verdict.counts);
}

#[test]
fn two_runs_of_one_seed_are_one_and_the_same() {
    for seed in 1..=5 {
        let (one, other) = (run(Tape::of_seed(seed), 3, false), run(Tape::of_seed(seed), 3, false));
        assert_eq!(one.trace, other.trace, "seed {seed}");
    }
}

/// `SEED=7` runs that seed alone and tells what happens. `SEEDS=1000` runs more of them.
#[test]
fn years_pass_without_a_broken_promise() {
    let first = number("FIRST_SEED", 1);
    let seeds = match number("SEED", 0) {
        0 => first..=first + number("SEEDS", 8) - 1,
        seed => seed..=seed,
    };
    let mut counts = BTreeMap::new();
    let (mut span, begun) = (Duration::ZERO, Instant::now());
    let mut failures = Vec::new();
    for seed in seeds.clone() {
        let verdict = run(Tape::of_seed(seed), DAYS, false);
        span += verdict.span;
        for (situation, times) in verdict.counts {
            *counts.entry(situation).or_insert(0) += times;
        }
        if let Some(failure) = verdict.failure {
            failures.push(format!("seed {seed}: {failure}; {:?}", verdict.options));
            if number("SEED", 0) > 0 || failures.len() == 1 {
                explain(&verdict.tape, &failure);
            }
        }
    }
    let (years, secs) = (span.as_secs_f64() / 365.25 / 86400.0, begun.elapsed().as_secs_f64());
    println!("{years:.1} account-years in {secs:.1} s");
    println!("{counts:#?}");
    assert!(failures.is_empty(), "{failures:#?}");
    if seeds.count() >= 40 {
        let missing: Vec<_> = SITUATIONS.iter().filter(|it| !counts.contains_key(**it)).collect();
        assert!(missing.is_empty(), "never came up: {missing:?}");
    }
}

/// Makes a failing tape simpler, and prints what happens on it.
fn explain(tape: &[u8], failure: &str) {
    let kind = |failure: &str| failure.chars().take(24).collect::<String>();
    let is_alike = |tape: &[u8]| {
        let again = run(Tape::of(tape.to_vec()), DAYS, false).failure;
        again.is_some_and(|again| kind(&again) == kind(failure))
    };
    let shrunk = tape::shrink(tape, number("SHRINK", 200) as usize, is_alike);
    let told = run(Tape::of(shrunk.clone()), DAYS, true);
    println!("{}", told.story.join("\n"));
    println!("{:?}", told.options);
    println!("tape: {}", hex(&shrunk));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `BUG=Name` tells how that one is found.
#[test]
fn each_deliberate_bug_is_found() {
    let wanted = env::var("BUG").ok();
    let (mut missed, mut blameless) = (Vec::new(), BTreeSet::new());
    let mut table = String::from("| bug | found at seed | as |\n| --- | --- | --- |\n");
    for (bug, known, within, expected) in BUGS {
        let name = format!("{bug:?}");
        if wanted.as_ref().is_some_and(|wanted| *wanted != name) {
            continue;
        }
        switch(Some(*bug));
        let found = iter::once(*known).chain(1..=*within).find_map(|seed| {
            let verdict = run(Tape::of_seed(seed), DAYS, false);
            Some((seed, verdict.failure?, verdict.tape))
        });
        switch(None);
        match &found {
            Some((seed, failure, tape)) => {
                assert!(failure.contains(*expected), "{name}, seed {seed}: {failure}");
                blameless.insert(*seed);
                table += &format!("| {name} | {seed} | {failure} |\n");
                if wanted.is_some() {
                    switch(Some(*bug));
                    explain(tape, failure);
                    switch(None);
                }
            }
            None => missed.push(name),
        }
    }
    for seed in blameless {
        let without = run(Tape::of_seed(seed), DAYS, false).failure;
        assert_eq!(without, None, "seed {seed} fails without a bug, too");
    }
    println!("{table}");
    assert!(missed.is_empty(), "not found: {missed:?}");
}
