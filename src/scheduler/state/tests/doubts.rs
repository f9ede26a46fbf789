//! Reports that no probe can verify.

use super::*;

#[test]
fn while_probes_cannot_tell_one_client_alone_has_no_token_replaced() {
    for rules in [Rules::Stable, Rules::Classic, Rules::Work] {
        let mut sim = SimulatedAccount::on(rules);
        let document = sim.document("T1", 7200);
        let (mut probes, mut requests, mut told) = (0, 0, 0);
        while sim.elapsed < secs(6000) {
            let (wait, job) = sim.next(Some(&document));
            let step = match (sim.report("T1"), wait.is_zero()) {
                (Step::Start(job), _) => Step::Start(job),
                (_, true) => Step::Start(job),
                (step, false) => step,
            };
            match step {
                Step::Start(job) => {
                    let attempt = match rejected(job.clone()).probe {
                        ProbeKind::None => sim.attempt(job),
                        _ => {
                            probes += 1;
                            sim.probe(job, unknown()).1
                        }
                    };
                    let events = match attempt {
                        None => sim.end(),
                        Some(attempt) => {
                            assert!(!attempt.may_force, "{rules:?}");
                            assert_ne!(rules, Rules::Classic, "a request would be a mint");
                            requests += 1;
                            sim.finish(JobReport {
                                counts_as_forced: rules == Rules::Work,
                                ..match rules {
                                    Rules::Work => {
                                        outcome(Ok(Outcome::Confirmed(document.clone())))
                                    }
                                    _ => {
                                        let withheld = UpstreamError::Withheld;
                                        outcome(Err(RefreshError::Upstream(withheld)))
                                    }
                                }
                            })
                        }
                    };
                    told += events
                        .iter()
                        .filter(|event| matches!(event, Event::Unproven { .. }))
                        .count();
                }
                Step::Fail(unavailable) => {
                    let is_quota = unavailable.why.contains("30 seconds");
                    let is_unproven = unavailable.why.contains("one client");
                    assert!(is_unproven || is_quota, "{}", unavailable.why);
                    assert!(unavailable.retry_after >= secs(1), "{unavailable:?}");
                    assert!(!unavailable.why.contains("T1"));
                }
                Step::Wait(Some(_)) => {}
                step => panic!("{step:?}"),
            }
            assert_eq!(sim.step(&TokenDemand::Live, Some("T1")), Step::Serve, "{rules:?}");
            sim.pass(secs(1));
        }
        assert!((100..=5 + 6000 / 30).contains(&probes), "{rules:?}: {probes}");
        assert!(requests <= probes, "{rules:?}: {requests}");
        assert_eq!(told, 1, "{rules:?}: the operator learns of it once");
    }
}

#[test]
fn while_probes_cannot_tell_two_clients_or_wechat_itself_have_a_token_replaced() {
    for rules in [Rules::Stable, Rules::Classic] {
        for second in [Witness::Client(client("two")), Witness::WeChat] {
            let mut sim = SimulatedAccount::on(rules);
            let Step::Start(job) = sim.report_of("one", "T1") else { panic!("no job") };
            let (_, attempt) = sim.probe(job, unknown());
            assert!(attempt.is_none_or(|attempt| !attempt.may_force), "{rules:?}");
            sim.end();
            sim.pass(secs(60));
            let demand = TokenDemand::OtherThan(token("T1"), second);
            let Step::Start(job) = sim.step(&demand, Some("T1")) else { panic!("no job") };
            let (_, attempt) = sim.probe(job, unknown());
            assert!(attempt.expect("a request").may_force, "{rules:?}");
            sim.replace("T2");
            assert_eq!(sim.step(&demand, Some("T2")), Step::Serve);
        }
    }
}

#[test]
fn reports_that_come_during_a_probe_that_cannot_tell_count_together() {
    let mut sim = SimulatedAccount::on(Rules::Classic);
    let Step::Start(job) = sim.report_of("one", "T1") else { panic!("no job") };
    sim.start(job);
    assert_eq!(sim.report_of("two", "T1"), Step::Wait(None));
    let now = sim.now();
    sim.state.note_liveness(token("T1"), unknown(), now);
    assert!(sim.state.attempt(now).expect("a request").may_force);
}

