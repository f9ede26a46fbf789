//! `serve` on a Redis that many hosts share: each sees a new token at once, and goes on with what it has when Redis does
//! not.

use std::time::{Duration, Instant};

use crate::support::home::{Home, wechat_of};
use crate::support::redis::Redis;
use crate::support::*;

fn wechat(more: &[&str]) -> WeChat {
    wechat_of(1, more)
}

/// A host whose account `a0` is in this Redis.
fn host(wechat: &WeChat, redis: &Redis) -> Home {
    Home::on_redis("classic", &wechat.url(), &redis.url(), "timeout = \"500ms\"")
}

fn token(server: &Server) -> Option<String> {
    let answer = server.get("/token");
    (answer.status == 200).then(|| answer.json()["access_token"].as_str().unwrap().to_owned())
}

#[test]
fn a_new_token_is_handed_out_within_a_second_on_every_host() {
    let Some(redis) = Redis::start() else { return };
    let wechat = wechat(&[]);
    let hosts = [(); 3].map(|()| host(&wechat, &redis));
    hosts[0].run(&["fetch"]).exits(0);
    let servers = hosts.each_ref().map(|host| host.serve(&[]));
    let first = redis.token("wxtoken:a0");
    assert_eq!(servers.each_ref().map(token), [(); 3].map(|()| first.clone()), "from the start on");
    // Those who listen hear of it; without that they look each second.
    for is_heard in [true, false] {
        if !is_heard {
            redis.cli(&["acl", "setuser", "default", "resetchannels"]);
            redis.cli(&["client", "kill", "type", "pubsub"]);
        }
        hosts[0].run(&["fetch", "--force", "a0"]).exits(0);
        let (next, since) = (redis.token("wxtoken:a0"), Instant::now());
        for server in &servers {
            eventually("it is handed out", || token(server) == next);
        }
        let within = Duration::from_millis(if is_heard { 300 } else { 1000 });
        assert!(since.elapsed() < within, "{is_heard}: {:?}", since.elapsed());
    }
}

#[test]
fn with_redis_down_what_was_last_known_is_handed_out_and_nobody_waits() {
    let Some(mut redis) = Redis::start() else { return };
    let wechat = wechat(&[]);
    let home = host(&wechat, &redis);
    home.run(&["fetch"]).exits(0);
    let server = home.serve_with_log(&["--refresh"]);
    let first = token(&server);
    assert!(first.is_some());
    redis.pause();
    eventually("it is told", || {
        token(&server) == first && home.has_logged("no answer within 500ms")
    });
    for _ in 0..20 {
        let began = Instant::now();
        assert_eq!(token(&server), first);
        assert!(began.elapsed() < Duration::from_millis(300), "{:?}", began.elapsed());
    }
    redis.resume();
    redis.kill();
    eventually("it is told", || token(&server) == first && home.has_logged("Connection refused"));
    assert_eq!(token(&server), first);
    // One that begins now has what this host has kept.
    assert_eq!(token(&home.serve(&[])), first);
    redis.revive();
    assert_eq!(redis.token("wxtoken:a0"), None);
    eventually("it is put back", || redis.token("wxtoken:a0") == first);
    assert_eq!((token(&server), wechat.mints()), (first, 1));
}

#[test]
fn four_that_refresh_ask_once_for_what_is_due_and_once_for_what_is_dead() {
    let Some(redis) = Redis::start() else { return };
    let wechat = wechat(&[]);
    let hosts = [(); 4].map(|()| host(&wechat, &redis));
    let servers = hosts.each_ref().map(|host| host.serve(&["--refresh"]));
    let mut known = None;
    for server in &servers {
        eventually("there is a token", || token(server).is_some());
        let found = token(server);
        assert_eq!(*known.get_or_insert(found.clone()), found);
    }
    assert_eq!(wechat.mints(), 1);
    wechat.kill_tokens();
    let dead = known.unwrap().unwrap();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let told: Vec<_> =
            servers.iter().map(|server| scope.spawn(|| server.tell_rejected(&dead))).collect();
        told.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let next = redis.token("wxtoken:a0").unwrap();
    for answer in answers {
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["access_token"].as_str(), Some(&*next));
    }
    assert_eq!(wechat.mints(), 2);
    assert!(wechat.is_alive(&next));
}

#[test]
fn tickets_are_shared_like_tokens() {
    let Some(redis) = Redis::start() else { return };
    let wechat = wechat(&[]);
    let with_ticket = |home: &Home| {
        let config = home.config().replace("api = \"classic\"", "tickets = [\"jsapi\"]");
        home.write(&config);
    };
    let [asking, reading] = [(); 2].map(|()| host(&wechat, &redis));
    [&asking, &reading].into_iter().for_each(with_ticket);
    let server = reading.serve(&[]);
    assert_eq!(server.get("/ticket/jsapi").status, 503);
    let keeper = asking.serve(&["--refresh"]);
    eventually("there is a ticket", || server.get("/ticket/jsapi").status == 200);
    let document: serde_json::Value =
        serde_json::from_str(&redis.cli(&["get", "wxtoken:a0:jsapi"])).unwrap();
    for server in [&server, &keeper] {
        assert_eq!(server.get("/ticket/jsapi").json()["ticket"], document["ticket"]);
    }
    let life: i64 = redis.cli(&["ttl", "wxtoken:a0:jsapi"]).parse().unwrap();
    assert!((7190..=7200).contains(&life), "{life}");
    let ran = reading.run(&["get", "a0", "--ticket", "jsapi", "--raw"]).exits(0);
    assert_eq!(document["ticket"].as_str(), Some(ran.stdout.trim()));
    assert_eq!(wechat.calls()["tickets"], 1);
}
