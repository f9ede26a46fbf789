//! `serve` with Redis as the store: hosts notice a new token at once, and serve the last known one while Redis is down.

use std::time::{Duration, Instant};

use crate::support::home::{Home, wechat_with_accounts};
use crate::support::redis::Redis;
use crate::support::*;

fn wechat(more: &[&str]) -> WeChat {
    wechat_with_accounts(1, more)
}

/// Returns a host whose account `a0` is in this Redis.
fn host(wechat: &WeChat, redis: &Redis) -> Home {
    Home::on_redis("classic", &wechat.url(), &redis.url(), "timeout = \"10s\"")
}

fn token(server: &Server) -> Option<String> {
    let answer = server.get("/token");
    (answer.status == 200).then(|| answer.json()["access_token"].as_str().unwrap().to_owned())
}

#[needs(redis)]
#[test]
fn every_host_serves_a_new_token_sooner_with_pub_sub_than_by_polling() {
    let redis = Redis::start();
    let wechat = wechat(&[]);
    let hosts = [(); 3].map(|()| host(&wechat, &redis));
    hosts[0].run(&["fetch"]).exits(0);
    let servers = hosts.each_ref().map(|host| host.serve(&[]));
    let first = redis.token("wxtoken:a0");
    assert_eq!(
        servers.each_ref().map(token),
        [(); 3].map(|()| first.clone()),
        "right after the start"
    );
    // How long it takes in all until five tokens are served everywhere.
    let replace = || {
        (0..5).map(|_| {
            hosts[0].run(&["fetch", "--force", "a0"]).exits(0);
            let (next, published_at) = (redis.token("wxtoken:a0"), Instant::now());
            for server in &servers {
                eventually("the new token is served", || token(server) == next);
            }
            published_at.elapsed()
        })
    };
    let with_pub_sub: Duration = replace().sum();
    redis.cli(&["acl", "setuser", "default", "resetchannels"]);
    redis.cli(&["client", "kill", "type", "pubsub"]);
    let by_polling: Duration = replace().sum();
    assert!(with_pub_sub < by_polling, "{with_pub_sub:?} and {by_polling:?}");
}

#[needs(redis)]
#[test]
fn with_redis_down_the_last_known_token_is_served_without_delay() {
    let mut redis = Redis::start();
    let wechat = wechat(&[]);
    let home = host(&wechat, &redis);
    home.run(&["fetch"]).exits(0);
    home.write(&home.config().replace("10s", "500ms"));
    let server = home.serve_with_log(&["--refresh"]);
    let first = token(&server);
    assert!(first.is_some());
    redis.pause();
    eventually("the failure is logged", || {
        token(&server) == first && home.has_logged("no answer within 500ms")
    });
    // If each request waited for Redis, they would take 50 seconds.
    let begun_at = Instant::now();
    for _ in 0..100 {
        assert_eq!(token(&server), first);
    }
    assert!(begun_at.elapsed() < Duration::from_secs(50), "{:?}", begun_at.elapsed());
    redis.resume();
    redis.kill();
    eventually("the failure is logged", || {
        token(&server) == first && home.has_logged("Connection refused")
    });
    assert_eq!(token(&server), first);
    // A server that starts now serves this host's local copy.
    assert_eq!(token(&home.serve(&[])), first);
    redis.restart();
    assert_eq!(redis.token("wxtoken:a0"), None);
    eventually("the document is restored", || redis.token("wxtoken:a0") == first);
    assert_eq!((token(&server), wechat.mints()), (first, 1));
}

#[needs(redis)]
#[test]
fn four_refreshing_hosts_make_one_call_for_a_due_token_and_one_for_a_dead_one() {
    let redis = Redis::start();
    let wechat = wechat(&[]);
    let hosts = [(); 4].map(|()| host(&wechat, &redis));
    let servers = hosts.each_ref().map(|host| host.serve(&["--refresh"]));
    let mut common = None;
    for server in &servers {
        eventually("there is a token", || token(server).is_some());
        let found = token(server);
        assert_eq!(*common.get_or_insert(found.clone()), found);
    }
    assert_eq!(wechat.mints(), 1);
    wechat.kill_tokens();
    let dead = common.unwrap().unwrap();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let reports: Vec<_> =
            servers.iter().map(|server| scope.spawn(|| server.report_rejected(&dead))).collect();
        reports.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let next = redis.token("wxtoken:a0").unwrap();
    for answer in answers {
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["access_token"].as_str(), Some(&*next));
    }
    assert_eq!(wechat.mints(), 2);
    assert!(wechat.is_alive(&next));
}

#[needs(redis)]
#[test]
fn tickets_are_shared_between_hosts_like_tokens() {
    let redis = Redis::start();
    let wechat = wechat(&[]);
    let with_ticket = |home: &Home| {
        let config = home.config().replace("api = \"classic\"", "tickets = [\"jsapi\"]");
        home.write(&config);
    };
    let [refreshing, reading] = [(); 2].map(|()| host(&wechat, &redis));
    [&refreshing, &reading].into_iter().for_each(with_ticket);
    let server = reading.serve(&[]);
    assert_eq!(server.get("/ticket/jsapi").status, 503);
    let refresher = refreshing.serve(&["--refresh"]);
    eventually("there is a ticket", || server.get("/ticket/jsapi").status == 200);
    let document: serde_json::Value =
        serde_json::from_str(&redis.cli(&["get", "wxtoken:a0:jsapi"])).unwrap();
    for server in [&server, &refresher] {
        assert_eq!(server.get("/ticket/jsapi").json()["ticket"], document["ticket"]);
    }
    let life: i64 = redis.cli(&["ttl", "wxtoken:a0:jsapi"]).parse().unwrap();
    assert!((7100..=7200).contains(&life), "{life}");
    let ran = reading.run(&["get", "a0", "--ticket", "jsapi", "--raw"]).exits(0);
    assert_eq!(document["ticket"].as_str(), Some(ran.stdout.trim()));
    assert_eq!(wechat.calls()["tickets"], 1);
}

#[needs(redis)]
#[test]
fn promise_7_a_token_that_one_host_finds_dead_is_handed_out_by_no_other() {
    let redis = Redis::start();
    let wechat = wechat(&[]);
    let also = "timeout = \"10s\"\nalso = [{ key = \"wx:{appid}\", format = \"text\" }]";
    let hosts = [(); 2].map(|()| Home::on_redis("classic", &wechat.url(), &redis.url(), also));
    hosts[0].run(&["fetch"]).exits(0);
    let server = hosts[0].serve(&["--refresh"]);
    let other = hosts[1].serve(&[]);
    let dead = token(&server).unwrap();
    assert_eq!(token(&other).as_ref(), Some(&dead));
    hosts[1].run(&["get", "a0"]).exits(0);
    wechat.kill_tokens();
    wechat.fault("token/hang");
    std::thread::scope(|scope| {
        let report = scope.spawn(|| server.report_rejected(&dead));
        eventually("the other host knows", || token(&other).is_none());
        hosts[1].run(&["get", "a0"]).exits(3);
        let is_there = || redis.cli(&["exists", "wx:wx0"]).trim() != "0";
        eventually("SDKs that read Redis find no token", || !is_there());
        assert_eq!(report.join().unwrap().status, 503);
    });
    // A copy from before is not taken for good when Redis is down.
    wechat.fault("none");
    eventually("there is another token", || token(&other).is_some_and(|it| it != dead));
}
