//! What clients get when a refresh has failed, and when WeChat is asked again.

use super::*;

#[test]
fn clients_without_a_token_all_wait_for_one_job() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    assert_eq!(sim.step(&TokenDemand::Live, None), Step::Start(Job::Refresh));
    sim.start(Job::Refresh);
    for demand in [TokenDemand::Live, verified(), other_than("T1", "one")] {
        assert_eq!(sim.step(&demand, None), Step::Wait(None));
    }
    let renewed = Outcome::Renewed(sim.document("T1", 7200));
    assert_eq!(
        sim.finish(outcome(Ok(renewed))),
        [Event::Published(format!("token {}", token("T1").fingerprint()))]
    );
    assert_eq!(sim.step(&TokenDemand::Live, Some("T1")), Step::Serve);
}

#[test]
fn after_a_failure_clients_get_it_at_once_until_a_refresh_succeeds() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    let events = sim.run(Job::Refresh, outcome(Err(refused(-1))));
    assert!(
        matches!(&events[..], [Event::Failed { pause, .. }] if *pause == secs(2)),
        "{events:?}"
    );
    let unavailable = failed(sim.step(&TokenDemand::Live, None));
    assert_eq!(unavailable.retry_after, secs(2));
    assert!(
        unavailable.why.contains("shop") && unavailable.why.contains("系统繁忙"),
        "{}",
        unavailable.why
    );
    assert_eq!(sim.next(None), (secs(2), Job::Refresh));

    // The same failure again is not logged, and the pause is longer. Clients get it all the same, also during the retry.
    sim.pass(secs(2));
    assert_eq!(sim.run(Job::Refresh, outcome(Err(refused(-1)))), []);
    assert_eq!(sim.next(None).0, secs(4));
    sim.pass(secs(4));
    sim.start(Job::Refresh);
    let during = failed(sim.step(&TokenDemand::Live, None)).retry_after;
    assert_eq!(during, Unavailable::DURING_ATTEMPT, "not at once, again and again");

    let renewed = Outcome::Renewed(sim.document("T1", 7200));
    let events = sim.finish(outcome(Ok(renewed)));
    assert_eq!(events[0], Event::Recovered);
    assert_eq!(sim.state.failure(), None);
    assert_eq!(sim.step(&TokenDemand::Live, Some("T1")), Step::Serve);
}

#[test]
fn the_same_failure_is_logged_every_ten_minutes() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    let mut lines = 0;
    while sim.elapsed < secs(3600) {
        lines += sim.run(Job::Refresh, outcome(Err(refused(-1)))).len();
        let (wait, _) = sim.next(None);
        sim.pass(wait);
    }
    assert!((5..=6).contains(&lines), "{lines}");
}

#[test]
fn a_failure_withholds_a_live_token_only_from_a_client_that_reported_it() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    sim.run(Job::Refresh, outcome(Err(refused(-1))));
    assert_eq!(sim.step(&TokenDemand::Live, Some("T1")), Step::Serve);
    let unavailable = failed(sim.report("T1"));
    assert!(
        unavailable.why.contains("系统繁忙"),
        "there is no other token for the client: {}",
        unavailable.why
    );
}

#[test]
fn what_a_person_must_fix_is_retried_rarely_and_at_once_after_a_reset() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    sim.run(Job::Refresh, outcome(Err(refused(40125))));
    assert_eq!(sim.next(None).0, secs(3600));
    sim.pass(secs(10));
    let now = sim.now();
    sim.state.reset(now);
    assert_eq!(sim.next(None).0, secs(0));
    assert_eq!(
        sim.step(&TokenDemand::Live, None),
        Step::Start(Job::Refresh),
        "a retry is worth waiting for"
    );
    // It was not fixed: the failure is logged again, with the same pause.
    let events = sim.run(Job::Refresh, outcome(Err(refused(40125))));
    assert!(
        matches!(&events[..], [Event::Failed { pause, .. }] if *pause == secs(3600)),
        "{events:?}"
    );
}