#[test]
fn while_probes_cannot_tell_clients_use_up_a_quarter_of_a_days_forced_requests_at_most() {
    for (rules, expected) in [(Rules::Stable, 5), (Rules::Classic, 50), (Rules::Work, 50)] {
        let mut sim = SimulatedAccount::on(rules);
        let (mut replaced, mut last) = (0, None::<Duration>);
        while sim.elapsed < secs(86_400) - secs(1) {
            let name = format!("T{replaced}");
            if let Step::Start(job) = sim.step(&verified(), Some(&name)) {
                let (_, attempt) = sim.probe(job, unknown());
                assert_eq!(attempt, None, "a suspicion");
                sim.end();
                assert_eq!(sim.step(&verified(), Some(&name)), Step::Serve);
            }
            for by in ["one", "two"] {
                let Step::Start(job) = sim.report_of(by, &name) else { continue };
                let attempt = match rejected(job.clone()).probe {
                    ProbeKind::None => sim.attempt(job),
                    _ => sim.probe(job, unknown()).1,
                };
                let is_forced = attempt.as_ref().is_some_and(|it| it.may_force)
                    || (rules == Rules::Work && attempt.is_some());
                match is_forced {
                    true => {
                        assert!(last.is_none_or(|last| sim.elapsed - last >= secs(30)));
                        last = Some(sim.elapsed);
                        replaced += 1;
                        sim.replace(&format!("T{replaced}"));
                        break;
                    }
                    false => drop(sim.end()),
                }
            }
            // For an hour after the last one each second is tried, and then, to be done soon, each minute.
            let is_quiet = last.is_some_and(|last| sim.elapsed > last + secs(3600));
            sim.pass(secs(if is_quiet { 60 } else { 1 }));
        }
        assert_eq!(replaced, expected, "{rules:?}");
        sim.found_dead(&format!("T{replaced}"));
        assert!(sim.state.check_forced(Certainty::Known, sim.now()).is_ok(), "{rules:?}");
    }
}

/// As if WeChat takes more time than a client can wait.
#[test]
fn a_doubt_is_probed_again_on_schedule_and_ends_with_what_wechat_says() {
    for (later, is_dead) in [(Liveness::Alive, false), (Liveness::Dead, true)] {
        let mut sim = SimulatedAccount::on(Rules::Classic);
        let document = sim.document("T1", 7200);
        let Step::Start(job) = sim.report("T1") else { panic!("no job") };
        sim.probe(job, unknown());
        sim.end();
        let (wait, job) = sim.next(Some(&document));
        assert_eq!((wait, rejected(job.clone()).probe), (secs(5), ProbeKind::Scheduled));
        sim.pass(wait);
        let (_, attempt) = sim.probe(job, later);
        assert_eq!(attempt.is_some_and(|attempt| attempt.may_force), is_dead);
        sim.end();
        let (wait, job) = sim.next(Some(&document));
        match is_dead {
            true => assert!(wait <= MIN_INTERVAL && matches!(job, Job::Resolve(_))),
            false => assert_eq!((wait, job), (secs(6895), Job::Refresh)),
        }
    }
}

#[test]
fn a_doubt_without_further_reports_ends_after_ten_minutes() {
    let mut sim = SimulatedAccount::on(Rules::Classic);
    let document = sim.document("T1", 7200);
    let Step::Start(job) = sim.report("T1") else { panic!("no job") };
    sim.probe(job, unknown());
    sim.end();
    let mut probes = 0;
    while sim.elapsed < secs(3600) {
        let (wait, job) = sim.next(Some(&document));
        sim.pass(wait.max(secs(1)).min(secs(15)));
        if wait.is_zero() && matches!(job, Job::Resolve(_)) {
            sim.probe(job, unknown());
            sim.end();
            probes += 1;
        }
    }
    assert!((5..=8).contains(&probes), "{probes}");
}

#[test]
fn a_token_that_is_due_is_replaced_on_schedule_whatever_is_said_of_it() {
    let mut sim = SimulatedAccount::on(Rules::Classic);
    let document = sim.document("T1", 7200);
    sim.pass(secs(6898));
    let Step::Start(job) = sim.report("T1") else { panic!("no job") };
    sim.probe(job, unknown());
    sim.end();
    sim.pass(secs(2));
    assert_eq!(sim.next(Some(&document)), (secs(0), Job::Refresh));
    assert_eq!(sim.attempt(Job::Refresh).map(|it| it.request), Some(TokenRequest::Live));
    sim.end();
    sim.pass(secs(300));
    assert_eq!(sim.step(&other_than("T1", "one"), None), Step::Start(Job::Refresh), "expired");
}

