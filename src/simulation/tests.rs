//! What the simulations have to show.

#![allow(clippy::print_stdout, reason = "what is found is printed, for people")]

use std::env;
use std::time::Instant;

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
    "token probed",
    "token renewed",
    "WeChat busy",
];

/// Each deliberate bug, and within how many seeds it has to be found.
const BUGS: &[(Bug, u64)] = &[
    (Bug::LifeCountedFromAnswer, 50),
    (Bug::NoSecondLook, 50),
    (Bug::NotShortenedBeforeMint, 50),
    (Bug::LostAnswerTakenForNone, 50),
    (Bug::ForcedAtOnce, 50),
    (Bug::WorkLifeNotCapped, 50),
    (Bug::EarlierLostAnswerForgotten, 50),
    (Bug::RejectedTokenKept, 50),
    (Bug::LostAnswersNotCounted, 50),
    (Bug::LostAnswersTakenForAnswers, 100),
    (Bug::RefusalForgotten, 50),
    (Bug::WholeLifePromisedOnClassic, 50),
    (Bug::PromiseRoundedUp, 50),
    (Bug::AgeByWallClock, 50),
    (Bug::InterimNotPublished, 50),
    (Bug::RecordNotWritten, 50),
    (Bug::MarginIgnored, 50),
    (Bug::ShortenedToNothing, 50),
    (Bug::ContentNotSynced, 50),
    (Bug::DirectoryNotSynced, 50),
    (Bug::RenamedBeforeWritten, 50),
    (Bug::LeftoversStay, 50),
    (Bug::RoomNotReserved, 50),
    (Bug::LockNotWaitedFor, 50),
    (Bug::ReplacedFileMissed, 50),
    (Bug::CleanedUpWithoutLock, 50),
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
        0 => first..=first + number("SEEDS", 40) - 1,
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
    let mut missed = Vec::new();
    let mut table = String::from("| bug | found at seed | as |\n| --- | --- | --- |\n");
    for (bug, within) in BUGS {
        let name = format!("{bug:?}");
        if wanted.as_ref().is_some_and(|wanted| *wanted != name) {
            continue;
        }
        switch(Some(*bug));
        let found = (1..=*within).find_map(|seed| {
            let verdict = run(Tape::of_seed(seed), DAYS, false);
            Some((seed, verdict.failure?, verdict.tape))
        });
        match &found {
            Some((seed, failure, tape)) => {
                table += &format!("| {name} | {seed} | {failure} |\n");
                if wanted.is_some() {
                    explain(tape, failure);
                }
            }
            None => missed.push(name),
        }
        switch(None);
    }
    println!("{table}");
    assert!(missed.is_empty(), "not found: {missed:?}");
}