#[test]
fn a_reset_during_a_job_leads_to_another_one_a_second_later() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    for _ in 0..10 {
        sim.start(Job::Refresh);
        for _ in 0..100 {
            let now = sim.now();
            sim.state.reset(now);
        }
        sim.finish(outcome(Err(refused(40125))));
        assert_eq!(sim.next(None), (MIN_INTERVAL, Job::Refresh));
        sim.pass(MIN_INTERVAL);
    }
    sim.run(Job::Refresh, outcome(Err(refused(40125))));
    assert_eq!(sim.next(None).0, secs(3600), "no further reset");
}

#[test]
fn clients_get_nothing_of_this_machine_and_the_log_gets_all() {
    let refusal = || Refusal::new(40013, "no", CallKind::RequestsToken, Platform::Official);
    let [detail, wait] =
        ["/opt/wx/wxtoken fetch --force --config /etc/x.toml shop", "10.1.2.3:3128"];
    let (until, at_once) = (UtcDateTime::UNIX_EPOCH, || detail.to_owned());
    let hour = secs(3600);
    let upstream = RefreshError::Upstream;
    let unreachable = || UpstreamError::unreachable(format!("no route ({wait})"), true, true);
    let central = UpstreamError::Central {
        what: format!("Check it. cannot reach it [{wait}]"),
        is_lasting: false,
        was_reached: false,
    };
    for (failure, hidden, told) in [
        (
            RefreshError::Local(anyhow::anyhow!("cannot write {detail}")),
            detail,
            "it has a local fault",
        ),
        (
            upstream(UpstreamError::StillRefused {
                refusal: refusal(),
                until,
                wait: hour,
                at_once: at_once(),
            }),
            detail,
            "(40013)",
        ),
        (
            upstream(UpstreamError::Rationed { lost: 30, until, wait: hour, at_once: at_once() }),
            detail,
            "30 answers",
        ),
        (upstream(unreachable()), wait, "it cannot reach WeChat"),
        (upstream(central), wait, "it cannot reach the wxtoken"),
        (
            RefreshError::AnswerLost { error: unreachable(), ends_at: until },
            wait,
            "The answer may be lost",
        ),
    ] {
        let mut sim = SimulatedAccount::on(Rules::Stable);
        let events = sim.run(Job::Refresh, outcome(Err(failure)));
        let [Event::Failed { message, .. }] = &events[..] else { panic!("{events:?}") };
        assert!(message.contains(hidden), "{message}");
        let unavailable = failed(sim.step(&TokenDemand::Live, None));
        for text in [unavailable.why, sim.state.failure().expect("it failed").message] {
            assert!(text.contains(told) && !text.contains(hidden), "{text}");
        }
    }
}

#[test]
fn no_two_jobs_start_within_a_second_though_the_document_is_gone() {
    let mut sim = SimulatedAccount::on(Rules::Classic);
    let renewed = Outcome::Renewed(sim.document("T1", 7200));
    sim.run(Job::Refresh, outcome(Ok(renewed)));
    let later = sim.now() + MIN_INTERVAL;
    assert_eq!(sim.step(&TokenDemand::Live, None), Step::Wait(Some(later)));
    assert_eq!(sim.next(None).0, MIN_INTERVAL);
    sim.pass(MIN_INTERVAL);
    assert_eq!(sim.step(&TokenDemand::Live, None), Step::Start(Job::Refresh));
    assert_eq!(sim.next(None).0, secs(0));
}

#[test]
fn a_report_that_could_not_be_resolved_is_resolved_at_the_announced_retry() {
    for (later, is_dead) in [(Liveness::Alive, false), (Liveness::Dead, true)] {
        let mut sim = SimulatedAccount::on(Rules::Stable);
        let document = sim.document("T1", 7200);
        let Step::Start(job) = sim.report("T1") else { panic!("no job") };
        sim.probe(job, unknown());
        let failure = RefreshError::Upstream(UpstreamError::Status(502));
        let events = sim.finish(outcome(Err(failure)));
        let pause = events.iter().find_map(|event| match event {
            Event::Failed { pause, .. } => Some(*pause),
            _ => None,
        });
        let pause = pause.expect("the failure is logged, and when it is retried");
        let (wait, job) = sim.next(Some(&document));
        assert_eq!(wait, pause);
        sim.pass(pause);
        let (mut events, _) = sim.probe(job, later);
        events.extend(sim.end());
        assert_eq!(events.contains(&Event::Recovered), !is_dead, "{events:?}");
        assert_eq!(sim.state.is_dead(&token("T1")), is_dead);
        assert_eq!(sim.state.failure().is_none(), !is_dead);
    }
}

