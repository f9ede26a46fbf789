//! Tokens of which WeChat has said that they are dead: how they are replaced, and within which quota.

use super::*;

#[test]
fn a_dead_token_is_replaced_as_soon_as_the_quota_allows() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    let Step::Start(job) = sim.report("T1") else { panic!("no job") };
    let t2 = sim.document("T2", 7200);
    let (events, _) = sim.probe(job, Liveness::Dead);
    assert!(matches!(events[..], [Event::Dead(_)]), "{events:?}");
    let events = sim.replace("T2");
    assert!(matches!(events[..], [Event::Published(_)]), "{events:?}");
    assert!(!sim.state.is_dead(&token("T1")), "T2 is published now");

    sim.pass(secs(10));
    let Step::Start(job) = sim.report("T2") else { panic!("no job") };
    let (_, attempt) = sim.probe(job, Liveness::Dead);
    assert!(!attempt.expect("a normal request").may_force);
    let withheld = Err(RefreshError::Upstream(UpstreamError::Withheld));
    sim.finish(outcome(withheld));
    // It is not handed out; clients learn when to ask again.
    let unavailable = failed(sim.step(&TokenDemand::Live, Some("T2")));
    assert_eq!(unavailable.retry_after, secs(20));
    assert!(unavailable.why.contains("30 秒"), "{}", unavailable.why);
    assert_eq!(failed(sim.report("T2")), unavailable);
    let (wait, job) = sim.next(Some(&t2));
    assert_eq!(wait, secs(20));
    assert!(!sim.attempt(job).expect("a request").may_force);
    sim.finish(outcome(Err(RefreshError::Upstream(UpstreamError::Withheld))));
    sim.pass(wait);
    let (wait, job) = sim.next(Some(&t2));
    assert_eq!(wait, secs(0));
    assert_eq!(sim.step(&TokenDemand::Live, Some("T2")), Step::Start(job.clone()));
    let request = TokenRequest::OtherThan(token("T2"));
    let expected = Attempt { request, may_force: true, dead: Some(token("T2")) };
    assert_eq!(sim.attempt(job), Some(expected));
}

#[test]
fn with_the_daily_quota_used_up_normal_requests_are_sent_for_a_dead_token_only_if_they_cost_nothing()
 {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    sim.use_up_the_day(20);
    let document = sim.document("T20", 7200);
    sim.found_dead("T20");
    let confirmed = || outcome(Ok(Outcome::Confirmed(document.clone())));
    let mut requests = 0;
    let until = sim.elapsed + secs(3600);
    while sim.elapsed < until {
        let (wait, job) = sim.next(Some(&document));
        sim.pass(wait);
        if wait.is_zero() {
            assert!(!sim.attempt(job).expect("a normal request").may_force);
            assert_eq!(sim.finish(confirmed()).len(), 1);
            requests += 1;
        }
        assert!(
            matches!(sim.step(&TokenDemand::Live, Some("T20")), Step::Fail(_)),
            "not handed out"
        );
    }
    assert!((12..=13).contains(&requests), "{requests}");

    // On other APIs every request counts. The next one is sent when the token is due.
    for rules in [Rules::Classic, Rules::Work] {
        let mut sim = SimulatedAccount::on(rules);
        sim.use_up_the_day(200);
        sim.found_dead("T200");
        let document = sim.document("T200", 7200);
        assert_eq!(sim.next(Some(&document)), (secs(6900), Job::Refresh));
    }
}

/// As if another program had used up the 20 forced requests of the day. Normal requests succeed all the same.
#[test]
fn a_dead_token_that_cannot_be_replaced_today_is_trouble_and_one_that_can_in_a_moment_is_not() {
    let mut account = SimulatedAccount::on(Rules::Stable);
    assert_eq!(account.state.cause(account.now()), None);
    account.use_up_the_day(FORCED_PER_DAY_ON_STABLE - 1);
    account.found_dead("T1");
    assert_eq!(account.state.cause(account.now()), None);
    account.use_up_the_day(1);
    account.found_dead("T1");
    let cause = account.state.cause(account.now()).flatten().expect("a cause");
    assert!(cause.message.contains("as often as a day allows"), "{}", cause.message);
    let mut account = SimulatedAccount::on(Rules::Stable);
    account.use_up_the_day(FORCED_PER_DAY_ON_STABLE);
    assert_eq!(account.state.cause(account.now()), None, "the last token is good");
}

#[test]
fn while_forced_requests_fail_the_schedule_goes_on_and_clients_get_the_reason() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    let document = sim.document("T1", 7200);
    let Step::Start(job) = sim.report("T1") else { panic!("no job") };
    sim.start(job);
    sim.report_of("another", "T1");
    let now = sim.now();
    sim.state.note_liveness(token("T1"), unknown(), now);
    assert!(sim.state.attempt(now).expect("a request").may_force);
    sim.finish(JobReport { ended_forced: true, ..outcome(Err(refused(45009))) });
    assert_eq!(
        sim.step(&TokenDemand::Live, Some("T1")),
        Step::Serve,
        "nothing says that it is dead"
    );
    assert_eq!(sim.next(Some(&document)).0, secs(5), "it is probed again");
    assert_eq!(sim.state.failure(), None);

    sim.found_dead("T1");
    let unavailable = failed(sim.step(&TokenDemand::Live, Some("T1")));
    assert!(
        unavailable.why.contains("45009") && unavailable.retry_after > secs(3000),
        "{unavailable:?}"
    );
    assert!(sim.state.failure().is_some());
    let (wait, job) = sim.next(Some(&document));
    assert!(wait <= MIN_INTERVAL);
    assert!(!sim.attempt(job).expect("a normal request, at once").may_force);
    sim.finish(outcome(Ok(Outcome::Confirmed(document.clone()))));
    assert_eq!(sim.next(Some(&document)).0, secs(300), "then every five minutes");
    sim.pass(secs(3600));
    let (_, job) = sim.next(Some(&document));
    assert!(sim.attempt(job).expect("the retry of the forced one").may_force);
}