#[test]
fn a_report_that_cannot_be_verified_does_not_move_the_refresh_of_a_token_that_is_due() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    let document = sim.document("T1", 7200);
    sim.pass(secs(6898));
    let Step::Start(job) = sim.report("T1") else { panic!("no job") };
    sim.probe(job, unknown());
    sim.finish(outcome(Err(RefreshError::Upstream(UpstreamError::Withheld))));
    sim.pass(secs(2));
    assert_eq!(sim.next(Some(&document)), (secs(0), Job::Refresh));
}

#[test]
fn a_probe_leaves_what_an_operator_asked_for_to_the_next_request() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    let document = sim.document("T1", 7200);
    sim.pass(secs(100));
    let now = sim.now();
    sim.state.reset(now);
    sim.state.note_secret();
    let Step::Start(job) = sim.step(&verified(), Some("T1")) else { panic!("no job") };
    sim.probe(job, Liveness::Alive);
    sim.finish(JobReport::default());
    sim.pass(secs(1));
    assert_eq!(sim.next(Some(&document)), (secs(0), Job::Refresh), "the AppSecret is compared");
    let now = sim.now();
    assert!(sim.state.start(Job::Refresh, now), "WeChat is asked in spite of a remembered refusal");
}

#[test]
fn a_report_that_has_no_token_replaced_costs_none_of_the_replacements() {
    let mut account = SimulatedAccount::on(Rules::Stable);
    let Step::Start(job) = account.report("T0") else { panic!("no probe") };
    for _ in 0..50 {
        account.run(job.clone(), JobReport::default());
    }
    let now = account.now();
    assert!(account.state.renewal_quota.check(now).is_ok());
}

#[test]
fn the_operator_learns_once_in_ten_minutes_that_a_token_stays_on_the_word_of_one_client() {
    let mut sim = SimulatedAccount::on(Rules::Classic);
    for (pause, expected) in [(0, true), (60, false), (599, false), (600, true)] {
        sim.pass(secs(pause));
        let Step::Start(job) = sim.report("T1") else { panic!("no job") };
        sim.probe(job, unknown());
        let events = sim.end();
        let is_told = matches!(events[..], [Event::Unproven { .. }]);
        assert_eq!(is_told, expected, "after {pause} s: {events:?}");
    }
}

#[test]
fn the_word_of_a_second_client_counts_at_once_when_wechat_could_not_be_asked() {
    let mut sim = SimulatedAccount::on(Rules::Classic);
    let Step::Start(job) = sim.report_of("one", "T1") else { panic!("no job") };
    sim.probe(job, unknown());
    sim.end();
    sim.pass(Duration::from_millis(900));
    let unavailable = failed(sim.report_of("one", "T1"));
    assert!(unavailable.why.contains("one client"), "{unavailable:?}");
    let Step::Start(job) = sim.report_of("two", "T1") else { panic!("no job") };
    assert_eq!(rejected(job.clone()).probe, ProbeKind::None, "WeChat has just been asked");
    assert!(sim.attempt(job).expect("a request").may_force);
    sim.replace("T2");
    // What was said of the old token counts for no new one.
    sim.pass(secs(30));
    let Step::Start(job) = sim.report_of("three", "T2") else { panic!("no job") };
    assert_eq!(sim.probe(job, unknown()).1, None);
}

#[test]
fn what_was_said_of_one_token_counts_for_no_other() {
    let mut sim = SimulatedAccount::on(Rules::Classic);
    for (by, name) in [("one", "T1"), ("two", "T2")] {
        let Step::Start(job) = sim.report_of(by, name) else { panic!("no job") };
        assert_eq!(sim.probe(job, unknown()).1, None, "{name}");
        sim.end();
    }
    // A probe of another token says nothing of the doubt.
    let now = sim.now();
    sim.state.note_liveness(token("T1"), Liveness::Alive, now);
    let Step::Start(job) = sim.report_of("three", "T2") else { panic!("no job") };
    assert!(sim.probe(job, unknown()).1.expect("a request").may_force);
}

/// It is about the refresh of a token that is due, say.
#[test]
fn a_failure_of_the_schedule_outlasts_what_a_probe_says_of_a_token() {
    for liveness in [Liveness::Alive, unknown()] {
        let mut sim = SimulatedAccount::on(Rules::Classic);
        sim.run(Job::Refresh, outcome(Err(refused(-1))));
        sim.pass(secs(2));
        let Step::Start(job) = sim.report("T1") else { panic!("no job") };
        let (mut events, attempt) = sim.probe(job, liveness);
        assert_eq!(attempt, None);
        events.extend(sim.end());
        assert!(!events.contains(&Event::Recovered), "{events:?}");
        assert!(sim.state.failure().is_some());
    }
}

