//! What the simulations have to show.

#![allow(clippy::print_stdout, reason = "what is found is printed, for people")]

use std::collections::BTreeSet;
use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use std::{env, fs, iter, thread};

use super::*;
use crate::sabotage::{Bug, switch};

const SETTINGS: [Setting; 4] = [Setting::Files, Setting::Redis, Setting::Servers, Setting::Mirrors];

/// What shows a bug soonest.
const SHORT: Course = Course { times: 1, faulty_days: 10, calm_days: 1 };

/// So many seeds are run with servers by default.
const VERIFIED: u64 = 20;

/// What two runs are compared in.
const FEW_DAYS: Course = Course { times: 1, faulty_days: 3, calm_days: 1 };

/// A bad year: ten days of it have faults all the time, of another kind each time.
const YEAR: Course = Course { times: 5, faulty_days: 2, calm_days: 71 };

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
    "honoured token kept",
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

/// How a deliberate bug is found.
const HANDED_OUT: &str = "promise 4: handed out until";
const PROMISED: &str = "promise 4: promised until";
const ASKED: &str = "promise 3: a request";
const GONE: &str = "promise 2: the token is gone that was promised until";
const LOST_ANSWERS: &str = "220 lost answers cost a token each within a day";
const REFUSED: &str = "a refused secret is sent again and again";
const REPLACING: &str = "another process is replacing";

const DEAD: &str = "a server hands out a token of which WeChat has said that it is dead";
const MIRROR: &str = "a mirror promises until";
const PUT_BACK: &str =
    "promise 4: a copy that was put back is promised for longer than the overlap";

const TICKET: &str = "promise 4: a ticket is handed out with more life than it has";

/// Each deliberate bug, in which setting a seed is known to find it, within how many seeds it has to be found where that one no longer
/// does, and what the failure says.
const BUGS: &[(Bug, Setting, u64, u64, &str)] = &[
    (Bug::LifeCountedFromAnswer, Setting::Files, 2, 50, HANDED_OUT),
    (Bug::WorkLifeNotCapped, Setting::Files, 1, 50, HANDED_OUT),
    (Bug::NoSecondLook, Setting::Files, 43, 60, ASKED),
    (Bug::NotShortenedBeforeMint, Setting::Files, 7, 50, HANDED_OUT),
    (Bug::LostAnswerTakenForNone, Setting::Files, 7, 50, HANDED_OUT),
    (
        Bug::ForcedAtOnce,
        Setting::Files,
        4,
        50,
        "promise 7: the token that WeChat has is killed, and another was rejected",
    ),
    (Bug::EarlierLostAnswerForgotten, Setting::Files, 5, 50, TICKET),
    (Bug::RejectedTokenKept, Setting::Files, 1, 50, "promise 7: the rejected token is kept"),
    (Bug::LostAnswersNotCounted, Setting::Files, 61, 100, LOST_ANSWERS),
    (Bug::LostAnswersTakenForAnswers, Setting::Files, 129, 200, LOST_ANSWERS),
    (Bug::RefusalForgotten, Setting::Files, 1, 50, REFUSED),
    (Bug::WholeLifePromisedOnClassic, Setting::Files, 7, 50, PROMISED),
    (Bug::PromiseRoundedUp, Setting::Files, 1, 50, HANDED_OUT),
    (Bug::AgeByWallClock, Setting::Files, 8, 50, HANDED_OUT),
    (Bug::InterimNotPublished, Setting::Files, 7, 50, HANDED_OUT),
    (Bug::RecordNotWritten, Setting::Files, 1, 50, REFUSED),
    (Bug::MarginIgnored, Setting::Files, 2, 50, "there is no token, and nothing is wrong"),
    (Bug::ShortenedToNothing, Setting::Files, 7, 50, GONE),
    (Bug::ContentNotSynced, Setting::Files, 1, 50, "is no document"),
    (Bug::DirectoryNotSynced, Setting::Files, 3, 50, GONE),
    (Bug::RenamedBeforeWritten, Setting::Files, 52, 60, "it ends too soon"),
    (Bug::LeftoversStay, Setting::Files, 1, 50, "cannot create"),
    (
        Bug::RoomNotReserved,
        Setting::Files,
        1,
        50,
        "promise 2: a token is requested that cannot be published",
    ),
    (Bug::LockNotWaitedFor, Setting::Files, 43, 50, REPLACING),
    (Bug::ReplacedFileMissed, Setting::Files, 1, 50, GONE),
    (Bug::CleanedUpWithoutLock, Setting::Files, 43, 60, REPLACING),
    (Bug::LostRequestsNotShared, Setting::Redis, 5, 50, HANDED_OUT),
    (Bug::EndedDocumentForgotten, Setting::Redis, 1, 50, HANDED_OUT),
    (Bug::LockNotExtended, Setting::Redis, 15, 20, ASKED),
    (Bug::FailoverValueAccepted, Setting::Redis, 3, 20, GONE),
    (Bug::PutBackWithOldLife, Setting::Redis, 6, 20, PUT_BACK),
    (Bug::LockNotLookedAt, Setting::Redis, 106, 150, PROMISED),
    (Bug::FenceDropped, Setting::Redis, 11, 60, HANDED_OUT),
    (Bug::DeadTokenHandedOut, Setting::Servers, 1, 20, DEAD),
    (Bug::VerdictHeldBack, Setting::Servers, 9, 20, DEAD),
    (Bug::HonouredTokenReplaced, Setting::Servers, 6, 20, PROMISED),
    (
        Bug::VerdictKept,
        Setting::Servers,
        4,
        20,
        "promise 7: the rejected token is kept by a server",
    ),
    (Bug::MirrorLifeCountedFromAnswer, Setting::Mirrors, 1, 20, MIRROR),
    (Bug::ShorterLifeIgnored, Setting::Mirrors, 3, 20, MIRROR),
];

