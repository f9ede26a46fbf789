//! Reports of rejected tokens: which are probed, when, and what a verdict means.

use super::*;

/// As by an SDK with a bug, or a client that wants the token to be replaced all the time.
#[test]
fn repeated_reports_about_a_live_token_cost_five_probes_and_then_two_a_minute() {
    for demand in [other_than("T1", "one"), verified()] {
        let mut sim = SimulatedAccount::on(Rules::Stable);
        let mut probes = 0;
        while sim.elapsed < secs(600) {
            match sim.step(&demand, Some("T1")) {
                Step::Serve => {}
                Step::Start(job) => {
                    probes += 1;
                    let (_, attempt) = sim.probe(job, Liveness::Alive);
                    assert_eq!(attempt, None);
                    assert_eq!(sim.step(&demand, Some("T1")), Step::Serve, "{demand:?}");
                    sim.end();
                    assert_eq!(sim.step(&demand, Some("T1")), Step::Serve, "{demand:?}");
                }
                step => panic!("{step:?}"),
            }
            sim.pass(Duration::from_millis(10));
        }
        assert!((20..=5 + 600 / 30).contains(&probes), "{probes}");
    }
}

/// A verdict used to hold for half a minute after a start: that of the workers had used up the probes.
#[test]
fn a_token_that_dies_just_after_workers_have_started_is_probed_at_the_next_suspicion_and_report() {
    for demand in [other_than("T1", "sdk"), verified()] {
        let mut sim = SimulatedAccount::on(Rules::Stable);
        // Fifty workers start within three seconds, with one key.
        for _ in 0..50 {
            if let Step::Start(job) = sim.step(&verified(), Some("T1")) {
                sim.probe(job, Liveness::Alive);
                sim.end();
            }
            sim.pass(Duration::from_millis(60));
        }
        sim.pass(secs(1));
        let Step::Start(job) = sim.step(&demand, Some("T1")) else { panic!("{demand:?}: no job") };
        sim.probe(job, Liveness::Dead);
        assert!(sim.state.is_dead(&token("T1")));
    }
}

/// Clients that keep no token ask all the time, and use up the probes for that.
#[test]
fn a_client_that_insists_has_a_probe_when_those_for_clients_that_ask_again_are_used_up() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    while let Step::Start(job) = sim.step(&verified(), Some("T1")) {
        sim.probe(job, Liveness::Alive);
        sim.end();
        sim.pass(secs(1));
    }
    let insisting = TokenDemand::Verified(client("sdk"), Suspicion::Insists);
    let Step::Start(job) = sim.step(&insisting, Some("T1")) else { panic!("no job") };
    let (_, attempt) = sim.probe(job, unknown());
    assert_eq!(attempt, None, "it is no report that names the token");
}

#[test]
fn a_report_of_a_dead_token_is_probed_at_once_whatever_one_other_client_does() {
    for demand in [other_than("T1", "liar"), verified()] {
        let mut sim = SimulatedAccount::on(Rules::Classic);
        for _ in 0..600 {
            if let Step::Start(job) = sim.step(&demand, Some("T1")) {
                sim.probe(job, Liveness::Alive);
                sim.end();
            }
            sim.pass(secs(1));
        }
        sim.pass(secs(1));
        let Step::Start(job) = sim.report_of("honest", "T1") else { panic!("{demand:?}: no job") };
        let (_, attempt) = sim.probe(job, Liveness::Dead);
        assert!(attempt.expect("a request").may_force);
    }
}

/// A token that was honoured a moment ago is no reason to wait for longer.
#[test]
fn a_report_for_which_no_probe_is_left_waits_for_the_next_one_and_about_an_unknown_token_for_one_of_the_servers_own()
 {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    let waits = (0..20).find_map(|n| match sim.report_of(&format!("client {n}"), "T1") {
        Step::Start(job) => {
            sim.probe(job, Liveness::Alive);
            sim.end();
            sim.pass(secs(1));
            None
        }
        Step::Wait(until) => until,
        step => panic!("{step:?}"),
    });
    let until = waits.expect("the probes are used up") - sim.now();
    assert!(!until.is_zero() && until < secs(5), "{until:?}");
    // Of this one nothing is known.
    let Step::Wait(Some(until)) = sim.report_of("another", "T2") else { panic!("no wait") };
    assert_eq!(until - sim.now(), secs(5));
}

