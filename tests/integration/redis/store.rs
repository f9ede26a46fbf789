//! Redis as the store that many hosts share: one refresh among them all, whoever is paused, killed or cut off, and a good
//! token as long as any host has one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::home::{Home, wechat_of};
use crate::support::redis::Redis;
use crate::support::*;

/// A stand-in that knows the account `a0`.
fn wechat(more: &[&str]) -> WeChat {
    wechat_of(1, more)
}

/// A host whose account `a0` on this API is in the Redis at `url`; with `more` in `[redis]`.
fn host_on(api: &str, wechat: &WeChat, url: &str, more: &str) -> Home {
    Home::on_redis(api, &wechat.url(), url, more)
}

fn host(wechat: &WeChat, redis: &Redis) -> Home {
    host_on("classic", wechat, &redis.url(), "timeout = \"500ms\"")
}

fn spawn(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The token that `get` prints here.
#[track_caller]
fn got(home: &Home) -> String {
    home.run(&["get", "a0", "--raw"]).exits(0).stdout.trim().to_owned()
}

fn mode_of_copy(home: &Home) -> u32 {
    fs::metadata(home.document_path("a0")).unwrap().permissions().mode() & 0o777
}

fn lives(redis: &Redis, key: &str) -> f64 {
    redis.cli(&["pttl", key]).parse::<f64>().unwrap() / 1000.0
}

// What is published, and where

#[test]
fn what_one_host_publishes_another_reads_and_keeps_a_copy_of() {
    let Some(redis) = Redis::start() else { return };
    let wechat = wechat(&[]);
    let [fetching, reading] = [(); 2].map(|()| host(&wechat, &redis));
    reading.run(&["get", "a0"]).exits(3).says(&["a0: no token: wxtoken:a0 at redis://127.0.0.1"]);
    fetching.run(&["fetch"]).exits(0).silent();
    let token = redis.token("wxtoken:a0").expect("a document");
    assert_eq!(got(&reading), token);
    assert!((7190.0..=7200.0).contains(&lives(&redis, "wxtoken:a0")), "it goes with the token");
    assert_eq!(redis.cli(&["exists", "wxtoken:a0:lock"]), "0");
    for home in [&fetching, &reading] {
        assert_eq!(home.token("a0").as_deref(), Some(&*token));
        assert_eq!(mode_of_copy(home), 0o600);
    }
    let row = reading.run(&["status", "--format", "json"]).exits(0).json();
    assert_eq!(row["accounts"][0]["state"], "live");
    fetching.run(&["fetch"]).exits(0).silent();
    reading.run(&["fetch"]).exits(0).silent();
    assert_eq!(wechat.mints(), 1);
}

#[test]
fn who_publishes_gives_its_copy_the_mode_that_was_asked_for_and_who_reads_gives_nobody_more() {
    let Some(redis) = Redis::start() else { return };
    let wechat = wechat(&[]);
    let [fetching, reading] = [(); 2].map(|()| host(&wechat, &redis));
    fetching.run(&["fetch", "--mode", "640"]).exits(0);
    got(&reading);
    assert_eq!([&fetching, &reading].map(mode_of_copy), [0o640, 0o600]);
    fetching.run(&["fetch", "--mode", "600"]).exits(0);
    assert_eq!(mode_of_copy(&fetching), 0o600, "also where nothing is due");
    fetching.run(&["fetch", "--mode", "640", "--force", "a0"]).exits(0);
    got(&reading);
    assert_eq!([&fetching, &reading].map(mode_of_copy), [0o640, 0o600]);
}

#[test]
fn fifty_fetches_at_once_ask_once() {
    let Some(redis) = Redis::start() else { return };
    let wechat = wechat(&["--fault", "slow:1"]);
    let homes = [(); 2].map(|()| host(&wechat, &redis));
    let fetches: Vec<_> = (0..50).map(|n| spawn(homes[n % 2].command(&["fetch"]))).collect();
    for fetch in fetches {
        let output = fetch.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!((wechat.asked(), wechat.mints()), (1, 1));
    assert_eq!(homes[0].token("a0"), homes[1].token("a0"));
}

#[test]
fn a_forced_token_replaces_the_one_before_for_all() {
    let Some(redis) = Redis::start() else { return };
    let wechat = wechat(&[]);
    let [one, other] = [(); 2].map(|()| host(&wechat, &redis));
    one.run(&["fetch"]).exits(0);
    let before = got(&other);
    one.run(&["fetch", "--force", "a0"]).exits(0);
    let after = got(&other);
    assert_ne!(after, before);
    other.run(&["fetch", "a0", "--rejected", &before]).exits(0).silent();
    assert_eq!((got(&one), wechat.mints()), (after, 2));
}

// Lock and fence

/// A fetch that waits for WeChat, which is slow, with the lock in its hand.
fn holder(home: &Home, wechat: &WeChat, redis: &Redis) -> Child {
    wechat.fault("slow:1");
    let asked = wechat.asked();
    let fetch = spawn(home.command(&["fetch", "a0", "--force", "--timeout", "8s"]));
    eventually("it asks", || wechat.asked() > asked);
    assert_eq!(redis.cli(&["exists", "wxtoken:a0:lock"]), "1");
    fetch
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
}

#[test]
fn who_was_paused_and_lost_the_lock_does_not_overwrite_a_newer_token() {
    let Some(redis) = Redis::start() else { return };
    let wechat = wechat(&[]);
    let [paused, other] = [(); 2].map(|()| host(&wechat, &redis));
    let fetch = holder(&paused, &wechat, &redis);
    signal(&fetch, "STOP");
    // As when its time is over.
    redis.cli(&["del", "wxtoken:a0:lock"]);
    std::thread::sleep(Duration::from_millis(1100)); // Documents tell whole seconds apart.
    other.run(&["fetch"]).exits(0).silent();
    let newer = redis.token("wxtoken:a0").unwrap();
    signal(&fetch, "CONT");
    let output = fetch.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("another host has published a newer document"), "{said}");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(redis.token("wxtoken:a0").as_deref(), Some(&*newer));
    assert_eq!([got(&paused), got(&other)], [&*newer, &*newer]);
    assert!(wechat.is_alive(&newer));
}

#[test]
fn who_lost_the_lock_before_asking_does_not_ask() {
    let Some(redis) = Redis::start() else { return };
    let wechat = wechat(&["--fault", "errcode:-1"]);
    let home = host(&wechat, &redis);
    // The first try fails, and before the second one the lock is somebody else's.
    let fetch = spawn(home.command(&["fetch"]));
    eventually("it asks", || wechat.asked() == 1);
    redis.cli(&["set", "wxtoken:a0:lock", "somebody"]);
    let output = fetch.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the lock wxtoken:a0:lock was lost to another host"), "{said}");
    assert_eq!((output.status.code(), wechat.asked()), (Some(1), 1), "{said}");
    assert_eq!(redis.cli(&["get", "wxtoken:a0:lock"]), "somebody");
}

#[test]
fn a_lock_is_left_to_its_owner_and_ends_by_itself() {
    let Some(redis) = Redis::start() else { return };
    let wechat = wechat(&[]);
    let home = host(&wechat, &redis);
    redis.cli(&["set", "wxtoken:a0:lock", "process 1 on db/x", "px", "1500"]);
    home.run(&["fetch", "--timeout", "500ms"]).exits(6).says(&["another fetch held the lock"]);
    assert_eq!(redis.cli(&["get", "wxtoken:a0:lock"]), "process 1 on db/x");
    home.run(&["fetch"]).exits(0).silent();
    assert_eq!(wechat.mints(), 1);
}

#[test]
fn a_lock_is_extended_while_wechat_is_slow() {
    let Some(redis) = Redis::start() else { return };
    let wechat = wechat(&["--fault", "hang"]);
    let home = host(&wechat, &redis);
    let fetch = spawn(home.command(&["fetch", "a0"]));
    eventually("it asks", || wechat.asked() == 1);
    redis.cli(&["pexpire", "wxtoken:a0:lock", "8000"]);
    eventually("it is extended", || lives(&redis, "wxtoken:a0:lock") > 30.0);
    signal(&fetch, "KILL");
    fetch.wait_with_output().unwrap();
    assert!(lives(&redis, "wxtoken:a0:lock") > 25.0, "a killed one lets go of nothing");
}

// Redis down

#[test]
fn with_redis_down_get_answers_from_the_copy_and_fetch_asks_nobody() {
    let Some(mut redis) = Redis::start() else { return };
    let wechat = wechat(&[]);
    let home = host(&wechat, &redis);
    home.run(&["fetch"]).exits(0);
    let token = got(&home);
    for is_paused in [true, false] {
        if is_paused {
            redis.pause()
        } else {
            redis.kill()
        }
        let began = Instant::now();
        assert_eq!(got(&home), token);
        home.run(&["fetch", "--force", "a0"]).exits(1).says(&[
            "a0",
            "WeChat was not asked",
            "cannot reach",
        ]);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(wechat.asked(), 1);
        if is_paused {
            redis.resume();
        }
    }
    fs::remove_file(home.document_path("a0")).unwrap();
    home.run(&["get", "a0"]).exits(3).says(&["a0: no token: cannot reach redis://127.0.0.1"]);
    redis.revive();
    home.run(&["fetch"]).exits(0).silent();
    assert_eq!(wechat.mints(), 2, "nobody had it any more");
}

#[test]
fn a_check_tries_redis_tells_who_has_the_lock_there_and_looks_at_the_copy_where_redis_is_down() {
    let Some(mut redis) = Redis::start() else { return };
    let wechat = wechat(&[]);
    let home = host(&wechat, &redis);
    home.run(&["fetch"]).exits(0);
    let keys = redis.cli(&["keys", "*"]);
    let told = home.run(&["check"]).exits(0).stdout;
    assert!(told.contains("✓ a0  store ") && told.contains("Redis answers"), "{told}");
    assert_eq!(redis.cli(&["keys", "*"]), keys, "nothing is left there");
    redis.cli(&["set", "wxtoken:a0:lock", "process 1 on db/x", "px", "60000"]);
    let told = home.run(&["check"]).exits(0).stdout;
    assert!(told.contains("! a0  lock         held by process 1 on db: "), "{told}");
    redis.kill();
    let began = Instant::now();
    let told = home.run(&["check"]).exits(1).stdout;
    assert!(told.contains("✗ a0  store ") && told.contains("请检查配置中的 store"), "{told}");
    assert!(told.contains("! a0  lock         nobody can tell"), "{told}");
    assert!(told.contains("✓ a0  token ") && told.contains(" is honoured"), "{told}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // Without a copy nobody knows what is published, and a fetch would not help.
    fs::remove_file(home.document_path("a0")).unwrap();
    let told = home.run(&["check"]).exits(3).stdout;
    assert!(told.contains("✗ a0  token ") && told.contains("See store, above."), "{told}");
    assert!(!told.contains("Run wxtoken fetch"), "{told}");
    assert_eq!(wechat.calls()["token"], 1, "that of fetch");
}

#[test]
fn what_a_flushed_redis_lost_is_put_back_by_whoever_has_a_copy() {
    let Some(redis) = Redis::start() else { return };
    let wechat = wechat(&[]);
    let [one, other] = [(); 2].map(|()| host(&wechat, &redis));
    one.run(&["fetch"]).exits(0);
    let token = redis.token("wxtoken:a0").unwrap();
    redis.cli(&["flushall"]);
    assert_eq!(got(&one), token);
    assert_eq!(redis.cli(&["dbsize"]), "0", "who reads writes nothing");
    one.run(&["fetch", "-v", "-v"]).exits(0);
    assert_eq!(redis.token("wxtoken:a0").as_deref(), Some(&*token));
    other.run(&["fetch"]).exits(0).silent();
    assert_eq!((got(&other), wechat.mints()), (token, 1));
}

#[test]
fn a_token_that_could_not_be_published_is_published_by_the_next_run() {
    let Some(mut redis) = Redis::start() else { return };
    let wechat = wechat(&[]);
    let home = host(&wechat, &redis);
    let fetch = holder(&home, &wechat, &redis);
    redis.kill();
    let output = fetch.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("is published by the next run"), "{said}");
    let token = home.token("a0").expect("the copy has it");
    assert_eq!(got(&home), token);
    redis.revive();
    home.run(&["fetch"]).exits(0).silent();
    assert_eq!((redis.token("wxtoken:a0"), wechat.mints()), (Some(token), 1));
}

/// Whoever is killed between asking and publishing leaves a token that may be dead: its document was cut before.
#[test]
fn a_cut_document_is_not_outlived_by_a_copy_of_the_whole_one() {
    let Some(redis) = Redis::start() else { return };
    let wechat = wechat(&[]);
    let [killed, other] = [(); 2].map(|()| host(&wechat, &redis));
    killed.run(&["fetch"]).exits(0);
    got(&other);
    let fetch = holder(&killed, &wechat, &redis);
    signal(&fetch, "KILL");
    fetch.wait_with_output().unwrap();
    // The key stands as long as anybody's copy may; what it says is over in five minutes.
    assert!(lives(&redis, "wxtoken:a0") > 7000.0);
    let row = other.run(&["status", "--format", "json"]).json();
    assert!(row["accounts"][0]["expires_in"].as_u64().unwrap() <= 300, "{row}");
}

// What a failover brings back

#[test]
fn an_older_token_that_a_failover_brought_back_is_handed_out_by_nobody_who_knows_the_newer() {
    let Some(redis) = Redis::start() else { return };
    let wechat = wechat(&[]);
    let home = host(&wechat, &redis);
    home.run(&["fetch"]).exits(0);
    let older = redis.cli(&["get", "wxtoken:a0"]);
    std::thread::sleep(Duration::from_millis(1100)); // Documents tell whole seconds apart.
    home.run(&["fetch", "--force", "a0"]).exits(0);
    let newer = redis.token("wxtoken:a0").unwrap();
    let server = home.serve(&[]);
    redis.cli(&["set", "wxtoken:a0", &older, "ex", "7200"]);
    assert_eq!(got(&home), newer);
    let until = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < until {
        assert_eq!(server.get("/token").json()["access_token"].as_str(), Some(&*newer));
    }
    home.run(&["fetch"]).exits(0).silent();
    assert_eq!((redis.token("wxtoken:a0"), wechat.mints()), (Some(newer), 2));
}

// Keys for SDKs

#[test]
fn sdks_find_the_bare_token_under_keys_of_theirs_for_as_long_as_it_lives() {
    let Some(redis) = Redis::start() else { return };
    let wechat = wechat(&[]);
    let also = "also = [
        { key = \"wechatpy:{appid}_access_token\", format = \"json-string\" },
        { key = \"wx:access_token:{appid}:{account}\", format = \"text\" },
    ]";
    let home = host_on("classic", &wechat, &redis.url(), also);
    home.run(&["fetch"]).exits(0).silent();
    for _ in 0..2 {
        let token = redis.token("wxtoken:a0").unwrap();
        assert_eq!(redis.cli(&["get", "wechatpy:wx0_access_token"]), format!("\"{token}\""));
        assert_eq!(redis.cli(&["get", "wx:access_token:wx0:a0"]), token);
        for key in ["wechatpy:wx0_access_token", "wx:access_token:wx0:a0"] {
            assert!((7190.0..=7200.0).contains(&lives(&redis, key)), "{key}");
        }
        home.run(&["fetch", "--force", "a0"]).exits(0).silent();
    }
    // While a token is being replaced, and if that fails, they live no longer than it is sure to.
    let fetch = holder(&home, &wechat, &redis);
    assert!(lives(&redis, "wx:access_token:wx0:a0") <= 300.0);
    assert!(fetch.wait_with_output().unwrap().status.success());
    assert!(lives(&redis, "wx:access_token:wx0:a0") > 7190.0);
    // An SDK deletes it when WeChat rejects the token, or writes one of its own.
    let token = redis.token("wxtoken:a0").unwrap();
    redis.cli(&["del", "wechatpy:wx0_access_token"]);
    redis.cli(&["set", "wx:access_token:wx0:a0", "T_ITS_OWN"]);
    home.run(&["fetch"]).exits(0).silent();
    assert_eq!(redis.cli(&["get", "wechatpy:wx0_access_token"]), format!("\"{token}\""));
    assert_eq!(redis.cli(&["get", "wx:access_token:wx0:a0"]), token);
    assert!((7100.0..=7200.0).contains(&lives(&redis, "wx:access_token:wx0:a0")));
    redis.cli(&["del", "wechatpy:wx0_access_token"]);
    let server = home.serve(&["--refresh"]);
    eventually("serve sees to it, too", || {
        redis.cli(&["get", "wechatpy:wx0_access_token"]) == format!("\"{token}\"")
    });
    server.stop();
    // One that the user may not write is found out before WeChat is asked.
    redis.cli(&["acl", "setuser", "default", "resetkeys", "~wxtoken:*"]);
    let asked = wechat.asked();
    home.run(&["fetch", "--force", "a0"]).exits(1).says(&["its user may not do this"]);
    assert_eq!(wechat.asked(), asked);
}

#[test]
fn the_keys_of_sdks_get_no_token_of_another_account() {
    let Some(redis) = Redis::start() else { return };
    let wechat = wechat(&[]);
    let also = "also = [{ key = \"wx:{appid}\", format = \"text\" }]";
    let home = host_on("classic", &wechat, &redis.url(), also);
    home.run(&["fetch"]).exits(0).silent();
    let foreign = redis.cli(&["get", "wxtoken:a0"]).replace("\"wx0\"", "\"wx9\"");
    redis.cli(&["set", "wxtoken:a0", &foreign]);
    redis.cli(&["del", "wx:wx0"]);
    let server = home.serve_with_log(&["--refresh", "-vv"]);
    // It is seen to before anything is refreshed.
    eventually("it has looked", || home.has_logged("belongs to wx9"));
    eventually("it has seen to the keys", || home.has_logged("what stands elsewhere"));
    drop(server);
    assert_eq!(redis.cli(&["exists", "wx:wx0"]), "0");
}

// check

#[test]
fn check_tells_whether_redis_can_be_written_and_who_holds_the_lock() {
    let Some(mut redis) = Redis::start() else { return };
    let wechat = wechat(&[]);
    let home = host_on("stable", &wechat, &redis.url(), "timeout = \"500ms\"");
    home.run(&["fetch"]).exits(0);
    redis.cli(&["set", "wxtoken:a0:lock", "process 7 on db/0123", "px", "60000"]);
    let ran = home.run(&["check"]);
    for part in ["can be published: Redis answers, and can be written", "held by process 7 on db"] {
        assert!(ran.stdout.contains(part), "{part}: {} {}", ran.stdout, ran.stderr);
    }
    assert_eq!(redis.cli(&["get", "wxtoken:a0:lock"]), "process 7 on db/0123");
    redis.kill();
    let ran = home.run(&["check"]).exits(1);
    assert!(ran.stdout.contains("cannot be published: cannot reach redis://"), "{}", ran.stdout);
}

/// A host whose clock is ahead has published, and one whose clock is right replaces it.
#[test]
fn a_token_that_was_made_by_a_clock_ahead_is_replaced_for_those_who_keep_a_copy_of_it() {
    let Some(redis) = Redis::start() else { return };
    let wechat = wechat(&[]);
    let [one, other] = [(); 2].map(|()| host(&wechat, &redis));
    one.run(&["fetch"]).exits(0);
    let ahead = time::UtcDateTime::now() + time::Duration::seconds(30);
    let ahead = ahead.format(&time::format_description::well_known::Rfc3339).unwrap();
    let mut document: serde_json::Value =
        serde_json::from_str(&redis.cli(&["get", "wxtoken:a0"])).unwrap();
    let token = document["access_token"].as_str().unwrap().to_owned();
    document["created_at"] = format!("{}Z", &ahead[..19]).into();
    redis.cli(&["set", "wxtoken:a0", &document.to_string(), "ex", "7200"]);
    assert_eq!(got(&other), token);
    one.run(&["fetch", "--force", "a0"]).exits(0).silent();
    let next = redis.token("wxtoken:a0").unwrap();
    assert_ne!(next, token);
    assert_eq!([got(&one), got(&other)], [&*next, &*next]);
    other.run(&["fetch"]).exits(0).silent();
    assert_eq!((redis.token("wxtoken:a0"), wechat.mints()), (Some(next), 2));
}

#[test]
fn a_document_that_was_cut_before_asking_in_vain_is_put_back_as_it_was() {
    let Some(redis) = Redis::start() else { return };
    let wechat = wechat(&[]);
    let also = "also = [{ key = \"wx:{appid}\", format = \"text\" }]";
    let home = host_on("classic", &wechat, &redis.url(), also);
    home.run(&["fetch"]).exits(0);
    let before = redis.cli(&["get", "wxtoken:a0"]);
    wechat.fault("errcode:-1");
    let fetch = spawn(home.command(&["fetch", "a0", "--force", "--timeout", "3s"]));
    eventually("it is cut", || redis.cli(&["get", "wxtoken:a0"]) != before);
    assert_eq!(fetch.wait_with_output().unwrap().status.code(), Some(5));
    assert_eq!(redis.cli(&["get", "wxtoken:a0"]), before);
    assert_eq!(fs::read_to_string(home.document_path("a0")).unwrap().trim_end(), before);
    for key in ["wxtoken:a0", "wx:wx0"] {
        assert!(lives(&redis, key) > 7180.0, "{key}");
    }
}
