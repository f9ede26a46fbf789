//! When tickets are requested, and with which token.

use super::*;

#[test]
fn a_client_gets_a_ticket_and_the_token_that_it_is_requested_with() {
    run(async |fixture| {
        let kind = TicketType::parse("jsapi").unwrap();
        let place = DocumentKind::Ticket(kind.clone());
        let look =
            || fixture.environment.stores.open(&fixture.account.location, &place, 0).last_known();
        let unknown = fixture.scheduler.obtain_ticket(&kind, || fixture.live_token(), look).await;
        assert!(unknown.is_err() && fixture.tickets_requested() == 0, "it is not configured");

        fixture.update(|account| account.tickets = vec![kind.clone()]);
        let ticket = fixture.scheduler.obtain_ticket(&kind, || fixture.live_token(), look).await;
        assert!(ticket.unwrap().token.is("TICKET1"));
        assert_eq!((fixture.requested_at().len(), fixture.tickets_requested()), (1, 1));
    });
}

#[test]
fn a_client_whose_time_is_over_has_no_ticket_requested() {
    run(async |fixture| {
        let kind = TicketType::parse("jsapi").unwrap();
        fixture.update(|account| account.tickets = vec![kind.clone()]);
        let since = fixture.clock.elapsed();
        // The token comes when the client has waited long enough.
        let look_for_token = || match fixture.clock.elapsed() - since < worker::MAX_WAIT {
            true => None,
            false => fixture.live_token(),
        };
        let mut waiting =
            pin!(fixture.scheduler.obtain_ticket(&kind, look_for_token, || None::<()>));
        let result = loop {
            if let Poll::Ready(result) = poll_once(&mut waiting).await {
                break result;
            }
            fixture.scheduler.idle().await;
            fixture.clock.advance(Duration::from_millis(100));
            yield_now().await;
        };
        assert!(result.is_err());
        fixture.scheduler.idle().await;
        assert_eq!((fixture.requested_at().len(), fixture.tickets_requested()), (1, 0));
    });
}

#[test]
fn no_ticket_is_requested_with_a_token_that_is_dead_and_cannot_be_replaced_yet() {
    run(async |fixture| {
        fixture.scheduler.start();
        fixture.pass(Duration::from_secs(2)).await;
        fixture.report().await.unwrap();
        fixture.report().await.unwrap_err();
        fixture.update(|account| account.tickets = vec![TicketType::parse("jsapi").unwrap()]);
        fixture.pass(Duration::from_secs(5)).await;
        assert_eq!(fixture.tickets_requested(), 0);
        fixture.pass(Duration::from_secs(60)).await;
        assert_eq!(fixture.tickets_requested(), 1);
    });
}

#[test]
fn why_there_is_no_ticket_is_known_until_there_is_one() {
    run(async |fixture| {
        let kind = TicketType::parse("jsapi").unwrap();
        let failure = || fixture.scheduler.failure(&DocumentKind::Ticket(kind.clone()));
        fixture.upstream.gives_no_tickets.store(true, Ordering::Relaxed);
        fixture.update(|account| account.tickets = vec![kind.clone()]);
        fixture.scheduler.start();
        fixture.pass(Duration::from_secs(3)).await;
        assert!(failure().expect("a failure").message.contains("it cannot reach WeChat"));
        assert_eq!(fixture.scheduler.failure(&DocumentKind::Token), None);
        fixture.upstream.gives_no_tickets.store(false, Ordering::Relaxed);
        fixture.pass(Duration::from_secs(60)).await;
        assert_eq!((failure(), fixture.tickets_requested()), (None, 1));
    });
}

#[test]
fn a_ticket_for_which_wechat_calls_the_token_dead_is_requested_with_another_token() {
    run(async |fixture| {
        *fixture.upstream.refused_tickets.lock().unwrap() = Some(("T0", 40001));
        fixture.update(|account| account.tickets = vec![TicketType::parse("jsapi").unwrap()]);
        fixture.scheduler.start();
        fixture.pass(Duration::from_secs(10)).await;
        assert!(fixture.published().unwrap().token.is("T1"));
        assert_eq!(fixture.upstream.tickets_refused.load(Ordering::Relaxed), 1);
        assert_eq!(fixture.tickets_requested(), 1);
    });
}

#[test]
fn a_ticket_that_is_refused_with_a_token_that_wechat_honours_is_not_requested_again_soon() {
    run(async |fixture| {
        *fixture.upstream.honoured.lock().unwrap() = vec!["T0"];
        *fixture.upstream.refused_tickets.lock().unwrap() = Some(("T0", 40001));
        fixture.update(|account| account.tickets = vec![TicketType::parse("jsapi").unwrap()]);
        fixture.scheduler.start();
        fixture.pass(Duration::from_secs(600)).await;
        assert!(fixture.published().unwrap().token.is("T0"));
        assert_eq!(fixture.upstream.tickets_refused.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn no_ticket_is_requested_with_a_token_that_is_over() {
    run(async |fixture| {
        let kind = DocumentKind::Ticket(TicketType::parse("jsapi").unwrap());
        fixture.update(|account| account.tickets = vec![TicketType::parse("jsapi").unwrap()]);
        fixture.scheduler.start();
        fixture.pass(Duration::from_secs(6800)).await;
        fixture.upstream.is_unreachable.store(true, Ordering::Relaxed);
        fixture.pass(Duration::from_secs(500)).await;
        assert!(fixture.published().unwrap().left(fixture.clock.now()).is_zero());
        let requested = fixture.tickets_requested();
        std::fs::remove_file(fixture.account.location.path(&kind)).unwrap();
        fixture.pass(Duration::from_secs(60)).await;
        assert_eq!(fixture.scheduler.failure(&kind), None, "it is not tried");
        fixture.upstream.is_unreachable.store(false, Ordering::Relaxed);
        fixture.pass(Duration::from_secs(90)).await;
        assert_eq!(fixture.tickets_requested(), requested + 1);
    });
}