#[test]
fn under_the_reports_of_ten_liars_a_report_is_probed_within_five_seconds() {
    let mut sim = SimulatedAccount::on(Rules::Classic);
    for _ in 0..60 {
        for n in 0..10 {
            if let Step::Start(job) = sim.report_of(&format!("liar {n}"), "T1") {
                sim.probe(job, Liveness::Alive);
                sim.end();
            }
        }
        sim.pass(secs(1));
    }
    let waits = (0..=5).find(|_| match sim.report_of("honest", "T1") {
        Step::Start(_) => true,
        Step::Serve => panic!("another client's probe answers no report that comes later"),
        _ => {
            sim.pass(secs(1));
            false
        }
    });
    assert!(waits.is_some());
}

#[test]
fn the_verdict_of_a_probe_counts_while_the_request_for_another_token_goes_on() {
    for rules in [Rules::Stable, Rules::Classic, Rules::Work] {
        let mut sim = SimulatedAccount::on(rules);
        let Step::Start(job) = sim.report("T1") else { panic!("no job") };
        let (events, attempt) = sim.probe(job, Liveness::Dead);
        assert!(matches!(events[..], [Event::Dead(_)]), "{events:?}");
        assert!(attempt.is_some());
        for demand in [TokenDemand::Live, verified(), other_than("T1", "another")] {
            assert_eq!(sim.step(&demand, Some("T1")), Step::Wait(None), "{rules:?} {demand:?}");
        }
        sim.replace("T2");
        assert_eq!(sim.step(&TokenDemand::Live, Some("T2")), Step::Serve);
    }
}

#[test]
fn a_suspicion_waits_only_for_a_job_that_answers_it() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    sim.start(Job::Refresh);
    assert_eq!(sim.step(&verified(), Some("T1")), Step::Serve);
    assert_eq!(sim.report("T1"), Step::Wait(None), "a report waits for any job");
    let confirmed = Outcome::Confirmed(sim.document("T1", 7200));
    sim.finish(outcome(Ok(confirmed)));
    let Step::Start(job) = sim.report("T1") else { panic!("no job") };
    sim.start(job);
    assert_eq!(sim.step(&verified(), Some("T1")), Step::Wait(None));
}

/// The gateway itself has seen that WeChat refuses the token. That WeChat honoured it a moment before says nothing.
#[test]
fn a_refusal_that_was_seen_counts_for_more_than_an_older_verdict() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    let refused = |sim: &SimulatedAccount| {
        TokenDemand::OtherThanRefused(token("T1"), client("one"), sim.now())
    };
    let Step::Start(job) = sim.report("T1") else { panic!("no job") };
    sim.probe(job, Liveness::Alive);
    sim.end();
    sim.pass(Duration::from_millis(1));
    assert_eq!(sim.report("T1"), Step::Serve, "a client's word is older than it comes");
    let first = refused(&sim);
    let Step::Start(job) = sim.step(&first, Some("T1")) else { panic!("no job") };
    let second = refused(&sim);
    sim.start(job.clone());
    assert_eq!(sim.step(&second, Some("T1")), Step::Wait(None));
    sim.pass(Duration::from_millis(1));
    let now = sim.now();
    sim.state.note_liveness(token("T1"), Liveness::Alive, now);
    sim.end();
    for demand in [first, second] {
        assert_eq!(sim.step(&demand, Some("T1")), Step::Serve, "one probe is for all before it");
    }
}

