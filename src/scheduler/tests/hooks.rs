//! What the commands of `on_change` and `on_trouble` are run for.

use super::*;

/// Looks every 15 seconds at most, and not only when an attempt has failed.
#[test]
fn on_trouble_is_told_when_less_than_half_of_the_margin_is_left_and_when_it_is_over() {
    run(async |fixture| {
        let script = r#"echo "$WXTOKEN_TROUBLE $WXTOKEN_TROUBLE_LIFE" >> "$0""#;
        let (hook, told) = fixture.hook(HookKind::OnTrouble, script);
        fixture.update(|account| account.on_trouble = Some(hook));
        let told = || std::fs::read_to_string(&told).unwrap_or_default();
        let left = || fixture.published().unwrap().left(fixture.clock.now()).as_secs();
        fixture.scheduler.start();
        fixture.pass(Duration::from_secs(6800)).await;
        fixture.upstream.is_unreachable.store(true, Ordering::Relaxed);
        fixture.pass_until(|| left() <= 160).await;
        assert!(fixture.scheduler.failure(&DocumentKind::Token).is_some());
        assert_eq!(told(), "");
        fixture.pass_until(|| left() <= 100).await;
        let begin = told();
        let life: u64 = begin.strip_prefix("begin ").expect(&begin).trim().parse().unwrap();
        assert!((110..150).contains(&life), "{life}");
        fixture.pass(Duration::from_secs(200)).await;
        assert_eq!(told(), begin, "once");
        fixture.upstream.is_unreachable.store(false, Ordering::Relaxed);
        fixture.pass(Duration::from_secs(300)).await;
        let end = told();
        assert!(end.strip_prefix(&begin).is_some_and(|end| end.starts_with("end 7")), "{end}");
        assert_eq!(end.lines().count(), 2);
    });
}

