//! Invalid data in Redis, and a Redis that misbehaves: costs one mint at most, and nothing hangs.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use crate::support::home::{Home, wechat_with_accounts};
use crate::support::redis::Redis;
use crate::support::*;

fn wechat() -> WeChat {
    wechat_with_accounts(1, &[])
}

/// Returns a host whose account `a0` on this API is in the Redis at `url`, with a generous timeout.
fn host(api: &str, wechat: &WeChat, url: &str) -> Home {
    Home::on_redis(api, &wechat.url(), url, "timeout = \"10s\"")
}

fn document(token: &str, created_at: &str) -> String {
    format!(
        r#"{{"appid":"wx0","access_token":"{token}","expires_in":7200,"created_at":"{created_at}"}}"#
    )
}

/// Returns the remaining life that `get` prints.
#[track_caller]
fn life(home: &Home) -> u64 {
    home.run(&["get", "a0"]).exits(0).json()["expires_in"].as_u64().unwrap()
}

fn in_an_hour() -> String {
    time_ago(-3600)
}

#[needs(redis)]
#[test]
fn a_document_from_a_clock_ahead_is_replaced_once_by_one_with_its_whole_life() {
    let redis = Redis::start();
    for api in ["stable", "classic"] {
        for made_at in [&*in_an_hour(), "8999-01-01T00:00:00Z"] {
            let wechat = wechat();
            let [one, other] = [(); 2].map(|()| host(api, &wechat, &redis.url()));
            redis.cli(&["set", "wxtoken:a0", &document("AHEAD", made_at), "ex", "7200"]);
            for home in [&one, &other] {
                home.run(&["get", "a0"]).exits(0);
                assert_eq!(home.token("a0").as_deref(), Some("AHEAD"), "the host has a copy");
            }
            let server = other.serve(&[]);
            one.run(&["fetch"]).exits(0).silent();
            let token = redis.token("wxtoken:a0").unwrap();
            assert_ne!(token, "AHEAD");
            for home in [&other, &one, &other] {
                home.run(&["fetch"]).exits(0).silent();
                assert_eq!(redis.token("wxtoken:a0").as_deref(), Some(&*token), "{api} {made_at}");
                assert_eq!(home.token("a0").as_deref(), Some(&*token), "the copy is replaced");
                assert!((7100..=7200).contains(&life(home)), "{api} {made_at}");
            }
            eventually("the new token is served", || {
                server.get("/token").json()["access_token"].as_str() == Some(&*token)
            });
            assert_eq!(wechat.mints(), 1, "{api} {made_at}");
        }
    }
}

#[needs(redis)]
#[test]
fn invented_ticket_types_in_requests_are_not_polled_in_redis_for_ever() {
    let redis = Redis::start();
    let wechat = wechat();
    let home = host("stable", &wechat, &redis.url());
    home.run(&["fetch"]).exits(0);
    let server = home.serve(&[]);
    let mut caller = server.caller();
    for n in 0..300 {
        assert_eq!(caller.get(&format!("/ticket/a0/t{n}")).status, 404);
    }
    eventually("the types are forgotten", || {
        redis.cli(&["config", "resetstat"]);
        eventually("the server polls", || {
            redis.cli(&["info", "commandstats"]).contains("eval:calls=2")
        });
        let stats = redis.cli(&["info", "stats"]);
        let missed = stats.lines().find_map(|line| line.strip_prefix("keyspace_misses:"));
        missed.unwrap().trim().parse::<u64>().unwrap() <= 40
    });
}