#[test]
fn a_probe_that_finds_a_token_dead_costs_the_client_that_reported_it_nothing() {
    let mut account = SimulatedAccount::on(Rules::Stable);
    for n in 0..50 {
        account.pass(secs(1));
        let Step::Start(job) = account.report(&format!("T{n}")) else { panic!("no probe of T{n}") };
        account.probe(job, Liveness::Dead);
        account.end();
    }
}

#[test]
fn the_log_says_why_wechat_was_asked_about_a_token_that_it_honours() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    let why = |events: Vec<Event>| match &events[..] {
        [Event::Accepted { why, .. }] => *why,
        events => panic!("{events:?}"),
    };
    for (demand, expected) in [
        (verified(), WhyAsked::AskedForAgain),
        (other_than("T1", "one"), WhyAsked::SaidToBeRejected),
    ] {
        sim.pass(secs(1));
        let Step::Start(job) = sim.step(&demand, Some("T1")) else { panic!("no job") };
        assert_eq!(why(sim.probe(job, Liveness::Alive).0), expected);
        sim.end();
    }
    // The job of a reload asks about a token that another secret got.
    sim.start(Job::Refresh);
    let now = sim.now();
    assert_eq!(why(sim.state.note_liveness(token("T1"), Liveness::Alive, now)), WhyAsked::InDoubt);
}

#[test]
fn what_is_known_of_a_token_is_what_wechat_said_within_a_minute() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    let evidence = |sim: &SimulatedAccount, name| sim.state.evidence(&token(name), sim.now());
    let asked_at = sim.now();
    sim.state.note_liveness(token("T1"), Liveness::Alive, asked_at);
    sim.pass(secs(59));
    assert_eq!(evidence(&sim, "T1"), TokenEvidence::Honoured(asked_at));
    assert_eq!(evidence(&sim, "T2"), TokenEvidence::None);
    sim.pass(secs(1));
    assert_eq!(evidence(&sim, "T1"), TokenEvidence::None);
    let now = sim.now();
    sim.state.note_liveness(token("T1"), unknown(), now);
    assert_eq!(evidence(&sim, "T1"), TokenEvidence::InDoubt);
}

#[test]
fn a_report_of_a_client_that_has_had_its_probes_waits_for_the_first_that_no_client_asks_for() {
    let mut sim = SimulatedAccount::on(Rules::Classic);
    for _ in 0..5 {
        let Step::Start(job) = sim.report("T1") else { panic!("no job") };
        sim.probe(job, Liveness::Alive);
        sim.end();
        sim.pass(secs(1));
    }
    assert_eq!(sim.report("T1"), Step::Serve, "it was honoured a moment ago");
    // Of this one nothing is known.
    let probe_at = sim.now() + secs(5);
    assert_eq!(sim.report("T2"), Step::Wait(Some(probe_at)));
    sim.pass(secs(4));
    assert_eq!(sim.report("T2"), Step::Wait(Some(probe_at)));
    sim.pass(secs(1));
    let Step::Start(job) = sim.report("T2") else { panic!("no job") };
    assert_eq!(rejected(job).probe, ProbeKind::Scheduled);
}

/// Such a job ends without a request of its own, or with one that its source answered.
#[test]
fn a_mirror_learns_from_its_source_whether_a_token_is_alive() {
    let withheld = || Err(RefreshError::Upstream(UpstreamError::Withheld));
    let confirmed = |sim: &SimulatedAccount| Ok(Outcome::Confirmed(sim.document("T1", 7200)));
    for is_confirmed in [true, false] {
        let mut sim = SimulatedAccount::on(Rules::Mirror);
        let Step::Start(job) = sim.report("T1") else { panic!("no job") };
        assert!(sim.attempt_of_mirror(job).may_force);
        let said = if is_confirmed { confirmed(&sim) } else { withheld() };
        sim.finish(outcome(said));
        let evidence = match is_confirmed {
            true => TokenEvidence::Honoured(sim.now()),
            false => TokenEvidence::InDoubt,
        };
        assert_eq!(sim.state.evidence(&token("T1"), sim.now()), evidence);
    }
}