#[test]
fn a_failure_ends_at_the_announced_retry_if_another_process_has_published() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    sim.start(Job::Refresh);
    sim.finish(outcome(Err(RefreshError::Upstream(UpstreamError::Status(502)))));
    let document = sim.document("T1", 7200);
    let (wait, job) = sim.next(Some(&document));
    assert!(wait < secs(5), "{wait:?}");
    sim.pass(wait);
    let events = sim.run(job, outcome(Ok(Outcome::Kept(document.clone()))));
    assert_eq!(events, [Event::Recovered]);
    assert!(sim.next(Some(&document)).0 > secs(6000));
}

#[test]
fn a_token_that_was_kept_is_not_said_to_be_published() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    let document = sim.document("T1", 7200);
    assert!(sim.run(Job::Refresh, outcome(Ok(Outcome::Kept(document.clone())))).is_empty());
    assert_eq!(sim.state.status().succeeded_at, None);
    let events = sim.run(Job::Refresh, outcome(Ok(Outcome::Confirmed(document))));
    assert!(matches!(events[..], [Event::Published(_)]), "{events:?}");
    assert_eq!(sim.state.status().succeeded_at, Some(sim.wall().wall));
}

#[test]
fn the_first_job_that_asks_wechat_takes_up_what_an_operator_asked_for() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    let start = |sim: &mut SimulatedAccount, job: &Job| {
        let now = sim.now();
        sim.state.start(job.clone(), now)
    };
    let Step::Start(report) = sim.report("T1") else { panic!("no job") };
    for (job, attempts) in
        [(Job::Refresh, vec![]), (Job::Refresh, vec![("ok", 0)]), (report, vec![("ok", 0)])]
    {
        let now = sim.now();
        sim.state.reset(now);
        assert!(start(&mut sim, &job), "{job:?}");
        sim.finish(JobReport { attempts, ..JobReport::default() });
        assert!(!start(&mut sim, &job), "{job:?}");
        sim.end();
    }
}

#[test]
fn a_secret_that_was_read_is_compared_once_and_a_mirror_has_none() {
    for (rules, first) in [(Rules::Stable, secs(0)), (Rules::Mirror, secs(30))] {
        let mut sim = SimulatedAccount::on(rules);
        let document = sim.document("T1", 7200);
        sim.state.note_secret();
        assert_eq!(sim.next(Some(&document)), (first, Job::Refresh), "{rules:?}");
        sim.run(Job::Refresh, outcome(Ok(Outcome::Kept(document.clone()))));
        assert!(sim.next(Some(&document)).0 > secs(20), "{rules:?}");
    }
}

/// The document keeps the time when it was published.
#[test]
fn a_mirrored_token_that_its_source_has_confirmed_is_asked_for_again_half_a_minute_later() {
    let mut sim = SimulatedAccount::on(Rules::Mirror);
    let document = sim.document("T1", 7200);
    sim.pass(secs(100));
    assert_eq!(sim.next(Some(&document)).0, secs(0));
    sim.run(Job::Refresh, outcome(Ok(Outcome::Confirmed(document.clone()))));
    assert_eq!(sim.next(Some(&document)).0, secs(30));
}

#[test]
fn a_token_that_has_expired_is_requested_though_another_was_forced_a_moment_ago() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    let Step::Start(job) = sim.report("T1") else { panic!("no job") };
    sim.probe(job, Liveness::Dead);
    sim.replace("T2");
    sim.pass(secs(10));
    assert!(sim.state.check_forced(Certainty::Known, sim.now()).is_err());
    assert_eq!(sim.step(&TokenDemand::Live, None), Step::Start(Job::Refresh));
}