#[needs(redis)]
#[test]
fn an_invalid_document_is_replaced_by_one_call() {
    let redis = Redis::start();
    let not_utf8 = document("OLD", &in_an_hour()).replace("\"appid\"", "\"x\":\"\\255\",\"appid\"");
    let garbage = [
        "",
        "{",
        "null",
        "[]",
        "{\"created_at\":\"zzz\"}",
        "{\"created_at\":{}}",
        "\\255\\254",
        &not_utf8,
        &not_utf8.replace("255", "65"),
    ];
    for api in ["stable", "classic"] {
        for garbage in garbage {
            let wechat = wechat();
            let home = host(api, &wechat, &redis.url());
            let write = format!("return redis.call('set', KEYS[1], '{garbage}')");
            assert_eq!(redis.cli(&["eval", &write, "1", "wxtoken:a0"]), "OK", "{garbage}");
            // What is remembered of the WeChat before.
            redis.cli(&["del", "wxtoken:a0:last"]);
            for _ in 0..2 {
                home.run(&["fetch"]).exits(0).silent();
                assert!((7100..=7200).contains(&life(&home)), "{garbage}");
            }
            assert_eq!((wechat.asked(), wechat.mints()), (1, 1), "{garbage}");
        }
    }
}

#[needs(redis)]
#[test]
fn a_key_of_another_type_or_too_long_is_an_error_before_the_call_to_wechat() {
    let redis = Redis::start();
    let wechat = wechat();
    let home = host("classic", &wechat, &redis.url());
    redis.cli(&["rpush", "wxtoken:a0", "x"]);
    home.run(&["get", "a0"]).exits(3).says(&["WRONGTYPE", "a key of ours holds something else"]);
    home.run(&["fetch"]).exits(1).says(&["WRONGTYPE", "WeChat was not asked"]);
    redis.cli(&["del", "wxtoken:a0"]);
    redis.cli(&["rpush", "wxtoken:a0:lock", "x"]);
    home.run(&["fetch"]).exits(1).says(&["WRONGTYPE", "of wxtoken:a0:lock, or give another"]);
    assert_eq!(wechat.asked(), 0);
    redis.cli(&["del", "wxtoken:a0:lock"]);
    let write = "return redis.call('set', KEYS[1], string.rep('x', 50000000))";
    redis.cli(&["eval", write, "1", "wxtoken:a0"]);
    home.run(&["get", "a0"]).exits(3).says(&["it is too long"]);
    home.run(&["fetch"]).exits(0).silent();
    assert_eq!(wechat.mints(), 1);
}

/// As a copy of the keys without their expiries leaves it behind.
#[needs(redis)]
#[test]
fn a_lock_that_never_ends_is_taken_over() {
    let redis = Redis::start();
    let wechat = wechat();
    let home = host("classic", &wechat, &redis.url());
    redis.cli(&["set", "wxtoken:a0:lock", "x"]);
    home.run(&["check", "a0"]).prints(&["held by another process"]);
    home.run(&["fetch"]).exits(0).silent();
    assert_eq!(redis.cli(&["exists", "wxtoken:a0:lock"]), "0");
    let mints = wechat.mints();
    // One that ends is waited for, and a user who may not ask for its end waits for each.
    redis.cli(&["set", "wxtoken:a0:lock", "x", "ex", "3600"]);
    home.run(&["fetch", "--force", "--timeout", "1s"]).exits(6);
    redis.cli(&["persist", "wxtoken:a0:lock"]);
    redis.cli(&["acl", "setuser", "default", "-pttl"]);
    home.run(&["fetch", "--force", "--timeout", "1s"]).exits(6);
    redis.cli(&["acl", "setuser", "default", "+pttl"]);
    home.run(&["fetch", "--force"]).exits(0).silent();
    assert_eq!(wechat.mints(), mints + 1);
}

#[needs(redis)]
#[test]
fn a_value_of_any_length_costs_no_memory() {
    const MOST: usize = 64 * 1024 * 1024;
    let redis = Redis::start();
    let wechat = wechat();
    let also = "timeout = \"10s\"\nalso = [{ key = \"wx:{account}\", format = \"text\" }]";
    let home = Home::on_redis("classic", &wechat.url(), &redis.url(), also);
    for key in ["wxtoken:a0", "wx:a0"] {
        redis.cli(&["setrange", key, "200000000", "x"]);
    }
    let server = home.serve(&["--refresh"]);
    eventually("the token is published", || server.get("/token").status == 200);
    assert!(server.peak_memory() < MOST, "{}", server.peak_memory());
    let token = redis.token("wxtoken:a0").unwrap();
    assert_eq!(redis.cli(&["get", "wx:a0"]), token);
    redis.cli(&["setrange", "wxtoken:a0:lock", "200000000", "x"]);
    home.run(&["check", "a0"]).prints(&["a0  lock"]);
}