#[test]
fn on_trouble_is_told_again_after_a_minute_if_it_has_failed() {
    run(async |fixture| {
        let (hook, told) = fixture.hook(HookKind::OnTrouble, r#"echo >> "$0"; exit 1"#);
        fixture.update(|account| account.on_trouble = Some(hook));
        let told = || std::fs::read_to_string(&told).map_or(0, |text| text.lines().count());
        // No job comes again meanwhile, which would hold the lock that the record is changed under.
        fixture.upstream.refuses.store(true, Ordering::Relaxed);
        fixture.scheduler.start();
        let until_told = async |count| {
            fixture.pass_until(|| told() >= count).await;
            fixture.clock.elapsed()
        };
        let (first, second) = (until_told(1).await, until_told(2).await);
        assert!((60..80).contains(&(second - first).as_secs()), "{first:?} {second:?}");
        assert!(fixture.scheduler.status().trouble_hook.unwrap().failed_at.is_some());
    });
}

#[test]
fn on_change_runs_once_for_each_token_and_its_failure_stays_until_it_is_another() {
    run(async |fixture| {
        let script = r#"echo >> "$0"; [ ! -e "$0.fails" ]"#;
        let (hook, ran) = fixture.hook(HookKind::OnChange, script);
        let count = || std::fs::read_to_string(&ran).map_or(0, |text| text.lines().count());
        let failed_at = || fixture.scheduler.status().hook.expect("a hook").failed_at;
        fixture.update(|account| account.on_change = Some(hook.clone()));
        fixture.scheduler.start();
        fixture.pass(Duration::from_secs(2)).await;
        assert_eq!((count(), failed_at()), (1, None));
        std::fs::write(ran.with_extension("fails"), "").unwrap();
        fixture.report().await.unwrap();
        fixture.scheduler.idle().await;
        assert_eq!(count(), 2);
        let failed = failed_at().expect("a failure");
        fixture.update(|account| account.on_change = Some(hook.clone()));
        assert_eq!(failed_at(), Some(failed), "it is the same hook");
        let (another, _) = fixture.hook(HookKind::OnChange, "true");
        fixture.update(|account| account.on_change = Some(another));
        assert_eq!(failed_at(), None);
    });
}

#[test]
fn a_change_during_on_change_is_followed_by_another_run_and_never_by_one_beside_it() {
    run(async |fixture| {
        let script = r#"echo >> "$0"; while [ ! -e "$0.go" ]; do sleep 0.01; done"#;
        let (hook, ran) = fixture.hook(HookKind::OnChange, script);
        let count = || std::fs::read_to_string(&ran).map_or(0, |text| text.lines().count());
        fixture.update(|account| account.on_change = Some(hook));
        let worker = &fixture.scheduler.worker;
        let run = || worker.on_change.run(|| worker.settings(), &fixture.environment);
        let mut first = pin!(run());
        while count() == 0 {
            assert!(poll_once(&mut first).await.is_pending());
            yield_now().await;
        }
        for _ in 0..3 {
            run().await;
        }
        assert_eq!(count(), 1);
        std::fs::write(ran.with_extension("go"), "").unwrap();
        first.await;
        assert_eq!(count(), 2);
        run().await;
        assert_eq!(count(), 3);
    });
}

#[test]
fn hooks_are_stopped_three_seconds_after_the_schedule() {
    run(async |fixture| {
        let flag = fixture.scheduler.worker.on_change.stop_flag();
        fixture.scheduler.start();
        fixture.scheduler.stop();
        fixture.pass(Duration::from_secs(2)).await;
        assert!(!flag.load(Ordering::Relaxed));
        fixture.pass(Duration::from_secs(2)).await;
        assert!(flag.load(Ordering::Relaxed));
    });
}

#[test]
fn a_restart_ends_no_trouble_with_a_ticket_that_is_due() {
    run(async |mut fixture| {
        let script = r#"echo "$WXTOKEN_TROUBLE" >> "$0""#;
        let (hook, told) = fixture.hook(HookKind::OnTrouble, script);
        let told = || std::fs::read_to_string(&told).unwrap_or_default();
        fixture.account.tickets = vec![TicketType::parse("jsapi").unwrap()];
        fixture.account.on_trouble = Some(hook);
        fixture.update(|_| {});
        fixture.scheduler.start();
        fixture.pass(Duration::from_secs(6800)).await;
        assert_eq!((fixture.tickets_requested(), told()), (1, String::new()));
        fixture.upstream.gives_no_tickets.store(true, Ordering::Relaxed);
        fixture.pass_until(|| !told().is_empty()).await;
        assert_eq!(told(), "begin\n");
        fixture.scheduler.stop();
        fixture.scheduler = schedule(&fixture.account, &fixture.upstream, &fixture.environment);
        fixture.scheduler.start();
        fixture.pass(Duration::from_secs(20)).await;
        assert_eq!(told(), "begin\n");
        fixture.upstream.gives_no_tickets.store(false, Ordering::Relaxed);
        fixture.pass_until(|| told() != "begin\n").await;
        assert_eq!((fixture.tickets_requested() > 1, told()), (true, "begin\nend\n".to_owned()));
    });
}

#[test]
fn on_change_for_which_there_is_no_thread_runs_as_soon_as_there_is_one_unless_the_server_ends() {
    run(async |fixture| {
        let (hook, ran) = fixture.hook(HookKind::OnChange, r#"echo >> "$0""#);
        let count = || std::fs::read_to_string(&ran).map_or(0, |text| text.lines().count());
        let failed_at = || fixture.scheduler.status().hook.expect("a hook").failed_at;
        fixture.update(|account| account.on_change = Some(hook));
        let worker = &fixture.scheduler.worker;
        let run = || worker.on_change.run(|| worker.settings(), &fixture.environment);
        fixture.clock.refuse_threads(true);
        lines();
        let mut running = pin!(run());
        for _ in 0..3 {
            assert!(poll_once(&mut running).await.is_pending());
            fixture.clock.advance(Duration::from_secs(1));
        }
        assert_eq!((count(), events_logged()), (0, vec!["hook_failed".to_owned()]));
        assert!(failed_at().is_some());
        fixture.clock.refuse_threads(false);
        running.await;
        assert_eq!((count(), failed_at()), (1, None));

        fixture.clock.refuse_threads(true);
        worker.on_change.stop_flag().store(true, Ordering::Relaxed);
        assert!(poll_once(&mut pin!(run())).await.is_ready());
    });
}

#[test]
fn on_trouble_that_fails_is_logged_once_until_it_succeeds() {
    run(async |fixture| {
        let script = r#"echo >> "$0"; [ -e "$0.works" ]"#;
        let (hook, told) = fixture.hook(HookKind::OnTrouble, script);
        fixture.update(|account| account.on_trouble = Some(hook));
        let count = || std::fs::read_to_string(&told).map_or(0, |text| text.lines().count());
        let failed_at = || fixture.scheduler.status().trouble_hook.expect("a hook").failed_at;
        let until_told = async |times| {
            fixture.pass_until(|| count() >= times).await;
            let hooks = events_logged().into_iter().filter(|event| event.starts_with("hook"));
            hooks.collect::<Vec<_>>()
        };
        fixture.upstream.refuses.store(true, Ordering::Relaxed);
        lines();
        fixture.scheduler.start();
        assert_eq!(until_told(3).await, ["hook_failed"]);
        assert!(failed_at().is_some());
        std::fs::write(told.with_extension("works"), "").unwrap();
        assert_eq!(until_told(4).await, ["hook_ran"]);
        assert_eq!(failed_at(), None);
    });
}

#[test]
fn a_restart_ends_no_trouble_with_a_token_that_is_due_or_over() {
    for is_over in [false, true] {
        run(async |mut fixture| {
            let (hook, told) =
                fixture.hook(HookKind::OnTrouble, r#"echo "$WXTOKEN_TROUBLE" >> "$0""#);
            let told = || std::fs::read_to_string(&told).unwrap_or_default();
            fixture.account.on_trouble = Some(hook);
            fixture.update(|_| {});
            fixture.scheduler.start();
            fixture.pass(Duration::from_secs(6800)).await;
            fixture.upstream.is_unreachable.store(true, Ordering::Relaxed);
            fixture.pass_until(|| !told().is_empty()).await;
            let is_zero = || fixture.published().unwrap().left(fixture.clock.now()).is_zero();
            if is_over {
                fixture.pass_until(is_zero).await;
            }
            assert_eq!((is_zero(), told()), (is_over, "begin\n".to_owned()));
            fixture.scheduler.stop();
            fixture.scheduler = schedule(&fixture.account, &fixture.upstream, &fixture.environment);
            // Before any job, which would hold the lock that the record is changed under.
            fixture.scheduler.worker.tell_trouble();
            fixture.scheduler.idle().await;
            assert_eq!(told(), "begin\n");
            fixture.scheduler.start();
            fixture.pass(Duration::from_secs(20)).await;
            assert_eq!(told(), "begin\n");
            fixture.upstream.is_unreachable.store(false, Ordering::Relaxed);
            fixture.pass_until(|| told() != "begin\n").await;
            assert_eq!(told(), "begin\nend\n");
        });
    }
}

#[test]
fn trouble_ends_when_another_process_has_published() {
    run(async |mut fixture| {
        let (hook, told) = fixture.hook(HookKind::OnTrouble, r#"echo "$WXTOKEN_TROUBLE" >> "$0""#);
        let told = || std::fs::read_to_string(&told).unwrap_or_default();
        fixture.account.on_trouble = Some(hook);
        fixture.update(|_| {});
        fixture.upstream.is_unreachable.store(true, Ordering::Relaxed);
        fixture.scheduler.start();
        fixture.pass_until(|| !told().is_empty()).await;
        assert_eq!(told(), "begin\n");
        let reachable = CountingUpstream::new(&fixture.clock);
        let another = schedule(&fixture.account, &reachable, &fixture.environment);
        another.obtain(&TokenDemand::Live, || fixture.live_token()).await.unwrap();
        another.idle().await;
        fixture.pass_until(|| told() != "begin\n").await;
        assert_eq!(told(), "begin\nend\n");
        assert!(fixture.requested_at().is_empty());
    });
}