/// So many of them, the first ones, are looked for by default.
const FEW: usize = 2;

/// Returns the settings that are run: all, or `SETTING=Redis`.
fn settings() -> Vec<Setting> {
    let wanted = env::var("SETTING").ok();
    let is_wanted = |it: &Setting| wanted.as_ref().is_none_or(|name| *name == format!("{it:?}"));
    SETTINGS.into_iter().filter(is_wanted).collect()
}

fn number(name: &str, usual: u64) -> u64 {
    env::var(name).map_or(usual, |it| it.parse().expect("a number"))
}

/// Does `job` for each of these on all processors. Returns what came of them, in their order.
fn on_all_processors<I: Send, T: Send>(
    items: impl Iterator<Item = I> + Send,
    job: impl Fn(I) -> T + Sync,
) -> Vec<T> {
    let (items, results) = (Mutex::new(items.enumerate()), Mutex::new(Vec::new()));
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(|| {
                while let Some((index, item)) = next() {
                    let result = job(item);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[test]
fn calm_days_are_without_faults() {
    for setting in SETTINGS {
        let verdict = run(setting, Tape::of(Vec::new()), SHORT, true);
        assert_eq!(verdict.failure, None, "{:#?}", verdict.story);
        assert!(!verdict.counts.contains_key("fetch failed"), "{:?}", verdict.counts);
    }
}

#[test]
fn two_runs_of_one_seed_are_one_and_the_same() {
    for seed in 1..=number("SEEDS", 1).min(5) {
        for setting in settings() {
            let [one, other] =
                [(); 2].map(|()| run(setting, Tape::of_seed(seed), FEW_DAYS, false).trace);
            assert_eq!(one, other, "seed {seed}, {setting:?}");
        }
    }
}

/// `SEEDS=1000` runs more seeds, `YEARS=100` runs each for a year, and `SEED=7` runs that one alone and tells what happens.
#[test]
fn years_pass_without_a_broken_promise() {
    let (course, count) = match number("YEARS", 0) {
        0 => (SHORT, number("SEEDS", 1)),
        years => (YEAR, years),
    };
    let first = number("FIRST_SEED", 1);
    let seeds = match number("SEED", 0) {
        0 => first..=first + count - 1,
        seed => seed..=seed,
    };
    let begun = Instant::now();
    let is_run = |(setting, seed): &(Setting, u64)| {
        let is_verified = *seed <= VERIFIED || *setting == Setting::Redis && course.times == 1;
        let is_usual =
            is_verified && (course.times == 1 || *setting == Setting::Redis || seed % 5 == 1);
        *setting == Setting::Files || is_usual || env::var_os("SETTING").is_some()
    };
    let all = settings().into_iter().flat_map(|it| seeds.clone().map(move |seed| (it, seed)));
    let verdicts = on_all_processors(all.filter(is_run), |(setting, seed)| {
        let verdict = run(setting, Tape::of_seed(seed), course, false);
        let tape = verdict.failure.as_ref().map(|_| verdict.tape).unwrap_or_default();
        (setting, seed, Verdict { tape, ..verdict })
    });
    let (mut counts, mut span) = (BTreeMap::new(), Duration::ZERO);
    let mut failures = Vec::new();
    for (setting, seed, verdict) in verdicts {
        span += verdict.span;
        for (situation, times) in verdict.counts {
            *counts.entry(situation).or_insert(0) += times;
        }
        if let Some(failure) = verdict.failure {
            failures.push(format!("{setting:?}, seed {seed}: {failure}; {:?}", verdict.options));
            if failures.len() == 1 {
                explain(setting, &verdict.tape, course, &failure);
            }
        }
    }
    let (years, secs) = (span.as_secs_f64() / 365.25 / 86400.0, begun.elapsed().as_secs_f64());
    println!("{years:.1} account-years in {secs:.1} s, {} seeds", seeds.clone().count());
    println!("{counts:#?}");
    assert!(failures.is_empty(), "{failures:#?}");
    if seeds.count() >= 40 && settings().len() > 1 {
        let missing: Vec<_> = SITUATIONS.iter().filter(|it| !counts.contains_key(**it)).collect();
        assert!(missing.is_empty(), "never came up: {missing:?}");
    }
}

/// Makes a failing tape simpler, and prints what happens on it.
fn explain(setting: Setting, tape: &[u8], course: Course, failure: &str) {
    let kind = |failure: &str| failure.chars().take(24).collect::<String>();
    let is_alike = |tape: &[u8]| {
        let again = run(setting, Tape::of(tape.to_vec()), course, false).failure;
        again.is_some_and(|again| kind(&again) == kind(failure))
    };
    let shrunk = tape::shrink(tape, number("SHRINK", 200) as usize, is_alike);
    let told = run(setting, Tape::of(shrunk.clone()), course, true);
    println!("{}", told.story.join("\n"));
    println!("{:?}", told.options);
    println!("tape: {}", hex(&shrunk));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How a deliberate bug was found.
struct Found {
    seed: u64,
    failure: String,
    tape: Vec<u8>,
}

/// Looks for a bug: at the seed that is known to find it, and then at the first ones.
fn look_for(bug: Bug, setting: Setting, known: u64, within: u64) -> Option<Found> {
    switch(Some(bug));
    let within = within.max(number("WITHIN", 0));
    let found = iter::once(known).chain(1..=within).find_map(|seed| {
        let verdict = run(setting, Tape::of_seed(seed), SHORT, false);
        Some((seed, verdict.failure?, verdict.tape))
    });
    switch(None);
    let (seed, failure, tape) = found?;
    Some(Found { seed, failure, tape })
}

/// `BUG=all` looks for all of them, and `BUG=Name` tells how that one is found, with `SEED=7` at that seed first, and `WITHIN=1000`
/// within more seeds. By default a few are looked for.
#[test]
fn each_deliberate_bug_is_found() {
    let wanted = env::var("BUG").ok();
    let bugs: Vec<_> = BUGS
        .iter()
        .enumerate()
        .filter(|(index, (bug, ..))| match wanted.as_deref() {
            Some("all") => true,
            Some(name) => name == format!("{bug:?}"),
            None => *index < FEW,
        })
        .map(|(_, row)| row)
        .collect();
    assert!(!bugs.is_empty(), "there is no bug {wanted:?}");
    let found = on_all_processors(bugs.iter(), |(bug, setting, known, within, _)| {
        look_for(*bug, *setting, number("SEED", *known), *within)
    });
    let (mut wrong, mut blameless) = (Vec::new(), BTreeSet::new());
    for ((bug, setting, .., expected), found) in bugs.iter().zip(found) {
        let Some(Found { seed, failure, tape }) = found else {
            wrong.push(format!("{bug:?} is not found"));
            continue;
        };
        println!("{bug:?}, seed {seed}: {failure}");
        if !failure.contains(expected) {
            wrong.push(format!("{bug:?}, seed {seed}: not for what it does: {failure}"));
        }
        blameless.insert((*setting as u8, seed));
        if bugs.len() == 1 {
            switch(Some(*bug));
            explain(*setting, &tape, SHORT, &failure);
            switch(None);
        }
    }
    // By default the test above runs the only seed of these.
    let alone =
        on_all_processors(blameless.iter().filter(|_| wanted.is_some()), |(place, seed)| {
            let setting = SETTINGS[usize::from(*place)];
            let failure = run(setting, Tape::of_seed(*seed), SHORT, false).failure?;
            Some(format!("{setting:?}, seed {seed} alone: {failure}"))
        });
    wrong.extend(alone.into_iter().flatten());
    println!("{} of {} deliberate bugs were looked for", bugs.len(), BUGS.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// `WXTOKEN_TEST_WRITE=1` writes the table anew.
#[test]
fn the_guide_has_the_table_of_the_bugs_that_are_looked_for() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/simulation.md");
    let guide = fs::read_to_string(path).unwrap();
    let begin = "| bug | in | within | as |\n";
    let (before, rest) = guide.split_once(begin).expect("a table of bugs");
    let length: usize =
        rest.split_inclusive('\n').take_while(|it| it.starts_with('|')).map(str::len).sum();
    let rows = BUGS.iter().map(|(bug, setting, _, within, expected)| {
        format!("| `{bug:?}` | {setting:?} | {within} | {expected} |\n")
    });
    let table = format!("| --- | --- | ---: | --- |\n{}", rows.collect::<String>());
    if env::var_os("WXTOKEN_TEST_WRITE").is_some() {
        return fs::write(path, [before, begin, &table, &rest[length..]].concat()).unwrap();
    }
    assert!(rest[..length] == table, "the table of docs/simulation.md is: {begin}{table}");
}