/// The key is another program's, or that of an SDK which keeps something else there.
#[needs(redis)]
#[test]
fn a_key_of_also_that_cannot_be_written_is_named_and_stops_no_refresh() {
    let redis = Redis::start();
    let wechat = wechat();
    let also = "timeout = \"10s\"\nalso = [
        { key = \"list:{account}\", format = \"text\" },
        { key = \"denied:{account}\", format = \"text\" },
        { key = \"good:{account}\", format = \"text\" },
    ]";
    let home = Home::on_redis("classic", &wechat.url(), &redis.url(), also);
    redis.cli(&["rpush", "list:a0", "x"]);
    redis.cli(&["acl", "setuser", "default", "resetkeys", "~wxtoken:*", "~list:*", "~good:*"]);
    let wrong_type =
        ["the key list:a0 of [redis] also is not written", "WRONGTYPE", "of wxtoken:a0, list:a0"];
    let denied = ["the key denied:a0 of [redis] also is not written", "NOPERM", "allow the keys"];
    let named = [&wrong_type[..], &denied[..]].concat();
    for mints in 1..=2 {
        let ran = home.run(&["fetch", "--force", "a0"]).exits(0);
        // Once each, although a second document replaces the first one's shortened life.
        let lead = "wxtoken: fetch: a0: Remove what is no string";
        assert_eq!(ran.stderr.matches(lead).count(), 1, "{}", ran.stderr);
        ran.mentions(&named);
        let token = redis.token("wxtoken:a0").unwrap();
        assert!(wechat.is_alive(&token) && wechat.mints() == mints);
        assert_eq!(redis.cli(&["get", "good:a0"]), token);
        assert_eq!(redis.cli(&["lrange", "list:a0", "0", "-1"]), "x", "nothing is lost");
        home.run(&["fetch"]).exits(0);
    }
    let server = home.serve(&["--refresh"]);
    assert_eq!(server.get("/token").status, 200);
    home.run(&["check", "a0"])
        .exits(1)
        .prints(&["a key of also get no token", "the key list:a0 of"]);
    redis.cli(&["del", "list:a0"]);
    home.run(&["check", "a0"])
        .exits(1)
        .prints(&["a key of also get no token", "the key denied:a0 of"]);
    home.run(&["fetch"]).exits(0);
    assert_eq!(redis.cli(&["get", "list:a0"]), redis.token("wxtoken:a0").unwrap());
}

/// Starts a server that answers each command with a long string, a byte at a time.
fn start_dripping_redis() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut asked = [0; 4096];
                if stream.read(&mut asked).is_err() || stream.write_all(b"$5000\r\n").is_err() {
                    return;
                }
                while stream.write_all(b"x").is_ok() {
                    thread::sleep(Duration::from_millis(100));
                }
            });
        }
    });
    url
}

#[test]
fn a_redis_that_answers_a_byte_at_a_time_delays_by_no_more_than_the_timeout() {
    let wechat = wechat();
    let home =
        Home::on_redis("classic", &wechat.url(), &start_dripping_redis(), "timeout = \"500ms\"");
    home.publish("a0", "wx0", "COPY", 10);
    assert_eq!(home.run(&["get", "a0", "--raw"]).exits(0).stdout.trim(), "COPY");
    home.run(&["fetch", "--force", "a0"]).exits(1).says(&["no answer within 500ms"]);
    let server = home.serve_with_log(&["--refresh"]);
    eventually("the failure is logged", || {
        let answer = server.get("/token").json();
        assert_eq!(answer["access_token"].as_str(), Some("COPY"));
        home.has_logged("no answer within 500ms")
    });
    assert_eq!(wechat.asked(), 0);
}
