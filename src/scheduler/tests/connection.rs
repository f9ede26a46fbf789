//! How a reload connects an account again.

use super::*;
use crate::log::Level;

#[test]
fn a_reload_takes_the_secret_as_it_is_now_and_keeps_the_last_one_if_it_cannot_be_read() {
    run(async |fixture| {
        let another = CountingUpstream::new(&fixture.clock);
        let connection = fixture.scheduler.connection();
        let requests = || [&fixture.upstream, &another].map(|it| it.requests.lock().unwrap().len());
        let reload = |connect| {
            fixture.scheduler.update(fixture.account.clone(), connect);
            connection.reconnect();
            lines()
        };
        fixture.scheduler.start();
        fixture.pass(Duration::from_secs(2)).await;
        assert_eq!(requests(), [1, 0]);
        lines();
        assert!(reload(connect_to(&another)).is_empty());
        fixture.pass(Duration::from_secs(7000)).await;
        assert_eq!(requests(), [1, 1]);
        lines();
        assert!(reload(connect_nothing()).is_empty(), "it is not read again");
        let logged = reload(connect_in_vain());
        let [(Level::Error, event, message)] = &logged[..] else { panic!("{logged:?}") };
        assert_eq!(event, "reload_failed");
        assert!(message.contains("no such file; the last good AppSecret stays"), "{message}");
        assert!(connection.is_connected());
        fixture.pass(Duration::from_secs(7000)).await;
        assert_eq!(requests(), [1, 2]);
    });
}

#[test]
fn where_no_secret_could_be_read_yet_the_next_job_says_why() {
    run(async |mut fixture| {
        let (account, environment) = (fixture.account.clone(), fixture.environment.clone());
        fixture.scheduler = Scheduler::new(account, 0o600, None, connect_in_vain(), environment);
        let connection = fixture.scheduler.connection();
        lines();
        connection.reconnect();
        assert!(lines().is_empty() && !connection.is_connected());
        fixture.scheduler.start();
        fixture.pass(Duration::from_secs(1)).await;
        let logged = lines();
        let [(Level::Error, event, message)] = &logged[..] else { panic!("{logged:?}") };
        assert!(event == "refresh_failed" && message.contains("no such file"), "{message}");
        fixture.scheduler.update(fixture.account.clone(), connect_to(&fixture.upstream));
        connection.reconnect();
        fixture.scheduler.retry_now();
        fixture.pass(Duration::from_secs(2)).await;
        assert!(fixture.published().is_some());
    });
}
