//! What clients and operators get, and when.

use super::*;

#[test]
fn a_client_without_a_token_waits_two_and_a_half_seconds_and_a_report_waits_ten() {
    run(async |fixture| {
        let waited = fixture.patience(&TokenDemand::Live).await;
        assert_eq!(waited, Duration::from_millis(2500));
        let first = fixture.published().expect("the request went on").token;
        let witness = Witness::Client(ClientIdentity::Local);
        let waited = fixture.patience(&TokenDemand::OtherThan(first.clone(), witness)).await;
        assert_eq!(waited, Duration::from_secs(10));
        assert_ne!(fixture.published().expect("a document").token, first);
    });
}

#[test]
fn a_client_that_seems_to_have_a_dead_token_waits_for_what_wechat_says_of_it() {
    run(async |fixture| {
        fixture.scheduler.start();
        fixture.pass(Duration::from_secs(2)).await;
        let demand = TokenDemand::Verified(ClientIdentity::Local, Suspicion::AsksAgain);
        let look = || fixture.live_token().map(|(token, ())| (Rc::clone(&token), token));
        for (honoured, expected) in [(vec!["T0", "T1"], "T0"), (vec!["T1"], "T1")] {
            *fixture.upstream.honoured.lock().unwrap() = honoured;
            let found = fixture.scheduler.obtain(&demand, look).await.unwrap();
            assert!(found.is(expected));
            fixture.pass(Duration::from_secs(60)).await;
        }
    });
}

#[test]
fn a_client_gets_its_token_though_wechat_does_not_say_in_time_whether_it_lives() {
    run(async |fixture| {
        fixture.scheduler.start();
        fixture.pass(Duration::from_secs(2)).await;
        let (sender, receiver) = channel();
        fixture.upstream.probe_gate.lock().unwrap().replace(receiver);
        let since = fixture.clock.elapsed();
        let demand = TokenDemand::Verified(ClientIdentity::Local, Suspicion::AsksAgain);
        let look = || fixture.live_token().map(|(token, ())| (Rc::clone(&token), token));
        let mut waiting = pin!(fixture.scheduler.obtain(&demand, look));
        let found = loop {
            if let Poll::Ready(found) = poll_once(&mut waiting).await {
                break found.unwrap();
            }
            std::thread::yield_now();
            if fixture.upstream.probe_gate.lock().unwrap().is_none() {
                fixture.clock.advance(Duration::from_millis(100));
            }
            yield_now().await;
        };
        assert!(found.is("T0"));
        assert_eq!(fixture.clock.elapsed() - since, worker::MAX_WAIT);
        drop(sender);
        fixture.scheduler.idle().await;
    });
}

#[test]
fn a_client_whose_time_is_over_has_no_token_requested() {
    run(async |fixture| {
        let look = || None::<(Rc<Secret>, ())>;
        let mut waiting = pin!(fixture.scheduler.obtain(&TokenDemand::Live, look));
        assert!(poll_once(&mut waiting).await.is_pending());
        fixture.scheduler.idle().await;
        std::fs::remove_file(fixture.account.location.path(&DocumentKind::Token)).unwrap();
        fixture.clock.advance(worker::MAX_WAIT);
        assert!(matches!(poll_once(&mut waiting).await, Poll::Ready(Err(_))));
        fixture.scheduler.idle().await;
        assert_eq!(fixture.requested_at().len(), 1);
    });
}

#[test]
fn a_token_that_wechat_calls_dead_is_not_handed_out_while_another_is_requested() {
    run(async |fixture| {
        fixture.scheduler.start();
        fixture.pass(Duration::from_secs(2)).await;
        let (sender, receiver) = channel();
        fixture.upstream.gate.lock().unwrap().replace(receiver);
        let first = fixture.published().unwrap().token;
        assert!(!fixture.scheduler.is_dead(&first) && !fixture.scheduler.was_found_dead("T0"));
        let mut reporting = pin!(fixture.report());
        while fixture.upstream.gate.lock().unwrap().is_some() {
            assert!(poll_once(&mut reporting).await.is_pending());
            yield_now().await;
        }
        assert!(fixture.scheduler.is_dead(&first) && fixture.scheduler.was_found_dead("T0"));
        assert!(!fixture.scheduler.was_found_dead("T1"));
        drop(sender);
        reporting.await.unwrap();
        let second = fixture.published().unwrap().token;
        assert!(second.is("T1") && !fixture.scheduler.is_dead(&second));
        fixture.scheduler.idle().await;
    });
}

#[test]
fn what_an_operator_has_mended_is_tried_at_once_and_the_log_says_how_it_went() {
    run(async |fixture| {
        lines();
        fixture.upstream.refuses.store(true, Ordering::Relaxed);
        fixture.scheduler.start();
        fixture.pass(Duration::from_secs(5)).await;
        let logged = lines();
        let [(_, event, message)] = &logged[..] else { panic!("{logged:?}") };
        assert_eq!(event, "refresh_failed");
        assert!(message.starts_with("serve: shop: ") && message.contains("40125"), "{message}");
        fixture.upstream.refuses.store(false, Ordering::Relaxed);
        fixture.pass(Duration::from_secs(600)).await;
        assert!(fixture.requested_at().is_empty() && lines().is_empty());
        fixture.scheduler.retry_now();
        fixture.pass(Duration::from_secs(1)).await;
        assert_eq!(fixture.requested_at().len(), 1);
        assert_eq!(events_logged(), ["recovered", "published"]);
    });
}

#[test]
fn a_scheduler_that_is_dropped_requests_nothing_more() {
    run(async |mut fixture| {
        fixture.scheduler.start();
        fixture.pass(Duration::from_secs(6890)).await;
        let dropped = Rc::clone(&fixture.scheduler.worker);
        fixture.scheduler = schedule(&fixture.account, &fixture.upstream, &fixture.environment);
        for _ in 0..30 {
            fixture.pass(Duration::from_secs(1)).await;
            dropped.idle().await;
        }
        assert_eq!(fixture.requested_at().len(), 1);
    });
}

#[test]
fn while_a_request_hangs_there_is_no_other() {
    run(async |fixture| {
        let (sender, receiver) = channel();
        fixture.upstream.gate.lock().unwrap().replace(receiver);
        lines();
        fixture.scheduler.start();
        while fixture.upstream.gate.lock().unwrap().is_some() {
            yield_now().await;
        }
        // The schedule looks every 15 seconds.
        for _ in 0..20 {
            fixture.clock.advance(Duration::from_secs(1));
            for _ in 0..4 {
                yield_now().await;
            }
        }
        assert_eq!(fixture.clock.threads_started(), 1);
        drop(sender);
        fixture.scheduler.idle().await;
        assert_eq!(events_logged(), ["published"]);
        assert_eq!(fixture.requested_at().len(), 1);
    });
}

#[test]
fn a_client_waits_for_the_next_job_until_it_may_start_and_no_longer() {
    run(async |fixture| {
        let obtain = || fixture.scheduler.obtain(&TokenDemand::Live, || fixture.live_token());
        obtain().await.unwrap();
        std::fs::remove_file(fixture.account.location.path(&DocumentKind::Token)).unwrap();
        let mut waiting = pin!(obtain());
        for requests in [1, 2] {
            assert!(poll_once(&mut waiting).await.is_pending());
            fixture.scheduler.idle().await;
            assert_eq!(fixture.requested_at().len(), requests);
            fixture.clock.advance(Duration::from_secs(1));
        }
        waiting.await.unwrap();
    });
}