/// Two clients had it requested, and what they said counts for ten minutes.
#[test]
fn a_failure_to_replace_a_token_ends_when_it_may_be_replaced_no_longer() {
    let mut sim = SimulatedAccount::on(Rules::Classic);
    let document = sim.document("T1", 7200);
    for by in ["one", "two"] {
        let Step::Start(job) = sim.report_of(by, "T1") else { panic!("no job") };
        sim.probe(job, unknown());
        match by {
            "one" => sim.end(),
            _ => sim.finish(outcome(Err(refused(45009)))),
        };
        sim.pass(secs(1));
    }
    let (wait, _) = sim.next(Some(&document));
    assert!(wait > secs(600), "as WeChat wants it: {wait:?}");
    assert!(sim.state.failure().is_some());
    sim.pass(wait);
    let (wait, job) = sim.next(Some(&document));
    assert_eq!((wait, rejected(job.clone()).probe), (secs(0), ProbeKind::Scheduled));
    assert_eq!(sim.probe(job, unknown()).1, None, "the reports are too old");
    sim.end();
    assert_eq!(sim.state.failure(), None);
    assert_eq!(sim.next(Some(&document)).1, Job::Refresh);
}

/// Normal requests may succeed, and no report is left to be resolved.
#[test]
fn a_doubt_does_not_outlast_its_reports_because_a_forced_request_has_failed() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    let document = sim.document("T1", 7200);
    let Step::Start(job) = sim.report("T1") else { panic!("no job") };
    sim.start(job);
    sim.report_of("another", "T1");
    let now = sim.now();
    sim.state.note_liveness(token("T1"), unknown(), now);
    sim.finish(JobReport { ended_forced: true, ..outcome(Err(refused(45009))) });
    sim.pass(secs(600));
    assert_eq!(sim.next(Some(&document)), (secs(6300), Job::Refresh));
}

#[test]
fn a_mirror_asks_its_source_as_usual_after_a_mere_suspicion_could_not_be_passed_on() {
    let mut sim = SimulatedAccount::on(Rules::Mirror);
    let document = sim.document("T1", 7200);
    let Step::Start(job) = sim.report("T1") else { panic!("no job") };
    sim.run(job, outcome(Err(RefreshError::Upstream(UpstreamError::Withheld))));
    sim.pass(secs(1));
    let Step::Start(job) = sim.step(&verified(), Some("T1")) else { panic!("no job") };
    sim.run(job, outcome(Err(RefreshError::Upstream(UpstreamError::Status(502)))));
    assert_eq!(sim.next(Some(&document)), (secs(2), Job::Refresh));
}

#[test]
fn a_token_that_is_due_when_it_would_be_probed_is_replaced_instead() {
    for (age, is_probed) in [(6894, true), (6895, false)] {
        let mut sim = SimulatedAccount::on(Rules::Classic);
        let document = sim.document("T1", 7200);
        sim.pass(secs(age));
        let Step::Start(job) = sim.report("T1") else { panic!("no job") };
        sim.probe(job, unknown());
        sim.end();
        let (wait, job) = sim.next(Some(&document));
        assert_eq!((wait, job != Job::Refresh), (secs(5), is_probed), "{age}");
    }
}

#[test]
fn a_token_that_is_due_is_replaced_for_that_though_replacing_it_for_a_doubt_has_failed() {
    let mut sim = SimulatedAccount::on(Rules::Classic);
    let document = sim.document("T1", 7200);
    sim.pass(secs(6897));
    let Step::Start(job) = sim.report_of("one", "T1") else { panic!("no job") };
    sim.probe(job, unknown());
    sim.end();
    sim.pass(secs(1));
    let Step::Start(job) = sim.report_of("two", "T1") else { panic!("no job") };
    assert!(sim.probe(job, unknown()).1.expect("a request").may_force);
    sim.finish(outcome(Err(RefreshError::Upstream(UpstreamError::Status(502)))));
    let (wait, job) = sim.next(Some(&document));
    assert_eq!((wait, rejected(job).probe), (secs(2), ProbeKind::Scheduled));
    sim.pass(secs(2));
    assert_eq!(sim.next(Some(&document)), (secs(0), Job::Refresh));
}