#[test]
fn while_wecom_issues_a_dead_token_again_a_request_is_sent_every_thirty_seconds() {
    let mut sim = SimulatedAccount::on(Rules::Work);
    let document = sim.document("T1", 7200);
    sim.found_dead("T1");
    let mut requests = 0;
    let until = sim.elapsed + secs(3600);
    while sim.elapsed < until {
        let (wait, job) = sim.next(Some(&document));
        sim.pass(wait);
        if wait.is_zero() {
            let confirmed = outcome(Ok(Outcome::Confirmed(document.clone())));
            assert!(sim.attempt(job).is_some());
            sim.finish(JobReport { counts_as_forced: true, ..confirmed });
            requests += 1;
            let step = sim.step(&TokenDemand::Live, Some("T1"));
            assert!(matches!(step, Step::Fail(_)), "not handed out: {step:?}");
        }
    }
    assert!((100..=121).contains(&requests), "{requests}");
}

#[test]
fn a_token_published_by_another_process_ends_what_is_known_of_the_dead_one() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    sim.found_dead("T1");
    let document = sim.document("T2", 7200);
    assert_eq!(sim.next(Some(&document)), (secs(6900), Job::Refresh));
    assert_eq!(sim.step(&other_than("T1", "one"), Some("T2")), Step::Serve);
    assert_eq!(sim.step(&verified(), Some("T1")), {
        // T1 is published again, and not known to be dead any more.
        let rejected = RejectedToken {
            token: token("T1"),
            probe: ProbeKind::Awaited,
            is_reported: false,
            client: Some((client("sdk"), ProbeReason::Suspicion)),
        };
        Step::Start(Job::Resolve(rejected))
    });
}

/// By WeChat's rules a normal request brings another token only after one was forced. An upstream that mints at each request,
/// and calls each token dead, must not be asked as often as clients call.
#[test]
fn an_upstream_that_issues_dead_tokens_is_asked_for_few() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    let mut published = 0;
    let (mut served, mut rationed) = (0, 0);
    for _ in 0..3600 {
        sim.pass(secs(1));
        let name = format!("T{published}");
        match sim.report(&name) {
            Step::Start(job) => {
                let (_, attempt) = match &job {
                    Job::Resolve(rejected) if rejected.probe != ProbeKind::None => {
                        sim.probe(job, Liveness::Dead)
                    }
                    _ => (Vec::new(), sim.attempt(job)),
                };
                match attempt {
                    Some(_) => {
                        published += 1;
                        let renewed =
                            Outcome::Renewed(sim.document(&format!("T{published}"), 7200));
                        let events = sim.finish(outcome(Ok(renewed)));
                        rationed +=
                            events.iter().filter(|it| matches!(it, Event::Rationed(_))).count();
                    }
                    None => drop(sim.end()),
                }
            }
            Step::Fail(unavailable) => {
                assert!(unavailable.retry_after <= secs(30), "{unavailable:?}");
                assert!(unavailable.why.contains("base_url"), "{unavailable:?}");
                let document = sim.document(&name, 7200);
                let (wait, _) = sim.next(Some(&document));
                assert!(wait > Duration::ZERO && wait <= secs(30), "{wait:?}");
            }
            _ => served += 1,
        }
    }
    assert!((120..=20 + 120).contains(&published), "{published}");
    assert!(rationed > 0 && served < 3600);
}

/// Another program forces tokens as often as WeChat allows. Each time a normal request brings the new one.
#[test]
fn tokens_that_another_program_forces_are_taken_over_each_time() {
    let mut sim = SimulatedAccount::on(Rules::Stable);
    for n in 0..20 {
        sim.pass(secs(30));
        let Step::Start(job) = sim.report(&format!("T{n}")) else { panic!("no job: {n}") };
        assert!(sim.probe(job, Liveness::Dead).1.is_some(), "{n}");
        let renewed = Outcome::Renewed(sim.document(&format!("T{}", n + 1), 7200));
        sim.finish(outcome(Ok(renewed)));
    }
}

#[test]
fn the_last_dead_token_is_forgotten_once_wechat_honours_it_and_only_then() {
    let mut account = SimulatedAccount::on(Rules::Stable);
    let now = account.now();
    account.state.note_liveness(token("T0"), Liveness::Dead, now);
    account.state.note_liveness(token("T1"), Liveness::Alive, now);
    assert!(account.state.was_found_dead("T0"));
    account.state.note_liveness(token("T0"), Liveness::Alive, now);
    assert!(!account.state.was_found_dead("T0"));
}
